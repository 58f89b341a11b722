//! Reference data in a trading loop: each order reads its instrument's tick size, lot and limit,
//! while another thread publishes new ones.
//!
//! `cargo run --release --example trading_loop` prints the percentiles of the loop's own lookups. A
//! lookup waits for no other thread. Its time includes reading the clock and `repin`; the longest
//! are usually those whose thread lost its core or met a page fault.

use std::{
    sync::atomic::{
        AtomicBool, AtomicU64,
        Ordering::{Acquire, Relaxed, Release},
    },
    thread,
    time::{Duration, Instant},
};

use cortado::{BuildError, Cache, Insert, InsertOptions, Priority};

const INSTRUMENTS: usize = 1_000;
/// The loop ends when it has sent this many orders, and this many updates were published.
const ORDERS: usize = 200_000;
const UPDATES: u64 = 20_000;

/// One version of an instrument's reference data. Prices are in ten-thousandths.
#[derive(Debug, PartialEq)]
struct Instrument {
    version: u64,
    tick_size: u64,
    lot_size: u64,
    max_quantity: u64,
}

struct Order {
    price: u64,
    quantity: u64,
}

impl Instrument {
    /// The exchange's own record of a version.
    fn of_exchange(id: usize, version: u64) -> Self {
        let lot_size = 1 + (id as u64 + version) % 97;
        let max_quantity = lot_size * (1 + version % 89);
        Self { version, tick_size: 1 << (version % 8), lot_size, max_quantity }
    }

    /// Rounds what the strategy wants to an order that the exchange accepts.
    fn order(&self, price: u64, quantity: u64) -> Order {
        let lots = (quantity.min(self.max_quantity) / self.lot_size).max(1);
        Order { price: price / self.tick_size * self.tick_size, quantity: lots * self.lot_size }
    }

    fn accepts(&self, order: &Order) -> bool {
        order.price.is_multiple_of(self.tick_size)
            && order.quantity.is_multiple_of(self.lot_size)
            && (1..=self.max_quantity).contains(&order.quantity)
    }
}

fn main() -> Result<(), BuildError> {
    // All instruments must stay: there is room for them, and none of them is evictable.
    let cache = Cache::builder()
        .max_cost(2 * INSTRUMENTS as u64)
        .expected_entries(2 * INSTRUMENTS)
        .build()?;
    let unevictable = InsertOptions::new().priority(Priority::Pinned);
    for id in 0..INSTRUMENTS {
        assert!(cache.insert_with(id, Instrument::of_exchange(id, 0), unevictable).is_in());
    }

    let published: Vec<AtomicU64> = (0..INSTRUMENTS).map(|_| AtomicU64::new(0)).collect();
    let updates = AtomicU64::new(0);
    let is_closed = AtomicBool::new(false);
    let mut lookups = Vec::with_capacity(2 * ORDERS);

    thread::scope(|scope| {
        scope.spawn(|| {
            let all = (1..).flat_map(|version| (0..INSTRUMENTS).map(move |id| (id, version)));
            for (id, version) in all {
                if is_closed.load(Relaxed) {
                    break;
                }
                // Keeps the priority. The new version is what every later lookup finds. A replacement
                // that is rejected, because a reader holds back too much garbage, would remove the
                // old version; `update` would keep it.
                let outcome = cache.replace(id, Instrument::of_exchange(id, version));
                assert_eq!(outcome, Insert::Updated);
                published[id].store(version, Release);
                updates.fetch_add(1, Relaxed);
            }
        });

        let mut seen = vec![0; INSTRUMENTS];
        let mut random = 1u64;
        let mut pinned = cache.pin();
        while lookups.len() < ORDERS || updates.load(Relaxed) < UPDATES {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let id = (random >> 33) as usize % INSTRUMENTS;
            let (price, quantity) = (random >> 40, random >> 52);
            let newest = published[id].load(Acquire);

            // `repin` lets the versions that were replaced so far be freed, and is cheaper than a
            // pin for each lookup.
            let start = Instant::now();
            pinned.repin();
            let instrument = pinned.get(&id).expect("no instrument is evicted");
            lookups.push(start.elapsed());

            assert!(instrument.version >= newest, "what was published before is seen");
            assert!(instrument.version >= seen[id], "no version is older than one seen before");
            seen[id] = instrument.version;
            let rules = Instrument::of_exchange(id, instrument.version);
            assert_eq!(*instrument, rules, "all fields are of one version");
            assert!(rules.accepts(&instrument.order(price, quantity)));
        }
        is_closed.store(true, Relaxed);
    });

    // All versions that were replaced have been freed.
    cache.flush();
    assert_eq!(cache.memory().garbage_entries, 0);
    assert_eq!((cache.len(), cache.cost()), (INSTRUMENTS, INSTRUMENTS as u64));

    lookups.sort_unstable();
    println!("{} orders, {} updates", lookups.len(), updates.into_inner());
    for (name, part) in [("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999), ("max", 1.0)] {
        println!("{name:>6} of a lookup {:>10.1?}", percentile(&lookups, part));
    }
    Ok(())
}

fn percentile(sorted: &[Duration], part: f64) -> Duration {
    sorted[((sorted.len() - 1) as f64 * part) as usize]
}
