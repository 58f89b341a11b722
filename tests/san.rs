//! A program for ThreadSanitizer: storms without the test harness, whose own threads would be
//! reported. `.ci/sanitize thread` runs it. Without a sanitizer it is another stress test.

#[path = "support/mod.rs"]
mod support;

#[path = "support/storm.rs"]
mod storm;

use storm::{Spread, Storm};
use support::{BOTH, scale, seed};

fn main() {
    let seed = seed();
    for maintenance in BOTH {
        let storm = |name| Storm {
            name,
            seed,
            maintenance,
            spread: Spread::Even,
            abreast: 8,
            threads: 64 * scale(),
            operations: 300,
            keys: 2000,
            budget: 1000,
            max_garbage: u64::MAX,
            stalled: false,
            // The listener's access to the cache would synchronise its callers.
            listener_calls: false,
        };
        storm("even").run();
        Storm { keys: 8, budget: 20, ..storm("few") }.run();
        Storm { spread: Spread::Same, keys: 40, budget: 60, ..storm("same") }.run();
        Storm { spread: Spread::Low, listener_calls: true, ..storm("low") }.run();
        Storm { spread: Spread::High, threads: 16, ..storm("high") }.run();
        Storm { stalled: true, threads: 16, ..storm("stalled") }.run();
    }
    println!("san: all storms are over, and every account is right");
}
