//! TinyUFO, in its faster form. A get clones the value, and the cache cannot tell how many it has.

use ::tinyufo::TinyUfo as Cache;
use anyhow::Result;

use super::{Peer, Settings, Value};

/// `TinyUfo`.
pub struct TinyUfo<V: Value>(Cache<u64, V>);

impl<V: Value> Peer<V> for TinyUfo<V> {
    fn build(settings: &Settings) -> Result<Self> {
        Ok(Self(Cache::new(settings.capacity, settings.capacity)))
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
        self.0.put(key, value, 1);
    }

    fn len(&self) -> Option<usize> {
        None
    }
}
