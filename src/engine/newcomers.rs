//! New entries on their way through the window: how a maintainer learns of them, and which one leaves the window next.

use std::collections::VecDeque;

use super::{Engine, access_of, maintain::Maintainer, place::borrow};
use crate::{
    buckets::{Metadata, SlotRef, Spot},
    entry::Entry,
    policy::window::Newcomer,
    reclaim::Guard,
    slab::prefetch,
    stripe::{CAPACITY, thread_number},
    sync::atomic::Ordering,
    util::for_all,
};

/// Hashes of new entries that found no maintainer, the oldest first.
///
/// Bounded: where it is full, the writers that add to it filter the oldest.
#[derive(Debug, Default)]
pub struct Backlog {
    pub(super) hashes: VecDeque<u64>,
}

impl Backlog {
    /// Adds hashes; returns whether it did. It does not where others have still to filter what is too many.
    fn add(&mut self, hashes: &[u64]) -> bool {
        let has_room = self.hashes.len() < 2 * MAX_PUT_OFF;
        if has_room {
            self.hashes.extend(hashes);
        }
        has_room
    }

    /// Takes the oldest, if there are too many.
    fn take_surplus(&mut self) -> Option<u64> {
        if self.hashes.len() > MAX_PUT_OFF { self.hashes.pop_front() } else { None }
    }

    pub(super) fn bytes(&self) -> usize {
        self.hashes.capacity() * size_of::<u64>()
    }
}

/// An entry whose time in the window is over.
pub(super) struct Candidate<'g, K, V> {
    pub(super) newcomer: Newcomer,
    pub(super) slot: SlotRef<'g, Entry<K, V>>,
}

impl<K, V> Clone for Candidate<'_, K, V> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<K, V> Copy for Candidate<'_, K, V> {}

impl<K, V, S> Engine<K, V, S> {
    /// Takes over a full ring of new entries.
    pub(super) fn hand_over(&self, guard: &Guard, hashes: &[u64]) {
        match self.take_maintainer() {
            Some(mut maintainer) => self.admit_to_window(guard, &mut maintainer, hashes),
            None => self.put_off(guard, hashes),
        }
    }

    /// Queues hashes for the next maintainer, and filters those that are too many then.
    pub(super) fn put_off(&self, guard: &Guard, hashes: &[u64]) {
        self.note_strays();
        let is_in = borrow(&self.backlog, |backlog| backlog.add(hashes)).unwrap_or(false);
        if !is_in {
            // Another thread is adding its own, or has still to filter.
            return for_all(hashes, |&hash| self.filter_alone(guard, hash));
        }
        for _ in hashes {
            // One by one: those that are not filtered yet stay where they are known.
            let oldest = borrow(&self.backlog, Backlog::take_surplus).flatten();
            let Some(hash) = oldest else { break };
            self.filter_alone(guard, hash);
        }
    }

    /// Notes that new entries wait for a maintainer.
    pub(super) fn note_strays(&self) {
        // Relaxed, twice: a hint. Written only if it differs: writers share it.
        if !self.has_strays.load(Ordering::Relaxed) {
            self.has_strays.store(true, Ordering::Relaxed);
        }
    }

    /// Takes in new entries that found all maintainers away, if there are any.
    #[inline]
    pub(super) fn collect_strays(&self, guard: &Guard, maintainer: &mut Maintainer) {
        // Relaxed: a hint. Maintenance comes without.
        if self.has_strays.load(Ordering::Relaxed) {
            self.collect_newcomers(guard, maintainer, TAKEN_IN_FOR_ROOM);
        }
    }

    /// Brings new entries into the window, `most` or fewer: those of the backlog, then those of the rings,
    /// one ring after the other.
    pub(super) fn collect_newcomers(
        &self,
        guard: &Guard,
        maintainer: &mut Maintainer,
        most: usize,
    ) {
        // Relaxed, here and below: a hint, that there are none until some come.
        self.has_strays.store(false, Ordering::Relaxed);
        let taken = borrow(&self.backlog, |backlog| {
            let mut hashes = [0; TAKEN_IN];
            let count = most.min(TAKEN_IN).min(backlog.hashes.len());
            hashes.iter_mut().zip(backlog.hashes.drain(..count)).for_each(|(to, hash)| *to = hash);
            self.admit_to_window(guard, maintainer, &hashes[..count]);
            count
        });
        let mut taken = taken.unwrap_or(0);
        let left = most - taken;
        maintainer.next_ring = self.newcomers.drain_some(maintainer.next_ring, left, |hashes| {
            taken += hashes.len();
            self.admit_to_window(guard, maintainer, hashes);
        });
        if taken > 0 {
            // There may be more than one call takes. Relaxed: as above.
            self.has_strays.store(true, Ordering::Relaxed);
        }
    }

    fn admit_to_window(&self, guard: &Guard, maintainer: &mut Maintainer, hashes: &[u64]) {
        if self.costs_vary() {
            self.table.for_many(guard, hashes, |_, hash| {
                if let Some(slot) = self.find_in_window(guard, hash) {
                    let cost = self.cost_of(slot.metadata());
                    maintainer.admit(Newcomer::new(hash, cost, slot.spot()));
                }
            });
        } else {
            let newcomers = hashes.iter().map(|&hash| Newcomer::new(hash, 1, Spot::default()));
            newcomers.for_each(|newcomer| maintainer.admit(newcomer));
        }
        self.note_queued(maintainer);
    }

    /// Takes the newcomer at the window's head.
    ///
    /// Now and then, and where this maintainer has none, it is that of another one: whose thread may have
    /// stopped inserting.
    #[inline]
    fn next_newcomer(&self, maintainer: &mut Maintainer) -> Option<Newcomer> {
        maintainer.taken = maintainer.taken.wrapping_add(1);
        let own = if maintainer.taken.is_multiple_of(TAKEN_IN_TURN) {
            None
        } else {
            maintainer.window.pop()
        };
        let others = || {
            // Each one in its turn.
            let first = (maintainer.taken / TAKEN_IN_TURN) as usize;
            let mut places = self.maintainers.iter().cycle().skip(first % self.maintainers.len());
            let tried = places.by_ref().take(self.maintainers.len());
            tried.filter_map(|place| borrow(place, |other| other.window.pop())).flatten().next()
        };
        let newcomer = own.or_else(others).or_else(|| maintainer.window.pop())?;
        maintainer.queued = maintainer.queued.wrapping_sub(newcomer.cost());
        Some(newcomer)
    }

    /// Takes the entry at the window's head; one that was used meanwhile has another turn.
    #[inline]
    pub(super) fn next_candidate<'g>(
        &'g self,
        guard: &'g Guard,
        maintainer: &mut Maintainer,
    ) -> Option<Candidate<'g, K, V>> {
        let mut turns = 0;
        while let Some(newcomer) = self.next_newcomer(maintainer) {
            if let Some(later) = maintainer.window.peek(LOOK_AHEAD) {
                self.table.prefetch_at(later.hash, later.spot);
                prefetch(self.sketch.line(later.hash));
            }
            let Some(hit) = self.find_newcomer(guard, newcomer) else { continue };
            let candidate = Candidate { newcomer, slot: hit };
            if self.is_exempt(hit.metadata()) {
                self.promote(maintainer, candidate);
            } else if access_of(&hit).is_referenced() && turns < MAX_TURNS {
                turns += 1;
                self.unreference(newcomer.hash, &hit);
                maintainer.admit(newcomer);
            } else {
                return Some(candidate);
            }
        }
        None
    }

    /// Returns the entry of the window that has this very hash. (The table would also offer those that share
    /// bucket and tag, which then would take the turn of another.)
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

    /// The same for one that is in a queue.
    #[inline]
    fn find_newcomer<'g>(
        &'g self,
        guard: &'g Guard,
        newcomer: Newcomer,
    ) -> Option<SlotRef<'g, Entry<K, V>>> {
        let there = self.table.find_at(guard, newcomer.hash, newcomer.spot);
        match there.filter(|slot| slot.flags().is_in_window()) {
            Some(slot) => Some(slot),
            // It was replaced, or the table is on the move.
            None => self.find_in_window(guard, newcomer.hash),
        }
    }

    /// Takes, of the entries that no maintainer knows of yet, the one that waits for longest; one that was used
    /// since has another turn.
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
                self.put_off(guard, &[hash]);
            } else {
                return Some((hash, hit));
            }
        }
        None
    }

    /// Takes the oldest of some ring, and puts off the others there.
    fn take_from_a_ring(&self, guard: &Guard) -> Option<u64> {
        let mut oldest = None;
        let number = thread_number();
        (0..self.newcomers.count()).find(|i| {
            let ring = self.newcomers.stripe(number.wrapping_add(*i));
            ring.try_seal_and_drain(|hashes| {
                oldest = hashes.first().copied();
                self.put_off(guard, &hashes[1..]);
            });
            oldest.is_some()
        });
        oldest
    }
}

/// How far ahead of their turn the buckets of newcomers are fetched.
const LOOK_AHEAD: usize = 2;
/// One newcomer in so many is taken from another maintainer's window.
const TAKEN_IN_TURN: u32 = 8;
/// New entries that a slice of maintenance takes into the window.
pub(super) const TAKEN_IN: usize = 64;
/// The same for a writer that makes room: with those of its own ring, which it may hand over in the same
/// call, as many.
pub(super) const TAKEN_IN_FOR_ROOM: usize = CAPACITY;
/// New entries that wait for a maintainer, at most.
pub(super) const MAX_PUT_OFF: usize = 1024;
/// Turns given in the window in a row.
const MAX_TURNS: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::testing::{put, queued_and_marked, sized, without_maintainers};

    #[test]
    fn backlog_is_bounded_and_every_entry_of_the_window_is_known() {
        for expected in [300, 100_000] {
            let engine = sized(100_000, expected);
            (0..10_000).for_each(|key| put(&engine, key));
            without_maintainers(&engine, || (10_000..50_000).for_each(|key| put(&engine, key)));
            let backlog = borrow(&engine.backlog, |backlog| backlog.hashes.len()).unwrap();
            assert_eq!(backlog, MAX_PUT_OFF);
            let (queued, marked) = queued_and_marked(&engine);
            // What has left the table by a full bucket is still queued.
            assert!(marked <= queued && marked + 1000 > queued, "{marked} of {queued}");
            // There is room for all, so none is evicted but for its bucket.
            let metrics = engine.metrics();
            assert_eq!(metrics.evictions, metrics.local_evictions);
            assert!(engine.memory().buffers > backlog * size_of::<u64>());
        }
    }

    #[test]
    fn one_call_takes_few_new_entries_in() {
        let engine = sized(100_000, 100_000);
        without_maintainers(&engine, || (0..20_000).for_each(|key| put(&engine, key)));
        let known = || engine.window_cost.load(Ordering::Relaxed);
        let guard = engine.table.pin();
        let take =
            |most| engine.collect_newcomers(&guard, &mut engine.take_maintainer().unwrap(), most);
        for _ in 0..MAX_PUT_OFF / TAKEN_IN {
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
