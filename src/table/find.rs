//! Lookup: one by one, held, and in batches that fetch ahead.

use std::{ops::Deref, ptr::NonNull};

use super::{
    Table,
    bucket::{Validated, Word, entry_ref},
    meta::Meta,
};
use crate::reclaim::{Guard, block::Stored};

/// An entry that is kept readable by the guard it holds.
///
/// Not `Send`: the guard pins this thread.
pub struct Held<'a, T: Stored> {
    entry: NonNull<T>,
    /// Keeps the entry from being freed.
    guard: Guard,
    /// Keeps the table, whose drop frees all, from being dropped.
    _table: std::marker::PhantomData<&'a Table<T>>,
}

impl<T: Stored> Deref for Held<'_, T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: the entry was found under `guard`, in a table that outlives `self`.
        unsafe { entry_ref(self.entry, &self.guard) }
    }
}

impl<T: Stored> Table<T> {
    /// Returns the entry that has this hash and matches.
    ///
    /// It was in the table at some moment of the call; `None` means that at some moment no such
    /// entry was. Writes nothing, and repeats itself only if the very slot it reads is changed.
    #[inline]
    pub fn find<'g>(
        &'g self,
        guard: &'g Guard,
        hash: u64,
        matches: impl Fn(&T) -> bool,
    ) -> Option<&'g T> {
        let tag = Meta::tag_of(hash);
        let mut bucket = self.root(guard).of(hash);
        'again: loop {
            let meta = bucket.meta();
            if meta.is_frozen() {
                // The root may have moved on since; start from it, on the road less travelled.
                return self.find_frozen(guard, hash, &matches);
            }
            for lane in meta.lanes(tag) {
                if cfg!(cortado_mutant = "table_read_before_validating")
                    && let Some(entry) = alive(bucket.slot(lane), guard)
                {
                    matches(entry);
                }
                match bucket.validated(lane, tag) {
                    Validated::Gone => {}
                    Validated::Changed => {
                        bucket = self.root(guard).of(hash);
                        continue 'again;
                    }
                    Validated::Holds(word) => {
                        if let Some(entry) = alive(word, guard)
                            && matches(entry)
                        {
                            return Some(entry);
                        }
                    }
                }
            }
            return None;
        }
    }

    /// The same while the array is being migrated.
    #[cold]
    fn find_frozen<'g>(
        &'g self,
        guard: &'g Guard,
        hash: u64,
        matches: &impl Fn(&T) -> bool,
    ) -> Option<&'g T> {
        let tag = Meta::tag_of(hash);
        let mut array = self.root(guard);
        'again: loop {
            let bucket = array.of(hash);
            let meta = bucket.meta();
            let frozen = meta.is_frozen();
            if frozen {
                let next = array.next(guard).expect("a frozen bucket has a next array");
                if next.of(hash).meta().is_live() {
                    array = next;
                    continue 'again;
                }
                // At that moment the next array did not rule yet, so this bucket did, and it
                // cannot change but for replacements, which were published too.
            }
            for lane in meta.lanes(tag) {
                let word = if frozen {
                    bucket.slot(lane)
                } else {
                    match bucket.validated(lane, tag) {
                        Validated::Gone => continue,
                        Validated::Changed => continue 'again,
                        Validated::Holds(word) => word,
                    }
                };
                if let Some(entry) = alive(word, guard)
                    && matches(entry)
                {
                    return Some(entry);
                }
            }
            return None;
        }
    }

    /// Looks up many hashes, fetching buckets and entries ahead of their use.
    ///
    /// Calls `found` once for each hash, in order, with the index of the hash.
    pub fn find_many<'g>(
        &'g self,
        guard: &'g Guard,
        hashes: &[u64],
        matches: impl Fn(usize, &T) -> bool,
        mut found: impl FnMut(usize, Option<&'g T>),
    ) {
        for (chunk, hashes) in hashes.chunks(AHEAD).enumerate() {
            let array = self.root(guard);
            for &hash in hashes {
                prefetch(array.of(hash));
            }
            for &hash in hashes {
                let bucket = array.of(hash);
                if let Some(lane) = bucket.meta().lanes(Meta::tag_of(hash)).next()
                    && let Some(entry) = bucket.slot(lane).entry()
                {
                    prefetch(entry.as_ptr());
                }
            }
            for (i, &hash) in hashes.iter().enumerate() {
                let index = chunk * AHEAD + i;
                found(index, self.find(guard, hash, |entry| matches(index, entry)));
            }
        }
    }

    /// Keeps what `find` returns readable for as long as the result lives.
    #[inline]
    pub fn hold<'a>(
        &'a self,
        guard: Guard,
        find: impl for<'g> FnOnce(&'g Self, &'g Guard) -> Option<&'g T>,
    ) -> Option<Held<'a, T>> {
        // What `find` returns is good for any lifetime of this guard and this table.
        let entry = NonNull::from(find(self, &guard)?);
        Some(Held { entry, guard, _table: std::marker::PhantomData })
    }
}

/// Returns the entry of a published word, unless it was removed in place.
#[inline]
pub fn alive<T>(word: Word<T>, guard: &Guard) -> Option<&T> {
    if word.is_dying() {
        return None;
    }
    // SAFETY: the caller validated the word under `guard`, or read it in a frozen bucket that
    // still ruled.
    word.entry().map(|entry| unsafe { entry_ref(entry, guard) })
}

/// Fetches a line ahead of its use; never faults.
#[inline]
pub fn prefetch<P>(address: *const P) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch is a hint and may name any address.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T0>(address.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = address;
}

/// Lookups under way at once in `find_many`: about as many misses as a core keeps in flight.
const AHEAD: usize = 16;

impl<T: Stored> std::fmt::Debug for Held<'_, T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Held").finish_non_exhaustive()
    }
}

#[cfg(all(test, not(any(cortado_loom, cortado_shuttle))))]
mod tests {
    use super::super::testing::{Keeper, Ledger, drain, mixed};
    use super::*;
    use crate::reclaim::pin;

    #[test]
    fn batches_answer_every_hash_in_order() {
        let ledger = Ledger::default();
        let table = Table::with_buckets(64, 1, 4);
        let keeper = Keeper::new(&table, &mixed);
        for key in (0..100).step_by(2) {
            keeper.set(&ledger, key, key + 1);
        }
        for count in [0, 1, 15, 16, 17, 100] {
            let hashes: Vec<u64> = (0..count).map(mixed).collect();
            let guard = pin();
            let mut seen = Vec::new();
            let matches = |i: usize, e: &super::super::testing::Entry| e.key == i as u64;
            table.find_many(&guard, &hashes, matches, |i, entry| {
                seen.push((i as u64, entry.map(|e| e.value())));
            });
            let expect: Vec<_> = (0..count).map(|key| (key, keeper.get(key))).collect();
            assert_eq!(seen, expect);
        }
    }

    #[test]
    fn held_entry_outlives_its_removal() {
        let ledger = Ledger::default();
        let table = Table::with_buckets(1, 1, 1);
        let keeper = Keeper::new(&table, &mixed);
        keeper.set(&ledger, 1, 10);
        let held = table.hold(pin(), |t, g| t.find(g, mixed(1), |e| e.key == 1)).unwrap();
        assert!(table.hold(pin(), |t, g| t.find(g, mixed(2), |e| e.key == 2)).is_none());
        keeper.remove(1);
        for _ in 0..100 {
            pin().advance();
            table.sweep(usize::MAX);
        }
        assert_eq!((held.value(), ledger.alive()), (10, 1));
        drop(held);
        drain(&table);
        assert_eq!(ledger.alive(), 0);
    }

    #[test]
    fn reader_follows_into_the_next_array() {
        let ledger = Ledger::default();
        let table = Table::with_buckets(4, 1, 4);
        let keeper = Keeper::new(&table, &mixed);
        for key in 0..12 {
            keeper.set(&ledger, key, key);
        }
        let there: Vec<_> = (0..12).map(|key| keeper.get(key)).collect();
        let guard = pin();
        assert!(table.grow_root(&guard));
        for _ in 0..4 {
            assert!(table.help_migration(&guard, &keeper, 1));
            assert_eq!((0..12).map(|key| keeper.get(key)).collect::<Vec<_>>(), there);
        }
        assert!(!table.help_migration(&guard, &keeper, 1));
        assert_eq!(table.slots(&guard), 8 * super::super::LANES);
        assert_eq!((0..12).map(|key| keeper.get(key)).collect::<Vec<_>>(), there);
    }
}
