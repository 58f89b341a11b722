//! Victims: the entries with the greatest eviction score of a sample.
//!
//! Sampling in place of an order of all entries is Redis's and Ristretto's idea; the score is
//! near that of hyperbolic caching (Blankstein, Sen, Freedman, 2017) with one bit for "referenced since
//! it came", the segment of a segmented LRU.

use super::{
    access::Access,
    class::{Class, ClassRange},
};
use crate::table::Ranking;

/// A maintenance shard's victim is one of the worst of this part of the entries: as good as the worst of twice as many.
pub const VICTIM_PART: usize = 9;
/// The same where costs vary.
pub const VICTIM_PART_BY_COST: usize = 22;
/// Entries looked at for a victim where there is no maintenance shard, which knows how bad they are: the worst of them goes.
pub const SAMPLE: usize = 16;
/// The same where costs vary.
pub const SAMPLE_BY_COST: usize = 40;
/// An entry that was referenced since it came is worth so many that were not, as a power of two.
const REFERENCED_SHIFT: u32 = 3;
/// A quarter of the time in which as many events pass as there are entries.
const FLAT_STEPS: u32 = super::access_clock::STEPS_PER_ROUND / 4;

/// Longer idle times make no difference.
const MAX_IDLE: u32 = 1 << 24;

/// Returns the eviction score of an entry: the entry with the highest one of a sample is the victim.
///
/// Entries that were not referenced, are idle for long or cost much have high scores; idle times below a
/// quarter of a round differ little.
#[inline]
pub fn score(is_referenced: bool, idle: u32, weight: f32) -> f32 {
    // In whole numbers as far as that goes: this is computed for every entry of a sample.
    let idle = idle.min(MAX_IDLE) + FLAT_STEPS;
    let shift = if is_referenced { 0 } else { REFERENCED_SHIFT };
    (idle << shift) as i32 as f32 * weight
}

/// The same of what a bucket shows of an entry.
#[inline]
pub fn score_of(access: Access, weight: f32, now: u32) -> f32 {
    score(access.is_referenced(), access.idle(now), weight)
}

/// Returns how the entries of a region are ranked, a bucket at a time: by the same score. Most of them are of class `plain`.
#[inline]
pub fn ranking(now: u32, range: ClassRange, plain: Class) -> Ranking {
    let (mask, first) = range.mask_and_first();
    let (flat, shift) = (FLAT_STEPS as u16, REFERENCED_SHIFT as u8);
    Ranking { now: now as u16, flat, shift, mask, first, plain: plain.to_bits() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::BucketHints;

    #[test]
    fn score_is_idle_time_from_a_quarter_of_a_round_times_weight_and_an_eighth_if_referenced() {
        assert_eq!(score(true, 0, 1.0), 16.0);
        assert_eq!((score(true, 16, 1.0), score(true, 48, 1.0)), (32.0, 64.0));
        assert_eq!((score(false, 16, 1.0), score(true, 16, 10.0)), (8.0 * 32.0, 320.0));
        assert!(score(false, u32::MAX, u64::MAX as f32).is_finite());
        assert!(score(false, u32::MAX, 1.0) > 0.0);
    }

    #[test]
    fn entry_has_the_same_score_by_itself_and_in_its_bucket() {
        for (hits, last, now, cost) in [(0, 5, 5, 8), (3, 4000, 100, 12), (1, 9, 2000, 1000)] {
            let access = Access::with_hits(hits, last);
            let class = Class::new(false, Some(cost));
            let hints = BucketHints {
                access: [u64::from(access.to_bits()) << 32, 0],
                class: u64::from(class.to_bits()) << 16,
            };
            let scores = ranking(now, ClassRange::MAIN, class).ranker().rank(hints);
            let weight = class.weight_in(ClassRange::MAIN).unwrap();
            assert_eq!(scores.get()[2], score_of(access, weight, now).to_bits());
            assert_eq!(scores.count(), 1);
        }
    }

    #[test]
    fn what_a_bucket_shows_has_the_score_of_its_entry() {
        assert_eq!(score_of(Access::with_hits(3, 100), 8.0, 132), score(true, 32, 8.0));
        assert_eq!(score_of(Access::new(100), 8.0, 100), score(false, 0, 8.0));
    }
}
