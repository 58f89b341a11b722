//! Limbo: retire, seal, sweep and drop (`src/reclaim/limbo.rs`).
#![allow(unsafe_code)] // a structure of one slot is made here, to retire from

mod common;

use std::ptr::NonNull;
use std::sync::{
    Arc as StdArc,
    atomic::{AtomicUsize, Ordering::SeqCst},
};

use common::{Bounds, explore_within};
use cortado::__internals::{
    reclaim::{
        self,
        block::Stored,
        limbo::{Limbo, Unlinked},
        pin,
    },
    sync::{
        Arc,
        atomic::{AtomicPtr, Ordering},
        model::as_reader,
        thread,
    },
};

fn explore(scenario: impl Fn() + Send + Sync + 'static) {
    explore_within(Bounds { preemptions: Some(3), seconds: 4, schedules: 3_000 }, scenario);
}

/// A plain cell that loom watches, and a count of drops that it does not.
struct Value {
    #[cfg(cortado_loom)]
    watched: loom::cell::Cell<u64>,
    dropped: StdArc<AtomicUsize>,
}

// SAFETY: it never has a tail, and says so.
unsafe impl Stored for Value {
    type Tail = ();
}

impl Value {
    fn read(&self) {
        #[cfg(cortado_loom)]
        assert_eq!(self.watched.get(), 7);
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

struct World {
    slot: AtomicPtr<Value>,
    limbo: Limbo<Value>,
    dropped: StdArc<AtomicUsize>,
}

impl World {
    fn new(batch: usize) -> Arc<Self> {
        Self::with_lines(1, batch)
    }

    fn with_lines(lines: usize, batch: usize) -> Arc<Self> {
        reclaim::reset();
        let dropped = StdArc::default();
        let slot = AtomicPtr::new(Self::value(&dropped));
        Arc::new(Self { slot, limbo: Limbo::new(lines, batch, 0), dropped })
    }

    fn value(dropped: &StdArc<AtomicUsize>) -> *mut Value {
        Box::into_raw(Box::new(Value {
            #[cfg(cortado_loom)]
            watched: loom::cell::Cell::new(7),
            dropped: StdArc::clone(dropped),
        }))
    }

    fn replace(&self, cost: u64) {
        let guard = pin();
        let old = self.slot.swap(Self::value(&self.dropped), Ordering::AcqRel);
        // SAFETY: from a box; the swap took it out, for us alone.
        let old = unsafe { Unlinked::new(NonNull::new(old).unwrap()) };
        let _ = self.limbo.retire(&guard, old, cost, 0);
    }

    fn read(&self) {
        let guard = pin();
        let value = self.slot.load(Ordering::Acquire);
        guard.check_readable(value as usize);
        // SAFETY: found under the guard.
        unsafe { &*value }.read();
    }

    fn sweep(&self) -> usize {
        let swept = self.limbo.sweep(usize::MAX);
        assert!(swept.panic.is_none());
        swept.freed
    }

    /// When all threads have ended.
    fn finish(world: Arc<Self>, made: usize, cost: u64) {
        let world = Arc::try_unwrap(world).unwrap_or_else(|_| panic!("a thread is left"));
        let Self { slot, limbo, dropped } = world;
        // SAFETY: from a box; nobody else is there.
        drop(unsafe { Box::from_raw(slot.load(Ordering::Relaxed)) });
        assert_eq!(dropped.load(SeqCst) + limbo.count() as usize, made, "count");
        assert_eq!(limbo.cost() == 0, limbo.count() == 0);
        assert!(limbo.cost() <= cost);
        drop(limbo);
        assert_eq!(dropped.load(SeqCst), made, "dropped");
        // Only the model's collector keeps such a list.
        if cfg!(not(any(crossbeam_loom, cortado_guard))) {
            assert_eq!(reclaim::census(), (made - 1, made - 1));
        }
    }
}

fn spawn<R: Send + 'static>(
    world: &Arc<World>,
    f: impl FnOnce(&World) -> R + Send + 'static,
) -> thread::JoinHandle<R> {
    let world = Arc::clone(world);
    thread::spawn(move || f(&world))
}

#[test]
fn a_reader_meets_a_retirement_and_a_sweep() {
    explore(|| {
        let world = World::new(1);
        let reader = spawn(&world, |w| as_reader(|| w.read()));
        world.replace(1);
        world.sweep();
        reader.join().unwrap();
        World::finish(world, 2, 1);
    });
}

/// The collector is helped on until it frees: a real one has to be asked a few times.
#[test]
fn a_reader_meets_sweeps_until_its_value_is_freed() {
    let freed = StdArc::new(AtomicUsize::new(0));
    let seen = StdArc::clone(&freed);
    explore(move || {
        let world = World::new(1);
        let reader = spawn(&world, |w| as_reader(|| w.read()));
        world.replace(1);
        let swept = (0..4).any(|_| {
            pin().advance();
            world.sweep() > 0
        });
        seen.fetch_add(usize::from(swept), SeqCst);
        reader.join().unwrap();
        World::finish(world, 2, 1);
    });
    assert_ne!(freed.load(SeqCst), 0, "nothing was ever freed beside the reader");
}

/// The reader's guard is older than the retirement, and another thread sweeps.
#[test]
fn a_reader_meets_a_retirement_and_a_sweep_by_a_third() {
    explore(|| {
        let world = World::new(1);
        let reader = spawn(&world, |w| as_reader(|| w.read()));
        let sweeper = spawn(&world, |w| w.sweep());
        world.replace(1);
        reader.join().unwrap();
        sweeper.join().unwrap();
        World::finish(world, 2, 1);
    });
}

#[test]
fn two_threads_retire_into_one_stripe() {
    explore(|| {
        let world = World::new(2);
        let other = spawn(&world, |w| w.replace(1));
        world.replace(2);
        other.join().unwrap();
        world.sweep();
        World::finish(world, 3, 3);
    });
}

#[test]
fn two_threads_retire_and_a_third_seals_and_sweeps() {
    explore(|| {
        let world = World::new(2);
        let one = spawn(&world, |w| w.replace(1));
        let two = spawn(&world, |w| w.replace(2));
        let sealed = world.limbo.seal_open();
        assert!(sealed <= 1);
        world.sweep();
        one.join().unwrap();
        two.join().unwrap();
        World::finish(world, 3, 3);
    });
}

#[test]
fn two_threads_sweep() {
    explore(|| {
        let world = World::new(1);
        world.replace(1);
        world.replace(2);
        let other = spawn(&world, |w| w.sweep());
        let freed = world.sweep() + other.join().unwrap();
        assert!(freed <= 2);
        World::finish(world, 3, 3);
    });
}

/// Each finds the line away, and puts another in its place, or joins the two.
#[test]
fn two_threads_sweep_what_they_retire() {
    explore(|| {
        let world = World::new(1);
        let other = spawn(&world, |w| {
            w.replace(1);
            w.sweep()
        });
        world.replace(2);
        let freed = world.sweep() + other.join().unwrap();
        assert!(freed <= 2);
        World::finish(world, 3, 3);
    });
}

/// The same where there is another line to go to.
#[test]
fn two_threads_sweep_what_they_retire_with_two_lines() {
    explore(|| {
        let world = World::with_lines(2, 1);
        let other = spawn(&world, |w| {
            w.replace(1);
            w.sweep()
        });
        world.replace(2);
        let freed = world.sweep() + other.join().unwrap();
        assert!(freed <= 2);
        // A sweep that meets no other leaves nothing of what no guard can see, where a period without guards is
        // over at once.
        if !cfg!(crossbeam_loom) {
            let freed = freed + world.sweep();
            assert_eq!((freed, world.limbo.count()), (2, 0));
        }
        World::finish(world, 3, 3);
    });
}

/// Whoever finds limbo at rest finds what was in it dropped, though another thread did that.
#[test]
fn a_sweep_meets_somebody_who_wants_rest() {
    explore(|| {
        let world = World::new(1);
        let old = world.slot.load(Ordering::Relaxed) as usize;
        world.replace(1);
        let sweeper = spawn(&world, |w| w.sweep());
        if world.limbo.is_at_rest() {
            assert_eq!(world.dropped.load(SeqCst), 1);
            // SAFETY: memory is not given back in a model, and loom's cell is no destructor's business.
            let old = unsafe { &*(old as *const Value) };
            #[cfg(cortado_loom)]
            assert_eq!(old.watched.get(), 0);
            let _ = old;
        }
        sweeper.join().unwrap();
        World::finish(world, 2, 1);
    });
}

/// A batch that was swept is filled again, while somebody else retires.
#[test]
fn a_batch_is_used_again() {
    explore(|| {
        let world = World::new(1);
        let other = spawn(&world, |w| {
            w.replace(1);
            w.sweep();
        });
        world.replace(2);
        world.sweep();
        world.replace(3);
        other.join().unwrap();
        World::finish(world, 4, 6);
    });
}

/// One batch open, one waiting for a guard, one ripe, when all is dropped.
#[test]
fn all_is_dropped_with_what_waits() {
    explore(|| {
        let world = World::new(2);
        let reader = spawn(&world, |w| as_reader(|| w.read()));
        (1..=5).for_each(|cost| world.replace(cost));
        world.sweep();
        reader.join().unwrap();
        World::finish(world, 6, 15);
    });
}

/// A reader of something else, pinned all the while, holds nothing back when all is dropped; its guard may end
/// after what waited for it is gone.
#[test]
fn all_is_dropped_though_somebody_is_pinned() {
    explore(|| {
        let world = World::new(2);
        let stranger = thread::spawn(|| drop(pin()));
        let guard = pin();
        (1..=3).for_each(|cost| world.replace(cost));
        world.sweep();
        World::finish(world, 4, 6);
        drop(guard);
        stranger.join().unwrap();
    });
}
