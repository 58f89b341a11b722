//! An axum handler behind a cache: concurrent requests for one user make one query.
//!
//! `cargo run -p cortado-web-examples --bin axum_handler` serves `/users/7` on a free port of
//! 127.0.0.1; `cargo test -p cortado-web-examples` makes two requests and counts the loads.

use std::{sync::Arc, time::Duration};

use axum::{
    Router,
    extract::{Path, State},
    routing::get,
};
use cortado::{BuildError, Cache};
use tokio::net::TcpListener;

/// The state of the application: cloning it clones a handle.
type Users = Cache<u32, Arc<str>>;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("http://{}/users/7", listener.local_addr()?);
    Ok(axum::serve(listener, app(users()?)).await?)
}

fn users() -> Result<Users, BuildError> {
    Cache::builder().max_cost(10_000).ttl(Duration::from_secs(60)).metrics(true).build()
}

fn app(users: Users) -> Router {
    Router::new().route("/users/{id}", get(user)).with_state(users)
}

async fn user(State(users): State<Users>, Path(id): Path<u32>) -> String {
    users.get_or_insert_async(id, query(id)).await.to_string()
}

/// A stand-in for a database.
async fn query(id: u32) -> Arc<str> {
    tokio::time::sleep(Duration::from_millis(10)).await;
    format!("user {id}").into()
}

#[tokio::test]
async fn second_request_asks_the_cache() -> Result<(), Box<dyn std::error::Error>> {
    let users = users()?;
    for _ in 0..2 {
        let answer = cortado_web_examples::request(app(users.clone()), "/users/7").await?;
        assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("user 7"), "{answer}");
    }
    assert_eq!((users.metrics().loads, users.metrics().hits), (1, 1));
    Ok(())
}
