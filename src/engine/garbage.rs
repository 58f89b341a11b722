//! Garbage: entries that were unlinked and are not freed yet, how much of it may stand, and who
//! frees it.
//!
//! Retired entries wait in [bags](crate::table) for their grace period. The thread of
//! the cache frees them; writers help where it falls behind. A writer frees only while it is not
//! pinned, does a bounded part, and never waits for a grace period.
//!
//! # Limits
//!
//! A reader that is held, or a pinned thread that lost its core, holds back all that is retired
//! later. [`Pressure`] says what that means for writes: above the limit no *new* key comes in;
//! above twice the limit no entry is replaced either. By default the limit is the budget, or 32 MiB
//! of memory if that is more, so that a thread which merely waits for its core refuses nothing.

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

/// Batches that a writer fills before it sweeps: to begin a grace period costs as much as to free
/// hundreds of entries.
const SEALS_PER_SWEEP: u64 = 4;
/// Entries that a writer frees in one sweep: many times what it has retired since its last one, so
/// that what has piled up behind a pinned thread is worked off though most writers lack a core.
const MAX_FREED_BY_WRITER: usize = 4096;
/// Sweeps that a writer tries before a write is refused: as many steps as the collector needs from
/// the beginning of a grace period to its end where no thread is pinned.
const SWEEPS_BEFORE_REFUSAL: usize = if cfg!(feature = "crossbeam-epoch") { 3 } else { 1 };
/// The part of the budget that garbage may take before writers help the thread, where costs are
/// those of memory.
const HELP_PART: u64 = 64;
/// The part of what garbage may be at which writers help, whatever costs are. The thread alone frees more slowly
/// than writers retire: without help garbage would stand at this part always.
const HELP_LIMIT_PART: u64 = 16;
/// Entries that are garbage before writers help for that reason.
const HELP_ENTRIES: u64 = 512;
/// The part of what garbage may be at which values are dropped before their grace period is over, where no pin keeps
/// them.
const EARLY_PART: u64 = 32;
/// Garbage of less cost is not worth a sweep of its own, where costs are those of memory.
const MIN_HELP_COST: u64 = 64 << 10;
/// What an entry takes at least, with what the allocator adds.
const MIN_ENTRY_BYTES: usize = 32;

/// How far garbage is over its limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Pressure {
    /// It is not.
    None,
    /// No new key comes in.
    Soft,
    /// No entry is replaced either.
    Hard,
}

impl<K, V, S> Engine<K, V, S> {
    /// Returns how much garbage there is, in terms of what may be, after trying to free it. Call it
    /// unpinned.
    #[inline]
    pub fn garbage_pressure(&self) -> Pressure {
        match self.noted_pressure() {
            Pressure::None => Pressure::None,
            // Destructors and listeners may wait for the load.
            pressure if is_loading() => pressure,
            _ => self.relieve(),
        }
    }

    /// Returns the pressure that was found when garbage was last sealed or freed.
    #[inline]
    pub fn noted_pressure(&self) -> Pressure {
        // Relaxed: a hint, acted on only after another look.
        match self.pressure.load(Ordering::Relaxed) {
            0 => Pressure::None,
            1 => Pressure::Soft,
            _ => Pressure::Hard,
        }
    }

    /// Frees what can be freed now; returns the pressure that is left. It never waits.
    ///
    /// Open batches stay as they are: to begin a grace period for each entry would cost every write
    /// beside a stalled reader more than all the rest of it.
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

    /// Returns the pressure of so much garbage.
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

    /// Returns the memory of so much garbage, as far as the cache can know it: its entries, and
    /// what they cost where that is not the same for all, and so may well be bytes.
    fn garbage_bytes(&self, cost: u64, count: u64) -> u64 {
        let entry = size_of::<Entry<K, V>>().max(MIN_ENTRY_BYTES) as u64;
        count.saturating_mul(entry).max(if self.costs_vary() { cost } else { 0 })
    }

    /// Returns the cost at which a batch of garbage is sealed before it is full: all open batches
    /// together hold a small part of what may be.
    #[inline]
    pub(super) fn seal_at(&self) -> u64 {
        // Shifts in place of divisions: the number of stripes is a power of two.
        let shift = 1 + self.locals.len().trailing_zeros();
        let by_limit = self.settings.max_garbage.unwrap_or(self.budget.max()) >> shift;
        let by_cost = (self.budget.max() >> shift) / HELP_PART;
        let by_cost = by_cost.max(MIN_HELP_COST);
        if self.costs_vary() { by_limit.min(by_cost) } else { by_limit }
    }

    fn note_pressure(&self, cost: u64, count: u64) {
        let pressure = self.pressure_of(cost, count) as u8;
        // Relaxed: a hint. Written only if it differs: writers share the line.
        if self.pressure.load(Ordering::Relaxed) != pressure {
            self.pressure.store(pressure, Ordering::Relaxed); // Relaxed: as above.
        }
    }

    /// Notes that garbage was sealed: is there too much, and who frees it?
    pub(super) fn note_garbage(&self) {
        let Garbage { cost, count } = self.table.sealed_garbage();
        self.note_pressure(cost, count);
        let limit = self.settings.max_garbage.unwrap_or(self.budget.max());
        // Relaxed: a count of turns.
        let seals = self.local().seals.fetch_add(1, Ordering::Relaxed);
        let is_turn = seals.is_multiple_of(SEALS_PER_SWEEP);
        // Without destructors it is little work, and memory that is still warm comes back.
        let is_light = !std::mem::needs_drop::<Entry<K, V>>() && self.callbacks.on_remove.is_none();
        let floor = if self.settings.max_garbage.is_some() { 0 } else { HELP_ENTRIES };
        let is_much = cost > limit / HELP_LIMIT_PART && count > floor;
        let is_heavy =
            self.costs_vary() && cost > (self.budget.max() / HELP_PART).max(MIN_HELP_COST);
        let is_manual = self.settings.maintenance == Maintenance::Manual;
        if (is_turn && (is_light || is_manual)) || is_much || is_heavy {
            // Relaxed, twice: a hint, written only if it differs.
            if !self.sweep_due.load(Ordering::Relaxed) {
                self.sweep_due.store(true, Ordering::Relaxed);
            }
        } else if cost > limit / (2 * HELP_LIMIT_PART) {
            // Less can wait until the thread comes by itself.
            self.eventcount.notify();
        }
    }

    /// Returns whether so much garbage waits that what no pin keeps is not to wait for the others.
    fn is_garbage_expensive(&self) -> bool {
        let limit = self.settings.max_garbage.unwrap_or(self.budget.max());
        self.table.sealed_garbage().cost > limit / EARLY_PART
    }

    /// Frees garbage if that fell to this thread. Call it unpinned, and not while leading a flight:
    /// destructors and listeners run, which may wait for that. (In a loader it does nothing.)
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
        self.sweep(MAX_FREED_BY_WRITER)
    }

    /// Frees what no guard can see any more, until `most` entries are freed; returns what was freed
    /// and how many batches wait.
    ///
    /// A destructor that panics is counted; the first payload comes back in the result.
    pub fn sweep(&self, most: usize) -> Swept {
        let finalizer = self.callbacks.on_remove.as_ref().map(finalizer);
        let finalizer = finalizer.as_ref().map(|finalizer| finalizer as Finalizer<'_, _>);
        let swept = if self.is_garbage_expensive() {
            self.table.sweep_early(most, finalizer)
        } else {
            self.table.sweep(most, finalizer)
        };
        self.counters.add(Counter::GarbageFreed, swept.freed as u64);
        if swept.waiting > 0 {
            // The thread could not find it in the meantime.
            self.notify_if_waiting();
            self.scan_pins_if_due();
        }
        // Both ways: what maintenance seals, no writer has noted.
        let Garbage { cost, count } = self.table.sealed_garbage();
        self.note_pressure(cost, count);
        swept
    }
}

/// Tells the user of an entry that has left, when no other thread can see it any more.
pub(super) fn finalizer<K, V>(
    on_remove: &callbacks::OnRemove<K, V>,
) -> impl Fn(Entry<K, V>, u8, u64) {
    move |entry, label, cost| {
        if let Some(cause) = RemovalCause::of(label) {
            on_remove(Removed::new(entry, cost, cause));
        }
    }
}
