//! Migrating from Stretto: the same program, with another line in `Cargo.toml`.
//!
//! `cargo run --package cortado-stretto --example from_stretto`

use std::{sync::mpsc, time::Duration};

use stretto::{CacheBuilder, CacheCallback, CacheError, Coster, Item};

/// The cost of a page is its length.
struct Length;

impl Coster for Length {
    type Value = String;

    fn cost(&self, page: &String) -> i64 {
        page.len() as i64
    }
}

/// Sends a message for each value that leaves or is rejected.
struct Report(mpsc::Sender<String>);

impl CacheCallback for Report {
    type Value = String;

    fn on_exit(&self, page: Option<String>) {
        _ = self.0.send(format!("gone: {}", page.unwrap_or_default()));
    }

    fn on_reject(&self, item: Item<String>) {
        _ = self.0.send(format!("refused: {} bytes", item.cost));
    }
}

fn main() -> Result<(), CacheError> {
    let (sender, told) = mpsc::channel();
    let builder = CacheBuilder::new(10_000, 1_000).set_coster(Length);
    let cache = builder.set_callback(Report(sender)).finalize()?;

    // With a cost of 0, the coster is called. The result is final: no `wait` is needed before the
    // value can be read.
    assert!(cache.insert("home", "hello".to_string(), 0));
    assert_eq!(cache.get("home").unwrap().value(), "hello");
    assert!(cache.insert_with_ttl("news", "soon old".to_string(), 0, Duration::from_secs(60)));
    assert!(cache.get_ttl("news").unwrap() <= Duration::from_secs(60));

    // Stretto would have returned `true`, and dropped it later.
    assert!(!cache.insert("large", "x".repeat(1_001), 0));
    assert_eq!(told.recv().unwrap(), "refused: 1001 bytes");

    // A copy, written back when it is dropped. The native equivalent is `update`, which loses no
    // change.
    cache.get_mut("home").unwrap().value_mut().push('!');
    assert_eq!(cache.get("home").unwrap().value(), "hello!");
    assert_eq!(told.recv().unwrap(), "gone: hello");

    cache.clear()?;
    assert!(cache.is_empty());
    Ok(())
}
