//! Warm restart: a cache that imports another's records continues where that one was.

use std::time::Duration;

use cortado::{Cache, ExportedEntry, InsertOptions, Maintenance, ManualClock, Priority, WorkLimit};

use crate::{
    builder,
    support::{Random, audit, seed},
};

/// A skewed key distribution, with many keys that occur once: the square of a random number.
fn key(random: &mut Random) -> u64 {
    let x = random.below(1 << 16);
    (x * x) >> 17
}

fn hits_of(cache: &Cache<u64, u64>, random: &mut Random, reads: u64) -> u64 {
    let mut hits = 0;
    for _ in 0..reads {
        let key = key(random);
        if cache.get(&key).is_some() {
            hits += 1;
        } else {
            cache.insert(key, key);
        }
    }
    hits
}

#[test]
fn hit_ratio_after_a_restart_is_that_of_before() {
    let make = || builder(2_000, Maintenance::Manual).build().unwrap();
    let mut random = Random::new(seed());
    let old = make();
    hits_of(&old, &mut random, 200_000);
    let records: Vec<_> = old.export().collect();
    let before = hits_of(&old, &mut random.clone(), 20_000);
    let new = make();
    let imported = new.import(records);
    assert!(imported.inserted > 1_900 && imported.kept == 0);
    let after = hits_of(&new, &mut random.clone(), 20_000);
    let cold = hits_of(&make(), &mut random, 20_000);
    assert!(after + 200 > before, "{before} hits of 20 000 before, {after} after");
    assert!(cold + 500 < before, "{cold} hits of a cold cache: the test shows nothing");
    audit(&new);
}

#[test]
fn record_has_all_that_an_entry_has() {
    let clock = ManualClock::new();
    let make = || builder(100, Maintenance::Manual).clock(clock.clone()).build().unwrap();
    let old = make();
    let second = Duration::from_secs(1);
    let options = InsertOptions::new().cost(3).ttl(10 * second).priority(Priority::High);
    assert!(old.insert_with(1, 1, options).is_in() && old.insert(2, 2).is_in());
    assert!(old.insert_with_ttl(3, 3, second).is_in());
    for _ in 0..4 {
        assert!(old.get(&2).is_some());
        old.tick(WorkLimit::ALL);
    }
    let known = old.frequency(&2);
    clock.advance(second);
    let records: Vec<_> = old.pin().export().map(ExportedEntry::cloned).collect();
    assert_eq!(records.len(), 2, "what has expired stays behind");
    let new = make();
    assert!(new.insert(2, 20).is_in());
    let imported = new.import(records);
    assert_eq!((imported.inserted, imported.kept, imported.rejected), (1, 1, 0));
    assert_eq!(new.get_cloned(&2), Some(20), "the newer value stays");
    assert!(new.frequency(&2) >= known);
    let info = new.entry_info(&1).unwrap();
    assert_eq!((info.cost, info.ttl, info.priority), (3, Some(9 * second), Priority::High));
    assert_eq!(new.import([ExportedEntry::new(5, 5)]).inserted, 1);
    let mut huge = ExportedEntry::new(6, 6);
    huge.cost = 1000;
    assert_eq!(new.import([huge]).rejected, 1);
}

#[test]
fn overhead_is_not_charged_twice() {
    let make = || builder(10_000, Maintenance::Manual).charge_overhead(true).build().unwrap();
    let old: Cache<u64, u64> = make();
    assert!(old.insert(1, 1).is_in() && old.insert_with_ttl(2, 2, Duration::from_secs(9)).is_in());
    let new = make();
    new.import(old.pin().export().map(ExportedEntry::cloned));
    assert_eq!(new.cost(), old.cost());
}

#[test]
fn export_holds_no_pin_while_the_caller_has_a_record_and_shows_each_entry_once() {
    let cache = builder(20_000, Maintenance::Manual).expected_entries(0).build().unwrap();
    for key in 0..5_000u64 {
        assert!(cache.insert(key, key).is_in());
    }
    let mut seen = Vec::new();
    for (turn, record) in (0u64..).zip(cache.export()) {
        assert_eq!(record.key, record.value);
        seen.push(record.key);
        // The table grows in the middle of it, and removed entries are freed.
        if turn < 5_000 {
            cache.insert(10_000 + turn, 10_000 + turn);
            drop(cache.remove(&(10_000 + turn / 2)));
        }
    }
    let count = seen.len();
    seen.sort_unstable();
    seen.dedup();
    assert_eq!(seen.len(), count, "none is seen twice");
    let missed = |key: &u64| cache.contains_key(key) && seen.binary_search(key).is_err();
    assert_eq!((0..5_000).filter(missed).count(), 0);
    assert!(seen.iter().filter(|key| **key < 5_000).count() > 4_800);
}
