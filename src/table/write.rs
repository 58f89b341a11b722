//! Writing: claim and publish, replace, unlink.

use std::{
    any::Any,
    marker::PhantomData,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    ptr::NonNull,
};

use super::{
    Host, LANES, Table,
    bucket::{Bucket, Buckets, Validated, Word, entry_ref},
    find::alive,
    meta::Meta,
};
use crate::{
    reclaim::{
        Guard,
        block::{Owned, Stored},
        limbo::Unlinked,
    },
    util::{caught, drop_panic, for_all},
};

/// What [`Table::upsert`] did.
#[derive(Debug)]
pub enum Upsert<'g, T: Stored> {
    /// The entry is in the table, and no entry of its key was.
    Inserted {
        /// The entry.
        new: &'g T,
        /// A panic of the caller's code when the entry was in the table already: to be resumed when
        /// the caller has accounted for the entry.
        panic: Option<Panic>,
    },
    /// The entry has taken the place of `old`.
    Replaced {
        /// The entry that is in the table now.
        new: &'g T,
        /// The entry that was.
        old: Unlinked<T>,
    },
    /// The caller's `permit` said no.
    Refused(Owned<T>),
    /// The bucket was full and the host kept its residents.
    Full(Owned<T>),
}

/// What a panic carries.
pub type Panic = Box<dyn Any + Send>;

impl<T: Stored> Table<T> {
    /// Inserts an entry, or replaces the one that matches it (resident first, newcomer second).
    ///
    /// `permit` is asked before either, with the entry to be replaced, if any, and the new one;
    /// it may be asked again when others change the bucket. The host may be given an entry of the same
    /// key that another insert has put beside this one (see `meta`). The entry is visible to everybody
    /// when the call returns [`Upsert::Inserted`] or [`Upsert::Replaced`], and to nobody, ever,
    /// when it comes back.
    pub fn upsert<'g>(
        &'g self,
        guard: &'g Guard,
        hash: u64,
        entry: Owned<T>,
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
            let strangers =
                match scan(guard, bucket, meta, tag, host, &|old| matches(old, claim.get())) {
                    Scan::Changed => continue,
                    Scan::Found { lane, word, entry: old } => {
                        if !permit(Some(old), claim.get()) {
                            return Upsert::Refused(claim.into_owned());
                        }
                        let is_mutant = cfg!(cortado_mutant = "compute_replaces_another");
                        let word = if is_mutant { bucket.slot(lane) } else { word };
                        // Linearizes here. The slot has held `word` since it was validated, because
                        // an entry enters a slot once.
                        if bucket.change_slot(lane, word, new) {
                            claim.withdraw();
                            let new = claim.published();
                            let old = word.entry().expect("the scan found an entry");
                            // SAFETY: entries come from `Owned::into_raw`; the exchange took this one
                            // out of its only slot, so no one finds it, and only we know that.
                            return Upsert::Replaced { new, old: unsafe { Unlinked::new(old) } };
                        }
                        continue;
                    }
                    Scan::Absent(strangers) => strangers,
                };
            if claim.place.is_none() {
                if !permit(None, claim.get()) {
                    return Upsert::Refused(claim.into_owned());
                }
                if !claim.take_free(bucket, meta, new) {
                    match self.make_slot(guard, array, index, meta, host, claim.get()) {
                        Slot::Freed => continue,
                        Slot::Kept => return Upsert::Full(claim.into_owned()),
                    }
                }
            }
            let (_, lane) = claim.place.expect("claimed above");
            // Linearizes here. The word is the one that was scanned, so nothing was published in
            // the bucket since, and no entry of this key is in it.
            let published = meta.with(lane, tag);
            if bucket.change_meta(meta, published) {
                let new = claim.published();
                // Unless the version has wrapped since. But then a stranger has left its slot: its
                // address cannot come again while this thread is pinned.
                let is_same = |lane| bucket.slot(lane).entry() == strangers[lane].entry();
                let is_alone = meta.lanes(tag).all(is_same);
                if is_alone || cfg!(cortado_mutant = "version_no_second_look") {
                    return Upsert::Inserted { new, panic: None };
                }
                let matches = |other: &T| matches(other, new);
                let place = Published { entry: new, bucket, lane, meta: published };
                let panic = self.remove_duplicates(guard, hash, &place, host, matches);
                return Upsert::Inserted { new, panic };
            }
        }
    }

    /// Takes out what has the key of a new entry, which was published on the strength of a scan that
    /// had become out of date; returns the first panic of the caller's code.
    ///
    /// The new entry stays, and those go that were there when it was published. Two inserts that do
    /// this at once may take out each other's entry: both count as evicted then, which any entry may be
    /// at any time, and none that is out of date is left.
    #[cold]
    fn remove_duplicates(
        &self,
        guard: &Guard,
        hash: u64,
        new: &Published<'_, T>,
        host: &impl Host<T>,
        matches: impl Fn(&T) -> bool,
    ) -> Option<Panic> {
        let mut first = None;
        let mut note = |panic| match &first {
            None => first = Some(panic),
            Some(_) => drop_panic(panic),
        };
        loop {
            let next = catch_unwind(AssertUnwindSafe(|| {
                self.take_duplicate(guard, hash, new, host, &matches, &mut note)
            }));
            match next {
                Ok(None) => return first,
                Ok(Some(entry)) => {
                    let displaced = || host.displaced(guard, entry);
                    let _ = catch_unwind(AssertUnwindSafe(displaced)).map_err(&mut note);
                }
                // The caller's hash function, which a bucket on the move needs.
                Err(panic) => {
                    note(panic);
                    return first;
                }
            }
        }
    }

    /// Takes out one entry that has the key of `new` and was there when that was published.
    fn take_duplicate(
        &self,
        guard: &Guard,
        hash: u64,
        new: &Published<'_, T>,
        host: &impl Host<T>,
        matches: &impl Fn(&T) -> bool,
        note: &mut impl FnMut(Panic),
    ) -> Option<Unlinked<T>> {
        let tag = Meta::tag_of(hash);
        let mut array = self.root(guard);
        'again: loop {
            let (index, _) = array.locate(hash);
            let bucket = array.at(index);
            let meta = bucket.meta();
            if meta.is_frozen() {
                array = self.migrated(guard, array, index, host);
                continue;
            }
            let is_first_bucket = std::ptr::eq(bucket, new.bucket);
            let mut lane_of_new = None;
            let mut other = None;
            for lane in meta.lanes(tag) {
                let Validated::Holds(word) = bucket.validated(lane, tag) else { continue 'again };
                if word.is_dying() {
                    help_dying(guard, bucket, lane, word, host);
                    continue 'again;
                }
                let Some(entry) = alive(word, guard) else { continue };
                if std::ptr::eq(entry, new.entry) {
                    lane_of_new = Some(lane);
                } else if other.is_none() && !(is_first_bucket && lane == new.lane) {
                    // A comparison that panics counts as a match: to evict a stranger costs a miss,
                    // and to leave a duplicate would show a value that is out of date.
                    let is_key = catch_unwind(AssertUnwindSafe(|| matches(entry)));
                    let is_key = is_key.map_err(&mut *note).unwrap_or(true);
                    other = is_key.then_some((lane, word));
                }
            }
            let (lane, word) = other?;
            // Was it there beside `new`? If that still is, yes. If that has left, only if nothing was
            // published since: otherwise it may be a newer one, which is in the cache by right.
            let is_beside = match lane_of_new.map(|lane| bucket.validated(lane, tag)) {
                Some(Validated::Holds(word)) if !word.is_dying() => {
                    word.entry() == Some(NonNull::from(new.entry))
                }
                _ => false,
            };
            let is_older = is_beside || (is_first_bucket && bucket.meta().has_version_of(new.meta));
            if !is_older {
                return None;
            }
            if bucket.change_slot(lane, word, word.dying()) {
                let entry = word.entry().expect("a live word has an entry");
                // SAFETY: as in `remove_if`.
                let entry = unsafe { Unlinked::new(entry) };
                return Some(freed(guard, bucket, lane, word, entry, host));
            }
        }
    }

    /// Removes the entry that matches, or one that takes its place at that very moment.
    ///
    /// What it has taken out by mistake (see `meta`) goes to the host.
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
            match scan(guard, bucket, meta, tag, host, &matches) {
                Scan::Changed => {}
                Scan::Absent(_) => return None,
                Scan::Found { lane, word, .. } => match unlink(bucket, meta, lane) {
                    Unlink::Done(entry) => {
                        let is_it = word.entry() == Some(NonNull::from(entry.get()));
                        if is_it || cfg!(cortado_mutant = "version_remove_believes") {
                            return Some(entry);
                        }
                        // A replacement has the same key; what else it may be, the key tells.
                        match catch_unwind(AssertUnwindSafe(|| matches(entry.get()))) {
                            Ok(true) => return Some(entry),
                            Ok(false) => host.displaced(guard, entry),
                            Err(panic) => {
                                caught(|| host.displaced(guard, entry));
                                resume_unwind(panic);
                            }
                        }
                    }
                    // Another thread removed exactly this entry, or the lane has another owner.
                    Unlink::Dying | Unlink::Changed => {}
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
            match scan(guard, bucket, meta, tag, host, &matches) {
                Scan::Changed => {}
                Scan::Absent(_) => return None,
                Scan::Found { lane, word, entry } => {
                    if !condition(entry) {
                        return None;
                    }
                    let is_mutant = cfg!(cortado_mutant = "compute_removes_another");
                    let word = if is_mutant { bucket.slot(lane) } else { word };
                    // Linearizes here.
                    if bucket.change_slot(lane, word, word.dying()) {
                        let entry = word.entry().expect("the scan found an entry");
                        // SAFETY: entries come from `Owned::into_raw`; whoever marks an entry as
                        // dying owns it, and every other path leaves a marked one alone.
                        let entry = unsafe { Unlinked::new(entry) };
                        return Some(freed(guard, bucket, lane, word, entry, host));
                    }
                }
            }
        }
    }

    /// Removes every entry that is in the table when the call begins, and perhaps later ones.
    pub fn clear(&self, guard: &Guard, host: &impl Host<T>, mut removed: impl FnMut(Unlinked<T>)) {
        let mut array = self.root(guard);
        loop {
            while let Some(next) = array.next(guard) {
                for index in 0..array.count() {
                    self.migrated(guard, array, index, host);
                }
                array = next;
            }
            // A bucket that begins to move meanwhile is met again in the next array. (To follow it
            // there at once would meet the same buckets twice for every array that follows.)
            let mut all = true;
            for index in 0..array.count() {
                all &= clear_bucket(array.at(index), &mut removed);
            }
            if all {
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
            host.moving();
            // The caller finds the bucket frozen.
            self.migrated(guard, array, index, host);
            return Slot::Freed;
        }
        let bucket = array.at(index);
        let Some(words) = bucket.words(meta, |_| true) else { return Slot::Freed };
        let residents: [Option<&T>; LANES] = std::array::from_fn(|lane| {
            let entry = bucket.confirmed(lane, words[lane])?;
            // SAFETY: it was published at one instant of the calls above, which were under the guard.
            Some(unsafe { entry_ref(entry, guard) })
        });
        if words.iter().zip(&residents).any(|(word, e)| word.entry().is_some() && e.is_none()) {
            return Slot::Freed; // it has changed
        }
        // A lane that shows no resident may be somebody's claim: it is nobody's to empty.
        let chosen = host.choose_leaver(&residents, newcomer);
        let Some(lane) = chosen.filter(|&lane| residents.get(lane).is_some_and(Option::is_some))
        else {
            if !host.is_cramped(array.count() * LANES) {
                return Slot::Kept;
            }
            // An array that is still being filled cannot grow. If nothing is being filled either,
            // there is no memory, or another helper has just ended what was: one more try.
            let mut is_moving = true;
            while !self.grow(guard, array) {
                if !is_moving {
                    return Slot::Kept;
                }
                is_moving = self.help_migration(guard, host, usize::MAX);
            }
            host.moving();
            self.migrated(guard, array, index, host);
            return Slot::Freed;
        };
        // Whichever entry it is: one that has come into the lane since is as good a victim.
        if let Unlink::Done(entry) = unlink(bucket, meta, lane) {
            host.displaced(guard, entry);
        }
        Slot::Freed
    }
}

/// Takes all entries out of a bucket; returns whether that was possible: not in a frozen one.
fn clear_bucket<T>(bucket: &Bucket<T>, removed: &mut impl FnMut(Unlinked<T>)) -> bool {
    loop {
        let meta = bucket.meta();
        if meta.is_frozen() {
            return false;
        }
        if meta.taken().next().is_none() {
            return true;
        }
        // Linearizes here, for all entries of the bucket.
        if bucket.change_meta(meta, meta.without_any()) {
            // All slots are freed before the caller's code runs, which may panic over one of them.
            let mut entries = [const { None }; LANES];
            for lane in meta.taken() {
                entries[lane] = taken(bucket.take_slot(lane));
            }
            for_all(entries.into_iter().flatten(), removed);
            return true;
        }
    }
}

/// Takes the entry of a lane out of a bucket whose meta word the caller has seen.
pub fn unlink<T>(bucket: &Bucket<T>, meta: Meta, lane: usize) -> Unlink<T> {
    // Linearizes here.
    match bucket.unpublish(meta, lane).map(taken) {
        Some(Some(entry)) => Unlink::Done(entry),
        Some(None) => Unlink::Dying,
        None => Unlink::Changed,
    }
}

/// Frees the lane of an entry that was removed in place. The host gets what that takes out by mistake.
fn help_dying<T>(
    guard: &Guard,
    bucket: &Bucket<T>,
    lane: usize,
    word: Word<T>,
    host: &impl Host<T>,
) {
    if let Some(stray) = bucket.free_dying(lane, word).and_then(taken) {
        host.displaced(guard, stray);
    }
}

/// The same for the thread that has removed `entry` from `word` in place; returns the entry.
fn freed<T>(
    guard: &Guard,
    bucket: &Bucket<T>,
    lane: usize,
    word: Word<T>,
    entry: Unlinked<T>,
    host: &impl Host<T>,
) -> Unlinked<T> {
    let help = || help_dying(guard, bucket, lane, word.dying(), host);
    if let Err(panic) = catch_unwind(AssertUnwindSafe(help)) {
        // It would be lost with the panic: it goes the way of the other.
        caught(|| host.displaced(guard, entry));
        resume_unwind(panic);
    }
    entry
}

/// What [`unlink`] did.
pub enum Unlink<T> {
    /// The entry is out, and the caller's.
    Done(Unlinked<T>),
    /// The entry was already removed in place, by another thread, which owns it.
    Dying,
    /// The bucket has changed: look again.
    Changed,
}

fn taken<T>(word: Word<T>) -> Option<Unlinked<T>> {
    if word.is_dying() {
        return None;
    }
    // SAFETY: entries come from `Owned::into_raw`. The caller's change of the meta word was the one
    // that unpublished the lane, whatever was in it by then, and the swap took the word out, so nobody finds the entry and
    // nobody else has it; one that is dying belongs to whoever marked it.
    word.entry().map(|entry| unsafe { Unlinked::new(entry) })
}

enum Slot {
    Freed,
    Kept,
}

enum Scan<'g, T> {
    Found {
        lane: usize,
        word: Word<T>,
        entry: &'g T,
    },
    /// None matches: these, in the lanes of the tag, do not.
    Absent([Word<T>; LANES]),
    Changed,
}

/// Looks for the matching entry in a bucket that is in use.
fn scan<'g, T>(
    guard: &'g Guard,
    bucket: &Bucket<T>,
    meta: Meta,
    tag: u64,
    host: &impl Host<T>,
    matches: &impl Fn(&T) -> bool,
) -> Scan<'g, T> {
    let mut strangers = [Word::EMPTY; LANES];
    for lane in meta.lanes(tag) {
        let validated = if cfg!(cortado_mutant = "table_write_unvalidated") {
            Validated::Holds(bucket.slot(lane))
        } else {
            bucket.validated(lane, tag)
        };
        let Validated::Holds(word) = validated else {
            return Scan::Changed;
        };
        if word.is_dying() {
            help_dying(guard, bucket, lane, word, host);
            return Scan::Changed;
        }
        strangers[lane] = word;
        if let Some(entry) = alive(word, guard)
            && matches(entry)
        {
            return Scan::Found { lane, word, entry };
        }
    }
    Scan::Absent(strangers)
}

/// An entry that was published, where, and the meta word that published it.
struct Published<'g, T> {
    entry: &'g T,
    bucket: &'g Bucket<T>,
    lane: usize,
    meta: Meta,
}

/// An entry on its way into the table, and the slot it has claimed.
///
/// Dropping it gives both back, so that a panic in the caller's code leaves no trace.
struct Claim<'g, T: Stored> {
    entry: NonNull<T>,
    place: Option<(&'g Bucket<T>, usize)>,
    /// Whether the entry's address was ever in a slot.
    exposed: bool,
    done: bool,
    table: &'g Table<T>,
    guard: &'g Guard,
    _owns: PhantomData<T>,
}

impl<'g, T: Stored> Claim<'g, T> {
    fn new(table: &'g Table<T>, guard: &'g Guard, entry: Owned<T>) -> Self {
        let entry = entry.into_raw();
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
    fn into_owned(mut self) -> Owned<T> {
        self.done = true;
        self.take_back()
    }

    fn take_back(&mut self) -> Owned<T> {
        self.withdraw();
        if !self.exposed || cfg!(cortado_mutant = "table_husk_used_again") {
            // SAFETY: the entry came from an `Owned`, was not published, and is taken back once.
            return unsafe { Owned::from_raw(self.entry) };
        }
        // A reader may have seen the address in the slot and be about to compare it again. It
        // must not meet the same address with another entry in it: the memory waits for it.
        // SAFETY: as above; what stays behind is not read as a `T`.
        let (entry, husk) = unsafe { Owned::moved_from(self.entry) };
        // SAFETY: nobody else knows of the husk.
        let husk = unsafe { Unlinked::new(Owned::new(husk).into_raw()) };
        self.table.husks.retire(self.guard, husk, 0, 0);
        entry
    }
}

impl<T: Stored> Drop for Claim<'_, T> {
    fn drop(&mut self) {
        if !self.done {
            drop(self.take_back());
        }
    }
}

/// Units of a migration that every insert helps along.
const HELP_UNITS: usize = 2;

#[cfg(all(test, not(any(cortado_loom, cortado_shuttle))))]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use super::{
        super::testing::{Keeper, Ledger, drain, mixed},
        *,
    };
    use crate::reclaim::pin;

    #[test]
    fn entry_is_inserted_replaced_removed_once() {
        let ledger = Ledger::default();
        let table = Table::with_buckets(1, 1, 4);
        let keeper = Keeper::new(&table, &mixed);
        assert_eq!(keeper.get(1), None);
        assert!(keeper.set(&ledger, 1, 10) && keeper.set(&ledger, 2, 20));
        assert_eq!((keeper.get(1), keeper.get(2), keeper.get(3)), (Some(10), Some(20), None));
        assert!(keeper.set(&ledger, 1, 11));
        assert_eq!((keeper.get(1), keeper.check()), (Some(11), 2));
        assert_eq!((keeper.remove(1), keeper.remove(1)), (Some(11), None));
        assert_eq!((keeper.get(1), keeper.check()), (None, 1));
        drain(&table);
        assert_eq!(ledger.alive(), 1);
        drop(table);
        assert_eq!(ledger.alive(), 0);
    }

    #[test]
    fn remove_if_asks_first() {
        let ledger = Ledger::default();
        let table = Table::with_buckets(1, 1, 4);
        let keeper = Keeper::new(&table, &mixed);
        keeper.set(&ledger, 1, 10);
        assert_eq!(keeper.remove_if(1, |value| value == 9), None);
        assert_eq!(keeper.remove_if(2, |_| true), None);
        assert_eq!(keeper.get(1), Some(10));
        assert_eq!(keeper.remove_if(1, |value| value == 10), Some(10));
        assert_eq!((keeper.get(1), keeper.check()), (None, 0));
        assert!(keeper.set(&ledger, 1, 11));
        drop(table);
        assert_eq!((ledger.made(), ledger.alive()), (2, 0));
    }

    #[test]
    fn slots_are_free_again_at_once() {
        let ledger = Ledger::default();
        let table = Table::with_buckets(1, 1, 64);
        let keeper = Keeper::new(&table, &mixed);
        let _guard = pin(); // not even a stalled reader costs slots
        for round in 0..100 {
            for key in 0..LANES as u64 {
                assert!(keeper.set(&ledger, 100 * round + key, 0));
            }
            assert!(!keeper.set(&ledger, 100 * round + 99, 0), "the bucket is full");
            for key in 0..LANES as u64 {
                assert!(keeper.remove(100 * round + key).is_some());
            }
        }
        assert_eq!(keeper.check(), 0);
    }

    #[test]
    fn colliding_hashes_are_told_apart_by_the_comparison() {
        let ledger = Ledger::default();
        let table = Table::with_buckets(2, 1, 4);
        let keeper = Keeper::new(&table, &|_| 0);
        for key in 0..LANES as u64 {
            assert!(keeper.set(&ledger, key, key));
        }
        assert!(!keeper.set(&ledger, 7, 7));
        for key in 0..LANES as u64 {
            assert_eq!(keeper.get(key), Some(key));
            assert!(keeper.set(&ledger, key, key + 10), "a full bucket replaces");
            assert_eq!(keeper.remove_if(key, |_| true), Some(key + 10));
        }
        drop(table);
        assert_eq!(ledger.alive(), 0);
    }

    #[test]
    fn full_bucket_displaces_whom_the_host_chooses() {
        let ledger = Ledger::default();
        let table = Table::with_buckets(1, 1, 4);
        let mut keeper = Keeper::new(&table, &mixed);
        for key in 0..LANES as u64 {
            keeper.set(&ledger, key, key);
        }
        assert!(!keeper.set(&ledger, 100, 0));
        assert_eq!((keeper.get(100), keeper.check()), (None, LANES));
        keeper.leaver = Some(3);
        assert!(keeper.set(&ledger, 100, 0));
        assert_eq!((keeper.get(3), keeper.get(100)), (None, Some(0)));
        assert_eq!((keeper.displaced.get(), keeper.check()), (1, LANES));
        drop(table);
        assert_eq!(ledger.alive(), 0);
    }

    #[test]
    fn permit_refuses_before_anything_is_seen() {
        let ledger = Ledger::default();
        let table = Table::with_buckets(1, 1, 4);
        let keeper = Keeper::new(&table, &mixed);
        let guard = pin();
        let refuse = |key| {
            let entry = ledger.entry(key, 1);
            let no = |_: Option<&_>, _: &_| false;
            table.upsert(&guard, mixed(key), entry, &keeper, |e, _| e.key == key, no)
        };
        assert!(matches!(refuse(1), Upsert::Refused(entry) if entry.key == 1));
        keeper.set(&ledger, 1, 5);
        assert!(matches!(refuse(1), Upsert::Refused(_)));
        assert_eq!((keeper.get(1), keeper.check()), (Some(5), 1));
        assert_eq!(ledger.alive(), 1);
    }

    /// Inserts key 1 with a `permit` that inserts a key of the same tag, so that the table scans
    /// again while it has a claim, and panics there.
    #[test]
    fn panicking_comparison_leaves_no_claim() {
        let ledger = Ledger::default();
        let table = Table::with_buckets(1, 1, 4);
        let keeper = Keeper::new(&table, &|_| 5);
        let guard = pin();
        let panicked = catch_unwind(AssertUnwindSafe(|| {
            let matches = |_: &_, _: &_| -> bool { panic!("comparison") };
            let permit = |_: Option<&_>, _: &_| keeper.set(&ledger, 2, 2);
            table.upsert(&guard, 5, ledger.entry(1, 1), &keeper, matches, permit)
        }));
        assert!(panicked.is_err());
        assert_eq!((keeper.check(), keeper.get(1), keeper.get(2)), (1, None, Some(2)));
        for key in 3..9 {
            assert!(keeper.set(&ledger, key, 0), "no slot is lost");
        }
        drop(guard);
        drop(table);
        assert_eq!(ledger.alive(), 0);
    }

    /// As above, but what the second scan finds is the key itself.
    #[test]
    fn claim_becomes_a_replacement_when_the_key_appears() {
        let ledger = Ledger::default();
        let table = Table::with_buckets(1, 1, 4);
        let keeper = Keeper::new(&table, &mixed);
        let guard = pin();
        let mut asked = 0;
        let permit = |old: Option<&super::super::testing::Entry>, _: &_| {
            asked += 1;
            assert_eq!(old.is_some(), asked == 2);
            asked == 2 || keeper.set(&ledger, 1, 10)
        };
        let entry = ledger.entry(1, 11);
        match table.upsert(&guard, mixed(1), entry, &keeper, |e, _| e.key == 1, permit) {
            Upsert::Replaced { new, old } => {
                assert_eq!((new.value(), old.get().value()), (11, 10));
                let _ = table.retire(&guard, old, 1, 0);
            }
            other => panic!("{other:?}"),
        }
        assert_eq!((keeper.check(), keeper.get(1)), (1, Some(11)));
        drop(guard);
        drop(table);
        assert_eq!(ledger.alive(), 0);
    }

    #[test]
    fn refused_claim_gives_back_the_same_entry_and_its_memory_later() {
        let ledger = Ledger::default();
        let table = Table::with_buckets(1, 1, 4);
        let keeper = Keeper::new(&table, &|_| 5);
        let guard = pin();
        let mut asked = 0;
        let permit = |old: Option<&super::super::testing::Entry>, _: &_| {
            asked += 1;
            old.is_none() && keeper.set(&ledger, 1, 10)
        };
        let entry = ledger.entry(1, 11);
        match table.upsert(&guard, 5, entry, &keeper, |e, _| e.key == 1, permit) {
            Upsert::Refused(entry) => assert_eq!(entry.value(), 11),
            other => panic!("{other:?}"),
        }
        assert_eq!((asked, keeper.check(), keeper.get(1)), (2, 1, Some(10)));
        drop(guard);
        drain(&table);
        drop(table);
        assert_eq!((ledger.made(), ledger.alive()), (2, 0));
    }

    #[test]
    fn clear_removes_all_even_in_the_middle_of_a_migration() {
        for growing in [false, true] {
            let ledger = Ledger::default();
            let table = Table::with_buckets(16, 1, 4);
            let keeper = Keeper::new(&table, &mixed);
            for key in 0..40 {
                keeper.set(&ledger, key, key);
            }
            let there = keeper.check();
            if growing {
                let guard = pin();
                assert!(table.grow_root(&guard));
                table.help_migration(&guard, &keeper, 5);
            }
            assert_eq!((keeper.clear(), keeper.check()), (there, 0));
            drain(&table);
            assert_eq!(ledger.alive(), 0);
        }
    }

    #[test]
    fn panicking_callback_of_clear_loses_no_slot() {
        let ledger = Ledger::default();
        let table = Table::with_buckets(1, 1, 4);
        let keeper = Keeper::new(&table, &mixed);
        for key in 0..LANES as u64 {
            keeper.set(&ledger, key, key);
        }
        let guard = pin();
        let mut kept = Vec::new();
        let panicked = catch_unwind(AssertUnwindSafe(|| {
            table.clear(&guard, &keeper, |entry| {
                kept.push(entry);
                panic!("callback");
            });
        }));
        assert!(panicked.is_err());
        assert_eq!((kept.len(), keeper.check()), (LANES, 0));
        for key in 0..LANES as u64 {
            assert!(keeper.set(&ledger, key, key));
        }
        for entry in kept {
            let _ = table.retire(&guard, entry, 1, 0);
        }
    }

    #[test]
    fn host_that_chooses_a_free_lane_displaces_nobody() {
        let ledger = Ledger::default();
        let table = Table::with_buckets(1, 1, 4);
        let mut keeper = Keeper::new(&table, &mixed);
        for key in 0..LANES as u64 {
            keeper.set(&ledger, key, key);
        }
        keeper.leaver = Some(LANES);
        assert!(!keeper.set(&ledger, 100, 0));
        assert_eq!((keeper.displaced.get(), keeper.check()), (0, LANES));
    }
}
