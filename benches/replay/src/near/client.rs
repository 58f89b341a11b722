//! The ways to read a key of the server, each over one connection.

use std::future::Future as _;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Waker};
use std::time::Duration;

use anyhow::Result;
use clap::ValueEnum;
use cortado::Cache;
use cortado_near::redis::aio::{MultiplexedConnection, SendError};
use cortado_near::redis::{
    self, AsyncConnectionConfig, PushInfo, PushKind, RedisResult, Value, cmd,
};
use cortado_near::{NearCache, Prefixed, Text, Tracking};
use moka::future::Cache as Moka;
use serde::Serialize;

/// What the names of all keys begin with.
const PREFIX: &str = "key:";
/// How long a request may take: none fails only because the machine is busy.
const TIMEOUT: Duration = Duration::from_secs(10);
/// How often cortado-near tests its connection: its default.
const PING: Duration = Duration::from_secs(1);

/// A way to read a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Way {
    /// No cache: each read asks the server.
    Redis,
    /// moka's `try_get_with`, with a time to live and no invalidation.
    MokaTtl,
    /// moka's `try_get_with`; the server reports all changes, and each removes its key.
    MokaBroadcast,
    /// The same, where the server reports the changes of keys that were read.
    MokaPerKey,
    /// moka's `get`, and on a miss a request and an `insert`; the server reports all changes.
    MokaInsertBroadcast,
    /// The same, where the server reports the changes of keys that were read.
    MokaInsertPerKey,
    /// cortado-near; the server reports all changes.
    CortadoBroadcast,
    /// cortado-near; the server reports the changes of keys that were read.
    CortadoPerKey,
}

impl Way {
    /// Returns the name, as the command line takes it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Redis => "redis",
            Self::MokaTtl => "moka-ttl",
            Self::MokaBroadcast => "moka-broadcast",
            Self::MokaPerKey => "moka-per-key",
            Self::MokaInsertBroadcast => "moka-insert-broadcast",
            Self::MokaInsertPerKey => "moka-insert-per-key",
            Self::CortadoBroadcast => "cortado-broadcast",
            Self::CortadoPerKey => "cortado-per-key",
        }
    }

    /// Returns whether it is cortado's.
    pub fn is_own(self) -> bool {
        matches!(self, Self::CortadoBroadcast | Self::CortadoPerKey)
    }

    /// Returns which changes the server reports; `None` if it reports none.
    fn tracking(self) -> Option<Tracking> {
        match self {
            Self::Redis | Self::MokaTtl => None,
            Self::MokaBroadcast | Self::MokaInsertBroadcast | Self::CortadoBroadcast => {
                Some(Tracking::broadcast([PREFIX]))
            }
            Self::MokaPerKey | Self::MokaInsertPerKey | Self::CortadoPerKey => {
                Some(Tracking::PerKey)
            }
        }
    }
}

/// How long a cache keeps a value, and how many.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// The number of entries.
    pub entries: u64,
    /// The time where the server reports changes.
    pub max_age: Duration,
    /// The time where it reports none.
    pub ttl: Duration,
}

/// A reader's access to the server; clones share a connection and a cache.
#[derive(Clone)]
pub struct Client {
    store: Store,
    is_tracked: bool,
}

#[derive(Clone)]
enum Store {
    Server(Remote),
    Moka { cache: Moka<u64, Option<u64>>, remote: Remote, is_load: bool },
    Near(NearCache<u64, u64>),
}

impl Client {
    /// Connects to a server.
    pub async fn connect(way: Way, url: &str, limits: &Limits) -> Result<Self> {
        let tracking = way.tracking();
        let is_tracked = tracking.is_some();
        let ttl = if is_tracked { limits.max_age } else { limits.ttl };
        let moka = || Moka::builder().max_capacity(limits.entries).time_to_live(ttl).build();
        let store = match (way, tracking) {
            (Way::CortadoBroadcast | Way::CortadoPerKey, Some(tracking)) => Store::Near(
                NearCache::builder(Prefixed::new(PREFIX), Text)
                    .cache(Cache::builder().max_cost(limits.entries))
                    .tracking(tracking)
                    .max_age(ttl)
                    .ping(PING, TIMEOUT)
                    .timeouts(TIMEOUT, TIMEOUT)
                    .connect(url)
                    .await?,
            ),
            (_, Some(tracking)) => {
                let cache = moka();
                let remote = Remote::tracked(url, &tracking, cache.clone()).await?;
                let is_load = matches!(way, Way::MokaBroadcast | Way::MokaPerKey);
                Store::Moka { cache, remote, is_load }
            }
            (Way::MokaTtl, None) => Store::Moka {
                cache: moka(),
                remote: Remote::new(direct(url).await?),
                is_load: true,
            },
            (_, None) => Store::Server(Remote::new(direct(url).await?)),
        };
        Ok(Self { store, is_tracked })
    }

    /// Reads a key.
    pub async fn get(&self, key: u64) -> Result<Option<u64>> {
        match &self.store {
            Store::Server(remote) => Ok(remote.get(key).await?),
            Store::Moka { cache, remote, is_load: true } => {
                Ok(cache.try_get_with(key, remote.get(key)).await?)
            }
            Store::Moka { cache, remote, is_load: false } => {
                if let Some(value) = cache.get(&key).await {
                    return Ok(value);
                }
                let value = remote.get(key).await?;
                cache.insert(key, value).await;
                Ok(value)
            }
            Store::Near(near) => Ok(near.get(&key).await?),
        }
    }

    /// Returns what is held of a key.
    pub async fn peek(&self, key: u64) -> Option<u64> {
        match &self.store {
            Store::Server(_) => None,
            Store::Moka { cache, .. } => cache.get(&key).await.flatten(),
            Store::Near(near) => near.peek(&key),
        }
    }

    /// Returns whether the server reports changes to it.
    pub fn is_tracked(&self) -> bool {
        self.is_tracked
    }

    /// Returns the number of requests for values so far.
    pub fn round_trips(&self) -> u64 {
        match &self.store {
            // Relaxed: a count orders nothing.
            Store::Server(remote) | Store::Moka { remote, .. } => {
                remote.round_trips.load(Ordering::Relaxed)
            }
            Store::Near(near) => near.metrics().round_trips,
        }
    }
}

/// A connection that counts its reads.
#[derive(Clone)]
struct Remote {
    connection: MultiplexedConnection,
    round_trips: Arc<AtomicU64>,
}

impl Remote {
    fn new(connection: MultiplexedConnection) -> Self {
        Self { connection, round_trips: Arc::default() }
    }

    /// Makes a connection as cortado-near's, whose invalidations remove keys of a cache of moka.
    async fn tracked(
        url: &str,
        tracking: &Tracking,
        cache: Moka<u64, Option<u64>>,
    ) -> RedisResult<Self> {
        let config = config().set_push_sender(move |push: PushInfo| {
            if push.kind == PushKind::Invalidate {
                invalidated(&push.data).for_each(|key| invalidate(&cache, key));
            }
            Ok::<_, SendError>(())
        });
        let mut connection = connect(url, &config).await?;
        let mut command = cmd("CLIENT");
        command.arg("TRACKING").arg("ON");
        if let Tracking::Broadcast(prefixes) = tracking {
            command.arg("BCAST");
            prefixes.iter().for_each(|prefix| _ = command.arg("PREFIX").arg(prefix));
        }
        command.query_async::<()>(&mut connection).await?;
        Ok(Self::new(connection))
    }

    async fn get(&self, key: u64) -> RedisResult<Option<u64>> {
        self.round_trips.fetch_add(1, Ordering::Relaxed);
        cmd("GET").arg(name(key)).query_async(&mut self.connection.clone()).await
    }
}

/// Returns a connection past the caches.
pub async fn direct(url: &str) -> RedisResult<MultiplexedConnection> {
    connect(url, &config()).await
}

/// Returns the name of a key on the server.
pub fn name(key: u64) -> String {
    format!("{PREFIX}{key}")
}

fn config() -> AsyncConnectionConfig {
    AsyncConnectionConfig::new()
        .set_connection_timeout(Some(TIMEOUT))
        .set_response_timeout(Some(TIMEOUT))
}

async fn connect(url: &str, config: &AsyncConnectionConfig) -> RedisResult<MultiplexedConnection> {
    redis::Client::open(url)?.get_multiplexed_async_connection_with_config(config).await
}

/// Returns the keys that an invalidation names.
fn invalidated(data: &[Value]) -> impl Iterator<Item = u64> {
    let names = match data {
        [Value::Array(names)] => names.as_slice(),
        _ => &[],
    };
    names.iter().filter_map(|name| match name {
        Value::BulkString(name) => str::from_utf8(name).ok()?.strip_prefix(PREFIX)?.parse().ok(),
        _ => None,
    })
}

/// Removes a key in the task that reads the connection, as cortado-near does: before that passes on
/// any later reply. A task of its own could only be later.
fn invalidate(cache: &Moka<u64, Option<u64>>, key: u64) {
    let owned = cache.clone();
    let mut removal = Box::pin(async move { owned.invalidate(&key).await });
    // The first poll removes the entry; what may have to wait is moka's own bookkeeping.
    if removal.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending() {
        tokio::spawn(removal);
    }
}

/// Awaits a read; returns also whether it had to wait.
pub async fn watched<T>(read: impl Future<Output = T>) -> (T, bool) {
    let mut read = pin!(read);
    let mut has_waited = false;
    let value = std::future::poll_fn(|context| {
        let poll = read.as_mut().poll(context);
        has_waited |= poll.is_pending();
        poll
    })
    .await;
    (value, has_waited)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block_on<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
    }

    #[test]
    fn names_match_the_command_line() {
        for &way in Way::value_variants() {
            assert_eq!(way.to_possible_value().unwrap().get_name(), way.name());
            assert_eq!(serde_json::to_value(way).unwrap(), way.name());
        }
    }

    #[test]
    fn invalidation_names_its_keys() {
        let name = |name: &str| Value::BulkString(name.as_bytes().to_vec());
        let names =
            Value::Array(vec![name("key:7"), name("other:8"), name("key:x"), name("key:9")]);
        assert_eq!(invalidated(&[names]).collect::<Vec<_>>(), [7, 9]);
        assert_eq!(invalidated(&[Value::Nil]).count(), 0);
    }

    #[test]
    fn invalidated_entry_is_gone_at_once() {
        let cache = Moka::new(10);
        block_on(cache.insert(7, Some(1)));
        invalidate(&cache, 7);
        assert_eq!(block_on(cache.get(&7)), None);
    }

    #[test]
    fn read_that_is_ready_has_not_waited() {
        assert_eq!(block_on(watched(async { 1 })), (1, false));
        let later = async {
            tokio::task::yield_now().await;
            2
        };
        assert_eq!(block_on(watched(later)), (2, true));
    }
}
