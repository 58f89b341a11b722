//! papaya: a lock-free map that evicts nothing, as a floor.

use anyhow::Result;
use papaya::HashMap;

use super::{Peer, Settings, Value};

/// `papaya::HashMap`.
pub struct Papaya<V: Value>(HashMap<u64, V>);

impl<V: Value> Peer<V> for Papaya<V> {
    fn build(settings: &Settings) -> Result<Self> {
        Ok(Self(HashMap::with_capacity(settings.capacity)))
    }

    #[inline]
    fn get(&self, key: u64) -> bool {
        self.0.pin().get(&key).is_some_and(|value| {
            value.look();
            true
        })
    }

    #[inline]
    fn insert(&self, key: u64, value: V) {
        self.0.pin().insert(key, value);
    }

    fn len(&self) -> Option<usize> {
        Some(self.0.len())
    }
}
