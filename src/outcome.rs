//! `Insert` and `RejectReason`: what an insert did.

/// The result of an insert. It is final, and visible to all threads, when the call returns.
///
/// # Examples
///
/// ```
/// use cortado::{Cache, Insert, RejectReason};
///
/// let cache = Cache::new(10);
/// assert_eq!(cache.insert("k", 1), Insert::Inserted);
/// assert_eq!(cache.insert("k", 2), Insert::Updated);
/// assert_eq!(cache.insert_with_cost("k", 3, 11), Insert::Rejected(3, RejectReason::TooCostly));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Insert<V> {
    /// The entry is in the cache, and its key had none before.
    Inserted,
    /// The entry is in the cache, and has replaced an older one of its key.
    Updated,
    /// The entry is not in the cache; the value is returned. An older entry of its key was removed
    /// as out of date, unless the call only inserts, or
    /// [`replace_if`](crate::CacheBuilder::replace_if) kept it.
    Rejected(V, RejectReason),
}

impl<V> Insert<V> {
    /// Returns whether the entry is in the cache.
    pub fn is_in(&self) -> bool {
        !matches!(self, Self::Rejected(..))
    }

    /// Returns the value, if it was rejected.
    pub fn rejected(self) -> Option<V> {
        match self {
            Self::Rejected(value, _) => Some(value),
            _ => None,
        }
    }
}

/// Why an entry was rejected.
///
/// # Examples
///
/// ```
/// use cortado::{Cache, Insert, Priority, InsertOptions, RejectReason};
///
/// let cache = Cache::new(1);
/// let pinned = InsertOptions::new().priority(Priority::Pinned);
/// assert!(cache.insert_with("k", 1, pinned).is_in());
/// assert_eq!(cache.insert("l", 2), Insert::Rejected(2, RejectReason::Kept));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum RejectReason {
    /// It costs more than the whole budget.
    TooCostly,
    /// Room could not be made in a bounded number of steps: the entries in its way are accessed
    /// more often, or many writers compete for the room.
    Cold,
    /// Too many entries are unlinked but not freed yet, because a reader holds a value: see
    /// [`max_garbage`](crate::CacheBuilder::max_garbage).
    /// [`Cache::stalled_readers`](crate::Cache::stalled_readers) lists such readers.
    Garbage,
    /// There is not enough memory.
    Memory,
    /// The resident entries stay: [pinned](crate::Priority::Pinned) ones take the room, or
    /// [`replace_if`](crate::CacheBuilder::replace_if),
    /// [`can_evict`](crate::CacheBuilder::can_evict) or
    /// [`write_back`](crate::CacheBuilder::write_back) refused.
    Kept,
    /// The key has an entry, and the call only inserts.
    Present,
    /// The key has no entry, and the call only replaces.
    Absent,
}
