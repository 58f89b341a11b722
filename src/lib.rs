//! A lock-free, in-process, cost-budgeted cache.
//!
//! ```
//! use cortado::Cache;
//!
//! let cache = Cache::new(1000);
//! cache.insert("key", "value");
//! assert_eq!(cache.get_cloned("key"), Some("value"));
//! ```

#![cfg_attr(docsrs, feature(doc_cfg))]

mod budget;
mod cache;
mod config;
mod engine;
mod entry;
mod error;
mod evictor;
mod metrics;
mod policy;
#[allow(unsafe_code)]
mod reclaim;
mod sketch;
mod stripe;
mod sync;
#[allow(unsafe_code)]
mod table;
mod util;

pub use cache::{Cache, CacheBuilder, DefaultHashBuilder, Iter, Pinned, ValueRef};
pub use config::{Maintenance, Victim};
pub use engine::{Insert, MemoryUse, Reject, Ticked, Work};
pub use equivalent::Equivalent;
pub use error::BuildError;
pub use metrics::Metrics;

#[cfg(feature = "__internals")]
#[doc(hidden)]
pub mod __internals {
    //! The inner parts, for this repository's benches and model tests.

    pub use crate::{budget, entry, policy, reclaim, sketch, stripe, sync, table, util};
}
