//! Ristretto's policy (Dgraph Labs, the Go library Ristretto, 2019): the least frequent of five
//! random entries is the victim, as estimated by TinyLFU with a doorkeeper (Einziger, Friedman &
//! Manes, TinyLFU: a highly efficient cache admission policy, ACM Transactions on Storage, 2017).
//!
//! As in the library, all four rows of the sketch take the same bits of a key's hash, each mixed
//! with a number of its own: keys that meet in one row meet in all. So one row is all there is
//! here. It has ten counters an entry, as the library's documentation advises. Unlike there, every
//! access is counted at once and none is lost. Every entry counts as 1.

use hashbrown::HashMap;

use super::Reference;
use crate::trace::zipf::{Random, scramble};

/// The keys of the cache, in no order, so that one can be drawn.
pub struct Ristretto {
    capacity: usize,
    keys: Vec<u64>,
    places: HashMap<u64, u32>,
    counters: Vec<u8>,
    door: Doorkeeper,
    counts: usize,
    random: Random,
}

const SAMPLE: usize = 5;
const COUNTERS_PER_ENTRY: usize = 10;
const MAX_COUNT: u8 = 15;

impl Ristretto {
    /// Returns an empty cache.
    pub fn new(capacity: u64) -> Self {
        let capacity = capacity.max(1) as usize;
        let counters = COUNTERS_PER_ENTRY * capacity;
        Self {
            capacity,
            keys: Vec::new(),
            places: HashMap::new(),
            counters: vec![0; counters.next_power_of_two()],
            door: Doorkeeper::new(counters),
            counts: 0,
            random: Random::new(1),
        }
    }

    fn count(&mut self, key: u64) {
        if !self.door.add(key) {
            let i = self.counter(key);
            self.counters[i] = (self.counters[i] + 1).min(MAX_COUNT);
        }
        self.counts += 1;
        if self.counts >= COUNTERS_PER_ENTRY * self.capacity {
            self.counts = 0;
            self.door.clear();
            self.counters.iter_mut().for_each(|count| *count /= 2);
        }
    }

    fn counter(&self, key: u64) -> usize {
        scramble(key) as usize & (self.counters.len() - 1)
    }

    fn estimate(&self, key: u64) -> u8 {
        self.counters[self.counter(key)] + u8::from(self.door.has(key))
    }

    /// Returns the place and the frequency of the least frequent entry of a sample.
    fn victim(&mut self) -> (usize, u8) {
        let mut least = (0, u8::MAX);
        for i in 0..SAMPLE.min(self.keys.len()) {
            let place = if self.keys.len() > SAMPLE {
                self.random.below(self.keys.len() as u64) as usize
            } else {
                i
            };
            let frequency = self.estimate(self.keys[place]);
            if frequency < least.1 {
                least = (place, frequency);
            }
        }
        least
    }
}

impl Reference for Ristretto {
    fn access(&mut self, key: u64, _size: u64) -> bool {
        self.count(key);
        if self.places.contains_key(&key) {
            return true;
        }
        let mut place = self.keys.len();
        if place < self.capacity {
            self.keys.push(key);
        } else {
            let (victim, frequency) = self.victim();
            if self.estimate(key) < frequency {
                return false;
            }
            place = victim;
            self.places.remove(&std::mem::replace(&mut self.keys[place], key));
        }
        self.places.insert(key, place as u32);
        false
    }
}

/// A Bloom filter that knows which keys have come since it was cleared; it takes one key in a
/// hundred for another when it is full.
struct Doorkeeper {
    bits: Vec<u64>,
}

const BITS_PER_KEY: f64 = 9.585;
const HASHES: u64 = 7;

impl Doorkeeper {
    fn new(keys: usize) -> Self {
        let bits = ((keys as f64 * BITS_PER_KEY) as usize).next_power_of_two();
        Self { bits: vec![0; (bits / 64).max(1)] }
    }

    /// Adds a key, and returns whether it is new.
    fn add(&mut self, key: u64) -> bool {
        let mut new = false;
        for (word, bit) in self.places(key) {
            new |= self.bits[word] & bit == 0;
            self.bits[word] |= bit;
        }
        new
    }

    fn has(&self, key: u64) -> bool {
        self.places(key).all(|(word, bit)| self.bits[word] & bit != 0)
    }

    fn clear(&mut self) {
        self.bits.fill(0);
    }

    /// Returns the words and the bits in them that belong to a key.
    fn places(&self, key: u64) -> impl Iterator<Item = (usize, u64)> + use<> {
        let hash = scramble(!key);
        let step = scramble(hash) | 1;
        let mask = self.bits.len() - 1;
        (0..HASHES).map(move |i| {
            let bit = hash.wrapping_add(step.wrapping_mul(i));
            ((bit >> 6) as usize & mask, 1 << (bit & 63))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::play;
    use super::*;

    #[test]
    fn candidate_must_not_be_less_frequent_than_its_victim() {
        // 3 replaces 2 and 4 replaces 3, none of them used twice. 1 and 4 are, by then, so 5 stays
        // out when it comes first, and also when it comes again, against 3 uses of each.
        let keys = [1, 2, 1, 3, 4, 4, 4, 5, 1, 5, 1];
        assert_eq!(play(&mut Ristretto::new(2), &keys), "--+--++-+-+");
    }

    #[test]
    fn doorkeeper_forgets_when_cleared() {
        let mut door = Doorkeeper::new(100);
        assert!(door.add(1) && door.add(2));
        assert!(!door.add(1) && door.has(2) && !door.has(3));
        door.clear();
        assert!(!door.has(1) && door.add(1));
    }
}
