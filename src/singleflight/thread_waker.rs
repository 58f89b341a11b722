//! `ThreadWaker`: a waker that unparks a thread, so that threads wait for flights as tasks do.

use std::task::Wake;

#[cfg(cortado_loom)]
use crate::sync::Notify;
#[cfg(not(cortado_loom))]
use crate::sync::{
    atomic::{AtomicBool, Ordering},
    thread,
};

/// Wakes a thread that waits for a flight.
#[cfg(not(cortado_loom))]
pub struct ThreadWaker {
    is_set: AtomicBool,
    thread: thread::Thread,
}

#[cfg(not(cortado_loom))]
impl ThreadWaker {
    /// Makes a waker for this thread.
    pub fn new() -> std::sync::Arc<Self> {
        std::sync::Arc::new(Self { is_set: AtomicBool::new(false), thread: thread::current() })
    }

    /// Blocks until woken.
    pub fn wait(&self) {
        // Acquire: pairs with the Release in `wake`. A loop, because `park` may return spuriously.
        while !self.is_set.swap(false, Ordering::Acquire) {
            thread::park();
        }
    }

    /// Blocks until woken or until `time` has passed; may return spuriously.
    pub fn wait_timeout(&self, time: std::time::Duration) {
        // Acquire: as in `wait`.
        if !self.is_set.swap(false, Ordering::Acquire) {
            thread::park_timeout(time);
        }
    }
}

#[cfg(not(cortado_loom))]
impl Wake for ThreadWaker {
    fn wake(self: std::sync::Arc<Self>) {
        // Release: pairs with the Acquire in `wait`.
        self.is_set.store(true, Ordering::Release);
        self.thread.unpark();
    }
}

/// Wakes a thread that waits for a flight. Uses `Notify` under loom, whose `unpark` may be lost.
#[cfg(cortado_loom)]
pub struct ThreadWaker(Notify);

#[cfg(cortado_loom)]
impl ThreadWaker {
    /// Makes a waker for this thread.
    pub fn new() -> std::sync::Arc<Self> {
        std::sync::Arc::new(Self(Notify::new()))
    }

    /// Blocks until woken.
    pub fn wait(&self) {
        self.0.wait();
    }
}

#[cfg(cortado_loom)]
impl Wake for ThreadWaker {
    fn wake(self: std::sync::Arc<Self>) {
        self.0.notify();
    }
}

#[cfg(all(test, not(any(cortado_loom, cortado_shuttle))))]
mod tests {
    use std::{sync::Arc, task::Waker, time::Duration};

    use super::*;

    #[test]
    fn an_earlier_wake_ends_one_wait() {
        let signal = ThreadWaker::new();
        for wait in [ThreadWaker::wait, |signal: &ThreadWaker| signal.wait_timeout(Duration::MAX)] {
            Waker::from(Arc::clone(&signal)).wake_by_ref();
            assert!(signal.is_set.load(Ordering::Relaxed));
            wait(&signal);
            assert!(!signal.is_set.load(Ordering::Relaxed));
        }
        signal.wait_timeout(Duration::ZERO);
    }

    #[test]
    fn a_spurious_unpark_does_not_end_the_wait() {
        let signal = ThreadWaker::new();
        let (is_asked, is_woken) = (AtomicBool::new(false), AtomicBool::new(false));
        thread::scope(|scope| {
            scope.spawn(|| {
                while !is_asked.load(Ordering::Acquire) {
                    thread::yield_now();
                }
                is_woken.store(true, Ordering::Relaxed);
                Waker::from(Arc::clone(&signal)).wake();
            });
            thread::current().unpark();
            is_asked.store(true, Ordering::Release);
            signal.wait();
            assert!(is_woken.load(Ordering::Relaxed));
        });
    }
}
