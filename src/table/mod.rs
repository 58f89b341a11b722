//! The hash table: a lock-free set of entries, stored in a [`Slab`] and found by a hash and the
//! caller's comparison.
//!
//! The table is eight-way set-associative. A hash selects one bucket, which is one cache line, and
//! the bucket's control word alone decides which of its eight slots hold an entry. So a key is
//! in the table at most once, a removal frees its slot at once, and a full bucket affects that
//! bucket only: the caller chooses the victim. The table knows neither keys nor costs.
//!
//! # Protocol
//!
//! A slot is *free*, *claimed* (an inserter has stored its handle in the entry word; no other
//! thread may touch the slot or the entry), *published* (the control word shows a tag for the slot)
//! or *dying* (its entry was removed in place; only the slot is still to be freed).
//!
//! | move | by | decided by |
//! |---|---|---|
//! | free → claimed | an inserter | CAS of the entry word |
//! | claimed → published | the same inserter | CAS of the control word, unchanged since its scan |
//! | claimed → free | the same inserter | store to the entry word |
//! | published → published (replace) | any thread | CAS of the entry word, after validating |
//! | published → free (unlink) | any thread | CAS of the control word, swap of the entry word |
//! | published → dying (remove exactly this) | any thread | CAS of the entry word |
//! | dying → free | any thread | CAS of the control word, swap of the entry word |
//!
//! A reader loads the control word, then the entry word of a slot with the tag, then both again. If
//! the entry word is the same and the tag is still there, the entry was published in between. A
//! reader writes nothing.
//!
//! A thread that unlinks an entry holds it as [`Unlinked`], and no other thread does. Writers work
//! in two steps: [`Table::probe`] returns what is there, and its result either makes the change or
//! reports that the bucket has changed and that the caller must probe again. No step waits for
//! another thread. [`resize`] describes how the table grows and shrinks.
//!
//! # Hashes
//!
//! ```text
//! bits  0..6    the tag, in the control word
//! bits  6..10   in the entry word; with the tag, another key is compared in 1 of 1000 lookups
//! bits 32..64   select the bucket; the slab stores them, for resizing and for the policy
//! ```

mod array;
mod bucket;
mod control;
mod find;
mod fresh;
mod iter;
mod loose;
mod ranking;
mod resize;
mod retire;
mod sample;
#[cfg(all(test, not(any(cortado_loom, cortado_shuttle))))]
mod testing;
mod write;

pub use control::SLOTS;
pub use find::{EntryRef, Held, Hit, Metadata, SlotRef, Spot};
pub use fresh::{Fresh, Reserved, SlotClaim};
pub use iter::Iter;
pub use loose::Loose;
pub use ranking::{BucketHints, Ranker, Ranking, Scores, Threshold};
pub use retire::{Finalizer, OpenBag, Swept, Terms};
pub use sample::{BucketView, POSITION_BITS, Passed, Position, Run, Sampled, SampledSlot};
pub use write::{Full, Occupied, Panic, Probe, Publish, Vacant};

use std::ptr;

use self::{
    array::{Array, OldArray},
    bucket::{Bucket, Word},
    control::Control,
};
use crate::{
    error::OutOfMemory,
    primitives::stack::{Node, Stack},
    reclaim::{Domain, Guard, Part, limbo::LimboLists, pin_for},
    slab::{Bags, Handle, Slab, prefetch},
    sync::atomic::{AtomicPtr, AtomicUsize, Ordering::*},
};

/// Entries up to which a table has the lower load factor: ten bytes per entry do not matter there.
const FEW_ENTRIES: usize = 1 << 16;
/// The bits of a hash that a table stores for its entries; see the [module](self).
pub const HASH_BITS: u64 = 0xffff_ffff_0000_03ff;

/// A lock-free set of `T`.
pub struct Table<T> {
    /// The reclamation domain of the table's guards and entries.
    domain: Domain,
    /// The array in which every search begins.
    root: AtomicPtr<Array>,
    /// The first bucket of the root and the number of its buckets: hints for a prefetch, which
    /// needs no guard.
    first: AtomicPtr<Bucket>,
    count: AtomicUsize,
    slab: Slab<T>,
    /// Sealed bags of retired handles.
    sealed: Bags,
    /// The numbers of bags that wait for their grace periods.
    limbo: LimboLists<u32>,
    /// The number of bags whose values have left the garbage counters and are not all dropped yet.
    freeing: AtomicUsize,
    /// Arrays that have ceased to be the root.
    old_arrays: Stack<OldArray>,
    /// Such arrays whose grace period has begun.
    array_limbo: LimboLists<Box<Node<OldArray>>>,
}

/// An entry that was unlinked from the table. Only its holder may retire it.
///
/// Readers that were pinned before may still read it.
#[must_use = "an entry that is not retired is leaked"]
#[derive(Debug, PartialEq, Eq)]
pub struct Unlinked {
    handle: Handle,
    /// The bits of its hash that its bucket shows.
    low: u16,
    /// The access bits of its slot when it was unlinked.
    access: u16,
    /// The domain of its table.
    domain: Domain,
}

impl Unlinked {
    /// Returns the entry's handle.
    pub fn handle(&self) -> Handle {
        self.handle
    }

    /// Returns the access bits of its slot when it was unlinked. A hint; 0 if it was in none.
    pub fn access(&self) -> u16 {
        self.access
    }
}

/// What the policy stores in the bucket of an entry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Hints {
    /// The access bits.
    pub access: u16,
    /// The class.
    pub class: u8,
}

/// Returns a hash without the bits that a table does not store. Those never distinguish two keys.
#[inline]
pub fn known(hash: u64) -> u64 {
    (hash & HASH_BITS & !control::TAG) | Control::tag_of(hash)
}

impl<T> Table<T> {
    /// Creates an empty table of `buckets` buckets for `expected` entries and about `stripes`
    /// concurrent threads.
    ///
    /// # Errors
    ///
    /// [`OutOfMemory`] if the buckets cannot be allocated, or if there would be more than 2^30.
    pub fn new(buckets: usize, expected: usize, stripes: usize) -> Result<Self, OutOfMemory> {
        let root = Box::new(Array::new(buckets)?);
        let (first, count) = (ptr::from_ref(root.at(0)).cast_mut(), root.count());
        Ok(Self {
            first: AtomicPtr::new(first),
            count: AtomicUsize::new(count),
            domain: Domain::new(),
            root: AtomicPtr::new(Box::into_raw(root)),
            slab: Slab::new(expected, stripes),
            sealed: Bags::new(stripes),
            freeing: AtomicUsize::new(0),
            limbo: LimboLists::new(stripes),
            old_arrays: Stack::new(),
            array_limbo: LimboLists::new(1),
        })
    }

    /// Prefetches the bucket of a hash.
    #[inline]
    pub fn prefetch(&self, hash: u64) {
        prefetch(self.hinted(upper(hash)));
    }

    /// Returns the likely address of a bucket. It must not be dereferenced.
    #[inline]
    fn hinted(&self, upper: u32) -> *const Bucket {
        // Relaxed, twice: hints. The two values may be of different arrays.
        let (first, count) = (self.first.load(Relaxed), self.count.load(Relaxed));
        first.wrapping_add(((u64::from(upper) * count as u64) >> 32) as usize)
    }

    /// Pins the current thread for this table: all entries that are in it now stay readable under
    /// the guard.
    #[inline]
    pub fn pin(&self) -> Guard {
        pin_for(self.domain)
    }

    /// Like [`pin`](Self::pin), but protects only the entries of the part of one hash. Other
    /// entries may be dropped under the guard.
    #[inline]
    pub fn pin_part(&self, hash: u64) -> Guard {
        pin_for(self.part_of(hash))
    }

    /// Like [`pin`](Self::pin), but protects only the buckets and the metadata of entries. The
    /// entries themselves may be dropped under the guard.
    #[inline]
    pub fn pin_structure(&self) -> Guard {
        pin_for(self.domain.structure())
    }

    /// Returns the part of the domain that contains the entries of a hash.
    #[inline]
    fn part_of(&self, hash: u64) -> Domain {
        self.domain.part(part(Control::tag_of(hash), Word::bits_of(hash)))
    }

    /// Ends the pin of a guard and begins a new one, unless the thread has other guards.
    #[inline]
    pub fn repin(&self, guard: &mut Guard) {
        guard.repin(self.domain);
    }

    /// Returns the reclamation domain of this table.
    pub fn domain(&self) -> Domain {
        self.domain
    }

    /// Returns the bytes of the bucket arrays in use. Retired arrays that wait for their readers
    /// are not counted.
    pub fn bucket_bytes(&self, guard: &Guard) -> usize {
        let root = self.root(guard);
        let buckets = root.count() + root.next(guard).map_or(0, Array::count);
        buckets * size_of::<Bucket>()
    }

    /// Returns the bytes of the cells and of their side arrays, free cells included.
    pub fn cell_bytes(&self) -> usize {
        self.slab.bytes()
    }

    /// Returns the number of cells, including those that were never issued.
    pub fn cells(&self) -> usize {
        self.slab.cells()
    }

    /// Returns an unlinked entry, readable while the guard lives. The guard must cover the part of
    /// the entry.
    ///
    /// # Panics
    ///
    /// Panics if the entry belongs to another table.
    pub fn unlinked<'g>(&'g self, guard: &'g Guard, entry: &Unlinked) -> EntryRef<'g, T> {
        self.check(entry);
        debug_assert!(guard.covers(self.domain.part(entry.low)), "a guard of another part");
        self.entry(guard, entry.handle)
    }

    /// Returns an unlinked entry, readable until it is retired. Only its holder can retire it, so
    /// no guard is needed.
    fn owned<'a>(&'a self, entry: &'a Unlinked) -> EntryRef<'a, T> {
        self.check(entry);
        // SAFETY: the entry was unlinked by an Acquire.
        let cell = unsafe { self.slab.cell(entry.handle) };
        let metadata = Metadata { handle: entry.handle, cell };
        // SAFETY: a value is dropped only after it was retired, which consumes `entry`.
        EntryRef { entry: unsafe { &*metadata.cell.address() }, metadata }
    }

    /// Returns the metadata of an unlinked entry, under any guard of the table.
    ///
    /// # Panics
    ///
    /// Panics if the entry belongs to another table.
    #[inline]
    pub fn metadata_of<'g>(&'g self, guard: &'g Guard, entry: &Unlinked) -> Metadata<'g, T> {
        self.check(entry);
        self.metadata(guard, entry.handle)
    }

    fn check(&self, entry: &Unlinked) {
        assert_eq!(entry.domain, self.domain, "an entry of another table");
    }

    /// Returns the entry of a word that was taken out of a slot with this tag.
    fn unlinked_of(&self, bucket: &Bucket, slot: usize, tag: u64, word: Word) -> Option<Unlinked> {
        Some(Unlinked {
            handle: word.handle()?,
            low: part(tag, word.bits()),
            // A hint: the slot may hold another entry by now.
            access: bucket.access(slot),
            domain: self.domain,
        })
    }

    /// Like `unlinked_of`, but returns `None` for a dying entry, which belongs to the thread that
    /// marked it.
    fn taken(&self, bucket: &Bucket, slot: usize, tag: u64, word: Word) -> Option<Unlinked> {
        if word.is_dying() { None } else { self.unlinked_of(bucket, slot, tag, word) }
    }

    /// Returns the hash of an unlinked entry, as [`known`] returns it.
    pub fn hash_of(&self, entry: &Unlinked) -> u64 {
        u64::from(self.upper_of(entry.handle)) << 32 | u64::from(entry.low)
    }

    #[inline]
    fn root<'g>(&'g self, guard: &'g Guard) -> &'g Array {
        debug_assert!(guard.covers(self.domain.structure()), "a guard of another table");
        // Acquire: pairs with the Release in `promote`, so that the array is seen initialized and
        // its units moved.
        let root = self.root.load(Acquire);
        // SAFETY: never null; an array is retired only after it has ceased to be the root, so the
        // guard protects it.
        unsafe { &*root }
    }

    /// Returns the entry of a handle that was published at some moment under the guard. The guard
    /// must cover the part of the entry.
    #[inline]
    fn entry<'g>(&'g self, guard: &'g Guard, handle: Handle) -> EntryRef<'g, T> {
        let metadata = self.metadata(guard, handle);
        // SAFETY: it was published under the guard; an entry is retired after it was unlinked, and
        // is dropped after every guard that covers its part is gone.
        EntryRef { entry: unsafe { &*metadata.cell.address() }, metadata }
    }

    /// Returns the metadata of a handle that was published at some moment under the guard.
    #[inline]
    fn metadata<'g>(&'g self, guard: &'g Guard, handle: Handle) -> Metadata<'g, T> {
        debug_assert!(guard.covers(self.domain.structure()), "a guard of another table");
        #[cfg(any(cortado_loom, cortado_shuttle))]
        guard.check_readable(self.key_of(handle));
        // SAFETY: the callers have seen the handle published by an Acquire.
        Metadata { handle, cell: unsafe { self.slab.cell(handle) } }
    }

    /// Returns a key for a handle that is unique among all tables, for the models.
    #[cfg(any(cortado_loom, cortado_shuttle))]
    fn key_of(&self, handle: Handle) -> usize {
        self.domain.number() as usize * (Handle::MASK as usize + 1) + handle.raw() as usize
    }
}

/// Returns the number of buckets for a number of entries.
pub fn buckets_for(entries: usize) -> usize {
    // Load factor 3/8 where memory does not matter, and 9/20 beyond.
    let slots = if entries <= FEW_ENTRIES {
        entries.saturating_mul(8) / 3
    } else {
        entries.saturating_mul(20) / 9
    };
    // An even number can be halved again when the table shrinks.
    slots.div_ceil(SLOTS).max(1).next_multiple_of(2)
}

/// Returns how many entries a table of `slots` slots is sized for: the inverse of [`buckets_for`].
pub fn entries_for(slots: usize) -> usize {
    let many = slots.saturating_mul(9).div_ceil(20);
    if many > FEW_ENTRIES { many } else { slots * 3 / 8 }
}

/// Returns the part of the entries with this tag and these four bits: all of a hash that a bucket
/// shows.
#[inline]
fn part(tag: u64, bits: u32) -> Part {
    (bits as u16) << control::TAG_BITS | tag as u16
}

/// Returns the bits of a hash that select its bucket.
#[inline]
fn upper(hash: u64) -> u32 {
    (hash >> 32) as u32
}

impl<T> std::fmt::Debug for Table<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let buckets = self.buckets(&self.pin());
        f.debug_struct("Table").field("buckets", &buckets).finish_non_exhaustive()
    }
}

#[cfg(all(test, not(any(cortado_loom, cortado_shuttle))))]
mod tests {
    use std::{
        cell::Cell,
        panic::{AssertUnwindSafe, catch_unwind},
        sync::atomic::AtomicU64,
    };

    use super::{
        testing::{Entry, get, none, put, remove, spread, sweep},
        *,
    };
    use crate::sync::thread;

    fn unreached(_: u64) {
        unreachable!("the table is not resized");
    }

    #[test]
    fn table_is_sized_for_the_entries_that_it_was_made_for() {
        for entries in (1..200_000).chain([1 << 20, 8_000_000, 1 << 40]) {
            let slots = buckets_for(entries) * SLOTS;
            let sized_for = entries_for(slots);
            assert!(sized_for >= entries, "{sized_for} of {entries}, {slots} slots");
            assert!(entries < 100 || sized_for < entries * 5 / 4, "{sized_for} of {entries}");
        }
    }

    #[test]
    fn entry_is_inserted_replaced_found_and_removed() {
        let alive = AtomicU64::new(0);
        let table = Table::new(1, 10, 1).unwrap();
        let guard = table.pin();
        let put = |key, value| put(&table, &guard, key, Entry::new(key, value, &alive), |_| ());
        assert_eq!(get(&table, &guard, 1, 1), None);
        assert_eq!((put(1, 10), put(2, 20)), (None, None));
        assert_eq!((get(&table, &guard, 1, 1), get(&table, &guard, 2, 2)), (Some(10), Some(20)));
        assert_eq!((put(1, 11), get(&table, &guard, 1, 1)), (Some(10), Some(11)));
        assert_eq!(remove(&table, &guard, 1, 1, unreached), Some(11));
        assert_eq!(remove(&table, &guard, 1, 1, unreached), None);
        assert_eq!((get(&table, &guard, 1, 1), get(&table, &guard, 2, 2)), (None, Some(20)));
        assert_eq!(alive.load(Relaxed), 3);
        drop(guard);
        assert_eq!((sweep(&table), alive.load(Relaxed)), (2, 1));
        drop(table);
        assert_eq!(alive.load(Relaxed), 0);
    }

    #[test]
    fn full_bucket_evicts_the_chosen_entry_and_frees_its_slot_at_once() {
        let alive = AtomicU64::new(0);
        let table = Table::new(1, 10, 1).unwrap();
        let guard = table.pin();
        let evicted = Cell::new(0_u64);
        for key in 0..1000u64 {
            let count = |_| evicted.set(evicted.get() + 1);
            assert_eq!(put(&table, &guard, spread(key), Entry::new(key, key, &alive), count), None);
            assert_eq!(get(&table, &guard, spread(key), key), Some(key));
            assert_eq!(evicted.get(), (key + 1).saturating_sub(SLOTS as u64));
        }
        let there = |&key: &u64| get(&table, &guard, spread(key), key).is_some();
        assert_eq!((0..1000).filter(there).count(), SLOTS);
    }

    #[test]
    fn held_entry_outlives_its_removal() {
        let alive = AtomicU64::new(0);
        let table = Table::new(1, 10, 1).unwrap();
        put(&table, &table.pin(), 1, Entry::new(1, 10, &alive), |_| ());
        let held = table.hold(table.pin(), |table, guard| {
            table.find(guard, 1, |entry| entry.key == 1).map(|hit| hit.at())
        });
        let held = held.unwrap();
        assert_eq!(remove(&table, &table.pin(), 1, 1, unreached), Some(10));
        table.seal();
        assert_eq!(table.sweep(usize::MAX, None).freed, 0);
        assert_eq!((held.value, alive.load(Relaxed)), (10, 1));
        drop(held);
        assert_eq!((sweep(&table), alive.load(Relaxed)), (1, 0));
        assert!(table.hold(table.pin(), |_, _| None).is_none());
    }

    #[test]
    fn for_many_looks_hashes_up_in_order() {
        let alive = AtomicU64::new(0);
        let table = Table::new(8, 100, 1).unwrap();
        let guard = table.pin();
        for key in (0..30).step_by(2) {
            put(&table, &guard, spread(key), Entry::new(key, key + 100, &alive), |_| ());
        }
        let hashes: Vec<u64> = (0..40).map(spread).collect();
        let mut found = Vec::new();
        table.for_many(&guard, &hashes, |index, hash| {
            assert_eq!((index, hash), (found.len(), spread(index as u64)));
            let hit = table.find(&guard, hash, |entry| entry.key == index as u64);
            found.push(hit.map(|hit| hit.entry.value));
        });
        let there = |key: &u64| key.is_multiple_of(2) && *key < 30;
        let expected: Vec<_> = (0..40).map(|key| there(&key).then_some(key + 100)).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn clear_removes_all_entries_also_during_a_resize() {
        let alive = AtomicU64::new(0);
        for steps in 0..5 {
            let table = Table::new(4, 100, 1).unwrap();
            let guard = table.pin();
            for key in 0..16 {
                put(&table, &guard, spread(key), Entry::new(key, key, &alive), unreached);
            }
            assert!(table.grow(&guard));
            (0..steps).for_each(|_| _ = table.help(&guard, 1, none));
            let mut keys = Vec::new();
            table.clear(&guard, |entry| {
                keys.push(table.unlinked(&guard, &entry).key);
                table.retire(&guard, entry, Terms::NONE, 0);
            });
            keys.sort_unstable();
            assert_eq!(keys, (0..16).collect::<Vec<_>>());
            assert_eq!(table.iter(&guard).count(), 0);
            drop(guard);
            assert_eq!((sweep(&table), alive.load(Relaxed)), (16, 0));
        }
    }

    #[test]
    fn cleared_table_gives_its_memory_back() {
        let alive = AtomicU64::new(0);
        let table = Table::new(20_000, 60_000, 1).unwrap();
        let guard = table.pin();
        for key in 0..60_000 {
            put(&table, &guard, spread(key), Entry::new(key, key, &alive), |_| ());
        }
        let full = table.cell_bytes();
        table.clear(&guard, |entry| _ = table.retire(&guard, entry, Terms::NONE, 0));
        drop(guard);
        sweep(&table);
        assert_eq!((table.trim(), alive.load(Relaxed)), (cfg!(target_os = "linux"), 0));
        let left = table.cell_bytes();
        assert!(left < full || cfg!(not(target_os = "linux")), "{left} of {full}");
    }

    #[test]
    fn equal_hashes_are_distinguished_by_the_comparison() {
        let alive = AtomicU64::new(0);
        let table = Table::new(2, 10, 1).unwrap();
        let guard = table.pin();
        for key in 0..5 {
            put(&table, &guard, 7, Entry::new(key, key * 10, &alive), |_| ());
        }
        assert!((0..5).all(|key| get(&table, &guard, 7, key) == Some(key * 10)));
        assert_eq!(remove(&table, &guard, 7, 3, unreached), Some(30));
        assert_eq!(get(&table, &guard, 7, 3), None);
        assert!([0, 1, 2, 4].iter().all(|&key| get(&table, &guard, 7, key) == Some(key * 10)));
    }

    #[test]
    fn entry_that_is_taken_back_leaves_no_trace() {
        let alive = AtomicU64::new(0);
        let table = Table::new(1, 10, 1).unwrap();
        let guard = table.pin();
        // The slot is claimed, but the probe is out of date before the entry can be published.
        let mut fresh = table.prepare(Entry::new(1, 1, &alive), 1, 0).unwrap();
        let Probe::Absent(vacant) = table.probe(&guard, 1, |entry| entry.key == 1, none) else {
            panic!("it is empty");
        };
        put(&table, &guard, 2, Entry::new(2, 2, &alive), |_| ());
        let same = |a: &Entry<'_>, b: &Entry<'_>| a.key == b.key;
        let published = vacant.publish(&mut fresh.claim_slot(&guard), Hints::default(), same);
        assert!(matches!(published, Publish::Changed));
        let handle = fresh.handle();
        assert_eq!(fresh.into_inner().value, 1);
        // The slot is free again, and the cell is not reused before a grace period.
        for key in 3..10 {
            assert_eq!(put(&table, &guard, key, Entry::new(key, key, &alive), |_| panic!()), None);
            let hit = table.find(&guard, key, |entry| entry.key == key).unwrap();
            assert_ne!(hit.handle, handle);
        }
        drop(guard);
        assert_eq!((sweep(&table), alive.load(Relaxed)), (0, 8));
    }

    #[test]
    fn panic_of_a_comparison_leaves_no_claim_and_no_entry() {
        let alive = AtomicU64::new(0);
        let table = Table::new(1, 10, 1).unwrap();
        let guard = table.pin();
        put(&table, &guard, 1, Entry::new(1, 1, &alive), |_| ());
        for _ in 0..100 {
            let fresh = table.prepare(Entry::new(9, 9, &alive), 1, 0).unwrap();
            let result = catch_unwind(AssertUnwindSafe(|| {
                let _fresh = &fresh;
                let _ = table.probe(&guard, 1, |_| panic!("in Eq"), none);
            }));
            assert!(result.is_err());
            drop(fresh);
            assert_eq!(alive.load(Relaxed), 1);
        }
        for key in 2..=SLOTS as u64 {
            put(&table, &guard, key, Entry::new(key, key, &alive), |_| panic!("a slot is taken"));
        }
    }

    #[test]
    fn cells_are_reused_after_their_grace_period() {
        let alive = AtomicU64::new(0);
        let table = Table::new(4, 100, 1).unwrap();
        for key in 0..1000 {
            let guard = table.pin();
            put(&table, &guard, key, Entry::new(key, key, &alive), |_| ());
            assert_eq!(remove(&table, &guard, key, key, unreached), Some(key));
            drop(guard);
            assert_eq!(sweep(&table), 1);
        }
        assert_eq!(alive.load(Relaxed), 0);
        assert!(table.cells() <= 100, "{}", table.cells());
    }

    #[test]
    fn eviction_leaves_the_claim_of_another_insert_alone() {
        let alive = AtomicU64::new(0);
        let table = Table::new(1, 20, 1).unwrap();
        let guard = table.pin();
        let insert = |key: u64| put(&table, &guard, key, Entry::new(key, key, &alive), |_| ());
        let vacant = |key| match table.probe(&guard, key, |entry| entry.key == key, none) {
            Probe::Absent(vacant) => vacant,
            Probe::Found(_) => panic!("{key} is there"),
        };
        let same = |a: &Entry<'_>, b: &Entry<'_>| a.key == b.key;
        (1..=8).for_each(|key| assert_eq!(insert(key), None));
        let old = table.find(&guard, 8, |entry| entry.key == 8).unwrap();
        assert_eq!(
            (remove(&table, &guard, 8, 8, unreached), remove(&table, &guard, 1, 1, unreached)),
            (Some(8), Some(1))
        );
        let probed = vacant(20);
        assert_eq!(insert(1), None);
        // It claims the slot that 8 has left.
        let mut claimed = table.prepare(Entry::new(20, 20, &alive), 20, 0).unwrap();
        let mut claim = claimed.claim_slot(&guard);
        let published = probed.publish(&mut claim, Hints::default(), same);
        assert!(matches!(published, Publish::Changed));
        let mut late = table.prepare(Entry::new(21, 21, &alive), 21, 0).unwrap();
        let mut other = late.claim_slot(&guard);
        let Publish::Full(full) = vacant(21).publish(&mut other, Hints::default(), same) else {
            panic!("full")
        };
        assert_eq!(full.evict(&old), None);
        assert_eq!(full.residents().unwrap().iter().flatten().count(), 7);
        drop((claim, other));
        let again = || drop(claimed.claim_slot(&guard));
        assert!(catch_unwind(AssertUnwindSafe(again)).is_err(), "its handle was in a slot");
        drop((claimed, late));
        assert_eq!(alive.load(Relaxed), 7 + 2);
    }

    #[test]
    fn entry_that_is_published_is_the_tables() {
        let alive = AtomicU64::new(0);
        let table: Table<Entry<'_>> = Table::new(1, 10, 1).unwrap();
        let guard = table.pin();
        let vacant = |key| match table.probe(&guard, key, |entry| entry.key == key, none) {
            Probe::Absent(vacant) => vacant,
            Probe::Found(_) => panic!("{key} is there"),
        };
        let same = |a: &Entry<'_>, b: &Entry<'_>| a.key == b.key;
        let publish = || {
            let mut fresh = table.prepare(Entry::new(1, 1, &alive), 1, 0).unwrap();
            let published =
                vacant(1).publish(&mut fresh.claim_slot(&guard), Hints::default(), same);
            assert!(matches!(published, Publish::Done(_)));
            assert_eq!(remove(&table, &guard, 1, 1, unreached), Some(1));
            fresh
        };
        drop(publish());
        let refuses = |f: &mut dyn FnMut(Fresh<'_, Entry<'_>>)| {
            let fresh = publish();
            assert!(catch_unwind(AssertUnwindSafe(|| f(fresh))).is_err());
        };
        refuses(&mut |fresh| _ = fresh.value);
        refuses(&mut |fresh| drop(fresh.into_inner()));
        refuses(&mut |fresh| _ = fresh.into_unlinked());
        let mut fresh = publish();
        let again = || drop(fresh.claim_slot(&guard));
        assert!(catch_unwind(AssertUnwindSafe(again)).is_err());
        assert_eq!(alive.load(Relaxed), 5, "they wait for their grace period");
    }

    #[test]
    fn what_is_of_another_table_is_refused() {
        let alive = AtomicU64::new(0);
        let (one, two) = (Table::new(1, 10, 1).unwrap(), Table::new(1, 10, 1).unwrap());
        let refuses = |f: &dyn Fn()| assert!(catch_unwind(AssertUnwindSafe(f)).is_err());
        refuses(&|| {
            let guard = two.pin();
            let mut foreign = one.prepare(Entry::new(1, 1, &alive), 1, 0).unwrap();
            let Probe::Absent(vacant) = two.probe(&guard, 1, |_| false, none) else { return };
            let _ = vacant.publish(&mut foreign.claim_slot(&guard), Hints::default(), |_, _| false);
        });
        refuses(&|| {
            let guard = one.pin();
            put(&one, &guard, 1, Entry::new(1, 1, &alive), |_| ());
            let Probe::Found(there) = one.probe(&guard, 1, |_| true, none) else { return };
            let Some(entry) = there.unlink() else { return };
            two.retire(&two.pin(), entry, Terms::NONE, 0);
        });
    }

    #[test]
    fn access_bits_belong_to_the_slot_that_was_found() {
        let alive = AtomicU64::new(0);
        let table = Table::new(4, 100, 1).unwrap();
        let guard = table.pin();
        for key in 0..10 {
            put(&table, &guard, spread(key), Entry::new(key, key, &alive), |_| ());
        }
        let find = |key| table.find(&guard, spread(key), |entry| entry.key == key).unwrap();
        for key in 0..10 {
            find(key).set_access(key as u16 + 100);
            find(key).set_class(key as u8);
        }
        for key in 0..10 {
            assert_eq!(find(key).access(), key as u16 + 100);
            assert_eq!(find(key).class(), key as u8);
        }
    }

    #[test]
    fn every_entry_is_in_one_hand_while_many_write() {
        const THREADS: u64 = 8;
        const TURNS: u64 = 20_000;
        const KEYS: u64 = 40;

        let alive = AtomicU64::new(0);
        let table = Table::new(4, 100, 4).unwrap();
        // Insertions less removals.
        let balance = AtomicU64::new(0);
        thread::scope(|scope| {
            for id in 1..=THREADS {
                let (table, alive, balance) = (&table, &alive, &balance);
                scope.spawn(move || {
                    let mut random = id;
                    for turn in 0..TURNS {
                        if turn % 64 == id {
                            assert!(table.sweep(usize::MAX, None).panic.is_none());
                        }
                        random = random.wrapping_mul(6364136223846793005).wrapping_add(1);
                        let key = (random >> 33) % KEYS;
                        let guard = table.pin();
                        match random >> 62 {
                            0 => {
                                if remove(table, &guard, spread(key), key, unreached).is_some() {
                                    balance.fetch_sub(1, Relaxed);
                                }
                            }
                            1 => {
                                let value = get(table, &guard, spread(key), key);
                                assert!(value.is_none_or(|value| value / TURNS / 16 == key));
                            }
                            _ => {
                                let value = (key * 16 + id) * TURNS + turn;
                                let entry = Entry::new(key, value, alive);
                                let out = |_| _ = balance.fetch_sub(1, Relaxed);
                                if put(table, &guard, spread(key), entry, out).is_none() {
                                    balance.fetch_add(1, Relaxed);
                                }
                            }
                        }
                    }
                });
            }
        });
        sweep(&table);
        let guard = table.pin();
        let there = (0..KEYS).filter(|&key| get(&table, &guard, spread(key), key).is_some());
        let there = there.count() as u64;
        assert_eq!((balance.load(Relaxed), alive.load(Relaxed)), (there, there));
    }
}
