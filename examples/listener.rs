//! A removal listener: `on_remove` gets every entry that leaves, with the cause, exactly once.
//!
//! `cargo run --example listener`

use std::{sync::mpsc, time::Duration};

use cortado::{BuildError, Cache, Maintenance, ManualClock, RemovalCause, Removed};

fn main() -> Result<(), BuildError> {
    // It takes the entry by value. A channel moves slow work to another thread.
    let (sender, removed) = mpsc::channel();
    let clock = ManualClock::new();
    let cache = Cache::builder()
        .max_cost(100)
        .clock(clock.clone())
        .maintenance(Maintenance::Manual)
        .on_remove(move |removed: Removed<u32, String>| _ = sender.send(removed))
        .build()?;
    // Called once no thread can see the entry. A flush reports all entries that no reader holds.
    let told = || {
        cache.flush();
        removed.try_iter().map(|entry| (entry.key, entry.value, entry.cause)).collect::<Vec<_>>()
    };

    assert!(cache.insert(1, "old".into()).is_in());
    assert!(cache.insert(1, "new".into()).is_in());
    assert_eq!(told(), [(1, "old".into(), RemovalCause::Replaced)]);

    // A reader that holds an entry delays its report.
    let held = cache.remove(&1);
    assert_eq!(told(), []);
    drop(held);
    assert_eq!(told(), [(1, "new".into(), RemovalCause::Removed)]);

    assert!(cache.insert_with_ttl(2, "brief".into(), Duration::from_secs(1)).is_in());
    clock.advance(Duration::from_secs(1));
    assert_eq!(told(), [(2, "brief".into(), RemovalCause::Expired)]);

    // A rejected value is returned to the caller of the insert, and not reported.
    assert!(cache.insert_with_cost(3, "huge".into(), 101).rejected().is_some());
    assert_eq!(told(), []);

    let inserted = (0..1000).filter(|&i| cache.insert(i, i.to_string()).is_in()).count();
    let evicted = told();
    assert!(evicted.iter().all(|entry| entry.2 == RemovalCause::Evicted));
    assert_eq!(evicted.len() + cache.len(), inserted);

    let left = cache.len();
    cache.clear();
    let cleared = told();
    assert!(cleared.iter().all(|entry| entry.2 == RemovalCause::Cleared));
    assert_eq!(cleared.len(), left);
    println!("{} evicted, {} cleared", evicted.len(), cleared.len());
    Ok(())
}
