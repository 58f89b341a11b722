//! A `CacheManager` of the [`http_cache`] crate that keeps responses in a [`cortado::Cache`],
//! within a budget in bytes.
//!
//! [`CortadoManager`] is what the middleware of http-cache (for reqwest: `http-cache-reqwest`)
//! asks for stored responses. The middleware decides what is stored, served and revalidated; this
//! crate stores it.
//!
//! ```
//! use cortado_http_cache::CortadoManager;
//! use http_cache_reqwest::{Cache, CacheMode, HttpCache, HttpCacheOptions};
//! use reqwest_middleware::ClientBuilder;
//!
//! # fn main() -> Result<(), cortado::BuildError> {
//! let manager = CortadoManager::new(64 << 20)?; // 64 MiB
//! let client = ClientBuilder::new(reqwest::Client::new())
//!     .with(Cache(HttpCache {
//!         mode: CacheMode::Default,
//!         manager: manager.clone(),
//!         options: HttpCacheOptions::default(),
//!     }))
//!     .build();
//! # drop(client);
//! assert_eq!(manager.cache().max_cost(), 64 << 20);
//! # Ok(())
//! # }
//! ```
//!
//! # Behaviour
//!
//! * **Costs are bytes**: those of body, headers, URL and key, and an estimate of what the types
//!   take beside them; see [`StoredResponse::cost`]. The sum stays within the budget at all times.
//! * **A response that is not kept is returned all the same**: one that costs more than the whole
//!   budget, or that is accessed less than the entries that would have to go for it. A stored
//!   older response of the same key is removed then.
//! * **Responses are stored decoded.** A hit copies body and headers, since the trait returns an
//!   owned `Vec<u8>`; it serializes nothing. A response that is not kept is not copied.
//! * **No method fails**: not those of the trait, nor [`clear`](CortadoManager::clear). Only
//!   [`new`](CortadoManager::new) does, with a [`BuildError`](cortado::BuildError).
//! * **A stale response stays**, since it may be revalidated: a `304` refreshes it, and the body is
//!   not transferred again. What is stale and never asked for again is evicted as any other cold
//!   entry.
//! * **A time to live**, as a bound whatever the servers say, is a setting of the cache: see
//!   [`with_cache`](CortadoManager::with_cache). It counts from the last time that the response was
//!   stored or revalidated.
//!
//! # What the trait rules out
//!
//! * **Single flight.** Concurrent requests of a URL that is not stored all reach the server.
//!   `get` could make the later ones wait, but the middleware calls nothing if the request fails or
//!   the response must not be stored, so they would wait for a `put` that never comes. The example
//!   `single_flight` shows a client that shares requests above the middleware.
//! * **Several variants of a URL.** One response is stored for each method and URL. If its `Vary`
//!   names a header in which a later request differs, that request is sent, and a `200` replaces
//!   the stored one. Put the header in the key (`HttpCacheOptions::cache_key`) to keep a response
//!   for each value of it. With a key of your own, a `POST` and the like remove only the entry of
//!   *their* key: list what they change by `HttpCacheOptions::cache_bust`.
//! * **Invalidation of requests that run.** The middleware removes the stored response before it
//!   sends a `POST`, and `put` is not tied to a request. A `GET` that the server answers before it
//!   has handled the `POST` stores the old state. It is served until it is stale, or for the time
//!   to live. A stored `HEAD` of the URL is not removed.
//!
//! # What the middleware does
//!
//! Version 0.21 of the middleware deviates from the rules of HTTP where a stored response is stale
//! or belongs to another `Vary` header, and the origin answers neither `200` nor `304` (`403`,
//! `404`, `500`), or cannot be reached and `must-revalidate` is absent: it returns the stored
//! response. So a page that was stored for one user may be returned to another, and what was
//! deleted stays readable. Responses that depend on who asks should not be stored (`private`,
//! `no-store`), or have the user in the key. A revalidation that is answered by a `200` with
//! `no-store` stores that response; it is not served as fresh.
//!
//! # Versions
//!
//! The types of http-cache 0.21, the newest stable release, are part of this interface. It belongs
//! to http-cache-reqwest 0.16, reqwest-middleware 0.4 and reqwest 0.12. The middleware for tower
//! (`http-cache-tower`, `http-cache-tower-server`) requires an alpha of http-cache 1.0, whose trait
//! and types differ: it does not accept this manager.

mod manager;
mod stored;

pub use manager::{CortadoManager, ResponseCache};
pub use stored::StoredResponse;

/// Runs the example of the README as a test.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
