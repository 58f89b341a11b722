//! The ring of events: the cost of recording one, including its share of draining.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use std::hint::black_box;

use cortado::__internals::primitives::striped::{CAPACITY, Push, Stripes};

fn ring(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("ring");
    group.throughput(Throughput::Elements(1));
    let stripes = Stripes::new(8);
    let mut event = 0;
    group.bench_function("push", |bencher| {
        bencher.iter(|| {
            event += 1;
            let ring = stripes.current();
            if ring.push(event) == Push::Full {
                ring.drain(|events| _ = black_box(events));
            }
        });
    });
    group.throughput(Throughput::Elements(CAPACITY as u64));
    group.bench_function("seal and drain", |bencher| {
        let ring = stripes.stripe(0);
        bencher.iter(|| {
            for event in 1..CAPACITY as u64 {
                let _ = ring.push(event);
            }
            ring.try_seal_and_drain(|events| _ = black_box(events))
        });
    });
    group.finish();
}

criterion_group!(benches, ring);
criterion_main!(benches);
