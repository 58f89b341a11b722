//! Replays one trace through one cache and counts the hits.

use std::collections::HashMap;
use std::ops::AddAssign;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::Result;
use clap::Args;

use crate::cli;
use crate::peers::opt::Future;
use crate::peers::{Build, Kind, Object, Peer, Settings, Task, Value};
use crate::progress::Progress;
use crate::reference;
use crate::threads;
use crate::trace::Trace;

/// How traces are replayed.
#[derive(Args, Clone, Copy, Debug)]
pub struct Manner {
    /// The threads that replay a trace together, each taking the next 64 accesses. With more than
    /// one nothing is settled on the way, and cortado runs with its thread.
    #[arg(long, default_value_t = 1, value_parser = cli::threads)]
    pub threads: usize,
    /// Where random choices begin.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
}

/// What was found in the cache.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Hits {
    /// The accesses.
    pub count: u64,
    /// The sum of their sizes; the same number, if the trace is replayed without sizes.
    pub bytes: u64,
}

impl AddAssign for Hits {
    fn add_assign(&mut self, other: Self) {
        self.count += other.count;
        self.bytes += other.bytes;
    }
}

/// A trace, with what has to be found out about it only once.
pub struct Replayer<'a> {
    trace: &'a Trace,
    manner: Manner,
    future: Option<Future>,
    objects: Objects,
}

impl<'a> Replayer<'a> {
    /// Prepares the replay of a trace through these caches.
    pub fn new(trace: &'a Trace, kinds: &[Kind], manner: Manner) -> Result<Self> {
        let future =
            if kinds.contains(&Kind::Opt) { Some(Future::new(&trace.keys)?) } else { None };
        Ok(Self { trace, manner, future, objects: Objects::of(trace) })
    }

    /// Replays the trace through a new cache.
    ///
    /// Policies that are computed and not run, such as `lru`, are replayed by this thread alone.
    pub fn hits(&self, kind: Kind, capacity: usize, bar: &Progress) -> Result<Hits> {
        let hits = match (kind.reference(), &self.future) {
            (Some(policy), _) => {
                let mut policy = reference::build(policy, capacity as u64);
                self.count(|key, size| policy.access(key, size))
            }
            (None, Some(future)) if kind == Kind::Opt => {
                let count = future.hits(capacity);
                Hits { count, bytes: count }
            }
            _ => return self.run(kind, capacity, bar),
        };
        bar.inc(self.trace.keys.len() as u64);
        Ok(hits)
    }

    /// Returns the size of all accesses together.
    pub fn bytes(&self) -> u64 {
        (0..self.trace.keys.len()).map(|i| self.trace.size(i)).sum()
    }

    fn count(&self, mut access: impl FnMut(u64, u64) -> bool) -> Hits {
        let mut hits = Hits::default();
        for (i, &key) in self.trace.keys.iter().enumerate() {
            let size = self.trace.size(i);
            if access(key, size) {
                hits += Hits { count: 1, bytes: size };
            }
        }
        hits
    }

    fn run(&self, kind: Kind, capacity: usize, bar: &Progress) -> Result<Hits> {
        let threads = self.manner.threads;
        let settings = Settings {
            capacity,
            entries: self.objects.fitting(capacity),
            replay: threads == 1,
            seed: self.manner.seed,
        };
        let run = Run { trace: self.trace, threads, settings, bar };
        if self.trace.sizes.is_empty() {
            kind.dispatch::<u64, _, _>(run)
        } else {
            kind.dispatch::<Object, _, _>(run)
        }
    }
}

/// How large the objects of a trace are.
enum Objects {
    /// Each counts as one.
    Alike,
    /// So many, with so many bytes all together, at their first accesses.
    Sized { count: usize, bytes: u64 },
}

impl Objects {
    fn of(trace: &Trace) -> Self {
        if trace.sizes.is_empty() {
            return Self::Alike;
        }
        let mut sizes = HashMap::new();
        for (&key, &size) in trace.keys.iter().zip(&trace.sizes) {
            sizes.entry(key).or_insert(size);
        }
        Self::Sized { count: sizes.len(), bytes: sizes.values().sum() }
    }

    /// Returns how many of them a capacity is likely to hold, at least 1.
    fn fitting(&self, capacity: usize) -> usize {
        match *self {
            Self::Alike => capacity,
            Self::Sized { count, bytes } => {
                let mean = bytes as f64 / count as f64;
                ((capacity as f64 / mean) as usize).clamp(1, count)
            }
        }
    }
}

/// Accesses in a row: between two calls of `settle`, or taken at once by one of several threads.
const CHUNK: usize = 64;

struct Run<'a> {
    trace: &'a Trace,
    threads: usize,
    settings: Settings,
    bar: &'a Progress,
}

impl Run<'_> {
    fn chunk<V: Value, P: Peer<V>>(&self, peer: &P, start: usize) -> Hits {
        let end = self.trace.keys.len().min(start + CHUNK);
        let mut hits = Hits::default();
        for (i, &key) in (start..end).zip(&self.trace.keys[start..end]) {
            let size = self.trace.size(i);
            if peer.get(key) {
                hits += Hits { count: 1, bytes: size };
            } else {
                peer.insert(key, V::make(key, size as usize));
            }
        }
        self.bar.inc((end - start) as u64);
        hits
    }

    fn alone<V: Value, P: Peer<V>>(&self, peer: &P) -> Hits {
        let mut hits = Hits::default();
        for start in (0..self.trace.keys.len()).step_by(CHUNK) {
            hits += self.chunk(peer, start);
            peer.settle();
        }
        hits
    }

    fn together<V: Value, P: Peer<V>>(&self, peer: &P) -> Hits {
        let next = AtomicUsize::new(0);
        let work = |_| {
            let mut hits = Hits::default();
            loop {
                // Relaxed: the chunks are only told apart; nothing is handed over with them.
                let start = next.fetch_add(CHUNK, Ordering::Relaxed);
                if start >= self.trace.keys.len() {
                    return hits;
                }
                hits += self.chunk(peer, start);
            }
        };
        let mut all = Hits::default();
        threads::run(self.threads, &work).into_iter().for_each(|hits| all += hits);
        all
    }
}

impl<V: Value> Task<V> for Run<'_> {
    type Output = Result<Hits>;

    fn run<P: Peer<V>>(self, build: Build<P>) -> Result<Hits> {
        let peer = build(&self.settings)?;
        Ok(if self.threads == 1 { self.alone(&peer) } else { self.together(&peer) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trace(accesses: &[(u64, u64)]) -> Trace {
        let (keys, sizes) = accesses.iter().copied().unzip();
        Trace { name: String::new(), keys, sizes }
    }

    fn hits(trace: &Trace, kind: Kind, capacity: usize, threads: usize) -> Hits {
        let replayer = Replayer::new(trace, &[kind], Manner { threads, seed: 1 }).unwrap();
        replayer.hits(kind, capacity, &Progress::hidden()).unwrap()
    }

    #[test]
    fn hits_are_counted_in_objects_and_bytes() {
        let trace = trace(&[(1, 100), (2, 5), (1, 100), (2, 5), (2, 5)]);
        for kind in Kind::HITS_BY_SIZE {
            // Eight shards have it among them, so there is room enough in each.
            let got = hits(&trace, kind, 100_000, 1);
            assert_eq!(got, Hits { count: 3, bytes: 110 }, "{}", kind.name());
        }
    }

    #[test]
    fn size_is_what_an_object_takes() {
        // A hundred objects of a thousandth of the capacity each all fit; of a tenth, few do.
        for kind in Kind::HITS_BY_SIZE {
            let round = |size| (0..100).map(move |key| (key, size));
            let small: Vec<_> = round(1000).chain(round(1000)).collect();
            let large: Vec<_> = round(100_000).chain(round(100_000)).collect();
            let name = kind.name();
            assert!(hits(&trace(&small), kind, 1_000_000, 1).count > 80, "{name}");
            assert!(hits(&trace(&large), kind, 1_000_000, 1).count < 20, "{name}");
        }
    }

    #[test]
    fn threads_share_the_accesses() {
        let accesses: Vec<_> = (0..10_000).map(|i| (i % 10, 1)).collect();
        let mut trace = trace(&accesses);
        trace.sizes.clear();
        let got = hits(&trace, Kind::Cortado, 100, 4);
        // Each of the ten is missed by each of the four threads at most.
        assert!((9_960..=9_990).contains(&got.count), "{got:?}");
    }
}
