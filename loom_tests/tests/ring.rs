//! The ring buffer: push, drain, seal (`src/primitives/ring.rs`). `CAPACITY` is 2 here.

mod common;

use std::sync::Mutex;

use common::explore;
use cortado::__internals::primitives::striped::{CAPACITY, Push, Ring};
use cortado::__internals::sync::{Arc, thread};

/// A ring and a log of its events. The log is invisible to the model.
struct Logged {
    ring: Ring,
    pushed: Mutex<Vec<u64>>,
    drained: Mutex<Vec<u64>>,
}

impl Logged {
    fn new() -> Arc<Self> {
        assert_eq!(CAPACITY, 2, "the scenarios count on laps of two");
        Arc::new(Self { ring: Ring::new(), pushed: Mutex::default(), drained: Mutex::default() })
    }

    fn push(&self, event: u64) {
        match self.ring.push(event) {
            Push::Contended => return,
            Push::Accepted => {}
            Push::Full => {
                self.pushed.lock().unwrap().push(event);
                self.ring.drain(|events| self.note(events));
                return;
            }
        }
        self.pushed.lock().unwrap().push(event);
    }

    fn seal(&self) {
        self.ring.try_seal_and_drain(|events| self.note(events));
    }

    fn note(&self, events: &[u64]) {
        self.drained.lock().unwrap().extend_from_slice(events);
    }

    /// Drains the rest and checks the log, after all threads have ended.
    fn check(&self) {
        self.seal();
        let pushed = self.pushed.lock().unwrap().clone();
        let drained = self.drained.lock().unwrap().clone();
        for (i, event) in drained.iter().enumerate() {
            assert!(!drained[..i].contains(event), "{event} drained twice: {drained:?}");
            assert!(pushed.contains(event), "{event} was never accepted: {pushed:?}");
        }
    }
}

fn pusher(logged: &Arc<Logged>, events: &'static [u64]) -> thread::JoinHandle<()> {
    let logged = Arc::clone(logged);
    thread::spawn(move || events.iter().for_each(|&event| logged.push(event)))
}

#[test]
fn two_pushers_go_through_two_laps() {
    explore(|| {
        let logged = Logged::new();
        let threads = [pusher(&logged, &[1, 2, 3]), pusher(&logged, &[11, 12])];
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        logged.check();
    });
}

#[test]
fn three_pushers_go_through_a_lap_and_a_half() {
    explore(|| {
        let logged = Logged::new();
        let threads = [pusher(&logged, &[1]), pusher(&logged, &[11])];
        logged.push(21);
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        logged.check();
    });
}

#[test]
fn a_thread_seals_while_a_pusher_fills() {
    explore(|| {
        let logged = Logged::new();
        let thread = pusher(&logged, &[1, 2, 3]);
        logged.seal();
        logged.seal();
        thread.join().unwrap();
        logged.check();
    });
}

#[test]
fn two_threads_seal_one_ring() {
    explore(|| {
        let logged = Logged::new();
        logged.push(1);
        let sealer = {
            let logged = Arc::clone(&logged);
            thread::spawn(move || logged.seal())
        };
        logged.seal();
        sealer.join().unwrap();
        logged.check();
        let drained = logged.drained.lock().unwrap().clone();
        assert_eq!(drained, [1]);
    });
}

#[test]
fn a_ring_is_open_again_once_all_threads_are_done() {
    explore(|| {
        let logged = Logged::new();
        let threads = [pusher(&logged, &[1, 2]), pusher(&logged, &[11])];
        logged.seal();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        logged.seal();
        assert_eq!(logged.ring.push(99), Push::Accepted);
    });
}
