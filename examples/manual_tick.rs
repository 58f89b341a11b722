//! Maintenance by hand: no thread, a clock you move, values that borrow, garbage freed where you want it.
//!
//! `cargo run --example manual_tick`

use std::time::Duration;

use cortado::{BuildError, Cache, Maintenance, ManualClock, WorkLimit};

fn main() -> Result<(), BuildError> {
    let clock = ManualClock::new();
    let cache = Cache::builder()
        .max_cost(50)
        // A table with more room than there will be entries: none goes for lack of a place.
        .expected_entries(1000)
        .maintenance(Maintenance::Manual)
        .clock(clock.clone())
        .build()?;
    for second in 1..=40 {
        assert!(cache.insert_with_ttl(second, (), Duration::from_secs(second)).is_in());
    }

    // What is over is a miss; what it cost comes back with a tick, in slices as large as you say.
    clock.advance(Duration::from_secs(30));
    assert!(!cache.contains_key(&30) && cache.contains_key(&31));
    assert_eq!(cache.cost(), 40);
    let ticked = cache.tick(WorkLimit::evictions(20));
    assert_eq!((ticked.expired, cache.cost()), (20, 20));
    assert_eq!(cache.tick(WorkLimit::ALL).expired, 10);
    assert_eq!(cache.cost(), 10);

    // A cache without a thread may hold what lives no longer than `text`.
    let text = String::from("an insert makes its own room so it works without any tick");
    let words = Cache::builder().max_cost(5).build_manual()?;
    for (number, word) in text.split(' ').enumerate() {
        assert!(words.insert(number, word).is_in());
        assert!(words.cost() <= 5);
    }

    // Somebody who reads holds garbage back, and lets it go.
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
