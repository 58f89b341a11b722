//! The run without a command: one workload, every cache, one table, in under a minute.

use std::time::{Duration, Instant};

use anyhow::Result;
use clap::Args;
use serde::Serialize;

use crate::cells::{BudgetCell, MemoryCell};
use crate::cli;
use crate::drive;
use crate::peers::Kind;
use crate::progress::{Progress, Unit};
use crate::report::{self, Better, Format, Table};
use crate::rounds::Rounds;
use crate::throughput::unique;
use crate::workload::{Plan, Shape, Workload};

const KEYS: u32 = 1_000_000;
const CAPACITY: usize = 200_000;
const VALUE_BYTES: usize = 100;
const ZIPF: f64 = 1.2;
const READS: u8 = 80;
const WARM_UP: Duration = Duration::from_millis(80);
/// A run for latency takes this part of a run for speed.
const LATENCY_SHARE: f64 = 0.4;
/// Long enough for two writers to go over the capacity and to stay there for a while.
const BURST: Duration = Duration::from_millis(400);
const WRITERS: usize = 2;

/// The headline's options.
#[derive(Args, Debug)]
pub struct HeadlineArgs {
    /// The caches.
    #[arg(long, value_delimiter = ',', default_values_t = Kind::SPEED.map(cli::Name))]
    cache: Vec<cli::Name>,
    /// The numbers of threads.
    #[arg(long, value_delimiter = ',', default_value = "1,2", value_parser = cli::threads)]
    threads: Vec<usize>,
    /// The number of rounds.
    #[arg(long, default_value = "3", value_parser = cli::rounds)]
    rounds: usize,
    /// The time of one measurement of speed, of one cache in one round.
    #[arg(long, default_value = "0.22", value_parser = cli::seconds)]
    seconds: f64,
    /// Where random choices begin.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How to print.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

#[derive(Serialize)]
struct Row {
    cache: Kind,
    threads: usize,
    hit_ratio: Option<f64>,
    mops_median: f64,
    mops_min: f64,
    mops_max: f64,
    p50_ns: u64,
    p99_ns: u64,
    p99_9_ns: u64,
    p99_99_ns: u64,
    overhead_bytes_per_entry: f64,
    peak_live_of_capacity: Option<f64>,
}

/// What does not depend on the number of threads.
struct Once {
    overhead: f64,
    peak: Option<f64>,
}

/// Measures and prints.
pub fn run(args: &HeadlineArgs) -> Result<()> {
    let begin = Instant::now();
    let kinds = cli::kinds(&args.cache, false)?;
    report::too_short(args.seconds, args.rounds).iter().for_each(|text| report::warn(text));
    let threads = unique(&args.threads);
    let bar = Progress::new((kinds.len() * (args.rounds + 1)) as u64, Unit::Runs);
    let mut once = Vec::new();
    for &kind in &kinds {
        bar.step(format!("memory and budget: {}", kind.name()));
        once.push(measure_once(kind)?);
        bar.inc(1);
    }
    let speed = Duration::from_secs_f64(args.seconds);
    let shape = Shape {
        workload: Workload::Mixed,
        keys: KEYS,
        capacity: CAPACITY,
        value_bytes: VALUE_BYTES,
        zipf: ZIPF,
        reads: READS,
        seed: args.seed,
    };
    let thread_seconds = WARM_UP.as_secs_f64()
        + args.seconds * (1.0 + LATENCY_SHARE) * threads.iter().sum::<usize>() as f64;
    let cells = Rounds {
        kinds: &kinds,
        plan: &Plan::new(shape, thread_seconds),
        threads: &threads,
        rounds: args.rounds,
        warm_up: WARM_UP,
        speed,
        latency: speed.mul_f64(LATENCY_SHARE),
        batch: 1,
    }
    .run(&bar)?;
    bar.finish();
    let rows: Vec<Row> = cells
        .iter()
        .enumerate()
        .map(|(i, cell)| {
            let rate = cell.rate();
            let times = cell.latency().all();
            let once = &once[i / threads.len()];
            Row {
                cache: cell.kind,
                threads: cell.threads,
                hit_ratio: cell.hit_ratio(),
                mops_median: rate.median / 1e6,
                mops_min: rate.min / 1e6,
                mops_max: rate.max / 1e6,
                p50_ns: times.quantile(0.5),
                p99_ns: times.quantile(0.99),
                p99_9_ns: times.quantile(0.999),
                p99_99_ns: times.quantile(0.9999),
                overhead_bytes_per_entry: once.overhead,
                peak_live_of_capacity: once.peak,
            }
        })
        .collect();
    let text = report::render(args.format, &rows, || {
        title() + &table(&rows) + &legend(args, &kinds, begin.elapsed())
    })?;
    report::print(&text)
}

fn measure_once(kind: Kind) -> Result<Once> {
    let memory = MemoryCell { cache: kind, entries: CAPACITY, value_bytes: VALUE_BYTES }.spawn()?;
    let peak = if kind.is_bounded() {
        let cell = BudgetCell {
            value_bytes: 0,
            cache: kind,
            capacity: CAPACITY,
            writers: WRITERS,
            inserts: u64::MAX,
            limit_ms: BURST.as_millis() as u64,
        };
        Some(cell.spawn()?.peak_live as f64 / CAPACITY as f64)
    } else {
        None
    };
    Ok(Once { overhead: memory.overhead, peak })
}

fn title() -> String {
    format!(
        "{} keys, {VALUE_BYTES}-byte values, {READS} % get / {} % set, Zipf {ZIPF}, capacity {}\n",
        report::grouped(u64::from(KEYS)),
        100 - READS,
        report::grouped(CAPACITY as u64)
    )
}

fn table(rows: &[Row]) -> String {
    let head = [
        "cache",
        "threads",
        "hit %",
        "Mops/s",
        "min - max",
        "p50",
        "p99",
        "p99.9",
        "p99.99",
        "B/entry",
        "peak",
    ];
    let mut table = Table::new(head);
    for (i, row) in rows.iter().enumerate() {
        let is_first = i == 0 || rows[i - 1].cache != row.cache;
        // What is the same for all numbers of threads is said once.
        let once = |text: String| if is_first { text } else { String::new() };
        let cells = vec![
            once(row.cache.name().to_owned()),
            row.threads.to_string(),
            row.hit_ratio.map_or_else(|| "-".to_owned(), |hit| format!("{:.1}", hit * 100.0)),
            report::millions(row.mops_median * 1e6),
            format!(
                "{} - {}",
                report::millions(row.mops_min * 1e6),
                report::millions(row.mops_max * 1e6)
            ),
            report::nanos(row.p50_ns),
            report::nanos(row.p99_ns),
            report::nanos(row.p99_9_ns),
            report::nanos(row.p99_99_ns),
            once(format!("{:.0}", row.overhead_bytes_per_entry)),
            once(
                row.peak_live_of_capacity
                    .map_or_else(|| "-".to_owned(), |peak| format!("{:.1} %", peak * 100.0)),
            ),
        ];
        table.rows.push(report::Row::of(row.cache, cells));
    }
    mark(&mut table, rows);
    table.draw()
}

/// Marks the best of each column: for each number of threads, or once where threads do not count.
/// Caches that evict nothing do not compete, and scc not by its hit ratio, since it holds more.
fn mark(table: &mut Table, rows: &[Row]) {
    type Figure = fn(&Row) -> Option<f64>;
    let columns: [(usize, Better, Figure); 6] = [
        (2, Better::Higher, |row| {
            row.hit_ratio.filter(|_| row.cache.rounded_up(CAPACITY).is_none())
        }),
        (3, Better::Higher, |row| Some(row.mops_median)),
        (5, Better::Lower, |row| Some(row.p50_ns as f64)),
        (6, Better::Lower, |row| Some(row.p99_ns as f64)),
        (7, Better::Lower, |row| Some(row.p99_9_ns as f64)),
        (8, Better::Lower, |row| Some(row.p99_99_ns as f64)),
    ];
    let mut threads: Vec<usize> = rows.iter().map(|row| row.threads).collect();
    threads.sort_unstable();
    threads.dedup();
    for threads in threads {
        let places: Vec<usize> = (0..rows.len()).filter(|&i| rows[i].threads == threads).collect();
        for (column, better, figure) in columns {
            let figures: Vec<_> = places
                .iter()
                .map(|&i| figure(&rows[i]).filter(|_| rows[i].cache.is_bounded()))
                .collect();
            table.mark(column, better, &places, &figures);
        }
    }
    let firsts: Vec<usize> =
        (0..rows.len()).filter(|&i| i == 0 || rows[i - 1].cache != rows[i].cache).collect();
    let bytes: Vec<_> = firsts
        .iter()
        .map(|&i| Some(rows[i].overhead_bytes_per_entry).filter(|_| rows[i].cache.is_bounded()))
        .collect();
    table.mark(9, Better::Lower, &firsts, &bytes);
    let peaks: Vec<_> = firsts.iter().map(|&i| rows[i].peak_live_of_capacity).collect();
    table.mark(10, Better::Lower, &firsts, &peaks);
}

fn legend(args: &HeadlineArgs, kinds: &[Kind], took: Duration) -> String {
    let mut text = format!(
        "hit %     gets that found their key\n\
         Mops/s    millions of operations a second, all threads together: median of {} rounds of \
         {} s, least and greatest\n\
         p50 ...   time of single operations, in runs of their own; {} ns of it is reading the \
         clock\n\
         B/entry   live bytes beyond key and value after a fill, by entries held\n\
         peak      most values alive at once, in percent of the capacity, while {WRITERS} threads \
         insert new keys for {} s\n",
        args.rounds,
        args.seconds,
        drive::clock_cost().as_nanos(),
        BURST.as_secs_f64()
    );
    if kinds.iter().any(|kind| !kind.is_bounded()) {
        text += "papaya and dashmap are maps that evict nothing and may hold all keys: a floor, \
                 not rivals\n";
    }
    for kind in kinds {
        if let Some(rounded) = kind.rounded_up(CAPACITY) {
            let rounded = report::grouped(rounded as u64);
            text += &format!("{} rounds its capacity up, to {rounded} here\n", kind.name());
        }
    }
    if kinds.contains(&Kind::Stretto) {
        text += "stretto queues inserts for its own thread, so a short run flatters it: try \
                 --cache stretto --seconds 5\n";
    }
    text + &format!(
        "{}; seed {}; {:.0} s in all\n{}\n",
        report::machine(),
        args.seed,
        took.as_secs_f64(),
        command()
    )
}

/// The command as it was given, the program by its name alone.
fn command() -> String {
    std::iter::once("cargo run --release -p cortado-replay --".to_owned())
        .chain(std::env::args().skip(1))
        .collect::<Vec<_>>()
        .join(" ")
        .trim_end_matches(" --")
        .to_owned()
}
