//! `Window`: a queue of new entries, which belongs to whoever maintains the cache.
//!
//! It holds hashes, never entries: what is found under a hash when its turn comes is what counts. Beside each is the spot
//! where the entry was, so that it is found without a search where it still is there.

use std::collections::VecDeque;

use crate::table::Spot;

/// A first-in first-out queue of new entries.
#[derive(Debug, Default)]
pub struct Window {
    queue: VecDeque<WindowEntry>,
}

/// A new entry, as the window knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WindowEntry {
    /// The hash of its key.
    pub hash: u64,
    /// Where it was when it came, if that is known.
    pub spot: Spot,
    /// Its cost when it came, kept small.
    cost: u32,
}

impl WindowEntry {
    /// Makes one of that hash and cost.
    #[inline]
    pub fn new(hash: u64, cost: u64, spot: Spot) -> Self {
        Self { hash, spot, cost: u32::try_from(cost).unwrap_or(u32::MAX) }
    }

    /// Returns what it counts for.
    pub fn cost(self) -> u64 {
        u64::from(self.cost)
    }
}

impl Window {
    /// Adds an entry at the end; returns what it counts for.
    #[inline]
    pub fn push(&mut self, window_entry: WindowEntry) -> u64 {
        self.queue.push_back(window_entry);
        window_entry.cost()
    }

    /// Takes the entry at the head.
    #[inline]
    pub fn pop(&mut self) -> Option<WindowEntry> {
        let window_entry = self.queue.pop_front()?;
        // A window that was large once gives its memory back.
        if self.queue.capacity() > SPARE * (self.queue.len() + SPARE) {
            self.queue.shrink_to(2 * self.queue.len());
        }
        Some(window_entry)
    }

    /// Returns the entry that is so many places behind the head.
    #[inline]
    pub fn peek(&self, behind: usize) -> Option<WindowEntry> {
        self.queue.get(behind).copied()
    }

    /// Keeps the entries that `keep` says yes to, and no more memory than they take; returns what the others
    /// counted for.
    pub fn retain(&mut self, mut keep: impl FnMut(u64) -> bool) -> u64 {
        let mut gone = 0;
        self.queue.retain(|window_entry| {
            let stays = keep(window_entry.hash);
            gone += if stays { 0 } else { window_entry.cost() };
            stays
        });
        self.queue.shrink_to_fit();
        gone
    }

    /// Returns the bytes of the queue.
    pub fn bytes(&self) -> usize {
        self.queue.capacity() * size_of::<WindowEntry>()
    }
}

/// The queue shrinks when it has so many times the room it needs.
const SPARE: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    fn window_entry(hash: u64, cost: u64) -> WindowEntry {
        WindowEntry::new(hash, cost, Spot::default())
    }

    #[test]
    fn entries_leave_in_the_order_they_came() {
        let mut window = Window::default();
        assert_eq!(window.push(window_entry(1, 10)), 10);
        assert_eq!(window.push(window_entry(2, u64::MAX)), u64::from(u32::MAX));
        let first = window.pop().unwrap();
        assert_eq!((first.hash, first.cost()), (1, 10));
        assert_eq!(window.push(first), 10);
        assert_eq!(window.pop().unwrap().hash, 2);
        assert_eq!(window.pop().unwrap().hash, 1);
        assert!(window.pop().is_none());
    }

    #[test]
    fn entries_that_are_not_kept_go_and_their_memory_with_them() {
        let mut window = Window::default();
        (0..1000).for_each(|hash| _ = window.push(window_entry(hash, 2)));
        assert_eq!(window.retain(|hash| hash < 10), 990 * 2);
        assert!(window.bytes() < 20 * size_of::<WindowEntry>());
        assert_eq!((window.pop().unwrap().hash, window.retain(|_| true)), (0, 0));
    }

    #[test]
    fn memory_goes_with_the_entries_and_is_not_moved_at_every_turn() {
        let mut window = Window::default();
        assert_eq!(window.bytes(), 0);
        for hash in 0..10_000 {
            let _ = window.push(window_entry(hash, 1));
        }
        let capacity = window.queue.capacity();
        assert!(capacity >= 10_000);
        let mut moves = 0;
        for left in (0..10_000).rev() {
            let before = window.queue.capacity();
            assert!(window.pop().is_some());
            let now = window.queue.capacity();
            assert_eq!(window.bytes(), 16 * now);
            // Eight times what is needed may stay, and a few of these times more.
            assert!(now <= SPARE * (left + SPARE), "{now} for {left}");
            if now < before {
                moves += 1;
                // It moves when it has to, to room for as many again.
                assert!(before > SPARE * (left + SPARE), "{before} for {left}");
                assert!((2 * left..=2 * left + 4).contains(&now), "{now} for {left}");
            }
        }
        assert!((3..9).contains(&moves), "{moves} moves");
        assert!(window.bytes() < 10_000);
    }
}
