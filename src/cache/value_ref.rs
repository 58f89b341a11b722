//! `ValueRef`: a reference to a value, with the guard that keeps it readable.

use std::{ops::Deref, time::Duration};

use crate::{engine::Timing, entry::Entry, table::Held};

/// A reference to a value of the cache, readable for as long as this lives.
///
/// It dereferences to the value. It pins its thread: no other thread waits for it, but entries that
/// are removed while it lives are not freed before it is dropped.
///
/// Therefore it is not `Send`. If one lives across an `.await`, rustc reports for a spawned future
/// that "`NonNull<cortado::entry::Entry<…>>` cannot be sent between threads safely" or "`*mut ()`
/// cannot be sent between threads safely", and for an axum handler that "the trait bound `…:
/// Handler<_, _>` is not satisfied". Use [`Cache::get_cloned`](crate::Cache::get_cloned) there, or
/// drop the `ValueRef` before the `.await`.
///
/// ```compile_fail
/// fn is_send<T: Send>(_: T) {}
/// let cache = cortado::Cache::<u64, u64>::new(1);
/// is_send(cache.get(&1));
/// ```
///
/// # Examples
///
/// ```
/// let cache = cortado::Cache::new(10);
/// cache.insert_with_cost("k", "v", 3);
/// let value = cache.get("k").unwrap();
/// assert_eq!((*value.key(), *value.value(), value.cost()), ("k", "v", 3));
/// ```
pub struct ValueRef<'a, K, V> {
    entry: Held<'a, Entry<K, V>>,
    timing: &'a Timing,
}

impl<'a, K, V> ValueRef<'a, K, V> {
    #[inline]
    pub(super) fn new(entry: Held<'a, Entry<K, V>>, timing: &'a Timing) -> Self {
        Self { entry, timing }
    }

    /// Returns the key, as it was inserted.
    pub fn key(&self) -> &K {
        &self.entry.key
    }

    /// Returns the value.
    #[inline]
    pub fn value(&self) -> &V {
        &self.entry.value
    }

    /// Returns the cost that was charged for the entry.
    pub fn cost(&self) -> u64 {
        self.entry.get().metadata().charge()
    }

    /// Returns the rest of the entry's time to live; `None` if it does not expire.
    pub fn ttl(&self) -> Option<Duration> {
        self.timing.left(self.entry.get().metadata().times()?)
    }
}

impl<K, V> Deref for ValueRef<'_, K, V> {
    type Target = V;

    #[inline]
    fn deref(&self) -> &V {
        self.value()
    }
}

impl<K: std::fmt::Debug, V: std::fmt::Debug> std::fmt::Debug for ValueRef<'_, K, V> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ValueRef").field("key", self.key()).field("value", self.value()).finish()
    }
}
