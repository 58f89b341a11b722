//! lru in a Mutex: what one writes oneself in five minutes.

use std::num::NonZeroUsize;
use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::{Context as _, Result};
use lru::LruCache;

use super::{Peer, Settings, Value};

/// `lru::LruCache` in a Mutex.
pub struct Lru<V: Value>(Mutex<LruCache<u64, V>>);

impl<V: Value> Lru<V> {
    #[inline]
    fn lock(&self) -> MutexGuard<'_, LruCache<u64, V>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<V: Value> Peer<V> for Lru<V> {
    fn build(settings: &Settings) -> Result<Self> {
        let capacity = NonZeroUsize::new(settings.capacity).context("lru needs a capacity")?;
        Ok(Self(Mutex::new(LruCache::new(capacity))))
    }

    #[inline]
    fn get(&self, key: u64) -> bool {
        self.lock().get(&key).is_some_and(|value| {
            value.look();
            true
        })
    }

    #[inline]
    fn insert(&self, key: u64, value: V) {
        // The old value is dropped after the lock is released.
        let _old = self.lock().push(key, value);
    }

    fn len(&self) -> Option<usize> {
        Some(self.lock().len())
    }
}
