//! Tests that need a process of their own, because a stalled reader delays the garbage of every
//! cache in it. They run one after another.

#[path = "support/mod.rs"]
mod support;

use std::{
    hash::BuildHasher,
    slice,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::SeqCst},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use cortado::{
    Cache, ComputeOp, ComputeResult, Insert, Maintenance, ManualClock, RejectReason, Removed,
    WorkLimit,
};
use support::{BOTH, Tally, audit, builder, eventually, settle};

static ALONE: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Calls `f` while another thread holds a value of the cache.
fn beside_a_stalled_reader<S: BuildHasher + Send + Sync, R>(
    cache: &Cache<u64, support::Tracked, S>,
    f: impl FnOnce() -> R,
) -> R {
    beside_a_stalled_reader_of_all(slice::from_ref(cache), f)
}

/// Calls `f` while another thread holds a value of each of the caches.
fn beside_a_stalled_reader_of_all<S: BuildHasher + Send + Sync, R>(
    caches: &[Cache<u64, support::Tracked, S>],
    f: impl FnOnce() -> R,
) -> R {
    let hold = |wait: &dyn Fn()| {
        let held = caches.iter().map(|cache| cache.get(&0).expect("the entry is there"));
        let held: Vec<_> = held.collect();
        wait();
        assert!(held.iter().all(|value| value.id == 0), "they stayed readable");
    };
    beside(hold, f)
}

/// Calls `f` while another thread is pinned for the whole cache rather than for one value.
fn beside_a_pin<R>(cache: &Cache<u64, support::Tracked>, f: impl FnOnce() -> R) -> R {
    let hold = |wait: &dyn Fn()| {
        let pinned = cache.pin();
        let held = pinned.get(&0).expect("the entry is there");
        wait();
        assert_eq!(held.id, 0, "it stayed readable");
    };
    beside(hold, f)
}

/// Calls `f` while another thread is inside `hold`, which waits by calling its argument.
fn beside<R>(hold: impl FnOnce(&dyn Fn()) + Send, f: impl FnOnce() -> R) -> R {
    let (ready, is_ready) = mpsc::channel();
    let (release, is_released) = mpsc::channel::<()>();
    thread::scope(|scope| {
        scope.spawn(move || {
            hold(&|| {
                ready.send(()).unwrap();
                // Ends with the sender, so that a failed assertion does not leave the thread
                // waiting.
                let _ = is_released.recv();
            });
        });
        is_ready.recv().unwrap();
        let release = release;
        let result = f();
        drop(release);
        result
    })
}

#[test]
fn stalled_reader_holds_back_garbage_and_the_budget_is_kept() {
    let _alone = alone();
    for maintenance in BOTH {
        let tally = Arc::new(Tally::default());
        let cache = builder(1000, maintenance).max_garbage(u64::MAX).build().unwrap();
        assert!(cache.insert(0, tally.make(0)).is_in());
        beside_a_stalled_reader(&cache, || {
            let before = cache.metrics();
            for key in 1..20_000 {
                assert!(!matches!(
                    cache.insert(key, tally.make(key)),
                    Insert::Rejected(_, RejectReason::Garbage)
                ));
                assert!(cache.cost() <= 1000);
                assert!(tally.alive() <= 20_000);
            }
            cache.flush();
            audit(&cache);
            let memory = cache.memory();
            let seen = cache.metrics() - before;
            println!("{maintenance:?}: {memory:?}");
            assert_eq!(memory.garbage_entries, memory.garbage, "each cost 1");
            assert_eq!(memory.garbage_entries, seen.evictions, "none of them is freed");
            assert_eq!(tally.alive(), cache.len() as u64 + memory.garbage_entries);
        });
        settle(&cache);
        assert_eq!(tally.alive(), cache.len() as u64);
        assert_eq!(cache.memory().garbage, 0);
    }
}

#[test]
fn stalled_readers_are_counted_and_named_in_their_own_cache_alone() {
    let _alone = alone();
    let second = Duration::from_secs(1);
    let known = |count| cfg!(not(feature = "crossbeam-epoch")).then_some(count);
    let caches = [(); 2].map(|()| {
        let clock = ManualClock::new();
        let builder = builder(10, Maintenance::Manual).clock(clock.clone());
        (builder.build().unwrap(), clock)
    });
    let [(cache, clock), (other, other_clock)] = &caches;
    let tally = Arc::new(Tally::default());
    for cache in [cache, other] {
        assert!(cache.insert(0, tally.make(0)).is_in());
    }
    let counts = || {
        clock.advance(second);
        other_clock.advance(second);
        let counts = [cache, other].map(|cache| cache.memory().stalled_readers);
        let named = [cache, other].map(|cache| cache.stalled_readers().len() as u64);
        assert_eq!(named, counts.map(|count| count.unwrap_or(0)));
        counts
    };
    beside_a_stalled_reader(cache, || {
        assert_eq!(counts(), [known(0), known(0)], "nothing has been seen before");
        assert_eq!(counts(), [known(1), known(0)]);
        beside_a_stalled_reader(cache, || {
            assert_eq!(counts(), [known(1), known(0)], "the second one is new");
            assert_eq!(counts(), [known(2), known(0)]);
        });
        assert_eq!(counts(), [known(1), known(0)]);
    });
    assert_eq!(counts(), [known(0), known(0)]);
}

#[test]
fn too_much_garbage_rejects_inserts_until_it_is_freed() {
    let _alone = alone();
    for maintenance in BOTH {
        for limit in [0, 10, 500] {
            let tally = Arc::new(Tally::default());
            let cache = builder(1000, maintenance).max_garbage(limit).build().unwrap();
            assert!(cache.insert(0, tally.make(0)).is_in());
            let most = beside_a_stalled_reader(&cache, || {
                let mut most = 0;
                let mut rejected = 0;
                for key in 1..5000 {
                    let insert = cache.insert(key, tally.make(key));
                    if let Insert::Rejected(value, reason) = insert {
                        assert_eq!(value.id, key);
                        rejected += u64::from(reason == RejectReason::Garbage);
                    }
                    assert!(cache.cost() <= 1000);
                    most = most.max(cache.memory().garbage);
                }
                assert!(rejected > 1000, "{rejected} rejected");
                assert_eq!(cache.metrics().rejected_garbage, rejected);
                // Reads still work.
                assert!(cache.pin().iter().all(|(key, value)| *key == value.id));
                audit(&cache);
                most
            });
            println!("{maintenance:?}: limit {limit}, at most {most}");
            // The limit is checked when a batch of 64 is sealed. There is one batch for each
            // writing thread, here this one and the maintenance thread, and one of cells.
            assert!(most <= limit + 3 * 64, "{most} of garbage where {limit} may be");
            settle(&cache);
            assert_eq!((cache.memory().garbage, tally.alive()), (0, cache.len() as u64));
            eventually("inserts are let in again", || cache.insert(9999, tally.make(9999)).is_in());
        }
    }
}

#[test]
fn values_of_rejected_loads_do_not_accumulate() {
    let _alone = alone();
    for maintenance in BOTH {
        let tally = Arc::new(Tally::default());
        let cache = builder(10, maintenance).cost_of(|_, _| 11).build().unwrap();
        let mut most = 0;
        for key in 0..20_000 {
            assert_eq!(cache.get_or_insert_with(key, || tally.make(key)).id, key);
            most = most.max(tally.alive());
        }
        assert!(cache.is_empty());
        println!("{maintenance:?}: at most {most}");
        assert!(most <= 5_000, "{most} values were alive at once");
    }
}

#[test]
fn garbage_is_bounded_though_maintenance_comes_after_every_insert() {
    // Maintenance seals batches before they are full, and the limit used to be checked only when a
    // writer filled one: a slow writer beside a stalled reader exceeded any limit.
    let _alone = alone();
    for maintenance in BOTH {
        let tally = Arc::new(Tally::default());
        let cache = builder(1000, maintenance).max_garbage(100).build().unwrap();
        assert!(cache.insert(0, tally.make(0)).is_in());
        beside_a_stalled_reader(&cache, || {
            for key in 1..5000 {
                drop(cache.insert(key, tally.make(key)));
                cache.tick(WorkLimit::ALL);
                let garbage = cache.memory().garbage;
                assert!(garbage <= 100 + 3 * 64, "{garbage} of garbage where 100 may be");
            }
            assert!(cache.metrics().rejected_garbage > 1000);
        });
        settle(&cache);
    }
}

#[test]
fn values_are_replaced_beside_too_much_garbage_until_it_is_twice_the_limit() {
    let _alone = alone();
    let tally = Arc::new(Tally::default());
    let cache = builder(10_000, Maintenance::Manual).max_garbage(100).build().unwrap();
    for key in 0..50 {
        assert!(cache.insert(key, tally.make(key)).is_in());
    }
    beside_a_stalled_reader(&cache, || {
        // A new key is rejected as soon as garbage exceeds the limit, and removes nothing.
        let is_refused = |key: u64| match cache.insert(key, tally.make(key)) {
            Insert::Rejected(_, reason) => reason == RejectReason::Garbage,
            _ => false,
        };
        let replaced = (1..).take_while(|turn| {
            assert_eq!(cache.insert(1 + turn % 49, tally.make(*turn)), Insert::Updated);
            !is_refused(100 + turn)
        });
        let replaced = replaced.count() as u64;
        assert!((64..100 + 4 * 64).contains(&replaced), "{replaced} replaced");
        let len = cache.len();
        // An existing entry is replaced, because a cache must not serve an overwritten value.
        let mut turn = 1000;
        let refused = loop {
            turn += 1;
            assert!(turn < 3000, "garbage has no limit");
            match cache.insert(7, tally.make(turn)) {
                Insert::Rejected(value, reason) => break (value.id, reason),
                _ => assert_eq!(cache.get(&7).unwrap().id, turn),
            }
        };
        assert_eq!(refused, (turn, RejectReason::Garbage));
        assert!(cache.memory().garbage > 200);
        // The entry that was to be replaced is stale, so it is removed, and no other one is.
        assert!(!cache.contains_key(&7));
        assert_eq!(cache.len(), len - 1);
        assert!(cache.metrics().rejected_garbage >= 2);
        audit(&cache);
    });
    settle(&cache);
}

#[test]
fn update_that_is_refused_for_garbage_keeps_what_is_there() {
    let _alone = alone();
    let tally = Arc::new(Tally::default());
    let cache = builder(10_000, Maintenance::Manual).max_garbage(0).build().unwrap();
    for key in 0..10 {
        assert!(cache.insert(key, tally.make(key)).is_in());
    }
    beside_a_stalled_reader(&cache, || {
        for turn in 0..1000 {
            let key = turn % 9 + 1;
            let seen = cache.get(&key).unwrap().id;
            let done = cache.compute(key, |_| ComputeOp::Put(tally.make(seen + 100)));
            let now = cache.get(&key).unwrap().id;
            match done {
                ComputeResult::Updated(_) => assert_eq!(now, seen + 100),
                ComputeResult::Rejected(value, RejectReason::Garbage) => {
                    assert_eq!((value.id, now), (seen + 100, seen));
                    assert!(!cache.update(&key, |_| tally.make(0)));
                    assert_eq!(cache.get(&key).unwrap().id, seen);
                }
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(cache.len(), 10);
        assert!(cache.metrics().rejected_garbage > 1000);
        audit(&cache);
    });
    settle(&cache);
}

#[test]
fn pin_that_is_renewed_holds_nothing_back() {
    let _alone = alone();
    let tally = Arc::new(Tally::default());
    let cache = builder(10, Maintenance::Manual).build().unwrap();
    assert!(cache.insert(0, tally.make(0)).is_in());
    let mut pinned = cache.pin();
    drop(cache.remove(&0));
    cache.flush();
    assert_eq!(tally.alive(), 1, "the pin holds it back");
    let other = cache.peek(&1);
    assert!(other.is_none());
    pinned.repin();
    cache.flush();
    assert_eq!(tally.alive(), 0);
    assert!(pinned.get(&0).is_none());
}

#[test]
fn reader_of_another_cache_refuses_no_write_and_takes_nothing_away() {
    let _alone = alone();
    for maintenance in BOTH {
        let tally = Arc::new(Tally::default());
        let other = builder(10, maintenance).build().unwrap();
        assert!(other.insert(0, tally.make(0)).is_in());
        let cache: Cache<u64, u64> = builder(10_000, maintenance).build().unwrap();
        for key in 0..9_000 {
            assert!(cache.insert(key, 0).is_in());
        }
        let before = cache.len();
        beside_a_stalled_reader(&other, || {
            for _ in 0..3 {
                for key in 0..9_000 {
                    cache.update(&key, |n| n + 1);
                    assert!(cache.replace(key, 1).is_in() || !cache.contains_key(&key));
                }
            }
        });
        assert_eq!(cache.metrics().rejected_garbage, 0);
        assert!(cache.len() >= before * 9 / 10, "{before} before, {} after", cache.len());
        settle(&cache);
    }
}

#[test]
fn garbage_below_the_floor_of_memory_refuses_nothing_where_every_entry_costs_1() {
    let _alone = alone();
    let tally = Arc::new(Tally::default());
    let cache = builder(100, Maintenance::Manual).build().unwrap();
    assert!(cache.insert(0, tally.make(0)).is_in());
    beside_a_pin(&cache, || {
        for turn in 0..20_000 {
            let insert = cache.insert(1 + turn % 90, tally.make(turn));
            assert!(!matches!(insert, Insert::Rejected(_, RejectReason::Garbage)), "{turn}");
        }
        assert!(cache.memory().garbage_entries > 19_000);
    });
    settle(&cache);
}

#[test]
fn default_limit_of_garbage_counts_bytes_where_costs_are_bytes() {
    const SIZE: u64 = 1 << 20;
    let _alone = alone();
    let cache = support::builder(8 * SIZE, Maintenance::Manual)
        .cost_of(|_: &u64, _: &support::Tracked| SIZE)
        .build()
        .unwrap();
    let tally = Arc::new(Tally::default());
    assert!(cache.insert(0, tally.make(0)).is_in());
    beside_a_pin(&cache, || {
        // 32 MiB is more than the budget: garbage may reach that, and new keys are rejected from
        // then on.
        let let_in = |key| cache.insert(key, tally.make(key)).is_in();
        let accepted = (1..1000).take_while(|&key| let_in(key)).count() as u64;
        assert!((32..=32 + 16).contains(&accepted), "{accepted} accepted");
        let garbage = cache.memory().garbage;
        assert!((32 * SIZE..48 * SIZE).contains(&garbage), "{garbage}");
    });
    settle(&cache);
}

// Other collectors do not track which part a pin protects.
#[cfg(not(feature = "crossbeam-epoch"))]
#[test]
fn value_that_is_held_holds_back_the_garbage_of_few_others() {
    const SIZE: u64 = 1 << 20;
    let _alone = alone();
    for maintenance in BOTH {
        // A fixed hasher gives the same parts each time. The part of key 0 is one of the larger
        // ones, with the entries of two tags.
        let cache = support::builder(64 * SIZE, maintenance)
            .cost_of(|_: &u64, _: &support::Tracked| SIZE)
            .hasher(cortado::IdentityHash)
            .build()
            .unwrap();
        let tally = Arc::new(Tally::default());
        assert!(cache.insert(0, tally.make(0)).is_in());
        beside_a_stalled_reader(&cache, || {
            let before = cache.metrics();
            let mut most = 0;
            for key in 1..20_000 {
                assert!(cache.insert(key, tally.make(key)).is_in(), "{key}");
                most = most.max(tally.alive());
            }
            println!("{maintenance:?}: {most} alive at most, of 64");
            // One in a thousand entries is in the same part, and some wait for the next sweep.
            assert!(most < 64 + 50, "{most}");
            let seen = cache.metrics() - before;
            assert!(seen.evictions >= 19_900 && seen.garbage_freed >= seen.evictions - 100);
            // Their cells are not free yet, and are counted.
            let garbage = cache.memory().garbage;
            assert!(garbage > 0 && garbage < 50 * SIZE, "{garbage}");
            audit(&cache);
        });
        settle(&cache);
        assert_eq!((cache.memory().garbage, tally.alive()), (0, cache.len() as u64));
    }
}

#[test]
fn listener_runs_under_no_guard_whatever_called_it() {
    let _alone = alone();
    let (called, pinned) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let (count, bad) = (Arc::clone(&called), Arc::clone(&pinned));
    let cache = builder(100, Maintenance::Manual)
        .on_remove(move |_: Removed<u64, u64>| {
            // What is removed now is freed only if this thread is not pinned.
            if count.fetch_add(1, SeqCst) % 64 == 0 {
                let probe = builder(1, Maintenance::Manual).build().unwrap();
                assert!(probe.insert(1, 1).is_in());
                drop(probe.remove(&1));
                let freed = (0..100).any(|_| {
                    probe.flush();
                    probe.memory().garbage_entries == 0
                });
                bad.fetch_add(u64::from(!freed), SeqCst);
            }
        })
        .build()
        .unwrap();
    let acts: [(&str, &dyn Fn(u64)); 8] = [
        ("insert", &|key| _ = cache.insert(key, key)),
        ("update", &|_| _ = cache.insert(1, 1)),
        ("remove", &|key| {
            cache.insert(key, key);
            drop(cache.remove(&key));
        }),
        ("remove_if", &|key| {
            cache.insert(key, key);
            drop(cache.remove_if(&key, |_| true));
        }),
        ("retain", &|key| {
            cache.insert(key, key);
            cache.retain(|_, _| false);
        }),
        ("compute", &|_| _ = cache.compute(1, |_| ComputeOp::Put(1))),
        ("load", &|key| drop(cache.get_or_insert_with(key, || key))),
        ("clear", &|key| {
            cache.insert(key, key);
            cache.clear();
        }),
    ];
    for (name, act) in acts {
        let before = called.load(SeqCst);
        for key in 0..3_000 {
            act(key);
        }
        assert!(called.load(SeqCst) > before, "{name} reported no removal");
        assert_eq!(pinned.load(SeqCst), 0, "{name} reported under a guard");
    }
}

#[test]
fn loader_and_cost_function_run_under_no_guard() {
    let _alone = alone();
    let calls = AtomicU64::new(0);
    // What is removed now is freed only if this thread is not pinned.
    let is_pinned = || {
        let probe = builder(1, Maintenance::Manual).build().unwrap();
        assert!(probe.insert(1, 1).is_in());
        drop(probe.remove(&1));
        !(0..100).any(|_| {
            probe.flush();
            probe.memory().garbage_entries == 0
        })
    };
    let look = || {
        assert!(!is_pinned(), "call {}", calls.load(SeqCst));
        calls.fetch_add(1, SeqCst);
    };
    let cache = builder(100, Maintenance::Manual).cost_of(move |_: &u64, _: &u64| {
        assert!(!is_pinned(), "the cost function");
        1
    });
    let cache = cache.build().unwrap();
    for key in 0..20 {
        cache.insert(key, key);
        drop(cache.get_or_insert_with(100 + key, || {
            look();
            key
        }));
    }
    assert_eq!(calls.load(SeqCst), 20);
    assert!(is_pinned_beside(&cache, is_pinned), "the probe shows nothing");
}

/// Calls `f` while this thread holds a value.
fn is_pinned_beside(cache: &Cache<u64, u64>, f: impl FnOnce() -> bool) -> bool {
    let held = cache.get(&100);
    let pinned = f();
    drop(held);
    pinned
}

#[test]
fn stalled_pin_of_one_cache_does_not_stop_another() {
    let _alone = alone();
    let held = builder(10, Maintenance::Manual).build().unwrap();
    held.insert(1, 1);
    let pin = held.pin();
    let tally = Arc::new(Tally::default());
    let cache = builder(100, Maintenance::Thread).max_garbage(u64::MAX).build().unwrap();
    for key in 0..5000 {
        assert!(cache.insert(key, tally.make(key)).is_in() || cache.cost() > 90);
        assert!(cache.cost() <= 100);
    }
    cache.tick(WorkLimit::ALL);
    // This thread has used both under one pin, which therefore counts for both.
    assert_eq!(tally.alive(), cache.len() as u64 + cache.memory().garbage_entries);
    assert_eq!(pin.get(&1), Some(&1));
    drop(pin);
    settle(&cache);
    assert_eq!(tally.alive(), cache.len() as u64);
}

// With crossbeam-epoch, a pin of one cache delays the garbage of all.
#[cfg(not(feature = "crossbeam-epoch"))]
#[test]
fn stalled_reader_of_one_cache_holds_back_no_garbage_of_another() {
    let _alone = alone();
    let held = builder(10, Maintenance::Manual).build().unwrap();
    held.insert(1, 1);
    let pin = held.pin();
    thread::scope(|scope| {
        let other = scope.spawn(|| {
            let tally = Arc::new(Tally::default());
            let cache = builder(100, Maintenance::Manual).max_garbage(u64::MAX).build().unwrap();
            for key in 0..5000 {
                drop(cache.insert(key, tally.make(key)));
            }
            cache.clear();
            settle(&cache);
            assert_eq!((tally.alive(), cache.memory().garbage_entries), (0, 0));
        });
        other.join().unwrap();
    });
    assert_eq!(pin.get(&1), Some(&1));
}

#[test]
fn cache_can_be_dropped_while_another_cache_is_pinned() {
    let _alone = alone();
    let held = builder(10, Maintenance::Manual).build().unwrap();
    held.insert(1, 1);
    let pin = held.pin();
    for maintenance in BOTH {
        let tally = Arc::new(Tally::default());
        let cache = builder(100, maintenance).build().unwrap();
        for key in 0..500 {
            drop(cache.insert(tally.make(key), tally.make(key)));
        }
        assert!(cache.close());
        assert_eq!(tally.alive(), 0, "everything, garbage included");
    }
    drop(pin);
}

#[cfg(target_os = "linux")]
#[test]
fn hundred_caches_leave_no_threads() {
    let _alone = alone();
    let names = || {
        let tasks = std::fs::read_dir("/proc/self/task").unwrap();
        // A thread may end between the two reads.
        let names =
            tasks.filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("comm")).ok());
        names.filter(|name| name.starts_with("cortado gone")).count()
    };
    let kept: Cache<u64, u64> = Cache::builder().max_cost(10).name("gone").build().unwrap();
    eventually("the thread has its name", || names() == 1);
    drop(kept);
    for round in 0..100u64 {
        let cache = Cache::builder().max_cost(10).name("gone").build().unwrap();
        for key in 0..round % 50 {
            cache.insert(key, key);
        }
        let clone = cache.clone();
        drop(cache);
        assert_eq!(clone.max_cost(), 10);
    }
    // The system still lists a thread for a moment after it was joined.
    eventually("no thread is left", || names() == 0);
}

#[test]
fn threads_whose_garbage_waits_for_a_reader_take_less_and_less_time() {
    let _alone = alone();
    let tally = Arc::new(Tally::default());
    let make = || builder(100, Maintenance::Thread).build().unwrap();
    let caches: Vec<_> = (0..20).map(|_| make()).collect();
    for cache in &caches {
        assert!(cache.insert(0, tally.make(0)).is_in() && cache.insert(1, tally.make(1)).is_in());
    }
    beside_a_stalled_reader_of_all(&caches, || {
        let start = Instant::now();
        caches.iter().for_each(|cache| drop(cache.remove(&1)));
        // Each wait is twice as long as the one before, and long waits have two rounds each.
        let rounds = || caches.iter().map(|cache| cache.metrics().rounds);
        eventually("each thread has tried often", || rounds().all(|rounds| rounds >= 18));
        assert!(start.elapsed() > Duration::from_millis(200), "{:?}", start.elapsed());
        let most = 12 + 2 * start.elapsed().as_millis().ilog2() as u64;
        assert!(
            rounds().all(|rounds| rounds <= most),
            "{:?}, {most}",
            rounds().collect::<Vec<_>>()
        );
        assert_eq!(tally.alive(), 2 * 20);
    });
    eventually("the reader has gone, and each thread frees its garbage", || tally.alive() == 20);
}

#[test]
fn thread_sleeps_until_a_deadline_and_is_woken_by_a_clock_that_is_moved() {
    let _alone = alone();
    let clock = ManualClock::new();
    let hour = Duration::from_secs(3600);
    let tally = Arc::new(Tally::default());
    let cache = builder(100, Maintenance::Thread).clock(clock.clone()).ttl(hour).build().unwrap();
    for _ in 0..20 {
        assert!(cache.insert(1, tally.make(1)).is_in());
        clock.advance(hour / 2);
        assert!(cache.contains_key(&1));
        clock.advance(hour / 2);
        eventually("the thread has removed what has expired", || tally.alive() == 0);
        assert_eq!(cache.len(), 0);
    }
}

#[test]
fn sleeping_thread_wakes_for_a_single_removal() {
    let _alone = alone();
    let tally = Arc::new(Tally::default());
    let cache = builder(1000, Maintenance::Thread).build().unwrap();
    for round in 0..20 {
        assert!(cache.insert(round, tally.make(round)).is_in());
        drop(cache.remove(&round));
        eventually("the thread has woken and freed it", || tally.alive() == 0);
    }
}
