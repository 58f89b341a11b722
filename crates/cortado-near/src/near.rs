//! The near cache: what a program calls.

use std::{
    collections::HashMap,
    fmt,
    future::{pending, ready},
    hash::Hash,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use cortado::{Cache, Claim, FillGuard, InsertOptions};
use redis::{cmd, pipe};
use tokio::task::JoinHandle;

use crate::{
    builder::{Builder, Down, Tracking},
    codec::{KeyCodec, ValueCodec},
    error::{ConnectError, Error},
    link::{Link, Local, Settings},
    metrics::{NearMetrics, add},
    state::{Doubt, State},
};

/// A near cache: the values of a Redis or Valkey server that this process has read, in its memory.
///
/// A handle, to be cloned; the connection is closed when the last one is dropped. Calls are made
/// in tasks of the tokio runtime that it was connected in, [`peek`](Self::peek) and the figures
/// anywhere. See the [crate's documentation](crate) for what it guarantees.
///
/// # Examples
///
/// ```no_run
/// use std::time::Duration;
/// use cortado_near::{NearCache, Prefixed, Text, Tracking};
///
/// # #[tokio::main]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let near = NearCache::<u64, String>::builder(Prefixed::new("name:"), Text)
///     .tracking(Tracking::PerKey)
///     .max_age(Duration::from_secs(60))
///     .connect("redis://127.0.0.1/")
///     .await?;
/// near.set(&7, &"seven".to_string()).await?;
/// assert_eq!(near.get(&7).await?.as_deref(), Some("seven"));
/// # Ok(())
/// # }
/// ```
pub struct NearCache<K, V> {
    near: Arc<Near<K, V>>,
}

struct Near<K, V> {
    held: Arc<Held<K, V>>,
    values: Arc<dyn ValueCodec<V>>,
    link: Arc<Link>,
    /// The prefixes of keys that are tracked; empty if all are.
    prefixes: Vec<Vec<u8>>,
    max_age: Duration,
    down: Down,
    supervisor: JoinHandle<()>,
}

/// What this process holds: the part of a near cache that the link acts on.
struct Held<K, V> {
    cache: Cache<K, Option<V>>,
    keys: Arc<dyn KeyCodec<K>>,
    /// How long what was held is served after the connection was lost.
    stale_for: Option<Duration>,
    stale: Mutex<Option<Stale<K, V>>>,
}

/// What was held when the connection was lost.
struct Stale<K, V> {
    entries: HashMap<K, Option<V>>,
    until: Instant,
}

impl<K, V> Held<K, V>
where
    K: Hash + Eq + Clone + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
{
    fn stale(&self) -> MutexGuard<'_, Option<Stale<K, V>>> {
        self.stale.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Removes a key that this process has written.
    fn written(&self, key: &K) {
        self.cache.remove(key);
        if self.stale_for.is_some()
            && let Some(stale) = &mut *self.stale()
        {
            stale.entries.remove(key);
        }
    }

    fn stale_value(&self, key: &K) -> Option<Option<V>> {
        let stale = self.stale();
        let stale = stale.as_ref().filter(|stale| Instant::now() < stale.until)?;
        stale.entries.get(key).cloned()
    }
}

impl<K, V> Local for Held<K, V>
where
    K: Hash + Eq + Clone + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
{
    fn invalidate(&self, name: &[u8]) {
        // A name that is no key is one that no load has asked for: those check the codec.
        if let Some(key) = self.keys.decode(name) {
            self.cache.remove(&key);
        }
    }

    fn empty(&self, doubt: Doubt) {
        match self.stale_for.filter(|_| doubt.is_loss()) {
            None => self.cache.clear(),
            Some(limit) => {
                let mut entries = HashMap::new();
                self.cache.drain(|key, value| {
                    entries.insert(key.clone(), value.clone());
                });
                // A limit that passes the end of the clock is a century.
                let now = Instant::now();
                let until = now.checked_add(limit).unwrap_or(now + 100 * YEAR);
                *self.stale() = Some(Stale { entries, until });
            }
        }
    }

    fn connected(&self) {
        self.stale().take();
    }

    fn still_down(&self) {
        let now = Instant::now();
        self.stale().take_if(|stale| stale.until <= now);
    }
}

const YEAR: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// The replies of the server to a read of one key: the value and the time to live.
type Reply = (Option<Vec<u8>>, i64);

impl<K, V> NearCache<K, V>
where
    K: Hash + Eq + Clone + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
{
    /// Returns a builder with the codecs of keys and values.
    ///
    /// # Examples
    ///
    /// ```
    /// use cortado_near::{NearCache, Prefixed, Text};
    ///
    /// let builder = NearCache::<u64, String>::builder(Prefixed::new("name:"), Text);
    /// ```
    pub fn builder(keys: impl KeyCodec<K>, values: impl ValueCodec<V>) -> Builder<K, V> {
        Builder::new(keys, values)
    }

    pub(crate) async fn connect(
        cache: Cache<K, Option<V>>,
        keys: Arc<dyn KeyCodec<K>>,
        values: Arc<dyn ValueCodec<V>>,
        settings: Settings,
        max_age: Duration,
        down: Down,
    ) -> Result<Self, ConnectError> {
        let prefixes = match &settings.tracking {
            Tracking::Broadcast(prefixes) => {
                prefixes.iter().map(|prefix| prefix.clone().into_bytes()).collect()
            }
            Tracking::PerKey => Vec::new(),
        };
        let stale_for = match down {
            Down::ServeStale(limit) => Some(limit),
            Down::Fail | Down::Miss => None,
        };
        let held = Arc::new(Held { cache, keys, stale_for, stale: Mutex::new(None) });
        let link = Arc::new(Link::new(settings, held.clone()));
        link.connect().await?;
        let supervisor = tokio::spawn(link.clone().supervise());
        let near = Near { held, values, link, prefixes, max_age, down, supervisor };
        Ok(Self { near: Arc::new(near) })
    }

    /// Returns the value of a key, from memory or from the server; `None` if the server has none.
    ///
    /// Of all callers that ask for a key that is not held, one reads it and the others wait for
    /// that.
    ///
    /// # Errors
    ///
    /// [`Error::OutsidePrefixes`] or [`Error::Key`] if the key could not be kept coherent,
    /// [`Error::Decode`] if what the server has is no value, [`Error::Server`] if it fails, and
    /// [`Error::Down`] if it cannot be reached, unless [`while_down`](Builder::while_down) has
    /// another answer. Those that wait for one read all get its error.
    ///
    /// # Cancel safety
    ///
    /// May be dropped at any time. If it was reading, one of those that wait takes over.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// # use cortado_near::{Error, NearCache};
    /// # async fn run(near: NearCache<u64, String>) -> Result<(), Error> {
    /// match near.get(&7).await? {
    ///     Some(name) => println!("7 is {name}"),
    ///     None => println!("7 has no name"),
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub async fn get(&self, key: &K) -> Result<Option<V>, Error> {
        let near = &*self.near;
        // The cache polls the load when it has claimed the key, not earlier.
        match near.held.cache.entry_ref(key).or_try_load_shared_async(near.load(key)).await {
            Ok(value) => Ok(value),
            Err(error) => near.instead(key, Arc::unwrap_or_clone(error)),
        }
    }

    /// Returns the values of many keys, in their order.
    ///
    /// Those that are not held are read by one `MGET` and their times to live, in one round trip;
    /// those that other callers read already are waited for. A key whose value is no string reads
    /// as `None` here.
    ///
    /// # Errors
    ///
    /// As [`get`](Self::get): the first error of any key.
    ///
    /// # Cancel safety
    ///
    /// As [`get`](Self::get).
    ///
    /// # Examples
    ///
    /// ```no_run
    /// # use cortado_near::{Error, NearCache};
    /// # async fn run(near: NearCache<u64, String>) -> Result<(), Error> {
    /// let names = near.get_many(&[7, 8, 9]).await?;
    /// assert_eq!(names.len(), 3);
    /// # Ok(())
    /// # }
    /// ```
    pub async fn get_many(&self, keys: &[K]) -> Result<Vec<Option<V>>, Error> {
        let near = &*self.near;
        let mut places = HashMap::<&K, Vec<usize>>::with_capacity(keys.len());
        for (place, key) in keys.iter().enumerate() {
            places.entry(key).or_default().push(place);
        }
        let mut values = vec![None; keys.len()];
        let mut note = |key: &K, value: &Option<V>| {
            for &place in &places[key] {
                values[place].clone_from(value);
            }
        };
        let mut missing: Vec<&K> = places.keys().copied().collect();
        while !missing.is_empty() {
            // Claimed without waiting, so that no two callers hold keys that the other waits for.
            let (mut mine, mut theirs) = (Vec::new(), Vec::new());
            for key in missing {
                match near.held.cache.claim_async(key.clone(), ready(())).await {
                    Claim::Hit(value) => note(key, &value),
                    Claim::Fill(guard) => mine.push(guard),
                    Claim::Busy(_) => theirs.push(key),
                }
            }
            if mine.is_empty()
                && let Some(key) = theirs.pop()
            {
                match near.held.cache.claim_async(key.clone(), pending()).await {
                    Claim::Hit(value) => note(key, &value),
                    // The other caller has failed.
                    Claim::Fill(guard) => mine.push(guard),
                    Claim::Busy(_) => unreachable!("it waits as long as it takes"),
                }
            }
            near.load_many(mine, &mut note).await?;
            missing = theirs;
        }
        Ok(values)
    }

    /// Returns the value of a key if it is held: no round trip, no effect on what is evicted.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// # fn run(near: cortado_near::NearCache<u64, String>) {
    /// let name = near.peek(&7).unwrap_or_else(|| "unknown".to_string());
    /// # }
    /// ```
    pub fn peek(&self, key: &K) -> Option<V> {
        self.near.held.cache.peek(key)?.value().clone()
    }

    /// Writes a value to the server, without a time to live.
    ///
    /// It is not kept here: the next [`get`](Self::get) reads it. When this returns, no caller of
    /// this process gets an older value.
    ///
    /// # Errors
    ///
    /// As [`get`](Self::get), and [`Error::Encode`]. After [`Error::Server`] the value may have
    /// been written or not: a write is sent once.
    ///
    /// # Cancel safety
    ///
    /// May be dropped at any time: the value is written or not.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// # use cortado_near::{Error, NearCache};
    /// # async fn run(near: NearCache<u64, String>) -> Result<(), Error> {
    /// near.set(&7, &"seven".to_string()).await?;
    /// assert_eq!(near.get(&7).await?.as_deref(), Some("seven"));
    /// # Ok(())
    /// # }
    /// ```
    pub async fn set(&self, key: &K, value: &V) -> Result<(), Error> {
        self.near.set(key, value, None).await
    }

    /// The same with a time to live on the server, of a millisecond at least.
    ///
    /// # Errors
    ///
    /// As [`set`](Self::set).
    ///
    /// # Cancel safety
    ///
    /// As [`set`](Self::set).
    ///
    /// # Examples
    ///
    /// ```no_run
    /// # use std::time::Duration;
    /// # use cortado_near::{Error, NearCache};
    /// # async fn run(near: NearCache<u64, String>) -> Result<(), Error> {
    /// near.set_with_ttl(&7, &"seven".to_string(), Duration::from_secs(60)).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn set_with_ttl(&self, key: &K, value: &V, ttl: Duration) -> Result<(), Error> {
        self.near.set(key, value, Some(ttl)).await
    }

    /// Removes a key from the server; returns whether it had it.
    ///
    /// # Errors
    ///
    /// As [`set`](Self::set).
    ///
    /// # Cancel safety
    ///
    /// As [`set`](Self::set).
    ///
    /// # Examples
    ///
    /// ```no_run
    /// # use cortado_near::{Error, NearCache};
    /// # async fn run(near: NearCache<u64, String>) -> Result<(), Error> {
    /// let was_there = near.remove(&7).await?;
    /// assert_eq!(near.get(&7).await?, None);
    /// # Ok(())
    /// # }
    /// ```
    pub async fn remove(&self, key: &K) -> Result<bool, Error> {
        let near = &*self.near;
        let name = near.name(key)?;
        let removed: Result<u64, _> = near.link.write(cmd("DEL").arg(name)).await;
        near.held.written(key);
        removed.map(|count| count > 0)
    }

    /// Returns how the cache stands to its server.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// # fn run(near: cortado_near::NearCache<u64, String>) {
    /// use cortado_near::Phase;
    ///
    /// let is_ready = near.state().phase == Phase::Connected;
    /// # }
    /// ```
    pub fn state(&self) -> State {
        self.near.link.state()
    }

    /// Waits until the state is another one than `seen`, and returns it. States may be skipped.
    ///
    /// # Cancel safety
    ///
    /// May be dropped at any time.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// # async fn run(near: cortado_near::NearCache<u64, String>) {
    /// let mut state = near.state();
    /// loop {
    ///     state = near.state_after(state).await;
    ///     println!("generation {}: {:?}", state.generation, state.phase);
    /// }
    /// # }
    /// ```
    pub async fn state_after(&self, seen: State) -> State {
        self.near.link.state_after(seen).await
    }

    /// Returns what was counted so far.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// # fn run(near: cortado_near::NearCache<u64, String>) {
    /// let metrics = near.metrics();
    /// println!("{} round trips, {} invalidations", metrics.round_trips, metrics.invalidations);
    /// # }
    /// ```
    pub fn metrics(&self) -> NearMetrics {
        self.near.link.counters.snapshot(self.near.held.cache.metrics())
    }

    /// Returns how many keys are held, those included that the server does not have.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// # fn run(near: cortado_near::NearCache<u64, String>) {
    /// println!("{} keys", near.len());
    /// # }
    /// ```
    pub fn len(&self) -> usize {
        self.near.held.cache.len()
    }

    /// Returns whether no key is held.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// # fn run(near: cortado_near::NearCache<u64, String>) {
    /// assert_eq!(near.is_empty(), near.len() == 0);
    /// # }
    /// ```
    pub fn is_empty(&self) -> bool {
        self.near.held.cache.is_empty()
    }

    /// Returns the local cache.
    #[cfg(feature = "metrics")]
    pub(crate) fn local(&self) -> &Cache<K, Option<V>> {
        &self.near.held.cache
    }
}

impl<K, V> Near<K, V>
where
    K: Hash + Eq + Clone + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
{
    /// Returns the name of a key on the server, unless its changes would not be noticed.
    fn name(&self, key: &K) -> Result<Vec<u8>, Error> {
        let name = self.held.keys.encode(key);
        if !self.prefixes.is_empty() && !self.prefixes.iter().any(|prefix| name.starts_with(prefix))
        {
            return Err(Error::OutsidePrefixes(text(&name)));
        }
        if self.held.keys.decode(&name).as_ref() != Some(key) {
            return Err(Error::Key(text(&name)));
        }
        Ok(name)
    }

    /// Reads a key from the server.
    async fn load(&self, key: &K) -> Result<(Option<V>, InsertOptions), Error> {
        let name = self.name(key)?;
        let mut request = pipe();
        request.cmd("GET").arg(&name).cmd("PTTL").arg(&name);
        let (reply, sent): (Reply, _) = self.link.read(&request, 1).await?;
        self.decode(&name, reply, sent)
    }

    /// Reads the keys of some guards by one request, and fills them.
    async fn load_many(
        &self,
        guards: Vec<FillGuard<'_, K, Option<V>, cortado::DefaultHashBuilder>>,
        mut note: impl FnMut(&K, &Option<V>),
    ) -> Result<(), Error> {
        if guards.is_empty() {
            return Ok(());
        }
        // A key that has an error of its own must not be the other keys' error.
        let mut failed = None;
        let mut asked = Vec::with_capacity(guards.len());
        for guard in guards {
            match self.name(guard.key()) {
                Ok(name) => asked.push((guard, name)),
                Err(error) => {
                    guard.fail(Arc::new(error.clone()));
                    failed = Some(error);
                }
            }
        }
        if let Some(error) = failed {
            return Err(error);
        }
        let mut request = pipe();
        request.cmd("MGET").arg(asked.iter().map(|(_, name)| name).collect::<Vec<_>>());
        for (_, name) in &asked {
            request.cmd("PTTL").arg(name);
        }
        let (replies, sent) = match self.replies(&request, asked.len()).await {
            Ok(replies) => replies,
            Err(error) if matches!(error, Error::Down) => {
                for (guard, _) in asked {
                    let key = guard.key().clone();
                    guard.fail(Arc::new(error.clone()));
                    note(&key, &self.instead(&key, error.clone())?);
                }
                return Ok(());
            }
            Err(error) => {
                for (guard, _) in asked {
                    guard.fail(Arc::new(error.clone()));
                }
                return Err(error);
            }
        };
        for ((guard, name), reply) in asked.into_iter().zip(replies) {
            match self.decode(&name, reply, sent) {
                Ok((value, options)) => {
                    let key = guard.key().clone();
                    note(&key, guard.fill_with(value, options).value());
                }
                Err(error) => {
                    guard.fail(Arc::new(error.clone()));
                    failed = Some(error);
                }
            }
        }
        failed.map_or(Ok(()), Err)
    }

    /// Sends an `MGET` that so many `PTTL` follow.
    async fn replies(
        &self,
        request: &redis::Pipeline,
        count: usize,
    ) -> Result<(Vec<Reply>, Instant), Error> {
        let (mut replies, sent): (Vec<redis::Value>, _) = self.link.read(request, count).await?;
        let unexpected = || {
            let kind = redis::ErrorKind::UnexpectedReturnType;
            Error::Server((kind, "MGET and PTTL have other replies").into())
        };
        if replies.len() != 1 + count {
            return Err(unexpected());
        }
        let times = replies.split_off(1);
        let values: Vec<Option<Vec<u8>>> =
            redis::from_redis_value(replies.remove(0)).map_err(|_| unexpected())?;
        if values.len() != count {
            return Err(unexpected());
        }
        let time = |time| redis::from_redis_value::<i64>(time).map_err(|_| unexpected());
        let replies = values.into_iter().zip(times).map(|(value, left)| Ok((value, time(left)?)));
        Ok((replies.collect::<Result<_, _>>()?, sent))
    }

    /// Returns the value of a reply, and how long it may be kept.
    fn decode(
        &self,
        name: &[u8],
        (bytes, left): Reply,
        sent: Instant,
    ) -> Result<(Option<V>, InsertOptions), Error> {
        let ttl = ttl(bytes.is_some(), left, self.max_age, sent.elapsed());
        let value = match bytes.map(|bytes| self.values.decode(&bytes)).transpose() {
            Ok(value) => value,
            Err(error) => {
                return Err(Error::Decode { key: text(name), source: Arc::from(error) });
            }
        };
        Ok((value, InsertOptions::new().ttl(ttl)))
    }

    /// Returns what a read answers in place of an error.
    fn instead(&self, key: &K, error: Error) -> Result<Option<V>, Error> {
        match (&error, self.down) {
            (Error::Down, Down::Miss) => Ok(None),
            (Error::Down, Down::ServeStale(_)) => match self.held.stale_value(key) {
                Some(value) => {
                    add(&self.link.counters.stale_answers, 1);
                    Ok(value)
                }
                None => Err(error),
            },
            _ => Err(error),
        }
    }

    async fn set(&self, key: &K, value: &V, ttl: Option<Duration>) -> Result<(), Error> {
        let name = self.name(key)?;
        let bytes = self.values.encode(value).map_err(|error| Error::Encode(Arc::from(error)))?;
        let mut request = cmd("SET");
        request.arg(name).arg(bytes);
        if let Some(ttl) = ttl {
            request.arg("PX").arg(ttl.as_millis().clamp(1, i64::MAX as u128 / 2) as u64);
        }
        let written = self.link.write(&request).await;
        // After the acknowledgement, so that no load that was sent before it is kept; and where it
        // has failed, too, because the server may have written.
        self.held.written(key);
        written
    }
}

/// Returns how long a reply may be kept that arrives `elapsed` after its request was sent. The
/// server's `left` are milliseconds, or -1 for a key without a time to live, or -2 for none.
fn ttl(is_there: bool, left: i64, max_age: Duration, elapsed: Duration) -> Duration {
    let limit = match u64::try_from(left) {
        Ok(left) if is_there => max_age.min(Duration::from_millis(left)),
        // It has expired between the two replies.
        Err(_) if is_there && left == -2 => Duration::ZERO,
        _ => max_age,
    };
    limit.saturating_sub(elapsed)
}

fn text(name: &[u8]) -> String {
    String::from_utf8_lossy(name).into_owned()
}

impl<K, V> Drop for Near<K, V> {
    fn drop(&mut self) {
        self.supervisor.abort();
    }
}

impl<K, V> Clone for NearCache<K, V> {
    fn clone(&self) -> Self {
        Self { near: self.near.clone() }
    }
}

impl<K, V> fmt::Debug for NearCache<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NearCache").field("state", &self.near.link.state()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn time_to_live_is_the_smaller_one_counted_from_sending() {
        let ttl = |is_there, left| ttl(is_there, left, 10 * SECOND, SECOND);
        assert_eq!(ttl(true, -1), 9 * SECOND);
        assert_eq!(ttl(true, 5_000), 4 * SECOND);
        assert_eq!(ttl(true, 60_000), 9 * SECOND);
        assert_eq!(ttl(true, 500), Duration::ZERO);
    }

    #[test]
    fn a_key_that_expires_between_the_replies_is_not_kept() {
        assert_eq!(ttl(true, -2, SECOND, Duration::ZERO), Duration::ZERO);
    }

    #[test]
    fn an_absent_key_is_kept_for_max_age() {
        assert_eq!(ttl(false, -2, SECOND, Duration::ZERO), SECOND);
    }
}
