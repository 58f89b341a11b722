//! Arrays of buckets: the table's root and, while the table is resized, the next array.

use std::ptr;

use super::bucket::Bucket;
use crate::{
    error::OutOfMemory,
    reclaim::Guard,
    sync::atomic::{AtomicPtr, AtomicUsize, Ordering::*},
};

#[cfg(not(any(cortado_loom, cortado_shuttle)))]
use lazy::Memory;
#[cfg(any(cortado_loom, cortado_shuttle))]
use modelled::Memory;

/// Maximum number of buckets of an array. [`Array::index`] multiplies it by 32 bits of a hash,
/// which must not overflow; the slab runs out of handles long before.
const MAX_BUCKETS: usize = 1 << 30;

/// An array of buckets, linked to the one that replaces it.
pub struct Array {
    buckets: Memory,
    /// The array that replaces this one; set once, before any bucket is frozen.
    next: AtomicPtr<Array>,
    /// The next unit for a helper to move; wraps around until all have moved.
    cursor: AtomicUsize,
    /// The number of units, from the first on, that were found moved.
    moved: AtomicUsize,
    /// The number of requests to grow that are still to be refused, because one found no memory.
    refusals: AtomicUsize,
}

impl Array {
    /// Allocates `count` unused buckets, at least one. The system provides the memory on first
    /// access.
    ///
    /// # Errors
    ///
    /// [`OutOfMemory`] if the allocator fails, or if there would be more than 2^30 buckets.
    pub fn new(count: usize) -> Result<Self, OutOfMemory> {
        let bytes = count.saturating_mul(size_of::<Bucket>());
        if count > MAX_BUCKETS {
            return Err(OutOfMemory { bytes });
        }
        Ok(Self {
            buckets: Memory::new(count.max(1)).ok_or(OutOfMemory { bytes })?,
            next: AtomicPtr::new(ptr::null_mut()),
            cursor: AtomicUsize::new(0),
            moved: AtomicUsize::new(0),
            refusals: AtomicUsize::new(0),
        })
    }

    /// Returns the number of buckets.
    #[inline]
    pub fn count(&self) -> usize {
        self.buckets.as_slice().len()
    }

    /// Returns all buckets.
    #[inline]
    pub fn as_slice(&self) -> &[Bucket] {
        self.buckets.as_slice()
    }

    /// Returns the bucket at an index, if there is one.
    #[inline]
    pub fn get(&self, index: usize) -> Option<&Bucket> {
        self.buckets.as_slice().get(index)
    }

    /// Returns the bucket at an index.
    ///
    /// # Panics
    ///
    /// Panics if the index is out of bounds.
    #[inline]
    pub fn at(&self, index: usize) -> &Bucket {
        &self.buckets.as_slice()[index]
    }

    /// Returns the index of the bucket for hashes with these 32 upper bits. In an array of twice
    /// the size, the index is twice as high, or one more.
    #[inline]
    pub fn index(&self, upper: u32) -> usize {
        ((u64::from(upper) * self.count() as u64) >> 32) as usize
    }

    /// Returns the index of a bucket of this array.
    pub fn index_of(&self, bucket: &Bucket) -> usize {
        let first = self.buckets.as_slice().as_ptr().addr();
        (ptr::from_ref(bucket).addr() - first) / size_of::<Bucket>()
    }

    /// Returns the bucket for hashes with these 32 upper bits.
    #[inline]
    pub fn of(&self, upper: u32) -> &Bucket {
        // SAFETY: upper < 2^32 and count <= 2^30, so the product does not overflow and is below
        // count * 2^32. Its upper half is below count.
        unsafe { self.buckets.as_slice().get_unchecked(self.index(upper)) }
    }

    /// Returns the array that replaces this one, if the table is being resized.
    #[inline]
    pub fn next<'g>(&'g self, _: &'g Guard) -> Option<&'g Self> {
        // Acquire: pairs with the Release in `link`, so that the array is seen initialized.
        let next = self.next.load(Acquire);
        // SAFETY: an array is retired after its next one has become the root, so a thread that
        // reached this one under a guard may follow it to the next.
        unsafe { next.as_ref() }
    }

    /// Makes `next` this array's next one, unless it already has one.
    pub fn link(&self, next: Box<Self>) {
        let next = Box::into_raw(next);
        // Release: pairs with the Acquire in `next`. Relaxed on failure: the other array is not
        // accessed.
        let release = ordering!(Release, mutant("resize_relaxed_next") => Relaxed);
        if self.next.compare_exchange(ptr::null_mut(), next, release, Relaxed).is_err() {
            // SAFETY: the exchange failed, so this call still owns the array.
            drop(unsafe { Box::from_raw(next) });
        }
    }

    /// Takes the next array out. The caller has exclusive access.
    pub fn take_next(&mut self) -> Option<Box<Self>> {
        let next = self.next.swap(ptr::null_mut(), Relaxed); // Relaxed: `&mut self`.
        // SAFETY: it came from `Box::into_raw`, and no other array has it as its next one.
        (!next.is_null()).then(|| unsafe { Box::from_raw(next) })
    }

    /// Returns the unit, of `units`, for a helper to move next.
    pub fn next_unit(&self, units: usize) -> usize {
        // Relaxed: only spreads helpers over the units; one that has moved already costs a check.
        self.cursor.fetch_add(1, Relaxed) % units
    }

    /// Checks up to `max` units that were not found moved yet; returns whether all of `units` have
    /// moved.
    pub fn have_moved(&self, max: usize, units: usize, has_moved: impl Fn(usize) -> bool) -> bool {
        // Acquire: pairs with the Release below; the lower units, which other helpers have found
        // moved, are seen moved here.
        let from = self.moved.load(Acquire);
        let end = from.saturating_add(max).min(units);
        let to = (from..end).find(|&unit| !has_moved(unit)).unwrap_or(end);
        // AcqRel: Release publishes what was found here, Acquire receives what others have found
        // since.
        let seen = if to > from { self.moved.fetch_max(to, AcqRel).max(to) } else { from };
        seen == units
    }

    /// Returns the number of units that were found moved.
    pub fn moved_units(&self) -> usize {
        self.moved.load(Relaxed) // Relaxed: a statistic.
    }

    /// Returns whether a request to grow is refused without an attempt, and counts the refusal.
    pub fn refuses(&self) -> bool {
        // Relaxed, twice: a hint. If two threads count the same refusal, refusals end a little
        // later.
        let refusals = self.refusals.load(Relaxed);
        if refusals > 0 {
            self.refusals.store(refusals - 1, Relaxed);
        }
        refusals > 0
    }

    /// Refuses the next `count` requests to grow.
    pub fn refuse(&self, count: usize) {
        self.refusals.store(count, Relaxed); // Relaxed: a hint.
    }
}

/// An array that was the root. Dropping it frees the array.
///
/// A raw pointer: a `Box` would assert unique access, but threads with older guards may still read
/// the array.
pub struct OldArray(*mut Array);

// SAFETY: an array may be freed by any thread.
unsafe impl Send for OldArray {}

impl OldArray {
    /// # Safety
    ///
    /// * The array came from `Box::into_raw`, is no longer the root, and is owned by the caller.
    /// * The result is dropped when no guard is left under which a thread may have reached it.
    pub unsafe fn new(array: *mut Array) -> Self {
        Self(array)
    }
}

impl Drop for OldArray {
    fn drop(&mut self) {
        // SAFETY: the promises of `new`.
        drop(unsafe { Box::from_raw(self.0) });
    }
}

impl std::fmt::Debug for OldArray {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OldArray").finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Array {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Array").field("count", &self.count()).finish_non_exhaustive()
    }
}

/// Zeroed memory that the system provides on first access, in huge pages where it has them.
#[cfg(not(any(cortado_loom, cortado_shuttle)))]
mod lazy {
    use std::{
        alloc::{Layout, alloc_zeroed, dealloc},
        ptr::NonNull,
        slice,
    };

    use super::Bucket;
    use crate::slab::{Pages, advise};

    /// Alignment, in bytes, that the allocator provides by default. For a higher one it zeroes the
    /// memory by writing to it.
    const NATURAL_ALIGN: usize = 16;
    const HUGE_PAGE: usize = 2 << 20;

    pub struct Memory {
        buckets: NonNull<Bucket>,
        count: usize,
        block: NonNull<u8>,
        layout: Layout,
    }

    // SAFETY: it owns its memory, and buckets consist of atomics.
    unsafe impl Send for Memory {}
    // SAFETY: as above.
    unsafe impl Sync for Memory {}

    impl Memory {
        pub fn new(count: usize) -> Option<Self> {
            let line = align_of::<Bucket>();
            let bytes = count.checked_mul(size_of::<Bucket>())?.checked_add(line)?;
            let layout = Layout::from_size_align(bytes, NATURAL_ALIGN).ok()?;
            // SAFETY: the layout is not empty: its size includes at least one line.
            let block = NonNull::new(unsafe { alloc_zeroed(layout) })?;
            // SAFETY: the offset is below `line`, which the size includes.
            let buckets = unsafe { block.add(block.align_offset(line)) };
            let first = block.align_offset(HUGE_PAGE);
            let huge = bytes.saturating_sub(first) / HUGE_PAGE * HUGE_PAGE;
            if huge > 0 {
                // SAFETY: `first + huge` is not beyond the end of the block.
                advise(unsafe { block.add(first) }.as_ptr(), huge, Pages::Huge);
            }
            Some(Self { buckets: buckets.cast(), count, block, layout })
        }

        #[inline]
        pub fn as_slice(&self) -> &[Bucket] {
            // SAFETY: there are `count` buckets; zeroed memory is an unused bucket, and buckets
            // change by atomic operations only.
            unsafe { slice::from_raw_parts(self.buckets.as_ptr(), self.count) }
        }
    }

    impl Drop for Memory {
        fn drop(&mut self) {
            // SAFETY: allocated with this layout, and freed once.
            unsafe { dealloc(self.block.as_ptr(), self.layout) };
        }
    }
}

/// Memory for model checkers, whose atomics are not plain memory.
#[cfg(any(cortado_loom, cortado_shuttle))]
mod modelled {
    use super::Bucket;
    use crate::sync::Watched;

    pub struct Memory {
        buckets: Box<[Bucket]>,
        /// Read on every access to a bucket, and written on drop: the two must be ordered.
        watched: Watched,
    }

    impl Memory {
        pub fn new(count: usize) -> Option<Self> {
            let buckets = (0..count).map(|_| Bucket::unused()).collect();
            Some(Self { buckets, watched: Watched::new() })
        }

        pub fn as_slice(&self) -> &[Bucket] {
            self.watched.read();
            &self.buckets
        }
    }

    impl Drop for Memory {
        fn drop(&mut self) {
            self.watched.write();
        }
    }
}

#[cfg(all(test, not(any(cortado_loom, cortado_shuttle))))]
mod tests {
    use super::*;
    use crate::table::control::Control;

    #[test]
    fn doubling_sends_a_hash_to_one_of_two_buckets() {
        for count in [1, 2, 3, 7, 1000, (1 << 20) - 1] {
            let (small, large) = (Array::new(count).unwrap(), Array::new(2 * count).unwrap());
            let mut upper = 0_u32;
            for _ in 0..1000 {
                assert_eq!(large.index(upper) / 2, small.index(upper));
                upper = upper.wrapping_mul(0x915f_77f5).wrapping_add(0x6a09_e667);
            }
            assert_eq!((small.index(0), small.index(u32::MAX)), (0, count - 1));
        }
    }

    #[test]
    fn buckets_are_lines_of_their_own_and_unused() {
        let array = Array::new(100_000).unwrap();
        assert_eq!(ptr::from_ref(array.at(0)).align_offset(64), 0);
        assert!((0..array.count()).all(|index| array.at(index).control() == Control::UNUSED));
        assert!(ptr::eq(array.of(u32::MAX), array.at(99_999)));
    }

    #[test]
    fn more_buckets_than_can_be_named_are_an_error() {
        for count in [usize::MAX, MAX_BUCKETS + 1] {
            let bytes = count.saturating_mul(64);
            assert_eq!(Array::new(count).err(), Some(OutOfMemory { bytes }));
        }
    }
}
