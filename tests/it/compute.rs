//! `compute`, `update`, `replace_if`, `retain`: atomic changes of one key, without lost updates.

use std::{
    sync::{Arc, mpsc},
    thread,
    time::{Duration, Instant},
};

use cortado::{
    Cache, ComputeOp, ComputeResult, Insert, InsertOptions, Maintenance, Priority, RejectReason,
};

use crate::{
    builder,
    support::{
        BOTH, audit,
        tasks::{block_on, give_way},
    },
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
                            let add = |n: Option<&u64>| ComputeOp::Put(n.copied().unwrap_or(0) + 1);
                            assert!(cache.compute(key, add).is_changed());
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
fn compute_applies_the_operation() {
    let cache = builder(10, Maintenance::Manual).cost_of(|_, v: &u64| *v).build().unwrap();
    let compute = |f: &dyn Fn(Option<&u64>) -> ComputeOp<u64>| cache.compute(1, f).cloned();
    let keep =
        |seen: Option<&u64>| if seen.is_none() { ComputeOp::Keep } else { ComputeOp::Remove };
    assert_eq!(compute(&keep), ComputeResult::Kept(None));
    assert_eq!(compute(&|_| ComputeOp::Put(3)), ComputeResult::Inserted(3));
    assert_eq!(compute(&|seen| ComputeOp::Put(seen.unwrap() + 1)), ComputeResult::Updated(4));
    assert_eq!(compute(&|_| ComputeOp::Keep), ComputeResult::Kept(Some(4)));
    assert_eq!((cache.get_cloned(&1), cache.cost()), (Some(4), 4));
    assert_eq!(
        compute(&|_| ComputeOp::Put(11)),
        ComputeResult::Rejected(11, RejectReason::TooCostly)
    );
    assert_eq!((cache.get_cloned(&1), cache.cost()), (None, 0));
    assert_eq!(compute(&|_| ComputeOp::Put(5)), ComputeResult::Inserted(5));
    assert_eq!(compute(&|_| ComputeOp::Remove), ComputeResult::Removed(5));
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
        ComputeOp::Put(seen.unwrap() * 10)
    });
    assert_eq!(
        (done.cloned(), asked, cache.get_cloned(&1)),
        (ComputeResult::Updated(50), 2, Some(50))
    );
    let mut asked = 0;
    let done = cache.compute(1, |seen| {
        asked += 1;
        if asked == 1 {
            drop(cache.remove(&1));
        }
        if seen.is_some() { ComputeOp::Remove } else { ComputeOp::Keep }
    });
    assert_eq!((done.cloned(), asked), (ComputeResult::Kept(None), 2));
}

#[test]
fn replace_if_keeps_what_is_there() {
    let cache =
        builder(10, Maintenance::Manual).replace_if(|_, old, new| new > old).build().unwrap();
    assert_eq!(cache.insert(1, 2), Insert::Inserted);
    assert_eq!(cache.insert(1, 1), Insert::Rejected(1, RejectReason::Kept));
    assert_eq!(cache.replace(1, 2), Insert::Rejected(2, RejectReason::Kept));
    assert_eq!(cache.replace(1, 3), Insert::Updated);
    assert!(cache.update(&1, |v| v - 3), "`update` bypasses `replace_if`");
    assert_eq!((cache.get_cloned(&1), cache.cost()), (Some(0), 1));
}

#[test]
fn retain_removes_exactly_what_the_predicate_rejects() {
    for maintenance in BOTH {
        let cache = builder(2000, maintenance).build().unwrap();
        for key in 0..1000u64 {
            assert!(cache.insert(key, key * 2).is_in());
        }
        // One or two may have been evicted from full buckets.
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

#[test]
fn failing_function_changes_nothing() {
    let cache: Cache<u64, u64> = builder(10, Maintenance::Manual).build().unwrap();
    assert_eq!(cache.try_compute(1, |_| Err(7)).map(|done| done.cloned()), Err(7));
    let put = |_: Option<&u64>| Ok::<_, u64>(ComputeOp::Put(2));
    assert_eq!(cache.try_compute(1, put).map(|done| done.cloned()), Ok(ComputeResult::Inserted(2)));
    assert_eq!(cache.try_compute(1, |_| Err(8)).map(|done| done.cloned()), Err(8));
    let failed = block_on(cache.try_compute_async(1, async |_| Err(9)));
    assert_eq!((failed, cache.get_cloned(&1), cache.len()), (Err(9), Some(2), 1));
    // The right to load the key was released.
    let put = async |value: Option<u64>| ComputeOp::Put(value.unwrap() + 1);
    assert_eq!(block_on(cache.compute_async(1, put)), ComputeResult::Updated(3));
}

#[test]
fn task_computes_as_a_thread_does() {
    let cache = builder(10, Maintenance::Manual).cost_of(|_, v: &u64| *v).build().unwrap();
    let compute = |op: ComputeOp<u64>, seen| {
        block_on(cache.compute_async(1, async |value| {
            assert_eq!(value, seen);
            op
        }))
    };
    assert_eq!(compute(ComputeOp::Keep, None), ComputeResult::Kept(None));
    assert_eq!(compute(ComputeOp::Remove, None), ComputeResult::Kept(None));
    assert_eq!(compute(ComputeOp::Put(3), None), ComputeResult::Inserted(3));
    assert_eq!(compute(ComputeOp::Keep, Some(3)), ComputeResult::Kept(Some(3)));
    assert_eq!(compute(ComputeOp::Put(4), Some(3)), ComputeResult::Updated(4));
    assert_eq!((cache.get_cloned(&1), cache.cost()), (Some(4), 4));
    let options = InsertOptions::new().cost(7).priority(Priority::High);
    assert_eq!(compute(ComputeOp::PutWith(5, options), Some(4)), ComputeResult::Updated(5));
    let info = cache.entry_info(&1).unwrap();
    assert_eq!((info.cost, info.priority), (7, Priority::High));
    assert_eq!(compute(ComputeOp::Put(6), Some(5)), ComputeResult::Updated(6));
    assert_eq!(cache.entry_info(&1).unwrap().priority, Priority::High, "what is not named stays");
    assert_eq!(
        compute(ComputeOp::Put(11), Some(6)),
        ComputeResult::Rejected(11, RejectReason::TooCostly)
    );
    assert_eq!((cache.get_cloned(&1), cache.cost()), (None, 0));
    assert_eq!(compute(ComputeOp::Put(5), None), ComputeResult::Inserted(5));
    assert_eq!(compute(ComputeOp::Remove, Some(5)), ComputeResult::Removed(5));
    assert_eq!((cache.len(), cache.cost()), (0, 0));
}

#[test]
fn tasks_lose_no_update_of_one_another_or_of_threads() {
    const EACH: u64 = 500;
    let cache: Arc<Cache<u64, u64>> = Arc::new(builder(10, Maintenance::Manual).build().unwrap());
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(4).build().unwrap();
    let task = |cache: Arc<Cache<u64, u64>>| async move {
        for _ in 0..EACH {
            let add = async |n: Option<u64>| {
                give_way().await;
                ComputeOp::Put(n.unwrap_or(0) + 1)
            };
            assert!(cache.compute_async(1, add).await.is_changed());
        }
    };
    let tasks: Vec<_> = (0..4).map(|_| runtime.spawn(task(Arc::clone(&cache)))).collect();
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                for _ in 0..EACH {
                    let add = |n: Option<&u64>| ComputeOp::Put(n.unwrap_or(&0) + 1);
                    assert!(cache.compute(1, add).is_changed());
                }
            });
        }
    });
    for task in tasks {
        runtime.block_on(task).unwrap();
    }
    assert_eq!(cache.get_cloned(&1), Some(6 * EACH));
}

#[test]
fn write_during_a_computation_makes_the_task_compute_again() {
    let cache: Cache<u64, u64> = builder(10, Maintenance::Manual).build().unwrap();
    assert!(cache.insert(1, 1).is_in());
    type Write = fn(&Cache<u64, u64>);
    let writes: [(Write, Option<u64>); 3] = [
        (|cache| assert!(cache.insert(1, 5).is_in()), Some(5)),
        (|cache| drop(cache.remove(&1)), None),
        (Cache::clear, None),
    ];
    for (write, then) in writes {
        let mut seen = Vec::new();
        let computed = block_on(cache.compute_async(1, |value| {
            seen.push(value);
            if seen.len() == 1 {
                write(&cache);
            }
            async move { ComputeOp::Put(value.map_or(1, |n| n * 10)) }
        }));
        assert_eq!((seen.len(), seen[1]), (2, then));
        assert_eq!(computed.into_entry(), Some(then.map_or(1, |n| n * 10)));
    }
}

#[test]
fn task_whose_entry_is_evicted_concurrently_computes_again() {
    let cache: Cache<u64, u64> = builder(10, Maintenance::Manual).build().unwrap();
    let ops: [fn(Option<u64>) -> ComputeOp<u64>; 3] = [
        |value| ComputeOp::Put(value.unwrap_or(0) + 1),
        |_| ComputeOp::Remove,
        |value| if value.is_some() { ComputeOp::Remove } else { ComputeOp::Put(7) },
    ];
    let expected =
        [ComputeResult::Inserted(1), ComputeResult::Kept(None), ComputeResult::Inserted(7)];
    for (op, expected) in ops.into_iter().zip(expected) {
        assert!(cache.insert(1, 5).is_in());
        let mut seen = Vec::new();
        let computed = block_on(cache.compute_async(1, |value| {
            seen.push(value);
            cache.set_max_cost(0);
            cache.set_max_cost(10);
            async move { op(value) }
        }));
        let entry = computed.into_entry();
        assert_eq!((seen, computed, cache.get_cloned(&1)), (vec![Some(5), None], expected, entry));
    }
}

#[test]
fn task_that_keeps_the_entry_returns_the_value_it_has_read() {
    let cache: Cache<u64, u64> = builder(10, Maintenance::Manual).build().unwrap();
    for seen in [None, Some(5)] {
        let mut calls = 0;
        let computed = block_on(cache.compute_async(1, |value| {
            assert_eq!(value, seen);
            calls += 1;
            assert!(cache.insert(1, value.map_or(5, |n| n + 1)).is_in());
            async { ComputeOp::Keep }
        }));
        assert_eq!((computed, calls), (ComputeResult::Kept(seen), 1));
    }
    assert_eq!(cache.get_cloned(&1), Some(6));
}

#[test]
fn write_that_changes_nothing_makes_no_task_compute_again() {
    let cache: Cache<u64, u64> = builder(10, Maintenance::Manual).build().unwrap();
    assert!(cache.insert(1, 1).is_in());
    let mut calls = 0;
    let computed = block_on(cache.compute_async(1, |value| {
        calls += 1;
        assert!(!cache.insert_if_absent(1, 5).is_in());
        assert!(cache.remove_if(&1, |_| false).is_none());
        cache.compute(1, |_| ComputeOp::Keep);
        async move { ComputeOp::Put(value.unwrap() + 1) }
    }));
    assert_eq!((computed, calls), (ComputeResult::Updated(2), 1));
}

#[test]
fn computations_of_tasks_are_not_counted_as_loads() {
    let cache: Cache<u64, u64> = builder(10, Maintenance::Manual).metrics(true).build().unwrap();
    let put = async |_| ComputeOp::Put(1);
    assert_eq!(block_on(cache.compute_async(1, put)), ComputeResult::Inserted(1));
    let failed = block_on(cache.try_compute_async(1, async |_| Err(9)));
    assert_eq!(failed, Err(9));
    {
        let mut computing = std::pin::pin!(cache.compute_async(1, async |_| {
            std::future::pending::<()>().await;
            ComputeOp::Keep
        }));
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        assert!(std::future::Future::poll(computing.as_mut(), &mut context).is_pending());
    }
    let metrics = cache.metrics();
    assert_eq!((metrics.loads, metrics.load_failures, metrics.load_times.count()), (0, 0, 0));
}

#[test]
fn loaders_wait_for_a_task_that_computes_and_get_what_it_puts() {
    let cache: Cache<u64, u64> = builder(10, Maintenance::Manual).metrics(true).build().unwrap();
    thread::scope(|scope| {
        let cache = &cache;
        let waiting = std::cell::Cell::new(None);
        let computed = block_on(cache.compute_async(1, |_| {
            waiting.set(Some(scope.spawn(|| *cache.get_or_insert_with(1, || unreachable!()))));
            while cache.metrics().coalesced == 0 {
                thread::yield_now();
            }
            async { ComputeOp::Put(7) }
        }));
        assert_eq!(computed, ComputeResult::Inserted(7));
        assert_eq!(waiting.take().unwrap().join().unwrap(), 7);
    });
}

#[test]
fn task_that_is_dropped_while_it_computes_changes_nothing() {
    let cache: Cache<u64, u64> = builder(10, Maintenance::Manual).build().unwrap();
    {
        let mut computing = std::pin::pin!(cache.compute_async(1, async |_| {
            std::future::pending::<()>().await;
            ComputeOp::Put(1)
        }));
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        assert!(std::future::Future::poll(computing.as_mut(), &mut context).is_pending());
    }
    assert_eq!(*cache.get_or_insert_with(1, || 2), 2);
}

#[test]
fn task_that_computes_its_own_key_within_panics() {
    let cache: Cache<u64, u64> = builder(10, Maintenance::Manual).build().unwrap();
    let nested = || {
        block_on(cache.compute_async(1, async |_| {
            cache.compute_async(1, async |_| ComputeOp::Keep).await;
            ComputeOp::Keep
        }))
    };
    assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(nested)).is_err());
    assert_eq!(*cache.get_or_insert_with(1, || 2), 2);
}

#[test]
fn task_computes_when_the_reader_that_held_the_garbage_has_gone() {
    let cache: Cache<u64, u64> = builder(100, Maintenance::Manual).max_garbage(0).build().unwrap();
    assert!(cache.insert(1, 1).is_in());
    let (gone, go) = mpsc::channel::<()>();
    let (held, is_held) = mpsc::channel();
    thread::scope(|scope| {
        let cache = &cache;
        scope.spawn(move || {
            let value = cache.get(&1);
            held.send(()).unwrap();
            go.recv().unwrap();
            drop(value);
        });
        is_held.recv().unwrap();
        let is_rejected =
            |key| matches!(cache.insert(key, key), Insert::Rejected(_, RejectReason::Garbage));
        let rejected = (2..10_000).filter(|&key| is_rejected(key)).take(100).count();
        assert_eq!(rejected, 100);
        gone.send(()).unwrap();
    });
    let put = async |_: Option<u64>| ComputeOp::Put(7);
    let is_in = |key| block_on(cache.compute_async(key, put)) == ComputeResult::Inserted(7);
    // With crossbeam-epoch, pins of other tests delay this cache's garbage: it may take longer.
    let end = Instant::now() + Duration::from_secs(30);
    let is_delayed = |_: &u64| cfg!(feature = "crossbeam-epoch") && Instant::now() < end;
    let is_soon = |key: &u64| *key < 20_010;
    let mut tries = (20_000..).take_while(|key| is_soon(key) || is_delayed(key));
    assert!(tries.any(is_in), "no call looked at the garbage");
    audit(&cache);
}
