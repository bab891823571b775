//! FNV-1a, for maps that every request reads and that hold few keys: a hundred names, a few accounts.
//!
//! The standard library's hash defends maps of any size against chosen keys, at ten times the price; where the number of keys
//! is bounded, chosen keys make a look-up compare that many and no more.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

/// A map of few keys.
pub(super) type FewMap<K, V> = HashMap<K, V, BuildHasherDefault<Fnv>>;

/// The running hash.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fnv(u64);

impl Default for Fnv {
    fn default() -> Self {
        Self(OFFSET_BASIS)
    }
}

impl Hasher for Fnv {
    fn write(&mut self, bytes: &[u8]) {
        for b in bytes {
            self.0 = (self.0 ^ u64::from(*b)).wrapping_mul(PRIME);
        }
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// draft-eastlake-fnv, 64 bits.
const OFFSET_BASIS: u64 = 0xcbf2_9ce4_8422_2325;
const PRIME: u64 = 0x0000_0100_0000_01b3;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_gives_the_published_values() {
        for (text, hash) in [("", OFFSET_BASIS), ("a", 0xaf63_dc4c_8601_ec8c), ("foobar", 0x8594_4171_f739_67e8)] {
            let mut fnv = Fnv::default();
            fnv.write(text.as_bytes());
            assert_eq!(fnv.finish(), hash, "{text}");
        }
    }
}
