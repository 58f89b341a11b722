//! What the cache counts about itself: striped counters inside, a plain [`Metrics`] outside.

use std::fmt;
use std::ops::Sub;

use crossbeam_utils::CachePadded;

use crate::sync::atomic::AtomicU64;
use crate::sync::atomic::Ordering::Relaxed;
use crate::sync::thread_number;

/// The counters of one cache: a set for each few threads, so that counting waits for nobody.
#[derive(Debug)]
pub struct Counters {
    /// Empty where counting is off.
    stripes: Box<[CachePadded<Stripe>]>,
}

#[derive(Debug)]
struct Stripe {
    counts: [AtomicU64; Counter::COUNT],
}

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Counter {
    /// Reads that found their entry.
    Hits,
    /// Reads that did not.
    Misses,
    /// Entries published under a key that had none.
    Inserts,
    /// Entries published in place of another.
    Updates,
    /// Inserts refused because they cost more than the whole budget.
    RejectedCostly,
    /// Inserts refused because the victim was seen more often.
    RejectedCold,
    /// Inserts refused because too much garbage was waiting.
    RejectedGarbage,
    /// Inserts refused because the entry that was there was to be kept.
    RejectedKept,
    /// Entries that went out to keep the budget, those of full buckets included.
    Evictions,
    /// Entries that went out because their bucket was full.
    LocalEvictions,
    /// Entries removed by the user.
    Removes,
    /// Entries whose time was over.
    Expirations,
    /// Loads that brought a value.
    Loads,
    /// Loads that failed, panicked or were given up.
    LoadFailures,
    /// Events that never reached the sketch.
    EventsDropped,
    /// Sum of the costs of entries published.
    CostAdded,
    /// Sum of the costs of entries evicted.
    CostEvicted,
}

impl Counters {
    /// Makes counters, all 0, in `stripes` sets, or as many more as the next power of two. Where
    /// `is_enabled` is false nothing is ever counted.
    pub fn new(stripes: usize, is_enabled: bool) -> Self {
        let count = if is_enabled { stripes.next_power_of_two() } else { 0 };
        Self { stripes: (0..count).map(|_| CachePadded::new(Stripe::new())).collect() }
    }

    /// Adds `amount`. Costs one branch where counting is off.
    #[inline]
    pub fn add(&self, counter: Counter, amount: u64) {
        if self.stripes.is_empty() {
            return;
        }
        let stripe = &self.stripes[thread_number() & (self.stripes.len() - 1)];
        // Relaxed: only the sum matters; nothing is read on the strength of it.
        stripe.counts[counter as usize].fetch_add(amount, Relaxed);
    }

    /// Says whether anything is counted.
    pub fn is_enabled(&self) -> bool {
        !self.stripes.is_empty()
    }

    /// Returns the sums at this moment. Those of counts made meanwhile may be in or not.
    pub fn snapshot(&self) -> Metrics {
        Metrics {
            hits: self.sum(Counter::Hits),
            misses: self.sum(Counter::Misses),
            inserts: self.sum(Counter::Inserts),
            updates: self.sum(Counter::Updates),
            rejected_costly: self.sum(Counter::RejectedCostly),
            rejected_cold: self.sum(Counter::RejectedCold),
            rejected_garbage: self.sum(Counter::RejectedGarbage),
            rejected_kept: self.sum(Counter::RejectedKept),
            evictions: self.sum(Counter::Evictions),
            local_evictions: self.sum(Counter::LocalEvictions),
            removes: self.sum(Counter::Removes),
            expirations: self.sum(Counter::Expirations),
            loads: self.sum(Counter::Loads),
            load_failures: self.sum(Counter::LoadFailures),
            events_dropped: self.sum(Counter::EventsDropped),
            cost_added: self.sum(Counter::CostAdded),
            cost_evicted: self.sum(Counter::CostEvicted),
        }
    }

    fn sum(&self, counter: Counter) -> u64 {
        // Relaxed: as in `add`. A sum of many counts may wrap after centuries, and then it wraps.
        let counts =
            self.stripes.iter().map(|stripe| stripe.counts[counter as usize].load(Relaxed));
        counts.fold(0, u64::wrapping_add)
    }
}

impl Stripe {
    fn new() -> Self {
        Self { counts: std::array::from_fn(|_| AtomicU64::new(0)) }
    }
}

impl Counter {
    const COUNT: usize = Self::CostEvicted as usize + 1;
}

/// What a cache has counted since it was made.
///
/// Two snapshots subtract to what happened between them.
///
/// # Examples
///
/// ```
/// use cortado::Metrics;
///
/// let mut before = Metrics::default();
/// before.hits = 1;
/// let mut after = before.clone();
/// after.hits += 3;
/// after.misses += 1;
/// assert_eq!((after - before).hit_ratio(), 0.75);
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Metrics {
    /// Reads that found their entry.
    pub hits: u64,
    /// Reads that did not.
    pub misses: u64,
    /// Entries published under a key that had none.
    pub inserts: u64,
    /// Entries published in place of another.
    pub updates: u64,
    /// Inserts refused because they cost more than the whole budget.
    pub rejected_costly: u64,
    /// Inserts refused because the victim was seen more often.
    pub rejected_cold: u64,
    /// Inserts refused because too much garbage was waiting to be freed.
    pub rejected_garbage: u64,
    /// Inserts refused because the entry that was there was to be kept.
    pub rejected_kept: u64,
    /// Entries that went out to keep the budget, those of full buckets included.
    pub evictions: u64,
    /// Entries that went out because their bucket was full.
    pub local_evictions: u64,
    /// Entries removed by the user.
    pub removes: u64,
    /// Entries removed because their time was over.
    pub expirations: u64,
    /// Loads that brought a value.
    pub loads: u64,
    /// Loads that failed, panicked or were given up.
    pub load_failures: u64,
    /// Events that never reached the sketch, which then estimates a little low.
    pub events_dropped: u64,
    /// Sum of the costs of entries published.
    pub cost_added: u64,
    /// Sum of the costs of entries evicted.
    pub cost_evicted: u64,
}

impl Metrics {
    /// Returns hits divided by reads, from 0 to 1; 0 where there was no read.
    pub fn hit_ratio(&self) -> f64 {
        let reads = self.hits.saturating_add(self.misses);
        if reads == 0 { 0.0 } else { self.hits as f64 / reads as f64 }
    }

    /// Returns how many inserts were refused, for whatever reason.
    pub fn rejected(&self) -> u64 {
        [self.rejected_costly, self.rejected_cold, self.rejected_garbage, self.rejected_kept]
            .into_iter()
            .fold(0, u64::saturating_add)
    }

    fn rows(&self) -> [(&'static str, u64); Counter::COUNT] {
        [
            ("hits", self.hits),
            ("misses", self.misses),
            ("inserts", self.inserts),
            ("updates", self.updates),
            ("rejected: costly", self.rejected_costly),
            ("rejected: cold", self.rejected_cold),
            ("rejected: garbage", self.rejected_garbage),
            ("rejected: kept", self.rejected_kept),
            ("evictions", self.evictions),
            ("  of full buckets", self.local_evictions),
            ("removes", self.removes),
            ("expirations", self.expirations),
            ("loads", self.loads),
            ("load failures", self.load_failures),
            ("events dropped", self.events_dropped),
            ("cost added", self.cost_added),
            ("cost evicted", self.cost_evicted),
        ]
    }
}

/// What happened between an earlier snapshot and a later one, which stands on the left.
///
/// Snapshots of two caches, or in the wrong order, give figures of no meaning, but no panic.
impl Sub for Metrics {
    type Output = Metrics;

    fn sub(self, earlier: Metrics) -> Metrics {
        Metrics {
            hits: self.hits.wrapping_sub(earlier.hits),
            misses: self.misses.wrapping_sub(earlier.misses),
            inserts: self.inserts.wrapping_sub(earlier.inserts),
            updates: self.updates.wrapping_sub(earlier.updates),
            rejected_costly: self.rejected_costly.wrapping_sub(earlier.rejected_costly),
            rejected_cold: self.rejected_cold.wrapping_sub(earlier.rejected_cold),
            rejected_garbage: self.rejected_garbage.wrapping_sub(earlier.rejected_garbage),
            rejected_kept: self.rejected_kept.wrapping_sub(earlier.rejected_kept),
            evictions: self.evictions.wrapping_sub(earlier.evictions),
            local_evictions: self.local_evictions.wrapping_sub(earlier.local_evictions),
            removes: self.removes.wrapping_sub(earlier.removes),
            expirations: self.expirations.wrapping_sub(earlier.expirations),
            loads: self.loads.wrapping_sub(earlier.loads),
            load_failures: self.load_failures.wrapping_sub(earlier.load_failures),
            events_dropped: self.events_dropped.wrapping_sub(earlier.events_dropped),
            cost_added: self.cost_added.wrapping_sub(earlier.cost_added),
            cost_evicted: self.cost_evicted.wrapping_sub(earlier.cost_evicted),
        }
    }
}

/// One line for the hit ratio and one for each count, the figures under one another.
impl fmt::Display for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:<LABEL_WIDTH$} {:>FIGURE_WIDTH$.4}", "hit ratio", self.hit_ratio())?;
        for (label, count) in self.rows() {
            write!(f, "\n{label:<LABEL_WIDTH$} {count:>FIGURE_WIDTH$}")?;
        }
        Ok(())
    }
}

const LABEL_WIDTH: usize = 18;
const FIGURE_WIDTH: usize = 20;

#[cfg(all(test, not(any(cortado_loom, cortado_shuttle))))]
mod tests {
    use super::*;
    use crate::sync::thread;

    #[test]
    fn counts_of_all_threads_add_up() {
        let counters = Counters::new(4, true);
        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..1000 {
                        counters.add(Counter::Hits, 1);
                        counters.add(Counter::CostEvicted, 3);
                    }
                });
            }
        });
        let metrics = counters.snapshot();
        assert_eq!((metrics.hits, metrics.misses, metrics.cost_evicted), (8000, 0, 24_000));
    }

    #[test]
    fn counters_that_are_off_stay_at_nothing() {
        let counters = Counters::new(4, false);
        counters.add(Counter::Hits, 1);
        assert!(!counters.is_enabled());
        assert_eq!(counters.snapshot(), Metrics::default());
    }

    #[test]
    fn the_hit_ratio_of_no_reads_is_zero() {
        assert_eq!(Metrics::default().hit_ratio(), 0.0);
        assert_eq!(Metrics { hits: 3, misses: 1, ..Metrics::default() }.hit_ratio(), 0.75);
    }

    #[test]
    fn each_counter_reaches_the_field_of_its_name_and_subtracts() {
        let all = [
            Counter::Hits,
            Counter::Misses,
            Counter::Inserts,
            Counter::Updates,
            Counter::RejectedCostly,
            Counter::RejectedCold,
            Counter::RejectedGarbage,
            Counter::RejectedKept,
            Counter::Evictions,
            Counter::LocalEvictions,
            Counter::Removes,
            Counter::Expirations,
            Counter::Loads,
            Counter::LoadFailures,
            Counter::EventsDropped,
            Counter::CostAdded,
            Counter::CostEvicted,
        ];
        let counters = Counters::new(1, true);
        for (amount, counter) in (1..).zip(all) {
            counters.add(counter, amount);
        }
        let before = counters.snapshot();
        assert_eq!(before.rows().map(|(_, count)| count), std::array::from_fn(|i| i as u64 + 1));
        assert_eq!(before.rejected(), 5 + 6 + 7 + 8);
        for (amount, counter) in (1..).zip(all) {
            counters.add(counter, 10 * amount);
        }
        let between = counters.snapshot() - before;
        assert_eq!(
            between.rows().map(|(_, count)| count),
            std::array::from_fn(|i| 10 * (i as u64 + 1))
        );
    }

    #[test]
    fn the_display_is_a_block_with_its_figures_under_one_another() {
        let metrics = Metrics { hits: 30, misses: 10, evictions: 123_456, ..Metrics::default() };
        let block = metrics.to_string();
        let width = LABEL_WIDTH + 1 + FIGURE_WIDTH;
        assert!(block.lines().all(|line| line.len() == width), "{block}");
        assert!(block.lines().next().unwrap().ends_with("0.7500"), "{block}");
        assert!(
            block.lines().any(|line| line.starts_with("evictions") && line.ends_with("123456"))
        );
    }
}
