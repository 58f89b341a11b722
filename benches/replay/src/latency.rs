//! `latency`: how long single operations take, and the worst of them.

use std::time::Duration;

use anyhow::Result;
use clap::Args;
use serde::Serialize;

use crate::drive;
use crate::report;
use crate::rounds::Rounds;
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
    cache: &'static str,
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

/// Measures and prints.
pub fn run(args: &LatencyArgs) -> Result<()> {
    let work = &args.work;
    let kinds = work.kinds()?;
    let threads = work.threads();
    let bar = report::progress((kinds.len() * work.rounds()) as u64);
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
    bar.finish_and_clear();
    let mut rows = Vec::new();
    for cell in &cells {
        for (operation, times) in [("get", &cell.latency.gets), ("insert", &cell.latency.inserts)] {
            if times.count() > 0 {
                rows.push(Row {
                    cache: cell.kind.name(),
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
    let text = report::render(work.format, &rows, || {
        let head =
            ["cache", "threads", "operation", "p50", "p90", "p99", "p99.9", "p99.99", "worst"];
        let lines = rows.iter().map(|row| {
            let times =
                [row.p50_ns, row.p90_ns, row.p99_ns, row.p99_9_ns, row.p99_99_ns, row.worst_ns];
            [row.cache.to_owned(), row.threads.to_string(), row.operation.to_owned()]
                .into_iter()
                .chain(times.map(report::nanos))
                .collect()
        });
        report::table(&head, lines.collect())
            + &work.describe()
            + &format!(
                "All rounds together. One reading of the clock takes {} ns here and is part of \
                 each figure.\n",
                drive::clock_cost().as_nanos()
            )
    })?;
    report::print(&text)
}
