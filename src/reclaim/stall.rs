//! `StallDetector`: finds threads that stay in one pin for long, by comparing scans of all pins.
//!
//! A pin records no time, so stall detection adds nothing to its cost. A scan records all current
//! pins, each by its sequence number, and the time at which each was first recorded. A pin that a
//! later scan finds with the same number has lasted at least for the time between the two scans; a
//! thread that has pinned again has another number.

use std::time::Duration;

use super::Pin;

/// Nanoseconds of one pin after which its thread is stalled. Longer than a preempted thread waits
/// for its core, unless there are dozens of threads for each core.
const STALLED_AFTER_NS: u64 = 100_000_000;
/// Nanoseconds between two scans by sweeps. A tenth of [`STALLED_AFTER_NS`], and so long that
/// scanning the slots of thousands of threads takes a small fraction of it.
const SCAN_INTERVAL_NS: u64 = 10_000_000;

/// A thread that is pinned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reader {
    /// The thread's number ([`thread_number`](crate::sync::thread_number)), unless it is ending.
    pub thread: Option<u64>,
    /// The first sixteen bytes of the thread's name; empty without a number.
    pub name: String,
}

/// The pins that the last scan found, each with the time of the scan that found it first.
#[derive(Debug, Default)]
pub struct StallDetector {
    /// By [`Pin::key`], in ascending order.
    seen: Vec<Seen>,
    /// When the last scan by a sweep began.
    scanned: Option<u64>,
}

#[derive(Debug)]
struct Seen {
    pin: Pin,
    /// When the pin was first recorded.
    since: u64,
}

impl StallDetector {
    /// Returns whether a sweep must scan now. If so, later calls return `false` for
    /// `SCAN_INTERVAL_NS`.
    pub fn begin_scan(&mut self, now: u64) -> bool {
        let is_due = self.scanned.is_none_or(|at| now.saturating_sub(at) >= SCAN_INTERVAL_NS);
        if is_due {
            self.scanned = Some(now);
        }
        is_due
    }

    /// Records the pins of a scan that was made before `now`, in nanoseconds.
    pub fn record(&mut self, pins: Vec<Pin>, now: u64) {
        let since = |pin: &Pin| {
            let found = self.seen.binary_search_by_key(&pin.key(), |seen| seen.pin.key());
            found.map_or(now, |index| self.seen[index].since)
        };
        let mut seen: Vec<_> =
            pins.into_iter().map(|pin| Seen { since: since(&pin), pin }).collect();
        seen.sort_unstable_by_key(|seen| seen.pin.key());
        self.seen = seen;
    }

    /// Returns the recorded pins that have not ended and have lasted for at least
    /// `STALLED_AFTER_NS`, each with the time since it was first recorded. `now` must have been
    /// read before the call.
    pub fn stalled(&self, now: u64) -> impl Iterator<Item = (&Pin, Duration)> {
        let aged = self.seen.iter().map(move |seen| (&seen.pin, now.saturating_sub(seen.since)));
        let stalled = aged.filter(|(pin, age)| *age >= STALLED_AFTER_NS && !pin.has_ended());
        stalled.map(|(pin, age)| (pin, Duration::from_nanos(age)))
    }

    /// Returns the size of the detector in bytes, heap memory included.
    pub fn bytes(&self) -> usize {
        size_of::<Self>() + self.seen.capacity() * size_of::<Seen>()
    }
}

#[cfg(all(test, not(any(cortado_loom, cortado_shuttle, feature = "crossbeam-epoch"))))]
mod tests {
    use std::{sync::mpsc, thread};

    use super::*;
    use crate::{
        reclaim::{Domain, pin_for, pins_of},
        sync::thread_number,
    };

    /// Returns the stalled readers of this thread's number. (Other tests pin for every domain.)
    fn stalled(detector: &StallDetector, thread: u64, now: u64) -> Vec<(Reader, Duration)> {
        let stalled = detector.stalled(now).map(|(pin, time)| (pin.reader(), time));
        stalled.filter(|(reader, _)| reader.thread == Some(thread)).collect()
    }

    #[test]
    fn reader_is_stalled_from_100_ms_after_the_scan_that_first_found_its_pin() {
        let (domain, mut detector) = (Domain::new(), StallDetector::default());
        let me = thread_number() as u64;
        let guard = pin_for(domain);
        detector.record(pins_of(domain), 5);
        assert_eq!(stalled(&detector, me, 5 + STALLED_AFTER_NS - 1), []);
        // A later scan does not change the time of the first.
        detector.record(pins_of(domain), 1000);
        let found = stalled(&detector, me, 5 + STALLED_AFTER_NS);
        assert!(matches!(&found[..], [(_, time)] if time.as_nanos() == STALLED_AFTER_NS.into()));
        drop(guard);
        assert_eq!(stalled(&detector, me, u64::MAX), []);
    }

    #[test]
    fn reader_of_another_domain_is_not_stalled_and_one_of_both_is() {
        let (domain, other) = (Domain::new(), Domain::new());
        let mut detector = StallDetector::default();
        let me = thread_number() as u64;
        let _outer = pin_for(other);
        detector.record(pins_of(domain), 0);
        assert_eq!(stalled(&detector, me, u64::MAX), []);
        // The pin is the same, but covers both domains from here on.
        drop(pin_for(domain));
        detector.record(pins_of(domain), 7);
        let found = stalled(&detector, me, u64::MAX);
        assert!(matches!(&found[..], [(_, time)] if time.as_nanos() == (u64::MAX - 7).into()));
    }

    #[test]
    fn reader_is_named_until_it_pins_again() {
        let domain = Domain::new();
        let (to_reader, orders) = mpsc::channel::<()>();
        let (to_us, reports) = mpsc::channel();
        let reader = move || {
            let mut guard = pin_for(domain);
            to_us.send(thread_number() as u64).unwrap();
            orders.recv().unwrap();
            guard.repin(domain);
            to_us.send(0).unwrap();
            orders.recv().unwrap();
        };
        let name = String::from("a reader of a name that is long");
        let handle = thread::Builder::new().name(name).spawn(reader).unwrap();
        let number = reports.recv().unwrap();
        let mut detector = StallDetector::default();
        detector.record(pins_of(domain), 0);
        let expected = Reader { thread: Some(number), name: "a reader of a na".into() };
        let time = Duration::from_nanos(u64::MAX);
        assert_eq!(stalled(&detector, number, u64::MAX), [(expected.clone(), time)]);
        to_reader.send(()).unwrap();
        reports.recv().unwrap();
        assert_eq!(stalled(&detector, number, u64::MAX), []);
        // Its new pin counts from the next scan on.
        detector.record(pins_of(domain), u64::MAX / 2);
        let time = Duration::from_nanos(u64::MAX - u64::MAX / 2);
        assert_eq!(stalled(&detector, number, u64::MAX), [(expected, time)]);
        to_reader.send(()).unwrap();
        handle.join().unwrap();
        assert_eq!(stalled(&detector, number, u64::MAX), []);
    }

    #[test]
    fn many_pins_keep_their_times_apart() {
        let domain = Domain::new();
        let (to_us, reports) = mpsc::channel();
        let readers: Vec<_> = (0..20)
            .map(|_| {
                let (to_reader, orders) = mpsc::channel::<()>();
                let to_us = to_us.clone();
                let reader = thread::spawn(move || {
                    let _guard = pin_for(domain);
                    to_us.send(thread_number() as u64).unwrap();
                    let _ = orders.recv();
                });
                (reports.recv().unwrap(), to_reader, reader)
            })
            .collect();
        let mut detector = StallDetector::default();
        // Each scan finds one more pin.
        for (i, _) in readers.iter().enumerate() {
            let shown: Vec<_> = readers[..=i].iter().map(|(number, ..)| Some(*number)).collect();
            // In any order: a scan visits slots in the order of their creation.
            let pins = pins_of(domain).into_iter().rev();
            let pins = pins.filter(|pin| shown.contains(&pin.reader().thread)).collect();
            detector.record(pins, i as u64);
        }
        for (i, (number, to_reader, reader)) in readers.into_iter().enumerate() {
            let found = stalled(&detector, number, u64::MAX);
            assert!(matches!(&found[..], [(_, t)] if t.as_nanos() == (u64::MAX - i as u64).into()));
            drop(to_reader);
            reader.join().unwrap();
        }
    }

    #[test]
    fn sweeps_scan_once_in_an_interval() {
        let mut detector = StallDetector::default();
        assert!(detector.begin_scan(3) && !detector.begin_scan(3));
        assert!(!detector.begin_scan(2 + SCAN_INTERVAL_NS));
        assert!(detector.begin_scan(3 + SCAN_INTERVAL_NS));
        assert!(!detector.begin_scan(0), "a clock that goes back");
    }
}
