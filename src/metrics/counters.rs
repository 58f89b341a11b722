//! `Counters`: striped by thread, so that counting waits for no other thread.

use std::{fmt, ops::Sub};

use crossbeam_utils::CachePadded;

use super::DurationHistogram;
use crate::sync::{
    atomic::{AtomicU64, Ordering::Relaxed},
    thread_number,
};

/// Threads that have a stripe of their own.
const OWNERS: usize = 64;
/// The number of a thread whose thread-local variables are destroyed.
const NO_OWNER: usize = 0;
/// The columns of `Metrics` as text, in characters: 20 digits hold any `u64`.
const LABEL_WIDTH: usize = 18;
const FIGURE_WIDTH: usize = 20;

/// The counters of one cache.
///
/// The first threads have a stripe each, and count by a load and a store. All other threads share a
/// few stripes, and count by an atomic add.
#[derive(Debug)]
pub struct Counters {
    /// One stripe per thread, by its number. Empty if counting is off.
    owned: Box<[CachePadded<Stripe>]>,
    /// The stripes of all other threads; their number is a power of two.
    shared: Box<[CachePadded<Stripe>]>,
}

#[derive(Debug)]
struct Stripe {
    counts: [AtomicU64; Counter::COUNT],
}

impl Counters {
    /// Creates counters, all 0, with at least `shared` stripes for the threads that share; the
    /// number is rounded up to a power of two. If `is_enabled` is false, nothing is ever counted.
    pub fn new(shared: usize, is_enabled: bool) -> Self {
        let stripes = |count: usize| {
            let count = if is_enabled { count } else { 0 };
            (0..count).map(|_| CachePadded::new(Stripe::new())).collect()
        };
        Self { owned: stripes(OWNERS), shared: stripes(shared.next_power_of_two()) }
    }

    /// Adds `amount`. Costs one branch if counting is off.
    #[inline]
    pub fn add(&self, counter: Counter, amount: u64) {
        if self.owned.is_empty() {
            return;
        }
        let number = thread_number();
        // Relaxed, here and below: only the sum matters; no other memory depends on it.
        if number != NO_OWNER && number < OWNERS {
            // No other thread ever has this number, so no count is lost between the load and the
            // store.
            let count = &self.owned[number].counts[counter as usize];
            count.store(count.load(Relaxed).wrapping_add(amount), Relaxed);
        } else {
            let stripe = &self.shared[number & (self.shared.len() - 1)];
            stripe.counts[counter as usize].fetch_add(amount, Relaxed);
        }
    }

    /// Returns whether counting is on.
    pub fn is_enabled(&self) -> bool {
        !self.owned.is_empty()
    }

    /// Returns the size of all stripes in bytes.
    pub fn bytes(&self) -> usize {
        size_of_val(&*self.owned) + size_of_val(&*self.shared)
    }

    fn sum(&self, counter: Counter) -> u64 {
        // Relaxed: as in `add`. A count wraps on overflow, after centuries.
        let stripes = self.owned.iter().chain(&self.shared);
        stripes
            .map(|stripe| stripe.counts[counter as usize].load(Relaxed))
            .fold(0, u64::wrapping_add)
    }
}

impl Stripe {
    fn new() -> Self {
        Self { counts: std::array::from_fn(|_| AtomicU64::new(0)) }
    }
}

/// Defines the counts: for each its documentation, field, counter and label.
macro_rules! counts {
    ($($(#[doc = $doc:literal])+ $field:ident, $counter:ident, $label:literal;)+) => {
        /// An event that is counted.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(usize)]
        pub enum Counter {
            $($(#[doc = $doc])+ $counter,)+
        }

        impl Counter {
            const ALL: [Self; [$(Self::$counter),+].len()] = [$(Self::$counter),+];
            const COUNT: usize = Self::ALL.len();
        }

        impl Counters {
            /// Returns the current sums. Concurrent counts may or may not be included.
            pub fn snapshot(
                &self,
                life_expectancy: DurationHistogram,
                load_times: DurationHistogram,
            ) -> Metrics {
                let counts = Metrics { $($field: self.sum(Counter::$counter),)+ ..Metrics::default() };
                Metrics { life_expectancy, load_times, ..counts }
            }
        }

        /// The counts of a cache since it was created.
        ///
        /// The difference of two snapshots is what was counted between them.
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
        #[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
        #[cfg_attr(feature = "serde", serde(default))]
        #[non_exhaustive]
        pub struct Metrics {
            $($(#[doc = $doc])+ pub $field: u64,)+
            /// How long evicted entries had lived, for a sample of them.
            pub life_expectancy: DurationHistogram,
            /// How long loads took, including failed ones.
            pub load_times: DurationHistogram,
        }

        impl Metrics {
            /// Returns the name of each field and its count, for exporters.
            ///
            /// # Examples
            ///
            /// ```
            /// let cache = cortado::Cache::builder().max_cost(10).metrics(true).build()?;
            /// cache.insert("k", 1);
            /// assert!(cache.metrics().counts().any(|count| count == ("inserts", 1)));
            /// # Ok::<(), cortado::BuildError>(())
            /// ```
            pub fn counts(&self) -> impl Iterator<Item = (&'static str, u64)> + use<> {
                [$((stringify!($field), self.$field)),+].into_iter()
            }

            /// The name of each field and its description.
            #[cfg(feature = "metrics")]
            pub(crate) const MEANINGS: [(&'static str, &'static str); Counter::COUNT] =
                [$((stringify!($field), concat!($($doc),+))),+];

            fn rows(&self) -> [(&'static str, u64); Counter::COUNT] {
                [$(($label, self.$field)),+]
            }
        }

        /// Returns the counts between an earlier snapshot, on the right, and a later one, on the
        /// left.
        ///
        /// A count that is greater in the earlier snapshot gives 0, for example if the two are from
        /// different caches or in the wrong order.
        impl Sub for Metrics {
            type Output = Self;

            fn sub(self, earlier: Self) -> Self {
                Self {
                    $($field: self.$field.saturating_sub(earlier.$field),)+
                    life_expectancy: self.life_expectancy - earlier.life_expectancy,
                    load_times: self.load_times - earlier.load_times,
                }
            }
        }
    };
}

counts! {
    /// Reads that found an entry.
    hits, Hits, "hits";
    /// Reads that found no entry. Of the callers of one load, only the one that loads is counted.
    misses, Misses, "misses";
    /// Callers that found no entry and waited for the load of another caller.
    coalesced, Coalesced, "coalesced";
    /// Entries published under a key that had none.
    inserts, Inserts, "inserts";
    /// Entries published in place of another.
    updates, Updates, "updates";
    /// Inserts rejected because they cost more than the whole budget.
    rejected_costly, RejectedCostly, "rejected: costly";
    /// Inserts rejected because the victim was accessed more often.
    rejected_cold, RejectedCold, "rejected: cold";
    /// Inserts rejected because too much garbage was waiting to be freed, or there was no memory.
    rejected_garbage, RejectedGarbage, "rejected: garbage";
    /// Inserts rejected because an existing entry had to be kept, or because of their mode: the key
    /// was present or absent.
    rejected_kept, RejectedKept, "rejected: kept";
    /// Entries evicted to stay within the budget or because their bucket was full.
    evictions, Evictions, "evictions";
    /// Entries evicted because their bucket was full.
    local_evictions, LocalEvictions, "  of full buckets";
    /// Evictions prevented by [`can_evict`](crate::CacheBuilder::can_evict) or a failed
    /// [`write_back`](crate::CacheBuilder::write_back).
    vetoes, Vetoes, "vetoes";
    /// Entries removed by the user.
    removes, Removes, "removes";
    /// Entries removed because they expired.
    expirations, Expirations, "expirations";
    /// Loads that returned a value.
    loads, Loads, "loads";
    /// Loads that replaced an entry that was still served.
    refreshes, Refreshes, "  refreshes";
    /// Loads that failed, panicked or were abandoned.
    load_failures, LoadFailures, "load failures";
    /// Loaded values that were not kept, because a write of their key invalidated the load.
    loads_invalidated, LoadsInvalidated, "loads invalidated";
    /// Events that never reached the sketch, which then estimates a little low.
    events_dropped, EventsDropped, "events dropped";
    /// Entries that had left the cache and were freed, once no reader could see them.
    garbage_freed, GarbageFreed, "garbage freed";
    /// Sum of the costs of published entries.
    cost_added, CostAdded, "cost added";
    /// Sum of the costs of evicted entries.
    cost_evicted, CostEvicted, "cost evicted";
    /// Rounds of maintenance by the cache's own thread.
    rounds, Rounds, "rounds";
}

impl Metrics {
    /// Returns `hits / (hits + misses)`, from 0 to 1; 0 if both are 0.
    ///
    /// A caller that waits for the load of another caller is neither a hit nor a miss: it is
    /// [`coalesced`](Self::coalesced).
    pub fn hit_ratio(&self) -> f64 {
        let reads = self.hits.saturating_add(self.misses);
        if reads == 0 { 0.0 } else { self.hits as f64 / reads as f64 }
    }

    /// Returns the number of rejected inserts, for all reasons.
    pub fn rejected(&self) -> u64 {
        [self.rejected_costly, self.rejected_cold, self.rejected_garbage, self.rejected_kept]
            .into_iter()
            .fold(0, u64::saturating_add)
    }
}

/// Writes a line for the hit ratio, one for each count, and one each for the median lifetime and
/// load time, with the figures right-aligned.
impl fmt::Display for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:<LABEL_WIDTH$} {:>FIGURE_WIDTH$.4}", "hit ratio", self.hit_ratio())?;
        for (label, count) in self.rows() {
            write!(f, "\n{label:<LABEL_WIDTH$} {count:>FIGURE_WIDTH$}")?;
        }
        let median = self.life_expectancy.quantile(0.5);
        let median = median.map_or("-".to_owned(), |life| format!("< {life:.0?}"));
        write!(f, "\n{:<LABEL_WIDTH$} {median:>FIGURE_WIDTH$}", "half of lives")?;
        let median = self.load_times.quantile(0.5);
        let median = median.map_or("-".to_owned(), |time| format!("< {time:.0?}"));
        write!(f, "\n{:<LABEL_WIDTH$} {median:>FIGURE_WIDTH$}", "half of loads")
    }
}

#[cfg(all(test, not(any(cortado_loom, cortado_shuttle))))]
mod tests {
    use super::*;
    use crate::sync::thread;

    fn snapshot(counters: &Counters) -> Metrics {
        counters.snapshot(DurationHistogram::default(), DurationHistogram::default())
    }

    #[test]
    fn counts_of_all_threads_add_up() {
        let counters = Counters::new(4, true);
        // More threads than have a stripe of their own.
        for _ in 0..2 * OWNERS / 8 {
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
        }
        let metrics = snapshot(&counters);
        let all = 2 * OWNERS as u64 * 1000;
        assert_eq!((metrics.hits, metrics.misses, metrics.cost_evicted), (all, 0, 3 * all));
    }

    #[test]
    fn disabled_counters_stay_at_zero() {
        let counters = Counters::new(4, false);
        counters.add(Counter::Hits, 1);
        assert!(!counters.is_enabled() && Counters::new(4, true).is_enabled());
        assert_eq!(counters.bytes(), 0);
        assert_eq!(snapshot(&counters), Metrics::default());
    }

    #[test]
    fn memory_is_that_of_the_owned_and_shared_stripes() {
        let stripe = size_of::<CachePadded<Stripe>>();
        assert_eq!(Counters::new(3, true).bytes(), (OWNERS + 4) * stripe);
    }

    #[test]
    fn hit_ratio_of_no_reads_is_zero() {
        assert_eq!(Metrics::default().hit_ratio(), 0.0);
        assert_eq!(Metrics { hits: 3, misses: 1, ..Metrics::default() }.hit_ratio(), 0.75);
    }

    #[test]
    fn each_counter_reaches_the_field_of_its_name_and_subtracts() {
        let counters = Counters::new(1, true);
        for (amount, counter) in (1..).zip(Counter::ALL) {
            counters.add(counter, amount);
        }
        let before = snapshot(&counters);
        assert_eq!((before.hits, before.rejected_kept, before.evictions), (1, 9, 10));
        assert_eq!(before.rows().map(|(_, count)| count), std::array::from_fn(|i| i as u64 + 1));
        assert_eq!(before.rejected(), 6 + 7 + 8 + 9);
        for (amount, counter) in (1..).zip(Counter::ALL) {
            counters.add(counter, 10 * amount);
        }
        let between = snapshot(&counters) - before;
        assert!(
            between
                .counts()
                .map(|(_, count)| count)
                .eq((1..=Counter::COUNT as u64).map(|i| 10 * i))
        );
    }

    #[test]
    fn snapshots_in_the_wrong_order_subtract_to_zero() {
        let later = Metrics { hits: 3, misses: 1, ..Metrics::default() };
        let earlier = Metrics { hits: 1, misses: 2, ..Metrics::default() };
        let between = earlier - later;
        assert_eq!((between.hits, between.misses, between.hit_ratio()), (0, 1, 0.0));
    }

    #[test]
    fn display_aligns_its_figures() {
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
