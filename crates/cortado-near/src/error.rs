//! What can go wrong: when a near cache connects, and afterwards.

use std::{error, fmt, sync::Arc};

use cortado::BuildError;
use redis::RedisError;

/// Why a call of a near cache has failed.
///
/// Callers that wait for one load all get its error, so it can be cloned.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Error {
    /// The server cannot be reached, and [`while_down`](crate::Builder::while_down) has no answer.
    Down,
    /// The key's name begins with none of the prefixes of
    /// [`Tracking::Broadcast`](crate::Tracking::Broadcast): no invalidation would come for it.
    OutsidePrefixes(String),
    /// The key codec does not return the key of the name that it has given: no invalidation would
    /// find its entry.
    Key(String),
    /// The value could not be encoded.
    Encode(Arc<dyn error::Error + Send + Sync>),
    /// What the server has is not a value of this cache. It is not kept.
    Decode {
        /// The key's name on the server.
        key: String,
        /// What the codec says.
        source: Arc<dyn error::Error + Send + Sync>,
    },
    /// The server, or the way to it, has failed.
    Server(RedisError),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Down => write!(f, "the server cannot be reached"),
            Self::OutsidePrefixes(key) => {
                write!(f, "the key `{key}` is outside the tracked prefixes")
            }
            Self::Key(key) => write!(f, "the key codec does not return the key of `{key}`"),
            Self::Encode(_) => write!(f, "the value could not be encoded"),
            Self::Decode { key, .. } => write!(f, "the value of `{key}` could not be decoded"),
            Self::Server(_) => write!(f, "the server has failed"),
        }
    }
}

impl error::Error for Error {
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        match self {
            Self::Encode(source) | Self::Decode { source, .. } => Some(&**source),
            Self::Server(source) => Some(source),
            Self::Down | Self::OutsidePrefixes(_) | Self::Key(_) => None,
        }
    }
}

/// Why [`Builder::connect`](crate::Builder::connect) has failed.
#[derive(Debug)]
#[non_exhaustive]
pub enum ConnectError {
    /// [`max_age`](crate::Builder::max_age) was not set, or is zero.
    MaxAge,
    /// [`tracking`](crate::Builder::tracking) was not set.
    Tracking,
    /// An interval or a timeout is zero.
    ZeroTime,
    /// The local cache could not be built.
    Cache(BuildError),
    /// The address is none, or the server could not be reached.
    Server(RedisError),
    /// The server does not speak RESP3, so it cannot send invalidations (Redis before 6.0).
    Resp3(RedisError),
    /// The server refused `CLIENT TRACKING`: by an access rule, or because one prefix begins with
    /// another.
    TrackingRefused(RedisError),
}

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::MaxAge => "`max_age` has to be set, and longer than zero",
            Self::Tracking => "`tracking` has to be set",
            Self::ZeroTime => "intervals and timeouts have to be longer than zero",
            Self::Cache(_) => "the local cache could not be built",
            Self::Server(_) => "the server could not be reached",
            Self::Resp3(_) => "the server does not speak RESP3",
            Self::TrackingRefused(_) => "the server refused to track keys",
        })
    }
}

impl error::Error for ConnectError {
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        match self {
            Self::Cache(source) => Some(source),
            Self::Server(source) | Self::Resp3(source) | Self::TrackingRefused(source) => {
                Some(source)
            }
            Self::MaxAge | Self::Tracking | Self::ZeroTime => None,
        }
    }
}
