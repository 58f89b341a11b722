//! Panics in user code: the cache continues to work, and its accounts are right.

use std::{
    hash::{BuildHasher, Hash, Hasher},
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicI64, Ordering::SeqCst},
    },
    thread,
    time::Duration,
};

use cortado::{Cache, Expiry, Maintenance};

use crate::{
    builder,
    support::{BOTH, Tally, Tracked, audit, eventually, settle},
};

/// Panics once, at a given call from now.
#[derive(Clone, Debug, Default)]
struct Fuse(Arc<AtomicI64>);

impl Fuse {
    fn light(&self, calls: i64) {
        self.0.store(calls, SeqCst);
    }

    fn burn(&self) {
        if self.0.load(SeqCst) > 0 && self.0.fetch_sub(1, SeqCst) == 1 && !thread::panicking() {
            // Without the panic hook, to keep the output short.
            resume_unwind(Box::new("planned"));
        }
    }
}

#[derive(Clone)]
struct FusedState(Fuse);

struct FusedHasher(Fuse, std::hash::DefaultHasher);

impl BuildHasher for FusedState {
    type Hasher = FusedHasher;

    fn build_hasher(&self) -> FusedHasher {
        FusedHasher(self.0.clone(), std::hash::DefaultHasher::new())
    }
}

impl Hasher for FusedHasher {
    fn finish(&self) -> u64 {
        self.0.burn();
        self.1.finish()
    }

    fn write(&mut self, bytes: &[u8]) {
        self.1.write(bytes);
    }
}

/// A key that may panic when it is compared, or dropped.
#[derive(Debug)]
struct Key {
    tracked: Tracked,
    eq: Fuse,
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        self.eq.burn();
        self.tracked == other.tracked
    }
}

impl Eq for Key {}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.tracked.hash(state);
    }
}

/// A value that may panic when it is dropped.
#[derive(Debug)]
struct Value {
    _tracked: Tracked,
    drop: Fuse,
}

impl Drop for Value {
    fn drop(&mut self) {
        self.drop.burn();
    }
}

/// A cache, and the callbacks that may panic.
struct Bench {
    cache: Cache<Key, Value, FusedState>,
    tally: Arc<Tally>,
    hash: Fuse,
    eq: Fuse,
    cost: Fuse,
    drop: Fuse,
}

impl Bench {
    fn new(maintenance: Maintenance) -> Self {
        let [hash, eq, cost, drop] = [(); 4].map(|()| Fuse::default());
        let fuse = cost.clone();
        let cache = builder(60, maintenance)
            .expected_entries(1) // so that it grows during the test
            .cost_of(move |key: &Key, _: &Value| {
                fuse.burn();
                1 + key.tracked.id % 3
            })
            .hasher(FusedState(hash.clone()))
            .build()
            .unwrap();
        Self { cache, tally: Arc::default(), hash, eq, cost, drop }
    }

    fn key(&self, id: u64) -> Key {
        Key { tracked: self.tally.make(id), eq: self.eq.clone() }
    }

    fn value(&self, id: u64) -> Value {
        Value { _tracked: self.tally.make(id), drop: self.drop.clone() }
    }

    /// Makes some calls of every kind; returns how many panicked.
    fn exercise(&self) -> usize {
        let mut panics = 0;
        let cache = &self.cache;
        let mut attempt = |work: &dyn Fn()| {
            panics += usize::from(catch_unwind(AssertUnwindSafe(work)).is_err());
        };
        for id in 0..90 {
            attempt(&|| drop(cache.insert(self.key(id), self.value(id))));
            attempt(&|| drop(cache.insert(self.key(id / 2), self.value(id))));
            attempt(&|| drop(cache.get(&self.key(id))));
        }
        for id in 40..60 {
            attempt(&|| drop(cache.insert_if_absent(self.key(id), self.value(id))));
            attempt(&|| drop(cache.replace(self.key(id + 20), self.value(id))));
            attempt(&|| drop(cache.remove(&self.key(id))));
            attempt(&|| drop(cache.remove_if(&self.key(id + 1), |_| true)));
            attempt(&|| drop(cache.insert_with_cost(self.key(id), self.value(id), 100)));
        }
        attempt(&|| cache.get_many(&[self.key(1), self.key(80), self.key(89)], |_, _| {}));
        attempt(&|| cache.set_max_cost(30));
        attempt(&|| cache.flush());
        attempt(&|| cache.clear());
        attempt(&|| cache.set_max_cost(60));
        for id in 0..90 {
            attempt(&|| drop(cache.insert(self.key(id), self.value(id))));
        }
        attempt(&|| cache.flush());
        panics
    }

    /// Checks that the cache works, and drops it.
    fn finish(self) {
        for fuse in [&self.hash, &self.eq, &self.cost, &self.drop] {
            fuse.light(0);
        }
        self.cache.set_max_cost(60);
        assert_eq!(self.exercise(), 0, "it works as ever");
        settle(&self.cache);
        audit(&self.cache);
        for id in 0..50 {
            let is_in = self.cache.insert(self.key(id), self.value(id)).is_in();
            let found = self.cache.peek(&self.key(id)).is_some();
            assert!(found == is_in || self.cache.metrics().evictions > 0);
        }
        settle(&self.cache);
        audit(&self.cache);
        assert!(!self.cache.is_empty());
        eventually("only entries live", || self.tally.alive() == 2 * self.cache.len() as u64);
        let tally = Arc::clone(&self.tally);
        assert!(self.cache.close());
        assert_eq!(tally.alive(), 0);
    }
}

/// Triggers one fuse at many different calls, and checks the cache each time.
fn blow(fuse: impl Fn(&Bench) -> &Fuse) {
    for maintenance in BOTH {
        let mut blown = 0;
        for calls in (1..40).chain((40..900).step_by(37)) {
            let bench = Bench::new(maintenance);
            fuse(&bench).light(calls);
            bench.exercise();
            blown += usize::from(fuse(&bench).0.load(SeqCst) <= 0);
            fuse(&bench).light(0);
            settle(&bench.cache);
            audit(&bench.cache);
            bench.finish();
        }
        assert!(blown >= 40, "only {blown} panics in {maintenance:?}");
    }
}

#[test]
fn panicking_hash_function_leaves_the_accounts_right() {
    blow(|bench| &bench.hash);
}

#[test]
fn panicking_comparison_leaves_the_accounts_right() {
    blow(|bench| &bench.eq);
}

#[test]
fn panicking_cost_function_leaves_the_accounts_right() {
    blow(|bench| &bench.cost);
}

#[test]
fn panicking_destructor_leaves_the_accounts_right() {
    blow(|bench| &bench.drop);
}

#[test]
fn every_panic_of_a_destructor_is_survived() {
    struct Bomb(#[allow(dead_code)] Tracked);
    impl Drop for Bomb {
        fn drop(&mut self) {
            if !thread::panicking() {
                resume_unwind(Box::new("planned"));
            }
        }
    }
    for maintenance in BOTH {
        let tally = Arc::new(Tally::default());
        let cache = builder(10, maintenance).build().unwrap();
        for id in 0..300 {
            // A rejected bomb panics here.
            let value = Bomb(tally.make(id));
            let _ = catch_unwind(AssertUnwindSafe(|| drop(cache.insert(id, value))));
            let _ = catch_unwind(AssertUnwindSafe(|| drop(cache.remove(&(id / 2)))));
        }
        audit(&cache);
        eventually("only entries live", || {
            let _ = catch_unwind(AssertUnwindSafe(|| cache.flush()));
            tally.alive() == cache.len() as u64
        });
        let _ = catch_unwind(AssertUnwindSafe(|| cache.close()));
        assert_eq!(tally.alive(), 0);
    }
}

/// Panics in its destructor, and so does the payload of that panic.
struct Chain;

impl Drop for Chain {
    fn drop(&mut self) {
        resume_unwind(Box::new(Self));
    }
}

#[test]
fn panic_that_panics_when_it_is_dropped_ends_neither_sweep_nor_thread() {
    struct Bomb(#[allow(dead_code)] Tracked);
    impl Drop for Bomb {
        fn drop(&mut self) {
            resume_unwind(Box::new(Chain));
        }
    }
    // Not by `unwrap`: dropping such a payload panics.
    let survive = |f: &mut dyn FnMut()| {
        if let Err(panic) = catch_unwind(AssertUnwindSafe(f)) {
            std::mem::forget(panic);
        }
    };
    for maintenance in BOTH {
        let tally = Arc::new(Tally::default());
        let cache = builder(100, maintenance).build().unwrap();
        for id in 0..90 {
            survive(&mut || drop(cache.insert(id, Bomb(tally.make(id)))));
        }
        survive(&mut || cache.clear());
        if maintenance == Maintenance::Thread {
            // No thread calls the cache: its maintenance thread frees them, one panic after
            // another.
            eventually("the thread has freed all", || tally.alive() == 0);
            assert!(cache.insert(1, Bomb(tally.make(1))).is_in());
            survive(&mut || cache.clear());
        }
        eventually("all is freed", || {
            survive(&mut || cache.flush());
            tally.alive() == 0
        });
        audit(&cache);
        assert_eq!(cache.memory().garbage, 0);
        survive(&mut || drop(cache.clone()));
    }
}

#[test]
fn panic_of_a_destructor_comes_out_of_tick() {
    struct Bomb;
    impl Drop for Bomb {
        fn drop(&mut self) {
            resume_unwind(Box::new("planned"));
        }
    }
    let cache = builder(10, Maintenance::Manual).build().unwrap();
    assert!(cache.insert(1, Bomb).is_in());
    drop(cache.remove(&1));
    let mut payload = None;
    eventually("the bomb goes off", || {
        payload = catch_unwind(AssertUnwindSafe(|| cache.flush())).err();
        payload.is_some()
    });
    assert_eq!(payload.unwrap().downcast_ref(), Some(&"planned"));
    assert_eq!(cache.memory().garbage_entries, 0);
}

#[test]
fn panicking_callbacks_of_reads_and_removals_change_nothing() {
    let cache = builder(10, Maintenance::Manual).build().unwrap();
    for key in 0..10 {
        cache.insert(key, key);
    }
    let panics = catch_unwind(AssertUnwindSafe(|| {
        cache.get_many(&[1, 2, 3], |_, _| resume_unwind(Box::new("planned")));
    }));
    assert!(panics.is_err());
    let panics = catch_unwind(AssertUnwindSafe(|| {
        drop(cache.remove_if(&1, |_| resume_unwind(Box::new("planned"))));
    }));
    assert!(panics.is_err());
    assert_eq!((cache.len(), cache.get_cloned(&1)), (10, Some(1)));
    drop(cache.remove(&1));
    settle(&cache);
    audit(&cache);
}

/// A value whose clone panics on request.
struct Fragile(u64, Arc<AtomicBool>);

impl Clone for Fragile {
    fn clone(&self) -> Self {
        assert!(!self.1.load(SeqCst), "clone");
        Self(self.0, Arc::clone(&self.1))
    }
}

struct Brittle(Arc<AtomicBool>);

impl Expiry<u64, Fragile> for Brittle {
    fn on_create(&self, _: &u64, _: &Fragile) -> Option<Duration> {
        assert!(!self.0.load(SeqCst), "expiry");
        Some(Duration::from_secs(1))
    }
    fn on_read(&self, _: &u64, _: &Fragile, left: Option<Duration>) -> Option<Duration> {
        assert!(!self.0.load(SeqCst), "expiry");
        left
    }
}

#[test]
fn panicking_closures_leave_the_accounts_right() {
    let panics = Arc::new(AtomicBool::new(false));
    let (refuses, brittle) = (Arc::clone(&panics), Brittle(Arc::clone(&panics)));
    let cache = builder(100, Maintenance::Manual)
        .replace_if(move |_, _, _| {
            assert!(!refuses.load(SeqCst), "replace_if");
            true
        })
        .expiry(brittle)
        .build()
        .unwrap();
    let value = |n| Fragile(n, Arc::clone(&panics));
    for key in 0..50 {
        assert!(cache.insert(key, value(key)).is_in());
    }
    let acts: [&dyn Fn(); 9] = [
        &|| drop(cache.get_cloned(&1)),
        &|| drop(cache.get(&1)),
        &|| drop(cache.insert(1, value(2))),
        &|| drop(cache.insert(60, value(2))),
        &|| drop(cache.compute(1, |_| panic!("compute"))),
        &|| _ = cache.update(&1, |old| old.clone()),
        &|| cache.retain(|_, _| panic!("retain")),
        &|| drop(cache.get_or_insert_with(70, || panic!("loader"))),
        &|| drop(cache.get_or_insert_with(71, || value(1))),
    ];
    for (number, act) in acts.into_iter().enumerate() {
        panics.store(true, SeqCst);
        assert!(catch_unwind(AssertUnwindSafe(act)).is_err(), "act {number}");
        panics.store(false, SeqCst);
        assert_eq!((cache.len(), cache.cost()), (50, 50), "after act {number}");
        assert_eq!(cache.get_cloned(&1).map(|value| value.0), Some(1), "after act {number}");
        audit(&cache);
    }
    // No caller waits for an abandoned load.
    assert_eq!(cache.get_or_insert_with(70, || value(7)).0, 7);
    assert_eq!(cache.get_or_insert_with(71, || value(7)).0, 7);
}

#[test]
fn cache_may_be_dropped_while_its_owner_panics() {
    for maintenance in BOTH {
        let tally = Arc::new(Tally::default());
        let panics = catch_unwind(AssertUnwindSafe(|| {
            let cache = builder(10, maintenance).build().unwrap();
            for id in 0..100 {
                drop(cache.insert(id, tally.make(id)));
            }
            let _held = cache.get(&99);
            resume_unwind(Box::new("planned"));
        }));
        assert!(panics.is_err());
        assert_eq!(tally.alive(), 0);
    }
}
