//! User-supplied callbacks: the cost function, predicates, write-back, the removal listener and
//! expiry.

use std::time::Duration;

use super::write_back::WriteBack;
use crate::{entry::Entry, util::caught};

/// Computes the cost of an entry from its key and value.
pub type CostOf<K, V> = Box<dyn Fn(&K, &V) -> u64 + Send + Sync>;

/// Decides whether a new value may replace an old one.
pub type ReplaceIf<K, V> = Box<dyn Fn(&K, &V, &V) -> bool + Send + Sync>;

/// Decides whether an entry may be evicted.
pub type CanEvict<K, V> = Box<dyn Fn(&K, &V) -> bool + Send + Sync>;

/// Receives each entry that was removed from the cache.
pub type OnRemove<K, V> = Box<dyn Fn(Removed<K, V>) + Send + Sync>;

/// The callbacks of a cache.
pub struct Callbacks<K, V> {
    pub cost_of: Option<CostOf<K, V>>,
    pub replace_if: Option<ReplaceIf<K, V>>,
    pub can_evict: Option<CanEvict<K, V>>,
    pub write_back: Option<WriteBack<K, V>>,
    pub on_remove: Option<OnRemove<K, V>>,
    pub expiry: Option<Box<dyn Expiry<K, V>>>,
}

impl<K, V> Default for Callbacks<K, V> {
    fn default() -> Self {
        Self {
            cost_of: None,
            replace_if: None,
            can_evict: None,
            write_back: None,
            on_remove: None,
            expiry: None,
        }
    }
}

impl<K, V> Callbacks<K, V> {
    /// Returns whether a callback has to see an entry before it is evicted.
    #[inline]
    pub fn ask_before_eviction(&self) -> bool {
        self.can_evict.is_some() || self.write_back.is_some()
    }

    /// Returns whether an entry may be evicted. A panic of the predicate counts as no.
    pub fn may_evict(&self, entry: &Entry<K, V>) -> bool {
        let allows =
            |ask: &CanEvict<K, V>| caught(|| ask(&entry.key, &entry.value)).unwrap_or(false);
        self.can_evict.as_ref().is_none_or(allows)
    }
}

/// Decides how long entries live, from their keys and values; see
/// [`CacheBuilder::expiry`](crate::CacheBuilder::expiry).
///
/// Each method returns a time to live that starts now; `None` means that the entry does not expire.
/// The methods run while the calling thread is pinned: keep them short.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use cortado::{Cache, Expiry, Maintenance, ManualClock};
///
/// /// Errors are remembered for a second, answers for a minute after their last use.
/// struct ByOutcome;
///
/// impl Expiry<u32, Result<u32, ()>> for ByOutcome {
///     fn on_create(&self, _: &u32, answer: &Result<u32, ()>) -> Option<Duration> {
///         Some(Duration::from_secs(if answer.is_ok() { 60 } else { 1 }))
///     }
///     fn on_read(
///         &self,
///         _: &u32,
///         answer: &Result<u32, ()>,
///         left: Option<Duration>,
///     ) -> Option<Duration> {
///         if answer.is_ok() { Some(Duration::from_secs(60)) } else { left }
///     }
/// }
///
/// let clock = ManualClock::new();
/// let cache = Cache::builder()
///     .max_cost(10)
///     .maintenance(Maintenance::Manual)
///     .expiry(ByOutcome)
///     .clock(clock.clone())
///     .build()?;
/// cache.insert(1, Ok(1));
/// cache.insert(2, Err(()));
/// clock.advance(Duration::from_secs(59));
/// assert!(cache.get(&1).is_some() && cache.get(&2).is_none());
/// clock.advance(Duration::from_secs(59));
/// assert!(cache.get(&1).is_some());
/// # Ok::<(), cortado::BuildError>(())
/// ```
pub trait Expiry<K, V>: Send + Sync {
    /// Returns how long a new entry lives. By default, it does not expire.
    fn on_create(&self, key: &K, value: &V) -> Option<Duration> {
        let _ = (key, value);
        None
    }

    /// Returns how long an entry lives after `value` has replaced its value; `left` is what
    /// remained of the old one's time to live. By default, returns what
    /// [`on_create`](Self::on_create) does.
    fn on_update(&self, key: &K, value: &V, left: Option<Duration>) -> Option<Duration> {
        let _ = left;
        self.on_create(key, value)
    }

    /// Returns how long an entry lives after a read; `left` is what remains of its time to live. By
    /// default, returns `left`.
    fn on_read(&self, key: &K, value: &V, left: Option<Duration>) -> Option<Duration> {
        let _ = (key, value);
        left
    }
}

/// An entry that was removed from the cache, as passed to
/// [`CacheBuilder::on_remove`](crate::CacheBuilder::on_remove).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Removed<K, V> {
    /// Its key.
    pub key: K,
    /// Its value.
    pub value: V,
    /// The cost it was charged.
    pub cost: u64,
    /// Why it was removed.
    pub cause: RemovalCause,
}

impl<K, V> Removed<K, V> {
    pub(super) fn new(entry: Entry<K, V>, cost: u64, cause: RemovalCause) -> Self {
        let Entry { key, value } = entry;
        Self { key, value, cost, cause }
    }
}

/// Why an entry was removed from the cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum RemovalCause {
    /// It was evicted to keep the budget, or because its bucket was full.
    Evicted = 1,
    /// It was loaded but not admitted: only the callers of the load saw it.
    Rejected,
    /// It expired.
    Expired,
    /// A newer value of its key replaced it, or was rejected and made it out of date.
    Replaced,
    /// It was removed by a call.
    Removed,
    /// The cache was cleared.
    Cleared,
}

impl RemovalCause {
    /// Every cause, ordered by discriminant.
    const ALL: [Self; 6] = [
        Self::Evicted,
        Self::Rejected,
        Self::Expired,
        Self::Replaced,
        Self::Removed,
        Self::Cleared,
    ];

    /// Returns the cause that a label of retired garbage stands for.
    pub(super) fn of(label: u8) -> Option<Self> {
        Self::ALL.get(usize::from(label).checked_sub(1)?).copied()
    }
}

impl std::fmt::Display for RemovalCause {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Evicted => "evicted",
            Self::Rejected => "rejected",
            Self::Expired => "expired",
            Self::Replaced => "replaced",
            Self::Removed => "removed",
            Self::Cleared => "cleared",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_cause_is_found_by_its_label() {
        for cause in RemovalCause::ALL {
            assert_eq!(RemovalCause::of(cause as u8), Some(cause));
        }
        assert_eq!((RemovalCause::of(0), RemovalCause::of(7)), (None, None));
    }
}
