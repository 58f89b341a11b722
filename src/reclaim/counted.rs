//! A grace period whose end a collector reports: that of crossbeam-epoch, and of the models.

use crate::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
    ordering,
};

/// A grace period.
///
/// Cloning it clones a handle to the same period.
#[derive(Clone, Debug)]
pub struct Grace {
    /// Guards, or groups of guards, that have still to go. Zero: the period is over.
    pub(super) outstanding: Arc<AtomicUsize>,
}

impl Grace {
    /// Returns whether the period is over: everything that its guards did has happened.
    pub fn is_over(&mut self) -> bool {
        // Acquire: pairs with the Release in `end`; seeing zero means seeing the last reads of
        // every guard of the period as done, so that freeing cannot race them.
        let order = ordering!(Acquire, mutant("limbo_relaxed_grace") => Relaxed);
        self.outstanding.load(order) == 0
    }

    /// Ends one of the waits of the period.
    pub(super) fn end(&self) {
        // AcqRel: Release pairs with the Acquire in `is_over`; Acquire chains the reads of those
        // that ended their wait before this one.
        self.outstanding.fetch_sub(1, Ordering::AcqRel);
    }
}
