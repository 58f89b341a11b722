//! Growing and shrinking (`src/table/migrate.rs`) against readers and writers.

mod common;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering::SeqCst;

use common::{Bounds, explore_within};
use cortado::__internals::{reclaim::pin, sync::Arc, table::LANES};
use world::{A, A2, B, Set, UP, World, spawn, spawn_reader};

fn explore(scenario: impl Fn() + Send + Sync + 'static) {
    explore_within(Bounds { preemptions: Some(2), seconds: 4, schedules: 3_000 }, scenario);
}

/// One bucket that is to become two, with an entry for each.
fn growing() -> Arc<World> {
    let world = World::with(1, 64, &[(A, 1), (UP, 9)]);
    world.grow();
    Arc::new(world)
}

#[test]
fn a_migration_meets_a_replace_and_a_reader() {
    explore(|| {
        let world = growing();
        let replace = spawn(&world, |w| w.set(A, 2));
        let reader = spawn_reader(&world, |w| {
            let guard = pin();
            (w.get_in(&guard, A), w.get_in(&guard, A))
        });
        world.help(1);
        assert_eq!(replace.join().unwrap(), Set::Replaced(1));
        let (first, second) = reader.join().unwrap();
        assert!(first.is_some() && second.is_some(), "lost: {first:?} {second:?}");
        assert!(first != Some(2) || second == Some(2), "went back");
        assert_eq!(World::finish(world), [2, 9]);
    });
}

/// The replacement does not help before it scans, so that it meets the freeze at every step.
#[test]
fn a_replace_is_overtaken_by_a_freeze() {
    explore(|| {
        let world = Arc::new(World::with(1, 64, &[(A, 1), (UP, 9)]));
        let replace = spawn(&world, |w| w.set(A, 2));
        world.grow();
        world.help(1);
        assert_eq!(replace.join().unwrap(), Set::Replaced(1));
        assert_eq!(World::finish(world), [2, 9]);
    });
}

#[test]
fn a_remove_if_is_overtaken_by_a_freeze() {
    explore(|| {
        let world = Arc::new(World::with(1, 64, &[(A, 1), (UP, 9)]));
        let remove = spawn(&world, |w| w.remove_if(A, 1));
        world.grow();
        world.help(1);
        assert_eq!(remove.join().unwrap(), Some(1));
        assert_eq!(World::finish(world), [9]);
    });
}

#[test]
fn an_insert_is_overtaken_by_a_freeze() {
    explore(|| {
        let world = Arc::new(World::with(1, 64, &[(UP, 9)]));
        let insert = spawn(&world, |w| (w.set(A, 1), w.get(A)));
        world.grow();
        world.help(1);
        assert_eq!(insert.join().unwrap(), (Set::Inserted, Some(1)));
        assert_eq!(World::finish(world), [1, 9]);
    });
}

/// A slow helper must not bring back what was removed from the child meanwhile.
#[test]
fn two_migrators_meet_a_remove() {
    explore(|| {
        let world = growing();
        let helper = spawn(&world, |w| w.help(1));
        let remove = spawn(&world, |w| (w.remove(A), w.get(A)));
        world.help(1);
        helper.join().unwrap();
        assert_eq!(remove.join().unwrap(), (Some(1), None));
        assert_eq!(World::finish(world), [9]);
    });
}

/// The same with the slot used again.
#[test]
fn a_slow_helper_meets_a_remove_and_an_insert() {
    explore(|| {
        let world = growing();
        let helper = spawn(&world, |w| w.help(1));
        assert_eq!(world.remove(A), Some(1));
        assert_eq!(world.set(B, 3), Set::Inserted);
        assert_eq!(world.get(A), None);
        helper.join().unwrap();
        assert_eq!(World::finish(world), [3, 9]);
    });
}

#[test]
fn both_children_are_written_while_they_are_made() {
    explore(|| {
        let world = growing();
        let lower = spawn(&world, |w| w.remove(A));
        let upper = spawn(&world, |w| w.set(UP, 8));
        assert_eq!(lower.join().unwrap(), Some(1));
        assert_eq!(upper.join().unwrap(), Set::Replaced(9));
        assert_eq!(World::finish(world), [8]);
    });
}

/// Two helpers make them, and meet in each; whoever reads finds both entries.
#[test]
fn both_children_are_read_while_two_make_them() {
    explore(|| {
        let world = growing();
        let helper = spawn(&world, |w| w.help(1));
        let reader = spawn_reader(&world, |w| (w.get(A), w.get(UP)));
        world.help(1);
        helper.join().unwrap();
        assert_eq!(reader.join().unwrap(), (Some(1), Some(9)));
        assert_eq!(World::finish(world), [1, 9]);
    });
}

/// A helper is stopped for ever where it has put the last child in use, and before it looks whether
/// that was all: the others end the migration without it.
#[test]
fn a_stopped_helper_holds_up_no_migration() {
    explore(|| {
        let world = growing();
        let stopped = spawn(&world, |w| w.help_and_stop(1, 2));
        world.help(1);
        world.help(1);
        assert_eq!(world.slots(), 2 * LANES, "the migration has not ended");
        // The old array is out of use, so the table can be resized again.
        world.grow();
        world.help(2);
        world.help(2);
        assert_eq!(world.slots(), 4 * LANES);
        assert_eq!(world.clear(), [1, 9]);
        world.let_go(&stopped);
        stopped.join().unwrap();
        assert!(World::finish(world).is_empty());
    });
}

/// It has put the first of two in use.
#[test]
fn a_stopped_helper_holds_up_no_shrink() {
    explore(|| {
        let world = shrinking();
        let stopped = spawn(&world, |w| w.help_and_stop(2, 1));
        world.help(2);
        world.help(2);
        assert_eq!(world.slots(), 2 * LANES, "the migration has not ended");
        world.let_go(&stopped);
        stopped.join().unwrap();
        assert_eq!(world.displaced.load(SeqCst), 1);
        assert_eq!(World::finish(world), [1, 9, 20, 21, 22, 23, 24, 25]);
    });
}

/// Both have seen the last child in use; one of them retires the old array.
#[test]
fn two_helpers_end_a_migration() {
    explore(|| {
        let world = growing();
        let helper = spawn(&world, |w| w.help(1));
        world.help(1);
        helper.join().unwrap();
        assert_eq!(world.slots(), 2 * LANES);
        world.table.sweep(usize::MAX);
        assert_eq!(World::finish(world), [1, 9]);
    });
}

/// The first bucket of a table that nobody has used yet is frozen before or after it is in use.
#[test]
fn an_unused_bucket_is_frozen_or_put_in_use() {
    explore(|| {
        let world = Arc::new(World::new(1, 64));
        let insert = spawn(&world, |w| w.set(A, 1));
        let reader = spawn_reader(&world, |w| w.get(A));
        world.grow();
        world.help(1);
        assert_eq!(insert.join().unwrap(), Set::Inserted);
        assert!([None, Some(1)].contains(&reader.join().unwrap()));
        assert_eq!(World::finish(world), [1]);
    });
}

/// The old array is retired, and freed as soon as that may be, under a reader that is in it.
#[test]
fn a_reader_is_in_the_old_array() {
    explore(|| {
        let world = Arc::new(World::with(1, 1, &[(A, 1), (UP, 9)]));
        let reader = spawn_reader(&world, |w| (w.get(A), w.get(UP)));
        world.grow();
        world.help(1);
        assert_eq!(world.set(A, 2), Set::Replaced(1));
        world.table.sweep(usize::MAX);
        let (lower, upper) = reader.join().unwrap();
        assert!([Some(1), Some(2)].contains(&lower) && upper == Some(9));
        assert_eq!(World::finish(world), [2, 9]);
    });
}

/// The root is exchanged twice, and what it was is freed, under a reader that began in the first array.
#[test]
fn a_reader_is_two_arrays_behind() {
    explore(|| {
        let world = Arc::new(World::with(1, 1, &[(A, 1), (UP, 9)]));
        let reader = spawn_reader(&world, |w| {
            let guard = pin();
            (w.get_in(&guard, A), w.get_in(&guard, UP))
        });
        for _ in 0..2 {
            world.grow();
            world.help(2);
            world.table.sweep(usize::MAX);
        }
        assert_eq!(reader.join().unwrap(), (Some(1), Some(9)));
        assert_eq!(World::finish(world), [1, 9]);
    });
}

#[test]
fn two_threads_begin_to_grow() {
    explore(|| {
        let mut world = World::with(1, 64, &[]);
        for i in 0..LANES as u64 {
            assert_eq!(world.set(A + (i << 8), 10 + i), Set::Inserted);
        }
        world.grow_below = 2 * LANES;
        let world = Arc::new(world);
        let other = spawn(&world, |w| w.set(UP, 20));
        assert_eq!(world.set(UP + 1, 21), Set::Inserted);
        assert_eq!(other.join().unwrap(), Set::Inserted);
        assert_eq!(World::finish(world), [10, 11, 12, 13, 14, 15, 16, 20, 21]);
    });
}

#[test]
fn a_migration_meets_clear_and_an_insert() {
    explore(|| {
        let world = growing();
        let insert = spawn(&world, |w| w.set(B, 3));
        let helper = spawn(&world, |w| w.help(1));
        let mut seen = world.clear();
        helper.join().unwrap();
        assert_eq!(insert.join().unwrap(), Set::Inserted);
        seen.extend(World::finish(world));
        seen.sort_unstable();
        assert_eq!(seen, [1, 3, 9]);
    });
}

#[test]
fn an_iteration_meets_a_migration_and_a_remove() {
    explore(|| {
        let world = growing();
        let iterate = spawn_reader(&world, |w| w.values());
        world.help(1);
        assert_eq!(world.remove(A), Some(1));
        let values = iterate.join().unwrap();
        assert!(values.contains(&9), "lost: {values:?}");
        assert_eq!(World::finish(world), [9]);
    });
}

/// Four buckets that are to become two: the last of each pair has more than there is room for.
fn shrinking() -> Arc<World> {
    let world = World::with(4, 64, &[(A, 1), (UP, 9)]);
    // The odd bucket of the pair, and one more than fits into one with `A`.
    for i in 0..LANES as u64 {
        assert_eq!(world.set(ODD + (i << 8), 20 + i), Set::Inserted);
    }
    world.shrink();
    Arc::new(world)
}

/// A key of the second bucket of four.
const ODD: u64 = (1 << 62) + 2;

#[test]
fn a_shrink_meets_a_replace_and_a_reader() {
    explore(|| {
        let world = shrinking();
        let replace = spawn(&world, |w| w.set(A, 2));
        let reader = spawn_reader(&world, |w| {
            let guard = pin();
            (w.get_in(&guard, A), w.get_in(&guard, A))
        });
        world.help(2);
        assert_eq!(replace.join().unwrap(), Set::Replaced(1));
        let (first, second) = reader.join().unwrap();
        assert!(first.is_some() && second.is_some(), "lost: {first:?} {second:?}");
        assert!(first != Some(2) || second == Some(2), "went back");
        assert_eq!(world.displaced.load(SeqCst), 1);
        assert_eq!(World::finish(world), [2, 9, 20, 21, 22, 23, 24, 25]);
    });
}

/// The entry that finds no room in the merged bucket leaves once, whoever merges, or is removed.
#[test]
fn a_shrink_meets_a_remove_of_the_one_that_has_no_room() {
    explore(|| {
        let world = shrinking();
        let helper = spawn(&world, |w| w.help(2));
        let removed = world.remove(ODD + ((LANES as u64 - 1) << 8));
        helper.join().unwrap();
        world.help(2);
        let displaced = world.displaced.load(SeqCst);
        assert_eq!(removed.is_some(), displaced == 0);
        assert!(removed.is_none_or(|value| value == 26) && displaced <= 1);
        assert_eq!(World::finish(world), [1, 9, 20, 21, 22, 23, 24, 25]);
    });
}

/// One child is in use and the other not, when hashing panics between the two.
#[test]
fn a_half_moved_bucket_shows_each_entry_once() {
    explore(|| {
        let world = growing();
        let reader = spawn_reader(&world, |w| w.get(A));
        world.panics.store(true, SeqCst);
        let panicked = catch_unwind(AssertUnwindSafe(|| world.help(1)));
        assert!(panicked.is_err());
        assert_eq!(reader.join().unwrap(), Some(1));
        assert_eq!(world.values(), [1, 9]);
        world.panics.store(false, SeqCst);
        assert_eq!(World::finish(world), [1, 9]);
    });
}

/// Threads are stopped anywhere and the table is dropped as it is.
#[test]
fn a_table_is_dropped_in_the_middle_of_a_migration() {
    explore(|| {
        let world = World::with(2, 64, &[(A, 1), (A2, 2), (UP, 9)]);
        world.grow();
        let world = Arc::new(world);
        let helper = spawn(&world, |w| w.help(1));
        assert_eq!(world.remove(A), Some(1));
        helper.join().unwrap();
        assert_eq!(World::finish(world), [2, 9]);
    });
}
