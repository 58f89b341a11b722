//! What empties the cache: lost and half-open connections, flushes, restarts, failovers.

use std::time::{Duration, Instant};

use cortado_near::{Doubt, Error, Phase, Tracking};

use crate::{
    server,
    support::{Proxy, both_modes, eventually, name, numbers, reads, state_that},
};

const SLACK: Duration = Duration::from_secs(2);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_connection_empties_the_cache_and_is_replaced() {
    let server = server![];
    for (tracking, value) in both_modes().into_iter().zip([10, 20]) {
        server.set(1, value).await;
        let near = numbers(tracking).connect(server.url()).await.unwrap();
        assert_eq!(near.get(&1).await.unwrap(), Some(value));
        server.command::<()>(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]).await;
        let state = state_that(&near, |state| state.generation == 1).await;
        assert_eq!(state.doubt, Some(Doubt::Disconnected));
        assert_eq!(near.peek(&1), None);
        server.set(1, value + 1).await;
        // Waits for the next connection, which is tracked, too.
        assert_eq!(near.get(&1).await.unwrap(), Some(value + 1));
        // The write's own invalidation may have invalidated that load.
        while near.peek(&1).is_none() {
            assert_eq!(near.get(&1).await.unwrap(), Some(value + 1));
        }
        server.set(1, value + 2).await;
        eventually("the invalidation comes", || near.peek(&1).is_none()).await;
        assert_eq!(near.metrics().connections, 2);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn half_open_connection_is_given_up_after_ping_and_timeout() {
    let server = server![];
    server.set(1, 10).await;
    let (every, timeout) = (Duration::from_millis(100), Duration::from_millis(100));
    let near = numbers(Tracking::broadcast(["px:"]))
        .ping(every, timeout)
        .timeouts(Duration::from_millis(200), Duration::from_millis(200))
        .connect(server.url())
        .await
        .unwrap();
    assert_eq!(near.get(&1).await.unwrap(), Some(10));
    server.stop();
    let stopped = Instant::now();
    // A busy server may have been late with an earlier answer, too.
    let state = state_that(&near, |state| state.generation >= 1).await;
    assert!(stopped.elapsed() < every + timeout + SLACK, "{:?}", stopped.elapsed());
    assert_eq!(state.doubt, Some(Doubt::Unanswered));
    assert_eq!(near.peek(&1), None);
    state_that(&near, |state| state.phase == Phase::Down).await;
    assert!(matches!(near.get(&1).await, Err(Error::Down)));
    server.resume();
    state_that(&near, |state| state.phase == Phase::Connected).await;
    assert_eq!(near.get(&1).await.unwrap(), Some(10));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn server_that_restarts_with_other_data_is_believed() {
    let mut server = server![];
    for tracking in both_modes() {
        server.set(1, 10).await;
        server.set(2, 20).await;
        let near = numbers(tracking).connect(server.url()).await.unwrap();
        assert_eq!(near.get_many(&[1, 2]).await.unwrap(), [Some(10), Some(20)]);
        server.kill();
        state_that(&near, |state| state.generation == 1).await;
        assert!(near.is_empty());
        server.restart().await;
        server.set(1, 11).await;
        state_that(&near, |state| state.phase == Phase::Connected).await;
        assert_eq!(near.get_many(&[1, 2]).await.unwrap(), [Some(11), None]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn flush_empties_the_cache_and_keeps_the_connection() {
    let server = server![];
    for tracking in both_modes() {
        let near = numbers(tracking).connect(server.url()).await.unwrap();
        for (generation, flush) in [(1, "FLUSHALL"), (2, "FLUSHDB")] {
            server.set(1, 10).await;
            reads(&near, 1, Some(10)).await;
            server.command::<()>(&[flush]).await;
            let state = state_that(&near, |state| state.generation == generation).await;
            assert_eq!((state.phase, state.doubt), (Phase::Connected, Some(Doubt::Flushed)));
            assert_eq!(near.peek(&1), None);
            assert_eq!(near.get(&1).await.unwrap(), None);
        }
        assert_eq!(near.metrics().connections, 1);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_that_the_server_forgets_to_track_are_dropped() {
    const KEYS: u64 = 300;
    let server = server!["--tracking-table-max-keys", "20"];
    let near = numbers(Tracking::PerKey).connect(server.url()).await.unwrap();
    for key in 0..KEYS {
        server.set(key, 1).await;
        assert_eq!(near.get(&key).await.unwrap(), Some(1));
    }
    // The server drops what is too much in its timer; until then all are tracked.
    eventually("the server forgets", || near.len() <= 40).await;
    for key in 0..KEYS {
        server.set(key, 2).await;
    }
    let is_stale = |key: &u64| near.peek(key).is_some_and(|value| value != 2);
    eventually("all invalidations arrive", || !(0..KEYS).any(|key| is_stale(&key))).await;
    for key in 0..KEYS {
        assert_eq!(near.get(&key).await.unwrap(), Some(2));
    }
    assert_eq!(near.state().generation, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn write_that_a_replica_refuses_is_a_doubt() {
    let old = server![];
    let new = server![];
    old.set(1, 10).await;
    let near = numbers(Tracking::PerKey).connect(old.url()).await.unwrap();
    assert_eq!(near.get(&2).await.unwrap(), None);
    old.command::<()>(&["REPLICAOF", "127.0.0.1", &new.port().to_string()]).await;
    assert!(matches!(near.set(&2, &20).await, Err(Error::Server(_))));
    // The replacement of its data may come first.
    state_that(&near, |state| state.generation >= 1).await;
    assert_eq!(near.peek(&2), None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failover_to_a_replica_begins_a_new_generation() {
    let old = server![];
    let new = server![];
    for tracking in both_modes() {
        old.command::<()>(&["REPLICAOF", "NO", "ONE"]).await;
        old.set(1, 10).await;
        new.command::<()>(&["REPLICAOF", "127.0.0.1", &old.port().to_string()]).await;
        let replicated = async |value: u64| {
            while new.command::<Option<u64>>(&["GET", &name(1)]).await != Some(value) {}
        };
        replicated(10).await;
        // The address of the service, wherever that is.
        let service = Proxy::start(old.port()).await;
        let near = numbers(tracking).connect(service.url()).await.unwrap();
        assert_eq!(near.get(&1).await.unwrap(), Some(10));
        old.set(1, 11).await;
        replicated(11).await;
        new.command::<()>(&["REPLICAOF", "NO", "ONE"]).await;
        service.move_to(new.port());
        let state = state_that(&near, |state| state.generation == 1).await;
        assert_eq!(state.doubt, Some(Doubt::Disconnected));
        state_that(&near, |state| state.phase == Phase::Connected).await;
        near.set(&1, &12).await.unwrap();
        assert_eq!(near.get(&1).await.unwrap(), Some(12));
        assert_eq!(new.command::<u64>(&["GET", &name(1)]).await, 12);
        assert_eq!(old.command::<u64>(&["GET", &name(1)]).await, 11);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn server_that_becomes_a_replica_replaces_what_is_held() {
    let old = server![];
    let new = server![];
    for tracking in both_modes() {
        old.command::<()>(&["REPLICAOF", "NO", "ONE"]).await;
        old.set(1, 10).await;
        new.set(1, 11).await;
        let near = numbers(tracking).connect(old.url()).await.unwrap();
        assert_eq!(near.get(&1).await.unwrap(), Some(10));
        // The connection stays; the data are replaced beneath it.
        old.command::<()>(&["REPLICAOF", "127.0.0.1", &new.port().to_string()]).await;
        state_that(&near, |state| state.generation >= 1).await;
        reads(&near, 1, Some(11)).await;
        new.set(1, 12).await;
        eventually("the replica invalidates, too", || near.peek(&1).is_none()).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dropped_cache_closes_its_connection() {
    let server = server![];
    let near = numbers(Tracking::PerKey).connect(server.url()).await.unwrap();
    near.set(&1, &10).await.unwrap();
    drop(near);
    let end = Instant::now() + SLACK;
    // What is left is the connection that asks.
    while server.command::<String>(&["CLIENT", "LIST", "TYPE", "normal"]).await.lines().count() > 1
    {
        assert!(Instant::now() < end, "the connection stays open");
    }
}
