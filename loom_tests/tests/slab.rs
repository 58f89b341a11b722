//! The slab: cells, magazines, and the arrays beside cells (`src/slab`).
#![allow(unsafe_code)] // values are moved into cells and out of them

mod common;

use common::{Bounds, explore_within};
use cortado::__internals::{
    slab::{Bags, Handle, Retired, Slab},
    sync::{
        Arc, Watched,
        atomic::{AtomicU32, Ordering},
        thread,
    },
};

fn explore(scenario: impl Fn() + Send + Sync + 'static) {
    explore_within(Bounds { preemptions: Some(3), seconds: 8, schedules: 5_000 }, scenario);
}

/// A value that loom watches: unordered accesses of two threads to its cell fail the test.
struct Value {
    watched: Watched,
    number: u32,
}

type World = Arc<Slab<Value>>;

/// Creates a slab with one stripe. Chunks and magazines have two cells.
fn world() -> World {
    Arc::new(Slab::new(2, 1))
}

fn spawn<R: Send + 'static>(
    world: &World,
    f: impl FnOnce(&Slab<Value>) -> R + Send + 'static,
) -> thread::JoinHandle<R> {
    let world = Arc::clone(world);
    thread::spawn(move || f(&world))
}

/// Allocates a cell and moves a value into it.
fn make(slab: &Slab<Value>, number: u32) -> Handle {
    let handle = slab.allocate(0).unwrap();
    // SAFETY: allocated above.
    unsafe { slab.write(handle, Value { watched: Watched::new(), number }) };
    handle
}

/// Moves the value out of its cell.
fn unmake(slab: &Slab<Value>, handle: Handle, number: u32) {
    // SAFETY: the caller made it.
    let value = unsafe { slab.take(handle) };
    value.watched.write();
    assert_eq!(value.number, number);
}

/// Allocates a value, checks that it does not change, and frees its cell.
fn use_a_cell(slab: &Slab<Value>, number: u32) {
    let handle = make(slab, number);
    unmake(slab, handle, number);
    release(slab, handle);
}

fn release(slab: &Slab<Value>, handle: Handle) {
    // SAFETY: the caller made it and moved its value out.
    unsafe { slab.release(handle, 0) };
}

/// They race for the first leaf, chunk and magazine, and for the stripe.
#[test]
fn two_threads_allocate_from_an_empty_slab() {
    explore(|| {
        let world = world();
        let other = spawn(&world, |slab| make(slab, 1));
        let mine = make(&world, 2);
        let theirs = other.join().unwrap();
        assert_ne!(mine, theirs);
        unmake(&world, theirs, 1);
        unmake(&world, mine, 2);
    });
}

/// The chunk has two cells, so one or both of the threads add another chunk.
#[test]
fn two_threads_allocate_more_than_a_chunk_has() {
    explore(|| {
        let world = world();
        let first = make(&world, 1);
        let other = spawn(&world, |slab| [make(slab, 2), make(slab, 3)]);
        let mine = make(&world, 4);
        let [second, third] = other.join().unwrap();
        let all = [first, second, third, mine];
        for (number, handle) in (1..).zip(all) {
            assert!(all.iter().filter(|&&other| other == handle).count() == 1);
            unmake(&world, handle, number);
        }
    });
}

#[test]
fn cells_go_from_thread_to_thread() {
    explore(|| {
        let world = world();
        use_a_cell(&world, 1);
        let other = spawn(&world, |slab| use_a_cell(slab, 2));
        use_a_cell(&world, 3);
        other.join().unwrap();
        use_a_cell(&world, 4);
        // A thread that finds the stripe acquired may add a chunk.
        assert!(world.cells() <= 4);
    });
}

/// A thread allocates from a bag that another thread has filled.
#[test]
fn a_bag_goes_from_thread_to_thread() {
    explore(|| {
        let world = world();
        let handles = [make(&world, 1), make(&world, 2)];
        let other = spawn(&world, |slab| use_a_cell(slab, 3));
        let sealed = Bags::new(1);
        for (number, handle) in (1..).zip(handles) {
            unmake(&world, handle, number);
            // SAFETY: allocated above, and retired once.
            unsafe { world.collect(Retired::empty(handle), u64::MAX, 0, &sealed) };
        }
        world.seal(&sealed);
        // SAFETY: the values were moved out, and no other thread knows of the handles.
        unsafe { world.take_bags(&sealed) }.for_each(drop);
        use_a_cell(&world, 4);
        other.join().unwrap();
    });
}

/// One thread takes a magazine. Another takes two and puts the first back, which is then on top of
/// the stack again, with another one below it (ABA).
#[test]
fn a_pop_meets_a_magazine_that_comes_back() {
    explore(|| {
        let world = world();
        let three: Vec<_> = (0..3).map(|_| world.bag().unwrap()).collect();
        drop(three);
        let other = spawn(&world, |slab| {
            let (first, second) = (slab.bag().unwrap(), slab.bag().unwrap());
            drop(first);
            let number = second.number();
            // This thread keeps it.
            std::mem::forget(second);
            number
        });
        let (one, two) = (world.bag().unwrap(), world.bag().unwrap());
        let theirs = other.join().unwrap();
        let (one, two) = (one.number(), two.number());
        assert!(one != two && one != theirs && two != theirs, "{one} {two} {theirs}");
    });
}

/// The array of costs is created while the cost of another cell of the chunk, which has none, is
/// read.
#[test]
fn a_cost_is_read_while_another_cell_gets_one() {
    explore(|| {
        let world = world();
        let (plain, costly) = (make(&world, 1), make(&world, 2));
        assert!(world.checked_cell(plain).set_charge(1).is_ok());
        let other = spawn(&world, move |slab| {
            slab.checked_cell(costly).set_charge(5).unwrap();
            slab.checked_cell(costly).charge()
        });
        assert_eq!(world.checked_cell(plain).charge(), 1);
        assert_eq!(other.join().unwrap(), 5);
        assert_eq!(world.checked_cell(plain).charge(), 1);
        unmake(&world, plain, 1);
        unmake(&world, costly, 2);
    });
}

/// Two users of cells of one chunk need the array at the same time.
#[test]
fn two_threads_set_costs() {
    explore(|| {
        let world = world();
        let (one, two) = (make(&world, 1), make(&world, 2));
        let other = spawn(&world, move |slab| slab.checked_cell(one).set_charge(5).unwrap());
        world.checked_cell(two).set_charge(0).unwrap();
        other.join().unwrap();
        assert_eq!((world.checked_cell(one).charge(), world.checked_cell(two).charge()), (5, 0));
        unmake(&world, one, 1);
        unmake(&world, two, 2);
    });
}

/// A cell changes its user while a reader of the published handle reads its cost. It finds the cost
/// of the user who published it, and the next user does not inherit that.
#[test]
fn a_published_cost_is_its_users() {
    explore(|| {
        let world = world();
        let published = Arc::new(AtomicU32::new(0));
        let reader = spawn(&world, {
            let published = Arc::clone(&published);
            move |slab| {
                // Acquire: pairs with the Release below, as a table's word does.
                match published.load(Ordering::Acquire) {
                    0 => None,
                    raw => Some(slab.checked_cell(Handle::new(raw)).charge()),
                }
            }
        });
        let handle = make(&world, 1);
        world.checked_cell(handle).set_charge(7).unwrap();
        published.store(handle.raw(), Ordering::Release);
        let seen = reader.join().unwrap();
        assert!(seen.is_none_or(|cost| cost == 7), "{seen:?}");
        unmake(&world, handle, 1);
        release(&world, handle);
        let again = [make(&world, 2), make(&world, 3)];
        assert!(again.contains(&handle));
        for (number, handle) in (2..).zip(again) {
            world.checked_cell(handle).set_charge(1).unwrap();
            assert_eq!(world.checked_cell(handle).charge(), 1);
            unmake(&world, handle, number);
        }
    });
}

/// Two threads retire into one bag.
#[test]
fn two_threads_retire_at_one_stripe() {
    explore(|| {
        let world = world();
        let sealed = Arc::new(Bags::new(1));
        let retire = |slab: &Slab<Value>, handle, number, sealed: &Bags| {
            unmake(slab, handle, number);
            // SAFETY: made by this scenario, and retired once.
            unsafe { slab.collect(Retired::empty(handle), u64::MAX, 0, sealed) };
        };
        let (one, two) = (make(&world, 1), make(&world, 2));
        let other = spawn(&world, {
            let sealed = Arc::clone(&sealed);
            move |slab| retire(slab, one, 1, &sealed)
        });
        retire(&world, two, 2, &sealed);
        other.join().unwrap();
        world.seal(&sealed);
        // SAFETY: the values were moved out, and the other thread has ended.
        let bags = unsafe { world.take_bags(&sealed) };
        let mut handles: Vec<_> =
            bags.flat_map(|bag| bag.iter().collect::<Vec<_>>()).map(|(handle, _)| handle).collect();
        handles.sort_unstable_by_key(|handle| handle.raw());
        let mut both = [one, two];
        both.sort_unstable_by_key(|handle| handle.raw());
        assert_eq!(handles, both);
    });
}

/// A thread takes all free cells to return their memory, while another allocates and frees cells.
#[test]
fn a_trim_meets_an_allocation_and_a_release() {
    explore(|| {
        let world = world();
        let old = [make(&world, 1), make(&world, 2)];
        unmake(&world, old[0], 1);
        release(&world, old[0]);
        let other = spawn(&world, move |slab| {
            let mine = make(slab, 3);
            unmake(slab, old[1], 2);
            release(slab, old[1]);
            mine
        });
        world.trim();
        let mine = make(&world, 4);
        let theirs = other.join().unwrap();
        assert_ne!(mine, theirs);
        unmake(&world, mine, 4);
        unmake(&world, theirs, 3);
    });
}
