//! The ordinary build: the standard library's own types.

pub use std::hint;
#[cfg(not(cortado_tsan))]
pub use std::sync::Mutex;
pub use std::sync::{Arc, MutexGuard};
pub use std::thread;
pub use std::thread_local;

use std::cell::Cell;

pub mod atomic {
    //! Atomics, as the standard library has them.

    pub use std::sync::atomic::{
        AtomicBool, AtomicPtr, AtomicU8, AtomicU16, AtomicU32, AtomicU64, AtomicUsize, Ordering,
        fence,
    };

    /// Access to an atomic's value by its only owner.
    pub trait WithMut {
        /// What the atomic holds.
        type Value;

        /// Calls `f` with the value, which no other thread can see in the meantime.
        fn with_mut<R>(&mut self, f: impl FnOnce(&mut Self::Value) -> R) -> R;
    }

    macro_rules! with_mut {
        ($($atomic:ty => $value:ty),* $(,)?) => {$(
            impl WithMut for $atomic {
                type Value = $value;

                #[inline]
                fn with_mut<R>(&mut self, f: impl FnOnce(&mut $value) -> R) -> R {
                    f(self.get_mut())
                }
            }
        )*};
    }

    with_mut! {
        AtomicBool => bool,
        AtomicU8 => u8,
        AtomicU16 => u16,
        AtomicU32 => u32,
        AtomicU64 => u64,
        AtomicUsize => usize,
    }

    impl<T> WithMut for AtomicPtr<T> {
        type Value = *mut T;

        #[inline]
        fn with_mut<R>(&mut self, f: impl FnOnce(&mut *mut T) -> R) -> R {
            f(self.get_mut())
        }
    }
}

/// A lock for the race detector, which does not see into the part of the standard library's that waits.
#[cfg(cortado_tsan)]
#[derive(Debug, Default)]
pub struct Mutex<T>(std::sync::Mutex<T>);

#[cfg(cortado_tsan)]
impl<T> Mutex<T> {
    /// Makes a lock of a value.
    pub const fn new(value: T) -> Self {
        Self(std::sync::Mutex::new(value))
    }

    /// Takes the lock without ever waiting in the standard library.
    pub fn lock(&self) -> std::sync::LockResult<MutexGuard<'_, T>> {
        use std::sync::TryLockError::{Poisoned, WouldBlock};

        loop {
            match self.0.try_lock() {
                Ok(guard) => return Ok(guard),
                Err(Poisoned(guard)) => return Err(guard),
                Err(WouldBlock) => thread::yield_now(),
            }
        }
    }

    /// Takes the lock if it is free.
    pub fn try_lock(&self) -> std::sync::TryLockResult<MutexGuard<'_, T>> {
        self.0.try_lock()
    }
}

thread_local! {
    static NUMBER: Cell<usize> = const { Cell::new(0) };
}

/// Returns a small number that is this thread's own: 1 for the first thread that asks, and so on.
///
/// Returns 0, which belongs to nobody, to a thread whose thread-local variables are gone.
#[inline]
pub fn thread_number() -> usize {
    NUMBER
        .try_with(|number| if number.get() == 0 { assign(number) } else { number.get() })
        .unwrap_or(0)
}

#[cold]
fn assign(number: &Cell<usize>) -> usize {
    use self::atomic::{AtomicUsize, Ordering::Relaxed};

    static NEXT: AtomicUsize = AtomicUsize::new(1);
    // Relaxed: only the addition has to be whole; nothing is published with the number.
    number.set(NEXT.fetch_add(1, Relaxed));
    number.get()
}
