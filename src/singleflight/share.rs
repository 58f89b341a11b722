//! How a follower takes its share of an entry that the flight has kept.

use super::Follower;
use crate::table::{Held, Loose, Table};

impl<K> Follower<'_, K, Loose> {
    /// Returns the entry that the flight has kept, if it has; and the same to be retired, if this
    /// is the last follower.
    pub fn share<'t, T>(&mut self, table: &'t Table<T>) -> (Option<Held<'t, T>>, Option<Loose>) {
        // Pinned before the share is taken: the last follower may retire the entry from then on.
        let guard = table.pin();
        let see = |loose: &Loose| table.hold(guard, |table, guard| Some(table.see(guard, loose)));
        let (held, unpublished) = self.take(see);
        (held.flatten(), unpublished)
    }
}
