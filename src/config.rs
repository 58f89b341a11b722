//! The settings of a cache, and every default and limit, in one place.

use std::time::Duration;

/// How the deferred work of a cache is done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum Maintenance {
    /// A thread of the cache keeps a small part of the budget free, so that inserts find room, and
    /// frees removed entries. It sleeps when there is nothing to do, or nothing that can be done
    /// yet, and exits when the last handle of the cache is dropped.
    #[default]
    Thread,
    /// No thread. Inserts make their own room and free removed entries, a few at a time;
    /// [`Cache::tick`](crate::Cache::tick) does the remaining work when you call it.
    Manual,
}

/// What eviction and admission maximise.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum EvictionPolicy {
    /// Hits per unit of cost: of two entries that are used equally often, the costlier one is
    /// evicted first. Maximises the number of entries hit.
    #[default]
    FrequencyPerCost,
    /// Hits, regardless of the cost of an entry. Maximises the cost (say, bytes) hit.
    Frequency,
}

/// How much an entry is worth, apart from how often it is accessed.
///
/// Priorities are relative within a cache: if all entries have the same one, it has no effect.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum Priority {
    /// The default: ranked by the estimated access frequency.
    #[default]
    Normal,
    /// Ranked as if it were accessed an eighth as often.
    Low,
    /// Ranked as if it were accessed eight times as often.
    High,
    /// Unevictable. The entry stays until it is removed, replaced or cleared, it expires, or the
    /// budget is lowered below the cost of all unevictable entries. Their cost is not available to
    /// other entries: an insert that would need to evict one of them is rejected as
    /// [`Kept`](crate::RejectReason::Kept).
    Pinned,
}

/// The settings of a cache that are plain data, for programs that keep them in a file.
/// [`CacheBuilder::config`](crate::CacheBuilder::config) takes them. The builder's method of the
/// same name documents each field.
///
/// With the feature `serde`, a missing field has its default, and an unknown field is an error.
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
    /// The budget; required.
    pub max_cost: u64,
    /// The number of entries that the table and the sketch are sized for.
    pub expected_entries: Option<usize>,
    /// The limit of the cost that is removed and not yet freed; by default the budget, or 32 MiB of
    /// memory if that is more.
    pub max_garbage: Option<u64>,
    /// How deferred work is done.
    pub maintenance: Maintenance,
    /// What eviction and admission maximise.
    pub eviction_policy: EvictionPolicy,
    /// The seed of the policy's random choices; random by default.
    pub seed: Option<u64>,
    /// Whether metrics are collected.
    pub metrics: bool,
    /// Whether to add an entry's own bytes to its cost.
    pub charge_overhead: bool,
    /// The name of the cache.
    pub name: String,
    /// How long entries live after they were written.
    pub ttl: Option<Duration>,
    /// How long entries live after their last use.
    pub tti: Option<Duration>,
    /// The age at which a load refreshes an entry.
    pub refresh_after: Option<Duration>,
    /// Whether every entry has room for a deadline.
    pub timed: bool,
    /// Whether an insert keeps the priority of the entry that it replaces.
    pub keep_priority: bool,
}

/// The validated settings of a cache.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The name of the cache and of its thread.
    pub name: String,
    /// The limit of the sum of costs.
    pub max_cost: u64,
    /// The number of entries that the table and the sketch are first sized for.
    pub expected_entries: usize,
    /// The limit of the cost that is unlinked and not yet freed.
    pub max_garbage: Option<u64>,
    /// How deferred work is done.
    pub maintenance: Maintenance,
    /// What eviction and admission maximise.
    pub eviction_policy: EvictionPolicy,
    /// The seed of the policy's random choices.
    pub seed: u64,
    /// Whether metrics are collected.
    pub metrics: bool,
    /// Whether to add an entry's own bytes to its cost.
    pub charge_overhead: bool,
    /// Whether an insert keeps the priority of the entry that it replaces.
    pub keep_priority: bool,
    /// Loads that take longer are reported.
    pub slow_load: Duration,
}

/// The default of [`Settings::slow_load`]: loads that take longer are reported.
pub const SLOW_LOAD: Duration = Duration::from_secs(1);

/// The entries that the table is first sized for, at most, if the user names no number. The budget
/// may be in bytes, and a table sized for many more entries than there are is slow to sample.
pub const DEFAULT_ENTRIES: u64 = 1 << 14;

/// Like [`DEFAULT_ENTRIES`], but for a cache with a cost function, whose budget says nothing about
/// the number of entries.
pub const DEFAULT_ENTRIES_BY_COST: u64 = 1 << 12;

/// The maximum number of entries that a cache can be built for: table and sketch, 39 bytes per
/// entry, have to fit into the address space, and the number is at most 2^40. (67 million where
/// addresses have 32 bits.)
pub const MAX_ENTRIES: usize = {
    let by_addresses = 1_u64 << (usize::BITS - 6);
    let most = if by_addresses < 1 << 40 { by_addresses } else { 1 << 40 };
    most as usize
};

/// Bytes of garbage that are allowed regardless of cost, if the user sets no limit. A pinned thread
/// that waits for its core holds back what all other threads retire, for tens of milliseconds.
pub const GARBAGE_FLOOR_BYTES: u64 = 32 << 20;

/// Steps of the access clock after which an access counts half: 16 rounds of as many events as
/// there are entries. A power of two.
pub const STEPS_PER_AGE: u32 = 1 << 10;

/// The thread reserves at most the budget divided by this.
pub const RESERVE_PART: u64 = 128;

/// The thread reserves at most this many entries.
pub const RESERVE_ENTRIES: u64 = 1024;
