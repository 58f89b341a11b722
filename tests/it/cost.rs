//! Costs: what is charged, what is rejected, and the sums.

use cortado::{
    Cache, ComputeOp, ComputeResult, EvictionPolicy, Insert, InsertOptions, Maintenance, Priority,
    RejectReason,
};

use crate::{
    builder,
    support::{BOTH, audit, settle},
};

#[test]
fn cost_of_zero_is_legal_and_never_evicted_for_its_cost() {
    for maintenance in BOTH {
        let cache = builder(10, maintenance).expected_entries(2000).build().unwrap();
        for key in 0..500u64 {
            assert!(cache.insert_with_cost(key, key, 0).is_in());
        }
        for key in 10_000..10_500u64 {
            cache.insert_with_cost(key, key, 3);
        }
        settle(&cache);
        audit(&cache);
        let zeros = (0..500u64).filter(|key| cache.contains_key(key)).count() as u64;
        assert_eq!(zeros + cache.metrics().local_evictions.min(500 - zeros), 500);
        assert!(cache.cost() <= 10 && cache.cost() % 3 == 0);
    }
}

#[test]
fn many_entries_without_cost_fit_a_budget_of_one() {
    let cache = builder(1, Maintenance::Manual).expected_entries(0).build().unwrap();
    for key in 0..20_000u64 {
        assert!(cache.insert_with_cost(key, key, 0).is_in());
    }
    assert_eq!(cache.cost(), 0);
    assert!(cache.insert_with_cost(u64::MAX, 0, 1).is_in());
    assert_eq!(cache.cost(), 1);
    assert!(cache.contains_key(&u64::MAX));
    audit(&cache);
}

#[test]
fn more_than_the_budget_is_rejected_and_the_stale_value_goes() {
    for maintenance in BOTH {
        let cache = builder(10, maintenance).build().unwrap();
        for cost in [11, 12, 1 << 31, (1 << 31) + 1, 1 << 62, u64::MAX - 1, u64::MAX] {
            assert!(cache.insert_with_cost(1, 1u64, 10).is_in());
            let insert = cache.insert_with_cost(1, cost, cost);
            assert_eq!(insert, Insert::Rejected(cost, RejectReason::TooCostly));
            assert!(!cache.contains_key(&1), "what was there is out of date");
            assert_eq!((cache.len(), cache.cost()), (0, 0));
        }
        assert_eq!(cache.metrics().rejected_costly, 7);
    }
}

#[test]
fn cost_of_the_whole_budget_fits() {
    let odd = [(1 << 29) + 1, 4_000_000_001, (1 << 40) + 12_345, u64::MAX];
    for max_cost in [1, 2, 3, 10, 1 << 31, 1 << 40].into_iter().chain(odd) {
        for maintenance in BOTH {
            let cache = builder(max_cost, maintenance).expected_entries(10).build().unwrap();
            for key in 0..10u64 {
                let insert = cache.insert_with_cost(key, key, max_cost);
                assert!(insert.is_in(), "{max_cost}: {insert:?}");
                assert_eq!((cache.remaining_cost(), cache.len()), (0, 1));
                assert!(max_cost - cache.cost() <= max_cost >> 22, "{max_cost}");
                assert!(cache.contains_key(&key));
            }
            audit(&cache);
        }
    }
}

#[test]
fn costs_around_512_mib_are_charged_a_little_more_at_most() {
    let cache = builder(u64::MAX, Maintenance::Manual).expected_entries(100).build().unwrap();
    let mut sum = 0;
    for (key, cost) in
        [(1 << 29) - 2, (1 << 29) - 1, 1 << 29, (1 << 29) + 1, (1 << 31) - 1, (1 << 40) + 12_345]
            .into_iter()
            .enumerate()
    {
        assert!(cache.insert_with_cost(key, (), cost).is_in());
        let charged = cache.get(&key).unwrap().cost();
        assert!(charged >= cost && charged - cost <= cost >> 22, "{cost} was charged {charged}");
        assert!(cost >= 1 << 29 || charged == cost);
        sum += charged;
        assert_eq!(cache.cost(), sum);
    }
    for key in 0..6 {
        sum -= cache.remove(&key).unwrap().cost();
        assert_eq!(cache.cost(), sum);
    }
    assert_eq!(sum, 0);
}

#[test]
fn rounding_may_not_pass_the_budget() {
    // The cost just fits. Rounded up, as charges of its size are, it would not.
    let cost = (1 << 31) + 1;
    let cache = builder(cost, Maintenance::Manual).expected_entries(10).build().unwrap();
    assert!(cache.insert_with_cost(1, (), cost).is_in() && cache.cost() <= cost);
    assert!(cache.insert_with_cost(1, (), 1 << 31).is_in());
}

#[test]
fn sums_near_the_end_of_the_numbers_do_not_wrap() {
    for maintenance in BOTH {
        let cache = builder(u64::MAX, maintenance).expected_entries(100).build().unwrap();
        for key in 0..20u64 {
            assert!(cache.insert_with_cost(key, (), 1 << 62).is_in());
            assert!(cache.contains_key(&key));
            assert!(cache.len() <= 3, "four of these are more than the budget");
        }
        assert!(cache.insert_with_cost(99, (), u64::MAX).is_in());
        assert_eq!((cache.len(), cache.remaining_cost()), (1, 0), "it fills the budget alone");
        audit(&cache);
        cache.clear();
        assert_eq!(cache.cost(), 0);
    }
}

#[test]
fn cost_function_sees_key_and_value() {
    let cache = builder(1000, Maintenance::Manual)
        .cost_of(|key: &String, value: &Vec<u8>| (key.len() + value.len()) as u64)
        .build()
        .unwrap();
    assert!(cache.insert("abc".to_string(), vec![0; 10]).is_in());
    assert_eq!(cache.cost(), 13);
    assert!(cache.insert("abc".to_string(), vec![0; 20]).is_in());
    assert_eq!(cache.cost(), 23);
    assert_eq!(cache.replace("abc".to_string(), vec![0; 5]), Insert::Updated);
    assert_eq!((cache.cost(), cache.get("abc").unwrap().cost()), (8, 8));
    assert!(cache.insert_with_cost("abc".to_string(), vec![], 500).is_in());
    assert_eq!(cache.cost(), 500);
}

#[test]
fn overhead_is_charged_if_asked_for() {
    let cache = builder(1000, Maintenance::Manual).charge_overhead(true).build().unwrap();
    cache.insert(1u64, 1u64);
    assert_eq!(cache.cost(), 1 + 16 + 32);
    assert!(!cache.insert_with_cost(2, 2, u64::MAX).is_in());
}

#[test]
fn update_of_larger_cost_evicts_others_and_never_overshoots() {
    for maintenance in BOTH {
        let cache = builder(100, maintenance).build().unwrap();
        for round in 0..20u64 {
            for key in 0..100u64 {
                cache.insert_with_cost(1000 * round + key, key, 1);
                assert!(cache.cost() <= 100);
            }
            for cost in [2, 10, 50, 99, 100, 1, 0] {
                let was = cache.contains_key(&(1000 * round + 99));
                let insert = cache.insert_with_cost(1000 * round + 99, cost, cost);
                assert!(cache.cost() <= 100);
                match insert {
                    Insert::Updated => assert!(was),
                    Insert::Inserted => {}
                    Insert::Rejected(_, reason) => assert_eq!(reason, RejectReason::Cold),
                }
            }
            audit(&cache);
        }
    }
}

#[test]
fn update_of_smaller_cost_gives_the_difference_back() {
    let cache = Cache::new(100);
    cache.insert_with_cost(1, 1, 90);
    assert_eq!(cache.insert_with_cost(1, 2, 30), Insert::Updated);
    assert_eq!((cache.cost(), cache.remaining_cost()), (30, 70));
    assert_eq!(cache.insert_with_cost(2, 2, 70), Insert::Inserted);
}

#[test]
fn either_choice_of_victims_keeps_the_budget() {
    for victim in [EvictionPolicy::Frequency, EvictionPolicy::FrequencyPerCost] {
        let cache = builder(1000, Maintenance::Manual).eviction_policy(victim).build().unwrap();
        for key in 0..5000u64 {
            cache.insert_with_cost(key, key, 1 + key * 37 % 90);
            assert!(cache.cost() <= 1000);
        }
        audit(&cache);
        assert!(cache.cost() > 800, "{} of 1000 in use", cache.cost());
    }
}

/// A write of a key's value, and its name.
type Write = (&'static str, fn(&Cache<u64, u64>, u64));

/// The writes that keep the options of the entry, each from `old` to `old + 1`.
const KEEPING_WRITES: [Write; 4] = [
    ("update", |cache, key| assert!(cache.update(&key, |n| n + 1))),
    ("compute", |cache, key| {
        let done = cache.compute(key, |n| n.map_or(ComputeOp::Keep, |n| ComputeOp::Put(n + 1)));
        assert!(done.is_changed());
    }),
    ("replace", |cache, key| {
        let new = cache.get_cloned(&key).unwrap() + 1;
        assert_eq!(cache.replace(key, new), Insert::Updated);
    }),
    ("compute with other options", |cache, key| {
        let options = InsertOptions::new().priority(Priority::High);
        let done = cache
            .compute(key, |n| n.map_or(ComputeOp::Keep, |n| ComputeOp::PutWith(n + 1, options)));
        assert!(done.is_changed());
    }),
];

#[test]
fn replaced_value_keeps_the_explicit_cost_of_its_insert() {
    for maintenance in BOTH {
        for overhead in [false, true] {
            for (name, write) in KEEPING_WRITES {
                let cache: Cache<u64, u64> = builder(1 << 40, maintenance)
                    .expected_entries(10)
                    .charge_overhead(overhead)
                    .build()
                    .unwrap();
                for (key, cost) in [0, 1, 1024, (1 << 29) + 1].into_iter().enumerate() {
                    let key = key as u64;
                    assert!(cache.insert_with_cost(key, 0, cost).is_in());
                    let before = cache.cost();
                    for round in 1..4 {
                        write(&cache, key);
                        assert_eq!(cache.get_cloned(&key), Some(round), "{name}");
                        assert_eq!(cache.cost(), before, "{name} of an entry of cost {cost}");
                    }
                }
                audit(&cache);
            }
        }
    }
}

#[test]
fn bytes_held_stay_within_a_budget_of_bytes_whatever_replaces_a_value() {
    const SIZE: u64 = 1024;
    for (name, write) in KEEPING_WRITES {
        let cache: Cache<u64, u64> = builder(1 << 20, Maintenance::Manual).build().unwrap();
        for key in 0..5000 {
            if cache.insert_with_cost(key, 0, SIZE).is_in() {
                write(&cache, key);
            }
        }
        let held = cache.len() as u64 * SIZE;
        assert!(held <= 1 << 20 && held == cache.cost(), "{name}: {held} bytes held");
    }
}

#[test]
fn every_write_can_name_a_cost() {
    let cache: Cache<u64, u64> = builder(100, Maintenance::Manual).build().unwrap();
    let cost = |n| InsertOptions::new().cost(n);
    assert!(cache.insert_if_absent_with(1, 1, cost(10)).is_in());
    assert_eq!(cache.cost(), 10);
    assert!(!cache.insert_if_absent_with(1, 2, cost(20)).is_in());
    assert_eq!(cache.cost(), 10);
    assert_eq!(cache.replace_with(1, 2, cost(30)), Insert::Updated);
    assert_eq!(cache.cost(), 30);
    assert!(cache.update_with(&1, |n| (n + 1, cost(40))));
    assert_eq!(cache.cost(), 40);
    let put = |_: Option<&u64>| ComputeOp::PutWith(4, cost(50));
    assert_eq!(cache.compute(1, put).cloned(), ComputeResult::Updated(4));
    assert_eq!(cache.compute(2, put).cloned(), ComputeResult::Inserted(4));
    assert_eq!(cache.cost(), 100);
    // A cost above the budget is rejected, and the stale entry is removed.
    let put = |_: Option<&u64>| ComputeOp::PutWith(5, cost(101));
    assert_eq!(cache.compute(1, put).cloned(), ComputeResult::Rejected(5, RejectReason::TooCostly));
    assert_eq!(cache.replace_with(2, 6, cost(101)), Insert::Rejected(6, RejectReason::TooCostly));
    assert_eq!((cache.cost(), cache.len()), (0, 0));
    audit(&cache);
}

#[test]
fn cost_function_is_asked_for_a_value_that_replaces_another() {
    let cache =
        builder(1000, Maintenance::Manual).cost_of(|_: &u64, value: &u64| *value).build().unwrap();
    assert!(cache.insert_with_cost(1, 7, 100).is_in());
    for (expected, (name, write)) in (8..).zip(KEEPING_WRITES) {
        write(&cache, 1);
        assert_eq!(cache.cost(), expected, "{name}");
    }
}

#[test]
fn insert_without_a_cost_computes_it_again() {
    let cache: Cache<u64, u64> = builder(100, Maintenance::Manual).build().unwrap();
    assert!(cache.insert_with_cost(1, 1, 10).is_in());
    assert_eq!((cache.insert(1, 2), cache.cost()), (Insert::Updated, 1));
}

#[test]
fn inherited_cost_that_a_lowered_budget_cannot_hold_is_refused() {
    let cache: Cache<u64, u64> = builder(100, Maintenance::Manual).build().unwrap();
    let pinned = InsertOptions::new().cost(60).priority(Priority::Pinned);
    assert!(cache.insert_with(1, 1, pinned).is_in());
    let lowered = cache.compute(1, |n| {
        // The entry that was read is evicted, so there is nothing left to replace.
        cache.set_max_cost(50);
        n.map_or(ComputeOp::Keep, |n| ComputeOp::Put(n + 1))
    });
    assert_eq!((lowered.cloned(), cache.cost()), (ComputeResult::Kept(None), 0));
    audit(&cache);
}

#[test]
fn values_without_cost_are_limited_where_their_overhead_is_charged() {
    let cache = builder(1 << 16, Maintenance::Manual)
        .cost_of(|_: &u64, value: &Vec<u8>| value.len() as u64)
        .charge_overhead(true)
        .build()
        .unwrap();
    for key in 0..20_000 {
        cache.insert(key, Vec::new());
    }
    assert!(cache.len() < (1 << 16) / 32, "{} empty values", cache.len());
}
