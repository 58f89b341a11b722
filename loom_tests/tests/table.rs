//! The protocol of a bucket of the table (`src/table`).

mod common;
mod table_world;

use std::sync::{
    Arc as StdArc,
    atomic::{AtomicUsize, Ordering::SeqCst},
};

use common::{Bounds, explore_within};
use cortado::__internals::sync::Arc;
use table_world::{A, A2, A3, B, Set, UP, World, spawn, spawn_reader};

fn explore(scenario: impl Fn() + Send + Sync + 'static) {
    explore_deep(3, scenario);
}

/// Like `explore`, but with more preemptions, for a scenario of few steps.
fn explore_deep(preemptions: usize, scenario: impl Fn() + Send + Sync + 'static) {
    let preemptions = Some(preemptions);
    explore_within(Bounds { preemptions, seconds: 3, schedules: 2_000 }, scenario);
}

#[test]
fn two_inserts_of_one_key() {
    explore(|| {
        let world = Arc::new(World::with(&[(B, 9)]));
        let other = spawn(&world, |w| w.set(A, 2));
        let mine = world.set(A, 1);
        let last = match (mine, other.join().unwrap()) {
            (Set::Inserted, Set::Replaced(1)) => 2,
            (Set::Replaced(2), Set::Inserted) => 1,
            both => panic!("{both:?}"),
        };
        assert_eq!(World::finish(world), [last, 9]);
    });
}

#[test]
fn an_unused_bucket_is_met_by_two_inserts_and_a_reader() {
    explore(|| {
        let world = Arc::new(World::with(&[]));
        let other = spawn(&world, |w| w.set(A, 2));
        let reader = spawn_reader(&world, |w| w.get(A));
        assert_eq!(world.set(A2, 1), Set::Inserted);
        assert_eq!(other.join().unwrap(), Set::Inserted);
        assert!([None, Some(2)].contains(&reader.join().unwrap()));
        assert_eq!(World::finish(world), [2, 1]);
    });
}

#[test]
fn an_insert_meets_a_remove() {
    explore(|| {
        let world = Arc::new(World::with(&[(B, 9)]));
        let insert = spawn(&world, |w| w.set(A, 1));
        let removed = world.remove(A);
        assert_eq!(insert.join().unwrap(), Set::Inserted);
        let left = World::finish(world);
        assert_eq!(left, if removed.is_some() { vec![9] } else { vec![1, 9] });
    });
}

/// The slot of a removed entry is claimed for the next one. A reader that has seen that continues
/// to see it.
#[test]
fn a_slot_is_used_again_under_a_reader() {
    explore(|| {
        let world = Arc::new(World::with(&[(A, 1)]));
        let reader = spawn_reader(&world, |w| {
            let guard = w.pin();
            (w.get_in(&guard, A), w.get_in(&guard, A))
        });
        assert_eq!(world.remove(A), Some(1));
        assert_eq!(world.set(A, 2), Set::Inserted);
        let (first, second) = reader.join().unwrap();
        assert!(first != Some(2) || second == Some(2), "{first:?} {second:?}");
        assert!(first.is_some() || second != Some(1), "{first:?} {second:?}");
        assert_eq!(World::finish(world), [2]);
    });
}

#[test]
fn a_replace_meets_a_remove_and_a_reader() {
    explore(|| {
        let world = Arc::new(World::with(&[(A, 1)]));
        let replace = spawn(&world, |w| w.set(A, 2));
        let reader = spawn_reader(&world, |w| {
            let guard = w.pin();
            (w.get_in(&guard, A), w.get_in(&guard, A))
        });
        let removed = world.remove(A);
        let left = match (replace.join().unwrap(), removed) {
            (Set::Replaced(1), Some(2)) => vec![],
            (Set::Inserted, Some(1)) => vec![2],
            both => panic!("{both:?}"),
        };
        let (first, second) = reader.join().unwrap();
        assert!(first != Some(2) || second != Some(1), "went back");
        assert_eq!(World::finish(world), left);
    });
}

/// A late replacement must not land in a slot that has a new owner.
#[test]
fn a_replace_meets_a_remove_and_the_next_insert() {
    explore(|| {
        let world = Arc::new(World::with(&[(A, 1)]));
        let replace = spawn(&world, |w| w.set(A, 2));
        let removed = world.remove(A);
        assert_eq!(world.set(A2, 3), Set::Inserted);
        let left = match (replace.join().unwrap(), removed) {
            (Set::Replaced(1), Some(2)) => vec![3],
            (Set::Inserted, Some(1)) => vec![2, 3],
            both => panic!("{both:?}"),
        };
        assert_eq!(World::finish(world), left);
    });
}

#[test]
fn two_replaces_meet() {
    explore(|| {
        let world = Arc::new(World::with(&[(A, 1)]));
        let other = spawn(&world, |w| w.set(A, 2));
        let left = match (world.set(A, 3), other.join().unwrap()) {
            (Set::Replaced(1), Set::Replaced(3)) => 2,
            (Set::Replaced(2), Set::Replaced(1)) => 3,
            both => panic!("{both:?}"),
        };
        assert_eq!(World::finish(world), [left]);
    });
}

#[test]
fn two_removes_and_a_replace_meet() {
    explore(|| {
        let world = Arc::new(World::with(&[(A, 1)]));
        let exact = spawn(&world, |w| w.remove_exactly(A));
        let replace = spawn(&world, |w| w.set(A, 2));
        let removed = world.remove(A);
        let removed: Vec<u64> = removed.into_iter().chain(exact.join().unwrap()).collect();
        let set = replace.join().unwrap();
        let left = World::finish(world);
        match set {
            // This unlinks the one that was replaced.
            Set::Replaced(1) => assert!(removed == [2] && left.is_empty(), "{removed:?} {left:?}"),
            Set::Inserted if removed.len() == 1 => assert_eq!((removed, left), (vec![1], vec![2])),
            Set::Inserted => {
                let mut removed = removed;
                removed.sort_unstable();
                assert_eq!((removed, left), (vec![1, 2], vec![]));
            }
            other => panic!("{other:?}"),
        }
    });
}

/// Two removes of one entry, and an insert into its slot, which neither may remove.
#[test]
fn two_removes_meet_the_next_insert() {
    explore(|| {
        let world = Arc::new(World::with(&[(A, 1)]));
        let other = spawn(&world, |w| w.remove_exactly(A));
        let mine = world.remove_exactly(A);
        assert_eq!(world.set(A3, 3), Set::Inserted);
        match (mine, other.join().unwrap()) {
            (Some(1), None) | (None, Some(1)) => {}
            both => panic!("{both:?}"),
        }
        assert_eq!(World::finish(world), [3]);
    });
}

/// An entry that is taken back was never in the table: no reader sees it, although it was in a
/// slot.
#[test]
fn an_entry_that_is_taken_back_is_never_read() {
    explore(|| {
        let world = Arc::new(World::with(&[(A, 1)]));
        let reader = spawn_reader(&world, |w| w.get(A));
        let other = spawn(&world, |w| w.try_once(A2, 5));
        assert_eq!(world.remove(A), Some(1));
        let is_in = world.try_once(A, 4);
        let seen = reader.join().unwrap();
        assert!(seen == Some(1) || seen.is_none() || (is_in && seen == Some(4)), "{seen:?}");
        let mut left = vec![];
        left.extend(is_in.then_some(4));
        left.extend(other.join().unwrap().then_some(5));
        assert_eq!(World::finish(world), left);
    });
}

/// The handle of an entry that was taken back is not reused while a reader may hold it.
#[test]
fn a_handle_that_was_given_up_is_not_used_again() {
    explore(|| {
        let world = Arc::new(World::with(&[(A, 1), (A2, 2)]));
        let reader = spawn_reader(&world, |w| w.get(A3));
        assert_eq!(world.remove(A), Some(1));
        assert_eq!(world.remove(A2), Some(2));
        // The slot of `A` is reused for `A2`, and that of `A2` is claimed for `A3`.
        world.give_up(A3, A2);
        assert_eq!(reader.join().unwrap(), None);
        assert_eq!(World::finish(world), [5]);
    });
}

/// A removed entry is not freed while a reader may hold it, but only after the reader has unpinned.
#[test]
fn a_reader_meets_a_remove_and_a_sweep() {
    // The reader reads before the remove, and unpins after the period began and before the sweep
    // checks it.
    explore_deep(5, || {
        let world = Arc::new(World::with(&[(A, 1)]));
        let reader = spawn_reader(&world, |w| {
            let guard = w.pin();
            (w.get_in(&guard, A), w.get_in(&guard, A))
        });
        assert_eq!(world.remove(A), Some(1));
        world.sweep();
        assert!(reader.join().unwrap() != (None, Some(1)));
        assert_eq!(World::finish(world), []);
    });
}

/// Victim selection meets a slot that is claimed, with its hints set, and not published.
#[test]
fn a_victim_is_chosen_beside_an_insert() {
    explore(|| {
        let world = Arc::new(World::with(&[]));
        let insert = spawn(&world, |w| w.set(A, 1));
        let evicted = world.evict_first();
        assert_eq!(insert.join().unwrap(), Set::Inserted);
        let left = if evicted.is_some() { vec![] } else { vec![1] };
        assert_eq!(World::finish(world), left);
    });
}

/// A reader is pinned for one key. Removed entries of other keys may be dropped concurrently, its
/// own only after it has unpinned.
#[test]
fn a_reader_of_a_part_meets_removes_and_an_early_sweep() {
    explore_deep(5, || {
        let world = Arc::new(World::with(&[(A, 1), (B, 2)]));
        let reader = spawn_reader(&world, |w| {
            let guard = w.pin_part(A);
            (w.get_in(&guard, A), w.get_in(&guard, A))
        });
        assert_eq!((world.remove(B), world.remove(A)), (Some(2), Some(1)));
        world.sweep_early();
        assert!(reader.join().unwrap() != (None, Some(1)));
        assert_eq!(World::finish(world), []);
    });
}

/// A thread's pin for one key is extended to two, while a sweep checks which parts it protects.
#[test]
fn a_reader_of_two_parts_meets_a_remove_and_an_early_sweep() {
    explore_deep(4, || {
        let world = Arc::new(World::with(&[(A, 1)]));
        let reader = spawn_reader(&world, |w| {
            let _outer = w.pin_part(B);
            let guard = w.pin_part(A);
            w.get_in(&guard, A)
        });
        assert_eq!(world.remove(A), Some(1));
        world.sweep_early();
        assert!([None, Some(1)].contains(&reader.join().unwrap()));
        assert_eq!(World::finish(world), []);
    });
}

/// Beside a pin of a third key, each value is dropped once, and its cell is freed when that pin has
/// ended.
#[test]
fn two_threads_sweep_early() {
    explore(|| {
        let world = Arc::new(World::with(&[(A, 1), (B, 2)]));
        assert_eq!((world.remove(A), world.remove(B)), (Some(1), Some(2)));
        let guard = world.pin_part(UP);
        let other = spawn(&world, |w| w.sweep_early());
        world.sweep_early();
        other.join().unwrap();
        drop(guard);
        assert_eq!(World::finish(world), []);
    });
}

/// Two threads retire into one bag, and one of them sweeps.
#[test]
fn two_removes_and_a_sweep_meet() {
    explore(|| {
        let world = Arc::new(World::with(&[(A, 1), (B, 2)]));
        let other = spawn(&world, |w| w.remove(B));
        assert_eq!(world.remove(A), Some(1));
        world.sweep();
        assert_eq!(other.join().unwrap(), Some(2));
        assert_eq!(World::finish(world), []);
    });
}

/// Each value is freed once, whether or not a sweep finds a limbo list taken.
#[test]
fn two_threads_sweep() {
    explore(|| {
        let world = Arc::new(World::with(&[(A, 1), (B, 2)]));
        assert_eq!((world.remove(A), world.remove(B)), (Some(1), Some(2)));
        let other = spawn(&world, |w| w.sweep());
        world.sweep();
        other.join().unwrap();
        assert_eq!(World::finish(world), []);
    });
}

/// A thread that finds the table at rest finds all values dropped.
#[test]
fn a_sweep_meets_a_look_whether_all_is_at_rest() {
    explore(|| {
        let world = Arc::new(World::with(&[(A, 1)]));
        assert_eq!(world.remove(A), Some(1));
        world.seal();
        world.watch_drops();
        let sweeper = spawn(&world, |w| w.sweep());
        if world.is_at_rest() {
            assert_eq!(world.dropped(), 1);
        }
        sweeper.join().unwrap();
        // With crossbeam-epoch, one sweep is not enough.
        assert!(world.is_at_rest() || cfg!(crossbeam_loom));
        assert!(World::finish(world).is_empty());
    });
}

/// Every value is seen once: by the call that unlinked it, or at the end.
#[test]
fn clear_meets_an_insert_and_a_replace() {
    explore(|| {
        let world = Arc::new(World::with(&[(A, 1), (B, 2)]));
        let insert = spawn(&world, |w| w.set(A2, 3));
        let replace = spawn(&world, |w| w.set(A, 4));
        let mut seen = world.clear();
        assert_eq!(insert.join().unwrap(), Set::Inserted);
        if let Set::Replaced(old) = replace.join().unwrap() {
            assert_eq!(old, 1);
            seen.push(old);
        }
        seen.extend(World::finish(world));
        seen.sort_unstable();
        assert_eq!(seen, [1, 2, 3, 4]);
    });
}

fn add_one(value: Option<u64>) -> Option<u64> {
    Some(value.unwrap_or(0) + 1)
}

#[test]
fn two_computes_of_one_key_lose_no_update() {
    explore(|| {
        let world = Arc::new(World::with(&[(A, 1)]));
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
        let world = Arc::new(World::with(&[(B, 9)]));
        let other = spawn(&world, |w| w.compute(A, add_one));
        let mut seen = [world.compute(A, add_one), other.join().unwrap()];
        seen.sort_unstable();
        assert_eq!(seen, [(None, Some(1)), (Some(1), Some(2))]);
        assert_eq!(World::finish(world), [2, 9]);
    });
}

/// A thread that makes an entry unevictable gets `true` only if the entry remains, and it is
/// counted while it is there.
#[test]
fn an_unevictable_entry_meets_an_eviction() {
    explore(|| {
        let world = Arc::new(World::with(&[(A, 1)]));
        let count = StdArc::new(AtomicUsize::new(0));
        let counted = StdArc::clone(&count);
        let evict = spawn(&world, move |w| w.evict_if_evictable(&counted));
        let is_unevictable = world.make_unevictable(A, &count);
        let is_evicted = evict.join().unwrap();
        assert!(is_unevictable != is_evicted);
        assert_eq!(count.load(SeqCst), usize::from(is_unevictable));
        assert_eq!(World::finish(world), if is_unevictable { vec![1] } else { vec![] });
    });
}

#[test]
fn an_unevictable_entry_meets_a_removal() {
    explore(|| {
        let world = Arc::new(World::with(&[(A, 1)]));
        let count = StdArc::new(AtomicUsize::new(0));
        let counted = StdArc::clone(&count);
        let remove = spawn(&world, move |w| w.remove_unevictable(A, &counted));
        world.make_unevictable(A, &count);
        assert!(remove.join().unwrap());
        assert_eq!(count.load(SeqCst), 0);
        assert_eq!(World::finish(world), []);
    });
}

/// The remove returns the result of the compute, or the compute finds nothing.
#[test]
fn a_compute_meets_a_remove() {
    explore(|| {
        let world = Arc::new(World::with(&[(A, 5)]));
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

/// One compute removes: it removes the value that it has read, not the result of the other.
#[test]
fn a_compute_that_removes_meets_one_that_adds() {
    explore(|| {
        let world = Arc::new(World::with(&[(A, 5)]));
        let add = spawn(&world, |w| w.compute(A, add_one));
        let remove = world.compute(A, |_| None);
        let left = match (add.join().unwrap(), remove) {
            ((Some(5), Some(6)), (Some(6), None)) => vec![],
            ((None, Some(1)), (Some(5), None)) => vec![1],
            both => panic!("{both:?}"),
        };
        assert_eq!(World::finish(world), left);
    });
}
