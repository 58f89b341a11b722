//! Histories: the results that threads saw for a key, and whether some sequential order explains
//! them.
//!
//! Threads call a cache with random operations on few keys. Each call is stamped when it begins and
//! when it has returned. The calls of each key are then given to a checker (Wing and Gong's search,
//! with Lowe's memoization of states), which searches for an order that explains all results. Keys
//! are independent, so each is checked separately. If the cache has too little room, an entry may
//! vanish between two calls, and may not come back.
//!
//! Keys yield to other threads while they are hashed and compared, which is in the middle of a
//! call.

use std::{
    cell::Cell,
    collections::BTreeMap,
    hash::{BuildHasherDefault, DefaultHasher, Hash, Hasher},
    sync::atomic::{AtomicU64, Ordering::SeqCst},
};

use cortado::{Cache, ComputeOp, ComputeResult, Insert, Maintenance, RejectReason};
use todc_utils::{
    linearizability::{
        WGLChecker,
        history::{Action, History},
    },
    specifications::Specification,
};

#[cfg(cortado_shuttle)]
use shuttle::sync::Barrier;
#[cfg(not(cortado_shuttle))]
use std::sync::Barrier;

use crate::support::{Random, thread};

/// A call and its result. Values are numbers, and none is used twice.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Done {
    Got(Option<u64>),
    Inserted(u64),
    Updated(u64),
    /// An insert that was rejected: the previous value was stale, and was removed.
    Rejected,
    /// A value that was to be inserted only if there was none.
    FoundTaken,
    /// A value that was only to replace another.
    FoundFree,
    Removed(Option<u64>),
    /// A removal of exactly this value, which was not found.
    FoundOther(u64),
    /// A value that was put after `seen` was read.
    Computed {
        seen: Option<u64>,
        put: u64,
    },
    /// A value that was removed after it was read.
    Uncomputed(Option<u64>),
    /// A load: the value returned, the value that its own loader would have returned, whether it
    /// was concurrent with a write, and whether the returned value belongs to another load that
    /// was.
    Loaded {
        returned: u64,
        own: u64,
        is_met: bool,
        is_shared: bool,
    },
    Cleared,
}

/// The value of one key. `LOSSY` says whether it may vanish.
struct Slot<const LOSSY: bool>;

impl<const LOSSY: bool> Specification for Slot<LOSSY> {
    /// The value, and whether the cache may have dropped it.
    type State = (Option<u64>, bool);
    type Operation = Done;

    fn init() -> Self::State {
        (None, false)
    }

    fn apply(done: &Done, &(state, is_doubtful): &Self::State) -> (bool, Self::State) {
        let is_free = LOSSY || is_doubtful || state.is_none();
        let (may_be, next) = match *done {
            Done::Got(None) => (is_free, None),
            Done::Got(value) => (value == state, state),
            Done::Inserted(value) => (is_free, Some(value)),
            Done::Updated(value) => (state.is_some(), Some(value)),
            Done::Rejected => (LOSSY, None),
            Done::FoundTaken => (state.is_some(), state),
            Done::FoundFree => (is_free, None),
            Done::Removed(None) => (is_free, None),
            Done::Removed(value) => (value == state, None),
            // The value may have vanished.
            Done::FoundOther(value) => match state {
                Some(there) if there == value => (LOSSY || is_doubtful, None),
                _ => (true, state),
            },
            Done::Computed { seen: None, put } => (is_free, Some(put)),
            Done::Computed { seen, put } => (seen == state, Some(put)),
            Done::Uncomputed(None) => (is_free, None),
            Done::Uncomputed(seen) => (seen == state, None),
            Done::Loaded { returned, own, .. } if returned == own => (is_free, Some(own)),
            // Another load's value, which the cache may have rejected. Its followers may have got
            // it anyway.
            Done::Loaded { returned, .. } if Some(returned) == state => (true, state),
            // The value of another load that was invalidated: only its flight has had it.
            Done::Loaded { returned, is_shared, .. } => (is_shared && is_free, Some(returned)),
            Done::Cleared => (true, None),
        };
        let is_in_vain = match *done {
            Done::Loaded { returned, own, is_met, .. } if returned == own => is_met,
            Done::Loaded { returned, .. } if Some(returned) != state => true,
            _ => is_doubtful && next == state,
        };
        (may_be, (next, is_in_vain))
    }
}

/// A key that yields occasionally.
#[derive(Clone, Copy, Debug, Eq)]
struct Key(u64);

thread_local! {
    static CHANCE: Cell<u64> = const { Cell::new(0) };
}

fn perhaps_give_way() {
    let chance = CHANCE.get().wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
    CHANCE.set(chance);
    if chance >> 62 == 0 {
        thread::yield_now();
    }
}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        perhaps_give_way();
        self.0.hash(state);
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        perhaps_give_way();
        self.0 == other.0
    }
}

#[derive(Clone, Debug)]
struct Record {
    thread: usize,
    key: u64,
    began: u64,
    ended: u64,
    done: Done,
}

/// The parameters of a round.
#[derive(Clone, Copy, Debug)]
pub struct Round {
    pub threads: u64,
    pub keys: u64,
    pub calls: u64,
    pub max_cost: u64,
    pub maintenance: Maintenance,
    /// The number of filler keys, which no thread reads: they make the table grow, and `clear`
    /// shrinks it again.
    pub fillers: u64,
}

/// A fixed hasher, for reproducible runs.
type Hashers = BuildHasherDefault<DefaultHasher>;

/// The first filler key.
const FILLER: u64 = 1 << 32;

/// Runs threads that call a cache, and returns their records.
fn play(round: Round, random: &mut Random) -> Vec<Record> {
    let cache = Cache::<Key, u64>::builder()
        .max_cost(round.max_cost)
        .expected_entries(1)
        .hasher(Hashers::default())
        .maintenance(round.maintenance)
        .seed(random.next())
        .build()
        .unwrap();
    let (time, next) = (AtomicU64::new(0), AtomicU64::new(1));
    let start = Barrier::new(round.threads as usize + usize::from(round.fillers > 0));
    thread::scope(|scope| {
        let (cache, time, next, start) = (&cache, &time, &next, &start);
        if round.fillers > 0 {
            scope.spawn(move || {
                start.wait();
                for filler in 0..round.fillers {
                    _ = cache.insert(Key(FILLER + filler), 0);
                }
            });
        }
        let threads: Vec<_> = (0..round.threads as usize)
            .map(|thread| {
                let mut random = Random::new(random.next());
                scope.spawn(move || {
                    CHANCE.set(random.next());
                    start.wait();
                    let mut records = Vec::new();
                    for _ in 0..round.calls {
                        let key = random.below(round.keys);
                        let began = time.fetch_add(1, SeqCst);
                        let done = call(cache, key, &mut random, next, round);
                        let ended = time.fetch_add(1, SeqCst);
                        if done == Done::Cleared {
                            // It cleared every key.
                            records.extend((0..round.keys).map(|key| Record {
                                thread,
                                key,
                                began,
                                ended,
                                done: Done::Cleared,
                            }));
                        } else {
                            records.push(Record { thread, key, began, ended, done });
                        }
                    }
                    records
                })
            })
            .collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    })
}

fn call(
    cache: &Cache<Key, u64, Hashers>,
    key: u64,
    random: &mut Random,
    next: &AtomicU64,
    round: Round,
) -> Done {
    let new = || next.fetch_add(1, SeqCst);
    let key = Key(key);
    let written = |value, insert: Insert<u64>| match insert {
        Insert::Inserted => Done::Inserted(value),
        Insert::Updated => Done::Updated(value),
        Insert::Rejected(..) => Done::Rejected,
    };
    match random.below(if round.fillers > 0 { 41 } else { 40 }) {
        0..10 => Done::Got(cache.get_cloned(&key)),
        10..16 => {
            let value = new();
            written(value, cache.insert(key, value))
        }
        16..20 => {
            let value = new();
            match cache.insert_if_absent(key, value) {
                Insert::Rejected(_, RejectReason::Present) => Done::FoundTaken,
                insert => written(value, insert),
            }
        }
        20..24 => {
            let value = new();
            match cache.replace(key, value) {
                Insert::Rejected(..) => Done::FoundFree,
                insert => written(value, insert),
            }
        }
        24..28 => Done::Removed(cache.remove(&key).map(|value| *value)),
        28..30 => {
            let Some(seen) = cache.peek(&key).map(|value| *value) else {
                return Done::Got(None);
            };
            match cache.remove_if(&key, |value| *value == seen) {
                Some(_) => Done::Removed(Some(seen)),
                None => Done::FoundOther(seen),
            }
        }
        30..35 => {
            let put = new();
            let mut last = None;
            let computed = cache.compute(key, |seen| {
                last = seen.copied();
                ComputeOp::Put(put)
            });
            match computed {
                ComputeResult::Rejected(..) => Done::Rejected,
                _ => Done::Computed { seen: last, put },
            }
        }
        35..37 => {
            let mut last = None;
            _ = cache.compute(key, |seen| {
                last = seen.copied();
                ComputeOp::Remove
            });
            Done::Uncomputed(last)
        }
        37..40 => {
            let own = new();
            let returned = *cache.get_or_insert_with(key, || own);
            Done::Loaded { returned, own, is_met: false, is_shared: false }
        }
        _ => {
            cache.clear();
            Done::Cleared
        }
    }
}

/// Marks the loads that were concurrent with a write of their key: their values need not be cached.
fn note_writes(records: &mut [Record]) {
    let writes = |done: &Done| match done {
        Done::Inserted(_) | Done::Updated(_) | Done::Rejected | Done::Computed { .. } => true,
        Done::Removed(_) | Done::Uncomputed(_) | Done::Cleared => true,
        Done::Got(_) | Done::FoundTaken | Done::FoundFree | Done::FoundOther(_) => false,
        Done::Loaded { .. } => false,
    };
    let writes = records.iter().filter(|record| writes(&record.done));
    let writes: Vec<_> = writes.map(|record| (record.key, record.began..record.ended)).collect();
    for Record { key, began, ended, done, .. } in &mut *records {
        if let Done::Loaded { is_met, .. } = done {
            let meets = |(other, time): &(u64, std::ops::Range<u64>)| {
                other == key && time.start < *ended && *began < time.end
            };
            *is_met = writes.iter().any(meets);
        }
    }
    // No two keys share a value.
    let met = records.iter().filter_map(|record| match record.done {
        Done::Loaded { own, is_met: true, .. } => Some((own, record.began..record.ended)),
        _ => None,
    });
    let met: Vec<_> = met.collect();
    for Record { began, ended, done, .. } in &mut *records {
        if let Done::Loaded { returned, own, is_shared, .. } = done {
            *is_shared = returned != own
                && met.iter().any(|(own, other)| {
                    own == returned && other.start < *ended && *began < other.end
                });
        }
    }
}

/// Fails if no sequential order explains the calls of some key.
fn check<const LOSSY: bool>(mut records: Vec<Record>, round: Round) -> usize {
    note_writes(&mut records);
    let mut of_key: BTreeMap<u64, Vec<Record>> = BTreeMap::new();
    for record in records {
        of_key.entry(record.key).or_default().push(record);
    }
    for (key, records) in &of_key {
        let mut actions: Vec<(u64, (usize, Action<Done>))> = records
            .iter()
            .flat_map(|record| {
                let done = || record.done.clone();
                [
                    (record.began, (record.thread, Action::Call(done()))),
                    (record.ended, (record.thread, Action::Response(done()))),
                ]
            })
            .collect();
        actions.sort_by_key(|(at, _)| *at);
        let actions = actions.into_iter().map(|(_, action)| action).collect();
        if !WGLChecker::<Slot<LOSSY>>::is_linearizable(History::from_actions(actions)) {
            for Record { thread, began, ended, done, .. } in records {
                println!("thread {thread}: {began:>4} to {ended:>4}: {done:?}");
            }
            panic!("no order explains what was seen of key {key} in {round:?}");
        }
    }
    of_key.len()
}

/// Runs a round and checks it; returns the number of histories.
pub fn play_and_check<const LOSSY: bool>(round: Round, random: &mut Random) -> usize {
    check::<LOSSY>(play(round, random), round)
}
