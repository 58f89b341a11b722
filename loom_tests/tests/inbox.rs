//! Deadlines on their way to the timing wheel (`src/expiry/inbox.rs`), the posted bit of entries
//! (`src/entry.rs`), and the thread that sleeps until the next deadline
//! (`src/primitives/eventcount.rs`). No deadline is lost, and none is found too late.

mod common;

use std::{
    cell::Cell,
    sync::{Arc as StdArc, Mutex},
    time::Duration,
};

use common::{Bounds, explore_within};
use cortado::__internals::{
    entry::Times,
    expiry::inbox::{ExpiryInbox, NEVER, NextExpiry},
    primitives::eventcount::EventCount,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
        thread,
    },
};

fn explore(scenario: impl Fn() + Send + Sync + 'static) {
    explore_within(Bounds { preemptions: Some(3), seconds: 4, schedules: 3_000 }, scenario);
}

/// Deadlines and a timing wheel. The hash is the time, and time does not advance.
struct World {
    inbox: ExpiryInbox,
    eventcount: EventCount,
    /// Whether the timing wheel is free. A thread takes it out to work on it, as in the engine.
    is_free: AtomicBool,
    /// The deadlines in the timing wheel. Invisible to the model.
    known: Mutex<Vec<u64>>,
}

impl World {
    fn new(stripes: usize) -> Arc<Self> {
        Arc::new(Self {
            inbox: ExpiryInbox::new(stripes),
            eventcount: EventCount::default(),
            is_free: AtomicBool::new(true),
            known: Mutex::default(),
        })
    }

    fn post(&self, at: u64) {
        if self.inbox.post(at, at) {
            self.eventcount.notify();
        }
    }

    /// Models `Engine::expire`; nothing is due yet.
    fn keep(&self) {
        // Swaps, like the cell that holds the timing wheel.
        if !self.inbox.is_used() || !self.is_free.swap(false, Ordering::AcqRel) {
            return;
        }
        self.inbox.begin();
        self.inbox.collect(|hashes| self.known.lock().unwrap().extend_from_slice(hashes));
        let first = self.known.lock().unwrap().iter().copied().min();
        if let Some(first) = first {
            self.inbox.end(first);
            if self.eventcount.is_waiting() {
                self.eventcount.notify();
            }
        }
        self.is_free.swap(true, Ordering::AcqRel);
    }

    /// The loop of the maintenance thread. It returns when the thread would wake in time for
    /// `first`: if it sleeps for longer, and no thread wakes it, the scenario's join never returns.
    fn run(&self, first: u64) {
        self.eventcount.set_thread(thread::current());
        let is_in_time = Cell::new(false);
        let mut rounds = 0;
        while !is_in_time.get() && !self.eventcount.resume() {
            rounds += 1;
            assert!(rounds < 50, "turns in circles");
            self.keep();
            self.eventcount.wait(|| {
                let next = self.inbox.recheck();
                is_in_time.set(matches!(next, NextExpiry::At(at) if at <= first));
                let goes_on = is_in_time.get() || next == NextExpiry::Now;
                goes_on.then_some(Duration::ZERO)
            });
        }
    }

    /// Checks that every posted deadline is found, after all threads have ended.
    fn finish(world: Arc<Self>, all: &[u64]) {
        world.keep();
        let mut known = world.known.lock().unwrap().clone();
        known.sort_unstable();
        known.dedup();
        assert_eq!(known, all);
    }
}

fn spawn(world: &Arc<World>, f: impl FnOnce(&World) + Send + 'static) -> thread::JoinHandle<()> {
    let world = Arc::clone(world);
    thread::spawn(move || f(&world))
}

#[test]
fn a_post_meets_a_thread_that_prepares_to_sleep() {
    explore(|| {
        let world = World::new(1);
        let runner = spawn(&world, |w| w.run(1));
        world.post(1);
        runner.join().unwrap();
        World::finish(world, &[1]);
    });
}

/// The thread knows of a later deadline already.
#[test]
fn an_earlier_post_meets_a_thread_that_prepares_to_sleep() {
    explore(|| {
        let world = World::new(1);
        world.post(5);
        let runner = spawn(&world, |w| w.run(1));
        world.post(1);
        runner.join().unwrap();
        World::finish(world, &[1, 5]);
    });
}

/// The ring is full, and contains the first post when the second writer seals it.
#[test]
fn two_posts_in_one_ring_meet_a_thread_that_prepares_to_sleep() {
    explore(|| {
        let world = World::new(1);
        let runner = spawn(&world, |w| w.run(1));
        let writer = spawn(&world, |w| w.post(5));
        world.post(1);
        writer.join().unwrap();
        runner.join().unwrap();
        World::finish(world, &[1, 5]);
    });
}

/// Another thread holds the timing wheel while the thread rechecks.
#[test]
fn a_tick_meets_a_thread_that_prepares_to_sleep() {
    explore(|| {
        let world = World::new(1);
        world.post(1);
        let runner = spawn(&world, |w| w.run(1));
        world.keep();
        runner.join().unwrap();
        World::finish(world, &[1]);
    });
}

#[test]
fn a_tick_and_a_post_meet_a_thread_that_prepares_to_sleep() {
    explore(|| {
        let world = World::new(1);
        world.post(5);
        let runner = spawn(&world, |w| w.run(1));
        let ticker = spawn(&world, |w| w.keep());
        world.post(1);
        ticker.join().unwrap();
        runner.join().unwrap();
        World::finish(world, &[1, 5]);
    });
}

/// The timing wheel's next deadline is sooner than the writer's, so the writer does not notify. The
/// first post in the ring, which is sooner still, is being drained by the writer while the thread
/// rechecks.
#[test]
fn a_writer_that_drains_meets_a_thread_that_prepares_to_sleep() {
    explore(|| {
        let world = World::new(1);
        world.post(3);
        world.keep();
        world.post(1);
        let runner = spawn(&world, |w| w.run(1));
        world.post(5);
        runner.join().unwrap();
        World::finish(world, &[1, 3, 5]);
    });
}

/// The sooner deadline is gone, and the writer may or may not see that.
#[test]
fn a_post_that_wakes_no_thread_meets_a_thread_that_prepares_to_sleep() {
    explore(|| {
        let world = World::new(1);
        world.post(1);
        world.inbox.collect(|hashes| assert_eq!(hashes, [1]));
        let runner = spawn(&world, |w| w.run(2));
        world.post(2);
        runner.join().unwrap();
        World::finish(world, &[2]);
    });
}

/// A post that the tick has missed keeps `next` low: writers that lack room rely on that.
#[test]
fn a_post_meets_a_tick() {
    explore(|| {
        let world = World::new(1);
        world.post(5);
        let ticker = spawn(&world, |w| w.keep());
        world.post(1);
        ticker.join().unwrap();
        assert!(world.inbox.next() <= 1, "it is forgotten");
        World::finish(world, &[1, 5]);
    });
}

/// A writer reaches its slot a lap late.
#[test]
fn posts_meet_laps_of_their_ring() {
    explore(|| {
        let world = World::new(1);
        let late = spawn(&world, |w| _ = w.inbox.post(1, 1));
        let keeper = spawn(&world, |w| {
            w.keep();
            w.keep();
        });
        (2..=4).for_each(|at| _ = world.inbox.post(at, at));
        late.join().unwrap();
        keeper.join().unwrap();
        World::finish(world, &[1, 2, 3, 4]);
    });
}

/// The timing wheel's record of one entry's deadlines.
fn keep_entry(world: &World, words: &[AtomicU64; 2], noted: &Mutex<Vec<u64>>) {
    let times = Times::of(words);
    world.inbox.begin();
    world.inbox.collect(|_| {
        if times.mark_known() {
            noted.lock().unwrap().push(times.deadline(NEVER));
        }
    });
}

/// Whatever the tick sees, it ends with a timer that is not too late.
#[test]
fn a_renewal_meets_a_use_and_the_keeper() {
    explore(|| {
        let world = World::new(1);
        let words = Arc::new([50, 0].map(AtomicU64::new));
        let times = Times::of(&words);
        let noted = StdArc::new(Mutex::new(Vec::new()));
        let _ = world.inbox.post(1, 50);
        let keeper = {
            let (world, words, noted) = (world.clone(), words.clone(), noted.clone());
            thread::spawn(move || keep_entry(&world, &words, &noted))
        };
        let user = {
            let words = words.clone();
            thread::spawn(move || Times::of(&words).record_use(9, 1))
        };
        assert_eq!(times.set_deadline(20), 50);
        let _ = world.inbox.post(1, 20);
        keeper.join().unwrap();
        user.join().unwrap();
        keep_entry(&world, &words, &noted);
        let noted = noted.lock().unwrap();
        assert!(noted.contains(&20), "noted {noted:?}");
    });
}
