//! Engines for unit tests.

use super::{Callbacks, Engine, Mode, Terms, Timing, Trace, place::borrow};
use crate::{
    IdentityHash,
    config::{Maintenance, SLOW_LOAD, Settings},
    primitives::striped::Push,
    sync::{Arc, atomic::Ordering},
};

/// Makes an engine for `max_cost` entries of cost 1.
pub fn manual(max_cost: u64) -> Engine<u64, u64, IdentityHash> {
    sized(max_cost, max_cost as usize)
}

/// Like [`manual`], with another number of expected entries.
pub fn sized(max_cost: u64, expected_entries: usize) -> Engine<u64, u64, IdentityHash> {
    let settings = Settings {
        name: String::new(),
        max_cost,
        expected_entries,
        max_garbage: None,
        maintenance: Maintenance::Manual,
        eviction_policy: crate::EvictionPolicy::default(),
        seed: 1,
        metrics: true,
        charge_overhead: false,
        keep_priority: false,
        slow_load: SLOW_LOAD,
    };
    Engine::new(
        settings,
        IdentityHash,
        Callbacks::default(),
        Timing::new(None, None, None, None, false),
        Arc::default(),
    )
    .unwrap()
}

/// Inserts a key.
pub fn put(engine: &Engine<u64, u64, IdentityHash>, key: u64) {
    engine.insert(key, key, Terms::DEFAULT, Mode::Upsert);
}

/// Returns how many entries the window's queues hold, and how many are flagged as in the window.
pub fn queued_and_flagged(engine: &Engine<u64, u64, IdentityHash>) -> (usize, usize) {
    let guard = engine.table.pin();
    let flagged = engine.table.iter(&guard).filter(|entry| entry.flags().is_in_window()).count();
    let windows = engine.window_cost.load(Ordering::Relaxed) as usize;
    let backlog = borrow(&engine.backlog, |backlog| backlog.hashes.len()).unwrap();
    let rings = engine.new_entries.drain_all(|hashes| {
        hashes
            .iter()
            .for_each(|&hash| assert_eq!(engine.new_entries.current().place(hash), Push::Accepted));
    });
    (windows + backlog + rings, flagged)
}

/// Calls `f` while all shards are taken.
pub fn without_shards<S>(engine: &Engine<u64, u64, S>, f: impl FnOnce()) {
    let places = engine.shards.iter();
    let taken: Vec<_> = places.map(|place| place.take().expect("it is there")).collect();
    f();
    for (place, shard) in engine.shards.iter().zip(taken) {
        place.store(Some(shard));
    }
}

/// Makes a full cache of 1000 entries whose keys up to 900 are in main and often accessed: an entry
/// that was accessed once loses to each of them.
pub fn with_favourites() -> Engine<u64, u64, IdentityHash> {
    let engine = sized(1000, 1000);
    (0..20_000).for_each(|key| put(&engine, key % 900));
    for _ in 0..20 {
        for key in 0..900u64 {
            let hash = engine.hash(&key);
            let _ = engine.get(hash, Trace::Leave, |k| *k == key);
        }
    }
    engine
}
