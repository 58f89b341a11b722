//! Priorities: which entries are evicted first, which never, and which are rejected because of
//! that.

use std::{
    hash::{BuildHasher, BuildHasherDefault, DefaultHasher, Hasher},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    thread,
};

use cortado::{Cache, Insert, InsertOptions, Maintenance, Priority, RejectReason};

use crate::{
    builder,
    support::{BOTH, Random, audit, seed, settle},
};

/// A hasher that gives all keys one hash.
struct AllEqual;

impl BuildHasher for AllEqual {
    type Hasher = Self;
    fn build_hasher(&self) -> Self {
        Self
    }
}

impl Hasher for AllEqual {
    fn write(&mut self, _: &[u8]) {}
    fn finish(&self) -> u64 {
        42
    }
}

fn pinned() -> InsertOptions {
    InsertOptions::new().priority(Priority::Pinned)
}

#[test]
fn unevictable_entries_outlive_all_others() {
    for maintenance in BOTH {
        let cache = builder(1000, maintenance).build().unwrap();
        for key in 0..300 {
            assert_eq!(cache.insert_with(key, key, pinned()), Insert::Inserted);
        }
        for key in 300..100_000 {
            cache.insert(key, key);
        }
        let lost: Vec<u64> = (0..300).filter(|key| !cache.contains_key(key)).collect();
        assert_eq!(lost, [], "with {maintenance:?}");
        assert!(cache.len() > 900, "the others have the rest: {}", cache.len());
        settle(&cache);
        audit(&cache);
    }
}

#[test]
fn all_pinned_and_full_rejects_the_new_entry() {
    for maintenance in BOTH {
        let cache = builder(100, maintenance).build().unwrap();
        for key in 0..100 {
            assert!(cache.insert_with(key, key, pinned()).is_in());
        }
        assert_eq!(cache.insert(100, 7), Insert::Rejected(7, RejectReason::Kept));
        assert_eq!(cache.insert_with(101, 8, pinned()), Insert::Rejected(8, RejectReason::Kept));
        assert_eq!(cache.insert_if_absent(102, 9), Insert::Rejected(9, RejectReason::Kept));
        assert_eq!(cache.insert_if_absent(5, 9), Insert::Rejected(9, RejectReason::Present));
        assert_eq!((cache.len(), cache.cost()), (100, 100));

        assert!(cache.remove(&0).is_some());
        assert_eq!(cache.insert(100, 7), Insert::Inserted);
        assert_eq!(cache.insert(101, 7), Insert::Inserted, "in place of the last one");
        assert_eq!((1..100).filter(|key| cache.contains_key(key)).count(), 99);
        assert!(!cache.contains_key(&100));
    }
}

#[test]
fn room_is_counted_in_cost() {
    let cache = builder(100, Maintenance::Manual).build().unwrap();
    assert!(cache.insert_with("root", 0, pinned().cost(60)).is_in());
    assert!(cache.insert_with_cost("large", 0, 40).is_in());
    assert_eq!(cache.insert_with_cost("larger", 1, 41), Insert::Rejected(1, RejectReason::Kept));
    assert!(cache.contains_key("large"), "no entry is evicted for a rejected one");
    assert!(cache.insert_with_cost("small", 0, 30).is_in());
    assert!(cache.contains_key("root") && !cache.contains_key("large"));
}

#[test]
fn insert_resets_the_priority_and_replace_keeps_it() {
    let cache = builder(10, Maintenance::Manual).build().unwrap();
    for key in 0..10 {
        assert!(cache.insert_with(key, 0, pinned()).is_in());
    }
    assert_eq!(cache.replace(3, 1), Insert::Updated);
    assert_eq!(cache.insert(10, 0), Insert::Rejected(0, RejectReason::Kept));
    assert_eq!(cache.insert(3, 2), Insert::Updated);
    assert_eq!(cache.insert(10, 0), Insert::Inserted);
    assert!(!cache.contains_key(&3));
    cache.clear();
    for key in 0..10 {
        assert!(cache.insert(key, 0).is_in(), "what was pinned is gone");
    }
}

#[test]
fn failed_update_of_a_pinned_entry_leaves_no_stale_value_and_no_account() {
    let cache = builder(10, Maintenance::Manual).build().unwrap();
    assert!(cache.insert_with("a", 0, pinned().cost(5)).is_in());
    assert!(cache.insert_with("b", 0, pinned().cost(5)).is_in());
    assert_eq!(
        cache.insert_with("a", 1, pinned().cost(6)),
        Insert::Rejected(1, RejectReason::Kept)
    );
    assert!(!cache.contains_key("a"));
    assert!(cache.insert_with_cost("c", 0, 5).is_in());
    assert!(cache.contains_key("b"));
}

#[test]
fn full_bucket_of_pinned_entries_evicts_none_of_them() {
    let cache = builder(1000, Maintenance::Manual).hasher(AllEqual).build().unwrap();
    let mut inside = 0;
    for key in 0..100 {
        match cache.insert_with(key, key, pinned()) {
            Insert::Inserted => inside += 1,
            rejected => assert_eq!(rejected, Insert::Rejected(key, RejectReason::Kept)),
        }
        assert_eq!(cache.len(), inside);
    }
    assert!((7..100).contains(&inside), "all keys have one hash: {inside}");
}

#[test]
fn pinned_entries_by_chance_in_one_bucket_find_room_elsewhere() {
    let cache = builder(20_000, Maintenance::Manual).build().unwrap();
    for key in 0..20_000 {
        assert_eq!(cache.insert_with(key, key, pinned()), Insert::Inserted);
    }
    assert_eq!(cache.len(), 20_000);
}

#[test]
fn lower_budget_evicts_pinned_entries_last() {
    let cache = builder(1000, Maintenance::Manual).build().unwrap();
    for key in 0..1000 {
        let options = if key % 4 == 0 { pinned() } else { InsertOptions::new() };
        assert!(cache.insert_with(key, key, options).is_in());
    }
    let pinned = || (0..1000).step_by(4).filter(|key| cache.contains_key(key)).count();
    cache.set_max_cost(250);
    assert_eq!((cache.cost(), pinned()), (250, 250));
    cache.set_max_cost(100);
    assert_eq!((cache.cost(), pinned()), (100, 100));
    assert_eq!(cache.insert(1, 1), Insert::Rejected(1, RejectReason::Kept));
}

#[test]
fn of_entries_used_alike_low_is_evicted_first_and_high_last() {
    let seed = 7;
    // A fixed hasher, because the differences depend on it.
    let hasher = BuildHasherDefault::<DefaultHasher>::default();
    let cache = builder(1000, Maintenance::Manual).seed(seed).hasher(hasher).build().unwrap();
    let priority = |key: u64| [Priority::Low, Priority::Normal, Priority::High][key as usize % 3];
    let mut rng = Random::new(seed);
    let mut hits = [0; 3];
    for _ in 0..200_000 {
        let key = rng.below(3000);
        if cache.get(&key).is_some() {
            hits[key as usize % 3] += 1;
        } else {
            cache.insert_with(key, key, InsertOptions::new().priority(priority(key)));
        }
    }
    let [low, normal, high] = hits;
    assert!(3 * low < 2 * normal && 3 * normal < 2 * high, "seed {seed}: {hits:?}");
    audit(&cache);
}

#[test]
fn accounts_of_pinned_entries_balance_among_threads() {
    for maintenance in BOTH {
        let cache = builder(500, maintenance).build().unwrap();
        thread::scope(|scope| {
            for thread in 0..4 {
                let cache = &cache;
                scope.spawn(move || {
                    let mut rng = Random::new(thread);
                    for _ in 0..20_000 {
                        let key = rng.below(400);
                        match rng.below(8) {
                            0 | 1 => drop(cache.insert_with(key, key, pinned().cost(1 + key % 3))),
                            2 => drop(cache.insert(key, key)),
                            3 => _ = cache.replace(key, key),
                            4 => drop(cache.remove(&key)),
                            _ => drop(cache.get(&key)),
                        }
                        assert!(cache.cost() <= 500);
                    }
                });
            }
        });
        audit(&cache);
        for key in 0..400 {
            cache.remove(&key);
        }
        assert_eq!((cache.len(), cache.cost()), (0, 0));
        // If a count was left over, this would be rejected as `Kept`.
        assert!(cache.insert_with_cost(0, 0, 500).is_in());
    }
}

#[test]
fn priority_of_an_entry_can_be_changed() {
    for maintenance in BOTH {
        let cache: Cache<u64, u64> = builder(100, maintenance).build().unwrap();
        (0..20).for_each(|key| assert!(cache.insert(key, key).is_in()));
        assert!((0..20).all(|key| cache.set_priority(&key, Priority::Pinned)));
        assert!(!cache.set_priority(&50, Priority::Pinned));
        (100..5_000).for_each(|key| assert!(cache.insert(key, key).is_in()));
        for key in 0..20 {
            assert_eq!(cache.entry_info(&key).unwrap().priority, Priority::Pinned);
        }
        audit(&cache);
        // Unevictable entries are counted: no more are admitted than there is room for.
        let rest = InsertOptions::new().cost(81);
        assert_eq!(cache.insert_with(99, 0, rest), Insert::Rejected(0, RejectReason::Kept));
        for priority in [Priority::Low, Priority::High, Priority::Normal] {
            assert!((0..20).all(|key| cache.set_priority(&key, priority)));
        }
        assert!(cache.insert_with(99, 0, rest).is_in());
        (100..5_000).for_each(|key| assert!(cache.insert(key, key).is_in()));
        assert!((0..20).filter(|key| cache.contains_key(key)).count() < 20);
        audit(&cache);
    }
}

#[test]
fn priorities_that_change_under_load_leave_no_account_behind() {
    let cache: Cache<u64, u64> = builder(200, Maintenance::Thread).build().unwrap();
    thread::scope(|scope| {
        for thread in 0..4 {
            let cache = &cache;
            scope.spawn(move || {
                let mut random = Random::new(seed() + thread);
                for _ in 0..20_000 {
                    let key = random.below(300);
                    match random.below(8) {
                        0 => _ = cache.set_priority(&key, Priority::Pinned),
                        1 | 2 => _ = cache.set_priority(&key, Priority::Normal),
                        3 => drop(cache.remove(&key)),
                        4 => _ = cache.replace(key, key),
                        _ => _ = cache.insert(key, key),
                    }
                }
            });
        }
    });
    audit(&cache);
    (0..300).for_each(|key| _ = cache.set_priority(&key, Priority::Low));
    // Nothing is counted as unevictable any more.
    assert!(cache.insert_with_cost(1_000, 0, 200).is_in());
    assert_eq!(cache.len(), 1);
    audit(&cache);
}

#[test]
fn insert_keeps_the_priority_if_the_builder_enables_it() {
    for keep in [false, true] {
        let cache: Cache<u64, u64> =
            builder(100, Maintenance::Manual).keep_priority(keep).build().unwrap();
        let high = InsertOptions::new().priority(Priority::High);
        assert!(cache.insert_with(1, 1, high).is_in() && cache.insert(1, 2).is_in());
        let priority = cache.entry_info(&1).unwrap().priority;
        assert_eq!(priority, if keep { Priority::High } else { Priority::Normal });
        let low = InsertOptions::new().priority(Priority::Low);
        assert!(cache.insert_with(1, 3, low).is_in());
        assert_eq!(cache.entry_info(&1).unwrap().priority, Priority::Low, "it was named");
    }
}

#[test]
fn priority_of_an_entry_that_was_removed_in_between_is_not_kept() {
    let handle: Arc<Mutex<Option<Cache<u64, u64>>>> = Arc::default();
    let of_hook = Arc::clone(&handle);
    let cache: Cache<u64, u64> = builder(10, Maintenance::Manual)
        .keep_priority(true)
        .replace_if(move |key, _, _| {
            let cache = of_hook.lock().unwrap().clone();
            cache.is_none_or(|cache| cache.remove(key).is_some())
        })
        .build()
        .unwrap();
    assert!(cache.insert_with(1, 1, pinned()).is_in());
    *handle.lock().unwrap() = Some(cache.clone());
    assert_eq!(cache.insert(1, 2), Insert::Inserted);
    *handle.lock().unwrap() = None;
    assert_eq!(cache.entry_info(&1).unwrap().priority, Priority::Normal);
    // Nothing is counted as unevictable.
    assert!(cache.insert_with_cost(2, 0, 10).is_in());
    audit(&cache);
}

#[test]
fn entry_pinned_by_its_replacement_is_not_evicted_by_an_earlier_choice() {
    for round in 0..20 {
        let cache: Cache<u64, u64> = builder(8, Maintenance::Manual).build().unwrap();
        let is_done = AtomicBool::new(false);
        thread::scope(|scope| {
            for thread in 1..4 {
                let (cache, is_done) = (&cache, &is_done);
                scope.spawn(move || {
                    let mut key = thread << 32;
                    while !is_done.load(SeqCst) {
                        cache.insert(key, key);
                        key += 1;
                    }
                });
            }
            for value in 0..5_000 {
                cache.insert(1, value);
                if cache.insert_with(1, value, pinned()).is_in() {
                    assert!(cache.contains_key(&1), "round {round}, {value}");
                }
            }
            is_done.store(true, SeqCst);
        });
        audit(&cache);
    }
}
