//! `CacheRef`: several reads under one guard.

use std::{
    cmp::Reverse,
    hash::{BuildHasher, Hash},
};

use equivalent::Equivalent;

use super::{Cache, Iter};
use crate::{engine::AccessRank, reclaim::Guard};

/// The number of keys that are hashed ahead of their lookup.
const HASHED: usize = 16;

/// An epoch guard through which a cache is read; created by [`Cache::pin`].
///
/// References obtained through it live as long as it does. Not `Send`:
///
/// ```compile_fail
/// fn is_send<T: Send>(_: T) {}
/// let cache = cortado::Cache::<u64, u64>::new(1);
/// is_send(cache.pin());
/// ```
pub struct CacheRef<'a, K, V, S> {
    pub(super) cache: &'a Cache<K, V, S>,
    pub(super) guard: Guard,
}

impl<'a, K, V, S> CacheRef<'a, K, V, S>
where
    K: Hash + Eq,
    S: BuildHasher,
{
    pub(super) fn new(cache: &'a Cache<K, V, S>) -> Self {
        Self { cache, guard: cache.engine.pin() }
    }

    /// Ends the pin and begins a new one, so that entries removed so far can be freed.
    ///
    /// For a thread that reads in a loop: this is cheaper than a new pin in each round, and holds
    /// garbage back no longer. References obtained before must be gone. Does nothing while this
    /// thread has another guard, such as a [`ValueRef`](crate::ValueRef).
    ///
    /// # Examples
    ///
    /// ```
    /// let cache = cortado::Cache::new(10);
    /// cache.insert("k", 1);
    /// let mut pinned = cache.pin();
    /// for _ in 0..3 {
    ///     assert_eq!(pinned.get("k"), Some(&1));
    ///     pinned.repin();
    /// }
    /// ```
    pub fn repin(&mut self) {
        self.cache.engine.repin(&mut self.guard);
    }

    /// Returns the value of a key; records an access, like [`Cache::get`].
    ///
    /// # Examples
    ///
    /// ```
    /// let cache = cortado::Cache::new(10);
    /// cache.insert("k", 1);
    /// let pinned = cache.pin();
    /// assert_eq!(pinned.get("k"), Some(&1));
    /// cache.remove("k");
    /// assert_eq!(pinned.get("k"), None, "a pin is no snapshot");
    /// ```
    #[inline]
    pub fn get<Q>(&self, key: &Q) -> Option<&V>
    where
        Q: Hash + Equivalent<K> + ?Sized,
    {
        let engine = &self.cache.engine;
        let hash = engine.hash(key);
        engine.get_pinned(&self.guard, hash, |k| key.equivalent(k)).map(|entry| &entry.value)
    }

    /// Reads many keys at once; see [`Cache::get_many`]. The references live as long as the pin.
    ///
    /// # Examples
    ///
    /// ```
    /// let cache = cortado::Cache::new(10);
    /// cache.insert(1, "one");
    /// let pinned = cache.pin();
    /// let mut found = [None; 2];
    /// pinned.get_many(&[1, 2], |index, value| found[index] = value);
    /// assert_eq!(found, [Some(&"one"), None]);
    /// ```
    pub fn get_many<'g, 'k, Q>(
        &'g self,
        keys: impl IntoIterator<Item = &'k Q>,
        mut f: impl FnMut(usize, Option<&'g V>),
    ) where
        Q: Hash + Equivalent<K> + ?Sized + 'k,
    {
        let engine = &self.cache.engine;
        let mut keys = keys.into_iter();
        let mut hashes = [0; HASHED];
        let mut before = 0;
        while let Some(first) = keys.next() {
            // Places beyond `count` are not read; a reference has no empty value.
            let mut batch = [first; HASHED];
            hashes[0] = engine.hash(first);
            let mut count = 1;
            for (place, key) in batch[1..].iter_mut().zip(&mut keys) {
                *place = key;
                hashes[count] = engine.hash(key);
                count += 1;
            }
            engine.get_many(
                &self.guard,
                &hashes[..count],
                |index, k| batch[index].equivalent(k),
                |index, value| f(before + index, value),
            );
            before += count;
        }
    }

    /// Iterates over the entries; see [`Iter`] for what it returns under concurrent changes.
    ///
    /// In no particular order; records no accesses. Takes time in proportion to the size of the
    /// table. Entries that are removed concurrently are freed after the pin ends.
    ///
    /// # Examples
    ///
    /// ```
    /// let cache = cortado::Cache::new(10);
    /// cache.insert("one", 1);
    /// cache.insert("two", 2);
    /// let mut entries: Vec<_> = cache.pin().iter().map(|(k, v)| (*k, *v)).collect();
    /// entries.sort();
    /// assert_eq!(entries, [("one", 1), ("two", 2)]);
    /// for (key, value) in &cache.pin() {
    ///     assert!(key.len() == 3 && *value < 3);
    /// }
    /// ```
    pub fn iter(&self) -> Iter<'_, K, V> {
        let engine = &self.cache.engine;
        Iter::new(engine.entries(&self.guard), engine.timing())
    }

    /// Iterates over the keys, like [`iter`](Self::iter).
    ///
    /// # Examples
    ///
    /// ```
    /// let cache = cortado::Cache::new(10);
    /// cache.insert("k", 1);
    /// assert!(cache.pin().keys().eq([&"k"]));
    /// ```
    pub fn keys(&self) -> impl Iterator<Item = &K> {
        self.iter().map(|(key, _)| key)
    }

    /// Iterates over the values, like [`iter`](Self::iter).
    ///
    /// # Examples
    ///
    /// ```
    /// let cache = cortado::Cache::new(10);
    /// cache.insert("one", 1);
    /// cache.insert("two", 2);
    /// assert_eq!(cache.pin().values().sum::<i32>(), 3);
    /// ```
    pub fn values(&self) -> impl Iterator<Item = &V> {
        self.iter().map(|(_, value)| value)
    }

    /// Returns up to `most` entries, the most frequently used first.
    ///
    /// Uses the policy's estimate, whose maximum is 15; of entries with equal estimates, the most
    /// recently used comes first. Records no accesses. Visits every entry, and allocates 24 bytes
    /// for each: use it for inspection, not for every request.
    ///
    /// # Examples
    ///
    /// ```
    /// let cache = cortado::Cache::new(1000);
    /// for n in 0..1000 {
    ///     cache.insert(n, n);
    ///     cache.get(&7);
    /// }
    /// assert_eq!(cache.pin().hottest(1), [(&7, &7)]);
    /// assert!(!cache.pin().coldest(10).contains(&(&7, &7)));
    /// ```
    pub fn hottest(&self, most: usize) -> Vec<(&K, &V)> {
        self.first_by(most, Reverse)
    }

    /// Returns up to `most` entries, the least frequently used first; otherwise like
    /// [`hottest`](Self::hottest).
    pub fn coldest(&self, most: usize) -> Vec<(&K, &V)> {
        self.first_by(most, |access_rank| access_rank)
    }

    fn first_by<O: Ord>(&self, most: usize, order: impl Fn(AccessRank) -> O) -> Vec<(&K, &V)> {
        let engine = &self.cache.engine;
        let ranked = engine.live_entries(&self.guard);
        let ranked = ranked.map(|hit| (order(engine.access_rank(&hit)), hit.at().entry));
        let mut ranked: Vec<_> = ranked.collect();
        if most < ranked.len() {
            ranked.select_nth_unstable_by(most, |a, b| a.0.cmp(&b.0));
            ranked.truncate(most);
        }
        ranked.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        ranked.into_iter().map(|(_, entry)| (&entry.key, &entry.value)).collect()
    }
}

impl<'g, K, V, S> IntoIterator for &'g CacheRef<'_, K, V, S>
where
    K: Hash + Eq,
    S: BuildHasher,
{
    type Item = (&'g K, &'g V);
    type IntoIter = Iter<'g, K, V>;

    fn into_iter(self) -> Iter<'g, K, V> {
        self.iter()
    }
}

impl<K, V, S> std::fmt::Debug for CacheRef<'_, K, V, S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CacheRef").field("cache", self.cache).finish_non_exhaustive()
    }
}
