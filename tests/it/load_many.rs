//! Loading many keys with one call.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Barrier, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    thread,
};

use cortado::{Cache, Claim, Maintenance, WaitPolicy};

use crate::{builder, support::tasks::block_on};

fn cache() -> Cache<u64, u64> {
    builder(1000, Maintenance::Manual).metrics(true).build().unwrap()
}

fn squares(keys: &[&u64]) -> Vec<(u64, u64)> {
    keys.iter().map(|&&key| (key, key * key)).collect()
}

#[test]
fn missing_keys_are_loaded_in_one_call_and_in_order() {
    let cache = cache();
    cache.insert(3, 30);
    let calls = AtomicUsize::new(0);
    let load = |missing: &[&u64]| {
        calls.fetch_add(1, SeqCst);
        assert_eq!(missing, [&5, &4]);
        squares(missing)
    };
    // Keys that stand there twice are loaded once.
    let values = cache.get_or_insert_many([5, 3, 4, 5, 3], load);
    assert_eq!(values, [25, 30, 16, 25, 30].map(Some));
    assert_eq!(
        cache.get_or_insert_many([5, 4], |_| -> [_; 0] { unreachable!() }),
        [Some(25), Some(16)]
    );
    assert_eq!(cache.get_or_insert_many([], |_| -> [_; 0] { unreachable!() }), []);
    assert_eq!(calls.load(SeqCst), 1);
    let metrics = cache.metrics();
    assert_eq!((metrics.misses, metrics.loads), (2, 2));
}

#[test]
fn keys_without_a_value_stay_missing_and_others_come_in() {
    let cache = cache();
    let values = cache.get_or_insert_many([1, 2], |_| [(2, 20), (9, 90)]);
    assert_eq!(values, [None, Some(20)]);
    assert!(!cache.contains_key(&1));
    assert_eq!(cache.get_cloned(&9), Some(90));
    // The right to load it has been given back.
    assert_eq!(*cache.get_or_insert_with(1, || 10), 10);
}

#[test]
fn error_is_returned_and_the_keys_are_free_again() {
    let cache = cache();
    cache.insert(1, 10);
    let fail = |_: &[&u64]| Err::<[(u64, u64); 0], _>("down");
    assert_eq!(cache.try_get_or_insert_many([1, 2], fail), Err("down"));
    let fail = |_: Vec<u64>| async { Err::<[(u64, u64); 0], _>("down") };
    assert_eq!(block_on(cache.try_get_or_insert_many_async([1, 2], fail)), Err("down"));
    let panics = || cache.get_or_insert_many([2], |_| -> [(u64, u64); 0] { panic!("loader") });
    assert!(catch_unwind(AssertUnwindSafe(panics)).is_err());
    assert_eq!(*cache.get_or_insert_with(2, || 20), 20);
}

#[test]
fn tasks_load_many_keys_too() {
    let cache = cache();
    cache.insert(1, 10);
    let load = |keys: Vec<u64>| async move {
        Ok::<_, ()>(keys.into_iter().map(|key| (key, key * key)).collect::<Vec<_>>())
    };
    let values = block_on(cache.try_get_or_insert_many_async([1, 2, 3], load));
    assert_eq!(values, Ok(vec![Some(10), Some(4), Some(9)]));
    // The future may be sent.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
    let task = runtime.spawn({
        let cache = cache.clone();
        async move { cache.try_get_or_insert_many_async([4], load).await }
    });
    assert_eq!(runtime.block_on(task).unwrap(), Ok(vec![Some(16)]));
}

#[test]
fn each_key_is_loaded_once_though_many_load_overlapping_sets() {
    let cache = cache();
    let loaded = Mutex::new(Vec::new());
    let start = Barrier::new(8);
    thread::scope(|scope| {
        for first in 0..8 {
            let (cache, loaded, start) = (&cache, &loaded, &start);
            scope.spawn(move || {
                start.wait();
                // In opposite orders, so that each has keys that the other wants.
                let mut keys: Vec<u64> = (first..first + 20).collect();
                if first % 2 == 1 {
                    keys.reverse();
                }
                let values = cache.get_or_insert_many(keys.clone(), |missing| {
                    thread::yield_now();
                    loaded.lock().unwrap().extend(missing.iter().map(|key| **key));
                    squares(missing)
                });
                let expected: Vec<_> = keys.iter().map(|key| Some(key * key)).collect();
                assert_eq!(values, expected);
            });
        }
    });
    let mut loaded = loaded.into_inner().unwrap();
    loaded.sort_unstable();
    assert_eq!(loaded, (0..27).collect::<Vec<_>>());
}

#[test]
fn key_whose_other_load_fails_is_loaded_by_the_one_that_waits() {
    let cache = cache();
    let Claim::Fill(guard) = cache.claim(2, WaitPolicy::No) else { unreachable!() };
    let guard = guard.detach();
    thread::scope(|scope| {
        let waiting = scope.spawn(|| {
            let calls = Mutex::new(Vec::new());
            let values = cache.get_or_insert_many([1, 2, 3], |missing| {
                calls.lock().unwrap().push(missing.iter().map(|key| **key).collect::<Vec<_>>());
                squares(missing)
            });
            (values, calls.into_inner().unwrap())
        });
        while cache.metrics().loads < 2 {
            thread::yield_now();
        }
        drop(guard);
        let (values, calls) = waiting.join().unwrap();
        assert_eq!(values, [Some(1), Some(4), Some(9)]);
        assert_eq!(calls, [vec![1, 3], vec![2]]);
    });
}

#[test]
fn callers_of_one_key_wait_for_the_bulk_load_that_has_it() {
    let cache = Arc::new(cache());
    let values = cache.get_or_insert_many([1, 2], |missing| {
        let waiting = thread::spawn({
            let cache = Arc::clone(&cache);
            move || *cache.get_or_insert_with(2, || unreachable!("it is loaded"))
        });
        while cache.metrics().coalesced == 0 {
            thread::yield_now();
        }
        let loaded = squares(missing);
        drop(waiting);
        loaded
    });
    assert_eq!(values, [Some(1), Some(4)]);
}

#[test]
fn loader_that_asks_for_one_of_its_keys_panics_and_does_not_wait() {
    let cache = cache();
    let nested =
        || cache.get_or_insert_many([1, 2], |_| [(1, 1), (2, *cache.get_or_insert_with(1, || 1))]);
    assert!(catch_unwind(AssertUnwindSafe(nested)).is_err());
    // A lazy iterator is part of the load.
    let nested = || {
        let lazy = |_: &[&u64]| {
            (1..3).map(|key| (key, *cache.get_or_insert_with(3 - key, || 1))).collect::<Vec<_>>()
        };
        cache.get_or_insert_many([1, 2], lazy)
    };
    assert!(catch_unwind(AssertUnwindSafe(nested)).is_err());
    assert_eq!(cache.get_or_insert_many([1, 2], squares), [Some(1), Some(4)]);
}
