//! `near`: a near cache, caches by hand and no cache in front of a real server.

mod client;
mod server;
mod turn;

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use clap::{Args, ValueEnum as _};
use serde::Serialize;

use crate::cli;
use crate::near::client::{Limits, Way};
use crate::near::turn::{Outcome, Rest, Tally, Work};
use crate::progress::{Progress, Unit};
use crate::report::{self, Better, Format, Spread, Table};
use crate::trace::zipf::Zipf;

/// Reads of a Redis or Valkey server: by cortado-near, by moka in front of it, and by no cache.
///
/// Readers read keys that writers increment past the caches. Each way to read has a server of its
/// own in each round, a program of this machine on the loopback device: valkey-server or
/// redis-server has to be installed. All tasks share one tokio runtime, and the caches have room
/// for all keys.
#[derive(Args, Debug)]
pub struct NearArgs {
    /// The ways to read.
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = Way::value_variants().to_vec())]
    way: Vec<Way>,
    /// The number of tasks that read.
    #[arg(long, default_value = "16", value_parser = cli::tasks)]
    readers: usize,
    /// The number of tasks that write.
    #[arg(long, default_value = "4", value_parser = cli::tasks)]
    writers: usize,
    /// Writes a second of all writers together; 0 for as many as the server takes.
    #[arg(long, default_value_t = 0)]
    writes: u32,
    /// The number of distinct keys.
    #[arg(long, default_value = "50", value_parser = cli::server_keys)]
    keys: u32,
    /// Zipf's exponent, 0 for keys all alike.
    #[arg(long, default_value = "0.99", value_parser = cli::zipf, allow_negative_numbers = true)]
    zipf: f64,
    /// The longest time in seconds that a value is kept where the server reports changes.
    #[arg(long, default_value = "30", value_parser = cli::seconds)]
    max_age: f64,
    /// The time to live in seconds of `moka-ttl`, to which the server reports no changes.
    #[arg(long, default_value = "0.1", value_parser = cli::seconds)]
    ttl: f64,
    /// The number of rounds.
    #[arg(long, default_value = "3", value_parser = cli::rounds)]
    rounds: usize,
    /// The time of one measurement, of one way in one round.
    #[arg(long, default_value = "0.75", value_parser = cli::seconds)]
    seconds: f64,
    /// Where random choices begin.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How to print.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

impl NearArgs {
    /// Returns the ways, each once.
    fn ways(&self) -> Vec<Way> {
        let mut ways = Vec::new();
        for &way in &self.way {
            if !ways.contains(&way) {
                ways.push(way);
            }
        }
        ways
    }

    fn work(&self) -> Work {
        let limits = Limits {
            // Twice the keys, so that no cache has a reason to evict.
            entries: 2 * u64::from(self.keys) + 1000,
            max_age: Duration::from_secs_f64(self.max_age),
            ttl: Duration::from_secs_f64(self.ttl),
        };
        Work {
            readers: self.readers,
            writers: self.writers,
            writes: self.writes,
            keys: self.keys,
            zipf: Zipf::new(self.keys, self.zipf),
            time: Duration::from_secs_f64(self.seconds),
            seed: self.seed,
            limits,
        }
    }

    /// Says what was done.
    fn describe(&self, server: &str) -> String {
        let rate = match self.writes {
            0 => "as often as the server takes it".to_owned(),
            rate => format!("{} times a second", report::grouped(rate.into())),
        };
        format!(
            "{} readers; {} writers increment keys past the caches, {rate}; {} keys, Zipf {}, seed {}\n\
             values are kept for {} s at most, those of moka-ttl for {} s; {} rounds of {} s, each on a \
             server of its own\n{server}, {}\n",
            self.readers,
            self.writers,
            report::grouped(self.keys.into()),
            self.zipf,
            self.seed,
            self.max_age,
            self.ttl,
            self.rounds,
            self.seconds,
            report::machine()
        )
    }
}

#[derive(Serialize)]
struct Row {
    way: Way,
    reads_per_second_median: f64,
    reads_per_second_min: f64,
    reads_per_second_max: f64,
    writes_per_second: f64,
    reads: u64,
    hit_ratio: f64,
    round_trips: u64,
    stale_reads: u64,
    backwards: u64,
    held_at_rest: u64,
    stale_at_rest: u64,
    p50_ns: u64,
    p99_ns: u64,
}

impl Row {
    /// Returns the figures of all rounds together.
    fn of(way: Way, outcomes: &[Outcome]) -> Self {
        let mut tally = Tally::new();
        let mut rest = Rest::default();
        let (mut round_trips, mut writes, mut seconds) = (0, 0, 0.0);
        for outcome in outcomes {
            tally.merge(&outcome.tally);
            rest.held += outcome.rest.held;
            rest.stale += outcome.rest.stale;
            round_trips += outcome.round_trips;
            writes += outcome.writes;
            seconds += outcome.elapsed.as_secs_f64();
        }
        let rates = outcomes
            .iter()
            .map(|outcome| outcome.tally.reads.all as f64 / outcome.elapsed.as_secs_f64());
        let rate = Spread::of(&rates.collect::<Vec<_>>());
        Self {
            way,
            reads_per_second_median: rate.median,
            reads_per_second_min: rate.min,
            reads_per_second_max: rate.max,
            writes_per_second: writes as f64 / seconds,
            reads: tally.reads.all,
            hit_ratio: tally.hits as f64 / tally.reads.all.max(1) as f64,
            round_trips,
            stale_reads: tally.reads.stale,
            backwards: tally.backwards,
            held_at_rest: rest.held,
            stale_at_rest: rest.stale,
            p50_ns: tally.latency.quantile(0.5),
            p99_ns: tally.latency.quantile(0.99),
        }
    }

    /// Returns whether no reader saw versions go back, and nothing stale was left.
    fn is_coherent(&self) -> bool {
        self.backwards == 0 && self.stale_at_rest == 0
    }
}

/// Measures and prints.
pub fn run(args: &NearArgs) -> Result<()> {
    report::too_short(args.seconds, args.rounds).iter().for_each(|text| report::warn(text));
    let ways = args.ways();
    let work = Arc::new(args.work());
    let bar = Progress::new((ways.len() * args.rounds) as u64, Unit::Runs);
    let mut outcomes: Vec<Vec<Outcome>> = ways.iter().map(|_| Vec::new()).collect();
    for round in 0..args.rounds {
        for i in 0..ways.len() {
            let place = (i + round) % ways.len();
            let name = ways[place].name();
            bar.step(format!("round {} of {}: {name}", round + 1, args.rounds));
            outcomes[place].push(turn::measure(ways[place], &work, round)?);
            bar.inc(1);
        }
    }
    bar.finish();
    let rows: Vec<_> =
        ways.iter().zip(&outcomes).map(|(&way, outcomes)| Row::of(way, outcomes)).collect();
    let server = outcomes.iter().flatten().next().map_or("", |outcome| &outcome.server);
    let text = report::render(args.format, &rows, || {
        table(&rows).draw()
            + &args.describe(server)
            + "hit: a read that did not have to wait. stale: a newer version was acknowledged before \
               the read began.\nbackwards: the reader had seen a newer version. at rest: entries that \
               differ from the server's after the\nlast invalidation has arrived. Counts are of all \
               rounds together.\n"
    })?;
    report::print(&text)
}

fn table(rows: &[Row]) -> Table {
    let mut table = Table::new([
        "way",
        "reads/s",
        "min - max",
        "writes/s",
        "hit %",
        "round trips",
        "stale %",
        "backwards",
        "stale at rest",
        "p50 µs",
        "p99 µs",
    ]);
    let count = |number: f64| report::grouped(number.round() as u64);
    for row in rows {
        let percent = |part: u64| 100.0 * part as f64 / row.reads.max(1) as f64;
        let cells = vec![
            row.way.name().to_owned(),
            count(row.reads_per_second_median),
            format!("{} - {}", count(row.reads_per_second_min), count(row.reads_per_second_max)),
            count(row.writes_per_second),
            format!("{:.1}", row.hit_ratio * 100.0),
            report::grouped(row.round_trips),
            format!("{:.3}", percent(row.stale_reads)),
            report::grouped(row.backwards),
            format!("{} of {}", row.stale_at_rest, row.held_at_rest),
            micros(row.p50_ns),
            micros(row.p99_ns),
        ];
        table.rows.push(report::Row { cells, is_own: row.way.is_own(), best: Vec::new() });
    }
    let all: Vec<_> = (0..rows.len()).collect();
    for (column, better, figure) in [
        (1, Better::Higher, (|row| row.reads_per_second_median) as fn(&Row) -> f64),
        (9, Better::Lower, |row| row.p50_ns as f64),
        (10, Better::Lower, |row| row.p99_ns as f64),
    ] {
        // The speed of a way that returns old values is no merit.
        let figures = rows.iter().map(|row| Some(figure(row)).filter(|_| row.is_coherent()));
        table.mark(column, better, &all, &figures.collect::<Vec<_>>());
    }
    table
}

/// Returns nanoseconds as microseconds, with three significant digits below a thousand.
fn micros(nanos: u64) -> String {
    match nanos {
        0..10_000 => format!("{:.2}", nanos as f64 / 1e3),
        10_000..100_000 => format!("{:.1}", nanos as f64 / 1e3),
        _ => report::grouped((nanos as f64 / 1e3).round() as u64),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stale::Reads;

    fn outcome(reads: u64, seconds: u64, stale_at_rest: u64) -> Outcome {
        let mut tally = Tally::new();
        tally.reads = Reads { all: reads, stale: 1, lost: 0 };
        tally.hits = reads / 2;
        let elapsed = Duration::from_secs(seconds);
        let rest = Rest { held: 50, stale: stale_at_rest };
        let server = "Redis 1".to_owned();
        Outcome { tally, elapsed, round_trips: reads / 2, writes: 30, rest, server }
    }

    #[test]
    fn row_has_the_median_rate_and_the_sum_of_counts() {
        let row = Row::of(Way::Redis, &[outcome(100, 1, 0), outcome(400, 2, 3)]);
        assert_eq!(row.reads_per_second_median, 150.0);
        assert_eq!((row.reads_per_second_min, row.reads_per_second_max), (100.0, 200.0));
        assert_eq!((row.writes_per_second, row.hit_ratio), (20.0, 0.5));
        assert_eq!((row.reads, row.round_trips, row.stale_reads), (500, 250, 2));
        assert_eq!((row.held_at_rest, row.stale_at_rest), (100, 3));
    }

    #[test]
    fn way_that_leaves_stale_entries_is_not_the_best() {
        let row = |way, reads, stale| Row::of(way, &[outcome(reads, 1, stale)]);
        let table = table(&[
            row(Way::Redis, 100, 0),
            row(Way::MokaPerKey, 900, 1),
            row(Way::CortadoPerKey, 800, 0),
        ]);
        let is_best = |i: usize| table.rows[i].best.contains(&1);
        assert_eq!((is_best(0), is_best(1), is_best(2)), (false, false, true));
        assert!(table.rows[2].is_own && !table.rows[1].is_own);
        assert_eq!(table.rows[1].cells[8], "1 of 50");
    }

    #[test]
    fn microseconds_have_three_digits() {
        assert_eq!(micros(140), "0.14");
        assert_eq!(micros(65_432), "65.4");
        assert_eq!(micros(1_234_567), "1 235");
    }
}
