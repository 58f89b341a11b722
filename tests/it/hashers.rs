//! Hashers of every kind, including degenerate ones.

use std::{
    hash::{BuildHasher, Hasher},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    thread,
};

use cortado::Maintenance;

use crate::{
    builder,
    support::{BOTH, Id, Random, Tally, Tracked, audit, eventually, seed, settle},
};

/// A hasher that maps the key, one number, to a hash by a function.
#[derive(Clone)]
struct By(Arc<dyn Fn(u64) -> u64 + Send + Sync>);

struct ByHasher(Arc<dyn Fn(u64) -> u64 + Send + Sync>, u64);

impl BuildHasher for By {
    type Hasher = ByHasher;

    fn build_hasher(&self) -> ByHasher {
        ByHasher(Arc::clone(&self.0), 0)
    }
}

impl Hasher for ByHasher {
    fn finish(&self) -> u64 {
        (self.0)(self.1)
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.1 = self.1 << 8 | u64::from(*byte));
    }

    fn write_u64(&mut self, number: u64) {
        self.1 = number;
    }
}

fn by(f: impl Fn(u64) -> u64 + Send + Sync + 'static) -> By {
    By(Arc::new(f))
}

/// Inserts, reads, replaces and removes; checks all values; returns how many entries were kept.
fn exercise(hasher: By, maintenance: Maintenance, entries: u64, keys: u64) -> usize {
    let tally = Arc::new(Tally::default());
    let cache = builder(entries, maintenance).expected_entries(8).hasher(hasher).build().unwrap();
    for round in 0..2u64 {
        for key in 0..keys {
            let insert = cache.insert(tally.make(key), tally.make(key * 10 + round));
            let is_in = insert.is_in();
            drop(insert);
            if maintenance == Maintenance::Manual {
                let found = cache.get(&Id(key)).map(|value| value.id);
                assert_eq!(found, is_in.then_some(key * 10 + round));
            }
        }
    }
    settle(&cache);
    audit(&cache);
    assert!(cache.pin().iter().all(|(key, value)| value.id / 10 == key.id));
    let kept = cache.len();
    assert_eq!(tally.alive(), 2 * kept as u64);
    for key in 0..keys {
        if let Some(value) = cache.remove(&Id(key)) {
            assert_eq!(value.id / 10, key);
        }
    }
    assert_eq!((cache.len(), cache.cost()), (0, 0));
    assert!(cache.close());
    assert_eq!(tally.alive(), 0);
    kept
}

#[test]
fn identity_hasher_keeps_nearly_all() {
    for maintenance in BOTH {
        assert!(exercise(by(|key| key), maintenance, 4000, 2000) > 1900);
    }
}

#[test]
fn hash_of_high_bits_only_keeps_nearly_all() {
    for maintenance in BOTH {
        assert!(exercise(by(|key| key << 48), maintenance, 4000, 2000) > 1900);
    }
}

#[test]
fn hash_of_low_bits_only_keeps_nearly_all() {
    for maintenance in BOTH {
        assert!(exercise(by(|key| key & 0xfff), maintenance, 4000, 2000) > 1900);
    }
}

#[test]
fn sixteen_hashes_for_all_keys_cost_room_and_never_give_a_wrong_answer() {
    for maintenance in BOTH {
        let kept = exercise(by(|key| key % 16), maintenance, 4000, 2000);
        assert!((8..=16 * 8).contains(&kept), "{kept}");
    }
}

#[test]
fn one_hash_for_all_keys_costs_room_and_never_gives_a_wrong_answer() {
    for maintenance in BOTH {
        for hash in [0, 1, u64::MAX, 1 << 63] {
            let kept = exercise(by(move |_| hash), maintenance, 4000, 500);
            assert!((1..=8).contains(&kept), "{kept} with hash {hash:x}");
        }
    }
}

#[test]
fn one_hash_for_all_keys_with_many_threads_keeps_the_accounts() {
    let seed = seed();
    for maintenance in BOTH {
        let tally = Arc::new(Tally::default());
        let cache = builder(5, maintenance).hasher(by(|_| 42)).build().unwrap();
        thread::scope(|scope| {
            for writer in 0..4 {
                let (cache, tally) = (&cache, &tally);
                scope.spawn(move || {
                    let mut random = Random::new(seed + writer);
                    for _ in 0..5000 {
                        let key = random.below(12);
                        match random.below(4) {
                            0 => drop(cache.remove(&Id(key))),
                            1 | 2 => drop(cache.insert(tally.make(key), tally.make(key))),
                            _ => {
                                if let Some(value) = cache.get(&Id(key)) {
                                    assert_eq!(value.id, key);
                                }
                            }
                        }
                    }
                });
            }
        });
        settle(&cache);
        audit(&cache);
        eventually("only the entries live", || tally.alive() == 2 * cache.len() as u64);
        assert!(cache.close());
        assert_eq!(tally.alive(), 0);
    }
}

#[test]
fn hasher_that_answers_differently_each_call_does_no_harm() {
    let seed = seed();
    for maintenance in BOTH {
        let (tally, state) = (Arc::new(Tally::default()), Arc::new(AtomicU64::new(seed)));
        let hasher = by(move |_| {
            Random::new(state.fetch_add(0x9e37_79b9_7f4a_7c15, SeqCst)).next() << 16 ^ seed
        });
        let cache = builder::<Tracked, Tracked>(300, maintenance)
            .expected_entries(8)
            .hasher(hasher)
            .build()
            .unwrap();
        thread::scope(|scope| {
            for writer in 0..3 {
                let (cache, tally) = (&cache, &tally);
                scope.spawn(move || {
                    let mut random = Random::new(seed + writer);
                    for _ in 0..4000 {
                        let key = random.below(1000);
                        match random.below(10) {
                            0 => drop(cache.remove(&Id(key))),
                            1 => drop(cache.get(&Id(key)).map(|value| assert_eq!(value.id, key))),
                            _ => drop(cache.insert(tally.make(key), tally.make(key))),
                        }
                        assert!(cache.cost() <= 300);
                    }
                });
            }
        });
        cache.set_max_cost(50);
        assert!(cache.cost() <= 50, "{}", cache.cost());
        settle(&cache);
        // A key may be passed more than once; each occurrence counts.
        eventually("the figures agree with what is there", || {
            (cache.len(), cache.cost()) == (cache.pin().iter().count(), cache.len() as u64)
        });
        assert_eq!(tally.alive(), 2 * cache.len() as u64);
        cache.clear();
        settle(&cache);
        assert_eq!((cache.len(), cache.cost(), tally.alive()), (0, 0, 0));
        assert!(cache.close());
        assert_eq!(tally.made(), tally.dropped());
    }
}

#[test]
fn equal_hashes_of_unequal_keys_never_share_a_value() {
    let cache = builder(100, Maintenance::Manual).hasher(by(|key| key / 3)).build().unwrap();
    for key in 0..30u64 {
        cache.insert(key, key);
        for other in 0..30u64 {
            assert!(cache.get_cloned(&other).is_none_or(|value| value == other));
        }
    }
}
