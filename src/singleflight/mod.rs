//! Single flight: at most one load of a key runs at a time; other callers wait for its result. For
//! threads and tasks alike.
//!
//! # Protocol
//!
//! The first caller that requests a key that is not cached *leads* a flight; later callers
//! *follow*. A flight is `Led` until its leader completes or abandons it:
//!
//! | transition | by | effect |
//! |---|---|---|
//! | → `Led` | the first caller that joins | |
//! | `Led` → `Completed` | the leader, with a value or an error | all followers are woken |
//! | `Led` → `Vacant` | a leader that is dropped | one follower is woken |
//! | `Vacant` → `Led` | the first follower that checks the state, or the next caller that joins | |
//! | `Vacant` → removed | the last follower, when it is dropped | |
//! | `Completed` → removed | the last follower, when it has taken the outcome or is dropped | |
//!
//! A leader completes after the value, or the error, is where its followers find it.
//!
//! A follower that was woken and is dropped before it checks the state wakes another one, so a
//! flight is never vacant while all its followers sleep. All transitions happen under the lock of a
//! [`Shard`], in a time that is independent of the number of flights and followers. Cache hits do
//! not use this module.
//!
//! No user code runs under that lock. Wakers are cloned, called and dropped outside of it, and keys
//! are compared and dropped outside of it. A caller that joins increments the flight's count of
//! comparisons, releases the lock, compares, and then rechecks whether the flight may still be
//! joined. A leader that completes takes the key, and first waits until no comparison runs. A
//! comparison that itself joins a flight skips the flight that it compares with.
//!
//! # Invalidation
//!
//! **A write that completes while a load of its key runs invalidates that load, and nothing else
//! does.** A load runs from the time its leader joins until it completes. These are writes:
//!
//! * an insert or a replacement;
//! * the removal of an entry; `remove` and `clear` even if there is no entry;
//! * a `compute` that puts or removes an entry;
//! * an insert that is rejected after it has removed the older entry, or would have.
//!
//! A conditional write that does not change the cache (`remove_if` that removes nothing,
//! `insert_if_absent` of a key that is present) is not a write, and neither are the cache's own
//! changes: expiration, eviction, and the insertion of a loaded entry. Keys are distinguished by
//! their hashes: a write also invalidates the load of another key with the same 64-bit hash.
//!
//! No other caller joins an invalid load. Its leader and existing followers still get its result,
//! because they requested the key before the write completed. The result is not published, or is
//! taken back before the flight ends.
//!
//! A writer pins, [announces](Flights::begin_write) the write, changes the table, and
//! [commits](Write::commit) if it has changed anything. For a load that began before the
//! announcement there are three cases:
//!
//! * It has ended before the announcement: the writer finds the published entry in the table.
//! * It ends after the commit: it is invalid.
//! * It ends between the two: it leaves the id of its published entry in the writer's
//!   [`Intent`](write::Intent). If the writer commits, it removes that entry and no other: both are
//!   pinned, so the id is not reused.
//!
//! A load that began after the announcement has read what was written before the announcement. If
//! it still runs, the commit invalidates it, too.
//!
//! No writer waits. A writer that finds the shard's lock taken pushes a [pending write](shard) onto
//! a stack. Each thread that acquires the lock applies the pending writes before it does anything
//! else, and so before it begins a load: a pending write invalidates no load that was requested
//! after the write.
//!
//! # Outcome
//!
//! If the loaded entry is not published (because it was rejected, or because the load is invalid),
//! the flight holds it until each follower has seen it; the last follower retires it. A follower
//! pins before it takes its share, and the entry is retired after the last share was taken, so no
//! grace period that ends before a follower's pin frees it.
//!
//! # Orderings
//!
//! Pairs of SeqCst fences ensure that of two threads at least one sees what the other did before
//! its fence:
//!
//! * `Shard::lead` and `Shard::is_running`: a load and a write. The load counts itself as running
//!   and then reads; the writer writes and then checks for running loads.
//! * `Shard::announce` and `Leader::complete`: a pending write and a published entry. The writer
//!   defers the write and then reads the table; the load publishes and then applies the pending
//!   writes.
//!
//! Before the first load of a cache, a write costs two loads of [`is_used`](Flights::is_used). From
//! then on it costs the two fences, and writes no shared memory unless loads run in its shard.

mod arena;
mod entered;
mod follower;
mod leader;
mod shard;
mod share;
mod thread_waker;
mod write;

use std::sync::Arc;
use std::{cell::RefCell, task::Waker};

use self::{
    entered::Running,
    shard::{Shard, State},
};
pub use self::{
    follower::{Follower, WaitOutcome},
    leader::Leader,
    shard::{Failure, Outcome, SharedError},
    write::Write,
};
use crate::{
    sync::{
        atomic::{AtomicBool, Ordering},
        thread_local, thread_number,
    },
    util::{CachePadded, for_all},
};

/// Number of shards. Few suffice: loads are rare and hold the lock only briefly.
const SHARDS: usize = if crate::sync::IS_MODEL { 1 } else { 16 };

/// The running loads of keys `K`. A `T` is an unpublished entry that a flight holds for its
/// followers.
pub struct Flights<K, T> {
    shards: Box<[CachePadded<Shard<K, T>>]>,
    /// Whether there ever was a load.
    is_used: AtomicBool,
}

/// The kind of caller that requests a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Caller {
    /// A thread, which would deadlock if it followed a flight that it leads.
    Thread,
    /// A task, which blocks no thread while it waits.
    Task,
}

/// The result of [`Flights::join`].
pub enum Joined<'a, K, T> {
    /// The caller is the leader and loads the key.
    Lead(Leader<'a, K, T>),
    /// Another caller loads the key.
    Follow(K, Follower<'a, K, T>),
    /// The caller is itself part of the load of this key.
    Own(K),
}

/// A scope in which this thread runs the load of a flight; ends when dropped.
pub struct Entered {
    flight: Name,
}

/// Identifies a flight, as long as that exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Name {
    flights: usize,
    hash: u64,
    slot: usize,
    id: u64,
}

impl Name {
    /// Returns the part that is common to all flights of a hash.
    fn key(self) -> (usize, u64) {
        (self.flights, self.hash)
    }
}

impl<K, T> Flights<K, T> {
    /// Makes a `Flights` without flights.
    pub fn new() -> Self {
        let shards = (0..SHARDS).map(|_| CachePadded::new(Shard::new())).collect();
        Self { shards, is_used: AtomicBool::new(false) }
    }

    /// Returns the number of flights.
    pub fn count(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().flights.len()).sum()
    }

    /// Announces a write of a key; see the [module](self). When the write is committed, the running
    /// loads of the key become invalid.
    ///
    /// The caller must be pinned, and must not have read the table yet.
    #[inline]
    pub fn begin_write(&self, hash: u64) -> Write<'_, K, T> {
        Write::new(self, hash)
    }

    /// Invalidates all running loads. A write of all keys calls this both before it reads the table
    /// and after it has changed it.
    pub fn invalidate_all(&self) {
        if self.is_used() {
            self.shards.iter().for_each(|shard| shard.invalidate(None));
        }
    }

    /// Takes the unpublished entries that flights still hold for leaked followers.
    pub fn take_all_unpublished(&mut self) -> Vec<T> {
        self.shards.iter().flat_map(|shard| shard.lock().take_all_unpublished()).collect()
    }

    #[inline]
    fn is_used(&self) -> bool {
        // Relaxed: set once. On weakly ordered machines a write may miss the very first load of a
        // cache; that write is considered to have happened before the load.
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
    /// Joins the flight of a key, or begins a new one.
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
        // Flights to skip: a comparison that requests the key that it compares with would deadlock.
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
            // A flight that is completing has no key to compare: follow it, as it ends soon.
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

    /// Returns whether this thread runs a load of this key, invalid or not.
    fn is_own(&self, hash: u64, key: &K) -> bool {
        let here = self.name(hash, 0, 0).key();
        // An ending thread may load in a destructor after `ENTERED` was destroyed; then recursion
        // is not detected.
        let mine = ENTERED.try_with(|entered| entered.borrow().of(here)).unwrap_or_default();
        mine.into_iter().any(|flight| {
            let shard = self.shard(hash);
            let mut state = shard.lock();
            let their = match state.known(flight.slot, flight.id) {
                None => return false,
                // This thread is completing the flight.
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

    /// Returns the flights of a hash whose keys this thread is comparing.
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
    /// Returns the number of a calling thread, or 0 for a task.
    fn owner(self) -> usize {
        match self {
            Self::Thread => thread_number(),
            Self::Task => 0,
        }
    }
}

/// A comparison with the key of a flight; the flight is not completed while it runs.
struct Comparison<'a, K, T> {
    shard: &'a Shard<K, T>,
    flight: Name,
    their: Arc<K>,
}

type Locked<'a, K, T> = crate::sync::MutexGuard<'a, shard::ShardState<K, T>>;

impl<'a, K: Eq, T> Comparison<'a, K, T> {
    /// Compares the keys. Returns the result, the lock, and a waker to be called after the lock is
    /// released.
    fn compare(self, key: &K) -> (bool, (Locked<'a, K, T>, Option<Waker>)) {
        /// Ends the comparison even if it panics.
        struct Comparing<'a, K, T>(Option<Comparison<'a, K, T>>);
        impl<'a, K, T> Comparing<'a, K, T> {
            fn end(&mut self) -> Option<(Locked<'a, K, T>, Option<Waker>)> {
                let Comparison { shard, flight, their } = self.0.take()?;
                let _ = COMPARED.try_with(|compared| remove_from(compared, flight));
                // Before the leader may take the key, which must be its only reference.
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

impl Drop for Entered {
    fn drop(&mut self) {
        let _ = ENTERED.try_with(|entered| entered.borrow_mut().remove(self.flight));
    }
}

/// Calls all wakers, even if one of them panics: otherwise the other followers would sleep for
/// ever.
fn wake_all(waiting: impl IntoIterator<Item = Waker>) {
    for_all(waiting, Waker::wake);
}

/// Returns whether this thread runs the load of some flight.
pub fn is_loading() -> bool {
    ENTERED.try_with(|entered| !entered.borrow().is_empty()).unwrap_or(false)
}

/// Removes the last occurrence of a flight.
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
    /// The flights whose keys this thread is comparing; comparisons may be nested.
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

#[cfg(all(test, not(any(cortado_loom, cortado_shuttle))))]
mod tests {
    use std::{
        cell::Cell,
        future::Future,
        panic::{AssertUnwindSafe, catch_unwind},
        pin::Pin,
        sync::{Arc, atomic::AtomicUsize, atomic::Ordering::SeqCst},
        task::{Context, Poll, Wake},
        time::{Duration, Instant},
    };

    use super::{arena::steps, *};

    /// Unpublished entries are numbers in these tests.
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

    /// Completes a load that publishes the id 64; returns whether it was invalid before or after
    /// that.
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
    fn followers_are_woken_when_the_flight_completes() {
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
    fn one_follower_takes_over_from_a_dropped_leader() {
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
    fn woken_follower_that_is_dropped_wakes_the_next() {
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
        // Flights of another cache, of another shard, and of the same shard.
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
    fn vacant_flight_is_led_by_the_next_caller_that_joins() {
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
    fn keys_of_equal_hash_have_separate_flights() {
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
        // The first was woken, but the second is polled before it.
        let Poll::Ready(WaitOutcome::Lead(leader)) = poll(&mut followers[1], &counts[1]) else {
            panic!("it was vacant");
        };
        assert!(poll(&mut followers[0], &counts[0]).is_pending());
        drop(leader);
        assert_eq!(counts.each_ref().map(|count| count.0.load(SeqCst)), [1, 0, 1]);
    }

    #[test]
    fn all_followers_are_woken_even_if_a_waker_panics() {
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
        write(&flights, 1); // before the first load
        let (leader, other) = (lead(&flights, 1, "k"), lead(&flights, 2, "other"));
        let (mut follower, count) = (follow(&flights, 1, "k"), Arc::<Count>::default());
        assert!(poll(&mut follower, &count).is_pending());
        write(&flights, 1);
        let newer = lead(&flights, 1, "k");
        let publish = |_, is_invalid| (is_invalid, Outcome::Nothing);
        assert!(leader.complete(publish, |_| unreachable!("the load was invalid")).0);
        assert!(matches!(poll(&mut follower, &count), Poll::Ready(WaitOutcome::Completed)));
        assert!(!complete(newer));
        // A write while the load is published.
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
        // The next flight is unwritten.
        let next = lead(&flights, 1, "k");
        assert!(next.is_unwritten() && complete(leader) && !complete(next));
    }

    #[test]
    fn write_in_progress_is_remembered_however_many_follow() {
        let flights = Flights::new();
        // A load of another key with the same hash leaves its entry to the write.
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
    fn write_committed_before_the_load_ends_invalidates_it() {
        let flights = Flights::new();
        let under_way = flights.begin_write(1);
        let leader = lead(&flights, 1, "k");
        assert_eq!(under_way.commit(), None);
        assert!(complete(leader), "it began before the write was over");
        // Many writes at once, of which one is committed.
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
        // The pending write does not affect a load that begins later.
        let old = lead(&flights, 1, "k");
        let lock = flights.shard(1).lock();
        write(&flights, 1);
        drop(lock);
        let new = lead(&flights, 1, "k");
        assert_eq!([new, old].map(complete), [false, true]);
    }

    #[test]
    fn unpublished_entry_is_seen_by_each_follower_and_returned_to_the_last() {
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
        // Without followers it is returned to the leader.
        assert_eq!(lead(&flights, 1, "k").complete(keep, |()| None).1, Some(7));
        // An entry that a leaked follower has not taken is left in the flights.
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

    /// A key whose comparison calls a function.
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
    fn comparison_may_request_the_key_that_it_compares() {
        let flights = Flights::new();
        let nested = Cell::new(0);
        let ask = || {
            if nested.replace(nested.get() + 1) == 0 {
                // The nested caller leads a load of its own.
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
            // The leader waits, and other callers are not blocked.
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
        /// Loads while its thread ends, after this module's thread-local variables were destroyed.
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
    fn wait_until_times_out() {
        let flights = Flights::new();
        let leader = lead(&flights, 1, "k");
        let end = Instant::now() + Duration::from_millis(1);
        assert!(matches!(follow(&flights, 1, "k").wait_until(end), WaitOutcome::TimedOut));
        complete(leader);
        assert_eq!(flights.count(), 0);
    }

    #[test]
    fn leader_and_follower_are_send() {
        fn is_send<T: Send>() {}
        is_send::<Leader<'_, String>>();
        is_send::<Follower<'_, String>>();
    }

    #[test]
    fn one_thread_leads_at_a_time() {
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
