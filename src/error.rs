//! Errors: a cache that cannot be built, and a deadline that cannot be set.

use std::error::Error;
use std::fmt;

/// Why a cache could not be built.
///
/// # Examples
///
/// ```
/// use cortado::{BuildError, Cache};
///
/// let error = Cache::<u64, u64>::builder().build().unwrap_err();
/// assert_eq!(error, BuildError::MaxCostZero);
/// assert!(error.to_string().contains("max_cost"));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum BuildError {
    /// The budget was 0, so no entry that costs anything could be stored.
    MaxCostZero,
    /// More entries were expected than the table supports.
    TooManyEntries {
        /// The expected number of entries.
        given: usize,
        /// The maximum.
        limit: usize,
    },
    /// Both a time to live for all entries and an [`Expiry`](crate::Expiry) were set.
    TtlAndExpiry,
    /// Both a time to idle and a refresh by age were set; an entry has room for only one of them.
    RefreshAndTti,
    /// The maintenance thread could not be started, for the reason that the system gave. Always
    /// returned on a target without threads, such as `wasm32-wasip1`:
    /// [`build_manual`](crate::CacheBuilder::build_manual) starts none.
    SpawnFailed(String),
    /// The first memory of the table or the sketch could not be allocated.
    OutOfMemory {
        /// The size of the allocation in bytes; `usize::MAX` if that does not fit a `usize`.
        bytes: usize,
    },
}

impl fmt::Display for BuildError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::MaxCostZero => {
                write!(f, "max_cost is 0, so nothing could be kept: give a budget of 1 or more")
            }
            Self::TooManyEntries { given, limit } => write!(
                f,
                "{given} entries are expected, and the table takes {limit} at most: expect fewer, \
                 it grows by itself"
            ),
            Self::TtlAndExpiry => {
                write!(f, "both `ttl` and `expiry` are set: answer with the ttl in `on_create`")
            }
            Self::RefreshAndTti => {
                write!(
                    f,
                    "both `refresh_after` and `tti` are set: use `ttl` beside `refresh_after`"
                )
            }
            Self::SpawnFailed(reason) => write!(
                f,
                "the maintenance thread could not be started ({reason}): allow the process another \
                 thread, or build the cache without one and call `tick` yourself"
            ),
            Self::OutOfMemory { bytes } => write!(
                f,
                "{bytes} bytes for the first table or sketch could not be allocated: expect fewer \
                 entries, both grow as entries come"
            ),
        }
    }
}

impl Error for BuildError {}

/// A failed allocation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutOfMemory {
    /// The size of the allocation in bytes; `usize::MAX` if that does not fit a `usize`.
    pub bytes: usize,
}

impl From<OutOfMemory> for BuildError {
    fn from(OutOfMemory { bytes }: OutOfMemory) -> Self {
        Self::OutOfMemory { bytes }
    }
}

/// Why the deadline of an entry could not be set.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use cortado::{Cache, TtlError};
///
/// let cache = Cache::new(10);
/// assert_eq!(cache.set_ttl("k", Some(Duration::ZERO)), Err(TtlError::Absent));
/// cache.insert("k", 1);
/// assert_eq!(cache.set_ttl("k", Some(Duration::ZERO)), Err(TtlError::Untimed));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TtlError {
    /// The key has no entry.
    Absent,
    /// The entry was created without room for a deadline.
    Untimed,
}

impl fmt::Display for TtlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Absent => "the key has no entry",
            Self::Untimed => {
                "the entry was made without room for a deadline: build the cache with \
                 `timed(true)`, or insert with a time to live"
            }
        })
    }
}

impl Error for TtlError {}

#[cfg(test)]
mod tests {
    use super::{BuildError, TtlError};

    #[test]
    fn each_message_names_the_setting_and_what_to_do() {
        let messages = [
            (BuildError::MaxCostZero, "max_cost is 0", "1 or more"),
            (BuildError::TooManyEntries { given: 9, limit: 5 }, "9 entries", "expect fewer"),
            (BuildError::TtlAndExpiry, "`ttl`", "`on_create`"),
            (BuildError::RefreshAndTti, "`tti`", "`ttl`"),
            (BuildError::SpawnFailed("no more threads".into()), "no more threads", "`tick`"),
            (BuildError::OutOfMemory { bytes: 77 }, "77 bytes", "expect fewer"),
        ];
        for (error, what, remedy) in messages {
            let message = error.to_string();
            assert!(message.contains(what) && message.contains(remedy), "{message}");
        }
    }

    #[test]
    fn missing_deadline_is_explained() {
        assert!(TtlError::Absent.to_string().contains("no entry"));
        assert!(TtlError::Untimed.to_string().contains("`timed(true)`"));
    }

    #[test]
    fn build_error_converts_to_a_boxed_error() {
        let error: Box<dyn std::error::Error + Send + Sync> = Box::new(BuildError::MaxCostZero);
        assert!(error.downcast_ref::<BuildError>().is_some());
    }
}
