//! Replays traces through caches.
fn main() {}
