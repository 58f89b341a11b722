//! Manual maintenance: no thread, a manual clock, borrowed values, and garbage freed when you
//! choose.
//!
//! `cargo run --example manual_tick`

use std::time::Duration;

use cortado::{BuildError, Cache, Maintenance, ManualClock, WorkLimit};

fn main() -> Result<(), BuildError> {
    let clock = ManualClock::new();
    let cache = Cache::builder()
        .max_cost(50)
        // A table with more room than entries, so that no bucket is full.
        .expected_entries(1000)
        .maintenance(Maintenance::Manual)
        .clock(clock.clone())
        .build()?;
    for second in 1..=40 {
        assert!(cache.insert_with_ttl(second, (), Duration::from_secs(second)).is_in());
    }

    // An expired entry is a miss. Its cost is refunded by a tick, in slices of a size that you
    // choose.
    clock.advance(Duration::from_secs(30));
    assert!(!cache.contains_key(&30) && cache.contains_key(&31));
    assert_eq!(cache.cost(), 40);
    let ticked = cache.tick(WorkLimit::evictions(20));
    assert_eq!((ticked.expired, cache.cost()), (20, 20));
    assert_eq!(cache.tick(WorkLimit::ALL).expired, 10);
    assert_eq!(cache.cost(), 10);

    // A cache without a thread may hold values that borrow, here from `text`.
    let text = String::from("an insert makes its own room so it works without any tick");
    let words = Cache::builder().max_cost(5).build_manual()?;
    for (number, word) in text.split(' ').enumerate() {
        assert!(words.insert(number, word).is_in());
        assert!(words.cost() <= 5);
    }

    // A reader delays garbage, and frees it when it is dropped.
    words.flush();
    let held = words.remove(&11).expect("the newest is there");
    words.flush();
    assert_eq!((*held, words.memory().garbage_entries), ("tick", 1));
    drop(held);
    words.flush();
    assert_eq!(words.memory().garbage_entries, 0);
    println!("{} words, {} numbers", words.len(), cache.len());
    Ok(())
}
