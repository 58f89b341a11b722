//! Which entry of main goes: the next one bad enough, from where a hand stands, or the least worthy of a sample.
//!
//! What readers see of an entry's use decides, as its bucket shows it; flags and cost beside its cell have the last
//! word.

use std::ops::ControlFlow;

use super::{Engine, NORMAL_WEIGHT, maintenance::MaintenanceShard};
use crate::{
    entry::{Entry, Flags},
    policy::{
        access_clock::STEPS_PER_ROUND,
        admission::FrequencyAndCost,
        class::{Class, ClassRange},
        score::{SAMPLE, SAMPLE_BY_COST, VICTIM_PART, VICTIM_PART_BY_COST, ranking, score},
    },
    reclaim::Guard,
    sync::atomic::Ordering,
    table::{
        BucketView, Metadata, POSITION_BITS, Position, Ranker, SLOTS, Sampled, SampledSlot, Scores,
    },
};

/// Where a maintenance shard looks for victims, and how bad an entry has to be to be one.
///
/// The hand goes over the table bucket by bucket. The threshold follows the scores, so that one in so many entries is above
/// it: as good as the worst of twice as many, and each is looked at once.
#[derive(Clone, Copy, Debug)]
pub(super) struct Hand {
    /// The bucket that comes next; their number wraps it.
    next: usize,
    /// A score, as the bits of a float.
    threshold: u32,
    /// The victim: chosen when the last one goes, so that what is beside it has come when it is looked at.
    chosen: Option<Chosen>,
}

/// An entry of main that is to go.
#[derive(Clone, Copy, Debug)]
struct Chosen {
    place: Position,
    /// The access bits that it had: one that was used since is no victim.
    access: u16,
    /// Its frequency and cost, from the first comparison on.
    frequency_and_cost: Option<FrequencyAndCost>,
    /// How often it was compared.
    comparisons: u32,
}

impl Chosen {
    #[inline]
    fn new(place: Position, access: u16) -> Self {
        Self { place, access, frequency_and_cost: None, comparisons: 0 }
    }
}

impl Hand {
    pub(super) fn new(first: usize) -> Self {
        // At first only an entry of cost 1 that was not accessed for a round is bad enough: the worst of a sample goes
        // until it is known what is usual.
        let threshold = score(false, STEPS_PER_ROUND, NORMAL_WEIGHT as f32);
        Self { next: first, threshold: threshold.to_bits(), chosen: None }
    }

    /// Moves on by so many lines with `seen` entries, where one in `part` is to be a victim.
    ///
    /// The threshold moves up for a victim and down for each entry, and stays where it is if one in `part` is above it.
    #[inline]
    fn advance(&mut self, buckets: usize, seen: usize, part: usize, is_found: bool) {
        self.next = self.next.wrapping_add(buckets);
        let up = if is_found { THRESHOLD_STEP } else { 0 };
        // As many entries as there are in the lines that are passed at once are no overflow.
        let down = THRESHOLD_STEP * seen as u32 / part as u32;
        let threshold = self.threshold.saturating_add(up).saturating_sub(down);
        self.threshold = threshold.clamp(1.0f32.to_bits(), f32::MAX.to_bits());
    }
}

/// An entry that may be evicted.
pub(super) type Resident<'g, K, V> = Sampled<'g, Entry<K, V>>;

/// The places of the entries with the highest scores of a sample, the highest first.
///
/// Each is a number: the score above, the place below.
struct Worst<const N: usize>([u64; N]);

impl<const N: usize> Worst<N> {
    fn new() -> Self {
        Self([0; N])
    }

    /// Takes in the slots of a line whose scores are high enough.
    #[inline]
    fn offer(&mut self, view: &BucketView<'_>, scores: &Scores) {
        // Floats that are not below 0 are in the order of their bits. The lowest bit makes room for the place.
        let mut above = scores.above((self.0[N - 1] >> POSITION_BITS << SCORE_SHIFT) as u32);
        if above == 0 {
            return;
        }
        let scores = scores.get();
        while above != 0 {
            let slot = above.trailing_zeros() as usize & (SLOTS - 1);
            above &= above - 1;
            let score = u64::from(scores[slot] >> SCORE_SHIFT) << POSITION_BITS;
            let new = score | view.place(slot).to_bits();
            if new > self.0[N - 1] {
                self.insert(new);
            }
        }
    }

    fn insert(&mut self, new: u64) {
        let mut place = N - 1;
        while place > 0 && self.0[place - 1] < new {
            self.0[place] = self.0[place - 1];
            place -= 1;
        }
        self.0[place] = new;
    }

    fn places(&self) -> impl Iterator<Item = Position> {
        self.0.iter().filter(|found| **found > 0).map(|found| Position::from_bits(*found))
    }
}

/// Bits of a score that make room for a place.
const SCORE_SHIFT: u32 = POSITION_BITS + f32::MANTISSA_DIGITS + 7 - u64::BITS;

impl<K, V, S> Engine<K, V, S> {
    /// Returns the frequency and the cost of the victim of main: an entry, from where the hand stands, that is as bad as one in so
    /// many. It is the same until it has gone ([`choose_next`](Self::choose_next)), was found to be used, or was compared
    /// [`MAX_COMPARISONS`] times.
    #[inline]
    pub(super) fn victim_to_beat(
        &self,
        guard: &Guard,
        shard: &mut MaintenanceShard,
    ) -> Option<FrequencyAndCost> {
        if let Some(chosen) = &mut shard.hand.chosen
            && let Some(frequency_and_cost) = chosen.frequency_and_cost
            && chosen.comparisons < MAX_COMPARISONS
        {
            chosen.comparisons += 1;
            return Some(frequency_and_cost);
        }
        self.new_victim_to_beat(guard, shard)
    }

    /// The same where the victim was not compared yet, or often enough.
    fn new_victim_to_beat(
        &self,
        guard: &Guard,
        shard: &mut MaintenanceShard,
    ) -> Option<FrequencyAndCost> {
        let hand = &mut shard.hand;
        hand.chosen = hand.chosen.filter(|chosen| chosen.comparisons < MAX_COMPARISONS);
        let victim = self.next_victim(guard, shard)?;
        let frequency_and_cost = Some(self.resident_frequency_and_cost(&victim));
        let hand = &mut shard.hand;
        hand.chosen =
            hand.chosen.map(|chosen| Chosen { frequency_and_cost, comparisons: 1, ..chosen });
        frequency_and_cost
    }

    /// Returns the victim that is chosen, or the next one if that has gone or was used.
    pub(super) fn next_victim<'g>(
        &'g self,
        guard: &'g Guard,
        shard: &mut MaintenanceShard,
    ) -> Option<Resident<'g, K, V>> {
        for _ in 0..CHOICES {
            if shard.hand.chosen.is_none() {
                self.choose_next(guard, &mut shard.hand);
            }
            if let Some(victim) = self.chosen_victim(guard, &mut shard.hand) {
                return Some(victim);
            }
        }
        let (place, victim) = self.victim_at(guard, shard.rng.next_u64(), Among::Main)?;
        shard.hand.chosen = Some(Chosen::new(place, victim.sampled_slot.access()));
        Some(victim)
    }

    /// Returns the victim that is chosen, if it is still there and was not used since.
    #[inline]
    pub(super) fn chosen_victim<'g>(
        &'g self,
        guard: &'g Guard,
        hand: &mut Hand,
    ) -> Option<Resident<'g, K, V>> {
        let victim = hand.chosen.and_then(|Chosen { place, access, .. }| {
            let victim = self.resident_at(guard, place, Among::Main)?;
            (victim.sampled_slot.access() == access).then_some(victim)
        });
        if victim.is_none() {
            hand.chosen = None;
        }
        victim
    }

    /// Moves a hand to the next entry that is as bad as that: the next victim.
    #[inline]
    pub(super) fn choose_next(&self, guard: &Guard, hand: &mut Hand) {
        let part = if self.costs_vary() { VICTIM_PART_BY_COST } else { VICTIM_PART };
        let ranking = ranking(self.access_clock.now(), ClassRange::MAIN, PLAIN);
        let (ranker, threshold) = (ranking.ranker(), ranking.threshold(hand.threshold));
        let passed = self.table.find_above(guard, hand.next, MAX_HAND_BUCKETS, &ranker, threshold);
        hand.chosen = passed.found.and_then(|(view, above)| {
            let sampled_slot = view.sampled_slot(worst_slot(&view, &ranker, above))?;
            self.table.prefetch_metadata(&sampled_slot);
            Some(Chosen::new(view.place(sampled_slot.slot()), sampled_slot.access()))
        });
        hand.advance(passed.buckets, passed.ranked, part, hand.chosen.is_some());
    }

    /// Returns the least worthy of a random sample.
    pub(super) fn victim<'g>(
        &'g self,
        guard: &'g Guard,
        random: u64,
        among: Among,
    ) -> Option<Resident<'g, K, V>> {
        self.victim_at(guard, random, among).map(|(_, victim)| victim)
    }

    /// The same, with its place.
    #[cold]
    fn victim_at<'g>(
        &'g self,
        guard: &'g Guard,
        random: u64,
        among: Among,
    ) -> Option<(Position, Resident<'g, K, V>)> {
        let at = |place| Some((place, self.resident_at(guard, place, among)?));
        let chosen = self.sample(guard, random, among).places().find_map(at);
        // A nearly empty table: go on until there is one. Main may be empty beside a full window.
        chosen.or_else(|| {
            let most = if among == Among::Main { MAX_SAMPLE_BUCKETS } else { usize::MAX };
            self.table
                .run(guard, upper(random), most)
                .find_map(|view| view.taken().map(|slot| view.place(slot)).into_iter().find_map(at))
        })
    }

    /// Looks at consecutive buckets from a random one on, until there were enough entries; returns the worst of them.
    fn sample(&self, guard: &Guard, random: u64, among: Among) -> Worst<4> {
        let want = if self.costs_vary() { SAMPLE_BY_COST } else { SAMPLE };
        let buckets = self.sample_buckets.load(Ordering::Relaxed); // Relaxed: any recent number will do.
        let ranker = ranking(self.access_clock.now(), among.classes(), PLAIN).ranker();
        let mut worst = Worst::new();
        let mut seen = 0;
        self.table.run(guard, upper(random), buckets).look(|view| {
            let scores = ranker.rank(view.hints());
            seen += scores.count();
            worst.offer(view, &scores);
            if seen < want { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        });
        worst
    }

    /// Returns the entry in a place if there is one that its flags and its cost allow to evict. Brings its class up to date
    /// if they do not.
    #[inline]
    fn resident_at<'g>(
        &'g self,
        guard: &'g Guard,
        place: Position,
        among: Among,
    ) -> Option<Resident<'g, K, V>> {
        let sampled = self.table.sampled_at(guard, place)?;
        self.resident(sampled, among)
    }

    #[inline]
    fn resident<'g>(
        &'g self,
        sampled: Resident<'g, K, V>,
        among: Among,
    ) -> Option<Resident<'g, K, V>> {
        let Sampled { sampled_slot, metadata } = sampled;
        if !among.has(self.cost_of(metadata), metadata.flags()) {
            self.classify_entry(sampled_slot, metadata);
            return None;
        }
        Some(sampled)
    }

    /// Brings the class of an entry up to date.
    #[cold]
    pub(super) fn classify_entry(
        &self,
        sampled_slot: SampledSlot<'_>,
        metadata: Metadata<'_, Entry<K, V>>,
    ) {
        let class = self.class_of(self.cost_of(metadata), metadata.flags()).to_bits();
        if sampled_slot.class() != class {
            sampled_slot.set_class(class);
        }
    }

    /// Returns, of a random sample, the entry of the window that is unused for longest, and the least worthy
    /// of main.
    pub(super) fn oldest_and_victim<'g>(
        &'g self,
        guard: &'g Guard,
        random: u64,
    ) -> [Option<Resident<'g, K, V>>; 2] {
        let now = self.access_clock.now();
        let ranges = [ClassRange::WINDOW, ClassRange::MAIN];
        let mut worst =
            ranges.map(|range| (ranking(now, range, PLAIN).ranker(), Worst::<2>::new()));
        let mut seen = 0;
        let buckets = self.sample_buckets.load(Ordering::Relaxed); // Relaxed: any recent number will do.
        self.table.run(guard, upper(random), buckets).look(|view| {
            for (ranker, worst) in &mut worst {
                let scores = ranker.rank(view.hints());
                seen += scores.count();
                worst.offer(view, &scores);
            }
            if seen < ALONE_SAMPLE { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        });
        let [(_, window), (_, main)] = worst;
        let first = |worst: Worst<2>, among| {
            worst.places().find_map(|place| self.resident_at(guard, place, among))
        };
        [first(window, Among::Window), first(main, Among::Main)]
    }
}

/// Returns the worst of some slots of a line, one at least.
#[inline]
fn worst_slot(view: &BucketView<'_>, ranker: &Ranker, slots: u32) -> usize {
    let first = slots.trailing_zeros() as usize & (SLOTS - 1);
    if slots.is_power_of_two() {
        return first;
    }
    let scores = ranker.rank(view.hints()).get();
    let of_them = (0..SLOTS).filter(|slot| slots >> slot & 1 != 0);
    of_them.max_by_key(|slot| scores[*slot]).unwrap_or(first)
}

/// Returns the half of a random number that chooses a bucket.
fn upper(random: u64) -> u32 {
    (random >> 32) as u32
}

/// Who may be a victim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Among {
    /// The window.
    Window,
    /// The main region.
    Main,
    /// Both regions.
    Evictable,
    /// Both, and unevictable entries too.
    All,
}

impl Among {
    /// Returns whether an entry of this cost and these flags is one of them. One without cost never is: to evict it makes
    /// no room.
    fn has(self, cost: u64, flags: Flags) -> bool {
        let is_one = match self {
            Self::Window => flags.is_in_window() && !flags.is_unevictable(),
            Self::Main => !flags.is_in_window() && !flags.is_unevictable(),
            Self::Evictable => !flags.is_unevictable(),
            Self::All => true,
        };
        is_one && cost > 0
    }

    /// Returns the classes to choose from. What must not be evicted has none: it is found without a choice.
    fn classes(self) -> ClassRange {
        match self {
            Self::Window => ClassRange::WINDOW,
            Self::Main => ClassRange::MAIN,
            Self::Evictable | Self::All => ClassRange::BOTH,
        }
    }
}

/// The class of an entry of main that costs 1, without a priority of its own.
const PLAIN: Class = Class::new(false, Some(NORMAL_WEIGHT));
/// How far a threshold moves up for a victim, in the bits of a float: a sixteenth of an octave.
const THRESHOLD_STEP: u32 = 1 << (f32::MANTISSA_DIGITS - 1 - 4);
/// Comparisons of one victim before another one is chosen. The hit ratio is the same with 1 and with 64; most new entries
/// lose, and to find a victim is a quarter of the work.
pub(super) const MAX_COMPARISONS: u32 = 8;
/// Times that the hand moves on, where what it has chosen was used in between.
const CHOICES: usize = 2;
/// Buckets that the hand passes for one victim at most.
const MAX_HAND_BUCKETS: usize = 64;
/// Entries that a writer looks at for each eviction while other threads hold all shards: a window of a twentieth then shows itself in two cases of three.
const ALONE_SAMPLE: usize = 20;
/// Buckets read where these have nothing of main to offer: all of a small table.
const MAX_SAMPLE_BUCKETS: usize = 1 << 10;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::util::Rng;

    /// Lets a hand pass entries one by one; returns how many it took for each victim, on average.
    fn entries_per_victim(hand: &mut Hand, part: usize, score: impl Fn(u64) -> f32) -> f64 {
        let mut rng = Rng::new(1);
        let (mut all, mut victims) = (0, 0);
        while victims < 20_000 {
            let entries = MAX_HAND_BUCKETS * SLOTS;
            let found = (1..=entries).find(|_| score(rng.next_u64()).to_bits() > hand.threshold);
            let seen = found.unwrap_or(entries);
            hand.advance(1, seen, part, found.is_some());
            all += seen;
            victims += usize::from(found.is_some());
        }
        all as f64 / f64::from(victims as u32)
    }

    #[test]
    fn threshold_is_where_one_in_so_many_entries_is_above_it() {
        let mut hand = Hand::new(0);
        for (part, scale) in [(9, 16.0), (22, 16.0), (9, 1e6), (22, 128.0)] {
            let exponential = |random: u64| -((random >> 11) as f32 / (1u64 << 53) as f32).ln();
            // It has to get there first, where scores are of another size by now.
            entries_per_victim(&mut hand, part, |random| scale * (1.0 + exponential(random)));
            let mean =
                entries_per_victim(&mut hand, part, |random| scale * (1.0 + exponential(random)));
            let part = part as f64;
            assert!((0.8 * part..1.2 * part).contains(&mean), "{mean} in place of {part}");
        }
    }

    #[test]
    fn threshold_falls_where_no_entry_is_above_it() {
        let mut hand = Hand { threshold: 1000.0f32.to_bits(), ..Hand::new(5) };
        hand.advance(3, 0, 9, false);
        assert_eq!((hand.next, hand.threshold), (8, 1000.0f32.to_bits()), "there was none");
        hand.advance(64, 9 * 16, 9, false);
        let octave_lower = 500.0f32.to_bits();
        assert_eq!((hand.next, hand.threshold), (72, octave_lower));
        hand.advance(1, MAX_HAND_BUCKETS * SLOTS, 9, false);
        assert!((40.0..50.0).contains(&f32::from_bits(hand.threshold)));
        hand.advance(usize::MAX, 0, 9, true);
        assert_eq!(hand.next, 72);
    }
}
