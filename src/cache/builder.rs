//! `CacheBuilder`: every setting, checked once.

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
    /// Makes a builder with every setting as by default; a budget has to be set.
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
    /// Sets the budget: the limit of the sum of all entries' costs, in whatever unit they have.
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

    /// Says for how many entries to make the table and the sketch; both still grow.
    ///
    /// By default as many as the budget allows if each costs 1 (at most 16 384), or a few thousand if
    /// there is a [`cost_of`](Self::cost_of). Name the number if it is large and known: growing costs
    /// time, though no other thread waits for it, and a table made to measure keeps some room between entries.
    ///
    /// # Examples
    ///
    /// ```
    /// use cortado::Cache;
    ///
    /// let small = Cache::<u64, u64>::builder().max_cost(1 << 30).build()?;
    /// let large = Cache::<u64, u64>::builder().max_cost(1 << 30).expected_entries(100_000).build()?;
    /// assert!(large.memory().table > small.memory().table);
    /// # Ok::<(), cortado::BuildError>(())
    /// ```
    #[doc(alias("initial_capacity", "estimated_items_capacity"))]
    pub fn expected_entries(mut self, entries: usize) -> Self {
        self.config.expected_entries = Some(entries);
        self
    }

    /// The same as [`expected_entries`](Self::expected_entries) by the name and in the measure of
    /// Ristretto and Stretto: ten counters an entry.
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

    /// Sets what an entry costs, from its key and value. By default 1.
    ///
    /// It runs on the thread that inserts, before anything else happens; for `compute` and `update` after their
    /// closure, and pinned as that is. An insert that names its cost does not ask.
    ///
    /// A cost of 0 is legal and leaves the budget as it is, so the budget does not limit how many
    /// such entries there are: with `|_, v| v.len() as u64`, any number of empty values comes in,
    /// each of which takes memory. Where that may happen, add what an entry takes by itself with
    /// [`charge_overhead`](Self::charge_overhead), or let the cost be 1 at least.
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

    /// Decides whether an insert may replace an entry that is there, from the key, the old and the new value;
    /// where it says no, the insert is rejected as [`Kept`](crate::RejectReason::Kept) and the old value stays.
    ///
    /// Asked by every [`insert`](Cache::insert) and [`replace`](Cache::replace) of a key that has an entry,
    /// perhaps more than once, and not by [`update`](Cache::update) and [`compute`](Cache::compute), which
    /// have seen the old value. Runs while this thread is pinned: make it short. (Ristretto's
    /// `ShouldUpdate`.)
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

    /// Sets which entries may be evicted: `can_evict` is asked before an entry goes to make room.
    ///
    /// An entry for which it returns `false` stays, and is not chosen for a while. After 64 such
    /// answers a call that looks for room gives up, and its insert is refused as
    /// [`Kept`](crate::RejectReason::Kept). Removals, expirations and replacements are not asked about.
    /// [`set_max_cost`](Cache::set_max_cost) with a lower budget evicts entries that are kept if no
    /// others are left.
    ///
    /// For what must stay for long, [`Priority::Pinned`](crate::Priority::Pinned) is cheaper.
    ///
    /// `can_evict` runs while this thread is pinned, on whichever thread makes room: it must not
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

    /// Writes entries back before they are evicted or expire: the entry stays readable until
    /// `write_back` returns, and leaves only if it returned `true` and the entry is still the same.
    ///
    /// So a reader that misses the key finds what was written, and an update that comes in between
    /// is not lost: the new entry stays, and is written back in its turn, after this one: entries of
    /// the same key are written one after the other. If it returns `false` or
    /// panics, the entry stays, and is tried again later, an expired one, which is not readable by
    /// then, after a second. A call that looks for room gives up after 64 such answers.
    ///
    /// A load, a [`compute`](Cache::compute) or an insert that finds an entry whose time is over
    /// writes it first, and waits if another thread does; a refresh writes the entry before it reads
    /// the store. Where that fails, what was loaded is returned and not kept, nothing is refreshed,
    /// and [`insert_if_absent`](Cache::insert_if_absent) is refused as
    /// [`Kept`](crate::RejectReason::Kept). [`set_max_cost`](Cache::set_max_cost) with a lower budget
    /// waits for those who write, too, and evicts what cannot be written if nothing else is left.
    ///
    /// Change values through the cache ([`update`](Cache::update), [`compute`](Cache::compute)): a
    /// value that is changed in place, such as an `Arc<AtomicU64>`, may be changed after it was
    /// written.
    ///
    /// It is called by whichever thread makes room, that of an insert or that of the cache, which
    /// is pinned for as long and evicts nothing else: an insert may take as long as a few calls of
    /// it. It may call the cache, but an entry that it meets while another thread writes entries
    /// back counts as one that cannot be written.
    ///
    /// Removals by the user, [`clear`](Cache::clear) and the drop of the cache write nothing
    /// back, nor does a replacement, nor an entry whose key was overwritten by an insert that was
    /// rejected: its value comes back to the caller. A removal does not wait for a `write_back` of its
    /// key that another thread has begun, and what that writes may come to the store after it: to
    /// delete a key from the store as well, let the store compare versions. Before a cache is dropped,
    /// write back what [`pin`](Cache::pin) iterates over. The memory of the table's buckets does not
    /// shrink in a cache with this function or [`can_evict`](Self::can_evict).
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
    /// let read = |key| cache.get_cloned(&key).or_else(|| store.lock().unwrap().get(&key).copied());
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

    /// Sets what is called with every entry that has left the cache: key, value, cost and cause, once each.
    ///
    /// It is called when no thread can see the entry any more, in place of the value's destructor, and on
    /// the thread that frees it: the cache's own, one that calls [`tick`](Cache::tick) or
    /// [`flush`](Cache::flush), or a writer whose turn it is to help. No guard is held and no lock; it may
    /// call the cache. So an entry is told of a little after it has left, entries in no particular order,
    /// and a newer value of the key may be in the cache by then; [`flush`](Cache::flush) brings everything
    /// that no reader holds. What is in the cache when that is dropped has not left, and is only dropped.
    /// What has left before is still told of: by the cache's thread, perhaps after the drop of the last handle
    /// has returned, which never waits for this function; [`Cache::close`] does.
    ///
    /// A panic of it is treated as that of a destructor: the others are told all the same.
    ///
    /// It lives as long as the cache: one that owns a handle to it keeps it from ever being dropped.
    /// It is not made for writing back what was evicted: it is called after the entry has left, and
    /// a load in between reads the old state of the store. That is what
    /// [`write_back`](Self::write_back) is for.
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

    /// Sets how long an entry lives after it was inserted, unless the insert says otherwise.
    ///
    /// An entry whose time is over is never returned, and leaves the budget soon after. Any duration is
    /// legal: an entry of time 0 is a miss at once, and one that passes the end of the numbers (292 years)
    /// stays. Takes 16 bytes of memory an entry.
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

    /// Sets how long an entry may go unused.
    ///
    /// Counted from its last hit, or one that was at most a millisecond earlier (a thousandth of the time,
    /// if that is less). An entry with a deadline, too, expires at the earlier of the two.
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
    /// entry; all others get the old value at once. If the loader fails, its caller gets the old
    /// value, too, and the next refresh is due when the same time has passed again: the entry's
    /// [`age`](crate::EntryInfo::age) begins anew, though its value is no younger. So during an
    /// outage of what is behind the cache, an entry is served until its [`ttl`](Self::ttl) is over:
    /// that is the limit of how stale a value may be.
    ///
    /// `get` and the other plain reads refresh nothing. To refresh in the background, so that no
    /// caller waits, use [`Cache::claim_refresh`].
    ///
    /// Takes 16 bytes of memory an entry. It cannot be combined with [`tti`](Self::tti).
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

    /// Sets how long each entry lives by its own key and value, when it is created, updated and read.
    ///
    /// In place of [`ttl`](Self::ttl); an insert that names its own time goes before both. See [`Expiry`] for
    /// an example.
    #[doc(alias("expire_after"))]
    pub fn expiry(mut self, expiry: impl Expiry<K, V> + 'static) -> Self {
        self.callbacks.expiry = Some(Box::new(expiry));
        self
    }

    /// Gives every entry room for a deadline (16 bytes), so that [`Cache::set_ttl`] can give it one later.
    ///
    /// Entries that are inserted with a deadline have it in any case, and all have it in a cache with
    /// [`ttl`](Self::ttl), [`tti`](Self::tti) or [`expiry`](Self::expiry).
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

    /// Sets whether an insert that names no priority keeps that of the entry that it replaces. By
    /// default it does not: an insert takes over nothing, while [`Cache::replace`] and
    /// [`Cache::update`] take over everything.
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

    /// Sets the clock that deadlines go by. By default the system's monotonic one; see
    /// [`ManualClock`](crate::ManualClock) for one that tests move by hand.
    pub fn clock(mut self, clock: impl Clock) -> Self {
        let notice = Notice::of(&clock);
        self.clock = Some((Box::new(clock), notice));
        self
    }

    /// Sets how keys are hashed.
    ///
    /// The cache spreads the hash again, so one that has its bits in a corner will do. A hash
    /// without random keys lets whoever chooses the keys crowd them into one bucket.
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

    /// Sets what the choice of victims maximises. By default [`EvictionPolicy::FrequencyPerCost`].
    ///
    /// # Examples
    ///
    /// ```
    /// use cortado::{Cache, EvictionPolicy};
    ///
    /// let cache = Cache::builder().max_cost(1 << 20).eviction_policy(EvictionPolicy::Frequency).build()?;
    /// assert!(cache.insert_with_cost("page", 1, 4096).is_in());
    /// # Ok::<(), cortado::BuildError>(())
    /// ```
    pub fn eviction_policy(mut self, policy: EvictionPolicy) -> Self {
        self.config.eviction_policy = policy;
        self
    }

    /// Sets who does the deferred work. By default [`Maintenance::Thread`]; see [`Cache::tick`] for an example
    /// without.
    pub fn maintenance(mut self, maintenance: Maintenance) -> Self {
        self.config.maintenance = maintenance;
        self
    }

    /// Limits the cost of what is unlinked and not yet freed.
    ///
    /// Garbage grows only while a reader holds on to a pin. One that holds on to a value, and a thread that lost its core
    /// in an operation on one key, keep the values of about one key in a thousand, and what is left of the others
    /// without their destructors' memory: some dozen bytes each. (With the feature `crossbeam-epoch` they keep all.) Above
    /// the limit an insert of a new key is rejected as
    /// [`RejectReason::Garbage`](crate::RejectReason::Garbage) and takes nothing away. A value that is there is
    /// still replaced, up to twice the limit. Beyond that `insert` and `replace` are rejected, too,
    /// and remove what they were to overwrite, for it is out of date; `update` and `compute` are
    /// rejected and leave the old value in its place. What was refused is counted
    /// ([`Metrics::rejected_garbage`](crate::Metrics)).
    ///
    /// By default the limit is the budget, or 32 MiB of memory if that is more: of entries as the
    /// table stores them, or of what they cost where costs differ.
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

    /// Sets where the random choices of the policy begin. With a fixed hasher,
    /// [`Maintenance::Manual`] and one thread, the same calls then have the same results.
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

    /// Turns the counters of [`Cache::metrics`] on. Off by default: a hit then counts nothing.
    #[doc(alias("record_stats", "set_metrics"))]
    pub fn metrics(mut self, metrics: bool) -> Self {
        self.config.metrics = metrics;
        self
    }

    /// Adds the bytes of an entry in memory to its cost: key and value, inline, and 32 bytes for what the cache knows of it.
    /// Off by default.
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

    /// Says which loads are slow: those that take longer are reported by an event of the `tracing` crate. By
    /// default a second, by the cache's [`clock`](Self::clock).
    #[cfg(feature = "tracing")]
    #[cfg_attr(docsrs, doc(cfg(feature = "tracing")))]
    pub fn slow_load(mut self, limit: Duration) -> Self {
        self.slow_load = limit;
        self
    }

    /// Takes all settings that are plain data, in place of those that were set before.
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

    /// Names the cache, and its thread; see [`Cache::name`]. Zero bytes are left out of the thread's name.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.config.name = name.into();
        self
    }

    /// Builds the cache, and starts its thread unless maintenance is manual.
    ///
    /// # Errors
    ///
    /// [`BuildError`] if the budget is 0, if more entries are expected than a table can have or than
    /// there is memory for, if both [`ttl`](Self::ttl) and [`expiry`](Self::expiry) are set, or if the
    /// system gives no thread.
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

    /// Builds a cache with [`Maintenance::Manual`] whose keys and values may borrow.
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

const COUNTERS_PER_ENTRY: usize = 10;
