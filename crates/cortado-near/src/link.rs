//! The tracked connection: who may use it, when it is in doubt, and how it is replaced.
//!
//! # Protocol
//!
//! ```text
//!                connect                 a doubt that gives the connection up
//! Connecting ──────────────▶ Connected ──────────────────────────────────────▶ Connecting
//!     │ the attempt fails     ▲     ▲ │
//!     ▼                       │     └─┘ Doubt::Flushed
//!   Down ─────────────────────┘
//!          a later attempt succeeds
//! ```
//!
//! Every doubt increments the generation and empties the local cache, in this order: the status is
//! changed, the cache is cleared (which invalidates running loads), the new state is published, all
//! under the lock of the status. A load claims its key first and asks for the [`Session`]
//! afterwards. So a load that still gets the old session has claimed before the clear and is
//! invalidated by it; and one that claims after the clear gets the new session, or waits for it.
//!
//! Push messages are handled by the task that reads the connection, before it passes on any later
//! reply: an invalidation that the server has sent before a reply is applied when that reply
//! reaches its load. What arrives of an earlier session than the current one only removes keys.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{
            AtomicBool, AtomicU64,
            Ordering::{Acquire, Relaxed, Release},
        },
    },
    time::{Duration, Instant},
};

use redis::{
    AsyncConnectionConfig, Client, ErrorKind, FromRedisValue, Pipeline, PushInfo, PushKind,
    RedisError, ServerErrorKind, Value,
    aio::{MultiplexedConnection, SendError},
    cmd,
};
use tokio::{sync::watch, time::timeout};

use crate::{
    builder::Tracking,
    error::{ConnectError, Error},
    metrics::{Counters, add},
    state::{Doubt, Phase, State},
    trace,
};

/// The pause after the first attempt to connect that fails; it doubles with each.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
/// The longest pause: a server that is back is found within it.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// What the link acts on: the local cache.
pub(crate) trait Local: Send + Sync + 'static {
    /// Removes a key, and invalidates a running load of it.
    fn invalidate(&self, name: &[u8]);
    /// Removes all keys, and invalidates all running loads.
    fn empty(&self, doubt: Doubt);
    /// A new connection is about to serve.
    fn connected(&self);
    /// An attempt to connect has failed.
    fn still_down(&self);
}

pub(crate) struct Settings {
    pub(crate) client: Client,
    pub(crate) tracking: Tracking,
    pub(crate) ping_every: Duration,
    pub(crate) ping_timeout: Duration,
    pub(crate) connect_timeout: Duration,
    pub(crate) response_timeout: Duration,
}

/// A connection, and the number that tells it from the others.
#[derive(Clone)]
struct Session {
    id: u64,
    connection: MultiplexedConnection,
}

struct Status {
    state: State,
    /// There while connected.
    session: Option<Session>,
}

pub(crate) struct Link {
    settings: Settings,
    local: Arc<dyn Local>,
    status: Mutex<Status>,
    /// The state of `status`, published when the cache is in that state.
    published: watch::Sender<State>,
    sessions: AtomicU64,
    pub(crate) counters: Counters,
}

impl Link {
    pub(crate) fn new(settings: Settings, local: Arc<dyn Local>) -> Self {
        let state = State { phase: Phase::Connecting, generation: 0, doubt: None };
        Self {
            settings,
            local,
            status: Mutex::new(Status { state, session: None }),
            published: watch::Sender::new(state),
            sessions: AtomicU64::new(0),
            counters: Counters::default(),
        }
    }

    pub(crate) fn state(&self) -> State {
        *self.published.borrow()
    }

    /// Waits until the state is another one than this.
    pub(crate) async fn state_after(&self, seen: State) -> State {
        let mut changes = self.published.subscribe();
        match changes.wait_for(|state| *state != seen).await {
            Ok(state) => *state,
            Err(_) => unreachable!("the sender is a field of this"),
        }
    }

    /// Sends a request for values, and returns the reply and when the request was sent.
    ///
    /// One that fails with its connection is sent once more, over the next.
    pub(crate) async fn read<T: FromRedisValue>(
        &self,
        request: &Pipeline,
        keys: usize,
    ) -> Result<(T, Instant), Error> {
        let mut is_second = false;
        loop {
            let mut session = self.session().await?;
            add(&self.counters.round_trips, 1);
            add(&self.counters.keys_fetched, keys as u64);
            let sent = Instant::now();
            match request.query_async(&mut session.connection).await {
                Ok(reply) => return Ok((reply, sent)),
                Err(error) => {
                    self.check(&session, &error);
                    if is_second || !is_lost(&error) {
                        return Err(Error::Server(error));
                    }
                    is_second = true;
                }
            }
        }
    }

    /// Sends a write, once.
    pub(crate) async fn write<T: FromRedisValue>(&self, request: &redis::Cmd) -> Result<T, Error> {
        let mut session = self.session().await?;
        request.query_async(&mut session.connection).await.map_err(|error| {
            self.check(&session, &error);
            Error::Server(error)
        })
    }

    /// Returns the session of this moment, or waits for the first attempt to make one.
    async fn session(&self) -> Result<Session, Error> {
        let mut changes = None;
        loop {
            {
                let status = self.status();
                match (&status.session, status.state.phase) {
                    (Some(session), _) => return Ok(session.clone()),
                    (None, Phase::Down) => return Err(Error::Down),
                    // Subscribed under the lock, under which changes are published, too.
                    (None, _) => changes.get_or_insert_with(|| self.published.subscribe()),
                }
                .borrow_and_update();
            }
            if let Some(changes) = &mut changes {
                changes.changed().await.map_err(|_| Error::Down)?;
            }
        }
    }

    /// Begins to doubt a session because of an error, if that is one that says so.
    fn check(&self, session: &Session, error: &RedisError) {
        if is_lost(error) {
            self.doubt(session.id, Doubt::Disconnected);
        } else if error.kind() == ErrorKind::Server(ServerErrorKind::ReadOnly) {
            self.doubt(session.id, Doubt::ReadOnly);
        }
    }

    /// Empties the cache and begins a new generation, if the session is the current one.
    fn doubt(&self, session: u64, doubt: Doubt) {
        let mut status = self.status();
        if status.session.as_ref().is_none_or(|current| current.id != session) {
            return;
        }
        let mut given_up = None;
        if doubt.is_loss() {
            given_up = status.session.take();
            status.state.phase = Phase::Connecting;
        }
        status.state.generation += 1;
        status.state.doubt = Some(doubt);
        self.local.empty(doubt);
        self.published.send_replace(status.state);
        add(&self.counters.doubts, 1);
        trace::doubted(status.state.generation, doubt);
        drop(status);
        // May end the task that reads the connection: it may be this one.
        drop(given_up);
    }

    fn status(&self) -> MutexGuard<'_, Status> {
        // Each change is one assignment, so a panic of the local cache's functions leaves no half.
        self.status.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes a tracked connection, and lets callers use it.
    pub(crate) async fn connect(self: &Arc<Self>) -> Result<(), ConnectError> {
        // Relaxed: only to tell sessions apart.
        let id = self.sessions.fetch_add(1, Relaxed);
        let is_over = Arc::new(AtomicBool::new(false));
        let receiver = Receiver { link: Arc::downgrade(self), session: id, is_over };
        let is_over = receiver.is_over.clone();
        let limit = self.settings.connect_timeout + self.settings.response_timeout;
        let connection =
            timeout(limit, self.tracked_connection(receiver)).await.unwrap_or_else(|_| {
                Err(ConnectError::Server(std::io::Error::from(std::io::ErrorKind::TimedOut).into()))
            })?;
        {
            let mut status = self.status();
            self.local.connected();
            status.session = Some(Session { id, connection });
            status.state.phase = Phase::Connected;
            add(&self.counters.connections, 1);
            trace::connected(status.state.generation);
            self.published.send_replace(status.state);
        }
        // Acquire: pairs with the Release store of the receiver, whose doubt may have come before
        // the session was the current one, and then had no effect.
        if is_over.load(Acquire) {
            self.doubt(id, Doubt::Disconnected);
        }
        Ok(())
    }

    async fn tracked_connection(
        &self,
        receiver: Receiver,
    ) -> Result<MultiplexedConnection, ConnectError> {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(self.settings.connect_timeout))
            .set_response_timeout(Some(self.settings.response_timeout))
            .set_push_sender(move |push| {
                receiver.receive(push);
                Ok::<_, SendError>(())
            });
        let connected = self.settings.client.get_multiplexed_async_connection_with_config(&config);
        let mut connection = connected.await.map_err(|error| match error.kind() {
            ErrorKind::RESP3NotSupported => ConnectError::Resp3(error),
            // Redis quotes the command in two ways, of which the client library knows one.
            _ if is_unknown_hello(&error) => ConnectError::Resp3(error),
            _ => ConnectError::Server(error),
        })?;
        let mut tracking = cmd("CLIENT");
        tracking.arg("TRACKING").arg("ON");
        if let Tracking::Broadcast(prefixes) = &self.settings.tracking {
            tracking.arg("BCAST");
            for prefix in prefixes {
                tracking.arg("PREFIX").arg(prefix);
            }
        }
        match tracking.query_async::<()>(&mut connection).await {
            Ok(()) => Ok(connection),
            Err(error) if matches!(error.kind(), ErrorKind::Server(_) | ErrorKind::Extension) => {
                Err(ConnectError::TrackingRefused(error))
            }
            Err(error) => Err(ConnectError::Server(error)),
        }
    }

    /// Tests the connection, and replaces it when it is lost; never returns.
    pub(crate) async fn supervise(self: Arc<Self>) {
        loop {
            self.ping_until_lost().await;
            let mut pause = FIRST_PAUSE;
            while let Err(error) = self.connect().await {
                trace::failed(&error);
                {
                    let mut status = self.status();
                    status.state.phase = Phase::Down;
                    self.published.send_replace(status.state);
                }
                self.local.still_down();
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
        }
    }

    async fn ping_until_lost(&self) {
        let mut changes = self.published.subscribe();
        loop {
            let lost = changes.wait_for(|state| state.phase != Phase::Connected);
            if timeout(self.settings.ping_every, lost).await.is_ok() {
                return;
            }
            let Some(mut session) = self.status().session.clone() else { continue };
            let ping = cmd("PING");
            let answer = ping.query_async::<Value>(&mut session.connection);
            if !matches!(timeout(self.settings.ping_timeout, answer).await, Ok(Ok(_))) {
                self.doubt(session.id, Doubt::Unanswered);
            }
        }
    }
}

/// Whether an error says that the connection is gone.
fn is_lost(error: &RedisError) -> bool {
    error.is_connection_dropped() || (error.is_unrecoverable_error() && !error.is_timeout())
}

/// Whether an error says that the server does not know `HELLO`, by which RESP3 is chosen.
fn is_unknown_hello(error: &RedisError) -> bool {
    error.detail().is_some_and(|text| text.starts_with("unknown command") && text.contains("HELLO"))
}

/// What the task that reads a connection calls with each push message.
struct Receiver {
    link: Weak<Link>,
    session: u64,
    /// Whether the connection has ended.
    is_over: Arc<AtomicBool>,
}

impl Receiver {
    fn receive(&self, push: PushInfo) {
        let Some(link) = self.link.upgrade() else { return };
        match push.kind {
            PushKind::Invalidate => match invalidated(&push.data) {
                Invalidated::Keys(names) => {
                    add(&link.counters.invalidations, names.len() as u64);
                    names.into_iter().for_each(|name| link.local.invalidate(name));
                }
                Invalidated::All => link.doubt(self.session, Doubt::Flushed),
                Invalidated::Unknown => link.doubt(self.session, Doubt::Unreadable),
            },
            PushKind::Disconnection => {
                // Release: pairs with the Acquire load of `Link::connect`.
                self.is_over.store(true, Release);
                link.doubt(self.session, Doubt::Disconnected);
            }
            // Nothing else is asked for.
            _ => {}
        }
    }
}

/// What an invalidation message says.
#[derive(Debug, PartialEq)]
enum Invalidated<'a> {
    Keys(Vec<&'a [u8]>),
    All,
    Unknown,
}

/// Reads an invalidation message: a list of names, or null for all keys.
fn invalidated(data: &[Value]) -> Invalidated<'_> {
    match data {
        [Value::Nil] => Invalidated::All,
        [Value::Array(names)] => {
            let names = names.iter().map(name).collect::<Option<_>>();
            names.map_or(Invalidated::Unknown, Invalidated::Keys)
        }
        _ => Invalidated::Unknown,
    }
}

fn name(name: &Value) -> Option<&[u8]> {
    match name {
        Value::BulkString(name) => Some(name),
        Value::SimpleString(name) => Some(name.as_bytes()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_from_a_message() {
        let names = Value::Array(vec![
            Value::BulkString(b"px:1".to_vec()),
            Value::SimpleString("px:2".into()),
        ]);
        assert_eq!(invalidated(&[names]), Invalidated::Keys(vec![b"px:1", b"px:2"]));
    }

    #[test]
    fn null_invalidates_all() {
        assert_eq!(invalidated(&[Value::Nil]), Invalidated::All);
    }

    #[test]
    fn what_cannot_be_read_is_known_as_such() {
        for data in [&[][..], &[Value::Int(1)], &[Value::Array(vec![Value::Int(1)])]] {
            assert_eq!(invalidated(data), Invalidated::Unknown, "{data:?}");
        }
        assert_eq!(invalidated(&[Value::Nil, Value::Nil]), Invalidated::Unknown);
    }
}
