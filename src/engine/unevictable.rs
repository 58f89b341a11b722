//! `Unevictable`: the part of the budget that unevictable entries take.

use crate::sync::atomic::{AtomicU64, Ordering};

/// Counts unevictable entries, and sums up their costs.
///
/// Whoever publishes one adds it *before*, and whoever unlinks one takes it off *after*, so neither
/// number passes below 0.
#[derive(Debug, Default)]
pub struct Unevictable {
    entries: AtomicU64,
    cost: AtomicU64,
}

impl Unevictable {
    /// Counts an unevictable entry.
    pub fn add(&self, cost: u64) {
        // Relaxed, everywhere: numbers to decide by; nothing is published with them.
        self.entries.fetch_add(1, Ordering::Relaxed);
        self.cost.fetch_add(cost, Ordering::Relaxed);
    }

    /// Takes one off.
    pub fn sub(&self, cost: u64) {
        self.entries.fetch_sub(1, Ordering::Relaxed); // Relaxed: see `add`.
        self.cost.fetch_sub(cost, Ordering::Relaxed); // Relaxed: see `add`.
    }

    /// Returns the cost of unevictable entries, those about to be published included.
    #[inline]
    pub fn cost(&self) -> u64 {
        self.cost.load(Ordering::Relaxed) // Relaxed: see `add`.
    }

    /// Returns whether there is one.
    #[inline]
    pub fn is_any(&self) -> bool {
        self.entries.load(Ordering::Relaxed) > 0 // Relaxed: see `add`.
    }
}
