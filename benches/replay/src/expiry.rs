//! `expiry`: what deadlines cost, and how late entries leave.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use clap::Args;
use cortado::{Cache, InsertOptions, Maintenance, ManualClock, Priority, Removed, WorkLimit};
use serde::Serialize;

use crate::{
    alloc, cli,
    histogram::Histogram,
    report::{self, Format},
};

/// What deadlines cost cortado: memory, time per tick, and how late the last entry leaves.
///
/// First with a clock moved by hand, over an hour; then with the system's clock and the cache's thread, over
/// a few seconds without any access.
#[derive(Args, Debug)]
pub struct ExpiryArgs {
    /// The number of entries, whose deadlines are spread evenly.
    #[arg(long, default_value = "1000000", value_parser = cli::entries)]
    entries: usize,
    /// The step of the clock that is moved by hand.
    #[arg(long, default_value = "0.1", value_parser = cli::seconds)]
    step_seconds: f64,
    /// Over how long the deadlines of the second part are spread.
    #[arg(long, default_value = "10", value_parser = cli::seconds)]
    seconds: f64,
    /// How to print.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

#[derive(Serialize)]
struct Row {
    entries: usize,
    /// Bytes that an entry takes more for having a deadline, by the allocator.
    bytes_per_deadline: f64,
    /// Of these, what maintenance keeps.
    noted_per_deadline: f64,
    ticks: u64,
    tick_p50_ns: u64,
    tick_p999_ns: u64,
    tick_worst_ns: u64,
    ns_per_expiration: f64,
    late_p50_ns: u64,
    late_p999_ns: u64,
    late_worst_ns: u64,
    left_after: usize,
}

const HOUR: Duration = Duration::from_secs(3600);

/// Measures and prints.
pub fn run(args: &ExpiryArgs) -> Result<()> {
    alloc::start();
    let clock = ManualClock::new();
    let (plain, plain_bytes) = fill_and_count(args, &clock, None)?;
    let (timed, timed_bytes) = fill_and_count(args, &clock, Some(HOUR))?;
    // Not before: what is freed later than the drop would be missing from the second count.
    drop(plain);
    let noted = timed.memory().deadlines as f64;
    let entries = args.entries as f64;

    let step = Duration::from_secs_f64(args.step_seconds);
    let mut ticks = Histogram::new();
    let mut spent = Duration::ZERO;
    let mut now = Duration::ZERO;
    while now < HOUR + step {
        clock.advance(step);
        now += step;
        let start = Instant::now();
        timed.tick(WorkLimit::ALL);
        ticks.record(start.elapsed());
        spent += start.elapsed();
    }
    let left_after = timed.len();
    drop(timed);

    let late = lateness(args)?;
    let row = Row {
        entries: args.entries,
        bytes_per_deadline: (timed_bytes - plain_bytes) as f64 / entries,
        noted_per_deadline: noted / entries,
        ticks: ticks.count(),
        tick_p50_ns: ticks.quantile(0.5),
        tick_p999_ns: ticks.quantile(0.999),
        tick_worst_ns: ticks.worst(),
        ns_per_expiration: spent.as_nanos() as f64 / entries,
        late_p50_ns: late.quantile(0.5),
        late_p999_ns: late.quantile(0.999),
        late_worst_ns: late.worst(),
        left_after,
    };
    let text = report::render(args.format, std::slice::from_ref(&row), || {
        let time = |nanos| format!("{:?}", Duration::from_nanos(nanos));
        let lines = [
            ("entries", report::grouped(row.entries as u64)),
            ("bytes per deadline", format!("{:.1}", row.bytes_per_deadline)),
            ("  kept by maintenance", format!("{:.1}", row.noted_per_deadline)),
            ("ticks", report::grouped(row.ticks)),
            ("time per tick, median", time(row.tick_p50_ns)),
            ("  99.9 %", time(row.tick_p999_ns)),
            ("  worst", time(row.tick_worst_ns)),
            ("time per expiration", format!("{:.0} ns", row.ns_per_expiration)),
            ("entries left in the end", report::grouped(row.left_after as u64)),
            ("lateness, median", time(row.late_p50_ns)),
            ("  99.9 %", time(row.late_p999_ns)),
            ("  worst", time(row.late_worst_ns)),
        ];
        let lines = lines.map(|(what, figure)| vec![what.to_owned(), figure]);
        report::table(&["figure", "value"], lines.to_vec())
            + &format!(
                "deadlines spread over an hour, a tick every {step:?} of a clock moved by hand; lateness: from \
                 a deadline to\nthe listener's call, over {} s, by the cache's own thread, with no other thread active\n",
                args.seconds
            )
    })?;
    report::print(&text)
}

/// Nothing but time removes these.
fn options() -> InsertOptions {
    InsertOptions::new().priority(Priority::Pinned)
}

/// Fills a cache; returns it and the bytes that it takes beside its table.
///
/// The table has nothing of deadlines, and it grows or not by how the keys are hashed. While it
/// grows it leaves garbage, which is freed before the count.
fn fill_and_count(
    args: &ExpiryArgs,
    clock: &ManualClock,
    over: Option<Duration>,
) -> Result<(Cache<u64, u64>, i64)> {
    let before = alloc::live();
    let cache = fill(args, clock, over)?;
    cache.flush();
    let bytes = alloc::live() - before - cache.memory().table as i64;
    Ok((cache, bytes))
}

fn fill(args: &ExpiryArgs, clock: &ManualClock, over: Option<Duration>) -> Result<Cache<u64, u64>> {
    let cache = Cache::builder()
        .max_cost(args.entries as u64)
        .expected_entries(args.entries)
        .maintenance(Maintenance::Manual)
        .clock(clock.clone())
        .build()?;
    for key in 0..args.entries as u64 {
        let options = match over {
            Some(over) => options().ttl(over.mul_f64((key + 1) as f64 / args.entries as f64)),
            None => options(),
        };
        anyhow::ensure!(cache.insert_with(key, key, options).is_in(), "entry {key} was rejected");
    }
    Ok(cache)
}

/// Has the thread remove everything, and returns how late each entry went.
fn lateness(args: &ExpiryArgs) -> Result<Histogram> {
    let start = Instant::now();
    let late = Arc::new(std::sync::Mutex::new(Histogram::new()));
    let gone = Arc::new(AtomicU64::new(0));
    let (teller, count) = (Arc::clone(&late), Arc::clone(&gone));
    let cache = Cache::builder()
        .max_cost(args.entries as u64)
        .expected_entries(args.entries)
        .on_remove(move |removed: Removed<u64, u64>| {
            let now = start.elapsed();
            let late = now.saturating_sub(Duration::from_nanos(removed.value));
            teller.lock().expect("no thread panics while holding it").record(late);
            count.fetch_add(1, Relaxed);
        })
        .build()?;
    let spread = Duration::from_secs_f64(args.seconds);
    // After all are in.
    let first = Duration::from_secs_f64(2.0 + args.entries as f64 / 1e6);
    for key in 0..args.entries as u64 {
        let at = first + spread.mul_f64(key as f64 / args.entries as f64);
        let ttl = at.saturating_sub(start.elapsed());
        let value = at.as_nanos() as u64;
        anyhow::ensure!(
            cache.insert_with(key, value, options().ttl(ttl)).is_in(),
            "entry {key} was rejected"
        );
    }
    let end = start.elapsed() + first + spread + Duration::from_secs(60);
    while gone.load(Relaxed) < args.entries as u64 {
        anyhow::ensure!(start.elapsed() < end, "{} entries never left", cache.len());
        thread::sleep(Duration::from_millis(50));
    }
    let late = late.lock().ok().context("the listener panicked")?.clone();
    Ok(late)
}
