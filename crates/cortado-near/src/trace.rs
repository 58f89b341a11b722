//! Events for the `tracing` crate, where that feature is on.

use crate::state::Doubt;

/// The connection is up, and its keys are tracked.
pub(crate) fn connected(generation: u64) {
    #[cfg(feature = "tracing")]
    tracing::info!(target: "cortado_near", generation, "connected");
    let _ = generation;
}

/// The cache was emptied.
pub(crate) fn doubted(generation: u64, doubt: Doubt) {
    #[cfg(feature = "tracing")]
    tracing::warn!(target: "cortado_near", generation, %doubt, "emptied");
    let _ = (generation, doubt);
}

/// An attempt to connect again has failed.
pub(crate) fn failed(error: &crate::ConnectError) {
    #[cfg(feature = "tracing")]
    tracing::warn!(target: "cortado_near", error = error as &dyn std::error::Error, "down");
    let _ = error;
}
