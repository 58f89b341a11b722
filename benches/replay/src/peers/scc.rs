//! scc, `HashCache`: 32-way associative, so each bucket evicts by itself.
//!
//! Its capacity rounds up to a power of two. A get goes through `get_sync`, which marks the entry
//! as recently used; `read_sync` would not.

use anyhow::Result;
use scc::HashCache;

use super::{Peer, Settings, Value};

/// The least capacity that it has, whatever is asked for.
pub const LEAST_CAPACITY: usize = 64;

/// `scc::HashCache`.
pub struct Scc<V: Value>(HashCache<u64, V>);

impl<V: Value> Peer<V> for Scc<V> {
    fn build(settings: &Settings) -> Result<Self> {
        Ok(Self(HashCache::with_capacity(settings.capacity, settings.capacity)))
    }

    #[inline]
    fn get(&self, key: u64) -> bool {
        self.0.get_sync(&key).is_some_and(|entry| {
            entry.get().look();
            true
        })
    }

    #[inline]
    fn insert(&self, key: u64, value: V) {
        self.0.entry_sync(key).put_entry(value);
    }

    fn len(&self) -> Option<usize> {
        Some(self.0.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peers::Kind;

    #[test]
    fn capacity_is_what_the_cache_says() {
        for capacity in [1, 60, 64, 65, 250, 256, 1_000, 4_096, 200_000] {
            let peer = <Scc<u64> as Peer<u64>>::build(&Settings::for_entries(capacity, 1)).unwrap();
            let said = Kind::Scc.rounded_up(capacity).unwrap_or(capacity);
            assert_eq!(*peer.0.capacity_range().end(), said, "{capacity}");
        }
        assert_eq!(Kind::Moka.rounded_up(1_000), None);
    }
}
