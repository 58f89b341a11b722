//! Functions of the user's that are asked before an entry leaves: `can_evict` and `write_back`.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::SeqCst},
    },
    thread,
    time::Duration,
};

use cortado::{
    Cache, ComputeOp, Insert, InsertOptions, Maintenance, ManualClock, Priority, RejectReason,
    WorkLimit,
};

use crate::{
    builder,
    support::{BOTH, Random, audit, seed},
};

#[test]
fn entry_that_may_not_be_evicted_stays() {
    for maintenance in BOTH {
        let cache: Cache<u64, u64> =
            builder(100, maintenance).can_evict(|key, _| *key >= 50).metrics(true).build().unwrap();
        for key in 0..50 {
            assert_eq!(cache.insert(key, key), Insert::Inserted);
        }
        for key in 1_000..20_000 {
            assert_eq!(cache.insert(key, key), Insert::Inserted);
            assert!(cache.cost() <= 100);
        }
        assert!((0..50).all(|key| cache.contains_key(&key)));
        assert!(cache.metrics().vetoes > 0);
        audit(&cache);
    }
}

#[test]
fn insert_is_refused_where_nothing_may_be_evicted() {
    for maintenance in BOTH {
        let allows = Arc::new(AtomicBool::new(false));
        let asked = Arc::clone(&allows);
        let cache: Cache<u64, u64> =
            builder(100, maintenance).can_evict(move |_, _| asked.load(SeqCst)).build().unwrap();
        let mut inserted = 0;
        for key in 0..200 {
            match cache.insert(key, key) {
                Insert::Inserted => inserted += 1,
                other => assert_eq!(other, Insert::Rejected(key, RejectReason::Kept)),
            }
        }
        assert!((90..=100).contains(&inserted), "{inserted}");
        assert_eq!(cache.len(), inserted);
        // It says no for as long as it says no, and no longer. What is there may be replaced and removed.
        assert_eq!(cache.insert(0, 7), Insert::Updated);
        assert!(cache.remove(&1).is_some());
        allows.store(true, SeqCst);
        (1000..1200).for_each(|key| assert!(cache.insert(key, key).is_in(), "{key}"));
        audit(&cache);
    }
}

#[test]
fn lowered_budget_goes_before_the_veto() {
    let cache: Cache<u64, u64> =
        builder(100, Maintenance::Manual).can_evict(|_, _| false).build().unwrap();
    (0..100).for_each(|key| _ = cache.insert(key, key));
    cache.set_max_cost(10);
    assert!(cache.cost() <= 10);
    assert!(!cache.is_empty());
    audit(&cache);
}

#[test]
fn panic_of_the_function_counts_as_no() {
    let cache: Cache<u64, u64> = builder(100, Maintenance::Manual)
        .can_evict(|key, _| if *key < 10 { panic!("can_evict") } else { true })
        .build()
        .unwrap();
    for key in 0..5_000 {
        assert!(cache.insert(key, key).is_in());
    }
    assert!((0..10).all(|key| cache.contains_key(&key)));
    audit(&cache);
}

/// A store that says whether a value is the newest that was written.
#[derive(Default)]
struct Store {
    values: Mutex<HashMap<u64, u64>>,
    writes: AtomicUsize,
}

impl Store {
    fn write(&self, key: u64, value: u64) {
        self.writes.fetch_add(1, SeqCst);
        let before = self.values.lock().unwrap().insert(key, value);
        assert!(before.is_none_or(|before| before <= value), "{key}: {before:?}, then {value}");
    }

    fn read(&self, key: u64) -> u64 {
        self.values.lock().unwrap().get(&key).copied().unwrap_or(0)
    }
}

fn written_back(max_cost: u64, maintenance: Maintenance) -> (Cache<u64, u64>, Arc<Store>) {
    let store = Arc::<Store>::default();
    let disk = Arc::clone(&store);
    let write = move |key: &u64, value: &u64| {
        disk.write(*key, *value);
        true
    };
    (builder(max_cost, maintenance).write_back(write).build().unwrap(), store)
}

/// What is written in the end: what the store has, and what is still in the cache.
fn sum(cache: &Cache<u64, u64>, store: &Store) -> u64 {
    for (key, value) in cache.pin().iter() {
        store.write(*key, *value);
    }
    store.values.lock().unwrap().values().sum()
}

#[test]
fn write_back_cache_loses_no_update() {
    for (maintenance, threads) in [(Maintenance::Manual, 1), (Maintenance::Thread, 4)] {
        let (cache, store) = written_back(100, maintenance);
        let steps = 6_000;
        thread::scope(|scope| {
            for thread in 0..threads {
                let (cache, store) = (&cache, &store);
                scope.spawn(move || {
                    let mut random = Random::new(seed() + thread);
                    for _ in 0..steps {
                        // Mostly few keys, which threads update at the same time.
                        let below = random.below(400) + 1;
                        let key = random.below(below);
                        loop {
                            drop(cache.get_or_insert_with(key, || store.read(key)));
                            let add = |n: Option<&u64>| {
                                n.map_or(ComputeOp::Keep, |n| ComputeOp::Put(n + 1))
                            };
                            if cache.compute(key, add).is_changed() {
                                break;
                            }
                        }
                    }
                });
            }
        });
        assert_eq!(sum(&cache, &store), steps * threads);
        assert!(store.writes.load(SeqCst) > 500, "some were evicted");
        audit(&cache);
    }
}

#[test]
fn entry_is_readable_while_it_is_written_and_stays_if_it_is_updated_then() {
    let handle: Arc<Mutex<Option<Cache<u64, u64>>>> = Arc::default();
    let (of_hook, updates) = (Arc::clone(&handle), Arc::new(AtomicU64::new(0)));
    let made = Arc::clone(&updates);
    let write = move |key: &u64, value: &u64| {
        let cache = of_hook.lock().unwrap().clone();
        let Some(cache) = cache else { return true };
        assert_eq!(cache.peek(key).as_deref(), Some(value));
        if *value == 0 && key.is_multiple_of(10) {
            made.fetch_add(1, SeqCst);
            assert_eq!(cache.replace(*key, 1), Insert::Updated);
        }
        true
    };
    let cache: Cache<u64, u64> =
        builder(100, Maintenance::Manual).write_back(write).build_manual().unwrap();
    *handle.lock().unwrap() = Some(cache.clone());
    for key in 0..2_000 {
        assert_eq!(cache.insert(key, 0), Insert::Inserted);
        // What was updated is still there, in its new version; it goes at its next turn.
        for (key, value) in cache.pin().iter() {
            assert!(*value == 0 || key % 10 == 0);
        }
    }
    assert!(updates.load(SeqCst) > 100);
    *handle.lock().unwrap() = None;
    audit(&cache);
}

#[test]
fn entry_that_cannot_be_written_stays() {
    let is_up = Arc::new(AtomicBool::new(false));
    let asked = Arc::clone(&is_up);
    let cache: Cache<u64, u64> = builder(100, Maintenance::Manual)
        .write_back(move |_, _| asked.load(SeqCst) || panic!("the store is down"))
        .build()
        .unwrap();
    let inserted = (0..200).filter(|key| cache.insert(*key, 0).is_in()).count();
    assert!((90..=100).contains(&inserted), "{inserted}");
    assert_eq!(cache.insert(500, 0), Insert::Rejected(0, RejectReason::Kept));
    is_up.store(true, SeqCst);
    assert!((1000..2000).all(|key| cache.insert(key, 0).is_in()));
    audit(&cache);
}

#[test]
fn expired_entry_is_written_before_it_goes() {
    let clock = ManualClock::new();
    let (written, is_up) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicBool::new(false)));
    let (disk, up) = (Arc::clone(&written), Arc::clone(&is_up));
    let cache: Cache<u64, u64> = builder(100, Maintenance::Manual)
        .clock(clock.clone())
        .ttl(Duration::from_secs(1))
        .write_back(move |key, _| {
            disk.lock().unwrap().push(*key);
            up.load(SeqCst)
        })
        .build()
        .unwrap();
    cache.insert(1, 1);
    clock.advance(Duration::from_secs(2));
    for tries in 1..=3 {
        assert_eq!(cache.tick(WorkLimit::ALL).expired, 0);
        assert!(cache.get(&1).is_none() && cache.len() == 1);
        assert_eq!(written.lock().unwrap().len(), tries, "once a tick");
        clock.advance(Duration::from_secs(1));
    }
    is_up.store(true, SeqCst);
    assert_eq!(cache.tick(WorkLimit::ALL).expired, 1);
    assert_eq!(cache.len(), 0);
    audit(&cache);
}

#[test]
fn full_bucket_asks_too() {
    /// All keys in one bucket.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    struct Same(u64);
    impl std::hash::Hash for Same {
        fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
            0.hash(state);
        }
    }
    let cache: Cache<Same, u64> =
        builder(1000, Maintenance::Manual).can_evict(|key: &Same, _| key.0 != 3).build().unwrap();
    for key in 0..1000 {
        let inserted = cache.insert(Same(key), key);
        assert!(inserted.is_in(), "{key}: {inserted:?}");
    }
    assert!(cache.contains_key(&Same(3)));
    audit(&cache);
    let cache: Cache<Same, u64> =
        builder(1000, Maintenance::Manual).can_evict(|_, _| false).build().unwrap();
    let rejected = (0..100).filter_map(|key| match cache.insert(Same(key), key) {
        Insert::Rejected(_, reason) => Some(reason),
        _ => None,
    });
    let rejected: Vec<_> = rejected.collect();
    assert!(rejected.len() > 80 && rejected.iter().all(|reason| *reason == RejectReason::Kept));
    audit(&cache);
}

#[test]
fn both_functions_are_asked_and_pinned_entries_are_not_theirs() {
    let asked = Arc::new(Mutex::new(Vec::new()));
    let (first, second) = (Arc::clone(&asked), Arc::clone(&asked));
    let cache: Cache<u64, u64> = builder(100, Maintenance::Manual)
        .can_evict(move |key, _| {
            first.lock().unwrap().push(("can", *key));
            key % 2 == 0
        })
        .write_back(move |key, _| {
            second.lock().unwrap().push(("write", *key));
            true
        })
        .build()
        .unwrap();
    let pinned = InsertOptions::new().priority(Priority::Pinned);
    assert!(cache.insert_with(0, 0, pinned).is_in());
    (1..1000).for_each(|key| _ = cache.insert(key, key));
    let asked = asked.lock().unwrap();
    assert!(asked.iter().all(|(_, key)| *key != 0) && cache.contains_key(&0));
    assert!(asked.iter().all(|(what, key)| *what == "can" || key % 2 == 0));
    assert!(asked.iter().any(|(what, _)| *what == "write"));
}

#[test]
fn entries_that_a_lowered_budget_takes_are_written_back() {
    let (cache, store) = written_back(100, Maintenance::Manual);
    (0..100).for_each(|key| assert!(cache.insert(key, key + 1).is_in()));
    cache.set_max_cost(10);
    assert!(cache.len() <= 10);
    for key in 0..100 {
        let value = cache.get_cloned(&key).unwrap_or_else(|| store.read(key));
        assert_eq!(value, key + 1);
    }
}
