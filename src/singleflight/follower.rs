//! `Follower`: waits for its flight and takes the outcome, or leads it next.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use super::{Caller, Failure, Flights, Leader, shard::State, thread_waker::ThreadWaker, wake_all};

/// The result of waiting for a flight.
pub enum WaitOutcome<'a, K, T> {
    /// The flight has completed: look up the value and take the outcome.
    Completed,
    /// The leader has abandoned the flight: this follower now leads it.
    Lead(Leader<'a, K, T>),
    /// The time limit has passed.
    TimedOut,
}

/// A follower of a flight: waits for it and takes its outcome.
pub struct Follower<'a, K, T> {
    pub(super) flights: &'a Flights<K, T>,
    pub(super) hash: u64,
    pub(super) slot: usize,
    pub(super) id: u64,
    /// The slot among the flight's followers; `None` once this is no longer one of them.
    pub(super) place: Option<usize>,
    pub(super) is_waiting: bool,
    pub(super) caller: Caller,
}

impl<'a, K, T> Follower<'a, K, T> {
    /// Blocks this thread until the flight has completed or this follower leads it.
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

    /// Like [`wait`](Self::wait), but waits until `end` at the latest.
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
        // Cloned before the lock is acquired and dropped after it is released, because wakers may
        // run user code.
        let mut mine = (!self.is_waiting).then(|| waker.clone());
        loop {
            let mut state = shard.lock();
            let flight = state.flights.get_mut(slot);
            match flight.state {
                State::Completed => return Poll::Ready(WaitOutcome::Completed),
                State::Vacant => {
                    // This may not be the follower that was woken. If its waker stayed in the queue
                    // and it abandoned the flight in turn, that waker would be called in place of
                    // another follower's.
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

    /// Takes the outcome of a completed flight. Returns the result of `see` on its unpublished
    /// entry, and the entry itself if this is the last follower, which must retire it. `see` runs
    /// under the shard's lock.
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

    /// Returns the id of the entry that the flight has published, if it has completed.
    pub fn published(&self) -> Option<usize> {
        self.place?;
        self.flights.shard(self.hash).lock().published(self.slot)
    }

    /// Returns the failure of the load, if the flight has completed with an error.
    pub fn failure(&self) -> Option<Arc<Failure<K>>> {
        self.place?;
        self.flights.shard(self.hash).lock().failure(self.slot)
    }

    /// Stops following. Returns the unpublished entry, which the caller must retire, if this was
    /// the last follower of a completed flight.
    pub fn leave(&mut self) -> Option<T> {
        let place = self.place?;
        let shard = self.flights.shard(self.hash);
        let mut state = shard.lock();
        let flight = state.flights.get_mut(self.slot);
        self.place = None;
        if flight.state == State::Completed {
            let (_, unpublished, gone) = state.take_share(self.slot, |_| ());
            drop(state);
            drop(gone);
            return unpublished;
        }
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
        // A caller that must retire the unpublished entry has called `leave` before.
        drop(self.leave());
    }
}

impl<K, T> std::fmt::Debug for Follower<'_, K, T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Follower").field("flight", &self.id).finish_non_exhaustive()
    }
}
