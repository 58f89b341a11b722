//! Grace periods by seize.

use std::sync::OnceLock; // shim: not part of a model build

use ::seize::{Collector, Guard as _, LocalGuard};

use super::Grace;

/// The witness of a pin; see the module above.
pub struct Guard(LocalGuard<'static>);

/// Pins the current thread.
///
/// Costs a store and a fence on a line of the thread's own.
#[inline]
pub fn pin() -> Guard {
    Guard(collector().enter())
}

impl Guard {
    /// Ends `grace` once every guard that exists now is gone.
    pub fn after_grace(&self, grace: &Grace) {
        let waiting = Box::into_raw(Box::new(grace.clone()));
        // SAFETY: `waiting` comes from a box that nobody else has, is retired once, and no other
        // thread ever reads through it.
        unsafe { self.0.defer_retire(waiting, end_of_grace) };
    }

    /// Hands what this thread has deferred to the collector.
    pub fn advance(&self) {
        // The collector takes a batch only if it has more values than there are pinned threads, and
        // a thread that ends leaves a smaller one behind until its number is given out again. So the
        // batch is filled up; with more threads pinned than that, the next call adds to it.
        let filler = Grace::new();
        for _ in 0..FILLERS {
            self.after_grace(&filler);
        }
        self.0.flush();
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
/// * `waiting` comes from `Box::into_raw` in `after_grace` and is not used again.
unsafe fn end_of_grace(waiting: *mut Grace, _: &Collector) {
    // SAFETY: as above; the collector calls this once for each retired pointer.
    let grace = unsafe { Box::from_raw(waiting) };
    grace.end();
}

fn collector() -> &'static Collector {
    static COLLECTOR: OnceLock<Collector> = OnceLock::new();
    COLLECTOR.get_or_init(Collector::new)
}

/// Values added to a batch so that the collector takes it.
const FILLERS: usize = 16;
