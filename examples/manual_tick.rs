//! Maintenance by hand: no thread, values that borrow, and garbage freed where you want it.

use cortado::{BuildError, Cache, Work};

fn main() -> Result<(), BuildError> {
    let text = std::fs::read_to_string(file!()).unwrap_or_else(|_| "no text here".repeat(100));

    // Without a thread of its own the cache may hold what lives no longer than `text`.
    let cache = Cache::builder().max_cost(50).metrics(true).build_manual()?;
    for (number, word) in text.split_whitespace().enumerate() {
        // An insert makes its own room, so it works without any tick.
        assert!(cache.insert(number, word).is_in());
    }
    assert!(cache.len() <= 50);

    // A slice of what was put off, in a quiet moment: accesses are counted, garbage is freed.
    let ticked = cache.tick(Work::evictions(10));
    println!("{} accesses counted, {} entries freed", ticked.events, ticked.freed);

    // Somebody who reads holds garbage back.
    let last = text.split_whitespace().count() - 1;
    let held = cache.remove(&last).expect("the newest is there");
    cache.flush();
    assert_eq!(cache.memory().garbage_entries, 1);
    assert!(text.ends_with(*held) || text.trim_end().ends_with(*held));

    // And lets it go.
    drop(held);
    cache.flush();
    assert_eq!(cache.memory().garbage_entries, 0);
    println!("{}", cache.metrics());
    Ok(())
}
