//! Small things without a home of their own.

mod rng;

pub use self::rng::Rng;
pub use crossbeam_utils::CachePadded;
