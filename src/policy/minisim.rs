//! `MiniSim`: a miniature cache that simulates a policy configuration on a sample of the keys.
//!
//! Evaluating a configuration on a scaled-down cache that sees only a hash sample of the keys is
//! miniature simulation (Waldspurger, Saemundsson, Ahmad, Park: "Cache Modeling and Optimization
//! using Miniature Simulations", 2017). The simulation decides by the same [`next_action`] as the cache,
//! on a plain vector of slots.

use std::{
    collections::{HashMap, VecDeque},
    hash::{BuildHasherDefault, Hasher},
};

use super::{
    access::halved,
    action::{Action, State, next_action},
    admission::FrequencyAndCost,
    score::score,
    tuner::PolicyConfig,
};
use crate::util::Rng;

/// Entries of main in a sample, from which the victim is taken.
const SAMPLE: usize = 5;
/// Slots tried to find these: a bound, because main may be a small part of the slots.
const MAX_LOOKS: usize = 64;
/// Referenced entries that are requeued in the window in a row, to bound the work of an access.
const MAX_TURNS: usize = 8;

/// One access of the sample.
#[derive(Clone, Copy, Debug)]
pub struct Access {
    /// The hash of the key.
    pub hash: u64,
    /// The cost charged to the budget.
    pub cost: u64,
    /// The cost that the policy ranks by.
    pub weight: u64,
    /// The recent access frequency of the key, this access included.
    pub frequency: u8,
    /// The step of the access.
    pub now: u32,
}

/// A miniature cache.
#[derive(Debug, Default)]
pub struct MiniSim {
    slots: Vec<Slot>,
    places: HashMap<u64, u32, BuildHasherDefault<Spread>>,
    window: VecDeque<u64>,
    window_cost: u64,
    cost: u64,
    weight: u64,
}

/// A simulated entry.
#[derive(Clone, Copy, Debug)]
struct Slot {
    hash: u64,
    cost: u64,
    weight: u64,
    is_in_window: bool,
    is_referenced: bool,
    /// The step of the last access.
    last: u32,
    /// The frequency at that step. It is aged like the hits of a real entry.
    frequency: u8,
}

impl MiniSim {
    /// Creates an empty cache with memory for `entries` entries.
    pub fn with_room(entries: usize) -> Self {
        // An entry is inserted before another is evicted.
        let room = entries + 1;
        Self {
            slots: Vec::with_capacity(room),
            places: HashMap::with_capacity_and_hasher(room, BuildHasherDefault::default()),
            window: VecDeque::with_capacity(room),
            window_cost: 0,
            cost: 0,
            weight: 0,
        }
    }

    /// Simulates an access in a cache of budget `max`; returns whether it is a hit.
    pub fn access(
        &mut self,
        access: Access,
        max: u64,
        policy_config: PolicyConfig,
        rng: &mut Rng,
    ) -> bool {
        let Access { hash, cost, weight, frequency, now } = access;
        if let Some(&place) = self.places.get(&hash) {
            let slot = &mut self.slots[place as usize];
            slot.is_referenced = true;
            slot.last = now;
            slot.frequency = frequency;
            return true;
        }
        if cost > max {
            return false;
        }
        self.places.insert(hash, self.slots.len() as u32);
        self.slots.push(Slot {
            hash,
            cost,
            weight,
            is_in_window: true,
            is_referenced: false,
            last: now,
            frequency,
        });
        self.window.push_back(hash);
        self.window_cost += cost;
        self.cost += cost;
        self.weight += weight;
        let share = policy_config.share_of(max);
        loop {
            let state = State {
                used: self.cost,
                max,
                share,
                window: self.window_cost,
                main: self.cost - self.window_cost,
                ..State::default()
            };
            let candidate = match next_action(state) {
                Action::Rest => break,
                Action::Evict => None,
                Action::Compare => self.next_candidate(),
                // There is no surplus of an earlier configuration here. At most one entry would be
                // filtered, and it moves to main instead, as in a small cache.
                Action::Yield | Action::Promote | Action::Filter => match self.next_candidate() {
                    Some(_) => continue,
                    None => break,
                },
            };
            let victim = self.victim(now, rng).or(candidate).unwrap_or(self.slots.len() - 1);
            let loses = candidate.is_some_and(|candidate| {
                let (one, other) =
                    (self.frequency_and_cost(candidate, now), self.frequency_and_cost(victim, now));
                candidate != victim
                    && !policy_config.rule.admits(one, other, self.mean_weight(), rng.next_u64())
            });
            self.remove(candidate.filter(|_| loses).unwrap_or(victim));
        }
        false
    }

    /// Returns the memory in use in bytes.
    pub fn bytes(&self) -> usize {
        self.slots.capacity() * size_of::<Slot>()
            + self.places.capacity() * size_of::<(u64, u32)>()
            + self.window.capacity() * size_of::<u64>()
    }

    /// Moves the oldest entry of the window to main. A referenced entry is requeued instead.
    fn next_candidate(&mut self) -> Option<usize> {
        let mut turns = 0;
        while let Some(hash) = self.window.pop_front() {
            let Some(&place) = self.places.get(&hash) else { continue };
            let slot = &mut self.slots[place as usize];
            if !slot.is_in_window {
                continue;
            }
            if slot.is_referenced && turns < MAX_TURNS {
                turns += 1;
                slot.is_referenced = false;
                self.window.push_back(hash);
                continue;
            }
            (slot.is_in_window, slot.is_referenced) = (false, false);
            self.window_cost -= slot.cost;
            return Some(place as usize);
        }
        None
    }

    /// Returns the slot with the highest eviction score of a small sample of main.
    fn victim(&self, now: u32, rng: &mut Rng) -> Option<usize> {
        let mut worst = None;
        let mut seen = 0;
        for _ in 0..MAX_LOOKS {
            let place = rng.below(self.slots.len() as u64) as usize;
            let Some(slot) = self.slots.get(place) else { break };
            if slot.is_in_window {
                continue;
            }
            let idle = now.wrapping_sub(slot.last);
            let score = score(slot.is_referenced, idle, slot.weight as f32);
            if worst.is_none_or(|(most, _)| score > most) {
                worst = Some((score, place));
            }
            seen += 1;
            if seen == SAMPLE {
                break;
            }
        }
        worst.map(|(_, place)| place)
    }

    fn frequency_and_cost(&self, place: usize, now: u32) -> FrequencyAndCost {
        let slot = self.slots[place];
        let frequency = halved(slot.frequency, slot.last, now);
        FrequencyAndCost { frequency, cost: slot.weight }
    }

    fn mean_weight(&self) -> u64 {
        self.weight / self.slots.len().max(1) as u64
    }

    fn remove(&mut self, place: usize) {
        let slot = self.slots.swap_remove(place);
        self.places.remove(&slot.hash);
        if let Some(moved) = self.slots.get(place) {
            self.places.insert(moved.hash, place as u32);
        }
        self.cost -= slot.cost;
        self.weight -= slot.weight;
        if slot.is_in_window {
            self.window_cost -= slot.cost;
        }
    }
}

/// The identity hasher: the keys of `places` are hashes already.
#[derive(Default)]
struct Spread(u64);

impl Hasher for Spread {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, _: &[u8]) {
        unreachable!("only hashes are hashed");
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::{
        admission::Rule,
        tuner::{POLICY_CONFIGS, Share},
    };

    const HALF: PolicyConfig = PolicyConfig { share: Share::percent(50), rule: Rule::TinyLfu };

    fn access(hash: u64, frequency: u8, now: u32) -> Access {
        Access { hash, cost: 1, weight: 1, frequency, now }
    }

    fn in_main(minisim: &MiniSim) -> Vec<u64> {
        let slots = minisim.slots.iter().filter(|slot| !slot.is_in_window);
        let mut hashes: Vec<u64> = slots.map(|slot| slot.hash).collect();
        hashes.sort_unstable();
        hashes
    }

    /// Asserts that the sums are those of the slots, and that each slot is found.
    fn check(minisim: &MiniSim, max: u64) {
        let sum = |f: fn(&Slot) -> u64| minisim.slots.iter().map(f).sum::<u64>();
        assert_eq!(
            (minisim.cost, minisim.weight),
            (sum(|slot| slot.cost), sum(|slot| slot.weight))
        );
        let in_window = |slot: &&Slot| slot.is_in_window;
        let window: Vec<_> = minisim.slots.iter().filter(in_window).collect();
        assert_eq!(minisim.window_cost, window.iter().map(|slot| slot.cost).sum::<u64>());
        assert!(window.iter().all(|slot| minisim.window.contains(&slot.hash)));
        assert!(minisim.cost <= max, "{} of {max}", minisim.cost);
        assert_eq!(minisim.places.len(), minisim.slots.len());
        for (place, slot) in minisim.slots.iter().enumerate() {
            assert_eq!(minisim.places[&slot.hash], place as u32);
        }
    }

    #[test]
    fn sums_and_places_are_right_after_every_access_and_the_budget_is_kept() {
        for seed in 0..8 {
            println!("seed {seed}");
            let mut rng = Rng::new(seed);
            let policy_config = POLICY_CONFIGS[seed as usize % POLICY_CONFIGS.len()];
            let mut minisim = MiniSim::with_room(50);
            // Sums of the entry counts, with the smaller budget and with both.
            let (mut few, mut all) = (0, 0);
            for now in 0..2_000 {
                // The budget goes down and up again.
                let max = if now % 500 < 300 { 100 } else { 40 };
                let hash = rng.below(60) * rng.below(3);
                let cost = 1 + hash % 30;
                let was_there = minisim.places.contains_key(&hash);
                let new = Access { hash, cost, weight: 1 + hash % 3, frequency: 3, now };
                assert_eq!(minisim.access(new, max, policy_config, &mut Rng::new(seed)), was_there);
                // A hit changes nothing; an insert stays within the budget.
                check(&minisim, if was_there { 100 } else { max });
                few += if max == 40 { minisim.slots.len() } else { 0 };
                all += minisim.slots.len();
            }
            assert!(few > 2 * 800 && all > 4 * 2_000, "{few} in 800 looks, {all} in 2000");
        }
    }

    #[test]
    fn entry_of_the_whole_budget_is_inserted_and_a_larger_one_is_not() {
        let (mut minisim, mut rng) = (MiniSim::with_room(4), Rng::new(1));
        assert!(!minisim.access(access(1, 1, 0), 10, HALF, &mut rng));
        assert!(!minisim.access(Access { cost: 11, ..access(2, 1, 0) }, 10, HALF, &mut rng));
        assert!(minisim.access(access(1, 2, 0), 10, HALF, &mut rng));
        assert!(!minisim.access(access(2, 2, 0), 10, HALF, &mut rng));
        let mut minisim = MiniSim::with_room(4);
        for is_hit in [false, true] {
            let all = Access { cost: 10, ..access(3, 1, 0) };
            assert_eq!(minisim.access(all, 10, HALF, &mut rng), is_hit);
        }
    }

    #[test]
    fn oldest_unreferenced_entry_of_a_full_window_moves_to_main() {
        let (mut minisim, mut rng) = (MiniSim::with_room(10), Rng::new(1));
        (1..=5).for_each(|hash| _ = minisim.access(access(hash, 1, 0), 10, HALF, &mut rng));
        assert_eq!(in_main(&minisim), []);
        let _ = minisim.access(access(6, 1, 0), 10, HALF, &mut rng);
        assert_eq!(in_main(&minisim), [1]);
        assert!(minisim.access(access(2, 2, 0), 10, HALF, &mut rng));
        let _ = minisim.access(access(7, 1, 0), 10, HALF, &mut rng);
        assert_eq!(in_main(&minisim), [1, 3]);
    }

    #[test]
    fn at_most_max_turns_entries_are_requeued_in_a_row() {
        let (mut minisim, mut rng) = (MiniSim::with_room(40), Rng::new(1));
        for _ in 0..2 {
            (1..=20).for_each(|hash| _ = minisim.access(access(hash, 1, 0), 40, HALF, &mut rng));
        }
        let _ = minisim.access(access(21, 1, 0), 40, HALF, &mut rng);
        assert_eq!(in_main(&minisim), [MAX_TURNS as u64 + 1]);
    }

    #[test]
    fn candidate_has_to_beat_the_victim_of_main() {
        for (frequency, expected) in [(1, 1), (5, 2)] {
            let mut goes = 0;
            for seed in 0..100 {
                let (mut minisim, mut rng) = (MiniSim::with_room(4), Rng::new(seed));
                // Entry 1, of frequency 3, has been idle in main for long when 2 leaves the window.
                let _ = minisim.access(access(1, 3, 0), 2, HALF, &mut rng);
                let _ = minisim.access(access(2, frequency, 100), 2, HALF, &mut rng);
                assert_eq!(in_main(&minisim), [1]);
                let _ = minisim.access(access(3, 1, 100), 2, HALF, &mut rng);
                check(&minisim, 2);
                goes += usize::from(in_main(&minisim) == [expected]);
            }
            // A few samples miss it.
            assert!((90..=100).contains(&goes), "{goes} at {frequency}");
        }
    }

    #[test]
    fn victim_is_the_worst_of_a_sample_of_main() {
        let (mut minisim, mut rng) = (MiniSim::with_room(10), Rng::new(1));
        assert_eq!(minisim.victim(0, &mut rng), None);
        for hash in 1..=10 {
            let _ = minisim.access(access(hash, 1, hash as u32), 10, HALF, &mut rng);
        }
        assert_eq!(in_main(&minisim), [1, 2, 3, 4, 5]);
        let mut chosen = [0; 11];
        for _ in 0..1000 {
            let place = minisim.victim(1000, &mut rng).unwrap();
            chosen[minisim.slots[place].hash as usize] += 1;
        }
        // A sample of five draws among five entries misses the oldest with probability (4/5)^5, a
        // third, and so on. No entry of the window is chosen.
        assert!((600..750).contains(&chosen[1]), "{chosen:?}");
        assert!(chosen[1] > 2 * chosen[2] && chosen[2] > chosen[3] && chosen[3] > 0, "{chosen:?}");
        assert_eq!(chosen[6..], [0; 5]);
    }

    #[test]
    fn new_entry_is_evicted_if_no_victim_is_found_and_the_window_is_within_its_share() {
        let (mut minisim, mut rng) = (MiniSim::with_room(10), Rng::new(1));
        let mut insert = |hash, cost| {
            let access = Access { hash, cost, weight: 1, frequency: 1, now: 0 };
            assert!(!minisim.access(access, 100, HALF, &mut rng));
        };
        // One entry in main, hard to find among ten thousand, and a window that fills its share.
        insert(0, 51);
        (1..10_000).for_each(|hash| insert(hash, 0));
        insert(10_000, 49);
        insert(10_001, 1);
        assert_eq!(in_main(&minisim), [0]);
        assert_eq!((minisim.slots.len(), minisim.cost), (10_001, 100));
        assert!(!minisim.places.contains_key(&10_001));
        assert_eq!(minisim.window_cost, 49);
    }

    #[test]
    fn weights_have_a_mean_of_their_own() {
        let (mut minisim, mut rng) = (MiniSim::with_room(4), Rng::new(1));
        assert_eq!(minisim.mean_weight(), 0);
        for (hash, weight) in [(1, 1), (2, 4), (3, 7)] {
            let _ = minisim.access(
                Access { cost: 2, weight, ..access(hash, 1, 0) },
                10,
                HALF,
                &mut rng,
            );
        }
        assert_eq!(minisim.mean_weight(), 4);
    }

    #[test]
    fn memory_is_that_of_slots_places_and_window() {
        let minisim = MiniSim::with_room(100);
        let (slots, places) = (minisim.slots.capacity(), minisim.places.capacity());
        assert!(slots > 100 && places > 100 && minisim.window.capacity() > 100);
        let window = 8 * minisim.window.capacity();
        assert_eq!(minisim.bytes(), size_of::<Slot>() * slots + 16 * places + window);
        assert_eq!(MiniSim::default().bytes(), 0);
    }
}
