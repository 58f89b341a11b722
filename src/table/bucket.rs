//! Buckets: one cache line with a control word, eight entry words and the hints of the policy.

use super::{
    Hints,
    control::{Control, SLOTS, TAG_BITS},
    ranking::BucketHints,
};
use crate::{
    slab::Handle,
    sync::atomic::{AtomicU32, AtomicU64, Ordering::*},
};

/// Bits of an entry word above the handle's 26.
const FROZEN: u32 = 1 << 26;
const DYING: u32 = 1 << 27;
const HASH_SHIFT: u32 = 28;

/// A bucket: one cache line of the table.
#[repr(C, align(64))]
pub struct Bucket {
    control: AtomicU64,
    words: [AtomicU32; SLOTS],
    /// The access bits of the entry in each slot, 16 bits per slot. A hint: a reader that was
    /// stopped may write to a slot that holds another entry by then, and may undo concurrent writes
    /// to neighbouring slots.
    access: [AtomicU64; 2],
    /// The class of the entry in each slot, 8 bits per slot, from which the policy ranks a whole
    /// bucket at once. A hint, too.
    class: AtomicU64,
}

/// The content of a slot: not in use yet, empty, or an entry's handle with four bits of its hash.
///
/// ```text
/// bits  0..26   handle; 0: the bucket is not in use yet; 1: empty
/// bit   26      FROZEN: it no longer changes, because its bucket is being moved
/// bit   27      DYING: removed in place; only the slot is still to be freed
/// bits 28..32   the four bits of the hash above those of the tag
/// ```
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Word(u32);

/// The result of [`Bucket::validated`].
pub enum Validated {
    /// The entry was published at one instant of the call.
    Holds(Word, Handle),
    /// The slot was empty or holds an entry of another hash: the entry with this tag and hash has
    /// left.
    Gone,
    /// The slot changed during the call: read the bucket again.
    Changed,
}

impl Word {
    /// A slot of zeroed memory. It differs from [`Self::EMPTY`]: a slow resizer fills only slots
    /// that no thread has filled, and must not fill one that was filled and emptied since.
    pub const UNUSED: Self = Self(0);
    /// A free slot.
    pub const EMPTY: Self = Self(1);

    /// Creates the word of an entry; `bits` are four bits of its hash.
    #[inline]
    pub fn new(handle: Handle, bits: u32) -> Self {
        debug_assert!(bits < 16 && handle.raw() > Self::EMPTY.0);
        Self(handle.raw() | bits << HASH_SHIFT)
    }

    /// Returns the entry's handle, if there is an entry.
    #[inline]
    pub fn handle(self) -> Option<Handle> {
        let handle = Handle::new(self.0);
        (handle.raw() > Self::EMPTY.0).then_some(handle)
    }

    /// Returns the four bits of a hash that a word stores.
    #[inline]
    pub fn bits_of(hash: u64) -> u32 {
        (hash >> TAG_BITS) as u32 & 15
    }

    /// Returns whether the entry may have a hash with these four bits.
    #[inline]
    pub fn has_bits(self, bits: u32) -> bool {
        self.0 >> HASH_SHIFT == bits
    }

    /// Returns the four bits of the entry's hash.
    #[inline]
    pub fn bits(self) -> u32 {
        self.0 >> HASH_SHIFT
    }

    /// Returns whether the entry was removed in place, so that only its slot is still to be freed.
    #[inline]
    pub fn is_dying(self) -> bool {
        self.0 & DYING != 0
    }

    #[must_use]
    fn dying(self) -> Self {
        Self(self.0 | DYING)
    }

    fn is_frozen(self) -> bool {
        self.0 & FROZEN != 0
    }

    #[must_use]
    fn frozen(self) -> Self {
        Self(self.0 | FROZEN)
    }

    /// Returns the word to store in the next array.
    #[must_use]
    pub fn thawed(self) -> Self {
        let lost = if mutant!("resize_dying_moves") { DYING } else { 0 };
        Self(self.0 & !(FROZEN | lost))
    }
}

impl Bucket {
    /// Returns an unused bucket, the equivalent of zeroed memory.
    #[cfg(any(cortado_loom, cortado_shuttle))]
    pub fn unused() -> Self {
        Self {
            control: AtomicU64::new(Control::UNUSED.0),
            words: std::array::from_fn(|_| AtomicU32::new(Word::UNUSED.0)),
            access: std::array::from_fn(|_| AtomicU64::new(0)),
            class: AtomicU64::new(0),
        }
    }

    /// Puts an unused bucket in use, unless another thread already has.
    #[cold]
    pub fn init(&self) {
        for slot in 0..SLOTS {
            self.change_word(slot, Word::UNUSED, Word::EMPTY);
        }
        self.change_control(Control::UNUSED, Control::EMPTY);
    }

    /// Loads the control word.
    #[inline]
    pub fn control(&self) -> Control {
        // Acquire: pairs with the Release of every change of the word; a thread that sees a slot
        // published also sees its word.
        Control(self.control.load(Acquire))
    }

    /// Changes the control word if it is still `from`.
    #[inline]
    pub fn change_control(&self, from: Control, to: Control) -> bool {
        // AcqRel: Release pairs with the Acquire in `control`, so that a published slot shows its
        // word. Acquire orders what follows, the emptying of an unpublished slot, after it.
        let order = ordering!(AcqRel, mutant("table_relaxed_publish") => Relaxed);
        // Relaxed on failure: the caller loads the word again.
        self.control.compare_exchange(from.0, to.0, order, Relaxed).is_ok()
    }

    /// Loads the word of a slot.
    #[inline]
    pub fn word(&self, slot: usize) -> Word {
        // Acquire: pairs with the Release of the CAS that stored the handle, so that the entry's
        // content is seen; orders the loads that validate it after this one.
        let order = ordering!(Acquire, mutant("table_relaxed_word") => Relaxed);
        Word(self.words[slot].load(order))
    }

    /// Changes the word of a slot if it is still `from`.
    #[inline]
    pub fn change_word(&self, slot: usize, from: Word, to: Word) -> bool {
        // AcqRel: Release publishes the entry's content to the Acquire in `word`. Acquire makes the
        // entry that is taken out readable for the thread that retires it.
        // Relaxed on failure: the caller reads the bucket again.
        self.words[slot].compare_exchange(from.0, to.0, AcqRel, Relaxed).is_ok()
    }

    /// Marks the entry of a word as removed; returns whether this call did so.
    pub fn mark_dying(&self, slot: usize, word: Word) -> bool {
        self.change_word(slot, word, word.dying())
    }

    /// Empties a slot that the caller has claimed but not published.
    pub fn withdraw(&self, slot: usize) {
        // Release: pairs with the CAS that claims the slot next; no other thread may change it.
        self.words[slot].store(Word::EMPTY.0, Release);
    }

    /// Loads the entry of a slot that `control` shows with `tag`, if it was published at one
    /// instant after both loads and has these four bits of the hash.
    ///
    /// An entry may be read only after this check: an entry that is claimed and not yet published
    /// is private to its inserter.
    #[inline]
    pub fn validated(&self, control: Control, slot: usize, tag: u64, bits: u32) -> Validated {
        let word = self.word(slot);
        if !word.has_bits(bits) {
            return Validated::Gone;
        }
        let Some(handle) = word.handle() else { return Validated::Gone };
        if mutant!("table_no_validate") {
            return Validated::Holds(word, handle);
        }
        let now = self.control();
        // Relaxed: the Acquire of the load above orders this one after it. The same word before and
        // after `now` means that it was there at `now`: a handle enters a slot once, and cannot
        // return to it while the caller is pinned.
        let is_same = self.words[slot].load(Relaxed) == word.0;
        // `control` was of a bucket in use. An unchanged word is the common case and takes one
        // comparison.
        let is_there = now == control || (now.tag(slot) == tag && !now.is_frozen());
        if is_same && is_there { Validated::Holds(word, handle) } else { Validated::Changed }
    }

    /// Stores the policy's hints for an entry. Another thread may overwrite them.
    #[inline]
    pub fn set_hints(&self, slot: usize, hints: Hints) {
        self.set_access(slot, hints.access);
        self.set_class(slot, hints.class);
    }

    /// Returns the access bits of a slot.
    #[inline]
    pub fn access(&self, slot: usize) -> u16 {
        let (word, shift) = self.access_word(slot);
        (word.load(Relaxed) >> shift) as u16 // Relaxed: a hint, here and below.
    }

    /// Stores the access bits of a slot.
    #[inline]
    pub fn set_access(&self, slot: usize, access: u16) {
        self.update_access(slot, |_| Some(access));
    }

    /// Stores the result of `update` on the access bits of a slot, unless it is `None`; returns
    /// whether it was not.
    #[inline]
    pub fn update_access(&self, slot: usize, update: impl FnOnce(u16) -> Option<u16>) -> bool {
        let (word, shift) = self.access_word(slot);
        let seen = word.load(Relaxed);
        let before = (seen >> shift) as u16;
        let Some(after) = update(before) else { return false };
        word.store(seen ^ u64::from(before ^ after) << shift, Relaxed); // Relaxed: as above.
        true
    }

    #[inline]
    fn access_word(&self, slot: usize) -> (&AtomicU64, usize) {
        (&self.access[(slot >> 2) & 1], (slot & 3) * 16)
    }

    /// Returns the class of a slot.
    #[inline]
    pub fn class(&self, slot: usize) -> u8 {
        (self.class.load(Relaxed) >> ((slot & (SLOTS - 1)) * 8)) as u8 // Relaxed: as above.
    }

    /// Stores the class of a slot.
    #[inline]
    pub fn set_class(&self, slot: usize, class: u8) {
        let shift = (slot & (SLOTS - 1)) * 8;
        // Relaxed: as above.
        let others = self.class.load(Relaxed) & !(u64::from(u8::MAX) << shift);
        self.class.store(others | u64::from(class) << shift, Relaxed); // Relaxed: as above.
    }

    /// Returns the hints of all slots.
    #[inline]
    pub fn hints(&self) -> BucketHints {
        // Relaxed, all: as above.
        let access = [self.access[0].load(Relaxed), self.access[1].load(Relaxed)];
        BucketHints { access, class: self.class.load(Relaxed) }
    }

    /// Freezes the bucket: it no longer changes. When this returns, the caller sees its final
    /// content.
    pub fn freeze(&self) {
        let mut control = self.control();
        while !control.is_frozen() {
            self.change_control(control, control.frozen());
            control = self.control();
        }
        if mutant!("resize_thawed_words") {
            return;
        }
        for slot in control.taken() {
            let mut word = self.word(slot);
            while !word.is_frozen() {
                self.change_word(slot, word, word.frozen());
                word = self.word(slot);
            }
        }
    }

    /// Unlinks a published slot if the control word is still `control`, and empties it; returns the
    /// entry word that it held.
    ///
    /// That word may differ from the one that the caller has seen: the entry may have been replaced
    /// in between, or the version may have wrapped and the slot holds another entry.
    #[inline]
    pub fn unpublish(&self, control: Control, slot: usize) -> Option<Word> {
        if !self.change_control(control, control.without(slot)) {
            return None;
        }
        // Before the slot is free: free slots must not be ranked.
        self.set_class(slot, 0);
        if mutant!("table_take_by_store") {
            let word = self.word(slot);
            self.withdraw(slot);
            return Some(word);
        }
        // A swap and not a store: a thread that validated before may replace the entry in between,
        // and then the newer entry is the one that is taken out.
        // AcqRel: Acquire makes the entry readable for the thread that retires it; Release shows
        // the freed slot to the next claim.
        Some(Word(self.words[slot].swap(Word::EMPTY.0, AcqRel)))
    }

    /// Unlinks all published slots; returns their words and the control word that showed them, or
    /// `None` if the bucket is frozen. If `renews`, a thread that has read the bucket before can no
    /// longer publish in it.
    pub fn unpublish_all(&self, renews: bool) -> Option<(Control, [Word; SLOTS])> {
        loop {
            let control = self.control();
            let mut words = [Word::EMPTY; SLOTS];
            if control.is_frozen() {
                return None;
            }
            // No thread publishes in a bucket that is not in use.
            let renews = renews && control.is_in_use() && !mutant!("budget_renews_nothing");
            if control.taken().next().is_none() && !renews {
                return Some((control, words));
            }
            let emptied = control.without_any();
            if self.change_control(control, if renews { emptied.renewed() } else { emptied }) {
                for slot in control.taken() {
                    self.set_class(slot, 0);
                    // AcqRel: as in `unpublish`.
                    words[slot] = Word(self.words[slot].swap(Word::EMPTY.0, AcqRel));
                }
                return Some((control, words));
            }
        }
    }

    /// Frees the slot of an entry that was removed in place.
    ///
    /// Returns the tag and the word of another entry if that was taken out by mistake, because the
    /// version wrapped while this thread was stopped.
    #[must_use]
    pub fn free_dying(&self, slot: usize, word: Word) -> Option<(u64, Word)> {
        let word = word.dying();
        loop {
            let control = self.control();
            if control.is_frozen() || control.tag(slot) == 0 || self.word(slot) != word {
                return None;
            }
            if let Some(taken) = self.unpublish(control, slot) {
                return (taken != word).then(|| (control.tag(slot), taken));
            }
        }
    }
}

impl std::fmt::Debug for Bucket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Bucket").field("control", &self.control()).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Word {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

#[cfg(all(test, not(any(cortado_loom, cortado_shuttle))))]
mod tests {
    use super::*;

    #[test]
    fn bucket_is_one_cache_line() {
        assert_eq!((size_of::<Bucket>(), align_of::<Bucket>()), (64, 64));
    }

    #[test]
    fn word_keeps_the_handle_and_four_bits_of_the_hash() {
        for raw in [2, 3, 1 << 25, (1 << 26) - 1] {
            for bits in 0..16 {
                let word = Word::new(Handle::new(raw), bits);
                assert_eq!(word.handle().map(Handle::raw), Some(raw));
                assert!((0..16).all(|other| word.has_bits(other) == (other == bits)));
                assert!(!word.is_dying() && word.dying().is_dying() && !word.is_frozen());
                let frozen = word.dying().frozen();
                assert!(frozen.is_dying() && frozen.is_frozen() && frozen.has_bits(bits));
                assert_eq!((frozen.handle(), frozen.thawed()), (word.handle(), word.dying()));
            }
        }
        assert!(Word::EMPTY.handle().is_none() && Word::UNUSED.handle().is_none());
    }
}
