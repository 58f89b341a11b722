//! Reads and writes through the public API.

use std::time::Duration;

use cortado::{BuildError, Cache, Config, Insert, Maintenance, RejectReason, WorkLimit};

use crate::{
    builder,
    support::{BOTH, Random, audit, eventually, seed, settle},
};

#[test]
fn inserted_value_is_found_and_others_are_not() {
    for maintenance in BOTH {
        let cache = builder(100, maintenance).build().unwrap();
        assert!(cache.is_empty());
        assert_eq!(cache.insert(1, "one"), Insert::Inserted);
        assert_eq!(cache.get(&1).as_deref(), Some(&"one"));
        assert_eq!(cache.get_cloned(&1), Some("one"));
        assert_eq!(cache.peek(&1).as_deref(), Some(&"one"));
        assert!(cache.contains_key(&1) && !cache.contains_key(&2));
        assert!(cache.get(&2).is_none() && cache.peek(&2).is_none());
        assert_eq!((cache.len(), cache.cost(), cache.remaining_cost()), (1, 1, 99));
        assert!(!cache.is_empty());
        audit(&cache);
    }
}

#[test]
fn second_insert_of_a_key_replaces_the_value() {
    let cache = Cache::new(10);
    assert_eq!(cache.insert("k", 1), Insert::Inserted);
    assert_eq!(cache.insert("k", 2), Insert::Updated);
    assert_eq!((cache.get_cloned("k"), cache.len(), cache.cost()), (Some(2), 1, 1));
}

#[test]
fn value_ref_shows_key_value_and_cost() {
    let cache = Cache::new(10);
    cache.insert_with_cost("key".to_string(), vec![1, 2], 7);
    let value = cache.get("key").unwrap();
    assert_eq!((value.key().as_str(), value.value(), value.cost()), ("key", &vec![1, 2], 7));
    assert_eq!(value.len(), 2, "it dereferences");
    assert!(format!("{value:?}").contains("[1, 2]"));
}

#[test]
fn value_ref_keeps_the_old_value_readable_after_a_replacement() {
    for maintenance in BOTH {
        let cache = builder(10, maintenance).build().unwrap();
        cache.insert(1, "old".to_string());
        let old = cache.get(&1).unwrap();
        cache.insert(1, "new".to_string());
        cache.tick(WorkLimit::ALL);
        assert_eq!((old.as_str(), cache.get(&1).unwrap().as_str()), ("old", "new"));
    }
}

#[test]
fn keys_may_be_borrowed() {
    let cache: Cache<String, u32> = Cache::new(10);
    cache.insert("abc".to_string(), 1);
    assert_eq!(cache.get_cloned("abc"), Some(1));
    assert_eq!(cache.get_cloned(&"abc".to_string()), Some(1));
    assert!(cache.contains_key("abc") && cache.frequency("nothing") <= 15);
    assert_eq!(cache.pin().get("abc"), Some(&1));
    let mut seen = 0;
    cache.get_many(&["abc".to_string(), "abd".to_string()], |_, value| {
        seen += value.copied().unwrap_or(10)
    });
    assert_eq!(seen, 11);
    assert!(cache.remove_if("abc", |_| false).is_none());
    assert_eq!(cache.remove("abc").as_deref(), Some(&1));

    let bytes: Cache<Vec<u8>, u32> = Cache::new(10);
    bytes.insert(vec![1, 2], 3);
    assert_eq!(bytes.get_cloned(&[1u8, 2][..]), Some(3));
}

#[test]
fn insert_if_absent_keeps_an_existing_entry() {
    for maintenance in BOTH {
        let cache = builder(10, maintenance).build().unwrap();
        assert_eq!(cache.insert_if_absent(1, "a"), Insert::Inserted);
        assert_eq!(cache.insert_if_absent(1, "b"), Insert::Rejected("b", RejectReason::Present));
        assert_eq!(cache.get_cloned(&1), Some("a"));
        assert_eq!(cache.metrics().rejected_kept, 1);
        audit(&cache);
    }
}

#[test]
fn replace_only_replaces() {
    let cache = builder(10, Maintenance::Manual).cost_of(|_, v: &u64| *v).build().unwrap();
    assert_eq!(cache.replace(1, 5), Insert::Rejected(5, RejectReason::Absent));
    assert!(cache.is_empty());
    cache.insert(1, 2);
    assert_eq!(cache.replace(1, 5), Insert::Updated);
    assert_eq!((cache.get_cloned(&1), cache.cost(), cache.len()), (Some(5), 5, 1));
    assert_eq!(cache.replace(1, 11), Insert::Rejected(11, RejectReason::TooCostly));
    assert!(cache.is_empty() && cache.cost() == 0, "what was there is out of date");
}

#[test]
fn oversized_insert_if_absent_keeps_an_existing_entry() {
    let cache = builder(10, Maintenance::Manual).cost_of(|_, v: &u64| *v).build().unwrap();
    cache.insert(1, 2);
    assert_eq!(cache.insert_if_absent(1, 11), Insert::Rejected(11, RejectReason::Present));
    assert_eq!(cache.get_cloned(&1), Some(2));
    assert_eq!(
        cache.insert_if_absent(2, 11),
        Insert::Rejected(11, RejectReason::TooCostly),
        "the key has none"
    );
    audit(&cache);
}

#[test]
fn insert_returns_its_outcome() {
    assert!(Insert::<u8>::Inserted.is_in() && Insert::<u8>::Updated.is_in());
    let rejected = Insert::Rejected("v", RejectReason::Cold);
    assert!(!rejected.is_in());
    assert_eq!((rejected.rejected(), Insert::<u8>::Updated.rejected()), (Some("v"), None));
}

#[test]
fn get_many_meets_misses_duplicates_and_more_keys_than_a_chunk() {
    let cache = builder(1000, Maintenance::Manual).build().unwrap();
    for key in (0..200u64).step_by(2) {
        assert!(cache.insert(key, key * 10).is_in());
    }
    for count in [0, 1, 2, 15, 16, 17, 31, 32, 33, 100, 257] {
        let keys: Vec<u64> = (0..count).map(|i| i * 7 % 250).collect();
        let mut seen = Vec::new();
        cache.get_many(&keys, |index, value| seen.push((index, value.copied())));
        let expected: Vec<_> = keys
            .iter()
            .map(|key| (*key < 200 && key % 2 == 0).then_some(key * 10))
            .enumerate()
            .collect();
        assert_eq!(seen, expected);
    }
    let mut sum = 0;
    cache.get_many(&[2; 40], |_, value| sum += value.unwrap());
    assert_eq!(sum, 800);
}

#[test]
fn get_many_takes_borrowed_keys_from_any_iterator() {
    let cache = Cache::<String, usize>::new(1000);
    for key in 0..40usize {
        assert!(cache.insert(key.to_string(), key).is_in());
    }
    let text: Vec<String> = (0..50).rev().map(|key| key.to_string()).collect();
    let wanted: Vec<&str> = text.iter().map(String::as_str).collect();
    let mut seen = Vec::new();
    cache.get_many(wanted.iter().copied(), |index, value| seen.push((index, value.copied())));
    let expected: Vec<_> = (0..50).rev().map(|key| (key < 40).then_some(key)).enumerate().collect();
    assert_eq!(seen, expected);
    let pinned = cache.pin();
    let mut found = [None; 2];
    pinned.get_many(["7", "absent"], |index, value| found[index] = value);
    assert_eq!(found, [Some(&7), None]);
}

#[test]
fn get_many_counts_reads_in_the_metrics() {
    let cache = builder(1000, Maintenance::Manual).build().unwrap();
    cache.insert(1, 1);
    let before = cache.metrics();
    cache.get_many(&[1, 2, 1], |_, _| {});
    let _ = cache.peek(&1);
    let _ = cache.contains_key(&2);
    let during = cache.metrics() - before;
    assert_eq!((during.hits, during.misses), (2, 1));
}

#[test]
fn frequency_grows_with_accesses_and_peeks_do_not_count() {
    let cache = builder(1000, Maintenance::Manual).build().unwrap();
    for key in 0..100u64 {
        cache.insert(key, key);
    }
    cache.flush();
    let before = cache.frequency(&7);
    for _ in 0..100 {
        let _ = cache.peek(&7);
    }
    cache.flush();
    assert_eq!(cache.frequency(&7), before);
    for _ in 0..50 {
        // Hits on one entry count once a step, and other accesses advance the step.
        let _ = cache.get(&7);
        for other in 1000..1020 {
            let _ = cache.get(&other);
        }
    }
    cache.flush();
    assert!(cache.frequency(&7) > before, "{} after {before}", cache.frequency(&7));
}

#[test]
fn name_debug_and_metrics_can_be_printed() {
    let cache = builder(10, Maintenance::Thread).name("pages").build().unwrap();
    cache.insert(1, 1);
    assert_eq!(cache.name(), "pages");
    let shown = format!("{cache:?} {:?} {:?}", cache.pin(), cache.pin().iter());
    assert!(shown.contains("pages") && shown.contains("max_cost: 10"), "{shown}");
    assert!(cache.metrics().to_string().contains("inserts"));
    assert!(format!("{:?}", builder::<u8, u8>(10, Maintenance::Manual)).contains("max_cost: 10"));
}

#[test]
fn wrong_settings_are_errors_and_never_panics() {
    let build = |max_cost, entries| {
        let builder = Cache::<u64, u64>::builder().max_cost(max_cost);
        builder.expected_entries(entries).build().map(|_| ())
    };
    assert_eq!(build(0, 10), Err(BuildError::MaxCostZero));
    let error = build(10, usize::MAX).unwrap_err();
    assert!(matches!(error, BuildError::TooManyEntries { given: usize::MAX, .. }));
    assert_eq!(build(1, 0), Ok(()));
    assert_eq!(build(u64::MAX, 0), Ok(()));
    let counters = Cache::<u64, u64>::builder().max_cost(10).num_counters(usize::MAX);
    assert!(counters.build_manual().is_err());
}

#[test]
fn settings_from_outside_are_errors_or_work() {
    let times = [None, Some(Duration::ZERO), Some(Duration::from_nanos(1)), Some(Duration::MAX)];
    let names = ["", "\0", "a\0b", &"long".repeat(1000)];
    let mut configs = Vec::new();
    for max_cost in [1, 2, u64::MAX - 1, u64::MAX] {
        for (max_garbage, entries) in [(None, None), (Some(0), Some(0)), (Some(u64::MAX), Some(1))]
        {
            for ttl in times {
                let count = configs.len();
                let mut config = Config::default();
                (config.max_cost, config.max_garbage) = (max_cost, max_garbage);
                (config.ttl, config.tti) = (ttl, times[count % 5 % times.len()]);
                config.expected_entries = entries;
                config.name = names[count % names.len()].into();
                config.charge_overhead = count % 3 == 0;
                config.metrics = count % 2 == 0;
                if count % 5 > 0 {
                    config.maintenance = Maintenance::Manual;
                }
                configs.push(config);
            }
        }
    }
    for config in configs {
        let name = config.name.clone();
        let cache = Cache::builder().config(config).build().unwrap();
        assert_eq!(cache.name(), name);
        for cost in [0, 1, u64::MAX] {
            cache.insert_with_cost(cost, cost, cost);
            cache.insert_with_ttl(cost, cost, Duration::MAX);
            let _ = (cache.get(&cost).map(|value| value.ttl()), cache.entry_info(&cost));
        }
        for max_cost in [u64::MAX, 0, 1, u64::MAX] {
            cache.set_max_cost(max_cost);
            (0..20).for_each(|key| _ = cache.insert(key, key));
            cache.tick(WorkLimit::ALL);
            assert!(cache.cost() <= max_cost && cache.remaining_cost() <= max_cost);
        }
        cache.clear();
        cache.flush();
        let _ = (cache.memory(), cache.metrics().to_string());
    }
}

#[test]
fn memory_goes_back_when_the_cache_is_cleared() {
    for maintenance in BOTH {
        let builder = builder(1 << 30, maintenance).expected_entries(1000).timed(true);
        let cache = builder.build().unwrap();
        let new = cache.memory();
        for round in 0..2 {
            for key in 0..100_000u64 {
                assert!(cache.insert_with_ttl(key, key, Duration::from_secs(9 + key)).is_in());
            }
            cache.tick(WorkLimit::ALL);
            let mut full = cache.memory();
            eventually("what the thread works with is back", || {
                full = cache.memory();
                full.deadlines > 100_000
            });
            assert!(full.table > 4 * new.table, "{full:?}");
            cache.clear();
            settle(&cache);
            eventually("memory has gone back", || {
                cache.flush();
                let now = cache.memory();
                let is_small = (now.table, now.entries, now.deadlines) == (new.table, 0, 0);
                // Lists of free cells and the ends of chunks remain, and so do the miniature
                // simulations.
                let most = full.table + full.entries + full.buffers + full.deadlines;
                is_small && now.buffers <= new.buffers + most / 6
            });
            println!("{maintenance:?}, round {round}: {new:?}, {full:?}, {:?}", cache.memory());
            // The sketch remains, with its frequencies.
            assert!(cache.memory().sketch >= full.sketch);
        }
    }
}

#[test]
fn counters_are_zero_unless_enabled() {
    let cache = Cache::new(10);
    cache.insert(1, 1);
    let _ = cache.get(&1);
    assert_eq!(cache.metrics(), cortado::Metrics::default());
}

#[test]
fn handles_share_one_cache() {
    let cache = Cache::new(10);
    let other = cache.clone();
    cache.insert(1, "shared");
    drop(cache);
    assert_eq!(other.get_cloned(&1), Some("shared"));
}

#[test]
fn table_grows_from_nothing_to_200_000_entries_while_readers_read() {
    const ENTRIES: u64 = 200_000;
    let seed = seed();
    for maintenance in BOTH {
        // The budget has room for all. A full bucket is resolved locally, so a few may be evicted.
        let cache = builder(u64::MAX, maintenance).expected_entries(0).build().unwrap();
        let done = std::sync::atomic::AtomicU64::new(0);
        std::thread::scope(|scope| {
            for reader in 0..2 {
                let (cache, done) = (&cache, &done);
                scope.spawn(move || {
                    let mut random = Random::new(seed + reader);
                    let mut misses = 0;
                    loop {
                        let inserted = done.load(std::sync::atomic::Ordering::Acquire);
                        if inserted == ENTRIES {
                            return misses;
                        }
                        let key = random.below(inserted.max(1));
                        match cache.get(&key) {
                            Some(value) => assert_eq!(*value, key * 3),
                            None => misses += 1,
                        }
                    }
                });
            }
            for key in 0..ENTRIES {
                assert_eq!(cache.insert(key, key * 3), Insert::Inserted);
                done.store(key + 1, std::sync::atomic::Ordering::Release);
            }
        });
        settle(&cache);
        audit(&cache);
        let metrics = cache.metrics();
        let missing = (0..ENTRIES).filter(|key| !cache.contains_key(key)).count() as u64;
        println!("{maintenance:?}: {} local evictions", metrics.local_evictions);
        assert_eq!(metrics.evictions, metrics.local_evictions, "the budget evicted nothing");
        assert_eq!(missing, metrics.local_evictions);
        assert_eq!(cache.len() as u64 + missing, ENTRIES);
        assert!(missing < ENTRIES / 100, "{missing} of {ENTRIES} lost to full buckets");
    }
}

#[test]
fn cleared_table_gives_its_memory_back() {
    let cache = builder(u64::MAX, Maintenance::Manual).expected_entries(0).build().unwrap();
    let empty = cache.memory().table;
    for key in 0..50_000u64 {
        cache.insert(key, key);
    }
    let full = settle(&cache).table;
    cache.clear();
    let cleared = settle(&cache).table;
    assert!(full > 100_000 && cleared <= 2 * empty + 10_000, "{empty} {full} {cleared}");
    assert!(cache.is_empty() && cache.cost() == 0);
}
