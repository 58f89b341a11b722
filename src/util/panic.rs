//! What is left of a panic that was caught.

use std::{
    any::Any,
    panic::{AssertUnwindSafe, catch_unwind},
};

/// Drops what a panic carried, which may panic as it is dropped.
///
/// That must end neither a sweep, which would lose the values it has not come to, nor the thread of a
/// cache. What comes out of the second panic is dropped by nobody: it might go on for ever.
pub fn drop_panic(panic: Box<dyn Any + Send>) {
    if let Err(again) = catch_unwind(AssertUnwindSafe(|| drop(panic))) {
        std::mem::forget(again);
    }
}
