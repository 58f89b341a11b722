//! Grace periods by crossbeam-epoch.
//!
//! A pin holds back the garbage of every domain, and no reader is known by name.

use crossbeam_epoch::LocalHandle;

#[cfg(cortado_loom)]
pub use self::process::reset;
use self::process::{LOCAL, collector};
use super::{Domain, counted::Grace, departure::Departure};
use crate::sync::{Arc, atomic::AtomicUsize};

/// The witness of a pin; see the module above.
// In this order: a thread that is woken finds the pin gone.
#[derive(Debug)]
pub struct Guard(crossbeam_epoch::Guard, Departure);

/// Pins the current thread.
///
/// Costs a store and a fence on a line of the thread's own; every 128th pin also helps the
/// collector on. Nested pins are cheaper still.
#[inline]
pub fn pin_for(_: Domain) -> Guard {
    // A thread whose thread-locals are being destroyed has no handle any more: it registers for
    // this one pin.
    let guard = LOCAL.try_with(LocalHandle::pin);
    Guard(guard.unwrap_or_else(|_| collector().register().pin()), Departure)
}

impl Guard {
    /// Ends the pin and begins a new one, unless the thread has other guards.
    pub fn repin(&mut self, _: Domain) {
        self.0.repin();
    }

    /// Returns whether all that is of a domain stays readable under this guard.
    pub fn covers(&self, _: Domain) -> bool {
        true
    }

    /// Hands what this thread has deferred to the collector and lets it go one step on.
    pub fn advance(&self) {
        self.0.flush();
    }
}

impl Grace {
    /// Begins a period for what was unlinked before: until every guard that exists now is gone.
    pub fn begin(domain: Domain) -> Self {
        let grace = Self { outstanding: Arc::new(AtomicUsize::new(1)) };
        let guard = pin_for(domain);
        let waiting = grace.clone();
        guard.0.defer(move || waiting.end());
        guard.advance();
        grace
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
