//! How many connections one client address may have open.
//!
//! Counted in the whole process, and only while a cap is set.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

/// Connections per client address. Of IPv6 the first 64 bits count: a client that has one address has
/// all of them.
#[derive(Debug)]
pub struct Addresses {
    /// 0: any number.
    cap: AtomicUsize,
    open: Mutex<HashMap<IpAddr, usize>>,
}

impl Addresses {
    /// At most `cap` connections for each address; `None`: any number.
    pub fn new(cap: Option<usize>) -> Self {
        Self { cap: AtomicUsize::new(cap.unwrap_or(0)), open: Mutex::default() }
    }

    /// Another cap from now on. Connections that came while there was none are not counted.
    pub fn set_cap(&self, cap: Option<usize>) {
        self.cap.store(cap.unwrap_or(0), Relaxed);
    }

    pub(super) fn enter(self: &Arc<Self>, address: IpAddr) -> Option<AddressSlot> {
        let cap = match self.cap.load(Relaxed) {
            0 => return Some(AddressSlot(None)),
            cap => cap,
        };
        let address = match address.to_canonical() {
            IpAddr::V6(v6) => IpAddr::from((u128::from(v6) & HOSTS_PART_LEFT_OUT).to_be_bytes()),
            v4 => v4,
        };
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let count = open.entry(address).or_default();
        if *count >= cap {
            return None;
        }
        *count += 1;
        Some(AddressSlot(Some((self.clone(), address))))
    }
}

pub(super) struct AddressSlot(Option<(Arc<Addresses>, IpAddr)>);

impl Drop for AddressSlot {
    fn drop(&mut self) {
        let Some((addresses, address)) = &self.0 else { return };
        let mut open = addresses.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = open.get_mut(address) {
            *count -= 1;
            if *count == 0 {
                open.remove(address);
            }
        }
    }
}

/// The network's part of an IPv6 address.
const HOSTS_PART_LEFT_OUT: u128 = !(u64::MAX as u128);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_at_its_cap_is_refused_until_one_leaves() {
        let addresses = Arc::new(Addresses::new(Some(2)));
        let (a, b) = (IpAddr::from([127, 0, 0, 1]), IpAddr::from([127, 0, 0, 2]));
        let first = addresses.enter(a);
        let _second = addresses.enter(a);
        assert!(addresses.enter(a).is_none());
        assert!(addresses.enter(b).is_some(), "another address is not affected");
        drop(first);
        assert!(addresses.enter(a).is_some());
    }

    #[test]
    fn an_ipv6_network_and_a_mapped_address_count_as_one() {
        let addresses = Arc::new(Addresses::new(Some(1)));
        let enter = |text: &str| addresses.enter(text.parse().unwrap());
        let _slots = (enter("2001:db8::1"), enter("::ffff:10.0.0.1"));
        for taken in ["2001:db8::2", "2001:db8::ffff:1:1:1", "10.0.0.1"] {
            assert!(enter(taken).is_none(), "{taken}");
        }
        for free in ["2001:db8:0:1::1", "10.0.0.2", "::ffff:10.0.0.3"] {
            assert!(enter(free).is_some(), "{free}");
        }
    }

    #[test]
    fn without_a_cap_no_address_is_refused() {
        let addresses = Arc::new(Addresses::new(None));
        let slots: Vec<_> = (0..10_000).map(|_| addresses.enter(IpAddr::from([127, 0, 0, 1]))).collect();
        assert!(slots.iter().all(Option::is_some));
    }
}
