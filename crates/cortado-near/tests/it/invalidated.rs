//! Loads that are invalidated by a push message or a new generation.

use cortado_near::{Doubt, Phase, Tracking};
use tokio::task::JoinHandle;

use crate::{
    server,
    support::{Mode, Numbers, Proxy, both_modes, eventually, numbers, state_that},
};

const HELD: Mode =
    Mode { delay: std::time::Duration::ZERO, hold: true, cut: false, hold_requests: false };

/// Begins to read key 1.
fn spawn_load(near: &Numbers, many: bool) -> JoinHandle<Option<u64>> {
    let near = near.clone();
    tokio::spawn(async move {
        match many {
            false => near.get(&1).await.unwrap(),
            true => near.get_many(&[1]).await.unwrap()[0],
        }
    })
}

#[tokio::test]
async fn load_that_is_invalidated_is_returned_and_not_kept() {
    let server = server![];
    for tracking in both_modes() {
        for many in [false, true] {
            server.set(1, 10).await;
            let proxy = Proxy::start(server.port()).await;
            let near = numbers(tracking.clone()).connect(proxy.url()).await.unwrap();
            let before = proxy.replies();
            proxy.set(HELD);
            let load = spawn_load(&near, many);
            // Both replies are on their way; then the value changes.
            proxy.has_replies(before + 2).await;
            server.set(1, 11).await;
            proxy.has_pushes(1).await;
            proxy.set(Mode::default());
            assert_eq!(load.await.unwrap(), Some(10));
            eventually("the invalidation has come", || near.metrics().invalidations > 0).await;
            assert_eq!(near.peek(&1), None);
            assert_eq!(near.get(&1).await.unwrap(), Some(11));
            assert_eq!(near.peek(&1), Some(11));
        }
    }
}

#[tokio::test]
async fn claim_precedes_the_fetch() {
    let server = server![];
    server.set(1, 10).await;
    for many in [false, true] {
        let proxy = Proxy::start(server.port()).await;
        let near = numbers(Tracking::broadcast(["px:"])).connect(proxy.url()).await.unwrap();
        proxy.set(Mode { hold_requests: true, ..Mode::default() });
        let load = spawn_load(&near, many);
        eventually("the request is on its way", || near.metrics().round_trips == 1).await;
        // The invalidation arrives before the server has even seen the request.
        server.set(1, 11).await;
        eventually("the invalidation has come", || near.metrics().invalidations == 1).await;
        proxy.set(Mode::default());
        // Because the key was claimed by then, it has invalidated the load.
        assert_eq!(load.await.unwrap(), Some(11));
        assert_eq!(near.peek(&1), None);
        assert_eq!(near.metrics().cache.loads_invalidated, 1);
        assert_eq!(near.get(&1).await.unwrap(), Some(11));
        assert_eq!(near.peek(&1), Some(11));
    }
}

#[tokio::test]
async fn load_of_an_older_generation_is_returned_and_not_kept() {
    let server = server![];
    for tracking in both_modes() {
        server.set(1, 10).await;
        let proxy = Proxy::start(server.port()).await;
        let near = numbers(tracking).connect(proxy.url()).await.unwrap();
        let before = proxy.replies();
        proxy.set(HELD);
        let load = spawn_load(&near, false);
        proxy.has_replies(before + 2).await;
        server.command::<()>(&["FLUSHALL"]).await;
        proxy.has_pushes(1).await;
        proxy.set(Mode::default());
        assert_eq!(load.await.unwrap(), Some(10));
        let state = state_that(&near, |state| state.generation == 1).await;
        assert_eq!((state.phase, state.doubt), (Phase::Connected, Some(Doubt::Flushed)));
        assert_eq!(near.peek(&1), None);
        assert_eq!(near.get(&1).await.unwrap(), None);
    }
}

#[tokio::test]
async fn load_whose_connection_is_lost_is_made_again_and_not_kept() {
    let server = server![];
    server.set(1, 10).await;
    let proxy = Proxy::start(server.port()).await;
    let near = numbers(Tracking::PerKey).connect(proxy.url()).await.unwrap();
    let before = proxy.replies();
    proxy.set(HELD);
    let load = spawn_load(&near, false);
    proxy.has_replies(before + 2).await;
    server.set(1, 11).await;
    proxy.close();
    proxy.set(Mode::default());
    // The replies may have left just before the connection was closed.
    let loaded = load.await.unwrap().unwrap();
    assert!([10, 11].contains(&loaded));
    let state =
        state_that(&near, |state| state.generation == 1 && state.phase == Phase::Connected).await;
    assert_eq!(state.doubt, Some(Doubt::Disconnected));
    assert_eq!(near.peek(&1), None);
    assert_eq!(near.get(&1).await.unwrap(), Some(11));
}
