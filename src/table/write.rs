//! Writing: claim and publish, replace, unlink.

use std::{marker::PhantomData, mem::MaybeUninit, ptr::NonNull};

use super::{
    Host, LANES, Table,
    bucket::{Bucket, Buckets, Validated, Word, entry_ref},
    find::alive,
    meta::Meta,
};
use crate::reclaim::{Guard, limbo::Unlinked};

/// What [`Table::upsert`] did.
#[derive(Debug)]
pub enum Upsert<'g, T> {
    /// The entry is in the table, and no entry of its key was.
    Inserted(&'g T),
    /// The entry has taken the place of `old`.
    Replaced {
        /// The entry that is in the table now.
        new: &'g T,
        /// The entry that was.
        old: Unlinked<T>,
    },
    /// The caller's `permit` said no.
    Refused(Box<T>),
    /// The bucket was full and the host kept its residents.
    Full(Box<T>),
}

impl<T> Table<T> {
    /// Inserts an entry, or replaces the one that matches it (resident first, newcomer second).
    ///
    /// `permit` is asked before either, with the entry to be replaced, if any, and the new one;
    /// it may be asked again when others change the bucket. The entry is visible to everybody
    /// when the call returns [`Upsert::Inserted`] or [`Upsert::Replaced`], and to nobody, ever,
    /// when it comes back.
    pub fn upsert<'g>(
        &'g self,
        guard: &'g Guard,
        hash: u64,
        entry: Box<T>,
        host: &impl Host<T>,
        matches: impl Fn(&T, &T) -> bool,
        mut permit: impl FnMut(Option<&T>, &T) -> bool,
    ) -> Upsert<'g, T> {
        self.help_migration(guard, host, HELP_UNITS);
        let tag = Meta::tag_of(hash);
        let mut claim = Claim::new(self, guard, entry);
        let mut array = self.root(guard);
        loop {
            let (index, upper) = array.locate(hash);
            let bucket = array.at(index);
            let meta = bucket.meta();
            if meta.is_frozen() {
                claim.withdraw();
                array = self.migrated(guard, array, index, host);
                continue;
            }
            if !meta.is_live() {
                bucket.init();
                continue;
            }
            let new = Word::new(claim.entry, upper);
            match scan(guard, bucket, meta, tag, &|old| matches(old, claim.get())) {
                Scan::Changed => continue,
                Scan::Found { lane, word, entry: old } => {
                    if !permit(Some(old), claim.get()) {
                        return Upsert::Refused(claim.into_box());
                    }
                    // Linearizes here. The slot has held `word` since it was validated, because
                    // an entry enters a slot once.
                    if bucket.change_slot(lane, word, new) {
                        claim.withdraw();
                        let new = claim.published();
                        let old = word.entry().expect("the scan found an entry");
                        // SAFETY: entries come from `Box::into_raw`; the exchange took this one
                        // out of its only slot, so no one finds it, and only we know that.
                        return Upsert::Replaced { new, old: unsafe { Unlinked::new(old) } };
                    }
                    continue;
                }
                Scan::Absent => {}
            }
            if claim.place.is_none() {
                if !permit(None, claim.get()) {
                    return Upsert::Refused(claim.into_box());
                }
                if !claim.take_free(bucket, meta, new) {
                    match self.make_slot(guard, array, index, meta, host, claim.get()) {
                        Slot::Freed => continue,
                        Slot::Kept => return Upsert::Full(claim.into_box()),
                    }
                }
            }
            let (_, lane) = claim.place.expect("claimed above");
            // Linearizes here. The word is the one that was scanned, so nothing was published in
            // the bucket since, and no entry of this key is in it.
            if bucket.change_meta(meta, meta.with(lane, tag)) {
                return Upsert::Inserted(claim.published());
            }
        }
    }

    /// Removes the entry that matches, or one that takes its place at that very moment.
    pub fn remove(
        &self,
        guard: &Guard,
        hash: u64,
        host: &impl Host<T>,
        matches: impl Fn(&T) -> bool,
    ) -> Option<Unlinked<T>> {
        let tag = Meta::tag_of(hash);
        let mut array = self.root(guard);
        loop {
            let (index, _) = array.locate(hash);
            let bucket = array.at(index);
            let meta = bucket.meta();
            if meta.is_frozen() {
                array = self.migrated(guard, array, index, host);
                continue;
            }
            match scan(guard, bucket, meta, tag, &matches) {
                Scan::Changed => {}
                Scan::Absent => return None,
                Scan::Found { lane, .. } => match unlink(bucket, meta, lane) {
                    Unlink::Done(entry) => return Some(entry),
                    // Somebody removed exactly this entry before us; ours takes effect after.
                    Unlink::Dying => return None,
                    Unlink::Changed => {}
                },
            }
        }
    }

    /// Removes the entry that matches if `condition` holds for it, and no other.
    ///
    /// `condition` is asked again whenever the entry was replaced meanwhile.
    pub fn remove_if(
        &self,
        guard: &Guard,
        hash: u64,
        host: &impl Host<T>,
        matches: impl Fn(&T) -> bool,
        mut condition: impl FnMut(&T) -> bool,
    ) -> Option<Unlinked<T>> {
        let tag = Meta::tag_of(hash);
        let mut array = self.root(guard);
        loop {
            let (index, _) = array.locate(hash);
            let bucket = array.at(index);
            let meta = bucket.meta();
            if meta.is_frozen() {
                array = self.migrated(guard, array, index, host);
                continue;
            }
            match scan(guard, bucket, meta, tag, &matches) {
                Scan::Changed => {}
                Scan::Absent => return None,
                Scan::Found { lane, word, entry } => {
                    if !condition(entry) {
                        return None;
                    }
                    // Linearizes here.
                    if bucket.change_slot(lane, word, word.dying()) {
                        bucket.help_dying(lane, word.dying());
                        let entry = word.entry().expect("the scan found an entry");
                        // SAFETY: entries come from `Box::into_raw`; whoever marks an entry as
                        // dying owns it, and every other path leaves a marked one alone.
                        return Some(unsafe { Unlinked::new(entry) });
                    }
                }
            }
        }
    }

    /// Removes every entry that is in the table when the call begins, and perhaps later ones.
    pub fn clear(&self, guard: &Guard, host: &impl Host<T>, mut removed: impl FnMut(Unlinked<T>)) {
        let mut array = self.root(guard);
        while let Some(next) = array.next(guard) {
            for index in 0..array.count() {
                self.migrated(guard, array, index, host);
            }
            array = next;
        }
        for index in 0..array.count() {
            self.clear_bucket(guard, array, index, host, &mut removed);
        }
    }

    fn clear_bucket(
        &self,
        guard: &Guard,
        array: &Buckets<T>,
        index: usize,
        host: &impl Host<T>,
        removed: &mut impl FnMut(Unlinked<T>),
    ) {
        let bucket = array.at(index);
        loop {
            let meta = bucket.meta();
            if meta.is_frozen() {
                let next = self.migrated(guard, array, index, host);
                for child in super::migrate::children(array, next, index) {
                    self.clear_bucket(guard, next, child, host, removed);
                }
                return;
            }
            if meta.taken().next().is_none() {
                return;
            }
            // Linearizes here, for all entries of the bucket.
            if bucket.change_meta(meta, meta.without_any()) {
                for lane in meta.taken() {
                    if let Some(entry) = taken(bucket.take_slot(lane)) {
                        removed(entry);
                    }
                }
                return;
            }
        }
    }

    /// Makes room in a bucket without a free slot.
    #[cold]
    fn make_slot(
        &self,
        guard: &Guard,
        array: &Buckets<T>,
        index: usize,
        meta: Meta,
        host: &impl Host<T>,
        newcomer: &T,
    ) -> Slot {
        if host.is_crowded(array.count() * LANES) && self.grow(guard, array) {
            // The caller finds the bucket frozen.
            self.migrated(guard, array, index, host);
            return Slot::Freed;
        }
        let bucket = array.at(index);
        let mut residents = [None; LANES];
        for lane in meta.taken() {
            residents[lane] = bucket.slot(lane).entry();
        }
        if bucket.meta() != meta {
            return Slot::Freed;
        }
        // SAFETY: the meta word was the same before and after, so each lane was published when
        // its slot was read, which was under the guard.
        let residents = residents.map(|e| e.map(|entry| unsafe { entry_ref(entry, guard) }));
        let Some(lane) = host.choose_leaver(&residents, newcomer) else {
            return Slot::Kept;
        };
        if let Unlink::Done(entry) = unlink(bucket, meta, lane) {
            host.displaced(guard, entry);
        }
        Slot::Freed
    }
}

/// Takes the entry of a lane out of a bucket whose meta word the caller has seen.
pub fn unlink<T>(bucket: &Bucket<T>, meta: Meta, lane: usize) -> Unlink<T> {
    // Linearizes here.
    if !bucket.change_meta(meta, meta.without(lane)) {
        return Unlink::Changed;
    }
    // A swap and not a store: a replacement that validated before may have slipped in, and then
    // it is the newer entry that leaves.
    match taken(bucket.take_slot(lane)) {
        Some(entry) => Unlink::Done(entry),
        None => Unlink::Dying,
    }
}

/// What [`unlink`] did.
pub enum Unlink<T> {
    /// The entry is out, and the caller's.
    Done(Unlinked<T>),
    /// The entry was already removed in place, by somebody who owns it.
    Dying,
    /// The bucket has changed: look again.
    Changed,
}

fn taken<T>(word: Word<T>) -> Option<Unlinked<T>> {
    if word.is_dying() {
        return None;
    }
    // SAFETY: entries come from `Box::into_raw`. The caller's change of the meta word was the one
    // that unpublished the lane, and the swap took the word out, so nobody finds the entry and
    // nobody else has it; one that is dying belongs to whoever marked it.
    word.entry().map(|entry| unsafe { Unlinked::new(entry) })
}

enum Slot {
    Freed,
    Kept,
}

enum Scan<'g, T> {
    Found { lane: usize, word: Word<T>, entry: &'g T },
    Absent,
    Changed,
}

/// Looks for the matching entry in a bucket that is in use.
fn scan<'g, T>(
    guard: &'g Guard,
    bucket: &Bucket<T>,
    meta: Meta,
    tag: u64,
    matches: &impl Fn(&T) -> bool,
) -> Scan<'g, T> {
    for lane in meta.lanes(tag) {
        let Validated::Holds(word) = bucket.validated(lane, tag) else {
            return Scan::Changed;
        };
        if word.is_dying() {
            bucket.help_dying(lane, word);
            return Scan::Changed;
        }
        if let Some(entry) = alive(word, guard)
            && matches(entry)
        {
            return Scan::Found { lane, word, entry };
        }
    }
    Scan::Absent
}

/// An entry on its way into the table, and the slot it has claimed.
///
/// Dropping it gives both back, so that a panic in the caller's code leaves no trace.
struct Claim<'g, T> {
    entry: NonNull<T>,
    place: Option<(&'g Bucket<T>, usize)>,
    /// Whether the entry's address was ever in a slot.
    exposed: bool,
    done: bool,
    table: &'g Table<T>,
    guard: &'g Guard,
    _owns: PhantomData<T>,
}

impl<'g, T> Claim<'g, T> {
    fn new(table: &'g Table<T>, guard: &'g Guard, entry: Box<T>) -> Self {
        let entry = NonNull::from(Box::leak(entry));
        Self { entry, place: None, exposed: false, done: false, table, guard, _owns: PhantomData }
    }

    fn get(&self) -> &T {
        // SAFETY: until it is published the entry is ours alone.
        unsafe { self.entry.as_ref() }
    }

    /// Claims a slot that is free under `meta`.
    fn take_free(&mut self, bucket: &'g Bucket<T>, meta: Meta, word: Word<T>) -> bool {
        for lane in meta.lanes(0) {
            if bucket.change_slot(lane, Word::EMPTY, word) {
                self.place = Some((bucket, lane));
                self.exposed = true;
                return true;
            }
        }
        false
    }

    fn withdraw(&mut self) {
        if let Some((bucket, lane)) = self.place.take() {
            bucket.withdraw(lane);
        }
    }

    /// Ends the claim: the entry is in the table.
    fn published(mut self) -> &'g T {
        self.done = true;
        // SAFETY: the entry was published under the guard.
        unsafe { entry_ref(self.entry, self.guard) }
    }

    /// Ends the claim and gives the entry back.
    fn into_box(mut self) -> Box<T> {
        self.done = true;
        self.take_back()
    }

    fn take_back(&mut self) -> Box<T> {
        self.withdraw();
        if !self.exposed {
            // SAFETY: the entry came from a box, was not published, and is taken back once.
            return unsafe { Box::from_raw(self.entry.as_ptr()) };
        }
        // A reader may have seen the address in the slot and be about to compare it again. It
        // must not meet the same address with another entry in it: the memory waits for it.
        let husk = self.entry.cast::<MaybeUninit<T>>();
        // SAFETY: as above; the value moves out, and what stays behind is not read as a `T`.
        let entry = Box::new(unsafe { self.entry.read() });
        // SAFETY: the memory came from a box of the same layout, and no one reaches it.
        let husk = unsafe { Unlinked::new(husk) };
        self.table.husks.retire(self.guard, husk, 0, 0);
        entry
    }
}

impl<T> Drop for Claim<'_, T> {
    fn drop(&mut self) {
        if !self.done {
            drop(self.take_back());
        }
    }
}

/// Units of a migration that every insert helps along.
const HELP_UNITS: usize = 2;
