//! A lock-free, in-process, cost-budgeted cache.
//!
//! ```
//! use cortado::{Cache, Insert};
//!
//! // A budget of 1000; an entry costs 1 unless told otherwise.
//! let cache = Cache::new(1000);
//! assert_eq!(cache.insert("key", 1), Insert::Inserted);
//! assert_eq!(cache.get("key").as_deref(), Some(&1));
//! assert_eq!(cache.get_cloned("absent"), None);
//!
//! // One caller loads, others of the same key wait for it.
//! assert_eq!(*cache.get_or_insert_with("loaded", || 2), 2);
//! assert!(cache.cost() <= cache.max_cost());
//! ```
//!
//! [`Cache`] is the one type, for threads and tasks alike; a clone of it is a handle to the same cache. A
//! [`get`](Cache::get) takes no lock and never waits. The repository has `examples/`, among them one
//! for those who come from moka.
//!
//! # Consistency
//!
//! * **Writes are decided and visible when they return.** After [`Insert::Inserted`] or [`Insert::Updated`]
//!   the next read by any thread sees that value, or a newer one, or its eviction: you read your own
//!   writes. After [`remove`](Cache::remove) no call finds the entry.
//! * **A refusal is an answer.** [`Insert::Rejected`] hands the value back and says why. An older value of
//!   the key is then removed, for it is out of date; only where the builder's
//!   [`replace_if`](CacheBuilder::replace_if) refused it does it stay.
//! * **A value is never changed in place.** Who holds a [`ValueRef`] goes on seeing the value that was
//!   there; a new one is another entry. [`update`](Cache::update) and [`compute`](Cache::compute) compare
//!   and swap, and lose no update.
//! * **Iteration is weakly consistent.** [`CacheRef::iter`] sees every entry that is there all the while, and
//!   may or may not see one that comes or goes concurrently. It is no snapshot. It sees an entry once, or twice
//!   if the table is resized at that very moment.
//! * **What is deferred** is the policy's counting, the freeing of what was removed, and the calls of
//!   [`on_remove`](CacheBuilder::on_remove). [`flush`](Cache::flush) brings them up to date.
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
//! The budget is the limit of the sum of all entries' costs, in a unit of your choice. An insert charges
//! first and publishes after, so the sum is never above it, not for an instant. Memory that was removed and
//! is still looked at by a reader is beside the budget: it is metered
//! ([`MemoryUse::garbage`](MemoryUse)) and has its own limit ([`CacheBuilder::max_garbage`]).
//! [`Cache::stalled_readers`] names the threads that hold it back.
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
//! A cost is what an entry takes, not what it is worth. What is expensive to compute gets a [`Priority`], with
//! [`insert_with`](Cache::insert_with). Whether entries or bytes are to be hit is said by [`EvictionPolicy`].
//! `docs/GUIDE.md` compares the choices.
//!
//! # Time
//!
//! [`ttl`](CacheBuilder::ttl) lets every entry live for a time after it was written,
//! [`insert_with_ttl`](Cache::insert_with_ttl) one entry, [`tti`](CacheBuilder::tti) after its last use, and
//! [`Expiry`] each by its key and value. From its deadline on an entry is a miss. A plain insert starts over;
//! [`replace`](Cache::replace), [`update`](Cache::update) and [`compute`](Cache::compute) keep the deadline,
//! unless an `Expiry` says otherwise.
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
//! Of all threads and tasks that ask for a key with a loader, one loads and the others wait for it;
//! all of them get the value, even where the cache does not let it in. If the loader panics, fails
//! or is dropped, one of those who wait takes over with its own. An error is returned to the caller
//! whose loader it was, and inserts nothing.
//!
//! A write that completes while its key is loaded invalidates the load, and nothing else does: a
//! value that was loaded before the write is returned to those who asked before it, and is not
//! kept; those who ask after the write load again. A call that changes nothing is no write; nor is
//! expiration or eviction.
//!
//! [`claim`](Cache::claim) is the primitive underneath: it does not wait longer than you say, and
//! lets you fill the entry wherever you like. A loader that is not async blocks its thread while
//! another caller loads; in a task call the async one: a thread that waits for a task of its own
//! waits for ever ([more](Cache#loading)).
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
//! Reads and writes do not wait, so they have no async twins; loaders have. A [`ValueRef`] pins its thread
//! and is not `Send`: it cannot be held across an `.await` in a task that moves between threads. Clone the
//! value out with [`get_cloned`](Cache::get_cloned); put what is expensive to clone in an `Arc`. No runtime is
//! depended on.
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
//! [`get_many`](Cache::get_many) hashes a batch of keys ahead and lets their reads of memory overlap: the
//! fastest way. [`pin`](Cache::pin) makes references that live together. Like a `ValueRef`, keep a pin short:
//! what is removed while it lives is not freed.
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
//! By default each cache has a thread, which keeps a little of the budget free, removes what has expired and
//! frees what was removed. It sleeps when there is nothing to do; while garbage waits for a reader it comes back
//! less and less often, and is woken when the reader has gone. With [`Maintenance::Manual`] there is none:
//! inserts make their own room, and [`tick`](Cache::tick) does a slice of the rest when you call it.
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
//! Dropping the last handle stops the thread, drops every value, and never waits for user code: where the thread
//! is in the middle of a destructor, a listener or a clock, it drops the rest itself, soon after.
//! [`Cache::close`] waits for that.
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
//! A hit hashes the key, reads a line of the table and the entry, and allocates nothing. It writes no line
//! that others share, but for the access bits in the bucket, once while 1/64 of as many accesses pass as there
//! are entries. With [`metrics`](CacheBuilder::metrics) it also counts in a stripe of its own.
//!
//! The README's table: 8.5 million operations a second on one thread, where quick_cache has 12.4 and foyer 5.8;
//! a million keys, one set in five operations, 97 % hits, an AMD EPYC. Spread, command and other numbers of
//! threads are there.
//!
//! Hits alone, all keys alike, one thread, millions a second: 29.5 of 1000 entries, 5.1 of 100 000, 3.2 of a
//! million, where each is some misses of memory (`docs/decisions/0008`, with the command; it names no
//! machine, so read the ratios). Hit ratios are in `docs/POLICY.md`.
//!
//! # When not to use it
//!
//! * Where nothing may be lost: any entry may be evicted, and an insert rejected. Take a map.
//! * Where values are changed in place: each change makes a new entry.
//! * On one thread, or where raw speed of small values decides: a table that stores them inline is faster.
//! * Where readers hold on to values for long: clone them out, or keep `Arc`s.
//! * Across processes, or on disk; or where the machine lacks 64-bit atomics. (A process that forks builds its
//!   caches after that: the child has none of the threads.)

#![cfg_attr(docsrs, feature(doc_cfg))]
// A build for loom has the parts, and not what is built of them, which is more than it can explore; shuttle gets all.
// The parts offer their model tests and benches more than the cache calls; a build that opens them shows what nobody
// calls.
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
        BorrowedKey, Cache, CacheBuilder, CacheRef, Claim, Cloned, ComputeOp, ComputeResult,
        DefaultHashBuilder, EntryInfo, EntryKey, Export, ExportedEntry, FillGuard, ImportReport,
        InsertOptions, Iter, OwnedKey, ValueRef, WaitPolicy, entry::Entry,
    },
    engine::{
        Expiry, Insert, MemoryUse, RejectReason, RemovalCause, Removed, StalledReader, WorkLimit,
        WorkReport,
    },
};
pub use crate::{
    clock::{Clock, ManualClock, SystemClock},
    config::{Config, EvictionPolicy, Maintenance, Priority},
    error::{BuildError, TtlError},
    metrics::{DurationHistogram, Metrics},
    util::{IdentityHash, IdentityHasher},
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

/// The programs of the README, as doc tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct ReadmeExamples;
