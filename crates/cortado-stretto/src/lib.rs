//! The names and signatures of Stretto 0.9 over [`cortado::Cache`].
//!
//! Switching takes one line of `Cargo.toml`. The library is named `stretto`, so `use` lines need no
//! change:
//!
//! ```toml
//! stretto = { package = "cortado-stretto", version = "0.1" } # in place of stretto = "0.9"
//! ```
//!
//! ```
//! use stretto::Cache;
//!
//! let cache = Cache::new(12_960, 1_000_000)?;
//! assert!(cache.insert("key", "value", 1));
//! assert_eq!(cache.get("key").unwrap().value(), &"value");
//! # Ok::<(), stretto::CacheError>(())
//! ```
//!
//! # What differs
//!
//! * **The result of an insert is final.** It is decided when the call returns, and visible: `true`
//!   means that the entry is in the cache. `false` means that it is not, and neither is an older
//!   entry of its key, unless the [`UpdateValidator`] kept that. Stretto returns `true`, shows the
//!   value, and may drop it when its processor handles the insert. [`Cache::wait`] is only needed
//!   for callbacks.
//! * **The budget is never exceeded**, including by updates and
//!   [`update_max_cost`](Cache::update_max_cost). A negative cost is rejected.
//! * **Keys are stored and compared.** Stretto stores only two hashes of a key, so keys with equal
//!   hashes share an entry, by accident or because a [`KeyBuilder`] intends it. Here a
//!   [`KeyBuilder`] decides where an entry is looked up, and `Eq` whether it is the key's.
//!   Therefore keys are `Send + Sync + 'static`, like values.
//! * **Callbacks run a little later**: once no reader can see the value, on the thread that frees
//!   it, and once for each value. [`Cache::wait`] reports all values that no reader holds.
//!   Callbacks may call the cache, including `wait` and `clear`. A rejected insert calls its
//!   callback before it returns.
//! * **No value holds a lock.** A [`ValueRef`] pins its thread, and no other thread waits for it. A
//!   [`ValueRefMut`] is a copy that is written back, unless another write came first. So
//!   [`get_mut`](Cache::get_mut) needs `K: Clone` and `V: Clone`.
//! * **Times to live are measured by a monotonic clock**, and
//!   [`insert_if_present`](Cache::insert_if_present) keeps the time left.
//! * **Types**: [`ValueRef`] also has the key's type as a parameter. A callback's [`Item::exp`] is
//!   the time that was left.
//! * **Async methods are ready at their first poll.** The runtime is only a type parameter, which
//!   is not used and may be any type. `TokioRuntime`, `SmolRuntime` and their aliases need the
//!   features `tokio` and `smol`, as in Stretto. The features `sync` and `async` have no effect:
//!   both caches are always available.
//! * **Metrics can be read** ([`Cache::metrics`]). `MetricType` and `Histogram` do not exist, and
//!   [`Cache::clear`] does not reset the metrics.
//!
//! An entry takes 32 bytes more than in a native cache: two hashes, the cost given to the insert,
//! and the deadline for [`Item::exp`]. `docs/migrating.md` describes how to move on to cortado's
//! own API.

#![cfg_attr(docsrs, feature(doc_cfg))]

mod async_cache;
mod builder;
mod cache;
mod error;
mod hooks;
mod keys;
mod metrics;
mod panic;
mod value;

#[cfg(feature = "smol")]
#[cfg_attr(docsrs, doc(cfg(feature = "smol")))]
pub use self::async_cache::{SmolCache, SmolRuntime};
#[cfg(feature = "tokio")]
#[cfg_attr(docsrs, doc(cfg(feature = "tokio")))]
pub use self::async_cache::{TokioCache, TokioRuntime};
pub use self::{
    async_cache::AsyncCache,
    builder::{AsyncCacheBuilder, CacheBuilder},
    cache::Cache,
    error::CacheError,
    hooks::{
        CacheCallback, Coster, DefaultCacheCallback, DefaultCoster, DefaultUpdateValidator, Item,
        Time, UpdateValidator,
    },
    keys::{
        DefaultKeyBuilder, KeyBuilder, TransparentHasher, TransparentKey, TransparentKeyBuilder,
    },
    metrics::Metrics,
    value::{ValueRef, ValueRefMut},
};

/// Runs the example of the README as a test.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
