//! Maintenance: making room, and what gets and inserts put off.
//!
//! Eviction is decided here and nowhere else (but in a full bucket, by the same score). The state
//! it needs is a box, the [`Maintainer`], that is taken out while it is used; there are a few, each with
//! a part of the window, and calls use them in turn. Whoever finds all gone makes room without the window,
//! by [`Engine::make_room_alone`]; nobody waits.

use std::{
    collections::VecDeque,
    ops::{Deref, DerefMut},
};

use super::{
    Engine, NORMAL_WEIGHT, Place, access_of,
    evictions::Evictions,
    read::turn_mask,
    victims::{Among, Hand, Resident},
};
use crate::{
    buckets::{Metadata, SLOTS, SlotRef, Spot, buckets_for},
    config::{Maintenance, Priority, RESERVE_ENTRIES, RESERVE_PART, Victim},
    entry::Entry,
    policy::{
        access::Access,
        admission::{Contender, Rule},
        race::{Look, Race, Scale},
        shadow,
        step::{State, Step, step},
        window::{Newcomer, Window},
    },
    reclaim::Guard,
    slab::prefetch,
    stripe::{CAPACITY, thread_number},
    sync::atomic::Ordering,
    trace,
    util::{Rng, for_all},
};

/// What maintenance works with.
#[derive(Debug)]
pub struct Maintainer {
    pub(super) window: Window,
    /// Newcomers taken from a window.
    taken: u32,
    /// What the account of all windows does not have yet; wraps.
    queued: u64,
    /// The ring of newcomers to go on with.
    next_ring: usize,
    /// Where victims of the main region are looked for.
    pub(super) hand: Hand,
    pub(super) rng: Rng,
    /// Hashes of new entries, on their way to the sketch.
    events: [u64; CAPACITY],
    /// How many there are.
    noted: usize,
}

impl Maintainer {
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
        }
    }

    /// Adds a new entry at the end of the window.
    #[inline]
    fn admit(&mut self, newcomer: Newcomer) {
        self.queued = self.queued.wrapping_add(self.window.push(newcomer));
    }
}

/// An entry whose time in the window is over.
struct Leaver<'g, K, V> {
    newcomer: Newcomer,
    slot: SlotRef<'g, Entry<K, V>>,
}

impl<K, V> Clone for Leaver<'_, K, V> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<K, V> Copy for Leaver<'_, K, V> {}

/// What the race is run with.
#[derive(Debug)]
pub struct Racer {
    race: Race,
    scale: Scale,
    /// Accesses of the sample that were not played yet.
    samples: VecDeque<u64>,
}

impl Racer {
    /// Makes a race that nobody leads; random choices begin with `seed`.
    pub fn new(seed: u64, scale: Scale) -> Self {
        Self {
            race: Race::new(seed),
            scale,
            // A hit may put some in, and hits allocate nothing.
            samples: VecDeque::with_capacity(MOST_SAMPLES + CAPACITY),
        }
    }

    pub(super) fn bytes(&self) -> usize {
        self.race.bytes() + self.samples.capacity() * size_of::<u64>()
    }
}

/// Hashes of new entries that found no maintainer, the oldest first.
///
/// Bounded: where it is full, the writers that add to it judge the oldest.
#[derive(Debug, Default)]
pub struct Backlog {
    hashes: VecDeque<u64>,
}

impl Backlog {
    /// Adds hashes; returns whether it did. It does not where others have still to judge what is too many.
    fn add(&mut self, hashes: &[u64]) -> bool {
        let has_room = self.hashes.len() < 2 * MOST_PUT_OFF;
        if has_room {
            self.hashes.extend(hashes);
        }
        has_room
    }

    /// Takes the oldest, if there are too many.
    fn take_surplus(&mut self) -> Option<u64> {
        if self.hashes.len() > MOST_PUT_OFF { self.hashes.pop_front() } else { None }
    }

    pub(super) fn bytes(&self) -> usize {
        self.hashes.capacity() * size_of::<u64>()
    }
}

/// How much of the deferred work a call may do.
///
/// # Examples
///
/// ```
/// use cortado::{Cache, Work};
///
/// let cache: Cache<u32, u32> = Cache::builder().max_cost(10).build_manual()?;
/// assert_eq!(cache.tick(Work::evictions(1)).evicted, 0);
/// # Ok::<(), cortado::BuildError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Work {
    evictions: usize,
}

impl Work {
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
/// use cortado::{Cache, Work};
///
/// let cache = Cache::builder().max_cost(10).build_manual()?;
/// cache.insert("k", 1);
/// cache.remove("k");
/// let mut freed = 0;
/// while freed == 0 {
///     freed = cache.tick(Work::ALL).freed;
/// }
/// assert_eq!(freed, 1);
/// # Ok::<(), cortado::BuildError>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct Ticked {
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
    pub ticked: Ticked,
    /// Whether a part of the table has moved, by this thread or another.
    pub has_moved: bool,
    /// The first panic of a destructor or a listener.
    pub panic: Option<Box<dyn std::any::Any + Send>>,
}

impl<K, V, S> Engine<K, V, S> {
    /// Returns the room that the thread keeps free: none where an entry would be more than that.
    pub(super) fn reserve(&self) -> u64 {
        if self.settings.maintenance == Maintenance::Manual {
            return 0;
        }
        let most = self.unpinned_max() / RESERVE_PART;
        let entry = if self.costs_vary() { self.budget.used() / self.len().max(1) } else { 1 };
        if entry > most { 0 } else { most.min(entry.saturating_mul(RESERVE_ENTRIES)) }
    }

    /// Returns whether the thread should see to its reserve.
    pub(super) fn is_reserve_low(&self) -> bool {
        self.budget.is_over_reserve(self.reserve() / 2)
    }

    /// Takes out a maintainer that nobody else has, if there is one: that of this thread, or another.
    #[inline]
    pub(super) fn take_maintainer(&self) -> Option<Borrowed<'_, Maintainer>> {
        let count = self.maintainers.len();
        let number = thread_number();
        (0..count).find_map(|i| take(&self.maintainers[number.wrapping_add(i) % count]))
    }

    /// Takes over accesses for the race; whole batches are left out where it does not keep up.
    pub(super) fn take_samples(&self, hashes: &[u64]) {
        borrow(&self.racer, |racer| {
            if racer.samples.len() < MOST_SAMPLES {
                racer.samples.extend(hashes);
            }
            self.has_samples.store(true, Ordering::Relaxed); // Relaxed: a hint.
        });
    }

    /// Halves the table until it suits `entries`, moving everything.
    pub(super) fn shrink_table(&self, guard: &Guard, entries: usize) {
        let wanted = buckets_for(entries.max(self.len() as usize)) * SLOTS;
        self.finish_resize(guard);
        // Two buckets may be more than fit into one, and a pinned entry has to stay.
        let may_shrink = || !self.kept.is_any() && self.table.slots(guard) / 2 >= wanted;
        while may_shrink() && self.table.shrink(guard) {
            self.finish_resize(guard);
            // The old array waits for its grace period, though nothing was removed.
            self.rouse();
        }
    }

    fn finish_resize(&self, guard: &Guard) {
        while self.table.help(guard, RESIZE_UNITS, |entry| self.displace(guard, entry)) {}
    }
}

/// What was taken out of its place. Dropping it puts it back, even if a user's clock panics.
pub(super) struct Borrowed<'a, T> {
    place: &'a Place<T>,
    taken: Option<Box<T>>,
}

impl<T> Deref for Borrowed<'_, T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        self.taken.as_deref().expect("it is there until it is dropped")
    }
}

impl<T> DerefMut for Borrowed<'_, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        self.taken.as_deref_mut().expect("it is there until it is dropped")
    }
}

impl<T> Drop for Borrowed<'_, T> {
    #[inline]
    fn drop(&mut self) {
        // The place is empty: nobody puts anything there but who has taken it.
        self.place.store(self.taken.take());
    }
}

/// Takes what is in its place, unless somebody else has it.
#[inline]
pub(super) fn take<T>(place: &Place<T>) -> Option<Borrowed<'_, T>> {
    let taken = place.take();
    taken.is_some().then(|| Borrowed { place, taken })
}

/// Calls `f` with what is in its place, unless somebody else has it.
pub(super) fn borrow<T, R>(place: &Place<T>, f: impl FnOnce(&mut T) -> R) -> Option<R> {
    take(place).map(|mut taken| f(&mut taken))
}

impl<K, V, S> Engine<K, V, S> {
    /// Makes room for `short` more, on behalf of a new entry of that hash; returns whether it was there for a
    /// moment.
    #[cold]
    pub(super) fn make_room(&self, guard: &Guard, hash: u64, short: u64) -> bool {
        if self.expire_if_due() > 0 && self.budget.remaining() >= short {
            return true;
        }
        if let Some(mut maintainer) = self.take_maintainer() {
            let room = short.saturating_add(self.evict_ahead());
            self.collect_strays(guard, &mut maintainer);
            self.settle(guard, &mut maintainer, room, MOST_EVICTIONS);
        }
        self.budget.remaining() >= short || self.make_room_alone(guard, hash, short)
    }

    /// Takes a new entry in, and makes up for the room it took; it is an access, too, unless that `is_counted`.
    #[inline]
    pub(super) fn take_in(
        &self,
        guard: &Guard,
        maintainer: &mut Maintainer,
        newcomer: Newcomer,
        is_counted: bool,
    ) {
        maintainer.admit(newcomer);
        if !is_counted {
            self.note_in(maintainer, newcomer.hash);
        }
        self.collect_strays(guard, maintainer);
        let (used, max) = (self.budget.used(), self.budget.max());
        if used >= max && max >= AHEAD_LEAST && !self.costs_vary() {
            // For the next one, and a few more.
            self.settle(guard, maintainer, 1 + self.evict_ahead(), MOST_EVICTIONS);
            return;
        }
        let reserve = self.reserve();
        // Relaxed: a figure to decide by.
        let window = self.window_cost.load(Ordering::Relaxed).wrapping_add(maintainer.queued);
        let share = self.setting().share_of(self.unpinned_max());
        let is_full = window.saturating_add(reserve) > share && window <= u64::MAX / 2;
        if is_full && used.saturating_add(reserve) < max {
            // There is room, so all that is due is that the window comes down to its share.
            self.settle(guard, maintainer, reserve, MOST_EVICTIONS);
        } else {
            self.note_queued(maintainer);
        }
    }

    /// Counts an event; a batch of them goes to the sketch at once.
    #[inline]
    fn note_in(&self, maintainer: &mut Maintainer, hash: u64) {
        // The counters will have come by the time the batch is full.
        prefetch(self.sketch.line(hash));
        maintainer.events[maintainer.noted % CAPACITY] = hash;
        maintainer.noted += 1;
        if maintainer.noted >= CAPACITY {
            self.learn_noted(maintainer);
        }
    }

    /// Brings the events that a maintainer has to the sketch; returns how many.
    #[cold]
    fn learn_noted(&self, maintainer: &mut Maintainer) -> usize {
        let count = std::mem::take(&mut maintainer.noted).min(CAPACITY);
        if count > 0 {
            self.learn(&maintainer.events[..count]);
        }
        count
    }

    /// Takes in new entries that found all maintainers away, if there are any.
    #[inline]
    fn collect_strays(&self, guard: &Guard, maintainer: &mut Maintainer) {
        // Relaxed: a hint. Maintenance comes without.
        if self.has_strays.load(Ordering::Relaxed) {
            self.collect_newcomers(guard, maintainer, TAKEN_IN_FOR_ROOM);
        }
    }

    /// Takes over a full ring of new entries.
    pub(super) fn hand_over(&self, guard: &Guard, hashes: &[u64]) {
        match self.take_maintainer() {
            Some(mut maintainer) => self.admit_to_window(guard, &mut maintainer, hashes),
            None => self.put_off(guard, hashes),
        }
    }

    /// Queues hashes for the next maintainer, and judges those that are too many then.
    fn put_off(&self, guard: &Guard, hashes: &[u64]) {
        self.note_strays();
        let is_in = borrow(&self.backlog, |backlog| backlog.add(hashes)).unwrap_or(false);
        if !is_in {
            // Another thread is adding its own, or has still to judge.
            return for_all(hashes, |&hash| self.judge_alone(guard, hash));
        }
        for _ in hashes {
            // One by one: those that are not judged yet stay where they are known.
            let oldest = borrow(&self.backlog, Backlog::take_surplus).flatten();
            let Some(hash) = oldest else { break };
            self.judge_alone(guard, hash);
        }
    }

    /// Notes that new entries wait for a maintainer.
    pub(super) fn note_strays(&self) {
        // Relaxed, twice: a hint. Written only if it differs: writers share it.
        if !self.has_strays.load(Ordering::Relaxed) {
            self.has_strays.store(true, Ordering::Relaxed);
        }
    }

    /// Judges an entry of the window that is in no queue: it goes to main if the cache is still filling, or if
    /// it would win a duel, though no entry has to go; it is evicted otherwise.
    pub(super) fn judge_alone(&self, guard: &Guard, hash: u64) {
        for _ in 0..JUDGED_TRIES {
            let Some(hit) = self.find_in_window(guard, hash) else { return };
            let mut rng = Rng::new(hash ^ u64::from(self.pulse.now()));
            let wins = self.is_exempt(hit.metadata())
                || self.is_filling(self.reserve())
                || self.victim(guard, rng.next_u64(), Among::Main).is_none_or(|victim| {
                    self.admits(self.contender(hash, &hit), &victim, rng.next_u64())
                });
            let is_settled = if wins {
                self.enter_main(hash, &hit)
            } else {
                self.evict(&mut self.evictions(guard), &hit)
            };
            if is_settled {
                return;
            }
            // It was replaced this moment, by one that is in the window.
        }
        if let Some(hit) = self.find_in_window(guard, hash) {
            self.enter_main(hash, &hit);
        }
    }

    /// Returns the entry of the window that has this very hash. (The table would also offer those that share
    /// bucket and tag, which then would take the turn of another.)
    fn find_in_window<'g>(
        &'g self,
        guard: &'g Guard,
        hash: u64,
    ) -> Option<SlotRef<'g, Entry<K, V>>> {
        let is_it = |found: Metadata<'_, Entry<K, V>>| {
            found.has_upper_of(hash) && found.flags().is_in_window()
        };
        self.table.find_slot(guard, hash, is_it)
    }

    /// The same for one that is in a queue.
    #[inline]
    fn find_newcomer<'g>(
        &'g self,
        guard: &'g Guard,
        newcomer: Newcomer,
    ) -> Option<SlotRef<'g, Entry<K, V>>> {
        let there = self.table.find_at(guard, newcomer.hash, newcomer.spot);
        match there.filter(|slot| slot.flags().is_in_window()) {
            Some(slot) => Some(slot),
            // It was replaced, or the table is on the move.
            None => self.find_in_window(guard, newcomer.hash),
        }
    }

    /// Returns whether to evict an entry would make no room, or break a promise: it has no rival, then.
    fn is_exempt(&self, metadata: Metadata<'_, Entry<K, V>>) -> bool {
        self.cost_of(metadata) == 0 || metadata.flags().is_unevictable()
    }

    /// Does a slice of the deferred work; returns what it did. Call it unpinned.
    ///
    /// A destructor's panic comes back beside it.
    pub fn maintain(&self, work: Work) -> Slice {
        let span = trace::Span::begin(&self.settings.name);
        let slice = span.within(|| self.maintain_within(work));
        let ticked = slice.ticked;
        span.end(ticked.evicted, ticked.expired, ticked.freed);
        slice
    }

    fn maintain_within(&self, work: Work) -> Slice {
        let events = self.events.drain_all(|hashes| self.learn(hashes));
        let noted = self
            .maintainers
            .iter()
            .filter_map(|place| borrow(place, |maintainer| self.learn_noted(maintainer)));
        let events = events + noted.sum::<usize>();
        let mut ticked = Ticked { events, ..Ticked::default() };
        let mut panic = None;
        loop {
            // A million may fall due at once: what they leave behind is freed in between.
            let slice = (work.evictions - ticked.expired).min(SLICE_EXPIRATIONS);
            let expired = self.expire(slice);
            ticked.expired += expired;
            if expired < slice || slice == 0 {
                break;
            }
            let swept = self.sweep(usize::MAX);
            ticked.freed += swept.freed;
            panic = panic.or(swept.panic);
        }
        let mut is_away = false;
        while ticked.evicted < work.evictions {
            // A few at a time: writers that need room meanwhile want the maintainer, too, and no grace
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
                // A writer that finds the maintainer away has to do without the window.
                break;
            }
            let evicted = self.take_maintainer().map(|mut maintainer| {
                self.collect_newcomers(&guard, &mut maintainer, TAKEN_IN);
                self.settle(&guard, &mut maintainer, reserve, slice)
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
        borrow(&self.racer, |racer| self.adapt(&guard, racer));
        self.sketch.grow(self.len() as usize);
        self.table.seal();
        drop(guard);
        let swept = self.sweep(usize::MAX);
        ticked.freed += swept.freed;
        ticked.pending |= self.trim_if_due();
        let is_cut = ticked.expired > 0 && ticked.expired == work.evictions;
        ticked.pending |= swept.waiting > 0 || is_away || is_cut;
        Slice { ticked, has_moved, panic: panic.or(swept.panic) }
    }

    /// Gives memory back after the cache was cleared; returns whether that has still to be done.
    ///
    /// What stays: the sketch, for frequencies stay known; the race; the rings and counters of the threads.
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
        for place in &self.maintainers {
            let is_there = |hash| self.find_in_window(&guard, hash).is_some();
            let gone = borrow(place, |maintainer| maintainer.window.retain(is_there)).unwrap_or(0);
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
        borrow(&self.racer, |racer| self.adapt(&self.table.pin_structure(), racer));
        self.sweep_if_due();
    }

    /// Evicts until no more is charged than `limit`, or only by inserts under way, which will not publish on that charge.
    fn evict_down_to(&self, guard: &Guard, limit: u64) {
        let mut is_renewed = false;
        while self.budget.used() > limit {
            let evicted = self.take_maintainer().map(|mut maintainer| {
                self.collect_newcomers(guard, &mut maintainer, TAKEN_IN);
                self.settle(guard, &mut maintainer, 0, MOST_EVICTIONS)
            });
            if evicted.is_some_and(|n| n > 0) {
                continue;
            }
            // A bucket on the move gives nobody out.
            self.finish_resize(guard);
            let random = super::spread(self.budget.used() ^ u64::from(self.pulse.now()) << 32);
            let anyone = || self.victim(guard, random, Among::Unpinned);
            match anyone().or_else(|| self.victim(guard, random, Among::All)) {
                // If somebody else takes it or replaces it first, another one goes.
                Some(victim) => _ = self.evictions(guard).evict(&victim.candidate),
                // What is charged belongs to inserts under way. They may have come in meanwhile.
                None if is_renewed => break,
                None => {
                    // With it go entries that cost nothing: one of these may be about to be replaced by another.
                    self.table.renew(guard, |entry| self.evictions(guard).end(entry));
                    is_renewed = true;
                }
            }
        }
    }

    /// Evicts until `room` is free, or `most` entries have gone; returns how many.
    fn settle(&self, guard: &Guard, maintainer: &mut Maintainer, room: u64, most: usize) -> usize {
        // Relaxed: a hint. What comes later is played later.
        if self.has_samples.load(Ordering::Relaxed) {
            borrow(&self.racer, |racer| self.race(guard, racer));
        }
        let share = self.setting().share_of(self.unpinned_max());
        let ahead = self.evict_ahead();
        let mut out = self.evictions(guard);
        let (mut moved, mut needed, mut judged) = (0, 0, 0);
        while out.count() < most {
            let state = State {
                used: self.budget.used(),
                max: self.budget.max(),
                room,
                share,
                // Relaxed, here and below: figures to decide by. Entries on their way to the window are in neither.
                window: self.window_cost.load(Ordering::Relaxed).wrapping_add(maintainer.queued),
                main: self.main_cost.load(Ordering::Relaxed).saturating_sub(out.main_cost()),
                surplus: if moved < MOST_MOVED { self.surplus.load(Ordering::Relaxed) } else { 0 },
                ahead,
            };
            let mut step = step(state);
            if step == Step::Judge {
                // A whole ring may have come at once, or a full bucket evicted in our place. A few a
                // call that evicts anyway bring the window back to its share by and by.
                let most_judged = (self.capacity() / JUDGED_PART).min(MOST_JUDGED);
                if most_judged == 0 {
                    step = Step::Promote;
                } else if needed == 0 || judged >= most_judged.max(needed) {
                    break;
                }
            }
            let leaver = match step {
                Step::Rest => break,
                Step::Evict => None,
                _ => self.leaver(guard, maintainer),
            };
            let gone = match (step, leaver) {
                (Step::Yield, leaver) => {
                    moved += 1;
                    let cost = leaver.map_or(state.surplus, |it| self.cost_of(it.slot.metadata()));
                    // Relaxed: if two take from it at once, it is used up a little later.
                    self.surplus.store(state.surplus.saturating_sub(cost), Ordering::Relaxed);
                    leaver.into_iter().for_each(|leaver| self.promote(maintainer, leaver));
                    continue;
                }
                (Step::Promote, Some(leaver)) => {
                    self.promote(maintainer, leaver);
                    continue;
                }
                (Step::Evict, _) | (_, Some(_)) => {
                    let gone = self.choose(&mut out, guard, maintainer, step, leaver);
                    if step == Step::Judge {
                        judged += 1;
                        continue;
                    }
                    gone
                }
                // The window's entries are on their way to it.
                (_, None) => break,
            };
            if !gone && !self.evict_any(&mut out, guard) {
                break;
            }
            needed += 1;
        }
        self.note_queued(maintainer);
        out.count()
    }

    /// Evicts the leaver or a victim of main, as the two compare; or, where nobody has to go, the leaver or nobody. Returns
    /// whether one has gone.
    #[inline]
    fn choose(
        &self,
        out: &mut Evictions<'_, K, V, S>,
        guard: &Guard,
        maintainer: &mut Maintainer,
        step: Step,
        leaver: Option<Leaver<'_, K, V>>,
    ) -> bool {
        let victim = self.next_victim(guard, maintainer);
        let Some(leaver) = leaver else {
            return victim.is_some_and(|victim| out.evict(&victim.candidate));
        };
        let luck = maintainer.rng.next_u64();
        let is_duel = step == Step::Duel;
        let wins = match &victim {
            Some(victim) => self.wins(leaver, victim, luck),
            None => !is_duel,
        };
        if !wins {
            return self.expel(out, maintainer, leaver);
        }
        // In this order, so that main is never above its share for it.
        let gone = is_duel && victim.is_some_and(|victim| out.evict(&victim.candidate));
        self.promote(maintainer, leaver);
        gone
    }

    /// Brings the account of all windows up to date with one of them.
    #[inline]
    fn note_queued(&self, maintainer: &mut Maintainer) {
        let queued = std::mem::take(&mut maintainer.queued);
        if queued != 0 {
            self.window_cost.fetch_add(queued, Ordering::Relaxed); // Relaxed: a figure to decide by.
        }
    }

    /// Returns whether the cache is still filling, or much was removed, so that an entry of the window may move
    /// to main unjudged. Room that was made ahead of need lets no entry into main without a duel.
    fn is_filling(&self, room: u64) -> bool {
        let (used, max, ahead) = (self.budget.used(), self.budget.max(), self.evict_ahead());
        State { used, max, room, ahead, ..State::default() }.is_filling()
    }

    /// Plays some of the accesses that wait for it, and follows the race.
    fn race(&self, guard: &Guard, racer: &mut Racer) {
        let costs_vary = self.costs_vary();
        for _ in 0..PLAYED {
            let Some(hash) = racer.samples.pop_front() else {
                // Relaxed: a hint; if some come in this moment, they wait for the next.
                return self.has_samples.store(false, Ordering::Relaxed);
            };
            let hit = self.table.find_slot(guard, hash, |found| found.has_upper_of(hash));
            let cost = match &hit {
                // It is none of the policy's business.
                Some(hit) if hit.flags().is_unevictable() => continue,
                Some(hit) => self.cost_of(hit.metadata()),
                // It went meanwhile, and with it what it cost.
                None if costs_vary => continue,
                None => 1,
            };
            let access = shadow::Access {
                hash,
                cost,
                weight: self.weight(cost),
                frequency: self.frequency_of(hash, hit.as_ref()),
                now: self.pulse.now(),
            };
            let worth = match self.settings.victim {
                Victim::FrequencyPerCost => 1,
                Victim::Frequency => cost,
            };
            let (scale, max) = (racer.scale, self.unpinned_max());
            match racer.race.play(access, scale, max, worth) {
                None => {}
                Some(Look::Same) => self.adapt(guard, racer),
                Some(Look::Changed) => {
                    // Relaxed: any recent setting will do.
                    self.setting.store(racer.race.current(), Ordering::Relaxed);
                    let share = self.setting().share_of(max);
                    let window = self.window_cost.load(Ordering::Relaxed); // Relaxed: as above.
                    // Relaxed: as above.
                    self.surplus.store(window.saturating_sub(share), Ordering::Relaxed);
                }
            }
        }
    }

    /// Adapts what depends on how many entries fill the budget.
    fn adapt(&self, guard: &Guard, racer: &mut Racer) {
        let capacity = self.capacity();
        self.pulse.set_entries(capacity);
        racer.scale = racer.scale.adapted(capacity);
        // In a table with more room, as many entries are spread over more buckets.
        let slots_per_entry = self.table.slots(guard) / (self.len() as usize).max(1);
        let buckets = SAMPLE_BUCKETS * (slots_per_entry / 4).clamp(1, MOST_SPREAD);
        // Relaxed: any recent number will do. Written only if it differs: writers share it.
        if self.sample_buckets.load(Ordering::Relaxed) != buckets {
            self.sample_buckets.store(buckets, Ordering::Relaxed); // Relaxed: as above.
        }
        let turns = turn_mask(capacity);
        // Relaxed, twice: as above.
        if self.turn_mask.load(Ordering::Relaxed) != turns {
            self.turn_mask.store(turns, Ordering::Relaxed);
        }
        let mask = racer.scale.mask();
        // Relaxed, twice: any recent mask will do. Written only if it differs: readers share it.
        if self.sample_mask.load(Ordering::Relaxed) != mask {
            self.sample_mask.store(mask, Ordering::Relaxed);
        }
    }

    /// Returns how many entries a writer that finds no room evicts: more than it needs if a few free
    /// places are nothing to the cache, for to begin costs as much as to evict two.
    fn evict_ahead(&self) -> u64 {
        if self.costs_vary() { 0 } else { (self.budget.max() / AHEAD_PART).min(MOST_AHEAD) }
    }

    /// Brings new entries into the window, `most` or fewer: those of the backlog, then those of the rings,
    /// one ring after the other.
    fn collect_newcomers(&self, guard: &Guard, maintainer: &mut Maintainer, most: usize) {
        // Relaxed, here and below: a hint, that there are none until some come.
        self.has_strays.store(false, Ordering::Relaxed);
        let taken = borrow(&self.backlog, |backlog| {
            let mut hashes = [0; TAKEN_IN];
            let count = most.min(TAKEN_IN).min(backlog.hashes.len());
            hashes.iter_mut().zip(backlog.hashes.drain(..count)).for_each(|(to, hash)| *to = hash);
            self.admit_to_window(guard, maintainer, &hashes[..count]);
            count
        });
        let mut taken = taken.unwrap_or(0);
        let left = most - taken;
        maintainer.next_ring = self.newcomers.drain_some(maintainer.next_ring, left, |hashes| {
            taken += hashes.len();
            self.admit_to_window(guard, maintainer, hashes);
        });
        if taken > 0 {
            // There may be more than one call takes. Relaxed: as above.
            self.has_strays.store(true, Ordering::Relaxed);
        }
    }

    fn admit_to_window(&self, guard: &Guard, maintainer: &mut Maintainer, hashes: &[u64]) {
        if self.costs_vary() {
            self.table.for_many(guard, hashes, |_, hash| {
                if let Some(slot) = self.find_in_window(guard, hash) {
                    let cost = self.cost_of(slot.metadata());
                    maintainer.admit(Newcomer::new(hash, cost, slot.spot()));
                }
            });
        } else {
            let newcomers = hashes.iter().map(|&hash| Newcomer::new(hash, 1, Spot::default()));
            newcomers.for_each(|newcomer| maintainer.admit(newcomer));
        }
        self.note_queued(maintainer);
    }

    /// Takes the newcomer at the window's head.
    ///
    /// Now and then, and where this maintainer has none, it is that of another one: whose thread may have
    /// stopped inserting.
    #[inline]
    fn next_newcomer(&self, maintainer: &mut Maintainer) -> Option<Newcomer> {
        maintainer.taken = maintainer.taken.wrapping_add(1);
        let own = if maintainer.taken.is_multiple_of(TAKEN_IN_TURN) {
            None
        } else {
            maintainer.window.pop()
        };
        let others = || {
            // Each one in its turn.
            let first = (maintainer.taken / TAKEN_IN_TURN) as usize;
            let mut places = self.maintainers.iter().cycle().skip(first % self.maintainers.len());
            let tried = places.by_ref().take(self.maintainers.len());
            tried.filter_map(|place| borrow(place, |other| other.window.pop())).flatten().next()
        };
        let newcomer = own.or_else(others).or_else(|| maintainer.window.pop())?;
        maintainer.queued = maintainer.queued.wrapping_sub(newcomer.cost());
        Some(newcomer)
    }

    /// Takes the entry at the window's head; one that was used meanwhile has another turn.
    #[inline]
    fn leaver<'g>(
        &'g self,
        guard: &'g Guard,
        maintainer: &mut Maintainer,
    ) -> Option<Leaver<'g, K, V>> {
        let mut turns = 0;
        while let Some(newcomer) = self.next_newcomer(maintainer) {
            if let Some(later) = maintainer.window.peek(LOOK_AHEAD) {
                self.table.prefetch_at(later.hash, later.spot);
                prefetch(self.sketch.line(later.hash));
            }
            let Some(hit) = self.find_newcomer(guard, newcomer) else { continue };
            let leaver = Leaver { newcomer, slot: hit };
            if self.is_exempt(hit.metadata()) {
                self.promote(maintainer, leaver);
            } else if access_of(&hit).is_referenced() && turns < MOST_TURNS {
                turns += 1;
                self.unreference(newcomer.hash, &hit);
                Self::queue_again(maintainer, newcomer);
            } else {
                return Some(leaver);
            }
        }
        None
    }

    fn queue_again(maintainer: &mut Maintainer, newcomer: Newcomer) {
        maintainer.admit(newcomer);
    }

    /// Moves a leaver to main.
    #[inline]
    fn promote(&self, maintainer: &mut Maintainer, leaver: Leaver<'_, K, V>) {
        if !self.enter_main(leaver.newcomer.hash, &leaver.slot) {
            // It was replaced this moment, by one that is in the window and waits for its turn.
            Self::queue_again(maintainer, leaver.newcomer);
        }
    }

    /// Evicts a leaver; returns whether it was there.
    #[inline]
    fn expel(
        &self,
        out: &mut Evictions<'_, K, V, S>,
        maintainer: &mut Maintainer,
        leaver: Leaver<'_, K, V>,
    ) -> bool {
        let gone = self.evict(out, &leaver.slot);
        if !gone {
            Self::queue_again(maintainer, leaver.newcomer); // As above.
        }
        gone
    }

    #[inline]
    fn wins(&self, leaver: Leaver<'_, K, V>, victim: &Resident<'_, K, V>, luck: u64) -> bool {
        self.admits(self.contender(leaver.newcomer.hash, &leaver.slot), victim, luck)
    }

    #[inline]
    fn admits(&self, candidate: Contender, victim: &Resident<'_, K, V>, luck: u64) -> bool {
        let rule = self.setting().rule;
        let mean = if rule == Rule::Seen && self.costs_vary() {
            self.weight_of(self.budget.used() / self.len().max(1), Priority::Normal)
        } else {
            NORMAL_WEIGHT
        };
        rule.admits(candidate, self.resident_contender(victim), mean, luck)
    }

    #[inline]
    fn contender(&self, hash: u64, hit: &SlotRef<'_, Entry<K, V>>) -> Contender {
        let cost = self.weight_of(self.cost_of(hit.metadata()), hit.flags().priority());
        Contender { frequency: self.frequency_of(hash, Some(hit)), cost }
    }

    #[inline]
    fn resident_contender(&self, resident: &Resident<'_, K, V>) -> Contender {
        let metadata = resident.metadata;
        let cost = self.weight_of(self.cost_of(metadata), metadata.flags().priority());
        let access = Access::from_bits(resident.candidate.access());
        Contender { frequency: self.frequency(resident.hash(), Some(access)), cost }
    }

    /// Evicts whatever a sample of both regions offers.
    fn evict_any(&self, out: &mut Evictions<'_, K, V, S>, guard: &Guard) -> bool {
        let random = super::spread(self.budget.used() ^ u64::from(self.pulse.now()) << 32);
        let victim = self.victim(guard, random, Among::Unpinned);
        victim.is_some_and(|victim| out.evict(&victim.candidate))
    }

    /// Evicts an entry that was found; returns whether it was still there.
    #[inline]
    fn evict(&self, out: &mut Evictions<'_, K, V, S>, hit: &SlotRef<'_, Entry<K, V>>) -> bool {
        let there = self.table.candidate_of(hit);
        there.is_some_and(|candidate| out.evict(&candidate))
    }

    /// Makes room while all maintainers are away: of a sample, the oldest entry of the window duels with the
    /// victim of main, as it would at the window's head. Where the sample has nothing of the window, it is the
    /// entry that waits for longest to get there.
    ///
    /// If none waits, the victim goes without a duel. The new entry waits then, so the next call has one that
    /// duels: only one in many comes in so, and no loop of accesses can sweep the cache clean while the
    /// maintainers lack a core.
    fn make_room_alone(&self, guard: &Guard, hash: u64, short: u64) -> bool {
        let mut rng = Rng::new(hash ^ u64::from(self.pulse.now()));
        for _ in 0..ALONE_EVICTIONS {
            if self.budget.remaining() >= short {
                return true;
            }
            let [oldest, victim] = self.oldest_and_victim(guard, rng.next_u64());
            let luck = rng.next_u64();
            let Some(oldest) = oldest else {
                if let Some((hash, oldest)) = self.oldest_waiting(guard) {
                    self.duel_alone(guard, (hash, oldest), victim, luck);
                } else if let Some(victim) = victim {
                    self.evictions(guard).evict(&victim.candidate);
                } else {
                    break;
                }
                continue;
            };
            match victim {
                Some(victim) if self.admits(self.resident_contender(&oldest), &victim, luck) => {
                    let hash = oldest.hash();
                    if let Some(hit) = self.table.slot_of(guard, &oldest.candidate) {
                        self.enter_main(hash, &hit);
                    }
                    self.evictions(guard).evict(&victim.candidate);
                }
                _ => _ = self.evictions(guard).evict(&oldest.candidate),
            }
        }
        self.budget.remaining() >= short
    }

    /// Takes, of the entries that no maintainer knows of yet, the one that waits for longest; one that was used
    /// since has another turn.
    fn oldest_waiting<'g>(&'g self, guard: &'g Guard) -> Option<(u64, SlotRef<'g, Entry<K, V>>)> {
        let mut turns = 0;
        for _ in 0..TAKEN_IN {
            let oldest = borrow(&self.backlog, |backlog| backlog.hashes.pop_front()).flatten();
            let hash = oldest.or_else(|| self.take_from_a_ring(guard))?;
            let Some(hit) = self.find_in_window(guard, hash) else { continue };
            if self.is_exempt(hit.metadata()) {
                // As at the window's head.
                self.settle_alone(guard, hash, self.enter_main(hash, &hit));
            } else if access_of(&hit).is_referenced() && turns < MOST_TURNS {
                turns += 1;
                self.unreference(hash, &hit);
                self.put_off(guard, &[hash]);
            } else {
                return Some((hash, hit));
            }
        }
        None
    }

    /// Takes the oldest of some ring, and puts off the others there.
    fn take_from_a_ring(&self, guard: &Guard) -> Option<u64> {
        let mut oldest = None;
        let number = thread_number();
        (0..self.newcomers.count()).find(|i| {
            let ring = self.newcomers.stripe(number.wrapping_add(*i));
            ring.try_seal_and_drain(|hashes| {
                oldest = hashes.first().copied();
                self.put_off(guard, &hashes[1..]);
            });
            oldest.is_some()
        });
        oldest
    }

    /// Lets an entry that waits for the window fight for a place in main; one of the two is evicted.
    fn duel_alone(
        &self,
        guard: &Guard,
        (hash, hit): (u64, SlotRef<'_, Entry<K, V>>),
        victim: Option<Resident<'_, K, V>>,
        luck: u64,
    ) {
        let is_settled = match victim {
            Some(victim) if self.admits(self.contender(hash, &hit), &victim, luck) => {
                self.evictions(guard).evict(&victim.candidate);
                self.enter_main(hash, &hit)
            }
            _ => self.evict(&mut self.evictions(guard), &hit),
        };
        self.settle_alone(guard, hash, is_settled);
    }

    /// Queues an entry of the window again if it was replaced this moment, by one that is in the window, too.
    fn settle_alone(&self, guard: &Guard, hash: u64, is_settled: bool) {
        if !is_settled {
            self.put_off(guard, &[hash]);
        }
    }
}

/// Evictions of one call that makes room: enough that one large entry can take the place of many.
const MOST_EVICTIONS: usize = 1 << 14;
/// Evictions of a slice of maintenance.
const SLICE_EVICTIONS: usize = 16;
/// The same for expirations, between which garbage is freed.
const SLICE_EXPIRATIONS: usize = 4096;
/// Evictions of a writer that makes room while somebody else maintains.
const ALONE_EVICTIONS: usize = 256;
/// Evictions ahead of need, as a part of the budget, and their most.
const AHEAD_PART: u64 = 1024;
const MOST_AHEAD: u64 = 3;
/// Where the budget is less, no entry goes before another one needs its place.
const AHEAD_LEAST: u64 = 256;
/// Entries that are too many in the window and are judged in one call though there is room, if it does
/// not evict more: a part of the capacity, since those that lose leave places free, and their most.
/// Smaller caches let them into main unjudged.
const JUDGED_PART: u64 = 128;
const MOST_JUDGED: u64 = 4;
/// Entries that one call moves to main because the window's share was made smaller.
const MOST_MOVED: usize = 64;
/// Accesses of the sample that one call plays, and how many may wait.
const PLAYED: usize = 32;
const MOST_SAMPLES: usize = 256;
/// How far ahead of their turn the buckets of newcomers are fetched.
const LOOK_AHEAD: usize = 2;
/// One newcomer in so many is taken from another maintainer's window.
const TAKEN_IN_TURN: u32 = 8;
/// New entries that a slice of maintenance takes into the window.
const TAKEN_IN: usize = 64;
/// The same for a writer that makes room: with those of its own ring, which it may hand over in the same
/// call, as many.
const TAKEN_IN_FOR_ROOM: usize = CAPACITY;
/// New entries that wait for a maintainer, at most.
const MOST_PUT_OFF: usize = 1024;
/// Times that an entry is judged that others replace at the same time.
const JUDGED_TRIES: usize = 4;
/// Turns given in the window in a row.
const MOST_TURNS: usize = 8;
/// Buckets read to find a sample, and how many times as many in a table that is nearly empty.
pub(super) const SAMPLE_BUCKETS: usize = 40;
const MOST_SPREAD: usize = 8;
/// Units of a resize moved at once by maintenance.
const RESIZE_UNITS: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{config::Settings, due::Outlook, stripe::Push};

    fn manual(max_cost: u64) -> Engine<u64, u64, crate::IdentityHash> {
        sized(max_cost, max_cost as usize)
    }

    fn sized(max_cost: u64, expected_entries: usize) -> Engine<u64, u64, crate::IdentityHash> {
        let settings = Settings {
            name: String::new(),
            max_cost,
            expected_entries,
            max_garbage: None,
            maintenance: Maintenance::Manual,
            victim: crate::Victim::default(),
            seed: 1,
            metrics: true,
            charge_overhead: false,
            slow_load: crate::config::SLOW_LOAD,
        };
        Engine::new(
            settings,
            crate::IdentityHash,
            crate::engine::Hooks::default(),
            crate::engine::Timing::new(None, None, None, false),
            crate::sync::Arc::default(),
        )
        .unwrap()
    }

    fn put(engine: &Engine<u64, u64, crate::IdentityHash>, key: u64) {
        let _ = engine.insert(key, key, crate::engine::Terms::DEFAULT, super::super::Mode::Upsert);
    }

    /// Returns how many entries the window's queues know of, and how many are marked as in the window.
    fn queued_and_marked(engine: &Engine<u64, u64, crate::IdentityHash>) -> (usize, usize) {
        let guard = engine.table.pin();
        let marked = engine.table.iter(&guard).filter(|entry| entry.flags().is_in_window()).count();
        let windows = engine.window_cost.load(Ordering::Relaxed) as usize;
        let backlog = borrow(&engine.backlog, |backlog| backlog.hashes.len()).unwrap();
        let rings = engine.newcomers.drain_all(|hashes| {
            hashes.iter().for_each(|&hash| {
                assert_eq!(engine.newcomers.current().place(hash), Push::Accepted)
            });
        });
        (windows + backlog + rings, marked)
    }

    /// Calls `f` while all maintainers are away.
    fn without_maintainers<S>(engine: &Engine<u64, u64, S>, f: impl FnOnce()) {
        let places = engine.maintainers.iter();
        let taken: Vec<_> = places.map(|place| place.take().expect("it is there")).collect();
        f();
        for (place, maintainer) in engine.maintainers.iter().zip(taken) {
            place.store(Some(maintainer));
        }
    }

    #[test]
    fn backlog_is_bounded_and_every_entry_of_the_window_is_known() {
        for expected in [300, 100_000] {
            let engine = sized(100_000, expected);
            (0..10_000).for_each(|key| put(&engine, key));
            without_maintainers(&engine, || (10_000..50_000).for_each(|key| put(&engine, key)));
            let backlog = borrow(&engine.backlog, |backlog| backlog.hashes.len()).unwrap();
            assert_eq!(backlog, MOST_PUT_OFF);
            let (queued, marked) = queued_and_marked(&engine);
            // What has left the table by a full bucket is still queued.
            assert!(marked <= queued && marked + 1000 > queued, "{marked} of {queued}");
            // There is room for all, so none is evicted but for its bucket.
            let metrics = engine.metrics();
            assert_eq!(metrics.evictions, metrics.local_evictions);
            assert!(engine.memory().buffers > backlog * size_of::<u64>());
        }
    }

    #[test]
    fn one_call_takes_few_new_entries_in() {
        let engine = sized(100_000, 100_000);
        without_maintainers(&engine, || (0..20_000).for_each(|key| put(&engine, key)));
        let known = || engine.window_cost.load(Ordering::Relaxed);
        let guard = engine.table.pin();
        let take =
            |most| engine.collect_newcomers(&guard, &mut engine.take_maintainer().unwrap(), most);
        for _ in 0..MOST_PUT_OFF / TAKEN_IN {
            let before = known();
            take(TAKEN_IN);
            assert_eq!(known() - before, TAKEN_IN as u64);
        }
        assert_eq!(borrow(&engine.backlog, |backlog| backlog.hashes.len()), Some(0));
        for key in 20_000..25_000 {
            let before = known();
            put(&engine, key);
            assert!(known() - before <= TAKEN_IN as u64);
        }
    }

    /// Makes a full cache of 1000 whose keys up to 900 are in main and often asked for: none that comes once
    /// wins against them.
    fn with_favourites() -> Engine<u64, u64, crate::IdentityHash> {
        let engine = sized(1000, 1000);
        (0..20_000).for_each(|key| put(&engine, key % 900));
        for _ in 0..20 {
            for key in 0..900u64 {
                let hash = engine.hash(&key);
                let _ = engine.get(hash, crate::engine::Trace::Leave, |k| *k == key);
            }
        }
        engine
    }

    #[test]
    fn new_entries_come_in_and_favourites_stay_while_maintainers_are_away() {
        let engine = with_favourites();
        (10_000..11_000).for_each(|key| put(&engine, key));
        let is_there = |key| {
            let guard = engine.table.pin();
            engine.table.find(&guard, engine.hash(&key), |entry| entry.key == key).is_some()
        };
        let favourites = || (0..900).filter(|&key| is_there(key)).count();
        let before = favourites();
        assert!(before > 850, "{before}");
        without_maintainers(&engine, || {
            for key in 20_000..40_000 {
                put(&engine, key);
                assert!(is_there(key), "{key} was refused");
            }
        });
        // One goes for each ring that is empty at first, and some lose a duel by the sketch's errors.
        assert!(favourites() > before - 50, "{} of {before}", favourites());
        assert!(engine.len() <= 1000);
        let (queued, marked) = queued_and_marked(&engine);
        assert!(marked <= queued, "{marked} of {queued}");
    }

    #[test]
    fn entry_that_is_put_off_too_long_is_judged() {
        let engine = with_favourites();
        let guard = engine.table.pin();
        let mut judged = 0;
        for key in 10_000..10_050 {
            // It fills the budget, so there is no room to be had for nothing.
            engine.budget.set_max(u64::MAX);
            put(&engine, key);
            engine.budget.set_max(engine.budget.used());
            let before = engine.metrics().evictions;
            engine.judge_alone(&guard, engine.hash(&key));
            judged += engine.metrics().evictions - before;
        }
        assert!(judged > 25, "{judged} of 50 were evicted");
    }

    #[test]
    fn window_holds_its_share_and_no_more() {
        let engine = manual(1000);
        (0..5000).for_each(|key| put(&engine, key));
        let guard = engine.table.pin();
        let marked = engine.table.iter(&guard).filter(|entry| entry.flags().is_in_window()).count();
        let queued = engine.window_cost.load(Ordering::Relaxed) as usize;
        // The newest are still in their ring.
        let newest = engine.newcomers.drain_all(|_| ());
        // And one place is for the next.
        assert_eq!((queued, marked), (49, 49 + newest));
    }

    /// The one thread here lies down, and then plays the others.
    #[test]
    fn sleeping_thread_is_woken_where_the_table_begins_to_move_and_finds_the_old_array() {
        let engine = sized(1 << 20, 0);
        engine.waker.belongs_to(crate::sync::thread::current());
        let bytes = || engine.table.bucket_bytes(&engine.table.pin());
        let before = bytes();
        engine.waker.sleep(|| {
            for key in 0.. {
                assert!(engine.waker.is_idle(), "woken for nothing");
                put(&engine, key);
                if bytes() > before {
                    break;
                }
            }
            assert!(!engine.waker.is_idle());
            None
        });
        assert!(!engine.waker.rise());
        let guard = engine.table.pin();
        while engine.table.help(&guard, 1, |entry| engine.displace(&guard, entry)) {}
        drop(guard);
        assert_eq!((bytes(), engine.table.garbage().count), (2 * before, 0));
        assert_eq!(engine.outlook(), (true, Outlook::Never));
        while engine.outlook().0 {
            engine.maintain(Work::ALL);
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
        while engine.maintain(Work::ALL).ticked.pending {}
        engine.waker.belongs_to(crate::sync::thread::current());
        engine.waker.sleep(|| {
            assert!(engine.waker.is_idle() && !engine.outlook().0);
            engine.clear();
            assert!(!engine.waker.is_idle());
            None
        });
        assert!(!engine.waker.rise());
        assert!(engine.outlook().0, "the old array waits");
    }
}
