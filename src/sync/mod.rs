//! Atomics, locks and threads. All other modules use them only through this one, so that a model
//! checker can replace them.
//!
//! | build | backend |
//! |---|---|
//! | ordinary | `std`, re-exported: no cost |
//! | `--cfg cortado_loom` | loom: every interleaving up to a bound, and weak memory |
//! | `--cfg cortado_shuttle` | shuttle: random interleavings of larger scenarios |
//!
//! The crate has cfg names of its own, because `cfg(loom)` would also switch other crates. Neither
//! model checker is a dependency of the published package; `loom_tests/` builds these sources with
//! them.
//!
//! Code that runs under a model uses only what all three offer:
//!
//! * an atomic's `new` is not `const` under loom, so there are no atomics in `static`s;
//! * exclusive access goes through [`WithMut::with_mut`](atomic::WithMut::with_mut), because loom
//!   has no `get_mut`;
//! * thread-local variables are declared one at a time with a `const` block, by
//!   `crate::sync::thread_local!`.
//!
//! [`OnceLock`] is the standard library's in every build. No model checker sees it, so its value
//! must only be accessed after an atomic has shown that it is set.

#[cfg(cortado_loom)]
#[path = "loom.rs"]
mod backend;

#[cfg(all(cortado_shuttle, not(cortado_loom)))]
#[path = "shuttle.rs"]
mod backend;

#[cfg(not(any(cortado_loom, cortado_shuttle)))]
#[path = "std.rs"]
mod backend;

#[allow(unused_imports)] // not every build has a thread-local variable
pub(crate) use self::backend::thread_local;
pub use self::backend::{Arc, Mutex, MutexGuard, atomic, hint, thread, thread_number};
#[cfg(cortado_loom)]
pub use self::backend::{Notify, Watched};
pub use std::sync::OnceLock;

#[cfg(any(cortado_loom, cortado_shuttle))]
pub use self::backend::model;

/// A marker beside plain memory by which loom checks accesses. Without loom it does nothing.
#[cfg(not(cortado_loom))]
#[derive(Debug, Default)]
pub struct Watched;

#[cfg(not(cortado_loom))]
impl Watched {
    /// Creates a marker.
    pub fn new() -> Self {
        Self
    }

    /// Records a read of the memory.
    #[inline]
    pub fn read(&self) {}

    /// Records a write to the memory.
    #[inline]
    pub fn write(&self) {}
}

/// Whether the build is for a model checker. If so, sizes are the smallest that still exercise
/// every path.
pub const IS_MODEL: bool = cfg!(any(cortado_loom, cortado_shuttle));

#[cfg(all(test, not(any(cortado_loom, cortado_shuttle))))]
mod tests {
    use super::atomic::{AtomicPtr, AtomicU64, WithMut};
    use super::{thread, thread_number};

    #[test]
    fn thread_number_is_constant_and_unique() {
        let mine = thread_number();
        assert_eq!(mine, thread_number());
        let theirs = thread::spawn(thread_number).join().unwrap();
        assert_ne!(mine, theirs);
    }

    #[test]
    fn with_mut_reaches_the_value() {
        let mut number = AtomicU64::new(1);
        number.with_mut(|value| *value += 1);
        assert_eq!(number.into_inner(), 2);
        let mut pointer = AtomicPtr::new(std::ptr::null_mut::<u8>());
        assert!(pointer.with_mut(|value| value.is_null()));
    }
}
