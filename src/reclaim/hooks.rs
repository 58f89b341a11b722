//! What the models' own collector notes, where the collector is another one: nothing.
//!
//! A value that is freed under a reader then shows as an unordered access to a cell that loom
//! watches.

use super::Guard;

/// Returns that nothing was noted.
pub fn census() -> (usize, usize) {
    (0, 0)
}

/// Does nothing.
pub fn note_sealed(_address: usize) {}

/// Does nothing.
pub fn note_freed(_address: usize) {}

impl Guard {
    /// Does nothing.
    pub fn note_retired(&self, _address: usize) {}

    /// Does nothing.
    pub fn check_readable(&self, _address: usize) {}
}
