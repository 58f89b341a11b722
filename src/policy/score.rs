//! The eviction score: the victim is the entry of a sample with the highest one.
//!
//! Sampling in place of a total order of the entries follows Redis and Ristretto. The score
//! resembles that of hyperbolic caching (Blankstein, Sen, Freedman, 2017), with one bit for
//! "referenced since it entered its region", which stands for the segment of a segmented LRU.

use super::{
    access::Access,
    class::{Class, ClassRange},
};
use crate::table::Ranking;

/// A maintenance shard's victim is among the worst one in so many entries. That is as good as the
/// worst of a sample of twice as many.
pub const VICTIM_PART: usize = 9;
/// Like [`VICTIM_PART`], where costs vary.
pub const VICTIM_PART_BY_COST: usize = 22;
/// Entries in a sample taken without a maintenance shard, which would know the distribution of
/// scores. The worst of the sample is the victim.
pub const SAMPLE: usize = 16;
/// Like [`SAMPLE`], where costs vary.
pub const SAMPLE_BY_COST: usize = 40;
/// The binary logarithm of the factor that being referenced divides the score by.
const REFERENCED_SHIFT: u32 = 3;
/// Steps added to every idle time, so that idle times far below a quarter of a round differ little.
const FLAT_STEPS: u32 = super::access_clock::STEPS_PER_ROUND / 4;
/// Steps at which the idle time saturates: with `FLAT_STEPS` and `REFERENCED_SHIFT` applied, it
/// still fits an `i32`.
const MAX_IDLE: u32 = 1 << 24;

/// Returns the eviction score of an entry: the entry with the highest one of a sample is the
/// victim.
///
/// Entries that were not referenced, have been idle for long or cost much have high scores. Idle
/// times below a quarter of a round differ little.
#[inline]
pub fn score(is_referenced: bool, idle: u32, weight: f32) -> f32 {
    // Integers as far as possible: this is computed for every entry of a sample.
    let idle = idle.min(MAX_IDLE) + FLAT_STEPS;
    let shift = if is_referenced { 0 } else { REFERENCED_SHIFT };
    (idle << shift) as i32 as f32 * weight
}

/// Returns the [`score`] of an entry from its access bits.
#[inline]
pub fn score_of(access: Access, weight: f32, now: u32) -> f32 {
    score(access.is_referenced(), access.idle(now), weight)
}

/// Returns the parameters to rank the entries of `range` by [`score`], a bucket at a time. `plain`
/// is the class that most of them have.
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
    fn entry_has_the_same_score_alone_and_in_its_bucket() {
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
    fn access_bits_have_the_score_of_their_entry() {
        assert_eq!(score_of(Access::with_hits(3, 100), 8.0, 132), score(true, 32, 8.0));
        assert_eq!(score_of(Access::new(100), 8.0, 100), score(false, 0, 8.0));
    }
}
