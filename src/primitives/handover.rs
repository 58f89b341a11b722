//! `Handover`: passes the remains of a cache from its maintenance thread to the owner that has
//! stopped that thread.
//!
//! # Protocol
//!
//! The owner is the thread that drops the last handle. It has requested the maintenance thread to
//! stop, and must not wait for user code (a destructor, a listener, a clock). One word of flags
//! decides:
//!
//! | flag | set by | meaning |
//! |---|---|---|
//! | `BUSY` | the thread, around each section that may call user code | the owner need not wait |
//! | `AWAITED` | the owner, before it sleeps | its handle is stored: unpark it after a change |
//! | `OVER` | the thread, as its last change | the remains are stored |
//!
//! Each change is a read-modify-write of this word, so `AWAITED` and a change by the thread are
//! ordered: either the owner sees the change and does not sleep, or the thread sees `AWAITED` and
//! unparks the owner.
//!
//! An owner that sees `OVER` takes the remains and drops them. An owner that sees `BUSY` returns
//! without them. The thread still stores the remains, and they are dropped with the `Handover`,
//! whose last reference is the thread's by then. So they are dropped exactly once, whichever side
//! is last.

use std::time::Duration;

use crate::sync::{
    Mutex, OnceLock,
    atomic::{AtomicU8, Ordering},
    thread,
};

/// The thread may be in user code.
const BUSY: u8 = 1;
/// The owner sleeps until the thread changes a flag.
const AWAITED: u8 = 2;
/// The remains are stored.
const OVER: u8 = 4;

/// Passes a `T` from a cache's maintenance thread to the owner; shared by both.
#[derive(Debug)]
pub struct Handover<T> {
    flags: AtomicU8,
    remains: Mutex<Option<T>>,
    owner: OnceLock<thread::Thread>,
}

impl<T> Handover<T> {
    /// Makes a `Handover` whose thread is not in user code.
    pub fn new() -> Self {
        Self { flags: AtomicU8::new(0), remains: Mutex::new(None), owner: OnceLock::new() }
    }

    /// Calls `f`, which may run user code and which the owner does not wait for. Called by the
    /// maintenance thread.
    pub fn in_user_code<R>(&self, f: impl FnOnce() -> R) -> R {
        struct Leave<'a, T>(&'a Handover<T>);
        impl<T> Drop for Leave<'_, T> {
            fn drop(&mut self) {
                // AcqRel: as on entry.
                let seen = self.0.flags.fetch_and(!BUSY, Ordering::AcqRel);
                self.0.unpark_owner(seen);
            }
        }
        // AcqRel: as in `finish`; only the owner's handle is published here.
        let seen = self.flags.fetch_or(BUSY, Ordering::AcqRel);
        if !mutant!("handover_enters_silently") {
            self.unpark_owner(seen);
        }
        let _leave = Leave(self);
        f()
    }

    /// Stores the remains. The maintenance thread's last call before it drops its reference to
    /// this.
    pub fn finish(&self, remains: T) {
        *self.remains.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) = Some(remains);
        // AcqRel: Release pairs with the Acquire in `wait`, so that an owner that sees `OVER` finds
        // the remains; Acquire with the Release there, so that a waiting owner's handle is visible.
        let seen = self.flags.fetch_or(OVER, Ordering::AcqRel);
        if !mutant!("handover_ends_silently") {
            self.unpark_owner(seen);
        }
    }

    /// Waits for the remains and returns them. Called by the owner after it has stopped the thread.
    ///
    /// With a `patience`, returns `None` if the thread is in user code for longer than that.
    pub fn wait(&self, patience: Option<Duration>) -> Option<T> {
        let _ = self.owner.set(thread::current());
        let mut was_patient = false;
        loop {
            let early = mutant!("handover_looks_before")
                // Relaxed: a mutant.
                .then(|| self.flags.load(Ordering::Relaxed));
            // AcqRel: Release pairs with the Acquire of the thread's changes, which then see the
            // owner's handle; Acquire with the Release in `finish`, so that the remains are
            // visible.
            let seen = self.flags.fetch_or(AWAITED, Ordering::AcqRel);
            let seen = early.unwrap_or(seen);
            if seen & OVER != 0 {
                return self.remains.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).take();
            }
            match patience {
                Some(_) if seen & BUSY != 0 && was_patient => {
                    // Relaxed: this only saves the owner a spurious unpark.
                    self.flags.fetch_and(!AWAITED, Ordering::Relaxed);
                    return None;
                }
                Some(time) if seen & BUSY != 0 => {
                    was_patient = true;
                    thread::park_timeout(time);
                }
                _ => thread::park(),
            }
        }
    }

    fn unpark_owner(&self, seen: u8) {
        if seen & AWAITED != 0
            && let Some(owner) = self.owner.get()
        {
            owner.unpark();
        }
    }
}

impl<T> Default for Handover<T> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(all(test, not(any(cortado_loom, cortado_shuttle))))]
mod tests {
    use std::sync::{Arc, mpsc};

    use super::*;

    const PATIENCE: Option<Duration> = Some(Duration::ZERO);

    #[test]
    fn waiting_owner_receives_the_remains() {
        let handover = Handover::new();
        thread::scope(|scope| {
            scope.spawn(|| {
                assert_eq!(handover.in_user_code(|| 2), 2);
                handover.finish("remains");
            });
            assert_eq!(handover.wait(None), Some("remains"));
        });
        assert_eq!((handover.wait(None), handover.wait(PATIENCE)), (None, None));
    }

    #[test]
    fn owner_leaves_a_thread_that_is_in_user_code_and_the_remains_are_dropped() {
        let remains = Arc::new(());
        let handover = Arc::new(Handover::new());
        let (inside, is_inside) = mpsc::channel();
        let (release, is_released) = mpsc::channel::<()>();
        let thread = {
            let (handover, remains) = (Arc::clone(&handover), Arc::clone(&remains));
            thread::spawn(move || {
                handover.in_user_code(|| {
                    inside.send(()).unwrap();
                    let _ = is_released.recv();
                });
                handover.finish(remains);
            })
        };
        is_inside.recv().unwrap();
        assert_eq!(handover.wait(PATIENCE), None);
        drop(handover);
        assert_eq!(Arc::strong_count(&remains), 2);
        drop(release);
        thread.join().unwrap();
        assert_eq!(Arc::strong_count(&remains), 1);
    }

    #[test]
    fn panic_in_user_code_ends_its_section() {
        let handover = Handover::<()>::new();
        let section = std::panic::AssertUnwindSafe(|| handover.in_user_code(|| panic!("planned")));
        assert!(std::panic::catch_unwind(section).is_err());
        assert_eq!(handover.flags.load(Ordering::Relaxed), 0);
    }
}
