//! Reading and writing while all goes well, and what is refused at once.

use std::{sync::Arc, time::Duration};

use cortado::Cache;
use cortado_near::{ConnectError, Error, KeyCodec, NearCache, Prefixed, Text, Tracking};

use crate::{
    server,
    support::{both_modes, eventually, name, numbers},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn value_is_read_once_and_then_held() {
    let server = server![];
    server.set(1, 10).await;
    for tracking in both_modes() {
        let near = numbers(tracking).connect(server.url()).await.unwrap();
        for _ in 0..5 {
            assert_eq!(near.get(&1).await.unwrap(), Some(10));
        }
        assert_eq!(near.peek(&1), Some(10));
        assert_eq!((near.metrics().round_trips, near.len()), (1, 1));
        assert_eq!(near.metrics().cache.hits, 4);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn change_by_another_client_is_seen() {
    let server = server![];
    for (tracking, value) in both_modes().into_iter().zip([10, 20]) {
        server.set(1, value).await;
        let near = numbers(tracking).connect(server.url()).await.unwrap();
        assert_eq!(near.get(&1).await.unwrap(), Some(value));
        server.set(1, value + 1).await;
        eventually("the invalidation arrives", || near.peek(&1).is_none()).await;
        assert_eq!(near.get(&1).await.unwrap(), Some(value + 1));
        assert_eq!(near.state().generation, 0);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn absent_key_is_remembered_until_it_is_written() {
    let server = server![];
    for (tracking, key) in both_modes().into_iter().zip([1, 2]) {
        let near = numbers(tracking).connect(server.url()).await.unwrap();
        assert_eq!(near.get(&key).await.unwrap(), None);
        assert_eq!(near.get(&key).await.unwrap(), None);
        assert_eq!(near.metrics().round_trips, 1);
        server.set(key, 10).await;
        eventually("the invalidation arrives", || near.is_empty()).await;
        assert_eq!(near.get(&key).await.unwrap(), Some(10));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn get_many_is_one_round_trip_for_what_is_missing() {
    let server = server![];
    for key in 0..10 {
        server.set(key, key * key).await;
    }
    for tracking in both_modes() {
        let near = numbers(tracking).connect(server.url()).await.unwrap();
        assert_eq!(near.get(&3).await.unwrap(), Some(9));
        let values = near.get_many(&[3, 4, 99, 4, 5]).await.unwrap();
        assert_eq!(values, [Some(9), Some(16), None, Some(16), Some(25)]);
        let metrics = near.metrics();
        assert_eq!((metrics.round_trips, metrics.keys_fetched), (2, 4));
        assert_eq!(near.get_many(&[3, 4, 5, 99]).await.unwrap().len(), 4);
        assert_eq!(near.get_many(&[]).await.unwrap(), []);
        assert_eq!(near.metrics().round_trips, 2);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn callers_of_one_key_share_one_round_trip() {
    let server = server![];
    server.set(1, 10).await;
    let near = numbers(Tracking::PerKey).connect(server.url()).await.unwrap();
    server.stop();
    let calls: Vec<_> = (0..20)
        .map(|call| {
            let near = near.clone();
            tokio::spawn(async move {
                match call % 2 {
                    0 => near.get(&1).await.unwrap(),
                    _ => near.get_many(&[1]).await.unwrap()[0],
                }
            })
        })
        .collect();
    eventually("all have asked", || {
        let cache = near.metrics().cache;
        cache.misses + cache.coalesced >= 20
    })
    .await;
    server.resume();
    for call in calls {
        assert_eq!(call.await.unwrap(), Some(10));
    }
    assert_eq!(near.metrics().round_trips, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn caller_reads_its_own_writes() {
    let server = server![];
    for tracking in both_modes() {
        let near = numbers(tracking).connect(server.url()).await.unwrap();
        for value in 0..500 {
            near.set(&1, &value).await.unwrap();
            assert_eq!(near.get(&1).await.unwrap(), Some(value));
        }
        assert!(near.remove(&1).await.unwrap());
        assert_eq!(near.get(&1).await.unwrap(), None);
        assert!(!near.remove(&1).await.unwrap());
        near.set_with_ttl(&1, &7, Duration::from_secs(600)).await.unwrap();
        assert_eq!(near.get(&1).await.unwrap(), Some(7));
        assert!(server.command::<i64>(&["PTTL", &name(1)]).await > 0);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn key_outside_the_prefixes_is_an_error_at_once() {
    let server = server![];
    let near = numbers(Tracking::broadcast(["other:"])).connect(server.url()).await.unwrap();
    let outside = |error| matches!(error, Error::OutsidePrefixes(key) if key == "px:1");
    assert!(outside(near.get(&1).await.unwrap_err()));
    assert!(outside(near.get_many(&[1]).await.unwrap_err()));
    assert!(outside(near.set(&1, &1).await.unwrap_err()));
    assert!(outside(near.remove(&1).await.unwrap_err()));
    assert_eq!(near.metrics().round_trips, 0);
    // No prefixes are all keys.
    let near = numbers(Tracking::broadcast([""; 0])).connect(server.url()).await.unwrap();
    assert_eq!(near.get(&1).await.unwrap(), None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn codec_that_does_not_find_back_is_an_error_at_once() {
    struct Lossy;
    impl KeyCodec<u64> for Lossy {
        fn encode(&self, key: &u64) -> Vec<u8> {
            format!("px:{}", key % 10).into_bytes()
        }
        fn decode(&self, name: &[u8]) -> Option<u64> {
            Prefixed::new("px:").decode(name)
        }
    }
    let server = server![];
    let near = NearCache::<u64, u64>::builder(Lossy, Text)
        .tracking(Tracking::PerKey)
        .max_age(Duration::from_secs(1))
        .connect(server.url())
        .await
        .unwrap();
    assert_eq!(near.get(&7).await.unwrap(), None);
    assert!(matches!(near.get(&17).await, Err(Error::Key(key)) if key == "px:7"));
    assert!(matches!(near.set(&17, &1).await, Err(Error::Key(_))));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn value_that_cannot_be_decoded_is_an_error_and_is_not_kept() {
    let server = server![];
    server.command::<()>(&["SET", &name(1), "text"]).await;
    server.set(2, 20).await;
    let near = numbers(Tracking::PerKey).connect(server.url()).await.unwrap();
    let undecodable = |error| matches!(error, Error::Decode { key, .. } if key == "px:1");
    assert!(undecodable(near.get(&1).await.unwrap_err()));
    assert!(undecodable(near.get_many(&[1, 2]).await.unwrap_err()));
    // The other key's value is one.
    assert_eq!((near.peek(&2), near.len()), (Some(20), 1));
    server.set(1, 10).await;
    assert_eq!(near.get(&1).await.unwrap(), Some(10));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn key_of_another_type_is_an_error_of_the_server() {
    let server = server![];
    server.command::<()>(&["LPUSH", &name(1), "item"]).await;
    let near = numbers(Tracking::PerKey).connect(server.url()).await.unwrap();
    assert!(matches!(near.get(&1).await, Err(Error::Server(_))));
    assert_eq!(near.state().generation, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn values_may_be_shared() {
    let server = server![];
    let codec = cortado_near::Shared::<String, _>::new(Text);
    let near = NearCache::<String, Arc<String>>::builder(Prefixed::new("name:"), codec)
        .cache(Cache::builder().max_cost(1 << 20).cost_of(
            |key: &String, value: &Option<Arc<String>>| {
                (key.len() + value.as_ref().map_or(0, |value| value.len())) as u64
            },
        ))
        .tracking(Tracking::broadcast(["name:"]))
        .max_age(Duration::from_secs(60))
        .connect(server.url())
        .await
        .unwrap();
    let key = "seven".to_string();
    near.set(&key, &Arc::new("VII".to_string())).await.unwrap();
    let first = near.get(&key).await.unwrap().unwrap();
    // The second read may be one more round trip: the write's own invalidation may come between.
    let mut second = near.get(&key).await.unwrap().unwrap();
    while !Arc::ptr_eq(&second, &near.get(&key).await.unwrap().unwrap()) {
        second = near.get(&key).await.unwrap().unwrap();
    }
    assert_eq!((first.as_str(), second.as_str()), ("VII", "VII"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn server_without_resp3_is_refused() {
    let server = server!["--rename-command", "HELLO", ""];
    let error = numbers(Tracking::PerKey).connect(server.url()).await.unwrap_err();
    assert!(matches!(error, ConnectError::Resp3(_)), "{error:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refused_tracking_is_an_error() {
    let server = server![];
    server
        .command::<()>(&[
            "ACL",
            "SETUSER",
            "app",
            "on",
            ">secret",
            "~*",
            "+@all",
            "-client|tracking",
        ])
        .await;
    let url = server.url().replace("redis://", "redis://app:secret@");
    let error = numbers(Tracking::PerKey).connect(url).await.unwrap_err();
    assert!(matches!(error, ConnectError::TrackingRefused(_)), "{error:?}");
    let overlap = Tracking::broadcast(["px:", "px:1"]);
    let error = numbers(overlap).connect(server.url()).await.unwrap_err();
    assert!(matches!(error, ConnectError::TrackingRefused(_)), "{error:?}");
}

#[tokio::test]
async fn settings_that_are_missing_or_wrong_are_errors() {
    let builder = || NearCache::<u64, u64>::builder(Prefixed::new("px:"), Text);
    let second = Duration::from_secs(1);
    let none = "redis://127.0.0.1:1/";
    let error = builder().tracking(Tracking::PerKey).connect(none).await.unwrap_err();
    assert!(matches!(error, ConnectError::MaxAge));
    let error = builder().max_age(second).connect(none).await.unwrap_err();
    assert!(matches!(error, ConnectError::Tracking));
    let valid = || builder().tracking(Tracking::PerKey).max_age(second);
    let error = valid().ping(Duration::ZERO, second).connect(none).await.unwrap_err();
    assert!(matches!(error, ConnectError::ZeroTime));
    let error = valid().connect("http://127.0.0.1/").await.unwrap_err();
    assert!(matches!(error, ConnectError::Server(_)));
    let error = valid().connect(none).await.unwrap_err();
    assert!(matches!(error, ConnectError::Server(_)));
    let error = valid().cache(Cache::builder()).connect(none).await.unwrap_err();
    assert!(matches!(error, ConnectError::Cache(_)));
}
