//! Entries on their way into the table: the cell, which needs no guard, and the claim of a slot, which does.

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

/// An entry in a cell of its own, which is to be published.
///
/// Unless it was, dropping it drops the entry and gives the cell back, so that a panic in the caller's code leaves no
/// trace.
#[must_use]
#[derive(Debug)]
pub struct Fresh<'t, T> {
    pub(super) table: &'t Table<T>,
    handle: Handle,
    cell: Cell<'t, T>,
    /// The hash under which it is published: a handle enters one bucket, and one slot of it, once.
    pub(super) hash: u64,
    stripe: usize,
    state: State,
}

/// How far an entry has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// No slot has had its handle.
    Private,
    /// A slot has.
    Exposed,
    /// It was published, and is the table's.
    Published,
}

/// An entry that is being published under a guard, and the slot that it has claimed, if any.
///
/// Dropping it gives the slot up.
#[must_use]
#[derive(Debug)]
pub struct SlotClaim<'g, 'f, 't, T> {
    fresh: &'f mut Fresh<'t, T>,
    slot: Option<(&'g Bucket, usize)>,
}

/// A cell for an entry that is to come. Dropping it gives the cell back.
#[must_use]
#[derive(Debug)]
pub struct Reserved<'t, T> {
    table: &'t Table<T>,
    handle: Handle,
    stripe: usize,
}

impl<T> Table<T> {
    /// Returns a cell for an entry; `None` if there is no memory for it.
    #[inline]
    pub fn reserve(&self, stripe: usize) -> Option<Reserved<'_, T>> {
        let handle = self.slab.allocate(stripe)?;
        Some(Reserved { table: self, handle, stripe })
    }

    /// Moves an entry of that hash into a cell.
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
    /// Moves an entry of that hash into the cell.
    #[inline]
    pub fn fill(self, entry: T, hash: u64) -> Fresh<'t, T> {
        let Self { table, handle, stripe } = *ManuallyDrop::new(self);
        // SAFETY: `reserve` has allocated it, and nothing was written there yet.
        let cell = unsafe { table.slab.write(handle, entry) };
        cell.set_hash(upper(hash));
        Fresh { table, handle, cell, hash, stripe, state: State::Private }
    }
}

impl<T> Drop for Reserved<'_, T> {
    fn drop(&mut self) {
        // SAFETY: `reserve` has allocated it, and it holds nothing.
        unsafe { self.table.slab.release(self.handle, self.stripe) };
    }
}

impl<'t, T> Fresh<'t, T> {
    /// Begins to publish the entry. All methods panic if that was done already.
    ///
    /// # Panics
    ///
    /// Panics if a slot has had the entry's handle: it must not come to one twice under a reader's guard.
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

    /// Returns the entry, which only this thread sees yet.
    #[inline]
    pub fn get(&self) -> EntryRef<'_, T> {
        EntryRef { entry: self, metadata: Metadata { handle: self.handle, cell: self.cell } }
    }

    /// Sets the cost of the entry. Every entry has to once one has had another cost than 1: its cell has that of the
    /// last tenant.
    ///
    /// # Errors
    ///
    /// [`OutOfMemory`] if there is no memory for costs; the cost is 1 then.
    #[inline]
    pub fn set_cost(&self, cost: u64) -> Result<(), OutOfMemory> {
        self.check();
        self.cell.set_charge(cost)
    }

    /// Stores two words of times beside the entry's cell.
    ///
    /// # Errors
    ///
    /// [`OutOfMemory`] if its chunk has none yet, and there is no memory for them.
    pub fn set_times(&self, times: [u64; 2]) -> Result<(), OutOfMemory> {
        self.check();
        let words = self.cell.times_or_new()?;
        for (word, time) in words.iter().zip(times) {
            word.store(time, Relaxed); // Relaxed: the publication shows it.
        }
        Ok(())
    }

    /// Takes the entry back.
    pub fn into_inner(self) -> T {
        self.check();
        let fresh = ManuallyDrop::new(self);
        // SAFETY: the entry was not published, so it is this thread's alone; `fresh` is not dropped.
        let entry = unsafe { fresh.table.slab.take(fresh.handle) };
        fresh.give_cell_back();
        entry
    }

    /// Returns the handle, whose cell holds the entry.
    pub(super) fn into_handle(self) -> Handle {
        self.check();
        ManuallyDrop::new(self).handle
    }

    /// Gives back the cell, whose entry was moved out.
    ///
    /// A reader may have seen the handle in a slot and be about to compare it again. It must not meet the same
    /// handle with another entry in it: the cell waits for it.
    fn give_cell_back(&self) {
        if self.state == State::Exposed && !mutant!("table_empty_handle_reused") {
            self.table.retire_empty(self.handle, self.stripe);
        } else {
            // SAFETY: of this table's slab; the value was moved out or dropped, and no slot ever showed the handle.
            unsafe { self.table.slab.release(self.handle, self.stripe) };
        }
    }

    #[cold]
    fn discard(&self) {
        // Gives the cell back even if the destructor panics.
        let cell = Emptied(self);
        // SAFETY: as in `into_inner`.
        unsafe { cell.0.table.slab.drop_value(cell.0.handle) };
    }
}

impl<T> Deref for Fresh<'_, T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        // Other threads may have removed and freed it.
        self.check();
        // SAFETY: `prepare` wrote it, and until it is published it is this thread's alone.
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

/// Gives the cell of an entry back when it is dropped.
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
    /// Panics if the entry is for another place, or published.
    #[inline]
    pub(super) fn check(&self, table: &Table<T>, hash: u64) {
        let Fresh { table: its, hash: its_hash, state, .. } = *self.fresh;
        let is_for_it = ptr::eq(its, table) && its_hash == hash && state != State::Published;
        assert!(is_for_it, "prepared for another place");
    }

    /// Returns the slot of that bucket that it has claimed; if there is none yet, that which `claim` claims.
    #[inline]
    pub(super) fn slot_of(
        &mut self,
        bucket: &'g Bucket,
        claim: impl FnOnce() -> Option<usize>,
    ) -> Option<usize> {
        // A claim is kept from one probe to the next, unless that was of another bucket.
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

    /// Notes that the entry is in the table.
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
        // Of another slot, if it has replaced an entry.
        self.withdraw();
        debug_assert!(guard.covers(table.part_of(self.fresh.hash)), "a guard of another part");
        // SAFETY: `prepare` wrote it; it was published under the guard, which keeps its part, and is retired later.
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
