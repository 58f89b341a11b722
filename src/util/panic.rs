//! Panics that are caught, for there is more to do.

use std::{
    any::Any,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
};

/// Calls `f` with each item, though it panics over one of them; the first panic goes on when all is done.
/// If the thread panics already it is dropped, for a second one would end the process.
pub fn for_all<T>(items: impl IntoIterator<Item = T>, mut f: impl FnMut(T)) {
    let mut panic = None;
    for item in items {
        match catch_unwind(AssertUnwindSafe(|| f(item))) {
            Ok(()) => {}
            Err(first) if panic.is_none() => panic = Some(first),
            Err(another) => drop_panic(another),
        }
    }
    match panic {
        Some(panic) if std::thread::panicking() => drop_panic(panic),
        Some(panic) => resume_unwind(panic),
        None => {}
    }
}

/// Calls `f`; if it panics, that ends here, and there is no result.
pub fn caught<R>(f: impl FnOnce() -> R) -> Option<R> {
    catch_unwind(AssertUnwindSafe(f)).map_err(drop_panic).ok()
}

/// Drops what a panic carried, which may panic as it is dropped.
///
/// That must end neither a sweep, which would lose the values it has not come to, nor the thread of a
/// cache. What comes out of the second panic is dropped by nobody: it might go on for ever.
pub fn drop_panic(panic: Box<dyn Any + Send>) {
    if let Err(again) = catch_unwind(AssertUnwindSafe(|| drop(panic))) {
        std::mem::forget(again);
    }
}
