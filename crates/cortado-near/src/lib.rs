//! A near cache in front of Redis or Valkey: decoded values in the memory of this process, kept
//! coherent by the server's own invalidations.
//!
//! A [`NearCache`] answers a key that it holds without a round trip. A key that it does not hold is
//! read from the server and kept, and the server reports each change of it
//! ([`CLIENT TRACKING`](https://redis.io/docs/latest/develop/reference/client-side-caching/) over
//! RESP3).
//!
//! ```no_run
//! use std::time::Duration;
//! use cortado::Cache;
//! use cortado_near::{NearCache, Prefixed, Text, Tracking};
//!
//! # #[tokio::main]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! // Values are the `f64`s of the keys `px:EURUSD`, `px:EURCHF`, …
//! let near = NearCache::<String, f64>::builder(Prefixed::new("px:"), Text)
//!     .cache(Cache::builder().max_cost(100_000))
//!     .tracking(Tracking::broadcast(["px:"]))
//!     .max_age(Duration::from_secs(30))
//!     .connect("redis://127.0.0.1/")
//!     .await?;
//!
//! let eur_usd = "EURUSD".to_string();
//! near.set(&eur_usd, &1.08).await?;
//! assert_eq!(near.get(&eur_usd).await?, Some(1.08)); // a round trip
//! assert_eq!(near.get(&eur_usd).await?, Some(1.08)); // from memory
//! # Ok(())
//! # }
//! ```
//!
//! What a near cache buys and costs, and when not to use one: [from one process to
//! many](https://docs.rs/cortado/latest/cortado/docs/near/).
//!
//! # Guarantees
//!
//! 1. **The claim precedes the fetch.** A load first claims its key in the local cache, then reads
//!    the server over the tracked connection. An invalidation that arrives from then on
//!    invalidates the load: its value is returned to callers that asked before, and is not kept.
//! 2. **Invalidations are applied in the order of the connection**, by the task that reads it,
//!    before any later reply is passed on. There is no queue between, so none can lag.
//! 3. **Any doubt empties the cache** and begins a new generation: a lost connection, an unanswered
//!    ping, a flush of the server, a push message that cannot be read, a refused write after a
//!    failover ([`Doubt`]). Loads of an older generation are returned and not kept.
//! 4. **The local time to live** is the smaller of the server's and [`max_age`](Builder::max_age),
//!    counted from the moment when the request was sent.
//! 5. **A caller reads its own writes**: after [`set`](NearCache::set) or
//!    [`remove`](NearCache::remove) has returned, no [`get`](NearCache::get) of this process
//!    returns an older value.
//! 6. **No caller sees a version of a key older than one that it has seen**, as long as the server
//!    itself does not go back (a failover to a replica that lags can).
//! 7. **Staleness is bounded**: while connected, by the time that an invalidation takes; where the
//!    connection is half open, by the interval and the timeout of [`ping`](Builder::ping); by
//!    `max_age` whatever fails, even where invalidations are lost. [`Down::ServeStale`] adds its
//!    own limit while the server cannot be reached.
//!
//! # Tracking
//!
//! [`Tracking::Broadcast`] asks the server for the changes of all keys with certain prefixes: it
//! costs the server no memory, and the client a message for each change, of keys that it does not
//! hold too. [`Tracking::PerKey`] asks for the changes of those keys that were read: the server
//! remembers them (`tracking-table-max-keys`), and sends a message once.
//!
//! # Limits
//!
//! * Keys are strings of the server ([`get`](NearCache::get) of a hash or list is an error of the
//!   server). There is one server: no cluster.
//! * `SWAPDB` invalidates nothing: the server sends no message. Use it on no database that a near
//!   cache reads, or rely on `max_age`.
//! * The local cache holds what one generation has read: after a lost connection it fills again.

#![cfg_attr(docsrs, feature(doc_cfg))]

mod builder;
mod codec;
mod error;
mod link;
mod metrics;
mod near;
mod state;
mod trace;

#[cfg(feature = "metrics")]
#[cfg_attr(docsrs, doc(cfg(feature = "metrics")))]
mod exporter;

pub use builder::{Builder, Down, Tracking};
#[cfg(feature = "json")]
#[cfg_attr(docsrs, doc(cfg(feature = "json")))]
pub use codec::Json;
#[cfg(feature = "postcard")]
#[cfg_attr(docsrs, doc(cfg(feature = "postcard")))]
pub use codec::Postcard;
pub use codec::{Bytes, CodecError, KeyCodec, Prefixed, Shared, Text, ValueCodec};
pub use error::{ConnectError, Error};
#[cfg(feature = "metrics")]
pub use exporter::Exporter;
pub use metrics::NearMetrics;
pub use near::NearCache;
pub use state::{Doubt, Phase, State};

/// The client library, whose types are part of this interface.
pub use redis;
