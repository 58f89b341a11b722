//! What a user sees, one file for each side of it.
//!
//! The tests run at once, and garbage is freed no sooner than all threads of the process have moved
//! on: no test here may depend on it. Those that do are in `tests/alone.rs`.

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

/// A builder for these tests: other tests' pins never get an insert refused.
fn builder<K, V>(max_cost: u64, maintenance: Maintenance) -> CacheBuilder<K, V> {
    support::builder(max_cost, maintenance).max_garbage(u64::MAX)
}
