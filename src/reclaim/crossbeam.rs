//! The collector of crossbeam-epoch.
//!
//! A pin holds back the garbage of every domain, and pinned threads cannot be listed.

use crossbeam_epoch::LocalHandle;

#[cfg(cortado_loom)]
pub use self::process::reset;
use self::process::{LOCAL, collector};
use super::{Domain, counted::Grace, departure::Departure};
use crate::sync::{Arc, atomic::AtomicUsize};

/// A pin; see the [module](super).
// The fields are dropped in this order: a thread that `Departure` wakes finds the pin ended.
#[derive(Debug)]
pub struct Guard(crossbeam_epoch::Guard, Departure);

/// Pins the current thread.
///
/// Costs a store to a cache line of the thread's own and a fence; every 128th pin also advances the
/// collector. Nested pins are cheaper.
#[inline]
pub fn pin_for(_: Domain) -> Guard {
    // A thread whose thread-locals are being destroyed no longer has a handle: it registers one for
    // this pin.
    let guard = LOCAL.try_with(LocalHandle::pin);
    Guard(guard.unwrap_or_else(|_| collector().register().pin()), Departure)
}

impl Guard {
    /// Ends the pin and begins a new one, unless the thread has other guards.
    pub fn repin(&mut self, _: Domain) {
        self.0.repin();
    }

    /// Returns whether this guard protects all memory of a domain: always `true`.
    pub fn covers(&self, _: Domain) -> bool {
        true
    }

    /// Passes this thread's deferred functions to the collector and advances it by a step.
    pub fn advance(&self) {
        self.0.flush();
    }
}

impl Grace {
    /// Begins a period for memory that was unlinked before. It ends when every guard that exists
    /// now has been dropped.
    pub fn begin(domain: Domain) -> Self {
        let grace = Self { outstanding: Arc::new(AtomicUsize::new(1)) };
        let guard = pin_for(domain);
        let waiting = grace.clone();
        guard.0.defer(move || waiting.end());
        guard.advance();
        grace
    }
}

/// The process-wide collector, and the handle of each thread.
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
