//! `Loose`: an entry outside of the table that several threads look at before it is retired.

use super::{EntryRef, Fresh, Table, Terms, Unlinked};
use crate::reclaim::Guard;

/// An entry that is in the table no more, or never was, and that is not retired yet.
///
/// Its holder shows it to pinned threads ([`Table::see`]), and retires it when it is to be
/// shown to no more ([`Table::retire_loose`]).
#[must_use = "an entry that is not retired is leaked"]
#[derive(Debug)]
pub struct Loose {
    entry: Unlinked,
    terms: Terms,
}

impl Loose {
    /// Keeps an entry that was taken out of its table from being retired.
    pub fn new(entry: Unlinked, terms: Terms) -> Self {
        Self { entry, terms }
    }

    /// The same for an entry that was never in the table.
    pub fn unpublished<T>(entry: Fresh<'_, T>, terms: Terms) -> Self {
        Self { entry: entry.into_unlinked(), terms }
    }
}

impl<T> Table<T> {
    /// Returns the entry for a last look, for as long as the guard lives, retired or not.
    ///
    /// # Panics
    ///
    /// Panics if the entry is another table's.
    pub fn see<'g>(&'g self, guard: &'g Guard, loose: &Loose) -> EntryRef<'g, T> {
        self.unlinked(guard, &loose.entry)
    }

    /// Retires the entry, as [`retire`](Self::retire) does.
    ///
    /// # Panics
    ///
    /// Panics if the entry is another table's.
    pub fn retire_loose(&self, guard: &Guard, loose: Loose, stripe: usize) -> bool {
        self.retire(guard, loose.entry, loose.terms, stripe)
    }
}
