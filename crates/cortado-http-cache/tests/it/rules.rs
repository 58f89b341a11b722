//! What is stored, served, revalidated and removed, as the server's headers say.

use std::{sync::Arc, time::Duration};

use cortado::{Cache, ManualClock};
use cortado_http_cache::CortadoManager;
use http::{Method, StatusCode};
use http_cache_reqwest::{CacheMode, HttpCacheOptions};
use tokio::{
    sync::{Barrier, Notify, Semaphore},
    task::JoinSet,
};

use crate::support::{Client, Origin, fetched, hit, ok, reply};

const BUDGET: u64 = 1 << 20;

fn manager() -> CortadoManager {
    CortadoManager::new(BUDGET).unwrap()
}

#[tokio::test]
async fn cacheable_response_is_fetched_once() {
    let origin = Origin::start(|_| async { ok("max-age=3600", "body") }).await;
    let manager = manager();
    let client = Client::new(&manager);

    assert_eq!(client.get(origin.url("/a")).await, fetched("body"));
    for _ in 0..3 {
        assert_eq!(client.get(origin.url("/a")).await, hit("body"));
    }
    assert_eq!(origin.requests(), 1);

    // Another client with the same manager has the same responses.
    assert_eq!(Client::new(&manager).get(origin.url("/a")).await, hit("body"));
    assert_eq!(origin.requests(), 1);
}

#[tokio::test]
async fn no_store_is_not_cached() {
    let origin = Origin::start(|_| async { ok("no-store", "body") }).await;
    let manager = manager();
    let client = Client::new(&manager);

    for _ in 0..2 {
        assert_eq!(client.get(origin.url("/a")).await, fetched("body"));
    }
    assert_eq!(origin.requests(), 2);
    assert!(manager.cache().is_empty());
}

#[tokio::test]
async fn revalidated_response_keeps_its_body() {
    // The first 304 says that the response stays fresh from now on.
    let origin = Origin::start(|request| async move {
        let tag = ("etag", "\"one\"");
        match request.header("if-none-match") {
            "" => reply(StatusCode::OK, &[tag, ("cache-control", "max-age=0")], "body"),
            _ => reply(
                StatusCode::NOT_MODIFIED,
                &[
                    tag,
                    ("cache-control", if request.count > 2 { "max-age=3600" } else { "max-age=0" }),
                ],
                "",
            ),
        }
    })
    .await;
    let client = Client::new(&manager());

    assert_eq!(client.get(origin.url("/a")).await, fetched("body"));
    assert_eq!(client.get(origin.url("/a")).await, hit("body"));
    assert_eq!(client.get(origin.url("/a")).await, hit("body"));
    assert_eq!(origin.requests(), 3);
    let tags: Vec<_> =
        origin.received().iter().map(|r| r.header("if-none-match").to_string()).collect();
    assert_eq!(tags, ["", "\"one\"", "\"one\""]);

    assert_eq!(client.get(origin.url("/a")).await, hit("body"));
    assert_eq!(origin.requests(), 3, "the policy of the 304 was not stored");
}

#[tokio::test]
async fn changed_response_replaces_the_stored_one() {
    let origin = Origin::start(|request| async move {
        let (tag, body, age) = match request.count {
            1 => ("\"one\"", "first", "max-age=0"),
            _ => ("\"two\"", "second", "max-age=3600"),
        };
        reply(StatusCode::OK, &[("etag", tag), ("cache-control", age)], body)
    })
    .await;
    let manager = manager();
    let client = Client::new(&manager);

    assert_eq!(client.get(origin.url("/a")).await, fetched("first"));
    assert_eq!(client.get(origin.url("/a")).await, fetched("second"));
    assert_eq!(client.get(origin.url("/a")).await, hit("second"));
    assert_eq!(origin.requests(), 2);
    assert_eq!(manager.cache().len(), 1);
}

#[tokio::test]
async fn stale_response_without_validator_is_fetched_again() {
    let origin = Origin::start(|request| async move {
        let age = if request.path == "/old" { "100" } else { "0" };
        let control = if request.path == "/old" { "max-age=60" } else { "max-age=0" };
        let headers = [("cache-control", control), ("age", age)];
        reply(StatusCode::OK, &headers, format!("{}", request.count))
    })
    .await;
    let client = Client::new(&manager());

    for path in ["/zero", "/old"] {
        assert_eq!(client.get(origin.url(path)).await, fetched("1"));
        assert_eq!(client.get(origin.url(path)).await, fetched("2"));
    }
    assert_eq!(origin.requests(), 4);
}

#[tokio::test]
async fn unsafe_method_removes_the_stored_response() {
    let origin =
        Origin::start(|request| async move { ok("max-age=3600", request.count.to_string()) }).await;
    let manager = manager();
    let client = Client::new(&manager);

    let mut fetches = 0;
    for method in [Method::POST, Method::PUT, Method::PATCH, Method::DELETE] {
        fetches += 1;
        let body = fetches.to_string();
        assert_eq!(client.get(origin.url("/a")).await, fetched(&body));
        assert_eq!(client.get(origin.url("/a")).await, hit(&body));
        client.send(method, origin.url("/a"), &[], CacheMode::Default).await;
        assert!(manager.cache().is_empty());
    }
    assert_eq!(client.get(origin.url("/a")).await, fetched("5"));
}

#[tokio::test]
async fn response_that_varies_replaces_the_one_for_another_header() {
    let origin = Origin::start(|request| async move {
        let headers = [("cache-control", "max-age=3600"), ("vary", "accept-language")];
        reply(StatusCode::OK, &headers, request.header("accept-language").to_string())
    })
    .await;
    let manager = manager();
    let client = Client::new(&manager);
    let get = async |client: &Client, language| {
        let headers = [("accept-language", language)];
        client.send(Method::GET, origin.url("/a"), &headers, CacheMode::Default).await
    };

    assert_eq!(get(&client, "de").await, fetched("de"));
    assert_eq!(get(&client, "de").await, hit("de"));
    assert_eq!(get(&client, "fr").await, fetched("fr"));
    assert_eq!(get(&client, "de").await, fetched("de"));
    assert_eq!(manager.cache().len(), 1);
    manager.clear();

    // With the header in the key, there is a response for each language.
    let options = HttpCacheOptions {
        cache_key: Some(Arc::new(|request: &http::request::Parts| {
            format!("{}:{}:{:?}", request.method, request.uri, request.headers["accept-language"])
        })),
        ..HttpCacheOptions::default()
    };
    let client = Client::with_options(&manager, options);
    for language in ["de", "fr"] {
        assert_eq!(get(&client, language).await, fetched(language));
    }
    for language in ["de", "fr"] {
        assert_eq!(get(&client, language).await, hit(language));
    }
    assert_eq!(manager.cache().len(), 2);
}

/// The limit that the crate's documentation states: the barrier opens only if all requests are at
/// the server at the same time.
#[tokio::test]
async fn concurrent_misses_of_a_url_all_reach_the_server() {
    const REQUESTS: usize = 8;
    let barrier = Arc::new(Barrier::new(REQUESTS));
    let origin = Origin::start(move |_| {
        let barrier = Arc::clone(&barrier);
        async move {
            barrier.wait().await;
            ok("max-age=3600", "body")
        }
    })
    .await;
    let manager = manager();
    let client = Client::new(&manager);

    let mut tasks = JoinSet::new();
    for _ in 0..REQUESTS {
        let (client, url) = (client.clone(), origin.url("/a"));
        tasks.spawn(async move { client.get(url).await });
    }
    for answer in tasks.join_all().await {
        assert_eq!(answer, fetched("body"));
    }
    assert_eq!(origin.requests(), REQUESTS);
    assert_eq!(manager.cache().len(), 1);
    assert_eq!(client.get(origin.url("/a")).await, hit("body"));
}

/// Another limit that the documentation states.
#[tokio::test]
async fn response_fetched_before_a_write_may_be_stored_after_it() {
    let (started, gate) = (Arc::new(Notify::new()), Arc::new(Semaphore::new(0)));
    let (start, open) = (Arc::clone(&started), Arc::clone(&gate));
    let origin = Origin::start(move |request| {
        let (start, open) = (Arc::clone(&start), Arc::clone(&open));
        async move {
            if request.method == Method::GET {
                start.notify_one();
                open.acquire().await.unwrap().forget();
            }
            ok("max-age=3600", request.count.to_string())
        }
    })
    .await;
    let client = Client::new(&manager());

    let (reader, url) = (client.clone(), origin.url("/a"));
    let read = tokio::spawn(async move { reader.get(url).await });
    started.notified().await;
    client.send(Method::POST, origin.url("/a"), &[], CacheMode::Default).await;
    gate.add_permits(1);
    assert_eq!(read.await.unwrap(), fetched("1"));
    assert_eq!(client.get(origin.url("/a")).await, hit("1"));
}

#[tokio::test]
async fn time_to_live_bounds_what_is_fresh_by_its_headers() {
    let origin = Origin::start(|_| async { ok("max-age=3600", "body") }).await;
    let clock = ManualClock::new();
    let minute = Duration::from_secs(60);
    let cache = Cache::builder().max_cost(BUDGET).ttl(minute).clock(clock.clone()).build().unwrap();
    let client = Client::new(&CortadoManager::with_cache(cache));

    assert_eq!(client.get(origin.url("/a")).await, fetched("body"));
    clock.advance(minute / 2);
    assert_eq!(client.get(origin.url("/a")).await, hit("body"));
    clock.advance(minute);
    assert_eq!(client.get(origin.url("/a")).await, fetched("body"));
    assert_eq!(origin.requests(), 2);
}

#[tokio::test]
async fn clear_removes_every_response() {
    let origin = Origin::start(|_| async { ok("max-age=3600", "body") }).await;
    let manager = manager();
    let client = Client::new(&manager);

    for path in ["/a", "/b"] {
        assert_eq!(client.get(origin.url(path)).await, fetched("body"));
    }
    manager.clear();
    assert_eq!((manager.cache().len(), manager.cache().cost()), (0, 0));
    for path in ["/a", "/b"] {
        assert_eq!(client.get(origin.url(path)).await, fetched("body"));
    }
}

/// What the middleware does, and the documentation warns of.
#[tokio::test]
async fn stored_response_is_returned_where_the_origin_refuses_one_for_another_header() {
    let origin = Origin::start(|request| async move {
        let headers = [("cache-control", "max-age=3600"), ("vary", "cookie")];
        let user = request.header("cookie");
        let status = if user == "a" { StatusCode::OK } else { StatusCode::FORBIDDEN };
        reply(status, &headers, user.to_string())
    })
    .await;
    let manager = manager();
    let client = Client::new(&manager);
    let get = async |user| {
        client.send(Method::GET, origin.url("/a"), &[("cookie", user)], CacheMode::Default).await
    };
    assert_eq!(get("a").await, fetched("a"));
    assert_eq!(get("b").await, hit("a"));
    assert_eq!(origin.requests(), 2);
}

#[tokio::test]
async fn with_a_key_of_ones_own_an_unsafe_method_removes_what_cache_bust_lists() {
    let origin =
        Origin::start(|request| async move { ok("max-age=3600", request.count.to_string()) }).await;
    let key = |method: &Method, uri: &http::Uri| format!("{method}:{}", uri.path());
    for (busts, body) in [(false, "1"), (true, "2")] {
        let manager = manager();
        let options = HttpCacheOptions {
            cache_key: Some(Arc::new(move |request: &http::request::Parts| {
                key(&request.method, &request.uri)
            })),
            cache_bust: busts.then(|| {
                let list = move |request: &http::request::Parts, _: &Option<_>, _: &str| {
                    vec![key(&Method::GET, &request.uri)]
                };
                Arc::new(list) as _
            }),
            ..HttpCacheOptions::default()
        };
        let client = Client::with_options(&manager, options);
        let path = format!("/{busts}");
        assert_eq!(client.get(origin.url(&path)).await, fetched("1"));
        client.send(Method::POST, origin.url(&path), &[], CacheMode::Default).await;
        let expected = if busts { fetched(body) } else { hit(body) };
        assert_eq!(client.get(origin.url(&path)).await, expected);
    }
}
