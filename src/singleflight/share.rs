//! `Follower::share`: gives a follower access to an entry that its flight holds.

use super::Follower;
use crate::table::{Held, Loose, Table};

impl<K> Follower<'_, K, Loose> {
    /// Returns the unpublished entry of the flight, if there is one. For the last follower, also
    /// returns it as a [`Loose`] that the caller must retire.
    pub fn share<'t, T>(&mut self, table: &'t Table<T>) -> (Option<Held<'t, T>>, Option<Loose>) {
        // Pinned before the share is taken: from then on the last follower may retire the entry.
        let guard = table.pin();
        let see = |loose: &Loose| table.hold(guard, |table, guard| Some(table.see(guard, loose)));
        let (held, unpublished) = self.take(see);
        (held.flatten(), unpublished)
    }
}
