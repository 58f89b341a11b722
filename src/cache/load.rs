//! Loading: one flight for a key, for threads and tasks alike.

use std::{
    future::{Future, poll_fn},
    hash::{BuildHasher, Hash},
    pin::{Pin, pin},
    task::Poll,
    time::{Duration, Instant},
};

use super::{Cache, InsertOptions, ValueRef};
use crate::{
    engine::{Engine, Trace},
    flight::{Arrival, Boarding, Entered, Follower, Leader},
    metrics::Counter,
    trace::Stopwatch,
};

/// How long [`Cache::claim`] waits for somebody else's load.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use cortado::{Cache, Claim, Wait};
///
/// let cache = Cache::<&str, u32>::new(10);
/// let guard = cache.claim("k", Wait::No);
/// let other = std::thread::scope(|scope| {
///     let claim = || matches!(cache.claim("k", Wait::For(Duration::ZERO)), Claim::Busy("k"));
///     scope.spawn(claim).join()
/// });
/// assert!(matches!(guard, Claim::Fill(_)) && other.unwrap());
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// Not at all.
    No,
    /// For so long.
    For(Duration),
    /// As long as it takes.
    Forever,
}

/// What [`Cache::claim`] found.
///
/// # Examples
///
/// ```
/// use cortado::{Cache, Claim, Wait};
///
/// let cache = Cache::new(10);
/// let value = match cache.claim("k", Wait::Forever) {
///     Claim::Hit(value) => value,
///     Claim::Fill(guard) => guard.fill(7),
///     Claim::Busy(_) => unreachable!("it waits as long as it takes"),
/// };
/// assert_eq!(*value, 7);
/// ```
#[derive(Debug)]
pub enum Claim<'a, K, V, S> {
    /// The key has an entry.
    Hit(ValueRef<'a, K, V>),
    /// It has none, and nobody loads it: the caller does.
    Fill(FillGuard<'a, K, V, S>),
    /// Somebody else loads it and was not ready in time, or the caller's own load asks for it. The key comes
    /// back.
    Busy(K),
}

/// The right and the duty to load a key; made by [`Cache::claim`].
///
/// Everybody else who claims the key, or asks for it with a loader, waits for it. Dropping it without a
/// value hands the right on: one of those who wait loads.
///
/// # Examples
///
/// ```
/// use cortado::{Cache, Claim, Wait};
///
/// let cache = Cache::new(10);
/// let Claim::Fill(guard) = cache.claim("k", Wait::No) else { unreachable!() };
/// drop(guard);
/// let Claim::Fill(guard) = cache.claim("k", Wait::No) else { unreachable!() };
/// assert_eq!(*guard.fill(1), 1);
/// ```
#[must_use = "others wait until it is filled or dropped"]
pub struct FillGuard<'a, K, V, S> {
    cache: &'a Cache<K, V, S>,
    hash: u64,
    /// There until it is filled.
    leader: Option<Leader<'a, K>>,
    stopwatch: Stopwatch,
}

/// What somebody who asks for a key has to do next.
enum Step<'a, K, V, S> {
    Return(ValueRef<'a, K, V>),
    Load(FillGuard<'a, K, V, S>),
    Follow(K, Follower<'a, K>),
    Fail(K),
}

/// # Loading
///
/// Of all who ask for a key that is not there, one loads and the others wait for it: threads and tasks
/// alike, in one flight. If the loader panics, fails, or is dropped, one of those who wait takes over with
/// its own loader. If the key gets an entry by other means meanwhile, that is newer: it stays, and is what
/// is returned. The value is returned even where the cache does not let it in.
///
/// If the key is removed or the cache cleared while it is loaded, the value may be out of date: whoever loads
/// it gets it, and it is not kept; whoever asks after the removal loads anew. (For an instant it may be
/// there, if the removal comes just when the load ends. [`retain`](Self::retain) knows of no loads.)
///
/// A loader may use the cache, and load other keys. One that asks for its own key gets a panic in place of
/// a deadlock. (Two loaders that ask for each other's keys wait for ever, as two locks would.)
impl<K, V, S> Cache<K, V, S>
where
    K: Hash + Eq,
    S: BuildHasher,
{
    /// Returns the value of a key, or what `load` makes of it, which is inserted.
    ///
    /// # Panics
    ///
    /// Panics with the panic of `load`, or if it is called from a loader of the same key.
    ///
    /// # Examples
    ///
    /// ```
    /// let cache = cortado::Cache::new(10);
    /// assert_eq!(*cache.get_or_insert_with("k", || 1), 1);
    /// assert_eq!(*cache.get_or_insert_with("k", || unreachable!()), 1);
    /// ```
    pub fn get_or_insert_with(&self, key: K, load: impl FnOnce() -> V) -> ValueRef<'_, K, V> {
        let never_fails = || Ok::<V, std::convert::Infallible>(load());
        match self.try_get_or_insert_with(key, never_fails) {
            Ok(value) => value,
            Err(never) => match never {},
        }
    }

    /// The same with a loader that may fail.
    ///
    /// # Errors
    ///
    /// Returns the error of this caller's own `load`. Those who waited for it try again, one with its own
    /// loader: an error is nobody else's.
    ///
    /// # Panics
    ///
    /// As [`get_or_insert_with`](Self::get_or_insert_with).
    ///
    /// # Examples
    ///
    /// ```
    /// let cache = cortado::Cache::new(10);
    /// let parsed = cache.try_get_or_insert_with("4", || "4".parse::<u32>());
    /// assert_eq!(parsed.map(|value| *value), Ok(4));
    /// assert!(cache.try_get_or_insert_with("four", || "four".parse::<u32>()).is_err());
    /// assert_eq!(cache.len(), 1);
    /// ```
    pub fn try_get_or_insert_with<E>(
        &self,
        key: K,
        load: impl FnOnce() -> Result<V, E>,
    ) -> Result<ValueRef<'_, K, V>, E> {
        match self.claim(key, Wait::Forever) {
            Claim::Hit(value) => Ok(value),
            Claim::Fill(guard) => {
                let entered = guard.enter();
                let value = load()?;
                drop(entered);
                Ok(guard.fill(value))
            }
            Claim::Busy(_) => own_key(),
        }
    }

    /// Returns a clone of the value of a key, or what `load` makes of it, which is inserted.
    ///
    /// No runtime is asked for. `load` is polled by this future only; if somebody else loads already, it is
    /// dropped without being polled.
    ///
    /// # Cancel safety
    ///
    /// May be dropped at any time. If it was loading, one of those who wait for it takes over.
    ///
    /// # Panics
    ///
    /// As [`get_or_insert_with`](Self::get_or_insert_with).
    ///
    /// # Examples
    ///
    /// ```
    /// # #[tokio::main]
    /// # async fn main() {
    /// let cache = cortado::Cache::new(10);
    /// assert_eq!(cache.get_or_insert_async("k", async { 1 }).await, 1);
    /// assert_eq!(cache.get_or_insert_async("k", async { unreachable!() }).await, 1);
    /// # }
    /// ```
    pub async fn get_or_insert_async(&self, key: K, load: impl Future<Output = V>) -> V
    where
        V: Clone,
    {
        let never_fails = async { Ok::<V, std::convert::Infallible>(load.await) };
        match self.try_get_or_insert_async(key, never_fails).await {
            Ok(value) => value,
            Err(never) => match never {},
        }
    }

    /// The same with a loader that may fail.
    ///
    /// # Errors
    ///
    /// As [`try_get_or_insert_with`](Self::try_get_or_insert_with).
    ///
    /// # Cancel safety
    ///
    /// As [`get_or_insert_async`](Self::get_or_insert_async).
    ///
    /// # Panics
    ///
    /// As [`get_or_insert_with`](Self::get_or_insert_with).
    ///
    /// # Examples
    ///
    /// ```
    /// # #[tokio::main]
    /// # async fn main() {
    /// let cache = cortado::Cache::new(10);
    /// let failed = cache.try_get_or_insert_async("k", async { Err("offline") }).await;
    /// assert_eq!(failed, Err("offline"));
    /// let loaded = cache.try_get_or_insert_async("k", async { Ok::<_, &str>(1) }).await;
    /// assert_eq!(loaded, Ok(1));
    /// # }
    /// ```
    pub async fn try_get_or_insert_async<E>(
        &self,
        key: K,
        load: impl Future<Output = Result<V, E>>,
    ) -> Result<V, E>
    where
        V: Clone,
    {
        let hash = self.engine.hash(&key);
        let mut key = key;
        let mut trace = Trace::Leave;
        let guard = loop {
            let (mine, follower) = match self.step(hash, key, trace) {
                Step::Return(value) => return Ok(value.clone()),
                Step::Load(guard) => break guard,
                Step::Follow(key, follower) => (key, follower),
                Step::Fail(_) => own_key(),
            };
            match follower.await {
                Arrival::Lead(leader) => break self.guard(hash, leader),
                Arrival::Landed | Arrival::TimedOut => key = mine,
            }
            trace = Trace::None;
        };
        let value = {
            let mut load = pin!(load);
            poll_fn(|context| {
                let _entered = guard.enter();
                load.as_mut().poll(context)
            })
            .await?
        };
        let value = guard.fill(value).clone();
        Ok(value)
    }

    /// Returns the value of a key, or the right to load it, or neither: the primitive under the loaders.
    ///
    /// # Examples
    ///
    /// ```
    /// use cortado::{Cache, Claim, Wait};
    ///
    /// let cache = Cache::new(10);
    /// match cache.claim("k", Wait::No) {
    ///     Claim::Fill(guard) => {
    ///         assert!(matches!(cache.claim("k", Wait::No), Claim::Busy("k")));
    ///         assert_eq!(*guard.fill(1), 1);
    ///     }
    ///     _ => unreachable!("nobody else is here"),
    /// }
    /// assert!(matches!(cache.claim("k", Wait::No), Claim::Hit(_)));
    /// ```
    pub fn claim(&self, key: K, wait: Wait) -> Claim<'_, K, V, S> {
        // A time that passes the end of the clock is for ever.
        let end = match wait {
            Wait::For(time) => Instant::now().checked_add(time),
            Wait::No | Wait::Forever => None,
        };
        let hash = self.engine.hash(&key);
        let mut key = key;
        let mut trace = Trace::Leave;
        loop {
            let (mine, follower) = match self.step(hash, key, trace) {
                Step::Return(value) => return Claim::Hit(value),
                Step::Load(guard) => return Claim::Fill(guard),
                Step::Fail(key) => return Claim::Busy(key),
                Step::Follow(key, follower) => (key, follower),
            };
            let arrival = match (wait, end) {
                (Wait::No, _) => Arrival::TimedOut,
                (_, Some(end)) => follower.wait_until(end),
                (_, None) => follower.wait(),
            };
            match arrival {
                Arrival::Landed => key = mine,
                Arrival::Lead(leader) => return Claim::Fill(self.guard(hash, leader)),
                Arrival::TimedOut => return Claim::Busy(mine),
            }
            trace = Trace::None;
        }
    }

    /// The same for a task, which waits until `timeout` is ready: a timer of the runtime's, or
    /// [`std::future::pending()`] for as long as it takes.
    ///
    /// # Cancel safety
    ///
    /// May be dropped at any time. What it returns is a right that is handed on when it is dropped.
    ///
    /// # Examples
    ///
    /// ```
    /// # use std::{future::ready, pin::pin, task::{Context, Poll, Waker}};
    /// # fn block_on<T>(future: impl Future<Output = T>) -> T {
    /// #     match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
    /// #         Poll::Ready(output) => output,
    /// #         Poll::Pending => unreachable!(),
    /// #     }
    /// # }
    /// use cortado::{Cache, Claim};
    ///
    /// let cache = Cache::<&str, u32>::new(10);
    /// # block_on(async {
    /// let first = cache.claim_async("k", ready(())).await;
    /// assert!(matches!(cache.claim_async("k", ready(())).await, Claim::Busy("k")));
    /// let Claim::Fill(guard) = first else { unreachable!() };
    /// guard.fill(1);
    /// assert!(matches!(cache.claim_async("k", ready(())).await, Claim::Hit(_)));
    /// # });
    /// ```
    pub async fn claim_async(
        &self,
        key: K,
        timeout: impl Future<Output = ()>,
    ) -> Claim<'_, K, V, S> {
        let mut timeout = pin!(timeout);
        let hash = self.engine.hash(&key);
        let mut key = key;
        let mut trace = Trace::Leave;
        loop {
            let (mine, mut follower) = match self.step(hash, key, trace) {
                Step::Return(value) => return Claim::Hit(value),
                Step::Load(guard) => return Claim::Fill(guard),
                Step::Fail(key) => return Claim::Busy(key),
                Step::Follow(key, follower) => (key, follower),
            };
            let arrival = poll_fn(|context| match Pin::new(&mut follower).poll(context) {
                Poll::Ready(arrival) => Poll::Ready(arrival),
                Poll::Pending => timeout.as_mut().poll(context).map(|()| Arrival::TimedOut),
            });
            match arrival.await {
                Arrival::Landed => key = mine,
                Arrival::Lead(leader) => return Claim::Fill(self.guard(hash, leader)),
                Arrival::TimedOut => return Claim::Busy(mine),
            }
            trace = Trace::None;
        }
    }

    /// Looks, and boards a flight if there is nothing.
    fn step(&self, hash: u64, key: K, trace: Trace) -> Step<'_, K, V, S> {
        let engine: &Engine<K, V, S> = &self.engine;
        if let Some(entry) = engine.get(hash, trace, |k| *k == key) {
            return Step::Return(self.value_ref(entry));
        }
        // What others have removed is freed before this thread leads, or is pinned by the value.
        engine.sweep_if_due();
        let _ = engine.garbage_pressure();
        match engine.flights.board(hash, key) {
            Boarding::Follow(key, follower) => Step::Follow(key, follower),
            Boarding::Own(key) => Step::Fail(key),
            Boarding::Lead(leader) => {
                // The flight before may have landed since this one looked.
                let found = leader.with_key(|key| engine.get(hash, Trace::None, |k| k == key));
                match found {
                    None => Step::Load(self.guard(hash, leader)),
                    Some(entry) => {
                        leader.land(|_, _| (), |()| ());
                        Step::Return(self.value_ref(entry))
                    }
                }
            }
        }
    }

    fn guard<'a>(&'a self, hash: u64, leader: Leader<'a, K>) -> FillGuard<'a, K, V, S> {
        let stopwatch = self.engine.start_stopwatch();
        FillGuard { cache: self, hash, leader: Some(leader), stopwatch }
    }
}

impl<'a, K, V, S> FillGuard<'a, K, V, S>
where
    K: Hash + Eq,
    S: BuildHasher,
{
    /// Inserts the value, and wakes those who wait for it.
    ///
    /// If the key got an entry by other means meanwhile, that stays and is returned; `value` is then told
    /// to [`on_remove`](crate::CacheBuilder::on_remove) as rejected, as it is where the cache does not let
    /// it in.
    pub fn fill(self, value: V) -> ValueRef<'a, K, V> {
        self.fill_with(value, InsertOptions::new())
    }

    /// The same with options.
    ///
    /// # Examples
    ///
    /// ```
    /// use cortado::{Cache, Claim, InsertOptions, Wait};
    ///
    /// let cache = Cache::new(10);
    /// if let Claim::Fill(guard) = cache.claim("k", Wait::Forever) {
    ///     guard.fill_with(1, InsertOptions::new().cost(3));
    /// }
    /// assert_eq!(cache.cost(), 3);
    /// ```
    pub fn fill_with(mut self, value: V, options: InsertOptions) -> ValueRef<'a, K, V> {
        let (cache, hash) = (self.cache, self.hash);
        let leader = self.leader.take().expect("it is filled once");
        let terms = options.terms();
        let fill = |key, is_overtaken| cache.engine.fill(hash, (key, value), terms, is_overtaken);
        let (entry, _) = leader.land(fill, |(entry, is_in)| {
            if *is_in {
                cache.engine.take_back(hash, entry);
            }
        });
        cache.engine.counters.add(Counter::Loads, 1);
        cache.engine.stop(&self.stopwatch, "filled");
        cache.value_ref(entry)
    }
}

impl<K, V, S> FillGuard<'_, K, V, S> {
    /// Says that this thread runs the load.
    fn enter(&self) -> Option<Entered> {
        self.leader.as_ref().map(Leader::enter)
    }
}

impl<K, V, S> Drop for FillGuard<'_, K, V, S> {
    fn drop(&mut self) {
        if self.leader.is_some() {
            self.cache.engine.counters.add(Counter::LoadFailures, 1);
            self.cache.engine.stop(&self.stopwatch, "given up");
        }
    }
}

impl<K, V, S> std::fmt::Debug for FillGuard<'_, K, V, S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FillGuard").field("cache", self.cache).finish_non_exhaustive()
    }
}

fn own_key() -> ! {
    panic!("the loader of a key has asked for its own key")
}
