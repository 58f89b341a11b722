//! `Shard`: the flights of a part of all keys, under one lock, and how a write reaches them without
//! waiting for it.

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

/// The flights of a part of all keys.
pub struct Shard<K, T> {
    /// Loads that run: how many flights have a leader.
    running: AtomicU64,
    /// What writes have to say that found the lock taken; its next holder reads it first.
    pending_writes: Stack<PendingWrite>,
    state: Mutex<ShardState<K, T>>,
}

/// What a write says to the loads that run when it is read.
struct PendingWrite {
    /// The hash of the key; `None` for all keys.
    hash: Option<u64>,
    /// The write that is about to happen; `None` if it has.
    intent: Option<Arc<Intent>>,
}

/// What the lock of a shard protects.
///
/// No code of the user's runs while it is held: no comparison and no destructor of a key, no waker.
pub struct ShardState<K, T> {
    pub flights: Arena<Flight<K, T>>,
    /// The first flight of each hash; the others of that hash are linked to it.
    index: HashMap<u64, usize, BuildHasherDefault<ahash::AHasher>>,
    /// The last flight that was made.
    last: u64,
}

/// One load after the other of one key, and who waits for it.
pub struct Flight<K, T> {
    /// Tells it from others that had its slot.
    pub id: u64,
    hash: u64,
    /// Gone when the leader completes.
    pub key: Option<Shared<K>>,
    pub state: State,
    /// Whether the key was written since the load began.
    is_invalid: bool,
    /// Writes that have found it running.
    intents: Vec<Arc<Intent>>,
    /// Threads that compare their key with this one's.
    comparing: usize,
    /// Whether the leader wants the key, so that no other comparison begins; and how to wake it
    /// when the last one has ended.
    is_completing: bool,
    waits_for_key: Option<Waker>,
    /// The thread that leads, if it would wait for itself.
    pub owner: usize,
    pub waiters: Waiters,
    /// Whether it is found by its hash, and its neighbours there.
    is_indexed: bool,
    previous: usize,
    next: usize,
    outcome: Outcome<T>,
    /// What a load that failed has to say to those who follow it.
    failure: Option<Shared<Failure<K>>>,
    /// Followers that have not seen to the outcome.
    left: usize,
}

/// What a flight does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It has a leader.
    Led,
    /// It has followers, one of which is to lead.
    Vacant,
    /// It is over, and its followers see to the outcome.
    Completed,
}

/// How the load of a key failed, for all who waited for it.
#[derive(Debug)]
pub struct Failure<K> {
    /// The key: flights are found by its hash.
    pub key: K,
    /// The error, an `Arc` of whatever type the leader's loader has.
    pub error: SharedError,
}

/// An error of a type that the flights do not know.
pub type SharedError = Shared<dyn Any + Send + Sync>;

/// What a load has led to.
#[derive(Debug)]
pub enum Outcome<T> {
    /// Nothing, or what is found without the flight.
    Nothing,
    /// An entry that was published, by its id.
    Published(usize),
    /// An entry that was not: the leader, or the last of the followers, retires it.
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

    /// Returns the id of what was published.
    pub fn published(&self) -> Option<usize> {
        match self {
            Self::Published(id) => Some(*id),
            _ => None,
        }
    }
}

impl<K, T> Shard<K, T> {
    /// Makes one without any flight.
    pub fn new() -> Self {
        let state = ShardState { flights: Arena::new(), index: HashMap::default(), last: 0 };
        Self { running: AtomicU64::new(0), pending_writes: Stack::new(), state: Mutex::new(state) }
    }

    /// Acquires the lock, and does what writes that found it taken wanted done.
    pub fn lock(&self) -> MutexGuard<'_, ShardState<K, T>> {
        // Nothing is left half done under the lock, so a panic there leaves it in order.
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        // First, so that a pending write concerns no load that begins after it was left.
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

    /// Defers a write to the holder of the lock, who applies it before it releases the lock or leaves
    /// it to the next one.
    fn defer_write(&self, hash: Option<u64>, intent: Option<Arc<Intent>>) {
        if mutant!("singleflight_drops_pending_write") {
            return;
        }
        self.pending_writes.push(Node::new(PendingWrite { hash, intent }));
    }

    /// Returns whether a load runs that began before what this thread did last.
    fn is_running(&self) -> bool {
        // SeqCst: pairs with the fence in `lead`. Either this thread sees the load, or the load
        // sees what this thread has written before.
        if !mutant!("singleflight_no_fence") {
            fence(Ordering::SeqCst);
        }
        // Acquire: pairs with the Release in `complete`: what a load has published that is over is
        // found.
        self.running.load(Ordering::Acquire) != 0
    }

    /// Says that a key is about to be written, if loads of it may run.
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
        // SeqCst: pairs with the fence in `was_written`. Either the load finds the pending write, or this
        // thread finds what the load has published.
        fence(Ordering::SeqCst);
        Some(intent)
    }

    /// Invalidates the loads that run, of one key or of all.
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
        // Relaxed: see the fence.
        self.running.fetch_add(1, Ordering::Relaxed);
        // SeqCst: pairs with the fence in `is_running`: what was written before a write that does
        // not see this load is read by the load.
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

    /// Returns whether the key was written while the load ran that has published this, which is
    /// over otherwise.
    pub fn was_written(&self, state: &mut ShardState<K, T>, slot: usize, id: usize) -> bool {
        let flight = state.flights.get_mut(slot);
        let is_left = |intent: &Arc<Intent>| intent.publish(id);
        flight.is_invalid || !flight.intents.iter().all(is_left)
    }

    /// Returns whether no write of the key that was announced since the flight began has happened,
    /// or still may.
    pub fn is_unwritten(&self, state: &mut ShardState<K, T>, slot: usize) -> bool {
        let flight = state.flights.get_mut(slot);
        let is_spoiled = flight.is_invalid || !flight.intents.iter().all(|intent| intent.is_void());
        !is_spoiled || mutant!("singleflight_ignores_writes")
    }

    /// Ends a load; returns what it kept, if no follower wants it, and what is to be dropped and
    /// woken when the lock is free.
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

    /// The same for a load that has failed, and says how.
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

    /// Ends a load that has brought nothing.
    pub fn let_go(&self, state: &mut ShardState<K, T>, slot: usize) {
        // What it has read is no matter any more, so that others may join the flight again.
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

    /// Returns the first flight of a hash that may be joined, but for some.
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

    /// Returns how the load of a flight has failed, if it has.
    pub fn failure(&mut self, slot: usize) -> Option<Shared<Failure<K>>> {
        self.flights.get_mut(slot).failure.clone()
    }

    /// Returns the flight of a slot, if it is still that one.
    pub fn known(&mut self, slot: usize, id: u64) -> Option<&mut Flight<K, T>> {
        let flight = self.flights.get_mut(slot);
        (flight.id == id).then_some(flight)
    }

    /// Returns whether a flight may still be joined.
    pub fn is_joinable(&mut self, slot: usize) -> bool {
        self.flights.get_mut(slot).is_indexed
    }

    /// Takes the key out that others would compare; returns it with whether the load is invalid, or
    /// `None` while a comparison is under way. `eventcount` is called when the last one is over.
    pub fn take_key(&mut self, slot: usize, waker: &Waker) -> Option<(Option<Shared<K>>, bool)> {
        let flight = self.flights.get_mut(slot);
        flight.is_completing = true;
        if flight.comparing > 0 {
            // A waker of this module's, see `ThreadWaker`.
            flight.waits_for_key = Some(waker.clone());
            return None;
        }
        let is_committed = flight.intents.iter().any(|intent| intent.is_committed());
        Some((flight.key.take(), flight.is_invalid || is_committed))
    }

    /// Returns the key of a flight to compare with, unless the leader completes it.
    pub fn begin_comparison(&mut self, slot: usize) -> Option<Shared<K>> {
        let flight = self.flights.get_mut(slot);
        let key = flight.key.as_ref().filter(|_| !flight.is_completing)?;
        flight.comparing += 1;
        Some(Shared::clone(key))
    }

    /// Ends a comparison; returns what is to be woken, and dropped, when the lock is free.
    pub fn end_comparison(&mut self, slot: usize) -> Option<Waker> {
        let flight = self.flights.get_mut(slot);
        flight.comparing -= 1;
        if flight.comparing == 0 { flight.waits_for_key.take() } else { None }
    }

    /// Takes a follower out of a flight that is over; returns what `see` makes of what it has kept,
    /// and that itself with the last follower.
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

    /// Returns what the flight has published.
    pub fn published(&mut self, slot: usize) -> Option<usize> {
        self.flights.get_mut(slot).outcome.published()
    }

    /// Sees that a vacant flight is taken over; returns whom to wake, or what is to be dropped when
    /// the lock is free.
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

    /// Removes a flight that is over and that nothing refers to any more.
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

    /// Returns all that flights keep, for the drop of them all.
    pub fn take_all_unpublished(&mut self) -> Vec<T> {
        self.flights.values_mut().filter_map(|flight| flight.outcome.take_unpublished()).collect()
    }

    /// Tells the loads of a hash of a write; returns whether there are
    /// any.
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
                // Writes that have ended go before memory grows. Each is asked once: it may end in
                // between.
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

    /// A flight that has no leader has read nothing.
    fn invalidate_slot(&mut self, slot: usize) {
        let flight = self.flights.get_mut(slot);
        if flight.state == State::Led {
            flight.is_invalid = true;
            flight.intents.clear();
            // Those who ask from now on begin a load of their own.
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

/// Flights whose place in the index is kept when there is none.
const SPARE: usize = 28;
