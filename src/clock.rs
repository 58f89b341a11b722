//! The time that deadlines go by: monotonic, and moved by hand where a test wants that.

use std::time::{Duration, Instant};

use crate::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

/// Where a cache takes its time from; see [`CacheBuilder::clock`](crate::CacheBuilder::clock).
///
/// Asked only where something may expire: on a hit of an entry that has a deadline, and where one is
/// set or looked for.
pub trait Clock: Send + Sync + 'static {
    /// Returns the time since a moment of the clock's own choice; never less than before.
    fn now(&self) -> Duration;
}

/// The system's monotonic clock, which no change of the date moves.
#[derive(Clone, Copy, Debug)]
pub struct SystemClock {
    start: Instant,
}

impl SystemClock {
    /// Makes a clock that begins now.
    pub fn new() -> Self {
        Self { start: Instant::now() }
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for SystemClock {
    #[inline]
    fn now(&self) -> Duration {
        self.start.elapsed()
    }
}

/// A clock that is moved by hand; clones show the same time.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use cortado::{Cache, Maintenance, ManualClock};
///
/// let clock = ManualClock::new();
/// let cache = Cache::builder()
///     .max_cost(10)
///     .maintenance(Maintenance::Manual)
///     .ttl(Duration::from_secs(60))
///     .clock(clock.clone())
///     .build()?;
/// cache.insert("session", 1);
/// clock.advance(Duration::from_secs(59));
/// assert!(cache.contains_key("session"));
/// clock.advance(Duration::from_secs(1));
/// assert!(!cache.contains_key("session"));
/// # Ok::<(), cortado::BuildError>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct ManualClock {
    nanoseconds: Arc<AtomicU64>,
}

impl ManualClock {
    /// Makes a clock that shows 0.
    pub fn new() -> Self {
        Self::default()
    }

    /// Moves the clock on. It stops at 584 years.
    pub fn advance(&self, by: Duration) {
        let by = to_nanoseconds(by);
        let mut now = self.nanoseconds.load(Ordering::Relaxed); // Relaxed: only the number counts.
        while let Err(seen) = self.nanoseconds.compare_exchange(
            now,
            now.saturating_add(by),
            // Release: pairs with the Acquire in `now`, so that whoever sees the time sees what was done
            // before it was moved. Relaxed: compared only.
            Ordering::Release,
            Ordering::Relaxed,
        ) {
            now = seen;
        }
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Duration {
        // Acquire: pairs with the Release in `advance`.
        Duration::from_nanos(self.nanoseconds.load(Ordering::Acquire))
    }
}

/// Returns a duration in nanoseconds, at most 584 years.
pub fn to_nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(all(test, not(any(cortado_loom, cortado_shuttle))))]
mod tests {
    use super::*;

    #[test]
    fn hand_moves_all_clones_and_stops_at_the_end() {
        let clock = ManualClock::new();
        let other = clock.clone();
        clock.advance(Duration::from_millis(3));
        assert_eq!(other.now(), Duration::from_millis(3));
        other.advance(Duration::MAX);
        other.advance(Duration::MAX);
        assert_eq!(clock.now(), Duration::from_nanos(u64::MAX));
    }

    #[test]
    fn system_clock_never_goes_back() {
        let clock = SystemClock::new();
        let times: Vec<_> = (0..100).map(|_| clock.now()).collect();
        assert!(times.is_sorted());
    }

    #[test]
    fn system_clock_goes() {
        let clock = SystemClock::new();
        // It need not go between two looks, but does so long before these are done.
        assert!((0..100_000_000).any(|_| clock.now() > Duration::ZERO));
    }
}
