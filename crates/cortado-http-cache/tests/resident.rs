//! The memory that a full cache takes of the system, against its budget. A process of its own,
//! because the resident memory of the process is measured.

use cortado::Cache;
use cortado_http_cache::CortadoManager;
use http_cache::{CacheManager, HttpResponse, HttpVersion};
use http_cache_semantics::CachePolicy;

const BUDGET: u64 = 64 << 20;

/// Returns the resident memory of this process in bytes, where the system reports it.
fn resident() -> Option<u64> {
    let statm = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = statm.split(' ').nth(1)?.parse().ok()?;
    Some(pages * 4096)
}

/// Makes a response with eight headers, as a small API sends it.
fn response(url: &str, bytes: usize) -> HttpResponse {
    let headers = [
        ("cache-control", "max-age=3600"),
        ("content-length", "512"),
        ("content-type", "application/json; charset=utf-8"),
        ("date", "Tue, 01 Dec 2026 10:07:24 GMT"),
        ("etag", "\"0123456789abcdef\""),
        ("server", "nginx"),
        ("vary", "accept-encoding"),
        ("x-request-id", "7f1c9f4e-3d2b-4a53-9d55-8c8a3a1f0c11"),
    ];
    HttpResponse {
        body: vec![b'x'; bytes],
        headers: headers.map(|(name, value)| (name.to_string(), value.to_string())).into(),
        status: 200,
        url: url.parse().unwrap(),
        version: HttpVersion::Http11,
    }
}

#[tokio::test]
async fn small_responses_take_about_as_much_memory_as_they_cost() {
    let cache = Cache::builder().max_cost(BUDGET).build().unwrap();
    let manager = CortadoManager::with_cache(cache);
    let Some(before) = resident() else { return };
    let mut put = 0;
    while put < 3 * BUDGET {
        let url = format!("http://example.org/{put}");
        let response = response(&url, 512);
        let request = http::Request::get(&url).header("accept", "*/*").body(()).unwrap();
        let policy = CachePolicy::new(&request, &response.parts().unwrap());
        let key = format!("GET:{url}");
        manager.put(key.clone(), response, policy).await.unwrap();
        put += manager.cache().peek(&key).map_or(4096, |entry| entry.cost());
    }
    let cost = manager.cache().cost();
    assert!((BUDGET * 9 / 10..=BUDGET).contains(&cost), "{cost}");
    let taken = resident().unwrap_or(0).saturating_sub(before);
    println!("{} responses cost {cost} bytes and take {taken}", manager.cache().len());
    // What the allocator cannot reuse at once, and the table, come on top.
    assert!((cost * 3 / 4..cost * 5 / 4).contains(&taken), "{taken} bytes taken, {cost} charged");
}
