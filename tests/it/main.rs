//! The public behaviour, one file for each aspect.
//!
//! The tests run concurrently, and garbage is freed only after all threads of the process have
//! unpinned, so no test here may depend on it. Those that do are in `tests/alone.rs`.

mod auto_traits;
mod budget;
mod compute;
mod cost;
mod drop;
mod entry;
mod faults;
mod get_insert;
mod hashers;
mod listener;
mod load_many;
mod loader;
mod manual;
mod panics;
mod pin;
mod priority;
mod refresh;
mod remove;
mod restart;
#[cfg(not(feature = "crossbeam-epoch"))]
mod stalled;
#[path = "../support/mod.rs"]
mod support;
mod ttl;
mod veto;
mod wraps;
mod write_back;

use cortado::{CacheBuilder, Maintenance};

/// A builder for these tests: pins of other tests never cause an insert to be rejected.
fn builder<K, V>(max_cost: u64, maintenance: Maintenance) -> CacheBuilder<K, V> {
    support::builder(max_cost, maintenance).max_garbage(u64::MAX)
}
