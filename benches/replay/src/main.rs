//! Replays traces and made-up workloads through cortado and the caches it is compared with.

#[allow(unsafe_code)]
mod alloc;
mod budget;
mod cells;
mod churn;
mod cli;
mod compare;
mod document;
mod drive;
mod expiry;
mod headline;
mod histogram;
mod hit_ratio;
mod latency;
mod lines;
mod memory;
#[cfg(feature = "near")]
mod near;
mod peers;
mod plot;
mod progress;
mod reference;
mod replay;
mod report;
mod rounds;
mod scaling;
mod sleepers;
mod source;
mod stale;
mod threads;
mod throughput;
mod trace;
mod workload;

use std::process::ExitCode;

use anyhow::Result;
use clap::Parser as _;

use crate::cli::{Cli, Command};

#[global_allocator]
static ALLOCATOR: alloc::Counting = alloc::Counting;

/// What the program ends with when it was given something that it cannot work with.
const FAILURE: u8 = 2;

fn main() -> ExitCode {
    match run(&Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(FAILURE)
        }
    }
}

fn run(cli: &Cli) -> Result<()> {
    match &cli.command {
        None => headline::run(&cli.headline),
        Some(Command::HitRatio(args)) => hit_ratio::run(args),
        Some(Command::Compare(args)) => compare::run(args),
        Some(Command::Throughput(args)) => throughput::run(args),
        Some(Command::Latency(args)) => latency::run(args),
        Some(Command::Memory(args)) => memory::run(args),
        Some(Command::Budget(args)) => budget::run(args),
        Some(Command::Churn(args)) => churn::run(args),
        Some(Command::Expiry(args)) => expiry::run(args),
        #[cfg(feature = "near")]
        Some(Command::Near(args)) => near::run(args),
        Some(Command::Report(args)) => document::run(args),
        Some(Command::Scaling(args)) => scaling::run(args),
        Some(Command::Cell(cell)) => cell.run(),
    }
}
