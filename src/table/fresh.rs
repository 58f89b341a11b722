//! Entries that are being inserted: the cell, which needs no guard, and the claim of a slot, which
//! does.

use std::{mem::ManuallyDrop, ops::Deref, ptr};

use super::{
    Table,
    bucket::Bucket,
    find::{EntryRef, Hit, Metadata},
    upper,
};
use crate::{
    error::OutOfMemory,
    reclaim::Guard,
    slab::{Cell, Handle},
    sync::atomic::Ordering::Relaxed,
};

/// An entry in its cell, not published yet.
///
/// Dropping an unpublished one drops the entry and frees the cell, so a panic in the caller's code
/// leaks nothing.
#[must_use]
#[derive(Debug)]
pub struct Fresh<'t, T> {
    pub(super) table: &'t Table<T>,
    handle: Handle,
    cell: Cell<'t, T>,
    /// The hash under which the entry is published: a handle enters one bucket, and one slot of it,
    /// once.
    pub(super) hash: u64,
    stripe: usize,
    state: State,
}

/// The state of a new entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// No slot has held its handle.
    Private,
    /// A slot has held its handle.
    Exposed,
    /// The entry was published and belongs to the table.
    Published,
}

/// An entry that is being published under a guard, with the slot that it has claimed, if any.
///
/// Dropping it frees the claimed slot.
#[must_use]
#[derive(Debug)]
pub struct SlotClaim<'g, 'f, 't, T> {
    fresh: &'f mut Fresh<'t, T>,
    slot: Option<(&'g Bucket, usize)>,
}

/// An allocated cell for an entry. Dropping it frees the cell.
#[must_use]
#[derive(Debug)]
pub struct Reserved<'t, T> {
    table: &'t Table<T>,
    handle: Handle,
    stripe: usize,
}

impl<T> Table<T> {
    /// Allocates a cell for an entry; returns `None` if there is no memory for it.
    #[inline]
    pub fn reserve(&self, stripe: usize) -> Option<Reserved<'_, T>> {
        let handle = self.slab.allocate(stripe)?;
        Some(Reserved { table: self, handle, stripe })
    }

    /// Moves an entry with this hash into a new cell.
    ///
    /// # Errors
    ///
    /// Returns the entry if there is no memory for it.
    #[inline]
    pub fn prepare(&self, entry: T, hash: u64, stripe: usize) -> Result<Fresh<'_, T>, T> {
        match self.reserve(stripe) {
            Some(reserved) => Ok(reserved.fill(entry, hash)),
            None => Err(entry),
        }
    }
}

impl<'t, T> Reserved<'t, T> {
    /// Moves an entry with this hash into the cell.
    #[inline]
    pub fn fill(self, entry: T, hash: u64) -> Fresh<'t, T> {
        let Self { table, handle, stripe } = *ManuallyDrop::new(self);
        // SAFETY: `reserve` has allocated the cell, and nothing was written there yet.
        let cell = unsafe { table.slab.write(handle, entry) };
        cell.set_hash(upper(hash));
        Fresh { table, handle, cell, hash, stripe, state: State::Private }
    }
}

impl<T> Drop for Reserved<'_, T> {
    fn drop(&mut self) {
        // SAFETY: `reserve` has allocated the cell, and it holds no value.
        unsafe { self.table.slab.release(self.handle, self.stripe) };
    }
}

impl<'t, T> Fresh<'t, T> {
    /// Begins to publish the entry. After publication, all methods panic.
    ///
    /// # Panics
    ///
    /// Panics if a slot has held the entry's handle: a reader must not see a handle enter a slot
    /// twice under one guard.
    pub fn claim_slot<'g, 'f>(&'f mut self, guard: &'g Guard) -> SlotClaim<'g, 'f, 't, T> {
        debug_assert!(guard.covers(self.table.domain.structure()), "a guard of another table");
        assert_eq!(self.state, State::Private, "the entry was in a slot");
        SlotClaim { fresh: self, slot: None }
    }

    fn check(&self) {
        assert_ne!(self.state, State::Published, "the entry is the table's");
    }

    /// Returns the handle of the entry's cell.
    pub fn handle(&self) -> Handle {
        self.handle
    }

    /// Returns the entry, which is still private to this thread.
    #[inline]
    pub fn get(&self) -> EntryRef<'_, T> {
        EntryRef { entry: self, metadata: Metadata { handle: self.handle, cell: self.cell } }
    }

    /// Sets the cost of the entry. Once any entry has had a cost other than 1, every entry has to
    /// set its own: the cell still holds the cost of its previous entry.
    ///
    /// # Errors
    ///
    /// [`OutOfMemory`] if there is no memory for costs; the cost is then 1.
    #[inline]
    pub fn set_cost(&self, cost: u64) -> Result<(), OutOfMemory> {
        self.check();
        self.cell.set_charge(cost)
    }

    /// Stores the two time words beside the entry's cell.
    ///
    /// # Errors
    ///
    /// [`OutOfMemory`] if its chunk has no time words yet and there is no memory for them.
    pub fn set_times(&self, times: [u64; 2]) -> Result<(), OutOfMemory> {
        self.check();
        let words = self.cell.times_or_new()?;
        for (word, time) in words.iter().zip(times) {
            word.store(time, Relaxed); // Relaxed: made visible by the publication.
        }
        Ok(())
    }

    /// Returns the entry and frees its cell.
    pub fn into_inner(self) -> T {
        self.check();
        let fresh = ManuallyDrop::new(self);
        // SAFETY: the entry was not published, so this thread owns it; `fresh` is not dropped.
        let entry = unsafe { fresh.table.slab.take(fresh.handle) };
        fresh.give_cell_back();
        entry
    }

    /// Returns the handle. The entry stays in its cell.
    pub(super) fn into_handle(self) -> Handle {
        self.check();
        ManuallyDrop::new(self).handle
    }

    /// Frees the cell, whose entry was moved out or dropped.
    ///
    /// A reader may have seen the handle in a slot and be about to compare it again. It must not
    /// find the same handle with another entry, so an exposed cell waits for a grace period.
    fn give_cell_back(&self) {
        if self.state == State::Exposed && !mutant!("table_empty_handle_reused") {
            self.table.retire_empty(self.handle, self.stripe);
        } else {
            // SAFETY: the handle is of this table's slab; the value was moved out or dropped, and
            // no slot ever showed the handle.
            unsafe { self.table.slab.release(self.handle, self.stripe) };
        }
    }

    #[cold]
    fn discard(&self) {
        // Frees the cell even if the destructor panics.
        let cell = Emptied(self);
        // SAFETY: as in `into_inner`.
        unsafe { cell.0.table.slab.drop_value(cell.0.handle) };
    }
}

impl<T> Deref for Fresh<'_, T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        // Other threads may have removed and freed a published entry.
        self.check();
        // SAFETY: `prepare` wrote the entry, and this thread owns it until it is published.
        unsafe { &*self.cell.address() }
    }
}

impl<T> Drop for Fresh<'_, T> {
    #[inline]
    fn drop(&mut self) {
        if self.state != State::Published {
            self.discard();
        }
    }
}

/// Frees the cell of an entry on drop.
struct Emptied<'a, 't, T>(&'a Fresh<'t, T>);

impl<T> Drop for Emptied<'_, '_, T> {
    fn drop(&mut self) {
        self.0.give_cell_back();
    }
}

impl<'g, 't: 'g, T> SlotClaim<'g, '_, 't, T> {
    /// Returns the entry.
    #[inline]
    pub fn fresh(&self) -> &Fresh<'t, T> {
        self.fresh
    }

    #[inline]
    pub(super) fn handle(&self) -> Handle {
        self.fresh.handle
    }

    /// # Panics
    ///
    /// Panics if the entry was prepared for another table or hash, or is published.
    #[inline]
    pub(super) fn check(&self, table: &Table<T>, hash: u64) {
        let Fresh { table: its, hash: its_hash, state, .. } = *self.fresh;
        let is_for_it = ptr::eq(its, table) && its_hash == hash && state != State::Published;
        assert!(is_for_it, "prepared for another place");
    }

    /// Returns the slot that the entry has claimed in that bucket; without one, calls `claim` to
    /// claim a slot.
    #[inline]
    pub(super) fn slot_of(
        &mut self,
        bucket: &'g Bucket,
        claim: impl FnOnce() -> Option<usize>,
    ) -> Option<usize> {
        // A claim remains valid from one probe to the next, unless the new probe is of another
        // bucket.
        if let Some((claimed, slot)) = self.slot
            && ptr::eq(claimed, bucket)
        {
            return Some(slot);
        }
        self.withdraw();
        let slot = claim()?;
        self.slot = Some((bucket, slot));
        self.fresh.state = State::Exposed;
        Some(slot)
    }

    /// Records that the entry is in the table.
    #[inline]
    pub(super) fn published(
        &mut self,
        table: &'g Table<T>,
        guard: &'g Guard,
        bucket: &'g Bucket,
        slot: usize,
    ) -> Hit<'g, T> {
        self.fresh.state = State::Published;
        if self.slot.is_some_and(|(claimed, own)| ptr::eq(claimed, bucket) && own == slot) {
            self.slot = None;
        }
        // The claim is of another slot if the entry has replaced one.
        self.withdraw();
        debug_assert!(guard.covers(table.part_of(self.fresh.hash)), "a guard of another part");
        // SAFETY: `prepare` wrote the entry. It was published under the guard, which covers its
        // part, and is retired later.
        let entry = unsafe { &*self.fresh.cell.address() };
        let metadata = Metadata { handle: self.fresh.handle, cell: self.fresh.cell };
        Hit::new(EntryRef { entry, metadata }, bucket, slot)
    }

    fn withdraw(&mut self) {
        if let Some((bucket, slot)) = self.slot.take() {
            bucket.withdraw(slot);
        }
    }
}

impl<T> Drop for SlotClaim<'_, '_, '_, T> {
    fn drop(&mut self) {
        if let Some((bucket, slot)) = self.slot.take() {
            bucket.withdraw(slot);
        }
    }
}
