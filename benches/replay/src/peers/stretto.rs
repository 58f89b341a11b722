//! stretto, `Cache`, with the ten counters an entry that its documentation recommends.

use anyhow::{Context as _, Result};
use stretto::Cache;

use super::{Peer, Settings, Value};

/// `stretto::Cache`.
pub struct Stretto<V: Value>(Cache<u64, V>);

impl<V: Value> Peer<V> for Stretto<V> {
    fn build(settings: &Settings) -> Result<Self> {
        let capacity = i64::try_from(settings.capacity).context("stretto counts in i64")?;
        Cache::new(settings.entries.saturating_mul(10), capacity)
            .map(Self)
            .context("stretto could not be built")
    }

    #[inline]
    fn get(&self, key: u64) -> bool {
        self.0.get(&key).is_some_and(|value| {
            value.value().look();
            true
        })
    }

    #[inline]
    fn insert(&self, key: u64, value: V) {
        let cost = value.cost() as i64;
        self.0.insert(key, value, cost);
    }

    fn settle(&self) {
        // It fails only once the cache is closed, and then there is nothing to wait for.
        let _ = self.0.wait();
    }

    fn len(&self) -> Option<usize> {
        Some(self.0.len())
    }
}
