//! Grace periods: what a pinned thread may rely on, and which collector keeps that promise.
//!
//! # Protocol
//!
//! A [`Guard`] is the witness of a *pin*. Whatever was reachable when the guard was made stays
//! readable until the guard is dropped. The collector (crossbeam-epoch, or seize by feature) is
//! asked one question only, [`Guard::after_grace`]: "have all guards of this moment gone?" What is
//! to be freed then waits in [`limbo`], so that a reader never runs a destructor.
//!
//! All caches of a process share one private collector. It is never the global default of the
//! collector crate, so a guard that another library forgot cannot hold back our memory.

#[cfg(any(
    all(cortado_loom, crossbeam_loom),
    not(any(cortado_loom, cortado_shuttle, feature = "seize"))
))]
#[path = "crossbeam.rs"]
mod backend;
#[cfg(all(any(cortado_loom, cortado_shuttle), not(all(cortado_loom, crossbeam_loom))))]
#[path = "model.rs"]
mod backend;
#[cfg(all(feature = "seize", not(any(cortado_loom, cortado_shuttle))))]
#[path = "seize.rs"]
mod backend;

pub mod block;
#[cfg(not(any(cortado_loom, cortado_shuttle)))]
pub mod departure;
#[cfg(any(cortado_loom, cortado_shuttle))]
#[path = "departure_model.rs"]
pub mod departure;
pub mod desk;
pub mod limbo;
pub mod pile;

pub use backend::{Guard, pin};
#[cfg(any(cortado_loom, cortado_shuttle))]
pub use backend::{census, reset};

use crate::sync::{
    Arc,
    atomic::{AtomicPtr, AtomicUsize, Ordering},
};

/// A grace period that somebody waits for.
///
/// Cloning it clones a handle to the same period.
#[derive(Clone, Debug)]
pub struct Grace {
    /// Guards, or groups of guards, that have still to go. Zero: the period is over.
    outstanding: Arc<AtomicUsize>,
}

impl Grace {
    /// Makes a period that has not ended and that nobody ends yet.
    pub fn new() -> Self {
        #[cfg(any(cortado_loom, cortado_shuttle))]
        return Self { outstanding: backend::counter() };
        #[cfg(not(any(cortado_loom, cortado_shuttle)))]
        Self { outstanding: Arc::new(AtomicUsize::new(1)) }
    }

    /// Returns whether the period is over: everything that its guards did has happened.
    pub fn is_over(&self) -> bool {
        // Acquire: pairs with the Release in `end`; seeing zero means seeing the last reads of
        // every guard of the period as done, so that freeing cannot race them.
        self.outstanding.load(GRACE_READ) == 0
    }

    /// Ends one of the waits of the period.
    fn end(&self) {
        // AcqRel: Release pairs with the Acquire in `is_over`; Acquire chains the reads of those
        // that ended their wait before this one.
        self.outstanding.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Default for Grace {
    fn default() -> Self {
        Self::new()
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

/// Returns whether a place holds something, to the thread that has lain down: whoever fills it later by a
/// read-modify-write that acquires sees what this thread did before (see [`waker`](crate::waker)).
fn last_look<T>(place: &AtomicPtr<T>) -> bool {
    let none = std::ptr::null_mut();
    // Release: as above, where the place is empty. Relaxed: where it is not, there is nothing to miss.
    place.compare_exchange(none, none, Ordering::Release, Ordering::Relaxed).is_err()
}

// Acquire, see `is_over`. The mutant reads with Relaxed and may free under a reader.
const GRACE_READ: Ordering = if cfg!(cortado_mutant = "limbo_relaxed_grace") {
    Ordering::Relaxed
} else {
    Ordering::Acquire
};

#[cfg(all(test, not(any(cortado_loom, cortado_shuttle))))]
mod tests {
    use super::*;

    fn wait(grace: &Grace) {
        for _ in 0..10_000 {
            if grace.is_over() {
                return;
            }
            pin().advance();
            std::thread::yield_now();
        }
        panic!("the grace period never ended");
    }

    #[test]
    fn grace_ends_when_no_guard_is_left() {
        let grace = Grace::new();
        pin().after_grace(&grace);
        wait(&grace);
    }

    #[test]
    fn guard_of_the_same_moment_holds_the_grace_back() {
        let grace = Grace::new();
        let guard = pin();
        guard.after_grace(&grace);
        for _ in 0..100 {
            pin().advance();
            assert!(!grace.is_over());
        }
        drop(guard);
        wait(&grace);
    }
}
