//! `memory`: bytes of overhead and allocations, counted by the allocator.

use anyhow::Result;
use clap::Args;
use serde::Serialize;

use crate::cells::MemoryCell;
use crate::cli;
use crate::peers::Kind;
use crate::report::{self, Format};

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
    cache: &'static str,
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
    let bar = report::progress((kinds.len() * args.entries.len()) as u64);
    let mut rows = Vec::new();
    for &entries in &args.entries {
        for &kind in &kinds {
            bar.set_message(kind.name());
            let memory =
                MemoryCell { cache: kind, entries, value_bytes: args.value_bytes }.spawn()?;
            rows.push(Row {
                cache: kind.name(),
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
    bar.finish_and_clear();
    let text = report::render(args.format, &rows, || {
        let head = ["cache", "entries", "held", "overhead B/entry", "allocs/hit", "allocs/insert"];
        let lines = rows.iter().map(|row| {
            vec![
                row.cache.to_owned(),
                report::grouped(row.entries as u64),
                report::grouped(row.held as u64),
                format!("{:.1}", row.overhead_bytes_per_entry),
                format!("{:.3}", row.allocations_per_hit),
                format!("{:.2}", row.allocations_per_insert),
            ]
        });
        report::table(&head, lines.collect())
            + &format!(
                "8-byte keys, {}-byte values. held: entries after the fill; overhead: live bytes \
                 beyond keys and values, by entries held;\nallocs/insert: of new keys into the \
                 full cache. papaya and dashmap evict nothing, so they grow there.\n",
                args.value_bytes
            )
    })?;
    report::print(&text)
}
