//! Histograms of durations, with a bucket for each power of two.

use std::{ops::Sub, time::Duration};

use crate::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// The number of buckets; the last one has no upper bound.
const BUCKETS: usize = 32;

/// A histogram that durations are recorded in concurrently.
#[derive(Debug)]
pub struct DurationRecorder {
    /// The upper bound of the first bucket, in nanoseconds.
    unit: u64,
    counts: [AtomicU64; BUCKETS],
}

impl DurationRecorder {
    /// Creates a recorder whose first bucket ends at `unit` nanoseconds; each other bucket ends at
    /// twice the bound of the one before.
    pub fn new(unit: u64) -> Self {
        Self { unit, counts: std::array::from_fn(|_| AtomicU64::new(0)) }
    }

    /// Counts a duration, given in nanoseconds.
    pub fn record(&self, nanoseconds: u64) {
        let units = nanoseconds / self.unit;
        let bucket = ((u64::BITS - units.leading_zeros()) as usize).min(BUCKETS - 1);
        self.counts[bucket].fetch_add(1, Relaxed); // Relaxed: an independent count.
    }

    /// Returns the counts so far.
    pub fn snapshot(&self) -> DurationHistogram {
        // Relaxed: as in `record`.
        let counts = std::array::from_fn(|i| self.counts[i].load(Relaxed));
        DurationHistogram { unit: Duration::from_nanos(self.unit), counts }
    }
}

/// A histogram of durations with a bucket for each power of two; part of
/// [`Metrics`](crate::Metrics).
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use cortado::{Cache, ManualClock};
///
/// let clock = ManualClock::new();
/// let builder = Cache::builder().max_cost(100).metrics(true).clock(clock.clone());
/// let cache = builder.build()?;
/// cache.get_or_insert_with("k", || clock.advance(Duration::from_millis(3)));
/// let loads = cache.metrics().load_times;
/// assert_eq!(loads.count(), 1);
/// assert_eq!(loads.quantile(0.5), Some(Duration::from_micros(4096)));
/// # Ok::<(), cortado::BuildError>(())
/// ```
#[derive(Clone, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct DurationHistogram {
    unit: Duration,
    counts: [u64; BUCKETS],
}

/// Two empty histograms are equal, whatever their buckets.
impl PartialEq for DurationHistogram {
    fn eq(&self, other: &Self) -> bool {
        self.counts == other.counts && (self.unit == other.unit || self.count() == 0)
    }
}

impl Eq for DurationHistogram {}

impl DurationHistogram {
    /// Returns the number of durations.
    pub fn count(&self) -> u64 {
        self.counts.iter().fold(0, |sum, count| sum.saturating_add(*count))
    }

    /// Returns an upper bound of a quantile: the upper bound of the bucket that contains it. `part`
    /// is from 0 to 1. `None` if the histogram is empty.
    pub fn quantile(&self, part: f64) -> Option<Duration> {
        let wanted = (self.count() as f64 * part.clamp(0.0, 1.0)).max(1.0);
        let mut sum = 0.0;
        self.buckets().find_map(|(end, count)| {
            sum += count as f64;
            (count > 0 && sum >= wanted).then_some(end)
        })
    }

    /// Returns the upper bound of each bucket and the number of durations in it, that is, below
    /// this bound and not below that of the bucket before. The last one ends at [`Duration::MAX`].
    pub fn buckets(&self) -> impl Iterator<Item = (Duration, u64)> {
        self.counts.iter().enumerate().map(|(i, count)| {
            let end = if i + 1 == BUCKETS { Duration::MAX } else { self.unit * (1 << i) };
            (end, *count)
        })
    }
}

/// Returns the counts between two snapshots; 0 where the earlier one has more.
impl Sub for DurationHistogram {
    type Output = Self;

    fn sub(self, earlier: Self) -> Self {
        let counts = std::array::from_fn(|i| self.counts[i].saturating_sub(earlier.counts[i]));
        Self { unit: self.unit, counts }
    }
}

#[cfg(all(test, not(any(cortado_loom, cortado_shuttle))))]
mod tests {
    use super::*;

    const US: u64 = 1_000;

    #[test]
    fn durations_are_counted_below_the_next_power_of_two() {
        let cases = [(0, 1), (999, 1), (1_000, 2), (1_999, 2), (2_000, 4), (4_095_999, 4_096)];
        for (nanoseconds, end) in cases {
            let recorder = DurationRecorder::new(US);
            recorder.record(nanoseconds);
            let found = recorder.snapshot().quantile(0.5);
            assert_eq!(found, Some(Duration::from_micros(end)), "{nanoseconds}");
        }
        let recorder = DurationRecorder::new(US);
        recorder.record(u64::MAX);
        assert_eq!(recorder.snapshot().quantile(1.0), Some(Duration::MAX));
    }

    #[test]
    fn quantiles_count_from_the_shortest() {
        let recorder = DurationRecorder::new(US);
        assert_eq!(recorder.snapshot().quantile(0.5), None);
        (0..90).for_each(|_| recorder.record(3 * US));
        (0..10).for_each(|_| recorder.record(100 * US));
        let found = recorder.snapshot();
        let micros = |part| found.quantile(part).unwrap().as_micros();
        assert_eq!([0.0, 0.5, 0.9, 0.91, 1.0, 7.0].map(micros), [4, 4, 4, 128, 128, 128]);
        assert_eq!((found.count(), found.buckets().count()), (100, BUCKETS));
    }

    #[test]
    fn snapshots_subtract() {
        let recorder = DurationRecorder::new(US);
        recorder.record(US);
        let before = recorder.snapshot();
        recorder.record(100 * US);
        assert_eq!((before.clone() - recorder.snapshot()).count(), 0);
        let between = recorder.snapshot() - before;
        let end = Duration::from_micros(128);
        assert_eq!((between.count(), between.quantile(1.0)), (1, Some(end)));
    }
}
