//! `Metrics`: the counters of a cache, by Stretto's names.

use std::fmt;

use cortado::Metrics as Counts;

/// A snapshot of the counters of a cache since its creation, returned by
/// [`Cache::metrics`](super::Cache::metrics). (Stretto does not expose them.)
///
/// Each method returns `None` if the cache was built without metrics.
///
/// # Examples
///
/// ```
/// use stretto::Cache;
///
/// let cache = Cache::builder(1000, 100).set_metrics(true).finalize()?;
/// cache.insert("key", 1, 3);
/// assert!(cache.get("key").is_some() && cache.get("other").is_none());
/// let metrics = cache.metrics();
/// assert_eq!((metrics.hits(), metrics.ratio()), (Some(1), Some(0.5)));
/// assert_eq!((metrics.keys_added(), metrics.cost_added()), (Some(1), Some(3)));
/// # Ok::<(), stretto::CacheError>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
#[expect(clippy::large_enum_variant, reason = "few exist at a time")]
pub enum Metrics {
    /// Counting is off.
    #[default]
    Noop,
    /// The counts, under cortado's names.
    Op(Counts),
}

impl Metrics {
    /// Returns whether counting is on.
    pub fn is_op(&self) -> bool {
        matches!(self, Self::Op(_))
    }

    /// Returns whether counting is off.
    pub fn is_noop(&self) -> bool {
        !self.is_op()
    }

    /// Returns the number of hits.
    pub fn hits(&self) -> Option<u64> {
        self.figure(|counts| counts.hits)
    }

    /// Returns the number of misses.
    pub fn misses(&self) -> Option<u64> {
        self.figure(|counts| counts.misses)
    }

    /// Returns the number of inserts that added an entry.
    pub fn keys_added(&self) -> Option<u64> {
        self.figure(|counts| counts.inserts)
    }

    /// Returns the number of inserts that replaced an entry, including writes through
    /// [`ValueRefMut`](super::ValueRefMut).
    pub fn keys_updated(&self) -> Option<u64> {
        self.figure(|counts| counts.updates)
    }

    /// Returns the number of evicted entries, not including expired ones.
    pub fn keys_evicted(&self) -> Option<u64> {
        self.figure(|counts| counts.evictions)
    }

    /// Returns the total cost of the entries that were added or replaced another.
    pub fn cost_added(&self) -> Option<u64> {
        self.figure(|counts| counts.cost_added)
    }

    /// Returns the total cost of the evicted entries.
    pub fn cost_evicted(&self) -> Option<u64> {
        self.figure(|counts| counts.cost_evicted)
    }

    /// Returns the number of inserts that were rejected because too much garbage was pending, which
    /// corresponds to Stretto's full buffers.
    pub fn sets_dropped(&self) -> Option<u64> {
        self.figure(|counts| counts.rejected_garbage)
    }

    /// Returns the number of inserts that were rejected as too costly or too infrequent.
    pub fn sets_rejected(&self) -> Option<u64> {
        self.figure(|counts| counts.rejected_costly.saturating_add(counts.rejected_cold))
    }

    /// Returns the number of accesses, including inserts, that did not reach the sketch.
    pub fn gets_dropped(&self) -> Option<u64> {
        self.figure(|counts| counts.events_dropped)
    }

    /// Returns the number of reads, less those accesses.
    pub fn gets_kept(&self) -> Option<u64> {
        self.figure(|c| c.hits.saturating_add(c.misses).saturating_sub(c.events_dropped))
    }

    /// Returns hits divided by reads, from 0 to 1; 0 if there was no read.
    pub fn ratio(&self) -> Option<f64> {
        self.figure(Counts::hit_ratio)
    }

    fn figure<T>(&self, figure: impl FnOnce(&Counts) -> T) -> Option<T> {
        match self {
            Self::Noop => None,
            Self::Op(counts) => Some(figure(counts)),
        }
    }
}

impl fmt::Display for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Noop => f.write_str("Metrics::Noop"),
            Self::Op(counts) => counts.fmt(f),
        }
    }
}
