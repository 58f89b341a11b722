//! Chunks: where the cell of a handle is, and which cells are issued next.
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
//! # Orderings
//!
//! * Release of the frontier's move ↔ Acquire of the frontier's load: a thread that issues a cell
//!   of a chunk finds the chunk. Later CAS on the frontier continue the release sequence.
//! * Release of a leaf's and of a chunk's CAS ↔ Acquire of their loads: the leaf or chunk is
//!   initialized.
//! * A thread that has a handle received it, by an Acquire, from a thread that found the chunk.
//!   So leaf and cells are read Relaxed when a hit resolves a handle.

use std::{array, fmt, ops::Range, ptr};

use super::{
    Handle,
    memory::{from_raw, into_raw, try_boxed},
    prefetch,
    side_arrays::{CHUNK_BYTES, SideArrays},
};
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
/// Minimum and maximum bits of a cell's number. With fewer bits, leaves would be long; with more,
/// small chunks would use up the handles.
const MIN_SHIFT: u32 = if IS_MODEL { 1 } else { 8 };
const MAX_SHIFT: u32 = if IS_MODEL { 1 } else { 17 };
/// Cells of the smallest chunk, unless a full chunk has fewer.
const MIN_CELLS: usize = 64;
/// Once the expected number of cells exists, a new chunk adds one cell for this many existing ones,
/// so that the number grows in proportion.
const GROWTH_PART: usize = 4;

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
            let len = self.side_arrays(chunk).map_or(0, |side_arrays| side_arrays.len() as u32);
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
        slot.cells.store(side_arrays.cells(), Relaxed);
        slot.flags.store(side_arrays.flags().as_ptr().cast_mut(), Relaxed);
        slot.hashes.store(side_arrays.hashes().as_ptr().cast_mut(), Relaxed);
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
        let side_arrays = self.side_arrays(chunk).filter(|side_arrays| index < side_arrays.len());
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
            Some(side_arrays) if chunk < newest => side_arrays.len(),
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
        // SAFETY: the caller's promise.
        self.side_arrays(chunk).is_some_and(|chunk| unsafe { chunk.give_back(count) })
    }

    /// Records that cells of a chunk are used again.
    pub(super) fn take_again(&self, chunk: u32) {
        if let Some(side_arrays) = self.side_arrays(chunk) {
            side_arrays.take_again();
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
        self.side_arrays().charge(self.index)
    }

    /// Sets the cost, before the handle is published. Every user of the cell has to, as it would
    /// inherit the cost of the previous user otherwise.
    ///
    /// # Errors
    ///
    /// [`OutOfMemory`] if the costs of the chunk cannot be allocated; the cost is then 1.
    pub fn set_charge(self, cost: u64) -> Result<(), OutOfMemory> {
        self.side_arrays().set_charge(self.index, cost)
    }

    /// Returns the two time words, if any cell of the chunk was ever given times: 0, or what was
    /// stored last.
    #[inline]
    pub fn times(self) -> Option<&'a [AtomicU64; 2]> {
        self.side_arrays().times(self.index)
    }

    /// Returns the two time words; allocates those of the chunk if there are none. Threads other
    /// than the cell's owner may call it, too.
    ///
    /// # Errors
    ///
    /// [`OutOfMemory`] if they cannot be allocated.
    pub fn times_or_new(self) -> Result<&'a [AtomicU64; 2], OutOfMemory> {
        self.side_arrays().times_or_new(self.index)
    }
}

fn pack(chunk: u32, issued: u32) -> u64 {
    u64::from(chunk) << 32 | u64::from(issued)
}

fn unpack(frontier: u64) -> (u32, u32) {
    ((frontier >> 32) as u32, frontier as u32)
}
