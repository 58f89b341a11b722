//! The promises that only concurrency can break.
//!
//! `CORTADO_TEST_SCALE=100 cargo test --release --test promises -- --nocapture --test-threads 1`
//! runs them at full size: ten million operations each.

#[path = "support/mod.rs"]
mod support;

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    },
    thread,
};

use cortado::{Cache, Insert, Maintenance, Metrics, WorkLimit};
use support::{BOTH, Random, Tally, audit, builder, scale, seed, settle};

const THREADS: u64 = 8;

/// Operations per test.
fn operations() -> u64 {
    100_000 * scale()
}

/// Serialises the tests, so that each has the machine to itself and reads only its own metrics.
static ALONE: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn show(what: &str, maintenance: Maintenance, metrics: &Metrics) {
    println!(
        "{what}, {maintenance:?}: {} inserted, {} updated, {} evicted ({} of full buckets), {} \
         removed; rejected: {} costly, {} cold, {} garbage, {} kept",
        metrics.inserts,
        metrics.updates,
        metrics.evictions,
        metrics.local_evictions,
        metrics.removes,
        metrics.rejected_costly,
        metrics.rejected_cold,
        metrics.rejected_garbage,
        metrics.rejected_kept,
    );
}

/// The greatest values seen by any thread.
#[derive(Debug, Default)]
struct Greatest {
    cost: AtomicU64,
    entries: AtomicU64,
    garbage: AtomicU64,
    alive: AtomicU64,
    /// The cost summed up by an iteration.
    iterated: AtomicU64,
}

#[test]
fn budget_is_kept_at_every_instant() {
    const BUDGET: u64 = 1000;
    let _alone = alone();
    for maintenance in BOTH {
        let tally = Arc::new(Tally::default());
        let cache = builder(BUDGET, maintenance).build().unwrap();
        let (stop, greatest) = (AtomicBool::new(false), Greatest::default());
        let mine = operations() / THREADS;
        thread::scope(|scope| {
            let writers: Vec<_> = (0..THREADS)
                .map(|writer| {
                    let (cache, tally, greatest) = (&cache, &tally, &greatest);
                    scope.spawn(move || {
                        let (mut cost, mut alive) = (0, 0);
                        for i in 0..mine {
                            let key = i * THREADS + writer;
                            let value = tally.make(key);
                            alive = alive.max(tally.alive());
                            drop(cache.insert(key, value));
                            cost = cost.max(cache.cost());
                        }
                        greatest.cost.fetch_max(cost, SeqCst);
                        greatest.alive.fetch_max(alive, SeqCst);
                    })
                })
                .collect();
            scope.spawn(|| {
                while !stop.load(SeqCst) {
                    greatest.cost.fetch_max(cache.cost(), SeqCst);
                    greatest.entries.fetch_max(cache.len() as u64, SeqCst);
                    // Rarely, because both delay the others a little.
                    let memory = cache.memory();
                    greatest.garbage.fetch_max(memory.garbage_entries, SeqCst);
                    thread::yield_now();
                }
            });
            for writer in writers {
                writer.join().unwrap();
            }
            stop.store(true, SeqCst);
        });
        let metrics = cache.metrics();
        show("budget", maintenance, &metrics);
        println!(
            "  of {} inserts by {THREADS} threads, budget {BUDGET}: at most {greatest:?}",
            mine * THREADS
        );
        assert!(greatest.cost.load(SeqCst) <= BUDGET);
        assert_eq!(metrics.inserts + metrics.rejected(), mine * THREADS);
        audit(&cache);
        settle(&cache);
        let (len, garbage) = (cache.len() as u64, cache.memory().garbage_entries);
        assert_eq!((tally.alive(), garbage), (len, 0));
        assert_eq!(metrics.inserts - cache.metrics().evictions, len);
        assert!(cache.close());
        assert_eq!(tally.alive(), 0);
    }
}

#[test]
fn budget_of_varying_costs_is_kept_at_every_instant() {
    const BUDGET: u64 = 100_000;
    let _alone = alone();
    let seed = seed();
    for maintenance in BOTH {
        let cache = builder(BUDGET, maintenance).expected_entries(2000).build().unwrap();
        let (stop, greatest) = (AtomicBool::new(false), Greatest::default());
        thread::scope(|scope| {
            let writers: Vec<_> = (0..THREADS)
                .map(|writer| {
                    let cache = &cache;
                    scope.spawn(move || {
                        let mut random = Random::new(seed + writer);
                        for _ in 0..operations() / THREADS / 4 {
                            let cost = match random.below(100) {
                                0 => random.below(BUDGET + 1),
                                1..10 => random.below(5000),
                                _ => random.below(100),
                            };
                            cache.insert_with_cost(random.below(5000), cost, cost);
                            assert!(cache.cost() <= BUDGET);
                        }
                    })
                })
                .collect();
            scope.spawn(|| {
                while !stop.load(SeqCst) {
                    assert!(cache.cost() <= BUDGET);
                    // An entry may be removed and inserted elsewhere during the iteration: the sum
                    // is that of no single instant, so it is only printed.
                    let sum = cache.pin().values().sum();
                    greatest.iterated.fetch_max(sum, SeqCst);
                    thread::yield_now();
                }
            });
            for writer in writers {
                writer.join().unwrap();
            }
            stop.store(true, SeqCst);
        });
        show("varying costs", maintenance, &cache.metrics());
        println!("  greatest sum iterated: {} of {BUDGET}", greatest.iterated.load(SeqCst));
        settle(&cache);
        audit(&cache);
        assert!(cache.pin().iter().all(|(key, cost)| cache.peek(key).unwrap().cost() == *cost));
    }
}

/// Returns a value that identifies its writer and the number of the write.
fn stamp(writer: u64, number: u64) -> u64 {
    writer << 48 | number
}

#[test]
fn own_writes_are_read_where_room_is_ample() {
    let _alone = alone();
    let seed = seed();
    for maintenance in BOTH {
        let keys = operations() / 50;
        // The budget causes no evictions: only a full bucket can displace an entry.
        let cache = builder(keys * 100, maintenance).expected_entries(2 * keys as usize);
        let cache = cache.build().unwrap();
        let done: Vec<AtomicU64> = (0..THREADS).map(|_| AtomicU64::new(0)).collect();
        let missed = AtomicU64::new(0);
        let others = AtomicU64::new(0);
        thread::scope(|scope| {
            for writer in 0..THREADS {
                let (cache, done, missed, others) = (&cache, &done, &missed, &others);
                scope.spawn(move || {
                    let mut random = Random::new(seed + writer);
                    for number in 1..=operations() / THREADS {
                        let key = random.below(keys);
                        let before: [u64; THREADS as usize] =
                            std::array::from_fn(|i| done[i].load(SeqCst));
                        assert!(cache.insert(key, stamp(writer, number)).is_in());
                        match cache.get_cloned(&key) {
                            None => _ = missed.fetch_add(1, SeqCst),
                            Some(value) if value == stamp(writer, number) => {}
                            Some(value) => {
                                let (other, theirs) = (value >> 48, value & ((1 << 48) - 1));
                                assert_ne!(other, writer, "an older value of my own");
                                assert!(
                                    theirs > before[other as usize],
                                    "a value that was overwritten before"
                                );
                                others.fetch_add(1, SeqCst);
                            }
                        }
                        done[writer as usize].store(number, SeqCst);
                    }
                });
            }
        });
        let metrics = cache.metrics();
        let missed = missed.into_inner();
        show("own writes, ample", maintenance, &metrics);
        println!(
            "  of {} inserts by {THREADS} threads: {missed} missed, {} met a later value",
            operations() / THREADS * THREADS,
            others.into_inner()
        );
        assert_eq!(metrics.evictions, metrics.local_evictions);
        assert_eq!(metrics.rejected(), 0);
        assert!(missed <= metrics.local_evictions);
        settle(&cache);
        audit(&cache);
    }
}

#[test]
fn own_writes_are_read_unless_evicted_where_room_is_tight() {
    let _alone = alone();
    let seed = seed();
    for maintenance in BOTH {
        for max_cost in [100, 10_000] {
            let cache = builder(max_cost, maintenance).build().unwrap();
            let (rejected, missed) = (AtomicU64::new(0), AtomicU64::new(0));
            let each = operations() / THREADS / 2;
            thread::scope(|scope| {
                for writer in 0..THREADS {
                    let (cache, rejected, missed) = (&cache, &rejected, &missed);
                    scope.spawn(move || {
                        let mut random = Random::new(seed + writer);
                        for number in 0..each {
                            // Keys of its own, which no other thread writes or removes.
                            let key = writer << 32 | random.below(max_cost / 2);
                            let value = stamp(writer, number);
                            let insert = cache.insert(key, value);
                            let found = cache.get_cloned(&key);
                            match insert {
                                Insert::Rejected(back, _) => {
                                    assert_eq!((back, found), (value, None), "neither new nor old");
                                    rejected.fetch_add(1, SeqCst);
                                }
                                _ if found.is_none() => _ = missed.fetch_add(1, SeqCst),
                                _ => assert_eq!(found, Some(value)),
                            }
                        }
                    });
                }
            });
            let metrics = cache.metrics();
            let (rejected, missed) = (rejected.into_inner(), missed.into_inner());
            show(&format!("own writes, budget {max_cost}"), maintenance, &metrics);
            println!(
                "  of {} inserts by {THREADS} threads: {missed} missed, {rejected} rejected",
                each * THREADS
            );
            assert_eq!(rejected, metrics.rejected());
            assert!(missed <= metrics.evictions);
            assert_eq!(metrics.inserts + metrics.updates + rejected, each * THREADS);
            settle(&cache);
            audit(&cache);
            // Each entry that was inserted and is missing was evicted, or removed by a rejected
            // update.
            let metrics = cache.metrics();
            let gone = metrics.evictions + metrics.removes;
            assert_eq!(metrics.inserts - gone, cache.len() as u64);
        }
    }
}

#[test]
fn everything_at_once_keeps_values_and_accounts() {
    const KEYS: u64 = 3000;
    let _alone = alone();
    let seed = seed();
    for maintenance in BOTH {
        let tally = Arc::new(Tally::default());
        let cache: Cache<u64, support::Tracked> =
            builder(1500, maintenance).expected_entries(8).build().unwrap();
        let work = |thread: u64| {
            let mut random = Random::new(seed + thread);
            let check = |key: u64, value: u64| assert_eq!(value % KEYS, key, "another key's value");
            for step in 0..operations() / 12 / 2 {
                let key = random.below(KEYS);
                let value = tally.make(random.below(1 << 20) * KEYS + key);
                match random.below(1000) {
                    0 => cache.clear(),
                    1..4 => cache.set_max_cost(500 + random.below(1500)),
                    4..8 => cache.pin().iter().for_each(|(key, value)| check(*key, value.id)),
                    8..30 => {
                        let keys: Vec<u64> = (0..random.below(40)).map(|i| key + i * i).collect();
                        let mut next = 0;
                        cache.get_many(&keys, |index, value| {
                            assert_eq!(index, next);
                            next += 1;
                            if let Some(value) = value {
                                check(keys[index], value.id);
                            }
                        });
                        assert_eq!(next, keys.len());
                    }
                    30..32 => _ = cache.tick(WorkLimit::evictions(10)),
                    32..33 => cache.flush(),
                    33..100 => {
                        if let Some(value) = cache.remove(&key) {
                            check(key, value.id);
                        }
                    }
                    100..150 => {
                        if let Some(value) = cache.remove_if(&key, |value| value.id % 2 == 0) {
                            check(key, value.id);
                            assert_eq!(value.id % 2, 0);
                        }
                    }
                    150..200 => drop(cache.insert_if_absent(key, value)),
                    200..250 => drop(cache.replace(key, value)),
                    250..500 => drop(cache.insert_with_cost(key, value, random.below(4))),
                    500..510 => drop(cache.insert_with_cost(key, value, random.below(3000))),
                    510..650 => {
                        let pinned = cache.pin();
                        let values = [key, key + 1].map(|key| pinned.get(&key));
                        for (key, value) in (key..).zip(values) {
                            value.inspect(|value| check(key, value.id));
                        }
                    }
                    _ => {
                        if let Some(value) = cache.get(&key) {
                            check(*value.key(), value.id);
                            assert_eq!(*value.key(), key);
                        }
                    }
                }
                if step % 16 == 0 {
                    // The limit is never above this.
                    assert!(cache.cost() <= 2000, "{}", cache.cost());
                }
            }
        };
        thread::scope(|scope| {
            for thread in 0..12 {
                let work = &work;
                scope.spawn(move || work(thread));
            }
        });
        show("everything", maintenance, &cache.metrics());
        audit(&cache);
        settle(&cache);
        audit(&cache);
        assert!(cache.pin().iter().all(|(key, value)| value.id % KEYS == *key));
        assert_eq!(tally.alive(), cache.len() as u64);
        let metrics = cache.metrics();
        assert_eq!(metrics.inserts - metrics.evictions - metrics.removes, cache.len() as u64);
        assert!(cache.close());
        assert_eq!(tally.alive(), 0);
    }
}

#[test]
fn table_that_grows_under_eight_writers_loses_nothing_unseen() {
    let _alone = alone();
    for maintenance in BOTH {
        let cache: Cache<u64, u64> =
            builder(1 << 40, maintenance).expected_entries(16).build().unwrap();
        let missed = AtomicU64::new(0);
        let each = operations() / THREADS / 4;
        thread::scope(|scope| {
            for writer in 0..THREADS {
                let (cache, missed) = (&cache, &missed);
                scope.spawn(move || {
                    for i in 0..each {
                        let key = writer << 32 | i;
                        assert_eq!(cache.insert(key, i), Insert::Inserted);
                        match cache.get_cloned(&key) {
                            Some(value) => assert_eq!(value, i),
                            None => _ = missed.fetch_add(1, SeqCst),
                        }
                    }
                });
            }
        });
        let metrics = cache.metrics();
        show("growth", maintenance, &metrics);
        println!("  to {} entries, {} missed at once", cache.len(), missed.load(SeqCst));
        assert_eq!(metrics.evictions, metrics.local_evictions);
        assert!(missed.into_inner() <= metrics.local_evictions);
        assert_eq!(metrics.inserts - metrics.evictions, cache.len() as u64);
        settle(&cache);
        audit(&cache);
    }
}
