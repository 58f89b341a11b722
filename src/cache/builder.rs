//! `CacheBuilder`: every setting, checked once.

use std::hash::{BuildHasher, Hash};

use super::{Cache, DefaultHashBuilder};
use crate::{
    config::{
        DEFAULT_ENTRIES, DEFAULT_ENTRIES_BY_COST, MAX_ENTRIES, Maintenance, Settings, Victim,
    },
    engine::{CostOf, Engine},
    error::BuildError,
    evictor::Evictor,
    sync::Arc,
};

/// Builds a [`Cache`]. Only [`max_cost`](Self::max_cost) has to be set.
///
/// # Examples
///
/// ```
/// use cortado::{BuildError, Cache};
///
/// let cache: Cache<u64, String> =
///     Cache::builder().max_cost(10_000).name("sessions").metrics(true).build()?;
/// assert_eq!(cache.name(), "sessions");
///
/// let nothing = Cache::<u64, u64>::builder().build();
/// assert_eq!(nothing.unwrap_err(), BuildError::MaxCostZero);
/// # Ok::<(), BuildError>(())
/// ```
#[must_use = "a builder does nothing until it builds"]
pub struct CacheBuilder<K, V, S = DefaultHashBuilder> {
    max_cost: u64,
    expected_entries: Option<usize>,
    max_garbage: Option<u64>,
    maintenance: Maintenance,
    victim: Victim,
    seed: Option<u64>,
    metrics: bool,
    charge_overhead: bool,
    name: String,
    cost_of: Option<CostOf<K, V>>,
    hasher: S,
}

impl<K, V> CacheBuilder<K, V> {
    pub(super) fn new() -> Self {
        Self {
            max_cost: 0,
            expected_entries: None,
            max_garbage: None,
            maintenance: Maintenance::default(),
            victim: Victim::default(),
            seed: None,
            metrics: false,
            charge_overhead: false,
            name: String::new(),
            cost_of: None,
            hasher: DefaultHashBuilder::new(),
        }
    }
}

impl<K, V, S> CacheBuilder<K, V, S> {
    /// Sets the budget: the limit of the sum of all entries' costs, in whatever unit they have.
    pub fn max_cost(mut self, max_cost: u64) -> Self {
        self.max_cost = max_cost;
        self
    }

    /// Says for how many entries to make the table and the sketch; both still grow.
    ///
    /// By default as many as the budget allows if each costs 1 (at most 16 384), or a few thousand if
    /// there is a [`cost_of`](Self::cost_of). Name the number if it is large and known: growing costs
    /// time, though nobody waits for it, and a table made to measure keeps some room between entries.
    pub fn expected_entries(mut self, entries: usize) -> Self {
        self.expected_entries = Some(entries);
        self
    }

    /// The same as [`expected_entries`](Self::expected_entries) by the name and in the measure of
    /// Ristretto and Stretto: ten counters an entry.
    pub fn num_counters(self, counters: usize) -> Self {
        self.expected_entries(counters.div_ceil(COUNTERS_PER_ENTRY))
    }

    /// Sets what an entry costs, from its key and value. By default 1.
    ///
    /// It runs on the thread that inserts, before anything else happens.
    pub fn cost_of(mut self, cost_of: impl Fn(&K, &V) -> u64 + Send + Sync + 'static) -> Self {
        self.cost_of = Some(Box::new(cost_of));
        self
    }

    /// Sets how keys are hashed.
    ///
    /// The cache spreads the hash again, so one that has its bits in a corner will do. A hash
    /// without random keys lets whoever chooses the keys crowd them into one bucket.
    pub fn hasher<H>(self, hasher: H) -> CacheBuilder<K, V, H> {
        CacheBuilder {
            max_cost: self.max_cost,
            expected_entries: self.expected_entries,
            max_garbage: self.max_garbage,
            maintenance: self.maintenance,
            victim: self.victim,
            seed: self.seed,
            metrics: self.metrics,
            charge_overhead: self.charge_overhead,
            name: self.name,
            cost_of: self.cost_of,
            hasher,
        }
    }

    /// Sets what the choice of victims maximises.
    pub fn victim(mut self, victim: Victim) -> Self {
        self.victim = victim;
        self
    }

    /// Sets who does the deferred work.
    pub fn maintenance(mut self, maintenance: Maintenance) -> Self {
        self.maintenance = maintenance;
        self
    }

    /// Limits the cost of what is unlinked and not yet freed; above it inserts are rejected.
    ///
    /// Garbage grows only while a reader holds on to a value or pin. By default the limit is the
    /// budget itself, and a thousand entries are never too many.
    pub fn max_garbage(mut self, cost: u64) -> Self {
        self.max_garbage = Some(cost);
        self
    }

    /// Sets where the random choices of the policy begin. With a fixed hasher,
    /// [`Maintenance::Manual`] and one thread, the same calls then have the same results.
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self
    }

    /// Turns the counters of [`Cache::metrics`] on.
    pub fn metrics(mut self, metrics: bool) -> Self {
        self.metrics = metrics;
        self
    }

    /// Adds the bytes of an entry in memory (marks, cost, key and value, inline) to its cost.
    pub fn charge_overhead(mut self, charge: bool) -> Self {
        self.charge_overhead = charge;
        self
    }

    /// Names the cache, and its thread.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// Builds the cache, and starts its thread unless maintenance is manual.
    ///
    /// # Errors
    ///
    /// [`BuildError`] if the budget is 0, if more entries are expected than a table can have, or
    /// if the system gives no thread.
    pub fn build(self) -> Result<Cache<K, V, S>, BuildError>
    where
        K: Hash + Eq + Send + Sync + 'static,
        V: Send + Sync + 'static,
        S: BuildHasher + Send + Sync + 'static,
    {
        let threaded = self.maintenance == Maintenance::Thread;
        let mut cache = self.assemble()?;
        if threaded {
            let evictor = Evictor::start(Arc::clone(&cache.engine))
                .map_err(|error| BuildError::SpawnFailed(error.to_string()))?;
            cache.evictor = Some(Arc::new(evictor));
        }
        Ok(cache)
    }

    /// Builds a cache with [`Maintenance::Manual`] whose keys and values may borrow.
    ///
    /// # Errors
    ///
    /// As [`build`](Self::build).
    ///
    /// # Examples
    ///
    /// ```
    /// let text = String::from("borrowed");
    /// let cache = cortado::Cache::builder().max_cost(10).build_manual()?;
    /// cache.insert(1, text.as_str());
    /// assert_eq!(*cache.get(&1).unwrap(), "borrowed");
    /// # Ok::<(), cortado::BuildError>(())
    /// ```
    pub fn build_manual(self) -> Result<Cache<K, V, S>, BuildError>
    where
        K: Hash + Eq + Send + Sync,
        V: Send + Sync,
        S: BuildHasher,
    {
        self.maintenance(Maintenance::Manual).assemble()
    }

    fn assemble(self) -> Result<Cache<K, V, S>, BuildError> {
        if self.max_cost == 0 {
            return Err(BuildError::MaxCostZero);
        }
        let by_cost = self.cost_of.is_some() || self.charge_overhead;
        let most = if by_cost { DEFAULT_ENTRIES_BY_COST } else { DEFAULT_ENTRIES };
        let expected_entries =
            self.expected_entries.unwrap_or_else(|| self.max_cost.min(most) as usize);
        if expected_entries > MAX_ENTRIES {
            return Err(BuildError::TooManyEntries { given: expected_entries, limit: MAX_ENTRIES });
        }
        let settings = Settings {
            name: self.name,
            max_cost: self.max_cost,
            expected_entries,
            max_garbage: self.max_garbage,
            maintenance: self.maintenance,
            victim: self.victim,
            seed: self.seed.unwrap_or_else(random_seed),
            metrics: self.metrics,
            charge_overhead: self.charge_overhead,
        };
        let engine = Arc::new(Engine::new(settings, self.hasher, self.cost_of));
        Ok(Cache { evictor: None, engine })
    }
}

impl<K, V, S> std::fmt::Debug for CacheBuilder<K, V, S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CacheBuilder")
            .field("name", &self.name)
            .field("max_cost", &self.max_cost)
            .field("expected_entries", &self.expected_entries)
            .field("maintenance", &self.maintenance)
            .finish_non_exhaustive()
    }
}

fn random_seed() -> u64 {
    DefaultHashBuilder::new().hash_one(0)
}

const COUNTERS_PER_ENTRY: usize = 10;
