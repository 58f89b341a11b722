//! What a get does.
//!
//! Expiry on read is seen to here: an entry whose time is over is a miss, whether it was removed or not.

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

/// What a read does beside reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trace {
    /// It counts as an access.
    Leave,
    /// The same, but for a miss in the metrics: who loads the key counts that.
    Load,
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
        matches: impl Fn(&K) -> bool + Copy,
    ) -> Option<Held<'_, Entry<K, V>>> {
        if self.is_plain(trace) {
            self.get_plain(hash, matches)
        } else {
            self.get_slowly(hash, trace, matches)
        }
    }

    /// Returns whether a read is counted as an access and does nothing else: the cache has no metrics and no deadlines.
    #[inline]
    pub fn is_plain(&self, trace: Trace) -> bool {
        trace != Trace::None && !self.has_extras()
    }

    /// The same as [`get`](Self::get) where a read [is plain](Self::is_plain).
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

    /// The same as [`get`](Self::get), for every read.
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

    /// Looks an entry up under the caller's guard.
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

    /// Looks many entries up under the caller's guard, with the misses of memory overlapped.
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

    /// Notes an access for the policy; returns the entry if it is live.
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

    /// Returns whether there is more to a hit than to find the entry and to note that: counters, or deadlines.
    #[inline]
    fn has_extras(&self) -> bool {
        // Relaxed: set before an entry with a deadline is published, whose reader sees it therefore.
        self.extras.load(Ordering::Relaxed)
    }

    /// Notes that an entry is about to have a deadline.
    pub(super) fn note_timed(&self) {
        // Relaxed, twice: as above. Written once: readers share the line.
        if !self.extras.load(Ordering::Relaxed) {
            self.extras.store(true, Ordering::Relaxed);
        }
    }

    #[inline(never)]
    fn note_miss(&self, hash: u64) {
        self.counters.add(Counter::Misses, 1);
        self.note_absence(hash);
    }

    /// The same without the metrics.
    fn note_absence(&self, hash: u64) {
        // Relaxed: if two threads of a stripe interfere, an access counts twice.
        self.local().last_miss.store(hash, Ordering::Relaxed);
        self.note_event(hash);
    }

    /// Notes a hit in the access bits of an entry; returns whether it is the first of this step.
    ///
    /// The bits of an entry that is hit all the time are written once a step, by all threads together.
    #[inline]
    pub(super) fn reference(&self, hit: &SlotRef<'_, Entry<K, V>>) -> bool {
        let now = self.access_clock.now();
        // A store and no exchange, which would cost as much as the rest of a hit: of hits that meet here one counts, and
        // one that was stopped may write to the slot's next entry.
        hit.update_access(|access| Access::from_bits(access).hit(now).map(Access::to_bits))
    }

    /// Counts a hit that was noted in the access bits of its entry: time goes by events, and it is one. One in so many
    /// stands for all, each time for another part of the entries.
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
        // Relaxed, twice: if two threads of a stripe interfere, hits are lost to the clock.
        let count = uncounted_hits.load(Ordering::Relaxed) + u64::from(hits);
        let is_due = count >= CAPACITY as u64;
        uncounted_hits.store(if is_due { 0 } else { count }, Ordering::Relaxed);
        if is_due {
            self.pass_time(count as usize);
        }
    }

    /// Sends an access on its way to the tuner, if its key is in the sample.
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
        self.access_clock.advance(events as u64);
        self.sketch.age(self.access_clock.now());
        self.age_entries(events as u64);
    }

    /// Ages the access bits of some buckets, and brings the classes of a few of these up to date; each bucket has had its
    /// turn when the clock has passed an age, or so many ages.
    fn age_entries(&self, events: u64) {
        let guard = self.table.pin_structure();
        let buckets = self.table.slots(&guard) / SLOTS;
        let count = self.access_clock.share(events, buckets as u64).min(MAX_AGED) as usize;
        // Relaxed: which thread has which turn does not matter.
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

    /// Brings the classes of a bucket up to date: a late store may have left a wrong one.
    fn classify(&self, guard: &Guard, view: &BucketView<'_>) {
        view.forget_free();
        for sampled_slot in view.taken().filter_map(|slot| view.sampled_slot(slot)) {
            if let Some(metadata) = self.table.look(guard, &sampled_slot) {
                self.classify_entry(sampled_slot, metadata);
            }
        }
    }

    /// Returns how often a hash was seen lately, from 0 to 15; the access bits of a resident entry have its hits.
    #[inline]
    pub fn frequency(&self, hash: u64, access: Option<Access>) -> u8 {
        let hits = access.map_or(0, |access| access.hits(self.access_clock.now()));
        (self.sketch.estimate(hash) + hits).min(MAX_FREQUENCY)
    }

    /// The same, given the resident entry.
    #[inline]
    pub fn frequency_of(&self, hash: u64, hit: Option<&SlotRef<'_, Entry<K, V>>>) -> u8 {
        self.frequency(hash, hit.map(|hit| access_of(hit)))
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

/// The bits of a hash that choose which hits are counted: some that choose no bucket of a small table.
const TURN_SHIFT: u32 = 32;
/// Hits that are counted as one, less one, in a cache of so many entries at least. In a smaller one a few entries could be
/// all that is asked for, and none of them have its turn: then the clock would stand still.
const TURN_MASK: u32 = 15;
const ENTRIES_FOR_TURNS: u64 = 4096;

/// Returns how many hits are counted as one in a cache of so many entries, less one.
pub(super) fn turn_mask(entries: u64) -> u32 {
    if entries >= ENTRIES_FOR_TURNS { TURN_MASK } else { 0 }
}

/// Ages in which each bucket's classes have a turn.
const AGES_PER_CLASS: usize = 8;
/// Buckets aged at once, at most: where there are more to an entry, they have their turns later.
const MAX_AGED: u64 = 256;
/// The counters of the sketch end there, and so does what is added to them.
const MAX_FREQUENCY: u8 = 15;
