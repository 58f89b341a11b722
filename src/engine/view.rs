//! Pins, and lookups that record no access.

use super::{Engine, read::MAX_FREQUENCY};
use crate::{
    entry::Entry,
    reclaim::Guard,
    table::{Hit, Iter},
};

impl<K, V, S> Engine<K, V, S> {
    /// Pins this thread for reads of all entries.
    #[inline]
    pub fn pin(&self) -> Guard {
        self.table.pin()
    }

    /// Pins this thread for reads of the entries of a hash; cheaper to wait for than
    /// [`pin`](Self::pin).
    #[inline]
    pub fn pin_part(&self, hash: u64) -> Guard {
        self.table.pin_part(hash)
    }

    /// Ends the pin of a guard and begins a new one.
    pub fn repin(&self, guard: &mut Guard) {
        self.table.repin(guard);
    }

    /// Finds the entry of a key, unless it has expired.
    pub fn find_live<'g>(
        &'g self,
        guard: &'g Guard,
        hash: u64,
        matches: impl Fn(&K) -> bool,
    ) -> Option<Hit<'g, Entry<K, V>>> {
        let hit = self.table.find(guard, hash, |entry| matches(&entry.entry.key))?;
        self.is_unexpired(hit.at()).then_some(hit)
    }

    /// Returns a clone of the key of an entry, whether it has expired or not.
    pub fn key_of(&self, hash: u64, matches: impl Fn(&K) -> bool) -> Option<K>
    where
        K: Clone,
    {
        let guard = self.pin_part(hash);
        let hit = self.table.find(&guard, hash, |entry| matches(&entry.entry.key));
        hit.map(|hit| hit.entry.key.clone())
    }

    /// Returns how often a key was asked for recently, from 0 to 15, whether it has an entry or
    /// not.
    pub fn frequency_of_key(&self, hash: u64, matches: impl Fn(&K) -> bool) -> u8 {
        let guard = self.pin_part(hash);
        let hit = self.table.find(&guard, hash, |entry| matches(&entry.entry.key));
        self.frequency_of(hash, hit.as_deref())
    }

    /// Adds to the frequency of a key, as that many accesses do.
    pub fn add_frequency(&self, hash: u64, frequency: u8) {
        self.sketch.add(hash, frequency.min(MAX_FREQUENCY));
    }

    /// Iterates over all entries, expired ones included.
    pub fn entries<'g>(&'g self, guard: &'g Guard) -> Iter<'g, Entry<K, V>> {
        self.table.iter(guard)
    }

    /// Iterates over the entries that have not expired.
    pub fn live_entries<'g>(
        &'g self,
        guard: &'g Guard,
    ) -> impl Iterator<Item = Hit<'g, Entry<K, V>>> {
        self.entries(guard).filter(|hit| self.is_unexpired(hit.at()))
    }

    /// Iterates over the entries of some buckets that have not expired; see [`Table::iter_from`].
    ///
    /// [`Table::iter_from`]: crate::table::Table::iter_from
    pub fn live_entries_from<'g>(
        &'g self,
        guard: &'g Guard,
        from: u32,
        buckets: usize,
    ) -> (impl Iterator<Item = Hit<'g, Entry<K, V>>>, Option<u32>) {
        let (part, next) = self.table.iter_from(guard, from, buckets);
        (part.filter(|hit| self.is_unexpired(hit.at())), next)
    }
}
