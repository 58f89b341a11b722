//! What a cache reports to the recorders of `metrics` and the subscribers of `tracing`, and its
//! serde support.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use cortado::{
    Cache, Claim, Config, EvictionPolicy, ExportedEntry, Maintenance, ManualClock, Metrics,
    WaitPolicy, WorkLimit, integrations::metrics::Exporter,
};

mod metrics_crate {
    use super::*;
    use metrics::{
        Counter, Gauge, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit,
    };

    /// Stores the last value of every metric with its labels, and the descriptions.
    #[derive(Clone, Default)]
    struct Notebook {
        figures: Arc<Mutex<BTreeMap<String, Arc<AtomicU64>>>>,
        described: Arc<Mutex<BTreeMap<String, String>>>,
    }

    impl Notebook {
        fn cell(&self, key: &Key) -> Arc<AtomicU64> {
            let mut name = key.name().to_owned();
            for label in key.labels() {
                name += &format!(" {}={}", label.key(), label.value());
            }
            Arc::clone(self.figures.lock().unwrap().entry(name).or_default())
        }

        fn counter(&self, name: &str) -> u64 {
            self.figures.lock().unwrap()[name].load(Ordering::Relaxed)
        }

        fn gauge(&self, name: &str) -> f64 {
            f64::from_bits(self.counter(name))
        }

        fn describe(&self, name: KeyName, meaning: SharedString) {
            self.described.lock().unwrap().insert(name.as_str().to_owned(), meaning.into_owned());
        }
    }

    impl Recorder for Notebook {
        fn describe_counter(&self, name: KeyName, _: Option<Unit>, meaning: SharedString) {
            self.describe(name, meaning);
        }
        fn describe_gauge(&self, name: KeyName, _: Option<Unit>, meaning: SharedString) {
            self.describe(name, meaning);
        }
        fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
        fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
            Counter::from_arc(self.cell(key))
        }
        fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
            Gauge::from_arc(self.cell(key))
        }
        fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
            Histogram::noop()
        }
    }

    #[test]
    fn every_metric_has_its_name() {
        let notebook = Notebook::default();
        let clock = ManualClock::new();
        let builder = Cache::builder().max_cost(10).name("c").metrics(true).clock(clock.clone());
        let cache = builder.build_manual().unwrap();
        let exporter = metrics::with_local_recorder(&notebook, || Exporter::new(cache.clone()));
        assert!(cache.insert_with_cost(1, 1, 4).is_in());
        assert!(cache.insert_with_cost(2, 2, 5).is_in());
        assert!(cache.get(&1).is_some() && cache.get(&3).is_none());
        // Twice: each event is counted once.
        exporter.publish();
        exporter.publish();
        for (field, count) in cache.metrics().counts() {
            let name = format!("cortado_{field}_total");
            assert_eq!(notebook.counter(&format!("{name} cache=c")), count, "{name}");
            assert!(notebook.described.lock().unwrap()[&name].ends_with('.'), "{name}");
        }
        assert_eq!(notebook.counter("cortado_hits_total cache=c"), 1);
        assert_eq!(notebook.counter("cortado_cost_added_total cache=c"), 9);
        assert_eq!(notebook.gauge("cortado_entries cache=c"), 2.0);
        assert_eq!(notebook.gauge("cortado_cost cache=c"), 9.0);
        assert_eq!(notebook.gauge("cortado_max_cost cache=c"), 10.0);
        let table = notebook.gauge("cortado_memory_bytes cache=c part=table");
        assert_eq!(table, cache.memory().table as f64);

        clock.advance(Duration::from_secs(3));
        let held = cache.get(&1).unwrap();
        cache.set_max_cost(4);
        exporter.publish();
        assert_eq!(notebook.counter("cortado_evictions_total cache=c"), 1);
        assert_eq!(notebook.gauge("cortado_garbage_entries cache=c"), 1.0);
        let garbage = notebook.gauge("cortado_garbage_cost cache=c");
        assert_eq!(garbage, 9.0 - cache.cost() as f64);
        assert_eq!(notebook.gauge("cortado_life_seconds cache=c quantile=0.5"), 4.096);
        clock.advance(Duration::from_secs(1));
        if cfg!(not(feature = "crossbeam-epoch")) {
            assert_eq!(notebook.gauge("cortado_stalled_readers cache=c"), 0.0);
            exporter.publish();
            assert_eq!(notebook.gauge("cortado_stalled_readers cache=c"), 1.0);
            let meaning = notebook.described.lock().unwrap()["cortado_stalled_readers"].clone();
            assert!(meaning.ends_with('.'), "{meaning}");
        }
        drop(held);
        cache.flush();
        exporter.publish();
        assert_eq!(notebook.gauge("cortado_garbage_entries cache=c"), 0.0);
        if cfg!(not(feature = "crossbeam-epoch")) {
            assert_eq!(notebook.gauge("cortado_stalled_readers cache=c"), 0.0);
        }
        assert_eq!(notebook.counter("cortado_garbage_freed_total cache=c"), 1);
    }
}

mod tracing_crate {
    use super::*;
    use tracing::{
        Event, Metadata, Subscriber,
        field::{Field, Visit},
        span::{Attributes, Id, Record},
    };

    /// Stores spans and events as lines.
    #[derive(Clone, Default)]
    struct Listener(Arc<Mutex<Vec<String>>>);

    struct Line(String);

    impl Visit for Line {
        fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
            self.0 += &format!(" {field}={value:?}");
        }
    }

    impl Listener {
        fn note(&self, head: String, visit: impl FnOnce(&mut Line)) {
            let mut line = Line(head);
            visit(&mut line);
            self.0.lock().unwrap().push(line.0);
        }

        fn take(&self) -> Vec<String> {
            std::mem::take(&mut self.0.lock().unwrap())
        }
    }

    impl Subscriber for Listener {
        fn enabled(&self, metadata: &Metadata<'_>) -> bool {
            metadata.target() == "cortado"
        }
        fn new_span(&self, span: &Attributes<'_>) -> Id {
            let metadata = span.metadata();
            let head = format!("{} {}", metadata.level(), metadata.name());
            self.note(head, |line| span.record(line));
            Id::from_u64(1)
        }
        fn record(&self, _: &Id, values: &Record<'_>) {
            self.note("record".into(), |line| values.record(line));
        }
        fn record_follows_from(&self, _: &Id, _: &Id) {}
        fn event(&self, event: &Event<'_>) {
            self.note(event.metadata().level().to_string(), |line| event.record(line));
        }
        fn enter(&self, _: &Id) {}
        fn exit(&self, _: &Id) {}
    }

    fn cache(clock: &ManualClock) -> Cache<u32, u32> {
        let builder = Cache::builder().max_cost(10).name("c").clock(clock.clone());
        builder.slow_load(Duration::from_millis(100)).build_manual().unwrap()
    }

    #[test]
    fn round_of_maintenance_is_a_span() {
        let (listener, clock) = (Listener::default(), ManualClock::new());
        tracing::subscriber::with_default(listener.clone(), || {
            let cache = cache(&clock);
            assert!(cache.insert_with_ttl(1, 1, Duration::from_secs(1)).is_in());
            clock.advance(Duration::from_secs(2));
            cache.tick(WorkLimit::ALL);
        });
        let lines = listener.take();
        assert_eq!(lines[0], "TRACE maintenance cache=\"c\"");
        let recorded = lines[1..].join(" ");
        assert!(recorded.contains("expired=1") && recorded.contains("evicted=0"), "{recorded}");
        assert!(recorded.contains("freed="), "{recorded}");
    }

    #[test]
    fn slow_load_is_an_event_and_a_fast_one_is_not() {
        let (listener, clock) = (Listener::default(), ManualClock::new());
        tracing::subscriber::with_default(listener.clone(), || {
            let cache = cache(&clock);
            let load = |key, ms| {
                cache.get_or_insert_with(key, || {
                    clock.advance(Duration::from_millis(ms));
                    key
                });
            };
            load(1, 100);
            assert_eq!(listener.take(), [""; 0]);
            load(2, 101);
            let took = "WARN message=slow load cache=\"c\" took=101ms outcome=\"filled\"";
            assert_eq!(listener.take(), [took]);

            let Claim::Fill(guard) = cache.claim(3, WaitPolicy::No) else {
                panic!("no load in progress")
            };
            clock.advance(Duration::from_secs(1));
            drop(guard);
            let took = "WARN message=slow load cache=\"c\" took=1s outcome=\"given up\"";
            assert_eq!(listener.take(), [took]);
        });
    }
}

mod serde_crate {
    use super::*;

    #[test]
    fn config_comes_from_a_file() {
        let text = r#"{
            "max_cost": 1000, "name": "sessions", "maintenance": "Manual", "eviction_policy": "Frequency",
            "metrics": true, "ttl": { "secs": 60, "nanos": 0 }
        }"#;
        let config: Config = serde_json::from_str(text).unwrap();
        assert_eq!(
            (config.maintenance, config.eviction_policy),
            (Maintenance::Manual, EvictionPolicy::Frequency)
        );
        let again: Config = serde_json::from_str(&serde_json::to_string(&config).unwrap()).unwrap();
        assert_eq!(again, config);
        let cache = Cache::<u32, u32>::builder().config(config).build().unwrap();
        assert_eq!((cache.max_cost(), cache.name()), (1000, "sessions"));
        assert!(cache.insert(1, 1).is_in());
        assert_eq!(cache.metrics().inserts, 1);
        assert!(cache.entry_info(&1).unwrap().ttl <= Some(Duration::from_secs(60)));
    }

    #[test]
    fn config_with_a_name_that_is_not_known_is_an_error() {
        let error = serde_json::from_str::<Config>(r#"{ "max_costs": 1000 }"#).unwrap_err();
        assert!(error.to_string().contains("max_costs"), "{error}");
    }

    #[test]
    fn metrics_and_records_survive_a_round_trip() {
        let cache = Cache::builder().max_cost(10).metrics(true).build_manual().unwrap();
        assert!(cache.insert(1, "one".to_string()).is_in());
        assert!(cache.get(&1).is_some());
        let there_and_back = |metrics: &Metrics| -> Metrics {
            serde_json::from_str(&serde_json::to_string(metrics).unwrap()).unwrap()
        };
        assert_eq!(there_and_back(&cache.metrics()), cache.metrics());
        // A snapshot written by an older version.
        let old: Metrics = serde_json::from_str(r#"{ "hits": 3 }"#).unwrap();
        assert_eq!((old.hits, old.misses), (3, 0));
        let memory = serde_json::to_value(cache.memory()).unwrap();
        assert_eq!(memory["table"], cache.memory().table);
        assert_eq!(memory["stalled_readers"].as_u64(), cache.memory().stalled_readers);
        let records: Vec<_> = cache.pin().export().map(|record| record.cloned()).collect();
        let text = serde_json::to_string(&records).unwrap();
        assert_eq!(
            serde_json::from_str::<Vec<ExportedEntry<u32, String>>>(&text).unwrap(),
            records
        );
    }
}
