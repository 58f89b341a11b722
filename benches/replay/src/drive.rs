//! Drives a cache from several threads for a fixed time.
//!
//! Speed and latency are taken in separate runs: a run for speed reads the clock twice in all, a
//! run for latency times every fourth operation by itself.

use std::marker::PhantomData;
use std::slice::Iter;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::histogram::Histogram;
use crate::peers::{Peer, Value};
use crate::threads;
use crate::workload::{Fresh, Plan, SET, Workload, key_of};

/// Operations between two looks at the stop flag.
const BLOCK: usize = 32;
/// Steps of the sequence that a thread takes at once.
const CHUNK: usize = 64 * BLOCK;
/// One in so many operations is timed in a run for latency.
const TIMED_EVERY: usize = 4;

/// How to drive.
#[derive(Clone, Copy)]
pub struct Drive<'a> {
    /// The number of threads.
    pub threads: usize,
    /// For how long.
    pub time: Duration,
    /// Look up so many keys at once; 1 for plain gets.
    pub batch: usize,
    /// How far the sequence is used up: the threads take their steps from there, each step once,
    /// and the next run goes on behind.
    pub cursor: &'a AtomicUsize,
}

/// What came out of it.
#[derive(Default)]
pub struct Outcome {
    /// Operations a second, the threads' rates added up.
    pub rate: f64,
    /// The number of gets.
    pub gets: u64,
    /// How many of them were hits.
    pub hits: u64,
}

impl Outcome {
    /// Returns hits by gets, if there were gets.
    pub fn hit_ratio(&self) -> Option<f64> {
        (self.gets > 0).then(|| self.hits as f64 / self.gets as f64)
    }
}

/// The durations of single operations.
#[derive(Clone)]
pub struct Latency {
    /// Of gets; in `read-through` with the insert that follows a miss.
    pub gets: Histogram,
    /// Of inserts.
    pub inserts: Histogram,
}

impl Latency {
    /// Returns empty histograms.
    pub fn new() -> Self {
        Self { gets: Histogram::new(), inserts: Histogram::new() }
    }

    /// Adds the durations of another.
    pub fn merge(&mut self, other: &Self) {
        self.gets.merge(&other.gets);
        self.inserts.merge(&other.inserts);
    }

    /// Returns all durations together.
    pub fn all(&self) -> Histogram {
        let mut all = self.gets.clone();
        all.merge(&self.inserts);
        all
    }
}

/// Measures speed.
pub fn speed<V: Value, P: Peer<V>>(peer: &P, plan: &Plan, drive: Drive<'_>) -> Outcome {
    let (outcome, _) = run::<V, P, false>(peer, plan, drive);
    outcome
}

/// Measures latency.
pub fn latency<V: Value, P: Peer<V>>(peer: &P, plan: &Plan, drive: Drive<'_>) -> Latency {
    let (_, latency) = run::<V, P, true>(peer, plan, drive);
    latency
}

/// Returns what one reading of the clock takes, as part of every latency there is.
pub fn clock_cost() -> Duration {
    const READINGS: u32 = 10_000;
    let begin = Instant::now();
    for _ in 0..READINGS {
        std::hint::black_box(Instant::now());
    }
    begin.elapsed() / READINGS
}

fn run<V: Value, P: Peer<V>, const TIMED: bool>(
    peer: &P,
    plan: &Plan,
    drive: Drive<'_>,
) -> (Outcome, Latency) {
    run_until_stopped(drive.threads, drive.time, &|stop, latency| {
        let worker = Worker { peer, plan, stop, drive, value: PhantomData };
        if drive.batch > 1 { worker.batches() } else { worker.steps::<TIMED>(latency) }
    })
}

/// What a thread does until it is stopped.
type Work<'a> = &'a (dyn Fn(&AtomicBool, &mut Latency) -> Counts + Sync);

/// Does the work on so many threads, which begin together and are stopped after some time.
fn run_until_stopped(threads: usize, time: Duration, work: Work<'_>) -> (Outcome, Latency) {
    let stop = AtomicBool::new(false);
    let barrier = Barrier::new(threads + 1);
    let drive = |_| {
        let mut latency = Latency::new();
        barrier.wait();
        (work(&stop, &mut latency), latency)
    };
    let done = threads::run_beside(threads, &drive, &mut || {
        barrier.wait();
        thread::sleep(time);
        // Relaxed: nothing is handed over by it; joining the threads does that.
        stop.store(true, Ordering::Relaxed);
    });
    let mut outcome = Outcome::default();
    let mut latency = Latency::new();
    for (counts, durations) in done {
        outcome.rate += counts.done as f64 / counts.time.as_secs_f64();
        outcome.gets += counts.gets;
        outcome.hits += counts.hits;
        latency.merge(&durations);
    }
    (outcome, latency)
}

struct Counts {
    done: u64,
    gets: u64,
    hits: u64,
    time: Duration,
}

struct Worker<'a, V, P> {
    peer: &'a P,
    plan: &'a Plan,
    stop: &'a AtomicBool,
    drive: Drive<'a>,
    value: PhantomData<V>,
}

impl<'a, V: Value, P: Peer<V>> Worker<'a, V, P> {
    fn steps<const TIMED: bool>(&self, latency: &mut Latency) -> Counts {
        let Self { peer, plan, stop, .. } = *self;
        let shape = plan.shape;
        let is_churn = shape.workload == Workload::Churn;
        let fresh = Fresh::new();
        let mut counts = Counts { done: 0, gets: 0, hits: 0, time: Duration::ZERO };
        let mut steps = self.chunk();
        let begin = Instant::now();
        while !stop.load(Ordering::Relaxed) {
            for i in 0..BLOCK {
                let (key, set) = if is_churn {
                    (fresh.key(counts.done), true)
                } else {
                    let step = self.next(&mut steps);
                    (key_of(step), step & SET != 0)
                };
                counts.done += 1;
                let start = (TIMED && i % TIMED_EVERY == 0).then(Instant::now);
                if set {
                    peer.insert(key, V::make(key, shape.value_bytes));
                } else {
                    counts.gets += 1;
                    if peer.get(key) {
                        counts.hits += 1;
                    } else if shape.workload == Workload::ReadThrough {
                        peer.insert(key, V::make(key, shape.value_bytes));
                    }
                }
                if let Some(start) = start {
                    let time = start.elapsed();
                    if set { latency.inserts.record(time) } else { latency.gets.record(time) }
                }
            }
        }
        counts.time = begin.elapsed();
        counts
    }

    /// Gets of many keys at once; only for workloads that get and do nothing else.
    fn batches(&self) -> Counts {
        let Self { peer, stop, .. } = *self;
        let mut counts = Counts { done: 0, gets: 0, hits: 0, time: Duration::ZERO };
        let mut keys = vec![0; self.drive.batch];
        let mut steps = self.chunk();
        let begin = Instant::now();
        while !stop.load(Ordering::Relaxed) {
            for key in &mut keys {
                *key = key_of(self.next(&mut steps));
            }
            counts.hits += peer.get_many(&keys).unwrap_or(0) as u64;
            counts.done += keys.len() as u64;
        }
        counts.gets = counts.done;
        counts.time = begin.elapsed();
        counts
    }

    #[inline]
    fn next(&self, steps: &mut Iter<'a, u32>) -> u32 {
        loop {
            if let Some(&step) = steps.next() {
                return step;
            }
            *steps = self.chunk();
        }
    }

    /// Takes the next steps of the sequence, which begins again at its end; none for churn.
    #[cold]
    fn chunk(&self) -> Iter<'a, u32> {
        let steps = &self.plan.steps;
        if steps.is_empty() {
            return steps.iter();
        }
        // Relaxed: it only has to give each thread steps of its own.
        let start = self.drive.cursor.fetch_add(CHUNK, Ordering::Relaxed) % steps.len();
        steps[start..steps.len().min(start + CHUNK)].iter()
    }
}
