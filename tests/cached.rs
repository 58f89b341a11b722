//! Memoized functions: the macros of the `cached` crate, and its traits.

use std::{
    convert::Infallible,
    future::Future,
    sync::{
        Barrier, LazyLock,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    thread,
    time::Duration,
};

use cached::{
    Cached, ConcurrentCacheBase, ConcurrentCachePeek, ConcurrentCached, ConcurrentCachedAsync,
    macros::{cached, concurrent_cached},
};
use cortado::{Cache, CacheBuilder, Maintenance, ManualClock, integrations::cached::Store};

#[test]
fn function_runs_once_for_a_key() {
    static RUNS: AtomicU64 = AtomicU64::new(0);

    #[concurrent_cached(ty = "Store<u64, u64>", create = { Store::new(100) })]
    fn double(n: u64) -> Result<u64, Infallible> {
        RUNS.fetch_add(1, SeqCst);
        Ok(2 * n)
    }

    for _ in 0..3 {
        assert_eq!((double(1), double(2)), (Ok(2), Ok(4)));
    }
    assert_eq!(RUNS.load(SeqCst), 2);
    assert_eq!(DOUBLE.cache().len(), 2);
}

#[test]
fn locked_function_runs_once_for_a_key() {
    static RUNS: AtomicU64 = AtomicU64::new(0);

    #[cached(ty = "Store<u64, String>", create = { Store::new(100) })]
    fn text(n: u64) -> String {
        RUNS.fetch_add(1, SeqCst);
        n.to_string()
    }

    for _ in 0..3 {
        assert_eq!((text(1), text(2)), ("1".to_string(), "2".to_string()));
    }
    assert_eq!(RUNS.load(SeqCst), 2);
    assert_eq!(TEXT.read().cache().len(), 2);
}

#[test]
fn function_of_several_arguments_has_them_as_its_key() {
    #[concurrent_cached(ty = "Store<(String, u64), String>", create = { Store::new(100) })]
    fn repeat(text: &str, times: u64) -> Result<String, Infallible> {
        Ok(text.repeat(times as usize))
    }

    assert_eq!(repeat("ab", 2).as_deref(), Ok("abab"));
    assert!(REPEAT.cache().contains_key(&("ab".to_string(), 2)));
}

#[tokio::test]
async fn async_function_runs_once_for_a_key() {
    static RUNS: AtomicU64 = AtomicU64::new(0);

    #[concurrent_cached(ty = "Store<u64, u64>", create = { Store::new(100) })]
    async fn double(n: u64) -> Result<u64, Infallible> {
        RUNS.fetch_add(1, SeqCst);
        tokio::task::yield_now().await;
        Ok(2 * n)
    }

    for _ in 0..3 {
        // Spawned: the future is `Send`.
        assert_eq!(tokio::spawn(double(1)).await.unwrap(), Ok(2));
    }
    assert_eq!(RUNS.load(SeqCst), 1);
}

#[tokio::test]
async fn locked_async_function_runs_once_for_a_key() {
    static RUNS: AtomicU64 = AtomicU64::new(0);

    #[cached(ty = "Store<u64, u64>", create = { Store::new(100) }, sync_writes = true)]
    async fn double(n: u64) -> u64 {
        RUNS.fetch_add(1, SeqCst);
        tokio::task::yield_now().await;
        2 * n
    }

    let calls: Vec<_> = (0..8).map(|_| tokio::spawn(double(1))).collect();
    for call in calls {
        assert_eq!(call.await.unwrap(), 2);
    }
    assert_eq!(RUNS.load(SeqCst), 1);
}

#[test]
fn results_are_evicted_within_the_budget() {
    fn store() -> Store<u64, u64> {
        manual(10).cost_of(|_, _| 2).build().expect("a budget").into()
    }

    #[concurrent_cached(ty = "Store<u64, u64>", create = { store() })]
    fn double(n: u64) -> Result<u64, Infallible> {
        Ok(2 * n)
    }

    for n in 0..1000 {
        assert_eq!(double(n), Ok(2 * n));
        assert!(DOUBLE.cache().cost() <= 10);
    }
    let kept = DOUBLE.cache().len();
    assert!((1..=5).contains(&kept), "{kept} of 5");
}

#[test]
fn result_that_is_too_costly_is_returned_but_not_cached() {
    static RUNS: AtomicU64 = AtomicU64::new(0);

    fn store() -> Store<u64, String> {
        manual(10).cost_of(|_, text: &String| text.len() as u64).build().expect("a budget").into()
    }

    #[concurrent_cached(ty = "Store<u64, String>", create = { store() })]
    fn stars(n: u64) -> Result<String, Infallible> {
        RUNS.fetch_add(1, SeqCst);
        Ok("*".repeat(n as usize))
    }

    for _ in 0..2 {
        assert_eq!(stars(11).map(|text| text.len()), Ok(11));
    }
    assert_eq!((RUNS.load(SeqCst), STARS.cache().len()), (2, 0));
}

#[test]
fn function_runs_again_when_its_result_has_expired() {
    static RUNS: AtomicU64 = AtomicU64::new(0);
    static CLOCK: LazyLock<ManualClock> = LazyLock::new(ManualClock::new);

    fn store() -> Store<u64, u64> {
        let builder = manual(10).ttl(Duration::from_secs(60)).clock(CLOCK.clone());
        builder.build().expect("a budget").into()
    }

    #[concurrent_cached(ty = "Store<u64, u64>", create = { store() })]
    fn count(_n: u64) -> Result<u64, Infallible> {
        Ok(RUNS.fetch_add(1, SeqCst))
    }

    #[cached(ty = "Store<u64, u64>", create = { store() })]
    fn locked_count(_n: u64) -> u64 {
        RUNS.fetch_add(1, SeqCst)
    }

    assert_eq!((count(7), locked_count(7)), (Ok(0), 1));
    CLOCK.advance(Duration::from_secs(59));
    assert_eq!((count(7), locked_count(7)), (Ok(0), 1));
    CLOCK.advance(Duration::from_secs(2));
    assert_eq!((count(7), locked_count(7)), (Ok(2), 3));
    CLOCK.advance(Duration::from_secs(59));
    assert_eq!((count(7), locked_count(7)), (Ok(2), 3));
}

#[test]
fn errors_are_not_stored() {
    static RUNS: AtomicU64 = AtomicU64::new(0);

    #[concurrent_cached(
        ty = "Store<u64, u64>",
        create = { Store::new(10) },
        map_error = |never| -> String { match never {} }
    )]
    fn second_time(n: u64) -> Result<u64, String> {
        if RUNS.fetch_add(1, SeqCst) == 0 { Err("not yet".to_string()) } else { Ok(n) }
    }

    assert_eq!(second_time(1), Err("not yet".to_string()));
    assert!(SECOND_TIME.cache().is_empty());
    assert_eq!((second_time(1), second_time(1)), (Ok(1), Ok(1)));
    assert_eq!(RUNS.load(SeqCst), 2);
}

#[test]
fn errors_and_nones_are_not_stored_by_the_locked_macro() {
    static RUNS: AtomicU64 = AtomicU64::new(0);

    #[cached(ty = "Store<u64, u64>", create = { Store::new(10) })]
    fn odd(n: u64) -> Result<u64, &'static str> {
        RUNS.fetch_add(1, SeqCst);
        if n % 2 == 1 { Ok(n) } else { Err("even") }
    }

    #[cached(ty = "Store<u64, u64>", create = { Store::new(10) })]
    fn even(n: u64) -> Option<u64> {
        RUNS.fetch_add(1, SeqCst);
        n.is_multiple_of(2).then_some(n)
    }

    for _ in 0..2 {
        assert_eq!((odd(2), even(1)), (Err("even"), None));
    }
    assert_eq!(RUNS.load(SeqCst), 4);
    for _ in 0..2 {
        assert_eq!((odd(1), even(2)), (Ok(1), Some(2)));
    }
    assert_eq!(RUNS.load(SeqCst), 6);
}

#[tokio::test]
async fn errors_of_an_async_function_are_not_stored() {
    static RUNS: AtomicU64 = AtomicU64::new(0);

    #[concurrent_cached(
        ty = "Store<u64, u64>",
        create = { Store::new(10) },
        map_error = |never| -> u64 { match never {} }
    )]
    async fn fails(_n: u64) -> Result<u64, u64> {
        Err(RUNS.fetch_add(1, SeqCst))
    }

    assert_eq!((fails(1).await, fails(1).await), (Err(0), Err(1)));
    assert!(FAILS.get().expect("it was called").cache().is_empty());
}

#[test]
fn threads_share_what_a_function_returned() {
    static RUNS: AtomicU64 = AtomicU64::new(0);

    #[concurrent_cached(ty = "Store<u64, u64>", create = { Store::new(1000) })]
    fn square(n: u64) -> Result<u64, Infallible> {
        RUNS.fetch_add(1, SeqCst);
        Ok(n * n)
    }

    on_threads(|| {
        for n in (0..100).cycle().take(1000) {
            assert_eq!(square(n), Ok(n * n));
        }
    });
    // At most once per key and thread; the others were hits.
    let runs = RUNS.load(SeqCst);
    assert!((100..=100 * THREADS).contains(&runs), "{runs} runs");
    assert_eq!(SQUARE.cache().len(), 100);
}

#[test]
fn threads_that_lock_by_key_run_a_function_once() {
    static RUNS: AtomicU64 = AtomicU64::new(0);

    #[cached(ty = "Store<u64, u64>", create = { Store::new(1000) }, sync_writes = "by_key")]
    fn square(n: u64) -> u64 {
        RUNS.fetch_add(1, SeqCst);
        n * n
    }

    on_threads(|| {
        for n in 0..100 {
            assert_eq!(square(n), n * n);
        }
    });
    assert_eq!(RUNS.load(SeqCst), 100);
}

#[test]
fn threads_that_load_through_the_trait_load_once() {
    let store = Store::new(10);
    let loads = AtomicU64::new(0);
    on_threads(|| {
        let load = || loads.fetch_add(1, SeqCst);
        assert_eq!(ConcurrentCached::cache_get_or_set_with(&store, 1, load), Ok(0));
    });
    assert_eq!(loads.load(SeqCst), 1);
}

#[tokio::test]
async fn tasks_that_load_through_the_trait_load_once() {
    static STORE: LazyLock<Store<u64, u64>> = LazyLock::new(|| Store::new(10));
    static LOADS: AtomicU64 = AtomicU64::new(0);

    let call = || async {
        let load = || async {
            tokio::task::yield_now().await;
            Ok::<_, String>(LOADS.fetch_add(1, SeqCst))
        };
        STORE.async_cache_try_get_or_set_with(1, load).await
    };
    let calls: Vec<_> = (0..8).map(|_| tokio::spawn(call())).collect();
    for call in calls {
        assert_eq!(call.await.unwrap(), Ok(Ok(0)));
    }
    assert_eq!(LOADS.load(SeqCst), 1);
    let failed = STORE.async_cache_try_get_or_set_with(2, || async { Err("no") }).await;
    assert_eq!(failed, Ok(Err("no")));
    assert_eq!(STORE.cache().len(), 1);
}

#[test]
fn concurrent_traits_return_the_previous_value() {
    let store = Store::from(manual(10).build().expect("a budget"));
    assert_eq!(ConcurrentCached::cache_set(&store, 1, 'a'), Ok(None));
    assert_eq!(ConcurrentCached::cache_set(&store, 1, 'b'), Ok(Some('a')));
    assert_eq!(ConcurrentCached::cache_get(&store, &1), Ok(Some('b')));
    assert_eq!(store.cache_peek(&1), Ok(Some('b')));
    assert_eq!(ConcurrentCached::cache_remove(&store, &1), Ok(Some('b')));
    assert_eq!(ConcurrentCached::cache_remove(&store, &1), Ok(None));
    assert_eq!(ConcurrentCached::cache_set(&store, 2, 'c'), Ok(None));
    assert_eq!(ConcurrentCached::cache_contains(&store, &2), Ok(true));
    assert_eq!(ConcurrentCached::cache_remove_entry(&store, &2), Ok(Some((2, 'c'))));
    assert_eq!(ConcurrentCached::cache_delete(&store, &2), Ok(false));
    assert_eq!(ConcurrentCached::cache_set(&store, 3, 'd'), Ok(None));
    assert_eq!(ConcurrentCached::cache_clear(&store), Ok(()));
    assert_eq!(ConcurrentCacheBase::cache_size(&store), Ok(Some(0)));
}

#[tokio::test]
async fn async_traits_return_the_previous_value() {
    let store = Store::new(10);
    assert_eq!(is_send(store.async_cache_set(1, 'a')).await, Ok(None));
    assert_eq!(is_send(store.async_cache_set(1, 'b')).await, Ok(Some('a')));
    assert_eq!(is_send(store.async_cache_get(&1)).await, Ok(Some('b')));
    assert_eq!(is_send(store.async_cache_contains(&1)).await, Ok(true));
    assert_eq!(is_send(store.async_cache_remove_entry(&1)).await, Ok(Some((1, 'b'))));
    assert_eq!(is_send(store.async_cache_remove(&1)).await, Ok(None));
    assert_eq!(is_send(store.async_cache_delete(&1)).await, Ok(false));
    assert_eq!(is_send(store.async_cache_get_or_set_with(2, || async { 'c' })).await, Ok('c'));
    assert_eq!(is_send(store.async_cache_clear()).await, Ok(()));
    assert!(store.cache().is_empty());
}

#[test]
fn async_method_does_nothing_until_it_is_polled() {
    let store = Store::new(10);
    drop(store.async_cache_set(1, 1));
    assert!(store.cache().is_empty());
}

#[test]
fn expired_entry_is_a_miss_of_the_function() {
    let clock = ManualClock::new();
    let builder = manual(10).ttl(Duration::from_secs(1)).clock(clock.clone());
    let store = Store::from(builder.build().expect("a budget"));
    assert_eq!(ConcurrentCached::cache_set(&store, 1, 1), Ok(None));
    clock.advance(Duration::from_secs(2));
    assert_eq!(ConcurrentCached::cache_remove_entry(&store, &1), Ok(None));
    assert_eq!(ConcurrentCached::cache_delete(&store, &1), Ok(false));
    assert_eq!(ConcurrentCached::cache_set(&store, 1, 2), Ok(None));
}

#[test]
fn exclusive_trait_returns_the_previous_value() {
    let mut store = Store::<String, u64>::new(10);
    assert_eq!(Cached::cache_get(&mut store, "a"), None);
    assert_eq!(Cached::cache_set(&mut store, "a".to_string(), 1), None);
    assert_eq!(Cached::cache_set(&mut store, "a".to_string(), 2), Some(1));
    assert_eq!(Cached::cache_get(&mut store, "a"), Some(&2));
    assert!(Cached::cache_contains(&mut store, "a"));
    assert_eq!(Cached::cache_get_or_set_with(&mut store, "a".to_string(), || 3), &2);
    assert_eq!(Cached::cache_get_or_set_with(&mut store, "b".to_string(), || 3), &3);
    let failed = Cached::cache_try_get_or_set_with(&mut store, "c".to_string(), || Err("no"));
    assert_eq!(failed, Err("no"));
    assert_eq!(Cached::cache_size(&store), 2);
    assert_eq!(Cached::cache_remove(&mut store, "a"), Some(2));
    assert_eq!(Cached::cache_remove_entry(&mut store, "b"), Some(("b".to_string(), 3)));
    assert!(!Cached::cache_delete(&mut store, "b"));
    assert_eq!(Cached::cache_capacity(&store), Some(10));
}

#[test]
fn write_through_a_reference_is_there_at_the_next_call() {
    let mut store = Store::<String, u64>::new(10);
    *store.cache_get_or_set_with_mut("a".to_string(), || 1) += 1;
    assert_eq!(Cached::cache_get(&mut store, "a"), Some(&2));
    *store.cache_get_mut("a").expect("it was set") += 1;
    assert_eq!(Cached::cache_remove(&mut store, "a"), Some(3));
    assert_eq!(Cached::cache_get(&mut store, "a"), None);
}

#[test]
fn write_through_a_reference_does_not_restore_a_removed_entry() {
    let mut store = Store::<u64, u64>::new(10);
    *store.cache_get_or_set_with_mut(1, || 1) += 1;
    store.cache().remove(&1);
    assert_eq!(Cached::cache_get(&mut store, &1), None);
}

#[test]
fn write_through_a_reference_keeps_the_deadline() {
    let clock = ManualClock::new();
    let builder = manual(10).ttl(Duration::from_secs(10)).clock(clock.clone());
    let mut store = Store::<u64, u64>::from(builder.build().expect("a budget"));
    store.cache_get_or_set_with_mut(1, || 1);
    clock.advance(Duration::from_secs(6));
    *store.cache_get_mut(&1).expect("it lives") += 1;
    assert_eq!(Cached::cache_get(&mut store, &1), Some(&2));
    clock.advance(Duration::from_secs(6));
    assert_eq!(Cached::cache_get(&mut store, &1), None);
}

#[test]
fn counters_are_those_of_the_cache() {
    let store = Store::from(manual(10).metrics(true).build().expect("a budget"));
    assert_eq!(ConcurrentCacheBase::cache_hits(&store), None);
    assert_eq!(ConcurrentCached::cache_get(&store, &1), Ok(None));
    assert_eq!(ConcurrentCached::cache_set(&store, 1, 1), Ok(None));
    assert_eq!(ConcurrentCached::cache_get(&store, &1), Ok(Some(1)));
    let metrics = ConcurrentCacheBase::metrics(&store);
    assert_eq!((metrics.hits, metrics.misses, metrics.evictions), (Some(1), Some(1), Some(0)));
    assert_eq!((metrics.entry_count, metrics.capacity), (Some(1), Some(10)));

    let uncounted = Store::from(manual(10).build().expect("a budget"));
    assert_eq!(ConcurrentCached::cache_set(&uncounted, 1, 1), Ok(None));
    assert_eq!(ConcurrentCacheBase::cache_misses(&uncounted), None);
}

const THREADS: u64 = 4;

/// A builder for caches without a maintenance thread.
fn manual<K, V>(max_cost: u64) -> CacheBuilder<K, V> {
    Cache::builder().max_cost(max_cost).maintenance(Maintenance::Manual)
}

fn on_threads(f: impl Fn() + Sync) {
    let barrier = Barrier::new(THREADS as usize);
    thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                barrier.wait();
                f();
            });
        }
    });
}

fn is_send<F: Future + Send>(future: F) -> F {
    future
}
