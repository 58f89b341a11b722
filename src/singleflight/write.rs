//! `Write`: an announced write of one key, which invalidates the loads of that key if it is
//! committed.

use super::Flights;
use crate::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

/// States of an [`Intent`] that are not ids: every id is greater.
const PENDING: usize = 0;
const COMMITTED: usize = 1;
const VOID: usize = 2;

/// A write of one key that was announced but may not happen; see the [module](super).
///
/// Dropping it means that nothing was written.
#[must_use = "a write that is not committed invalidates nothing"]
pub struct Write<'a, K, T> {
    flights: &'a Flights<K, T>,
    hash: u64,
    /// `Some` if loads of the key may be running.
    intent: Option<Arc<Intent>>,
    is_done: bool,
}

/// The state shared by a write and the loads that run at the same time: pending, how the write
/// ended, or the id of an entry that a load has published and the write must take back.
#[derive(Debug)]
pub struct Intent {
    state: AtomicUsize,
}

impl<'a, K, T> Write<'a, K, T> {
    pub(super) fn new(flights: &'a Flights<K, T>, hash: u64) -> Self {
        let intent = flights.is_used().then(|| flights.shard(hash).announce(hash)).flatten();
        Self { flights, hash, intent, is_done: false }
    }

    /// Commits the write: the loads of the key become invalid.
    ///
    /// Returns the id of an entry that a load has published while the write was in progress. The
    /// caller must remove that entry and no other. It must have been pinned since before the write
    /// began.
    #[inline]
    pub fn commit(mut self) -> Option<usize> {
        self.is_done = true;
        self.finish()
    }

    #[inline]
    fn finish(&mut self) -> Option<usize> {
        let published = self.intent.take().and_then(|intent| intent.commit());
        if self.flights.is_used() {
            self.flights.shard(self.hash).invalidate(Some(self.hash));
        }
        published.filter(|_| !mutant!("singleflight_write_leaves_published"))
    }
}

impl<K, T> Drop for Write<'_, K, T> {
    #[inline]
    fn drop(&mut self) {
        if self.is_done {
            return;
        }
        if std::thread::panicking() {
            // The key may have been written.
            self.finish();
        } else if let Some(intent) = self.intent.take() {
            intent.give_up();
        }
    }
}

impl Intent {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self { state: AtomicUsize::new(PENDING) })
    }

    /// Returns whether the write has happened.
    pub(super) fn is_committed(&self) -> bool {
        self.end() == Some(true)
    }

    /// Returns whether the write has ended without a change.
    pub(super) fn is_void(&self) -> bool {
        self.end() == Some(false)
    }

    /// Returns whether the write has happened; `None` if it is still in progress.
    pub(super) fn end(&self) -> Option<bool> {
        // Relaxed: a write that appears pending for too long invalidates a load unnecessarily at
        // worst.
        match self.state.load(Ordering::Relaxed) {
            COMMITTED => Some(true),
            VOID => Some(false),
            _ => None,
        }
    }

    /// Ends the write as committed. Returns the id that a load has left in the intent.
    fn commit(&self) -> Option<usize> {
        // AcqRel: Acquire pairs with the Release in `publish`, so that the entry that the load has
        // published is found. Release pairs with the Acquire there.
        let before = self.state.swap(COMMITTED, Ordering::AcqRel);
        (!matches!(before, PENDING | COMMITTED | VOID)).then_some(before)
    }

    /// Ends the write without a change.
    fn give_up(&self) {
        self.state.store(VOID, Ordering::Relaxed); // Relaxed: no other access depends on it.
    }

    /// Leaves the id of a published entry to the write if that is still in progress. Returns
    /// `false` if the load must take the entry back itself.
    pub(super) fn publish(&self, id: usize) -> bool {
        debug_assert!(id > VOID, "no id");
        // AcqRel: Release pairs with the Acquire in `commit`, Acquire with the Release there.
        // Acquire on failure: as above; the write happens before what the load does next.
        match self.state.compare_exchange(PENDING, id, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) | Err(VOID) => true,
            // The write has happened, or another load of an equal hash has left its id there. In
            // the latter case the entry is taken back to be safe.
            Err(_) => false,
        }
    }
}

impl<K, T> std::fmt::Debug for Write<'_, K, T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Write").field("hash", &self.hash).finish_non_exhaustive()
    }
}
