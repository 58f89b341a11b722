//! Growing and shrinking: a next array replaces the root, bucket by bucket.
//!
//! # Protocol
//!
//! A *unit* is what moves at once: one bucket and its two children when the table doubles, two
//! neighbours and their one child when it halves. Units are moved by writers that find one partly
//! moved, and by helpers ([`Table::help`]), in three steps:
//!
//! 1. *Freeze* its buckets: the control words first, then the words of published slots. They no
//!    longer change. Claims are not published, and their owners withdraw them.
//! 2. *Fill* the children: each slot of a child, which is [`Word::UNUSED`] so far, by CAS, then the
//!    child's control word, by CAS. All helpers write the same values, so it does not matter whose
//!    CAS succeeds. A late helper finds no unused slot, so it cannot restore an entry that was
//!    removed since.
//! 3. *Hand over*: the control word of the unit's first bucket becomes *moved*, by CAS. Before the
//!    CAS the frozen buckets are authoritative, after it the children. One word decides for the
//!    whole unit.
//!
//! When all units have moved, the next array becomes the root, and the old one is retired. No
//! helper waits for another: if one is stopped in a step, the next one completes it.
//!
//! A helper finds the child of an entry from the 32 bits of the hash that the slab stores beside
//! its cell, and calls no user code. An entry's word is copied unchanged. If a helper has seen the
//! unit unmoved under its guard, all entries of the unit were in the table then, so their cells are
//! not reused under that guard.
//!
//! Entries keep their slot numbers when the table grows. When it shrinks, entries that find no slot
//! in the child are displaced: the last ones of the second bucket. The thread whose CAS handed the
//! unit over passes them to its caller.
//!
//! # Orderings
//!
//! * Release of the hand-over ↔ Acquire of the control word's load: the children are filled.
//! * Release of the count of moved units ↔ its Acquire, and Release of the root's exchange ↔
//!   Acquire of its load: all units of the old array have moved.
//! * Release of `link` ↔ Acquire of `next`: the next array is initialized. It is linked before a
//!   bucket is frozen, so a thread that sees a frozen bucket finds it.

use std::ptr;

use super::{
    Hints, Table, Unlinked,
    array::{Array, OldArray},
    bucket::{Bucket, Word},
    control::{Control, SLOTS},
};
use crate::{
    primitives::stack::Node, reclaim::Guard, slab::Handle, sync::atomic::Ordering::*, util::for_all,
};

/// Requests to grow that are refused after one has found no memory. Each request is caused by a
/// full bucket, so a table that cannot grow calls the allocator once in this many local evictions.
const REFUSALS: usize = 256;
/// Units that a helper checks for each unit that it moves, to find out whether all have moved. More
/// than one, so that the check catches up with units that other helpers have moved out of order.
const LOOKS_PER_UNIT: usize = 4;

impl<T> Table<T> {
    /// Returns the number of buckets of the root or, during a resize, of the next array.
    pub fn buckets(&self, guard: &Guard) -> usize {
        let root = self.root(guard);
        root.next(guard).unwrap_or(root).count()
    }

    /// Returns the number of slots of the root.
    pub fn slots(&self, guard: &Guard) -> usize {
        self.root(guard).count() * SLOTS
    }

    /// Returns the number of units that were found moved, if the table is being resized.
    pub fn moved_units(&self, guard: &Guard) -> Option<usize> {
        let root = self.root(guard);
        root.next(guard).map(|_| root.moved_units())
    }

    /// Begins to double the table, unless it is being resized already; returns whether it is being
    /// resized.
    ///
    /// Returns `false` if there is no memory. The next requests are then refused without calling
    /// the allocator.
    pub fn grow(&self, guard: &Guard) -> bool {
        let root = self.root(guard);
        if root.next(guard).is_some() {
            return true;
        }
        if root.refuses() {
            return false;
        }
        let is_begun = self.resize(guard, root, root.count().saturating_mul(2));
        if !is_begun {
            root.refuse(REFUSALS);
        }
        is_begun
    }

    /// Begins to halve the table, unless it is being resized already; returns whether it is being
    /// resized. Only an even number of buckets can be halved.
    pub fn shrink(&self, guard: &Guard) -> bool {
        let root = self.root(guard);
        root.next(guard).is_some()
            || (root.count().is_multiple_of(2) && self.resize(guard, root, root.count() / 2))
    }

    fn resize(&self, guard: &Guard, root: &Array, count: usize) -> bool {
        let Ok(next) = Array::new(count) else { return false };
        root.link(Box::new(next));
        // If it has ceased to be the root, it has a next array as well.
        debug_assert!(root.next(guard).is_some());
        true
    }

    /// Moves up to `units` units, if the table is being resized; returns whether it was. Calls
    /// `on_displaced` for each displaced entry.
    #[inline]
    pub fn help(&self, guard: &Guard, units: usize, on_displaced: impl FnMut(Unlinked)) -> bool {
        let array = self.root(guard);
        let next = array.next(guard);
        if let Some(next) = next {
            self.help_from(guard, array, next, units, on_displaced);
        }
        next.is_some()
    }

    #[cold]
    fn help_from(
        &self,
        guard: &Guard,
        array: &Array,
        next: &Array,
        units: usize,
        mut on_displaced: impl FnMut(Unlinked),
    ) {
        let all = units_of(array, next);
        let mut has_moved = false;
        for _ in 0..units.min(all) {
            let unit = array.next_unit(all);
            has_moved |= self.move_unit(guard, array, next, unit, &mut on_displaced);
        }
        self.promote_if_done(guard, array, next, units.saturating_mul(LOOKS_PER_UNIT), has_moved);
    }

    /// Moves the unit of a bucket, and returns the array that is then authoritative for its hashes.
    #[cold]
    pub(super) fn moved<'g>(
        &'g self,
        guard: &'g Guard,
        array: &'g Array,
        index: usize,
        on_displaced: &mut impl FnMut(Unlinked),
    ) -> &'g Array {
        let next = array.next(guard).expect("a bucket moves to a next array");
        let has_moved =
            self.move_unit(guard, array, next, unit_of(array, next, index), on_displaced);
        self.promote_if_done(guard, array, next, LOOKS_PER_UNIT, has_moved);
        next
    }

    /// Moves a unit, unless it has moved; returns whether this call handed it over.
    fn move_unit(
        &self,
        guard: &Guard,
        array: &Array,
        next: &Array,
        unit: usize,
        on_displaced: &mut impl FnMut(Unlinked),
    ) -> bool {
        let first = first_of(array, next, unit);
        // Read under the guard, before any handle: see "Protocol".
        if array.at(first).control().is_moved() && !mutant!("resize_moves_again") {
            return false;
        }
        let mut displaced = Vec::new();
        if next.count() > array.count() {
            let parent = array.at(first);
            parent.freeze();
            for child in [2 * unit, 2 * unit + 1] {
                let goes_there = |entry: &Moving<'_>| {
                    next.index(self.upper_of_moving(guard, entry.handle)) == child
                };
                let mut tags = [None; SLOTS];
                for (slot, tag) in tags.iter_mut().enumerate() {
                    let from = moving(parent, slot).filter(goes_there);
                    *tag = from.as_ref().map(|entry| entry.tag);
                    next.at(child).fill(slot, from.as_ref());
                }
                next.at(child).put_in_use(&tags);
            }
        } else {
            let parents = [array.at(first), array.at(first + 1)];
            parents.iter().for_each(|parent| parent.freeze());
            let mut entries = parents
                .into_iter()
                .flat_map(|parent| (0..SLOTS).filter_map(|slot| moving(parent, slot)));
            let mut tags = [None; SLOTS];
            for (slot, tag) in tags.iter_mut().enumerate() {
                let from = entries.next();
                *tag = from.as_ref().map(|entry| entry.tag);
                next.at(unit).fill(slot, from.as_ref());
            }
            displaced.extend(entries);
            next.at(unit).put_in_use(&tags);
        }
        let is_ours = array.at(first).hand_over();
        if is_ours || mutant!("resize_displaced_twice") {
            let out = |entry: Moving<'_>| {
                self.unlinked_of(entry.bucket, entry.slot, entry.tag, entry.word)
            };
            for_all(displaced.into_iter().filter_map(out), on_displaced);
        }
        is_ours
    }

    fn upper_of_moving(&self, guard: &Guard, handle: Handle) -> u32 {
        #[cfg(any(cortado_loom, cortado_shuttle))]
        guard.check_readable(self.key_of(handle));
        let _ = guard;
        self.upper_of(handle)
    }

    /// Returns the upper 32 bits of the hash of an entry.
    #[inline]
    pub fn upper_of(&self, handle: Handle) -> u32 {
        // SAFETY: the callers have loaded the handle from a slot by an Acquire.
        unsafe { self.slab.cell(handle) }.hash()
    }

    /// Makes `next` the root if all units have moved; checks up to `max` units that were not found
    /// moved yet.
    fn promote_if_done(
        &self,
        guard: &Guard,
        array: &Array,
        next: &Array,
        max: usize,
        has_moved: bool,
    ) {
        // A helper that has moved the last unit may be stopped before it gets here.
        if mutant!("resize_last_promotes") && !has_moved {
            return;
        }
        let has_moved = |unit| array.at(first_of(array, next, unit)).control().is_moved();
        // Every helper that finds all units moved promotes, not only the one that counted the last:
        // that one may be stopped, too.
        if array.have_moved(max, units_of(array, next), has_moved) {
            self.promote(guard, array, next);
        }
    }

    /// Makes `next` the root, and retires the old array.
    fn promote(&self, _: &Guard, array: &Array, next: &Array) {
        let (old, new) = (ptr::from_ref(array).cast_mut(), ptr::from_ref(next).cast_mut());
        // Release: pairs with the Acquire in `root`. Relaxed on failure: another helper has
        // promoted it.
        let release = ordering!(Release, mutant("resize_relaxed_root") => Relaxed);
        let is_promoted = self.root.compare_exchange(old, new, release, Relaxed).is_ok();
        if !is_promoted && !mutant!("resize_array_twice") {
            return;
        }
        // Relaxed, twice: hints, which another thread may overwrite with older ones.
        self.first.store(ptr::from_ref(next.at(0)).cast_mut(), Relaxed);
        self.count.store(next.count(), Relaxed);
        // SAFETY: it came from `Box::into_raw`; it is no longer the root, and the exchange succeeds
        // once for it.
        let old = unsafe { OldArray::new(old) };
        if mutant!("resize_array_at_once") {
            return;
        }
        self.old_arrays.push(Node::new(old));
    }
}

/// An entry that is being moved into a child.
struct Moving<'g> {
    handle: Handle,
    tag: u64,
    word: Word,
    bucket: &'g Bucket,
    slot: usize,
}

/// Returns the entry in a slot of a frozen bucket, if it has to be moved.
fn moving(bucket: &Bucket, slot: usize) -> Option<Moving<'_>> {
    let tag = bucket.control().tag(slot);
    if tag == 0 {
        return None;
    }
    let word = bucket.word(slot).thawed();
    if word.is_dying() {
        return None;
    }
    word.handle().map(|handle| Moving { handle, tag, word, bucket, slot })
}

/// Returns the number of units of a resize.
fn units_of(array: &Array, next: &Array) -> usize {
    array.count().min(next.count())
}

/// Returns the unit of a bucket.
fn unit_of(array: &Array, next: &Array, index: usize) -> usize {
    if next.count() > array.count() { index } else { index / 2 }
}

/// Returns the bucket of a unit whose control word says whether it has moved.
fn first_of(array: &Array, next: &Array, unit: usize) -> usize {
    if next.count() > array.count() { unit } else { 2 * unit }
}

/// Returns whether the unit of a frozen bucket has moved.
pub(super) fn has_moved(array: &Array, next: &Array, index: usize) -> bool {
    array.at(first_of(array, next, unit_of(array, next, index))).control().is_moved()
}

impl Bucket {
    /// Fills a slot of a child, unless it was filled before.
    fn fill(&self, slot: usize, from: Option<&Moving<'_>>) {
        let word = from.map_or(Word::EMPTY, |entry| entry.word);
        let is_empty = || self.word(slot) == Word::EMPTY;
        let unfilled =
            if mutant!("resize_no_unused") && is_empty() { Word::EMPTY } else { Word::UNUSED };
        if self.change_word(slot, unfilled, word)
            && let Some(&Moving { bucket, slot: old, .. }) = from
        {
            // A reader may see the entry before its hints.
            self.set_hints(slot, Hints { access: bucket.access(old), class: bucket.class(old) });
        }
    }

    /// Puts a filled child in use, with the tags of its slots, unless it already is.
    fn put_in_use(&self, tags: &[Option<u64>; SLOTS]) {
        let mut control = Control::EMPTY;
        for (slot, tag) in tags.iter().enumerate() {
            if let Some(tag) = *tag {
                control = control.with(slot, tag);
            }
        }
        self.change_control(Control::UNUSED, control);
    }

    /// Hands a frozen bucket over to its children; returns whether this call did so.
    fn hand_over(&self) -> bool {
        let control = self.control();
        !control.is_moved() && self.change_control(control, control.moved())
    }
}

#[cfg(all(test, not(any(cortado_loom, cortado_shuttle))))]
mod tests {
    use std::{
        cell::{Cell, RefCell},
        sync::atomic::AtomicU64,
    };

    use super::{
        super::{
            Probe, Publish,
            testing::{Entries, Entry, get, help, put, remove, spread, sweep},
        },
        *,
    };
    use crate::sync::thread;

    fn unreached(_: u64) {
        unreachable!("there is room for all");
    }

    fn filled<'a>(buckets: usize, keys: u64, alive: &'a AtomicU64) -> Entries<'a> {
        let table = Table::new(buckets, 1000, 1).unwrap();
        let guard = table.pin();
        for key in 0..keys {
            let entry = Entry::new(key, key, alive);
            assert_eq!(put(&table, &guard, spread(key), entry, unreached), None);
        }
        drop(guard);
        table
    }

    /// Returns the keys that a lookup finds, and checks that iteration returns the same.
    fn keys(table: &Entries<'_>, guard: &Guard) -> Vec<u64> {
        let found = (0..100).filter(|&key| get(table, guard, spread(key), key).is_some()).collect();
        let mut shown: Vec<u64> = table.iter(guard).map(|hit| hit.entry.key).collect();
        shown.sort_unstable();
        assert_eq!(found, shown);
        found
    }

    #[test]
    fn entries_are_found_at_every_step_of_growing() {
        let alive = AtomicU64::new(0);
        for buckets in [1, 2, 3, 8] {
            let table = filled(buckets, 5 * buckets as u64, &alive);
            let guard = table.pin();
            let all = keys(&table, &guard);
            assert_eq!(all.len(), 5 * buckets);
            for _ in 0..3 {
                let before = table.buckets(&guard);
                assert!(table.grow(&guard) && table.grow(&guard));
                assert_eq!(table.buckets(&guard), 2 * before);
                while help(&table, &guard, 1, unreached) {
                    assert_eq!(keys(&table, &guard), all);
                }
                assert_eq!(keys(&table, &guard), all);
            }
            drop(guard);
            assert_eq!((sweep(&table), alive.load(Relaxed)), (0, 5 * buckets as u64));
            drop(table);
            assert_eq!(alive.load(Relaxed), 0);
        }
    }

    #[test]
    fn shrinking_displaces_only_entries_without_a_slot() {
        let alive = AtomicU64::new(0);
        for keys_before in [8, 16, 20] {
            let table = filled(4, keys_before, &alive);
            let guard = table.pin();
            let mut all = keys(&table, &guard);
            while table.buckets(&guard) > 1 {
                assert!(table.shrink(&guard));
                let displaced = RefCell::new(Vec::new());
                while help(&table, &guard, 1, |key| displaced.borrow_mut().push(key)) {
                    all.retain(|key| !displaced.borrow().contains(key));
                    assert_eq!(keys(&table, &guard), all);
                }
            }
            assert_eq!(all.len(), SLOTS, "one bucket is full");
            assert!(!table.shrink(&guard), "an odd number");
            drop(guard);
            assert_eq!(sweep(&table) as u64, keys_before - SLOTS as u64);
            assert_eq!(alive.load(Relaxed), SLOTS as u64);
            drop(table);
            assert_eq!(alive.load(Relaxed), 0);
        }
    }

    #[test]
    fn writers_move_frozen_buckets() {
        let alive = AtomicU64::new(0);
        let table = filled(1, 5, &alive);
        let guard = table.pin();
        assert!(table.grow(&guard));
        // The insert moves the only bucket, which completes the resize.
        table.root(&guard).at(0).freeze();
        assert_eq!(keys(&table, &guard), [0, 1, 2, 3, 4]);
        let entry = Entry::new(1, 11, &alive);
        assert_eq!(put(&table, &guard, spread(1), entry, unreached), Some(1));
        assert_eq!(table.root(&guard).count(), 2);
        assert_eq!(get(&table, &guard, spread(1), 1), Some(11));
        assert!(table.grow(&guard));
        table.root(&guard).at(0).freeze();
        table.root(&guard).at(1).freeze();
        assert_eq!(remove(&table, &guard, spread(1), 1, unreached), Some(11));
        assert_eq!(remove(&table, &guard, spread(77), 77, unreached), None);
        assert_eq!(keys(&table, &guard), [0, 2, 3, 4]);
    }

    #[test]
    fn full_bucket_makes_room_by_growing() {
        let alive = AtomicU64::new(0);
        let table = filled(1, SLOTS as u64, &alive);
        let guard = table.pin();
        for key in 8..40 {
            let mut fresh = table.prepare(Entry::new(key, key, &alive), spread(key), 0).unwrap();
            let mut claim = fresh.claim_slot(&guard);
            loop {
                let on_displaced = |_| unreachable!("there is room for all");
                let probe =
                    table.probe(&guard, spread(key), |entry| entry.key == key, on_displaced);
                let Probe::Absent(vacant) = probe else { panic!("{key} is there") };
                match vacant.publish(&mut claim, Hints::default(), |a, b| a.key == b.key) {
                    Publish::Done(_) => break,
                    Publish::Full(full) => {
                        if !full.grow(on_displaced) {
                            // The bucket of the next array is full, too: that array must become the
                            // root first.
                            while help(&table, &guard, 1, unreached) {}
                        }
                    }
                    Publish::Changed => {}
                    Publish::Duplicates(..) => unreachable!("no version wraps here"),
                }
            }
            assert_eq!(keys(&table, &guard).len() as u64, key + 1);
        }
    }

    #[test]
    fn hints_move_with_the_entry() {
        let alive = AtomicU64::new(0);
        let table = filled(4, 16, &alive);
        let guard = table.pin();
        let find = |key| table.find(&guard, spread(key), |entry| entry.key == key).unwrap();
        for key in 0..16 {
            find(key).set_access(key as u16 + 100);
            find(key).set_class(key as u8);
        }
        let check = || {
            for key in keys(&table, &guard) {
                assert_eq!(find(key).access(), key as u16 + 100);
                assert_eq!(find(key).class(), key as u8);
            }
        };
        assert!(table.grow(&guard));
        while help(&table, &guard, 1, unreached) {
            check();
        }
        assert!(table.shrink(&guard));
        while help(&table, &guard, 1, unreached) {
            check();
        }
    }

    #[test]
    fn table_that_is_dropped_in_the_middle_drops_every_entry_once() {
        let alive = AtomicU64::new(0);
        for is_growth in [true, false] {
            for steps in 0..5 {
                let table = filled(4, 16, &alive);
                let guard = table.pin();
                assert!(if is_growth { table.grow(&guard) } else { table.shrink(&guard) });
                (0..steps).for_each(|_| _ = help(&table, &guard, 1, |_| ()));
                // Simulates a thread that was stopped in the middle of a move.
                if let Some(next) = table.root(&guard).next(&guard) {
                    let root = table.root(&guard);
                    let index = (0..4).find(|&index| !has_moved(root, next, index)).unwrap();
                    root.at(index).freeze();
                    let unit = unit_of(root, next, index);
                    let entry = moving(root.at(index), 0);
                    next.at(unit * next.count() / units_of(root, next)).fill(0, entry.as_ref());
                }
                drop(guard);
                assert_eq!(alive.load(Relaxed), 16);
                drop(table);
                assert_eq!(alive.load(Relaxed), 0);
            }
        }
    }

    #[test]
    fn table_without_memory_calls_the_allocator_once_in_many_requests() {
        let alive = AtomicU64::new(0);
        let table = filled(1, 1, &alive);
        let guard = table.pin();
        table.root(&guard).refuse(2);
        assert_eq!([(); 3].map(|()| table.grow(&guard)), [false, false, true]);
    }

    #[test]
    fn every_entry_has_one_owner_under_concurrent_writes_and_resizes() {
        const THREADS: u64 = 8;
        const TURNS: u64 = 20_000;
        const KEYS: u64 = 100;

        let alive = AtomicU64::new(0);
        let table = Table::new(4, 1000, 4).unwrap();
        // Insertions less removals.
        let balance = AtomicU64::new(0);
        thread::scope(|scope| {
            for id in 1..=THREADS {
                let (table, alive, balance) = (&table, &alive, &balance);
                scope.spawn(move || {
                    let out = |_| _ = balance.fetch_sub(1, Relaxed);
                    let mut random = id;
                    for turn in 0..TURNS {
                        if turn % 64 == id {
                            assert!(table.sweep(usize::MAX, None).panic.is_none());
                        }
                        random = random.wrapping_mul(6364136223846793005).wrapping_add(1);
                        let key = (random >> 33) % KEYS;
                        let guard = table.pin();
                        match (random >> 56) % 16 {
                            0..4 => {
                                if remove(table, &guard, spread(key), key, out).is_some() {
                                    balance.fetch_sub(1, Relaxed);
                                }
                            }
                            4..8 => {
                                let value = get(table, &guard, spread(key), key);
                                assert!(value.is_none_or(|value| value / TURNS / 16 == key));
                            }
                            8 if turn.is_multiple_of(8) => {
                                let seen = table.iter(&guard).filter(|hit| hit.entry.key < KEYS);
                                assert!(seen.count() as u64 <= 4 * KEYS);
                            }
                            9 if table.buckets(&guard) <= 16 => _ = table.grow(&guard),
                            10 if table.buckets(&guard) > 2 => _ = table.shrink(&guard),
                            11 => _ = help(table, &guard, 2, out),
                            _ => {
                                let value = (key * 16 + id) * TURNS + turn;
                                let entry = Entry::new(key, value, alive);
                                if put(table, &guard, spread(key), entry, out).is_none() {
                                    balance.fetch_add(1, Relaxed);
                                }
                            }
                        }
                    }
                });
            }
        });
        let guard = table.pin();
        let displaced = Cell::new(0);
        while help(&table, &guard, 8, |_| displaced.set(displaced.get() + 1)) {}
        let there = keys(&table, &guard).len() as u64;
        drop(guard);
        sweep(&table);
        assert_eq!(balance.load(Relaxed) - displaced.get(), there);
        assert_eq!(alive.load(Relaxed), there);
        drop(table);
        assert_eq!(alive.load(Relaxed), 0);
    }
}
