//! Which accesses are replayed: those of a file, or made-up ones.

use std::path::PathBuf;

use anyhow::{Result, bail};
use clap::Args;

use crate::trace::synthetic::{self, Pattern};
use crate::trace::{self, Trace};

/// The traces that are named on the command line.
#[derive(Args, Debug)]
#[group(required = true, multiple = true)]
pub struct Sources {
    /// The trace files.
    #[arg(long, num_args = 1.., value_name = "FILE")]
    trace: Vec<PathBuf>,
    #[arg(long, value_delimiter = ',', value_name = "PATTERN", help = synthetic::HELP,
        long_help = synthetic::LONG_HELP)]
    synthetic: Vec<Pattern>,
}

impl Sources {
    /// Returns them one by one, files first.
    pub fn each(&self) -> impl Iterator<Item = Source> + '_ {
        let files = self.trace.iter().cloned().map(Source::File);
        files.chain(self.synthetic.iter().copied().map(Source::Pattern))
    }
}

/// Where a trace comes from.
#[derive(Clone, Debug)]
pub enum Source {
    /// A file.
    File(PathBuf),
    /// Made up.
    Pattern(Pattern),
}

impl Source {
    /// Reads or makes the trace; the figures are for those that are made.
    pub fn load(&self, accesses: usize, seed: u64) -> Result<Trace> {
        match self {
            Self::File(path) => trace::read(path),
            Self::Pattern(pattern) => Ok(pattern.trace(accesses, seed)),
        }
    }

    /// Reads a trace together with the sizes of its objects.
    pub fn load_with_sizes(&self) -> Result<Trace> {
        match self {
            Self::File(path) => {
                let trace = trace::read(path)?;
                if trace.sizes.is_empty() {
                    bail!("{}: has no sizes; only NAME.txt (adaptsize) has", path.display());
                }
                Ok(trace)
            }
            Self::Pattern(pattern) => bail!("{pattern}: made-up traces have no sizes"),
        }
    }
}

/// The accesses of a made-up trace, unless a number is given.
pub const ACCESSES: usize = 1_000_000;
