//! Departures in a model build, where a timed wait ends at once: no sleeper needs to be woken.

/// Part of each guard; does nothing.
#[derive(Debug)]
pub struct Departure;

/// Does nothing.
pub fn wake_next() {}

/// A thread that may wait for a departure.
#[derive(Debug, Default)]
pub struct Sleeper;

impl Sleeper {
    /// Makes one for this thread.
    pub fn new() -> Self {
        Self
    }

    /// Does nothing.
    pub fn wait(&self) {}

    /// Ends no wait.
    pub fn stop(&self) -> bool {
        false
    }

    /// Returns that no departure has come.
    pub fn is_waiting(&self) -> bool {
        true
    }
}
