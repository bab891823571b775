//! Small numbers for backends and models.
//!
//! Names are in one table (the ledger's catalog for models, the configuration for backends); a request carries these indices
//! instead, so that no label is looked up per token.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

/// Index of a backend in the configuration's order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct BackendId(pub u16);

impl BackendId {
    /// The backend at a position of a table; a position above the largest is the largest.
    pub fn from_index(index: usize) -> Self {
        Self(u16::try_from(index).unwrap_or(u16::MAX))
    }

    /// Its position in a table.
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// Index of a model name in the ledger's catalog.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ModelId(pub u16);

/// Whether an address is link-local, also when it is written as IPv4 inside IPv6: 169.254.0.0/16 and fe80::/10, where clouds
/// keep their metadata services. Nothing there is ever a backend.
pub fn is_link_local(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    }
}
