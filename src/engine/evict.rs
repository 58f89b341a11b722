//! Making room: decides whether the entry at the window's head or a victim of main is evicted.
//!
//! All evictions are decided here, with two exceptions: a full bucket chooses among its own entries
//! by the same score, and [`Engine::set_max_cost`] evicts down to a lower budget.

use super::{
    Engine, NORMAL_WEIGHT,
    evictions::{Evictions, MAX_VETOES},
    maintenance::{DELAYED, MaintenanceShard},
    place::borrow,
    victims::{Among, Resident},
    window::Candidate,
};
use crate::{
    config::{Maintenance, Priority, RESERVE_ENTRIES, RESERVE_PART},
    entry::Entry,
    policy::{
        access::Access,
        action::{Action, State, next_action},
        admission::{FrequencyAndCost, Rule},
        window::WindowEntry,
    },
    primitives::striped::CAPACITY,
    reclaim::Guard,
    slab::prefetch,
    sync::atomic::Ordering,
    table::{Metadata, SlotRef},
    util::Rng,
};

/// Entries that one call evicts at most: enough for one large entry to replace many small ones.
pub(super) const MAX_EVICTIONS: usize = 1 << 14;
/// Entries that a writer evicts at most while other threads hold all shards.
const ALONE_EVICTIONS: usize = 256;
/// The smallest budget from which an insert evicts for the next one.
const MIN_AHEAD_BUDGET: u64 = 256;
/// Entries of an oversized window that one call filters although there is room, if it does not
/// evict more: the capacity divided by this, since those that lose leave places free, up to
/// `MAX_FILTERED`. Smaller caches promote them unfiltered.
const FILTERED_PART: u64 = 128;
const MAX_FILTERED: u64 = 4;
/// Victims that a candidate is compared with if some were accessed concurrently.
const VICTIMS_TRIED: usize = 4;
/// Entries that one call moves to main after the window's share was lowered.
const MAX_MOVED: usize = 64;
/// Attempts to filter an entry that other threads replace concurrently.
const FILTER_TRIES: usize = 4;

impl<K, V, S> Engine<K, V, S> {
    /// Returns the room that the maintenance thread keeps free; 0 if a typical entry is larger than
    /// that.
    pub(super) fn reserve(&self) -> u64 {
        if self.settings.maintenance == Maintenance::Manual {
            return 0;
        }
        let most = self.evictable_max() / RESERVE_PART;
        let entry = if self.costs_vary() { self.budget.used() / self.len().max(1) } else { 1 };
        if entry > most { 0 } else { most.min(entry.saturating_mul(RESERVE_ENTRIES)) }
    }

    /// Returns whether the maintenance thread should refill its reserve.
    pub(super) fn is_reserve_low(&self) -> bool {
        self.budget.is_over_reserve(self.reserve() / 2)
    }

    /// Makes room for `short` more cost on behalf of a new entry with that hash; returns whether
    /// the room was free at some moment. Gives up after [`MAX_VETOES`] vetoes of the callbacks.
    /// `vetoes` is the caller's count, which this call adds to.
    #[cold]
    pub(super) fn make_room(&self, guard: &Guard, hash: u64, short: u64, vetoes: &mut u32) -> bool {
        let expired = self.expire_if_due();
        *vetoes += expired.unwritten as u32;
        if expired.removed > 0 && self.budget.remaining() >= short {
            return true;
        }
        if let Some(mut shard) = self.take_shard() {
            self.collect_unqueued(guard, &mut shard);
            *vetoes += self.settle(guard, &mut shard, short, MAX_EVICTIONS, 0).1;
        }
        if self.budget.remaining() < short {
            self.recall_credits();
        }
        self.budget.remaining() >= short || self.make_room_alone(guard, hash, short, vetoes)
    }

    /// Admits a new entry to the window and compensates for the room it took. The insert also
    /// counts as an access, unless `is_counted`.
    #[inline]
    pub(super) fn take_in(
        &self,
        guard: &Guard,
        shard: &mut MaintenanceShard,
        window_entry: WindowEntry,
        is_counted: bool,
    ) {
        shard.admit(window_entry);
        if !is_counted {
            self.note_in(shard, window_entry.hash);
        }
        self.collect_unqueued(guard, shard);
        let (used, max) = (self.used(), self.budget.max());
        if used >= max && max >= MIN_AHEAD_BUDGET && !self.costs_vary() {
            // Room for the next entry.
            self.settle(guard, shard, 1, MAX_EVICTIONS, self.max_credit());
            return;
        }
        let reserve = self.reserve();
        // Relaxed: an estimate; it publishes nothing.
        let window = self.window_cost.load(Ordering::Relaxed).wrapping_add(shard.queued);
        let share = self.policy_config().share_of(self.evictable_max());
        let is_full = window.saturating_add(reserve) > share && window <= u64::MAX / 2;
        if is_full && used.saturating_add(reserve) < max {
            // There is room: only the window has to shrink to its share.
            self.settle(guard, shard, reserve, MAX_EVICTIONS, 0);
        } else {
            self.note_queued(shard);
        }
    }

    /// Buffers an event, and counts the one that was buffered [`DELAYED`] events before, whose
    /// prefetched counters have arrived.
    #[inline]
    fn note_in(&self, shard: &mut MaintenanceShard, hash: u64) {
        prefetch(self.sketch.line(hash));
        let delayed = std::mem::replace(&mut shard.events[shard.noted % DELAYED], hash);
        if shard.noted >= DELAYED {
            self.sketch.increment(delayed);
        }
        shard.noted = shard.noted.wrapping_add(1);
        if shard.noted.is_multiple_of(CAPACITY) {
            self.pass_time(CAPACITY);
        }
    }

    /// Counts the events that a maintenance shard has buffered; returns how many.
    #[cold]
    pub(super) fn learn_noted(&self, shard: &mut MaintenanceShard) -> usize {
        let noted = std::mem::take(&mut shard.noted);
        let count = noted.min(DELAYED);
        if count > 0 {
            self.sketch.increment_batch(&shard.events[..count]);
            self.pass_time(noted % CAPACITY);
        }
        count
    }

    /// Evicts until `room` is free or `most` entries were evicted; returns how many were, and how many
    /// entries the callbacks have kept.
    pub(super) fn settle(
        &self,
        guard: &Guard,
        shard: &mut MaintenanceShard,
        room: u64,
        most: usize,
        max_credit: u64,
    ) -> (usize, u32) {
        // Relaxed: a hint. Samples that arrive later are simulated by a later call.
        if self.has_samples.load(Ordering::Relaxed) {
            borrow(&self.tuning, |tuning| self.tune(guard, tuning));
        }
        let share = self.policy_config().share_of(self.evictable_max());
        let mut out = self.evictions(guard);
        out.refund_to_credit(max_credit);
        let mut vetoes = 0;
        let (mut moved, mut needed, mut filtered) = (0, 0, 0);
        // Read once: what other threads do in the meantime is theirs to settle.
        let start = State {
            used: self.used(),
            max: self.budget.max(),
            room,
            share,
            // Relaxed, here and below: estimates. Neither includes entries that are still queued for
            // the window.
            window: self.window_cost.load(Ordering::Relaxed),
            main: self.main_cost.load(Ordering::Relaxed),
            surplus: 0,
            ahead: self.room_ahead(),
        };
        while out.count() < most {
            let state = State {
                used: start.used.saturating_sub(out.cost()),
                window: start.window.wrapping_add(shard.queued),
                main: start.main.wrapping_add(shard.promoted).saturating_sub(out.main_cost()),
                surplus: if moved < MAX_MOVED { self.surplus.load(Ordering::Relaxed) } else { 0 },
                ..start
            };
            let mut action = next_action(state);
            if action == Action::Filter {
                // A whole ring may have arrived at once, or a full bucket may have evicted instead.
                // A few filtered entries per call that evicts anyway bring the window back to its
                // share.
                let max_filtered = (self.capacity() / FILTERED_PART).min(MAX_FILTERED);
                if max_filtered == 0 {
                    action = Action::Promote;
                } else if needed == 0 || filtered >= max_filtered.max(needed) {
                    break;
                }
            }
            let candidate = match action {
                Action::Rest => break,
                Action::Evict => None,
                _ => self.next_candidate(guard, shard),
            };
            let gone = match (action, candidate) {
                (Action::Yield, candidate) => {
                    moved += 1;
                    let cost =
                        candidate.map_or(state.surplus, |it| self.cost_of(it.slot.metadata()));
                    // Relaxed: if two threads subtract at once, the surplus is used up a little
                    // later.
                    self.surplus.store(state.surplus.saturating_sub(cost), Ordering::Relaxed);
                    candidate.into_iter().for_each(|candidate| self.promote(shard, candidate));
                    continue;
                }
                (Action::Promote, Some(candidate)) => {
                    self.promote(shard, candidate);
                    continue;
                }
                (Action::Evict, _) | (_, Some(_)) => {
                    let gone = self.choose(&mut out, guard, shard, action, candidate);
                    if action == Action::Filter {
                        filtered += 1;
                        continue;
                    }
                    gone
                }
                // The window's entries are still queued for it.
                (_, None) => break,
            };
            if !gone && !self.evict_any(&mut out, guard) {
                if out.goes_on_after_veto(&mut vetoes) {
                    continue;
                }
                break;
            }
            needed += 1;
        }
        self.note_queued(shard);
        // Usually 0: the line is written by few calls.
        let change = std::mem::take(&mut shard.promoted).wrapping_sub(out.take_main_cost());
        if change != 0 {
            self.add_to_main(change);
        }
        (out.count(), out.vetoes())
    }

    /// Evicts the candidate or a victim of main, whichever loses the comparison. If no eviction is
    /// required, evicts the candidate or nothing. Returns whether an entry was evicted.
    #[inline]
    fn choose(
        &self,
        out: &mut Evictions<'_, K, V, S>,
        guard: &Guard,
        shard: &mut MaintenanceShard,
        action: Action,
        candidate: Option<Candidate<'_, K, V>>,
    ) -> bool {
        let Some(candidate) = candidate else {
            let victim = self.next_victim(guard, shard);
            let gone = victim.is_some_and(|victim| out.evict(&victim.sampled_slot));
            self.choose_next(guard, &mut shard.hand);
            return gone;
        };
        let is_comparison = action == Action::Compare;
        let frequency_and_cost =
            self.frequency_and_cost(candidate.window_entry.hash, &candidate.slot);
        let luck = shard.rng.next_u64();
        for _ in 0..VICTIMS_TRIED {
            let to_beat = self.victim_to_beat(guard, shard);
            if !to_beat
                .map_or(!is_comparison, |to_beat| self.admits(frequency_and_cost, to_beat, luck))
            {
                return self.evict_candidate(out, shard, candidate);
            }
            if !is_comparison {
                break;
            }
            if let Some(victim) = self.chosen_victim(guard, &mut shard.hand) {
                // Evict before promoting, so that this does not raise main above its share.
                let gone = out.evict(&victim.sampled_slot);
                self.choose_next(guard, &mut shard.hand);
                self.promote(shard, candidate);
                return gone;
            }
        }
        self.promote(shard, candidate);
        false
    }

    /// Adds a shard's unrecorded change to the total cost of all windows.
    #[inline]
    pub(super) fn note_queued(&self, shard: &mut MaintenanceShard) {
        let queued = std::mem::take(&mut shard.queued);
        if queued != 0 {
            self.window_cost.fetch_add(queued, Ordering::Relaxed); // Relaxed: an estimate.
        }
    }

    /// Returns whether the cache is still filling, or much was removed, so that an entry of the
    /// window may move to main unfiltered. Credit does not let an entry into main without a
    /// comparison.
    fn is_filling(&self, room: u64) -> bool {
        let (used, max, ahead) = (self.used(), self.budget.max(), self.room_ahead());
        State { used, max, room, ahead, ..State::default() }.is_filling()
    }

    /// Moves a candidate to main.
    #[inline]
    pub(super) fn promote(&self, shard: &mut MaintenanceShard, candidate: Candidate<'_, K, V>) {
        if self.promote_slot(candidate.window_entry.hash, &candidate.slot) {
            let cost = self.cost_of(candidate.slot.metadata());
            shard.promoted = shard.promoted.wrapping_add(cost);
        } else {
            // It was replaced concurrently; the new entry is in the window and awaits its turn.
            shard.admit(candidate.window_entry);
        }
    }

    /// Evicts a candidate; returns whether it was still there.
    #[inline]
    fn evict_candidate(
        &self,
        out: &mut Evictions<'_, K, V, S>,
        shard: &mut MaintenanceShard,
        candidate: Candidate<'_, K, V>,
    ) -> bool {
        let gone = self.evict(out, &candidate.slot);
        if !gone {
            shard.admit(candidate.window_entry); // As above.
        }
        gone
    }

    #[inline]
    fn admits(&self, candidate: FrequencyAndCost, victim: FrequencyAndCost, luck: u64) -> bool {
        let rule = self.policy_config().rule;
        let mean = if rule == Rule::Seen && self.costs_vary() {
            self.weight_of(self.budget.used() / self.len().max(1), Priority::Normal)
        } else {
            NORMAL_WEIGHT
        };
        rule.admits(candidate, victim, mean, luck)
    }

    fn beats(&self, candidate: FrequencyAndCost, victim: &Resident<'_, K, V>, luck: u64) -> bool {
        self.admits(candidate, self.resident_frequency_and_cost(victim), luck)
    }

    #[inline]
    fn frequency_and_cost(&self, hash: u64, hit: &SlotRef<'_, Entry<K, V>>) -> FrequencyAndCost {
        let cost = self.weight_of(self.cost_of(hit.metadata()), hit.flags().priority());
        FrequencyAndCost { frequency: self.frequency_of(hash, Some(hit)), cost }
    }

    #[inline]
    pub(super) fn resident_frequency_and_cost(
        &self,
        resident: &Resident<'_, K, V>,
    ) -> FrequencyAndCost {
        let metadata = resident.metadata;
        let cost = self.weight_of(self.cost_of(metadata), metadata.flags().priority());
        let access = Access::from_bits(resident.sampled_slot.access());
        FrequencyAndCost { frequency: self.frequency(resident.hash(), Some(access)), cost }
    }

    /// Evicts the best victim of a sample of both regions.
    fn evict_any(&self, out: &mut Evictions<'_, K, V, S>, guard: &Guard) -> bool {
        let random = super::spread(self.budget.used() ^ u64::from(self.access_clock.now()) << 32);
        let victim = self.victim(guard, random, Among::Evictable);
        victim.is_some_and(|victim| out.evict(&victim.sampled_slot))
    }

    /// Evicts an entry that a lookup found; returns whether it was still there.
    #[inline]
    fn evict(&self, out: &mut Evictions<'_, K, V, S>, hit: &SlotRef<'_, Entry<K, V>>) -> bool {
        let there = self.table.sampled_slot_of(hit);
        there.is_some_and(|slot| out.evict(&slot))
    }

    /// Returns whether an entry is exempt from comparison, because evicting it would free nothing
    /// or because it is unevictable.
    pub(super) fn is_exempt(&self, metadata: Metadata<'_, Entry<K, V>>) -> bool {
        self.cost_of(metadata) == 0 || metadata.flags().is_unevictable()
    }

    /// Filters an entry of the window that is in no queue. It moves to main if the cache is still
    /// filling, or if admission prefers it to a victim, even though no eviction is required;
    /// otherwise it is evicted.
    pub(super) fn filter_alone(&self, guard: &Guard, hash: u64) {
        for _ in 0..FILTER_TRIES {
            let Some(hit) = self.find_in_window(guard, hash) else { return };
            let mut rng = Rng::new(hash ^ u64::from(self.access_clock.now()));
            let wins = self.is_exempt(hit.metadata())
                || self.is_filling(self.reserve())
                || self.victim(guard, rng.next_u64(), Among::Main).is_none_or(|victim| {
                    self.beats(self.frequency_and_cost(hash, &hit), &victim, rng.next_u64())
                });
            let is_settled = if wins {
                self.enter_main(hash, &hit)
            } else {
                self.evict(&mut self.evictions(guard), &hit)
            };
            if is_settled {
                return;
            }
            // It was replaced concurrently by an entry that is in the window, too.
        }
        if let Some(hit) = self.find_in_window(guard, hash) {
            self.enter_main(hash, &hit);
        }
    }

    /// Makes room while all shards are taken: the oldest entry of the window in a sample is
    /// compared with a victim of main, as at the window's head. If the sample has no entry of the
    /// window, the entry that has waited longest for the window is compared instead.
    ///
    /// If none waits, the victim is evicted without a comparison. The new entry is queued
    /// afterwards, so the next call has a candidate to compare. Only few entries are therefore
    /// admitted uncompared, and a loop of accesses cannot flush the cache while the threads that
    /// hold the shards are preempted.
    fn make_room_alone(&self, guard: &Guard, hash: u64, short: u64, vetoes: &mut u32) -> bool {
        let mut rng = Rng::new(hash ^ u64::from(self.access_clock.now()));
        for _ in 0..ALONE_EVICTIONS {
            if self.budget.remaining() >= short {
                return true;
            }
            if *vetoes >= MAX_VETOES {
                return false;
            }
            let mut out = self.evictions(guard);
            let [oldest, victim] = self.oldest_and_victim(guard, rng.next_u64());
            let luck = rng.next_u64();
            let Some(oldest) = oldest else {
                if let Some((hash, oldest)) = self.oldest_waiting(guard) {
                    self.compare_alone(&mut out, guard, (hash, oldest), victim, luck);
                } else if let Some(victim) = victim {
                    out.evict(&victim.sampled_slot);
                } else {
                    break;
                }
                *vetoes += out.vetoes();
                continue;
            };
            match victim {
                Some(victim)
                    if self.beats(self.resident_frequency_and_cost(&oldest), &victim, luck) =>
                {
                    let hash = oldest.hash();
                    if let Some(hit) = self.table.slot_of(guard, &oldest.sampled_slot) {
                        self.enter_main(hash, &hit);
                    }
                    out.evict(&victim.sampled_slot);
                }
                _ => _ = out.evict(&oldest.sampled_slot),
            }
            *vetoes += out.vetoes();
        }
        self.budget.remaining() >= short
    }

    /// Compares an entry that waits for the window with a victim of main, and evicts one of the
    /// two.
    fn compare_alone(
        &self,
        out: &mut Evictions<'_, K, V, S>,
        guard: &Guard,
        (hash, hit): (u64, SlotRef<'_, Entry<K, V>>),
        victim: Option<Resident<'_, K, V>>,
        luck: u64,
    ) {
        let is_settled = match victim {
            Some(victim) if self.beats(self.frequency_and_cost(hash, &hit), &victim, luck) => {
                out.evict(&victim.sampled_slot);
                self.enter_main(hash, &hit)
            }
            _ => self.evict(out, &hit),
        };
        self.settle_alone(guard, hash, is_settled);
    }

    /// Queues an entry of the window again if it was replaced concurrently by one that is in the
    /// window, too.
    pub(super) fn settle_alone(&self, guard: &Guard, hash: u64, is_settled: bool) {
        if !is_settled {
            self.defer(guard, &[hash]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::{Trace, victims::MAX_COMPARISONS},
        *,
    };
    use crate::engine::testing::{
        manual, put, queued_and_flagged, with_favourites, without_shards,
    };

    #[test]
    fn new_entries_are_admitted_and_frequent_ones_stay_while_all_shards_are_taken() {
        let engine = with_favourites();
        (10_000..11_000).for_each(|key| put(&engine, key));
        let is_there = |key| {
            let guard = engine.table.pin();
            engine.table.find(&guard, engine.hash(&key), |entry| entry.key == key).is_some()
        };
        let favourites = || (0..900).filter(|&key| is_there(key)).count();
        let before = favourites();
        assert!(before > 850, "{before}");
        without_shards(&engine, || {
            for key in 20_000..40_000 {
                put(&engine, key);
                assert!(is_there(key), "{key} was refused");
            }
        });
        // Each ring that is empty at first costs one entry; others lose a comparison by errors of
        // the sketch.
        assert!(favourites() > before - 50, "{} of {before}", favourites());
        assert!(engine.len() <= 1000);
        let (queued, flagged) = queued_and_flagged(&engine);
        assert!(flagged <= queued, "{flagged} of {queued}");
    }

    #[test]
    fn entry_that_is_deferred_too_long_is_filtered() {
        let engine = with_favourites();
        let guard = engine.table.pin();
        let mut filtered = 0;
        for key in 10_000..10_050 {
            // The entry fills the budget, so there is no free room.
            engine.budget.set_max(u64::MAX, []);
            put(&engine, key);
            engine.recall_credits();
            engine.budget.set_max(engine.budget.used(), []);
            let before = engine.metrics().evictions;
            engine.filter_alone(&guard, engine.hash(&key));
            filtered += engine.metrics().evictions - before;
        }
        assert!(filtered > 25, "{filtered} of 50 were evicted");
    }

    #[test]
    fn window_holds_its_share_and_no_more() {
        let engine = manual(1000);
        (0..5000).for_each(|key| put(&engine, key));
        let guard = engine.table.pin();
        let flagged =
            engine.table.iter(&guard).filter(|entry| entry.flags().is_in_window()).count();
        let queued = engine.window_cost.load(Ordering::Relaxed) as usize;
        // The newest are still in their ring.
        let newest = engine.new_entries.drain_all(|_| ());
        // One place is left for the next entry.
        assert_eq!((queued, flagged), (49, 49 + newest));
    }

    #[test]
    fn victim_stays_the_same_until_it_was_used_or_was_compared_often_enough() {
        let engine = with_favourites();
        let guard = engine.table.pin();
        let mut shard = engine.take_shard().unwrap();
        let mut next = || {
            let is_any = engine.victim_to_beat(&guard, &mut shard).is_some();
            assert!(is_any, "main is full of them");
            let victim = engine.chosen_victim(&guard, &mut shard.hand);
            victim.map(|victim| victim.hash())
        };
        // The threshold has to converge to the scores first.
        (0..1000).for_each(|_| _ = next());
        let victims: Vec<_> = (0..100).map(|_| next()).collect();
        let runs: Vec<usize> = victims.chunk_by(|a, b| a == b).map(<[_]>::len).collect();
        assert!(
            runs[1..runs.len() - 1].iter().all(|run| *run == MAX_COMPARISONS as usize),
            "{runs:?}"
        );
        while next() == *victims.last().unwrap() {}
        let first = next().unwrap();
        let hash = (0..20_000).map(|key| engine.hash(&key)).find(|hash| *hash == first).unwrap();
        engine.get(hash, Trace::Leave, |_| true);
        assert_eq!(next(), None, "it was used since");
        assert!(next().is_some_and(|victim| victim != first));
    }
}
