//! A count-min sketch of four-bit counters, for the policies that estimate frequencies (Cormode &
//! Muthukrishnan, An improved data stream summary: the count-min sketch and its applications,
//! Journal of Algorithms, 2005).

use crate::trace::zipf::scramble;

/// Counts of keys, each too high at times, never too low until they have reached 15.
///
/// There are four rows. A word has four counters of each; a key has a counter in each row, in up
/// to four words.
pub struct Sketch {
    words: Vec<u64>,
}

const ROWS: u32 = 4;
const MAX: u64 = 15;

impl Sketch {
    /// Returns a sketch of so many words, rounded up to a power of two.
    pub fn new(words: usize) -> Self {
        Self { words: vec![0; words.next_power_of_two()] }
    }

    /// Counts a key, and returns whether that changed any counter.
    pub fn add(&mut self, key: u64) -> bool {
        let mut changed = false;
        for (word, shift) in self.counters(key) {
            if (self.words[word] >> shift) & MAX < MAX {
                self.words[word] += 1 << shift;
                changed = true;
            }
        }
        changed
    }

    /// Halves every counter.
    pub fn halve(&mut self) {
        for word in &mut self.words {
            *word = (*word >> 1) & 0x7777_7777_7777_7777;
        }
    }

    /// Doubles the number of words; every estimate stays what it was.
    pub fn double(&mut self) {
        // One bit more of the hash tells where a key is, so both halves begin with what the whole
        // had.
        self.words.extend_from_within(..);
    }

    /// Returns how often a key was counted, from 0 to 15.
    pub fn estimate(&self, key: u64) -> u64 {
        let counts = self.counters(key).map(|(word, shift)| (self.words[word] >> shift) & MAX);
        counts.into_iter().min().unwrap_or(0)
    }

    /// Returns the number of words.
    pub fn len(&self) -> usize {
        self.words.len()
    }

    fn counters(&self, key: u64) -> [(usize, u32); ROWS as usize] {
        let hash = scramble(key.wrapping_add(0x9e37_79b9_7f4a_7c15));
        let step = scramble(hash) | 1;
        [0, 1, 2, 3].map(|row| {
            let word = hash.wrapping_add(step.wrapping_mul(row.into())) as usize;
            let column = (hash >> (62 - 2 * row)) as u32 % 4;
            (word & (self.words.len() - 1), (column * ROWS + row) * 4)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_up_to_fifteen() {
        let mut sketch = Sketch::new(64);
        for times in 1..=15 {
            assert!(sketch.add(7));
            assert_eq!(sketch.estimate(7), times);
        }
        assert!(!sketch.add(7));
        assert_eq!((sketch.estimate(7), sketch.estimate(8)), (15, 0));
        sketch.halve();
        assert_eq!(sketch.estimate(7), 7);
    }

    #[test]
    fn doubling_keeps_the_estimates() {
        let mut sketch = Sketch::new(4);
        for key in 0..100 {
            (0..key % 5).for_each(|_| _ = sketch.add(key));
        }
        let before: Vec<u64> = (0..200).map(|key| sketch.estimate(key)).collect();
        sketch.double();
        assert_eq!(sketch.len(), 8);
        assert!((0..200).map(|key| sketch.estimate(key)).eq(before));
    }
}
