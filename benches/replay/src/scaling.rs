//! `scaling`: how speed grows with threads, for machines that the authors do not have.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use clap::Args;
use serde::Serialize;

use crate::cli;
use crate::peers::Kind;
use crate::progress::{Progress, Unit};
use crate::report::{self, Better, Machine, Row, Spread, Table};
use crate::rounds::{Cell, Rounds};
use crate::throughput::MAX_WARM_UP;
use crate::workload::{Plan, Shape, Workload};

/// The version of the file's format.
const FORMAT: u32 = 1;

/// How speed grows from 1 thread to as many as the machine runs at once, in each workload.
///
/// It writes a small JSON file for us: the processor's name and counts, the commit, and the
/// figures, but no name of the machine, of a user or of a directory. A machine with many threads
/// and nothing else to do is what we would like to see. It takes a few minutes.
#[derive(Args, Debug)]
pub struct ScalingArgs {
    /// The file to write.
    #[arg(long, value_name = "FILE", default_value = "cortado-scaling.json")]
    output: PathBuf,
    /// The greatest number of threads [default: as many as the hardware runs at once].
    #[arg(long, value_parser = cli::threads)]
    max_threads: Option<usize>,
    /// The workloads.
    #[arg(long, value_enum, value_delimiter = ',',
        default_values = ["hits", "hot", "read-through", "mixed", "churn"])]
    workload: Vec<Workload>,
    /// The caches.
    #[arg(long, value_delimiter = ',', default_value = "cortado,quick_cache,scc,moka")]
    cache: Vec<cli::Name>,
    /// The number of rounds.
    #[arg(long, default_value = "3", value_parser = cli::rounds)]
    rounds: usize,
    /// The time of one measurement, of one cache in one round.
    #[arg(long, default_value = "0.25", value_parser = cli::seconds)]
    seconds: f64,
    /// Where random choices begin.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// What the file holds.
#[derive(Serialize)]
struct Scaling {
    format: u32,
    machine: Machine,
    commit: Option<String>,
    seed: u64,
    rounds: usize,
    seconds: f64,
    figures: Vec<Figure>,
}

#[derive(Serialize)]
struct Figure {
    workload: &'static str,
    cache: Kind,
    threads: usize,
    /// Operations a second of all threads together, one figure a round.
    rates: Vec<u64>,
    hit_ratio: Option<f64>,
}

/// Measures, prints and writes.
pub fn run(args: &ScalingArgs) -> Result<()> {
    let kinds = cli::kinds(&args.cache, false)?;
    if args.output.is_dir() {
        bail!("{}: is a directory", args.output.display());
    }
    report::too_short(args.seconds, args.rounds).iter().for_each(|text| report::warn(text));
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let threads = steps(args.max_threads.unwrap_or(cores));
    let bar = Progress::new((args.workload.len() * kinds.len() * args.rounds) as u64, Unit::Runs);
    let time = Duration::from_secs_f64(args.seconds);
    let mut text = String::new();
    let mut figures = Vec::new();
    for &workload in &args.workload {
        bar.label(workload.name());
        let seconds = args.seconds * threads.iter().sum::<usize>() as f64;
        let cells = Rounds {
            kinds: &kinds,
            plan: &Plan::new(Shape::usual(workload, None, args.seed), seconds),
            threads: &threads,
            rounds: args.rounds,
            warm_up: (time / 3).min(MAX_WARM_UP),
            speed: time,
            latency: Duration::ZERO,
            batch: 1,
        }
        .run(&bar)?;
        text += &format!("{}: {}\n", workload.name(), workload.describe());
        text += &table(&cells, &threads).draw();
        figures.extend(cells.into_iter().map(|cell| Figure {
            workload: workload.name(),
            cache: cell.kind,
            threads: cell.threads,
            hit_ratio: cell.hit_ratio(),
            rates: cell.rates.iter().map(|rate| rate.round() as u64).collect(),
        }));
    }
    bar.finish();
    let scaling = Scaling {
        format: FORMAT,
        machine: Machine::this(),
        commit: report::commit(),
        seed: args.seed,
        rounds: args.rounds,
        seconds: args.seconds,
        figures,
    };
    let json = serde_json::to_string(&scaling).context("cannot be written as JSON")?;
    // A figure a line: small, and yet a file that can be read and compared.
    let json = json.replace("{\"workload\"", "\n{\"workload\"") + "\n";
    fs::write(&args.output, json)
        .with_context(|| format!("{}: cannot be written", args.output.display()))?;
    report::print(&format!(
        "{text}Millions of operations a second, all threads together: the median of {} rounds; in \
         parentheses how many times\nthe figure of the fewest threads that is. {}\n",
        args.rounds,
        report::machine()
    ))?;
    eprintln!(
        "wrote {}: please send it to us, if the machine had nothing else to do",
        args.output.display()
    );
    Ok(())
}

/// Returns the numbers of threads: each up to 4, then four for each doubling, and the last.
fn steps(most: usize) -> Vec<usize> {
    let mut steps: Vec<usize> = (1..=most.min(4)).collect();
    let mut from = 4;
    while from < most {
        steps.extend((1..=4).map(|i| from + from * i / 4).filter(|&threads| threads < most));
        from *= 2;
    }
    if most > 4 {
        steps.push(most);
    }
    steps
}

/// Returns the table: a row for each cache, a column for each number of threads.
fn table(cells: &[Cell], threads: &[usize]) -> Table {
    let heads = threads.iter().map(|threads| match threads {
        1 => "1 thread".to_owned(),
        _ => format!("{threads} threads"),
    });
    let mut table = Table::new(std::iter::once("cache".to_owned()).chain(heads));
    for cells in cells.chunks(threads.len()) {
        let base = cells[0].rate().median;
        let figures = cells.iter().map(|cell| {
            let Spread { median, .. } = cell.rate();
            format!("{} ({:.2})", report::millions(median), median / base)
        });
        let name = std::iter::once(cells[0].kind.name().to_owned());
        table.rows.push(Row::of(cells[0].kind, name.chain(figures).collect()));
    }
    let all: Vec<usize> = (0..table.rows.len()).collect();
    for i in 0..threads.len() {
        let figures = cells.iter().skip(i).step_by(threads.len());
        let figures =
            figures.map(|cell| Some(cell.rate().median).filter(|_| cell.kind.is_bounded()));
        table.mark(1 + i, Better::Higher, &all, &figures.collect::<Vec<_>>());
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_few_and_end_at_the_last() {
        assert_eq!(steps(1), [1]);
        assert_eq!(steps(2), [1, 2]);
        assert_eq!(steps(6), [1, 2, 3, 4, 5, 6]);
        assert_eq!(steps(8), [1, 2, 3, 4, 5, 6, 7, 8]);
        assert_eq!(steps(24), [1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 16, 20, 24]);
        assert_eq!(steps(96).len(), 22);
    }

    #[test]
    fn table_says_how_many_times_the_first() {
        let cell = |threads, rate: f64| Cell {
            kind: Kind::Cortado,
            threads,
            rates: vec![rate],
            hit_ratios: vec![],
            latencies: vec![],
        };
        let table = table(&[cell(1, 10e6), cell(2, 19e6)], &[1, 2]);
        assert_eq!(table.rows[0].cells, ["cortado", "10.0 (1.00)", "19.0 (1.90)"]);
        assert!(table.rows[0].is_own);
    }
}
