//! Function memoization: the macros of the [`cached`] crate, with a [`Cache`] as the store.
//!
//! The macros refer to the crate by name, so users also need a dependency on `cached` (4.1, Rust
//! 1.92). This crate's feature `cached` turns on the features of it that they need.
//!
//! Prefer [`concurrent_cached`](::cached::macros::concurrent_cached): it uses the [`Store`]
//! directly, and a hit is a hit of the cache, which waits for no other thread.
//! [`cached`](::cached::macros::cached) wraps the store in a lock and takes it for writing at every
//! call, even for a hit: one call at a time, and one more clone. It is for functions that do not
//! return a `Result`, which `concurrent_cached` requires, and for `sync_writes`.
//!
//! # Examples
//!
//! Times to live, costs and all other settings are set by the builder of the cache:
//!
//! ```
//! use std::{convert::Infallible, time::Duration};
//! use cached::macros::concurrent_cached;
//! use cortado::{Cache, integrations::cached::Store};
//!
//! #[concurrent_cached(
//!     ty = "Store<u64, String>",
//!     create = {
//!         let ttl = Duration::from_secs(60);
//!         Cache::builder().max_cost(1000).ttl(ttl).build().expect("the settings are legal").into()
//!     }
//! )]
//! fn hexadecimal(n: u64) -> Result<String, Infallible> {
//!     Ok(format!("{n:x}"))
//! }
//!
//! assert_eq!(hexadecimal(255).as_deref(), Ok("ff"));
//! assert_eq!(HEXADECIMAL.cache().get(&255).as_deref().map(String::as_str), Some("ff"));
//! ```
//!
//! The store never fails. A function with an error of its own maps the store's error, unless its
//! error type is `From<Infallible>`. An error of the function is not stored:
//!
//! ```
//! use std::num::ParseIntError;
//! use cached::macros::concurrent_cached;
//! use cortado::integrations::cached::Store;
//!
//! #[concurrent_cached(
//!     ty = "Store<String, u64>",
//!     create = { Store::new(1000) },
//!     map_error = |never| -> ParseIntError { match never {} }
//! )]
//! async fn parsed(text: &str) -> Result<u64, ParseIntError> {
//!     text.parse()
//! }
//!
//! # use std::{pin::pin, task::{Context, Poll, Waker}};
//! # fn block_on<T>(future: impl Future<Output = T>) -> T {
//! #     match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
//! #         Poll::Ready(output) => output,
//! #         Poll::Pending => unreachable!(),
//! #     }
//! # }
//! # block_on(async {
//! assert_eq!(parsed("4").await, Ok(4));
//! assert!(parsed("four").await.is_err());
//! assert_eq!(PARSED.get().map(|store| store.cache().len()), Some(1));
//! # });
//! ```

use std::{
    borrow::Borrow,
    convert::Infallible,
    hash::{BuildHasher, Hash},
};

use ::cached::{
    Cached, ConcurrentCacheBase, ConcurrentCachePeek, ConcurrentCachePeekAsync, ConcurrentCached,
    ConcurrentCachedAsync,
};

use crate::{
    cache::{Cache, DefaultHashBuilder},
    metrics::Metrics,
};

/// A store for memoized functions: the traits of the [`cached`] crate over a [`Cache`].
///
/// Created by [`new`](Self::new), or [`From`] a cache with other settings. That may be a handle to
/// a cache that is also used directly.
///
/// # What differs from the stores of that crate
///
/// - A value that the cache rejects is returned and not stored; the function runs again at the next
///   call.
/// - The macros look up, run the function and store: if calls miss concurrently, each runs it. To
///   run it once, use `#[cached(sync_writes = "by_key")]`, `cache_get_or_set_with` and its variants
///   of [`ConcurrentCached`] and [`ConcurrentCachedAsync`], or the cache's own
///   [loaders](Cache::get_or_insert_with).
/// - `cache_set` returns the value that the key had just before. If other threads write the same
///   key, that may not be the value that was replaced.
/// - An expired entry is never returned, not even by `cache_remove_entry`, and `cache_delete`
///   returns `false` for it. So there is no `CloneCached`, and no `result_fallback`.
/// - Counters never decrease: `cache_reset_metrics` does nothing, and `cache_reset` only clears.
///   They are `None` until the cache has counted something, which requires that its builder turned
///   [`metrics`](crate::CacheBuilder::metrics) on.
/// - The capacity is the budget, in the unit of costs.
/// - The async methods are ready at once, except those that wait for a load.
///
/// # Through `&mut`
///
/// [`Cached`] returns references, and references into a lock-free cache end with a pin. So the
/// store keeps a clone of the value that it returned last, until the next call of that trait. A
/// change made through a `&mut V` is written to the cache by that next call, and overwrites what
/// other threads have written there concurrently. The store has no reads through `&` that return
/// references (`CachedRead`, `CachedPeek`), and so no `unsync_reads`.
///
/// # Examples
///
/// ```
/// use cached::macros::cached;
/// use cortado::integrations::cached::Store;
///
/// #[cached(ty = "Store<u32, u64>", create = { Store::new(1000) })]
/// fn fibonacci(n: u32) -> u64 {
///     if n < 2 { u64::from(n) } else { fibonacci(n - 1) + fibonacci(n - 2) }
/// }
///
/// assert_eq!(fibonacci(80), 23_416_728_348_467_685);
/// assert_eq!(FIBONACCI.read().cache().len(), 81);
/// ```
pub struct Store<K, V, S = DefaultHashBuilder> {
    cache: Cache<K, V, S>,
    /// A clone of the value that [`Cached`] returned last.
    lent: Option<V>,
    /// The key of `lent`, if it was returned as a mutable reference.
    written: Option<K>,
}

impl<K, V> Store<K, V>
where
    K: Hash + Eq + Send + Sync + 'static,
    V: Send + Sync + 'static,
{
    /// Creates a store with a new cache in which every entry costs 1.
    ///
    /// # Panics
    ///
    /// As [`Cache::new`].
    pub fn new(max_cost: u64) -> Self {
        Cache::new(max_cost).into()
    }
}

impl<K, V, S> Store<K, V, S> {
    /// Returns the cache.
    pub fn cache(&self) -> &Cache<K, V, S> {
        &self.cache
    }
}

impl<K, V, S> Store<K, V, S>
where
    K: Hash + Eq,
    S: BuildHasher,
{
    /// Drops the value that was returned last, and first writes it to the cache if it was returned
    /// as a mutable reference.
    fn settle(&mut self) -> &Cache<K, V, S> {
        if let (Some(value), Some(key)) = (self.lent.take(), self.written.take()) {
            // Lossy: if the key has no entry, it was evicted or removed since, which is the newer
            // change.
            let _ = self.cache.replace(key, value);
        }
        &self.cache
    }

    fn lend_mut(&mut self, key: K, value: V) -> &mut V {
        self.written = Some(key);
        self.lent.insert(value)
    }

    /// Inserts a value, and returns a clone of the one that the key had.
    fn set(cache: &Cache<K, V, S>, key: K, value: V) -> Option<V>
    where
        V: Clone,
    {
        let old = cache.peek(&key).map(|old| old.clone());
        // A rejected value is not memoized; the caller has it.
        cache.insert(key, value);
        old
    }

    fn remove_entry<Q>(cache: &Cache<K, V, S>, key: &Q) -> Option<(K, V)>
    where
        K: Borrow<Q> + Clone,
        Q: Hash + Eq + ?Sized,
        V: Clone,
    {
        cache.remove(key).map(|entry| (entry.key().clone(), entry.value().clone()))
    }

    /// Returns one of the counters; `None` if nothing was counted.
    fn count(&self, counter: fn(&Metrics) -> u64) -> Option<u64> {
        let metrics = self.cache.metrics();
        (metrics != Metrics::default()).then(|| counter(&metrics))
    }

    fn capacity(&self) -> usize {
        usize::try_from(self.cache.max_cost()).unwrap_or(usize::MAX)
    }
}

impl<K, V, S> From<Cache<K, V, S>> for Store<K, V, S> {
    fn from(cache: Cache<K, V, S>) -> Self {
        Self { cache, lent: None, written: None }
    }
}

impl<K, V, S> std::fmt::Debug for Store<K, V, S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store").field("cache", &self.cache).finish_non_exhaustive()
    }
}

impl<K, V, S> ConcurrentCacheBase for Store<K, V, S>
where
    K: Hash + Eq,
    S: BuildHasher,
{
    type Error = Infallible;

    fn cache_size(&self) -> Result<Option<usize>, Infallible> {
        Ok(Some(self.cache.len()))
    }

    fn cache_hits(&self) -> Option<u64> {
        self.count(|metrics| metrics.hits)
    }

    fn cache_misses(&self) -> Option<u64> {
        self.count(|metrics| metrics.misses)
    }

    fn cache_capacity(&self) -> Option<usize> {
        Some(self.capacity())
    }

    fn cache_evictions(&self) -> Option<u64> {
        self.count(|metrics| metrics.evictions)
    }
}

impl<K, V, S> ConcurrentCached<K, V> for Store<K, V, S>
where
    K: Hash + Eq + Clone,
    V: Clone,
    S: BuildHasher,
{
    fn cache_get(&self, k: &K) -> Result<Option<V>, Infallible> {
        Ok(self.cache.get_cloned(k))
    }

    fn cache_set(&self, k: K, v: V) -> Result<Option<V>, Infallible> {
        Ok(Self::set(&self.cache, k, v))
    }

    fn cache_remove(&self, k: &K) -> Result<Option<V>, Infallible> {
        Ok(self.cache.remove(k).map(|value| value.clone()))
    }

    fn cache_remove_entry(&self, k: &K) -> Result<Option<(K, V)>, Infallible> {
        Ok(Self::remove_entry(&self.cache, k))
    }

    fn cache_delete(&self, k: &K) -> Result<bool, Infallible> {
        Ok(self.cache.remove(k).is_some())
    }

    fn cache_contains(&self, k: &K) -> Result<bool, Infallible> {
        Ok(self.cache.contains_key(k))
    }

    fn cache_clear(&self) -> Result<(), Infallible> {
        self.cache.clear();
        Ok(())
    }

    fn cache_reset(&self) -> Result<(), Infallible> {
        self.cache.clear();
        Ok(())
    }

    /// Loads once, even if called concurrently; panics like [`Cache::get_or_insert_with`].
    fn cache_get_or_set_with<F: FnOnce() -> V>(&self, k: K, f: F) -> Result<V, Infallible> {
        Ok(self.cache.get_or_insert_with(k, f).clone())
    }

    /// Loads once, even if called concurrently; panics like [`Cache::get_or_insert_with`].
    fn cache_try_get_or_set_with<F: FnOnce() -> Result<V, E>, E>(
        &self,
        k: K,
        f: F,
    ) -> Result<Result<V, E>, Infallible> {
        Ok(self.cache.try_get_or_insert_with(k, f).map(|value| value.clone()))
    }
}

impl<K, V, S> ConcurrentCachedAsync<K, V> for Store<K, V, S>
where
    K: Hash + Eq + Clone + Send + Sync,
    V: Clone + Send + Sync,
    S: BuildHasher + Send + Sync,
{
    async fn async_cache_get(&self, k: &K) -> Result<Option<V>, Infallible> {
        Ok(self.cache.get_cloned(k))
    }

    async fn async_cache_set(&self, k: K, v: V) -> Result<Option<V>, Infallible> {
        Ok(Self::set(&self.cache, k, v))
    }

    async fn async_cache_remove(&self, k: &K) -> Result<Option<V>, Infallible> {
        Ok(self.cache.remove(k).map(|value| value.clone()))
    }

    async fn async_cache_remove_entry(&self, k: &K) -> Result<Option<(K, V)>, Infallible> {
        Ok(Self::remove_entry(&self.cache, k))
    }

    async fn async_cache_delete(&self, k: &K) -> Result<bool, Infallible> {
        Ok(self.cache.remove(k).is_some())
    }

    async fn async_cache_contains(&self, k: &K) -> Result<bool, Infallible> {
        Ok(self.cache.contains_key(k))
    }

    async fn async_cache_clear(&self) -> Result<(), Infallible> {
        self.cache.clear();
        Ok(())
    }

    async fn async_cache_reset(&self) -> Result<(), Infallible> {
        self.cache.clear();
        Ok(())
    }

    /// Loads once, even if called concurrently; panics like [`Cache::get_or_insert_async`].
    ///
    /// # Cancel safety
    ///
    /// As [`Cache::get_or_insert_async`].
    async fn async_cache_get_or_set_with<F, Fut>(&self, k: K, f: F) -> Result<V, Infallible>
    where
        F: FnOnce() -> Fut + Send,
        Fut: Future<Output = V> + Send,
    {
        Ok(self.cache.get_or_insert_async(k, async { f().await }).await)
    }

    /// Loads once, even if called concurrently; panics like [`Cache::get_or_insert_async`].
    ///
    /// # Cancel safety
    ///
    /// As [`Cache::get_or_insert_async`].
    async fn async_cache_try_get_or_set_with<F, Fut, E>(
        &self,
        k: K,
        f: F,
    ) -> Result<Result<V, E>, Infallible>
    where
        E: Send,
        F: FnOnce() -> Fut + Send,
        Fut: Future<Output = Result<V, E>> + Send,
    {
        Ok(self.cache.try_get_or_insert_async(k, async { f().await }).await)
    }
}

impl<K, V, S> ConcurrentCachePeek<K, V> for Store<K, V, S>
where
    K: Hash + Eq,
    V: Clone,
    S: BuildHasher,
{
    fn cache_peek(&self, k: &K) -> Result<Option<V>, Infallible> {
        Ok(self.cache.peek(k).map(|value| value.clone()))
    }
}

impl<K, V, S> ConcurrentCachePeekAsync<K, V> for Store<K, V, S>
where
    K: Hash + Eq + Send + Sync,
    V: Clone + Send + Sync,
    S: BuildHasher + Send + Sync,
{
    async fn async_cache_peek(&self, k: &K) -> Result<Option<V>, Infallible> {
        Ok(self.cache.peek(k).map(|value| value.clone()))
    }
}

impl<K, V, S> Cached<K, V> for Store<K, V, S>
where
    K: Hash + Eq + Clone,
    V: Clone,
    S: BuildHasher,
{
    type Error = Infallible;

    fn cache_get<Q>(&mut self, k: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        self.lent = self.settle().get_cloned(k);
        self.lent.as_ref()
    }

    fn cache_get_mut<Q>(&mut self, k: &Q) -> Option<&mut V>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        let found = self.settle().get(k).map(|value| (value.key().clone(), value.value().clone()));
        found.map(|(key, value)| self.lend_mut(key, value))
    }

    fn cache_set(&mut self, k: K, v: V) -> Option<V> {
        Self::set(self.settle(), k, v)
    }

    fn cache_get_or_set_with_mut<F: FnOnce() -> V>(&mut self, key: K, f: F) -> &mut V {
        let value = self.settle().get_or_insert_with(key.clone(), f).clone();
        self.lend_mut(key, value)
    }

    fn cache_try_get_or_set_with_mut<F: FnOnce() -> Result<V, E>, E>(
        &mut self,
        key: K,
        f: F,
    ) -> Result<&mut V, E> {
        let value = self.settle().try_get_or_insert_with(key.clone(), f)?.clone();
        Ok(self.lend_mut(key, value))
    }

    fn cache_get_or_set_with<F: FnOnce() -> V>(&mut self, key: K, f: F) -> &V {
        let value = self.settle().get_or_insert_with(key, f).clone();
        self.lent.insert(value)
    }

    fn cache_try_get_or_set_with<F: FnOnce() -> Result<V, E>, E>(
        &mut self,
        key: K,
        f: F,
    ) -> Result<&V, E> {
        let value = self.settle().try_get_or_insert_with(key, f)?.clone();
        Ok(self.lent.insert(value))
    }

    fn cache_remove<Q>(&mut self, k: &Q) -> Option<V>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        self.settle().remove(k).map(|value| value.clone())
    }

    fn cache_remove_entry<Q>(&mut self, k: &Q) -> Option<(K, V)>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        Self::remove_entry(self.settle(), k)
    }

    fn cache_clear(&mut self) {
        self.settle().clear();
    }

    fn cache_reset(&mut self) {
        self.settle().clear();
    }

    fn cache_size(&self) -> usize {
        self.cache.len()
    }

    fn cache_contains<Q>(&mut self, k: &Q) -> bool
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        self.settle().contains_key(k)
    }

    fn cache_hits(&self) -> Option<u64> {
        self.count(|metrics| metrics.hits)
    }

    fn cache_misses(&self) -> Option<u64> {
        self.count(|metrics| metrics.misses)
    }

    fn cache_capacity(&self) -> Option<usize> {
        Some(self.capacity())
    }

    fn cache_delete<Q>(&mut self, k: &Q) -> bool
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        self.settle().remove(k).is_some()
    }

    fn cache_evictions(&self) -> Option<u64> {
        self.count(|metrics| metrics.evictions)
    }
}
