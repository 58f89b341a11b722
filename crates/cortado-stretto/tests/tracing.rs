//! Events for subscribers of `tracing`.

#![cfg(feature = "tracing")]

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use stretto::{Cache, CacheCallback};
use tracing::{
    Event, Level, Metadata, Subscriber,
    span::{Attributes, Id, Record},
};

/// Counts the errors of the target `cortado`.
struct Errors(Arc<AtomicU64>);

impl Subscriber for Errors {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target() == "cortado"
    }
    fn event(&self, event: &Event<'_>) {
        let is_error = *event.metadata().level() == Level::ERROR;
        self.0.fetch_add(is_error.into(), Ordering::Relaxed);
    }
    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }
    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

struct Panicking;

impl CacheCallback for Panicking {
    type Value = u64;
    fn on_exit(&self, _: Option<u64>) {
        panic!("in a callback");
    }
}

// The only test of its binary: `tracing` caches whether an event is enabled. If a thread without a
// subscriber reached the event first, no thread would see it.
#[test]
fn panic_of_a_callback_is_reported_as_an_error() {
    let errors = Arc::new(AtomicU64::new(0));
    tracing::subscriber::with_default(Errors(Arc::clone(&errors)), || {
        let cache = Cache::builder(1000, 10).set_callback(Panicking).finalize().unwrap();
        assert!(cache.insert(1, 1, 1));
        assert_eq!(errors.load(Ordering::Relaxed), 0);
        assert!(!cache.insert(2, 2, 11), "rejected, on this thread");
        assert_eq!(errors.load(Ordering::Relaxed), 1);
    });
}
