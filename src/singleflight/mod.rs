//! Flights: one load of a key at a time, for threads and tasks alike.
//!
//! # Protocol
//!
//! The first caller that asks for a key which is not loaded *leads* a flight; those that ask later
//! *follow*. A flight is `Led` until its leader completes it or lets go:
//!
//! | move | who | what follows |
//! |---|---|---|
//! | → `Led` | the first to join | |
//! | `Led` → `Completed` | the leader, when the value is where others find it, or with an error for all of them | all followers are woken |
//! | `Led` → `Vacant` | a leader that is dropped | one follower is woken |
//! | `Vacant` → `Led` | the first follower that looks, or the next to join | |
//! | `Vacant` → gone | the last follower that is dropped | |
//! | `Completed` → gone | the last follower that has seen to the outcome, or is dropped | |
//!
//! A follower that was woken and is dropped before it looked wakes another one, so that a flight is
//! never vacant while all its followers sleep. Everything is decided under the lock of a [`Shard`],
//! in a time that does not depend on how many flights and followers there are. Reads never come
//! here.
//!
//! No user's code runs under that lock. Wakers are cloned, called and dropped outside of it, and so
//! are keys compared and dropped: who joins counts itself as comparing, compares, and looks once
//! more whether the flight may still be joined. A leader that completes takes the key, and for that
//! waits until no comparison is under way. A comparison that joins a flight in turn leaves out the
//! flight that it compares with.
//!
//! # Invalidation
//!
//! **A write that completes while a load of its key runs invalidates that load, and nothing else
//! does.** A load runs from when its leader joins until it completes. Writes are an insert or a
//! replacement; a removal of what is there, and `remove` and `clear` whether anything is there or
//! not; `compute` that puts or removes; and an insert that is rejected after it has removed the
//! older entry, or would have. A conditional write that leaves the cache as it is (`remove_if` that
//! removes nothing, `insert_if_absent` of a key that is there) is none, nor is what the cache does
//! by itself: expiration, eviction, and the entry that a load brings. Keys are told apart by their
//! hash here: a write also invalidates the load of a key that has the same 64 bits.
//!
//! An invalid load is joined by no other caller; its leader and those who follow already get what
//! it brings, for they asked before it was over; it is not published, or is taken back before the
//! flight ends.
//!
//! A writer pins itself, [announces](Flights::begin_write) the write, changes the table, and
//! [commits](Write::commit) if it has changed anything. Of a load that began before the
//! announcement there are three cases:
//!
//! * It has ended by then, and the writer finds in the table what it has published.
//! * It ends after the commit, and is invalid.
//! * It ends between the two. Then it leaves the id of what it has published in the writer's
//!   [`Intent`](write::Intent), and the writer takes that entry back if it commits, and no other
//!   entry: both are pinned, so the id is not used again.
//!
//! A load that began after the announcement has read what was written before it. If it still runs,
//! the commit invalidates it, too.
//!
//! No writer waits: one that finds the shard's lock taken leaves a [note](shard) on a stack, which
//! each holder of the lock reads before it decides anything: also before it begins a load, so that
//! a pending write invalidates no load that is asked for after the write.
//!
//! # Outcome
//!
//! What a load brings and the table has not (it was rejected, or the load is invalid) is kept by
//! the flight until each of those who followed it has seen it; the last one retires it. A follower
//! pins itself before it takes its share, and the entry is retired after the last share was taken,
//! so no grace period that ends before a follower's pin frees it.
//!
//! # Orderings
//!
//! Fences, all SeqCst, make each of two threads see what the other did before its own fence, or the
//! other way round:
//!
//! * `Shard::lead` and `Shard::is_running`: a load and a write. The load counts itself as running,
//!   and then reads; the writer writes, and then looks for loads that run.
//! * `Shard::announce` and `Leader::complete`: a pending write and what is published. The writer defers the
//!   write, and then looks into the table; the load publishes, and then applies the pending writes.
//!
//! Without loads a write pays two loads of [`is_used`](Flights::is_used) for all that. Once there
//! was a load it pays the two fences, and it writes nothing that others share unless loads run in
//! its shard.

mod arena;
mod entered;
mod shard;
mod share;
mod thread_waker;
mod write;

use std::{
    cell::RefCell,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use self::{
    entered::Running,
    shard::{Shard, State},
    thread_waker::ThreadWaker,
};
pub use self::{
    shard::{Failure, Outcome, SharedError},
    write::Write,
};
use crate::{
    sync::{
        atomic::{AtomicBool, Ordering, fence},
        thread_local, thread_number,
    },
    util::{CachePadded, for_all},
};

/// The loads that are under way, of keys `K`; what they keep for their followers is a `T`.
pub struct Flights<K, T> {
    shards: Box<[CachePadded<Shard<K, T>>]>,
    /// Whether there ever was one.
    is_used: AtomicBool,
}

/// Who asks for a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Caller {
    /// A thread, which would wait for itself if it asked for a key whose load it leads.
    Thread,
    /// A task, which holds up no thread while it waits.
    Task,
}

/// What became of a caller that asked for a key.
pub enum Joined<'a, K, T> {
    /// It is the leader, and loads.
    Lead(Leader<'a, K, T>),
    /// Another one does.
    Follow(K, Follower<'a, K, T>),
    /// The load of this key asks for it itself.
    Own(K),
}

/// What a follower has waited for.
pub enum WaitOutcome<'a, K, T> {
    /// The flight is over: look for the value, and see to the outcome.
    Completed,
    /// The leader has let go: the follower loads.
    Lead(Leader<'a, K, T>),
    /// Time is over.
    TimedOut,
}

/// The right and the duty to load a key.
pub struct Leader<'a, K, T> {
    flights: &'a Flights<K, T>,
    hash: u64,
    slot: usize,
    id: u64,
    /// There until it completes.
    key: Option<Arc<K>>,
}

/// A caller that waits for a flight, and sees to its outcome.
pub struct Follower<'a, K, T> {
    flights: &'a Flights<K, T>,
    hash: u64,
    slot: usize,
    id: u64,
    /// Its slot among the followers; `None` when it is none any more.
    place: Option<usize>,
    is_waiting: bool,
    caller: Caller,
}

/// Says that this thread runs the load of a flight; not for longer than it lives.
pub struct Entered {
    flight: Name,
}

/// Tells flights apart; holds for as long as the flight is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Name {
    flights: usize,
    hash: u64,
    slot: usize,
    id: u64,
}

impl Name {
    /// Returns what tells the flights of one hash from others.
    fn key(self) -> (usize, u64) {
        (self.flights, self.hash)
    }
}

impl<K, T> Flights<K, T> {
    /// Makes one without any.
    pub fn new() -> Self {
        let shards = (0..SHARDS).map(|_| CachePadded::new(Shard::new())).collect();
        Self { shards, is_used: AtomicBool::new(false) }
    }

    /// Returns how many flights there are.
    pub fn count(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().flights.len()).sum()
    }

    /// Announces a write of a key, to be called pinned and before the table is looked at; see the
    /// [module](self). The loads of the key that run become invalid when the write is committed.
    #[inline]
    pub fn begin_write(&self, hash: u64) -> Write<'_, K, T> {
        Write::new(self, hash)
    }

    /// Invalidates all loads that run: for a write of all keys, before the table is looked at and
    /// after.
    pub fn invalidate_all(&self) {
        if self.is_used() {
            self.shards.iter().for_each(|shard| shard.invalidate(None));
        }
    }

    /// Returns all that flights keep for followers that were forgotten.
    pub fn take_all_unpublished(&mut self) -> Vec<T> {
        self.shards.iter().flat_map(|shard| shard.lock().take_all_unpublished()).collect()
    }

    #[inline]
    fn is_used(&self) -> bool {
        // Relaxed: set once. A write that misses the very first load of a cache, which a machine of
        // weak order allows, is taken to have come before it.
        self.is_used.load(Ordering::Relaxed)
    }

    fn shard(&self, hash: u64) -> &Shard<K, T> {
        &self.shards[hash as usize % self.shards.len()]
    }

    fn name(&self, hash: u64, slot: usize, id: u64) -> Name {
        Name { flights: std::ptr::from_ref(self).addr(), hash, slot, id }
    }
}

impl<K: Eq, T> Flights<K, T> {
    /// Joins the flight of a key, or begins one.
    pub fn join(&self, hash: u64, key: K, caller: Caller) -> Joined<'_, K, T> {
        // Relaxed, twice: see `is_used`.
        if !self.is_used.load(Ordering::Relaxed) {
            self.is_used.store(true, Ordering::Relaxed);
        }
        if self.is_own(hash, &key) {
            return Joined::Own(key);
        }
        let shard = self.shard(hash);
        let owner = caller.owner();
        // A comparison that asks for a key would wait for itself.
        let mut others = self.compared_here(hash);
        loop {
            let mut state = shard.lock();
            let Some(slot) = state.find(hash, |id| others.contains(&id)) else {
                let key = Arc::new(key);
                let (slot, id) = state.add(hash, Arc::clone(&key));
                shard.lead(&mut state, slot, owner);
                return Joined::Lead(Leader { flights: self, hash, slot, id, key: Some(key) });
            };
            let id = state.flights.get_mut(slot).id;
            // One that completes has no key to compare: it is followed for the moment that this
            // takes.
            let their = state.begin_comparison(slot);
            let mut end = None;
            if let Some(their) = their {
                drop(state);
                let comparison = Comparison { shard, flight: self.name(hash, slot, id), their };
                let (is_same, ended) = comparison.compare(&key);
                (state, end) = ended;
                if !is_same || !state.is_joinable(slot) {
                    let gone = state.release(slot);
                    drop(state);
                    wake_all(end);
                    drop(gone);
                    if !is_same {
                        others.push(id);
                    }
                    continue;
                }
            }
            let flight = state.flights.get_mut(slot);
            if flight.state == State::Vacant {
                let their = flight.key.clone();
                shard.lead(&mut state, slot, owner);
                return Joined::Lead(Leader { flights: self, hash, slot, id, key: their });
            }
            let is_own = owner != 0 && flight.owner == owner;
            let place = (!is_own).then(|| flight.waiters.join());
            drop(state);
            wake_all(end);
            if is_own {
                return Joined::Own(key);
            }
            let follower =
                Follower { flights: self, hash, slot, id, place, is_waiting: false, caller };
            return Joined::Follow(key, follower);
        }
    }

    /// Returns whether this thread runs the load of this key, invalid or not.
    fn is_own(&self, hash: u64, key: &K) -> bool {
        let here = self.name(hash, 0, 0).key();
        // A thread that ends may load in a destructor, when the list is gone: then nothing is
        // detected.
        let mine = ENTERED.try_with(|entered| entered.borrow().of(here)).unwrap_or_default();
        mine.into_iter().any(|flight| {
            let shard = self.shard(hash);
            let mut state = shard.lock();
            let their = match state.known(flight.slot, flight.id) {
                None => return false,
                // It completes, on this thread.
                Some(known) if known.key.is_none() => return true,
                Some(_) => state.begin_comparison(flight.slot),
            };
            drop(state);
            let Some(their) = their else { return true };
            let (is_same, (mut state, end)) = Comparison { shard, flight, their }.compare(key);
            let gone = state.release(flight.slot);
            drop(state);
            wake_all(end);
            drop(gone);
            is_same
        })
    }

    /// Returns the flights of a hash whose keys this thread compares.
    fn compared_here(&self, hash: u64) -> Vec<u64> {
        let here = self.name(hash, 0, 0).key();
        let is_here = |flight: &&Name| flight.key() == here;
        let ids = |compared: &RefCell<Vec<Name>>| {
            compared.borrow().iter().filter(is_here).map(|flight| flight.id).collect()
        };
        COMPARED.try_with(ids).unwrap_or_default()
    }
}

impl Caller {
    /// Returns the number of the thread that would wait for itself, or 0.
    fn owner(self) -> usize {
        match self {
            Self::Thread => thread_number(),
            Self::Task => 0,
        }
    }
}

/// Ends the flight even if something panics.
struct Completing<'a, K, T> {
    shard: &'a Shard<K, T>,
    slot: usize,
    is_done: bool,
}

impl<K, T> Completing<'_, K, T> {
    fn end(&mut self, outcome: Outcome<T>) -> Option<T> {
        self.is_done = true;
        let mut state = self.shard.lock();
        let (unpublished, waiters, gone) = self.shard.complete(&mut state, self.slot, outcome);
        drop(state);
        wake_all(waiters);
        drop(gone);
        unpublished
    }
}

impl<K, T> Drop for Completing<'_, K, T> {
    fn drop(&mut self) {
        if !self.is_done {
            self.end(Outcome::Nothing);
        }
    }
}

/// A comparison with the key of a flight, which the flight waits for.
struct Comparison<'a, K, T> {
    shard: &'a Shard<K, T>,
    flight: Name,
    their: Arc<K>,
}

type Locked<'a, K, T> = crate::sync::MutexGuard<'a, shard::ShardState<K, T>>;

impl<'a, K: Eq, T> Comparison<'a, K, T> {
    /// Compares; returns the result, the lock, and whom to wake when that is released.
    fn compare(self, key: &K) -> (bool, (Locked<'a, K, T>, Option<Waker>)) {
        /// Ends the comparison if it panics.
        struct Comparing<'a, K, T>(Option<Comparison<'a, K, T>>);
        impl<'a, K, T> Comparing<'a, K, T> {
            fn end(&mut self) -> Option<(Locked<'a, K, T>, Option<Waker>)> {
                let Comparison { shard, flight, their } = self.0.take()?;
                let _ = COMPARED.try_with(|compared| remove_from(compared, flight));
                // Before the leader may take the key: it wants to be the only owner.
                drop(their);
                let mut state = shard.lock();
                let end = state.end_comparison(flight.slot);
                Some((state, end))
            }
        }
        impl<K, T> Drop for Comparing<'_, K, T> {
            fn drop(&mut self) {
                let slot = self.0.as_ref().map(|comparison| comparison.flight.slot);
                if let Some(((mut state, end), slot)) = self.end().zip(slot) {
                    let gone = state.release(slot);
                    drop(state);
                    wake_all(end);
                    drop(gone);
                }
            }
        }
        let _ = COMPARED.try_with(|compared| compared.borrow_mut().push(self.flight));
        let mut comparing = Comparing(Some(self));
        let is_same = comparing.0.as_ref().is_some_and(|comparison| *comparison.their == *key);
        let ended = comparing.end().expect("it is ended once");
        (is_same, ended)
    }
}

impl<'a, K, T> Leader<'a, K, T> {
    /// Says that this thread runs the load, so that a load which asks for its own key is told so.
    pub fn enter(&self) -> Entered {
        let flight = self.flights.name(self.hash, self.slot, self.id);
        // A thread that ends may load in a destructor, when the list is gone: then nothing is
        // detected.
        let _ = ENTERED.try_with(|entered| entered.borrow_mut().add(flight));
        Entered { flight }
    }

    fn shard(&self) -> &'a Shard<K, T> {
        self.flights.shard(self.hash)
    }

    /// Returns the key.
    pub fn key(&self) -> &K {
        self.key.as_deref().expect("a leader has the key until it completes")
    }

    /// Returns whether no write of the key that was announced since the flight began has happened,
    /// or still may; see [`change`](Self::change).
    pub fn is_unwritten(&self) -> bool {
        self.shard().is_unwritten(&mut self.shard().lock(), self.slot)
    }

    /// Forgets which thread leads: another one may do so while this one waits.
    pub fn detach(&self) {
        self.shard().lock().flights.get_mut(self.slot).owner = 0;
    }

    /// Ends the flight: `publish` puts the value where the followers find it, or, if it is told
    /// that the load is invalid, keeps it for them; and then they are woken. If what it has
    /// published is invalid by then, `take_back` comes before that, and returns what is to be kept.
    ///
    /// Returns what is kept if there is no follower: the caller retires it.
    ///
    /// `publish` is part of the load: if what it calls asks for the key, it is told so.
    pub fn complete<R>(
        mut self,
        publish: impl FnOnce(K, bool) -> (R, Outcome<T>),
        take_back: impl FnOnce(&R) -> Option<T>,
    ) -> (R, Option<T>) {
        let (shard, slot) = (self.shard(), self.slot);
        let (key, is_invalid) = self.take_key();
        let mut completing = Completing { shard, slot, is_done: false };
        if mutant!("singleflight_woken_first") {
            completing.end(Outcome::Nothing);
            return (publish(key, false).0, None);
        }
        let entered = self.enter();
        let (result, mut outcome) = publish(key, is_invalid);
        drop(entered);
        if let Some(id) = outcome.published()
            && !mutant!("singleflight_looks_once")
        {
            // SeqCst: pairs with the fence in `Shard::announce`. Either this finds the pending write of a
            // write, or the write finds what was published.
            fence(Ordering::SeqCst);
            let was_written = shard.was_written(&mut shard.lock(), slot, id);
            if was_written {
                outcome = take_back(&result).map_or(Outcome::Nothing, Outcome::Unpublished);
            }
        }
        let unpublished = completing.end(outcome);
        (result, unpublished)
    }

    /// Ends a flight that has computed a change of its key's entry: `change` carries it out, and may
    /// ask whether the key was untouched since the flight began.
    ///
    /// It asks while it is pinned. If the answer is yes, no other entry of the key has been published
    /// since the flight began: a write announces itself before, and one that has given up has
    /// published none. So an id that was seen since then
    /// names the same entry, or none, for as long as the pin lasts. What is published then is not
    /// taken back: the id decides which of two changes comes first.
    pub fn change<R>(mut self, change: impl FnOnce(K, &dyn Fn() -> bool) -> R) -> R {
        let (shard, slot) = (self.shard(), self.slot);
        let (key, _) = self.take_key();
        let mut completing = Completing { shard, slot, is_done: false };
        let entered = self.enter();
        let result = change(key, &|| shard.is_unwritten(&mut shard.lock(), slot));
        drop(entered);
        completing.end(Outcome::Nothing);
        result
    }

    /// Ends the flight without a value: all who follow it are told the error.
    pub fn fail(mut self, error: SharedError) {
        let (shard, slot) = (self.shard(), self.slot);
        let (key, _) = self.take_key();
        let failure = Arc::new(Failure { key, error });
        let failure = if mutant!("singleflight_fails_silently") { None } else { Some(failure) };
        let (waiters, gone) = shard.fail(&mut shard.lock(), slot, failure);
        wake_all(waiters);
        drop(gone);
    }

    /// Takes the key out of the flight; returns it with whether the load is invalid.
    fn take_key(&mut self) -> (K, bool) {
        let name = self.flights.name(self.hash, self.slot, self.id);
        let is_compared = |compared: &RefCell<Vec<Name>>| compared.borrow().contains(&name);
        assert!(
            !COMPARED.try_with(is_compared).unwrap_or(false),
            "a comparison with the key of a load has ended that load"
        );
        let signal = ThreadWaker::new();
        let waker = Waker::from(Arc::clone(&signal));
        let (their, is_invalid) = loop {
            let taken = self.shard().lock().take_key(self.slot, &waker);
            match taken {
                Some(taken) => break taken,
                // Others compare their keys with it, which takes as long as the user's `Eq` does.
                None => signal.wait(),
            }
        };
        drop(their);
        let key = self.key.take().and_then(Arc::into_inner);
        (key.expect("no other thread compares the key"), is_invalid)
    }
}

impl<K, T> Drop for Leader<'_, K, T> {
    fn drop(&mut self) {
        // Before another one may lead, who will want to be the only owner. The flight has it, too.
        if self.key.take().is_none() {
            return; // It has completed.
        }
        let shard = self.shard();
        let mut state = shard.lock();
        shard.let_go(&mut state, self.slot);
        let (next, gone) = state.pass_on(self.slot);
        drop(state);
        if !mutant!("singleflight_wakes_no_follower") {
            wake_all(next);
        }
        drop(gone);
    }
}

impl<'a, K, T> Follower<'a, K, T> {
    /// Blocks this thread until the flight is over or is this follower's.
    pub fn wait(&mut self) -> WaitOutcome<'a, K, T> {
        let signal = ThreadWaker::new();
        let waker = Waker::from(Arc::clone(&signal));
        loop {
            match self.look(&waker) {
                Poll::Ready(waited) => return waited,
                Poll::Pending => signal.wait(),
            }
        }
    }

    /// The same until `end` at the latest.
    #[cfg(not(cortado_loom))]
    pub fn wait_until(&mut self, end: std::time::Instant) -> WaitOutcome<'a, K, T> {
        let signal = ThreadWaker::new();
        let waker = Waker::from(Arc::clone(&signal));
        loop {
            if let Poll::Ready(waited) = self.look(&waker) {
                return waited;
            }
            let left = end.saturating_duration_since(std::time::Instant::now());
            if left.is_zero() {
                return WaitOutcome::TimedOut;
            }
            signal.wait_timeout(left);
        }
    }

    fn look(&mut self, waker: &Waker) -> Poll<WaitOutcome<'a, K, T>> {
        let Self { flights, hash, slot, id, caller, .. } = *self;
        let Some(place) = self.place else { return Poll::Ready(WaitOutcome::Completed) };
        let shard = flights.shard(hash);
        let owner = caller.owner();
        // Cloned before the lock is acquired, and dropped after it is released: it may be any caller's
        // code.
        let mut mine = (!self.is_waiting).then(|| waker.clone());
        loop {
            let mut state = shard.lock();
            let flight = state.flights.get_mut(slot);
            match flight.state {
                State::Completed => return Poll::Ready(WaitOutcome::Completed),
                State::Vacant => {
                    // It may have come before the one that was woken. Its waker, were it left,
                    // would be called in place of another's if it lets go in turn.
                    let waiting = flight.waiters.leave(place);
                    let key = flight.key.clone();
                    shard.lead(&mut state, slot, owner);
                    drop(state);
                    drop(waiting);
                    self.place = None;
                    return Poll::Ready(WaitOutcome::Lead(Leader { flights, hash, slot, id, key }));
                }
                State::Led if flight.waiters.is_waiting(place, waker) => return Poll::Pending,
                State::Led => {}
            }
            if let Some(mine) = mine.take() {
                let old = flight.waiters.wait(place, mine);
                drop(state);
                drop(old);
                self.is_waiting = true;
                return Poll::Pending;
            }
            drop(state);
            mine = Some(waker.clone());
        }
    }

    /// Sees to the outcome of a flight that is over: returns what `see` makes of what it has kept,
    /// and that itself if this is the last follower, who retires it. `see` runs under the shard's
    /// lock.
    pub fn take<R>(&mut self, see: impl FnOnce(&T) -> R) -> (Option<R>, Option<T>) {
        if self.place.take().is_none() {
            return (None, None);
        }
        let mut state = self.flights.shard(self.hash).lock();
        let (seen, unpublished, gone) = state.take_share(self.slot, see);
        drop(state);
        drop(gone);
        (seen, unpublished)
    }

    /// Returns the id of the entry that the flight has published, if it is over.
    pub fn published(&self) -> Option<usize> {
        self.place?;
        self.flights.shard(self.hash).lock().published(self.slot)
    }

    /// Returns how the load has failed, if it is over and has.
    pub fn failure(&self) -> Option<Arc<Failure<K>>> {
        self.place?;
        self.flights.shard(self.hash).lock().failure(self.slot)
    }

    /// Stops to follow; returns what is to be retired, if this was the last one to leave a flight
    /// that is over.
    pub fn leave(&mut self) -> Option<T> {
        let place = self.place?;
        let shard = self.flights.shard(self.hash);
        let mut state = shard.lock();
        let flight = state.flights.get_mut(self.slot);
        if flight.state == State::Completed {
            drop(state);
            return self.take(|_| ()).1;
        }
        self.place = None;
        let mine = flight.waiters.leave(place);
        let (next, gone) = if mutant!("singleflight_offer_lost") {
            (None, None)
        } else {
            state.pass_on(self.slot)
        };
        drop(state);
        wake_all(next);
        drop((mine, gone));
        None
    }
}

impl<'a, K, T> Future for Follower<'a, K, T> {
    type Output = WaitOutcome<'a, K, T>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        self.look(context.waker())
    }
}

impl<K, T> Drop for Follower<'_, K, T> {
    fn drop(&mut self) {
        // The owner of followers that may be the last has called this before.
        drop(self.leave());
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        let _ = ENTERED.try_with(|entered| entered.borrow_mut().remove(self.flight));
    }
}

/// Wakes all, even if some waker panics: the others would sleep for ever.
fn wake_all(waiting: impl IntoIterator<Item = Waker>) {
    for_all(waiting, Waker::wake);
}

/// Returns whether this thread runs the load of some flight.
pub fn is_loading() -> bool {
    ENTERED.try_with(|entered| !entered.borrow().is_empty()).unwrap_or(false)
}

/// Removes the flight that was added last.
fn remove_from(names: &RefCell<Vec<Name>>, flight: Name) {
    let mut names = names.borrow_mut();
    if let Some(index) = names.iter().rposition(|other| *other == flight) {
        names.remove(index);
    }
}

thread_local! {
    /// The flights whose loads this thread runs.
    static ENTERED: RefCell<Running> = const { RefCell::new(Running::new()) };
}

thread_local! {
    /// The flights whose keys this thread compares, one within the other.
    static COMPARED: RefCell<Vec<Name>> = const { RefCell::new(Vec::new()) };
}

impl<K, T> Default for Flights<K, T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<K, T> std::fmt::Debug for Flights<K, T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Flights").field("count", &self.count()).finish()
    }
}

impl<K, T> std::fmt::Debug for Leader<'_, K, T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Leader").field("flight", &self.id).finish_non_exhaustive()
    }
}

impl<K, T> std::fmt::Debug for Follower<'_, K, T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Follower").field("flight", &self.id).finish_non_exhaustive()
    }
}

/// Loads are few, and hold the lock for a moment.
const SHARDS: usize = if crate::sync::IS_MODEL { 1 } else { 16 };

#[cfg(all(test, not(any(cortado_loom, cortado_shuttle))))]
mod tests {
    use std::{
        cell::Cell,
        panic::{AssertUnwindSafe, catch_unwind},
        sync::{Arc, atomic::AtomicUsize, atomic::Ordering::SeqCst},
        task::Wake,
        time::{Duration, Instant},
    };

    use super::{arena::steps, *};

    /// What is kept is a number.
    type Flights<K> = super::Flights<K, u64>;
    type Leader<'a, K> = super::Leader<'a, K, u64>;
    type Follower<'a, K> = super::Follower<'a, K, u64>;

    fn lead<K: Eq>(flights: &Flights<K>, hash: u64, key: K) -> Leader<'_, K> {
        match flights.join(hash, key, Caller::Task) {
            Joined::Lead(leader) => leader,
            _ => panic!("it is led already"),
        }
    }

    fn follow<K: Eq>(flights: &Flights<K>, hash: u64, key: K) -> Follower<'_, K> {
        match flights.join(hash, key, Caller::Task) {
            Joined::Follow(_, follower) => follower,
            _ => panic!("it is not led"),
        }
    }

    /// Completes a load that publishes something at an id; returns whether it was invalid, at
    /// first or when it had published.
    fn complete<K>(leader: Leader<'_, K>) -> bool {
        let mut was_taken_back = false;
        let publish = |_, is_invalid| {
            (is_invalid, if is_invalid { Outcome::Nothing } else { Outcome::Published(64) })
        };
        let (is_invalid, unpublished) = leader.complete(publish, |_| {
            was_taken_back = true;
            None
        });
        assert_eq!(unpublished, None);
        is_invalid || was_taken_back
    }

    fn write<K>(flights: &Flights<K>, hash: u64) {
        assert_eq!(flights.begin_write(hash).commit(), None);
    }

    /// Counts how often it was woken.
    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, SeqCst);
        }
    }

    fn poll<'a, K>(
        follower: &mut Follower<'a, K>,
        count: &Arc<Count>,
    ) -> Poll<WaitOutcome<'a, K, u64>> {
        let waker = Waker::from(Arc::clone(count));
        Pin::new(follower).poll(&mut Context::from_waker(&waker))
    }

    #[test]
    fn followers_are_woken_when_the_flight_has_landed() {
        let flights = Flights::new();
        let leader = lead(&flights, 1, "k");
        let counts = [(); 3].map(|()| Arc::<Count>::default());
        let mut followers = [(); 3].map(|()| follow(&flights, 1, "k"));
        for (follower, count) in followers.iter_mut().zip(&counts) {
            assert!(poll(follower, count).is_pending() && poll(follower, count).is_pending());
        }
        let publish = |key, is_invalid: bool| {
            assert!(!is_invalid && counts.iter().all(|count| count.0.load(SeqCst) == 0));
            (key, Outcome::Published(64))
        };
        let (key, unpublished) = leader.complete(publish, |_| unreachable!("nothing was written"));
        assert_eq!((key, unpublished), ("k", None));
        assert_eq!(followers[0].published(), Some(64));
        for (mut follower, count) in followers.into_iter().zip(&counts) {
            assert_eq!(count.0.load(SeqCst), 1);
            assert!(matches!(poll(&mut follower, count), Poll::Ready(WaitOutcome::Completed)));
        }
        assert_eq!(flights.count(), 0);
        drop(lead(&flights, 1, "k"));
        assert_eq!(flights.count(), 0);
    }

    #[test]
    fn one_follower_takes_over_from_a_leader_that_let_go() {
        let flights = Flights::new();
        let leader = lead(&flights, 1, "k");
        let counts = [(); 3].map(|()| Arc::<Count>::default());
        let mut followers = [(); 3].map(|()| follow(&flights, 1, "k"));
        for (follower, count) in followers.iter_mut().zip(&counts) {
            assert!(poll(follower, count).is_pending());
        }
        drop(leader);
        assert_eq!(counts.each_ref().map(|count| count.0.load(SeqCst)), [1, 0, 0]);
        let [mut first, mut second, third] = followers;
        let Poll::Ready(WaitOutcome::Lead(leader)) = poll(&mut first, &counts[0]) else {
            panic!("the woken one leads");
        };
        assert!(poll(&mut second, &counts[1]).is_pending());
        drop(third);
        complete(leader);
        assert_eq!(counts.each_ref().map(|count| count.0.load(SeqCst)), [1, 1, 0]);
        drop((first, second));
        assert_eq!(flights.count(), 0);
    }

    #[test]
    fn who_is_dropped_before_it_took_over_wakes_the_next() {
        let flights = Flights::new();
        let leader = lead(&flights, 1, "k");
        let counts = [(); 3].map(|()| Arc::<Count>::default());
        let mut followers = Vec::from([(); 3].map(|()| follow(&flights, 1, "k")));
        for (follower, count) in followers.iter_mut().zip(&counts) {
            assert!(poll(follower, count).is_pending());
        }
        drop(leader);
        drop(followers.remove(0));
        assert_eq!(counts.each_ref().map(|count| count.0.load(SeqCst)), [1, 1, 0]);
        drop(followers.remove(0));
        assert_eq!(counts.each_ref().map(|count| count.0.load(SeqCst)), [1, 1, 1]);
        assert_eq!(flights.count(), 1);
        drop(followers);
        assert_eq!(flights.count(), 0);
    }

    #[test]
    fn a_load_is_entered_in_its_own_flight_only() {
        let (flights, others) = (Flights::new(), Flights::new());
        let leader = lead(&flights, 1, 1);
        assert!(!is_loading());
        let entered = leader.enter();
        assert!(is_loading());
        assert!(matches!(flights.join(1, 1, Caller::Task), Joined::Own(1)));
        // Another cache's, one behind another shard, and one behind the same.
        let far = lead(&others, 1, 1);
        let (apart, beside) = (lead(&flights, 2, 2), lead(&flights, 1 + SHARDS as u64, 17));
        drop(follow(&others, 1, 1));
        drop((follow(&flights, 2, 2), follow(&flights, 1 + SHARDS as u64, 17)));
        drop(entered);
        assert!(!is_loading());
        drop(follow(&flights, 1, 1));
        drop((leader, far, apart, beside));
    }

    #[test]
    fn write_invalidates_no_load_of_another_key_in_the_same_shard() {
        let flights = Flights::new();
        let leaders = [1, 1 + SHARDS as u64].map(|hash| lead(&flights, hash, hash));
        write(&flights, 1);
        assert_eq!(leaders.map(complete), [true, false]);
    }

    #[test]
    fn the_last_waker_of_a_follower_is_woken() {
        let flights = Flights::new();
        let leader = lead(&flights, 1, "k");
        let mut follower = follow(&flights, 1, "k");
        let counts = [(); 2].map(|()| Arc::<Count>::default());
        for count in &counts {
            assert!(poll(&mut follower, count).is_pending());
        }
        complete(leader);
        assert_eq!(counts.map(|count| count.0.load(SeqCst)), [0, 1]);
    }

    #[test]
    fn vacant_flight_is_the_next_boarders() {
        let flights = Flights::new();
        let leader = lead(&flights, 1, "k");
        let mut follower = follow(&flights, 1, "k");
        let count = Arc::<Count>::default();
        drop(leader);
        let leader = lead(&flights, 1, "k");
        assert!(poll(&mut follower, &count).is_pending());
        drop(leader);
        assert!(matches!(poll(&mut follower, &count), Poll::Ready(WaitOutcome::Lead(_))));
    }

    #[test]
    fn load_that_asks_for_its_own_key_is_detected() {
        let flights = Flights::new();
        let outer = lead(&flights, 1, "k");
        let panicked = catch_unwind(AssertUnwindSafe(|| {
            let _entered = outer.enter();
            assert!(matches!(flights.join(1, "k", Caller::Task), Joined::Own("k")));
            let inner = lead(&flights, 2, "other");
            let _entered = inner.enter();
            assert!(matches!(flights.join(1, "k", Caller::Task), Joined::Own("k")));
            assert!(matches!(flights.join(2, "other", Caller::Task), Joined::Own("other")));
            assert!(
                matches!(Flights::new().join(1, "k", Caller::Task), Joined::Lead(_)),
                "another cache"
            );
            panic!("loader");
        }));
        assert!(panicked.is_err());
        assert!(matches!(flights.join(1, "k", Caller::Task), Joined::Follow(..)), "not any more");
        drop(lead(&flights, 2, "other"));
    }

    #[test]
    fn keys_of_one_hash_fly_apart() {
        let flights = Flights::new();
        let (one, two) = (lead(&flights, 1, 1), lead(&flights, 1, 2));
        let mut follower = follow(&flights, 1, 2);
        assert!(matches!((one.key(), two.key()), (1, 2)));
        complete(two);
        assert!(matches!(follower.wait(), WaitOutcome::Completed));
        drop(follower);
        assert_eq!(flights.count(), 1);
        complete(one);
    }

    #[test]
    fn panic_while_completing_wakes_the_followers() {
        let flights = Flights::new();
        let leader = lead(&flights, 1, "k");
        let mut follower = follow(&flights, 1, "k");
        let completed = catch_unwind(AssertUnwindSafe(|| {
            leader.complete::<()>(|_, _| panic!("cost"), |()| None)
        }));
        assert!(completed.is_err());
        assert!(matches!(follower.wait(), WaitOutcome::Completed));
        assert_eq!(follower.take(|_| ()), (None, None));
        assert_eq!(flights.count(), 0);
    }

    #[test]
    fn follower_that_polled_first_leaves_no_waker() {
        let flights = Flights::new();
        let leader = lead(&flights, 1, "k");
        let counts = [(); 3].map(|()| Arc::<Count>::default());
        let mut followers = [(); 3].map(|()| follow(&flights, 1, "k"));
        for (follower, count) in followers.iter_mut().zip(&counts) {
            assert!(poll(follower, count).is_pending());
        }
        drop(leader);
        // The first was woken, but the second is polled for a reason of its own.
        let Poll::Ready(WaitOutcome::Lead(leader)) = poll(&mut followers[1], &counts[1]) else {
            panic!("it was vacant");
        };
        assert!(poll(&mut followers[0], &counts[0]).is_pending());
        drop(leader);
        assert_eq!(counts.each_ref().map(|count| count.0.load(SeqCst)), [1, 0, 1]);
    }

    #[test]
    fn waker_that_panics_keeps_no_other_asleep() {
        struct Bad;
        impl Wake for Bad {
            fn wake(self: Arc<Self>) {
                panic!("waker");
            }
        }
        let flights = Flights::new();
        let leader = lead(&flights, 1, "k");
        let (mut bad, mut good) = (follow(&flights, 1, "k"), follow(&flights, 1, "k"));
        let (waker, count) = (Waker::from(Arc::new(Bad)), Arc::<Count>::default());
        assert!(Pin::new(&mut bad).poll(&mut Context::from_waker(&waker)).is_pending());
        assert!(poll(&mut good, &count).is_pending());
        assert!(catch_unwind(AssertUnwindSafe(|| complete(leader))).is_err());
        drop((bad, good));
        assert_eq!((count.0.load(SeqCst), flights.count()), (1, 0));
    }

    #[test]
    fn completion_that_asks_for_its_own_key_is_detected() {
        let flights = Flights::new();
        let publish = |key, _| {
            assert!(matches!(flights.join(1, key, Caller::Task), Joined::Own("k")));
            drop(lead(&flights, 2, "other"));
            ((), Outcome::Nothing)
        };
        lead(&flights, 1, "k").complete(publish, |()| None);
        drop(lead(&flights, 1, "k"));
    }

    #[test]
    fn invalid_load_is_not_published_and_joined_by_no_other_caller() {
        let flights = Flights::new();
        write(&flights, 1); // before there is any load
        let (leader, other) = (lead(&flights, 1, "k"), lead(&flights, 2, "other"));
        let (mut follower, count) = (follow(&flights, 1, "k"), Arc::<Count>::default());
        assert!(poll(&mut follower, &count).is_pending());
        write(&flights, 1);
        let newer = lead(&flights, 1, "k");
        let publish = |_, is_invalid| (is_invalid, Outcome::Nothing);
        assert!(leader.complete(publish, |_| unreachable!("it was told")).0);
        assert!(matches!(poll(&mut follower, &count), Poll::Ready(WaitOutcome::Completed)));
        assert!(!complete(newer));
        // While it is published.
        let mut is_back = false;
        let publish = |_, is_invalid| {
            flights.invalidate_all();
            (is_invalid, Outcome::Published(64))
        };
        let take_back = |_: &bool| {
            is_back = true;
            None
        };
        assert!(!other.complete(publish, take_back).0);
        drop(follower);
        assert!(is_back && flights.count() == 0);
    }

    #[test]
    fn write_that_does_not_happen_invalidates_nothing() {
        let flights = Flights::new();
        let leader = lead(&flights, 1, "k");
        for _ in 0..1000 {
            drop(flights.begin_write(1));
        }
        let under_way = flights.begin_write(1);
        drop(follow(&flights, 1, "k"));
        assert!(!complete(leader));
        assert_eq!(under_way.commit(), Some(64), "what the load has left to it");
        assert!(!complete(lead(&flights, 1, "k")));
    }

    #[test]
    fn flight_is_untouched_by_writes_that_do_not_happen() {
        let flights = Flights::new();
        let leader = lead(&flights, 1, "k");
        for _ in 0..10 {
            let write = flights.begin_write(1);
            assert!(!leader.is_unwritten(), "it may happen");
            drop(write);
            assert!(leader.is_unwritten());
        }
        write(&flights, 2);
        assert!(leader.is_unwritten());
        write(&flights, 1);
        assert!(!leader.is_unwritten());
        // The next one is.
        let next = lead(&flights, 1, "k");
        assert!(next.is_unwritten() && complete(leader) && !complete(next));
    }

    #[test]
    fn write_that_is_under_way_is_remembered_however_many_come_after() {
        let flights = Flights::new();
        // A load of another key of the same hash leaves its entry to the write.
        let (other, leader) = (lead(&flights, 1, "other"), lead(&flights, 1, "k"));
        let first = flights.begin_write(1);
        assert!(!complete(other));
        for _ in 0..10 {
            drop(flights.begin_write(1));
        }
        assert!(!leader.is_unwritten() && complete(leader));
        assert_eq!(first.commit(), Some(64));
    }

    #[test]
    fn write_that_is_committed_before_the_load_ends_is_no_matter_later() {
        let flights = Flights::new();
        let under_way = flights.begin_write(1);
        let leader = lead(&flights, 1, "k");
        assert_eq!(under_way.commit(), None);
        assert!(complete(leader), "it began before the write was over");
        // Many at once, of which some happen.
        let leader = lead(&flights, 1, "k");
        let mut writes: Vec<_> = (0..10).map(|_| flights.begin_write(1)).collect();
        assert_eq!(writes.remove(3).commit(), None);
        drop(writes);
        assert!(complete(leader));
    }

    #[test]
    fn write_that_panics_is_taken_to_have_happened() {
        let flights = Flights::new();
        let leader = lead(&flights, 1, "k");
        let panicked = catch_unwind(AssertUnwindSafe(|| {
            let _write = flights.begin_write(1);
            panic!("hash");
        }));
        assert!(panicked.is_err() && complete(leader));
    }

    #[test]
    fn invalid_load_that_is_taken_over_begins_again() {
        let flights = Flights::new();
        let leader = lead(&flights, 1, "k");
        let (mut follower, count) = (follow(&flights, 1, "k"), Arc::<Count>::default());
        assert!(poll(&mut follower, &count).is_pending());
        write(&flights, 1);
        let entered = leader.enter();
        assert!(matches!(flights.join(1, "k", Caller::Task), Joined::Own("k")));
        drop(entered);
        drop(leader);
        write(&flights, 1); // nothing has been read
        let Poll::Ready(WaitOutcome::Lead(leader)) = poll(&mut follower, &count) else {
            panic!("it is vacant");
        };
        drop(follow(&flights, 1, "k"));
        assert!(!complete(leader));
    }

    #[test]
    fn write_that_finds_the_lock_taken_is_deferred_for_its_own_load() {
        let flights = Flights::new();
        let [one, two, three] = [(1, "k"), (17, "l"), (33, "m")].map(|(h, k)| lead(&flights, h, k));
        let lock = flights.shard(1).lock();
        write(&flights, 1);
        let conditional = flights.begin_write(33);
        drop(flights.begin_write(17));
        drop(lock);
        assert_eq!([one, two].map(complete), [true, false]);
        assert!(!complete(three));
        assert_eq!(conditional.commit(), Some(64));
        // A load that begins later is none of those that the note is for.
        let old = lead(&flights, 1, "k");
        let lock = flights.shard(1).lock();
        write(&flights, 1);
        drop(lock);
        let new = lead(&flights, 1, "k");
        assert_eq!([new, old].map(complete), [false, true]);
    }

    #[test]
    fn what_a_load_keeps_is_seen_by_each_follower_and_goes_to_the_last() {
        let flights = Flights::new();
        let leader = lead(&flights, 1, "k");
        let mut followers = [(); 4].map(|()| follow(&flights, 1, "k"));
        let keep = |_, _| ((), Outcome::Unpublished(7));
        assert_eq!(leader.complete(keep, |()| None).1, None);
        let [first, gone, third, last] = &mut followers;
        assert_eq!(first.take(|&unpublished| unpublished), (Some(7), None));
        assert_eq!(first.take(|&unpublished| unpublished), (None, None), "once");
        assert_eq!(gone.leave(), None);
        assert_eq!(third.take(|&unpublished| unpublished), (Some(7), None));
        assert_eq!((flights.count(), last.published()), (1, None));
        assert_eq!(last.leave(), Some(7));
        assert_eq!(flights.count(), 0);
        // Without followers it goes to the leader.
        assert_eq!(lead(&flights, 1, "k").complete(keep, |()| None).1, Some(7));
        // What a forgotten follower has not taken goes with all flights.
        let leader = lead(&flights, 1, "k");
        std::mem::forget(follow(&flights, 1, "k"));
        assert_eq!(leader.complete(keep, |()| None).1, None);
        drop(followers);
        let mut flights = flights;
        assert_eq!(flights.take_all_unpublished(), [7]);
    }

    #[test]
    fn steps_of_a_flight_do_not_grow_with_its_followers_or_with_other_flights() {
        const MANY: usize = 10_000;
        let flights = Flights::new();
        let leaders: Vec<_> = (0..MANY as u64).map(|hash| lead(&flights, hash, hash)).collect();
        let counts: Vec<_> = (0..MANY).map(|_| Arc::<Count>::default()).collect();
        let mut followers = Vec::new();
        for count in &counts {
            let (steps, ()) = steps::of(|| {
                let mut follower = follow(&flights, 7, 7);
                assert!(poll(&mut follower, count).is_pending());
                assert!(poll(&mut follower, count).is_pending());
                followers.push(follower);
            });
            assert!(steps < 30, "{steps} steps to join and to wait");
        }
        // From the middle outwards.
        for _ in 0..MANY - 2 {
            let (steps, ()) = steps::of(|| drop(followers.swap_remove(followers.len() / 2)));
            assert!(steps < 30, "{steps} steps to leave");
        }
        for leader in leaders.into_iter().rev() {
            let (steps, _) = steps::of(|| complete(leader));
            assert!(steps < 30, "{steps} steps to complete");
        }
        drop(followers);
        assert_eq!(flights.count(), 0);
    }

    /// A key whose comparison does something.
    struct Slow<'a>(u32, &'a dyn Fn());

    impl PartialEq for Slow<'_> {
        fn eq(&self, other: &Self) -> bool {
            (self.1)();
            (other.1)();
            self.0 == other.0
        }
    }

    impl Eq for Slow<'_> {}

    #[test]
    fn comparison_may_ask_for_the_key_that_it_compares() {
        let flights = Flights::new();
        let nested = Cell::new(0);
        let ask = || {
            if nested.replace(nested.get() + 1) == 0 {
                // It leads a load of its own.
                drop(lead(&flights, 1, Slow(1, &|| ())));
                write(&flights, 2);
            }
        };
        let leader = lead(&flights, 1, Slow(1, &|| ()));
        drop(follow(&flights, 1, Slow(1, &ask)));
        assert_eq!(nested.get(), 1);
        complete(leader);
        assert_eq!(flights.count(), 0);
    }

    #[test]
    fn leader_waits_for_the_comparison_with_its_key_and_no_other_thread_for_the_lock() {
        let flights = Flights::new();
        let leader = lead(&flights, 1, 1);
        let Some(their) = flights.shard(1).lock().begin_comparison(leader.slot) else {
            panic!("it has a key");
        };
        let comparison = Comparison {
            shard: flights.shard(1),
            flight: flights.name(1, leader.slot, leader.id),
            their,
        };
        std::thread::scope(|scope| {
            let slot = leader.slot;
            let completed = scope.spawn(|| complete(leader));
            // It waits, and others are not held up.
            while !flights.shard(1).lock().flights.get_mut(slot).is_completing() {
                std::thread::yield_now();
            }
            let mut follower = follow(&flights, 1, 1);
            assert!(poll(&mut follower, &Arc::default()).is_pending());
            drop(lead(&flights, 1 + SHARDS as u64, 17));
            let (is_same, (lock, end)) = comparison.compare(&1);
            drop(lock);
            wake_all(end);
            assert!(is_same && !completed.join().unwrap());
            assert!(matches!(follower.wait(), WaitOutcome::Completed));
        });
        assert_eq!(flights.count(), 0);
    }

    #[test]
    fn comparison_that_panics_leaves_the_flight_in_order() {
        let flights = Flights::new();
        let leader = lead(&flights, 1, Slow(1, &|| ()));
        let bad = || panic!("eq");
        let joined = catch_unwind(AssertUnwindSafe(|| {
            drop(flights.join(1, Slow(1, &bad), Caller::Task));
        }));
        assert!(joined.is_err() && flights.count() == 1);
        drop(follow(&flights, 1, Slow(1, &|| ())));
        complete(leader);
        assert_eq!(flights.count(), 0);
    }

    #[test]
    fn thread_that_leads_is_detected_and_a_task_is_not() {
        let flights = Flights::new();
        let Joined::Lead(leader) = flights.join(1, "k", Caller::Thread) else {
            panic!("it is the first");
        };
        assert!(matches!(flights.join(1, "k", Caller::Thread), Joined::Own("k")));
        drop(follow(&flights, 1, "k"));
        std::thread::scope(|scope| {
            let ask = || matches!(flights.join(1, "k", Caller::Thread), Joined::Follow("k", _));
            assert!(scope.spawn(ask).join().unwrap(), "another thread");
        });
        leader.detach();
        assert!(matches!(flights.join(1, "k", Caller::Thread), Joined::Follow("k", _)));
        drop(leader);
        // The next leader is a task.
        let leader = lead(&flights, 1, "k");
        assert!(matches!(flights.join(1, "k", Caller::Thread), Joined::Follow("k", _)));
        write(&flights, 1);
        drop(lead(&flights, 1, "k"));
        drop(leader);
    }

    #[test]
    fn thread_that_ends_may_still_load() {
        /// Loads when its thread is about to end, after this module's own list has been destroyed.
        struct Late;
        impl Drop for Late {
            fn drop(&mut self) {
                let flights = Flights::new();
                let leader = lead(&flights, 1, "k");
                drop(leader.enter());
                assert!(!complete(leader));
            }
        }
        std::thread_local!(static LATE: RefCell<Option<Late>> = const { RefCell::new(None) });
        let ended = std::thread::spawn(|| {
            LATE.with(|late| *late.borrow_mut() = Some(Late));
            let flights = Flights::new();
            drop(lead(&flights, 1, "k").enter());
        });
        assert!(ended.join().is_ok());
    }

    #[test]
    fn waiting_ends_in_time() {
        let flights = Flights::new();
        let leader = lead(&flights, 1, "k");
        let end = Instant::now() + Duration::from_millis(1);
        assert!(matches!(follow(&flights, 1, "k").wait_until(end), WaitOutcome::TimedOut));
        complete(leader);
        assert_eq!(flights.count(), 0);
    }

    #[test]
    fn leader_can_go_to_another_thread() {
        fn is_send<T: Send>() {}
        is_send::<Leader<'_, String>>();
        is_send::<Follower<'_, String>>();
    }

    #[test]
    fn one_at_a_time_leads_under_many_threads() {
        let flights = Flights::new();
        let (leading, led) = (AtomicUsize::new(0), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for thread in 0..8 {
                let (flights, leading, led) = (&flights, &leading, &led);
                scope.spawn(move || {
                    for round in 0..2_000 {
                        let mut joined = flights.join(7, "k", Caller::Task);
                        loop {
                            let leader = match joined {
                                Joined::Lead(leader) => leader,
                                Joined::Follow(key, mut follower) => match follower.wait() {
                                    WaitOutcome::Lead(leader) => leader,
                                    _ => {
                                        joined = flights.join(7, key, Caller::Task);
                                        continue;
                                    }
                                },
                                Joined::Own(_) => panic!("nothing was entered"),
                            };
                            assert_eq!(leading.fetch_add(1, SeqCst), 0, "two leaders");
                            led.fetch_add(1, SeqCst);
                            leading.fetch_sub(1, SeqCst);
                            if (round + thread) % 3 == 0 {
                                drop(leader);
                            } else {
                                complete(leader);
                            }
                            break;
                        }
                    }
                });
            }
        });
        assert_eq!((led.load(SeqCst), flights.count()), (8 * 2_000, 0));
    }
}
