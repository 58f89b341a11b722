//! The collector of a loom execution, and the handle of each model thread, where crossbeam-epoch
//! itself is modelled (`--cfg crossbeam_loom`, which also builds that crate on loom).

use crossbeam_epoch::{Collector, LocalHandle};

loom::lazy_static! { // shim: `crate::sync` has none
    static ref COLLECTOR: Collector = Collector::new();
}

loom::thread_local! { // shim: the initial value is not a constant
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
