//! foyer-memory, with its S3-FIFO or its LFU; its eight shards are its default.

use anyhow::Result;
use foyer_memory::{Cache, CacheBuilder, LfuConfig, S3FifoConfig};

use super::{Peer, Settings, Value};

/// `foyer_memory::Cache`.
pub struct Foyer<V: Value, const LFU: bool>(Cache<u64, V>);

impl<V: Value, const LFU: bool> Peer<V> for Foyer<V, LFU> {
    fn build(settings: &Settings) -> Result<Self> {
        let mut builder = CacheBuilder::new(settings.capacity);
        if V::HAS_COST {
            builder = builder.with_weighter(|_, value: &V| value.cost() as usize);
        }
        let builder = if LFU {
            builder.with_eviction_config(LfuConfig::default())
        } else {
            builder.with_eviction_config(S3FifoConfig::default())
        };
        Ok(Self(builder.build()))
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
