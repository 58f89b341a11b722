//! The sleep and wake-up of the maintenance thread (`src/primitives/eventcount.rs`): it never
//! sleeps while there is work, and it always ends. A lost wake-up is a deadlock, which both models
//! report.

mod common;

use std::{
    sync::{
        Arc as StdArc,
        atomic::{AtomicU64, AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use common::{Bounds, explore_within};
use cortado::__internals::{
    budget::Budget,
    primitives::eventcount::EventCount,
    primitives::stack::{Node, Stack},
    reclaim::{self, pin},
    sync::{Arc, thread},
    table::{Table, Terms},
};

fn explore(scenario: impl Fn() + Send + Sync + 'static) {
    explore_within(Bounds { preemptions: Some(3), seconds: 4, schedules: 3_000 }, scenario);
}

/// The places where work arrives, and the thread that does it.
struct World {
    eventcount: EventCount,
    budget: Budget,
    stack: Stack<u64>,
    table: Table<Value>,
    /// The work that the thread has done. Invisible to the model.
    done: AtomicU64,
    dropped: StdArc<AtomicUsize>,
}

/// A retired value.
struct Value(StdArc<AtomicUsize>);

impl Drop for Value {
    fn drop(&mut self) {
        self.0.fetch_add(1, SeqCst);
    }
}

/// What a round does to the thread's park token.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Round {
    Plain,
    /// It parks and is unparked, as a listener that waits may do.
    Parks,
    /// The recheck of a thread that is about to sleep does so.
    RecheckParks,
}

impl Round {
    fn park(self, when: Self) {
        if self == when {
            // Twice, because loom forgets the first one for a thread that has just yielded.
            thread::current().unpark();
            thread::current().unpark();
            thread::park();
        }
    }
}

impl World {
    fn new() -> Arc<Self> {
        Self::with_stripes(2)
    }

    /// Creates a world with bags of two handles and `stripes` of them.
    fn with_stripes(stripes: usize) -> Arc<Self> {
        reclaim::reset();
        Arc::new(Self {
            eventcount: EventCount::default(),
            budget: Budget::new(10),
            stack: Stack::new(),
            table: Table::new(1, 512, stripes).unwrap(),
            done: AtomicU64::new(0),
            dropped: StdArc::default(),
        })
    }

    /// The loop of the maintenance thread, its engine reduced to the places where work arrives. It
    /// returns when it is stopped, or when `work` is done: if it sleeps forever before, the
    /// scenario's join never returns.
    fn run(&self, work: u64, round: Round) {
        self.eventcount.set_thread(thread::current());
        let mut rounds = 0;
        while !self.eventcount.resume() {
            round.park(Round::Parks);
            let is_waiting = self.maintain();
            if self.done.load(SeqCst) >= work {
                return;
            }
            rounds += 1;
            assert!(rounds < 50, "turns in circles");
            if is_waiting {
                self.eventcount.wait_timeout(Duration::ZERO);
                continue;
            }
            self.eventcount.wait(|| {
                let has_work = self.has_work();
                round.park(Round::RecheckParks);
                has_work.then_some(Duration::ZERO)
            });
        }
    }

    fn has_work(&self) -> bool {
        self.budget.recheck() > 0 || self.stack.recheck() || self.table.recheck()
    }

    /// Does the work that it finds with plain loads; returns whether bags wait.
    fn maintain(&self) -> bool {
        let used = self.budget.used();
        if used > 0 {
            self.budget.refund(used);
            self.done.fetch_add(used, SeqCst);
        }
        for node in self.stack.take() {
            self.done.fetch_add(**node, SeqCst);
        }
        let (freed, waiting) = self.sweep_garbage();
        self.done.fetch_add(freed as u64, SeqCst);
        waiting > 0
    }

    /// Returns how many values were freed, and how many bags wait.
    fn sweep_garbage(&self) -> (usize, usize) {
        self.table.seal();
        let swept = self.table.sweep(usize::MAX, None);
        (swept.freed, swept.waiting)
    }

    /// Models an insert.
    fn charge(&self, cost: u64) {
        assert!(self.budget.try_charge(cost));
        self.eventcount.notify();
    }

    /// Models a post of a deadline.
    fn push(&self, value: u64) {
        self.stack.push(Node::new(value));
        self.eventcount.notify();
    }

    /// Models an insert that helps to free.
    fn sweep(&self) {
        let (freed, waiting) = self.sweep_garbage();
        self.done.fetch_add(freed as u64, SeqCst);
        if freed > 0 {
            // Otherwise the thread would wait for work that is done already.
            self.push(0);
        } else if waiting > 0 {
            self.eventcount.notify();
        }
    }

    /// Models a remove.
    fn retire(&self, stripe: usize) {
        let value = Value(StdArc::clone(&self.dropped));
        let value = self.table.prepare(value, 1, stripe).unwrap_or_else(|_| panic!("no memory"));
        let guard = self.table.pin();
        self.table.retire(&guard, value.into_unlinked(), Terms::NONE, stripe);
        drop(guard);
        self.eventcount.notify();
    }
}

fn spawn(world: &Arc<World>, f: impl FnOnce(&World) + Send + 'static) -> thread::JoinHandle<()> {
    let world = Arc::clone(world);
    thread::spawn(move || f(&world))
}

/// Checks that everything is freed, after all threads have ended.
fn finish(world: Arc<World>) {
    let world = Arc::try_unwrap(world).unwrap_or_else(|_| panic!("a thread is left"));
    drop(world);
    let (retired, freed) = reclaim::census();
    assert_eq!(retired, freed);
}

/// Runs a thread that has to do `work`, while this thread calls `bring` and others call `others`.
fn work(work: u64, others: &[fn(&World)], bring: fn(&World)) {
    let world = World::new();
    let runner = spawn(&world, move |w| w.run(work, Round::Plain));
    let others: Vec<_> = others.iter().map(|&other| spawn(&world, other)).collect();
    bring(&world);
    for other in others {
        other.join().unwrap();
    }
    runner.join().unwrap();
    assert_eq!(world.done.load(SeqCst), work);
    finish(world);
}

#[test]
fn a_charge_meets_a_thread_that_prepares_to_sleep() {
    explore(|| work(1, &[], |w| w.charge(1)));
}

#[test]
fn a_push_meets_a_thread_that_prepares_to_sleep() {
    explore(|| work(1, &[], |w| w.push(1)));
}

#[test]
fn a_retirement_meets_a_thread_that_prepares_to_sleep() {
    explore(|| work(1, &[], |w| w.retire(1)));
}

/// The second one fills the bag, which is then sealed.
#[test]
fn two_retirements_meet_a_thread_that_prepares_to_sleep() {
    explore(|| {
        work(2, &[], |w| {
            w.retire(1);
            w.retire(1);
        });
    });
}

/// Two threads at one stripe: one of them finds the other's bag in its place.
#[test]
fn two_retirements_at_one_stripe_meet_a_thread_that_prepares_to_sleep() {
    explore(|| work(2, &[|w| w.retire(1)], |w| w.retire(1)));
}

/// Another thread takes the garbage, cannot free it, and puts it into a limbo list.
#[test]
fn a_sweep_meets_a_thread_that_prepares_to_sleep() {
    explore(|| {
        work(1, &[|w| w.sweep()], |w| w.retire(1));
    });
}

/// The sweep finds the retired value protected by this thread's guard; then the thread has to free
/// it.
fn sweep_what_waits(others: &[fn(&World)]) {
    let world = World::new();
    let guard = pin();
    world.retire(1);
    world.sweep();
    let runner = spawn(&world, |w| w.run(1, Round::Plain));
    let others: Vec<_> = others.iter().map(|&other| spawn(&world, other)).collect();
    world.sweep();
    for other in others {
        other.join().unwrap();
    }
    drop(guard);
    runner.join().unwrap();
    assert_eq!(world.done.load(SeqCst), 1);
    finish(world);
}

/// The sweep holds the limbo list while the thread rechecks.
#[test]
fn a_sweep_of_what_waits_meets_a_thread_that_prepares_to_sleep() {
    explore(|| sweep_what_waits(&[]));
}

/// One of the sweeps finds the list taken.
#[test]
fn two_sweeps_of_what_waits_meet_a_thread_that_prepares_to_sleep() {
    explore(|| sweep_what_waits(&[World::sweep]));
}

/// One of the sweeps finds bags in its place that the other has left there.
#[test]
fn two_sweeps_meet_at_the_only_line_and_a_thread_that_prepares_to_sleep() {
    explore(|| {
        let world = World::with_stripes(1);
        let guard = pin();
        world.retire(1);
        let runner = spawn(&world, |w| w.run(1, Round::Plain));
        let other = spawn(&world, World::sweep);
        world.sweep();
        other.join().unwrap();
        drop(guard);
        runner.join().unwrap();
        assert_eq!(world.done.load(SeqCst), 1);
        finish(world);
    });
}

#[test]
fn two_notifiers_meet_a_thread_that_prepares_to_sleep() {
    explore(|| work(3, &[|w| w.charge(1)], |w| w.push(2)));
}

#[test]
fn work_comes_twice() {
    explore(|| {
        work(2, &[], |w| {
            w.charge(1);
            w.charge(1);
        });
    });
}

#[test]
fn a_stop_meets_a_thread_that_prepares_to_sleep() {
    explore(|| {
        let world = World::new();
        let runner = spawn(&world, |w| w.run(u64::MAX, Round::Plain));
        world.eventcount.stop();
        runner.join().unwrap();
        finish(world);
    });
}

#[test]
fn a_stop_meets_a_wake() {
    explore(|| {
        let world = World::new();
        let runner = spawn(&world, |w| w.run(u64::MAX, Round::Plain));
        let writer = spawn(&world, |w| w.charge(1));
        world.eventcount.stop();
        writer.join().unwrap();
        runner.join().unwrap();
        finish(world);
    });
}

/// The round consumes the token that was meant for the thread's sleep.
#[test]
fn a_stop_meets_a_round_that_parks() {
    explore(|| {
        let world = World::new();
        let runner = spawn(&world, |w| w.run(u64::MAX, Round::Parks));
        world.eventcount.stop();
        runner.join().unwrap();
        finish(world);
    });
}

#[test]
fn a_charge_meets_a_round_that_parks() {
    explore(|| {
        let world = World::new();
        let runner = spawn(&world, |w| w.run(1, Round::Parks));
        world.charge(1);
        runner.join().unwrap();
        finish(world);
    });
}

#[test]
fn a_charge_meets_a_recheck_that_parks() {
    explore(|| {
        let world = World::new();
        let runner = spawn(&world, move |w| w.run(1, Round::RecheckParks));
        world.charge(1);
        runner.join().unwrap();
        finish(world);
    });
}

#[test]
fn a_stop_meets_a_recheck_that_parks() {
    explore(|| {
        let world = World::new();
        let runner = spawn(&world, |w| w.run(u64::MAX, Round::RecheckParks));
        world.eventcount.stop();
        runner.join().unwrap();
        finish(world);
    });
}
