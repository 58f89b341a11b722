//! Lookups: get, and what a hit or a miss records.
//!
//! Expiration on read is checked here: an expired entry is a miss, whether it was removed or not.

use super::{Engine, access_of};
use crate::{
    entry::Entry,
    metrics::Counter,
    policy::access::Access,
    primitives::striped::{CAPACITY, Push, Ring},
    reclaim::Guard,
    slab::prefetch,
    sync::atomic::Ordering,
    table::{BucketView, Held, Hit, SLOTS, SlotRef},
};

/// The bits of a hash that select which hits are counted; they do not choose a bucket of a small
/// table.
const TURN_SHIFT: u32 = 32;
/// Hits that one counted hit stands for, less one, in a cache of at least `ENTRIES_FOR_TURNS`
/// entries. In a smaller one, all hits could be of a few entries that are not counted, and the
/// clock would stand still.
const TURN_MASK: u32 = 15;
const ENTRIES_FOR_TURNS: u64 = 4096;
/// Ages in which each bucket is classified once.
const AGES_PER_CLASS: usize = 8;
/// Buckets that one call ages at most. In a sparser table, each bucket is aged later.
const MAX_AGED: u64 = 256;
/// The greatest frequency: that of the sketch's 4-bit counters.
pub(super) const MAX_FREQUENCY: u8 = 15;

/// The side effects of a read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trace {
    /// It counts as an access.
    Leave,
    /// It counts as an access, but a miss is not counted in the metrics: the load counts it.
    Load,
    /// It has no side effects.
    None,
}

impl<K, V, S> Engine<K, V, S> {
    /// Looks up an entry and keeps it readable.
    #[inline]
    pub fn get(
        &self,
        hash: u64,
        trace: Trace,
        matches: impl Fn(&K) -> bool + Copy,
    ) -> Option<Held<'_, Entry<K, V>>> {
        if self.is_plain(trace) {
            self.get_plain(hash, matches)
        } else {
            self.get_slowly(hash, trace, matches)
        }
    }

    /// Returns whether a read only counts as an access: the cache has no metrics and no deadlines.
    #[inline]
    pub fn is_plain(&self, trace: Trace) -> bool {
        trace != Trace::None && !self.has_extras()
    }

    /// Like [`get`](Self::get), for a read that [is plain](Self::is_plain).
    #[inline]
    pub fn get_plain(
        &self,
        hash: u64,
        matches: impl Fn(&K) -> bool + Copy,
    ) -> Option<Held<'_, Entry<K, V>>> {
        let held = self.table.hold(self.table.pin_part(hash), |table, guard| {
            let hit = table.find(guard, hash, move |entry| matches(&entry.key))?;
            self.note_reference(hash, &hit);
            Some(hit.at())
        });
        if held.is_none() {
            self.note_miss(hash);
        }
        held
    }

    /// Like [`get`](Self::get), for any read.
    #[inline(never)]
    pub fn get_slowly(
        &self,
        hash: u64,
        trace: Trace,
        matches: impl Fn(&K) -> bool + Copy,
    ) -> Option<Held<'_, Entry<K, V>>> {
        let held = self.table.hold(self.table.pin_part(hash), |table, guard| {
            let hit = table.find(guard, hash, move |entry| matches(&entry.key))?;
            let is_unexpired = match trace {
                Trace::Leave | Trace::Load => self.is_unexpired_on_read(hash, hit.at()),
                Trace::None => self.is_unexpired(hit.at()),
            };
            if is_unexpired && trace != Trace::None {
                self.note_hit(hash, &hit);
            }
            is_unexpired.then(|| hit.at())
        });
        match (&held, trace) {
            (Some(_), _) | (None, Trace::None) => {}
            (None, Trace::Leave) => self.note_miss(hash),
            (None, Trace::Load) => self.note_absence(hash),
        }
        held
    }

    /// Looks up an entry under the caller's guard.
    #[inline]
    pub fn get_pinned<'g>(
        &'g self,
        guard: &'g Guard,
        hash: u64,
        matches: impl Fn(&K) -> bool + Copy,
    ) -> Option<&'g Entry<K, V>> {
        let hit = self.table.find(guard, hash, move |entry| matches(&entry.key));
        self.note_access(hash, hit).map(|hit| hit.entry)
    }

    /// Looks up many entries under the caller's guard, with overlapping cache misses.
    #[inline]
    pub fn get_many<'g>(
        &'g self,
        guard: &'g Guard,
        hashes: &[u64],
        matches: impl Fn(usize, &K) -> bool + Copy,
        mut found: impl FnMut(usize, Option<&'g V>),
    ) {
        self.table.for_many(guard, hashes, |index, hash| {
            let hit = self.table.find(guard, hash, move |entry| matches(index, &entry.key));
            found(index, self.note_access(hash, hit).map(|hit| &hit.entry.value));
        });
    }

    /// Records an access for the policy; returns the entry if it is live.
    #[inline]
    fn note_access<'g>(
        &self,
        hash: u64,
        hit: Option<Hit<'g, Entry<K, V>>>,
    ) -> Option<Hit<'g, Entry<K, V>>> {
        let unexpired = match hit {
            Some(hit) if self.has_extras() => {
                Some(hit).filter(|hit| self.is_unexpired_on_read(hash, hit.at()))
            }
            Some(hit) => {
                self.note_reference(hash, &hit);
                return Some(hit);
            }
            None => None,
        };
        match &unexpired {
            Some(hit) => self.note_hit(hash, hit),
            None => self.note_miss(hash),
        }
        unexpired
    }

    #[inline]
    fn note_hit(&self, hash: u64, hit: &SlotRef<'_, Entry<K, V>>) {
        self.counters.add(Counter::Hits, 1);
        self.note_reference(hash, hit);
    }

    #[inline]
    fn note_reference(&self, hash: u64, hit: &SlotRef<'_, Entry<K, V>>) {
        if self.reference(hit) {
            self.note_first_hit(hash);
        }
    }

    /// Returns whether a hit does more than find the entry and record the access: metrics, or
    /// deadlines.
    #[inline]
    fn has_extras(&self) -> bool {
        // Relaxed: set before an entry with a deadline is published, so a reader of the entry sees
        // it.
        self.extras.load(Ordering::Relaxed)
    }

    /// Notes that an entry is about to have a deadline.
    pub(super) fn note_timed(&self) {
        // Relaxed, twice: as above. Stored only once: readers share the line.
        if !self.extras.load(Ordering::Relaxed) {
            self.extras.store(true, Ordering::Relaxed);
        }
    }

    #[inline(never)]
    fn note_miss(&self, hash: u64) {
        self.counters.add(Counter::Misses, 1);
        self.note_absence(hash);
    }

    /// Like [`note_miss`](Self::note_miss), but without the metrics.
    fn note_absence(&self, hash: u64) {
        // Relaxed: if two threads of a stripe interfere, an access counts twice.
        self.local().last_miss.store(hash, Ordering::Relaxed);
        self.note_event(hash);
    }

    /// Records a hit in the access bits of an entry; returns whether it is the first in this step.
    ///
    /// All threads together write the bits of a hot entry once a step.
    #[inline]
    pub(super) fn reference(&self, hit: &SlotRef<'_, Entry<K, V>>) -> bool {
        let now = self.access_clock.now();
        // A store instead of an exchange, which would cost as much as the rest of a hit: of
        // concurrent hits only one counts, and a delayed store may write to the slot's next entry.
        hit.update_access(|access| Access::from_bits(access).hit(now).map(Access::to_bits))
    }

    /// Counts a hit that was recorded in the access bits, since hits advance the access clock. One
    /// counted hit stands for several; which part of the entries is counted changes with each step.
    #[inline]
    pub(super) fn note_first_hit(&self, hash: u64) {
        self.note_sample(hash);
        let turn = ((hash >> TURN_SHIFT) as u32).wrapping_add(self.access_clock.now());
        let mask = self.turn_mask.load(Ordering::Relaxed); // Relaxed: any recent mask will do.
        if turn & mask == 0 {
            self.count_hits(mask + 1);
        }
    }

    #[cold]
    fn count_hits(&self, hits: u32) {
        let uncounted_hits = &self.local().uncounted_hits;
        // Relaxed, twice: if two threads of a stripe interfere, the clock misses some hits.
        let count = uncounted_hits.load(Ordering::Relaxed) + u64::from(hits);
        let is_due = count >= CAPACITY as u64;
        uncounted_hits.store(if is_due { 0 } else { count }, Ordering::Relaxed);
        if is_due {
            self.pass_time(count as usize);
        }
    }

    /// Buffers an access for the tuner, if its key is in the sample.
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

    /// Advances the access clock, and ages the sketch and the entries.
    #[cold]
    pub(super) fn pass_time(&self, events: usize) {
        self.access_clock.advance(events as u64);
        self.sketch.age(self.access_clock.now());
        self.age_entries(events as u64);
    }

    /// Ages the access bits of the next few buckets, and updates the classes of some of these.
    /// Every bucket is aged once per age of the clock, and classified once per [`AGES_PER_CLASS`]
    /// ages.
    fn age_entries(&self, events: u64) {
        let guard = self.table.pin_structure();
        let buckets = self.table.slots(&guard) / SLOTS;
        let count = self.access_clock.share(events, buckets as u64).min(MAX_AGED) as usize;
        // Relaxed: it does not matter which thread ages which buckets.
        let first = self.aged.fetch_add(count, Ordering::Relaxed);
        let (turn, now) = (first / buckets, self.access_clock.now());
        for (view, index) in self.table.run_from(&guard, first, count).zip(first..) {
            for slot in view.taken() {
                if let Some(access) = Access::from_bits(view.access(slot)).aged(now) {
                    view.set_access(slot, access.to_bits());
                }
            }
            if index.wrapping_add(turn).is_multiple_of(AGES_PER_CLASS) {
                self.classify(&guard, &view);
            }
        }
    }

    /// Updates the classes of a bucket: a delayed store may have left a wrong one.
    fn classify(&self, guard: &Guard, view: &BucketView<'_>) {
        view.forget_free();
        for sampled_slot in view.taken().filter_map(|slot| view.sampled_slot(slot)) {
            if let Some(metadata) = self.table.look(guard, &sampled_slot) {
                self.classify_entry(sampled_slot, metadata);
            }
        }
    }

    /// Returns how often a hash was seen recently, from 0 to 15, including the hits in the access
    /// bits of a resident entry.
    #[inline]
    pub fn frequency(&self, hash: u64, access: Option<Access>) -> u8 {
        let hits = access.map_or(0, |access| access.hits(self.access_clock.now()));
        (self.sketch.estimate(hash) + hits).min(MAX_FREQUENCY)
    }

    /// Like [`frequency`](Self::frequency), given the resident entry.
    #[inline]
    pub fn frequency_of(&self, hash: u64, hit: Option<&SlotRef<'_, Entry<K, V>>>) -> u8 {
        self.frequency(hash, hit.map(|hit| access_of(hit)))
    }

    /// Buffers a hash for the sketch.
    #[inline]
    pub(super) fn note_event(&self, hash: u64) {
        // The prefetched counters arrive by the time the ring is full.
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

/// Returns how many hits one counted hit stands for in a cache of `entries` entries, less one.
pub(super) fn turn_mask(entries: u64) -> u32 {
    if entries >= ENTRIES_FOR_TURNS { TURN_MASK } else { 0 }
}
