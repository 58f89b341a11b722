//! The slab: the cost of a cell, compared with a block of the global allocator.

use criterion::{Criterion, criterion_group, criterion_main};
use std::{collections::VecDeque, hint::black_box};

use cortado::__internals::slab::{Bags, Retired, Slab};

/// The number of live values. The oldest is freed for each new one.
const LIVE: u64 = 50_000;

type Value = [u64; 2];

#[allow(unsafe_code)]
fn slab(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("slab");
    group.bench_function("a box", |bencher| {
        let mut boxes: VecDeque<Box<Value>> = (0..LIVE).map(|n| Box::new([n; 2])).collect();
        bencher.iter(|| {
            boxes.push_back(Box::new(black_box([1; 2])));
            boxes.pop_front()
        });
    });
    let slab = Slab::<Value>::new(2 * LIVE as usize, 4);
    let make = |n| {
        let handle = slab.allocate(0).expect("memory");
        // SAFETY: allocated above.
        unsafe { slab.write(handle, [n; 2]) };
        handle
    };
    let mut handles: VecDeque<_> = (0..LIVE).map(make).collect();
    group.bench_function("a cell, released", |bencher| {
        bencher.iter(|| {
            handles.push_back(make(black_box(1)));
            // SAFETY: allocated above; numbers need no drop.
            unsafe { slab.release(handles.pop_front().expect("many"), 0) };
        });
    });
    group.bench_function("a cell, put into a bag", |bencher| {
        let sealed = Bags::new(1);
        bencher.iter(|| {
            handles.push_back(make(black_box(1)));
            // SAFETY: allocated above, and retired once.
            if unsafe {
                slab.collect(
                    Retired::empty(handles.pop_front().expect("many")),
                    u64::MAX,
                    0,
                    &sealed,
                )
            } {
                // SAFETY: numbers need no drop, and no other thread uses the slab.
                unsafe { slab.take_bags(&sealed) }.for_each(drop);
            }
        });
    });
    group.finish();
}

criterion_group!(benches, slab);
criterion_main!(benches);
