//! Iteration over a cache while it changes.

use crate::{engine::Timing, entry::Entry, table};

/// Goes through the entries of a cache; made by [`CacheRef::iter`](super::CacheRef::iter).
///
/// Weakly consistent: an entry that is there all the while is seen, once (or twice, if the table
/// is resized at that very moment); one that comes or goes may be seen or not. It waits for no other thread
/// and no other thread waits for it.
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
