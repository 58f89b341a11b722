//! A grace period whose end a collector reports: that of crossbeam-epoch, and of the models.
//!
//! Such a collector does not say which threads are pinned.

use super::{Domain, Part, Reader};
use crate::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
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
    pub fn has_ended(&mut self) -> bool {
        // Acquire: pairs with the Release in `end`; seeing zero means seeing the last reads of
        // every guard of the period as done, so that freeing cannot race them.
        let order = ordering!(Acquire, mutant("table_relaxed_grace") => Relaxed);
        self.outstanding.load(order) == 0
    }

    /// Returns whether a value of a part must stay while the period is not over: always, for nobody knows what its pins
    /// keep.
    pub fn keeps(&self, _: Part) -> bool {
        true
    }

    /// Ends one of the waits of the period.
    pub(super) fn end(&self) {
        // AcqRel: Release pairs with the Acquire in `has_ended`; Acquire chains the reads of those
        // that ended their wait before this one.
        self.outstanding.fetch_sub(1, Ordering::AcqRel);
    }
}

/// A pin that a collector tells of: there is none.
#[derive(Debug)]
pub enum Pin {}

/// Returns no pin.
pub fn pins_of(_: Domain) -> Vec<Pin> {
    Vec::new()
}

impl Pin {
    /// Returns whether it has ended.
    pub fn has_ended(&self) -> bool {
        match *self {}
    }

    /// Returns the thread whose pin it is.
    pub fn reader(&self) -> Reader {
        match *self {}
    }

    /// Returns what no other pin has.
    pub fn key(&self) -> (usize, u64) {
        match *self {}
    }
}
