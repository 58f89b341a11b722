//! The collector for loom and shuttle: ends periods as early as is correct, and detects misuse.
//!
//! A grace period ends at the first moment at which it may: when the last guard that existed at its
//! beginning is dropped. So a model test runs against the most aggressive correct collector.
//!
//! Both tools run all model threads on one system thread, so plain thread-local state serves a
//! whole execution and adds no happens-before edge that a real collector lacks. The edges that a
//! real collector has are made by atomics that the model sees:
//!
//! * a fence at each pin, and one at the beginning of a grace period;
//! * each thread's *local*, written at its unpins and read at the beginning of a grace period, so
//!   that reads under a dropped guard happen before the period;
//! * the period's counter, for the guards that existed at its beginning.
//!
//! No operation that a model schedules runs while the state is borrowed, because the next thread
//! would find it borrowed.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    mem::ManuallyDrop,
    rc::Rc,
};

use super::{Domain, counted::Grace};
use crate::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering, fence},
    thread_number,
};

/// More guards than any scenario has at a time.
const MAX_GUARDS: usize = 64;
/// More than the highest thread number of any scenario.
const MAX_THREADS: usize = 8;
/// Grace periods that a scenario may pass from thread to thread.
const COUNTERS: usize = 8;

/// A pin; see the [module](super).
#[derive(Debug)]
pub struct Guard {
    stamp: u64,
    thread: usize,
    domain: Domain,
}

/// Pins the current thread.
pub fn pin_for(domain: Domain) -> Guard {
    let thread = thread_number() % MAX_THREADS;
    let stamp = with_state(|state| {
        let stamp = state.tick();
        state.pinned.insert(stamp, (thread, domain));
        state.threads.insert(thread);
        stamp
    });
    // SeqCst: the fence that every epoch scheme has between announcing a pin and the first read.
    fence(Ordering::SeqCst);
    Guard { stamp, thread, domain }
}

/// Resets the state. Called at the start of an execution, before its other threads start.
pub fn reset() {
    let fresh = State {
        locals: (0..MAX_THREADS).map(|_| Rc::new(AtomicUsize::new(0))).collect(),
        counters: (0..COUNTERS).map(|_| Arc::new(AtomicUsize::new(1))).collect(),
        ..State::default()
    };
    // The state of an earlier execution belongs to a model that no longer exists.
    std::mem::forget(with_state(|state| std::mem::replace(state, fresh)));
}

/// Returns how many pointers were retired and how many of them were freed. Called at the end of an
/// execution.
pub fn census() -> (usize, usize) {
    let state = with_state(std::mem::take);
    (state.retired.len(), state.freed.len())
}

/// Returns a counter that every thread of the execution may use without synchronizing with its
/// creator, because a real collector publishes its periods.
fn counter() -> Arc<AtomicUsize> {
    let ready = with_state(|state| state.counters.pop());
    ready.unwrap_or_else(|| Arc::new(AtomicUsize::new(1)))
}

impl Grace {
    /// Begins a period for memory that was unlinked before. It ends when every guard that exists
    /// now and meets the domain has been dropped.
    pub fn begin(domain: Domain) -> Self {
        let grace = Self { outstanding: counter() };
        // SeqCst: the fence that every epoch scheme has between unlinking and reading the epoch.
        fence(Ordering::SeqCst);
        let handle = std::sync::Arc::new(grace.clone());
        // Relaxed: the grace period is not shared before it is in the state. The number is greater
        // than that of the guards: each guard must decrement the counter itself, or its reads would
        // not happen before the end of the period.
        grace.outstanding.store(MAX_GUARDS, Ordering::Relaxed);
        let (waits, locals) = with_state(|state| {
            let pinned = state.pinned.iter().filter(|(_, (_, whose))| whose.meets(domain));
            let stamps: Vec<u64> = pinned.map(|(&stamp, _)| stamp).collect();
            for &stamp in &stamps {
                state.waiting.entry(stamp).or_default().push(std::sync::Arc::clone(&handle));
            }
            let local = |&thread: &usize| state.locals.get(thread).cloned();
            (stamps.len(), state.threads.iter().filter_map(local).collect::<Vec<_>>())
        });
        for local in locals {
            // Acquire: pairs with the Release in the drop of a guard. A read-modify-write, because
            // a collector that finds no thread pinned has seen the newest value.
            local.fetch_add(0, Ordering::Acquire);
        }
        // AcqRel: as in `Grace::end`.
        grace.outstanding.fetch_sub(MAX_GUARDS - waits, Ordering::AcqRel);
        grace
    }
}

impl Guard {
    /// Ends the pin and begins a new one of `domain`, unless the thread has other guards.
    pub fn repin(&mut self, domain: Domain) {
        let thread = self.thread;
        let guards =
            with_state(|state| state.pinned.values().filter(|(other, _)| *other == thread).count());
        if guards == 1 {
            drop(std::mem::replace(self, pin_for(domain)));
        }
    }

    /// Returns whether this guard protects all memory of `domain`.
    pub fn covers(&self, domain: Domain) -> bool {
        self.domain.covers(domain)
    }

    /// Does nothing: grace periods of the model need no help.
    pub fn advance(&self) {}

    /// Records that `address` was retired.
    ///
    /// # Panics
    ///
    /// Panics if it was already retired.
    pub fn note_retired(&self, address: usize) {
        with_state(|state| {
            let first = state.retired.insert(address, None).is_none();
            assert!(first || std::thread::panicking(), "retired twice");
        });
    }

    /// Checks that `address` may be read under this guard.
    ///
    /// # Panics
    ///
    /// Panics if its grace period began before the pin, or if it has been freed.
    pub fn check_readable(&self, address: usize) {
        if std::thread::panicking() {
            return;
        }
        with_state(|state| {
            assert!(!state.freed.contains(&address), "read of a freed entry");
            if let Some(&Some(sealed)) = state.retired.get(&address) {
                assert!(sealed > self.stamp, "read of an entry retired before the pin");
            }
        });
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if let Some(local) = with_state(|state| state.locals.get(self.thread).cloned()) {
            // Release: pairs with the Acquire in `Grace::begin`. Done before the guard is removed
            // from the state, so that a period that does not find the guard there acquires this.
            local.fetch_add(1, Ordering::Release);
        }
        let ended = with_state(|state| {
            state.pinned.remove(&self.stamp);
            state.waiting.remove(&self.stamp).unwrap_or_default()
        });
        for grace in ended {
            grace.end();
        }
    }
}

/// Records that a grace period for the retired `address` has begun.
pub fn note_sealed(address: usize) {
    with_state(|state| {
        let now = state.tick();
        state.retired.insert(address, Some(now));
    });
}

/// Records that `address` is freed.
///
/// # Panics
///
/// Panics if it was already freed.
pub fn note_freed(address: usize) {
    with_state(|state| {
        let first = state.freed.insert(address);
        assert!(first || std::thread::panicking(), "freed twice");
    });
}

#[derive(Default)]
struct State {
    clock: u64,
    /// The thread and the domain of each pin, by the time of the pin.
    pinned: BTreeMap<u64, (usize, Domain)>,
    /// The threads that were ever pinned.
    threads: BTreeSet<usize>,
    locals: Vec<Rc<AtomicUsize>>,
    counters: Vec<Arc<AtomicUsize>>,
    waiting: BTreeMap<u64, Vec<std::sync::Arc<Grace>>>,
    /// For each retired address, when its grace period began, if it has begun.
    retired: BTreeMap<usize, Option<u64>>,
    freed: BTreeSet<usize>,
}

impl State {
    fn tick(&mut self) -> u64 {
        self.clock += 1;
        self.clock
    }
}

fn with_state<R>(f: impl FnOnce(&mut State) -> R) -> R {
    STATE.with(|state| f(&mut state.borrow_mut()))
}

thread_local! {
    /// Never dropped: after a scenario has failed, it holds objects of a model that no longer
    /// exists.
    static STATE: ManuallyDrop<RefCell<State>> = ManuallyDrop::default();
}
