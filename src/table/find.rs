//! Lookup: of one entry, of an entry that is held, and of many at a time.
//!
//! A guard protects the values of all parts, of the part of one hash, or of none ([`Table::pin`],
//! [`Table::pin_part`], [`Table::pin_structure`]). A lookup compares the ten bits of a hash that
//! make up its part before it reads an entry, so it reads only entries that its guard protects.
//! Handles and [`Metadata`] are valid under any guard.

use std::{ops::Deref, ptr::NonNull};

use super::{
    Table,
    array::Array,
    bucket::{Bucket, Validated, Word},
    control::{Control, SLOTS},
    resize::has_moved,
    upper,
};
use crate::{
    reclaim::Guard,
    slab::{Cell, Handle, chunk::HANDLE_BITS, prefetch},
    sync::atomic::{AtomicU8, AtomicU64},
};

/// Concurrent lookups in [`Table::for_many`]: about as many cache misses as a core keeps in flight.
const AHEAD: usize = 16;

/// The metadata of an entry, stored beside its cell. It belongs to this entry for as long as the
/// guard lives, whichever part of the table the guard protects. The entry itself may be dropped
/// before.
pub struct Metadata<'g, T> {
    /// The entry's handle.
    pub handle: Handle,
    pub(super) cell: Cell<'g, T>,
}

/// An entry that is readable for as long as a guard lives.
pub struct EntryRef<'g, T> {
    /// The entry.
    pub entry: &'g T,
    pub(super) metadata: Metadata<'g, T>,
}

/// The slot of an entry that was found, with its metadata.
pub struct SlotRef<'g, T> {
    pub(super) metadata: Metadata<'g, T>,
    pub(super) bucket: &'g Bucket,
    pub(super) slot: usize,
}

/// Where an entry was seen: its handle and the number of its slot. A hint: [`Table::find_at`]
/// checks whether the entry is still there.
///
/// The default is the spot of no entry. A spot is meaningless for another table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Spot(u32);

/// An entry that was found, and its slot.
pub struct Hit<'g, T> {
    /// The entry.
    pub entry: &'g T,
    pub(super) place: SlotRef<'g, T>,
}

/// An entry with the guard that keeps it readable.
///
/// Not `Send`: the guard pins the current thread.
pub struct Held<'a, T> {
    entry: NonNull<T>,
    handle: Handle,
    /// Keeps the entry from being freed.
    guard: Guard,
    /// Outlives this: dropping the table frees all entries.
    table: &'a Table<T>,
}

/// The result of a search in one bucket.
enum Search<'g, R> {
    /// The caller's result for the entry, with the bucket and the slot.
    Found(R, &'g Bucket, usize),
    Absent,
    /// Undecided: the bucket is frozen or has moved.
    Frozen,
}

impl<T> Clone for Metadata<'_, T> {
    #[inline]
    fn clone(&self) -> Self {
        *self
    }
}
impl<T> Copy for Metadata<'_, T> {}

impl<'g, T> Metadata<'g, T> {
    /// Returns a number that identifies the entry. No other entry of this table has it while any
    /// guard lives that was created while this entry was in the table.
    #[inline]
    pub fn id(self) -> usize {
        // The lowest numbers are left for the callers.
        (self.handle.raw() as usize) << 2
    }

    /// Returns the byte beside the entry's cell, which the table does not use. A new entry finds
    /// the byte of the cell's previous entry.
    #[inline]
    pub fn byte(self) -> &'g AtomicU8 {
        self.cell.flags()
    }

    /// Returns the cost of the entry.
    #[inline]
    pub fn charge(self) -> u64 {
        self.cell.charge()
    }

    /// Returns the upper half of the entry's hash.
    #[inline]
    pub fn upper(self) -> u32 {
        self.cell.hash()
    }

    /// Returns whether the entry has this hash, as far as the table stores it: compares the upper
    /// half, which a lookup has not compared.
    #[inline]
    pub fn has_upper_of(self, hash: u64) -> bool {
        self.upper() == upper(hash)
    }

    /// Returns the two time words beside the entry's cell, if its chunk has them.
    #[inline]
    pub fn time_words(self) -> Option<&'g [AtomicU64; 2]> {
        self.cell.times()
    }
}

impl<T> std::fmt::Debug for Metadata<'_, T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Metadata").field("handle", &self.handle).finish_non_exhaustive()
    }
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
    /// Returns the entry's metadata.
    #[inline]
    pub fn metadata(self) -> Metadata<'g, T> {
        self.metadata
    }

    /// Returns the entry's [`id`](Metadata::id).
    #[inline]
    pub fn id(self) -> usize {
        self.metadata.id()
    }
}

impl<T> std::fmt::Debug for EntryRef<'_, T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.metadata.fmt(f)
    }
}

impl<T> Clone for SlotRef<'_, T> {
    #[inline]
    fn clone(&self) -> Self {
        *self
    }
}
impl<T> Copy for SlotRef<'_, T> {}

impl<T> std::fmt::Debug for SlotRef<'_, T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SlotRef")
            .field("metadata", &self.metadata)
            .field("slot", &self.slot)
            .finish()
    }
}

impl<'g, T> Deref for SlotRef<'g, T> {
    type Target = Metadata<'g, T>;

    #[inline]
    fn deref(&self) -> &Metadata<'g, T> {
        &self.metadata
    }
}

impl<'g, T> SlotRef<'g, T> {
    /// Returns the metadata of the entry.
    #[inline]
    pub fn metadata(&self) -> Metadata<'g, T> {
        self.metadata
    }

    /// Returns where the entry was found, for [`Table::find_at`].
    #[inline]
    pub fn spot(&self) -> Spot {
        Spot(self.handle.raw() | (self.slot as u32) << HANDLE_BITS)
    }

    /// Returns the access bits of the slot, which are those of another entry if this one has left
    /// the slot.
    #[inline]
    pub fn access(&self) -> u16 {
        self.bucket.access(self.slot)
    }

    /// Stores the access bits of the slot. A hint: bits that another thread stores in the same
    /// bucket concurrently may be lost.
    #[inline]
    pub fn set_access(&self, access: u16) {
        self.bucket.set_access(self.slot, access);
    }

    /// Stores the result of `update` on the access bits, like [`set_access`](Self::set_access),
    /// unless it is `None`; returns whether it was not.
    #[inline]
    pub fn update_access(&self, update: impl FnOnce(u16) -> Option<u16>) -> bool {
        self.bucket.update_access(self.slot, update)
    }

    /// Returns the class of the slot, which is that of another entry if this one has left the slot.
    #[inline]
    pub fn class(&self) -> u8 {
        self.bucket.class(self.slot)
    }

    /// Stores the class of the slot. A hint, like [`set_access`](Self::set_access).
    #[inline]
    pub fn set_class(&self, class: u8) {
        self.bucket.set_class(self.slot, class);
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
        f.debug_struct("Hit").field("place", &self.place).finish_non_exhaustive()
    }
}

impl<'g, T> Deref for Hit<'g, T> {
    type Target = SlotRef<'g, T>;

    #[inline]
    fn deref(&self) -> &SlotRef<'g, T> {
        &self.place
    }
}

impl<'g, T> Hit<'g, T> {
    pub(super) fn new(at: EntryRef<'g, T>, bucket: &'g Bucket, slot: usize) -> Self {
        Self { entry: at.entry, place: SlotRef { metadata: at.metadata, bucket, slot } }
    }

    /// Returns the entry.
    #[inline]
    pub fn at(&self) -> EntryRef<'g, T> {
        EntryRef { entry: self.entry, metadata: self.place.metadata }
    }
}

impl<T> Held<'_, T> {
    /// Returns the entry.
    #[inline]
    pub fn get(&self) -> EntryRef<'_, T> {
        let _ = &self.guard;
        #[cfg(any(cortado_loom, cortado_shuttle))]
        self.guard.check_readable(self.table.key_of(self.handle));
        // SAFETY: `find` has loaded the handle from a slot by an Acquire.
        let cell = unsafe { self.table.slab.cell(self.handle) };
        // SAFETY: the entry was found under the guard, in a table that outlives this.
        let entry = unsafe { self.entry.as_ref() };
        EntryRef { entry, metadata: Metadata { handle: self.handle, cell } }
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
    /// Returns the entry that has this hash and matches. The guard must cover the
    /// [part](Self::pin_part) of the hash.
    ///
    /// The entry was in the table at some moment of the call; `None` means that at some moment no
    /// such entry was. Writes nothing, and retries only if the slot that it reads has changed.
    #[inline]
    pub fn find<'g>(
        &'g self,
        guard: &'g Guard,
        hash: u64,
        matches: impl Fn(EntryRef<'g, T>) -> bool + Copy,
    ) -> Option<Hit<'g, T>> {
        debug_assert!(guard.covers(self.part_of(hash)), "a guard of another part");
        let array = self.root(guard);
        let examine = |handle| Some(self.entry(guard, handle)).filter(|entry| matches(*entry));
        match Self::search_in(array.of(upper(hash)), hash, &examine) {
            Search::Found(at, bucket, slot) => Some(Hit::new(at, bucket, slot)),
            Search::Absent => None,
            Search::Frozen => self.find_moved(guard, array, hash, matches),
        }
    }

    /// Like [`find`](Self::find), where the bucket in `array` was found frozen.
    ///
    /// Takes `matches` and not the closure around it: a reference to the closure would keep its
    /// captures in memory on the hot path.
    #[cold]
    fn find_moved<'g>(
        &'g self,
        guard: &'g Guard,
        array: &'g Array,
        hash: u64,
        matches: impl Fn(EntryRef<'g, T>) -> bool,
    ) -> Option<Hit<'g, T>> {
        let examine = |handle| Some(self.entry(guard, handle)).filter(|entry| matches(*entry));
        let (at, bucket, slot) = self.search_moved(guard, array, hash, &examine)?;
        Some(Hit::new(at, bucket, slot))
    }

    /// Like [`find`](Self::find), but compares metadata only, under any guard of the table.
    #[inline]
    pub fn find_slot<'g>(
        &'g self,
        guard: &'g Guard,
        hash: u64,
        matches: impl Fn(Metadata<'g, T>) -> bool,
    ) -> Option<SlotRef<'g, T>> {
        let array = self.root(guard);
        let examine = |handle| Some(self.metadata(guard, handle)).filter(|found| matches(*found));
        let (metadata, bucket, slot) = match Self::search_in(array.of(upper(hash)), hash, &examine)
        {
            Search::Found(found, bucket, slot) => (found, bucket, slot),
            Search::Absent => return None,
            Search::Frozen => self.search_moved(guard, array, hash, &examine)?,
        };
        Some(SlotRef { metadata, bucket, slot })
    }

    /// Prefetches what [`find_at`](Self::find_at) and a read of the entry's flags will need.
    #[inline]
    pub fn prefetch_at(&self, hash: u64, spot: Spot) {
        self.prefetch(hash);
        if spot != Spot::default() {
            // SAFETY: a spot contains the handle of an entry that was found by an Acquire, by this
            // thread or by the one that it got the spot from.
            unsafe { self.slab.cell(Handle::new(spot.0)) }.prefetch_flags();
        }
    }

    /// Returns the slot of the entry of this hash that was seen in a spot, if it is still there and
    /// the bucket is not being moved.
    #[inline]
    pub fn find_at<'g>(
        &'g self,
        guard: &'g Guard,
        hash: u64,
        spot: Spot,
    ) -> Option<SlotRef<'g, T>> {
        let slot = (spot.0 >> HANDLE_BITS) as usize & (SLOTS - 1);
        let bucket = self.root(guard).of(upper(hash));
        let word = bucket.word(slot);
        let handle = word.handle().filter(|handle| handle.raw() == spot.0 & Handle::MASK)?;
        let control = bucket.control();
        // As in `validated`: the same word before and after.
        let is_there = control.is_in_use()
            && control.tag(slot) == Control::tag_of(hash)
            && bucket.word(slot) == word
            && !word.is_dying();
        is_there.then(|| SlotRef { metadata: self.metadata(guard, handle), bucket, slot })
    }

    /// Calls `examine` for the entries of a bucket in use that may have the hash, until it returns
    /// `Some`; returns the result and the entry's slot.
    #[inline]
    fn search_in<'g, R>(
        bucket: &'g Bucket,
        hash: u64,
        examine: &impl Fn(Handle) -> Option<R>,
    ) -> Search<'g, R> {
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
                        if !word.is_dying()
                            && let Some(found) = examine(handle)
                        {
                            return Search::Found(found, bucket, slot);
                        }
                    }
                }
            }
            return Search::Absent;
        }
    }

    /// Searches for an entry whose bucket in `array` was found frozen.
    #[cold]
    fn search_moved<'g, R>(
        &'g self,
        guard: &'g Guard,
        mut array: &'g Array,
        hash: u64,
        examine: &impl Fn(Handle) -> Option<R>,
    ) -> Option<(R, &'g Bucket, usize)> {
        let (tag, bits) = (Control::tag_of(hash), Word::bits_of(hash));
        loop {
            let index = array.index(upper(hash));
            let next = array.next(guard).expect("a frozen bucket has a next array");
            if !has_moved(array, next, index) || mutant!("resize_reads_moved") {
                // The entries that the bucket shows were in the table, under the guard, before it
                // moved.
                let bucket = array.at(index);
                return bucket.control().slots(tag).find_map(|slot| {
                    let word = bucket.word(slot);
                    let handle = word.handle().filter(|_| word.has_bits(bits))?;
                    let found = if word.is_dying() { None } else { examine(handle) };
                    Some((found?, bucket, slot))
                });
            }
            match Self::search_in(next.of(upper(hash)), hash, examine) {
                Search::Found(found, bucket, slot) => return Some((found, bucket, slot)),
                Search::Absent => return None,
                Search::Frozen => array = next,
            }
        }
    }

    /// Calls `look_up` once for each hash, in order, with the index of the hash. Buckets and
    /// entries are prefetched.
    pub fn for_many(&self, guard: &Guard, hashes: &[u64], mut look_up: impl FnMut(usize, u64)) {
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
                    // SAFETY: the word was read by an Acquire. The cell is not read.
                    prefetch(unsafe { self.slab.cell(handle) }.address());
                }
            }
            for (index, &hash) in (chunk * AHEAD..).zip(hashes) {
                look_up(index, hash);
            }
        }
    }

    /// Keeps the result of `find` readable for as long as the returned value lives. The guard must
    /// cover the part of that entry.
    #[inline]
    pub fn hold<'a>(
        &'a self,
        guard: Guard,
        find: impl for<'g> FnOnce(&'g &'a Self, &'g Guard) -> Option<EntryRef<'g, T>>,
    ) -> Option<Held<'a, T>> {
        // The result of `find` is valid for any lifetime of this guard and this table. (The
        // reference to a reference says that the table outlives the guard.)
        let EntryRef { entry, metadata } = find(&self, &guard)?;
        Some(Held { entry: NonNull::from(entry), handle: metadata.handle, guard, table: self })
    }
}
