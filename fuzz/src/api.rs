//! Random calls in random order, compared with a plain map that determines the permitted results.

use std::{
    cell::Cell,
    collections::{BTreeMap, BTreeSet},
    hash::{BuildHasher, Hasher},
    sync::{Arc, Mutex},
    time::Duration,
};

use arbitrary::{Arbitrary, Unstructured};
use cortado::{
    Cache, Claim, ComputeOp, ComputeResult, EvictionPolicy, Insert, InsertOptions, ManualClock,
    Priority, RejectReason, Removed, WaitPolicy, WorkLimit,
};

/// A cache and the state of the comparison.
#[derive(Arbitrary, Debug)]
struct Script {
    max_cost: u32,
    expected_entries: u8,
    by_frequency: bool,
    hasher: Spread,
    max_garbage: Option<u16>,
    calls: Vec<Call>,
}

#[derive(Arbitrary, Clone, Copy, Debug)]
enum Spread {
    Even,
    Identity,
    High,
    Same,
    Few,
}

#[derive(Arbitrary, Debug)]
enum Call {
    Insert { key: u8, cost: Option<Cost>, ttl: Option<Ttl>, priority: u8 },
    InsertIfAbsent(u8),
    Replace(u8),
    Get(u8),
    Peek(u8),
    GetMany(Vec<u8>),
    Remove(u8),
    RemoveIf(u8, bool),
    Update(u8),
    Put(u8),
    Drop(u8),
    Load(u8),
    Fail(u8),
    Claim(u8, bool),
    SetTtl(u8, Option<Ttl>),
    Retain(u8),
    Clear,
    SetMaxCost(u32),
    Advance(Ttl),
    Tick(u8),
    Flush,
    Look,
}

#[derive(Arbitrary, Clone, Copy, Debug)]
enum Cost {
    Small(u8),
    Any(u64),
}

#[derive(Arbitrary, Clone, Copy, Debug)]
enum Ttl {
    Milliseconds(u8),
    Any(u64, u32),
}

impl Ttl {
    fn duration(self) -> Duration {
        match self {
            Self::Milliseconds(ms) => Duration::from_millis(ms.into()),
            Self::Any(seconds, nanoseconds) => Duration::from_secs(seconds)
                .saturating_add(Duration::from_nanos(nanoseconds.into())),
        }
    }
}

impl BuildHasher for Spread {
    type Hasher = SpreadHasher;

    fn build_hasher(&self) -> SpreadHasher {
        SpreadHasher(*self, 0)
    }
}

struct SpreadHasher(Spread, u64);

impl Hasher for SpreadHasher {
    fn write(&mut self, bytes: &[u8]) {
        self.1 = bytes.iter().fold(self.1, |sum, byte| sum << 8 | u64::from(*byte));
    }

    fn finish(&self) -> u64 {
        match self.0 {
            Spread::Even => self.1.wrapping_mul(0x9e37_79b9_7f4a_7c15),
            Spread::Identity => self.1,
            Spread::High => self.1 << 56,
            Spread::Same => 7,
            Spread::Few => self.1 % 3,
        }
    }
}

/// A value with a number that is unique among the live ones.
struct Held(u64, Arc<Mutex<BTreeSet<u64>>>);

impl Held {
    fn number(&self) -> u64 {
        self.0
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let number = self.0;
        assert!(self.1.lock().unwrap().remove(&number), "value {number} is dropped twice");
    }
}

/// The expected entry of a key: a value and its deadline.
type Model = BTreeMap<u8, (u64, Option<Duration>)>;

/// Runs the script encoded in the bytes.
pub fn run(data: &[u8]) {
    if let Ok(script) = Script::arbitrary(&mut Unstructured::new(data)) {
        play(script);
    }
}

fn play(script: Script) {
    let alive = Arc::new(Mutex::new(BTreeSet::new()));
    let told = Arc::new(Mutex::new(BTreeSet::new()));
    let teller = Arc::clone(&told);
    let clock = ManualClock::new();
    let mut builder = Cache::builder()
        .max_cost(u64::from(script.max_cost).max(1))
        .expected_entries(script.expected_entries.into())
        .eviction_policy(if script.by_frequency {
            EvictionPolicy::Frequency
        } else {
            EvictionPolicy::FrequencyPerCost
        })
        .clock(clock.clone())
        .metrics(true)
        .seed(1)
        .on_remove(move |removed: Removed<u8, Held>| {
            let number = removed.value.number();
            assert!(teller.lock().unwrap().insert(number), "value {number} is reported twice");
        })
        .hasher(script.hasher);
    if let Some(limit) = script.max_garbage {
        builder = builder.max_garbage(limit.into());
    }
    let cache = builder.build_manual().unwrap();
    let numbers = Cell::new(0);
    let make = || {
        numbers.set(numbers.get() + 1);
        alive.lock().unwrap().insert(numbers.get());
        Held(numbers.get(), Arc::clone(&alive))
    };
    let mut now = Duration::ZERO;
    let mut model = Model::new();
    for call in script.calls {
        step(&cache, &mut model, call, &make, &numbers, &clock, &mut now);
        assert!(cache.cost() <= cache.max_cost());
    }
    cache.flush();
    // Every entry in the cache is the expected one, and its cost is charged.
    let pinned = cache.pin();
    let mut costs = 0;
    for (key, value) in pinned.iter() {
        assert_eq!(model.get(key).map(|there| there.0), Some(value.number()), "of key {key}");
        assert!(!told.lock().unwrap().contains(&value.number()), "it was told of, and is there");
        costs += cache.entry_info(key).map_or(0, |info| info.cost);
    }
    assert_eq!(pinned.iter().count(), cache.len());
    assert_eq!(costs, cache.cost());
    drop(pinned);
    drop(cache);
    assert!(alive.lock().unwrap().is_empty(), "values are left");
}

/// Makes one call and compares its result.
fn step(
    cache: &Cache<u8, Held, Spread>,
    model: &mut Model,
    call: Call,
    make: &dyn Fn() -> Held,
    numbers: &Cell<u64>,
    clock: &ManualClock,
    now: &mut Duration,
) {
    // A miss shows that the entry was evicted; it must not return.
    let found = |model: &mut Model, key: u8, found: Option<u64>| match found {
        None => _ = model.remove(&key),
        Some(number) => {
            let there = model.get(&key).copied();
            assert_eq!(there.map(|there| there.0), Some(number), "of key {key}");
            let deadline = there.and_then(|there| there.1);
            assert!(deadline.is_none_or(|deadline| *now < deadline), "{key} is over");
        }
    };
    let put = |model: &mut Model, key: u8, inserted: &Insert<Held>, deadline| {
        if inserted.is_in() {
            model.insert(key, (numbers.get(), deadline));
        } else {
            model.remove(&key);
        }
    };
    match call {
        Call::Insert { key, cost, ttl, priority } => {
            let mut options = InsertOptions::new().priority(match priority % 16 {
                0 => Priority::Pinned,
                1..4 => Priority::High,
                4..8 => Priority::Low,
                _ => Priority::Normal,
            });
            options = match cost {
                Some(Cost::Small(cost)) => options.cost(cost.into()),
                Some(Cost::Any(cost)) => options.cost(cost),
                None => options,
            };
            let mut deadline = None;
            if let Some(ttl) = ttl {
                options = options.ttl(ttl.duration());
                deadline = after(*now, ttl.duration());
            }
            put(model, key, &cache.insert_with(key, make(), options), deadline);
        }
        Call::InsertIfAbsent(key) => match cache.insert_if_absent(key, make()) {
            Insert::Rejected(_, RejectReason::Present) => {
                assert!(model.contains_key(&key), "kept, and never was there");
            }
            inserted => put(model, key, &inserted, None),
        },
        Call::Replace(key) => match cache.replace(key, make()) {
            Insert::Updated => {
                let there = model.get_mut(&key).expect("replaced, and never was there");
                assert!(there.1.is_none_or(|deadline| *now < deadline), "what was over");
                there.0 = numbers.get();
            }
            Insert::Rejected(..) => _ = model.remove(&key),
            Insert::Inserted => unreachable!("it only replaces"),
        },
        Call::Get(key) => found(model, key, cache.get(&key).map(|value| value.number())),
        Call::Peek(key) => found(model, key, cache.peek(&key).map(|value| value.number())),
        Call::GetMany(keys) => {
            let mut all = Vec::new();
            cache.get_many(&keys, |index, value| all.push((keys[index], value.map(Held::number))));
            assert!(all.iter().map(|(key, _)| key).eq(&keys));
            all.into_iter().for_each(|(key, value)| found(model, key, value));
        }
        Call::Remove(key) => {
            found(model, key, cache.remove(&key).map(|value| value.number()));
            model.remove(&key);
            assert!(!cache.contains_key(&key));
        }
        Call::RemoveIf(key, yes) => {
            if let Some(value) = cache.remove_if(&key, |_| yes) {
                assert!(yes);
                found(model, key, Some(value.number()));
                model.remove(&key);
            } else if yes {
                model.remove(&key);
            }
        }
        Call::Update(key) => {
            let updated = cache.update(&key, |old| {
                assert_eq!(model.get(&key).map(|there| there.0), Some(old.number()));
                make()
            });
            match model.get_mut(&key) {
                Some(there) if updated => there.0 = numbers.get(),
                _ => {
                    assert!(!updated);
                    model.remove(&key);
                }
            }
        }
        Call::Put(key) => match cache.compute(key, |_| ComputeOp::Put(make())) {
            ComputeResult::Inserted(_) => _ = model.insert(key, (numbers.get(), None)),
            ComputeResult::Updated(_) => {
                model.get_mut(&key).expect("it was there").0 = numbers.get()
            }
            ComputeResult::Rejected(..) => _ = model.remove(&key),
            ComputeResult::Kept(_) | ComputeResult::Removed(_) => unreachable!("a put"),
        },
        Call::Drop(key) => {
            let removed = cache.compute(key, |_| ComputeOp::Remove).is_changed();
            assert!(model.remove(&key).is_some() || !removed);
        }
        Call::Load(key) => {
            let before = numbers.get();
            let number = cache.get_or_insert_with(key, make).number();
            if numbers.get() == before {
                found(model, key, Some(number));
            } else {
                assert_eq!(number, numbers.get());
                // It may have been rejected, which a later miss shows.
                model.insert(key, (number, None));
            }
        }
        Call::Fail(key) => match cache.try_get_or_insert_with(key, || Err(())) {
            Ok(value) => found(model, key, Some(value.number())),
            Err(()) => found(model, key, None),
        },
        Call::Claim(key, fills) => match cache.claim(key, WaitPolicy::No) {
            Claim::Hit(value) => found(model, key, Some(value.number())),
            Claim::Fill(guard) if fills => {
                let number = guard.fill(make()).number();
                model.insert(key, (number, None));
            }
            Claim::Fill(guard) => {
                drop(guard);
                found(model, key, None);
            }
            Claim::Busy(_) => unreachable!("no other caller loads"),
        },
        Call::SetTtl(key, ttl) => {
            let ttl = ttl.map(Ttl::duration);
            if cache.set_ttl(&key, ttl).is_ok() {
                let there = model.get_mut(&key).expect("it was there");
                there.1 = ttl.and_then(|ttl| after(*now, ttl));
            }
        }
        Call::Retain(rest) => {
            cache.retain(|key, value| {
                found(model, *key, Some(value.number()));
                key % 4 != rest % 4
            });
            model.retain(|key, _| key % 4 != rest % 4);
        }
        Call::Clear => {
            cache.clear();
            model.clear();
            assert_eq!((cache.len(), cache.cost()), (0, 0));
        }
        Call::SetMaxCost(max) => {
            cache.set_max_cost(max.into());
            assert_eq!(cache.max_cost(), max.into());
        }
        Call::Advance(by) => {
            clock.advance(by.duration());
            // Like the clock itself, which stops at its end.
            *now = now.saturating_add(by.duration()).min(Duration::from_nanos(u64::MAX));
        }
        Call::Tick(most) => {
            let ticked = cache.tick(WorkLimit::evictions(most.into()));
            assert!(ticked.evicted + ticked.expired <= 2 * usize::from(most));
        }
        Call::Flush => cache.flush(),
        Call::Look => {
            let pinned = cache.pin();
            for (key, value) in pinned.iter() {
                found(model, *key, Some(value.number()));
                assert!(cache.frequency(key) <= 15);
            }
            let _ = (cache.metrics(), cache.memory(), format!("{cache:?}"));
        }
    }
}

/// Returns the deadline of a time to live; `None` on overflow.
fn after(now: Duration, ttl: Duration) -> Option<Duration> {
    let end = Duration::from_nanos(u64::MAX);
    now.checked_add(ttl).filter(|deadline| *deadline < end)
}
