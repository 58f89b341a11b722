//! How far a command is, on standard error: a bar on a terminal, a line for each step elsewhere.

use std::fmt::Write as _;
use std::io::{IsTerminal as _, stderr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};

use crate::report;

/// The progress of one command.
pub struct Progress {
    bar: ProgressBar,
    unit: Unit,
    has_lines: bool,
    /// What one unit of work counts.
    weight: AtomicU64,
    /// What all steps that follow belong to.
    label: Mutex<String>,
}

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Measurements, of one cache each.
    Runs,
    /// Accesses of a trace.
    Accesses,
    /// Microseconds that the work is expected to take.
    Micros,
}

impl Progress {
    /// Returns the progress of so much work.
    pub fn new(total: u64, unit: Unit) -> Self {
        let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr());
        let template = "{bar:30} {percent:>3} %  {done}, {left}: {msg}";
        if let Ok(style) = ProgressStyle::with_template(template) {
            let done = move |state: &ProgressState, out: &mut dyn std::fmt::Write| {
                let _ = out.write_str(&unit.amount(state.pos(), state.len().unwrap_or(0)));
            };
            let left = |state: &ProgressState, out: &mut dyn std::fmt::Write| {
                let total = state.len().unwrap_or(0);
                let _ = out.write_str(&left(state.elapsed(), state.pos(), total));
            };
            bar.set_style(style.with_key("done", done).with_key("left", left));
        }
        let has_lines = !stderr().is_terminal();
        if !has_lines {
            bar.enable_steady_tick(Duration::from_millis(200));
        }
        Self { bar, unit, has_lines, weight: AtomicU64::new(1), label: Mutex::default() }
    }

    /// Returns progress that is not shown.
    pub fn hidden() -> Self {
        Self {
            bar: ProgressBar::hidden(),
            unit: Unit::Runs,
            has_lines: false,
            weight: AtomicU64::new(1),
            label: Mutex::default(),
        }
    }

    /// Says what all steps that follow belong to.
    pub fn label(&self, label: impl Into<String>) {
        *self.label.lock().unwrap_or_else(PoisonError::into_inner) = label.into();
    }

    /// Makes each unit of work that follows count so much.
    pub fn weigh(&self, weight: u64) {
        self.weight.store(weight, Ordering::Relaxed);
    }

    /// Says what is done from now on.
    pub fn step(&self, what: impl Into<String>) {
        let label = self.label.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let what = what.into();
        let what = if label.is_empty() { what } else { format!("{label}: {what}") };
        if self.has_lines {
            let (done, total) = (self.bar.position(), self.bar.length().unwrap_or(0));
            eprintln!("{}", line(self.unit, self.bar.elapsed(), done, total, &what));
        } else {
            self.bar.set_message(what);
        }
    }

    /// Counts work that is done.
    pub fn inc(&self, work: u64) {
        // Relaxed: set by the thread that starts the work.
        self.bar.inc(work * self.weight.load(Ordering::Relaxed));
    }

    /// Removes the bar.
    pub fn finish(self) {
        self.bar.finish_and_clear();
    }
}

impl Unit {
    /// Says how much of it is done.
    fn amount(self, done: u64, total: u64) -> String {
        match self {
            Self::Runs => format!("{} of {} runs", report::grouped(done), report::grouped(total)),
            Self::Accesses if total >= 10_000_000 => {
                format!("{} of {} million accesses", done / 1_000_000, total / 1_000_000)
            }
            Self::Accesses => {
                format!("{} of {} accesses", report::grouped(done), report::grouped(total))
            }
            Self::Micros => format!("{} of {} s of work", done / 1_000_000, total / 1_000_000),
        }
    }
}

/// The line of a step, where there is no terminal.
fn line(unit: Unit, elapsed: Duration, done: u64, total: u64, what: &str) -> String {
    let percent = (done * 100).checked_div(total).unwrap_or(0).min(100);
    let mut line = format!("{percent:>3} %, {}", unit.amount(done, total));
    let _ = write!(line, ", {}: {what}", left(elapsed, done, total));
    line
}

/// Says how long the rest takes, if it goes on as it went so far.
fn left(elapsed: Duration, done: u64, total: u64) -> String {
    if done == 0 || elapsed < Duration::from_millis(500) {
        return "time left not known yet".to_owned();
    }
    let rest = total.saturating_sub(done) as f64 / done as f64;
    let seconds = (elapsed.as_secs_f64() * rest).ceil() as u64;
    match seconds {
        0..90 => format!("{seconds} s left"),
        90..5400 => format!("{} min left", seconds.div_ceil(60)),
        _ => format!("{:.1} h left", seconds as f64 / 3600.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_left_follows_from_what_is_done() {
        let ten = Duration::from_secs(10);
        assert_eq!(left(ten, 1, 4), "30 s left");
        assert_eq!(left(ten, 1, 40), "7 min left");
        assert_eq!(left(ten, 1, 4000), "11.1 h left");
        assert_eq!(left(ten, 4, 4), "0 s left");
        assert_eq!(left(ten, 0, 4), "time left not known yet");
        assert_eq!(left(Duration::from_millis(1), 1, 4), "time left not known yet");
    }

    #[test]
    fn line_has_percent_unit_and_time() {
        let ten = Duration::from_secs(10);
        assert_eq!(
            line(Unit::Runs, ten, 3, 12, "round 1 of 3: moka"),
            " 25 %, 3 of 12 runs, 30 s left: round 1 of 3: moka"
        );
        assert_eq!(
            line(Unit::Micros, ten, 5_000_000, 10_000_000, "memory: lru"),
            " 50 %, 5 of 10 s of work, 10 s left: memory: lru"
        );
        assert!(line(Unit::Accesses, ten, 0, 0, "x").starts_with("  0 %, 0 of 0 accesses"));
        assert!(line(Unit::Accesses, ten, 1, 20_000_000, "x").contains("0 of 20 million"));
    }
}
