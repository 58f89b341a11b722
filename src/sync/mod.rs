//! The only door to atomics, locks and threads, so that a model checker can stand behind it.
//!
//! | build | what stands behind |
//! |---|---|
//! | ordinary | `std`, re-exported as it is: no cost |
//! | `--cfg cortado_loom` | loom: every interleaving up to a bound, and weak memory |
//! | `--cfg cortado_shuttle` | shuttle: random interleavings of larger scenarios |
//!
//! The two cfg names are our own: `cfg(loom)` would also switch other crates. Neither model is a
//! dependency of the published package; `loom_tests/` builds these sources with them.
//!
//! Code that wants to run under a model keeps to what all three offer:
//!
//! * an atomic's `new` is not `const` under loom, so no atomic lives in a `static`;
//! * exclusive access goes through [`WithMut::with_mut`](atomic::WithMut::with_mut), for loom has
//!   no `get_mut`;
//! * thread-local variables are declared one at a time with a `const` block, by
//!   `crate::sync::thread_local!`.
//!
//! [`OnceLock`] is the standard library's everywhere. No model sees it, so what it holds must be
//! reached through an atomic that says it is there.

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

/// A mark on plain memory, for loom to watch: here it is nothing.
#[cfg(not(cortado_loom))]
#[derive(Debug, Default)]
pub struct Watched;

#[cfg(not(cortado_loom))]
impl Watched {
    /// Makes a mark.
    pub fn new() -> Self {
        Self
    }

    /// Notes that the memory is read.
    #[inline]
    pub fn read(&self) {}

    /// Notes that the memory is written.
    #[inline]
    pub fn write(&self) {}
}

/// True where a model checker runs the code: sizes shrink to the smallest that still does it all.
pub const IS_MODEL: bool = cfg!(any(cortado_loom, cortado_shuttle));

#[cfg(all(test, not(any(cortado_loom, cortado_shuttle))))]
mod tests {
    use super::atomic::{AtomicPtr, AtomicU64, WithMut};
    use super::{thread, thread_number};

    #[test]
    fn a_thread_keeps_its_number_and_shares_it_with_no_other() {
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
