//! Loaders: one load per key at a time, and no caller waits forever.

use std::{
    future::pending,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    sync::{
        Arc, Barrier, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    task::{Context, Poll, Waker},
    thread,
    time::Duration,
};

use cortado::{
    Cache, Claim, Clock, ComputeOp, ComputeResult, ExportedEntry, Insert, InsertOptions,
    Maintenance, ManualClock, RemovalCause, Removed, WaitPolicy,
};
use tokio::runtime::{Builder, Runtime};

use crate::{
    builder,
    support::{
        BOTH, forever, settle,
        tasks::{block_on, give_way},
    },
};

type Shared = Arc<Cache<u64, u64>>;

fn shared() -> Shared {
    Arc::new(builder(1000, Maintenance::Manual).build().unwrap())
}

/// The executors that the tests run under.
fn runtimes() -> [Runtime; 2] {
    let many = Builder::new_multi_thread().worker_threads(4).enable_time().build().unwrap();
    let single = Builder::new_current_thread().enable_time().build().unwrap();
    [many, single]
}

#[test]
fn stampede_of_tasks_loads_once() {
    for runtime in runtimes() {
        let (cache, loads) = (shared(), Arc::new(AtomicUsize::new(0)));
        runtime.block_on(async {
            let tasks: Vec<_> = (0..1000)
                .map(|_| {
                    let (cache, loads) = (Arc::clone(&cache), Arc::clone(&loads));
                    tokio::spawn(async move {
                        let load = async {
                            loads.fetch_add(1, SeqCst);
                            for _ in 0..10 {
                                give_way().await;
                            }
                            7
                        };
                        cache.get_or_insert_async(1, load).await
                    })
                })
                .collect();
            for task in tasks {
                assert_eq!(task.await.unwrap(), 7);
            }
        });
        assert_eq!(loads.load(SeqCst), 1);
        let metrics = cache.metrics();
        assert_eq!((metrics.loads, metrics.load_failures), (1, 0));
    }
}

#[test]
fn stampede_of_threads_loads_once() {
    let (cache, loads, together) = (shared(), AtomicUsize::new(0), Barrier::new(16));
    thread::scope(|scope| {
        for _ in 0..16 {
            scope.spawn(|| {
                together.wait();
                let value = cache.get_or_insert_with(1, || {
                    loads.fetch_add(1, SeqCst);
                    (0..100).for_each(|_| thread::yield_now());
                    7
                });
                assert_eq!(*value, 7);
            });
        }
    });
    assert_eq!(loads.load(SeqCst), 1);
}

#[test]
fn thread_and_task_share_a_flight() {
    let cache = shared();
    let Claim::Fill(guard) = cache.claim(1, WaitPolicy::No) else { panic!("no other caller") };
    thread::scope(|scope| {
        let by_thread = scope.spawn(|| *cache.get_or_insert_with(1, || unreachable!()));
        let by_task = scope.spawn(|| {
            block_on(cache.get_or_insert_async(1, async { unreachable!("it is loaded already") }))
        });
        (0..1000).for_each(|_| thread::yield_now());
        assert_eq!(*guard.fill(5), 5);
        assert_eq!((by_thread.join().unwrap(), by_task.join().unwrap()), (5, 5));
    });
}

#[test]
fn failing_leader_gets_its_error_and_the_others_try_again() {
    for runtime in runtimes() {
        let (cache, loads) = (shared(), Arc::new(AtomicUsize::new(0)));
        let (failed, loaded) = runtime.block_on(async {
            let tasks: Vec<_> = (0..1000)
                .map(|_| {
                    let (cache, loads) = (Arc::clone(&cache), Arc::clone(&loads));
                    tokio::spawn(async move {
                        let load = async {
                            let number = loads.fetch_add(1, SeqCst);
                            give_way().await;
                            if number < 3 { Err(number) } else { Ok(7) }
                        };
                        cache.try_get_or_insert_async(1, load).await
                    })
                })
                .collect();
            let (mut failed, mut loaded) = (0, 0);
            for task in tasks {
                match task.await.unwrap() {
                    Ok(value) => loaded += usize::from(value == 7),
                    Err(_) => failed += 1,
                }
            }
            (failed, loaded)
        });
        assert_eq!((failed, loaded, loads.load(SeqCst)), (3, 997, 4));
        assert_eq!((cache.metrics().loads, cache.metrics().load_failures), (1, 3));
    }
}

#[test]
fn panicking_leader_leaves_the_load_to_another() {
    for runtime in runtimes() {
        let (cache, loads) = (shared(), Arc::new(AtomicUsize::new(0)));
        let panicked = runtime.block_on(async {
            let tasks: Vec<_> = (0..1000)
                .map(|_| {
                    let (cache, loads) = (Arc::clone(&cache), Arc::clone(&loads));
                    tokio::spawn(async move {
                        let load = async {
                            let number = loads.fetch_add(1, SeqCst);
                            give_way().await;
                            assert!(number > 0, "loader");
                            7
                        };
                        cache.get_or_insert_async(1, load).await
                    })
                })
                .collect();
            let mut panicked = 0;
            for task in tasks {
                match task.await {
                    Ok(value) => assert_eq!(value, 7),
                    Err(error) => panicked += usize::from(error.is_panic()),
                }
            }
            panicked
        });
        assert_eq!((panicked, loads.load(SeqCst)), (1, 2));
    }
}

#[test]
fn cancelled_leader_leaves_the_load_to_another() {
    for runtime in runtimes() {
        let (cache, loads) = (shared(), Arc::new(AtomicUsize::new(0)));
        runtime.block_on(async {
            let slow = tokio::spawn({
                let (cache, loads) = (Arc::clone(&cache), Arc::clone(&loads));
                async move {
                    let load = async {
                        loads.fetch_add(1, SeqCst);
                        pending().await
                    };
                    cache.get_or_insert_async(1, load).await
                }
            });
            while loads.load(SeqCst) == 0 {
                give_way().await;
            }
            let tasks: Vec<_> = (0..1000)
                .map(|_| {
                    let (cache, loads) = (Arc::clone(&cache), Arc::clone(&loads));
                    tokio::spawn(async move {
                        let load = async {
                            loads.fetch_add(1, SeqCst);
                            give_way().await;
                            7
                        };
                        cache.get_or_insert_async(1, load).await
                    })
                })
                .collect();
            for _ in 0..100 {
                give_way().await;
            }
            slow.abort();
            for (i, task) in tasks.into_iter().enumerate() {
                if i % 3 == 0 {
                    // The task that was to take over may be among these.
                    task.abort();
                } else {
                    assert_eq!(task.await.unwrap(), 7);
                }
            }
        });
        assert!(loads.load(SeqCst) >= 2);
        assert_eq!(cache.get_cloned(&1), Some(7));
    }
}

#[test]
fn panic_of_a_threads_loader_reaches_its_caller_only() {
    let cache = shared();
    let loading = AtomicBool::new(false);
    thread::scope(|scope| {
        let failing = scope.spawn(|| {
            let load = || {
                loading.store(true, SeqCst);
                (0..1000).for_each(|_| thread::yield_now());
                panic!("loader")
            };
            catch_unwind(AssertUnwindSafe(|| *cache.get_or_insert_with(1, load))).is_err()
        });
        while !loading.load(SeqCst) {
            thread::yield_now();
        }
        assert_eq!(*cache.get_or_insert_with(1, || 7), 7);
        assert!(failing.join().unwrap());
    });
}

#[test]
fn loader_may_use_the_cache_and_load_other_keys() {
    let cache = shared();
    let value = cache.get_or_insert_with(1, || {
        assert_eq!(cache.insert(2, 20), Insert::Inserted);
        *cache.get_or_insert_with(3, || cache.get_cloned(&2).unwrap() + 1) + 1
    });
    assert_eq!((*value, cache.get_cloned(&3)), (22, Some(21)));
}

#[test]
fn loader_that_asks_for_its_own_key_panics_and_does_not_wait() {
    let cache = shared();
    let nested = || *cache.get_or_insert_with(1, || *cache.get_or_insert_with(1, || 1));
    assert!(catch_unwind(AssertUnwindSafe(nested)).is_err());
    let nested = || {
        block_on(
            cache.get_or_insert_async(1, async { cache.get_or_insert_async(1, async { 1 }).await }),
        )
    };
    assert!(catch_unwind(AssertUnwindSafe(nested)).is_err());
    let claimed = cache.try_get_or_insert_with(1, || match cache.claim(1, WaitPolicy::Forever) {
        Claim::Busy(1) => Err("own key"),
        _ => Ok(1),
    });
    assert_eq!(claimed.map(|value| *value), Err("own key"));
    assert_eq!(*cache.get_or_insert_with(1, || 7), 7);
}

#[test]
fn value_that_is_rejected_is_returned_and_reported_once() {
    for maintenance in BOTH {
        let told = Arc::new(std::sync::Mutex::new(Vec::new()));
        let teller = Arc::clone(&told);
        let cache = builder(10, maintenance)
            .cost_of(|_, value: &u64| *value)
            .on_remove(move |removed: Removed<u64, u64>| teller.lock().unwrap().push(removed))
            .build()
            .unwrap();
        let loaded = cache.get_or_insert_with(1, || 11);
        assert_eq!((*loaded, loaded.cost()), (11, 11));
        drop(loaded);
        assert_eq!((cache.len(), cache.cost()), (0, 0));
        assert_eq!(block_on(cache.get_or_insert_async(2, async { 12 })), 12);
        assert!(cache.close());
        let mut told: Vec<_> = told.lock().unwrap().iter().map(|r| (r.value, r.cause)).collect();
        told.sort_unstable_by_key(|told| told.0);
        assert_eq!(told, [(11, RemovalCause::Rejected), (12, RemovalCause::Rejected)]);
    }
}

#[test]
fn newer_value_stays_and_is_returned() {
    let cache = shared();
    let value = cache.get_or_insert_with(1, || {
        assert_eq!(cache.insert(1, 2), Insert::Inserted);
        1
    });
    assert_eq!((*value, cache.get_cloned(&1)), (2, Some(2)));
}

#[test]
fn load_whose_key_is_removed_concurrently_is_not_published() {
    type Removal = fn(&Cache<u64, u64>);
    let removals: [(&str, Removal); 5] = [
        ("remove", |cache| assert!(cache.remove(&1).is_none())),
        ("clear", Cache::clear),
        ("drain", |cache| cache.drain(|_, _| unreachable!("there is nothing"))),
        ("compute", |cache| {
            assert!(cache.insert(1, 6).is_in());
            assert!(cache.compute(1, |_| ComputeOp::Remove).is_changed());
        }),
        ("an insert that is rejected", |cache| {
            assert!(!cache.insert_with_cost(1, 6, u64::MAX).is_in());
        }),
    ];
    for (name, removal) in removals {
        let told = Arc::new(Mutex::new(Vec::new()));
        let teller = Arc::clone(&told);
        let tell = move |removed: Removed<u64, u64>| teller.lock().unwrap().push(removed.value);
        let builder = builder(1000, Maintenance::Manual).metrics(true).on_remove(tell);
        let cache: Cache<u64, u64> = builder.build().unwrap();
        let value = cache.get_or_insert_with(1, || {
            removal(&cache);
            7
        });
        assert_eq!(*value, 7, "{name}");
        drop(value);
        settle(&cache);
        assert!(!cache.contains_key(&1), "{name}");
        assert_eq!((cache.len(), cache.cost()), (0, 0), "{name}");
        assert_eq!(told.lock().unwrap().iter().filter(|&&value| value == 7).count(), 1, "{name}");
        assert_eq!(cache.metrics().loads_invalidated, 1, "{name}");
        // The next load is cached, and so is one of another key during which the first was removed.
        assert_eq!(*cache.get_or_insert_with(1, || 8), 8);
        let other = cache.get_or_insert_with(2, || {
            drop(cache.remove(&1));
            9
        });
        assert_eq!((*other, cache.get_cloned(&2), cache.contains_key(&1)), (9, Some(9), false));
    }
}

#[test]
fn call_after_a_removal_loads_again() {
    let cache = shared();
    let Claim::Fill(old) = cache.claim(1, WaitPolicy::No) else { panic!("no load in progress") };
    assert!(cache.remove(&1).is_none());
    let Claim::Fill(new) = cache.claim(1, WaitPolicy::No) else { panic!("it is loaded no more") };
    assert_eq!(*new.fill(2), 2);
    // The newer value is kept.
    assert_eq!(*old.fill(1), 2);
    assert_eq!(cache.get_cloned(&1), Some(2));
}

/// A task that is polled by hand.
fn ask(cache: &Cache<u64, u64>, key: u64) -> Pin<Box<dyn Future<Output = u64> + '_>> {
    Box::pin(cache.get_or_insert_async(key, async { unreachable!("another caller loads it") }))
}

fn poll(task: &mut Pin<Box<dyn Future<Output = u64> + '_>>) -> Poll<u64> {
    task.as_mut().poll(&mut Context::from_waker(Waker::noop()))
}

#[test]
fn followers_of_a_load_whose_key_is_written_get_its_value() {
    let cache = shared();
    let Claim::Fill(guard) = cache.claim(1, WaitPolicy::No) else { panic!("it is not loaded") };
    let mut tasks = [(); 3].map(|()| ask(&cache, 1));
    assert!(tasks.iter_mut().all(|task| poll(task).is_pending()));
    assert!(cache.remove(&1).is_none());
    assert_eq!(*guard.fill(1), 1);
    for mut task in tasks {
        assert_eq!(poll(&mut task), Poll::Ready(1));
    }
    assert!(!cache.contains_key(&1));
}

#[test]
fn write_of_a_key_invalidates_its_load_and_what_writes_nothing_does_not() {
    type Call = fn(&Cache<u64, u64>);
    let writes: [(&str, Call); 10] = [
        ("insert", |cache| assert!(cache.insert(1, 6).is_in())),
        ("insert_with_ttl", |cache| {
            assert!(cache.insert_with_ttl(1, 6, Duration::ZERO).is_in());
        }),
        ("insert_if_absent", |cache| assert!(cache.insert_if_absent(1, 6).is_in())),
        ("compute that puts", |cache| {
            assert!(cache.compute(1, |_| ComputeOp::Put(6)).is_changed());
        }),
        ("compute that removes", |cache| {
            assert!(!cache.compute(1, |_| ComputeOp::Remove).is_changed());
        }),
        ("remove", |cache| assert!(cache.remove(&1).is_none())),
        ("clear", Cache::clear),
        ("drain", |cache| cache.drain(|_, _| unreachable!("there is nothing"))),
        ("import", |cache| {
            let mut record = ExportedEntry::new(1, 6);
            record.ttl = Some(Duration::ZERO);
            assert_eq!(cache.import([record]).inserted, 1);
        }),
        ("an insert that is rejected", |cache| {
            assert!(!cache.insert_with_cost(1, 6, u64::MAX).is_in());
        }),
    ];
    let others: [(&str, Call); 11] = [
        ("remove_if of what is not there", |cache| {
            assert!(cache.remove_if(&1, |_| true).is_none());
        }),
        ("replace of what is not there", |cache| assert!(!cache.replace(1, 6).is_in())),
        ("update of what is not there", |cache| assert!(!cache.update(&1, |_| 6))),
        ("compute that keeps", |cache| {
            assert!(!cache.compute(1, |_| ComputeOp::Keep).is_changed());
        }),
        ("retain", |cache| cache.retain(|_, _| true)),
        ("reads", |cache| assert!(cache.get(&1).is_none() && !cache.contains_key(&1))),
        ("writes of other keys", |cache| {
            assert!(cache.insert(2, 6).is_in() && cache.update(&2, |_| 7));
            assert!(cache.remove(&2).is_some() && cache.remove(&3).is_none());
        }),
        ("loads of other keys", |cache| drop(cache.get_or_insert_with(2, || 6))),
        ("import of other keys", |cache| _ = cache.import([ExportedEntry::new(2, 6)])),
        ("eviction", |cache| {
            (100..5_000).for_each(|key| _ = cache.insert(key, key));
            cache.set_max_cost(1);
            cache.set_max_cost(1000);
        }),
        ("maintenance", |cache| {
            assert!(cache.insert_with_ttl(2, 6, Duration::ZERO).is_in());
            settle(cache);
        }),
    ];
    let calls = writes.map(|call| (call, 1)).into_iter().chain(others.map(|call| (call, 0)));
    for ((name, call), invalid) in calls {
        let clock = ManualClock::new();
        let ttl = Duration::from_secs(1);
        let builder = builder(1000, Maintenance::Manual).metrics(true);
        let cache: Cache<u64, u64> = builder.ttl(ttl).clock(clock.clone()).build().unwrap();
        let value = *cache.get_or_insert_with(1, || {
            call(&cache);
            // The write is gone before the load ends, and no call has removed it.
            clock.advance(ttl);
            7
        });
        assert_eq!(value, 7, "{name}");
        assert_eq!(cache.get_cloned(&1), (invalid == 0).then_some(7), "{name}");
        assert_eq!(cache.metrics().loads_invalidated, invalid, "{name}");
        // It does not affect a later load.
        assert_eq!(*cache.get_or_insert_with(1, || 8), 8 - (1 - invalid), "{name}");
        assert!(cache.contains_key(&1), "{name}");
    }
}

#[test]
fn write_in_progress_when_a_load_ends_removes_the_loaded_value() {
    let cache = shared();
    let Claim::Fill(guard) = cache.claim(1, WaitPolicy::No) else { panic!("it is not loaded") };
    let mut guard = Some(guard);
    let computed = cache.compute(1, |seen| {
        assert_eq!(seen, None);
        drop(guard.take().map(|guard| guard.fill(1)));
        assert_eq!(cache.get_cloned(&1), Some(1), "for a moment");
        ComputeOp::Remove
    });
    assert_eq!((computed.cloned(), cache.get_cloned(&1)), (ComputeResult::Kept(None), None));
    // A newer entry of another caller is kept.
    let Claim::Fill(guard) = cache.claim(1, WaitPolicy::No) else { panic!("it is not loaded") };
    let mut guard = Some(guard);
    let computed = cache.compute(1, |_| {
        drop(guard.take().map(|guard| guard.fill(1)));
        assert_eq!(cache.insert(1, 2), Insert::Updated);
        ComputeOp::Remove
    });
    assert_eq!((computed.cloned(), cache.get_cloned(&1)), (ComputeResult::Kept(None), Some(2)));
}

#[test]
fn value_that_the_cache_does_not_let_in_is_shared_by_all_who_wait_for_it() {
    let told = Arc::new(Mutex::new(Vec::new()));
    let teller = Arc::clone(&told);
    let cache: Cache<u64, u64> = builder(10, Maintenance::Manual)
        .metrics(true)
        .on_remove(move |removed: Removed<u64, u64>| teller.lock().unwrap().push(removed))
        .build()
        .unwrap();
    let options = InsertOptions::new();
    let cases = [
        ("it costs too much", options.cost(11), RemovalCause::Rejected),
        ("its time is over at once", options.ttl(Duration::ZERO), RemovalCause::Expired),
    ];
    for (key, (name, options, cause)) in (0..).zip(cases) {
        let loads = cache.metrics().loads;
        let Claim::Fill(guard) = cache.claim(key, WaitPolicy::No) else {
            panic!("it is not loaded")
        };
        let mut tasks = [(); 8].map(|()| ask(&cache, key));
        assert!(tasks.iter_mut().all(|task| poll(task).is_pending()), "{name}");
        drop(guard.fill_with(key + 50, options));
        settle(&cache);
        for mut task in tasks {
            assert_eq!(poll(&mut task), Poll::Ready(key + 50), "{name}");
        }
        settle(&cache);
        assert_eq!(cache.metrics().loads, loads + 1, "{name}");
        assert!(!cache.contains_key(&key), "{name}");
        let told = std::mem::take(&mut *told.lock().unwrap());
        let told: Vec<_> = told.into_iter().map(|told| (told.value, told.cause)).collect();
        assert_eq!(told, [(key + 50, cause)], "{name}");
    }
}

#[test]
fn followers_get_an_entry_that_expires_before_they_read_it() {
    let clock = ManualClock::new();
    let builder = builder(10, Maintenance::Manual).clock(clock.clone());
    let cache: Cache<u64, u64> = builder.ttl(Duration::from_secs(1)).build().unwrap();
    let Claim::Fill(guard) = cache.claim(1, WaitPolicy::No) else { panic!("it is not loaded") };
    let mut tasks = [(); 8].map(|()| ask(&cache, 1));
    assert!(tasks.iter_mut().all(|task| poll(task).is_pending()));
    drop(guard.fill(5));
    clock.advance(Duration::from_secs(1));
    for mut task in tasks {
        assert_eq!(poll(&mut task), Poll::Ready(5));
    }
    assert!(cache.get(&1).is_none(), "it is not for those who come later");
}

#[test]
fn shared_value_is_reported_once() {
    let told = Arc::new(AtomicUsize::new(0));
    let teller = Arc::clone(&told);
    let cache: Cache<u64, u64> = builder(10, Maintenance::Manual)
        .cost_of(|_, value| *value)
        .on_remove(move |_| _ = teller.fetch_add(1, SeqCst))
        .build()
        .unwrap();
    // Dropped first, dropped last, and leaked.
    for (key, order) in [[true, false], [false, true]].into_iter().enumerate() {
        let key = key as u64;
        let Claim::Fill(guard) = cache.claim(key, WaitPolicy::No) else {
            panic!("it is not loaded")
        };
        let mut tasks = order.map(|is_dropped| (ask(&cache, key), is_dropped));
        assert!(tasks.iter_mut().all(|(task, _)| poll(task).is_pending()));
        drop(guard.fill(11));
        for (mut task, is_dropped) in tasks {
            settle(&cache);
            assert_eq!(told.load(SeqCst) as u64, key, "it is not taken by all");
            if !is_dropped {
                assert_eq!(poll(&mut task), Poll::Ready(11));
            }
        }
        settle(&cache);
        assert_eq!(told.load(SeqCst) as u64, key + 1);
    }
    let Claim::Fill(guard) = cache.claim(2, WaitPolicy::No) else { panic!("it is not loaded") };
    let mut task = ask(&cache, 2);
    assert!(poll(&mut task).is_pending());
    forever(task);
    drop(guard.fill(11));
    settle(&cache);
    assert_eq!(told.load(SeqCst), 2);
    drop(cache);
    assert_eq!(told.load(SeqCst), 3, "with the cache");
}

#[test]
fn thread_that_holds_a_guard_gets_busy_in_place_of_waiting_for_itself() {
    let cache = shared();
    let Claim::Fill(guard) = cache.claim(1, WaitPolicy::No) else { panic!("it is not loaded") };
    assert_eq!(*guard.key(), 1);
    assert!(matches!(cache.claim(1, WaitPolicy::Forever), Claim::Busy(1)));
    let load = || *cache.get_or_insert_with(1, || 2);
    assert!(catch_unwind(AssertUnwindSafe(load)).is_err());
    let guard = guard.detach();
    thread::scope(|scope| {
        scope.spawn(|| drop(guard.fill(3)));
        assert_eq!(*cache.get_or_insert_with(1, || unreachable!("it is loaded")), 3);
    });
    // A guard of a task belongs to no thread.
    let Claim::Fill(guard) = block_on(cache.claim_async(2, pending())) else {
        panic!("it is not loaded")
    };
    thread::scope(|scope| {
        scope.spawn(|| drop(guard.fill(3)));
        assert_eq!(*cache.get_or_insert_with(2, || unreachable!("it is loaded")), 3);
    });
}

#[test]
fn loaders_are_given_the_key() {
    let cache: Cache<String, usize> = Cache::new(100);
    assert_eq!(*cache.get_or_insert_with_key("a".into(), String::len), 1);
    let loaded = cache.try_get_or_insert_with_key("12".into(), |key| key.parse());
    assert_eq!(loaded.map(|value| *value), Ok(12));
    for runtime in runtimes() {
        let cache = cache.clone();
        cache.clear();
        // In a task that moves between threads.
        let task = runtime.spawn(async move {
            let load = async |key: &String| {
                give_way().await;
                key.len()
            };
            let length = cache.get_or_insert_with_key_async("abc".into(), load).await;
            let load = async |key: &String| {
                give_way().await;
                key.parse::<usize>()
            };
            let parsed = cache.try_get_or_insert_with_key_async("x".into(), load).await;
            (length, parsed.is_err(), cache.len())
        });
        assert_eq!(runtime.block_on(task).unwrap(), (3, true, 1));
    }
}

#[test]
fn futures_of_the_loaders_are_hardly_larger_than_the_loader() {
    async fn load() -> u64 {
        let page = [0u8; 4096];
        give_way().await;
        u64::from(page[17])
    }
    let cache = shared();
    let own = size_of_val(&load());
    let with_key = async |_: &u64| load().await;
    let sizes = [
        size_of_val(&cache.get_or_insert_async(1, load())),
        size_of_val(&cache.try_get_or_insert_async(1, async { Ok::<_, ()>(load().await) })),
        size_of_val(&cache.get_or_insert_with_key_async(1, with_key)),
        size_of_val(
            &cache.try_get_or_insert_with_key_async(1, async |_| Ok::<_, ()>(load().await)),
        ),
    ];
    assert!(sizes.iter().all(|&size| size < 2 * own), "{own} bytes become {sizes:?}");
}

#[test]
fn claim_is_held_across_an_await_in_a_task() {
    async fn look_up(cache: Shared) -> u64 {
        match cache.claim_async(1, pending()).await {
            Claim::Hit(value) => *value,
            Claim::Fill(guard) => {
                give_way().await;
                *guard.fill(7)
            }
            Claim::Busy(_) => unreachable!("it waits as long as it takes"),
        }
    }
    for runtime in runtimes() {
        let cache = shared();
        let tasks: Vec<_> = (0..10).map(|_| runtime.spawn(look_up(Arc::clone(&cache)))).collect();
        for task in tasks {
            assert_eq!(runtime.block_on(task).unwrap(), 7);
        }
        assert_eq!(cache.metrics().loads, 1);
    }
}

#[test]
fn value_cached_by_loads_that_meet_a_removal_is_not_stale() {
    let (cache, barrier) = (shared(), Barrier::new(3));
    let truths: Vec<_> = (0..3_000).map(|_| AtomicUsize::new(1)).collect();
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                for (key, truth) in (0..).zip(&truths) {
                    barrier.wait();
                    drop(cache.get_or_insert_with(key, || truth.load(SeqCst) as u64));
                    barrier.wait();
                }
            });
        }
        for (key, truth) in (0..).zip(&truths) {
            barrier.wait();
            truth.store(2, SeqCst);
            drop(cache.remove(&key));
            barrier.wait();
            assert_ne!(cache.get_cloned(&key), Some(1), "{key}");
            drop(cache.remove(&key));
        }
    });
}

#[test]
fn claim_waits_according_to_its_policy() {
    let cache = shared();
    let Claim::Fill(guard) = cache.claim(1, WaitPolicy::Forever) else { panic!("no other caller") };
    assert!(matches!(cache.claim(1, WaitPolicy::No), Claim::Busy(1)));
    assert!(matches!(cache.claim(1, WaitPolicy::For(Duration::from_millis(2))), Claim::Busy(1)));
    for runtime in runtimes() {
        runtime.block_on(async {
            let timeout = tokio::time::sleep(Duration::from_millis(2));
            assert!(matches!(cache.claim_async(1, timeout).await, Claim::Busy(1)));
        });
    }
    thread::scope(|scope| {
        let waiting = scope.spawn(|| match cache.claim(1, WaitPolicy::For(Duration::MAX)) {
            Claim::Hit(value) => *value,
            _ => 0,
        });
        (0..100).for_each(|_| thread::yield_now());
        drop(guard.fill_with(4, InsertOptions::new().cost(3)));
        assert_eq!(waiting.join().unwrap(), 4);
    });
    assert_eq!(cache.cost(), 3);
}

#[test]
fn guard_that_is_dropped_passes_the_claim_on() {
    let cache = shared();
    let Claim::Fill(guard) = cache.claim(1, WaitPolicy::No) else { panic!("no other caller") };
    thread::scope(|scope| {
        let next = scope.spawn(|| match cache.claim(1, WaitPolicy::Forever) {
            Claim::Fill(guard) => *guard.fill(9),
            _ => 0,
        });
        (0..100).for_each(|_| thread::yield_now());
        drop(guard);
        assert_eq!(next.join().unwrap(), 9);
    });
}

#[test]
fn guard_that_is_dropped_passes_the_claim_on_though_the_clock_panics() {
    struct Broken(Arc<AtomicBool>);
    impl Clock for Broken {
        fn now(&self) -> Duration {
            if self.0.load(SeqCst) {
                // Without the panic hook, to keep the output short.
                std::panic::resume_unwind(Box::new("clock"));
            }
            Duration::ZERO
        }
    }
    let is_broken = Arc::new(AtomicBool::new(false));
    let builder = builder(10, Maintenance::Manual).clock(Broken(Arc::clone(&is_broken)));
    let cache: Cache<u64, u64> = builder.metrics(true).build().unwrap();
    for is_panicking in [false, true] {
        let Claim::Fill(guard) = cache.claim(1, WaitPolicy::No) else { panic!("it is led") };
        is_broken.store(true, SeqCst);
        let dropped = catch_unwind(AssertUnwindSafe(|| {
            let _guard = guard;
            // A second panic would abort the process.
            assert!(!is_panicking, "planned");
        }));
        is_broken.store(false, SeqCst);
        assert_eq!(dropped.is_err(), is_panicking);
    }
    assert_eq!(cache.metrics().load_failures, 2);
    assert_eq!(*cache.get_or_insert_with(1, || 7), 7);
}

#[test]
fn futures_of_the_loaders_are_send() {
    fn is_send<T: Send>(_: T) {}
    let cache = shared();
    is_send(cache.get_or_insert_async(1, async { 1 }));
    is_send(cache.try_get_or_insert_async(1, async { Err::<u64, ()>(()) }));
    is_send(cache.claim(1, WaitPolicy::No).into_guard());
}

trait IntoGuard<T> {
    fn into_guard(self) -> Option<T>;
}

impl<'a> IntoGuard<cortado::FillGuard<'a, u64, u64, cortado::DefaultHashBuilder>>
    for Claim<'a, u64, u64, cortado::DefaultHashBuilder>
{
    fn into_guard(self) -> Option<cortado::FillGuard<'a, u64, u64, cortado::DefaultHashBuilder>> {
        match self {
            Claim::Fill(guard) => Some(guard),
            _ => None,
        }
    }
}

#[test]
fn loads_are_timed_and_callers_that_wait_are_no_misses() {
    let clock = ManualClock::new();
    let builder = builder(1000, Maintenance::Manual).clock(clock.clone()).metrics(true);
    let cache: Cache<u64, u64> = builder.build().unwrap();
    thread::scope(|scope| {
        let (cache, clock) = (&cache, &clock);
        let load = move || {
            while cache.metrics().coalesced < 9 {
                thread::yield_now();
            }
            clock.advance(Duration::from_millis(3));
            7
        };
        for _ in 0..10 {
            scope.spawn(move || assert_eq!(*cache.get_or_insert_with(1, load), 7));
        }
    });
    assert_eq!(cache.try_get_or_insert_with(2, || Err(())).map(|it| *it), Err(()));
    assert_eq!(*cache.get_or_insert_with(1, || unreachable!()), 7);
    let metrics = cache.metrics();
    assert_eq!((metrics.hits, metrics.misses, metrics.coalesced), (1, 2, 9));
    assert_eq!(metrics.load_times.count(), 2, "the failed one, too");
    assert_eq!(metrics.load_times.quantile(0.9), Some(Duration::from_micros(4096)));
    assert!((metrics.hit_ratio() - 1.0 / 3.0).abs() < 1e-9);
}
