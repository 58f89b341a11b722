//! Clocks: the monotonic time that deadlines use, and a manual clock for tests.

use std::{
    sync::Weak, // shim: loom's `Arc` has none
    time::{Duration, Instant},
};

use crate::sync::{
    Arc, Mutex,
    atomic::{AtomicU64, Ordering},
};

/// A source of time for a cache; see [`CacheBuilder::clock`](crate::CacheBuilder::clock).
///
/// A cache reads its clock only where an entry may expire: on a hit of an entry that has a
/// deadline, and where a deadline is set or checked.
///
/// The thread of a cache sleeps until the next deadline of a [`SystemClock`], and is woken by
/// [`ManualClock::advance`]. Any other clock may jump without notice, so the thread reads it again:
/// a second after the cache was last in use, then at intervals that double, up to 64 seconds. An
/// expired entry is a miss whether or not it has been removed.
pub trait Clock: Send + Sync + 'static {
    /// Returns the time since a fixed moment of the clock's choice; never less than before.
    fn now(&self) -> Duration;
}

/// The system's monotonic clock, which changes of the date do not affect.
#[derive(Clone, Copy, Debug)]
pub struct SystemClock {
    start: Instant,
}

impl SystemClock {
    /// Creates a clock that starts now.
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

/// A clock that is advanced by hand; clones show the same time.
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
    hand: Arc<Hand>,
}

/// The state that the clones of a clock share.
#[derive(Default)]
struct Hand {
    nanoseconds: AtomicU64,
    /// Called when the clock is advanced.
    callbacks: Mutex<Vec<Weak<Callback>>>,
}

/// A function that is called when a clock is advanced by hand.
pub type Callback = dyn Fn() + Send + Sync;

impl ManualClock {
    /// Creates a clock that shows 0.
    pub fn new() -> Self {
        Self::default()
    }

    /// Advances the clock, at most to 584 years.
    pub fn advance(&self, by: Duration) {
        let by = to_nanoseconds(by);
        let nanoseconds = &self.hand.nanoseconds;
        let mut now = nanoseconds.load(Ordering::Relaxed); // Relaxed: only the number counts.
        while let Err(seen) = nanoseconds.compare_exchange(
            now,
            now.saturating_add(by),
            // AcqRel: Release pairs with the Acquire in `now`: a thread that sees the time also
            // sees what was done before the clock was advanced. Acquire pairs with the Release in
            // `recheck`: a callback sees the sleep of a thread that has not seen this time.
            // Relaxed: a failed exchange only yields the number to try again with.
            Ordering::AcqRel,
            Ordering::Relaxed,
        ) {
            now = seen;
        }
        let callbacks = self.callbacks().clone();
        callbacks.iter().filter_map(Weak::upgrade).for_each(|callback| callback());
    }

    /// Registers a `callback` that is called whenever the clock is advanced, for as long as its
    /// owner keeps it.
    pub(crate) fn on_advance(&self, callback: Weak<Callback>) {
        let mut callbacks = self.callbacks();
        if callbacks.len() == callbacks.capacity() {
            callbacks.retain(|callback| callback.strong_count() > 0);
        }
        callbacks.push(callback);
    }

    /// Returns the time to a thread that is about to sleep. A thread that advances the clock later
    /// sees that it is.
    pub(crate) fn recheck(&self) -> Duration {
        // AcqRel: Release pairs with the Acquire in `advance`; Acquire as in `now`.
        Duration::from_nanos(self.hand.nanoseconds.fetch_add(0, Ordering::AcqRel))
    }

    fn callbacks(&self) -> crate::sync::MutexGuard<'_, Vec<Weak<Callback>>> {
        self.hand.callbacks.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Duration {
        // Acquire: pairs with the Release in `advance`.
        Duration::from_nanos(self.hand.nanoseconds.load(Ordering::Acquire))
    }
}

impl std::fmt::Debug for Hand {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Hand").field("nanoseconds", &self.nanoseconds).finish_non_exhaustive()
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
    fn advance_moves_all_clones_and_saturates() {
        let clock = ManualClock::new();
        let other = clock.clone();
        clock.advance(Duration::from_millis(3));
        assert_eq!(other.now(), Duration::from_millis(3));
        other.advance(Duration::MAX);
        other.advance(Duration::MAX);
        assert_eq!(clock.now(), Duration::from_nanos(u64::MAX));
    }

    #[test]
    fn callback_is_called_at_each_advance_until_it_is_dropped() {
        let (clock, calls) = (ManualClock::new(), Arc::new(AtomicU64::new(0)));
        let count = Arc::clone(&calls);
        let callback: std::sync::Arc<Callback> =
            std::sync::Arc::new(move || _ = count.fetch_add(1, Ordering::Relaxed));
        clock.on_advance(std::sync::Arc::downgrade(&callback));
        clock.clone().advance(Duration::from_millis(1));
        clock.advance(Duration::ZERO);
        assert_eq!(calls.load(Ordering::Relaxed), 2);
        drop(callback);
        clock.advance(Duration::from_millis(1));
        assert_eq!((calls.load(Ordering::Relaxed), clock.recheck().as_millis()), (2, 2));
        // Dropped callbacks do not accumulate.
        (0..1000).for_each(|_| clock.on_advance(Weak::<fn()>::new()));
        assert!(clock.callbacks().capacity() < 100);
    }

    #[test]
    fn system_clock_never_goes_back() {
        let clock = SystemClock::new();
        let times: Vec<_> = (0..100).map(|_| clock.now()).collect();
        assert!(times.is_sorted());
    }

    #[test]
    fn system_clock_advances() {
        let clock = SystemClock::new();
        // Two consecutive reads may return the same time; so many do not.
        assert!((0..100_000_000).any(|_| clock.now() > Duration::ZERO));
    }
}
