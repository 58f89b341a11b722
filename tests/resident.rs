//! The memory that a cache returns to the system when it is cleared. A process of its own, because
//! the resident memory of the process is measured.

use cortado::{Cache, Maintenance};

/// Returns the resident memory of this process in bytes, where the system reports it.
fn resident() -> Option<i64> {
    let statm = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: i64 = statm.split(' ').nth(1)?.parse().ok()?;
    Some(pages * 4096)
}

#[test]
fn memory_of_the_process_goes_back_when_a_cache_is_cleared() {
    let cache = Cache::builder().max_cost(1 << 30).maintenance(Maintenance::Manual).timed(true);
    let cache = cache.build().unwrap();
    // The first round allocates what the process keeps.
    let mut after = Vec::new();
    for round in 0..3 {
        let Some(before) = resident() else { return };
        for key in 0..100_000u64 {
            cache.insert_with_ttl(key, [key; 32], std::time::Duration::from_secs(9 + key));
        }
        let full = resident().unwrap_or(0) - before;
        assert!(full > 100_000 * 256, "{full}");
        cache.clear();
        // Memory held by the collector is freed a little later.
        for _ in 0..100 {
            cache.flush();
        }
        // The sketch remains, with its frequencies.
        let sketch = if round == 0 { cache.memory().sketch as i64 } else { 0 };
        let kept = resident().unwrap_or(0) - before - sketch;
        println!("{kept} bytes kept of {full}, {:?}", cache.memory());
        after.push(resident().unwrap_or(0));
        // The allocator keeps some memory, and there are lists of free cells.
        assert!(kept < full / 3, "{kept} bytes kept of {full}");
    }
    assert!(after[2] - after[1] < 1 << 20, "each time there is more: {after:?}");
}
