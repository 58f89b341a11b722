//! `Metrics`: what a cache has counted, by Stretto's names.

use std::fmt;

use cortado::Metrics as Counts;

/// A snapshot of what a cache has counted since it was made; [`Cache::metrics`](super::Cache::metrics)
/// returns it, which Stretto has no way to.
///
/// Each figure is `None` where the cache was not told to count.
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
#[expect(clippy::large_enum_variant, reason = "one is read now and then, nobody keeps many")]
pub enum Metrics {
    /// Nothing is counted.
    #[default]
    Noop,
    /// The counts, by our own names.
    Op(Counts),
}

impl Metrics {
    /// Returns whether anything is counted.
    pub fn is_op(&self) -> bool {
        matches!(self, Self::Op(_))
    }

    /// Returns whether nothing is counted.
    pub fn is_noop(&self) -> bool {
        !self.is_op()
    }

    /// Returns how many reads found their entry.
    pub fn hits(&self) -> Option<u64> {
        self.figure(|counts| counts.hits)
    }

    /// Returns how many reads did not.
    pub fn misses(&self) -> Option<u64> {
        self.figure(|counts| counts.misses)
    }

    /// Returns how many inserts added an entry.
    pub fn keys_added(&self) -> Option<u64> {
        self.figure(|counts| counts.inserts)
    }

    /// Returns how many inserts replaced one, writes through [`ValueRefMut`](super::ValueRefMut) included.
    pub fn keys_updated(&self) -> Option<u64> {
        self.figure(|counts| counts.updates)
    }

    /// Returns how many entries were evicted, those whose time was over not included.
    pub fn keys_evicted(&self) -> Option<u64> {
        self.figure(|counts| counts.evictions)
    }

    /// Returns the sum of the costs of all entries that were added, or replaced one.
    pub fn cost_added(&self) -> Option<u64> {
        self.figure(|counts| counts.cost_added)
    }

    /// Returns the sum of the costs of all entries that were evicted.
    pub fn cost_evicted(&self) -> Option<u64> {
        self.figure(|counts| counts.cost_evicted)
    }

    /// Returns how many inserts were refused because too much garbage was waiting: what comes nearest to
    /// Stretto's full buffers.
    pub fn sets_dropped(&self) -> Option<u64> {
        self.figure(|counts| counts.rejected_garbage)
    }

    /// Returns how many inserts were refused as too costly or too cold.
    pub fn sets_rejected(&self) -> Option<u64> {
        self.figure(|counts| counts.rejected_costly.saturating_add(counts.rejected_cold))
    }

    /// Returns how many accesses, inserts included, never reached the sketch.
    pub fn gets_dropped(&self) -> Option<u64> {
        self.figure(|counts| counts.events_dropped)
    }

    /// Returns how many reads there were, less those accesses.
    pub fn gets_kept(&self) -> Option<u64> {
        self.figure(|c| c.hits.saturating_add(c.misses).saturating_sub(c.events_dropped))
    }

    /// Returns hits divided by reads, from 0 to 1; 0 where there was no read.
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
