//! Programs written for Stretto 0.9, and the guarantees of its public API, run against this crate.

#[path = "../../../tests/support/mod.rs"]
mod support;

use std::{
    borrow::Borrow,
    collections::HashSet,
    future::Future,
    hash::{BuildHasher, Hash},
    pin::pin,
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, Waker},
    thread,
    time::Duration,
};

use cortado::ManualClock;
use stretto::{
    AsyncCacheBuilder, Cache, CacheBuilder, CacheCallback, CacheError, Coster,
    DefaultCacheCallback, DefaultCoster, DefaultKeyBuilder, DefaultUpdateValidator, Item,
    KeyBuilder, TransparentKeyBuilder, UpdateValidator,
};

use crate::support::{Random, eventually, seed, tasks::block_on};

const SECOND: Duration = Duration::from_secs(1);

/// Programs modelled on Stretto's own: only their imports were changed.
mod programs {
    use super::*;

    #[test]
    fn sync_example_runs() {
        use stretto::Cache;

        let c = Cache::new(12960, 1e6 as i64).unwrap();
        c.insert("key1".to_string(), "value1".to_string(), 1);
        c.insert_with_ttl("key2".to_string(), "value2".to_string(), 1, 3 * SECOND);
        c.wait().unwrap();

        let key1 = "key1".to_string();
        let v = c.get(&key1).unwrap();
        assert_eq!(v.value(), &"value1");
        v.release();
        {
            let mut v = c.get_mut(&key1).unwrap();
            v.write("value3".to_string());
            assert_eq!(v.value(), &"value3");
        }
        let v = c.get_mut(&key1).unwrap();
        v.write_once("value4".to_string());

        let v = c.get(&key1).unwrap();
        assert_eq!(v.value(), &"value4");
        v.release();

        c.clear().unwrap();
        c.wait().unwrap();
        assert!(c.get(&key1).is_none());
    }

    #[cfg(feature = "tokio")]
    #[test]
    fn tokio_example_runs() {
        use stretto::{AsyncCacheBuilder, TokioCache, TokioRuntime};

        block_on(async {
            let c: TokioCache<String, String> =
                AsyncCacheBuilder::new(12960, 1e6 as i64).build::<TokioRuntime>().unwrap();
            run(c).await;
        });
    }

    #[cfg(feature = "smol")]
    #[test]
    fn smol_example_runs() {
        use stretto::{AsyncCacheBuilder, SmolCache, SmolRuntime};

        block_on(async {
            let c: SmolCache<String, String> =
                AsyncCacheBuilder::new(12960, 1e6 as i64).build::<SmolRuntime>().unwrap();
            run(c).await;
        });
    }

    #[cfg(any(feature = "smol", feature = "tokio"))]
    async fn run<R>(c: stretto::AsyncCache<String, String, R>) {
        c.insert("key1".to_string(), "value1".to_string(), 1).await;
        c.insert_with_ttl("key2".to_string(), "value2".to_string(), 1, 3 * SECOND).await;
        c.wait().await.unwrap();

        let key1 = "key1".to_string();
        let v = c.get(&key1).await.unwrap();
        assert_eq!(v.value(), &"value1");
        v.release();
        {
            let mut v = c.get_mut(&key1).await.unwrap();
            v.write("value2".to_string());
            assert_eq!(v.value(), &"value2");
        }
        let v = c.get_mut(&key1).await.unwrap();
        v.write_once("value3".to_string());

        let v = c.get(&key1).await.unwrap();
        assert_eq!(v.value(), &"value3");
        v.release();

        c.clear().await.unwrap();
        c.wait().await.unwrap();
        assert!(c.get(&key1).await.is_none());
    }

    #[test]
    fn benchmark_examples_run() {
        let cache: Cache<u64, u64> = Cache::new(4_000, 400).unwrap();
        let cache = Arc::new(cache);
        let (hits, misses) = (AtomicU64::new(0), AtomicU64::new(0));
        thread::scope(|scope| {
            for client in 0..4 {
                let (cache, hits, misses) = (&cache, &hits, &misses);
                scope.spawn(move || {
                    let mut random = Random::new(seed() + client);
                    for _ in 0..10_000 {
                        let k = random.below(500);
                        if cache.get(&k).is_some() {
                            hits.fetch_add(1, Ordering::Relaxed);
                        } else {
                            cache.insert(k, k, 1);
                            misses.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                });
            }
        });
        cache.wait().unwrap();
        assert!(hits.into_inner() > misses.into_inner());
        assert!(cache.len() <= 400);
    }

    /// The traits of the README: each implemented by hand, with every setter called.
    #[test]
    fn every_part_of_the_readme_can_be_set() {
        struct Sip;
        impl KeyBuilder for Sip {
            type Key = String;
            fn hash_index<Q>(&self, key: &Q) -> u64
            where
                Self::Key: Borrow<Q>,
                Q: Hash + Eq + ?Sized,
            {
                std::hash::BuildHasherDefault::<std::hash::DefaultHasher>::default().hash_one(key)
            }
        }
        let c = CacheBuilder::new(1000, 100)
            .set_num_counters(2000)
            .set_max_cost(200)
            .set_key_builder(Sip)
            .set_coster(Length)
            .set_update_validator(Longer)
            .set_callback(Told::default())
            .set_metrics(true)
            .set_ignore_internal_cost(true)
            .set_cleanup_duration(SECOND)
            .set_drain_interval(SECOND)
            .set_insert_stripe_high_water(256)
            .set_buffer_items(64)
            .set_hasher(std::collections::hash_map::RandomState::default())
            .finalize()
            .unwrap();
        assert!(c.insert("key".to_string(), "four".to_string(), 0));
        assert!(!c.insert("key".to_string(), "two".to_string(), 0));
        assert_eq!(c.get("key").unwrap().as_ref(), "four");
        assert_eq!(c.metrics().cost_added(), Some(4));
        assert_eq!(c.max_cost(), 200);
    }

    #[test]
    #[allow(clippy::type_complexity)] // every parameter is tested
    fn a_type_with_every_parameter_can_be_named() {
        let _: Cache<
            u64,
            u64,
            DefaultKeyBuilder<u64>,
            DefaultCoster<u64>,
            DefaultUpdateValidator<u64>,
            DefaultCacheCallback<u64>,
            std::collections::hash_map::RandomState,
        > = CacheBuilder::new_with_key_builder(100, 10, TransparentKeyBuilder::default())
            .set_coster(DefaultCoster::default())
            .set_update_validator(DefaultUpdateValidator::default())
            .set_callback(DefaultCacheCallback::default())
            .set_key_builder(DefaultKeyBuilder::default())
            .finalize()
            .unwrap();
    }
}

struct Length;

impl Coster for Length {
    type Value = String;
    fn cost(&self, val: &String) -> i64 {
        if val == "debt" { -1 } else { val.len() as i64 }
    }
}

struct Longer;

impl UpdateValidator for Longer {
    type Value = String;
    fn should_update(&self, prev: &String, curr: &String) -> bool {
        curr.len() > prev.len()
    }
}

/// Records the calls it gets; clones share the record.
#[derive(Clone, Default)]
struct Told {
    exits: Arc<Mutex<Vec<String>>>,
    evicted: Arc<Mutex<Vec<Item<String>>>>,
    rejected: Arc<Mutex<Vec<Item<String>>>>,
}

impl CacheCallback for Told {
    type Value = String;
    fn on_exit(&self, val: Option<String>) {
        self.exits.lock().unwrap().push(val.unwrap());
    }
    fn on_evict(&self, item: Item<String>) {
        self.evicted.lock().unwrap().push(item);
    }
    fn on_reject(&self, item: Item<String>) {
        self.rejected.lock().unwrap().push(item);
    }
}

impl Told {
    fn exits(&self) -> Vec<String> {
        let mut exits = self.exits.lock().unwrap().clone();
        exits.sort_unstable();
        exits
    }
}

type Telling = Cache<
    u64,
    String,
    TransparentKeyBuilder<u64>,
    DefaultCoster<String>,
    DefaultUpdateValidator<String>,
    Told,
>;

/// A cache with a manual clock, and a record of its callbacks.
fn telling(max_cost: i64) -> (Telling, Told, ManualClock) {
    let (told, clock) = (Told::default(), ManualClock::new());
    let cache = CacheBuilder::new(10_000, max_cost)
        .set_key_builder(TransparentKeyBuilder::default())
        .set_callback(told.clone())
        .set_clock(clock.clone())
        .finalize()
        .unwrap();
    (cache, told, clock)
}

fn plain<V: Send + Sync + 'static>(max_cost: i64) -> Cache<u64, V> {
    Cache::new(10_000, max_cost).unwrap()
}

mod inserting {
    use super::*;

    #[test]
    fn insert_is_decided_and_visible_without_wait() {
        let c = plain(100);
        for value in 0..500 {
            assert!(c.insert(1, value, 1));
            assert_eq!(c.get(&1).unwrap().read(), value);
        }
        assert!(!c.insert(1, 0, 101));
        assert!(c.get(&1).is_none());
        assert_eq!(c.try_insert(2, 2, 1), Ok(true));
        assert_eq!(c.try_insert_with_ttl(3, 3, 1, SECOND), Ok(true));
        assert_eq!(c.len(), 2);
    }

    #[test]
    fn budget_holds_after_updates_and_after_it_was_lowered() {
        let c = CacheBuilder::new(10_000, 100).set_metrics(true).finalize().unwrap();
        for key in 0..100 {
            c.insert(key, key, 1);
        }
        for key in 0..100 {
            c.insert(key, key, 50);
        }
        assert!(c.len() <= 2, "{} entries of 50", c.len());
        c.update_max_cost(10);
        assert_eq!((c.max_cost(), c.len()), (10, 0));
        assert!(c.insert(1, 1, 10) && !c.insert(2, 2, 11));
        c.update_max_cost(-5);
        assert_eq!((c.max_cost(), c.len()), (0, 0));
    }

    #[test]
    fn cost_of_zero_calls_the_coster() {
        let told = Told::default();
        let c = CacheBuilder::new(1000, 10)
            .set_coster(Length)
            .set_callback(told.clone())
            .set_metrics(true)
            .finalize()
            .unwrap();
        assert!(c.insert(1, "1234".to_string(), 0));
        assert!(c.insert(2, "a long value".to_string(), 1));
        assert_eq!(c.metrics().cost_added(), Some(5));
        assert!(!c.insert(3, "a long value".to_string(), 0));
        assert!(!c.insert(4, "debt".to_string(), 0), "a negative cost is refused");
        assert!(!c.insert(4, "owed".to_string(), -7));
        let costs: Vec<_> = told.rejected.lock().unwrap().iter().map(|item| item.cost).collect();
        assert_eq!(costs, [12, -1, -7]);
    }

    #[test]
    fn default_coster_lets_everything_in_for_nothing() {
        let c = plain(1);
        for key in 0..100 {
            assert!(c.insert(key, key, 0));
        }
        assert_eq!(c.len(), 100);
    }

    #[test]
    fn internal_cost_counts_if_it_is_not_ignored() {
        let c = Cache::builder(10, 10)
            .set_key_builder(TransparentKeyBuilder::default())
            .set_ignore_internal_cost(false)
            .finalize()
            .unwrap();
        assert!(!c.insert(1u64, 1u64, 1));
        c.update_max_cost(1000);
        assert_eq!(c.max_cost(), 1000);
        assert!(c.insert(1, 1, 1));
        assert_eq!(c.get(&1).unwrap().read(), 1);
    }

    #[test]
    fn validator_keeps_the_old_value() {
        let told = Told::default();
        let c = CacheBuilder::new(1000, 100)
            .set_update_validator(Longer)
            .set_callback(told.clone())
            .finalize()
            .unwrap();
        assert!(c.insert(1, "long".to_string(), 1));
        assert!(!c.insert(1, "no".to_string(), 1));
        assert!(!c.insert_if_present(1, "no".to_string(), 1));
        assert_eq!(c.get(&1).unwrap().value(), "long");
        assert!(c.insert(1, "longer".to_string(), 1));
        c.get_mut(&1).unwrap().write_once("s".to_string()); // validator not called, as in Stretto
        assert_eq!(c.get(&1).unwrap().value(), "s");
        assert!(told.rejected.lock().unwrap().is_empty());
    }

    #[test]
    fn insert_if_present_replaces_only_an_existing_entry() {
        let (c, told, clock) = telling(100);
        assert!(!c.insert_if_present(1, "new".to_string(), 1));
        assert!(c.get(&1).is_none());
        assert!(c.insert_with_ttl(1, "old".to_string(), 1, 9 * SECOND));
        clock.advance(SECOND);
        assert_eq!(c.try_insert_if_present(1, "new".to_string(), 60), Ok(true));
        assert_eq!(c.get(&1).unwrap().value(), "new");
        assert_eq!(c.get_ttl(&1), Some(8 * SECOND), "the deadline stays");
        assert!(!c.insert_if_present(1, "large".to_string(), 101));
        assert!(c.get(&1).is_none(), "what was to be overwritten is not served");
        assert!(told.rejected.lock().unwrap().is_empty());
        assert!(!c.insert_if_present(1, "debt".to_string(), -1));
    }

    #[test]
    fn wrong_settings_are_errors() {
        use CacheError::*;
        let error = |n, m| Cache::<u64, u64>::new(n, m).unwrap_err();
        assert_eq!((error(0, 1), error(1, 0)), (InvalidNumCounters, InvalidMaxCost));
        assert_eq!(error(1, -1), InvalidMaxCost);
        assert!(matches!(error(usize::MAX, 1), InvalidCountMinWidth(_)));
        assert!(error(1, 0).to_string().contains("max_cost"));
        let built = AsyncCacheBuilder::<u64, u64>::new(0, 1).build::<()>();
        assert_eq!(built.unwrap_err(), InvalidNumCounters);
    }
}

mod reading {
    use super::*;

    #[test]
    fn keys_may_be_borrowed() {
        let c: Cache<String, u64> = Cache::new(1000, 100).unwrap();
        c.insert("key".to_string(), 1, 1);
        assert_eq!(c.get("key").unwrap().read(), 1);
        assert_eq!(c.get_mut("key").unwrap().read(), 1);
        assert_eq!(c.get_ttl("key"), Some(Duration::MAX));
        c.remove(&"key".to_string());
        assert_eq!(c.try_remove(&"key".to_string()), Ok(()));
        assert!(c.get("key").is_none() && c.get_mut("key").is_none());
    }

    #[test]
    fn keys_of_equal_hashes_are_different_keys() {
        struct Constant;
        impl KeyBuilder for Constant {
            type Key = u64;
            fn hash_index<Q>(&self, _: &Q) -> u64
            where
                u64: Borrow<Q>,
                Q: Hash + Eq + ?Sized,
            {
                7
            }
        }
        let c = Cache::new_with_key_builder(1000, 100, Constant).unwrap();
        for key in 0..3u64 {
            assert!(c.insert(key, key * 10, 1));
        }
        for key in 0..3 {
            assert_eq!(c.get(&key).unwrap().read(), key * 10);
        }
        c.remove(&1);
        assert!(c.get(&1).is_none() && c.get(&0).is_some() && c.get(&2).is_some());
    }

    #[test]
    fn key_builder_is_called_once_in_each_call() {
        #[derive(Clone, Default)]
        struct Counting(Arc<AtomicU64>);
        impl KeyBuilder for Counting {
            type Key = u64;
            fn hash_index<Q>(&self, key: &Q) -> u64
            where
                u64: Borrow<Q>,
                Q: Hash + Eq + ?Sized,
            {
                TransparentKeyBuilder::<u64>::default().hash_index(key)
            }
            fn build_key<Q>(&self, key: &Q) -> (u64, u64)
            where
                u64: Borrow<Q>,
                Q: Hash + Eq + ?Sized,
            {
                self.0.fetch_add(1, Ordering::SeqCst);
                (self.hash_index(key), 1)
            }
        }
        let builder = Counting::default();
        let c = Cache::new_with_key_builder(100, 10, builder.clone()).unwrap();
        assert!(c.insert(1, 1, 1));
        assert_eq!(c.get(&1).unwrap().read(), 1);
        c.remove(&1);
        assert_eq!(builder.0.load(Ordering::SeqCst), 3);
    }

    #[test]
    fn time_to_live_ends() {
        let (c, _, clock) = telling(100);
        assert!(c.insert_with_ttl(1, "soon".to_string(), 1, 5 * SECOND));
        assert!(c.insert_with_ttl(2, "never".to_string(), 1, Duration::ZERO));
        clock.advance(2 * SECOND);
        assert_eq!(c.get_ttl(&1), Some(3 * SECOND));
        assert_eq!(c.get(&1).unwrap().ttl(), 3 * SECOND);
        assert_eq!(c.get(&2).unwrap().ttl(), Duration::MAX);
        clock.advance(3 * SECOND);
        assert!(c.get(&1).is_none() && c.get_mut(&1).is_none() && c.get_ttl(&1).is_none());
        assert!(c.insert_with_ttl(1, "again".to_string(), 1, SECOND));
        assert!(c.insert_with_ttl(1, "longer".to_string(), 1, 9 * SECOND));
        clock.advance(8 * SECOND);
        assert_eq!(c.get(&1).unwrap().value(), "longer");
        assert!(c.insert(1, "no deadline".to_string(), 1));
        clock.advance(1000 * SECOND);
        assert_eq!(c.get_ttl(&1), Some(Duration::MAX));
    }

    #[test]
    fn clear_removes_all_entries_and_len_is_zero() {
        let c = plain(1000);
        assert!(c.is_empty());
        for key in 0..100 {
            assert!(c.insert(key, key, 1));
        }
        assert_eq!((c.len(), c.is_empty()), (100, false));
        let other = c.clone();
        other.clear().unwrap();
        assert_eq!((c.len(), c.is_empty()), (0, true));
        assert!((0..100).all(|key| c.get(&key).is_none()));
        assert!(c.insert(1, 1, 1) && other.get(&1).is_some());
        assert_eq!(c.as_ref().len(), 1);
    }

    #[test]
    fn metrics_count_operations() {
        let c = Cache::builder(10_000, 100).set_metrics(true).finalize().unwrap();
        for key in 0..10 {
            c.insert(key, key, 2);
        }
        c.insert(0, 1, 3);
        c.insert(0, 1, 101);
        c.get_mut(&1).unwrap().write_once(7);
        assert!(c.get(&1).is_some() && c.get(&99).is_none());
        let m = c.metrics();
        assert!(m.is_op() && !m.is_noop());
        assert_eq!((m.hits(), m.misses(), m.ratio()), (Some(2), Some(1), Some(2.0 / 3.0)));
        assert_eq!((m.keys_added(), m.keys_updated()), (Some(10), Some(2)));
        assert_eq!((m.cost_added(), m.cost_evicted()), (Some(25), Some(0)));
        assert_eq!((m.sets_rejected(), m.sets_dropped()), (Some(1), Some(0)));
        c.update_max_cost(4);
        let m = c.metrics();
        assert_eq!(m.keys_evicted().unwrap(), 9 - c.len() as u64);
        assert!(m.gets_kept() <= Some(3) && m.gets_dropped().is_some());
        assert!(m.to_string().contains("evictions"));

        let off = plain::<u64>(10).metrics();
        assert!(off.is_noop() && off.hits().is_none() && off.ratio().is_none());
        assert_eq!(off.to_string(), "Metrics::Noop");
    }
}

mod changing {
    use super::*;

    #[test]
    fn get_mut_changes_a_copy_and_writes_it_back() {
        let (c, told, clock) = telling(100);
        assert!(c.insert_with_ttl(1, "a".to_string(), 60, 9 * SECOND));
        clock.advance(SECOND);
        let mut v = c.get_mut(&1).unwrap();
        v.value_mut().push('b');
        v.as_mut().push('c');
        assert_eq!((v.value().as_str(), v.clone_inner().as_str()), ("abc", "abc"));
        assert_eq!((v.as_ref().as_str(), v.to_string().as_str()), ("abc", "abc"));
        assert_eq!(c.get(&1).unwrap().value(), "a", "others see the old one");
        v.release();
        assert_eq!(c.get(&1).unwrap().value(), "abc");
        assert_eq!(c.get_ttl(&1), Some(8 * SECOND), "the deadline stays");
        assert!(c.insert(2, "x".to_string(), 40), "and so does the cost");
        eventually("the old value is reported", || {
            c.wait().unwrap();
            told.exits() == ["a"]
        });
    }

    #[test]
    fn get_mut_that_changes_nothing_writes_nothing() {
        let c = Cache::builder(1000, 100).set_metrics(true).finalize().unwrap();
        c.insert(1, 7, 1);
        let v = c.get_mut(&1).unwrap();
        assert_eq!(v.value(), &7);
        assert!(v.commit());
        assert_eq!(c.get_mut(&1).unwrap().read(), 7);
        assert_eq!(c.metrics().keys_updated(), Some(0));
    }

    #[test]
    fn write_back_yields_to_a_newer_value() {
        let (c, told, clock) = telling(100);
        let value = |key| c.get(&key).map(|v| v.value().clone());
        for change in ["insert", "get_mut", "remove", "remove and insert", "clear", "expire"] {
            assert!(c.insert_with_ttl(1, "seen".to_string(), 1, SECOND));
            let mut slow = c.get_mut(&1).unwrap();
            slow.write("slow".to_string());
            match change {
                "insert" => _ = c.insert(1, "fast".to_string(), 1),
                "get_mut" => c.get_mut(&1).unwrap().write_once("fast".to_string()),
                "remove" => c.remove(&1),
                "remove and insert" => {
                    c.remove(&1);
                    c.insert(1, "fast".to_string(), 1);
                }
                "clear" => c.clear().unwrap(),
                _ => clock.advance(SECOND),
            }
            let now = value(1);
            assert_eq!(slow.value(), "slow");
            assert!(!slow.commit(), "{change}");
            assert_eq!(value(1), now, "{change}");
        }
        eventually("all is reported", || {
            c.wait().unwrap();
            told.exits().len() + told.evicted.lock().unwrap().len() == 9
        });
        assert!(!told.exits().contains(&"slow".to_string()), "it never was in the cache");
    }

    #[test]
    fn commits_that_succeed_are_all_there() {
        // A thread that is preempted here delays garbage: no write may be rejected for that.
        let c = plain(1_000_000);
        assert!(c.insert(1, 0u64, 1));
        let committed = AtomicU64::new(0);
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..2_000 {
                        let mut v = c.get_mut(&1).unwrap();
                        *v.value_mut() += 1;
                        if v.commit() {
                            committed.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                });
            }
        });
        assert_eq!(c.get(&1).unwrap().read(), committed.into_inner());
    }

    #[test]
    fn write_back_loses_against_an_eviction() {
        let (c, told, _) = telling(100);
        assert!(c.insert(1, "old".to_string(), 60));
        let mut v = c.get_mut(&1).unwrap();
        v.write("new".to_string());
        c.update_max_cost(50);
        assert!(!v.commit());
        assert!(c.get(&1).is_none());
        assert!(told.rejected.lock().unwrap().is_empty(), "what was written never was in");
    }

    #[test]
    fn rejected_write_back_is_reported_and_leaves_the_older_value() {
        let (c, told, _) = telling(10);
        assert!(c.insert(1, "old".to_string(), 1));
        let mut v = c.get_mut(&1).unwrap();
        v.write("new".to_string());
        // The value that is held delays all of this, up to twice the garbage limit: 64 MiB.
        let refused = (0..3_000_000).find(|_| !c.insert(2, String::new(), 1));
        assert!(refused.is_some());
        told.rejected.lock().unwrap().clear();
        assert!(!v.commit());
        assert_eq!(c.get(&1).unwrap().value(), "old");
        let rejected = told.rejected.lock().unwrap().clone();
        assert_eq!((rejected[0].val.as_deref(), rejected[0].index), (Some("new"), 1));
    }
}

mod callbacks {
    use super::*;

    #[test]
    fn each_removal_calls_its_own_callback() {
        let (c, told, clock) = telling(10);
        assert!(c.insert(1, "replaced".to_string(), 1));
        assert!(c.insert(1, "removed".to_string(), 1));
        c.remove(&1);
        assert!(c.insert_with_ttl(2, "expired".to_string(), 2, SECOND));
        assert!(!c.insert_with_ttl(3, "rejected".to_string(), 11, 2 * SECOND));
        clock.advance(SECOND);
        assert!(c.get(&2).is_none());
        eventually("the expired entry is reported", || {
            c.wait().unwrap();
            told.evicted.lock().unwrap().len() == 1
        });
        assert!(c.insert_with_ttl(4, "evicted".to_string(), 6, 9 * SECOND));
        clock.advance(SECOND);
        c.update_max_cost(5);
        assert!(c.insert(5, "cleared".to_string(), 1));
        c.clear().unwrap();
        eventually("all are told", || {
            c.wait().unwrap();
            told.exits().len() == 3 && told.evicted.lock().unwrap().len() == 2
        });
        assert_eq!(told.exits(), ["cleared", "removed", "replaced"]);
        let rejected = told.rejected.lock().unwrap().clone();
        let [rejected] = rejected.as_slice() else { panic!("{rejected:?}") };
        assert_eq!((rejected.index, rejected.conflict, rejected.cost), (3, 0, 11));
        assert_eq!(rejected.val.as_deref(), Some("rejected"));
        assert_eq!(rejected.exp.get_ttl(), 2 * SECOND);
        let evicted = told.evicted.lock().unwrap().clone();
        let [expired, evicted] = evicted.as_slice() else { panic!("{evicted:?}") };
        assert_eq!((expired.val.as_deref(), expired.cost), (Some("expired"), 2));
        assert!(expired.exp.is_expired() && !expired.exp.is_zero() && expired.index == 2);
        assert_eq!((evicted.val.as_deref(), evicted.cost), (Some("evicted"), 6));
        assert!(!evicted.exp.is_expired() && evicted.exp.get_ttl() <= 8 * SECOND);
    }

    #[test]
    fn rejected_insert_reports_before_it_returns_and_the_old_value_later() {
        let (c, told, _) = telling(10);
        assert!(c.insert(1, "old".to_string(), 1));
        assert!(!c.insert(1, "new".to_string(), 11));
        let rejected = told.rejected.lock().unwrap().clone();
        assert_eq!(rejected[0].val.as_deref(), Some("new"));
        assert!(rejected[0].exp.is_zero() && rejected[0].exp.get_ttl() == Duration::MAX);
        eventually("the old value is reported", || {
            c.wait().unwrap();
            told.exits() == ["old"]
        });
    }

    #[test]
    fn callbacks_default_to_on_exit() {
        struct Exits(Arc<Mutex<HashSet<u64>>>);
        impl CacheCallback for Exits {
            type Value = u64;
            fn on_exit(&self, val: Option<u64>) {
                assert!(self.0.lock().unwrap().insert(val.unwrap()), "told once");
            }
        }
        let exits = Arc::new(Mutex::new(HashSet::new()));
        let c = Cache::builder(10_000, 100).set_callback(Exits(exits.clone())).finalize().unwrap();
        for value in 0..1000 {
            c.insert(value % 300, value, 1);
        }
        c.insert(0, 1000, 101);
        c.clear().unwrap();
        eventually("every value is reported", || {
            c.wait().unwrap();
            exits.lock().unwrap().len() == 1001
        });
    }

    #[test]
    fn drop_reports_removed_values_and_not_cached_ones() {
        let (c, told, _) = telling(100);
        assert!(c.insert(1, "there".to_string(), 1) && c.insert(2, "left".to_string(), 1));
        c.remove(&2);
        drop(c);
        // By the maintenance thread, which the owner does not wait for while it has no core.
        eventually("it is reported", || !told.exits().is_empty());
        assert_eq!(told.exits(), ["left"]);
    }

    #[test]
    fn callback_that_panics_does_not_stop_the_cache() {
        struct Panicking(Arc<AtomicU64>);
        impl CacheCallback for Panicking {
            type Value = u64;
            fn on_exit(&self, val: Option<u64>) {
                self.0.fetch_add(1, Ordering::SeqCst);
                panic!("told of {}", val.unwrap());
            }
        }
        let told = Arc::new(AtomicU64::new(0));
        let builder = Cache::builder(1000, 10).set_callback(Panicking(told.clone()));
        let c = builder.finalize().unwrap();
        for key in 0..5 {
            assert!(c.insert(key, key, 1));
        }
        assert!(!c.insert(9, 9, 11), "on_reject panics, the insert does not");
        assert!(!c.insert(9, 9, -1));
        c.remove(&0);
        eventually("each is reported", || {
            c.clear().unwrap();
            told.load(Ordering::SeqCst) == 7
        });
        assert!(c.is_empty() && c.insert(1, 1, 1));
    }

    #[test]
    fn callback_may_call_the_cache() {
        type Calling = Cache<
            u64,
            u64,
            DefaultKeyBuilder<u64>,
            DefaultCoster<u64>,
            DefaultUpdateValidator<u64>,
            Reentrant,
        >;
        #[derive(Clone, Default)]
        struct Reentrant {
            cache: Arc<OnceLock<Calling>>,
            told: Arc<AtomicU64>,
        }
        impl CacheCallback for Reentrant {
            type Value = u64;
            fn on_exit(&self, val: Option<u64>) {
                let Some(c) = self.cache.get() else { return };
                if val == Some(1) {
                    c.insert(9, 90, 1);
                    c.wait().unwrap();
                    c.clear().unwrap();
                    c.insert(2, 20, 1);
                }
                self.told.fetch_add(1, Ordering::SeqCst);
            }
        }
        let callback = Reentrant::default();
        let c = Cache::builder(1000, 100).set_callback(callback.clone()).finalize().unwrap();
        assert!(callback.cache.set(c.clone()).is_ok());
        c.insert(1, 1, 1);
        c.remove(&1);
        eventually("both are told", || {
            c.wait().unwrap();
            callback.told.load(Ordering::SeqCst) == 2
        });
        assert_eq!((c.len(), c.get(&2).unwrap().read()), (1, 20));
    }
}

mod asynchronous {
    use super::*;

    #[test]
    fn async_cache_is_equivalent_to_the_sync_one() {
        block_on(async {
            let told = Told::default();
            let c = AsyncCacheBuilder::new(1000, 10)
                .set_coster(Length)
                .set_callback(told.clone())
                .set_metrics(true)
                .build::<()>()
                .unwrap();
            assert!(c.insert(1, "four".to_string(), 0).await);
            assert_eq!(c.try_insert(1, "five!".to_string(), 0).await, Ok(true));
            assert_eq!(c.metrics().cost_added(), Some(9));
            assert_eq!(c.try_insert_if_present(2, "none".to_string(), 0).await, Ok(false));
            assert!(c.insert_if_present(1, "there".to_string(), 0).await);
            assert!(c.insert_with_ttl(2, "ttl".to_string(), 0, 60 * SECOND).await);
            assert_eq!(c.try_insert_with_ttl(2, "t".to_string(), 0, SECOND * 60).await, Ok(true));
            assert!(c.get_ttl(&2).unwrap() <= 60 * SECOND);
            c.get_mut(&1).await.unwrap().value_mut().push('!');
            assert_eq!(c.get(&1).await.unwrap().value(), "there!");
            assert!(!c.insert(3, "eleven byte".to_string(), 0).await);
            assert_eq!(told.rejected.lock().unwrap().len(), 1);
            c.remove(&1).await;
            assert_eq!(c.try_remove(&1).await, Ok(()));
            assert!(c.get(&1).await.is_none());
            assert_eq!((c.len(), c.is_empty(), c.as_ref().max_cost()), (1, false, 10));
            c.update_max_cost(20);
            assert_eq!(c.clone().max_cost(), 20);
            c.clear().await.unwrap();
            c.wait().await.unwrap();
            assert!(c.is_empty());
        });
    }

    #[test]
    fn future_is_send_and_ready_at_its_first_poll() {
        fn poll_once<T>(future: impl Future<Output = T> + Send) -> T {
            match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
                Poll::Ready(value) => value,
                Poll::Pending => panic!("it waits"),
            }
        }
        let c = AsyncCacheBuilder::new(1000, 100).build::<()>().unwrap();
        assert!(poll_once(c.insert(1, 1, 1)));
        assert!(poll_once(c.insert_if_present(1, 2, 1)));
        poll_once(c.remove(&2));
        poll_once(c.wait()).unwrap();
        // A task that moves between threads may use what it read before the next await.
        let task = async {
            let read = c.get(&1).await.unwrap().read();
            c.insert(2, read, 1).await
        };
        assert!(poll_once(task));
        poll_once(c.clear()).unwrap();
    }

    #[test]
    fn future_that_is_dropped_before_it_is_polled_does_nothing() {
        let c = AsyncCacheBuilder::new(1000, 100).build::<()>().unwrap();
        drop(c.insert(1, 1, 1));
        assert!(c.is_empty());
    }

    #[test]
    fn any_type_is_a_runtime() {
        struct Mine;
        let c = AsyncCacheBuilder::new(1000, 100).build::<Mine>().unwrap();
        assert!(block_on(c.insert(1, 1, 1)));
    }
}
