//! Whether a near cache may answer from memory, and why it last could not.

use std::fmt;

/// How a near cache stands to its server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Phase {
    /// The tracked connection is up: what is read is kept.
    Connected,
    /// The connection was lost, and the first attempt to replace it runs. Calls wait for it.
    Connecting,
    /// That attempt has failed. Further ones run in the background, and calls are answered as
    /// [`while_down`](crate::Builder::while_down) says.
    Down,
}

/// Why a near cache has emptied itself and begun a new generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Doubt {
    /// The connection ended, by the server, by the network, or by what was read from it.
    Disconnected,
    /// No answer to a [ping](crate::Builder::ping) came in time, or an error.
    Unanswered,
    /// The server was flushed, or has replaced its data (a replica that synchronizes).
    Flushed,
    /// A push message was not what an invalidation looks like.
    Unreadable,
    /// The server refused a write as it is a replica by now. The connection is replaced.
    ReadOnly,
}

impl Doubt {
    /// Whether the connection is given up, too.
    pub(crate) fn is_loss(self) -> bool {
        self != Self::Flushed
    }
}

impl fmt::Display for Doubt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Disconnected => "the connection was lost",
            Self::Unanswered => "a ping was not answered",
            Self::Flushed => "the server was flushed",
            Self::Unreadable => "a push message could not be read",
            Self::ReadOnly => "the server is a replica",
        })
    }
}

/// What [`NearCache::state`](crate::NearCache::state) returns: a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct State {
    /// How the cache stands to its server.
    pub phase: Phase,
    /// Counts how often the cache has emptied itself. Values of different generations are never
    /// in the cache together.
    pub generation: u64,
    /// Why it last did so.
    pub doubt: Option<Doubt>,
}
