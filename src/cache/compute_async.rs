//! Read-modify-write of one key by a task, whose function may take its time.
//!
//! The task leads the load of the key while the function runs. So of all tasks that compute a key,
//! and all callers that load it, one runs at a time; and a write of the key that completes in
//! between invalidates the load, which is how it is noticed. Then the function runs again.

use std::{
    convert::Infallible,
    future::{Future, poll_fn},
    hash::{BuildHasher, Hash},
    pin::{Pin, pin},
};

use super::{
    Cache, ComputeOp, ComputeResult, FillGuard,
    load::{Waiter, own_key},
};
use crate::{
    buckets::{EntryRef, Held},
    engine::{Mode, RemovalCause, Terms, Trace},
    entry::Entry,
    flight::{Arrival, Caller, Joined, Outcome},
};

/// # Computing in tasks
impl<K, V, S> Cache<K, V, S>
where
    K: Hash + Eq,
    V: Clone,
    S: BuildHasher,
{
    /// Computes a change of a key's entry from a clone of its value, and carries it out.
    ///
    /// As [`compute`](Self::compute): no update is lost. Tasks that compute the same key run one
    /// after the other, and callers that load it wait. If the key is written by other means while
    /// `f` runs, `f` is called again with the new value, and only the last answer is carried out.
    ///
    /// # Cancel safety
    ///
    /// May be dropped at any time: then nothing is changed.
    ///
    /// # Panics
    ///
    /// Panics if `f` computes or loads its own key.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[tokio::main]
    /// # async fn main() {
    /// use cortado::{Cache, ComputeResult, ComputeOp};
    ///
    /// let cache = Cache::new(10);
    /// let count = async |n: Option<u32>| ComputeOp::Put(n.unwrap_or(0) + 1);
    /// assert_eq!(cache.compute_async("hits", count).await, ComputeResult::Inserted(1));
    /// assert_eq!(cache.compute_async("hits", count).await, ComputeResult::Updated(2));
    /// # }
    /// ```
    pub async fn compute_async<F>(
        &self,
        key: K,
        mut f: impl FnMut(Option<V>) -> F,
    ) -> ComputeResult<V, V>
    where
        F: Future<Output = ComputeOp<V>>,
    {
        let never_fails = |value| {
            let op = f(value);
            async { Ok::<_, Infallible>(op.await) }
        };
        let Ok(computed) = self.try_compute_async(key, never_fails).await;
        computed
    }

    /// The same; changes nothing if `f` fails.
    ///
    /// # Errors
    ///
    /// Returns the error of `f`.
    ///
    /// # Cancel safety
    ///
    /// As [`compute_async`](Self::compute_async).
    ///
    /// # Panics
    ///
    /// As [`compute_async`](Self::compute_async).
    ///
    /// # Examples
    ///
    /// ```
    /// # #[tokio::main]
    /// # async fn main() {
    /// use cortado::{Cache, ComputeOp};
    ///
    /// let cache = Cache::<&str, u32>::new(10);
    /// let failed = cache.try_compute_async("k", async |_| Err::<ComputeOp<u32>, _>("offline")).await;
    /// assert_eq!(failed, Err("offline"));
    /// # }
    /// ```
    pub async fn try_compute_async<F, E>(
        &self,
        key: K,
        mut f: impl FnMut(Option<V>) -> F,
    ) -> Result<ComputeResult<V, V>, E>
    where
        F: Future<Output = Result<ComputeOp<V>, E>>,
    {
        let hash = self.engine.hash(&key);
        let mut key = key;
        loop {
            let guard = self.lead(hash, key).await;
            let (id, value) = self.look_at(hash, guard.key());
            let op = {
                let mut computing = pin!({
                    let _entered = guard.enter();
                    f(value)
                });
                poll_fn(|context| {
                    let _entered = guard.enter();
                    computing.as_mut().poll(context)
                })
                .await
            };
            match guard.apply(id, op?) {
                Ok(computed) => return Ok(computed),
                Err(again) => key = again,
            }
        }
    }

    /// Waits until this task leads the load of a key.
    async fn lead<'a>(&'a self, hash: u64, key: K) -> FillGuard<'a, K, V, S> {
        let mut key = key;
        loop {
            self.engine.sweep_if_due();
            let (mine, mut waiter) = match self.engine.flights.join(hash, key, Caller::Task) {
                Joined::Lead(leader) => return self.guard(hash, leader, None),
                Joined::Own(_) => own_key(),
                Joined::Follow(mine, follower) => (mine, Waiter::new(self, hash, follower)),
            };
            match poll_fn(|context| Pin::new(&mut waiter.follower).poll(context)).await {
                Arrival::Lead(leader) => return self.guard(hash, leader, None),
                Arrival::Completed => key = mine,
                Arrival::TimedOut => unreachable!("no time is set"),
            }
        }
    }

    /// Returns the id and the value of the entry of a key.
    fn look_at(&self, hash: u64, key: &K) -> (Option<usize>, Option<V>) {
        let seen = self.engine.get(hash, Trace::None, |k| k == key);
        seen.map(|entry| (entry.get().id(), entry.get().entry.value.clone())).unzip()
    }
}

impl<K, V, S> FillGuard<'_, K, V, S>
where
    K: Hash + Eq,
    V: Clone,
    S: BuildHasher,
{
    /// Carries out what was computed from the entry of an id, or of none. Returns the key if that
    /// was written since.
    fn apply(mut self, seen: Option<usize>, op: ComputeOp<V>) -> Result<ComputeResult<V, V>, K> {
        let (cache, hash) = (self.cache(), self.hash());
        let leader = self.take_leader();
        let (value, terms) = match op {
            ComputeOp::Put(value) => (Some(value), Terms::DEFAULT),
            ComputeOp::PutWith(value, options) => (Some(value), options.terms()),
            ComputeOp::Keep => (None, Terms::DEFAULT),
            ComputeOp::Remove => {
                let remove = |key: K, is_invalid| {
                    let removed =
                        if is_invalid { Err(key) } else { Ok(cache.remove_seen(hash, &key, seen)) };
                    (removed, Outcome::Nothing)
                };
                return leader.complete(remove, |_| None).0;
            }
        };
        let Some(value) = value else {
            let keep = |key, _| (cache.look_at(hash, &key).1, Outcome::Nothing);
            return Ok(ComputeResult::Kept(leader.complete(keep, |_| None).0));
        };
        let put = |key, is_invalid| {
            if is_invalid {
                return ((Err(key), None), Outcome::Nothing);
            }
            let (put, held) = cache.put_seen(hash, (key, value), seen, terms);
            let published = held.as_ref().map(|held| held.get().id());
            ((put, held), published.map_or(Outcome::Nothing, Outcome::Published))
        };
        // A write that has overtaken this one comes after it, and may take it out.
        let take_back = |(_, held): &(_, Option<Held<'_, Entry<K, V>>>)| {
            held.as_ref().and_then(|held| cache.engine.take_back(hash, held))
        };
        let ((put, held), kept) = leader.complete(put, take_back);
        drop(held);
        if let Some(kept) = kept {
            cache.engine.retire_loaded(kept);
        }
        put
    }
}

/// What became of a value, and the entry that it is in.
type Put<'a, K, V> = (Result<ComputeResult<V, V>, K>, Option<Held<'a, Entry<K, V>>>);

impl<K, V, S> Cache<K, V, S>
where
    K: Hash + Eq,
    V: Clone,
    S: BuildHasher,
{
    /// Removes the entry that was seen, if it is still there.
    fn remove_seen(&self, hash: u64, key: &K, seen: Option<usize>) -> ComputeResult<V, V> {
        let is_it = |entry: EntryRef<'_, Entry<K, V>>| Some(entry.id()) == seen;
        let removed = self.engine.remove_which(hash, |k| k == key, is_it, RemovalCause::Removed);
        removed
            .map_or(ComputeResult::Kept(None), |entry| ComputeResult::Removed(entry.value.clone()))
    }

    /// Puts a value in the place of the entry that was seen, or of none.
    fn put_seen(
        &self,
        hash: u64,
        (mut key, mut value): (K, V),
        seen: Option<usize>,
        terms: Terms,
    ) -> Put<'_, K, V> {
        let engine = &self.engine;
        let pressure = engine.noted_pressure();
        // If the entry was evicted in between, there is none to replace.
        let modes = seen.map(Mode::Instead).into_iter().chain([Mode::IfAbsent]);
        for mode in modes {
            let mut refused = None;
            let mut is_new = false;
            let held = engine.table.hold(engine.table.pin_part(hash), |table, guard| {
                let put = (key, value);
                match engine.put_at(table, guard, hash, put, terms, (mode, pressure)) {
                    Ok((entry, new)) => {
                        is_new = new;
                        Some(entry)
                    }
                    Err(why) => {
                        refused = Some(why);
                        None
                    }
                }
            });
            if let Some(held) = held {
                let value = held.value.clone();
                let computed = if is_new {
                    ComputeResult::Inserted(value)
                } else {
                    ComputeResult::Updated(value)
                };
                return (Ok(computed), Some(held));
            }
            let refused = refused.expect("it is in, or refused");
            if let Some(reason) = refused.reason() {
                return (Ok(ComputeResult::Rejected(refused.into_value(), reason)), None);
            }
            (key, value) = (refused.key, refused.value);
        }
        (Err(key), None)
    }
}
