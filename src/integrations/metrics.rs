//! Integration with the `metrics` crate: exports the metrics of a cache as counters and gauges of
//! the installed recorder.
//!
//! | name | kind | meaning |
//! |---|---|---|
//! | `cortado_<field>_total` | counter | each count of [`Metrics`], such as `cortado_hits_total` |
//! | `cortado_entries` | gauge | the number of entries |
//! | `cortado_cost`, `cortado_max_cost` | gauge | the cost of the entries, and the budget |
//! | `cortado_memory_bytes` | gauge, one for each `part` | [`MemoryUse`](crate::MemoryUse) |
//! | `cortado_garbage_cost`, `cortado_garbage_entries` | gauge | unlinked entries not yet freed |
//! | `cortado_stalled_readers` | gauge | [threads](crate::StalledReader) that hold back garbage |
//! | `cortado_life_seconds` | gauge, one for each `quantile` | lifetimes of evicted entries |
//! | `cortado_load_seconds` | gauge, one for each `quantile` | load times |
//!
//! Each has the label `cache`, the [name](crate::CacheBuilder::name) of the cache. Counters stay at
//! 0 unless the builder turned [`metrics`](crate::CacheBuilder::metrics) on. With the feature
//! `crossbeam-epoch` there is no `cortado_stalled_readers`, because its collector does not report
//! which threads are pinned.

use std::{
    fmt,
    hash::{BuildHasher, Hash},
};

use ::metrics::{Counter, Gauge, Unit, counter, describe_counter, describe_gauge, gauge};

use crate::{
    cache::{Cache, DefaultHashBuilder},
    metrics::Metrics,
    reclaim::READERS_ARE_KNOWN,
};

/// The parts of the memory, as labels.
const PARTS: [&str; 5] = ["table", "entries", "sketch", "buffers", "deadlines"];
/// The exported quantiles, with their labels.
const QUANTILES: [(f64, &str); 4] = [(0.1, "0.1"), (0.5, "0.5"), (0.9, "0.9"), (0.99, "0.99")];

/// Exports the metrics of one cache at each call of [`publish`](Self::publish).
///
/// It holds a handle of the cache, and the handles of the recorder that is installed when the
/// exporter is created. Call `publish` before a scrape, or every few seconds.
///
/// # Examples
///
/// ```
/// use cortado::{Cache, integrations::metrics::Exporter};
///
/// let cache = Cache::builder().max_cost(10).name("sessions").metrics(true).build()?;
/// let exporter = Exporter::new(cache.clone());
/// cache.insert("k", 1);
/// exporter.publish();
/// # Ok::<(), cortado::BuildError>(())
/// ```
pub struct Exporter<K, V, S = DefaultHashBuilder> {
    cache: Cache<K, V, S>,
    counters: Vec<Counter>,
    entries: Gauge,
    cost: Gauge,
    max_cost: Gauge,
    /// The gauges of [`PARTS`].
    memory: [Gauge; 5],
    garbage_cost: Gauge,
    garbage_entries: Gauge,
    /// `None` if the collector does not report stalled readers.
    stalled_readers: Option<Gauge>,
    lives: Quantiles,
    load_times: Quantiles,
}

/// A gauge for each of some quantiles.
type Quantiles = [(f64, Gauge); QUANTILES.len()];

impl<K, V, S> Exporter<K, V, S>
where
    K: Hash + Eq,
    S: BuildHasher,
{
    /// Creates an exporter; registers and describes all names.
    pub fn new(cache: Cache<K, V, S>) -> Self {
        let label = cache.name().to_owned();
        let name = |field| format!("cortado_{field}_total");
        for (field, meaning) in Metrics::MEANINGS {
            describe_counter!(name(field), Unit::Count, meaning.trim());
        }
        describe_gauge!("cortado_entries", Unit::Count, "Entries.");
        describe_gauge!("cortado_cost", "Cost of the entries.");
        describe_gauge!("cortado_max_cost", "The budget: the limit of the cost.");
        describe_gauge!("cortado_memory_bytes", Unit::Bytes, "Memory, by part.");
        describe_gauge!("cortado_garbage_cost", "Cost of entries unlinked and not yet freed.");
        describe_gauge!(
            "cortado_garbage_entries",
            Unit::Count,
            "Entries unlinked and not yet freed."
        );
        if READERS_ARE_KNOWN {
            describe_gauge!(
                "cortado_stalled_readers",
                Unit::Count,
                "Threads that have been in one pin for 100 ms and hold back garbage."
            );
        }
        describe_gauge!(
            "cortado_life_seconds",
            Unit::Seconds,
            "Lifetimes of evicted entries, by quantile."
        );
        describe_gauge!("cortado_load_seconds", Unit::Seconds, "Load times, by quantile.");
        let quantiles = |name: &'static str| {
            QUANTILES.map(|(part, quantile)| {
                let labels = [("cache", label.clone()), ("quantile", quantile.to_owned())];
                (part, gauge!(name, &labels))
            })
        };
        let fields = Metrics::MEANINGS.iter().map(|(field, _)| field);
        Self {
            counters: fields.map(|field| counter!(name(field), "cache" => label.clone())).collect(),
            entries: gauge!("cortado_entries", "cache" => label.clone()),
            cost: gauge!("cortado_cost", "cache" => label.clone()),
            max_cost: gauge!("cortado_max_cost", "cache" => label.clone()),
            memory: PARTS.map(
                |part| gauge!("cortado_memory_bytes", "cache" => label.clone(), "part" => part),
            ),
            garbage_cost: gauge!("cortado_garbage_cost", "cache" => label.clone()),
            garbage_entries: gauge!("cortado_garbage_entries", "cache" => label.clone()),
            stalled_readers: READERS_ARE_KNOWN
                .then(|| gauge!("cortado_stalled_readers", "cache" => label.clone())),
            lives: quantiles("cortado_life_seconds"),
            load_times: quantiles("cortado_load_seconds"),
            cache,
        }
    }

    /// Exports the current values. Counters are set to the absolute counts of the cache, so
    /// repeated calls count nothing twice. Takes a few microseconds.
    pub fn publish(&self) {
        let (metrics, memory) = (self.cache.metrics(), self.cache.memory());
        for (counter, (_, count)) in self.counters.iter().zip(metrics.counts()) {
            counter.absolute(count);
        }
        self.entries.set(self.cache.len() as f64);
        self.cost.set(self.cache.cost() as f64);
        self.max_cost.set(self.cache.max_cost() as f64);
        let parts = [memory.table, memory.entries, memory.sketch, memory.buffers, memory.deadlines];
        for (gauge, bytes) in self.memory.iter().zip(parts) {
            gauge.set(bytes as f64);
        }
        self.garbage_cost.set(memory.garbage as f64);
        self.garbage_entries.set(memory.garbage_entries as f64);
        if let Some((gauge, stalled)) = self.stalled_readers.as_ref().zip(memory.stalled_readers) {
            gauge.set(stalled as f64);
        }
        let histograms =
            [(&self.lives, &metrics.life_expectancy), (&self.load_times, &metrics.load_times)];
        for (gauges, histogram) in histograms {
            for (part, gauge) in gauges {
                if let Some(end) = histogram.quantile(*part) {
                    gauge.set(end.as_secs_f64());
                }
            }
        }
    }
}

impl<K, V, S> fmt::Debug for Exporter<K, V, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Exporter").field("cache", &self.cache).finish_non_exhaustive()
    }
}
