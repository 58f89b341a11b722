//! `Access`: the access bits of an entry. A hit updates them, and victim selection reads them.

use crate::config::STEPS_PER_AGE;

/// Bits of the step; the other four count hits.
const STEP_BITS: u32 = 12;
const STEP: u16 = (1 << STEP_BITS) - 1;
/// The greatest hit count: four bits, as in the counters of the sketch.
pub const MAX_HITS: u8 = 15;
/// Steps at which the idle time saturates: half of what `STEP_BITS` can represent.
const MAX_IDLE: u32 = 1 << (STEP_BITS - 1);
/// Ages in the range of the step bits.
const AGES: u32 = (1 << STEP_BITS) / STEPS_PER_AGE;
/// Ages in `MAX_IDLE`.
const MAX_IDLE_AGES: u32 = MAX_IDLE / STEPS_PER_AGE;
const AGE_BITS: u32 = STEPS_PER_AGE.ilog2();
/// Steps by which the aging of hits lags behind the start of the sketch's aging, which takes that
/// long. If hits aged first, keys outside the cache would briefly seem more frequent than those
/// inside.
const LAG: u32 = STEPS_PER_AGE / 32;

/// Returns `frequency` of step `last`, halved for each age that has begun until step `now`.
#[inline]
pub fn halved(frequency: u8, last: u32, now: u32) -> u8 {
    let age = |step: u32| step.wrapping_sub(LAG) >> AGE_BITS;
    // The clock wraps, and the age number with it.
    let ages = age(now).wrapping_sub(age(last)) & (u32::MAX >> AGE_BITS);
    frequency.checked_shr(ages).unwrap_or(0)
}

/// The step of an entry's last access, and its hit count.
///
/// ```text
/// bits  0..12   the step of the last access
/// bits 12..16   hits: at most one a step; 0 if not referenced since the entry entered its region
/// ```
///
/// The 12-bit step wraps, so an entry that stays idle must be [aged](Self::aged) before the wrap
/// makes it look new.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Access(u16);

impl Access {
    /// Returns the bits of an entry inserted at step `now`.
    #[inline]
    pub fn new(now: u32) -> Self {
        Self::with_hits(0, now)
    }

    /// Returns the bits of an entry with `hits` hits, the last one at step `now`.
    #[inline]
    pub fn with_hits(hits: u8, now: u32) -> Self {
        debug_assert!(hits <= MAX_HITS);
        Self(u16::from(hits) << STEP_BITS | (now as u16 & STEP))
    }

    /// Converts back from the result of [`to_bits`](Self::to_bits).
    #[inline]
    pub fn from_bits(bits: u16) -> Self {
        Self(bits)
    }

    /// Returns the bits.
    #[inline]
    pub fn to_bits(self) -> u16 {
        self.0
    }

    /// Returns the bits after a hit at step `now`; `None` if this step has a hit already, so that
    /// nothing changes.
    #[inline]
    pub fn hit(self, now: u32) -> Option<Self> {
        if self.is_referenced() && self.0 & STEP == now as u16 & STEP {
            return None;
        }
        let hits = self.hits(now);
        Some(Self::with_hits(hits + u8::from(hits < MAX_HITS), now))
    }

    /// Returns whether the entry was hit since it entered its region.
    #[inline]
    pub fn is_referenced(self) -> bool {
        self.0 > STEP
    }

    /// Returns the bits without the hits.
    #[must_use]
    pub fn unreferenced(self) -> Self {
        Self(self.0 & STEP)
    }

    /// Returns the steps between the last access and `now`.
    #[inline]
    pub fn idle(self, now: u32) -> u32 {
        u32::from((now as u16).wrapping_sub(self.0) & STEP)
    }

    /// Returns the hit count at step `now`. It is halved with every age, as the counters of the
    /// sketch are.
    #[inline]
    pub fn hits(self, now: u32) -> u8 {
        // The step bits represent no more than `AGES` ages.
        let age = |step: u32| step.wrapping_sub(LAG) >> AGE_BITS;
        let ages = age(now).wrapping_sub(age(u32::from(self.0))) & (AGES - 1);
        (self.0 >> STEP_BITS >> ages) as u8
    }

    /// Returns the bits with the idle time reduced to `MAX_IDLE`; `None` if it is not above that.
    /// Must be called at least once an age, or a long idle entry looks new after the step wraps.
    pub fn aged(self, now: u32) -> Option<Self> {
        if self.idle(now) <= MAX_IDLE {
            return None;
        }
        let hits = (self.hits(now) << MAX_IDLE_AGES).max(u8::from(self.is_referenced()));
        // More than `MAX_HITS` only if the clock has jumped.
        Some(Self::with_hits(hits.min(MAX_HITS), now.wrapping_sub(MAX_IDLE)))
    }
}

#[cfg(all(test, not(any(cortado_loom, cortado_shuttle))))]
mod tests {
    use super::*;

    /// Returns the bits after a hit at each of these steps.
    fn hit_at(steps: impl IntoIterator<Item = u32>) -> Access {
        let mut steps = steps.into_iter();
        let first = Access::new(steps.next().unwrap());
        steps.fold(first, |access, step| access.hit(step).unwrap_or(access))
    }

    #[test]
    fn only_the_first_hit_of_a_step_counts() {
        let new = Access::new(10);
        assert!(!new.is_referenced());
        let hit = new.hit(10).unwrap();
        assert!(hit.is_referenced() && hit.hit(10).is_none());
        assert_eq!((hit.hits(10), hit.hit(11).unwrap().hits(11)), (1, 2));
        assert_eq!(hit_at(0..100).hits(99), MAX_HITS);
    }

    #[test]
    fn hits_are_halved_after_every_age() {
        let access = hit_at([LAG, LAG + 1, LAG + 2, LAG + 3]);
        let age = STEPS_PER_AGE + LAG;
        assert_eq!((access.hits(LAG + 3), access.hits(age - 1)), (3, 3));
        assert_eq!((access.hits(age), access.hits(age + STEPS_PER_AGE)), (1, 0));
        assert_eq!(access.hit(age).unwrap().hits(age), 2, "one of three, and one more");
    }

    #[test]
    fn unreferenced_bits_keep_the_step() {
        let access = hit_at([7, 8]).unreferenced();
        assert_eq!((access.is_referenced(), access.hits(8), access.idle(20)), (false, 0, 12));
        assert_eq!(Access::from_bits(access.to_bits()), access);
    }

    #[test]
    fn idle_time_survives_the_wrap_of_the_clock() {
        for now in [u32::from(STEP), u32::MAX, 0] {
            let access = Access::with_hits(3, now);
            assert_eq!((access.idle(now), access.idle(now.wrapping_add(5))), (0, 5));
        }
        assert_eq!(Access::with_hits(3, u32::MAX).hits(LAG - 1), 3);
        assert_eq!(Access::with_hits(3, u32::MAX).hits(LAG), 1, "another age has begun");
    }

    #[test]
    fn entry_that_is_aged_in_time_never_looks_new() {
        for (first, hits) in [(0, 0), (5, 15), (1000, 1), (4090, 7)] {
            let mut access = Access::with_hits(hits, first);
            let is_referenced = access.is_referenced();
            for now in (first..).step_by(STEPS_PER_AGE as usize).take(20) {
                let before = (access.idle(now), access.hits(now));
                assert!(before.0 < 1 << STEP_BITS);
                if let Some(aged) = access.aged(now) {
                    assert_eq!((aged.idle(now), aged.hits(now)), (MAX_IDLE, before.1));
                    access = aged;
                }
                assert!(access.idle(now) >= (now - first).min(MAX_IDLE));
                assert_eq!(access.is_referenced(), is_referenced);
            }
        }
    }
}
