//! What a user can set, and every default and limit that he can meet, in one place.

use std::time::Duration;

/// How the deferred work of a cache is done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum Maintenance {
    /// A thread of the cache's own keeps a small reserve below the budget, so that inserts find
    /// room, and frees what was removed. It sleeps when there is nothing to do, or nothing that can be done,
    /// and ends when the last handle of the cache is dropped.
    #[default]
    Thread,
    /// No thread. Inserts make their own room and free, a little at a time, what was removed;
    /// [`Cache::tick`](crate::Cache::tick) does the rest when the user calls it.
    Manual,
}

/// What the choice of victims and admission maximise.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum EvictionPolicy {
    /// Hits per unit of cost: of two entries used equally, the costlier one goes first. The most
    /// objects hit.
    #[default]
    FrequencyPerCost,
    /// Hits, whatever an entry costs. The most cost (say, bytes) hit.
    Frequency,
}

/// How much an entry is worth beside what it is asked for.
///
/// Priorities are compared within a cache: where all entries have the same one, it changes nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum Priority {
    /// As every entry.
    #[default]
    Normal,
    /// As if it were asked for an eighth as often.
    Low,
    /// As if it were asked for eight times as often.
    High,
    /// Never evicted, whatever comes. It leaves when it is removed, replaced or cleared, or when the
    /// budget is lowered below what pinned entries cost. What they cost is lost to all others: an insert
    /// that only a pinned entry could make room for is rejected as [`Kept`](crate::RejectReason::Kept).
    Pinned,
}

/// The settings of a cache that are plain data, for programs that keep them in a file;
/// [`CacheBuilder::config`](crate::CacheBuilder::config) takes them. Each is explained at the builder's method of
/// its name.
///
/// With the feature `serde`, what is missing is as by default, and a name that is not known is an error.
///
/// # Examples
///
/// ```
/// use cortado::{Cache, Config};
///
/// let mut config = Config::default();
/// config.max_cost = 1000;
/// config.name = "sessions".into();
/// let cache: Cache<u64, u64> = Cache::builder().config(config).build()?;
/// assert_eq!((cache.max_cost(), cache.name()), (1000, "sessions"));
/// # Ok::<(), cortado::BuildError>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields))]
#[non_exhaustive]
pub struct Config {
    /// The budget; has to be set.
    pub max_cost: u64,
    /// For how many entries to make the table and the sketch.
    pub expected_entries: Option<usize>,
    /// The limit of the cost that is removed and not yet freed; by default the budget.
    pub max_garbage: Option<u64>,
    /// How deferred work is done.
    pub maintenance: Maintenance,
    /// What the choice of victims maximises.
    pub eviction_policy: EvictionPolicy,
    /// Where random choices begin; by default at random.
    pub seed: Option<u64>,
    /// Whether to count.
    pub metrics: bool,
    /// Whether to add an entry's own bytes to its cost.
    pub charge_overhead: bool,
    /// The name of the cache.
    pub name: String,
    /// How long entries live.
    pub ttl: Option<Duration>,
    /// How long entries may go unused.
    pub tti: Option<Duration>,
    /// The age at which a load refreshes an entry.
    pub refresh_after: Option<Duration>,
    /// Whether every entry gets room for a deadline.
    pub timed: bool,
    /// Whether an insert keeps the priority of the entry that it replaces.
    pub keep_priority: bool,
}

/// The checked settings of a cache.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The name, for the thread and for the user.
    pub name: String,
    /// The limit of the sum of costs.
    pub max_cost: u64,
    /// What table and sketch are first made for.
    pub expected_entries: usize,
    /// The limit of the cost that is unlinked and not yet freed.
    pub max_garbage: Option<u64>,
    /// Thread or manual.
    pub maintenance: Maintenance,
    /// Objects or cost first.
    pub eviction_policy: EvictionPolicy,
    /// Where random choices begin.
    pub seed: u64,
    /// Whether to count.
    pub metrics: bool,
    /// Whether to add an entry's own bytes to its cost.
    pub charge_overhead: bool,
    /// Whether an insert keeps the priority of the entry that it replaces.
    pub keep_priority: bool,
    /// Loads that take so long are reported.
    pub slow_load: Duration,
}

/// Loads that take longer are reported, unless the user says otherwise.
pub const SLOW_LOAD: Duration = Duration::from_secs(1);

/// Entries for which a cache is made, at most, if the user names no number. The budget may be in bytes, and
/// a table for many more entries than there are would be slow to sample.
pub const DEFAULT_ENTRIES: u64 = 1 << 14;

/// The same where costs come from a function, so that the budget says nothing about numbers.
pub const DEFAULT_ENTRIES_BY_COST: u64 = 1 << 12;

/// The most entries a cache can be made for: those whose table and sketch, 39 bytes an entry, an address
/// space has room for, and no more than 2^40. (67 million where addresses have 32 bits.)
pub const MAX_ENTRIES: usize = {
    let by_addresses = 1_u64 << (usize::BITS - 6);
    let most = if by_addresses < 1 << 40 { by_addresses } else { 1 << 40 };
    most as usize
};

/// Bytes that may be garbage whatever they cost, if the user sets no limit: a thread that is pinned
/// and waits for its core holds back what all others retire, for tens of milliseconds.
pub const GARBAGE_FLOOR_BYTES: u64 = 32 << 20;

/// Steps after which what was seen counts half: 16 rounds, in each of which there are as many events
/// as entries. A power of two.
pub const STEPS_PER_AGE: u32 = 1 << 10;

/// The reserve that the thread keeps is this part of the budget, at most.
pub const RESERVE_PART: u64 = 128;

/// The reserve that the thread keeps is this many entries, at most.
pub const RESERVE_ENTRIES: u64 = 1024;
