//! `can_evict`: which entries may be evicted.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicBool, Ordering::SeqCst},
};

use cortado::{Cache, Insert, InsertOptions, Maintenance, Priority, RejectReason};

use crate::{
    builder,
    support::{BOTH, audit},
};

#[test]
fn vetoed_entry_is_not_evicted() {
    for maintenance in BOTH {
        let cache: Cache<u64, u64> =
            builder(100, maintenance).can_evict(|key, _| *key >= 50).metrics(true).build().unwrap();
        for key in 0..50 {
            assert_eq!(cache.insert(key, key), Insert::Inserted);
        }
        for key in 1_000..20_000 {
            assert_eq!(cache.insert(key, key), Insert::Inserted);
            assert!(cache.cost() <= 100);
        }
        assert!((0..50).all(|key| cache.contains_key(&key)));
        assert!(cache.metrics().vetoes > 0);
        audit(&cache);
    }
}

#[test]
fn insert_is_refused_where_nothing_may_be_evicted() {
    for maintenance in BOTH {
        let allows = Arc::new(AtomicBool::new(false));
        let asked = Arc::clone(&allows);
        let cache: Cache<u64, u64> =
            builder(100, maintenance).can_evict(move |_, _| asked.load(SeqCst)).build().unwrap();
        let mut inserted = 0;
        for key in 0..200 {
            match cache.insert(key, key) {
                Insert::Inserted => inserted += 1,
                other => assert_eq!(other, Insert::Rejected(key, RejectReason::Kept)),
            }
        }
        assert!((90..=100).contains(&inserted), "{inserted}");
        assert_eq!(cache.len(), inserted);
        // The veto holds exactly as long as the function returns `false`. Entries may be replaced
        // and removed.
        assert_eq!(cache.insert(0, 7), Insert::Updated);
        assert!(cache.remove(&1).is_some());
        allows.store(true, SeqCst);
        (1000..1200).for_each(|key| assert!(cache.insert(key, key).is_in(), "{key}"));
        audit(&cache);
    }
}

#[test]
fn lowered_budget_goes_before_the_veto() {
    let cache: Cache<u64, u64> =
        builder(100, Maintenance::Manual).can_evict(|_, _| false).build().unwrap();
    (0..100).for_each(|key| _ = cache.insert(key, key));
    cache.set_max_cost(10);
    assert!(cache.cost() <= 10);
    assert!(!cache.is_empty());
    audit(&cache);
}

#[test]
fn panic_of_the_function_counts_as_no() {
    let cache: Cache<u64, u64> = builder(100, Maintenance::Manual)
        .can_evict(|key, _| if *key < 10 { panic!("can_evict") } else { true })
        .build()
        .unwrap();
    for key in 0..5_000 {
        assert!(cache.insert(key, key).is_in());
    }
    assert!((0..10).all(|key| cache.contains_key(&key)));
    audit(&cache);
}

#[test]
fn full_bucket_asks_too() {
    /// A hasher that puts all keys in one bucket.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    struct Same(u64);
    impl std::hash::Hash for Same {
        fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
            0.hash(state);
        }
    }
    let cache: Cache<Same, u64> =
        builder(1000, Maintenance::Manual).can_evict(|key: &Same, _| key.0 != 3).build().unwrap();
    for key in 0..1000 {
        let inserted = cache.insert(Same(key), key);
        assert!(inserted.is_in(), "{key}: {inserted:?}");
    }
    assert!(cache.contains_key(&Same(3)));
    audit(&cache);
    let cache: Cache<Same, u64> =
        builder(1000, Maintenance::Manual).can_evict(|_, _| false).build().unwrap();
    let rejected = (0..100).filter_map(|key| match cache.insert(Same(key), key) {
        Insert::Rejected(_, reason) => Some(reason),
        _ => None,
    });
    let rejected: Vec<_> = rejected.collect();
    assert!(rejected.len() > 80 && rejected.iter().all(|reason| *reason == RejectReason::Kept));
    audit(&cache);
}

#[test]
fn both_functions_are_asked_and_pinned_entries_are_not_theirs() {
    let asked = Arc::new(Mutex::new(Vec::new()));
    let (first, second) = (Arc::clone(&asked), Arc::clone(&asked));
    let cache: Cache<u64, u64> = builder(100, Maintenance::Manual)
        .can_evict(move |key, _| {
            first.lock().unwrap().push(("can", *key));
            key % 2 == 0
        })
        .write_back(move |key, _| {
            second.lock().unwrap().push(("write", *key));
            true
        })
        .build()
        .unwrap();
    let pinned = InsertOptions::new().priority(Priority::Pinned);
    assert!(cache.insert_with(0, 0, pinned).is_in());
    (1..1000).for_each(|key| _ = cache.insert(key, key));
    let asked = asked.lock().unwrap();
    assert!(asked.iter().all(|(_, key)| *key != 0) && cache.contains_key(&0));
    assert!(asked.iter().all(|(what, key)| *what == "can" || key % 2 == 0));
    assert!(asked.iter().any(|(what, _)| *what == "write"));
}
