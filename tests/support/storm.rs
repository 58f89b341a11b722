//! A storm: every kind of call to one cache, concurrently.
//!
//! Threads are only spawned and joined, and do not synchronise by locks or channels, so that a race
//! detector sees every race.

use std::{
    cell::Cell,
    future::Future,
    hash::{BuildHasher, Hash, Hasher},
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed, Ordering::SeqCst},
    },
    task::{Context, Poll, Waker},
    time::Duration,
};

use cortado::{
    Cache, Claim, ComputeOp, ComputeResult, Equivalent, ExportedEntry, Insert, InsertOptions,
    Maintenance, ManualClock, Priority, RemovalCause, Removed, WaitPolicy, WorkLimit,
};
use crossbeam_utils::atomic::AtomicCell;

use crate::support::{
    self, Random, audit, eventually,
    ledger::{Entry, Ledger},
    settle,
    tasks::{block_on, give_way},
    thread::{self, JoinHandle},
};

/// The parameters of a storm.
#[derive(Clone, Debug)]
pub struct Storm {
    pub name: &'static str,
    pub seed: u64,
    pub maintenance: Maintenance,
    pub spread: Spread,
    /// The number of concurrent threads.
    pub abreast: usize,
    /// The total number of threads.
    pub threads: u64,
    /// Operations per thread.
    pub operations: u64,
    pub keys: u64,
    /// The greatest budget in the course of the storm.
    pub budget: u64,
    pub max_garbage: u64,
    /// Whether a reader is pinned from the beginning to the end.
    pub stalled: bool,
    /// Whether `on_remove` calls the cache.
    pub listener_calls: bool,
}

/// How keys are hashed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spread {
    Even,
    /// One hash for all keys.
    Same,
    /// The lowest bits differ, the others are 0.
    Low,
    /// The highest bits differ, the others are 0.
    High,
}

/// The results of a storm, after all checks have passed.
#[derive(Clone, Debug)]
#[allow(dead_code)] // some figures are only printed
pub struct Calm {
    pub keys: u64,
    pub values: u64,
    pub told: u64,
    pub resident: u64,
    pub greatest_cost: u64,
    pub greatest_garbage: u64,
}

impl Storm {
    /// Runs the storm, joins all threads, and checks all invariants.
    pub fn run(self) -> Calm {
        println!("{self:?}");
        // An operation creates at most a few keys and values, including those of listeners.
        let most = self.threads * self.operations * LINES_PER_OPERATION + 1000;
        let (keys, values) = (Ledger::new(most), Ledger::new(most));
        let (told, handle) = (Arc::new(Told::default()), Arc::new(AtomicCell::new(None)));
        let listener = Listener {
            told: Arc::clone(&told),
            handle: Arc::clone(&handle),
            keys: Arc::clone(&keys),
            values: Arc::clone(&values),
            calls: self.listener_calls,
        };
        let clock = ManualClock::new();
        let cache = support::builder(self.budget, self.maintenance)
            .name(self.name)
            .max_garbage(self.max_garbage)
            .expected_entries(8) // so that it grows during the storm
            .clock(clock.clone())
            .cost_of(|_: &Key, value: &Value| value.cost)
            .on_remove(move |removed| listener.hear(removed))
            .hasher(self.spread)
            .build()
            .unwrap();
        handle.store(Some(Box::new(cache.clone())));
        let shared = Arc::new(Shared {
            cache,
            clock,
            keys: Arc::clone(&keys),
            values: Arc::clone(&values),
            stop: AtomicBool::new(false),
            greatest_cost: AtomicU64::new(0),
            greatest_garbage: AtomicU64::new(0),
            storm: self,
        });
        let watchers = Shared::watch(&shared);
        let mut alive = Vec::new();
        for number in 0..shared.storm.threads {
            if alive.len() == shared.storm.abreast {
                // Joins the oldest, while the others continue.
                join(alive.remove(0));
            }
            let shared = Arc::clone(&shared);
            alive.push(thread::spawn(move || Caller::new(&shared, number).call()));
        }
        alive.into_iter().for_each(join);
        shared.stop.store(true, Relaxed);
        watchers.into_iter().for_each(|watcher| {
            watcher.thread().unpark();
            join(watcher);
        });
        let Shared { storm, cache, clock, greatest_cost, greatest_garbage, .. } =
            Arc::into_inner(shared).expect("all threads are joined");
        // A listener may have taken it out for a moment.
        eventually("the handle is back", || handle.take().is_some());
        clock.advance(Duration::from_secs(1));
        cache.set_max_cost(storm.budget / 2);
        settle(&cache);
        eventually("all that has expired is gone", || {
            cache.flush();
            cache.pin().iter().count() == cache.len()
        });
        settle(&cache);
        audit(&cache);
        let calm = Calm {
            keys: keys.made(),
            values: values.made(),
            told: told.all(),
            resident: cache.len() as u64,
            greatest_cost: greatest_cost.into_inner(),
            greatest_garbage: greatest_garbage.into_inner(),
        };
        println!("  {calm:?}, by cause {told:?}");
        let metrics = cache.metrics();
        let gone = metrics.evictions + metrics.removes + metrics.expirations;
        assert_eq!(metrics.inserts - gone, calm.resident, "who came, and did not go, is there");
        assert_eq!(told.of(RemovalCause::Evicted), metrics.evictions);
        assert_eq!(told.of(RemovalCause::Expired), metrics.expirations);
        for (key, value) in cache.pin().iter() {
            value.check(key.id);
            value.part();
        }
        let cost: u64 = cache.pin().values().map(|value| value.cost).sum();
        assert_eq!(cost, cache.cost(), "the cost is that of all entries");
        assert!(cache.cost() <= cache.max_cost());
        values.check_parted("value");
        assert!(cache.close());
        keys.check_dropped("key");
        values.check_dropped("value");
        no_thread_is_left(storm.name);
        calm
    }
}

impl BuildHasher for Spread {
    type Hasher = SpreadHasher;

    fn build_hasher(&self) -> SpreadHasher {
        SpreadHasher { spread: *self, id: 0 }
    }
}

/// Hashes the number of a key.
pub struct SpreadHasher {
    spread: Spread,
    id: u64,
}

impl Hasher for SpreadHasher {
    fn finish(&self) -> u64 {
        match self.spread {
            Spread::Even => self.id.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29),
            Spread::Same => 42,
            Spread::Low => self.id & 0xffff,
            Spread::High => self.id << 48,
        }
    }

    fn write(&mut self, _: &[u8]) {
        unreachable!("a key is one number");
    }

    fn write_u64(&mut self, id: u64) {
        self.id = id;
    }
}

/// A key. Two keys with the same number are equal.
pub struct Key {
    id: u64,
    entry: Entry,
}

impl Clone for Key {
    fn clone(&self) -> Self {
        Self { id: self.id, entry: self.entry.another() }
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        self.entry.check_alive();
        self.id == other.id
    }
}

impl Eq for Key {}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.id.hash(state);
    }
}

/// A borrowed key.
#[derive(Clone, Copy, Hash)]
struct Id(u64);

impl Equivalent<Key> for Id {
    fn equivalent(&self, key: &Key) -> bool {
        key.entry.check_alive();
        self.0 == key.id
    }
}

/// A value, which stores its key and its cost.
pub struct Value {
    key: u64,
    cost: u64,
    entry: Entry,
}

impl Value {
    /// Checks that this is the value of a key, and that it is not dropped while it is referenced.
    fn check(&self, key: u64) {
        assert_eq!(self.key, key, "another key's value");
        self.entry.check_alive();
    }

    /// Records that it left the cache, or was never in it.
    fn part(&self) {
        self.entry.part();
    }
}

impl Clone for Value {
    /// A clone is never in the cache.
    fn clone(&self) -> Self {
        let clone = Self { key: self.key, cost: self.cost, entry: self.entry.another() };
        clone.part();
        clone
    }
}

/// The number of entries reported to the listener, by cause.
#[derive(Debug, Default)]
struct Told([AtomicU64; 7]);

impl Told {
    fn of(&self, cause: RemovalCause) -> u64 {
        self.0[cause as usize].load(Relaxed)
    }

    fn all(&self) -> u64 {
        self.0.iter().map(|told| told.load(Relaxed)).sum()
    }
}

type Handle = Cache<Key, Value, Spread>;

/// The kind of the `on_remove` listener.
struct Listener {
    told: Arc<Told>,
    /// The cache, which is taken out, called and put back: a cache that is owned by its own
    /// listener would never be dropped.
    handle: Arc<AtomicCell<Option<Box<Handle>>>>,
    keys: Arc<Ledger>,
    values: Arc<Ledger>,
    calls: bool,
}

impl Listener {
    fn hear(&self, removed: Removed<Key, Value>) {
        let Removed { key, value, cost, cause, .. } = removed;
        value.check(key.id);
        value.part();
        assert_eq!(cost, value.cost, "reported with a wrong cost");
        let count = self.told.0[cause as usize].fetch_add(1, Relaxed);
        if !self.calls || !count.is_multiple_of(8) {
            return;
        }
        let Some(cache) = self.handle.take() else { return };
        let make = |id: u64, cost| {
            let key = Key { id, entry: self.keys.open() };
            (key, Value { key: id, cost, entry: self.values.open() })
        };
        match count / 8 % 6 {
            0 => drop(cache.get(&Id(key.id)).map(|value| value.check(key.id))),
            1 => {
                let (key, value) = make(key.id, 1);
                part_rejected(cache.insert(key, value));
            }
            2 => drop(cache.remove(&Id(key.id + 1))),
            3 => _ = cache.tick(WorkLimit::evictions(2)),
            4 => {
                let (id, (key, value)) = (key.id, make(key.id, 2));
                let spare = Cell::new(Some(value));
                let loaded = cache.get_or_insert_with(key, || spare.take().unwrap());
                loaded.check(id);
                drop(loaded);
                if let Some(value) = spare.take() {
                    value.part();
                }
            }
            _ => cache.flush(),
        }
        self.handle.store(Some(cache));
    }
}

/// The state shared by all threads of a storm.
struct Shared {
    storm: Storm,
    cache: Handle,
    clock: ManualClock,
    keys: Arc<Ledger>,
    values: Arc<Ledger>,
    stop: AtomicBool,
    greatest_cost: AtomicU64,
    greatest_garbage: AtomicU64,
}

impl Shared {
    /// Starts the threads that only read: one pins again and again, one holds its pin.
    fn watch(shared: &Arc<Self>) -> Vec<JoinHandle<()>> {
        let mut watchers = vec![{
            let shared = Arc::clone(shared);
            thread::spawn(move || {
                while !shared.stop.load(Relaxed) {
                    shared.sample();
                    shared.greatest_garbage.fetch_max(shared.cache.memory().garbage, Relaxed);
                    let pinned = shared.cache.pin();
                    pinned.iter().for_each(|(key, value)| value.check(key.id));
                    drop(pinned);
                    thread::yield_now();
                }
            })
        }];
        if shared.storm.stalled {
            let (id, cost) = (shared.storm.keys, 1);
            part_rejected(shared.cache.insert(shared.key(id), shared.value(id, cost)));
            let is_pinned = Arc::new(AtomicBool::new(false));
            let (pinned, shared) = (Arc::clone(&is_pinned), Arc::clone(shared));
            watchers.push(thread::spawn(move || {
                let pin = shared.cache.pin();
                let held: Vec<_> = pin.iter().collect();
                pinned.store(true, SeqCst);
                while !shared.stop.load(Relaxed) {
                    thread::park();
                }
                assert!(!held.is_empty());
                held.into_iter().for_each(|(key, value)| value.check(key.id));
            }));
            eventually("the reader is pinned", || is_pinned.load(SeqCst));
        }
        watchers
    }

    fn sample(&self) {
        let cost = self.cache.cost();
        assert!(cost <= self.storm.budget, "{cost} is charged of {}", self.storm.budget);
        self.greatest_cost.fetch_max(cost, Relaxed);
    }

    fn key(&self, id: u64) -> Key {
        Key { id, entry: self.keys.open() }
    }

    fn value(&self, key: u64, cost: u64) -> Value {
        Value { key, cost, entry: self.values.open() }
    }
}

/// A thread of a storm.
struct Caller<'a> {
    shared: &'a Shared,
    number: u64,
    random: Random,
}

impl<'a> Caller<'a> {
    fn new(shared: &'a Shared, number: u64) -> Self {
        Self { shared, number, random: Random::new(shared.storm.seed ^ number << 32) }
    }

    /// Calls the cache, mostly by one kind of operation.
    fn call(mut self) {
        let ways: [fn(&mut Self); 8] = [
            Self::read,
            Self::write,
            Self::take_out,
            Self::change,
            Self::load,
            Self::look_through,
            Self::operate,
            Self::write,
        ];
        for step in 0..self.shared.storm.operations {
            let own = self.random.below(4) > 0;
            let way = if own { self.number % 8 } else { self.random.below(8) };
            ways[way as usize](&mut self);
            if step % 4 == 0 {
                self.shared.sample();
            }
        }
    }

    fn id(&mut self) -> u64 {
        // The key distribution is skewed.
        let keys = self.shared.storm.keys;
        let limit = if self.random.below(2) == 0 { keys } else { 1 + keys / 8 };
        self.random.below(limit)
    }

    fn cost(&mut self) -> u64 {
        match self.random.below(100) {
            0 => self.random.below(2 * self.shared.storm.budget),
            1..10 => 0,
            10..20 => self.random.below(1 + self.shared.storm.budget / 20),
            _ => 1 + self.random.below(3),
        }
    }

    fn entry(&mut self) -> (Key, Value) {
        let (id, cost) = (self.id(), self.cost());
        (self.shared.key(id), self.shared.value(id, cost))
    }

    fn read(&mut self) {
        let (cache, id) = (&self.shared.cache, self.id());
        match self.random.below(8) {
            0 => drop(cache.get_cloned(&Id(id)).map(|value| value.check(id))),
            1 => drop(cache.peek(&Id(id)).map(|value| value.check(id))),
            2 => {
                let ids: Vec<Id> = (0..self.random.below(40)).map(|i| Id(id + i * i)).collect();
                cache.get_many(&ids, |index, value| {
                    value.inspect(|value| value.check(ids[index].0));
                });
            }
            3 => {
                let pinned = cache.pin();
                let values = [id, id + 1, id + 2].map(|id| pinned.get(&Id(id)));
                drop(cache.remove(&Id(id + 1)));
                for (id, value) in (id..).zip(values) {
                    value.inspect(|value| value.check(id));
                }
            }
            4 => _ = (cache.frequency(&Id(id)), cache.entry_info(&Id(id))),
            _ => {
                if let Some(value) = cache.get(&Id(id)) {
                    value.check(id);
                    // Other threads may remove it here.
                    thread::yield_now();
                    value.check(value.key().id);
                }
            }
        }
    }

    fn write(&mut self) {
        let (key, value) = self.entry();
        let cache = &self.shared.cache;
        match self.random.below(10) {
            0 => part_rejected(cache.insert_if_absent(key, value)),
            1 => {
                if let Insert::Rejected(value, _) = cache.replace(key, value) {
                    value.part();
                }
            }
            2 | 3 => {
                let ttl = Duration::from_millis(self.random.below(20));
                part_rejected(cache.insert_with_ttl(key, value, ttl));
            }
            4 => {
                let priority = match self.random.below(40) {
                    0 => Priority::Pinned,
                    1..20 => Priority::High,
                    _ => Priority::Low,
                };
                let options = InsertOptions::new().cost(value.cost).priority(priority);
                part_rejected(cache.insert_with(key, value, options));
            }
            5 => {
                let cost = value.cost;
                part_rejected(cache.insert_with_cost(key, value, cost));
            }
            _ => part_rejected(cache.insert(key, value)),
        }
    }

    fn take_out(&mut self) {
        let (cache, id) = (&self.shared.cache, self.id());
        match self.random.below(400) {
            0 => cache.clear(),
            1 => cache.retain(|key, value| {
                value.check(key.id);
                key.id % 3 != id % 3
            }),
            2..100 => {
                if let Some(value) = cache.remove_if(&Id(id), |value| value.cost == 1) {
                    value.check(id);
                    assert_eq!(value.cost, 1, "it was not asked about");
                }
            }
            _ => drop(cache.remove(&Id(id)).map(|value| value.check(id))),
        }
    }

    fn change(&mut self) {
        let (id, cost) = (self.id(), self.cost());
        let (shared, cache) = (self.shared, &self.shared.cache);
        // The number of the last value created for the call: only that one can have been inserted.
        let last = Cell::new(None);
        let make = |cost| {
            let value = shared.value(id, cost);
            if let Some(before) = last.replace(Some(value.entry.number())) {
                shared.values.part(before);
            }
            value
        };
        match self.random.below(4) {
            0 => {
                let updated = cache.update(&Id(id), |old| {
                    old.check(id);
                    make(old.cost + 1)
                });
                if let (false, Some(last)) = (updated, last.get()) {
                    shared.values.part(last);
                }
            }
            1 => {
                let done = cache.compute(shared.key(id), |_| ComputeOp::Remove);
                assert!(matches!(done, ComputeResult::Removed(_) | ComputeResult::Kept(None)));
            }
            2 => {
                let look = |old: Option<&Value>| {
                    old.inspect(|old| old.check(id));
                    ComputeOp::Keep
                };
                assert!(matches!(cache.compute(shared.key(id), look), ComputeResult::Kept(_)));
            }
            _ => {
                let put = |old: Option<&Value>| {
                    old.inspect(|old| old.check(id));
                    ComputeOp::Put(make(cost))
                };
                match cache.compute(shared.key(id), put) {
                    ComputeResult::Rejected(value, _) => value.part(),
                    ComputeResult::Inserted(_) | ComputeResult::Updated(_) => {}
                    done => panic!("{:?} of a put", done_name(&done)),
                }
            }
        }
    }

    fn load(&mut self) {
        let (id, cost) = (self.id(), self.cost());
        let (shared, cache) = (self.shared, &self.shared.cache);
        let key = shared.key(id);
        match self.random.below(8) {
            0 => {
                let loaded = cache.try_get_or_insert_with(key, || Err(()));
                _ = loaded.inspect(|value| value.check(id));
            }
            1 => {
                let load = || resume_unwind(Box::new("planned"));
                let panics = AssertUnwindSafe(|| cache.get_or_insert_with(key, load).check(id));
                let _ = catch_unwind(panics);
            }
            2 => match cache.claim(key, WaitPolicy::No) {
                Claim::Hit(value) => value.check(id),
                Claim::Fill(guard) if cost % 2 == 0 => {
                    guard.fill(shared.value(id, cost)).check(id);
                }
                Claim::Fill(guard) => drop(guard),
                Claim::Busy(key) => assert_eq!(key.id, id),
            },
            3 => {
                let load = async {
                    give_way().await;
                    shared.value(id, cost)
                };
                block_on(cache.get_or_insert_async(key, load)).check(id);
            }
            4 => {
                // Polled once and dropped: another caller has to take over.
                let load = async {
                    give_way().await;
                    shared.value(id, cost)
                };
                let mut cancelled = pin!(cache.get_or_insert_async(key, load));
                let mut context = Context::from_waker(Waker::noop());
                if let Poll::Ready(value) = cancelled.as_mut().poll(&mut context) {
                    value.check(id);
                }
            }
            5 => {
                // Only greater keys: two loaders that wait for each other would deadlock.
                let value = cache.get_or_insert_with(key, || {
                    let other = shared.key(id + 1);
                    cache.get_or_insert_with(other, || shared.value(id + 1, 1)).check(id + 1);
                    shared.value(id, cost)
                });
                value.check(id);
            }
            _ => {
                let value = cache.get_or_insert_with(key, || {
                    thread::yield_now();
                    shared.value(id, cost)
                });
                value.check(id);
                assert_eq!(value.cost(), value.cost);
            }
        }
    }

    fn look_through(&mut self) {
        let (shared, cache) = (self.shared, &self.shared.cache);
        let pinned = cache.pin();
        match self.random.below(4) {
            0 => {
                for (key, value) in pinned.iter() {
                    value.check(key.id);
                    if key.id % 16 == 0 {
                        drop(cache.remove(key));
                    }
                }
            }
            1 => {
                let record = pinned.export().next().map(|record| (record.key.id, record.cost));
                drop(pinned);
                if let Some((id, cost)) = record {
                    let mut record = ExportedEntry::new(shared.key(id), shared.value(id, cost));
                    record.cost = cost;
                    record.frequency = 255;
                    record.ttl = Some(Duration::from_millis(5));
                    let number = record.value.entry.number();
                    if cache.import([record]).inserted == 0 {
                        shared.values.part(number);
                    }
                }
            }
            2 => _ = pinned.values().map(|value| value.cost).sum::<u64>(),
            _ => pinned.keys().take(20).for_each(|key| {
                cache.peek(key).inspect(|value| value.check(key.id));
            }),
        }
    }

    fn operate(&mut self) {
        let (budget, id) = (self.shared.storm.budget, self.id());
        let (shared, cache) = (self.shared, &self.shared.cache);
        match self.random.below(20) {
            0 => cache.set_max_cost(1 + self.random.below(budget)),
            1 | 2 => cache.set_max_cost(budget),
            3 | 4 => shared.clock.advance(Duration::from_millis(self.random.below(5))),
            5 => cache.flush(),
            6 => block_on(cache.flush_async()),
            7 => _ = cache.set_ttl(&Id(id), Some(Duration::from_millis(self.random.below(9)))),
            8 => _ = cache.set_ttl(&Id(id), None),
            9 => _ = (cache.metrics(), cache.memory(), format!("{cache:?}")),
            10 => drop(cache.clone()),
            _ => _ = cache.tick(WorkLimit::evictions(self.random.below(20) as usize)),
        }
    }
}

fn part_rejected(inserted: Insert<Value>) {
    if let Insert::Rejected(value, _) = inserted {
        value.part();
    }
}

fn done_name<R>(done: &ComputeResult<Value, R>) -> &'static str {
    match done {
        ComputeResult::Kept(_) => "kept",
        ComputeResult::Removed(_) => "removed",
        _ => "put",
    }
}

/// Joins a thread and resumes its panic.
fn join(thread: JoinHandle<()>) {
    if let Err(panic) = thread.join() {
        resume_unwind(panic);
    }
}

/// Waits until the system no longer lists the threads of a cache, shortly after they were joined.
#[cfg(target_os = "linux")]
fn no_thread_is_left(name: &str) {
    let thread: String = format!("cortado {name}").chars().take(15).collect();
    eventually("no thread is left", || {
        let tasks = std::fs::read_dir("/proc/self/task").unwrap();
        let mut names =
            tasks.filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("comm")).ok());
        names.all(|name| name.trim_end() != thread)
    });
}

#[cfg(not(target_os = "linux"))]
fn no_thread_is_left(_: &str) {}

/// Ledger lines that an operation may open, including those of listeners.
const LINES_PER_OPERATION: u64 = 6;
