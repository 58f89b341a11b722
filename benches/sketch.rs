//! The sketch: batches of increments and single estimates, with the counters in the CPU caches and
//! beyond them.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use std::hint::black_box;

use cortado::__internals::{primitives::striped::CAPACITY, sketch::Sketch, util::Rng};

fn sketch(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("sketch");
    for entries in [1_000, 1_000_000] {
        let sketch = Sketch::new(entries);
        let mut rng = Rng::new(1);
        let batches: Vec<[u64; CAPACITY]> =
            (0..4 * entries / CAPACITY).map(|_| std::array::from_fn(|_| rng.next_u64())).collect();
        let mut next = 0;
        group.throughput(Throughput::Elements(CAPACITY as u64));
        group.bench_function(BenchmarkId::new("increment a batch", entries), |bencher| {
            bencher.iter(|| {
                next = (next + 1) % batches.len();
                sketch.increment_batch(&batches[next])
            });
        });
        group.throughput(Throughput::Elements(1));
        group.bench_function(BenchmarkId::new("estimate", entries), |bencher| {
            bencher.iter(|| {
                next = (next + 1) % batches.len();
                black_box(sketch.estimate(batches[next][0]))
            });
        });
    }
    group.finish();
}

criterion_group!(benches, sketch);
criterion_main!(benches);
