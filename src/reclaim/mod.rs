//! Memory reclamation: guards, grace periods, and the choice of the collector.
//!
//! # Protocol
//!
//! A [`Guard`] represents a *pin* of one [`Domain`], of a part of one, or of all. Memory of the
//! domain that was reachable when the guard was created stays readable until the guard is dropped.
//! A collector answers one question: whether a [`Grace`] period has ended, that is, whether all
//! guards that existed at its beginning have been dropped. Retired memory waits for that in
//! [limbo lists](limbo), so a reader never runs a destructor. A collector that knows the parts that
//! the pins protect also reports the values that no pin protects: those values are dropped before
//! the period ends, and only their memory waits for its end.
//!
//! The collector is this crate's own ([`sequence`]), or crossbeam-epoch by feature. All caches of a
//! process share it. It is never the global default of another crate, so a guard that another
//! library leaks cannot hold back this crate's memory.

#[cfg(any(
    all(cortado_loom, crossbeam_loom),
    all(feature = "crossbeam-epoch", not(any(cortado_loom, cortado_shuttle)))
))]
#[path = "crossbeam.rs"]
mod backend;
#[cfg(all(
    any(cortado_loom, cortado_shuttle),
    not(any(cortado_guard, all(cortado_loom, crossbeam_loom)))
))]
#[path = "model.rs"]
mod backend;
#[cfg(any(
    all(any(cortado_loom, cortado_shuttle), cortado_guard),
    not(any(cortado_loom, cortado_shuttle, feature = "crossbeam-epoch"))
))]
use self::sequence as backend;

// Model builds include it beside their own collector, for its own tests.
#[cfg(any(cortado_loom, cortado_shuttle, not(feature = "crossbeam-epoch")))]
pub mod barrier;
#[cfg(any(cortado_loom, cortado_shuttle, not(feature = "crossbeam-epoch")))]
pub mod sequence;

#[cfg(any(cortado_loom, cortado_shuttle, feature = "crossbeam-epoch"))]
mod counted;
#[cfg(not(any(cortado_loom, cortado_shuttle)))]
pub mod departure;
#[cfg(any(cortado_loom, cortado_shuttle))]
#[path = "departure_model.rs"]
pub mod departure;
mod domain;
#[cfg(all(
    any(cortado_loom, cortado_shuttle),
    any(cortado_guard, all(cortado_loom, crossbeam_loom))
))]
mod hooks;
pub mod limbo;
pub mod stall;

#[cfg(any(cortado_loom, cortado_shuttle))]
pub use backend::reset;
pub use backend::{Guard, pin_for};
pub use domain::{Domain, PARTS, Part};
pub use stall::Reader;

/// Whether the collector reports which threads are pinned ([`pins_of`]).
pub const READERS_ARE_KNOWN: bool = if cfg!(any(cortado_loom, cortado_shuttle)) {
    cfg!(cortado_guard)
} else {
    !cfg!(feature = "crossbeam-epoch")
};

#[cfg(all(
    any(cortado_loom, cortado_shuttle),
    not(any(cortado_guard, all(cortado_loom, crossbeam_loom)))
))]
pub use backend::{census, note_freed, note_sealed};
#[cfg(all(
    any(cortado_loom, cortado_shuttle),
    any(cortado_guard, all(cortado_loom, crossbeam_loom))
))]
pub use hooks::{census, note_freed, note_sealed};

#[cfg(any(
    all(any(cortado_loom, cortado_shuttle), cortado_guard),
    not(any(cortado_loom, cortado_shuttle, feature = "crossbeam-epoch"))
))]
pub use backend::{Grace, Pin, pins_of};
#[cfg(any(
    all(any(cortado_loom, cortado_shuttle), not(cortado_guard)),
    all(feature = "crossbeam-epoch", not(any(cortado_loom, cortado_shuttle)))
))]
pub use counted::{Grace, Pin, pins_of};

/// Pins the current thread for every domain.
#[inline]
pub fn pin() -> Guard {
    pin_for(Domain::ANY)
}

#[cfg(all(test, not(any(cortado_loom, cortado_shuttle))))]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    /// Waits for the end of a period. Other tests pin, too, and may be preempted for long.
    fn wait(grace: &mut Grace) {
        let end = Instant::now() + Duration::from_secs(30);
        while !grace.has_ended() {
            assert!(Instant::now() < end, "the grace period never ended");
            pin().advance();
            std::thread::yield_now();
        }
    }

    #[test]
    fn grace_period_without_a_guard_ends() {
        let mut grace = Grace::begin(Domain::ANY);
        wait(&mut grace);
    }

    #[test]
    fn guard_that_existed_at_the_beginning_delays_the_end() {
        let guard = pin();
        let mut grace = Grace::begin(Domain::ANY);
        for _ in 0..100 {
            pin().advance();
            assert!(!grace.has_ended());
        }
        drop(guard);
        wait(&mut grace);
    }
}
