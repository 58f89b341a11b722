//! Departures in a model build, where a timed wait ends at once: no sleeper needs to be woken.

/// A field of each guard; does nothing.
#[derive(Debug)]
pub struct Departure;

/// Does nothing.
pub fn wake_next() {}

/// A thread that may wait for a departure.
#[derive(Debug, Default)]
pub struct Sleeper;

impl Sleeper {
    /// Makes a sleeper for this thread.
    pub fn new() -> Self {
        Self
    }

    /// Does nothing.
    pub fn wait(&self) {}

    /// Returns `false`: no departure ends a wait.
    pub fn stop(&self) -> bool {
        false
    }

    /// Returns `true`: no departure wakes the thread.
    pub fn is_waiting(&self) -> bool {
        true
    }
}
