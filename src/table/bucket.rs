//! Buckets: a cache line of one meta word and seven entry pointers, and arrays of them.

use std::ptr::{self, NonNull};

use super::meta::{LANES, Meta};
use crate::{
    error::OutOfMemory,
    reclaim::{Guard, block::Stored},
    sync::atomic::{AtomicPtr, AtomicU64, AtomicUsize, Ordering},
};

/// One cache line of the table.
#[repr(C, align(64))]
pub struct Bucket<T> {
    pub meta: AtomicU64,
    pub slots: [AtomicPtr<T>; LANES],
}

/// What a slot holds: nothing yet, nothing, or an entry with marks.
///
/// Entries are aligned to 8 bytes, which leaves three bits for marks.
pub struct Word<T>(*mut T);

impl<T> Word<T> {
    /// A slot of zeroed memory: its bucket is not in use yet.
    ///
    /// It must differ from [`Self::EMPTY`]: a slow migration fills only slots that nobody has
    /// filled, and must not fill one that was filled and emptied meanwhile.
    pub const UNUSED: Self = Self(ptr::null_mut());
    /// A free slot.
    pub const EMPTY: Self = Self(ptr::without_provenance_mut(DYING));

    /// Makes the word of an entry; `upper` tells which half of the bucket's hashes it is in.
    #[inline]
    pub fn new(entry: NonNull<T>, upper: bool) -> Self {
        Self(entry.as_ptr().map_addr(|a| a | if upper { UPPER } else { 0 }))
    }

    /// Returns the entry, if there is one.
    #[inline]
    pub fn entry(self) -> Option<NonNull<T>> {
        NonNull::new(self.0.map_addr(|a| a & !MARKS))
    }

    /// Returns whether the entry was removed in place and only its slot is still to be freed.
    #[inline]
    pub fn is_dying(self) -> bool {
        self.0.addr() & DYING != 0
    }

    /// Returns whether the word may not change any more: its bucket is being migrated.
    pub fn is_frozen(self) -> bool {
        self.0.addr() & FROZEN != 0
    }

    /// Returns whether the entry goes to the upper of the two buckets after growth.
    pub fn is_upper(self) -> bool {
        self.0.addr() & UPPER != 0
    }

    #[must_use]
    pub fn dying(self) -> Self {
        Self(self.0.map_addr(|a| a | DYING))
    }

    #[must_use]
    pub fn frozen(self) -> Self {
        Self(self.0.map_addr(|a| a | FROZEN))
    }
}

impl<T> Clone for Word<T> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<T> Copy for Word<T> {}
impl<T> PartialEq for Word<T> {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}

impl<T> std::fmt::Debug for Word<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:#x}", self.0.addr())
    }
}

impl<T> Bucket<T> {
    /// Loads the meta word.
    #[inline]
    pub fn meta(&self) -> Meta {
        // Acquire: pairs with the AcqRel of every change of the word; seeing a lane published
        // means seeing its slot filled, seeing FROZEN means seeing the next array.
        Meta(self.meta.load(Ordering::Acquire))
    }

    /// Changes the meta word if it still is `from`.
    #[inline]
    pub fn change_meta(&self, from: Meta, to: Meta) -> bool {
        // AcqRel: Release pairs with the Acquire in `meta`, so that a published lane shows its
        // slot; Acquire orders what follows, the emptying of an unpublished slot, behind it.
        // Relaxed: a failure makes the caller load the word again.
        self.meta.compare_exchange(from.0, to.0, META_CHANGE, Ordering::Relaxed).is_ok()
    }

    /// Loads a slot.
    #[inline]
    pub fn slot(&self, lane: usize) -> Word<T> {
        // Acquire: pairs with the Release of the exchange that put the entry there, so that its
        // content is seen; keeps the loads that validate it behind this one.
        Word(self.slots[lane].load(SLOT_READ))
    }

    /// Changes a slot if it still is `from`.
    #[inline]
    pub fn change_slot(&self, lane: usize, from: Word<T>, to: Word<T>) -> bool {
        // AcqRel: Release publishes the entry's content to the Acquire in `slot`; Acquire makes
        // the entry that came out readable for whoever retires it.
        // Relaxed: a failure makes the caller look again.
        self.slots[lane].compare_exchange(from.0, to.0, Ordering::AcqRel, Ordering::Relaxed).is_ok()
    }

    /// Empties a slot whose lane the caller has unpublished; returns what was in it.
    #[inline]
    pub fn take_slot(&self, lane: usize) -> Word<T> {
        // AcqRel: Acquire makes the entry readable for the one who retires it; Release lets the
        // claim that follows see the slot given up.
        if cfg!(cortado_mutant = "table_take_by_store") {
            let seen = self.slot(lane);
            self.slots[lane].store(Word::EMPTY.0, Ordering::Release);
            return seen;
        }
        Word(self.slots[lane].swap(Word::EMPTY.0, Ordering::AcqRel))
    }

    /// Empties a slot that the caller has claimed and not published.
    pub fn withdraw(&self, lane: usize) {
        // Release: pairs with the exchange that claims the slot next; nobody else may touch it.
        self.slots[lane].store(Word::EMPTY.0, Ordering::Release);
    }

    /// Loads the entry of a lane that `meta` showed as `tag`, if that holds at one instant after
    /// both loads.
    ///
    /// An entry is looked into only after this check: what is claimed and not yet published
    /// belongs to its inserter alone.
    #[inline]
    pub fn validated(&self, lane: usize, tag: u64) -> Validated<T> {
        let word = self.slot(lane);
        if cfg!(cortado_mutant = "table_no_validate") {
            return if word.entry().is_some() { Validated::Holds(word) } else { Validated::Gone };
        }
        if word.entry().is_none() {
            return Validated::Gone;
        }
        let now = self.meta();
        // Relaxed: the Acquire of the load above keeps this one behind it. The same word before
        // and after `now` means that it was there at `now`: an entry enters a slot once, and its
        // address cannot come again while the caller is pinned.
        let same = self.slots[lane].load(Ordering::Relaxed) == word.0;
        if same && now.tag(lane) == tag && !now.is_frozen() {
            Validated::Holds(word)
        } else {
            Validated::Changed
        }
    }

    /// Loads the words of the lanes that `meta` shows and that `has` does not rule out, the others empty;
    /// `None` if the bucket has changed. Look into no entry that is not [confirmed](Self::confirmed).
    #[inline]
    pub fn words(&self, meta: Meta, has: impl Fn(Word<T>) -> bool) -> Option<[Word<T>; LANES]> {
        let mut words = [Word::EMPTY; LANES];
        for lane in meta.taken() {
            let word = self.slot(lane);
            if has(word) {
                words[lane] = word;
            }
        }
        // Acquire, in `meta`: keeps the loads of `confirmed` behind it.
        (self.meta() == meta).then_some(words)
    }

    /// Returns the entry of a word that [`words`](Self::words) has loaded, if it still is in its slot: then it
    /// was published when the meta word was looked at again.
    ///
    /// As in [`validated`](Self::validated): the version of the meta word alone would be fooled when it
    /// wraps, and show what is claimed and not published.
    #[inline]
    pub fn confirmed(&self, lane: usize, word: Word<T>) -> Option<NonNull<T>> {
        // Relaxed: see `validated`. Marks may come meanwhile; they do not move the entry.
        let again = Word(self.slots[lane].load(Ordering::Relaxed));
        word.entry().filter(|_| again == word || again.entry() == word.entry())
    }

    /// Makes a bucket of zeroed memory usable; whoever comes first.
    #[cold]
    pub fn init(&self) {
        for lane in 0..LANES {
            self.change_slot(lane, Word::UNUSED, Word::EMPTY);
        }
        self.change_meta(Meta(0), Meta::LIVE);
    }

    /// Takes a published lane out of a bucket that still is as `meta`, and empties its slot; returns
    /// what was in it.
    ///
    /// That need not be what the caller has seen there: a replacement may have slipped in, or the
    /// version has wrapped and the lane has another owner.
    #[inline]
    pub fn unpublish(&self, meta: Meta, lane: usize) -> Option<Word<T>> {
        // A swap and not a store: a replacement that validated before may have slipped in, and then
        // it is the newer entry that leaves.
        self.change_meta(meta, meta.without(lane)).then(|| self.take_slot(lane))
    }

    /// Frees the lane of an entry that was removed in place.
    ///
    /// Returns what it has taken out by mistake: the word of another entry, if the version wrapped
    /// while this thread was stopped.
    #[must_use]
    pub fn free_dying(&self, lane: usize, word: Word<T>) -> Option<Word<T>> {
        debug_assert!(word.is_dying());
        loop {
            let meta = self.meta();
            // A frozen bucket keeps the word: the migration leaves it behind.
            if meta.is_frozen() || meta.tag(lane) == 0 || self.slot(lane) != word {
                return None;
            }
            if cfg!(cortado_mutant = "version_dying_leaks") {
                if self.change_meta(meta, meta.without(lane)) {
                    self.change_slot(lane, word, Word::EMPTY);
                    return None;
                }
                continue;
            }
            if let Some(taken) = self.unpublish(meta, lane) {
                return Some(taken).filter(|&taken| taken != word);
            }
        }
    }
}

/// What [`Bucket::validated`] found.
pub enum Validated<T> {
    /// The entry was published at one instant of the call.
    Holds(Word<T>),
    /// The slot was empty: whatever was published there has left.
    Gone,
    /// The slot changed under the caller: look at the bucket again.
    Changed,
}

/// Returns the entry of a word that was published at a moment when `guard` was pinned.
///
/// # Safety
///
/// * `entry` was reachable in its table at some moment since `guard` was made.
#[inline]
pub unsafe fn entry_ref<T>(entry: NonNull<T>, guard: &Guard) -> &T {
    #[cfg(any(cortado_loom, cortado_shuttle))]
    guard.check_readable(entry.as_ptr() as usize);
    let _ = guard;
    // SAFETY: entries are freed only after a grace period that began when they were unlinked,
    // which by the caller's promise was after the guard was made; entries are never changed but
    // through their own atomics.
    unsafe { entry.as_ref() }
}

/// An array of buckets, and the way to the array that takes its place.
pub struct Buckets<T> {
    array: Array<T>,
    /// The array that is to take this one's place; set once, before any bucket is frozen.
    pub next: AtomicPtr<Buckets<T>>,
    /// The next unit to be migrated by helpers; wraps around until all are done.
    pub cursor: AtomicUsize,
    /// All buckets of `next` below this one were found in use.
    pub in_use: AtomicUsize,
    /// Requests to grow that are still to be refused without a try, since one found no memory.
    pub refusals: AtomicUsize,
}

// SAFETY: an array never has a tail, and says so.
unsafe impl<T> Stored for Buckets<T> {
    type Tail = ();
}

impl<T> Buckets<T> {
    /// Allocates `count` unused buckets; the system gives the memory as they are touched.
    ///
    /// # Errors
    ///
    /// [`OutOfMemory`] if the allocator refuses, or if so many buckets are no number of bytes.
    pub fn new(count: usize) -> Result<Self, OutOfMemory> {
        const { assert!(align_of::<T>() >= 8, "entries lend three low bits of their address") };
        Ok(Self {
            array: Array::new(count.max(1))?,
            next: AtomicPtr::new(ptr::null_mut()),
            cursor: AtomicUsize::new(0),
            in_use: AtomicUsize::new(0),
            refusals: AtomicUsize::new(0),
        })
    }

    /// Returns the number of buckets.
    #[inline]
    pub fn count(&self) -> usize {
        self.array.as_slice().len()
    }

    /// Returns the bucket of an index.
    #[inline]
    pub fn at(&self, index: usize) -> &Bucket<T> {
        &self.array.as_slice()[index]
    }

    /// Returns the bucket of a hash.
    #[inline]
    pub fn of(&self, hash: u64) -> &Bucket<T> {
        let buckets = self.array.as_slice();
        let index = (u128::from(hash) * buckets.len() as u128) >> 64;
        // SAFETY: hash < 2^64, so the product is below count * 2^64, and its top word below count.
        unsafe { buckets.get_unchecked(index as usize) }
    }

    /// Returns the index of a hash's bucket, and whether it is in the upper half of its hashes.
    ///
    /// In an array of twice the size that makes index `2 * index + upper`.
    #[inline]
    pub fn locate(&self, hash: u64) -> (usize, bool) {
        let product = u128::from(hash) * self.count() as u128;
        ((product >> 64) as usize, (product as u64) >> 63 != 0)
    }

    /// Returns the array that takes this one's place, if growth has begun.
    #[inline]
    pub fn next<'g>(&'g self, _: &'g Guard) -> Option<&'g Self> {
        // Acquire: pairs with the Release in `Table::resize`, so that the array is seen made.
        let next = self.next.load(Ordering::Acquire);
        // SAFETY: arrays are retired through limbo when the next one has become the root; whoever
        // reaches this one under a guard may follow it to the next.
        unsafe { next.as_ref() }
    }

    /// Returns the bytes that the array takes once every page of it is touched.
    pub fn bytes(&self) -> usize {
        self.count() * size_of::<Bucket<T>>()
    }
}

// AcqRel, see `change_meta`. The mutant publishes with Relaxed.
const META_CHANGE: Ordering = if cfg!(cortado_mutant = "table_relaxed_publish") {
    Ordering::Relaxed
} else {
    Ordering::AcqRel
};

// Acquire, see `slot`. The mutant reads with Relaxed and may see an entry before its content.
const SLOT_READ: Ordering =
    if cfg!(cortado_mutant = "table_relaxed_slot") { Ordering::Relaxed } else { Ordering::Acquire };

const FROZEN: usize = 1;
const DYING: usize = 2;
const UPPER: usize = 4;
const MARKS: usize = FROZEN | DYING | UPPER;

#[cfg(not(any(cortado_loom, cortado_shuttle)))]
use lazy::Array;
#[cfg(any(cortado_loom, cortado_shuttle))]
use modelled::Array;

/// Zeroed memory that the system hands out as it is touched, in huge pages where it has them.
#[cfg(not(any(cortado_loom, cortado_shuttle)))]
mod lazy {
    use std::{
        alloc::{Layout, alloc_zeroed, dealloc},
        ptr::NonNull,
    };

    use super::{Bucket, OutOfMemory};

    pub struct Array<T> {
        buckets: NonNull<Bucket<T>>,
        count: usize,
        block: NonNull<u8>,
        layout: Layout,
    }

    // SAFETY: the array owns its memory; buckets consist of atomics, and what their pointers mean
    // is the table's affair, whose `Send` and `Sync` ask for those of the entries.
    unsafe impl<T: Send + Sync> Send for Array<T> {}
    // SAFETY: as above.
    unsafe impl<T: Send + Sync> Sync for Array<T> {}

    impl<T> Array<T> {
        pub fn new(count: usize) -> Result<Self, OutOfMemory> {
            // Asking for more than the system allocator's natural alignment would make it clear
            // the memory by hand; so the alignment is made here.
            let line = align_of::<Bucket<T>>();
            let layout = count
                .checked_mul(size_of::<Bucket<T>>())
                .and_then(|bytes| bytes.checked_add(line))
                .and_then(|bytes| Layout::from_size_align(bytes, NATURAL_ALIGN).ok())
                .ok_or(OutOfMemory { bytes: usize::MAX })?;
            // SAFETY: the layout is not empty: at least one line was added.
            let block = unsafe { alloc_zeroed(layout) };
            // A refusal does not end the process: a table that cannot grow goes on as it is.
            let block = NonNull::new(block).ok_or(OutOfMemory { bytes: layout.size() })?;
            let shift = block.as_ptr().align_offset(line);
            // SAFETY: the shift is below the line that was added.
            let buckets = unsafe { block.add(shift) }.cast();
            advise_huge_pages(block, layout.size());
            Ok(Self { buckets, count, block, layout })
        }

        #[inline]
        pub fn as_slice(&self) -> &[Bucket<T>] {
            // SAFETY: `count` buckets lie at `buckets`; zeroed memory is a valid unused bucket,
            // an all-zero atomic word or null pointer being valid; they change by atomics only.
            unsafe { std::slice::from_raw_parts(self.buckets.as_ptr(), self.count) }
        }
    }

    impl<T> Drop for Array<T> {
        fn drop(&mut self) {
            // SAFETY: the block was allocated with this layout and is freed once.
            unsafe { dealloc(self.block.as_ptr(), self.layout) };
        }
    }

    #[cfg(target_os = "linux")]
    fn advise_huge_pages(block: NonNull<u8>, bytes: usize) {
        // SAFETY: the C library's signature; it is linked with the standard library.
        unsafe extern "C" {
            fn madvise(
                address: *mut std::ffi::c_void,
                length: usize,
                advice: std::ffi::c_int,
            ) -> std::ffi::c_int;
        }
        const MADV_HUGEPAGE: std::ffi::c_int = 14;
        let inner = block.as_ptr().align_offset(HUGE_PAGE);
        let huge = bytes.saturating_sub(inner) / HUGE_PAGE * HUGE_PAGE;
        if huge == 0 {
            return;
        }
        // SAFETY: `inner + huge` does not pass the end of the block.
        let start = unsafe { block.add(inner) };
        // A refusal is no harm: the memory stays in small pages.
        // SAFETY: the range is whole pages inside one allocation of ours; the advice changes
        // neither their content nor their protection.
        unsafe { madvise(start.as_ptr().cast(), huge, MADV_HUGEPAGE) };
    }

    #[cfg(not(target_os = "linux"))]
    fn advise_huge_pages(_: NonNull<u8>, _: usize) {}

    const NATURAL_ALIGN: usize = 16;
    #[cfg(target_os = "linux")]
    const HUGE_PAGE: usize = 2 << 20;
}

/// The same for model checkers, whose atomics are not plain memory.
#[cfg(any(cortado_loom, cortado_shuttle))]
mod modelled {
    use std::ptr;

    use super::{AtomicPtr, AtomicU64, Bucket, OutOfMemory};
    use crate::sync::Watched;

    pub struct Array<T> {
        buckets: Box<[Bucket<T>]>,
        /// Is read wherever a bucket is looked for, and written at the end: one must come before the other.
        watched: Watched,
    }

    impl<T> Array<T> {
        pub fn new(count: usize) -> Result<Self, OutOfMemory> {
            let bucket = |_| Bucket {
                meta: AtomicU64::new(0),
                slots: std::array::from_fn(|_| AtomicPtr::new(ptr::null_mut())),
            };
            Ok(Self { buckets: (0..count).map(bucket).collect(), watched: Watched::new() })
        }

        pub fn as_slice(&self) -> &[Bucket<T>] {
            self.watched.read();
            &self.buckets
        }
    }

    impl<T> Drop for Array<T> {
        fn drop(&mut self) {
            self.watched.write();
        }
    }
}

#[cfg(all(test, not(any(cortado_loom, cortado_shuttle))))]
mod tests {
    use super::*;

    #[test]
    fn bucket_is_one_cache_line() {
        assert_eq!(size_of::<Bucket<u64>>(), 64);
        assert_eq!(align_of::<Bucket<u64>>(), 64);
    }

    #[test]
    fn more_buckets_than_an_address_space_are_an_error() {
        for count in [usize::MAX, usize::MAX / 64, isize::MAX as usize / 64] {
            let error = Buckets::<u64>::new(count).err();
            assert_eq!(error, Some(OutOfMemory { bytes: usize::MAX }), "{count}");
        }
    }

    #[test]
    fn doubling_sends_a_hash_to_one_of_two_children() {
        for count in [1, 2, 3, 7, 1000] {
            let small = Buckets::<u64>::new(count).unwrap();
            let large = Buckets::<u64>::new(2 * count).unwrap();
            let mut hash = 0x9e37_79b9_7f4a_7c15_u64;
            for _ in 0..1000 {
                hash = hash.wrapping_mul(0x2545_f491_4f6c_dd1d).wrapping_add(1);
                let (index, upper) = small.locate(hash);
                assert_eq!(large.locate(hash).0, 2 * index + usize::from(upper));
            }
        }
    }

    #[test]
    fn claim_is_not_taken_for_published_however_often_the_bucket_changes() {
        let buckets = Buckets::<u64>::new(1).unwrap();
        let bucket = buckets.at(0);
        bucket.init();
        let values = [1_u64, 2, 3];
        let [first, second, claimed] =
            values.each_ref().map(|v| Word::new(NonNull::from(v), false));
        let publish = |lane, word| {
            let meta = bucket.meta();
            assert!(bucket.change_slot(lane, Word::EMPTY, word));
            assert!(bucket.change_meta(meta, meta.with(lane, 5)));
        };
        let unpublish = |lane| {
            let meta = bucket.meta();
            assert!(bucket.change_meta(meta, meta.without(lane)));
            bucket.take_slot(lane);
        };
        publish(0, first);
        publish(1, second);
        let meta = bucket.meta();
        let words = bucket.words(meta, |_| true).unwrap();
        assert!((0..2).all(|lane| bucket.confirmed(lane, words[lane]) == words[lane].entry()));
        // As if others worked between the loads of the caller.
        let seen = bucket.words(meta, |word| {
            if word == first {
                unpublish(1);
                assert!(bucket.change_slot(1, Word::EMPTY, claimed));
            } else {
                assert!(word == claimed);
                bucket.withdraw(1);
                publish(1, second);
                while bucket.meta() != meta {
                    unpublish(1);
                    publish(1, second);
                }
            }
            true
        });
        let words = seen.expect("the meta word is as it was");
        assert!(words[1] == claimed && bucket.confirmed(1, words[1]).is_none());
        assert_eq!(bucket.confirmed(0, words[0]), first.entry());
    }

    /// As if others worked between the look at the slot and the exchange of `free_dying`.
    #[test]
    fn lane_that_is_freed_for_another_owner_gives_that_one_out() {
        let buckets = Buckets::<u64>::new(1).unwrap();
        let bucket = buckets.at(0);
        bucket.init();
        let values = [1_u64, 2];
        let [removed, next] = values.each_ref().map(|v| Word::new(NonNull::from(v), false));
        let publish = |word| {
            let meta = bucket.meta();
            assert!(bucket.change_slot(0, Word::EMPTY, word));
            assert!(bucket.change_meta(meta, meta.with(0, 5)));
        };
        publish(removed);
        assert!(bucket.change_slot(0, removed, removed.dying()));
        let meta = bucket.meta();
        assert!(bucket.free_dying(0, removed.dying()).is_none());
        publish(next);
        while bucket.meta() != meta {
            assert!(bucket.unpublish(bucket.meta(), 0) == Some(next));
            publish(next);
        }
        assert!(bucket.free_dying(0, removed.dying()).is_none(), "another is there");
        assert!(bucket.unpublish(meta, 0) == Some(next), "it is not lost");
        assert!(bucket.slot(0) == Word::EMPTY && bucket.meta().taken().next().is_none());
    }

    #[test]
    fn words_keep_entry_and_marks_apart() {
        let value = Box::into_raw(Box::new(7u64));
        let entry = NonNull::new(value).unwrap();
        let word = Word::new(entry, true).dying().frozen();
        assert_eq!(word.entry(), Some(entry));
        assert!(word.is_dying() && word.is_frozen() && word.is_upper());
        assert!(Word::<u64>::EMPTY.entry().is_none());
        assert!(Word::<u64>::UNUSED != Word::<u64>::EMPTY);
        // SAFETY: from `Box::into_raw` above.
        drop(unsafe { Box::from_raw(value) });
    }
}
