//! The whole cache under shuttle: the storms of `tests/stress.rs` at a small size, with a
//! thousand schedules each.
//!
//! The whole cache is too large for loom to explore.
#![cfg(cortado_shuttle)]

mod common;

#[path = "../../tests/support/storm.rs"]
mod storm;
#[path = "../../tests/support/mod.rs"]
mod support;

use common::{Bounds, explore_within};
use cortado::{
    __internals::{
        reclaim,
        sync::{
            Arc,
            atomic::{AtomicU64, Ordering::SeqCst},
            thread,
        },
    },
    Cache, Maintenance,
};
use storm::{Spread, Storm};

fn explore(storm: impl Fn(u64) -> Storm + Send + Sync + 'static) {
    use shuttle::rand::Rng;

    explore_within(Bounds { preemptions: None, seconds: 0, schedules: 500 }, move || {
        reclaim::reset();
        storm(shuttle::rand::thread_rng().r#gen()).run();
    });
}

fn small(maintenance: Maintenance, seed: u64) -> Storm {
    Storm {
        name: "small",
        seed,
        maintenance,
        spread: Spread::Even,
        abreast: 3,
        threads: 4,
        operations: 6,
        keys: 4,
        budget: 6,
        max_garbage: u64::MAX,
        stalled: false,
        listener_calls: true,
    }
}

#[test]
fn storm_without_a_thread_keeps_every_account() {
    explore(|seed| small(Maintenance::Manual, seed));
}

#[test]
fn storm_beside_the_thread_keeps_every_account() {
    explore(|seed| small(Maintenance::Thread, seed));
}

/// One bucket, and more keys than it has slots: they displace each other, and the table cannot
/// grow.
#[test]
fn storm_in_one_full_bucket_keeps_every_account() {
    explore(|seed| Storm {
        spread: Spread::Same,
        keys: 12,
        budget: 40,
        ..small(Maintenance::Manual, seed)
    });
}

/// The table grows while it is read and written, and shrinks when it is cleared.
#[test]
fn storm_while_the_table_moves_keeps_every_account() {
    explore(|seed| Storm {
        spread: if seed % 2 == 0 { Spread::Low } else { Spread::High },
        keys: 24,
        operations: 10,
        budget: 60,
        ..small(Maintenance::Manual, seed)
    });
}

#[test]
fn storm_beside_a_stalled_reader_keeps_every_account() {
    explore(|seed| Storm { stalled: true, max_garbage: 8, ..small(Maintenance::Thread, seed) });
}

/// If the drop waited for the listener, this would deadlock.
#[test]
fn a_drop_meets_a_listener_that_waits_for_it() {
    explore_within(Bounds { preemptions: None, seconds: 0, schedules: 500 }, || {
        reclaim::reset();
        let (dropped, told) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let (is_dropped, count) = (Arc::clone(&dropped), Arc::clone(&told));
        let cache: Cache<u64, u64> = Cache::builder()
            .max_cost(10)
            .on_remove(move |_| {
                while is_dropped.load(SeqCst) == 0 {
                    thread::yield_now();
                }
                count.fetch_add(1, SeqCst);
            })
            .build()
            .unwrap();
        for key in 0..3 {
            assert!(cache.insert(key, key).is_in());
        }
        drop(cache.remove(&0));
        drop(cache.remove(&1));
        drop(cache);
        dropped.store(1, SeqCst);
        while told.load(SeqCst) < 2 {
            thread::yield_now();
        }
    });
}
