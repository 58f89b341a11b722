//! `Evictions`: entries that are evicted one after the other, and accounted for together.
//!
//! Each account is a word that other threads write, too. Budget and number of entries are not among those that wait:
//! what they show is kept at every instant, also where the budget is lowered.

use super::{Engine, RemovalCause, write_back::Turn};
use crate::{
    entry::Entry,
    metrics::Counter,
    policy::access::{Access, MAX_HITS},
    primitives::striped::thread_number,
    reclaim::Guard,
    sync::atomic::Ordering,
    table::{EntryRef, Metadata, OpenBag, SampledSlot, Unlinked},
};

/// What an eviction for a lower limit overrules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Force {
    /// The builder's functions. What is to be written back is: only a failure does not keep it.
    Functions,
    /// These, and priorities.
    All,
}

/// Entries that are being evicted. Dropping it settles the accounts.
pub(super) struct Evictions<'g, K, V, S> {
    engine: &'g Engine<K, V, S>,
    guard: &'g Guard,
    bag: Option<OpenBag<'g, Entry<K, V>>>,
    count: u64,
    /// Entries that the builder's functions have kept.
    vetoes: u32,
    /// What is overruled.
    force: Option<Force>,
    cost: u64,
    /// What of it was in the main region.
    main_cost: u64,
}

impl<K, V, S> Engine<K, V, S> {
    #[inline]
    pub(super) fn evictions<'g>(&'g self, guard: &'g Guard) -> Evictions<'g, K, V, S> {
        let (bag, count, vetoes, force, cost, main_cost) = (None, 0, 0, None, 0, 0);
        Evictions { engine: self, guard, bag, count, vetoes, force, cost, main_cost }
    }
}

impl<'g, K, V, S> Evictions<'g, K, V, S> {
    /// Evicts the entry of a sampled slot; returns whether it was still there, and was allowed to go.
    #[inline]
    pub(super) fn evict(&mut self, sampled_slot: &SampledSlot<'_>) -> bool {
        if self.engine.callbacks.ask_before_eviction() {
            return self.ask_and_evict(sampled_slot);
        }
        let may_go = |metadata: Metadata<'_, Entry<K, V>>| self.may_go(metadata);
        let gone = self.engine.table.unlink(self.guard, sampled_slot, may_go);
        gone.map(|entry| self.end(entry)).is_some()
    }

    /// The same where the builder's functions look at the entry before: it is readable until they
    /// return, and leaves only if it is the same by then.
    #[cold]
    fn ask_and_evict(&mut self, sampled_slot: &SampledSlot<'_>) -> bool {
        let engine = self.engine;
        // A writer's guard keeps the values of one part of the table only. What is there under this
        // one stays readable.
        let guard = engine.table.pin();
        let Some(slot) = engine.table.slot_of(&guard, sampled_slot) else { return false };
        let (id, hash) = (slot.id(), engine.table.hash_at(sampled_slot, slot.metadata()));
        let is_it = |entry: EntryRef<'_, Entry<K, V>>| entry.id() == id;
        let Some(hit) = engine.table.find(&guard, hash, is_it) else { return false };
        let may_go = self.force.is_some() || engine.callbacks.may_evict(hit.entry);
        if !may_go {
            engine.note_veto();
        }
        let turn = if self.force.is_some() { Turn::Wait } else { Turn::Try };
        // One that has to go is written back, too.
        let is_written = may_go && engine.write_back(&guard, hash, hit.at(), turn);
        if !is_written && self.force.is_none() {
            self.vetoes += 1;
            // It is no victim for a while.
            slot.set_access(Access::with_hits(MAX_HITS, engine.access_clock.now()).to_bits());
            return false;
        }
        let on_displaced = |entry| engine.displace(&guard, entry);
        let may_go = |entry: EntryRef<'_, Entry<K, V>>| self.may_go(entry.metadata());
        let gone = engine.table.remove_if(&guard, hash, is_it, may_go, on_displaced);
        gone.map(|entry| self.end(entry)).is_some()
    }

    #[inline]
    fn may_go(&self, entry: Metadata<'_, Entry<K, V>>) -> bool {
        self.force == Some(Force::All) || !entry.flags().is_unevictable()
    }

    /// Overrules what keeps entries.
    pub(super) fn force(&mut self, force: Force) {
        self.force = Some(force);
    }

    /// Returns how many entries the builder's functions have kept.
    pub(super) fn vetoes(&self) -> u32 {
        self.vetoes
    }

    /// Returns whether an entry was kept since the last call, and few enough were for another try.
    pub(super) fn goes_on_after_veto(&mut self, seen: &mut u32) -> bool {
        let is_new = self.vetoes > *seen;
        *seen = self.vetoes;
        is_new && self.vetoes < MAX_VETOES
    }

    /// Accounts for an entry that was unlinked, retires it, and hands on to the sketch how often it was hit.
    #[inline]
    pub(super) fn end(&mut self, entry: Unlinked) {
        let Self { engine, guard, .. } = *self;
        let hits = Access::from_bits(entry.access()).hits(engine.access_clock.now());
        if hits > 0 {
            engine.sketch.add(engine.table.hash_of(&entry), hits);
        }
        let seen = engine.table.metadata_of(guard, &entry);
        let cost = engine.cost_of(seen);
        engine.uncount(seen, cost);
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
        engine.notify_if_waiting();
    }
}

/// Entries that one call tries to evict and that the builder's functions keep, at most.
pub(super) const MAX_VETOES: u32 = 64;
