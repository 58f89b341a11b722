//! Garbage: entries that were unlinked but not freed yet, the limits on it, and which thread frees
//! it.
//!
//! Retired entries wait in [bags](crate::table) for their grace period. The maintenance thread
//! frees them; writers help if it falls behind. A writer frees only while it is not pinned, does a
//! bounded amount of work, and never waits for a grace period.
//!
//! # Limits
//!
//! A value that a reader holds, or a pinned thread that was preempted, delays the reclamation of
//! everything that is retired later. [`Pressure`] is the effect on writes: above the limit, no
//! *new* key is inserted; above twice the limit, no entry is replaced either. By default, the limit
//! is the budget, or 32 MiB of memory if that is more, so that a thread which was merely preempted
//! causes no rejections.

use super::{Engine, RemovalCause, callbacks, callbacks::Removed};
use crate::{
    config::{GARBAGE_FLOOR_BYTES, Maintenance},
    entry::Entry,
    metrics::Counter,
    singleflight::is_loading,
    slab::Garbage,
    sync::atomic::Ordering,
    table::{Finalizer, Swept},
};

/// The garbage for which a grace period is begun: at least so many full bags. To begin one costs as
/// much as to free hundreds of entries, and interrupts all running threads.
const BAGS_PER_PERIOD: u64 = 4;
/// The garbage for which a grace period is begun: the budget divided by this, or `PERIOD_BYTES`.
const PERIOD_PART: u64 = 64;
/// In bytes; 4096 small entries.
const PERIOD_BYTES: u64 = 128 << 10;
/// How many times as much a writer lets gather, where the maintenance thread may come first.
const WRITER_FACTOR: u64 = 2;
/// The garbage that the thread lets gather while it evicts, if freeing it has effects: the budget
/// divided by this.
const DEFERRED_PART: u64 = 128;
/// Entries that a writer frees in one sweep: many times what it has retired since its last one, so
/// that a backlog behind a pinned thread is worked off even if most writers are preempted.
const MAX_FREED_BY_WRITER: usize = 4096;
/// Sweeps that a writer tries before a write is rejected: the steps that the collector needs for a
/// whole grace period if no thread is pinned.
const SWEEPS_BEFORE_REFUSAL: usize = if cfg!(feature = "crossbeam-epoch") { 3 } else { 1 };
/// The budget divided by this is the garbage at which writers help the thread, if costs are
/// proportional to memory.
const HELP_PART: u64 = 64;
/// The garbage limit divided by this is the garbage at which writers help, whatever costs mean. The
/// thread alone frees more slowly than writers retire, so without help garbage would always stay at
/// this level.
const HELP_LIMIT_PART: u64 = 16;
/// Garbage entries below which writers do not help because of `HELP_LIMIT_PART`.
const HELP_ENTRIES: u64 = 512;
/// The garbage limit divided by this is the garbage at which values that no pin protects are
/// dropped before their grace period has ended.
const EARLY_PART: u64 = 32;
/// The cost of garbage below which it is not worth a sweep of its own, if costs are proportional to
/// memory.
const MIN_HELP_COST: u64 = 64 << 10;
/// The least memory of an entry, in bytes, with the allocator's overhead.
const MIN_ENTRY_BYTES: usize = 32;

/// How far garbage exceeds its limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Pressure {
    /// It does not.
    None,
    /// No new key is inserted.
    Soft,
    /// No entry is replaced either.
    Hard,
}

impl<K, V, S> Engine<K, V, S> {
    /// Returns how far garbage exceeds its limit, after trying to free it. Call it unpinned.
    #[inline]
    pub fn garbage_pressure(&self) -> Pressure {
        match self.noted_pressure() {
            Pressure::None => Pressure::None,
            // Destructors and listeners may wait for the load.
            pressure if is_loading() => pressure,
            _ => self.relieve(),
        }
    }

    /// Returns the pressure as of the last time that garbage was sealed or freed.
    #[inline]
    pub fn noted_pressure(&self) -> Pressure {
        // Relaxed: a hint; it is checked again before it takes effect.
        match self.pressure.load(Ordering::Relaxed) {
            0 => Pressure::None,
            1 => Pressure::Soft,
            _ => Pressure::Hard,
        }
    }

    /// Frees what can be freed now; returns the remaining pressure. It never waits.
    ///
    /// Open batches are not sealed: while a reader stalls, a grace period per entry would cost each
    /// write more than the rest of its work.
    #[cold]
    fn relieve(&self) -> Pressure {
        for _ in 0..SWEEPS_BEFORE_REFUSAL {
            self.sweep(MAX_FREED_BY_WRITER);
            if self.noted_pressure() == Pressure::None {
                break;
            }
        }
        self.noted_pressure()
    }

    /// Returns the pressure that this amount of garbage causes.
    #[inline]
    fn pressure_of(&self, cost: u64, count: u64) -> Pressure {
        let (limit, floor) = match self.settings.max_garbage {
            Some(limit) => (limit, 0),
            None => (self.budget.max(), GARBAGE_FLOOR_BYTES),
        };
        let bytes = self.garbage_bytes(cost, count);
        let exceeds = |n: u64| cost > limit.saturating_mul(n) && (floor == 0 || bytes > floor * n);
        if exceeds(2) {
            Pressure::Hard
        } else if exceeds(1) {
            Pressure::Soft
        } else {
            Pressure::None
        }
    }

    /// Estimates the memory of this amount of garbage: the size of its entries, or their cost if
    /// costs vary, since such costs may be bytes.
    fn garbage_bytes(&self, cost: u64, count: u64) -> u64 {
        let entry = size_of::<Entry<K, V>>().max(MIN_ENTRY_BYTES) as u64;
        count.saturating_mul(entry).max(if self.costs_vary() { cost } else { 0 })
    }

    /// Returns the cost at which a batch of garbage is sealed before it is full, so that all open
    /// batches together hold a small part of the limit.
    #[inline]
    pub(super) fn seal_at(&self) -> u64 {
        // Shifts instead of divisions: the number of stripes is a power of two.
        let shift = 1 + self.locals.len().trailing_zeros();
        let by_limit = self.settings.max_garbage.unwrap_or(self.budget.max()) >> shift;
        let by_cost = (self.budget.max() >> shift) / HELP_PART;
        let by_cost = by_cost.max(MIN_HELP_COST);
        if self.costs_vary() { by_limit.min(by_cost) } else { by_limit }
    }

    fn note_pressure(&self, cost: u64, count: u64) {
        let pressure = self.pressure_of(cost, count) as u8;
        // Relaxed: a hint. Stored only if it differs: writers share the line.
        if self.pressure.load(Ordering::Relaxed) != pressure {
            self.pressure.store(pressure, Ordering::Relaxed); // Relaxed: as above.
        }
    }

    /// Updates the pressure after garbage was sealed, and decides which thread frees it.
    pub(super) fn note_garbage(&self) {
        let Garbage { cost, count } = self.table.sealed_garbage();
        self.note_pressure(cost, count);
        let limit = self.settings.max_garbage.unwrap_or(self.budget.max());
        let floor = if self.settings.max_garbage.is_some() { 0 } else { HELP_ENTRIES };
        let is_much = cost > limit / HELP_LIMIT_PART && count > floor;
        let is_heavy =
            self.costs_vary() && cost > (self.budget.max() / HELP_PART).max(MIN_HELP_COST);
        let is_manual = self.settings.maintenance == Maintenance::Manual;
        if is_much || is_heavy || ((self.is_light() || is_manual) && self.is_period_due()) {
            // Relaxed, twice: a hint, stored only if it differs.
            if !self.sweep_due.load(Ordering::Relaxed) {
                self.sweep_due.store(true, Ordering::Relaxed);
            }
        } else if cost > limit / (2 * HELP_LIMIT_PART) {
            // Less garbage can wait until the thread's timed wait ends.
            self.eventcount.notify();
        }
    }

    /// Returns whether there is so much new garbage that a writer begins a grace period for it.
    fn is_period_due(&self) -> bool {
        // If there is a thread, it comes first: the barrier costs its caller most.
        let is_manual = self.settings.maintenance == Maintenance::Manual;
        self.is_new_garbage_over(if is_manual { 1 } else { WRITER_FACTOR })
    }

    /// Returns whether there is so little new garbage that it can wait for more.
    pub(super) fn has_little_garbage(&self) -> bool {
        let Garbage { cost, .. } = self.table.unswept_garbage();
        let is_little = self.is_light() || cost < self.budget.max() / DEFERRED_PART;
        is_little && !self.is_new_garbage_over(1)
    }

    /// Returns whether there is so much new garbage that it is worth a grace period, times `factor`
    /// where values are freed without effect.
    ///
    /// Garbage of periods that have begun does not count: while a pinned thread is stopped, further
    /// periods do not end sooner.
    fn is_new_garbage_over(&self, factor: u64) -> bool {
        let Garbage { cost, count } = self.table.unswept_garbage();
        let part = self.budget.max() / PERIOD_PART;
        let is_heavy = self.costs_vary() && cost >= part.max(MIN_HELP_COST);
        let is_limit_near =
            self.settings.max_garbage.is_some_and(|limit| cost > limit / HELP_LIMIT_PART);
        let is_much =
            cost / factor >= part || self.garbage_bytes(cost, count) / factor >= PERIOD_BYTES;
        let bags = BAGS_PER_PERIOD * self.table.bag_capacity() as u64;
        is_heavy || is_limit_near || (is_much && count >= bags)
    }

    /// Returns whether freeing is little work, and returns memory that is still in the CPU's cache:
    /// no destructor and no listener is called.
    fn is_light(&self) -> bool {
        !std::mem::needs_drop::<Entry<K, V>>() && self.callbacks.on_remove.is_none()
    }

    /// Returns whether there is so much garbage that values which no pin protects are dropped
    /// early.
    fn is_garbage_expensive(&self) -> bool {
        let limit = self.settings.max_garbage.unwrap_or(self.budget.max());
        self.table.sealed_garbage().cost > limit / EARLY_PART
    }

    /// Frees garbage if it is this thread's turn. Call it unpinned and not while leading a flight:
    /// destructors and listeners run, and may wait for that flight. Within a loader, it does
    /// nothing.
    #[inline]
    pub fn sweep_if_due(&self) {
        if self.is_sweep_due() && !is_loading() {
            self.sweep_now();
        }
    }

    #[inline]
    pub(super) fn is_sweep_due(&self) -> bool {
        self.sweep_due.load(Ordering::Relaxed) // Relaxed: a hint.
    }

    #[cold]
    pub(super) fn sweep_now(&self) -> Swept {
        self.sweep_due.store(false, Ordering::Relaxed); // Relaxed: a hint.
        let is_begun = !self.is_period_due();
        self.sweep_with(MAX_FREED_BY_WRITER, is_begun)
    }

    /// Frees what no guard can reach any more, up to `most` entries; returns what was freed and how
    /// many batches wait.
    ///
    /// A destructor that panics is counted; the first payload is in the result.
    pub fn sweep(&self, most: usize) -> Swept {
        self.sweep_with(most, false)
    }

    /// Like [`sweep`](Self::sweep); begins no grace period if `is_begun`.
    pub(super) fn sweep_with(&self, most: usize, is_begun: bool) -> Swept {
        let finalizer = self.callbacks.on_remove.as_ref().map(finalizer);
        let finalizer = finalizer.as_ref().map(|finalizer| finalizer as Finalizer<'_, _>);
        let swept = if is_begun {
            self.table.sweep_begun(most, finalizer)
        } else if self.is_garbage_expensive() {
            self.table.sweep_early(most, finalizer)
        } else {
            self.table.sweep(most, finalizer)
        };
        self.counters.add(Counter::GarbageFreed, swept.freed as u64);
        if swept.waiting > 0 {
            // The thread could not find these batches while this sweep held them.
            self.notify_if_waiting();
            self.scan_pins_if_due();
        }
        // The pressure may have risen, too: no writer notes what maintenance seals.
        let Garbage { cost, count } = self.table.sealed_garbage();
        self.note_pressure(cost, count);
        swept
    }
}

/// Passes a removed entry to the user's listener, after its grace period.
pub(super) fn finalizer<K, V>(
    on_remove: &callbacks::OnRemove<K, V>,
) -> impl Fn(Entry<K, V>, u8, u64) {
    move |entry, label, cost| {
        if let Some(cause) = RemovalCause::of(label) {
            on_remove(Removed::new(entry, cost, cause));
        }
    }
}
