//! The thread: sleep, wake, maintain, stop; nothing else.

use std::{
    hash::{BuildHasher, Hash},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::OnceLock,
    time::Duration,
};

use crate::{
    engine::{Engine, Work},
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
        thread,
    },
};

/// Wakes the thread, if there is one.
#[derive(Debug, Default)]
pub struct Waker {
    state: AtomicU8,
    thread: OnceLock<thread::Thread>,
}

impl Waker {
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

    fn lie_down(&self, state: u8) {
        // AcqRel: Release so that a waker that sees the state also finds the thread's last work
        // done; a stop is never overwritten.
        let _ = self.state.compare_exchange(AWAKE, state, Ordering::AcqRel, Ordering::Relaxed); // Relaxed: stopping, seen by the loop.
    }

    /// Notes that the thread is up; returns whether it is to stop.
    fn rise(&self) -> bool {
        // Acquire: pairs with the Release of whoever woke the thread.
        let seen = self.state.load(Ordering::Acquire);
        if seen == STOPPING {
            return true;
        }
        // AcqRel: as above; a failure means that somebody woke or stops it.
        let _ = self.state.compare_exchange(seen, AWAKE, Ordering::AcqRel, Ordering::Relaxed); // Relaxed: looked at again next time.
        false
    }

    fn stop(&self) {
        // Release: pairs with the Acquire in `rise`.
        self.state.store(STOPPING, Ordering::Release);
        if let Some(thread) = self.thread.get() {
            thread.unpark();
        }
    }
}

/// The thread's owner: dropping it stops the thread and waits for its end.
#[derive(Debug)]
pub struct Evictor {
    waker: Arc<Waker>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Evictor {
    /// Starts the thread of a cache.
    ///
    /// # Errors
    ///
    /// Returns the system's error if it gives no thread.
    pub fn start<K, V, S>(engine: Arc<Engine<K, V, S>>) -> std::io::Result<Self>
    where
        K: Hash + Eq + Send + Sync + 'static,
        V: Send + Sync + 'static,
        S: BuildHasher + Send + Sync + 'static,
    {
        let waker = Arc::clone(&engine.waker);
        let name = match engine.settings.name.as_str() {
            "" => String::from("cortado"),
            name => format!("cortado {name}"),
        };
        let thread = thread::Builder::new().name(name).spawn(move || run(&engine))?;
        Ok(Self { waker, thread: Some(thread) })
    }
}

impl Drop for Evictor {
    fn drop(&mut self) {
        self.waker.stop();
        if let Some(thread) = self.thread.take()
            // A destructor that the thread itself runs may drop the last handle.
            && thread.thread().id() != thread::current().id()
        {
            // It ends without a panic: that of a user's code is caught.
            let _ = thread.join();
        }
    }
}

fn run<K: Hash + Eq, V, S: BuildHasher>(engine: &Engine<K, V, S>) {
    let waker = &engine.waker;
    let _ = waker.thread.set(thread::current());
    let mut nap = SHORT_NAP;
    while !waker.rise() {
        // A panic of a user's hash function ends a round, never the thread.
        let round = AssertUnwindSafe(|| engine.maintain(Work::ALL).0.pending);
        if catch_unwind(round).unwrap_or(true) {
            // Readers are still looking at what was removed: come again by itself.
            waker.lie_down(DOZING);
            thread::park_timeout(nap);
            nap = (nap * 2).min(LONG_NAP);
            continue;
        }
        // From here on whoever brings work wakes the thread. What came in between is seen after
        // one more nap, by when every store of that time has arrived.
        waker.lie_down(ASLEEP);
        thread::park_timeout(LONG_NAP);
        if waker.is_idle() && !engine.has_work() {
            thread::park();
        }
        nap = SHORT_NAP;
    }
}

const AWAKE: u8 = 0;
const STOPPING: u8 = 1;
/// Asleep until a time; what is at least this can be woken.
const DOZING: u8 = 2;
/// Asleep until woken.
const ASLEEP: u8 = 3;

const SHORT_NAP: Duration = Duration::from_micros(200);
const LONG_NAP: Duration = Duration::from_millis(10);
