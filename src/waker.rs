//! `Waker`: how the thread of a cache sleeps, and is woken, or found awake, at the price of one load.
//!
//! # Protocol
//!
//! The thread is awake, dozing (it wakes by itself), asleep, or stopping. Only the thread lies down,
//! anyone may wake it, and stopping is final.
//!
//! Work may come while the thread lies down, and neither may miss the other: the thread by sleeping over
//! it, its bringer by taking the thread for awake. So the thread looks for work once more when it has
//! lain down, and each place where work may lie is changed by read-modify-writes only: the bringer's
//! (Acquire) and the thread's look, which writes what is there (Release). Of two read-modify-writes of
//! one place either is first. If it is the bringer's, the look finds the work. If it is the look, the
//! bringer has seen it, and so finds in [`wake`](Waker::wake) that the thread has lain down. A plain
//! look, and a plain look by the bringer, could pass each other by (`docs/decisions/0016`).

use std::time::Duration;

use crate::sync::{
    OnceLock,
    atomic::{AtomicU8, Ordering},
    thread,
};

/// Wakes the thread, if there is one.
#[derive(Debug, Default)]
pub struct Waker {
    state: AtomicU8,
    thread: OnceLock<thread::Thread>,
}

impl Waker {
    /// Tells which thread to wake; said once.
    pub fn belongs_to(&self, thread: thread::Thread) {
        let _ = self.thread.set(thread);
    }

    /// Wakes the thread unless it is awake. To be called after the work is where the thread looks for it.
    ///
    /// What the caller did before is seen by the thread's next round.
    #[inline]
    pub fn wake(&self) {
        // Relaxed: a look only, so that a busy cache does not write the line; the exchange decides. If the
        // thread's last look has missed the caller's work, the caller has seen that look, and so this.
        if self.state.load(Ordering::Relaxed) >= DOZING {
            self.wake_sleeper();
        }
    }

    /// Returns whether the thread sleeps for as long as nobody wakes it.
    #[inline]
    pub fn is_idle(&self) -> bool {
        self.state.load(Ordering::Relaxed) == ASLEEP // Relaxed: as in `wake`.
    }

    #[cold]
    fn wake_sleeper(&self) {
        let mut seen = self.state.load(Ordering::Relaxed); // Relaxed: as in `wake`.
        while seen >= DOZING {
            if mutant!("waker_wakes_by_store") {
                self.state.store(AWAKE, Ordering::Release);
            }
            // AcqRel: Release pairs with the Acquire in `rise`; Acquire with the Release in `lie_down`, so
            // that the thread's handle is seen. Relaxed: a failure is only compared.
            match self.state.compare_exchange(seen, AWAKE, Ordering::AcqRel, Ordering::Relaxed) {
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

    /// Has the calling thread, which must be the one, sleep for `nap` or until woken.
    pub fn doze(&self, nap: Duration) {
        if self.lie_down(DOZING) {
            thread::park_timeout(nap);
        }
    }

    /// Has the calling thread, which must be the one, sleep until woken.
    ///
    /// `look` is asked when others can see that the thread has lain down: for how long it may sleep, or for
    /// ever. It looks by read-modify-writes that release.
    pub fn sleep(&self, mut look: impl FnMut() -> Option<Duration>) {
        let early = mutant!("waker_looks_before").then(&mut look);
        if !self.lie_down(ASLEEP) {
            return;
        }
        let rest = early.unwrap_or_else(look);
        // Relaxed: `rise` acquires. The look may run user code that parks, and takes the token of a wake.
        if self.state.load(Ordering::Relaxed) != ASLEEP && !mutant!("waker_trusts_its_token") {
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
    fn lie_down(&self, state: u8) -> bool {
        if mutant!("waker_lies_down_by_store") {
            self.state.store(state, Ordering::Release);
            return true;
        }
        // AcqRel: Acquire so that a look that follows finds the work of whoever woke it last; Release pairs
        // with the Acquire of whoever wakes or stops the thread, who sees its handle. A stop is never
        // overwritten.
        // Relaxed: stopping, seen by `rise`.
        let may = self.state.compare_exchange(AWAKE, state, Ordering::AcqRel, Ordering::Relaxed);
        may.is_ok()
    }

    /// Notes that the thread is up; returns whether it is to stop.
    pub fn rise(&self) -> bool {
        // Acquire: pairs with the Release of whoever woke the thread.
        let mut seen = self.state.load(Ordering::Acquire);
        while seen >= DOZING {
            // AcqRel, Acquire: as above; a failure means that somebody woke or stops it. Release: so that
            // whoever reads this for what `lie_down` wrote sees no less.
            match self.state.compare_exchange(seen, AWAKE, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return false,
                Err(now) => seen = now,
            }
        }
        seen == STOPPING
    }

    /// Tells the thread to stop.
    pub fn stop(&self) {
        // AcqRel: Release pairs with the Acquire in `rise`; Acquire with the Release in `lie_down`, so that the
        // handle of a thread that has lain down is seen. A swap, for loom does not order a plain store against the
        // exchanges.
        self.state.swap(STOPPING, Ordering::AcqRel);
        if let Some(thread) = self.thread.get() {
            thread.unpark();
        }
    }
}

const AWAKE: u8 = 0;
const STOPPING: u8 = 1;
/// Asleep until a time; from here on a thread can be woken.
const DOZING: u8 = 2;
/// Asleep until woken.
const ASLEEP: u8 = 3;

#[cfg(all(test, not(any(cortado_loom, cortado_shuttle))))]
mod tests {
    use std::cell::Cell;

    use super::*;

    /// One that wakes this thread.
    fn of_this_thread() -> Waker {
        let waker = Waker::default();
        waker.belongs_to(thread::current());
        waker
    }

    fn state(waker: &Waker) -> u8 {
        waker.state.load(Ordering::Relaxed)
    }

    #[test]
    fn work_that_comes_when_the_thread_has_lain_down_wakes_it() {
        let waker = of_this_thread();
        let looks = Cell::new(0);
        for _ in 0..2 {
            assert!(!waker.is_idle());
            waker.sleep(|| {
                assert!(waker.is_idle());
                waker.wake();
                assert!(!waker.is_idle());
                looks.set(looks.get() + 1);
                None
            });
            assert!(!waker.rise());
        }
        assert_eq!(looks.get(), 2);
    }

    #[test]
    fn thread_rises_by_itself_and_is_idle_only_where_it_sleeps_without_end() {
        let waker = of_this_thread();
        waker.doze(Duration::ZERO);
        assert_eq!((state(&waker), waker.is_idle()), (DOZING, false));
        assert!(!waker.rise());
        assert_eq!(state(&waker), AWAKE);
        waker.sleep(|| Some(Duration::ZERO));
        assert_eq!((state(&waker), waker.is_idle()), (ASLEEP, true));
        waker.wake();
        assert_eq!(state(&waker), AWAKE);
        waker.wake();
        assert!(!waker.rise());
    }

    #[test]
    fn stop_is_final() {
        let waker = of_this_thread();
        waker.sleep(|| {
            waker.stop();
            None
        });
        assert!(waker.rise());
        waker.wake();
        waker.doze(Duration::MAX);
        waker.sleep(|| unreachable!("it is not to lie down"));
        assert!(waker.rise() && state(&waker) == STOPPING);
    }
}
