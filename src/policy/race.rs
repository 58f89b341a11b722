//! `Race`: which share of the window, and which rule of admission?
//!
//! No setting is best for every pattern of accesses. So miniature caches, one a setting, play the
//! same accesses, those of a sample of the keys; the cache itself follows the one that is ahead.

use super::{
    admission::Rule,
    shadow::{Access, Shadow},
};
use crate::util::Rng;

/// What is not fixed in the policy.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Setting {
    /// The part of the budget that is the window's.
    pub share: f64,
    /// What an entry has to show when it leaves the window.
    pub rule: Rule,
}

impl Setting {
    /// Returns what the window may cost in a cache of budget `max`.
    #[inline]
    pub fn share_of(self, max: u64) -> u64 {
        ((max as f64 * self.share) as u64).max(1)
    }
}

/// The settings that race. The first one rules until another is ahead.
pub const SETTINGS: [Setting; 4] = [
    Setting { share: 0.05, rule: Rule::Duel },
    Setting { share: 0.01, rule: Rule::Strict },
    Setting { share: 0.15, rule: Rule::Seen },
    Setting { share: 0.60, rule: Rule::Seen },
];

/// What a look at the race showed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    /// Who ruled rules on.
    Same,
    /// Another setting rules from now on.
    Changed,
}

/// Miniature caches, and what they have won.
#[derive(Debug)]
pub struct Race {
    shadows: [Shadow; SETTINGS.len()],
    /// What each has hit of late.
    won: [f64; SETTINGS.len()],
    /// Accesses of late.
    accesses: f64,
    /// Accesses since the last look.
    since: u32,
    current: usize,
    scale: Scale,
    rng: Rng,
}

/// Which keys are in the sample: one in 2^`bits`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Scale {
    bits: u32,
    /// Entries of a shadow.
    room: usize,
}

impl Scale {
    /// Returns the scale at which a cache of `entries` entries is as large as a shadow.
    pub fn of(entries: u64) -> Self {
        let bits = (entries / SHADOW_ENTRIES).max(1).ilog2();
        Self { bits, room: (entries >> bits) as usize }
    }

    /// Returns the scale for `entries` entries; the same one while their number changes little.
    pub fn adapted(self, entries: u64) -> Self {
        let shadow = entries >> self.bits;
        let fits = shadow < 3 * SHADOW_ENTRIES && (self.bits == 0 || shadow > SHADOW_ENTRIES / 2);
        if fits { self } else { Self::of(entries) }
    }

    /// Returns the bits that are 0 in the hash of a key of the sample.
    pub fn mask(self) -> u64 {
        ((1 << self.bits) - 1) << FIRST_BIT
    }
}

impl Race {
    /// Makes a race that nobody leads; random choices begin with `seed`.
    pub fn new(seed: u64) -> Self {
        Self {
            shadows: Default::default(),
            won: [0.0; SETTINGS.len()],
            accesses: 0.0,
            since: 0,
            current: 0,
            scale: Scale::default(),
            rng: Rng::new(seed),
        }
    }

    /// Returns the number of the setting that rules.
    pub fn current(&self) -> usize {
        self.current
    }

    /// Plays an access at a scale, of a cache of budget `max`, that is worth `worth` where it hits;
    /// now and then this looks who is ahead.
    pub fn play(&mut self, access: Access, scale: Scale, max: u64, worth: u64) -> Option<Look> {
        if scale != self.scale {
            self.scale = scale;
            self.shadows = std::array::from_fn(|_| Shadow::with_room(scale.room));
        }
        let max = max >> scale.bits;
        for ((shadow, setting), won) in self.shadows.iter_mut().zip(SETTINGS).zip(&mut self.won) {
            if shadow.access(access, max, setting, &mut self.rng) {
                *won += worth as f64;
            }
        }
        self.accesses += worth as f64;
        self.since += 1;
        (self.since == LOOK).then(|| self.look())
    }

    /// Returns the bytes of the shadows.
    pub fn bytes(&self) -> usize {
        self.shadows.iter().map(Shadow::bytes).sum()
    }

    /// Follows whoever is clearly ahead.
    fn look(&mut self) -> Look {
        self.since = 0;
        let best = (0..SETTINGS.len()).max_by(|&a, &b| self.won[a].total_cmp(&self.won[b]));
        let best = best.unwrap_or_default();
        let now = self.won[self.current];
        let margin = (MARGIN * now).max(NOISE * self.accesses.sqrt());
        let is_ahead = self.won[best] - now > margin;
        if is_ahead {
            self.current = best;
        }
        self.won = self.won.map(|won| DECAY * won);
        self.accesses *= DECAY;
        if is_ahead { Look::Changed } else { Look::Same }
    }
}

/// Entries of a shadow, up to twice as many. Smaller ones err more often, larger ones are slow to learn.
const SHADOW_ENTRIES: u64 = 256;
/// The sample is chosen by the bits of a hash from here on: the table knows no others between these and those of the
/// tag, and takes the highest ones to choose a bucket.
const FIRST_BIT: u32 = 32;
/// Accesses of the sample between two looks.
const LOOK: u32 = 512;
/// What is left of what was won, from look to look.
const DECAY: f64 = 0.9;
/// How far ahead one has to be: a part of what the other has won, and of the noise.
const MARGIN: f64 = 0.01;
const NOISE: f64 = 0.5;

#[cfg(test)]
mod tests {
    use super::*;

    /// Plays the keys that `key` names, in caches of 100 entries; each key's frequency is exact.
    fn played(race: &mut Race, accesses: u64, mut key: impl FnMut(u64) -> u64) -> Setting {
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
            race.play(access, Scale::default(), 100, 1);
        }
        SETTINGS[race.current()]
    }

    #[test]
    fn loop_longer_than_the_cache_is_won_by_the_strict() {
        let mut race = Race::new(1);
        assert_eq!(race.current(), 0);
        assert_eq!(played(&mut race, 20_000, |i| i % 150).rule, Rule::Strict);
    }

    #[test]
    fn keys_that_come_twice_and_never_again_are_won_by_a_large_window() {
        let mut race = Race::new(1);
        // Each key comes again 20 new keys later, and not after that.
        let setting = played(&mut race, 40_000, |i| if i % 2 == 0 { i } else { i.max(41) - 41 });
        assert_eq!(setting, SETTINGS[3]);
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
        let shadows = [128, 129, 767, 768].map(|shadow| scale.adapted(shadow << 12).bits);
        assert_eq!(shadows, [11, 12, 12, 13]);
        let rooms = [511, 512, 1 << 20, 3 << 19].map(|entries| Scale::of(entries).room);
        assert_eq!(rooms, [511, 256, 256, 384]);
    }

    #[test]
    fn shadows_have_their_part_of_the_budget_and_memory_for_their_part_of_the_entries() {
        let mut race = Race::new(1);
        assert_eq!(race.bytes(), 0);
        let scale = Scale::of(1 << 10);
        assert_eq!(scale.bits, 2);
        for hash in [1, 2, 3] {
            let access = Access { hash, cost: 3, weight: 1, frequency: 2, now: 1 };
            assert_eq!(race.play(access, scale, 27, 1), None);
        }
        // Two of the three have room in a quarter of it, rounded down. What is too large is not taken in.
        for shadow in &mut race.shadows {
            let mut is_in = |hash| {
                let access = Access { hash, cost: 7, weight: 1, frequency: 2, now: 1 };
                shadow.access(access, 6, SETTINGS[0], &mut Rng::new(1))
            };
            assert_eq!([1, 2, 3].into_iter().filter(|&hash| is_in(hash)).count(), 2);
        }
        assert_eq!(race.bytes(), SETTINGS.len() * Shadow::with_room(256).bytes());
    }

    #[test]
    fn who_is_ahead_by_a_hundredth_and_by_the_noise_rules() {
        let look = |won: [f64; 2], accesses: f64| {
            let mut race = Race::new(1);
            race.won[..2].copy_from_slice(&won);
            race.accesses = accesses;
            race.since = LOOK;
            let look = race.look();
            let decayed = won.map(|won| DECAY * won);
            assert_eq!((&race.won[..2], race.accesses), (&decayed[..], DECAY * accesses));
            assert_eq!((race.since, race.current), (0, usize::from(look == Look::Changed)));
            look
        };
        assert_eq!(look([100.0, 101.0], 0.0), Look::Same);
        assert_eq!(look([100.0, 102.0], 0.0), Look::Changed);
        assert_eq!(look([100.0, 110.0], 400.0), Look::Same);
        assert_eq!(look([100.0, 111.0], 400.0), Look::Changed);
        assert_eq!(look([100.0, 99.0], 0.0), Look::Same);
    }

    #[test]
    fn it_looks_after_so_many_accesses() {
        let mut race = Race::new(1);
        let access = Access { hash: 1, cost: 1, weight: 1, frequency: 1, now: 1 };
        for round in 1..=2 {
            for _ in 1..LOOK {
                assert_eq!(race.play(access, Scale::default(), 10, 3), None);
            }
            let before = race.accesses;
            assert_eq!(race.play(access, Scale::default(), 10, 3), Some(Look::Same));
            assert_eq!(race.accesses, DECAY * (before + 3.0));
            // All but the very first access hit.
            let first = if round == 1 { 3.0 } else { 3.0 * DECAY };
            assert!(race.won.iter().all(|won| (race.accesses - won - DECAY * first).abs() < 1e-6));
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
