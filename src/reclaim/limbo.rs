//! Limbo: unlinked values on their way to be freed.
//!
//! # Protocol
//!
//! To retire a value, a thread adds it to the *open* batch of its [`desk`](super::desk), which is its
//! alone meanwhile. A batch that is full, or whose desk gives it up, is *sealed*: pushed on one list.
//! A sweep takes the whole sealed list, begins a grace period, a single one for all of it, and queues it in a
//! [line](super::line), of which there are a few. There it frees what is ripe. At every moment a batch belongs to
//! exactly one of: a desk, a thread, the list, a line. No thread waits for another.
//!
//! So a writer that retires a value asks nothing of the collector, and one heavy barrier serves all
//! batches that a sweep finds sealed. Where no guard is in the way the period is over at once, and the
//! same sweep frees them.
//!
//! A value leaves the figures before it is dropped or told of. So whoever frees a batch is counted as well, from before
//! its first value leaves them until its last is gone: where nothing is in the figures and nobody is counted, limbo is
//! *at rest*, and all that was freed has been dropped.
//!
//! Values are dropped by whoever sweeps, which is never a reader. The batch, which holds nothing but
//! their memory then, goes to the *stock*, a second list: a desk takes it from there and makes new
//! values in it. (A full cache frees an entry for every one that it makes, often on another thread,
//! which is what general allocators are slowest at.) Dropping the limbo drops all.

use std::{
    any::Any,
    cell::Cell,
    mem::MaybeUninit,
    panic::{AssertUnwindSafe, catch_unwind},
    ptr,
};

use crossbeam_utils::CachePadded;

use super::{
    Domain, Grace, Guard,
    block::{Stored, drop_in_block, take_from_block},
    desk::{Desk, Tools},
    last_look,
    line::Lines,
    own,
    pile::{Chain, Pile, Sheet},
};
use crate::{
    sync::{
        atomic::{AtomicPtr, AtomicU64, AtomicUsize, Ordering},
        thread_local,
    },
    util::drop_panic,
};

/// Holds retired values until no guard can see them, and meters them.
pub struct Limbo<T: Stored> {
    /// Whose guards may see the values.
    domain: Domain,
    stripes: Box<[CachePadded<Stripe<T>>]>,
    /// Sealed batches.
    sealed: CachePadded<Pile<Batch<T>>>,
    lines: Lines<Box<Sheet<Batch<T>>>>,
    /// Batches whose values are being dropped.
    freeing: AtomicUsize,
    batch_size: usize,
    /// Batches of memory.
    stock: CachePadded<Pile<Batch<T>>>,
    /// How many they are, or a few more.
    stocked: AtomicUsize,
    /// How many they may be.
    most_stocked: usize,
}

/// A value that was taken out of its structure and that only its holder may retire.
///
/// Readers that were pinned before may still look at it.
#[must_use = "a value that is not retired is leaked"]
#[derive(Debug)]
pub struct Unlinked<T> {
    value: ptr::NonNull<T>,
    label: u8,
}

/// What is called with each value that has a label, in place of its destructor, when it is freed.
pub type Farewell<'a, T> = &'a dyn Fn(T, u8);

// SAFETY: an `Unlinked` is the right to drop a `T` and its tail later, perhaps elsewhere, and meanwhile
// to look at them beside others: a box that is shared for reading.
unsafe impl<T: Stored<Tail: Send + Sync> + Send + Sync> Send for Unlinked<T> {}

impl<T> Unlinked<T> {
    /// Takes a value over.
    ///
    /// # Safety
    ///
    /// * `value` comes from [`Owned::into_raw`](super::block::Owned::into_raw), or is a box without a tail,
    ///   which is the same.
    /// * Nobody who pins from now on can reach it, and nobody else makes an `Unlinked` of it.
    pub unsafe fn new(value: ptr::NonNull<T>) -> Self {
        Self { value, label: 0 }
    }

    /// Gives the value a label for its farewell: any number but 0, which is none.
    pub fn labelled(self, label: u8) -> Self {
        Self { label, ..self }
    }

    /// Returns the value.
    pub fn get(&self) -> &T {
        // SAFETY: the value is not freed before it is retired, which consumes `self`.
        unsafe { self.value.as_ref() }
    }
}

/// What a retirement led to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retired {
    /// The value waits in an open batch.
    Open,
    /// A batch was sealed: a sweep has work.
    Sealed,
}

/// What a sweep found.
#[derive(Debug, Default)]
pub struct Swept {
    /// Values dropped.
    pub freed: usize,
    /// Batches that this sweep has left in the line, those of others included that it found there.
    pub waiting: usize,
    /// What the first panicking destructor panicked with.
    pub panic: Option<Box<dyn Any + Send>>,
}

impl Swept {
    /// Keeps the first of all panics.
    fn note(&mut self, panic: Box<dyn Any + Send>) {
        match self.panic {
            None => self.panic = Some(panic),
            Some(_) => drop_panic(panic),
        }
    }
}

pub(super) struct Stripe<T> {
    /// The tools of the desk while nobody sits there.
    pub(super) tools: AtomicPtr<Tools<T>>,
    /// The cost of sealed batches that are not freed.
    cost: AtomicU64,
    /// The same for the number of values.
    count: AtomicU64,
}

/// Values that wait together, or the memory of values.
pub(super) struct Batch<T> {
    items: Vec<Item<T>>,
    /// Whether a value among them has a tail.
    has_tails: bool,
    cost: u64,
    stripe: usize,
}

/// A value in a batch, or the memory of one.
struct Item<T> {
    /// From `Owned::into_raw`.
    value: ptr::NonNull<T>,
    cost: u64,
    label: u8,
}

/// Sealed batches that a sweep has taken, and that [`Limbo::sweep_sealed`] has to get.
#[must_use = "batches that are not swept are leaked"]
pub struct Sealed<T>(Chain<Batch<T>>);

impl<T> Sealed<T> {
    /// Returns whether there is no batch.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

// SAFETY: the raw pointers of a limbo own their values; a sweep may drop a `T` on any thread
// (`Send`), while readers on other threads look at it (`Sync`).
unsafe impl<T: Stored<Tail: Send + Sync> + Send + Sync> Send for Limbo<T> {}
// SAFETY: as above; all shared state is atomic.
unsafe impl<T: Stored<Tail: Send + Sync> + Send + Sync> Sync for Limbo<T> {}

impl<T: Stored> Limbo<T> {
    /// Makes a limbo of `stripes` stripes whose batches seal at `batch_size` values, and which keeps
    /// the memory of up to `stock` values; every guard may see them.
    pub fn new(stripes: usize, batch_size: usize, stock: usize) -> Self {
        Self::within(Domain::ANY, stripes, batch_size, stock)
    }

    /// The same for values that only guards of a domain may see.
    pub fn within(domain: Domain, stripes: usize, batch_size: usize, stock: usize) -> Self {
        let stripe = || {
            CachePadded::new(Stripe {
                tools: AtomicPtr::new(ptr::null_mut()),
                cost: AtomicU64::new(0),
                count: AtomicU64::new(0),
            })
        };
        Self {
            domain,
            stripes: (0..stripes.max(1)).map(|_| stripe()).collect(),
            sealed: CachePadded::default(),
            lines: Lines::new(stripes),
            batch_size: batch_size.max(1),
            stock: CachePadded::default(),
            freeing: AtomicUsize::new(0),
            stocked: AtomicUsize::new(0),
            most_stocked: stock.div_ceil(batch_size.max(1)),
        }
    }

    /// Sits down at a desk, to make values or to retire them.
    ///
    /// `stripe` spreads threads; any number will do.
    pub fn desk(&self, stripe: usize) -> Desk<'_, T> {
        Desk::new(self, stripe % self.stripes.len())
    }

    /// Retires a value of a given cost at the desk of a stripe.
    pub fn retire(&self, guard: &Guard, value: Unlinked<T>, cost: u64, stripe: usize) -> Retired {
        self.desk(stripe).retire(guard, value, cost, u64::MAX)
    }

    /// Seals every open batch that has something in it; returns how many.
    pub fn seal_open(&self) -> usize {
        self.open_desks().map(|mut desk| usize::from(desk.seal())).sum()
    }

    /// Frees what no guard can see any more, until `most` values are freed, and begins to wait for
    /// the rest.
    ///
    /// Runs destructors of values: call it unpinned. A panic of one is caught, the others run,
    /// and the first is handed back.
    pub fn sweep(&self, most: usize) -> Swept {
        self.sweep_with(most, None)
    }

    /// The same, with a farewell to the values that have a label.
    pub fn sweep_with(&self, most: usize, farewell: Option<Farewell<'_, T>>) -> Swept {
        let sealed = self.take_sealed();
        let grace = (!sealed.is_empty()).then(|| Grace::begin(self.domain));
        self.sweep_sealed(sealed, grace, most, farewell)
    }

    /// Takes every sealed batch, for a grace period that begins after this.
    pub fn take_sealed(&self) -> Sealed<T> {
        Sealed(self.sealed.take())
    }

    /// Sweeps, with batches that were taken before and the grace period that began for them after
    /// that; without a period there must be none.
    pub fn sweep_sealed(
        &self,
        sealed: Sealed<T>,
        grace: Option<Grace>,
        most: usize,
        farewell: Option<Farewell<'_, T>>,
    ) -> Swept {
        debug_assert!(grace.is_some() || sealed.is_empty(), "batches without a grace period");
        let is_empty = sealed.is_empty();
        // All values were unlinked before their batches were pushed, which the taker has seen: a period that
        // began after that covers them.
        let batches = sealed.0.inspect(|_batch| {
            #[cfg(any(cortado_loom, cortado_shuttle))]
            for item in &_batch.items {
                super::note_sealed(item.value.as_ptr() as usize);
            }
        });
        let grace = grace.filter(|_| !is_empty);
        let mut swept = Swept::default();
        let progress = self.lines.sweep(
            batches,
            grace,
            most,
            |batch| batch.items.len(),
            |batch| {
                self.free(batch, &mut swept, farewell);
            },
        );
        swept.waiting = progress.waiting;
        swept
    }

    /// Returns whether anything is retired and not freed, to the thread that has lain down: it finds
    /// everything but what is put there by those who are to see that (see [`waker`](crate::waker)).
    pub fn last_look(&self) -> bool {
        if cfg!(cortado_mutant = "waker_glances_at_limbo") {
            return self.count() > 0;
        }
        let mut desks =
            (0..self.stripes.len()).filter(|&index| last_look(&self.stripes[index].tools));
        // What leaves a desk goes to the sealed ones, and from there to a line.
        desks.any(|index| Desk::new(self, index).batch().is_some())
            || self.sealed.last_look()
            || self.lines.last_look()
    }

    /// Returns the cost of all values that are retired and not freed.
    ///
    /// Exact when nobody retires or frees meanwhile. Looks into every desk.
    pub fn cost(&self) -> u64 {
        let open = self.open_desks().map(|desk| desk.batch().map_or(0, |batch| batch.cost));
        open.fold(self.sealed_cost(), u64::wrapping_add)
    }

    /// Returns the number of values that are retired and not freed, as [`cost`](Self::cost) does.
    pub fn count(&self) -> u64 {
        let open = self.open_desks().map(|desk| desk.batch().map_or(0, |b| b.items.len() as u64));
        open.fold(self.sealed_count(), u64::wrapping_add)
    }

    /// Returns the cost of the values in sealed batches.
    pub fn sealed_cost(&self) -> u64 {
        // Relaxed: exact when nobody seals or frees meanwhile, close to it otherwise.
        let sum = self.stripes.iter().map(|s| s.cost.load(Ordering::Relaxed));
        not_below_zero(sum.fold(0, u64::wrapping_add))
    }

    /// Returns the number of the values in sealed batches.
    pub fn sealed_count(&self) -> u64 {
        // Relaxed: as in `sealed_cost`.
        let sum = self.stripes.iter().map(|s| s.count.load(Ordering::Relaxed));
        not_below_zero(sum.fold(0, u64::wrapping_add))
    }

    /// Returns whether nothing waits, and all that was freed has been dropped or told of.
    ///
    /// In a destructor or a farewell it does not ask about those of other threads: two that wait for each other
    /// would wait for long.
    pub fn is_at_rest(&self) -> bool {
        // In this order: a value is on its way from the count until `freeing` falls.
        // Acquire: pairs with the Release in `free`, so that whoever finds a value gone from the count finds
        // `freeing` raised.
        let sealed = self.stripes.iter().map(|s| s.count.load(Ordering::Acquire));
        let open = self.open_desks().any(|desk| desk.batch().is_some_and(|b| !b.is_empty()));
        if open || sealed.fold(0, u64::wrapping_add) != 0 {
            return false;
        }
        // REST (Acquire): pairs with the Release where `freeing` falls: what was dropped has happened.
        cfg!(cortado_mutant = "limbo_rests_early")
            || IS_FREEING.try_with(Cell::get).unwrap_or(false)
            || self.freeing.load(REST) == 0
    }

    /// Returns the bytes of the limbo itself, values not counted.
    pub fn bytes(&self) -> usize {
        let batch = size_of::<Sheet<Batch<T>>>() + self.batch_size * size_of::<Item<T>>();
        let desk = size_of::<CachePadded<Stripe<T>>>() + size_of::<Tools<T>>() + batch;
        // Relaxed: a figure.
        let stocked = self.stocked.load(Ordering::Relaxed);
        self.stripes.len() * desk + stocked * (batch + self.batch_size * size_of::<T>())
    }

    /// The desks that have tools and at which nobody sits.
    fn open_desks(&self) -> impl Iterator<Item = Desk<'_, T>> {
        let used = |&index: &usize| {
            // Relaxed: a glance, so that a desk without tools is not given any.
            !self.stripes[index].tools.load(Ordering::Relaxed).is_null()
        };
        (0..self.stripes.len()).filter(used).map(|index| Desk::new(self, index))
    }

    pub(super) fn stripe(&self, index: usize) -> &Stripe<T> {
        &self.stripes[index]
    }

    /// Returns an empty batch.
    pub(super) fn batch(&self, stripe: usize) -> Box<Sheet<Batch<T>>> {
        Sheet::new(Batch {
            items: Vec::with_capacity(self.batch_size),
            has_tails: false,
            cost: 0,
            stripe,
        })
    }

    /// Takes a batch of memory from the stock.
    pub(super) fn take_stock(&self) -> Option<Box<Sheet<Batch<T>>>> {
        let mut batches = self.stock.take();
        let batch = batches.next()?;
        self.stocked.fetch_sub(1, Ordering::Relaxed); // Relaxed: see `keep`.
        self.stock.put_back(batches);
        Some(batch)
    }

    /// Keeps a batch of memory for later, if there is room for it.
    ///
    /// # Safety
    ///
    /// * The batch holds memory without values.
    pub(super) unsafe fn keep(&self, mut batch: Box<Sheet<Batch<T>>>) {
        // Relaxed: a limit that is passed by a few batches is still one.
        if batch.items.is_empty() || self.stocked.load(Ordering::Relaxed) >= self.most_stocked {
            // SAFETY: the caller's promise.
            return unsafe { batch.give_back() };
        }
        self.stocked.fetch_add(1, Ordering::Relaxed); // Relaxed: as above.
        self.stock.push(batch);
    }

    /// Gives all memory that is kept for new values back to the allocator.
    pub fn give_back_stock(&self) {
        self.open_desks().for_each(|mut desk| desk.give_back_memory());
        for mut memory in self.stock.take() {
            self.stocked.fetch_sub(1, Ordering::Relaxed); // Relaxed: see `keep`.
            // SAFETY: only batches of memory are kept there.
            unsafe { memory.give_back() };
        }
    }

    /// Puts a value into a batch; returns whether that is full now.
    pub(super) fn fill(
        &self,
        guard: &Guard,
        batch: &mut Batch<T>,
        value: Unlinked<T>,
        cost: u64,
    ) -> bool {
        let _ = guard; // whoever retires has just unlinked, and that takes a pin
        #[cfg(any(cortado_loom, cortado_shuttle))]
        guard.note_retired(value.value.as_ptr() as usize);
        batch.has_tails |= value.get().has_tail();
        batch.items.push(Item { value: value.value, cost, label: value.label });
        batch.cost = batch.cost.wrapping_add(cost);
        batch.items.len() >= self.batch_size
    }

    /// Hands a batch over to the sweeps.
    pub(super) fn seal(&self, batch: Box<Sheet<Batch<T>>>) {
        let stripe = &self.stripes[batch.stripe];
        // Relaxed: statistics; each addition is matched by subtractions in `free`, which come after,
        // for they need the batch.
        stripe.cost.fetch_add(batch.cost, Ordering::Relaxed);
        stripe.count.fetch_add(batch.items.len() as u64, Ordering::Relaxed);
        self.sealed.push(batch);
    }

    /// Drops the values of a batch whose grace period is over, and keeps their memory.
    fn free(
        &self,
        mut batch: Box<Sheet<Batch<T>>>,
        swept: &mut Swept,
        farewell: Option<Farewell<'_, T>>,
    ) {
        let stripe = &self.stripes[batch.stripe];
        let count = batch.items.len();
        swept.freed += count;
        if std::mem::needs_drop::<T>() || batch.has_tails || farewell.is_some() {
            let is_freeing = IS_FREEING.try_with(|freeing| freeing.replace(true)).unwrap_or(false);
            // Relaxed: shown by the Release below.
            self.freeing.fetch_add(1, Ordering::Relaxed);
            batch.items.retain(|&Item { value, cost, label }| {
                // Before the drop, so that a destructor that looks at the figures does not find itself in them.
                // Relaxed: statistics, see `seal`.
                stripe.cost.fetch_sub(cost, Ordering::Relaxed);
                // Release: pairs with the Acquire in `is_at_rest`.
                stripe.count.fetch_sub(1, Ordering::Release);
                // SAFETY: as for `drop_value`. Asked before, for that may panic.
                let has_tail = unsafe { value.as_ref() }.has_tail();
                let drop_value = || {
                    // The value was unlinked, its grace period is over, and it is dropped once: it
                    // is in this batch only, which holds its memory from here on unless there was
                    // a tail.
                    match farewell.filter(|_| label != 0) {
                        // SAFETY: as above.
                        Some(farewell) => farewell(unsafe { take_from_block(value) }, label),
                        // SAFETY: as above.
                        None => _ = unsafe { drop_in_block(value) },
                    }
                };
                if let Err(panic) = catch_unwind(AssertUnwindSafe(drop_value)) {
                    swept.note(panic);
                }
                !has_tail
            });
            // Release: pairs with the Acquire in `is_at_rest`.
            self.freeing.fetch_sub(1, Ordering::Release);
            let _ = IS_FREEING.try_with(|freeing| freeing.set(is_freeing));
        } else {
            // Relaxed: as in `seal`.
            stripe.cost.fetch_sub(batch.cost, Ordering::Relaxed);
            stripe.count.fetch_sub(count as u64, Ordering::Relaxed);
        }
        batch.cost = 0;
        batch.has_tails = false;
        // Memory never comes back in a model, so that no address comes twice.
        #[cfg(any(cortado_loom, cortado_shuttle))]
        for item in batch.items.drain(..) {
            super::note_freed(item.value.as_ptr() as usize);
        }
        // SAFETY: the values were dropped above.
        unsafe { self.keep(batch) };
    }
}

impl<T> Batch<T> {
    /// Returns the cost of all values.
    pub(super) fn cost(&self) -> u64 {
        self.cost
    }

    /// Takes memory out.
    ///
    /// # Safety
    ///
    /// * The batch holds memory without values.
    #[inline]
    pub(super) unsafe fn take_memory(&mut self) -> Option<Box<MaybeUninit<T>>> {
        let memory = self.items.pop()?.value;
        // SAFETY: from the box of a value without a tail that was dropped in place, as the caller promises,
        // and out of the only batch that had it.
        Some(unsafe { Box::from_raw(memory.as_ptr().cast()) })
    }

    /// Returns all memory to the allocator.
    ///
    /// # Safety
    ///
    /// * The batch holds memory without values.
    pub(super) unsafe fn give_back(&mut self) {
        // SAFETY: the caller's promise.
        while let Some(memory) = unsafe { self.take_memory() } {
            drop(memory);
        }
    }

    /// Makes an empty batch one of `stripe`.
    pub(super) fn used_again(&mut self, stripe: usize) {
        self.stripe = stripe;
    }

    /// Returns whether nothing is in it.
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.items.is_empty()
    }
}

impl<T: Stored> Limbo<T> {
    /// Frees everything, for nobody can look at it any more; a panic of a destructor or a farewell comes
    /// back when all have run.
    pub fn drain(&mut self, farewell: Option<Farewell<'_, T>>) -> Swept {
        let mut swept = Swept::default();
        for batch in self.sealed.take() {
            self.free(batch, &mut swept, farewell);
        }
        // Relaxed, twice: `&mut self` means that every other thread's part is over and seen, and that
        // no guard's reader holds a reference: they borrow the owner.
        let waiting: Vec<_> = self.lines.drain().collect();
        for batch in waiting {
            self.free(batch, &mut swept, farewell);
        }
        for stripe in &self.stripes {
            let tools = stripe.tools.swap(ptr::null_mut(), Ordering::Relaxed); // Relaxed: as above.
            // SAFETY: as above.
            let Some(tools) = (unsafe { own(tools) }) else { continue };
            if let Some(batch) = tools.batch {
                self.free(batch, &mut swept, farewell);
            }
            if let Some(mut memory) = tools.memory {
                // SAFETY: from the stock.
                unsafe { memory.give_back() };
            }
        }
        swept
    }
}

impl<T: Stored> Drop for Limbo<T> {
    fn drop(&mut self) {
        let swept = self.drain(None);
        self.give_back_stock();
        if let Some(panic) = swept.panic
            && !std::thread::panicking()
        {
            std::panic::resume_unwind(panic);
        }
    }
}

impl<T: Stored> std::fmt::Debug for Limbo<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Limbo").field("cost", &self.cost()).field("count", &self.count()).finish()
    }
}

/// Reads a wrapping sum that was caught between a subtraction and its addition as zero.
fn not_below_zero(sum: u64) -> u64 {
    if sum > u64::MAX / 2 { 0 } else { sum }
}

thread_local! {
    /// Whether this thread is in the middle of dropping values.
    static IS_FREEING: Cell<bool> = const { Cell::new(false) };
}

// Acquire, see `is_at_rest`. The mutant does not see what was done to a value before it came to rest.
const REST: Ordering =
    if cfg!(cortado_mutant = "limbo_relaxed_rest") { Ordering::Relaxed } else { Ordering::Acquire };

#[cfg(all(test, not(any(cortado_loom, cortado_shuttle))))]
mod tests {
    use std::{
        sync::{
            Arc,
            atomic::{AtomicBool, AtomicUsize},
        },
        time::{Duration, Instant},
    };

    use super::*;
    use crate::reclaim::{block::Owned, pin};

    /// Long enough for a machine that does many other things.
    const PATIENCE: Duration = Duration::from_secs(30);

    /// Counts its drops, and panics in them if told to.
    struct Value {
        dropped: Arc<AtomicUsize>,
        panics: bool,
    }

    // SAFETY: it never has a tail, and says so.
    unsafe impl Stored for Value {
        type Tail = ();
    }

    impl Drop for Value {
        fn drop(&mut self) {
            self.dropped.fetch_add(1, Ordering::SeqCst);
            assert!(!self.panics, "destructor");
        }
    }

    fn unlinked(dropped: &Arc<AtomicUsize>, panics: bool) -> Unlinked<Value> {
        let value = Box::new(Value { dropped: Arc::clone(dropped), panics });
        // SAFETY: from a box that nobody else knows of.
        unsafe { Unlinked::new(ptr::NonNull::from(Box::leak(value))) }
    }

    fn drain(limbo: &Limbo<Value>) -> Swept {
        let mut all = Swept::default();
        // Other tests are pinned now and then, and may lack a core for long.
        let end = Instant::now() + PATIENCE;
        while Instant::now() < end {
            pin().advance();
            let swept = limbo.sweep(usize::MAX);
            all.freed += swept.freed;
            all.panic = all.panic.or(swept.panic);
            if swept.waiting == 0 {
                return all;
            }
            std::thread::yield_now();
        }
        panic!("limbo never ran empty");
    }

    #[test]
    fn figures_are_exact_while_values_wait_and_after() {
        let dropped = Arc::default();
        let limbo = Limbo::new(2, 3, 10);
        for i in 1..=8 {
            let retired = limbo.retire(&pin(), unlinked(&dropped, false), i, i as usize);
            let seals = [5, 6].contains(&i); // the third of each stripe
            assert_eq!(retired, if seals { Retired::Sealed } else { Retired::Open });
        }
        assert_eq!((limbo.count(), limbo.cost()), (8, 36));
        assert_eq!(drain(&limbo).freed, 6);
        assert_eq!((limbo.count(), limbo.cost()), (2, 15));
        assert_eq!(limbo.seal_open(), 2);
        assert_eq!(limbo.seal_open(), 0);
        assert_eq!(drain(&limbo).freed, 2);
        assert_eq!((limbo.count(), limbo.cost()), (0, 0));
        assert_eq!(dropped.load(Ordering::SeqCst), 8);
    }

    #[test]
    fn a_last_look_finds_a_value_wherever_it_waits() {
        let dropped = Arc::default();
        let limbo = Limbo::new(2, 3, 10);
        assert!(!limbo.last_look());
        let guard = pin();
        let _ = limbo.retire(&guard, unlinked(&dropped, false), 1, 1);
        assert!(limbo.last_look(), "at a desk");
        limbo.seal_open();
        assert!(limbo.last_look(), "among the sealed");
        assert_eq!(limbo.sweep(usize::MAX).freed, 0);
        assert!(limbo.last_look() && limbo.last_look(), "in line");
        drop(guard);
        drain(&limbo);
        assert!(!limbo.last_look());
    }

    #[test]
    fn memory_is_that_of_the_desks_and_the_stock() {
        let dropped = Arc::default();
        let of = |stripes, batch_size| Limbo::<Value>::new(stripes, batch_size, 10).bytes();
        // A desk holds a batch of items, and itself.
        let items = |count| count * size_of::<Item<Value>>();
        assert_eq!(of(1, 30) - of(1, 10), items(20));
        assert_eq!(of(4, 10), 4 * of(1, 10));
        assert!(of(1, 10) > items(10) + size_of::<Stripe<Value>>());
        let limbo = Limbo::new(1, 10, 20);
        let before = limbo.bytes();
        (0..10).for_each(|_| _ = limbo.retire(&pin(), unlinked(&dropped, false), 1, 0));
        drain(&limbo);
        // A batch is in stock now: memory for values, and its own.
        let stock = limbo.bytes() - before;
        let sheet = stock - items(10) - 10 * size_of::<Value>();
        assert!((size_of::<Batch<Value>>()..2 * size_of::<Batch<Value>>()).contains(&sheet));
    }

    #[test]
    fn stock_goes_back_to_the_allocator() {
        let dropped = Arc::default();
        let limbo = Limbo::new(1, 10, 20);
        let before = limbo.bytes();
        (0..20).for_each(|_| _ = limbo.retire(&pin(), unlinked(&dropped, false), 1, 0));
        drain(&limbo);
        assert!(limbo.bytes() > before);
        // Part of a batch lies at the desk.
        let value = Value { dropped: Arc::clone(&dropped), panics: false };
        drop(limbo.desk(0).make(value).into_inner());
        limbo.give_back_stock();
        assert_eq!(limbo.bytes(), before);
        assert!(limbo.take_stock().is_none());
        assert_eq!(dropped.load(Ordering::SeqCst), 21);
    }

    #[test]
    fn nothing_is_freed_under_a_guard() {
        let dropped: Arc<AtomicUsize> = Arc::default();
        let limbo = Limbo::new(1, 2, 10);
        let guard = pin();
        for _ in 0..10 {
            let _ = limbo.retire(&pin(), unlinked(&dropped, false), 1, 0);
        }
        for _ in 0..100 {
            pin().advance();
            assert_eq!((limbo.sweep(usize::MAX).freed, limbo.count()), (0, 10));
        }
        drop(guard);
        assert_eq!(drain(&limbo).freed, 10);
    }

    #[test]
    fn drop_frees_open_and_sealed_batches_and_those_that_wait() {
        let dropped: Arc<AtomicUsize> = Arc::default();
        let guard = pin();
        let limbo = Limbo::new(2, 4, 10);
        for i in 0..13 {
            let _ = limbo.retire(&guard, unlinked(&dropped, false), 1, i);
        }
        limbo.sweep(usize::MAX);
        drop(limbo);
        assert_eq!(dropped.load(Ordering::SeqCst), 13);
    }

    #[test]
    fn panicking_destructor_stops_no_other_and_is_handed_back() {
        let dropped: Arc<AtomicUsize> = Arc::default();
        let limbo = Limbo::new(1, 4, 10);
        for i in 0..8 {
            let _ = limbo.retire(&pin(), unlinked(&dropped, i % 3 == 0), 1, 0);
        }
        let swept = drain(&limbo);
        assert_eq!((swept.freed, limbo.count(), limbo.cost()), (8, 0, 0));
        assert_eq!(swept.panic.unwrap().downcast_ref::<&str>(), Some(&"destructor"));
        let _ = limbo.retire(&pin(), unlinked(&dropped, true), 1, 0);
        let _ = limbo.retire(&pin(), unlinked(&dropped, false), 1, 0);
        let panic = catch_unwind(AssertUnwindSafe(|| drop(limbo))).unwrap_err();
        assert_eq!(panic.downcast_ref::<&str>(), Some(&"destructor"));
        assert_eq!(dropped.load(Ordering::SeqCst), 10);
    }

    /// Panics as it is dropped, and leaves another one behind.
    struct Bomb;

    impl Drop for Bomb {
        fn drop(&mut self) {
            std::panic::panic_any(Self);
        }
    }

    struct Bomber(Arc<AtomicUsize>);

    // SAFETY: it never has a tail, and says so.
    unsafe impl Stored for Bomber {
        type Tail = ();
    }

    impl Drop for Bomber {
        fn drop(&mut self) {
            self.0.fetch_add(1, Ordering::SeqCst);
            std::panic::panic_any(Bomb);
        }
    }

    #[test]
    fn panic_that_panics_when_it_is_dropped_stops_no_sweep() {
        let dropped: Arc<AtomicUsize> = Arc::default();
        let mut limbo = Limbo::new(1, 4, 10);
        for _ in 0..8 {
            let value = Owned::new(Bomber(Arc::clone(&dropped))).into_raw();
            // SAFETY: from a block that nobody else knows of.
            let _ = limbo.retire(&pin(), unsafe { Unlinked::new(value) }, 1, 0);
        }
        let swept = limbo.drain(None);
        assert_eq!((swept.freed, limbo.count(), limbo.cost()), (8, 0, 0));
        assert_eq!(dropped.load(Ordering::SeqCst), 8);
        std::mem::forget(swept.panic);
    }

    /// Without a tail that may go to another thread, nothing that owns the value may.
    #[test]
    fn value_stays_on_its_thread_if_its_tail_must() {
        struct Tailed<T>(std::marker::PhantomData<fn(T)>);

        // SAFETY: it is never made.
        unsafe impl<T> Stored for Tailed<T> {
            type Tail = T;
        }

        /// Whether `T` is `Send`: the method of the type comes before that of the trait.
        struct Asked<T>(std::marker::PhantomData<T>);
        trait IsNot {
            fn is_send(&self) -> bool {
                false
            }
        }
        impl<T> IsNot for Asked<T> {}
        impl<T: Send> Asked<T> {
            fn is_send(&self) -> bool {
                true
            }
        }

        type Local = Tailed<std::rc::Rc<()>>;
        assert!(Asked::<Unlinked<Tailed<u64>>>(std::marker::PhantomData).is_send());
        assert!(!Asked::<Unlinked<Local>>(std::marker::PhantomData).is_send());
        assert!(!Asked::<Owned<Local>>(std::marker::PhantomData).is_send());
        assert!(!Asked::<Limbo<Local>>(std::marker::PhantomData).is_send());
    }

    #[test]
    fn panic_of_a_drop_that_runs_in_a_panic_is_swallowed() {
        let dropped: Arc<AtomicUsize> = Arc::default();
        let outer = catch_unwind(AssertUnwindSafe(|| {
            let limbo = Limbo::new(1, 4, 10);
            let _ = limbo.retire(&pin(), unlinked(&dropped, true), 1, 0);
            let _ = limbo.retire(&pin(), unlinked(&dropped, false), 1, 0);
            panic!("outer");
        }));
        assert_eq!(outer.unwrap_err().downcast_ref::<&str>(), Some(&"outer"));
        assert_eq!(dropped.load(Ordering::SeqCst), 2);
    }

    #[test]
    fn every_value_is_freed_once_under_many_threads() {
        let dropped: Arc<AtomicUsize> = Arc::default();
        let limbo = Limbo::new(2, 3, 10);
        let done = AtomicBool::new(false);
        let (threads, each) = (4, 5_000);
        std::thread::scope(|scope| {
            let sweeper = scope.spawn(|| {
                while !done.load(Ordering::SeqCst) {
                    limbo.seal_open();
                    assert!(limbo.sweep(usize::MAX).panic.is_none());
                    assert!(limbo.count() <= (threads * each) as u64);
                }
            });
            let work = |stripe| {
                for i in 0..each {
                    let _ = limbo.retire(&pin(), unlinked(&dropped, false), i as u64, stripe);
                    if i % 64 == 0 {
                        limbo.sweep(usize::MAX);
                    }
                }
            };
            let workers: Vec<_> =
                (0..threads).map(|stripe| scope.spawn(move || work(stripe))).collect();
            workers.into_iter().for_each(|worker| worker.join().unwrap());
            done.store(true, Ordering::SeqCst);
            sweeper.join().unwrap();
        });
        let made = threads * each;
        assert_eq!(dropped.load(Ordering::SeqCst) + limbo.count() as usize, made);
        limbo.seal_open();
        drain(&limbo);
        assert_eq!((limbo.count(), limbo.cost()), (0, 0));
        assert_eq!(dropped.load(Ordering::SeqCst), made);
    }
}
