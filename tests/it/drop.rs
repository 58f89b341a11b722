//! Every key and every value is dropped, once, and soon.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering::SeqCst},
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
        drop(cache);
        assert_eq!((keys.alive(), values.alive()), (0, 0));
        assert_eq!(keys.made(), keys.dropped());
    }
}

#[test]
fn rejected_value_comes_back_alive() {
    let tally = Arc::new(Tally::default());
    let cache = builder(10, Maintenance::Manual).build().unwrap();
    let value = cache.insert_with_cost(1, tally.make(5), 11).rejected().unwrap();
    assert_eq!((value.id, tally.alive()), (5, 1));
    let value = cache.replace(1, value).unwrap_err();
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
            drop(cache);
            assert_eq!(tally.made(), tally.dropped());
        }
    }
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
        assert_eq!(tally.alive(), 0);
    }
}

#[test]
fn last_handle_may_go_on_any_thread() {
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
        // A scope may end before its threads have dropped what they own.
        eventually("everything is dropped", || tally.alive() == 0);
        assert_eq!(tally.made(), 2000);
    }
}

/// Holds the only handle of another cache.
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
        // Nobody calls the cache any more: its thread has to see to it.
        let name = names.recv_timeout(std::time::Duration::from_secs(30)).unwrap();
        assert_eq!(name.as_deref(), Some("cortado outer"));
        assert_eq!(tally.alive(), 0);
    }
}

/// A value that can hold a handle of the very cache it is in.
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
        // Values hold handles: only a clear lets the cache go.
        cache.clear();
        settle(&cache);
        audit(&cache);
    }
}

#[test]
fn nobody_has_to_call_the_cache_for_garbage_to_go() {
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
        drop(cache);
        assert_eq!(tally.alive(), 0);
    }
}
