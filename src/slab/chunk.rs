//! Chunks: the memory of cells and their side arrays.
//!
//! # Layout
//!
//! A handle consists of the number of a chunk and the number of a cell in it:
//!
//! ```text
//! handle   chunk (HANDLE_BITS - shift) │ cell (shift)
//! root     LEAVES pointers → leaf: a slot per chunk → cells; `SideArrays`: flags, hashes, …
//! ```
//!
//! A chunk has `1 << shift` handles and may have fewer cells; the other handles are never issued.
//! The first chunks are small, so that a cache of ten entries does not take two megabytes. Chunk 0
//! never exists: a table uses the handles 0 and 1 for states of its own.
//!
//! # Protocol
//!
//! `frontier` contains the number of the newest chunk and the number of its cells that were issued.
//! A thread issues fresh cells by adding to the latter (CAS). If the chunk is used up, the thread
//! allocates the next one, stores it in its slot (CAS: if several threads do so, one succeeds and
//! the others free theirs), and moves the frontier there (CAS). Chunks never move, and are freed
//! with the slab. No thread waits.
//!
//! The arrays of charges and of times are allocated, zeroed, when a cell of the chunk first needs
//! them, and stored by CAS. Zero means cost 1, and no times, so a cell whose owner has not seen the
//! array yet still has the values that its owner intended. A cell's owner writes its elements of
//! the arrays before it publishes the handle. If it finds no array, there is nothing to overwrite:
//! the previous owner, whose writes it has seen, has allocated none.
//!
//! # Orderings
//!
//! * Release of the frontier's move ↔ Acquire of the frontier's load: a thread that issues a cell
//!   of a chunk finds the chunk. Later CAS on the frontier continue the release sequence.
//! * Release of a leaf's and of a chunk's CAS ↔ Acquire of their loads: the leaf or chunk is
//!   initialized.
//! * A thread that has a handle received it, by an Acquire, from a thread that found the chunk.
//!   So leaf and cells are read Relaxed when a hit resolves a handle.
//! * Release of an array's CAS ↔ Acquire of its load: the array is zeroed before it is read.

use std::{
    alloc::{Layout, alloc, dealloc},
    array, fmt,
    ops::Range,
    ptr,
};

use super::{Handle, prefetch};
use crate::{
    error::OutOfMemory,
    sync::{
        IS_MODEL,
        atomic::{AtomicPtr, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering::*, WithMut},
    },
    util::CachePadded,
};

/// Bits of a handle: 26, because a table stores six more bits beside it in a word of 32. Under
/// loom, few cells are needed; under shuttle, whole caches run, whose cells are never reused.
pub const HANDLE_BITS: u32 = match () {
    () if cfg!(cortado_loom) => 4,
    () if cfg!(cortado_shuttle) => 14,
    () => 26,
};
/// Binary logarithm of the number of pointers in the root: 64 leaves, which are allocated on
/// demand.
const ROOT_BITS: u32 = if IS_MODEL { 1 } else { 6 };
const LEAVES: usize = 1 << ROOT_BITS;
/// Bits of a handle below those that select its leaf.
const LEAF_BITS: u32 = HANDLE_BITS - ROOT_BITS;
/// Bytes of a full chunk: one huge page.
const CHUNK_BYTES: usize = 2 << 20;
/// Minimum and maximum bits of a cell's number. With fewer bits, leaves would be long; with more,
/// small chunks would use up the handles.
const MIN_SHIFT: u32 = if IS_MODEL { 1 } else { 8 };
const MAX_SHIFT: u32 = if IS_MODEL { 1 } else { 17 };
/// Cells of the smallest chunk, unless a full chunk has fewer.
const MIN_CELLS: usize = 64;
/// Once the expected number of cells exists, a new chunk adds one cell for this many existing ones,
/// so that the number grows in proportion.
const GROWTH_PART: usize = 4;
/// Alignment of small chunks, in bytes: a cache line.
const MIN_ALIGN: usize = 64;

/// The chunks of one slab.
pub(super) struct Chunks<T> {
    /// Bits of a cell's number.
    shift: u32,
    /// Mask of the cell's number in a handle.
    mask: u32,
    /// Cells of a full chunk.
    full: usize,
    /// The number of cells that the slab is expected to need.
    expected: usize,
    root: [AtomicPtr<Slot<T>>; LEAVES],
    /// The number of the newest chunk (upper half), and the number of its issued cells (lower
    /// half).
    frontier: CachePadded<AtomicU64>,
    /// The number of cells of all chunks.
    cells: AtomicUsize,
}

/// The pointers to a chunk. The first three duplicate fields of `side_arrays`, to save an
/// indirection.
struct Slot<T> {
    cells: AtomicPtr<T>,
    flags: AtomicPtr<AtomicU8>,
    hashes: AtomicPtr<AtomicU32>,
    side_arrays: AtomicPtr<SideArrays<T>>,
}

/// A resolved handle: access to a cell and its elements of the side arrays.
pub struct Cell<'a, T> {
    slot: &'a Slot<T>,
    /// The number of the cell in its chunk.
    index: usize,
}

/// The cells of a chunk and the arrays beside them.
struct SideArrays<T> {
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

// SAFETY: chunks hand out raw pointers to cells, and their users must share `T`s only as `T` allows
// ([`Slab`](super::Slab) says so in its bounds); all other shared state is atomic.
unsafe impl<T: Send> Send for Chunks<T> {}
// SAFETY: as above.
unsafe impl<T: Send + Sync> Sync for Chunks<T> {}

impl<T> Chunks<T> {
    /// Creates the memory of a slab, without any chunk yet.
    pub(super) fn new(expected: usize) -> Self {
        let size = size_of::<T>().max(1);
        let full = (CHUNK_BYTES / size).clamp(1, 1 << MAX_SHIFT);
        let shift = full.next_power_of_two().ilog2().clamp(MIN_SHIFT, MAX_SHIFT);
        Self {
            shift,
            mask: (1 << shift) - 1,
            full,
            expected,
            root: array::from_fn(|_| AtomicPtr::new(ptr::null_mut())),
            frontier: CachePadded::new(AtomicU64::new(0)),
            cells: AtomicUsize::new(0),
        }
    }

    /// Issues up to `max` fresh cells, at least one; returns their handles.
    ///
    /// Returns `None` if a chunk cannot be allocated, or if all handles are issued.
    pub(super) fn issue(&self, max: u32) -> Option<Range<u32>> {
        // Acquire: pairs with the Release below; a thread that sees a chunk's number also sees the
        // chunk.
        let mut seen = self.frontier.load(Acquire);
        loop {
            let (chunk, issued) = unpack(seen);
            let len =
                self.side_arrays(chunk).map_or(0, |side_arrays| side_arrays.flags.len() as u32);
            let next = if issued < len {
                pack(chunk, issued + max.min(len - issued))
            } else {
                self.add_chunk(chunk + 1)?;
                pack(chunk + 1, 0)
            };
            if mutant!("slab_frontier_by_store") {
                self.frontier.store(next, Release);
            } else {
                // AcqRel: Release publishes a new chunk; Acquire on failure, because the value read
                // is used.
                match self.frontier.compare_exchange_weak(seen, next, AcqRel, Acquire) {
                    Ok(_) => {}
                    Err(now) => {
                        seen = now;
                        continue;
                    }
                }
            }
            if issued < len {
                let first = (chunk << self.shift) + issued;
                return Some(first..(chunk << self.shift) + unpack(next).1);
            }
            seen = next;
        }
    }

    /// Stores a chunk in its slot, unless there is one.
    fn add_chunk(&self, chunk: u32) -> Option<()> {
        if chunk >= 1 << (HANDLE_BITS - self.shift) {
            return None;
        }
        let slot = self.slot_or_new(chunk)?;
        // Acquire: pairs with the Release below.
        let mut side_arrays = slot.side_arrays.load(Acquire);
        if side_arrays.is_null() {
            let len = self.next_len();
            let new = SideArrays::allocate(len)?;
            // AcqRel: Release publishes the chunk's parts; Acquire on failure pairs with it.
            match slot.side_arrays.compare_exchange(ptr::null_mut(), new, AcqRel, Acquire) {
                Ok(_) => {
                    // Relaxed: a statistic that determines the size of the next chunk.
                    self.cells.fetch_add(len, Relaxed);
                    side_arrays = new;
                }
                Err(theirs) => {
                    // SAFETY: `new` was created above, and no other thread has seen it.
                    unsafe { SideArrays::free(new) };
                    side_arrays = theirs;
                }
            }
        }
        // SAFETY: a chunk stays in its slot until the slab is dropped.
        let side_arrays = unsafe { &*side_arrays };
        // Relaxed, all: made visible by the move of the frontier. Every thread that gets here
        // stores the same values.
        slot.cells.store(side_arrays.cells, Relaxed);
        slot.flags.store(side_arrays.flags.as_ptr().cast_mut(), Relaxed);
        slot.hashes.store(side_arrays.hashes.as_ptr().cast_mut(), Relaxed);
        Some(())
    }

    /// Returns the number of cells of the next chunk.
    fn next_len(&self) -> usize {
        let there = self.cells.load(Relaxed); // Relaxed: a statistic.
        let missing = self.expected.saturating_sub(there);
        let wanted = if missing > 0 { missing } else { there / GROWTH_PART };
        wanted.clamp(MIN_CELLS.min(self.full), self.full)
    }

    /// Returns the leaf of a handle and the index of its chunk there.
    #[inline]
    fn place(&self, raw: u32) -> (usize, usize) {
        let leaf = (raw >> LEAF_BITS) as usize & (LEAVES - 1);
        (leaf, ((raw & ((1 << LEAF_BITS) - 1)) >> self.shift) as usize)
    }

    fn leaf_len(&self) -> usize {
        1 << (LEAF_BITS - self.shift)
    }

    /// Returns the slot of a chunk; allocates its leaf if there is none.
    fn slot_or_new(&self, chunk: u32) -> Option<&Slot<T>> {
        let (leaf, index) = self.place(chunk << self.shift);
        let root = &self.root[leaf];
        // Acquire: pairs with the Release below.
        let mut slots = root.load(Acquire);
        if slots.is_null() {
            let new = into_raw(try_boxed(self.leaf_len(), Slot::new)?);
            // AcqRel: Release publishes the slots; Acquire on failure pairs with it.
            slots = match root.compare_exchange(ptr::null_mut(), new, AcqRel, Acquire) {
                Ok(_) => new,
                Err(theirs) => {
                    // SAFETY: `new` was created above with that length, and no other thread has
                    // seen it.
                    drop(unsafe { from_raw(new, self.leaf_len()) });
                    theirs
                }
            };
        }
        // SAFETY: a leaf has `leaf_len` slots, to which `place` masks the index, and lives as long
        // as the slab.
        Some(unsafe { &*slots.wrapping_add(index) })
    }

    /// Returns the slot of a chunk, if its leaf exists.
    #[inline]
    fn slot(&self, chunk: u32) -> Option<&Slot<T>> {
        let (leaf, index) = self.place(chunk << self.shift);
        let slots = self.root[leaf].load(Acquire); // Acquire: as in `slot_or_new`.
        if slots.is_null() {
            return None;
        }
        // SAFETY: as in `slot_or_new`.
        Some(unsafe { &*slots.wrapping_add(index) })
    }

    fn side_arrays(&self, chunk: u32) -> Option<&SideArrays<T>> {
        // Acquire: as in `add_chunk`.
        let side_arrays = self.slot(chunk)?.side_arrays.load(Acquire);
        // SAFETY: null, or a chunk, which stays there until the slab is dropped.
        unsafe { side_arrays.as_ref() }
    }

    /// Returns the cell of a handle.
    ///
    /// # Safety
    ///
    /// * This slab has issued the handle, and the caller received it, directly or through other
    ///   threads, by an Acquire from the thread that it was issued to.
    #[inline]
    pub(super) unsafe fn cell(&self, handle: Handle) -> Cell<'_, T> {
        let raw = handle.raw();
        let (leaf, index) = self.place(raw);
        let slots = self.root[leaf].load(Relaxed); // Relaxed: see "Orderings".
        // SAFETY: the handle was issued, so its leaf exists; `place` masks the index.
        let slot = unsafe { &*slots.wrapping_add(index) };
        Cell { slot, index: (raw & self.mask) as usize }
    }

    /// Like [`cell`](Self::cell), for any handle.
    ///
    /// # Panics
    ///
    /// Panics if the slab has no such cell.
    pub(super) fn checked_cell(&self, handle: Handle) -> Cell<'_, T> {
        let chunk = handle.raw() >> self.shift;
        let index = (handle.raw() & self.mask) as usize;
        let side_arrays =
            self.side_arrays(chunk).filter(|side_arrays| index < side_arrays.flags.len());
        side_arrays.expect("a handle of this slab");
        Cell { slot: self.slot(chunk).expect("it has something beside it"), index }
    }

    /// Returns the number of a handle's chunk.
    pub(super) fn chunk_of(&self, handle: Handle) -> u32 {
        handle.raw() >> self.shift
    }

    /// Returns the number of issued cells of a chunk.
    pub(super) fn issued(&self, chunk: u32) -> usize {
        let (newest, issued) = unpack(self.frontier.load(Acquire)); // Acquire: as in `issue`.
        match self.side_arrays(chunk) {
            Some(side_arrays) if chunk < newest => side_arrays.flags.len(),
            Some(_) if chunk == newest => issued as usize,
            _ => 0,
        }
    }

    /// Returns the memory of a chunk's first `count` cells, and of the side arrays, to the system,
    /// which provides it again, zeroed, on the next write. Returns whether any memory was returned.
    ///
    /// # Safety
    ///
    /// * No other thread has a handle of these cells, and they hold no values.
    pub(super) unsafe fn give_back(&self, chunk: u32, count: usize) -> bool {
        let Some(side_arrays) = self.side_arrays(chunk) else { return false };
        let count = count.min(side_arrays.flags.len());
        let charges = side_arrays.charges.load(Acquire); // Acquire: as in `Array::get`.
        let times = side_arrays.times.load(Acquire); // Acquire: as above.
        let parts: [(*mut u8, usize); 5] = [
            (side_arrays.cells.cast(), size_of::<T>()),
            (side_arrays.flags.as_ptr().cast_mut().cast(), size_of::<AtomicU8>()),
            (side_arrays.hashes.as_ptr().cast_mut().cast(), size_of::<AtomicU32>()),
            (charges.cast(), size_of::<AtomicU64>()),
            (times.cast(), 2 * size_of::<AtomicU64>()),
        ];
        // First: otherwise the system may make a huge page of the next page that is touched, or of
        // one that stays.
        side_arrays.advise(Pages::Small);
        let mut given = 0;
        for (start, size) in parts.into_iter().filter(|(start, _)| !start.is_null()) {
            // SAFETY: the caller's promise; if a thread with an old handle reads the side arrays,
            // zeros are as valid as the previous values.
            given += unsafe { give_pages_back(start, count * size) };
        }
        side_arrays.given_back.store(given, Relaxed); // Relaxed: a statistic.
        given > 0
    }

    /// Records that cells of a chunk are used again.
    pub(super) fn take_again(&self, chunk: u32) {
        // Relaxed, twice: a statistic.
        let side_arrays =
            self.side_arrays(chunk).filter(|side_arrays| side_arrays.given_back.load(Relaxed) > 0);
        if let Some(side_arrays) = side_arrays
            && side_arrays.given_back.swap(0, Relaxed) > 0
        {
            side_arrays.advise(Pages::Huge);
        }
    }

    /// Returns the number of cells.
    pub(super) fn cells(&self) -> usize {
        self.cells.load(Relaxed) // Relaxed: a statistic.
    }

    /// Returns the bytes of all chunks, with their side arrays and leaves.
    pub(super) fn bytes(&self) -> usize {
        // Relaxed: a statistic.
        let leaves = self.root.iter().filter(|leaf| !leaf.load(Relaxed).is_null());
        let leaves = leaves.count() * self.leaf_len() * size_of::<Slot<T>>();
        let chunks = 1..1 << (HANDLE_BITS - self.shift);
        let chunks = chunks.map_while(|chunk| self.side_arrays(chunk)).map(SideArrays::bytes);
        leaves + chunks.sum::<usize>()
    }
}

impl<T> Drop for Chunks<T> {
    fn drop(&mut self) {
        let len = self.leaf_len();
        for leaf in &mut self.root {
            let slots = leaf.with_mut(|leaf| *leaf);
            if slots.is_null() {
                continue;
            }
            // SAFETY: a leaf has that length, and `&mut self` excludes other threads.
            for slot in &mut *unsafe { from_raw(slots, len) } {
                let side_arrays = slot.side_arrays.with_mut(|side_arrays| *side_arrays);
                if !side_arrays.is_null() {
                    // SAFETY: it is in this slot only, and the slot is freed with it.
                    unsafe { SideArrays::free(side_arrays) };
                }
            }
        }
    }
}

impl<T> Slot<T> {
    fn new() -> Self {
        Self {
            cells: AtomicPtr::new(ptr::null_mut()),
            flags: AtomicPtr::new(ptr::null_mut()),
            hashes: AtomicPtr::new(ptr::null_mut()),
            side_arrays: AtomicPtr::new(ptr::null_mut()),
        }
    }
}

impl<T> Clone for Cell<'_, T> {
    #[inline]
    fn clone(&self) -> Self {
        *self
    }
}
impl<T> Copy for Cell<'_, T> {}

impl<T> fmt::Debug for Cell<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cell").field("index", &self.index).finish_non_exhaustive()
    }
}

impl<'a, T> Cell<'a, T> {
    /// Returns the address of the value.
    #[inline]
    pub fn address(self) -> *mut T {
        // Relaxed: see "Orderings".
        self.slot.cells.load(Relaxed).wrapping_add(self.index)
    }

    /// Prefetches the cell, its flags and its hash.
    #[inline]
    pub fn prefetch(self) {
        prefetch(self.address());
        self.prefetch_side_arrays();
    }

    /// Prefetches the flags and the hash.
    #[inline]
    pub fn prefetch_side_arrays(self) {
        // Relaxed, twice: see "Orderings".
        prefetch(self.slot.flags.load(Relaxed).wrapping_add(self.index));
        prefetch(self.slot.hashes.load(Relaxed).wrapping_add(self.index));
    }

    /// Prefetches the flags.
    #[inline]
    pub fn prefetch_flags(self) {
        // Relaxed: see "Orderings".
        prefetch(self.slot.flags.load(Relaxed).wrapping_add(self.index));
    }

    /// Returns a byte that the slab does not use. It has the value of the cell's previous user
    /// until it is set.
    #[inline]
    pub fn flags(self) -> &'a AtomicU8 {
        let flags = self.slot.flags.load(Relaxed); // Relaxed: see "Orderings".
        // SAFETY: the chunk has as many flags as cells, and they stay until the slab is dropped.
        unsafe { &*flags.wrapping_add(self.index) }
    }

    /// Returns the 32 bits of the entry's hash that [`set_hash`](Self::set_hash) has stored.
    #[inline]
    pub fn hash(self) -> u32 {
        self.hash_word().load(Relaxed) // Relaxed: published with the handle.
    }

    /// Stores 32 bits of the entry's hash, before the handle is published.
    #[inline]
    pub fn set_hash(self, hash: u32) {
        self.hash_word().store(hash, Relaxed); // Relaxed: made visible by the publication.
    }

    #[inline]
    fn hash_word(self) -> &'a AtomicU32 {
        let hashes = self.slot.hashes.load(Relaxed); // Relaxed: see "Orderings".
        // SAFETY: as in `flags`.
        unsafe { &*hashes.wrapping_add(self.index) }
    }

    #[inline]
    fn side_arrays(self) -> &'a SideArrays<T> {
        let side_arrays = self.slot.side_arrays.load(Relaxed); // Relaxed: see "Orderings".
        // SAFETY: the chunk exists, as it has this cell, and stays until the slab is dropped.
        unsafe { &*side_arrays }
    }

    /// Returns the cost that was set, 1 by default. Takes no memory while all costs are 1.
    #[inline]
    pub fn charge(self) -> u64 {
        let side_arrays = self.side_arrays();
        let charges = Array::new(&side_arrays.charges, side_arrays.flags.len()).get();
        // Relaxed: published with the handle.
        charges.map_or(1, |charges| encode(charges[self.index].load(Relaxed)))
    }

    /// Sets the cost, before the handle is published. Every user of the cell has to, as it would
    /// inherit the cost of the previous user otherwise.
    ///
    /// # Errors
    ///
    /// [`OutOfMemory`] if the costs of the chunk cannot be allocated; the cost is then 1.
    pub fn set_charge(self, cost: u64) -> Result<(), OutOfMemory> {
        let side_arrays = self.side_arrays();
        let array = Array::new(&side_arrays.charges, side_arrays.flags.len());
        let charges = if cost == 1 {
            match array.get() {
                Some(charges) if !mutant!("slab_charge_inherited") => charges,
                _ => return Ok(()),
            }
        } else {
            array.get_or_new()?
        };
        charges[self.index].store(encode(cost), Relaxed); // Relaxed: published with the handle.
        Ok(())
    }

    /// Returns the two time words, if any cell of the chunk was ever given times: 0, or what was
    /// stored last.
    #[inline]
    pub fn times(self) -> Option<&'a [AtomicU64; 2]> {
        let side_arrays = self.side_arrays();
        let times = Array::new(&side_arrays.times, 2 * side_arrays.flags.len()).get()?;
        times[2 * self.index..].first_chunk()
    }

    /// Returns the two time words; allocates those of the chunk if there are none. Threads other
    /// than the cell's owner may call it, too.
    ///
    /// # Errors
    ///
    /// [`OutOfMemory`] if they cannot be allocated.
    pub fn times_or_new(self) -> Result<&'a [AtomicU64; 2], OutOfMemory> {
        let side_arrays = self.side_arrays();
        let times = Array::new(&side_arrays.times, 2 * side_arrays.flags.len()).get_or_new()?;
        Ok(times[2 * self.index..].first_chunk().expect("two words a cell"))
    }
}

impl<T> SideArrays<T> {
    /// Allocates a chunk with uninitialised cells and zeroed side arrays.
    fn allocate(len: usize) -> Option<*mut Self> {
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
    unsafe fn free(side_arrays: *mut Self) {
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

    fn bytes(&self) -> usize {
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

fn pack(chunk: u32, issued: u32) -> u64 {
    u64::from(chunk) << 32 | u64::from(issued)
}

fn unpack(frontier: u64) -> (u32, u32) {
    ((frontier >> 32) as u32, frontier as u32)
}

/// Allocates a slice; returns `None` if there is no memory.
pub fn try_boxed<T>(len: usize, make: impl FnMut() -> T) -> Option<Box<[T]>> {
    let mut items = Vec::new();
    items.try_reserve_exact(len).ok()?;
    items.resize_with(len, make);
    Some(items.into_boxed_slice())
}

pub(super) fn into_raw<T>(slice: Box<[T]>) -> *mut T {
    Box::into_raw(slice).cast()
}

/// Turns the result of `into_raw` back into the slice.
///
/// # Safety
///
/// * `first` comes from `into_raw` of a slice of that length, and is owned by the caller.
pub(super) unsafe fn from_raw<T>(first: *mut T, len: usize) -> Box<[T]> {
    // SAFETY: the caller's promise.
    unsafe { Box::from_raw(ptr::slice_from_raw_parts_mut(first, len)) }
}

/// The size of the pages that back memory.
#[derive(Clone, Copy)]
pub enum Pages {
    /// Huge pages, of 2 MiB for example.
    Huge,
    /// Pages of the smallest size. Where the system uses huge pages by default, it would otherwise
    /// make, in the background, a whole huge page again of one from which a single page is left.
    Small,
}

/// Asks the system for pages of a kind. A hint: a system with one kind only ignores it.
pub fn advise(start: *mut u8, len: usize, pages: Pages) {
    #[cfg(all(target_os = "linux", not(any(cortado_loom, cortado_shuttle))))]
    {
        let advice = match pages {
            Pages::Huge => libc::MADV_HUGEPAGE,
            Pages::Small => libc::MADV_NOHUGEPAGE,
        };
        // SAFETY: advice about memory that the caller has allocated; it changes no content.
        unsafe { libc::madvise(start.cast(), len, advice) };
    }
    #[cfg(not(all(target_os = "linux", not(any(cortado_loom, cortado_shuttle)))))]
    let _ = (start, len, pages);
}

/// Returns the whole pages of a range to the system; returns their bytes.
///
/// # Safety
///
/// * The range was allocated, and contains nothing that any thread reads.
unsafe fn give_pages_back(start: *mut u8, len: usize) -> usize {
    #[cfg(all(target_os = "linux", not(any(cortado_loom, cortado_shuttle))))]
    {
        // SAFETY: queries a constant of the system.
        let page = usize::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap_or(0);
        if !page.is_power_of_two() {
            return 0;
        }
        let offset = start.align_offset(page);
        let whole = len.saturating_sub(offset) / page * page;
        if whole == 0 {
            return 0;
        }
        let first = start.wrapping_add(offset).cast();
        // SAFETY: whole pages within the range, which the caller promises are not in use. The pages
        // of an allocator are private and have no file behind them, so the next read of one returns
        // zeros.
        let result = unsafe { libc::madvise(first, whole, libc::MADV_DONTNEED) };
        if result == 0 { whole } else { 0 }
    }
    #[cfg(not(all(target_os = "linux", not(any(cortado_loom, cortado_shuttle)))))]
    {
        let _ = start;
        // Models have no pages to return; all bytes count as returned, so that the callers are
        // tested.
        if IS_MODEL { len } else { 0 }
    }
}
