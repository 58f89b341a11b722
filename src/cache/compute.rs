//! Read-modify-write of one key: compare the entry that was seen, and swap.

use std::hash::{BuildHasher, Hash};

use equivalent::Equivalent;

use super::{Cache, InsertOptions};
use crate::{
    buckets::EntryRef,
    engine::{Mode, Reject, RemovalCause, Terms},
    entry::Entry,
};

/// What [`Cache::compute`] is to do.
///
/// # Examples
///
/// ```
/// use cortado::{Cache, Op};
///
/// let cache = Cache::new(10);
/// cache.insert("visits", 1);
/// let _ = cache.compute("visits", |seen| Op::Put(seen.map_or(1, |n| n + 1)));
/// assert_eq!(cache.get_cloned("visits"), Some(2));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op<V> {
    /// Leave everything as it is.
    Keep,
    /// Put this value there. It costs what the builder's [`cost_of`](crate::CacheBuilder::cost_of)
    /// says, else what the entry costs that it replaces, else 1.
    Put(V),
    /// Put this value there with these options: what they don't name is as for `Put`.
    PutWith(V, InsertOptions),
    /// Remove the entry.
    Remove,
}

/// What [`Cache::compute`] did.
///
/// # Examples
///
/// ```
/// use cortado::{Cache, Computed, Op};
///
/// let cache = Cache::new(10);
/// assert_eq!(cache.compute("k", |_| Op::Put(1)), Computed::Inserted);
/// assert_eq!(cache.compute("k", |_| Op::Keep), Computed::Kept);
/// assert_eq!(cache.compute("k", |_| Op::Remove), Computed::Removed);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "a new value may be rejected"]
pub enum Computed<V> {
    /// Nothing.
    Kept,
    /// The key has an entry, and had none.
    Inserted,
    /// The key has another value.
    Updated,
    /// The key has no entry any more.
    Removed,
    /// The value could not come in, for this reason. If the key had an entry, that is removed, but
    /// stays where the reason is [`Reject::Garbage`].
    Rejected(V, Reject),
}

impl<K, V, S> Cache<K, V, S>
where
    K: Hash + Eq,
    S: BuildHasher,
{
    /// Looks at the entry of a key and decides what is to become of it, in one step.
    ///
    /// If somebody changes the entry meanwhile, `f` is asked again with what is there then: no update is
    /// lost, and nothing but the last answer is carried out. The entry that takes another's place keeps its
    /// cost, priority and deadline, unless [`Op::PutWith`] names others; where there is a
    /// [`cost_of`](crate::CacheBuilder::cost_of), that is asked for the cost.
    ///
    /// `f` and `cost_of` run while this thread is pinned: make them short. They may use the cache.
    ///
    /// # Examples
    ///
    /// ```
    /// use cortado::{Cache, Computed, Op};
    ///
    /// let cache = Cache::new(10);
    /// let count = |n: Option<&u32>| Op::Put(n.unwrap_or(&0) + 1);
    /// assert_eq!(cache.compute("hits", count), Computed::Inserted);
    /// assert_eq!(cache.compute("hits", count), Computed::Updated);
    /// assert_eq!(cache.get_cloned("hits"), Some(2));
    /// assert_eq!(cache.compute("hits", |_| Op::Remove), Computed::Removed);
    /// assert_eq!(cache.compute("hits", |_| Op::Remove), Computed::Kept);
    /// ```
    pub fn compute(&self, key: K, mut f: impl FnMut(Option<&V>) -> Op<V>) -> Computed<V> {
        let engine = &self.engine;
        let hash = engine.hash(&key);
        let mut key = key;
        loop {
            // Before this thread is pinned: destructors and listeners run.
            engine.sweep_if_due();
            let pressure = engine.garbage_pressure();
            let guard = engine.table.pin_part(hash);
            // What `f` decides is a write, unless it keeps what is there.
            let write = engine.flights.begin_write(hash);
            let seen = engine.table.find(&guard, hash, |entry| entry.key == key);
            let seen = seen.map(|hit| hit.at()).filter(|entry| engine.is_live(*entry));
            let (value, terms) = match f(seen.as_deref().map(|entry| &entry.value)) {
                Op::Keep => return Computed::Kept,
                Op::Put(value) => (value, Terms::DEFAULT),
                Op::PutWith(value, options) => (value, options.terms()),
                Op::Remove => {
                    let removed = seen.map(|seen| {
                        let is_it = |entry: EntryRef<'_, Entry<K, V>>| entry.id() == seen.id();
                        let (table, cause) = (&engine.table, RemovalCause::Removed);
                        engine.take_which(table, &guard, hash, |k| *k == key, is_it, cause)
                    });
                    let computed = match removed {
                        None => Computed::Kept,
                        Some(Some(_)) => Computed::Removed,
                        // It has changed since.
                        Some(None) => continue,
                    };
                    engine.commit(&guard, hash, write);
                    return computed;
                }
            };
            // The guard keeps the id from naming another entry.
            let mode = seen.map_or(Mode::IfAbsent, |entry| Mode::Instead(entry.id()));
            let mode = (mode, pressure);
            let computed = match engine.put_pinned(&guard, hash, (key, value), terms, mode) {
                Ok(true) => Computed::Inserted,
                Ok(false) => Computed::Updated,
                Err(refused) => match refused.reason() {
                    Some(reason) => Computed::Rejected(refused.into_value(), reason),
                    None => {
                        key = refused.key;
                        continue;
                    }
                },
            };
            engine.commit(&guard, hash, write);
            return computed;
        }
    }

    /// Replaces the value of a key by what `f` makes of it, in one step; returns whether the key had an
    /// entry, and has the new one.
    ///
    /// As [`compute`](Self::compute): `f` may run again, and no update is lost. Cost, priority and
    /// deadline stay; where there is a [`cost_of`](crate::CacheBuilder::cost_of), that says what the
    /// new value costs. If it costs more than there is room for, the entry is removed. Where too
    /// much garbage waits behind a reader ([`Reject::Garbage`]), the old value stays.
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
        self.update_by(key, |value| Op::Put(f(value)))
    }

    /// The same as [`update`](Self::update) with options for the new value: a cost, a time to live,
    /// a priority. What they don't name stays.
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
            Op::PutWith(value, options)
        })
    }

    fn update_by<Q>(&self, key: &Q, mut f: impl FnMut(&V) -> Op<V>) -> bool
    where
        K: Clone,
        Q: Hash + Equivalent<K> + ?Sized,
    {
        let owned = {
            let hash = self.engine.hash(key);
            let guard = self.engine.table.pin_part(hash);
            let entry = self.engine.table.find(&guard, hash, |entry| key.equivalent(&entry.key));
            entry.map(|hit| hit.entry.key.clone())
        };
        let Some(owned) = owned else { return false };
        let done = self.compute(owned, |value| value.map_or(Op::Keep, &mut f));
        matches!(done, Computed::Updated)
    }
}
