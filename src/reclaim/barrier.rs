//! The asymmetric barrier: free for the thread that reads, expensive for the thread that frees.
//!
//! # Protocol
//!
//! A reader announces its pin by a store, passes the *light* side, and reads. A sweeper passes the
//! *heavy* side and looks for announcements. Then of the two at least one sees the other: the
//! sweeper sees the announcement, or the reader sees all that the sweeper saw before its barrier.
//!
//! | [`Barrier`] | light side | heavy side |
//! |---|---|---|
//! | `System` | a compiler fence | the system has every running thread of the process pass a fence |
//! | `Fences` | a SeqCst fence | a SeqCst fence |
//!
//! `System` is `membarrier(PRIVATE_EXPEDITED)`, on Linux 4.14 and later. Everywhere else, and where
//! a sandbox forbids that call, it is `Fences`. The choice is made once, before the first
//! announcement, and never changes: an announcement behind a compiler fence is invisible to
//! a heavy side that is only a fence.
//!
//! In the models there is no such call: both sides of `System` are fences there.

use crate::sync::atomic::{Ordering, fence};

/// Which barrier this process has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Barrier {
    /// The system's.
    System,
    /// A fence on both sides.
    Fences,
    /// The system's, which fails.
    #[cfg(test)]
    Failing,
}

impl Barrier {
    /// Chooses the barrier, and registers the process for it.
    pub fn choose() -> Self {
        // The race detector does not see what another thread is made to do, and Miri does not know
        // the call. `cortado_fences` is for tests of the other kind.
        let is_fences = cfg!(any(cortado_fences, cortado_tsan, miri));
        if !is_fences && system::register() { Self::System } else { Self::Fences }
    }

    /// Passes the heavy side; returns whether it held.
    ///
    /// One that did not says nothing about any reader.
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

    /// Passes the light side where it is a fence. The other kind's is [`light`].
    #[cold]
    pub fn fence_light() {
        if !mutant!("guard_no_fallback_fence") {
            // SeqCst: pairs with the fence in `heavy`.
            fence(Ordering::SeqCst);
        }
    }
}

/// Passes the light side of [`Barrier::System`].
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
        // SeqCst: keeps the compiler from moving a read before the announcement; `heavy` keeps the
        // processor from it.
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

    /// Registers the process: the call of [`heavy`] fails in one that is not.
    #[cfg(target_os = "linux")]
    pub(super) fn register() -> bool {
        // Asked first: a kernel that does not know a command answers no differently from a sandbox.
        membarrier(QUERY).is_some_and(|known| known & libc::c_long::from(PRIVATE_EXPEDITED) != 0)
            && membarrier(REGISTER_PRIVATE_EXPEDITED).is_some()
    }

    #[cfg(target_os = "linux")]
    pub(super) fn heavy() -> bool {
        membarrier(PRIVATE_EXPEDITED).is_some()
    }

    /// Returns what the call returned, unless it failed.
    #[cfg(target_os = "linux")]
    fn membarrier(command: libc::c_int) -> Option<libc::c_long> {
        let (flags, cpu): (libc::c_uint, libc::c_int) = (0, 0);
        // SAFETY: the call takes three integers and touches no memory of the caller's.
        let result = unsafe { libc::syscall(libc::SYS_membarrier, command, flags, cpu) };
        (result >= 0).then_some(result)
    }

    // Of `linux/membarrier.h`.
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
        fn unknown_command_of_the_call_is_a_failure() {
            assert_eq!(membarrier(1 << 30), None);
        }
    }
}
