//! Linearizability: for each key, the results that threads saw are explained by some sequential
//! order of the calls. See `tests/support/history.rs`.
//!
//! `CORTADO_TEST_SCALE=100 cargo test --release --test linear` runs more rounds, and
//! `loom_tests/tests/history.rs` runs them under shuttle.

mod support;

#[path = "support/history.rs"]
mod history;

use cortado::Maintenance;
use history::{Round, play_and_check};
use support::{Random, scale, seed};

fn rounds<const LOSSY: bool>(count: u64, mut round: impl FnMut(&mut Random) -> Round) {
    let mut random = Random::new(seed());
    let mut histories = 0;
    for _ in 0..count * scale() {
        let round = round(&mut random);
        histories += play_and_check::<LOSSY>(round, &mut random);
    }
    println!("{histories} histories");
}

/// Nothing is evicted: every miss is explained by a call that removed the entry.
#[test]
fn calls_with_room_can_be_put_in_order() {
    rounds::<false>(300, |random| Round {
        threads: 2 + random.below(7),
        keys: 1 + random.below(4),
        calls: 12,
        max_cost: 1000,
        maintenance: Maintenance::Manual,
        fillers: 0,
    });
}

/// One or two of the keys fit.
#[test]
fn calls_without_room_can_be_put_in_order() {
    rounds::<true>(200, |random| Round {
        threads: 2 + random.below(4),
        keys: 2 + random.below(3),
        calls: 12,
        max_cost: 1 + random.below(2),
        maintenance: if random.below(4) == 0 { Maintenance::Thread } else { Maintenance::Manual },
        fillers: 0,
    });
}

/// The table grows concurrently with the calls and shrinks when it is cleared, and its buckets are
/// full.
#[test]
fn calls_while_the_table_moves_can_be_put_in_order() {
    rounds::<true>(150, |random| Round {
        threads: 2 + random.below(4),
        keys: 1 + random.below(4),
        calls: 16,
        max_cost: 2000,
        maintenance: Maintenance::Manual,
        fillers: 200 + random.below(400),
    });
}
