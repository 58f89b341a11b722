//! Loads: joining one, publishing its entry, and removing that if a write has invalidated the load.

use std::{
    alloc::{Layout, handle_alloc_error},
    hash::{BuildHasher, Hash},
};

use super::{
    Engine, RemovalCause,
    insert::{Mode, Refusal, Refused, Terms},
};
use crate::{
    config::Priority,
    entry::{Entry, Flags},
    metrics::Counter,
    primitives::striped::thread_number,
    reclaim::Guard,
    singleflight::{Caller, Follower, Joined, Outcome, Write},
    table::{EntryRef, Held, Loose},
};

/// An entry that a load has produced and that is not in the table.
pub type Loaded = Loose;

/// The entry that a load returns to its caller, and the outcome of the load.
pub type Filled<'a, K, V> = (Held<'a, Entry<K, V>>, Outcome<Loaded>);

impl<K: Hash + Eq, V, S: BuildHasher> Engine<K, V, S> {
    /// Joins the load of a key as its leader or as a follower.
    pub fn join(&self, hash: u64, key: K, caller: Caller) -> Joined<'_, K, Loaded> {
        self.flights.join(hash, key, caller)
    }

    /// Returns the unpublished entry of the load that a follower has waited for, if there is one.
    pub fn share(&self, follower: &mut Follower<'_, K, Loaded>) -> Option<Held<'_, Entry<K, V>>> {
        let (entry, last) = follower.share(&self.table);
        if let Some(last) = last {
            self.retire_loaded(last);
        }
        entry
    }

    /// Invalidates the load of a key, as a write does.
    pub fn invalidate_load(&self, hash: u64) {
        let guard = self.table.pin_part(hash);
        self.commit(&guard, hash, self.flights.begin_write(hash));
    }

    /// Invalidates the loads that overlap a write. This thread has begun the write while it was
    /// pinned.
    #[inline]
    pub(super) fn commit(&self, guard: &Guard, hash: u64, write: Write<'_, K, Loaded>) {
        if let Some(id) = write.commit() {
            self.take_out(guard, hash, id);
        }
    }

    /// Removes an entry whose load has left that to a write.
    #[cold]
    fn take_out(&self, guard: &Guard, hash: u64, id: usize) {
        // The load has ended during the write, and left it to the write to remove what it has
        // published.
        let is_it = |entry: EntryRef<'_, Entry<K, V>>| entry.id() == id;
        let on_displaced = |entry| self.displace(guard, entry);
        if let Some(entry) = self.table.remove_if(guard, hash, is_it, |_| true, on_displaced) {
            self.counters.add(Counter::LoadsInvalidated, 1);
            self.retire_removed(&self.table, guard, entry, RemovalCause::Removed);
        }
    }

    /// Inserts a loaded value, unless its key has an entry by now or the load is invalid. A refresh
    /// replaces the entry of the id `refreshed`. Returns the entry that is resident afterwards, or
    /// the loaded one, which need not be in the cache; and the outcome for the loaded one.
    ///
    /// A value that has expired already is not inserted: the followers would not find it.
    ///
    /// Frees nothing, because the flight has not ended yet, and because the caller is pinned
    /// afterwards.
    pub fn fill(
        &self,
        hash: u64,
        (key, value): (K, V),
        terms: Terms,
        is_invalid: bool,
        refreshed: Option<usize>,
    ) -> Filled<'_, K, V> {
        let mode = refreshed.map_or(Mode::Loaded, Mode::Refreshed);
        let pressure = self.noted_pressure();
        let terms = self.priced(&key, &value, terms);
        let mut outcome = Outcome::Nothing;
        let prepared = if is_invalid {
            self.counters.add(Counter::LoadsInvalidated, 1);
            Err(Refused { key, value, refusal: Refusal::Forbidden })
        } else {
            self.prepare(&self.table, hash, (key, value), terms, mode, pressure)
        };
        let held = self.table.hold(self.table.pin_part(hash), |table, guard| {
            let mut prepared = prepared;
            let (refused, there) = loop {
                let put = prepared.and_then(|prepared| self.upsert(table, guard, hash, prepared));
                let refused = match put {
                    Ok((entry, _)) => {
                        outcome = Outcome::Published(entry.id());
                        return Some(entry);
                    }
                    Err(refused) if is_invalid => refused,
                    Err(refused) => self.refuse(hash, refused, (mode, pressure)),
                };
                let there = match refused.reason() {
                    None => table.find(guard, hash, |entry| entry.key == refused.key),
                    Some(_) => None,
                };
                let there = there.map(|hit| hit.at()).filter(|entry| self.is_unexpired(*entry));
                if there.is_some() || is_invalid || refused.refusal != Refusal::Forbidden {
                    break (refused, there);
                }
                // The entry that prevented the insert is gone; perhaps another load has taken it
                // back.
                let Refused { key, value, .. } = refused;
                prepared = self.prepare(&self.table, hash, (key, value), terms, mode, pressure);
            };
            let cause = match refused.refusal {
                Refusal::Expired => RemovalCause::Expired,
                Refusal::Forbidden | Refusal::Rejected(_) => RemovalCause::Rejected,
            };
            let entry = Entry { key: refused.key, value: refused.value };
            let Ok(fresh) = table.prepare(entry, hash, thread_number()) else {
                // As when a box cannot be allocated: the caller was promised a reference.
                handle_alloc_error(Layout::new::<Entry<K, V>>());
            };
            fresh.get().metadata().set_flags(Flags::new(true, false, Priority::default()));
            let named = terms.cost.unwrap_or(1);
            // Without memory to store its cost, the entry counts as 1.
            let cost = if self.set_cost(&fresh, named).is_ok() { named } else { 1 };
            let terms = self.garbage_terms(cost, cause);
            let loaded = Loose::unpublished(fresh, terms);
            if there.is_some() {
                // Followers find it, too; the loaded value is older.
                self.retire_loaded(loaded);
                return there;
            }
            let entry = table.see(guard, &loaded);
            outcome = Outcome::Unpublished(loaded);
            Some(entry)
        });
        (held.expect("there is always an entry to return"), outcome)
    }

    /// Removes the entry that a load has inserted, because its key was written during the load;
    /// returns it, to be retired.
    pub fn take_back(&self, hash: u64, loaded: &Held<'_, Entry<K, V>>) -> Option<Loaded> {
        self.counters.add(Counter::LoadsInvalidated, 1);
        let id = loaded.get().id();
        let is_it = |entry: EntryRef<'_, Entry<K, V>>| entry.id() == id;
        let guard = self.table.pin_part(hash);
        let on_displaced = |entry| self.displace(&guard, entry);
        let entry = self.table.remove_if(&guard, hash, is_it, |_| true, on_displaced)?;
        self.counters.add(Counter::Removes, 1);
        let seen = self.table.metadata_of(&guard, &entry);
        self.write_off(seen);
        self.births.end(seen.id(), false, || self.time_of_births());
        let terms = self.garbage_terms(self.cost_of(seen), RemovalCause::Removed);
        Some(Loose::new(entry, terms))
    }

    /// Returns what a load has left in the table, for a thread or task that has waited for it: a
    /// live entry of the key, or the published entry itself, even if it has expired since.
    pub fn get_loaded(
        &self,
        hash: u64,
        matches: impl Fn(&K) -> bool,
        published: Option<usize>,
    ) -> Option<Held<'_, Entry<K, V>>> {
        self.table.hold(self.table.pin_part(hash), |table, guard| {
            let entry = table.find(guard, hash, |entry| matches(&entry.key))?.at();
            let is_it = published == Some(entry.id());
            (is_it || self.is_unexpired(entry)).then_some(entry)
        })
    }
}
