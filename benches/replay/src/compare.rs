//! `compare`: how far each cache is from the best of the others, trace by trace.

use std::str::FromStr;

use anyhow::{Context as _, Result, bail};
use clap::Args;
use serde::Serialize;

use crate::cli;
use crate::hit_ratio::{competes, rounding};
use crate::peers::Kind;
use crate::progress::{Progress, Unit};
use crate::replay::{Manner, Replayer};
use crate::report::{self, Better, Format, Table};
use crate::source::{ACCESSES, Source};
use crate::trace::synthetic::Pattern;

/// Compares the hit ratio of each cache with the best of cortado's rivals, trace by trace.
///
/// A line stands for a trace at a capacity. It names the rival that hit most, and says how many
/// points (percent of all accesses) each cache is above or below that one. The last line is the
/// mean of all others. Neither cortado nor `opt` is a rival, and none is where it rounds the
/// capacity up, as scc does: its points then have a `*`. The replay is that of hit-ratio.
#[derive(Args, Debug)]
pub struct CompareArgs {
    /// The traces, each with the capacities for it: OLTP.lis.zst@250,1000 or zipf:0.9@1000.
    ///
    /// A trace is a file, or a made-up one by the names that hit-ratio has under --synthetic.
    #[arg(long, required = true, num_args = 1.., value_name = "TRACE@CAPACITY,...")]
    at: Vec<At>,
    /// The accesses of each made-up trace.
    #[arg(long, default_value_t = ACCESSES, value_parser = cli::accesses)]
    accesses: usize,
    #[arg(long, value_delimiter = ',',
        help = format!("The caches [default: {}]", cli::listed(CACHES)))]
    cache: Vec<cli::Name>,
    /// How to print.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    #[command(flatten)]
    manner: Manner,
}

/// What is compared unless caches are named: all but the first, which is `opt`.
const CACHES: &[Kind] = Kind::HITS.split_at(1).1;

/// A trace and the capacities it is replayed at.
#[derive(Clone, Debug)]
pub struct At {
    /// The trace.
    pub source: Source,
    /// The capacities.
    pub capacities: Vec<usize>,
}

impl FromStr for At {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let (name, capacities) =
            text.rsplit_once('@').context("there is no @ with capacities behind the trace")?;
        if name.is_empty() {
            bail!("there is no trace before the @");
        }
        let source = if Pattern::is_named(name) {
            Source::Pattern(name.parse()?)
        } else {
            Source::File(name.into())
        };
        let capacities = capacities.split(',').map(cli::capacity).collect::<Result<_>>()?;
        Ok(Self { source, capacities })
    }
}

/// One trace at one capacity.
struct Line {
    trace: String,
    capacity: usize,
    /// The hit ratio of each cache, in percent.
    percents: Vec<f64>,
    /// The place of the best rival among the caches.
    best: usize,
}

impl Line {
    /// Makes a line; `None` where none of the caches is a rival.
    fn new(trace: String, capacity: usize, kinds: &[Kind], percents: Vec<f64>) -> Option<Self> {
        let rivals = (0..kinds.len()).filter(|&i| is_rival(kinds[i], capacity));
        // The first one of several that are equally good.
        let best = rivals.rev().max_by(|&a, &b| percents[a].total_cmp(&percents[b]))?;
        Some(Self { trace, capacity, percents, best })
    }

    fn best_percent(&self) -> f64 {
        self.percents[self.best]
    }

    /// Returns how far a cache is above the best rival.
    fn points(&self, cache: usize) -> f64 {
        self.percents[cache] - self.best_percent()
    }
}

/// Returns whether cortado is measured by a cache at a capacity: not if it has more of it.
fn is_rival(kind: Kind, capacity: usize) -> bool {
    kind.is_rival() && kind.rounded_up(capacity).is_none()
}

/// A cache at a trace and a capacity or, without a capacity, the mean of it.
#[derive(Serialize)]
struct Row {
    trace: String,
    capacity: Option<usize>,
    cache: &'static str,
    hit_percent: String,
    best: Option<&'static str>,
    best_percent: String,
    points: String,
}

/// Replays and prints.
pub fn run(args: &CompareArgs) -> Result<()> {
    let kinds = cli::replayable(&args.cache, CACHES, false)?;
    if !kinds.iter().any(|kind| kind.is_rival()) {
        bail!("there is no rival among the caches to compare with");
    }
    for &capacity in args.at.iter().flat_map(|at| &at.capacities) {
        if !kinds.iter().any(|&kind| is_rival(kind, capacity)) {
            bail!("at {capacity} there is no rival that keeps to this capacity");
        }
    }
    let traces = args
        .at
        .iter()
        .map(|at| at.source.load(args.accesses, args.manner.seed))
        .collect::<Result<Vec<_>>>()?;
    let steps: usize =
        traces.iter().zip(&args.at).map(|(trace, at)| trace.keys.len() * at.capacities.len()).sum();
    let bar = Progress::new((steps * kinds.len()) as u64, Unit::Accesses);
    let mut lines = Vec::new();
    for (mut trace, at) in traces.into_iter().zip(&args.at) {
        trace.sizes.clear();
        let replayer = Replayer::new(&trace, &kinds, args.manner)?;
        for &capacity in &at.capacities {
            let mut percents = Vec::new();
            for &kind in &kinds {
                bar.step(format!("{} at {capacity}: {}", trace.name, kind.name()));
                let hits = replayer.hits(kind, capacity, &bar)?;
                percents.push(hits.count as f64 / trace.keys.len() as f64 * 100.0);
            }
            lines.extend(Line::new(trace.name.clone(), capacity, &kinds, percents));
        }
    }
    bar.finish();
    let text = report::render(args.format, &rows(&lines, &kinds), || table(&lines, &kinds))?;
    report::print(&text)
}

fn rows(lines: &[Line], kinds: &[Kind]) -> Vec<Row> {
    let mut rows = Vec::new();
    for line in lines {
        for (i, kind) in kinds.iter().enumerate() {
            rows.push(Row {
                trace: line.trace.clone(),
                capacity: Some(line.capacity),
                cache: kind.name(),
                hit_percent: format!("{:.4}", line.percents[i]),
                best: Some(kinds[line.best].name()),
                best_percent: format!("{:.4}", line.best_percent()),
                points: signed(line.points(i), 4),
            });
        }
    }
    for (i, kind) in kinds.iter().enumerate() {
        rows.push(Row {
            trace: "mean".to_owned(),
            capacity: None,
            cache: kind.name(),
            hit_percent: format!("{:.4}", mean(lines, |line| line.percents[i])),
            best: None,
            best_percent: format!("{:.4}", mean(lines, Line::best_percent)),
            points: signed(mean(lines, |line| line.points(i)), 4),
        });
    }
    rows
}

fn table(lines: &[Line], kinds: &[Kind]) -> String {
    let head: Vec<&str> = ["points above", "at", "best rival", "hit %"]
        .into_iter()
        .chain(kinds.iter().map(|kind| kind.name()))
        .collect();
    let mut table = Table::new(head);
    for line in lines {
        let start = [
            line.trace.clone(),
            report::grouped(line.capacity as u64),
            kinds[line.best].name().to_owned(),
            format!("{:.2}", line.best_percent()),
        ];
        let points = (0..kinds.len()).map(|i| {
            let star = if kinds[i].rounded_up(line.capacity).is_some() { "*" } else { "" };
            signed(line.points(i), 2) + star
        });
        table.rows.push(start.into_iter().chain(points).collect::<Vec<_>>().into());
        let figures =
            (0..kinds.len()).map(|i| competes(kinds[i], line.capacity).then_some(line.points(i)));
        let best = Better::Higher.best(&figures.collect::<Vec<_>>());
        let row = table.rows.last_mut().expect("it was just added");
        row.best = best.into_iter().map(|i| POINTS_FROM + i).collect();
    }
    let best = format!("{:.2}", mean(lines, Line::best_percent));
    let start = ["mean".to_owned(), String::new(), String::new(), best];
    let points = (0..kinds.len()).map(|i| {
        let is_rounded = |line: &Line| kinds[i].rounded_up(line.capacity).is_some();
        let star = if lines.iter().any(is_rounded) { "*" } else { "" };
        signed(mean(lines, |line| line.points(i)), 2) + star
    });
    table.rows.push(start.into_iter().chain(points).collect::<Vec<_>>().into());
    let mut capacities: Vec<usize> = lines.iter().map(|line| line.capacity).collect();
    capacities.sort_unstable();
    capacities.dedup();
    let rounding = rounding(kinds, &capacities);
    table.draw() + &if rounding.is_empty() { rounding } else { format!("* {rounding}") }
}

/// The first column of points.
const POINTS_FROM: usize = 4;

fn mean(lines: &[Line], of: impl Fn(&Line) -> f64) -> f64 {
    lines.iter().map(of).sum::<f64>() / lines.len() as f64
}

/// Returns a number with its sign; what rounds to nothing has none.
fn signed(number: f64, digits: usize) -> String {
    let text = format!("{number:+.digits$}");
    match text[1..].bytes().all(|byte| matches!(byte, b'0' | b'.')) {
        true => text[1..].to_owned(),
        false => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn best_rival_is_neither_cortado_nor_opt() {
        let kinds = [Kind::Opt, Kind::Cortado, Kind::Moka, Kind::Lru, Kind::Foyer];
        let line = Line::new(String::new(), 1, &kinds, vec![90.0, 80.0, 70.0, 75.0, 75.0]).unwrap();
        assert_eq!(kinds[line.best], Kind::Lru);
        assert_eq!(line.points(0), 15.0);
        assert_eq!(line.points(2), -5.0);
    }

    #[test]
    fn cache_that_holds_more_is_never_the_best() {
        let kinds = [Kind::Cortado, Kind::Scc, Kind::Lru];
        let best = |capacity| {
            let percents = vec![50.0, 60.0, 40.0];
            let line = Line::new(String::new(), capacity, &kinds, percents).unwrap();
            (kinds[line.best], table(&[line], &kinds))
        };
        let (kind, text) = best(1000);
        assert_eq!(kind, Kind::Lru);
        assert!(text.contains("+20.00*") && text.contains("1 000 to 1 024"), "{text}");
        // It keeps to a power of two.
        let (kind, text) = best(1024);
        assert_eq!(kind, Kind::Scc);
        assert!(!text.contains('*'), "{text}");
        assert!(Line::new(String::new(), 1000, &kinds[..2], vec![50.0, 60.0]).is_none());
    }

    #[test]
    fn nothing_has_no_sign() {
        assert_eq!(signed(-0.001, 2), "0.00");
        assert_eq!(signed(0.0, 2), "0.00");
        assert_eq!(signed(-0.01, 2), "-0.01");
        assert_eq!(signed(12.345, 1), "+12.3");
    }

    #[test]
    fn traces_come_with_their_capacities() {
        let at: At = "dir@home/OLTP.lis@250,1_000".parse().unwrap();
        assert_eq!(at.capacities, [250, 1000]);
        assert!(matches!(at.source, Source::File(path) if path.ends_with("OLTP.lis")));
        let at: At = "zipf:0.9@7".parse().unwrap();
        assert!(matches!(at.source, Source::Pattern(Pattern::Zipf { exponent: 0.9 })));
        for wrong in ["OLTP.lis", "@5", "OLTP.lis@", "OLTP.lis@5,0", "zipf:x@5"] {
            assert!(wrong.parse::<At>().is_err(), "{wrong}");
        }
    }
}
