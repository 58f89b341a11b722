//! Flights: one load of a key at a time, for threads and tasks alike.
//!
//! # Protocol
//!
//! Who asks first for a key that nobody loads *leads* a flight; who comes later *follows*. A flight is
//! `Led` until its leader lands or lets go:
//!
//! | move | who | what follows |
//! |---|---|---|
//! | → `Led` | the first to board | |
//! | `Led` → landed | the leader, when the value is where others find it | all followers are woken |
//! | `Led` → `Vacant` | a leader that is dropped | one follower is woken |
//! | `Vacant` → `Led` | the first follower that looks, or the next to board | |
//! | `Vacant` → gone | the last follower that is dropped | |
//!
//! A follower that was woken and is dropped before it looked wakes another one, so that a flight is never
//! vacant while all its followers sleep. Everything is decided under the lock of a shard, which nobody
//! holds while a loader runs; wakers are called when it is free again. Reads never come here.
//!
//! # Removals
//!
//! Whoever removes a key [overtakes](Flights::overtake) its load *first*, for what that has read may be out of
//! date. An overtaken flight is boarded by nobody else, and its value is not kept: the leader is told so
//! before it publishes, and looks once more afterwards. A removal that comes too late for this look finds
//! what was published. It waits for no lock: if that is held, it overtakes all loads of the shard.

mod gate;
mod signal;

use std::{
    cell::RefCell,
    future::Future,
    pin::Pin,
    task::{Context, Poll, Waker},
};

use self::{gate::Gate, signal::Signal};
use crate::{
    sync::{
        atomic::{AtomicBool, Ordering},
        thread_local,
    },
    util::{CachePadded, for_all},
};

/// The loads that are under way.
pub struct Flights<K> {
    gates: Box<[CachePadded<Gate<K>>]>,
    /// Whether there ever was one.
    is_used: AtomicBool,
}

/// What became of somebody who asked for a key.
pub enum Boarding<'a, K> {
    /// It is the leader, and loads.
    Lead(Leader<'a, K>),
    /// Somebody else does.
    Follow(K, Follower<'a, K>),
    /// The load of this key asks for it itself.
    Own(K),
}

/// What a follower has waited for.
pub enum Arrival<'a, K> {
    /// The flight has landed: look for the value.
    Landed,
    /// The leader has let go: the follower loads.
    Lead(Leader<'a, K>),
    /// Time is over.
    TimedOut,
}

/// The right and the duty to load a key.
pub struct Leader<'a, K> {
    flights: &'a Flights<K>,
    hash: u64,
    number: u64,
}

/// Somebody who waits for a flight.
pub struct Follower<'a, K> {
    flights: &'a Flights<K>,
    hash: u64,
    number: u64,
    ticket: u64,
}

/// Says that this thread runs the load of a flight; not for longer than it lives.
pub struct Entered {
    flight: (usize, u64, u64),
}

impl<K> Flights<K> {
    /// Makes one without any.
    pub fn new() -> Self {
        let gates = (0..GATES).map(|_| CachePadded::new(Gate::new())).collect();
        Self { gates, is_used: AtomicBool::new(false) }
    }

    /// Returns how many flights there are.
    pub fn count(&self) -> usize {
        self.gates.iter().map(|gate| gate.lock().flights.len()).sum()
    }

    /// Sees that no load of this hash that is under way is kept. To be called before the key is removed.
    #[inline]
    pub fn overtake(&self, hash: u64) {
        if self.is_used() {
            self.gate(hash).overtake(|flight| flight.hash == hash);
        }
    }

    /// The same for all loads.
    pub fn overtake_all(&self) {
        if self.is_used() {
            self.gates.iter().for_each(|gate| gate.overtake(|_| true));
        }
    }

    #[inline]
    fn is_used(&self) -> bool {
        // Relaxed: set once. A removal that misses the very first load of a cache, which a machine of weak order
        // allows, is taken to have come before it.
        self.is_used.load(Ordering::Relaxed)
    }

    fn gate(&self, hash: u64) -> &Gate<K> {
        &self.gates[hash as usize % self.gates.len()]
    }

    fn name(&self, hash: u64, number: u64) -> (usize, u64, u64) {
        (std::ptr::from_ref(self).addr(), hash % self.gates.len() as u64, number)
    }
}

impl<K: Eq> Flights<K> {
    /// Joins the flight of a key, or begins one.
    pub fn board(&self, hash: u64, key: K) -> Boarding<'_, K> {
        // Relaxed, twice: see `is_used`.
        if !self.is_used.load(Ordering::Relaxed) {
            self.is_used.store(true, Ordering::Relaxed);
        }
        let gate = self.gate(hash);
        let mut shard = gate.lock();
        let mut joined = None;
        for (index, flight) in shard.flights.iter().enumerate() {
            // One that lands has no key to compare: it is followed for the moment that this takes.
            let is_it = flight.hash == hash && flight.key.as_ref().is_none_or(|k| *k == key);
            if is_it && is_entered(self.name(hash, flight.number)) {
                return Boarding::Own(key);
            }
            if is_it && !(flight.is_led && gate.has_overtaken(flight)) {
                joined = Some(index);
            }
        }
        let Some(index) = joined else {
            let number = gate.add(&mut shard, hash, key);
            return Boarding::Lead(Leader { flights: self, hash, number });
        };
        let flight = &mut shard.flights[index];
        let number = flight.number;
        if !flight.is_led {
            flight.led_anew(gate);
            return Boarding::Lead(Leader { flights: self, hash, number });
        }
        flight.followers += 1;
        let ticket = shard.number();
        Boarding::Follow(key, Follower { flights: self, hash, number, ticket })
    }
}

impl<K> Leader<'_, K> {
    /// Says that this thread runs the load, so that a load which asks for its own key is told so.
    pub fn enter(&self) -> Entered {
        let flight = self.flights.name(self.hash, self.number);
        // A thread that ends may load in a destructor, when the list is gone: then nothing is detected.
        let _ = ENTERED.try_with(|entered| entered.borrow_mut().push(flight));
        Entered { flight }
    }

    fn gate(&self) -> &Gate<K> {
        self.flights.gate(self.hash)
    }

    /// Calls `f` with the key.
    pub fn with_key<R>(&self, f: impl FnOnce(&K) -> R) -> R {
        let mut shard = self.gate().lock();
        let key = shard.flight(self.number).and_then(|flight| flight.key.as_ref());
        f(key.expect("a led flight has a key until it lands"))
    }

    /// Ends the flight: `f` puts the value where the followers find it, unless it is told that the load was
    /// overtaken, and then they are woken. If it was overtaken by then, `take_back` comes before that.
    ///
    /// `f` is part of the load: if what it calls asks for the key, it is told so.
    pub fn land<R>(self, f: impl FnOnce(K, bool) -> R, take_back: impl FnOnce(&R)) -> R {
        /// Ends the flight even if something panics.
        struct Landing<'a, 'f, K>(&'a Leader<'f, K>);
        impl<K> Landing<'_, '_, K> {
            /// Ends the flight, or returns false if it was overtaken and that matters.
            fn end(&self, however: bool) -> bool {
                let gate = self.0.gate();
                let mut shard = gate.lock();
                let flight = shard.flight(self.0.number);
                if !however && flight.is_some_and(|flight| gate.has_overtaken(flight)) {
                    return false;
                }
                let landed = gate.remove(&mut shard, self.0.number);
                drop(shard);
                wake_all(landed.into_iter().flat_map(|flight| flight.waiting));
                true
            }
        }
        impl<K> Drop for Landing<'_, '_, K> {
            fn drop(&mut self) {
                self.end(true);
            }
        }
        let gate = self.gate();
        if cfg!(cortado_mutant = "flight_woken_first") {
            let flight = gate.remove(&mut gate.lock(), self.number);
            let flight = flight.expect("a led flight is there until it lands");
            flight.waiting.into_iter().for_each(|(_, waker)| waker.wake());
            return f(flight.key.expect("a led flight has a key until it lands"), false);
        }
        let mut shard = gate.lock();
        let flight = shard.flight(self.number).expect("a led flight is there until it lands");
        let key = flight.key.take().expect("a led flight has a key until it lands");
        let is_overtaken = gate.has_overtaken(flight);
        drop(shard);
        let landing = Landing(&self);
        let entered = self.enter();
        let result = f(key, is_overtaken);
        drop(entered);
        if !landing.end(is_overtaken || cfg!(cortado_mutant = "flight_looks_once")) {
            take_back(&result);
        }
        drop(landing);
        result
    }
}

impl<K> Drop for Leader<'_, K> {
    fn drop(&mut self) {
        let gate = self.gate();
        let mut shard = gate.lock();
        // It is gone if it has landed.
        if let Some(flight) = shard.flight(self.number) {
            flight.is_led = false;
        }
        let (next, gone) = gate.pass_on(&mut shard, self.number);
        drop(shard);
        if !cfg!(cortado_mutant = "flight_nobody_told") {
            next.into_iter().for_each(Waker::wake);
        }
        drop(gone);
    }
}

impl<'a, K> Follower<'a, K> {
    /// Blocks this thread until the flight has landed or is this follower's.
    pub fn wait(mut self) -> Arrival<'a, K> {
        let signal = Signal::new();
        let waker = Waker::from(std::sync::Arc::clone(&signal));
        loop {
            match self.look(&waker) {
                Poll::Ready(arrival) => return arrival,
                Poll::Pending => signal.wait(),
            }
        }
    }

    /// The same until `end` at the latest.
    #[cfg(not(cortado_loom))]
    pub fn wait_until(mut self, end: std::time::Instant) -> Arrival<'a, K> {
        let signal = Signal::new();
        let waker = Waker::from(std::sync::Arc::clone(&signal));
        loop {
            if let Poll::Ready(arrival) = self.look(&waker) {
                return arrival;
            }
            let left = end.saturating_duration_since(std::time::Instant::now());
            if left.is_zero() {
                return Arrival::TimedOut;
            }
            signal.wait_timeout(left);
        }
    }

    fn look(&mut self, waker: &Waker) -> Poll<Arrival<'a, K>> {
        let Self { flights, hash, number, ticket } = *self;
        let gate = flights.gate(hash);
        let mut shard = gate.lock();
        let Some(flight) = shard.flight(number) else { return Poll::Ready(Arrival::Landed) };
        if !flight.is_led {
            flight.led_anew(gate);
            // It may have come before the one that was woken. Its waker, were it left, would be called
            // in place of another's if it lets go in turn.
            let mine = flight.stop_waiting(ticket);
            drop(shard);
            drop(mine);
            return Poll::Ready(Arrival::Lead(Leader { flights, hash, number }));
        }
        // What is replaced is dropped when the lock is free: it may be anybody's code.
        let mut old = None;
        match flight.waiting.iter_mut().find(|(other, _)| *other == ticket) {
            Some((_, known)) if known.will_wake(waker) => {}
            Some((_, known)) => old = Some(std::mem::replace(known, waker.clone())),
            None => flight.waiting.push((ticket, waker.clone())),
        }
        drop(shard);
        drop(old);
        Poll::Pending
    }
}

impl<'a, K> Future for Follower<'a, K> {
    type Output = Arrival<'a, K>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        self.look(context.waker())
    }
}

impl<K> Drop for Follower<'_, K> {
    fn drop(&mut self) {
        let gate = self.flights.gate(self.hash);
        let mut shard = gate.lock();
        let mut mine = None;
        if let Some(flight) = shard.flight(self.number) {
            flight.followers -= 1;
            mine = flight.stop_waiting(self.ticket);
        }
        let (next, gone) = if cfg!(cortado_mutant = "flight_offer_lost") {
            (None, None)
        } else {
            gate.pass_on(&mut shard, self.number)
        };
        drop(shard);
        next.into_iter().for_each(Waker::wake);
        drop((mine, gone));
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        let _ = ENTERED.try_with(|entered| {
            let mut entered = entered.borrow_mut();
            if let Some(index) = entered.iter().rposition(|flight| *flight == self.flight) {
                entered.remove(index);
            }
        });
    }
}

/// Wakes all, even if some waker panics: the others would sleep for ever.
fn wake_all(waiting: impl Iterator<Item = (u64, Waker)>) {
    for_all(waiting, |(_, waker)| waker.wake());
}

/// Returns whether this thread runs the load of some flight.
pub fn is_loading() -> bool {
    ENTERED.try_with(|entered| !entered.borrow().is_empty()).unwrap_or(false)
}

fn is_entered(flight: (usize, u64, u64)) -> bool {
    ENTERED.try_with(|entered| entered.borrow().contains(&flight)).unwrap_or(false)
}

thread_local! {
    /// The flights whose loads this thread runs, one within the other.
    static ENTERED: RefCell<Vec<(usize, u64, u64)>> = const { RefCell::new(Vec::new()) };
}

impl<K> Default for Flights<K> {
    fn default() -> Self {
        Self::new()
    }
}

impl<K> std::fmt::Debug for Flights<K> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Flights").field("count", &self.count()).finish()
    }
}

impl<K> std::fmt::Debug for Leader<'_, K> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Leader").field("flight", &self.number).finish_non_exhaustive()
    }
}

impl<K> std::fmt::Debug for Follower<'_, K> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Follower").field("flight", &self.number).finish_non_exhaustive()
    }
}

/// Loads are few, and hold the lock for a moment.
const GATES: usize = if crate::sync::IS_MODEL { 1 } else { 16 };

#[cfg(all(test, not(any(cortado_loom, cortado_shuttle))))]
mod tests {
    use std::{
        panic::{AssertUnwindSafe, catch_unwind},
        sync::{Arc, atomic::AtomicUsize, atomic::Ordering::SeqCst},
        task::Wake,
        time::{Duration, Instant},
    };

    use super::*;

    fn lead<K: Eq>(flights: &Flights<K>, hash: u64, key: K) -> Leader<'_, K> {
        match flights.board(hash, key) {
            Boarding::Lead(leader) => leader,
            _ => panic!("somebody leads already"),
        }
    }

    fn follow<K: Eq>(flights: &Flights<K>, hash: u64, key: K) -> Follower<'_, K> {
        match flights.board(hash, key) {
            Boarding::Follow(_, follower) => follower,
            _ => panic!("nobody leads"),
        }
    }

    /// Counts how often it was woken.
    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, SeqCst);
        }
    }

    fn poll<'a, K>(follower: &mut Follower<'a, K>, count: &Arc<Count>) -> Poll<Arrival<'a, K>> {
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
        let publish = |key, is_overtaken: bool| {
            assert!(!is_overtaken && counts.iter().all(|count| count.0.load(SeqCst) == 0));
            key
        };
        let key = leader.land(publish, |_| unreachable!("nobody overtakes it"));
        assert_eq!(key, "k");
        for (mut follower, count) in followers.into_iter().zip(&counts) {
            assert_eq!(count.0.load(SeqCst), 1);
            assert!(matches!(poll(&mut follower, count), Poll::Ready(Arrival::Landed)));
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
        let Poll::Ready(Arrival::Lead(leader)) = poll(&mut first, &counts[0]) else {
            panic!("the woken one leads");
        };
        assert!(poll(&mut second, &counts[1]).is_pending());
        drop(third);
        leader.land(|_, _| (), |()| ());
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
        assert!(matches!(flights.board(1, 1), Boarding::Own(1)));
        // Another cache's, one behind another gate, and one behind the same.
        let far = lead(&others, 1, 1);
        let (apart, beside) = (lead(&flights, 2, 2), lead(&flights, 1 + GATES as u64, 17));
        drop(follow(&others, 1, 1));
        drop((follow(&flights, 2, 2), follow(&flights, 1 + GATES as u64, 17)));
        drop(entered);
        assert!(!is_loading());
        drop(follow(&flights, 1, 1));
        drop((leader, far, apart, beside));
    }

    #[test]
    fn removal_overtakes_no_load_of_another_key_behind_the_same_gate() {
        let flights = Flights::new();
        let leaders = [1, 1 + GATES as u64].map(|hash| lead(&flights, hash, hash));
        flights.overtake(1);
        let overtaken = leaders.map(|leader| leader.land(|_, is_overtaken| is_overtaken, |_| ()));
        assert_eq!(overtaken, [true, false]);
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
        leader.land(|_, _| (), |()| ());
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
        assert!(matches!(poll(&mut follower, &count), Poll::Ready(Arrival::Lead(_))));
    }

    #[test]
    fn load_that_asks_for_its_own_key_is_told_so() {
        let flights = Flights::new();
        let outer = lead(&flights, 1, "k");
        let panicked = catch_unwind(AssertUnwindSafe(|| {
            let _entered = outer.enter();
            assert!(matches!(flights.board(1, "k"), Boarding::Own("k")));
            let inner = lead(&flights, 2, "other");
            let _entered = inner.enter();
            assert!(matches!(flights.board(1, "k"), Boarding::Own("k")));
            assert!(matches!(flights.board(2, "other"), Boarding::Own("other")));
            assert!(matches!(Flights::new().board(1, "k"), Boarding::Lead(_)), "another cache");
            panic!("loader");
        }));
        assert!(panicked.is_err());
        assert!(matches!(flights.board(1, "k"), Boarding::Follow(..)), "not any more");
        drop(lead(&flights, 2, "other"));
    }

    #[test]
    fn keys_of_one_hash_fly_apart() {
        let flights = Flights::new();
        let (one, two) = (lead(&flights, 1, 1), lead(&flights, 1, 2));
        let follower = follow(&flights, 1, 2);
        assert_eq!(two.land(|key, _| key, |_| ()), 2);
        assert!(matches!(follower.wait(), Arrival::Landed));
        assert_eq!(one.land(|key, _| key, |_| ()), 1);
    }

    #[test]
    fn panic_while_landing_wakes_the_followers() {
        let flights = Flights::new();
        let leader = lead(&flights, 1, "k");
        let follower = follow(&flights, 1, "k");
        let landed = catch_unwind(AssertUnwindSafe(|| leader.land(|_, _| panic!("cost"), |()| ())));
        assert!(landed.is_err());
        assert!(matches!(follower.wait(), Arrival::Landed));
        assert_eq!(flights.count(), 0);
    }

    #[test]
    fn follower_that_was_first_to_look_leaves_no_waker() {
        let flights = Flights::new();
        let leader = lead(&flights, 1, "k");
        let counts = [(); 3].map(|()| Arc::<Count>::default());
        let mut followers = [(); 3].map(|()| follow(&flights, 1, "k"));
        for (follower, count) in followers.iter_mut().zip(&counts) {
            assert!(poll(follower, count).is_pending());
        }
        drop(leader);
        // The first was woken, but the second is polled for a reason of its own.
        let Poll::Ready(Arrival::Lead(leader)) = poll(&mut followers[1], &counts[1]) else {
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
        assert!(catch_unwind(AssertUnwindSafe(|| leader.land(|_, _| (), |()| ()))).is_err());
        assert_eq!((count.0.load(SeqCst), flights.count()), (1, 0));
    }

    #[test]
    fn landing_that_asks_for_its_own_key_is_told_so() {
        let flights = Flights::new();
        let publish = |key, _| {
            assert!(matches!(flights.board(1, key), Boarding::Own("k")));
            drop(lead(&flights, 2, "other"));
        };
        lead(&flights, 1, "k").land(publish, |()| ());
        drop(lead(&flights, 1, "k"));
    }

    #[test]
    fn overtaken_load_is_not_kept_and_boarded_by_nobody_else() {
        let flights = Flights::new();
        flights.overtake(1); // nobody is there
        let (leader, other) = (lead(&flights, 1, "k"), lead(&flights, 2, "other"));
        let (mut follower, count) = (follow(&flights, 1, "k"), Arc::<Count>::default());
        assert!(poll(&mut follower, &count).is_pending());
        flights.overtake(1);
        let newer = lead(&flights, 1, "k");
        assert!(leader.land(|_, is_overtaken| is_overtaken, |_| unreachable!("it was told")));
        assert!(matches!(poll(&mut follower, &count), Poll::Ready(Arrival::Landed)));
        assert!(!newer.land(|_, is_overtaken| is_overtaken, |_| unreachable!("it came later")));
        // While it is published.
        let mut is_back = false;
        let publish = |_, is_overtaken| {
            flights.overtake_all();
            is_overtaken
        };
        assert!(!other.land(publish, |_| is_back = true));
        assert!(is_back && flights.count() == 0);
    }

    #[test]
    fn overtaken_load_that_is_taken_over_begins_anew() {
        let flights = Flights::new();
        let leader = lead(&flights, 1, "k");
        let (mut follower, count) = (follow(&flights, 1, "k"), Arc::<Count>::default());
        assert!(poll(&mut follower, &count).is_pending());
        flights.overtake(1);
        let entered = leader.enter();
        assert!(matches!(flights.board(1, "k"), Boarding::Own("k")));
        drop(entered);
        drop(leader);
        flights.overtake(1); // nobody has read anything
        let Poll::Ready(Arrival::Lead(leader)) = poll(&mut follower, &count) else {
            panic!("it is vacant");
        };
        drop(follow(&flights, 1, "k"));
        assert!(!leader.land(|_, is_overtaken| is_overtaken, |_| ()));
    }

    #[test]
    fn whoever_finds_the_lock_taken_overtakes_all_and_does_not_wait() {
        let flights = Flights::new();
        let (one, two) = (lead(&flights, 1, "k"), lead(&flights, 17, "l"));
        let lock = flights.gate(1).lock();
        flights.overtake(1);
        drop(lock);
        assert!([one, two].into_iter().all(|leader| leader.land(|_, is_over| is_over, |_| ())));
        assert!(!lead(&flights, 1, "k").land(|_, is_overtaken| is_overtaken, |_| ()));
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
                assert_eq!(leader.land(|key, _| key, |_| ()), "k");
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
        assert!(matches!(follow(&flights, 1, "k").wait_until(end), Arrival::TimedOut));
        leader.land(|_, _| (), |()| ());
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
                        let mut boarding = flights.board(7, "k");
                        loop {
                            let leader = match boarding {
                                Boarding::Lead(leader) => leader,
                                Boarding::Follow(key, follower) => match follower.wait() {
                                    Arrival::Lead(leader) => leader,
                                    _ => {
                                        boarding = flights.board(7, key);
                                        continue;
                                    }
                                },
                                Boarding::Own(_) => panic!("nothing was entered"),
                            };
                            assert_eq!(leading.fetch_add(1, SeqCst), 0, "two leaders");
                            led.fetch_add(1, SeqCst);
                            leading.fetch_sub(1, SeqCst);
                            if (round + thread) % 3 == 0 {
                                drop(leader);
                            } else {
                                leader.land(|_, _| (), |()| ());
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
