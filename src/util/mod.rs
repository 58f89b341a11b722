//! Small things without a home of their own.

mod identity;
mod panic;
mod rng;

pub use self::{
    identity::{IdentityHash, IdentityHasher},
    panic::{caught, drop_panic, for_all},
    rng::Rng,
};
pub use crossbeam_utils::CachePadded;
