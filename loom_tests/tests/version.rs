//! The version of a bucket wraps while a thread is stopped (`src/table/control.rs`).
//!
//! Meaningful only if the version has two bits (`CORTADO_SMALL_VERSION=1`, see `build.rs`), so that
//! four publishes are a lap. With fourteen bits, no schedule is long enough to wrap it.

mod common;
mod table_world;

use std::sync::atomic::Ordering::SeqCst;

use common::{Bounds, explore_within};
use cortado::__internals::sync::Arc;
use table_world::{A, A2, A3, B, Set, World, spawn};

fn explore(scenario: impl Fn() + Send + Sync + 'static) {
    explore_within(Bounds { preemptions: Some(2), seconds: 6, schedules: 3_000 }, scenario);
}

/// Publishes `times` times, and leaves the tags of the bucket unchanged.
fn churn(world: &World, times: usize) {
    for _ in 0..times {
        assert_eq!(world.set(B, 9), Set::Inserted);
        assert_eq!(world.remove(B), Some(9));
    }
}

/// The slot of `A` is reused for `A2`, whose entry the remove of `A` must not return.
#[test]
fn a_remove_meets_a_lap_of_its_bucket() {
    explore(|| {
        let world = Arc::new(World::with(&[(A, 1)]));
        let other = spawn(&world, |w| w.remove(A));
        let mine = world.remove(A);
        assert_eq!(world.set(A2, 2), Set::Inserted);
        churn(&world, 3);
        match (mine, other.join().unwrap()) {
            (Some(1), None) | (None, Some(1)) => {}
            both => panic!("{both:?}"),
        }
        let displaced = world.displaced.load(SeqCst);
        assert!(displaced <= 1);
        assert_eq!(World::finish(world), if displaced == 0 { vec![2] } else { vec![] });
    });
}

/// `A` is inserted where `A2` was, which another insert of `A` has read.
#[test]
fn an_insert_meets_a_lap_of_its_bucket() {
    explore(|| {
        let world = Arc::new(World::with(&[(A2, 7)]));
        let other = spawn(&world, |w| w.set(A, 2));
        assert_eq!(world.remove(A2), Some(7));
        let mine = world.set(A, 1);
        churn(&world, 3);
        let left = match (mine, other.join().unwrap(), world.displaced.load(SeqCst)) {
            (Set::Inserted, Set::Replaced(1), 0) => 2,
            (Set::Replaced(2), Set::Inserted, 0) => 1,
            // The late insert has found the other entry, which was evicted.
            (Set::Inserted, Set::Inserted, 1) => 2,
            all => panic!("{all:?}"),
        };
        assert_eq!(World::finish(world), [left]);
    });
}

/// The slot of an entry that was removed in place gets another owner, and is freed concurrently.
#[test]
fn a_slot_that_is_freed_meets_a_lap_of_its_bucket() {
    explore(|| {
        let world = Arc::new(World::with(&[(A, 1)]));
        let remover = spawn(&world, |w| w.remove_exactly(A));
        let set = world.set(A2, 2);
        assert_eq!(world.set(A3, 3), Set::Inserted);
        churn(&world, 3);
        assert_eq!((set, remover.join().unwrap()), (Set::Inserted, Some(1)));
        let displaced = world.displaced.load(SeqCst);
        let left = World::finish(world);
        assert_eq!(left.len() + displaced, 2, "{left:?}");
    });
}

/// All of these at once, in one slot after the other.
#[test]
fn writers_of_one_tag_meet_laps() {
    explore(|| {
        let world = Arc::new(World::with(&[(A2, 7)]));
        let one = spawn(&world, |w| (w.set(A, 1), w.remove_exactly(A), w.set(A, 2)));
        let two = spawn(&world, |w| (w.remove(A2), w.set(A2, 3), w.remove(A2)));
        for value in [4, 5] {
            world.set(A, value);
            world.remove(A);
        }
        one.join().unwrap();
        two.join().unwrap();
        World::finish(world);
    });
}
