//! Writing back before an entry leaves: no change made through the cache is lost.

use std::{
    collections::HashMap,
    hash::{BuildHasher, Hasher},
    sync::{
        Arc, Barrier, Mutex,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::SeqCst},
        mpsc,
    },
    thread,
    time::Duration,
};

use cortado::{
    Cache, ComputeOp, ComputeResult, Insert, Maintenance, ManualClock, Priority, RejectReason,
    WorkLimit,
};

use crate::{
    builder,
    support::{Random, audit, seed, tasks::block_on},
};

/// A store that checks whether a value is the newest that was written.
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

/// The final sum: the values in the store, and those still in the cache.
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
                        // A skewed key distribution; threads update the frequent keys concurrently.
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
fn entry_is_readable_while_it_is_written_and_remains_if_it_is_updated() {
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
        // An updated entry is still present, in its new version. It is evicted the next time it is
        // the victim.
        for (key, value) in cache.pin().iter() {
            assert!(*value == 0 || key % 10 == 0);
        }
    }
    assert!(updates.load(SeqCst) > 100);
    *handle.lock().unwrap() = None;
    audit(&cache);
}

#[test]
fn entry_that_cannot_be_written_remains() {
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
fn expired_entry_is_written_before_it_is_removed() {
    let clock = ManualClock::new();
    let (written, is_up) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicBool::new(false)));
    let (disk, up) = (Arc::clone(&written), Arc::clone(&is_up));
    let cache: Cache<u64, u64> = builder(100, Maintenance::Manual)
        .clock(clock.clone())
        .ttl(Duration::from_secs(1))
        .write_back(move |key: &u64, _| {
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

/// A cache whose entries live for a second, over a store that can be down.
fn of_a_second(max_cost: u64) -> (Cache<u64, u64>, Arc<Store>, ManualClock, Arc<AtomicBool>) {
    let (clock, store) = (ManualClock::new(), Arc::<Store>::default());
    let is_up = Arc::new(AtomicBool::new(true));
    let (disk, up) = (Arc::clone(&store), Arc::clone(&is_up));
    let cache = builder(max_cost, Maintenance::Manual)
        .clock(clock.clone())
        .ttl(Duration::from_secs(1))
        .write_back(move |key: &u64, value: &u64| {
            let is_up = up.load(SeqCst);
            if is_up {
                disk.write(*key, *value);
            } else {
                disk.writes.fetch_add(1, SeqCst);
            }
            is_up
        })
        .build()
        .unwrap();
    (cache, store, clock, is_up)
}

#[test]
fn expired_entry_is_written_before_its_key_is_loaded_or_computed() {
    type Load = fn(&Cache<u64, u64>, &Store, u64) -> u64;
    let loads: [Load; 5] = [
        |cache, store, key| *cache.get_or_insert_with(key, || store.read(key)),
        |cache, store, key| block_on(cache.get_or_insert_async(key, async { store.read(key) })),
        |cache, store, key| {
            let load = |keys: &[&u64]| keys.iter().map(|&&key| (key, store.read(key))).collect();
            cache.get_or_insert_many::<Vec<_>>([key], load)[0].unwrap()
        },
        |cache, store, key| {
            let computed = cache.compute(key, |value| {
                ComputeOp::Put(value.copied().unwrap_or_else(|| store.read(key)))
            });
            *computed.value().unwrap()
        },
        |cache, store, key| {
            let computed = block_on(cache.compute_async(key, async |value: Option<u64>| {
                ComputeOp::Put(value.unwrap_or_else(|| store.read(key)))
            }));
            assert!(computed.is_changed());
            cache.get_cloned(&key).unwrap()
        },
    ];
    for (key, load) in (0..).zip(loads) {
        let (cache, store, clock, _) = of_a_second(100);
        assert!(cache.insert(key, key + 10).is_in());
        clock.advance(Duration::from_secs(2));
        assert!(cache.get(&key).is_none());
        assert_eq!(load(&cache, &store, key), key + 10, "{key}");
        assert_eq!(cache.get_cloned(&key), Some(key + 10), "{key}");
        audit(&cache);
    }
}

#[test]
fn expired_entry_is_written_before_another_one_takes_its_place() {
    let (cache, store, clock, is_up) = of_a_second(100);
    (1..5).for_each(|key| assert!(cache.insert(key, 10).is_in()));
    clock.advance(Duration::from_secs(2));
    assert!(cache.insert(1, 20).is_in() && cache.insert_if_absent(2, 20).is_in());
    assert_eq!((store.read(1), store.read(2)), (10, 10));
    is_up.store(false, SeqCst);
    // It cannot be written, but a live entry would be replaced, too.
    assert!(cache.insert(3, 20).is_in());
    // A value that was computed because there was none is rejected.
    assert_eq!(cache.insert_if_absent(4, 20), Insert::Rejected(20, RejectReason::Kept));
    assert_eq!(store.read(4), 0);
    is_up.store(true, SeqCst);
    assert_eq!(cache.insert_if_absent(4, 20), Insert::Inserted);
    assert_eq!(store.read(4), 10);
    audit(&cache);
}

#[test]
fn loaded_value_does_not_replace_an_unwritten_entry() {
    let (cache, store, clock, is_up) = of_a_second(100);
    assert!(cache.insert(1, 10).is_in());
    clock.advance(Duration::from_secs(2));
    is_up.store(false, SeqCst);
    // It is returned as it is in the store, and not cached.
    assert_eq!(*cache.get_or_insert_with(1, || store.read(1)), 0);
    assert_eq!((cache.get_cloned(&1), cache.len()), (None, 1));
    is_up.store(true, SeqCst);
    assert_eq!(*cache.get_or_insert_with(1, || store.read(1)), 10);
    assert_eq!(store.read(1), 10);
    audit(&cache);
}

#[test]
fn entry_is_written_before_it_is_refreshed() {
    let (clock, store) = (ManualClock::new(), Arc::<Store>::default());
    let (disk, is_up) = (Arc::clone(&store), Arc::new(AtomicBool::new(false)));
    let up = Arc::clone(&is_up);
    let cache: Cache<u64, u64> = builder(100, Maintenance::Manual)
        .clock(clock.clone())
        .refresh_after(Duration::from_secs(1))
        .write_back(move |key: &u64, value: &u64| {
            let is_up = up.load(SeqCst);
            if is_up {
                disk.write(*key, *value);
            }
            is_up
        })
        .build()
        .unwrap();
    assert!(cache.insert(1, 10).is_in());
    clock.advance(Duration::from_secs(2));
    // While the store is down, no value is loaded that would be older than the entry.
    assert_eq!(*cache.get_or_insert_with(1, || unreachable!("the entry is newer")), 10);
    assert!(cache.claim_refresh(1).is_none());
    is_up.store(true, SeqCst);
    let guard = cache.claim_refresh(1).unwrap();
    assert_eq!(store.read(1), 10);
    assert_eq!(*guard.fill(store.read(1)), 10);
}

#[test]
fn no_call_tries_all_that_cannot_be_written() {
    let (cache, store, clock, is_up) = of_a_second(1_000);
    (0..1_000).for_each(|key| assert!(cache.insert(key, 10).is_in()));
    clock.advance(Duration::from_secs(2));
    is_up.store(false, SeqCst);
    let mut rejected = 0;
    for key in 1_000..1_050 {
        let before = store.writes.load(SeqCst);
        rejected += usize::from(!cache.insert(key, 0).is_in());
        let writes = store.writes.load(SeqCst) - before;
        assert!(writes <= 100, "{writes} in one call");
    }
    assert!(rejected > 40, "{rejected} of 50");
    // The rest is retried by the next tick, and none within a second.
    cache.tick(WorkLimit::ALL);
    let before = store.writes.load(SeqCst);
    assert_eq!(cache.tick(WorkLimit::evictions(0)).expired, 0);
    assert_eq!(store.writes.load(SeqCst), before);
    clock.advance(Duration::from_secs(1));
    assert_eq!(cache.tick(WorkLimit::evictions(10)).expired, 0);
    assert_eq!(store.writes.load(SeqCst), before + 10, "as many as the call may do");
    is_up.store(true, SeqCst);
    clock.advance(Duration::from_secs(1));
    assert_eq!(cache.tick(WorkLimit::ALL).expired, 1_000);
    assert!((0..1_000).all(|key| store.read(key) == 10));
    audit(&cache);
}

#[test]
fn lowered_budget_loses_nothing_where_the_table_is_crowded() {
    let (cache, store) = written_back(40_000, Maintenance::Manual);
    (0..40_000).for_each(|key| assert!(cache.insert(key, key + 1).is_in()));
    cache.set_max_cost(30_000);
    for limit in [20_000, 3_000, 100] {
        cache.set_max_cost(limit);
        assert!(cache.cost() <= limit);
        for key in 0..40_000 {
            let value = cache.get_cloned(&key).unwrap_or_else(|| store.read(key));
            assert_eq!(value, key + 1, "with {limit}");
        }
    }
    audit(&cache);
}

#[test]
fn lowered_budget_waits_for_writes_in_progress() {
    let (store, stops_next) = (Arc::<Store>::default(), Arc::new(AtomicBool::new(false)));
    let (disk, stops) = (Arc::clone(&store), Arc::clone(&stops_next));
    let (entered, is_entered) = mpsc::channel();
    let (go, may_go) = mpsc::channel::<()>();
    let may_go = Mutex::new(may_go);
    let cache: Cache<u64, u64> = builder(2_000, Maintenance::Manual)
        .write_back(move |key: &u64, value: &u64| {
            if stops.swap(false, SeqCst) {
                entered.send(()).unwrap();
                may_go.lock().unwrap().recv().unwrap();
            }
            disk.write(*key, *value);
            true
        })
        .build()
        .unwrap();
    (0..2_000).for_each(|key| assert!(cache.insert(key, key + 1).is_in()));
    stops_next.store(true, SeqCst);
    thread::scope(|scope| {
        scope.spawn(|| (5_000..5_010).for_each(|key| assert!(cache.insert(key, 1).is_in())));
        is_entered.recv().unwrap();
        scope.spawn(|| cache.set_max_cost(1));
        // Many are evicted, until one has to wait for the entry that is being written.
        while cache.len() > 1_900 {
            thread::yield_now();
        }
        (0..10_000).for_each(|_| thread::yield_now());
        go.send(()).unwrap();
    });
    assert!(cache.len() <= 1);
    for key in 0..2_000 {
        let value = cache.get_cloned(&key).unwrap_or_else(|| store.read(key));
        assert_eq!(value, key + 1);
    }
}

#[test]
fn function_that_calls_the_cache_does_not_wait_for_itself() {
    let handle: Arc<Mutex<Option<Cache<u64, u64>>>> = Arc::default();
    let (of_hook, is_done) = (Arc::clone(&handle), Arc::new(AtomicBool::new(false)));
    let (done, clock) = (Arc::clone(&is_done), ManualClock::new());
    let cache: Cache<u64, u64> = builder(100, Maintenance::Manual)
        .clock(clock.clone())
        .ttl(Duration::from_secs(1))
        .write_back(move |key: &u64, _| {
            let cache = of_hook.lock().unwrap().take();
            if let Some(cache) = cache {
                for other in (0..100).filter(|other| other != key) {
                    // It has expired, like all others.
                    assert_eq!(*cache.get_or_insert_with(other, || 7), 7);
                }
                cache.set_max_cost(50);
                done.store(true, SeqCst);
            }
            true
        })
        .build()
        .unwrap();
    (0..100).for_each(|key| assert!(cache.insert(key, 1).is_in()));
    clock.advance(Duration::from_secs(2));
    *handle.lock().unwrap() = Some(cache.clone());
    assert_eq!(*cache.get_or_insert_with(3, || 7), 7);
    assert!(is_done.load(SeqCst) && cache.cost() <= 50);
    cache.tick(WorkLimit::ALL);
    audit(&cache);
}

#[test]
fn entry_that_is_pinned_while_it_is_written_remains() {
    let handle: Arc<Mutex<Option<Cache<u64, u64>>>> = Arc::default();
    let of_hook = Arc::clone(&handle);
    let cache: Cache<u64, u64> = builder(100, Maintenance::Manual)
        .can_evict(|_: &u64, _| false)
        .write_back(move |key: &u64, _| {
            let cache = of_hook.lock().unwrap().clone();
            if let Some(cache) = cache.filter(|_| key.is_multiple_of(10)) {
                assert!(cache.set_priority(key, Priority::Pinned));
            }
            true
        })
        .build()
        .unwrap();
    *handle.lock().unwrap() = Some(cache.clone());
    (0..100).for_each(|key| assert!(cache.insert(key, 1).is_in()));
    cache.set_max_cost(20);
    *handle.lock().unwrap() = None;
    assert!((0..100).step_by(10).all(|key| cache.contains_key(&key)));
    assert!(cache.cost() <= 20);
    audit(&cache);
}

/// Gives all keys one hash, and so one turn.
#[derive(Clone, Default)]
struct OneHash;

impl BuildHasher for OneHash {
    type Hasher = Self;

    fn build_hasher(&self) -> Self {
        Self
    }
}

impl Hasher for OneHash {
    fn write(&mut self, _: &[u8]) {}

    fn finish(&self) -> u64 {
        42
    }
}

#[test]
fn functions_of_two_caches_that_call_each_other_do_not_wait_forever() {
    type Handles = Arc<Mutex<Vec<Cache<u64, u64, OneHash>>>>;
    let (handles, barrier) = (Handles::default(), Arc::new(Barrier::new(2)));
    let clock = ManualClock::new();
    let build = |other: usize| {
        let (handles, barrier) = (Arc::clone(&handles), Arc::clone(&barrier));
        let is_first = AtomicBool::new(true);
        builder(10, Maintenance::Manual)
            .hasher(OneHash)
            .clock(clock.clone())
            .ttl(Duration::from_secs(1))
            .write_back(move |_: &u64, _: &u64| {
                if is_first.swap(false, SeqCst) {
                    // Both threads are in a function now, and each asks for what the other holds.
                    barrier.wait();
                    let other = handles.lock().unwrap()[other].clone();
                    assert_eq!(*other.get_or_insert_with(1, || 7), 7);
                    barrier.wait();
                }
                true
            })
            .build()
            .unwrap()
    };
    let caches = [build(1), build(0)];
    *handles.lock().unwrap() = caches.to_vec();
    for cache in &caches {
        (0..2).for_each(|key| assert!(cache.insert(key, 1).is_in()));
    }
    clock.advance(Duration::from_secs(2));
    thread::scope(|scope| {
        for cache in &caches {
            scope.spawn(|| assert_eq!(*cache.get_or_insert_with(0, || 7), 7));
        }
    });
    handles.lock().unwrap().clear();
}

#[test]
fn function_that_loads_does_not_wait_for_a_load_that_waits_for_it() {
    for is_task in [false, true] {
        let handle: Arc<Mutex<Option<Cache<u64, u64>>>> = Arc::default();
        let of_hook = Arc::clone(&handle);
        let (clock, (entered, is_entered)) = (ManualClock::new(), mpsc::channel());
        let cache: Cache<u64, u64> = builder(100, Maintenance::Manual)
            .clock(clock.clone())
            .ttl(Duration::from_secs(1))
            .write_back(move |key, _| {
                let cache = of_hook.lock().unwrap().take();
                if let Some(cache) = cache {
                    entered.send(()).unwrap();
                    // By now another thread asks for the key, too.
                    (0..10_000).for_each(|_| thread::yield_now());
                    assert_eq!(*cache.get_or_insert_with(*key, || 7), 7);
                }
                true
            })
            .build()
            .unwrap();
        assert!(cache.insert(1, 1).is_in());
        clock.advance(Duration::from_secs(2));
        *handle.lock().unwrap() = Some(cache.clone());
        thread::scope(|scope| {
            scope.spawn(|| cache.tick(WorkLimit::ALL));
            is_entered.recv().unwrap();
            if is_task {
                let put = async |value: Option<u64>| ComputeOp::Put(value.unwrap_or(7));
                assert_ne!(block_on(cache.compute_async(1, put)), ComputeResult::Kept(None));
            } else {
                assert_eq!(*cache.get_or_insert_with(1, || 7), 7);
            }
        });
        audit(&cache);
    }
}

#[test]
fn refresh_that_cannot_begin_is_no_failed_load_and_is_not_tried_at_once() {
    let (clock, writes) = (ManualClock::new(), Arc::new(AtomicUsize::new(0)));
    let counted = Arc::clone(&writes);
    let cache: Cache<u64, u64> = builder(100, Maintenance::Manual)
        .clock(clock.clone())
        .metrics(true)
        .refresh_after(Duration::from_secs(1))
        .write_back(move |_: &u64, _: &u64| {
            counted.fetch_add(1, SeqCst);
            false
        })
        .build()
        .unwrap();
    assert!(cache.insert(1, 10).is_in());
    clock.advance(Duration::from_secs(2));
    for _ in 0..10 {
        assert_eq!(*cache.get_or_insert_with(1, || unreachable!("it cannot be written")), 10);
    }
    assert_eq!((writes.load(SeqCst), cache.metrics().load_failures), (1, 0));
    clock.advance(Duration::from_secs(1));
    assert_eq!(*cache.get_or_insert_with(1, || unreachable!("it cannot be written")), 10);
    assert_eq!(writes.load(SeqCst), 2);
}
