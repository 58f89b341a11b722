//! Growing and shrinking of the table (`src/table/resize.rs`), concurrent with readers and writers.

mod common;
mod table_world;

use std::sync::atomic::Ordering::SeqCst;

use common::{Bounds, explore_within};
use cortado::__internals::{sync::Arc, table::SLOTS};
use table_world::{A, A2, B, ODD, Set, UP, World, spawn, spawn_reader};

fn explore(scenario: impl Fn() + Send + Sync + 'static) {
    explore_within(Bounds { preemptions: Some(2), seconds: 3, schedules: 2_000 }, scenario);
}

/// One bucket that will be split in two, with an entry for each.
fn growing() -> Arc<World> {
    let world = World::with(&[(A, 1), (UP, 9)]);
    world.grow();
    Arc::new(world)
}

/// Two buckets that will be merged, with an entry in each.
fn shrinking() -> Arc<World> {
    let world = World::with_buckets(2, &[(A, 1), (UP, 9)]);
    world.shrink();
    Arc::new(world)
}

/// Two buckets that will be merged, with an entry, `UP`, that finds no slot.
fn crowded() -> Arc<World> {
    let world = World::with_buckets(2, &[(A, 1), (UP, 9)]);
    world.fill(A, SLOTS as u64 - 1);
    world.shrink();
    Arc::new(world)
}

#[test]
fn a_growth_meets_a_replace_and_a_reader() {
    explore(|| {
        let world = growing();
        let replace = spawn(&world, |w| w.set(A, 2));
        let reader = spawn_reader(&world, |w| {
            let guard = w.pin();
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

/// The replacement probes before the growth begins, and meets the freeze at every step.
#[test]
fn a_replace_meets_a_freeze() {
    explore(|| {
        let world = Arc::new(World::with(&[(A, 1), (UP, 9)]));
        let replace = spawn(&world, |w| w.set(A, 2));
        world.grow();
        world.help(1);
        assert_eq!(replace.join().unwrap(), Set::Replaced(1));
        assert_eq!(World::finish(world), [2, 9]);
    });
}

/// Every value is seen once, as in `buckets`.
#[test]
fn a_growth_meets_clear_and_an_insert() {
    explore(|| {
        let world = growing();
        let clear = spawn(&world, |w| w.clear());
        let insert = spawn(&world, |w| w.set(B, 2));
        world.help(1);
        let mut seen = clear.join().unwrap();
        assert_eq!(insert.join().unwrap(), Set::Inserted);
        seen.extend(World::finish(world));
        seen.sort_unstable();
        assert_eq!(seen, [1, 2, 9]);
    });
}

#[test]
fn removes_meet_a_freeze() {
    explore(|| {
        let world = Arc::new(World::with(&[(A, 1), (UP, 9)]));
        let exactly = spawn(&world, |w| w.remove_exactly(A));
        let remove = spawn(&world, |w| w.remove(UP));
        world.grow();
        world.help(1);
        assert_eq!((exactly.join().unwrap(), remove.join().unwrap()), (Some(1), Some(9)));
        assert!(World::finish(world).is_empty());
    });
}

#[test]
fn an_insert_meets_a_freeze() {
    explore(|| {
        let world = Arc::new(World::with(&[(UP, 9)]));
        let insert = spawn(&world, |w| (w.set(A, 1), w.get(A)));
        world.grow();
        world.help(1);
        assert_eq!(insert.join().unwrap(), (Set::Inserted, Some(1)));
        assert_eq!(World::finish(world), [1, 9]);
    });
}

/// An entry was claimed in a bucket that moves before it can be published.
#[test]
fn an_entry_that_is_taken_back_meets_a_freeze() {
    explore(|| {
        let world = Arc::new(World::with(&[(UP, 9)]));
        let insert = spawn(&world, |w| w.try_once(A, 1));
        world.grow();
        world.help(1);
        let is_in = insert.join().unwrap();
        assert_eq!(World::finish(world), if is_in { vec![1, 9] } else { vec![9] });
    });
}

/// A late helper must not restore an entry that was removed from the child.
#[test]
fn two_helpers_meet_a_remove() {
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

/// Like the scenario above, but the slot is reused, and the removed entry is freed.
#[test]
fn a_helper_meets_a_remove_an_insert_and_a_sweep() {
    explore(|| {
        let world = growing();
        let helper = spawn(&world, |w| w.help(1));
        assert_eq!(world.remove(A), Some(1));
        world.sweep();
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

/// Two helpers fill the children, and meet in each. A reader finds both entries.
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

/// An entry that was removed in place, and still has its slot, does not move.
#[test]
fn an_entry_that_is_dying_stays_behind() {
    explore(|| {
        let world = Arc::new(World::with(&[(A, 1), (UP, 9)]));
        let remove = spawn(&world, |w| (w.remove_exactly(A), w.get(A)));
        world.grow();
        world.help(1);
        world.sweep();
        let reader = world.get(A);
        assert_eq!(remove.join().unwrap(), (Some(1), None));
        assert!(reader.is_none_or(|value| value == 1));
        assert_eq!(World::finish(world), [9]);
    });
}

/// An unused bucket is frozen before or after it is in use.
#[test]
fn an_unused_bucket_is_frozen_or_put_in_use() {
    explore(|| {
        let world = Arc::new(World::with(&[]));
        let insert = spawn(&world, |w| w.set(A, 1));
        let reader = spawn_reader(&world, |w| w.get(A));
        world.grow();
        world.help(1);
        assert_eq!(insert.join().unwrap(), Set::Inserted);
        assert!([None, Some(1)].contains(&reader.join().unwrap()));
        assert_eq!(World::finish(world), [1]);
    });
}

/// The old array is retired, and freed as soon as possible, while a reader is in it.
#[test]
fn a_reader_is_in_the_old_array() {
    explore(|| {
        let world = Arc::new(World::with(&[(A, 1), (UP, 9)]));
        let reader = spawn_reader(&world, |w| (w.get(A), w.get(UP)));
        world.grow();
        world.help(1);
        assert_eq!(world.set(A, 2), Set::Replaced(1));
        world.sweep();
        let (lower, upper) = reader.join().unwrap();
        assert!([Some(1), Some(2)].contains(&lower) && upper == Some(9));
        assert_eq!(World::finish(world), [2, 9]);
    });
}

/// The root is exchanged twice, and the old arrays are freed, while a reader began in the first
/// one.
#[test]
fn a_reader_is_two_arrays_behind() {
    explore(|| {
        let world = Arc::new(World::with(&[(A, 1), (UP, 9)]));
        let reader = spawn_reader(&world, |w| {
            let guard = w.pin();
            (w.get_in(&guard, A), w.get_in(&guard, UP))
        });
        for _ in 0..2 {
            world.grow();
            world.help(2);
            world.sweep();
        }
        assert_eq!(reader.join().unwrap(), (Some(1), Some(9)));
        assert_eq!(World::finish(world), [1, 9]);
    });
}

/// Both threads have seen that all units have moved. One of them retires the old array.
#[test]
fn two_helpers_end_a_growth() {
    explore(|| {
        let world = growing();
        let helper = spawn(&world, |w| w.help(1));
        world.help(1);
        helper.join().unwrap();
        // The old array is out of use, so the table can be resized again.
        world.grow();
        assert_eq!(world.buckets(), 4);
        world.sweep();
        assert_eq!(World::finish(world), [1, 9]);
    });
}

#[test]
fn two_threads_begin_to_grow() {
    explore(|| {
        let world = World::with(&[]);
        world.fill(A, SLOTS as u64);
        let world = Arc::new(world);
        let other = spawn(&world, |w| w.set_or_grow(UP, 20, true));
        // It needs two growths, and the first may not be over.
        let odd = world.set_or_grow(ODD, 21, true);
        assert_eq!(other.join().unwrap(), Set::Inserted);
        let left = World::finish(world);
        match odd {
            Set::Inserted => assert_eq!(left, [20, 21]),
            other => assert_eq!((other, left), (Set::Full, vec![20])),
        }
    });
}

#[test]
fn an_iteration_meets_a_growth_and_a_remove() {
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

#[test]
fn a_victim_meets_a_growth_and_a_replace() {
    explore(|| {
        let world = Arc::new(World::with(&[(A, 1)]));
        let evict = spawn(&world, |w| w.evict());
        let replace = spawn(&world, |w| w.set(A, 2));
        world.grow();
        world.help(1);
        let left = match (evict.join().unwrap(), replace.join().unwrap()) {
            (Some(1), Set::Inserted) => vec![2],
            (Some(2), Set::Inserted | Set::Replaced(1)) => vec![],
            (None, Set::Replaced(1)) => vec![2],
            both => panic!("{both:?}"),
        };
        assert_eq!(World::finish(world), left);
    });
}

#[test]
fn a_shrink_meets_a_replace_and_a_reader() {
    explore(|| {
        let world = shrinking();
        let replace = spawn(&world, |w| w.set(A, 2));
        let reader = spawn_reader(&world, |w| {
            let guard = w.pin();
            (w.get_in(&guard, A), w.get_in(&guard, UP))
        });
        world.help(1);
        assert_eq!(replace.join().unwrap(), Set::Replaced(1));
        let (lower, upper) = reader.join().unwrap();
        assert!(lower.is_some() && upper == Some(9), "lost: {lower:?} {upper:?}");
        assert_eq!(World::finish(world), [2, 9]);
    });
}

/// One of the two buckets has moved, as a writer of the other sees it. The writer's entry is then
/// freed while a reader may hold it.
#[test]
fn a_shrink_meets_a_remove_a_sweep_and_a_reader() {
    explore(|| {
        let world = shrinking();
        let reader = spawn_reader(&world, |w| w.get(UP));
        let helper = spawn(&world, |w| w.help(1));
        assert_eq!(world.remove(UP), Some(9));
        world.sweep();
        assert!([None, Some(9)].contains(&reader.join().unwrap()));
        helper.join().unwrap();
        assert_eq!(World::finish(world), [1]);
    });
}

/// The entry that finds no slot is displaced once or removed, whichever thread moves it.
#[test]
fn a_shrink_meets_a_remove_of_what_finds_no_slot() {
    explore(|| {
        let world = crowded();
        let helper = spawn(&world, |w| w.help(1));
        let removed = world.remove(UP);
        helper.join().unwrap();
        world.help(1);
        let displaced = world.displaced.load(SeqCst);
        assert_eq!((removed.is_some(), removed.unwrap_or(9)), (displaced == 0, 9));
        assert!(displaced <= 1);
        assert_eq!(World::finish(world), [1]);
    });
}

/// A helper is stopped forever after it has moved the last unit and before it checks whether that
/// was all. The others complete the shrink without it.
#[test]
fn a_stopped_helper_blocks_no_other() {
    explore(|| {
        let world = crowded();
        let stopped = spawn(&world, |w| w.help_and_stop(1));
        world.help(1);
        world.help(1);
        assert_eq!(world.buckets(), 1);
        // The old array is out of use, so the table can be resized again.
        world.grow();
        assert_eq!(world.buckets(), 2);
        world.let_go(&stopped);
        stopped.join().unwrap();
        assert_eq!(world.displaced.load(SeqCst), 1);
        assert_eq!(World::finish(world), [1]);
    });
}

/// A unit has moved, and an entry of it is freed, while another unit has yet to move. A helper that
/// reaches the first does not read its entries.
#[test]
fn a_helper_meets_a_unit_that_has_moved() {
    explore(|| {
        let world = World::with_buckets(2, &[(A, 1), (B, 2), (UP, 9)]);
        world.grow();
        let world = Arc::new(world);
        let helper = spawn(&world, |w| w.help(2));
        assert_eq!(world.remove(A), Some(1));
        world.sweep();
        world.help(1);
        helper.join().unwrap();
        assert_eq!(World::finish(world), [2, 9]);
    });
}

/// One pair of buckets has been merged, and the other has not.
#[test]
fn an_iteration_shows_what_has_moved_once() {
    explore(|| {
        let world = World::with_buckets(4, &[(A, 1), (UP, 9), (ODD, 5)]);
        world.shrink();
        let world = Arc::new(world);
        world.help(1);
        let helper = spawn(&world, |w| w.set(B, 2));
        let seen = world.values();
        assert_eq!(helper.join().unwrap(), Set::Inserted);
        assert!(seen == [1, 5, 9] || seen == [1, 2, 5, 9], "{seen:?}");
        assert_eq!(World::finish(world), [1, 2, 9, 5]);
    });
}

#[test]
fn an_iteration_meets_a_shrink() {
    explore(|| {
        let world = shrinking();
        let helper = spawn(&world, |w| w.help(1));
        let seen = world.values();
        helper.join().unwrap();
        // An entry that moves concurrently may be seen twice.
        let mut once = seen.clone();
        once.dedup();
        assert_eq!(once, [1, 9]);
        world.help(1);
        assert_eq!(world.values(), [1, 9]);
        assert_eq!(World::finish(world), [1, 9]);
    });
}

/// A thread is stopped at any point, and the table is dropped in that state.
#[test]
fn a_table_is_dropped_in_the_middle_of_a_growth() {
    explore(|| {
        let world = World::with_buckets(2, &[(A, 1), (A2, 2), (UP, 9)]);
        world.grow();
        let world = Arc::new(world);
        let helper = spawn(&world, |w| w.help(1));
        assert_eq!(world.remove(A), Some(1));
        helper.join().unwrap();
        assert_eq!(World::finish(world), [2, 9]);
    });
}
