//! `Arena`: values in numbered, reusable slots; and `Waiters`: the followers of a flight.

use std::task::Waker;

/// No slot.
pub const NONE: usize = usize::MAX;
/// Slots whose memory an empty arena keeps, so that a few values at a time do not allocate each
/// time.
const SPARE_SLOTS: usize = 4;

/// Values, each addressed by the number of its slot.
#[derive(Debug)]
pub struct Arena<T> {
    slots: Vec<Slot<T>>,
    /// The head of the free list, or [`NONE`].
    free: usize,
    len: usize,
}

#[derive(Debug)]
enum Slot<T> {
    Taken(T),
    /// The next free slot, or [`NONE`].
    Free(usize),
}

impl<T> Arena<T> {
    /// Makes an empty arena.
    pub const fn new() -> Self {
        Self { slots: Vec::new(), free: NONE, len: 0 }
    }

    /// Returns the number of values.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Stores a value; returns its slot.
    pub fn insert(&mut self, value: T) -> usize {
        self.len += 1;
        let slot = self.free;
        if slot == NONE {
            self.slots.push(Slot::Taken(value));
            return self.slots.len() - 1;
        }
        let Slot::Free(next) = std::mem::replace(&mut self.slots[slot], Slot::Taken(value)) else {
            unreachable!("a slot of the free list is free");
        };
        self.free = next;
        slot
    }

    /// Removes and returns the value of a slot.
    ///
    /// # Panics
    ///
    /// Panics if the slot is free, as [`get_mut`](Self::get_mut) does.
    pub fn remove(&mut self, slot: usize) -> T {
        let free = Slot::Free(self.free);
        let Slot::Taken(value) = std::mem::replace(&mut self.slots[slot], free) else {
            panic!("slot {slot} is free");
        };
        self.free = slot;
        self.len -= 1;
        if self.len == 0 && self.slots.len() > SPARE_SLOTS {
            // Frees the memory of a burst of loads.
            self.slots.clear();
            self.slots.shrink_to(SPARE_SLOTS);
            self.free = NONE;
        }
        value
    }

    /// Returns the value of a slot.
    ///
    /// # Panics
    ///
    /// Panics if the slot is free.
    pub fn get_mut(&mut self, slot: usize) -> &mut T {
        #[cfg(test)]
        steps::count();
        match &mut self.slots[slot] {
            Slot::Taken(value) => value,
            Slot::Free(_) => panic!("slot {slot} is free"),
        }
    }

    /// Iterates over the slots that are taken.
    pub fn slots(&self) -> impl Iterator<Item = usize> {
        let is_taken =
            |(slot, content): (usize, &Slot<T>)| matches!(content, Slot::Taken(_)).then_some(slot);
        self.slots.iter().enumerate().filter_map(is_taken)
    }

    /// Iterates over the values.
    pub fn values_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.slots.iter_mut().filter_map(|slot| match slot {
            Slot::Taken(value) => Some(value),
            Slot::Free(_) => None,
        })
    }
}

impl<T> Default for Arena<T> {
    fn default() -> Self {
        Self::new()
    }
}

/// The followers of a flight, and a queue of the wakers of those that wait, in order of arrival.
///
/// A follower has its slot until it leaves, whether it waits or not, so every operation takes
/// constant time.
#[derive(Debug)]
pub struct Waiters {
    slots: Arena<Waiter>,
    /// The ends of the queue of waiting followers.
    first: usize,
    last: usize,
}

#[derive(Debug)]
struct Waiter {
    /// The waker; `None` if the follower is not in the queue.
    waker: Option<Waker>,
    previous: usize,
    next: usize,
}

impl Waiters {
    /// Makes a `Waiters` without followers.
    pub const fn new() -> Self {
        Self { slots: Arena::new(), first: NONE, last: NONE }
    }

    /// Returns the number of followers, waiting or not.
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Adds a follower that is not in the queue yet; returns its slot.
    pub fn join(&mut self) -> usize {
        self.slots.insert(Waiter { waker: None, previous: NONE, next: NONE })
    }

    /// Returns whether the follower is in the queue with a waker equivalent to this one.
    pub fn is_waiting(&mut self, slot: usize, waker: &Waker) -> bool {
        self.slots.get_mut(slot).waker.as_ref().is_some_and(|known| known.will_wake(waker))
    }

    /// Sets the waker of a follower and appends the follower to the queue unless it is in it.
    /// Returns the old waker, which must be dropped when no lock is held.
    pub fn wait(&mut self, slot: usize, waker: Waker) -> Option<Waker> {
        let last = self.last;
        let waiter = self.slots.get_mut(slot);
        let old = waiter.waker.replace(waker);
        if old.is_none() {
            (waiter.previous, waiter.next) = (last, NONE);
            self.link(last, NONE, slot, slot);
        }
        old
    }

    /// Removes the first follower from the queue and returns its waker. It remains a follower.
    pub fn next(&mut self) -> Option<Waker> {
        (self.first != NONE).then(|| self.stop(self.first)).flatten()
    }

    /// Removes a follower; returns its waker.
    pub fn leave(&mut self, slot: usize) -> Option<Waker> {
        let waker = self.stop(slot);
        self.slots.remove(slot);
        waker
    }

    fn stop(&mut self, slot: usize) -> Option<Waker> {
        let waiter = self.slots.get_mut(slot);
        let waker = waiter.waker.take()?;
        let (previous, next) = (waiter.previous, waiter.next);
        self.link(previous, next, next, previous);
        Some(waker)
    }

    /// Links `previous` to `after` and `next` to `before`; sets the ends of the queue for [`NONE`].
    fn link(&mut self, previous: usize, next: usize, after: usize, before: usize) {
        match previous {
            NONE => self.first = after,
            _ => self.slots.get_mut(previous).next = after,
        }
        match next {
            NONE => self.last = before,
            _ => self.slots.get_mut(next).previous = before,
        }
    }
}

/// Removes the wakers in the order of the queue.
impl Iterator for Waiters {
    type Item = Waker;

    fn next(&mut self) -> Option<Waker> {
        Self::next(self)
    }
}

impl Default for Waiters {
    fn default() -> Self {
        Self::new()
    }
}

/// Counts this thread's slot accesses, for tests of time complexity.
#[cfg(test)]
pub mod steps {
    use std::cell::Cell;

    use crate::sync::thread_local;

    thread_local! {
        static STEPS: Cell<usize> = const { Cell::new(0) };
    }

    pub fn count() {
        let _ = STEPS.try_with(|steps| steps.set(steps.get() + 1));
    }

    /// Returns how many steps `f` takes, and its result.
    pub fn of<R>(f: impl FnOnce() -> R) -> (usize, R) {
        let before = STEPS.with(Cell::get);
        let result = f();
        (STEPS.with(Cell::get) - before, result)
    }
}

#[cfg(all(test, not(any(cortado_loom, cortado_shuttle))))]
mod tests {
    use std::{
        sync::{
            Arc,
            atomic::{AtomicUsize, Ordering::SeqCst},
        },
        task::Wake,
    };

    use super::*;

    #[test]
    fn freed_slots_are_reused_and_an_empty_arena_frees_its_memory() {
        let mut arena = Arena::new();
        let slots: Vec<_> = (0..100).map(|value| arena.insert(value)).collect();
        assert_eq!((arena.remove(slots[3]), arena.remove(slots[7]), arena.len()), (3, 7, 98));
        assert_eq!((arena.insert(70), arena.insert(30), arena.len()), (slots[7], slots[3], 100));
        assert_eq!(*arena.get_mut(slots[7]), 70);
        assert_eq!(arena.slots().count(), arena.values_mut().count());
        for slot in slots {
            arena.remove(slot);
        }
        assert!(arena.len() == 0 && arena.slots.capacity() <= SPARE_SLOTS);
        let slot = arena.insert(1);
        assert_eq!(arena.remove(slot), 1);
    }

    /// Checks the order in which it is woken.
    struct Note(usize, Arc<AtomicUsize>);

    impl Wake for Note {
        fn wake(self: Arc<Self>) {
            assert_eq!(self.1.fetch_add(1, SeqCst), self.0, "out of order");
        }
    }

    #[test]
    fn waiters_are_woken_in_order_of_arrival() {
        let order = Arc::new(AtomicUsize::new(0));
        let note = |number| Waker::from(Arc::new(Note(number, Arc::clone(&order))));
        let mut waiters = Waiters::new();
        let slots: Vec<_> = (0..6).map(|_| waiters.join()).collect();
        // The first waits again at the end; the third leaves; the last does not wait.
        for (slot, number) in [(0, 9), (1, 0), (2, 9), (3, 1), (4, 2)] {
            assert!(waiters.wait(slots[slot], note(number)).is_none());
        }
        assert!(waiters.next().is_some(), "the first");
        assert!(waiters.wait(slots[0], note(3)).is_none());
        let fourth = note(1);
        assert!(waiters.wait(slots[3], fourth.clone()).is_some());
        assert!(waiters.is_waiting(slots[3], &fourth));
        assert!(!waiters.is_waiting(slots[3], &note(1)));
        assert!(waiters.leave(slots[2]).is_some() && waiters.leave(slots[5]).is_none());
        assert_eq!(waiters.len(), 4);
        waiters.by_ref().for_each(Waker::wake);
        assert_eq!((order.load(SeqCst), waiters.len()), (4, 4));
    }
}
