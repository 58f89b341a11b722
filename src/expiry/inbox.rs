//! `ExpiryInbox`: deadlines on their way from those who set them to the thread that keeps the timing wheel, and when the next
//! one is to be expected.
//!
//! # Protocol
//!
//! Whoever sets a deadline puts the hash of its key into a ring, or on a stack where no ring takes it, and
//! *then* lowers `next`. The keeper of the timing wheel, one thread at a time, first raises `next` to never,
//! then collects the hashes, and in the end lowers `next` to what it knows. So a deadline that the collector
//! has missed keeps `next` low. No hash is lost; one may come twice.
//!
//! The thread asks once more when it has prepared to sleep, by read-modify-writes (see [`eventcount`](crate::primitives::eventcount)):
//! `next` first, for whoever comes to a ring after this look has seen all of it and tells of its deadline
//! anew; then the rings; then the stack, where a ring's hashes are before it opens again.

use crate::{
    primitives::stack::{Node, Stack},
    primitives::striped::{Push, Stripes, thread_number},
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
};

/// Deadlines on their way.
#[derive(Debug)]
pub struct ExpiryInbox {
    /// Hashes of entries whose deadline is new.
    rings: Stripes,
    /// The same, where no ring took them.
    stack: Stack<Vec<u64>>,
    /// When the keeper should come, or sooner.
    next: AtomicU64,
    /// Whether there ever was a deadline.
    is_used: AtomicBool,
}

/// When the next entry expires, as the thread's recheck finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NextExpiry {
    /// Hashes wait.
    Now,
    /// At this time.
    At(u64),
    /// None is known.
    Never,
}

impl ExpiryInbox {
    /// Makes one with so many rings.
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
        self.is_used.load(Ordering::Relaxed) // Relaxed: set once; whoever is told of a deadline sees it.
    }

    /// Returns when the keeper is to come, as far as can be told at a glance.
    pub fn next(&self) -> u64 {
        self.next.load(Ordering::Relaxed) // Relaxed: a glance.
    }

    /// Notes that an entry of this hash, which can be found, has a new deadline; returns whether the thread
    /// has to be woken for it.
    #[must_use = "the thread may sleep past the deadline"]
    pub fn post(&self, hash: u64, at: u64) -> bool {
        // Relaxed, twice: written once, and before `next`.
        if !self.is_used.load(Ordering::Relaxed) {
            self.is_used.store(true, Ordering::Relaxed);
        }
        self.place(hash);
        // Relaxed: a glance, so that the line is seldom written. If the hash came too late for the thread's
        // recheck, this thread has seen that, and what `next` was then.
        if at >= self.next.load(Ordering::Relaxed) {
            return false;
        }
        // AcqRel: Release pairs with the Acquire of the swap in `begin`. Either that comes later and
        // finds the hash, or this stays. Acquire pairs with the Release in `recheck`.
        let order = ordering!(AcqRel, mutant("inbox_blind_post") => Release);
        self.next.fetch_min(at, order);
        true
    }

    fn place(&self, hash: u64) {
        if hash == 0 {
            // In a ring it would look like nothing.
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
                        // Its own slot may have been taken.
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

    /// Begins to collect, for the keeper of the timing wheel.
    pub fn begin(&self) {
        if mutant!("inbox_begins_late") {
            return;
        }
        // Acquire: pairs with the Release in `post`: what lowered it before is in a ring or on the stack.
        self.next.swap(NEVER, Ordering::Acquire);
    }

    /// Calls `f` with all hashes that have come, once or more often each.
    pub fn collect(&self, mut f: impl FnMut(&[u64])) {
        for node in self.stack.take() {
            f(&node);
        }
        self.rings.drain_all(&mut f);
        if mutant!("inbox_begins_late") {
            self.next.swap(NEVER, Ordering::Acquire);
        }
    }

    /// Puts hashes back that were collected and not seen to; the thread's recheck finds them.
    pub fn put_back(&self, hashes: Vec<u64>) {
        self.stack.push(Node::new(hashes));
    }

    /// Ends what `begin` began: `next` is the first deadline in the timing wheel. Then the thread is to be woken
    /// if it sleeps until it is notified: it may have looked in between.
    pub fn end(&self, next: u64) {
        // AcqRel: Acquire pairs with the Release in `recheck`; Release as nothing else may come after it.
        self.next.fetch_min(next, Ordering::AcqRel);
    }

    /// Rechecks for work, for the thread that is about to sleep.
    pub fn recheck(&self) -> NextExpiry {
        // AcqRel, here and in the rings: Release pairs with the Acquire of whoever brings a deadline later;
        // Acquire so that this look goes on from what was brought before.
        let next = if mutant!("inbox_loads_next") {
            self.next.load(Ordering::Relaxed)
        } else {
            self.next.fetch_min(NEVER, Ordering::AcqRel)
        };
        // Relaxed: see `is_used`. Whoever is the first lowers `next`, and has not before this look.
        if self.is_used.load(Ordering::Relaxed) && (self.rings.recheck() || self.stack.recheck()) {
            return NextExpiry::Now;
        }
        if next == NEVER { NextExpiry::Never } else { NextExpiry::At(next) }
    }

    /// Returns the bytes of the rings.
    pub fn bytes(&self) -> usize {
        self.rings.bytes()
    }
}

/// The time that does not come: the deadline of what does not expire.
pub const NEVER: u64 = u64::MAX;
/// Rings that a writer tries for its deadline while others drain theirs.
const RINGS_TRIED: usize = 4;

#[cfg(all(test, not(any(cortado_loom, cortado_shuttle))))]
mod tests {
    use super::*;
    use crate::{primitives::striped::CAPACITY, sync::thread};

    fn collected(due: &ExpiryInbox) -> Vec<u64> {
        let mut hashes = Vec::new();
        due.begin();
        due.collect(|some| hashes.extend_from_slice(some));
        hashes.sort_unstable();
        hashes
    }

    #[test]
    fn the_thread_is_to_be_woken_for_an_earlier_deadline_only() {
        let due = ExpiryInbox::new(1);
        assert_eq!((due.is_used(), due.recheck()), (false, NextExpiry::Never));
        assert!(due.post(1, 50));
        assert!(!due.post(2, 60) && due.post(3, 40));
        assert_eq!((due.is_used(), due.next(), due.recheck()), (true, 40, NextExpiry::Now));
        assert_eq!(collected(&due), [1, 2, 3]);
        assert_eq!(due.recheck(), NextExpiry::Never);
        due.end(60);
        assert_eq!(due.recheck(), NextExpiry::At(60));
    }

    #[test]
    fn hash_of_zero_comes_as_it_is() {
        let due = ExpiryInbox::new(1);
        assert!(due.post(0, 50));
        assert_eq!(due.recheck(), NextExpiry::Now);
        assert_eq!(collected(&due), [0]);
    }

    #[test]
    fn each_hash_comes_once_to_a_single_thread() {
        let due = ExpiryInbox::new(2);
        const NOTES: u64 = 3 * CAPACITY as u64 + 5;
        (1..=NOTES).for_each(|hash| _ = due.post(hash, hash));
        assert!(collected(&due).into_iter().eq(1..=NOTES));
        assert_eq!(collected(&due), []);
        due.put_back(vec![5, 6]);
        assert_eq!(due.recheck(), NextExpiry::Now);
        assert_eq!(collected(&due), [5, 6]);
    }

    #[test]
    fn hash_goes_into_the_next_ring_while_its_own_is_drained() {
        let due = ExpiryInbox::new(8);
        let ring = |i| due.rings.stripe(thread_number() + i);
        for held in 0..RINGS_TRIED {
            // Filled, and not drained yet.
            (1..=CAPACITY as u64).for_each(|hash| _ = ring(held).place(hash));
            assert!(due.post(1000, 50 - held as u64));
            let is_in_ring = held + 1 < RINGS_TRIED;
            assert_eq!(ring(held + 1).recheck(), is_in_ring);
            assert_eq!(ring(held + 1).try_seal_and_drain(|_| ()), usize::from(is_in_ring));
            assert_eq!(due.stack.recheck(), !is_in_ring);
        }
        assert_eq!(due.bytes(), Stripes::new(8).bytes());
    }

    #[test]
    fn no_hash_of_many_threads_is_lost() {
        const THREADS: u64 = 4;
        const NOTES: u64 = 20_000;
        let due = ExpiryInbox::new(2);
        let mut hashes = thread::scope(|scope| {
            let due = &due;
            let writers: Vec<_> = (0..THREADS)
                .map(|writer| {
                    scope.spawn(move || {
                        (1..=NOTES).for_each(|i| _ = due.post(writer * NOTES + i, i));
                    })
                })
                .collect();
            let mut hashes = Vec::new();
            while writers.iter().any(|writer| !writer.is_finished()) {
                hashes.extend(collected(due));
                thread::yield_now();
            }
            hashes
        });
        hashes.extend(collected(&due));
        hashes.sort_unstable();
        hashes.dedup();
        assert!(hashes.into_iter().eq(1..=THREADS * NOTES));
    }
}
