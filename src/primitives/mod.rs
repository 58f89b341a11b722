//! Lock-free parts, each alone and each with a model of its own.

pub mod eventcount;
pub mod handover;
pub mod ring;
pub mod stack;
pub mod striped;

use crate::sync::atomic::{AtomicPtr, Ordering};

/// Turns a pointer from `Box::into_raw`, or null, into the box it was.
///
/// # Safety
///
/// * `raw` is null, or comes from `Box::into_raw` and belongs to the caller alone.
pub(crate) unsafe fn own<T>(raw: *mut T) -> Option<Box<T>> {
    // SAFETY: the caller's promise.
    (!raw.is_null()).then(|| unsafe { Box::from_raw(raw) })
}

/// Returns whether a place holds something, to the thread that is about to sleep: whoever fills it later by a
/// read-modify-write that acquires sees what this thread did before (see [`eventcount`](crate::primitives::eventcount)).
pub(crate) fn recheck<T>(place: &AtomicPtr<T>) -> bool {
    let none = std::ptr::null_mut();
    // Release: as above, where the place is empty. Relaxed: where it is not, there is nothing to miss.
    place.compare_exchange(none, none, Ordering::Release, Ordering::Relaxed).is_err()
}
