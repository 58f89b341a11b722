//! Grace periods: what a pinned thread may rely on, and which collector keeps that promise.
//!
//! # Protocol
//!
//! A [`Guard`] is the witness of a *pin*, which is for one [`Domain`], a part of one, or any. What was reachable
//! there when the guard was made stays readable until the guard is dropped. Of a collector
//! one thing is asked: when a [`Grace`] period is over, that is, when all guards that there were at
//! its beginning are gone. What is to be freed waits for that in [limbo lists](limbo), so that a reader
//! never runs a destructor. A collector that knows which parts the pins are for also says which values none of them
//! keeps: those are dropped before the period is over, and their memory waits on.
//!
//! The collector is this crate's own ([`sequence`]); by feature it is crossbeam-epoch. All caches
//! of a process share it. It is never the global default of another crate, so a guard that
//! another library forgot cannot hold back our memory.

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

// The models have it beside their own collector, for the tests of it alone.
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

/// Whether the collector says which threads are pinned ([`pins_of`]).
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

/// Pins the current thread for the memory of every domain.
#[inline]
pub fn pin() -> Guard {
    pin_for(Domain::ANY)
}

#[cfg(all(test, not(any(cortado_loom, cortado_shuttle))))]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    /// Other tests pin, too, and may lack a core for long.
    fn wait(grace: &mut Grace) {
        let end = Instant::now() + Duration::from_secs(30);
        while !grace.has_ended() {
            assert!(Instant::now() < end, "the grace period never ended");
            pin().advance();
            std::thread::yield_now();
        }
    }

    #[test]
    fn grace_ends_when_no_guard_is_left() {
        let mut grace = Grace::begin(Domain::ANY);
        wait(&mut grace);
    }

    #[test]
    fn guard_of_the_same_moment_holds_the_grace_back() {
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
