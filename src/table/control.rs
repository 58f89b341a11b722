//! The control word of a bucket, which alone decides what the bucket contains.
//!
//! ```text
//! bits  0..48   eight fields of 6 bits, one per slot: the tag of the entry in the slot; 0 = free
//! bits 48..50   state: 0 unused (zeroed memory), 2 in use, 3 frozen, 1 moved; it never goes back
//! bits 50..64   version: incremented by each publication, and to invalidate earlier reads
//! ```
//!
//! The version makes a CAS fail if the bucket has changed since it was scanned, even if its tags
//! are the same again. The version wraps: a thread that was stopped for exactly a multiple of
//! 2^[`VERSION_BITS`] publications may make a change that it must not make. So each change that
//! the version guards is followed by a check of its effect (`write`):
//!
//! * the entry that an unlink took out is compared with the one that it meant to take out;
//! * after a publication, the entries of the same tag that the scan ruled out must still be there.

/// Slots of a bucket.
pub const SLOTS: usize = 8;
/// Bits of the version: all that the word has left, or 2 in tests that let the version wrap.
pub const VERSION_BITS: u32 = if cfg!(cortado_small_version) { 2 } else { 14 };

/// Bits of a tag: eight tags leave 16 bits of the word for state and version.
pub const TAG_BITS: usize = 6;
pub const TAG: u64 = (1 << TAG_BITS) - 1;
/// Set in a bucket that is frozen or moved.
const FROZEN: u64 = 1 << 48;
/// Set in a bucket that is in use or frozen.
const INIT: u64 = 1 << 49;
/// One in the version field. The version is at the top, so that it wraps without a carry into other
/// fields.
const VERSION_ONE: u64 = 1 << (u64::BITS - VERSION_BITS);
/// The lowest bit of each slot's tag.
const EACH: u64 = {
    let (mut each, mut slot) = (0, 0);
    while slot < SLOTS {
        each |= 1 << (slot * TAG_BITS);
        slot += 1;
    }
    each
};
/// The bits of all tags.
const TAGS: u64 = EACH * TAG;
/// The five low bits of each tag.
const LOW: u64 = EACH * 0x1f;
/// The top bit of each tag.
const TOP: u64 = EACH * 0x20;

/// The decoded control word.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Control(pub u64);

/// A set of slots, iterated in ascending order.
#[derive(Clone, Copy, Debug)]
pub struct Slots(u64);

impl Control {
    /// The word of a bucket that was never used.
    pub const UNUSED: Self = Self(0);
    /// The word of a bucket that is in use and empty.
    pub const EMPTY: Self = Self(INIT);

    /// Returns the tag of a hash: 1 to 63.
    #[inline]
    pub fn tag_of(hash: u64) -> u64 {
        let tag = hash & TAG;
        tag + u64::from(tag == 0)
    }

    /// Returns the tag in a slot, 0 if the slot is free.
    #[inline]
    pub fn tag(self, slot: usize) -> u64 {
        (self.0 >> (slot * TAG_BITS)) & TAG
    }

    /// Returns the slots with this tag; tag 0 returns the free slots.
    #[inline]
    pub fn slots(self, tag: u64) -> Slots {
        let differs = (self.0 & TAGS) ^ (EACH * tag);
        // Per tag, without a carry into the next: the top bit of the sum is set if any of the five
        // low bits differs.
        let low = (differs & LOW) + LOW;
        Slots(!(low | differs) & TOP)
    }

    /// Returns the slots that are not free.
    #[inline]
    pub fn taken(self) -> Slots {
        Slots(!self.slots(0).0 & TOP)
    }

    /// Returns whether the bucket is in use, so that writers may change it.
    #[inline]
    pub fn is_in_use(self) -> bool {
        self.0 & (FROZEN | INIT) == INIT
    }

    /// Returns whether the bucket is frozen or has moved, so that it no longer changes.
    #[inline]
    pub fn is_frozen(self) -> bool {
        self.0 & FROZEN != 0
    }

    /// Returns whether the bucket's entries have moved to another array.
    #[inline]
    pub fn is_moved(self) -> bool {
        self.0 & (FROZEN | INIT) == FROZEN
    }

    /// Returns the word with the bucket frozen.
    #[must_use]
    pub fn frozen(self) -> Self {
        Self(self.0 | FROZEN | INIT)
    }

    /// Returns the word with the bucket moved.
    #[must_use]
    pub fn moved(self) -> Self {
        debug_assert!(self.is_frozen());
        Self(self.0 & !INIT)
    }

    /// Returns the word after a publication in a free slot.
    #[inline]
    #[must_use]
    pub fn with(self, slot: usize, tag: u64) -> Self {
        debug_assert_eq!(self.tag(slot), 0, "slot {slot} is taken");
        let with = self.0 | (tag << (slot * TAG_BITS));
        if mutant!("table_no_version") {
            return Self(with);
        }
        Self(with).renewed()
    }

    /// Returns the word after a slot was freed. The version is unchanged: a free slot stays free
    /// until the next publication.
    #[inline]
    #[must_use]
    pub fn without(self, slot: usize) -> Self {
        Self(self.0 & !(TAG << (slot * TAG_BITS)))
    }

    /// Returns the word after all slots were freed.
    #[must_use]
    pub fn without_any(self) -> Self {
        Self(self.0 & !TAGS)
    }

    /// Returns the word with a new version, as after a publication. A writer that has read the
    /// bucket before can no longer publish in it.
    #[must_use]
    pub fn renewed(self) -> Self {
        Self(self.0.wrapping_add(VERSION_ONE))
    }

    /// Returns whether nothing was published between the two words, unless the version has wrapped.
    pub fn has_version_of(self, other: Self) -> bool {
        self.0 / VERSION_ONE == other.0 / VERSION_ONE
    }
}

impl std::fmt::Debug for Control {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let tags: Vec<u64> = (0..SLOTS).map(|slot| self.tag(slot)).collect();
        f.debug_struct("Control")
            .field("tags", &tags)
            .field("in_use", &self.is_in_use())
            .field("frozen", &self.is_frozen())
            .field("moved", &self.is_moved())
            .field("version", &(self.0 / VERSION_ONE))
            .finish()
    }
}

impl Iterator for Slots {
    type Item = usize;

    #[inline]
    fn next(&mut self) -> Option<usize> {
        if self.0 == 0 {
            return None;
        }
        let slot = self.0.trailing_zeros() as usize / TAG_BITS;
        self.0 &= self.0 - 1;
        Some(slot)
    }
}

#[cfg(all(test, not(any(cortado_loom, cortado_shuttle))))]
mod tests {
    use super::*;

    #[test]
    fn published_tags_are_found_in_their_slots_only() {
        for a in 1..64 {
            for b in [1, 2, 31, 32, 33, 62, 63] {
                let control = Control::EMPTY.with(0, a).with(3, b).with(7, a);
                let expected: Vec<usize> = if a == b { vec![0, 3, 7] } else { vec![0, 7] };
                assert_eq!(control.slots(a).collect::<Vec<_>>(), expected);
                assert_eq!(control.slots(0).collect::<Vec<_>>(), [1, 2, 4, 5, 6]);
                assert_eq!(control.taken().collect::<Vec<_>>(), [0, 3, 7]);
            }
        }
    }

    #[test]
    fn tag_is_the_low_bits_of_a_hash_and_never_zero() {
        for hash in 0..1000 {
            let low = hash % 64;
            assert_eq!(Control::tag_of(hash), if low == 0 { 1 } else { low });
        }
    }

    #[test]
    fn states_follow_each_other_and_keep_tags_and_version() {
        for control in [Control::UNUSED, Control::EMPTY, Control::EMPTY.with(2, 63)] {
            let (frozen, moved) = (control.frozen(), control.frozen().moved());
            let states = [control, frozen, moved]
                .map(|control| (control.is_in_use(), control.is_frozen(), control.is_moved()));
            let is_used = control != Control::UNUSED;
            assert_eq!(
                states,
                [(is_used, false, false), (false, true, false), (false, true, true)]
            );
            assert_eq!((frozen.frozen(), moved.moved()), (frozen, moved));
            for later in [frozen, moved] {
                assert!((0..SLOTS).all(|slot| later.tag(slot) == control.tag(slot)));
                assert!(later.has_version_of(control));
            }
        }
    }

    #[test]
    fn publications_change_the_version_and_nothing_else() {
        let mut control = Control::EMPTY;
        for turn in 1..=40_000_u64 {
            let next = control.with(7, 63);
            assert!(!next.has_version_of(control));
            let back = next.without(7);
            assert!(back.is_in_use() && !back.is_frozen() && back.taken().next().is_none());
            assert_eq!(back == Control::EMPTY, turn.is_multiple_of(1 << VERSION_BITS), "{turn}");
            control = back;
        }
    }
}
