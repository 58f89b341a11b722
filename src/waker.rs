//! `Waker`: how the thread of a cache is woken, or found awake, at the price of one load.
//!
//! # Protocol
//!
//! The thread is awake, dozing (it wakes by itself), asleep, or stopping. Only the thread lies down,
//! anyone may wake it, and stopping is final.

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

/// How the thread sleeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sleep {
    /// Until a time, or until woken.
    Doze,
    /// Until woken.
    Sound,
}

impl Waker {
    /// Tells which thread to wake; said once.
    pub fn belongs_to(&self, thread: thread::Thread) {
        let _ = self.thread.set(thread);
    }

    /// Wakes the thread unless it is awake.
    ///
    /// What the caller did before is seen by the thread's next round.
    #[inline]
    pub fn wake(&self) {
        // Relaxed: a look only, so that a busy cache does not write the line; the exchange decides.
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
            // AcqRel: Release pairs with the Acquire in `rise`; Acquire keeps the unpark behind
            // it. Relaxed: a failure is only compared.
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

    /// Notes that the thread is about to sleep, unless it is to stop.
    pub fn lie_down(&self, sleep: Sleep) {
        let state = match sleep {
            Sleep::Doze => DOZING,
            Sleep::Sound => ASLEEP,
        };
        // AcqRel: Release so that a waker that sees the state also finds the thread's last work
        // done; a stop is never overwritten.
        let _ = self.state.compare_exchange(AWAKE, state, Ordering::AcqRel, Ordering::Relaxed); // Relaxed: stopping, seen by the loop.
    }

    /// Notes that the thread is up; returns whether it is to stop.
    pub fn rise(&self) -> bool {
        // Acquire: pairs with the Release of whoever woke the thread.
        let seen = self.state.load(Ordering::Acquire);
        if seen == STOPPING {
            return true;
        }
        // AcqRel: as above; a failure means that somebody woke or stops it.
        let _ = self.state.compare_exchange(seen, AWAKE, Ordering::AcqRel, Ordering::Relaxed); // Relaxed: looked at again next time.
        false
    }

    /// Tells the thread to stop.
    pub fn stop(&self) {
        // Release: pairs with the Acquire in `rise`.
        self.state.store(STOPPING, Ordering::Release);
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
