//! `Entry`: a key and a value as stored, with the exact metadata beside them: flags, cost and
//! times.
//!
//! The access bits ([`policy::access`](crate::policy::access)) and the class
//! ([`policy::class`](crate::policy::class)) that victim selection reads are in the entry's bucket.
//! They are hints.

use crate::{
    config::Priority,
    expiry::inbox::NEVER,
    sync::atomic::{AtomicU64, Ordering},
    table::Metadata,
};

/// The content of a slab cell.
#[derive(Debug)]
pub struct Entry<K, V> {
    /// The key.
    pub key: K,
    /// The value.
    pub value: V,
}

/// The flag byte beside an entry's cell.
///
/// ```text
/// bit   0      in the window
/// bit   1      has times beside its cell
/// bits  2..4   the priority, by its discriminant
/// bit   4      its cost is counted as unevictable
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flags(u8);

const WINDOW: u8 = 1;
const TIMED: u8 = 1 << 1;
const PRIORITY_AT: u32 = 2;
const PRIORITY: u8 = 3 << PRIORITY_AT;
const COUNTED: u8 = 1 << 4;

impl Flags {
    /// Creates the flags of an entry of the window or of the main region.
    #[inline]
    pub fn new(is_in_window: bool, is_timed: bool, priority: Priority) -> Self {
        let window = if is_in_window { WINDOW } else { 0 };
        let timed = if is_timed { TIMED } else { 0 };
        Self(window | timed | Self::of_priority(priority))
    }

    #[inline]
    fn of_priority(priority: Priority) -> u8 {
        let counted = if priority == Priority::Pinned { COUNTED } else { 0 };
        (priority as u8) << PRIORITY_AT | counted
    }

    /// Returns whether the entry is in the window.
    #[inline]
    pub fn is_in_window(self) -> bool {
        self.0 & WINDOW != 0
    }

    /// Returns whether there are times beside the entry's cell.
    #[inline]
    pub fn is_timed(self) -> bool {
        self.0 & TIMED != 0
    }

    /// Returns the priority.
    #[inline]
    pub fn priority(self) -> Priority {
        const BY_NUMBER: [Priority; 4] =
            [Priority::Normal, Priority::Low, Priority::High, Priority::Pinned];
        BY_NUMBER[usize::from(self.0 >> PRIORITY_AT) & 3]
    }

    /// Returns whether the entry must not be evicted.
    #[inline]
    pub fn is_unevictable(self) -> bool {
        self.priority() == Priority::Pinned
    }
}

impl<'g, K, V> Metadata<'g, Entry<K, V>> {
    /// Returns the flags.
    #[inline]
    pub fn flags(self) -> Flags {
        // Relaxed: the word that publishes the entry also publishes its flags, and the window flag
        // may change later anyway.
        Flags(self.byte().load(Ordering::Relaxed))
    }

    /// Sets the flags, before the entry is published.
    #[inline]
    pub fn set_flags(self, flags: Flags) {
        self.byte().store(flags.0, Ordering::Relaxed); // Relaxed: published with the entry.
    }

    /// Removes the entry from the window; returns whether this call did.
    ///
    /// Of the threads that do so, to move the entry to the main region or to retire it, exactly one
    /// gets `true`. That one has to account for the entry.
    #[inline]
    pub fn leave_window(self) -> bool {
        // Relaxed, twice: the modification order of the byte decides which thread is first.
        self.flags().is_in_window()
            && self.byte().fetch_and(!WINDOW, Ordering::Relaxed) & WINDOW != 0
    }

    /// Changes the priority of a published entry, unless `from` is given and differs from it.
    ///
    /// Returns whether the entry was counted as unevictable before, or `None` if the priority was
    /// not changed. Afterwards the entry is counted if and only if its priority is `Pinned`.
    pub fn change_priority(self, priority: Priority, from: Option<Priority>) -> Option<bool> {
        let mut seen = self.flags();
        loop {
            if from.is_some_and(|from| seen.priority() != from) {
                return None;
            }
            let flags = seen.0 & !(PRIORITY | COUNTED) | Flags::of_priority(priority);
            // Release: pairs with the Acquire of the evicting thread, see `Table::renew_entry`.
            // Relaxed: the next round uses the value only.
            let byte = self.byte();
            match byte.compare_exchange(seen.0, flags, Ordering::Release, Ordering::Relaxed) {
                Ok(_) => return Some(seen.0 & COUNTED != 0),
                Err(now) => seen = Flags(now),
            }
        }
    }

    /// Clears the bit that counts the entry as unevictable; returns whether this call did. Of
    /// concurrent calls, exactly one gets `true`.
    #[cold]
    pub fn uncount(self) -> bool {
        // Relaxed: the modification order of the byte decides which thread is first.
        self.byte().fetch_and(!COUNTED, Ordering::Relaxed) & COUNTED != 0
    }

    /// Returns the times of the entry, if it has any.
    #[inline]
    pub fn times(self) -> Option<Times<'g>> {
        if self.flags().is_timed() { self.time_words().map(Times) } else { None }
    }
}

/// The times of an entry that may expire: two words beside its cell, in nanoseconds of the cache's
/// clock.
///
/// The first word is the deadline. Its highest bit says whether maintenance knows of the deadline.
/// The bit shares a word with the deadline, so that it always refers to the current one. The second
/// word is the time of the last use. It is separate, because hits change it by plain stores.
#[derive(Clone, Copy, Debug)]
pub struct Times<'g>(&'g [AtomicU64; 2]);

/// The times of a new entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NewTimes {
    /// The deadline; [`NEVER`] if the entry has none.
    pub deadline: u64,
    /// The time of the insert.
    pub now: u64,
}

impl NewTimes {
    /// Returns the words beside the cell.
    pub fn words(self) -> [u64; 2] {
        [self.deadline.min(FAR), self.now]
    }
}

impl<'g> Times<'g> {
    /// Interprets two words as times.
    pub fn of(words: &'g [AtomicU64; 2]) -> Self {
        Self(words)
    }

    fn deadline_word(self) -> &'g AtomicU64 {
        &self.0[0]
    }

    /// Returns when the entry expires if it is not used again; [`NEVER`] if it does not expire.
    ///
    /// `idle` is the longest time between uses.
    #[inline]
    pub fn deadline(self, idle: u64) -> u64 {
        let deadline = self.hard_deadline();
        if idle == NEVER { deadline } else { deadline.min(self.used().saturating_add(idle)) }
    }

    /// Returns the deadline that uses do not extend.
    #[inline]
    pub fn hard_deadline(self) -> u64 {
        // Relaxed: nothing is read on the strength of the time.
        deadline_in(self.deadline_word().load(Ordering::Relaxed))
    }

    /// Sets the hard deadline; returns the previous one. If the new one is earlier, it has to be
    /// posted to maintenance again.
    pub fn set_deadline(self, deadline: u64) -> u64 {
        let deadline = deadline.min(FAR);
        // Relaxed: the exchange decides.
        let mut seen = self.deadline_word().load(Ordering::Relaxed);
        loop {
            // The timer of a postponed deadline fires at the old time, and is added again then.
            let is_known = deadline >= seen & !KNOWN || mutant!("inbox_keeps_known");
            let word = deadline | if is_known { seen & KNOWN } else { 0 };
            // Relaxed, twice: as in `hard_deadline`.
            match self.deadline_word().compare_exchange_weak(
                seen,
                word,
                Ordering::Relaxed,
                Ordering::Relaxed,
            ) {
                Ok(_) => return deadline_in(seen),
                Err(now) => seen = now,
            }
        }
    }

    /// Returns the time of the last use.
    #[inline]
    pub fn used(self) -> u64 {
        self.0[1].load(Ordering::Relaxed) // Relaxed: as in `hard_deadline`.
    }

    /// Records a use if the last recorded one is more than `grain` ago.
    #[inline]
    pub fn record_use(self, now: u64, grain: u64) {
        if now.saturating_sub(self.used()) > grain {
            self.0[1].store(now, Ordering::Relaxed); // Relaxed: as in `hard_deadline`.
        }
    }

    /// Marks the deadline as known to maintenance, before maintenance reads it; returns whether it
    /// was unknown.
    pub fn mark_known(self) -> bool {
        // Relaxed: decides which thread marks it. The read-modify-write reads the newest deadline,
        // so that the read that follows does not return an older one.
        self.deadline_word().fetch_or(KNOWN, Ordering::Relaxed) & KNOWN == 0
    }
}

fn deadline_in(word: u64) -> u64 {
    let deadline = word & !KNOWN;
    if deadline == FAR { NEVER } else { deadline }
}

/// The bit of the deadline word that says that maintenance knows of the deadline.
const KNOWN: u64 = 1 << 63;
/// [`NEVER`] in the bits beside `KNOWN`.
const FAR: u64 = NEVER & !KNOWN;
/// The latest time, in nanoseconds: about 292 years after the clock's origin.
pub const END: u64 = FAR - 1;

#[cfg(all(test, not(any(cortado_loom, cortado_shuttle))))]
mod tests {
    use super::*;
    use crate::table::Table;

    #[test]
    fn flags_are_independent() {
        for priority in [Priority::Low, Priority::Normal, Priority::High, Priority::Pinned] {
            for (is_in_window, is_timed) in [(false, false), (false, true), (true, false)] {
                let flags = Flags::new(is_in_window, is_timed, priority);
                assert_eq!((flags.is_in_window(), flags.is_timed()), (is_in_window, is_timed));
                assert_eq!(flags.priority(), priority);
                assert_eq!(flags.is_unevictable(), priority == Priority::Pinned);
            }
        }
    }

    #[test]
    fn entry_is_its_key_and_its_value() {
        assert_eq!(size_of::<Entry<u64, u64>>(), 16);
        assert_eq!(size_of::<Entry<u8, ()>>(), 1);
    }

    #[test]
    fn entry_leaves_the_window_once() {
        let table = Table::new(1, 1, 1).unwrap();
        let fresh = table.prepare(Entry { key: 1, value: 2 }, 7, 0).ok().unwrap();
        fresh.get().metadata().set_flags(Flags::new(true, false, Priority::High));
        assert!(fresh.get().metadata().leave_window() && !fresh.get().metadata().leave_window());
        assert_eq!(fresh.get().metadata().flags(), Flags::new(false, false, Priority::High));
        assert!(fresh.get().metadata().times().is_none());
    }

    #[test]
    fn use_is_recorded_if_the_last_is_more_than_a_grain_ago() {
        let words = NewTimes { deadline: NEVER, now: 7 }.words().map(AtomicU64::new);
        let times = Times::of(&words);
        for (now, used) in [(9, 7), (10, 7), (11, 11), (14, 11), (5, 11)] {
            times.record_use(now, 3);
            assert_eq!(times.used(), used);
        }
    }

    #[test]
    fn deadline_is_posted_once_and_again_if_it_becomes_earlier() {
        let words = NewTimes { deadline: 50, now: 7 }.words().map(AtomicU64::new);
        let times = Times::of(&words);
        assert!(times.mark_known() && !times.mark_known());
        assert_eq!((times.set_deadline(60), times.hard_deadline()), (50, 60));
        times.record_use(9, 1);
        assert!(!times.mark_known(), "it is met at 50");
        assert_eq!((times.set_deadline(NEVER), times.hard_deadline()), (60, NEVER));
        assert!(!times.mark_known());
        assert_eq!((times.set_deadline(40), times.hard_deadline()), (NEVER, 40));
        assert!(times.mark_known() && !times.mark_known());
        assert_eq!((times.deadline(NEVER), times.deadline(3), times.used()), (40, 12, 9));
        for deadline in [NEVER, NEVER - 1] {
            let words = NewTimes { deadline, now: 0 }.words().map(AtomicU64::new);
            assert_eq!(Times::of(&words).deadline(NEVER), NEVER);
        }
    }
}
