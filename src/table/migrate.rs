//! Growing and shrinking, bucket by bucket, while everybody goes on.
//!
//! # Protocol
//!
//! A new array of twice (or half) the buckets is linked as `next` of the root. A *unit* is what
//! moves at once: one bucket into two when growing, two into one when shrinking. Anyone may
//! migrate a unit, and any number of threads at once:
//!
//! 1. freeze the meta word of each parent: no lane is published or unpublished any more;
//! 2. freeze the slots of its lanes: no entry is replaced or removed any more;
//! 3. fill every slot of each child that nobody has filled yet. What belongs there follows from
//!    the frozen words alone, so all helpers agree;
//! 4. put each child in use, tags and all, by one compare-and-swap. Before it the parent rules,
//!    after it the child.
//!
//! When all children are in use the next array becomes the root, and the old one is retired.
//! Writers that meet a frozen bucket migrate its unit and go on in the child; readers only follow.
//!
//! No step waits for another thread. Whether all children are in use is read from the children
//! themselves, not counted by the helpers that put them in use: a helper that is stopped after its
//! exchange cannot keep the others from ending the migration. `Buckets::in_use` notes how far the
//! children were found in use, so that each call looks at a few and none looks at all of them
//! again. Any helper that has seen the last child in use exchanges the root; the one exchange that
//! succeeds decides which thread retires the old array.
//!
//! Which child an entry belongs to stands in its slot's word (`Word::is_upper`), written when
//! the entry entered the array. The one thing that is asked of the caller's hash function is the
//! same bit for the next array; helpers that get different answers from it still agree, because
//! only the first to fill the slot is heard. If shrinking finds more than seven entries for a
//! bucket, those in the lowest lanes of the even parent stay.

use std::ptr;

use super::{
    Host, LANES, Table,
    bucket::{Bucket, Buckets, Word, entry_ref},
    meta::Meta,
};
use crate::{
    reclaim::{
        Guard,
        block::{Stored, drop_in_block},
        limbo::Unlinked,
    },
    sync::atomic::Ordering,
    util::for_all,
};

impl<T: Stored> Table<T> {
    /// Begins to double the root array, if that is what `array` is.
    ///
    /// Returns whether a next array is there. It is not if there is no memory for it; the next
    /// [`REFUSALS`] requests are then refused without asking the allocator again, since a full
    /// bucket may ask at each insert.
    pub fn grow(&self, guard: &Guard, array: &Buckets<T>) -> bool {
        if array.next(guard).is_some() {
            return true;
        }
        // Relaxed, twice: a hint. If two take the same one, it is used up a little later.
        let refusals = array.refusals.load(Ordering::Relaxed);
        if refusals > 0 {
            array.refusals.store(refusals - 1, Ordering::Relaxed);
            return false;
        }
        array.count().checked_mul(2).is_some_and(|count| self.resize(guard, array, count))
    }

    /// Begins to halve the table, if it is large enough and not being resized.
    pub fn shrink(&self, guard: &Guard) -> bool {
        let root = self.root(guard);
        let count = root.count();
        if !count.is_multiple_of(2) || count / 2 < super::MIN_BUCKETS || root.next(guard).is_some()
        {
            return false;
        }
        self.resize(guard, root, count / 2)
    }

    /// Begins to double the table, if it is not being resized.
    pub fn grow_root(&self, guard: &Guard) -> bool {
        let root = self.root(guard);
        root.next(guard).is_none() && self.grow(guard, root)
    }

    fn resize(&self, guard: &Guard, array: &Buckets<T>, count: usize) -> bool {
        if array.next(guard).is_some() {
            return true;
        }
        // Acquire: pairs with the Release in `promote`. An array that is not the root is itself still
        // being filled, or has a next one, which is then seen.
        if !ptr::eq(self.root.load(Ordering::Acquire), array) {
            return array.next(guard).is_some();
        }
        let Ok(next) = Buckets::new(count) else {
            array.refusals.store(REFUSALS, Ordering::Relaxed); // Relaxed: a hint.
            return false;
        };
        let next = Box::into_raw(Box::new(next));
        // Release: pairs with the Acquire in `Buckets::next`, so that the array is seen made.
        let linked = array.next.compare_exchange(
            ptr::null_mut(),
            next,
            NEXT_LINK,
            Ordering::Relaxed, // Relaxed: the other array is not looked at here.
        );
        if linked.is_err() {
            // SAFETY: the exchange failed, so the array is still ours alone.
            drop(unsafe { Box::from_raw(next) });
        }
        true
    }

    /// Migrates up to `units` units, if a migration is under way; returns whether one is.
    pub fn help_migration(&self, guard: &Guard, host: &impl Host<T>, units: usize) -> bool {
        let array = self.root(guard);
        let Some(next) = array.next(guard) else { return false };
        let all = array.count().min(next.count());
        let mut has_put = false;
        for _ in 0..units.min(all) {
            // Relaxed: spreads helpers over the units; a unit that is done already costs a look.
            let unit = array.cursor.fetch_add(1, Ordering::Relaxed) % all;
            has_put |= self.migrate(guard, array, next, unit, host);
        }
        let most = units.saturating_mul(CHECKS_PER_UNIT);
        self.promote_if_done(guard, array, next, most, has_put, host);
        true
    }

    /// Returns how many buckets of the next array were found in use, if a migration is under way.
    pub fn moved(&self, guard: &Guard) -> Option<usize> {
        let array = self.root(guard);
        // Relaxed: a figure.
        array.next(guard).map(|_| array.in_use.load(Ordering::Relaxed))
    }

    /// Migrates the unit of a bucket, and returns the array that rules its hashes now.
    #[cold]
    pub fn migrated<'g>(
        &'g self,
        guard: &'g Guard,
        array: &'g Buckets<T>,
        index: usize,
        host: &impl Host<T>,
    ) -> &'g Buckets<T> {
        let next = array.next(guard).expect("a bucket migrates to a next array");
        let unit = if next.count() > array.count() { index } else { index / 2 };
        let has_put = self.migrate(guard, array, next, unit, host);
        self.promote_if_done(guard, array, next, CHECKS_PER_UNIT, has_put, host);
        next
    }

    /// Migrates a unit; returns whether this call put a child in use.
    fn migrate(
        &self,
        guard: &Guard,
        array: &Buckets<T>,
        next: &Buckets<T>,
        unit: usize,
        host: &impl Host<T>,
    ) -> bool {
        let mut has_put = false;
        if next.count() > array.count() {
            let children = [2 * unit, 2 * unit + 1];
            if children.iter().all(|&child| next.at(child).meta().is_live()) {
                return false;
            }
            let parent = array.at(unit);
            freeze(parent);
            for child in children {
                // A child in use rules alone: what the parent still shows may be freed.
                if !next.at(child).meta().is_live() {
                    let content = half_of(guard, parent, child % 2 != 0, next, host);
                    has_put |= self.put_in_use(guard, next, child, content, &[], host);
                }
            }
        } else if !next.at(unit).meta().is_live() {
            let parents = [array.at(2 * unit), array.at(2 * unit + 1)];
            for parent in parents {
                freeze(parent);
            }
            let (content, spilled) = merged(parents);
            has_put = self.put_in_use(guard, next, unit, content, &spilled, host);
        }
        has_put
    }

    /// Fills a child and puts it in use; returns whether this call did.
    fn put_in_use(
        &self,
        guard: &Guard,
        next: &Buckets<T>,
        child: usize,
        content: Content<T>,
        spilled: &[Word<T>],
        host: &impl Host<T>,
    ) -> bool {
        let bucket = next.at(child);
        for lane in 0..LANES {
            bucket.change_slot(lane, unfilled(bucket, lane), content.words[lane]);
        }
        let first = bucket.change_meta(Meta(0), content.meta);
        let pretends = cfg!(cortado_mutant = "migrate_spilled_twice") && !spilled.is_empty();
        if !first && !pretends {
            return false;
        }
        #[cfg(any(cortado_loom, cortado_shuttle))]
        host.put_in_use();
        for_all(spilled.iter().filter_map(|word| word.entry()), |entry| {
            // SAFETY: entries come from `Owned::into_raw`. No bucket in use shows the entry any
            // more, and only the thread whose exchange put the child in use comes here.
            host.displaced(guard, unsafe { Unlinked::new(entry) });
        });
        true
    }

    /// Looks at up to `most` children that were not yet found in use, and makes `next` the root if
    /// all of them are.
    fn promote_if_done(
        &self,
        guard: &Guard,
        array: &Buckets<T>,
        next: &Buckets<T>,
        most: usize,
        has_put: bool,
        host: &impl Host<T>,
    ) {
        // The mutant leaves it to the helpers that have put a child in use, which may be stopped.
        if cfg!(cortado_mutant = "migrate_last_promotes") && !has_put {
            return;
        }
        // Acquire: pairs with the Release below; the children before this one, which other helpers
        // have found in use, are seen in use here.
        let from = array.in_use.load(Ordering::Acquire);
        let end = from.saturating_add(most).min(next.count());
        let to = (from..end).find(|&child| !next.at(child).meta().is_live()).unwrap_or(end);
        let mut seen = to;
        if to > from {
            // AcqRel: Release hands the children on that were found in use, Acquire takes over
            // those that others have found since.
            seen = to.max(array.in_use.fetch_max(to, Ordering::AcqRel));
        }
        // Not only by the helper that has moved the number: it may be stopped before the exchange.
        if seen == next.count() && self.promote(guard, array, next) {
            host.moving();
        }
    }

    /// Makes `next`, all of whose buckets are in use, the root; returns whether this call did.
    fn promote(&self, guard: &Guard, array: &Buckets<T>, next: &Buckets<T>) -> bool {
        let old = ptr::from_ref(array).cast_mut();
        // Release: pairs with the Acquire in `root`, so that every bucket is seen in use.
        let promoted = self.root.compare_exchange(
            old,
            ptr::from_ref(next).cast_mut(),
            Ordering::Release,
            Ordering::Relaxed, // Relaxed: another helper has done it, and nothing is read of it.
        );
        let retires = promoted.is_ok() || cfg!(cortado_mutant = "migrate_retires_twice");
        if let Some(array) = ptr::NonNull::new(old).filter(|_| retires) {
            if cfg!(cortado_mutant = "migrate_array_at_once") {
                // SAFETY: none: readers may be in it.
                unsafe { drop_in_block(array) };
                return true;
            }
            // SAFETY: arrays come from `Box::into_raw`; the old root is reached by no one who
            // pins from now on, and the exchange succeeds once.
            self.arrays.retire(guard, unsafe { Unlinked::new(array) }, 0, 0);
        }
        promoted.is_ok()
    }
}

/// A bucket, or the part of it, that rules some hashes.
pub struct Part<'g, T> {
    /// The bucket.
    pub bucket: &'g Bucket<T>,
    /// Which of its entries count: those whose word says so (`Word::is_upper`), or all.
    pub upper: Option<bool>,
}

impl<T> Clone for Part<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<T> Copy for Part<'_, T> {}

impl<T> Part<'_, T> {
    /// Returns whether a word of the bucket counts.
    pub fn has(&self, word: Word<T>) -> bool {
        cfg!(cortado_mutant = "migrate_parts_whole")
            || self.upper.is_none_or(|upper| upper == word.is_upper())
    }
}

/// Returns the parts that rule the hashes of bucket `index`, wherever it has moved.
///
/// An entry that a part has was in the table after `guard` was made. (What a frozen bucket still
/// shows of a child in use may be long gone.)
#[inline]
pub fn parts<'g, T>(
    array: &'g Buckets<T>,
    index: usize,
    guard: &'g Guard,
) -> [Option<Part<'g, T>>; 2] {
    let bucket = array.at(index);
    if !bucket.meta().is_frozen() {
        return [Some(Part { bucket, upper: None }), None];
    }
    let next = array.next(guard).expect("a frozen bucket has a next array");
    if next.count() > array.count() {
        [false, true].map(|upper| {
            let child = next.at(2 * index + usize::from(upper));
            Some(if child.meta().is_live() {
                Part { bucket: child, upper: None }
            } else {
                Part { bucket, upper: Some(upper) }
            })
        })
    } else {
        let child = next.at(index / 2);
        let part = if child.meta().is_live() {
            Part { bucket: child, upper: Some(!index.is_multiple_of(2)) }
        } else {
            Part { bucket, upper: None }
        };
        [Some(part), None]
    }
}

/// What a child starts with.
struct Content<T> {
    meta: Meta,
    words: [Word<T>; LANES],
}

impl<T> Content<T> {
    fn empty() -> Self {
        Self { meta: Meta::LIVE, words: [Word::EMPTY; LANES] }
    }

    fn put(&mut self, lane: usize, tag: u64, word: Word<T>) {
        self.meta = self.meta.with(lane, tag);
        self.words[lane] = word;
    }
}

/// Stops every change of a bucket; whoever returns from it sees its last content.
fn freeze<T>(bucket: &Bucket<T>) {
    let mut meta = bucket.meta();
    while !meta.is_frozen() {
        bucket.change_meta(meta, meta.frozen());
        meta = bucket.meta();
    }
    if cfg!(cortado_mutant = "migrate_thawed_slots") {
        return;
    }
    for lane in meta.taken() {
        let mut word = bucket.slot(lane);
        while !word.is_frozen() {
            bucket.change_slot(lane, word, word.frozen());
            word = bucket.slot(lane);
        }
    }
}

/// Returns what the lower or upper child of a frozen bucket starts with.
fn half_of<T>(
    guard: &Guard,
    parent: &Bucket<T>,
    upper: bool,
    next: &Buckets<T>,
    host: &impl Host<T>,
) -> Content<T> {
    let meta = parent.meta();
    let mut content = Content::empty();
    for lane in meta.taken() {
        let word = parent.slot(lane);
        let dying = word.is_dying() && !cfg!(cortado_mutant = "migrate_dying_too");
        if dying || word.is_upper() != upper {
            continue;
        }
        if let Some(entry) = word.entry() {
            // SAFETY: the child was not in use after the guard was made, so until then the parent
            // ruled and the entry was in the table.
            let hash = host.hash(unsafe { entry_ref(entry, guard) });
            content.put(lane, meta.tag(lane), Word::new(entry, next.locate(hash).1));
        }
    }
    content
}

/// Returns what the child of two frozen buckets starts with, and what finds no slot in it.
fn merged<T>(parents: [&Bucket<T>; 2]) -> (Content<T>, Vec<Word<T>>) {
    let mut content = Content::empty();
    let mut spilled = Vec::new();
    let mut lane = 0;
    for (upper, parent) in [false, true].into_iter().zip(parents) {
        let meta = parent.meta();
        for from in meta.taken() {
            let word = parent.slot(from);
            let Some(entry) = word.entry().filter(|_| !word.is_dying()) else { continue };
            if lane < LANES {
                content.put(lane, meta.tag(from), Word::new(entry, upper));
                lane += 1;
            } else {
                spilled.push(word);
            }
        }
    }
    (content, spilled)
}

/// Requests to grow that are refused after one has found no memory. A request is a full bucket in a
/// crowded table, so a table that cannot grow asks the allocator once in as many evictions.
const REFUSALS: usize = 256;

/// Children that a helper looks at for each unit, to find whether all are in use. A unit has two at
/// most; the rest catches up with what other helpers have put in use out of turn.
const CHECKS_PER_UNIT: usize = 8;

// Release, see `resize`. The mutant links with Relaxed: the array may be seen unmade.
const NEXT_LINK: Ordering = if cfg!(cortado_mutant = "migrate_relaxed_next") {
    Ordering::Relaxed
} else {
    Ordering::Release
};

/// What a slot holds that no helper has filled. The mutant forgets to tell it from an empty one.
fn unfilled<T>(bucket: &Bucket<T>, lane: usize) -> Word<T> {
    if cfg!(cortado_mutant = "migrate_no_sentinel") && bucket.slot(lane) == Word::EMPTY {
        return Word::EMPTY;
    }
    Word::UNUSED
}

#[cfg(all(test, not(any(cortado_loom, cortado_shuttle))))]
mod tests {
    use std::{
        cell::Cell,
        panic::{AssertUnwindSafe, catch_unwind},
    };

    use super::super::testing::{Keeper, Ledger, drain, mixed};
    use super::*;
    use crate::reclaim::pin;

    #[test]
    fn table_grows_as_often_as_its_host_wants() {
        let ledger = Ledger::default();
        let table = Table::with_buckets(1, 1, 4);
        let mut keeper = Keeper::new(&table, &mixed);
        keeper.grow_below = 256 * LANES;
        let mut refused = 0;
        for key in 0..600 {
            refused += usize::from(!keeper.set(&ledger, key, key));
        }
        keeper.settle();
        assert_eq!(keeper.check() + refused, 600);
        assert!(refused < 30, "{refused} refused");
        let guard = pin();
        assert!(table.slots(&guard) >= 128 * LANES);
        drop(guard);
        drain(&table);
        assert_eq!(ledger.alive(), 600 - refused);
        drop(table);
        assert_eq!(ledger.alive(), 0);
    }

    /// The array that is being filled may already have a full bucket, but it cannot grow yet.
    #[test]
    fn full_bucket_of_the_next_array_waits_for_the_migration() {
        let ledger = Ledger::default();
        let table = Table::with_buckets(1024, 1, 4);
        let mut keeper = Keeper::new(&table, &|key| key);
        keeper.grow_below = usize::MAX;
        let full = (0..40).filter(|&key| keeper.set(&ledger, key, key)).count();
        assert!(full >= LANES);
        keeper.settle();
        keeper.check();
    }

    /// As if each unit were migrated by a thread that is stopped before it looks whether that was all.
    #[test]
    fn migration_ends_though_the_helpers_are_stopped_before_its_end() {
        for shrinking in [false, true] {
            let ledger = Ledger::default();
            let table = Table::with_buckets(128, 1, 4);
            let keeper = Keeper::new(&table, &mixed);
            for key in 0..40 {
                keeper.set(&ledger, key, key);
            }
            let guard = pin();
            assert!(if shrinking { table.shrink(&guard) } else { table.grow_root(&guard) });
            let array = table.root(&guard);
            let next = array.next(&guard).unwrap();
            for unit in 0..array.count().min(next.count()) {
                table.migrate(&guard, array, next, unit, &keeper);
            }
            let calls = (0..100).take_while(|_| table.help_migration(&guard, &keeper, 4)).count();
            assert!((2..=8).contains(&calls), "each call looks at some: {calls} calls");
            assert_eq!(table.slots(&guard), next.count() * LANES);
            assert_eq!(keeper.clear() + keeper.displaced.get(), 40);
        }
    }

    #[test]
    fn shrinking_keeps_the_lowest_lanes_and_displaces_the_rest() {
        let ledger = Ledger::default();
        let table = Table::with_buckets(4, 1, 4);
        let keeper = Keeper::new(&table, &mixed);
        for key in 0..24 {
            keeper.set(&ledger, key, key);
        }
        let before = keeper.check();
        let guard = pin();
        assert!(table.shrink(&guard));
        keeper.settle();
        assert_eq!(table.slots(&guard), 2 * LANES);
        assert!(!table.shrink(&guard), "no further");
        assert_eq!(keeper.check() + keeper.displaced.get(), before);
        assert!(keeper.displaced.get() > 0);
        for key in keeper.keys() {
            assert_eq!(keeper.get(key), Some(key));
        }
        drop(guard);
        drain(&table);
        assert_eq!(ledger.alive(), keeper.check());
    }

    #[test]
    fn table_dropped_at_any_step_of_a_migration_drops_each_entry_once() {
        for shrinking in [false, true] {
            for steps in 0..10 {
                let ledger = Ledger::default();
                let table = Table::with_buckets(8, 1, 4);
                let keeper = Keeper::new(&table, &mixed);
                for key in 0..50 {
                    keeper.set(&ledger, key, key);
                }
                let guard = pin();
                assert!(if shrinking { table.shrink(&guard) } else { table.grow_root(&guard) });
                for _ in 0..steps {
                    table.help_migration(&guard, &keeper, 1);
                }
                keeper.remove(keeper.keys()[0]);
                drop(guard);
                drop(table);
                assert_eq!(ledger.alive(), 0);
            }
        }
    }

    #[test]
    fn half_a_unit_is_no_harm() {
        for drop_early in [false, true] {
            let ledger = Ledger::default();
            let panics = Cell::new(false);
            let table = Table::with_buckets(1, 1, 4);
            // Entries 0 to 2 go down, 3 to 5 up; hashing entry 4 panics when it is told to.
            let hasher = |key| {
                assert!(!panics.get() || key != 4, "hash");
                if key < 3 { key + 1 } else { (1 << 63) + key }
            };
            let keeper = Keeper::new(&table, &hasher);
            for key in 0..6 {
                assert!(keeper.set(&ledger, key, key));
            }
            let guard = pin();
            assert!(table.grow_root(&guard));
            panics.set(true);
            let panicked = catch_unwind(AssertUnwindSafe(|| {
                table.help_migration(&guard, &keeper, 1);
            }));
            assert!(panicked.is_err());
            assert_eq!(
                keeper.keys(),
                [0, 1, 2, 3, 4, 5],
                "the lower child is in use, the upper not"
            );
            assert_eq!(keeper.get(1), Some(1));
            assert_eq!(keeper.get(3), Some(3));
            if !drop_early {
                panics.set(false);
                assert_eq!(keeper.remove(1), Some(1));
                keeper.settle();
                assert_eq!(keeper.keys(), [0, 2, 3, 4, 5]);
                assert_eq!(keeper.check(), 5);
            }
            drop(guard);
            drop(table);
            assert_eq!((ledger.made(), ledger.alive()), (6, 0));
        }
    }

    #[test]
    fn hasher_that_never_gives_the_same_answer_breaks_nothing_but_itself() {
        let ledger = Ledger::default();
        let count = Cell::new(0);
        let hasher = |_| {
            count.set(count.get() + 1);
            mixed(count.get())
        };
        let table = Table::with_buckets(2, 1, 4);
        let mut keeper = Keeper::new(&table, &hasher);
        keeper.grow_below = 64 * LANES;
        keeper.leaver = Some(0);
        for key in 0..2000 {
            keeper.set(&ledger, key % 50, key);
            keeper.get(key % 50);
            keeper.remove((key + 25) % 50);
            if key % 400 == 0 {
                keeper.settle();
                table.shrink(&pin());
            }
        }
        keeper.settle();
        let guard = pin();
        let left = table.iter(&guard).count();
        drop(guard);
        drain(&table);
        assert_eq!(ledger.alive(), left);
        drop(table);
        assert_eq!(ledger.alive(), 0);
    }

    #[test]
    fn panicking_host_does_not_stop_a_shrink() {
        struct Panics<'t>(Keeper<'t>);
        impl Host<super::super::testing::Entry> for Panics<'_> {
            fn hash(&self, entry: &super::super::testing::Entry) -> u64 {
                self.0.hash(entry)
            }
            fn is_crowded(&self, _: usize) -> bool {
                false
            }
            fn choose_leaver(
                &self,
                _: &[Option<&super::super::testing::Entry>; LANES],
                _: &super::super::testing::Entry,
            ) -> Option<usize> {
                None
            }
            fn displaced(&self, guard: &Guard, entry: Unlinked<super::super::testing::Entry>) {
                self.0.displaced(guard, entry);
                panic!("displaced");
            }
        }
        let ledger = Ledger::default();
        let table = Table::with_buckets(4, 1, 4);
        let host = Panics(Keeper::new(&table, &mixed));
        let before = (0..24).filter(|&key| host.0.set(&ledger, key, key)).count();
        let guard = pin();
        assert!(table.shrink(&guard));
        for _ in 0..4 {
            let _ = catch_unwind(AssertUnwindSafe(|| table.help_migration(&guard, &host, 1)));
        }
        assert_eq!(table.slots(&guard), 2 * LANES, "the migration came to its end");
        assert_eq!(host.0.check() + host.0.displaced.get(), before);
        drop(guard);
        drop(table);
        assert_eq!(ledger.alive(), 0);
    }
}
