//! hashbrown's map, filled once and then only read: the floor of a lookup.
//!
//! It is filled under a Mutex; [`Peer::settle`] moves it out, and from then on a get costs one
//! predictable branch more than the bare map. Inserts after that have nowhere to go and are
//! refused by the command line.

use std::sync::{Mutex, OnceLock, PoisonError};

use anyhow::Result;
use hashbrown::HashMap;

use super::{Peer, Settings, Value};

/// `hashbrown::HashMap`, frozen after the fill.
pub struct Hashbrown<V: Value> {
    filling: Mutex<HashMap<u64, V>>,
    frozen: OnceLock<HashMap<u64, V>>,
}

impl<V: Value> Peer<V> for Hashbrown<V> {
    fn build(settings: &Settings) -> Result<Self> {
        Ok(Self {
            filling: Mutex::new(HashMap::with_capacity(settings.capacity)),
            frozen: OnceLock::new(),
        })
    }

    #[inline]
    fn get(&self, key: u64) -> bool {
        self.frozen.get().and_then(|map| map.get(&key)).is_some_and(|value| {
            value.look();
            true
        })
    }

    fn insert(&self, key: u64, value: V) {
        self.filling.lock().unwrap_or_else(PoisonError::into_inner).insert(key, value);
    }

    fn settle(&self) {
        self.frozen.get_or_init(|| {
            std::mem::take(&mut *self.filling.lock().unwrap_or_else(PoisonError::into_inner))
        });
    }

    fn len(&self) -> Option<usize> {
        self.frozen.get().map(HashMap::len)
    }
}
