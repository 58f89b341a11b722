//! Replacement policies from the literature, to compare hit ratios with: one thread, nothing lost,
//! nothing put off.
//!
//! An entry keeps the size it came with, and one larger than the capacity is never let in. The
//! policies that draw at random draw the same in every run.
//!
//! The tests compare them with figures of an independent simulation if `CORTADO_TRACES` names a
//! folder with the traces.

mod arc;
mod gdsf;
mod lirs;
mod lists;
mod lru;
mod ristretto;
mod s3fifo;
mod sieve;
mod sketch;
mod twoq;
mod wtinylfu;

/// A cache that keeps keys only.
pub trait Reference {
    /// Plays one access, and returns whether it hit.
    ///
    /// The size is in the unit of the capacity. A policy for which [`Kind::takes_sizes`] is false
    /// takes 1 for it.
    fn access(&mut self, key: u64, size: u64) -> bool;
}

/// The policies by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Least recently used.
    Lru,
    /// 2Q, the full version.
    TwoQ,
    /// Adaptive replacement.
    Arc,
    /// Low inter-reference recency set.
    Lirs,
    /// Three FIFO queues.
    S3Fifo,
    /// A queue and a hand.
    Sieve,
    /// TinyLFU behind a window of 1 %.
    WTinyLfu,
    /// TinyLFU and a sample of five.
    Ristretto,
    /// Greedy dual size frequency.
    Gdsf,
}

impl Kind {
    /// All of them.
    #[cfg(test)]
    pub const ALL: [Self; 9] = [
        Self::Lru,
        Self::TwoQ,
        Self::Arc,
        Self::Lirs,
        Self::S3Fifo,
        Self::Sieve,
        Self::WTinyLfu,
        Self::Ristretto,
        Self::Gdsf,
    ];

    /// Returns the name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Lru => "lru",
            Self::TwoQ => "2q",
            Self::Arc => "arc",
            Self::Lirs => "lirs",
            Self::S3Fifo => "s3-fifo",
            Self::Sieve => "sieve",
            Self::WTinyLfu => "w-tinylfu",
            Self::Ristretto => "ristretto",
            Self::Gdsf => "gdsf",
        }
    }

    /// Returns whether entries may differ in size.
    pub fn takes_sizes(self) -> bool {
        matches!(self, Self::Lru | Self::S3Fifo | Self::Sieve | Self::WTinyLfu | Self::Gdsf)
    }
}

/// Builds an empty cache.
pub fn build(kind: Kind, capacity: u64) -> Box<dyn Reference> {
    match kind {
        Kind::Lru => Box::new(lru::Lru::new(capacity)),
        Kind::TwoQ => Box::new(twoq::TwoQ::new(capacity)),
        Kind::Arc => Box::new(arc::Arc::new(capacity)),
        Kind::Lirs => Box::new(lirs::Lirs::new(capacity)),
        Kind::S3Fifo => Box::new(s3fifo::S3Fifo::new(capacity)),
        Kind::Sieve => Box::new(sieve::Sieve::new(capacity)),
        Kind::WTinyLfu => Box::new(wtinylfu::WTinyLfu::new(capacity)),
        Kind::Ristretto => Box::new(ristretto::Ristretto::new(capacity)),
        Kind::Gdsf => Box::new(gdsf::Gdsf::new(capacity)),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::fs::File;
    use std::io::{BufReader, Read as _};
    use std::path::PathBuf;

    use super::*;
    use crate::trace;
    use crate::trace::zipf::Random;

    /// Hits in per cent, by an independent simulation of the policies in [`KINDS`].
    #[rustfmt::skip]
    const FIGURES: [(&str, u64, [f64; 8]); 17] = [
        ("OLTP.lis.zst", 1000, [32.83, 40.53, 39.06, 34.82, 40.84, 32.56, 35.55, 30.39]),
        ("OLTP.lis.zst", 4000, [50.96, 53.17, 52.87, 50.53, 53.45, 48.65, 49.58, 46.52]),
        ("P3.lis.zst", 20_000, [2.28, 8.26, 9.07, 11.30, 10.42, 5.80, 12.58, 5.84]),
        ("gcc.address.gz", 1000, [92.50, 92.50, 92.54, 91.55, 92.50, 92.41, 90.54, 91.71]),
        ("w106.u32be.xz", 1000, [74.51, 75.91, 74.19, 71.72, 76.56, 74.15, 74.08, 63.30]),
        ("w106.u32be.xz", 20_000, [89.86, 90.96, 90.34, 90.82, 90.98, 90.65, 91.33, 86.39]),
        ("2_pools.lirs.gz", 100, [21.95, 38.25, 46.88, 46.11, 44.60, 47.90, 48.64, 31.58]),
        ("cs.lirs.gz", 1000, [1.83, 39.36, 1.83, 59.53, 36.48, 1.83, 58.03, 34.46]),
        ("gli.lirs.gz", 1000, [11.21, 30.77, 21.30, 50.72, 35.05, 31.34, 50.82, 43.41]),
        ("loop.lirs.gz", 500, [0.00, 0.00, 0.00, 48.86, 0.00, 0.00, 48.83, 17.57]),
        ("multi1.lirs.gz", 600, [47.04, 48.05, 49.49, 58.23, 49.03, 49.45, 58.20, 51.13]),
        ("multi2.lirs.gz", 1000, [47.80, 49.07, 50.75, 58.15, 49.80, 50.70, 56.45, 51.69]),
        ("scan.lirs.gz", 1000, [0.00, 0.00, 0.00, 47.50, 0.00, 0.00, 46.78, 17.56]),
        ("sprite.lirs.gz", 400, [70.77, 70.88, 70.13, 69.53, 71.39, 64.43, 68.63, 64.61]),
        ("zigzag.lirs.gz", 500, [23.99, 12.69, 23.01, 0.19, 3.27, 23.99, 21.03, 14.41]),
        ("orm-busy.u32be.xz", 5000, [85.46, 86.94, 85.68, 85.18, 86.63, 85.52, 83.31, 77.63]),
        ("web07.u32be.xz", 1500, [53.32, 55.26, 55.80, 55.23, 56.28, 56.01, 55.09, 52.84]),
    ];

    /// The policies in `FIGURES`, and how many points each may be off. What is left open for LIRS
    /// is the length of the history, for S3-FIFO the rounding of small queues, for the other two
    /// the hash of the sketch and the choice at random.
    const KINDS: [(Kind, f64); 8] = [
        (Kind::Lru, 0.1),
        (Kind::TwoQ, 0.1),
        (Kind::Arc, 0.1),
        (Kind::Lirs, 1.0),
        (Kind::S3Fifo, 0.3),
        (Kind::Sieve, 0.1),
        (Kind::WTinyLfu, 1.5),
        (Kind::Ristretto, 1.0),
    ];

    /// Hits and bytes hit in per cent of adaptsize, likewise, at capacities in bytes.
    #[rustfmt::skip]
    const SIZED_FIGURES: [(u64, Kind, f64, f64); 12] = [
        (3_042_135, Kind::Lru, 20.9, 24.5),
        (3_042_135, Kind::S3Fifo, 24.2, 26.5),
        (3_042_135, Kind::Sieve, 22.7, 25.8),
        (3_042_135, Kind::Gdsf, 28.8, 24.0),
        (15_210_678, Kind::Lru, 27.0, 28.7),
        (15_210_678, Kind::S3Fifo, 30.9, 31.4),
        (15_210_678, Kind::Sieve, 31.2, 31.3),
        (15_210_678, Kind::Gdsf, 35.1, 29.0),
        (60_842_715, Kind::Lru, 33.8, 33.4),
        (60_842_715, Kind::S3Fifo, 35.4, 34.4),
        (60_842_715, Kind::Sieve, 35.7, 34.5),
        (60_842_715, Kind::Gdsf, 38.8, 33.9),
    ];

    /// Plays accesses of size 1; a plus is a hit, a minus a miss.
    pub fn play(policy: &mut dyn Reference, keys: &[u64]) -> String {
        keys.iter().map(|&key| if policy.access(key, 1) { '+' } else { '-' }).collect()
    }

    /// Plays accesses of key and size; a plus is a hit, a minus a miss.
    pub fn play_sizes(policy: &mut dyn Reference, accesses: &[(u64, u64)]) -> String {
        let access = |&(key, size)| if policy.access(key, size) { '+' } else { '-' };
        accesses.iter().map(access).collect()
    }

    #[test]
    fn names_differ() {
        let names: std::collections::BTreeSet<_> = Kind::ALL.map(Kind::name).into();
        assert_eq!(names.len(), Kind::ALL.len());
    }

    #[test]
    fn what_fits_is_never_evicted() {
        for kind in Kind::ALL {
            let mut policy = build(kind, 1000);
            let keys: Vec<u64> = (0..300).chain(0..300).chain((0..300).rev()).collect();
            let hits = keys.iter().filter(|&&key| policy.access(key, 1)).count();
            assert_eq!(hits, 600, "{}", kind.name());
        }
    }

    #[test]
    fn no_policy_beats_the_bound() {
        let mut random = Random::new(5);
        let keys: Vec<u64> = (0..20_000).map(|_| random.below(60) * random.below(4)).collect();
        let future = crate::peers::opt::Future::new(&keys).unwrap();
        for kind in Kind::ALL {
            for capacity in [1, 2, 3, 7, 30, 100] {
                let mut policy = build(kind, capacity);
                let hits = keys.iter().filter(|&&key| policy.access(key, 1)).count() as u64;
                assert!(hits <= future.hits(capacity as usize), "{} {capacity}", kind.name());
            }
        }
    }

    #[test]
    fn figures_are_those_of_an_independent_simulation() {
        let Some(folder) = folder() else { return };
        let mut traces = HashMap::new();
        let mut off = Vec::new();
        for (file, capacity, figures) in FIGURES {
            let keys = &traces
                .entry(file)
                .or_insert_with(|| trace::read(&folder.join(file)).expect("the trace"))
                .keys;
            for ((kind, tolerance), figure) in KINDS.into_iter().zip(figures) {
                let mut policy = build(kind, capacity);
                let hits = keys.iter().filter(|&&key| policy.access(key, 1)).count();
                let found = hits as f64 * 100.0 / keys.len() as f64;
                if (found - figure).abs() > tolerance {
                    let name = kind.name();
                    off.push(format!("{file} at {capacity}: {name} {found:.2}, not {figure}"));
                }
            }
        }
        assert!(off.is_empty(), "{off:#?}");
    }

    #[test]
    fn figures_with_sizes_are_those_of_an_independent_simulation() {
        let Some(folder) = folder() else { return };
        let file = File::open(folder.join("adaptsize.txt.xz")).expect("the trace");
        let mut text = String::new();
        lzma_rust2::XzReader::new(BufReader::new(file), true).read_to_string(&mut text).unwrap();
        // An object whose size has changed is another one in these figures.
        let mut objects = HashMap::new();
        let accesses: Vec<(u64, u64)> = text
            .lines()
            .map(|line| {
                let words: Vec<u64> =
                    line.split_ascii_whitespace().map(|word| word.parse().unwrap()).collect();
                let object = objects.len() as u64;
                (*objects.entry((words[1], words[2])).or_insert(object), words[2])
            })
            .collect();
        let bytes: u64 = accesses.iter().map(|&(_, size)| size).sum();
        for (capacity, kind, figure, figure_of_bytes) in SIZED_FIGURES {
            let mut policy = build(kind, capacity);
            let (mut hits, mut bytes_hit) = (0_u64, 0);
            for &(key, size) in &accesses {
                if policy.access(key, size) {
                    hits += 1;
                    bytes_hit += size;
                }
            }
            let found = hits as f64 * 100.0 / accesses.len() as f64;
            let found_of_bytes = bytes_hit as f64 * 100.0 / bytes as f64;
            let off = (found - figure).abs().max((found_of_bytes - figure_of_bytes).abs());
            let name = kind.name();
            assert!(off < 0.2, "{name} at {capacity}: {found:.2} / {found_of_bytes:.2}");
        }
    }

    /// Returns where the real traces are, which are no part of this crate.
    fn folder() -> Option<PathBuf> {
        std::env::var_os("CORTADO_TRACES").map(PathBuf::from)
    }
}
