//! `memory`: bytes of overhead and allocations, counted by the allocator.

use anyhow::Result;
use clap::Args;
use serde::Serialize;

use crate::cells::MemoryCell;
use crate::cli;
use crate::peers::Kind;
use crate::progress::{Progress, Unit};
use crate::report::{self, Better, Format, Table};

/// Bytes of overhead an entry, and allocations, counted by the allocator.
///
/// Each cache is built for so many entries and filled with as many new keys; its live bytes, less
/// key and value, are divided by the entries it holds then. Allocations are counted over up to
/// 100 000 hits and as many inserts of new keys after that. Every figure comes from a process of
/// its own.
#[derive(Args, Debug)]
pub struct MemoryArgs {
    /// The numbers of entries, which are also the capacities.
    #[arg(long, value_delimiter = ',', default_value = "1000000", value_parser = cli::entries)]
    entries: Vec<usize>,
    /// The size of a value; keys have 8 bytes. 8 and 100 are stored inline, others on the heap.
    #[arg(long, default_value = "8", value_parser = cli::value_bytes)]
    value_bytes: usize,
    /// The caches.
    #[arg(long, value_delimiter = ',', default_values_t = Kind::SPEED.map(cli::Name))]
    cache: Vec<cli::Name>,
    /// How to print.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

#[derive(Serialize)]
struct Row {
    cache: Kind,
    entries: usize,
    value_bytes: usize,
    held: usize,
    overhead_bytes_per_entry: f64,
    allocations_per_hit: f64,
    allocations_per_insert: f64,
}

/// Measures and prints.
pub fn run(args: &MemoryArgs) -> Result<()> {
    let kinds = cli::kinds(&args.cache, false)?;
    let bar = Progress::new((kinds.len() * args.entries.len()) as u64, Unit::Runs);
    let mut rows = Vec::new();
    for &entries in &args.entries {
        for &kind in &kinds {
            bar.step(kind.name());
            let memory =
                MemoryCell { cache: kind, entries, value_bytes: args.value_bytes }.spawn()?;
            rows.push(Row {
                cache: kind,
                entries,
                value_bytes: args.value_bytes,
                held: memory.held,
                overhead_bytes_per_entry: memory.overhead,
                allocations_per_hit: memory.allocations_per_hit,
                allocations_per_insert: memory.allocations_per_insert,
            });
            bar.inc(1);
        }
    }
    bar.finish();
    let text = report::render(args.format, &rows, || {
        let head = ["cache", "entries", "held", "overhead B/entry", "allocs/hit", "allocs/insert"];
        table(&head, &rows).draw()
            + &format!(
                "8-byte keys, {}-byte values. held: entries after the fill; overhead: live bytes \
                 beyond keys and values, by entries held;\nallocs/insert: of new keys into the \
                 full cache. papaya and dashmap evict nothing, so they grow there.\n",
                args.value_bytes
            )
    })?;
    report::print(&text)
}

fn table(head: &[&str], rows: &[Row]) -> Table {
    let mut table = Table::new(head);
    for row in rows {
        let cells = vec![
            row.cache.name().to_owned(),
            report::grouped(row.entries as u64),
            report::grouped(row.held as u64),
            format!("{:.1}", row.overhead_bytes_per_entry),
            format!("{:.3}", row.allocations_per_hit),
            format!("{:.2}", row.allocations_per_insert),
        ];
        table.rows.push(report::Row::of(row.cache, cells));
    }
    for (i, row) in rows.iter().enumerate() {
        if rows[..i].iter().any(|other| other.entries == row.entries) {
            continue;
        }
        let places: Vec<usize> =
            (i..rows.len()).filter(|&j| rows[j].entries == row.entries).collect();
        let figures: Vec<_> = places
            .iter()
            .map(|&j| Some(rows[j].overhead_bytes_per_entry).filter(|_| rows[j].cache.is_bounded()))
            .collect();
        table.mark(3, Better::Lower, &places, &figures);
    }
    table
}
