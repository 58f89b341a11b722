//! quick_cache, `sync::Cache`. A get clones the value, as it always does there.

use anyhow::Result;
use quick_cache::sync::Cache;

use super::{Peer, Settings, Value};

/// `quick_cache::sync::Cache`.
pub struct QuickCache<V: Value>(Cache<u64, V>);

impl<V: Value> Peer<V> for QuickCache<V> {
    fn build(settings: &Settings) -> Result<Self> {
        Ok(Self(Cache::new(settings.capacity)))
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
