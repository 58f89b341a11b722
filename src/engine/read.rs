//! What a get does.
//!
//! Expiry on read belongs here too, not in the deadline index.

use super::Engine;
use crate::{
    entry::Entry,
    metrics::Counter,
    reclaim::{Guard, pin},
    stripe::{CAPACITY, Push, Ring},
    sync::atomic::Ordering,
    table::{Held, prefetch},
};

/// What a read does beside reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trace {
    /// It counts as an access.
    Leave,
    /// It leaves no trace.
    None,
}

impl<K, V, S> Engine<K, V, S> {
    /// Looks an entry up and keeps it readable.
    #[inline]
    pub fn get(
        &self,
        hash: u64,
        trace: Trace,
        matches: impl Fn(&K) -> bool,
    ) -> Option<Held<'_, Entry<K, V>>> {
        let held = self
            .table
            .hold(pin(), |table, guard| table.find(guard, hash, |entry| matches(&entry.key)));
        if trace == Trace::Leave {
            self.note_access(hash, held.as_deref());
        }
        held
    }

    /// Looks an entry up under the caller's guard.
    #[inline]
    pub fn get_pinned<'g>(
        &'g self,
        guard: &'g Guard,
        hash: u64,
        matches: impl Fn(&K) -> bool,
    ) -> Option<&'g Entry<K, V>> {
        let entry = self.table.find(guard, hash, |entry| matches(&entry.key));
        self.note_access(hash, entry);
        entry
    }

    /// Looks many entries up under the caller's guard, with the misses of memory overlapped.
    #[inline]
    pub fn get_many<'g>(
        &'g self,
        guard: &'g Guard,
        hashes: &[u64],
        matches: impl Fn(usize, &K) -> bool,
        mut found: impl FnMut(usize, Option<&'g V>),
    ) {
        self.table.find_many(
            guard,
            hashes,
            |index, entry| matches(index, &entry.key),
            |index, entry| {
                self.note_access(hashes[index], entry);
                found(index, entry.map(|entry| &entry.value));
            },
        );
    }

    /// Notes an access for the policy: lossy, and only once a pulse for an entry that is there.
    #[inline]
    fn note_access(&self, hash: u64, entry: Option<&Entry<K, V>>) {
        match entry {
            Some(entry) => {
                self.counters.add(Counter::Hits, 1);
                if entry.touch(self.pulse.now()) {
                    self.note_event(hash);
                }
            }
            None => {
                self.counters.add(Counter::Misses, 1);
                // Relaxed: if two threads of a stripe interfere, an access counts twice.
                self.local().last_miss.store(hash, Ordering::Relaxed);
                self.note_event(hash);
            }
        }
    }

    /// Sends a hash on its way to the sketch.
    #[inline]
    pub(super) fn note_event(&self, hash: u64) {
        // The counters will have come by the time the ring is full.
        prefetch(self.sketch.line(hash));
        let ring = self.events.current();
        match ring.push(hash) {
            Push::Accepted => {}
            Push::Full => self.drain_events(ring),
            // Lossy: a lost event costs one count in the sketch, nothing else.
            Push::Contended => self.counters.add(Counter::EventsDropped, 1),
        }
    }

    #[cold]
    fn drain_events(&self, ring: &Ring) {
        ring.drain(|hashes| self.learn(hashes));
    }

    /// Counts a batch of events.
    pub(super) fn learn(&self, hashes: &[u64]) {
        debug_assert!(hashes.len() <= CAPACITY);
        self.sketch.increment_batch(hashes);
        self.sketch.advance(hashes.len() as u64);
        self.pulse.advance(hashes.len() as u64);
    }
}
