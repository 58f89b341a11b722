//! What a hit and an insert take from the allocator: promise 1 of the crate's documentation.

#![allow(unsafe_code)] // the allocator

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
    hint::black_box,
    sync::Mutex,
};

use cortado::{Cache, Maintenance};

/// Counts the allocations of each thread for itself, so that the cache's own thread does not show.
struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
    /// Bytes that this thread has taken, less those that it has given back.
    static BYTES: Cell<i64> = const { Cell::new(0) };
}

fn count(allocations: u64, bytes: i64) {
    let _ = ALLOCATIONS.try_with(|count| count.set(count.get() + allocations));
    let _ = BYTES.try_with(|sum| sum.set(sum.get() + bytes));
}

// SAFETY: every call is handed to the system's allocator as it came; the counter is a plain cell of
// the calling thread and allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(1, layout.size() as i64);
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(1, layout.size() as i64);
        // SAFETY: the caller's promise.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        count(0, -(layout.size() as i64));
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(block, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Keeps the tests apart: the collector is one for all caches, and now and then a pin helps it along
/// with what others have retired.
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
        let _ = cache.insert(key, key);
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
        // Warm up: this thread's place in the collector, its rings.
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
fn a_new_entry_allocates_once() {
    let _alone = ALONE.lock();
    for maintenance in [Maintenance::Thread, Maintenance::Manual] {
        let cache = filled(maintenance);
        let before = cache.metrics();
        let mut at_most_once = 0;
        let mut all = 0;
        for key in ENTRIES..2 * ENTRIES {
            let taken = allocations(|| _ = black_box(cache.insert(key, key)));
            // None where a full bucket's entry left its memory.
            at_most_once += u64::from(taken <= 1);
            all += taken;
        }
        let seen = cache.metrics() - before;
        println!("{maintenance:?}: {all} for {ENTRIES}, {} of full buckets", seen.local_evictions);
        assert_eq!(seen.inserts, ENTRIES);
        // What is beyond: the window's queue doubles twice. A full ring of newcomers that finds the
        // maintainer away is queued (two allocations). A newcomer to a full bucket sends an entry to
        // limbo, which makes and seals a batch now and then.
        let batches = seen.local_evictions / 64 + 1;
        let rings = if maintenance == Maintenance::Thread { ENTRIES / 32 } else { 0 };
        assert!(all + seen.local_evictions >= ENTRIES, "{all} for {ENTRIES}");
        assert!(all <= ENTRIES + 4 + 6 * batches + 2 * rings, "{all} for {ENTRIES}");
        assert!(
            at_most_once >= ENTRIES - 4 - 2 * batches - rings,
            "{at_most_once} of {ENTRIES} took one"
        );
    }
}

#[test]
fn an_entry_of_a_full_cache_takes_the_memory_of_an_earlier_one() {
    let _alone = ALONE.lock();
    for maintenance in [Maintenance::Thread, Maintenance::Manual] {
        let cache = Cache::builder().max_cost(1000).maintenance(maintenance).metrics(true);
        let cache = cache.build().unwrap();
        for key in 0..20_000u64 {
            let _ = cache.insert(key, key);
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
        // For each batch of garbage that is retired the collector makes a bag, limbo a grace period
        // and the stock a few packs. An insert that is rejected gives its memory to the allocator.
        // A quarter of what it would be without the stock leaves room for all that.
        assert!(taken < 20_000 / 4 + seen.rejected_cold, "{taken} for 20000");
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
        assert!(taken < 20_000 / 4, "{taken} for 20000");
    }
}

#[test]
fn a_removal_allocates_for_every_batch_only() {
    let _alone = ALONE.lock();
    let cache = filled(Maintenance::Manual);
    let taken = allocations(|| (0..ENTRIES).for_each(|key| drop(cache.remove(&key))));
    println!("{taken} for {ENTRIES} removals");
    assert!(taken <= ENTRIES / 64 * 5 + 8, "{taken} for {ENTRIES}");
}

#[test]
fn memory_of_the_process_goes_back_when_a_cache_is_cleared() {
    let _alone = ALONE.lock();
    let cache = Cache::builder().max_cost(1 << 30).maintenance(Maintenance::Manual).timed(true);
    let cache = cache.build().unwrap();
    let mut after = Vec::new();
    for _ in 0..3 {
        let before = BYTES.get();
        for key in 0..100_000u64 {
            let _ = cache.insert_with_ttl(key, [key; 32], std::time::Duration::from_secs(9 + key));
        }
        assert!(BYTES.get() - before > 100_000 * 256);
        cache.clear();
        // Memory that the collector keeps goes a little later.
        for _ in 0..100 {
            cache.flush();
        }
        // The sketch stays: frequencies stay known.
        let kept = BYTES.get() - before - cache.memory().sketch as i64;
        println!("{kept} bytes kept, {:?}", cache.memory());
        after.push(BYTES.get());
        assert!(kept < 1 << 20, "{kept} bytes kept");
    }
    assert!(after[2] - after[1] < 1 << 16, "each time there is more: {after:?}");
}
