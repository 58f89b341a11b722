//! The public API: [`Cache`], its builder, guards and loaders. Each method is a thin layer over the
//! engine.

mod builder;
mod cache_ref;
mod compute;
mod compute_async;
pub mod entry;
mod info;
mod iter;
mod load;
mod load_async;
mod load_many;
mod loader;
mod options;

mod refresh;
mod restart;
mod unwind;
mod value_ref;

use std::{
    future::poll_fn,
    hash::{BuildHasher, Hash},
    panic::resume_unwind,
    task::Poll,
    time::Duration,
};

use equivalent::Equivalent;

pub use self::{
    builder::CacheBuilder,
    cache_ref::CacheRef,
    compute::ComputeOp,
    info::EntryInfo,
    iter::Iter,
    load::{Claim, FillGuard, WaitPolicy},
    load_async::Cloned,
    loader::{BorrowedKey, EntryKey, OwnedKey},
    options::InsertOptions,
    restart::{Export, ExportedEntry, ImportReport},
    value_ref::ValueRef,
};
use crate::{
    engine::thread::MaintenanceThread,
    engine::{Engine, MemoryUse, Mode, RemovalCause, StalledReader, Trace, WorkLimit, WorkReport},
    entry::Entry,
    metrics::Metrics,
    outcome::Insert,
    sync::Arc,
    table::{EntryRef, Held},
};

/// The maximum number of rounds of a flush. A grace period takes three or four.
const FLUSH_ROUNDS: usize = 64;

/// The default hasher: ahash with random keys for each cache.
pub type DefaultHashBuilder = ahash::RandomState;

/// A concurrent cache that keeps the sum of its entries' costs within a budget.
///
/// Reads never wait: they take no lock and are not delayed by writers, growth or eviction. A hit
/// writes its bucket's line at most once a step of the access clock, and rarely a counter. An insert is decided before it
/// returns, and visible to all threads when it returns [`Insert::Inserted`] or [`Insert::Updated`].
/// The sum of the costs of all entries never exceeds [`max_cost`](Self::max_cost), not for an
/// instant.
///
/// One type serves threads and async tasks. Cloning it clones a handle; the cache and its entries
/// are dropped with the last handle.
///
/// # Dropping
///
/// Dropping the last handle never waits for user code. If the cache's thread is idle, which is the
/// usual case, every value has been dropped when the drop returns. If the thread is running user
/// code (a destructor, [`on_remove`](CacheBuilder::on_remove), a clock) that takes longer than a
/// millisecond, the drop returns, and the thread drops the remaining values when that code has
/// returned. The same happens if the last handle is dropped on the thread of a cache; if that is in
/// a destructor, the thread that runs the destructor drops the remaining values. Pending calls of
/// `on_remove` are made on the cache's thread, or without one
/// ([`Maintenance::Manual`](crate::Maintenance::Manual)) by the thread that drops the cache. To
/// wait until all this is done, [`close`](Self::close) the cache.
///
/// # Examples
///
/// ```
/// use cortado::Cache;
///
/// let cache = Cache::new(100);
/// cache.insert("answer", 42);
/// assert_eq!(cache.get("answer").as_deref(), Some(&42));
/// ```
///
/// Costs, here bytes:
///
/// ```
/// use cortado::Cache;
///
/// let cache = Cache::builder()
///     .max_cost(1 << 20)
///     .cost_of(|_key: &u64, page: &String| page.len() as u64)
///     .build()?;
/// assert!(cache.insert(1, "a page".to_string()).is_in());
/// assert_eq!(cache.cost(), 6);
/// # Ok::<(), cortado::BuildError>(())
/// ```
pub struct Cache<K, V, S = DefaultHashBuilder> {
    engine: Arc<Engine<K, V, S>>,
    // After the engine: when the thread is stopped, it holds the last handle of the engine.
    maintenance_thread: Option<Arc<MaintenanceThread>>,
}

impl<K, V> Cache<K, V>
where
    K: Hash + Eq + Send + Sync + 'static,
    V: Send + Sync + 'static,
{
    /// Creates a cache in which every entry costs 1 unless it is inserted with a cost.
    ///
    /// # Panics
    ///
    /// Panics if `max_cost` is 0 or the thread cannot be started; [`CacheBuilder::build`] returns
    /// an error instead.
    ///
    /// # Examples
    ///
    /// ```
    /// let cache = cortado::Cache::new(10);
    /// for k in 0..100 {
    ///     cache.insert(k, k);
    /// }
    /// assert!(cache.len() <= 10);
    /// ```
    pub fn new(max_cost: u64) -> Self {
        match Self::builder().max_cost(max_cost).build() {
            Ok(cache) => cache,
            Err(error) => panic!("{error}"),
        }
    }
}

impl<K, V> Cache<K, V> {
    /// Returns a builder with every setting at its default; see [`CacheBuilder`].
    ///
    /// # Examples
    ///
    /// ```
    /// let cache = cortado::Cache::<u32, u32>::builder().max_cost(10).build()?;
    /// assert_eq!(cache.max_cost(), 10);
    /// # Ok::<(), cortado::BuildError>(())
    /// ```
    pub fn builder() -> CacheBuilder<K, V> {
        CacheBuilder::new()
    }
}

/// # Reading
///
/// Keys may be passed in any borrowed form that hashes and compares like the key ([`Equivalent`]).
impl<K, V, S> Cache<K, V, S>
where
    K: Hash + Eq,
    S: BuildHasher,
{
    /// Returns the value of a key.
    ///
    /// The result pins this thread: drop it soon. It blocks no other thread, but entries that are
    /// removed while it lives are not freed. It cannot be sent to another thread or held across an
    /// `.await` in a task that moves between threads; the result of
    /// [`get_cloned`](Self::get_cloned) can.
    ///
    /// Takes a bounded number of steps unless the slot that it reads keeps changing; allocates
    /// nothing.
    ///
    /// # Examples
    ///
    /// ```
    /// let cache = cortado::Cache::new(10);
    /// cache.insert("a".to_string(), 1);
    /// assert_eq!(*cache.get("a").unwrap(), 1);
    /// assert!(cache.get("b").is_none());
    /// ```
    #[inline]
    pub fn get<Q>(&self, key: &Q) -> Option<ValueRef<'_, K, V>>
    where
        Q: Hash + Equivalent<K> + ?Sized,
    {
        self.look_up(key, Trace::Leave)
    }

    /// Returns a clone of the value of a key, which can be sent to another thread, kept, and held
    /// across an `.await`.
    ///
    /// The value is cloned while this thread is pinned; cloning an `Arc` is cheap whatever it
    /// holds.
    ///
    /// # Examples
    ///
    /// ```
    /// let cache = cortado::Cache::new(10);
    /// cache.insert("k", 1);
    /// assert_eq!(cache.get_cloned("k"), Some(1));
    /// assert_eq!(cache.get_cloned("absent"), None);
    /// ```
    #[inline]
    pub fn get_cloned<Q>(&self, key: &Q) -> Option<V>
    where
        Q: Hash + Equivalent<K> + ?Sized,
        V: Clone,
    {
        self.get(key).map(|value| value.clone())
    }

    /// Returns the value of a key without recording an access: frequency, recency and metrics do
    /// not change.
    ///
    /// # Examples
    ///
    /// ```
    /// let cache = cortado::Cache::builder().max_cost(10).metrics(true).build()?;
    /// cache.insert("k", 1);
    /// assert_eq!(cache.peek("k").as_deref(), Some(&1));
    /// assert_eq!(cache.metrics().hits, 0);
    /// # Ok::<(), cortado::BuildError>(())
    /// ```
    pub fn peek<Q>(&self, key: &Q) -> Option<ValueRef<'_, K, V>>
    where
        Q: Hash + Equivalent<K> + ?Sized,
    {
        self.look_up(key, Trace::None)
    }

    /// Returns whether a key has an entry; like [`peek`](Self::peek), records no access.
    ///
    /// The entry may be gone by the next call: to read the value, [`get`](Self::get) it.
    ///
    /// # Examples
    ///
    /// ```
    /// let cache = cortado::Cache::new(10);
    /// cache.insert("k", 1);
    /// assert!(cache.contains_key("k") && !cache.contains_key("absent"));
    /// ```
    pub fn contains_key<Q>(&self, key: &Q) -> bool
    where
        Q: Hash + Equivalent<K> + ?Sized,
    {
        self.peek(key).is_some()
    }

    /// Pins this thread for several reads.
    ///
    /// References obtained through it live as long as the pin, and a read through it is cheaper
    /// than [`get`](Self::get). Like a [`ValueRef`], keep it short.
    ///
    /// # Examples
    ///
    /// ```
    /// let cache = cortado::Cache::new(10);
    /// cache.insert(1, "one");
    /// cache.insert(2, "two");
    /// let pinned = cache.pin();
    /// let both = (pinned.get(&1), pinned.get(&2));
    /// assert_eq!(both, (Some(&"one"), Some(&"two")));
    /// ```
    #[doc(alias("iter", "guard"))]
    pub fn pin(&self) -> CacheRef<'_, K, V, S> {
        CacheRef::new(self)
    }

    /// Reads many keys at once, and calls `f` with the index of each and its value, in order.
    ///
    /// This is the fastest way to read several keys: the memory of up to 16 of them is fetched at a
    /// time. Allocates nothing.
    ///
    /// # Examples
    ///
    /// ```
    /// let cache = cortado::Cache::new(10);
    /// cache.insert(1, 10);
    /// cache.insert(3, 30);
    /// let mut sum = 0;
    /// cache.get_many(&[1, 2, 3], |_, value| sum += value.unwrap_or(&0));
    /// assert_eq!(sum, 40);
    /// ```
    ///
    /// Keys in a borrowed form:
    ///
    /// ```
    /// let cache = cortado::Cache::<String, u32>::new(10);
    /// cache.insert("a".into(), 1);
    /// let mut found = Vec::new();
    /// cache.get_many("a b".split(' '), |_, value| found.push(value.copied()));
    /// assert_eq!(found, [Some(1), None]);
    /// ```
    pub fn get_many<'k, Q>(
        &self,
        keys: impl IntoIterator<Item = &'k Q>,
        f: impl FnMut(usize, Option<&V>),
    ) where
        Q: Hash + Equivalent<K> + ?Sized + 'k,
    {
        self.pin().get_many(keys, f);
    }

    /// Returns how often a key was accessed recently, from 0 to 15, as the policy estimates it.
    ///
    /// The most recent accesses may not be counted yet; see [`flush`](Self::flush). Hits of an
    /// entry within one step of the access clock count as one.
    ///
    /// # Examples
    ///
    /// ```
    /// let cache = cortado::Cache::<&str, u32>::new(10);
    /// assert!(cache.get("absent").is_none());
    /// cache.flush();
    /// assert!(cache.frequency("absent") > 0, "misses count, too");
    /// ```
    pub fn frequency<Q>(&self, key: &Q) -> u8
    where
        Q: Hash + Equivalent<K> + ?Sized,
    {
        let hash = self.engine.hash(key);
        self.engine.frequency_of_key(hash, |k| key.equivalent(k))
    }

    #[inline]
    fn look_up<Q>(&self, key: &Q, trace: Trace) -> Option<ValueRef<'_, K, V>>
    where
        Q: Hash + Equivalent<K> + ?Sized,
    {
        let hash = self.engine.hash(key);
        let matches = |k: &K| key.equivalent(k);
        // Two calls rather than `Engine::get`: their common result would be written to memory and
        // read back.
        if self.engine.is_plain(trace) {
            self.engine.get_plain(hash, matches).map(|entry| self.value_ref(entry))
        } else {
            self.engine.get_slowly(hash, trace, matches).map(|entry| self.value_ref(entry))
        }
    }
}

/// # Writing
///
/// Every write is decided when it returns. A rejected value is returned to the caller, and an older
/// value of the key is removed: a cache must not serve a value that was overwritten.
impl<K, V, S> Cache<K, V, S>
where
    K: Hash + Eq,
    S: BuildHasher,
{
    /// Inserts an entry, or replaces the one of its key.
    ///
    /// Its cost is 1, or what the builder's [`cost_of`](CacheBuilder::cost_of) returns. If the
    /// budget has no room for it, the call evicts a bounded number of entries to make room. Cost,
    /// priority and deadline of a replaced entry are not carried over.
    ///
    /// # Examples
    ///
    /// ```
    /// use cortado::{Cache, Insert};
    ///
    /// let cache = Cache::new(10);
    /// assert_eq!(cache.insert("k", 1), Insert::Inserted);
    /// assert_eq!(cache.insert("k", 2), Insert::Updated);
    /// assert_eq!(cache.get_cloned("k"), Some(2));
    /// ```
    #[doc(alias("set"))]
    pub fn insert(&self, key: K, value: V) -> Insert<V> {
        self.insert_with(key, value, InsertOptions::new())
    }

    /// Inserts an entry of a given cost, or replaces the one of its key.
    ///
    /// A cost of 0 is legal: such an entry is not evicted on account of its cost.
    ///
    /// # Examples
    ///
    /// ```
    /// use cortado::{Cache, Insert, RejectReason};
    ///
    /// let cache = Cache::new(10);
    /// assert!(cache.insert_with_cost("small", 1, 4).is_in());
    /// let large = cache.insert_with_cost("large", 2, 11);
    /// assert_eq!(large, Insert::Rejected(2, RejectReason::TooCostly));
    /// assert_eq!(cache.remaining_cost(), 6);
    /// ```
    pub fn insert_with_cost(&self, key: K, value: V, cost: u64) -> Insert<V> {
        self.insert_with(key, value, InsertOptions::new().cost(cost))
    }

    /// Inserts an entry with a time to live, or replaces the one of its key.
    ///
    /// An expired entry is never returned, and leaves the budget soon after its deadline even if no
    /// call looks it up. Any duration is legal.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// let cache = cortado::Cache::new(10);
    /// assert!(cache.insert_with_ttl("session", 1, Duration::from_secs(60)).is_in());
    /// assert!(cache.get("session").unwrap().ttl() <= Some(Duration::from_secs(60)));
    /// assert!(cache.insert_with_ttl("gone", 1, Duration::ZERO).is_in());
    /// assert!(cache.get("gone").is_none());
    /// ```
    pub fn insert_with_ttl(&self, key: K, value: V, ttl: Duration) -> Insert<V> {
        self.insert_with(key, value, InsertOptions::new().ttl(ttl))
    }

    /// Inserts an entry with options, or replaces the one of its key, whose options are discarded.
    ///
    /// # Examples
    ///
    /// ```
    /// use cortado::{Cache, InsertOptions, Priority};
    ///
    /// let cache = Cache::new(10);
    /// let pinned = InsertOptions::new().cost(4).priority(Priority::Pinned);
    /// assert!(cache.insert_with("root", 0, pinned).is_in());
    /// for k in 0..1000 {
    ///     cache.insert(format!("page {k}").leak(), k);
    /// }
    /// assert!(cache.contains_key("root"));
    /// ```
    pub fn insert_with(&self, key: K, value: V, options: InsertOptions) -> Insert<V> {
        self.engine.insert(key, value, options.terms(), Mode::Upsert)
    }

    /// Inserts an entry unless its key has one.
    ///
    /// If the key has an entry, the value is returned as [`Rejected`](Insert::Rejected) with the
    /// reason [`Present`](crate::RejectReason::Present).
    ///
    /// # Examples
    ///
    /// ```
    /// use cortado::{Cache, Insert, RejectReason};
    ///
    /// let cache = Cache::new(10);
    /// assert_eq!(cache.insert_if_absent("k", 1), Insert::Inserted);
    /// assert_eq!(cache.insert_if_absent("k", 2), Insert::Rejected(2, RejectReason::Present));
    /// ```
    pub fn insert_if_absent(&self, key: K, value: V) -> Insert<V> {
        self.insert_if_absent_with(key, value, InsertOptions::new())
    }

    /// Like [`insert_if_absent`](Self::insert_if_absent), but with options.
    ///
    /// # Examples
    ///
    /// ```
    /// use cortado::{Cache, InsertOptions};
    ///
    /// let cache = Cache::new(10);
    /// assert!(cache.insert_if_absent_with("k", 1, InsertOptions::new().cost(4)).is_in());
    /// assert!(!cache.insert_if_absent_with("k", 2, InsertOptions::new().cost(5)).is_in());
    /// assert_eq!(cache.cost(), 4);
    /// ```
    pub fn insert_if_absent_with(&self, key: K, value: V, options: InsertOptions) -> Insert<V> {
        self.engine.insert(key, value, options.terms(), Mode::IfAbsent)
    }

    /// Replaces the value of a key that has an entry; cost, priority and deadline stay.
    ///
    /// If the builder has set [`cost_of`](CacheBuilder::cost_of), that computes the cost of the new
    /// value.
    ///
    /// If the key has no entry, the value is returned as [`Rejected`](Insert::Rejected) with the
    /// reason [`Absent`](crate::RejectReason::Absent). If [`replace_if`](CacheBuilder::replace_if)
    /// returns `false`, the old value stays. If the new one is rejected for any other reason, the
    /// old one is removed, because it is out of date.
    ///
    /// # Examples
    ///
    /// ```
    /// use cortado::{Cache, Insert, RejectReason};
    ///
    /// let cache = Cache::new(10);
    /// assert_eq!(cache.replace("k", 1), Insert::Rejected(1, RejectReason::Absent));
    /// cache.insert("k", 1);
    /// assert_eq!(cache.replace("k", 2), Insert::Updated);
    /// ```
    pub fn replace(&self, key: K, value: V) -> Insert<V> {
        self.replace_with(key, value, InsertOptions::new())
    }

    /// Like [`replace`](Self::replace), but with options; what they do not set stays.
    ///
    /// # Examples
    ///
    /// ```
    /// use cortado::{Cache, InsertOptions};
    ///
    /// let cache = Cache::new(10);
    /// cache.insert_with_cost("k", 1, 2);
    /// assert!(cache.replace("k", 2).is_in());
    /// assert_eq!(cache.cost(), 2);
    /// assert!(cache.replace_with("k", 3, InsertOptions::new().cost(5)).is_in());
    /// assert_eq!(cache.cost(), 5);
    /// ```
    pub fn replace_with(&self, key: K, value: V, options: InsertOptions) -> Insert<V> {
        self.engine.insert(key, value, options.terms(), Mode::IfPresent)
    }

    /// Removes the entry of a key and returns it.
    ///
    /// # Examples
    ///
    /// ```
    /// let cache = cortado::Cache::new(10);
    /// cache.insert("k", 1);
    /// assert_eq!(cache.remove("k").as_deref(), Some(&1));
    /// assert!(cache.remove("k").is_none());
    /// ```
    #[doc(alias("invalidate", "delete", "del"))]
    pub fn remove<Q>(&self, key: &Q) -> Option<ValueRef<'_, K, V>>
    where
        Q: Hash + Equivalent<K> + ?Sized,
    {
        self.engine.sweep_if_due();
        let hash = self.engine.hash(key);
        let removed = self.engine.remove(hash, |k| key.equivalent(k), RemovalCause::Removed);
        removed.map(|entry| self.value_ref(entry))
    }

    /// Removes the entry of a key if `condition` holds for its value; no other value is removed.
    ///
    /// `condition` is called again if the value is replaced concurrently.
    ///
    /// # Examples
    ///
    /// ```
    /// let cache = cortado::Cache::new(10);
    /// cache.insert("k", 1);
    /// assert!(cache.remove_if("k", |&v| v > 1).is_none());
    /// assert!(cache.remove_if("k", |&v| v == 1).is_some());
    /// ```
    pub fn remove_if<Q>(
        &self,
        key: &Q,
        mut condition: impl FnMut(&V) -> bool,
    ) -> Option<ValueRef<'_, K, V>>
    where
        Q: Hash + Equivalent<K> + ?Sized,
    {
        self.engine.sweep_if_due();
        let hash = self.engine.hash(key);
        let condition = |entry: EntryRef<'_, Entry<K, V>>| condition(&entry.value);
        let matches = |k: &K| key.equivalent(k);
        let removed = self.engine.remove_which(hash, matches, condition, RemovalCause::Removed);
        removed.map(|entry| self.value_ref(entry))
    }

    /// Removes every entry for which `keep` returns `false`. An entry that is inserted or replaced
    /// concurrently may or may not be checked.
    ///
    /// Takes time in proportion to the size of the table, and blocks no other thread. This thread
    /// is pinned throughout, so entries that are removed concurrently are not freed before the end.
    ///
    /// # Examples
    ///
    /// ```
    /// let cache = cortado::Cache::new(10);
    /// for k in 0..6 {
    ///     cache.insert(k, k);
    /// }
    /// cache.retain(|k, _| k % 2 == 0);
    /// assert_eq!(cache.len(), 3);
    /// ```
    #[doc(alias("invalidate_entries_if"))]
    pub fn retain(&self, mut keep: impl FnMut(&K, &V) -> bool) {
        self.engine.retain(|entry| keep(&entry.key, &entry.value));
    }

    /// Removes every entry that is present when the call begins; entries that are inserted
    /// concurrently may be removed too. A table that had grown shrinks again.
    ///
    /// Takes time in proportion to the size of the table. Unevictable entries are removed too;
    /// estimated frequencies are kept. When the removed entries have been freed (see
    /// [`flush`](Self::flush)), [`memory`](Self::memory) is about that of a new cache, except that
    /// the sketch does not shrink.
    ///
    /// # Examples
    ///
    /// ```
    /// let cache = cortado::Cache::new(10);
    /// cache.insert("k", 1);
    /// cache.clear();
    /// assert!(cache.is_empty());
    /// assert_eq!(cache.cost(), 0);
    /// ```
    #[doc(alias("invalidate_all"))]
    pub fn clear(&self) {
        self.engine.clear();
    }

    /// Like [`clear`](Self::clear), but calls `f` with each removed entry, in no particular order.
    ///
    /// As with `clear`, the values are passed to [`on_remove`](crate::CacheBuilder::on_remove) as
    /// [`Cleared`](crate::RemovalCause::Cleared), and are dropped. This thread is pinned until `f`
    /// has seen all of them.
    ///
    /// # Examples
    ///
    /// ```
    /// let cache = cortado::Cache::new(10);
    /// cache.insert("one", 1);
    /// cache.insert("two", 2);
    /// let mut sum = 0;
    /// cache.drain(|_, value| sum += value);
    /// assert_eq!((sum, cache.len()), (3, 0));
    /// ```
    pub fn drain(&self, mut f: impl FnMut(&K, &V)) {
        self.engine.drain(|entry| f(&entry.key, &entry.value));
    }

    fn value_ref<'a>(&'a self, entry: Held<'a, Entry<K, V>>) -> ValueRef<'a, K, V> {
        ValueRef::new(entry, self.engine.timing())
    }
}

/// # Operating
impl<K, V, S> Cache<K, V, S>
where
    K: Hash + Eq,
    S: BuildHasher,
{
    /// Returns the number of entries; exact when no other thread writes.
    ///
    /// Expired entries count until maintenance has removed them. Adds up one counter per stripe: a
    /// few per core, however many entries there are.
    ///
    /// # Examples
    ///
    /// ```
    /// let cache = cortado::Cache::new(10);
    /// cache.insert_with_cost("k", 1, 3);
    /// assert_eq!(cache.len(), 1);
    /// ```
    #[doc(alias("entry_count"))]
    pub fn len(&self) -> usize {
        self.engine.len() as usize
    }

    /// Returns whether the cache has no entry; as exact as [`len`](Self::len).
    ///
    /// # Examples
    ///
    /// ```
    /// let cache = cortado::Cache::new(10);
    /// assert!(cache.is_empty());
    /// cache.insert("k", 1);
    /// assert!(!cache.is_empty());
    /// ```
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the cost that is charged: that of all entries, and of those about to be inserted.
    /// Never exceeds [`max_cost`](Self::max_cost), unless that is being lowered concurrently. O(1).
    ///
    /// # Examples
    ///
    /// ```
    /// let cache = cortado::Cache::new(10);
    /// cache.insert_with_cost("k", 1, 3);
    /// assert_eq!(cache.cost(), 3);
    /// cache.remove("k");
    /// assert_eq!(cache.cost(), 0);
    /// ```
    #[doc(alias("weighted_size", "weight"))]
    pub fn cost(&self) -> u64 {
        self.engine.cost()
    }

    /// Returns the budget. O(1).
    ///
    /// # Examples
    ///
    /// ```
    /// let cache = cortado::Cache::<u32, u32>::new(10);
    /// assert_eq!(cache.max_cost(), 10);
    /// cache.set_max_cost(20);
    /// assert_eq!(cache.max_cost(), 20);
    /// ```
    #[doc(alias("capacity", "max_capacity"))]
    pub fn max_cost(&self) -> u64 {
        self.engine.max_cost()
    }

    /// Returns the unused part of the budget. O(1).
    ///
    /// # Examples
    ///
    /// ```
    /// let cache = cortado::Cache::new(10);
    /// cache.insert_with_cost("k", 1, 3);
    /// assert_eq!(cache.remaining_cost(), 7);
    /// ```
    pub fn remaining_cost(&self) -> u64 {
        self.engine.remaining_cost()
    }

    /// Changes the budget. If it is lowered, entries that no longer fit are evicted before the call
    /// returns.
    ///
    /// A concurrent insert that was admitted under the old budget has to find room under the new
    /// one, or is rejected. If such inserts alone exceed the new budget, all entries are evicted,
    /// including those of cost 0.
    ///
    /// Takes time in proportion to the entries that are evicted, then to the table; no other thread
    /// waits for it.
    ///
    /// # Examples
    ///
    /// ```
    /// let cache = cortado::Cache::new(100);
    /// for k in 0..100 {
    ///     cache.insert(k, k);
    /// }
    /// cache.set_max_cost(10);
    /// assert!(cache.cost() <= 10 && cache.len() <= 10);
    /// ```
    #[doc(alias("set_capacity", "update_max_cost"))]
    pub fn set_max_cost(&self, max_cost: u64) {
        self.engine.set_max_cost(max_cost);
    }

    /// Returns the name given to the builder, or the empty string.
    ///
    /// # Examples
    ///
    /// ```
    /// let cache = cortado::Cache::<u32, u32>::builder().max_cost(10).name("sessions").build()?;
    /// assert_eq!(cache.name(), "sessions");
    /// # Ok::<(), cortado::BuildError>(())
    /// ```
    pub fn name(&self) -> &str {
        self.engine.name()
    }

    /// Returns the metrics so far; all zero unless the builder turned
    /// [`metrics`](CacheBuilder::metrics) on.
    ///
    /// Adds up the counters of every stripe: call it for a scrape, not for every request.
    ///
    /// # Examples
    ///
    /// ```
    /// let cache = cortado::Cache::builder().max_cost(10).metrics(true).build()?;
    /// cache.insert("k", 1);
    /// let before = cache.metrics();
    /// assert!(cache.get("k").is_some() && cache.get("absent").is_none());
    /// let between = cache.metrics() - before;
    /// assert_eq!((between.hits, between.misses, between.hit_ratio()), (1, 1, 0.5));
    /// # Ok::<(), cortado::BuildError>(())
    /// ```
    pub fn metrics(&self) -> Metrics {
        self.engine.metrics()
    }

    /// Returns the memory in use, garbage included.
    ///
    /// Each figure is a sum over parts that may change concurrently. Reads a cache line of each
    /// thread of the process that has used a cache, and the clock, to count [stalled
    /// readers](MemoryUse::stalled_readers).
    ///
    /// # Examples
    ///
    /// ```
    /// let cache = cortado::Cache::new(10);
    /// cache.insert_with_cost("k", [0u8; 100], 4);
    /// assert!(cache.memory().entries >= 100);
    ///
    /// let held = cache.remove("k");
    /// assert_eq!(cache.memory().garbage, 4, "a reader holds it");
    /// drop(held);
    /// cache.flush();
    /// ```
    pub fn memory(&self) -> MemoryUse {
        self.engine.memory()
    }

    /// Returns the threads that have been in one pin of this cache for at least 100 ms, in no
    /// particular order. They keep garbage from being freed, and cause inserts to be
    /// [rejected](crate::RejectReason::Garbage) if there is too much of it.
    ///
    /// The duration of a pin is measured from the first scan that finds it. While garbage waits for
    /// readers, maintenance and writes scan, so the first call already has the answer; otherwise
    /// the first call starts the measurement, and a call 100 ms later returns the result (see
    /// [`StalledReader`]). The calling thread is included if it holds a value itself. Hits pay
    /// nothing for this.
    ///
    /// Reads a cache line of each thread of the process that has used a cache, and sorts the pinned
    /// ones. Allocates. Never waits for a reader.
    ///
    /// Empty with the feature `crossbeam-epoch`, whose collector does not report which threads are
    /// pinned, and in the other cases in which [`MemoryUse::stalled_readers`] is `None`.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::{sync::mpsc, thread, time::Duration};
    /// use cortado::{Cache, ManualClock};
    ///
    /// let clock = ManualClock::new();
    /// let cache = Cache::builder().max_cost(10).clock(clock.clone()).build_manual()?;
    /// cache.insert("k", 1);
    /// thread::scope(|scope| {
    ///     let (ready, is_ready) = mpsc::channel();
    ///     let (release, is_released) = mpsc::channel::<()>();
    ///     let cache = &cache;
    ///     let slow = move || {
    ///         let held = cache.get("k");
    ///         ready.send(()).unwrap();
    ///         is_released.recv().unwrap(); // slow work under a guard
    ///         drop(held);
    ///     };
    ///     thread::Builder::new().name("slow".into()).spawn_scoped(scope, slow).unwrap();
    ///     is_ready.recv().unwrap();
    ///     assert!(cache.stalled_readers().is_empty(), "the first call begins to watch");
    ///     clock.advance(Duration::from_secs(1));
    ///     let stalled = cache.stalled_readers();
    ///     # #[cfg(not(feature = "crossbeam-epoch"))]
    ///     assert_eq!((stalled.len(), stalled[0].name.as_str()), (1, "slow"));
    ///     release.send(()).unwrap();
    /// });
    /// assert!(cache.stalled_readers().is_empty());
    /// # Ok::<(), cortado::BuildError>(())
    /// ```
    pub fn stalled_readers(&self) -> Vec<StalledReader> {
        self.engine.stalled_readers()
    }

    /// Does a slice of the deferred work: counts accesses, makes room, removes expired entries,
    /// frees removed ones.
    ///
    /// With [`Maintenance::Manual`](crate::Maintenance::Manual) this is the only maintenance except
    /// for the little that inserts require.
    ///
    /// # Panics
    ///
    /// Panics with the panic of a value's destructor, after all other destructors have run.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use cortado::{Cache, Maintenance, WorkLimit};
    ///
    /// let cache = Cache::builder().max_cost(10).maintenance(Maintenance::Manual).build()?;
    /// cache.insert_with_ttl("k", 1, Duration::ZERO);
    /// assert!(cache.get("k").is_none());
    /// assert_eq!((cache.tick(WorkLimit::ALL).expired, cache.cost()), (1, 0));
    /// # Ok::<(), cortado::BuildError>(())
    /// ```
    #[doc(alias("run_pending_tasks"))]
    pub fn tick(&self, work: WorkLimit) -> WorkReport {
        let slice = self.engine.maintain(work);
        if let Some(panic) = slice.panic {
            resume_unwind(panic);
        }
        slice.ticked
    }

    /// Does all deferred work that is pending when it is called: accesses are counted, garbage that
    /// no reader holds is freed, and `on_remove` is called for it.
    ///
    /// Seldom needed, because inserts and removals are visible when they return. Entries that a
    /// pinned thread may see stay, and another thread may be running a destructor or `on_remove`;
    /// the call retries a bounded number of times and does not wait for either beyond that. If it
    /// is called from a destructor or from `on_remove`, it does not wait for other threads.
    ///
    /// # Panics
    ///
    /// As [`tick`](Self::tick).
    ///
    /// # Examples
    ///
    /// ```
    /// use std::sync::Arc;
    /// use cortado::{Cache, Maintenance};
    ///
    /// let cache = Cache::builder().max_cost(10).maintenance(Maintenance::Manual).build()?;
    /// let value = Arc::new(1);
    /// cache.insert("k", Arc::clone(&value));
    /// cache.remove("k");
    /// cache.flush();
    /// assert_eq!(Arc::strong_count(&value), 1);
    /// # Ok::<(), cortado::BuildError>(())
    /// ```
    #[doc(alias("run_pending_tasks", "sync", "wait"))]
    pub fn flush(&self) {
        for _ in 0..FLUSH_ROUNDS {
            if self.flush_once() {
                return;
            }
            crate::sync::thread::yield_now();
        }
    }

    /// Like [`flush`](Self::flush), but yields to other tasks between its tries.
    ///
    /// # Cancel safety
    ///
    /// May be dropped at any time; work that is done stays done.
    ///
    /// # Panics
    ///
    /// As [`tick`](Self::tick).
    pub async fn flush_async(&self) {
        for _ in 0..FLUSH_ROUNDS {
            if self.flush_once() {
                return;
            }
            let mut gave_way = false;
            poll_fn(|context| {
                if std::mem::replace(&mut gave_way, true) {
                    return Poll::Ready(());
                }
                context.waker().wake_by_ref();
                Poll::Pending
            })
            .await;
        }
    }

    /// Does the work that can be done now; returns whether that was all.
    fn flush_once(&self) -> bool {
        !self.tick(WorkLimit::ALL).pending && self.engine.is_at_rest()
    }
}

impl<K, V, S> Cache<K, V, S> {
    /// Drops this handle; if it is the last, waits until the cache is gone: every value is dropped,
    /// and [`on_remove`](CacheBuilder::on_remove) has been called for all entries that had left.
    /// Returns whether the cache is gone.
    ///
    /// Dropping the last handle does not wait for user code (see [`Cache`](Self#dropping)); this
    /// does. Use it at the end of a program whose `on_remove` must have seen every removal. Do not
    /// use it where a listener or a destructor waits for the calling thread. If it is called from
    /// one that runs on the thread of this or another cache, it does not wait and returns `false`.
    ///
    /// # Panics
    ///
    /// Panics with the panic of a value's destructor, after all other destructors have run.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::sync::{Arc, Mutex};
    /// use cortado::Cache;
    ///
    /// let written = Arc::new(Mutex::new(Vec::new()));
    /// let log = Arc::clone(&written);
    /// let cache = Cache::builder()
    ///     .max_cost(10)
    ///     .on_remove(move |removed| log.lock().unwrap().push(removed.key))
    ///     .build()?;
    /// cache.insert("k", 1);
    /// cache.clear();
    /// assert!(cache.close());
    /// assert_eq!(*written.lock().unwrap(), ["k"]);
    /// # Ok::<(), cortado::BuildError>(())
    /// ```
    pub fn close(self) -> bool {
        let Self { engine, maintenance_thread } = self;
        match maintenance_thread {
            None => Arc::into_inner(engine).is_some(),
            Some(maintenance_thread) => {
                drop(engine);
                Arc::into_inner(maintenance_thread).is_some_and(MaintenanceThread::close)
            }
        }
    }
}

impl<K, V, S> Clone for Cache<K, V, S> {
    fn clone(&self) -> Self {
        Self {
            engine: Arc::clone(&self.engine),
            maintenance_thread: self.maintenance_thread.clone(),
        }
    }
}

impl<K, V, S> std::fmt::Debug for Cache<K, V, S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cache")
            .field("name", &self.engine.name())
            .field("len", &self.engine.len())
            .field("cost", &self.engine.cost())
            .field("max_cost", &self.engine.max_cost())
            .finish_non_exhaustive()
    }
}
