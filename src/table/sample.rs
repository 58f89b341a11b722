//! Random live entries for the evictor.

use std::ops::ControlFlow;

use super::{
    LANES, Table,
    bucket::{Bucket, entry_ref},
    find::prefetch,
    migrate::{Part, parts},
    write::{Unlink, unlink},
};
use crate::reclaim::{Guard, limbo::Unlinked};

/// An entry that was in the table when it was sampled, and where.
pub struct Sampled<'g, T> {
    /// The entry.
    pub entry: &'g T,
    bucket: &'g Bucket<T>,
    lane: usize,
}

impl<T> Clone for Sampled<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<T> Copy for Sampled<'_, T> {}

impl<T> std::fmt::Debug for Sampled<'_, T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sampled").field("lane", &self.lane).finish_non_exhaustive()
    }
}

impl<T> Table<T> {
    /// Visits the entries of consecutive buckets from a random one on, until `visit` breaks or
    /// `most` buckets were read.
    ///
    /// Every live entry has the same chance to be in the first bucket. Entries are fetched ahead,
    /// a few buckets at a time.
    pub fn sample<'g>(
        &'g self,
        guard: &'g Guard,
        random: u64,
        most: usize,
        mut visit: impl FnMut(Sampled<'g, T>) -> ControlFlow<()>,
    ) {
        let array = self.root(guard);
        let count = array.count();
        let start = array.locate(random).0;
        let wrap = |index: usize| if index >= count { index - count } else { index };
        let most = most.min(count);
        let mut read = 0;
        while read < most {
            let group = GROUP.min(most - read);
            for ahead in 0..GROUP.min(most - read) {
                prefetch(array.at(wrap(start + read + ahead)));
            }
            let mut found = [const { None }; GROUP * 2 * LANES];
            let mut n = 0;
            for i in 0..group {
                for part in parts(array, wrap(start + read + i), guard).into_iter().flatten() {
                    n += collect(part, guard, &mut found[n..]);
                }
            }
            for sampled in found[..n].iter().flatten() {
                prefetch(sampled.entry);
            }
            for sampled in found[..n].iter().flatten() {
                if visit(*sampled).is_break() {
                    return;
                }
            }
            read += group;
        }
    }

    /// Takes a sampled entry out, or what has replaced it since, if it still is in its slot.
    pub fn unlink_sampled(&self, sampled: Sampled<'_, T>) -> Option<Unlinked<T>> {
        loop {
            let meta = sampled.bucket.meta();
            if meta.is_frozen() || meta.tag(sampled.lane) == 0 {
                return None;
            }
            let word = sampled.bucket.slot(sampled.lane);
            if word.is_dying() || word.entry() != Some(sampled.entry.into()) {
                return None;
            }
            match unlink(sampled.bucket, meta, sampled.lane) {
                Unlink::Done(entry) => return Some(entry),
                Unlink::Dying => return None,
                Unlink::Changed => {}
            }
        }
    }
}

/// Puts the live entries of a part into `found`; returns how many.
fn collect<'g, T>(
    part: Part<'g, T>,
    guard: &'g Guard,
    found: &mut [Option<Sampled<'g, T>>],
) -> usize {
    let bucket = part.bucket;
    for _ in 0..COLLECT_TRIES {
        let meta = bucket.meta();
        let mut n = 0;
        let mut entries = [None; LANES];
        for lane in meta.taken() {
            let word = bucket.slot(lane);
            if !word.is_dying() && part.has(word) {
                entries[lane] = word.entry();
            }
        }
        if bucket.meta() != meta {
            continue;
        }
        for (lane, entry) in entries.into_iter().enumerate() {
            if let Some(entry) = entry {
                // SAFETY: the meta word was the same before and after, so the lane was published
                // when its slot was read, which was under the guard; of a bucket that has moved on,
                // the part has only what had not.
                let entry = unsafe { entry_ref(entry, guard) };
                found[n] = Some(Sampled { entry, bucket, lane });
                n += 1;
            }
        }
        return n;
    }
    0
}

/// Buckets whose lines are fetched at once.
const GROUP: usize = 4;
/// Looks at a bucket that keeps changing before it is passed over.
const COLLECT_TRIES: usize = 4;
