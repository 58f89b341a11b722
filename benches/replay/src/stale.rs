//! Reads that return an older value than they may.
//!
//! A read is stale if it returns a value although the insert of a newer one had returned before
//! the read began. The cache has room for all keys, so a read that finds nothing is a write lost.

use std::cell::Cell;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::Result;
use serde::{Deserialize, Serialize};

use crate::peers::{Build, Kind, Peer, Settings, Task, Value};
use crate::threads;

const KEYS: u64 = 256;
/// Room enough that no cache has a reason to evict, however it splits its capacity.
const CAPACITY: usize = 16_384;

/// What reads returned.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
pub struct Reads {
    /// All reads.
    pub all: u64,
    /// Those that returned a value that was replaced before they began.
    pub stale: u64,
    /// Those that found nothing.
    pub lost: u64,
}

impl Reads {
    /// Returns the stale ones in percent.
    pub fn stale_percent(&self) -> f64 {
        self.stale as f64 * 100.0 / self.all.max(1) as f64
    }

    /// Returns those that found nothing, in percent.
    pub fn lost_percent(&self) -> f64 {
        self.lost as f64 * 100.0 / self.all.max(1) as f64
    }

    /// Counts a read that has to return this version at least.
    pub fn note(&mut self, found: Option<u64>, least: u64) {
        self.all += 1;
        match found {
            None => self.lost += 1,
            Some(version) if version < least => self.stale += 1,
            Some(_) => {}
        }
    }

    /// Adds the counts of another.
    #[cfg(feature = "near")]
    pub fn merge(&mut self, other: Self) {
        self.all += other.all;
        self.stale += other.stale;
        self.lost += other.lost;
    }
}

/// What a run for staleness found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
pub struct Stale {
    /// Reads by the thread that has just written.
    pub own: Reads,
    /// Reads by another thread.
    pub other: Reads,
}

/// Drives a cache for some time: one thread writes and reads what it has written, another reads
/// what the first has written.
pub fn measure(kind: Kind, time: Duration, seed: u64) -> Result<Stale> {
    kind.dispatch::<Version, _, _>(Run { time, seed })
}

struct Run {
    time: Duration,
    seed: u64,
}

impl Task<Version> for Run {
    type Output = Result<Stale>;

    fn run<P: Peer<Version>>(self, build: Build<P>) -> Result<Stale> {
        let peer = build(&Settings::for_entries(CAPACITY, self.seed))?;
        (0..KEYS).for_each(|key| peer.insert(key, Version(1)));
        peer.settle();
        // The version whose insert has returned, of each key.
        let written: Vec<AtomicU64> = (0..KEYS).map(|_| AtomicU64::new(1)).collect();
        let stop = AtomicBool::new(false);
        let mut own = Reads::default();
        let reader = |_| {
            let mut reads = Reads::default();
            while !stop.load(Ordering::Relaxed) {
                for key in 0..KEYS {
                    // Acquire: pairs with the Release store below, so the insert of this version
                    // happens before the read that follows.
                    let least = written[key as usize].load(Ordering::Acquire);
                    reads.note(read(&peer, key), least);
                }
            }
            reads
        };
        let other = threads::run_beside(1, &reader, &mut || {
            let begin = Instant::now();
            let mut version = 1;
            while version == 1 || begin.elapsed() < self.time {
                version += 1;
                for key in 0..KEYS {
                    peer.insert(key, Version(version));
                    written[key as usize].store(version, Ordering::Release);
                    own.note(read(&peer, key), version);
                }
            }
            // Relaxed: nothing is handed over by it.
            stop.store(true, Ordering::Relaxed);
        });
        Ok(Stale { own, other: other[0] })
    }
}

/// A value that says which one it is to the thread that reads it.
#[derive(Clone)]
struct Version(u64);

thread_local! {
    static LAST: Cell<u64> = const { Cell::new(0) };
}

impl Value for Version {
    fn make(_key: u64, bytes: usize) -> Self {
        Self(bytes as u64)
    }

    fn look(&self) {
        LAST.set(self.0);
    }
}

/// Returns the version that is found, if any is.
fn read<P: Peer<Version>>(peer: &P, key: u64) -> Option<u64> {
    peer.get(key).then(|| LAST.get())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn older_value_is_stale_and_a_miss_is_lost() {
        let mut reads = Reads::default();
        for found in [Some(5), Some(6), Some(4), None] {
            reads.note(found, 5);
        }
        assert_eq!(reads, Reads { all: 4, stale: 1, lost: 1 });
        assert_eq!(reads.stale_percent(), 25.0);
        assert_eq!(Reads::default().stale_percent(), 0.0);
    }

    #[test]
    fn cortado_returns_what_was_written() {
        let stale = measure(Kind::Cortado, Duration::from_millis(20), 1).unwrap();
        assert_eq!((stale.own.stale, stale.own.lost, stale.other.stale), (0, 0, 0));
        assert!(stale.own.all >= KEYS);
    }
}
