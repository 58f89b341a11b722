//! `Unevictable`: counts unevictable entries and sums up their cost.

use crate::sync::atomic::{AtomicU64, Ordering};

/// The number of unevictable entries, and their total cost.
///
/// An entry is added *before* it is published and subtracted *after* it is unlinked, so neither
/// number falls below 0.
#[derive(Debug, Default)]
pub struct Unevictable {
    entries: AtomicU64,
    cost: AtomicU64,
}

impl Unevictable {
    /// Adds an unevictable entry.
    pub fn add(&self, cost: u64) {
        // Relaxed, everywhere: heuristics and checks read these numbers; they publish nothing.
        self.entries.fetch_add(1, Ordering::Relaxed);
        self.cost.fetch_add(cost, Ordering::Relaxed);
    }

    /// Subtracts an unevictable entry.
    pub fn sub(&self, cost: u64) {
        self.entries.fetch_sub(1, Ordering::Relaxed); // Relaxed: see `add`.
        self.cost.fetch_sub(cost, Ordering::Relaxed); // Relaxed: see `add`.
    }

    /// Returns the cost of all unevictable entries, including those about to be published.
    #[inline]
    pub fn cost(&self) -> u64 {
        self.cost.load(Ordering::Relaxed) // Relaxed: see `add`.
    }

    /// Returns whether there are any unevictable entries.
    #[inline]
    pub fn is_any(&self) -> bool {
        self.entries.load(Ordering::Relaxed) > 0 // Relaxed: see `add`.
    }
}
