//! Maintenance: the deferred work, a slice at a time, and the budget's moves.
//!
//! What it works with is a box, the [`MaintenanceShard`], that is taken out while it is used; there are a few, each with a part of
//! the window, and calls use them in turn. Whoever finds all gone makes room without the window, by
//! [`Engine::make_room_alone`]; no thread waits.

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
    primitives::striped::{CAPACITY, thread_number},
    reclaim::Guard,
    sync::atomic::Ordering,
    table::{SLOTS, buckets_for},
    trace,
    util::Rng,
};

/// What maintenance works with.
#[derive(Debug)]
pub struct MaintenanceShard {
    pub(super) window: Window,
    /// New entries taken from a window.
    pub(super) taken: u32,
    /// What the account of all windows does not have yet; wraps.
    pub(super) queued: u64,
    /// The ring of new entries to go on with.
    pub(super) next_ring: usize,
    /// Where victims of the main region are looked for.
    pub(super) hand: Hand,
    pub(super) rng: Rng,
    /// Hashes of new entries, on their way to the sketch.
    pub(super) events: [u64; CAPACITY],
    /// How many there are.
    pub(super) noted: usize,
    /// Entries that the builder's functions have kept in the last call.
    pub(super) vetoes: u32,
}

impl MaintenanceShard {
    /// Makes an empty window; random choices begin with `seed`.
    pub fn new(seed: u64) -> Self {
        Self {
            window: Window::default(),
            taken: 0,
            queued: 0,
            next_ring: 0,
            hand: Hand::new(seed as usize),
            rng: Rng::new(seed),
            events: [0; CAPACITY],
            noted: 0,
            vetoes: 0,
        }
    }

    /// Adds a new entry at the end of the window.
    #[inline]
    pub(super) fn admit(&mut self, window_entry: WindowEntry) {
        self.queued = self.queued.wrapping_add(self.window.push(window_entry));
    }
}

/// How much of the deferred work a call may do.
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
    /// Everything that is due.
    pub const ALL: Self = Self { evictions: usize::MAX };

    /// At most so many evictions and so many expirations, and what can be freed.
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
    /// Misses and new entries that reached the sketch.
    pub events: usize,
    /// Entries removed because their time was over.
    pub expired: usize,
    /// Entries evicted.
    pub evicted: usize,
    /// Entries freed.
    pub freed: usize,
    /// Whether something is left: garbage that readers still see, or a table being resized.
    pub pending: bool,
}

/// A slice of deferred work, as the engine knows it.
#[derive(Debug, Default)]
pub struct Slice {
    pub ticked: WorkReport,
    /// Whether a part of the table has moved, by this thread or another.
    pub has_moved: bool,
    /// The first panic of a destructor or a listener.
    pub panic: Option<Box<dyn std::any::Any + Send>>,
}

impl<K, V, S> Engine<K, V, S> {
    /// Takes a maintenance shard that no other thread has, if there is one: that of this thread, or another.
    #[inline]
    pub(super) fn take_shard(&self) -> Option<Borrowed<'_, MaintenanceShard>> {
        let count = self.shards.len();
        let number = thread_number();
        (0..count).find_map(|i| take(&self.shards[number.wrapping_add(i) % count]))
    }

    /// Halves the table until it suits `entries`, moving everything.
    pub(super) fn shrink_table(&self, guard: &Guard, entries: usize) {
        let wanted = buckets_for(entries.max(self.len() as usize)) * SLOTS;
        self.finish_resize(guard);
        // Two buckets may be more than fit into one: where an entry may not leave unasked, the table stays large.
        let may_displace = || !self.unevictable.is_any() && !self.callbacks.ask_before_eviction();
        let may_shrink = || may_displace() && self.table.slots(guard) / 2 >= wanted;
        while may_shrink() && self.table.shrink(guard) {
            self.finish_resize(guard);
            // The old array waits for its grace period, though nothing was removed.
            self.notify_if_waiting();
        }
    }

    fn finish_resize(&self, guard: &Guard) {
        while self.table.help(guard, RESIZE_UNITS, |entry| self.displace(guard, entry)) {}
    }

    /// Does a slice of the deferred work; returns what it did. Call it unpinned.
    ///
    /// A destructor's panic comes back beside it.
    pub fn maintain(&self, work: WorkLimit) -> Slice {
        let span = trace::Span::begin(&self.settings.name);
        let slice = span.within(|| self.maintain_within(work));
        let ticked = slice.ticked;
        span.end(ticked.evicted, ticked.expired, ticked.freed);
        slice
    }

    fn maintain_within(&self, work: WorkLimit) -> Slice {
        let events = self.events.drain_all(|hashes| self.learn(hashes));
        let noted =
            self.shards.iter().filter_map(|place| borrow(place, |shard| self.learn_noted(shard)));
        let events = events + noted.sum::<usize>();
        let mut ticked = WorkReport { events, ..WorkReport::default() };
        let mut panic = None;
        let mut tried = 0;
        loop {
            // A million may fall due at once: what they leave behind is freed in between.
            let slice = (work.evictions - tried).min(SLICE_EXPIRATIONS);
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
            // A few at a time: writers that need room at the same time want the shard, too, and no grace
            // period ends under a guard.
            if self.is_sweep_due() {
                let swept = self.sweep_now();
                ticked.freed += swept.freed;
                panic = panic.or(swept.panic);
            }
            let guard = self.table.pin_structure();
            let slice = (work.evictions - ticked.evicted).min(SLICE_EVICTIONS);
            let reserve = self.reserve();
            if !self.budget.is_over_reserve(reserve) {
                // A writer that finds the shard taken has to do without the window.
                break;
            }
            let evicted = self.take_shard().map(|mut shard| {
                self.collect_new_entries(&guard, &mut shard, TAKEN_IN);
                self.settle(&guard, &mut shard, reserve, slice)
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
        self.table.seal();
        drop(guard);
        let swept = self.sweep(usize::MAX);
        ticked.freed += swept.freed;
        ticked.pending |= self.trim_if_due();
        let is_cut = tried > 0 && tried == work.evictions;
        ticked.pending |= swept.waiting > 0 || is_away || is_cut;
        Slice { ticked, has_moved, panic: panic.or(swept.panic) }
    }

    /// Gives memory back after the cache was cleared; returns whether that has still to be done.
    ///
    /// What stays: the sketch, for frequencies stay known; the tuner; the rings and counters of the threads.
    fn trim_if_due(&self) -> bool {
        // Relaxed, here and below: a hint.
        if !self.trim_due.load(Ordering::Relaxed) {
            return false;
        }
        if !self.table.is_at_rest() {
            // What is freed later would be kept for new entries.
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
            self.window_cost.fetch_sub(gone, Ordering::Relaxed); // Relaxed: a figure to decide by.
        }
        self.trim_deadlines();
        false
    }

    /// Lowers or raises the budget; a lower one is kept when the call returns.
    pub fn set_max_cost(&self, max: u64) {
        let before = self.budget.max();
        self.budget.begin_move();
        self.budget.set_max(max);
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

    /// Evicts until no more is charged than `limit`, or only by inserts under way, which will not publish on that charge.
    fn evict_down_to(&self, guard: &Guard, limit: u64) {
        let mut is_renewed = false;
        let mut tries = 0;
        while self.budget.used() > limit {
            let evicted = self.take_shard().map(|mut shard| {
                self.collect_new_entries(guard, &mut shard, TAKEN_IN);
                self.settle(guard, &mut shard, 0, MAX_EVICTIONS)
            });
            if evicted.is_some_and(|n| n > 0) {
                continue;
            }
            // A bucket on the move gives nobody out.
            self.finish_resize(guard);
            let seed = self.budget.used() ^ u64::from(self.access_clock.now() ^ tries) << 32;
            let random = super::spread(seed);
            let anyone = || self.victim(guard, random, Among::Evictable);
            // Until those that left elsewhere are taken off the account, it may look as if pinned ones had to go.
            let pinned = || {
                let must_go = self.unevictable.cost() > limit;
                if must_go { self.victim(guard, random, Among::All) } else { None }
            };
            let chosen = anyone().map(|victim| (victim, Force::Functions));
            match chosen.or_else(|| pinned().map(|victim| (victim, Force::All))) {
                // If another thread takes it or replaces it first, another one goes. The limit goes before the functions
                // of the builder that keep entries, but they are asked a few times.
                Some((victim, force)) => {
                    let is_asked = force == Force::Functions && tries < MAX_VETOES;
                    let mut out = self.evictions(guard);
                    if !is_asked {
                        out.force(force);
                    }
                    tries += u32::from(!out.evict(&victim.sampled_slot));
                }
                // What is charged belongs to inserts under way, which may have come in meanwhile, or to evictions.
                None if is_renewed => break,
                None => {
                    // With it go entries that cost nothing: one of these may be about to be replaced by another.
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

/// Evictions of a slice of maintenance.
const SLICE_EVICTIONS: usize = 16;
/// The same for expirations, between which garbage is freed.
const SLICE_EXPIRATIONS: usize = 4096;
/// Units of a resize moved at once by maintenance.
const RESIZE_UNITS: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        engine::testing::{put, sized},
        expiry::inbox::NextExpiry,
    };

    /// The one thread here prepares to sleep, and then plays the others.
    #[test]
    fn sleeping_thread_is_woken_where_the_table_begins_to_move_and_finds_the_old_array() {
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
    fn sleeping_thread_is_woken_where_an_empty_table_shrinks() {
        let engine = sized(1 << 20, 0);
        for key in 0..1000 {
            put(&engine, key);
        }
        engine.clear();
        // It has shrunk; make it large again, with nothing in it.
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
