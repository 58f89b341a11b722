//! `Ring`: a small, lossy, multi-producer ring buffer of events.
//!
//! # Protocol
//!
//! `head` counts the pushes of a *lap*. A push claims a position by adding one; if the position is
//! below [`CAPACITY`], the slot there is its own, and it stores its event. The push that claims the
//! last position gets [`Push::Full`] and is the *holder* of the ring: no other thread drains the
//! ring until the holder has reset `head`. While the ring is held, `head` is at or past the end and
//! pushes are rejected ([`Push::Contended`]). [`Ring::try_seal_and_drain`] becomes the holder of a
//! ring that is not full by swapping `head` for the end.
//!
//! The holder takes each event out of its slot and leaves the slot empty. A producer that was
//! interrupted between claiming a position and storing its event stores late: the event is then
//! drained in a later lap, or it and another event overwrite each other and one is lost. No event
//! is drained twice, and none is invented.

use crate::sync::IS_MODEL;
use crate::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed};
use crate::sync::atomic::{AtomicU64, AtomicUsize};

/// Events that a ring holds. Two in the models, so that few steps fill a ring.
pub const CAPACITY: usize = if IS_MODEL { 2 } else { 32 };
/// The content of an empty slot.
const EMPTY: u64 = 0;

/// A ring of up to [`CAPACITY`] events.
#[derive(Debug)]
pub struct Ring {
    /// Positions claimed in this lap. At or past the end, a thread holds the ring.
    head: AtomicUsize,
    slots: [AtomicU64; CAPACITY],
}

/// The result of a push.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "on `Full` the caller must drain the ring"]
pub enum Push {
    /// The event is in the ring.
    Accepted,
    /// The event was dropped: a thread holds the ring.
    Contended,
    /// The event is in the ring, which is now full; the caller must call [`Ring::drain`].
    Full,
}

impl Ring {
    /// Makes an empty ring.
    pub fn new() -> Self {
        Self { head: AtomicUsize::new(0), slots: std::array::from_fn(|_| AtomicU64::new(EMPTY)) }
    }

    /// Pushes `event`, or drops it if a thread holds the ring.
    ///
    /// The event 0 marks an empty slot, so it is pushed as 1.
    #[inline]
    pub fn push(&self, event: u64) -> Push {
        // Relaxed: a check that saves the addition. It also keeps `head` from growing while a
        // holder is preempted: it passes the end by at most one per thread, so it never wraps.
        if self.head.load(Relaxed) >= CAPACITY {
            return Push::Contended;
        }
        // Acquire: pairs with the Release in `open`; seeing the new lap means seeing its slots
        // cleared, so that the holder of this lap finds no event of the last one.
        let position = self.head.fetch_add(1, Acquire);
        let Some(slot) = self.slots.get(position) else {
            return if mutant!("ring_two_drainers") { Push::Full } else { Push::Contended };
        };
        // Relaxed: an event is a plain number that publishes no other memory. A holder that does
        // not see it yet leaves it to the next lap.
        slot.store(if event == EMPTY { 1 } else { event }, Relaxed);
        if position == CAPACITY - 1 { Push::Full } else { Push::Accepted }
    }

    /// Pushes `event` so that the thread that drains this lap finds it. `event` must not be 0.
    ///
    /// `Contended` means that the event may be missing because this thread was too late: the caller
    /// must pass it on in another way, and it may be seen twice. The event may also be missing if
    /// the result is `Full`.
    pub fn place(&self, event: u64) -> Push {
        debug_assert_ne!(event, EMPTY, "0 marks an empty slot");
        // Relaxed: a check, as in `push`.
        if self.head.load(Relaxed) >= CAPACITY {
            return Push::Contended;
        }
        let position = self.head.fetch_add(1, Acquire); // Acquire: as in `push`.
        let Some(slot) = self.slots.get(position) else { return Push::Contended };
        // Relaxed, twice: an event publishes no other memory. An exchange, so that it overwrites no
        // other event even if it is a lap late; the holder clears only what it has seen, so it does
        // not lose this one either.
        let is_in = slot.compare_exchange(EMPTY, event, Relaxed, Relaxed).is_ok();
        if position == CAPACITY - 1 {
            return Push::Full;
        }
        if mutant!("inbox_believes_its_slot") {
            return if is_in { Push::Accepted } else { Push::Contended };
        }
        // AcqRel: Release pairs with the Acquire of the next holder, in `place`, `push` or
        // `try_seal_and_drain`, which then finds the event; an earlier holder is visible in `head`.
        // Acquire pairs with the Release in `recheck`.
        let head = self.head.fetch_add(0, AcqRel);
        if is_in && position < head && head < CAPACITY { Push::Accepted } else { Push::Contended }
    }

    /// Rechecks whether there may be events, for a thread that is about to sleep.
    ///
    /// It misses only events whose producers see the recheck (see
    /// [`eventcount`](crate::primitives::eventcount)). The events must be pushed with
    /// [`place`](Self::place).
    pub fn recheck(&self) -> bool {
        if mutant!("inbox_loads_rings") {
            return self.head.load(Relaxed) > 0;
        }
        // AcqRel: Release pairs with the Acquire in `place`; Acquire with the Release of the last
        // holder.
        self.head.fetch_add(0, AcqRel) > 0
    }

    /// Like [`drain`](Self::drain), but opens the ring after `f`: a thread that finds the ring open
    /// sees what `f` did.
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

    /// Empties the ring, passes its events to `f` and returns how many there were.
    ///
    /// The thread that got [`Push::Full`] must call this once. The ring is open again before `f` is
    /// called, so `f` may push. If `f` panics, its events are lost and the ring stays usable.
    pub fn drain(&self, f: impl FnOnce(&[u64])) -> usize {
        let mut events = [EMPTY; CAPACITY];
        let count = self.take(&mut events);
        if count > 0 {
            f(&events[..count]);
        }
        count
    }

    /// Drains the ring if it is not empty and no other thread holds it; returns the number of
    /// events.
    pub fn try_seal_and_drain(&self, f: impl FnOnce(&[u64])) -> usize {
        // Relaxed: a check, so that an empty ring is not written to.
        let head = self.head.load(Relaxed);
        if head == 0 || head >= CAPACITY {
            return 0;
        }
        if mutant!("ring_seal_by_store") {
            self.head.store(CAPACITY, Relaxed);
            return self.drain(f);
        }
        // Acquire: pairs with the Release in `open`, as in `push`. If another thread holds the
        // ring, `head` was at or past the end and still is.
        if self.head.swap(CAPACITY, Acquire) >= CAPACITY {
            return 0;
        }
        self.drain(f)
    }

    /// Moves the events to the front of `events` and opens the ring. Only the holder calls this.
    fn take(&self, events: &mut [u64; CAPACITY]) -> usize {
        let count = self.clear(events);
        self.open();
        count
    }

    /// Moves the events to the front of `events`. Only the holder calls this.
    fn clear(&self, events: &mut [u64; CAPACITY]) -> usize {
        let mut count = 0;
        for slot in &self.slots {
            // Relaxed: an event publishes no other memory.
            let event = slot.load(Relaxed);
            if event == EMPTY {
                continue;
            }
            if !mutant!("ring_slots_not_cleared") {
                // Relaxed: the Release in `open` publishes it to the next holder. A late store of
                // `push` between the load and this store is lost; an exchange would save it, at ten
                // times the cost.
                slot.store(EMPTY, Relaxed);
            }
            events[count] = event;
            count += 1;
        }
        count
    }

    /// Begins the next lap. Only the holder calls this.
    fn open(&self) {
        // Release: pairs with the Acquire in `push`, `place`, `recheck` and `try_seal_and_drain`;
        // seeing the new lap means seeing its slots cleared. Pushes in between continue the release
        // sequence, because each is a read-modify-write. This is a swap because loom does not order
        // a plain store against earlier additions; at once per lap, its cost is negligible.
        let order = ordering!(Release, mutant("ring_relaxed_reset") => Relaxed);
        self.head.swap(0, order);
    }
}

impl Default for Ring {
    fn default() -> Self {
        Self::new()
    }
}

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
    fn a_ring_stays_usable_after_its_drain_panicked() {
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
    fn placed_events_are_accepted_until_the_ring_is_full_and_then_rejected() {
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
    fn a_placed_event_does_not_overwrite_a_late_one() {
        let ring = Ring::new();
        // What a late push of the last lap does.
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
    fn a_closed_drain_rejects_pushes_and_opens_the_ring_even_if_it_panics() {
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
