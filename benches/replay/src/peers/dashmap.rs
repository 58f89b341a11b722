//! dashmap: a sharded map that evicts nothing, as a floor.

use anyhow::Result;
use dashmap::DashMap;

use super::{Peer, Settings, Value};

/// `dashmap::DashMap`.
pub struct Dashmap<V: Value>(DashMap<u64, V>);

impl<V: Value> Peer<V> for Dashmap<V> {
    fn build(settings: &Settings) -> Result<Self> {
        Ok(Self(DashMap::with_capacity(settings.capacity)))
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
