//! Expiry: an expired entry is never returned and is removed soon, and others remain.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use cortado::{
    BuildError, Cache, CacheBuilder, ComputeOp, ComputeResult, Expiry, Insert, InsertOptions,
    Maintenance, ManualClock, Priority, RemovalCause, TtlError, WorkLimit,
};

use crate::{
    builder,
    support::{Random, audit, seed},
};

const SECOND: Duration = Duration::from_secs(1);
const MS: Duration = Duration::from_millis(1);

fn timed(max_cost: u64) -> (CacheBuilder<u64, u64>, ManualClock) {
    let clock = ManualClock::new();
    (builder(max_cost, Maintenance::Manual).clock(clock.clone()), clock)
}

/// Options of an entry that only expiry removes, not even a full bucket.
fn staying(ttl: Duration) -> InsertOptions {
    InsertOptions::new().ttl(ttl).priority(Priority::Pinned)
}

#[test]
fn expired_entry_is_a_miss_everywhere_and_leaves_with_a_tick() {
    let (builder, clock) = timed(10);
    let cache = builder.metrics(true).build().unwrap();
    assert_eq!(cache.insert_with_ttl(1, 10, SECOND), Insert::Inserted);
    assert_eq!(cache.insert(2, 20), Insert::Inserted);
    clock.advance(SECOND - MS);
    assert_eq!(cache.get(&1).unwrap().ttl(), Some(MS));
    assert_eq!(cache.tick(WorkLimit::ALL).expired, 0);
    clock.advance(MS);
    assert!(cache.get(&1).is_none() && cache.peek(&1).is_none() && !cache.contains_key(&1));
    assert!(cache.pin().get(&1).is_none());
    assert_eq!(cache.pin().iter().collect::<Vec<_>>(), [(&2, &20)]);
    cache.get_many(&[1, 2], |i, value| assert_eq!(value.is_some(), i == 1));
    assert!(cache.entry_info(&1).is_none());
    assert!(cache.remove_if(&1, |_| true).is_none());
    assert!(!cache.replace(1, 11).is_in());
    assert_eq!(cache.set_ttl(&1, Some(SECOND)), Err(TtlError::Absent));
    assert_eq!(cache.cost(), 2);
    assert_eq!(cache.tick(WorkLimit::ALL).expired, 1);
    assert_eq!((cache.cost(), cache.len(), cache.metrics().expirations), (1, 1, 1));
    audit(&cache);
}

#[test]
fn expired_entry_makes_way_for_a_new_one() {
    let (builder, clock) = timed(10);
    let cache = builder.build().unwrap();
    for round in 0..3 {
        assert_eq!(cache.insert_with_ttl(1, round, SECOND), Insert::Inserted);
        assert!(!cache.insert_if_absent(1, 9).is_in());
        clock.advance(SECOND);
    }
    assert_eq!(cache.insert_if_absent(1, 9), Insert::Inserted);
    clock.advance(100 * SECOND);
    assert_eq!(cache.get_cloned(&1), Some(9));
    assert_eq!(cache.tick(WorkLimit::ALL).expired, 0, "the notes of those before are stale");
    assert_eq!(cache.len(), 1);
    audit(&cache);
}

#[test]
fn write_that_is_rejected_over_an_expired_entry_says_so() {
    let (builder, clock) = timed(10);
    let cache = builder.cost_of(|_, value| *value).build().unwrap();
    assert!(cache.insert_with_ttl(1, 1, SECOND).is_in());
    clock.advance(SECOND);
    let rejected = Insert::Rejected(11, cortado::RejectReason::TooCostly);
    assert_eq!(cache.insert_if_absent(1, 11), rejected);
    let mut asked = 0;
    let computed = cache.compute(1, |seen| {
        asked += 1;
        assert!(seen.is_none() && asked < 10);
        ComputeOp::Put(11)
    });
    assert_eq!(computed.cloned(), ComputeResult::Rejected(11, cortado::RejectReason::TooCostly));
}

#[test]
fn removed_expired_entry_was_not_there() {
    let (builder, clock) = timed(10);
    let cache = builder.build().unwrap();
    assert!(cache.insert_with_ttl(1, 1, SECOND).is_in());
    clock.advance(SECOND);
    assert!(cache.remove(&1).is_none());
    assert_eq!((cache.len(), cache.cost()), (0, 0));
}

#[test]
fn any_duration_is_legal() {
    let (builder, clock) = timed(10);
    let cache = builder.build().unwrap();
    assert!(cache.insert_with_ttl(0, 0, Duration::ZERO).is_in());
    assert!(cache.get(&0).is_none());
    for ttl in [Duration::MAX, Duration::from_nanos(u64::MAX), Duration::from_secs(u64::MAX)] {
        assert!(cache.insert_with_ttl(1, 1, ttl).is_in());
        assert!(cache.get(&1).is_some());
    }
    assert!(cache.insert_with_ttl(2, 2, Duration::from_nanos(1)).is_in());
    assert!(cache.get(&2).is_some());
    clock.advance(Duration::from_nanos(1));
    assert!(cache.get(&2).is_none());
    assert_eq!(cache.tick(WorkLimit::ALL).expired, 2);
    clock.advance(Duration::from_secs(1 << 32));
    assert!(cache.get(&1).is_some());
    clock.advance(Duration::MAX);
    cache.tick(WorkLimit::ALL);
    assert!(cache.get(&1).is_some(), "an entry without a deadline stays to the end of time");
}

#[test]
fn insert_restarts_the_deadline_and_replace_keeps_it() {
    let (builder, clock) = timed(10);
    let cache = builder.ttl(10 * SECOND).build().unwrap();
    let left = |key| cache.entry_info(&key).unwrap().ttl.map(|ttl| ttl.as_secs());
    assert!(cache.insert(1, 1).is_in() && cache.insert_with_ttl(2, 2, 5 * SECOND).is_in());
    clock.advance(SECOND);
    assert_eq!((left(1), left(2)), (Some(9), Some(4)));
    assert_eq!(cache.entry_info(&1).unwrap().age, Some(SECOND));
    assert!(cache.replace(1, 1).is_in() && cache.replace(2, 2).is_in());
    assert_eq!((left(1), left(2)), (Some(9), Some(4)));
    assert!(cache.update(&2, |v| v + 1));
    assert!(cache.compute(1, |_| ComputeOp::Put(5)).is_changed());
    assert_eq!((left(1), left(2)), (Some(9), Some(4)));
    assert_eq!((cache.insert(1, 1), cache.insert(2, 2)), (Insert::Updated, Insert::Updated));
    assert_eq!((left(1), left(2)), (Some(10), Some(10)));
    clock.advance(10 * SECOND);
    assert!(cache.get(&1).is_none() && cache.get(&2).is_none());
    assert_eq!(cache.tick(WorkLimit::ALL).expired, 2);
}

#[test]
fn deadline_is_kept_by_a_replacement_of_an_entry_that_alone_has_one() {
    let (builder, clock) = timed(10);
    let cache = builder.build().unwrap();
    assert!(cache.insert(1, 1).is_in() && cache.insert_with_ttl(2, 2, SECOND).is_in());
    assert!(cache.replace(1, 1).is_in() && cache.replace(2, 2).is_in());
    clock.advance(SECOND);
    assert!(cache.get(&1).is_some() && cache.get(&2).is_none());
    assert_eq!(cache.tick(WorkLimit::ALL).expired, 1);
    assert_eq!(cache.insert(2, 2), Insert::Inserted);
    clock.advance(SECOND);
    assert!(cache.get(&2).is_some(), "a plain insert does not expire");
}

#[test]
fn deadlines_can_be_moved_both_ways() {
    let (builder, clock) = timed(100);
    let cache = builder.timed(true).build().unwrap();
    for key in 0..4 {
        assert!(cache.insert(key, key).is_in());
    }
    assert_eq!(cache.set_ttl(&0, Some(2 * SECOND)), Ok(()));
    assert_eq!(cache.set_ttl(&1, Some(2 * SECOND)), Ok(()));
    assert_eq!(cache.set_ttl(&2, Some(2 * SECOND)), Ok(()));
    cache.tick(WorkLimit::ALL);
    assert_eq!(cache.set_ttl(&0, Some(SECOND)), Ok(()));
    assert_eq!(cache.set_ttl(&1, Some(3 * SECOND)), Ok(()));
    assert_eq!(cache.set_ttl(&2, None), Ok(()));
    for (gone, left) in [(1, 3), (0, 3), (1, 2), (0, 2)] {
        clock.advance(SECOND);
        assert_eq!((cache.tick(WorkLimit::ALL).expired, cache.len()), (gone, left));
    }
    assert_eq!(cache.set_ttl(&2, Some(Duration::ZERO)), Ok(()));
    assert_eq!((cache.tick(WorkLimit::ALL).expired, cache.len()), (1, 1));
}

#[test]
fn entry_without_room_for_a_deadline_says_so() {
    let (builder, _) = timed(10);
    let cache = builder.build().unwrap();
    assert!(cache.insert(1, 1).is_in() && cache.insert_with_ttl(2, 2, SECOND).is_in());
    assert_eq!(cache.set_ttl(&1, Some(SECOND)), Err(TtlError::Untimed));
    assert_eq!((cache.set_ttl(&1, None), cache.set_ttl(&2, None)), (Ok(()), Ok(())));
    assert_eq!(cache.set_ttl(&3, None), Err(TtlError::Absent));
}

#[test]
fn unused_entries_expire_and_used_ones_stay() {
    let (builder, clock) = timed(10);
    let cache = builder.tti(10 * SECOND).build().unwrap();
    assert!(cache.insert(1, 1).is_in() && cache.insert(2, 2).is_in());
    assert!(cache.insert_with_ttl(3, 3, 15 * SECOND).is_in());
    for _ in 0..10 {
        clock.advance(5 * SECOND);
        cache.tick(WorkLimit::ALL);
        assert!(cache.get(&1).is_some());
        let _ = cache.get(&3);
        assert!(cache.peek(&1).is_some());
    }
    assert!(cache.get(&2).is_none() && cache.get(&3).is_none());
    assert_eq!(cache.len(), 1);
    clock.advance(10 * SECOND - MS);
    assert!(cache.peek(&1).is_some());
    clock.advance(MS);
    assert!(cache.peek(&1).is_none(), "a peek is no use");
    assert_eq!((cache.tick(WorkLimit::ALL).expired, cache.len()), (1, 0));
}

struct Steps;

impl Expiry<u64, u64> for Steps {
    fn on_create(&self, _: &u64, value: &u64) -> Option<Duration> {
        (*value > 0).then(|| Duration::from_secs(*value))
    }
    fn on_update(&self, _: &u64, value: &u64, left: Option<Duration>) -> Option<Duration> {
        if *value == 0 { left } else { Some(Duration::from_secs(10 * value)) }
    }
    fn on_read(&self, key: &u64, _: &u64, left: Option<Duration>) -> Option<Duration> {
        if *key == 7 { Some(SECOND) } else { left }
    }
}

#[test]
fn expiry_decides_on_create_update_and_read() {
    let (builder, clock) = timed(10);
    let cache = builder.expiry(Steps).build().unwrap();
    let left = |key| cache.entry_info(&key).unwrap().ttl.map(|ttl| ttl.as_secs());
    for (key, value) in [(1, 5), (2, 0), (7, 5)] {
        assert!(cache.insert(key, value).is_in());
    }
    assert_eq!((left(1), left(2), left(7)), (Some(5), None, Some(5)));
    assert!(cache.get(&7).is_some());
    assert_eq!(left(7), Some(1));
    assert!(cache.insert(1, 2).is_in());
    assert_eq!(left(1), Some(20));
    assert!(cache.insert(1, 0).is_in());
    assert_eq!(left(1), Some(20));
    clock.advance(SECOND);
    assert_eq!(cache.tick(WorkLimit::ALL).expired, 1, "a read brought it forward");
    clock.advance(19 * SECOND);
    assert_eq!((cache.tick(WorkLimit::ALL).expired, cache.len()), (1, 1));
    for _ in 0..2 {
        assert!(cache.insert_with_ttl(3, 9, SECOND).is_in());
        assert_eq!(left(3), Some(1), "the insert's own word goes before");
    }
}

#[test]
fn two_times_to_live_are_one_too_many() {
    let both = Cache::builder().max_cost(1).ttl(SECOND).expiry(Steps).build();
    assert_eq!(both.unwrap_err(), BuildError::TtlAndExpiry);
}

#[test]
fn many_deadlines_are_each_met_at_their_time_and_never_before() {
    let (builder, clock) = timed(100_000);
    let cache = builder.build().unwrap();
    let mut random = Random::new(seed());
    let mut deadlines = vec![0u64; 20_000];
    for (key, deadline) in deadlines.iter_mut().enumerate() {
        *deadline = 1 + random.below(10_000);
        let ttl = Duration::from_millis(*deadline);
        assert!(cache.insert_with(key as u64, *deadline, staying(ttl)).is_in());
    }
    // Some are removed before, and some are renewed.
    for key in 0..2_000 {
        let _ = cache.remove(&key);
        deadlines[key as usize] = 0;
    }
    for key in 2_000..4_000u64 {
        let deadline = 1 + random.below(20_000);
        let ttl = Duration::from_millis(deadline);
        assert!(cache.insert_with(key, deadline, staying(ttl)).is_in());
        deadlines[key as usize] = deadline;
    }
    for now in 1..=201u64 {
        clock.advance(Duration::from_millis(100));
        cache.tick(WorkLimit::ALL);
        let alive = deadlines.iter().filter(|&&deadline| deadline > now * 100).count();
        assert_eq!(cache.len(), alive, "at {now}");
    }
    assert_eq!(cache.cost(), 0);
    assert!(cache.memory().deadlines < 100_000, "{:?}", cache.memory());
    audit(&cache);
}

#[test]
fn timers_of_entries_that_left_early_do_not_accumulate() {
    let (builder, _) = timed(100);
    let cache = builder.build().unwrap();
    for key in 0..100_000 {
        cache.insert_with_ttl(key, key, 3600 * SECOND);
        if key % 500 == 0 {
            cache.tick(WorkLimit::ALL);
        }
    }
    cache.tick(WorkLimit::ALL);
    assert!(cache.memory().deadlines < 200_000, "{:?}", cache.memory());
}

#[test]
fn slices_bound_how_many_expire_at_once() {
    let (builder, clock) = timed(1000);
    let cache = builder.build().unwrap();
    for key in 0..1000 {
        assert!(cache.insert_with(key, key, staying(SECOND)).is_in());
    }
    clock.advance(SECOND);
    let ticked = cache.tick(WorkLimit::evictions(300));
    assert_eq!((ticked.expired, ticked.pending, cache.len()), (300, true, 700));
    assert_eq!(cache.tick(WorkLimit::ALL).expired, 700);
}

#[test]
fn full_cache_makes_room_of_what_has_expired() {
    let (builder, clock) = timed(100);
    let cache = builder.metrics(true).build().unwrap();
    for key in 0..100 {
        assert!(cache.insert_with_ttl(key, key, SECOND).is_in());
    }
    clock.advance(SECOND);
    for key in 100..200 {
        assert!(cache.insert(key, key).is_in());
    }
    assert_eq!(cache.metrics().evictions, cache.metrics().local_evictions);
    assert!((100..200).filter(|key| cache.contains_key(key)).count() > 95);
}

#[test]
fn the_thread_removes_what_has_expired_without_any_access() {
    let left = Arc::new(Mutex::new(Vec::new()));
    let told = Arc::clone(&left);
    let cache = builder::<u64, u64>(100, Maintenance::Thread)
        .on_remove(move |removed| told.lock().unwrap().push((removed.key, removed.cause)))
        .build()
        .unwrap();
    let (short, long) = (Duration::from_millis(30), Duration::from_secs(3600));
    assert!(cache.insert_with_ttl(1, 1, long).is_in());
    assert!(cache.insert_with_ttl(2, 2, short).is_in());
    crate::support::eventually("it expires", || cache.len() == 1);
    assert!(cache.contains_key(&1));
    crate::support::eventually("it is reported", || {
        *left.lock().unwrap() == [(2, RemovalCause::Expired)]
    });
}

#[test]
fn pinned_and_costless_entries_expire_too() {
    let (builder, clock) = timed(10);
    let cache = builder.build().unwrap();
    let pinned = InsertOptions::new().priority(Priority::Pinned).ttl(SECOND);
    assert!(cache.insert_with(1, 1, pinned).is_in());
    assert!(cache.insert_with(2, 2, InsertOptions::new().cost(0).ttl(SECOND)).is_in());
    clock.advance(SECOND);
    assert_eq!((cache.tick(WorkLimit::ALL).expired, cache.len(), cache.cost()), (2, 0, 0));
    assert!(cache.insert_with_cost(3, 3, 10).is_in(), "the pinned one's room is free again");
}

#[test]
fn entries_of_one_hash_all_expire() {
    use std::hash::{BuildHasher, Hasher};
    struct Same;
    impl BuildHasher for Same {
        type Hasher = Self;
        fn build_hasher(&self) -> Self {
            Self
        }
    }
    impl Hasher for Same {
        fn write(&mut self, _: &[u8]) {}
        fn finish(&self) -> u64 {
            7
        }
    }
    let (builder, clock) = timed(100);
    let cache = builder.hasher(Same).build().unwrap();
    for key in 0..5 {
        assert!(cache.insert_with_ttl(key, key, SECOND).is_in());
    }
    let there = cache.len();
    clock.advance(SECOND);
    assert_eq!((cache.tick(WorkLimit::ALL).expired, cache.len()), (there, 0));
}

/// A hasher whose hash is the key itself, even 0.
#[derive(Clone, Copy, Default)]
struct Itself(u64);

impl std::hash::BuildHasher for Itself {
    type Hasher = Self;
    fn build_hasher(&self) -> Self {
        Self(0)
    }
}

impl std::hash::Hasher for Itself {
    fn write(&mut self, _: &[u8]) {}
    fn write_u64(&mut self, number: u64) {
        self.0 = number;
    }
    fn finish(&self) -> u64 {
        self.0
    }
}

#[test]
fn entry_of_hash_zero_expires_by_itself() {
    // Rings contain hashes, and 0 used to mark an empty slot in them, so that its deadline was
    // lost.
    let (builder, clock) = timed(100);
    let cache = builder.hasher(Itself::default()).build().unwrap();
    for key in 0..10 {
        assert!(cache.insert_with_ttl(key, key, SECOND).is_in());
    }
    clock.advance(SECOND);
    assert_eq!((cache.tick(WorkLimit::ALL).expired, cache.len(), cache.cost()), (10, 0, 0));
}
