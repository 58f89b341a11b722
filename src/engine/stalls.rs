//! Stalled readers: finds threads that stay pinned and delay reclamation.
//!
//! The [detector](crate::reclaim::stall) is taken out while it is used. It receives the pins of
//! each scan together with the time of the cache's clock, so no user code runs and no slot is read
//! while it is out. A thread that finds it taken retries a bounded number of times.

use std::{mem, time::Duration};

use super::{Engine, place::borrow};
use crate::{
    reclaim::{READERS_ARE_KNOWN, pins_of, stall::StallDetector},
    sync::thread,
    util::caught,
};

/// Attempts of a requested scan to record what it found. The detector is out only while a few
/// numbers are copied, unless its holder was preempted; `yield_now` lets that thread run.
const MAX_TRIES: usize = 64;

/// A thread that stays pinned in a cache, so that nothing that is removed there can be freed.
///
/// A reader is *stalled* if scans have found it in the same pin of the cache for at least 100 ms,
/// by the cache's [`Clock`](crate::Clock). A pin lasts from the first
/// [`ValueRef`](crate::ValueRef), [`CacheRef`](crate::CacheRef) or iterator that a thread holds
/// until it has dropped the last; a thread that pins again and again is never stalled. A thread
/// that is pinned only in another cache is not stalled in this one. A thread that is pinned in
/// several caches at once delays reclamation in all caches, and is stalled in all of them.
///
/// [`Cache::stalled_readers`](crate::Cache::stalled_readers) and
/// [`Cache::memory`](crate::Cache::memory) scan. While garbage waits for readers, maintenance scans
/// as well, and so do writes that free garbage or are rejected for too much of it, at most once
/// every 10 ms.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use cortado::{Cache, ManualClock};
///
/// let clock = ManualClock::new();
/// let cache = Cache::builder().max_cost(10).clock(clock.clone()).build_manual()?;
/// cache.insert("k", 1);
/// let held = cache.get("k");
/// cache.remove("k");
/// cache.flush(); // nothing can be freed, so this scans
/// clock.advance(Duration::from_secs(3));
/// for reader in cache.stalled_readers() {
///     println!("{:?} {:?}: {:?}", reader.thread, reader.name, reader.pinned_for);
///     assert_eq!(reader.pinned_for, Duration::from_secs(3));
/// }
/// # #[cfg(not(feature = "crossbeam-epoch"))]
/// assert_eq!(cache.stalled_readers().len(), 1);
/// drop(held);
/// assert!(cache.stalled_readers().is_empty());
/// # Ok::<(), cortado::BuildError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct StalledReader {
    /// The thread's number. This library numbers the threads that use it, starting with 1, so it
    /// distinguishes threads of the same name; the operating system does not know it. `None` for a
    /// thread that pinned after the destruction of its thread-local variables had begun.
    pub thread: Option<u64>,
    /// The first 16 bytes of the thread's name at its first pin; empty if it has no name, or no
    /// number.
    pub name: String,
    /// The time since the first scan that found the thread in this pin. The pin itself is older.
    pub pinned_for: Duration,
}

impl<K, V, S> Engine<K, V, S> {
    /// Scans the pins of this cache, unless the last such scan was a moment ago.
    #[cold]
    pub(super) fn scan_pins_if_due(&self) {
        if !READERS_ARE_KNOWN {
            return;
        }
        let Some(now) = caught(|| self.timing.now()) else { return };
        if borrow(&self.stalls, |stalls| stalls.begin_scan(now)) == Some(true) {
            self.scan_pins(1, |_, _| ());
        }
    }

    /// Scans, and returns the stalled readers; empty if they are unknown.
    pub fn stalled_readers(&self) -> Vec<StalledReader> {
        let found = self.scan_pins(MAX_TRIES, |stalls, now| {
            let stalled = stalls.stalled(now).map(|(pin, pinned_for)| {
                let reader = pin.reader();
                StalledReader { thread: reader.thread, name: reader.name, pinned_for }
            });
            stalled.collect()
        });
        found.unwrap_or_default()
    }

    /// Scans, and returns the number of stalled readers; `None` if it is unknown.
    pub(super) fn count_stalled_readers(&self) -> Option<u64> {
        self.scan_pins(MAX_TRIES, |stalls, now| stalls.stalled(now).count() as u64)
    }

    /// Scans, and calls `f` with the detector and the time of the scan, unless another thread holds
    /// the detector in all `tries` attempts.
    fn scan_pins<R>(&self, tries: usize, f: impl Fn(&StallDetector, u64) -> R) -> Option<R> {
        if !READERS_ARE_KNOWN {
            return None;
        }
        // In this order: the pins existed before `now`, and `stalled` checks afterwards that they
        // still do. So a pin that it returns has lasted for all the time that it reports.
        let mut pins = pins_of(self.table.domain());
        let now = caught(|| self.timing.now())?;
        for tried in 1..=tries {
            let found = borrow(&self.stalls, |stalls| {
                stalls.record(mem::take(&mut pins), now);
                f(stalls, now)
            });
            if found.is_some() {
                return found;
            }
            if tried < tries {
                thread::yield_now();
            }
        }
        None
    }
}
