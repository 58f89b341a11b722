//! New entries on their way through the window: how a maintenance shard receives them, and which
//! one leaves the window next.

use std::collections::VecDeque;

use super::{Engine, access_of, maintenance::MaintenanceShard, place::borrow};
use crate::{
    entry::Entry,
    policy::window::WindowEntry,
    primitives::striped::{CAPACITY, Push, thread_number},
    reclaim::Guard,
    slab::prefetch,
    sync::atomic::Ordering,
    table::{Metadata, SlotRef, Spot},
    util::for_all,
};

/// How many entries ahead of their turn the buckets of new entries are prefetched.
const LOOK_AHEAD: usize = 2;
/// One in this many new entries is taken from another shard's window.
const TAKEN_IN_TURN: u32 = 8;
/// New entries that a slice of maintenance brings into the window.
pub(super) const TAKEN_IN: usize = 64;
/// New entries that a writer which makes room brings into the window: with those of its own ring,
/// which it may pass on in the same call, `TAKEN_IN` in all.
pub(super) const TAKEN_IN_FOR_ROOM: usize = CAPACITY;
/// New entries that may wait for a maintenance shard.
pub(super) const MAX_DEFERRED: usize = 1024;
/// Accessed entries that are queued again in a row.
const MAX_TURNS: usize = 8;
/// Rings that a writer tries for its new entry if other threads drain some of them.
const RINGS_TRIED: usize = 4;

/// Hashes of new entries that found all shards taken, the oldest first.
///
/// Bounded: if it is full, the writers that add to it filter the oldest.
#[derive(Debug, Default)]
pub struct Backlog {
    pub(super) hashes: VecDeque<u64>,
}

impl Backlog {
    /// Adds hashes, unless other threads still have to filter a surplus; returns whether it did.
    fn add(&mut self, hashes: &[u64]) -> bool {
        let has_room = self.hashes.len() < 2 * MAX_DEFERRED;
        if has_room {
            self.hashes.extend(hashes);
        }
        has_room
    }

    /// Takes the oldest hash, if there are too many.
    fn take_surplus(&mut self) -> Option<u64> {
        if self.hashes.len() > MAX_DEFERRED { self.hashes.pop_front() } else { None }
    }

    pub(super) fn bytes(&self) -> usize {
        self.hashes.capacity() * size_of::<u64>()
    }
}

/// An entry at the window's head, which is to be promoted or evicted.
pub(super) struct Candidate<'g, K, V> {
    pub(super) window_entry: WindowEntry,
    pub(super) slot: SlotRef<'g, Entry<K, V>>,
}

impl<K, V> Clone for Candidate<'_, K, V> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<K, V> Copy for Candidate<'_, K, V> {}

impl<K, V, S> Engine<K, V, S> {
    /// Accounts for a new entry: counts the access, queues the entry for the window, and makes up
    /// for the room it took.
    pub(super) fn enqueue_new_entry(&self, guard: &Guard, window_entry: WindowEntry) {
        let hash = window_entry.hash;
        self.note_sample(hash);
        let local = self.local();
        // Relaxed, twice: if two threads of a stripe interfere, an access counts twice.
        let is_counted = local.last_miss.load(Ordering::Relaxed) == hash;
        if is_counted {
            // The miss that led to this insert was counted.
            local.last_miss.store(0, Ordering::Relaxed);
        }
        if let Some(mut shard) = self.take_shard() {
            self.take_in(guard, &mut shard, window_entry, is_counted);
        } else {
            self.wait_for_shard(guard, hash, is_counted);
        }
        if self.eventcount.is_waiting() && self.is_reserve_low() {
            self.eventcount.notify();
        }
    }

    /// Queues a new entry while all shards are taken.
    #[cold]
    fn wait_for_shard(&self, guard: &Guard, hash: u64, is_counted: bool) {
        if !is_counted {
            self.note_event(hash);
        }
        if !self.queue_new_entry(guard, hash) {
            // The entry is in no queue, so it cannot wait for its turn.
            self.filter_alone(guard, hash);
        }
        self.note_unqueued();
    }

    /// Queues a new entry for the window, unless all rings are held. An entry may be queued twice,
    /// but is never lost: an entry of the window that is in no queue would never be evicted.
    fn queue_new_entry(&self, guard: &Guard, hash: u64) -> bool {
        let number = thread_number();
        for ring in (0..RINGS_TRIED).map(|i| self.new_entries.stripe(number + i)) {
            match ring.place(hash) {
                Push::Accepted => return true,
                Push::Full => {
                    let mut is_in = false;
                    ring.drain(|hashes| {
                        is_in = hashes.contains(&hash);
                        self.hand_over(guard, hashes);
                    });
                    // Another entry may have taken the ring's free slot.
                    return is_in;
                }
                Push::Contended => {}
            }
        }
        false
    }

    /// Passes a full ring of new entries on to a shard, or to the backlog.
    pub(super) fn hand_over(&self, guard: &Guard, hashes: &[u64]) {
        match self.take_shard() {
            Some(mut shard) => self.admit_to_window(guard, &mut shard, hashes),
            None => self.defer(guard, hashes),
        }
    }

    /// Queues hashes for the next maintenance shard, and filters the oldest if there are too many.
    pub(super) fn defer(&self, guard: &Guard, hashes: &[u64]) {
        self.note_unqueued();
        let is_in = borrow(&self.backlog, |backlog| backlog.add(hashes)).unwrap_or(false);
        if !is_in {
            // Another thread is adding hashes, or still has to filter.
            return for_all(hashes, |&hash| self.filter_alone(guard, hash));
        }
        for _ in hashes {
            // One by one: hashes that are not filtered yet stay in the backlog.
            let oldest = borrow(&self.backlog, Backlog::take_surplus).flatten();
            let Some(hash) = oldest else { break };
            self.filter_alone(guard, hash);
        }
    }

    /// Notes that new entries wait for a maintenance shard.
    pub(super) fn note_unqueued(&self) {
        // Relaxed, twice: a hint. Stored only if it differs: writers share the line.
        if !self.has_unqueued.load(Ordering::Relaxed) {
            self.has_unqueued.store(true, Ordering::Relaxed);
        }
    }

    /// Collects new entries that found all shards taken, if there are any.
    #[inline]
    pub(super) fn collect_unqueued(&self, guard: &Guard, shard: &mut MaintenanceShard) {
        // Relaxed: a hint. Maintenance collects without it.
        if self.has_unqueued.load(Ordering::Relaxed) {
            self.collect_new_entries(guard, shard, TAKEN_IN_FOR_ROOM);
        }
    }

    /// Brings at most `most` new entries into the window: those of the backlog first, then those of
    /// the rings, one ring after the other.
    pub(super) fn collect_new_entries(
        &self,
        guard: &Guard,
        shard: &mut MaintenanceShard,
        most: usize,
    ) {
        // Relaxed, here and below: a hint that no new entries wait, until some are added.
        self.has_unqueued.store(false, Ordering::Relaxed);
        let taken = borrow(&self.backlog, |backlog| {
            let mut hashes = [0; TAKEN_IN];
            let count = most.min(TAKEN_IN).min(backlog.hashes.len());
            hashes.iter_mut().zip(backlog.hashes.drain(..count)).for_each(|(to, hash)| *to = hash);
            self.admit_to_window(guard, shard, &hashes[..count]);
            count
        });
        let mut taken = taken.unwrap_or(0);
        let left = most - taken;
        shard.next_ring = self.new_entries.drain_some(shard.next_ring, left, |hashes| {
            taken += hashes.len();
            self.admit_to_window(guard, shard, hashes);
        });
        if taken > 0 {
            // There may be more than one call takes. Relaxed: as above.
            self.has_unqueued.store(true, Ordering::Relaxed);
        }
    }

    fn admit_to_window(&self, guard: &Guard, shard: &mut MaintenanceShard, hashes: &[u64]) {
        if self.costs_vary() {
            self.table.for_many(guard, hashes, |_, hash| {
                if let Some(slot) = self.find_in_window(guard, hash) {
                    let cost = self.cost_of(slot.metadata());
                    shard.admit(WindowEntry::new(hash, cost, slot.spot()));
                }
            });
        } else {
            let window_entries =
                hashes.iter().map(|&hash| WindowEntry::new(hash, 1, Spot::default()));
            window_entries.for_each(|window_entry| shard.admit(window_entry));
        }
        self.note_queued(shard);
    }

    /// Takes the entry at the window's head.
    ///
    /// At intervals, and if this maintenance shard's window is empty, takes it from another shard:
    /// the threads that used that one may have stopped inserting.
    #[inline]
    fn next_window_entry(&self, shard: &mut MaintenanceShard) -> Option<WindowEntry> {
        shard.taken = shard.taken.wrapping_add(1);
        let own = if shard.taken.is_multiple_of(TAKEN_IN_TURN) { None } else { shard.window.pop() };
        let others = || {
            // Each shard in turn.
            let first = (shard.taken / TAKEN_IN_TURN) as usize;
            let mut places = self.shards.iter().cycle().skip(first % self.shards.len());
            let tried = places.by_ref().take(self.shards.len());
            tried.filter_map(|place| borrow(place, |other| other.window.pop())).flatten().next()
        };
        let window_entry = own.or_else(others).or_else(|| shard.window.pop())?;
        shard.queued = shard.queued.wrapping_sub(window_entry.cost());
        Some(window_entry)
    }

    /// Takes the entry at the window's head; one that was accessed since is queued again.
    #[inline]
    pub(super) fn next_candidate<'g>(
        &'g self,
        guard: &'g Guard,
        shard: &mut MaintenanceShard,
    ) -> Option<Candidate<'g, K, V>> {
        let mut turns = 0;
        while let Some(window_entry) = self.next_window_entry(shard) {
            if let Some(later) = shard.window.peek(LOOK_AHEAD) {
                self.table.prefetch_at(later.hash, later.spot);
                prefetch(self.sketch.line(later.hash));
            }
            let Some(hit) = self.find_window_entry(guard, window_entry) else { continue };
            let candidate = Candidate { window_entry, slot: hit };
            if self.is_exempt(hit.metadata()) {
                self.promote(shard, candidate);
            } else if access_of(&hit).is_referenced() && turns < MAX_TURNS {
                turns += 1;
                self.unreference(window_entry.hash, &hit);
                shard.admit(window_entry);
            } else {
                return Some(candidate);
            }
        }
        None
    }

    /// Returns the entry of the window with exactly this hash. A lookup by bucket and tag alone
    /// would also match other entries, and give one of them the turn of another.
    pub(super) fn find_in_window<'g>(
        &'g self,
        guard: &'g Guard,
        hash: u64,
    ) -> Option<SlotRef<'g, Entry<K, V>>> {
        let is_it = |found: Metadata<'_, Entry<K, V>>| {
            found.has_upper_of(hash) && found.flags().is_in_window()
        };
        self.table.find_slot(guard, hash, is_it)
    }

    /// Like [`find_in_window`](Self::find_in_window), for an entry that was queued with its place.
    #[inline]
    fn find_window_entry<'g>(
        &'g self,
        guard: &'g Guard,
        window_entry: WindowEntry,
    ) -> Option<SlotRef<'g, Entry<K, V>>> {
        let there = self.table.find_at(guard, window_entry.hash, window_entry.spot);
        match there.filter(|slot| slot.flags().is_in_window()) {
            Some(slot) => Some(slot),
            // It was replaced, or the table is being resized.
            None => self.find_in_window(guard, window_entry.hash),
        }
    }

    /// Takes the oldest entry that no maintenance shard has received yet; one that was accessed
    /// since is queued again.
    pub(super) fn oldest_waiting<'g>(
        &'g self,
        guard: &'g Guard,
    ) -> Option<(u64, SlotRef<'g, Entry<K, V>>)> {
        let mut turns = 0;
        for _ in 0..TAKEN_IN {
            let oldest = borrow(&self.backlog, |backlog| backlog.hashes.pop_front()).flatten();
            let hash = oldest.or_else(|| self.take_from_a_ring(guard))?;
            let Some(hit) = self.find_in_window(guard, hash) else { continue };
            if self.is_exempt(hit.metadata()) {
                // As at the window's head.
                self.settle_alone(guard, hash, self.enter_main(hash, &hit));
            } else if access_of(&hit).is_referenced() && turns < MAX_TURNS {
                turns += 1;
                self.unreference(hash, &hit);
                self.defer(guard, &[hash]);
            } else {
                return Some((hash, hit));
            }
        }
        None
    }

    /// Takes the oldest entry of a ring, and defers the others.
    fn take_from_a_ring(&self, guard: &Guard) -> Option<u64> {
        let mut oldest = None;
        let number = thread_number();
        (0..self.new_entries.count()).find(|i| {
            let ring = self.new_entries.stripe(number.wrapping_add(*i));
            ring.try_seal_and_drain(|hashes| {
                oldest = hashes.first().copied();
                self.defer(guard, &hashes[1..]);
            });
            oldest.is_some()
        });
        oldest
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::testing::{put, queued_and_flagged, sized, without_shards};

    #[test]
    fn backlog_is_bounded_and_every_entry_of_the_window_is_known() {
        for expected in [300, 100_000] {
            let engine = sized(100_000, expected);
            (0..10_000).for_each(|key| put(&engine, key));
            without_shards(&engine, || (10_000..50_000).for_each(|key| put(&engine, key)));
            let backlog = borrow(&engine.backlog, |backlog| backlog.hashes.len()).unwrap();
            assert_eq!(backlog, MAX_DEFERRED);
            let (queued, flagged) = queued_and_flagged(&engine);
            // Entries that were displaced from a full bucket are still queued.
            assert!(flagged <= queued && flagged + 1000 > queued, "{flagged} of {queued}");
            // There is room for all, so only full buckets evict.
            let metrics = engine.metrics();
            assert_eq!(metrics.evictions, metrics.local_evictions);
            assert!(engine.memory().buffers > backlog * size_of::<u64>());
        }
    }

    #[test]
    fn one_call_takes_few_new_entries_in() {
        let engine = sized(100_000, 100_000);
        without_shards(&engine, || (0..20_000).for_each(|key| put(&engine, key)));
        let known = || engine.window_cost.load(Ordering::Relaxed);
        let guard = engine.table.pin();
        let take =
            |most| engine.collect_new_entries(&guard, &mut engine.take_shard().unwrap(), most);
        for _ in 0..MAX_DEFERRED / TAKEN_IN {
            let before = known();
            take(TAKEN_IN);
            assert_eq!(known() - before, TAKEN_IN as u64);
        }
        assert_eq!(borrow(&engine.backlog, |backlog| backlog.hashes.len()), Some(0));
        for key in 20_000..25_000 {
            let before = known();
            put(&engine, key);
            assert!(known() - before <= TAKEN_IN as u64);
        }
    }
}
