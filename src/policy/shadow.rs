//! `Shadow`: a miniature of the cache, which plays its policy on a sample of the keys.
//!
//! To judge a setting by a cache for a hash sample of the keys, scaled down alike, is the idea of
//! miniature simulation (Waldspurger, Saemundsson, Ahmad, Park: "Cache Modeling and Optimization
//! using Miniature Simulations", 2017). Here it is the same decisions as in the cache itself, on a
//! plain vector.

use std::{
    collections::{HashMap, VecDeque},
    hash::{BuildHasherDefault, Hasher},
};

use super::{
    admission::Contender,
    race::Setting,
    victim::{Traits, burden},
};
use crate::{entry::Marks, util::Rng};

/// One access, as the sample has it.
#[derive(Clone, Copy, Debug)]
pub struct Access {
    /// The hash of the key.
    pub hash: u64,
    /// What the entry costs of the budget.
    pub cost: u64,
    /// What it costs in the eyes of the policy.
    pub weight: u64,
    /// How often the key was seen of late, this access included.
    pub frequency: u8,
    /// The pulse.
    pub now: u32,
}

/// A miniature cache.
#[derive(Debug, Default)]
pub struct Shadow {
    slots: Vec<Slot>,
    places: HashMap<u64, u32, BuildHasherDefault<Spread>>,
    window: VecDeque<u64>,
    window_cost: u64,
    cost: u64,
}

/// What it knows of an entry. The hits in its marks are the frequency at its last access, which
/// ages as the real one does.
#[derive(Clone, Copy, Debug)]
struct Slot {
    hash: u64,
    cost: u64,
    weight: u64,
    marks: Marks,
}

impl Shadow {
    /// Makes an empty cache with memory for `entries` entries.
    pub fn with_room(entries: usize) -> Self {
        // One comes before another goes.
        let room = entries + 1;
        Self {
            slots: Vec::with_capacity(room),
            places: HashMap::with_capacity_and_hasher(room, BuildHasherDefault::default()),
            window: VecDeque::with_capacity(room),
            window_cost: 0,
            cost: 0,
        }
    }

    /// Plays an access in a cache of budget `max`; returns whether it is a hit.
    pub fn access(&mut self, access: Access, max: u64, setting: Setting, rng: &mut Rng) -> bool {
        let Access { hash, cost, weight, frequency, now } = access;
        if let Some(&place) = self.places.get(&hash) {
            let slot = &mut self.slots[place as usize];
            slot.marks = slot.marks.seen(frequency, now);
            return true;
        }
        if cost > max {
            return false;
        }
        self.places.insert(hash, self.slots.len() as u32);
        self.slots.push(Slot { hash, cost, weight, marks: Marks::new(frequency, now) });
        self.window.push_back(hash);
        self.window_cost += cost;
        self.cost += cost;
        let share = setting.share_of(max);
        while self.window_cost > share.saturating_add(self.cost.saturating_sub(max)) {
            // The cache is filling, or its budget was raised.
            if self.leaver().is_none() {
                break;
            }
        }
        while self.cost > max {
            let leaver = if self.window_cost > share { self.leaver() } else { None };
            let victim = self.victim(now, rng).or(leaver).unwrap_or(self.slots.len() - 1);
            let goes = match leaver {
                Some(leaver) if leaver != victim => {
                    let mean = self.mean_weight();
                    let (one, other) = (self.contender(leaver, now), self.contender(victim, now));
                    if setting.rule.admits(one, other, mean, rng.next_u64()) {
                        victim
                    } else {
                        leaver
                    }
                }
                _ => victim,
            };
            self.remove(goes);
        }
        false
    }

    /// Returns the bytes it takes.
    pub fn bytes(&self) -> usize {
        self.slots.capacity() * size_of::<Slot>()
            + self.places.capacity() * size_of::<(u64, u32)>()
            + self.window.capacity() * size_of::<u64>()
    }

    /// Moves the oldest entry of the window to main; one that was used meanwhile has another turn.
    fn leaver(&mut self) -> Option<usize> {
        let mut turns = 0;
        while let Some(hash) = self.window.pop_front() {
            let Some(&place) = self.places.get(&hash) else { continue };
            let slot = &mut self.slots[place as usize];
            if !slot.marks.is_in_window() {
                continue;
            }
            if slot.marks.is_touched() && turns < MOST_TURNS {
                turns += 1;
                slot.marks = slot.marks.untouched();
                self.window.push_back(hash);
                continue;
            }
            slot.marks = slot.marks.in_main();
            self.window_cost -= slot.cost;
            return Some(place as usize);
        }
        None
    }

    /// Returns the worst of a small sample of main.
    fn victim(&self, now: u32, rng: &mut Rng) -> Option<usize> {
        let mut worst = None;
        let mut seen = 0;
        for _ in 0..MOST_LOOKS {
            let place = rng.below(self.slots.len() as u64) as usize;
            let Some(slot) = self.slots.get(place) else { break };
            if slot.marks.is_in_window() {
                continue;
            }
            let (touched, idle) = (slot.marks.is_touched(), slot.marks.idle(now));
            let burden = burden(Traits { touched, idle, cost: slot.weight });
            if worst.is_none_or(|(most, _)| burden > most) {
                worst = Some((burden, place));
            }
            seen += 1;
            if seen == SAMPLE {
                break;
            }
        }
        worst.map(|(_, place)| place)
    }

    fn contender(&self, place: usize, now: u32) -> Contender {
        let slot = self.slots[place];
        Contender { frequency: slot.marks.hits(now), cost: slot.weight }
    }

    fn mean_weight(&self) -> u64 {
        let slots = self.slots.len().max(1) as u64;
        // All weights are 1, or they are the costs.
        match self.slots.first() {
            Some(slot) if slot.weight != slot.cost => 1,
            _ => self.cost / slots,
        }
    }

    fn remove(&mut self, place: usize) {
        let slot = self.slots.swap_remove(place);
        self.places.remove(&slot.hash);
        if let Some(moved) = self.slots.get(place) {
            self.places.insert(moved.hash, place as u32);
        }
        self.cost -= slot.cost;
        if slot.marks.is_in_window() {
            self.window_cost -= slot.cost;
        }
    }
}

/// Hashes are spread already.
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

/// Entries looked at to find a victim, and slots tried for them.
const SAMPLE: usize = 5;
const MOST_LOOKS: usize = 64;
/// Turns given in the window in a row.
const MOST_TURNS: usize = 8;
