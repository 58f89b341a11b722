//! ARC, adaptive replacement (Megiddo & Modha, ARC: a self-tuning, low overhead replacement cache,
//! FAST, 2003). Every entry counts as 1.
//!
//! The border moves by whole places: a step is rounded down, which is worth up to 0.3 points either
//! way.

use super::Reference;
use super::lists::Lists;

/// An LRU list of entries used once and one of entries used more often, with the keys of those
/// that left either, whose return moves the border between the two.
pub struct Arc {
    capacity: usize,
    /// How many entries the first list should have: p in the paper.
    target: usize,
    lists: Lists<4>,
}

/// T1 in the paper.
const ONCE: usize = 0;
/// T2 in the paper.
const OFTEN: usize = 1;
/// B1 in the paper: keys only.
const ONCE_LEFT: usize = 2;
/// B2 in the paper: keys only.
const OFTEN_LEFT: usize = 3;

impl Arc {
    /// Returns an empty cache.
    pub fn new(capacity: u64) -> Self {
        Self { capacity: capacity.max(1) as usize, target: 0, lists: Lists::new() }
    }

    /// Moves one entry to the keys that left. `often` tells whether the key that needs the place
    /// was found among those that left the second list.
    fn replace(&mut self, often: bool) {
        let once = self.lists.len(ONCE);
        let first = once > 0 && (once > self.target || often && once == self.target);
        let (from, to) = if first { (ONCE, ONCE_LEFT) } else { (OFTEN, OFTEN_LEFT) };
        if let Some(place) = self.lists.oldest(from) {
            self.lists.renew(to, place);
        }
    }

    /// Makes room for a key that no list has.
    fn make_room(&mut self) {
        let first = self.lists.len(ONCE) + self.lists.len(ONCE_LEFT);
        let all = first + self.lists.len(OFTEN) + self.lists.len(OFTEN_LEFT);
        if first == self.capacity {
            if self.lists.len(ONCE) < self.capacity {
                self.lists.remove_oldest(ONCE_LEFT);
                self.replace(false);
            } else {
                self.lists.remove_oldest(ONCE);
            }
        } else if all >= self.capacity {
            if all == 2 * self.capacity {
                self.lists.remove_oldest(OFTEN_LEFT);
            }
            self.replace(false);
        }
    }
}

impl Reference for Arc {
    fn access(&mut self, key: u64, _size: u64) -> bool {
        let Some(place) = self.lists.find(key) else {
            self.make_room();
            self.lists.add(ONCE, key, 1);
            return false;
        };
        let list = self.lists.list(place);
        let once_left = self.lists.len(ONCE_LEFT);
        let often_left = self.lists.len(OFTEN_LEFT);
        if list == ONCE_LEFT {
            let step = (often_left / once_left).max(1);
            self.target = (self.target + step).min(self.capacity);
            self.replace(false);
        } else if list == OFTEN_LEFT {
            let step = (once_left / often_left).max(1);
            self.target = self.target.saturating_sub(step);
            self.replace(true);
        }
        self.lists.renew(OFTEN, place);
        matches!(list, ONCE | OFTEN)
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::play;
    use super::*;

    #[test]
    fn key_that_returns_moves_the_border() {
        // 1 is used twice, so 3 pushes out 2, used once. 2 returns and moves the border to 1: now
        // 1 goes out and 3 stays. 1 returns and moves it back to 0; by then 3 is used twice too,
        // and 2 is the older one.
        let keys = [1, 1, 2, 3, 2, 3, 1, 3, 1, 2];
        assert_eq!(play(&mut Arc::new(2), &keys), "-+---+-++-");
    }

    #[test]
    fn one_place_is_enough() {
        assert_eq!(play(&mut Arc::new(1), &[1, 1, 2, 1, 3, 3]), "-+---+");
    }
}
