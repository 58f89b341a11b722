//! Refreshing: one load at a time of a key whose entry is still served.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    thread,
    time::Duration,
};

use cortado::{
    BuildError, Cache, ComputeOp, Config, InsertOptions, Maintenance, ManualClock, RemovalCause,
};

use crate::{
    builder,
    support::{settle, tasks::block_on},
};

const MINUTE: Duration = Duration::from_secs(60);

fn aging() -> (Cache<u64, u64>, ManualClock) {
    let clock = ManualClock::new();
    let builder = builder(1000, Maintenance::Manual).clock(clock.clone()).metrics(true);
    (builder.refresh_after(MINUTE).ttl(10 * MINUTE).build().unwrap(), clock)
}

#[test]
fn loaders_refresh_old_entries_and_reads_do_not() {
    let (cache, clock) = aging();
    cache.insert(1, 10);
    clock.advance(MINUTE - Duration::from_nanos(1));
    assert_eq!(*cache.get_or_insert_with(1, || unreachable!()), 10);
    clock.advance(Duration::from_nanos(1));
    assert_eq!((cache.get_cloned(&1), cache.peek(&1).map(|it| *it)), (Some(10), Some(10)));
    assert_eq!(*cache.get_or_insert_with(1, || 11), 11);
    assert_eq!(*cache.get_or_insert_with(1, || unreachable!()), 11);
    clock.advance(MINUTE);
    assert_eq!(block_on(cache.get_or_insert_async(1, async { 12 })), 12);
    clock.advance(MINUTE);
    let load = async |key: &u64| key + 12;
    assert_eq!(block_on(cache.get_or_insert_with_key_async(1, load)), 13);
    clock.advance(MINUTE);
    assert_eq!(*cache.entry_ref(&1).or_load(|| (14, InsertOptions::new().cost(5))), 14);
    assert_eq!((cache.len(), cache.cost()), (1, 5));
    let metrics = cache.metrics();
    assert_eq!((metrics.refreshes, metrics.loads, metrics.misses), (4, 4, 0));
}

#[test]
fn failed_refresh_serves_the_old_value_until_its_time_is_over() {
    let (cache, clock) = aging();
    cache.insert(1, 10);
    let loads = AtomicUsize::new(0);
    let fail = || {
        loads.fetch_add(1, SeqCst);
        Err::<u64, _>("down")
    };
    for minute in 1..10 {
        clock.advance(MINUTE);
        for _ in 0..3 {
            assert_eq!(cache.try_get_or_insert_with(1, fail).map(|it| *it), Ok(10));
        }
        assert_eq!(loads.load(SeqCst), minute, "one try a minute");
    }
    assert_eq!(block_on(cache.try_get_or_insert_async(1, async { fail() })), Ok(10));
    clock.advance(MINUTE);
    let result = cache.try_get_or_insert_with(1, fail).map(|it| *it);
    assert_eq!(result, Err("down"), "it was served for ten minutes");
    assert_eq!(cache.metrics().load_failures, 10);
}

#[test]
fn one_caller_refreshes_and_the_others_get_the_old_value_at_once() {
    let (cache, clock) = aging();
    cache.insert(1, 10);
    clock.advance(MINUTE);
    let value = cache.get_or_insert_with(1, || {
        // From within the load: like any other caller, and without waiting for the load.
        assert_eq!(*cache.get_or_insert_with(1, || unreachable!()), 10);
        assert!(cache.claim_refresh(1).is_none());
        thread::scope(|scope| {
            let others = (0..20).map(|_| {
                scope.spawn(|| {
                    assert_eq!(*cache.get_or_insert_with(1, || unreachable!()), 10);
                    assert_eq!(block_on(cache.get_or_insert_async(1, async { 0 })), 10);
                    assert!(cache.claim_refresh(1).is_none());
                })
            });
            others.collect::<Vec<_>>().into_iter().for_each(|other| other.join().unwrap());
        });
        11
    });
    assert_eq!(*value, 11);
}

#[test]
fn refreshed_value_replaces_the_old_one_and_a_newer_write_wins() {
    let told = Arc::new(std::sync::Mutex::new(Vec::new()));
    let teller = Arc::clone(&told);
    let builder = builder(1000, Maintenance::Manual);
    let cache: Cache<u64, u64> = builder
        .on_remove(move |gone| teller.lock().unwrap().push((gone.value, gone.cause)))
        .build()
        .unwrap();
    cache.insert(1, 10);
    let guard = cache.claim_refresh(1).unwrap();
    assert_eq!(cache.get_cloned(&1), Some(10), "it is still served");
    assert_eq!(*guard.fill(11), 11);
    settle(&cache);
    assert_eq!(told.lock().unwrap().split_off(0), [(10, RemovalCause::Replaced)]);

    let guard = cache.claim_refresh(1).unwrap();
    cache.insert(1, 20);
    assert_eq!(*guard.fill(12), 20, "what was loaded may be older than the write");
    assert_eq!(cache.get_cloned(&1), Some(20));

    let guard = cache.claim_refresh(1).unwrap();
    assert!(cache.remove(&1).is_some());
    assert_eq!(*guard.fill(21), 21);
    assert_eq!(cache.get_cloned(&1), None, "it was removed after the load began");
    assert!(cache.claim_refresh(1).is_none(), "there is nothing to refresh");
}

#[test]
fn dropped_and_failed_guards_leave_the_entry() {
    let (cache, clock) = aging();
    cache.insert(1, 10);
    clock.advance(MINUTE);
    drop(cache.claim_refresh(1).unwrap());
    assert_eq!(cache.get_cloned(&1), Some(10));
    let guard = cache.claim_refresh(1).unwrap();
    assert_eq!(cache.entry_info(&1).unwrap().age, Some(MINUTE));
    assert_eq!(guard.fail(Arc::new("down")).map(|old| *old), Some(10));
    assert_eq!(cache.entry_info(&1).unwrap().age, Some(Duration::ZERO), "its age restarts");
    assert_eq!(*cache.get_or_insert_with(1, || unreachable!("it is not due")), 10);
    clock.advance(MINUTE);
    assert_eq!(*cache.get_or_insert_with(1, || 11), 11);
}

#[test]
fn callers_wait_for_the_refresh_of_an_entry_that_has_left() {
    let clock = ManualClock::new();
    let builder = builder(1000, Maintenance::Manual).clock(clock.clone()).metrics(true);
    let cache: Cache<u64, u64> = builder.ttl(MINUTE).build().unwrap();
    cache.insert(1, 10);
    let guard = cache.claim_refresh(1).unwrap();
    clock.advance(MINUTE);
    assert!(!cache.contains_key(&1));
    thread::scope(|scope| {
        let waiting = scope.spawn(|| *cache.get_or_insert_with(1, || unreachable!("it is loaded")));
        while cache.metrics().coalesced == 0 {
            thread::yield_now();
        }
        assert_eq!(*guard.fill(11), 11);
        assert_eq!(waiting.join().unwrap(), 11);
    });
}

#[test]
fn rejected_refresh_removes_the_old_value() {
    let (cache, clock) = aging();
    cache.insert(1, 10);
    clock.advance(MINUTE);
    let load = || (11, InsertOptions::new().ttl(Duration::ZERO));
    assert_eq!(*cache.entry(1).or_load(load), 11);
    assert!(!cache.contains_key(&1));
    cache.insert(1, 20);
    clock.advance(MINUTE);
    let load = || (21, InsertOptions::new().cost(2000));
    assert_eq!(*cache.entry(1).or_load(load), 21);
    assert!(!cache.contains_key(&1));
}

#[test]
fn refreshing_is_a_setting_that_excludes_idle_times() {
    let both = Cache::<u64, u64>::builder().max_cost(10).refresh_after(MINUTE).tti(MINUTE);
    assert_eq!(both.build().unwrap_err(), BuildError::RefreshAndTti);
    let mut config = Config::default();
    (config.max_cost, config.refresh_after) = (10, Some(Duration::ZERO));
    let cache: Cache<u64, u64> = Cache::builder().config(config).build_manual().unwrap();
    cache.insert(1, 1);
    assert_eq!(*cache.get_or_insert_with(1, || 2), 2, "any age is old enough");
}

#[test]
fn write_that_changes_nothing_invalidates_no_refresh() {
    let (cache, _) = aging();
    cache.insert(1, 10);
    let guard = cache.claim_refresh(1).unwrap();
    assert!(!cache.insert_if_absent(1, 20).is_in());
    assert!(cache.remove_if(&1, |_| false).is_none());
    cache.compute(1, |_| ComputeOp::Keep);
    assert_eq!(*guard.fill(11), 11);
    assert_eq!((cache.get_cloned(&1), cache.metrics().refreshes), (Some(11), 1));
}

#[test]
fn refresh_counts_only_if_its_value_takes_the_place_of_the_old_one() {
    let (cache, _) = aging();
    cache.insert(1, 10);
    let writes: [fn(&Cache<u64, u64>); 2] =
        [|cache| assert!(cache.insert(1, 20).is_in()), |cache| drop(cache.remove(&1))];
    for write in writes {
        cache.insert(1, 10);
        let guard = cache.claim_refresh(1).unwrap();
        write(&cache);
        drop(guard.fill(11));
    }
    // In the middle of a write.
    cache.insert(1, 10);
    let mut guard = cache.claim_refresh(1);
    cache.compute(1, |_| {
        drop(guard.take().map(|guard| guard.fill(11)));
        ComputeOp::Remove
    });
    cache.insert(1, 10);
    drop(cache.claim_refresh(1).unwrap().fill_with(11, InsertOptions::new().cost(2000)));
    let metrics = cache.metrics();
    assert_eq!((metrics.loads, metrics.refreshes), (4, 0));
    cache.insert(1, 10);
    drop(cache.claim_refresh(1).unwrap().fill(11));
    assert_eq!(cache.metrics().refreshes, 1);
}
