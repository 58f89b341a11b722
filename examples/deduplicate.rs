//! Deduplication: threads receive each event several times, and exactly one of them processes it
//! in a time window.
//!
//! `cargo run --example deduplicate`

use std::{
    collections::VecDeque,
    sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed},
    thread,
    time::Duration,
};

use cortado::{BuildError, Cache, Insert, InsertOptions, ManualClock, Priority, RejectReason};

const THREADS: usize = 4;
const EVENTS: u64 = 5_000;
/// One event in this many fails when it is processed for the first time.
const FAILURE: u64 = 10;
const WINDOW: Duration = Duration::from_secs(600);

/// The outcome of a delivery.
#[derive(Debug, PartialEq)]
enum Delivery {
    Processed,
    Duplicate,
    /// The event counts as not seen: it has to be delivered again.
    Failed,
    /// The ids of a window do not fit the budget: the pipeline has to slow down.
    NoRoom,
}

/// Processes an event, unless its id was seen in this window.
///
/// `process` must take less time than the window and must not panic: otherwise the id may stay
/// although its event was not processed, or that of a later delivery may be removed.
fn deliver(seen: &Cache<u64, ()>, id: u64, process: impl FnOnce() -> bool) -> Delivery {
    // Of all threads that insert an id concurrently, one succeeds. An unevictable id is not
    // forgotten before its window has passed: if there is no room, the insert is rejected instead.
    let unevictable = InsertOptions::new().priority(Priority::Pinned);
    match seen.insert_if_absent_with(id, (), unevictable) {
        Insert::Inserted | Insert::Updated => {}
        Insert::Rejected((), RejectReason::Present) => return Delivery::Duplicate,
        Insert::Rejected((), _) => return Delivery::NoRoom,
    }
    if process() {
        Delivery::Processed
    } else {
        seen.remove(&id);
        Delivery::Failed
    }
}

/// What became of the deliveries of one round.
#[derive(Debug, Default, PartialEq)]
struct Round {
    processed: u64,
    duplicates: u64,
    failed: u64,
}

/// Delivers every event to every thread.
fn round(seen: &Cache<u64, ()>, attempts: &[AtomicU32], processed: &[AtomicU32]) -> Round {
    let (successes, duplicates, failures) =
        (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
    thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                let mut queue: VecDeque<u64> = (0..EVENTS).collect();
                while let Some(id) = queue.pop_front() {
                    let event = id as usize;
                    let process = || {
                        let is_first = attempts[event].fetch_add(1, Relaxed) == 0;
                        if is_first && id.is_multiple_of(FAILURE) {
                            return false;
                        }
                        processed[event].fetch_add(1, Relaxed);
                        true
                    };
                    match deliver(seen, id, process) {
                        Delivery::Processed => successes.fetch_add(1, Relaxed),
                        Delivery::Duplicate => duplicates.fetch_add(1, Relaxed),
                        Delivery::Failed => {
                            queue.push_back(id);
                            failures.fetch_add(1, Relaxed)
                        }
                        Delivery::NoRoom => panic!("the budget has room for all ids"),
                    };
                }
            });
        }
    });
    Round {
        processed: successes.into_inner(),
        duplicates: duplicates.into_inner(),
        failed: failures.into_inner(),
    }
}

fn main() -> Result<(), BuildError> {
    let clock = ManualClock::new();
    // Room for the ids of two windows: expired ones leave the budget soon, not at once.
    let seen = Cache::builder()
        .max_cost(2 * EVENTS)
        .expected_entries(2 * EVENTS as usize)
        .ttl(WINDOW)
        .clock(clock.clone())
        .build()?;
    let counts = || (0..EVENTS).map(|_| AtomicU32::new(0)).collect::<Vec<_>>();
    let (attempts, processed) = (counts(), counts());
    let all = |times| processed.iter().all(|count| count.load(Relaxed) == times);
    let copies = THREADS as u64 * EVENTS;

    let first = round(&seen, &attempts, &processed);
    println!("first window:  {first:?}");
    assert!(all(1), "each event was processed once");
    assert_eq!(first.failed, EVENTS / FAILURE);
    assert_eq!((first.processed, first.duplicates), (EVENTS, copies - EVENTS));

    clock.advance(WINDOW - Duration::from_nanos(1));
    let late = round(&seen, &attempts, &processed);
    println!("at its end:    {late:?}");
    assert_eq!(late, Round { duplicates: copies, ..Round::default() });
    assert!(all(1));

    clock.advance(Duration::from_nanos(1));
    let second = round(&seen, &attempts, &processed);
    println!("second window: {second:?}");
    let expected = Round { processed: EVENTS, duplicates: copies - EVENTS, failed: 0 };
    assert_eq!(second, expected);
    assert!(all(2), "each event was processed once more");

    // If the budget is used up, no id is forgotten, and a new one is not mistaken for a duplicate.
    let small = Cache::builder().max_cost(2).ttl(WINDOW).build()?;
    let outcomes = [1, 2, 3, 2, 1].map(|id| deliver(&small, id, || true));
    use Delivery::{Duplicate, NoRoom, Processed};
    assert_eq!(outcomes, [Processed, Processed, NoRoom, Duplicate, Duplicate]);
    Ok(())
}
