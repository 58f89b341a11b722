//! The command line.

use std::fmt;
use std::str::FromStr;

use anyhow::{Result, bail};
use clap::{Parser, Subcommand, ValueEnum as _};

use crate::budget::BudgetArgs;
use crate::cells::Cell;
use crate::churn::ChurnArgs;
use crate::compare::CompareArgs;
use crate::document::ReportArgs;
use crate::expiry::ExpiryArgs;
use crate::headline::HeadlineArgs;
use crate::hit_ratio::HitRatioArgs;
use crate::latency::LatencyArgs;
use crate::memory::MemoryArgs;
#[cfg(feature = "near")]
use crate::near::NearArgs;
use crate::peers::Kind;
use crate::scaling::ScalingArgs;
use crate::throughput::ThroughputArgs;

/// Compares cortado with other caches: hit ratios, speed, latency, memory.
///
/// Without a command it runs the headline workload in under a minute: 1 000 000 keys with
/// 100-byte values, 80 % get and 20 % set, Zipf 1.2, capacity 200 000.
#[derive(Debug, Parser)]
#[command(version, args_conflicts_with_subcommands = true)]
#[cfg_attr(
    not(feature = "near"),
    command(after_help = "Built with `--features near`, it also has the command `near`.")
)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Option<Command>,
    #[command(flatten)]
    pub headline: HeadlineArgs,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    HitRatio(HitRatioArgs),
    Compare(CompareArgs),
    Throughput(ThroughputArgs),
    Latency(LatencyArgs),
    Memory(MemoryArgs),
    Budget(BudgetArgs),
    Churn(ChurnArgs),
    Expiry(ExpiryArgs),
    #[cfg(feature = "near")]
    Near(NearArgs),
    Report(ReportArgs),
    Scaling(ScalingArgs),
    /// One measurement in a process of its own; the program calls itself with it.
    #[command(hide = true, subcommand)]
    Cell(Cell),
}

/// A cache by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Name(pub Kind);

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.name())
    }
}

impl FromStr for Name {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        Kind::from_str(name, true).map(Self).map_err(|_| {
            format!("there is no cache of this name; there are {}", listed(Kind::value_variants()))
        })
    }
}

/// Returns the named caches, each once; fails for those that cannot be driven.
pub fn kinds(names: &[Name], hits_only: bool) -> Result<Vec<Kind>> {
    let mut kinds = Vec::new();
    for &Name(kind) in names {
        kind.check_drivable(hits_only)?;
        if !kinds.contains(&kind) {
            kinds.push(kind);
        }
    }
    Ok(kinds)
}

/// Returns the named caches, each once, or `defaults` if none is named; fails for those that cannot
/// replay a trace.
pub fn replayable(names: &[Name], defaults: &[Kind], by_size: bool) -> Result<Vec<Kind>> {
    if names.is_empty() {
        return Ok(defaults.to_vec());
    }
    let mut kinds = Vec::new();
    for &Name(kind) in names {
        kind.check_replayable(by_size)?;
        if !kinds.contains(&kind) {
            kinds.push(kind);
        }
    }
    Ok(kinds)
}

/// Returns the names with commas between, for help.
pub fn listed(kinds: &[Kind]) -> String {
    let names: Vec<_> = kinds.iter().map(|kind| kind.name()).collect();
    names.join(", ")
}

/// Parses a number of entries.
pub fn entries(text: &str) -> Result<usize> {
    bounded(text, "the number of entries", 1_000_000_000)
}

/// Parses a capacity.
pub fn capacity(text: &str) -> Result<usize> {
    bounded(text, "the capacity", MAX_ENTRIES)
}

/// The most entries a cache is asked to hold.
pub const MAX_ENTRIES: usize = 1_000_000_000;

/// Parses a capacity that may be one of bytes.
pub fn capacity_or_bytes(text: &str) -> Result<usize> {
    bounded(text, "the capacity", 1 << 50)
}

/// Parses the length of a loop.
pub fn loop_length(text: &str) -> Result<usize> {
    bounded(text, "the length of the loop", MAX_ENTRIES)
}

/// Parses the distance between two uses of a key.
pub fn distance(text: &str) -> Result<usize> {
    bounded(text, "the distance between two uses", MAX_ENTRIES)
}

/// Parses a number of accesses.
pub fn accesses(text: &str) -> Result<usize> {
    bounded(text, "the number of accesses", crate::trace::MAX_ACCESSES)
}

/// Parses a number of threads.
pub fn threads(text: &str) -> Result<usize> {
    bounded(text, "the number of threads", 256)
}

/// Parses a number of rounds.
pub fn rounds(text: &str) -> Result<usize> {
    bounded(text, "the number of rounds", 1000)
}

/// Parses a size of a value.
pub fn value_bytes(text: &str) -> Result<usize> {
    bounded(text, "the size of a value", 1 << 24)
}

/// Parses a number of keys.
pub fn keys(text: &str) -> Result<u32> {
    Ok(bounded(text, "the number of keys", crate::workload::MAX_KEYS as usize)? as u32)
}

/// Parses a number of keys on a server, each of which every reader remembers.
#[cfg(feature = "near")]
pub fn server_keys(text: &str) -> Result<u32> {
    Ok(bounded(text, "the number of keys", 1_000_000)? as u32)
}

/// Parses a number of tasks.
#[cfg(feature = "near")]
pub fn tasks(text: &str) -> Result<usize> {
    bounded(text, "the number of tasks", 10_000)
}

/// Parses a batch size.
pub fn batch(text: &str) -> Result<usize> {
    bounded(text, "the size of a batch", 4096)
}

/// Parses a time in seconds.
pub fn seconds(text: &str) -> Result<f64> {
    match text.parse::<f64>() {
        Ok(seconds) if (0.001..=86_400.0).contains(&seconds) => Ok(seconds),
        _ => bail!("the time must be from 0.001 to 86400 seconds"),
    }
}

/// Parses Zipf's exponent.
pub fn zipf(text: &str) -> Result<f64> {
    match text.parse::<f64>() {
        Ok(exponent) if (0.0..=10.0).contains(&exponent) => Ok(exponent),
        _ => bail!("Zipf's exponent must be from 0 to 10"),
    }
}

fn bounded(text: &str, what: &str, most: usize) -> Result<usize> {
    let digits: String = text.chars().filter(|&c| c != '_').collect();
    match digits.parse::<usize>() {
        Ok(0) => bail!("{what} must be above 0"),
        Ok(number) if number <= most => Ok(number),
        _ => bail!("{what} must be a number from 1 to {most}"),
    }
}
