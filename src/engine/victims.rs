//! The choice of a victim of main: the next entry above a score threshold from a hand on, or the
//! entry with the highest score in a sample.
//!
//! The hints in the bucket rank the entries; the flags and the cost beside the chosen one's cell
//! confirm the choice.

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

/// Low bits of a score that are dropped to make room for a place.
const SCORE_SHIFT: u32 = POSITION_BITS + f32::MANTISSA_DIGITS + 7 - u64::BITS;
/// The class of an entry of main with cost 1 and normal priority.
const PLAIN: Class = Class::new(false, Some(NORMAL_WEIGHT));
/// How far the threshold rises for a victim, in the bits of a float: a sixteenth of an octave.
const THRESHOLD_STEP: u32 = 1 << (f32::MANTISSA_DIGITS - 1 - 4);
/// Comparisons of one victim before another is chosen. The hit ratio is the same with 1 and with
/// 64; most new entries lose, and finding a victim is a quarter of the work.
pub(super) const MAX_COMPARISONS: u32 = 8;
/// Attempts to choose a victim while the chosen ones are accessed concurrently.
const CHOICES: usize = 2;
/// Buckets that the hand passes for one victim at most.
const MAX_HAND_BUCKETS: usize = 64;
/// Entries that a writer examines for each eviction while other threads hold all shards: the sample
/// then includes an entry of a window of 5 % in two cases of three.
const ALONE_SAMPLE: usize = 20;
/// Further buckets that are read if the sample has no entry of main: all of a small table.
const MAX_SAMPLE_BUCKETS: usize = 1 << 10;

/// The position where a maintenance shard searches for victims, and the score that makes an entry
/// one.
///
/// The hand passes over the table bucket by bucket. The threshold follows the scores, so that one
/// in a fixed number of entries is above it. Such a victim is as good as the worst of a sample
/// twice that size, and each entry is examined once.
#[derive(Clone, Copy, Debug)]
pub(super) struct Hand {
    /// The next bucket; wraps at the number of buckets.
    next: usize,
    /// A score, as the bits of a float.
    threshold: u32,
    /// The next victim. It is chosen when the last one is evicted, so that its prefetched metadata
    /// has arrived when it is read.
    chosen: Option<Chosen>,
}

/// An entry of main that was chosen as the victim.
#[derive(Clone, Copy, Debug)]
struct Chosen {
    place: Position,
    /// Its access bits when it was chosen: if it was accessed since, it is not a victim.
    access: u16,
    /// Its frequency and cost, set by the first comparison.
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
        // At first, only an entry of cost 1 that was not accessed for a round is above the
        // threshold. Until the threshold has adapted to the scores, the worst of a sample is the
        // victim.
        let threshold = score(false, STEPS_PER_ROUND, NORMAL_WEIGHT as f32);
        Self { next: first, threshold: threshold.to_bits(), chosen: None }
    }

    /// Moves on by `buckets` buckets with `seen` entries, of which one in `part` should be a
    /// victim.
    ///
    /// The threshold rises for a victim and falls for each entry, and is stable if one in `part` is
    /// above it.
    #[inline]
    fn advance(&mut self, buckets: usize, seen: usize, part: usize, is_found: bool) {
        self.next = self.next.wrapping_add(buckets);
        let up = if is_found { THRESHOLD_STEP } else { 0 };
        // No overflow: one call passes at most `MAX_HAND_BUCKETS` buckets.
        let down = THRESHOLD_STEP * seen as u32 / part as u32;
        let threshold = self.threshold.saturating_add(up).saturating_sub(down);
        self.threshold = threshold.clamp(1.0f32.to_bits(), f32::MAX.to_bits());
    }
}

/// An entry that may be evicted.
pub(super) type Resident<'g, K, V> = Sampled<'g, Entry<K, V>>;

/// The places of the entries with the highest scores of a sample, in descending order.
///
/// Each is a number: the score in the upper bits, the place in the lower.
struct Worst<const N: usize>([u64; N]);

impl<const N: usize> Worst<N> {
    fn new() -> Self {
        Self([0; N])
    }

    /// Adds the slots of a bucket whose scores are high enough.
    #[inline]
    fn offer(&mut self, view: &BucketView<'_>, scores: &Scores) {
        // Non-negative floats are ordered like their bits. The lowest bit makes room for the place.
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

impl<K, V, S> Engine<K, V, S> {
    /// Returns the frequency and the cost of the current victim of main: an entry above the
    /// threshold, from the hand on. It stays the same until it is evicted
    /// ([`choose_next`](Self::choose_next)), was accessed, or was compared [`MAX_COMPARISONS`]
    /// times.
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

    /// Chooses a victim and compares it for the first time.
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

    /// Returns the chosen victim, or the next one if it was removed or accessed.
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

    /// Returns the chosen victim, if it is still there and was not accessed since.
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

    /// Moves the hand to the next entry above the threshold: the next victim.
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

    /// Returns the entry with the highest score of a random sample.
    pub(super) fn victim<'g>(
        &'g self,
        guard: &'g Guard,
        random: u64,
        among: Among,
    ) -> Option<Resident<'g, K, V>> {
        self.victim_at(guard, random, among).map(|(_, victim)| victim)
    }

    /// Like [`victim`](Self::victim), but also returns its place.
    #[cold]
    fn victim_at<'g>(
        &'g self,
        guard: &'g Guard,
        random: u64,
        among: Among,
    ) -> Option<(Position, Resident<'g, K, V>)> {
        let at = |place| Some((place, self.resident_at(guard, place, among)?));
        let chosen = self.sample(guard, random, among).places().find_map(at);
        // In a nearly empty table, continue until an entry is found. Main may be empty beside a
        // full window.
        chosen.or_else(|| {
            let most = if among == Among::Main { MAX_SAMPLE_BUCKETS } else { usize::MAX };
            self.table
                .run(guard, upper(random), most)
                .find_map(|view| view.taken().map(|slot| view.place(slot)).into_iter().find_map(at))
        })
    }

    /// Reads consecutive buckets from a random one on, until they held enough entries; returns the
    /// worst of these.
    fn sample(&self, guard: &Guard, random: u64, among: Among) -> Worst<4> {
        let want = if self.costs_vary() { SAMPLE_BY_COST } else { SAMPLE };
        // Relaxed: any recent number will do.
        let buckets = self.sample_buckets.load(Ordering::Relaxed);
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

    /// Returns the entry in a place if its flags and its cost allow to evict it; updates its class
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

    /// Updates the class of an entry.
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

    /// Returns the longest unused entry of the window and the worst entry of main in a random
    /// sample.
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
        // Relaxed: any recent number will do.
        let buckets = self.sample_buckets.load(Ordering::Relaxed);
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

/// Returns the slot with the highest score among `slots`, which are not empty.
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

/// Returns the half of a random number that selects a bucket.
fn upper(random: u64) -> u32 {
    (random >> 32) as u32
}

/// The entries that a victim is chosen from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Among {
    /// The window.
    Window,
    /// The main region.
    Main,
    /// Both regions.
    Evictable,
    /// Both regions, including unevictable entries.
    All,
}

impl Among {
    /// Returns whether an entry of this cost and these flags is included. An entry without cost
    /// never is: evicting it would free nothing.
    fn has(self, cost: u64, flags: Flags) -> bool {
        let is_one = match self {
            Self::Window => flags.is_in_window() && !flags.is_unevictable(),
            Self::Main => !flags.is_in_window() && !flags.is_unevictable(),
            Self::Evictable => !flags.is_unevictable(),
            Self::All => true,
        };
        is_one && cost > 0
    }

    /// Returns the classes to choose from. Unevictable entries have none: they are found without a
    /// ranking.
    fn classes(self) -> ClassRange {
        match self {
            Self::Window => ClassRange::WINDOW,
            Self::Main => ClassRange::MAIN,
            Self::Evictable | Self::All => ClassRange::BOTH,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::util::Rng;

    /// Lets a hand pass entries one by one; returns the mean number of entries per victim.
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
            // The threshold has to converge first: the scores have another magnitude now.
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
