//! An asymmetric barrier: nearly free for the thread that reads, expensive for the thread that
//! frees.
//!
//! # Protocol
//!
//! A reader announces its pin by a store, executes the *light* side, and reads. A sweeper executes
//! the *heavy* side and then loads the announcements. At least one of them sees the other: the
//! sweeper sees the announcement, or the reader sees all that the sweeper saw before its barrier.
//!
//! | [`Barrier`] | light side | heavy side |
//! |---|---|---|
//! | `System` | a compiler fence | every running thread of the process executes a fence |
//! | `Fences` | a SeqCst fence | a SeqCst fence |
//!
//! `System` is `membarrier(PRIVATE_EXPEDITED)`, on Linux 4.14 and later. `Fences` is used on all
//! other systems, and where a sandbox forbids that call. The choice is made once, before the first
//! announcement, and never changes: a heavy side that is only a fence does not order an
//! announcement that is followed by a compiler fence.
//!
//! In model builds there is no such call, and both sides of `System` are fences.

use crate::sync::atomic::{Ordering, fence};

/// The kind of barrier that this process uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Barrier {
    /// The system call.
    System,
    /// A fence on both sides.
    Fences,
    /// A system call that fails.
    #[cfg(test)]
    Failing,
}

impl Barrier {
    /// Chooses the barrier, and registers the process for it.
    pub fn choose() -> Self {
        // The race detector does not see a fence that the system executes in another thread, and
        // Miri does not support the call. `cortado_fences` selects `Fences` for tests.
        let is_fences = cfg!(any(cortado_fences, cortado_tsan, miri));
        if !is_fences && system::register() { Self::System } else { Self::Fences }
    }

    /// Executes the heavy side; returns whether it succeeded.
    ///
    /// A barrier that failed orders nothing.
    #[must_use]
    pub fn heavy(self) -> bool {
        match self {
            Self::System => system::heavy(),
            Self::Fences => {
                // SeqCst: pairs with the fence of the light side.
                fence(Ordering::SeqCst);
                true
            }
            #[cfg(test)]
            Self::Failing => false,
        }
    }

    /// Executes the light side of [`Barrier::Fences`]. That of [`Barrier::System`] is [`light`].
    #[cold]
    pub fn fence_light() {
        if !mutant!("guard_no_fallback_fence") {
            // SeqCst: pairs with the fence in `heavy`.
            fence(Ordering::SeqCst);
        }
    }
}

/// Executes the light side of [`Barrier::System`].
#[inline]
pub fn light() {
    system::light();
}

#[cfg(any(cortado_loom, cortado_shuttle))]
mod system {
    use super::{Ordering, fence};

    pub(super) fn register() -> bool {
        true
    }

    pub(super) fn heavy() -> bool {
        if !mutant!("guard_no_sweeper_fence") {
            fence(Ordering::SeqCst); // SeqCst: pairs with the fence in `light`.
        }
        true
    }

    pub(super) fn light() {
        if !mutant!("guard_no_reader_fence") {
            fence(Ordering::SeqCst); // SeqCst: pairs with the fence in `heavy`.
        }
    }
}

#[cfg(not(any(cortado_loom, cortado_shuttle)))]
mod system {
    use std::sync::atomic::{Ordering, compiler_fence}; // shim: not part of a model build

    #[inline]
    pub(super) fn light() {
        // SeqCst: keeps the compiler from moving a read before the announcement; `heavy` does the
        // same for the processor.
        compiler_fence(Ordering::SeqCst);
    }

    #[cfg(not(target_os = "linux"))]
    pub(super) fn register() -> bool {
        false
    }

    #[cfg(not(target_os = "linux"))]
    pub(super) fn heavy() -> bool {
        false
    }

    /// Registers the process for the call of [`heavy`], which fails otherwise.
    #[cfg(target_os = "linux")]
    pub(super) fn register() -> bool {
        // Queries first: a kernel that does not support the command fails as a sandbox does.
        membarrier(QUERY).is_some_and(|known| known & libc::c_long::from(PRIVATE_EXPEDITED) != 0)
            && membarrier(REGISTER_PRIVATE_EXPEDITED).is_some()
    }

    #[cfg(target_os = "linux")]
    pub(super) fn heavy() -> bool {
        membarrier(PRIVATE_EXPEDITED).is_some()
    }

    /// Calls `membarrier`; returns its result, or `None` if it failed.
    #[cfg(target_os = "linux")]
    fn membarrier(command: libc::c_int) -> Option<libc::c_long> {
        let (flags, cpu): (libc::c_uint, libc::c_int) = (0, 0);
        // SAFETY: the call takes three integers and accesses no memory of the caller.
        let result = unsafe { libc::syscall(libc::SYS_membarrier, command, flags, cpu) };
        (result >= 0).then_some(result)
    }

    // From `linux/membarrier.h`.
    #[cfg(target_os = "linux")]
    const QUERY: libc::c_int = 0;
    #[cfg(target_os = "linux")]
    const PRIVATE_EXPEDITED: libc::c_int = 1 << 3;
    #[cfg(target_os = "linux")]
    const REGISTER_PRIVATE_EXPEDITED: libc::c_int = 1 << 4;

    #[cfg(all(test, target_os = "linux"))]
    mod tests {
        use super::*;

        #[test]
        fn unknown_membarrier_command_fails() {
            assert_eq!(membarrier(1 << 30), None);
        }
    }
}
