//! Imports records of random cost, time, priority and frequency, exports them, and imports the
//! result into another cache.

use std::{collections::BTreeMap, time::Duration};

use arbitrary::{Arbitrary, Unstructured};
use cortado::{Cache, ExportedEntry, ManualClock, Priority};

#[derive(Arbitrary, Debug)]
struct Script {
    max_cost: u64,
    other_max_cost: u64,
    charge_overhead: bool,
    has_ttl: bool,
    passes: u32,
    records: Vec<Given>,
}

#[derive(Arbitrary, Debug)]
struct Given {
    key: u16,
    cost: u64,
    shift: u8,
    ttl: Option<(u64, u32)>,
    priority: u8,
    frequency: u8,
}

impl Given {
    fn record(&self) -> ExportedEntry<u16, u16> {
        let mut record = ExportedEntry::new(self.key, !self.key);
        // Of any order of magnitude.
        record.cost = self.cost >> (self.shift % 64);
        record.ttl = self.ttl.map(|(seconds, nanoseconds)| {
            Duration::from_secs(seconds).saturating_add(Duration::from_nanos(nanoseconds.into()))
        });
        record.priority = match self.priority % 4 {
            0 => Priority::Low,
            1 => Priority::High,
            2 => Priority::Pinned,
            _ => Priority::Normal,
        };
        record.frequency = self.frequency;
        record
    }
}

/// Runs the script encoded in the bytes.
pub fn run(data: &[u8]) {
    if let Ok(script) = Script::arbitrary(&mut Unstructured::new(data)) {
        play(&script);
    }
}

fn play(script: &Script) {
    let clock = ManualClock::new();
    let make = |max_cost: u64| {
        let builder = Cache::<u16, u16>::builder()
            .max_cost(max_cost.max(1))
            .expected_entries(64)
            .charge_overhead(script.charge_overhead)
            .clock(clock.clone())
            .seed(1);
        let ttl = Duration::from_secs(5);
        let builder = if script.has_ttl { builder.ttl(ttl) } else { builder };
        builder.build_manual().unwrap()
    };
    let check = |cache: &Cache<u16, u16>| {
        let pinned = cache.pin();
        let cost = |key| cache.entry_info(key).map_or(0, |info| info.cost);
        assert_eq!(pinned.keys().map(cost).sum::<u64>(), cache.cost());
        assert!(pinned.iter().all(|(key, value)| *value == !*key));
        assert!(cache.cost() <= cache.max_cost());
    };
    let old = make(script.max_cost);
    let imported = old.import(script.records.iter().map(Given::record));
    let sum = imported.inserted + imported.kept + imported.rejected;
    assert_eq!(sum, script.records.len());
    // Entries that have expired already occupy room until they are swept.
    old.flush();
    check(&old);
    clock.advance(Duration::from_nanos(script.passes.into()));
    old.flush();
    check(&old);
    let records: Vec<_> = old.pin().export().map(ExportedEntry::cloned).collect();
    assert_eq!(records.len(), old.len());
    for record in &records {
        assert!(record.frequency <= 15);
        let given = |given: &&Given| given.key == record.key;
        let fits = |given: &Given| {
            let given = given.record();
            // Large costs are charged rounded up, and times only decrease.
            given.priority == record.priority
                && record.cost >= given.cost
                && record.cost - given.cost <= given.cost / 4_000_000
                && (record.ttl.is_none() || record.ttl <= given.ttl)
        };
        assert!(script.records.iter().filter(given).any(fits), "{record:?} was not given");
    }
    let new = make(script.other_max_cost);
    let there: BTreeMap<_, _> = records.iter().map(|record| (record.key, record.ttl)).collect();
    let imported = new.import(records);
    assert_eq!((imported.kept, imported.inserted + imported.rejected), (0, there.len()));
    new.flush();
    check(&new);
    for record in new.pin().export() {
        assert_eq!(there.get(record.key), Some(&record.ttl), "no time passes between the two");
    }
    if script.max_cost == script.other_max_cost && new.len() == old.len() {
        assert_eq!(new.cost(), old.cost());
    }
}
