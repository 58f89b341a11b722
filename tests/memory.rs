//! Allocation failures: a cache is built or not and grows or not, but never aborts the process.

#![allow(unsafe_code)] // the allocator

use std::{
    alloc::{GlobalAlloc, Layout, System},
    ptr,
    sync::{
        Mutex, MutexGuard,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
};

use cortado::{BuildError, Cache, CacheBuilder, Maintenance, WorkLimit};

/// An allocator that refuses sizes above a limit, and counts the refusals.
struct Refusing;

/// The largest size granted to zeroed allocations, such as a table's array.
static MAX_ZEROED: AtomicUsize = AtomicUsize::new(usize::MAX);
/// The largest size granted to other allocations, such as a sketch's level.
static MAX_PLAIN: AtomicUsize = AtomicUsize::new(usize::MAX);
static REFUSED: AtomicUsize = AtomicUsize::new(0);

fn is_refused(bytes: usize, limit: &AtomicUsize) -> bool {
    let is_refused = bytes > limit.load(SeqCst);
    if is_refused {
        REFUSED.fetch_add(1, SeqCst);
    }
    is_refused
}

// SAFETY: every call is passed on to the system's allocator unchanged or answered with null, which
// signals that there is no memory. The statics are plain atomics and allocate nothing.
unsafe impl GlobalAlloc for Refusing {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if is_refused(layout.size(), &MAX_PLAIN) {
            return ptr::null_mut();
        }
        // SAFETY: the caller upholds the contract of the allocator.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if is_refused(layout.size(), &MAX_ZEROED) {
            return ptr::null_mut();
        }
        // SAFETY: the caller upholds the contract of the allocator.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: the caller upholds the contract of the allocator.
        unsafe { System.dealloc(block, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Refusing = Refusing;

/// The limits during one test, reset when dropped.
struct Limits(#[expect(dead_code, reason = "keeps the tests apart")] MutexGuard<'static, ()>);

impl Limits {
    fn begin() -> Self {
        static ALONE: Mutex<()> = Mutex::new(());
        let alone = ALONE.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        REFUSED.store(0, SeqCst);
        Self(alone)
    }

    fn set(&self, zeroed: usize, plain: usize) {
        MAX_ZEROED.store(zeroed, SeqCst);
        MAX_PLAIN.store(plain, SeqCst);
    }
}

impl Drop for Limits {
    fn drop(&mut self) {
        self.set(usize::MAX, usize::MAX);
    }
}

const ANY: usize = usize::MAX;
const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;

fn builder(entries: usize) -> CacheBuilder<u64, u64> {
    Cache::builder().max_cost(1 << 40).expected_entries(entries).metrics(true)
}

#[test]
fn table_that_cannot_be_had_is_an_error_of_build() {
    let limits = Limits::begin();
    limits.set(MIB, ANY);
    let error = builder(1_000_000).build().unwrap_err();
    let BuildError::OutOfMemory { bytes } = error else { panic!("{error}") };
    // Twenty slots for nine entries, and eight slots in 64 bytes.
    assert!((17_000_000..18_000_000).contains(&bytes), "{bytes}");
    assert!(matches!(builder(1_000_000).build_manual(), Err(BuildError::OutOfMemory { .. })));
    limits.set(ANY, ANY);
    assert!(builder(1_000_000).build().is_ok());
}

#[test]
fn sketch_that_cannot_be_had_is_an_error_of_build() {
    let limits = Limits::begin();
    limits.set(ANY, MIB);
    let error = builder(1_000_000).build().unwrap_err();
    assert_eq!(error, BuildError::OutOfMemory { bytes: 16_000_000 });
}

#[test]
fn most_entries_that_may_be_expected_are_an_error_where_there_is_no_memory() {
    let limits = Limits::begin();
    limits.set(1 << 30, 1 << 30);
    let too_many = builder(usize::MAX).build().unwrap_err();
    let BuildError::TooManyEntries { limit, .. } = too_many else { panic!("{too_many}") };
    for entries in [limit, limit - 1, limit / 2] {
        let error = builder(entries).build().unwrap_err();
        assert!(matches!(error, BuildError::OutOfMemory { bytes } if bytes > entries), "{error}");
    }
}

#[test]
fn table_that_cannot_grow_evicts_from_its_full_buckets_and_grows_later() {
    const ENTRIES: u64 = 50_000;
    let limits = Limits::begin();
    for maintenance in [Maintenance::Manual, Maintenance::Thread] {
        let cache = builder(1000).maintenance(maintenance).build().unwrap();
        limits.set(64 * KIB, ANY);
        for key in 0..ENTRIES {
            assert!(cache.insert(key, key).is_in());
            assert_eq!(cache.get_cloned(&key), Some(key));
        }
        let memory = cache.memory();
        assert!(memory.table <= 64 * KIB, "{memory:?}");
        let slots = (memory.table / 64 * 8) as u64;
        assert!((slots / 2..=slots).contains(&(cache.len() as u64)), "{} of {slots}", cache.len());
        assert!(cache.metrics().local_evictions >= ENTRIES - slots);
        // One try in 256 requests to grow, which a fraction of the inserts make.
        let refused = REFUSED.swap(0, SeqCst);
        assert!((1..ENTRIES as usize / 128).contains(&refused), "{refused} tries");

        limits.set(ANY, ANY);
        for key in 0..ENTRIES {
            assert!(cache.insert(key, key).is_in());
        }
        cache.flush();
        assert!(cache.memory().table > MIB, "{:?}", cache.memory());
        assert!(cache.len() as u64 > ENTRIES * 9 / 10, "{}", cache.len());
    }
}

#[test]
fn pinned_entries_of_one_bucket_are_rejected_where_the_table_cannot_grow() {
    use cortado::{Insert, InsertOptions, Priority, RejectReason};
    use std::hash::{BuildHasherDefault, Hasher};

    /// A hasher that gives all keys one hash.
    #[derive(Default)]
    struct One;
    impl Hasher for One {
        fn finish(&self) -> u64 {
            7
        }
        fn write(&mut self, _: &[u8]) {}
    }

    let limits = Limits::begin();
    let cache = builder(0).hasher(BuildHasherDefault::<One>::default()).build_manual().unwrap();
    limits.set(0, ANY);
    let pinned = InsertOptions::new().priority(Priority::Pinned);
    for key in 0..8 {
        assert!(cache.insert_with(key, key, pinned).is_in());
    }
    assert_eq!(cache.insert(8, 8), Insert::Rejected(8, RejectReason::Kept));
    assert_eq!((cache.len(), cache.cost()), (8, 8));
}

#[test]
fn sketch_that_cannot_grow_stays_and_grows_later() {
    let limits = Limits::begin();
    let cache = builder(20_000).build_manual().unwrap();
    let before = cache.memory().sketch;
    // All other allocations are much smaller than the next level.
    limits.set(ANY, 2 * before - 1);
    for key in 0..22_000 {
        assert!(cache.insert(key, key).is_in());
    }
    for _ in 0..100 {
        cache.tick(WorkLimit::ALL);
    }
    assert_eq!(cache.memory().sketch, before);
    let refused = REFUSED.load(SeqCst);
    assert!((1..=3).contains(&refused), "{refused} tries in 100 rounds");
    limits.set(ANY, ANY);
    for _ in 0..100 {
        cache.tick(WorkLimit::ALL);
    }
    assert!(cache.memory().sketch > before);
}

#[test]
fn table_that_cannot_shrink_is_cleared_all_the_same() {
    let limits = Limits::begin();
    let cache = builder(0).build_manual().unwrap();
    for key in 0..10_000 {
        assert!(cache.insert(key, key).is_in());
    }
    cache.flush();
    let before = cache.memory().table;
    limits.set(0, ANY);
    cache.clear();
    assert_eq!((cache.len(), cache.memory().table), (0, before));
    cache.set_max_cost(10);
    assert_eq!(cache.memory().table, before);
    limits.set(ANY, ANY);
    cache.clear();
    assert!(cache.memory().table < before);
}
