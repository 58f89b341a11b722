//! Belady's bound: a cache that knows the future.
//!
//! When it is full, what is used again last goes out, and that may be the new key itself: caches
//! need not let everything in, so a bound for them must not either. A heap
//! holds each key of the cache with its next use. A hit pushes the next use and leaves the old
//! mark where it is: old marks lie in the past, below every true one, so the greatest mark in the
//! heap is always true.

use std::collections::{BinaryHeap, HashMap};

use anyhow::{Context as _, Result};

/// The trace as Belady sees it: numbered keys, and for every access the next one of its key.
pub struct Future {
    keys: Vec<u32>,
    next: Vec<u32>,
    distinct: usize,
}

const NEVER: u32 = u32::MAX;

impl Future {
    /// Looks through the whole trace once.
    pub fn new(trace: &[u64]) -> Result<Self> {
        u32::try_from(trace.len())
            .ok()
            .filter(|&len| len < NEVER)
            .context("opt takes at most 4294967294 accesses")?;
        let mut numbers = HashMap::new();
        let keys: Vec<u32> = trace
            .iter()
            .map(|&key| {
                let number = numbers.len() as u32;
                *numbers.entry(key).or_insert(number)
            })
            .collect();
        let mut last = vec![NEVER; numbers.len()];
        let mut next = vec![NEVER; keys.len()];
        for (i, &key) in keys.iter().enumerate().rev() {
            next[i] = std::mem::replace(&mut last[key as usize], i as u32);
        }
        Ok(Self { keys, next, distinct: numbers.len() })
    }

    /// Returns the hits of the best possible cache of this capacity.
    pub fn hits(&self, capacity: usize) -> u64 {
        let mut inside = vec![false; self.distinct];
        let mut count = 0;
        let mut uses: BinaryHeap<(u32, u32)> = BinaryHeap::new();
        let mut hits = 0;
        for (&key, &next) in self.keys.iter().zip(&self.next) {
            if inside[key as usize] {
                hits += 1;
            } else {
                inside[key as usize] = true;
                count += 1;
            }
            uses.push((next, key));
            if count > capacity
                && let Some((_, victim)) = uses.pop()
            {
                inside[victim as usize] = false;
                count -= 1;
            }
        }
        hits
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hits(trace: &[u64], capacity: usize) -> u64 {
        Future::new(trace).unwrap().hits(capacity)
    }

    #[test]
    fn textbook_sequence_with_three_places() {
        // Paging, which must take every page in, has 11 hits at best here. A cache may let a key
        // pass: the 4, used once, need not push out the 3, and that makes 12 (by trying all ways).
        let trace = [7, 0, 1, 2, 0, 3, 0, 4, 2, 3, 0, 3, 2, 1, 2, 0, 1, 7, 0, 1];
        assert_eq!(hits(&trace, 3), 12);
    }

    #[test]
    fn loop_larger_than_the_cache_keeps_a_part() {
        // 1 and 2 stay, 3 and 4 pass through: two hits in each of the two later rounds.
        assert_eq!(hits(&[1, 2, 3, 4, 1, 2, 3, 4, 1, 2, 3, 4], 2), 4);
    }

    #[test]
    fn everything_fits() {
        assert_eq!(hits(&[1, 2, 1, 2, 3, 3], 3), 3);
    }

    #[test]
    fn is_never_below_lru() {
        let mut random = crate::trace::zipf::Random::new(3);
        let trace: Vec<u64> = (0..5000).map(|_| random.below(40) * random.below(4)).collect();
        for capacity in [1, 2, 7, 30, 100] {
            let mut lru = crate::reference::build(crate::reference::Kind::Lru, capacity as u64);
            let below = trace.iter().filter(|&&key| lru.access(key, 1)).count() as u64;
            assert!(hits(&trace, capacity) >= below, "capacity {capacity}");
        }
    }
}
