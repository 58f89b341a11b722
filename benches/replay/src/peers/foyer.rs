//! foyer-memory, with its S3-FIFO or its LFU; its eight shards are its default.

use anyhow::Result;
use foyer_memory::{Cache, CacheBuilder, EvictionConfig, LfuConfig, S3FifoConfig};

use super::{Peer, Settings, Value};

/// `foyer_memory::Cache`.
pub struct Foyer<V: Value>(Cache<u64, V>);

impl<V: Value> Foyer<V> {
    /// Builds one with its LFU.
    pub fn build_lfu(settings: &Settings) -> Result<Self> {
        Self::build_with(settings, LfuConfig::default().into())
    }

    fn build_with(settings: &Settings, eviction: EvictionConfig) -> Result<Self> {
        let mut builder = CacheBuilder::new(settings.capacity);
        if V::HAS_COST {
            builder = builder.with_weighter(|_, value: &V| value.cost() as usize);
        }
        Ok(Self(builder.with_eviction_config(eviction).build()))
    }
}

impl<V: Value> Peer<V> for Foyer<V> {
    fn build(settings: &Settings) -> Result<Self> {
        Self::build_with(settings, S3FifoConfig::default().into())
    }

    #[inline]
    fn get(&self, key: u64) -> bool {
        self.0.get(&key).is_some_and(|entry| {
            entry.value().look();
            true
        })
    }

    #[inline]
    fn insert(&self, key: u64, value: V) {
        self.0.insert(key, value);
    }

    fn len(&self) -> Option<usize> {
        Some(self.0.entries())
    }
}
