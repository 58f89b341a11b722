//! Tasks that read, write and clear at the same time.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{SystemTime, UNIX_EPOCH},
};

use cortado_http_cache::CortadoManager;
use http::Method;
use http_cache_reqwest::CacheMode;
use tokio::task::JoinSet;

use crate::support::{Client, Origin, ok};

const TASKS: u64 = 8;
const REQUESTS: u64 = 400;
const URLS: u64 = 48;
/// A third of what all responses take.
const BUDGET: u64 = 64 << 10;

fn random(state: &mut u64) -> u64 {
    // xorshift64
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}

/// Returns the body of a version: the longer, the higher the number of the URL.
fn body(url: u64, version: u64) -> String {
    format!("{url} {version} {}", "x".repeat(url as usize * 64))
}

/// Returns the version that a body has, after it was compared with what was sent.
fn version(url: u64, received: &str) -> u64 {
    let version = received.split(' ').nth(1).unwrap().parse().unwrap();
    assert_eq!(received, body(url, version));
    version
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn eight_tasks_get_whole_responses_within_the_budget() {
    let seed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64 | 1;
    println!("seed {seed}");

    let versions: Arc<Vec<AtomicU64>> = Arc::new((0..URLS).map(|_| AtomicU64::new(0)).collect());
    let held = Arc::clone(&versions);
    let origin = Origin::start(move |request| {
        let url: u64 = request.path[1..].parse().unwrap();
        let version = &held[url as usize];
        let version = match request.method {
            Method::POST => version.fetch_add(1, Relaxed) + 1,
            _ => version.load(Relaxed),
        };
        let control = if url % 5 == 4 { "max-age=0" } else { "max-age=3600" };
        async move { ok(control, body(url, version)) }
    })
    .await;
    let origin = Arc::new(origin);
    let manager = CortadoManager::new(BUDGET).unwrap();
    let client = Client::new(&manager);

    let mut tasks = JoinSet::new();
    for task in 0..TASKS {
        let (client, manager) = (client.clone(), manager.clone());
        let (origin, versions) = (Arc::clone(&origin), Arc::clone(&versions));
        tasks.spawn(async move {
            let mut state = seed.wrapping_mul(2 * task + 1);
            let mut hits = 0u64;
            for _ in 0..REQUESTS {
                let url = random(&mut state) % URLS;
                let address = origin.url(&format!("/{url}"));
                let method = match random(&mut state) % 32 {
                    0 => Method::POST,
                    _ => Method::GET,
                };
                let answer = client.send(method, address, &[], CacheMode::Default).await;
                let latest = versions[url as usize].load(Relaxed);
                assert_eq!(answer.status, 200);
                assert!(version(url, &answer.body) <= latest, "seed {seed}");
                hits += u64::from(answer.is_hit);
                let cost = manager.cache().cost();
                assert!(cost <= BUDGET, "{cost} bytes, seed {seed}");
                if random(&mut state).is_multiple_of(200) {
                    manager.clear();
                }
            }
            hits
        });
    }
    let hits: u64 = tasks.join_all().await.into_iter().sum();
    let requests = origin.requests() as u64;
    println!("{hits} hits, {requests} requests of the server");
    assert_eq!(hits + requests, TASKS * REQUESTS, "seed {seed}");
    assert!(hits > 0, "seed {seed}");

    // At rest, a write is followed by what it wrote.
    for url in 0..URLS {
        let address = origin.url(&format!("/{url}"));
        client.send(Method::POST, address.clone(), &[], CacheMode::Default).await;
        let answer = client.get(address).await;
        assert_eq!(version(url, &answer.body), versions[url as usize].load(Relaxed), "seed {seed}");
    }
    manager.clear();
    assert_eq!(manager.cache().cost(), 0);
}
