//! The public API in one thread, with entries in the CPU caches and beyond them. `cortado-replay`
//! compares with other caches, with several threads, and measures latencies.

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use std::hint::black_box;

use cortado::{Cache, Maintenance};

/// A cache with a fifth of its budget free.
fn filled(entries: u64) -> Cache<u64, u64> {
    let cache = Cache::builder().max_cost(entries * 5 / 4).maintenance(Maintenance::Manual);
    let cache = cache.build().expect("a budget above zero");
    (0..entries).for_each(|key| _ = cache.insert(key, key));
    cache
}

/// Visits all keys in an order that no prefetcher predicts.
fn scattered(entries: u64) -> impl FnMut() -> u64 {
    let mut at = 0;
    move || {
        at = (at + 0x9e37_79b9 % entries) % entries;
        at
    }
}

fn throughput(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("cache");
    for entries in [1_000, 1_000_000] {
        let cache = filled(entries);
        let mut key = scattered(entries);
        group.throughput(Throughput::Elements(1));
        group.bench_function(BenchmarkId::new("get", entries), |bencher| {
            bencher.iter(|| black_box(cache.get(&key()).map(|value| *value)));
        });
        group.bench_function(BenchmarkId::new("get under one pin", entries), |bencher| {
            let pinned = cache.pin();
            bencher.iter(|| black_box(pinned.get(&key()).copied()));
        });
        group.bench_function(BenchmarkId::new("get of a miss", entries), |bencher| {
            bencher.iter(|| black_box(cache.get(&(entries + key())).is_none()));
        });
        group.bench_function(BenchmarkId::new("update", entries), |bencher| {
            bencher.iter(|| black_box(cache.insert(key(), 0)));
        });
        group.throughput(Throughput::Elements(16));
        group.bench_function(BenchmarkId::new("get_many of 16", entries), |bencher| {
            bencher.iter_batched(
                || std::array::from_fn::<u64, 16, _>(|_| key()),
                |keys| cache.get_many(&keys, |_, value| _ = black_box(value)),
                BatchSize::SmallInput,
            );
        });
        let cache = filled(entries);
        let mut new = entries;
        group.throughput(Throughput::Elements(1));
        group.bench_function(BenchmarkId::new("insert that evicts", entries), |bencher| {
            bencher.iter(|| {
                new += 1;
                black_box(cache.insert(new, 0))
            });
        });
    }
    group.finish();
}

criterion_group!(benches, throughput);
criterion_main!(benches);
