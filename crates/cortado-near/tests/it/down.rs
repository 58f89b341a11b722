//! What is answered while the server cannot be reached.

use std::time::Duration;

use cortado_near::{Down, Error, Phase, Tracking};

use crate::{
    server,
    support::{Numbers, Server, eventually, numbers, state_that},
};

async fn holds_one_key(server: &Server, down: Down) -> Numbers {
    server.set(1, 10).await;
    let near =
        numbers(Tracking::broadcast(["px:"])).while_down(down).connect(server.url()).await.unwrap();
    assert_eq!(near.get(&1).await.unwrap(), Some(10));
    assert_eq!(near.get(&2).await.unwrap(), None);
    near
}

async fn is_down(server: &mut Server, near: &Numbers) {
    server.kill();
    state_that(near, |state| state.phase == Phase::Down).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reads_and_writes_fail_at_once() {
    let mut server = server![];
    let near = holds_one_key(&server, Down::Fail).await;
    is_down(&mut server, &near).await;
    assert!(matches!(near.get(&1).await, Err(Error::Down)));
    assert!(matches!(near.get_many(&[1, 2]).await, Err(Error::Down)));
    assert!(matches!(near.set(&1, &11).await, Err(Error::Down)));
    assert!(matches!(near.remove(&1).await, Err(Error::Down)));
    assert_eq!(near.peek(&1), None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reads_miss() {
    let mut server = server![];
    let near = holds_one_key(&server, Down::Miss).await;
    is_down(&mut server, &near).await;
    assert_eq!(near.get(&1).await.unwrap(), None);
    assert_eq!(near.get_many(&[1, 2]).await.unwrap(), [None, None]);
    assert!(matches!(near.set(&1, &11).await, Err(Error::Down)));
    // The answer is not remembered.
    server.restart().await;
    server.set(1, 11).await;
    state_that(&near, |state| state.phase == Phase::Connected).await;
    assert_eq!(near.get(&1).await.unwrap(), Some(11));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reads_are_served_from_what_was_held() {
    let mut server = server![];
    let near = holds_one_key(&server, Down::ServeStale(Duration::from_secs(600))).await;
    is_down(&mut server, &near).await;
    assert_eq!(near.get(&1).await.unwrap(), Some(10));
    assert_eq!(near.get_many(&[1, 2]).await.unwrap(), [Some(10), None]);
    assert!(matches!(near.get(&3).await, Err(Error::Down)));
    assert!(matches!(near.get_many(&[1, 3]).await, Err(Error::Down)));
    assert_eq!(near.peek(&1), None);
    // Key 1 may have been answered once more, before the error of key 3.
    assert!([3, 4].contains(&near.metrics().stale_answers));
    // What this process has tried to write may be written.
    assert!(matches!(near.set(&1, &11).await, Err(Error::Down)));
    assert!(matches!(near.get(&1).await, Err(Error::Down)));
    server.restart().await;
    state_that(&near, |state| state.phase == Phase::Connected).await;
    assert_eq!(near.get(&1).await.unwrap(), None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stale_values_are_served_up_to_the_limit() {
    let mut server = server![];
    let limit = Duration::from_millis(300);
    let near = holds_one_key(&server, Down::ServeStale(limit)).await;
    is_down(&mut server, &near).await;
    let since = std::time::Instant::now();
    while near.get(&1).await.is_ok() {
        assert!(since.elapsed() < limit + Duration::from_secs(2));
    }
    assert!(matches!(near.get(&1).await, Err(Error::Down)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn flushed_values_are_not_served() {
    let mut server = server![];
    let near = holds_one_key(&server, Down::ServeStale(Duration::from_secs(600))).await;
    server.command::<()>(&["FLUSHALL"]).await;
    eventually("the flush arrives", || near.state().generation == 1).await;
    is_down(&mut server, &near).await;
    assert!(matches!(near.get(&1).await, Err(Error::Down)));
}
