//! Lifetimes of evicted entries, measured for a sample of entries.
//!
//! An entry is identified by its id, which is unique while it lives. Each of a few thousand cells
//! holds one id and the time when its entry was inserted. A new entry takes its cell if that is
//! free, and is not measured otherwise. The choice does not depend on the lifetime, so the sample
//! is unbiased. A cell whose entry was gone before the cell was taken is free again when the id is
//! reused.

use super::histogram::{DurationHistogram, DurationRecorder};
use crate::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// The number of cells is 2 to the power of this: 4096, which take 32 KiB.
const CELL_BITS: u32 = 12;
/// The maximum number of entries in the sample at a time.
const CELLS: usize = 1 << CELL_BITS;
/// The bits by which a cell identifies an id. The lowest is always 1, so one in 2^23 other ids of
/// the cell is mistaken for it.
const NAME_BITS: u32 = 24;
/// The remaining 40 bits hold the time in milliseconds: 34 years.
const TIME_BITS: u32 = u64::BITS - NAME_BITS;
const TIME: u64 = (1 << TIME_BITS) - 1;
/// The unit of the times and of the first bucket: a millisecond.
const NANOSECONDS_PER_UNIT: u64 = 1_000_000;
/// 2^64 divided by the golden ratio, an odd number without a bit pattern: the multiplier that
/// spreads ids over the cells.
const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;

/// The insertion times of the sampled entries, and the lifetimes of those that were evicted.
#[derive(Debug)]
pub struct Births {
    /// Part of an id and a time each, or 0 if free. Empty if nothing is measured.
    cells: Box<[AtomicU64]>,
    lives: DurationRecorder,
}

impl Births {
    /// Creates the cells; none if measuring is off.
    pub fn new(is_enabled: bool) -> Self {
        let cells = if is_enabled { CELLS } else { 0 };
        Self {
            cells: (0..cells).map(|_| AtomicU64::new(0)).collect(),
            lives: DurationRecorder::new(NANOSECONDS_PER_UNIT),
        }
    }

    /// Samples the entry of an id, inserted now, if its cell is free; only then calls `now`, which
    /// returns nanoseconds. The caller is pinned, so the id is not reused during the call.
    #[inline]
    pub fn begin(&self, id: usize, now: impl FnOnce() -> u64) {
        if self.is_enabled() {
            self.note_birth(id, now);
        }
    }

    /// Moves the insertion time from one id to another, when an entry gets a new id.
    #[inline]
    pub fn pass_on(&self, from: usize, to: usize) {
        if self.is_enabled() {
            self.move_on(from, to);
        }
    }

    /// Ends the lifetime of the entry of an id; records it if the entry `was_evicted`.
    #[inline]
    pub fn end(&self, id: usize, was_evicted: bool, now: impl FnOnce() -> u64) {
        if self.is_enabled() {
            self.note_end(id, was_evicted, now);
        }
    }

    #[inline]
    fn is_enabled(&self) -> bool {
        !self.cells.is_empty()
    }

    #[inline(never)]
    fn note_birth(&self, id: usize, now: impl FnOnce() -> u64) {
        let Some((cell, name)) = self.cell(id) else { return };
        // Relaxed, here and below: a cell depends on no other memory, and a lost lifetime only
        // makes the sample smaller.
        let seen = cell.load(Relaxed);
        if seen == 0 || seen & !TIME == name {
            cell.store(name | (now() / NANOSECONDS_PER_UNIT) & TIME, Relaxed);
        }
    }

    #[inline(never)]
    fn move_on(&self, from: usize, to: usize) {
        let Some(born) = self.take(from) else { return };
        let Some((cell, name)) = self.cell(to) else { return };
        let seen = cell.load(Relaxed); // Relaxed: as in `note_birth`.
        if seen == 0 || seen & !TIME == name {
            cell.store(name | born, Relaxed); // Relaxed: as in `note_birth`.
        }
    }

    #[inline(never)]
    fn note_end(&self, id: usize, was_evicted: bool, now: impl FnOnce() -> u64) {
        let Some(born) = self.take(id) else { return };
        if was_evicted {
            let life = (now() / NANOSECONDS_PER_UNIT).saturating_sub(born);
            self.lives.record(life * NANOSECONDS_PER_UNIT);
        }
    }

    /// Returns the lifetimes of evicted entries.
    pub fn snapshot(&self) -> DurationHistogram {
        self.lives.snapshot()
    }

    /// Returns the size of all cells in bytes.
    pub fn bytes(&self) -> usize {
        size_of_val(&*self.cells)
    }

    /// Returns the insertion time of the entry of an id, if it was sampled, and frees its cell.
    #[inline]
    fn take(&self, id: usize) -> Option<u64> {
        let (cell, name) = self.cell(id)?;
        let seen = cell.load(Relaxed); // Relaxed: as in `note_birth`.
        if seen & !TIME != name {
            return None;
        }
        cell.store(0, Relaxed); // Relaxed: as in `note_birth`.
        Some(seen & TIME)
    }

    /// Returns the cell of an id, and the name of the id that is stored there beside the time.
    #[inline]
    fn cell(&self, id: usize) -> Option<(&AtomicU64, u64)> {
        let mixed = (id as u64).wrapping_mul(SPREAD);
        let cell = self.cells.get((mixed >> (u64::BITS - CELL_BITS)) as usize)?;
        // The hash bits below those that select the cell; never 0, which marks a free cell.
        let name = (mixed >> (u64::BITS - CELL_BITS - NAME_BITS)) | 1;
        Some((cell, name << TIME_BITS))
    }
}

#[cfg(all(test, not(any(cortado_loom, cortado_shuttle))))]
mod tests {
    use std::{ptr, time::Duration};

    use super::*;

    const MS: u64 = NANOSECONDS_PER_UNIT;

    #[test]
    fn lifetimes_are_counted_by_powers_of_two() {
        let births = Births::new(true);
        let lives = [0, 1, 2, 3, 4, 1000, 1023, 1024, u64::MAX / MS];
        for (id, life) in (8..).step_by(8).zip(lives) {
            births.begin(id, || 0);
            births.end(id, true, || life * MS);
        }
        let counted: Vec<_> = births.snapshot().buckets().filter(|(_, count)| *count > 0).collect();
        let ms = Duration::from_millis;
        let expected =
            [(ms(1), 1), (ms(2), 1), (ms(4), 2), (ms(8), 1), (ms(1024), 2), (ms(2048), 1)];
        assert_eq!(counted[..6], expected);
        assert_eq!(counted[6..], [(Duration::MAX, 1)]);
        assert_eq!(births.snapshot().count(), 9);
        assert_eq!(births.snapshot().quantile(0.5), Some(ms(8)));
        assert_eq!(births.snapshot().quantile(0.0), Some(ms(1)));
        assert_eq!(births.snapshot().quantile(1.0), Some(Duration::MAX));
    }

    #[test]
    fn lifetime_of_an_entry_that_was_not_evicted_is_not_counted() {
        let births = Births::new(true);
        births.begin(8, || 0);
        births.end(8, false, || MS);
        births.end(8, true, || MS);
        births.end(16, true, || MS);
        assert_eq!(births.snapshot().count(), 0);
        assert_eq!(births.snapshot().quantile(0.5), None);
    }

    #[test]
    fn lifetime_continues_under_a_new_id() {
        let births = Births::new(true);
        births.begin(8, || 0);
        births.pass_on(8, 16);
        births.end(8, true, || MS);
        assert_eq!(births.snapshot().count(), 0);
        births.end(16, true, || 5 * MS);
        assert_eq!(births.snapshot().quantile(1.0), Some(Duration::from_millis(8)));
    }

    #[test]
    fn lifetime_is_lost_if_its_new_cell_is_taken() {
        let births = Births::new(true);
        let cell = |id| ptr::from_ref(births.cell(id).unwrap().0);
        let other = (16..).step_by(8).find(|&other| cell(other) == cell(8)).unwrap();
        let apart = (16..).step_by(8).find(|&apart| cell(apart) != cell(8)).unwrap();
        births.begin(8, || 0);
        births.begin(apart, || 0);
        births.pass_on(apart, other);
        births.end(other, true, || MS);
        births.end(apart, true, || MS);
        assert_eq!(births.snapshot().count(), 0);
        births.end(8, true, || MS);
        assert_eq!(births.snapshot().count(), 1);
    }

    #[test]
    fn lifetime_takes_over_a_stale_cell_of_its_new_id() {
        let births = Births::new(true);
        births.begin(16, || 0);
        births.begin(8, || 9 * MS);
        births.pass_on(8, 16);
        births.end(16, true, || 10 * MS);
        assert_eq!(births.snapshot().quantile(1.0), Some(Duration::from_millis(2)));
    }

    #[test]
    fn stale_cell_is_reused_with_its_id() {
        let births = Births::new(true);
        births.begin(8, || 0);
        births.begin(8, || 9 * MS);
        births.end(8, true, || 10 * MS);
        assert_eq!(births.snapshot().quantile(1.0), Some(Duration::from_millis(2)));
    }

    #[test]
    fn sample_is_limited_to_the_number_of_cells() {
        let births = Births::new(true);
        let ids = || (8..).step_by(8).take(4 * CELLS);
        ids().for_each(|id| births.begin(id, || 0));
        ids().for_each(|id| births.end(id, true, || MS));
        let count = births.snapshot().count();
        assert!(count > CELLS as u64 / 2 && count <= CELLS as u64, "{count}");
        assert!(births.cells.iter().all(|cell| cell.load(Relaxed) == 0));
    }

    #[test]
    fn disabled_births_sample_nothing() {
        let births = Births::new(false);
        births.begin(8, || unreachable!());
        births.end(8, true, || unreachable!());
        assert_eq!((births.snapshot().count(), births.bytes()), (0, 0));
        assert_eq!(Births::new(true).bytes(), 8 * CELLS);
    }

    #[test]
    fn snapshots_subtract() {
        let births = Births::new(true);
        let live = |life: u64| {
            births.begin(8, || 0);
            births.end(8, true, || life * MS);
        };
        live(1);
        let before = births.snapshot();
        live(100);
        assert_eq!((before.clone() - births.snapshot()).count(), 0);
        let between = births.snapshot() - before;
        assert_eq!((between.count(), between.quantile(1.0)), (1, Some(Duration::from_millis(128))));
    }
}
