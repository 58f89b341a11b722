//! Grace periods by seize.

use std::{cell::Cell, sync::OnceLock, thread_local}; // shim: not part of a model build

use ::seize::{Collector, LocalGuard, OwnedGuard};

use super::{Grace, departure::Departure};
#[cfg(cortado_tsan)]
use crate::sync::atomic::Ordering::{Acquire, Release};
use crate::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// The witness of a pin; see the module above.
// In this order: a thread that is woken finds the pin gone.
pub struct Guard(Kind, Departure);

enum Kind {
    /// Of a thread.
    Local(LocalGuard<'static>),
    /// Of a thread that ends: the collector has forgotten it, and knows each guard by itself.
    Late(OwnedGuard<'static>, #[allow(dead_code)] Counted),
}

/// Pins the current thread.
///
/// Costs a store and a fence on a line of the thread's own.
#[inline]
pub fn pin() -> Guard {
    match STAGE.get() {
        Stage::Known => Guard(Kind::Local(collector().enter()), Departure),
        Stage::New => first_pin(),
        Stage::Ending => Guard(Kind::Late(collector().enter_owned(), Counted::new()), Departure),
    }
}

#[cold]
fn first_pin() -> Guard {
    let guard = collector().enter();
    // After the collector's own variable, and so destroyed before that, when `enter` may still be called.
    LEAVING.with(|leaving| leaving.set(Some(Leaving(Counted::new()))));
    STAGE.set(Stage::Known);
    Guard(Kind::Local(guard), Departure)
}

/// Where a thread is in its life.
#[derive(Clone, Copy)]
enum Stage {
    /// It has not pinned yet.
    New,
    /// The collector has a number for it.
    Known,
    /// Its variables are being destroyed.
    Ending,
}

/// One of those who may be pinned.
pub struct Counted(());

impl Counted {
    fn new() -> Self {
        COUNT.fetch_add(1, Relaxed); // Relaxed: see `advance`.
        Self(())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        COUNT.fetch_sub(1, Relaxed); // Relaxed: see `advance`.
    }
}

static COUNT: AtomicUsize = AtomicUsize::new(0);

/// Is destroyed when the thread ends.
struct Leaving(Counted);

impl Drop for Leaving {
    fn drop(&mut self) {
        STAGE.set(Stage::Ending);
    }
}

thread_local! {
    /// Has no destructor, and can always be asked.
    static STAGE: Cell<Stage> = const { Cell::new(Stage::New) };
    static LEAVING: Cell<Option<Leaving>> = const { Cell::new(None) };
}

impl Guard {
    /// Ends `grace` once every guard that exists now is gone.
    pub fn after_grace(&self, grace: &Grace) {
        match &self.0 {
            Kind::Local(guard) => end_after(guard, grace),
            Kind::Late(guard, _) => end_after(guard, grace),
        }
    }

    /// Hands what this thread has deferred to the collector.
    pub fn advance(&self) {
        // The collector takes a batch only if it has a value for each thread that is pinned, and a
        // thread that ends leaves a smaller one behind until its number is given out again. So the
        // batch is filled up. Relaxed: threads that come just now are what some more are for.
        let filler = Grace::new();
        for _ in 0..COUNT.load(Relaxed) + FILLERS {
            self.after_grace(&filler);
        }
        match &self.0 {
            Kind::Local(guard) => ::seize::Guard::flush(guard),
            Kind::Late(guard, _) => ::seize::Guard::flush(guard),
        }
    }
}

fn end_after(guard: &impl ::seize::Guard, grace: &Grace) {
    let waiting = Box::into_raw(Box::new(grace.clone()));
    // SAFETY: `waiting` comes from a box that nobody else has, is retired once, and no other
    // thread ever reads through it.
    unsafe { guard.defer_retire(waiting, end_of_grace) };
}

/// Tells the race detector what seize orders by fences, which that does not see: a grace period ends after the guards
/// that it waited for.
#[cfg(cortado_tsan)]
static ENDED: AtomicUsize = AtomicUsize::new(0);

#[cfg(cortado_tsan)]
impl Drop for Guard {
    fn drop(&mut self) {
        // Release: pairs with the Acquire in `end_of_grace`.
        ENDED.fetch_add(1, Release);
    }
}

impl std::fmt::Debug for Guard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Guard").finish_non_exhaustive()
    }
}

/// Ends the grace period that `waiting` boxes.
///
/// # Safety
///
/// * `waiting` comes from `Box::into_raw` in `end_after` and is not used again.
unsafe fn end_of_grace(waiting: *mut Grace, _: &Collector) {
    // SAFETY: as above; the collector calls this once for each retired pointer.
    let grace = unsafe { Box::from_raw(waiting) };
    #[cfg(cortado_tsan)]
    // Acquire: pairs with the Release in the drop of a guard.
    ENDED.load(Acquire);
    grace.end();
}

fn collector() -> &'static Collector {
    static COLLECTOR: OnceLock<Collector> = OnceLock::new();
    COLLECTOR.get_or_init(Collector::new)
}

/// Values added to a batch, beside one for each thread, so that the collector takes it.
const FILLERS: usize = 16;
