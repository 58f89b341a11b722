//! Victims: the worst of a sample.
//!
//! Sampling in place of an order of all entries is Redis's and Ristretto's idea; the score is
//! near that of hyperbolic caching (Blankstein, Sen, Freedman, 2017) with one bit for "used since
//! it came", the segment of a segmented LRU.

/// What the choice looks at.
#[derive(Clone, Copy, Debug)]
pub struct Traits {
    /// Whether the entry was accessed since it came to the main region.
    pub touched: bool,
    /// Pulses since its last access.
    pub idle: u32,
    /// What it takes of the budget; 1 where costs are to be ignored.
    pub cost: u64,
}

/// Returns how much an entry is in the way: the highest of a sample is the victim.
///
/// Unused, long idle and costly entries are more so. Entries idle for less than [`FLAT_PULSES`]
/// differ little. Without a division, for it is computed for every entry of a sample.
#[inline]
pub fn burden(traits: Traits) -> f64 {
    let idle = f64::from(traits.idle) + FLAT_PULSES;
    let unused = if traits.touched { 1.0 / TOUCHED_FACTOR } else { 1.0 };
    unused * idle * traits.cost.max(1) as f64
}

/// Entries looked at to find a victim.
pub const SAMPLE: usize = 12;
/// The same where costs vary.
pub const SAMPLE_BY_COST: usize = 40;

/// An entry that was used since it came is worth so many that were not.
const TOUCHED_FACTOR: f64 = 8.0;
/// A quarter of the time in which as many events pass as there are entries.
const FLAT_PULSES: f64 = (super::pulse::PULSES_PER_ROUND / 4) as f64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn idle_untouched_and_costly_entries_are_a_burden() {
        let base = Traits { touched: true, idle: 100, cost: 10 };
        assert!(burden(Traits { idle: 200, ..base }) > burden(base));
        assert!(burden(Traits { touched: false, ..base }) > burden(base));
        assert!(burden(Traits { cost: 20, ..base }) > burden(base));
        assert!(burden(Traits { cost: u64::MAX, idle: u32::MAX, touched: false }).is_finite());
    }

    #[test]
    fn burden_is_idle_time_from_a_quarter_of_a_round_times_cost_and_an_eighth_if_touched() {
        let of = |touched, idle, cost| burden(Traits { touched, idle, cost });
        assert_eq!((of(false, 0, 1), of(false, 16, 1), of(false, 48, 1)), (16.0, 32.0, 64.0));
        assert_eq!((of(true, 16, 1), of(false, 16, 10)), (4.0, 320.0));
        assert_eq!(of(false, 16, 0), of(false, 16, 1));
    }
}
