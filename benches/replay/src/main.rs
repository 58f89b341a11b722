//! Replays traces.
fn main() {}
