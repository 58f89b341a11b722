//! The backend for shuttle: its types, re-exported. Shuttle is sequentially consistent, so the
//! orderings in the code have no effect here; loom checks those.

pub use shuttle::hint;
pub use shuttle::sync::{Arc, Mutex, MutexGuard};

pub mod thread {
    //! shuttle's threads.

    pub use shuttle::thread::*;

    /// Returns the number of processors: two, which is enough for contention.
    pub fn available_parallelism() -> std::io::Result<std::num::NonZero<usize>> {
        Ok(const { std::num::NonZero::new(2).unwrap() })
    }

    /// Yields. A model has no time, so the timeout counts as elapsed. (shuttle's own may block
    /// forever.)
    pub fn park_timeout(_time: std::time::Duration) {
        yield_now();
    }
}

pub mod atomic {
    //! Atomics scheduled by shuttle.

    pub use shuttle::sync::atomic::{
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

        fn with_mut<R>(&mut self, f: impl FnOnce(&mut *mut T) -> R) -> R {
            f(self.get_mut())
        }
    }
}

/// Declares a thread-local variable of the model's threads.
///
/// A variable of the standard library's kind would be shared: all threads of a shuttle model run on
/// one OS thread.
#[allow(unused_macros)] // not every build has a thread-local variable
macro_rules! model_thread_local {
    ($(#[$attribute:meta])* $vis:vis static $name:ident: $type:ty = const { $init:expr } $(;)?) => {
        ::shuttle::thread_local! { $(#[$attribute])* $vis static $name: $type = $init; }
    };
}
#[allow(unused_imports)] // not every build has a thread-local variable
pub(crate) use model_thread_local as thread_local;

/// Returns a small number that is unique to this model thread.
pub fn thread_number() -> usize {
    usize::from(thread::current().id()) + 1
}

pub mod model {
    //! The settings of a model run. They have no effect under shuttle, and exist so that scenarios
    //! written for loom compile.

    /// How loads are performed. Has no effect under shuttle.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub enum LoadMode {
        /// A load is a load.
        Plain,
        /// A load is a read-modify-write that changes nothing.
        ReadModifyWrite,
        /// Like `ReadModifyWrite`, except in threads marked by [`as_reader`].
        WritersOnly,
    }

    /// Does nothing under shuttle.
    pub fn set_load_mode(_mode: LoadMode) {}

    /// Calls `f`.
    pub fn as_reader<R>(f: impl FnOnce() -> R) -> R {
        f()
    }
}
