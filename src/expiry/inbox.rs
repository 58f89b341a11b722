//! `ExpiryInbox`: passes new deadlines from writers to the thread that owns the timing wheel, and
//! holds the time of the next deadline.
//!
//! # Protocol
//!
//! A writer that sets a deadline puts the hash of the key into a ring, or on a stack if no ring
//! accepts it, and *then* lowers `next`. The owner of the timing wheel, one thread at a time, first
//! raises `next` to [`NEVER`], then collects the hashes, and at last lowers `next` to the wheel's
//! first deadline. A deadline that the collector has missed therefore keeps `next` low. No hash is
//! lost; a hash may be collected twice.
//!
//! The maintenance thread rechecks the inbox after it has prepared to sleep, by read-modify-writes
//! (see [`eventcount`](crate::primitives::eventcount)). It rechecks `next` first, then the rings,
//! then the stack:
//!
//! * A writer that reaches a ring after the ring's recheck sees the value of `next` that was read
//!   before it, and lowers `next` if its own deadline is earlier.
//! * The hashes of a full ring are on the stack before the ring opens again.

use crate::{
    primitives::stack::{Node, Stack},
    primitives::striped::{Push, Stripes, thread_number},
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
};

/// The deadline of an entry that does not expire: a time that is never reached.
pub const NEVER: u64 = u64::MAX;
/// Rings that a writer tries before it falls back to the stack: its own and three neighbours. A
/// ring refuses hashes only while another thread drains it, so that few suffice.
const RINGS_TRIED: usize = 4;

/// New deadlines that are not in the timing wheel yet.
#[derive(Debug)]
pub struct ExpiryInbox {
    /// Hashes of entries whose deadline is new.
    rings: Stripes,
    /// Hashes that no ring accepted.
    stack: Stack<Vec<u64>>,
    /// When the wheel's owner must collect at the latest, or an earlier time.
    next: AtomicU64,
    /// Whether there ever was a deadline.
    is_used: AtomicBool,
}

/// When the next entry expires, as found by the maintenance thread's recheck.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NextExpiry {
    /// Hashes are waiting to be collected.
    Now,
    /// At this time.
    At(u64),
    /// No deadline is known.
    Never,
}

impl ExpiryInbox {
    /// Makes an empty inbox with `stripes` rings.
    pub fn new(stripes: usize) -> Self {
        Self {
            rings: Stripes::new(stripes),
            stack: Stack::new(),
            next: AtomicU64::new(NEVER),
            is_used: AtomicBool::new(false),
        }
    }

    /// Returns whether there ever was a deadline.
    #[inline]
    pub fn is_used(&self) -> bool {
        self.is_used.load(Ordering::Relaxed) // Relaxed: set once, before `next` is lowered.
    }

    /// Returns when the wheel's owner must collect; the value may be out of date.
    pub fn next(&self) -> u64 {
        self.next.load(Ordering::Relaxed) // Relaxed: a hint.
    }

    /// Posts a new deadline of an entry with this hash; returns whether the maintenance thread must
    /// be woken for it.
    ///
    /// The entry must already be reachable by its hash.
    #[must_use = "the thread may sleep past the deadline"]
    pub fn post(&self, hash: u64, at: u64) -> bool {
        // Relaxed, twice: written once, and before `next`.
        if !self.is_used.load(Ordering::Relaxed) {
            self.is_used.store(true, Ordering::Relaxed);
        }
        self.place(hash);
        // Relaxed: avoids most writes to the line. If the hash was placed after the maintenance
        // thread's recheck, this thread has synchronized with that recheck and sees the `next` of
        // then.
        if at >= self.next.load(Ordering::Relaxed) {
            return false;
        }
        // AcqRel: Release pairs with the Acquire of the swap in `begin`. Either the swap is later
        // and its thread finds the hash, or this minimum survives it. Acquire pairs with the
        // Release in `recheck`.
        let order = ordering!(AcqRel, mutant("inbox_blind_post") => Release);
        self.next.fetch_min(at, order);
        true
    }

    fn place(&self, hash: u64) {
        if hash == 0 {
            // In a ring, 0 marks an empty slot.
            return self.stack.push(Node::new(vec![hash]));
        }
        let number = thread_number();
        let rings = (0..RINGS_TRIED).map(|i| self.rings.stripe(number + i));
        for ring in rings {
            let placed =
                if mutant!("inbox_lossy_ring") { ring.push(hash) } else { ring.place(hash) };
            match placed {
                Push::Accepted => return,
                Push::Full => {
                    return ring.drain_closed(|hashes| {
                        let mut hashes = hashes.to_vec();
                        // A late push of an earlier lap may hold the slot of this hash.
                        if !hashes.contains(&hash) {
                            hashes.push(hash);
                        }
                        self.stack.push(Node::new(hashes));
                    });
                }
                Push::Contended => {}
            }
        }
        self.stack.push(Node::new(vec![hash]));
    }

    /// Begins a collection. Called by the owner of the timing wheel.
    pub fn begin(&self) {
        if mutant!("inbox_begins_late") {
            return;
        }
        // Acquire: pairs with the Release in `post`; each deadline that lowered `next` before this
        // has its hash in a ring or on the stack.
        self.next.swap(NEVER, Ordering::Acquire);
    }

    /// Calls `f` with all posted hashes, each at least once.
    pub fn collect(&self, mut f: impl FnMut(&[u64])) {
        for node in self.stack.take() {
            f(&node);
        }
        self.rings.drain_all(&mut f);
        if mutant!("inbox_begins_late") {
            self.next.swap(NEVER, Ordering::Acquire);
        }
    }

    /// Puts back hashes that were collected but not processed; the recheck finds them.
    pub fn put_back(&self, hashes: Vec<u64>) {
        self.stack.push(Node::new(hashes));
    }

    /// Ends the collection that [`begin`](Self::begin) began; `next` is the first deadline in the
    /// timing wheel.
    ///
    /// The caller must then notify the maintenance thread if that waits without a timeout: it may
    /// have rechecked between `begin` and `end`.
    pub fn end(&self, next: u64) {
        // AcqRel: Acquire pairs with the Release in `recheck`. Release: no later write of `next`
        // may follow before another thread acquires from it.
        self.next.fetch_min(next, Ordering::AcqRel);
    }

    /// Rechecks for work. Called by the maintenance thread after it has prepared to sleep.
    pub fn recheck(&self) -> NextExpiry {
        // AcqRel, here and in the rings: Release pairs with the Acquire of a writer that posts a
        // deadline later; Acquire with the Release of one that has posted before.
        let next = if mutant!("inbox_loads_next") {
            self.next.load(Ordering::Relaxed)
        } else {
            self.next.fetch_min(NEVER, Ordering::AcqRel)
        };
        // Relaxed: see `is_used`. If this misses the first deadline ever, its writer has not
        // lowered `next` before the read above, and does so later.
        if self.is_used.load(Ordering::Relaxed) && (self.rings.recheck() || self.stack.recheck()) {
            return NextExpiry::Now;
        }
        if next == NEVER { NextExpiry::Never } else { NextExpiry::At(next) }
    }

    /// Returns the size of the rings in bytes.
    pub fn bytes(&self) -> usize {
        self.rings.bytes()
    }
}

#[cfg(all(test, not(any(cortado_loom, cortado_shuttle))))]
mod tests {
    use super::*;
    use crate::{primitives::striped::CAPACITY, sync::thread};

    fn collected(inbox: &ExpiryInbox) -> Vec<u64> {
        let mut hashes = Vec::new();
        inbox.begin();
        inbox.collect(|some| hashes.extend_from_slice(some));
        hashes.sort_unstable();
        hashes
    }

    #[test]
    fn only_an_earlier_deadline_wakes_the_thread() {
        let inbox = ExpiryInbox::new(1);
        assert_eq!((inbox.is_used(), inbox.recheck()), (false, NextExpiry::Never));
        assert!(inbox.post(1, 50));
        assert!(!inbox.post(2, 60) && inbox.post(3, 40));
        assert_eq!((inbox.is_used(), inbox.next(), inbox.recheck()), (true, 40, NextExpiry::Now));
        assert_eq!(collected(&inbox), [1, 2, 3]);
        assert_eq!(inbox.recheck(), NextExpiry::Never);
        inbox.end(60);
        assert_eq!(inbox.recheck(), NextExpiry::At(60));
    }

    #[test]
    fn zero_hash_is_collected_unchanged() {
        let inbox = ExpiryInbox::new(1);
        assert!(inbox.post(0, 50));
        assert_eq!(inbox.recheck(), NextExpiry::Now);
        assert_eq!(collected(&inbox), [0]);
    }

    #[test]
    fn each_hash_is_collected_once_by_a_single_thread() {
        let inbox = ExpiryInbox::new(2);
        const HASHES: u64 = 3 * CAPACITY as u64 + 5;
        (1..=HASHES).for_each(|hash| _ = inbox.post(hash, hash));
        assert!(collected(&inbox).into_iter().eq(1..=HASHES));
        assert_eq!(collected(&inbox), []);
        inbox.put_back(vec![5, 6]);
        assert_eq!(inbox.recheck(), NextExpiry::Now);
        assert_eq!(collected(&inbox), [5, 6]);
    }

    #[test]
    fn hash_goes_into_the_next_ring_while_its_own_is_drained() {
        let inbox = ExpiryInbox::new(8);
        let ring = |i| inbox.rings.stripe(thread_number() + i);
        for held in 0..RINGS_TRIED {
            // Full and not drained yet.
            (1..=CAPACITY as u64).for_each(|hash| _ = ring(held).place(hash));
            assert!(inbox.post(1000, 50 - held as u64));
            let is_in_ring = held + 1 < RINGS_TRIED;
            assert_eq!(ring(held + 1).recheck(), is_in_ring);
            assert_eq!(ring(held + 1).try_seal_and_drain(|_| ()), usize::from(is_in_ring));
            assert_eq!(inbox.stack.recheck(), !is_in_ring);
        }
        assert_eq!(inbox.bytes(), Stripes::new(8).bytes());
    }

    #[test]
    fn no_hash_of_many_threads_is_lost() {
        const THREADS: u64 = 4;
        const HASHES: u64 = 20_000;
        let inbox = ExpiryInbox::new(2);
        let mut hashes = thread::scope(|scope| {
            let inbox = &inbox;
            let writers: Vec<_> = (0..THREADS)
                .map(|writer| {
                    scope.spawn(move || {
                        (1..=HASHES).for_each(|i| _ = inbox.post(writer * HASHES + i, i));
                    })
                })
                .collect();
            let mut hashes = Vec::new();
            while writers.iter().any(|writer| !writer.is_finished()) {
                hashes.extend(collected(inbox));
                thread::yield_now();
            }
            hashes
        });
        hashes.extend(collected(&inbox));
        hashes.sort_unstable();
        hashes.dedup();
        assert!(hashes.into_iter().eq(1..=THREADS * HASHES));
    }
}
