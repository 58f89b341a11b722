//! `Write`: a write of one key, which invalidates the load of that key if it happens.

use super::Flights;
use crate::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

/// A write of one key that is about to happen, or not to; see the [module](super).
///
/// Dropping it says that nothing was written.
#[must_use = "a write that is not committed invalidates nothing"]
pub struct Write<'a, K, T> {
    flights: &'a Flights<K, T>,
    hash: u64,
    /// There if loads of the key may be under way.
    intent: Option<Arc<Intent>>,
    is_done: bool,
}

/// What a write and the loads that it meets tell each other: nothing yet, how the write ended, or
/// the id of what a load has published and left to the write to take back.
#[derive(Debug)]
pub struct Intent {
    state: AtomicUsize,
}

/// Values of an [`Intent`] that are no id: those are greater.
const PENDING: usize = 0;
const COMMITTED: usize = 1;
const VOID: usize = 2;

impl<'a, K, T> Write<'a, K, T> {
    pub(super) fn new(flights: &'a Flights<K, T>, hash: u64) -> Self {
        let intent = flights.is_used().then(|| flights.shard(hash).announce(hash)).flatten();
        Self { flights, hash, intent, is_done: false }
    }

    /// Says that the key was written: its loads are invalid.
    ///
    /// Returns the id of what a load has published that ended while the write was under way:
    /// the caller has to take it out, and only that. It was pinned since before it began to write.
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
            // Whether it was written is not known.
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

    /// Returns whether the write has happened; `None` if it is still under way.
    pub(super) fn end(&self) -> Option<bool> {
        // Relaxed: an end that is seen late is taken for none, which invalidates at most too much.
        match self.state.load(Ordering::Relaxed) {
            COMMITTED => Some(true),
            VOID => Some(false),
            _ => None,
        }
    }

    /// Ends the write: it has happened. Returns what a load has left to it.
    fn commit(&self) -> Option<usize> {
        // AcqRel: Acquire pairs with the Release in `publish`: what the load has published is
        // found. Release pairs with the Acquire there.
        let before = self.state.swap(COMMITTED, Ordering::AcqRel);
        (!matches!(before, PENDING | COMMITTED | VOID)).then_some(before)
    }

    /// Ends the write: it has not happened.
    fn give_up(&self) {
        self.state.store(VOID, Ordering::Relaxed); // Relaxed: nothing follows from it.
    }

    /// Leaves what a load has published to the write, if that is still under way. Returns whether
    /// the load need not take it back itself.
    pub(super) fn publish(&self, id: usize) -> bool {
        debug_assert!(id > VOID, "no id");
        // AcqRel: Release pairs with the Acquire in `commit`, Acquire with the Release there.
        // Acquire where it fails: as above. What the write has done comes before what the load does
        // next.
        match self.state.compare_exchange(PENDING, id, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) | Err(VOID) => true,
            // It has happened; or another load of an equal hash has left its entry there, and this
            // one is taken back to be on the safe side.
            Err(_) => false,
        }
    }
}

impl<K, T> std::fmt::Debug for Write<'_, K, T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Write").field("hash", &self.hash).finish_non_exhaustive()
    }
}
