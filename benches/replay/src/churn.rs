//! `churn`: inserts of new keys without end, in search of drift and pauses.

use std::marker::PhantomData;
use std::sync::Barrier;
use std::time::{Duration, Instant};

use anyhow::Result;
use clap::Args;
use serde::Serialize;

use crate::cli;
use crate::histogram::Histogram;
use crate::peers::{Build, Heap, Hundred, Kind, Peer, Settings, Task, Value};
use crate::progress::{Progress, Unit};
use crate::report::{self, Better, Format, Table};
use crate::threads;
use crate::throughput::unique;
use crate::workload::Fresh;

/// Tenths to compare.
const TENTHS: usize = 10;
/// Marks in time that a thread sets on its way.
const MARKS: u64 = 1000;

/// Inserts of distinct keys: the speed of each tenth of the way, and the worst pause.
///
/// It begins with an empty cache and times every insert by itself; the clock's reading is part of
/// the figures. A cache that takes too long is stopped, and its tenths are those of what it did.
#[derive(Args, Debug)]
pub struct ChurnArgs {
    /// The number of inserts of all threads together.
    #[arg(long, default_value = "50000000", value_parser = cli::entries)]
    inserts: usize,
    /// The number of entries a cache may hold.
    #[arg(long, default_value = "100000", value_parser = cli::capacity)]
    capacity: usize,
    /// The size of a value: 8 and 100 are stored inline, other sizes shared on the heap.
    #[arg(long, default_value = "8", value_parser = cli::value_bytes)]
    value_bytes: usize,
    /// The numbers of threads.
    #[arg(long, value_delimiter = ',', default_value = "1", value_parser = cli::threads)]
    threads: Vec<usize>,
    /// The caches.
    #[arg(long, value_delimiter = ',', default_values_t = bounded())]
    cache: Vec<cli::Name>,
    /// Stop a cache after so many seconds all the same.
    #[arg(long, default_value = "60", value_parser = cli::seconds)]
    limit_seconds: f64,
    /// Where random choices begin.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How to print.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

fn bounded() -> Vec<cli::Name> {
    Kind::SPEED.into_iter().filter(|kind| kind.is_bounded()).map(cli::Name).collect()
}

#[derive(Serialize)]
struct Row {
    cache: Kind,
    threads: usize,
    inserts: u64,
    mops: f64,
    mops_tenth_1: f64,
    mops_tenth_2: f64,
    mops_tenth_3: f64,
    mops_tenth_4: f64,
    mops_tenth_5: f64,
    mops_tenth_6: f64,
    mops_tenth_7: f64,
    mops_tenth_8: f64,
    mops_tenth_9: f64,
    mops_tenth_10: f64,
    last_by_first: f64,
    p99_9_ns: u64,
    worst_ns: u64,
}

/// Measures and prints.
pub fn run(args: &ChurnArgs) -> Result<()> {
    let kinds = cli::kinds(&args.cache, false)?;
    let threads = unique(&args.threads);
    let bar = Progress::new((kinds.len() * threads.len()) as u64, Unit::Runs);
    let mut rows = Vec::new();
    let mut tenths = Vec::new();
    for kind in kinds {
        for &threads in &threads {
            bar.step(format!("{}, {threads} threads", kind.name()));
            let done = match args.value_bytes {
                8 => kind.dispatch::<u64, _, _>(Churn::new(args, threads))?,
                100 => kind.dispatch::<Hundred, _, _>(Churn::new(args, threads))?,
                _ => kind.dispatch::<Heap, _, _>(Churn::new(args, threads))?,
            };
            let [t1, t2, t3, t4, t5, t6, t7, t8, t9, t10] = done.tenths.map(|rate| rate / 1e6);
            tenths.push([t1, t2, t3, t4, t5, t6, t7, t8, t9, t10]);
            rows.push(Row {
                cache: kind,
                threads,
                inserts: done.inserts,
                mops: done.rate / 1e6,
                mops_tenth_1: t1,
                mops_tenth_2: t2,
                mops_tenth_3: t3,
                mops_tenth_4: t4,
                mops_tenth_5: t5,
                mops_tenth_6: t6,
                mops_tenth_7: t7,
                mops_tenth_8: t8,
                mops_tenth_9: t9,
                mops_tenth_10: t10,
                last_by_first: t10 / t1,
                p99_9_ns: done.times.quantile(0.999),
                worst_ns: done.times.worst(),
            });
            bar.inc(1);
        }
    }
    bar.finish();
    let text = report::render(args.format, &rows, || {
        let head = [
            "cache",
            "threads",
            "inserts",
            "Mops/s",
            "each tenth",
            "last/first",
            "p99.9",
            "worst pause",
        ];
        let mut table = Table::new(head);
        for (row, tenths) in rows.iter().zip(&tenths) {
            let cells = vec![
                row.cache.name().to_owned(),
                row.threads.to_string(),
                report::grouped(row.inserts),
                report::millions(row.mops * 1e6),
                tenths.map(|mops| report::millions(mops * 1e6)).join(" "),
                format!("{:.2}", row.last_by_first),
                report::nanos(row.p99_9_ns),
                report::nanos(row.worst_ns),
            ];
            table.rows.push(report::Row::of(row.cache, cells));
        }
        for &threads in &threads {
            let places: Vec<usize> =
                (0..rows.len()).filter(|&i| rows[i].threads == threads).collect();
            let mut mark = |column, better, figure: fn(&Row) -> f64| {
                let figures: Vec<_> = places.iter().map(|&i| Some(figure(&rows[i]))).collect();
                table.mark(column, better, &places, &figures);
            };
            mark(3, Better::Higher, |row| row.mops);
            mark(6, Better::Lower, |row| row.p99_9_ns as f64);
            mark(7, Better::Lower, |row| row.worst_ns as f64);
        }
        table.draw()
            + &format!(
                "capacity {}, {}-byte values, seed {}. The first tenth includes the fill. A pause \
                 may be the system's, too: compare.\n{}\n",
                report::grouped(args.capacity as u64),
                args.value_bytes,
                args.seed,
                report::machine()
            )
    })?;
    report::print(&text)
}

struct Done {
    inserts: u64,
    rate: f64,
    tenths: [f64; TENTHS],
    times: Histogram,
}

impl Done {
    /// Adds up what the threads did.
    fn of(ways: &[Way]) -> Self {
        let mut done =
            Self { inserts: 0, rate: 0.0, tenths: [0.0; TENTHS], times: Histogram::new() };
        for way in ways {
            done.inserts += way.inserts;
            done.rate += way.rate(0, way.marks.len() - 1);
            for (i, tenth) in done.tenths.iter_mut().enumerate() {
                *tenth += way.tenth(i);
            }
            done.times.merge(&way.times);
        }
        done
    }
}

struct Churn<'a, V> {
    args: &'a ChurnArgs,
    threads: usize,
    value: PhantomData<V>,
}

impl<'a, V> Churn<'a, V> {
    fn new(args: &'a ChurnArgs, threads: usize) -> Self {
        Self { args, threads, value: PhantomData }
    }
}

impl<V: Value> Task<V> for Churn<'_, V> {
    type Output = Result<Done>;

    fn run<P: Peer<V>>(self, build: Build<P>) -> Result<Done> {
        let Self { args, threads, .. } = self;
        let peer = build(&Settings::for_entries(args.capacity, args.seed))?;
        let share = (args.inserts / threads).max(1) as u64;
        let every = (share / MARKS).max(1);
        let limit = Duration::from_secs_f64(args.limit_seconds);
        let barrier = Barrier::new(threads);
        let ways = threads::run(threads, &|_| {
            barrier.wait();
            walk::<V, P>(&peer, share, every, limit, args.value_bytes)
        });
        Ok(Done::of(&ways))
    }
}

/// What one thread did.
struct Way {
    inserts: u64,
    /// Inserts done and time passed, from the start to the end.
    marks: Vec<(u64, Duration)>,
    times: Histogram,
}

impl Way {
    /// Returns the inserts a second between two marks.
    fn rate(&self, from: usize, to: usize) -> f64 {
        let ((before, begin), (after, end)) = (self.marks[from], self.marks[to]);
        (after - before) as f64 / (end - begin).as_secs_f64().max(1e-9)
    }

    /// Returns the inserts a second in one tenth of the way.
    fn tenth(&self, i: usize) -> f64 {
        let last = self.marks.len() - 1;
        self.rate(last * i / TENTHS, (last * (i + 1) / TENTHS).max(1))
    }
}

fn walk<V: Value, P: Peer<V>>(
    peer: &P,
    share: u64,
    every: u64,
    limit: Duration,
    value_bytes: usize,
) -> Way {
    let fresh = Fresh::new();
    let mut times = Histogram::new();
    let mut marks = vec![(0, Duration::ZERO)];
    let begin = Instant::now();
    let mut before = begin;
    let mut inserts = 0;
    while inserts < share {
        let key = fresh.key(inserts);
        peer.insert(key, V::make(key, value_bytes));
        inserts += 1;
        let now = Instant::now();
        times.record(now - before);
        before = now;
        if inserts % every == 0 || inserts == share {
            marks.push((inserts, now - begin));
        }
        if inserts % 16 == 0 && now - begin > limit {
            break;
        }
    }
    if marks.last().is_some_and(|&(marked, _)| marked < inserts) {
        marks.push((inserts, before - begin));
    }
    Way { inserts, marks, times }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tenths_are_rates_of_their_own() {
        // Each hundredth takes a second in the first half and two in the second.
        let mut marks = vec![(0, Duration::ZERO)];
        let mut at = 0;
        for i in 1..=100 {
            at += if i <= 50 { 1 } else { 2 };
            marks.push((i * 10, Duration::from_secs(at)));
        }
        let way = Way { inserts: 1000, marks, times: Histogram::new() };
        assert!((way.tenth(0) - 10.0).abs() < 1e-9);
        assert!((way.tenth(9) - 5.0).abs() < 1e-9);
        assert!((way.rate(0, 100) - 1000.0 / 150.0).abs() < 1e-9);
    }

    #[test]
    fn few_inserts_still_have_tenths() {
        let marks = vec![(0, Duration::ZERO), (3, Duration::from_secs(1))];
        let way = Way { inserts: 3, marks, times: Histogram::new() };
        assert!(way.tenth(9) > 0.0);
    }
}
