//! A grace period that counts its outstanding guards; used by crossbeam-epoch and by the model
//! collector.
//!
//! These collectors do not report which threads are pinned.

use super::{Domain, Part, Reader};
use crate::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

/// A grace period.
///
/// Cloning it clones a handle to the period.
#[derive(Clone, Debug)]
pub struct Grace {
    /// Guards, or groups of guards, that still exist. Zero: the period has ended.
    pub(super) outstanding: Arc<AtomicUsize>,
}

impl Grace {
    /// Returns whether the period has ended: all reads under its guards have happened before.
    pub fn has_ended(&mut self) -> bool {
        // Acquire: pairs with the Release in `end`; the last reads under every guard of the period
        // happen before a load of zero, so that freeing cannot race with them.
        let order = ordering!(Acquire, mutant("table_relaxed_grace") => Relaxed);
        self.outstanding.load(order) == 0
    }

    /// Returns whether a pin may protect a value of a part until the period ends. Always `true`:
    /// the collector does not know what its pins protect.
    pub fn keeps(&self, _: Part) -> bool {
        true
    }

    /// Removes one guard, or group of guards, from the count.
    pub(super) fn end(&self) {
        // AcqRel: Release pairs with the Acquire in `has_ended`; Acquire chains the reads under the
        // guards that were removed before.
        self.outstanding.fetch_sub(1, Ordering::AcqRel);
    }
}

/// A pin that the collector reports: there is none.
#[derive(Debug)]
pub enum Pin {}

/// Returns no pin.
pub fn pins_of(_: Domain) -> Vec<Pin> {
    Vec::new()
}

impl Pin {
    /// Returns whether the pin has ended.
    pub fn has_ended(&self) -> bool {
        match *self {}
    }

    /// Returns the pinned thread.
    pub fn reader(&self) -> Reader {
        match *self {}
    }

    /// Returns a key that is unique to the pin.
    pub fn key(&self) -> (usize, u64) {
        match *self {}
    }
}
