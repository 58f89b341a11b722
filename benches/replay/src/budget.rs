//! `budget`: how far a cache exceeds its capacity while new keys pour in.

use std::time::Duration;

use anyhow::{Result, ensure};
use clap::Args;
use serde::Serialize;

use crate::cells::BudgetCell;
use crate::cli;
use crate::peers::Kind;
use crate::progress::{Progress, Unit};
use crate::report::{self, Better, Format, Table};

/// How far a cache exceeds its capacity while several threads insert new keys.
///
/// Values count themselves, from their making to their drop. Each figure comes from a process of
/// its own. With --value-bytes a value costs its bytes, and the capacity is one of bytes, too; caches
/// that take no costs are then left out.
#[derive(Args, Debug)]
pub struct BudgetArgs {
    /// The number of entries a cache may hold, or of bytes if --value-bytes is given.
    #[arg(long, default_value = "1000", value_parser = cli::capacity)]
    capacity: usize,
    /// The number of threads that insert.
    #[arg(long, default_value = "8", value_parser = cli::threads)]
    writers: usize,
    /// The number of inserts of all threads together.
    #[arg(long, default_value = "10000000", value_parser = cli::entries)]
    inserts: usize,
    /// The size of a value, which is its cost; without it values are small and each costs 1.
    #[arg(long, value_parser = cli::value_bytes)]
    value_bytes: Option<usize>,
    /// Stop a cache after so many seconds all the same.
    #[arg(long, default_value = "30", value_parser = cli::seconds)]
    limit_seconds: f64,
    /// The caches.
    #[arg(long, value_delimiter = ',', default_values_t = bounded())]
    cache: Vec<cli::Name>,
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
    capacity: usize,
    writers: usize,
    inserts: u64,
    value_bytes: usize,
    p99_live: u64,
    peak_live: u64,
    peak_reachable: Option<u64>,
    peak_garbage: Option<u64>,
}

/// Measures and prints.
pub fn run(args: &BudgetArgs) -> Result<()> {
    let value_bytes = args.value_bytes.unwrap_or(0);
    let mut kinds = cli::kinds(&args.cache, false)?;
    if value_bytes > 0 {
        kinds.retain(|kind| kind.takes_costs());
        ensure!(!kinds.is_empty(), "none of these caches takes costs");
    }
    let bar = Progress::new(kinds.len() as u64, Unit::Runs);
    let mut rows = Vec::new();
    for kind in kinds {
        bar.step(kind.name());
        let budget = BudgetCell {
            cache: kind,
            capacity: args.capacity,
            writers: args.writers,
            inserts: args.inserts as u64,
            value_bytes,
            limit_ms: Duration::from_secs_f64(args.limit_seconds).as_millis() as u64,
        }
        .spawn()?;
        rows.push(Row {
            cache: kind,
            capacity: args.capacity,
            writers: args.writers,
            inserts: budget.inserts,
            value_bytes,
            p99_live: budget.p99_live,
            peak_live: budget.peak_live,
            peak_reachable: budget.peak_reachable,
            peak_garbage: budget.peak_garbage,
        });
        bar.inc(1);
    }
    bar.finish();
    let text = report::render(args.format, &rows, || {
        let optional = |figure: Option<u64>| figure.map_or_else(|| "-".to_owned(), report::grouped);
        let percent = |live: u64| format!("{:.1} %", live as f64 * 100.0 / args.capacity as f64);
        let head = ["cache", "inserts", "p99 live", "peak live", "peak cost()", "peak garbage"];
        let mut table = Table::new(head);
        for row in &rows {
            let cells = vec![
                row.cache.name().to_owned(),
                report::grouped(row.inserts),
                percent(row.p99_live),
                percent(row.peak_live),
                optional(row.peak_reachable),
                optional(row.peak_garbage),
            ];
            table.rows.push(report::Row::of(row.cache, cells));
        }
        let all: Vec<usize> = (0..rows.len()).collect();
        for (column, figure) in
            [(2, (|row| row.p99_live) as fn(&Row) -> u64), (3, |row| row.peak_live)]
        {
            let figures: Vec<_> = rows.iter().map(|row| Some(figure(row) as f64)).collect();
            table.mark(column, Better::Lower, &all, &figures);
        }
        table.draw()
            + &format!(
                "capacity {}, {} writers. live: the cost of all values alive, with those on their way \
                 in and those that\nwait to be freed, of capacity, 99th percentile of samples each \
                 millisecond and maximum;\npeak cost(): of what could be found, and garbage: alive \
                 but not found, looked at after every insert.\n",
                report::grouped(args.capacity as u64),
                args.writers
            )
    })?;
    report::print(&text)
}
