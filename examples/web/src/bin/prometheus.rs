//! A cache monitored by Prometheus: `/metrics` in the text format.
//!
//! `cargo run -p cortado-web-examples --bin prometheus` serves it on a free port of 127.0.0.1;
//! `cargo test -p cortado-web-examples` makes one request and checks the response.

use axum::{Router, extract::State, http::header, response::IntoResponse, routing::get};
use cortado::Cache;
use tokio::net::TcpListener;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let cache = Cache::builder().max_cost(1000).metrics(true).build()?;
    assert!(cache.insert(1, "one".to_string()).is_in());
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("http://{}/metrics", listener.local_addr()?);
    Ok(axum::serve(listener, app(cache)).await?)
}

fn app(cache: Cache<u32, String>) -> Router {
    Router::new().route("/metrics", get(metrics)).with_state(cache)
}

async fn metrics(State(cache): State<Cache<u32, String>>) -> impl IntoResponse {
    let (metrics, memory) = (cache.metrics(), cache.memory());
    let bytes = memory.table + memory.entries + memory.sketch + memory.buffers + memory.deadlines;
    let rows = [
        ("hits_total", "counter", metrics.hits),
        ("misses_total", "counter", metrics.misses),
        ("inserts_total", "counter", metrics.inserts),
        ("updates_total", "counter", metrics.updates),
        ("rejected_total", "counter", metrics.rejected()),
        ("evictions_total", "counter", metrics.evictions),
        ("expirations_total", "counter", metrics.expirations),
        ("entries", "gauge", cache.len() as u64),
        ("cost", "gauge", cache.cost()),
        ("max_cost", "gauge", cache.max_cost()),
        ("memory_bytes", "gauge", bytes as u64),
        ("garbage_cost", "gauge", memory.garbage),
    ];
    let text: String = rows
        .map(|(name, kind, value)| format!("# TYPE cache_{name} {kind}\ncache_{name} {value}\n"))
        .concat();
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text)
}

#[tokio::test]
async fn one_request_brings_all_figures() {
    let cache = Cache::builder().max_cost(1000).metrics(true).build().unwrap();
    assert!(cache.insert(1, "one".to_string()).is_in());
    assert!(cache.get(&1).is_some() && cache.get(&2).is_none());
    let answer = cortado_web_examples::request(app(cache), "/metrics").await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    for line in ["cache_hits_total 1", "cache_misses_total 1", "cache_entries 1", "cache_cost 1"] {
        assert!(answer.lines().any(|other| other == line), "{line} is not in {answer}");
    }
}
