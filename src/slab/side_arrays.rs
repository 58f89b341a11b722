//! `SideArrays`: the cells of a chunk and the arrays beside them (flags, hashes, costs, times).
//!
//! # Protocol
//!
//! The arrays of charges and of times are allocated, zeroed, when a cell of the chunk first needs
//! them, and stored by CAS. Zero means cost 1, and no times, so a cell whose owner has not seen the
//! array yet still has the values that its owner intended. A cell's owner writes its elements of
//! the arrays before it publishes the handle. If it finds no array, there is nothing to overwrite:
//! the previous owner, whose writes it has seen, has allocated none.
//!
//! # Orderings
//!
//! * Release of an array's CAS ↔ Acquire of its load: the array is zeroed before it is read.

use std::{
    alloc::{Layout, alloc, dealloc},
    ptr,
};

use super::memory::{Pages, advise, from_raw, give_pages_back, into_raw, try_boxed};
use crate::{
    error::OutOfMemory,
    sync::{
        IS_MODEL,
        atomic::{AtomicPtr, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering::*, WithMut},
    },
};

/// Bytes of a full chunk: one huge page.
pub(super) const CHUNK_BYTES: usize = 2 << 20;
/// Alignment of small chunks, in bytes: a cache line.
const MIN_ALIGN: usize = 64;

/// The cells of a chunk and the arrays beside them.
pub(super) struct SideArrays<T> {
    cells: *mut T,
    /// One element per cell. Its length is the number of cells.
    flags: Box<[AtomicU8]>,
    /// One element per cell.
    hashes: Box<[AtomicU32]>,
    /// The cost of each cell's entry, encoded by [`encode`]; null while all costs are 1.
    charges: AtomicPtr<AtomicU64>,
    /// Two words per cell; null while no entry has times.
    times: AtomicPtr<AtomicU64>,
    /// Bytes that were returned to the system; 0 after a cell of the chunk was used again.
    given_back: AtomicUsize,
}

impl<T> SideArrays<T> {
    /// Allocates a chunk with uninitialised cells and zeroed side arrays.
    pub(super) fn allocate(len: usize) -> Option<*mut Self> {
        let flags = try_boxed(len, || AtomicU8::new(0))?;
        let hashes = try_boxed(len, || AtomicU32::new(0))?;
        let layout = Self::layout(len)?;
        let cells = if layout.size() == 0 {
            ptr::without_provenance_mut(layout.align())
        } else {
            // SAFETY: the size of the layout is not 0.
            unsafe { alloc(layout) }
        };
        if cells.is_null() {
            return None;
        }
        let (charges, times) = (AtomicPtr::new(ptr::null_mut()), AtomicPtr::new(ptr::null_mut()));
        let cells = cells.cast();
        let given_back = AtomicUsize::new(0);
        let new = Self { cells, flags, hashes, charges, times, given_back };
        new.advise(Pages::Huge);
        let mut slot = Vec::new();
        if slot.try_reserve_exact(1).is_err() {
            // SAFETY: allocated above with that layout; the caller never sees it.
            unsafe { new.free_cells() };
            return None;
        }
        slot.push(new);
        Some(into_raw(slot.into_boxed_slice()))
    }

    /// Frees a chunk and its side arrays; values in its cells are not dropped.
    ///
    /// # Safety
    ///
    /// * `side_arrays` comes from `allocate`, and no other thread can reach it any more.
    pub(super) unsafe fn free(side_arrays: *mut Self) {
        // SAFETY: the caller's promise; `allocate` creates a slice of one.
        let mut side_arrays = unsafe { from_raw(side_arrays, 1) };
        let len = side_arrays[0].flags.len();
        for (array, len) in [(0, len), (1, 2 * len)] {
            let array =
                if array == 0 { &mut side_arrays[0].charges } else { &mut side_arrays[0].times };
            let words = array.with_mut(|words| *words);
            if !words.is_null() {
                // SAFETY: `Array::get_or_new` created it with that length, and the caller has
                // exclusive access.
                drop(unsafe { from_raw(words, len) });
            }
        }
        // SAFETY: the caller has exclusive access, and `side_arrays` is dropped.
        unsafe { side_arrays[0].free_cells() };
    }

    /// # Safety
    ///
    /// * Called once, when no thread can reach the cells any more.
    unsafe fn free_cells(&self) {
        let layout = Self::layout(self.flags.len()).expect("it was allocated with that");
        if layout.size() > 0 {
            // SAFETY: `allocate` got it with this layout.
            unsafe { dealloc(self.cells.cast(), layout) };
        }
    }

    /// Returns the number of cells.
    #[inline]
    pub(super) fn len(&self) -> usize {
        self.flags.len()
    }

    /// Returns the address of the first cell.
    pub(super) fn cells(&self) -> *mut T {
        self.cells
    }

    /// Returns a byte for each cell.
    pub(super) fn flags(&self) -> &[AtomicU8] {
        &self.flags
    }

    /// Returns a hash for each cell.
    pub(super) fn hashes(&self) -> &[AtomicU32] {
        &self.hashes
    }

    /// Returns the cost of a cell's entry.
    #[inline]
    pub(super) fn charge(&self, index: usize) -> u64 {
        let charges = Array::new(&self.charges, self.len()).get();
        // Relaxed: published with the handle.
        charges.map_or(1, |charges| encode(charges[index].load(Relaxed)))
    }

    /// Sets the cost of a cell's entry.
    pub(super) fn set_charge(&self, index: usize, cost: u64) -> Result<(), OutOfMemory> {
        let array = Array::new(&self.charges, self.len());
        let charges = if cost == 1 {
            match array.get() {
                Some(charges) if !mutant!("slab_charge_inherited") => charges,
                _ => return Ok(()),
            }
        } else {
            array.get_or_new()?
        };
        charges[index].store(encode(cost), Relaxed); // Relaxed: published with the handle.
        Ok(())
    }

    /// Returns the two time words of a cell, if any cell of the chunk was ever given times.
    #[inline]
    pub(super) fn times(&self, index: usize) -> Option<&[AtomicU64; 2]> {
        let times = Array::new(&self.times, 2 * self.len()).get()?;
        times[2 * index..].first_chunk()
    }

    /// Returns the two time words of a cell; allocates those of the chunk if there are none.
    pub(super) fn times_or_new(&self, index: usize) -> Result<&[AtomicU64; 2], OutOfMemory> {
        let times = Array::new(&self.times, 2 * self.len()).get_or_new()?;
        Ok(times[2 * index..].first_chunk().expect("two words a cell"))
    }

    /// Returns the memory of the first `count` cells, and of their elements, to the system; returns
    /// whether it returned any.
    ///
    /// # Safety
    ///
    /// * No other thread has a handle of these cells, and they hold no values.
    pub(super) unsafe fn give_back(&self, count: usize) -> bool {
        let count = count.min(self.len());
        let charges = self.charges.load(Acquire); // Acquire: as in `Array::get`.
        let times = self.times.load(Acquire); // Acquire: as above.
        let parts: [(*mut u8, usize); 5] = [
            (self.cells.cast(), size_of::<T>()),
            (self.flags.as_ptr().cast_mut().cast(), size_of::<AtomicU8>()),
            (self.hashes.as_ptr().cast_mut().cast(), size_of::<AtomicU32>()),
            (charges.cast(), size_of::<AtomicU64>()),
            (times.cast(), 2 * size_of::<AtomicU64>()),
        ];
        // First: otherwise the system may make a huge page of the next page that is touched, or of
        // one that stays.
        self.advise(Pages::Small);
        let mut given = 0;
        for (start, size) in parts.into_iter().filter(|(start, _)| !start.is_null()) {
            // SAFETY: the caller's promise; if a thread with an old handle reads the side arrays,
            // zeros are as valid as the previous values.
            given += unsafe { give_pages_back(start, count * size) };
        }
        self.given_back.store(given, Relaxed); // Relaxed: a statistic.
        given > 0
    }

    /// Records that cells are used again.
    pub(super) fn take_again(&self) {
        // Relaxed, twice: a statistic.
        if self.given_back.load(Relaxed) > 0 && self.given_back.swap(0, Relaxed) > 0 {
            self.advise(Pages::Huge);
        }
    }

    /// Advises the system about the pages that back the cells, if there are enough of them for a
    /// huge page.
    fn advise(&self, pages: Pages) {
        let layout = Self::layout(self.flags.len()).filter(|layout| layout.align() >= CHUNK_BYTES);
        if let Some(layout) = layout {
            advise(self.cells.cast(), layout.size(), pages);
        }
    }

    /// Returns the layout of the cells. Full chunks are aligned to a huge page, so that one TLB
    /// entry covers a chunk.
    fn layout(len: usize) -> Option<Layout> {
        let layout = Layout::array::<T>(len).ok()?;
        let is_full = !IS_MODEL && layout.size() > CHUNK_BYTES / 2;
        let layout = layout.align_to(if is_full { CHUNK_BYTES } else { MIN_ALIGN }).ok()?;
        // The system uses a huge page only where there is room for all of it.
        Some(if is_full { layout.pad_to_align() } else { layout })
    }

    pub(super) fn bytes(&self) -> usize {
        let len = self.flags.len();
        // Relaxed, twice: statistics.
        let charges = if self.charges.load(Relaxed).is_null() { 0 } else { len };
        let times = if self.times.load(Relaxed).is_null() { 0 } else { 2 * len };
        let used = size_of::<Self>()
            + len * (size_of::<T>() + size_of::<AtomicU8>() + size_of::<AtomicU32>())
            + (charges + times) * size_of::<AtomicU64>();
        used - self.given_back.load(Relaxed) // Relaxed: a statistic.
    }
}

/// An array of words that is allocated, zeroed, on first use.
struct Array<'a> {
    words: &'a AtomicPtr<AtomicU64>,
    len: usize,
}

impl<'a> Array<'a> {
    #[inline]
    fn new(words: &'a AtomicPtr<AtomicU64>, len: usize) -> Self {
        Self { words, len }
    }

    #[inline]
    fn get(&self) -> Option<&'a [AtomicU64]> {
        // Acquire: pairs with the Release in `get_or_new`, so that the array is seen zeroed.
        let words = self.words.load(Acquire);
        // SAFETY: null, or an array of that length, which stays there for as long as the borrow of
        // the pointer.
        (!words.is_null()).then(|| unsafe { std::slice::from_raw_parts(words, self.len) })
    }

    fn get_or_new(&self) -> Result<&'a [AtomicU64], OutOfMemory> {
        if let Some(words) = self.get() {
            return Ok(words);
        }
        let error = OutOfMemory { bytes: self.len * size_of::<AtomicU64>() };
        let new = into_raw(try_boxed(self.len, || AtomicU64::new(0)).ok_or(error)?);
        // Release: pairs with the Acquire in `get`. Relaxed on failure: `get` loads it again.
        let release = ordering!(Release, mutant("slab_relaxed_array") => Relaxed);
        if self.words.compare_exchange(ptr::null_mut(), new, release, Relaxed).is_err() {
            // SAFETY: `new` was created above with that length, and no other thread has seen it.
            drop(unsafe { from_raw(new, self.len) });
        }
        Ok(self.get().expect("an array never goes before its chunk"))
    }
}

/// Encodes or decodes a cost: swaps 0 and 1, so that zeroed memory means cost 1.
#[inline]
fn encode(cost: u64) -> u64 {
    cost ^ u64::from(cost <= 1)
}
