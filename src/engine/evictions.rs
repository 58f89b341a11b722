//! `Evictions`: entries that are evicted one after the other, and accounted for together.
//!
//! Each account is a word that other threads write, too. Budget and number of entries are not among those that wait:
//! what they show is kept at every instant, also where the budget is lowered.

use super::{Engine, RemovalCause};
use crate::{
    buckets::{Candidate, OpenBag, Unlinked},
    entry::Entry,
    metrics::Counter,
    policy::access::Access,
    reclaim::Guard,
    stripe::thread_number,
    sync::atomic::Ordering,
};

/// Entries that are being evicted. Dropping it settles the accounts.
pub(super) struct Evictions<'g, K, V, S> {
    engine: &'g Engine<K, V, S>,
    guard: &'g Guard,
    bag: Option<OpenBag<'g, Entry<K, V>>>,
    count: u64,
    cost: u64,
    /// What of it was in the main region.
    main_cost: u64,
}

impl<K, V, S> Engine<K, V, S> {
    #[inline]
    pub(super) fn evictions<'g>(&'g self, guard: &'g Guard) -> Evictions<'g, K, V, S> {
        Evictions { engine: self, guard, bag: None, count: 0, cost: 0, main_cost: 0 }
    }
}

impl<'g, K, V, S> Evictions<'g, K, V, S> {
    /// Evicts a candidate; returns whether it was still there.
    #[inline]
    pub(super) fn evict(&mut self, candidate: &Candidate<'_>) -> bool {
        let gone = self.engine.table.unlink(self.guard, candidate);
        gone.map(|entry| self.end(entry)).is_some()
    }

    /// Accounts for an entry that was unlinked, retires it, and hands on to the sketch how often it was hit.
    #[inline]
    pub(super) fn end(&mut self, entry: Unlinked) {
        let Self { engine, guard, .. } = *self;
        let hits = Access::from_bits(entry.access()).hits(engine.pulse.now());
        if hits > 0 {
            engine.sketch.add(engine.table.hash_of(&entry), hits);
        }
        let seen = engine.table.metadata_of(guard, &entry);
        let cost = engine.cost_of(seen);
        if seen.flags().is_unevictable() {
            engine.kept.sub(cost);
        }
        if !seen.leave_window() {
            self.main_cost += cost;
        }
        self.count += 1;
        self.cost += cost;
        engine.budget.refund(cost);
        engine.local().entries.fetch_sub(1, Ordering::Relaxed); // Relaxed: see `len`.
        engine.births.end(seen.id(), true, || engine.time_of_births());
        let terms = engine.garbage_terms(cost, RemovalCause::Evicted);
        let bag = self.bag.get_or_insert_with(|| engine.table.open_bag(thread_number()));
        bag.retire(guard, entry, terms);
    }

    /// Returns how many there were.
    pub(super) fn count(&self) -> usize {
        self.count as usize
    }

    /// Returns what the main region costs less than its account shows.
    pub(super) fn main_cost(&self) -> u64 {
        self.main_cost
    }
}

impl<K, V, S> Drop for Evictions<'_, K, V, S> {
    fn drop(&mut self) {
        if self.count == 0 {
            return;
        }
        let engine = self.engine;
        engine.main_cost.fetch_sub(self.main_cost, Ordering::Relaxed); // Relaxed: a figure to decide by.
        engine.counters.add(Counter::Evictions, self.count);
        engine.counters.add(Counter::CostEvicted, self.cost);
        if self.bag.take().is_some_and(OpenBag::close) {
            engine.note_garbage();
        }
        engine.rouse();
    }
}
