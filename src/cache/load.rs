//! Loading: one flight for a key, for threads and tasks alike. What tasks call is in
//! `load_async.rs`.

use std::{
    hash::{BuildHasher, Hash},
    time::{Duration, Instant},
};

use super::{Cache, InsertOptions, ValueRef};
use crate::{
    engine::{Engine, Loaded, Trace},
    flight::{Arrival, Caller, Entered, Follower, Joined, Leader, Outcome},
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
/// `H` is what a hit is: a [`ValueRef`], or from [`Cache::claim_async`] a [`Cloned`](crate::Cloned)
/// value, which may be held across an `.await`.
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
pub enum Claim<'a, K, V, S, H = ValueRef<'a, K, V>> {
    /// The key has an entry, or was loaded by another caller while this one waited.
    Hit(H),
    /// It has none, and is not loaded: the caller loads it.
    Fill(FillGuard<'a, K, V, S>),
    /// Another caller loads it and was not ready in time, or this very thread does. The key comes
    /// back.
    Busy(K),
}

/// The right and the duty to load a key; made by [`Cache::claim`].
///
/// Every other caller that claims the key, or asks for it with a loader, waits for it. Dropping it
/// without a value hands the right on: one of those who wait loads.
///
/// A thread that holds a guard from [`claim`](Cache::claim) would wait for itself if it asked for
/// the key: it gets [`Claim::Busy`], or a panic from a loader, as a loader does that asks for its
/// own key. See [`detach`](Self::detach).
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
    leader: Option<Leader<'a, K, Loaded>>,
    stopwatch: Stopwatch,
}

/// What a caller that asks for a key has to do next.
pub(super) enum Step<'a, K, V, S> {
    Return(ValueRef<'a, K, V>),
    Load(FillGuard<'a, K, V, S>),
    Follow(K, Waiter<'a, K, V, S>),
    Fail(K),
}

/// A caller that waits for a load.
pub(super) struct Waiter<'a, K, V, S> {
    cache: &'a Cache<K, V, S>,
    hash: u64,
    pub(super) follower: Follower<'a, K, Loaded>,
}

/// # Loading
///
/// Of all callers that ask for a key that is not there, one loads and the others wait for it:
/// threads and tasks alike, in one flight. All of them get what it loads, even where the cache does
/// not let it in. If the loader panics, fails, or is dropped, one of those who wait takes over with
/// its own loader. If the key gets an entry by other means while it is loaded, that is newer: it
/// stays, and is what is returned.
///
/// **A write that completes while its key is loaded invalidates the load, and nothing else does.**
/// What an invalid load brings may be out of date: those who asked before the write get it, and it
/// is not kept, even if the newer entry has left the cache by then; those who ask after the write
/// load again. (For an instant the value may be there, if the write comes just when the load ends.)
/// Writes are what inserts, replaces or removes an entry of the key, and [`remove`](Self::remove)
/// and [`clear`](Self::clear) also where there is none. A call that changes nothing is no write
/// ([`remove_if`](Self::remove_if) that removes nothing), nor is expiration or eviction.
///
/// A loader may use the cache, and load other keys. One that asks for its own key gets a panic in
/// place of a deadlock. (Two loaders that ask for each other's keys wait for ever, as two locks
/// would.)
///
/// A loader of this list that is not async blocks its thread while another caller loads. In a task
/// that is bad where the load it waits for is a task of the same thread, as all are in a runtime of
/// a single thread: that one is never polled again, and both wait for ever. Call the async loader
/// in a task; or [`claim`](Self::claim) with [`Wait::No`] or [`Wait::For`], which returns
/// [`Claim::Busy`]; or call the blocking loader on a thread that may block (tokio's
/// `spawn_blocking`).
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
    /// Returns the error of this caller's own `load`. Those who waited for it try again, one with
    /// its own loader: an error is not shared.
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
        self.try_get_or_insert_with_key(key, |_| load())
    }

    /// Returns the value of a key, or what `load` makes of the key, which is inserted.
    ///
    /// As [`get_or_insert_with`](Self::get_or_insert_with); `load` need not have a copy of the key.
    ///
    /// # Panics
    ///
    /// As [`get_or_insert_with`](Self::get_or_insert_with).
    ///
    /// # Examples
    ///
    /// ```
    /// let cache = cortado::Cache::new(10);
    /// let length = cache.get_or_insert_with_key("four".to_string(), |key| key.len());
    /// assert_eq!(*length, 4);
    /// ```
    pub fn get_or_insert_with_key(&self, key: K, load: impl FnOnce(&K) -> V) -> ValueRef<'_, K, V> {
        let never_fails = |key: &K| Ok::<V, std::convert::Infallible>(load(key));
        match self.try_get_or_insert_with_key(key, never_fails) {
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
    /// # Panics
    ///
    /// As [`get_or_insert_with`](Self::get_or_insert_with).
    ///
    /// # Examples
    ///
    /// ```
    /// let cache = cortado::Cache::new(10);
    /// let parse = |text: &&str| text.parse::<u32>();
    /// assert_eq!(cache.try_get_or_insert_with_key("4", parse).map(|value| *value), Ok(4));
    /// assert!(cache.try_get_or_insert_with_key("four", parse).is_err());
    /// ```
    pub fn try_get_or_insert_with_key<E>(
        &self,
        key: K,
        load: impl FnOnce(&K) -> Result<V, E>,
    ) -> Result<ValueRef<'_, K, V>, E> {
        match self.claim(key, Wait::Forever) {
            Claim::Hit(value) => Ok(value),
            Claim::Fill(guard) => {
                let entered = guard.enter();
                let value = load(guard.key())?;
                drop(entered);
                Ok(guard.fill(value))
            }
            Claim::Busy(_) => own_key(),
        }
    }

    /// Returns the value of a key, or the right to load it, or neither: the primitive under the
    /// loaders.
    ///
    /// A thread that holds the right to load the key already gets [`Claim::Busy`], whatever `wait`
    /// is.
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
    ///     _ => unreachable!("no other caller is here"),
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
            let (mine, mut waiter) = match self.step(hash, key, trace, Caller::Thread) {
                Step::Return(value) => return Claim::Hit(value),
                Step::Load(guard) => return Claim::Fill(guard),
                Step::Fail(key) => return Claim::Busy(key),
                Step::Follow(key, waiter) => (key, waiter),
            };
            let arrival = match (wait, end) {
                (Wait::No, _) => Arrival::TimedOut,
                (_, Some(end)) => waiter.follower.wait_until(end),
                (_, None) => waiter.follower.wait(),
            };
            match arrival {
                Arrival::Completed => match waiter.share(&mine) {
                    Some(value) => return Claim::Hit(value),
                    None => key = mine,
                },
                Arrival::Lead(leader) => return Claim::Fill(self.guard(hash, leader)),
                Arrival::TimedOut => return Claim::Busy(mine),
            }
            trace = Trace::None;
        }
    }

    /// Looks, and joins a flight if there is nothing.
    pub(super) fn step(
        &self,
        hash: u64,
        key: K,
        trace: Trace,
        caller: Caller,
    ) -> Step<'_, K, V, S> {
        let engine: &Engine<K, V, S> = &self.engine;
        if let Some(entry) = engine.get(hash, trace, |k| *k == key) {
            return Step::Return(self.value_ref(entry));
        }
        // What others have removed is freed before this thread leads, or is pinned by the value.
        engine.sweep_if_due();
        let _ = engine.garbage_pressure();
        match engine.flights.join(hash, key, caller) {
            Joined::Follow(key, follower) => {
                Step::Follow(key, Waiter { cache: self, hash, follower })
            }
            Joined::Own(key) => Step::Fail(key),
            Joined::Lead(leader) => {
                // The flight before may have ended since this one looked.
                match engine.get(hash, Trace::None, |k| k == leader.key()) {
                    None => Step::Load(self.guard(hash, leader)),
                    Some(entry) => {
                        leader.complete(|_, _| ((), Outcome::Nothing), |()| None);
                        Step::Return(self.value_ref(entry))
                    }
                }
            }
        }
    }

    pub(super) fn guard<'a>(
        &'a self,
        hash: u64,
        leader: Leader<'a, K, Loaded>,
    ) -> FillGuard<'a, K, V, S> {
        let stopwatch = self.engine.start_stopwatch();
        FillGuard { cache: self, hash, leader: Some(leader), stopwatch }
    }
}

impl<'a, K, V, S> Waiter<'a, K, V, S>
where
    K: Hash + Eq,
    S: BuildHasher,
{
    /// Returns what the load has brought, once the flight is over; `None` if there is nothing to be
    /// had.
    pub(super) fn share(&mut self, key: &K) -> Option<ValueRef<'a, K, V>> {
        let (cache, engine) = (self.cache, &self.cache.engine);
        let published = self.follower.published();
        let there = engine.get_loaded(self.hash, |k| k == key, published);
        if let Some(entry) = there {
            self.leave();
            return Some(cache.value_ref(entry));
        }
        let (entry, last) = self.follower.share(&engine.table);
        if let Some(last) = last {
            engine.retire_loaded(last);
        }
        // A flight that is about to end is joined without a look at its key.
        entry.filter(|entry| entry.key == *key).map(|entry| cache.value_ref(entry))
    }
}

impl<K, V, S> Waiter<'_, K, V, S> {
    fn leave(&mut self) {
        if let Some(last) = self.follower.leave() {
            self.cache.engine.retire_loaded(last);
        }
    }
}

impl<K, V, S> Drop for Waiter<'_, K, V, S> {
    fn drop(&mut self) {
        self.leave();
    }
}

impl<'a, K, V, S> FillGuard<'a, K, V, S>
where
    K: Hash + Eq,
    S: BuildHasher,
{
    /// Inserts the value, and wakes those who wait for it.
    ///
    /// If the key got an entry by other means in the meantime, that stays and is returned; `value`
    /// is then told to [`on_remove`](crate::CacheBuilder::on_remove) as rejected, as it is where
    /// the cache does not let it in, or where a write has invalidated the load.
    ///
    /// # Panics
    ///
    /// Panics with the panic of the builder's functions, or if it is called by a comparison of keys
    /// with this very key.
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
        let fill = |key, is_invalid| cache.engine.fill(hash, (key, value), terms, is_invalid);
        let (entry, kept) = leader.complete(fill, |entry| cache.engine.take_back(hash, entry));
        if let Some(kept) = kept {
            cache.engine.retire_loaded(kept);
        }
        cache.engine.counters.add(Counter::Loads, 1);
        cache.engine.stop(&self.stopwatch, "filled");
        cache.value_ref(entry)
    }
}

impl<K, V, S> FillGuard<'_, K, V, S> {
    /// Returns the key that is to be loaded.
    ///
    /// # Examples
    ///
    /// ```
    /// use cortado::{Cache, Claim, Wait};
    ///
    /// let cache = Cache::new(10);
    /// if let Claim::Fill(guard) = cache.claim("four", Wait::No) {
    ///     let length = guard.key().len();
    ///     assert_eq!(*guard.fill(length), 4);
    /// }
    /// ```
    pub fn key(&self) -> &K {
        self.leader.as_ref().map(Leader::key).expect("it is filled once")
    }

    /// Lets this thread wait for the load: another one fills the guard.
    ///
    /// A guard from [`Cache::claim`] remembers its thread, so that a call that would wait for
    /// itself is answered at once. Call this before the guard is sent to another thread while this
    /// one asks for the key. Guards from [`Cache::claim_async`] remember none.
    ///
    /// # Examples
    ///
    /// ```
    /// use cortado::{Cache, Claim, Wait};
    ///
    /// let cache = Cache::new(10);
    /// let Claim::Fill(guard) = cache.claim("k", Wait::No) else { unreachable!() };
    /// let guard = guard.detach();
    /// std::thread::scope(|scope| {
    ///     scope.spawn(|| drop(guard.fill(1)));
    ///     assert_eq!(*cache.get_or_insert_with("k", || unreachable!("it is loaded")), 1);
    /// });
    /// ```
    pub fn detach(self) -> Self {
        if let Some(leader) = &self.leader {
            leader.detach();
        }
        self
    }

    /// Says that this thread runs the load.
    pub(super) fn enter(&self) -> Option<Entered> {
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

pub(super) fn own_key() -> ! {
    panic!("the loader of a key, or the thread that is to fill it, has asked for that key")
}
