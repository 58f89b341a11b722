//! The sketch: counting, aging, growing (`src/sketch.rs`). A slice is one block here.

mod common;

use common::{Bounds, explore, explore_within};
use cortado::__internals::sketch::{ENTRIES_PER_BLOCK as BLOCK, Sketch};
use cortado::__internals::sync::model::as_reader;
use cortado::__internals::sync::{Arc, thread};

/// A step of the second age.
const AGED: u32 = 1 << 20;

/// A hash that is in another block than the hash 1, of two blocks.
const FAR: u64 = 0;

/// Creates a sketch in which each of `hashes` was counted `times` times.
fn counted(entries: usize, hashes: &[u64], times: usize) -> Arc<Sketch> {
    let sketch = Sketch::new(entries);
    for hash in hashes {
        for _ in 0..times {
            assert!(sketch.increment(*hash));
        }
    }
    Arc::new(sketch)
}

/// Returns the positions of the counters that one event of a hash changes.
fn places(hash: u64) -> Vec<usize> {
    let sketch = counted(BLOCK, &[hash], 1);
    let counters = sketch.counters();
    counters.iter().enumerate().filter(|(_, count)| **count > 0).map(|(i, _)| i).collect()
}

/// Checks that only the counters of `hashes` have changed.
fn assert_no_bleeding(sketch: &Sketch, hashes: &[u64]) {
    let own: Vec<usize> = hashes.iter().flat_map(|&hash| places(hash)).collect();
    for (i, count) in sketch.counters().iter().enumerate() {
        assert!(*count == 0 || own.contains(&i), "counter {i}, a stranger's, is {count}");
    }
}

#[test]
fn two_threads_count_a_hash_at_fourteen() {
    explore(|| {
        let sketch = counted(BLOCK, &[1], 14);
        let other = {
            let sketch = Arc::clone(&sketch);
            thread::spawn(move || sketch.increment(1))
        };
        sketch.increment(1);
        other.join().unwrap();
        assert_eq!(sketch.estimate(1), 15);
        assert_no_bleeding(&sketch, &[1]);
    });
}

#[test]
fn two_threads_count_different_hashes_and_a_third_looks() {
    explore(|| {
        let sketch = counted(BLOCK, &[1], 1);
        let threads = [1, 2].map(|hash| {
            let sketch = Arc::clone(&sketch);
            thread::spawn(move || {
                sketch.increment(hash);
            })
        });
        let seen = as_reader(|| sketch.estimate(1));
        assert!((1..=3).contains(&seen), "{seen}");
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        assert_no_bleeding(&sketch, &[1, 2]);
    });
}

#[test]
fn an_increment_races_a_halving() {
    explore(|| {
        let sketch = counted(BLOCK, &[1], 5);
        let aging = {
            let sketch = Arc::clone(&sketch);
            thread::spawn(move || sketch.age(AGED))
        };
        sketch.increment(1);
        sketch.increment(1);
        aging.join().unwrap();
        // At most 5 / 2 + 2 if the halving came first, and 7 / 2 if it came last, less the lost
        // counts.
        let estimate = sketch.estimate(1);
        assert!((2..=4).contains(&estimate), "{estimate}");
        assert_no_bleeding(&sketch, &[1]);
    });
}

#[test]
fn two_threads_advance_and_no_block_is_halved_twice() {
    explore(|| {
        let sketch = counted(2 * BLOCK, &[1, FAR], 4);
        let counters = sketch.counters();
        let [first, second] = [0, 1].map(|block| &counters[block * counters.len() / 2..][..128]);
        assert!(first.contains(&4) && second.contains(&4), "both hashes are in one block");
        let other = {
            let sketch = Arc::clone(&sketch);
            thread::spawn(move || sketch.age(AGED))
        };
        sketch.age(AGED);
        sketch.age(AGED);
        other.join().unwrap();
        sketch.age(AGED);
        sketch.age(AGED);
        assert_eq!([sketch.estimate(1), sketch.estimate(FAR)], [2, 2]);
    });
}

#[test]
fn a_reader_of_a_growing_sketch_sees_its_counters() {
    explore_within(Bounds { preemptions: Some(2), ..Bounds::default() }, || {
        let sketch = counted(BLOCK, &[1], 3);
        let grower = {
            let sketch = Arc::clone(&sketch);
            thread::spawn(move || sketch.grow(2 * BLOCK))
        };
        assert_eq!(as_reader(|| sketch.estimate(1)), 3);
        assert_eq!(as_reader(|| sketch.estimate(1)), 3);
        grower.join().unwrap();
        assert_eq!((sketch.entries(), sketch.estimate(1)), (2 * BLOCK, 3));
    });
}

#[test]
fn a_growth_meets_a_pass_and_another_growth() {
    explore_within(Bounds { preemptions: Some(2), ..Bounds::default() }, || {
        let sketch = counted(BLOCK, &[1], 4);
        let grower = {
            let sketch = Arc::clone(&sketch);
            thread::spawn(move || sketch.grow(2 * BLOCK))
        };
        sketch.age(AGED);
        sketch.grow(2 * BLOCK);
        grower.join().unwrap();
        sketch.age(AGED);
        sketch.age(AGED);
        // 4 if the copy was made before the original was halved.
        let estimate = sketch.estimate(1);
        assert!(estimate == 2 || estimate == 4, "{estimate}");
        assert_eq!(sketch.entries(), 2 * BLOCK);
    });
}
