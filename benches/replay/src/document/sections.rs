//! The parts of a report: what is measured, by the code of the other commands, and what it shows.

use std::time::Duration;

use anyhow::Result;

use super::figures::{Column, table};
use super::{Block, Part, Plan, Section};
use crate::cells::{BudgetCell, MemoryCell};
use crate::hit_ratio::{competes, rounded, rounding};
use crate::latency::{self, OPERATIONS};
use crate::lines::{self, Lines, LinesCell, Op};
use crate::peers::Kind;
use crate::plot::{Axis, Bars, Chart, Curve, Panel, Scale, Unit};
use crate::progress::Progress;
use crate::replay::{Manner, Replayer};
use crate::report::{self, Better, Spread};
use crate::rounds::{Cell, Operations, Rounds};
use crate::sleepers::SleepersCell;
use crate::source::Source;
use crate::stale::{self, Stale};
use crate::throughput;
use crate::trace::Trace;
use crate::workload::{self, Shape, Workload};

/// The workloads for speed, by names that need no explanation.
const WORKLOADS: [(Workload, &str); 4] = [
    (Workload::Mixed, "80 % gets, 20 % inserts"),
    (Workload::ReadThrough, "a get, and on a miss an insert"),
    (Workload::Hits, "gets that all hit"),
    (Workload::Churn, "inserts of new keys"),
];

/// A run for latency takes so many times as long as one for speed.
const LATENCY_TIMES: f64 = 2.0;
/// A run with many threads takes so many times as long as one for speed, since each of them is on
/// a core for a small part of it.
const CROWD_TIMES: f64 = 3.0;
/// The percentile that is summed up: its place in [`latency::PERCENTILES`].
const SUMMED_UP: usize = 3;
const CROWD_KEYS: u32 = 10_000;
const CROWD_READS: u8 = 50;
const CROWD_ZIPF: f64 = 0.99;
/// The budgets that are tested: entries, and threads that insert.
const BUDGETS: [(usize, usize); 2] = [(1_000, 8), (20_000, 2)];
/// Long enough that each cache is full most of the time.
const BURST: Duration = Duration::from_millis(400);
/// The operations whose lines are counted.
const OPS: [(Op, &str); 4] = [
    (Op::Hit, "first get"),
    (Op::Again, "same get again"),
    (Op::Replace, "replacing insert"),
    (Op::Insert, "evicting insert"),
];
/// The sizes of values for memory.
const VALUE_BYTES: [usize; 2] = [8, 100];

/// About how long some things take, in microseconds, for the bar.
const BUILD_MICROS: f64 = 200_000.0;
const LINES_MICROS: f64 = 150_000.0;
const PROCESS_MICROS: f64 = 60_000.0;
const ENTRY_MICROS: f64 = 1.0;
const THREAD_MICROS: f64 = 100.0;
const ACCESS_NANOS: u64 = 500;
/// stretto's thread is waited for every 64 accesses.
const STRETTO_NANOS: u64 = 12_000;

/// The traces of a report, each with its capacities.
pub struct Traces(Vec<Numbered>);

struct Numbered {
    /// One trace for each round if it is made up, with seeds of their own; otherwise only one.
    rounds: Vec<Trace>,
    capacities: Vec<usize>,
    is_made_up: bool,
}

/// Reads or makes the traces, if hit ratios are measured at all.
pub fn traces(plan: &Plan, parts: &[Part]) -> Result<Traces> {
    if !parts.contains(&Part::HitRatio) {
        return Ok(Traces(Vec::new()));
    }
    let load = |at: &crate::compare::At| {
        let is_made_up = matches!(at.source, Source::Pattern(_));
        let rounds = if is_made_up { plan.rounds } else { 1 };
        let rounds = (0..rounds as u64).map(|round| {
            let trace = at.source.load(plan.accesses, plan.seed.wrapping_add(round))?;
            Ok(Trace { sizes: Vec::new(), ..trace })
        });
        let rounds = rounds.collect::<Result<Vec<_>>>()?;
        Ok(Numbered { rounds, capacities: at.capacities.clone(), is_made_up })
    };
    Ok(Traces(plan.at.iter().map(load).collect::<Result<_>>()?))
}

/// Returns the caches whose hit ratios are shown: those of the report that keep to a capacity,
/// and the bound.
fn replayed(plan: &Plan) -> Vec<Kind> {
    let kinds = plan.kinds.iter().copied();
    let kinds = kinds.filter(|kind| kind.is_bounded() && kind.check_replayable(false).is_ok());
    std::iter::once(Kind::Opt).chain(kinds).collect()
}

/// Returns whether a cache is replayed in a round: stretto only in the first, because each wait
/// for its thread takes long.
fn is_replayed(kind: Kind, round: usize) -> bool {
    kind != Kind::Stretto || round == 0
}

/// About how long a cache takes with a trace.
fn replay_micros(kind: Kind, trace: &Trace) -> u64 {
    let nanos = if kind == Kind::Stretto { STRETTO_NANOS } else { ACCESS_NANOS };
    trace.keys.len() as u64 * nanos / 1000
}

fn bounded(plan: &Plan) -> Vec<Kind> {
    plan.kinds.iter().copied().filter(|kind| kind.is_bounded()).collect()
}

/// About how long a part takes, in microseconds.
pub fn micros(plan: &Plan, part: Part, traces: &Traces) -> u64 {
    let turns = (plan.kinds.len() * plan.rounds) as f64;
    let bounded = (bounded(plan).len() * plan.rounds) as f64;
    let micros = match part {
        Part::Throughput => WORKLOADS.len() as f64 * turns * speed(plan).turn_micros(),
        Part::Latency => turns * times(plan).turn_micros(),
        Part::HitRatio => {
            let kinds = replayed(plan);
            let micros = |numbered: &Numbered| -> u64 {
                let rounds = numbered.rounds.iter().enumerate();
                let accesses = rounds.flat_map(|(round, trace)| {
                    let kinds = kinds.iter().filter(move |&&kind| is_replayed(kind, round));
                    kinds.map(|&kind| replay_micros(kind, trace))
                });
                accesses.sum::<u64>() * numbered.capacities.len() as u64
            };
            return traces.0.iter().map(micros).sum();
        }
        Part::Memory => turns * VALUE_BYTES.len() as f64 * memory_micros(plan),
        Part::Budget => bounded * BUDGETS.len() as f64 * budget_micros(),
        Part::Sleepers => {
            let cells = plan.sleepers.iter().map(|&sleepers| sleepers_micros(plan, sleepers));
            turns * cells.sum::<f64>()
        }
        Part::Preempted => turns * crowd(plan).turn_micros(),
        Part::Stale => bounded * plan.seconds * 1e6,
        Part::Lines => (countable(plan).len() * plan.rounds * OPS.len()) as f64 * LINES_MICROS,
    };
    micros as u64
}

fn memory_micros(plan: &Plan) -> f64 {
    PROCESS_MICROS + plan.entries as f64 * ENTRY_MICROS
}

fn budget_micros() -> f64 {
    PROCESS_MICROS + BURST.as_micros() as f64
}

fn sleepers_micros(plan: &Plan, sleepers: usize) -> f64 {
    PROCESS_MICROS + sleepers as f64 * THREAD_MICROS + plan.seconds * 1e6
}

/// Measures a part.
pub fn measure(plan: &Plan, part: Part, traces: &Traces, bar: &Progress) -> Result<Section> {
    match part {
        Part::Throughput => throughput_section(plan, bar),
        Part::Latency => latency_section(plan, bar),
        Part::HitRatio => hit_ratio_section(plan, traces, bar),
        Part::Memory => memory_section(plan, bar),
        Part::Budget => budget_section(plan, bar),
        Part::Sleepers => sleepers_section(plan, bar),
        Part::Preempted => preempted_section(plan, bar),
        Part::Stale => stale_section(plan, bar),
        Part::Lines => lines_section(plan, bar),
    }
}

/// How a workload is measured.
struct Timing {
    threads: Vec<usize>,
    warm_up: f64,
    speed: f64,
    latency: f64,
}

fn speed(plan: &Plan) -> Timing {
    let warm_up = plan.seconds / 3.0;
    Timing { threads: plan.threads.clone(), warm_up, speed: plan.seconds, latency: 0.0 }
}

fn times(plan: &Plan) -> Timing {
    let latency = plan.seconds * LATENCY_TIMES;
    Timing { threads: latency_threads(plan), warm_up: plan.seconds / 3.0, speed: 0.0, latency }
}

fn crowd(plan: &Plan) -> Timing {
    let latency = plan.seconds * CROWD_TIMES;
    Timing { threads: plan.crowd.clone(), warm_up: plan.seconds / 3.0, speed: 0.0, latency }
}

/// Returns the numbers of threads for latency: one, and as many as the hardware runs at once.
fn latency_threads(plan: &Plan) -> Vec<usize> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let most = plan.threads.iter().copied().filter(|&threads| threads <= cores).max();
    throughput::unique(&[plan.threads[0], most.unwrap_or(plan.threads[0])])
}

impl Timing {
    /// About how long one cache takes in one round.
    fn turn_micros(&self) -> f64 {
        let runs = self.threads.len() as f64 * (self.speed + self.latency);
        BUILD_MICROS + (self.warm_up + runs) * 1e6
    }

    fn run(&self, plan: &Plan, shape: Shape, bar: &Progress) -> Result<Vec<Cell>> {
        let threads = self.threads.iter().sum::<usize>() as f64;
        let seconds = (self.speed + self.latency) * threads + self.warm_up;
        bar.weigh(self.turn_micros() as u64);
        Rounds {
            kinds: &plan.kinds,
            plan: &workload::Plan::new(shape, seconds),
            threads: &self.threads,
            rounds: plan.rounds,
            warm_up: Duration::from_secs_f64(self.warm_up),
            speed: Duration::from_secs_f64(self.speed),
            latency: Duration::from_secs_f64(self.latency),
            batch: 1,
        }
        .run(bar)
    }
}

/// Returns a column of one number of threads: a figure for each cache.
fn column(
    cells: &[Cell],
    threads: usize,
    head: String,
    better: Better,
    show: fn(f64) -> String,
    figure: impl Fn(&Cell) -> Spread,
) -> Column {
    let spreads = cells.iter().filter(|cell| cell.threads == threads);
    Column::new(head, better, show, spreads.map(|cell| Some(figure(cell))).collect())
}

fn threads_text(threads: usize) -> String {
    if threads == 1 { "1 thread".to_owned() } else { format!("{threads} threads") }
}

fn nanos(figure: f64) -> String {
    report::nanos(figure.round() as u64)
}

fn throughput_section(plan: &Plan, bar: &Progress) -> Result<Section> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let mut section = Section {
        id: "throughput".to_owned(),
        title: "Throughput: operations a second over threads".to_owned(),
        text: format!(
            "All threads work on one cache as fast as they can; what is shown is what they do \
             together. Here {} run at once; where there are more, they take turns. Values have \
             100 bytes in the first workload, 8 in the others. The tables give millions of \
             operations a second.",
            threads_text(cores)
        ),
        blocks: Vec::new(),
        notes: Vec::new(),
        standings: Vec::new(),
    };
    for (workload, name) in WORKLOADS {
        bar.label(format!("throughput, {}", workload.name()));
        let mut shape = match workload {
            Workload::Mixed | Workload::ReadThrough => {
                Shape::usual(workload, Some(plan.keys), plan.seed)
            }
            _ => Shape::usual(workload, None, plan.seed),
        };
        if workload == Workload::Mixed {
            shape.value_bytes = 100;
        }
        let cells = speed(plan).run(plan, shape, bar)?;
        let title = format!("Throughput: {name}");
        let note = format!("{}; higher is better", described(&shape));
        let columns: Vec<Column> = plan
            .threads
            .iter()
            .map(|&threads| {
                let head = threads_text(threads);
                column(&cells, threads, head, Better::Higher, report::millions, Cell::rate)
            })
            .collect();
        for column in columns.iter().take(1).chain(columns.get(1)) {
            let what = format!("{name}, {}: million operations a second", column.head);
            section.standings.extend(column.standing(&plan.kinds, what));
        }
        section.blocks.push(Block {
            chart: Chart::Curves(throughput::panel(&cells, &plan.threads, title, note)),
            table: table(&plan.kinds, &columns),
        });
        if let Some(text) = hit_ratios(&cells, name, workload) {
            section.notes.push(text);
        }
    }
    if plan.kinds.contains(&Kind::Stretto) {
        section.notes.push(
            "stretto queues inserts for a thread of its own, so a short run flatters it."
                .to_owned(),
        );
    }
    Ok(section)
}

/// Says in few words what a workload's figures are.
fn described(shape: &Shape) -> String {
    let capacity = report::grouped(shape.capacity as u64);
    match shape.workload {
        Workload::Churn => format!("capacity {capacity}"),
        Workload::Hits => format!("{} keys, all there", report::grouped(shape.keys.into())),
        _ => format!(
            "{} keys, Zipf {}, capacity {capacity}",
            report::grouped(shape.keys.into()),
            shape.zipf
        ),
    }
}

/// Says between what the hit ratios of a workload are, where caches miss at all.
fn hit_ratios(cells: &[Cell], name: &str, workload: Workload) -> Option<String> {
    if !matches!(workload, Workload::Mixed | Workload::ReadThrough) {
        return None;
    }
    let ratios = cells.iter().filter(|cell| cell.kind.is_bounded()).filter_map(Cell::hit_ratio);
    let (low, high) =
        ratios.fold((1.0, 0.0), |(low, high): (f64, f64), ratio| (low.min(ratio), high.max(ratio)));
    (low <= high).then(|| {
        let (low, high) = (low * 100.0, high * 100.0);
        format!("Hit ratios of the caches in \u{201c}{name}\u{201d}: {low:.1} to {high:.1} %.")
    })
}

fn latency_section(plan: &Plan, bar: &Progress) -> Result<Section> {
    bar.label("latency");
    let timing = times(plan);
    let mut shape = Shape::usual(Workload::Mixed, Some(plan.keys), plan.seed);
    shape.value_bytes = 100;
    let cells = timing.run(plan, shape, bar)?;
    let mut section = Section {
        id: "latency".to_owned(),
        title: "Latency: how long single operations take".to_owned(),
        text: format!(
            "Every fourth operation is timed by itself, with 80 % gets and 20 % inserts ({}). A \
             curve says within what time so many percent of the operations are done: the median \
             is at 50 %, and one in 10 000 takes longer than what stands at 99.99 %. One reading \
             of the clock, {} ns, is part of each figure. A curve ends where fewer than ten \
             operations are beyond it.",
            described(&shape),
            crate::drive::clock_cost().as_nanos()
        ),
        blocks: Vec::new(),
        notes: Vec::new(),
        standings: Vec::new(),
    };
    for &threads in &timing.threads {
        for (name, of) in OPERATIONS {
            let title = format!("Latency of {name}: {}", threads_text(threads));
            let columns = percentiles(&cells, threads, of, &latency::PERCENTILES);
            let tail = &columns[SUMMED_UP];
            let what = format!("{name}, {}: {}", threads_text(threads), tail.head);
            section.standings.extend(tail.standing(&plan.kinds, what));
            section.blocks.push(Block {
                chart: Chart::Curves(latency::panel(&cells, threads, title, of)),
                table: table(&plan.kinds, &columns),
            });
        }
    }
    Ok(section)
}

/// Returns a column for each percentile, and one for the longest operation.
fn percentiles(cells: &[Cell], threads: usize, of: Operations, fractions: &[f64]) -> Vec<Column> {
    let mut columns: Vec<Column> = fractions
        .iter()
        .map(|&fraction| {
            let head = percentile(fraction);
            let mut column = column(cells, threads, head, Better::Lower, nanos, |cell| {
                cell.quantile(of, fraction)
            });
            let cells = cells.iter().filter(|cell| cell.threads == threads);
            for (cell, spread) in cells.zip(&mut column.spreads) {
                let samples = of(&cell.latency()).count();
                spread.take_if(|_| !report::is_enough(samples, fraction));
            }
            column
        })
        .collect();
    columns.push(column(cells, threads, "worst".to_owned(), Better::Lower, nanos, |cell| {
        cell.quantile(of, 1.0)
    }));
    columns
}

fn percentile(fraction: f64) -> String {
    format!("p{}", (fraction * 1e6).round() / 1e4)
}

fn hit_ratio_section(plan: &Plan, traces: &Traces, bar: &Progress) -> Result<Section> {
    let kinds = replayed(plan);
    let mut section = Section {
        id: "hit-ratio".to_owned(),
        title: "Hit ratio over capacity".to_owned(),
        text: "Each access is a get, and on a miss an insert of the same key, by one thread that \
               lets each cache finish its work now and then. The higher the ratio, the fewer \
               trips to what is behind the cache. opt is Belady's bound: no cache can be above \
               it, and none that does not know the future reaches it."
            .to_owned(),
        blocks: Vec::new(),
        notes: Vec::new(),
        standings: Vec::new(),
    };
    bar.label("hit ratio");
    bar.weigh(1);
    for Numbered { rounds, capacities, is_made_up } in &traces.0 {
        let name = &rounds[0].name;
        // Of each capacity and cache, the percents of all rounds.
        let mut percents = vec![vec![Vec::new(); kinds.len()]; capacities.len()];
        for (round, trace) in rounds.iter().enumerate() {
            let seed = plan.seed.wrapping_add(round as u64);
            let hidden = Progress::hidden();
            let replayer = Replayer::new(trace, &kinds, Manner { threads: 1, seed })?;
            for (&capacity, percents) in capacities.iter().zip(&mut percents) {
                bar.step(format!("{name} at {capacity}, round {} of {}", round + 1, rounds.len()));
                for (&kind, percents) in kinds.iter().zip(percents) {
                    if !is_replayed(kind, round) {
                        continue;
                    }
                    let hits = replayer.hits(kind, capacity, &hidden)?.count;
                    percents.push(hits as f64 * 100.0 / trace.keys.len() as f64);
                    bar.inc(replay_micros(kind, trace));
                }
            }
        }
        let spread = |at: usize, cache: usize| Spread::of(&percents[at][cache]);
        let columns: Vec<Column> = (0..capacities.len())
            .map(|at| Column {
                head: report::grouped(capacities[at] as u64),
                better: Better::Higher,
                spreads: (0..kinds.len()).map(|cache| Some(spread(at, cache))).collect(),
                competes: |kind| kind != Kind::Opt,
                show: |percent| format!("{percent:.2}"),
            })
            .collect();
        let curves = kinds.iter().enumerate().map(|(cache, &kind)| {
            let points = capacities.iter().enumerate();
            let points = points.map(|(at, &capacity)| (capacity as f64, spread(at, cache)));
            Curve::with_spread(kind, points.collect())
        });
        let chart = Panel {
            title: format!("Hit ratio: {name}"),
            note: format!(
                "{} accesses{}; higher is better",
                report::grouped(rounds[0].keys.len() as u64),
                if *is_made_up { ", made up" } else { "" }
            ),
            x: Axis::new("capacity, entries", Scale::Auto, Unit::Count),
            y: Axis::new("hit ratio", Scale::Linear, Unit::Percent),
            curves: curves.collect(),
        };
        let mut table = table(&kinds, &columns);
        for row in &mut table.rows {
            row.best.clear();
        }
        let all: Vec<usize> = (0..kinds.len()).collect();
        for (at, &capacity) in capacities.iter().enumerate() {
            let figures: Vec<_> = kinds
                .iter()
                .enumerate()
                .map(|(i, &kind)| competes(kind, capacity).then(|| spread(at, i).median))
                .collect();
            table.mark(1 + at, Better::Higher, &all, &figures);
        }
        if let Some(middle) = columns.get(columns.len() / 2) {
            let capacity = capacities[columns.len() / 2];
            let fair: Vec<usize> =
                (0..kinds.len()).filter(|&i| competes(kinds[i], capacity)).collect();
            let column = Column {
                head: middle.head.clone(),
                better: Better::Higher,
                spreads: fair.iter().map(|&i| middle.spreads[i]).collect(),
                competes: Kind::is_bounded,
                show: middle.show,
            };
            let kinds: Vec<Kind> = fair.iter().map(|&i| kinds[i]).collect();
            let what = format!("hit ratio in percent, {name}, capacity {}", middle.head);
            section.standings.extend(column.standing(&kinds, what));
        }
        section.blocks.push(Block { chart: Chart::Curves(chart), table });
    }
    let mut capacities: Vec<usize> =
        traces.0.iter().flat_map(|numbered| numbered.capacities.iter().copied()).collect();
    capacities.sort_unstable();
    capacities.dedup();
    section.notes.extend(rounding(&kinds, &capacities).lines().map(str::to_owned));
    if kinds.contains(&Kind::Stretto) && plan.rounds > 1 {
        section.notes.push(
            "stretto is replayed in the first round only, because each wait for its thread takes \
             long."
                .to_owned(),
        );
    }
    if traces.0.iter().any(|numbered| numbered.is_made_up) {
        section.notes.push(
            "Made-up traces are made for each round, with seeds that follow each other; \
             `cortado-replay hit-ratio --help` describes them. Real programs differ: replay a \
             trace of yours with `report --at FILE@CAPACITY,...`."
                .to_owned(),
        );
    }
    Ok(section)
}

/// Measures each cache in each round and case, the caches interleaved; returns of each case and
/// cache the figures of all rounds.
fn rounds<F>(
    plan: &Plan,
    kinds: &[Kind],
    cases: usize,
    bar: &Progress,
    mut measure: impl FnMut(usize, Kind) -> Result<F>,
) -> Result<Vec<Vec<Vec<F>>>> {
    let mut figures: Vec<Vec<Vec<F>>> =
        (0..cases).map(|_| kinds.iter().map(|_| Vec::new()).collect()).collect();
    for round in 0..plan.rounds {
        for (case, figures) in figures.iter_mut().enumerate() {
            for place in 0..kinds.len() {
                let place = (place + round) % kinds.len();
                let kind = kinds[place];
                bar.step(format!("round {} of {}: {}", round + 1, plan.rounds, kind.name()));
                figures[place].push(measure(case, kind)?);
                bar.inc(1);
            }
        }
    }
    Ok(figures)
}

fn memory_section(plan: &Plan, bar: &Progress) -> Result<Section> {
    bar.label("memory");
    bar.weigh(memory_micros(plan) as u64);
    let kinds = &plan.kinds;
    let measured = rounds(plan, kinds, VALUE_BYTES.len(), bar, |case, kind| {
        let value_bytes = VALUE_BYTES[case];
        Ok(MemoryCell { cache: kind, entries: plan.entries, value_bytes }.spawn()?.overhead)
    })?;
    let spreads: Vec<Vec<Spread>> =
        measured.iter().map(|case| case.iter().map(|f| Spread::of(f)).collect()).collect();
    let columns: Vec<Column> = VALUE_BYTES
        .iter()
        .zip(&spreads)
        .map(|(bytes, spreads)| {
            let spreads = spreads.iter().copied().map(Some).collect();
            let show = |bytes| format!("{bytes:.1}");
            Column::new(format!("{bytes}-byte values"), Better::Lower, show, spreads)
        })
        .collect();
    let standings = columns
        .iter()
        .filter_map(|column| column.standing(kinds, format!("bytes an entry, {}", column.head)))
        .collect();
    let bars = kinds
        .iter()
        .enumerate()
        .map(|(i, &kind)| (kind, spreads.iter().map(|spreads| spreads[i]).collect()));
    Ok(Section {
        id: "memory".to_owned(),
        title: "Memory: bytes an entry costs besides key and value".to_owned(),
        text: format!(
            "Each cache is made for {} entries and filled with as many; its live bytes, counted \
             by the allocator, less 8 bytes of key and the value, are divided by the entries that \
             it holds. Each figure comes from a process of its own.",
            report::grouped(plan.entries as u64)
        ),
        blocks: vec![Block {
            chart: Chart::Bars(Bars {
                title: "Memory: bytes an entry costs besides key and value".to_owned(),
                note: "lower is better".to_owned(),
                unit: Unit::Bytes,
                line: None,
                groups: columns.iter().map(|column| column.head.clone()).collect(),
                bars: bars.collect(),
            }),
            table: table(kinds, &columns),
        }],
        notes: sentences(rounded(kinds, &[plan.entries])),
        standings,
    })
}

fn budget_section(plan: &Plan, bar: &Progress) -> Result<Section> {
    bar.label("budget");
    bar.weigh(budget_micros() as u64);
    let kinds = bounded(plan);
    let limit_ms = BURST.as_millis() as u64;
    let measured = rounds(plan, &kinds, BUDGETS.len(), bar, |case, cache| {
        let (capacity, writers) = BUDGETS[case];
        let cell =
            BudgetCell { cache, capacity, writers, inserts: u64::MAX, value_bytes: 0, limit_ms };
        Ok(cell.spawn()?.peak_live as f64 * 100.0 / capacity as f64)
    })?;
    let spreads: Vec<Vec<Spread>> =
        measured.iter().map(|case| case.iter().map(|f| Spread::of(f)).collect()).collect();
    let columns: Vec<Column> = BUDGETS
        .iter()
        .zip(&spreads)
        .map(|(&(capacity, writers), spreads)| {
            let capacity = report::grouped(capacity as u64);
            let head = format!("capacity {capacity}, {writers} writers");
            let show = |percent| format!("{percent:.1} %");
            Column::new(head, Better::Lower, show, spreads.iter().copied().map(Some).collect())
        })
        .collect();
    let standings = columns
        .iter()
        .filter_map(|column| column.standing(&kinds, format!("most values alive, {}", column.head)))
        .collect();
    let bars = kinds
        .iter()
        .enumerate()
        .map(|(i, &kind)| (kind, spreads.iter().map(|spreads| spreads[i]).collect()));
    Ok(Section {
        id: "budget".to_owned(),
        title: "Budget: the most values that are alive at once".to_owned(),
        text: format!(
            "Threads insert new keys for {} s; values count themselves from their making to \
             their drop. The line is at 100 %, what the cache was told to hold. Above it are \
             values on their way in, values that wait to be freed, and, in some caches, entries \
             beyond the capacity. In cortado what can be found never costs more than the budget; \
             what is above is removed and not freed yet.",
            BURST.as_secs_f64()
        ),
        blocks: vec![Block {
            chart: Chart::Bars(Bars {
                title: "Budget: most values alive, in percent of the capacity".to_owned(),
                note: "the line is the capacity; lower is better".to_owned(),
                unit: Unit::Percent,
                line: Some(100.0),
                groups: columns.iter().map(|column| column.head.clone()).collect(),
                bars: bars.collect(),
            }),
            table: table(&kinds, &columns),
        }],
        notes: sentences(rounded(&kinds, &BUDGETS.map(|(capacity, _)| capacity))),
        standings,
    })
}

fn sleepers_section(plan: &Plan, bar: &Progress) -> Result<Section> {
    bar.label("sleeping threads");
    let kinds = &plan.kinds;
    let mut notes: Vec<String> = Vec::new();
    let micros = plan.sleepers.iter().map(|&sleepers| sleepers_micros(plan, sleepers));
    bar.weigh((micros.sum::<f64>() / plan.sleepers.len().max(1) as f64) as u64);
    let round_ms = (plan.seconds * 1e3).ceil() as u64;
    let measured = rounds(plan, kinds, plan.sleepers.len(), bar, |case, cache| {
        let sleepers = plan.sleepers[case];
        match (SleepersCell { cache, sleepers, rounds: 1, round_ms }).spawn() {
            Ok(measured) => Ok(measured.nanos),
            Err(error) if sleepers > 0 => {
                let name = cache.name();
                notes.push(format!("A round is left out: {name} beside {sleepers} ({error})."));
                Ok(Vec::new())
            }
            Err(error) => Err(error),
        }
    })?;
    let mut columns = Vec::new();
    let mut points = vec![Vec::new(); kinds.len()];
    for (&sleepers, case) in plan.sleepers.iter().zip(&measured) {
        let spreads = case.iter().zip(&mut points).map(|(rounds, points)| {
            let nanos = rounds.concat();
            let spread = (!nanos.is_empty()).then(|| Spread::of(&nanos));
            points.extend(spread.map(|spread| (sleepers as f64, spread)));
            spread
        });
        let head = report::grouped(sleepers as u64);
        let show = |nanos| format!("{nanos:.1} ns");
        columns.push(Column::new(head, Better::Lower, show, spreads.collect()));
    }
    let standings = columns
        .iter()
        .filter_map(|column| {
            column.standing(kinds, format!("a hit beside {} sleeping threads", column.head))
        })
        .collect();
    let curves =
        kinds.iter().zip(points).map(|(&kind, points)| Curve::with_spread(kind, points)).collect();
    let marks = plan.sleepers.iter().map(|&sleepers| sleepers as f64).collect();
    Ok(Section {
        id: "sleepers".to_owned(),
        title: "A hit beside threads that sleep".to_owned(),
        text: "As many threads read the cache once and then sleep, as those of a large pool do; \
               one thread goes on with gets that hit, among 1 000 entries. Some caches keep a \
               list of all threads that have read them, and walk it while others read. Each \
               figure comes from a process of its own."
            .to_owned(),
        blocks: vec![Block {
            chart: Chart::Curves(Panel {
                title: "A hit beside threads that sleep".to_owned(),
                note: "time of a hit over the number of threads that sleep; lower is better"
                    .to_owned(),
                x: Axis { marks, ..Axis::new("threads that sleep", Scale::Linear, Unit::Count) },
                y: Axis::new("time of a hit", Scale::Log, Unit::Nanos),
                curves,
            }),
            table: table(kinds, &columns),
        }],
        notes,
        standings,
    })
}

fn preempted_section(plan: &Plan, bar: &Progress) -> Result<Section> {
    bar.label("preempted writers");
    let shape = Shape {
        zipf: CROWD_ZIPF,
        reads: CROWD_READS,
        capacity: CROWD_KEYS as usize * 2,
        ..Shape::usual(Workload::Mixed, Some(CROWD_KEYS), plan.seed)
    };
    let cells = crowd(plan).run(plan, shape, bar)?;
    let gets: Operations = OPERATIONS[0].1;
    let fractions = [0.99, 0.999];
    let mut section = Section {
        id: "preempted".to_owned(),
        title: "Reads while writers are preempted".to_owned(),
        text: format!(
            "More threads than cores do {CROWD_READS} % gets and {} % inserts of {} keys that are \
             all there (Zipf {CROWD_ZIPF}), so the system takes threads off their cores at any \
             instruction. A writer that is taken off while it holds a lock makes readers wait \
             until it runs again, milliseconds later. A reader is taken off its core itself, too, \
             but seldom in the middle of a read: that shows beyond 99.99 %, in every cache.",
            100 - CROWD_READS,
            report::grouped(CROWD_KEYS.into())
        ),
        blocks: Vec::new(),
        notes: Vec::new(),
        standings: Vec::new(),
    };
    for fraction in fractions {
        let name = percentile(fraction);
        let columns: Vec<Column> = plan
            .crowd
            .iter()
            .map(|&threads| {
                let head = threads_text(threads);
                column(&cells, threads, head, Better::Lower, nanos, |cell| {
                    cell.quantile(gets, fraction)
                })
            })
            .collect();
        if let Some(last) = columns.last() {
            let what = format!("{name} of a get among {}", last.head);
            section.standings.extend(last.standing(&plan.kinds, what));
        }
        let curves = cells.chunks(plan.crowd.len()).map(|cells| {
            let points = cells.iter();
            let points = points.map(|cell| (cell.threads as f64, cell.quantile(gets, fraction)));
            Curve::with_spread(cells[0].kind, points.collect())
        });
        section.blocks.push(Block {
            chart: Chart::Curves(Panel {
                title: format!("Reads while writers are preempted: {name} of a get"),
                note: format!(
                    "{} of the gets are done within the time; lower is better",
                    Unit::Fraction.label(fraction)
                ),
                x: Axis { scale: Scale::Log, ..Axis::threads(&plan.crowd) },
                y: Axis::new("time of a get", Scale::Log, Unit::Nanos),
                curves: curves.collect(),
            }),
            table: table(&plan.kinds, &columns),
        });
    }
    Ok(section)
}

fn stale_section(plan: &Plan, bar: &Progress) -> Result<Section> {
    bar.label("stale reads");
    bar.weigh((plan.seconds * 1e6) as u64);
    let kinds = bounded(plan);
    let time = Duration::from_secs_f64(plan.seconds);
    let measured = rounds(plan, &kinds, 1, bar, |_, kind| stale::measure(kind, time, plan.seed))?;
    type View = fn(&Stale) -> f64;
    let views: [(&str, View); 4] = [
        ("stale, own writes", |stale| stale.own.stale_percent()),
        ("stale, of another thread", |stale| stale.other.stale_percent()),
        ("found nothing, own writes", |stale| stale.own.lost_percent()),
        ("found nothing, of another thread", |stale| stale.other.lost_percent()),
    ];
    let columns: Vec<Column> = views
        .iter()
        .map(|(head, view)| {
            let spreads = measured[0]
                .iter()
                .map(|stales| Some(Spread::of(&stales.iter().map(view).collect::<Vec<_>>())));
            Column::new(*head, Better::Lower, share, spreads.collect())
        })
        .collect();
    let standings = columns[..2]
        .iter()
        .filter_map(|column| column.standing(&kinds, format!("reads that are {}", column.head)))
        .collect();
    let bars = kinds.iter().enumerate().map(|(i, &kind)| {
        (kind, columns[..2].iter().filter_map(|column| column.spreads[i]).collect())
    });
    Ok(Section {
        id: "stale".to_owned(),
        title: "Stale reads".to_owned(),
        text: "A thread replaces values and reads each back at once; another reads them, too. A \
               read is stale if it returns a value although the insert of a newer one had \
               returned before the read began. There is room for all keys, so a read that finds \
               nothing is a write that was lost or is still on its way."
            .to_owned(),
        blocks: vec![Block {
            chart: Chart::Bars(Bars {
                title: "Reads that return a value that was replaced".to_owned(),
                note: "in percent of the reads; lower is better".to_owned(),
                unit: Unit::Percent,
                line: None,
                groups: columns[..2].iter().map(|column| column.head.clone()).collect(),
                bars: bars.collect(),
            }),
            table: table(&kinds, &columns),
        }],
        notes: vec![
            "Not measured here: values that a load brings in while the key is removed or \
             replaced. The caches differ too much in what they offer for it."
                .to_owned(),
        ],
        standings,
    })
}

fn countable(plan: &Plan) -> Vec<Kind> {
    plan.kinds.iter().copied().filter(|&kind| lines::is_countable(kind)).collect()
}

fn lines_section(plan: &Plan, bar: &Progress) -> Result<Section> {
    bar.label("shared lines");
    bar.weigh(LINES_MICROS as u64);
    let kinds = countable(plan);
    let mut section = Section {
        id: "lines".to_owned(),
        title: "Shared cache lines that an operation writes".to_owned(),
        text: "A cache line that several cores write goes from one to the other, and each waits \
               for it. So the lines that an operation writes, other than those of its own thread, \
               predict how it behaves on more cores than there are here. Lines that depend on the \
               key, such as its bucket, seldom meet; the second chart has those that both threads \
               write whatever their keys are: with one of them at each operation, all cores wait \
               for that line, and more of them do no more. Lines are counted, not estimated: \
               memory is made read-only, and each write is noted when it faults."
            .to_owned(),
        blocks: Vec::new(),
        notes: Vec::new(),
        standings: Vec::new(),
    };
    if kinds.is_empty() {
        section.notes.push(
            "Left out: lines are counted for x86_64 on Linux, and not of caches with a thread of \
             their own."
                .to_owned(),
        );
        return Ok(section);
    }
    let counted = rounds(plan, &kinds, OPS.len(), bar, |case, cache| {
        LinesCell { cache, op: OPS[case].0 }.spawn()
    })?;
    type View = fn(&Lines) -> f64;
    let views: [(&str, &str, View); 2] = [
        ("Shared cache lines written", "those of the key included", |lines| lines.shared),
        ("Cache lines that all threads write", "whatever the key is", |lines| lines.hot),
    ];
    for (title, which, view) in views {
        let columns: Vec<Column> = OPS
            .iter()
            .zip(&counted)
            .map(|((_, head), case)| {
                let spreads = case
                    .iter()
                    .map(|rounds| Some(Spread::of(&rounds.iter().map(view).collect::<Vec<_>>())));
                let show = |lines| format!("{lines:.2}");
                Column::new(*head, Better::Lower, show, spreads.collect())
            })
            .collect();
        for column in &columns {
            let what = format!("{title}, {}", column.head);
            section.standings.extend(column.standing(&kinds, what));
        }
        let bars = kinds.iter().enumerate().map(|(i, &kind)| {
            (kind, columns.iter().filter_map(|column| column.spreads[i]).collect())
        });
        section.blocks.push(Block {
            chart: Chart::Bars(Bars {
                title: title.to_owned(),
                note: format!("{which}; mean of 400 operations by two threads; lower is better"),
                unit: Unit::Mean,
                line: None,
                groups: columns.iter().map(|column| column.head.clone()).collect(),
                bars: bars.collect(),
            }),
            table: table(&kinds, &columns),
        });
    }
    section.notes.push(
        "Not counted: stacks, thread-local variables, and the allocator's own variables. cortado \
         runs without its maintenance thread here, so inserts do that work, too. stretto is left \
         out, because its thread would write between."
            .to_owned(),
    );
    Ok(section)
}

fn sentences(lines: Vec<String>) -> Vec<String> {
    lines.into_iter().map(|line| line + ".").collect()
}

/// Writes a percent of reads, small ones with digits enough to tell them from none.
fn share(percent: f64) -> String {
    if percent == 0.0 {
        "0 %".to_owned()
    } else if percent < 0.01 {
        "under 0.01 %".to_owned()
    } else {
        format!("{percent:.2} %")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_have_their_usual_names() {
        assert_eq!(percentile(0.5), "p50");
        assert_eq!(percentile(0.999), "p99.9");
        assert_eq!(percentile(0.9999), "p99.99");
    }

    #[test]
    fn few_stale_reads_are_not_none() {
        assert_eq!(share(0.0), "0 %");
        assert_eq!(share(0.004), "under 0.01 %");
        assert_eq!(share(12.345), "12.35 %");
    }
}
