//! A client that caches by the rules of HTTP, and sends one request where many callers ask for the
//! same URL at the same time.
//!
//! `cargo run -p cortado-http-cache --example single_flight`

use std::{
    error::Error,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use axum::{Router, routing::get};
use cortado::{Cache, InsertOptions};
use cortado_http_cache::CortadoManager;
use http_cache_reqwest::{Cache as CacheLayer, CacheMode, HttpCache, HttpCacheOptions};
use reqwest_middleware::{ClientBuilder, ClientWithMiddleware};
use tokio::{net::TcpListener, sync::Semaphore, task::JoinSet};

/// Callers that ask at the same time.
const CALLERS: u64 = 100;

/// Fetches the bodies of URLs.
#[derive(Clone)]
struct Fetcher {
    client: ClientWithMiddleware,
    /// The requests that run. It keeps nothing: what may be reused, and for how long, the
    /// middleware knows.
    flights: Cache<String, Arc<str>>,
}

impl Fetcher {
    fn new(manager: CortadoManager) -> Result<Self, Box<dyn Error>> {
        let options = HttpCacheOptions::default();
        let layer = CacheLayer(HttpCache { mode: CacheMode::Default, manager, options });
        let client = reqwest::Client::builder().no_proxy().build()?;
        let client = ClientBuilder::new(client).with(layer).build();
        Ok(Self { client, flights: Cache::builder().max_cost(1).timed(true).build()? })
    }

    /// Returns the body of a URL: a stored one, or that of one request for all concurrent callers.
    async fn text(&self, url: &str) -> Result<Arc<str>, Arc<reqwest_middleware::Error>> {
        let load = async {
            let text = self.client.get(url).send().await?.error_for_status()?.text().await?;
            // Callers that wait get it; for later ones it has expired.
            Ok((Arc::from(text), InsertOptions::new().ttl(Duration::ZERO)))
        };
        self.flights.entry_ref(url).or_try_load_shared_async(load).await
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    // The server counts, and answers when the gate opens.
    let requests = Arc::new(AtomicU64::new(0));
    let gate = Arc::new(Semaphore::new(0));
    let (count, open) = (Arc::clone(&requests), Arc::clone(&gate));
    let handler = async move || {
        count.fetch_add(1, Relaxed);
        open.acquire().await.unwrap().forget();
        ([("cache-control", "max-age=60")], "the quote of the day")
    };
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}/", listener.local_addr()?);
    let app = Router::new().route("/", get(handler));
    tokio::spawn(async move { axum::serve(listener, app).await });

    let manager = CortadoManager::new(1 << 20)?;
    let fetcher = Fetcher::new(manager.clone())?;
    let mut callers = JoinSet::new();
    for _ in 0..CALLERS {
        let (fetcher, url) = (fetcher.clone(), url.clone());
        callers.spawn(async move { fetcher.text(&url).await });
    }
    gate.add_permits(1);
    while let Some(text) = callers.join_next().await {
        assert_eq!(&*text??, "the quote of the day");
    }
    assert_eq!(requests.load(Relaxed), 1);
    assert!(fetcher.flights.is_empty());

    // From now on the middleware answers.
    assert_eq!(&*fetcher.text(&url).await?, "the quote of the day");
    assert_eq!(requests.load(Relaxed), 1);
    println!("{} calls, 1 request, {} bytes kept", CALLERS + 1, manager.cache().cost());
    Ok(())
}
