//! Departures: wakes a thread that waits for a guard to be dropped.
//!
//! # Protocol
//!
//! A thread whose garbage waits for a guard of unknown duration adds itself to a list and sets a
//! flag. A thread that drops a guard loads the flag, from a cache line that is rarely written. If
//! the flag is set, the thread takes one sleeper off the list and unparks it. The woken sleeper
//! wakes the next one before it starts to work, so a reader pays for one wake-up however many
//! caches wait.
//!
//! This is a hint, without a fence: the drop of a guard may be missed while the flag is being set,
//! and then the sleeper's timed wait ends on its own. Guards of the caches' own maintenance threads
//! wake no sleeper: these threads would wake each other endlessly.
//!
//! Except after races, a sleeper is in the list at most once. `is_listed` says that it is in the
//! list, and `is_waiting` that it wants to be woken. The thread that takes the sleeper off the list
//! swaps both, in this order; the sleeper sets them in the reverse order.

use crossbeam_utils::CachePadded;

use crate::primitives::stack::{Node, Stack};
use crate::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
        thread,
    },
    util::is_cache_thread,
};

/// The sleepers of this process.
static SLEEPERS: Sleepers = Sleepers::new();

/// Threads that wait for a departure.
struct Sleepers {
    /// Whether a sleeper may be in the list.
    are_there: CachePadded<AtomicBool>,
    list: OnceLock<Stack<Arc<Entry>>>,
}

/// A field of each guard, dropped after the collector's own guard.
#[derive(Debug)]
pub struct Departure;

impl Drop for Departure {
    #[inline]
    fn drop(&mut self) {
        // Relaxed: a hint.
        if SLEEPERS.are_there.load(Ordering::Relaxed) {
            SLEEPERS.depart();
        }
    }
}

/// Wakes one thread that waits for a departure, if there is one.
pub fn wake_next() {
    SLEEPERS.wake_next();
}

impl Sleepers {
    const fn new() -> Self {
        Self { are_there: CachePadded::new(AtomicBool::new(false)), list: OnceLock::new() }
    }

    #[cold]
    fn depart(&self) {
        if !is_cache_thread() {
            self.wake_next();
        }
    }

    fn wake_next(&self) {
        let Some(list) = self.list.get() else { return };
        // Relaxed, here and below: a hint. Cleared before the list is taken, so that a sleeper that
        // is added later sets it again.
        self.are_there.store(false, Ordering::Relaxed);
        let mut listed = list.take();
        if listed.any(|entry| entry.wake()) {
            list.put_back(listed);
            // Relaxed: as above. At worst, the list is empty.
            self.are_there.store(true, Ordering::Relaxed);
        }
    }
}

/// A thread that may wait for a departure.
pub struct Sleeper {
    entry: Arc<Entry>,
    sleepers: &'static Sleepers,
}

struct Entry {
    thread: thread::Thread,
    is_listed: AtomicBool,
    is_waiting: AtomicBool,
}

impl Sleeper {
    /// Makes a sleeper for this thread.
    pub fn new() -> Self {
        Self::of(&SLEEPERS)
    }

    fn of(sleepers: &'static Sleepers) -> Self {
        let no = || AtomicBool::new(false);
        let entry = Entry { thread: thread::current(), is_listed: no(), is_waiting: no() };
        Self { entry: Arc::new(entry), sleepers }
    }

    /// Registers this thread to be unparked at the next departure.
    pub fn wait(&self) {
        let (entry, sleepers) = (&self.entry, self.sleepers);
        // Relaxed: the swap below publishes it.
        entry.is_waiting.store(true, Ordering::Relaxed);
        // AcqRel: Release pairs with the Acquire in `wake`, so that a thread that takes the entry
        // off the list later sees that it waits. Acquire pairs with the Release there: the thread
        // that took the entry off before has ended the last wait.
        if !entry.is_listed.swap(true, Ordering::AcqRel) {
            sleepers.list.get_or_init(Stack::new).push(Node::new(Arc::clone(entry)));
        }
        sleepers.are_there.store(true, Ordering::Relaxed); // Relaxed: a hint.
    }

    /// Ends the wait; returns whether a departure had already ended it.
    pub fn stop(&self) -> bool {
        // Relaxed: only the flag itself matters.
        !self.entry.is_waiting.swap(false, Ordering::Relaxed)
    }

    /// Returns whether no departure has woken this thread since it began to wait.
    pub fn is_waiting(&self) -> bool {
        self.entry.is_waiting.load(Ordering::Relaxed) // Relaxed: a hint.
    }
}

impl Default for Sleeper {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Entry {
    /// Wakes the thread if it waits; returns whether it did. The caller has taken the entry off the
    /// list.
    fn wake(&self) -> bool {
        // AcqRel: Acquire pairs with the Release in `wait`, and Release with the Acquire there.
        self.is_listed.swap(false, Ordering::AcqRel);
        // Relaxed: if several threads take copies of the entry off, one of them gets `true`.
        let waits = self.is_waiting.swap(false, Ordering::Relaxed);
        if waits {
            self.thread.unpark();
        }
        waits
    }
}

impl std::fmt::Debug for Sleeper {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sleeper").field("is_waiting", &self.is_waiting()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        reclaim::pin,
        util::{forever, mark_cache_thread},
    };

    /// Returns a list of the test's own, so that guards of other tests wake none of its sleepers.
    fn sleepers() -> &'static Sleepers {
        forever(Sleepers::new())
    }

    #[test]
    fn dropped_guard_wakes_a_sleeper() {
        let sleeper = Sleeper::new();
        let guard = pin();
        sleeper.wait();
        drop(guard);
        // By this guard or by one of another test. Without a wake-up this waits for ever.
        while sleeper.is_waiting() {
            thread::park();
        }
        assert!(sleeper.stop());
    }

    #[test]
    fn a_departure_wakes_one_sleeper_and_each_of_them_the_next() {
        let list = sleepers();
        let sleepers: Vec<_> = (0..5).map(|_| Sleeper::of(list)).collect();
        sleepers.iter().for_each(Sleeper::wait);
        let count = || sleepers.iter().filter(|sleeper| sleeper.is_waiting()).count();
        list.depart();
        assert_eq!(count(), 4);
        for left in (0..4).rev() {
            list.wake_next();
            assert_eq!(count(), left);
        }
        list.wake_next();
        assert!(!list.are_there.load(Ordering::Relaxed));
        assert!(sleepers.iter().all(Sleeper::stop));
    }

    #[test]
    fn sleeper_that_has_stopped_hides_no_other() {
        let list = sleepers();
        let (one, other) = (Sleeper::of(list), Sleeper::of(list));
        other.wait();
        one.wait();
        one.wait();
        assert!(!one.stop());
        list.depart();
        assert!(!other.is_waiting());
        other.wait();
        drop(other);
        list.depart();
        assert!(!list.are_there.load(Ordering::Relaxed));
    }

    #[test]
    fn guard_of_a_maintenance_thread_wakes_no_sleeper() {
        let list = sleepers();
        let sleeper = Sleeper::of(list);
        sleeper.wait();
        let depart = || {
            mark_cache_thread(&0u8);
            list.depart();
        };
        thread::spawn(depart).join().unwrap();
        assert!(sleeper.is_waiting());
    }
}
