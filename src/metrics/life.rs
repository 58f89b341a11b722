//! How long entries live: a sample of them is watched from birth to eviction.
//!
//! An entry is known by its id, which is no other's while it lives. A few thousand cells hold one
//! id and the time of its birth each. A new entry takes its cell if that is free, and is not watched
//! otherwise; who is watched does not depend on how long he will live, so the sample is a fair one. A cell that
//! is left behind, for its entry was gone before the cell was taken, is free again when the id is used
//! again.

use super::histogram::{DurationHistogram, DurationRecorder};
use crate::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// When the entries that are watched were born, and how long those lived that were evicted.
#[derive(Debug)]
pub struct Births {
    /// Part of an id and a time each, or 0. Empty where nothing is watched.
    cells: Box<[AtomicU64]>,
    lives: DurationRecorder,
}

impl Births {
    /// Makes the cells, unless nothing is to be watched.
    pub fn new(is_enabled: bool) -> Self {
        let cells = if is_enabled { CELLS } else { 0 };
        Self {
            cells: (0..cells).map(|_| AtomicU64::new(0)).collect(),
            lives: DurationRecorder::new(NANOSECONDS_PER_UNIT),
        }
    }

    /// Watches the entry at an id, born now, if its cell is free. `now` is in nanoseconds, and only
    /// asked for then. Whoever calls it is pinned: the id is no other's meanwhile.
    #[inline]
    pub fn begin(&self, id: usize, now: impl FnOnce() -> u64) {
        if self.is_enabled() {
            self.note_birth(id, now);
        }
    }

    /// Lets the entry at one id go on at another.
    #[inline]
    pub fn pass_on(&self, from: usize, to: usize) {
        if self.is_enabled() {
            self.move_on(from, to);
        }
    }

    /// Ends the life of the entry at an id; counts it if it `was_evicted`.
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
        // Relaxed, here and below: a cell says all that there is to know, and a life that is lost is one
        // less in the sample.
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

    /// Returns how long those lived that were evicted.
    pub fn snapshot(&self) -> DurationHistogram {
        self.lives.snapshot()
    }

    /// Returns the bytes of all cells.
    pub fn bytes(&self) -> usize {
        size_of_val(&*self.cells)
    }

    /// Returns the birth of the entry at an id, if it was watched, and frees its cell.
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

    /// Returns the cell of an id, and what is written there beside the time.
    #[inline]
    fn cell(&self, id: usize) -> Option<(&AtomicU64, u64)> {
        let mixed = (id as u64).wrapping_mul(SPREAD);
        let cell = self.cells.get((mixed >> (u64::BITS - CELL_BITS)) as usize)?;
        // The bits below those of the cell; never 0, which is the name of a free one.
        let name = (mixed >> (u64::BITS - CELL_BITS - NAME_BITS)) | 1;
        Some((cell, name << TIME_BITS))
    }
}

/// Entries watched at a time: 2 to the power of this.
const CELL_BITS: u32 = 12;
const CELLS: usize = 1 << CELL_BITS;
/// A cell names an id by so many bits, and takes one in 2 to that power for another.
const NAME_BITS: u32 = 24;
const TIME_BITS: u32 = u64::BITS - NAME_BITS;
const TIME: u64 = (1 << TIME_BITS) - 1;
const NANOSECONDS_PER_UNIT: u64 = 1_000_000;
/// An odd number without pattern: 2^64 divided by the golden ratio.
const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;

#[cfg(all(test, not(any(cortado_loom, cortado_shuttle))))]
mod tests {
    use std::{ptr, time::Duration};

    use super::*;

    const MS: u64 = NANOSECONDS_PER_UNIT;

    #[test]
    fn lives_are_counted_by_powers_of_two() {
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
    fn those_that_were_not_evicted_are_not_counted() {
        let births = Births::new(true);
        births.begin(8, || 0);
        births.end(8, false, || MS);
        births.end(8, true, || MS);
        births.end(16, true, || MS);
        assert_eq!(births.snapshot().count(), 0);
        assert_eq!(births.snapshot().quantile(0.5), None);
    }

    #[test]
    fn life_goes_on_at_another_address() {
        let births = Births::new(true);
        births.begin(8, || 0);
        births.pass_on(8, 16);
        births.end(8, true, || MS);
        assert_eq!(births.snapshot().count(), 0);
        births.end(16, true, || 5 * MS);
        assert_eq!(births.snapshot().quantile(1.0), Some(Duration::from_millis(8)));
    }

    #[test]
    fn life_whose_new_cell_is_anothers_is_lost_and_that_goes_on() {
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
    fn life_takes_over_a_cell_that_was_left_behind_at_its_new_address() {
        let births = Births::new(true);
        births.begin(16, || 0);
        births.begin(8, || 9 * MS);
        births.pass_on(8, 16);
        births.end(16, true, || 10 * MS);
        assert_eq!(births.snapshot().quantile(1.0), Some(Duration::from_millis(2)));
    }

    #[test]
    fn cell_that_was_left_behind_is_its_ids_own_again() {
        let births = Births::new(true);
        births.begin(8, || 0);
        births.begin(8, || 9 * MS);
        births.end(8, true, || 10 * MS);
        assert_eq!(births.snapshot().quantile(1.0), Some(Duration::from_millis(2)));
    }

    #[test]
    fn more_than_there_are_cells_are_not_watched() {
        let births = Births::new(true);
        let ids = || (8..).step_by(8).take(4 * CELLS);
        ids().for_each(|id| births.begin(id, || 0));
        ids().for_each(|id| births.end(id, true, || MS));
        let count = births.snapshot().count();
        assert!(count > CELLS as u64 / 2 && count <= CELLS as u64, "{count}");
        assert!(births.cells.iter().all(|cell| cell.load(Relaxed) == 0));
    }

    #[test]
    fn births_that_are_off_watch_nothing() {
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
