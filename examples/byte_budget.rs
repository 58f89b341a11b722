//! A budget in bytes: pages of different sizes share 64 KiB.
//!
//! `cargo run --example byte_budget`

use cortado::{Cache, Insert, RejectReason};

const BUDGET: u64 = 64 << 10;

fn main() -> Result<(), cortado::BuildError> {
    let cache = Cache::builder()
        .max_cost(BUDGET)
        .cost_of(|path: &String, page: &Vec<u8>| (path.len() + page.len()) as u64)
        .build()?;

    for number in 0..500 {
        let page = vec![b'.'; 100 + number % 10 * 100];
        // The outcome is final when the call returns: inserted, or rejected with the value
        // returned.
        if let Insert::Rejected(page, reason) = cache.insert(format!("/page/{number}"), page) {
            println!("/page/{number} of {} bytes was refused: {reason:?}", page.len());
        }
        assert!(cache.cost() <= BUDGET, "at no moment is there more");
    }
    let bytes: usize = cache.pin().iter().map(|(path, page)| path.len() + page.len()).sum();
    println!("{} pages, {bytes} bytes of {BUDGET}", cache.len());
    assert!(bytes as u64 <= BUDGET);

    // An entry that can never fit is rejected at once, and evicts nothing.
    let before = cache.len();
    let huge = cache.insert("/huge".to_string(), vec![0; BUDGET as usize]);
    assert!(matches!(huge, Insert::Rejected(_, RejectReason::TooCostly)));
    assert!(cache.len() <= before && !cache.contains_key("/huge"));

    // A lower budget holds when the call returns.
    cache.set_max_cost(BUDGET / 4);
    assert!(cache.cost() <= BUDGET / 4);
    println!("{} pages, {} bytes of {}", cache.len(), cache.cost(), cache.max_cost());
    Ok(())
}
