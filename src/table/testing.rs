//! What the tests of the table share: an entry that counts its drops, and a host.

use std::{
    cell::Cell,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use super::{Host, LANES, Table, Upsert};
use crate::reclaim::{
    Guard,
    block::{Owned, Stored},
    limbo::Unlinked,
    pin,
};

/// Counts entries made and dropped.
#[derive(Clone, Default)]
pub struct Ledger(Arc<(AtomicUsize, AtomicUsize)>);

impl Ledger {
    pub fn made(&self) -> usize {
        self.0.0.load(SeqCst)
    }

    pub fn dropped(&self) -> usize {
        self.0.1.load(SeqCst)
    }

    pub fn alive(&self) -> usize {
        self.made() - self.dropped()
    }

    pub fn entry(&self, key: u64, value: u64) -> Owned<Entry> {
        self.0.0.fetch_add(1, SeqCst);
        Owned::new(Entry { key, value, check: key ^ value, ledger: self.clone() })
    }
}

pub struct Entry {
    pub key: u64,
    pub value: u64,
    check: u64,
    ledger: Ledger,
}

impl Entry {
    /// Panics if the entry is torn or dropped.
    pub fn value(&self) -> u64 {
        assert_eq!(self.check, self.key ^ self.value, "torn or dropped entry");
        self.value
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        assert_eq!(self.check, self.key ^ self.value, "entry dropped twice");
        self.check ^= u64::MAX;
        self.ledger.0.1.fetch_add(1, SeqCst);
    }
}

impl std::fmt::Debug for Entry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}={}", self.key, self.value)
    }
}

// SAFETY: it never has a tail, and says so.
unsafe impl Stored for Entry {
    type Tail = ();
}

pub type Hasher<'t> = dyn Fn(u64) -> u64 + 't;

/// A host that hashes as it is told, grows up to a number of slots and then displaces a fixed lane.
pub struct Keeper<'t> {
    pub table: &'t Table<Entry>,
    pub hasher: &'t Hasher<'t>,
    pub grow_below: usize,
    pub leaver: Option<usize>,
    pub displaced: Cell<usize>,
    /// Whether the hasher gives the same answer twice.
    pub trusted: bool,
}

impl<'t> Keeper<'t> {
    pub fn new(table: &'t Table<Entry>, hasher: &'t Hasher<'t>) -> Self {
        Self { table, hasher, grow_below: 0, leaver: None, displaced: Cell::new(0), trusted: true }
    }

    /// Inserts or replaces; `false` if the entry came back.
    pub fn set(&self, ledger: &Ledger, key: u64, value: u64) -> bool {
        let guard = pin();
        let hash = (self.hasher)(key);
        let entry = self.table.desk(0).make(ledger.entry(key, value).into_inner());
        match self.table.upsert(&guard, hash, entry, self, |e, _| e.key == key, |_, _| true) {
            Upsert::Inserted { .. } => true,
            Upsert::Replaced { old, .. } => {
                assert_eq!(old.get().key, key);
                self.table.retire(&guard, old, 1, 0);
                true
            }
            Upsert::Refused(_) | Upsert::Full(_) => false,
        }
    }

    pub fn get(&self, key: u64) -> Option<u64> {
        let guard = pin();
        self.table.find(&guard, (self.hasher)(key), |e| e.key == key).map(Entry::value)
    }

    pub fn remove(&self, key: u64) -> Option<u64> {
        let guard = pin();
        let entry = self.table.remove(&guard, (self.hasher)(key), self, |e| e.key == key)?;
        Some(self.table.retire(&guard, entry, 1, 0).0.value())
    }

    pub fn remove_if(&self, key: u64, condition: impl Fn(u64) -> bool) -> Option<u64> {
        let guard = pin();
        let hash = (self.hasher)(key);
        let condition = |e: &Entry| condition(e.value());
        let entry = self.table.remove_if(&guard, hash, self, |e| e.key == key, condition)?;
        Some(self.table.retire(&guard, entry, 1, 0).0.value())
    }

    pub fn clear(&self) -> usize {
        let guard = pin();
        let mut removed = 0;
        self.table.clear(&guard, self, |entry| {
            removed += 1;
            self.table.retire(&guard, entry, 1, 0);
        });
        removed
    }

    /// Migrates to the end.
    pub fn settle(&self) {
        let guard = pin();
        while self.table.help_migration(&guard, self, usize::MAX) {}
    }

    /// Returns all keys by iteration, sorted.
    pub fn keys(&self) -> Vec<u64> {
        let guard = pin();
        let mut keys: Vec<u64> = self.table.iter(&guard).map(|e| e.key).collect();
        keys.sort_unstable();
        keys
    }

    /// Checks that a quiescent table's slots are empty exactly where its lanes are free, and that
    /// no key is there twice; returns how many entries there are.
    pub fn check(&self) -> usize {
        let guard = pin();
        self.table.audit(&guard, self, self.trusted);
        let keys = self.keys();
        let mut once = keys.clone();
        once.dedup();
        assert_eq!(keys, once, "a key is there twice");
        keys.len()
    }
}

impl Host<Entry> for Keeper<'_> {
    fn hash(&self, entry: &Entry) -> u64 {
        (self.hasher)(entry.key)
    }

    fn is_crowded(&self, slots: usize) -> bool {
        slots < self.grow_below
    }

    fn choose_leaver(&self, residents: &[Option<&Entry>; LANES], _: &Entry) -> Option<usize> {
        for resident in residents.iter().flatten() {
            resident.value();
        }
        self.leaver
    }

    fn displaced(&self, guard: &Guard, entry: Unlinked<Entry>) {
        self.displaced.set(self.displaced.get() + 1);
        self.table.retire(guard, entry, 1, 0);
    }
}

/// Spreads keys over the hashes (the finalizer of splitmix64).
pub fn mixed(key: u64) -> u64 {
    let mut z = key.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Sweeps until nothing is in limbo.
pub fn drain(table: &Table<Entry>) {
    // Other tests are pinned now and then, and may lack a core for long.
    let end = Instant::now() + PATIENCE;
    while Instant::now() < end {
        let guard = pin();
        table.seal_retired();
        guard.advance();
        drop(guard);
        let swept = table.sweep(usize::MAX);
        assert!(swept.panic.is_none());
        if table.limbo().count() == 0 && swept.waiting == 0 {
            return;
        }
        std::thread::yield_now();
    }
    panic!("limbo never ran empty");
}

/// Long enough for a machine that does many other things.
const PATIENCE: Duration = Duration::from_secs(30);
