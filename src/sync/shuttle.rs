//! The build for shuttle: its types as they are. Shuttle knows one total order only, so that the
//! orderings named in the code have no effect here; loom looks after those.

pub use shuttle::hint;
pub use shuttle::sync::{Arc, Mutex, MutexGuard};

pub mod thread {
    //! shuttle's threads.

    pub use shuttle::thread::*;

    /// Returns how many processors there are: two are enough to be in each other's way.
    pub fn available_parallelism() -> std::io::Result<std::num::NonZero<usize>> {
        Ok(const { std::num::NonZero::new(2).unwrap() })
    }

    /// Lets others go on: no model knows time, so it has passed. (shuttle's own may wait for ever.)
    pub fn park_timeout(_time: std::time::Duration) {
        yield_now();
    }
}

pub mod atomic {
    //! Atomics that shuttle schedules.

    pub use shuttle::sync::atomic::{
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

/// Declares a variable that each model thread has its own copy of.
///
/// The standard library's would be shared: all of shuttle's threads run on one thread of the
/// system.
#[allow(unused_macros)] // not every build has a thread-local variable
macro_rules! model_thread_local {
    ($(#[$attribute:meta])* $vis:vis static $name:ident: $type:ty = const { $init:expr } $(;)?) => {
        ::shuttle::thread_local! { $(#[$attribute])* $vis static $name: $type = $init; }
    };
}
#[allow(unused_imports)] // not every build has a thread-local variable
pub(crate) use model_thread_local as thread_local;

/// Returns a small number that is this model thread's own.
pub fn thread_number() -> usize {
    usize::from(thread::current().id()) + 1
}

pub mod model {
    //! The switches of a model run. Shuttle has no use for them; they are here so that a scenario
    //! written for loom runs as it is.

    /// How loads are shown to the model. Of no effect under shuttle, which explores them all alike.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub enum LoadMode {
        /// A load is a load.
        Plain,
        /// A load is a read-modify-write that changes nothing.
        ReadModifyWrite,
        /// As `ReadModifyWrite`, save in threads marked by [`as_reader`].
        WritersOnly,
    }

    /// Does nothing under shuttle.
    pub fn set_load_mode(_mode: LoadMode) {}

    /// Calls `f`.
    pub fn as_reader<R>(f: impl FnOnce() -> R) -> R {
        f()
    }
}
