//! Fault injection, one fault after another; `docs/verification.md` lists all faults and where the
//! others are tested.

use std::{
    cell::{Cell, RefCell},
    hash::{BuildHasher, DefaultHasher, Hash, Hasher},
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    sync::{
        Arc, Mutex,
        atomic::{AtomicI64, AtomicU8, AtomicU64, AtomicUsize, Ordering::SeqCst},
    },
    thread,
    time::Duration,
};

use cortado::{
    Cache, Claim, Clock, ComputeOp, Expiry, ExportedEntry, InsertOptions, Maintenance, Priority,
    RemovalCause, Removed, WaitPolicy, WorkLimit,
};

use crate::{
    builder,
    support::{
        BOTH, Tally, Tracked, audit, eventually,
        ledger::{Entry, Ledger},
        settle,
    },
};

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);

/// The kinds of user callbacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Call {
    Hash,
    Eq,
    KeyClone,
    ValueClone,
    KeyDrop,
    ValueDrop,
    Cost,
    ReplaceIf,
    Listener,
    Loader,
    OnCreate,
    OnUpdate,
    OnRead,
    Clock,
    Compute,
    RemoveIf,
    Retain,
    Read,
}

const CALLS: [Call; 18] = [
    Call::Hash,
    Call::Eq,
    Call::KeyClone,
    Call::ValueClone,
    Call::KeyDrop,
    Call::ValueDrop,
    Call::Cost,
    Call::ReplaceIf,
    Call::Listener,
    Call::Loader,
    Call::OnCreate,
    Call::OnUpdate,
    Call::OnRead,
    Call::Clock,
    Call::Compute,
    Call::RemoveIf,
    Call::Retain,
    Call::Read,
];

/// Panics at the k-th call of one kind.
#[derive(Debug)]
struct Fuse {
    kind: AtomicUsize,
    calls: AtomicI64,
}

impl Fuse {
    fn new() -> Arc<Self> {
        Arc::new(Self { kind: AtomicUsize::new(usize::MAX), calls: AtomicI64::new(0) })
    }

    fn light(&self, call: Call, calls: i64) {
        self.calls.store(calls, SeqCst);
        self.kind.store(call as usize, SeqCst);
    }

    fn put_out(&self) {
        self.kind.store(usize::MAX, SeqCst);
    }

    fn burn(&self, call: Call) {
        // A panic during unwinding would abort the process.
        if self.kind.load(SeqCst) == call as usize
            && !thread::panicking()
            && self.calls.fetch_sub(1, SeqCst) == 1
        {
            resume_unwind(Box::new("planned"));
        }
    }
}

struct Key {
    id: u64,
    entry: Entry,
    fuse: Arc<Fuse>,
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        self.entry.check_alive();
        self.fuse.burn(Call::Eq);
        self.id == other.id
    }
}

impl Eq for Key {}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.fuse.burn(Call::Hash);
        self.id.hash(state);
    }
}

impl Clone for Key {
    fn clone(&self) -> Self {
        self.fuse.burn(Call::KeyClone);
        Self { id: self.id, entry: self.entry.another(), fuse: Arc::clone(&self.fuse) }
    }
}

impl Drop for Key {
    fn drop(&mut self) {
        self.fuse.burn(Call::KeyDrop);
    }
}

struct Value {
    cost: u64,
    entry: Entry,
    fuse: Arc<Fuse>,
}

impl Clone for Value {
    fn clone(&self) -> Self {
        self.fuse.burn(Call::ValueClone);
        Self { cost: self.cost, entry: self.entry.another(), fuse: Arc::clone(&self.fuse) }
    }
}

impl Drop for Value {
    fn drop(&mut self) {
        self.fuse.burn(Call::ValueDrop);
    }
}

struct Lives(Arc<Fuse>);

impl Expiry<Key, Value> for Lives {
    fn on_create(&self, key: &Key, _: &Value) -> Option<Duration> {
        self.0.burn(Call::OnCreate);
        key.id.is_multiple_of(2).then_some(Duration::from_secs(5))
    }

    fn on_update(&self, _: &Key, _: &Value, left: Option<Duration>) -> Option<Duration> {
        self.0.burn(Call::OnUpdate);
        left
    }

    fn on_read(&self, key: &Key, _: &Value, left: Option<Duration>) -> Option<Duration> {
        self.0.burn(Call::OnRead);
        if key.id.is_multiple_of(4) { Some(Duration::from_secs(3)) } else { left }
    }
}

/// A clock that shows any time it is set to, including invalid ones, and may panic.
#[derive(Clone)]
struct AnyClock {
    time: Arc<Mutex<Duration>>,
    fuse: Arc<Fuse>,
}

impl AnyClock {
    fn new() -> Self {
        Self { time: Arc::default(), fuse: Fuse::new() }
    }

    fn set(&self, time: Duration) {
        *self.time.lock().unwrap() = time;
    }
}

impl Clock for AnyClock {
    fn now(&self) -> Duration {
        self.fuse.burn(Call::Clock);
        *self.time.lock().unwrap()
    }
}

/// A cache in which every callback may panic.
struct Bench {
    cache: Cache<Key, Value, std::hash::BuildHasherDefault<DefaultHasher>>,
    keys: Arc<Ledger>,
    values: Arc<Ledger>,
    fuse: Arc<Fuse>,
    clock: AnyClock,
}

impl Bench {
    fn new(maintenance: Maintenance) -> Self {
        let fuse = Fuse::new();
        let fuses = [(); 4].map(|()| Arc::clone(&fuse));
        let clock = AnyClock { time: Arc::default(), fuse: Arc::clone(&fuse) };
        let [cost, replace, told, lives] = fuses;
        let cache = builder(40, maintenance)
            .expected_entries(1) // so that it grows during the test
            .clock(clock.clone())
            .cost_of(move |_: &Key, value: &Value| {
                cost.burn(Call::Cost);
                value.cost
            })
            .replace_if(move |_, _, _| {
                replace.burn(Call::ReplaceIf);
                true
            })
            .on_remove(move |removed: Removed<Key, Value>| {
                removed.value.entry.part();
                assert_eq!(removed.cost, removed.value.cost);
                told.burn(Call::Listener);
            })
            .expiry(Lives(lives))
            .hasher(Default::default())
            .build()
            .unwrap();
        Self { cache, keys: Ledger::new(4000), values: Ledger::new(4000), fuse, clock }
    }

    fn key(&self, id: u64) -> Key {
        Key { id, entry: self.keys.open(), fuse: Arc::clone(&self.fuse) }
    }

    fn value(&self, cost: u64) -> Value {
        Value { cost, entry: self.values.open(), fuse: Arc::clone(&self.fuse) }
    }

    /// Makes some calls of every kind; returns how many panicked.
    fn exercise(&self) -> usize {
        let cache = &self.cache;
        let panics = Cell::new(0);
        let attempt = |work: &dyn Fn()| {
            if catch_unwind(AssertUnwindSafe(work)).is_err() {
                panics.set(panics.get() + 1);
            }
            assert!(cache.cost() <= cache.max_cost());
        };
        for id in 0..20 {
            attempt(&|| drop(cache.insert(self.key(id), self.value(1 + id % 3))));
            attempt(&|| drop(cache.get(&self.key(id / 2))));
            attempt(&|| drop(cache.insert(self.key(id / 2), self.value(id % 4))));
        }
        for id in 0..6 {
            let options = InsertOptions::new().ttl(SECOND).priority(Priority::High);
            attempt(&|| drop(cache.insert_with(self.key(id + 30), self.value(1), options.cost(1))));
            attempt(&|| drop(cache.insert_if_absent(self.key(id), self.value(1))));
            attempt(&|| drop(cache.replace(self.key(id + 1), self.value(2))));
            attempt(&|| drop(cache.get_cloned(&self.key(id))));
            attempt(&|| _ = cache.update(&self.key(id), |_| self.value(3)));
            attempt(&|| {
                drop(cache.compute(self.key(id + 2), |_| {
                    self.fuse.burn(Call::Compute);
                    if id % 2 == 0 { ComputeOp::Put(self.value(1)) } else { ComputeOp::Remove }
                }));
            });
            attempt(&|| drop(cache.remove(&self.key(id + 3))));
            attempt(&|| {
                drop(cache.remove_if(&self.key(id + 4), |_| {
                    self.fuse.burn(Call::RemoveIf);
                    true
                }));
            });
            attempt(&|| {
                drop(cache.get_or_insert_with(self.key(id + 40), || {
                    let value = self.value(1);
                    self.fuse.burn(Call::Loader);
                    value
                }));
            });
            attempt(&|| {
                if let Claim::Fill(guard) = cache.claim(self.key(id + 50), WaitPolicy::No) {
                    drop(guard.fill(self.value(100)));
                }
            });
            attempt(&|| _ = cache.set_ttl(&self.key(id), Some(2 * SECOND)));
        }
        attempt(&|| {
            let keys = [1, 5, 99].map(|id| self.key(id));
            cache.get_many(&keys, |_, _| self.fuse.burn(Call::Read));
        });
        attempt(&|| {
            cache.retain(|key, _| {
                self.fuse.burn(Call::Retain);
                key.id % 5 != 0
            })
        });
        attempt(&|| {
            let records: Vec<_> = cache.pin().export().map(ExportedEntry::cloned).take(3).collect();
            cache.clear();
            _ = cache.import(records);
        });
        attempt(&|| cache.set_max_cost(20));
        let now = *self.clock.time.lock().unwrap();
        self.clock.set(now + 3 * SECOND);
        attempt(&|| _ = cache.tick(WorkLimit::ALL));
        attempt(&|| cache.set_max_cost(40));
        for id in 0..20 {
            attempt(&|| drop(cache.insert(self.key(id), self.value(2))));
        }
        self.clock.set(now + 30 * SECOND);
        attempt(&|| cache.flush());
        panics.get()
    }

    /// Checks that the cache works, that all due entries expire, and that nothing is lost.
    fn finish(self) {
        self.fuse.put_out();
        let now = *self.clock.time.lock().unwrap();
        self.clock.set(now + HOUR);
        self.cache.set_max_cost(40);
        settle(&self.cache);
        eventually("all that has expired is gone", || {
            self.cache.flush();
            self.cache.pin().iter().count() == self.cache.len()
        });
        audit(&self.cache);
        assert_eq!(self.exercise(), 0, "it works as ever");
        settle(&self.cache);
        audit(&self.cache);
        let Self { cache, keys, values, .. } = self;
        // Not `drop`, which leaves work in progress to the maintenance thread.
        assert!(cache.close());
        keys.check_dropped("key");
        values.check_dropped("value");
        values.check_parted_once_at_most("value");
    }
}

/// Panics at every k-th call of each kind, one per run, until there are no more calls.
fn panics_of_each_kind(maintenance: Maintenance, ks: impl Iterator<Item = i64> + Clone) {
    for call in CALLS {
        let (mut blown, mut last) = (0, 0);
        for k in ks.clone() {
            // Printed if the test fails.
            println!("{call:?} at {k}");
            let bench = Bench::new(maintenance);
            bench.fuse.light(call, k);
            let panics = bench.exercise();
            let burnt = bench.fuse.calls.load(SeqCst) <= 0;
            if maintenance == Maintenance::Manual {
                assert!(panics <= 1);
            }
            bench.fuse.put_out();
            bench.finish();
            (blown, last) = (blown + usize::from(burnt), k);
            if !burnt {
                break;
            }
        }
        println!(
            "{maintenance:?}: {call:?} panicked {blown} times, the last tried was the {last}th"
        );
        assert!(blown > 0, "{call:?} was never called");
    }
}

#[test]
fn panic_at_each_call_of_each_callback_leaves_keys_values_and_accounts_right() {
    panics_of_each_kind(Maintenance::Manual, (1..30).chain((30..).step_by(11)));
}

#[test]
fn panic_on_the_thread_leaves_keys_values_and_accounts_right() {
    panics_of_each_kind(Maintenance::Thread, (1..).step_by(13));
}

#[test]
fn value_that_retires_others_when_it_is_dropped_leaves_nothing() {
    // A chain: the destructor of each value removes the next entry during a sweep.
    thread_local! {
        static CACHE: RefCell<Option<Cache<u64, Chained>>> = const { RefCell::new(None) };
    }
    struct Chained(u64, #[allow(dead_code)] Tracked);
    impl Drop for Chained {
        fn drop(&mut self) {
            let cache = CACHE.with_borrow(Clone::clone);
            if let Some(cache) = cache {
                drop(cache.remove(&(self.0 + 1)));
            }
        }
    }
    let tally = Arc::new(Tally::default());
    let cache = builder(1000, Maintenance::Manual).build().unwrap();
    for key in 0..300 {
        assert!(cache.insert(key, Chained(key, tally.make(key))).is_in());
    }
    CACHE.set(Some(cache.clone()));
    drop(cache.remove(&0));
    eventually("the whole chain is gone", || {
        cache.flush();
        tally.alive() == 0
    });
    assert_eq!((cache.len(), cache.cost()), (0, 0));
    CACHE.set(None);
}

thread_local! {
    /// The cache that callbacks on this thread call; taken out while one does.
    static HANDLE: RefCell<Option<Cache<u64, Reentrant>>> = const { RefCell::new(None) };
    static CALLED: Cell<u64> = const { Cell::new(0) };
}

/// A value whose destructor calls the cache.
struct Reentrant(#[allow(dead_code)] u64);

impl Drop for Reentrant {
    fn drop(&mut self) {
        reenter();
    }
}

/// Calls every operation from within a callback, but not on a key that is being computed: `compute`
/// would retry forever.
fn reenter() {
    // It may be gone if the test has failed.
    let Ok(Some(cache)) = HANDLE.try_with(RefCell::take) else { return };
    let key = 100 + CALLED.get() % 40;
    CALLED.set(CALLED.get() + 1);
    drop(cache.get(&key));
    drop(cache.insert(key, Reentrant(key)));
    drop(cache.insert(99, Reentrant(1)));
    drop(cache.insert_with_ttl(key + 1, Reentrant(key), SECOND));
    drop(cache.remove(&(key + 2)));
    drop(cache.compute(key + 3, |_| ComputeOp::Put(Reentrant(key))));
    drop(cache.get_or_insert_with(key + 50, || Reentrant(key)));
    drop(cache.try_get_or_insert_with(key + 51, || Err::<Reentrant, _>(())));
    if let Claim::Fill(guard) = cache.claim(key + 52, WaitPolicy::No) {
        drop(guard.fill(Reentrant(key)));
    }
    drop(cache.insert_if_absent(key + 4, Reentrant(key)));
    drop(cache.insert_with(key + 5, Reentrant(key), InsertOptions::new().priority(Priority::High)));
    drop(cache.replace(key, Reentrant(key)));
    cache.update(&(key + 1), |_| Reentrant(key));
    drop(cache.remove_if(&(key + 3), |_| key.is_multiple_of(2)));
    _ = (cache.set_ttl(&key, Some(SECOND)), cache.entry_info(&key), cache.frequency(&key));
    _ = (cache.contains_key(&key), cache.peek(&key).is_some());
    cache.get_many(&[key, key + 1], |_, _| {});
    cache.import([ExportedEntry::new(key + 6, Reentrant(key))]);
    {
        let pinned = cache.pin();
        _ = (pinned.get(&key).is_some(), pinned.iter().count(), pinned.export().count());
        _ = (pinned.hottest(2).len(), pinned.coldest(2).len());
    }
    _ = (cache.metrics(), cache.memory(), cache.remaining_cost(), format!("{cache:?}"));
    cache.retain(|key, _| key % 7 != 0);
    drop(cache.clone());
    assert!(cache.len() < 1000 && cache.cost() <= cache.max_cost());
    cache.tick(WorkLimit::ALL);
    cache.flush();
    if CALLED.get().is_multiple_of(8) {
        cache.set_max_cost(30);
        if CALLED.get().is_multiple_of(16) {
            cache.drain(|_, _| {});
        }
        cache.clear();
        cache.set_max_cost(60);
    }
    HANDLE.set(Some(cache));
}

struct Lasts;

impl Expiry<u64, Reentrant> for Lasts {
    fn on_create(&self, _: &u64, _: &Reentrant) -> Option<Duration> {
        reenter();
        Some(HOUR)
    }

    fn on_read(&self, _: &u64, _: &Reentrant, left: Option<Duration>) -> Option<Duration> {
        reenter();
        left
    }
}

#[test]
fn every_callback_may_call_every_method() {
    for which in 0..9 {
        let mut builder = builder(60, Maintenance::Manual).clock(AnyClock::new());
        builder = match which {
            0 => builder.on_remove(|_: Removed<u64, Reentrant>| reenter()),
            1 => builder.cost_of(|_, _| {
                reenter();
                1
            }),
            2 => builder.replace_if(|_, _, _| {
                reenter();
                true
            }),
            3 => builder.expiry(Lasts),
            _ => builder,
        };
        let cache = builder.build().unwrap();
        HANDLE.set((which != 8).then(|| cache.clone()));
        CALLED.set(0);
        let own = |closure: usize| which == closure;
        for key in 0..40 {
            drop(cache.insert(key, Reentrant(key)));
            drop(cache.insert(1, Reentrant(key)));
            drop(cache.get(&1));
            drop(cache.compute(key, |_| {
                own(4).then(reenter);
                ComputeOp::Put(Reentrant(key))
            }));
            drop(cache.remove_if(&key, |_| {
                own(5).then(reenter);
                true
            }));
            drop(cache.get_or_insert_with(key + 1000, || {
                own(6).then(reenter);
                Reentrant(key)
            }));
            cache.retain(|_, _| {
                if own(7) && key % 8 == 0 {
                    reenter();
                }
                true
            });
            if key % 8 == 0 {
                cache.flush();
            }
        }
        if which != 8 {
            // Other tests may be pinned, and delay notifications of the listener.
            eventually("the callback calls the cache", || {
                cache.flush();
                CALLED.get() > 0
            });
        }
        HANDLE.set(None);
        settle(&cache);
        audit(&cache);
    }
}

#[test]
fn loader_may_drop_every_other_handle() {
    for maintenance in BOTH {
        let tally = Arc::new(Tally::default());
        let cache = builder(10, maintenance).build().unwrap();
        let others: Vec<_> = (0..5).map(|_| cache.clone()).collect();
        let value = cache.get_or_insert_with(1, || {
            drop(others);
            tally.make(1)
        });
        assert_eq!(value.id, 1);
        drop(value);
        assert!(cache.close());
        assert_eq!((tally.made(), tally.alive()), (1, 0));
    }
}

#[test]
fn last_handle_may_go_in_a_listener() {
    for round in 0..20 {
        let slot: Arc<Mutex<Option<Cache<u64, Tracked>>>> = Arc::default();
        let tally = Arc::new(Tally::default());
        let told = Arc::clone(&slot);
        let cache = builder(100, Maintenance::Thread)
            .on_remove(move |removed: Removed<u64, Tracked>| {
                assert_eq!(removed.cause, RemovalCause::Removed);
                // Not while the lock is held: other entries may be reported concurrently.
                let handle = told.lock().unwrap().take();
                drop(handle);
            })
            .build()
            .unwrap();
        for key in 0..50 {
            assert!(cache.insert(key, tally.make(key)).is_in());
        }
        *slot.lock().unwrap() = Some(cache.clone());
        drop(cache.remove(&round));
        drop(cache);
        eventually("the cache is gone", || tally.alive() == 0);
    }
}

#[test]
fn last_handle_may_go_while_a_thread_ends() {
    type Owned = Option<(Cache<u64, Tracked>, Arc<Tally>)>;
    thread_local! {
        static HELD: RefCell<Owned> = const { RefCell::new(None) };
    }
    /// Uses the cache in the destructor of a thread-local variable.
    struct Late(Owned);
    impl Drop for Late {
        fn drop(&mut self) {
            if let Some((cache, tally)) = self.0.take() {
                drop(cache.insert(1000, tally.make(1000)));
                assert!(cache.get(&1000).is_some());
                drop(cache.remove(&1000));
                cache.flush();
            }
        }
    }
    thread_local! {
        static LATE: RefCell<Late> = const { RefCell::new(Late(None)) };
    }
    for maintenance in BOTH {
        // The order of destructors depends on the system: that of first use, or the reverse.
        for cache_first in [false, true] {
            let tally = Arc::new(Tally::default());
            let mine = Arc::clone(&tally);
            let work = move || {
                let cache = builder(100, maintenance).build().unwrap();
                let fill = || (0..150).for_each(|key| drop(cache.insert(key, mine.make(key))));
                if cache_first {
                    fill();
                }
                LATE.with_borrow_mut(|late| late.0 = Some((cache.clone(), Arc::clone(&mine))));
                HELD.set(Some((cache.clone(), Arc::clone(&mine))));
                if !cache_first {
                    fill();
                }
            };
            thread::spawn(work).join().unwrap();
            eventually("everything is dropped", || tally.alive() == 0);
            assert_eq!(tally.made(), 151);
        }
    }
}

#[test]
fn clock_that_goes_back_blocks_no_call() {
    // Maintenance used to process the same deadline repeatedly until the clock had caught up.
    let clock = AnyClock::new();
    let cache = builder(100, Maintenance::Manual).clock(clock.clone()).build().unwrap();
    clock.set(2 * HOUR);
    assert!(cache.insert_with_ttl(1, 1, 10 * SECOND).is_in());
    clock.set(2 * HOUR + 10 * SECOND);
    assert_eq!(cache.tick(WorkLimit::ALL).expired, 1);
    clock.set(HOUR);
    assert!(cache.insert_with_ttl(2, 2, 10 * SECOND).is_in());
    assert!(cache.insert_with_ttl(3, 3, 2 * HOUR).is_in());
    assert_eq!(cache.tick(WorkLimit::ALL).expired, 0, "it lives by the clock as it is");
    assert!(cache.contains_key(&2) && cache.contains_key(&3));
    clock.set(HOUR + 10 * SECOND);
    assert!(!cache.contains_key(&2));
    assert_eq!(cache.tick(WorkLimit::ALL).expired, 1);
    clock.set(Duration::ZERO);
    assert_eq!((cache.tick(WorkLimit::ALL).expired, cache.get_cloned(&3)), (0, Some(3)));
    clock.set(3 * HOUR);
    assert_eq!((cache.tick(WorkLimit::ALL).expired, cache.len()), (1, 0));
    audit(&cache);
}

#[test]
fn clock_that_jumps_a_hundred_years_or_to_the_end_expires_all_and_goes_on() {
    let century = 100 * 365 * 24 * HOUR;
    for end in [century, Duration::from_nanos(u64::MAX - 1), Duration::MAX] {
        let clock = AnyClock::new();
        let cache = builder(100, Maintenance::Manual).clock(clock.clone()).build().unwrap();
        for (key, ttl) in [(1, SECOND), (2, HOUR), (3, century - SECOND)] {
            assert!(cache.insert_with_ttl(key, key, ttl).is_in());
        }
        assert!(cache.insert_with_ttl(4, 4, Duration::MAX).is_in());
        clock.set(end);
        assert_eq!((cache.tick(WorkLimit::ALL).expired, cache.len()), (3, 1));
        assert!(cache.insert_with_ttl(5, 5, Duration::ZERO).is_in());
        assert!(!cache.contains_key(&5));
        assert_eq!(cache.tick(WorkLimit::ALL).expired, 1);
        assert!(cache.contains_key(&4), "an entry without a deadline remains");
        audit(&cache);
    }
}

#[test]
fn clock_that_stands_still_expires_only_what_has_no_time() {
    let cache = builder(1000, Maintenance::Manual).clock(AnyClock::new()).build().unwrap();
    for key in 0..200 {
        let ttl = if key % 2 == 0 { Duration::ZERO } else { Duration::from_nanos(1) };
        assert!(cache.insert_with(key, key, InsertOptions::new().ttl(ttl)).is_in());
    }
    assert_eq!((cache.tick(WorkLimit::ALL).expired, cache.len()), (100, 100));
    assert_eq!(cache.tick(WorkLimit::ALL).expired, 0);
    audit(&cache);
}

#[test]
fn clocks_of_threads_that_differ_by_a_millisecond_do_no_harm() {
    /// A clock that shows each thread another time.
    struct Skewed(AtomicU64);
    thread_local! {
        static SKEW: Cell<u64> = const { Cell::new(0) };
    }
    impl Clock for Skewed {
        fn now(&self) -> Duration {
            Duration::from_micros(10_000 + self.0.fetch_add(1, SeqCst) + SKEW.get())
        }
    }
    for maintenance in BOTH {
        let tally = Arc::new(Tally::default());
        let cache = builder(500, maintenance).clock(Skewed(AtomicU64::new(0))).build().unwrap();
        thread::scope(|scope| {
            for thread in 0..4u64 {
                let (cache, tally) = (&cache, &tally);
                scope.spawn(move || {
                    SKEW.set(thread * 500);
                    for key in 0..2000 {
                        let ttl = Duration::from_micros(key % 3000);
                        drop(cache.insert_with_ttl(key % 700, tally.make(key % 700), ttl));
                        if let Some(value) = cache.get(&(key % 300)) {
                            assert_eq!(value.id, key % 300);
                        }
                        if key % 64 == 0 {
                            cache.tick(WorkLimit::ALL);
                        }
                    }
                });
            }
        });
        // Each reading of the clock advances it, so all of them expire.
        eventually("everything expires", || {
            cache.flush();
            cache.is_empty()
        });
        settle(&cache);
        assert_eq!((cache.cost(), tally.alive()), (0, 0));
    }
}

#[test]
fn budget_is_kept_when_ten_times_as_much_comes_at_once() {
    const BUDGET: u64 = 1 << 20;
    for maintenance in BOTH {
        let tally = Arc::new(Tally::default());
        let cache = builder(BUDGET, maintenance).build().unwrap();
        thread::scope(|scope| {
            for thread in 0..10u64 {
                let (cache, tally) = (&cache, &tally);
                scope.spawn(move || {
                    for round in 0..200 {
                        let key = thread * 1000 + round;
                        drop(cache.insert_with_cost(key, tally.make(key), BUDGET - round % 2));
                        assert!(cache.cost() <= BUDGET);
                        assert!(cache.pin().iter().count() <= 11, "more than are under way");
                    }
                });
            }
        });
        settle(&cache);
        audit(&cache);
        assert!(cache.len() <= 1);
        assert_eq!(tally.alive(), cache.len() as u64);
    }
}

#[test]
fn values_that_become_much_larger_displace_the_small_ones_and_keep_the_budget() {
    const BUDGET: u64 = 1 << 20;
    static BYTES: AtomicU64 = AtomicU64::new(0);
    struct Bytes(Vec<u8>);
    impl Bytes {
        fn new(length: u64) -> Self {
            BYTES.fetch_add(length, SeqCst);
            Self(vec![7; length as usize])
        }
    }
    impl Drop for Bytes {
        fn drop(&mut self) {
            BYTES.fetch_sub(self.0.len() as u64, SeqCst);
        }
    }
    for maintenance in BOTH {
        let cache = builder(BUDGET, maintenance)
            .cost_of(|_, bytes: &Bytes| bytes.0.len() as u64)
            .build()
            .unwrap();
        for (length, keys) in [(512, 4000), (16 << 10, 500), (512, 4000), (900 << 10, 10)] {
            let mut came_in = 0;
            for key in 0..keys {
                // Read first, so that the new keys have a frequency.
                drop(cache.get(&(length << 32 | key)));
                came_in += u64::from(cache.insert(length << 32 | key, Bytes::new(length)).is_in());
                assert!(cache.cost() <= BUDGET);
            }
            settle(&cache);
            audit(&cache);
            assert!(came_in > 0, "none of {length} bytes came in");
            assert_eq!(BYTES.load(SeqCst), cache.cost(), "bytes in memory are those paid for");
        }
        assert!(cache.close());
        assert_eq!(BYTES.load(SeqCst), 0);
    }
}

#[test]
fn hundred_thousand_entries_without_cost_leave_again() {
    // Their number is not limited: the cost function is the user's responsibility.
    let cache = builder(1, Maintenance::Manual).build().unwrap();
    let mut is_in = 0u64;
    for key in 0..100_000u64 {
        is_in += u64::from(cache.insert_with_cost(key, (), 0).is_in());
    }
    assert_eq!(is_in, 100_000);
    println!("{} entries are in", cache.len());
    assert!(cache.len() > 50_000 && cache.cost() == 0, "only full buckets drive some out");
    let table = cache.memory().table;
    cache.clear();
    cache.flush();
    assert_eq!(cache.len(), 0);
    assert!(cache.memory().table < table / 4, "the table shrinks again");
}

#[test]
fn hasher_that_answers_differently_on_one_thread_ends_every_call() {
    #[derive(Clone)]
    struct Fickle(Arc<AtomicU8>);
    impl BuildHasher for Fickle {
        type Hasher = DefaultHasher;
        fn build_hasher(&self) -> DefaultHasher {
            let mut hasher = DefaultHasher::new();
            hasher.write_u8(self.0.fetch_add(1, SeqCst) % 3);
            hasher
        }
    }
    let tally = Arc::new(Tally::default());
    let cache = builder(50, Maintenance::Manual)
        .expected_entries(1)
        .clock(AnyClock::new())
        .hasher(Fickle(Arc::default()))
        .build()
        .unwrap();
    for key in 0..500u64 {
        let key = key % 60;
        drop(cache.insert_with_ttl(key, tally.make(key), Duration::from_nanos(key % 3)));
        drop(cache.compute(key, |_| ComputeOp::Put(tally.make(key))));
        assert_eq!(cache.get_or_insert_with(key, || tally.make(key)).id, key);
        assert!(cache.get(&key).is_none_or(|value| value.id == key));
        drop(cache.remove(&key));
        cache.tick(WorkLimit::ALL);
        assert!(cache.cost() <= 50);
    }
    cache.set_max_cost(10);
    cache.clear();
    settle(&cache);
    assert_eq!((cache.len(), cache.cost(), tally.alive()), (0, 0, 0));
}
