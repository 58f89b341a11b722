//! `Tuner`: selects the window's share and the admission rule.
//!
//! No configuration is best for every access pattern. So one miniature simulation per configuration
//! runs on the accesses of a sample of the keys, and the cache uses the configuration with the most
//! hits.

use super::{
    admission::Rule,
    minisim::{Access, MiniSim},
};
use crate::util::Rng;

/// The configurations compared. The first one is in force until another is clearly better.
pub const POLICY_CONFIGS: [PolicyConfig; 4] = [
    PolicyConfig { share: Share::percent(5), rule: Rule::TinyLfu },
    PolicyConfig { share: Share::percent(1), rule: Rule::Strict },
    PolicyConfig { share: Share::percent(15), rule: Rule::Seen },
    PolicyConfig { share: Share::percent(60), rule: Rule::Seen },
];
/// Entries of a miniature simulation, which may have up to twice as many. Smaller ones err more
/// often, larger ones adapt slowly.
const MINISIM_ENTRIES: u64 = 256;
/// The lowest of the hash bits that select the sample. The table stores only the bits from here on
/// and those of the tag. It selects buckets by the highest bits, so the sample uses the lowest.
const FIRST_BIT: u32 = 32;
/// Accesses of the sample between two choices.
const ACCESSES_PER_CHOICE: u32 = 512;
/// The factor by which hits and accesses decay at every choice.
const DECAY: f64 = 0.9;
/// The lead that a configuration needs, as a fraction of the current one's hits.
const MARGIN: f64 = 0.01;
/// The lead that it needs, in square roots of the accesses, which is the scale of the noise.
const NOISE: f64 = 0.5;

/// The parameters of the policy that the tuner selects.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PolicyConfig {
    /// The fraction of the budget that the window may use.
    pub share: Share,
    /// The rule by which an entry that leaves the window is admitted to main.
    pub rule: Rule,
}

/// A fraction, in units of 2^-32: multiplied without a conversion to floating point.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Share(u32);

impl Share {
    /// Makes a fraction of so many hundredths, below 100; rounded up, so that it is not less of any
    /// budget below 2^32.
    pub const fn percent(hundredths: u32) -> Self {
        assert!(hundredths < 100);
        Self(((hundredths as u64) << 32).div_ceil(100) as u32)
    }

    /// Returns this fraction of `max`, rounded down.
    #[inline]
    fn of(self, max: u64) -> u64 {
        ((u128::from(max) * u128::from(self.0)) >> 32) as u64
    }
}

impl PolicyConfig {
    /// Returns the cost that the window may have in a cache of budget `max`.
    #[inline]
    pub fn share_of(self, max: u64) -> u64 {
        self.share.of(max).max(1)
    }
}

/// The tuner's decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice {
    /// The configuration stays.
    Same,
    /// Another configuration is in force from now on.
    Changed,
}

/// One miniature simulation per configuration, and their hit counts.
#[derive(Debug)]
pub struct Tuner {
    minisims: [MiniSim; POLICY_CONFIGS.len()],
    /// The weighted hits of each, decayed.
    hits: [f64; POLICY_CONFIGS.len()],
    /// The weight of all accesses, decayed.
    accesses: f64,
    /// Accesses since the last choice.
    since: u32,
    current: usize,
    scale: Scale,
    rng: Rng,
}

/// The sampling rate: one key in 2^`bits` is in the sample.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Scale {
    bits: u32,
    /// Entries of a miniature simulation.
    room: usize,
}

impl Scale {
    /// Returns the scale at which a cache of `entries` entries is as large as a miniature
    /// simulation.
    pub fn of(entries: u64) -> Self {
        let bits = (entries / MINISIM_ENTRIES).max(1).ilog2();
        Self { bits, room: (entries >> bits) as usize }
    }

    /// Returns the scale for `entries` entries, which is `self` while their number changes little.
    pub fn adapted(self, entries: u64) -> Self {
        let minisim = entries >> self.bits;
        let fits =
            minisim < 3 * MINISIM_ENTRIES && (self.bits == 0 || minisim > MINISIM_ENTRIES / 2);
        if fits { self } else { Self::of(entries) }
    }

    /// Returns a mask of the hash bits that are 0 for the keys of the sample.
    pub fn mask(self) -> u64 {
        ((1 << self.bits) - 1) << FIRST_BIT
    }
}

impl Tuner {
    /// Creates a tuner with the first configuration in force; `seed` is that of its random numbers.
    pub fn new(seed: u64) -> Self {
        Self {
            minisims: Default::default(),
            hits: [0.0; POLICY_CONFIGS.len()],
            accesses: 0.0,
            since: 0,
            current: 0,
            scale: Scale::default(),
            rng: Rng::new(seed),
        }
    }

    /// Returns the index of the configuration in force.
    pub fn current(&self) -> usize {
        self.current
    }

    /// Simulates an access, where `max` is the budget of the real cache and `worth` the value of a
    /// hit. Chooses a configuration every [`ACCESSES_PER_CHOICE`] accesses.
    pub fn simulate(
        &mut self,
        access: Access,
        scale: Scale,
        max: u64,
        worth: u64,
    ) -> Option<Choice> {
        if scale != self.scale {
            self.scale = scale;
            self.minisims = std::array::from_fn(|_| MiniSim::with_room(scale.room));
        }
        let max = max >> scale.bits;
        for ((minisim, policy_config), hits) in
            self.minisims.iter_mut().zip(POLICY_CONFIGS).zip(&mut self.hits)
        {
            if minisim.access(access, max, policy_config, &mut self.rng) {
                *hits += worth as f64;
            }
        }
        self.accesses += worth as f64;
        self.since += 1;
        (self.since == ACCESSES_PER_CHOICE).then(|| self.choose())
    }

    /// Returns the memory of the miniature simulations in bytes.
    pub fn bytes(&self) -> usize {
        self.minisims.iter().map(MiniSim::bytes).sum()
    }

    /// Switches to the best configuration if it is clearly better than the current one.
    fn choose(&mut self) -> Choice {
        self.since = 0;
        let best = (0..POLICY_CONFIGS.len()).max_by(|&a, &b| self.hits[a].total_cmp(&self.hits[b]));
        let best = best.unwrap_or_default();
        let now = self.hits[self.current];
        let margin = (MARGIN * now).max(NOISE * self.accesses.sqrt());
        let is_better = self.hits[best] - now > margin;
        if is_better {
            self.current = best;
        }
        self.hits = self.hits.map(|hits| DECAY * hits);
        self.accesses *= DECAY;
        if is_better { Choice::Changed } else { Choice::Same }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Simulates accesses to the keys that `key` returns, in caches of 100 entries, with exact
    /// frequencies.
    fn simulated(
        tuner: &mut Tuner,
        accesses: u64,
        mut key: impl FnMut(u64) -> u64,
    ) -> PolicyConfig {
        let mut seen = std::collections::HashMap::new();
        for i in 0..accesses {
            let hash = key(i).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            let count = seen.entry(hash).or_insert(0u8);
            *count = (*count + 1).min(15);
            if i % 2000 == 1999 {
                seen.values_mut().for_each(|count| *count /= 2);
            }
            let frequency = seen[&hash];
            let access = Access { hash, cost: 1, weight: 1, frequency, now: i as u32 };
            tuner.simulate(access, Scale::default(), 100, 1);
        }
        POLICY_CONFIGS[tuner.current()]
    }

    #[test]
    fn strict_rule_is_chosen_for_a_loop_longer_than_the_cache() {
        let mut tuner = Tuner::new(1);
        assert_eq!(tuner.current(), 0);
        assert_eq!(simulated(&mut tuner, 20_000, |i| i % 150).rule, Rule::Strict);
    }

    #[test]
    fn large_window_is_chosen_for_keys_that_come_twice_and_never_again() {
        let mut tuner = Tuner::new(1);
        // Each key comes again 20 new keys later, and not after that.
        let policy_config =
            simulated(&mut tuner, 40_000, |i| if i % 2 == 0 { i } else { i.max(41) - 41 });
        assert_eq!(policy_config, POLICY_CONFIGS[3]);
    }

    #[test]
    fn scale_is_kept_while_the_cache_changes_little() {
        assert_eq!((Scale::of(1).bits, Scale::of(511).bits, Scale::of(512).bits), (0, 0, 1));
        let scale = Scale::of(1 << 20);
        assert_eq!(scale.bits, 12);
        assert_eq!(scale.adapted(1 << 20), scale);
        assert_eq!(scale.adapted(3 << 19), scale);
        assert_eq!(scale.adapted((1 << 19) + (1 << 18)), scale);
        assert_eq!(scale.adapted(1 << 22).bits, 14);
        assert_eq!(scale.adapted(1 << 18).bits, 10);
        assert_eq!(Scale::default().adapted(0).bits, 0);
        let minisims = [128, 129, 767, 768].map(|minisim| scale.adapted(minisim << 12).bits);
        assert_eq!(minisims, [11, 12, 12, 13]);
        let rooms = [511, 512, 1 << 20, 3 << 19].map(|entries| Scale::of(entries).room);
        assert_eq!(rooms, [511, 256, 256, 384]);
    }

    #[test]
    fn minisims_have_their_part_of_the_budget_and_memory_for_their_part_of_the_entries() {
        let mut tuner = Tuner::new(1);
        assert_eq!(tuner.bytes(), 0);
        let scale = Scale::of(1 << 10);
        assert_eq!(scale.bits, 2);
        for hash in [1, 2, 3] {
            let access = Access { hash, cost: 3, weight: 1, frequency: 2, now: 1 };
            assert_eq!(tuner.simulate(access, scale, 27, 1), None);
        }
        // Two of the three fit a quarter of the budget, rounded down. An oversized one is rejected.
        for minisim in &mut tuner.minisims {
            let mut is_in = |hash| {
                let access = Access { hash, cost: 7, weight: 1, frequency: 2, now: 1 };
                minisim.access(access, 6, POLICY_CONFIGS[0], &mut Rng::new(1))
            };
            assert_eq!([1, 2, 3].into_iter().filter(|&hash| is_in(hash)).count(), 2);
        }
        assert_eq!(tuner.bytes(), POLICY_CONFIGS.len() * MiniSim::with_room(256).bytes());
    }

    #[test]
    fn a_configuration_better_by_a_hundredth_and_by_the_noise_is_chosen() {
        let choice = |hits: [f64; 2], accesses: f64| {
            let mut tuner = Tuner::new(1);
            tuner.hits[..2].copy_from_slice(&hits);
            tuner.accesses = accesses;
            tuner.since = ACCESSES_PER_CHOICE;
            let choice = tuner.choose();
            let decayed = hits.map(|hits| DECAY * hits);
            assert_eq!((&tuner.hits[..2], tuner.accesses), (&decayed[..], DECAY * accesses));
            assert_eq!((tuner.since, tuner.current), (0, usize::from(choice == Choice::Changed)));
            choice
        };
        assert_eq!(choice([100.0, 101.0], 0.0), Choice::Same);
        assert_eq!(choice([100.0, 102.0], 0.0), Choice::Changed);
        assert_eq!(choice([100.0, 110.0], 400.0), Choice::Same);
        assert_eq!(choice([100.0, 111.0], 400.0), Choice::Changed);
        assert_eq!(choice([100.0, 99.0], 0.0), Choice::Same);
    }

    #[test]
    fn choice_is_made_every_accesses_per_choice_accesses() {
        let mut tuner = Tuner::new(1);
        let access = Access { hash: 1, cost: 1, weight: 1, frequency: 1, now: 1 };
        for round in 1..=2 {
            for _ in 1..ACCESSES_PER_CHOICE {
                assert_eq!(tuner.simulate(access, Scale::default(), 10, 3), None);
            }
            let before = tuner.accesses;
            assert_eq!(tuner.simulate(access, Scale::default(), 10, 3), Some(Choice::Same));
            assert_eq!(tuner.accesses, DECAY * (before + 3.0));
            // All but the very first access hit.
            let first = if round == 1 { 3.0 } else { 3.0 * DECAY };
            assert!(
                tuner.hits.iter().all(|hits| (tuner.accesses - hits - DECAY * first).abs() < 1e-6)
            );
        }
    }

    #[test]
    fn sample_is_a_part_of_all_hashes() {
        let mask = Scale::of(1 << 12).mask();
        let mut rng = Rng::new(1);
        let sampled = (0..100_000).filter(|_| rng.next_u64() & mask == 0).count();
        assert!((5500..7000).contains(&sampled), "{sampled} of 100000 at one in 16");
    }
}
