//! A ledger with a line for each key and each value created.
//!
//! Its counters are Relaxed, so that the ledger adds no ordering to the cache under test. It is
//! read after all threads are joined.

use std::sync::{
    Arc,
    atomic::{AtomicU8, AtomicU64, Ordering::Relaxed},
};

/// The line of a key or value.
pub struct Ledger {
    next: AtomicU64,
    lines: Box<[Line]>,
}

#[derive(Default)]
struct Line {
    /// The number of times that it was dropped.
    dropped: AtomicU8,
    /// The number of times that it was reported to a listener, returned to a caller, or found at
    /// the end.
    parted: AtomicU8,
}

impl Ledger {
    /// Creates a ledger with `most` empty lines.
    pub fn new(most: u64) -> Arc<Self> {
        let lines = (0..most).map(|_| Line::default()).collect();
        Arc::new(Self { next: AtomicU64::new(0), lines })
    }

    /// Opens a line for a new key or value.
    pub fn open(self: &Arc<Self>) -> Entry {
        let number = self.next.fetch_add(1, Relaxed);
        assert!((number as usize) < self.lines.len(), "the ledger is full");
        Entry { ledger: Arc::clone(self), number }
    }

    /// Returns the number of open lines.
    pub fn made(&self) -> u64 {
        self.next.load(Relaxed)
    }

    /// Records that a key or value left the cache, or was never in it.
    pub fn part(&self, number: u64) {
        self.lines[number as usize].parted.fetch_add(1, Relaxed);
    }

    /// Checks that each was dropped once.
    pub fn check_dropped(&self, what: &str) {
        self.check(what, "dropped", |line| &line.dropped);
    }

    /// Checks that each was reported, returned or found at the end: one of these, once.
    pub fn check_parted(&self, what: &str) {
        self.check(what, "reported, returned or found", |line| &line.parted);
    }

    /// Checks that none was reported twice.
    pub fn check_parted_once_at_most(&self, what: &str) {
        for (number, line) in self.lines[..self.made() as usize].iter().enumerate() {
            let times = line.parted.load(Relaxed);
            assert!(times <= 1, "{what} {number} was reported {times} times");
        }
    }

    fn check(&self, what: &str, happened: &str, of: impl Fn(&Line) -> &AtomicU8) {
        for (number, line) in self.lines[..self.made() as usize].iter().enumerate() {
            let times = of(line).load(Relaxed);
            assert_eq!(times, 1, "{what} {number} was {happened} {times} times");
        }
    }
}

/// A line of a ledger, owned by its key or value and dropped with it.
pub struct Entry {
    ledger: Arc<Ledger>,
    number: u64,
}

impl Entry {
    /// Returns the number of the line.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Opens another line in the same ledger.
    pub fn another(&self) -> Self {
        self.ledger.open()
    }

    /// Records that its key or value left the cache, or was never in it.
    pub fn part(&self) {
        self.ledger.part(self.number);
    }

    /// Checks that it was not dropped while a reference exists.
    pub fn check_alive(&self) {
        let dropped = self.ledger.lines[self.number as usize].dropped.load(Relaxed);
        assert_eq!(dropped, 0, "line {} is read after its end", self.number);
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.ledger.lines[self.number as usize].dropped.fetch_add(1, Relaxed);
    }
}
