//! Manual maintenance, and caches that borrow.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::SeqCst},
    },
    thread,
};

use cortado::{Cache, Maintenance, WorkLimit, WorkReport};

use crate::{
    builder,
    support::{Tally, audit, settle},
};

#[test]
fn keys_and_values_may_borrow() {
    let text = String::from("a few words to borrow from");
    let words: Vec<&str> = text.split(' ').collect();
    let cache = Cache::builder().max_cost(10).build_manual().unwrap();
    for (word, rest) in words.iter().zip(&words[1..]) {
        assert!(cache.insert(*word, rest).is_in());
    }
    assert_eq!(cache.get("few").as_deref(), Some(&&"words"));
    thread::scope(|scope| {
        scope.spawn(|| drop(cache.remove("a")));
    });
    assert!(!cache.contains_key("a"));
    settle(&cache);
    audit(&cache);
}

#[test]
fn borrowed_values_are_dropped_before_what_they_borrow() {
    let count = AtomicU32::new(0);
    struct Shared<'a>(&'a AtomicU32);
    impl Drop for Shared<'_> {
        fn drop(&mut self) {
            self.0.fetch_add(1, SeqCst);
        }
    }
    {
        let cache = Cache::builder().max_cost(10).build_manual().unwrap();
        for key in 0..100 {
            cache.insert(key, Shared(&count));
        }
    }
    assert_eq!(count.into_inner(), 100);
}

#[test]
fn same_seed_and_calls_evict_the_same_entries_in_the_same_order() {
    #[derive(Clone)]
    struct Fixed;
    impl std::hash::BuildHasher for Fixed {
        type Hasher = std::hash::DefaultHasher;
        fn build_hasher(&self) -> Self::Hasher {
            std::hash::DefaultHasher::new()
        }
    }
    let run = |seed| {
        let cache = builder(100, Maintenance::Manual).hasher(Fixed).seed(seed).metrics(true);
        let cache = cache.build().unwrap();
        let (mut hits, mut victims) = (Vec::new(), Vec::new());
        let mut inside = std::collections::BTreeSet::new();
        for step in 0..20_000u64 {
            let key = step * step % 311;
            match cache.get(&key) {
                Some(_) => hits.push(step),
                None => {
                    cache.insert(key, step);
                    inside.insert(key);
                    inside.retain(|key| {
                        let stays = cache.contains_key(key);
                        if !stays {
                            victims.push(*key);
                        }
                        stays
                    });
                }
            }
            if step % 100 == 0 {
                cache.tick(WorkLimit::ALL);
            }
        }
        assert_eq!(victims.len() as u64, cache.metrics().evictions + cache.metrics().rejected_cold);
        (hits, victims)
    };
    let (hits, victims) = run(1);
    assert!(hits.len() > 1000 && victims.len() > 1000);
    assert_eq!(run(1), (hits, victims.clone()));
    assert_ne!(run(2).1, victims, "the seed decides");
}

#[test]
fn nothing_pends_in_an_idle_cache() {
    let cache = builder::<u64, u64>(10, Maintenance::Manual).build().unwrap();
    let ticked = cache.tick(WorkLimit::ALL);
    assert_eq!(ticked, WorkReport::default());
    cache.flush();
    assert_eq!(cache.memory().garbage, 0);
}

#[test]
fn ticks_drop_removed_values() {
    let tally = Arc::new(Tally::default());
    let cache = builder(1000, Maintenance::Manual).build().unwrap();
    for key in 0..100u64 {
        cache.insert(key, tally.make(key));
    }
    for key in 0..100u64 {
        drop(cache.remove(&key));
    }
    let mut freed = 0;
    crate::support::eventually("ticks free it all", || {
        freed += cache.tick(WorkLimit::evictions(1)).freed;
        tally.alive() == 0
    });
    // Removals free a little on their own.
    assert!(freed <= 100);
    assert_eq!(cache.memory().garbage_entries, 0);
}

#[test]
fn tick_reports_the_events_counted_in_the_sketch() {
    let cache = builder(1000, Maintenance::Manual).build().unwrap();
    for key in 0..10u64 {
        let _ = cache.get(&key);
        cache.insert(key, key);
    }
    // Each miss and the insert that follows it are one access.
    assert_eq!(cache.tick(WorkLimit::ALL).events, 10);
    assert_eq!(cache.tick(WorkLimit::ALL).events, 0);
}

#[test]
fn memory_is_reported_by_part() {
    let cache = builder(10_000, Maintenance::Manual).build().unwrap();
    for key in 0..1000u64 {
        cache.insert(key, key);
    }
    let memory = cache.memory();
    assert_eq!(memory.entries, 16 * cache.len());
    assert!(memory.table > 1000 * 8 && memory.sketch > 0 && memory.buffers > 0);
    assert_eq!((memory.garbage, memory.garbage_entries), (0, 0));
}
