//! `Meta`: the one word that decides who is in a bucket.
//!
//! ```text
//! bits  0..49   seven lanes of 7 bits: the tag of the entry in the slot of that number; 0 = free
//! bit   49      FROZEN: the bucket is being migrated; never cleared
//! bit   50      INIT: the bucket is in use; zeroed memory is a bucket that is not
//! bits 51..64   version: one more with every published lane
//! ```
//!
//! The version makes a compare-and-swap fail if the bucket changed since its scan, though the tags
//! are the same again: what left a lane and came back was published again. It wraps. After a
//! multiple of 2^[`VERSION_BITS`] publishes and as many removals a bucket with the same tags looks
//! as it did, and a thread that was stopped all the while makes a change that it should not make.
//! So every change that the version guards is followed by a look at what it did, in `write`:
//!
//! * what an unlink has taken out is compared with what was to be taken out;
//! * after a publish, the entries of the same tag that the scan ruled out must still be there.

/// Slots, and lanes, of a bucket.
pub const LANES: usize = 7;

/// The decoded meta word.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Meta(pub u64);

impl Meta {
    /// A bucket that is in use and empty.
    pub const LIVE: Self = Self(INIT);

    /// Returns the tag of a hash: 1 to 127.
    #[inline]
    pub fn tag_of(hash: u64) -> u64 {
        let tag = hash & TAG;
        tag + u64::from(tag == 0)
    }

    /// Returns the tag in a lane, 0 if the lane is free.
    #[inline]
    pub fn tag(self, lane: usize) -> u64 {
        (self.0 >> (lane * TAG_BITS)) & TAG
    }

    /// Returns the lanes that hold `tag`; tag 0 gives the free lanes.
    #[inline]
    pub fn lanes(self, tag: u64) -> Lanes {
        let differs = (self.0 & TAGS) ^ (EACH * tag);
        // Per lane, without a carry into the next: the top bit of the sum is set if any of the
        // six low bits differs.
        let low = (differs & LOW) + LOW;
        Lanes(!(low | differs) & TOP)
    }

    /// Returns the lanes that are not free.
    #[inline]
    pub fn taken(self) -> Lanes {
        Lanes(!self.lanes(0).0 & TOP)
    }

    /// Returns whether the bucket is being migrated, or was.
    #[inline]
    pub fn is_frozen(self) -> bool {
        self.0 & FROZEN != 0
    }

    /// Returns whether the bucket is in use.
    #[inline]
    pub fn is_live(self) -> bool {
        self.0 & INIT != 0
    }

    /// Returns the word after publishing `tag` in a free lane.
    #[inline]
    pub fn with(self, lane: usize, tag: u64) -> Self {
        debug_assert_eq!(self.tag(lane), 0, "lane {lane} is taken");
        Self(self.0 | (tag << (lane * TAG_BITS))).next()
    }

    /// Returns the word after freeing a lane.
    #[inline]
    pub fn without(self, lane: usize) -> Self {
        Self(self.0 & !(TAG << (lane * TAG_BITS)))
    }

    /// Returns the word after freeing every lane.
    pub fn without_any(self) -> Self {
        Self(self.0 & !TAGS)
    }

    /// Returns whether nothing was published between the two words, unless the version has wrapped.
    pub fn has_version_of(self, other: Self) -> bool {
        self.0 / VERSION_ONE == other.0 / VERSION_ONE
    }

    /// Returns the word that freezes the bucket.
    pub fn frozen(self) -> Self {
        Self(self.0 | FROZEN)
    }

    /// Returns the word with the next version.
    ///
    /// Only a publish needs one: without it a lane that was freed stays free, and the word differs.
    #[inline]
    fn next(self) -> Self {
        if cfg!(cortado_mutant = "table_no_version") {
            return self;
        }
        Self(self.0.wrapping_add(VERSION_ONE))
    }
}

impl std::fmt::Debug for Meta {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let tags: Vec<u64> = (0..LANES).map(|lane| self.tag(lane)).collect();
        f.debug_struct("Meta")
            .field("tags", &tags)
            .field("frozen", &self.is_frozen())
            .field("live", &self.is_live())
            .field("version", &(self.0 / VERSION_ONE))
            .finish()
    }
}

/// A set of lanes, iterated from the lowest.
#[derive(Clone, Copy, Debug)]
pub struct Lanes(u64);

impl Iterator for Lanes {
    type Item = usize;

    #[inline]
    fn next(&mut self) -> Option<usize> {
        if self.0 == 0 {
            return None;
        }
        let lane = self.0.trailing_zeros() as usize / TAG_BITS;
        self.0 &= self.0 - 1;
        Some(lane)
    }
}

const TAG_BITS: usize = 7;
const TAG: u64 = (1 << TAG_BITS) - 1;
const FROZEN: u64 = 1 << 49;
const INIT: u64 = 1 << 50;
/// Bits of the version. Two, where tests are to see it wrap.
pub const VERSION_BITS: u32 = if cfg!(cortado_small_version) { 2 } else { 13 };
/// The version stands at the top, so that it wraps without touching its neighbours.
const VERSION_ONE: u64 = 1 << (u64::BITS - VERSION_BITS);
/// The lowest bit of each lane.
const EACH: u64 = (1 << 0) | (1 << 7) | (1 << 14) | (1 << 21) | (1 << 28) | (1 << 35) | (1 << 42);
/// All lanes.
const TAGS: u64 = EACH * TAG;
/// The six low bits of each lane.
const LOW: u64 = EACH * 0x3f;
/// The top bit of each lane.
const TOP: u64 = EACH * 0x40;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn published_tags_are_found_in_their_lanes_only() {
        for a in 1..128 {
            for b in [1, 2, 63, 64, 65, 126, 127] {
                let meta = Meta::LIVE.with(0, a).with(3, b).with(6, a);
                let expect: Vec<usize> = if a == b { vec![0, 3, 6] } else { vec![0, 6] };
                assert_eq!(meta.lanes(a).collect::<Vec<_>>(), expect);
                assert_eq!(meta.lanes(0).collect::<Vec<_>>(), [1, 2, 4, 5]);
                assert_eq!(meta.taken().collect::<Vec<_>>(), [0, 3, 6]);
            }
        }
    }

    #[test]
    fn tags_are_the_low_bits_of_a_hash_and_never_zero() {
        for hash in 0..1000 {
            let low = hash % 128;
            assert_eq!(Meta::tag_of(hash), if low == 0 { 1 } else { low });
        }
    }

    #[test]
    fn publishes_move_the_version_and_nothing_else() {
        let mut meta = Meta::LIVE;
        for turn in 1..=20_000_u64 {
            let next = meta.with(6, 127);
            assert_ne!(next.0 / VERSION_ONE, meta.0 / VERSION_ONE);
            let back = next.without(6);
            assert!(back.is_live() && !back.is_frozen() && back.taken().next().is_none());
            assert_eq!(back == Meta::LIVE, turn.is_multiple_of(1 << VERSION_BITS), "{turn}");
            meta = back;
        }
        assert!(meta.frozen().is_frozen());
        assert_eq!(meta.with(2, 9).without_any().taken().count(), 0);
    }
}
