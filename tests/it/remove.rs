//! Removal.

use std::{
    sync::atomic::{AtomicU64, Ordering::SeqCst},
    thread,
};

use cortado::{Maintenance, WorkLimit};

use crate::{
    builder,
    support::{BOTH, Random, audit, seed, settle},
};

#[test]
fn removed_value_is_returned_and_remains_readable() {
    for maintenance in BOTH {
        let cache = builder(10, maintenance).build().unwrap();
        cache.insert(1, "one".to_string());
        let removed = cache.remove(&1).unwrap();
        assert!(!cache.contains_key(&1) && cache.is_empty() && cache.cost() == 0);
        for _ in 0..10 {
            cache.tick(WorkLimit::ALL);
        }
        assert_eq!((removed.as_str(), *removed.key(), removed.cost()), ("one", 1, 1));
        assert_eq!(cache.memory().garbage_entries, 1);
        assert!(cache.remove(&1).is_none());
        drop(removed);
        assert_eq!(settle(&cache).garbage, 0);
        assert_eq!(cache.metrics().removes, 1);
    }
}

#[test]
fn remove_if_asks_the_value() {
    let cache = builder(10, Maintenance::Manual).build().unwrap();
    cache.insert(1, 5);
    assert!(cache.remove_if(&1, |value| *value > 5).is_none());
    assert!(cache.remove_if(&2, |_| panic!("there is nothing to ask about")).is_none());
    assert_eq!(cache.remove_if(&1, |value| *value == 5).as_deref(), Some(&5));
    assert!(cache.is_empty());
    audit(&cache);
}

#[test]
fn clear_takes_everything_out() {
    for maintenance in BOTH {
        let cache = builder(10_000, maintenance).build().unwrap();
        for round in 0..3u64 {
            for key in 0..5000u64 {
                assert!(cache.insert_with_cost(key, round, key % 3).is_in());
            }
            let held = cache.get(&4999);
            cache.clear();
            assert_eq!((cache.len(), cache.cost(), cache.pin().iter().count()), (0, 0, 0));
            if let Some(held) = held {
                assert_eq!(*held, round);
            }
        }
        settle(&cache);
        audit(&cache);
    }
}

#[test]
fn of_many_removers_one_gets_the_entry() {
    for maintenance in BOTH {
        let cache = builder(10_000, maintenance).build().unwrap();
        for key in 0..1000u64 {
            assert!(cache.insert(key, key).is_in());
        }
        let there = cache.len() as u64;
        let (removed, sum) = (AtomicU64::new(0), AtomicU64::new(0));
        thread::scope(|scope| {
            for remover in 0..4 {
                let (cache, removed, sum) = (&cache, &removed, &sum);
                scope.spawn(move || {
                    for key in 0..1000u64 {
                        let taken = match (key + remover) % 2 {
                            0 => cache.remove(&key),
                            _ => cache.remove_if(&key, |_| true),
                        };
                        if let Some(value) = taken {
                            assert_eq!(*value, key);
                            removed.fetch_add(1, SeqCst);
                            sum.fetch_add(key, SeqCst);
                        }
                    }
                });
            }
        });
        assert_eq!(removed.load(SeqCst), there);
        assert!(cache.is_empty());
        audit(&cache);
    }
}

#[test]
fn remove_if_never_takes_a_value_that_it_did_not_ask_about() {
    let seed = seed();
    let cache = builder(100, Maintenance::Manual).build().unwrap();
    thread::scope(|scope| {
        for writer in 0..2u64 {
            let cache = &cache;
            scope.spawn(move || {
                let mut random = Random::new(seed + writer);
                for _ in 0..20_000 {
                    cache.insert(random.below(4), random.next());
                }
            });
        }
        let cache = &cache;
        scope.spawn(move || {
            for turn in 0..20_000u64 {
                let mut asked = 0;
                let taken = cache.remove_if(&(turn % 4), |value| {
                    asked = *value;
                    value % 2 == 0
                });
                if let Some(value) = taken {
                    assert!(*value == asked && asked % 2 == 0);
                }
            }
        });
    });
    settle(&cache);
    audit(&cache);
}

#[test]
fn key_can_be_inserted_again_after_every_kind_of_removal() {
    let cache = builder(10, Maintenance::Manual).build().unwrap();
    for round in 0..100u64 {
        assert!(cache.insert(1, round).is_in());
        assert_eq!(cache.get_cloned(&1), Some(round));
        match round % 4 {
            0 => assert!(cache.remove(&1).is_some()),
            1 => assert!(cache.remove_if(&1, |_| true).is_some()),
            2 => cache.clear(),
            _ => assert!(!cache.insert_with_cost(1, 0, 11).is_in()),
        }
        assert_eq!(cache.get_cloned(&1), None);
    }
}

#[test]
fn drain_shows_each_entry_once_and_leaves_nothing() {
    for maintenance in BOTH {
        let cache = builder(10_000, maintenance).build().unwrap();
        (0..5000u64).for_each(|key| assert!(cache.insert(key, key * 3).is_in()));
        let held: Vec<u64> = cache.pin().keys().copied().collect();
        let mut shown = Vec::new();
        cache.drain(|key, value| {
            assert_eq!(*value, key * 3);
            shown.push(*key);
        });
        shown.sort_unstable();
        let mut held = held;
        held.sort_unstable();
        assert_eq!(shown, held);
        assert_eq!((cache.len(), cache.cost(), cache.pin().iter().count()), (0, 0, 0));
    }
}

#[test]
fn drain_that_panics_has_removed_everything() {
    let cache = builder(100, Maintenance::Manual).build().unwrap();
    (0..50u64).for_each(|key| assert!(cache.insert(key, key).is_in()));
    let drained = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        cache.drain(|_, _| panic!("shown"));
    }));
    assert!(drained.is_err());
    assert_eq!((cache.len(), cache.cost()), (0, 0));
    assert!(cache.insert(1, 1).is_in());
}
