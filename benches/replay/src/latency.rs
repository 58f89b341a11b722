//! `latency`: how long single operations take, and the worst of them.

use std::time::Duration;

use anyhow::Result;
use clap::Args;
use serde::Serialize;

use crate::drive;
use crate::peers::Kind;
use crate::plot::{self, Axis, Curve, Panel, Scale, Unit as Numbers};
use crate::progress::{Progress, Unit};
use crate::report::{self, Better, Spread, Table};
use crate::rounds::{Cell, Operations, Rounds};
use crate::throughput::{MAX_WARM_UP, WorkArgs};

/// How long single operations take.
///
/// Every fourth operation is timed by itself; the clock's own reading is part of the figure. In
/// `read-through`, a get that misses is timed with the insert that follows.
#[derive(Args, Debug)]
pub struct LatencyArgs {
    #[command(flatten)]
    work: WorkArgs,
}

#[derive(Serialize)]
struct Row {
    cache: Kind,
    threads: usize,
    operation: &'static str,
    samples: u64,
    p50_ns: u64,
    p90_ns: u64,
    p99_ns: u64,
    p99_9_ns: u64,
    p99_99_ns: u64,
    worst_ns: u64,
}

/// The percentiles of a table, as fractions.
pub const PERCENTILES: [f64; 5] = [0.5, 0.9, 0.99, 0.999, 0.9999];
/// How far a curve goes: as many nines.
const MAX_NINES: f64 = 6.0;
/// Points of a curve for each nine.
const POINTS_PER_NINE: f64 = 8.0;

/// Measures, prints and draws.
pub fn run(args: &LatencyArgs) -> Result<()> {
    let work = &args.work;
    let kinds = work.kinds()?;
    work.prepare()?;
    let threads = work.threads();
    let bar = Progress::new((kinds.len() * work.rounds()) as u64, Unit::Runs);
    let cells = Rounds {
        kinds: &kinds,
        plan: &work.plan(),
        threads: &threads,
        rounds: work.rounds(),
        warm_up: (work.time() / 3).min(MAX_WARM_UP),
        speed: Duration::ZERO,
        latency: work.time(),
        batch: 1,
    }
    .run(&bar)?;
    bar.finish();
    let mut rows = Vec::new();
    for cell in &cells {
        let latency = cell.latency();
        for (operation, times) in [("get", &latency.gets), ("insert", &latency.inserts)] {
            if times.count() > 0 {
                rows.push(Row {
                    cache: cell.kind,
                    threads: cell.threads,
                    operation,
                    samples: times.count(),
                    p50_ns: times.quantile(0.5),
                    p90_ns: times.quantile(0.9),
                    p99_ns: times.quantile(0.99),
                    p99_9_ns: times.quantile(0.999),
                    p99_99_ns: times.quantile(0.9999),
                    worst_ns: times.worst(),
                });
            }
        }
    }
    if let Some(file) = work.plot() {
        plot::draw(file, &panels(&cells, &threads))?;
    }
    let scarce = rows.iter().filter(|row| !report::is_enough(row.samples, 0.9999)).count();
    if scarce > 0 {
        report::warn(&format!(
            "in {scarce} of {} rows p99.99 rests on fewer than 10 operations: take --seconds longer",
            rows.len()
        ));
    }
    let text = report::render(work.format, &rows, || {
        let head =
            ["cache", "threads", "operation", "p50", "p90", "p99", "p99.9", "p99.99", "worst"];
        table(&head, &rows).draw()
            + &work.describe()
            + &format!(
                "All rounds together. One reading of the clock takes {} ns here and is part of \
                 each figure.\n",
                drive::clock_cost().as_nanos()
            )
    })?;
    report::print(&text)
}

fn table(head: &[&str], rows: &[Row]) -> Table {
    let mut table = Table::new(head);
    let times =
        |row: &Row| [row.p50_ns, row.p90_ns, row.p99_ns, row.p99_9_ns, row.p99_99_ns, row.worst_ns];
    for row in rows {
        let cells =
            [row.cache.name().to_owned(), row.threads.to_string(), row.operation.to_owned()];
        let cells = cells.into_iter().chain(times(row).map(report::nanos)).collect();
        table.rows.push(report::Row::of(row.cache, cells));
    }
    for (i, row) in rows.iter().enumerate() {
        let is_like =
            |other: &Row| (other.threads, other.operation) == (row.threads, row.operation);
        if rows[..i].iter().any(is_like) {
            continue;
        }
        let places: Vec<usize> = (i..rows.len()).filter(|&j| is_like(&rows[j])).collect();
        for column in 0..times(row).len() {
            let figures: Vec<_> = places
                .iter()
                .map(|&j| (times(&rows[j])[column] as f64, rows[j].cache))
                .map(|(time, cache)| cache.is_bounded().then_some(time))
                .collect();
            table.mark(3 + column, Better::Lower, &places, &figures);
        }
    }
    table
}

/// Returns what is drawn: a panel for each operation and number of threads.
fn panels(cells: &[Cell], threads: &[usize]) -> Vec<Panel> {
    let mut panels = Vec::new();
    for &threads in threads {
        for (name, of) in OPERATIONS {
            let title = format!("How long {name} take: {threads} thread(s)");
            let panel = panel(cells, threads, title, of);
            if panel.curves.iter().any(|curve| !curve.is_empty()) {
                panels.push(panel);
            }
        }
    }
    panels
}

/// The operations that are told apart.
pub const OPERATIONS: [(&str, Operations); 2] =
    [("gets", |latency| latency.gets.clone()), ("inserts", |latency| latency.inserts.clone())];

/// Returns the chart of one number of threads: a curve over the percentiles for each cache.
pub fn panel(cells: &[Cell], threads: usize, title: String, of: Operations) -> Panel {
    let cells = cells.iter().filter(|cell| cell.threads == threads);
    Panel {
        title,
        note: "so many percent of the operations are done within the time; lower is better"
            .to_owned(),
        x: Axis::new("percent of the operations", Scale::Tail, Numbers::Fraction),
        y: Axis::new("time of one operation", Scale::Log, Numbers::Nanos),
        curves: cells.map(|cell| Curve::with_spread(cell.kind, curve(cell, of))).collect(),
    }
}

/// Returns the points of a cache, as far as there are operations enough; with the spread where an
/// axis is marked.
fn curve(cell: &Cell, of: Operations) -> Vec<(f64, Spread)> {
    let samples = of(&cell.latency()).count();
    let steps = (0..=(MAX_NINES * POINTS_PER_NINE) as usize).map(|i| i as f64 / POINTS_PER_NINE);
    let fractions = steps.map(|nines| 1.0 - 10_f64.powf(-nines)).filter(|&fraction| fraction > 0.5);
    std::iter::once(0.5)
        .chain(fractions)
        .filter(|&fraction| report::is_enough(samples, fraction))
        .map(|fraction| {
            let spread = cell.quantile(of, fraction);
            let is_marked = PERCENTILES.iter().any(|marked| (marked - fraction).abs() < 1e-9);
            let alone = Spread { min: spread.median, max: spread.median, ..spread };
            (fraction, if is_marked { spread } else { alone })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::drive::Latency;

    #[test]
    fn curve_ends_where_operations_are_few() {
        let mut latencies = vec![Latency::new(), Latency::new()];
        for latency in &mut latencies {
            for nanos in 1..=5_000 {
                latency.gets.record(Duration::from_nanos(nanos));
            }
        }
        let kind = Kind::Cortado;
        let cell = Cell { kind, threads: 1, rates: vec![], hit_ratios: vec![], latencies };
        let points = curve(&cell, OPERATIONS[0].1);
        assert_eq!(points[0].0, 0.5);
        // Of 10 000 operations ten are beyond 99.9 %.
        assert!((points.last().unwrap().0 - 0.999).abs() < 1e-9);
        assert!(points.windows(2).all(|pair| pair[0].1.median <= pair[1].1.median));
        assert!(curve(&cell, OPERATIONS[1].1).is_empty());
    }
}
