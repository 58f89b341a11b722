//! What there is one of in an execution of loom's and in a model thread, where the collector is crossbeam-epoch
//! itself (`--cfg crossbeam_loom`, by which that crate is built on loom, too).
//!
//! Nothing here notes what is retired, read or freed, as the model's own collector does: a value that is freed
//! under a reader shows as an unordered access to a cell that loom watches.

use crossbeam_epoch::{Collector, LocalHandle};

use super::Guard;
use crate::sync::{Arc, atomic::AtomicUsize};

loom::lazy_static! { // shim: the coat has none
    static ref COLLECTOR: Collector = Collector::new();
}

loom::thread_local! { // shim: an initial value that is no constant
    pub(super) static LOCAL: LocalHandle = if cfg!(cortado_mutant = "limbo_own_collector") {
        Collector::new().register()
    } else {
        collector().register()
    };
}

pub(super) fn collector() -> &'static Collector {
    &COLLECTOR
}

/// Does nothing: each execution begins with a new collector.
pub fn reset() {}

/// Returns that nothing was noted.
pub fn census() -> (usize, usize) {
    (0, 0)
}

/// Returns a counter for a period that has one wait.
pub fn counter() -> Arc<AtomicUsize> {
    Arc::new(AtomicUsize::new(1))
}

/// Does nothing.
pub fn note_freed(_address: usize) {}

impl Guard {
    /// Does nothing.
    pub fn note_retired(&self, _address: usize) {}

    /// Does nothing.
    pub fn note_sealed(&self, _address: usize) {}

    /// Does nothing.
    pub fn check_readable(&self, _address: usize) {}
}
