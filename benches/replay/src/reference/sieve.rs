//! SIEVE (Zhang, Yang, Yue, Vigfusson & Rashmi, SIEVE is simpler than LRU: an efficient turn-key
//! eviction algorithm for web caches, NSDI, 2024). Honours sizes.

use super::Reference;
use super::lists::{Lists, Place};

/// A queue whose entries never move, and a hand that goes from old to new and spares, once, what
/// was hit. The marks tell which were.
pub struct Sieve {
    capacity: u64,
    hand: Option<Place>,
    queue: Lists<1>,
}

const VISITED: u8 = 1;

impl Sieve {
    /// Returns an empty cache.
    pub fn new(capacity: u64) -> Self {
        Self { capacity, hand: None, queue: Lists::new() }
    }

    fn evict(&mut self) {
        let mut hand = self.hand.or_else(|| self.queue.oldest(0));
        while let Some(place) = hand {
            hand = self.queue.newer(place);
            if self.queue.mark(place) != VISITED {
                self.queue.remove(place);
                break;
            }
            self.queue.set_mark(place, 0);
            hand = hand.or_else(|| self.queue.oldest(0));
        }
        self.hand = hand;
    }
}

impl Reference for Sieve {
    fn access(&mut self, key: u64, size: u64) -> bool {
        if let Some(place) = self.queue.find(key) {
            self.queue.set_mark(place, VISITED);
            return true;
        }
        if size <= self.capacity {
            while self.queue.size(0) > self.capacity - size {
                self.evict();
            }
            self.queue.add(0, key, size);
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{play, play_sizes};
    use super::*;

    #[test]
    fn hand_spares_what_was_hit_and_stays_where_it_was() {
        // For 4 the hand spares 1 and takes 2, for 5 it spares 3 and takes 4, the newest: it
        // begins again, spares 1 for 6 and takes 3. When 3 returns it takes 5, then 6.
        let keys = [1, 2, 3, 1, 4, 3, 5, 1, 6, 3, 1, 5, 6];
        assert_eq!(play(&mut Sieve::new(3), &keys), "---+-+-+--+--");
    }

    #[test]
    fn large_entry_needs_the_place_of_several() {
        // 4 needs 6: 1 was hit, so 2 and 3 go, and the hand comes round to 1 for 5.
        let accesses = [(1, 4), (2, 3), (3, 3), (1, 4), (4, 6), (1, 4), (6, 11), (4, 6), (2, 3)];
        assert_eq!(play_sizes(&mut Sieve::new(10), &accesses), "---+-+-+-");
    }
}
