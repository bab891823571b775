//! Hints of a trusted caller about its request: class, tenant, objective for the first token.
//!
//! Read from a head whose untrusted hints were dropped before. What is not understood counts as absent. The names of tenants are
//! kept in a table of fixed size and shown nowhere.

use std::sync::{PoisonError, RwLock};
use std::time::Duration;

use crate::admission::{Class, Tenant};

/// A request's hints.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TrustedHints {
    pub class: Class,
    pub tenant: Tenant,
    /// May tighten the route's objective.
    pub slo_ttft: Option<Duration>,
}

/// Numbers for the names of tenants: the first hundred have their own, all others share one.
#[derive(Debug, Default)]
pub struct Tenants(RwLock<Vec<Box<[u8]>>>);

impl TrustedHints {
    /// From the values of the three fields, as they came.
    pub fn read(priority: Option<&[u8]>, tenant: Option<&[u8]>, slo_ttft: Option<&[u8]>, tenants: &Tenants) -> Self {
        Self {
            class: priority.map_or(Class::Default, class),
            tenant: tenant.map_or(Tenant(0), |name| tenants.number(name)),
            slo_ttft: slo_ttft.and_then(milliseconds),
        }
    }
}

impl Tenants {
    /// The number of `name`; 0 is no tenant in particular.
    pub fn number(&self, name: &[u8]) -> Tenant {
        let name = &name[..name.len().min(NAME_LIMIT)];
        if name.is_empty() {
            return Tenant(0);
        }
        let place = |names: &[Box<[u8]>]| names.iter().position(|known| **known == *name);
        let known = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let (found, full) = (place(&known), known.len() >= TENANT_LIMIT);
        drop(known);
        let place = match found {
            Some(place) => place,
            // A full table is only read: a client that invents names must not make others wait for a writer.
            None if full => return OTHERS,
            None => {
                let mut names = self.0.write().unwrap_or_else(PoisonError::into_inner);
                match place(&names) {
                    Some(place) => place,
                    None if names.len() >= TENANT_LIMIT => return OTHERS,
                    None => {
                        names.push(name.into());
                        names.len() - 1
                    }
                }
            }
        };
        Tenant(u16::try_from(place + 1).unwrap_or(OTHERS.0))
    }
}

fn class(name: &[u8]) -> Class {
    let known = |class: &Class| name.eq_ignore_ascii_case(class.as_str().as_bytes());
    Class::ALL.into_iter().find(known).unwrap_or_default()
}

/// A whole number of milliseconds, from one to an hour of them.
fn milliseconds(value: &[u8]) -> Option<Duration> {
    let value = std::str::from_utf8(value).ok()?.trim().parse().ok()?;
    (1..=3_600_000).contains(&value).then(|| Duration::from_millis(value))
}

const TENANT_LIMIT: usize = 100;
const OTHERS: Tenant = Tenant(TENANT_LIMIT as u16 + 1);
/// Longer names that begin alike are one tenant.
const NAME_LIMIT: usize = 128;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hundred_names_have_own_numbers_and_the_rest_share_one() {
        let tenants = Tenants::default();
        let numbers: Vec<_> = (0..200).map(|i| tenants.number(format!("t{i}").as_bytes()).0).collect();
        assert_eq!(numbers[..100], (1..=100).collect::<Vec<u16>>());
        assert!(numbers[100..].iter().all(|number| *number == OTHERS.0));
        assert_eq!((tenants.number(b"t7"), tenants.number(b"")), (Tenant(8), Tenant(0)));
        let long = [b'x'; 4000];
        assert_eq!(tenants.number(&long), OTHERS);
    }

    #[test]
    fn what_is_not_understood_counts_as_not_said() {
        let read = |priority: &str, slo: &str| {
            TrustedHints::read(Some(priority.as_bytes()), None, Some(slo.as_bytes()), &Tenants::default())
        };
        assert_eq!(
            (read("Bulk", "250").class, read("", "250").slo_ttft),
            (Class::Bulk, Some(Duration::from_millis(250)))
        );
        for slo in ["", "0", "-5", "1.5", "3600001", "99999999999999999999", "\u{661}"] {
            assert_eq!(read("root", slo), TrustedHints::default(), "{slo}");
        }
    }
}
