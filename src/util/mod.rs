//! Small things without a home of their own.

mod identity;
mod mark;
mod panic;
mod rng;

pub use self::{
    identity::{IdentityHash, IdentityHasher},
    mark::{is_cache_thread, is_thread_of, mark_cache_thread},
    panic::{caught, drop_panic, for_all},
    rng::Rng,
};
pub use crossbeam_utils::CachePadded;
