//! Read-modify-write of one key by a task, with an async function.
//!
//! The task leads the load of the key while the function runs. So of all tasks that compute a key
//! and all callers that load it, one runs at a time. A write of the key announces itself to the
//! load before it changes anything, so the task notices it and calls the function again. It also
//! does so if the entry that the function has seen is gone: by eviction, or by a removal that was
//! announced before the task led the load.

use std::{
    convert::Infallible,
    future::{Future, poll_fn},
    hash::{BuildHasher, Hash},
    pin::pin,
};

use super::{
    Cache, ComputeOp,
    load::{Waiter, own_key},
};
use crate::{
    engine::{Change, Loaded, Trace, Turn, may_wait},
    entry::Entry,
    outcome::ComputeResult,
    singleflight::{Caller, Joined, Leader, WaitOutcome},
    table::Held,
};

/// # Computing in tasks
impl<K, V, S> Cache<K, V, S>
where
    K: Hash + Eq,
    V: Clone,
    S: BuildHasher,
{
    /// Computes a change from a clone of a key's value, and carries it out.
    ///
    /// Like [`compute`](Self::compute), loses no update. Tasks that compute the same key run one
    /// after the other, and callers that load it wait. If the key is written by other means while
    /// `f` runs, or its entry leaves the cache, `f` is called again with the new state, and only
    /// the result of the last call is carried out. A result of [`ComputeOp::Keep`] is always the
    /// last: it returns the value that `f` has seen.
    ///
    /// # Cancel safety
    ///
    /// May be dropped at any time; then nothing is changed.
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

    /// Like [`compute_async`](Self::compute_async), but changes nothing if `f` returns an error.
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
    /// let fail = async |_: Option<u32>| Err::<ComputeOp<u32>, _>("offline");
    /// let failed = cache.try_compute_async("k", fail).await;
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
            let leader = self.lead(hash, key).await;
            if self.is_being_written(hash, &leader) && may_wait() {
                // `lead` waits for it.
                key = leader.change(|key, _| key);
                continue;
            }
            let (id, value) = self.look_at(hash, leader.key());
            let op = {
                let mut computing = pin!({
                    let _entered = leader.enter();
                    f(value.clone())
                });
                poll_fn(|context| {
                    let _entered = leader.enter();
                    computing.as_mut().poll(context)
                })
                .await
            };
            match self.apply(hash, leader, (id, value), op?) {
                Ok(computed) => return Ok(computed),
                Err(again) => key = again,
            }
        }
    }

    /// Waits until this task leads the load of a key.
    async fn lead(&self, hash: u64, key: K) -> Leader<'_, K, Loaded> {
        let mut key = key;
        loop {
            self.engine.sweep_if_due();
            // As in `join_load`: `put_seen` uses the pressure that is noted here.
            let _ = self.engine.garbage_pressure();
            self.engine.settle_expired(hash, |k| *k == key, Turn::Wait);
            let (mine, mut waiter) = match self.engine.join(hash, key, Caller::Task) {
                Joined::Lead(leader) => return leader,
                Joined::Own(_) => own_key(),
                Joined::Follow(mine, follower) => (mine, Waiter::new(self, hash, follower)),
            };
            match (&mut waiter.follower).await {
                WaitOutcome::Lead(leader) => return leader,
                WaitOutcome::Completed => key = mine,
                WaitOutcome::TimedOut => unreachable!("no time is set"),
            }
        }
    }

    /// Returns the id and the value of the entry of a key.
    fn look_at(&self, hash: u64, key: &K) -> (Option<usize>, Option<V>) {
        let seen = self.engine.get(hash, Trace::None, |k| k == key);
        seen.map(|entry| (entry.get().id(), entry.get().entry.value.clone())).unzip()
    }

    /// Carries out an operation that was computed from the entry of an id and its value, or from
    /// none. Returns the key if the operation has to be computed again.
    fn apply(
        &self,
        hash: u64,
        leader: Leader<'_, K, Loaded>,
        (seen, seen_value): (Option<usize>, Option<V>),
        op: ComputeOp<V>,
    ) -> Result<ComputeResult<V, V>, K> {
        let value_of = |entry: Held<'_, Entry<K, V>>| entry.value.clone();
        match op.into_change() {
            Change::Keep => {
                leader.change(|_, _| ());
                Ok(ComputeResult::Kept(seen_value))
            }
            Change::Remove => leader.change(|key, is_unwritten| {
                self.engine.remove_seen(hash, key, seen, is_unwritten).map(|it| it.map(value_of))
            }),
            Change::Put(value, terms) => leader.change(|key, is_unwritten| {
                let put = self.engine.put_seen(hash, (key, value), seen, terms, is_unwritten);
                put.map(|it| it.map(value_of))
            }),
        }
    }
}
