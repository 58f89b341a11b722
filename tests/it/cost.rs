//! Costs: what is charged, what is refused, what it adds up to.

use cortado::{Cache, Insert, Maintenance, Reject, Victim};

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
            let _ = cache.insert_with_cost(key, key, 3);
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
            assert_eq!(insert, Insert::Rejected(cost, Reject::TooCostly));
            assert!(!cache.contains_key(&1), "what was there is out of date");
            assert_eq!((cache.len(), cache.cost()), (0, 0));
        }
        assert_eq!(cache.metrics().rejected_costly, 7);
    }
}

#[test]
fn cost_of_the_whole_budget_fits() {
    for max_cost in [1, 2, 3, 10, 1 << 31, 1 << 40] {
        for maintenance in BOTH {
            let cache = builder(max_cost, maintenance).expected_entries(10).build().unwrap();
            for key in 0..10u64 {
                assert!(cache.insert_with_cost(key, key, max_cost).is_in());
                assert_eq!((cache.cost(), cache.len()), (max_cost, 1));
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
    // The cost would just fit; as it is charged it does not.
    let cost = (1 << 31) + 1;
    let cache = builder(cost, Maintenance::Manual).expected_entries(10).build().unwrap();
    match cache.insert_with_cost(1, (), cost) {
        Insert::Rejected((), Reject::TooCostly) => assert_eq!(cache.cost(), 0),
        insert => assert!(insert.is_in() && cache.cost() <= cost),
    }
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
        assert!(!cache.insert_with_cost(99, (), u64::MAX).is_in());
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
    assert_eq!(cache.replace("abc".to_string(), vec![0; 5]), Ok(()));
    assert_eq!((cache.cost(), cache.get("abc").unwrap().cost()), (8, 8));
    assert!(cache.insert_with_cost("abc".to_string(), vec![], 500).is_in());
    assert_eq!(cache.cost(), 500);
}

#[test]
fn overhead_is_charged_if_asked_for() {
    let cache = builder(1000, Maintenance::Manual).charge_overhead(true).build().unwrap();
    let _ = cache.insert(1u64, 1u64);
    assert_eq!(cache.cost(), 1 + 24);
    assert!(!cache.insert_with_cost(2, 2, u64::MAX).is_in());
}

#[test]
fn update_of_larger_cost_evicts_others_and_never_overshoots() {
    for maintenance in BOTH {
        let cache = builder(100, maintenance).build().unwrap();
        for round in 0..20u64 {
            for key in 0..100u64 {
                let _ = cache.insert_with_cost(1000 * round + key, key, 1);
                assert!(cache.cost() <= 100);
            }
            for cost in [2, 10, 50, 99, 100, 1, 0] {
                let was = cache.contains_key(&(1000 * round + 99));
                let insert = cache.insert_with_cost(1000 * round + 99, cost, cost);
                assert!(cache.cost() <= 100);
                match insert {
                    Insert::Updated => assert!(was),
                    Insert::Inserted => {}
                    Insert::Rejected(_, reason) => assert_eq!(reason, Reject::Cold),
                }
            }
            audit(&cache);
        }
    }
}

#[test]
fn update_of_smaller_cost_gives_the_difference_back() {
    let cache = Cache::new(100);
    let _ = cache.insert_with_cost(1, 1, 90);
    assert_eq!(cache.insert_with_cost(1, 2, 30), Insert::Updated);
    assert_eq!((cache.cost(), cache.remaining_cost()), (30, 70));
    assert_eq!(cache.insert_with_cost(2, 2, 70), Insert::Inserted);
}

#[test]
fn either_choice_of_victims_keeps_the_budget() {
    for victim in [Victim::Frequency, Victim::FrequencyPerCost] {
        let cache = builder(1000, Maintenance::Manual).victim(victim).build().unwrap();
        for key in 0..5000u64 {
            let _ = cache.insert_with_cost(key, key, 1 + key * 37 % 90);
            assert!(cache.cost() <= 1000);
        }
        audit(&cache);
        assert!(cache.cost() > 800, "{} of 1000 in use", cache.cost());
    }
}
