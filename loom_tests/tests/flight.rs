//! Flights: who loads, who waits, and that nobody waits for ever (`src/flight.rs`). A thread that is never
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
        atomic::{AtomicBool, Ordering},
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
        leader.land(|_| {
            self.ledger.loads.fetch_add(1, SeqCst);
            self.is_loaded.store(true, Ordering::Release);
            done();
        });
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
                return leader.land(|_| ());
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
