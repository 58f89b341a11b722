//! For the `metrics` crate: the figures of a near cache as counters and gauges of the recorder that
//! is installed.

use std::{fmt, hash::Hash};

use ::metrics::{Counter, Gauge, Unit, counter, describe_counter, describe_gauge, gauge};

use crate::{NearCache, metrics::NearMetrics, state::Phase};

/// Publishes the figures of a near cache, each time that [`publish`](Self::publish) is called.
///
/// The local cache's go by the names of [`cortado::integrations::metrics`]; beside them there are
/// `cortado_near_<field>_total` for each count of [`NearMetrics`], and the gauges
/// `cortado_near_connected` (1 or 0) and `cortado_near_generation`. Each has the label `cache`, the
/// local cache's [name](cortado::CacheBuilder::name).
///
/// # Examples
///
/// ```no_run
/// # async fn run(near: cortado_near::NearCache<u64, String>) {
/// let exporter = cortado_near::Exporter::new(near.clone());
/// exporter.publish(); // before a scrape, or every few seconds
/// # }
/// ```
pub struct Exporter<K, V> {
    near: NearCache<K, V>,
    local: cortado::integrations::metrics::Exporter<K, Option<V>>,
    counters: Vec<Counter>,
    connected: Gauge,
    generation: Gauge,
}

impl<K, V> Exporter<K, V>
where
    K: Hash + Eq + Clone + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
{
    /// Registers and describes all names.
    pub fn new(near: NearCache<K, V>) -> Self {
        let label = near.local().name().to_owned();
        let name = |field| format!("cortado_near_{field}_total");
        for (field, meaning) in NearMetrics::MEANINGS {
            describe_counter!(name(field), Unit::Count, meaning.trim());
        }
        describe_gauge!("cortado_near_connected", "1 while the tracked connection is up.");
        describe_gauge!("cortado_near_generation", "How often the cache has emptied itself.");
        Self {
            local: cortado::integrations::metrics::Exporter::new(near.local().clone()),
            counters: NearMetrics::MEANINGS
                .iter()
                .map(|(field, _)| counter!(name(field), "cache" => label.clone()))
                .collect(),
            connected: gauge!("cortado_near_connected", "cache" => label.clone()),
            generation: gauge!("cortado_near_generation", "cache" => label),
            near,
        }
    }

    /// Hands the figures of this moment to the recorder.
    pub fn publish(&self) {
        self.local.publish();
        for (counter, count) in self.counters.iter().zip(self.near.metrics().counts()) {
            counter.absolute(count);
        }
        let state = self.near.state();
        self.connected.set(f64::from(u8::from(state.phase == Phase::Connected)));
        self.generation.set(state.generation as f64);
    }
}

impl<K, V> fmt::Debug for Exporter<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Exporter").finish_non_exhaustive()
    }
}
