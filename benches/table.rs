//! The table alone: no budget, no policy, no recording of accesses.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use std::{hint::black_box, ops::ControlFlow};

use cortado::__internals::{
    reclaim::Guard,
    table::{Hints, Probe, Publish, Ranking, Table, Terms, Unlinked, buckets_for},
    util::Rng,
};

fn displaced(_: Unlinked) {
    unreachable!("the table is not resized");
}

/// Inserts or replaces; skips an entry that finds no slot.
fn set(table: &Table<u64>, guard: &Guard, hash: u64) {
    let mut fresh = table.prepare(hash, hash, 0).expect("memory");
    let mut claim = fresh.claim_slot(guard);
    loop {
        match table.probe(guard, hash, |entry| *entry == hash, displaced) {
            Probe::Found(there) => {
                if let Some((_, old)) = there.replace(&mut claim) {
                    table.retire(guard, old, Terms::NONE, 0);
                    return;
                }
            }
            Probe::Absent(vacant) => {
                let hints = Hints { access: 0, class: 1 };
                let published = vacant.publish(&mut claim, hints, |one, other| one == other);
                if !matches!(published, Publish::Changed) {
                    return;
                }
            }
        }
    }
}

fn sweep(table: &Table<u64>) -> usize {
    table.sweep(512, None).freed
}

fn table(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("table");
    for entries in [1_000, 1_000_000] {
        let table = Table::new(buckets_for(entries), entries, 1).expect("memory");
        let mut rng = Rng::new(1);
        let hashes: Vec<u64> = (0..entries).map(|_| rng.next_u64()).collect();
        hashes.iter().for_each(|&hash| set(&table, &table.pin(), hash));
        let mut next = 0;
        let mut hash = || {
            next = (next + 1) % hashes.len();
            hashes[next]
        };

        group.throughput(Throughput::Elements(1));
        group.bench_function(BenchmarkId::new("find", entries), |bencher| {
            let guard = table.pin();
            bencher.iter(|| {
                let hash = hash();
                black_box(table.find(&guard, hash, |entry| *entry == hash))
            });
        });
        group.bench_function(BenchmarkId::new("replace", entries), |bencher| {
            bencher.iter(|| {
                set(&table, &table.pin(), hash());
                sweep(&table)
            });
        });
        group.bench_function(BenchmarkId::new("remove and insert", entries), |bencher| {
            bencher.iter(|| {
                let (guard, hash) = (table.pin(), hash());
                let removed = table.remove(&guard, hash, |entry| *entry == hash, displaced);
                if let Some(entry) = removed {
                    table.retire(&guard, entry, Terms::NONE, 0);
                }
                set(&table, &guard, hash);
                drop(guard);
                sweep(&table)
            });
        });
        group.bench_function(BenchmarkId::new("rank 64", entries), |bencher| {
            let guard = table.pin();
            let ranking = Ranking { now: 9, flat: 16, shift: 3, mask: 255, first: 1, plain: 1 };
            let ranker = ranking.ranker();
            bencher.iter(|| {
                let mut seen = 0;
                table.run(&guard, (hash() >> 32) as u32, 40).look(|view| {
                    let scores = ranker.rank(view.hints());
                    seen += scores.count();
                    black_box(scores.above(1000));
                    if seen < 64 { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
                });
                seen
            });
        });
        group.throughput(Throughput::Elements(16));
        group.bench_function(BenchmarkId::new("find 16 at once", entries), |bencher| {
            let guard = table.pin();
            bencher.iter(|| {
                let wanted: [u64; 16] = std::array::from_fn(|_| hash());
                let mut found = 0;
                table.for_many(&guard, &wanted, |_, hash| {
                    found +=
                        usize::from(table.find(&guard, hash, |entry| *entry == hash).is_some());
                });
                found
            });
        });
    }
    group.finish();
}

criterion_group!(benches, table);
criterion_main!(benches);
