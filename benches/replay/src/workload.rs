//! What is done to a cache when its speed is measured, prepared before it starts.

use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::Result;
use clap::ValueEnum;

use crate::peers::{Build, Peer, Settings, Value};
use crate::trace::zipf::{Random, Zipf, scramble};

/// The kinds of work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Workload {
    /// Gets and sets of keys by Zipf's law, in the share that --reads says.
    Mixed,
    /// A get, and on a miss an insert of the same key.
    ReadThrough,
    /// Gets of keys that are all there.
    Hits,
    /// Inserts of keys that were never there before.
    Churn,
    /// Gets of one single key, by all threads.
    Hot,
}

impl Workload {
    /// Returns the name, as the command line takes it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Mixed => "mixed",
            Self::ReadThrough => "read-through",
            Self::Hits => "hits",
            Self::Churn => "churn",
            Self::Hot => "hot",
        }
    }

    /// Says in few words what is done.
    pub fn describe(self) -> &'static str {
        match self {
            Self::Mixed => "gets and sets of popular and rare keys",
            Self::ReadThrough => "a get, and on a miss an insert",
            Self::Hits => "gets of keys that are all there",
            Self::Churn => "inserts of new keys into a full cache",
            Self::Hot => "gets of one single key",
        }
    }
}

/// The figures of a workload.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// The kind of work.
    pub workload: Workload,
    /// The number of distinct keys.
    pub keys: u32,
    /// The number of entries the cache may hold.
    pub capacity: usize,
    /// The size of a value.
    pub value_bytes: usize,
    /// Zipf's exponent; 0 for keys all alike.
    pub zipf: f64,
    /// Percent of the operations that are gets.
    pub reads: u8,
    /// Where random choices begin.
    pub seed: u64,
}

impl Shape {
    /// Returns the usual shape of a workload, for so many keys or the usual number of them.
    pub fn usual(workload: Workload, keys: Option<u32>, seed: u64) -> Self {
        let keys = keys.unwrap_or(match workload {
            Workload::Mixed | Workload::ReadThrough | Workload::Churn => 1_000_000,
            Workload::Hits => 10_000,
            Workload::Hot => 1,
        });
        let all = keys as usize;
        let capacity = match workload {
            Workload::Mixed => (all / 5).max(1),
            Workload::ReadThrough => (all / 10).max(1),
            Workload::Hits => all + all / 4 + 64,
            Workload::Hot => (all * 2).max(1000),
            Workload::Churn => 100_000,
        };
        let zipf = match workload {
            Workload::Mixed => 1.2,
            Workload::ReadThrough => 0.99,
            Workload::Hits | Workload::Hot | Workload::Churn => 0.0,
        };
        let reads = if workload == Workload::Mixed { 80 } else { 100 };
        Self { workload, keys, capacity, value_bytes: 8, zipf, reads, seed }
    }
}

/// A shape with its sequence of steps.
pub struct Plan {
    /// What it was made from.
    pub shape: Shape,
    /// A rank each, with [`SET`] where it is set, not got. The same for every cache.
    pub steps: Vec<u32>,
    /// The keys that a cache holds at the start, in the order in which they go in.
    start: Vec<u32>,
}

/// Marks a step that is a set.
pub const SET: u32 = 1 << 31;

/// The most distinct keys.
pub const MAX_KEYS: u32 = 100_000_000;

/// The least and the most steps of a sequence.
const FEWEST_STEPS: usize = 1 << 22;
const MAX_STEPS: usize = 1 << 26;
/// The steps a second that the fastest cache is expected to take with one thread.
const STEPS_PER_SECOND: f64 = 12e6;

impl Plan {
    /// Draws the steps: enough, if possible, that no cache comes to the end in so many seconds of
    /// a thread. One that does begins again, and then finds keys it has seen before.
    pub fn new(shape: Shape, thread_seconds: f64) -> Self {
        let mut random = Random::new(shape.seed);
        let steps = if shape.workload == Workload::Churn {
            Vec::new()
        } else {
            let zipf = Zipf::new(shape.keys, shape.zipf);
            let repeats = matches!(shape.workload, Workload::Hits | Workload::Hot);
            let wanted = if repeats {
                shape.keys as usize * 2
            } else {
                (thread_seconds * STEPS_PER_SECOND) as usize
            };
            let wanted = wanted.clamp(FEWEST_STEPS, MAX_STEPS);
            let reads = u64::from(shape.reads);
            (0..wanted)
                .map(|_| {
                    let rank = zipf.draw(&mut random);
                    if random.below(100) < reads { rank } else { rank | SET }
                })
                .collect()
        };
        let start = match shape.workload {
            Workload::Mixed | Workload::ReadThrough => recent(&steps, shape.keys, shape.capacity),
            Workload::Hits | Workload::Hot => (0..shape.keys).collect(),
            Workload::Churn => Vec::new(),
        };
        Self { shape, steps, start }
    }

    /// Builds a cache and fills it.
    ///
    /// For `mixed` and `read-through` it is filled with the keys that were used last, up to the
    /// capacity; for `hits` with all keys; for `churn` with new keys up to the capacity.
    pub fn build<V: Value, P: Peer<V>>(&self, build: Build<P>) -> Result<P> {
        let shape = &self.shape;
        let peer = build(&Settings::for_entries(shape.capacity, shape.seed))?;
        let fill = |key| peer.insert(key, V::make(key, shape.value_bytes));
        if shape.workload == Workload::Churn {
            let fresh = Fresh::new();
            (0..shape.capacity as u64).for_each(|i| fill(fresh.key(i)));
        } else {
            self.start.iter().for_each(|&rank| fill(key_of(rank)));
        }
        peer.settle();
        Ok(peer)
    }
}

/// Returns the key of a rank.
#[inline]
pub fn key_of(rank: u32) -> u64 {
    scramble(u64::from(rank & !SET))
}

/// A region of keys that no other thread uses.
pub struct Fresh(u64);

static REGIONS: AtomicU64 = AtomicU64::new(1);
const REGION_BITS: u32 = 40;

impl Fresh {
    /// Takes the next region.
    pub fn new() -> Self {
        Self(REGIONS.fetch_add(1, Ordering::Relaxed) << REGION_BITS)
    }

    /// Returns a key of the region.
    #[inline]
    pub fn key(&self, i: u64) -> u64 {
        scramble(self.0 | i)
    }
}

/// The ranks that a sequence used last, oldest use first; filled up with others if they are few.
fn recent(steps: &[u32], keys: u32, capacity: usize) -> Vec<u32> {
    let capacity = capacity.min(keys as usize);
    let mut seen = vec![false; keys as usize];
    let mut ranks = Vec::with_capacity(capacity);
    for rank in steps.iter().rev().map(|&step| step & !SET).chain(0..keys) {
        if ranks.len() == capacity {
            break;
        }
        if !std::mem::replace(&mut seen[rank as usize], true) {
            ranks.push(rank);
        }
    }
    ranks.reverse();
    ranks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fill_is_what_was_used_last() {
        assert_eq!(recent(&[3, 1, 2 | SET, 1], 5, 2), [2, 1]);
        assert_eq!(recent(&[3, 1, 2 | SET, 1], 5, 4), [0, 3, 2, 1]);
        assert_eq!(recent(&[1, 1], 2, 9), [0, 1]);
    }

    #[test]
    fn share_of_reads_is_kept() {
        let shape = Shape {
            workload: Workload::Mixed,
            keys: 1000,
            capacity: 100,
            value_bytes: 8,
            zipf: 1.0,
            reads: 80,
            seed: 1,
        };
        let plan = Plan::new(shape, 0.1);
        let sets = plan.steps.iter().filter(|&&step| step & SET != 0).count() as f64;
        assert!((sets / plan.steps.len() as f64 - 0.2).abs() < 0.002);
    }
}
