//! `Leader`: completes its flight with a value or an error, or abandons it.

use std::sync::Arc;
use std::{cell::RefCell, task::Waker};

use super::{
    COMPARED, ENTERED, Entered, Failure, Flights, Name, Outcome, SharedError, shard::Shard,
    thread_waker::ThreadWaker, wake_all,
};
use crate::sync::atomic::{Ordering, fence};

/// The leader of a flight, which loads the key.
///
/// Dropping it abandons the flight to a follower.
pub struct Leader<'a, K, T> {
    pub(super) flights: &'a Flights<K, T>,
    pub(super) hash: u64,
    pub(super) slot: usize,
    pub(super) id: u64,
    /// `Some` until the leader completes.
    pub(super) key: Option<Arc<K>>,
}

impl<'a, K, T> Leader<'a, K, T> {
    /// Declares that this thread runs the load, so that a load that requests its own key is
    /// detected.
    pub fn enter(&self) -> Entered {
        let flight = self.flights.name(self.hash, self.slot, self.id);
        // An ending thread may load in a destructor after `ENTERED` was destroyed; then recursion
        // is not detected.
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

    /// Returns whether no write of the key that was announced since the flight began has happened
    /// or may still happen; see [`change`](Self::change).
    pub fn is_unwritten(&self) -> bool {
        self.shard().is_unwritten(&mut self.shard().lock(), self.slot)
    }

    /// Unbinds the flight from the leading thread: the load may continue on another thread.
    pub fn detach(&self) {
        self.shard().lock().flights.get_mut(self.slot).owner = 0;
    }

    /// Completes the flight and wakes the followers.
    ///
    /// `publish` gets the key and whether the load is invalid. It puts the value where the
    /// followers find it, or, for an invalid load, returns it unpublished. If the load has become
    /// invalid after that, `take_back` removes the published entry before the followers are woken,
    /// and returns an entry for them, if any.
    ///
    /// Returns the unpublished entry if there is no follower; the caller must retire it.
    ///
    /// `publish` is part of the load: a request for the key in it is detected as recursive.
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
            // SeqCst: pairs with the fence in `Shard::announce`. Either this thread finds the
            // pending write, or the writer finds the published entry.
            fence(Ordering::SeqCst);
            let was_written = shard.was_written(&mut shard.lock(), slot, id);
            if was_written {
                outcome = take_back(&result).map_or(Outcome::Nothing, Outcome::Unpublished);
            }
        }
        let unpublished = completing.end(outcome);
        (result, unpublished)
    }

    /// Completes a flight that has computed a change of its key's entry. `change` applies the
    /// change. It gets the key, and a function that returns whether the key is unwritten since the
    /// flight began.
    ///
    /// `change` must call that function while it is pinned. If the result is `true`, no other entry
    /// of the key has been published since the flight began: a write announces itself before it
    /// publishes, and a write that was not committed has published nothing. So an id that was read
    /// since then names the same entry, or none, as long as the pin lasts. The entry that `change`
    /// publishes is not taken back: the id decides which of two changes comes first.
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

    /// Completes the flight with an error for all followers.
    pub fn fail(mut self, error: SharedError) {
        let (shard, slot) = (self.shard(), self.slot);
        let (key, _) = self.take_key();
        let failure = Arc::new(Failure { key, error });
        let failure = if mutant!("singleflight_fails_silently") { None } else { Some(failure) };
        let (waiters, gone) = shard.fail(&mut shard.lock(), slot, failure);
        wake_all(waiters);
        drop(gone);
    }

    /// Takes the key out of the flight, after all comparisons have ended; returns it and whether
    /// the load is invalid.
    ///
    /// # Panics
    ///
    /// Panics if this thread is comparing a key with that of the flight.
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
                // Other threads are comparing keys with it, for as long as the user's `Eq` takes.
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
        // Drops this reference before another caller may lead: besides the flight's, the next
        // leader must hold the only one. The key itself lives on in the flight.
        if self.key.take().is_none() {
            return; // The flight has completed.
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

/// Ends the flight, even in case of a panic.
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

impl<K, T> std::fmt::Debug for Leader<'_, K, T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Leader").field("flight", &self.id).finish_non_exhaustive()
    }
}
