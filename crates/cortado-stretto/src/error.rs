//! `CacheError`: Stretto's errors, few of which can still occur.

use std::{error::Error, fmt};

use cortado::BuildError;

/// The reason why a cache could not be built.
///
/// Methods that return a `Result` in Stretto do so here, and never fail. The variants from
/// [`InvalidBufferSize`](Self::InvalidBufferSize) on, except for
/// [`ChannelError`](Self::ChannelError), exist for code that matches on them.
///
/// # Examples
///
/// ```
/// use stretto::{Cache, CacheError};
///
/// let built = Cache::<u64, u64>::new(100, 0);
/// assert_eq!(built.unwrap_err(), CacheError::InvalidMaxCost);
/// ```
#[derive(Clone, Debug, PartialEq)]
pub enum CacheError {
    /// More counters are requested than a table can have entries for.
    InvalidCountMinWidth(u64),
    /// Never returned.
    InvalidSamples(usize),
    /// Never returned.
    InvalidFalsePositiveRatio(f64),
    /// The number of counters is 0.
    InvalidNumCounters,
    /// The budget is 0 or less.
    InvalidMaxCost,
    /// Never returned.
    InvalidBufferSize,
    /// Never returned.
    SendError(String),
    /// Never returned.
    RecvError(String),
    /// Never returned.
    UpdateError(String),
    /// Never returned.
    InsertError(String),
    /// Never returned.
    RemoveError(String),
    /// Never returned.
    CleanupError(String),
    /// The system could not create a thread or had no memory; the text says which.
    ChannelError(String),
}

impl From<BuildError> for CacheError {
    fn from(error: BuildError) -> Self {
        match error {
            BuildError::MaxCostZero => Self::InvalidMaxCost,
            BuildError::TooManyEntries { given, .. } => Self::InvalidCountMinWidth(given as u64),
            other => Self::ChannelError(other.to_string()),
        }
    }
}

impl fmt::Display for CacheError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InvalidCountMinWidth(entries) => {
                write!(f, "num_counters is for {entries} entries, more than a table takes")
            }
            Self::InvalidSamples(samples) => write!(f, "the number of samples is {samples}"),
            Self::InvalidFalsePositiveRatio(ratio) => {
                write!(f, "the false positive ratio is {ratio}, not between 0 and 1")
            }
            Self::InvalidNumCounters => write!(f, "num_counters is 0: give ten an entry"),
            Self::InvalidMaxCost => {
                write!(f, "max_cost is not above 0: give a budget of 1 or more")
            }
            Self::InvalidBufferSize => write!(f, "the size of the buffer is 0"),
            Self::SendError(reason) => write!(f, "sending failed: {reason}"),
            Self::RecvError(reason) => write!(f, "receiving failed: {reason}"),
            Self::UpdateError(reason) => write!(f, "updating failed: {reason}"),
            Self::InsertError(reason) => write!(f, "inserting failed: {reason}"),
            Self::RemoveError(reason) => write!(f, "removing failed: {reason}"),
            Self::CleanupError(reason) => write!(f, "cleaning up failed: {reason}"),
            Self::ChannelError(reason) => f.write_str(reason),
        }
    }
}

impl Error for CacheError {}
