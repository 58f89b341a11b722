//! Removals: of one entry, and of all.

use std::hash::{BuildHasher, Hash};

use super::{Engine, RemovalCause};
use crate::{
    entry::Entry,
    metrics::Counter,
    reclaim::Guard,
    sync::atomic::Ordering,
    table::{EntryRef, Held, Table, Unlinked},
};

impl<K: Hash + Eq, V, S: BuildHasher> Engine<K, V, S> {
    /// Removes the entry of a key if it has this id; returns whether it did.
    pub(super) fn remove_id(&self, hash: u64, key: &K, id: usize) -> bool {
        let is_it = |entry: EntryRef<'_, Entry<K, V>>| entry.id() == id;
        self.remove_which(hash, |k| k == key, is_it, RemovalCause::Replaced).is_some()
    }

    /// Removes an entry; the caller may read it for as long as it holds the result. Frees nothing,
    /// because the caller stays pinned.
    ///
    /// Counts as a write even if there is no entry: a load in progress must not insert one.
    pub fn remove(
        &self,
        hash: u64,
        matches: impl Fn(&K) -> bool,
        cause: RemovalCause,
    ) -> Option<Held<'_, Entry<K, V>>> {
        // Before the removal: if the user's clock panicked after it, the entry would be lost.
        let now = self.time_of_deadlines();
        self.table.hold(self.table.pin_part(hash), |table, guard| {
            let write = self.flights.begin_write(hash);
            let is_key = |entry: EntryRef<'_, Entry<K, V>>| matches(&entry.entry.key);
            let removed = table.remove(guard, hash, is_key, |entry| self.displace(guard, entry));
            let removed = removed.map(|entry| {
                let is_unexpired = self.is_unexpired_at(table.unlinked(guard, &entry), now);
                let cause = if is_unexpired { cause } else { RemovalCause::Expired };
                (self.retire_removed(table, guard, entry, cause), is_unexpired)
            });
            self.commit(guard, hash, write);
            removed.and_then(|(entry, is_unexpired)| is_unexpired.then_some(entry))
        })
    }

    /// Removes a live entry if `condition` holds for it. Does not count as a write otherwise.
    pub fn remove_which(
        &self,
        hash: u64,
        matches: impl Fn(&K) -> bool,
        condition: impl FnMut(EntryRef<'_, Entry<K, V>>) -> bool,
        cause: RemovalCause,
    ) -> Option<Held<'_, Entry<K, V>>> {
        self.table.hold(self.table.pin_part(hash), |table, guard| {
            let write = self.flights.begin_write(hash);
            let removed = self.take_which(table, guard, hash, matches, condition, cause)?;
            self.commit(guard, hash, write);
            Some(removed)
        })
    }

    /// Like [`remove_which`](Self::remove_which), in a write that the caller has begun.
    pub(super) fn take_which<'g>(
        &self,
        table: &'g Table<Entry<K, V>>,
        guard: &'g Guard,
        hash: u64,
        matches: impl Fn(&K) -> bool,
        mut condition: impl FnMut(EntryRef<'_, Entry<K, V>>) -> bool,
        cause: RemovalCause,
    ) -> Option<EntryRef<'g, Entry<K, V>>> {
        let matches = |entry: EntryRef<'_, Entry<K, V>>| matches(&entry.entry.key);
        let condition =
            |entry: EntryRef<'_, Entry<K, V>>| self.is_unexpired(entry) && condition(entry);
        let on_displaced = |entry| self.displace(guard, entry);
        let entry = table.remove_if(guard, hash, matches, condition, on_displaced)?;
        Some(self.retire_removed(table, guard, entry, cause))
    }

    /// Removes the live entries for which `keep` is false.
    pub fn retain(&self, mut keep: impl FnMut(&Entry<K, V>) -> bool) {
        self.sweep_if_due();
        let guard = self.table.pin();
        for hit in self.live_entries(&guard) {
            let entry = hit.entry;
            if !keep(entry) {
                let id = hit.id();
                let is_it = |other: EntryRef<'_, Entry<K, V>>| other.id() == id;
                let is_key = |k: &K| *k == entry.key;
                let hash = self.hash(&entry.key);
                drop(self.remove_which(hash, is_key, is_it, RemovalCause::Removed));
            }
        }
    }

    /// Removes all entries that are in the cache when the call begins.
    pub fn clear(&self) {
        // Before the removal, as in `remove`.
        let now = self.time_of_deadlines();
        let guard = self.table.pin();
        self.take_all(&guard, now, |_| {});
        drop(guard);
        self.sweep_if_due();
    }

    /// Like [`clear`](Self::clear), but then passes the live entries to `show`, while still pinned.
    pub fn drain(&self, mut show: impl FnMut(&Entry<K, V>)) {
        // Before the removal, as in `remove`.
        let now = self.time_of_deadlines();
        let guard = self.table.pin();
        let mut gone = Vec::new();
        self.take_all(&guard, now, |entry| gone.push(entry.entry));
        // Last, because `show` is user code and may panic.
        gone.into_iter().for_each(&mut show);
        drop(guard);
        self.sweep_if_due();
    }

    fn take_all<'g>(
        &'g self,
        guard: &'g Guard,
        now: Option<u64>,
        mut taken: impl FnMut(EntryRef<'g, Entry<K, V>>),
    ) {
        self.flights.invalidate_all();
        self.table.clear(guard, |entry| {
            let is_unexpired = self.is_unexpired_at(self.table.unlinked(guard, &entry), now);
            let cause = if is_unexpired { RemovalCause::Cleared } else { RemovalCause::Expired };
            let entry = self.retire_removed(&self.table, guard, entry, cause);
            if is_unexpired {
                taken(entry);
            }
        });
        // Loads that began during the call may not have ended, and the cache is cleared.
        self.flights.invalidate_all();
        self.shrink_table(guard, self.settings.expected_entries);
        // Relaxed: a hint to maintenance, which acts on it once the removed entries were freed.
        self.trim_due.store(true, Ordering::Relaxed);
    }
}

impl<K, V, S> Engine<K, V, S> {
    pub(super) fn retire_removed<'g>(
        &self,
        table: &'g Table<Entry<K, V>>,
        guard: &'g Guard,
        entry: Unlinked,
        cause: RemovalCause,
    ) -> EntryRef<'g, Entry<K, V>> {
        let is_expired = cause == RemovalCause::Expired;
        self.counters.add(if is_expired { Counter::Expirations } else { Counter::Removes }, 1);
        self.retire_unlinked(table, guard, entry, cause, true)
    }
}
