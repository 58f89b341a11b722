//! LRU, least recently used (Mattson, Gecsei, Slutz & Traiger, Evaluation techniques for storage
//! hierarchies, IBM Systems Journal, 1970). Honours sizes.

use super::Reference;
use super::lists::Lists;

/// The entries, from the one used last to the one not used for longest.
pub struct Lru {
    capacity: u64,
    entries: Lists<1>,
}

impl Lru {
    /// Returns an empty cache.
    pub fn new(capacity: u64) -> Self {
        Self { capacity, entries: Lists::new() }
    }
}

impl Reference for Lru {
    fn access(&mut self, key: u64, size: u64) -> bool {
        if let Some(place) = self.entries.find(key) {
            self.entries.renew(0, place);
            return true;
        }
        if size <= self.capacity {
            while self.entries.size(0) > self.capacity - size {
                self.entries.remove_oldest(0);
            }
            self.entries.add(0, key, size);
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{play, play_sizes};
    use super::*;
    use crate::trace::zipf::Random;

    #[test]
    fn entry_not_used_for_longest_goes_out() {
        // 1 and 2 fill it, using 1 again leaves 2 as the oldest, so 3 takes the place of 2.
        assert_eq!(play(&mut Lru::new(2), &[1, 2, 1, 3, 2, 3, 1]), "--+--+-");
    }

    #[test]
    fn large_entry_needs_the_place_of_several() {
        // 3 needs 5 of 10: without 2 there are only 4, so 1 goes too. 5 could never fit.
        let accesses = [(1, 6), (2, 4), (1, 6), (3, 5), (4, 5), (3, 5), (5, 11), (4, 5), (1, 6)];
        assert_eq!(play_sizes(&mut Lru::new(10), &accesses), "--+--+-+-");
    }

    #[test]
    fn agrees_with_the_lru_crate() {
        let mut other = lru::LruCache::new(std::num::NonZeroUsize::new(37).unwrap());
        let mut lru = Lru::new(37);
        let mut random = Random::new(7);
        for _ in 0..20_000 {
            let key = random.below(60) * random.below(3);
            let hit = other.get(&key).is_some();
            other.put(key, ());
            assert_eq!(lru.access(key, 1), hit);
        }
    }
}
