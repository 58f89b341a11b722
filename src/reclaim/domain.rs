//! Domain: whose memory a pin keeps.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed}; // shim: a number, which no model needs to see

/// Identifies the memory that a pin keeps readable: that of one cache, or of all.
///
/// A pin holds back the garbage of its own domain only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Domain(u64);

impl Domain {
    /// Covers every domain.
    pub const ANY: Self = Self(0);

    /// Returns a domain that no other caller gets.
    pub fn new() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        // Relaxed: only the addition has to be whole; 2^64 caches are never made.
        Self(NEXT.fetch_add(1, Relaxed))
    }

    /// Returns whether a pin of this domain keeps the memory of `other`, or the reverse.
    #[inline]
    pub fn meets(self, other: Self) -> bool {
        self == other || self == Self::ANY || other == Self::ANY
    }

    /// Returns the domain that covers both.
    #[inline]
    pub fn joined(self, other: Self) -> Self {
        if self == other { self } else { Self::ANY }
    }

    #[inline]
    pub(super) fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// Returns the number of the domain.
    #[inline]
    pub fn to_bits(self) -> u64 {
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
        assert!(!one.meets(two));
        assert_eq!((one.joined(one), one.joined(two)), (one, Domain::ANY));
    }
}
