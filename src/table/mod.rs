//! The old table, which the engine does not use any more: a lock-free set of entries, found by a hash and the caller's comparison.
//!
//! It is seven-way set-associative: a hash names one bucket, and the bucket's meta word alone
//! decides which of its seven slots hold an entry. So a key is in the table at most once, a
//! removal frees its slot at once, and a full bucket is a matter of that bucket only: the caller
//! chooses who leaves. The table knows neither keys nor costs.
//!
//! # Protocol
//!
//! A slot is *free*, *claimed* (an inserter put its entry there; nobody else may touch either),
//! *published* (its lane in the meta word shows a tag) or *dying* (removed in place; only the slot
//! is still to be freed).
//!
//! | move | who | decided by |
//! |---|---|---|
//! | free → claimed | an inserter | compare-and-swap of the slot |
//! | claimed → published | the same | compare-and-swap of the meta word, unchanged since its scan |
//! | claimed → free | the same | store to the slot |
//! | published → published (replace) | anyone | compare-and-swap of the slot, after validating |
//! | published → free (unlink) | anyone | compare-and-swap of the meta word, then a swap of the slot |
//! | published → dying (remove exactly this) | anyone | compare-and-swap of the slot |
//! | dying → free | anyone | compare-and-swap of the meta word, then a swap of the slot |
//!
//! A reader loads the meta word, then the slot of a matching tag, then both again: the same word
//! in the slot and the tag still in its lane mean that the entry was published in between. It
//! writes nothing. Growing and shrinking are told in [`migrate`].
//!
//! Whoever takes an entry out holds it as [`Unlinked`], and nobody else does.

#[cfg(any(test, cortado_loom, cortado_shuttle))]
mod audit;
mod bucket;
mod find;
mod iter;
mod loose;
mod meta;
mod migrate;
mod sample;
#[cfg(all(test, not(any(cortado_loom, cortado_shuttle))))]
mod testing;
mod write;

use std::ptr::NonNull;

pub use find::{Held, prefetch};
pub use iter::Iter;
pub use loose::Loose;
pub use meta::LANES;
pub use sample::Sampled;
pub use write::{Panic, Upsert};

use self::bucket::Buckets;
use crate::{
    error::OutOfMemory,
    reclaim::{
        Domain, Grace, Guard,
        block::{Husk, Owned, Stored},
        desk::Desk,
        limbo::{Farewell, Limbo, Retired, Swept, Unlinked},
        pin_for,
    },
    sync::atomic::{AtomicPtr, Ordering},
};

/// A lock-free set of `T`.
pub struct Table<T: Stored> {
    /// Whose memory its guards keep.
    domain: Domain,
    /// The array in which every search begins.
    root: AtomicPtr<Buckets<T>>,
    limbo: Limbo<T>,
    /// Arrays whose buckets have all moved on.
    arrays: Limbo<Buckets<T>>,
    /// Memory that an entry left before it was ever published, see `Claim::take_back`.
    husks: Limbo<Husk>,
}

/// What the table asks of its owner.
///
/// The methods run while the caller is pinned.
pub trait Host<T> {
    /// Returns the hash of an entry, as it was given when it was inserted.
    ///
    /// Asked once an entry when the table grows. A hash that differs puts the entry where it is
    /// not found; it does no other harm.
    fn hash(&self, entry: &T) -> u64;

    /// Returns whether a table of so many slots, one of whose buckets is full, should grow.
    fn is_crowded(&self, slots: usize) -> bool;

    /// The same for a bucket whose entries must all stay. By default it refuses the newcomer.
    fn is_cramped(&self, _slots: usize) -> bool {
        false
    }

    /// Chooses who leaves a full bucket; `None` refuses the newcomer.
    fn choose_leaver(&self, residents: &[Option<&T>; LANES], newcomer: &T) -> Option<usize>;

    /// Takes over an entry that had to leave for lack of slots, or was taken out by mistake (see
    /// `meta`).
    fn displaced(&self, guard: &Guard, entry: Unlinked<T>);

    /// Hears that the table begins to move to another array, or has moved and retired the old one: there is
    /// something to do even if nobody calls again.
    fn moving(&self) {}

    /// Is called by the thread that has put a bucket of the next array in use, for tests that stop it
    /// there.
    #[cfg(any(cortado_loom, cortado_shuttle))]
    fn put_in_use(&self) {}
}

impl<T: Stored> Table<T> {
    /// Makes an empty table for about `entries` entries.
    ///
    /// The memory of its array is not touched before it is used.
    ///
    /// # Errors
    ///
    /// [`OutOfMemory`] if the array cannot be allocated.
    pub fn new(entries: usize, limbo_stripes: usize) -> Result<Self, OutOfMemory> {
        Self::try_with_buckets(buckets_for(entries), limbo_stripes, LIMBO_BATCH)
    }

    /// Makes an empty table of `buckets` buckets, for tests of the protocol.
    ///
    /// # Panics
    ///
    /// Panics if the array cannot be allocated.
    pub fn with_buckets(buckets: usize, limbo_stripes: usize, limbo_batch: usize) -> Self {
        Self::try_with_buckets(buckets, limbo_stripes, limbo_batch).expect("a test has the memory")
    }

    fn try_with_buckets(
        buckets: usize,
        limbo_stripes: usize,
        limbo_batch: usize,
    ) -> Result<Self, OutOfMemory> {
        let root = Box::new(Buckets::new(buckets)?);
        let slots = buckets.saturating_mul(LANES);
        let stock = (MOST_STOCK_BYTES / size_of::<T>().max(1)).min(MOST_STOCK).min(slots);
        let domain = Domain::new();
        Ok(Self {
            domain,
            root: AtomicPtr::new(Box::into_raw(root)),
            limbo: Limbo::within(domain, limbo_stripes, limbo_batch, stock),
            arrays: Limbo::within(domain, 1, 1, 0),
            husks: Limbo::within(domain, 1, 1, 0),
        })
    }

    /// Pins the current thread for this table: what is in it now stays readable under the guard.
    ///
    /// The guard holds back the garbage of no other table, and is good for no other.
    #[inline]
    pub fn pin(&self) -> Guard {
        pin_for(self.domain)
    }

    /// Returns the domain of this table's pins.
    pub fn domain(&self) -> Domain {
        self.domain
    }

    /// Ends the pin of a guard and begins a new one, unless the thread has other guards.
    #[inline]
    pub fn repin(&self, guard: &mut Guard) {
        guard.repin(self.domain);
    }

    /// Returns the number of slots of the current array.
    pub fn slots(&self, guard: &Guard) -> usize {
        self.root(guard).count() * LANES
    }

    /// Returns the bytes of the current arrays, entries not counted.
    pub fn bytes(&self, guard: &Guard) -> usize {
        let root = self.root(guard);
        root.bytes() + root.next(guard).map_or(0, Buckets::bytes)
    }

    /// Retires an entry that was taken out of this table, and returns it for a last look.
    ///
    /// It is freed, by a later [`Self::sweep`], when every guard of this moment is gone.
    pub fn retire<'g>(
        &'g self,
        guard: &'g Guard,
        entry: Unlinked<T>,
        cost: u64,
        stripe: usize,
    ) -> (&'g T, Retired) {
        self.retire_at(&mut self.desk(stripe), guard, entry, cost, u64::MAX)
    }

    /// The same at a desk where the caller sits; garbage of cost `seal_at` is sealed at once.
    pub fn retire_at<'g, 'd: 'g>(
        &'g self,
        desk: &mut Desk<'d, T>,
        guard: &'g Guard,
        entry: Unlinked<T>,
        cost: u64,
        seal_at: u64,
    ) -> (&'g T, Retired) {
        let value: *const T = entry.get();
        let retired = desk.retire(guard, entry, cost, seal_at);
        // SAFETY: the guard was made before the entry was retired, so no sweep frees it under the guard;
        // the limbo it went to, which frees all when it is dropped, is borrowed by the desk for as long.
        (unsafe { &*value }, retired)
    }

    /// Retires an entry that was never in the table, and returns it for a last look.
    pub fn retire_unpublished<'g>(
        &'g self,
        guard: &'g Guard,
        entry: Owned<T>,
        label: u8,
        cost: u64,
        stripe: usize,
    ) -> (&'g T, Retired) {
        // SAFETY: nobody else knows of the entry.
        let entry = unsafe { Unlinked::new(entry.into_raw()) }.labelled(label);
        self.retire(guard, entry, cost, stripe)
    }

    /// Sits down at a desk, to make entries and to retire them.
    ///
    /// `stripe` spreads threads; any number will do.
    #[inline]
    pub fn desk(&self, stripe: usize) -> Desk<'_, T> {
        self.limbo.desk(stripe)
    }

    /// Returns the limbo of this table's entries, for its figures.
    pub fn limbo(&self) -> &Limbo<T> {
        &self.limbo
    }

    /// Gives the memory that is kept for new entries back to the allocator.
    pub fn give_back_stock(&self) {
        self.limbo.give_back_stock();
    }

    /// Seals partly filled batches of retired entries; returns how many.
    pub fn seal_retired(&self) -> usize {
        self.limbo.seal_open()
    }

    /// Frees what no guard can see any more, until `most` entries are freed.
    ///
    /// Runs destructors of entries: call it unpinned.
    pub fn sweep(&self, most: usize) -> Swept {
        self.sweep_with(most, None)
    }

    /// Frees all garbage at once.
    pub fn drain(&mut self, farewell: Option<Farewell<'_, T>>) -> Swept {
        self.limbo.drain(farewell)
    }

    /// As [`sweep`](Self::sweep), with a farewell to the entries that have a label.
    pub fn sweep_with(&self, most: usize, farewell: Option<Farewell<'_, T>>) -> Swept {
        let entries = self.limbo.take_sealed();
        let (arrays, husks) = (self.arrays.take_sealed(), self.husks.take_sealed());
        // One period for all: its barrier interrupts every thread of the process.
        let is_idle = entries.is_empty() && arrays.is_empty() && husks.is_empty();
        let grace = (!is_idle).then(|| Grace::begin(self.domain));
        if is_idle {
            // A collector that needs help may have no other.
            self.pin().advance();
        }
        let arrays = self.arrays.sweep_sealed(arrays, grace.clone(), most, None);
        let husks = self.husks.sweep_sealed(husks, grace.clone(), most, None);
        let mut swept = self.limbo.sweep_sealed(entries, grace, most, farewell);
        swept.waiting += arrays.waiting + husks.waiting;
        swept
    }

    /// Returns whether anything is retired and not freed, to the thread that has lain down; see
    /// [`Limbo::last_look`]. Husks are not worth a wake-up: who leaves one does not tell.
    pub fn last_look(&self) -> bool {
        self.limbo.last_look() || self.arrays.last_look() || self.husks.last_look()
    }

    #[inline]
    fn root<'g>(&'g self, guard: &'g Guard) -> &'g Buckets<T> {
        debug_assert!(guard.covers(self.domain), "a guard of another table");
        // Acquire: pairs with the Release of the exchange in `promote`, so that the array is seen
        // made and all its buckets in use.
        let root = self.root.load(Ordering::Acquire);
        // SAFETY: the root is never null, and an array is retired through limbo after it stopped
        // being the root, so the guard keeps it.
        unsafe { &*root }
    }
}

impl<T: Stored> Drop for Table<T> {
    fn drop(&mut self) {
        let guard = self.pin();
        let mut next = NonNull::new(self.root.load(Ordering::Relaxed)); // Relaxed: `&mut self`.
        while let Some(array) = next {
            // SAFETY: each array of the chain came from `Box::into_raw`; those before the root
            // are in limbo, and not in the chain.
            let array = unsafe { Box::from_raw(array.as_ptr()) };
            next = NonNull::new(array.next.load(Ordering::Relaxed)); // Relaxed: as above.
            for index in 0..array.count() {
                let bucket = array.at(index);
                let parts = migrate::parts(&array, index, &guard);
                // What has moved on is dropped with the next array.
                let here = |part: &&migrate::Part<'_, T>| std::ptr::eq(part.bucket, bucket);
                for lane in bucket.meta().taken() {
                    let word = bucket.slot(lane);
                    let ruled = parts.iter().flatten().filter(here).any(|part| part.has(word));
                    if let (Some(entry), true, false) = (word.entry(), ruled, word.is_dying()) {
                        // SAFETY: a published entry is in one live bucket only, and leaves it
                        // here; `&mut self` means that nobody looks at it any more.
                        let entry = unsafe { Unlinked::new(entry) };
                        let _ = self.limbo.retire(&guard, entry, 0, 0);
                    }
                }
            }
        }
        // The limbos are dropped after this, and drop what is in them; each destructor runs even
        // if another panics.
    }
}

impl<T: Stored> std::fmt::Debug for Table<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let guard = self.pin();
        f.debug_struct("Table").field("slots", &self.slots(&guard)).finish_non_exhaustive()
    }
}

/// Returns how many buckets so many entries want.
pub fn buckets_for(entries: usize) -> usize {
    // A third of the slots in use, where memory is no matter: one insert in 250 then meets a full
    // bucket, and takes the place of an entry that no duel has chosen. Two fifths: one in 100.
    let slots = if entries <= FEW_ENTRIES { entries * 3 } else { entries.saturating_mul(5) / 2 };
    let buckets = slots.div_ceil(LANES).max(MIN_BUCKETS);
    // Even counts can be halved again when the table shrinks.
    buckets.next_multiple_of(MIN_BUCKETS)
}

/// Entries for which nine bytes an entry are no matter.
const FEW_ENTRIES: usize = 1 << 16;

/// The least number of buckets of a table, and what every initial number is a multiple of.
pub const MIN_BUCKETS: usize = 2;

/// Values of a batch in limbo. One grace period serves so many.
const LIMBO_BATCH: usize = 64;

/// Entries whose memory is kept for the next ones, at most, and their bytes.
const MOST_STOCK: usize = 1 << 10;
const MOST_STOCK_BYTES: usize = 1 << 18;

#[cfg(all(test, not(any(cortado_loom, cortado_shuttle))))]
mod tests {
    use std::{
        sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
        time::{Duration, Instant},
    };

    use super::{
        testing::{Keeper, Ledger, drain, mixed},
        *,
    };
    use crate::reclaim::pin;

    #[test]
    fn initial_sizes_can_be_halved_and_leave_room() {
        assert_eq!((buckets_for(0), buckets_for(1), buckets_for(7)), (2, 2, 4));
        assert_eq!((buckets_for(700), buckets_for(700_000)), (300, 250_000));
        for entries in (0..1000).chain([1 << 20]) {
            assert!(buckets_for(entries).is_multiple_of(MIN_BUCKETS));
            assert!(buckets_for(entries) * LANES >= entries * 5 / 2);
        }
        assert!(buckets_for(usize::MAX) > usize::MAX / 16);
    }

    #[test]
    #[cfg(debug_assertions)]
    #[cfg(not(feature = "crossbeam-epoch"))]
    #[should_panic(expected = "a guard of another table")]
    fn guard_of_another_table_is_refused_in_a_debug_build() {
        let [one, other] = [(); 2].map(|()| Table::<testing::Entry>::with_buckets(2, 1, 1));
        one.slots(&other.pin());
    }

    #[test]
    fn memory_is_that_of_the_array_and_of_the_next_one_while_there_is_one() {
        let (table, ledger) = (Table::with_buckets(4, 1, 1), Ledger::default());
        let array = 4 * size_of::<bucket::Bucket<testing::Entry>>();
        assert!(array >= 4 * (LANES + 1) * size_of::<u64>());
        assert_eq!(table.bytes(&pin()), array);
        let keeper = Keeper::new(&table, &mixed);
        keeper.set(&ledger, 1, 1);
        assert!(table.grow_root(&pin()));
        assert_eq!(table.bytes(&pin()), 3 * array);
        keeper.settle();
        assert_eq!(table.bytes(&pin()), 2 * array);
        drain(&table);
    }

    /// Everything at once: few keys, so that all meet; values of a key only grow, so that a reader
    /// can tell a value that came back.
    fn stress(seed: u64, hasher: &(dyn Fn(u64) -> u64 + Sync), buckets: usize) {
        const KEYS: u64 = 48;
        println!("seed {seed}");
        let ledger = Ledger::default();
        let table = Table::with_buckets(buckets, 2, 3);
        let stop = AtomicBool::new(false);
        let clock: Vec<AtomicU64> = (0..KEYS).map(|_| AtomicU64::new(1)).collect();
        let end = Instant::now() + Duration::from_millis(700);
        std::thread::scope(|scope| {
            for thread in 0..3 {
                let (table, ledger, stop, clock) = (&table, &ledger, &stop, &clock);
                scope.spawn(move || {
                    let mut keeper = Keeper::new(table, hasher);
                    keeper.leaver = Some(thread);
                    let mut random = seed + thread as u64;
                    while !stop.load(SeqCst) {
                        random = random.wrapping_mul(0x2545_f491_4f6c_dd1d).wrapping_add(99);
                        let key = (random >> 33) % KEYS;
                        // One writer a key raises it; the others remove.
                        let mine = key % 3 == thread as u64;
                        match (random >> 20) % 64 {
                            0 => drop(keeper.clear()),
                            1 => {
                                let guard = pin();
                                keeper.table.grow_root(&guard);
                                if keeper.table.slots(&guard) > 32 * LANES {
                                    keeper.settle();
                                    while keeper.table.shrink(&guard) {
                                        keeper.settle();
                                    }
                                }
                            }
                            2 => drop(keeper.table.shrink(&pin())),
                            3 => assert!(keeper.table.sweep(usize::MAX).panic.is_none()),
                            4..15 => drop(keeper.remove(key)),
                            15..25 => drop(keeper.remove_if(key, |value| value % 2 == 0)),
                            25..28 => {
                                let guard = pin();
                                let mut taken = None;
                                keeper.table.sample(&guard, random, 2, |sampled| {
                                    sampled.entry.value();
                                    taken = keeper.table.unlink_sampled(sampled);
                                    std::ops::ControlFlow::Break(())
                                });
                                if let Some(entry) = taken {
                                    keeper.table.retire(&guard, entry, 1, thread);
                                }
                            }
                            _ if mine => {
                                let value = clock[key as usize].fetch_add(1, SeqCst);
                                keeper.set(ledger, key, value);
                            }
                            _ => {
                                keeper.get(key);
                            }
                        }
                    }
                });
            }
            scope.spawn(|| {
                let keeper = Keeper::new(&table, hasher);
                let mut last = vec![0; KEYS as usize];
                let mut turn = 0;
                while Instant::now() < end {
                    for key in 0..KEYS {
                        let Some(value) = keeper.get(key) else { continue };
                        assert!(value >= last[key as usize], "key {key} went back");
                        assert!(value < clock[key as usize].load(SeqCst));
                        last[key as usize] = value;
                    }
                    turn += 1;
                    let guard = pin();
                    if turn % 3 == 0 {
                        table.iter(&guard).for_each(|entry| assert!(entry.value() > 0));
                    }
                }
                stop.store(true, SeqCst);
            });
        });
        let keeper = Keeper::new(&table, hasher);
        keeper.settle();
        let left = keeper.check();
        for key in keeper.keys() {
            assert!(keeper.get(key).is_some(), "key {key} is there and not found");
        }
        drain(&table);
        assert_eq!(ledger.alive(), left);
        drop(table);
        assert_eq!(ledger.alive(), 0);
    }

    #[test]
    fn everything_at_once_keeps_the_invariants() {
        for seed in [1, 2] {
            stress(seed, &mixed, 2);
        }
    }

    #[test]
    fn everything_at_once_with_colliding_hashes_keeps_the_invariants() {
        stress(3, &|key| mixed(key % 5), 4);
    }
}
