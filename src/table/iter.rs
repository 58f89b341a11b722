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
    /// The bucket at which it ends.
    end: usize,
    /// What is left of the current bucket.
    parts: [Option<Part<'g, T>>; 2],
    lane: usize,
}

impl<T: Stored> Table<T> {
    /// Iterates over the entries.
    pub fn iter<'g>(&'g self, guard: &'g Guard) -> Iter<'g, T> {
        let array = self.root(guard);
        Iter { guard, array, index: 0, end: array.count(), parts: [None, None], lane: LANES }
    }

    /// Iterates over the entries of at most `buckets` buckets, from the bucket of hash `from` on;
    /// returns the hash at which the next part begins, if there is one.
    ///
    /// Buckets partition the hashes in order, so a walk may let its guard go between two parts: an
    /// entry that stays has a hash in exactly one of them, though the table is resized in between.
    /// The first bucket may show entries of hashes below `from`.
    pub fn iter_part<'g>(
        &'g self,
        guard: &'g Guard,
        from: u64,
        buckets: usize,
    ) -> (Iter<'g, T>, Option<u64>) {
        let array = self.root(guard);
        let count = array.count();
        let index = array.locate(from).0;
        let end = index.saturating_add(buckets).min(count);
        // The least hash of bucket `end`: a bucket has the hashes whose product with the count has
        // its index in the upper word.
        let next = ((end as u128) << 64).div_ceil(count as u128);
        let iter = Iter { guard, array, index, end, parts: [None, None], lane: LANES };
        (iter, (end < count).then_some(next as u64))
    }
}

impl<'g, T> Iterator for Iter<'g, T> {
    type Item = &'g T;

    fn next(&mut self) -> Option<&'g T> {
        loop {
            while self.lane == LANES {
                self.parts[0] = self.parts[1].take();
                if self.parts[0].is_none() {
                    if self.index == self.end {
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
    fn parts_of_a_walk_show_every_entry_once_though_the_table_is_resized_between_them() {
        for resize in [|_: &Table<_>, _: &Guard| false, Table::grow_root, Table::shrink] {
            for buckets in [1, 3, 7, 100] {
                let ledger = Ledger::default();
                let table = Table::with_buckets(8, 1, 4);
                let keeper = Keeper::new(&table, &mixed);
                for key in 0..14 {
                    keeper.set(&ledger, key, key);
                }
                let (mut seen, mut from, mut resizes) = (Vec::new(), Some(0), 0);
                while let Some(first) = from {
                    let guard = pin();
                    let (part, next) = table.iter_part(&guard, first, buckets);
                    let in_part = |key: &u64| {
                        mixed(*key) >= first && next.is_none_or(|next| mixed(*key) < next)
                    };
                    seen.extend(part.map(|entry| entry.key).filter(in_part));
                    from = next;
                    if resizes < 3 && resize(&table, &guard) {
                        resizes += 1;
                        table.help_migration(&guard, &keeper, 1);
                    } else {
                        keeper.settle();
                    }
                }
                seen.sort_unstable();
                let mut left = keeper.keys();
                left.sort_unstable();
                left.dedup();
                assert!(left.iter().all(|key| seen.contains(key)), "{seen:?} of {left:?}");
                let count = seen.len();
                seen.dedup();
                assert_eq!(count, seen.len(), "none is seen twice");
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
