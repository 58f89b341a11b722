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
// A model build has the parts, and not what is built of them. The parts offer their model tests and
// benches more than the cache calls; a build that opens them shows what nobody calls.
#![cfg_attr(any(cortado_loom, cortado_shuttle), allow(dead_code, unused_imports))]
#![cfg_attr(not(feature = "__internals"), allow(dead_code, unused_imports))]

mod budget;
#[cfg(not(any(cortado_loom, cortado_shuttle)))]
mod cache;
mod clock;
mod config;
mod deadlines;
#[cfg(not(any(cortado_loom, cortado_shuttle)))]
mod engine;
mod entry;
mod error;
#[cfg(not(any(cortado_loom, cortado_shuttle)))]
mod evictor;
mod flight;
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
mod waker;

#[cfg(not(any(cortado_loom, cortado_shuttle)))]
pub use crate::{
    cache::{
        Cache, CacheBuilder, Claim, Computed, DefaultHashBuilder, EntryInfo, FillGuard, Imported,
        InsertOptions, Iter, Op, Pinned, Record, ValueRef, Wait,
    },
    engine::{Expiry, Insert, MemoryUse, Reject, RemovalCause, Removed, Ticked, Work},
};
pub use crate::{
    clock::{Clock, ManualClock, SystemClock},
    config::{Maintenance, Priority, Victim},
    error::{BuildError, TtlError},
    metrics::Metrics,
};
pub use equivalent::Equivalent;

/// The inner parts, for this repository's benches and model tests.
#[cfg(feature = "__internals")]
#[doc(hidden)]
#[allow(missing_docs)]
pub mod __internals {
    macro_rules! open {
        ($($module:ident),* $(,)?) => {
            $(pub mod $module { pub use crate::$module::*; })*
        };
    }
    open!(budget, entry, flight, metrics, reclaim, sketch, stripe, sync, table, util);
}
