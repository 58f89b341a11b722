//! Counts the allocations of a hit and of an insert: promise 1 of the crate's documentation.

#![allow(unsafe_code)] // the allocator

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
    hint::black_box,
    sync::Mutex,
};

use cortado::{Cache, Maintenance};

/// Counts the allocations of each thread separately, so that the maintenance thread does not count.
struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

fn count() {
    let _ = ALLOCATIONS.try_with(|count| count.set(count.get() + 1));
}

// SAFETY: every call is passed on to the system's allocator unchanged. The counter is a plain cell
// of the calling thread and allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller upholds the contract of the allocator.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller upholds the contract of the allocator.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: the caller upholds the contract of the allocator.
        unsafe { System.dealloc(block, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Serialises the tests: all caches share the collector, and a pin occasionally helps it to free
/// what other tests have retired.
static ALONE: Mutex<()> = Mutex::new(());

fn allocations(f: impl FnOnce()) -> u64 {
    let before = ALLOCATIONS.get();
    f();
    ALLOCATIONS.get() - before
}

const ENTRIES: u64 = 10_000;
const READS: u64 = 100_000;

fn filled(maintenance: Maintenance) -> Cache<u64, u64> {
    let cache = Cache::builder().max_cost(4 * ENTRIES).maintenance(maintenance).metrics(true);
    let cache = cache.build().unwrap();
    for key in 0..ENTRIES {
        cache.insert(key, key);
    }
    cache.flush();
    cache
}

#[test]
fn a_hit_allocates_nothing() {
    let _alone = ALONE.lock();
    for maintenance in [Maintenance::Thread, Maintenance::Manual] {
        let cache = filled(maintenance);
        let keys: Vec<u64> = (0..READS).map(|i| i * 7 % ENTRIES).collect();
        // Warms up this thread's slot in the collector and its rings.
        cache.get(&0);
        let reads: [(&str, &dyn Fn()); 6] = [
            ("get", &|| keys.iter().for_each(|key| _ = black_box(cache.get(key).as_deref()))),
            ("get_cloned", &|| keys.iter().for_each(|key| _ = black_box(cache.get_cloned(key)))),
            ("peek", &|| keys.iter().for_each(|key| _ = black_box(cache.peek(key).as_deref()))),
            ("pin().get", &|| {
                let pinned = cache.pin();
                keys.iter().for_each(|key| _ = black_box(pinned.get(key)));
            }),
            ("get_many", &|| cache.get_many(&keys, |_, value| _ = black_box(value))),
            ("get of a miss", &|| {
                keys.iter().for_each(|key| _ = black_box(cache.get(&(key + ENTRIES)).as_deref()));
            }),
        ];
        for (name, read) in reads {
            assert_eq!(allocations(read), 0, "{name} allocates, {maintenance:?}");
        }
    }
}

#[test]
fn new_entries_allocate_chunks_of_cells_and_no_more() {
    let _alone = ALONE.lock();
    for maintenance in [Maintenance::Thread, Maintenance::Manual] {
        let cache = filled(maintenance);
        let before = cache.metrics();
        let mut all = 0;
        for key in ENTRIES..2 * ENTRIES {
            all += allocations(|| _ = black_box(cache.insert(key, key)));
        }
        let seen = cache.metrics() - before;
        println!("{maintenance:?}: {all} for {ENTRIES}, {} of full buckets", seen.local_evictions);
        assert_eq!(seen.inserts, ENTRIES);
        // Chunks, lists of free cells, and the window's queue, which doubles. If the shard is
        // taken, a full ring of new entries is queued (two allocations).
        let rings = if maintenance == Maintenance::Thread { ENTRIES / 32 } else { 0 };
        assert!(all <= ENTRIES / 100 + 2 * rings, "{all} for {ENTRIES}");
    }
}

#[test]
fn an_entry_of_a_full_cache_takes_the_memory_of_an_earlier_one() {
    let _alone = ALONE.lock();
    for maintenance in [Maintenance::Thread, Maintenance::Manual] {
        let cache = Cache::builder().max_cost(1000).maintenance(maintenance).metrics(true);
        let cache = cache.build().unwrap();
        for key in 0..20_000u64 {
            cache.insert(key, key);
        }
        let before = cache.metrics();
        let taken = allocations(|| {
            for key in 20_000..40_000u64 {
                let _ = black_box(cache.insert(key, key));
            }
        });
        let seen = cache.metrics() - before;
        let each = taken as f64 / 20_000.0;
        println!("{maintenance:?}: {each:.3} an insert, {} evicted", seen.evictions);
        // An occasional grace period, and more cells where a pinned thread is not running.
        assert!(taken < 20_000 / 16, "{taken} for 20000");
    }
}

#[test]
fn an_update_takes_the_memory_of_an_earlier_one() {
    let _alone = ALONE.lock();
    for maintenance in [Maintenance::Thread, Maintenance::Manual] {
        let cache = filled(maintenance);
        let update = |count: u64| {
            for i in 0..count {
                let _ = black_box(cache.insert(i % ENTRIES, i));
            }
        };
        update(ENTRIES);
        let taken = allocations(|| update(20_000));
        println!("{maintenance:?}: {taken} for 20000 updates");
        assert!(taken < 20_000 / 16, "{taken} for 20000");
    }
}

#[test]
fn a_removal_allocates_for_every_batch_only() {
    let _alone = ALONE.lock();
    let cache = filled(Maintenance::Manual);
    let taken = allocations(|| (0..ENTRIES).for_each(|key| drop(cache.remove(&key))));
    println!("{taken} for {ENTRIES} removals");
    assert!(taken <= ENTRIES / 64 + 8, "{taken} for {ENTRIES}");
}
