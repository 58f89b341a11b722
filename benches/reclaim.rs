//! Reclamation: pinning, and grace periods.

use criterion::{Criterion, criterion_group, criterion_main};
use std::hint::black_box;

use cortado::__internals::reclaim::{Domain, Grace, pin};

fn reclaim(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("reclaim");
    group.bench_function("pin", |bencher| bencher.iter(|| drop(black_box(pin()))));
    group.bench_function("pin beside a pin", |bencher| {
        let _outer = pin();
        bencher.iter(|| drop(black_box(pin())));
    });
    group.bench_function("begin a grace period", |bencher| {
        bencher.iter(|| Grace::begin(Domain::ANY))
    });
    group.finish();
}

criterion_group!(benches, reclaim);
criterion_main!(benches);
