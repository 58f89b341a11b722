//! Iteration over what is there, while it changes.

use super::{
    LANES, Table,
    bucket::{Buckets, Validated},
    find::alive,
    migrate::{Part, parts},
};
use crate::reclaim::{Guard, block::Stored};

/// Goes through the entries of a table.
///
/// An entry that is in the table from the beginning to the end of the iteration is seen exactly
/// once, unless its bucket moves in that very moment: then it may be seen twice. One that comes or goes
/// meanwhile may be seen or not.
pub struct Iter<'g, T> {
    guard: &'g Guard,
    array: &'g Buckets<T>,
    index: usize,
    /// What is left of the current bucket.
    parts: [Option<Part<'g, T>>; 2],
    lane: usize,
}

impl<T: Stored> Table<T> {
    /// Iterates over the entries.
    pub fn iter<'g>(&'g self, guard: &'g Guard) -> Iter<'g, T> {
        Iter { guard, array: self.root(guard), index: 0, parts: [None, None], lane: LANES }
    }
}

impl<'g, T> Iterator for Iter<'g, T> {
    type Item = &'g T;

    fn next(&mut self) -> Option<&'g T> {
        loop {
            while self.lane == LANES {
                self.parts[0] = self.parts[1].take();
                if self.parts[0].is_none() {
                    if self.index == self.array.count() {
                        return None;
                    }
                    self.parts = parts(self.array, self.index, self.guard);
                    self.index += 1;
                }
                self.lane = 0;
            }
            let lane = self.lane;
            let part = self.parts[0]?;
            let bucket = part.bucket;
            let meta = bucket.meta();
            let tag = meta.tag(lane);
            if tag == 0 {
                self.lane += 1;
                continue;
            }
            let word = if meta.is_frozen() {
                bucket.slot(lane)
            } else {
                match bucket.validated(lane, tag) {
                    Validated::Holds(word) => word,
                    Validated::Gone => {
                        self.lane += 1;
                        continue;
                    }
                    Validated::Changed => continue,
                }
            };
            self.lane += 1;
            if part.has(word)
                && let Some(entry) = alive(word, self.guard)
            {
                return Some(entry);
            }
        }
    }
}

impl<T> std::fmt::Debug for Iter<'_, T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Iter").field("index", &self.index).finish_non_exhaustive()
    }
}

#[cfg(all(test, not(any(cortado_loom, cortado_shuttle))))]
mod tests {
    use super::super::testing::{Keeper, Ledger, mixed};
    use super::*;
    use crate::reclaim::pin;

    #[test]
    fn every_entry_is_seen_once_at_every_step_of_a_migration() {
        for shrinking in [false, true] {
            let ledger = Ledger::default();
            let table = Table::with_buckets(8, 1, 4);
            let keeper = Keeper::new(&table, &mixed);
            for key in 0..14 {
                keeper.set(&ledger, key, key);
            }
            let keys = keeper.keys();
            assert_eq!(keys.len(), keeper.check());
            let guard = pin();
            assert!(if shrinking { table.shrink(&guard) } else { table.grow_root(&guard) });
            while table.help_migration(&guard, &keeper, 1) {
                let mut left = keeper.keys();
                assert!(left.iter().all(|key| keys.contains(key)));
                left.dedup();
                assert_eq!(left.len() + keeper.displaced.get(), keys.len());
            }
        }
    }

    #[test]
    fn iteration_that_began_before_two_migrations_sees_all_that_stayed() {
        let ledger = Ledger::default();
        let table = Table::with_buckets(4, 1, 4);
        let keeper = Keeper::new(&table, &mixed);
        for key in 0..12 {
            keeper.set(&ledger, key, key);
        }
        let keys = keeper.keys();
        let guard = pin();
        let mut iter = table.iter(&guard);
        let mut seen: Vec<u64> = iter.by_ref().take(3).map(|e| e.key).collect();
        for _ in 0..2 {
            assert!(table.grow_root(&guard));
            keeper.settle();
        }
        seen.extend(iter.map(|e| e.value()));
        seen.sort_unstable();
        assert_eq!(seen, keys);
    }
}
