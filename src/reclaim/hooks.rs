//! Empty counterparts of the model collector's checks, for models that use another collector.
//!
//! A value that is freed while a reader uses it then shows as an unordered access to a cell that
//! loom tracks.

use super::Guard;

/// Returns that nothing was recorded.
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
