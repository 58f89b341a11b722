//! The table alone: no budget, no policy, nothing recorded.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use std::{hint::black_box, ops::ControlFlow};

use cortado::__internals::{
    reclaim::{Guard, limbo::Unlinked, pin},
    table::{Host, LANES, Table, Upsert},
    util::Rng,
};

/// A host whose entries are their own hashes, and which keeps the residents of a full bucket.
struct Plain;

impl Host<u64> for Plain {
    fn hash(&self, entry: &u64) -> u64 {
        *entry
    }

    fn is_crowded(&self, _: usize) -> bool {
        false
    }

    fn choose_leaver(&self, _: &[Option<&u64>; LANES], _: &u64) -> Option<usize> {
        None
    }

    fn displaced(&self, _: &Guard, _: Unlinked<u64>) {
        unreachable!("nobody is chosen to leave");
    }
}

/// Inserts or replaces.
fn set(table: &Table<u64>, guard: &Guard, hash: u64) {
    let mut desk = table.desk(0);
    let entry = desk.make(hash);
    let same = |one: &u64, other: &u64| one == other;
    if let Upsert::Replaced { old, .. } =
        table.upsert(guard, hash, entry, &Plain, same, |_, _| true)
    {
        let _ = table.retire_at(&mut desk, guard, old, 1, u64::MAX);
    }
}

fn table(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("table");
    for entries in [1_000, 1_000_000] {
        let table = Table::new(entries, 1).unwrap();
        let mut rng = Rng::new(1);
        let hashes: Vec<u64> = (0..entries).map(|_| rng.next_u64()).collect();
        hashes.iter().for_each(|&hash| set(&table, &pin(), hash));
        let mut next = 0;
        let mut hash = || {
            next = (next + 1) % hashes.len();
            hashes[next]
        };

        group.throughput(Throughput::Elements(1));
        group.bench_function(BenchmarkId::new("find", entries), |bencher| {
            let guard = pin();
            bencher.iter(|| {
                let hash = hash();
                black_box(table.find(&guard, hash, |entry| *entry == hash))
            });
        });
        group.bench_function(BenchmarkId::new("replace", entries), |bencher| {
            bencher.iter(|| {
                set(&table, &pin(), hash());
                table.sweep(512).freed
            });
        });
        group.bench_function(BenchmarkId::new("remove and insert", entries), |bencher| {
            bencher.iter(|| {
                let (guard, hash) = (pin(), hash());
                if let Some(entry) = table.remove(&guard, hash, &Plain, |entry| *entry == hash) {
                    let _ = table.retire(&guard, entry, 1, 0);
                }
                set(&table, &guard, hash);
                drop(guard);
                table.sweep(512).freed
            });
        });
        group.bench_function(BenchmarkId::new("sample of 8", entries), |bencher| {
            let guard = pin();
            bencher.iter(|| {
                let mut left = 8;
                table.sample(&guard, hash(), 18, |sampled| {
                    black_box(sampled.entry);
                    left -= 1;
                    if left > 0 { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
                });
            });
        });
        group.throughput(Throughput::Elements(16));
        group.bench_function(BenchmarkId::new("find 16 at once", entries), |bencher| {
            let guard = pin();
            bencher.iter(|| {
                let wanted: [u64; 16] = std::array::from_fn(|_| hash());
                let mut found = 0;
                table.find_many(
                    &guard,
                    &wanted,
                    |index, entry| *entry == wanted[index],
                    |_, entry| found += usize::from(entry.is_some()),
                );
                found
            });
        });
    }
    group.finish();
}

criterion_group!(benches, table);
criterion_main!(benches);
