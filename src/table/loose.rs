//! `Loose`: an entry outside of the table that several threads look at before it is retired.

use super::Table;
use crate::reclaim::{
    Guard,
    block::{Owned, Stored},
    limbo::{Retired, Unlinked},
};

/// An entry that is in the table no more, or never was, and that is not retired yet.
///
/// Its holder shows it to pinned threads ([`Table::see`]), and retires it when it is to be
/// shown to no more ([`Table::retire_loose`]).
#[must_use = "an entry that is not retired is leaked"]
#[derive(Debug)]
pub struct Loose<T: Stored> {
    entry: Unlinked<T>,
    cost: u64,
    /// The address of the table, whose limbo is to free the entry.
    table: usize,
}

impl<T: Stored> Table<T> {
    /// Keeps an entry that was taken out of this table from being retired.
    pub fn loosen(&self, entry: Unlinked<T>, cost: u64) -> Loose<T> {
        Loose { entry, cost, table: std::ptr::from_ref(self).addr() }
    }

    /// The same for an entry that was never in the table.
    pub fn loosen_unpublished(&self, entry: Owned<T>, label: u8, cost: u64) -> Loose<T> {
        // SAFETY: no other thread knows of the entry.
        let entry = unsafe { Unlinked::new(entry.into_raw()) }.labelled(label);
        self.loosen(entry, cost)
    }

    /// Returns the entry for a last look, for as long as the guard lives, retired or not.
    pub fn see<'g>(&'g self, guard: &'g Guard, loose: &Loose<T>) -> &'g T {
        self.check(loose);
        let entry = std::ptr::NonNull::from(loose.entry.get());
        #[cfg(any(cortado_loom, cortado_shuttle))]
        guard.check_readable(entry.as_ptr() as usize);
        let _ = guard;
        // SAFETY: the entry is not retired yet, so it is retired after the guard was made, and no
        // sweep frees it under the guard. It goes to this table's limbo, which is borrowed for as
        // long.
        unsafe { entry.as_ref() }
    }

    /// Retires the entry: it is freed when every guard of this moment is gone.
    pub fn retire_loose(&self, guard: &Guard, loose: Loose<T>, stripe: usize) -> Retired {
        self.check(&loose);
        self.desk(stripe).retire(guard, loose.entry, loose.cost, u64::MAX)
    }

    fn check(&self, loose: &Loose<T>) {
        assert_eq!(loose.table, std::ptr::from_ref(self).addr(), "an entry of another table");
    }
}
