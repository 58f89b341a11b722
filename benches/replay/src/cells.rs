//! Measurements that need a process of their own.
//!
//! What an allocator counts, and how many values are alive, would be blurred by what an earlier
//! cache has left behind: threads that still tidy up, garbage that waits for a grace period. So
//! the program calls itself, once for each measurement, and reads the answer as JSON.

use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use clap::{Args, Subcommand};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::alloc;
use crate::lines::LinesCell;
use crate::peers::{Build, Heap, Hundred, Kind, Object, Peer, Settings, Task, Value};
use crate::report;
use crate::sleepers::SleepersCell;
use crate::threads;
use crate::workload::Fresh;

/// One measurement in a process of its own.
#[derive(Debug, Subcommand)]
pub enum Cell {
    /// Memory, counted by the allocator.
    Memory(MemoryCell),
    /// Live values while new ones are inserted without end.
    Budget(BudgetCell),
    /// Hits beside threads that sleep.
    Sleepers(SleepersCell),
    /// The cache lines that an operation writes.
    Lines(LinesCell),
}

impl Cell {
    /// Measures, and prints the answer as JSON.
    pub fn run(&self) -> Result<()> {
        let answer = match self {
            Self::Memory(cell) => serde_json::to_string(&cell.measure()?),
            Self::Budget(cell) => serde_json::to_string(&cell.measure()?),
            Self::Sleepers(cell) => serde_json::to_string(&cell.measure()?),
            Self::Lines(cell) => serde_json::to_string(&cell.measure()?),
        };
        report::print(&answer.context("cannot be written as JSON")?)
    }
}

/// Which memory to measure.
#[derive(Args, Clone, Debug)]
pub struct MemoryCell {
    /// The cache.
    #[arg(long)]
    pub cache: Kind,
    /// The number of entries, which is also the capacity.
    #[arg(long)]
    pub entries: usize,
    /// The size of a value.
    #[arg(long)]
    pub value_bytes: usize,
}

/// Memory, counted by the allocator.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
pub struct Memory {
    /// The entries that are in the cache after the fill.
    pub held: usize,
    /// Live bytes an entry, beyond key and value.
    pub overhead: f64,
    /// Allocations for a get that hits.
    pub allocations_per_hit: f64,
    /// Allocations for the insert of a new key into the full cache.
    pub allocations_per_insert: f64,
}

impl MemoryCell {
    /// Measures in a process of its own.
    pub fn spawn(&self) -> Result<Memory> {
        ask(&[
            "memory".to_owned(),
            format!("--cache={}", self.cache.name()),
            format!("--entries={}", self.entries),
            format!("--value-bytes={}", self.value_bytes),
        ])
    }

    fn measure(&self) -> Result<Memory> {
        match self.value_bytes {
            8 => self.cache.dispatch::<u64, _, _>(self),
            100 => self.cache.dispatch::<Hundred, _, _>(self),
            _ => self.cache.dispatch::<Heap, _, _>(self),
        }
    }
}

impl<V: Value> Task<V> for &MemoryCell {
    type Output = Result<Memory>;

    fn run<P: Peer<V>>(self, build: Build<P>) -> Result<Memory> {
        const KEY_BYTES: usize = 8;
        const SAMPLE: usize = 100_000;
        /// For caches that would need hours for the sample.
        const LIMIT: Duration = Duration::from_millis(250);

        let keys = Fresh::new();
        alloc::start();
        let before = alloc::live();
        let peer = build(&Settings::for_entries(self.entries, 1))?;
        for i in 0..self.entries as u64 {
            let key = keys.key(i);
            peer.insert(key, V::make(key, self.value_bytes));
        }
        peer.settle();
        // For the caches' own threads.
        thread::sleep(Duration::from_millis(20));
        let bytes = alloc::live() - before;
        let held = peer
            .len()
            .unwrap_or_else(|| (0..self.entries as u64).filter(|&i| peer.get(keys.key(i))).count());
        if held == 0 {
            bail!("{} holds nothing after {} inserts", self.cache.name(), self.entries);
        }
        let overhead = bytes as f64 / held as f64 - (KEY_BYTES + self.value_bytes) as f64;

        let before = alloc::allocations();
        let sample = self.entries.min(SAMPLE);
        let hits = (0..sample as u64).filter(|&i| peer.get(keys.key(i))).count();
        let allocations_per_hit = (alloc::allocations() - before) as f64 / hits.max(1) as f64;

        let fresh = Fresh::new();
        let before = alloc::allocations();
        let begin = Instant::now();
        let mut inserts = 0;
        while inserts < sample as u64 && (inserts % 16 != 0 || begin.elapsed() < LIMIT) {
            let key = fresh.key(inserts);
            peer.insert(key, V::make(key, self.value_bytes));
            inserts += 1;
        }
        let allocations_per_insert = (alloc::allocations() - before) as f64 / inserts.max(1) as f64;
        Ok(Memory { held, overhead, allocations_per_hit, allocations_per_insert })
    }
}

/// Which budget to test.
#[derive(Args, Clone, Debug)]
pub struct BudgetCell {
    /// The cache.
    #[arg(long)]
    pub cache: Kind,
    /// The number of entries it may hold.
    #[arg(long)]
    pub capacity: usize,
    /// The number of threads that insert.
    #[arg(long)]
    pub writers: usize,
    /// The number of inserts of all threads together.
    #[arg(long)]
    pub inserts: u64,
    /// The size of a value, which is also its cost; 0 for small ones that each cost 1.
    #[arg(long)]
    pub value_bytes: usize,
    /// Stop after so many milliseconds all the same.
    #[arg(long)]
    pub limit_ms: u64,
}

/// How a budget was kept.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
pub struct Budget {
    /// The inserts that were done.
    pub inserts: u64,
    /// The cost of all values that were alive, whether they could be found or not, and with
    /// those on their way in: the 99th percentile of samples taken each millisecond.
    pub p99_live: u64,
    /// The most of it at any time.
    pub peak_live: u64,
    /// The greatest cost of what could be found, where the cache says it exactly.
    pub peak_reachable: Option<u64>,
    /// The greatest cost of what was alive and could not be found, where the cache tells.
    pub peak_garbage: Option<u64>,
}

impl BudgetCell {
    /// Measures in a process of its own.
    pub fn spawn(&self) -> Result<Budget> {
        ask(&[
            "budget".to_owned(),
            format!("--cache={}", self.cache.name()),
            format!("--capacity={}", self.capacity),
            format!("--writers={}", self.writers),
            format!("--inserts={}", self.inserts),
            format!("--value-bytes={}", self.value_bytes),
            format!("--limit-ms={}", self.limit_ms),
        ])
    }

    fn measure(&self) -> Result<Budget> {
        if self.value_bytes == 0 {
            self.cache.dispatch(BudgetTask { cell: self, make: Counted::make })
        } else {
            self.cache.dispatch(BudgetTask { cell: self, make: Bytes::object })
        }
    }
}

struct BudgetTask<'a, V> {
    cell: &'a BudgetCell,
    make: fn(u64, usize) -> V,
}

impl<V: Value> Task<V> for BudgetTask<'_, V> {
    type Output = Result<Budget>;

    fn run<P: Peer<V>>(self, build: Build<P>) -> Result<Budget> {
        let Self { cell, make } = self;
        let entries = cell.capacity / cell.value_bytes.max(1);
        let settings = Settings { entries, ..Settings::for_entries(cell.capacity, 1) };
        let peer = build(&settings)?;
        let limit = Duration::from_millis(cell.limit_ms);
        let begin = Instant::now();
        let peak_reachable = AtomicU64::new(0);
        let peak_garbage = AtomicU64::new(0);
        let at_work = AtomicU64::new(cell.writers as u64);
        let mut samples = Vec::new();
        let writer = |i| {
            let (writers, i) = (cell.writers as u64, i as u64);
            let share = cell.inserts / writers + u64::from(i < cell.inserts % writers);
            let fresh = Fresh::new();
            let mut done = 0;
            while done < share && (done % 16 != 0 || begin.elapsed() < limit) {
                let key = fresh.key(done);
                peer.insert(key, make(key, cell.value_bytes));
                done += 1;
                if let Some(reachable) = peer.reachable() {
                    let garbage = (LIVE.load(Ordering::Relaxed) as u64).saturating_sub(reachable);
                    peak_reachable.fetch_max(reachable, Ordering::Relaxed);
                    peak_garbage.fetch_max(garbage, Ordering::Relaxed);
                }
            }
            at_work.fetch_sub(1, Ordering::Relaxed);
            done
        };
        let inserts = threads::run_beside(cell.writers, &writer, &mut || {
            while at_work.load(Ordering::Relaxed) > 0 {
                thread::sleep(SAMPLE_INTERVAL);
                samples.push(LIVE.load(Ordering::Relaxed) as u64);
            }
        });
        samples.sort_unstable();
        let knows = peer.reachable().is_some();
        Ok(Budget {
            inserts: inserts.iter().sum(),
            p99_live: samples.get(samples.len() * 99 / 100).copied().unwrap_or(0),
            peak_live: PEAK.load(Ordering::Relaxed) as u64,
            peak_reachable: knows.then(|| peak_reachable.into_inner()),
            peak_garbage: knows.then(|| peak_garbage.into_inner()),
        })
    }
}

/// Time between two looks at what is alive.
const SAMPLE_INTERVAL: Duration = Duration::from_millis(1);

static LIVE: AtomicI64 = AtomicI64::new(0);
static PEAK: AtomicI64 = AtomicI64::new(0);

/// A value that is counted from its making to its drop; clones are the same value.
type Counted = Arc<Token>;

struct Token;

impl Drop for Token {
    fn drop(&mut self) {
        LIVE.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Value for Counted {
    fn make(_key: u64, _bytes: usize) -> Self {
        let live = LIVE.fetch_add(1, Ordering::Relaxed) + 1;
        PEAK.fetch_max(live, Ordering::Relaxed);
        Self::new(Token)
    }

    fn look(&self) {
        std::hint::black_box(Self::as_ptr(self));
    }
}

/// Many bytes, each of which counts.
struct Bytes(Vec<u8>);

impl Bytes {
    /// Returns an object that consists of so many; clones are the same object.
    fn object(key: u64, bytes: usize) -> Object {
        let live = LIVE.fetch_add(bytes as i64, Ordering::Relaxed) + bytes as i64;
        PEAK.fetch_max(live, Ordering::Relaxed);
        Object::with_content(bytes, Arc::new(Self(vec![key as u8 | 1; bytes])))
    }
}

impl Drop for Bytes {
    fn drop(&mut self) {
        LIVE.fetch_sub(self.0.len() as i64, Ordering::Relaxed);
    }
}

/// Calls this program for one measurement.
pub fn ask<T: DeserializeOwned>(arguments: &[String]) -> Result<T> {
    let program = std::env::current_exe().context("this program cannot find itself")?;
    let output = Command::new(program)
        .arg("cell")
        .args(arguments)
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .context("this program cannot start itself")?;
    if !output.status.success() {
        bail!("the measurement `{}` failed", arguments.join(" "));
    }
    serde_json::from_slice(&output.stdout)
        .with_context(|| format!("the measurement `{}` gave no answer", arguments.join(" ")))
}
