//! Small utilities: random numbers, panic handling, hashing, thread markers.

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

/// Leaks a value, but keeps its address reachable, so that a leak detector does not report it.
#[cfg(all(test, not(any(cortado_loom, cortado_shuttle))))]
pub fn forever<T: Sync>(value: T) -> &'static T {
    static KEPT: crate::sync::Mutex<Vec<usize>> = crate::sync::Mutex::new(Vec::new());
    let value: &'static T = Box::leak(Box::new(value));
    KEPT.lock().expect("no holder panics").push(std::ptr::from_ref(value).expose_provenance());
    value
}
