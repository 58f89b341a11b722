//! This crate, through its public interface.
//!
//! In a replay by one thread it runs without its own, with a fixed seed; elsewhere as users have it.

use anyhow::{Context as _, Result};
use cortado::{Cache, EvictionPolicy, Maintenance};

use super::{Peer, Settings, Value};

/// `cortado::Cache`.
pub struct Cortado<V: Value>(Cache<u64, V>);

impl<V: Value> Cortado<V> {
    /// Builds one that is after the most cost hit, not the most entries.
    pub fn build_for_bytes(settings: &Settings) -> Result<Self> {
        Self::build_with(settings, EvictionPolicy::Frequency, false)
    }

    /// Builds one that counts.
    pub fn build_with_metrics(settings: &Settings) -> Result<Self> {
        Self::build_with(settings, EvictionPolicy::FrequencyPerCost, true)
    }

    fn build_with(settings: &Settings, policy: EvictionPolicy, metrics: bool) -> Result<Self> {
        let maintenance = if settings.replay { Maintenance::Manual } else { Maintenance::Thread };
        let mut builder = Cache::builder()
            .max_cost(settings.capacity as u64)
            .expected_entries(settings.entries)
            .maintenance(maintenance)
            .metrics(metrics)
            .eviction_policy(policy)
            .seed(settings.seed);
        if V::HAS_COST {
            builder = builder.cost_of(|_, value: &V| value.cost());
        }
        builder.build().map(Self).context("cortado could not be built")
    }
}

impl<V: Value> Peer<V> for Cortado<V> {
    fn build(settings: &Settings) -> Result<Self> {
        Self::build_with(settings, EvictionPolicy::FrequencyPerCost, false)
    }

    #[inline]
    fn get(&self, key: u64) -> bool {
        self.0.get(&key).is_some_and(|value| {
            value.look();
            true
        })
    }

    #[inline]
    fn insert(&self, key: u64, value: V) {
        // Rejected or not: a later get shows it.
        let _ = self.0.insert(key, value);
    }

    fn settle(&self) {
        self.0.flush();
    }

    fn len(&self) -> Option<usize> {
        Some(self.0.len())
    }

    #[inline]
    fn get_many(&self, keys: &[u64]) -> Option<usize> {
        let mut hits = 0;
        self.0.get_many(keys, |_, value| {
            if let Some(value) = value {
                value.look();
                hits += 1;
            }
        });
        Some(hits)
    }

    fn reachable(&self) -> Option<u64> {
        Some(self.0.cost())
    }
}
