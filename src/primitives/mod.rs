//! Lock-free building blocks, each independent of its users and model-checked on its own.

pub mod eventcount;
pub mod handover;
pub mod ring;
pub mod stack;
pub mod striped;

use crate::sync::atomic::{AtomicPtr, Ordering};

/// Converts a pointer from `Box::into_raw` back into its box; returns `None` for null.
///
/// # Safety
///
/// * `raw` is null, or comes from `Box::into_raw` and belongs to the caller alone.
pub(crate) unsafe fn own<T>(raw: *mut T) -> Option<Box<T>> {
    // SAFETY: the caller promises that a non-null `raw` is a box of its own.
    (!raw.is_null()).then(|| unsafe { Box::from_raw(raw) })
}

/// Rechecks whether a place holds something, for a thread that is about to sleep.
///
/// If the place is empty, a thread that later fills it by an acquiring read-modify-write sees what
/// this thread did before the recheck (see [`eventcount`](crate::primitives::eventcount)).
pub(crate) fn recheck<T>(place: &AtomicPtr<T>) -> bool {
    let none = std::ptr::null_mut();
    // Release: pairs with the Acquire of the read-modify-write that fills the empty place.
    // Relaxed: a place that is not empty has been found, so nothing can be missed.
    place.compare_exchange(none, none, Ordering::Release, Ordering::Relaxed).is_err()
}
