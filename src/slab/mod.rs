//! The slab: memory for entries, in cells that are named by handles of 26 bits.
//!
//! # Design
//!
//! An allocator's block per entry costs a call for each insert and each removal, 8 to 16 bytes of header,
//! an 8-byte pointer in the table and, with 4 KiB pages, a miss of the translation buffer per hit. A slab
//! has none of these: [`chunk`] holds the cells, two megabytes at a time on huge pages, and beside them what is
//! kept per handle (flags, hashes, costs other than 1, deadlines); [`magazine`] carries free handles between
//! threads, up to 256 at a time (Bonwick and Adams, "Magazines and Vmem", 2001).
//!
//! ```text
//! allocate   stripe's magazine → depot's filled magazines → fresh cells of the newest chunk → a new chunk
//! release    stripe's magazine → depot
//! bag        an empty magazine is filled with retired handles, waits for its grace period, and is
//!            a filled magazine as it is: no list is copied
//! ```
//!
//! The slab knows nothing of grace periods. A handle that was ever stored where readers look must not be
//! released before one has passed: a reader may still compare the key in its cell.
//!
//! # Protocol
//!
//! There are as many *stripes* as threads are expected to run at once, each with one magazine. A thread
//! acquires a stripe by CAS, takes or adds a handle, and releases it. One that finds its stripe
//! acquired (its holder may have lost its core) goes to the depot. No thread waits.
//!
//! # Orderings
//!
//! * Release of a stripe's release ↔ Acquire of the CAS: the magazine's number and its content.
//! * A released handle comes to its next owner through a stripe or a stack, each of which orders what its
//!   last owner did to the cell before what its next owner does.

pub mod chunk;
pub mod magazine;

use std::{collections::BTreeMap, fmt};

pub use self::{
    chunk::{Cell, Pages, advise},
    magazine::{Bags, Garbage, LABELS, Magazine, Retired},
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

/// The magazines and bags of all stripes together hold about one cell in so many of those expected, but for the least
/// number.
const MAGAZINE_PART: usize = 64;
/// A magazine has handles for cells of so many bytes at least: lists of fewer would take more memory than they save.
const MAGAZINE_BYTES: usize = 4096;
/// The least and the most handles of a magazine, and the most that the number of bytes asks for.
const MIN_MAGAZINE: usize = if IS_MODEL { 2 } else { 4 };
const MAX_MAGAZINE: usize = if IS_MODEL { 2 } else { 256 };
const MAX_BY_BYTES: usize = if IS_MODEL { 2 } else { 64 };

/// Memory for values of one type.
///
/// Dropping a slab frees its memory and drops no value: its owner knows which cells hold one.
pub struct Slab<T> {
    chunks: Chunks<T>,
    depot: Depot,
    stripes: Box<[CachePadded<Stripe>]>,
}

/// The name of a cell: [`HANDLE_BITS`] bits, and never 0 or 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Handle(u32);

/// A place for a magazine of free handles, and for a bag of retired ones.
struct Stripe {
    is_acquired: AtomicBool,
    /// The magazine's number, 0 if there is none. Of the thread that acquired the stripe.
    magazine: AtomicU32,
    /// The bag's number, 0 if there is none or a thread is at work with it.
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
    /// Adds a retired handle; as [`Slab::collect`].
    ///
    /// # Safety
    ///
    /// * As there; the slab is that of the bag.
    #[inline(always)] // every write comes here, and a sweep that seldom does would take it out of line
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
        // `recheck`. Relaxed on failure: nothing is read then.
        let order = ordering!(
            AcqRel,
            mutant("slab_relaxed_bag") => Acquire,
            mutant("eventcount_blind_bag") => Release
        );
        if self.place.compare_exchange(0, number, order, Relaxed).is_err()
            && let Some(bag) = self.depot.magazine(number)
        {
            // Another thread has put its own there.
            self.seal(bag);
        }
    }
}

impl Drop for OpenBag<'_> {
    fn drop(&mut self) {
        self.put_back();
    }
}

/// The right to use a stripe's magazine.
struct Acquired<'a>(&'a Stripe);

impl Handle {
    /// The bits of every handle.
    pub const MASK: u32 = (1 << HANDLE_BITS) - 1;

    /// Makes the handle that [`raw`](Self::raw) returned the bits of; others are masked away.
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
    /// Makes a slab for `expected` values, used by about `stripes` threads at once. It allocates no cells yet.
    pub fn new(expected: usize, stripes: usize) -> Self {
        let stripes = stripes.max(1).next_power_of_two();
        // Each stripe has a magazine of free handles, and its user a bag.
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
            // Values without a destructor are never dropped early, which is what parts are for.
            depot: Depot::new(capacity.clamp(least, MAX_MAGAZINE), std::mem::needs_drop::<T>()),
            stripes: (0..stripes).map(|_| CachePadded::new(stripe())).collect(),
        }
    }

    /// Returns the handle of a cell that holds nothing and that no other thread has.
    ///
    /// `stripe` spreads threads; any number will do. `None` if there is no memory for another cell, or if
    /// all handles are taken. Takes constant time, but for the allocation of a chunk.
    #[inline]
    pub fn allocate(&self, stripe: usize) -> Option<Handle> {
        if let Some(acquired) = self.acquire(stripe)
            && let Some(mut magazine) = acquired.take(&self.depot)
            && let Some(handle) = magazine.pop()
        {
            if let Some(next) = magazine.last() {
                // SAFETY: a handle in this thread's magazine came by an Acquire.
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
            // There may be memory for a cell if there is none for a magazine.
            return self.chunks.issue(1).map(|handles| Handle::new(handles.start));
        };
        let handle = magazine.pop();
        // Of the two magazines, the one that was there goes back to the depot.
        if let Some(acquired) = self.acquire(stripe) {
            let other = acquired.take(&self.depot);
            acquired.put(magazine);
            drop(other);
        }
        handle
    }

    /// Returns a magazine of cells whose memory was given back.
    fn take_cold(&self) -> Option<Magazine<'_>> {
        let magazine = self.depot.take_cold()?;
        magazine
            .iter()
            .for_each(|(handle, _)| self.chunks.take_again(self.chunks.chunk_of(handle)));
        Some(magazine)
    }

    /// Gives the memory of chunks without any value in them back to the system; returns how many chunks there were. The
    /// system gives it again when the cells are used again.
    ///
    /// A chunk counts as used while handles of it are with other threads, or wait in bags. Takes time in proportion to the
    /// number of free cells, and memory for a list of them; without that it does nothing. Threads that allocate during the
    /// call may find no free cell, and take fresh ones.
    pub fn trim(&self) -> usize {
        // Those of the stripes, too, but for stripes that other threads use now.
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
        // More cells of the newest chunk may be issued from now on, but not again those that are here.
        free.retain(|&chunk, &mut count| {
            // SAFETY: all handles of these cells are in the list, which is this thread's alone: free cells, which hold
            // no value.
            self.chunks.issued(chunk) == count && unsafe { self.chunks.give_back(chunk, count) }
        });
        // The same magazines get them again, those of chunks whose memory is gone apart from the others.
        handles.sort_by_key(|handle| free.contains_key(&self.chunks.chunk_of(*handle)));
        let cold =
            handles.partition_point(|handle| !free.contains_key(&self.chunks.chunk_of(*handle)));
        let mut magazines = magazines.into_iter();
        let (warm, cold) = handles.split_at(cold);
        for (handles, is_cold) in [(warm, false), (cold, true)] {
            for part in handles.chunks(self.depot.capacity()) {
                let Some(mut magazine) = magazines.next().or_else(|| self.depot.take_empty())
                else {
                    // Without memory for one more list these cells are not used again.
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
        // The lowest last, so that it is taken first.
        handles.rev().for_each(|raw| magazine.push(Handle::new(raw)));
        Some(magazine)
    }

    /// Gives a cell back. Where memory is so short that there is none for a list of handles, the cell is not used
    /// again.
    ///
    /// # Safety
    ///
    /// * This slab has issued the handle, and it is given back once: it is in no magazine.
    /// * The cell holds no value, and no thread looks at it any more.
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

    /// Adds a retired handle to the bag of the stripe. A bag that is full then, or whose values cost `seal_at`, goes
    /// to `sealed`, and the result is true.
    ///
    /// Where memory is so short that there is none for a bag, the cell is not used again, and its value is
    /// not dropped.
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

    /// Takes the bag of the stripe out, to add several handles. A thread that finds it taken fills another
    /// one, so that one that was stopped with it keeps a single bag. Full ones go to `sealed`.
    #[inline(always)] // as `OpenBag::collect`
    pub fn open_bag<'a>(&'a self, stripe: usize, sealed: &'a Bags) -> OpenBag<'a> {
        let place = &self.stripe(stripe).bag;
        let bag = self.take_bag(place);
        OpenBag { depot: &self.depot, place, bag, sealed, stripe, has_sealed: false }
    }

    #[inline]
    fn take_bag(&self, place: &AtomicU32) -> Option<Magazine<'_>> {
        // Acquire: pairs with the Release in `collect`, so that the bag's content is seen.
        self.depot.magazine(place.swap(0, Acquire))
    }

    /// Returns whether a bag has something in it, to the thread that is about to sleep; see [`eventcount`](crate::primitives::eventcount).
    /// Cells without a value count, too.
    pub fn recheck(&self) -> bool {
        self.stripes.iter().any(|stripe| {
            // Release: pairs with the Acquire of what puts a bag there later. Relaxed: where one is, there is
            // nothing to miss.
            stripe.bag.compare_exchange(0, 0, Release, Relaxed).is_err()
        })
    }

    /// Seals the bags that are not full, but for those that threads are at work with; returns how many.
    pub fn seal(&self, sealed: &Bags) -> usize {
        let bags = self.stripes.iter().enumerate();
        let bags = bags.filter_map(|(index, stripe)| Some((self.take_bag(&stripe.bag)?, index)));
        bags.map(|(bag, index)| sealed.put(bag, index)).count()
    }

    /// Returns what lies in bags that are not sealed, but for those that threads are at work with: cells without
    /// a value are counted, too.
    pub fn open_garbage(&self) -> Garbage {
        let mut sum = Garbage::default();
        for stripe in &self.stripes {
            let bag = self.depot.glance(stripe.bag.load(Relaxed)); // Relaxed: a figure.
            sum.cost = sum.cost.saturating_add(bag.cost);
            sum.count += bag.count;
        }
        sum
    }

    /// Returns the bag that [`Magazine::into_number`] made a number of.
    ///
    /// # Safety
    ///
    /// * The number came from there, of a magazine of this slab, and is turned back once.
    pub unsafe fn bag_of(&self, number: u32) -> Option<Magazine<'_>> {
        self.depot.magazine(number)
    }

    /// Takes the bags that were set aside. Each that is dropped releases its handles.
    ///
    /// # Safety
    ///
    /// * They are of this slab.
    /// * None is dropped before the cells of its handles hold no value and no thread looks at them.
    pub unsafe fn take_bags<'a>(
        &'a self,
        bags: &Bags,
    ) -> impl Iterator<Item = Magazine<'a>> + use<'a, T> {
        bags.take(&self.depot)
    }

    /// Moves a value into a cell, and returns that.
    ///
    /// # Safety
    ///
    /// * [`allocate`](Self::allocate) of this slab has returned the handle to this thread, and the cell holds
    ///   nothing.
    #[inline]
    pub unsafe fn write(&self, handle: Handle, value: T) -> Cell<'_, T> {
        // SAFETY: the handle was issued to this thread.
        let cell = unsafe { self.chunks.cell(handle) };
        // SAFETY: the cell is this thread's alone until it publishes the handle.
        unsafe { cell.address().write(value) };
        cell
    }

    /// Returns the value of a cell.
    ///
    /// # Safety
    ///
    /// * The cell holds a value, which the caller has seen published by an Acquire (or has written itself), and
    ///   which stays there as long as the reference lives.
    #[inline]
    pub unsafe fn get(&self, handle: Handle) -> &T {
        // SAFETY: the caller's promise: the handle came by an Acquire.
        let cell = unsafe { self.chunks.cell(handle) }.address();
        // SAFETY: the caller's promise: there is a value, and it stays.
        unsafe { &*cell }
    }

    /// Moves the value out of a cell, which holds nothing then.
    ///
    /// # Safety
    ///
    /// * As for [`get`](Self::get), and no other thread looks at the cell any more.
    #[inline]
    pub unsafe fn take(&self, handle: Handle) -> T {
        // SAFETY: the caller's promise: the handle came by an Acquire.
        let cell = unsafe { self.chunks.cell(handle) }.address();
        // SAFETY: the caller's promise: there is a value, and it is the caller's.
        unsafe { cell.read() }
    }

    /// Drops the value of a cell, which holds nothing then, whether or not the destructor panics.
    ///
    /// # Safety
    ///
    /// * As for [`take`](Self::take).
    #[inline]
    pub unsafe fn drop_value(&self, handle: Handle) {
        // SAFETY: the caller's promise: the handle came by an Acquire.
        let cell = unsafe { self.chunks.cell(handle) }.address();
        // SAFETY: the caller's promise: there is a value, and it is the caller's.
        unsafe { cell.drop_in_place() };
    }

    /// Returns the cell of a handle.
    ///
    /// # Safety
    ///
    /// * The handle came, directly or through others, by an Acquire from the thread that it was issued to.
    #[inline]
    pub unsafe fn cell(&self, handle: Handle) -> Cell<'_, T> {
        // SAFETY: the caller's promise.
        unsafe { self.chunks.cell(handle) }
    }

    /// The same, slower.
    ///
    /// # Panics
    ///
    /// Panics if there is no such cell.
    pub fn checked_cell(&self, handle: Handle) -> Cell<'_, T> {
        self.chunks.checked_cell(handle)
    }

    /// Returns the number of cells, those that were never issued included.
    pub fn cells(&self) -> usize {
        self.chunks.cells()
    }

    /// Returns the bytes of everything here.
    pub fn bytes(&self) -> usize {
        self.chunks.bytes() + self.depot.bytes() + size_of_val(&*self.stripes)
    }

    /// Returns a stripe: their number is a power of two.
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
        // Acquire: pairs with the Release where the stripe is released. Relaxed on failure: nothing is read then.
        let is_free = stripe.is_acquired.compare_exchange(false, true, Acquire, Relaxed).is_ok();
        // Not `then_some`: an `Acquired` that is made in vain would release the stripe.
        is_free.then(|| Acquired(stripe))
    }
}

impl Acquired<'_> {
    /// Takes the magazine out. Relaxed, here and below: it is this thread's until it releases the stripe.
    #[inline]
    fn take<'a>(&self, depot: &'a Depot) -> Option<Magazine<'a>> {
        let number = self.0.magazine.load(Relaxed);
        self.0.magazine.store(0, Relaxed);
        depot.magazine(number)
    }

    /// Puts a magazine where none is.
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

/// Fetches a line of memory ahead of its use; never faults.
#[inline]
pub fn prefetch<P>(address: *const P) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch is a hint and may name any address.
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
    fn handles_are_distinct_and_never_those_that_mean_a_state() {
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
    fn released_cells_are_used_again_and_nothing_is_allocated() {
        let slab = Slab::<u64>::new(1000, 1);
        let mut handles = fill(&slab, 1000);
        // Once, so that there is a magazine for each few cells.
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
    fn bag_of_retired_handles_is_a_magazine() {
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
        // The stripe's own come first.
        let again = fill(&slab, 512);
        assert_eq!(again.iter().filter(|handle| handles[..256].contains(handle)).count(), 256);
    }

    #[test]
    fn thread_that_was_stopped_with_a_bag_keeps_one() {
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
            // One chunk of four is in use; what is beside cells stays, and lists of free cells came.
            assert!(trimmed < new + full / 2, "{trimmed} of {full}");
        }
        // SAFETY: as above.
        unsafe { slab.release(*kept, 0) };
        assert!(slab.trim() >= 1);
        // Some of a chunk are used, and given back, while others were not touched.
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

    /// Returns how the system backs the memory at an address: the flags of its mapping, where it tells them.
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

    /// Of a huge page that is given back but for its last 4 KiB the system would make a whole one again in the background.
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
    fn charge_is_1_unless_another_was_set_and_no_user_inherits_it() {
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
        // SAFETY: allocated above; only its first byte is looked at, which is written here.
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

        // Stripes are shared, so that threads meet at them and in the depot.
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
                        // SAFETY: this thread's, and numbers need no drop.
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
