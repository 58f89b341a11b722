//! A lock-free, in-process, cost-budgeted cache.
#![allow(dead_code)]

pub mod budget;
pub mod error;
pub mod metrics;
#[allow(unsafe_code)]
pub mod reclaim;
pub mod sketch;
pub mod stripe;
pub mod sync;
#[allow(unsafe_code)]
pub mod table;
pub mod util;

pub use crate::metrics::Metrics;

/// Inner parts, for this repository's benches and model tests.
#[doc(hidden)]
#[cfg(feature = "__internals")]
pub mod __internals {
    pub use crate::{budget, metrics, reclaim, sketch, stripe, sync, table, util};
}
