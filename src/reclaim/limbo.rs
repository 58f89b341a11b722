//! Limbo: unlinked values on their way to be freed.
//!
//! # Protocol
//!
//! Each stripe has one *open* batch, or none. To retire a value, a thread takes the open batch out
//! (a swap: from then on the batch is its alone), adds the value and puts the batch back. A batch
//! that is full, or whose place was taken meanwhile, is *sealed*: pushed on one list. A sweep takes
//! the whole list and frees the batches whose grace period is over. For those that are new it begins
//! one, a single one for all, and pushes them back with those that still wait. At every moment a
//! batch belongs to exactly one of: a stripe, a thread, the list. Nobody ever waits for anybody.
//!
//! So a writer that retires a value asks nothing of the collector, which for every call would
//! allocate two kilobytes. The price is that a value waits for two sweeps.
//!
//! Values are dropped by whoever sweeps, which is never a reader. Dropping the limbo drops all.

use std::{
    any::Any,
    panic::{AssertUnwindSafe, catch_unwind},
    ptr,
};

use crossbeam_utils::CachePadded;

use super::{Grace, Guard, pin};
use crate::sync::{
    Watched,
    atomic::{AtomicPtr, AtomicU64, Ordering},
};

/// Holds retired values until no guard can see them, and meters them.
pub struct Limbo<T> {
    stripes: Box<[CachePadded<Stripe<T>>]>,
    /// Sealed batches, newest first.
    sealed: CachePadded<AtomicPtr<Batch<T>>>,
    batch_size: usize,
}

/// A value that was taken out of its structure and that only its holder may retire.
///
/// Readers that were pinned before may still look at it.
#[must_use = "a value that is not retired is leaked"]
#[derive(Debug)]
pub struct Unlinked<T> {
    value: ptr::NonNull<T>,
}

// SAFETY: an `Unlinked` is the right to drop a `T` later, perhaps elsewhere, and meanwhile to look
// at it beside others: a box that is shared for reading.
unsafe impl<T: Send + Sync> Send for Unlinked<T> {}

impl<T> Unlinked<T> {
    /// Takes a value over.
    ///
    /// # Safety
    ///
    /// * `value` comes from `Box::into_raw`.
    /// * Nobody who pins from now on can reach it, and nobody else makes an `Unlinked` of it.
    pub unsafe fn new(value: ptr::NonNull<T>) -> Self {
        Self { value }
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
    /// Batches whose grace period goes on.
    pub waiting: usize,
    /// What the first panicking destructor panicked with.
    pub panic: Option<Box<dyn Any + Send>>,
}

struct Stripe<T> {
    open: AtomicPtr<Batch<T>>,
    /// An empty batch to use again.
    spare: AtomicPtr<Batch<T>>,
    /// Cost retired less cost freed through this stripe; wraps, the sum over stripes is exact.
    cost: AtomicU64,
    /// The same for the number of values.
    count: AtomicU64,
}

struct Batch<T> {
    values: Vec<(ptr::NonNull<T>, u64)>,
    /// The period that the values wait for, once a sweep has begun one.
    grace: Option<Grace>,
    stripe: usize,
    watched: Watched,
    /// The next batch of the sealed list, once sealed.
    next: *mut Batch<T>,
}

// SAFETY: the raw pointers of a limbo own their values; a sweep may drop a `T` on any thread
// (`Send`), while readers on other threads look at it (`Sync`).
unsafe impl<T: Send + Sync> Send for Limbo<T> {}
// SAFETY: as above; all shared state is atomic.
unsafe impl<T: Send + Sync> Sync for Limbo<T> {}

impl<T> Limbo<T> {
    /// Makes a limbo of `stripes` stripes whose batches seal at `batch_size` values.
    pub fn new(stripes: usize, batch_size: usize) -> Self {
        let stripe = || {
            CachePadded::new(Stripe {
                open: AtomicPtr::new(ptr::null_mut()),
                spare: AtomicPtr::new(ptr::null_mut()),
                cost: AtomicU64::new(0),
                count: AtomicU64::new(0),
            })
        };
        Self {
            stripes: (0..stripes.max(1)).map(|_| stripe()).collect(),
            sealed: CachePadded::new(AtomicPtr::new(ptr::null_mut())),
            batch_size: batch_size.max(1),
        }
    }

    /// Retires a value of a given cost; it is freed after every guard of this moment is gone.
    ///
    /// `stripe` spreads threads; any number will do.
    pub fn retire(&self, guard: &Guard, value: Unlinked<T>, cost: u64, stripe: usize) -> Retired {
        let index = stripe % self.stripes.len();
        let stripe = &self.stripes[index];
        let _ = guard; // whoever retires has just unlinked, and that takes a pin
        #[cfg(any(cortado_loom, cortado_shuttle))]
        guard.note_retired(value.value.as_ptr() as usize);
        // Relaxed: statistics; each addition is matched by one subtraction in `free`.
        stripe.cost.fetch_add(cost, Ordering::Relaxed);
        stripe.count.fetch_add(1, Ordering::Relaxed);

        let mut batch = self.take_open(index);
        batch.watched.write();
        batch.values.push((value.value, cost));
        if batch.values.len() >= self.batch_size {
            self.push_sealed(batch);
            return Retired::Sealed;
        }
        self.put_back(stripe, batch)
    }

    /// Seals every open batch that has something in it; returns how many.
    pub fn seal_open(&self) -> usize {
        let mut sealed = 0;
        for stripe in &self.stripes {
            // Acquire: pairs with the Release in `put_back`, so that the batch's content is seen.
            let batch = stripe.open.swap(ptr::null_mut(), Ordering::Acquire);
            // SAFETY: what was in `open` came from `Box::into_raw`, and the swap made it ours.
            if let Some(batch) = unsafe { own(batch) } {
                self.push_sealed(batch);
                sealed += 1;
            }
        }
        sealed
    }

    /// Frees what no guard can see any more, and begins to wait for the rest.
    ///
    /// Runs destructors of values: call it unpinned. A panic of one is caught, the others run,
    /// and the first is handed back.
    pub fn sweep(&self) -> Swept {
        let mut swept = Swept::default();
        let mut fresh = ptr::null_mut();
        // Acquire: pairs with the Release in `push_sealed`, so that the batches' content is seen.
        let mut next = self.sealed.swap(ptr::null_mut(), Ordering::Acquire);
        // SAFETY: the swap made the whole list ours, and each batch came from `Box::into_raw`.
        while let Some(mut batch) = unsafe { own(next) } {
            batch.watched.read();
            next = batch.next;
            match &batch.grace {
                Some(grace) if grace.is_over() => self.free(batch, &mut swept),
                Some(_) => {
                    swept.waiting += 1;
                    self.push_sealed(batch);
                }
                None => {
                    batch.next = fresh;
                    fresh = Box::into_raw(batch);
                }
            }
        }
        if !fresh.is_null() {
            self.begin_grace(fresh, &mut swept);
        }
        swept
    }

    /// Begins one grace period for a list of batches.
    fn begin_grace(&self, mut fresh: *mut Batch<T>, swept: &mut Swept) {
        let guard = pin();
        // All values of the batches were unlinked before they were pushed, which the swap that took
        // them has seen: the period that starts now covers them.
        let grace = Grace::new();
        if cfg!(cortado_mutant = "limbo_no_grace") {
            grace.end();
        } else {
            guard.after_grace(&grace);
        }
        // SAFETY: the list is the caller's, and each batch came from `Box::into_raw`.
        while let Some(mut batch) = unsafe { own(fresh) } {
            fresh = batch.next;
            #[cfg(any(cortado_loom, cortado_shuttle))]
            for (value, _) in &batch.values {
                guard.note_sealed(value.as_ptr() as usize);
            }
            batch.grace = Some(grace.clone());
            swept.waiting += 1;
            self.push_sealed(batch);
        }
        guard.advance();
    }

    /// Returns the cost of all values that are retired and not freed.
    pub fn cost(&self) -> u64 {
        // Relaxed: exact when nobody retires or frees meanwhile, close to it otherwise.
        let sum = self.stripes.iter().map(|s| s.cost.load(Ordering::Relaxed));
        not_below_zero(sum.fold(0, u64::wrapping_add))
    }

    /// Returns the number of values that are retired and not freed.
    pub fn count(&self) -> u64 {
        // Relaxed: as in `cost`.
        let sum = self.stripes.iter().map(|s| s.count.load(Ordering::Relaxed));
        not_below_zero(sum.fold(0, u64::wrapping_add))
    }

    /// Returns the bytes of the limbo itself, values not counted.
    pub fn bytes(&self) -> usize {
        let batch = size_of::<Batch<T>>() + self.batch_size * size_of::<(ptr::NonNull<T>, u64)>();
        self.stripes.len() * (size_of::<CachePadded<Stripe<T>>>() + batch)
    }

    fn take_open(&self, index: usize) -> Box<Batch<T>> {
        let stripe = &self.stripes[index];
        // Acquire: pairs with the Release in `put_back`, so that the batch's content is seen.
        let open = if cfg!(cortado_mutant = "limbo_shared_batch") {
            stripe.open.load(Ordering::Acquire)
        } else {
            stripe.open.swap(ptr::null_mut(), Ordering::Acquire)
        };
        // SAFETY: what was in `open` came from `Box::into_raw`, and the swap made it ours.
        if let Some(batch) = unsafe { own(open) } {
            return batch;
        }
        // Acquire: pairs with the Release in `free`, which emptied the batch.
        let spare = stripe.spare.swap(ptr::null_mut(), Ordering::Acquire);
        // SAFETY: as above, for `spare`.
        if let Some(mut batch) = unsafe { own(spare) } {
            batch.grace = None;
            return batch;
        }
        Box::new(Batch {
            values: Vec::with_capacity(self.batch_size),
            grace: None,
            stripe: index,
            watched: Watched::new(),
            next: ptr::null_mut(),
        })
    }

    fn put_back(&self, stripe: &Stripe<T>, batch: Box<Batch<T>>) -> Retired {
        let raw = Box::into_raw(batch);
        // Release: pairs with the Acquire of the swaps that take the batch out again.
        match stripe.open.compare_exchange(
            ptr::null_mut(),
            raw,
            Ordering::Release,
            Ordering::Relaxed, // Relaxed: the other batch is not looked at.
        ) {
            Ok(_) => Retired::Open,
            Err(_) => {
                // SAFETY: the exchange failed, so `raw` is still ours alone.
                let batch = unsafe { Box::from_raw(raw) };
                self.push_sealed(batch);
                Retired::Sealed
            }
        }
    }

    fn push_sealed(&self, batch: Box<Batch<T>>) {
        let raw = Box::into_raw(batch);
        // Relaxed: only compared, never read through. The list is only ever taken whole, so a
        // head that comes back (ABA) is harmless.
        let mut head = self.sealed.load(Ordering::Relaxed);
        loop {
            // SAFETY: `raw` is ours until the exchange below succeeds.
            let batch = unsafe { &mut *raw };
            batch.watched.write();
            batch.next = head;
            // Release: pairs with the Acquire of the swap in `sweep`. Each push continues the
            // release sequence of the pushes below it, so one Acquire sees all batches.
            match self.sealed.compare_exchange_weak(
                head,
                raw,
                SEALED_PUSH,
                Ordering::Relaxed, // Relaxed: as for the first load.
            ) {
                Ok(_) => return,
                Err(seen) => head = seen,
            }
        }
    }

    /// Drops the values of a batch whose grace period is over, and keeps the batch for later.
    fn free(&self, mut batch: Box<Batch<T>>, swept: &mut Swept) {
        batch.watched.write();
        let stripe = &self.stripes[batch.stripe];
        for (value, cost) in batch.values.drain(..) {
            // Relaxed: statistics, see `retire`. Before the drop, so that a destructor that looks
            // at the figures does not find itself in them.
            stripe.cost.fetch_sub(cost, Ordering::Relaxed);
            stripe.count.fetch_sub(1, Ordering::Relaxed);
            swept.freed += 1;
            // SAFETY: the value was unlinked, its grace period is over, and it is freed once: it
            // was in this batch only and has left it.
            let freed = catch_unwind(AssertUnwindSafe(|| unsafe { free(value) }));
            if let Err(panic) = freed {
                swept.panic.get_or_insert(panic);
            }
        }
        let raw = Box::into_raw(batch);
        // Release: pairs with the Acquire in `take_open`.
        let kept = stripe.spare.compare_exchange(
            ptr::null_mut(),
            raw,
            Ordering::Release,
            Ordering::Relaxed, // Relaxed: the other spare is not looked at.
        );
        if kept.is_err() {
            // SAFETY: the exchange failed, so `raw` is still ours alone.
            drop(unsafe { Box::from_raw(raw) });
        }
    }
}

impl<T> Drop for Limbo<T> {
    fn drop(&mut self) {
        let mut swept = Swept::default();
        // Relaxed, here and below: `&mut self` means that every other thread's part is over and
        // seen, and that no guard's reader holds a reference: they borrow the owner.
        let mut next = self.sealed.swap(ptr::null_mut(), Ordering::Relaxed);
        // SAFETY: the list is ours, each batch came from `Box::into_raw`.
        while let Some(batch) = unsafe { own(next) } {
            next = batch.next;
            self.free(batch, &mut swept);
        }
        for index in 0..self.stripes.len() {
            let open = self.stripes[index].open.swap(ptr::null_mut(), Ordering::Relaxed);
            // SAFETY: as above.
            if let Some(batch) = unsafe { own(open) } {
                self.free(batch, &mut swept);
            }
            let spare = self.stripes[index].spare.swap(ptr::null_mut(), Ordering::Relaxed);
            // SAFETY: as above.
            drop(unsafe { own(spare) });
        }
        if let Some(panic) = swept.panic
            && !std::thread::panicking()
        {
            std::panic::resume_unwind(panic);
        }
    }
}

impl<T> std::fmt::Debug for Limbo<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Limbo").field("cost", &self.cost()).field("count", &self.count()).finish()
    }
}

/// Turns a pointer from `Box::into_raw`, or null, into the box it was.
///
/// # Safety
///
/// * `raw` is null, or comes from `Box::into_raw` and belongs to the caller alone.
unsafe fn own<T>(raw: *mut T) -> Option<Box<T>> {
    // SAFETY: the caller's promise.
    (!raw.is_null()).then(|| unsafe { Box::from_raw(raw) })
}

/// Drops a retired value.
///
/// # Safety
///
/// * `value` comes from `Box::into_raw`, nobody can reach it, and it was not freed before.
#[cfg(not(any(cortado_loom, cortado_shuttle)))]
unsafe fn free<T>(value: ptr::NonNull<T>) {
    // SAFETY: the caller's promise.
    drop(unsafe { Box::from_raw(value.as_ptr()) });
}

/// Drops a retired value, but never gives its memory back, so that no address comes twice.
///
/// # Safety
///
/// * `value` comes from `Box::into_raw`, nobody can reach it, and it was not freed before.
#[cfg(any(cortado_loom, cortado_shuttle))]
unsafe fn free<T>(value: ptr::NonNull<T>) {
    super::backend::note_freed(value.as_ptr() as usize);
    // SAFETY: the caller's promise.
    unsafe { ptr::drop_in_place(value.as_ptr()) };
}

/// Reads a wrapping sum that was caught between a subtraction and its addition as zero.
fn not_below_zero(sum: u64) -> u64 {
    if sum > u64::MAX / 2 { 0 } else { sum }
}

// Release, see `push_sealed`. The mutant pushes with Relaxed: a sweep may see a batch unfilled.
const SEALED_PUSH: Ordering =
    if cfg!(cortado_mutant = "limbo_relaxed_seal") { Ordering::Relaxed } else { Ordering::Release };

#[cfg(all(test, not(any(cortado_loom, cortado_shuttle))))]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize},
    };

    use super::*;
    use crate::reclaim::pin;

    /// Counts its drops, and panics in them if told to.
    struct Value {
        dropped: Arc<AtomicUsize>,
        panics: bool,
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
        for _ in 0..10_000 {
            pin().advance();
            let swept = limbo.sweep();
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
        let limbo = Limbo::new(2, 3);
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
    fn nothing_is_freed_under_a_guard() {
        let dropped: Arc<AtomicUsize> = Arc::default();
        let limbo = Limbo::new(1, 2);
        let guard = pin();
        for _ in 0..10 {
            let _ = limbo.retire(&pin(), unlinked(&dropped, false), 1, 0);
        }
        for _ in 0..100 {
            pin().advance();
            assert_eq!((limbo.sweep().freed, limbo.count()), (0, 10));
        }
        drop(guard);
        assert_eq!(drain(&limbo).freed, 10);
    }

    #[test]
    fn drop_frees_open_and_sealed_batches_and_those_that_wait() {
        let dropped: Arc<AtomicUsize> = Arc::default();
        let guard = pin();
        let limbo = Limbo::new(2, 4);
        for i in 0..13 {
            let _ = limbo.retire(&guard, unlinked(&dropped, false), 1, i);
        }
        limbo.sweep();
        drop(limbo);
        assert_eq!(dropped.load(Ordering::SeqCst), 13);
    }

    #[test]
    fn panicking_destructor_stops_no_other_and_is_handed_back() {
        let dropped: Arc<AtomicUsize> = Arc::default();
        let limbo = Limbo::new(1, 4);
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

    #[test]
    fn panic_of_a_drop_that_runs_in_a_panic_is_swallowed() {
        let dropped: Arc<AtomicUsize> = Arc::default();
        let outer = catch_unwind(AssertUnwindSafe(|| {
            let limbo = Limbo::new(1, 4);
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
        let limbo = Limbo::new(2, 3);
        let done = AtomicBool::new(false);
        let (threads, each) = (4, 5_000);
        std::thread::scope(|scope| {
            let sweeper = scope.spawn(|| {
                while !done.load(Ordering::SeqCst) {
                    limbo.seal_open();
                    assert!(limbo.sweep().panic.is_none());
                    assert!(limbo.count() <= (threads * each) as u64);
                }
            });
            let work = |stripe| {
                for i in 0..each {
                    let _ = limbo.retire(&pin(), unlinked(&dropped, false), i as u64, stripe);
                    if i % 64 == 0 {
                        limbo.sweep();
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
