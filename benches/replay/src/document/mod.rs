//! `report`: measures everything and writes a page that shows it.
//!
//! The figures are gathered into a [`Report`], of which [`html`] and [`markdown`] make a page each.

mod figures;
mod html;
mod markdown;
mod sections;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context as _, Result, bail};
use clap::{Args, ValueEnum};
use serde::{Deserialize, Serialize};

use crate::cli;
use crate::compare::At;
use crate::peers::Kind;
use crate::plot::Chart;
use crate::progress::{Progress, Unit};
use crate::report::{self, Better, Machine, Table};
use crate::throughput::unique;

/// Measures everything in a few minutes and writes a page that shows it.
///
/// The page is one HTML file that needs no other; the Markdown file has its plots beside it, in a
/// directory of the same name. Before it begins it says about how long it will take.
#[derive(Args, Debug)]
pub struct ReportArgs {
    /// Measure longer and more often: for figures that are to be published.
    #[arg(long)]
    full: bool,
    /// The HTML file to write.
    #[arg(long, value_name = "FILE", default_value = "cortado-report/benchmarks.html")]
    html: PathBuf,
    /// The Markdown file to write.
    #[arg(long, value_name = "FILE", default_value = "cortado-report/benchmarks.md")]
    markdown: PathBuf,
    /// Write all figures into this file, too, as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Measure nothing, and make the pages of the figures that --json has written.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["full", "json"])]
    from: Option<PathBuf>,
    /// Measure these parts alone.
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Part>,
    /// The caches.
    #[arg(long, value_delimiter = ',', default_values_t = Kind::SPEED.map(cli::Name))]
    cache: Vec<cli::Name>,
    /// The numbers of threads [default: powers of two up to twice the hardware's, 8 at least].
    #[arg(long, value_delimiter = ',', value_parser = cli::threads)]
    threads: Vec<usize>,
    /// The numbers of threads for reads while writers are preempted.
    #[arg(long, value_delimiter = ',', default_value = "8,16,32,64", value_parser = cli::threads)]
    crowd: Vec<usize>,
    /// The numbers of threads that sleep beside a hit.
    #[arg(long, value_delimiter = ',', default_value = "0,1000,4000",
        value_parser = clap::value_parser!(u16).range(0..=20_000))]
    sleepers: Vec<u16>,
    /// The traces for hit ratios, each with its capacities: a file, or a made-up one.
    #[arg(long, num_args = 1.., value_name = "TRACE@CAPACITY,...", default_values = [
        "zipf@1000,2000,5000,10000,20000",
        "scan@1000,2000,5000,10000,20000",
        "shift@1000,2000,5000,10000,20000",
    ])]
    at: Vec<At>,
    /// The accesses of each made-up trace [default: 200000; with --full 1000000].
    #[arg(long, value_parser = cli::accesses)]
    accesses: Option<usize>,
    /// The number of distinct keys for throughput and latency.
    #[arg(long, default_value = "1000000", value_parser = cli::keys)]
    keys: u32,
    /// The number of entries for memory [default: 100000; with --full 1000000].
    #[arg(long, value_parser = cli::entries)]
    entries: Option<usize>,
    /// The number of rounds [default: 3; with --full 9].
    #[arg(long, value_parser = cli::rounds)]
    rounds: Option<usize>,
    /// The time of one measurement, of one cache in one round [default: 0.12; with --full 0.5].
    #[arg(long, value_parser = cli::seconds)]
    seconds: Option<f64>,
    /// Where random choices begin.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// The parts of a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Part {
    /// Operations a second over threads.
    Throughput,
    /// Times of single operations.
    Latency,
    /// Hit ratio over capacity.
    HitRatio,
    /// Bytes an entry.
    Memory,
    /// The most that is alive while keys pour in.
    Budget,
    /// A hit beside threads that sleep.
    Sleepers,
    /// Reads while writers are preempted.
    Preempted,
    /// Reads that return an older value.
    Stale,
    /// Cache lines that an operation writes.
    Lines,
}

/// What a report measures, and how long.
pub struct Plan {
    /// The caches.
    pub kinds: Vec<Kind>,
    /// The numbers of threads.
    pub threads: Vec<usize>,
    /// The numbers of threads where writers are preempted.
    pub crowd: Vec<usize>,
    /// The numbers of threads that sleep.
    pub sleepers: Vec<usize>,
    /// The traces.
    pub at: Vec<At>,
    /// The accesses of each made-up trace.
    pub accesses: usize,
    /// The number of distinct keys.
    pub keys: u32,
    /// The entries for memory.
    pub entries: usize,
    /// The number of rounds.
    pub rounds: usize,
    /// The time of one measurement.
    pub seconds: f64,
    /// Where random choices begin.
    pub seed: u64,
}

/// All that was measured.
#[derive(Debug, Deserialize, Serialize)]
pub struct Report {
    /// Where.
    pub machine: Machine,
    /// The commit of what was measured.
    pub commit: Option<String>,
    /// The command that did it.
    pub command: String,
    /// Where random choices began.
    pub seed: u64,
    /// The number of rounds.
    pub rounds: usize,
    /// The time of one measurement.
    pub seconds: f64,
    /// How long it took in all, in seconds.
    pub took: u64,
    /// What to know before the figures are believed.
    pub warnings: Vec<String>,
    /// The crates that were measured, with their versions.
    pub versions: Vec<(String, String)>,
    /// What was found.
    pub sections: Vec<Section>,
}

/// The figures of one part.
#[derive(Debug, Deserialize, Serialize)]
pub struct Section {
    /// The part's name in addresses and files.
    pub id: String,
    /// What stands above.
    pub title: String,
    /// What was done, and how to read it.
    pub text: String,
    /// The charts and tables.
    pub blocks: Vec<Block>,
    /// What to know besides.
    pub notes: Vec<String>,
    /// Cortado beside the best of the others.
    pub standings: Vec<Standing>,
}

/// A chart and the table with its figures.
#[derive(Debug, Deserialize, Serialize)]
pub struct Block {
    /// The chart.
    pub chart: Chart,
    /// The figures.
    pub table: Table,
}

/// Cortado beside the best of the others, in one measure.
#[derive(Debug, Deserialize, Serialize)]
pub struct Standing {
    /// What was measured.
    pub what: String,
    /// Which figures are good.
    pub better: Better,
    /// Cortado's figure.
    pub own: String,
    /// The best figure of the others.
    pub best: String,
    /// Whose it is.
    pub who: Kind,
    /// Whether none is better than cortado's.
    pub own_is_best: bool,
    /// Whether none is better than the other's.
    pub other_is_best: bool,
}

/// Measures, or reads what was measured, and writes the pages.
pub fn run(args: &ReportArgs) -> Result<()> {
    let report = match &args.from {
        Some(path) => {
            let text = fs::read_to_string(path);
            let text = text.with_context(|| format!("{}: cannot be read", path.display()))?;
            serde_json::from_str(&text)
                .with_context(|| format!("{}: holds no figures of a report", path.display()))?
        }
        None => measure(args)?,
    };
    if let Some(path) = &args.json {
        let text = serde_json::to_string_pretty(&report).context("cannot be written as JSON")?;
        write(path, &text)?;
    }
    write(&args.html, &html::page(&report)?)?;
    let plots = args.markdown.with_extension("");
    let folder = plots.file_name().unwrap_or_default().to_string_lossy().into_owned();
    for (name, text) in markdown::plots(&report)? {
        write(&plots.join(name), &text)?;
    }
    write(&args.markdown, &markdown::page(&report, &folder))
}

/// Writes a file, and the directories it is in, and says so.
fn write(path: &Path, text: &str) -> Result<()> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)
            .with_context(|| format!("{}: cannot be created", parent.display()))?;
    }
    fs::write(path, text).with_context(|| format!("{}: cannot be written", path.display()))?;
    eprintln!("wrote {}", path.display());
    Ok(())
}

impl ReportArgs {
    fn plan(&self) -> Result<Plan> {
        let kinds = cli::kinds(&self.cache, false)?;
        if kinds.is_empty() {
            bail!("there is no cache to measure");
        }
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let threads = match self.threads.as_slice() {
            [] => usual_threads(cores),
            threads => unique(threads),
        };
        let usual = |short, full| if self.full { full } else { short };
        Ok(Plan {
            kinds,
            threads,
            crowd: unique(&self.crowd),
            sleepers: unique(&self.sleepers.iter().map(|&n| n.into()).collect::<Vec<_>>()),
            at: self.at.clone(),
            accesses: self.accesses.unwrap_or(usual(200_000, 1_000_000)),
            keys: self.keys,
            entries: self.entries.unwrap_or(usual(100_000, 1_000_000)),
            rounds: self.rounds.unwrap_or(usual(3, 9)),
            seconds: self.seconds.unwrap_or(if self.full { 0.5 } else { 0.12 }),
            seed: self.seed,
        })
    }
}

/// Returns the powers of two up to twice the hardware's threads, and to 8 at least, with the
/// number of the hardware's itself.
fn usual_threads(cores: usize) -> Vec<usize> {
    let most = (2 * cores).max(8);
    let powers = (0..).map(|power| 1 << power).take_while(|&threads| threads <= most);
    let mut threads: Vec<usize> = powers.chain([cores]).collect();
    threads.sort_unstable();
    threads.dedup();
    threads
}

fn measure(args: &ReportArgs) -> Result<Report> {
    let begin = Instant::now();
    let plan = args.plan()?;
    let parts = if args.only.is_empty() { Part::value_variants() } else { &args.only };
    let mut warnings = Vec::new();
    if let Some(text) = report::too_short(plan.seconds, plan.rounds) {
        report::warn(&text);
        warnings.push(text);
    }
    let traces = sections::traces(&plan, parts)?;
    let micros = parts.iter().map(|&part| sections::micros(&plan, part, &traces)).sum::<u64>();
    eprintln!("this takes about {} to measure", roughly(micros));
    let bar = Progress::new(micros, Unit::Micros);
    let mut measured = Vec::new();
    for &part in parts {
        measured.push(sections::measure(&plan, part, &traces, &bar)?);
    }
    bar.finish();
    Ok(Report {
        machine: Machine::this(),
        commit: report::commit(),
        command: command(std::env::args().skip(1)),
        seed: plan.seed,
        rounds: plan.rounds,
        seconds: plan.seconds,
        took: begin.elapsed().as_secs(),
        warnings,
        versions: versions(&plan.kinds),
        sections: measured,
    })
}

fn roughly(micros: u64) -> String {
    match micros / 1_000_000 {
        0..2 => "a second".to_owned(),
        seconds @ 2..90 => format!("{seconds} seconds"),
        seconds => format!("{} minutes", seconds.div_ceil(60)),
    }
}

/// Returns the command as it was given, without the directories of this machine.
fn command(arguments: impl Iterator<Item = String>) -> String {
    let mut text = "cargo run --release -p cortado-replay --".to_owned();
    for argument in arguments {
        let (option, value) = match argument.split_once('=') {
            Some((option, value)) => (format!("{option}="), value),
            None => (String::new(), argument.as_str()),
        };
        let value = match Path::new(value).file_name() {
            Some(name) if Path::new(value).is_absolute() => name.to_string_lossy().into_owned(),
            _ => value.to_owned(),
        };
        text += &format!(" {option}{value}");
    }
    text
}

/// The versions of all crates that this program is built of.
const LOCK: &str = include_str!("../../../../Cargo.lock");

fn versions(kinds: &[Kind]) -> Vec<(String, String)> {
    kinds
        .iter()
        .filter_map(|&kind| {
            let package = match kind {
                Kind::CortadoMetrics => "cortado",
                Kind::TinyUfo => "TinyUFO",
                Kind::Foyer | Kind::FoyerLfu => "foyer-memory",
                kind => kind.name(),
            };
            Some((package.to_owned(), version(LOCK, package)?))
        })
        .collect()
}

/// Returns the version of a package; the newest, if there are several.
fn version(lock: &str, package: &str) -> Option<String> {
    let name = format!("name = \"{package}\"");
    let mut lines = lock.lines();
    let mut newest = None;
    while lines.any(|line| line == name) {
        let version = lines.next()?.strip_prefix("version = \"")?.strip_suffix('"')?;
        newest = Some(version.to_owned());
    }
    newest
}

impl Report {
    /// Says where and of what the figures are, in one line.
    pub fn caption(&self) -> String {
        let commit = self.commit.as_deref().unwrap_or("not known");
        format!(
            "{}, {} hardware threads; commit {commit}; seed {}; median of {} rounds, with the \
             least and the greatest.",
            self.machine.processor, self.machine.hardware_threads, self.seed, self.rounds
        )
    }

    /// Says what was measured where, in sentences.
    pub fn introduction(&self) -> Vec<String> {
        let Machine { processor, hardware_threads, system, .. } = &self.machine;
        let commit = match &self.commit {
            Some(commit) => match commit.strip_suffix('+') {
                Some(commit) => format!("commit {commit} with changes"),
                None => format!("commit {commit}"),
            },
            None => "a commit that is not known".to_owned(),
        };
        let versions: Vec<_> =
            self.versions.iter().map(|(name, version)| format!("{name} {version}")).collect();
        vec![
            format!(
                "Measured on {processor} with {hardware_threads} hardware threads ({system}), at \
                 {commit}, seed {}: {} interleaved rounds, {} s a measurement, {} in all. Nothing \
                 here says how a machine with more threads behaves: `cortado-replay scaling` \
                 measures that, and writes a file to send us.",
                self.seed,
                self.rounds,
                self.seconds,
                roughly(self.took * 1_000_000)
            ),
            format!("Compared: {}.", versions.join(", ")),
            "A figure is the median of the rounds, in parentheses the least and the greatest; \
             thin lines in the charts go from one to the other. The best figure of each column is \
             bold, except for those of caches that do something else: papaya and dashmap are maps \
             that evict nothing, a floor and no rivals, and scc rounds its capacity up to a power \
             of two, so it is never called the best by its hit ratio."
                .to_owned(),
        ]
    }
}

/// Returns the head and the rows of the table that sums up.
pub fn summary(report: &Report) -> Table {
    let mut table = Table::new(["measure", "good is", "cortado", "best of the others"]);
    for standing in report.sections.iter().flat_map(|section| &section.standings) {
        let good = match standing.better {
            Better::Higher => "high",
            Better::Lower => "low",
        };
        let cells = vec![
            standing.what.clone(),
            good.to_owned(),
            standing.own.clone(),
            format!("{}, {}", standing.best, standing.who.name()),
        ];
        let best = [(2, standing.own_is_best), (3, standing.other_is_best)];
        let best = best.into_iter().filter(|(_, is_best)| *is_best).map(|(at, _)| at).collect();
        table.rows.push(report::Row { cells, is_own: false, best });
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_go_to_twice_the_hardware() {
        assert_eq!(usual_threads(1), [1, 2, 4, 8]);
        assert_eq!(usual_threads(2), [1, 2, 4, 8]);
        assert_eq!(usual_threads(6), [1, 2, 4, 6, 8]);
        assert_eq!(usual_threads(64), [1, 2, 4, 8, 16, 32, 64, 128]);
    }

    #[test]
    fn command_names_no_directory_of_this_machine() {
        let given = ["report", "--html=/home/me/a.html", "--at", "/data/OLTP.lis@5", "docs/b.md"];
        assert_eq!(
            command(given.map(str::to_owned).into_iter()),
            "cargo run --release -p cortado-replay -- report --html=a.html --at OLTP.lis@5 docs/b.md"
        );
    }

    #[test]
    fn versions_are_those_that_were_built() {
        let lock = "[[package]]\nname = \"a\"\nversion = \"1.0.0\"\n\n[[package]]\nname = \"ab\"\n\
                    version = \"2.0.0\"\n\n[[package]]\nname = \"a\"\nversion = \"1.1.0\"\n";
        assert_eq!(version(lock, "a").as_deref(), Some("1.1.0"));
        assert_eq!(version(lock, "b"), None);
        assert_eq!(versions(&Kind::SPEED).len(), Kind::SPEED.len());
    }
}
