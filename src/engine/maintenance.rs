//! Maintenance: the deferred work, done in slices, and changes of the budget.
//!
//! Its state is a [`MaintenanceShard`], which a thread takes out while it uses it. There are a few
//! shards, each with a part of the window, and calls use them in turn. A thread that finds all of
//! them taken makes room without the window, by [`Engine::make_room_alone`]; no thread waits.

use super::{
    Engine,
    evict::MAX_EVICTIONS,
    evictions::{Force, MAX_VETOES},
    place::{Borrowed, borrow, take},
    victims::{Among, Hand},
    window::TAKEN_IN,
};
use crate::{
    policy::window::{Window, WindowEntry},
    primitives::striped::thread_number,
    reclaim::Guard,
    sync::atomic::Ordering,
    table::{SLOTS, buckets_for},
    trace,
    util::Rng,
};

/// Entries that maintenance evicts under one guard.
const SLICE_EVICTIONS: usize = 16;
/// New entries until an event is counted by the sketch: by then, its prefetched counters have
/// arrived.
pub(super) const DELAYED: usize = 8;
/// Entries that maintenance removes as expired before it frees garbage.
const SLICE_EXPIRATIONS: usize = 4096;
/// Units of a resize that one slice of maintenance moves.
const RESIZE_UNITS: usize = 256;

/// The state of maintenance: a part of the window, and the hand.
#[derive(Debug)]
pub struct MaintenanceShard {
    pub(super) window: Window,
    /// New entries that were taken from a window.
    pub(super) taken: u32,
    /// Cost that the total of all windows does not include yet; wraps.
    pub(super) queued: u64,
    /// Cost that was promoted to main and that its total does not include yet; wraps.
    pub(super) promoted: u64,
    /// The ring of new entries to continue with.
    pub(super) next_ring: usize,
    /// Where the next victim of the main region is searched for.
    pub(super) hand: Hand,
    pub(super) rng: Rng,
    /// Hashes of new entries, buffered for the sketch.
    pub(super) events: [u64; DELAYED],
    /// The number of hashes that were noted since the last maintenance.
    pub(super) noted: usize,
}

impl MaintenanceShard {
    /// Makes a shard with an empty window; `seed` seeds random choices.
    pub fn new(seed: u64) -> Self {
        Self {
            window: Window::default(),
            taken: 0,
            queued: 0,
            promoted: 0,
            next_ring: 0,
            hand: Hand::new(seed as usize),
            rng: Rng::new(seed),
            events: [0; DELAYED],
            noted: 0,
        }
    }

    /// Appends a new entry to the window.
    #[inline]
    pub(super) fn admit(&mut self, window_entry: WindowEntry) {
        self.queued = self.queued.wrapping_add(self.window.push(window_entry));
    }
}

/// A limit on the deferred work of one call.
///
/// # Examples
///
/// ```
/// use cortado::{Cache, WorkLimit};
///
/// let cache: Cache<u32, u32> = Cache::builder().max_cost(10).build_manual()?;
/// assert_eq!(cache.tick(WorkLimit::evictions(1)).evicted, 0);
/// # Ok::<(), cortado::BuildError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WorkLimit {
    evictions: usize,
}

impl WorkLimit {
    /// No limit.
    pub const ALL: Self = Self { evictions: usize::MAX };

    /// At most `most` evictions and `most` expirations, and everything that can be freed.
    pub const fn evictions(most: usize) -> Self {
        Self { evictions: most }
    }
}

/// What a slice of deferred work did.
///
/// # Examples
///
/// ```
/// use cortado::{Cache, WorkLimit};
///
/// let cache = Cache::builder().max_cost(10).build_manual()?;
/// cache.insert("k", 1);
/// cache.remove("k");
/// let mut freed = 0;
/// while freed == 0 {
///     freed = cache.tick(WorkLimit::ALL).freed;
/// }
/// assert_eq!(freed, 1);
/// # Ok::<(), cortado::BuildError>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct WorkReport {
    /// Misses and new entries that were counted by the sketch.
    pub events: usize,
    /// Entries removed because they had expired.
    pub expired: usize,
    /// Entries evicted.
    pub evicted: usize,
    /// Entries freed.
    pub freed: usize,
    /// Whether work is left: garbage that readers can still see, or a table that is being resized.
    pub pending: bool,
}

/// A slice of deferred work, with what only the engine needs to know.
#[derive(Debug, Default)]
pub struct Slice {
    pub ticked: WorkReport,
    /// Whether a part of the table was moved, by this thread or another.
    pub has_moved: bool,
    /// Whether new garbage was left for a later call, since there was little of it.
    pub has_deferred: bool,
    /// The first panic of a destructor or a listener.
    pub panic: Option<Box<dyn std::any::Any + Send>>,
}

impl<K, V, S> Engine<K, V, S> {
    /// Takes a maintenance shard that no other thread holds, if there is one; the thread's own
    /// first.
    #[inline]
    pub(super) fn take_shard(&self) -> Option<Borrowed<'_, MaintenanceShard>> {
        let (count, number) = (self.shards.len(), thread_number());
        (0..count).find_map(|i| take(&self.shards[number.wrapping_add(i) & (count - 1)]))
    }

    /// Halves the table until it fits `entries`, and completes each resize.
    pub(super) fn shrink_table(&self, guard: &Guard, entries: usize) {
        let wanted = buckets_for(entries.max(self.len() as usize)) * SLOTS;
        self.finish_resize(guard);
        // Two merged buckets may overflow: if an entry must not be displaced, the table stays
        // large.
        let may_displace = || !self.unevictable.is_any() && !self.callbacks.ask_before_eviction();
        let may_shrink = || may_displace() && self.table.slots(guard) / 2 >= wanted;
        while may_shrink() && self.table.shrink(guard) {
            self.finish_resize(guard);
            // The old array waits for its grace period, though no entry was removed.
            self.notify_if_waiting();
        }
    }

    fn finish_resize(&self, guard: &Guard) {
        while self.table.help(guard, RESIZE_UNITS, |entry| self.displace(guard, entry)) {}
    }

    /// Does a slice of the deferred work; returns what it did. Call it unpinned.
    ///
    /// The first panic of a destructor or a listener is in the result.
    pub fn maintain(&self, work: WorkLimit) -> Slice {
        self.maintain_with(work, false)
    }

    /// Like [`maintain`](Self::maintain). If `may_defer`, a call that evicts does not begin a grace
    /// period for little garbage, because the next call will find more.
    pub fn maintain_with(&self, work: WorkLimit, may_defer: bool) -> Slice {
        let span = trace::Span::begin(&self.settings.name);
        let slice = span.within(|| self.maintain_within(work, may_defer));
        let ticked = slice.ticked;
        span.end(ticked.evicted, ticked.expired, ticked.freed);
        slice
    }

    fn maintain_within(&self, work: WorkLimit, may_defer: bool) -> Slice {
        let events = self.events.drain_all(|hashes| self.learn(hashes));
        let noted =
            self.shards.iter().filter_map(|place| borrow(place, |shard| self.learn_noted(shard)));
        let events = events + noted.sum::<usize>();
        let mut ticked = WorkReport { events, ..WorkReport::default() };
        let mut panic = None;
        let mut tried = 0;
        loop {
            // A million entries may expire at once: their garbage is freed in between.
            // After a panic of a clock, a call also handles the timers that the panic has left.
            let slice = work.evictions.saturating_sub(tried).min(SLICE_EXPIRATIONS);
            let expired = self.expire(slice);
            ticked.expired += expired.removed;
            tried += expired.tried();
            if expired.tried() < slice || slice == 0 {
                break;
            }
            let swept = self.sweep(usize::MAX);
            ticked.freed += swept.freed;
            panic = panic.or(swept.panic);
        }
        let mut is_away = false;
        while ticked.evicted < work.evictions {
            // A few at a time: writers that need room need the shard, too, and no grace period ends
            // while a guard is held.
            if self.is_sweep_due() {
                let swept = self.sweep_now();
                ticked.freed += swept.freed;
                panic = panic.or(swept.panic);
            }
            let guard = self.table.pin_structure();
            let slice = (work.evictions - ticked.evicted).min(SLICE_EVICTIONS);
            let reserve = self.reserve();
            if !self.budget.is_over_reserve(reserve) {
                // Leave the shard to writers: one that finds it taken has to do without the window.
                break;
            }
            let evicted = self.take_shard().map(|mut shard| {
                self.collect_new_entries(&guard, &mut shard, TAKEN_IN);
                self.settle(&guard, &mut shard, reserve, slice, 0).0
            });
            is_away = evicted.is_none();
            ticked.evicted += evicted.unwrap_or(0);
            if evicted.is_none_or(|evicted| evicted < slice) {
                break;
            }
        }
        let guard = self.table.pin_structure();
        let moved = self.table.moved_units(&guard);
        let displace = |entry| self.displace(&guard, entry);
        ticked.pending = self.table.help(&guard, RESIZE_UNITS, displace);
        let has_moved = self.table.moved_units(&guard) != moved;
        borrow(&self.tuning, |tuning| self.adapt(&guard, tuning));
        self.sketch.grow(self.len() as usize);
        let is_busy = ticked.evicted + ticked.expired > 0;
        let has_deferred = may_defer && is_busy && self.has_little_garbage();
        if !has_deferred {
            self.table.seal();
        }
        drop(guard);
        let swept = self.sweep_with(usize::MAX, has_deferred);
        ticked.freed += swept.freed;
        ticked.pending |= self.trim_if_due();
        let is_cut = tried > 0 && tried >= work.evictions;
        ticked.pending |= swept.waiting > 0 || is_away || is_cut;
        Slice { ticked, has_moved, has_deferred, panic: panic.or(swept.panic) }
    }

    /// Returns memory after the cache was cleared; returns whether that still has to be done.
    ///
    /// The sketch stays, because frequencies remain valid; so do the tuner, and the threads' rings
    /// and counters.
    fn trim_if_due(&self) -> bool {
        // Relaxed, here and below: a hint.
        if !self.trim_due.load(Ordering::Relaxed) {
            return false;
        }
        if !self.table.is_at_rest() {
            // Cells that are freed later would be kept for new entries.
            return true;
        }
        self.trim_due.store(false, Ordering::Relaxed);
        let guard = self.table.pin_structure();
        self.table.trim();
        borrow(&self.backlog, |backlog| {
            backlog.hashes.retain(|&hash| self.find_in_window(&guard, hash).is_some());
            backlog.hashes.shrink_to_fit();
        });
        for place in &self.shards {
            let is_there = |hash| self.find_in_window(&guard, hash).is_some();
            let gone = borrow(place, |shard| shard.window.retain(is_there)).unwrap_or(0);
            self.window_cost.fetch_sub(gone, Ordering::Relaxed); // Relaxed: an estimate.
        }
        self.trim_deadlines();
        false
    }

    /// Changes the budget; a lower one holds when the call returns.
    pub fn set_max_cost(&self, max: u64) {
        let before = self.budget.max();
        self.budget.begin_move();
        self.budget.set_max(max, self.locals.iter().map(|local| &local.credit));
        let limit = self.budget.max();
        if limit < before {
            let guard = self.table.pin_structure();
            self.evict_down_to(&guard, limit);
            let wanted = if self.costs_vary() { self.len() } else { max };
            self.shrink_table(&guard, usize::try_from(wanted).unwrap_or(usize::MAX));
        }
        self.budget.end_move();
        borrow(&self.tuning, |tuning| self.adapt(&self.table.pin_structure(), tuning));
        self.sweep_if_due();
    }

    /// Evicts until at most `limit` is charged, or the excess is charged by inserts in progress,
    /// which do not publish on that charge.
    fn evict_down_to(&self, guard: &Guard, limit: u64) {
        let mut is_renewed = false;
        let mut tries = 0;
        while self.budget.used() > limit {
            let evicted = self.take_shard().map(|mut shard| {
                self.collect_new_entries(guard, &mut shard, TAKEN_IN);
                self.settle(guard, &mut shard, 0, MAX_EVICTIONS, 0).0
            });
            if evicted.is_some_and(|n| n > 0) {
                continue;
            }
            // A bucket that is being moved yields no victim.
            self.finish_resize(guard);
            self.recall_credits();
            let seed = self.budget.used() ^ u64::from(self.access_clock.now() ^ tries) << 32;
            let random = super::spread(seed);
            let any_victim = || self.victim(guard, random, Among::Evictable);
            // Until concurrent removals are subtracted, it may seem that unevictable entries have
            // to be evicted.
            let pinned = || {
                let must_go = self.unevictable.cost() > limit;
                if must_go { self.victim(guard, random, Among::All) } else { None }
            };
            let chosen = any_victim().map(|victim| (victim, Force::Functions));
            match chosen.or_else(|| pinned().map(|victim| (victim, Force::All))) {
                // If another thread removes or replaces it first, another victim is chosen. The
                // limit overrides the callbacks that keep entries, but they are asked a few times.
                Some((victim, force)) => {
                    let is_asked = force == Force::Functions && tries < MAX_VETOES;
                    let mut out = self.evictions(guard);
                    if !is_asked {
                        out.force(force);
                    }
                    tries += u32::from(!out.evict(&victim.sampled_slot));
                }
                // What is charged belongs to inserts in progress, which may have been published
                // concurrently, or to evictions.
                None if is_renewed => break,
                None => {
                    // Entries without cost are removed, too: a writer may be about to replace one
                    // of them.
                    let guard = self.table.pin();
                    self.table.renew(&guard, |entry| {
                        let hash = self.table.hash_of(&entry);
                        self.write_unlinked(hash, self.table.unlinked(&guard, &entry));
                        self.evictions(&guard).end(entry);
                    });
                    is_renewed = true;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        engine::testing::{put, sized},
        expiry::inbox::NextExpiry,
    };

    /// The only thread prepares to sleep, and then acts as the writers.
    #[test]
    fn sleeping_thread_is_woken_when_a_resize_begins_and_finds_the_old_array() {
        let engine = sized(1 << 20, 0);
        engine.eventcount.set_thread(crate::sync::thread::current());
        let bytes = || engine.table.bucket_bytes(&engine.table.pin());
        let before = bytes();
        engine.eventcount.wait(|| {
            for key in 0.. {
                assert!(engine.eventcount.is_waiting(), "woken for nothing");
                put(&engine, key);
                if bytes() > before {
                    break;
                }
            }
            assert!(!engine.eventcount.is_waiting());
            None
        });
        assert!(!engine.eventcount.resume());
        let guard = engine.table.pin();
        while engine.table.help(&guard, 1, |entry| engine.displace(&guard, entry)) {}
        drop(guard);
        assert_eq!((bytes(), engine.table.garbage().count), (2 * before, 0));
        assert_eq!(engine.next_work(), (true, NextExpiry::Never));
        while engine.next_work().0 {
            engine.maintain(WorkLimit::ALL);
        }
    }

    #[test]
    fn sleeping_thread_is_woken_when_an_empty_table_shrinks() {
        let engine = sized(1 << 20, 0);
        for key in 0..1000 {
            put(&engine, key);
        }
        engine.clear();
        // The table has shrunk; grow it again, without entries.
        let guard = engine.table.pin();
        assert!(engine.table.grow(&guard));
        while engine.table.help(&guard, 1, |entry| engine.displace(&guard, entry)) {}
        drop(guard);
        while engine.maintain(WorkLimit::ALL).ticked.pending {}
        engine.eventcount.set_thread(crate::sync::thread::current());
        engine.eventcount.wait(|| {
            assert!(engine.eventcount.is_waiting() && !engine.next_work().0);
            engine.clear();
            assert!(!engine.eventcount.is_waiting());
            None
        });
        assert!(!engine.eventcount.resume());
        assert!(engine.next_work().0, "the old array waits");
    }
}
