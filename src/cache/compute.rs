//! Read-modify-write of one key by compare and swap.

use std::{
    convert::Infallible,
    hash::{BuildHasher, Hash},
};

use equivalent::Equivalent;

use super::{Cache, InsertOptions, ValueRef};
use crate::{
    engine::{Mode, RemovalCause, Terms, Turn},
    entry::Entry,
    outcome::RejectReason,
    table::EntryRef,
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

/// The outcome of [`Cache::compute`].
///
/// `R` is the form in which an entry's value is returned: a [`ValueRef`], or a clone from
/// [`Cache::compute_async`].
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

/// The outcome of one attempt, without the entry.
enum Attempt<V, E> {
    /// The entry was changed by another thread.
    Failed,
    Kept,
    Inserted,
    Updated,
    Removed,
    Rejected(V, RejectReason),
    Error(E),
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
        let engine = &self.engine;
        let mut key = Some(key);
        loop {
            // Before this thread is pinned, because destructors and listeners run here.
            engine.sweep_if_due();
            engine.settle_expired(hash, |k| key.as_ref() == Some(k), Turn::Wait);
            let pressure = engine.garbage_pressure();
            let mut attempt = Attempt::Failed;
            let held = engine.table.hold(engine.table.pin_part(hash), |table, guard| {
                // The result of `f` is a write, unless it is `Keep`.
                let write = engine.flights.begin_write(hash);
                let is_key = |k: &K| key.as_ref() == Some(k);
                let seen = table.find(guard, hash, |entry| is_key(&entry.entry.key));
                let seen = seen.map(|hit| hit.at()).filter(|entry| engine.is_unexpired(*entry));
                let (value, terms) = match f(seen.as_deref().map(|entry| &entry.value)) {
                    Err(error) => {
                        attempt = Attempt::Error(error);
                        return None;
                    }
                    Ok(ComputeOp::Keep) => {
                        attempt = Attempt::Kept;
                        return seen;
                    }
                    Ok(ComputeOp::Put(value)) => (value, Terms::DEFAULT),
                    Ok(ComputeOp::PutWith(value, options)) => (value, options.terms()),
                    Ok(ComputeOp::Remove) => {
                        let Some(seen) = seen else {
                            // Invalidates a concurrent load, whose value must not be inserted.
                            attempt = Attempt::Kept;
                            engine.commit(guard, hash, write);
                            return None;
                        };
                        let is_it = |entry: EntryRef<'_, Entry<K, V>>| entry.id() == seen.id();
                        let cause = RemovalCause::Removed;
                        let removed =
                            engine.take_which(table, guard, hash, is_key, is_it, cause)?;
                        attempt = Attempt::Removed;
                        engine.commit(guard, hash, write);
                        return Some(removed);
                    }
                };
                // While the guard lives, the id is not reused for another entry.
                let mode = seen.map_or(Mode::IfAbsent, |entry| Mode::Instead(entry.id()));
                let mine = key.take().expect("it comes back with each failed attempt");
                let put = engine.put_at(table, guard, hash, (mine, value), terms, (mode, pressure));
                let entry = match put {
                    Ok((entry, is_new)) => {
                        attempt = if is_new { Attempt::Inserted } else { Attempt::Updated };
                        Some(entry)
                    }
                    Err(refused) => match refused.reason() {
                        Some(reason) => {
                            attempt = Attempt::Rejected(refused.into_value(), reason);
                            None
                        }
                        None => {
                            key = Some(refused.key);
                            return None;
                        }
                    },
                };
                engine.commit(guard, hash, write);
                entry
            });
            let entry = held.map(|entry| self.value_ref(entry));
            return Ok(match (attempt, entry) {
                (Attempt::Kept, entry) => ComputeResult::Kept(entry),
                (Attempt::Inserted, Some(entry)) => ComputeResult::Inserted(entry),
                (Attempt::Updated, Some(entry)) => ComputeResult::Updated(entry),
                (Attempt::Removed, Some(entry)) => ComputeResult::Removed(entry),
                (Attempt::Rejected(value, reason), _) => ComputeResult::Rejected(value, reason),
                (Attempt::Error(error), _) => return Err(error),
                (_, _) => continue,
            });
        }
    }

    /// Replaces the value of a key by the result of `f`, as one atomic step. Returns whether the
    /// key had an entry and now has the new one.
    ///
    /// Like [`compute`](Self::compute), may call `f` again, and loses no update. Cost, priority and
    /// deadline stay; if the builder has set [`cost_of`](crate::CacheBuilder::cost_of), that
    /// computes the cost of the new value. If the new value is rejected for lack of room, the entry
    /// is removed. If it is rejected because too much garbage waits for readers
    /// ([`RejectReason::Garbage`]), the old value stays.
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
        let owned = {
            let guard = self.engine.table.pin_part(hash);
            let entry = self.engine.table.find(&guard, hash, |entry| key.equivalent(&entry.key));
            entry.map(|hit| hit.entry.key.clone())
        };
        let Some(owned) = owned else { return false };
        let f = |value: Option<&V>| Ok::<_, Infallible>(value.map_or(ComputeOp::Keep, &mut f));
        let Ok(done) = self.compute_at(hash, owned, f);
        matches!(done, ComputeResult::Updated(_))
    }
}
