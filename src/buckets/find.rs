//! Lookup.

use super::{
    Table,
    array::Array,
    bucket::{Bucket, Validated, Word},
    control::Control,
    resize::has_moved,
    upper,
};
use crate::{
    reclaim::Guard,
    slab::Handle,
    sync::atomic::{AtomicU8, AtomicU16},
};

/// An entry that was found, and where.
#[derive(Debug)]
pub struct Hit<'g, T> {
    /// The entry.
    pub entry: &'g T,
    /// Its handle.
    pub handle: Handle,
    pub(super) bucket: &'g Bucket,
    pub(super) slot: usize,
}

/// What a look into one bucket found.
enum Search<'g, T> {
    Found(Hit<'g, T>),
    Absent,
    /// Nothing is decided: the bucket is frozen or has moved.
    Frozen,
}

impl<'g, T> Hit<'g, T> {
    /// Returns the access bits of the slot: those of another entry if this one has left since.
    #[inline]
    pub fn access(&self) -> &'g AtomicU16 {
        &self.bucket.access[self.slot & 7]
    }

    /// Returns the class of the slot; the same holds.
    #[inline]
    pub fn class(&self) -> &'g AtomicU8 {
        &self.bucket.class[self.slot & 7]
    }
}

impl<T> Table<T> {
    /// Returns the entry that has this hash and matches.
    ///
    /// It was in the table at some moment of the call; `None` means that at some moment no such
    /// entry was. Writes nothing, and repeats itself only if the very slot it reads is changed.
    #[inline]
    pub fn find<'g>(
        &'g self,
        guard: &'g Guard,
        hash: u64,
        matches: impl Fn(&T) -> bool,
    ) -> Option<Hit<'g, T>> {
        let array = self.root(guard);
        match self.find_in(guard, array.of(upper(hash)), hash, &matches) {
            Search::Found(hit) => Some(hit),
            Search::Absent => None,
            Search::Frozen => self.find_moved(guard, array, hash, &matches),
        }
    }

    /// Looks into a bucket that is in use.
    #[inline]
    fn find_in<'g>(
        &'g self,
        guard: &'g Guard,
        bucket: &'g Bucket,
        hash: u64,
        matches: &impl Fn(&T) -> bool,
    ) -> Search<'g, T> {
        let (tag, bits) = (Control::tag_of(hash), Word::bits_of(hash));
        'again: loop {
            let control = bucket.control();
            if control.is_frozen() {
                return Search::Frozen;
            }
            for slot in control.slots(tag) {
                match bucket.validated(control, slot, tag, bits) {
                    Validated::Gone => {}
                    Validated::Changed => continue 'again,
                    Validated::Holds(word, handle) => {
                        if let Some(entry) = self.alive(guard, word, handle)
                            && matches(entry)
                        {
                            return Search::Found(Hit { entry, handle, bucket, slot });
                        }
                    }
                }
            }
            return Search::Absent;
        }
    }

    /// Looks for an entry whose bucket in `array` was found frozen.
    #[cold]
    fn find_moved<'g>(
        &'g self,
        guard: &'g Guard,
        mut array: &'g Array,
        hash: u64,
        matches: &impl Fn(&T) -> bool,
    ) -> Option<Hit<'g, T>> {
        let (tag, bits) = (Control::tag_of(hash), Word::bits_of(hash));
        loop {
            let index = array.index(upper(hash));
            let next = array.next(guard).expect("a frozen bucket has a next array");
            if !has_moved(array, next, index) || cfg!(cortado_mutant = "resize_reads_moved") {
                // What the bucket shows was in the table when it had not moved, under the guard.
                let bucket = array.at(index);
                return bucket.control().slots(tag).find_map(|slot| {
                    let word = bucket.word(slot);
                    let handle = word.handle().filter(|_| word.has_bits(bits))?;
                    let entry = self.alive(guard, word, handle)?;
                    matches(entry).then_some(Hit { entry, handle, bucket, slot })
                });
            }
            match self.find_in(guard, next.of(upper(hash)), hash, matches) {
                Search::Found(hit) => return Some(hit),
                Search::Absent => return None,
                Search::Frozen => array = next,
            }
        }
    }

    /// Returns the entry of a validated word, unless it was removed in place.
    #[inline]
    pub(super) fn alive<'g>(
        &'g self,
        guard: &'g Guard,
        word: Word,
        handle: Handle,
    ) -> Option<&'g T> {
        (!word.is_dying()).then(|| self.entry(guard, handle))
    }
}
