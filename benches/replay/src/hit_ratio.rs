//! `hit-ratio`: replays traces through the real caches.

use anyhow::{Result, bail};
use clap::Args;
use serde::Serialize;

use crate::cli;
use crate::peers::Kind;
use crate::plot::{self, Axis, Panel, Scale, Unit as Numbers};
use crate::progress::{Progress, Unit};
use crate::replay::{Manner, Replayer};
use crate::report::{self, Better, Format, Table};
use crate::source::{ACCESSES, Sources};
use crate::trace::Trace;

/// Replays traces of real or made-up accesses and counts the hits.
///
/// Each access is a get, and on a miss an insert of the same key. One thread does it unless
/// --threads says otherwise, and every 64 accesses it lets the cache do what it has put off (moka's
/// `run_pending_tasks`, mini-moka's `sync`, stretto's `wait`, cortado's `flush`), so that none is
/// judged by work still in a queue. `opt` is Belady's clairvoyant bound, `lru` a plain
/// least-recently-used list.
///
/// The format follows from the file's name: .lis, .lirs, .address, .txt (adaptsize) or .u32be, as
/// it is or with .gz, .zst or .xz behind. CSV and JSON give the hit ratio as a fraction of 1.
#[derive(Args, Debug)]
pub struct HitRatioArgs {
    #[command(flatten)]
    sources: Sources,
    /// The accesses of each made-up trace.
    #[arg(long, requires = "synthetic", default_value_t = ACCESSES, value_parser = cli::accesses)]
    accesses: usize,
    /// The numbers of entries a cache may hold; with --sizes, of bytes.
    #[arg(long, required = true, value_delimiter = ',', value_parser = cli::capacity_or_bytes,
        allow_negative_numbers = true)]
    capacity: Vec<usize>,
    #[arg(long, value_delimiter = ',', help = format!("The caches [default: {}; with --sizes: {}]",
        cli::listed(&Kind::HITS), cli::listed(&Kind::HITS_BY_SIZE)))]
    cache: Vec<cli::Name>,
    /// Let an entry take its size of the capacity, and count the bytes that hit too.
    ///
    /// For traces that have sizes. A hit is one even if the object has another size by now.
    /// `cortado-bytes` is cortado set to hit the most bytes; it hits the most objects otherwise.
    #[arg(long)]
    sizes: bool,
    /// Draw hit ratio over capacity into this file, .svg or .png, a panel for each trace.
    #[arg(long, value_name = "FILE")]
    plot: Option<plot::File>,
    /// How to print.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    #[command(flatten)]
    manner: Manner,
}

#[derive(Serialize)]
struct Row<R = f64> {
    trace: String,
    capacity: usize,
    cache: Kind,
    requests: usize,
    hits: u64,
    hit_ratio: R,
    #[serde(skip_serializing_if = "Option::is_none")]
    byte_hit_ratio: Option<R>,
}

impl Row {
    /// Returns the row with ratios of exactly six digits, for CSV.
    fn in_digits(&self) -> Row<String> {
        Row {
            trace: self.trace.clone(),
            capacity: self.capacity,
            cache: self.cache,
            requests: self.requests,
            hits: self.hits,
            hit_ratio: format!("{:.6}", self.hit_ratio),
            byte_hit_ratio: self.byte_hit_ratio.map(|ratio| format!("{ratio:.6}")),
        }
    }
}

/// Replays, prints and draws.
pub fn run(args: &HitRatioArgs) -> Result<()> {
    let defaults: &[Kind] = if args.sizes { &Kind::HITS_BY_SIZE } else { &Kind::HITS };
    let kinds = cli::replayable(&args.cache, defaults, args.sizes)?;
    if let Some(most) = args.capacity.iter().max()
        && !args.sizes
        && *most > cli::MAX_ENTRIES
    {
        bail!("without --sizes, --capacity is at most {} entries", cli::MAX_ENTRIES);
    }
    if let Some(file) = &args.plot {
        file.check()?;
    }
    let traces = args.sources.each().map(|source| {
        if args.sizes {
            source.load_with_sizes()
        } else {
            let trace = source.load(args.accesses, args.manner.seed)?;
            Ok(Trace { sizes: Vec::new(), ..trace })
        }
    });
    let traces = traces.collect::<Result<Vec<_>>>()?;
    let results = replay(&traces, &kinds, args)?;
    if let Some(file) = &args.plot {
        let panels: Vec<_> = results.iter().flat_map(|result| result.panels(args)).collect();
        plot::draw(file, &panels)?;
    }
    if args.format == Format::Csv {
        let rows: Vec<_> =
            results.iter().flat_map(|result| &result.rows).map(Row::in_digits).collect();
        return report::print(&report::render(args.format, &rows, String::new)?);
    }
    let tables = results.iter().map(|result| result.tables(args)).collect();
    let rows: Vec<_> = results.into_iter().flat_map(|result| result.rows).collect();
    report::print(&report::render(args.format, &rows, || tables)?)
}

fn replay<'a>(
    traces: &'a [Trace],
    kinds: &'a [Kind],
    args: &HitRatioArgs,
) -> Result<Vec<Results<'a>>> {
    let steps: usize = traces.iter().map(|trace| trace.keys.len()).sum();
    let bar = Progress::new((steps * kinds.len() * args.capacity.len()) as u64, Unit::Accesses);
    let mut results = Vec::new();
    for trace in traces {
        let replayer = Replayer::new(trace, kinds, args.manner)?;
        let requests = trace.keys.len();
        let mut rows = Vec::new();
        for &capacity in &args.capacity {
            for &kind in kinds {
                bar.step(format!("{} at {capacity}: {}", trace.name, kind.name()));
                let hits = replayer.hits(kind, capacity, &bar)?;
                rows.push(Row {
                    trace: trace.name.clone(),
                    capacity,
                    cache: kind,
                    requests,
                    hits: hits.count,
                    hit_ratio: hits.count as f64 / requests as f64,
                    byte_hit_ratio: args.sizes.then(|| hits.bytes as f64 / replayer.bytes() as f64),
                });
            }
        }
        results.push(Results { trace, kinds, rows });
    }
    bar.finish();
    Ok(results)
}

/// What came out of one trace: a row for each capacity and, within it, each cache.
struct Results<'a> {
    trace: &'a Trace,
    kinds: &'a [Kind],
    rows: Vec<Row>,
}

/// Says which caches round which capacities up, and that they win nothing there; nothing if none
/// does.
pub fn rounding(kinds: &[Kind], capacities: &[usize]) -> String {
    let lines = rounded(kinds, capacities).into_iter();
    lines.map(|line| line + ": there it is never called the best.\n").collect()
}

/// Says of each cache which capacities it rounds up, if there are any.
pub fn rounded(kinds: &[Kind], capacities: &[usize]) -> Vec<String> {
    let grouped = |capacity| report::grouped(capacity as u64);
    let line = |kind: &Kind| {
        let rounded: Vec<String> = capacities
            .iter()
            .filter_map(|&capacity| Some((capacity, kind.rounded_up(capacity)?)))
            .map(|(from, to)| format!("{} to {}", grouped(from), grouped(to)))
            .collect();
        let text = format!("{} rounds the capacity up, {}", kind.name(), rounded.join(", "));
        (!rounded.is_empty()).then_some(text)
    };
    kinds.iter().filter_map(line).collect()
}

/// Returns whether a cache may be called the best at a capacity: it can be built, and it holds no
/// more than it was told.
pub fn competes(kind: Kind, capacity: usize) -> bool {
    kind != Kind::Opt && kind.is_bounded() && kind.rounded_up(capacity).is_none()
}

/// Which of a row's ratios is meant.
type Ratio = fn(&Row) -> Option<f64>;

const BY_OBJECTS: (&str, Ratio) = ("hit", |row| Some(row.hit_ratio));
const BY_BYTES: (&str, Ratio) = ("byte hit", |row| row.byte_hit_ratio);

fn ratios(args: &HitRatioArgs) -> &'static [(&'static str, Ratio)] {
    if args.sizes { &[BY_OBJECTS, BY_BYTES] } else { &[BY_OBJECTS] }
}

impl Results<'_> {
    /// Returns the rows of one cache, in the order of the capacities.
    fn rows_of(&self, position: usize) -> impl Iterator<Item = &Row> {
        self.rows.iter().skip(position).step_by(self.kinds.len())
    }

    /// Returns the tables: a line for each cache, a column for each capacity.
    fn tables(&self, args: &HitRatioArgs) -> String {
        let capacities: Vec<String> =
            args.capacity.iter().map(|&capacity| report::grouped(capacity as u64)).collect();
        let table = |&(name, ratio): &(&str, Ratio)| {
            let corner = format!("{name} %  at");
            let head: Vec<&str> = std::iter::once(corner.as_str())
                .chain(capacities.iter().map(String::as_str))
                .collect();
            let mut table = Table::new(head);
            for (position, &kind) in self.kinds.iter().enumerate() {
                let figures = self.rows_of(position).map(|row| {
                    ratio(row).map_or_else(String::new, |ratio| format!("{:.2}", ratio * 100.0))
                });
                let cells = std::iter::once(kind.name().to_owned()).chain(figures).collect();
                table.rows.push(report::Row::of(kind, cells));
            }
            let all: Vec<usize> = (0..self.kinds.len()).collect();
            for (i, rows) in self.rows.chunks(self.kinds.len()).enumerate() {
                let figures: Vec<_> = rows
                    .iter()
                    .map(|row| ratio(row).filter(|_| competes(row.cache, row.capacity)))
                    .collect();
                table.mark(1 + i, Better::Higher, &all, &figures);
            }
            table.draw()
        };
        let requests = report::grouped(self.trace.keys.len() as u64);
        let mut tables: String = ratios(args).iter().map(table).collect();
        if !args.sizes {
            tables += &rounding(self.kinds, &args.capacity);
        }
        format!("{}: {requests} requests\n{tables}", self.trace.name)
    }

    /// Returns what is drawn: a panel for each kind of ratio, a curve for each cache.
    fn panels(&self, args: &HitRatioArgs) -> Vec<Panel> {
        let panel = |&(name, ratio): &(&str, Ratio)| Panel {
            title: match name {
                "hit" => format!("Hit ratio: {}", self.trace.name),
                _ => format!("Byte hit ratio: {}", self.trace.name),
            },
            note: "higher is better".to_owned(),
            x: Axis::new(
                if args.sizes { "capacity, bytes" } else { "capacity, entries" },
                Scale::Auto,
                Numbers::Count,
            ),
            y: Axis::new(format!("{name} ratio"), Scale::Linear, Numbers::Percent),
            curves: self
                .kinds
                .iter()
                .enumerate()
                .map(|(position, &kind)| {
                    let points = self
                        .rows_of(position)
                        .filter_map(|row| Some((row.capacity as f64, ratio(row)? * 100.0)));
                    plot::Curve::new(kind, points.collect())
                })
                .collect(),
        };
        ratios(args).iter().map(panel).collect()
    }
}
