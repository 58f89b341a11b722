//! Warm restart: exports the entries of one cache and imports them into another.

use std::{
    hash::{BuildHasher, Hash},
    time::Duration,
};

use super::{Cache, CacheRef};
use crate::{
    config::Priority,
    engine::{Engine, Mode, Terms},
    entry::Entry,
    outcome::{Insert, RejectReason},
    table::Hit,
};

/// The number of buckets whose entries an export clones under one pin.
const BUCKETS_PER_PIN: usize = 64;

/// An entry that is exported from a cache or imported into one; see [`Cache::export`] and
/// [`Cache::import`].
///
/// # Examples
///
/// ```
/// use cortado::{Cache, ExportedEntry};
///
/// let mut record = ExportedEntry::new("k", 1);
/// record.frequency = 5;
/// let cache = Cache::new(10);
/// assert_eq!(cache.import([record]).inserted, 1);
/// assert!(cache.frequency("k") > cache.frequency("other"));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct ExportedEntry<K, V> {
    /// The key.
    pub key: K,
    /// The value.
    pub value: V,
    /// Its cost, without the overhead that a cache may charge.
    pub cost: u64,
    /// The rest of its time to live; `None` if it does not expire.
    pub ttl: Option<Duration>,
    /// Its priority.
    pub priority: Priority,
    /// How often it was accessed recently, from 0 to 15.
    pub frequency: u8,
}

impl<K, V> ExportedEntry<K, V> {
    /// Creates the record of an entry of cost 1 that was never accessed and does not expire.
    pub fn new(key: K, value: V) -> Self {
        Self { key, value, cost: 1, ttl: None, priority: Priority::Normal, frequency: 0 }
    }
}

impl<K: Clone, V: Clone> ExportedEntry<&K, &V> {
    /// Clones key and value.
    pub fn cloned(self) -> ExportedEntry<K, V> {
        ExportedEntry {
            key: self.key.clone(),
            value: self.value.clone(),
            cost: self.cost,
            ttl: self.ttl,
            priority: self.priority,
            frequency: self.frequency,
        }
    }
}

/// What [`Cache::import`] did with the records.
///
/// # Examples
///
/// ```
/// use cortado::{Cache, ExportedEntry};
///
/// let cache = Cache::new(10);
/// cache.insert("k", 1);
/// let imported = cache.import([ExportedEntry::new("k", 0), ExportedEntry::new("l", 0)]);
/// assert_eq!((imported.inserted, imported.kept, imported.rejected), (1, 1, 0));
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct ImportReport {
    /// Records that were inserted; some may have been evicted since.
    pub inserted: usize,
    /// Records whose key already had an entry, which is newer and stays.
    pub kept: usize,
    /// Records that the cache rejected.
    pub rejected: usize,
}

impl<'a, K, V, S> CacheRef<'a, K, V, S>
where
    K: Hash + Eq,
    S: BuildHasher,
{
    /// Iterates over the entries, with all that another cache needs to continue from the state of
    /// this one.
    ///
    /// Weakly consistent, like [`iter`](Self::iter). Entries that are removed while this pin lives
    /// are not freed: to write to a slow destination, use [`Cache::export`], which pins one part at
    /// a time.
    ///
    /// # Examples
    ///
    /// ```
    /// let cache = cortado::Cache::new(10);
    /// cache.insert_with_cost("k", 1, 3);
    /// let pinned = cache.pin();
    /// let costs: Vec<_> = pinned.export().map(|record| (*record.key, record.cost)).collect();
    /// assert_eq!(costs, [("k", 3)]);
    /// ```
    pub fn export(&self) -> impl Iterator<Item = ExportedEntry<&K, &V>> {
        let engine = &self.cache.engine;
        let live = engine.live_entries(&self.guard);
        live.map(move |hit| record(engine, engine.hash(&hit.entry.key), &hit))
    }
}

/// An iterator over clones of the entries of a cache, in no particular order; created by
/// [`Cache::export`].
pub struct Export<'a, K, V, S> {
    cache: &'a Cache<K, V, S>,
    /// The records of the current part, cloned while the thread was pinned.
    copied: std::vec::IntoIter<ExportedEntry<K, V>>,
    /// The hash at which the next part begins.
    next: Option<u32>,
}

impl<K, V, S> Iterator for Export<'_, K, V, S>
where
    K: Hash + Eq + Clone,
    V: Clone,
    S: BuildHasher,
{
    type Item = ExportedEntry<K, V>;

    fn next(&mut self) -> Option<ExportedEntry<K, V>> {
        loop {
            if let Some(record) = self.copied.next() {
                return Some(record);
            }
            let from = self.next?;
            let engine = &self.cache.engine;
            let guard = engine.pin();
            let (live, next) = engine.live_entries_from(&guard, from, BUCKETS_PER_PIN);
            let copied: Vec<_> = live
                .map(|hit| record(engine, engine.hash(&hit.entry.key), &hit).cloned())
                .collect();
            self.copied = copied.into_iter();
            self.next = next;
        }
    }
}

impl<K, V, S> std::fmt::Debug for Export<'_, K, V, S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Export").field("cache", self.cache).finish_non_exhaustive()
    }
}

fn record<'g, K: Hash + Eq, V, S: BuildHasher>(
    engine: &Engine<K, V, S>,
    hash: u64,
    hit: &Hit<'g, Entry<K, V>>,
) -> ExportedEntry<&'g K, &'g V> {
    let (entry, flags) = (hit.at(), hit.flags());
    ExportedEntry {
        key: &entry.entry.key,
        value: &entry.entry.value,
        cost: entry.metadata().charge().saturating_sub(engine.overhead(flags.is_timed())),
        ttl: engine.ttl_left(entry),
        priority: flags.priority(),
        frequency: engine.frequency_of(hash, Some(hit)),
    }
}

impl<K, V, S> Cache<K, V, S>
where
    K: Hash + Eq,
    S: BuildHasher,
{
    /// Returns an iterator over clones of all entries, with all that another cache needs to
    /// continue from the state of this one.
    ///
    /// The thread is pinned while it clones the entries of 64 buckets, and not in between: the
    /// caller may process the records slowly. Weakly consistent: an entry that is present
    /// throughout is returned exactly once; one that is inserted, removed or replaced concurrently
    /// may or may not be returned.
    ///
    /// # Examples
    ///
    /// ```
    /// let old = cortado::Cache::new(10);
    /// old.insert_with_cost("k", 1, 3);
    ///
    /// let new = cortado::Cache::new(10);
    /// assert_eq!(new.import(old.export()).inserted, 1);
    /// assert_eq!((new.get_cloned("k"), new.cost()), (Some(1), 3));
    /// ```
    pub fn export(&self) -> Export<'_, K, V, S>
    where
        K: Clone,
        V: Clone,
    {
        Export { cache: self, copied: Vec::new().into_iter(), next: Some(0) }
    }

    /// Inserts records with their costs, deadlines and priorities, and restores their estimated
    /// frequencies. A key that has an entry keeps it.
    ///
    /// The builder's times to live and its [`cost_of`](crate::CacheBuilder::cost_of) do not apply
    /// to imported entries.
    ///
    /// # Examples
    ///
    /// ```
    /// use cortado::{Cache, ExportedEntry};
    ///
    /// let cache = Cache::new(10);
    /// cache.insert("there", 1);
    /// let imported = cache.import([ExportedEntry::new("there", 2), ExportedEntry::new("new", 2)]);
    /// assert_eq!((imported.inserted, imported.kept), (1, 1));
    /// assert_eq!((cache.get_cloned("there"), cache.get_cloned("new")), (Some(1), Some(2)));
    /// ```
    pub fn import(&self, records: impl IntoIterator<Item = ExportedEntry<K, V>>) -> ImportReport {
        let mut imported = ImportReport::default();
        for ExportedEntry { key, value, cost, ttl, priority, frequency } in records {
            let hash = self.engine.hash(&key);
            self.engine.add_frequency(hash, frequency);
            let terms = Terms { cost: Some(cost), priority: Some(priority), ttl: Some(ttl) };
            match self.engine.insert(key, value, terms, Mode::IfAbsent) {
                Insert::Rejected(_, RejectReason::Present) => imported.kept += 1,
                Insert::Rejected(..) => imported.rejected += 1,
                Insert::Inserted | Insert::Updated => imported.inserted += 1,
            }
        }
        imported
    }
}
