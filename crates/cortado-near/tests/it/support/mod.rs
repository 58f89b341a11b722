//! Servers, a proxy in front of them, and waiting for an effect of theirs.

mod proxy;
mod server;

use std::time::{Duration, Instant};

use cortado::Cache;
use cortado_near::{Builder, NearCache, Prefixed, State, Text, Tracking};

pub use proxy::{Mode, Proxy};
pub use server::Server;

/// Longer than any effect takes on a busy machine; a test that waits for so long has failed.
const DEADLINE: Duration = Duration::from_secs(20);

/// Starts a server with some arguments, or ends the test where no server is installed.
#[macro_export]
macro_rules! server {
    ($($argument:expr),* $(,)?) => {
        match $crate::support::Server::start(&[$($argument),*]).await {
            Some(server) => server,
            None => return,
        }
    };
}

pub type Numbers = NearCache<u64, u64>;

pub const BROADCAST: &str = "px:";

pub fn both_modes() -> [Tracking; 2] {
    [Tracking::broadcast([BROADCAST]), Tracking::PerKey]
}

/// Returns a builder of numbers under `px:`, which are kept for long and counted.
pub fn numbers(tracking: Tracking) -> Builder<u64, u64> {
    NearCache::builder(Prefixed::new(BROADCAST), Text)
        .cache(Cache::builder().max_cost(10_000).metrics(true))
        .tracking(tracking)
        .max_age(Duration::from_secs(600))
        .timeouts(Duration::from_secs(5), Duration::from_secs(5))
        .ping(Duration::from_secs(60), Duration::from_secs(5))
}

pub fn name(key: u64) -> String {
    format!("{BROADCAST}{key}")
}

/// Waits until something holds that no event tells of.
pub async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + DEADLINE;
    while !holds() {
        assert!(Instant::now() < end, "{what}: not within {DEADLINE:?}");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// Reads a key until it has a value.
pub async fn reads(near: &Numbers, key: u64, value: Option<u64>) {
    let end = Instant::now() + DEADLINE;
    while near.get(&key).await.unwrap() != value {
        assert!(Instant::now() < end, "{value:?}: not within {DEADLINE:?}");
    }
}

/// Waits for a state.
pub async fn state_that(near: &Numbers, is_it: impl Fn(&State) -> bool) -> State {
    let wait = async {
        let mut state = near.state();
        while !is_it(&state) {
            state = near.state_after(state).await;
        }
        state
    };
    let state = tokio::time::timeout(DEADLINE, wait).await;
    state.unwrap_or_else(|_| panic!("not within {DEADLINE:?}: {:?}", near.state()))
}
