//! Small things without a home of their own.

mod identity;
mod panic;
mod rng;

pub use self::{
    identity::{IdentityHash, IdentityHasher},
    panic::drop_panic,
    rng::Rng,
};
pub use crossbeam_utils::CachePadded;
