//! `EventCount`: lets a cache's maintenance thread sleep until it is notified; notifying a running
//! thread costs one load.
//!
//! # Protocol
//!
//! The thread is running, in a timed wait (which ends on its own), waiting, or stopping. Only the
//! thread itself prepares to sleep; any thread may wake it; stopping is final.
//!
//! Work may arrive while the thread prepares to sleep. The sleeper must not miss the work, and the
//! producer must not miss that the thread sleeps. Therefore the thread rechecks for work after it
//! has prepared to sleep, and each place that may hold work is changed by read-modify-writes only:
//! the producer's (Acquire), and that of the recheck, which writes back the value it finds
//! (Release). Two read-modify-writes of one place are totally ordered:
//!
//! * If the producer's is first, the recheck finds the work.
//! * If the recheck is first, the producer synchronizes with it, and finds in
//!   [`notify`](EventCount::notify) that the thread has prepared to sleep.
//!
//! With a plain load on each side, both could miss the other's write (`docs/decisions/0016`).

use std::time::Duration;

use crate::sync::{
    OnceLock,
    atomic::{AtomicU8, Ordering},
    thread,
};

const RUNNING: u8 = 0;
const STOPPING: u8 = 1;
/// Asleep with a timeout. States from here on mean that the thread can be woken.
const TIMED_WAIT: u8 = 2;
/// Asleep until notified.
const WAITING: u8 = 3;

/// The wait state of one maintenance thread, if there is one.
#[derive(Debug, Default)]
pub struct EventCount {
    state: AtomicU8,
    thread: OnceLock<thread::Thread>,
}

impl EventCount {
    /// Sets the thread to wake. Only the first call has an effect.
    pub fn set_thread(&self, thread: thread::Thread) {
        let _ = self.thread.set(thread);
    }

    /// Wakes the thread if it sleeps. Call this after the work is where the thread rechecks for it.
    ///
    /// The thread's next round sees what the caller did before.
    #[inline]
    pub fn notify(&self) {
        // Relaxed: a load only, so that a busy cache does not write the line; the exchange decides.
        // If the thread's recheck missed the caller's work, the caller has synchronized with that
        // recheck and sees the state that was stored before it.
        if self.state.load(Ordering::Relaxed) >= TIMED_WAIT {
            self.notify_slowly();
        }
    }

    /// Returns whether the thread sleeps without a timeout.
    #[inline]
    pub fn is_waiting(&self) -> bool {
        self.state.load(Ordering::Relaxed) == WAITING // Relaxed: as in `notify`.
    }

    #[cold]
    fn notify_slowly(&self) {
        let mut seen = self.state.load(Ordering::Relaxed); // Relaxed: as in `notify`.
        while seen >= TIMED_WAIT {
            if mutant!("eventcount_notifies_by_store") {
                self.state.store(RUNNING, Ordering::Release);
            }
            // AcqRel: Release pairs with the Acquire in `resume`; Acquire with the Release in
            // `prepare`, so that the thread's handle is visible.
            // Relaxed: the value of a failed exchange is only compared.
            match self.state.compare_exchange(seen, RUNNING, Ordering::AcqRel, Ordering::Relaxed) {
                Ok(_) => {
                    if let Some(thread) = self.thread.get() {
                        thread.unpark();
                    }
                    return;
                }
                Err(now) => seen = now,
            }
        }
    }

    /// Puts the calling thread to sleep for `timeout` or until it is notified. It must be the
    /// thread of [`set_thread`](Self::set_thread).
    pub fn wait_timeout(&self, timeout: Duration) {
        if self.prepare(TIMED_WAIT) {
            thread::park_timeout(timeout);
        }
    }

    /// Puts the calling thread to sleep until it is notified. It must be the thread of
    /// [`set_thread`](Self::set_thread).
    ///
    /// `recheck` is called once other threads can see that the thread has prepared to sleep. It
    /// returns how long the thread may sleep, or `None` for no limit, and must read by releasing
    /// read-modify-writes.
    pub fn wait(&self, mut recheck: impl FnMut() -> Option<Duration>) {
        let early = mutant!("eventcount_rechecks_before").then(&mut recheck);
        if !self.prepare(WAITING) {
            return;
        }
        let rest = early.unwrap_or_else(recheck);
        // Relaxed: `resume` acquires. `recheck` may run user code that parks and so consumes the
        // unpark token of a notification.
        if self.state.load(Ordering::Relaxed) != WAITING && !mutant!("eventcount_trusts_its_token")
        {
            return;
        }
        match rest {
            None => thread::park(),
            Some(rest) => thread::park_timeout(rest),
        }
    }

    /// Announces that the thread is about to sleep; returns `false` if it must stop instead.
    ///
    /// A `stop` after this unparks the thread. The unpark of an earlier `stop` may be lost: user
    /// code that ran in a round may have parked and consumed it.
    fn prepare(&self, state: u8) -> bool {
        if mutant!("eventcount_prepares_by_store") {
            self.state.store(state, Ordering::Release);
            return true;
        }
        // AcqRel: Acquire pairs with the Release of the last `notify`, so that the recheck finds
        // its work; Release pairs with the Acquire in `notify_slowly` and `stop`, which then see
        // the thread's handle. An exchange, so that a stop is never overwritten.
        // Relaxed: it failed because of a stop, which `resume` acquires.
        let may = self.state.compare_exchange(RUNNING, state, Ordering::AcqRel, Ordering::Relaxed);
        may.is_ok()
    }

    /// Announces that the thread runs again; returns whether it must stop.
    pub fn resume(&self) -> bool {
        // Acquire: pairs with the Release in `notify_slowly` and `stop`.
        let mut seen = self.state.load(Ordering::Acquire);
        while seen >= TIMED_WAIT {
            // AcqRel: Acquire as above; Release so that a thread that reads this value in place of
            // the one of `prepare` sees no less.
            // Acquire: as above; the exchange fails if another thread notifies or stops this one.
            match self.state.compare_exchange(seen, RUNNING, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return false,
                Err(now) => seen = now,
            }
        }
        seen == STOPPING
    }

    /// Requests the thread to stop, and wakes it.
    pub fn stop(&self) {
        // AcqRel: Release pairs with the Acquire in `resume`; Acquire with the Release in
        // `prepare`, so that the handle of a thread that has prepared to sleep is visible. A swap,
        // because loom does not order a plain store against the exchanges.
        self.state.swap(STOPPING, Ordering::AcqRel);
        if let Some(thread) = self.thread.get() {
            thread.unpark();
        }
    }
}

#[cfg(all(test, not(any(cortado_loom, cortado_shuttle))))]
mod tests {
    use std::cell::Cell;

    use super::*;

    /// Returns an `EventCount` that wakes this thread.
    fn of_this_thread() -> EventCount {
        let eventcount = EventCount::default();
        eventcount.set_thread(thread::current());
        eventcount
    }

    fn state(eventcount: &EventCount) -> u8 {
        eventcount.state.load(Ordering::Relaxed)
    }

    #[test]
    fn work_that_arrives_after_prepare_wakes_the_thread() {
        let eventcount = of_this_thread();
        let rechecks = Cell::new(0);
        for _ in 0..2 {
            assert!(!eventcount.is_waiting());
            eventcount.wait(|| {
                assert!(eventcount.is_waiting());
                eventcount.notify();
                assert!(!eventcount.is_waiting());
                rechecks.set(rechecks.get() + 1);
                None
            });
            assert!(!eventcount.resume());
        }
        assert_eq!(rechecks.get(), 2);
    }

    #[test]
    fn timed_wait_ends_on_its_own_and_only_an_untimed_one_is_waiting() {
        let eventcount = of_this_thread();
        eventcount.wait_timeout(Duration::ZERO);
        assert_eq!((state(&eventcount), eventcount.is_waiting()), (TIMED_WAIT, false));
        assert!(!eventcount.resume());
        assert_eq!(state(&eventcount), RUNNING);
        eventcount.wait(|| Some(Duration::ZERO));
        assert_eq!((state(&eventcount), eventcount.is_waiting()), (WAITING, true));
        eventcount.notify();
        assert_eq!(state(&eventcount), RUNNING);
        eventcount.notify();
        assert!(!eventcount.resume());
    }

    #[test]
    fn stop_is_final() {
        let eventcount = of_this_thread();
        eventcount.wait(|| {
            eventcount.stop();
            None
        });
        assert!(eventcount.resume());
        eventcount.notify();
        eventcount.wait_timeout(Duration::MAX);
        eventcount.wait(|| unreachable!("a stopped thread does not sleep"));
        assert!(eventcount.resume() && state(&eventcount) == STOPPING);
    }
}
