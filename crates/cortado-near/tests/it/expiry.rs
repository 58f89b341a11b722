//! How long a value is held: by the server's time to live, by `max_age`, by the server's own
//! expiration.

use std::time::{Duration, Instant};

use cortado_near::Tracking;

use crate::{
    server,
    support::{Mode, Proxy, both_modes, eventually, name, numbers, reads},
};

/// What a busy machine may add to a time.
const SLACK: Duration = Duration::from_secs(2);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn entry_lives_no_longer_than_on_the_server() {
    let server = server![];
    let proxy = Proxy::start(server.port()).await;
    let near = numbers(Tracking::PerKey).connect(proxy.url()).await.unwrap();
    // No invalidation tells of the expiration.
    proxy.set(Mode { cut: true, ..Mode::default() });
    let ttl = Duration::from_millis(300);
    for many in [false, true] {
        let written = Instant::now();
        server.command::<()>(&["SET", &name(1), "10", "PX", "300"]).await;
        match many {
            false => assert_eq!(near.get(&1).await.unwrap(), Some(10)),
            true => assert_eq!(near.get_many(&[1]).await.unwrap(), [Some(10)]),
        }
        let until = Instant::now() + ttl;
        eventually("it expires", || {
            let now = Instant::now();
            let is_held = near.peek(&1).is_some();
            assert!(!is_held || now < until, "held {:?} after it was written", written.elapsed());
            !is_held
        })
        .await;
        assert_eq!(near.state().generation, 0);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn time_to_live_is_counted_from_sending() {
    let server = server![];
    let proxy = Proxy::start(server.port()).await;
    let near = numbers(Tracking::PerKey)
        .max_age(Duration::from_millis(300))
        .connect(proxy.url())
        .await
        .unwrap();
    server.set(1, 10).await;
    proxy.set(Mode { delay: Duration::from_millis(400), ..Mode::default() });
    // When the reply arrives, it is older than it may become.
    assert_eq!(near.get(&1).await.unwrap(), Some(10));
    assert_eq!(near.peek(&1), None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn max_age_bounds_staleness_where_invalidations_are_lost() {
    let server = server![];
    let max_age = Duration::from_millis(300);
    for tracking in both_modes() {
        let proxy = Proxy::start(server.port()).await;
        let near = numbers(tracking).max_age(max_age).connect(proxy.url()).await.unwrap();
        proxy.set(Mode { cut: true, ..Mode::default() });
        server.set(1, 10).await;
        assert_eq!(near.get(&1).await.unwrap(), Some(10));
        server.set(1, 11).await;
        let written = Instant::now();
        proxy.has_pushes(1).await;
        // The invalidation has been lost: the old value is served for a while, and no longer.
        while near.get(&1).await.unwrap() == Some(10) {
            assert!(written.elapsed() < max_age + SLACK);
        }
        assert_eq!(near.get(&1).await.unwrap(), Some(11));
        assert_eq!(near.state().generation, 0);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn expiration_on_the_server_invalidates() {
    let server = server![];
    for (tracking, key) in both_modes().into_iter().zip([1, 2]) {
        let near = numbers(tracking).connect(server.url()).await.unwrap();
        server.set(key, 10).await;
        assert_eq!(near.get(&key).await.unwrap(), Some(10));
        eventually("the first write's invalidation has come", || {
            near.metrics().invalidations >= u64::from(key == 1)
        })
        .await;
        let before = near.metrics().invalidations;
        // The entry that is held by now knows of no time to live.
        let _ = near.get(&key).await.unwrap();
        server.command::<()>(&["PEXPIRE", &name(key), "50"]).await;
        eventually("PEXPIRE invalidates", || near.metrics().invalidations > before).await;
        assert!(near.get(&key).await.unwrap().is_none_or(|value| value == 10));
        eventually("the key expires", || near.peek(&key).is_none()).await;
        reads(&near, key, None).await;
        assert_eq!(near.state().generation, 0);
    }
}
