//! Grace periods for loom and shuttle: frees nothing early, and catches misuse.
//!
//! A grace period ends at the first moment at which it may: when the last guard that was there
//! when it began is dropped. So a model test sees the harshest collector that keeps its word.
//!
//! Both tools run all their threads on one thread of the system, so plain thread-local state
//! serves a whole execution and adds no happens-before edge that a real collector lacks. The
//! edges that a real one has are made by atomics that the model sees:
//!
//! * a fence at each pin, and one where a grace period begins;
//! * each thread's *local*, written at its unpins and read where a grace period begins, so that
//!   what was read under a guard that is gone comes before the period;
//! * the period's own counter, for the guards that were still there.
//!
//! Nothing that a model schedules happens while the state is borrowed, for the next thread would
//! find it borrowed.

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

/// The witness of a pin; see the module above.
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

/// Forgets everything: the start of an execution, before its other threads.
pub fn reset() {
    let fresh = State {
        locals: (0..MAX_THREADS).map(|_| Rc::new(AtomicUsize::new(0))).collect(),
        counters: (0..COUNTERS).map(|_| Arc::new(AtomicUsize::new(1))).collect(),
        ..State::default()
    };
    // What an execution before this one has left belongs to a model that is gone.
    std::mem::forget(with_state(|state| std::mem::replace(state, fresh)));
}

/// Returns how many pointers were retired and how many of them were freed: the end of an
/// execution.
pub fn census() -> (usize, usize) {
    let state = with_state(std::mem::take);
    (state.retired.len(), state.freed.len())
}

/// Returns a counter that every thread of the execution may use without having met its maker: the
/// collector hands periods around, and whoever gets one has seen it made.
fn counter() -> Arc<AtomicUsize> {
    let ready = with_state(|state| state.counters.pop());
    ready.unwrap_or_else(|| Arc::new(AtomicUsize::new(1)))
}

impl Grace {
    /// Begins a period for what was unlinked before: until every guard that exists now and meets the
    /// domain is gone.
    pub fn begin(domain: Domain) -> Self {
        let grace = Self { outstanding: counter() };
        // SeqCst: the fence that every epoch scheme has between unlinking and reading the epoch.
        fence(Ordering::SeqCst);
        let handle = std::sync::Arc::new(grace.clone());
        // Relaxed: the grace period is not shared before the state has it. More than can be: each
        // guard must end its own wait, or its reads would not come before the end of the period.
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
            // Acquire: pairs with the Release in the drop of a guard. A read-modify-write, as a
            // collector that finds nobody pinned has seen the newest value.
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

    /// Returns whether all that is of `domain` stays readable under this guard.
    pub fn covers(&self, domain: Domain) -> bool {
        self.domain.covers(domain)
    }

    /// Does nothing: grace periods of the model end by themselves.
    pub fn advance(&self) {}

    /// Notes that `address` was retired.
    ///
    /// # Panics
    ///
    /// Panics if it already was.
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
    /// Panics if its grace period began before the pin, or if it is freed.
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
            // Release: pairs with the Acquire in `Grace::begin`. Before the guard leaves the state,
            // so that whoever does not find it there finds this.
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

/// Notes that a grace period for `address`, which was retired, has begun.
pub fn note_sealed(address: usize) {
    with_state(|state| {
        let now = state.tick();
        state.retired.insert(address, Some(now));
    });
}

/// Notes that `address` is freed.
///
/// # Panics
///
/// Panics if it already was.
pub fn note_freed(address: usize) {
    with_state(|state| {
        let first = state.freed.insert(address);
        assert!(first || std::thread::panicking(), "freed twice");
    });
}

#[derive(Default)]
struct State {
    clock: u64,
    /// By the moment of the pin: the thread, and what it pins.
    pinned: BTreeMap<u64, (usize, Domain)>,
    /// Those who were ever pinned.
    threads: BTreeSet<usize>,
    locals: Vec<Rc<AtomicUsize>>,
    counters: Vec<Arc<AtomicUsize>>,
    waiting: BTreeMap<u64, Vec<std::sync::Arc<Grace>>>,
    /// When the grace period of what was retired began, if it has begun.
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

/// More guards than any scenario has at a time.
const MAX_GUARDS: usize = 64;
/// More threads than any scenario has, and one.
const MAX_THREADS: usize = 8;
/// Grace periods that a scenario may have pass from thread to thread.
const COUNTERS: usize = 8;

thread_local! {
    /// Never dropped: when a scenario fails, it holds what belongs to a model that is gone.
    static STATE: ManuallyDrop<RefCell<State>> = ManuallyDrop::default();
}
