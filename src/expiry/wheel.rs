//! `TimingWheel`: tells which hashes fall due when; belongs to whoever maintains the cache.
//!
//! It knows nothing of entries: who is told that a deadline has come finds out what it is worth.
//!
//! A hierarchical timing wheel (Varghese, Lauck: "Hashed and Hierarchical Timing Wheels", 1987; also
//! in Kafka and Caffeine), laid out as a radix heap (Ahuja, Mehlhorn, Orlin, Tarjan: "Faster
//! Algorithms for the Shortest Path Problem", 1990). A time is read as eleven digits of six bits. A
//! timer lies on the level of the highest digit in which its time differs from the wheel's position,
//! and there in the slot of this digit. Digits below the position's are never in use, so nothing
//! turns around: all of a level comes before all of the next one, and the earliest timer lies in the
//! first slot of the lowest level in use.
//!
//! A slot is opened when its earliest timer is due, not before. The position moves up to the present
//! time, and each timer of the slot is handed out if it is due and otherwise moves to a lower level.
//! From this follows:
//!
//! - A timer moves at most once a level, and not at all if the whole slot has passed. Between two
//!   slots time costs nothing, however far it goes.
//! - A slot of the lowest level is one nanosecond, so hand-out is exact and there is no tick. The low
//!   levels are used only by timers that are near when someone asks; asked once a millisecond, the
//!   wheel turns at about this pace.
//! - Since each slot knows its earliest timer, so does the wheel.
//!
//! The slot that is open stays so from call to call until it is used up; this bounds the work of each
//! call, even with a million timers in it. New timers do not go into the open slot but where they belong
//! from the new position.
//!
//! A slot keeps its timers in chunks of one size: adding never copies a long list, and the memory goes
//! chunk by chunk as the timers go.

use std::mem;

/// The deadlines of many entries.
#[derive(Debug, Default)]
pub struct TimingWheel {
    levels: [Level; LEVELS],
    /// What was opened and is not used up. All levels lie beyond it, but for timers added since.
    open: Slot,
    /// Never after `now`. A timer that was before it when it was added lies as if it were at it.
    position: u64,
    now: u64,
    len: usize,
}

/// One deadline: of which entry, and when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timer {
    /// The hash of its key.
    pub hash: u64,
    /// Tells the entry from others of its hash; never followed.
    pub id: usize,
    /// When it is due, in nanoseconds since the cache's clock began.
    pub at: u64,
}

/// The slots of one digit.
#[derive(Debug, Default)]
struct Level {
    /// A bit for each digit whose slot has timers.
    occupied: u64,
    /// These slots, the latest first.
    slots: Vec<Slot>,
}

/// The timers of a slot of time, in no order.
#[derive(Debug)]
struct Slot {
    /// The time of the earliest timer that was ever in it; `u64::MAX` before there is one.
    earliest: u64,
    /// Empty only if all is.
    last: Vec<Timer>,
    full: Vec<Vec<Timer>>,
}

impl TimingWheel {
    /// Makes an empty wheel that stands at 0.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a timer; its time may have passed already.
    pub fn add(&mut self, timer: Timer) {
        let at = timer.at.max(self.position);
        let level = ((at ^ self.position) | 1).ilog2() / DIGIT_BITS;
        let digit = (at >> (level * DIGIT_BITS)) & DIGIT_MASK;
        self.levels[level as usize].add(digit, timer);
        self.len += 1;
    }

    /// Moves on to `now` and calls `on_expired` with timers whose time has come, `most` of them or fewer;
    /// returns how many.
    ///
    /// Each timer is handed out once, and never before its time; earlier slots come before later
    /// ones, but there is no order within a slot. Those beyond `most` come with the next call, even
    /// at the same `now`; at an earlier one too, as time does not go back.
    ///
    /// Moving timers to lower levels has a bound too, so it may be fewer than `most` though more are
    /// due. Then as always [`TimingWheel::next`] tells: when it is later than `now`, all is handed out.
    pub fn advance(&mut self, now: u64, most: usize, mut on_expired: impl FnMut(Timer)) -> usize {
        self.now = self.now.max(now);
        let most_moves = most.saturating_mul(MOVES_PER_TIMER);
        let (mut handed_out, mut moved) = (0, 0);
        while handed_out < most && moved < most_moves {
            let Some(timer) = self.take() else { break };
            if timer.at <= self.now {
                handed_out += 1;
                on_expired(timer);
            } else {
                moved += 1;
                self.add(timer);
            }
        }
        handed_out
    }

    /// Returns when to come again; `None` if there is no timer.
    ///
    /// It is the time of the earliest timer, or, while there is something left to do at once, one that
    /// [`TimingWheel::advance`] has reached already. Then the next call hands timers out or moves them.
    pub fn next(&self) -> Option<u64> {
        let first = self.lowest().and_then(|level| self.levels[level].first());
        let earliest = first.map_or(u64::MAX, |slot| slot.earliest);
        (self.len > 0).then(|| earliest.min(self.open.earliest))
    }

    /// Keeps the timers for which `keep` holds; the memory of the others is given back.
    ///
    /// Goes through all of them.
    pub fn retain(&mut self, mut keep: impl FnMut(&Timer) -> bool) {
        let fresh = Self { position: self.position, now: self.now, ..Self::default() };
        let old = mem::replace(self, fresh);
        let slots = old.levels.into_iter().flat_map(|level| level.slots).chain([old.open]);
        for timer in slots.flat_map(Slot::into_timers) {
            if keep(&timer) {
                self.add(timer);
            }
        }
    }

    /// Returns how many timers there are.
    pub fn timer_count(&self) -> usize {
        self.len
    }

    /// Returns the bytes of its memory, none if it is empty. Looks at each slot.
    pub fn bytes(&self) -> usize {
        self.levels.iter().map(Level::bytes).sum::<usize>() + self.open.bytes()
    }

    /// Takes a timer of the open slot; if that is used up, opens the first one, if it is due.
    fn take(&mut self) -> Option<Timer> {
        if self.open.is_empty() {
            self.open()?;
        }
        let timer = self.open.take()?;
        self.len -= 1;
        Some(timer)
    }

    /// Opens the first slot if it is due. Nothing else may be open.
    fn open(&mut self) -> Option<()> {
        let lowest = self.lowest()?;
        if self.levels[lowest].first()?.earliest > self.now {
            return None;
        }
        let (digit, slot) = self.levels[lowest].take_first()?;
        let shift = lowest as u32 * DIGIT_BITS;
        let start = (((self.position >> shift) & !DIGIT_MASK) | digit) << shift;
        let end = start | ((1 << shift) - 1);
        debug_assert!(
            self.position <= end && start <= self.now,
            "{start}..={end}, {} of {}",
            self.position,
            self.now,
        );
        // Not farther: what is left of the slot must lie beyond it, to be spread on lower levels.
        self.position = end.min(self.now);
        self.open = slot;
        Some(())
    }

    /// Returns the lowest level in use.
    fn lowest(&self) -> Option<usize> {
        self.levels.iter().position(|level| level.occupied != 0)
    }
}

impl Level {
    fn add(&mut self, digit: u64, timer: Timer) {
        let later = self.occupied >> digit >> 1;
        let place = later.count_ones() as usize;
        if self.occupied & (1 << digit) == 0 {
            self.occupied |= 1 << digit;
            self.slots.insert(place, Slot::default());
        }
        self.slots[place].add(timer);
    }

    fn first(&self) -> Option<&Slot> {
        self.slots.last()
    }

    fn take_first(&mut self) -> Option<(u64, Slot)> {
        let slot = self.slots.pop()?;
        let digit = self.occupied.trailing_zeros();
        self.occupied &= !(1 << digit);
        if self.slots.is_empty() {
            self.slots = Vec::new();
        }
        Some((u64::from(digit), slot))
    }

    fn bytes(&self) -> usize {
        let slots = self.slots.iter().map(Slot::bytes).sum::<usize>();
        slots + self.slots.capacity() * size_of::<Slot>()
    }
}

impl Slot {
    fn add(&mut self, timer: Timer) {
        self.earliest = self.earliest.min(timer.at);
        if self.last.len() == CHUNK_TIMERS {
            // Only the first chunk grows, for the sake of slots that have few timers.
            let next = Vec::with_capacity(CHUNK_TIMERS);
            self.full.push(mem::replace(&mut self.last, next));
        }
        self.last.push(timer);
    }

    fn take(&mut self) -> Option<Timer> {
        let timer = self.last.pop()?;
        if self.last.is_empty() {
            match self.full.pop() {
                Some(chunk) => self.last = chunk,
                None => *self = Self::default(),
            }
        }
        Some(timer)
    }

    fn into_timers(self) -> impl Iterator<Item = Timer> {
        self.full.into_iter().chain([self.last]).flatten()
    }

    fn is_empty(&self) -> bool {
        self.last.is_empty()
    }

    fn bytes(&self) -> usize {
        let timers = self.last.capacity() + self.full.len() * CHUNK_TIMERS;
        timers * size_of::<Timer>() + self.full.capacity() * size_of::<Vec<Timer>>()
    }
}

impl Default for Slot {
    fn default() -> Self {
        Self { earliest: u64::MAX, last: Vec::new(), full: Vec::new() }
    }
}

/// A digit has as many values as a word has bits.
const DIGIT_BITS: u32 = u64::BITS.ilog2();
const DIGIT_MASK: u64 = (1 << DIGIT_BITS) - 1;
/// Digits of a time.
const LEVELS: usize = u64::BITS.div_ceil(DIGIT_BITS) as usize;
/// Timers in a chunk.
const CHUNK_TIMERS: usize = 64;
/// Timers that one call may move for each that it may hand out. More than there are levels, so that a
/// call is not in arrears for long, whatever the times are.
const MOVES_PER_TIMER: usize = 16;

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::util::Rng;

    const MS: u64 = 1_000_000;
    const HOUR: u64 = 3_600_000 * MS;

    fn timer(hash: u64, at: u64) -> Timer {
        Timer { hash, id: hash as usize, at }
    }

    fn wheel_of(times: impl IntoIterator<Item = u64>) -> TimingWheel {
        let mut wheel = TimingWheel::new();
        for (hash, at) in (0..).zip(times) {
            wheel.add(timer(hash, at));
        }
        wheel
    }

    /// Returns the times of what one call hands out, sorted.
    fn due(wheel: &mut TimingWheel, now: u64, most: usize) -> Vec<u64> {
        let mut times = Vec::new();
        let count = wheel.advance(now, most, |timer| times.push(timer.at));
        assert_eq!(count, times.len());
        times.sort_unstable();
        times
    }

    fn open_timers(wheel: &TimingWheel) -> usize {
        wheel.open.full.len() * CHUNK_TIMERS + wheel.open.last.len()
    }

    /// Returns a number of any scale.
    fn any_scale(rng: &mut Rng) -> u64 {
        let shift = rng.below(64);
        rng.next_u64() >> shift
    }

    #[test]
    fn a_timer_is_handed_out_at_its_time_and_not_before() {
        for at in [1, 63, 64, MS * 3 / 2, HOUR, 1 << 60, u64::MAX - 1, u64::MAX] {
            let mut wheel = wheel_of([at]);
            assert_eq!(wheel.next(), Some(at));
            assert_eq!(due(&mut wheel, at - 1, 9), []);
            assert_eq!((wheel.timer_count(), wheel.next()), (1, Some(at)));
            assert_eq!(due(&mut wheel, at, 9), [at]);
            assert_eq!((wheel.timer_count(), wheel.next()), (0, None));
            assert_eq!(due(&mut wheel, at, 9), []);
        }
    }

    #[test]
    fn a_timer_is_handed_out_as_it_came() {
        let mut wheel = TimingWheel::new();
        let given = Timer { hash: u64::MAX, id: 7, at: 5 };
        wheel.add(given);
        let mut taken = None;
        assert_eq!(wheel.advance(5, 1, |timer| taken = Some(timer)), 1);
        assert_eq!(taken, Some(given));
    }

    #[test]
    fn timers_of_zero_and_of_the_past_are_due_at_once() {
        let mut wheel = wheel_of([0]);
        assert_eq!(due(&mut wheel, 0, 9), [0]);
        assert_eq!(due(&mut wheel, HOUR, 9), []);
        for at in [HOUR, HOUR - 1, 0, HOUR + 1] {
            wheel.add(timer(1, at));
        }
        assert_eq!(wheel.next(), Some(0));
        assert_eq!(due(&mut wheel, HOUR, 9), [0, HOUR - 1, HOUR]);
        assert_eq!(due(&mut wheel, HOUR + 1, 9), [HOUR + 1]);
    }

    #[test]
    fn timers_of_the_end_of_time_are_handed_out_there() {
        let mut wheel = wheel_of([u64::MAX, u64::MAX, u64::MAX - 1]);
        assert_eq!(due(&mut wheel, u64::MAX - 1, 9), [u64::MAX - 1]);
        assert_eq!(due(&mut wheel, u64::MAX, 9), [u64::MAX, u64::MAX]);
        wheel.add(timer(1, u64::MAX));
        wheel.add(timer(1, 0));
        assert_eq!(due(&mut wheel, u64::MAX, 9), [0, u64::MAX]);
    }

    #[test]
    fn time_does_not_go_back() {
        let mut wheel = wheel_of([10, 20, 30]);
        assert_eq!(due(&mut wheel, 20, 1), [10]);
        wheel.retain(|_| true);
        assert_eq!(due(&mut wheel, 0, 9), [20]);
        wheel.add(timer(1, 15));
        assert_eq!(due(&mut wheel, 12, 9), [15]);
        assert_eq!(due(&mut wheel, 29, 9), []);
        assert_eq!(due(&mut wheel, 30, 9), [30]);
    }

    #[test]
    fn what_is_beyond_the_bound_comes_with_the_next_call() {
        let mut wheel = wheel_of(1..=1000);
        assert_eq!(due(&mut wheel, HOUR, 0), []);
        let mut times = Vec::new();
        for _ in 0..10 {
            let some = due(&mut wheel, HOUR, 100);
            assert_eq!(some.len(), 100);
            times.extend(some);
        }
        times.sort_unstable();
        assert!(times.into_iter().eq(1..=1000) && wheel.timer_count() == 0);
    }

    #[test]
    fn one_call_does_not_move_a_crowd() {
        // All in one slot; one of them is due long before the others.
        let mut wheel = wheel_of((0..10_000).map(|i| (1 << 60) + HOUR + i * MS));
        wheel.add(timer(1, 1 << 60));
        let (mut calls, mut found) = (0, 0);
        while wheel.next().unwrap() <= 1 << 60 {
            let before = open_timers(&wheel);
            found += wheel.advance(1 << 60, 10, |timer| assert_eq!(timer.at, 1 << 60));
            calls += 1;
            let after = open_timers(&wheel);
            assert!(calls == 1 || before - after <= 10 * (MOVES_PER_TIMER + 1), "{before} {after}");
        }
        assert_eq!((found, wheel.timer_count()), (1, 10_000));
        assert!((10_000 / (10 * MOVES_PER_TIMER)..100).contains(&calls), "{calls} calls");
        // They lie apart now, so that it takes few calls for each.
        calls = 0;
        while let Some(next) = wheel.next() {
            found += wheel.advance(next, 10, |timer| assert!(timer.at <= next));
            calls += 1;
            assert!(calls < 12_000);
        }
        assert_eq!(found, 10_001);
    }

    #[test]
    fn huge_steps_are_like_small_ones() {
        let mut wheel = TimingWheel::new();
        for step in 0..64 {
            let now = u64::MAX >> (63 - step);
            wheel.add(timer(1, now));
            assert_eq!(wheel.advance(now, 1, |_| ()), 1);
        }
        let mut wheel = wheel_of([1, HOUR, u64::MAX / 2, u64::MAX]);
        assert_eq!(wheel.advance(u64::MAX, 4, |_| ()), 4);
        assert_eq!(wheel.next(), None);
    }

    #[test]
    fn going_by_next_alone_takes_few_steps() {
        let seed = 1;
        println!("seed {seed}");
        let mut rng = Rng::new(seed);
        let mut wheel = wheel_of((0..10_000).map(|_| any_scale(&mut rng)));
        let (mut count, mut steps) = (0, 0);
        while let Some(next) = wheel.next() {
            count += wheel.advance(next, 64, |timer| assert!(timer.at <= next));
            steps += 1;
        }
        assert_eq!(count, 10_000);
        // One for each time, and a few to move the timers that lie close.
        assert!(steps < 12_000, "{steps} steps");
    }

    #[test]
    fn a_wheel_does_what_a_sorted_set_does() {
        for seed in 0..40 {
            println!("seed {seed}");
            let mut rng = Rng::new(seed);
            let (mut wheel, mut model) = (TimingWheel::new(), BTreeSet::new());
            let mut now = 0u64;
            for hash in 0..1000 {
                // Few at a time in some runs, many in others.
                for i in 0..rng.below(2 + seed % 4 * 4) {
                    let at = match rng.below(8) {
                        0 => now.saturating_sub(any_scale(&mut rng)),
                        1 => any_scale(&mut rng),
                        2 => now.saturating_add(rng.below(100)),
                        _ => now.saturating_add(any_scale(&mut rng) >> 12),
                    };
                    wheel.add(timer(hash * 100 + i, at));
                    model.insert((at, hash * 100 + i));
                }
                now = match rng.below(8) {
                    0 => now.saturating_add(any_scale(&mut rng) >> 10),
                    1 => wheel.next().unwrap_or(0).max(now),
                    2 => now,
                    _ => now.saturating_add(any_scale(&mut rng) >> 20),
                };
                let most = rng.below(40) as usize;
                let count = wheel.advance(now, most, |timer| {
                    assert!(timer.at <= now, "{timer:?} at {now}");
                    assert!(model.remove(&(timer.at, timer.hash)), "{timer:?} is not there");
                });
                assert!(count <= most);
                if rng.below(50) == 0 {
                    let odd = rng.below(2);
                    wheel.retain(|timer| timer.hash % 2 == odd);
                    model.retain(|(_, hash)| hash % 2 == odd);
                }
                let earliest = model.first().map(|&(at, _)| at);
                match wheel.next() {
                    // All is done: it is the very time of the earliest.
                    Some(next) if next > now => assert_eq!(Some(next), earliest),
                    Some(next) => assert!(earliest.is_some_and(|at| next <= at)),
                    None => assert_eq!(earliest, None),
                }
                assert_eq!(wheel.timer_count(), model.len());
            }
            let last = wheel.advance(u64::MAX, usize::MAX, |timer| {
                assert!(model.remove(&(timer.at, timer.hash)), "{timer:?} is not there");
            });
            println!("{last} at the end");
            assert!(model.is_empty() && wheel.timer_count() == 0);
            assert_eq!(wheel.bytes(), 0);
        }
    }

    #[test]
    fn memory_goes_with_the_notes() {
        let mut rng = Rng::new(2);
        let mut wheel = wheel_of((0..100_000).map(|_| rng.below(HOUR)));
        let full = wheel.bytes();
        assert!((24 * 100_000..32 * 100_000).contains(&full), "{full} bytes");
        let half = wheel.advance(HOUR / 2, usize::MAX, |_| ());
        assert!(wheel.bytes() < 32 * (100_000 - half) + 100_000, "{} bytes", wheel.bytes());
        wheel.retain(|timer| timer.hash % 100 == 0);
        assert!(wheel.bytes() < full / 20, "{} bytes", wheel.bytes());
        let _ = wheel.advance(HOUR, usize::MAX, |_| ());
        assert_eq!((wheel.timer_count(), wheel.bytes()), (0, 0));
    }

    #[test]
    fn memory_is_that_of_spans_and_chunks() {
        let mut wheel = wheel_of([HOUR; 3 * CHUNK_TIMERS + 8]);
        let slot = wheel.levels.iter().find_map(Level::first).unwrap();
        assert_eq!((slot.full.len(), slot.last.len()), (3, 8));
        let timers = (3 * CHUNK_TIMERS + slot.last.capacity()) * size_of::<Timer>();
        let lists = slot.full.capacity() * size_of::<Vec<Timer>>();
        let slots = |wheel: &TimingWheel| {
            let places: usize = wheel.levels.iter().map(|level| level.slots.capacity()).sum();
            places * size_of::<Slot>()
        };
        assert_eq!(wheel.bytes(), timers + lists + slots(&wheel));
        assert_eq!(due(&mut wheel, HOUR, 1), [HOUR]);
        assert_eq!((open_timers(&wheel), slots(&wheel)), (3 * CHUNK_TIMERS + 7, 0));
        assert_eq!(wheel.bytes(), timers + lists);
    }

    #[test]
    fn of_a_million_timers_none_is_lost() {
        const COUNT: u64 = 1_000_000;
        let seed = 3;
        println!("seed {seed}");
        let mut rng = Rng::new(seed);
        let mut wheel = wheel_of((0..COUNT).map(|_| rng.below(HOUR)));
        assert!(wheel.bytes() < 32 * COUNT as usize, "{} bytes", wheel.bytes());
        let (mut count, mut sum) = (0, 0);
        let step = HOUR / 1000;
        for now in (0..=HOUR).step_by(step as usize) {
            while wheel.next().is_some_and(|next| next <= now) {
                count += wheel.advance(now, 1000, |timer| {
                    assert!(timer.at <= now && timer.at + step > now, "{timer:?} at {now}");
                    sum += timer.hash;
                }) as u64;
            }
        }
        assert_eq!((count, sum), (COUNT, COUNT * (COUNT - 1) / 2));
        assert_eq!((wheel.timer_count(), wheel.bytes()), (0, 0));
    }
}
