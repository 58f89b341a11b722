//! `Domain`: identifies the memory that a pin protects.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed}; // shim: a counter that no model needs

/// Identifies the memory that a pin protects: that of one cache, of a part of one, or of all.
///
/// A pin holds back the garbage of its own domain only. A domain has [`PARTS`] parts, by the hashes
/// of its entries. A pin of one part protects the structure of the whole domain, but only the
/// values of that part.
///
/// ```text
/// bits  0..16   the part; 0: all parts; all ones: the structure and no value
/// bits 16..64   the number of the domain; 0: any
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Domain(u64);

/// The number of parts of a domain: the values, except 0, of the ten hash bits that a bucket holds
/// of each entry.
pub const PARTS: usize = (1 << 10) - 1;
const PART_BITS: u32 = 16;
const PART_MASK: u64 = (1 << PART_BITS) - 1;
const ALL: u64 = 0;
const NO_VALUE: u64 = PART_MASK;

/// A part of a domain: from 1 to [`PARTS`].
pub type Part = u16;

impl Domain {
    /// The domain that covers every other.
    pub const ANY: Self = Self(0);

    /// Returns a domain that no other caller gets.
    pub fn new() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        // Relaxed: only the addition must be atomic. 2^48 caches are never made.
        Self(NEXT.fetch_add(1, Relaxed) << PART_BITS)
    }

    /// Returns one part of this domain.
    #[inline]
    #[must_use]
    pub fn part(self, part: Part) -> Self {
        debug_assert!((1..=PARTS).contains(&usize::from(part)) && self.of() == ALL);
        Self(self.0 | u64::from(part))
    }

    /// Returns the structure of this domain, without any value.
    #[inline]
    #[must_use]
    pub fn structure(self) -> Self {
        debug_assert!(self.of() == ALL);
        Self(self.0 | NO_VALUE)
    }

    /// Returns whether both belong to one domain, or one of them is [`ANY`](Self::ANY): a pin of
    /// either protects the structure of the other.
    #[inline]
    pub fn meets(self, other: Self) -> bool {
        let (own, other) = (self.0 & !PART_MASK, other.0 & !PART_MASK);
        own == other || own == 0 || other == 0
    }

    /// Returns whether a pin of `self` protects all memory of `other`.
    #[inline]
    pub fn covers(self, other: Self) -> bool {
        self.meets(other) && (self.of() == ALL || self.of() == other.of() || other.of() == NO_VALUE)
    }

    /// Returns the smallest domain or part that covers both.
    #[inline]
    pub fn joined(self, other: Self) -> Self {
        if self.0 & !PART_MASK != other.0 & !PART_MASK {
            Self::ANY
        } else if self.covers(other) {
            self
        } else if other.covers(self) {
            other
        } else {
            Self(self.0 & !PART_MASK)
        }
    }

    #[inline]
    fn of(self) -> u64 {
        self.0 & PART_MASK
    }

    /// Returns the number of the domain.
    #[inline]
    pub fn number(self) -> u64 {
        self.0 >> PART_BITS
    }
}

// For the collector that stores domains in atomics.
#[cfg(any(cortado_loom, cortado_shuttle, not(feature = "crossbeam-epoch")))]
impl Domain {
    #[inline]
    pub(super) fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    #[inline]
    pub(super) fn to_bits(self) -> u64 {
        self.0
    }
}

impl Default for Domain {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(all(test, not(any(cortado_loom, cortado_shuttle))))]
mod tests {
    use super::*;

    #[test]
    fn domain_meets_itself_and_any_and_no_other() {
        let (one, two) = (Domain::new(), Domain::new());
        assert!(one.meets(one) && one.meets(Domain::ANY) && Domain::ANY.meets(two));
        assert!(!one.meets(two) && !one.part(3).meets(two.part(3)));
        assert!(one.part(3).meets(one.part(4)) && one.structure().meets(Domain::ANY));
        assert_eq!((one.joined(one), one.joined(two)), (one, Domain::ANY));
        assert_eq!(one.part(1).joined(two.part(1)), Domain::ANY);
    }

    #[test]
    fn part_covers_itself_and_the_structure() {
        let whole = Domain::new();
        let (first, last) = (whole.part(1), whole.part(PARTS as Part));
        let structure = whole.structure();
        assert!(whole.covers(first) && whole.covers(structure) && Domain::ANY.covers(last));
        assert!(first.covers(first) && first.covers(structure));
        assert!(!first.covers(last) && !first.covers(whole) && !structure.covers(first));
        assert!(!structure.covers(whole) && !first.covers(Domain::new().part(1)));
        assert_eq!((first.joined(first), first.joined(last)), (first, whole));
        assert_eq!((first.joined(structure), structure.joined(first)), (first, first));
        assert_eq!((first.joined(whole), whole.joined(first)), (whole, whole));
    }
}
