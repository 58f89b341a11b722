//! Writers against readers: versions never go back for a caller, and at rest nothing is stale.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use cortado_near::{Error, Phase, Tracking};
use tokio::task::JoinSet;

use crate::{
    server,
    support::{Mode, Numbers, Proxy, Server, both_modes, eventually, name, numbers, state_that},
};

const KEYS: u64 = 50;
const READERS: u64 = 16;
const WRITERS: u64 = 4;
const WRITES: u64 = 18_000;
/// Keys that callers of the near cache write, each its own.
const OWN: std::ops::Range<u64> = 1_000..1_004;
/// The key that is written last.
const BARRIER: u64 = 2_000;

fn random(state: &mut u64) -> u64 {
    // xorshift64
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}

/// Reads until told to stop; fails if a version is older than one that this caller has seen.
async fn reader(near: Numbers, seed: u64, stop: Arc<AtomicBool>, reads: Arc<AtomicU64>) {
    let mut state = seed;
    let mut seen = HashMap::<u64, u64>::new();
    let mut see = |key: u64, value: Option<u64>| {
        let value = value.unwrap_or(0);
        let last = seen.entry(key).or_default();
        assert!(value >= *last, "key {key}: version {value} after {last}, seed {seed}");
        *last = value;
    };
    while !stop.load(Relaxed) {
        let key = random(&mut state) % KEYS;
        match random(&mut state) % 4 {
            0 => {
                let keys = [key, (key + 1) % KEYS, OWN.start + key % 4];
                match near.get_many(&keys).await {
                    Ok(values) => keys.into_iter().zip(values).for_each(|(k, v)| see(k, v)),
                    Err(Error::Server(_) | Error::Down) => {}
                    Err(error) => panic!("{error}"),
                }
            }
            _ => match near.get(&key).await {
                Ok(value) => see(key, value),
                Err(Error::Server(_) | Error::Down) => {}
                Err(error) => panic!("{error}"),
            },
        }
        reads.fetch_add(1, Relaxed);
        tokio::task::yield_now().await;
    }
}

/// Writes its own key; fails if it reads something older than its last acknowledged write.
async fn own_writer(near: Numbers, key: u64, stop: Arc<AtomicBool>) -> u64 {
    let mut acknowledged = 0;
    let mut version = 0;
    while !stop.load(Relaxed) {
        version += 1;
        if near.set(&key, &version).await.is_ok() {
            acknowledged = version;
        }
        if let Ok(value) = near.get(&key).await {
            let value = value.unwrap_or(0);
            assert!(value >= acknowledged, "key {key}: {value} after writing {acknowledged}");
        }
        tokio::task::yield_now().await;
    }
    acknowledged
}

/// Increments keys past the near cache, so often and for as long as readers are disturbed.
async fn writer(server: Arc<Server>, seed: u64, writes: u64, disturbed: Arc<AtomicBool>) {
    let mut connection = server.direct().await;
    let mut state = seed;
    let mut written = 0;
    while written < writes || disturbed.load(Relaxed) {
        written += 1;
        let key = name(random(&mut state) % KEYS);
        redis::cmd("INCR").arg(key).query_async::<u64>(&mut connection).await.unwrap();
    }
}

/// Compares what is held with what the server has; returns how many entries are stale.
async fn stale(near: &Numbers, server: &Server) -> usize {
    let mut count = 0;
    for key in (0..KEYS).chain(OWN) {
        let truth = server.command::<Option<u64>>(&["GET", &name(key)]).await;
        count += usize::from(near.peek(&key).is_some_and(|held| Some(held) != truth));
    }
    count
}

/// Runs writers against readers, and something that disturbs them; then counts what is stale.
async fn run(
    near: Numbers,
    server: Arc<Server>,
    writes: u64,
    disturb: impl Future<Output = ()>,
) -> usize {
    server.set(BARRIER, 1).await;
    let stop = Arc::new(AtomicBool::new(false));
    let disturbed = Arc::new(AtomicBool::new(true));
    let reads = Arc::new(AtomicU64::new(0));
    let (mut readers, mut writers, mut own) = (JoinSet::new(), JoinSet::new(), JoinSet::new());
    for seed in 1..=READERS {
        readers.spawn(reader(near.clone(), seed, stop.clone(), reads.clone()));
    }
    for key in OWN {
        own.spawn(own_writer(near.clone(), key, stop.clone()));
    }
    for seed in 1..=WRITERS {
        let writes = writes / WRITERS;
        writers.spawn(writer(server.clone(), 1_000 + seed, writes, disturbed.clone()));
    }
    let all_written = async { while writers.join_next().await.transpose().unwrap().is_some() {} };
    let all_disturbed = async {
        disturb.await;
        disturbed.store(false, Relaxed);
    };
    tokio::join!(all_written, all_disturbed);
    stop.store(true, Relaxed);
    while own.join_next().await.transpose().unwrap().is_some() {}
    while readers.join_next().await.transpose().unwrap().is_some() {}
    // At rest: when the invalidation of a last write has arrived, those of all others have.
    state_that(&near, |state| state.phase == Phase::Connected).await;
    while near.peek(&BARRIER) != Some(1) {
        assert_eq!(near.get(&BARRIER).await.unwrap(), Some(1));
    }
    server.set(BARRIER, 2).await;
    eventually("the last invalidation arrives", || near.peek(&BARRIER).is_none()).await;
    let stale = stale(&near, &server).await;
    let metrics = near.metrics();
    println!(
        "{} reads, {} round trips, {} invalidations, {} loads invalidated, {} generations, {} held, \
         {stale} stale",
        reads.load(Relaxed),
        metrics.round_trips,
        metrics.invalidations,
        metrics.cache.loads_invalidated,
        near.state().generation,
        near.len(),
    );
    stale
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nothing_is_stale_at_rest_and_versions_do_not_go_back() {
    for tracking in both_modes() {
        println!("{tracking:?}");
        let server = Arc::new(server![]);
        let near = numbers(tracking).connect(server.url()).await.unwrap();
        assert_eq!(run(near.clone(), server.clone(), WRITES, async {}).await, 0);
        let state = near.state();
        assert_eq!(state.generation, 0, "{state:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn delayed_and_cut_connections_leave_nothing_stale() {
    for tracking in both_modes() {
        println!("{tracking:?}");
        let server = Arc::new(server![]);
        let proxy = Proxy::start(server.port()).await;
        let near = numbers(tracking).connect(proxy.url()).await.unwrap();
        let disturb = async {
            let mut state = 7;
            for round in 0..20 {
                let delay = Duration::from_millis(random(&mut state) % 8);
                proxy.set(Mode { delay, ..Mode::default() });
                let before = near.metrics().invalidations;
                eventually("invalidations", || near.metrics().invalidations > before).await;
                if round % 3 == 0 {
                    let generation = near.state().generation;
                    proxy.close();
                    state_that(&near, |state| state.generation > generation).await;
                    state_that(&near, |state| state.phase == Phase::Connected).await;
                }
            }
            proxy.set(Mode::default());
        };
        assert_eq!(run(near.clone(), server.clone(), WRITES / 2, disturb).await, 0);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn two_processes_over_connections_of_different_delay_agree_at_rest() {
    let server = Arc::new(server![]);
    let (slow, fast) = (Proxy::start(server.port()).await, Proxy::start(server.port()).await);
    let broadcast = || Tracking::broadcast(["px:"]);
    let one = numbers(broadcast()).connect(slow.url()).await.unwrap();
    let other = numbers(Tracking::PerKey).connect(fast.url()).await.unwrap();
    slow.set(Mode { delay: Duration::from_millis(20), ..Mode::default() });
    server.set(1, 0).await;
    for version in 1..=50 {
        let (writer, reader) = if version % 2 == 0 { (&one, &other) } else { (&other, &one) };
        let _ = reader.get(&1).await.unwrap();
        writer.set(&1, &version).await.unwrap();
        assert_eq!(writer.get(&1).await.unwrap(), Some(version));
        eventually("the other one learns of it", || {
            reader.peek(&1).is_none_or(|held| held == version)
        })
        .await;
        assert_eq!(reader.get(&1).await.unwrap(), Some(version));
    }
}
