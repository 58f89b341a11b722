//! What a near cache saves: a hit in memory against a round trip to a server on the same machine.
//!
//! `cargo run --release -p cortado-near --example round_trip [URL]`

#[path = "support/mod.rs"]
mod support;

use std::{
    error::Error,
    time::{Duration, Instant},
};

use cortado_near::{Json, NearCache, Prefixed, Tracking};

const KEYS: u64 = 100;
const ROUNDS: usize = 5;
const HITS: u64 = 200_000;
const ROUND_TRIPS: u64 = 10_000;

/// Runs something in some rounds, and prints the median time of one call, and the spread.
async fn measure(what: &str, calls: u64, mut run: impl AsyncFnMut(u64)) {
    let mut times = Vec::new();
    for _ in 0..ROUNDS {
        let began = Instant::now();
        for call in 0..calls {
            run(call).await;
        }
        times.push(began.elapsed().as_secs_f64() * 1e6 / calls as f64);
    }
    times.sort_by(f64::total_cmp);
    let [least, .., most] = times[..] else { return };
    println!("{what:44} {:9.3} µs ({least:.3} to {most:.3})", times[ROUNDS / 2]);
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let (_server, url) = match std::env::args().nth(1) {
        Some(url) => (None, url),
        None => match support::Server::start()? {
            Some(server) => {
                let url = server.url.clone();
                (Some(server), url)
            }
            None => return Ok(()),
        },
    };
    let value: Vec<f64> = (0..8).map(|n| f64::from(n) * 1.01).collect();
    let near = NearCache::<u64, Vec<f64>>::builder(Prefixed::new("bars:"), Json)
        .tracking(Tracking::PerKey)
        .max_age(Duration::from_secs(600))
        .connect(url.as_str())
        .await?;
    for key in 0..KEYS {
        near.set(&key, &value).await?;
    }
    let keys: Vec<u64> = (0..KEYS).collect();
    // Until the invalidations of these writes have come.
    while near.len() < KEYS as usize {
        near.get_many(&keys).await?;
    }

    let mut direct = redis::Client::open(url.as_str())?.get_multiplexed_async_connection().await?;
    measure("GET, decoded", ROUND_TRIPS, async |call| {
        let mut get = redis::cmd("GET");
        get.arg(format!("bars:{}", call % KEYS));
        let bytes: Vec<u8> = get.query_async(&mut direct).await.expect("the server answers");
        let value: Vec<f64> = serde_json::from_slice(&bytes).expect("it is a value");
        assert_eq!(value.len(), 8);
    })
    .await;
    measure("near.get, held", HITS, async |call| {
        let value = near.get(&(call % KEYS)).await.expect("it is held");
        assert!(value.is_some());
    })
    .await;
    measure("near.peek, held", HITS, async |call| {
        assert!(near.peek(&(call % KEYS)).is_some());
    })
    .await;
    measure("MGET of 100 keys, decoded", ROUND_TRIPS / 20, async |_| {
        let mut get = redis::cmd("MGET");
        get.arg(keys.iter().map(|key| format!("bars:{key}")).collect::<Vec<_>>());
        let all: Vec<Vec<u8>> = get.query_async(&mut direct).await.expect("the server answers");
        for bytes in all {
            let value: Vec<f64> = serde_json::from_slice(&bytes).expect("it is a value");
            assert_eq!(value.len(), 8);
        }
    })
    .await;
    measure("near.get_many of 100 keys, held", HITS / 200, async |_| {
        assert_eq!(near.get_many(&keys).await.expect("they are held").len(), 100);
    })
    .await;
    Ok(())
}
