//! The budget in bytes, and responses that do not fit.

use cortado::Cache;
use cortado_http_cache::CortadoManager;
use http::Method;
use http_cache_reqwest::CacheMode;

use crate::support::{Client, Origin, fetched, hit, ok};

const BUDGET: u64 = 256 << 10;

fn counting_manager() -> CortadoManager {
    CortadoManager::with_cache(Cache::builder().max_cost(BUDGET).metrics(true).build().unwrap())
}

#[tokio::test]
async fn body_larger_than_the_budget_is_returned_and_not_kept() {
    let large = "x".repeat(BUDGET as usize + 1);
    let body = large.clone();
    let origin = Origin::start(move |_| {
        let body = body.clone();
        async move { ok("max-age=3600", body) }
    })
    .await;
    let manager = counting_manager();
    let client = Client::new(&manager);

    for count in 1..=2 {
        assert_eq!(client.get(origin.url("/a")).await, fetched(&large));
        assert_eq!(origin.requests(), count);
        assert_eq!((manager.cache().len(), manager.cache().cost()), (0, 0));
        assert_eq!(manager.cache().metrics().rejected(), count as u64);
    }
}

#[tokio::test]
async fn response_that_does_not_fit_removes_the_older_one() {
    let large = "x".repeat(BUDGET as usize + 1);
    let body = large.clone();
    let origin = Origin::start(move |request| {
        let body = if request.count == 2 { body.clone() } else { request.count.to_string() };
        async move { ok("max-age=3600", body) }
    })
    .await;
    let client = Client::new(&counting_manager());
    let reload = || client.send(Method::GET, origin.url("/a"), &[], CacheMode::Reload);

    assert_eq!(client.get(origin.url("/a")).await, fetched("1"));
    assert_eq!(client.get(origin.url("/a")).await, hit("1"));
    assert_eq!(reload().await, fetched(&large));
    // The first response would still be fresh.
    assert_eq!(client.get(origin.url("/a")).await, fetched("3"));
    assert_eq!(client.get(origin.url("/a")).await, hit("3"));
}

#[tokio::test]
async fn budget_is_kept_under_many_urls() {
    const URLS: usize = 400;
    const BODY: usize = 4096;
    let origin = Origin::start(|request| async move {
        ok("max-age=3600", format!("{:>1$}", request.path, BODY))
    })
    .await;
    let manager = counting_manager();
    let client = Client::new(&manager);

    for k in 0..URLS {
        let path = format!("/{k}");
        // The second request may find what the first has stored.
        for _ in 0..2 {
            let answer = client.get(origin.url(&path)).await;
            assert_eq!(answer.body, format!("{path:>BODY$}"));
        }
        let (cost, count) = (manager.cache().cost(), manager.cache().len());
        assert!(cost <= BUDGET, "{cost} after {k}");
        assert!(cost >= (count * BODY) as u64, "{count} responses cost {cost}");
    }
    // All URLs would take six times the budget; as many as fit are there.
    assert!(manager.cache().cost() > BUDGET * 3 / 4, "{}", manager.cache().cost());
    let metrics = manager.cache().metrics();
    assert_eq!(metrics.hits + metrics.misses, 2 * URLS as u64);
    assert_eq!(metrics.misses, origin.requests() as u64);
    assert!(metrics.hits > 0, "{metrics:?}");
}

#[tokio::test]
async fn cost_is_that_of_the_stored_response() {
    let origin = Origin::start(|_| async { ok("max-age=3600", "x".repeat(1000)) }).await;
    let manager = counting_manager();
    let client = Client::new(&manager);

    client.get(origin.url("/a")).await;
    let key = origin.key("/a");
    let entry = manager.cache().peek(&key).unwrap();
    assert_eq!(entry.response.body.len(), 1000);
    assert_eq!(entry.cost(), entry.value().cost(&key));
    assert_eq!(entry.cost(), manager.cache().cost());
}
