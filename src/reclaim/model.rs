//! Grace periods for loom and shuttle: frees nothing early, and catches misuse.
//!
//! A grace period ends at the first moment at which it may: when the last guard that was there
//! when it began is dropped. So a model test sees the harshest collector that keeps its word.
//! Both tools run all their threads on one thread of the system, so plain thread-local state
//! serves a whole execution and adds no happens-before edge that a real collector lacks.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
};

use super::Grace;
use crate::sync::atomic::{Ordering, fence};

/// The witness of a pin; see the module above.
#[derive(Debug)]
pub struct Guard {
    stamp: u64,
}

/// Pins the current thread.
pub fn pin() -> Guard {
    let stamp = STATE.with_borrow_mut(|state| {
        let stamp = state.tick();
        state.pinned.insert(stamp);
        stamp
    });
    // SeqCst: the fence that every epoch scheme has between announcing a pin and the first read.
    fence(Ordering::SeqCst);
    Guard { stamp }
}

/// Forgets everything: the start of an execution.
pub fn reset() {
    STATE.with_borrow_mut(|state| *state = State::default());
}

/// Returns how many pointers were retired and how many of them were freed.
pub fn census() -> (usize, usize) {
    STATE.with_borrow(|state| (state.retired.len(), state.freed.len()))
}

impl Guard {
    /// Ends `grace` once every guard that exists now is gone.
    pub fn after_grace(&self, grace: &Grace) {
        // SeqCst: the fence that every epoch scheme has between unlinking and reading the epoch.
        fence(Ordering::SeqCst);
        STATE.with_borrow_mut(|state| {
            let waits: Vec<u64> = state.pinned.iter().copied().collect();
            // Relaxed: the grace period is not shared before this call returns.
            grace.outstanding.store(waits.len(), Ordering::Relaxed);
            for stamp in waits {
                state.waiting.entry(stamp).or_default().push(grace.clone());
            }
        });
    }

    /// Does nothing: grace periods of the model end by themselves.
    pub fn advance(&self) {}

    /// Notes that `address` was retired.
    ///
    /// # Panics
    ///
    /// Panics if it already was.
    pub fn note_retired(&self, address: usize) {
        STATE.with_borrow_mut(|state| {
            let stamp = state.tick();
            assert!(state.retired.insert(address, stamp).is_none(), "retired twice");
        });
    }

    /// Checks that `address` may be read under this guard.
    ///
    /// # Panics
    ///
    /// Panics if it was retired before the pin, or freed.
    pub fn check_readable(&self, address: usize) {
        if std::thread::panicking() {
            return;
        }
        STATE.with_borrow(|state| {
            assert!(!state.freed.contains(&address), "read of a freed entry");
            if let Some(&retired) = state.retired.get(&address) {
                assert!(retired > self.stamp, "read of an entry retired before the pin");
            }
        });
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        let ended = STATE.with_borrow_mut(|state| {
            state.pinned.remove(&self.stamp);
            state.waiting.remove(&self.stamp).unwrap_or_default()
        });
        for grace in ended {
            grace.end();
        }
    }
}

/// Notes that `address` is freed.
///
/// # Panics
///
/// Panics if it already was.
pub fn note_freed(address: usize) {
    STATE.with_borrow_mut(|state| {
        assert!(state.freed.insert(address), "freed twice");
    });
}

#[derive(Default)]
struct State {
    clock: u64,
    pinned: BTreeSet<u64>,
    waiting: BTreeMap<u64, Vec<Grace>>,
    retired: BTreeMap<usize, u64>,
    freed: BTreeSet<usize>,
}

impl State {
    fn tick(&mut self) -> u64 {
        self.clock += 1;
        self.clock
    }
}

thread_local! {
    static STATE: RefCell<State> = RefCell::default();
}
