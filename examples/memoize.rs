//! Memoized functions: the macros of the `cached` crate with a cache of this crate.
//!
//! `cargo run --example memoize --features cached`

use std::{
    convert::Infallible,
    sync::atomic::{AtomicU32, Ordering::Relaxed},
    time::Duration,
};

use cached::macros::concurrent_cached;
use cortado::{Cache, integrations::cached::Store};

static RUNS: AtomicU32 = AtomicU32::new(0);

// No lock: a hit is a lookup in the cache.
#[concurrent_cached(ty = "Store<(u32, u32), u64>", create = { Store::new(1000) })]
fn paths(right: u32, down: u32) -> Result<u64, Infallible> {
    RUNS.fetch_add(1, Relaxed);
    if right == 0 || down == 0 {
        return Ok(1);
    }
    Ok(paths(right - 1, down)? + paths(right, down - 1)?)
}

/// The cost of a page is its length, and its time to live is a minute.
fn pages() -> Store<String, String> {
    let builder = Cache::builder().max_cost(1 << 20).ttl(Duration::from_secs(60));
    let cache = builder.cost_of(|_, page: &String| page.len() as u64).build();
    cache.expect("the budget is not 0").into()
}

// An error of the function is not stored. The store itself never fails.
#[concurrent_cached(
    ty = "Store<String, String>",
    create = { pages() },
    map_error = |never| -> &'static str { match never {} }
)]
async fn page(path: &str) -> Result<String, &'static str> {
    RUNS.fetch_add(1, Relaxed);
    tokio::time::sleep(Duration::from_millis(10)).await;
    if path.starts_with('/') { Ok(format!("this is {path}")) } else { Err("not a path") }
}

#[tokio::main]
async fn main() {
    assert_eq!(paths(16, 16), Ok(601_080_390));
    assert_eq!(RUNS.swap(0, Relaxed), 17 * 17 - 1, "a pair once; without a cache 1.2 billion runs");

    for _ in 0..3 {
        assert_eq!(page("/menu").await.as_deref(), Ok("this is /menu"));
        assert_eq!(page("menu").await, Err("not a path"));
    }
    assert_eq!(RUNS.load(Relaxed), 1 + 3, "the page once, the error every time");

    let cache = PAGE.get().expect("it was called").cache();
    assert_eq!((cache.len(), cache.cost()), (1, "this is /menu".len() as u64));
    println!("{} pairs, {cache:?}", PATHS.cache().len());
}
