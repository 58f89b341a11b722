//! `EventCount`: how the thread of a cache sleeps, and is woken, or found awake, at the price of one load.
//!
//! # Protocol
//!
//! The thread is running, in a timed wait (which ends on its own), waiting, or stopping. Only the thread prepares to sleep,
//! anyone may wake it, and stopping is final.
//!
//! Work may come while the thread prepares to sleep, and neither may miss the other: the thread by sleeping over
//! it, its bringer by taking the thread for awake. So the thread looks for work once more when it has
//! prepared to sleep, and each place where work may lie is changed by read-modify-writes only: the bringer's
//! (Acquire) and the thread's look, which writes what is there (Release). Of two read-modify-writes of
//! one place either is first. If it is the bringer's, the look finds the work. If it is the look, the
//! bringer has seen it, and so finds in [`notify`](EventCount::notify) that the thread has prepared to sleep. A plain
//! look, and a plain look by the bringer, could pass each other by (`docs/decisions/0016`).

use std::time::Duration;

use crate::sync::{
    OnceLock,
    atomic::{AtomicU8, Ordering},
    thread,
};

/// Wakes the thread, if there is one.
#[derive(Debug, Default)]
pub struct EventCount {
    state: AtomicU8,
    thread: OnceLock<thread::Thread>,
}

impl EventCount {
    /// Tells which thread to wake; said once.
    pub fn set_thread(&self, thread: thread::Thread) {
        let _ = self.thread.set(thread);
    }

    /// Wakes the thread unless it is awake. To be called after the work is where the thread looks for it.
    ///
    /// What the caller did before is seen by the thread's next round.
    #[inline]
    pub fn notify(&self) {
        // Relaxed: a look only, so that a busy cache does not write the line; the exchange decides. If the
        // thread's recheck has missed the caller's work, the caller has seen that look, and so this.
        if self.state.load(Ordering::Relaxed) >= TIMED_WAIT {
            self.notify_slowly();
        }
    }

    /// Returns whether the thread sleeps for as long as no thread wakes it.
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
            // AcqRel: Release pairs with the Acquire in `resume`; Acquire with the Release in `prepare`, so
            // that the thread's handle is seen. Relaxed: a failure is only compared.
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

    /// Has the calling thread, which must be the one, sleep for `timeout` or until woken.
    pub fn wait_timeout(&self, timeout: Duration) {
        if self.prepare(TIMED_WAIT) {
            thread::park_timeout(timeout);
        }
    }

    /// Has the calling thread, which must be the one, sleep until woken.
    ///
    /// `recheck` is asked when others can see that the thread has prepared to sleep: for how long it may sleep, or for
    /// ever. It looks by read-modify-writes that release.
    pub fn wait(&self, mut recheck: impl FnMut() -> Option<Duration>) {
        let early = mutant!("eventcount_rechecks_before").then(&mut recheck);
        if !self.prepare(WAITING) {
            return;
        }
        let rest = early.unwrap_or_else(recheck);
        // Relaxed: `resume` acquires. The look may run user code that parks, and takes the token of a wake.
        if self.state.load(Ordering::Relaxed) != WAITING && !mutant!("eventcount_trusts_its_token")
        {
            return;
        }
        match rest {
            None => thread::park(),
            Some(rest) => thread::park_timeout(rest),
        }
    }

    /// Notes that the thread is about to sleep; returns whether it may, for it is not to stop.
    ///
    /// Whoever stops it from now on unparks it, too. Whoever did before may have done so in vain: what runs
    /// in a round may park and be woken by that.
    fn prepare(&self, state: u8) -> bool {
        if mutant!("eventcount_prepares_by_store") {
            self.state.store(state, Ordering::Release);
            return true;
        }
        // AcqRel: Acquire so that a look that follows finds the work of whoever woke it last; Release pairs
        // with the Acquire of whoever wakes or stops the thread, who sees its handle. A stop is never
        // overwritten.
        // Relaxed: stopping, seen by `resume`.
        let may = self.state.compare_exchange(RUNNING, state, Ordering::AcqRel, Ordering::Relaxed);
        may.is_ok()
    }

    /// Notes that the thread is up; returns whether it is to stop.
    pub fn resume(&self) -> bool {
        // Acquire: pairs with the Release of whoever woke the thread.
        let mut seen = self.state.load(Ordering::Acquire);
        while seen >= TIMED_WAIT {
            // AcqRel, Acquire: as above; a failure means that another thread woke or stops it. Release: so that
            // whoever reads this for what `prepare` wrote sees no less.
            match self.state.compare_exchange(seen, RUNNING, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return false,
                Err(now) => seen = now,
            }
        }
        seen == STOPPING
    }

    /// Tells the thread to stop.
    pub fn stop(&self) {
        // AcqRel: Release pairs with the Acquire in `resume`; Acquire with the Release in `prepare`, so that the
        // handle of a thread that has prepared to sleep is seen. A swap, for loom does not order a plain store against the
        // exchanges.
        self.state.swap(STOPPING, Ordering::AcqRel);
        if let Some(thread) = self.thread.get() {
            thread.unpark();
        }
    }
}

const RUNNING: u8 = 0;
const STOPPING: u8 = 1;
/// Asleep until a time; from here on a thread can be woken.
const TIMED_WAIT: u8 = 2;
/// Asleep until woken.
const WAITING: u8 = 3;

#[cfg(all(test, not(any(cortado_loom, cortado_shuttle))))]
mod tests {
    use std::cell::Cell;

    use super::*;

    /// One that wakes this thread.
    fn of_this_thread() -> EventCount {
        let eventcount = EventCount::default();
        eventcount.set_thread(thread::current());
        eventcount
    }

    fn state(eventcount: &EventCount) -> u8 {
        eventcount.state.load(Ordering::Relaxed)
    }

    #[test]
    fn work_that_comes_when_the_thread_has_lain_down_wakes_it() {
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
    fn thread_resumes_by_itself_and_is_waiting_only_without_a_time() {
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
        eventcount.wait(|| unreachable!("it is not to lie down"));
        assert!(eventcount.resume() && state(&eventcount) == STOPPING);
    }
}
