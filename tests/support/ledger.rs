//! A ledger in which each key and each value that was made has a line of its own.
//!
//! What it counts is Relaxed, so that the ledger orders nothing that the cache should. It is read when all
//! threads are joined.

use std::sync::{
    Arc,
    atomic::{AtomicU8, AtomicU64, Ordering::Relaxed},
};

/// A line for each key or value that was made.
pub struct Ledger {
    next: AtomicU64,
    lines: Box<[Line]>,
}

#[derive(Default)]
struct Line {
    /// How often it was dropped.
    dropped: AtomicU8,
    /// How often it was told of, handed back, or found at the end.
    parted: AtomicU8,
}

impl Ledger {
    /// Makes a ledger of so many empty lines.
    pub fn new(most: u64) -> Arc<Self> {
        let lines = (0..most).map(|_| Line::default()).collect();
        Arc::new(Self { next: AtomicU64::new(0), lines })
    }

    /// Opens a line, for a new key or value.
    pub fn open(self: &Arc<Self>) -> Entry {
        let number = self.next.fetch_add(1, Relaxed);
        assert!((number as usize) < self.lines.len(), "the ledger is full");
        Entry { ledger: Arc::clone(self), number }
    }

    /// Returns how many lines are open.
    pub fn made(&self) -> u64 {
        self.next.load(Relaxed)
    }

    /// Notes that somebody left the cache, or never was in it.
    pub fn part(&self, number: u64) {
        self.lines[number as usize].parted.fetch_add(1, Relaxed);
    }

    /// Checks that each was dropped once.
    pub fn check_dropped(&self, what: &str) {
        self.check(what, "dropped", |line| &line.dropped);
    }

    /// Checks that each was told of, handed back or found at the end: one of these, once.
    pub fn check_parted(&self, what: &str) {
        self.check(what, "told of, handed back or found", |line| &line.parted);
    }

    /// Checks that none was told of twice.
    pub fn check_parted_once_at_most(&self, what: &str) {
        for (number, line) in self.lines[..self.made() as usize].iter().enumerate() {
            let times = line.parted.load(Relaxed);
            assert!(times <= 1, "{what} {number} was told of {times} times");
        }
    }

    fn check(&self, what: &str, happened: &str, of: impl Fn(&Line) -> &AtomicU8) {
        for (number, line) in self.lines[..self.made() as usize].iter().enumerate() {
            let times = of(line).load(Relaxed);
            assert_eq!(times, 1, "{what} {number} was {happened} {times} times");
        }
    }
}

/// An entry in a ledger: it is dropped with the key or the value that it is in.
pub struct Entry {
    ledger: Arc<Ledger>,
    number: u64,
}

impl Entry {
    /// Returns the number of its line.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Opens another line in the same ledger.
    pub fn another(&self) -> Self {
        self.ledger.open()
    }

    /// Notes that whoever it is in left the cache, or never was in it.
    pub fn part(&self) {
        self.ledger.part(self.number);
    }

    /// Checks that it was not dropped, though somebody looks at it.
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
