//! Read-modify-write: changes the entry of a key as one atomic step, unless it is not what was seen.

use std::hash::{BuildHasher, Hash};

use super::{Engine, Mode, RemovalCause, Terms, Turn};
use crate::{
    entry::Entry,
    outcome::{ComputeResult, RejectReason},
    table::{EntryRef, Held},
};

/// A change of the entry of a key.
#[derive(Clone, Copy, Debug)]
pub enum Change<V> {
    Keep,
    Put(V, Terms),
    Remove,
}

/// The outcome of one attempt, without the entry.
enum Attempt<V, E> {
    /// The entry was changed by another thread.
    Failed,
    Kept,
    Inserted,
    Updated,
    Removed,
    Rejected(V, RejectReason),
    Error(E),
}

/// The outcome, with the entry, which can be read while that is held.
pub type Computed<'a, K, V> = ComputeResult<V, Held<'a, Entry<K, V>>>;

impl<K: Hash + Eq, V, S: BuildHasher> Engine<K, V, S> {
    /// Computes a change from the value of a key, and carries it out. Calls `f` again if another
    /// thread has changed the entry.
    ///
    /// # Errors
    ///
    /// The error of `f`, which is called no more.
    pub fn compute<E>(
        &self,
        hash: u64,
        key: K,
        mut f: impl FnMut(Option<&V>) -> Result<Change<V>, E>,
    ) -> Result<Computed<'_, K, V>, E> {
        let mut key = Some(key);
        loop {
            // Before this thread is pinned, because destructors and listeners run here.
            self.sweep_if_due();
            self.settle_expired(hash, |k| key.as_ref() == Some(k), Turn::Wait);
            let pressure = self.garbage_pressure();
            let mut attempt = Attempt::Failed;
            let held = self.table.hold(self.table.pin_part(hash), |table, guard| {
                // The result of `f` is a write, unless it is `Keep`.
                let write = self.flights.begin_write(hash);
                let is_key = |k: &K| key.as_ref() == Some(k);
                let seen = table.find(guard, hash, |entry| is_key(&entry.entry.key));
                let seen = seen.map(|hit| hit.at()).filter(|entry| self.is_unexpired(*entry));
                let (value, terms) = match f(seen.as_deref().map(|entry| &entry.value)) {
                    Err(error) => {
                        attempt = Attempt::Error(error);
                        return None;
                    }
                    Ok(Change::Keep) => {
                        attempt = Attempt::Kept;
                        return seen;
                    }
                    Ok(Change::Put(value, terms)) => (value, terms),
                    Ok(Change::Remove) => {
                        let Some(seen) = seen else {
                            // Invalidates a concurrent load, whose value must not be inserted.
                            attempt = Attempt::Kept;
                            self.commit(guard, hash, write);
                            return None;
                        };
                        let is_it = |entry: EntryRef<'_, Entry<K, V>>| entry.id() == seen.id();
                        let cause = RemovalCause::Removed;
                        let removed = self.take_which(table, guard, hash, is_key, is_it, cause)?;
                        attempt = Attempt::Removed;
                        self.commit(guard, hash, write);
                        return Some(removed);
                    }
                };
                // While the guard lives, the id is not reused for another entry.
                let mode = seen.map_or(Mode::IfAbsent, |entry| Mode::Instead(entry.id()));
                let mine = key.take().expect("it comes back with each failed attempt");
                let put = self.put_at(table, guard, hash, (mine, value), terms, (mode, pressure));
                let entry = match put {
                    Ok((entry, is_new)) => {
                        attempt = if is_new { Attempt::Inserted } else { Attempt::Updated };
                        Some(entry)
                    }
                    Err(refused) => match refused.reason() {
                        Some(reason) => {
                            attempt = Attempt::Rejected(refused.into_value(), reason);
                            None
                        }
                        None => {
                            key = Some(refused.key);
                            return None;
                        }
                    },
                };
                self.commit(guard, hash, write);
                entry
            });
            return Ok(match (attempt, held) {
                (Attempt::Kept, entry) => ComputeResult::Kept(entry),
                (Attempt::Inserted, Some(entry)) => ComputeResult::Inserted(entry),
                (Attempt::Updated, Some(entry)) => ComputeResult::Updated(entry),
                (Attempt::Removed, Some(entry)) => ComputeResult::Removed(entry),
                (Attempt::Rejected(value, reason), _) => ComputeResult::Rejected(value, reason),
                (Attempt::Error(error), _) => return Err(error),
                (_, _) => continue,
            });
        }
    }

    /// Removes the entry that was seen, for a caller that leads the load of the key. Returns the key
    /// if it was written since, or the entry is gone.
    pub fn remove_seen(
        &self,
        hash: u64,
        key: K,
        seen: Option<usize>,
        is_unwritten: &dyn Fn() -> bool,
    ) -> Result<Computed<'_, K, V>, K> {
        let mut is_current = false;
        let removed = self.table.hold(self.table.pin_part(hash), |table, guard| {
            // In this order, as in `put_seen`.
            let there = seen.filter(|id| self.has_id(guard, hash, *id));
            is_current = there == seen && is_unwritten();
            let there = there.filter(|_| is_current)?;
            let is_it = |entry: EntryRef<'_, Entry<K, V>>| entry.id() == there;
            let cause = RemovalCause::Removed;
            self.take_which(table, guard, hash, |k| *k == key, is_it, cause)
        });
        match removed {
            Some(entry) => Ok(ComputeResult::Removed(entry)),
            None if is_current && seen.is_none() => Ok(ComputeResult::Kept(None)),
            None => Err(key),
        }
    }

    /// Inserts a value, or replaces the entry that was seen, for a caller that leads the load of the
    /// key. Returns the key if it was written since, or the entry is gone.
    pub fn put_seen(
        &self,
        hash: u64,
        (key, value): (K, V),
        seen: Option<usize>,
        terms: Terms,
        is_unwritten: &dyn Fn() -> bool,
    ) -> Result<Computed<'_, K, V>, K> {
        let pressure = self.noted_pressure();
        let mut refused = None;
        let mut is_new = false;
        let held = self.table.hold(self.table.pin_part(hash), |table, guard| {
            // In this order. If the id is found, and no write was announced by then, it is that of
            // the entry that was seen, and it names no other entry while this thread is pinned. If
            // the id is gone, a removal may have been announced before the flight began, and a
            // value computed from the removed entry must not be inserted after that.
            let there = seen.filter(|id| self.has_id(guard, hash, *id));
            if there != seen || !is_unwritten() {
                refused = Some(Err(key));
                return None;
            }
            let mode = (seen.map_or(Mode::IfAbsent, Mode::Instead), pressure);
            match self.put_at(table, guard, hash, (key, value), terms, mode) {
                Ok((entry, new)) => {
                    is_new = new;
                    Some(entry)
                }
                Err(why) => {
                    refused = Some(Ok(why));
                    None
                }
            }
        });
        if let Some(held) = held {
            return Ok(match is_new {
                true => ComputeResult::Inserted(held),
                false => ComputeResult::Updated(held),
            });
        }
        let refused = refused.expect("it is in, or refused")?;
        match refused.reason() {
            Some(reason) => Ok(ComputeResult::Rejected(refused.into_value(), reason)),
            None => Err(refused.key),
        }
    }
}
