//! `budget`: how far a cache exceeds its capacity while new keys pour in.

use std::time::Duration;

use anyhow::Result;
use clap::Args;
use serde::Serialize;

use crate::cells::BudgetCell;
use crate::cli;
use crate::peers::Kind;
use crate::report::{self, Format};

/// How far a cache exceeds its capacity while several threads insert new keys.
///
/// Values count themselves, from their making to their drop. Each figure comes from a process of
/// its own.
#[derive(Args, Debug)]
pub struct BudgetArgs {
    /// The number of entries a cache may hold.
    #[arg(long, default_value = "1000", value_parser = cli::capacity)]
    capacity: usize,
    /// The number of threads that insert.
    #[arg(long, default_value = "8", value_parser = cli::threads)]
    writers: usize,
    /// The number of inserts of all threads together.
    #[arg(long, default_value = "10000000", value_parser = cli::entries)]
    inserts: usize,
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
    cache: &'static str,
    capacity: usize,
    writers: usize,
    inserts: u64,
    peak_live: u64,
    peak_reachable: Option<u64>,
    peak_garbage: Option<u64>,
}

/// Measures and prints.
pub fn run(args: &BudgetArgs) -> Result<()> {
    let kinds = cli::kinds(&args.cache, false)?;
    let bar = report::progress(kinds.len() as u64);
    let mut rows = Vec::new();
    for kind in kinds {
        bar.set_message(kind.name());
        let budget = BudgetCell {
            cache: kind,
            capacity: args.capacity,
            writers: args.writers,
            inserts: args.inserts as u64,
            limit_ms: Duration::from_secs_f64(args.limit_seconds).as_millis() as u64,
        }
        .spawn()?;
        rows.push(Row {
            cache: kind.name(),
            capacity: args.capacity,
            writers: args.writers,
            inserts: budget.inserts,
            peak_live: budget.peak_live,
            peak_reachable: budget.peak_reachable,
            peak_garbage: budget.peak_garbage,
        });
        bar.inc(1);
    }
    bar.finish_and_clear();
    let text = report::render(args.format, &rows, || {
        let optional = |figure: Option<u64>| figure.map_or_else(|| "-".to_owned(), report::grouped);
        let head = ["cache", "inserts", "peak live", "of capacity", "peak cost()", "peak garbage"];
        let lines = rows.iter().map(|row| {
            vec![
                row.cache.to_owned(),
                report::grouped(row.inserts),
                report::grouped(row.peak_live),
                format!("{:.1} %", row.peak_live as f64 * 100.0 / row.capacity as f64),
                optional(row.peak_reachable),
                optional(row.peak_garbage),
            ]
        });
        report::table(&head, lines.collect())
            + &format!(
                "capacity {}, {} writers. peak live: values alive at once, with those on their way \
                 in and those that\nwait to be freed; peak cost(): of what could be found, and \
                 garbage: alive but not found, looked at after every insert.\n",
                report::grouped(args.capacity as u64),
                args.writers
            )
    })?;
    report::print(&text)
}
