//! The slab: memory for entries, in cells that are identified by handles of 26 bits.
//!
//! # Design
//!
//! An allocator's block per entry costs a call for each insert and each removal, 8 to 16 bytes of
//! header, an 8-byte pointer in the table and, with 4 KiB pages, a TLB miss per hit. A slab has
//! none of these costs. [`chunk`] holds the cells, two megabytes at a time on huge pages, and the
//! side arrays (flags, hashes, costs other than 1, deadlines). [`magazine`] moves free handles
//! between threads, up to 256 at a time (Bonwick and Adams, "Magazines and Vmem", 2001).
//!
//! ```text
//! allocate   stripe's magazine → depot's filled magazines → fresh cells → cells of a new chunk
//! release    stripe's magazine → depot
//! bag        an empty magazine is filled with retired handles, waits for its grace period, and
//!            becomes a filled magazine: no list is copied
//! ```
//!
//! The slab does not track grace periods. A handle that was ever stored where readers find it must
//! not be released before a grace period has passed: a reader may still compare the key in its
//! cell.
//!
//! # Protocol
//!
//! There are as many *stripes* as threads are expected to run at once, each with one magazine. A
//! thread acquires a stripe by CAS, takes or adds a handle, and releases the stripe. If the stripe
//! is already acquired (its holder may be preempted), the thread uses the depot. No thread waits.
//!
//! # Orderings
//!
//! * Release of a stripe's release ↔ Acquire of the CAS: the magazine's number and its content.
//! * A released handle reaches its next owner through a stripe or a stack, each of which orders the
//!   accesses of the last owner to the cell before those of the next owner.

pub mod chunk;
pub mod magazine;
mod memory;
mod side_arrays;

use std::{collections::BTreeMap, fmt};

pub use self::{
    chunk::Cell,
    magazine::{Bags, Garbage, LABELS, Magazine, Retired},
    memory::{Pages, advise},
};
use self::{
    chunk::{Chunks, HANDLE_BITS},
    magazine::Depot,
};
use crate::{
    sync::{
        IS_MODEL,
        atomic::{AtomicBool, AtomicU32, Ordering::*},
    },
    util::CachePadded,
};

/// The magazines and bags of all stripes together hold about one in this many of the expected
/// cells, unless the minimum size of a magazine requires more: few cells are idle there.
const MAGAZINE_PART: usize = 64;
/// Bytes of the cells whose handles a magazine can hold, at least: the memory of shorter lists
/// would exceed what they save.
const MAGAZINE_BYTES: usize = 4096;
/// Minimum and maximum handles of a magazine, and the maximum that `MAGAZINE_BYTES` can require.
const MIN_MAGAZINE: usize = if IS_MODEL { 2 } else { 4 };
const MAX_MAGAZINE: usize = if IS_MODEL { 2 } else { 256 };
const MAX_BY_BYTES: usize = if IS_MODEL { 2 } else { 64 };

/// Memory for values of type `T`.
///
/// Dropping a slab frees its memory but drops no values: its owner knows which cells hold one.
pub struct Slab<T> {
    chunks: Chunks<T>,
    depot: Depot,
    stripes: Box<[CachePadded<Stripe>]>,
}

/// The identifier of a cell: [`HANDLE_BITS`] bits, never 0 or 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Handle(u32);

/// A magazine of free handles and a bag of retired ones, shared by some threads.
struct Stripe {
    is_acquired: AtomicBool,
    /// The magazine's number, 0 if there is none. Owned by the thread that acquired the stripe.
    magazine: AtomicU32,
    /// The bag's number, 0 if there is none or a thread has taken it out.
    bag: AtomicU32,
}

/// The bag of a stripe, taken out. Dropping it puts it back.
pub struct OpenBag<'a> {
    depot: &'a Depot,
    place: &'a AtomicU32,
    bag: Option<Magazine<'a>>,
    sealed: &'a Bags,
    stripe: usize,
    has_sealed: bool,
}

impl OpenBag<'_> {
    /// Adds a retired handle, as [`Slab::collect`] does.
    ///
    /// # Safety
    ///
    /// * As for [`Slab::collect`], with the slab of this bag.
    #[inline(always)] // called by every write; rare calls in a sweep would take it out of line
    pub unsafe fn collect(&mut self, retired: Retired, seal_at: u64) {
        if self.bag.is_none() {
            self.bag = self.depot.take_empty();
        }
        let Some(bag) = &mut self.bag else { return };
        bag.push_retired(retired);
        if bag.is_full() || bag.cost() >= seal_at {
            self.bag.take().into_iter().for_each(|bag| self.seal(bag));
        }
    }

    #[cold]
    fn seal(&mut self, bag: Magazine<'_>) {
        self.sealed.put(bag, self.stripe);
        self.has_sealed = true;
    }

    /// Puts the bag back; returns whether a bag was sealed since it was taken out.
    #[inline]
    pub fn close(mut self) -> bool {
        self.put_back();
        self.has_sealed
    }

    #[inline]
    fn put_back(&mut self) {
        let Some(bag) = self.bag.take().filter(|bag| !bag.is_empty()) else { return };
        let number = bag.into_number();
        // AcqRel: Release pairs with the Acquire in `take_bag`, Acquire with the Release in
        // `recheck`.
        // Relaxed on failure: nothing is read then.
        let order = ordering!(
            AcqRel,
            mutant("slab_relaxed_bag") => Acquire,
            mutant("eventcount_blind_bag") => Release
        );
        if self.place.compare_exchange(0, number, order, Relaxed).is_err()
            && let Some(bag) = self.depot.magazine(number)
        {
            // Another thread has put its own bag there.
            self.seal(bag);
        }
    }
}

impl Drop for OpenBag<'_> {
    fn drop(&mut self) {
        self.put_back();
    }
}

/// The right to use a stripe's magazine; releases the stripe on drop.
struct Acquired<'a>(&'a Stripe);

impl Handle {
    /// The bits of a handle.
    pub const MASK: u32 = (1 << HANDLE_BITS) - 1;

    /// Creates the handle with the bits that [`raw`](Self::raw) returned; other bits are ignored.
    #[inline]
    pub fn new(raw: u32) -> Self {
        Self(raw & Self::MASK)
    }

    /// Returns the handle's bits.
    #[inline]
    pub fn raw(self) -> u32 {
        self.0
    }
}

impl<T> Slab<T> {
    /// Creates a slab for `expected` values and about `stripes` concurrent threads. It allocates no
    /// cells yet.
    pub fn new(expected: usize, stripes: usize) -> Self {
        let stripes = stripes.max(1).next_power_of_two();
        // Each stripe has a magazine of free handles and a bag.
        let capacity = expected / (2 * MAGAZINE_PART * stripes);
        let least = MAGAZINE_BYTES / size_of::<T>().max(1);
        let least = least.clamp(MIN_MAGAZINE, MAX_BY_BYTES);
        let stripe = || Stripe {
            is_acquired: AtomicBool::new(false),
            magazine: AtomicU32::new(0),
            bag: AtomicU32::new(0),
        };
        Self {
            chunks: Chunks::new(expected),
            // Parts are needed to drop values early, which is never done to values without a
            // destructor.
            depot: Depot::new(capacity.clamp(least, MAX_MAGAZINE), std::mem::needs_drop::<T>()),
            stripes: (0..stripes).map(|_| CachePadded::new(stripe())).collect(),
        }
    }

    /// Allocates a cell; returns its handle, which no other thread has.
    ///
    /// `stripe` spreads threads; any number is valid. Returns `None` if there is no memory for
    /// another cell, or if all handles are in use. Takes constant time, except for the allocation
    /// of a chunk.
    #[inline]
    pub fn allocate(&self, stripe: usize) -> Option<Handle> {
        if let Some(acquired) = self.acquire(stripe)
            && let Some(mut magazine) = acquired.take(&self.depot)
            && let Some(handle) = magazine.pop()
        {
            if let Some(next) = magazine.last() {
                // SAFETY: a handle in this thread's magazine was received by an Acquire.
                unsafe { self.chunks.cell(next) }.prefetch();
            }
            acquired.put(magazine);
            return Some(handle);
        }
        self.allocate_from_depot(stripe)
    }

    #[cold]
    fn allocate_from_depot(&self, stripe: usize) -> Option<Handle> {
        let there = self.depot.take_filled().or_else(|| self.take_cold());
        let Some(mut magazine) = there.or_else(|| self.fresh()) else {
            // There may be memory for a cell even if there is none for a magazine.
            return self.chunks.issue(1).map(|handles| Handle::new(handles.start));
        };
        let handle = magazine.pop();
        // The stripe's previous magazine returns to the depot.
        if let Some(acquired) = self.acquire(stripe) {
            let other = acquired.take(&self.depot);
            acquired.put(magazine);
            drop(other);
        }
        handle
    }

    /// Returns a magazine of cells whose memory was returned to the system.
    fn take_cold(&self) -> Option<Magazine<'_>> {
        let magazine = self.depot.take_cold()?;
        magazine
            .iter()
            .for_each(|(handle, _)| self.chunks.take_again(self.chunks.chunk_of(handle)));
        Some(magazine)
    }

    /// Returns the memory of chunks that hold no values to the system; returns the number of these
    /// chunks. The system provides the memory again when the cells are reused.
    ///
    /// A chunk counts as used while other threads own handles of it, or bags contain them. Takes
    /// time in proportion to the number of free cells, and memory for a list of them; without that
    /// memory it does nothing. Threads that allocate during the call may find no free cell, and use
    /// fresh ones.
    pub fn trim(&self) -> usize {
        // Includes the magazines of stripes, except for stripes that other threads use now.
        for index in 0..self.stripes.len() {
            if let Some(acquired) = self.acquire(index) {
                drop(acquired.take(&self.depot));
            }
        }
        let magazines: Vec<Magazine<'_>> = self.depot.take_all_filled().collect();
        let count = magazines.iter().map(Magazine::len).sum();
        let (mut handles, mut free) = (Vec::new(), BTreeMap::<u32, usize>::new());
        if handles.try_reserve_exact(count).is_err() {
            return 0;
        }
        for (handle, _) in magazines.iter().flat_map(Magazine::iter) {
            handles.push(handle);
            *free.entry(self.chunks.chunk_of(handle)).or_default() += 1;
        }
        // More cells of the newest chunk may be issued from now on, but none of those in the list.
        free.retain(|&chunk, &mut count| {
            // SAFETY: all handles of these cells are in the list, which this thread owns: the cells
            // are free and hold no value.
            self.chunks.issued(chunk) == count && unsafe { self.chunks.give_back(chunk, count) }
        });
        // The handles return to the same magazines, with those of trimmed chunks in magazines of
        // their own.
        handles.sort_by_key(|handle| free.contains_key(&self.chunks.chunk_of(*handle)));
        let cold =
            handles.partition_point(|handle| !free.contains_key(&self.chunks.chunk_of(*handle)));
        let mut magazines = magazines.into_iter();
        let (warm, cold) = handles.split_at(cold);
        for (handles, is_cold) in [(warm, false), (cold, true)] {
            for part in handles.chunks(self.depot.capacity()) {
                let Some(mut magazine) = magazines.next().or_else(|| self.depot.take_empty())
                else {
                    // Without memory for another list these cells are not reused.
                    break;
                };
                while magazine.pop().is_some() {}
                part.iter().for_each(|&handle| magazine.push(handle));
                if is_cold {
                    self.depot.put_cold(magazine);
                }
            }
        }
        magazines.for_each(|mut magazine| while magazine.pop().is_some() {});
        free.len()
    }

    /// Returns a magazine of fresh cells.
    fn fresh(&self) -> Option<Magazine<'_>> {
        let mut magazine = self.depot.take_empty()?;
        let handles = self.chunks.issue(self.depot.capacity() as u32)?;
        // The lowest is added last, so that it is taken first.
        handles.rev().for_each(|raw| magazine.push(Handle::new(raw)));
        Some(magazine)
    }

    /// Frees a cell. If there is no memory for a list of handles, the cell is not reused.
    ///
    /// # Safety
    ///
    /// * This slab has issued the handle, and it is released once: it is in no magazine.
    /// * The cell holds no value, and no thread accesses it any more.
    pub unsafe fn release(&self, handle: Handle, stripe: usize) {
        if let Some(acquired) = self.acquire(stripe) {
            let there = acquired.take(&self.depot).filter(|magazine| !magazine.is_full());
            if let Some(mut magazine) = there.or_else(|| self.depot.take_empty()) {
                magazine.push(handle);
                acquired.put(magazine);
            }
            return;
        }
        let there = self.depot.take_filled().filter(|magazine| !magazine.is_full());
        if let Some(mut magazine) = there.or_else(|| self.depot.take_empty()) {
            magazine.push(handle);
        }
    }

    /// Returns a magazine without handles.
    pub fn bag(&self) -> Option<Magazine<'_>> {
        self.depot.take_empty()
    }

    /// Adds a retired handle to the bag of the stripe. If the bag is then full, or its values cost
    /// `seal_at`, it moves to `sealed`, and the result is `true`.
    ///
    /// If there is no memory for a bag, the cell is not reused, and its value is not dropped.
    ///
    /// # Safety
    ///
    /// * This slab has issued the handle, and it is retired once: it is in no magazine.
    /// * Its label says whether the cell holds a value.
    #[inline]
    pub unsafe fn collect(
        &self,
        retired: Retired,
        seal_at: u64,
        stripe: usize,
        sealed: &Bags,
    ) -> bool {
        let mut bag = self.open_bag(stripe, sealed);
        // SAFETY: the caller's promise.
        unsafe { bag.collect(retired, seal_at) };
        bag.close()
    }

    /// Takes the bag of the stripe out, to add several handles. A thread that finds it taken out
    /// fills another one, so a thread that is stopped holds a single bag. Full bags move to
    /// `sealed`.
    #[inline(always)] // as `OpenBag::collect`
    pub fn open_bag<'a>(&'a self, stripe: usize, sealed: &'a Bags) -> OpenBag<'a> {
        let place = &self.stripe(stripe).bag;
        let bag = self.take_bag(place);
        OpenBag { depot: &self.depot, place, bag, sealed, stripe, has_sealed: false }
    }

    #[inline]
    fn take_bag(&self, place: &AtomicU32) -> Option<Magazine<'_>> {
        // Acquire: pairs with the Release in `put_back`, so that the bag's content is seen.
        self.depot.magazine(place.swap(0, Acquire))
    }

    /// Returns whether a bag contains handles: the recheck of a thread that is about to sleep; see
    /// [`eventcount`](crate::primitives::eventcount). Cells without a value count, too.
    pub fn recheck(&self) -> bool {
        self.stripes.iter().any(|stripe| {
            // Release: pairs with the Acquire of the exchange that puts a bag there later.
            // Relaxed on failure: a bag was found, so no later one can be missed.
            stripe.bag.compare_exchange(0, 0, Release, Relaxed).is_err()
        })
    }

    /// Seals the bags that are not full, except for those that threads have taken out; returns how
    /// many.
    pub fn seal(&self, sealed: &Bags) -> usize {
        let bags = self.stripes.iter().enumerate();
        let bags = bags.filter_map(|(index, stripe)| Some((self.take_bag(&stripe.bag)?, index)));
        bags.map(|(bag, index)| sealed.put(bag, index)).count()
    }

    /// Returns the garbage in bags that are not sealed, except for those that threads have taken
    /// out. Cells without a value are counted, too.
    pub fn open_garbage(&self) -> Garbage {
        let mut sum = Garbage::default();
        for stripe in &self.stripes {
            let bag = self.depot.glance(stripe.bag.load(Relaxed)); // Relaxed: a statistic.
            sum.cost = sum.cost.saturating_add(bag.cost);
            sum.count += bag.count;
        }
        sum
    }

    /// Returns how many handles a bag holds.
    #[inline]
    pub fn bag_capacity(&self) -> usize {
        self.depot.capacity()
    }

    /// Returns the bag with a number that [`Magazine::into_number`] returned.
    ///
    /// # Safety
    ///
    /// * The number was returned for a magazine of this slab, and is used once.
    pub unsafe fn bag_of(&self, number: u32) -> Option<Magazine<'_>> {
        self.depot.magazine(number)
    }

    /// Takes the sealed bags. Dropping one releases its handles.
    ///
    /// # Safety
    ///
    /// * They are of this slab.
    /// * A bag is dropped only when the cells of its handles hold no value and no thread accesses
    ///   them.
    pub unsafe fn take_bags<'a>(
        &'a self,
        bags: &Bags,
    ) -> impl Iterator<Item = Magazine<'a>> + use<'a, T> {
        bags.take(&self.depot)
    }

    /// Moves a value into a cell, and returns the cell.
    ///
    /// # Safety
    ///
    /// * [`allocate`](Self::allocate) of this slab has returned the handle to this thread, and the
    ///   cell holds no value.
    #[inline]
    pub unsafe fn write(&self, handle: Handle, value: T) -> Cell<'_, T> {
        // SAFETY: the handle was issued to this thread.
        let cell = unsafe { self.chunks.cell(handle) };
        // SAFETY: this thread owns the cell until it publishes the handle.
        unsafe { cell.address().write(value) };
        cell
    }

    /// Returns a reference to the value of a cell.
    ///
    /// # Safety
    ///
    /// * The cell holds a value, which the caller has seen published by an Acquire (or has written
    ///   itself), and which stays there for as long as the reference lives.
    #[inline]
    pub unsafe fn get(&self, handle: Handle) -> &T {
        // SAFETY: the caller's promise: the handle was received by an Acquire.
        let cell = unsafe { self.chunks.cell(handle) }.address();
        // SAFETY: the caller's promise: there is a value, and it stays.
        unsafe { &*cell }
    }

    /// Moves the value out of a cell, which is then empty.
    ///
    /// # Safety
    ///
    /// * As for [`get`](Self::get), and no other thread accesses the cell any more.
    #[inline]
    pub unsafe fn take(&self, handle: Handle) -> T {
        // SAFETY: the caller's promise: the handle was received by an Acquire.
        let cell = unsafe { self.chunks.cell(handle) }.address();
        // SAFETY: the caller's promise: there is a value, and the caller owns it.
        unsafe { cell.read() }
    }

    /// Drops the value of a cell, which is then empty, even if the destructor panics.
    ///
    /// # Safety
    ///
    /// * As for [`take`](Self::take).
    #[inline]
    pub unsafe fn drop_value(&self, handle: Handle) {
        // SAFETY: the caller's promise: the handle was received by an Acquire.
        let cell = unsafe { self.chunks.cell(handle) }.address();
        // SAFETY: the caller's promise: there is a value, and the caller owns it.
        unsafe { cell.drop_in_place() };
    }

    /// Returns the cell of a handle.
    ///
    /// # Safety
    ///
    /// * The handle was received, directly or through other threads, by an Acquire from the thread
    ///   that it was issued to.
    #[inline]
    pub unsafe fn cell(&self, handle: Handle) -> Cell<'_, T> {
        // SAFETY: the caller's promise.
        unsafe { self.chunks.cell(handle) }
    }

    /// Returns the cell of a handle, after a check that it exists.
    ///
    /// # Panics
    ///
    /// Panics if there is no such cell.
    pub fn checked_cell(&self, handle: Handle) -> Cell<'_, T> {
        self.chunks.checked_cell(handle)
    }

    /// Returns the number of cells, including those that were never issued.
    pub fn cells(&self) -> usize {
        self.chunks.cells()
    }

    /// Returns the bytes of all chunks, magazines and stripes.
    pub fn bytes(&self) -> usize {
        self.chunks.bytes() + self.depot.bytes() + size_of_val(&*self.stripes)
    }

    /// Returns the stripe with a number, modulo that of the stripes, which is a power of two.
    #[inline]
    fn stripe(&self, stripe: usize) -> &Stripe {
        &self.stripes[stripe & (self.stripes.len() - 1)]
    }

    #[inline]
    fn acquire(&self, stripe: usize) -> Option<Acquired<'_>> {
        let stripe = self.stripe(stripe);
        if mutant!("slab_stripe_by_load") {
            return Some(Acquired(stripe));
        }
        // Acquire: pairs with the Release where the stripe is released. Relaxed on failure: nothing
        // is read then.
        let is_free = stripe.is_acquired.compare_exchange(false, true, Acquire, Relaxed).is_ok();
        // Not `then_some`: it would create an `Acquired` in either case, and dropping that releases
        // the stripe.
        is_free.then(|| Acquired(stripe))
    }
}

impl Acquired<'_> {
    /// Takes the magazine out.
    ///
    /// Relaxed, here and below: this thread owns it until it releases the stripe.
    #[inline]
    fn take<'a>(&self, depot: &'a Depot) -> Option<Magazine<'a>> {
        let number = self.0.magazine.load(Relaxed);
        self.0.magazine.store(0, Relaxed);
        depot.magazine(number)
    }

    /// Stores a magazine in the stripe, which has none.
    #[inline]
    fn put(&self, magazine: Magazine<'_>) {
        self.0.magazine.store(magazine.into_number(), Relaxed);
    }
}

impl Drop for Acquired<'_> {
    #[inline]
    fn drop(&mut self) {
        // Release: pairs with the Acquire in `acquire`.
        let release = ordering!(Release, mutant("slab_relaxed_stripe") => Relaxed);
        self.0.is_acquired.store(false, release);
    }
}

/// Prefetches a cache line; never faults.
#[inline]
pub fn prefetch<P>(address: *const P) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch is a hint and may use any address.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T0>(address.cast());
    }
    #[cfg(target_arch = "aarch64")]
    // SAFETY: as above.
    unsafe {
        std::arch::asm!(
            "prfm pldl1keep, [{address}]",
            address = in(reg) address,
            options(nostack, preserves_flags, readonly),
        );
    }
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    let _ = address;
}

impl<T> fmt::Debug for Slab<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Slab").field("cells", &self.cells()).finish_non_exhaustive()
    }
}

#[cfg(all(test, not(any(cortado_loom, cortado_shuttle))))]
mod tests {
    use std::{collections::HashSet, sync::atomic::AtomicUsize};

    use super::{chunk::HANDLE_BITS, *};
    use crate::sync::thread;

    fn fill<T>(slab: &Slab<T>, count: usize) -> Vec<Handle> {
        (0..count).map(|_| slab.allocate(0).expect("memory")).collect()
    }

    fn release<T>(slab: &Slab<T>, handle: Handle) {
        // SAFETY: allocated by the test, and nothing was written there.
        unsafe { slab.release(handle, 0) };
    }

    #[test]
    fn handles_are_distinct_and_never_0_or_1() {
        let slab = Slab::<u64>::new(1000, 1);
        let handles = fill(&slab, 5000);
        assert!(handles.iter().all(|handle| (2..1 << HANDLE_BITS).contains(&handle.raw())));
        assert_eq!(handles.iter().collect::<HashSet<_>>().len(), 5000);
    }

    #[test]
    fn cells_keep_their_values_while_chunks_are_added() {
        let slab = Slab::<(u64, [u8; 90])>::new(10, 1);
        let handles = fill(&slab, 100_000);
        for (handle, n) in handles.iter().zip(0..) {
            // SAFETY: allocated by this thread above.
            unsafe { slab.write(*handle, (n, [n as u8; 90])) };
        }
        for (handle, n) in handles.iter().zip(0..) {
            // SAFETY: written above.
            let value = unsafe { slab.get(*handle) };
            assert_eq!(*value, (n, [n as u8; 90]));
        }
    }

    #[test]
    fn released_cells_are_reused_without_allocation() {
        let slab = Slab::<u64>::new(1000, 1);
        let mut handles = fill(&slab, 1000);
        // Released once, so that enough magazines exist.
        handles.iter().for_each(|&handle| release(&slab, handle));
        let (cells, bytes) = (slab.cells(), slab.bytes());
        for _ in 0..10 {
            handles = fill(&slab, 1000);
            assert_eq!(handles.iter().collect::<HashSet<_>>().len(), 1000);
            handles.iter().for_each(|&handle| release(&slab, handle));
        }
        assert_eq!((slab.cells(), slab.bytes()), (cells, bytes));
    }

    #[test]
    fn bag_of_retired_handles_becomes_a_magazine() {
        let slab = Slab::<u64>::new(100_000, 1);
        let handles = fill(&slab, 1000);
        let sealed = Bags::new(1);
        for (&handle, n) in handles[..256].iter().zip(1..) {
            let retired = Retired::empty(handle);
            // SAFETY: allocated above, and retired once.
            assert_eq!(unsafe { slab.collect(retired, u64::MAX, 0, &sealed) }, n == 256);
        }
        assert_eq!(slab.seal(&sealed), 0);
        // SAFETY: nothing was written there, and no other thread is here.
        let bags: Vec<_> = unsafe { slab.take_bags(&sealed) }.collect();
        assert_eq!(bags.iter().map(Magazine::len).collect::<Vec<_>>(), [256]);
        drop(bags);
        // The handles in the stripe's own magazine are returned first.
        let again = fill(&slab, 512);
        assert_eq!(again.iter().filter(|handle| handles[..256].contains(handle)).count(), 256);
    }

    #[test]
    fn stopped_thread_holds_a_single_bag() {
        let slab = Slab::<u64>::new(100_000, 1);
        let handles = fill(&slab, 1000);
        let sealed = Bags::new(1);
        // SAFETY: allocated above, and retired once.
        unsafe { slab.collect(Retired::empty(handles[0]), u64::MAX, 0, &sealed) };
        let held = slab.take_bag(&slab.stripes[0].bag).expect("it is there");
        for &handle in &handles[1..] {
            // SAFETY: as above.
            unsafe { slab.collect(Retired::empty(handle), u64::MAX, 0, &sealed) };
        }
        // SAFETY: nothing was written there, and no other thread is here.
        let bags: Vec<_> = unsafe { slab.take_bags(&sealed) }.collect();
        assert_eq!(bags.iter().map(Magazine::len).collect::<Vec<_>>(), [256; 3]);
        drop((bags, held));
    }

    #[test]
    fn small_slab_is_small_and_a_large_one_wastes_little() {
        let slab = Slab::<[u64; 2]>::new(10, 4);
        assert!(slab.bytes() < 1000, "{}", slab.bytes());
        fill(&slab, 10);
        assert!(slab.bytes() < 4000, "{}", slab.bytes());
        let slab = Slab::<[u64; 2]>::new(1_000_000, 4);
        fill(&slab, 1_000_000);
        assert!(slab.bytes() < 22 * 1_000_000, "{}", slab.bytes());
    }

    #[test]
    fn trim_gives_back_the_memory_of_chunks_without_values_and_the_cells_are_used_again() {
        const CELLS: usize = 100_000;
        let slab = Slab::<[u64; 8]>::new(CELLS, 2);
        let new = slab.bytes();
        let handles = fill(&slab, CELLS);
        for &handle in &handles {
            // SAFETY: allocated above.
            unsafe { slab.write(handle, [u64::from(handle.raw()); 8]) };
        }
        let full = slab.bytes();
        assert_eq!((slab.trim(), slab.bytes()), (0, full));
        let (kept, freed) = handles.split_first().unwrap();
        for &handle in freed {
            // SAFETY: allocated above, and released once; the value has no destructor.
            unsafe { slab.release(handle, 0) };
        }
        let cells = slab.cells();
        assert!(slab.trim() >= 1);
        // SAFETY: written above.
        assert_eq!(unsafe { slab.get(*kept) }, &[u64::from(kept.raw()); 8]);
        let trimmed = slab.bytes();
        if cfg!(target_os = "linux") {
            // One of four chunks is in use; side arrays stay, and lists of free cells were added.
            assert!(trimmed < new + full / 2, "{trimmed} of {full}");
        }
        // SAFETY: as above.
        unsafe { slab.release(*kept, 0) };
        assert!(slab.trim() >= 1);
        // Some cells of a chunk are used and released, while others are not touched.
        for handle in fill(&slab, CELLS / 2) {
            // SAFETY: allocated above.
            unsafe { slab.write(handle, [2; 8]) };
            // SAFETY: the value has no destructor.
            unsafe { slab.release(handle, 0) };
        }
        assert!(slab.bytes() > trimmed);
        assert!(slab.trim() >= 3 && slab.bytes() <= trimmed, "{} of {trimmed}", slab.bytes());
        let again = fill(&slab, CELLS);
        assert_eq!(slab.cells(), cells, "no cell is lost");
        assert!(slab.bytes() >= full);
        for &handle in &again {
            // SAFETY: allocated above.
            unsafe { slab.write(handle, [1; 8]) };
        }
        let mut raw: Vec<u32> = again.iter().map(|handle| handle.raw()).collect();
        raw.sort_unstable();
        raw.dedup();
        assert_eq!(raw.len(), CELLS, "no cell has two users");
    }

    /// Returns how the system backs the memory at an address: the flags of its mapping, if it
    /// reports them.
    #[cfg(target_os = "linux")]
    fn mapping_flags<T>(address: *const T) -> Option<Vec<String>> {
        let mappings = std::fs::read_to_string("/proc/self/smaps").ok()?;
        let mut is_here = false;
        mappings.lines().find_map(|line| {
            let range = line.split_once(' ').and_then(|(range, _)| range.split_once('-'));
            if let Some((start, end)) = range
                && let Ok(start) = usize::from_str_radix(start, 16)
                && let Ok(end) = usize::from_str_radix(end, 16)
            {
                is_here = (start..end).contains(&address.addr());
            }
            let flags = line.strip_prefix("VmFlags: ").filter(|_| is_here)?;
            Some(flags.split_whitespace().map(str::to_owned).collect())
        })
    }

    /// If all but the last 4 KiB of a huge page is returned, the system makes a huge page of it
    /// again in the background, unless it is advised otherwise.
    #[cfg(target_os = "linux")]
    #[test]
    fn memory_given_back_is_not_taken_again_for_a_huge_page() {
        const CELLS: usize = 100_000;
        let slab = Slab::<[u64; 8]>::new(CELLS, 1);
        let handles = fill(&slab, CELLS);
        // SAFETY: allocated above.
        let address = unsafe { slab.cell(handles[0]) }.address();
        let has = |flag: &str| {
            mapping_flags(address).is_some_and(|flags| flags.iter().any(|there| there == flag))
        };
        if !has("hg") {
            println!("skipped: this system has no huge pages, or does not tell");
            return;
        }
        for handle in handles {
            // SAFETY: allocated above, and released once; no value was written.
            unsafe { slab.release(handle, 0) };
        }
        assert!(slab.trim() >= 1 && has("nh"), "{:?}", mapping_flags(address));
        fill(&slab, CELLS);
        assert!(has("hg"), "{:?}", mapping_flags(address));
    }

    #[test]
    fn trim_takes_no_cell_from_those_who_use_it() {
        const THREADS: u64 = 4;
        const TURNS: u64 = 3_000;

        let slab = Slab::<u64>::new(2_000, 2);
        thread::scope(|scope| {
            for id in 0..THREADS {
                let slab = &slab;
                scope.spawn(move || {
                    for turn in 0..TURNS {
                        let mine = fill(slab, 100);
                        for (&handle, value) in mine.iter().zip(turn..) {
                            // SAFETY: allocated by this thread.
                            unsafe { slab.write(handle, value << 8 | id) };
                        }
                        if turn % 16 == id {
                            slab.trim();
                        }
                        for (&handle, value) in mine.iter().zip(turn..) {
                            // SAFETY: written above.
                            assert_eq!(unsafe { *slab.get(handle) }, value << 8 | id);
                            // SAFETY: allocated by this thread, and released once.
                            unsafe { slab.release(handle, id as usize) };
                        }
                    }
                });
            }
        });
    }

    #[test]
    fn charge_is_1_unless_set_and_is_not_inherited() {
        let slab = Slab::<u64>::new(100, 1);
        let handles = fill(&slab, 100);
        let bytes = slab.bytes();
        assert!(handles.iter().all(|&handle| slab.checked_cell(handle).set_charge(1).is_ok()));
        assert_eq!(slab.bytes(), bytes);
        for (&handle, cost) in handles.iter().zip([0, 1, 2, 3, u64::MAX].into_iter().cycle()) {
            slab.checked_cell(handle).set_charge(cost).unwrap();
            assert_eq!(slab.checked_cell(handle).charge(), cost);
        }
        assert!(slab.bytes() > bytes);
        for &handle in &handles {
            slab.checked_cell(handle).set_charge(1).unwrap();
            assert_eq!(slab.checked_cell(handle).charge(), 1);
        }
    }

    #[test]
    fn times_are_none_until_a_cell_of_the_chunk_needs_some() {
        let slab = Slab::<u64>::new(100, 1);
        let handles = fill(&slab, 2);
        assert!(slab.checked_cell(handles[0]).times().is_none());
        let [deadline, idle] = slab.checked_cell(handles[1]).times_or_new().unwrap();
        deadline.store(7, Relaxed);
        idle.store(8, Relaxed);
        let zero = slab.checked_cell(handles[0]).times().unwrap();
        assert_eq!((zero[0].load(Relaxed), zero[1].load(Relaxed)), (0, 0));
        assert_eq!(slab.checked_cell(handles[1]).times().unwrap()[0].load(Relaxed), 7);
    }

    #[test]
    fn flags_are_those_of_the_handle() {
        let slab = Slab::<u64>::new(1000, 1);
        let handles = fill(&slab, 1000);
        handles
            .iter()
            .zip(0..)
            .for_each(|(&h, n): (_, usize)| slab.checked_cell(h).flags().store(n as u8, Relaxed));
        for (&handle, n) in handles.iter().zip(0..) {
            let n: usize = n;
            assert_eq!(slab.checked_cell(handle).flags().load(Relaxed), n as u8);
        }
    }

    #[test]
    #[should_panic(expected = "a handle of this slab")]
    fn foreign_handle_has_no_cell() {
        let _ = Slab::<u64>::new(10, 1).checked_cell(Handle::new(1 << 20));
    }

    #[test]
    fn values_may_have_no_size_or_any_alignment_or_be_huge() {
        #[repr(align(4096))]
        struct Aligned(u8);

        let slab = Slab::<()>::new(100, 1);
        assert_eq!(fill(&slab, 1000).into_iter().collect::<HashSet<_>>().len(), 1000);

        let slab = Slab::<Aligned>::new(100, 1);
        for (handle, n) in fill(&slab, 1000).into_iter().zip(0u8..=255) {
            // SAFETY: allocated above.
            unsafe { slab.write(handle, Aligned(n)) };
            // SAFETY: written above.
            let value = unsafe { slab.get(handle) };
            assert_eq!((value.0, std::ptr::from_ref(value).addr() % 4096), (n, 0));
        }

        let slab = Slab::<[u8; 5 << 20]>::new(1, 1);
        let handles = fill(&slab, 3);
        assert!(slab.cells() < 10);
        // SAFETY: allocated above; only its first byte is read, which is written here.
        let first = unsafe { slab.cell(handles[2]) }.address().cast::<u8>();
        // SAFETY: as above.
        unsafe { first.write(9) };
        // SAFETY: as above.
        assert_eq!(unsafe { first.read() }, 9);
    }

    #[test]
    fn cell_that_cannot_be_allocated_is_none() {
        let slab = Slab::<[u8; 1 << 50]>::new(10, 1);
        assert_eq!(slab.allocate(0), None);
        assert_eq!((slab.allocate(0), slab.cells()), (None, 0));
    }

    #[test]
    fn values_are_the_owners_to_drop() {
        struct Counted<'a>(&'a AtomicUsize);
        impl Drop for Counted<'_> {
            fn drop(&mut self) {
                self.0.fetch_add(1, Relaxed);
            }
        }
        let dropped = AtomicUsize::new(0);
        let slab = Slab::new(10, 1);
        let handles = fill(&slab, 3);
        for &handle in &handles {
            // SAFETY: allocated above.
            unsafe { slab.write(handle, Counted(&dropped)) };
        }
        // SAFETY: written above, and no other thread is here.
        let taken = unsafe { slab.take(handles[0]) };
        assert_eq!(dropped.load(Relaxed), 0);
        drop(taken);
        // SAFETY: as above.
        unsafe { slab.drop_value(handles[1]) };
        drop(slab);
        assert_eq!(dropped.load(Relaxed), 2);
    }

    #[test]
    fn every_cell_is_one_threads_while_many_allocate_and_release() {
        const THREADS: usize = 16;
        const TURNS: usize = 20_000;

        // Threads share stripes, so that they also contend for the depot.
        let slab = &Slab::<AtomicUsize>::new(1000, 3);
        thread::scope(|scope| {
            for id in 1..=THREADS {
                scope.spawn(move || {
                    let mut mine = Vec::new();
                    let mut random = id as u64;
                    for _ in 0..TURNS {
                        random = random.wrapping_mul(6364136223846793005).wrapping_add(1);
                        if random >> 62 < 2 || mine.is_empty() {
                            let handle = slab.allocate(id).expect("memory");
                            // SAFETY: allocated by this thread.
                            unsafe { slab.write(handle, AtomicUsize::new(id)) };
                            mine.push(handle);
                            continue;
                        }
                        let handle = mine.swap_remove(random as usize % mine.len());
                        // SAFETY: written by this thread.
                        let owner = unsafe { slab.get(handle) }.swap(0, Relaxed);
                        assert_eq!(owner, id);
                        // SAFETY: this thread owns it, and numbers need no drop.
                        unsafe { slab.release(handle, id) };
                    }
                    for handle in mine {
                        // SAFETY: as above.
                        assert_eq!(unsafe { slab.get(handle) }.load(Relaxed), id);
                    }
                });
            }
        });
        assert!(slab.cells() < THREADS * TURNS);
    }
}
