//! Values: as stored, as read, and as modified.

use std::{fmt, hash::Hash, ptr, time::Duration};

use cortado::{ComputeOp, ComputeResult};

use super::{CacheCallback, Item, cache::Shared, keys::Keyed};

/// The underlying cache.
pub type Native<K, V> = cortado::Cache<Keyed<K>, Valued<V>>;

/// A stored value.
#[derive(Clone, Debug)]
pub struct Valued<V> {
    pub value: V,
    /// The cost given to the insert or computed by the coster, so that writing back charges the
    /// same.
    pub cost: u64,
    /// The deadline by the cache's clock, in nanoseconds; used only for callbacks.
    pub deadline: u64,
}

/// The deadline of an entry that does not expire.
pub const NEVER: u64 = u64::MAX;

/// A reference to a value of the cache.
///
/// Stretto's holds a lock; this one pins its thread. No other thread waits for it, but while it
/// exists, entries that are removed concurrently are not freed or passed to a callback. It is not
/// `Send`, like Stretto's.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use stretto::Cache;
///
/// let cache = Cache::new(1000, 100)?;
/// cache.insert("key", 7, 1);
/// let value = cache.get("key").unwrap();
/// cache.insert("key", 8, 1); // would deadlock in Stretto
/// assert_eq!((value.value(), value.ttl()), (&7, Duration::MAX));
/// value.release();
/// assert_eq!(cache.get("key").unwrap().read(), 8);
/// # Ok::<(), stretto::CacheError>(())
/// ```
pub struct ValueRef<'a, V, K> {
    entry: cortado::ValueRef<'a, Keyed<K>, Valued<V>>,
}

impl<'a, V, K> ValueRef<'a, V, K> {
    #[inline]
    pub(super) fn new(entry: cortado::ValueRef<'a, Keyed<K>, Valued<V>>) -> Self {
        Self { entry }
    }

    /// Returns the value.
    #[inline]
    pub fn value(&self) -> &V {
        &self.entry.value
    }

    /// Releases the value; equivalent to dropping the reference.
    pub fn release(self) {}

    /// Returns the time that the entry has left; `Duration::MAX` if it does not expire.
    pub fn ttl(&self) -> Duration {
        self.entry.ttl().unwrap_or(Duration::MAX)
    }
}

impl<V: Copy, K> ValueRef<'_, V, K> {
    /// Returns a copy of the value, and releases it.
    pub fn read(self) -> V {
        *self.value()
    }
}

impl<V, K> AsRef<V> for ValueRef<'_, V, K> {
    fn as_ref(&self) -> &V {
        self.value()
    }
}

impl<V: fmt::Debug, K> fmt::Debug for ValueRef<'_, V, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ValueRef").field("value", self.value()).field("ttl", &self.ttl()).finish()
    }
}

impl<V: fmt::Display, K> fmt::Display for ValueRef<'_, V, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.value().fmt(f)
    }
}

/// A copy of a value that is written back when this is dropped.
///
/// Stretto's holds a lock, so that no other thread can change the entry. This one locks no thread
/// out: the copy is made at the first [`value_mut`](Self::value_mut), and written back by
/// compare-and-swap, with the same cost and deadline. **If the entry was replaced, removed or
/// evicted or has expired in between, the new value is dropped**, as if it had been written first
/// and then replaced. That is the same as an insert or removal after Stretto's lock was released,
/// but of two concurrent increments one is lost, which [`commit`](Self::commit) reports. If every
/// change counts, use [`Cache::update`](cortado::Cache::update), which retries. Writing back may
/// also be rejected while too much garbage is pending; then the older value is kept.
///
/// # Examples
///
/// ```
/// use stretto::Cache;
///
/// let cache = Cache::new(1000, 100)?;
/// cache.insert("key", 7, 1);
/// let mut value = cache.get_mut("key").unwrap();
/// *value.value_mut() += 1;
/// assert_eq!(cache.get("key").unwrap().read(), 7); // not written back yet
/// drop(value);
/// assert_eq!(cache.get("key").unwrap().read(), 8);
/// # Ok::<(), stretto::CacheError>(())
/// ```
pub struct ValueRefMut<'a, V> {
    seen: Box<dyn Seen<V> + 'a>,
    copy: Option<V>,
}

impl<'a, V> ValueRefMut<'a, V> {
    pub(super) fn new(seen: impl Seen<V> + 'a) -> Self {
        Self { seen: Box::new(seen), copy: None }
    }

    /// Returns the value, unmodified or as it will be written back.
    pub fn value(&self) -> &V {
        self.copy.as_ref().unwrap_or_else(|| self.seen.value())
    }

    /// Returns a mutable reference to the value to be written back.
    pub fn value_mut(&mut self) -> &mut V {
        let seen = &self.seen;
        self.copy.get_or_insert_with(|| seen.value_cloned())
    }

    /// Sets the value to be written back.
    pub fn write(&mut self, val: V) {
        self.copy = Some(val);
    }

    /// Sets the value and writes it back.
    pub fn write_once(mut self, val: V) {
        self.write(val);
    }

    /// Writes back the modified value; equivalent to dropping this.
    pub fn release(self) {}

    /// Writes back the modified value, if any. Returns `false` if another thread changed the entry
    /// first or the write was rejected. (Stretto has no equivalent.)
    ///
    /// # Examples
    ///
    /// ```
    /// use stretto::Cache;
    ///
    /// let cache = Cache::new(1000, 100)?;
    /// cache.insert("key", 7, 1);
    /// let mut slow = cache.get_mut("key").unwrap();
    /// slow.write(8);
    /// cache.insert("key", 9, 1);
    /// assert!(!slow.commit());
    /// assert_eq!(cache.get("key").unwrap().read(), 9);
    /// # Ok::<(), stretto::CacheError>(())
    /// ```
    pub fn commit(mut self) -> bool {
        self.write_back()
    }

    fn write_back(&mut self) -> bool {
        self.copy.take().is_none_or(|copy| self.seen.replace(copy))
    }
}

impl<V: Clone> ValueRefMut<'_, V> {
    /// Returns a clone of the value.
    pub fn clone_inner(&self) -> V {
        self.value().clone()
    }
}

impl<V: Copy> ValueRefMut<'_, V> {
    /// Returns a copy of the value, and writes back the modified value.
    pub fn read(self) -> V {
        *self.value()
    }
}

impl<V> Drop for ValueRefMut<'_, V> {
    fn drop(&mut self) {
        self.write_back();
    }
}

impl<V> AsRef<V> for ValueRefMut<'_, V> {
    fn as_ref(&self) -> &V {
        self.value()
    }
}

impl<V> AsMut<V> for ValueRefMut<'_, V> {
    fn as_mut(&mut self) -> &mut V {
        self.value_mut()
    }
}

impl<V: fmt::Debug> fmt::Debug for ValueRefMut<'_, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.value().fmt(f)
    }
}

impl<V: fmt::Display> fmt::Display for ValueRefMut<'_, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.value().fmt(f)
    }
}

/// An entry that was read. A trait, so that [`ValueRefMut`] has only the value's type as a
/// parameter.
pub trait Seen<V> {
    fn value(&self) -> &V;

    fn value_cloned(&self) -> V;

    /// Replaces the value that was read; returns whether it did.
    fn replace(&self, value: V) -> bool;
}

/// An entry that was read. It holds the entry's guard, so that no other value gets the address of
/// its value.
pub struct Loan<'a, K, V, KH, C, CB> {
    pub native: &'a Native<K, V>,
    pub shared: &'a Shared<KH, C, CB>,
    pub entry: cortado::ValueRef<'a, Keyed<K>, Valued<V>>,
}

impl<K, V, KH, C, CB> Seen<V> for Loan<'_, K, V, KH, C, CB>
where
    K: Hash + Eq + Clone,
    V: Clone,
    CB: CacheCallback<Value = V>,
{
    fn value(&self) -> &V {
        &self.entry.value
    }

    fn value_cloned(&self) -> V {
        self.entry.value.clone()
    }

    fn replace(&self, value: V) -> bool {
        let (key, seen) = (self.entry.key(), self.entry.value());
        let mut new = Some(Valued { value, ..*seen });
        let computed = self.native.compute(key.clone(), |now| match now {
            Some(now) if ptr::eq(now, seen) => new.take().map_or(ComputeOp::Keep, ComputeOp::Put),
            _ => ComputeOp::Keep,
        });
        match computed {
            ComputeResult::Updated(_) => true,
            ComputeResult::Rejected(valued, _) => {
                self.shared.reject((key.index, key.conflict), valued);
                false
            }
            _ => false,
        }
    }
}

impl<V> Valued<V> {
    /// Creates the item that is passed to a callback.
    pub fn into_item(self, (index, conflict): (u64, u64), cost: u64, now: Duration) -> Item<V> {
        let left = self.deadline.saturating_sub(to_nanoseconds(now));
        let left = (self.deadline != NEVER).then(|| Duration::from_nanos(left));
        Item {
            val: Some(self.value),
            index,
            conflict,
            cost: i64::try_from(cost).unwrap_or(i64::MAX),
            exp: super::Time::new(left),
        }
    }
}

/// Returns a duration in nanoseconds, at most 584 years.
pub fn to_nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
