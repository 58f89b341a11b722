//! `CacheBuilder`: sets and validates the settings of a cache.

use std::{
    hash::{BuildHasher, Hash},
    time::Duration,
};

use super::{Cache, DefaultHashBuilder};
use crate::{
    clock::Clock,
    config::{
        Config, DEFAULT_ENTRIES, DEFAULT_ENTRIES_BY_COST, EvictionPolicy, MAX_ENTRIES, Maintenance,
        SLOW_LOAD, Settings,
    },
    engine::thread::MaintenanceThread,
    engine::{Callbacks, Engine, Expiry, Notice, Removed, Timing, WriteBack},
    error::BuildError,
    primitives::eventcount::EventCount,
    sync::Arc,
};

/// Counters per expected entry, as Ristretto recommends.
const COUNTERS_PER_ENTRY: usize = 10;

/// Builds a [`Cache`]. Only [`max_cost`](Self::max_cost) has to be set.
///
/// # Examples
///
/// ```
/// use cortado::{BuildError, Cache};
///
/// let cache: Cache<u64, String> =
///     Cache::builder().max_cost(10_000).name("sessions").metrics(true).build()?;
/// assert_eq!(cache.name(), "sessions");
///
/// let nothing = Cache::<u64, u64>::builder().build();
/// assert_eq!(nothing.unwrap_err(), BuildError::MaxCostZero);
/// # Ok::<(), BuildError>(())
/// ```
#[must_use = "a builder does nothing until it builds"]
pub struct CacheBuilder<K, V, S = DefaultHashBuilder> {
    config: Config,
    clock: Option<(Box<dyn Clock>, Notice)>,
    slow_load: Duration,
    callbacks: Callbacks<K, V>,
    hasher: S,
}

impl<K, V> CacheBuilder<K, V> {
    /// Creates a builder with every setting at its default; a budget has to be set.
    ///
    /// # Examples
    ///
    /// ```
    /// use cortado::{Cache, CacheBuilder};
    ///
    /// let cache: Cache<u32, u32> = CacheBuilder::new().max_cost(10).build()?;
    /// # Ok::<(), cortado::BuildError>(())
    /// ```
    pub fn new() -> Self {
        let hasher = DefaultHashBuilder::new();
        Self {
            config: Config::default(),
            clock: None,
            slow_load: SLOW_LOAD,
            callbacks: Callbacks::default(),
            hasher,
        }
    }
}

impl<K, V> Default for CacheBuilder<K, V> {
    fn default() -> Self {
        Self::new()
    }
}

impl<K, V, S> CacheBuilder<K, V, S> {
    /// Sets the budget: the limit of the sum of all entries' costs, in a unit of your choice.
    ///
    /// # Examples
    ///
    /// ```
    /// let cache = cortado::Cache::builder().max_cost(100).build()?;
    /// cache.insert_with_cost("k", 1, 60);
    /// assert_eq!(cache.remaining_cost(), 40);
    /// # Ok::<(), cortado::BuildError>(())
    /// ```
    #[doc(alias("max_capacity", "weight_capacity", "capacity"))]
    pub fn max_cost(mut self, max_cost: u64) -> Self {
        self.config.max_cost = max_cost;
        self
    }

    /// Sets the number of entries that the table and the sketch are first sized for; both still
    /// grow.
    ///
    /// By default as many as the budget allows if each costs 1 (at most 16 384), or at most 4096 if
    /// there is a [`cost_of`](Self::cost_of) or [`charge_overhead`](Self::charge_overhead). Set the
    /// number if it is large and known: growing costs time, though no other thread waits for it,
    /// and a table of the right size keeps some room between entries.
    ///
    /// # Examples
    ///
    /// ```
    /// use cortado::Cache;
    ///
    /// let small = Cache::<u64, u64>::builder().max_cost(1 << 30).build()?;
    /// let builder = Cache::<u64, u64>::builder().max_cost(1 << 30);
    /// let large = builder.expected_entries(100_000).build()?;
    /// assert!(large.memory().table > small.memory().table);
    /// # Ok::<(), cortado::BuildError>(())
    /// ```
    #[doc(alias("initial_capacity", "estimated_items_capacity"))]
    pub fn expected_entries(mut self, entries: usize) -> Self {
        self.config.expected_entries = Some(entries);
        self
    }

    /// Sets [`expected_entries`](Self::expected_entries) in the unit of Ristretto and Stretto: ten
    /// counters per entry.
    ///
    /// # Examples
    ///
    /// ```
    /// use cortado::Cache;
    ///
    /// let one = Cache::<u64, u64>::builder().max_cost(100).num_counters(1000).build()?;
    /// let other = Cache::<u64, u64>::builder().max_cost(100).expected_entries(100).build()?;
    /// assert_eq!(one.memory().table, other.memory().table);
    /// # Ok::<(), cortado::BuildError>(())
    /// ```
    pub fn num_counters(self, counters: usize) -> Self {
        self.expected_entries(counters.div_ceil(COUNTERS_PER_ENTRY))
    }

    /// Sets the function that computes the cost of an entry from its key and value. By default an
    /// entry costs 1.
    ///
    /// It runs on the inserting thread, before the insert changes anything. For `compute` and
    /// `update` it runs after their closure and, like the closure, while the thread is pinned. It
    /// is not called for an insert that sets a cost.
    ///
    /// A cost of 0 is legal and leaves the budget unchanged, so the budget does not limit the
    /// number of such entries: with `|_, v| v.len() as u64`, any number of empty values is
    /// admitted, and each takes memory. If that can happen, add the memory of the entry itself with
    /// [`charge_overhead`](Self::charge_overhead), or return a cost of at least 1.
    ///
    /// # Examples
    ///
    /// ```
    /// let cache = cortado::Cache::builder()
    ///     .max_cost(1 << 20)
    ///     .cost_of(|key: &String, page: &Vec<u8>| (key.len() + page.len()) as u64)
    ///     .build()?;
    /// cache.insert("/".to_string(), vec![0; 99]);
    /// assert_eq!(cache.cost(), 100);
    /// # Ok::<(), cortado::BuildError>(())
    /// ```
    #[doc(alias("weigher", "weighter", "coster"))]
    pub fn cost_of(mut self, cost_of: impl Fn(&K, &V) -> u64 + Send + Sync + 'static) -> Self {
        self.callbacks.cost_of = Some(Box::new(cost_of));
        self
    }

    /// Sets a condition for replacing an entry, called with the key, the old and the new value. If
    /// it returns `false`, the insert is rejected as [`Kept`](crate::RejectReason::Kept) and the
    /// old value stays.
    ///
    /// Every [`insert`](Cache::insert) and [`replace`](Cache::replace) of a key that has an entry
    /// calls it, perhaps more than once. [`update`](Cache::update) and [`compute`](Cache::compute)
    /// do not call it, because their closures have seen the old value. It runs while this thread is
    /// pinned: make it short. (Ristretto's `ShouldUpdate`.)
    ///
    /// # Examples
    ///
    /// ```
    /// use cortado::{Cache, Insert, RejectReason};
    ///
    /// // Only a newer version replaces an older one.
    /// let cache = Cache::builder().max_cost(10).replace_if(|_, old, new| new > old).build()?;
    /// cache.insert("version", 2);
    /// assert_eq!(cache.insert("version", 1), Insert::Rejected(1, RejectReason::Kept));
    /// assert_eq!(cache.insert("version", 3), Insert::Updated);
    /// # Ok::<(), cortado::BuildError>(())
    /// ```
    #[doc(alias("update_validator", "should_update"))]
    pub fn replace_if(
        mut self,
        replace_if: impl Fn(&K, &V, &V) -> bool + Send + Sync + 'static,
    ) -> Self {
        self.callbacks.replace_if = Some(Box::new(replace_if));
        self
    }

    /// Sets which entries may be evicted: `can_evict` is called before an entry is evicted to make
    /// room.
    ///
    /// An entry for which it returns `false` stays, and is not chosen for a while. After 64 such
    /// answers a call that makes room gives up, and its insert is rejected as
    /// [`Kept`](crate::RejectReason::Kept). It is not called for removals, expirations and
    /// replacements. [`set_max_cost`](Cache::set_max_cost) with a lower budget evicts such entries
    /// if no others are left.
    ///
    /// For entries that must stay for a long time, [`Priority::Pinned`](crate::Priority::Pinned) is
    /// cheaper.
    ///
    /// `can_evict` runs while the thread is pinned, on any thread that makes room: it must not
    /// block. A panic counts as `false`.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::sync::Arc;
    ///
    /// // Values that are in use outside of the cache stay.
    /// let cache = cortado::Cache::builder()
    ///     .max_cost(10)
    ///     .can_evict(|_, value: &Arc<u32>| Arc::strong_count(value) == 1)
    ///     .build()?;
    /// let used = Arc::new(0);
    /// cache.insert(0, Arc::clone(&used));
    /// (1..1000).for_each(|key| _ = cache.insert(key, Arc::new(key)));
    /// assert!(cache.contains_key(&0));
    /// # Ok::<(), cortado::BuildError>(())
    /// ```
    #[doc(alias("is_pinned"))]
    pub fn can_evict(mut self, can_evict: impl Fn(&K, &V) -> bool + Send + Sync + 'static) -> Self {
        self.callbacks.can_evict = Some(Box::new(can_evict));
        self
    }

    /// Sets a function that writes entries back before they are evicted or expire. The entry stays
    /// readable until `write_back` returns. It leaves only if `write_back` returned `true` and the
    /// entry was not replaced since.
    ///
    /// So a reader that misses the key finds the written value in the store, and a concurrent
    /// update is not lost: the new entry stays, and is written back later. Entries of the same key
    /// are written one after the other. If `write_back` returns `false` or panics, the entry stays
    /// and is tried again later; an expired entry, which is no longer readable, is tried again
    /// after a second. A call that makes room gives up after 64 such answers.
    ///
    /// A load, a [`compute`](Cache::compute) or an insert that finds an expired entry writes it
    /// back first, and waits if another thread does so. A refresh writes the entry back before it
    /// reads the store. If that fails, a loaded value is returned and not kept, nothing is
    /// refreshed, and [`insert_if_absent`](Cache::insert_if_absent) is rejected as
    /// [`Kept`](crate::RejectReason::Kept). [`set_max_cost`](Cache::set_max_cost) with a lower
    /// budget also waits for threads that write back, and evicts entries that cannot be written if
    /// no others are left.
    ///
    /// Change values through the cache ([`update`](Cache::update), [`compute`](Cache::compute)): a
    /// value that is changed in place, such as an `Arc<AtomicU64>`, may be changed after it was
    /// written back.
    ///
    /// The thread that makes room calls it: an inserting thread or the cache's own. That thread is
    /// pinned during the call and evicts nothing else, so an insert may take as long as a few
    /// calls. `write_back` may call the cache, but an entry that it meets while another thread
    /// writes entries back counts as one that cannot be written. A load of a key whose expired
    /// entry is being written waits for that; if the write-back begins during the load, the loaded
    /// value is returned and not kept.
    ///
    /// Removals by the user, [`clear`](Cache::clear), replacements and the drop of the cache write
    /// nothing back. Nor is an entry written back whose key was overwritten by a rejected insert:
    /// the new value is returned to the caller. A removal does not wait for a `write_back` of its
    /// key that another thread has begun, so that may reach the store after the removal: to delete
    /// a key from the store as well, let the store compare versions. Before a cache is dropped,
    /// write back what [`pin`](Cache::pin) iterates over. In a cache with this function or
    /// [`can_evict`](Self::can_evict), the memory of the table's buckets does not shrink.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::collections::HashMap;
    /// use std::sync::{Arc, Mutex};
    ///
    /// let store = Arc::new(Mutex::new(HashMap::new()));
    /// let disk = Arc::clone(&store);
    /// let cache = cortado::Cache::builder()
    ///     .max_cost(10)
    ///     .write_back(move |key: &u32, value: &u32| {
    ///         disk.lock().unwrap().insert(*key, *value);
    ///         true
    ///     })
    ///     .build()?;
    /// (0..1000).for_each(|key| _ = cache.insert(key, key));
    /// let read = |key| {
    ///     cache.get_cloned(&key).or_else(|| store.lock().unwrap().get(&key).copied())
    /// };
    /// assert!((0..1000).all(|key| read(key) == Some(key)));
    /// # Ok::<(), cortado::BuildError>(())
    /// ```
    pub fn write_back(
        mut self,
        write_back: impl Fn(&K, &V) -> bool + Send + Sync + 'static,
    ) -> Self {
        self.callbacks.write_back = Some(WriteBack::new(write_back));
        self
    }

    /// Sets a listener that is called once with every entry that has left the cache: key, value,
    /// cost and cause.
    ///
    /// It is called when no thread can see the entry any more, in place of the value's destructor,
    /// on the thread that frees the entry: the cache's own, one that calls [`tick`](Cache::tick) or
    /// [`flush`](Cache::flush), or a writer that helps with freeing. That thread holds no guard and
    /// no lock; the listener may call the cache. So the call is made a little after the entry has
    /// left, entries are reported in no particular order, and a newer value of the key may be in
    /// the cache by then. [`flush`](Cache::flush) reports every entry that no reader holds. Entries
    /// that are in the cache when it is dropped are dropped without a call. Entries that left
    /// before are still reported: by the cache's thread, perhaps after the drop of the last handle
    /// has returned, which never waits for this function; [`Cache::close`] does.
    ///
    /// A panic of the listener is treated like that of a destructor: the other entries are still
    /// reported.
    ///
    /// The listener lives as long as the cache: if it owns a handle to the cache, the cache is
    /// never dropped. Do not use it to write back evicted entries: it is called after the entry has
    /// left, and a load in between reads the old state of the store. Use
    /// [`write_back`](Self::write_back) for that.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::sync::mpsc;
    /// use cortado::{Cache, RemovalCause};
    ///
    /// let (sender, removed) = mpsc::channel();
    /// let cache = Cache::builder()
    ///     .max_cost(10)
    ///     .on_remove(move |removed| _ = sender.send((removed.key, removed.value, removed.cause)))
    ///     .build()?;
    /// cache.insert("k", 1);
    /// cache.insert("k", 2);
    /// cache.flush();
    /// assert_eq!(removed.recv(), Ok(("k", 1, RemovalCause::Replaced)));
    /// # Ok::<(), cortado::BuildError>(())
    /// ```
    #[doc(alias("eviction_listener", "removal_listener"))]
    pub fn on_remove(mut self, on_remove: impl Fn(Removed<K, V>) + Send + Sync + 'static) -> Self {
        self.callbacks.on_remove = Some(Box::new(on_remove));
        self
    }

    /// Sets how long an entry lives after it was inserted, unless the insert sets a time to live.
    ///
    /// An expired entry is never returned, and leaves the budget soon after its deadline. Any
    /// duration is legal: an entry with a time to live of 0 is a miss at once, and one whose
    /// deadline exceeds the range of the clock (292 years) does not expire. Takes 16 bytes of
    /// memory per entry.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// let minute = Duration::from_secs(60);
    /// let cache = cortado::Cache::builder().max_cost(10).ttl(minute).build()?;
    /// cache.insert("k", 1);
    /// assert!(cache.get("k").unwrap().ttl() <= Some(minute));
    /// # Ok::<(), cortado::BuildError>(())
    /// ```
    #[doc(alias("time_to_live", "expire_after_write"))]
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.config.ttl = Some(ttl);
        self
    }

    /// Sets the time to idle: how long an entry lives after its last use.
    ///
    /// The time is counted from the entry's last hit, or from one at most a millisecond earlier (a
    /// thousandth of the time to idle, if that is less). An entry that also has a deadline expires
    /// at the earlier of the two.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use cortado::{Cache, ManualClock};
    ///
    /// let clock = ManualClock::new();
    /// let second = Duration::from_secs(1);
    /// let cache = Cache::builder().max_cost(10).tti(10 * second).clock(clock.clone()).build()?;
    /// cache.insert("used", 1);
    /// cache.insert("unused", 1);
    /// clock.advance(9 * second);
    /// assert!(cache.get("used").is_some());
    /// clock.advance(second);
    /// assert!(cache.contains_key("used") && !cache.contains_key("unused"));
    /// # Ok::<(), cortado::BuildError>(())
    /// ```
    #[doc(alias("time_to_idle", "expire_after_access"))]
    pub fn tti(mut self, tti: Duration) -> Self {
        self.config.tti = Some(tti);
        self
    }

    /// Sets the age at which a load refreshes an entry that is still served.
    ///
    /// Of the callers of a loader that find an older entry, one runs its loader and replaces the
    /// entry; all others get the old value at once. If the loader fails, its caller also gets the
    /// old value, and the next refresh is due when the same time has passed again: the entry's
    /// [`age`](crate::EntryInfo::age) restarts at 0, although its value is no younger. So while the
    /// source of the values is down, an entry is served until its [`ttl`](Self::ttl) is over: that
    /// limits how stale a value may be.
    ///
    /// `get` and the other plain reads refresh nothing. To refresh in the background, so that no
    /// caller waits, use [`Cache::claim_refresh`].
    ///
    /// Takes 16 bytes of memory per entry. It cannot be combined with [`tti`](Self::tti).
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use cortado::{Cache, ManualClock};
    ///
    /// let clock = ManualClock::new();
    /// let minute = Duration::from_secs(60);
    /// let cache = Cache::builder()
    ///     .max_cost(10)
    ///     .refresh_after(minute)
    ///     .ttl(60 * minute)
    ///     .clock(clock.clone())
    ///     .build()?;
    /// cache.insert("k", 1);
    /// assert_eq!(*cache.get_or_insert_with("k", || 2), 1);
    /// clock.advance(minute);
    /// assert_eq!(cache.try_get_or_insert_with("k", || Err("down")).map(|value| *value), Ok(1));
    /// clock.advance(minute);
    /// assert_eq!(*cache.get_or_insert_with("k", || 2), 2);
    /// # Ok::<(), cortado::BuildError>(())
    /// ```
    #[doc(alias("refresh_after_write"))]
    pub fn refresh_after(mut self, age: Duration) -> Self {
        self.config.refresh_after = Some(age);
        self
    }

    /// Sets how long each entry lives from its key and value, when it is created, updated and read.
    ///
    /// Replaces [`ttl`](Self::ttl); a time to live set by an insert takes precedence over both. See
    /// [`Expiry`] for an example.
    #[doc(alias("expire_after"))]
    pub fn expiry(mut self, expiry: impl Expiry<K, V> + 'static) -> Self {
        self.callbacks.expiry = Some(Box::new(expiry));
        self
    }

    /// Gives every entry room for a deadline (16 bytes), so that [`Cache::set_ttl`] can set one
    /// later.
    ///
    /// Entries that are inserted with a deadline always have that room, and so do all entries of a
    /// cache with [`ttl`](Self::ttl), [`tti`](Self::tti) or [`expiry`](Self::expiry).
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// let cache = cortado::Cache::builder().max_cost(10).timed(true).build()?;
    /// cache.insert("k", 1);
    /// assert_eq!(cache.set_ttl("k", Some(Duration::ZERO)), Ok(()));
    /// assert!(cache.get("k").is_none());
    /// # Ok::<(), cortado::BuildError>(())
    /// ```
    pub fn timed(mut self, timed: bool) -> Self {
        self.config.timed = timed;
        self
    }

    /// Sets whether an insert that sets no priority keeps that of the entry that it replaces. By
    /// default it does not: an insert keeps nothing of the old entry, while [`Cache::replace`] and
    /// [`Cache::update`] keep cost, priority and deadline.
    ///
    /// # Examples
    ///
    /// ```
    /// use cortado::{Cache, InsertOptions, Priority};
    ///
    /// let cache = Cache::builder().max_cost(10).keep_priority(true).build()?;
    /// cache.insert_with("k", 1, InsertOptions::new().priority(Priority::High));
    /// cache.insert("k", 2);
    /// assert_eq!(cache.entry_info("k").unwrap().priority, Priority::High);
    /// # Ok::<(), cortado::BuildError>(())
    /// ```
    pub fn keep_priority(mut self, keep: bool) -> Self {
        self.config.keep_priority = keep;
        self
    }

    /// Sets the clock for deadlines. By default it is the system's monotonic clock; see
    /// [`ManualClock`](crate::ManualClock) for one that tests advance by hand.
    pub fn clock(mut self, clock: impl Clock) -> Self {
        let notice = Notice::of(&clock);
        self.clock = Some((Box::new(clock), notice));
        self
    }

    /// Sets how keys are hashed.
    ///
    /// The cache mixes the hash again, so its entropy need not be spread over all bits. With a hash
    /// without random keys, a party that chooses the keys can direct them all to one bucket.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::hash::{BuildHasherDefault, DefaultHasher};
    ///
    /// let hasher = BuildHasherDefault::<DefaultHasher>::default();
    /// let cache = cortado::Cache::builder().max_cost(10).hasher(hasher).build()?;
    /// cache.insert("k", 1);
    /// assert!(cache.contains_key("k"));
    /// # Ok::<(), cortado::BuildError>(())
    /// ```
    #[doc(alias("build_with_hasher", "set_hasher"))]
    pub fn hasher<H>(self, hasher: H) -> CacheBuilder<K, V, H> {
        let Self { config, clock, slow_load, callbacks, .. } = self;
        CacheBuilder { config, clock, slow_load, callbacks, hasher }
    }

    /// Sets what eviction and admission maximise. By default [`EvictionPolicy::FrequencyPerCost`].
    ///
    /// # Examples
    ///
    /// ```
    /// use cortado::{Cache, EvictionPolicy};
    ///
    /// let builder = Cache::builder().max_cost(1 << 20);
    /// let cache = builder.eviction_policy(EvictionPolicy::Frequency).build()?;
    /// assert!(cache.insert_with_cost("page", 1, 4096).is_in());
    /// # Ok::<(), cortado::BuildError>(())
    /// ```
    pub fn eviction_policy(mut self, policy: EvictionPolicy) -> Self {
        self.config.eviction_policy = policy;
        self
    }

    /// Sets how the deferred work is done. By default [`Maintenance::Thread`]; see [`Cache::tick`]
    /// for an example without a thread.
    pub fn maintenance(mut self, maintenance: Maintenance) -> Self {
        self.config.maintenance = maintenance;
        self
    }

    /// Limits the cost of garbage: entries that are unlinked and not yet freed.
    ///
    /// Garbage grows only while a reader stays pinned. A reader that holds a value, and a thread
    /// that is preempted during an operation on one key, keep the values of about one key in a
    /// thousand from being dropped. All other values are dropped, and some dozen bytes of each
    /// entry are kept. (With the feature `crossbeam-epoch` they keep all.)
    ///
    /// Above the limit an insert of a new key is rejected as
    /// [`RejectReason::Garbage`](crate::RejectReason::Garbage) and removes nothing. An existing
    /// value is still replaced, up to twice the limit. Beyond that `insert` and `replace` are
    /// rejected too, and remove the value that they were to replace, because it is out of date;
    /// `update` and `compute` are rejected and leave the old value in place. Rejections are counted
    /// ([`Metrics::rejected_garbage`](crate::Metrics)).
    ///
    /// By default the limit is the budget, or 32 MiB of memory if that is more: of entries as the
    /// table stores them, or of their cost where costs differ.
    ///
    /// # Examples
    ///
    /// ```
    /// use cortado::{Cache, Insert, RejectReason};
    ///
    /// let cache = Cache::builder().max_cost(10).max_garbage(0).build()?;
    /// cache.insert("k", 1);
    /// let held = cache.remove("k");
    /// assert_eq!(cache.insert("k", 2), Insert::Rejected(2, RejectReason::Garbage));
    /// drop(held);
    /// cache.flush();
    /// assert!(cache.insert("k", 2).is_in());
    /// # Ok::<(), cortado::BuildError>(())
    /// ```
    pub fn max_garbage(mut self, cost: u64) -> Self {
        self.config.max_garbage = Some(cost);
        self
    }

    /// Sets the seed of the policy's random choices. With a fixed hasher, [`Maintenance::Manual`]
    /// and one thread, the same calls then have the same results.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::hash::{BuildHasherDefault, DefaultHasher};
    /// use cortado::{BuildError, Cache};
    ///
    /// let play = || -> Result<Vec<u64>, BuildError> {
    ///     let hasher = BuildHasherDefault::<DefaultHasher>::default();
    ///     let cache = Cache::builder().max_cost(10).seed(1).hasher(hasher).build_manual()?;
    ///     (0..1000).for_each(|k| _ = cache.insert(k * k % 97, ()));
    ///     Ok(cache.pin().keys().copied().collect())
    /// };
    /// assert_eq!(play()?, play()?);
    /// # Ok::<(), cortado::BuildError>(())
    /// ```
    pub fn seed(mut self, seed: u64) -> Self {
        self.config.seed = Some(seed);
        self
    }

    /// Turns the counters of [`Cache::metrics`] on. Off by default: a hit then writes no counter.
    #[doc(alias("record_stats", "set_metrics"))]
    pub fn metrics(mut self, metrics: bool) -> Self {
        self.config.metrics = metrics;
        self
    }

    /// Adds the bytes of an entry in memory to its cost: key and value, inline, and 32 bytes for
    /// the metadata that the cache keeps of it. Off by default.
    ///
    /// # Examples
    ///
    /// ```
    /// let cache = cortado::Cache::builder().max_cost(1 << 20).charge_overhead(true).build()?;
    /// cache.insert_with_cost(1u64, [0u8; 32], 100);
    /// assert_eq!(cache.cost(), 100 + (8 + 32) + 32);
    /// # Ok::<(), cortado::BuildError>(())
    /// ```
    pub fn charge_overhead(mut self, charge: bool) -> Self {
        self.config.charge_overhead = charge;
        self
    }

    /// Sets the limit above which a load is reported as slow by an event of the `tracing` crate. By
    /// default one second, measured by the cache's [`clock`](Self::clock).
    #[cfg(feature = "tracing")]
    #[cfg_attr(docsrs, doc(cfg(feature = "tracing")))]
    pub fn slow_load(mut self, limit: Duration) -> Self {
        self.slow_load = limit;
        self
    }

    /// Sets all settings that are plain data, and replaces those that were set before.
    ///
    /// # Examples
    ///
    /// ```
    /// use cortado::{Cache, Config};
    ///
    /// let mut config = Config::default();
    /// config.max_cost = 100;
    /// let cache: Cache<u64, u64> = Cache::builder().config(config).metrics(true).build()?;
    /// assert_eq!(cache.max_cost(), 100);
    /// # Ok::<(), cortado::BuildError>(())
    /// ```
    pub fn config(mut self, config: Config) -> Self {
        self.config = config;
        self
    }

    /// Names the cache and its thread; see [`Cache::name`]. NUL bytes are left out of the thread's
    /// name.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.config.name = name.into();
        self
    }

    /// Builds the cache, and starts its thread unless maintenance is manual.
    ///
    /// # Errors
    ///
    /// Returns a [`BuildError`] if the budget is 0, if more entries are expected than the table
    /// supports or than memory can be allocated for, if both [`ttl`](Self::ttl) and
    /// [`expiry`](Self::expiry) or both [`refresh_after`](Self::refresh_after) and
    /// [`tti`](Self::tti) are set, or if the thread cannot be started.
    ///
    /// # Examples
    ///
    /// ```
    /// use cortado::{BuildError, Cache};
    ///
    /// assert!(Cache::<u32, u32>::builder().max_cost(1).build().is_ok());
    /// let nothing = Cache::<u32, u32>::builder().build();
    /// assert_eq!(nothing.unwrap_err(), BuildError::MaxCostZero);
    /// ```
    pub fn build(self) -> Result<Cache<K, V, S>, BuildError>
    where
        K: Hash + Eq + Send + Sync + 'static,
        V: Send + Sync + 'static,
        S: BuildHasher + Send + Sync + 'static,
    {
        let threaded = self.config.maintenance == Maintenance::Thread;
        let eventcount: Arc<EventCount> = Arc::default();
        let mut cache = self.assemble(&eventcount)?;
        if threaded {
            let maintenance_thread = MaintenanceThread::start(Arc::clone(&cache.engine))
                .map_err(|error| BuildError::SpawnFailed(error.to_string()))?;
            cache.maintenance_thread = Some(Arc::new(maintenance_thread));
        }
        Ok(cache)
    }

    /// Builds a cache with [`Maintenance::Manual`], whose keys and values may borrow.
    ///
    /// # Errors
    ///
    /// As [`build`](Self::build).
    ///
    /// # Examples
    ///
    /// ```
    /// let text = String::from("borrowed");
    /// let cache = cortado::Cache::builder().max_cost(10).build_manual()?;
    /// cache.insert(1, text.as_str());
    /// assert_eq!(*cache.get(&1).unwrap(), "borrowed");
    /// # Ok::<(), cortado::BuildError>(())
    /// ```
    pub fn build_manual(self) -> Result<Cache<K, V, S>, BuildError>
    where
        K: Hash + Eq + Send + Sync,
        V: Send + Sync,
        S: BuildHasher,
    {
        self.maintenance(Maintenance::Manual).assemble(&Arc::default())
    }

    fn assemble(self, eventcount: &Arc<EventCount>) -> Result<Cache<K, V, S>, BuildError> {
        let Self { config, clock, slow_load, callbacks, hasher } = self;
        if config.max_cost == 0 {
            return Err(BuildError::MaxCostZero);
        }
        if config.ttl.is_some() && callbacks.expiry.is_some() {
            return Err(BuildError::TtlAndExpiry);
        }
        if config.refresh_after.is_some() && config.tti.is_some() {
            return Err(BuildError::RefreshAndTti);
        }
        let by_cost = callbacks.cost_of.is_some() || config.charge_overhead;
        let most = if by_cost { DEFAULT_ENTRIES_BY_COST } else { DEFAULT_ENTRIES };
        let expected_entries =
            config.expected_entries.unwrap_or_else(|| config.max_cost.min(most) as usize);
        if expected_entries > MAX_ENTRIES {
            return Err(BuildError::TooManyEntries { given: expected_entries, limit: MAX_ENTRIES });
        }
        let settings = Settings {
            name: config.name,
            max_cost: config.max_cost,
            expected_entries,
            max_garbage: config.max_garbage,
            maintenance: config.maintenance,
            eviction_policy: config.eviction_policy,
            seed: config.seed.unwrap_or_else(random_seed),
            metrics: config.metrics,
            charge_overhead: config.charge_overhead,
            keep_priority: config.keep_priority,
            slow_load,
        };
        let Config { ttl, tti, refresh_after, timed, .. } = config;
        let mut timing = Timing::new(clock, ttl, tti, refresh_after, timed);
        if settings.maintenance == Maintenance::Thread {
            let eventcount = Arc::clone(eventcount);
            timing.call_when_moved(move || eventcount.notify());
        }
        let eventcount = Arc::clone(eventcount);
        let engine = Arc::new(Engine::new(settings, hasher, callbacks, timing, eventcount)?);
        Ok(Cache { maintenance_thread: None, engine })
    }
}

impl<K, V, S> std::fmt::Debug for CacheBuilder<K, V, S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CacheBuilder")
            .field("name", &self.config.name)
            .field("max_cost", &self.config.max_cost)
            .field("expected_entries", &self.config.expected_entries)
            .field("maintenance", &self.config.maintenance)
            .finish_non_exhaustive()
    }
}

fn random_seed() -> u64 {
    DefaultHashBuilder::new().hash_one(0)
}
