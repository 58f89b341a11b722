//! `AsyncCache`: the same cache with async methods, which are ready at their first poll.

use std::{
    borrow::Borrow, collections::hash_map::RandomState, fmt, hash::Hash, marker::PhantomData,
    time::Duration,
};

use super::{
    Cache, CacheCallback, CacheError, Coster, DefaultCacheCallback, DefaultCoster,
    DefaultKeyBuilder, DefaultUpdateValidator, KeyBuilder, Metrics, UpdateValidator, ValueRef,
    ValueRefMut,
};

/// Stretto's `AsyncCache`, with these [differences](super#what-differs).
///
/// No method waits, so every future is ready at its first poll, and does nothing if it is dropped
/// before. The runtime `R` is not used and may be any type. As in Stretto, a [`ValueRef`] or
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

/// An [`AsyncCache`] with tokio's runtime as its type parameter.
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

/// An [`AsyncCache`] with smol's runtime as its type parameter.
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
/// Each method is equivalent to the method of the same name of [`Cache`].
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

    /// Like [`insert`](Self::insert), but returns a `Result`.
    ///
    /// # Errors
    ///
    /// Never returns an error.
    ///
    /// # Cancel safety
    ///
    /// Dropped before it is polled, it does nothing.
    pub async fn try_insert(&self, key: K, val: V, cost: i64) -> Result<bool, CacheError> {
        self.cache.try_insert(key, val, cost)
    }

    /// Inserts an entry that expires after `ttl`; see [`Cache::insert_with_ttl`].
    ///
    /// # Cancel safety
    ///
    /// Dropped before it is polled, it does nothing.
    pub async fn insert_with_ttl(&self, key: K, val: V, cost: i64, ttl: Duration) -> bool {
        self.cache.insert_with_ttl(key, val, cost, ttl)
    }

    /// Like [`insert_with_ttl`](Self::insert_with_ttl), but returns a `Result`.
    ///
    /// # Errors
    ///
    /// Never returns an error.
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

    /// Replaces the entry of a key, if there is one; see [`Cache::insert_if_present`].
    ///
    /// # Cancel safety
    ///
    /// Dropped before it is polled, it does nothing.
    pub async fn insert_if_present(&self, key: K, val: V, cost: i64) -> bool {
        self.cache.insert_if_present(key, val, cost)
    }

    /// Like [`insert_if_present`](Self::insert_if_present), but returns a `Result`.
    ///
    /// # Errors
    ///
    /// Never returns an error.
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

    /// Like [`remove`](Self::remove), but returns a `Result`.
    ///
    /// # Errors
    ///
    /// Never returns an error.
    ///
    /// # Cancel safety
    ///
    /// Dropped before it is polled, it does nothing.
    pub async fn try_remove(&self, k: &K) -> Result<(), CacheError> {
        self.cache.try_remove(k)
    }

    /// Removes all entries; see [`Cache::clear`].
    ///
    /// # Errors
    ///
    /// Never returns an error.
    ///
    /// # Cancel safety
    ///
    /// Dropped before it is polled, it does nothing.
    pub async fn clear(&self) -> Result<(), CacheError> {
        self.cache.clear()
    }

    /// Frees removed entries, and calls their callbacks; see [`Cache::wait`].
    ///
    /// # Errors
    ///
    /// Never returns an error.
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

    /// Returns the value of a key for modification; see [`ValueRefMut`].
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

    /// Returns the time that an entry has left; see [`Cache::get_ttl`].
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

    /// Returns the number of entries, which is exact when no other thread writes.
    pub fn len(&self) -> usize {
        self.cache.len()
    }

    /// Returns whether there is no entry.
    pub fn is_empty(&self) -> bool {
        self.cache.is_empty()
    }

    /// Returns the metrics so far.
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
