//! `on_remove`: every removed entry is reported exactly once, with its cause.

use std::{
    collections::HashMap,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use cortado::{
    Cache, CacheBuilder, ComputeOp, Insert, Maintenance, ManualClock, RemovalCause, Removed,
    WorkLimit,
};

use crate::{
    builder,
    support::{BOTH, Random, eventually, seed},
};

type Told = Arc<Mutex<Vec<Removed<u64, u64>>>>;

fn telling(max_cost: u64, maintenance: Maintenance) -> (CacheBuilder<u64, u64>, Told) {
    let told = Told::default();
    let teller = Arc::clone(&told);
    let builder = builder(max_cost, maintenance)
        .on_remove(move |removed| teller.lock().unwrap().push(removed));
    (builder, told)
}

fn causes(told: &Told) -> Vec<(u64, u64, RemovalCause)> {
    let told = told.lock().unwrap();
    let mut all: Vec<_> = told.iter().map(|r| (r.key, r.value, r.cause)).collect();
    all.sort_unstable_by_key(|&(key, value, _)| (key, value));
    all
}

#[test]
fn each_cause_is_reported() {
    let clock = ManualClock::new();
    let (builder, told) = telling(10, Maintenance::Manual);
    let cache = builder.clock(clock.clone()).build().unwrap();
    let second = Duration::from_secs(1);
    for key in 0..5 {
        assert!(cache.insert_with_ttl(key, 0, if key == 4 { second } else { 9 * second }).is_in());
    }
    assert_eq!(cache.insert(0, 1), Insert::Updated);
    drop(cache.remove(&1));
    cache.compute(2, |_| ComputeOp::Remove);
    assert!(!cache.insert_with_cost(3, 9, 11).is_in());
    clock.advance(second);
    cache.tick(WorkLimit::ALL);
    assert!(cache.insert_with_cost(5, 0, 9).is_in());
    cache.set_max_cost(9);
    cache.clear();
    eventually("everything is reported", || {
        cache.flush();
        told.lock().unwrap().len() == 7
    });
    use RemovalCause::*;
    let mut expected = vec![
        (0, 0, Replaced),
        (0, 1, Evicted),
        (1, 0, Removed),
        (2, 0, Removed),
        (3, 0, Replaced),
        (4, 0, Expired),
        (5, 0, Cleared),
    ];
    let got = causes(&told);
    if got[1].2 == Cleared {
        // The other one was evicted for the lower budget.
        (expected[1].2, expected[6].2) = (Cleared, Evicted);
    }
    assert_eq!(got, expected);
}

#[test]
fn what_is_in_the_cache_when_it_is_dropped_has_not_left() {
    for maintenance in BOTH {
        let (builder, told) = telling(10, maintenance);
        let cache = builder.build().unwrap();
        assert!(cache.insert(1, 1).is_in() && cache.insert(2, 2).is_in());
        drop(cache.remove(&1));
        assert!(cache.close());
        assert_eq!(causes(&told), [(1, 1, RemovalCause::Removed)]);
    }
}

#[test]
fn every_value_is_returned_resident_or_reported_exactly_once() {
    for maintenance in BOTH {
        let (builder, told) = telling(200, maintenance);
        let cache = builder.build().unwrap();
        let next = AtomicU64::new(0);
        let refused = Mutex::new(Vec::new());
        thread::scope(|scope| {
            for thread in 0..4 {
                let (cache, next, refused) = (&cache, &next, &refused);
                scope.spawn(move || {
                    let mut random = Random::new(seed() + thread);
                    for _ in 0..5_000 {
                        let key = random.below(500);
                        let value = next.fetch_add(1, Ordering::Relaxed);
                        match random.below(8) {
                            0 => drop(cache.remove(&key)),
                            1 if random.below(50) == 0 => cache.clear(),
                            2 => {
                                if let Some(value) = cache.insert_if_absent(key, value).rejected() {
                                    refused.lock().unwrap().push(value);
                                }
                                continue;
                            }
                            _ => {
                                if let Insert::Rejected(value, _) = cache.insert(key, value) {
                                    refused.lock().unwrap().push(value);
                                }
                                continue;
                            }
                        }
                        refused.lock().unwrap().push(value);
                    }
                });
            }
        });
        let resident: Vec<u64> = cache.pin().values().copied().collect();
        assert!(cache.close());
        let mut times: HashMap<u64, u32> = HashMap::new();
        for removed in told.lock().unwrap().iter() {
            *times.entry(removed.value).or_default() += 1;
            // The maintenance thread may have made a little more room since.
            let may_be =
                maintenance == Maintenance::Thread && removed.cause == RemovalCause::Evicted;
            assert!(may_be || !resident.contains(&removed.value), "{removed:?}");
        }
        assert!(times.values().all(|&times| times == 1));
        let refused: std::collections::HashSet<_> =
            refused.into_inner().unwrap().into_iter().collect();
        for value in 0..next.load(Ordering::Relaxed) {
            let seen = times.contains_key(&value) || resident.contains(&value);
            assert_ne!(seen, refused.contains(&value), "value {value} is lost, or there twice");
        }
    }
}

#[test]
fn listener_may_call_the_cache() {
    static CACHE: OnceLock<Cache<u64, u64>> = OnceLock::new();
    let moved = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&moved);
    let cache = builder(100, Maintenance::Manual)
        .on_remove(move |removed: Removed<u64, u64>| {
            let cache = CACHE.get().unwrap();
            if removed.key < 1000 && cache.insert(removed.key + 1000, removed.value).is_in() {
                count.fetch_add(1, Ordering::Relaxed);
            }
            let _ = cache.get(&removed.key);
            cache.tick(WorkLimit::ALL);
        })
        .build()
        .unwrap();
    let cache = CACHE.get_or_init(|| cache);
    for key in 0..50 {
        assert!(cache.insert(key, key).is_in());
        drop(cache.remove(&key));
    }
    eventually("all are moved", || {
        cache.flush();
        moved.load(Ordering::Relaxed) == 50
    });
    assert!((1000..1050).all(|key| cache.contains_key(&key)));
}

#[test]
fn listener_may_load_the_key_that_is_just_loaded() {
    static CACHE: OnceLock<Cache<u64, u64>> = OnceLock::new();
    static LOADING: AtomicU64 = AtomicU64::new(0);
    let asked = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&asked);
    let cache = builder(50, Maintenance::Manual)
        .on_remove(move |_: Removed<u64, u64>| {
            if let Some(cache) = CACHE.get() {
                let key = LOADING.load(Ordering::Relaxed);
                assert_eq!(*cache.get_or_insert_with(key, || key), key);
                count.fetch_add(1, Ordering::Relaxed);
            }
        })
        .build()
        .unwrap();
    let cache = CACHE.get_or_init(|| cache);
    for key in 0..20_000 {
        LOADING.store(key, Ordering::Relaxed);
        assert_eq!(*cache.get_or_insert_with(key, || key), key);
    }
    eventually("a removal is reported", || {
        cache.flush();
        asked.load(Ordering::Relaxed) > 0
    });
}

#[test]
fn panic_of_a_listener_stops_no_other_and_reaches_the_freeing_thread() {
    let told = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&told);
    let cache = builder(100, Maintenance::Manual)
        .on_remove(move |removed: Removed<u64, String>| {
            count.fetch_add(1, Ordering::Relaxed);
            assert!(removed.key != 3, "listener");
        })
        .build()
        .unwrap();
    for key in 0..10 {
        assert!(cache.insert(key, key.to_string()).is_in());
    }
    cache.clear();
    let mut panicked = 0;
    eventually("everything is reported", || {
        panicked += usize::from(catch_unwind(AssertUnwindSafe(|| cache.flush())).is_err());
        told.load(Ordering::Relaxed) == 10
    });
    assert_eq!((panicked, cache.cost(), cache.len()), (1, 0, 0));
    assert!(cache.insert(3, String::new()).is_in() && cache.contains_key(&3));
}
