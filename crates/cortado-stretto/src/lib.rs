//! Stretto 0.9's names and signatures over [`cortado::Cache`].
//!
//! The switch is one line of `Cargo.toml`; the library is named `stretto`, so `use` lines stay:
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
//! * **The answer of an insert is the whole answer.** It is decided when the call returns, and visible: `true`
//!   means that the entry is in the cache, `false` that it is not, and neither is an older one of its key
//!   unless the [`UpdateValidator`] kept that. Stretto says `true`, shows the value, and may drop it when its
//!   processor comes to it. [`Cache::wait`] is only needed to be told of what has left.
//! * **The budget is kept**, by updates and [`update_max_cost`](Cache::update_max_cost) too. A negative cost
//!   is refused.
//! * **Keys are stored, and compared.** Stretto keeps two hashes of a key and nothing else, so keys with equal
//!   hashes share an entry, by accident or because a [`KeyBuilder`] wants it. Here a [`KeyBuilder`] decides where
//!   an entry is looked for, and `Eq` whether it is the one. Therefore keys are `Send + Sync + 'static`, like
//!   values.
//! * **Callbacks come a little later**: when no reader can look at the value any more, on the thread that
//!   frees it, and each value comes once. [`Cache::wait`] brings what no reader holds. They may call the
//!   cache, `wait` and `clear` included. A rejected insert tells of itself before it returns.
//! * **Nobody holds a lock.** A [`ValueRef`] pins its thread, and no other thread waits for it. A [`ValueRefMut`] is a
//!   copy that is written back, if nobody was faster; so [`get_mut`](Cache::get_mut) needs `K: Clone` and
//!   `V: Clone`.
//! * **Times to live go by a monotonic clock**, and [`insert_if_present`](Cache::insert_if_present) keeps what
//!   is left of one.
//! * **Types**: [`ValueRef`] also names the key's. A callback's [`Item::exp`] is what was left of the time.
//! * **Async methods are ready at their first poll**; the runtime is a name that nothing is asked of, and any
//!   type will do. `TokioRuntime`, `SmolRuntime` and their aliases come with the features `tokio` and
//!   `smol`, as in Stretto. Its `sync` and `async` turn nothing on: both caches are always there.
//! * **Metrics can be read** ([`Cache::metrics`]). `MetricType` and `Histogram` are not there;
//!   [`Cache::clear`] does not set them to 0.
//!
//! An entry here takes 32 bytes more than in a native cache: two hashes, the cost that was named, and the
//! deadline for [`Item::exp`]. `docs/STRETTO.md` tells how to move on.

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
