//! Small things without a home of their own.

mod identity;
mod rng;

pub use self::{
    identity::{IdentityHash, IdentityHasher},
    rng::Rng,
};
pub use crossbeam_utils::CachePadded;
