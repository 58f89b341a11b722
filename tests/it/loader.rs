//! Loaders: one load for a key, whoever asks, and nobody waits for ever.

use std::{
    future::pending,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Barrier, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    thread,
    time::Duration,
};

use cortado::{
    Cache, Claim, Computed, Insert, InsertOptions, Maintenance, Op, RemovalCause, Removed, Wait,
};
use tokio::runtime::{Builder, Runtime};

use crate::{
    builder,
    support::{
        BOTH, settle,
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
    let Claim::Fill(guard) = cache.claim(1, Wait::No) else { panic!("nobody else is here") };
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
                    // Whoever was to take over may be among these.
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
    let claimed = cache.try_get_or_insert_with(1, || match cache.claim(1, Wait::Forever) {
        Claim::Busy(1) => Err("own key"),
        _ => Ok(1),
    });
    assert_eq!(claimed.map(|value| *value), Err("own key"));
    assert_eq!(*cache.get_or_insert_with(1, || 7), 7);
}

#[test]
fn value_is_returned_though_it_is_not_let_in_and_is_told_of_once() {
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
fn load_whose_key_is_removed_meanwhile_is_not_kept() {
    type Removal = fn(&Cache<u64, u64>);
    let removals: [(&str, Removal); 6] = [
        ("remove", |cache| assert!(cache.remove(&1).is_none())),
        ("remove_if", |cache| assert!(cache.remove_if(&1, |_| true).is_none())),
        ("clear", Cache::clear),
        ("drain", |cache| cache.drain(|_, _| unreachable!("there is nothing"))),
        ("compute", |cache| {
            assert!(cache.insert(1, 6).is_in());
            assert_eq!(cache.compute(1, |_| Op::Remove), Computed::Removed);
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
        assert_eq!(cache.metrics().loads_overtaken, 1, "{name}");
        // The next load is kept, and one of another key was all the time.
        assert_eq!(*cache.get_or_insert_with(1, || 8), 8);
        let other = cache.get_or_insert_with(2, || {
            drop(cache.remove(&1));
            9
        });
        assert_eq!((*other, cache.get_cloned(&2), cache.contains_key(&1)), (9, Some(9), false));
    }
}

#[test]
fn whoever_asks_after_a_removal_loads_anew() {
    let cache = shared();
    let Claim::Fill(old) = cache.claim(1, Wait::No) else { panic!("nobody loads it") };
    assert!(cache.remove(&1).is_none());
    let Claim::Fill(new) = cache.claim(1, Wait::No) else { panic!("it is loaded no more") };
    assert_eq!(*new.fill(2), 2);
    // The newer one stays, as ever.
    assert_eq!(*old.fill(1), 2);
    assert_eq!(cache.get_cloned(&1), Some(2));
}

#[test]
fn whoever_waits_for_a_load_that_is_overtaken_loads_anew() {
    let cache = shared();
    let Claim::Fill(guard) = cache.claim(1, Wait::No) else { panic!("nobody loads it") };
    thread::scope(|scope| {
        let follower = scope.spawn(|| *cache.get_or_insert_with(1, || 2));
        let task = scope.spawn(|| block_on(cache.get_or_insert_async(1, async { 2 })));
        assert!(cache.remove(&1).is_none());
        assert_eq!(*guard.fill(1), 1);
        assert_eq!((follower.join().unwrap(), task.join().unwrap()), (2, 2));
    });
    assert_eq!(cache.get_cloned(&1), Some(2));
}

#[test]
fn what_is_kept_of_loads_that_meet_a_removal_is_not_out_of_date() {
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
fn claim_waits_as_long_as_it_is_told_to() {
    let cache = shared();
    let Claim::Fill(guard) = cache.claim(1, Wait::Forever) else { panic!("nobody else is here") };
    assert!(matches!(cache.claim(1, Wait::No), Claim::Busy(1)));
    assert!(matches!(cache.claim(1, Wait::For(Duration::from_millis(2))), Claim::Busy(1)));
    for runtime in runtimes() {
        runtime.block_on(async {
            let timeout = tokio::time::sleep(Duration::from_millis(2));
            assert!(matches!(cache.claim_async(1, timeout).await, Claim::Busy(1)));
        });
    }
    thread::scope(|scope| {
        let waiting = scope.spawn(|| match cache.claim(1, Wait::For(Duration::MAX)) {
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
    let Claim::Fill(guard) = cache.claim(1, Wait::No) else { panic!("nobody else is here") };
    thread::scope(|scope| {
        let next = scope.spawn(|| match cache.claim(1, Wait::Forever) {
            Claim::Fill(guard) => *guard.fill(9),
            _ => 0,
        });
        (0..100).for_each(|_| thread::yield_now());
        drop(guard);
        assert_eq!(next.join().unwrap(), 9);
    });
}

#[test]
fn futures_of_the_loaders_are_send() {
    fn is_send<T: Send>(_: T) {}
    let cache = shared();
    is_send(cache.get_or_insert_async(1, async { 1 }));
    is_send(cache.try_get_or_insert_async(1, async { Err::<u64, ()>(()) }));
    is_send(cache.claim(1, Wait::No).into_guard());
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
