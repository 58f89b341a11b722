//! `AccessClock`: the coarse clock of recency, which events drive.
//!
//! A *round* is as many events as there are entries; it has [`STEPS_PER_ROUND`] steps. Being so
//! coarse, it lets a hit leave no trace if the entry was hit in the same step already.

use crate::{
    config::STEPS_PER_AGE,
    sync::atomic::{AtomicU32, AtomicU64, Ordering},
    util::CachePadded,
};

/// Counts steps.
#[derive(Debug)]
pub struct AccessClock {
    /// Read on every hit, so on a line of its own that is seldom written.
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
            // Relaxed: whoever wins the exchange turns those events into steps; a loser's events
            // stay in the sum for the next.
            let won = self.events.compare_exchange(
                total,
                total % length,
                Ordering::Relaxed,
                Ordering::Relaxed,
            );
            if won.is_ok() {
                self.now.fetch_add((total / length) as u32, Ordering::Relaxed); // Relaxed: as above.
            }
        }
    }

    /// Returns how many of `things` are to be seen to for so many events, if all are to be once in an age: one more than
    /// their share.
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

/// Steps in the time in which as many events pass as there are entries.
pub const STEPS_PER_ROUND: u32 = 64;

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
    fn all_things_have_had_their_turn_within_an_age() {
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
