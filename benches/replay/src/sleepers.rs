//! What a hit takes beside threads that have read the cache once and sleep now.
//!
//! Some caches keep a list of all threads that ever read them, and walk it while others read. It
//! is measured in a process of its own, so that no cache sees the threads of another.

use std::hint::black_box;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use clap::Args;
use serde::{Deserialize, Serialize};

use crate::cells;
use crate::peers::{Build, Kind, Peer, Settings, Task};
use crate::threads;

/// The entries that the cache may hold, and those that it holds.
const CAPACITY: usize = 10_000;
const ENTRIES: u64 = 1_000;
/// Hits between two looks at the clock.
const BLOCK: u64 = 1_000;
/// Enough for one read, small enough that thousands of threads are no burden.
const STACK_BYTES: usize = 256 << 10;

/// What is measured.
#[derive(Args, Clone, Debug)]
pub struct SleepersCell {
    /// The cache.
    #[arg(long)]
    pub cache: Kind,
    /// The number of threads that sleep.
    #[arg(long)]
    pub sleepers: usize,
    /// The number of rounds.
    #[arg(long)]
    pub rounds: usize,
    /// The time of a round, in milliseconds.
    #[arg(long)]
    pub round_ms: u64,
}

/// What came out of it.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Sleepers {
    /// Nanoseconds a hit, one figure a round.
    pub nanos: Vec<f64>,
}

impl SleepersCell {
    /// Measures in a process of its own.
    pub fn spawn(&self) -> Result<Sleepers> {
        cells::ask(&[
            "sleepers".to_owned(),
            format!("--cache={}", self.cache.name()),
            format!("--sleepers={}", self.sleepers),
            format!("--rounds={}", self.rounds),
            format!("--round-ms={}", self.round_ms),
        ])
    }

    /// Measures in this process.
    pub fn measure(&self) -> Result<Sleepers> {
        self.cache.dispatch::<u64, _, _>(self)
    }
}

impl Task<u64> for &SleepersCell {
    type Output = Result<Sleepers>;

    fn run<P: Peer<u64>>(self, build: Build<P>) -> Result<Sleepers> {
        let peer = Arc::new(build(&Settings::for_entries(CAPACITY, 1))?);
        (0..ENTRIES).for_each(|key| peer.insert(key, key));
        peer.settle();
        let get = |i| {
            black_box(peer.get(i as u64 % ENTRIES));
        };
        let nanos = self.measure_beside(&get, &|| self.rounds(&*peer))?;
        Ok(Sleepers { nanos })
    }
}

impl SleepersCell {
    /// Measures beside threads each of which has done something once, and sleeps.
    fn measure_beside(
        &self,
        before_sleep: threads::Work<'_, ()>,
        measure: &dyn Fn() -> Result<Vec<f64>>,
    ) -> Result<Vec<f64>> {
        let gate = Gate::default();
        thread::scope(|scope| {
            for i in 0..self.sleepers {
                let gate = &gate;
                let sleeper = thread::Builder::new().stack_size(STACK_BYTES);
                let started = sleeper.spawn_scoped(scope, move || {
                    before_sleep(i);
                    gate.sleep();
                });
                if let Err(error) = started {
                    gate.open();
                    return Err(error).context(format!("{} threads cannot run here", i + 1));
                }
            }
            gate.wait_for(self.sleepers);
            let result = measure();
            gate.open();
            result
        })
    }

    fn rounds<P: Peer<u64>>(&self, peer: &P) -> Result<Vec<f64>> {
        let time = Duration::from_millis(self.round_ms);
        let mut nanos = Vec::new();
        for _ in 0..self.rounds {
            let (mut gets, mut hits) = (0, 0);
            let begin = Instant::now();
            while gets == 0 || begin.elapsed() < time {
                hits += (0..BLOCK).filter(|&i| peer.get((gets + i * 7) % ENTRIES)).count() as u64;
                gets += BLOCK;
            }
            if hits == 0 {
                bail!("{} holds none of its {ENTRIES} entries", self.cache.name());
            }
            nanos.push(begin.elapsed().as_nanos() as f64 / gets as f64);
        }
        Ok(nanos)
    }
}

/// Where threads sleep until they may go.
#[derive(Default)]
struct Gate {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    asleep: usize,
    is_open: bool,
}

impl Gate {
    fn sleep(&self) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.asleep += 1;
        let is_closed = |state: &mut State| !state.is_open;
        drop(self.changed.wait_while(state, is_closed));
    }

    fn wait_for(&self, threads: usize) {
        // Looked at now and then: a wake for each arrival would wake all that sleep.
        loop {
            if self.state.lock().unwrap_or_else(PoisonError::into_inner).asleep >= threads {
                return;
            }
            thread::sleep(Duration::from_millis(1));
        }
    }

    fn open(&self) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).is_open = true;
        self.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hits_are_timed_beside_threads_that_sleep() {
        let cell = SleepersCell { cache: Kind::Cortado, sleepers: 9, rounds: 2, round_ms: 1 };
        let nanos = cell.measure().unwrap().nanos;
        assert_eq!(nanos.len(), 2);
        assert!(nanos.iter().all(|&nanos| nanos > 0.0), "{nanos:?}");
    }
}
