//! `Entry`: key, value, cost and marks, as stored.

use crate::{
    buckets::EntryRef,
    budget::{CHARGE_DIGITS, ROUNDED_FROM},
    config::{PULSES_PER_AGE, Priority},
    due::NEVER,
    sync::atomic::{AtomicU32, AtomicU64, Ordering},
};

/// What a slot of the table points to.
///
/// For a `u64` key and a `u64` value that is 24 bytes.
#[repr(align(8))]
pub struct Entry<K, V> {
    /// What readers note; never has the window's mark.
    marks: AtomicU32,
    /// The charge; whether there are times beside the cell; and the window's mark, which is maintenance's: a
    /// reader that notes a hit with a plain store must not bring it back.
    charge: AtomicU32,
    /// The key.
    pub key: K,
    /// The value.
    pub value: V,
}

impl<K, V> Entry<K, V> {
    /// Makes an entry that starts in the window.
    pub fn new(key: K, value: V, charge: Charge, now: u32) -> Self {
        let marks = AtomicU32::new(Marks::new(0, now).0 & !WINDOW);
        Self { marks, charge: AtomicU32::new(charge.0 | WINDOW), key, value }
    }

    /// Gives an entry that is not published yet its priority.
    pub fn set_priority(&self, priority: Priority) {
        self.store(self.marks().with_priority(priority)); // Unpublished.
    }

    /// Returns the cost that was charged for the entry.
    #[inline]
    pub fn cost(&self) -> u64 {
        // Relaxed: the charge never changes, and the mark beside it is a hint.
        Charge(self.charge.load(Ordering::Relaxed) & !(WINDOW | TIMED)).get()
    }

    /// Returns whether the entry may expire: then there are times beside its cell.
    #[inline]
    pub fn is_timed(&self) -> bool {
        self.charge.load(Ordering::Relaxed) & TIMED != 0 // Relaxed: never changes once it is shared.
    }

    /// Makes it one that may expire, before it is published.
    pub fn set_timed(&self) {
        self.charge.fetch_or(TIMED, Ordering::Relaxed); // Relaxed: unpublished.
    }

    /// Notes an access at pulse `now`; returns whether it is the first of this pulse.
    ///
    /// An entry that is used all the time is written once a pulse, by all threads together.
    #[inline]
    pub fn touch(&self, now: u32) -> bool {
        // Relaxed: the marks guide the choice of victims and publish nothing.
        let seen = Marks(self.marks.load(Ordering::Relaxed));
        let is_news = seen.is_news(now);
        if is_news {
            // A store and no exchange, which would cost as much as the rest of a hit. Of hits that meet
            // here one counts, and one that meets `clear_touched` may undo it: it was a hit.
            self.store(seen.hit(now));
        }
        is_news
    }

    /// Sets what the entry is charged, before it is published.
    pub fn set_charge(&self, charge: Charge) {
        // Relaxed, twice: unpublished.
        let marks = self.charge.load(Ordering::Relaxed) & (WINDOW | TIMED);
        self.charge.store(marks | charge.0, Ordering::Relaxed);
    }

    /// Returns whether the entry is in the window.
    #[inline]
    pub fn is_in_window(&self) -> bool {
        self.marks().is_in_window()
    }

    /// Returns whether the entry was accessed since it was inserted, moved or given a second turn.
    #[inline]
    pub fn is_touched(&self) -> bool {
        self.marks().is_touched()
    }

    /// Forgets that the entry was touched.
    pub fn clear_touched(&self) {
        self.marks.fetch_and(!TOUCHED, Ordering::Relaxed); // Relaxed: see `touch`.
    }

    /// Moves the entry from the window to the main region; returns whether this call did.
    ///
    /// Of all who take it out of the window, to move it or to bury it, one is told so.
    pub fn leave_window(&self) -> bool {
        // Relaxed, twice: see `touch`; who is first, the word itself decides.
        let was_in = self.charge.load(Ordering::Relaxed) & WINDOW != 0
            && self.charge.fetch_and(!WINDOW, Ordering::Relaxed) & WINDOW != 0;
        if was_in {
            self.clear_touched();
        }
        was_in
    }

    /// Takes the place of `old`, unpublished as it is: what updates a window entry is in the window,
    /// and so on; its priority is its own. An update is an access; returns whether it is the first of
    /// this pulse.
    pub fn succeed(&self, old: &Self, now: u32) -> bool {
        let seen = old.marks();
        let is_news = seen.is_news(now);
        let new = if is_news { seen.hit(now) } else { seen };
        self.store(new.with_priority(self.marks().priority())); // Unpublished, as is the next.
        // Both ways, for it may have taken another's place in an earlier try.
        let charge = self.charge.load(Ordering::Relaxed) & !WINDOW; // Relaxed: unpublished.
        self.charge.store(charge | (seen.0 & WINDOW), Ordering::Relaxed); // Relaxed: unpublished.
        is_news
    }

    /// Returns all marks, of one moment.
    #[inline]
    pub fn marks(&self) -> Marks {
        // Relaxed, twice: see `touch`.
        let window = self.charge.load(Ordering::Relaxed) & WINDOW;
        Marks(self.marks.load(Ordering::Relaxed) | window)
    }

    #[inline]
    fn store(&self, marks: Marks) {
        self.marks.store(marks.0 & !WINDOW, Ordering::Relaxed); // Relaxed: see `touch`.
    }
}

impl<'g, K, V> EntryRef<'g, Entry<K, V>> {
    /// Returns when the entry expires, if it may.
    #[inline]
    pub fn times(self) -> Option<Times<'g>> {
        if self.is_timed() { self.time_words().map(Times) } else { None }
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
            // One that is put off is met at the old time, and noted anew then.
            let is_known = deadline >= seen & !NOTED || cfg!(cortado_mutant = "due_keeps_note");
            let word = deadline | if is_known { seen & NOTED } else { 0 };
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
    pub fn touch(self, now: u64, grain: u64) {
        if now.saturating_sub(self.used()) > grain {
            self.0[1].store(now, Ordering::Relaxed); // Relaxed: as in `hard_deadline`.
        }
    }

    /// Notes that maintenance knows of the deadline that it reads next; returns whether it did not yet.
    pub fn note(self) -> bool {
        // Relaxed: decides who notes it. It has read the newest deadline, so the next read goes not back.
        self.deadline_word().fetch_or(NOTED, Ordering::Relaxed) & NOTED == 0
    }
}

fn deadline_in(word: u64) -> u64 {
    let deadline = word & !NOTED;
    if deadline == FAR { NEVER } else { deadline }
}

/// What an entry says about its use: where it is, whether and how often it was hit, and when last;
/// and how much the user cares.
#[derive(Clone, Copy, Debug)]
pub struct Marks(u32);

impl Marks {
    /// Makes the marks of an entry that comes to the window at pulse `now` with so many hits.
    pub fn new(hits: u8, now: u32) -> Self {
        Self(WINDOW | u32::from(hits) << HITS_AT | (now & LAST))
    }

    /// Returns the marks of an entry that has just been hit for the `hits`th time.
    pub fn seen(self, hits: u8, now: u32) -> Self {
        let stays = self.0 & (WINDOW | PRIORITY);
        Self(stays | TOUCHED | u32::from(hits) << HITS_AT | (now & LAST))
    }

    /// Returns the marks of an entry of that priority.
    pub fn with_priority(self, priority: Priority) -> Self {
        Self((self.0 & !PRIORITY) | (priority as u32) << LAST_BITS)
    }

    /// Returns the priority.
    #[inline]
    pub fn priority(self) -> Priority {
        const BY_NUMBER: [Priority; 4] =
            [Priority::Normal, Priority::Low, Priority::High, Priority::Pinned];
        BY_NUMBER[((self.0 & PRIORITY) >> LAST_BITS) as usize]
    }

    /// Returns whether the entry is not to be evicted.
    #[inline]
    pub fn is_pinned(self) -> bool {
        self.priority() == Priority::Pinned
    }

    /// Returns the marks without the one for being touched.
    pub fn untouched(self) -> Self {
        Self(self.0 & !TOUCHED)
    }

    /// Returns the marks of an entry that has just come to the main region.
    pub fn in_main(self) -> Self {
        Self(self.0 & !(TOUCHED | WINDOW))
    }

    /// Returns whether the entry is in the window.
    #[inline]
    pub fn is_in_window(self) -> bool {
        self.0 & WINDOW != 0
    }

    /// Returns whether the entry was accessed since it was inserted, moved or given a second turn.
    #[inline]
    pub fn is_touched(self) -> bool {
        self.0 & TOUCHED != 0
    }

    /// Returns how many pulses before `now` the entry was last accessed.
    #[inline]
    pub fn idle(self, now: u32) -> u32 {
        now.wrapping_sub(self.0) & LAST
    }

    /// Returns how often the entry was hit of late, from 0 to 15, a pulse counting once.
    ///
    /// Halved whenever the clock enters another age, as the counters of the sketch are.
    #[inline]
    pub fn hits(self, now: u32) -> u8 {
        let age = |pulse: u32| (pulse.wrapping_sub(LAG) & LAST) >> AGE_BITS;
        let ages = age(now).wrapping_sub(age(self.0)) & (LAST >> AGE_BITS);
        ((self.0 & HITS) >> HITS_AT >> ages.min(u32::BITS - 1)) as u8
    }

    /// Returns whether a hit at pulse `now` would change anything.
    #[inline]
    fn is_news(self, now: u32) -> bool {
        self.0 & (TOUCHED | LAST) != TOUCHED | (now & LAST)
    }

    /// Returns what a hit at pulse `now` makes of these marks.
    #[inline]
    fn hit(self, now: u32) -> Self {
        self.seen((self.hits(now) + 1).min(MOST_HITS as u8), now)
    }
}

/// A cost in 30 bits: exact below 512 MiB, from there on rounded up by less than one part in 4
/// million.
///
/// What is charged is what is refunded, so sums are exact in either case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Charge(u32);

impl Charge {
    /// That of a cost of 0.
    pub const NOTHING: Self = Self(0);

    /// Returns the charge of a cost; `None` if its rounding passes the end of the numbers.
    pub fn new(cost: u64) -> Option<Self> {
        if cost < u64::from(LARGE) {
            return Some(Self(cost as u32));
        }
        let mut shift = 64 - cost.leading_zeros() - DIGITS;
        let mut digits = (cost >> shift) + u64::from(cost & ((1 << shift) - 1) != 0);
        if digits == 1 << DIGITS {
            digits >>= 1;
            shift += 1;
        }
        if shift + DIGITS > u64::BITS {
            return None;
        }
        Some(Self(LARGE | (shift << DIGITS) | digits as u32))
    }

    /// Returns the cost that is charged.
    #[inline]
    pub fn get(self) -> u64 {
        if self.0 & LARGE == 0 {
            return u64::from(self.0);
        }
        let digits = u64::from(self.0 & ((1 << DIGITS) - 1));
        digits << ((self.0 & !LARGE) >> DIGITS)
    }
}

/// Two bits beside the charge.
const WINDOW: u32 = 1 << 31;
const TIMED: u32 = 1 << 30;
const TOUCHED: u32 = 1 << 30;
/// The pulse of the last access.
const LAST: u32 = (1 << LAST_BITS) - 1;
const LAST_BITS: u32 = 24;
/// Two bits above it: the priority, by its number.
const PRIORITY: u32 = 3 << LAST_BITS;
/// Four bits between those: the hits of late.
const HITS: u32 = MOST_HITS << HITS_AT;
const HITS_AT: u32 = LAST_BITS + 2;
const MOST_HITS: u32 = 15;
const AGE_BITS: u32 = PULSES_PER_AGE.ilog2();
/// Pulses by which entries age later than the sketch begins to, which takes that long: were it the other
/// way round, those that wait outside would for a while seem to be asked for more often than those within.
const LAG: u32 = PULSES_PER_AGE / 32;

/// Marks a charge as rounded: 6 bits of shift and 23 of digits.
const LARGE: u32 = ROUNDED_FROM as u32;
const DIGITS: u32 = CHARGE_DIGITS;

const NOTED: u64 = 1 << 63;
/// [`NEVER`] beside that bit.
const FAR: u64 = NEVER & !NOTED;
/// The last time there is, three centuries after the first.
pub const END: u64 = FAR - 1;

#[cfg(all(test, not(any(cortado_loom, cortado_shuttle))))]
mod tests {
    use super::*;

    fn entry() -> Entry<u64, u64> {
        Entry::new(1, 2, Charge::new(3).unwrap(), 10)
    }

    #[test]
    fn entry_of_two_words_takes_three() {
        assert_eq!(size_of::<Entry<u64, u64>>(), 24);
        assert_eq!(align_of::<Entry<u8, u8>>(), 8);
    }

    #[test]
    fn only_the_first_access_of_a_pulse_counts() {
        let entry = entry();
        assert!(!entry.is_touched());
        assert!(entry.touch(10));
        assert!(!entry.touch(10));
        assert!(entry.touch(11));
        assert!(entry.is_touched() && entry.is_in_window());
    }

    #[test]
    fn hits_count_once_a_pulse_and_half_after_every_age() {
        const AGE: u32 = PULSES_PER_AGE + LAG;
        let entry = Entry::new(1, 2, Charge::new(3).unwrap(), LAG);
        assert_eq!(entry.marks().hits(LAG), 0);
        for now in [1, 1, 2, 3] {
            entry.touch(LAG + now);
        }
        assert_eq!((entry.marks().hits(LAG + 3), entry.marks().hits(AGE - 1)), (3, 3));
        assert_eq!((entry.marks().hits(AGE), entry.marks().hits(AGE + PULSES_PER_AGE)), (1, 0));
        assert_eq!(entry.marks().hits(100 * AGE), 0);
        entry.leave_window();
        entry.touch(AGE);
        assert_eq!(entry.marks().hits(AGE), 2, "one of three, and one more");
        (1..100).for_each(|pulse| _ = entry.touch(AGE + pulse));
        assert_eq!(entry.marks().hits(AGE + 99), 15);
    }

    #[test]
    fn update_is_an_access_and_stays_in_its_region() {
        let (old, new) = (entry(), entry());
        old.leave_window();
        assert!(new.succeed(&old, 11));
        assert!(new.is_touched() && !new.is_in_window());
        assert_eq!(new.marks().hits(11), 1);
        assert!(!entry().succeed(&new, 11));
        assert!(entry().succeed(&new, 12));
    }

    #[test]
    fn priority_stays_through_hits_and_moves_and_is_no_other_mark() {
        for priority in [Priority::Low, Priority::Normal, Priority::High, Priority::Pinned] {
            let entry = entry();
            entry.set_priority(priority);
            (10..40).for_each(|pulse| _ = entry.touch(pulse));
            entry.leave_window();
            entry.touch(LAST);
            let marks = entry.marks();
            assert_eq!(marks.priority(), priority);
            assert_eq!((marks.idle(LAST), marks.is_in_window()), (0, false));
            let newer = self::entry();
            newer.succeed(&entry, LAST);
            assert_eq!(newer.marks().priority(), Priority::Normal);
        }
    }

    #[test]
    fn cost_is_none_of_the_marks_beside_it() {
        for cost in [0, 3, (1 << 29) - 1, 1 << 40] {
            let entry = Entry::new(1, 2, Charge::new(cost).unwrap(), 0);
            assert!(!entry.is_timed());
            for _ in 0..2 {
                entry.set_timed();
                assert_eq!((entry.cost(), entry.is_timed()), (cost, true));
                assert!(entry.is_in_window());
            }
            assert!(entry.leave_window() && !entry.leave_window());
            assert_eq!((entry.cost(), entry.is_timed()), (cost, true));
        }
    }

    #[test]
    fn charge_is_set_and_its_marks_stay() {
        let entry = entry();
        entry.set_timed();
        entry.set_charge(Charge::new(1 << 40).unwrap());
        assert_eq!((entry.cost(), entry.is_timed(), entry.is_in_window()), (1 << 40, true, true));
        entry.leave_window();
        entry.set_charge(Charge::new(7).unwrap());
        assert_eq!((entry.cost(), entry.is_timed(), entry.is_in_window()), (7, true, false));
    }

    #[test]
    fn update_takes_over_the_window_of_its_last_try_and_keeps_its_cost() {
        let (in_window, in_main) = (entry(), entry());
        in_main.leave_window();
        let new = Entry::new(1, 2, Charge::new(7).unwrap(), 10);
        for (old, is_in_window) in [(&in_main, false), (&in_window, true), (&in_window, true)] {
            new.succeed(old, 11);
            assert_eq!((new.is_in_window(), new.cost()), (is_in_window, 7));
        }
    }

    #[test]
    fn each_mark_is_taken_off_alone() {
        for priority in [Priority::Low, Priority::Normal, Priority::High, Priority::Pinned] {
            let marks = Marks::new(3, 9).with_priority(priority).seen(5, 10);
            let all = |marks: Marks| {
                (marks.is_touched(), marks.is_in_window(), marks.idle(10), marks.hits(10))
            };
            assert_eq!(all(marks), (true, true, 0, 5));
            assert_eq!(all(marks.untouched()), (false, true, 0, 5));
            assert_eq!(all(marks.untouched().untouched()), (false, true, 0, 5));
            assert_eq!(all(marks.in_main()), (false, false, 0, 5));
            assert_eq!(all(marks.untouched().in_main().in_main()), (false, false, 0, 5));
            for marks in [marks, marks.untouched(), marks.in_main()] {
                assert_eq!(marks.priority(), priority);
                assert_eq!(marks.is_pinned(), priority == Priority::Pinned);
            }
        }
    }

    #[test]
    fn use_is_noted_where_the_last_is_more_than_a_grain_ago() {
        let words = NewTimes { deadline: NEVER, now: 7 }.words().map(AtomicU64::new);
        let times = Times::of(&words);
        for (now, used) in [(9, 7), (10, 7), (11, 11), (14, 11), (5, 11)] {
            times.touch(now, 3);
            assert_eq!(times.used(), used);
        }
    }

    #[test]
    fn leaving_the_window_forgets_the_touch_and_keeps_the_time() {
        let entry = entry();
        entry.touch(12);
        entry.leave_window();
        assert!(!entry.is_touched() && !entry.is_in_window());
        assert_eq!(entry.marks().idle(20), 8);
    }

    #[test]
    fn idle_time_survives_the_wrap_of_the_pulse() {
        let entry = entry();
        entry.touch(LAST);
        assert_eq!(entry.marks().idle(LAST.wrapping_add(3)), 3);
        assert_eq!(entry.marks().hits(LAST.wrapping_add(3)), 1);
        assert_eq!(entry.marks().hits(LAST.wrapping_add(3 + LAG)), 0, "another age has begun");
    }

    #[test]
    fn a_deadline_is_noted_once_and_anew_if_it_comes_earlier() {
        let words = NewTimes { deadline: 50, now: 7 }.words().map(AtomicU64::new);
        let times = Times::of(&words);
        assert!(times.note() && !times.note());
        assert_eq!((times.set_deadline(60), times.hard_deadline()), (50, 60));
        times.touch(9, 1);
        assert!(!times.note(), "it is met at 50");
        assert_eq!((times.set_deadline(NEVER), times.hard_deadline()), (60, NEVER));
        assert!(!times.note());
        assert_eq!((times.set_deadline(40), times.hard_deadline()), (NEVER, 40));
        assert!(times.note() && !times.note());
        assert_eq!((times.deadline(NEVER), times.deadline(3), times.used()), (40, 12, 9));
        for deadline in [NEVER, NEVER - 1] {
            let words = NewTimes { deadline, now: 0 }.words().map(AtomicU64::new);
            assert_eq!(Times::of(&words).deadline(NEVER), NEVER);
        }
    }

    #[test]
    fn small_costs_are_charged_exactly() {
        for cost in [0, 1, 1000, (1 << 29) - 1] {
            assert_eq!(Charge::new(cost).unwrap().get(), cost);
        }
    }

    #[test]
    fn large_costs_are_charged_a_little_more_and_never_less() {
        let mut cost = 1 << 29;
        while cost < u64::MAX / 3 {
            for near in [cost - 1, cost, cost + 1, cost + cost / 7] {
                let charged = Charge::new(near).unwrap().get();
                assert!(charged >= near && charged - near <= near >> 22, "{near} -> {charged}");
            }
            cost *= 2;
        }
        assert_eq!(Charge::new(u64::MAX), None);
        assert_eq!(Charge::new(1 << 63).unwrap().get(), 1 << 63);
    }
}
