//! W-TinyLFU (Einziger, Friedman & Manes, TinyLFU: a highly efficient cache admission policy, ACM
//! Transactions on Storage, 2017): a window of 1 %, a segmented LRU of 80 % and 20 % behind it,
//! four-bit counters halved every ten times as many counts as there are entries.
//!
//! How a loop or a way to and fro fares hangs on which keys share their counters, so two programs
//! can be some points apart there.
//!
//! Honours sizes: an entry that leaves the window has to beat all those together that would have
//! to go for it (Einziger, Eytan, Friedman & Manes, Lightweight robust size aware cache
//! management, ACM Transactions on Storage, 2022).

use super::Reference;
use super::lists::{Lists, Place};
use super::sketch::Sketch;

/// The window, an LRU list, and the two parts of the main area, which are too.
pub struct WTinyLfu {
    capacity: u64,
    max_window: u64,
    max_main: u64,
    max_protected: u64,
    lists: Lists<3>,
    sketch: Sketch,
    counts: usize,
    /// How many entries there have been at most.
    most: usize,
    /// Whether an entry has ever had to go for another.
    is_full: bool,
}

const WINDOW: usize = 0;
const PROBATION: usize = 1;
const PROTECTED: usize = 2;

/// How many times as many counts as entries there are between two halvings.
const COUNTS_PER_ENTRY: usize = 10;
/// The words of the sketch, one an entry, from which on it grows only when it must.
const MIN_WORDS: u64 = 1 << 16;

impl WTinyLfu {
    /// Returns an empty cache.
    pub fn new(capacity: u64) -> Self {
        let max_window = (capacity / 100).clamp(1, capacity.max(1));
        let max_main = capacity.saturating_sub(max_window);
        Self {
            capacity,
            max_window,
            max_main,
            max_protected: (u128::from(max_main) * 8 / 10) as u64,
            lists: Lists::new(),
            sketch: Sketch::new(capacity.clamp(1, MIN_WORDS) as usize),
            counts: 0,
            most: 0,
            is_full: false,
        }
    }

    /// Counts an access. A capacity in bytes does not tell how many entries there will be, so the
    /// sketch grows with them, and nothing is halved until the cache is full.
    fn count(&mut self, key: u64) {
        let entries: usize = [WINDOW, PROBATION, PROTECTED].map(|i| self.lists.len(i)).iter().sum();
        self.most = self.most.max(entries);
        while self.sketch.len() < self.most {
            self.sketch.double();
        }
        if self.sketch.add(key) {
            self.counts += 1;
        }
        if self.is_full && self.counts >= COUNTS_PER_ENTRY * self.most {
            self.sketch.halve();
            self.counts /= 2;
        }
    }

    fn hit(&mut self, place: Place) {
        if self.lists.list(place) == WINDOW {
            self.lists.renew(WINDOW, place);
            return;
        }
        self.lists.renew(PROTECTED, place);
        while self.lists.size(PROTECTED) > self.max_protected
            && let Some(oldest) = self.lists.oldest(PROTECTED)
        {
            self.lists.renew(PROBATION, oldest);
        }
    }

    /// Returns how much has to leave the main area before this much can enter it.
    fn lacking(&self, size: u64) -> u64 {
        let main = self.lists.size(PROBATION) + self.lists.size(PROTECTED);
        main.saturating_sub(self.max_main - size)
    }

    /// Returns whether an entry that leaves the window is more frequent than its victims.
    fn is_admitted(&mut self, candidate: Place) -> bool {
        let size = self.lists.size_at(candidate);
        if size > self.max_main {
            return false;
        }
        let mut lacking = self.lacking(size);
        self.is_full |= lacking > 0;
        let mut frequency = self.sketch.estimate(self.lists.key(candidate));
        let mut victim = self.lists.oldest(PROBATION).or_else(|| self.lists.oldest(PROTECTED));
        while lacking > 0
            && let Some(place) = victim
        {
            let victims = self.sketch.estimate(self.lists.key(place));
            if frequency <= victims {
                return false;
            }
            frequency -= victims;
            lacking = lacking.saturating_sub(self.lists.size_at(place));
            victim = self.lists.newer(place);
            if victim.is_none() && self.lists.list(place) == PROBATION {
                victim = self.lists.oldest(PROTECTED);
            }
        }
        true
    }

    fn leave_window(&mut self, candidate: Place) {
        if !self.is_admitted(candidate) {
            self.lists.remove(candidate);
            return;
        }
        while self.lacking(self.lists.size_at(candidate)) > 0 {
            let list = if self.lists.len(PROBATION) > 0 { PROBATION } else { PROTECTED };
            self.lists.remove_oldest(list);
        }
        self.lists.renew(PROBATION, candidate);
    }
}

impl Reference for WTinyLfu {
    fn access(&mut self, key: u64, size: u64) -> bool {
        self.count(key);
        if let Some(place) = self.lists.find(key) {
            self.hit(place);
            return true;
        }
        if size <= self.capacity {
            self.lists.add(WINDOW, key, size);
            while self.lists.size(WINDOW) > self.max_window
                && let Some(candidate) = self.lists.oldest(WINDOW)
            {
                self.leave_window(candidate);
            }
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{play, play_sizes};
    use super::*;

    #[test]
    fn candidate_must_be_more_frequent_than_its_victim() {
        // One place each for window, probation and protected. 1 is protected by its hit; 2 stays
        // against 3 and against 4, as frequent as itself, and goes for 3 when that has come twice.
        // The hit of 3 then protects it instead of 1, which is on probation and hit too.
        let keys = [1, 2, 3, 1, 4, 3, 5, 3, 1, 2];
        assert_eq!(play(&mut WTinyLfu::new(3), &keys), "---+---++-");
    }

    #[test]
    fn large_candidate_must_beat_all_its_victims() {
        // None fits the window of 1, so each is judged at once. 3 needs the places of both 1 and 2,
        // and has to come three times for that.
        let accesses = [(1, 40), (2, 40), (3, 60), (3, 60), (3, 60), (3, 60), (1, 40)];
        assert_eq!(play_sizes(&mut WTinyLfu::new(100), &accesses), "-----+-");
    }
}
