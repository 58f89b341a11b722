//! Small and changing budgets.

use std::{
    sync::atomic::{AtomicBool, Ordering::SeqCst},
    thread,
};

use cortado::{Insert, Maintenance, WorkLimit};

use crate::{
    builder,
    support::{BOTH, Random, audit, seed, settle},
};

#[test]
fn tiny_budgets_hold_what_fits() {
    for maintenance in BOTH {
        for max_cost in [1, 2, 3, 10] {
            let cache = builder(max_cost, maintenance).build().unwrap();
            for key in 0..200u64 {
                let insert = cache.insert(key, key);
                assert!(cache.cost() <= max_cost && cache.len() as u64 <= max_cost);
                assert_eq!(insert.is_in(), cache.contains_key(&key));
            }
            settle(&cache);
            audit(&cache);
            assert!(!cache.is_empty(), "a budget of {max_cost} keeps something");
        }
    }
}

#[test]
fn inserts_of_one_thread_alone_are_never_refused() {
    for max_cost in [1, 2, 3, 10, 100] {
        let cache = builder(max_cost, Maintenance::Manual).build().unwrap();
        for key in 0..1000u64 {
            assert_eq!(cache.insert(key, key), Insert::Inserted);
        }
        // The last insert may have found a full bucket, and displaced an entry there after room had
        // been made elsewhere.
        let free = cache.metrics().local_evictions.min(1);
        assert!(cache.cost() >= max_cost - free, "{} of {max_cost} are in use", cache.cost());
    }
}

#[test]
fn lowered_budget_is_kept_when_the_call_returns() {
    for maintenance in BOTH {
        let cache = builder(1000, maintenance).build().unwrap();
        for key in 0..1000u64 {
            cache.insert(key, key);
        }
        for max_cost in [999, 500, 100, 7, 1] {
            cache.set_max_cost(max_cost);
            assert_eq!(cache.max_cost(), max_cost);
            assert!(cache.cost() <= max_cost && cache.len() as u64 <= max_cost);
            audit(&cache);
        }
        cache.set_max_cost(0);
        assert_eq!((cache.cost(), cache.len(), cache.remaining_cost()), (0, 0, 0));
        assert!(!cache.insert(1, 1).is_in());
        cache.set_max_cost(10_000);
        for key in 0..1000u64 {
            assert!(cache.insert(key, key).is_in());
        }
        assert!(cache.len() > 950);
        audit(&cache);
    }
}

#[test]
fn lowered_budget_is_kept_under_load() {
    let seed = seed();
    for maintenance in BOTH {
        let cache = builder(10_000, maintenance).build().unwrap();
        let stop = AtomicBool::new(false);
        thread::scope(|scope| {
            for writer in 0..4 {
                let (cache, stop) = (&cache, &stop);
                scope.spawn(move || {
                    let mut random = Random::new(seed + writer);
                    while !stop.load(SeqCst) {
                        let key = random.below(20_000);
                        cache.insert_with_cost(key, key, random.below(20));
                    }
                });
            }
            let mut random = Random::new(seed);
            let _stop = StopOnDrop(&stop);
            for _ in 0..1000 {
                let max_cost = 1 + random.below(10_000);
                cache.set_max_cost(max_cost);
                thread::yield_now();
                // No other thread moves the limit, and none may exceed it.
                for _ in 0..50 {
                    let cost = cache.cost();
                    assert!(cost <= max_cost, "{cost} of {max_cost}");
                }
            }
        });
        settle(&cache);
        audit(&cache);
    }
}

/// Stops the writers, even if the test fails.
struct StopOnDrop<'a>(&'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, SeqCst);
    }
}

#[test]
fn budget_moved_by_several_threads_ends_where_the_last_put_it() {
    let seed = seed();
    for maintenance in BOTH {
        let cache = builder(1000, maintenance).build().unwrap();
        thread::scope(|scope| {
            for mover in 0..4 {
                let cache = &cache;
                scope.spawn(move || {
                    let mut random = Random::new(seed + mover);
                    for _ in 0..2000 {
                        match random.below(10) {
                            0 => cache.set_max_cost(1 + random.below(1000)),
                            _ => drop(cache.insert(random.below(5000), 0)),
                        }
                    }
                });
            }
        });
        cache.set_max_cost(300);
        assert!(cache.cost() <= 300);
        settle(&cache);
        audit(&cache);
    }
}

#[test]
fn tick_evicts_no_more_than_it_may() {
    let cache = builder(100, Maintenance::Manual).build().unwrap();
    for key in 0..100u64 {
        cache.insert(key, key);
    }
    let ticked = cache.tick(WorkLimit::evictions(5));
    assert_eq!(ticked.evicted, 0, "nothing is too much");
}

#[test]
fn thread_keeps_inserts_out_of_the_making_of_room() {
    // The maintenance thread keeps little free: the budget is used.
    let cache = builder(1000, Maintenance::Thread).build().unwrap();
    for key in 0..20_000u64 {
        cache.insert(key, key);
    }
    settle(&cache);
    assert!(cache.cost() >= 900, "{} of 1000 in use", cache.cost());
    audit(&cache);
}

#[test]
fn inserts_are_not_refused_while_the_table_grows() {
    let cache = builder(10, Maintenance::Manual).expected_entries(0).build().unwrap();
    for key in 0..20_000u64 {
        // Entries of cost 0 make the table grow, and the others have to make room.
        assert_eq!(cache.insert_with_cost(key, key, key % 2), Insert::Inserted);
    }
    assert_eq!(cache.cost(), 10);
    settle(&cache);
    audit(&cache);
}

#[test]
fn budget_is_lowered_in_the_middle_of_a_resize() {
    for entries in (100..700u64).step_by(17) {
        let cache = builder(1 << 20, Maintenance::Manual).expected_entries(0).build().unwrap();
        for key in 0..entries {
            cache.insert(key, key);
        }
        cache.set_max_cost(10);
        assert!(cache.cost() <= 10, "{} after {entries} entries", cache.cost());
    }
}
