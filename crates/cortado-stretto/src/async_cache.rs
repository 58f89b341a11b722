//! `AsyncCache`: the same cache, whose methods are ready when they are first polled.

use std::{
    borrow::Borrow, collections::hash_map::RandomState, fmt, hash::Hash, marker::PhantomData,
    time::Duration,
};

use super::{
    Cache, CacheCallback, CacheError, Coster, DefaultCacheCallback, DefaultCoster,
    DefaultKeyBuilder, DefaultUpdateValidator, KeyBuilder, Metrics, UpdateValidator, ValueRef,
    ValueRefMut,
};

/// Stretto's `AsyncCache`, with what [differs](super#what-differs).
///
/// Nothing here waits, so every future is ready at its first poll; one that is dropped before has done
/// nothing. The runtime `R` may be any type, and nothing is asked of it. As in Stretto, a [`ValueRef`] or
/// [`ValueRefMut`] cannot be held across an `.await` in a task that moves between threads.
///
/// # Examples
///
/// ```
/// use stretto::{AsyncCacheBuilder, CacheError};
///
/// async fn run() -> Result<(), CacheError> {
///     let cache = AsyncCacheBuilder::new(12_960, 1_000_000).build::<()>()?;
///     assert!(cache.insert("key", 1, 1).await);
///     assert_eq!(cache.get("key").await.unwrap().value(), &1);
///     cache.get_mut("key").await.unwrap().write_once(2);
///     assert_eq!(cache.get("key").await.unwrap().read(), 2);
///     cache.clear().await?;
///     assert!(cache.is_empty());
///     Ok(())
/// }
/// # let mut context = std::task::Context::from_waker(std::task::Waker::noop());
/// # let polled = std::future::Future::poll(std::pin::pin!(run()), &mut context);
/// # assert!(matches!(polled, std::task::Poll::Ready(Ok(()))));
/// ```
pub struct AsyncCache<
    K,
    V,
    R,
    KH = DefaultKeyBuilder<K>,
    C = DefaultCoster<V>,
    U = DefaultUpdateValidator<V>,
    CB = DefaultCacheCallback<V>,
    S = RandomState,
> {
    cache: Cache<K, V, KH, C, U, CB, S>,
    runtime: PhantomData<fn(R)>,
}

#[cfg(feature = "smol")]
#[cfg_attr(docsrs, doc(cfg(feature = "smol")))]
pub use agnostic_lite::smol::SmolRuntime;
#[cfg(feature = "tokio")]
#[cfg_attr(docsrs, doc(cfg(feature = "tokio")))]
pub use agnostic_lite::tokio::TokioRuntime;

/// An [`AsyncCache`] that names tokio's runtime.
#[cfg(feature = "tokio")]
#[cfg_attr(docsrs, doc(cfg(feature = "tokio")))]
pub type TokioCache<
    K,
    V,
    KH = DefaultKeyBuilder<K>,
    C = DefaultCoster<V>,
    U = DefaultUpdateValidator<V>,
    CB = DefaultCacheCallback<V>,
    S = RandomState,
> = AsyncCache<K, V, TokioRuntime, KH, C, U, CB, S>;

/// An [`AsyncCache`] that names smol's runtime.
#[cfg(feature = "smol")]
#[cfg_attr(docsrs, doc(cfg(feature = "smol")))]
pub type SmolCache<
    K,
    V,
    KH = DefaultKeyBuilder<K>,
    C = DefaultCoster<V>,
    U = DefaultUpdateValidator<V>,
    CB = DefaultCacheCallback<V>,
    S = RandomState,
> = AsyncCache<K, V, SmolRuntime, KH, C, U, CB, S>;

/// # Writing
///
/// Each method does what that of its name in [`Cache`] does.
impl<K, V, R, KH, C, U, CB, S> AsyncCache<K, V, R, KH, C, U, CB, S>
where
    K: Hash + Eq,
    V: Send + Sync + 'static,
    KH: KeyBuilder<Key = K>,
    C: Coster<Value = V>,
    U: UpdateValidator<Value = V>,
    CB: CacheCallback<Value = V>,
{
    pub(super) fn new(cache: Cache<K, V, KH, C, U, CB, S>) -> Self {
        Self { cache, runtime: PhantomData }
    }

    /// Inserts an entry, or replaces the one of its key; see [`Cache::insert`].
    ///
    /// # Cancel safety
    ///
    /// Dropped before it is polled, it does nothing.
    pub async fn insert(&self, key: K, val: V, cost: i64) -> bool {
        self.cache.insert(key, val, cost)
    }

    /// The same as [`insert`](Self::insert).
    ///
    /// # Errors
    ///
    /// Never.
    ///
    /// # Cancel safety
    ///
    /// Dropped before it is polled, it does nothing.
    pub async fn try_insert(&self, key: K, val: V, cost: i64) -> Result<bool, CacheError> {
        self.cache.try_insert(key, val, cost)
    }

    /// Inserts an entry that lives for `ttl`; see [`Cache::insert_with_ttl`].
    ///
    /// # Cancel safety
    ///
    /// Dropped before it is polled, it does nothing.
    pub async fn insert_with_ttl(&self, key: K, val: V, cost: i64, ttl: Duration) -> bool {
        self.cache.insert_with_ttl(key, val, cost, ttl)
    }

    /// The same as [`insert_with_ttl`](Self::insert_with_ttl).
    ///
    /// # Errors
    ///
    /// Never.
    ///
    /// # Cancel safety
    ///
    /// Dropped before it is polled, it does nothing.
    pub async fn try_insert_with_ttl(
        &self,
        key: K,
        val: V,
        cost: i64,
        ttl: Duration,
    ) -> Result<bool, CacheError> {
        self.cache.try_insert_with_ttl(key, val, cost, ttl)
    }

    /// Replaces the entry of a key, if it has one; see [`Cache::insert_if_present`].
    ///
    /// # Cancel safety
    ///
    /// Dropped before it is polled, it does nothing.
    pub async fn insert_if_present(&self, key: K, val: V, cost: i64) -> bool {
        self.cache.insert_if_present(key, val, cost)
    }

    /// The same as [`insert_if_present`](Self::insert_if_present).
    ///
    /// # Errors
    ///
    /// Never.
    ///
    /// # Cancel safety
    ///
    /// Dropped before it is polled, it does nothing.
    pub async fn try_insert_if_present(
        &self,
        key: K,
        val: V,
        cost: i64,
    ) -> Result<bool, CacheError> {
        self.cache.try_insert_if_present(key, val, cost)
    }

    /// Removes the entry of a key.
    ///
    /// # Cancel safety
    ///
    /// Dropped before it is polled, it does nothing.
    pub async fn remove(&self, k: &K) {
        self.cache.remove(k);
    }

    /// The same as [`remove`](Self::remove).
    ///
    /// # Errors
    ///
    /// Never.
    ///
    /// # Cancel safety
    ///
    /// Dropped before it is polled, it does nothing.
    pub async fn try_remove(&self, k: &K) -> Result<(), CacheError> {
        self.cache.try_remove(k)
    }

    /// Removes every entry that is there; see [`Cache::clear`].
    ///
    /// # Errors
    ///
    /// Never.
    ///
    /// # Cancel safety
    ///
    /// Dropped before it is polled, it does nothing.
    pub async fn clear(&self) -> Result<(), CacheError> {
        self.cache.clear()
    }

    /// Frees what was removed, and tells callbacks of it; see [`Cache::wait`].
    ///
    /// # Errors
    ///
    /// Never.
    ///
    /// # Cancel safety
    ///
    /// Dropped before it is polled, it does nothing.
    pub async fn wait(&self) -> Result<(), CacheError> {
        self.cache.wait()
    }
}

/// # Reading
impl<K, V, R, KH, C, U, CB, S> AsyncCache<K, V, R, KH, C, U, CB, S>
where
    K: Hash + Eq,
    V: Send + Sync + 'static,
    KH: KeyBuilder<Key = K>,
    CB: CacheCallback<Value = V>,
{
    /// Returns the value of a key.
    ///
    /// # Cancel safety
    ///
    /// Dropped before it is polled, it does nothing.
    pub async fn get<Q>(&self, key: &Q) -> Option<ValueRef<'_, V, K>>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        self.cache.get(key)
    }

    /// Returns the value of a key, to be changed; see [`ValueRefMut`].
    ///
    /// # Cancel safety
    ///
    /// Dropped before it is polled, it does nothing.
    pub async fn get_mut<Q>(&self, key: &Q) -> Option<ValueRefMut<'_, V>>
    where
        K: Borrow<Q> + Clone,
        V: Clone,
        Q: Hash + Eq + ?Sized,
    {
        self.cache.get_mut(key)
    }

    /// Returns what is left of an entry's time; see [`Cache::get_ttl`].
    pub fn get_ttl<Q>(&self, key: &Q) -> Option<Duration>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        self.cache.get_ttl(key)
    }

    /// Returns the budget.
    pub fn max_cost(&self) -> i64 {
        self.cache.max_cost()
    }

    /// Changes the budget; see [`Cache::update_max_cost`].
    pub fn update_max_cost(&self, max_cost: i64) {
        self.cache.update_max_cost(max_cost);
    }

    /// Returns the number of entries; exact when no other thread writes.
    pub fn len(&self) -> usize {
        self.cache.len()
    }

    /// Returns whether there is no entry.
    pub fn is_empty(&self) -> bool {
        self.cache.is_empty()
    }

    /// Returns what was counted so far.
    pub fn metrics(&self) -> Metrics {
        self.cache.metrics()
    }
}

impl<K, V, R, KH, C, U, CB, S> Clone for AsyncCache<K, V, R, KH, C, U, CB, S> {
    fn clone(&self) -> Self {
        Self { cache: self.cache.clone(), runtime: PhantomData }
    }
}

impl<K, V, R, KH, C, U, CB, S> AsRef<Self> for AsyncCache<K, V, R, KH, C, U, CB, S> {
    fn as_ref(&self) -> &Self {
        self
    }
}

impl<K, V, R, KH, C, U, CB, S> fmt::Debug for AsyncCache<K, V, R, KH, C, U, CB, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.cache.fmt(f)
    }
}
