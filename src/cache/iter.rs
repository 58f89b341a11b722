//! Iteration over a cache that changes concurrently.

use crate::{engine::Timing, entry::Entry, table};

/// An iterator over the entries of a cache; created by [`CacheRef::iter`](super::CacheRef::iter).
///
/// Weakly consistent: an entry that is present throughout the iteration is returned once (or twice,
/// if the table is resized concurrently); one that is inserted or removed concurrently may or may
/// not be returned. The iterator waits for no other thread and no other thread waits for it.
///
/// # Examples
///
/// ```
/// let cache = cortado::Cache::new(10);
/// cache.insert("k", 1);
/// let pinned = cache.pin();
/// let mut entries = pinned.iter();
/// assert_eq!(entries.next(), Some((&"k", &1)));
/// assert_eq!(entries.next(), None);
/// ```
#[derive(Debug)]
pub struct Iter<'g, K, V> {
    entries: table::Iter<'g, Entry<K, V>>,
    timing: &'g Timing,
}

impl<'g, K, V> Iter<'g, K, V> {
    pub(super) fn new(entries: table::Iter<'g, Entry<K, V>>, timing: &'g Timing) -> Self {
        Self { entries, timing }
    }
}

impl<'g, K, V> Iterator for Iter<'g, K, V> {
    type Item = (&'g K, &'g V);

    fn next(&mut self) -> Option<Self::Item> {
        let timing = self.timing;
        let entry = self.entries.find(|entry| timing.is_unexpired(entry.at()))?.at().entry;
        Some((&entry.key, &entry.value))
    }
}
