//! `BucketHints`: the hints of all slots of a bucket, which are ranked at once.

use super::control::SLOTS;

/// Bits of the step in each lane: the lowest bits of the step of the last access.
const STEP_BITS: i32 = 12;
const STEP: u16 = (1 << STEP_BITS) - 1;
/// Number of classes that are ranked.
const CLASSES: u8 = 127;
/// Position, in a float, of the highest bit of the fraction, which is directly below the exponent.
const WEIGHT_SHIFT: i32 = 22;

/// The hints of a bucket's slots, one lane each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BucketHints {
    /// Access bits, 16 per lane: the step of the last access in the lower 12 bits; the upper 4 are
    /// not 0 if the entry was referenced.
    pub access: [u64; 2],
    /// Classes, 8 bits per lane.
    pub class: u64,
}

/// The parameters of eviction scores. The score of an entry is its idle time plus `flat` steps,
/// times 2 to the power of `shift` unless it was referenced, times its weight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ranking {
    /// The current step; only its lower 12 bits are used.
    pub now: u16,
    /// Steps added to each idle time.
    pub flat: u16,
    /// The factor, as a power of two, by which the score of an unreferenced entry is higher.
    pub shift: u8,
    /// The bits of a class that are compared.
    pub mask: u8,
    /// The class of weight 1. The next 126 classes have the weights 1.5, 2, 3, 4, 6 and so on; no
    /// other class is ranked.
    pub first: u8,
    /// The class of most ranked entries. A bucket without any other ranked class takes fewer steps
    /// to compare with a threshold.
    pub plain: u8,
}

/// A score to compare others with.
#[derive(Clone, Copy, Debug)]
pub struct Threshold {
    /// The score, as the bits of a float.
    score: u32,
    /// The score divided by the weight of the plain class.
    base: u16,
}

/// The scores of a bucket's slots, as the bits of floats; 0 for slots that are not ranked.
#[derive(Clone, Copy, Debug)]
pub struct Scores(imp::Scores);

/// A ranking, prepared for many buckets.
#[derive(Clone, Copy, Debug)]
pub struct Ranker(imp::Ranker);

impl Ranking {
    /// Returns the weight of a ranked class, as the bits of a float, and its number.
    #[inline]
    fn weight(self, class: u8) -> (u32, u8) {
        let number = (class & self.mask).wrapping_sub(self.first);
        ((u32::from(number) << WEIGHT_SHIFT) + 1.0f32.to_bits(), number)
    }

    /// Prepares a score, given as the bits of a float, for many comparisons.
    #[inline]
    pub fn threshold(self, score: u32) -> Threshold {
        let weight = f32::from_bits(self.weight(self.plain).0);
        // Rounded down and saturating: a base, which is an integer, is above the exact quotient if
        // and only if it is above this.
        Threshold { score, base: (f32::from_bits(score) / weight) as u16 }
    }

    /// Prepares the ranking of many buckets.
    #[inline]
    pub fn ranker(self) -> Ranker {
        Ranker(imp::Ranker::new(self))
    }
}

impl Ranker {
    /// Ranks all slots, free ones included.
    #[inline]
    pub fn rank(&self, hints: BucketHints) -> Scores {
        Scores(self.0.rank(hints))
    }

    /// Returns the slots with a score above the threshold, one bit each, and the number of ranked
    /// slots.
    #[inline]
    pub fn above(&self, hints: BucketHints, threshold: Threshold) -> (u32, usize) {
        match self.0.plain_above(hints, threshold.base) {
            Some((above, ranked)) => (above, ranked.count_ones() as usize),
            None => {
                let scores = self.rank(hints);
                (scores.above(threshold.score), scores.count())
            }
        }
    }
}

impl Scores {
    /// Returns the number of ranked slots.
    #[inline]
    pub fn count(&self) -> usize {
        self.0.count()
    }

    /// Returns the slots with a higher score, one bit each.
    #[inline]
    pub fn above(&self, score: u32) -> u32 {
        self.0.above(score)
    }

    /// Returns all scores.
    #[inline]
    pub fn get(&self) -> [u32; SLOTS] {
        self.0.get()
    }
}

#[cfg(target_arch = "x86_64")]
use sse as imp;

#[cfg(not(target_arch = "x86_64"))]
use portable as imp;

/// The portable version: one lane at a time.
#[cfg(any(test, not(target_arch = "x86_64")))]
mod portable {
    use super::{BucketHints, CLASSES, Ranking, SLOTS, STEP};

    #[derive(Clone, Copy, Debug)]
    pub struct Scores([u32; SLOTS]);

    #[derive(Clone, Copy, Debug)]
    pub struct Ranker(Ranking);

    impl Ranker {
        pub fn new(ranking: Ranking) -> Self {
            Self(ranking)
        }

        /// Returns the score of a slot without the weight.
        fn base(&self, hints: BucketHints, slot: usize) -> u16 {
            let Ranking { now, flat, shift, .. } = self.0;
            let access = (hints.access[slot / 4] >> (16 * (slot % 4))) as u16;
            let idle = (now.wrapping_sub(access) & STEP) + flat;
            if access > STEP { idle } else { idle << shift }
        }

        #[inline]
        pub fn rank(&self, hints: BucketHints) -> Scores {
            let classes = hints.class.to_le_bytes();
            Scores(std::array::from_fn(|slot| {
                let base = self.base(hints, slot);
                let (weight, number) = self.0.weight(classes[slot]);
                let score = (f32::from(base) * f32::from_bits(weight)).to_bits();
                if number < CLASSES { score } else { 0 }
            }))
        }

        #[inline]
        pub fn plain_above(&self, hints: BucketHints, threshold: u16) -> Option<(u32, u32)> {
            let (_, plain) = self.0.weight(self.0.plain);
            let (mut above, mut ranked) = (0, 0);
            for (slot, class) in hints.class.to_le_bytes().into_iter().enumerate() {
                match self.0.weight(class).1 {
                    number if number == plain => {
                        ranked |= 1 << slot;
                        above |= u32::from(self.base(hints, slot) > threshold) << slot;
                    }
                    CLASSES.. => {}
                    _ => return None,
                }
            }
            Some((above, ranked))
        }
    }

    impl Scores {
        #[inline]
        pub fn count(&self) -> usize {
            self.0.iter().filter(|score| **score > 0).count()
        }

        #[inline]
        pub fn above(&self, score: u32) -> u32 {
            let bits =
                self.0.iter().zip(0..).map(|(other, slot)| u32::from(*other > score) << slot);
            bits.fold(0, |above, bit| above | bit)
        }

        #[inline]
        pub fn get(&self) -> [u32; SLOTS] {
            self.0
        }
    }
}

/// The SSE2 version: eight lanes at a time.
#[cfg(target_arch = "x86_64")]
mod sse {
    use std::arch::x86_64::*;

    use super::{BucketHints, CLASSES, Ranking, SLOTS, STEP, STEP_BITS, WEIGHT_SHIFT};

    #[derive(Clone, Copy, Debug)]
    pub struct Scores {
        scores: [__m128i; 2],
        /// All bits set in the lanes that are ranked, 16 per lane.
        ranked: __m128i,
    }

    /// The parameters of a ranking, repeated in each lane.
    #[derive(Clone, Copy, Debug)]
    pub struct Ranker {
        now: __m128i,
        flat: __m128i,
        shift: __m128i,
        mask: __m128i,
        first: __m128i,
        /// The number of the plain class, 8 bits per lane.
        plain: __m128i,
    }

    #[inline]
    #[target_feature(enable = "sse2")]
    fn ranker(ranking: Ranking) -> Ranker {
        let Ranking { now, flat, shift, mask, first, plain } = ranking;
        Ranker {
            now: _mm_set1_epi16(now as i16),
            flat: _mm_set1_epi16(flat as i16),
            shift: _mm_cvtsi32_si128(i32::from(shift)),
            mask: _mm_set1_epi16(i16::from(mask)),
            first: _mm_set1_epi16(i16::from(first)),
            plain: _mm_set1_epi8((plain & mask).wrapping_sub(first) as i8),
        }
    }

    /// Returns the scores of all slots without their weights.
    #[inline]
    #[target_feature(enable = "sse2")]
    fn bases(ranker: &Ranker, hints: BucketHints) -> __m128i {
        let Ranker { now, flat, shift, .. } = *ranker;
        let zero = _mm_setzero_si128();
        let access = _mm_set_epi64x(hints.access[1] as i64, hints.access[0] as i64);
        let idle = _mm_and_si128(_mm_sub_epi16(now, access), _mm_set1_epi16(STEP as i16));
        let idle = _mm_add_epi16(idle, flat);
        let unreferenced = _mm_cmpeq_epi16(_mm_srli_epi16::<STEP_BITS>(access), zero);
        _mm_or_si128(
            _mm_and_si128(unreferenced, _mm_sll_epi16(idle, shift)),
            _mm_andnot_si128(unreferenced, idle),
        )
    }

    #[inline]
    #[target_feature(enable = "sse2")]
    fn plain_above(ranker: &Ranker, hints: BucketHints, threshold: u16) -> Option<(u32, u32)> {
        let Ranker { mask, first, plain, .. } = *ranker;
        let zero = _mm_setzero_si128();
        // Mask and class are in the lower half of 16 bits; packing moves them to lanes of 8.
        let class = _mm_cvtsi64_si128(hints.class as i64);
        let [mask, first] = [_mm_packus_epi16(mask, mask), _mm_packus_epi16(first, first)];
        let number = _mm_sub_epi8(_mm_and_si128(class, mask), first);
        let most = _mm_set1_epi8((CLASSES - 1) as i8);
        let ranked = _mm_cmpeq_epi8(_mm_min_epu8(number, most), number);
        let is_plain = _mm_cmpeq_epi8(number, plain);
        let [ranked, is_plain] = [ranked, is_plain].map(|all| _mm_movemask_epi8(all) as u32 & 0xff);
        if ranked != is_plain {
            return None;
        }
        // Saturating subtraction: 0 in the lanes that are not above the threshold.
        let over = _mm_subs_epu16(bases(ranker, hints), _mm_set1_epi16(threshold as i16));
        let not_above = _mm_packs_epi16(_mm_cmpeq_epi16(over, zero), zero);
        Some((ranked & !(_mm_movemask_epi8(not_above) as u32), ranked))
    }

    #[inline]
    #[target_feature(enable = "sse2")]
    fn rank(ranker: &Ranker, hints: BucketHints) -> Scores {
        let Ranker { mask, first, .. } = *ranker;
        let zero = _mm_setzero_si128();
        let base = bases(ranker, hints);
        let class = _mm_unpacklo_epi8(_mm_cvtsi64_si128(hints.class as i64), zero);
        let number = _mm_sub_epi16(_mm_and_si128(class, mask), first);
        let ranked = _mm_and_si128(
            _mm_cmpgt_epi16(number, _mm_set1_epi16(-1)),
            _mm_cmpgt_epi16(_mm_set1_epi16(i16::from(CLASSES)), number),
        );
        let low = scores(
            _mm_unpacklo_epi16(base, zero),
            _mm_unpacklo_epi16(number, zero),
            _mm_unpacklo_epi16(ranked, ranked),
        );
        let high = scores(
            _mm_unpackhi_epi16(base, zero),
            _mm_unpackhi_epi16(number, zero),
            _mm_unpackhi_epi16(ranked, ranked),
        );
        Scores { scores: [low, high], ranked }
    }

    /// Returns the scores of four lanes, 0 for those that are not ranked.
    #[inline]
    #[target_feature(enable = "sse2")]
    fn scores(base: __m128i, number: __m128i, ranked: __m128i) -> __m128i {
        let one = _mm_set1_epi32(1.0f32.to_bits() as i32);
        let weight = _mm_add_epi32(_mm_slli_epi32::<WEIGHT_SHIFT>(number), one);
        let score = _mm_mul_ps(_mm_cvtepi32_ps(base), _mm_castsi128_ps(weight));
        _mm_and_si128(_mm_castps_si128(score), ranked)
    }

    #[inline]
    #[target_feature(enable = "sse2")]
    fn count(ranked: __m128i) -> usize {
        // Sets each ranked lane to 1 and the others to 0, and adds them up.
        let zero = _mm_setzero_si128();
        let ones = _mm_packs_epi16(_mm_srli_epi16::<15>(ranked), zero);
        _mm_cvtsi128_si32(_mm_sad_epu8(ones, zero)) as usize
    }

    #[inline]
    #[target_feature(enable = "sse2")]
    fn above(scores: [__m128i; 2], score: u32) -> u32 {
        // The bits of non-negative floats compare like signed integers.
        let score = _mm_set1_epi32(score as i32);
        let [low, high] = scores;
        let [low, high] = [_mm_cmpgt_epi32(low, score), _mm_cmpgt_epi32(high, score)];
        let above = _mm_packs_epi16(_mm_packs_epi32(low, high), _mm_setzero_si128());
        _mm_movemask_epi8(above) as u32
    }

    impl Ranker {
        #[inline]
        pub fn new(ranking: Ranking) -> Self {
            // SAFETY: SSE2 is part of every x86_64 target.
            unsafe { ranker(ranking) }
        }

        #[inline]
        pub fn rank(&self, hints: BucketHints) -> Scores {
            // SAFETY: as in `new`.
            unsafe { rank(self, hints) }
        }

        #[inline]
        pub fn plain_above(&self, hints: BucketHints, threshold: u16) -> Option<(u32, u32)> {
            // SAFETY: as in `new`.
            unsafe { plain_above(self, hints, threshold) }
        }
    }

    impl Scores {
        #[inline]
        pub fn count(&self) -> usize {
            // SAFETY: as in `Ranker::new`.
            unsafe { count(self.ranked) }
        }

        #[inline]
        pub fn above(&self, score: u32) -> u32 {
            // SAFETY: as in `Ranker::new`.
            unsafe { above(self.scores, score) }
        }

        #[inline]
        pub fn get(&self) -> [u32; SLOTS] {
            let mut all = [0; SLOTS];
            for (to, from) in all.chunks_exact_mut(SLOTS / 2).zip(self.scores) {
                // SAFETY: as in `Ranker::new`; each chunk has room for four numbers, and the store
                // needs no alignment.
                unsafe { _mm_storeu_si128(to.as_mut_ptr().cast(), from) };
            }
            all
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::util::Rng;

    #[test]
    fn hints_are_ranked_alike_one_by_one_and_all_at_once() {
        let seed = 7;
        println!("seed {seed}");
        let mut rng = Rng::new(seed);
        for turn in 0..20_000 {
            let mut hints =
                BucketHints { access: [rng.next_u64(), rng.next_u64()], class: rng.next_u64() };
            if turn % 3 == 0 {
                hints.class &= 0x8181_8181_8181_8181;
            }
            let (mask, first) = [(0xff, 1), (0xff, 129), (0x7f, 1)][turn % 3];
            let now = rng.next_u64() as u16;
            let plain = [hints.class as u8, first + 6][turn % 2];
            let ranking = Ranking { now, flat: 16, shift: 3, mask, first, plain };
            let (one, all) =
                (portable::Ranker::new(ranking).rank(hints), ranking.ranker().rank(hints));
            assert_eq!((one.count(), one.get()), (all.count(), all.get()), "{hints:?}");
            for score in [0, one.get()[turn % SLOTS], 1000.0f32.to_bits()] {
                assert_eq!(one.above(score), all.above(score), "{hints:?}");
            }
        }
    }

    #[test]
    fn slots_above_a_threshold_are_the_same_in_fewer_steps() {
        let seed = 8;
        println!("seed {seed}");
        let mut rng = Rng::new(seed);
        let mut quick = 0;
        for turn in 0..20_000 {
            // In three of four buckets, the plain class is the only ranked one.
            let classes: [u8; SLOTS] = std::array::from_fn(|_| match rng.next_u64() % 64 {
                0..40 => 7,
                40..52 => 0,
                52..63 => 0x87,
                _ => 9,
            });
            let access = [rng.next_u64(), rng.next_u64()];
            let hints = BucketHints { access, class: u64::from_le_bytes(classes) };
            let now = rng.next_u64() as u16;
            let ranking = Ranking { now, flat: 16, shift: 3, mask: 0xff, first: 1, plain: 7 };
            let scores = ranking.ranker().rank(hints);
            let score = match turn % 4 {
                0 => scores.get()[turn % SLOTS],
                1 => ((rng.next_u64() % 300_000) as f32).to_bits(),
                2 => f32::MAX.to_bits(),
                _ => 1.0f32.to_bits(),
            };
            let threshold = ranking.threshold(score);
            let expected = (scores.above(score), scores.count());
            assert_eq!(ranking.ranker().above(hints, threshold), expected, "{hints:?} {score}");
            let one = portable::Ranker::new(ranking).plain_above(hints, threshold.base);
            assert_eq!(one, ranking.ranker().0.plain_above(hints, threshold.base), "{hints:?}");
            if let Some((above, ranked)) = one {
                quick += 1;
                assert_eq!((above, ranked.count_ones() as usize), expected, "{hints:?} {score}");
            }
        }
        assert!((15_000..19_000).contains(&quick), "{quick}");
    }

    #[test]
    fn score_is_computed_from_the_slots_own_hints() {
        let ranking = Ranking { now: 100, flat: 16, shift: 3, mask: 0xff, first: 1, plain: 1 };
        // Slot 1 is idle for 30 steps, not referenced, of weight 2. Slot 6 is idle for 10 steps,
        // referenced, of weight 1.5.
        let access = [70 << 16, (90 | 1 << 12) << 32];
        let hints = BucketHints { access, class: 3 << 8 | 2 << 48 };
        let scores = ranking.ranker().rank(hints);
        let mut expected = [0; SLOTS];
        expected[1] = (46.0f32 * 8.0 * 2.0).to_bits();
        expected[6] = (26.0f32 * 1.5).to_bits();
        assert_eq!((scores.get(), scores.count()), (expected, 2));
        assert_eq!((scores.above(0), scores.above(100.0f32.to_bits())), (1 << 1 | 1 << 6, 1 << 1));
    }
}
