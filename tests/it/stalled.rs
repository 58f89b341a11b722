//! Stalled readers: which ones the library's own collector counts and names.
//!
//! The clock is manual. The tests here assert only what readers of other tests cannot change in the
//! count; `tests/alone.rs` has the rest.

use std::{
    sync::mpsc::{self, Receiver, Sender},
    thread::{self, JoinHandle},
    time::Duration,
};

use cortado::{Cache, Insert, Maintenance, ManualClock, RejectReason, StalledReader, WorkLimit};

use crate::{
    builder,
    support::{BOTH, eventually},
};

/// The time after which a reader is stalled.
const LONG: Duration = Duration::from_millis(100);

/// A thread that continues to its next step when the test lets it.
struct Reader {
    next: Sender<()>,
    done: Receiver<()>,
    thread: JoinHandle<()>,
}

impl Reader {
    /// Starts a thread with that name, which calls the argument of `steps` at the end of each step
    /// but the last.
    fn start(name: &str, steps: impl FnOnce(&dyn Fn()) + Send + 'static) -> Self {
        let (next, is_next) = mpsc::channel::<()>();
        let (is_done, done) = mpsc::channel();
        let run = move || {
            let pause = || {
                is_done.send(()).unwrap();
                // Ends with the sender, so that a failed assertion does not leave the thread
                // waiting.
                let _ = is_next.recv();
            };
            steps(&pause);
        };
        let thread = thread::Builder::new().name(name.into()).spawn(run).unwrap();
        done.recv().unwrap();
        Self { next, done, thread }
    }

    /// Runs the thread's next step.
    fn step(&self) {
        self.next.send(()).unwrap();
        self.done.recv().unwrap();
    }

    /// Runs the thread's last step.
    fn end(self) {
        self.next.send(()).unwrap();
        self.thread.join().unwrap();
    }
}

fn cache(maintenance: Maintenance) -> (Cache<u64, u64>, ManualClock) {
    let clock = ManualClock::new();
    let cache = builder(100, maintenance).clock(clock.clone()).build().unwrap();
    assert!(cache.insert(1, 1).is_in());
    (cache, clock)
}

/// Returns the report on the stalled reader of that name.
fn find(cache: &Cache<u64, u64>, name: &str) -> Option<StalledReader> {
    cache.stalled_readers().into_iter().find(|reader| reader.name == name)
}

#[test]
fn reader_that_holds_a_value_is_counted_and_named_until_it_lets_go() {
    for maintenance in BOTH {
        let (cache, clock) = cache(maintenance);
        let reader = Reader::start("holds a value", {
            let cache = cache.clone();
            move |pause| {
                let held = cache.get(&1).unwrap();
                pause();
                assert_eq!(*held, 1);
                drop(held);
                pause();
            }
        });
        assert_eq!(find(&cache, "holds a value"), None);
        clock.advance(LONG - Duration::from_nanos(1));
        assert_eq!(find(&cache, "holds a value"), None);
        clock.advance(Duration::from_nanos(1));
        let first = find(&cache, "holds a value").unwrap();
        assert_eq!(first.pinned_for, LONG);
        eventually("it is counted", || cache.memory().stalled_readers >= Some(1));
        clock.advance(LONG);
        let second = find(&cache, "holds a value").unwrap();
        assert_eq!((second.thread, second.pinned_for), (first.thread, 2 * LONG));
        reader.step();
        assert_eq!(find(&cache, "holds a value"), None);
        reader.end();
    }
}

#[test]
fn reader_with_a_pin_is_named_and_readers_are_distinguished_by_number() {
    let (cache, clock) = cache(Maintenance::Manual);
    let hold = |cache: Cache<u64, u64>| {
        move |pause: &dyn Fn()| {
            let pinned = cache.pin();
            pause();
            assert_eq!(pinned.get(&1), Some(&1));
        }
    };
    let readers = [(); 3].map(|()| Reader::start("one of three", hold(cache.clone())));
    let numbers = || {
        let stalled = cache.stalled_readers().into_iter();
        let mut numbers: Vec<_> = stalled
            .filter(|reader| reader.name == "one of three")
            .map(|reader| reader.thread.expect("the thread is not ending"))
            .collect();
        numbers.sort_unstable();
        numbers.dedup();
        numbers
    };
    assert!(numbers().is_empty());
    clock.advance(LONG);
    let all = numbers();
    assert_eq!(all.len(), 3);
    let [first, second, third] = readers;
    second.end();
    let rest = numbers();
    assert!(rest.len() == 2 && rest.iter().all(|number| all.contains(number)));
    first.end();
    third.end();
    assert!(numbers().is_empty());
}

#[test]
fn reader_of_another_cache_is_not_named_and_one_of_both_is() {
    let (one, one_clock) = cache(Maintenance::Manual);
    let (other, other_clock) = cache(Maintenance::Manual);
    let reader = Reader::start("of another cache", {
        let (one, other) = (one.clone(), other.clone());
        move |pause| {
            let held = other.get(&1);
            pause();
            let both = (held, one.get(&1));
            pause();
            drop(both);
            pause();
        }
    });
    let look = || {
        let found = [&one, &other].map(|cache| find(cache, "of another cache").is_some());
        one_clock.advance(LONG);
        other_clock.advance(LONG);
        found
    };
    assert_eq!(look(), [false, false]);
    assert_eq!(look(), [false, true]);
    assert_eq!(look(), [false, true]);
    reader.step();
    // For the first cache, the pin begins with the scan that finds it there.
    assert_eq!(look(), [false, true]);
    assert_eq!(look(), [true, true]);
    reader.step();
    assert_eq!(look(), [false, false]);
    reader.end();
}

#[test]
fn thread_that_pins_again_and_again_is_not_stalled() {
    let (cache, clock) = cache(Maintenance::Manual);
    let reader = Reader::start("pins again", {
        let cache = cache.clone();
        move |pause| {
            let mut held = cache.get(&1);
            for _ in 0..5 {
                pause();
                // It holds one value after the other, and is without one only for this moment.
                drop(held.take());
                held = cache.get(&1);
            }
            drop(held);
            let mut pinned = cache.pin();
            for _ in 0..5 {
                pause();
                pinned.repin();
            }
        }
    });
    for _ in 0..9 {
        assert_eq!(find(&cache, "pins again"), None);
        clock.advance(LONG);
        reader.step();
    }
    reader.end();
}

#[test]
fn thread_that_never_unpins_is_stalled_though_its_values_change() {
    let (cache, clock) = cache(Maintenance::Manual);
    let reader = Reader::start("hand over hand", {
        let cache = cache.clone();
        move |pause| {
            let mut held = cache.get(&1);
            for _ in 0..3 {
                pause();
                let next = cache.get(&1);
                drop(std::mem::replace(&mut held, next));
            }
        }
    });
    assert_eq!(find(&cache, "hand over hand"), None);
    clock.advance(LONG);
    reader.step();
    assert!(find(&cache, "hand over hand").is_some());
    reader.step();
    reader.end();
}

/// Removes an entry, so that maintenance finds pending garbage.
fn leave_garbage(cache: &Cache<u64, u64>) {
    drop(cache.remove(&1));
    assert_eq!(cache.tick(WorkLimit::ALL).freed, 0);
}

#[test]
fn first_call_has_the_answer_where_garbage_waits() {
    let (cache, clock) = cache(Maintenance::Manual);
    let reader = Reader::start("known at once", {
        let cache = cache.clone();
        move |pause| {
            let held = cache.get(&1);
            pause();
            drop(held);
        }
    });
    leave_garbage(&cache);
    clock.advance(LONG);
    assert_eq!(find(&cache, "known at once").unwrap().pinned_for, LONG);
    reader.end();
}

#[test]
fn reader_for_whose_garbage_an_insert_is_rejected_is_named_though_maintenance_never_ran() {
    let clock = ManualClock::new();
    let builder = builder(100, Maintenance::Manual).max_garbage(0).clock(clock.clone());
    let cache = builder.build().unwrap();
    assert!(cache.insert(1, 1).is_in());
    let reader = Reader::start("has it rejected", {
        let cache = cache.clone();
        move |pause| {
            let held = cache.get(&1);
            pause();
            drop(held);
        }
    });
    let rejected = (2..10_000)
        .find(|&key| matches!(cache.insert(key, key), Insert::Rejected(_, RejectReason::Garbage)));
    assert!(rejected.is_some());
    clock.advance(LONG);
    assert_eq!(find(&cache, "has it rejected").unwrap().pinned_for, LONG);
    reader.end();
}

#[test]
fn caller_that_holds_a_value_itself_is_named() {
    let (cache, clock) = cache(Maintenance::Manual);
    let run = {
        let cache = cache.clone();
        move |pause: &dyn Fn()| {
            let held = cache.get(&1);
            let _ = cache.stalled_readers();
            clock.advance(LONG);
            assert!(find(&cache, "holds it itself").is_some());
            drop(held);
            assert!(find(&cache, "holds it itself").is_none());
            pause();
        }
    };
    Reader::start("holds it itself", run).end();
}

#[test]
fn clock_that_panics_leaves_the_count_unknown() {
    let clock = || panic!("planned");
    struct Panicking<F>(F);
    impl<F: Fn() -> Duration + Send + Sync + 'static> cortado::Clock for Panicking<F> {
        fn now(&self) -> Duration {
            (self.0)()
        }
    }
    let builder = builder::<u64, u64>(100, Maintenance::Manual).clock(Panicking(clock));
    let cache = builder.build().unwrap();
    let held = cache.pin();
    let memory = cache.memory();
    assert_eq!((memory.stalled_readers, cache.stalled_readers()), (None, vec![]));
    assert!(memory.table > 0);
    drop(held);
}
