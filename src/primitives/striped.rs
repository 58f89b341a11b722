//! `Stripes`: ring buffers striped over the threads, so that recording an event contends with few
//! other threads or none.
//!
//! Threads are assigned to the rings round-robin, by their number. Threads that share a ring
//! occasionally lose an event; nothing else is affected.

pub use super::ring::{CAPACITY, Push, Ring};
pub use crate::sync::thread_number;

use crossbeam_utils::CachePadded;

/// The rings of one cache.
#[derive(Debug)]
pub struct Stripes {
    rings: Box<[CachePadded<Ring>]>,
    /// The number of rings less one; that number is a power of two.
    mask: usize,
}

impl Stripes {
    /// Makes empty rings: `count`, rounded up to a power of two.
    pub fn new(count: usize) -> Self {
        let count = count.next_power_of_two();
        let rings = (0..count).map(|_| CachePadded::new(Ring::new())).collect();
        Self { rings, mask: count - 1 }
    }

    /// Returns the ring of the calling thread.
    #[inline]
    pub fn current(&self) -> &Ring {
        self.stripe(thread_number())
    }

    /// Returns the ring of the thread with this number.
    #[inline]
    pub fn stripe(&self, number: usize) -> &Ring {
        &self.rings[number & self.mask]
    }

    /// Drains every ring that is not empty and not held by another thread; returns the number of
    /// events.
    ///
    /// Events that are pushed concurrently may stay in their rings.
    pub fn drain_all(&self, mut f: impl FnMut(&[u64])) -> usize {
        self.rings.iter().map(|ring| ring.try_seal_and_drain(&mut f)).sum()
    }

    /// Drains rings in order, from number `first` on, until the next ring could exceed `most`
    /// events if it were full. Returns the number of the ring to continue with.
    pub fn drain_some(&self, first: usize, most: usize, mut f: impl FnMut(&[u64])) -> usize {
        let mut left = most;
        for number in first..first + self.rings.len() {
            if left < CAPACITY {
                return number & self.mask;
            }
            left -= self.stripe(number).try_seal_and_drain(&mut f);
        }
        first
    }

    /// Rechecks whether there may be events, for a thread that is about to sleep; see
    /// [`Ring::recheck`].
    pub fn recheck(&self) -> bool {
        self.rings.iter().any(|ring| ring.recheck())
    }

    /// Returns the number of rings.
    pub fn count(&self) -> usize {
        self.rings.len()
    }

    /// Returns the size of all rings in bytes.
    pub fn bytes(&self) -> usize {
        size_of_val(&*self.rings)
    }
}

#[cfg(all(test, not(any(cortado_loom, cortado_shuttle))))]
mod tests {
    use super::*;
    use crate::sync::thread;

    #[test]
    fn the_number_of_rings_is_rounded_up_to_a_power_of_two() {
        assert_eq!(Stripes::new(0).count(), 1);
        assert_eq!(Stripes::new(5).count(), 8);
        assert_eq!(Stripes::new(8).count(), 8);
    }

    #[test]
    fn a_thread_finds_its_own_ring_again() {
        let stripes = Stripes::new(4);
        assert!(std::ptr::eq(stripes.current(), stripes.current()));
    }

    #[test]
    fn draining_all_takes_what_every_thread_has_pushed() {
        let stripes = Stripes::new(4);
        thread::scope(|scope| {
            for event in [10, 20, 30] {
                let stripes = &stripes;
                scope.spawn(move || {
                    assert_eq!(stripes.stripe(event as usize).push(event), Push::Accepted)
                });
            }
        });
        let mut events = Vec::new();
        assert_eq!(stripes.drain_all(|batch| events.extend_from_slice(batch)), 3);
        events.sort_unstable();
        assert_eq!(events, [10, 20, 30]);
        assert_eq!(stripes.drain_all(|_| ()), 0);
    }

    #[test]
    fn draining_some_stops_before_the_limit_and_continues_with_the_next_ring() {
        let stripes = Stripes::new(4);
        for event in [1, 2, 3, 5, 6] {
            assert_eq!(stripes.stripe(event).push(event as u64), Push::Accepted);
        }
        let mut batches = Vec::new();
        let mut drain = |first, most| stripes.drain_some(first, most, |b| batches.push(b.to_vec()));
        assert_eq!(drain(2, CAPACITY), 3);
        assert_eq!(drain(3, CAPACITY - 1), 3);
        assert_eq!(drain(3, 2 * CAPACITY), 3);
        assert_eq!(drain(2, CAPACITY), 2);
        assert_eq!(batches, [vec![2, 6], vec![3], vec![1, 5]]);
    }

    #[test]
    fn a_recheck_finds_an_event_in_any_ring() {
        let stripes = Stripes::new(4);
        assert!(!stripes.recheck());
        for number in 0..4 {
            assert_eq!(stripes.stripe(number).place(7), Push::Accepted);
            assert!(stripes.recheck());
            assert_eq!(stripes.drain_all(|_| ()), 1);
            assert!(!stripes.recheck());
        }
    }

    #[test]
    fn each_ring_starts_a_cache_line_of_its_own() {
        let stripes = Stripes::new(2);
        assert_eq!(std::ptr::from_ref(stripes.stripe(1)).addr() % 64, 0);
        assert!(stripes.bytes() >= 2 * 8 * (CAPACITY + 1));
    }
}
