//! Choosing a cost: five cost functions, one workload, and the results of each.
//!
//! There are 20 000 pages and 400 000 requests, with a skewed distribution. Most pages have 200
//! bytes, and one in eight has 20 000. Most take 1 ms to compute, and one in sixteen takes 100 ms.
//! `docs/guide.md` discusses the results.

use cortado::{Cache, CacheBuilder, EvictionPolicy, InsertOptions, Maintenance, Priority};

const MEMORY: u64 = 4 << 20;

fn bytes(page: u64) -> u64 {
    if page.wrapping_mul(0x9e37_79b9) >> 7 & 15 < 2 { 20_000 } else { 200 }
}

fn millis(page: u64) -> u64 {
    if page.wrapping_mul(0x85eb_ca6b) >> 9 & 31 < 2 { 100 } else { 1 }
}

fn main() -> Result<(), cortado::BuildError> {
    println!("{:28} {:>6} {:>12} {:>12} {:>9}", "cost", "hit %", "byte hit %", "made in", "memory");
    let choice = || Cache::builder().maintenance(Maintenance::Manual).seed(1);
    let plain = |_| InsertOptions::new();
    let by_bytes = |page| InsertOptions::new().cost(bytes(page));
    let by_time = |page| InsertOptions::new().cost(millis(page));
    let urgent = |page| match millis(page) {
        1 => by_bytes(page),
        _ => by_bytes(page).priority(Priority::High),
    };
    let one = run("1", choice().max_cost(1_600), plain)?;
    let objects = run("bytes", choice().max_cost(MEMORY), by_bytes)?;
    let first = choice().max_cost(MEMORY).eviction_policy(EvictionPolicy::Frequency);
    let volume = run("bytes, all costs alike", first, by_bytes)?;
    let time = run("time to make (a mistake)", choice().max_cost(9_000), by_time)?;
    let priority = run("bytes, slow ones High", choice().max_cost(MEMORY), urgent)?;

    assert!(one.memory > objects.memory, "a number of entries says nothing about their bytes");
    assert!(objects.hits > volume.hits && objects.hit_bytes < volume.hit_bytes);
    assert!(time.seconds > objects.seconds, "what costs most goes first");
    assert!(priority.seconds < objects.seconds);
    Ok(())
}

#[derive(Default)]
struct Outcome {
    hits: u64,
    hit_bytes: u64,
    seconds: u64,
    memory: u64,
}

fn run(
    name: &str,
    builder: CacheBuilder<u64, ()>,
    options: impl Fn(u64) -> InsertOptions,
) -> Result<Outcome, cortado::BuildError> {
    let cache = builder.build()?;
    let (mut outcome, mut all_bytes, mut random) = (Outcome::default(), 0, 1u64);
    for request in 0..400_000 {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        // Page n is requested in proportion to 1/n.
        let page = 20_000f64.powf((random >> 11) as f64 / (1u64 << 53) as f64) as u64;
        all_bytes += bytes(page);
        if cache.get(&page).is_some() {
            outcome.hits += 1;
            outcome.hit_bytes += bytes(page);
        } else {
            outcome.seconds += millis(page);
            cache.insert_with(page, (), options(page));
        }
        if request % 1_000 == 0 {
            let held: u64 = cache.pin().keys().map(|&page| bytes(page)).sum();
            outcome.memory = outcome.memory.max(held);
        }
    }
    outcome.seconds /= 1000;
    println!(
        "{name:28} {:>6.1} {:>12.1} {:>10} s {:>6} KB",
        outcome.hits as f64 / 4_000.0,
        100.0 * outcome.hit_bytes as f64 / all_bytes as f64,
        outcome.seconds,
        outcome.memory / 1000
    );
    Ok(outcome)
}
