//! Write operations: probe, publish, replace, remove.

use std::{
    any::Any,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    ptr,
};

use super::{
    Hints, Table, Unlinked,
    bucket::{Bucket, Validated, Word},
    control::{Control, SLOTS},
    find::{EntryRef, Hit, SlotRef},
    fresh::SlotClaim,
    upper,
};
use crate::{
    reclaim::Guard,
    slab::Handle,
    util::{caught, drop_panic, for_all},
};

/// The result of [`Table::probe`].
#[derive(Debug)]
pub enum Probe<'g, T> {
    /// An entry matches.
    Found(Occupied<'g, T>),
    /// No entry matches.
    Absent(Vacant<'g, T>),
}

/// A matching entry that was in the bucket when it was probed.
#[derive(Debug)]
pub struct Occupied<'g, T> {
    table: &'g Table<T>,
    guard: &'g Guard,
    control: Control,
    hash: u64,
    word: Word,
    hit: Hit<'g, T>,
}

/// A bucket in which no entry matched when it was probed.
#[derive(Debug)]
pub struct Vacant<'g, T> {
    table: &'g Table<T>,
    guard: &'g Guard,
    bucket: &'g Bucket,
    control: Control,
    hash: u64,
    tag: u64,
    bits: u32,
    strangers: Strangers,
}

/// The handles of the entries in the tag's slots, none of which matches, in slot order, four in
/// each number.
///
/// Two numbers instead of a list, which would be copied through memory at each return.
#[derive(Clone, Copy, Debug, Default)]
struct Strangers {
    handles: (u128, u128),
    count: u32,
}

impl Strangers {
    #[inline]
    fn add(&mut self, handle: Handle) {
        let (low, high) = &mut self.handles;
        let four = if self.count < 4 { low } else { high };
        *four |= u128::from(handle.raw()) << (u32::BITS * (self.count % 4));
        self.count += 1;
    }

    /// Returns whether the tag's slots still hold these entries.
    #[inline]
    fn are_there(self, bucket: &Bucket, slots: impl Iterator<Item = usize>) -> bool {
        let (low, high) = self.handles;
        slots.zip(0..).all(|(slot, index)| {
            let four = if index < 4 { low } else { high };
            let handle = Handle::new((four >> (u32::BITS * (index % 4))) as u32);
            bucket.word(slot).handle() == Some(handle)
        })
    }
}

/// The result of [`Vacant::publish`].
#[must_use]
#[derive(Debug)]
pub enum Publish<'g, T> {
    /// The entry is in the table.
    Done(Hit<'g, T>),
    /// The entry is in the table, and duplicates were taken out that had been inserted unnoticed
    /// because the version wrapped. The panic is the first one of the caller's comparison; the
    /// caller resumes it when the entry is accounted for.
    Duplicates(Hit<'g, T>, Vec<Unlinked>, Option<Panic>),
    /// The bucket has changed: probe again.
    Changed,
    /// No slot is free.
    Full(Full<'g, T>),
}

/// A bucket without a free slot.
#[derive(Debug)]
pub struct Full<'g, T> {
    table: &'g Table<T>,
    guard: &'g Guard,
    bucket: &'g Bucket,
    control: Control,
    hash: u64,
}

/// The payload of a panic.
pub type Panic = Box<dyn Any + Send>;

impl<T> Table<T> {
    /// Searches for the entry that has this hash and matches, for a writer.
    ///
    /// Moves the bucket if a resize of the table has begun to move it.
    ///
    /// Calls `on_displaced` for each entry that was taken out by mistake because the version
    /// wrapped, or that was displaced when the table shrank. The caller accounts for it as for a
    /// victim.
    #[inline]
    pub fn probe<'g>(
        &'g self,
        guard: &'g Guard,
        hash: u64,
        matches: impl Fn(EntryRef<'g, T>) -> bool,
        mut on_displaced: impl FnMut(Unlinked),
    ) -> Probe<'g, T> {
        debug_assert!(guard.covers(self.part_of(hash)), "a guard of another part");
        let (tag, bits) = (Control::tag_of(hash), Word::bits_of(hash));
        let mut bucket = self.root(guard).of(upper(hash));
        'again: loop {
            let control = bucket.control();
            if !control.is_in_use() {
                bucket = self.bucket_in_use(guard, hash, &mut on_displaced);
                continue;
            }
            let mut strangers = Strangers::default();
            for slot in control.slots(tag) {
                let word = bucket.word(slot);
                let Some(handle) = word.handle() else { continue 'again };
                strangers.add(handle);
                if !word.has_bits(bits) {
                    continue;
                }
                let Validated::Holds(word, same) = bucket.validated(control, slot, tag, bits)
                else {
                    continue 'again;
                };
                if same != handle {
                    continue 'again;
                }
                if word.is_dying() {
                    if let Some(displaced) = self.free_dying(bucket, slot, word) {
                        on_displaced(displaced);
                    }
                    continue 'again;
                }
                let at = self.entry(guard, handle);
                if matches(at) {
                    let hit = Hit::new(at, bucket, slot);
                    return Probe::Found(Occupied { table: self, guard, control, hash, word, hit });
                }
            }
            return Probe::Absent(Vacant {
                table: self,
                guard,
                bucket,
                control,
                hash,
                tag,
                bits,
                strangers,
            });
        }
    }
}

impl<T> Table<T> {
    /// Removes the entry that matches, or one that replaces it concurrently. `on_displaced`: as for
    /// [`probe`](Self::probe).
    pub fn remove(
        &self,
        guard: &Guard,
        hash: u64,
        matches: impl Fn(EntryRef<'_, T>) -> bool,
        mut on_displaced: impl FnMut(Unlinked),
    ) -> Option<Unlinked> {
        loop {
            let Probe::Found(there) = self.probe(guard, hash, &matches, &mut on_displaced) else {
                return None;
            };
            let handle = there.get().handle;
            // Another thread may have removed exactly this entry, or the bucket has changed.
            let Some(out) = there.unlink() else { continue };
            if out.handle == handle || mutant!("version_bucket_believes") {
                return Some(out);
            }
            // A replacement has the same key. If the entry is another one, because the version
            // wrapped, its key shows it.
            let entry = self.owned(&out);
            match catch_unwind(AssertUnwindSafe(|| matches(entry))) {
                Ok(true) => return Some(out),
                Ok(false) => on_displaced(out),
                Err(panic) => {
                    caught(|| on_displaced(out));
                    resume_unwind(panic);
                }
            }
        }
    }

    /// Removes the entry that matches if `condition` holds for it, and no other entry. If the entry
    /// was replaced, `condition` is evaluated again. `on_displaced`: as for [`probe`](Self::probe).
    pub fn remove_if(
        &self,
        guard: &Guard,
        hash: u64,
        matches: impl Fn(EntryRef<'_, T>) -> bool,
        mut condition: impl FnMut(EntryRef<'_, T>) -> bool,
        mut on_displaced: impl FnMut(Unlinked),
    ) -> Option<Unlinked> {
        loop {
            let Probe::Found(there) = self.probe(guard, hash, &matches, &mut on_displaced) else {
                return None;
            };
            if !condition(there.get().at()) {
                return None;
            }
            if let Some(out) = there.remove(&mut on_displaced) {
                return Some(out);
            }
        }
    }

    /// Removes all entries. An entry that was inserted before the call is out of the table when the
    /// call returns; one that is inserted during the call may stay.
    ///
    /// `removed` receives them, all entries of a bucket even if it panics.
    pub fn clear(&self, guard: &Guard, removed: impl FnMut(Unlinked)) {
        self.take_all(guard, false, removed);
    }

    /// Like [`clear`](Self::clear), and invalidates earlier probes: what was probed before the call
    /// can be neither published nor replaced. A writer has to probe again, and then sees what
    /// happened before this call.
    pub fn renew(&self, guard: &Guard, removed: impl FnMut(Unlinked)) {
        self.take_all(guard, true, removed);
    }

    fn take_all(&self, guard: &Guard, renews: bool, mut removed: impl FnMut(Unlinked)) {
        let mut array = self.root(guard);
        loop {
            while let Some(next) = array.next(guard) {
                for index in 0..array.count() {
                    self.moved(guard, array, index, &mut removed);
                }
                array = next;
            }
            // A bucket that begins to move is visited again in the next array.
            let mut all = true;
            for index in 0..array.count() {
                match array.at(index).unpublish_all(renews) {
                    None => all = false,
                    Some((control, words)) => {
                        let bucket = array.at(index);
                        let words = words.into_iter().enumerate();
                        let entries = words.filter_map(|(slot, word)| {
                            self.taken(bucket, slot, control.tag(slot), word)
                        });
                        for_all(entries, &mut removed);
                    }
                }
            }
            if all {
                return;
            }
        }
    }

    /// Frees the slot of an entry that was removed in place; returns an entry that was taken out by
    /// mistake.
    fn free_dying(&self, bucket: &Bucket, slot: usize, word: Word) -> Option<Unlinked> {
        let (tag, word) = bucket.free_dying(slot, word)?;
        self.taken(bucket, slot, tag, word)
    }

    /// Returns the bucket of a hash, and puts it in use first if necessary.
    #[cold]
    fn bucket_in_use<'g>(
        &'g self,
        guard: &'g Guard,
        hash: u64,
        on_displaced: &mut impl FnMut(Unlinked),
    ) -> &'g Bucket {
        let mut array = self.root(guard);
        loop {
            let index = array.index(upper(hash));
            let bucket = array.at(index);
            let control = bucket.control();
            if control.is_in_use() {
                return bucket;
            }
            if control.is_frozen() {
                array = self.moved(guard, array, index, on_displaced);
            } else {
                bucket.init();
            }
        }
    }
}

impl<'g, T> Occupied<'g, T> {
    /// Returns the entry.
    pub fn get(&self) -> &Hit<'g, T> {
        &self.hit
    }

    /// Replaces this entry by another, and returns the old one.
    ///
    /// Returns `None` if this entry is no longer there: probe again.
    ///
    /// # Panics
    ///
    /// Panics if the new entry was prepared for another table or another hash, or is published.
    #[inline]
    pub fn replace<'t: 'g>(
        self,
        claim: &mut SlotClaim<'g, '_, 't, T>,
    ) -> Option<(Hit<'g, T>, Unlinked)> {
        claim.check(self.table, self.hash);
        let SlotRef { metadata, bucket, slot } = self.hit.place;
        let new = Word::new(claim.handle(), self.word.bits());
        // Linearization point. The slot has held the word since it was validated, because a handle
        // enters a slot once.
        if !bucket.change_word(slot, self.word, new) {
            return None;
        }
        let old = self.table.unlinked_of(bucket, slot, Control::tag_of(self.hash), self.word);
        let old = old.expect("the word of an entry");
        debug_assert_eq!(old.handle, metadata.handle);
        Some((claim.published(self.table, self.guard, bucket, slot), old))
    }

    /// Removes exactly this entry.
    ///
    /// Returns the entry, or `None` if it is no longer there. `on_displaced`: as for
    /// [`Table::probe`].
    pub fn remove(self, mut on_displaced: impl FnMut(Unlinked)) -> Option<Unlinked> {
        let SlotRef { bucket, slot, .. } = self.hit.place;
        // Linearization point.
        if !bucket.mark_dying(slot, self.word) {
            return None;
        }
        let out = self.table.unlinked_of(bucket, slot, Control::tag_of(self.hash), self.word);
        if let Some(displaced) = self.table.free_dying(bucket, slot, self.word) {
            on_displaced(displaced);
        }
        out
    }

    /// Unlinks whichever entry is in the slot by then: cheaper than [`remove`](Self::remove), for a
    /// victim.
    pub fn unlink(self) -> Option<Unlinked> {
        let SlotRef { bucket, slot, .. } = self.hit.place;
        let word = bucket.unpublish(self.control, slot)?;
        self.table.taken(bucket, slot, self.control.tag(slot), word)
    }
}

impl<'g, T> Vacant<'g, T> {
    /// Publishes an entry, unless the bucket has changed since it was probed. `hints` are stored in
    /// the bucket; `matches` compares the keys of two entries.
    ///
    /// # Panics
    ///
    /// Panics if the entry was prepared for another table or another hash, or is published.
    #[inline]
    pub fn publish<'t: 'g>(
        self,
        claim: &mut SlotClaim<'g, '_, 't, T>,
        hints: Hints,
        matches: impl Fn(&T, &T) -> bool,
    ) -> Publish<'g, T> {
        claim.check(self.table, self.hash);
        let word = Word::new(claim.handle(), self.bits);
        let free = |&slot: &usize| self.bucket.change_word(slot, Word::EMPTY, word);
        let Some(slot) = claim.slot_of(self.bucket, || self.control.slots(0).find(free)) else {
            let Self { table, guard, bucket, control, hash, .. } = self;
            return Publish::Full(Full { table, guard, bucket, control, hash });
        };
        if self.control.tag(slot) != 0 {
            // The probe is older than the claim.
            return Publish::Changed;
        }
        // This thread owns the slot, and the publication makes the hints visible.
        self.bucket.set_hints(slot, hints);
        // Linearization point. The control word is the one that was scanned, so nothing was
        // published in the bucket since, and no entry of this key is in it.
        let published = self.control.with(slot, self.tag);
        if !self.bucket.change_control(self.control, published) {
            return Publish::Changed;
        }
        let hit = claim.published(self.table, self.guard, self.bucket, slot);
        // Unless the version has wrapped since. But then one of the entries that the scan ruled out
        // has left its slot: its handle cannot return to it while this thread is pinned.
        let are_same = self.strangers.are_there(self.bucket, self.control.slots(self.tag));
        if are_same || mutant!("version_bucket_looks_once") {
            return Publish::Done(hit);
        }
        // Passes copies: a value whose address was passed to a function stays in memory.
        let Self { table, guard, bucket, control, hash, tag, bits, strangers } = self;
        let vacant = Self { table, guard, bucket, control, hash, tag, bits, strangers };
        match vacant.remove_duplicates(Hit { ..hit }, published, matches) {
            None => Publish::Done(hit),
            Some((duplicates, first)) => Publish::Duplicates(hit, duplicates, first),
        }
    }

    /// Removes entries that have the key of a new entry that was published after an outdated probe.
    ///
    /// The new entry stays; duplicates that were there when it was published are removed. Two
    /// inserts that do this at once may remove each other's entry: both then count as evicted, as
    /// any entry may be at any time, and no outdated entry is left. Returns the removed entries, or
    /// `None` if there are none and no comparison has panicked.
    #[cold]
    fn remove_duplicates(
        self,
        hit: Hit<'g, T>,
        published: Control,
        matches: impl Fn(&T, &T) -> bool,
    ) -> Option<(Vec<Unlinked>, Option<Panic>)> {
        let (mut duplicates, mut first) = (Vec::new(), None);
        let mut note = |panic| match &first {
            None => first = Some(panic),
            Some(_) => drop_panic(panic),
        };
        while let Some((bucket, slot, word)) =
            self.duplicate(&hit, published, &matches, &mut duplicates, &mut note)
        {
            if bucket.mark_dying(slot, word) {
                duplicates.extend(self.table.unlinked_of(bucket, slot, self.tag, word));
                duplicates.extend(self.table.free_dying(bucket, slot, word));
            }
        }
        // Entries that the scan ruled out may have left since.
        let is_any = !duplicates.is_empty() || first.is_some();
        is_any.then_some((duplicates, first))
    }

    /// Returns an entry that has the key of the new one and was there when that was published.
    /// `out` receives displaced entries.
    fn duplicate(
        &self,
        new: &Hit<'g, T>,
        published: Control,
        matches: &impl Fn(&T, &T) -> bool,
        out: &mut Vec<Unlinked>,
        note: &mut impl FnMut(Panic),
    ) -> Option<(&'g Bucket, usize, Word)> {
        let Self { table, guard, hash, tag, bits, .. } = *self;
        'again: loop {
            let bucket = table.bucket_in_use(guard, hash, &mut |entry| out.push(entry));
            let control = bucket.control();
            let is_first = ptr::eq(bucket, new.bucket);
            // The slot of the new entry, unless it has left.
            let mut slot_of_new = None;
            let mut other = None;
            for slot in control.slots(tag) {
                let (word, handle) = match bucket.validated(control, slot, tag, bits) {
                    Validated::Gone => continue,
                    Validated::Changed => continue 'again,
                    Validated::Holds(word, handle) => (word, handle),
                };
                if word.is_dying() {
                    continue;
                }
                let entry = table.entry(guard, handle);
                if handle == new.handle {
                    slot_of_new = Some(slot);
                } else if other.is_none() && !(is_first && slot == new.slot) {
                    // A comparison that panics counts as a match: evicting an entry of another key
                    // costs a miss, whereas a duplicate that stays would show an outdated value.
                    let is_key = catch_unwind(AssertUnwindSafe(|| matches(entry.entry, new.entry)));
                    let is_key = is_key.map_err(&mut *note).unwrap_or(true);
                    other = is_key.then_some((bucket, slot, word));
                }
            }
            let other = other?;
            // If the new entry is still there, the other one was there beside it. If it has left,
            // only an unchanged version shows that the other one is older: it may otherwise be a
            // newer entry, which has to stay.
            let is_beside = slot_of_new.is_some_and(|slot| {
                matches!(
                    bucket.validated(control, slot, tag, bits),
                    Validated::Holds(word, handle) if !word.is_dying() && handle == new.handle
                )
            });
            let is_older = is_first && bucket.control().has_version_of(published);
            return (is_beside || is_older).then_some(other);
        }
    }
}

impl<'g, T> Full<'g, T> {
    /// Returns the entries that were in the bucket when it was probed; `None` if it has changed.
    ///
    /// If all slots are claims of other threads, or no entry may be evicted, the caller has to give
    /// up: another probe finds the same for as long as those threads are stopped.
    pub fn residents(&self) -> Option<[Option<SlotRef<'g, T>>; SLOTS]> {
        let Self { table, guard, bucket, control, .. } = *self;
        let words: [Word; SLOTS] = std::array::from_fn(|slot| bucket.word(slot));
        // Acquire, in `control`: orders the second load of the words after it.
        if bucket.control() != control {
            return None;
        }
        let mut residents = [const { None }; SLOTS];
        for slot in control.taken() {
            let word = words[slot];
            // The version alone is not enough, because it wraps.
            let handle = word.handle().filter(|_| !word.is_dying() && bucket.word(slot) == word)?;
            let metadata = table.metadata(guard, handle);
            residents[slot] = Some(SlotRef { metadata, bucket, slot });
        }
        Some(residents)
    }

    /// Begins to double the table, unless it is being resized, and moves this bucket, unless it has
    /// changed. Returns whether the caller should probe again.
    ///
    /// Returns `false` if there is no memory, or if this bucket is already one of the next array,
    /// which must become the root before the table can grow further. `on_displaced`: as for
    /// [`Table::probe`].
    pub fn grow(&self, mut on_displaced: impl FnMut(Unlinked)) -> bool {
        let Self { table, guard, bucket, control, hash } = *self;
        let array = table.root(guard);
        if !ptr::eq(array.of(upper(hash)), bucket) {
            // If the bucket is of an array that was the root, it has moved.
            return bucket.control() != control;
        }
        if !table.grow(guard) {
            return false;
        }
        table.moved(guard, array, array.index(upper(hash)), &mut on_displaced);
        true
    }

    /// Unlinks whichever entry is in a resident's slot, unless the bucket has changed; returns it.
    pub fn evict(&self, resident: &SlotRef<'g, T>) -> Option<Unlinked> {
        let is_resident =
            ptr::eq(resident.bucket, self.bucket) && self.control.tag(resident.slot) != 0;
        if !is_resident {
            // A slot that was free may hold the claim of another thread by now.
            return None;
        }
        let word = self.bucket.unpublish(self.control, resident.slot)?;
        let tag = self.control.tag(resident.slot);
        self.table.taken(self.bucket, resident.slot, tag, word)
    }
}
