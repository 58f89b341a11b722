//! What a hit and an insert take from the allocator: promise 1 of the crate's documentation.

#![allow(unsafe_code)] // the allocator

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
    hint::black_box,
    sync::Mutex,
};

use cortado::Cache;

/// Counts the allocations of each thread for itself, so that the cache's own thread does not show.
struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

// SAFETY: every call is handed to the system's allocator as it came; the counter is a plain cell of
// the calling thread and allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let _ = ALLOCATIONS.try_with(|count| count.set(count.get() + 1));
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        let _ = ALLOCATIONS.try_with(|count| count.set(count.get() + 1));
        // SAFETY: the caller's promise.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
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

fn filled() -> Cache<u64, u64> {
    let cache = Cache::new(2 * ENTRIES);
    for key in 0..ENTRIES {
        let _ = cache.insert(key, key);
    }
    cache
}

#[test]
fn a_hit_allocates_nothing() {
    let _alone = ALONE.lock();
    let cache = filled();
    let keys: Vec<u64> = (0..ENTRIES).collect();
    cache.flush();
    cache.get(&0);
    let taken = allocations(|| {
        for key in &keys {
            black_box(cache.get(key).as_deref());
            black_box(cache.peek(key).as_deref());
        }
        let pinned = cache.pin();
        for key in &keys {
            black_box(pinned.get(key));
        }
        drop(pinned);
        cache.get_many(&keys, |_, value| _ = black_box(value));
    });
    assert_eq!(taken, 0);
}

#[test]
fn a_new_entry_allocates_once() {
    let _alone = ALONE.lock();
    let cache = filled();
    let before = cache.len();
    let taken = allocations(|| {
        for key in ENTRIES..ENTRIES + 1000 {
            let _ = black_box(cache.insert(key, key));
        }
    });
    // A newcomer to a full bucket sends an entry to limbo, and limbo makes a batch now and then.
    let displaced = 1000 - (cache.len() - before) as u64;
    let spare = if cfg!(feature = "seize") { 48 } else { 8 };
    assert!(
        (1000..=1000 + displaced + spare).contains(&taken),
        "{taken} for 1000, {displaced} out"
    );
}

#[test]
fn an_entry_of_a_full_cache_allocates_little_more_than_once() {
    let _alone = ALONE.lock();
    let cache = Cache::builder().max_cost(1000).build_manual().unwrap();
    for key in 0..20_000u64 {
        let _ = cache.insert(key, key);
    }
    let taken = allocations(|| {
        for key in 20_000..40_000u64 {
            let _ = black_box(cache.insert(key, key));
        }
    });
    println!("{taken} allocations for 20000 inserts that evict");
    // For each batch of 64 that is retired, crossbeam-epoch makes a bag, and limbo perhaps a handle;
    // seize is given a batch of its own to fill.
    let a_batch = if cfg!(feature = "seize") { 48 } else { 4 };
    assert!(taken <= 20_000 + 20_000 / 64 * a_batch, "{taken} for 20000");
}
