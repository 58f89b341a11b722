//! The entry API: borrowed keys, loaders with options, shared errors.

use std::{
    cell::Cell,
    collections::HashSet,
    future::{Future, poll_fn},
    pin::pin,
    sync::{
        Arc, Barrier,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    thread,
    time::Duration,
};

use cortado::{
    Cache, Claim, ComputeOp, ComputeResult, InsertOptions, Maintenance, ManualClock, Priority,
    WaitPolicy,
};

use crate::{
    builder,
    support::tasks::{block_on, give_way},
};

const MINUTE: Duration = Duration::from_secs(60);

fn cache() -> Cache<u64, u64> {
    builder(1000, Maintenance::Manual).metrics(true).build().unwrap()
}

/// A key that counts its clones.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Name(String);

thread_local! {
    static CLONES: Cell<usize> = const { Cell::new(0) };
}

impl Clone for Name {
    fn clone(&self) -> Self {
        CLONES.set(CLONES.get() + 1);
        Self(self.0.clone())
    }
}

#[test]
fn borrowed_key_is_cloned_only_if_it_is_loaded() {
    let cache: Cache<Name, u64> = builder(1000, Maintenance::Manual).build().unwrap();
    let name = Name("four".into());
    assert_eq!(*cache.entry_ref(&name).or_insert_with(|| 4), 4);
    assert_eq!(CLONES.get(), 1);
    assert_eq!(*cache.entry_ref(&name).or_insert_with(|| unreachable!()), 4);
    let again = cache.entry_ref(&name).or_insert_async(async { unreachable!() });
    assert_eq!((block_on(again), CLONES.get()), (4, 1));
    let strings: Cache<String, usize> = Cache::new(10);
    let load = || Ok::<_, ()>("four".len());
    assert_eq!(strings.entry_ref("four").or_try_insert_with(load).map(|it| *it), Ok(4));
}

#[test]
fn loader_names_cost_priority_and_time_to_live() {
    let clock = ManualClock::new();
    let builder = builder(1000, Maintenance::Manual).clock(clock.clone());
    let cache: Cache<u64, u64> = builder.build().unwrap();
    let options = InsertOptions::new().cost(30).priority(Priority::High).ttl(MINUTE);
    let check = |key| {
        let info = cache.entry_info(&key).unwrap();
        assert_eq!((info.cost, info.priority, info.ttl), (30, Priority::High, Some(MINUTE)));
    };
    assert_eq!(*cache.entry(1).or_load(|| (10, options)), 10);
    assert_eq!(cache.entry(2).or_try_load(|| Ok::<_, ()>((20, options))).map(|it| *it), Ok(20));
    let shared = cache.entry(3).or_try_load_shared(|| Ok::<_, ()>((30, options)));
    assert_eq!(shared.map(|it| *it), Ok(30));
    block_on(async {
        assert_eq!(cache.entry(4).or_load_async(async { (40, options) }).await, 40);
        let load = async { Ok::<_, ()>((50, options)) };
        assert_eq!(cache.entry(5).or_try_load_async(load).await, Ok(50));
        let load = async { Ok::<_, ()>((60, options)) };
        assert_eq!(cache.entry(6).or_try_load_shared_async(load).await, Ok(60));
    });
    (1..=6).for_each(check);
    assert_eq!((cache.len(), cache.cost()), (6, 180));
    clock.advance(MINUTE);
    assert!((1..=6).all(|key| !cache.contains_key(&key)));
}

#[test]
fn cached_entry_is_returned_by_every_method_without_a_load() {
    let cache = cache();
    cache.insert(1, 7);
    let entry = || cache.entry(1);
    assert_eq!(*entry().or_insert(8), 7);
    assert_eq!(*entry().or_insert_with(|| unreachable!()), 7);
    assert_eq!(*entry().or_load(|| unreachable!()), 7);
    assert_eq!(entry().or_try_insert_with(|| Err(8)).map(|it| *it), Ok(7));
    assert_eq!(entry().or_try_load(|| Err(8)).map(|it| *it), Ok(7));
    assert_eq!(entry().or_try_load_shared(|| Err(8)).map(|it| *it), Ok(7));
    block_on(async {
        assert_eq!(entry().or_insert_async(async { 8 }).await, 7);
        assert_eq!(entry().or_load_async(async { unreachable!() }).await, 7);
        assert_eq!(entry().or_try_insert_async(async { Err(8) }).await, Ok(7));
        assert_eq!(entry().or_try_load_async(async { Err(8) }).await, Ok(7));
        assert_eq!(entry().or_try_load_shared_async(async { Err(8) }).await, Ok(7));
    });
    let computed = entry().and_compute_with(|value| ComputeOp::Put(value.unwrap() + 1));
    assert_eq!(computed.cloned(), ComputeResult::Updated(8));
    assert_eq!(cache.get_cloned(&1), Some(8));
}

#[test]
fn tasks_that_wait_share_the_error_of_one_load() {
    let (cache, loads) = (Arc::new(cache()), Arc::new(AtomicUsize::new(0)));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(4).build().unwrap();
    runtime.block_on(async {
        let tasks: Vec<_> = (0..50)
            .map(|_| {
                let (cache, loads) = (Arc::clone(&cache), Arc::clone(&loads));
                tokio::spawn(async move {
                    let load = async {
                        loads.fetch_add(1, SeqCst);
                        // All of them ask before the load fails.
                        while cache.metrics().coalesced < 49 {
                            give_way().await;
                        }
                        Err::<(u64, InsertOptions), _>("down".to_owned())
                    };
                    let loaded = cache.entry(1).or_try_load_shared_async(load);
                    loaded.await
                })
            })
            .collect();
        let mut errors = HashSet::new();
        for task in tasks {
            let error = task.await.unwrap().unwrap_err();
            assert_eq!(*error, "down");
            errors.insert(Arc::as_ptr(&error).addr());
        }
        assert_eq!(errors.len(), 1, "each has the same error");
    });
    assert_eq!(loads.load(SeqCst), 1);
    let metrics = cache.metrics();
    assert_eq!((metrics.misses, metrics.coalesced, metrics.load_failures), (1, 49, 1));
    // The next caller loads again.
    assert_eq!(*cache.entry(1).or_insert(3), 3);
}

#[test]
fn threads_that_wait_share_an_error_of_their_type_and_load_after_another() {
    let cache = &cache();
    let loads = AtomicUsize::new(0);
    let (loads, is_seen) = (&loads, &AtomicBool::new(false));
    let load = move || {
        loads.fetch_add(1, SeqCst);
        // A value that is present by then would be returned instead of the error.
        while !is_seen.load(SeqCst) {
            thread::yield_now();
        }
        7
    };
    let failing = Barrier::new(2);
    thread::scope(|scope| {
        let leader = scope.spawn(|| {
            let fail = || {
                failing.wait();
                while cache.metrics().coalesced < 3 {
                    thread::yield_now();
                }
                Err::<(u64, InsertOptions), _>("down")
            };
            cache.entry(1).or_try_load_shared(fail).map(|value| *value)
        });
        failing.wait();
        let same = scope.spawn(move || {
            let load = || -> Result<_, &str> { unreachable!("it gets the error") };
            let loaded = cache.entry(1).or_try_load_shared(load).map(|value| *value);
            is_seen.store(true, SeqCst);
            loaded
        });
        // The first of these two callers loads for both.
        let other_type = scope.spawn(move || {
            let load = || Ok::<_, u32>((load(), InsertOptions::new()));
            cache.entry(1).or_try_load_shared(load).map(|value| *value)
        });
        let unshared = scope.spawn(move || *cache.get_or_insert_with(1, load));
        assert_eq!(leader.join().unwrap().unwrap_err(), Arc::new("down"));
        assert_eq!(same.join().unwrap().unwrap_err(), Arc::new("down"));
        assert_eq!(other_type.join().unwrap(), Ok(7));
        assert_eq!(unshared.join().unwrap(), 7);
    });
    assert_eq!(loads.load(SeqCst), 1);
}

#[test]
fn guard_that_fails_gives_its_error_to_those_that_wait() {
    let cache = cache();
    let Claim::Fill(guard) = cache.claim(1, WaitPolicy::No) else { unreachable!() };
    block_on(async {
        let load = async { unreachable!("it gets the error") };
        let mut waiting = pin!(cache.entry(1).or_try_load_shared_async::<String>(load));
        let mut guard = Some(guard);
        let error = poll_fn(|context| {
            let polled = waiting.as_mut().poll(context);
            if let Some(guard) = guard.take() {
                assert!(polled.is_pending());
                assert!(guard.fail(Arc::new("down".to_owned())).is_none());
            }
            polled
        })
        .await;
        assert_eq!(*error.unwrap_err(), "down");
        give_way().await;
    });
    assert_eq!((cache.metrics().load_failures, cache.len()), (1, 0));
}

#[test]
fn shared_error_is_dropped_with_its_last_owner() {
    let cache = cache();
    let error = Arc::new("down");
    let Claim::Fill(guard) = cache.claim(1, WaitPolicy::No) else { unreachable!() };
    let guard = guard.detach();
    thread::scope(|scope| {
        let waiting = scope.spawn(|| {
            let load = || -> Result<_, &str> { unreachable!("it gets the error") };
            cache.entry(1).or_try_load_shared(load).map(|value| *value)
        });
        while cache.metrics().coalesced == 0 {
            thread::yield_now();
        }
        guard.fail(Arc::clone(&error));
        let theirs = waiting.join().unwrap().unwrap_err();
        assert!(Arc::ptr_eq(&theirs, &error));
    });
    assert_eq!(Arc::strong_count(&error), 1);
}
