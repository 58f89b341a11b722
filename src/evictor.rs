//! The thread: sleep, wake, maintain, stop; nothing else.

use std::{
    cell::Cell,
    hash::{BuildHasher, Hash},
    time::Duration,
};

use crate::{
    due::Outlook,
    engine::{Engine, Work},
    sync::{Arc, thread},
    trace,
    util::caught,
    waker::Waker,
};

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
    waker.belongs_to(thread::current());
    let mut nap = SHORT_NAP;
    while !waker.rise() {
        // A panic of a user's hash function ends a round, never the thread.
        let round = caught(|| engine.maintain(Work::ALL).0);
        if round.is_none() {
            trace::panicked(&engine.settings.name);
        }
        let busy = round.as_ref().is_some_and(|ticked| ticked.evicted + ticked.expired > 0);
        if busy || round.is_none_or(|ticked| ticked.pending) {
            // Inserts go on, or readers are still looking at what was removed: come again by itself.
            // To be woken costs a writer more than it does to make room for itself.
            nap = if busy { SHORT_NAP } else { (nap * 2).min(LONG_NAP) };
            waker.doze(nap);
            continue;
        }
        // From here on whoever brings work wakes the thread. What came in between, this look finds.
        let outlook = Cell::new(Outlook::Never);
        waker.sleep(|| {
            outlook.set(engine.outlook());
            match outlook.get() {
                // It may be that nobody can do it just now: come again by itself.
                Outlook::Now => Some(nap),
                Outlook::At(due) => Some(engine.until(due)),
                Outlook::Never => None,
            }
        });
        let is_stuck = outlook.get() == Outlook::Now;
        nap = if is_stuck { (nap * 2).min(LONG_NAP) } else { SHORT_NAP };
    }
}

const SHORT_NAP: Duration = Duration::from_micros(500);
const LONG_NAP: Duration = Duration::from_millis(10);
