//! Many reads under one pin, and iteration.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
        mpsc,
    },
    thread,
};

use cortado::{Cache, Maintenance, ValueRef, WorkLimit};

use crate::{
    builder,
    support::{BOTH, Random, Tally, Tracked, audit, eventually, forever, seed, settle},
};

#[test]
fn pinned_references_live_together_and_outlive_the_entries() {
    let cache = builder(100, Maintenance::Manual).build().unwrap();
    for key in 0..10 {
        cache.insert(key, key.to_string());
    }
    let pinned = cache.pin();
    let values: Vec<&String> = (0..10).filter_map(|key| pinned.get(&key)).collect();
    assert!(pinned.get(&10).is_none());
    cache.clear();
    cache.flush();
    assert!(pinned.get(&1).is_none());
    assert_eq!(
        values,
        (0..10).map(|key| key.to_string()).collect::<Vec<_>>().iter().collect::<Vec<_>>()
    );
}

#[test]
fn pinned_get_many_hands_out_references_to_keep() {
    let cache = builder(100, Maintenance::Manual).build().unwrap();
    for key in 0..40u64 {
        cache.insert(key, key + 1);
    }
    let keys: Vec<u64> = (0..50).rev().collect();
    let pinned = cache.pin();
    let mut found = BTreeMap::new();
    pinned.get_many(&keys, |index, value: Option<&u64>| {
        if let Some(value) = value {
            found.insert(keys[index], value);
        }
    });
    assert_eq!(found.len(), cache.len());
    assert!(found.iter().all(|(key, value)| key + 1 == **value));
}

#[test]
fn iteration_sees_each_entry_once() {
    let cache = builder(100_000, Maintenance::Manual).expected_entries(10).build().unwrap();
    for key in 0..5000u64 {
        cache.insert(key, key * 2);
    }
    let pinned = cache.pin();
    let seen: Vec<u64> = pinned
        .iter()
        .map(|(key, value)| {
            assert_eq!(key * 2, *value);
            *key
        })
        .collect();
    assert_eq!(seen.len(), cache.len());
    assert_eq!(seen.iter().collect::<BTreeSet<_>>().len(), seen.len());
    assert_eq!(pinned.keys().count(), seen.len());
    assert_eq!(pinned.values().sum::<u64>(), 2 * seen.iter().sum::<u64>());
}

#[test]
fn iteration_sees_all_entries_that_remain_beside_inserts_and_evictions() {
    let seed = seed();
    for maintenance in BOTH {
        let cache = builder(u64::MAX, maintenance).expected_entries(10).build().unwrap();
        for key in 0..1000u64 {
            cache.insert(key, key);
        }
        // A full bucket may displace an entry that should remain. Those are subtracted at the end.
        let stop = AtomicBool::new(false);
        let rounds = thread::scope(|scope| {
            for writer in 0..2 {
                let (cache, stop) = (&cache, &stop);
                scope.spawn(move || {
                    let mut random = Random::new(seed + writer);
                    while !stop.load(SeqCst) {
                        let key = 1000 + random.below(20_000);
                        match random.below(3) {
                            0 => drop(cache.remove(&key)),
                            _ => drop(cache.insert(key, key)),
                        }
                    }
                });
            }
            let rounds: Vec<BTreeSet<u64>> = (0..30)
                .map(|_| {
                    let pinned = cache.pin();
                    pinned
                        .iter()
                        .inspect(|(key, value)| assert_eq!(key, value))
                        .map(|(key, _)| *key)
                        .collect()
                })
                .collect();
            stop.store(true, SeqCst);
            rounds
        });
        for key in (0..1000).filter(|key| cache.contains_key(key)) {
            assert!(
                rounds.iter().all(|round| round.contains(&key)),
                "{key} was there all the time"
            );
        }
        settle(&cache);
        audit(&cache);
    }
}

#[test]
fn cache_may_be_used_while_it_is_iterated() {
    let cache = builder(1000, Maintenance::Manual).build().unwrap();
    for key in 0..100u64 {
        cache.insert(key, key);
    }
    for (key, value) in cache.pin().iter() {
        if key % 2 == 0 {
            drop(cache.remove(key));
        } else {
            cache.insert(*key, value + 1);
            assert_eq!(cache.get_cloned(key), Some(value + 1));
        }
    }
    settle(&cache);
    audit(&cache);
}

#[test]
fn hottest_and_coldest_are_in_order() {
    let cache = builder(1000, Maintenance::Manual).build().unwrap();
    (0..100u64).for_each(|key| assert!(cache.insert(key, key).is_in()));
    // Key n in proportion to n, with other keys in between, because hits of one step count once.
    for round in 0..2000u64 {
        (0..100).filter(|key| round % 100 < *key).for_each(|key| _ = cache.get(&key));
        _ = cache.get(&(1000 + round));
    }
    let pinned = cache.pin();
    let hottest = pinned.hottest(10);
    assert_eq!(hottest.len(), 10);
    let frequencies: Vec<_> = hottest.iter().map(|(key, _)| cache.frequency(*key)).collect();
    assert!(frequencies.is_sorted_by(|a, b| a >= b), "{frequencies:?}");
    let rank = |of: &[(&u64, &u64)], key| of.iter().position(|(k, _)| **k == key);
    let coldest = pinned.coldest(usize::MAX);
    assert_eq!(coldest.len(), cache.len());
    assert!(rank(&coldest, 0) < rank(&coldest, 99));
    assert!(pinned.coldest(0).is_empty());
    assert_eq!(pinned.hottest(usize::MAX).len(), cache.len());
}

#[test]
fn value_held_by_a_thread_local_variable_lives_until_its_destructor_drops_it() {
    /// A reference, and the channels by which its thread and the test alternate.
    struct Kept {
        value: ValueRef<'static, u64, Tracked>,
        ending: mpsc::Sender<()>,
        go_on: mpsc::Receiver<()>,
        ended: mpsc::Sender<(u64, u64)>,
    }
    impl Drop for Kept {
        fn drop(&mut self) {
            self.ending.send(()).unwrap();
            self.go_on.recv().unwrap();
            self.ended.send((*self.value.key(), self.value.id)).unwrap();
        }
    }
    thread_local! {
        static KEPT: RefCell<Option<Kept>> = const { RefCell::new(None) };
    }
    // The order of destructors depends on the system: that of first use, or the reverse.
    for is_pinned_first in [false, true] {
        let tally = Arc::new(Tally::default());
        let cache = builder(100, Maintenance::Manual).build().unwrap();
        let cache: &'static Cache<u64, Tracked> = forever(cache);
        assert!(cache.insert(1, tally.make(7)).is_in());
        let (ending, is_ending) = mpsc::channel();
        let (proceed, go_on) = mpsc::channel();
        let (ended, has_ended) = mpsc::channel();
        let reader = thread::spawn(move || {
            if is_pinned_first {
                assert!(cache.get(&1).is_some());
            }
            KEPT.with_borrow_mut(|kept| {
                let value = cache.get(&1).unwrap();
                *kept = Some(Kept { value, ending, go_on, ended });
            });
        });
        is_ending.recv().unwrap();
        // The thread is ending. The value that it holds must not be freed, although other threads
        // start and end that may reuse its slot.
        drop(cache.remove(&1));
        for _ in 0..3 {
            thread::spawn(|| assert!(cache.get(&1).is_none())).join().unwrap();
            (0..8).for_each(|_| _ = cache.tick(WorkLimit::ALL));
            assert_eq!(tally.alive(), 1);
        }
        proceed.send(()).unwrap();
        assert_eq!(has_ended.recv().unwrap(), (1, 7));
        reader.join().unwrap();
        eventually("the value is dropped", || {
            cache.flush();
            tally.alive() == 0
        });
    }
}
