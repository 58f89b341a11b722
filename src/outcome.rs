//! `Insert`, `ComputeResult` and `RejectReason`: what a write did.

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

/// The outcome of [`Cache::compute`](crate::Cache::compute).
///
/// `R` is the form in which an entry's value is returned: a [`ValueRef`](crate::ValueRef), or a
/// clone from [`Cache::compute_async`](crate::Cache::compute_async).
///
/// # Examples
///
/// ```
/// use cortado::{Cache, ComputeResult, ComputeOp};
///
/// let cache = Cache::new(10);
/// assert_eq!(cache.compute("k", |_| ComputeOp::Put(1)).cloned(), ComputeResult::Inserted(1));
/// assert_eq!(cache.compute("k", |_| ComputeOp::Put(2)).value(), Some(&2));
/// assert_eq!(cache.compute("k", |_| ComputeOp::Keep).cloned(), ComputeResult::Kept(Some(2)));
/// assert_eq!(cache.compute("k", |_| ComputeOp::Remove).cloned(), ComputeResult::Removed(2));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ComputeResult<V, R> {
    /// Nothing was changed. Contains the entry that the closure has seen, if there was one.
    Kept(Option<R>),
    /// This entry was inserted; the key had none.
    Inserted(R),
    /// This entry replaced another.
    Updated(R),
    /// This entry was removed.
    Removed(R),
    /// The value was rejected for this reason. If the key had an entry, that was removed, unless
    /// the reason is [`RejectReason::Garbage`].
    Rejected(V, RejectReason),
}

impl<V, R> ComputeResult<V, R> {
    /// Returns the entry that the key has now.
    pub fn into_entry(self) -> Option<R> {
        match self {
            Self::Kept(entry) => entry,
            Self::Inserted(entry) | Self::Updated(entry) => Some(entry),
            Self::Removed(_) | Self::Rejected(..) => None,
        }
    }

    /// Returns whether an entry was inserted, replaced or removed.
    pub fn is_changed(&self) -> bool {
        matches!(self, Self::Inserted(_) | Self::Updated(_) | Self::Removed(_))
    }

    /// Converts the entry with `f`.
    pub(crate) fn map<T>(self, f: impl FnOnce(R) -> T) -> ComputeResult<V, T> {
        match self {
            Self::Kept(entry) => ComputeResult::Kept(entry.map(f)),
            Self::Inserted(entry) => ComputeResult::Inserted(f(entry)),
            Self::Updated(entry) => ComputeResult::Updated(f(entry)),
            Self::Removed(entry) => ComputeResult::Removed(f(entry)),
            Self::Rejected(value, reason) => ComputeResult::Rejected(value, reason),
        }
    }
}
