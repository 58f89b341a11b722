//! Every key and every value is dropped once, and soon.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
        mpsc,
    },
    thread,
};

use cortado::{Cache, Maintenance};

use crate::{
    builder,
    support::{BOTH, Id, Random, Tally, Tracked, audit, eventually, seed, settle},
};

#[test]
fn each_way_out_drops_key_and_value_once() {
    for maintenance in BOTH {
        let (keys, values) = (Arc::new(Tally::default()), Arc::new(Tally::default()));
        let cache = builder(50, maintenance).build().unwrap();
        let insert = |key, cost| cache.insert_with_cost(keys.make(key), values.make(key), cost);
        let check = |way: &str| {
            settle(&cache);
            audit(&cache);
            eventually(way, || {
                let there = cache.len() as u64;
                (keys.alive(), values.alive()) == (there, there)
            });
        };
        for key in 0..500 {
            drop(insert(key, 1));
        }
        check("evicted ones are dropped");
        for key in 450..500 {
            drop(insert(key, 1));
        }
        check("replaced ones are dropped");
        drop(insert(499, 51));
        drop(insert(7, u64::MAX));
        check("rejected ones are dropped");
        for key in 0..500 {
            drop(cache.insert_if_absent(keys.make(key), values.make(key)));
            drop(cache.replace(keys.make(1000 + key), values.make(key)));
        }
        check("refused ones are dropped");
        for key in 0..500 {
            drop(cache.remove(&Id(key)));
        }
        assert!(cache.is_empty());
        check("removed ones are dropped");
        for key in 0..30 {
            drop(insert(key, 1));
        }
        cache.clear();
        check("cleared ones are dropped");
        for key in 0..30 {
            drop(insert(key, 1));
        }
        cache.set_max_cost(3);
        check("those that no longer fit are dropped");
        drop(insert(1, 1));
        assert!(cache.close());
        assert_eq!((keys.alive(), values.alive()), (0, 0));
        assert_eq!(keys.made(), keys.dropped());
    }
}

#[test]
fn rejected_value_is_returned_alive() {
    let tally = Arc::new(Tally::default());
    let cache = builder(10, Maintenance::Manual).build().unwrap();
    let value = cache.insert_with_cost(1, tally.make(5), 11).rejected().unwrap();
    assert_eq!((value.id, tally.alive()), (5, 1));
    let value = cache.replace(1, value).rejected().unwrap();
    assert_eq!((value.id, tally.alive()), (5, 1));
}

#[test]
fn dropping_the_cache_drops_everything_garbage_included() {
    for maintenance in BOTH {
        for resizing in [false, true] {
            let tally = Arc::new(Tally::default());
            let entries = if resizing { 4 } else { 20_000 };
            let cache = builder(10_000, maintenance).expected_entries(entries).build().unwrap();
            for key in 0..7000 {
                drop(cache.insert(tally.make(key), tally.make(key)));
                drop((key % 3 == 0).then(|| cache.remove(&Id(key / 2))));
            }
            assert!(cache.close());
            assert_eq!(tally.made(), tally.dropped());
        }
    }
}

/// Blocks the thread that calls a listener until the sender of its release is dropped.
fn held_up() -> (impl Fn() + Send + Sync, mpsc::Receiver<()>, mpsc::Sender<()>) {
    let (inside, is_inside) = mpsc::channel();
    let (release, is_released) = mpsc::channel::<()>();
    let is_released = Mutex::new(is_released);
    let wait = move || {
        let _ = inside.send(());
        let _ = is_released.lock().unwrap().recv();
    };
    (wait, is_inside, release)
}

#[test]
fn dropping_does_not_wait_for_a_listener() {
    let tally = Arc::new(Tally::default());
    let (wait, is_inside, release) = held_up();
    let told = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&told);
    let cache = builder(100, Maintenance::Thread)
        .on_remove(move |_| {
            wait();
            count.fetch_add(1, SeqCst);
        })
        .build()
        .unwrap();
    for key in 0..50 {
        assert!(cache.insert(key, tally.make(key)).is_in());
    }
    (0..20).for_each(|key| drop(cache.remove(&key)));
    is_inside.recv().unwrap();
    drop(cache);
    assert_eq!(told.load(SeqCst), 0);
    assert!(tally.alive() >= 30, "the thread may still look at them");
    drop(release);
    eventually("the rest is reported and dropped", || tally.alive() == 0);
    assert_eq!(told.load(SeqCst), 20, "each that left before, and no other");
}

#[test]
fn listener_that_was_not_called_before_is_not_called_by_who_drops_the_cache() {
    let (wait, is_inside, release) = held_up();
    let caller = Arc::new(Mutex::new(None));
    let noted = Arc::clone(&caller);
    let cache = builder(100, Maintenance::Thread)
        .name("told")
        .on_remove(move |_: cortado::Removed<u64, u64>| {
            *noted.lock().unwrap() = thread::current().name().map(str::to_string);
            wait();
        })
        .build()
        .unwrap();
    assert!(cache.insert(1, 1).is_in());
    drop(cache.remove(&1));
    drop(cache);
    is_inside.recv().unwrap();
    assert_eq!(caller.lock().unwrap().as_deref(), Some("cortado told"));
    drop(release);
}

#[test]
fn dropping_does_not_wait_for_a_destructor_or_a_clock() {
    struct Slow<F: Fn() + Send + Sync>(F);
    impl<F: Fn() + Send + Sync> Drop for Slow<F> {
        fn drop(&mut self) {
            (self.0)();
        }
    }
    let (wait, is_inside, release) = held_up();
    let cache = builder(10, Maintenance::Thread).build().unwrap();
    assert!(cache.insert(1, Slow(wait)).is_in());
    drop(cache.remove(&1));
    is_inside.recv().unwrap();
    drop(cache);
    drop(release);

    struct Clock<F>(F);
    impl<F: Fn() + Send + Sync + 'static> cortado::Clock for Clock<F> {
        fn now(&self) -> std::time::Duration {
            if thread::current().name() == Some("cortado clock") {
                (self.0)();
            }
            std::time::Duration::ZERO
        }
    }
    let (wait, is_inside, release) = held_up();
    let cache = builder(10, Maintenance::Thread).name("clock").clock(Clock(wait)).build().unwrap();
    assert!(cache.insert_with_ttl(1, 1, std::time::Duration::from_secs(9)).is_in());
    is_inside.recv().unwrap();
    drop(cache);
    drop(release);
}

/// Only a caller's own key is hashed, so a slow or faulty hash function cannot delay maintenance.
#[test]
fn maintenance_calls_no_hash_function() {
    #[derive(Clone)]
    struct Hash(Arc<AtomicBool>);
    impl std::hash::BuildHasher for Hash {
        type Hasher = std::hash::DefaultHasher;
        fn build_hasher(&self) -> Self::Hasher {
            let is_thread = thread::current().name() == Some("cortado hash");
            assert!(!is_thread && !self.0.load(SeqCst), "a key is hashed");
            std::hash::DefaultHasher::new()
        }
    }
    let is_forbidden = Arc::new(AtomicBool::new(false));
    for maintenance in BOTH {
        let hasher = Hash(Arc::clone(&is_forbidden));
        let builder = builder(1000, maintenance).name("hash").expected_entries(0).hasher(hasher);
        let cache = builder.build().unwrap();
        for key in 0..20_000 {
            cache.insert(key, key);
        }
        is_forbidden.store(true, SeqCst);
        cache.set_max_cost(100);
        settle(&cache);
        cache.clear();
        settle(&cache);
        is_forbidden.store(false, SeqCst);
        assert_eq!(cache.len(), 0);
    }
}

#[test]
fn caches_whose_garbage_holds_each_others_last_handle_both_go() {
    struct Holder {
        other: Mutex<Option<Cache<u64, Arc<Holder>>>>,
        meeting: Arc<std::sync::Barrier>,
        gone: Arc<AtomicU64>,
    }
    impl Drop for Holder {
        fn drop(&mut self) {
            let other = self.other.lock().unwrap().take();
            if other.is_some() {
                // On both threads at once, each of which owns the other.
                self.meeting.wait();
            }
            drop(other);
            self.gone.fetch_add(1, SeqCst);
        }
    }
    for _ in 0..20 {
        let (meeting, gone) = (Arc::new(std::sync::Barrier::new(2)), Arc::default());
        let make = || builder(10, Maintenance::Thread).build().unwrap();
        let (one, other): (Cache<u64, Arc<Holder>>, Cache<u64, Arc<Holder>>) = (make(), make());
        let hold = |held: Option<&Cache<u64, Arc<Holder>>>| {
            let (meeting, gone) = (Arc::clone(&meeting), Arc::clone(&gone));
            Arc::new(Holder { other: Mutex::new(held.cloned()), meeting, gone })
        };
        for (cache, held) in [(&one, &other), (&other, &one)] {
            assert!(cache.insert(1, hold(Some(held))).is_in());
            assert!(cache.insert(2, hold(None)).is_in());
        }
        drop(one.remove(&1));
        drop(other.remove(&1));
        drop((one, other));
        eventually("both are gone, and what was in them", || gone.load(SeqCst) == 4);
    }
}

#[test]
fn close_waits_for_a_listener_and_returns_whether_the_cache_is_dropped() {
    for maintenance in BOTH {
        let tally = Arc::new(Tally::default());
        let told = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&told);
        let cache = builder(100, maintenance)
            .on_remove(move |_| {
                thread::yield_now();
                count.fetch_add(1, SeqCst);
            })
            .build()
            .unwrap();
        for key in 0..50 {
            assert!(cache.insert(key, tally.make(key)).is_in());
        }
        assert!(!cache.clone().close());
        cache.clear();
        assert!(cache.close());
        assert_eq!((told.load(SeqCst), tally.alive()), (50, 0));
    }
}

#[test]
fn closing_on_the_thread_of_a_cache_does_not_wait() {
    let (answers, answer) = mpsc::channel();
    let slot: Arc<Mutex<Option<Cache<u64, u64>>>> = Arc::default();
    let taken = Arc::clone(&slot);
    let cache = builder(10, Maintenance::Thread)
        .on_remove(move |_| {
            let handle = taken.lock().unwrap().take();
            let _ = answers.send(handle.map(Cache::close));
        })
        .build()
        .unwrap();
    assert!(cache.insert(1, 1).is_in());
    *slot.lock().unwrap() = Some(cache.clone());
    drop(cache.remove(&1));
    drop(cache);
    assert_eq!(answer.recv(), Ok(Some(false)));
}

#[test]
fn cache_lives_as_long_as_one_handle() {
    for maintenance in BOTH {
        let tally = Arc::new(Tally::default());
        let cache = builder(1000, maintenance).build().unwrap();
        let clones: Vec<_> = (0..10).map(|_| cache.clone()).collect();
        for key in 0..100 {
            drop(cache.insert(key, tally.make(key)));
        }
        let there = cache.len() as u64;
        drop(cache);
        for clone in clones {
            assert_eq!(clone.len() as u64, there);
            assert!(tally.alive() >= there);
            drop(clone);
        }
        eventually("the cache is gone with the last", || tally.alive() == 0);
    }
}

#[test]
fn last_handle_may_be_dropped_on_any_thread() {
    for maintenance in BOTH {
        let tally = Arc::new(Tally::default());
        let cache = builder(100, maintenance).build().unwrap();
        thread::scope(|scope| {
            for writer in 0..4u64 {
                let (cache, tally) = (cache.clone(), Arc::clone(&tally));
                scope.spawn(move || {
                    for key in 0..500 {
                        drop(cache.insert(writer * 1000 + key, tally.make(key)));
                    }
                });
            }
            drop(cache);
        });
        // A scope may end before its threads have dropped their captures.
        eventually("everything is dropped", || tally.alive() == 0);
        assert_eq!(tally.made(), 2000);
    }
}

/// Owns the only handle of another cache.
struct Owner {
    inner: Option<Cache<u64, Tracked>>,
    dropped_on: mpsc::Sender<Option<String>>,
}

impl Drop for Owner {
    fn drop(&mut self) {
        drop(self.inner.take());
        let _ = self.dropped_on.send(thread::current().name().map(str::to_string));
    }
}

#[test]
fn last_handle_may_go_on_the_eviction_thread_of_another_cache() {
    let tally = Arc::new(Tally::default());
    let (dropped_on, names) = mpsc::channel();
    let outer = builder(10, Maintenance::Thread).name("outer").build().unwrap();
    for maintenance in BOTH {
        let inner = builder(10, maintenance).build().unwrap();
        for key in 0..20 {
            drop(inner.insert(key, tally.make(key)));
        }
        let owner = Owner { inner: Some(inner), dropped_on: dropped_on.clone() };
        assert!(outer.insert(1, owner).is_in());
        drop(outer.remove(&1));
        // No thread calls the cache any more, so its maintenance thread has to drop the value.
        let name = names.recv_timeout(std::time::Duration::from_secs(30)).unwrap();
        assert_eq!(name.as_deref(), Some("cortado outer"));
        // A maintenance thread does not wait for that of an inner cache.
        eventually("the inner cache is gone, too", || tally.alive() == 0);
    }
}

/// A value that can own a handle of its own cache.
type Knot = Arc<Mutex<Option<Cache<u64, Loop>>>>;

struct Loop {
    knot: Knot,
    tally: Arc<AtomicU64>,
}

impl Drop for Loop {
    fn drop(&mut self) {
        self.tally.fetch_add(1, SeqCst);
        // Not while the lock is held: dropping the cache drops other values of this kind.
        let handle = self.knot.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).take();
        drop(handle);
    }
}

#[test]
fn last_handle_may_go_on_the_eviction_thread_of_its_own_cache() {
    for round in 0..20 {
        let (knot, tally) = (Knot::default(), Arc::new(AtomicU64::new(0)));
        let cache = builder(100, Maintenance::Thread).build().unwrap();
        for key in 0..50 {
            let value = Loop { knot: Knot::default(), tally: Arc::clone(&tally) };
            assert!(cache.insert(key, value).is_in());
        }
        let last = Loop { knot: Arc::clone(&knot), tally: Arc::clone(&tally) };
        assert!(cache.insert(1000 + round, last).is_in());
        *knot.lock().unwrap() = Some(cache.clone());
        drop(cache.remove(&(1000 + round)));
        drop(cache);
        eventually("the cache is gone", || tally.load(SeqCst) == 51);
    }
}

#[test]
fn destructors_may_use_the_cache() {
    struct Again(Mutex<Option<Cache<u64, Again>>>, u64);
    impl Drop for Again {
        fn drop(&mut self) {
            if let Some(cache) = self.0.lock().unwrap().take() {
                drop(cache.insert(self.1 + 1_000_000, Again(Mutex::new(None), 0)));
                let _ = cache.get(&1);
                drop(cache.remove(&(self.1 + 1_000_000)));
                assert!(cache.cost() <= cache.max_cost());
            }
        }
    }
    for maintenance in BOTH {
        let cache = builder(20, maintenance).build().unwrap();
        for key in 0..500u64 {
            drop(cache.insert(key, Again(Mutex::new(Some(cache.clone())), key)));
        }
        // Values own handles, so only a clear drops the cache.
        cache.clear();
        settle(&cache);
        audit(&cache);
    }
}

#[test]
fn garbage_is_freed_without_a_call() {
    let tally = Arc::new(Tally::default());
    let cache = builder(1000, Maintenance::Thread).build().unwrap();
    for key in 0..300 {
        drop(cache.insert(key, tally.make(key)));
    }
    for key in 0..300 {
        drop(cache.remove(&key));
    }
    eventually("the thread has freed everything", || tally.alive() == 0);
}

#[test]
fn many_threads_that_come_and_go_leave_nothing() {
    let seed = seed();
    for maintenance in BOTH {
        let tally = Arc::new(Tally::default());
        let cache = builder(100, maintenance).build().unwrap();
        for round in 0..50 {
            thread::scope(|scope| {
                for writer in 0..4 {
                    let (cache, tally) = (&cache, &tally);
                    scope.spawn(move || {
                        let mut random = Random::new(seed + round * 4 + writer);
                        for _ in 0..20 {
                            let key = random.below(300);
                            drop(cache.insert(tally.make(key), tally.make(key)));
                            drop(cache.remove(&Id(random.below(300))));
                        }
                    });
                }
            });
        }
        settle(&cache);
        audit(&cache);
        eventually("only entries live", || tally.alive() == 2 * cache.len() as u64);
        assert!(cache.close());
        assert_eq!(tally.alive(), 0);
    }
}
