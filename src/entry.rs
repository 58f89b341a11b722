//! `Entry`: key and value, as stored, and what is kept exact beside them: flags, cost and times.
//!
//! What readers note of an entry, and what the choice of victims is told of it, is in its bucket, and only a hint
//! ([`policy::access`](crate::policy::access), [`policy::class`](crate::policy::class)).

use crate::{
    config::Priority,
    expiry::inbox::NEVER,
    sync::atomic::{AtomicU64, Ordering},
    table::Metadata,
};

/// What is in a cell of the slab.
#[derive(Debug)]
pub struct Entry<K, V> {
    /// The key.
    pub key: K,
    /// The value.
    pub value: V,
}

/// The byte beside an entry's cell.
///
/// ```text
/// bit   0      in the window
/// bit   1      has times beside its cell
/// bits  2..4   the priority, by its number
/// bit   4      its cost is counted as that of an unevictable entry
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flags(u8);

const WINDOW: u8 = 1;
const TIMED: u8 = 1 << 1;
const PRIORITY_AT: u32 = 2;
const PRIORITY: u8 = 3 << PRIORITY_AT;
const COUNTED: u8 = 1 << 4;

impl Flags {
    /// Returns the flags of an entry of the window, or of one of the main region.
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
        // Relaxed: the word that shows the entry shows what its writer has stored; and the window's flag changes later.
        Flags(self.byte().load(Ordering::Relaxed))
    }

    /// Sets the flags, before the entry is published.
    #[inline]
    pub fn set_flags(self, flags: Flags) {
        self.byte().store(flags.0, Ordering::Relaxed); // Relaxed: the publication shows it.
    }

    /// Takes the entry out of the window; returns whether this call did. It is for the caller to account for it.
    ///
    /// Of all threads that do it, to move the entry to the main region or to retire it, one gets `true`.
    #[inline]
    pub fn leave_window(self) -> bool {
        // Relaxed, twice: which thread is first, the byte itself decides.
        self.flags().is_in_window()
            && self.byte().fetch_and(!WINDOW, Ordering::Relaxed) & WINDOW != 0
    }

    /// Changes the priority of a published entry, if it is `from` where that is given; returns whether it was counted as an
    /// unevictable one, `None` if nothing was changed. A pinned one is counted from then on, and another one is not.
    pub fn change_priority(self, priority: Priority, from: Option<Priority>) -> Option<bool> {
        let mut seen = self.flags();
        loop {
            if from.is_some_and(|from| seen.priority() != from) {
                return None;
            }
            let flags = seen.0 & !(PRIORITY | COUNTED) | Flags::of_priority(priority);
            // Release: pairs with the Acquire of whoever evicts, see `Table::renew_entry`.
            // Relaxed: the next round decides by the value alone.
            let byte = self.byte();
            match byte.compare_exchange(seen.0, flags, Ordering::Release, Ordering::Relaxed) {
                Ok(_) => return Some(seen.0 & COUNTED != 0),
                Err(now) => seen = Flags(now),
            }
        }
    }

    /// Ends that the entry is counted as an unevictable one; returns whether it was, to one thread.
    #[cold]
    pub fn uncount(self) -> bool {
        // Relaxed: which thread is first, the byte itself decides.
        self.byte().fetch_and(!COUNTED, Ordering::Relaxed) & COUNTED != 0
    }

    /// Returns when the entry expires, if it may.
    #[inline]
    pub fn times(self) -> Option<Times<'g>> {
        if self.flags().is_timed() { self.time_words().map(Times) } else { None }
    }
}

/// When an entry expires: two words beside the cell of those that may. Times are nanoseconds of the cache's clock.
///
/// The first is the deadline. Its highest bit says whether maintenance knows of it: in one word with the deadline, so
/// that it is never said of another one; and apart from the second, the last access, which hits change by plain stores.
#[derive(Clone, Copy, Debug)]
pub struct Times<'g>(&'g [AtomicU64; 2]);

/// The times of an entry that is about to be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NewTimes {
    /// When it expires; [`NEVER`] if it does not.
    pub deadline: u64,
    /// When it is made.
    pub now: u64,
}

impl NewTimes {
    /// Returns the words beside the cell.
    pub fn words(self) -> [u64; 2] {
        [self.deadline.min(FAR), self.now]
    }
}

impl<'g> Times<'g> {
    /// Returns the times in two words.
    pub fn of(words: &'g [AtomicU64; 2]) -> Self {
        Self(words)
    }

    fn deadline_word(self) -> &'g AtomicU64 {
        &self.0[0]
    }

    /// Returns when the entry expires if it is not used any more; [`NEVER`] if it does not.
    ///
    /// `idle` is how long it may go unused.
    #[inline]
    pub fn deadline(self, idle: u64) -> u64 {
        let deadline = self.hard_deadline();
        if idle == NEVER { deadline } else { deadline.min(self.used().saturating_add(idle)) }
    }

    /// Returns the deadline that no use moves.
    #[inline]
    pub fn hard_deadline(self) -> u64 {
        // Relaxed: the time itself is all that is read.
        deadline_in(self.deadline_word().load(Ordering::Relaxed))
    }

    /// Changes that deadline; returns what it was. If it was later, maintenance does not know of it any more.
    pub fn set_deadline(self, deadline: u64) -> u64 {
        let deadline = deadline.min(FAR);
        let mut seen = self.deadline_word().load(Ordering::Relaxed); // Relaxed: the exchange decides.
        loop {
            // One that is put off fires at the old time, and is added again then.
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

    /// Returns when the entry was used last.
    #[inline]
    pub fn used(self) -> u64 {
        self.0[1].load(Ordering::Relaxed) // Relaxed: as in `hard_deadline`.
    }

    /// Notes a use, if the last one is more than `grain` ago.
    #[inline]
    pub fn record_use(self, now: u64, grain: u64) {
        if now.saturating_sub(self.used()) > grain {
            self.0[1].store(now, Ordering::Relaxed); // Relaxed: as in `hard_deadline`.
        }
    }

    /// Notes that maintenance knows of the deadline that it reads next; returns whether it did not yet.
    pub fn mark_known(self) -> bool {
        // Relaxed: decides who notes it. It has read the newest deadline, so the next read goes not back.
        self.deadline_word().fetch_or(KNOWN, Ordering::Relaxed) & KNOWN == 0
    }
}

fn deadline_in(word: u64) -> u64 {
    let deadline = word & !KNOWN;
    if deadline == FAR { NEVER } else { deadline }
}

const KNOWN: u64 = 1 << 63;
/// [`NEVER`] beside that bit.
const FAR: u64 = NEVER & !KNOWN;
/// The last time there is, three centuries after the first.
pub const END: u64 = FAR - 1;

#[cfg(all(test, not(any(cortado_loom, cortado_shuttle))))]
mod tests {
    use super::*;
    use crate::table::Table;

    #[test]
    fn flags_are_apart() {
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
    fn one_thread_takes_an_entry_out_of_the_window() {
        let table = Table::new(1, 1, 1).unwrap();
        let fresh = table.prepare(Entry { key: 1, value: 2 }, 7, 0).ok().unwrap();
        fresh.get().metadata().set_flags(Flags::new(true, false, Priority::High));
        assert!(fresh.get().metadata().leave_window() && !fresh.get().metadata().leave_window());
        assert_eq!(fresh.get().metadata().flags(), Flags::new(false, false, Priority::High));
        assert!(fresh.get().metadata().times().is_none());
    }

    #[test]
    fn use_is_recorded_where_the_last_is_more_than_a_grain_ago() {
        let words = NewTimes { deadline: NEVER, now: 7 }.words().map(AtomicU64::new);
        let times = Times::of(&words);
        for (now, used) in [(9, 7), (10, 7), (11, 11), (14, 11), (5, 11)] {
            times.record_use(now, 3);
            assert_eq!(times.used(), used);
        }
    }

    #[test]
    fn a_deadline_is_posted_once_and_again_if_it_comes_earlier() {
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
