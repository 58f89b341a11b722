//! `Evictions`: entries that are evicted one after the other, and accounted for together.
//!
//! Each account is a word that other threads write, too. What they show is late by [`MOST_OPEN`] entries at most, and never
//! too little: budget and number of entries show those that have gone until the account is settled.

use super::{Engine, RemovalCause};
use crate::{
    buckets::{Candidate, OpenBag, SlotRef, Unlinked},
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
    /// How many of them the accounts do not know of yet.
    open: u64,
    /// What these cost.
    cost: u64,
    /// What the main region costs more than its account shows, because of them and of what has come there; wraps.
    main_cost: u64,
}

impl<K, V, S> Engine<K, V, S> {
    #[inline]
    pub(super) fn evictions<'g>(&'g self, guard: &'g Guard) -> Evictions<'g, K, V, S> {
        Evictions { engine: self, guard, bag: None, count: 0, open: 0, cost: 0, main_cost: 0 }
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
            self.main_cost = self.main_cost.wrapping_sub(cost);
        }
        self.count += 1;
        self.open += 1;
        self.cost += cost;
        engine.births.end(seen.id(), true, || engine.time_of_births());
        let terms = engine.garbage_terms(cost, RemovalCause::Evicted);
        let bag = self.bag.get_or_insert_with(|| engine.table.open_bag(thread_number()));
        bag.retire(guard, entry, terms);
        if self.open >= MOST_OPEN {
            self.settle_accounts();
        }
    }

    /// Moves an entry of this hash from the window to the main region; returns whether this call did.
    #[inline]
    pub(super) fn promote(&mut self, hash: u64, slot: &SlotRef<'_, Entry<K, V>>) -> bool {
        let moved = slot.metadata().leave_window();
        if moved {
            self.main_cost = self.main_cost.wrapping_add(self.engine.cost_of(slot.metadata()));
            self.engine.enter_class_of_main(hash, slot);
        }
        moved
    }

    /// Brings the accounts up to date.
    fn settle_accounts(&mut self) {
        let engine = self.engine;
        let (open, cost, main_cost) =
            [&mut self.open, &mut self.cost, &mut self.main_cost].map(std::mem::take).into();
        if main_cost != 0 {
            engine.main_cost.fetch_add(main_cost, Ordering::Relaxed); // Relaxed: a figure to decide by.
        }
        if open > 0 {
            engine.budget.refund(cost);
            engine.local().entries.fetch_sub(open, Ordering::Relaxed); // Relaxed: see `len`.
            engine.counters.add(Counter::Evictions, open);
            engine.counters.add(Counter::CostEvicted, cost);
        }
    }

    /// Returns how many there were.
    pub(super) fn count(&self) -> usize {
        self.count as usize
    }

    /// Returns what is charged.
    #[inline]
    pub(super) fn used(&self) -> u64 {
        self.engine.budget.used().saturating_sub(self.cost)
    }

    /// Returns what the main region costs.
    #[inline]
    pub(super) fn main_cost(&self) -> u64 {
        // Relaxed: a figure to decide by. Below 0 where another thread's accounts do not know yet of what this one knows is gone.
        let cost = self.engine.main_cost.load(Ordering::Relaxed).wrapping_add(self.main_cost);
        if cost > u64::MAX / 2 { 0 } else { cost }
    }
}

impl<K, V, S> Drop for Evictions<'_, K, V, S> {
    fn drop(&mut self) {
        self.settle_accounts();
        if self.count == 0 {
            return;
        }
        if self.bag.take().is_some_and(OpenBag::close) {
            self.engine.note_garbage();
        }
        self.engine.rouse();
    }
}

/// Entries that the accounts may not know of yet.
const MOST_OPEN: u64 = 16;
