//! `Shard`: the flights of a subset of the keys under one lock, and a stack on which writes defer
//! their work instead of waiting for that lock.

use std::{
    any::Any,
    collections::{HashMap, hash_map::Entry},
    hash::BuildHasherDefault,
    sync::{Arc as Shared, PoisonError, TryLockError},
    task::Waker,
};

use super::{
    arena::{Arena, NONE, Waiters},
    write::Intent,
};
use crate::{
    primitives::stack::{Node, Stack},
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicU64, Ordering, fence},
    },
};

/// The flights of a subset of the keys.
pub struct Shard<K, T> {
    /// The number of running loads: of flights that have a leader.
    running: AtomicU64,
    /// Writes that found the lock taken; the next holder of the lock applies them first.
    pending_writes: Stack<PendingWrite>,
    state: Mutex<ShardState<K, T>>,
}

/// A deferred write, which is applied to the loads that run when it is taken off the stack.
struct PendingWrite {
    /// The hash of the key; `None` for all keys.
    hash: Option<u64>,
    /// The intent of an announced write; `None` for a write that has happened.
    intent: Option<Arc<Intent>>,
}

/// The data that the lock of a shard protects.
///
/// No user code runs while the lock is held: no comparison and no destructor of a key, no waker.
pub struct ShardState<K, T> {
    pub flights: Arena<Flight<K, T>>,
    /// The first flight of each hash; the others of that hash are linked to it.
    index: HashMap<u64, usize, BuildHasherDefault<ahash::AHasher>>,
    /// The id of the newest flight.
    last: u64,
}

/// Successive loads of one key, and the followers that wait for them.
pub struct Flight<K, T> {
    /// Distinguishes the flight from others that had its slot.
    pub id: u64,
    hash: u64,
    /// `None` once the leader completes.
    pub key: Option<Shared<K>>,
    pub state: State,
    /// Whether the key was written since the load began.
    is_invalid: bool,
    /// The intents of writes that were announced while the load runs.
    intents: Vec<Arc<Intent>>,
    /// The number of threads that compare a key with this flight's.
    comparing: usize,
    /// Whether the leader waits to take the key, so that no further comparison begins.
    is_completing: bool,
    /// Wakes the leader when the last comparison has ended.
    waits_for_key: Option<Waker>,
    /// The number of the leading thread if it would deadlock by following; otherwise 0.
    pub owner: usize,
    pub waiters: Waiters,
    /// Whether the flight is in the index.
    is_indexed: bool,
    /// The neighbours among the flights of the hash.
    previous: usize,
    next: usize,
    outcome: Outcome<T>,
    /// The error of a failed load, for its followers.
    failure: Option<Shared<Failure<K>>>,
    /// The number of followers that have not taken the outcome yet.
    left: usize,
}

/// The state of a flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// The flight has a leader.
    Led,
    /// The flight has no leader; one of its followers will become it.
    Vacant,
    /// The flight has ended, and its followers take the outcome.
    Completed,
}

/// The failure of a load, shared by its followers.
#[derive(Debug)]
pub struct Failure<K> {
    /// The key: followers find flights by the hash only.
    pub key: K,
    /// The error, an `Arc` of the error type of the leader's loader.
    pub error: SharedError,
}

/// A type-erased error of a loader.
pub type SharedError = Shared<dyn Any + Send + Sync>;

/// The outcome of a load.
#[derive(Debug)]
pub enum Outcome<T> {
    /// No entry, or one that is found without the flight.
    Nothing,
    /// The id of a published entry.
    Published(usize),
    /// An unpublished entry, which the leader or the last follower retires.
    Unpublished(T),
}

impl<T> Outcome<T> {
    fn take_unpublished(&mut self) -> Option<T> {
        match std::mem::replace(self, Self::Nothing) {
            Self::Unpublished(unpublished) => Some(unpublished),
            other => {
                *self = other;
                None
            }
        }
    }

    /// Returns the id of the published entry.
    pub fn published(&self) -> Option<usize> {
        match self {
            Self::Published(id) => Some(*id),
            _ => None,
        }
    }
}

impl<K, T> Shard<K, T> {
    /// Makes a shard without flights.
    pub fn new() -> Self {
        let state = ShardState { flights: Arena::new(), index: HashMap::default(), last: 0 };
        Self { running: AtomicU64::new(0), pending_writes: Stack::new(), state: Mutex::new(state) }
    }

    /// Acquires the lock and applies the pending writes.
    pub fn lock(&self) -> MutexGuard<'_, ShardState<K, T>> {
        // A panic under the lock leaves the state consistent.
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        // Applied first, so that a pending write affects no load that begins after it was deferred.
        if !mutant!("singleflight_applies_writes_late") {
            self.apply_pending_writes(&mut state);
        }
        state
    }

    fn try_lock(&self) -> Option<MutexGuard<'_, ShardState<K, T>>> {
        let mut state = match self.state.try_lock() {
            Ok(state) => state,
            Err(TryLockError::Poisoned(state)) => state.into_inner(),
            Err(TryLockError::WouldBlock) => return None,
        };
        self.apply_pending_writes(&mut state);
        Some(state)
    }

    fn apply_pending_writes(&self, state: &mut ShardState<K, T>) {
        for write in self.pending_writes.take() {
            match (write.hash, &write.intent) {
                (Some(hash), Some(intent)) => _ = state.attach(hash, intent),
                (Some(hash), None) => state.invalidate(hash),
                (None, _) => state.invalidate_all(),
            }
        }
    }

    /// Defers a write to the next thread that acquires the lock.
    fn defer_write(&self, hash: Option<u64>, intent: Option<Arc<Intent>>) {
        if mutant!("singleflight_drops_pending_write") {
            return;
        }
        self.pending_writes.push(Node::new(PendingWrite { hash, intent }));
    }

    /// Returns whether a load runs that began before this thread's last write.
    fn is_running(&self) -> bool {
        // SeqCst: pairs with the fence in `lead`. Either this thread sees the load, or the load
        // sees what this thread wrote before.
        if !mutant!("singleflight_no_fence") {
            fence(Ordering::SeqCst);
        }
        // Acquire: pairs with the Release in `complete`, so that an entry that an ended load has
        // published is found.
        self.running.load(Ordering::Acquire) != 0
    }

    /// Announces that a key is about to be written; returns an intent if loads of it may run.
    #[cold]
    pub fn announce(&self, hash: u64) -> Option<Arc<Intent>> {
        if !self.is_running() || mutant!("singleflight_announces_nothing") {
            return None;
        }
        if let Some(mut state) = self.try_lock() {
            let intent = Intent::new();
            return state.attach(hash, &intent).then_some(intent);
        }
        let intent = Intent::new();
        self.defer_write(Some(hash), Some(Arc::clone(&intent)));
        // SeqCst: pairs with the fence in `Leader::complete`. Either the load finds the pending
        // write, or this thread finds what the load has published.
        fence(Ordering::SeqCst);
        Some(intent)
    }

    /// Invalidates the running loads of one hash, or of all keys for `None`.
    #[cold]
    pub fn invalidate(&self, hash: Option<u64>) {
        if !self.is_running() || mutant!("singleflight_invalidates_none") {
            return;
        }
        match (self.try_lock(), hash) {
            (Some(mut state), Some(hash)) => state.invalidate(hash),
            (Some(mut state), None) => state.invalidate_all(),
            (None, hash) => self.defer_write(hash, None),
        }
    }

    /// Begins a load.
    pub fn lead(&self, state: &mut ShardState<K, T>, slot: usize, owner: usize) {
        // Relaxed: the fence orders it.
        self.running.fetch_add(1, Ordering::Relaxed);
        // SeqCst: pairs with the fence in `is_running`: if a write does not see this load, the load
        // sees what was written before that check.
        fence(Ordering::SeqCst);
        state.put_in_index(slot);
        let flight = state.flights.get_mut(slot);
        flight.state = State::Led;
        flight.is_invalid = false;
        flight.intents.clear();
        flight.owner = owner;
        if mutant!("singleflight_applies_writes_late") {
            self.apply_pending_writes(state);
        }
    }

    /// Returns whether the key was written while the load ran that has published `id`. If not,
    /// leaves `id` to the writes that are in progress.
    pub fn was_written(&self, state: &mut ShardState<K, T>, slot: usize, id: usize) -> bool {
        let flight = state.flights.get_mut(slot);
        let is_left = |intent: &Arc<Intent>| intent.publish(id);
        flight.is_invalid || !flight.intents.iter().all(is_left)
    }

    /// Returns whether no write of the key that was announced since the flight began has happened
    /// or may still happen.
    pub fn is_unwritten(&self, state: &mut ShardState<K, T>, slot: usize) -> bool {
        let flight = state.flights.get_mut(slot);
        let is_spoiled = flight.is_invalid || !flight.intents.iter().all(|intent| intent.is_void());
        !is_spoiled || mutant!("singleflight_ignores_writes")
    }

    /// Ends a load. Returns its unpublished entry if there is no follower, the followers to wake
    /// and the flight to drop, both after the lock is released.
    pub fn complete(
        &self,
        state: &mut ShardState<K, T>,
        slot: usize,
        outcome: Outcome<T>,
    ) -> (Option<T>, Waiters, Option<Flight<K, T>>) {
        state.take_from_index(slot);
        let flight = state.flights.get_mut(slot);
        let waiters = std::mem::take(&mut flight.waiters);
        flight.state = State::Completed;
        flight.left = waiters.len();
        flight.outcome = outcome;
        let unpublished = if flight.left == 0 { flight.outcome.take_unpublished() } else { None };
        // Release: pairs with the Acquire in `is_running`.
        self.running.fetch_sub(1, Ordering::Release);
        (unpublished, waiters, state.release(slot))
    }

    /// Like [`complete`](Self::complete), but for a load that has failed.
    pub fn fail(
        &self,
        state: &mut ShardState<K, T>,
        slot: usize,
        failure: Option<Shared<Failure<K>>>,
    ) -> (Waiters, Option<Flight<K, T>>) {
        state.flights.get_mut(slot).failure = failure;
        let (_, waiters, gone) = self.complete(state, slot, Outcome::Nothing);
        (waiters, gone)
    }

    /// Ends a load without an outcome; the flight becomes vacant.
    pub fn let_go(&self, state: &mut ShardState<K, T>, slot: usize) {
        // What the load has read no longer matters, so other callers may join the flight again.
        state.put_in_index(slot);
        let flight = state.flights.get_mut(slot);
        flight.state = State::Vacant;
        flight.is_completing = false;
        flight.waits_for_key = None;
        self.running.fetch_sub(1, Ordering::Release); // Release: as in `complete`.
    }
}

#[cfg(test)]
impl<K, T> Flight<K, T> {
    pub fn is_completing(&self) -> bool {
        self.is_completing
    }
}

impl<K, T> ShardState<K, T> {
    /// Adds a flight that has no leader yet; returns its slot and its id.
    pub fn add(&mut self, hash: u64, key: Shared<K>) -> (usize, u64) {
        self.last += 1;
        let slot = self.flights.insert(Flight {
            id: self.last,
            hash,
            key: Some(key),
            state: State::Vacant,
            is_invalid: false,
            intents: Vec::new(),
            comparing: 0,
            is_completing: false,
            waits_for_key: None,
            owner: 0,
            waiters: Waiters::new(),
            is_indexed: false,
            previous: NONE,
            next: NONE,
            outcome: Outcome::Nothing,
            failure: None,
            left: 0,
        });
        (slot, self.last)
    }

    /// Returns the first flight of a hash that may be joined and is not excluded by `but_for`.
    pub fn find(&mut self, hash: u64, but_for: impl Fn(u64) -> bool) -> Option<usize> {
        let mut slot = self.index.get(&hash).copied().unwrap_or(NONE);
        while slot != NONE {
            let flight = self.flights.get_mut(slot);
            if !but_for(flight.id) {
                return Some(slot);
            }
            slot = flight.next;
        }
        None
    }

    /// Returns the failure of a flight's load, if it has failed.
    pub fn failure(&mut self, slot: usize) -> Option<Shared<Failure<K>>> {
        self.flights.get_mut(slot).failure.clone()
    }

    /// Returns the flight of a slot if it has this id.
    pub fn known(&mut self, slot: usize, id: u64) -> Option<&mut Flight<K, T>> {
        let flight = self.flights.get_mut(slot);
        (flight.id == id).then_some(flight)
    }

    /// Returns whether a flight may still be joined.
    pub fn is_joinable(&mut self, slot: usize) -> bool {
        self.flights.get_mut(slot).is_indexed
    }

    /// Takes the key of a flight, so that no further comparison begins. Returns it and whether the
    /// load is invalid, or `None` while a comparison runs. `waker` is called when the last
    /// comparison has ended.
    pub fn take_key(&mut self, slot: usize, waker: &Waker) -> Option<(Option<Shared<K>>, bool)> {
        let flight = self.flights.get_mut(slot);
        flight.is_completing = true;
        if flight.comparing > 0 {
            // Not user code: the waker is a `ThreadWaker`.
            flight.waits_for_key = Some(waker.clone());
            return None;
        }
        let is_committed = flight.intents.iter().any(|intent| intent.is_committed());
        Some((flight.key.take(), flight.is_invalid || is_committed))
    }

    /// Returns the key of a flight for a comparison, unless the leader is completing the flight.
    pub fn begin_comparison(&mut self, slot: usize) -> Option<Shared<K>> {
        let flight = self.flights.get_mut(slot);
        let key = flight.key.as_ref().filter(|_| !flight.is_completing)?;
        flight.comparing += 1;
        Some(Shared::clone(key))
    }

    /// Ends a comparison; returns a waker to be called after the lock is released.
    pub fn end_comparison(&mut self, slot: usize) -> Option<Waker> {
        let flight = self.flights.get_mut(slot);
        flight.comparing -= 1;
        if flight.comparing == 0 { flight.waits_for_key.take() } else { None }
    }

    /// Removes a follower from a completed flight. Returns the result of `see` on the unpublished
    /// entry, the entry itself for the last follower, and the flight to drop after the lock is
    /// released.
    pub fn take_share<R>(
        &mut self,
        slot: usize,
        see: impl FnOnce(&T) -> R,
    ) -> (Option<R>, Option<T>, Option<Flight<K, T>>) {
        let flight = self.flights.get_mut(slot);
        let seen = match &flight.outcome {
            Outcome::Unpublished(unpublished) => Some(see(unpublished)),
            _ => None,
        };
        flight.left -= 1;
        let is_last = if mutant!("singleflight_last_too_early") {
            flight.left <= 1
        } else {
            flight.left == 0 && !mutant!("singleflight_last_forgets")
        };
        let unpublished = if is_last { flight.outcome.take_unpublished() } else { None };
        (seen, unpublished, self.release(slot))
    }

    /// Returns the id of the entry that the flight has published.
    pub fn published(&mut self, slot: usize) -> Option<usize> {
        self.flights.get_mut(slot).outcome.published()
    }

    /// Passes a vacant flight on to a follower. Returns the follower's waker, or without followers
    /// the flight to drop, both to be handled after the lock is released.
    pub fn pass_on(&mut self, slot: usize) -> (Option<Waker>, Option<Flight<K, T>>) {
        let flight = self.flights.get_mut(slot);
        if flight.state != State::Vacant {
            return (None, None);
        }
        match flight.waiters.len() {
            0 => (None, self.release(slot)),
            _ => (flight.waiters.next(), None),
        }
    }

    /// Removes a flight that has ended and is no longer referred to.
    pub fn release(&mut self, slot: usize) -> Option<Flight<K, T>> {
        let flight = self.flights.get_mut(slot);
        let is_done = match flight.state {
            State::Led => false,
            State::Vacant => flight.waiters.len() == 0,
            State::Completed => flight.left == 0,
        };
        if !is_done || flight.comparing > 0 {
            return None;
        }
        self.take_from_index(slot);
        Some(self.flights.remove(slot))
    }

    /// Takes the unpublished entries of all flights, before the flights are dropped.
    pub fn take_all_unpublished(&mut self) -> Vec<T> {
        self.flights.values_mut().filter_map(|flight| flight.outcome.take_unpublished()).collect()
    }

    /// Adds a write's intent to the running loads of a hash; returns whether there are any.
    fn attach(&mut self, hash: u64, intent: &Arc<Intent>) -> bool {
        let mut is_any = false;
        let mut slot = self.index.get(&hash).copied().unwrap_or(NONE);
        while slot != NONE {
            let flight = self.flights.get_mut(slot);
            slot = flight.next;
            if flight.state != State::Led {
                continue;
            }
            is_any = true;
            if flight.intents.len() == flight.intents.capacity() {
                // Removes writes that have ended before the vector grows. Each state is loaded
                // once, because it may change in between.
                let Flight { intents, is_invalid, .. } = flight;
                intents.retain(|intent| {
                    let end = intent.end();
                    *is_invalid |= end == Some(true);
                    end.is_none()
                });
            }
            flight.intents.push(Arc::clone(intent));
        }
        is_any
    }

    fn invalidate(&mut self, hash: u64) {
        let mut slot = self.index.get(&hash).copied().unwrap_or(NONE);
        while slot != NONE {
            let next = self.flights.get_mut(slot).next;
            self.invalidate_slot(slot);
            slot = next;
        }
    }

    fn invalidate_all(&mut self) {
        let slots: Vec<usize> = self.flights.slots().collect();
        slots.into_iter().for_each(|slot| self.invalidate_slot(slot));
    }

    /// Invalidates the load of a flight. A flight without a leader has read nothing.
    fn invalidate_slot(&mut self, slot: usize) {
        let flight = self.flights.get_mut(slot);
        if flight.state == State::Led {
            flight.is_invalid = true;
            flight.intents.clear();
            // Later callers begin a load of their own.
            self.take_from_index(slot);
        }
    }

    fn put_in_index(&mut self, slot: usize) {
        let flight = self.flights.get_mut(slot);
        if std::mem::replace(&mut flight.is_indexed, true) {
            return;
        }
        let next = match self.index.entry(flight.hash) {
            Entry::Occupied(mut first) => first.insert(slot),
            Entry::Vacant(none) => {
                none.insert(slot);
                NONE
            }
        };
        (flight.previous, flight.next) = (NONE, next);
        if next != NONE {
            self.flights.get_mut(next).previous = slot;
        }
    }

    fn take_from_index(&mut self, slot: usize) {
        let flight = self.flights.get_mut(slot);
        if !std::mem::replace(&mut flight.is_indexed, false) {
            return;
        }
        let (hash, previous, next) = (flight.hash, flight.previous, flight.next);
        match (previous, next) {
            (NONE, NONE) => _ = self.index.remove(&hash),
            (NONE, next) => _ = self.index.insert(hash, next),
            (previous, next) => self.flights.get_mut(previous).next = next,
        }
        if next != NONE {
            self.flights.get_mut(next).previous = previous;
        }
        if self.index.is_empty() && self.index.capacity() > SPARE {
            self.index.shrink_to(SPARE);
        }
    }
}

/// Flights whose memory an empty index keeps: the capacity of a hash table of 32 buckets.
const SPARE: usize = 28;
