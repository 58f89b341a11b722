//! Lookup: one by one, held, and many at a time.

use std::{ops::Deref, ptr::NonNull};

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
    slab::{Cell, Handle, prefetch},
    sync::atomic::{AtomicU8, AtomicU64},
};

/// Lookups under way at once in [`Table::find_many`]: about as many misses of the cache as a core keeps in flight.
const AHEAD: usize = 16;

/// An entry that is readable for as long as a guard lives.
pub struct EntryRef<'g, T> {
    /// The entry.
    pub entry: &'g T,
    /// Its handle.
    pub handle: Handle,
    pub(super) cell: Cell<'g, T>,
}

/// An entry that was found, and where.
pub struct Hit<'g, T> {
    pub(super) at: EntryRef<'g, T>,
    pub(super) bucket: &'g Bucket,
    pub(super) slot: usize,
}

/// An entry that is kept readable by the guard that this holds.
///
/// Not `Send`: the guard pins this thread.
pub struct Held<'a, T> {
    entry: NonNull<T>,
    handle: Handle,
    /// Keeps the entry from being freed.
    guard: Guard,
    /// Its drop frees all.
    table: &'a Table<T>,
}

/// What a look into one bucket found.
enum Search<'g, T> {
    Found(Hit<'g, T>),
    Absent,
    /// Nothing is decided: the bucket is frozen or has moved.
    Frozen,
}

impl<T> Clone for EntryRef<'_, T> {
    #[inline]
    fn clone(&self) -> Self {
        *self
    }
}
impl<T> Copy for EntryRef<'_, T> {}

impl<T> Deref for EntryRef<'_, T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        self.entry
    }
}

impl<'g, T> EntryRef<'g, T> {
    /// Returns a number that no other entry of this table has, as long as a guard lives that was there while this one was.
    #[inline]
    pub fn id(self) -> usize {
        // The lowest numbers stay free for its users.
        (self.handle.raw() as usize) << 2
    }

    /// Returns the byte beside the entry's cell, which the table does not use. A new entry finds that of the last
    /// tenant.
    #[inline]
    pub fn byte(self) -> &'g AtomicU8 {
        self.cell.flags()
    }

    /// Returns what the entry costs.
    #[inline]
    pub fn charge(self) -> u64 {
        self.cell.charge()
    }

    /// Returns the upper half of the entry's hash.
    #[inline]
    pub fn upper(self) -> u32 {
        self.cell.hash()
    }

    /// Returns whether the entry has this hash, as far as the table knows it: beside what a lookup has compared, its
    /// upper half.
    #[inline]
    pub fn has_upper_of(self, hash: u64) -> bool {
        self.upper() == upper(hash)
    }

    /// Returns the two words for times beside the entry's cell, if its chunk has them.
    #[inline]
    pub fn time_words(self) -> Option<&'g [AtomicU64; 2]> {
        self.cell.times()
    }
}

impl<T> std::fmt::Debug for EntryRef<'_, T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EntryRef").field("handle", &self.handle).finish_non_exhaustive()
    }
}

impl<T> Clone for Hit<'_, T> {
    #[inline]
    fn clone(&self) -> Self {
        *self
    }
}
impl<T> Copy for Hit<'_, T> {}

impl<T> std::fmt::Debug for Hit<'_, T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Hit").field("at", &self.at).field("slot", &self.slot).finish()
    }
}

impl<'g, T> Deref for Hit<'g, T> {
    type Target = EntryRef<'g, T>;

    #[inline]
    fn deref(&self) -> &EntryRef<'g, T> {
        &self.at
    }
}

impl<'g, T> Hit<'g, T> {
    /// Returns the entry.
    #[inline]
    pub fn at(&self) -> EntryRef<'g, T> {
        self.at
    }

    /// Returns the access bits of the slot: those of another entry if this one has left since.
    #[inline]
    pub fn access(&self) -> u16 {
        self.bucket.access(self.slot)
    }

    /// Stores the access bits of the slot. A hint: those that another thread stores in its bucket at the same time may be
    /// lost.
    #[inline]
    pub fn set_access(&self, access: u16) {
        self.bucket.set_access(self.slot, access);
    }

    /// The same for what `update` makes of the access bits, unless that is nothing; returns whether it was something.
    #[inline]
    pub fn update_access(&self, update: impl FnOnce(u16) -> Option<u16>) -> bool {
        self.bucket.update_access(self.slot, update)
    }

    /// Returns the class of the slot; the same holds.
    #[inline]
    pub fn class(&self) -> u8 {
        self.bucket.class(self.slot)
    }

    /// Stores the class of the slot, as [`set_access`](Self::set_access) does.
    #[inline]
    pub fn set_class(&self, class: u8) {
        self.bucket.set_class(self.slot, class);
    }
}

impl<T> Held<'_, T> {
    /// Returns the entry.
    #[inline]
    pub fn get(&self) -> EntryRef<'_, T> {
        let _ = &self.guard;
        #[cfg(any(cortado_loom, cortado_shuttle))]
        self.guard.check_readable(self.table.key_of(self.handle));
        // SAFETY: `find` has found it in a slot, by an Acquire.
        let cell = unsafe { self.table.slab.cell(self.handle) };
        // SAFETY: the entry was found under the guard, in a table that outlives this.
        EntryRef { entry: unsafe { self.entry.as_ref() }, handle: self.handle, cell }
    }
}

impl<T> Deref for Held<'_, T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        self.get().entry
    }
}

impl<T> std::fmt::Debug for Held<'_, T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Held").field("handle", &self.handle).finish_non_exhaustive()
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
        matches: impl Fn(EntryRef<'g, T>) -> bool,
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
        matches: &impl Fn(EntryRef<'g, T>) -> bool,
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
                            return Search::Found(Hit { at: entry, bucket, slot });
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
        matches: &impl Fn(EntryRef<'g, T>) -> bool,
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
                    matches(entry).then_some(Hit { at: entry, bucket, slot })
                });
            }
            match self.find_in(guard, next.of(upper(hash)), hash, matches) {
                Search::Found(hit) => return Some(hit),
                Search::Absent => return None,
                Search::Frozen => array = next,
            }
        }
    }

    /// Looks up many hashes, and fetches buckets and entries ahead of their use.
    ///
    /// Calls `found` once for each hash, in order, with the index of the hash.
    pub fn find_many<'g>(
        &'g self,
        guard: &'g Guard,
        hashes: &[u64],
        matches: impl Fn(usize, EntryRef<'g, T>) -> bool,
        mut found: impl FnMut(usize, Option<Hit<'g, T>>),
    ) {
        for (chunk, hashes) in hashes.chunks(AHEAD).enumerate() {
            let array = self.root(guard);
            for &hash in hashes {
                prefetch(array.of(upper(hash)));
            }
            for &hash in hashes {
                let bucket = array.of(upper(hash));
                if let Some(slot) = bucket.control().slots(Control::tag_of(hash)).next()
                    && let Some(handle) = bucket.word(slot).handle()
                {
                    // SAFETY: the word was read by an Acquire. Nothing is read of the cell.
                    prefetch(unsafe { self.slab.cell(handle) }.address());
                }
            }
            for (index, &hash) in (chunk * AHEAD..).zip(hashes) {
                found(index, self.find(guard, hash, |entry| matches(index, entry)));
            }
        }
    }

    /// Keeps what `find` returns readable for as long as the result lives.
    #[inline]
    pub fn hold<'a>(
        &'a self,
        guard: Guard,
        find: impl for<'g> FnOnce(&'g &'a Self, &'g Guard) -> Option<EntryRef<'g, T>>,
    ) -> Option<Held<'a, T>> {
        // What `find` returns is good for any lifetime of this guard and this table. (The reference to a reference
        // says that the table outlives the guard.)
        let EntryRef { entry, handle, .. } = find(&self, &guard)?;
        Some(Held { entry: NonNull::from(entry), handle, guard, table: self })
    }

    /// Returns the entry of a validated word, unless it was removed in place.
    #[inline]
    pub(super) fn alive<'g>(
        &'g self,
        guard: &'g Guard,
        word: Word,
        handle: Handle,
    ) -> Option<EntryRef<'g, T>> {
        (!word.is_dying()).then(|| self.entry(guard, handle))
    }
}
