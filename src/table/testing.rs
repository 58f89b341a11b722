//! Helpers of the table's unit tests.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::{Hints, Probe, Publish, Table, Terms, Unlinked};
use crate::{reclaim::Guard, sync::thread};

/// A key and a value, with a counter of the entries that are not dropped.
#[derive(Debug)]
pub struct Entry<'a> {
    pub key: u64,
    pub value: u64,
    alive: &'a AtomicU64,
}

impl<'a> Entry<'a> {
    pub fn new(key: u64, value: u64, alive: &'a AtomicU64) -> Self {
        alive.fetch_add(1, Relaxed);
        Self { key, value, alive }
    }
}

impl Drop for Entry<'_> {
    fn drop(&mut self) {
        self.alive.fetch_sub(1, Relaxed);
    }
}

pub type Entries<'a> = Table<Entry<'a>>;

/// Rejects an entry that was displaced or taken out by mistake: for a table that is not resized.
pub fn none(_: Unlinked) {
    unreachable!("no version wraps here");
}

/// Retires an entry and passes its key to `out`.
fn drop_out(table: &Entries<'_>, guard: &Guard, entry: Unlinked, out: &mut impl FnMut(u64)) {
    out(table.unlinked(guard, &entry).key);
    table.retire(guard, entry, Terms::NONE, 0);
}

/// Inserts or replaces an entry; returns the old value. In a full bucket it evicts the resident of
/// the lowest slot. `evicted` receives the keys of evicted and displaced entries.
pub fn put<'a>(
    table: &Entries<'a>,
    guard: &Guard,
    hash: u64,
    entry: Entry<'a>,
    mut evicted: impl FnMut(u64),
) -> Option<u64> {
    let mut fresh = table.prepare(entry, hash, 0).expect("memory");
    let key = fresh.key;
    let mut claim = fresh.claim_slot(guard);
    loop {
        let on_displaced = |entry| drop_out(table, guard, entry, &mut evicted);
        match table.probe(guard, hash, |entry| entry.key == key, on_displaced) {
            Probe::Found(there) => {
                if let Some((_, old)) = there.replace(&mut claim) {
                    let value = table.unlinked(guard, &old).value;
                    table.retire(guard, old, Terms::NONE, 0);
                    return Some(value);
                }
            }
            Probe::Absent(vacant) => {
                match vacant.publish(&mut claim, Hints::default(), |a, b| a.key == b.key) {
                    Publish::Done(_) => return None,
                    Publish::Duplicates(..) => unreachable!("no version wraps here"),
                    Publish::Changed => {}
                    Publish::Full(full) => {
                        let victim = full.residents().into_iter().flatten().flatten().next();
                        if let Some(out) = victim.and_then(|victim| full.evict(&victim)) {
                            drop_out(table, guard, out, &mut evicted);
                        }
                    }
                }
            }
        }
    }
}

pub fn get(table: &Entries<'_>, guard: &Guard, hash: u64, key: u64) -> Option<u64> {
    table.find(guard, hash, |entry| entry.key == key).map(|hit| hit.entry.value)
}

pub fn remove(
    table: &Entries<'_>,
    guard: &Guard,
    hash: u64,
    key: u64,
    mut displaced: impl FnMut(u64),
) -> Option<u64> {
    loop {
        let on_displaced = |entry| drop_out(table, guard, entry, &mut displaced);
        let probe = table.probe(guard, hash, |entry| entry.key == key, on_displaced);
        let Probe::Found(there) = probe else { return None };
        let value = there.get().entry.value;
        if let Some(entry) = there.remove(none) {
            table.retire(guard, entry, Terms::NONE, 0);
            return Some(value);
        }
    }
}

/// Moves up to `units` units; returns whether the table is being resized.
pub fn help(
    table: &Entries<'_>,
    guard: &Guard,
    units: usize,
    mut displaced: impl FnMut(u64),
) -> bool {
    table.help(guard, units, |entry| drop_out(table, guard, entry, &mut displaced))
}

/// Frees all retired entries; returns how many values were dropped.
pub fn sweep(table: &Entries<'_>) -> usize {
    table.seal();
    let mut freed = 0;
    loop {
        let swept = table.sweep(usize::MAX, None);
        assert!(swept.panic.is_none());
        freed += swept.freed;
        if swept.waiting == 0 {
            return freed;
        }
        // Other tests pin threads for every domain.
        thread::yield_now();
    }
}

/// Returns the hash of a key.
pub fn spread(key: u64) -> u64 {
    key.wrapping_mul(0x9e37_79b9_7f4a_7c15)
}
