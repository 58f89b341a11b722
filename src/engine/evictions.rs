//! `Evictions`: a batch of evictions that are accounted for together.
//!
//! Each counter is a word that other threads write, too, so the batch updates most of them once.
//! The budget and the number of entries are updated at once for each eviction: their values hold at
//! every instant, even while the budget is lowered.

use super::{
    Engine, RemovalCause,
    write_back::{Turn, Written},
};
use crate::{
    entry::Entry,
    metrics::Counter,
    policy::access::{Access, MAX_HITS},
    primitives::striped::thread_number,
    reclaim::Guard,
    sync::atomic::Ordering,
    table::{EntryRef, Metadata, OpenBag, SampledSlot, Unlinked},
};

/// Vetoes of the callbacks after which one call stops evicting.
pub(super) const MAX_VETOES: u32 = 64;

/// What an eviction for a lower limit overrides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Force {
    /// The callbacks. Write-back still runs, but its failure does not keep the entry.
    Functions,
    /// The callbacks and the priorities.
    All,
}

/// A batch of evictions. Dropping it updates the counters.
pub(super) struct Evictions<'g, K, V, S> {
    engine: &'g Engine<K, V, S>,
    guard: &'g Guard,
    bag: Option<OpenBag<'g, Entry<K, V>>>,
    count: u64,
    /// Entries that the callbacks have kept.
    vetoes: u32,
    /// What is overridden.
    force: Option<Force>,
    cost: u64,
    /// The part of `cost` that was in the main region.
    main_cost: u64,
    /// Up to which credit of this thread's stripe refunds go to that.
    max_credit: u64,
}

impl<K, V, S> Engine<K, V, S> {
    #[inline]
    pub(super) fn evictions<'g>(&'g self, guard: &'g Guard) -> Evictions<'g, K, V, S> {
        let (bag, count, vetoes, force, cost, main_cost) = (None, 0, 0, None, 0, 0);
        Evictions { engine: self, guard, bag, count, vetoes, force, cost, main_cost, max_credit: 0 }
    }
}

impl<'g, K, V, S> Evictions<'g, K, V, S> {
    /// Evicts the entry of a sampled slot; returns whether it was still there and could be evicted.
    #[inline]
    pub(super) fn evict(&mut self, sampled_slot: &SampledSlot<'_>) -> bool {
        if self.engine.callbacks.ask_before_eviction() {
            return self.ask_and_evict(sampled_slot);
        }
        let may_go = |metadata: Metadata<'_, Entry<K, V>>| self.may_go(metadata);
        let gone = self.engine.table.unlink(self.guard, sampled_slot, may_go);
        gone.map(|entry| self.end(entry)).is_some()
    }

    /// Like [`evict`](Self::evict), but asks the callbacks first. The entry stays readable until
    /// they return, and is evicted only if the slot still holds the same entry.
    #[cold]
    fn ask_and_evict(&mut self, sampled_slot: &SampledSlot<'_>) -> bool {
        let engine = self.engine;
        // A writer's guard protects the values of one part of the table only; this guard protects
        // every entry that it finds.
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
        // An entry that must be evicted is written back, too.
        let is_written = may_go && engine.write_back(&guard, hash, hit.at(), turn) == Written::Yes;
        if !is_written && self.force.is_none() {
            self.vetoes += 1;
            // Not a victim for a while.
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

    /// Overrides the callbacks, or the priorities as well.
    pub(super) fn force(&mut self, force: Force) {
        self.force = Some(force);
    }

    /// Lets refunds raise the credit of this thread's stripe to `most`, before they go to the budget.
    #[inline]
    pub(super) fn refund_to_credit(&mut self, most: u64) {
        self.max_credit = most;
    }

    /// Returns how many entries the callbacks have kept.
    pub(super) fn vetoes(&self) -> u32 {
        self.vetoes
    }

    /// Returns whether an entry was kept since the last call, and few enough were to try another.
    pub(super) fn goes_on_after_veto(&self, seen: &mut u32) -> bool {
        let is_new = self.vetoes > *seen;
        *seen = self.vetoes;
        is_new && self.vetoes < MAX_VETOES
    }

    /// Accounts for an unlinked entry, retires it, and adds its hits to the sketch.
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
        // Before the refund, as in `write_off`.
        engine.local().entries.fetch_sub(1, Ordering::Relaxed); // Relaxed: see `len`.
        engine.budget.refund_to(&engine.local().credit, cost, self.max_credit);
        engine.births.end(seen.id(), true, || engine.time_of_births());
        let terms = engine.garbage_terms(cost, RemovalCause::Evicted);
        let bag = self.bag.get_or_insert_with(|| engine.table.open_bag(thread_number()));
        bag.retire(guard, entry, terms);
    }

    /// Returns the number of evictions.
    pub(super) fn count(&self) -> usize {
        self.count as usize
    }

    /// Returns the cost of the evicted entries.
    pub(super) fn cost(&self) -> u64 {
        self.cost
    }

    /// Returns how much less the main region costs than its counter shows.
    pub(super) fn main_cost(&self) -> u64 {
        self.main_cost
    }

    /// Like [`main_cost`](Self::main_cost); leaves it to the caller to update the counter.
    pub(super) fn take_main_cost(&mut self) -> u64 {
        std::mem::take(&mut self.main_cost)
    }
}

impl<K, V, S> Drop for Evictions<'_, K, V, S> {
    fn drop(&mut self) {
        if self.count == 0 {
            return;
        }
        let engine = self.engine;
        if self.main_cost != 0 {
            engine.main_cost.fetch_sub(self.main_cost, Ordering::Relaxed); // Relaxed: an estimate.
        }
        engine.counters.add(Counter::Evictions, self.count);
        engine.counters.add(Counter::CostEvicted, self.cost);
        if self.bag.take().is_some_and(OpenBag::close) {
            engine.note_garbage();
        }
        engine.notify_if_waiting();
    }
}
