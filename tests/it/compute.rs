//! `compute`, `update`, `replace_if`, `retain`: one key at a time, and no update lost.

use std::thread;

use cortado::{Computed, Insert, Maintenance, Op, Priority, Reject};

use crate::{
    builder,
    support::{BOTH, audit},
};

#[test]
fn increments_of_many_threads_are_all_counted() {
    let (threads, each, keys) = (8, 125_000u64, 4);
    for maintenance in BOTH {
        let cache = builder(1000, maintenance).build().unwrap();
        for key in 0..keys {
            assert!(cache.insert(key, 0u64).is_in());
        }
        thread::scope(|scope| {
            for thread in 0..threads {
                let cache = &cache;
                scope.spawn(move || {
                    for i in 0..each {
                        let key = (i + thread) % keys;
                        if thread % 2 == 0 {
                            assert!(cache.update(&key, |n| n + 1));
                        } else {
                            let add = |n: Option<&u64>| Op::Put(n.copied().unwrap_or(0) + 1);
                            assert_eq!(cache.compute(key, add), Computed::Updated);
                        }
                    }
                });
            }
        });
        let sum: u64 = (0..keys).map(|key| cache.get_cloned(&key).unwrap()).sum();
        assert_eq!(sum, threads * each);
        assert_eq!(cache.cost(), keys);
        audit(&cache);
    }
}

#[test]
fn compute_does_what_it_is_told() {
    let cache = builder(10, Maintenance::Manual).cost_of(|_, v: &u64| *v).build().unwrap();
    assert_eq!(
        cache.compute(1, |seen| if seen.is_none() { Op::Keep } else { Op::Remove }),
        Computed::Kept
    );
    assert_eq!(cache.compute(1, |_| Op::Put(3)), Computed::Inserted);
    assert_eq!(cache.compute(1, |seen| Op::Put(seen.unwrap() + 1)), Computed::Updated);
    assert_eq!((cache.get_cloned(&1), cache.cost()), (Some(4), 4));
    assert_eq!(cache.compute(1, |_| Op::Put(11)), Computed::Rejected(11, Reject::TooCostly));
    assert_eq!((cache.get_cloned(&1), cache.cost()), (None, 0));
    assert_eq!(cache.compute(1, |_| Op::Put(5)), Computed::Inserted);
    assert_eq!(cache.compute(1, |_| Op::Remove), Computed::Removed);
    assert_eq!((cache.len(), cache.cost()), (0, 0));
}

#[test]
fn update_recharges_and_keeps_the_priority() {
    let cache = builder(10, Maintenance::Manual).cost_of(|_, v: &u64| *v).build().unwrap();
    let high = cortado::InsertOptions::new().priority(Priority::High);
    assert!(cache.insert_with(1, 2, high).is_in());
    assert!(cache.update(&1, |v| v * 2));
    assert_eq!((cache.cost(), cache.entry_info(&1).unwrap().priority), (4, Priority::High));
    assert!(!cache.update(&1, |_| 11), "too costly: the entry is out of date, and goes");
    assert_eq!((cache.cost(), cache.len()), (0, 0));
}

#[test]
fn closure_may_use_the_cache_and_is_asked_again_after_a_change() {
    let cache = builder(10, Maintenance::Manual).build().unwrap();
    assert!(cache.insert(1, 1).is_in());
    let mut asked = 0;
    let done = cache.compute(1, |seen| {
        asked += 1;
        if asked == 1 {
            assert_eq!(cache.insert(1, 5), Insert::Updated);
        }
        Op::Put(seen.unwrap() * 10)
    });
    assert_eq!((done, asked, cache.get_cloned(&1)), (Computed::Updated, 2, Some(50)));
    let mut asked = 0;
    let done = cache.compute(1, |seen| {
        asked += 1;
        if asked == 1 {
            drop(cache.remove(&1));
        }
        if seen.is_some() { Op::Remove } else { Op::Keep }
    });
    assert_eq!((done, asked), (Computed::Kept, 2));
}

#[test]
fn replace_if_keeps_what_is_there() {
    let cache =
        builder(10, Maintenance::Manual).replace_if(|_, old, new| new > old).build().unwrap();
    assert_eq!(cache.insert(1, 2), Insert::Inserted);
    assert_eq!(cache.insert(1, 1), Insert::Rejected(1, Reject::Kept));
    assert_eq!(cache.replace(1, 2), Err(2));
    assert_eq!(cache.replace(1, 3), Ok(()));
    assert!(cache.update(&1, |v| v - 3), "who has seen the old value may do as it likes");
    assert_eq!((cache.get_cloned(&1), cache.cost()), (Some(0), 1));
}

#[test]
fn retain_removes_exactly_what_it_is_told_to() {
    for maintenance in BOTH {
        let cache = builder(2000, maintenance).build().unwrap();
        for key in 0..1000u64 {
            assert!(cache.insert(key, key * 2).is_in());
        }
        // A full bucket may have evicted one or two.
        let stays = (0..1000).filter(|key| key % 3 == 0 && cache.contains_key(key));
        let stays: Vec<u64> = stays.collect();
        cache.retain(|key, value| {
            assert_eq!(*value, key * 2);
            key % 3 == 0
        });
        assert_eq!((cache.len(), cache.cost()), (stays.len(), stays.len() as u64));
        assert!(stays.iter().all(|key| cache.contains_key(key)));
        audit(&cache);
    }
}
