//! Read-modify-write of one key by compare and swap.

use std::{
    convert::Infallible,
    hash::{BuildHasher, Hash},
};

use equivalent::Equivalent;

use super::{Cache, InsertOptions, ValueRef};
use crate::{
    engine::{Change, Terms},
    outcome::ComputeResult,
};

/// The change that a closure of [`Cache::compute`] decides on.
///
/// # Examples
///
/// ```
/// use cortado::{Cache, ComputeOp};
///
/// let cache = Cache::new(10);
/// cache.insert("visits", 1);
/// cache.compute("visits", |seen| ComputeOp::Put(seen.map_or(1, |n| n + 1)));
/// assert_eq!(cache.get_cloned("visits"), Some(2));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ComputeOp<V> {
    /// Change nothing.
    Keep,
    /// Insert this value, or replace the entry's value by it. Its cost is what the builder's
    /// [`cost_of`](crate::CacheBuilder::cost_of) returns, otherwise the cost of the entry that it
    /// replaces, otherwise 1.
    Put(V),
    /// Like `Put`, but with these options; what they do not set is as for `Put`.
    PutWith(V, InsertOptions),
    /// Remove the entry.
    Remove,
}

impl<K, V> ComputeResult<V, ValueRef<'_, K, V>> {
    /// Returns the value that the key has now.
    pub fn value(&self) -> Option<&V> {
        match self {
            Self::Kept(entry) => entry.as_deref(),
            Self::Inserted(entry) | Self::Updated(entry) => Some(entry),
            Self::Removed(_) | Self::Rejected(..) => None,
        }
    }

    /// Clones the value, so that the result pins no thread.
    pub fn cloned(self) -> ComputeResult<V, V>
    where
        V: Clone,
    {
        self.map(|entry| V::clone(&entry))
    }
}

impl<V> ComputeOp<V> {
    pub(super) fn into_change(self) -> Change<V> {
        match self {
            Self::Keep => Change::Keep,
            Self::Put(value) => Change::Put(value, Terms::DEFAULT),
            Self::PutWith(value, options) => Change::Put(value, options.terms()),
            Self::Remove => Change::Remove,
        }
    }
}

impl<K, V, S> Cache<K, V, S>
where
    K: Hash + Eq,
    S: BuildHasher,
{
    /// Computes a change from the entry of a key and carries it out, as one atomic step.
    ///
    /// If another thread changes the entry concurrently, `f` is called again with the new value: no
    /// update is lost, and only the result of the last call is carried out. A new entry keeps the
    /// cost, priority and deadline of the one that it replaces, unless [`ComputeOp::PutWith`] sets
    /// others. If the builder has set [`cost_of`](crate::CacheBuilder::cost_of), that computes the
    /// cost.
    ///
    /// `f` and `cost_of` run while this thread is pinned: make them short. They may use the cache.
    /// For longer computations use [`compute_async`](Self::compute_async).
    ///
    /// # Examples
    ///
    /// ```
    /// use cortado::{Cache, ComputeOp};
    ///
    /// let cache = Cache::new(10);
    /// let count = |n: Option<&u32>| ComputeOp::Put(n.unwrap_or(&0) + 1);
    /// assert_eq!(cache.compute("hits", count).value(), Some(&1));
    /// assert_eq!(cache.compute("hits", count).value(), Some(&2));
    /// assert!(cache.compute("hits", |_| ComputeOp::Remove).is_changed());
    /// assert!(!cache.compute("hits", |_| ComputeOp::Remove).is_changed());
    /// ```
    #[doc(alias("and_compute_with", "and_upsert_with", "upsert"))]
    pub fn compute(
        &self,
        key: K,
        mut f: impl FnMut(Option<&V>) -> ComputeOp<V>,
    ) -> ComputeResult<V, ValueRef<'_, K, V>> {
        let Ok(computed) = self.try_compute(key, |value| Ok::<_, Infallible>(f(value)));
        computed
    }

    /// Like [`compute`](Self::compute), but changes nothing if `f` returns an error.
    ///
    /// # Errors
    ///
    /// Returns the error of `f`.
    ///
    /// # Examples
    ///
    /// ```
    /// use cortado::{Cache, ComputeOp};
    ///
    /// let cache = Cache::<&str, u8>::new(10);
    /// cache.insert("n", 250);
    /// let add = |n: Option<&u8>| {
    ///     n.unwrap_or(&0).checked_add(3).map(ComputeOp::Put).ok_or("overflow")
    /// };
    /// assert_eq!(cache.try_compute("n", add).unwrap().value(), Some(&253));
    /// assert!(cache.try_compute("n", add).is_err());
    /// assert_eq!(cache.get_cloned("n"), Some(253));
    /// ```
    #[doc(alias("and_try_compute_with"))]
    pub fn try_compute<E>(
        &self,
        key: K,
        f: impl FnMut(Option<&V>) -> Result<ComputeOp<V>, E>,
    ) -> Result<ComputeResult<V, ValueRef<'_, K, V>>, E> {
        self.compute_at(self.engine.hash(&key), key, f)
    }

    /// Like [`try_compute`](Self::try_compute), for a key that is hashed already.
    fn compute_at<E>(
        &self,
        hash: u64,
        key: K,
        mut f: impl FnMut(Option<&V>) -> Result<ComputeOp<V>, E>,
    ) -> Result<ComputeResult<V, ValueRef<'_, K, V>>, E> {
        let computed =
            self.engine.compute(hash, key, |seen| f(seen).map(ComputeOp::into_change))?;
        Ok(computed.map(|entry| self.value_ref(entry)))
    }

    /// Replaces the value of a key by the result of `f`, as one atomic step. Returns whether the
    /// key had an entry and now has the new one.
    ///
    /// Like [`compute`](Self::compute), may call `f` again, and loses no update. Cost, priority and
    /// deadline stay; if the builder has set [`cost_of`](crate::CacheBuilder::cost_of), that
    /// computes the cost of the new value. If the new value is rejected for lack of room, the entry
    /// is removed. If it is rejected because too much garbage waits for readers
    /// ([`RejectReason::Garbage`](crate::RejectReason::Garbage)), the old value stays.
    ///
    /// # Examples
    ///
    /// ```
    /// let cache = cortado::Cache::new(10);
    /// assert!(!cache.update("k", |n| n + 1));
    /// cache.insert_with_cost("k", 1, 3);
    /// assert!(cache.update("k", |n| n + 1));
    /// assert_eq!((cache.get_cloned("k"), cache.cost()), (Some(2), 3));
    /// ```
    pub fn update<Q>(&self, key: &Q, mut f: impl FnMut(&V) -> V) -> bool
    where
        K: Clone,
        Q: Hash + Equivalent<K> + ?Sized,
    {
        self.update_by(key, |value| ComputeOp::Put(f(value)))
    }

    /// Like [`update`](Self::update), but with options for the new value: a cost, a time to live, a
    /// priority. What they do not set stays.
    ///
    /// # Examples
    ///
    /// ```
    /// use cortado::InsertOptions;
    ///
    /// let cache = cortado::Cache::new(100);
    /// cache.insert_with_cost("page", vec![0; 40], 40);
    /// let halve = |page: &Vec<u8>| {
    ///     let half = page[..page.len() / 2].to_vec();
    ///     let cost = half.len() as u64;
    ///     (half, InsertOptions::new().cost(cost))
    /// };
    /// assert!(cache.update_with("page", halve));
    /// assert_eq!(cache.cost(), 20);
    /// ```
    pub fn update_with<Q>(&self, key: &Q, mut f: impl FnMut(&V) -> (V, InsertOptions)) -> bool
    where
        K: Clone,
        Q: Hash + Equivalent<K> + ?Sized,
    {
        self.update_by(key, |value| {
            let (value, options) = f(value);
            ComputeOp::PutWith(value, options)
        })
    }

    fn update_by<Q>(&self, key: &Q, mut f: impl FnMut(&V) -> ComputeOp<V>) -> bool
    where
        K: Clone,
        Q: Hash + Equivalent<K> + ?Sized,
    {
        let hash = self.engine.hash(key);
        let owned = self.engine.key_of(hash, |k| key.equivalent(k));
        let Some(owned) = owned else { return false };
        let f = |value: Option<&V>| Ok::<_, Infallible>(value.map_or(ComputeOp::Keep, &mut f));
        let Ok(done) = self.compute_at(hash, owned, f);
        matches!(done, ComputeResult::Updated(_))
    }
}
