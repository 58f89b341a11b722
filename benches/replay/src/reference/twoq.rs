//! 2Q, the full version (Johnson & Shasha, 2Q: a low overhead high performance buffer management
//! replacement algorithm, VLDB, 1994). Every entry counts as 1.

use super::Reference;
use super::lists::Lists;

/// New entries in a FIFO queue, the keys of those that left it, and what was asked for again after
/// that in an LRU list.
pub struct TwoQ {
    capacity: usize,
    max_new: usize,
    max_left: usize,
    lists: Lists<3>,
}

/// A1in in the paper.
const NEW: usize = 0;
/// A1out in the paper: keys only.
const LEFT: usize = 1;
/// Am in the paper.
const MAIN: usize = 2;

impl TwoQ {
    /// Returns an empty cache with the shares the paper advises: a quarter for new entries, and
    /// half as many keys of former ones as there are entries.
    pub fn new(capacity: u64) -> Self {
        let capacity = capacity.max(1) as usize;
        let (max_new, max_left) = ((capacity / 4).max(1), (capacity / 2).max(1));
        Self { capacity, max_new, max_left, lists: Lists::new() }
    }

    /// Makes room for one entry.
    fn reclaim(&mut self) {
        if self.lists.len(NEW) + self.lists.len(MAIN) < self.capacity {
            return;
        }
        if self.lists.len(NEW) > self.max_new || self.lists.len(MAIN) == 0 {
            if let Some(place) = self.lists.oldest(NEW) {
                self.lists.renew(LEFT, place);
            }
            if self.lists.len(LEFT) > self.max_left {
                self.lists.remove_oldest(LEFT);
            }
        } else {
            self.lists.remove_oldest(MAIN);
        }
    }
}

impl Reference for TwoQ {
    fn access(&mut self, key: u64, _size: u64) -> bool {
        let Some(place) = self.lists.find(key) else {
            self.reclaim();
            self.lists.add(NEW, key, 1);
            return false;
        };
        match self.lists.list(place) {
            NEW => true,
            MAIN => {
                self.lists.renew(MAIN, place);
                true
            }
            _ => {
                self.lists.remove(place);
                self.reclaim();
                self.lists.add(MAIN, key, 1);
                false
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::play;
    use super::*;

    #[test]
    fn only_what_comes_back_enters_the_main_list() {
        // One place is for new entries, two keys of former ones are kept. 5 pushes 1 out of the
        // queue, so 1 enters the main list when it comes back. 6, 7 and 2 go through the queue; 2
        // is forgotten by then, 4 is not and joins 1, and 8 and 9 harm neither.
        let keys = [1, 2, 3, 4, 5, 1, 1, 6, 7, 2, 1, 4, 8, 9, 4, 1];
        assert_eq!(play(&mut TwoQ::new(4), &keys), "------+---+---++");
    }

    #[test]
    fn one_place_is_enough() {
        assert_eq!(play(&mut TwoQ::new(1), &[1, 1, 2, 1, 1, 2]), "-+--+-");
    }
}
