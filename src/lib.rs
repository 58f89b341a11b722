//! A lock-free, in-process, cost-budgeted cache.
//!
//! ```
//! use cortado::{Cache, Insert};
//!
//! // A budget of 1000; an entry costs 1 by default.
//! let cache = Cache::new(1000);
//! assert_eq!(cache.insert("key", 1), Insert::Inserted);
//! assert_eq!(cache.get("key").as_deref(), Some(&1));
//! assert_eq!(cache.get_cloned("absent"), None);
//!
//! // One caller loads the value; concurrent callers of the same key wait for it.
//! assert_eq!(*cache.get_or_insert_with("loaded", || 2), 2);
//! assert!(cache.cost() <= cache.max_cost());
//! ```
//!
//! [`Cache`] serves threads and async tasks alike; a clone is another handle to the same cache.
//! [`get`](Cache::get) takes no lock and never waits.
//!
//! | page | about |
//! |---|---|
//! | [`docs::guide`] | choosing a cost, sizing, pitfalls, what to watch, [examples] |
//! | [`docs::migrating`] | moka, quick_cache, Stretto, Ristretto and Caffeine, call by call |
//! | [`docs::design`] | architecture and policy, with the measured hit ratios |
//! | [`docs::near`] | from one process to many: a near cache in front of Redis or Valkey |
//!
//! [examples]: docs::guide#examples
//!
//! # Consistency
//!
//! * **A write takes effect before it returns.** After [`Insert::Inserted`] or [`Insert::Updated`]
//!   the next read by any thread sees that value, a newer one, or that the entry was evicted: a
//!   thread reads its own writes. After [`remove`](Cache::remove) no call finds the removed entry.
//! * **A rejection is reported.** [`Insert::Rejected`] returns the value and the reason. An older
//!   value that the new one would have replaced is then removed, because it is out of date; it stays
//!   if the builder's [`replace_if`](CacheBuilder::replace_if) refused the new one.
//! * **Values are never changed in place.** A [`ValueRef`] keeps showing the value that it was
//!   created for; a new value is a new entry. [`update`](Cache::update) and
//!   [`compute`](Cache::compute) compare and swap, and lose no update.
//! * **Iteration is weakly consistent.** [`CacheRef::iter`] returns every entry that is present
//!   throughout the iteration, and may or may not return one that is inserted or removed
//!   concurrently. It is not a snapshot. It returns an entry once, or twice if the table is resized
//!   concurrently.
//! * **Some work is deferred:** the policy's counting of accesses, the freeing of removed entries,
//!   and the calls of [`on_remove`](CacheBuilder::on_remove). [`flush`](Cache::flush) completes it.
//!
//! ```
//! let cache = cortado::Cache::new(10);
//! cache.insert("k", 1);
//! let before = cache.get("k").unwrap();
//! cache.insert("k", 2);
//! assert_eq!((*before, cache.get_cloned("k")), (1, Some(2)));
//! ```
//!
//! # Cost and budget
//!
//! The budget is the limit of the sum of all entries' costs, in a unit of your choice. An insert
//! charges the budget before it publishes the entry, so the sum never exceeds the budget, not for
//! an instant. Removed entries that a reader may still see are garbage and do not count against the
//! budget. Garbage is metered ([`MemoryUse::garbage`](MemoryUse)) and has its own limit
//! ([`CacheBuilder::max_garbage`]). [`Cache::stalled_readers`] lists the threads that keep it from
//! being freed.
//!
//! ```
//! use cortado::{Cache, Insert, RejectReason};
//!
//! let pages = Cache::builder()
//!     .max_cost(1 << 20)
//!     .cost_of(|_: &u32, page: &Vec<u8>| page.len() as u64)
//!     .build()?;
//! assert!(pages.insert(1, vec![0; 4096]).is_in());
//! assert_eq!(pages.cost(), 4096);
//! let huge = pages.insert(2, vec![0; 2 << 20]);
//! assert!(matches!(huge, Insert::Rejected(_, RejectReason::TooCostly)));
//! # Ok::<(), cortado::BuildError>(())
//! ```
//!
//! A cost is what an entry takes, not what it is worth. For entries that are expensive to compute,
//! set a [`Priority`] with [`insert_with`](Cache::insert_with). [`EvictionPolicy`] selects whether
//! the cache maximises the entries hit or the cost (say, bytes) hit. The
//! [guide](docs::guide#choosing-a-cost) compares the choices.
//!
//! # Time
//!
//! [`ttl`](CacheBuilder::ttl) sets how long every entry lives after it was written, and
//! [`insert_with_ttl`](Cache::insert_with_ttl) how long one entry lives. [`tti`](CacheBuilder::tti)
//! sets how long an entry lives after its last use. [`Expiry`] computes the lifetime of each entry
//! from its key and value. From its deadline on an entry is a miss. A plain insert sets a new
//! deadline; [`replace`](Cache::replace), [`update`](Cache::update) and [`compute`](Cache::compute)
//! keep the deadline, unless an `Expiry` says otherwise.
//!
//! ```
//! use std::time::Duration;
//! use cortado::{Cache, ManualClock};
//!
//! let clock = ManualClock::new();
//! let minute = Duration::from_secs(60);
//! let cache = Cache::builder().max_cost(10).ttl(minute).clock(clock.clone()).build()?;
//! cache.insert("k", 1);
//! clock.advance(minute / 2);
//! assert!(cache.update("k", |n| n + 1));
//! assert_eq!(cache.get("k").unwrap().ttl(), Some(minute / 2));
//! clock.advance(minute / 2);
//! assert!(cache.get("k").is_none());
//! # Ok::<(), cortado::BuildError>(())
//! ```
//!
//! # Loading
//!
//! Of all threads and tasks that ask for a missing key with a loader, one loads it and the others
//! wait. All of them get the value, even if the cache rejects it. If the loader panics, fails or is
//! dropped, one of the waiting callers takes over with its own loader. An error is returned to the
//! caller whose loader failed, and inserts nothing.
//!
//! A write that completes while its key is loaded invalidates the load, and nothing else does. The
//! loaded value is returned to the callers that asked before the write, and is not kept; callers
//! that ask after the write load again. A call that changes nothing is not a write, and neither is
//! expiration or eviction.
//!
//! [`claim`](Cache::claim) is the underlying primitive: it limits the wait, and lets any thread or
//! task fill the entry. A blocking loader blocks its thread while another caller loads. In a task,
//! use an async loader: a thread that blocks on a task that only it can poll waits forever
//! ([more](Cache#loading)).
//!
//! ```
//! let cache = cortado::Cache::new(10);
//! let parse = |text: &'static str| cache.try_get_or_insert_with(text, || text.parse::<u32>());
//! assert_eq!(*parse("4").unwrap(), 4);
//! assert!(parse("four").is_err());
//! assert_eq!(cache.len(), 1);
//! ```
//!
//! # Async
//!
//! Reads and writes do not wait, so they have no async variants; loaders do. A [`ValueRef`] pins
//! its thread and is not `Send`: it cannot be held across an `.await` in a task that moves between
//! threads. Clone the value with [`get_cloned`](Cache::get_cloned); keep values that are expensive
//! to clone in an `Arc`. The crate depends on no runtime.
//!
//! ```
//! # #[tokio::main]
//! # async fn main() {
//! use std::sync::Arc;
//!
//! let cache: cortado::Cache<u32, Arc<str>> = cortado::Cache::new(10);
//! let task = tokio::spawn({
//!     let cache = cache.clone();
//!     async move { cache.get_or_insert_async(7, async { "seven".into() }).await }
//! });
//! assert_eq!(&*task.await.unwrap(), "seven");
//! assert_eq!(cache.get_cloned(&7).as_deref(), Some("seven"));
//! # }
//! ```
//!
//! # Reading several keys
//!
//! [`get_many`](Cache::get_many) is the fastest way to read several keys: it hashes a batch of keys
//! ahead and overlaps their memory accesses. [`pin`](Cache::pin) returns a guard whose references
//! all live as long as it does. Like a `ValueRef`, a pin should be short: entries that are removed
//! while it lives are not freed.
//!
//! ```
//! let cache = cortado::Cache::new(10);
//! for k in 0..3 {
//!     cache.insert(k, k * 10);
//! }
//! let mut found = Vec::new();
//! cache.get_many(&[0, 2, 4], |_, value| found.push(value.copied()));
//! assert_eq!(found, [Some(0), Some(20), None]);
//!
//! let pinned = cache.pin();
//! assert_eq!(pinned.get(&1).zip(pinned.get(&2)), Some((&10, &20)));
//! assert_eq!(pinned.keys().count(), 3);
//! ```
//!
//! # Maintenance
//!
//! By default each cache has a maintenance thread, which keeps a little of the budget free, removes
//! expired entries and frees removed ones. It sleeps when there is nothing to do. While garbage
//! waits for a reader, it retries at growing intervals, and is woken when the reader unpins. With
//! [`Maintenance::Manual`] there is no thread: inserts make their own room, and
//! [`tick`](Cache::tick) does a slice of the remaining work when you call it.
//! [`build_manual`](CacheBuilder::build_manual) is for keys and values that borrow.
//!
//! ```
//! use cortado::{Cache, Maintenance, WorkLimit};
//!
//! let cache = Cache::builder().max_cost(10).maintenance(Maintenance::Manual).build()?;
//! for k in 0..100 {
//!     assert!(cache.insert(k, k).is_in());
//! }
//! cache.tick(WorkLimit::ALL);
//! assert!(cache.len() <= 10);
//! # Ok::<(), cortado::BuildError>(())
//! ```
//!
//! # Dropping a cache
//!
//! Dropping the last handle stops the thread, drops every value, and never waits for user code: if
//! the thread is running a destructor, a listener or a clock, it drops the remaining values itself,
//! soon after. [`Cache::close`] waits for that.
//!
//! ```
//! use std::sync::Arc;
//!
//! let (cache, value) = (cortado::Cache::new(10), Arc::new("value"));
//! cache.insert(1, Arc::clone(&value));
//! cache.remove(&1);
//! assert!(cache.close());
//! assert_eq!(Arc::strong_count(&value), 1);
//! ```
//!
//! # Performance
//!
//! A hit hashes the key, reads a cache line of the table and the entry, and allocates nothing. It
//! writes its bucket's line at most once in each step of the access clock, and rarely a ring, a
//! stripe's counter or the clock. A step lasts for 1/64 as many accesses as there are entries. With [`metrics`](CacheBuilder::metrics) a hit also counts in a stripe of its own.
//!
//! The README compares speed, latency and memory with other caches, with command, machine and
//! spread; `docs/benchmarks.md` has the charts, and [`docs::design`] the hit ratios.
//!
//! # When not to use it
//!
//! * Where no entry may be lost: any entry may be evicted, and any insert rejected. Use a map.
//! * Where values are changed in place: each change creates a new entry.
//! * On one thread, or where raw speed for small values decides: a table that stores values inline
//!   is faster.
//! * Where readers hold values for a long time: clone them, or store `Arc`s.
//! * Across processes or on disk, or on targets without 64-bit atomics. (A process that forks must
//!   build its caches after the fork: the child has none of the threads.)

#![cfg_attr(docsrs, feature(doc_cfg))]
// loom builds only the leaf modules; the rest has too many states to explore. shuttle builds all.
// The leaf modules export more to their model tests and benches than the cache calls. Only a build
// with `__internals`, which exposes them, warns of items that have no caller.
#![cfg_attr(any(cortado_loom, cortado_shuttle), allow(dead_code, unused_imports))]
#![cfg_attr(not(feature = "__internals"), allow(dead_code, unused_imports))]

#[cfg(not(target_has_atomic = "64"))]
compile_error!("cortado needs a target with 64-bit atomics: buckets and counters are 64-bit words");

#[macro_use]
mod mutant;

mod budget;
#[cfg(not(cortado_loom))]
mod cache;
mod clock;
mod config;
#[cfg(not(cortado_loom))]
mod engine;
mod entry;
mod error;
mod expiry;
#[cfg(not(cortado_loom))]
pub mod integrations;
mod metrics;
mod outcome;
mod policy;
#[allow(unsafe_code)]
mod primitives;
#[allow(unsafe_code)]
mod reclaim;
mod singleflight;
mod sketch;
#[allow(unsafe_code)]
mod slab;
mod sync;
#[allow(unsafe_code)]
mod table;
#[cfg(not(cortado_loom))]
mod trace;
mod util;

#[cfg(not(cortado_loom))]
pub use crate::{
    cache::{
        BorrowedKey, Cache, CacheBuilder, CacheRef, Claim, Cloned, ComputeOp, DefaultHashBuilder,
        EntryInfo, EntryKey, Export, ExportedEntry, FillGuard, ImportReport, InsertOptions, Iter,
        OwnedKey, ValueRef, WaitPolicy, entry::Entry,
    },
    engine::{Expiry, MemoryUse, RemovalCause, Removed, StalledReader, WorkLimit, WorkReport},
    outcome::{ComputeResult, Insert, RejectReason},
};
pub use crate::{
    clock::{Clock, ManualClock, SystemClock},
    config::{Config, EvictionPolicy, Maintenance, Priority},
    error::{BuildError, TtlError},
    metrics::{DurationHistogram, Metrics},
    util::{IdentityHash, IdentityHasher},
};
pub use equivalent::Equivalent;

/// The internal modules, for this repository's benches and model tests.
#[cfg(feature = "__internals")]
#[doc(hidden)]
#[allow(missing_docs)]
pub mod __internals {
    macro_rules! open {
        ($($module:ident),* $(,)?) => {
            $(pub mod $module { pub use crate::$module::*; })*
        };
    }
    open!(
        budget,
        entry,
        expiry,
        metrics,
        primitives,
        reclaim,
        singleflight,
        sketch,
        slab,
        sync,
        table,
        util
    );
}

/// Pages of the repository's `docs` directory. They are in the documentation only: no other build
/// has this module.
#[cfg(any(doc, doctest))]
pub mod docs {
    // A page defines its links, as files, at its end. These definitions come first, so rustdoc uses
    // them: links to modules, or for a file that is no module to its source.
    #[doc = "[near]: crate::docs::near"]
    #[doc = "[stretto]: crate::docs::migrating#from-stretto-and-ristretto"]
    #[doc = ""]
    #[doc = include_str!("../docs/guide.md")]
    pub mod guide {}

    #[doc = include_str!("../docs/migrating.md")]
    pub mod migrating {}

    macro_rules! source {
        ($label:literal, $file:literal) => {
            concat!("[", $label, "]: https://docs.rs/crate/cortado/latest/source/docs/", $file)
        };
    }

    #[doc = "[near.md]: crate::docs::near"]
    #[doc = source!("decisions", "decisions/README.md")]
    #[doc = source!("0003", "decisions/0003-making-room.md")]
    #[doc = source!("0005", "decisions/0005-recording-a-hit.md")]
    #[doc = source!("0009", "decisions/0009-policy-tuner.md")]
    #[doc = source!("0025", "decisions/0025-choice-of-victims.md")]
    #[doc = ""]
    #[doc = include_str!("../docs/design.md")]
    pub mod design {}

    #[doc = include_str!("../docs/near.md")]
    pub mod near {}
}

/// The examples of the README, as doc tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct ReadmeExamples;
