//! Shared test support: counted values, audits, a simple random number generator.

#![allow(dead_code)] // each test binary uses a part

pub mod ledger;
pub mod tasks;

use std::{
    collections::HashSet,
    hash::{BuildHasher, Hash, Hasher},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use cortado::{Cache, CacheBuilder, Equivalent, Maintenance, MemoryUse};

// Threads, which are shuttle's if these tests run under shuttle (`loom_tests/tests/cache.rs`).
#[cfg(cortado_shuttle)]
pub use cortado::__internals::sync::thread;
#[cfg(not(cortado_shuttle))]
pub use std::thread;

pub const BOTH: [Maintenance; 2] = [Maintenance::Thread, Maintenance::Manual];

/// Leaks a value, but keeps its address reachable for a leak detector: for tests of values that
/// users leak.
pub fn forever<'a, T: 'a>(value: T) -> &'a T {
    static KEPT: Mutex<Vec<usize>> = Mutex::new(Vec::new());
    let value: &'a T = Box::leak(Box::new(value));
    KEPT.lock().expect("no holder panics").push(std::ptr::from_ref(value).expose_provenance());
    value
}

/// Counts the keys or values created and dropped.
#[derive(Debug, Default)]
pub struct Tally {
    made: AtomicU64,
    dropped: AtomicU64,
}

impl Tally {
    pub fn make(self: &Arc<Self>, id: u64) -> Tracked {
        self.made.fetch_add(1, SeqCst);
        Tracked { id, tally: Arc::clone(self) }
    }

    pub fn made(&self) -> u64 {
        self.made.load(SeqCst)
    }

    pub fn dropped(&self) -> u64 {
        self.dropped.load(SeqCst)
    }

    pub fn alive(&self) -> u64 {
        // In this order, so that the difference is never negative.
        let dropped = self.dropped();
        self.made() - dropped
    }
}

/// A counted key or value.
#[derive(Debug)]
pub struct Tracked {
    pub id: u64,
    tally: Arc<Tally>,
}

impl PartialEq for Tracked {
    fn eq(&self, other: &Self) -> bool {
        self.id == other.id
    }
}

impl Eq for Tracked {}

impl Hash for Tracked {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.id.hash(state);
    }
}

impl Drop for Tracked {
    fn drop(&mut self) {
        self.tally.dropped.fetch_add(1, SeqCst);
    }
}

/// The borrowed form of a tracked key.
#[derive(Clone, Copy, Debug, Hash)]
pub struct Id(pub u64);

impl Equivalent<Tracked> for Id {
    fn equivalent(&self, key: &Tracked) -> bool {
        self.0 == key.id
    }
}

/// A builder for tests, with a fixed seed and metrics.
pub fn builder<K, V>(max_cost: u64, maintenance: Maintenance) -> CacheBuilder<K, V> {
    Cache::builder().max_cost(max_cost).maintenance(maintenance).seed(1).metrics(true)
}

/// Flushes until no garbage is left. Other tests of the process may be pinned concurrently.
pub fn settle<K, V, S>(cache: &Cache<K, V, S>) -> MemoryUse
where
    K: Hash + Eq,
    S: BuildHasher,
{
    cache.flush();
    eventually("all garbage is freed", || {
        cache.flush();
        cache.memory().garbage_entries == 0
    });
    cache.memory()
}

/// Checks that the metrics agree with the contents while no thread writes.
///
/// The maintenance thread may still be working, so only a persistent difference is a failure.
pub fn audit<K, V, S>(cache: &Cache<K, V, S>)
where
    K: Hash + Eq,
    S: BuildHasher,
{
    let look = || {
        let pinned = cache.pin();
        let costs = pinned.keys().map(|key| cache.peek(key).map(|value| value.cost()));
        let costs: Option<Vec<u64>> = costs.collect();
        (costs.map(|costs| (costs.iter().sum(), costs.len())), (cache.cost(), cache.len()))
    };
    let end = Instant::now() + PATIENCE;
    loop {
        let (seen, said) = look();
        if seen == Some(said) {
            break;
        }
        assert!(Instant::now() < end, "cost and count by iteration {seen:?}, by figures {said:?}");
        thread::yield_now();
    }
    assert!(cache.cost() <= cache.max_cost());
    let pinned = cache.pin();
    let mut seen = HashSet::new();
    assert!(pinned.keys().all(|key| seen.insert(key)), "a key is there twice");
}

/// Waits until another thread has made a condition true.
pub fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < end, "waited in vain until {what}");
        thread::yield_now();
    }
}

/// Xorshift: good enough to choose operations.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16
    }

    pub fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }
}

/// Returns the seed of this run, from `CORTADO_TEST_SEED` or fixed, and prints it.
pub fn seed() -> u64 {
    let seed = std::env::var("CORTADO_TEST_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or(0xc0f_fee);
    println!("CORTADO_TEST_SEED={seed}");
    seed
}

/// Returns the factor by which tests are scaled up, from `CORTADO_TEST_SCALE`.
pub fn scale() -> u64 {
    let scale = std::env::var("CORTADO_TEST_SCALE").ok().and_then(|scale| scale.parse().ok());
    scale.unwrap_or(1)
}

/// Long enough for a busy machine. Nothing is measured by it.
const PATIENCE: Duration = Duration::from_secs(30);
