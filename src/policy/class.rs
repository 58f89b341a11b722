//! `Class`: an entry's region and approximate weight, in one byte of its bucket, for victim
//! selection.

/// Bit 7: in the window.
const WINDOW: u8 = 1 << 7;
const WEIGHT: u8 = WINDOW - 1;

/// The region of an entry and its approximate weight.
///
/// The lower 7 bits are 0 for an unevictable entry. Otherwise the weight is rounded down to 1 or
/// 1.5 times a power of two, and the bits are 1 more than twice its binary logarithm.
///
/// A class is a hint, which a late writer may leave stale. The flags and the cost beside the
/// entry's cell are authoritative.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Class(u8);

impl Class {
    /// Returns the class of an entry of this weight, where 0 counts as 1 and `None` means that the
    /// entry is unevictable.
    #[inline]
    pub const fn new(is_in_window: bool, weight: Option<u64>) -> Self {
        let weight = match weight {
            None => 0,
            Some(weight) => {
                // At least 1. The bit below the highest one, if there is one, is the half.
                let weight = weight | (weight == 0) as u64;
                let exponent = weight.ilog2();
                let half = if exponent > 0 { weight >> (exponent - 1) & 1 } else { 0 };
                // The exponent is at most 63, so only 128 has to be reduced to fit 7 bits.
                let number = 2 * exponent + half as u32 + 1;
                if number > WEIGHT as u32 { WEIGHT } else { number as u8 }
            }
        };
        Self(weight | if is_in_window { WINDOW } else { 0 })
    }

    /// Converts back from the result of [`to_bits`](Self::to_bits).
    #[inline]
    pub fn from_bits(bits: u8) -> Self {
        Self(bits)
    }

    /// Returns the bits.
    #[inline]
    pub fn to_bits(self) -> u8 {
        self.0
    }

    /// Returns the class with the same weight in the main region.
    #[must_use]
    pub fn in_main(self) -> Self {
        Self(self.0 & WEIGHT)
    }

    /// Returns the weight if the class is in `range`.
    #[inline]
    pub fn weight_in(self, range: ClassRange) -> Option<f32> {
        let number = (self.0 & range.mask).wrapping_sub(range.first);
        // `number` is the exponent and the highest bit of the fraction, laid out as in an `f32`.
        let weight = (u32::from(number) << 22) + 1.0f32.to_bits();
        (number < WEIGHT).then(|| f32::from_bits(weight))
    }
}

/// The classes of the evictable entries of one region or of both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClassRange {
    mask: u8,
    first: u8,
}

impl ClassRange {
    /// Returns the mask of the significant bits, and the masked class of weight 1.
    pub fn mask_and_first(self) -> (u8, u8) {
        (self.mask, self.first)
    }

    /// The window region.
    pub const WINDOW: Self = Self { mask: u8::MAX, first: WINDOW + 1 };
    /// The main region.
    pub const MAIN: Self = Self { mask: u8::MAX, first: 1 };
    /// Both regions.
    pub const BOTH: Self = Self { mask: WEIGHT, first: 1 };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weight_is_rounded_down_to_a_power_of_two_or_half_as_much_again() {
        let weight_of = |weight| Class::new(false, Some(weight)).weight_in(ClassRange::MAIN);
        for exponent in 0..63 {
            let power = 1u64 << exponent;
            for (weight, rounded) in [
                (power, power as f32),
                (power + power / 4, power as f32),
                (power + power.div_ceil(2), power as f32 * if exponent > 0 { 1.5 } else { 2.0 }),
            ] {
                assert_eq!(weight_of(weight), Some(rounded), "{weight}");
            }
        }
        assert_eq!(weight_of(u64::MAX), Some((1u64 << 63) as f32));
        assert_eq!(Class::new(false, Some(0)), Class::new(false, Some(1)));
    }

    #[test]
    fn region_and_weight_are_independent() {
        for weight in [None, Some(1), Some(1000)] {
            let (inside, main) = (Class::new(true, weight), Class::new(false, weight));
            assert!(inside != main);
            assert_eq!((inside.in_main(), main.in_main()), (main, main));
            for (class, range, other) in [
                (inside, ClassRange::WINDOW, ClassRange::MAIN),
                (main, ClassRange::MAIN, ClassRange::WINDOW),
            ] {
                assert_eq!(class.weight_in(range).is_some(), weight.is_some());
                assert_eq!(class.weight_in(ClassRange::BOTH), class.weight_in(range));
                assert_eq!(class.weight_in(other), None);
                assert_eq!(Class::from_bits(class.to_bits()), class);
            }
        }
    }
}
