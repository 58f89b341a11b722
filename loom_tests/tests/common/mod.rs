//! Runs a scenario under the model checker of the build: loom in its three load modes, or shuttle
//! with random and with PCT schedules.
//!
//! A scenario is a closure that creates its own cache components, spawns two or three threads
//! through `cortado::__internals::sync::thread`, joins them and asserts. It is run many times, so
//! it must be deterministic: no clock, no random hasher. Data collected for its own checks goes
//! into `std::sync::Mutex`es, which no model sees and which therefore order nothing.
//!
//! Environment variables:
//!
//! * `LOOM_MAX_PREEMPTIONS` and `LOOM_MAX_DURATION` (seconds a mode) override the bounds;
//! * `CORTADO_LOAD_MODE` (`plain`, `rmw` or `writers`) selects one mode;
//! * `SHUTTLE_ITERATIONS` and `SHUTTLE_SEED` override the number of schedules of each kind (scaled
//!   down in proportion for a scenario that has fewer than others) and the first seed;
//! * `CORTADO_SHUTTLE_REPLAY` names a file with a schedule that failed, which is replayed alone
//!   (see the README);
//! * `CORTADO_COUNTS` names a file to which each run appends a line: the scenario, its mode, the
//!   number of executions, and whether that was `all` that the bounds allow, a `sample`, or what
//!   could be done before the `cap`.

#![allow(dead_code)] // each test file uses some of it

/// The bounds of the exploration of a scenario.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// The maximum number of times that loom preempts a runnable thread; `None` for no bound.
    pub preemptions: Option<usize>,
    /// Seconds after which loom stops, in each mode. A run that was cut short is reported as such.
    pub seconds: u64,
    /// The number of schedules of each kind that shuttle tries.
    pub schedules: usize,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { preemptions: Some(3), seconds: 20, schedules: 5_000 }
    }
}

/// Explores `scenario` within the default bounds.
pub fn explore(scenario: impl Fn() + Send + Sync + 'static) {
    explore_within(Bounds::default(), scenario);
}

#[cfg(cortado_loom)]
pub fn explore_within(bounds: Bounds, scenario: impl Fn() + Send + Sync + 'static) {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::{Duration, Instant};

    use cortado::__internals::sync::model::{LoadMode, set_load_mode};

    let name = test_name();
    let wanted = std::env::var("CORTADO_LOAD_MODE").ok();
    let modes = [
        ("plain", LoadMode::Plain),
        ("rmw", LoadMode::ReadModifyWrite),
        ("writers", LoadMode::WritersOnly),
    ];
    assert!(
        wanted.as_ref().is_none_or(|wanted| modes.iter().any(|(label, _)| label == wanted)),
        "CORTADO_LOAD_MODE is {wanted:?}: give plain, rmw or writers"
    );
    let scenario = Arc::new(scenario);
    for (label, mode) in modes {
        if wanted.as_ref().is_some_and(|wanted| wanted != label) {
            continue;
        }
        set_load_mode(mode);
        let mut builder = loom::model::Builder::new();
        // crossbeam-epoch takes many more steps than the model's collector.
        let most = if cfg!(crossbeam_loom) { 2 } else { usize::MAX };
        let preemptions = bounds.preemptions.map(|preemptions| preemptions.min(most));
        builder.preemption_bound = builder.preemption_bound.or(preemptions);
        builder.max_duration = builder.max_duration.or(Some(Duration::from_secs(bounds.seconds)));
        builder.max_branches = 20_000;
        // The number of executions between two checks of the clock.
        builder.checkpoint_interval = 200;
        let cap = builder.max_duration.unwrap_or_default();
        let executions = Arc::new(AtomicUsize::new(0));
        let start = Instant::now();
        // Printed first, so that a failure shows its mode.
        println!("{name}: loom {label}, at most {:?} preemptions", builder.preemption_bound);
        builder.check({
            let (scenario, executions) = (Arc::clone(&scenario), Arc::clone(&executions));
            move || {
                executions.fetch_add(1, Ordering::Relaxed);
                scenario();
            }
        });
        let elapsed = start.elapsed();
        let executions = executions.load(Ordering::Relaxed);
        let is_stopped = elapsed >= cap;
        let end = if is_stopped { "STOPPED at the cap" } else { "all" };
        println!("{name}: loom {label}: {executions} executions, {end}, {elapsed:.2?}");
        count(&name, label, executions, if is_stopped { "cap" } else { "all" });
    }
}

#[cfg(all(cortado_shuttle, not(cortado_loom)))]
pub fn explore_within(bounds: Bounds, scenario: impl Fn() + Send + Sync + 'static) {
    use std::sync::Arc;

    use shuttle::scheduler::{PctScheduler, RandomScheduler, ReplayScheduler};
    use shuttle::{Config, Runner};

    let name = test_name();
    let number = |variable: &str, default| match std::env::var(variable) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{variable} is {text}: give a number")),
        Err(_) => default,
    };
    let usual = Bounds::default().schedules as u64;
    let schedules = number("SHUTTLE_ITERATIONS", usual) * bounds.schedules as u64 / usual;
    let schedules = schedules.max(1) as usize;
    let seed = number("SHUTTLE_SEED", 42);
    let config = || {
        let mut config = Config::new();
        config.silence_warnings = true;
        // Shuttle's default is 32 KiB, which building a cache exceeds.
        config.stack_size = 1 << 18;
        config
    };
    let scenario = Arc::new(scenario);
    if let Ok(file) = std::env::var("CORTADO_SHUTTLE_REPLAY") {
        let text = std::fs::read_to_string(&file).unwrap_or_else(|e| panic!("{file}: {e}"));
        // The schedule is between two lines with a quotation mark, either of which may have been
        // copied.
        let schedule: String = text.chars().filter(|c| c.is_ascii_hexdigit()).collect();
        println!("{name}: shuttle, the schedule of {file}");
        let replay = ReplayScheduler::new_from_encoded(&schedule);
        Runner::new(replay, config()).run(move || scenario());
        println!("{name}: the schedule passes");
        return;
    }
    println!("{name}: shuttle, {schedules} random and {schedules} PCT schedules from seed {seed}");
    let random = Arc::clone(&scenario);
    Runner::new(RandomScheduler::new_from_seed(seed, schedules), config()).run(move || random());
    let pct = PctScheduler::new_from_seed(seed, PCT_DEPTH, schedules);
    Runner::new(pct, config()).run(move || scenario());
    count(&name, "random", schedules, "sample");
    count(&name, "pct", schedules, "sample");
}

#[cfg(not(any(cortado_loom, cortado_shuttle)))]
pub fn explore_within(_bounds: Bounds, _scenario: impl Fn() + Send + Sync + 'static) {
    panic!("build with RUSTFLAGS='--cfg cortado_loom' or '--cfg cortado_shuttle'");
}

#[cfg(any(cortado_loom, cortado_shuttle))]
fn test_name() -> String {
    std::thread::current().name().unwrap_or("main").to_owned()
}

/// Appends a line to the file of counts, if there is one.
#[cfg(any(cortado_loom, cortado_shuttle))]
fn count(name: &str, mode: &str, tried: usize, end: &str) {
    use std::io::Write;

    let Ok(path) = std::env::var("CORTADO_COUNTS") else { return };
    let file = std::fs::OpenOptions::new().create(true).append(true).open(&path);
    let mut file = file.unwrap_or_else(|e| panic!("CORTADO_COUNTS is {path}: {e}"));
    // In a single write, because other scenarios write concurrently.
    let line = format!("{name} {mode} {tried} {end}\n");
    file.write_all(line.as_bytes()).unwrap_or_else(|e| panic!("CORTADO_COUNTS is {path}: {e}"));
}

/// The number of priority changes that PCT makes within a schedule.
#[cfg(all(cortado_shuttle, not(cortado_loom)))]
const PCT_DEPTH: usize = 3;
