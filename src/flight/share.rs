//! How a follower takes its share of an entry that the flight has kept.

use super::Follower;
use crate::{
    reclaim::{block::Stored, pin},
    table::{Held, Loose, Table},
};

impl<K, E: Stored> Follower<'_, K, Loose<E>> {
    /// Returns the entry that the flight has kept, if it has; and the same to be retired, if this
    /// is the last follower.
    pub fn share<'t>(&mut self, table: &'t Table<E>) -> (Option<Held<'t, E>>, Option<Loose<E>>) {
        // Pinned before the share is taken: the last follower may retire the entry from then on.
        let guard = pin();
        let see =
            |loose: &Loose<E>| table.hold(guard, |table, guard| Some(table.see(guard, loose)));
        let (held, kept) = self.take(see);
        (held.flatten(), kept)
    }
}
