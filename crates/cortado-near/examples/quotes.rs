//! Quotes over HTTP from two processes in front of one Redis or Valkey server.
//!
//! `quotes` starts a server and two processes of itself, and asks them. `quotes serve PORT URL` is
//! one of these: `GET /quotes/EURUSD` returns a price, `PUT` sets one, `GET /state` tells how the
//! near cache is.

#[path = "support/mod.rs"]
mod support;

use std::{
    error::Error,
    io::{Read, Write},
    net::TcpStream,
    process::{Child, Command},
    time::{Duration, Instant},
};

use axum::{
    Router,
    extract::{Path, State},
    http::StatusCode,
    routing::get,
};
use cortado::Cache;
use cortado_near::{Down, Json, NearCache, Prefixed, Tracking};

type Quotes = NearCache<String, f64>;
type Failure = (StatusCode, String);

fn unavailable(error: cortado_near::Error) -> Failure {
    (StatusCode::SERVICE_UNAVAILABLE, error.to_string())
}

async fn quote(
    State(quotes): State<Quotes>,
    Path(symbol): Path<String>,
) -> Result<String, Failure> {
    let price = quotes.get(&symbol).await.map_err(unavailable)?;
    price.map(|price| price.to_string()).ok_or((StatusCode::NOT_FOUND, "no such symbol".into()))
}

async fn set_quote(
    State(quotes): State<Quotes>,
    Path(symbol): Path<String>,
    price: String,
) -> Result<(), Failure> {
    let price = price.parse().map_err(|_| (StatusCode::BAD_REQUEST, "no price".to_string()))?;
    quotes.set(&symbol, &price).await.map_err(unavailable)
}

async fn state(State(quotes): State<Quotes>) -> String {
    let (state, metrics) = (quotes.state(), quotes.metrics());
    format!(
        "{:?}, generation {}, {} hits, {} round trips",
        state.phase, state.generation, metrics.cache.hits, metrics.round_trips
    )
}

#[tokio::main]
async fn serve(port: u16, server: &str) -> Result<(), Box<dyn Error>> {
    let quotes = Quotes::builder(Prefixed::new("quote:"), Json)
        .cache(Cache::builder().max_cost(100_000).metrics(true))
        .tracking(Tracking::broadcast(["quote:"]))
        .max_age(Duration::from_secs(30))
        .ping(Duration::from_millis(500), Duration::from_millis(200))
        // A price of half a minute ago is better than none; later there is none.
        .while_down(Down::ServeStale(Duration::from_secs(30)))
        .connect(server)
        .await?;
    let app = Router::new()
        .route("/quotes/{symbol}", get(quote).put(set_quote))
        .route("/state", get(state))
        .with_state(quotes);
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", port)).await?;
    axum::serve(listener, app).await?;
    Ok(())
}

/// Another process that serves quotes, killed when it is dropped.
struct Process {
    child: Child,
    port: u16,
}

impl Process {
    fn start(server: &str) -> Result<Self, Box<dyn Error>> {
        let port = support::free_port()?;
        let child = Command::new(std::env::current_exe()?)
            .args(["serve", &port.to_string(), server])
            .spawn()?;
        let process = Self { child, port };
        support::wait_for(port)?;
        Ok(process)
    }

    /// Makes a request, and returns the body of the answer.
    fn request(&self, method: &str, path: &str, body: &str) -> Result<String, Box<dyn Error>> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port))?;
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
             Content-Length: {}\r\n\r\n{body}",
            body.len()
        )?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer.split_once("\r\n\r\n").ok_or("no answer")?.1.to_string())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().collect();
    if let [_, command, port, server] = arguments.as_slice()
        && command == "serve"
    {
        return serve(port.parse()?, server);
    }
    let Some(server) = support::Server::start()? else { return Ok(()) };
    let (one, other) = (Process::start(&server.url)?, Process::start(&server.url)?);

    one.request("PUT", "/quotes/EURUSD", "1.08")?;
    for _ in 0..3 {
        assert_eq!(one.request("GET", "/quotes/EURUSD", "")?, "1.08");
        assert_eq!(other.request("GET", "/quotes/EURUSD", "")?, "1.08");
    }
    // Written by one process, seen by the other, which held the old price.
    one.request("PUT", "/quotes/EURUSD", "1.09")?;
    let written = Instant::now();
    while other.request("GET", "/quotes/EURUSD", "")? != "1.09" {
        assert!(written.elapsed() < Duration::from_secs(30), "it is bounded by the invalidation");
    }
    println!("the other process has it {:?} after the write", written.elapsed());
    println!("one:   {}", one.request("GET", "/state", "")?);
    println!("other: {}", other.request("GET", "/state", "")?);
    Ok(())
}
