//! Lookup.

use super::{
    Table,
    bucket::{Bucket, Validated, Word},
    control::Control,
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
        let tag = Control::tag_of(hash);
        let (bucket, bits) = self.locate(hash);
        'again: loop {
            let control = bucket.control();
            for slot in control.slots(tag) {
                match bucket.validated(control, slot, tag, bits) {
                    Validated::Gone => {}
                    Validated::Changed => continue 'again,
                    Validated::Holds(word, handle) => {
                        if let Some(entry) = self.alive(guard, word, handle)
                            && matches(entry)
                        {
                            return Some(Hit { entry, handle, bucket, slot });
                        }
                    }
                }
            }
            return None;
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
