//! The table's protocol inside one bucket (`src/table`), and between two.

mod common;
mod world;

use common::{Bounds, explore_within};
use cortado::__internals::{
    reclaim::pin,
    sync::Arc,
    table::{LANES, Upsert},
};
use world::{A, A2, A3, A4, B, Set, UP, World, spawn, spawn_reader};

fn explore(scenario: impl Fn() + Send + Sync + 'static) {
    explore_within(Bounds { preemptions: Some(3), seconds: 4, schedules: 3_000 }, scenario);
}

#[test]
fn two_inserts_of_one_key() {
    explore(|| {
        let world = Arc::new(World::with(1, 64, &[(B, 9)]));
        let other = spawn(&world, |w| w.set(A, 2));
        let mine = world.set(A, 1);
        let other = other.join().unwrap();
        let last = match (mine, other) {
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
        let world = Arc::new(World::new(1, 64));
        let other = spawn(&world, |w| w.set(A, 2));
        let reader = spawn_reader(&world, |w| w.get(A));
        assert_eq!(world.set(A2, 1), Set::Inserted);
        assert_eq!(other.join().unwrap(), Set::Inserted);
        assert!([None, Some(2)].contains(&reader.join().unwrap()));
        assert_eq!(World::finish(world), [1, 2]);
    });
}

#[test]
fn an_insert_meets_a_remove() {
    explore(|| {
        let world = Arc::new(World::with(1, 64, &[(B, 9)]));
        let insert = spawn(&world, |w| w.set(A, 1));
        let removed = world.remove(A);
        assert_eq!(insert.join().unwrap(), Set::Inserted);
        let left = World::finish(world);
        assert_eq!(left, if removed.is_some() { vec![9] } else { vec![1, 9] });
    });
}

/// The slot of a removed entry is claimed for the next one: whoever sees that must go on seeing it.
#[test]
fn a_slot_is_used_again_under_a_reader() {
    explore(|| {
        let world = Arc::new(World::with(1, 64, &[(A, 1)]));
        let reader = spawn_reader(&world, |w| {
            let guard = pin();
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
        let world = Arc::new(World::with(1, 64, &[(A, 1)]));
        let replace = spawn(&world, |w| w.set(A, 2));
        let reader = spawn_reader(&world, |w| {
            let guard = pin();
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

/// A replacement that comes late must not land in a slot that has a new owner.
#[test]
fn a_replace_meets_a_remove_and_the_next_insert() {
    explore(|| {
        let world = Arc::new(World::with(1, 64, &[(A, 1)]));
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

/// What is claimed is not there yet: to replace it would promise an entry that nobody finds.
#[test]
fn a_replace_meets_a_remove_and_the_same_key_again() {
    explore(|| {
        let world = Arc::new(World::with(1, 64, &[(A, 9)]));
        let other = spawn(&world, |w| {
            let guard = pin();
            (w.set_in(&guard, A, 1), w.get_in(&guard, A))
        });
        let removed = world.remove(A);
        let again = world.set(A, 2);
        let (set, got) = other.join().unwrap();
        let left = match (set, removed, again) {
            (Set::Replaced(9), Some(1), Set::Inserted) => 2,
            (Set::Inserted, Some(9), Set::Replaced(1)) => {
                assert!(got.is_some());
                2
            }
            (Set::Replaced(2), Some(9), Set::Inserted) => {
                assert_eq!(got, Some(1));
                1
            }
            all => panic!("{all:?}"),
        };
        assert_eq!(World::finish(world), [left]);
    });
}

#[test]
fn two_replaces_return_their_predecessors() {
    explore(|| {
        let world = Arc::new(World::with(1, 64, &[(A, 1)]));
        let other = spawn(&world, |w| w.set(A, 2));
        let mine = world.set(A, 3);
        let last = match (mine, other.join().unwrap()) {
            (Set::Replaced(1), Set::Replaced(3)) => 2,
            (Set::Replaced(2), Set::Replaced(1)) => 3,
            both => panic!("{both:?}"),
        };
        assert_eq!(World::finish(world), [last]);
    });
}

/// The meta word looks the same before and after, but what had the tag was a stranger then.
#[test]
fn an_insert_meets_a_remove_of_a_stranger_and_another_insert() {
    explore(|| {
        let world = Arc::new(World::with(1, 64, &[(A2, 9)]));
        let other = spawn(&world, |w| w.set(A, 2));
        assert_eq!(world.remove(A2), Some(9));
        let mine = world.set(A, 1);
        let last = match (mine, other.join().unwrap()) {
            (Set::Inserted, Set::Replaced(1)) => 2,
            (Set::Replaced(2), Set::Inserted) => 1,
            both => panic!("{both:?}"),
        };
        assert_eq!(World::finish(world), [last]);
    });
}

#[test]
fn two_inserts_meet_a_remove_of_a_stranger() {
    explore(|| {
        let world = Arc::new(World::with(1, 64, &[(A2, 9)]));
        let one = spawn(&world, |w| w.set(A, 1));
        let two = spawn(&world, |w| w.set(A, 2));
        assert_eq!(world.remove(A2), Some(9));
        let last = match (one.join().unwrap(), two.join().unwrap()) {
            (Set::Inserted, Set::Replaced(1)) => 2,
            (Set::Replaced(2), Set::Inserted) => 1,
            both => panic!("{both:?}"),
        };
        assert_eq!(World::finish(world), [last]);
    });
}

#[test]
fn remove_if_meets_a_replace() {
    explore(|| {
        let world = Arc::new(World::with(1, 64, &[(A, 1)]));
        let replace = spawn(&world, |w| w.set(A, 2));
        let removed = world.remove_if(A, 1);
        match (replace.join().unwrap(), removed) {
            (Set::Inserted, Some(1)) | (Set::Replaced(1), None) => {}
            both => panic!("{both:?}"),
        }
        assert_eq!(World::finish(world), [2]);
    });
}

#[test]
fn remove_if_meets_a_remove_and_an_insert() {
    explore(|| {
        let world = Arc::new(World::with(1, 64, &[(A, 1)]));
        let remove = spawn(&world, |w| w.remove(A));
        let set = spawn(&world, |w| w.set(A, 2));
        let exactly = world.remove_if(A, 1);
        let left = match (exactly, remove.join().unwrap(), set.join().unwrap()) {
            (Some(1), None, Set::Inserted) => vec![2],
            (None, Some(1), Set::Inserted) => vec![2],
            (None | Some(1), Some(2), Set::Inserted | Set::Replaced(1)) => vec![],
            all => panic!("{all:?}"),
        };
        assert_eq!(World::finish(world), left);
    });
}

#[test]
fn clear_meets_an_insert_and_a_replace() {
    explore(|| {
        let world = Arc::new(World::with(1, 64, &[(A, 1), (B, 2)]));
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

fn full() -> World {
    full_in_batches_of(64)
}

fn full_in_batches_of(batch: usize) -> World {
    let mut world = World::with(1, batch, &[]);
    for i in 0..LANES as u64 {
        assert_eq!(world.set(A + (i << 8), 10 + i), Set::Inserted);
    }
    world.leaver = Some(10);
    world
}

#[test]
fn a_full_bucket_displaces_the_entry_that_is_read() {
    explore(|| {
        let world = Arc::new(full());
        let reader = spawn_reader(&world, |w| {
            let guard = pin();
            (w.get_in(&guard, A), w.get_in(&guard, A), w.get_in(&guard, B))
        });
        assert_eq!(world.set(B, 20), Set::Inserted);
        let (first, second, new) = reader.join().unwrap();
        assert!(first.is_some() || second.is_none(), "came back");
        assert!(new.is_none() || new == Some(20));
        assert_eq!(World::finish(world), [11, 12, 13, 14, 15, 16, 20]);
    });
}

#[test]
fn a_full_bucket_gets_two_newcomers() {
    explore(|| {
        let world = Arc::new(full());
        let other = spawn(&world, |w| w.set(B, 20));
        let mine = world.set(B + 1, 21);
        let left = match (mine, other.join().unwrap()) {
            (Set::Inserted, Set::Full) => 21,
            (Set::Full, Set::Inserted) => 20,
            both => panic!("{both:?}"),
        };
        assert_eq!(World::finish(world), [11, 12, 13, 14, 15, 16, left]);
    });
}

/// The victim is freed as soon as that may be, while its reader looks at it.
#[test]
fn a_full_bucket_displaces_and_frees_the_entry_that_is_read() {
    explore(|| {
        let world = Arc::new(full_in_batches_of(1));
        let reader = spawn_reader(&world, |w| w.get(A));
        assert_eq!(world.set(B, 20), Set::Inserted);
        world.table.sweep(usize::MAX);
        assert!([None, Some(10)].contains(&reader.join().unwrap()));
        assert_eq!(World::finish(world), [11, 12, 13, 14, 15, 16, 20]);
    });
}

#[test]
fn a_full_bucket_displaces_what_is_replaced() {
    explore(|| {
        let world = Arc::new(full());
        let newcomer = spawn(&world, |w| w.set(B, 20));
        let replaced = world.set(A, 2);
        let left = match (newcomer.join().unwrap(), replaced) {
            // The second of these found the slot before the newcomer did who had made it free.
            (Set::Full, Set::Replaced(10) | Set::Inserted) => 2,
            // It came too late, or what it had become was displaced in place of it.
            (Set::Inserted, Set::Full | Set::Replaced(10)) => 20,
            both => panic!("{both:?}"),
        };
        let mut left = [left, 11, 12, 13, 14, 15, 16];
        left.sort_unstable();
        assert_eq!(World::finish(world), left);
    });
}

#[test]
fn a_full_bucket_displaces_what_is_removed() {
    explore(|| {
        let world = Arc::new(full());
        let newcomer = spawn(&world, |w| w.set(B, 20));
        let removed = world.remove(A);
        let mut left = vec![11, 12, 13, 14, 15, 16];
        let leavers = match (newcomer.join().unwrap(), removed) {
            (Set::Inserted, None) => 1,
            (Set::Inserted, Some(10)) => 0,
            // The entry had left, and not yet its slot.
            (Set::Full, Some(10)) => {
                assert_eq!(World::finish(world), left);
                return;
            }
            both => panic!("{both:?}"),
        };
        let displaced = world.displaced.load(std::sync::atomic::Ordering::SeqCst);
        assert_eq!(displaced, leavers, "it leaves once");
        left.push(20);
        assert_eq!(World::finish(world), left);
    });
}

#[test]
fn a_sampled_entry_is_evicted_while_it_is_replaced_or_removed() {
    explore(|| {
        let world = Arc::new(World::with(1, 64, &[(A, 1)]));
        let other = spawn(&world, |w| (w.set(A, 2), w.remove_if(A, 2)));
        let evicted = world.evict();
        let left = match (evicted, other.join().unwrap()) {
            (None, (Set::Replaced(1), Some(2))) => vec![],
            (Some(1), (Set::Inserted, Some(2))) => vec![],
            (Some(2), (Set::Replaced(1), None)) => vec![],
            all => panic!("{all:?}"),
        };
        assert_eq!(World::finish(world), left);
    });
}

/// What is retired is freed as soon as that may be, and the reader must not be there any more.
#[test]
fn a_reader_meets_a_replace_that_frees() {
    explore(|| {
        let world = Arc::new(World::with(1, 1, &[(A, 1)]));
        let reader = spawn_reader(&world, |w| w.get(A));
        assert_eq!(world.set(A, 2), Set::Replaced(1));
        world.table.sweep(usize::MAX);
        assert!([Some(1), Some(2)].contains(&reader.join().unwrap()));
        assert_eq!(World::finish(world), [2]);
    });
}

/// Two buckets, one guard each, so that nothing but the buckets' own words orders the two.
#[test]
fn whoever_sees_the_removal_sees_the_insert_before_it() {
    explore(|| {
        let world = Arc::new(World::with(2, 64, &[(A, 1), (UP + 1, 7)]));
        let reader = spawn_reader(&world, |w| {
            let guard = pin();
            (w.get_in(&guard, A), w.get_in(&guard, UP))
        });
        {
            let guard = pin();
            assert_eq!(world.set_in(&guard, UP, 2), Set::Inserted);
            assert_eq!(world.remove_in(&guard, A), Some(1));
        }
        let (removed, inserted) = reader.join().unwrap();
        assert!(removed.is_some() || inserted == Some(2), "the effect without its cause");
        assert_eq!(World::finish(world), [2, 7]);
    });
}

/// A claim that ends in a refusal: its entry goes back to its owner, who drops it, while a reader
/// may hold the address of the slot's former and next inhabitants.
#[test]
fn a_claim_that_is_given_up_is_never_read() {
    explore(|| {
        let world = Arc::new(World::with(1, 64, &[(A, 1), (A4, 2)]));
        let reader = spawn_reader(&world, |w| w.get(A3));
        assert_eq!(world.remove(A), Some(1));
        assert_eq!(world.remove(A4), Some(2));
        // The slot of `A` is for `A2`, that of `A4` is claimed for `A3`.
        give_up(&world, A3, A2);
        assert_eq!(reader.join().unwrap(), None);
        assert_eq!(World::finish(world), [5]);
    });
}

/// Claims a slot for `key`, then finds `other` in place of it and gives up.
fn give_up(world: &World, key: u64, other: u64) {
    let guard = pin();
    let entry = world.entry(key, 4);
    let address = &raw const *entry;
    let mut asked = 0;
    let refused = world.table.upsert(
        &guard,
        world::hash(key),
        entry,
        world,
        |e, _| e.is(other),
        |old, _| {
            asked += 1;
            old.is_none() && world.set(other, 5) == Set::Inserted
        },
    );
    let Upsert::Refused(entry) = refused else { panic!("the other key was found") };
    assert_eq!((asked, entry.value()), (2, 4));
    assert_ne!(address, &raw const *entry, "a reader may still hold the address");
}
