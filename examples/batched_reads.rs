//! Several reads at once: under one pin, or as a batch with prefetching.
//!
//! `cargo run --example batched_reads`

use cortado::Cache;

fn main() {
    let cache: Cache<u64, String> = Cache::new(10_000);
    for user in 0..1000 {
        assert!(cache.insert(user, format!("user {user}")).is_in());
    }

    // References from one pin can be held together. Keep a pin short: entries that are removed
    // concurrently are freed only after it ends.
    let pinned = cache.pin();
    let pair = (pinned.get(&1), pinned.get(&2));
    assert_eq!(pair.0.map(String::as_str), Some("user 1"));
    assert_eq!(pair.1.map(String::as_str), Some("user 2"));
    drop(pinned);

    // A batch: the closure is called once for each key, found or not, in order.
    let friends: Vec<u64> = (0..100).map(|i| i * 37 % 1200).collect();
    let (mut known, mut unknown) = (Vec::new(), Vec::new());
    cache.get_many(&friends, |index, name| match name {
        Some(name) => known.push(name.clone()),
        None => unknown.push(friends[index]),
    });
    assert_eq!(known.len() + unknown.len(), friends.len());
    assert!(known.iter().all(|name| name.starts_with("user ")));
    println!("{} known, {} to be loaded", known.len(), unknown.len());

    // The usual next step: load the missing values and insert them.
    for user in &unknown {
        cache.insert(*user, format!("user {user}"));
    }
    let mut found = 0;
    cache.get_many(&friends, |_, name| found += usize::from(name.is_some()));
    assert!(found >= known.len());
    println!("{found} of {} the second time", friends.len());
}
