//! `CacheBuilder` and `AsyncCacheBuilder`: Stretto's settings, some of which have no effect.

use std::{
    collections::hash_map::RandomState,
    fmt,
    hash::{BuildHasher, Hash},
    marker::PhantomData,
    time::Duration,
};

use cortado::{Clock, SystemClock};

use super::{
    AsyncCache, Cache, CacheCallback, CacheError, Coster, DefaultCacheCallback, DefaultCoster,
    DefaultKeyBuilder, DefaultUpdateValidator, KeyBuilder, UpdateValidator, cache::SharedClock,
};

/// The settings of a builder.
pub struct Settings<KH, C, U, CB> {
    pub plain: Plain,
    pub key_builder: KH,
    pub coster: C,
    pub update_validator: U,
    pub callback: CB,
}

/// The settings that do not depend on the user's types.
pub struct Plain {
    pub num_counters: usize,
    pub max_cost: i64,
    pub metrics: bool,
    pub ignore_internal_cost: bool,
    pub clock: SharedClock,
}

/// Generates a builder: both have the same constructors and setters.
macro_rules! builder {
    ($(#[$doc:meta])* $builder:ident) => {
        $(#[$doc])*
        #[must_use = "a builder does nothing until it builds"]
        pub struct $builder<
            K,
            V,
            KH = DefaultKeyBuilder<K>,
            C = DefaultCoster<V>,
            U = DefaultUpdateValidator<V>,
            CB = DefaultCacheCallback<V>,
            S = RandomState,
        > {
            settings: Settings<KH, C, U, CB>,
            types: PhantomData<fn(K, V, S)>,
        }

        impl<K: Hash + Eq, V: Send + Sync + 'static> $builder<K, V> {
            /// Creates a builder of a cache for a tenth as many entries as `num_counters`, with a
            /// budget of `max_cost`.
            pub fn new(num_counters: usize, max_cost: i64) -> Self {
                Self::new_with_key_builder(num_counters, max_cost, DefaultKeyBuilder::default())
            }
        }

        impl<K, V, KH> $builder<K, V, KH>
        where
            K: Hash + Eq,
            V: Send + Sync + 'static,
            KH: KeyBuilder<Key = K>,
        {
            /// Like `new`, but with a [`KeyBuilder`].
            pub fn new_with_key_builder(num_counters: usize, max_cost: i64, kh: KH) -> Self {
                let plain = Plain {
                    num_counters,
                    max_cost,
                    metrics: false,
                    ignore_internal_cost: true,
                    clock: SharedClock::new(SystemClock::new()),
                };
                let settings = Settings {
                    plain,
                    key_builder: kh,
                    coster: DefaultCoster::default(),
                    update_validator: DefaultUpdateValidator::default(),
                    callback: DefaultCacheCallback::default(),
                };
                Self { settings, types: PhantomData }
            }
        }

        impl<K, V, KH, C, U, CB, S> $builder<K, V, KH, C, U, CB, S>
        where
            K: Hash + Eq,
            V: Send + Sync + 'static,
            KH: KeyBuilder<Key = K>,
            C: Coster<Value = V>,
            U: UpdateValidator<Value = V>,
            CB: CacheCallback<Value = V>,
            S: BuildHasher + Clone + 'static,
        {
            /// Sets the initial size of the cache, in Stretto's measure of ten counters an entry.
            /// It grows automatically.
            pub fn set_num_counters(mut self, num_counters: usize) -> Self {
                self.settings.plain.num_counters = num_counters;
                self
            }

            /// Sets the budget.
            pub fn set_max_cost(mut self, max_cost: i64) -> Self {
                self.settings.plain.max_cost = max_cost;
                self
            }

            /// Has no effect: there is no buffer of inserts.
            pub fn set_insert_stripe_high_water(self, items: usize) -> Self {
                let _ = items;
                self
            }

            /// Has no effect: an insert does not wait for a thread that drains a buffer.
            pub fn set_drain_interval(self, interval: Duration) -> Self {
                let _ = interval;
                self
            }

            /// Has no effect: the buffers of accesses need no tuning.
            pub fn set_buffer_items(self, sz: usize) -> Self {
                let _ = sz;
                self
            }

            /// Enables the counters of [`Metrics`](super::Metrics).
            pub fn set_metrics(mut self, val: bool) -> Self {
                self.settings.plain.metrics = val;
                self
            }

            /// Sets whether an entry is charged its cost only, which is the default. Otherwise the
            /// bytes that an entry takes inline are added.
            pub fn set_ignore_internal_cost(mut self, val: bool) -> Self {
                self.settings.plain.ignore_internal_cost = val;
                self
            }

            /// Has no effect: expired entries are removed soon, without a ticker.
            pub fn set_cleanup_duration(self, d: Duration) -> Self {
                let _ = d;
                self
            }

            /// Sets the key builder, which hashes the keys.
            pub fn set_key_builder<NKH: KeyBuilder<Key = K>>(
                self,
                kh: NKH,
            ) -> $builder<K, V, NKH, C, U, CB, S> {
                let Settings { plain, coster, update_validator, callback, .. } = self.settings;
                let settings = Settings { plain, key_builder: kh, coster, update_validator, callback };
                $builder { settings, types: PhantomData }
            }

            /// Sets the coster, which computes the cost of values inserted at a cost of 0.
            pub fn set_coster<NC: Coster<Value = V>>(
                self,
                coster: NC,
            ) -> $builder<K, V, KH, NC, U, CB, S> {
                let Settings { plain, key_builder, update_validator, callback, .. } = self.settings;
                let settings = Settings { plain, key_builder, coster, update_validator, callback };
                $builder { settings, types: PhantomData }
            }

            /// Sets the validator, which decides whether an insert may replace the existing value.
            pub fn set_update_validator<NU: UpdateValidator<Value = V>>(
                self,
                uv: NU,
            ) -> $builder<K, V, KH, C, NU, CB, S> {
                let Settings { plain, key_builder, coster, callback, .. } = self.settings;
                let settings = Settings { plain, key_builder, coster, update_validator: uv, callback };
                $builder { settings, types: PhantomData }
            }

            /// Sets the callback for values that leave or are rejected.
            pub fn set_callback<NCB: CacheCallback<Value = V>>(
                self,
                cb: NCB,
            ) -> $builder<K, V, KH, C, U, NCB, S> {
                let Settings { plain, key_builder, coster, update_validator, .. } = self.settings;
                let settings = Settings { plain, key_builder, coster, update_validator, callback: cb };
                $builder { settings, types: PhantomData }
            }

            /// Only sets a type parameter. Stretto's maps use it to hash the hashes of keys, for
            /// which this cache has its own hasher with random keys.
            pub fn set_hasher<NS: BuildHasher + Clone + 'static>(
                self,
                hasher: NS,
            ) -> $builder<K, V, KH, C, U, CB, NS> {
                let _ = hasher;
                $builder { settings: self.settings, types: PhantomData }
            }

            /// Sets the clock by which times to live are measured, such as a
            /// [`ManualClock`](cortado::ManualClock) in tests. (Stretto has no equivalent.)
            pub fn set_clock(mut self, clock: impl Clock) -> Self {
                self.settings.plain.clock = SharedClock::new(clock);
                self
            }
        }

        impl<K, V, KH, C, U, CB, S> fmt::Debug for $builder<K, V, KH, C, U, CB, S> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_struct(stringify!($builder))
                    .field("num_counters", &self.settings.plain.num_counters)
                    .field("max_cost", &self.settings.plain.max_cost)
                    .finish_non_exhaustive()
            }
        }
    };
}

builder! {
    /// Builds a [`Cache`].
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use stretto::{CacheBuilder, TransparentKeyBuilder};
    ///
    /// let cache = CacheBuilder::new(1000, 100)
    ///     .set_key_builder(TransparentKeyBuilder::<u64>::default())
    ///     .set_cleanup_duration(Duration::from_millis(500))
    ///     .set_metrics(true)
    ///     .finalize()?;
    /// assert!(cache.insert(1, "one", 1));
    /// assert_eq!(cache.metrics().keys_added(), Some(1));
    /// # Ok::<(), stretto::CacheError>(())
    /// ```
    CacheBuilder
}

builder! {
    /// Builds an [`AsyncCache`].
    ///
    /// # Examples
    ///
    /// ```
    /// use stretto::{AsyncCache, AsyncCacheBuilder};
    ///
    /// let cache: AsyncCache<u64, u64, ()> = AsyncCacheBuilder::new(1000, 100).build()?;
    /// assert_eq!(cache.max_cost(), 100);
    /// # Ok::<(), stretto::CacheError>(())
    /// ```
    AsyncCacheBuilder
}

impl<K, V, KH, C, U, CB, S> CacheBuilder<K, V, KH, C, U, CB, S>
where
    K: Hash + Eq + Send + Sync + 'static,
    V: Send + Sync + 'static,
    KH: KeyBuilder<Key = K>,
    C: Coster<Value = V>,
    U: UpdateValidator<Value = V>,
    CB: CacheCallback<Value = V>,
    S: BuildHasher + Clone + 'static,
{
    /// Builds the cache and starts its thread.
    ///
    /// # Errors
    ///
    /// [`CacheError::InvalidNumCounters`] if the number of counters is 0;
    /// [`CacheError::InvalidMaxCost`] if the budget is 0 or less;
    /// [`CacheError::InvalidCountMinWidth`] for more counters than possible;
    /// [`CacheError::ChannelError`] if the system cannot create a thread or has no memory.
    #[allow(clippy::type_complexity)] // the type is Stretto's
    pub fn finalize(self) -> Result<Cache<K, V, KH, C, U, CB, S>, CacheError> {
        Cache::build(self.settings)
    }
}

impl<K, V, KH, C, U, CB, S> AsyncCacheBuilder<K, V, KH, C, U, CB, S>
where
    K: Hash + Eq + Send + Sync + 'static,
    V: Send + Sync + 'static,
    KH: KeyBuilder<Key = K>,
    C: Coster<Value = V>,
    U: UpdateValidator<Value = V>,
    CB: CacheCallback<Value = V>,
    S: BuildHasher + Clone + 'static,
{
    /// Builds the cache and starts its thread. The runtime `R` is not used and may be any type.
    ///
    /// # Errors
    ///
    /// See [`CacheBuilder::finalize`].
    #[allow(clippy::type_complexity)] // the type is Stretto's
    pub fn build<R>(self) -> Result<AsyncCache<K, V, R, KH, C, U, CB, S>, CacheError> {
        Cache::build(self.settings).map(AsyncCache::new)
    }
}
