//! Iteration over what is there, while it changes.

use super::{
    LANES, Table,
    bucket::{Buckets, Validated},
    find::alive,
    migrate::{Part, parts},
};
use crate::reclaim::Guard;

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

impl<T> Table<T> {
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
