//! A histogram of durations, small enough to stay out of the caches' way.
//!
//! Each doubling of the time is split into 32 steps, so a figure read from it is at most 3 %
//! above the true one.

use std::time::Duration;

const STEP_BITS: u32 = 5;
const STEPS: usize = 1 << STEP_BITS;
const GROUPS: usize = 40;

/// Counts durations in nanoseconds.
#[derive(Clone)]
pub struct Histogram {
    counts: Vec<u32>,
    total: u64,
    worst: u64,
}

impl Histogram {
    /// Returns an empty one.
    pub fn new() -> Self {
        Self { counts: vec![0; STEPS * GROUPS], total: 0, worst: 0 }
    }

    /// Counts one duration.
    #[inline]
    pub fn record(&mut self, duration: Duration) {
        let nanos = duration.as_nanos() as u64;
        let place = place(nanos).min(self.counts.len() - 1);
        self.counts[place] = self.counts[place].saturating_add(1);
        self.total += 1;
        self.worst = self.worst.max(nanos);
    }

    /// Adds the counts of another.
    pub fn merge(&mut self, other: &Self) {
        for (mine, theirs) in self.counts.iter_mut().zip(&other.counts) {
            *mine = mine.saturating_add(*theirs);
        }
        self.total += other.total;
        self.worst = self.worst.max(other.worst);
    }

    /// Returns how many were counted.
    pub fn count(&self) -> u64 {
        self.total
    }

    /// Returns the longest, in nanoseconds.
    pub fn worst(&self) -> u64 {
        self.worst
    }

    /// Returns the nanoseconds within which this fraction of all durations stayed; 0 if there
    /// are none.
    pub fn quantile(&self, fraction: f64) -> u64 {
        let wanted = ((self.total as f64 * fraction).ceil() as u64).max(1);
        let mut seen = 0;
        for (i, &count) in self.counts.iter().enumerate() {
            seen += u64::from(count);
            if seen >= wanted {
                return last_of(i).min(self.worst);
            }
        }
        self.worst
    }
}

/// Below 32 each nanosecond has its place; above, the five bits after the leading one decide.
fn place(nanos: u64) -> usize {
    if nanos < STEPS as u64 {
        return nanos as usize;
    }
    let group = nanos.ilog2() - STEP_BITS + 1;
    let step = (nanos >> (group - 1)) as usize - STEPS;
    group as usize * STEPS + step
}

/// The longest duration that has this place.
fn last_of(place: usize) -> u64 {
    let (group, step) = (place / STEPS, place % STEPS);
    if group == 0 {
        return step as u64;
    }
    (((STEPS + step + 1) as u64) << (group - 1)) - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_do_not_overlap_and_leave_no_gap() {
        for nanos in (0..5000).chain((0..30).map(|i| 12_345 << i)) {
            let at = place(nanos);
            assert!(nanos <= last_of(at), "{nanos}");
            assert!(at == 0 || nanos > last_of(at - 1), "{nanos}");
        }
    }

    #[test]
    fn quantiles_are_within_three_percent() {
        let mut histogram = Histogram::new();
        for nanos in 1..=100_000 {
            histogram.record(Duration::from_nanos(nanos));
        }
        for (fraction, expected) in [(0.5, 50_000.0), (0.99, 99_000.0), (0.9999, 99_990.0)] {
            let got = histogram.quantile(fraction) as f64;
            assert!((got / expected - 1.0).abs() < 0.035, "{fraction}: {got}");
        }
        assert_eq!(histogram.quantile(1.0), 100_000);
        assert_eq!(histogram.worst(), 100_000);
    }

    #[test]
    fn empty_one_says_zero() {
        assert_eq!(Histogram::new().quantile(0.99), 0);
    }
}
