//! `hit-ratio`: replays real traces through the real caches.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use clap::Args;
use indicatif::ProgressBar;
use serde::Serialize;

use crate::cli;
use crate::peers::opt::Future;
use crate::peers::plain_lru::PlainLru;
use crate::peers::{Kind, Peer, Settings, Task};
use crate::report::{self, Format};
use crate::trace;

/// Accesses between two calls of `settle`.
const SETTLE_EVERY: usize = 64;

/// Replays traces of real accesses and counts the hits.
///
/// Each access is a get, and on a miss an insert of the same key. One thread does it, and every 64
/// accesses it lets the cache do what it has put off (moka's `run_pending_tasks`, mini-moka's
/// `sync`, stretto's `wait`, cortado's `flush`), so that none is judged by work still in a queue.
/// `opt` is Belady's clairvoyant bound, `lru` a plain least-recently-used list.
///
/// The format follows from the file's name: .lis, .lirs, .address, .txt (adaptsize) or .u32be, as
/// it is or with .gz, .zst or .xz behind. CSV and JSON give the hit ratio as a fraction of 1.
#[derive(Args, Debug)]
pub struct HitRatioArgs {
    /// The trace files.
    #[arg(long, required = true, num_args = 1.., value_name = "FILE")]
    trace: Vec<PathBuf>,
    /// The numbers of entries a cache may hold.
    #[arg(long, required = true, value_delimiter = ',', value_parser = cli::capacity,
        allow_negative_numbers = true)]
    capacity: Vec<usize>,
    /// The caches.
    #[arg(long, value_delimiter = ',', default_values_t = Kind::HITS.map(cli::Name))]
    cache: Vec<cli::Name>,
    /// How to print.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    /// Where random choices begin.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

#[derive(Serialize)]
struct Row<R = f64> {
    trace: String,
    capacity: usize,
    cache: &'static str,
    requests: usize,
    hits: u64,
    hit_ratio: R,
}

impl Row {
    /// Returns the row with a ratio of exactly six digits, for CSV.
    fn in_digits(&self) -> Row<String> {
        Row {
            trace: self.trace.clone(),
            capacity: self.capacity,
            cache: self.cache,
            requests: self.requests,
            hits: self.hits,
            hit_ratio: format!("{:.6}", self.hit_ratio),
        }
    }
}

/// Replays and prints.
pub fn run(args: &HitRatioArgs) -> Result<()> {
    let mut kinds: Vec<Kind> = Vec::new();
    for &cli::Name(kind) in &args.cache {
        if kind == Kind::Hashbrown {
            bail!("hashbrown evicts nothing and cannot be written while it is shared");
        }
        if !kinds.contains(&kind) {
            kinds.push(kind);
        }
    }
    let traces = args
        .trace
        .iter()
        .map(|path| Ok((name_of(path), trace::read(path)?)))
        .collect::<Result<Vec<_>>>()?;
    let steps: usize = traces.iter().map(|(_, keys)| keys.len()).sum();
    let bar = report::progress((steps * kinds.len() * args.capacity.len()) as u64);
    let mut rows = Vec::new();
    for (name, keys) in &traces {
        let future = if kinds.contains(&Kind::Opt) { Some(Future::new(keys)?) } else { None };
        for &capacity in &args.capacity {
            for &kind in &kinds {
                bar.set_message(format!("{name} at {capacity}: {}", kind.name()));
                let hits = match (kind, &future) {
                    (Kind::Opt, Some(future)) => {
                        let hits = future.hits(capacity);
                        bar.inc(keys.len() as u64);
                        hits
                    }
                    (Kind::Lru, _) => {
                        let mut lru = PlainLru::new(capacity);
                        let hits = keys.iter().filter(|&&key| lru.access(key)).count();
                        bar.inc(keys.len() as u64);
                        hits as u64
                    }
                    _ => {
                        let settings = Settings { capacity, replay: true, seed: args.seed };
                        kind.dispatch(Replay { keys, settings, bar: &bar })?
                    }
                };
                rows.push(Row {
                    trace: name.clone(),
                    capacity,
                    cache: kind.name(),
                    requests: keys.len(),
                    hits,
                    hit_ratio: hits as f64 / keys.len() as f64,
                });
            }
        }
    }
    bar.finish_and_clear();
    if args.format == Format::Csv {
        let rows: Vec<_> = rows.iter().map(Row::in_digits).collect();
        return report::print(&report::render(args.format, &rows, String::new)?);
    }
    let text = report::render(args.format, &rows, || {
        traces.iter().map(|(name, keys)| table(name, keys.len(), &kinds, args, &rows)).collect()
    })?;
    report::print(&text)
}

/// Returns the table of one trace: a line for each cache, a column for each capacity.
fn table(name: &str, requests: usize, kinds: &[Kind], args: &HitRatioArgs, rows: &[Row]) -> String {
    let capacities: Vec<String> =
        args.capacity.iter().map(|&capacity| report::grouped(capacity as u64)).collect();
    let head: Vec<&str> =
        std::iter::once("hit %  at").chain(capacities.iter().map(String::as_str)).collect();
    let lines = kinds.iter().map(|kind| {
        let figures = args.capacity.iter().map(|&capacity| {
            rows.iter()
                .find(|row| {
                    row.trace == name && row.capacity == capacity && row.cache == kind.name()
                })
                .map_or_else(String::new, |row| format!("{:.2}", row.hit_ratio * 100.0))
        });
        std::iter::once(kind.name().to_owned()).chain(figures).collect()
    });
    format!("{name}: {} requests\n", report::grouped(requests as u64))
        + &report::table(&head, lines.collect())
}

/// The file's name without what tells its format.
fn name_of(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    name.split('.').find(|part| !part.is_empty()).unwrap_or(&name).to_owned()
}

struct Replay<'a> {
    keys: &'a [u64],
    settings: Settings,
    bar: &'a ProgressBar,
}

impl Task<u64> for Replay<'_> {
    type Output = Result<u64>;

    fn run<P: Peer<u64>>(self) -> Result<u64> {
        let peer = P::build(&self.settings)?;
        let mut hits = 0;
        for keys in self.keys.chunks(SETTLE_EVERY) {
            for &key in keys {
                if peer.get(key) {
                    hits += 1;
                } else {
                    peer.insert(key, key);
                }
            }
            peer.settle();
            self.bar.inc(keys.len() as u64);
        }
        Ok(hits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trace_is_named_without_its_format() {
        assert_eq!(name_of(Path::new("dir.d/OLTP.lis.zst")), "OLTP");
        assert_eq!(name_of(Path::new("w106.u32be.xz")), "w106");
    }
}
