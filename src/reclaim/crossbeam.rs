//! Grace periods by crossbeam-epoch.

use crossbeam_epoch::LocalHandle;

use self::process::{LOCAL, collector};
use super::{Grace, departure::Departure};

#[cfg(cortado_loom)]
pub use self::process::{census, counter, note_freed, reset};

/// The witness of a pin; see the module above.
#[derive(Debug)]
// In this order: a thread that is woken finds the pin gone.
pub struct Guard(crossbeam_epoch::Guard, Departure);

/// Pins the current thread.
///
/// Costs a store and a fence on a line of the thread's own; every 128th pin also helps the
/// collector on. Nested pins are cheaper still.
#[inline]
pub fn pin() -> Guard {
    // A thread whose thread-locals are being destroyed has no handle any more: it registers for
    // this one pin.
    let guard = LOCAL.try_with(LocalHandle::pin);
    Guard(guard.unwrap_or_else(|_| collector().register().pin()), Departure)
}

impl Guard {
    /// Ends `grace` once every guard that exists now is gone.
    pub fn after_grace(&self, grace: &Grace) {
        let grace = grace.clone();
        self.0.defer(move || grace.end());
    }

    /// Hands what this thread has deferred to the collector and lets it go one step on.
    pub fn advance(&self) {
        self.0.flush();
    }
}

/// What there is one of in a process, and in a thread.
#[cfg(not(cortado_loom))]
mod process {
    use std::sync::OnceLock; // shim: loom has a file of its own

    use crossbeam_epoch::{Collector, LocalHandle};

    pub(super) fn collector() -> &'static Collector {
        static COLLECTOR: OnceLock<Collector> = OnceLock::new();
        COLLECTOR.get_or_init(Collector::new)
    }

    thread_local! {
        pub(super) static LOCAL: LocalHandle = collector().register();
    }
}

#[cfg(cortado_loom)]
#[path = "crossbeam_loom.rs"]
mod process;
