//! `Loose`: an entry outside of the table that several threads may read before it is retired.

use super::{EntryRef, Fresh, Table, Terms, Unlinked};
use crate::reclaim::Guard;

/// An entry that is no longer in the table, or never was, and is not retired yet.
///
/// Its holder lets pinned threads read it ([`Table::see`]), and retires it when no other thread may
/// begin to read it ([`Table::retire_loose`]).
#[must_use = "an entry that is not retired is leaked"]
#[derive(Debug)]
pub struct Loose {
    entry: Unlinked,
    terms: Terms,
}

impl Loose {
    /// Wraps an unlinked entry, so that it is not retired yet.
    pub fn new(entry: Unlinked, terms: Terms) -> Self {
        Self { entry, terms }
    }

    /// Wraps an entry that was never in the table.
    pub fn unpublished<T>(entry: Fresh<'_, T>, terms: Terms) -> Self {
        Self { entry: entry.into_unlinked(), terms }
    }
}

impl<T> Table<T> {
    /// Returns the entry, readable for as long as the guard lives, even if it is retired then.
    ///
    /// # Panics
    ///
    /// Panics if the entry belongs to another table.
    pub fn see<'g>(&'g self, guard: &'g Guard, loose: &Loose) -> EntryRef<'g, T> {
        self.unlinked(guard, &loose.entry)
    }

    /// Retires the entry, as [`retire`](Self::retire) does.
    ///
    /// # Panics
    ///
    /// Panics if the entry belongs to another table.
    pub fn retire_loose(&self, guard: &Guard, loose: Loose, stripe: usize) -> bool {
        self.retire(guard, loose.entry, loose.terms, stripe)
    }
}
