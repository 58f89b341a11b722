//! What there is one of in an execution of loom's and in a model thread, where the collector is crossbeam-epoch
//! itself (`--cfg crossbeam_loom`, by which that crate is built on loom, too).

use crossbeam_epoch::{Collector, LocalHandle};

loom::lazy_static! { // shim: the coat has none
    static ref COLLECTOR: Collector = Collector::new();
}

loom::thread_local! { // shim: an initial value that is no constant
    pub(super) static LOCAL: LocalHandle = if mutant!("table_own_collector") {
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
