//! `Entry`: looks a key up, and loads it if it has no entry.

use std::{
    future::Future,
    hash::{BuildHasher, Hash},
    sync::Arc,
};

use equivalent::Equivalent;

use super::{
    Cache, ComputeOp, InsertOptions, ValueRef,
    load_async::unfailing,
    loader::{BorrowedKey, EntryKey, OwnedKey, Try, TryShared, TryWith, Value, ValueWith},
};
use crate::outcome::ComputeResult;

/// A key that is looked up and, if it has no entry, loaded; created by [`Cache::entry`] and
/// [`Cache::entry_ref`].
///
/// The methods look the key up, and load it if it has no entry: one load at a time for each key, as
/// described at [`Cache::get_or_insert_with`]. They differ in what the loader returns:
///
/// | loader returns | thread | task |
/// |---|---|---|
/// | `V` | [`or_insert_with`] | [`or_insert_async`] |
/// | `Result<V, E>` | [`or_try_insert_with`] | [`or_try_insert_async`] |
/// | `(V, InsertOptions)` | [`or_load`] | [`or_load_async`] |
/// | `Result<(V, InsertOptions), E>` | [`or_try_load`] | [`or_try_load_async`] |
/// | the same, with a shared error | [`or_try_load_shared`] | [`or_try_load_shared_async`] |
///
/// [`or_insert_with`]: Self::or_insert_with
/// [`or_insert_async`]: Self::or_insert_async
/// [`or_try_insert_with`]: Self::or_try_insert_with
/// [`or_try_insert_async`]: Self::or_try_insert_async
/// [`or_load`]: Self::or_load
/// [`or_load_async`]: Self::or_load_async
/// [`or_try_load`]: Self::or_try_load
/// [`or_try_load_async`]: Self::or_try_load_async
/// [`or_try_load_shared`]: Self::or_try_load_shared
/// [`or_try_load_shared_async`]: Self::or_try_load_shared_async
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use cortado::{Cache, InsertOptions};
///
/// let cache: Cache<String, u64> = Cache::new(100);
/// // The key is cloned only if it has to be loaded.
/// let quote = cache.entry_ref("EURUSD").or_load(|| {
///     (1_0842, InsertOptions::new().ttl(Duration::from_secs(5)).cost(2))
/// });
/// assert_eq!((*quote, quote.cost()), (1_0842, 2));
/// ```
#[must_use = "an entry does nothing by itself"]
pub struct Entry<'a, K, V, S, L> {
    cache: &'a Cache<K, V, S>,
    key: L,
}

impl<K, V, S> Cache<K, V, S>
where
    K: Hash + Eq,
    S: BuildHasher,
{
    /// Selects a key, to look it up and load it if it has no entry.
    ///
    /// # Examples
    ///
    /// ```
    /// let cache = cortado::Cache::new(10);
    /// assert_eq!(*cache.entry("k").or_insert_with(|| 1), 1);
    /// assert_eq!(*cache.entry("k").or_insert(2), 1);
    /// ```
    pub fn entry(&self, key: K) -> Entry<'_, K, V, S, OwnedKey<K>> {
        Entry { cache: self, key: OwnedKey(key) }
    }

    /// Like [`entry`](Self::entry), but takes a borrowed form of the key, which is cloned only if
    /// it has to be loaded.
    ///
    /// # Examples
    ///
    /// ```
    /// let cache: cortado::Cache<String, usize> = cortado::Cache::new(10);
    /// assert_eq!(*cache.entry_ref("four").or_insert_with(|| 4), 4);
    /// ```
    #[doc(alias("entry_by_ref"))]
    pub fn entry_ref<'q, Q>(&self, key: &'q Q) -> Entry<'_, K, V, S, BorrowedKey<'q, Q>>
    where
        Q: Hash + Equivalent<K> + ToOwned<Owned = K> + ?Sized,
    {
        Entry { cache: self, key: BorrowedKey(key) }
    }
}

impl<'a, K, V, S, L> Entry<'a, K, V, S, L>
where
    K: Hash + Eq,
    S: BuildHasher,
    L: EntryKey<K>,
{
    /// Returns the value of the key, or inserts `value`.
    ///
    /// # Examples
    ///
    /// ```
    /// let cache = cortado::Cache::new(10);
    /// assert_eq!(*cache.entry("k").or_insert(1), 1);
    /// ```
    pub fn or_insert(self, value: V) -> ValueRef<'a, K, V> {
        self.or_insert_with(|| value)
    }

    /// Returns the value of the key, or inserts the result of `load`.
    ///
    /// # Panics
    ///
    /// As [`Cache::get_or_insert_with`]; this holds for all methods that load.
    ///
    /// # Examples
    ///
    /// ```
    /// let cache = cortado::Cache::new(10);
    /// assert_eq!(*cache.entry("k").or_insert_with(|| 1), 1);
    /// ```
    pub fn or_insert_with(self, load: impl FnOnce() -> V) -> ValueRef<'a, K, V> {
        let Ok(value) = self.cache.load_by::<Value, _>(self.key, |_| load());
        value
    }

    /// Like [`or_insert_with`](Self::or_insert_with), but with a loader that may fail.
    ///
    /// # Errors
    ///
    /// Returns the error of this caller's own `load`. One of the callers that waited for it then
    /// runs its own loader.
    ///
    /// # Examples
    ///
    /// ```
    /// let cache = cortado::Cache::new(10);
    /// assert!(cache.entry("4").or_try_insert_with(|| "4".parse::<u32>()).is_ok());
    /// ```
    pub fn or_try_insert_with<E>(
        self,
        load: impl FnOnce() -> Result<V, E>,
    ) -> Result<ValueRef<'a, K, V>, E> {
        self.cache.load_by::<Try<E>, _>(self.key, |_| load())
    }

    /// Returns the value of the key, or inserts the result of `load` with the options that it
    /// returns.
    ///
    /// # Examples
    ///
    /// ```
    /// use cortado::{Cache, InsertOptions};
    ///
    /// let cache = Cache::new(100);
    /// cache.entry("page").or_load(|| ("…", InsertOptions::new().cost(40)));
    /// assert_eq!(cache.cost(), 40);
    /// ```
    pub fn or_load(self, load: impl FnOnce() -> (V, InsertOptions)) -> ValueRef<'a, K, V> {
        let Ok(value) = self.cache.load_by::<ValueWith, _>(self.key, |_| load());
        value
    }

    /// Like [`or_load`](Self::or_load), but with a loader that may fail.
    ///
    /// # Errors
    ///
    /// As [`or_try_insert_with`](Self::or_try_insert_with).
    ///
    /// # Examples
    ///
    /// ```
    /// use cortado::{Cache, InsertOptions};
    ///
    /// let cache = Cache::new(100);
    /// let options = InsertOptions::new().cost(40);
    /// let load = || Ok::<_, std::num::ParseIntError>(("4".parse::<u32>()?, options));
    /// assert_eq!(cache.entry("4").or_try_load(load).map(|value| *value), Ok(4));
    /// ```
    pub fn or_try_load<E>(
        self,
        load: impl FnOnce() -> Result<(V, InsertOptions), E>,
    ) -> Result<ValueRef<'a, K, V>, E> {
        self.cache.load_by::<TryWith<E>, _>(self.key, |_| load())
    }

    /// Like [`or_try_load`](Self::or_try_load), but an error is also returned to all callers of
    /// this method, or of its async variant, that wait for the load, unless the key has a value by
    /// then. If a backend is down, each of them gets an error after one load, instead of running a
    /// load of its own.
    ///
    /// # Errors
    ///
    /// Returns the error of `load`, or of the load that this caller waited for if that has the same
    /// type. After an error of another type this caller runs its own loader.
    ///
    /// # Examples
    ///
    /// ```
    /// let cache = cortado::Cache::<&str, u32>::new(100);
    /// let error = cache.entry("k").or_try_load_shared(|| Err("the backend is down")).unwrap_err();
    /// assert_eq!(*error, "the backend is down");
    /// ```
    #[doc(alias("or_try_insert_with", "try_get_with"))]
    pub fn or_try_load_shared<E: Send + Sync + 'static>(
        self,
        load: impl FnOnce() -> Result<(V, InsertOptions), E>,
    ) -> Result<ValueRef<'a, K, V>, Arc<E>> {
        self.cache.load_by::<TryShared<E>, _>(self.key, |_| load())
    }
}

/// # Loading in tasks
///
/// Like [`Cache::get_or_insert_async`], these methods return futures of clones, which may be
/// dropped at any time.
impl<'a, K, V, S, L> Entry<'a, K, V, S, L>
where
    K: Hash + Eq,
    V: Clone,
    S: BuildHasher,
    L: EntryKey<K>,
{
    /// Returns a clone of the value of the key, or inserts the result of `load`.
    ///
    /// # Cancel safety
    ///
    /// As [`Cache::get_or_insert_async`]; this holds for all methods of this section.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[tokio::main]
    /// # async fn main() {
    /// let cache = cortado::Cache::new(10);
    /// assert_eq!(cache.entry("k").or_insert_async(async { 1 }).await, 1);
    /// # }
    /// ```
    pub fn or_insert_async(self, load: impl Future<Output = V>) -> impl Future<Output = V> {
        unfailing(self.cache.load_async_by::<Value, _, _>(self.key, load))
    }

    /// Like [`or_insert_async`](Self::or_insert_async), but with a loader that may fail.
    ///
    /// # Errors
    ///
    /// As [`or_try_insert_with`](Self::or_try_insert_with).
    ///
    /// # Examples
    ///
    /// ```
    /// # #[tokio::main]
    /// # async fn main() {
    /// let cache = cortado::Cache::<&str, u32>::new(10);
    /// assert_eq!(cache.entry("k").or_try_insert_async(async { Err("down") }).await, Err("down"));
    /// # }
    /// ```
    pub fn or_try_insert_async<E>(
        self,
        load: impl Future<Output = Result<V, E>>,
    ) -> impl Future<Output = Result<V, E>> {
        self.cache.load_async_by::<Try<E>, _, _>(self.key, load)
    }

    /// Returns a clone of the value of the key, or inserts the result of `load` with the options
    /// that it returns.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[tokio::main]
    /// # async fn main() {
    /// use cortado::{Cache, InsertOptions};
    ///
    /// let cache = Cache::new(10);
    /// cache.entry("k").or_load_async(async { (1, InsertOptions::new().cost(7)) }).await;
    /// assert_eq!(cache.cost(), 7);
    /// # }
    /// ```
    pub fn or_load_async(
        self,
        load: impl Future<Output = (V, InsertOptions)>,
    ) -> impl Future<Output = V> {
        unfailing(self.cache.load_async_by::<ValueWith, _, _>(self.key, load))
    }

    /// Like [`or_load_async`](Self::or_load_async), but with a loader that may fail.
    ///
    /// # Errors
    ///
    /// As [`or_try_insert_with`](Self::or_try_insert_with).
    ///
    /// # Examples
    ///
    /// ```
    /// # #[tokio::main]
    /// # async fn main() {
    /// use cortado::{Cache, InsertOptions};
    ///
    /// let cache = Cache::<&str, u32>::new(10);
    /// let load = async { Ok::<_, &str>((1, InsertOptions::new())) };
    /// assert_eq!(cache.entry("k").or_try_load_async(load).await, Ok(1));
    /// # }
    /// ```
    pub fn or_try_load_async<E>(
        self,
        load: impl Future<Output = Result<(V, InsertOptions), E>>,
    ) -> impl Future<Output = Result<V, E>> {
        self.cache.load_async_by::<TryWith<E>, _, _>(self.key, load)
    }

    /// Like [`or_try_load_async`](Self::or_try_load_async), but shares an error with all callers
    /// that wait for the load, as [`or_try_load_shared`](Self::or_try_load_shared) does.
    ///
    /// # Errors
    ///
    /// As [`or_try_load_shared`](Self::or_try_load_shared).
    ///
    /// # Examples
    ///
    /// ```
    /// # #[tokio::main]
    /// # async fn main() {
    /// let cache = cortado::Cache::<&str, u32>::new(10);
    /// let error = cache.entry("k").or_try_load_shared_async(async { Err("down") }).await;
    /// assert_eq!(*error.unwrap_err(), "down");
    /// # }
    /// ```
    pub fn or_try_load_shared_async<E: Send + Sync + 'static>(
        self,
        load: impl Future<Output = Result<(V, InsertOptions), E>>,
    ) -> impl Future<Output = Result<V, Arc<E>>> {
        self.cache.load_async_by::<TryShared<E>, _, _>(self.key, load)
    }
}

impl<'a, K, V, S> Entry<'a, K, V, S, OwnedKey<K>>
where
    K: Hash + Eq,
    S: BuildHasher,
{
    /// Changes the entry of the key as one atomic step, as [`Cache::compute`] does.
    ///
    /// # Examples
    ///
    /// ```
    /// use cortado::{Cache, ComputeOp};
    ///
    /// let cache = Cache::new(10);
    /// let _ = cache.entry("hits").and_compute_with(|n| ComputeOp::Put(n.map_or(1, |n| n + 1)));
    /// assert_eq!(cache.get_cloned("hits"), Some(1));
    /// ```
    #[doc(alias("and_upsert_with"))]
    pub fn and_compute_with(
        self,
        f: impl FnMut(Option<&V>) -> ComputeOp<V>,
    ) -> ComputeResult<V, ValueRef<'a, K, V>> {
        self.cache.compute(self.key.0, f)
    }
}

impl<K, V, S, L: std::fmt::Debug> std::fmt::Debug for Entry<'_, K, V, S, L> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Entry").field("key", &self.key).finish_non_exhaustive()
    }
}
