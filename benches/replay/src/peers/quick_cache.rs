//! quick_cache, `sync::Cache`. A get clones the value, as it always does there.

use anyhow::Result;
use quick_cache::{Weighter, sync::Cache};

use super::{Peer, Settings, Value};

/// `quick_cache::sync::Cache`.
pub struct QuickCache<V: Value>(Cache<u64, V, Cost>);

/// What an entry takes of the capacity. A value without a cost takes 1, which the compiler knows:
/// this is then quick_cache's own `UnitWeighter`.
#[derive(Clone)]
pub struct Cost;

impl<V: Value> Weighter<u64, V> for Cost {
    #[inline]
    fn weight(&self, _key: &u64, value: &V) -> u64 {
        value.cost()
    }
}

impl<V: Value> Peer<V> for QuickCache<V> {
    fn build(settings: &Settings) -> Result<Self> {
        Ok(Self(Cache::with_weighter(settings.entries, settings.capacity as u64, Cost)))
    }

    #[inline]
    fn get(&self, key: u64) -> bool {
        self.0.get(&key).is_some_and(|value| {
            value.look();
            true
        })
    }

    #[inline]
    fn insert(&self, key: u64, value: V) {
        self.0.insert(key, value);
    }

    fn len(&self) -> Option<usize> {
        Some(self.0.len())
    }
}
