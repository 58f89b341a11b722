//! What a near cache counts.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

macro_rules! figures {
    ($($(#[doc = $doc:literal])+ $field:ident,)+) => {
        /// What [`NearCache::metrics`](crate::NearCache::metrics) returns: a snapshot.
        #[derive(Clone, Debug, PartialEq)]
        #[non_exhaustive]
        pub struct NearMetrics {
            /// The local cache's own: hits and misses, loads, those that were invalidated. All 0
            /// unless its builder turned [`metrics`](cortado::CacheBuilder::metrics) on.
            pub cache: cortado::Metrics,
            $($(#[doc = $doc])+ pub $field: u64,)+
        }

        impl NearMetrics {
            /// The name and the meaning of each count beyond the local cache's.
            #[cfg(feature = "metrics")]
            pub(crate) const MEANINGS: &[(&str, &str)] =
                &[$((stringify!($field), concat!($($doc),+)),)+];

            /// Returns the counts, in the order of `MEANINGS`.
            #[cfg(feature = "metrics")]
            pub(crate) fn counts(&self) -> impl Iterator<Item = u64> {
                [$(self.$field),+].into_iter()
            }
        }

        /// The counters behind them. None is on the path of a hit.
        #[derive(Default)]
        pub(crate) struct Counters {
            $(pub(crate) $field: AtomicU64,)+
        }

        impl Counters {
            pub(crate) fn snapshot(&self, cache: cortado::Metrics) -> NearMetrics {
                NearMetrics { cache, $($field: self.$field.load(Relaxed),)+ }
            }
        }
    };
}

figures! {
    /// Requests that were sent for values: a `get_many` is one.
    round_trips,
    /// Keys that were asked for by them.
    keys_fetched,
    /// Keys whose invalidation has arrived, held or not.
    invalidations,
    /// Times that the cache was emptied: generations begun after the first.
    doubts,
    /// Connections that were made, the first included.
    connections,
    /// Answers given by `Down::ServeStale`.
    stale_answers,
}

/// Adds to a counter. Relaxed: a count orders nothing.
pub(crate) fn add(counter: &AtomicU64, count: u64) {
    counter.fetch_add(count, Relaxed);
}
