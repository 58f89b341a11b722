//! `Engine`: owns the parts of a cache, and is the only place where they are combined.
//!
//! A read is in `read.rs`, one that records no access in `view.rs`. A write is in `insert.rs` up to
//! publication, in `publish.rs` from there; `plan.rs` says what it may do; `compute.rs` is a read and a write in one, `fill.rs` has
//! what loads publish, `remove.rs` removals, `expire.rs` deadlines, `write_back.rs` what is written
//! before it leaves. `window.rs` queues new entries, `evict.rs` makes room, `victims.rs` chooses
//! victims, `evictions.rs` accounts for them, `tune.rs` feeds the tuner. `garbage.rs` frees what was
//! unlinked, and calls the listener of `callbacks.rs`. `maintenance.rs` has the deferred work,
//! `thread.rs` the thread that does it.

mod callbacks;
mod compute;
mod evict;
mod evictions;
mod expire;
mod fill;
mod garbage;
mod insert;
mod maintenance;
mod memory;
mod place;
mod plan;
mod publish;
mod read;
mod remove;
mod stalls;
#[cfg(test)]
mod testing;
pub mod thread;
mod tune;
mod unevictable;
mod victims;
mod view;
mod window;
mod write_back;

use std::{
    cmp::Reverse,
    hash::{BuildHasher, Hash},
};

use crossbeam_utils::atomic::AtomicCell;

pub use self::garbage::Pressure;
pub use self::{
    callbacks::{Callbacks, Expiry, RemovalCause, Removed},
    compute::Change,
    expire::{Notice, Stopwatch, Timing},
    fill::Loaded,
    insert::{Mode, Terms},
    maintenance::{WorkLimit, WorkReport},
    memory::MemoryUse,
    read::Trace,
    stalls::StalledReader,
    write_back::{Turn, WriteBack, may_wait},
};
use self::{
    expire::Timers,
    maintenance::MaintenanceShard,
    tune::{SAMPLE_BUCKETS, Tuning},
    unevictable::Unevictable,
    window::Backlog,
};
use crate::{
    budget::{Budget, Credit},
    config::{EvictionPolicy, Priority, Settings},
    entry::{Entry, Flags},
    error::OutOfMemory,
    expiry::inbox::{ExpiryInbox, NextExpiry},
    metrics::{Births, Counter, Counters, DurationRecorder, Metrics},
    policy::{
        access::Access,
        access_clock::AccessClock,
        class::{Class, ClassRange},
        score::score_of,
        tuner::{POLICY_CONFIGS, PolicyConfig, Scale},
    },
    primitives::eventcount::EventCount,
    primitives::striped::{Stripes, thread_number},
    reclaim::{Guard, stall::StallDetector},
    singleflight::Flights,
    sketch::Sketch,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering},
    },
    table::{
        EntryRef, Hit, Metadata, Probe, SLOTS, SlotRef, Table, Terms as GarbageTerms, Unlinked,
        buckets_for, entries_for, known,
    },
    util::{CachePadded, caught, is_thread_of},
};

/// The weight of cost 1 at normal priority. It is `PRIORITY_FACTOR` times as much at low priority,
/// and as many times less at high priority.
const NORMAL_WEIGHT: u64 = PRIORITY_FACTOR;
const PRIORITY_FACTOR: u64 = 8;
/// 2^64 divided by the golden ratio: odd, and without a pattern.
const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;
/// The number of threads that may be preempted with a shard before others have to do without.
const MAX_SHARDS: u64 = 4;
/// Entries per shard, at least: with fewer, a shard's window would be too small. With more, a small
/// cache has one shard, and a thread that is preempted with it leaves the others without.
const ENTRIES_PER_SHARD: u64 = 64;
/// A table is crowded if it holds more entries than it is sized for, by this part of them.
const CROWDED_PART: u64 = 32;
/// The lower end of the histogram of load times, in nanoseconds.
const LOAD_TIME_UNIT: u64 = 1_000;
const STRIPES_PER_CORE: usize = 4;
const MAX_STRIPES: usize = 256;
/// All credits together: at most the budget divided by this.
const CREDIT_PART: usize = 128;
/// Free cost that may be credit: the budget divided by this, the most that a stripe has with one
/// core.
const AHEAD_PART: u64 = (CREDIT_PART * STRIPES_PER_CORE) as u64;
/// The credit of a stripe, in entries: a few, so that a writer seldom finds none.
const MAX_CREDIT: u64 = 4;

/// The parts of a cache.
pub struct Engine<K, V, S> {
    table: Table<Entry<K, V>>,
    hasher: S,
    settings: Settings,
    budget: Budget,
    unevictable: Unevictable,
    sketch: Sketch,
    counters: Counters,
    births: Births,
    load_times: DurationRecorder,
    eventcount: Arc<EventCount>,
    callbacks: Callbacks<K, V>,
    timing: Timing,
    flights: Flights<K, Loaded>,
    access_clock: AccessClock,
    /// Hashes of accesses, buffered for the sketch.
    events: Stripes,
    /// Hashes of new entries that found all shards taken, buffered for the window.
    new_entries: Stripes,
    /// Whether there may be such hashes, in the rings or in the backlog.
    has_unqueued: AtomicBool,
    /// Hashes of accesses to keys of the sample, buffered for the tuner.
    samples: Stripes,
    /// The bits that are 0 in the hash of each key of the sample.
    sample_mask: AtomicU64,
    /// Whether hits are counted, or entries may expire.
    extras: AtomicBool,
    /// Hits that one counted hit stands for, less one.
    turn_mask: AtomicU32,
    /// The index of the current policy configuration.
    policy_config: AtomicUsize,
    /// Buckets that are read for a sample.
    sample_buckets: AtomicUsize,
    /// Counts the buckets whose access bits were aged; wraps.
    aged: CachePadded<AtomicUsize>,
    /// Deadlines buffered for the timing wheel.
    expiry_inbox: ExpiryInbox,
    timers: Place<Timers>,
    /// New entries that found a full ring and all shards taken.
    backlog: Place<Backlog>,
    /// The state of maintenance, in several shards: the thread that takes one out maintains the
    /// cache until it puts it back. No thread waits for one: a writer that finds all of them taken
    /// makes room without.
    shards: Box<[CachePadded<Place<MaintenanceShard>>]>,
    /// The total cost of the main region.
    main_cost: CachePadded<AtomicU64>,
    /// The total cost of the windows of all maintenance shards, including entries that were removed
    /// otherwise.
    window_cost: CachePadded<AtomicU64>,
    /// How much the window exceeds its share since the share was lowered.
    surplus: AtomicU64,
    /// The tuner; one thread at a time takes it out.
    tuning: Place<Tuning>,
    /// Whether samples may wait for the tuner.
    has_samples: AtomicBool,
    /// The detector of threads that stay pinned.
    stalls: Place<StallDetector>,
    locals: Box<[CachePadded<Local>]>,
    /// Whether any entry has ever had a cost other than 1.
    costs_vary: AtomicBool,
    /// How far garbage exceeds its limit: a [`Pressure`] as a number.
    pressure: AtomicU8,
    /// Whether the cache was cleared, so that memory kept for new entries should be freed.
    trim_due: AtomicBool,
    /// Whether batches of garbage wait for a sweep.
    sweep_due: AtomicBool,
}

/// How often an entry was accessed recently, then how many steps ago the last access was. A greater
/// rank means more use.
pub type AccessRank = (u8, Reverse<u32>);

/// Holds an object that one thread at a time takes out. Each take and each store is a swap, AcqRel:
/// the thread that takes the object sees it as the last one left it.
type Place<T> = AtomicCell<Option<Box<T>>>;

/// Counters of one thread, or of the few threads that share a stripe.
#[derive(Debug, Default)]
struct Local {
    /// Entries inserted less entries removed through this stripe; wraps.
    entries: AtomicU64,
    /// A part of the budget that was charged for entries of the threads of this stripe.
    credit: Credit,
    /// The hash of the last miss: an insert that follows it is the same access.
    last_miss: AtomicU64,
    /// Hits noted in access bits that the clock does not include yet.
    uncounted_hits: AtomicU64,
}

impl<K, V, S> Engine<K, V, S> {
    /// Makes the engine of an empty cache.
    ///
    /// `eventcount` is what the maintenance thread, if there is one, sleeps on.
    ///
    /// # Errors
    ///
    /// [`OutOfMemory`] if the table or the sketch cannot be allocated.
    pub fn new(
        settings: Settings,
        hasher: S,
        callbacks: Callbacks<K, V>,
        timing: Timing,
        eventcount: Arc<EventCount>,
    ) -> Result<Self, OutOfMemory> {
        let stripes = stripes();
        let entries = settings.expected_entries;
        let scale = Scale::of(entries as u64);
        // A power of two: a thread finds its shard by a mask.
        let shards = 1 << (entries as u64 / ENTRIES_PER_SHARD).clamp(1, MAX_SHARDS).ilog2();
        Ok(Self {
            table: Table::new(buckets_for(entries), entries, stripes)?,
            hasher,
            budget: Budget::new(settings.max_cost),
            unevictable: Unevictable::default(),
            sketch: Sketch::try_new(entries)?,
            counters: Counters::new(stripes, settings.metrics),
            births: Births::new(settings.metrics),
            load_times: DurationRecorder::new(LOAD_TIME_UNIT),
            eventcount,
            costs_vary: AtomicBool::new(callbacks.cost_of.is_some() || settings.charge_overhead),
            callbacks,
            timing,
            flights: Flights::new(),
            access_clock: AccessClock::new(entries as u64),
            events: Stripes::new(stripes),
            new_entries: Stripes::new(stripes),
            has_unqueued: AtomicBool::new(false),
            samples: Stripes::new(stripes),
            sample_mask: AtomicU64::new(scale.mask()),
            extras: AtomicBool::new(settings.metrics),
            turn_mask: AtomicU32::new(read::turn_mask(entries as u64)),
            policy_config: AtomicUsize::new(0),
            sample_buckets: AtomicUsize::new(SAMPLE_BUCKETS),
            aged: CachePadded::default(),
            expiry_inbox: ExpiryInbox::new(stripes),
            timers: AtomicCell::new(Some(Box::new(Timers::new()))),
            backlog: AtomicCell::new(Some(Box::default())),
            shards: (0..shards)
                // The same seed for all: a single thread then makes the same choices with any of
                // them.
                .map(|_| MaintenanceShard::new(settings.seed))
                .map(|shard| CachePadded::new(AtomicCell::new(Some(Box::new(shard)))))
                .collect(),
            main_cost: CachePadded::default(),
            window_cost: CachePadded::default(),
            surplus: AtomicU64::new(0),
            tuning: AtomicCell::new(Some(Box::new(Tuning::new(settings.seed, scale)))),
            has_samples: AtomicBool::new(false),
            stalls: AtomicCell::new(Some(Box::default())),
            locals: (0..stripes).map(|_| CachePadded::default()).collect(),
            pressure: AtomicU8::new(Pressure::None as u8),
            trim_due: AtomicBool::new(false),
            sweep_due: AtomicBool::new(false),
            settings,
        })
    }

    /// Returns the number of entries; exact while no other thread writes.
    pub fn len(&self) -> u64 {
        // Relaxed: each stripe is exact, and wraps. A sum that is read between the two ends of a
        // move may be off by the operations in progress.
        let sum = self.locals.iter().map(|local| local.entries.load(Ordering::Relaxed));
        let sum = sum.fold(0, u64::wrapping_add);
        if sum > u64::MAX / 2 { 0 } else { sum }
    }

    /// Returns the name of the cache.
    pub fn name(&self) -> &str {
        &self.settings.name
    }

    /// Returns the cost of all entries, at most the budget while that is not lowered.
    pub fn cost(&self) -> u64 {
        self.budget.shown().saturating_sub(self.credit())
    }

    /// Returns the budget.
    pub fn max_cost(&self) -> u64 {
        self.budget.max()
    }

    /// Returns the part of the budget that is free.
    pub fn remaining_cost(&self) -> u64 {
        self.budget.remaining().saturating_add(self.credit())
    }

    /// Returns the sum of all credits.
    fn credit(&self) -> u64 {
        self.locals.iter().map(|local| local.credit.get()).sum()
    }

    /// Returns the cost charged, except for the credit of this thread's stripe.
    #[inline]
    fn used(&self) -> u64 {
        self.budget.used().saturating_sub(self.local().credit.get())
    }

    /// Returns how much credit a stripe may have: all of them together, a small part of the budget.
    #[inline]
    fn max_credit(&self) -> u64 {
        if self.costs_vary() {
            return 0;
        }
        let shift = CREDIT_PART.trailing_zeros() + self.locals.len().trailing_zeros();
        (self.budget.max() >> shift).min(MAX_CREDIT)
    }

    /// Returns how much free cost may be credit, for decisions. It does not depend on the machine, so
    /// that a replay makes the same ones everywhere.
    #[inline]
    fn room_ahead(&self) -> u64 {
        if self.costs_vary() { 0 } else { (self.budget.max() / AHEAD_PART).min(MAX_CREDIT) }
    }

    /// Refunds all credits, because a writer finds no room.
    #[cold]
    fn recall_credits(&self) {
        self.locals.iter().for_each(|local| self.budget.recall(&local.credit));
    }

    /// Returns whether all unlinked entries have been freed, and are not being dropped.
    pub fn is_at_rest(&self) -> bool {
        self.table.is_at_rest()
    }

    /// Estimates how many entries fill the budget.
    fn capacity(&self) -> u64 {
        if self.costs_vary() { self.len().max(1) } else { self.budget.max().max(1) }
    }

    fn costs_vary(&self) -> bool {
        self.costs_vary.load(Ordering::Relaxed) // Relaxed: set once; a stale read is harmless.
    }

    /// Moves an entry of this hash from the window to the main region; returns whether this call
    /// did.
    #[inline]
    fn enter_main(&self, hash: u64, hit: &SlotRef<'_, Entry<K, V>>) -> bool {
        let moved = self.promote_slot(hash, hit);
        if moved {
            self.add_to_main(self.cost_of(hit.metadata()));
        }
        moved
    }

    /// Like [`enter_main`](Self::enter_main), but the caller adds the entry's cost to that of main.
    #[inline]
    fn promote_slot(&self, hash: u64, hit: &SlotRef<'_, Entry<K, V>>) -> bool {
        let moved = hit.metadata().leave_window();
        if moved {
            hit.set_class(Class::from_bits(hit.class()).in_main().to_bits());
            self.unreference(hash, hit);
        }
        moved
    }

    /// Clears the referenced state of an entry of this hash, and adds its hits to the sketch.
    #[inline]
    fn unreference(&self, hash: u64, hit: &SlotRef<'_, Entry<K, V>>) {
        // A concurrent hit is lost.
        let access = access_of(hit);
        if access.is_referenced() {
            hit.set_access(access.unreferenced().to_bits());
            self.sketch.add(hash, access.hits(self.access_clock.now()));
        }
    }

    /// Returns the cost that an entry was charged.
    #[inline]
    fn cost_of(&self, entry: Metadata<'_, Entry<K, V>>) -> u64 {
        // A thread that charges another cost sets the flag before it publishes the entry.
        if self.costs_vary() { entry.charge() } else { 1 }
    }

    /// Returns the cost as the policy sees it.
    #[inline]
    fn weight(&self, cost: u64) -> u64 {
        match self.settings.eviction_policy {
            EvictionPolicy::FrequencyPerCost => cost,
            EvictionPolicy::Frequency => 1,
        }
    }

    /// Returns the cost as the policy sees it, scaled by the entry's priority.
    #[inline]
    fn weight_of(&self, cost: u64, priority: Priority) -> u64 {
        self.weight(cost).saturating_mul(match priority {
            Priority::Low => NORMAL_WEIGHT * PRIORITY_FACTOR,
            Priority::Normal => NORMAL_WEIGHT,
            Priority::High | Priority::Pinned => NORMAL_WEIGHT / PRIORITY_FACTOR,
        })
    }

    /// Returns the class of an entry.
    #[inline]
    fn class_of(&self, cost: u64, flags: Flags) -> Class {
        // Evicting an entry without cost would free nothing.
        let may_go = cost > 0 && !flags.is_unevictable();
        let weight = may_go.then(|| self.weight_of(cost, flags.priority()));
        Class::new(flags.is_in_window(), weight)
    }

    #[inline]
    fn add_to_main(&self, cost: u64) {
        self.main_cost.fetch_add(cost, Ordering::Relaxed); // Relaxed: an estimate.
    }

    /// Returns the part of the budget that unevictable entries do not take.
    #[inline]
    fn evictable_max(&self) -> u64 {
        self.budget.max().saturating_sub(self.unevictable.cost())
    }

    /// Returns the current window share and rule of admission.
    #[inline]
    fn policy_config(&self) -> PolicyConfig {
        // Relaxed: any recent value will do.
        POLICY_CONFIGS[self.policy_config.load(Ordering::Relaxed)]
    }

    #[inline]
    fn local(&self) -> &Local {
        &self.locals[thread_number() & (self.locals.len() - 1)]
    }

    /// Refunds, counts and retires an entry that this thread has unlinked. `leaves` is `false` if
    /// another entry has replaced it and taken over its cost and region.
    ///
    /// `table` is this engine's; it is a separate argument so that the result may live as long as
    /// both.
    fn retire_unlinked<'g>(
        &self,
        table: &'g Table<Entry<K, V>>,
        guard: &'g Guard,
        entry: Unlinked,
        cause: RemovalCause,
        leaves: bool,
    ) -> EntryRef<'g, Entry<K, V>> {
        let seen = table.unlinked(guard, &entry);
        let metadata = seen.metadata();
        if leaves {
            self.write_off(metadata);
        } else {
            self.uncount(metadata, self.cost_of(metadata));
        }
        let terms = self.garbage_terms(self.cost_of(metadata), cause);
        if table.retire(guard, entry, terms, thread_number()) {
            self.note_garbage();
        }
        let was_evicted = cause == RemovalCause::Evicted;
        self.births.end(seen.id(), was_evicted, || self.time_of_births());
        self.notify_if_waiting();
        seen
    }

    /// Returns the terms that a removed entry is retired with.
    fn garbage_terms(&self, cost: u64, cause: RemovalCause) -> GarbageTerms {
        GarbageTerms { label: cause as u8, cost, seal_at: self.seal_at() }
    }

    /// Refunds an entry that this thread has unlinked, and subtracts it from the counters; evicted
    /// entries are [accounted for in batches](evictions).
    fn write_off(&self, entry: Metadata<'_, Entry<K, V>>) {
        let cost = self.cost_of(entry);
        self.uncount(entry, cost);
        if !entry.leave_window() {
            self.main_cost.fetch_sub(cost, Ordering::Relaxed); // Relaxed: an estimate.
        }
        // Before the refund, so that the entries counted do not exceed what the budget allows.
        self.local().entries.fetch_sub(1, Ordering::Relaxed); // Relaxed: see `len`.
        self.budget.refund(cost);
    }

    /// Subtracts an unlinked entry from the total of unevictable ones, if it is part of that.
    #[inline]
    fn uncount(&self, entry: Metadata<'_, Entry<K, V>>, cost: u64) {
        if entry.flags().is_unevictable() && entry.uncount() {
            self.unevictable.sub(cost);
        }
    }

    /// Changes the priority of an entry; returns whether it is in the table. An entry that becomes
    /// `Pinned` is not evicted by any call that has not unlinked it yet.
    pub fn set_priority(
        &self,
        guard: &Guard,
        hash: u64,
        entry: Metadata<'_, Entry<K, V>>,
        priority: Priority,
    ) -> bool {
        self.change_priority(guard, hash, entry, priority, None)
    }

    /// Like [`set_priority`](Self::set_priority), but only if the entry has the priority `from`,
    /// where given.
    fn change_priority(
        &self,
        guard: &Guard,
        hash: u64,
        entry: Metadata<'_, Entry<K, V>>,
        priority: Priority,
        from: Option<Priority>,
    ) -> bool {
        let cost = self.cost_of(entry);
        let is_pinned = priority == Priority::Pinned;
        if is_pinned {
            self.unevictable.add(cost);
        }
        let changed = entry.change_priority(priority, from);
        // Undo the count of an entry that was unevictable before, or has not become so now.
        if changed.unwrap_or(is_pinned) {
            self.unevictable.sub(cost);
        }
        if changed.is_none() {
            return false;
        }
        let is_it = |other: EntryRef<'_, Entry<K, V>>| other.id() == entry.id();
        let on_displaced = |entry| self.displace(guard, entry);
        // The entry is moved if the table is resized concurrently.
        while let Probe::Found(there) = self.table.probe(guard, hash, is_it, on_displaced) {
            if self.table.renew_entry(there.get()) {
                there.get().set_class(self.class_of(cost, entry.flags()).to_bits());
                return true;
            }
        }
        self.uncount(entry, cost);
        false
    }

    /// Retires an entry that a load has produced and that is not in the table.
    pub fn retire_loaded(&self, loaded: Loaded) {
        if self.table.retire_loose(&self.table.pin_structure(), loaded, thread_number()) {
            self.note_garbage();
        }
        self.notify_if_waiting();
    }

    /// Wakes the maintenance thread if it sleeps until it is notified; a timed wait ends on its
    /// own. Call it after the garbage is where the thread finds it.
    ///
    /// The thread does not wake itself: what it could not do in its last try before sleeping is not
    /// new work.
    fn notify_if_waiting(&self) {
        if self.eventcount.is_waiting() && !is_thread_of(&*self.eventcount) {
            self.eventcount.notify();
        }
    }

    /// Returns the time, or 0 if the user's clock panics: a panic here would leave an operation
    /// half done.
    fn time_of_births(&self) -> u64 {
        caught(|| self.timing.now()).unwrap_or(0)
    }

    /// Counts an event in the metrics.
    pub fn count(&self, counter: Counter) {
        self.counters.add(counter, 1);
    }

    /// Returns the metrics.
    pub fn metrics(&self) -> Metrics {
        self.counters.snapshot(self.births.snapshot(), self.load_times.snapshot())
    }

    /// Returns the work that is left, for the thread that is about to sleep. A thread that adds
    /// work which this call does not find wakes it (see
    /// [`eventcount`](crate::primitives::eventcount)).
    ///
    /// The result says whether there is work, and when the next entry expires, posted hashes
    /// included.
    pub fn next_work(&self) -> (bool, NextExpiry) {
        let is_low = self.budget.recheck().saturating_add(self.reserve() / 2) > self.budget.max();
        let has_garbage = self.table.recheck();
        (is_low || has_garbage, self.expiry_inbox.recheck())
    }
}

impl<K: Hash, V, S: BuildHasher> Engine<K, V, S> {
    /// Returns the hash of a key, with its bits spread over those that the table [keeps](known).
    #[inline]
    pub fn hash<Q: Hash + ?Sized>(&self, key: &Q) -> u64 {
        known(spread(self.hasher.hash_one(key)))
    }

    /// Returns how much a resident entry is used.
    pub fn access_rank(&self, hit: &Hit<'_, Entry<K, V>>) -> AccessRank {
        let access = access_of(hit);
        let frequency = self.frequency(self.hash(&hit.entry.key), Some(access));
        (frequency, Reverse(access.idle(self.access_clock.now())))
    }
}

impl<K, V, S> Engine<K, V, S> {
    /// Returns whether a table of `slots` slots should grow if one of its buckets is full.
    fn is_crowded(&self, slots: usize) -> bool {
        // With fewer entries, few buckets are full: this one is full by chance. The slack is for a
        // budget that is raised a little, and for counters that writers are about to update.
        let sized_for = entries_for(slots) as u64;
        self.len() > sized_for + sized_for / CROWDED_PART
    }

    /// Returns whether a table of `slots` slots should grow if a full bucket has no victim.
    fn is_cramped(&self, slots: usize) -> bool {
        // Below this load (0.1 entries per bucket on average), one bucket in 10^12 is full by
        // chance. The keys of a full one were chosen to collide.
        self.len() > slots as u64 / 64
    }

    /// Chooses the victim of a full bucket, if an entry may be evicted.
    fn choose_bucket_victim<'r, 'g>(
        &self,
        residents: &'r [Option<SlotRef<'g, Entry<K, V>>>; SLOTS],
    ) -> Option<&'r SlotRef<'g, Entry<K, V>>> {
        let now = self.access_clock.now();
        let residents = residents.iter().flatten().filter(|hit| !hit.flags().is_unevictable());
        // An entry without cost has no weight, but may be evicted to free its slot.
        let weight = |hit: &SlotRef<'_, Entry<K, V>>| {
            let class = Class::from_bits(hit.class());
            class.weight_in(ClassRange::BOTH).unwrap_or(NORMAL_WEIGHT as f32)
        };
        let scores = residents.map(|hit| (hit, score_of(access_of(hit), weight(hit), now)));
        scores.max_by(|a, b| a.1.total_cmp(&b.1)).map(|(hit, _)| hit)
    }

    /// Retires an entry that was displaced for lack of slots, or unlinked by mistake.
    fn displace(&self, guard: &Guard, entry: Unlinked) {
        self.counters.add(Counter::LocalEvictions, 1);
        self.evictions(guard).end(entry);
    }

    /// Returns whether the table has an entry of this id: the original one, or a newer one with the
    /// same id.
    pub fn has_id(&self, guard: &Guard, hash: u64, id: usize) -> bool {
        self.table.find_slot(guard, hash, |entry| entry.id() == id).is_some()
    }

    /// Counts an eviction that a callback has prevented.
    #[cold]
    fn note_veto(&self) {
        self.counters.add(Counter::Vetoes, 1);
    }

    /// Returns whether there are removed entries that the listener has not received yet.
    pub fn has_unreported(&self) -> bool {
        self.callbacks.on_remove.is_some() && self.table.garbage().count > 0
    }

    /// Passes all removed entries to the listener that it has not received yet.
    ///
    /// # Panics
    ///
    /// Resumes the first panic of a listener or a destructor, after all others have run.
    pub fn report_all(&mut self) {
        // Loaded values that leaked followers have not taken.
        for loaded in self.flights.take_all_unpublished() {
            self.table.retire_loose(&self.table.pin_structure(), loaded, 0);
        }
        if let Some(on_remove) = &self.callbacks.on_remove
            && let Some(panic) = self.table.drain(Some(&garbage::finalizer(on_remove))).panic
            && !std::thread::panicking()
        {
            std::panic::resume_unwind(panic);
        }
    }
}

impl<K, V, S> Drop for Engine<K, V, S> {
    fn drop(&mut self) {
        // If there was a thread, it has done this already.
        self.report_all();
    }
}

impl<K, V, S> std::fmt::Debug for Engine<K, V, S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine").field("budget", &self.budget).finish_non_exhaustive()
    }
}

/// Spreads the bits of a hash: the table takes its index from the top bits and its tags from the
/// lowest, and a user's hash may have all its entropy in either.
#[inline]
fn spread(hash: u64) -> u64 {
    let product = u128::from(hash) * u128::from(SPREAD);
    (product >> 64) as u64 ^ product as u64
}

/// Returns the number of rings and counters of a cache: enough that threads seldom share one.
fn stripes() -> usize {
    // Asks the system once, when a cache is built.
    let cores = crate::sync::thread::available_parallelism().map_or(1, usize::from);
    (cores * STRIPES_PER_CORE).next_power_of_two().min(MAX_STRIPES)
}

/// Returns the access bits of an entry.
#[inline]
fn access_of<K, V>(hit: &SlotRef<'_, Entry<K, V>>) -> Access {
    Access::from_bits(hit.access())
}

#[cfg(test)]
mod tests {
    use super::{
        testing::{manual, put},
        *,
    };

    #[test]
    fn priority_is_passed_on_unless_another_was_set_since() {
        let engine = manual(100);
        put(&engine, 1);
        let (guard, hash) = (engine.table.pin(), engine.hash(&1));
        let hit = engine.table.find(&guard, hash, |entry| entry.key == 1).unwrap();
        let change = |to, from| {
            engine.change_priority(&guard, hash, hit.metadata(), to, Some(from));
            (hit.flags().priority(), engine.unevictable.cost())
        };
        assert_eq!(change(Priority::Pinned, Priority::High), (Priority::Normal, 0));
        assert_eq!(change(Priority::Pinned, Priority::Normal), (Priority::Pinned, 1));
        assert_eq!(change(Priority::Low, Priority::Normal), (Priority::Pinned, 1));
        assert_eq!(change(Priority::Low, Priority::Pinned), (Priority::Low, 0));
    }
}
