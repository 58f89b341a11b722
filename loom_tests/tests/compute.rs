//! Read-modify-write of one key, as `Cache::compute` does it (`src/cache/compute.rs`): look, and then let
//! the table replace or remove exactly what was seen (`src/table/write.rs`).

mod common;
mod world;

use common::{Bounds, explore_within};
use cortado::__internals::{sync::Arc, table::LANES};
use world::{A, B, Set, UP, World, spawn};

fn explore(scenario: impl Fn() + Send + Sync + 'static) {
    explore_within(Bounds { preemptions: Some(3), seconds: 4, schedules: 3_000 }, scenario);
}

fn add_one(value: Option<u64>) -> Option<u64> {
    Some(value.unwrap_or(0) + 1)
}

#[test]
fn two_computes_of_one_key_lose_no_update() {
    explore(|| {
        let world = Arc::new(World::with(1, 64, &[(A, 1)]));
        let other = spawn(&world, |w| w.compute(A, add_one));
        let mut seen = [world.compute(A, add_one), other.join().unwrap()];
        seen.sort_unstable();
        assert_eq!(seen, [(Some(1), Some(2)), (Some(2), Some(3))]);
        assert_eq!(World::finish(world), [3]);
    });
}

#[test]
fn two_computes_of_an_absent_key_lose_no_update() {
    explore(|| {
        let world = Arc::new(World::with(1, 64, &[(B, 9)]));
        let other = spawn(&world, |w| w.compute(A, add_one));
        let mut seen = [world.compute(A, add_one), other.join().unwrap()];
        seen.sort_unstable();
        assert_eq!(seen, [(None, Some(1)), (Some(1), Some(2))]);
        assert_eq!(World::finish(world), [2, 9]);
    });
}

/// What is removed is what the compute left, or the compute finds nothing.
#[test]
fn a_compute_meets_a_remove() {
    explore(|| {
        let world = Arc::new(World::with(1, 64, &[(A, 5)]));
        let compute = spawn(&world, |w| w.compute(A, add_one));
        let removed = world.remove(A);
        let left = match (compute.join().unwrap(), removed) {
            ((Some(5), Some(6)), Some(6)) => vec![],
            ((None, Some(1)), Some(5)) => vec![1],
            both => panic!("{both:?}"),
        };
        assert_eq!(World::finish(world), left);
    });
}

#[test]
fn a_compute_meets_an_eviction() {
    explore(|| {
        let world = Arc::new(World::with(1, 64, &[(A, 5)]));
        let compute = spawn(&world, |w| w.compute(A, add_one));
        let evicted = world.evict();
        let left = match (compute.join().unwrap(), evicted) {
            ((Some(5), Some(6)), Some(6)) => vec![],
            ((None, Some(1)), Some(5)) => vec![1],
            // It was replaced while it was looked at.
            ((Some(5), Some(6)), None) => vec![6],
            both => panic!("{both:?}"),
        };
        assert_eq!(World::finish(world), left);
    });
}

/// One compute removes: it removes what it saw, and not what the other made of it.
#[test]
fn a_compute_that_removes_meets_one_that_adds() {
    explore(|| {
        let world = Arc::new(World::with(1, 64, &[(A, 5)]));
        let remover = spawn(&world, |w| w.compute(A, |value| value.filter(|&value| value != 5)));
        let added = world.compute(A, add_one);
        let left = match (added, remover.join().unwrap()) {
            ((Some(5), Some(6)), (Some(6), Some(6))) => 6,
            ((None, Some(1)), (Some(5), None)) => 1,
            both => panic!("{both:?}"),
        };
        assert_eq!(World::finish(world), [left]);
    });
}

/// The entry that a full bucket gives up is the one that is computed.
#[test]
fn a_compute_meets_a_displacement() {
    explore(|| {
        let mut world = World::with(1, 64, &[]);
        for i in 0..LANES as u64 {
            assert_eq!(world.set(A + (i << 8), 10 + i), Set::Inserted);
        }
        world.leaver = Some(10);
        let world = Arc::new(world);
        let newcomer = spawn(&world, |w| w.set(B, 30));
        let computed = world.compute(A, |value| value.map(|value| value + 10));
        let left = match (computed, newcomer.join().unwrap()) {
            // Either came after the other, or the newcomer took out what it had become.
            ((Some(10), Some(20)), Set::Full) => vec![11, 12, 13, 14, 15, 16, 20],
            ((Some(10), Some(20)), Set::Inserted) | ((None, None), Set::Inserted) => {
                vec![11, 12, 13, 14, 15, 16, 30]
            }
            both => panic!("{both:?}"),
        };
        assert_eq!(World::finish(world), left);
    });
}

#[test]
fn two_computes_meet_a_migration() {
    explore(|| {
        let world = World::with(1, 64, &[(A, 1), (UP, 9)]);
        world.grow();
        let world = Arc::new(world);
        let other = spawn(&world, |w| w.compute(A, add_one));
        let helper = spawn(&world, |w| w.help(1));
        world.compute(A, add_one);
        helper.join().unwrap();
        other.join().unwrap();
        assert_eq!(World::finish(world), [3, 9]);
    });
}
