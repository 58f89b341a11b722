//! The caches that are compared, behind one small trait.
//!
//! Every cache is used as its own documentation recommends: its default hasher, a capacity hint,
//! every entry of cost 1 unless objects have sizes. The hot loops are generic over the cache, so
//! nothing is called through a pointer.

mod cortado;
mod dashmap;
mod foyer;
mod hashbrown;
mod lru;
mod mini_moka;
mod moka;
pub mod opt;
mod papaya;
mod quick_cache;
mod scc;
mod stretto;
mod tinyufo;

use std::any::Any;
use std::hint::black_box;
use std::sync::Arc;

use anyhow::{Result, bail};
use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use crate::reference::Kind as Reference;

/// A cache with `u64` keys, as the harness sees it.
pub trait Peer<V: Value>: Send + Sync + Sized {
    /// Builds an empty cache.
    fn build(settings: &Settings) -> Result<Self>;

    /// Looks a key up and, if it is there, reads its value.
    fn get(&self, key: u64) -> bool;

    /// Inserts a value or replaces the one that is there.
    fn insert(&self, key: u64, value: V);

    /// Does the work that the cache has put off.
    fn settle(&self) {}

    /// Returns the number of entries, if the cache can tell.
    fn len(&self) -> Option<usize>;

    /// Looks many keys up at once and returns the number of hits, if the cache can do that.
    fn get_many(&self, _keys: &[u64]) -> Option<usize> {
        None
    }

    /// Returns the cost of what can be found at this moment, if that is cheap and exact.
    fn reachable(&self) -> Option<u64> {
        None
    }
}

/// What a cache is built for.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// The sum of costs it may hold; if every entry costs 1, the number of entries.
    pub capacity: usize,
    /// How many entries to make room for; the capacity, if every entry costs 1.
    pub entries: usize,
    /// Whether a trace is replayed by one thread that calls [`Peer::settle`] now and then. A cache
    /// that can do without a thread of its own then does.
    pub replay: bool,
    /// Where random choices begin, if the cache lets one say.
    pub seed: u64,
}

impl Settings {
    /// Returns the settings of a cache of so many entries, as users have it.
    pub fn for_entries(capacity: usize, seed: u64) -> Self {
        Self { capacity, entries: capacity, replay: false, seed }
    }
}

/// A value to be cached.
pub trait Value: Clone + Send + Sync + 'static {
    /// Whether values have costs of their own; if not, each costs 1.
    const HAS_COST: bool = false;

    /// Makes the value that belongs to a key.
    fn make(key: u64, bytes: usize) -> Self;

    /// Reads the value, so that the compiler cannot leave the read out.
    fn look(&self);

    /// Returns what the value takes of the capacity.
    #[inline]
    fn cost(&self) -> u64 {
        1
    }
}

impl Value for u64 {
    fn make(key: u64, _bytes: usize) -> Self {
        key
    }

    fn look(&self) {
        black_box(*self);
    }
}

/// An object with a size, which is its cost. A replay keeps nothing else of it.
#[derive(Clone)]
pub struct Object {
    size: u64,
    content: Option<Arc<dyn Any + Send + Sync>>,
}

impl Object {
    /// Returns an object that has something in it; clones share that.
    pub fn with_content(size: usize, content: Arc<dyn Any + Send + Sync>) -> Self {
        Self { size: size as u64, content: Some(content) }
    }
}

impl Value for Object {
    const HAS_COST: bool = true;

    fn make(_key: u64, bytes: usize) -> Self {
        Self { size: bytes as u64, content: None }
    }

    fn look(&self) {
        black_box(&self.content);
    }

    fn cost(&self) -> u64 {
        self.size
    }
}

/// The value of the headline: 100 bytes, stored in the entry.
pub type Hundred = [u8; 100];

impl Value for Hundred {
    fn make(key: u64, _bytes: usize) -> Self {
        [key as u8; 100]
    }

    fn look(&self) {
        black_box(self[0]);
    }
}

/// A value of any other size: shared, on the heap.
pub type Heap = Arc<[u8]>;

impl Value for Heap {
    fn make(key: u64, bytes: usize) -> Self {
        std::iter::repeat_n(key as u8, bytes).collect()
    }

    fn look(&self) {
        black_box(self.first().copied());
    }
}

/// Builds an empty cache. One type of cache may be built in several ways, and what is done with it is
/// compiled once for all of them.
pub type Build<P> = fn(&Settings) -> Result<P>;

/// Something to do with a cache whose type is not known yet.
pub trait Task<V: Value> {
    /// What comes out of it.
    type Output;

    /// Does it with a cache of type `P`.
    fn run<P: Peer<V>>(self, build: Build<P>) -> Self::Output;
}

/// The caches by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, ValueEnum, Deserialize, Serialize)]
#[serde(into = "&'static str", try_from = "String")]
pub enum Kind {
    /// This crate.
    Cortado,
    /// This crate, after the most bytes hit: for `hit-ratio --sizes` alone.
    #[value(name = "cortado-bytes")]
    CortadoBytes,
    /// This crate, with its metrics on.
    #[value(name = "cortado-metrics")]
    CortadoMetrics,
    /// moka, `sync::Cache`.
    Moka,
    /// mini-moka, `sync::Cache`.
    #[value(alias = "mini_moka")]
    MiniMoka,
    /// quick_cache, `sync::Cache`.
    #[value(name = "quick_cache", alias = "quick-cache")]
    QuickCache,
    /// stretto, `Cache`.
    Stretto,
    /// TinyUFO.
    #[value(name = "tinyufo", alias = "TinyUFO")]
    TinyUfo,
    /// foyer-memory with its S3-FIFO.
    Foyer,
    /// foyer-memory with its LFU.
    #[value(name = "foyer-lfu")]
    FoyerLfu,
    /// scc, `HashCache`, 32-way associative; its capacity rounds up to a power of two.
    Scc,
    /// lru in a Mutex; in hit-ratio, a plain least-recently-used list.
    Lru,
    /// papaya, a map: evicts nothing.
    Papaya,
    /// dashmap, a map: evicts nothing.
    Dashmap,
    /// hashbrown, a map for one thread: for `throughput --workload hits` alone.
    Hashbrown,
    /// Belady's clairvoyant bound: for `hit-ratio` alone, as are the policies that follow.
    Opt,
    /// 2Q, the policy.
    #[value(name = "2q")]
    TwoQ,
    /// ARC, the policy.
    Arc,
    /// LIRS, the policy.
    Lirs,
    /// S3-FIFO, the policy.
    #[value(name = "s3-fifo")]
    S3Fifo,
    /// SIEVE, the policy.
    Sieve,
    /// W-TinyLFU with a window of 1 %, the policy.
    #[value(name = "w-tinylfu")]
    WTinyLfu,
    /// Ristretto's policy.
    Ristretto,
    /// GDSF, the policy.
    Gdsf,
}

impl Kind {
    /// What a comparison of speed shows unless caches are named.
    pub const SPEED: [Self; 11] = [
        Self::Cortado,
        Self::QuickCache,
        Self::Scc,
        Self::Moka,
        Self::MiniMoka,
        Self::Stretto,
        Self::TinyUfo,
        Self::Foyer,
        Self::Lru,
        Self::Papaya,
        Self::Dashmap,
    ];

    /// What a comparison of hit ratios shows unless caches are named.
    pub const HITS: [Self; 10] = [
        Self::Opt,
        Self::Cortado,
        Self::QuickCache,
        Self::Scc,
        Self::Moka,
        Self::MiniMoka,
        Self::Stretto,
        Self::TinyUfo,
        Self::Foyer,
        Self::Lru,
    ];

    /// What a comparison of hit ratios by size shows unless caches are named.
    pub const HITS_BY_SIZE: [Self; 7] = [
        Self::Cortado,
        Self::CortadoBytes,
        Self::QuickCache,
        Self::Moka,
        Self::MiniMoka,
        Self::Stretto,
        Self::Foyer,
    ];

    /// Returns the name, as the command line takes it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Cortado => "cortado",
            Self::CortadoBytes => "cortado-bytes",
            Self::CortadoMetrics => "cortado-metrics",
            Self::Moka => "moka",
            Self::MiniMoka => "mini-moka",
            Self::QuickCache => "quick_cache",
            Self::Stretto => "stretto",
            Self::TinyUfo => "tinyufo",
            Self::Foyer => "foyer",
            Self::FoyerLfu => "foyer-lfu",
            Self::Scc => "scc",
            Self::Papaya => "papaya",
            Self::Dashmap => "dashmap",
            Self::Hashbrown => "hashbrown",
            Self::Opt => "opt",
            _ => self.reference().map_or("", Reference::name),
        }
    }

    /// Returns the policy that stands for it in a replay, if it is not run but computed.
    pub fn reference(self) -> Option<Reference> {
        Some(match self {
            Self::Lru => Reference::Lru,
            Self::TwoQ => Reference::TwoQ,
            Self::Arc => Reference::Arc,
            Self::Lirs => Reference::Lirs,
            Self::S3Fifo => Reference::S3Fifo,
            Self::Sieve => Reference::Sieve,
            Self::WTinyLfu => Reference::WTinyLfu,
            Self::Ristretto => Reference::Ristretto,
            Self::Gdsf => Reference::Gdsf,
            _ => return None,
        })
    }

    /// Returns whether the cache keeps to a capacity at all.
    pub fn is_bounded(self) -> bool {
        !matches!(self, Self::Papaya | Self::Dashmap | Self::Hashbrown)
    }

    /// Returns whether it is this crate.
    pub fn is_own(self) -> bool {
        matches!(self, Self::Cortado | Self::CortadoBytes | Self::CortadoMetrics)
    }

    /// Returns the capacity that the cache really has, if it rounds the one that is asked for up.
    pub fn rounded_up(self, capacity: usize) -> Option<usize> {
        let rounded = match self {
            Self::Scc => capacity.next_power_of_two().max(scc::LEAST_CAPACITY),
            _ => capacity,
        };
        (rounded > capacity).then_some(rounded)
    }

    /// Returns whether cortado is measured by it: it is another cache, and one that can be built.
    pub fn is_rival(self) -> bool {
        !self.is_own() && self != Self::Opt
    }

    /// Fails for what cannot replay a trace; `by_size` says whether entries cost their size.
    pub fn check_replayable(self, by_size: bool) -> Result<()> {
        let name = self.name();
        match self {
            Self::Hashbrown => {
                bail!("hashbrown evicts nothing and cannot be written while it is shared")
            }
            Self::CortadoBytes if !by_size => bail!("{name} is like cortado without --sizes"),
            Self::Opt if by_size => bail!("opt is not defined for objects of several sizes"),
            Self::TinyUfo if by_size => bail!("{name} takes no sizes above 65535"),
            Self::Scc | Self::Papaya | Self::Dashmap if by_size => {
                bail!("{name} counts entries, not their sizes")
            }
            _ if by_size && self.reference().is_some_and(|policy| !policy.takes_sizes()) => {
                bail!("{name} counts entries, not their sizes")
            }
            _ => Ok(()),
        }
    }

    /// Returns whether the cache itself, not a policy that stands for it, takes entries of any cost.
    pub fn takes_costs(self) -> bool {
        self.reference().is_none() && self.check_replayable(true).is_ok()
    }

    /// Fails for what cannot be driven like a cache.
    pub fn check_drivable(self, hits_only: bool) -> Result<()> {
        match self {
            Self::Opt => bail!("opt needs to know the future: it is for hit-ratio only"),
            Self::CortadoBytes => bail!("cortado-bytes is for hit-ratio --sizes only"),
            _ if self != Self::Lru && self.reference().is_some() => {
                bail!("{} is computed, not run: it is for hit-ratio and compare only", self.name())
            }
            Self::Hashbrown if !hits_only => {
                bail!("hashbrown cannot be written while it is shared: it is for --workload hits")
            }
            _ => Ok(()),
        }
    }

    /// Does a task with the cache of this name.
    pub fn dispatch<V: Value, O, T: Task<V, Output = Result<O>>>(self, task: T) -> Result<O> {
        match self {
            Self::Cortado => task.run(cortado::Cortado::<V>::build),
            Self::CortadoBytes => task.run(cortado::Cortado::<V>::build_for_bytes),
            Self::CortadoMetrics => task.run(cortado::Cortado::<V>::build_with_metrics),
            Self::Moka => task.run(moka::Moka::<V>::build),
            Self::MiniMoka => task.run(mini_moka::MiniMoka::<V>::build),
            Self::QuickCache => task.run(quick_cache::QuickCache::<V>::build),
            Self::Stretto => task.run(stretto::Stretto::<V>::build),
            Self::Foyer => task.run(foyer::Foyer::<V>::build),
            Self::FoyerLfu => task.run(foyer::Foyer::<V>::build_lfu),
            // Those below count entries, so they are not compiled for values with costs.
            _ if V::HAS_COST => bail!("{} takes no costs", self.name()),
            Self::Lru => task.run(lru::Lru::<V>::build),
            Self::TinyUfo => task.run(tinyufo::TinyUfo::<V>::build),
            Self::Scc => task.run(scc::Scc::<V>::build),
            Self::Papaya => task.run(papaya::Papaya::<V>::build),
            Self::Dashmap => task.run(dashmap::Dashmap::<V>::build),
            Self::Hashbrown => task.run(hashbrown::Hashbrown::<V>::build),
            Self::Opt => bail!("opt needs to know the future: it is for hit-ratio only"),
            _ => {
                bail!("{} is computed, not run: it is for hit-ratio and compare only", self.name())
            }
        }
    }
}

impl From<Kind> for &'static str {
    fn from(kind: Kind) -> Self {
        kind.name()
    }
}

impl TryFrom<String> for Kind {
    type Error = String;

    fn try_from(name: String) -> Result<Self, String> {
        Self::from_str(&name, true)
    }
}
