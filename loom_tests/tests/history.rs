//! Linearizability of the whole cache under shuttle: the histories of `tests/linear.rs`, with a
//! possible context switch at every access to an atomic.
#![cfg(cortado_shuttle)]

mod common;

#[path = "../../tests/support/history.rs"]
mod history;
#[path = "../../tests/support/mod.rs"]
mod support;

use common::{Bounds, explore_within};
use cortado::{__internals::reclaim, Maintenance};
use history::{Round, play_and_check};
use support::Random;

/// Runs and checks one round per schedule.
fn rounds<const LOSSY: bool>(round: impl Fn(&mut Random) -> Round + Send + Sync + 'static) {
    use shuttle::rand::Rng;

    explore_within(Bounds { preemptions: None, seconds: 0, schedules: 1_000 }, move || {
        reclaim::reset();
        let mut random = Random::new(shuttle::rand::thread_rng().r#gen());
        let round = round(&mut random);
        assert_ne!(play_and_check::<LOSSY>(round, &mut random), 0);
    });
}

/// Nothing is evicted: every miss is explained by a call that removed the entry.
#[test]
fn calls_with_room_can_be_put_in_order() {
    rounds::<false>(|random| Round {
        threads: 2 + random.below(2),
        keys: 1 + random.below(2),
        calls: 5,
        max_cost: 1000,
        maintenance: Maintenance::Manual,
        fillers: 0,
    });
}

/// One or two of the keys fit.
#[test]
fn calls_without_room_can_be_put_in_order() {
    rounds::<true>(|random| Round {
        threads: 2 + random.below(2),
        keys: 2 + random.below(2),
        calls: 5,
        max_cost: 1 + random.below(2),
        maintenance: if random.below(4) == 0 { Maintenance::Thread } else { Maintenance::Manual },
        fillers: 0,
    });
}

/// The table grows concurrently with the calls and shrinks when it is cleared, and its buckets are
/// full.
#[test]
fn calls_while_the_table_moves_can_be_put_in_order() {
    rounds::<true>(|random| Round {
        threads: 2,
        keys: 1 + random.below(2),
        calls: 6,
        max_cost: 2000,
        maintenance: Maintenance::Manual,
        fillers: 20 + random.below(20),
    });
}
