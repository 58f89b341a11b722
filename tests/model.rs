//! Long random sequences of calls, checked against a simple sequential model.
//!
//! The cache has no maintenance thread and a manual clock. So after each call its contents, their
//! cost, the entries that have left with their causes, and the number of live keys and values are
//! known exactly. Only the choice of victims is not: the listener reports them, and a miss that it
//! has not reported is a failure.
//!
//! `PROPTEST_CASES=10000 cargo test --release --test model` tries more. A failure is shrunk to a
//! few calls.

mod support;

use std::{
    collections::{BTreeMap, BTreeSet},
    hash::{BuildHasher, Hasher},
    sync::{Arc, Mutex},
    time::Duration,
};

use cortado::{
    Cache, Claim, ComputeOp, ComputeResult, DefaultHashBuilder, ExportedEntry, Insert,
    InsertOptions, ManualClock, RejectReason, RemovalCause, TtlError, WaitPolicy,
};
use proptest::{collection::vec, prelude::*};

use crate::support::{Id, Tally, Tracked, settle};

/// A value: its number and its cost.
type Value = (Tracked, u64);

/// A call. Keys are small numbers, times are seconds.
#[derive(Clone, Debug)]
enum Call {
    Get(u64),
    Peek(u64),
    GetMany(Vec<u64>),
    Insert { key: u64, cost: u64, ttl: Option<u64> },
    InsertWithCost { key: u64, cost: u64 },
    InsertIfAbsent { key: u64, cost: u64 },
    Replace { key: u64, cost: u64 },
    ComputePut { key: u64, cost: u64 },
    ComputeKeep(u64),
    ComputeRemove(u64),
    Load { key: u64, cost: u64 },
    FailToLoad(u64),
    Claim { key: u64, cost: u64, fill: bool },
    Remove(u64),
    RemoveIf(u64, bool),
    SetTtl(u64, Option<u64>),
    Retain { rest: u64 },
    Drain,
    Clear,
    Restart,
    SetMaxCost(u64),
    Advance(u64),
}

const KEYS: u64 = 24;

fn call(most: u64) -> impl Strategy<Value = Call> {
    let key = || 0..KEYS;
    // Occasionally more than the whole budget.
    let cost = move || prop_oneof![8 => 0..=(most / 4).min(9), 1 => 0..=most + 2];
    let ttl = || prop_oneof![2 => Just(None), 1 => (0..20u64).prop_map(Some)];
    prop_oneof![
        12 => key().prop_map(Call::Get),
        2 => key().prop_map(Call::Peek),
        2 => vec(key(), 0..8).prop_map(Call::GetMany),
        20 => (key(), cost(), ttl()).prop_map(|(key, cost, ttl)| Call::Insert { key, cost, ttl }),
        4 => (key(), cost()).prop_map(|(key, cost)| Call::InsertWithCost { key, cost }),
        4 => (key(), cost()).prop_map(|(key, cost)| Call::InsertIfAbsent { key, cost }),
        4 => (key(), cost()).prop_map(|(key, cost)| Call::Replace { key, cost }),
        4 => (key(), cost()).prop_map(|(key, cost)| Call::ComputePut { key, cost }),
        1 => key().prop_map(Call::ComputeKeep),
        2 => key().prop_map(Call::ComputeRemove),
        4 => (key(), cost()).prop_map(|(key, cost)| Call::Load { key, cost }),
        1 => key().prop_map(Call::FailToLoad),
        2 => (key(), cost(), any::<bool>())
            .prop_map(|(key, cost, fill)| Call::Claim { key, cost, fill }),
        4 => key().prop_map(Call::Remove),
        2 => (key(), any::<bool>()).prop_map(|(key, yes)| Call::RemoveIf(key, yes)),
        4 => (key(), ttl()).prop_map(|(key, ttl)| Call::SetTtl(key, ttl)),
        1 => (0..3u64).prop_map(|rest| Call::Retain { rest }),
        1 => Just(Call::Drain),
        1 => Just(Call::Clear),
        1 => Just(Call::Restart),
        1 => (0..=most).prop_map(Call::SetMaxCost),
        6 => (0..8u64).prop_map(Call::Advance),
    ]
}

/// A hasher with few distinct hashes, so that buckets are full, or with all.
#[derive(Clone)]
struct Hashing {
    real: DefaultHashBuilder,
    /// The number of distinct hashes, or `None` for all.
    few: Option<u64>,
}

impl BuildHasher for Hashing {
    type Hasher = Hash64;

    fn build_hasher(&self) -> Hash64 {
        Hash64 { hashing: self.clone(), number: 0 }
    }
}

struct Hash64 {
    hashing: Hashing,
    number: u64,
}

impl Hasher for Hash64 {
    fn write(&mut self, _: &[u8]) {
        unreachable!("keys are numbers");
    }

    fn write_u64(&mut self, number: u64) {
        self.number = number;
    }

    fn finish(&self) -> u64 {
        let number = self.hashing.few.map_or(self.number, |few| self.number % few);
        self.hashing.real.hash_one(number)
    }
}

/// The removals that the listener was notified of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Left {
    key: u64,
    id: u64,
    cost: u64,
    cause: RemovalCause,
}

/// An entry of the model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Resident {
    id: u64,
    cost: u64,
    deadline: Option<u64>,
}

struct World {
    cache: Cache<Tracked, Value, Hashing>,
    clock: ManualClock,
    told: Arc<Mutex<Vec<Left>>>,
    keys: Arc<Tally>,
    values: Arc<Tally>,
    /// Whether there is so much room that nothing may be evicted.
    is_ample: bool,
    model: BTreeMap<u64, Resident>,
    max_cost: u64,
    now: u64,
    /// The entries that this call has removed, with the permitted causes.
    leaving: Vec<(u64, Resident, &'static [RemovalCause])>,
}

const REPLACED: &[RemovalCause] = &[RemovalCause::Replaced];
/// A replaced entry may have been evicted to make room for its successor.
const REPLACED_OR_EVICTED: &[RemovalCause] = &[RemovalCause::Replaced, RemovalCause::Evicted];
const EVICTED: &[RemovalCause] = &[RemovalCause::Evicted];
const REMOVED: &[RemovalCause] = &[RemovalCause::Removed];
const CLEARED: &[RemovalCause] = &[RemovalCause::Cleared];
const EXPIRED: &[RemovalCause] = &[RemovalCause::Expired];
const REJECTED: &[RemovalCause] = &[RemovalCause::Rejected];

impl World {
    fn new(max_cost: u64, few: Option<u64>, is_ample: bool) -> Self {
        let clock = ManualClock::new();
        let told: Arc<Mutex<Vec<Left>>> = Arc::default();
        let tell = Arc::clone(&told);
        let cache = Cache::builder()
            .max_cost(max_cost)
            .expected_entries(if is_ample { 4096 } else { 16 })
            .seed(1)
            .metrics(true)
            .timed(true)
            .clock(clock.clone())
            .cost_of(|_: &Tracked, value: &Value| value.1)
            .on_remove(move |removed| {
                tell.lock().unwrap().push(Left {
                    key: removed.key.id,
                    id: removed.value.0.id,
                    cost: removed.cost,
                    cause: removed.cause,
                });
            })
            .hasher(Hashing { real: DefaultHashBuilder::with_seeds(1, 2, 3, 4), few })
            .build_manual()
            .unwrap();
        Self {
            cache,
            clock,
            told,
            keys: Arc::default(),
            values: Arc::default(),
            is_ample,
            model: BTreeMap::new(),
            max_cost,
            now: 0,
            leaving: Vec::new(),
        }
    }

    fn key(&self, key: u64) -> Tracked {
        self.keys.make(key)
    }

    fn value(&self, cost: u64) -> Value {
        (self.values.make(self.values.made()), cost)
    }

    fn id(&self, key: u64) -> Option<u64> {
        self.model.get(&key).map(|resident| resident.id)
    }

    fn leave(&mut self, key: u64, causes: &'static [RemovalCause]) {
        if let Some(resident) = self.model.remove(&key) {
            self.leaving.push((key, resident, causes));
        }
    }

    fn check_reason(&self, reason: RejectReason, cost: u64) {
        match reason {
            RejectReason::TooCostly => assert!(cost > self.max_cost),
            RejectReason::Cold => assert!(!self.is_ample && cost <= self.max_cost),
            other => panic!("{other:?} though there is no garbage, and nothing is pinned"),
        }
    }

    /// Updates the model after a write that returned `result`; `value` is its number and cost.
    fn settle_write(
        &mut self,
        key: u64,
        (id, cost): (u64, u64),
        deadline: Option<u64>,
        result: Insert<Value>,
    ) {
        match result {
            Insert::Inserted => self.leave(key, EVICTED),
            Insert::Updated => {
                assert!(self.model.contains_key(&key));
                self.leave(key, REPLACED);
            }
            Insert::Rejected(value, reason) => {
                assert_eq!(value.0.id, id, "the rejected value comes back");
                self.check_reason(reason, cost);
                self.leave(key, REPLACED_OR_EVICTED);
                return;
            }
        }
        assert!(cost <= self.max_cost);
        self.model.insert(key, Resident { id, cost, deadline });
    }

    fn call(&mut self, call: &Call) {
        let cache = self.cache.clone();
        let second = |s: u64| Duration::from_secs(s);
        let there = |key: u64| self.id(key);
        match *call {
            Call::Get(key) => {
                let found = cache.get(&Id(key)).map(|value| value.0.id);
                assert_eq!(found, there(key));
                assert_eq!(cache.contains_key(&Id(key)), found.is_some());
            }
            Call::Peek(key) => {
                let before = cache.metrics();
                let found = cache.peek(&Id(key)).map(|value| (value.0.id, value.cost()));
                let expected = self.model.get(&key).map(|resident| (resident.id, resident.cost));
                assert_eq!(found, expected);
                assert_eq!(cache.metrics(), before);
                let info = cache.entry_info(&Id(key));
                assert_eq!(info.map(|info| info.cost), expected.map(|(_, cost)| cost));
                let left = self.model.get(&key).and_then(|resident| resident.deadline);
                assert_eq!(info.and_then(|info| info.ttl), left.map(|at| second(at - self.now)));
            }
            Call::GetMany(ref keys) => {
                let ids: Vec<Id> = keys.iter().map(|key| Id(*key)).collect();
                let mut found = vec![None; keys.len()];
                cache.get_many(&ids, |index, value| found[index] = value.map(|v| v.0.id));
                assert_eq!(found, keys.iter().map(|key| there(*key)).collect::<Vec<_>>());
            }
            Call::Insert { key, cost, ttl } => {
                let value = self.value(cost);
                let made = (value.0.id, cost);
                let result = match ttl {
                    None => cache.insert(self.key(key), value),
                    Some(ttl) => {
                        let options = InsertOptions::new().ttl(second(ttl));
                        cache.insert_with(self.key(key), value, options)
                    }
                };
                self.settle_write(key, made, ttl.map(|ttl| self.now + ttl), result);
            }
            Call::InsertWithCost { key, cost } => {
                // The cost that the caller states, not that of the value.
                let value = self.value(77);
                let made = (value.0.id, cost);
                let result = cache.insert_with_cost(self.key(key), value, cost);
                self.settle_write(key, made, None, result);
            }
            Call::InsertIfAbsent { key, cost } => {
                let value = self.value(cost);
                let id = value.0.id;
                match cache.insert_if_absent(self.key(key), value) {
                    Insert::Rejected(value, RejectReason::Present) => {
                        assert!(value.0.id == id && there(key).is_some());
                    }
                    result => {
                        assert!(there(key).is_none());
                        self.settle_write(key, (id, cost), None, result);
                    }
                }
            }
            Call::Replace { key, cost } => {
                let value = self.value(cost);
                let id = value.0.id;
                let old = self.model.get(&key).copied();
                match (cache.replace(self.key(key), value), old) {
                    (Insert::Updated, Some(old)) => {
                        self.settle_write(key, (id, cost), old.deadline, Insert::Updated);
                    }
                    (Insert::Updated, None) => panic!("nothing was there to be replaced"),
                    (Insert::Inserted, _) => panic!("it only replaces"),
                    (Insert::Rejected(value, _), _) => {
                        assert_eq!(value.0.id, id);
                        assert!(old.is_none() || cost > self.max_cost || !self.is_ample);
                        self.leave(key, REPLACED_OR_EVICTED);
                    }
                }
            }
            Call::ComputePut { key, cost } => {
                let mut value = Some(self.value(cost));
                let id = value.as_ref().map(|value| value.0.id).unwrap();
                let old = self.model.get(&key).copied();
                let computed = cache.compute(self.key(key), |seen| match value.take() {
                    Some(value) => {
                        assert_eq!(seen.map(|value| value.0.id), old.map(|old| old.id));
                        ComputeOp::Put(value)
                    }
                    // Called again, because the entry it saw was evicted to make room for the new
                    // value.
                    None => {
                        assert!(seen.is_none());
                        ComputeOp::Keep
                    }
                });
                let deadline = old.and_then(|old| old.deadline);
                match computed {
                    ComputeResult::Inserted(_) => {
                        self.settle_write(key, (id, cost), None, Insert::Inserted);
                    }
                    ComputeResult::Updated(_) => {
                        self.settle_write(key, (id, cost), deadline, Insert::Updated);
                    }
                    ComputeResult::Rejected(value, reason) => {
                        let rejected = Insert::Rejected(value, reason);
                        self.settle_write(key, (id, cost), None, rejected);
                    }
                    ComputeResult::Kept(_) => {
                        assert!(old.is_some() && !self.is_ample);
                        self.leave(key, EVICTED);
                    }
                    ComputeResult::Removed(_) => panic!("it was to be put"),
                }
            }
            Call::ComputeKeep(key) => {
                let kept = cache.compute(self.key(key), |_| ComputeOp::Keep);
                assert!(matches!(kept, ComputeResult::Kept(_)));
            }
            Call::ComputeRemove(key) => {
                let computed = cache.compute(self.key(key), |_| ComputeOp::Remove);
                assert_eq!(computed.is_changed(), there(key).is_some());
                drop(computed);
                self.leave(key, REMOVED);
            }
            Call::Load { key, cost } => {
                let (value, old) = (self.value(cost), there(key));
                let id = value.0.id;
                let loaded = cache.get_or_insert_with(self.key(key), || {
                    assert!(old.is_none(), "what is there is not loaded");
                    value
                });
                assert_eq!(loaded.0.id, old.unwrap_or(id));
                drop(loaded);
                self.settle_load(key, (id, cost), old);
            }
            Call::FailToLoad(key) => {
                let loaded = cache.try_get_or_insert_with(self.key(key), || Err(()));
                assert_eq!(loaded.map(|value| value.0.id).ok(), there(key));
            }
            Call::Claim { key, cost, fill } => {
                let (value, old) = (self.value(cost), there(key));
                let id = value.0.id;
                match cache.claim(self.key(key), WaitPolicy::No) {
                    Claim::Hit(value) => assert_eq!(Some(value.0.id), old),
                    Claim::Fill(guard) => {
                        assert_eq!(old, None);
                        if fill {
                            assert_eq!(guard.fill(value).0.id, id);
                        }
                    }
                    Claim::Busy(_) => panic!("no load in progress"),
                }
                if fill {
                    self.settle_load(key, (id, cost), old);
                }
            }
            Call::Remove(key) => {
                let removed = cache.remove(&Id(key)).map(|value| value.0.id);
                assert_eq!(removed, there(key));
                self.leave(key, REMOVED);
            }
            Call::RemoveIf(key, yes) => {
                let removed = cache.remove_if(&Id(key), |_| yes).map(|value| value.0.id);
                assert_eq!(removed, there(key).filter(|_| yes));
                if yes {
                    self.leave(key, REMOVED);
                }
            }
            Call::SetTtl(key, ttl) => {
                let done = cache.set_ttl(&Id(key), ttl.map(second));
                let now = self.now;
                match self.model.get_mut(&key) {
                    None => assert_eq!(done, Err(TtlError::Absent)),
                    Some(resident) => {
                        assert_eq!(done, Ok(()));
                        resident.deadline = ttl.map(|ttl| now + ttl);
                    }
                }
            }
            Call::Retain { rest } => {
                cache.retain(|key, _| key.id % 3 != rest);
                (0..KEYS).filter(|key| key % 3 == rest).for_each(|key| self.leave(key, REMOVED));
            }
            Call::Drain => {
                let mut shown = BTreeSet::new();
                cache.drain(|key, value| assert!(shown.insert((key.id, value.0.id))));
                let all = self.model.iter().map(|(key, resident)| (*key, resident.id));
                assert_eq!(shown, all.collect());
                (0..KEYS).for_each(|key| self.leave(key, CLEARED));
            }
            Call::Clear => {
                cache.clear();
                (0..KEYS).for_each(|key| self.leave(key, CLEARED));
            }
            Call::Restart => self.restart(),
            Call::SetMaxCost(max_cost) => {
                cache.set_max_cost(max_cost);
                self.max_cost = max_cost;
                assert!(cache.cost() <= max_cost, "when the call returns");
            }
            Call::Advance(seconds) => {
                self.clock.advance(second(seconds));
                self.now += seconds;
                // `tick` was not called yet.
                for (key, resident) in &self.model {
                    let is_over = resident.deadline.is_some_and(|at| at <= self.now);
                    assert_eq!(cache.peek(&Id(*key)).is_none(), is_over);
                }
            }
        }
        self.check();
    }

    /// Records the removal of a loaded value that was rejected.
    fn settle_load(&mut self, key: u64, (id, cost): (u64, u64), old: Option<u64>) {
        if old.is_some() {
            return;
        }
        settle(&self.cache);
        let loaded = Resident { id, cost, deadline: None };
        if self.told.lock().unwrap().iter().any(|left| left.id == id) {
            assert!(cost > self.max_cost || !self.is_ample);
            self.leaving.push((key, loaded, REJECTED));
        } else {
            self.model.insert(key, loaded);
        }
    }

    /// Exports all entries and imports them into a new cache, as after a restart.
    fn restart(&mut self) {
        let all: Vec<(u64, u64, Option<Duration>)> = {
            let pinned = self.cache.pin();
            pinned.export().map(|record| (record.key.id, record.cost, record.ttl)).collect()
        };
        self.cache.clear();
        (0..KEYS).for_each(|key| self.leave(key, CLEARED));
        settle(&self.cache);
        let mut made = Vec::new();
        let records: Vec<ExportedEntry<Tracked, Value>> = all
            .into_iter()
            .map(|(key, cost, ttl)| {
                let value = self.value(cost);
                let deadline = ttl.map(|ttl| self.now + ttl.as_secs());
                made.push((key, Resident { id: value.0.id, cost, deadline }));
                let mut record = ExportedEntry::new(self.key(key), value);
                (record.cost, record.ttl) = (cost, ttl);
                record
            })
            .collect();
        let imported = self.cache.import(records);
        assert_eq!(imported.kept, 0);
        assert_eq!(imported.inserted + imported.rejected, made.len());
        assert!(imported.rejected == 0 || !self.is_ample);
        let there: BTreeSet<u64> = self.cache.pin().values().map(|value| value.0.id).collect();
        for (key, resident) in made {
            if there.contains(&resident.id) {
                self.model.insert(key, resident);
            } else if self.told.lock().unwrap().iter().any(|left| left.id == resident.id) {
                self.leaving.push((key, resident, EVICTED));
            } else {
                // Rejected by `import`, which drops it, or evicted, which is reported at the end of
                // this call.
                settle(&self.cache);
                if self.told.lock().unwrap().iter().any(|left| left.id == resident.id) {
                    self.leaving.push((key, resident, EVICTED));
                }
            }
        }
    }

    /// Compares everything with the model after all calls are settled.
    fn check(&mut self) {
        let memory = settle(&self.cache);
        assert_eq!((memory.garbage, memory.garbage_entries), (0, 0));
        let now = self.now;
        let is_over = |resident: &Resident| resident.deadline.is_some_and(|at| at <= now);
        let over: Vec<u64> =
            self.model.iter().filter(|(_, r)| is_over(r)).map(|(key, _)| *key).collect();
        over.into_iter().for_each(|key| self.leave(key, EXPIRED));

        for left in std::mem::take(&mut *self.told.lock().unwrap()) {
            let expected = self.leaving.iter().position(|(key, resident, causes)| {
                (*key, resident.id) == (left.key, left.id) && causes.contains(&left.cause)
            });
            let resident = match expected {
                Some(index) => self.leaving.swap_remove(index).1,
                None => {
                    assert_eq!(left.cause, RemovalCause::Evicted, "{left:?}");
                    assert!(!self.is_ample || self.cache.cost() <= self.max_cost, "{left:?}");
                    let resident = self.model.remove(&left.key);
                    resident.unwrap_or_else(|| panic!("{left:?} was not there"))
                }
            };
            assert_eq!((resident.id, resident.cost), (left.id, left.cost), "{left:?}");
            assert!(
                !self.is_ample || left.cause != RemovalCause::Evicted || self.was_lowered(),
                "{left:?} though there is room"
            );
        }
        assert!(self.leaving.is_empty(), "not reported: {:?}", self.leaving);

        let there: BTreeMap<u64, u64> =
            self.cache.pin().iter().map(|(key, value)| (key.id, value.0.id)).collect();
        let expected: BTreeMap<u64, u64> = self.model.iter().map(|(k, r)| (*k, r.id)).collect();
        assert_eq!(there, expected);
        let cost = self.model.values().map(|resident| resident.cost).sum::<u64>();
        assert_eq!((self.cache.cost(), self.cache.len()), (cost, self.model.len()));
        assert!(cost <= self.max_cost);
        let alive = self.model.len() as u64;
        assert_eq!((self.keys.alive(), self.values.alive()), (alive, alive), "alive");
        let metrics = self.cache.metrics();
        let gone = metrics.evictions + metrics.removes + metrics.expirations;
        assert_eq!(metrics.inserts, alive + gone, "{metrics}");
    }

    /// Returns whether the budget differs from the initial one.
    fn was_lowered(&self) -> bool {
        self.max_cost < AMPLE
    }

    fn finish(self) {
        let Self { cache, keys, values, told, .. } = self;
        assert!(cache.close());
        assert_eq!((keys.alive(), values.alive()), (0, 0), "alive after the cache");
        assert!(told.lock().unwrap().is_empty(), "entries dropped with the cache are not reported");
    }
}

/// More than the total cost of all keys.
const AMPLE: u64 = 1_000_000;

fn config() -> ProptestConfig {
    // A failure is printed with the calls that led to it, and not stored in a file.
    ProptestConfig {
        failure_persistence: None,
        max_shrink_iters: 100_000,
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(config())]

    /// So much room that nothing is evicted: the cache is a map.
    #[test]
    fn cache_with_room_is_a_map(calls in vec(call(40), 1..120)) {
        let mut world = World::new(AMPLE, None, true);
        for call in calls.iter().filter(|call| !matches!(call, Call::SetMaxCost(_))) {
            world.call(call);
        }
        world.finish();
    }

    /// A budget that is always too small.
    #[test]
    fn cache_without_room_tells_of_everything(
        (most, calls) in (1..60u64).prop_flat_map(|most| (Just(most), vec(call(most), 1..120))),
    ) {
        let mut world = World::new(most, None, false);
        calls.iter().for_each(|call| world.call(call));
        world.finish();
    }

    /// Keys of a few hashes: full buckets, and entries evicted from them though there is budget.
    #[test]
    fn cache_of_few_hashes_mistakes_no_key(
        few in 1..4u64,
        (most, calls) in (1..200u64).prop_flat_map(|most| (Just(most), vec(call(most), 1..120))),
    ) {
        let mut world = World::new(most, Some(few), false);
        calls.iter().for_each(|call| world.call(call));
        world.finish();
    }
}
