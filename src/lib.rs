//! A lock-free, in-process, cost-budgeted cache.
#![allow(dead_code)]

pub mod sync;

/// Inner parts, for this repository's benches and model tests.
#[doc(hidden)]
#[cfg(feature = "__internals")]
pub mod __internals {
    pub use crate::sync;
}
