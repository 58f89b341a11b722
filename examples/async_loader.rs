//! Loading from tasks: many tasks request one key, and one of them loads it.
//!
//! `cargo run --example async_loader`

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use cortado::Cache;

#[tokio::main]
async fn main() {
    // A large value is cheap to clone in an `Arc`.
    let cache: Cache<u32, Arc<str>> = Cache::new(1000);
    let queries = Arc::new(AtomicUsize::new(0));

    let tasks: Vec<_> = (0..100)
        .map(|_| {
            let (cache, queries) = (cache.clone(), Arc::clone(&queries));
            tokio::spawn(async move { cache.get_or_insert_async(7, query(&queries, 7)).await })
        })
        .collect();
    for task in tasks {
        let name = task.await.expect("no task panics");
        assert_eq!(&*name, "user 7");
    }
    assert_eq!(queries.load(Ordering::Relaxed), 1, "the others waited, or came later");

    // An error is returned to the caller whose loader failed, and nothing is inserted.
    let failed = cache.try_get_or_insert_async(8, async { Err("no such user") }).await;
    assert_eq!(failed, Err("no such user"));
    assert!(!cache.contains_key(&8));

    // The next caller loads again.
    let loaded =
        cache.try_get_or_insert_async(8, async { Ok::<_, &str>(query(&queries, 8).await) }).await;
    assert_eq!(loaded.as_deref(), Ok("user 8"));

    // If a load is cancelled, a waiting caller takes over.
    let slow = cache.get_or_insert_async(9, std::future::pending());
    assert!(tokio::time::timeout(Duration::from_millis(10), slow).await.is_err());
    assert_eq!(&*cache.get_or_insert_async(9, query(&queries, 9)).await, "user 9");

    println!("{} queries for 3 users", queries.load(Ordering::Relaxed));
}

async fn query(queries: &AtomicUsize, user: u32) -> Arc<str> {
    queries.fetch_add(1, Ordering::Relaxed);
    tokio::time::sleep(Duration::from_millis(20)).await;
    format!("user {user}").into()
}
