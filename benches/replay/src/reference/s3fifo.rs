//! S3-FIFO (Yang, Zhang, Qiu, Yue & Rashmi, FIFO queues are all you need for cache eviction, SOSP,
//! 2023): a small queue of 10 %, and a ghost queue as long as the main queue. Honours sizes.

use super::Reference;
use super::lists::Lists;

/// A small queue for new entries, the main queue, and the keys of entries that never got from the
/// one to the other. The marks count hits, up to 3.
pub struct S3Fifo {
    capacity: u64,
    max_main: u64,
    lists: Lists<3>,
}

const SMALL: usize = 0;
const MAIN: usize = 1;
/// Keys only.
const GHOST: usize = 2;

const MAX_HITS: u8 = 3;
/// How many hits an entry needs in the small queue to move on to the main queue.
const HITS_TO_MOVE: u8 = 2;

impl S3Fifo {
    /// Returns an empty cache.
    pub fn new(capacity: u64) -> Self {
        let max_main = capacity.saturating_sub((capacity / 10).max(1));
        Self { capacity, max_main, lists: Lists::new() }
    }

    /// Takes one step towards more room.
    fn step(&mut self) {
        if self.lists.size(MAIN) > self.max_main || self.lists.len(SMALL) == 0 {
            self.step_in_main();
        } else {
            self.step_in_small();
        }
    }

    fn step_in_small(&mut self) {
        let Some(place) = self.lists.oldest(SMALL) else { return };
        if self.lists.mark(place) >= HITS_TO_MOVE {
            self.lists.set_mark(place, 0);
            self.lists.renew(MAIN, place);
            return;
        }
        self.lists.renew(GHOST, place);
        while self.lists.size(GHOST) > self.max_main {
            self.lists.remove_oldest(GHOST);
        }
    }

    fn step_in_main(&mut self) {
        let Some(place) = self.lists.oldest(MAIN) else { return };
        match self.lists.mark(place) {
            0 => self.lists.remove(place),
            hits => {
                self.lists.set_mark(place, hits - 1);
                self.lists.renew(MAIN, place);
            }
        }
    }
}

impl Reference for S3Fifo {
    fn access(&mut self, key: u64, size: u64) -> bool {
        let mut list = SMALL;
        if let Some(place) = self.lists.find(key) {
            if self.lists.list(place) != GHOST {
                self.lists.set_mark(place, (self.lists.mark(place) + 1).min(MAX_HITS));
                return true;
            }
            self.lists.remove(place);
            list = MAIN;
        }
        if size <= self.capacity {
            while self.lists.size(SMALL) + self.lists.size(MAIN) > self.capacity - size {
                self.step();
            }
            self.lists.add(list, key, size);
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{play, play_sizes};
    use super::*;

    #[test]
    fn ghost_and_hits_lead_to_the_main_queue() {
        // The small queue has one place, the others two. 4 moves 1, hit twice, to the main queue
        // and 2 to the ghost; 2 returns to the main queue. So does 3, which makes that too long: 6
        // pushes out 1. The hit spares 2 when 4 has returned and 7 needs a place; 3 goes.
        let keys = [1, 2, 3, 1, 1, 4, 2, 5, 3, 6, 2, 4, 7, 2, 3];
        assert_eq!(play(&mut S3Fifo::new(3), &keys), "---++-----+--+-");
    }

    #[test]
    fn large_entry_needs_the_place_of_several() {
        // 4 needs 6: 1 and 2 leave the small queue. When 1 returns it needs 4, and 3 leaves, whose one
        // hit is not enough.
        let accesses = [(1, 4), (2, 3), (3, 3), (4, 6), (3, 3), (5, 11), (4, 6), (1, 4)];
        assert_eq!(play_sizes(&mut S3Fifo::new(10), &accesses), "----+-+-");
    }
}
