//! Storms: every kind of call at once, with many more threads than cores. All invariants are
//! checked at the end.
//!
//! `CORTADO_TEST_SCALE=100 cargo test --release --test stress -- --nocapture --test-threads 1` runs
//! a hundred times as many threads; `CORTADO_TEST_SEED` sets the seed, which is printed.

#[path = "support/mod.rs"]
mod support;

#[path = "support/storm.rs"]
mod storm;

use std::{thread, time::Duration};

use cortado::{InsertOptions, Maintenance, ManualClock, Priority, WorkLimit};
use storm::{Spread, Storm};
use support::{BOTH, scale, seed};

/// Threads started in the course of a storm.
fn threads() -> u64 {
    384 * scale()
}

fn storm(name: &'static str, maintenance: Maintenance) -> Storm {
    Storm {
        name,
        seed: seed(),
        maintenance,
        spread: Spread::Even,
        abreast: 64,
        threads: threads(),
        operations: 60,
        keys: 3000,
        budget: 1000,
        max_garbage: u64::MAX,
        stalled: false,
        listener_calls: true,
    }
}

#[test]
fn storm_of_64_threads_keeps_every_account() {
    for maintenance in BOTH {
        let calm = storm("even", maintenance).run();
        assert!(calm.told > 0 && calm.greatest_cost > 500);
    }
}

#[test]
fn storm_on_few_keys_keeps_every_account() {
    for maintenance in BOTH {
        let calm = Storm { keys: 12, budget: 20, ..storm("few", maintenance) }.run();
        assert!(calm.told > 0);
    }
}

#[test]
fn storm_on_equal_hashes_keeps_every_account() {
    for maintenance in BOTH {
        let storm =
            Storm { spread: Spread::Same, keys: 40, budget: 60, ..storm("same", maintenance) };
        assert!(storm.run().told > 0);
    }
}

#[test]
fn storm_on_hashes_of_low_bits_keeps_every_account() {
    for maintenance in BOTH {
        let storm = Storm { spread: Spread::Low, ..storm("low", maintenance) };
        assert!(storm.run().told > 0);
    }
}

#[test]
fn storm_on_hashes_of_high_bits_keeps_every_account() {
    for maintenance in BOTH {
        let storm = Storm { spread: Spread::High, ..storm("high", maintenance) };
        assert!(storm.run().told > 0);
    }
}

#[test]
fn storm_beside_a_stalled_reader_keeps_every_account() {
    for maintenance in BOTH {
        for max_garbage in [u64::MAX, 500] {
            let storm = Storm { stalled: true, max_garbage, ..storm("stalled", maintenance) };
            let calm = storm.run();
            // Nothing is freed while the reader is pinned, so the limit is reached.
            assert!(calm.greatest_garbage > 400, "{}", calm.greatest_garbage);
        }
    }
}

#[test]
fn deadlines_that_many_threads_set_are_all_met() {
    // Their hashes used to go through lossy rings, so that an occasional entry never expired.
    const THREADS: u64 = 64;
    const ENTRIES: u64 = 200;
    for _ in 0..threads() / 24 {
        let clock = ManualClock::new();
        let cache = support::builder(u64::MAX, Maintenance::Manual)
            .expected_entries(50_000) // so that no bucket is full
            .clock(clock.clone())
            .build()
            .unwrap();
        thread::scope(|scope| {
            for thread in 0..THREADS {
                let cache = &cache;
                scope.spawn(move || {
                    for entry in 0..ENTRIES {
                        let ttl = Duration::from_secs(1);
                        let options = InsertOptions::new().ttl(ttl).priority(Priority::Pinned);
                        assert!(cache.insert_with(thread * ENTRIES + entry, (), options).is_in());
                    }
                });
            }
        });
        clock.advance(Duration::from_secs(1));
        while cache.tick(WorkLimit::ALL).expired > 0 {}
        assert_eq!((cache.len(), cache.cost()), (0, 0), "entries whose time is over");
    }
}
