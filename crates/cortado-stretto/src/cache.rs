//! `Cache`: a thin layer over `cortado::Cache`.

use std::{
    any::TypeId,
    borrow::Borrow,
    collections::hash_map::RandomState,
    fmt,
    hash::{BuildHasher, Hash},
    marker::PhantomData,
    sync::Arc,
    time::Duration,
};

use cortado::{Clock, Insert, InsertOptions, RejectReason, RemovalCause};

use super::{
    CacheBuilder, CacheCallback, CacheError, Coster, DefaultCacheCallback, DefaultCoster,
    DefaultKeyBuilder, DefaultUpdateValidator, KeyBuilder, Metrics, UpdateValidator, ValueRef,
    ValueRefMut,
    builder::Settings,
    keys::{Asked, Keyed},
    panic::guarded,
    value::{Loan, NEVER, Native, Valued, to_nanoseconds},
};

/// Stretto's `Cache`, with these [differences](super#what-differs).
///
/// Cloning it clones a handle; the cache is dropped with the last one.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use stretto::Cache;
///
/// let cache = Cache::new(12_960, 1_000_000)?;
/// assert!(cache.insert("key".to_string(), 1, 1));
/// assert!(cache.insert_with_ttl("soon".to_string(), 2, 1, Duration::from_secs(60)));
/// assert_eq!(cache.get("key").unwrap().value(), &1);
/// assert!(cache.get_ttl("soon") <= Some(Duration::from_secs(60)));
/// cache.clear()?;
/// assert!(cache.is_empty());
/// # Ok::<(), stretto::CacheError>(())
/// ```
pub struct Cache<
    K,
    V,
    KH = DefaultKeyBuilder<K>,
    C = DefaultCoster<V>,
    U = DefaultUpdateValidator<V>,
    CB = DefaultCacheCallback<V>,
    S = RandomState,
> {
    native: Native<K, V>,
    shared: Arc<Shared<KH, C, CB>>,
    types: PhantomData<fn(U, S)>,
}

/// The state that all handles of a cache share, beside the underlying cache.
pub struct Shared<KH, C, CB> {
    key_builder: KH,
    coster: C,
    callback: Arc<CB>,
    clock: SharedClock,
    is_counting: bool,
}

impl<K, V> Cache<K, V>
where
    K: Hash + Eq + Send + Sync + 'static,
    V: Send + Sync + 'static,
{
    /// Creates a cache for a tenth as many entries as `num_counters`, with a budget of `max_cost`.
    ///
    /// # Errors
    ///
    /// See [`CacheBuilder::finalize`].
    pub fn new(num_counters: usize, max_cost: i64) -> Result<Self, CacheError> {
        CacheBuilder::new(num_counters, max_cost).finalize()
    }

    /// Returns a builder.
    pub fn builder(num_counters: usize, max_cost: i64) -> CacheBuilder<K, V> {
        CacheBuilder::new(num_counters, max_cost)
    }
}

impl<K, V, KH> Cache<K, V, KH>
where
    K: Hash + Eq + Send + Sync + 'static,
    V: Send + Sync + 'static,
    KH: KeyBuilder<Key = K>,
{
    /// Creates a cache that hashes its keys by `index`.
    ///
    /// # Errors
    ///
    /// See [`CacheBuilder::finalize`].
    pub fn new_with_key_builder(
        num_counters: usize,
        max_cost: i64,
        index: KH,
    ) -> Result<Self, CacheError> {
        CacheBuilder::new_with_key_builder(num_counters, max_cost, index).finalize()
    }
}

/// # Writing
///
/// The methods with the prefix `try_` never fail.
impl<K, V, KH, C, U, CB, S> Cache<K, V, KH, C, U, CB, S>
where
    K: Hash + Eq,
    V: Send + Sync + 'static,
    KH: KeyBuilder<Key = K>,
    C: Coster<Value = V>,
    U: UpdateValidator<Value = V>,
    CB: CacheCallback<Value = V>,
{
    /// Inserts an entry, or replaces the one of its key; returns whether it is in the cache.
    ///
    /// If the cost is 0, the [`Coster`] is called. A rejected entry is passed to
    /// [`CacheCallback::on_reject`]. Then no older entry of its key is left, unless the
    /// [`UpdateValidator`] kept that.
    pub fn insert(&self, key: K, val: V, cost: i64) -> bool {
        self.insert_with_ttl(key, val, cost, Duration::ZERO)
    }

    /// Like [`insert`](Self::insert), but returns a `Result`.
    ///
    /// # Errors
    ///
    /// Never returns an error.
    pub fn try_insert(&self, key: K, val: V, cost: i64) -> Result<bool, CacheError> {
        Ok(self.insert(key, val, cost))
    }

    /// Like [`insert`](Self::insert), but the entry expires after `ttl`; never if that is 0.
    pub fn insert_with_ttl(&self, key: K, val: V, cost: i64, ttl: Duration) -> bool {
        let shared = &self.shared;
        let key = Keyed::new(&shared.key_builder, key);
        let hashes = (key.index, key.conflict);
        let mut options = InsertOptions::new();
        let mut deadline = NEVER;
        if !ttl.is_zero() {
            options = options.ttl(ttl);
            deadline = to_nanoseconds(shared.clock.now().saturating_add(ttl));
        }
        let cost = match shared.cost(cost, &val) {
            Ok(cost) => cost,
            Err(cost) => {
                let valued = Valued { value: val, cost: 0, deadline };
                let item = valued.into_item(hashes, 0, shared.clock.now());
                guarded(|| shared.callback.on_reject(super::Item { cost, ..item }));
                return false;
            }
        };
        let valued = Valued { value: val, cost, deadline };
        match self.native.insert_with(key, valued, options) {
            Insert::Inserted | Insert::Updated => true,
            // Rejected by the validator: no callback, as in Stretto.
            Insert::Rejected(_, RejectReason::Kept) => false,
            Insert::Rejected(valued, _) => {
                shared.reject(hashes, valued);
                false
            }
        }
    }

    /// Like [`insert_with_ttl`](Self::insert_with_ttl), but returns a `Result`.
    ///
    /// # Errors
    ///
    /// Never returns an error.
    pub fn try_insert_with_ttl(
        &self,
        key: K,
        val: V,
        cost: i64,
        ttl: Duration,
    ) -> Result<bool, CacheError> {
        Ok(self.insert_with_ttl(key, val, cost, ttl))
    }

    /// Replaces the entry of a key, if there is one; charges the new cost, and keeps the deadline.
    /// Returns whether it did.
    ///
    /// Otherwise the value is dropped. If it was rejected, for example for its cost, the old entry
    /// is removed, too.
    pub fn insert_if_present(&self, key: K, val: V, cost: i64) -> bool {
        let Ok(cost) = self.shared.cost(cost, &val) else { return false };
        let key = Keyed::new(&self.shared.key_builder, key);
        // Read before the replacement: if the deadline changes in between, a callback gets the
        // older one.
        let Some(deadline) = self.native.peek(&key).map(|old| old.deadline) else { return false };
        self.native.replace(key, Valued { value: val, cost, deadline }).is_in()
    }

    /// Like [`insert_if_present`](Self::insert_if_present), but returns a `Result`.
    ///
    /// # Errors
    ///
    /// Never returns an error.
    pub fn try_insert_if_present(&self, key: K, val: V, cost: i64) -> Result<bool, CacheError> {
        Ok(self.insert_if_present(key, val, cost))
    }

    /// Removes the entry of a key.
    pub fn remove(&self, k: &K) {
        drop(self.native.remove(&Asked::new(&self.shared.key_builder, k)));
    }

    /// Like [`remove`](Self::remove), but returns a `Result`.
    ///
    /// # Errors
    ///
    /// Never returns an error.
    pub fn try_remove(&self, k: &K) -> Result<(), CacheError> {
        self.remove(k);
        Ok(())
    }

    /// Removes all entries, and [waits](Self::wait).
    ///
    /// # Errors
    ///
    /// Never returns an error.
    pub fn clear(&self) -> Result<(), CacheError> {
        self.native.clear();
        self.wait()
    }

    /// Frees all removed entries that no reader holds, and calls their callbacks.
    ///
    /// No other work is pending: an insert is decided and visible when it returns. A callback may
    /// call this method.
    ///
    /// # Errors
    ///
    /// Never returns an error.
    ///
    /// # Panics
    ///
    /// Resumes the panic of a value's destructor, after all others have run.
    pub fn wait(&self) -> Result<(), CacheError> {
        self.native.flush();
        Ok(())
    }
}

/// # Reading
impl<K, V, KH, C, U, CB, S> Cache<K, V, KH, C, U, CB, S>
where
    K: Hash + Eq,
    V: Send + Sync + 'static,
    KH: KeyBuilder<Key = K>,
    CB: CacheCallback<Value = V>,
{
    /// Returns the value of a key.
    #[inline]
    pub fn get<Q>(&self, key: &Q) -> Option<ValueRef<'_, V, K>>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        self.native.get(&Asked::new(&self.shared.key_builder, key)).map(ValueRef::new)
    }

    /// Returns the value of a key for modification; see [`ValueRefMut`] for what other threads see
    /// until it is written back.
    pub fn get_mut<Q>(&self, key: &Q) -> Option<ValueRefMut<'_, V>>
    where
        K: Borrow<Q> + Clone,
        V: Clone,
        Q: Hash + Eq + ?Sized,
    {
        let entry = self.native.get(&Asked::new(&self.shared.key_builder, key))?;
        let loan = Loan { native: &self.native, shared: &*self.shared, entry };
        Some(ValueRefMut::new(loan))
    }

    /// Returns the time that an entry has left, `Duration::MAX` if it does not expire, and `None`
    /// if there is no entry. Does not count as an access.
    pub fn get_ttl<Q>(&self, key: &Q) -> Option<Duration>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        let entry = self.native.peek(&Asked::new(&self.shared.key_builder, key))?;
        Some(entry.ttl().unwrap_or(Duration::MAX))
    }

    /// Returns the budget.
    pub fn max_cost(&self) -> i64 {
        i64::try_from(self.native.max_cost()).unwrap_or(i64::MAX)
    }

    /// Changes the budget. If it is lowered, entries are evicted until the rest fits before the
    /// call returns. A negative budget is 0.
    pub fn update_max_cost(&self, max_cost: i64) {
        self.native.set_max_cost(u64::try_from(max_cost).unwrap_or(0));
    }

    /// Returns the number of entries, which is exact when no other thread writes.
    pub fn len(&self) -> usize {
        self.native.len()
    }

    /// Returns whether there is no entry.
    pub fn is_empty(&self) -> bool {
        self.native.is_empty()
    }

    /// Returns the metrics so far. (Stretto does not expose them.)
    pub fn metrics(&self) -> Metrics {
        if self.shared.is_counting { Metrics::Op(self.native.metrics()) } else { Metrics::Noop }
    }
}

impl<K, V, KH, C, U, CB, S> Cache<K, V, KH, C, U, CB, S>
where
    K: Hash + Eq + Send + Sync + 'static,
    V: Send + Sync + 'static,
    KH: KeyBuilder<Key = K>,
    C: Coster<Value = V>,
    U: UpdateValidator<Value = V>,
    CB: CacheCallback<Value = V>,
    S: BuildHasher + Clone + 'static,
{
    pub(super) fn build(settings: Settings<KH, C, U, CB>) -> Result<Self, CacheError> {
        let Settings { plain, key_builder, coster, update_validator, callback } = settings;
        if plain.num_counters == 0 {
            return Err(CacheError::InvalidNumCounters);
        }
        let (callback, clock) = (Arc::new(callback), plain.clock);
        let mut builder = Native::builder()
            .max_cost(u64::try_from(plain.max_cost).unwrap_or(0))
            .num_counters(plain.num_counters)
            .metrics(plain.metrics)
            .charge_overhead(!plain.ignore_internal_cost)
            .cost_of(|_: &Keyed<K>, valued: &Valued<V>| valued.cost)
            .clock(clock.clone());
        if TypeId::of::<U>() != TypeId::of::<DefaultUpdateValidator<V>>() {
            builder = builder.replace_if(move |_, old, new| {
                update_validator.should_update(&old.value, &new.value)
            });
        }
        if TypeId::of::<CB>() != TypeId::of::<DefaultCacheCallback<V>>() {
            let (callback, clock) = (Arc::clone(&callback), clock.clone());
            builder = builder.on_remove(move |removed| {
                let hashes = (removed.key.index, removed.key.conflict);
                let item = removed.value.into_item(hashes, removed.cost, clock.now());
                guarded(|| match removed.cause {
                    RemovalCause::Evicted | RemovalCause::Expired => callback.on_evict(item),
                    RemovalCause::Rejected => callback.on_reject(item),
                    // Replaced, removed or cleared.
                    _ => callback.on_exit(item.val),
                });
            });
        }
        let native = builder.build()?;
        let is_counting = plain.metrics;
        let shared = Arc::new(Shared { key_builder, coster, callback, clock, is_counting });
        Ok(Self { native, shared, types: PhantomData })
    }
}

impl<KH, C, CB> Shared<KH, C, CB> {
    /// Returns the cost given to an insert, or the coster's if that is 0.
    ///
    /// # Errors
    ///
    /// Returns the cost if it is negative.
    fn cost<V>(&self, named: i64, value: &V) -> Result<u64, i64>
    where
        C: Coster<Value = V>,
    {
        let cost = if named == 0 { self.coster.cost(value) } else { named };
        u64::try_from(cost).map_err(|_| cost)
    }

    /// Calls the callback for a rejected entry.
    pub fn reject<V>(&self, hashes: (u64, u64), valued: Valued<V>)
    where
        CB: CacheCallback<Value = V>,
    {
        let cost = valued.cost;
        let item = valued.into_item(hashes, cost, self.clock.now());
        guarded(|| self.callback.on_reject(item));
    }
}

impl<K, V, KH, C, U, CB, S> Clone for Cache<K, V, KH, C, U, CB, S> {
    fn clone(&self) -> Self {
        Self { native: self.native.clone(), shared: Arc::clone(&self.shared), types: PhantomData }
    }
}

impl<K, V, KH, C, U, CB, S> AsRef<Self> for Cache<K, V, KH, C, U, CB, S> {
    fn as_ref(&self) -> &Self {
        self
    }
}

impl<K, V, KH, C, U, CB, S> fmt::Debug for Cache<K, V, KH, C, U, CB, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.native.fmt(f)
    }
}

/// The clock of a cache, by which callbacks also get the time left.
#[derive(Clone)]
pub struct SharedClock(Arc<dyn Clock>);

impl SharedClock {
    pub fn new(clock: impl Clock) -> Self {
        Self(Arc::new(clock))
    }
}

impl Clock for SharedClock {
    fn now(&self) -> Duration {
        self.0.now()
    }
}
