//! Made-up traces: patterns of access that caches are known to differ in.

use std::fmt;
use std::str::FromStr;

use anyhow::{Result, bail};

use super::Trace;
use super::zipf::{Random, Zipf, scramble};
use crate::cli;

/// A pattern of accesses.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Pattern {
    /// The same keys are popular all the time.
    Zipf {
        /// Zipf's exponent.
        exponent: f64,
    },
    /// Popular keys are replaced by new ones, one at a time.
    Churn,
    /// Keys that are used once come in between, many in a row.
    Scan,
    /// The same keys in the same order, again and again.
    Loop {
        /// The number of keys.
        length: usize,
    },
    /// The newer a key, the more popular.
    Latest,
    /// Other keys are popular all of a sudden.
    Shift,
    /// Each key is used twice.
    Twice {
        /// The number of other keys from the first use to the second.
        distance: usize,
    },
}

impl Pattern {
    /// Makes a trace of so many accesses; the same one for the same seed.
    pub fn trace(self, accesses: usize, seed: u64) -> Trace {
        let mut random = Random::new(seed);
        let ranks = match self {
            Self::Zipf { exponent } => Zipf::new(KEYS, exponent),
            _ => Zipf::new(KEYS, EXPONENT),
        };
        let mut rank = || u64::from(ranks.draw(&mut random));
        let accesses = 0..accesses as u64;
        let keys: Vec<u64> = match self {
            Self::Zipf { .. } => accesses.map(|_| rank()).collect(),
            Self::Churn => {
                let mut holders: Vec<u64> = (0..u64::from(KEYS)).collect();
                // A random order of its own: the ranks drawn stay those of the other patterns.
                let mut places = Random::new(!seed);
                let access = |i| {
                    if i % CHURN_EVERY == 0 {
                        let place = places.below(u64::from(KEYS));
                        holders[place as usize] = u64::from(KEYS) + i;
                    }
                    holders[rank() as usize]
                };
                accesses.map(access).collect()
            }
            Self::Scan => {
                let access = |i| {
                    if i % SCAN_EVERY < SCAN_EVERY - SCAN_LENGTH {
                        rank()
                    } else {
                        u64::from(KEYS) + i
                    }
                };
                accesses.map(access).collect()
            }
            Self::Loop { length } => accesses.map(|i| i % length as u64).collect(),
            Self::Latest => {
                // As many keys as ranks are older than the first access.
                let mut newest = u64::from(KEYS);
                let access = |i| {
                    if i % INSERT_EVERY == 0 {
                        newest += 1;
                        newest
                    } else {
                        newest - rank()
                    }
                };
                accesses.map(access).collect()
            }
            Self::Shift => {
                accesses.map(|i| (rank() + i / SHIFT_EVERY * SHIFT_BY) % u64::from(KEYS)).collect()
            }
            // First and second uses take turns. A key is the number of its first access.
            Self::Twice { distance } => {
                let back = 2 * distance as u64 + 1;
                accesses.map(|i| if i % 2 == 1 && i >= back { i - back } else { i }).collect()
            }
        };
        let keys = keys.into_iter().map(scramble).collect();
        Trace { name: self.to_string(), keys, sizes: Vec::new() }
    }

    /// Returns whether a text begins with the name of a pattern.
    pub fn is_named(text: &str) -> bool {
        NAMES.contains(&text.split(':').next().unwrap_or(text))
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Zipf { exponent } => write!(f, "zipf:{exponent}"),
            Self::Churn => f.write_str("churn"),
            Self::Scan => f.write_str("scan"),
            Self::Loop { length } => write!(f, "loop:{length}"),
            Self::Latest => f.write_str("latest"),
            Self::Shift => f.write_str("shift"),
            Self::Twice { distance } => write!(f, "twice:{distance}"),
        }
    }
}

impl FromStr for Pattern {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let (name, figure) = match text.split_once(':') {
            Some((name, figure)) => (name, Some(figure)),
            None => (text, None),
        };
        let pattern = match name {
            "zipf" => {
                return Ok(Self::Zipf { exponent: figure.map_or(Ok(EXPONENT), cli::zipf)? });
            }
            "loop" => {
                return Ok(Self::Loop { length: figure.map_or(Ok(LOOP), cli::loop_length)? });
            }
            "twice" => {
                let distance = figure.map_or(Ok(TWICE), cli::distance)?;
                return Ok(Self::Twice { distance });
            }
            "churn" => Self::Churn,
            "scan" => Self::Scan,
            "latest" => Self::Latest,
            "shift" => Self::Shift,
            _ => bail!("there is no pattern of this name; there are {}", NAMES.join(", ")),
        };
        if figure.is_some() {
            bail!("{name} takes no figure behind its name");
        }
        Ok(pattern)
    }
}

/// What the command line says of the patterns, in short.
pub const HELP: &str = "\
Made-up traces: zipf[:EXPONENT], churn, scan, loop[:LENGTH], latest, shift, twice[:DISTANCE]";

/// What it says of each.
pub const LONG_HELP: &str = "\
Made-up traces, beside the files or alone, the same for the same --seed

Unless said otherwise, 100 000 keys are drawn by Zipf's law of exponent 0.99.
  zipf[:EXPONENT]  the same keys are popular all the time
  churn            at every tenth access a key, popular or not, gives its place to a new one
  scan             after every 10 000 accesses, 5 000 keys that are used once
  loop[:LENGTH]    as many keys as LENGTH says, 1000 if nothing, in the same order for ever
  latest           every twentieth access is of a new key, and the newest keys are the popular ones
  shift            after every 100 000 accesses other keys are the popular ones
  twice[:DISTANCE] each key is used twice, and as many others as DISTANCE says, 250 if nothing,
                   are used for the first time in between";

const NAMES: [&str; 7] = ["zipf", "churn", "scan", "loop", "latest", "shift", "twice"];

/// The distinct keys that are drawn by Zipf's law.
const KEYS: u32 = 100_000;
/// Zipf's exponent, unless one is given.
const EXPONENT: f64 = 0.99;
/// The keys of a loop, unless a number is given.
const LOOP: usize = 1000;
/// The keys between the two uses of a key, unless a number is given.
const TWICE: usize = 250;
/// The accesses from one new key to the next, in `churn`.
const CHURN_EVERY: u64 = 10;
/// The accesses from the end of a scan to the end of the next one, and those of the scan.
const SCAN_EVERY: u64 = 15_000;
const SCAN_LENGTH: u64 = 5_000;
/// The accesses from one new key to the next, in `latest`.
const INSERT_EVERY: u64 = 20;
/// The accesses from one shift to the next, and by how many ranks it moves: the head of the law
/// then comes to lie where the tail was.
const SHIFT_EVERY: u64 = 100_000;
const SHIFT_BY: u64 = 38_197;

#[cfg(test)]
mod tests {
    use std::collections::{HashMap, HashSet};

    use super::*;

    fn keys(text: &str, accesses: usize) -> Vec<u64> {
        text.parse::<Pattern>().unwrap().trace(accesses, 1).keys
    }

    fn most_popular(keys: &[u64]) -> u64 {
        let mut counts = HashMap::new();
        keys.iter().for_each(|&key| *counts.entry(key).or_insert(0) += 1);
        *counts.iter().max_by_key(|&(_, count)| *count).unwrap().0
    }

    #[test]
    fn same_seed_same_trace() {
        for name in NAMES {
            let pattern: Pattern = name.parse().unwrap();
            let first = pattern.trace(5000, 7).keys;
            assert_eq!(first, pattern.trace(5000, 7).keys, "{name}");
            let is_fixed = matches!(pattern, Pattern::Loop { .. } | Pattern::Twice { .. });
            assert_eq!(first == pattern.trace(5000, 8).keys, is_fixed, "{name}");
        }
    }

    #[test]
    fn names_are_read_as_they_are_shown() {
        let texts =
            ["zipf:0.5", "zipf:1.2", "churn", "scan", "loop:77", "latest", "shift", "twice:9"];
        for text in texts {
            assert_eq!(text.parse::<Pattern>().unwrap().to_string(), text);
        }
        assert_eq!("zipf".parse::<Pattern>().unwrap(), Pattern::Zipf { exponent: 0.99 });
        assert_eq!("loop".parse::<Pattern>().unwrap(), Pattern::Loop { length: 1000 });
        assert_eq!("twice".parse::<Pattern>().unwrap(), Pattern::Twice { distance: 250 });
    }

    #[test]
    fn wrong_names_and_figures_are_errors() {
        for text in ["", "ziph", "zipf:", "zipf:x", "zipf:-1", "loop:0", "twice:0", "churn:1"] {
            assert!(text.parse::<Pattern>().is_err(), "{text}");
        }
    }

    #[test]
    fn loop_comes_round() {
        let keys = keys("loop:3", 7);
        assert_eq!(keys[..3], keys[3..6]);
        assert_eq!(keys[0], keys[6]);
        assert_eq!(keys.iter().collect::<HashSet<_>>().len(), 3);
    }

    #[test]
    fn keys_of_twice_come_again_once_after_as_many_other_keys() {
        let keys = keys("twice:3", 1000);
        assert_eq!(keys.iter().collect::<HashSet<_>>().len(), 500 + 3);
        for i in (0..993).step_by(2) {
            let again = keys[i + 1..].iter().position(|&key| key == keys[i]).unwrap();
            assert_eq!(again, 6, "{i}");
            assert_eq!(keys.iter().filter(|&&key| key == keys[i]).count(), 2, "{i}");
        }
    }

    #[test]
    fn scanned_keys_are_used_once() {
        let keys = keys("scan", 30_000);
        let mut counts = HashMap::new();
        keys.iter().for_each(|key| *counts.entry(key).or_insert(0) += 1);
        assert!(keys[10_000..15_000].iter().all(|key| counts[key] == 1));
        assert!(keys[..10_000].iter().any(|key| counts[key] > 100));
    }

    #[test]
    fn shift_makes_another_key_popular() {
        let keys = keys("shift", 200_000);
        assert_ne!(most_popular(&keys[..100_000]), most_popular(&keys[100_000..]));
    }

    #[test]
    fn popular_keys_of_churn_go_for_good() {
        let keys = keys("churn", 2_000_000);
        let (early, late) = keys.split_at(1_000_000);
        let early: HashSet<_> = early[..100_000].iter().collect();
        let late = &late[900_000..];
        let left = late.iter().filter(|key| early.contains(key)).count();
        assert!(left < late.len() / 2, "{left}");
    }

    #[test]
    fn newest_keys_are_popular() {
        let keys = keys("latest", 20_001);
        // The key of this access was never there before, and the next ones turn to it.
        let newest = keys[20_000 - 20];
        assert!(!keys[..20_000 - 20].contains(&newest));
        assert!(keys[20_000 - 20..20_000].iter().filter(|&&key| key == newest).count() > 1);
    }
}
