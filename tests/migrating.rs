//! Every call that `docs/migrating.md` names compiles, and does what the page says.

use std::{convert::Infallible, sync::Arc, time::Duration};

use cortado::{
    Cache, CacheBuilder, Claim, ComputeOp, DefaultHashBuilder, EvictionPolicy, Expiry, FillGuard,
    Insert, InsertOptions, Maintenance, ManualClock, RemovalCause, WaitPolicy,
};

const SECOND: Duration = Duration::from_secs(1);

struct Forever;

impl Expiry<String, u64> for Forever {}

fn settings() -> Cache<String, u64> {
    let builder: CacheBuilder<String, u64> = CacheBuilder::new().max_cost(100);
    let builder = builder
        .expected_entries(100)
        .num_counters(1000)
        .name("migrated")
        .cost_of(|_, value| *value % 3)
        .replace_if(|_, old, new| new >= old)
        .can_evict(|_, _| true)
        .write_back(|_, _| true)
        .on_remove(|removed| _ = removed.value)
        .expiry(Forever)
        .refresh_after(SECOND)
        .eviction_policy(EvictionPolicy::Frequency)
        .maintenance(Maintenance::Manual)
        .clock(ManualClock::new())
        .metrics(true)
        .charge_overhead(false);
    #[cfg(feature = "async-channel")]
    let (builder, _removals) =
        builder.removals(8, cortado::integrations::async_channel::WhenFull::DropOldest);
    builder.hasher(DefaultHashBuilder::new()).build().unwrap()
}

fn cache() -> Cache<String, u64> {
    Cache::builder().max_cost(100).maintenance(Maintenance::Manual).metrics(true).build().unwrap()
}

fn key(text: &str) -> String {
    text.to_owned()
}

#[test]
fn settings_have_a_counterpart() {
    assert_eq!(settings().name(), "migrated");
    let timed: Cache<u64, u64> =
        Cache::builder().max_cost(10).ttl(SECOND).tti(SECOND).build_manual().unwrap();
    timed.insert(1, 1);
    assert_eq!(timed.set_ttl(&1, Some(SECOND / 2)), Ok(()));
    assert!(timed.entry_info(&1).unwrap().ttl.is_some());
    assert!(Cache::<u64, u64>::new(1).close());
}

#[test]
fn reads_and_writes_have_a_counterpart() {
    let cache = cache();
    assert_eq!(cache.insert(key("a"), 1), Insert::Inserted);
    assert!(cache.insert_with_cost(key("b"), 2, 3).is_in());
    assert!(cache.insert_with(key("c"), 3, InsertOptions::new().cost(2).ttl(SECOND)).is_in());
    assert!(!cache.insert_if_absent(key("a"), 9).is_in());
    assert!(cache.replace(key("a"), 1).is_in());
    assert!(cache.update("a", |n| *n.min(&1)));
    assert_eq!((cache.get_cloned("a"), cache.get("a").map(|it| *it)), (Some(1), Some(1)));
    assert!(cache.peek("a").is_some() && cache.contains_key("b"));
    let mut found = 0;
    cache.get_many(["a", "x"], |_, value| found += usize::from(value.is_some()));
    assert_eq!(found, 1);
    let pinned = cache.pin();
    assert_eq!((pinned.iter().count(), pinned.values().sum::<u64>()), (3, 6));
    assert_eq!((pinned.hottest(1).len(), pinned.coldest(1).len()), (1, 1));
    drop(pinned);
    assert_eq!(cache.export().count(), 3);
    assert!(cache.remove_if("a", |n| *n == 7).is_none() && cache.remove("a").is_some());
    cache.retain(|key, _| key != "b");
    assert_eq!(
        (cache.len(), cache.cost(), cache.max_cost(), cache.remaining_cost()),
        (1, 2, 100, 98)
    );
    assert!(cache.metrics().hits > 0 && cache.memory().table > 0);
    cache.set_max_cost(50);
    cache.drain(|_, _| {});
    cache.clear();
    cache.flush();
}

#[tokio::test]
async fn loads_have_a_counterpart() {
    let cache = cache();
    assert_eq!(*cache.get_or_insert_with(key("a"), || 1), 1);
    assert_eq!(cache.get_or_insert_async(key("b"), async { 2 }).await, 2);
    assert_eq!(*cache.entry_ref("c").or_insert_with(|| 3), 3);
    assert_eq!(cache.entry_ref("d").or_insert_async(async { 4 }).await, 4);
    assert_eq!(*cache.entry(key("e")).or_insert(5), 5);
    let shared = cache.entry(key("f")).or_try_load_shared(|| Err("down")).map(|value| *value);
    assert_eq!(shared, Err(Arc::new("down")));
    let shared = cache.entry(key("f")).or_try_load_shared_async(async { Err("down") }).await;
    assert_eq!(shared, Err(Arc::new("down")));
    // An optional value is one whose load may fail without an error.
    let absent = cache.try_get_or_insert_with(key("f"), || None.ok_or(())).map(|value| *value);
    assert_eq!(absent, Err(()));
    let absent = cache.try_get_or_insert_async(key("f"), async { None.ok_or(()) }).await;
    assert_eq!(absent, Err(()));
    let own = cache.entry_ref("f").or_try_insert_with(|| Err("down")).map(|value| *value);
    assert_eq!(own, Err("down"));
    assert_eq!(cache.entry_ref("f").or_try_insert_async(async { Err("down") }).await, Err("down"));
    // Whether the value is a fresh one.
    assert!(matches!(cache.claim(key("a"), WaitPolicy::For(SECOND)), Claim::Hit(_)));
    let fill = |guard: FillGuard<'_, _, _, _>| drop(guard.fill(6));
    match cache.claim(key("f"), WaitPolicy::No) {
        Claim::Fill(guard) => fill(guard),
        Claim::Hit(_) | Claim::Busy(_) => unreachable!(),
    }
    let pending = std::future::pending();
    let Claim::Fill(guard) = cache.claim_async(key("g"), pending).await else { unreachable!() };
    drop(guard.fill_with(7, InsertOptions::new()));
    drop(cache.claim_refresh(key("g")).unwrap().fill(8));
    let squares = |keys: &[&String]| keys.iter().map(|key| ((*key).clone(), 9)).collect::<Vec<_>>();
    assert_eq!(cache.get_or_insert_many([key("g"), key("h")], squares), [Some(8), Some(9)]);
    let load = async |_: Vec<String>| Ok::<_, Infallible>([(key("i"), 10)]);
    let loaded = cache.try_get_or_insert_many_async([key("i")], load).await;
    assert_eq!(loaded, Ok(vec![Some(10)]));
    cache.flush_async().await;
}

#[tokio::test]
async fn computes_have_a_counterpart() {
    let cache = cache();
    let add = |n: Option<&u64>| ComputeOp::Put(n.unwrap_or(&0) + 1);
    assert_eq!(cache.compute(key("a"), add).value(), Some(&1));
    assert_eq!(cache.compute(key("a"), add).into_entry().map(|entry| *entry), Some(2));
    assert!(cache.compute(key("a"), |_| ComputeOp::Keep).cloned().into_entry().is_some());
    assert!(cache.try_compute(key("a"), |_| Err("no")).is_err());
    let add = async |n: Option<u64>| ComputeOp::Put(n.unwrap_or(0) + 1);
    assert_eq!(cache.compute_async(key("a"), add).await.into_entry(), Some(3));
    assert!(cache.try_compute_async(key("a"), async |_| Err("no")).await.is_err());
}

#[test]
fn causes_have_a_counterpart() {
    let causes = [
        RemovalCause::Expired,
        RemovalCause::Removed,
        RemovalCause::Replaced,
        RemovalCause::Evicted,
    ];
    assert_eq!(
        causes.map(|cause| cause.to_string()),
        ["expired", "removed", "replaced", "evicted"]
    );
}

/// Returns the names of the calls in the columns of the page that show cortado's API.
fn named(page: &str) -> Vec<&str> {
    let mut names = Vec::new();
    for row in page.lines().filter(|line| line.starts_with("| ")) {
        let columns: Vec<_> = row.trim_matches('|').split(" | ").collect();
        let Some(column) = columns.len().checked_sub(2).and_then(|i| columns.get(i)) else {
            continue;
        };
        for call in column.split('`').skip(1).step_by(2) {
            let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
            names.extend(call.split(|c| !is_name(c)).filter(|name| name.len() > 2));
        }
    }
    names
}

#[test]
fn every_call_that_the_page_names_is_in_this_file() {
    let (page, here) = (include_str!("../docs/migrating.md"), include_str!("migrating.rs"));
    let names = named(page);
    assert!(names.len() > 150, "{} names", names.len());
    let code: Vec<_> = here.lines().filter(|line| !line.trim_start().starts_with("//")).collect();
    let is_here = |name: &str| code.iter().any(|line| line.contains(name));
    // Placeholders for the user's arguments.
    let arguments = ["when_full", "timeout", "keys"];
    let missing: Vec<_> =
        names.iter().filter(|name| !is_here(name) && !arguments.contains(name)).collect();
    assert!(missing.is_empty(), "{missing:?}");
}
