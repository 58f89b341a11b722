//! Spans and events for the `tracing` crate. Without the feature `tracing` they compile to nothing.

use std::time::Duration;

/// A span around a round of maintenance: `cortado::maintenance`, at level TRACE, with the counts of
/// evicted, expired and freed entries as fields.
#[cfg(feature = "tracing")]
pub struct Span(tracing::Span);

#[cfg(feature = "tracing")]
impl Span {
    pub fn begin(cache: &str) -> Self {
        use tracing::field::Empty;
        Self(tracing::trace_span!(
            target: "cortado",
            "maintenance",
            cache,
            evicted = Empty,
            expired = Empty,
            freed = Empty,
        ))
    }

    pub fn within<T>(&self, f: impl FnOnce() -> T) -> T {
        self.0.in_scope(f)
    }

    pub fn end(self, evicted: usize, expired: usize, freed: usize) {
        self.0.record("evicted", evicted).record("expired", expired).record("freed", freed);
    }
}

/// Whether slow loads are reported.
pub const IS_ON: bool = cfg!(feature = "tracing");

/// Reports a slow load, at level WARN.
#[cfg(feature = "tracing")]
pub fn slow_load(cache: &str, took: Duration, outcome: &str) {
    tracing::warn!(target: "cortado", cache, ?took, outcome, "slow load");
}

/// Reports that user code panicked on the maintenance thread, at level ERROR.
#[cfg(feature = "tracing")]
pub fn panicked(cache: &str) {
    tracing::error!(target: "cortado", cache, "maintenance was cut short by a panic");
}

#[cfg(not(feature = "tracing"))]
pub struct Span;

#[cfg(not(feature = "tracing"))]
impl Span {
    pub fn begin(_cache: &str) -> Self {
        Self
    }

    pub fn within<T>(&self, f: impl FnOnce() -> T) -> T {
        f()
    }

    pub fn end(self, _evicted: usize, _expired: usize, _freed: usize) {}
}

#[cfg(not(feature = "tracing"))]
pub fn slow_load(_cache: &str, _took: Duration, _outcome: &str) {}

#[cfg(not(feature = "tracing"))]
pub fn panicked(_cache: &str) {}
