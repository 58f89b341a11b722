//! The backend of ordinary builds: the standard library's types.

pub use std::hint;
#[cfg(not(cortado_tsan))]
pub use std::sync::Mutex;
pub use std::sync::{Arc, MutexGuard};
pub use std::thread;
pub use std::thread_local;

use std::cell::Cell;

pub mod atomic {
    //! The standard library's atomics.

    pub use std::sync::atomic::{
        AtomicBool, AtomicPtr, AtomicU8, AtomicU16, AtomicU32, AtomicU64, AtomicUsize, Ordering,
        fence,
    };

    /// Exclusive access to an atomic's value.
    pub trait WithMut {
        /// The type of the value.
        type Value;

        /// Calls `f` with the value, which no other thread can access during the call.
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

/// A mutex for ThreadSanitizer, which does not see the synchronisation inside the standard
/// library's blocking path.
#[cfg(cortado_tsan)]
#[derive(Debug, Default)]
pub struct Mutex<T>(std::sync::Mutex<T>);

#[cfg(cortado_tsan)]
impl<T> Mutex<T> {
    /// Creates a mutex around `value`.
    pub const fn new(value: T) -> Self {
        Self(std::sync::Mutex::new(value))
    }

    /// Acquires the mutex by spinning, without blocking in the standard library.
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

    /// Acquires the mutex if it is free.
    pub fn try_lock(&self) -> std::sync::TryLockResult<MutexGuard<'_, T>> {
        self.0.try_lock()
    }
}

thread_local! {
    static NUMBER: Cell<usize> = const { Cell::new(0) };
}

/// Returns a small number that is unique to this thread: 1 for the first thread that calls, and so
/// on.
///
/// Returns 0, which no thread has, if the thread's local variables are destroyed already.
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
    // Relaxed: only the addition has to be atomic; nothing is published with the number.
    number.set(NEXT.fetch_add(1, Relaxed));
    number.get()
}
