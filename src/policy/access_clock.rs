//! `AccessClock`: the coarse clock of recency. It is driven by accesses, not by time.
//!
//! A *round* is as many events as there are entries, divided into [`STEPS_PER_ROUND`] steps. Since
//! a step is long, most hits on a popular entry fall in a step that has a hit already and write
//! nothing.

use crate::{
    config::STEPS_PER_AGE,
    sync::atomic::{AtomicU32, AtomicU64, Ordering},
    util::CachePadded,
};

/// Steps in a round, which is as many events as there are entries.
pub const STEPS_PER_ROUND: u32 = 64;

/// A clock that counts steps.
#[derive(Debug)]
pub struct AccessClock {
    /// Read on every hit, so it has a cache line of its own, which is rarely written.
    now: CachePadded<AtomicU32>,
    events: CachePadded<AtomicU64>,
    length: AtomicU64,
}

impl AccessClock {
    /// Makes a clock for a cache of `entries` entries.
    pub fn new(entries: u64) -> Self {
        Self {
            now: CachePadded::new(AtomicU32::new(0)),
            events: CachePadded::new(AtomicU64::new(0)),
            length: AtomicU64::new(length(entries)),
        }
    }

    /// Returns the current step.
    #[inline]
    pub fn now(&self) -> u32 {
        self.now.load(Ordering::Relaxed) // Relaxed: a stale step shifts an access by one.
    }

    /// Counts `events` events.
    pub fn advance(&self, events: u64) {
        let length = self.length.load(Ordering::Relaxed); // Relaxed: any recent length will do.
        // Relaxed: only the sum has to be whole; nothing is published with it.
        let total = self.events.fetch_add(events, Ordering::Relaxed) + events;
        if total >= length {
            // Relaxed: the thread that wins the exchange turns those events into steps. A loser's
            // events stay in the sum for the next call.
            let won = self.events.compare_exchange(
                total,
                total % length,
                Ordering::Relaxed,
                Ordering::Relaxed,
            );
            if won.is_ok() {
                // Relaxed: as above.
                self.now.fetch_add((total / length) as u32, Ordering::Relaxed);
            }
        }
    }

    /// Returns how many of `things` to process for `events` events, so that all are processed once
    /// an age. Rounded up to one more than the exact share.
    pub fn share(&self, events: u64, things: u64) -> u64 {
        // Relaxed: any recent length will do.
        let age = self.length.load(Ordering::Relaxed).saturating_mul(u64::from(STEPS_PER_AGE));
        (events.saturating_mul(things) / age).saturating_add(1)
    }

    /// Adapts the length of a step to a cache of `entries` entries.
    pub fn set_entries(&self, entries: u64) {
        let new = length(entries);
        // Relaxed: any recent length will do. Written only if it differs: readers share the line.
        if self.length.load(Ordering::Relaxed) != new {
            self.length.store(new, Ordering::Relaxed); // Relaxed: as above.
        }
    }
}

fn length(entries: u64) -> u64 {
    (entries / u64::from(STEPS_PER_ROUND)).max(1)
}

#[cfg(all(test, not(any(cortado_loom, cortado_shuttle))))]
mod tests {
    use super::*;

    #[test]
    fn a_round_of_events_is_64_steps() {
        let access_clock = AccessClock::new(6400);
        for _ in 0..100 {
            access_clock.advance(64);
        }
        assert_eq!(access_clock.now(), 64);
    }

    #[test]
    fn all_things_are_processed_within_an_age() {
        for (entries, things, events) in [(3, 2, 64), (6400, 3000, 64), (6400, 100_000, 1)] {
            let access_clock = AccessClock::new(entries);
            let (mut seen, mut passed) = (0, 0);
            while access_clock.now() < STEPS_PER_AGE {
                seen += access_clock.share(events, things);
                passed += events;
                access_clock.advance(events);
            }
            assert!(seen >= things && seen <= things + things / 10 + passed / events + 2);
        }
    }

    #[test]
    fn tiny_caches_count_every_event() {
        let access_clock = AccessClock::new(3);
        access_clock.advance(5);
        assert_eq!(access_clock.now(), 5);
        access_clock.set_entries(1280);
        access_clock.advance(20);
        assert_eq!(access_clock.now(), 6);
    }
}
