//! Stalled readers: threads that stay pinned and hold back garbage, and how they are found.
//!
//! The [detector](crate::reclaim::stall) is a box that is taken out while it is used. It gets the
//! pins of each scan together with the time, by the clock of the cache, so no user code runs and no
//! slot is read while it is out. A thread that does not get it tries again, for a bounded number of
//! times.

use std::{mem, time::Duration};

use super::{Engine, place::borrow};
use crate::{
    reclaim::{READERS_ARE_KNOWN, pins_of, stall::StallDetector},
    sync::thread,
    util::caught,
};

/// How often a scan that a user asked for tries to record what it found. The detector is out for
/// about as long as it takes to copy a few numbers, unless its holder loses its core; `yield_now`
/// lets that run.
const MAX_TRIES: usize = 64;

/// A thread that stays pinned in a cache, so that nothing that is removed there can be freed.
///
/// A reader is *stalled* if scans have found it in the same pin of the cache for at least 100 ms,
/// by the cache's [`Clock`](crate::Clock). A pin lasts from the first
/// [`ValueRef`](crate::ValueRef), [`CacheRef`](crate::CacheRef) or iterator that a thread holds until
/// its last; a thread that pins again and again is never stalled. Nor is one that is pinned in
/// another cache; one that is pinned in several at once holds back the garbage of all caches, and
/// is stalled in all of them.
///
/// A scan is made by [`Cache::stalled_readers`](crate::Cache::stalled_readers) and
/// [`Cache::memory`](crate::Cache::memory), and while garbage waits for readers also by maintenance
/// and by writes that free garbage or are rejected for too much of it, every 10 ms at most.
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
    /// The thread's number: this library numbers the threads that use it, from 1 on. It tells
    /// threads of the same name apart; the system does not know it. `None` for a thread that pinned
    /// after it had begun to destroy its thread-local variables.
    pub thread: Option<u64>,
    /// The first 16 bytes of the thread's name as they were at its first pin; empty if it has none,
    /// or no number.
    pub name: String,
    /// The time since the first scan that found the thread in this pin. The pin is older than that.
    pub pinned_for: Duration,
}

impl<K, V, S> Engine<K, V, S> {
    /// Scans the pins of this cache, unless the last scan of this kind was a moment ago.
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

    /// Scans, and returns the stalled readers; none if they are not known.
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

    /// Scans, and returns how many readers are stalled; `None` if that is not known.
    pub(super) fn count_stalled_readers(&self) -> Option<u64> {
        self.scan_pins(MAX_TRIES, |stalls, now| stalls.stalled(now).count() as u64)
    }

    /// Scans, and calls `f` with the detector and the time of the scan, if it gets the detector in
    /// so many tries.
    fn scan_pins<R>(&self, tries: usize, f: impl Fn(&StallDetector, u64) -> R) -> Option<R> {
        if !READERS_ARE_KNOWN {
            return None;
        }
        // In this order: the pins were there before `now`, and `stalled` looks after it whether
        // they still are, so that one which it returns has lasted for all the time that it names.
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
