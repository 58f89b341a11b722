//! `Window`: the queue of new entries, owned by a maintenance shard.
//!
//! It stores hashes, not entries. An entry is looked up by its hash when it reaches the head.
//! Beside each hash is the spot of the entry when it was inserted, which saves the search if the
//! entry is still there.

use std::collections::VecDeque;

use crate::table::Spot;

/// The factor by which the queue's capacity may exceed its length before it shrinks. It is large,
/// so that reallocations are rare.
const SPARE: usize = 8;

/// A first-in first-out queue of new entries.
#[derive(Debug, Default)]
pub struct Window {
    queue: VecDeque<WindowEntry>,
}

/// The window's record of a new entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WindowEntry {
    /// The hash of its key.
    pub hash: u64,
    /// Its spot when it was inserted, if known.
    pub spot: Spot,
    /// Its cost when it was inserted, saturated at `u32::MAX`.
    cost: u32,
}

impl WindowEntry {
    /// Creates a record; `cost` saturates at `u32::MAX`.
    #[inline]
    pub fn new(hash: u64, cost: u64, spot: Spot) -> Self {
        Self { hash, spot, cost: u32::try_from(cost).unwrap_or(u32::MAX) }
    }

    /// Returns the cost that the window accounts for it.
    pub fn cost(self) -> u64 {
        u64::from(self.cost)
    }
}

impl Window {
    /// Appends an entry; returns the cost accounted for it.
    #[inline]
    pub fn push(&mut self, window_entry: WindowEntry) -> u64 {
        self.queue.push_back(window_entry);
        window_entry.cost()
    }

    /// Removes the entry at the head.
    #[inline]
    pub fn pop(&mut self) -> Option<WindowEntry> {
        let window_entry = self.queue.pop_front()?;
        // Returns memory after the window has shrunk.
        if self.queue.capacity() > SPARE * (self.queue.len() + SPARE) {
            self.queue.shrink_to(2 * self.queue.len());
        }
        Some(window_entry)
    }

    /// Returns the entry `behind` places behind the head.
    #[inline]
    pub fn peek(&self, behind: usize) -> Option<WindowEntry> {
        self.queue.get(behind).copied()
    }

    /// Retains the entries whose hash `keep` accepts, and frees the spare memory; returns the cost
    /// accounted for the others.
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

    /// Returns the memory of the queue in bytes.
    pub fn bytes(&self) -> usize {
        self.queue.capacity() * size_of::<WindowEntry>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window_entry(hash: u64, cost: u64) -> WindowEntry {
        WindowEntry::new(hash, cost, Spot::default())
    }

    #[test]
    fn window_is_first_in_first_out() {
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
    fn retain_frees_the_memory_of_the_others() {
        let mut window = Window::default();
        (0..1000).for_each(|hash| _ = window.push(window_entry(hash, 2)));
        assert_eq!(window.retain(|hash| hash < 10), 990 * 2);
        assert!(window.bytes() < 20 * size_of::<WindowEntry>());
        assert_eq!((window.pop().unwrap().hash, window.retain(|_| true)), (0, 0));
    }

    #[test]
    fn queue_shrinks_with_its_length_and_rarely_reallocates() {
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
            // At most `SPARE` times the length, and `SPARE` squared more.
            assert!(now <= SPARE * (left + SPARE), "{now} for {left}");
            if now < before {
                moves += 1;
                // It shrinks only above the bound, to twice the length.
                assert!(before > SPARE * (left + SPARE), "{before} for {left}");
                assert!((2 * left..=2 * left + 4).contains(&now), "{now} for {left}");
            }
        }
        assert!((3..9).contains(&moves), "{moves} moves");
        assert!(window.bytes() < 10_000);
    }
}
