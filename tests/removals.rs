//! The channel of removals (feature `async-channel`).

use std::{sync::Arc, thread};

use cortado::{
    Cache, Maintenance, RemovalCause,
    integrations::async_channel::{Removals, WhenFull},
};

fn cache(capacity: usize, when_full: WhenFull) -> (Cache<u64, u64>, Removals<u64, u64>) {
    let builder = Cache::builder().max_cost(1000).maintenance(Maintenance::Manual);
    let (builder, removals) = builder.removals(capacity, when_full);
    (builder.build().unwrap(), removals)
}

fn remove(cache: &Cache<u64, u64>, keys: impl IntoIterator<Item = u64>) {
    for key in keys {
        cache.insert(key, 10 * key);
        assert!(cache.remove(&key).is_some());
        cache.flush();
    }
}

fn all(removals: &Removals<u64, u64>) -> Vec<u64> {
    std::iter::from_fn(|| removals.try_recv()).map(|removed| removed.key).collect()
}

#[test]
fn entries_are_received_with_their_cause_until_the_cache_is_dropped() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let (cache, removals) = cache(10, WhenFull::DropNewest);
    remove(&cache, 1..=2);
    cache.insert(3, 30);
    cache.insert(3, 31);
    cache.flush();
    assert!(cache.close());
    let mut seen = Vec::new();
    runtime.block_on(async {
        while let Some(removed) = removals.recv().await {
            seen.push((removed.key, removed.value, removed.cause));
        }
    });
    let replaced = (3, 30, RemovalCause::Replaced);
    assert_eq!(seen, [(1, 10, RemovalCause::Removed), (2, 20, RemovalCause::Removed), replaced]);
    assert!(removals.recv_blocking().is_none());
}

#[test]
fn full_channel_drops_one_end_or_the_other_and_counts() {
    let (first, removals) = cache(3, WhenFull::DropNewest);
    remove(&first, 0..10);
    assert_eq!((all(&removals), removals.lost()), (vec![0, 1, 2], 7));
    let (second, removals) = cache(3, WhenFull::DropOldest);
    remove(&second, 0..10);
    assert_eq!((all(&removals), removals.lost()), (vec![7, 8, 9], 7));
    // It continues once there is room.
    remove(&second, 20..22);
    assert_eq!((all(&removals), removals.lost()), (vec![20, 21], 7));
    let (third, removals) = cache(0, WhenFull::DropNewest);
    remove(&third, 0..2);
    assert_eq!((all(&removals), removals.lost()), (vec![0], 1));
}

#[test]
fn cache_works_without_receivers() {
    let (cache, removals) = cache(3, WhenFull::DropOldest);
    drop(removals);
    remove(&cache, 0..10);
    assert!(cache.is_empty());
}

#[test]
fn each_entry_goes_to_one_receiver() {
    let builder = Cache::builder().max_cost(100).maintenance(Maintenance::Thread);
    let (builder, removals) = builder.removals(100_000, WhenFull::DropNewest);
    let cache: Cache<u64, Arc<u64>> = builder.build().unwrap();
    let takers: Vec<_> = (0..3)
        .map(|_| {
            let removals = removals.clone();
            thread::spawn(move || {
                std::iter::from_fn(|| removals.recv_blocking()).map(|it| it.key).collect::<Vec<_>>()
            })
        })
        .collect();
    (0..10_000).for_each(|key| assert!(cache.insert(key, Arc::new(key)).is_in()));
    let left = cache.len();
    assert!(cache.close());
    let mut seen: Vec<_> = takers.into_iter().flat_map(|taker| taker.join().unwrap()).collect();
    seen.sort_unstable();
    let count = seen.len();
    seen.dedup();
    assert_eq!((seen.len(), count + left, removals.lost()), (count, 10_000, 0));
}
