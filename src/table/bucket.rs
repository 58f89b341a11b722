//! Buckets: one cache line with a control word, eight entry words, and what readers note.

use super::{
    Hints,
    control::{Control, SLOTS, TAG_BITS},
    ranking::BucketHints,
};
use crate::{
    slab::Handle,
    sync::atomic::{AtomicU32, AtomicU64, Ordering::*},
};

/// Bits of an entry word beside the handle's 26.
const FROZEN: u32 = 1 << 26;
const DYING: u32 = 1 << 27;
const HASH_SHIFT: u32 = 28;

/// One cache line of the table.
#[repr(C, align(64))]
pub struct Bucket {
    control: AtomicU64,
    words: [AtomicU32; SLOTS],
    /// What readers note of the entry in each slot, 16 bits a slot. A hint: a reader that was stopped may write to a slot
    /// that has another entry by then, and takes back what other threads have written to its neighbours concurrently.
    access: [AtomicU64; 2],
    /// What the policy wants to know of the entry in each slot, to choose from a line at a time, 8 bits a slot. A hint,
    /// too.
    class: AtomicU64,
}

/// What a slot holds: nothing yet, nothing, or an entry's handle, with four bits of its hash.
///
/// ```text
/// bits  0..26   handle; 0: the bucket is not in use yet; 1: empty
/// bit   26      FROZEN: it changes no more, for its bucket is being moved
/// bit   27      DYING: removed in place, only the slot is still to be freed
/// bits 28..32   the four bits of the hash above those of the tag
/// ```
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Word(u32);

/// What [`Bucket::validated`] found.
pub enum Validated {
    /// The entry was published at one instant of the call.
    Holds(Word, Handle),
    /// The slot was empty, or holds an entry of another hash: what has the tag and the hash has left.
    Gone,
    /// The slot changed during the call: look at the bucket again.
    Changed,
}

impl Word {
    /// A slot of zeroed memory. It differs from [`Self::EMPTY`], for a slow resizer fills only slots
    /// that no thread has filled, and must not fill one that was filled and emptied since.
    pub const UNUSED: Self = Self(0);
    /// A free slot.
    pub const EMPTY: Self = Self(1);

    /// Makes the word of an entry; `bits` are four bits of its hash.
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

    /// Returns the four bits of a hash that a word keeps.
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

    /// Returns whether the entry was removed in place and only its slot is still to be freed.
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

    /// Returns the word as it goes into the next array.
    #[must_use]
    pub fn thawed(self) -> Self {
        let lost = if mutant!("resize_dying_moves") { DYING } else { 0 };
        Self(self.0 & !(FROZEN | lost))
    }
}

impl Bucket {
    /// Makes what zeroed memory is: a bucket that is not in use.
    #[cfg(any(cortado_loom, cortado_shuttle))]
    pub fn unused() -> Self {
        Self {
            control: AtomicU64::new(Control::UNUSED.0),
            words: std::array::from_fn(|_| AtomicU32::new(Word::UNUSED.0)),
            access: std::array::from_fn(|_| AtomicU64::new(0)),
            class: AtomicU64::new(0),
        }
    }

    /// Puts a bucket of zeroed memory in use, unless another thread has.
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
        // Acquire: pairs with the Release of every change of the word; seeing a slot published means
        // seeing its word.
        Control(self.control.load(Acquire))
    }

    /// Changes the control word if it still is `from`.
    #[inline]
    pub fn change_control(&self, from: Control, to: Control) -> bool {
        // AcqRel: Release pairs with the Acquire in `control`, so that a published slot shows its word;
        // Acquire orders what follows, the emptying of an unpublished slot, after it.
        let order = ordering!(AcqRel, mutant("table_relaxed_publish") => Relaxed);
        // Relaxed on failure: the caller loads the word again.
        self.control.compare_exchange(from.0, to.0, order, Relaxed).is_ok()
    }

    /// Loads the word of a slot.
    #[inline]
    pub fn word(&self, slot: usize) -> Word {
        // Acquire: pairs with the Release of the CAS that put the handle there, so that the entry's
        // content is seen; orders the loads that validate it after this one.
        let order = ordering!(Acquire, mutant("table_relaxed_word") => Relaxed);
        Word(self.words[slot].load(order))
    }

    /// Changes the word of a slot if it still is `from`.
    #[inline]
    pub fn change_word(&self, slot: usize, from: Word, to: Word) -> bool {
        // AcqRel: Release publishes the entry's content to the Acquire in `word`; Acquire makes the entry
        // that came out readable for the thread that retires it.
        // Relaxed on failure: the caller looks again.
        self.words[slot].compare_exchange(from.0, to.0, AcqRel, Relaxed).is_ok()
    }

    /// Marks the entry of a word as removed; returns whether this call did.
    pub fn mark_dying(&self, slot: usize, word: Word) -> bool {
        self.change_word(slot, word, word.dying())
    }

    /// Empties a slot that the caller has claimed and not published.
    pub fn withdraw(&self, slot: usize) {
        // Release: pairs with the CAS that claims the slot next; no other thread may change it.
        self.words[slot].store(Word::EMPTY.0, Release);
    }

    /// Loads the entry of a slot that `control` shows with `tag`, if it was published at one instant
    /// after both loads and has these four bits of the hash.
    ///
    /// An entry is read only after this check: what is claimed and not yet published belongs to its
    /// inserter alone.
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
        // Relaxed: the Acquire of the load above orders this one after it. The same word before and after
        // `now` means that it was there at `now`: a handle enters a slot once, and cannot come again while
        // the caller is pinned.
        let is_same = self.words[slot].load(Relaxed) == word.0;
        // `control` was of a bucket in use. That nothing changed is the common case, and one comparison.
        let is_there = now == control || (now.tag(slot) == tag && !now.is_frozen());
        if is_same && is_there { Validated::Holds(word, handle) } else { Validated::Changed }
    }

    /// Stores what the policy keeps of an entry. A hint, for another thread's may come later.
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

    /// Stores what `update` makes of the access bits of a slot, unless that is nothing; returns whether it was something.
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
        let others = self.class.load(Relaxed) & !(u64::from(u8::MAX) << shift); // Relaxed: as above.
        self.class.store(others | u64::from(class) << shift, Relaxed); // Relaxed: as above.
    }

    /// Returns the hints of all slots.
    #[inline]
    pub fn hints(&self) -> BucketHints {
        // Relaxed, all: as above.
        let access = [self.access[0].load(Relaxed), self.access[1].load(Relaxed)];
        BucketHints { access, class: self.class.load(Relaxed) }
    }

    /// Stops every change of the bucket; who returns from it sees its last content.
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

    /// Takes a published slot out of a bucket whose control word still is `control`, and empties it;
    /// returns what was in it.
    ///
    /// That need not be what the caller has seen there: a replacement may have come in between, or the
    /// version has wrapped and the slot has another owner.
    #[inline]
    pub fn unpublish(&self, control: Control, slot: usize) -> Option<Word> {
        if !self.change_control(control, control.without(slot)) {
            return None;
        }
        // Before the slot is free: it is not to be ranked.
        self.set_class(slot, 0);
        if mutant!("table_take_by_store") {
            let word = self.word(slot);
            self.withdraw(slot);
            return Some(word);
        }
        // A swap and not a store: a replacement that validated before may come in between, and then it is the
        // newer entry that leaves.
        // AcqRel: Acquire makes the entry readable for the thread that retires it; Release shows the slot given
        // up to the next claim.
        Some(Word(self.words[slot].swap(Word::EMPTY.0, AcqRel)))
    }

    /// Takes all published slots out; returns what was in them, and the control word that showed it, or `None` if the
    /// bucket is frozen. Where it `renews`, whoever has read the bucket before does not publish in it.
    pub fn unpublish_all(&self, renews: bool) -> Option<(Control, [Word; SLOTS])> {
        loop {
            let control = self.control();
            let mut words = [Word::EMPTY; SLOTS];
            if control.is_frozen() {
                return None;
            }
            // Nobody publishes in one that is not in use.
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
    /// Returns what it has taken out by mistake: tag and word of another entry, if the version wrapped while
    /// this thread was stopped.
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
