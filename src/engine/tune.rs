//! The tuner, and other settings that adapt to how many entries fill the budget.

use std::collections::VecDeque;

use super::{Engine, place::borrow, read::turn_mask};
use crate::{
    config::EvictionPolicy,
    policy::{
        minisim,
        tuner::{Choice, Scale, Tuner},
    },
    primitives::striped::CAPACITY,
    reclaim::Guard,
    sync::atomic::Ordering,
};

/// The most samples that may be buffered.
const MAX_SAMPLES: usize = 256;
/// One call simulates one sample, and of those that wait, one in so many: a writer pays for a few at
/// a time, and none is lost while the tuner keeps up.
const WAITING_PER_SAMPLE: usize = 4;
/// Buckets that are read for a sample, and the factor by which there may be more in a nearly empty
/// table.
pub(super) const SAMPLE_BUCKETS: usize = 40;
const MAX_SPREAD: usize = 8;

/// The tuner and its input.
#[derive(Debug)]
pub struct Tuning {
    tuner: Tuner,
    scale: Scale,
    /// Accesses of the sample that were not simulated yet.
    samples: VecDeque<u64>,
}

impl Tuning {
    /// Makes a tuner with the first configuration; `seed` seeds random choices.
    pub fn new(seed: u64, scale: Scale) -> Self {
        Self {
            tuner: Tuner::new(seed),
            scale,
            // Preallocated: a hit may push to it, and hits do not allocate.
            samples: VecDeque::with_capacity(MAX_SAMPLES + CAPACITY),
        }
    }

    pub(super) fn bytes(&self) -> usize {
        self.tuner.bytes() + self.samples.capacity() * size_of::<u64>()
    }
}

impl<K, V, S> Engine<K, V, S> {
    /// Buffers accesses for the tuner; whole batches are dropped if it does not keep up.
    pub(super) fn take_samples(&self, hashes: &[u64]) {
        borrow(&self.tuning, |tuning| {
            if tuning.samples.len() < MAX_SAMPLES {
                tuning.samples.extend(hashes);
            }
            self.has_samples.store(true, Ordering::Relaxed); // Relaxed: a hint.
        });
    }

    /// Simulates some of the buffered accesses, and applies the tuner's choice.
    pub(super) fn tune(&self, guard: &Guard, tuning: &mut Tuning) {
        let costs_vary = self.costs_vary();
        for _ in 0..1 + tuning.samples.len() / WAITING_PER_SAMPLE {
            let Some(hash) = tuning.samples.pop_front() else {
                // Relaxed: a hint; samples that arrive concurrently wait for the next ones.
                return self.has_samples.store(false, Ordering::Relaxed);
            };
            let hit = self.table.find_slot(guard, hash, |found| found.has_upper_of(hash));
            let cost = match &hit {
                // The policy does not handle unevictable entries.
                Some(hit) if hit.flags().is_unevictable() => continue,
                Some(hit) => self.cost_of(hit.metadata()),
                // It was removed concurrently, and its cost is unknown.
                None if costs_vary => continue,
                None => 1,
            };
            let access = minisim::Access {
                hash,
                cost,
                weight: self.weight(cost),
                frequency: self.frequency_of(hash, hit.as_ref()),
                now: self.access_clock.now(),
            };
            let worth = match self.settings.eviction_policy {
                EvictionPolicy::FrequencyPerCost => 1,
                EvictionPolicy::Frequency => cost,
            };
            let (scale, max) = (tuning.scale, self.evictable_max());
            match tuning.tuner.simulate(access, scale, max, worth) {
                None => {}
                Some(Choice::Same) => self.adapt(guard, tuning),
                Some(Choice::Changed) => {
                    // Relaxed: any recent configuration will do.
                    self.policy_config.store(tuning.tuner.current(), Ordering::Relaxed);
                    let share = self.policy_config().share_of(max);
                    let window = self.window_cost.load(Ordering::Relaxed); // Relaxed: as above.
                    // Relaxed: as above.
                    self.surplus.store(window.saturating_sub(share), Ordering::Relaxed);
                }
            }
        }
    }

    /// Adapts everything that depends on how many entries fill the budget.
    pub(super) fn adapt(&self, guard: &Guard, tuning: &mut Tuning) {
        let capacity = self.capacity();
        self.access_clock.set_entries(capacity);
        tuning.scale = tuning.scale.adapted(capacity);
        // In a sparser table, the same number of entries is spread over more buckets.
        let slots_per_entry = self.table.slots(guard) / (self.len() as usize).max(1);
        let buckets = SAMPLE_BUCKETS * (slots_per_entry / 4).clamp(1, MAX_SPREAD);
        // Relaxed: any recent number will do. Stored only if it differs: writers share the line.
        if self.sample_buckets.load(Ordering::Relaxed) != buckets {
            self.sample_buckets.store(buckets, Ordering::Relaxed); // Relaxed: as above.
        }
        let turns = turn_mask(capacity);
        // Relaxed, twice: as above.
        if self.turn_mask.load(Ordering::Relaxed) != turns {
            self.turn_mask.store(turns, Ordering::Relaxed);
        }
        let mask = tuning.scale.mask();
        // Relaxed, twice: any recent mask will do. Stored only if it differs: readers share the
        // line.
        if self.sample_mask.load(Ordering::Relaxed) != mask {
            self.sample_mask.store(mask, Ordering::Relaxed);
        }
    }
}
