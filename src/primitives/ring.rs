//! One small lossy ring of events.
//!
//! # Protocol
//!
//! `head` counts the pushes of a *lap*. A push takes a position by adding one; below [`CAPACITY`]
//! the slot there is its own, and it stores its event. The push that takes the last position is told
//! [`Push::Full`] and thereby holds the ring: nobody else drains until it has set `head` back.
//! Meanwhile `head` is at or past the end and pushes are turned away ([`Push::Contended`]).
//! [`Ring::try_seal_and_drain`] takes hold of a ring that is not full yet by exchanging `head` for
//! the end.
//!
//! Who holds the ring takes each event out of its slot and leaves the slot empty. A pusher that was
//! interrupted between taking a position and storing its event stores late: the event is then
//! drained in a later lap, or it and another overwrite each other and one is lost. No event is
//! drained twice, none is invented.

use crate::sync::IS_MODEL;
use crate::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed};
use crate::sync::atomic::{AtomicU64, AtomicUsize};

/// A ring of up to [`CAPACITY`] events.
#[derive(Debug)]
pub struct Ring {
    /// Positions taken in this lap. At or past the end a thread holds the ring.
    head: AtomicUsize,
    slots: [AtomicU64; CAPACITY],
}

/// What became of a push.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "whoever is told `Full` has to drain the ring"]
pub enum Push {
    /// The event is in the ring.
    Accepted,
    /// The event was dropped: a thread holds the ring.
    Contended,
    /// The event is in the ring, which is full now, and the caller must call [`Ring::drain`].
    Full,
}

impl Ring {
    /// Makes an empty ring.
    pub fn new() -> Self {
        Self { head: AtomicUsize::new(0), slots: std::array::from_fn(|_| AtomicU64::new(EMPTY)) }
    }

    /// Puts `event` into the ring, or drops it where a thread holds the ring.
    ///
    /// The event 0 stands for an empty slot and is put in as 1.
    #[inline]
    pub fn push(&self, event: u64) -> Push {
        // Relaxed: a glance that saves the addition. It also keeps `head` from growing on while a
        // holder sleeps: past the end by one for each thread at most, so it never wraps.
        if self.head.load(Relaxed) >= CAPACITY {
            return Push::Contended;
        }
        // Acquire: pairs with the Release in `open`; seeing the new lap means seeing the slots
        // behind it cleared, so that the holder of this lap finds no event of the last one.
        let position = self.head.fetch_add(1, Acquire);
        let Some(slot) = self.slots.get(position) else {
            return if mutant!("ring_two_drainers") { Push::Full } else { Push::Contended };
        };
        // Relaxed: an event is a number and stands for itself. Lossy: a holder that does not see it
        // yet leaves it for the next.
        slot.store(if event == EMPTY { 1 } else { event }, Relaxed);
        if position == CAPACITY - 1 { Push::Full } else { Push::Accepted }
    }

    /// Puts `event` into the ring so that whoever drains this lap finds it; it is not 0.
    ///
    /// `Contended` means that it may not be there, for this thread was too late: the caller has to bring it
    /// another way, and it may come twice. It may not be there either where the ring is `Full`.
    pub fn place(&self, event: u64) -> Push {
        debug_assert_ne!(event, EMPTY, "it would look like nothing");
        // Relaxed: a glance, as in `push`.
        if self.head.load(Relaxed) >= CAPACITY {
            return Push::Contended;
        }
        let position = self.head.fetch_add(1, Acquire); // Acquire: as in `push`.
        let Some(slot) = self.slots.get(position) else { return Push::Contended };
        // Relaxed, twice: an event stands for itself. An exchange, so that it takes nobody's slot, even if
        // it comes a lap late, and the holder, who clears only what it has seen, does not lose it.
        let is_in = slot.compare_exchange(EMPTY, event, Relaxed, Relaxed).is_ok();
        if position == CAPACITY - 1 {
            return Push::Full;
        }
        if mutant!("inbox_believes_its_slot") {
            return if is_in { Push::Accepted } else { Push::Contended };
        }
        // AcqRel: Release pairs with the Acquire of whoever holds the ring after this, in `place`, `push` or
        // `try_seal_and_drain`, who then finds the event: a holder before this shows in `head`. Acquire
        // pairs with the Release in `recheck`.
        let head = self.head.fetch_add(0, AcqRel);
        if is_in && position < head && head < CAPACITY { Push::Accepted } else { Push::Contended }
    }

    /// Returns whether there may be events, to the thread that is about to sleep: it sees all but those whose
    /// pushers are to see that (see [`eventcount`](crate::primitives::eventcount)). For rings that events are placed in.
    pub fn recheck(&self) -> bool {
        if mutant!("inbox_loads_rings") {
            return self.head.load(Relaxed) > 0;
        }
        // AcqRel: Release pairs with the Acquire in `place`; Acquire with the Release of the last holder.
        self.head.fetch_add(0, AcqRel) > 0
    }

    /// As [`drain`](Self::drain), but the ring is opened after `f`: whoever finds it open finds what `f` did.
    pub fn drain_closed(&self, f: impl FnOnce(&[u64])) {
        // Opens the ring even if `f` panics.
        struct Open<'a>(&'a Ring);
        impl Drop for Open<'_> {
            fn drop(&mut self) {
                self.0.open();
            }
        }
        if mutant!("inbox_opens_early") {
            self.drain(f);
            return;
        }
        let _open = Open(self);
        let mut events = [EMPTY; CAPACITY];
        let count = self.clear(&mut events);
        f(&events[..count]);
    }

    /// Empties the ring, gives its events to `f` and returns how many there were.
    ///
    /// For the thread that was told [`Push::Full`], once. The ring is open again before `f` is
    /// called, so `f` may push, and should it panic, its events are lost and the ring goes on.
    pub fn drain(&self, f: impl FnOnce(&[u64])) -> usize {
        let mut events = [EMPTY; CAPACITY];
        let count = self.take(&mut events);
        if count > 0 {
            f(&events[..count]);
        }
        count
    }

    /// Drains the ring if it holds something and nobody else holds it. Returns how many events.
    pub fn try_seal_and_drain(&self, f: impl FnOnce(&[u64])) -> usize {
        // Relaxed: a glance, so that a ring at rest is not written to.
        let head = self.head.load(Relaxed);
        if head == 0 || head >= CAPACITY {
            return 0;
        }
        if mutant!("ring_seal_by_store") {
            self.head.store(CAPACITY, Relaxed);
            return self.drain(f);
        }
        // Acquire: pairs with the Release in `open`, as in `push`. Where another thread holds the
        // ring, `head` was past the end and still is.
        if self.head.swap(CAPACITY, Acquire) >= CAPACITY {
            return 0;
        }
        self.drain(f)
    }

    /// Moves the events to the front of `events` and opens the ring. Only the holder is here.
    fn take(&self, events: &mut [u64; CAPACITY]) -> usize {
        let count = self.clear(events);
        self.open();
        count
    }

    /// Moves the events to the front of `events`. Only the holder is here.
    fn clear(&self, events: &mut [u64; CAPACITY]) -> usize {
        let mut count = 0;
        for slot in &self.slots {
            // Relaxed: an event stands for itself.
            let event = slot.load(Relaxed);
            if event == EMPTY {
                continue;
            }
            if !mutant!("ring_slots_not_cleared") {
                // Relaxed: the Release in `open` shows it to the next holder. Lossy: a late store of
                // `push` that comes between the two is lost; an exchange would save it, at ten times the cost.
                slot.store(EMPTY, Relaxed);
            }
            events[count] = event;
            count += 1;
        }
        count
    }

    /// Begins the next lap. Only the holder is here.
    fn open(&self) {
        // Release: pairs with the Acquire in `push`, `place`, `recheck` and `try_seal_and_drain`;
        // seeing the new lap means seeing the slots behind it cleared. Pushes between the two do not break the
        // pair, for each is a read-modify-write. So is this, because loom does not order a plain store
        // against additions that came before it; once a lap it costs nothing to speak of.
        let order = ordering!(Release, mutant("ring_relaxed_reset") => Relaxed);
        self.head.swap(0, order);
    }
}

impl Default for Ring {
    fn default() -> Self {
        Self::new()
    }
}

/// Events that a ring holds.
pub const CAPACITY: usize = if IS_MODEL { 2 } else { 32 };

/// What an empty slot holds.
const EMPTY: u64 = 0;

#[cfg(all(test, not(any(cortado_loom, cortado_shuttle))))]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use super::*;
    use crate::sync::thread;

    #[test]
    fn the_push_that_fills_the_ring_drains_it() {
        let ring = Ring::new();
        for event in 1..CAPACITY as u64 {
            assert_eq!(ring.push(event), Push::Accepted);
        }
        assert_eq!(ring.push(CAPACITY as u64), Push::Full);
        assert_eq!(ring.push(1000), Push::Contended);
        let mut events = Vec::new();
        assert_eq!(ring.drain(|batch| events.extend_from_slice(batch)), CAPACITY);
        assert_eq!(events, (1..=CAPACITY as u64).collect::<Vec<_>>());
        assert_eq!(ring.push(1), Push::Accepted);
    }

    #[test]
    fn the_event_zero_is_put_in_as_one() {
        let ring = Ring::new();
        assert_eq!(ring.push(0), Push::Accepted);
        assert_eq!(ring.try_seal_and_drain(|events| assert_eq!(events, [1])), 1);
    }

    #[test]
    fn sealing_an_empty_ring_or_one_that_is_held_does_nothing() {
        let ring = Ring::new();
        assert_eq!(ring.try_seal_and_drain(|_| unreachable!()), 0);
        for event in 1..CAPACITY as u64 {
            let _ = ring.push(event);
        }
        assert_eq!(ring.push(9), Push::Full);
        assert_eq!(ring.try_seal_and_drain(|_| unreachable!()), 0);
        assert_eq!(ring.drain(|_| ()), CAPACITY);
    }

    #[test]
    fn a_ring_goes_on_after_its_drain_panicked() {
        let ring = Ring::new();
        for _ in 0..3 {
            let _ = ring.push(5);
        }
        let result = catch_unwind(AssertUnwindSafe(|| ring.try_seal_and_drain(|_| panic!("here"))));
        assert!(result.is_err());
        assert_eq!(ring.push(6), Push::Accepted);
        assert_eq!(ring.try_seal_and_drain(|events| assert_eq!(events, [6])), 1);
    }

    #[test]
    fn placed_events_are_there_until_the_ring_is_full_and_then_turned_away() {
        let ring = Ring::new();
        assert!(!ring.recheck());
        for event in 1..CAPACITY as u64 {
            assert_eq!(ring.place(event), Push::Accepted);
            assert!(ring.recheck());
        }
        assert_eq!(ring.place(CAPACITY as u64), Push::Full);
        assert_eq!(ring.place(1000), Push::Contended);
        assert!(ring.recheck());
        let mut events = Vec::new();
        assert_eq!(ring.drain(|batch| events.extend_from_slice(batch)), CAPACITY);
        assert_eq!(events, (1..=CAPACITY as u64).collect::<Vec<_>>());
        assert!(!ring.recheck());
    }

    #[test]
    fn a_placed_event_takes_no_slot_of_a_late_one() {
        let ring = Ring::new();
        // As a push of the last lap does that comes late.
        ring.slots[0].store(9, Relaxed);
        assert_eq!(ring.place(5), Push::Contended);
        assert_eq!(ring.place(6), Push::Accepted);
        assert_eq!(ring.try_seal_and_drain(|events| assert_eq!(events, [9, 6])), 2);
    }

    #[test]
    fn a_held_ring_without_events_is_opened_and_gives_none() {
        let ring = Ring::new();
        ring.head.store(CAPACITY, Relaxed);
        assert_eq!(ring.drain(|_| unreachable!()), 0);
        assert_eq!(ring.push(1), Push::Accepted);
    }

    #[test]
    fn a_closed_drain_turns_pushes_away_and_opens_the_ring_even_if_it_panics() {
        let ring = Ring::new();
        for panics in [false, true, false] {
            (1..=CAPACITY as u64).for_each(|event| _ = ring.place(event));
            let drained = AtomicUsize::new(0);
            let result = catch_unwind(AssertUnwindSafe(|| {
                ring.drain_closed(|events| {
                    drained.store(events.len(), Relaxed);
                    assert_eq!((ring.push(7), ring.place(7)), (Push::Contended, Push::Contended));
                    assert!(!panics);
                });
            }));
            assert_eq!((result.is_err(), drained.into_inner()), (panics, CAPACITY));
            assert!(!ring.recheck());
        }
    }

    #[test]
    fn a_drain_may_push_into_its_own_ring() {
        let ring = Ring::new();
        let _ = ring.push(1);
        ring.try_seal_and_drain(|_| assert_eq!(ring.push(2), Push::Accepted));
        assert_eq!(ring.try_seal_and_drain(|events| assert_eq!(events, [2])), 1);
    }

    #[test]
    fn no_event_of_many_pushers_is_drained_twice_and_none_is_invented() {
        const THREADS: u64 = 4;
        const PUSHES: u64 = 50_000;
        let ring = Ring::new();
        let drained: Vec<u64> = thread::scope(|scope| {
            let pushers: Vec<_> = (0..THREADS)
                .map(|pusher| {
                    let ring = &ring;
                    scope.spawn(move || {
                        let mut drained = Vec::new();
                        for i in 0..PUSHES {
                            if ring.push(1 + pusher * PUSHES + i) == Push::Full {
                                ring.drain(|events| drained.extend_from_slice(events));
                            }
                            if i % 1000 == 0 {
                                ring.try_seal_and_drain(|events| drained.extend_from_slice(events));
                            }
                        }
                        drained
                    })
                })
                .collect();
            pushers.into_iter().flat_map(|pusher| pusher.join().unwrap()).collect()
        });
        let mut unique = drained.clone();
        unique.sort_unstable();
        unique.dedup();
        assert_eq!(unique.len(), drained.len());
        assert!(drained.iter().all(|event| (1..=THREADS * PUSHES).contains(event)));
        assert!(drained.len() as u64 > PUSHES / 2, "{} came through", drained.len());
    }
}
