//! moka, `sync::Cache`. A get clones the value, as it always does there.

use anyhow::Result;
use moka::sync::Cache;

use super::{Peer, Settings, Value};

/// `moka::sync::Cache`.
pub struct Moka<V: Value>(Cache<u64, V>);

impl<V: Value> Peer<V> for Moka<V> {
    fn build(settings: &Settings) -> Result<Self> {
        let mut builder = Cache::builder()
            .max_capacity(settings.capacity as u64)
            .initial_capacity(settings.entries);
        if V::HAS_COST {
            builder =
                builder.weigher(|_, value: &V| u32::try_from(value.cost()).unwrap_or(u32::MAX));
        }
        Ok(Self(builder.build()))
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

    fn settle(&self) {
        self.0.run_pending_tasks();
    }

    fn len(&self) -> Option<usize> {
        Some(self.0.entry_count() as usize)
    }
}
