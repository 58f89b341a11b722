//! `TimingWheel`: a hierarchical timing wheel that hands out timers when they expire.
//!
//! The wheel knows nothing of entries: a timer names a hash and an id, and the caller checks
//! whether that entry still exists and has expired. The wheel is not synchronized; the thread that
//! maintains the cache owns it.
//!
//! The structure is a hierarchical timing wheel (Varghese, Lauck: "Hashed and Hierarchical Timing
//! Wheels", 1987; also in Kafka and Caffeine), laid out as a radix heap (Ahuja, Mehlhorn, Orlin,
//! Tarjan: "Faster Algorithms for the Shortest Path Problem", 1990). A time is read as eleven
//! digits of six bits. A timer lies on the level of the highest digit in which its time differs
//! from the wheel's position, in the slot of that digit. Digits below the position's are never in
//! use, so no level wraps around: all timers of a level are earlier than all of the next one, and
//! the earliest timer lies in the first slot of the lowest level in use.
//!
//! A slot is opened when its earliest timer has expired, not before. The position advances to the
//! present time. Each timer of the slot is handed out if it has expired, and otherwise moves to a
//! lower level. It follows that:
//!
//! - A timer moves at most once per level, and not at all if its whole slot has passed. Advancing
//!   from one slot to the next costs the same however much time lies between them.
//! - A slot of the lowest level is one nanosecond, so hand-out is exact and there is no tick. Only
//!   timers that are near at the time of a call use the low levels; a wheel that is advanced once a
//!   millisecond effectively has slots of about a millisecond.
//! - Each slot knows its earliest timer, and so does the wheel.
//!
//! An open slot stays open across calls until it is empty. This bounds the work of each call, even
//! with a million timers in one slot. New timers are not added to the open slot, but to the slot
//! that follows from the new position.
//!
//! A slot stores its timers in chunks of equal size: adding a timer never copies a long list, and
//! memory is freed chunk by chunk as timers are handed out.

use std::mem;

/// Bits of a digit: a digit has as many values as [`Level::occupied`] has bits.
const DIGIT_BITS: u32 = u64::BITS.ilog2();
const DIGIT_MASK: u64 = (1 << DIGIT_BITS) - 1;
/// Levels of the wheel: one for each digit of a time.
const LEVELS: usize = u64::BITS.div_ceil(DIGIT_BITS) as usize;
/// Timers in a chunk: 64 of 24 bytes are 1.5 KiB, which keeps the chunk's header below 2 %.
const CHUNK_TIMERS: usize = 64;
/// Timers that a call may move for each timer that it may hand out. Greater than [`LEVELS`], so
/// that a call does not fall behind for long, whatever the times are.
const MOVES_PER_TIMER: usize = 16;

/// The deadlines of many entries.
#[derive(Debug, Default)]
pub struct TimingWheel {
    levels: [Level; LEVELS],
    /// The open slot. The timers of all levels are later, except those added since it was opened.
    open: Slot,
    /// The time that levels and slots are relative to; at most `now`. A timer with an earlier time
    /// is placed as if its time were the position.
    position: u64,
    now: u64,
    len: usize,
}

/// The deadline of one entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timer {
    /// The hash of the entry's key.
    pub hash: u64,
    /// Distinguishes the entry from others with this hash; never dereferenced.
    pub id: usize,
    /// When the timer expires, in nanoseconds since the start of the cache's clock.
    pub at: u64,
}

/// The slots of one digit position.
#[derive(Debug, Default)]
struct Level {
    /// A bit for each digit whose slot has timers.
    occupied: u64,
    /// The slots with timers, the latest first.
    slots: Vec<Slot>,
}

/// The timers of one range of time, in no order.
#[derive(Debug)]
struct Slot {
    /// The time of the earliest timer that was ever in the slot; `u64::MAX` before the first.
    earliest: u64,
    /// The chunk that timers are added to and taken from; empty only if the slot is.
    last: Vec<Timer>,
    /// The other chunks, each with [`CHUNK_TIMERS`] timers.
    full: Vec<Vec<Timer>>,
}

impl TimingWheel {
    /// Makes an empty wheel at time 0.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a timer; its time may already have passed.
    pub fn add(&mut self, timer: Timer) {
        let at = timer.at.max(self.position);
        let level = ((at ^ self.position) | 1).ilog2() / DIGIT_BITS;
        let digit = (at >> (level * DIGIT_BITS)) & DIGIT_MASK;
        self.levels[level as usize].add(digit, timer);
        self.len += 1;
    }

    /// Advances to `now` and calls `on_expired` with at most `most` expired timers; returns how
    /// many.
    ///
    /// Each timer is handed out once, and never before its time. Earlier slots are handed out
    /// before later ones; there is no order within a slot. Timers beyond `most` are handed out by
    /// the next call, even with an equal or earlier `now`: time does not go back.
    ///
    /// The number of timers that one call moves to lower levels is bounded, too, so a call may hand
    /// out fewer than `most` timers although more have expired. All expired timers are handed out
    /// once [`TimingWheel::next`] is later than `now`.
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

    /// Returns when to call [`TimingWheel::advance`] again; `None` if there is no timer.
    ///
    /// This is the time of the earliest timer, or, while work is left, a time that `advance` has
    /// already reached. In the latter case the next call hands out or moves timers.
    pub fn next(&self) -> Option<u64> {
        let first = self.lowest().and_then(|level| self.levels[level].first());
        let earliest = first.map_or(u64::MAX, |slot| slot.earliest);
        (self.len > 0).then(|| earliest.min(self.open.earliest))
    }

    /// Retains the timers for which `keep` returns `true` and frees the memory of the others.
    ///
    /// Visits every timer.
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

    /// Returns the number of timers.
    pub fn timer_count(&self) -> usize {
        self.len
    }

    /// Returns the size of the heap memory in bytes; 0 for an empty wheel. Visits every slot.
    pub fn bytes(&self) -> usize {
        self.levels.iter().map(Level::bytes).sum::<usize>() + self.open.bytes()
    }

    /// Takes a timer from the open slot; if that is empty, opens the first slot that has expired.
    fn take(&mut self) -> Option<Timer> {
        if self.open.is_empty() {
            self.open()?;
        }
        let timer = self.open.take()?;
        self.len -= 1;
        Some(timer)
    }

    /// Opens the first slot if its earliest timer has expired. No other slot may be open.
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
        // At most `now`: the slot's remaining timers must be later than the position, so that they
        // move to lower levels.
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
            // Only the first chunk grows on demand: most slots have few timers.
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

    /// Returns the sorted times of the timers that one call hands out.
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
    fn timer_is_handed_out_unchanged() {
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
    fn timers_beyond_the_limit_are_handed_out_by_the_next_call() {
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
    fn one_call_moves_a_bounded_number_of_timers() {
        // All in one slot; one of them expires long before the others.
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
        // They are in separate slots now, so each takes few calls.
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
        // One for each time, and a few to move timers that are close together.
        assert!(steps < 12_000, "{steps} steps");
    }

    #[test]
    fn wheel_matches_a_sorted_set() {
        for seed in 0..40 {
            println!("seed {seed}");
            let mut rng = Rng::new(seed);
            let (mut wheel, mut model) = (TimingWheel::new(), BTreeSet::new());
            let mut now = 0u64;
            for hash in 0..1000 {
                // Few timers at a time in some runs, many in others.
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
                    // No work is left: `next` is the time of the earliest timer.
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
    fn memory_shrinks_with_the_number_of_timers() {
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
    fn bytes_are_those_of_slots_and_chunks() {
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
    fn no_timer_of_a_million_is_lost() {
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
