//! An origin server that records what it is asked, and a client that caches.

use std::{
    future::Future,
    sync::{Arc, Mutex},
};

use axum::{Router, body::Body, extract::Request, response::Response};
use cortado_http_cache::CortadoManager;
use http::{HeaderMap, Method, StatusCode};
use http_cache_reqwest::{Cache, CacheMode, HttpCache, HttpCacheOptions};
use reqwest_middleware::{ClientBuilder, ClientWithMiddleware};
use tokio::{net::TcpListener, task::JoinHandle};

/// A request as the origin received it.
#[derive(Clone, Debug)]
pub struct Received {
    pub method: Method,
    pub path: String,
    pub headers: HeaderMap,
    /// How many requests of this method and path there were, with this one.
    pub count: usize,
}

impl Received {
    /// Returns the text of a header, empty if there is none.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }
}

/// A server on a free port. It stops when it is dropped.
pub struct Origin {
    url: String,
    received: Arc<Mutex<Vec<Received>>>,
    task: JoinHandle<()>,
}

impl Origin {
    /// Starts a server that answers every request by a function.
    pub async fn start<F, A>(answer: F) -> Self
    where
        F: Fn(Received) -> A + Clone + Send + Sync + 'static,
        A: Future<Output = Response> + Send + 'static,
    {
        let received = Arc::new(Mutex::new(Vec::<Received>::new()));
        let record = Arc::clone(&received);
        let app = Router::new().fallback(move |request: Request| {
            let (head, _) = request.into_parts();
            let path = head.uri.path().to_string();
            let mut record = record.lock().unwrap();
            let same = record.iter().filter(|r| r.method == head.method && r.path == path);
            let count = same.count() + 1;
            record.push(Received { method: head.method, path, headers: head.headers, count });
            answer(record[record.len() - 1].clone())
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let task = tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        Self { url, received, task }
    }

    /// Returns the URL of a path.
    pub fn url(&self, path: &str) -> String {
        format!("{}{path}", self.url)
    }

    /// Returns the key under which the middleware stores the response to a `GET` of a path.
    pub fn key(&self, path: &str) -> String {
        format!("GET:{}", self.url(path))
    }

    /// Returns the requests so far.
    pub fn received(&self) -> Vec<Received> {
        self.received.lock().unwrap().clone()
    }

    /// Returns the number of requests so far.
    pub fn requests(&self) -> usize {
        self.received.lock().unwrap().len()
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Makes a response of the origin.
pub fn reply(status: StatusCode, headers: &[(&str, &str)], body: impl Into<Body>) -> Response {
    let mut response = Response::builder().status(status);
    for (name, value) in headers {
        response = response.header(*name, *value);
    }
    response.body(body.into()).unwrap()
}

/// Makes a successful response with a `Cache-Control`.
pub fn ok(cache_control: &str, body: impl Into<Body>) -> Response {
    reply(StatusCode::OK, &[("cache-control", cache_control)], body)
}

/// What the client got.
#[derive(Debug, PartialEq, Eq)]
pub struct Answer {
    pub status: u16,
    pub body: String,
    /// Whether the middleware served the stored body, fresh or revalidated.
    pub is_hit: bool,
}

/// A client of its own, with a manager in front of the network.
#[derive(Clone)]
pub struct Client(ClientWithMiddleware);

impl Client {
    pub fn new(manager: &CortadoManager) -> Self {
        Self::with_options(manager, HttpCacheOptions::default())
    }

    pub fn with_options(manager: &CortadoManager, options: HttpCacheOptions) -> Self {
        let manager = manager.clone();
        let cache = HttpCache { mode: CacheMode::Default, manager, options };
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        Self(ClientBuilder::new(client).with(Cache(cache)).build())
    }

    pub async fn get(&self, url: String) -> Answer {
        self.send(Method::GET, url, &[], CacheMode::Default).await
    }

    pub async fn send(
        &self,
        method: Method,
        url: String,
        headers: &[(&str, &str)],
        mode: CacheMode,
    ) -> Answer {
        let mut request = self.0.request(method, url).with_extension(mode);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = request.send().await.unwrap();
        let is_hit = response.headers()["x-cache"] == "HIT";
        let status = response.status().as_u16();
        Answer { status, body: response.text().await.unwrap(), is_hit }
    }
}

/// Makes the answer of the origin itself.
pub fn fetched(body: &str) -> Answer {
    Answer { status: 200, body: body.into(), is_hit: false }
}

/// Makes an answer with the stored body.
pub fn hit(body: &str) -> Answer {
    Answer { status: 200, body: body.into(), is_hit: true }
}
