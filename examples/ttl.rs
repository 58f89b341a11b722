//! Expiry: entries with a time to live, on a manual clock.
//!
//! `cargo run --example ttl`

use std::time::Duration;

use cortado::{BuildError, Cache, ManualClock};

const MINUTE: Duration = Duration::from_secs(60);

fn main() -> Result<(), BuildError> {
    // Without this, deadlines are measured by the system's monotonic clock.
    let clock = ManualClock::new();
    let cache = Cache::builder().max_cost(100).ttl(10 * MINUTE).clock(clock.clone()).build()?;

    // The builder's time to live, or one of the entry's own.
    assert!(cache.insert("session", 1).is_in());
    assert!(cache.insert_with_ttl("code", 1234, MINUTE).is_in());
    assert_eq!(cache.get("session").and_then(|entry| entry.ttl()), Some(10 * MINUTE));

    // At its deadline an entry is a miss, whether maintenance has removed it or not.
    clock.advance(MINUTE);
    assert!(cache.get("code").is_none() && cache.contains_key("session"));

    // `replace`, `update` and `compute` keep the deadline.
    assert!(cache.replace("session", 2).is_in());
    assert!(cache.update("session", |visits| visits + 1));
    assert_eq!(cache.entry_info("session").and_then(|info| info.ttl), Some(9 * MINUTE));

    // An insert restarts it.
    assert!(cache.insert("session", 4).is_in());
    assert_eq!(cache.entry_info("session").and_then(|info| info.ttl), Some(10 * MINUTE));

    // A deadline can be moved or removed.
    assert_eq!(cache.set_ttl("session", Some(MINUTE)), Ok(()));
    assert!(cache.insert("root", 5).is_in());
    assert_eq!(cache.set_ttl("root", None), Ok(()));
    clock.advance(1000 * MINUTE);
    assert_eq!((cache.get_cloned("session"), cache.get_cloned("root")), (None, Some(5)));

    // An expired entry soon stops counting in the budget; at once after a flush.
    cache.flush();
    assert_eq!((cache.len(), cache.cost()), (1, 1));
    println!("{} entry left", cache.len());
    Ok(())
}
