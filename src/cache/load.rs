//! Loading: a single flight per key, shared by threads and tasks. The methods for tasks are in
//! `load_async.rs`.

use std::{
    cell::Cell,
    convert::Infallible,
    hash::{BuildHasher, Hash},
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    Cache, InsertOptions, ValueRef,
    loader::{EntryKey, Failed, Kind, OwnedKey, Try, Value},
};
use crate::{
    engine::{Engine, Loaded, Stopwatch, Trace, Turn},
    entry::Entry,
    metrics::Counter,
    singleflight::{Caller, Entered, Follower, Joined, Leader, Outcome, SharedError, WaitOutcome},
    table::Held,
    util::caught,
};

/// How long [`Cache::claim`] waits for another caller's load.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use cortado::{Cache, Claim, WaitPolicy};
///
/// let cache = Cache::<&str, u32>::new(10);
/// let guard = cache.claim("k", WaitPolicy::No);
/// let other = std::thread::scope(|scope| {
///     let claim = || {
///         matches!(cache.claim("k", WaitPolicy::For(Duration::ZERO)), Claim::Busy("k"))
///     };
///     scope.spawn(claim).join()
/// });
/// assert!(matches!(guard, Claim::Fill(_)) && other.unwrap());
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WaitPolicy {
    /// Do not wait.
    No,
    /// Wait at most for this duration.
    For(Duration),
    /// Wait until the load ends.
    Forever,
}

/// The outcome of [`Cache::claim`].
///
/// `H` is the type of a hit: a [`ValueRef`], or from [`Cache::claim_async`] a
/// [`Cloned`](crate::Cloned) value, which may be held across an `.await`.
///
/// # Examples
///
/// ```
/// use cortado::{Cache, Claim, WaitPolicy};
///
/// let cache = Cache::new(10);
/// let value = match cache.claim("k", WaitPolicy::Forever) {
///     Claim::Hit(value) => value,
///     Claim::Fill(guard) => guard.fill(7),
///     Claim::Busy(_) => unreachable!("it waits as long as it takes"),
/// };
/// assert_eq!(*value, 7);
/// ```
#[derive(Debug)]
pub enum Claim<'a, K, V, S, H = ValueRef<'a, K, V>> {
    /// The key has an entry, or another caller loaded it while this one waited.
    Hit(H),
    /// The key has no entry and is not being loaded: the caller loads it.
    Fill(FillGuard<'a, K, V, S>),
    /// Another caller is loading the key and did not complete in time, or this very thread is
    /// loading it. The key is returned.
    Busy(K),
}

/// The right and the duty to load a key; created by [`Cache::claim`].
///
/// Every other caller that claims the key, or asks for it with a loader, waits for the guard.
/// Dropping it without a value passes the right on to one of the waiting callers, which loads.
///
/// A thread that holds a guard from [`claim`](Cache::claim) would wait for itself if it asked for
/// the key. Instead it gets [`Claim::Busy`], or a panic from a loader, like a loader that asks for
/// its own key. See [`detach`](Self::detach).
///
/// # Examples
///
/// ```
/// use cortado::{Cache, Claim, WaitPolicy};
///
/// let cache = Cache::new(10);
/// let Claim::Fill(guard) = cache.claim("k", WaitPolicy::No) else { unreachable!() };
/// drop(guard);
/// let Claim::Fill(guard) = cache.claim("k", WaitPolicy::No) else { unreachable!() };
/// assert_eq!(*guard.fill(1), 1);
/// ```
#[must_use = "others wait until it is filled or dropped"]
pub struct FillGuard<'a, K, V, S> {
    cache: &'a Cache<K, V, S>,
    hash: u64,
    /// `None` once it is filled.
    leader: Option<Leader<'a, K, Loaded>>,
    /// The id of the entry that is refreshed.
    refreshed: Option<usize>,
    stopwatch: Stopwatch,
}

/// The outcome of a lookup.
pub(super) enum Look<'a, K, V, S> {
    Hit(ValueRef<'a, K, V>),
    /// The entry is present, and this caller refreshes it.
    Refresh(FillGuard<'a, K, V, S>),
    Absent(K),
}

/// What a caller that found no entry does next.
pub(super) enum Next<'a, K, V, S> {
    Return(ValueRef<'a, K, V>),
    Load(FillGuard<'a, K, V, S>),
    Follow(K, Waiter<'a, K, V, S>),
    Fail(K),
}

/// What a follower gets from a load.
pub(super) enum Shared<'a, K, V> {
    Value(ValueRef<'a, K, V>),
    Failed(SharedError),
    Nothing,
}

/// The outcome of [`Cache::claim_by`]; `E` is the error of a load that it waited for.
enum Found<'a, K, V, S, E> {
    Hit(ValueRef<'a, K, V>),
    Fill(FillGuard<'a, K, V, S>),
    Failed(E),
    Busy(K),
}

/// A caller that waits for a load.
pub(super) struct Waiter<'a, K, V, S> {
    cache: &'a Cache<K, V, S>,
    hash: u64,
    pub(super) follower: Follower<'a, K, Loaded>,
}

/// # Loading
///
/// Of all callers that ask for a missing key, threads and tasks alike, one loads it and the others
/// wait for it. All of them get the loaded value, even if the cache rejects it. If the loader
/// panics, fails or is dropped, one of the waiting callers takes over with its own loader. If the
/// key gets an entry by other means while it is loaded, that entry is newer: it stays and is
/// returned.
///
/// [`entry`](Self::entry) and [`entry_ref`](Self::entry_ref) have more variants: loaders that
/// return the cost and the time to live of a value, keys that are cloned only if they have to be
/// loaded, and errors that are shared with all waiting callers.
///
/// **A write that completes while its key is loaded invalidates the load, and nothing else does.**
/// The value of an invalidated load may be out of date: it is returned to the callers that asked
/// before the write, and is not kept, even if the newer entry has left the cache by then. Callers
/// that ask after the write load again. (If the write completes just when the load ends, the value
/// may be in the cache for an instant.) A write is a call that inserts, replaces or removes an
/// entry of the key; [`remove`](Self::remove) and [`clear`](Self::clear) also count if there is
/// none. A call that changes nothing ([`remove_if`](Self::remove_if) that removes nothing) is not a
/// write, and neither is expiration or eviction.
///
/// A loader may use the cache, and load other keys. One that asks for its own key panics instead of
/// deadlocking. (Two loaders that ask for each other's keys wait forever, as with two locks.)
///
/// A blocking loader of this section blocks its thread while another caller loads. In a task that
/// can deadlock: if the load is run by a task of the same thread, as in a single-threaded runtime,
/// that task is never polled again, and both wait forever. In a task, call the async loader, or
/// call [`claim`](Self::claim) with [`WaitPolicy::No`] or [`WaitPolicy::For`], which returns
/// [`Claim::Busy`], or call the blocking loader on a thread that may block (tokio's
/// `spawn_blocking`).
impl<K, V, S> Cache<K, V, S>
where
    K: Hash + Eq,
    S: BuildHasher,
{
    /// Returns the value of a key, or inserts the result of `load`.
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
    #[doc(alias("get_with", "or_insert_with"))]
    pub fn get_or_insert_with(&self, key: K, load: impl FnOnce() -> V) -> ValueRef<'_, K, V> {
        let Ok(value) = self.load_by::<Value, _>(OwnedKey(key), |_| load());
        value
    }

    /// Like [`get_or_insert_with`](Self::get_or_insert_with), but with a loader that may fail.
    ///
    /// # Errors
    ///
    /// Returns the error of this caller's own `load`. The waiting callers try again, one with its
    /// own loader: the error is not shared. To share it, use
    /// [`Entry::or_try_load_shared`](crate::Entry::or_try_load_shared).
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
    #[doc(alias("try_get_with", "optionally_get_with"))]
    pub fn try_get_or_insert_with<E>(
        &self,
        key: K,
        load: impl FnOnce() -> Result<V, E>,
    ) -> Result<ValueRef<'_, K, V>, E> {
        self.load_by::<Try<E>, _>(OwnedKey(key), |_| load())
    }

    /// Returns the value of a key, or inserts the result of `load`, which gets a reference to the
    /// key.
    ///
    /// Like [`get_or_insert_with`](Self::get_or_insert_with), but `load` needs no copy of the key.
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
        let Ok(value) = self.load_by::<Value, _>(OwnedKey(key), load);
        value
    }

    /// Like [`get_or_insert_with_key`](Self::get_or_insert_with_key), but with a loader that may
    /// fail.
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
        self.load_by::<Try<E>, _>(OwnedKey(key), load)
    }

    /// Returns the value of a key, the right to load it, or neither: the primitive that the loaders
    /// are built on.
    ///
    /// A thread that already holds the right to load the key gets [`Claim::Busy`], whatever `wait`
    /// is.
    ///
    /// # Examples
    ///
    /// ```
    /// use cortado::{Cache, Claim, WaitPolicy};
    ///
    /// let cache = Cache::new(10);
    /// match cache.claim("k", WaitPolicy::No) {
    ///     Claim::Fill(guard) => {
    ///         assert!(matches!(cache.claim("k", WaitPolicy::No), Claim::Busy("k")));
    ///         assert_eq!(*guard.fill(1), 1);
    ///     }
    ///     _ => unreachable!("no other caller is here"),
    /// }
    /// assert!(matches!(cache.claim("k", WaitPolicy::No), Claim::Hit(_)));
    /// ```
    #[doc(alias("get_value_or_guard"))]
    pub fn claim(&self, key: K, wait: WaitPolicy) -> Claim<'_, K, V, S> {
        let never = |_| None::<Infallible>;
        match self.claim_by(OwnedKey(key), wait, false, never) {
            Found::Hit(value) => Claim::Hit(value),
            Found::Fill(guard) => Claim::Fill(guard),
            Found::Busy(key) => Claim::Busy(key),
        }
    }

    /// Returns the value of a key, the right to load it, or neither. With `may_refresh`, also
    /// returns the right to refresh an entry that is due.
    ///
    /// `accept` converts the error of a load that the caller has waited for. If it returns `None`,
    /// the caller asks again.
    fn claim_by<E>(
        &self,
        key: impl EntryKey<K>,
        wait: WaitPolicy,
        may_refresh: bool,
        accept: impl Fn(SharedError) -> Option<E>,
    ) -> Found<'_, K, V, S, E> {
        let hash = key.hash_by(&self.engine);
        let mut key = match self.look(hash, key, may_refresh) {
            Look::Hit(value) => return Found::Hit(value),
            Look::Refresh(guard) => return Found::Fill(guard),
            Look::Absent(key) => key,
        };
        // A deadline beyond the range of the clock means forever.
        let end = match wait {
            WaitPolicy::For(time) => Instant::now().checked_add(time),
            WaitPolicy::No | WaitPolicy::Forever => None,
        };
        let mut is_first = true;
        loop {
            let (mine, mut waiter) = match self.join_load(hash, key, is_first, Caller::Thread) {
                Next::Return(value) => return Found::Hit(value),
                Next::Load(guard) => return Found::Fill(guard),
                Next::Fail(key) => return Found::Busy(key),
                Next::Follow(key, waiter) => (key, waiter),
            };
            is_first = false;
            let waited = match (wait, end) {
                (WaitPolicy::No, _) => WaitOutcome::TimedOut,
                (_, Some(end)) => waiter.follower.wait_until(end),
                (_, None) => waiter.follower.wait(),
            };
            match waited {
                WaitOutcome::Completed => match waiter.share(&mine) {
                    Shared::Value(value) => return Found::Hit(value),
                    Shared::Failed(error) => match accept(error) {
                        Some(error) => return Found::Failed(error),
                        None => key = mine,
                    },
                    Shared::Nothing => key = mine,
                },
                WaitOutcome::Lead(leader) => return Found::Fill(self.guard(hash, leader, None)),
                WaitOutcome::TimedOut => return Found::Busy(mine),
            }
        }
    }

    /// Returns the value of a key, or inserts the result of `load`.
    pub(super) fn load_by<M, T>(
        &self,
        key: impl EntryKey<K>,
        load: impl FnOnce(&K) -> T,
    ) -> Result<ValueRef<'_, K, V>, M::Error>
    where
        M: Kind<V, T>,
    {
        match self.claim_by(key, WaitPolicy::Forever, true, M::accept) {
            Found::Hit(value) => Ok(value),
            Found::Fill(guard) => {
                let entered = guard.enter();
                let loaded = load(guard.key());
                drop(entered);
                guard.finish::<M, T>(loaded)
            }
            Found::Failed(error) => Err(error),
            Found::Busy(_) => own_key(),
        }
    }

    /// Looks a key up before anything is loaded.
    pub(super) fn look(
        &self,
        hash: u64,
        key: impl EntryKey<K>,
        may_refresh: bool,
    ) -> Look<'_, K, V, S> {
        let engine: &Engine<K, V, S> = &self.engine;
        match engine.get(hash, Trace::Load, |k| key.matches(k)) {
            Some(entry) if may_refresh && engine.is_stale(entry.get()) => {
                self.begin_refresh(hash, key.into_key(), entry)
            }
            Some(entry) => Look::Hit(self.value_ref(entry)),
            None => Look::Absent(key.into_key()),
        }
    }

    /// Begins to refresh an entry, unless its key is already being loaded.
    pub(super) fn begin_refresh<'a>(
        &'a self,
        hash: u64,
        key: K,
        entry: Held<'a, Entry<K, V>>,
    ) -> Look<'a, K, V, S> {
        match self.engine.join(hash, key, Caller::Task) {
            Joined::Lead(leader) => {
                let id = entry.get().id();
                let is_written = !self.engine.writes_back() || {
                    let _entered = leader.enter();
                    self.engine.settle_refreshed(hash, id)
                };
                if is_written {
                    return Look::Refresh(self.guard(hash, leader, Some(id)));
                }
                // The store has an older value. The next refresh is not due at once, as after a
                // refresh that has failed.
                self.engine.postpone_refresh(entry.get());
                Look::Hit(self.value_ref(entry))
            }
            Joined::Follow(_, follower) => {
                drop(Waiter::new(self, hash, follower));
                Look::Hit(self.value_ref(entry))
            }
            Joined::Own(_) => Look::Hit(self.value_ref(entry)),
        }
    }

    /// Joins the load of a key that had no entry, and looks it up once more. The first call of a
    /// caller counts a hit, a miss or a coalesced load.
    pub(super) fn join_load(
        &self,
        hash: u64,
        key: K,
        is_first: bool,
        caller: Caller,
    ) -> Next<'_, K, V, S> {
        let engine: &Engine<K, V, S> = &self.engine;
        if !is_first && let Some(entry) = engine.get(hash, Trace::None, |k| *k == key) {
            return Next::Return(self.value_ref(entry));
        }
        let count = |counter| {
            if is_first {
                engine.count(counter);
            }
        };
        // Removed entries are freed before this thread leads, or is pinned by the value.
        engine.sweep_if_due();
        let _ = engine.garbage_pressure();
        engine.settle_expired(hash, |k| *k == key, Turn::Wait);
        match engine.join(hash, key, caller) {
            Joined::Follow(key, follower) => {
                count(Counter::Coalesced);
                Next::Follow(key, Waiter::new(self, hash, follower))
            }
            Joined::Own(key) => {
                count(Counter::Misses);
                Next::Fail(key)
            }
            Joined::Lead(leader) => {
                // The previous flight may have ended since the lookup.
                match engine.get(hash, Trace::None, |k| k == leader.key()) {
                    None => {
                        count(Counter::Misses);
                        Next::Load(self.guard(hash, leader, None))
                    }
                    Some(entry) => {
                        count(Counter::Hits);
                        leader.complete(|_, _| ((), Outcome::Nothing), |()| None);
                        Next::Return(self.value_ref(entry))
                    }
                }
            }
        }
    }

    pub(super) fn guard<'a>(
        &'a self,
        hash: u64,
        leader: Leader<'a, K, Loaded>,
        refreshed: Option<usize>,
    ) -> FillGuard<'a, K, V, S> {
        let stopwatch = self.engine.start_stopwatch();
        if refreshed.is_none() && self.is_being_written(hash, &leader) {
            // What the loader is about to read may be older than what the other thread writes: the
            // caller gets it, and the cache does not.
            self.engine.invalidate_load(hash);
        }
        FillGuard { cache: self, hash, leader: Some(leader), refreshed, stopwatch }
    }

    /// Writes an expired entry of the key back before the store is read. Returns whether another
    /// thread is doing so.
    pub(super) fn is_being_written(&self, hash: u64, leader: &Leader<'_, K, Loaded>) -> bool {
        self.engine.writes_back() && {
            let _entered = leader.enter();
            self.engine.settle_expired(hash, |k| k == leader.key(), Turn::Try)
        }
    }
}

impl<'a, K, V, S> Waiter<'a, K, V, S>
where
    K: Hash + Eq,
    S: BuildHasher,
{
    /// Returns the outcome of the load, once the flight has completed.
    pub(super) fn share(&mut self, key: &K) -> Shared<'a, K, V> {
        let (cache, engine) = (self.cache, &self.cache.engine);
        let published = self.follower.published();
        let there = engine.get_loaded(self.hash, |k| k == key, published);
        if let Some(entry) = there {
            self.leave();
            return Shared::Value(cache.value_ref(entry));
        }
        let failure = self.follower.failure();
        // A flight that is about to end is joined without comparing its key.
        if let Some(entry) = engine.share(&mut self.follower).filter(|entry| entry.key == *key) {
            return Shared::Value(cache.value_ref(entry));
        }
        match failure {
            Some(failure) if failure.key == *key => Shared::Failed(failure.error.clone()),
            _ => Shared::Nothing,
        }
    }
}

impl<'a, K, V, S> Waiter<'a, K, V, S> {
    pub(super) fn new(
        cache: &'a Cache<K, V, S>,
        hash: u64,
        follower: Follower<'a, K, Loaded>,
    ) -> Self {
        Self { cache, hash, follower }
    }

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
    /// Inserts the value, and wakes the waiting callers.
    ///
    /// If the key got an entry by other means concurrently, that entry stays and is returned. In
    /// this case, and if the cache rejects `value` or a write has invalidated the load, `value` is
    /// passed to [`on_remove`](crate::CacheBuilder::on_remove) as rejected.
    ///
    /// # Panics
    ///
    /// Panics with the panic of the builder's functions, or if it is called from a comparison of
    /// keys with this very key.
    pub fn fill(self, value: V) -> ValueRef<'a, K, V> {
        self.fill_with(value, InsertOptions::new())
    }

    /// Like [`fill`](Self::fill), but with options.
    ///
    /// # Examples
    ///
    /// ```
    /// use cortado::{Cache, Claim, InsertOptions, WaitPolicy};
    ///
    /// let cache = Cache::new(10);
    /// if let Claim::Fill(guard) = cache.claim("k", WaitPolicy::Forever) {
    ///     guard.fill_with(1, InsertOptions::new().cost(3));
    /// }
    /// assert_eq!(cache.cost(), 3);
    /// ```
    pub fn fill_with(mut self, value: V, options: InsertOptions) -> ValueRef<'a, K, V> {
        let (cache, hash) = (self.cache, self.hash);
        let leader = self.take_leader();
        let terms = options.terms();
        // Pinned until the value is published, so that the id names no newer entry.
        let pin = self.refreshed.map(|_| cache.engine.pin_part(hash));
        let refreshed = pin.as_ref().and_then(|guard| {
            let id = self.refreshed.filter(|id| cache.engine.has_id(guard, hash, *id));
            id.filter(|_| leader.is_unwritten())
        });
        let is_published = Cell::new(false);
        let fill = |key, is_invalid| {
            let filled = cache.engine.fill(hash, (key, value), terms, is_invalid, refreshed);
            is_published.set(filled.1.published().is_some());
            filled
        };
        let (entry, unpublished) = leader.complete(fill, |entry| {
            is_published.set(false);
            cache.engine.take_back(hash, entry)
        });
        drop(pin);
        if let Some(unpublished) = unpublished {
            cache.engine.retire_loaded(unpublished);
        }
        cache.engine.note_load(&self.stopwatch, refreshed.is_some() && is_published.get());
        cache.value_ref(entry)
    }

    /// Ends the load with an error, which is returned to the waiting callers that share errors of
    /// this type ([`Entry::or_try_load_shared`](crate::Entry::or_try_load_shared)). Of the others,
    /// one takes over.
    ///
    /// If this was a [refresh](Cache::claim_refresh), returns the entry that is present. It is not
    /// due for another refresh until [`refresh_after`](crate::CacheBuilder::refresh_after) has
    /// passed again.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::sync::Arc;
    /// use cortado::{Cache, Claim, WaitPolicy};
    ///
    /// let cache = Cache::<&str, u32>::new(10);
    /// let Claim::Fill(guard) = cache.claim("k", WaitPolicy::No) else { unreachable!() };
    /// assert!(guard.fail(Arc::new("the backend is down")).is_none());
    /// ```
    pub fn fail<E: Send + Sync + 'static>(self, error: Arc<E>) -> Option<ValueRef<'a, K, V>> {
        self.end(Some(error))
    }

    /// Ends the load with the output of its loader.
    pub(super) fn finish<M, T>(self, loaded: T) -> Result<ValueRef<'a, K, V>, M::Error>
    where
        M: Kind<V, T>,
    {
        match M::split(loaded) {
            Ok((value, options)) => Ok(self.fill_with(value, options)),
            Err(Failed { error, shared }) => self.end(shared).ok_or(error),
        }
    }

    /// Ends the load without a value; returns the entry that a refresh leaves in place.
    fn end(mut self, error: Option<SharedError>) -> Option<ValueRef<'a, K, V>> {
        let (cache, hash) = (self.cache, self.hash);
        let engine = &cache.engine;
        let old = self.refreshed.and_then(|_| engine.get(hash, Trace::None, |k| k == self.key()));
        if let Some(old) = &old {
            engine.postpone_refresh(old.get());
        }
        if let Some(error) = error
            && let Some(leader) = self.leader.take()
        {
            leader.fail(error);
            self.note_failure();
        }
        old.map(|old| cache.value_ref(old))
    }
}

impl<'a, K, V, S> FillGuard<'a, K, V, S> {
    /// Returns the key that is to be loaded.
    ///
    /// # Examples
    ///
    /// ```
    /// use cortado::{Cache, Claim, WaitPolicy};
    ///
    /// let cache = Cache::new(10);
    /// if let Claim::Fill(guard) = cache.claim("four", WaitPolicy::No) {
    ///     let length = guard.key().len();
    ///     assert_eq!(*guard.fill(length), 4);
    /// }
    /// ```
    pub fn key(&self) -> &K {
        self.leader.as_ref().map(Leader::key).expect("it is filled once")
    }

    /// Detaches the guard from this thread, so that the thread can wait for the load while another
    /// one fills the guard.
    ///
    /// A guard from [`Cache::claim`] records its thread, so that a call that would wait for itself
    /// fails at once. Call this before sending the guard to another thread if this one then asks
    /// for the key. Guards from [`Cache::claim_async`] record no thread.
    ///
    /// # Examples
    ///
    /// ```
    /// use cortado::{Cache, Claim, WaitPolicy};
    ///
    /// let cache = Cache::new(10);
    /// let Claim::Fill(guard) = cache.claim("k", WaitPolicy::No) else { unreachable!() };
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

    /// Returns the hash of the key.
    pub(super) fn hash(&self) -> u64 {
        self.hash
    }

    /// Takes the load out of the guard.
    pub(super) fn take_leader(&mut self) -> Leader<'a, K, Loaded> {
        self.leader.take().expect("it is filled once")
    }

    fn note_failure(&self) {
        self.cache.engine.note_failed_load(&self.stopwatch);
    }

    /// Marks the load as run by this thread.
    pub(super) fn enter(&self) -> Option<Entered> {
        self.leader.as_ref().map(Leader::enter)
    }
}

impl<K, V, S> Drop for FillGuard<'_, K, V, S> {
    fn drop(&mut self) {
        if self.leader.is_some() {
            // The clock may be the user's. Its panic must neither escape from a drop nor keep a
            // waiting caller from taking over.
            caught(|| self.note_failure());
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
