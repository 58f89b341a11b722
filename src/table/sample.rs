//! Random live entries for the evictor.

use std::ops::ControlFlow;

use super::{
    Table,
    bucket::{Bucket, Word, entry_ref},
    find::prefetch,
    migrate::{Part, parts},
    write::{Unlink, unlink},
};
use crate::reclaim::{Guard, block::Stored, limbo::Unlinked};

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

impl<T: Stored> Table<T> {
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
            let group = read..(read + GROUP).min(most);
            read = group.end;
            for i in group.clone() {
                prefetch(array.at(wrap(start + i)));
            }
            for i in group.clone() {
                let bucket = array.at(wrap(start + i));
                for lane in bucket.meta().taken() {
                    if let Some(entry) = bucket.slot(lane).entry() {
                        prefetch(entry.as_ptr());
                    }
                }
            }
            for i in group {
                for part in parts(array, wrap(start + i), guard).into_iter().flatten() {
                    if visit_part(part, guard, &mut visit).is_break() {
                        return;
                    }
                }
            }
        }
    }

    /// Takes a sampled entry out, or what has replaced it since, if it still is in its slot.
    ///
    /// Where the version has wrapped in between (see `meta`), an entry that has come into the slot
    /// since: the caller has to look at which it got.
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

/// Visits the live entries of a part.
#[inline]
fn visit_part<'g, T>(
    part: Part<'g, T>,
    guard: &'g Guard,
    visit: &mut impl FnMut(Sampled<'g, T>) -> ControlFlow<()>,
) -> ControlFlow<()> {
    let bucket = part.bucket;
    for _ in 0..TRIES {
        let meta = bucket.meta();
        let is_live = |word: Word<T>| !word.is_dying() && part.has(word);
        let Some(words) = bucket.words(meta, is_live) else { continue };
        for lane in meta.taken() {
            if let Some(entry) = bucket.confirmed(lane, words[lane]) {
                // SAFETY: it was published at one instant of the calls above, which were under the guard;
                // of a bucket that has moved on, the part has only what had not.
                let entry = unsafe { entry_ref(entry, guard) };
                visit(Sampled { entry, bucket, lane })?;
            }
        }
        break;
    }
    ControlFlow::Continue(())
}

/// Buckets whose lines are fetched at once: at half load, about what one victim takes.
const GROUP: usize = 3;
/// Looks at a bucket that keeps changing before it is passed over.
const TRIES: usize = 4;

#[cfg(all(test, not(any(cortado_loom, cortado_shuttle))))]
mod tests {
    use super::super::testing::{Entry, Keeper, Ledger, drain, mixed};
    use super::*;
    use crate::reclaim::pin;

    #[test]
    fn sampling_all_buckets_sees_every_entry_once() {
        let ledger = Ledger::default();
        let table = Table::with_buckets(8, 1, 4);
        let keeper = Keeper::new(&table, &mixed);
        for key in 0..14 {
            keeper.set(&ledger, key, key);
        }
        let check = |random| {
            let guard = pin();
            let mut keys = Vec::new();
            table.sample(&guard, random, usize::MAX, |sampled| {
                keys.push(sampled.entry.value());
                ControlFlow::Continue(())
            });
            keys.sort_unstable();
            assert_eq!(keys, keeper.keys());
        };
        let randoms = [0, 1 << 63, u64::MAX, 0x1234_5678_9abc_def0];
        randoms.into_iter().for_each(check);
        let guard = pin();
        assert!(table.grow_root(&guard));
        while table.help_migration(&guard, &keeper, 1) {
            randoms.into_iter().for_each(check);
        }
        assert!(table.shrink(&guard));
        while table.help_migration(&guard, &keeper, 1) {
            randoms.into_iter().for_each(check);
        }
    }

    #[test]
    fn sample_stops_when_told() {
        let ledger = Ledger::default();
        let table = Table::with_buckets(8, 1, 4);
        let keeper = Keeper::new(&table, &mixed);
        for key in 0..14 {
            keeper.set(&ledger, key, key);
        }
        let guard = pin();
        let mut visited = 0;
        table.sample(&guard, 0, 8, |_| {
            visited += 1;
            if visited == 3 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        assert_eq!(visited, 3);
    }

    #[test]
    fn sampled_entry_is_unlinked_once_and_never_its_successor() {
        let ledger = Ledger::default();
        let table = Table::with_buckets(2, 1, 4);
        let keeper = Keeper::new(&table, &mixed);
        let guard = pin();
        let sample = || -> Sampled<'_, Entry> {
            let mut found = None;
            table.sample(&guard, 0, 2, |sampled| {
                found = Some(sampled);
                ControlFlow::Break(())
            });
            found.unwrap()
        };
        keeper.set(&ledger, 1, 1);
        let sampled = sample();
        let entry = table.unlink_sampled(sampled).unwrap();
        assert!(table.unlink_sampled(sampled).is_none());
        let _ = table.retire(&guard, entry, 1, 0);
        keeper.set(&ledger, 1, 2);
        assert!(table.unlink_sampled(sampled).is_none(), "another entry");
        let sampled = sample();
        keeper.set(&ledger, 1, 3);
        assert!(table.unlink_sampled(sampled).is_none(), "replaced meanwhile");
        let sampled = sample();
        assert!(table.grow_root(&guard));
        keeper.settle();
        assert!(table.unlink_sampled(sampled).is_none(), "moved meanwhile");
        assert_eq!((keeper.get(1), keeper.check()), (Some(3), 1));
        drop(guard);
        drain(&table);
        assert_eq!(ledger.alive(), 1);
    }
}
