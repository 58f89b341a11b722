//! Flights: who loads, who waits, and that nobody waits for ever (`src/flight`). A thread that is never
//! woken is a deadlock, which both models report.

mod common;

use std::{
    pin::Pin,
    sync::{
        Arc as StdArc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    task::{Context, Wake, Waker},
};

use common::{Bounds, explore_within};
use cortado::__internals::{
    flight::{Arrival, Boarding, Flights, Leader},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
        thread,
    },
};

fn explore(scenario: impl Fn() + Send + Sync + 'static) {
    explore_within(Bounds { preemptions: Some(3), seconds: 4, schedules: 3_000 }, scenario);
}

/// What is invisible to the model: how many lead, and how many have loaded.
#[derive(Default)]
struct Ledger {
    leading: AtomicUsize,
    loads: AtomicUsize,
}

struct World {
    flights: Flights<u32>,
    /// Whether the value is there. The model sees it, as it sees the cache's table: where it does not, a
    /// thread that finds the value meets no other, and loom takes one order for all there are.
    is_loaded: AtomicBool,
    ledger: Ledger,
}

impl World {
    fn new() -> Arc<Self> {
        let (flights, is_loaded) = (Flights::new(), AtomicBool::new(false));
        Arc::new(Self { flights, is_loaded, ledger: Ledger::default() })
    }

    fn is_loaded(&self) -> bool {
        self.is_loaded.load(Ordering::Acquire)
    }

    /// Loads, or fails to.
    fn lead(&self, leader: Leader<'_, u32>, fails: bool) {
        assert_eq!(self.ledger.leading.fetch_add(1, SeqCst), 0, "two leaders");
        let done = || _ = self.ledger.leading.fetch_sub(1, SeqCst);
        // A moment in which others may come.
        leader.with_key(|_| ());
        if fails {
            return done();
        }
        let publish = |_, _| {
            self.ledger.loads.fetch_add(1, SeqCst);
            self.is_loaded.store(true, Ordering::Release);
            done();
        };
        leader.land(publish, |()| ());
    }

    /// Asks for the value until it is there.
    fn ask(&self, mut fails: bool) {
        while !self.is_loaded() {
            let leader = match self.flights.board(1, 1) {
                Boarding::Own(_) => panic!("nothing was entered"),
                Boarding::Lead(leader) => leader,
                Boarding::Follow(_, follower) => match follower.wait() {
                    Arrival::Lead(leader) => leader,
                    Arrival::Landed => {
                        assert!(self.is_loaded(), "woken before it landed");
                        return;
                    }
                    Arrival::TimedOut => unreachable!("it waits as long as it takes"),
                },
            };
            // As the cache does: it may have landed since this one looked.
            let fails = std::mem::take(&mut fails);
            if self.is_loaded() {
                return leader.land(|_, _| (), |()| ());
            }
            self.lead(leader, fails);
            if fails {
                return;
            }
        }
    }

    /// Follows, is polled once, and is dropped.
    fn ask_and_give_up(&self) {
        struct Ignore;
        impl Wake for Ignore {
            fn wake(self: StdArc<Self>) {}
        }
        if let Boarding::Follow(_, mut follower) = self.flights.board(1, 1) {
            let waker = Waker::from(StdArc::new(Ignore));
            let _ = Pin::new(&mut follower).poll(&mut Context::from_waker(&waker));
        }
    }

    fn spawn(world: &Arc<Self>, f: impl FnOnce(&Self) + Send + 'static) -> thread::JoinHandle<()> {
        let world = Arc::clone(world);
        thread::spawn(move || f(&world))
    }

    fn finish(&self, loads: usize) {
        assert_eq!(self.ledger.loads.load(SeqCst), loads, "loads");
        assert_eq!(self.flights.count(), 0, "flights are left");
    }
}

#[test]
fn two_ask_and_one_loads() {
    explore(|| {
        let world = World::new();
        let other = World::spawn(&world, |world| world.ask(false));
        world.ask(false);
        other.join().unwrap();
        world.finish(1);
    });
}

#[test]
fn leader_lets_go_and_one_of_two_takes_over() {
    explore(|| {
        let world = World::new();
        let failing = World::spawn(&world, |world| world.ask(true));
        let other = World::spawn(&world, |world| world.ask(false));
        world.ask(false);
        failing.join().unwrap();
        other.join().unwrap();
        // The failing one may have come when all was done.
        world.finish(1);
    });
}

#[test]
fn whoever_was_to_take_over_gives_up() {
    explore(|| {
        let world = World::new();
        let Boarding::Lead(leader) = world.flights.board(1, 1) else { panic!("nobody is here") };
        let giving_up = World::spawn(&world, World::ask_and_give_up);
        let other = World::spawn(&world, |world| world.ask(false));
        drop(leader);
        giving_up.join().unwrap();
        other.join().unwrap();
        world.finish(1);
    });
}

/// A source, and what is cached of it.
struct Source {
    flights: Flights<u32>,
    /// The source says this; Relaxed, as it is somebody else's.
    truth: AtomicU64,
    /// The cached value, or 0.
    cached: AtomicU64,
}

impl Source {
    fn new() -> Arc<Self> {
        let (truth, cached) = (AtomicU64::new(1), AtomicU64::new(0));
        Arc::new(Self { flights: Flights::new(), truth, cached })
    }

    /// Loads, as the cache does, unless somebody else is at it.
    fn load(&self) {
        let Boarding::Lead(leader) = self.flights.board(1, 1) else { return };
        if self.cached.load(Ordering::Acquire) != 0 {
            return leader.land(|_, _| (), |()| ());
        }
        let value = self.truth.load(Ordering::Relaxed);
        let publish = |_, is_overtaken: bool| {
            let cached = (Ordering::AcqRel, Ordering::Acquire);
            !is_overtaken && self.cached.compare_exchange(0, value, cached.0, cached.1).is_ok()
        };
        leader.land(publish, |&is_in| {
            if is_in {
                // Of this value there is one, so that it stands for its address.
                let cached = (Ordering::AcqRel, Ordering::Acquire);
                let _ = self.cached.compare_exchange(value, 0, cached.0, cached.1);
            }
        });
    }

    /// Changes the source, and removes what is cached.
    fn change(&self) {
        self.truth.store(2, Ordering::Relaxed);
        self.flights.overtake(1);
        self.cached.swap(0, Ordering::AcqRel);
    }

    /// Removes without a change, and so in anybody's way.
    fn disturb(&self) {
        self.flights.overtake(1);
    }

    fn spawn(source: &Arc<Self>, f: impl FnOnce(&Self) + Send + 'static) -> thread::JoinHandle<()> {
        let source = Arc::clone(source);
        thread::spawn(move || f(&source))
    }

    fn finish(&self) {
        let (truth, cached) = (self.truth.load(Ordering::Relaxed), &self.cached);
        assert!([0, truth].contains(&cached.load(Ordering::Acquire)), "it is out of date");
        assert_eq!(self.flights.count(), 0, "flights are left");
    }
}

#[test]
fn a_removal_meets_a_load() {
    explore(|| {
        let source = Source::new();
        // So that the flag which says that there are loads is seen.
        drop(source.flights.board(1, 1));
        let loader = Source::spawn(&source, Source::load);
        source.change();
        loader.join().unwrap();
        source.finish();
    });
}

#[test]
fn a_removal_and_another_meet_a_load() {
    explore(|| {
        let source = Source::new();
        drop(source.flights.board(1, 1));
        let loader = Source::spawn(&source, Source::load);
        let other = Source::spawn(&source, Source::disturb);
        source.change();
        loader.join().unwrap();
        other.join().unwrap();
        source.finish();
    });
}
