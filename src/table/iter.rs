//! Iteration over the entries of a table, concurrent with changes.

use super::{
    Table,
    array::Array,
    bucket::{Bucket, Validated},
    control::SLOTS,
    find::Hit,
    resize::has_moved,
};
use crate::reclaim::Guard;

/// An iterator over the entries of a table.
///
/// An entry that is in the table from the beginning to the end of the iteration is returned exactly
/// once, unless its bucket is being moved when the iterator reaches it: then it may be returned
/// twice. An entry that is inserted or removed during the iteration may or may not be returned.
pub struct Iter<'g, T> {
    table: &'g Table<T>,
    guard: &'g Guard,
    array: &'g Array,
    index: usize,
    /// The index of the bucket at which it ends.
    end: usize,
    /// The lowest hash (its upper 32 bits) to return.
    from: u32,
    /// The rest of the current bucket.
    parts: [Option<Part<'g>>; 2],
    slot: usize,
}

/// A bucket, or the half of it to be visited.
#[derive(Clone, Copy)]
pub(super) struct Part<'g> {
    pub(super) bucket: &'g Bucket,
    /// Only entries of the bucket at this index in the array that the visit began with.
    only: Option<usize>,
}

impl<T> Table<T> {
    /// Iterates over the entries.
    pub fn iter<'g>(&'g self, guard: &'g Guard) -> Iter<'g, T> {
        self.iter_from(guard, 0, usize::MAX).0
    }

    /// Iterates over the entries of at most `buckets` buckets whose hashes are not below `from`,
    /// which is compared with their upper 32 bits; returns the hash at which the next part begins,
    /// if there is one.
    ///
    /// Buckets divide the hashes into ranges, so a walk may drop its guard between two parts: an
    /// entry that stays in the table is in exactly one part, even if the table is resized in
    /// between.
    pub fn iter_from<'g>(
        &'g self,
        guard: &'g Guard,
        from: u32,
        buckets: usize,
    ) -> (Iter<'g, T>, Option<u32>) {
        debug_assert!(guard.covers(self.domain), "a guard of a part");
        let array = self.root(guard);
        let count = array.count();
        let index = array.index(from);
        let end = index.saturating_add(buckets.max(1)).min(count);
        // The lowest hash of bucket `end`: a bucket has the hashes whose product with the count has
        // its index in the upper half.
        let next = ((end as u64) << 32).div_ceil(count as u64);
        let parts = [None, None];
        let iter = Iter { table: self, guard, array, index, end, from, parts, slot: SLOTS };
        (iter, (end < count).then_some(next as u32))
    }
}

/// Returns the buckets that contain the entries of bucket `index` of an array that is, or was under
/// the guard, the root.
///
/// The entries that they show were in the table at some moment under the guard.
#[inline]
pub(super) fn parts<'g>(array: &'g Array, index: usize, guard: &'g Guard) -> [Option<Part<'g>>; 2] {
    let bucket = array.at(index);
    let whole = |bucket| Some(Part { bucket, only: None });
    if !bucket.control().is_frozen() {
        return [whole(bucket), None];
    }
    let next = array.next(guard).expect("a frozen bucket has a next array");
    if !has_moved(array, next, index) {
        return [whole(bucket), None];
    }
    if next.count() > array.count() {
        [whole(next.at(2 * index)), whole(next.at(2 * index + 1))]
    } else {
        [Some(Part { bucket: next.at(index / 2), only: Some(index) }), None]
    }
}

impl Part<'_> {
    /// Returns whether the part is of the second of two buckets that were merged.
    pub(super) fn is_second_half(&self) -> bool {
        self.only.is_some_and(|index| !index.is_multiple_of(2))
    }
}

impl<'g, T> Iter<'g, T> {
    /// Returns the next slot, and the part that it is in.
    fn next_slot(&mut self) -> Option<(Part<'g>, usize)> {
        while self.slot == SLOTS {
            self.parts[0] = self.parts[1].take();
            if self.parts[0].is_none() {
                if self.index == self.end {
                    return None;
                }
                self.parts = parts(self.array, self.index, self.guard);
                self.index += 1;
            }
            self.slot = 0;
        }
        self.slot += 1;
        Some((self.parts[0]?, self.slot - 1))
    }

    /// Returns the entry in a slot, if it is to be returned.
    fn entry(&self, part: Part<'g>, slot: usize) -> Option<Hit<'g, T>> {
        let bucket = part.bucket;
        let (word, handle) = loop {
            let control = bucket.control();
            let tag = control.tag(slot);
            if tag == 0 {
                return None;
            }
            let word = bucket.word(slot);
            if control.is_frozen() {
                // `parts` has seen, under the guard, that the bucket had not moved or was in use.
                break (word, word.handle()?);
            }
            match bucket.validated(control, slot, tag, word.bits()) {
                Validated::Holds(word, handle) => break (word, handle),
                Validated::Gone | Validated::Changed => {}
            }
        };
        if word.is_dying() {
            return None;
        }
        let entry = self.table.entry(self.guard, handle);
        let hash = self.table.upper_of(handle);
        let is_of_part = part.only.is_none_or(|index| self.array.index(hash) == index)
            || mutant!("resize_parts_whole");
        (is_of_part && hash >= self.from).then(|| Hit::new(entry, bucket, slot))
    }
}

impl<'g, T> Iterator for Iter<'g, T> {
    type Item = Hit<'g, T>;

    fn next(&mut self) -> Option<Hit<'g, T>> {
        loop {
            let (part, slot) = self.next_slot()?;
            if let Some(hit) = self.entry(part, slot) {
                return Some(hit);
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
    use std::sync::atomic::AtomicU64;

    use super::{
        super::{
            testing::{Entries, Entry, help, put, spread},
            upper,
        },
        *,
    };

    fn filled<'a>(keys: u64, alive: &'a AtomicU64) -> Entries<'a> {
        let table = Table::new(8, 100, 1).unwrap();
        let guard = table.pin();
        for key in 0..keys {
            let entry = Entry::new(key, key, alive);
            assert_eq!(put(&table, &guard, spread(key), entry, |_| panic!("there is room")), None);
        }
        drop(guard);
        table
    }

    #[test]
    fn parts_of_a_walk_return_every_entry_once_despite_resizes_between_them() {
        type Resize = fn(&Entries<'_>, &Guard) -> bool;
        let nothing: Resize = |_, _| false;
        let ways: [Resize; 3] =
            [nothing, |table, guard| table.grow(guard), |table, guard| table.shrink(guard)];
        let alive = AtomicU64::new(0);
        for resize in ways {
            for buckets in [1, 3, 7, 100] {
                let table = filled(16, &alive);
                let (mut seen, mut from, mut resizes) = (Vec::new(), Some(0), 0);
                while let Some(first) = from {
                    let guard = table.pin();
                    let (part, next) = table.iter_from(&guard, first, buckets);
                    for hit in part {
                        let hash = upper(spread(hit.entry.key));
                        assert!(hash >= first && next.is_none_or(|next| hash < next));
                        seen.push(hit.entry.key);
                    }
                    from = next;
                    if resizes < 2 && resize(&table, &guard) {
                        resizes += 1;
                        help(&table, &guard, 1, |_| panic!("there is room"));
                    } else {
                        while help(&table, &guard, 1, |_| panic!("there is room")) {}
                    }
                }
                seen.sort_unstable();
                assert_eq!(seen, (0..16).collect::<Vec<_>>());
            }
        }
    }

    #[test]
    fn iteration_that_began_before_two_resizes_returns_all_remaining_entries() {
        let alive = AtomicU64::new(0);
        let table = filled(16, &alive);
        let guard = table.pin();
        let mut iter = table.iter(&guard);
        let mut seen: Vec<u64> = iter.by_ref().take(3).map(|hit| hit.entry.key).collect();
        for _ in 0..2 {
            assert!(table.grow(&guard));
            while help(&table, &guard, 1, |_| ()) {}
        }
        seen.extend(iter.map(|hit| hit.entry.key));
        seen.sort_unstable();
        assert_eq!(seen, (0..16).collect::<Vec<_>>());
    }
}
