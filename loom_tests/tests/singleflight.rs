//! Flights: which caller loads, which ones wait, and that no caller waits forever
//! (`src/singleflight`). A lost wake-up is a deadlock, which both models report.

#![allow(unsafe_code)] // the shared value of a load is stored in a slab cell

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
    reclaim,
    singleflight::{Caller, Flights, Follower, Joined, Leader, Outcome, WaitOutcome},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
        thread,
    },
    table::{Loose, Table, Terms},
};

fn explore(scenario: impl Fn() + Send + Sync + 'static) {
    explore_within(Bounds { preemptions: Some(3), seconds: 4, schedules: 3_000 }, scenario);
}

/// Counters invisible to the model: how many threads lead, and how many have loaded.
#[derive(Default)]
struct Ledger {
    leading: AtomicUsize,
    loads: AtomicUsize,
}

struct World {
    flights: Flights<u32, ()>,
    /// Whether the value is there. Visible to the model, as the cache's table is. Otherwise a
    /// thread that finds the value would interact with no other, and loom would explore a single
    /// order.
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
    fn lead(&self, leader: Leader<'_, u32, ()>, fails: bool) {
        assert_eq!(self.ledger.leading.fetch_add(1, SeqCst), 0, "two leaders");
        let done = || _ = self.ledger.leading.fetch_sub(1, SeqCst);
        // Lets other callers arrive.
        thread::yield_now();
        if fails {
            return done();
        }
        let publish = |_, _| {
            self.ledger.loads.fetch_add(1, SeqCst);
            self.is_loaded.store(true, Ordering::Release);
            done();
            ((), Outcome::Nothing)
        };
        leader.complete(publish, |()| None);
    }

    /// Asks for the value until it is there.
    fn ask(&self, mut fails: bool) {
        while !self.is_loaded() {
            let leader = match self.flights.join(1, 1, Caller::Task) {
                Joined::Own(_) => panic!("nothing was entered"),
                Joined::Lead(leader) => leader,
                Joined::Follow(_, mut follower) => match follower.wait() {
                    WaitOutcome::Lead(leader) => leader,
                    WaitOutcome::Completed => {
                        assert!(self.is_loaded(), "woken before it was over");
                        return;
                    }
                    WaitOutcome::TimedOut => unreachable!("it waits as long as it takes"),
                },
            };
            // Checks again, as the cache does: the load may have completed since the first check.
            let fails = std::mem::take(&mut fails);
            if self.is_loaded() {
                leader.complete(|_, _| ((), Outcome::Nothing), |()| None);
                return;
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
        if let Joined::Follow(_, mut follower) = self.flights.join(1, 1, Caller::Task) {
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
        // The failing caller may have arrived after the load completed.
        world.finish(1);
    });
}

#[test]
fn the_next_leader_gives_up() {
    explore(|| {
        let world = World::new();
        let Joined::Lead(leader) = world.flights.join(1, 1, Caller::Task) else {
            panic!("no other is here")
        };
        let giving_up = World::spawn(&world, World::ask_and_give_up);
        let other = World::spawn(&world, |world| world.ask(false));
        drop(leader);
        giving_up.join().unwrap();
        other.join().unwrap();
        world.finish(1);
    });
}

#[test]
fn error_reaches_all_that_wait_and_no_other() {
    explore(|| {
        let world = World::new();
        let Joined::Lead(leader) = world.flights.join(1, 1, Caller::Task) else {
            panic!("no other is here")
        };
        let ask = |world: &World| match world.flights.join(1, 1, Caller::Task) {
            Joined::Own(_) => panic!("nothing was entered"),
            // The flight is over, or the other caller leads the next.
            Joined::Lead(leader) => drop(leader),
            Joined::Follow(_, mut follower) => match follower.wait() {
                WaitOutcome::Lead(leader) => drop(leader),
                WaitOutcome::Completed => {
                    let failure = follower.failure().expect("the load has failed");
                    let error = failure.error.downcast_ref::<&str>();
                    assert_eq!((failure.key, error), (1, Some(&"down")));
                }
                WaitOutcome::TimedOut => unreachable!("it waits as long as it takes"),
            },
        };
        let others = [World::spawn(&world, ask), World::spawn(&world, ask)];
        leader.fail(StdArc::new("down"));
        others.into_iter().for_each(|other| other.join().unwrap());
        world.finish(0);
    });
}

/// A source and the cached copy of its value. Values stand for addresses, so each is cached once.
struct Source {
    flights: Flights<u32, ()>,
    /// The value in the source. Relaxed, because it is not the cache's.
    truth: AtomicU64,
    /// The cached value, or 0.
    cached: AtomicU64,
    /// The number of invalidated loads. Invisible to the model.
    invalid: AtomicUsize,
}

/// The source's first value, and its next one.
const OLD: u64 = 64;
const NEW: u64 = 128;
/// Added to an address to give that of a copy.
const COPY: u64 = 1;
/// The value that a writer caches without a source.
const WRITTEN: u64 = 192;

impl Source {
    fn new() -> Arc<Self> {
        let source = Self {
            flights: Flights::new(),
            truth: AtomicU64::new(OLD),
            cached: AtomicU64::new(0),
            invalid: AtomicUsize::new(0),
        };
        // Makes the flag that there are loads visible.
        drop(source.flights.join(1, 1, Caller::Task));
        Arc::new(source)
    }

    fn cached(&self) -> u64 {
        self.cached.load(Ordering::Acquire)
    }

    fn exchange(&self, old: u64, new: u64) -> bool {
        self.cached.compare_exchange(old, new, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    /// Loads as the cache does, unless the value is being loaded already.
    fn load(&self) {
        if let Joined::Lead(leader) = self.flights.join(1, 1, Caller::Task) {
            self.lead(leader);
        }
    }

    fn lead(&self, leader: Leader<'_, u32, ()>) {
        if self.cached() != 0 {
            leader.complete(|_, _| ((), Outcome::Nothing), |()| None);
            return;
        }
        let value = self.truth.load(Ordering::Relaxed);
        let publish = |_, is_invalid: bool| {
            if is_invalid {
                self.invalid.fetch_add(1, SeqCst);
            }
            let is_in = !is_invalid && self.exchange(0, value);
            ((), if is_in { Outcome::Published(value as usize) } else { Outcome::Nothing })
        };
        leader.complete(publish, |()| {
            self.invalid.fetch_add(1, SeqCst);
            self.exchange(value, 0);
            None
        });
    }

    /// Loads the cached value again and replaces it by a copy at another address, as a refresh
    /// does.
    fn refresh(&self) {
        let Joined::Lead(leader) = self.flights.join(1, 1, Caller::Task) else { return };
        let seen = self.cached();
        let copy = self.truth.load(Ordering::Relaxed) + COPY;
        let publish = |_, is_invalid: bool| {
            let is_in = !is_invalid && (self.exchange(seen, copy) || self.exchange(0, copy));
            ((), if is_in { Outcome::Published(copy as usize) } else { Outcome::Nothing })
        };
        leader.complete(publish, |()| {
            self.exchange(copy, 0);
            None
        });
    }

    /// Computes a change of the cached value, as a task does: reads, and replaces what it has read
    /// unless the key was written. Returns what it has read.
    fn compute(&self, content: &AtomicU64, is_pinned: &AtomicBool) -> u64 {
        let Joined::Lead(leader) = self.flights.join(1, 1, Caller::Task) else {
            panic!("no other leads")
        };
        let (seen, known) = (self.cached(), content.load(Ordering::Acquire));
        leader.change(|_, is_unwritten| {
            is_pinned.swap(true, Ordering::AcqRel);
            let is_there = self.cached() == seen;
            if is_there && is_unwritten() {
                self.exchange(seen, seen + COPY);
            }
            is_pinned.swap(false, Ordering::AcqRel);
        });
        known
    }

    /// Changes the source, and caches its new value.
    fn change_and_cache(&self) {
        self.truth.store(NEW, Ordering::Relaxed);
        self.write(|| {
            self.cached.swap(NEW, Ordering::AcqRel);
            true
        });
    }

    /// Writes, if `change` does, and removes the value that a load has left to this write.
    fn write(&self, change: impl FnOnce() -> bool) {
        let write = self.flights.begin_write(1);
        if change()
            && let Some(address) = write.commit()
        {
            self.invalid.fetch_add(1, SeqCst);
            self.exchange(address as u64, 0);
        }
    }

    /// Changes the source, and removes the cached value.
    fn change(&self) {
        self.truth.store(NEW, Ordering::Relaxed);
        self.write(|| {
            self.cached.swap(0, Ordering::AcqRel);
            true
        });
    }

    /// Removes nothing.
    fn keep(&self) {
        self.write(|| false);
    }

    /// Caches a value without a source, at any address, and evicts it.
    fn write_and_evict(&self) {
        self.write(|| {
            self.cached.swap(WRITTEN, Ordering::AcqRel);
            self.exchange(WRITTEN, 0);
            true
        });
    }

    fn spawn(source: &Arc<Self>, f: impl FnOnce(&Self) + Send + 'static) -> thread::JoinHandle<()> {
        let source = Arc::clone(source);
        thread::spawn(move || f(&source))
    }

    fn finish(&self) {
        let truth = self.truth.load(Ordering::Relaxed);
        assert!([0, truth].contains(&self.cached()), "it is out of date");
        assert_eq!(self.flights.count(), 0, "flights are left");
    }
}

#[test]
fn a_removal_meets_a_load() {
    explore(|| {
        let source = Source::new();
        let loader = Source::spawn(&source, Source::load);
        source.change();
        loader.join().unwrap();
        source.finish();
    });
}

#[test]
fn a_write_meets_a_refresh() {
    for is_removal in [false, true] {
        explore(move || {
            let source = Source::new();
            source.cached.store(OLD, Ordering::Release);
            let refreshing = Source::spawn(&source, Source::refresh);
            if is_removal {
                source.change();
            } else {
                source.change_and_cache();
            }
            refreshing.join().unwrap();
            let cached = source.cached();
            assert!([0, NEW, NEW + COPY].contains(&cached), "{cached} is out of date");
            assert_eq!(source.flights.count(), 0, "flights are left");
        });
    }
}

/// An entry is evicted, and its address is reused for a newer one, while a computation is based on
/// it.
#[test]
fn a_computation_meets_a_newer_entry_at_the_same_address() {
    explore(|| {
        let source = Source::new();
        source.cached.store(OLD, Ordering::Release);
        let (content, is_pinned) = (Arc::new(AtomicU64::new(1)), Arc::new(AtomicBool::new(false)));
        let writer = {
            let (content, is_pinned) = (Arc::clone(&content), Arc::clone(&is_pinned));
            Source::spawn(&source, move |source| {
                source.cached.swap(0, Ordering::AcqRel);
                // No address is reused while an older pin exists.
                let is_free = !is_pinned.fetch_or(false, Ordering::AcqRel);
                content.store(2, Ordering::Release);
                source.write(|| {
                    source.cached.swap(if is_free { OLD } else { WRITTEN }, Ordering::AcqRel);
                    true
                });
            })
        };
        let known = source.compute(&content, &is_pinned);
        writer.join().unwrap();
        // The computation came last only if it was based on the newer entry.
        let cached = source.cached();
        assert!(cached == WRITTEN || cached == OLD || known == 2, "{cached} of {known}");
        assert_eq!(source.flights.count(), 0, "flights are left");
    });
}

#[test]
fn a_removal_and_another_meet_a_load() {
    explore(|| {
        let source = Source::new();
        let loader = Source::spawn(&source, Source::load);
        let other = Source::spawn(&source, Source::keep);
        source.change();
        loader.join().unwrap();
        other.join().unwrap();
        source.finish();
    });
}

#[test]
fn a_write_that_is_evicted_meets_a_load_that_began_before() {
    explore(|| {
        let source = Source::new();
        let Joined::Lead(leader) = source.flights.join(1, 1, Caller::Task) else {
            panic!("no other is here")
        };
        let writer = Source::spawn(&source, Source::write_and_evict);
        source.lead(leader);
        writer.join().unwrap();
        // Either the load came first and was overwritten, or its value is older than the write.
        assert_eq!(source.cached(), 0, "older than what was written");
        source.finish();
    });
}

#[test]
fn a_write_that_changes_nothing_invalidates_no_load() {
    explore(|| {
        let source = Source::new();
        let keeper = Source::spawn(&source, Source::keep);
        source.load();
        keeper.join().unwrap();
        assert_eq!((source.cached(), source.invalid.load(SeqCst)), (OLD, 0));
        source.finish();
    });
}

#[test]
fn a_load_that_begins_after_a_write_is_not_invalidated_by_it() {
    explore(|| {
        let source = Source::new();
        let Joined::Lead(leader) = source.flights.join(1, 1, Caller::Task) else {
            panic!("no other is here")
        };
        // Holds the lock intermittently, so that the write has to record itself as pending.
        let other = Source::spawn(&source, |source| _ = source.flights.count());
        source.change();
        let begun = source.flights.join(1, 1, Caller::Task);
        let Joined::Lead(later) = begun else { panic!("the write has invalidated the first") };
        drop(leader);
        source.lead(later);
        assert_eq!((source.cached(), source.invalid.load(SeqCst)), (NEW, 0));
        other.join().unwrap();
        source.finish();
    });
}

/// A loaded value that is only in its flight: a cell that loom watches, and a drop counter that it
/// does not.
struct Value {
    #[cfg(cortado_loom)]
    watched: loom::cell::Cell<u64>,
    dropped: StdArc<AtomicUsize>,
}

impl Value {
    fn read(&self) {
        #[cfg(cortado_loom)]
        assert_eq!(self.watched.get(), 7);
        assert_eq!(self.dropped.load(SeqCst), 0, "read when it is dropped");
    }
}

impl Drop for Value {
    fn drop(&mut self) {
        if std::thread::panicking() {
            return;
        }
        #[cfg(cortado_loom)]
        self.watched.set(0);
        self.dropped.fetch_add(1, SeqCst);
    }
}

/// A flight whose value is rejected by the cache.
struct Shared {
    // Before the table, because the shared value is in the table's slab.
    flights: Flights<u32, Loose>,
    table: Table<Value>,
    dropped: StdArc<AtomicUsize>,
}

/// What a follower does.
type Act = fn(&Shared, Follower<'_, u32, Loose>);

impl Shared {
    fn new() -> Arc<Self> {
        reclaim::reset();
        Arc::new(Self {
            flights: Flights::new(),
            table: Table::new(1, 4, 1).unwrap(),
            dropped: StdArc::default(),
        })
    }

    fn lead(&self) -> Leader<'_, u32, Loose> {
        match self.flights.join(1, 1, Caller::Task) {
            Joined::Lead(leader) => leader,
            _ => panic!("no other is here"),
        }
    }

    fn fill(&self, leader: Leader<'_, u32, Loose>) {
        let guard = self.table.pin();
        let value = Value {
            #[cfg(cortado_loom)]
            watched: loom::cell::Cell::new(7),
            dropped: StdArc::clone(&self.dropped),
        };
        let value = self.table.prepare(value, 1, 0).unwrap_or_else(|_| panic!("no memory"));
        let loose = Loose::unpublished(value, Terms { seal_at: 0, ..Terms::NONE });
        let value = self.table.see(&guard, &loose);
        let ((), kept) = leader.complete(|_, _| ((), Outcome::Unpublished(loose)), |()| None);
        value.read();
        self.retire(kept);
        value.read();
    }

    fn retire(&self, last: Option<Loose>) {
        if let Some(last) = last {
            self.table.retire_loose(&self.table.pin(), last, 0);
        }
    }

    fn take(&self, mut follower: Follower<'_, u32, Loose>) {
        match follower.wait() {
            WaitOutcome::Completed => {}
            // It follows the other caller, which is dropped.
            _ => return,
        }
        let (held, last) = follower.share(&self.table);
        let held = held.expect("the flight has kept it");
        self.retire(last);
        self.sweep();
        held.read();
        drop(held);
        self.sweep();
    }

    fn leave(&self, mut follower: Follower<'_, u32, Loose>) {
        self.retire(follower.leave());
    }

    fn sweep(&self) {
        assert!(self.table.sweep(usize::MAX, None).panic.is_none());
    }

    /// Asks, and follows if it is to follow, or is dropped if it is to lead.
    fn ask(&self, act: Act) {
        match self.flights.join(1, 1, Caller::Task) {
            Joined::Follow(_, follower) => act(self, follower),
            Joined::Lead(leader) => drop(leader),
            Joined::Own(_) => panic!("nothing was entered"),
        }
    }

    /// Completes the load while two threads ask.
    fn play(acts: [Act; 2]) {
        let shared = Self::new();
        let leader = shared.lead();
        let threads = acts.map(|act| {
            let shared = Arc::clone(&shared);
            thread::spawn(move || shared.ask(act))
        });
        shared.fill(leader);
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        let shared = Arc::try_unwrap(shared).unwrap_or_else(|_| panic!("a thread is left"));
        let Self { mut flights, table, dropped } = shared;
        assert_eq!(flights.count(), 0, "flights are left");
        assert!(flights.take_all_unpublished().is_empty());
        drop(table);
        assert_eq!(dropped.load(SeqCst), 1, "dropped");
        // crossbeam-epoch has no such list.
        if cfg!(not(crossbeam_loom)) {
            let (retired, freed) = reclaim::census();
            assert_eq!(retired, freed, "something is left");
        }
    }
}

#[test]
fn two_followers_share_what_the_table_has_not() {
    explore(|| Shared::play([Shared::take, Shared::take]));
}

#[test]
fn a_follower_shares_what_another_leaves() {
    explore(|| Shared::play([Shared::take, Shared::leave]));
}
