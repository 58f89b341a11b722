//! GDSF, greedy dual size frequency (Cherkasova, Improving WWW proxies performance with
//! greedy-dual-size-frequency caching policy, HP Laboratories, HPL-98-69R1, 1998), exact, every
//! miss as expensive as any other. Honours sizes.
//!
//! A new entry is always let in, and by the clock as it is after the evictions. In the paper it is
//! passed over if it would be among the first to go; that hardly changes the hits (0.2 points) but
//! costs bytes.

use std::collections::BTreeSet;

use hashbrown::HashMap;

use super::Reference;

/// The entries by priority: the clock when last used, plus uses by size. The clock is the
/// priority of the last victim.
pub struct Gdsf {
    capacity: u64,
    used: u64,
    clock: f64,
    entries: HashMap<u64, Entry>,
    order: BTreeSet<Rank>,
}

struct Entry {
    size: u64,
    uses: u32,
    rank: Rank,
}

/// A priority, which is never negative, as bits that have the same order, and the key.
type Rank = (u64, u64);

impl Gdsf {
    /// Returns an empty cache.
    pub fn new(capacity: u64) -> Self {
        Self { capacity, used: 0, clock: 0.0, entries: HashMap::new(), order: BTreeSet::new() }
    }

    fn rank(&self, key: u64, uses: u32, size: u64) -> Rank {
        let priority = self.clock + f64::from(uses) / size.max(1) as f64;
        (priority.to_bits(), key)
    }
}

impl Reference for Gdsf {
    fn access(&mut self, key: u64, size: u64) -> bool {
        if let Some(entry) = self.entries.get(&key) {
            let (size, uses, old) = (entry.size, entry.uses + 1, entry.rank);
            let rank = self.rank(key, uses, size);
            self.order.remove(&old);
            self.order.insert(rank);
            self.entries.insert(key, Entry { size, uses, rank });
            return true;
        }
        if size > self.capacity {
            return false;
        }
        while self.used > self.capacity - size
            && let Some((priority, victim)) = self.order.pop_first()
        {
            self.clock = f64::from_bits(priority);
            if let Some(entry) = self.entries.remove(&victim) {
                self.used -= entry.size;
            }
        }
        let rank = self.rank(key, 1, size);
        self.used += size;
        self.order.insert(rank);
        self.entries.insert(key, Entry { size, uses: 1, rank });
        false
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{play, play_sizes};
    use super::*;

    #[test]
    fn large_and_rare_entries_go_first() {
        // Priorities: 1 has 0.4 after its hit, 2 has 0.2. 3 needs 4 of 10, so 2 goes, the clock
        // stands at 0.2 and 3 has 0.2 + 0.25. 4 needs 5: 1 goes, and 4 has 0.4 + 0.2. The hit gives
        // 3 0.4 + 0.5, so 4 goes for 5.
        let accesses =
            [(1, 5), (2, 5), (1, 5), (3, 4), (4, 5), (3, 4), (6, 11), (5, 5), (3, 4), (4, 5)];
        assert_eq!(play_sizes(&mut Gdsf::new(10), &accesses), "--+--+--+-");
    }

    #[test]
    fn clock_makes_room_for_what_is_new() {
        // 1 has 3 after two hits. 3 pushes out 2 and has 2, 4 pushes out 3 and has 3; 5 pushes out
        // 1, of the same priority and the smaller key, and has 4. Without a clock 1 would stay.
        assert_eq!(play(&mut Gdsf::new(2), &[1, 1, 1, 2, 3, 4, 5, 4, 1]), "-++----+-");
    }
}
