//! One operation in a single-threaded loop: nanoseconds per call, and a target for a profiler.
//!
//! ```sh
//! cargo bench --bench calls -- evict 100000 300000     # operation, entries, calls a round
//! ```
//!
//! For instructions per call, run the binary under `valgrind --tool=callgrind`, with one round of n
//! calls and one of 2n, and divide the difference by n. Manual maintenance and a fixed hash make it
//! reproducible.
//!
//! With `-ttl` appended to the operation, each entry has a deadline, an hour from its insert, and
//! maintenance collects the new deadlines once in [`CALLS_PER_TICK`] calls.

use std::{
    env,
    hash::{BuildHasher, Hasher},
    hint::black_box,
    process,
    time::{Duration, Instant},
};

use cortado::{Cache, CacheBuilder, Maintenance, WorkLimit};

/// Calls between two rounds of maintenance, where entries have deadlines.
const CALLS_PER_TICK: u64 = 1024;

/// A multiplicative hash, the same in each run.
#[derive(Clone, Default)]
struct Multiply(u64);

impl BuildHasher for Multiply {
    type Hasher = Self;

    fn build_hasher(&self) -> Self {
        Self::default()
    }
}

impl Hasher for Multiply {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_u64((*byte).into()));
    }

    fn write_u64(&mut self, word: u64) {
        self.0 = (self.0.rotate_left(5) ^ word).wrapping_mul(0x517c_c1b7_2722_0a95);
    }
}

/// Xorshift (Marsaglia, 2003).
fn next(random: &mut u64) -> u64 {
    *random ^= *random << 13;
    *random ^= *random >> 7;
    *random ^= *random << 17;
    *random
}

fn main() {
    // Cargo adds an option of its own.
    let arguments: Vec<_> = env::args().skip(1).filter(|it| !it.starts_with("--")).collect();
    let number = |at: usize, usual| arguments.get(at).map_or(Some(usual), |it| it.parse().ok());
    let operation = arguments.first().map_or("evict", String::as_str);
    let (operation, is_timed) =
        operation.strip_suffix("-ttl").map_or((operation, false), |it| (it, true));
    let (Some(entries @ 1..), Some(calls), Some(rounds)) =
        (number(1, 100_000u64), number(2, 300_000u64), number(3, 5u64))
    else {
        return usage();
    };
    let builder: CacheBuilder<u64, u64> = Cache::builder().max_cost(entries);
    let builder = builder.maintenance(Maintenance::Manual).hasher(Multiply::default());
    let builder = if is_timed { builder.ttl(Duration::from_secs(3600)) } else { builder };
    let cache = builder.build().expect("a budget above zero");
    let put = |key| _ = black_box(cache.insert(key, key));
    let get = |key| black_box(cache.get(&key).is_some());
    // Half of the budget if all keys are to be cached, twice as many keys if they are to be
    // evicted.
    let is_full = matches!(operation, "evict" | "read-through");
    (0..if is_full { 2 * entries } else { entries.div_ceil(2) }).for_each(put);
    let (mut random, mut new) = (88_172_645_463_325_252, 1 << 32);
    // Log-uniform from 1 to ten times the entries.
    let any = |random: u64| {
        ((random >> 11) as f64 / (1u64 << 53) as f64 * (10.0 * entries as f64).ln()).exp() as u64
    };
    for _ in 0..rounds {
        let start = Instant::now();
        for _ in 0..calls {
            let random = next(&mut random);
            new += 1;
            match operation {
                "evict" => put(new),
                "replace" => put(random % entries.div_ceil(2)),
                "hit" => _ = get(random % entries.div_ceil(2)),
                "read-through" if get(any(random)) => {}
                "read-through" => put(any(random)),
                _ => return usage(),
            }
            if is_timed && new.is_multiple_of(CALLS_PER_TICK) {
                cache.tick(WorkLimit::ALL);
            }
        }
        println!("{:.1} ns a call", start.elapsed().as_nanos() as f64 / calls.max(1) as f64);
    }
}

fn usage() {
    eprintln!("calls [evict|replace|hit|read-through[-ttl] [ENTRIES [CALLS [ROUNDS]]]]");
    process::exit(2);
}
