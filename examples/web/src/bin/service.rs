//! A web service behind a cache: async loads from a slow backend, one for all requests of a key,
//! with a time to live, an error that waiting requests share, and metrics for Prometheus.
//!
//! `cargo run -p cortado-web-examples` serves on a free port of 127.0.0.1. With `-- --self-test` it
//! sends requests to itself, checks the responses and ends; so does `cargo test -p
//! cortado-web-examples`.

use std::{
    error::Error,
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use axum::{
    Router,
    extract::{Path, State},
    http::{StatusCode, header},
    response::IntoResponse,
    routing::get,
};
use cortado::{
    Cache, Clock, InsertOptions, ManualClock, SystemClock, integrations::metrics::Exporter,
};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::RwLock,
    task::JoinSet,
};

/// Users are loaded again after this time.
const USER_TTL: Duration = Duration::from_secs(60);
/// The absence of a user is cached for a shorter time.
const ABSENT_TTL: Duration = Duration::from_secs(5);
/// Requests that the self-test sends at once.
const HERD: u64 = 50;

/// The users by number; `None` is a user that does not exist. A value is cloned for each request:
/// an `Arc` makes that cheap.
type Users = Cache<u32, Option<Arc<str>>>;

#[derive(Clone)]
struct Service {
    users: Users,
    backend: Arc<Backend>,
    exporter: Arc<Exporter<u32, Option<Arc<str>>>>,
    prometheus: PrometheusHandle,
}

impl Service {
    /// Creates a service. Installs the recorder of the `metrics` crate, which a process has once.
    fn new(clock: impl Clock) -> Result<Self, Box<dyn Error>> {
        let prometheus = PrometheusBuilder::new().install_recorder()?;
        let users =
            Cache::builder().max_cost(10_000).name("users").metrics(true).clock(clock).build()?;
        // Takes its counters and gauges from the recorder, which is installed by now.
        let exporter = Arc::new(Exporter::new(users.clone()));
        Ok(Self { users, backend: Arc::default(), exporter, prometheus })
    }

    fn router(self) -> Router {
        Router::new()
            .route("/users/{id}", get(user))
            .route("/metrics", get(metrics))
            .with_state(self)
    }
}

/// Of all requests for a user that is not cached, one queries the backend. The others wait, and
/// share what it gets, an error too: when the backend is down, they do not time out one by one.
async fn user(State(service): State<Service>, Path(id): Path<u32>) -> impl IntoResponse {
    let load = async {
        let user = service.backend.query(id).await?;
        let ttl = if user.is_some() { USER_TTL } else { ABSENT_TTL };
        Ok::<_, io::Error>((user, InsertOptions::new().ttl(ttl)))
    };
    match service.users.entry(id).or_try_load_shared_async(load).await {
        Ok(Some(name)) => (StatusCode::OK, name.to_string()),
        Ok(None) => (StatusCode::NOT_FOUND, format!("there is no user {id}")),
        Err(error) => (StatusCode::SERVICE_UNAVAILABLE, format!("backend: {error}")),
    }
}

async fn metrics(State(service): State<Service>) -> impl IntoResponse {
    service.exporter.publish();
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], service.prometheus.render())
}

/// A stand-in for a database, which answers after 10 ms.
#[derive(Default)]
struct Backend {
    queries: AtomicU64,
    is_down: AtomicBool,
    /// While it is locked, no query is answered.
    stall: RwLock<()>,
}

impl Backend {
    /// Returns a user, if there is one.
    async fn query(&self, id: u32) -> Result<Option<Arc<str>>, io::Error> {
        self.queries.fetch_add(1, Relaxed);
        let _answering = self.stall.read().await;
        tokio::time::sleep(Duration::from_millis(10)).await;
        if self.is_down.load(Relaxed) {
            return Err(io::ErrorKind::ConnectionRefused.into());
        }
        Ok((id < 1_000).then(|| format!("user {id}").into()))
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    if std::env::args().any(|argument| argument == "--self-test") {
        return self_test().await;
    }
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    println!("http://{address}/users/7\nhttp://{address}/metrics");
    Ok(axum::serve(listener, Service::new(SystemClock::new())?.router()).await?)
}

/// Serves on a free port, and checks what clients get.
async fn self_test() -> Result<(), Box<dyn Error>> {
    let clock = ManualClock::new();
    let service = Service::new(clock.clone())?;
    let backend = Arc::clone(&service.backend);
    let queries = || backend.queries.load(Relaxed);
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let server = axum::serve(listener, service.clone().router());
    let server = tokio::spawn(server.into_future());

    let responses = herd(&service, address, 7).await?;
    assert!(responses.iter().all(|response| *response == (200, "user 7".into())));
    assert_eq!(queries(), 1, "one query answers {HERD} requests");
    assert_eq!(request(address, "/users/7").await?, (200, "user 7".into()));
    assert_eq!(queries(), 1, "a hit");

    // From its deadline on a user is a miss. One that does not exist has an earlier deadline.
    assert_eq!(request(address, "/users/1000").await?.0, 404);
    assert_eq!(request(address, "/users/1000").await?.0, 404);
    assert_eq!(queries(), 2);
    clock.advance(ABSENT_TTL);
    assert_eq!(request(address, "/users/1000").await?.0, 404);
    assert_eq!(request(address, "/users/7").await?.0, 200);
    assert_eq!(queries(), 3, "user 7 is cached, user 1000 is not");
    clock.advance(USER_TTL);
    assert_eq!(request(address, "/users/7").await?.0, 200);
    assert_eq!(queries(), 4);

    // An error is shared with the requests that wait, and is not cached.
    backend.is_down.store(true, Relaxed);
    let responses = herd(&service, address, 8).await?;
    assert!(responses.iter().all(|response| response.0 == 503));
    assert_eq!(queries(), 5, "one query fails for {HERD} requests");
    backend.is_down.store(false, Relaxed);
    assert_eq!(request(address, "/users/8").await?, (200, "user 8".into()));
    assert_eq!(queries(), 6);

    // Expired entries are removed and counted before the figures are read.
    service.users.flush();
    let (status, text) = request(address, "/metrics").await?;
    assert_eq!(status, 200);
    let expected = [
        ("cortado_hits_total", 3),
        ("cortado_misses_total", queries()),
        ("cortado_coalesced_total", 2 * (HERD - 1)),
        ("cortado_loads_total", queries() - 1),
        ("cortado_load_failures_total", 1),
        ("cortado_expirations_total", 3),
        ("cortado_entries", 2),
    ];
    for (name, value) in expected {
        let line = format!("{name}{{cache=\"users\"}} {value}");
        assert!(text.lines().any(|other| other == line), "{line} is not in {text}");
        println!("{line}");
    }

    server.abort();
    Ok(())
}

/// Requests one user many times at once, and lets the backend answer when one request loads and
/// all others wait for it.
async fn herd(
    service: &Service,
    address: SocketAddr,
    id: u32,
) -> Result<Vec<(u16, String)>, Box<dyn Error>> {
    let stalled = service.backend.stall.write().await;
    let before = service.users.metrics().coalesced;
    let mut requests = JoinSet::new();
    for _ in 0..HERD {
        requests.spawn(async move { request(address, &format!("/users/{id}")).await });
    }
    while service.users.metrics().coalesced - before < HERD - 1 {
        tokio::task::yield_now().await;
    }
    drop(stalled);
    let responses: io::Result<Vec<_>> = requests.join_all().await.into_iter().collect();
    Ok(responses?)
}

/// Makes a request, and returns the status and the body of the response.
async fn request(address: SocketAddr, path: &str) -> io::Result<(u16, String)> {
    let mut stream = TcpStream::connect(address).await?;
    let head = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).await?;
    let mut response = String::new();
    stream.read_to_string(&mut response).await?;
    let parts = response.split_once("\r\n\r\n").and_then(|(head, body)| {
        let status = head.split(' ').nth(1)?.parse().ok()?;
        Some((status, body.to_owned()))
    });
    parts.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, response))
}

#[tokio::test]
async fn service_passes_its_self_test() -> Result<(), Box<dyn Error>> {
    self_test().await
}
