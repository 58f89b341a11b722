//! Measures several caches in interleaved rounds, so that a busy spell of the machine falls on all
//! of them alike.
//!
//! In each round every cache is built again, filled, driven for a moment to warm up, and then
//! measured with each number of threads. The order of the caches turns from round to round.

use std::marker::PhantomData;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use anyhow::{Result, bail};

use crate::drive::{self, Drive, Latency};
use crate::histogram::Histogram;
use crate::peers::{Build, Heap, Hundred, Kind, Peer, Task, Value};
use crate::progress::Progress;
use crate::report::Spread;
use crate::workload::Plan;

/// What to measure, and for how long.
pub struct Rounds<'a> {
    /// The caches.
    pub kinds: &'a [Kind],
    /// The work.
    pub plan: &'a Plan,
    /// The numbers of threads.
    pub threads: &'a [usize],
    /// The number of rounds.
    pub rounds: usize,
    /// The time before the first measurement of a round.
    pub warm_up: Duration,
    /// The time of a run for speed; none if zero.
    pub speed: Duration,
    /// The time of a run for latency; none if zero.
    pub latency: Duration,
    /// Look up so many keys at once; 1 for plain gets.
    pub batch: usize,
}

/// The figures of one cache with one number of threads.
pub struct Cell {
    /// The cache.
    pub kind: Kind,
    /// The number of threads.
    pub threads: usize,
    /// Operations a second, one figure a round.
    pub rates: Vec<f64>,
    /// Hits by gets, one figure a round, where there were gets.
    pub hit_ratios: Vec<f64>,
    /// The durations of single operations, of each round, where they were measured.
    pub latencies: Vec<Latency>,
}

/// Picks the operations whose durations are meant.
pub type Operations = fn(&Latency) -> Histogram;

impl Cell {
    /// Returns the median rate and its spread.
    pub fn rate(&self) -> Spread {
        Spread::of(&self.rates)
    }

    /// Returns the median hit ratio, if there is one.
    pub fn hit_ratio(&self) -> Option<f64> {
        (!self.hit_ratios.is_empty()).then(|| Spread::of(&self.hit_ratios).median)
    }

    /// Returns the durations of all rounds.
    pub fn latency(&self) -> Latency {
        let mut all = Latency::new();
        self.latencies.iter().for_each(|latency| all.merge(latency));
        all
    }

    /// Returns the time within which this fraction of the operations stayed: of all rounds
    /// together, and of the best and the worst round.
    pub fn quantile(&self, of: Operations, fraction: f64) -> Spread {
        let mut all = Histogram::new();
        let mut rounds = Vec::new();
        for latency in &self.latencies {
            let times = of(latency);
            if times.count() > 0 {
                rounds.push(times.quantile(fraction) as f64);
                all.merge(&times);
            }
        }
        Spread { median: all.quantile(fraction) as f64, ..Spread::of(&rounds) }
    }
}

impl Rounds<'_> {
    /// Measures, and returns a cell for every cache and number of threads, in their order.
    pub fn run(&self, bar: &Progress) -> Result<Vec<Cell>> {
        let mut cells: Vec<Cell> = self
            .kinds
            .iter()
            .flat_map(|&kind| {
                self.threads.iter().map(move |&threads| Cell {
                    kind,
                    threads,
                    rates: Vec::new(),
                    hit_ratios: Vec::new(),
                    latencies: Vec::new(),
                })
            })
            .collect();
        for round in 0..self.rounds {
            for i in 0..self.kinds.len() {
                let place = (i + round) % self.kinds.len();
                let kind = self.kinds[place];
                bar.step(format!("round {} of {}: {}", round + 1, self.rounds, kind.name()));
                let at = place * self.threads.len();
                let row = &mut cells[at..at + self.threads.len()];
                match self.plan.shape.value_bytes {
                    8 => kind.dispatch::<u64, _, _>(Turn::new(self, row))?,
                    100 => kind.dispatch::<Hundred, _, _>(Turn::new(self, row))?,
                    _ => kind.dispatch::<Heap, _, _>(Turn::new(self, row))?,
                }
                bar.inc(1);
            }
        }
        Ok(cells)
    }
}

/// One cache's part of one round.
struct Turn<'a, V> {
    rounds: &'a Rounds<'a>,
    cells: &'a mut [Cell],
    value: PhantomData<V>,
}

impl<'a, V> Turn<'a, V> {
    fn new(rounds: &'a Rounds<'a>, cells: &'a mut [Cell]) -> Self {
        Self { rounds, cells, value: PhantomData }
    }
}

impl<V: Value> Task<V> for Turn<'_, V> {
    type Output = Result<()>;

    fn run<P: Peer<V>>(self, build: Build<P>) -> Result<()> {
        let Rounds { plan, batch, .. } = *self.rounds;
        let peer: P = plan.build(build)?;
        if batch > 1 && peer.get_many(&[]).is_none() {
            bail!("{} cannot look up many keys at once", self.cells[0].kind.name());
        }
        let cursor = AtomicUsize::new(0);
        let drive = |threads, time| Drive { threads, time, batch, cursor: &cursor };
        if !self.rounds.warm_up.is_zero() {
            drive::speed(&peer, plan, drive(1, self.rounds.warm_up));
        }
        for cell in self.cells {
            if !self.rounds.speed.is_zero() {
                let outcome = drive::speed(&peer, plan, drive(cell.threads, self.rounds.speed));
                cell.rates.push(outcome.rate);
                cell.hit_ratios.extend(outcome.hit_ratio());
            }
            if !self.rounds.latency.is_zero() {
                let latency = drive::latency(&peer, plan, drive(cell.threads, self.rounds.latency));
                cell.latencies.push(latency);
            }
        }
        Ok(())
    }
}
