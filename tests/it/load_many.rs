//! Bulk loads: many keys with one call.

use std::{
    cell::Cell,
    future::pending,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::pin,
    sync::{
        Arc, Barrier, Mutex, OnceLock,
        atomic::{AtomicU64, AtomicUsize, Ordering::SeqCst},
    },
    task::{Context, Wake, Waker},
    thread,
    time::Duration,
};

use cortado::{Cache, Claim, Maintenance, Removed, WaitPolicy};

use crate::{
    builder,
    support::{eventually, tasks::block_on},
};

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
    // Duplicate keys are loaded once.
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
fn keys_without_a_value_are_missing_and_others_are_inserted() {
    let cache = cache();
    let values = cache.get_or_insert_many([1, 2], |_| [(2, 20), (9, 90)]);
    assert_eq!(values, [None, Some(20)]);
    assert!(!cache.contains_key(&1));
    assert_eq!(cache.get_cloned(&9), Some(90));
    // The right to load it was released.
    assert_eq!(*cache.get_or_insert_with(1, || 10), 10);
}

#[test]
fn error_is_returned_and_the_keys_can_be_loaded_again() {
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
    // The future is `Send`.
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
                // In opposite orders, so that each has keys that the other needs.
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
fn callers_of_one_key_wait_for_the_bulk_load_that_leads_it() {
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

/// A value whose clones leave garbage in the cache, so that a thread that may sweep has to.
#[derive(Debug, PartialEq)]
struct Messy(u64);

static MESSY: OnceLock<Cache<u64, Messy>> = OnceLock::new();

impl Clone for Messy {
    fn clone(&self) -> Self {
        litter();
        Self(self.0)
    }
}

fn litter() {
    let Some(cache) = MESSY.get() else { return };
    for key in 2_000_000..2_000_100 {
        _ = cache.insert(key, Messy(key));
        drop(cache.remove(&key));
    }
}

#[test]
fn listener_may_ask_for_any_key_of_a_bulk_load_in_which_it_runs() {
    static LOADING: AtomicU64 = AtomicU64::new(0);
    let [asked, held] = [(); 2].map(|()| Arc::new(AtomicUsize::new(0)));
    let counts = (Arc::clone(&asked), Arc::clone(&held));
    let cache = builder(1000, Maintenance::Manual)
        .on_remove(move |_: Removed<u64, Messy>| {
            let Some(cache) = MESSY.get() else { return };
            let first = LOADING.load(SeqCst);
            for key in first..first + 4 {
                // A claim that waited would wait for its own thread.
                let claim = cache.claim(key, WaitPolicy::For(Duration::ZERO));
                counts.1.fetch_add(usize::from(matches!(claim, Claim::Busy(_))), SeqCst);
            }
            counts.0.fetch_add(1, SeqCst);
        })
        .build()
        .unwrap();
    let cache = MESSY.get_or_init(|| cache);
    // Returns one more key than requested.
    let load = |keys: &[&u64]| {
        litter();
        let beside = keys[0] + 1_000_000;
        let all = keys.iter().map(|&&key| key).chain([beside]).rev();
        all.map(|key| (key, Messy(key))).collect::<Vec<_>>()
    };
    let load_async =
        |keys: Vec<u64>| async move { Ok::<_, ()>(load(&keys.iter().collect::<Vec<_>>())) };
    let mut first = 0;
    eventually("a removal is reported", || {
        first += 4;
        LOADING.store(first, SeqCst);
        // One of them is found when two are led already.
        assert!(cache.insert(first + 2, Messy(first + 2)).is_in());
        let keys = first..first + 4;
        let values = match first % 8 {
            0 => cache.get_or_insert_many(keys.clone(), load),
            _ => block_on(cache.try_get_or_insert_many_async(keys.clone(), load_async)).unwrap(),
        };
        assert!(values.into_iter().eq(keys.map(|key| Some(Messy(key)))));
        first >= 200 && asked.load(SeqCst) > 0
    });
    assert_eq!(held.load(SeqCst), 0, "keys that this thread holds");
}

thread_local! {
    /// The key that the next clone or cost computation of a value asks for.
    static WANTED: Cell<Option<u64>> = const { Cell::new(None) };
    /// How often that was refused, and how often it would have waited.
    static ANSWERS: Cell<(u32, u32)> = const { Cell::new((0, 0)) };
}

/// A value whose clones ask for a key.
#[derive(Debug, PartialEq)]
struct Curious(u64);

static CURIOUS: OnceLock<Cache<u64, Curious>> = OnceLock::new();

impl Clone for Curious {
    fn clone(&self) -> Self {
        ask();
        Self(self.0)
    }
}

/// Asks for the wanted key as a task that is polled once.
fn ask() {
    let (Some(key), Some(cache)) = (WANTED.take(), CURIOUS.get()) else { return };
    let (refused, waited) = ANSWERS.get();
    let asked = catch_unwind(AssertUnwindSafe(|| {
        let asking = pin!(cache.get_or_insert_async(key, pending()));
        let mut context = Context::from_waker(Waker::noop());
        assert!(asking.poll(&mut context).is_pending());
    }));
    ANSWERS.set(if asked.is_err() { (refused + 1, waited) } else { (refused, waited + 1) });
}

#[test]
fn clone_or_cost_function_that_asks_for_a_key_of_its_bulk_load_panics() {
    let cache = CURIOUS.get_or_init(|| {
        let cost_of = |_: &u64, _: &Curious| {
            ask();
            1
        };
        builder(1000, Maintenance::Manual).cost_of(cost_of).build().unwrap()
    });
    let load = |keys: &[&u64], wanted| {
        WANTED.set(wanted);
        keys.iter().map(|&&key| (key, Curious(key))).collect::<Vec<_>>()
    };
    for (n, is_task) in [(0, false), (10, true)] {
        assert!(cache.insert(n, Curious(n)).is_in());
        let get = |keys: [u64; 3], wanted| match is_task {
            false => cache.get_or_insert_many(keys, |keys| load(keys, wanted)),
            true => {
                let load = |keys: Vec<u64>| async move {
                    Ok::<_, ()>(load(&keys.iter().collect::<Vec<_>>(), wanted))
                };
                block_on(cache.try_get_or_insert_many_async(keys, load)).unwrap()
            }
        };
        // The value is cloned while the first key is led.
        WANTED.set(Some(n + 1));
        assert_eq!(get([n + 1, n, n + 2], None), [n + 1, n, n + 2].map(|key| Some(Curious(key))));
        // The cost of the first value is computed while the second key is still led.
        get([n + 3, n + 4, n + 5], Some(n + 4));
    }
    assert_eq!((ANSWERS.get(), WANTED.get()), ((4, 0), None));
}

#[test]
fn claim_on_the_thread_of_a_failed_bulk_load_is_busy() {
    /// Claims the other key when it is woken: at once, on the thread that completes the load.
    struct Woken(Arc<Cache<u64, u64>>, AtomicUsize);
    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            let claim = self.0.claim(2, WaitPolicy::Forever);
            self.1.store(if matches!(claim, Claim::Busy(2)) { 1 } else { 2 }, SeqCst);
        }
    }
    let cache = Arc::new(cache());
    let woken = Arc::new(Woken(Arc::clone(&cache), AtomicUsize::new(0)));
    let waker = Waker::from(Arc::clone(&woken));
    let mut following = None;
    let failed = cache.try_get_or_insert_many([1, 2], |_| {
        // Led by another thread, whose task waits for the first key.
        thread::scope(|scope| {
            let follow = || {
                let mut asking = Box::pin(cache.get_or_insert_async(1, pending()));
                assert!(asking.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
                asking
            };
            following = scope.spawn(follow).join().ok();
        });
        Err::<[(u64, u64); 0], _>("down")
    });
    assert_eq!((failed, woken.1.load(SeqCst)), (Err("down"), 1));
    drop(following);
    assert_eq!(*cache.get_or_insert_with(2, || 20), 20);
}

#[test]
fn extra_keys_of_a_loader_replace_nothing() {
    let cache = cache();
    assert!(cache.insert(3, 30).is_in());
    let Claim::Fill(guard) = block_on(cache.claim_async(4, pending())) else { unreachable!() };
    let mut guard = Some(guard);
    let values = cache.get_or_insert_many([1, 2, 3, 4], |missing| {
        assert_eq!(missing, [&1, &2]);
        assert!(cache.insert(9, 90).is_in());
        // A value that was found, and one that is written during the load: the loader's value may
        // be older.
        drop(cache.remove(&3));
        drop(cache.remove(&2));
        // A key that another caller loads.
        drop(guard.take().map(|guard| guard.fill(40)));
        [(1, 10), (1, 11), (2, 20), (2, 21), (3, 31), (4, 41), (8, 80), (9, 91)]
    });
    assert_eq!(values, [10, 20, 30, 40].map(Some));
    let cached = [1, 2, 3, 4, 8, 9].map(|key| cache.get_cloned(&key));
    assert_eq!(cached, [Some(10), None, None, Some(40), Some(80), Some(90)]);
}

#[test]
fn key_of_an_earlier_call_of_the_loader_is_not_brought_in_again() {
    let cache = cache();
    let Claim::Fill(guard) = block_on(cache.claim_async(2, pending())) else { unreachable!() };
    let mut guard = Some(guard);
    let mut calls = 0;
    let values = cache.get_or_insert_many([1, 2], |missing| {
        calls += 1;
        match calls {
            1 => {
                assert_eq!(missing, [&1]);
                drop(guard.take());
                vec![(1, 10)]
            }
            _ => {
                assert_eq!(missing, [&2]);
                drop(cache.remove(&1));
                vec![(1, 11), (2, 20)]
            }
        }
    });
    assert_eq!((values, calls), (vec![Some(10), Some(20)], 2));
    assert_eq!((cache.get_cloned(&1), cache.get_cloned(&2)), (None, Some(20)));
}
