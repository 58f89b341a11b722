//! What a get does.
//!
//! Expiry on read is seen to here: an entry whose time is over is a miss, whether it was removed or not.

use super::Engine;
use crate::{
    buckets::Held,
    entry::Entry,
    metrics::Counter,
    reclaim::Guard,
    slab::prefetch,
    stripe::{CAPACITY, Push, Ring},
    sync::atomic::Ordering,
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
        let held = self.table.hold(self.table.pin(), |table, guard| {
            let hit = table.find(guard, hash, |entry| matches(&entry.key))?;
            let is_live = match trace {
                Trace::Leave => self.is_live_read(hash, hit.at()),
                Trace::None => self.is_live(hit.at()),
            };
            is_live.then(|| hit.at())
        });
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
        let hit = self.table.find(guard, hash, |entry| matches(&entry.key));
        let entry = hit.map(|hit| hit.at()).filter(|entry| self.is_live_read(hash, *entry));
        let entry = entry.map(|entry| entry.entry);
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
            |index, hit| {
                let entry = hit.map(|hit| hit.at());
                let entry = entry.filter(|entry| self.is_live_read(hashes[index], *entry));
                let entry = entry.map(|entry| entry.entry);
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
                    self.note_mark(hash);
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

    /// Counts a hit that left its mark in the entry: time goes by events, and it is one.
    #[inline]
    pub(super) fn note_mark(&self, hash: u64) {
        self.note_sample(hash);
        let marked = &self.local().marked;
        // Relaxed, twice: if two threads of a stripe interfere, a hit is lost to the clock.
        let count = marked.load(Ordering::Relaxed).wrapping_add(1);
        marked.store(count, Ordering::Relaxed);
        if count.is_multiple_of(CAPACITY as u64) {
            self.pass_time(CAPACITY);
        }
    }

    /// Sends an access on its way to the race, if its key is in the sample.
    #[inline]
    pub(super) fn note_sample(&self, hash: u64) {
        // Relaxed: any recent mask will do.
        if hash & self.sample_mask.load(Ordering::Relaxed) == 0 {
            self.send_sample(hash);
        }
    }

    #[cold]
    fn send_sample(&self, hash: u64) {
        let ring = self.samples.current();
        if ring.push(hash) == Push::Full {
            ring.drain(|hashes| self.take_samples(hashes));
        }
    }

    /// Moves on the clocks of recency and of aging.
    #[cold]
    fn pass_time(&self, events: usize) {
        self.pulse.advance(events as u64);
        self.sketch.age(self.pulse.now());
    }

    /// Returns how often a hash was seen of late, from 0 to 15; a resident entry knows its hits.
    pub fn frequency(&self, hash: u64, entry: Option<&Entry<K, V>>) -> u8 {
        let hits = entry.map_or(0, |entry| entry.marks().hits(self.pulse.now()));
        (self.sketch.estimate(hash) + hits).min(MOST_FREQUENCY)
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
        self.pass_time(hashes.len());
    }
}

/// The counters of the sketch end there, and so does what is added to them.
const MOST_FREQUENCY: u8 = 15;
