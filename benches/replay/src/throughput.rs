//! `throughput`: operations a second, any cache, any workload.

use std::time::Duration;

use anyhow::{Result, bail};
use clap::Args;
use serde::Serialize;

use crate::cli;
use crate::peers::Kind;
use crate::plot::{self, Axis, Curve, Panel, Scale, Unit as Numbers};
use crate::progress::{Progress, Unit};
use crate::report::{self, Better, Format, Table};
use crate::rounds::{Cell, Rounds};
use crate::workload::{Plan, Shape, Workload};

/// Operations a second.
///
/// The caches are measured in interleaved rounds, each built again, filled and warmed up; the
/// table gives the median of the rounds with the least and the greatest.
#[derive(Args, Debug)]
pub struct ThroughputArgs {
    #[command(flatten)]
    pub work: WorkArgs,
    /// Look up so many keys at once, with `get_many`; for `hits` and cortado alone.
    #[arg(long, default_value = "1", value_parser = cli::batch)]
    batch: usize,
}

/// What is done to the caches, and how long.
#[derive(Args, Debug)]
pub struct WorkArgs {
    /// What is done.
    #[arg(long, value_enum, default_value = "mixed")]
    workload: Workload,
    /// The caches.
    #[arg(long, value_delimiter = ',', default_values_t = Kind::SPEED.map(cli::Name))]
    cache: Vec<cli::Name>,
    /// The numbers of threads.
    #[arg(long, value_delimiter = ',', default_value = "1,2", value_parser = cli::threads)]
    threads: Vec<usize>,
    /// The number of distinct keys [default: 1000000; hits 10000; hot 1].
    #[arg(long, value_parser = cli::keys)]
    keys: Option<u32>,
    /// The number of entries a cache may hold [default: mixed a fifth of the keys, read-through a
    /// tenth, hits a quarter more than the keys, hot 1000, churn 100000].
    #[arg(long, value_parser = cli::capacity, allow_negative_numbers = true)]
    capacity: Option<usize>,
    /// The size of a value: 8 and 100 are stored inline, other sizes shared on the heap.
    #[arg(long, default_value = "8", value_parser = cli::value_bytes)]
    value_bytes: usize,
    /// Zipf's exponent, 0 for keys all alike [default: mixed 1.2, read-through 0.99, hits 0].
    #[arg(long, value_parser = cli::zipf, allow_negative_numbers = true)]
    zipf: Option<f64>,
    /// Percent of the operations that are gets, for `mixed`.
    #[arg(long, default_value_t = 80, value_parser = clap::value_parser!(u8).range(0..=100))]
    reads: u8,
    /// The number of rounds.
    #[arg(long, default_value = "3", value_parser = cli::rounds)]
    rounds: usize,
    /// The time of one measurement, of one cache in one round.
    #[arg(long, default_value = "0.5", value_parser = cli::seconds)]
    seconds: f64,
    /// Where random choices begin.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Draw it into this file, .svg or .png: operations a second over threads, or times over
    /// percentiles.
    #[arg(long, value_name = "FILE")]
    plot: Option<plot::File>,
    /// How to print.
    #[arg(long, value_enum, default_value_t)]
    pub format: Format,
}

impl WorkArgs {
    /// Returns the work's shape.
    pub fn shape(&self) -> Shape {
        let mut shape = Shape::usual(self.workload, self.keys, self.seed);
        shape.capacity = self.capacity.unwrap_or(shape.capacity);
        shape.zipf = self.zipf.unwrap_or(shape.zipf);
        shape.value_bytes = self.value_bytes;
        if self.workload == Workload::Mixed {
            shape.reads = self.reads;
        }
        shape
    }

    /// Returns the work itself.
    pub fn plan(&self) -> Plan {
        let runs = self.threads().iter().sum::<usize>() as f64;
        Plan::new(self.shape(), self.seconds * runs + MAX_WARM_UP.as_secs_f64())
    }

    /// Returns the caches.
    pub fn kinds(&self) -> Result<Vec<Kind>> {
        cli::kinds(&self.cache, matches!(self.workload, Workload::Hits | Workload::Hot))
    }

    /// Returns the numbers of threads, each once.
    pub fn threads(&self) -> Vec<usize> {
        unique(&self.threads)
    }

    /// Returns the number of rounds.
    pub fn rounds(&self) -> usize {
        self.rounds
    }

    /// Returns the time of one measurement.
    pub fn time(&self) -> Duration {
        Duration::from_secs_f64(self.seconds)
    }

    /// Returns the file to draw into.
    pub fn plot(&self) -> Option<&plot::File> {
        self.plot.as_ref()
    }

    /// Warns of what would mean little, and fails for what would fail at the end.
    pub fn prepare(&self) -> Result<()> {
        report::too_short(self.seconds, self.rounds).iter().for_each(|text| report::warn(text));
        self.plot.as_ref().map_or(Ok(()), plot::File::check)
    }

    /// Says in a line what was done.
    pub fn describe(&self) -> String {
        let shape = self.shape();
        let mut text = format!("{}: ", shape.workload.name());
        if shape.workload != Workload::Churn {
            text += &format!(
                "{} keys, Zipf {}, {} % gets, ",
                report::grouped(u64::from(shape.keys)),
                shape.zipf,
                shape.reads
            );
        }
        text + &format!(
            "capacity {}, {}-byte values, seed {}; {} rounds of {} s\n{}\n",
            report::grouped(shape.capacity as u64),
            shape.value_bytes,
            shape.seed,
            self.rounds,
            self.seconds,
            report::machine()
        )
    }
}

/// Returns the numbers, each once, in their order.
pub fn unique(numbers: &[usize]) -> Vec<usize> {
    let mut unique = Vec::new();
    for &number in numbers {
        if !unique.contains(&number) {
            unique.push(number);
        }
    }
    unique
}

/// The warm-up: a third of a measurement, at most so long.
pub const MAX_WARM_UP: Duration = Duration::from_millis(300);

#[derive(Serialize)]
struct Row {
    cache: Kind,
    threads: usize,
    mops_median: f64,
    mops_min: f64,
    mops_max: f64,
    nanos_per_operation: f64,
    hit_ratio: Option<f64>,
}

/// Measures and prints.
pub fn run(args: &ThroughputArgs) -> Result<()> {
    let work = &args.work;
    let kinds = work.kinds()?;
    let shape = work.shape();
    if args.batch > 1 && !matches!(shape.workload, Workload::Hits | Workload::Hot) {
        bail!("--batch is for --workload hits");
    }
    work.prepare()?;
    let threads = work.threads();
    let bar = Progress::new((kinds.len() * work.rounds()) as u64, Unit::Runs);
    let cells = Rounds {
        kinds: &kinds,
        plan: &work.plan(),
        threads: &threads,
        rounds: work.rounds(),
        warm_up: (work.time() / 3).min(MAX_WARM_UP),
        speed: work.time(),
        latency: Duration::ZERO,
        batch: args.batch,
    }
    .run(&bar)?;
    bar.finish();
    let rows: Vec<Row> = cells
        .iter()
        .map(|cell| {
            let rate = cell.rate();
            Row {
                cache: cell.kind,
                threads: cell.threads,
                mops_median: rate.median / 1e6,
                mops_min: rate.min / 1e6,
                mops_max: rate.max / 1e6,
                nanos_per_operation: 1e9 * cell.threads as f64 / rate.median,
                hit_ratio: cell.hit_ratio(),
            }
        })
        .collect();
    if let Some(file) = work.plot() {
        let note = format!("{}; higher is better", shape.workload.describe());
        plot::draw(file, &[panel(&cells, &threads, "Operations a second".to_owned(), note)])?;
    }
    let text = report::render(work.format, &rows, || {
        let head = ["cache", "threads", "Mops/s", "min - max", "ns/op", "hit %"];
        table(&head, &rows, &threads).draw()
            + &work.describe()
            + "ns/op: what one thread sees. papaya, dashmap and hashbrown evict nothing.\n"
    })?;
    report::print(&text)
}

fn table(head: &[&str], rows: &[Row], threads: &[usize]) -> Table {
    let mut table = Table::new(head);
    for row in rows {
        let cells = vec![
            row.cache.name().to_owned(),
            row.threads.to_string(),
            report::millions(row.mops_median * 1e6),
            format!(
                "{} - {}",
                report::millions(row.mops_min * 1e6),
                report::millions(row.mops_max * 1e6)
            ),
            format!("{:.1}", row.nanos_per_operation),
            row.hit_ratio.map_or_else(|| "-".to_owned(), |hit| format!("{:.1}", hit * 100.0)),
        ];
        table.rows.push(report::Row::of(row.cache, cells));
    }
    for &threads in threads {
        let places: Vec<usize> = (0..rows.len()).filter(|&i| rows[i].threads == threads).collect();
        let figures: Vec<_> = places
            .iter()
            .map(|&i| Some(rows[i].mops_median).filter(|_| rows[i].cache.is_bounded()))
            .collect();
        table.mark(2, Better::Higher, &places, &figures);
    }
    table
}

/// Returns the chart: a curve over the numbers of threads for each cache.
pub fn panel(cells: &[Cell], threads: &[usize], title: String, note: String) -> Panel {
    let curves = cells.chunks(threads.len()).map(|cells| {
        let points = cells.iter().map(|cell| (cell.threads as f64, cell.rate()));
        Curve::with_spread(cells[0].kind, points.collect())
    });
    Panel {
        title,
        note,
        x: Axis::threads(threads),
        y: Axis::new("operations a second", Scale::FromZero, Numbers::Count),
        curves: curves.collect(),
    }
}
