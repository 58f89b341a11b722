//! Setting up a near cache.

use std::{fmt, hash::Hash, sync::Arc, time::Duration};

use cortado::{Cache, CacheBuilder};
use redis::{Client, IntoConnectionInfo, ProtocolVersion};

use crate::{
    codec::{KeyCodec, ValueCodec},
    error::ConnectError,
    link::Settings,
    near::NearCache,
};

/// The budget of the local cache, in entries, if the program sets no cache of its own.
const MAX_ENTRIES: u64 = 10_000;
/// How often the connection is tested, how long an answer may take, and how long a connection may
/// take to be made: a bound of two seconds where the connection is half open.
const SECOND: Duration = Duration::from_secs(1);

/// Which changes the server reports.
///
/// # Examples
///
/// ```
/// use cortado_near::Tracking;
///
/// let prices = Tracking::broadcast(["px:", "fx:"]);
/// assert_eq!(prices, Tracking::Broadcast(vec!["px:".into(), "fx:".into()]));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Tracking {
    /// Those of all keys whose names begin with one of these prefixes; of all keys, if there is
    /// none. A call with another key is an [error](crate::Error::OutsidePrefixes).
    ///
    /// It costs the server no memory, and one message for each change: right where most of the
    /// keys that change are held, or few change. No prefix may begin with another.
    Broadcast(Vec<String>),
    /// Those of the keys that were read, each until its first change.
    ///
    /// The server remembers them, up to its `tracking-table-max-keys` (a million by default); what
    /// it forgets it invalidates. Right where a process holds a small part of many keys.
    PerKey,
}

impl Tracking {
    /// Returns a [`Broadcast`](Self::Broadcast).
    pub fn broadcast<P: Into<String>>(prefixes: impl IntoIterator<Item = P>) -> Self {
        Self::Broadcast(prefixes.into_iter().map(Into::into).collect())
    }
}

/// What [`get`](NearCache::get) and [`get_many`](NearCache::get_many) answer while the server
/// cannot be reached.
///
/// Right after a connection is lost, calls wait for the first attempt to replace it; this is for
/// the time after that has failed. Writes fail in any case, with
/// [`Error::Down`](crate::Error::Down).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Down {
    /// The error [`Error::Down`](crate::Error::Down), at once.
    #[default]
    Fail,
    /// `None`, as for a key that the server does not have: for programs whose server is a cache
    /// itself, and that compute what it lacks.
    Miss,
    /// What was held when the connection was lost, for so long after that; else the error.
    ///
    /// Such a value may be as old as [`max_age`](Builder::max_age) and this limit together. A
    /// [`peek`](NearCache::peek) does not return it.
    ServeStale(Duration),
}

/// Sets up a [`NearCache`]; made by [`NearCache::builder`].
///
/// # Examples
///
/// ```no_run
/// # async fn run() -> Result<(), cortado_near::ConnectError> {
/// use std::time::Duration;
/// use cortado::Cache;
/// use cortado_near::{Down, Json, NearCache, Prefixed, Tracking};
///
/// let near = NearCache::<u64, Vec<String>>::builder(Prefixed::new("tags:"), Json)
///     .cache(Cache::builder().max_cost(64 << 20).cost_of(|_, tags: &Option<Vec<String>>| {
///         tags.iter().flatten().map(|tag| tag.len() as u64 + 24).sum::<u64>() + 32
///     }))
///     .tracking(Tracking::broadcast(["tags:"]))
///     .max_age(Duration::from_secs(30))
///     .ping(Duration::from_millis(500), Duration::from_millis(200))
///     .while_down(Down::ServeStale(Duration::from_secs(60)))
///     .connect("redis://127.0.0.1/")
///     .await?;
/// # Ok(())
/// # }
/// ```
#[must_use = "a builder does nothing until it connects"]
pub struct Builder<K, V> {
    keys: Arc<dyn KeyCodec<K>>,
    values: Arc<dyn ValueCodec<V>>,
    cache: CacheBuilder<K, Option<V>>,
    tracking: Option<Tracking>,
    max_age: Duration,
    ping: (Duration, Duration),
    timeouts: (Duration, Duration),
    down: Down,
}

impl<K, V> Builder<K, V>
where
    K: Hash + Eq + Clone + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
{
    pub(crate) fn new(keys: impl KeyCodec<K>, values: impl ValueCodec<V>) -> Self {
        Self {
            keys: Arc::new(keys),
            values: Arc::new(values),
            cache: Cache::builder().max_cost(MAX_ENTRIES),
            tracking: None,
            max_age: Duration::ZERO,
            ping: (SECOND, SECOND),
            timeouts: (SECOND, SECOND),
            down: Down::Fail,
        }
    }

    /// Sets the local cache: its budget, costs, listener, metrics.
    ///
    /// Its values are `Option<V>`, `None` for a key that the server does not have, which is
    /// remembered like a value. An entry's time to live is set by the near cache, and goes before
    /// the builder's `ttl` and `expiry`; `write_back` has no place here.
    ///
    /// By default it has room for 10 000 entries.
    pub fn cache(mut self, cache: CacheBuilder<K, Option<V>>) -> Self {
        self.cache = cache;
        self
    }

    /// Sets which changes the server reports. Has to be called.
    pub fn tracking(mut self, tracking: Tracking) -> Self {
        self.tracking = Some(tracking);
        self
    }

    /// Sets the longest time that a value is served after it was asked for. Has to be called.
    ///
    /// The bound on staleness that holds whatever fails, even if invalidations are lost without a
    /// trace between the server and this process.
    pub fn max_age(mut self, max_age: Duration) -> Self {
        self.max_age = max_age;
        self
    }

    /// Sets how often the connection is tested, and how long the answer may take.
    ///
    /// Both together bound staleness where the connection is half open: the peer is gone, and
    /// no packet says so. An answer that is late empties the cache. One second each by default.
    pub fn ping(mut self, every: Duration, timeout: Duration) -> Self {
        self.ping = (every, timeout);
        self
    }

    /// Sets how long it may take to connect, and to answer a request.
    ///
    /// A request that takes longer fails. One second each by default.
    pub fn timeouts(mut self, connect: Duration, response: Duration) -> Self {
        self.timeouts = (connect, response);
        self
    }

    /// Sets what reads answer while the server cannot be reached: [`Down::Fail`] by default.
    pub fn while_down(mut self, down: Down) -> Self {
        self.down = down;
        self
    }

    /// Connects, and asks the server to track keys.
    ///
    /// `server` is a URL (`redis://…`, `unix://…`) or any other address of the `redis` crate's.
    /// RESP3 is spoken whatever it says. Spawns a task on the tokio runtime of the caller, which
    /// ends when the last handle of the cache is dropped.
    ///
    /// # Errors
    ///
    /// Returns what is missing in the settings, what is wrong with the address, or why the server
    /// cannot be used: it is not tried again.
    ///
    /// # Panics
    ///
    /// Panics outside a tokio runtime.
    pub async fn connect(
        self,
        server: impl IntoConnectionInfo,
    ) -> Result<NearCache<K, V>, ConnectError> {
        if self.max_age.is_zero() {
            return Err(ConnectError::MaxAge);
        }
        let tracking = self.tracking.ok_or(ConnectError::Tracking)?;
        let times = [self.ping.0, self.ping.1, self.timeouts.0, self.timeouts.1];
        if times.iter().any(Duration::is_zero) {
            return Err(ConnectError::ZeroTime);
        }
        let info = server.into_connection_info().map_err(ConnectError::Server)?;
        let resp3 = info.redis_settings().clone().set_protocol(ProtocolVersion::RESP3);
        let client = Client::open(info.set_redis_settings(resp3)).map_err(ConnectError::Server)?;
        let cache = self.cache.build().map_err(ConnectError::Cache)?;
        let settings = Settings {
            client,
            tracking,
            ping_every: self.ping.0,
            ping_timeout: self.ping.1,
            connect_timeout: self.timeouts.0,
            response_timeout: self.timeouts.1,
        };
        NearCache::connect(cache, self.keys, self.values, settings, self.max_age, self.down).await
    }
}

impl<K, V> fmt::Debug for Builder<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder")
            .field("tracking", &self.tracking)
            .field("max_age", &self.max_age)
            .field("ping", &self.ping)
            .field("timeouts", &self.timeouts)
            .field("while_down", &self.down)
            .finish_non_exhaustive()
    }
}
