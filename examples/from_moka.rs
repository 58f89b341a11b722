//! Migrating from moka: its calls in the comments, followed by cortado's.
//!
//! `cargo run --example from_moka`; the whole table is in `docs/migrating.md`.

use std::time::Duration;

use cortado::{BuildError, Cache, ComputeOp, ComputeResult, Insert};

fn main() -> Result<(), BuildError> {
    // moka::sync::Cache::builder()
    let cache = Cache::builder()
        // .max_capacity(10_000)
        .max_cost(10_000)
        // .weigher(|_key, value: &String| value.len() as u32)
        .cost_of(|_key: &&str, value: &String| value.len() as u64)
        // .time_to_live(Duration::from_secs(600))
        .ttl(Duration::from_secs(600))
        // .time_to_idle(Duration::from_secs(60))
        .tti(Duration::from_secs(60))
        // .eviction_listener(|key, value, cause| println!("{key} {value} {cause:?}"))
        .on_remove(|removed| println!("{} {} {}", removed.key, removed.value, removed.cause))
        // .build();
        .build()?;

    // cache.insert("a", "one".to_string());
    assert_eq!(cache.insert("a", "one".to_string()), Insert::Inserted);
    // let value: Option<String> = cache.get(&"a");
    let value: Option<String> = cache.get_cloned("a");
    assert_eq!(value.as_deref(), Some("one"));
    // (No such call: the value is cloned.)
    assert_eq!(cache.get("a").map(|value| value.len()), Some(3));

    // cache.get_with("b", || "two".to_string());
    assert_eq!(*cache.get_or_insert_with("b", || "two".to_string()), "two");
    // let failed: Result<String, Arc<_>> = cache.try_get_with("c", || Err("no"));
    let failed = cache.try_get_or_insert_with("c", || Err("no"));
    assert_eq!(failed.map(|value| value.clone()), Err("no"));

    // cache.entry("a").and_upsert_with(|entry| entry.map_or("1".into(), |e| e.into_value() + "!"));
    let done =
        cache.compute("a", |value| ComputeOp::Put(value.map_or("1".into(), |v| format!("{v}!"))));
    assert_eq!(done.cloned(), ComputeResult::Updated("one!".to_string()));

    // cache.run_pending_tasks(); assert_eq!((cache.entry_count(), cache.weighted_size()), (2, 7));
    assert_eq!((cache.len(), cache.cost()), (2, 7));
    // cache.invalidate_entries_if(|_, value| value.len() > 3)?;
    cache.retain(|_, value| value.len() <= 3);
    // cache.invalidate(&"b");
    cache.remove("b");
    // cache.invalidate_all();
    cache.clear();
    assert!(cache.is_empty());
    Ok(())
}
