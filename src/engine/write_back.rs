//! Write-back: passes an entry to the user's function before it is removed.
//!
//! The entry stays readable until the function has returned, and is removed only if the table still
//! holds the same one, so a load after a miss reads what was written. Two threads may want to write
//! an older and a newer entry of the same key. They exclude each other by a mutex chosen by the
//! key's hash, and the second one checks whether its entry is still in the table. An eviction never
//! waits for the mutex. See decision 0030.

use std::cell::Cell;
use std::sync::TryLockError;

use super::{Engine, RemovalCause};
use crate::{
    entry::Entry,
    metrics::Counter,
    reclaim::Guard,
    singleflight::is_loading,
    sync::{Mutex, MutexGuard, thread_local},
    table::EntryRef,
    util::caught,
};

/// Mutexes by which threads that write back entries of the same key exclude each other.
const WRITE_STRIPES: usize = 64;

thread_local! {
    /// Whether this thread runs a write-back function, of any cache.
    static IS_WRITING: Cell<bool> = const { Cell::new(false) };
}

type Write<K, V> = Box<dyn Fn(&K, &V) -> bool + Send + Sync>;

/// Writes entries back before they are removed, one of a key at a time.
pub struct WriteBack<K, V> {
    /// Writes an entry; returns whether it succeeded.
    write: Write<K, V>,
    /// Held by the thread that writes an entry of a key with this hash.
    turns: [Mutex<()>; WRITE_STRIPES],
}

/// The exclusive right to write back the entries of some keys.
type WriteTurn<'a> = MutexGuard<'a, ()>;

impl<K, V> WriteBack<K, V> {
    pub fn new(write: impl Fn(&K, &V) -> bool + Send + Sync + 'static) -> Self {
        let turns = std::array::from_fn(|_| Mutex::new(()));
        Self { write: Box::new(write), turns }
    }

    /// Returns the right to write back entries of this hash, unless another thread holds it.
    ///
    /// The caller must check afterwards that the entry is still in the table: otherwise, a newer
    /// one may have been written already, and this one would overwrite it.
    fn turn(&self, hash: u64) -> Option<WriteTurn<'_>> {
        match self.mutex(hash).try_lock() {
            Ok(turn) => Some(turn),
            Err(TryLockError::Poisoned(turn)) => Some(turn.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    /// Like [`turn`](Self::turn), but waits while another thread holds the right, if this thread
    /// [`may_wait`].
    fn wait_for_turn(&self, hash: u64) -> Option<WriteTurn<'_>> {
        if !may_wait() {
            return self.turn(hash);
        }
        Some(self.mutex(hash).lock().unwrap_or_else(|poisoned| poisoned.into_inner()))
    }

    fn mutex(&self, hash: u64) -> &Mutex<()> {
        &self.turns[hash as usize % WRITE_STRIPES]
    }

    /// Writes an entry back; returns whether it succeeded. A panic counts as no.
    fn write(&self, _: &WriteTurn<'_>, entry: &Entry<K, V>) -> bool {
        let before = IS_WRITING.try_with(|is_writing| is_writing.replace(true));
        let is_written = caught(|| (self.write)(&entry.key, &entry.value)).unwrap_or(false);
        if let Ok(before) = before {
            let _ = IS_WRITING.try_with(|is_writing| is_writing.set(before));
        }
        is_written
    }
}

/// Whether a thread waits while another one writes an entry of the same key back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// It waits: the entry has to be written.
    Wait,
    /// It does not wait: the entry stays, and another one may be evicted.
    Try,
}

/// The result of [`Engine::write_back`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Written {
    /// The entry may be removed: it was written, or there is no function.
    Yes,
    /// The function has refused it.
    Refused,
    /// Another thread writes an entry of this hash.
    Busy,
    /// The entry is not in the table any more.
    Gone,
}

/// The result of [`Engine::expire_entry`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Expire {
    /// The entry was removed.
    Removed,
    /// It could not be written back, and stays.
    Unwritten,
    /// Another thread writes it back, or an entry of the same hash; it may be removed soon.
    Busy,
    /// It is not there, or has not expired.
    NotDue,
}

impl<K, V, S> Engine<K, V, S> {
    /// Writes an entry back, if there is a write-back function.
    pub(super) fn write_back(
        &self,
        guard: &Guard,
        hash: u64,
        entry: EntryRef<'_, Entry<K, V>>,
        turn: Turn,
    ) -> Written {
        let Some(write_back) = &self.callbacks.write_back else { return Written::Yes };
        let turn = match turn {
            Turn::Wait => write_back.wait_for_turn(hash),
            Turn::Try => write_back.turn(hash),
        };
        let Some(turn) = turn else {
            self.note_veto();
            return Written::Busy;
        };
        let is_it = |other: EntryRef<'_, Entry<K, V>>| other.id() == entry.id();
        if self.table.find(guard, hash, is_it).is_none() {
            return Written::Gone;
        }
        if write_back.write(&turn, &entry) {
            return Written::Yes;
        }
        self.note_veto();
        Written::Refused
    }

    /// Writes an entry back that was unlinked without a prior write-back.
    pub(super) fn write_unlinked(&self, hash: u64, entry: EntryRef<'_, Entry<K, V>>) {
        if let Some(write_back) = &self.callbacks.write_back
            && let Some(turn) = write_back.wait_for_turn(hash)
        {
            write_back.write(&turn, &entry);
        }
    }

    /// Removes an entry if it has expired at `now`; if there is a write-back function, writes it
    /// back first.
    pub(super) fn expire_entry(
        &self,
        guard: &Guard,
        hash: u64,
        matches: impl Fn(EntryRef<'_, Entry<K, V>>) -> bool,
        now: u64,
        turn: Turn,
    ) -> Expire {
        let is_over = |entry: EntryRef<'_, Entry<K, V>>| !self.is_unexpired_at(entry, Some(now));
        let mut written = None;
        if self.callbacks.write_back.is_some() {
            let Some(entry) = self.table.find(guard, hash, &matches).map(|hit| hit.at()) else {
                return Expire::NotDue;
            };
            if !is_over(entry) {
                return Expire::NotDue;
            }
            match self.write_back(guard, hash, entry, turn) {
                Written::Yes => written = Some(entry.id()),
                Written::Refused => return Expire::Unwritten,
                Written::Busy => return Expire::Busy,
                Written::Gone => return Expire::NotDue,
            }
        }
        let is_it = |entry: EntryRef<'_, Entry<K, V>>| {
            written.map_or_else(|| matches(entry), |id| entry.id() == id)
        };
        let on_displaced = |entry| self.displace(guard, entry);
        let Some(entry) = self.table.remove_if(guard, hash, is_it, is_over, on_displaced) else {
            return Expire::NotDue;
        };
        self.counters.add(Counter::Expirations, 1);
        self.retire_unlinked(&self.table, guard, entry, RemovalCause::Expired, true);
        Expire::Removed
    }

    /// Returns whether entries are written back before they are removed.
    #[inline]
    pub fn writes_back(&self) -> bool {
        self.callbacks.write_back.is_some()
    }

    /// Writes back and removes the entry of a key if it has expired, so that the next read from the
    /// store is not older than it. Call it before anything is loaded, or computed from the absence
    /// of an entry. Returns whether another thread is writing it, or an entry of the same hash.
    ///
    /// Call it with [`Turn::Wait`] before a load begins, and with [`Turn::Try`] when it has begun:
    /// the other thread's function may wait for that load.
    #[inline]
    pub fn settle_expired(&self, hash: u64, matches: impl Fn(&K) -> bool, turn: Turn) -> bool {
        if self.writes_back()
            && let Some(now) = self.time_of_deadlines()
        {
            let guard = self.table.pin();
            let is_key = |entry: EntryRef<'_, Entry<K, V>>| matches(&entry.entry.key);
            self.expire_entry(&guard, hash, is_key, now, turn) == Expire::Busy
        } else {
            false
        }
    }

    /// Writes back the entry of an id before it is reloaded; the entry stays. Returns whether it
    /// was written. Does not wait: the caller leads the load.
    pub fn settle_refreshed(&self, hash: u64, id: usize) -> bool {
        let guard = self.table.pin();
        let is_it = |entry: EntryRef<'_, Entry<K, V>>| entry.id() == id;
        let hit = self.table.find(&guard, hash, is_it);
        let written = hit.map(|hit| self.write_back(&guard, hash, hit.at(), Turn::Try));
        written == Some(Written::Yes)
    }
}

/// Returns whether this thread may wait for a turn: not if it is writing an entry itself, or runs a
/// load. The other thread's function may have called a cache, and wait for what this thread holds.
pub fn may_wait() -> bool {
    !is_loading() && !IS_WRITING.try_with(Cell::get).unwrap_or(true)
}
