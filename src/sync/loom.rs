//! The backend for loom: its types, in a thin wrapper that can turn a load into a
//! read-modify-write.
//!
//! loom 0.7.3 remembers only the last access to each object when it decides which interleavings to
//! try. A thread's own load therefore hides an earlier load by another thread: code that loads and
//! then compares and exchanges is explored far less than it seems, and mutants survive. A
//! read-modify-write hides nothing. This is why there is a wrapper, and three modes in which every
//! scenario runs:
//!
//! * [`Plain`](model::LoadMode::Plain): plain loads, which may return stale values; under-explored;
//! * [`ReadModifyWrite`](model::LoadMode::ReadModifyWrite): every load reads the newest value, and
//!   every interleaving is tried;
//! * [`WritersOnly`](model::LoadMode::WritersOnly): like `ReadModifyWrite`, but threads marked as
//!   readers use plain loads, so that stale reads meet well-explored writers.

pub use loom::hint;
pub use loom::sync::{Arc, Mutex, MutexGuard, Notify};

use std::fmt;

pub mod thread {
    //! loom's threads.

    pub use loom::thread::*;

    /// Yields. A model has no time, so the timeout counts as elapsed.
    pub fn park_timeout(_time: std::time::Duration) {
        yield_now();
    }
}

pub mod atomic {
    //! Atomics scheduled by loom; [`model`](super::model) selects how loads are performed.

    use std::fmt;

    pub use loom::sync::atomic::{Ordering, fence};

    use super::model;

    /// Exclusive access to an atomic's value.
    pub trait WithMut {
        /// The type of the value.
        type Value;

        /// Calls `f` with the value, which no other thread can access during the call.
        fn with_mut<R>(&mut self, f: impl FnOnce(&mut Self::Value) -> R) -> R;
    }

    /// The operations common to all atomics. `$unlikely` is a value that the atomic is unlikely to
    /// hold: where a load has to be a read-modify-write, it is exchanged for itself. The exchange
    /// is correct either way, but should fail: loom does not order a plain store against a
    /// concurrent exchange, and could then show the old value after the new one.
    macro_rules! coat {
        ($($generic:ident)?, $name:ident, $inner:ty, $value:ty, $unlikely:expr) => {
            impl$(<$generic>)? $name$(<$generic>)? {
                /// Creates an atomic that holds `value`.
                #[track_caller]
                pub fn new(value: $value) -> Self {
                    Self(<$inner>::new(value))
                }

                /// Loads the value in the current load mode.
                #[track_caller]
                pub fn load(&self, order: Ordering) -> $value {
                    if !model::load_is_read_modify_write() {
                        return self.0.load(order);
                    }
                    match self.0.compare_exchange($unlikely, $unlikely, order, order) {
                        Ok(value) | Err(value) => value,
                    }
                }

                /// Stores a value.
                #[track_caller]
                pub fn store(&self, value: $value, order: Ordering) {
                    self.0.store(value, order);
                }

                /// Stores a value and returns the one before.
                #[track_caller]
                pub fn swap(&self, value: $value, order: Ordering) -> $value {
                    self.0.swap(value, order)
                }

                /// Stores `new` if the value is `current`.
                #[track_caller]
                pub fn compare_exchange(
                    &self,
                    current: $value,
                    new: $value,
                    success: Ordering,
                    failure: Ordering,
                ) -> Result<$value, $value> {
                    self.0.compare_exchange(current, new, success, failure)
                }

                /// Like `compare_exchange`; loom has no spurious failures.
                #[track_caller]
                pub fn compare_exchange_weak(
                    &self,
                    current: $value,
                    new: $value,
                    success: Ordering,
                    failure: Ordering,
                ) -> Result<$value, $value> {
                    self.0.compare_exchange(current, new, success, failure)
                }

                /// Applies `f` to the value and stores the result, until that succeeds or `f`
                /// returns `None`.
                #[track_caller]
                pub fn fetch_update(
                    &self,
                    set_order: Ordering,
                    fetch_order: Ordering,
                    mut f: impl FnMut($value) -> Option<$value>,
                ) -> Result<$value, $value> {
                    let mut previous = self.load(fetch_order);
                    while let Some(next) = f(previous) {
                        match self.compare_exchange(previous, next, set_order, fetch_order) {
                            Ok(value) => return Ok(value),
                            Err(value) => previous = value,
                        }
                    }
                    Err(previous)
                }

                /// Returns the value.
                #[track_caller]
                pub fn into_inner(self) -> $value {
                    self.0.into_inner()
                }
            }

            impl$(<$generic>)? fmt::Debug for $name$(<$generic>)? {
                fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                    self.0.fmt(f)
                }
            }
        };
    }

    macro_rules! integer {
        ($name:ident, $value:ty) => {
            #[doc = concat!("loom's `", stringify!($name), "`, wrapped.")]
            #[derive(Default)]
            pub struct $name(loom::sync::atomic::$name);

            coat!(, $name, loom::sync::atomic::$name, $value, <$value>::MAX / 3 * 2 + 1);

            impl $name {
                /// Adds and returns the value before.
                #[track_caller]
                pub fn fetch_add(&self, value: $value, order: Ordering) -> $value {
                    self.0.fetch_add(value, order)
                }

                /// Subtracts and returns the value before.
                #[track_caller]
                pub fn fetch_sub(&self, value: $value, order: Ordering) -> $value {
                    self.0.fetch_sub(value, order)
                }

                /// Sets bits and returns the value before.
                #[track_caller]
                pub fn fetch_or(&self, value: $value, order: Ordering) -> $value {
                    self.0.fetch_or(value, order)
                }

                /// Keeps bits and returns the value before.
                #[track_caller]
                pub fn fetch_and(&self, value: $value, order: Ordering) -> $value {
                    self.0.fetch_and(value, order)
                }

                /// Flips bits and returns the value before.
                #[track_caller]
                pub fn fetch_xor(&self, value: $value, order: Ordering) -> $value {
                    self.0.fetch_xor(value, order)
                }

                /// Stores the greater of two and returns the value before.
                #[track_caller]
                pub fn fetch_max(&self, value: $value, order: Ordering) -> $value {
                    self.0.fetch_max(value, order)
                }

                /// Stores the lesser of two and returns the value before.
                #[track_caller]
                pub fn fetch_min(&self, value: $value, order: Ordering) -> $value {
                    self.0.fetch_min(value, order)
                }
            }

            impl WithMut for $name {
                type Value = $value;

                #[track_caller]
                fn with_mut<R>(&mut self, f: impl FnOnce(&mut $value) -> R) -> R {
                    self.0.with_mut(f)
                }
            }
        };
    }

    integer!(AtomicU8, u8);
    integer!(AtomicU16, u16);
    integer!(AtomicU32, u32);
    integer!(AtomicU64, u64);
    integer!(AtomicUsize, usize);

    /// loom's `AtomicBool`, wrapped.
    #[derive(Default)]
    pub struct AtomicBool(loom::sync::atomic::AtomicBool);

    coat!(, AtomicBool, loom::sync::atomic::AtomicBool, bool, true);

    impl AtomicBool {
        /// Sets the value where `value` is true, and returns the value before.
        #[track_caller]
        pub fn fetch_or(&self, value: bool, order: Ordering) -> bool {
            self.0.fetch_or(value, order)
        }

        /// Clears the value where `value` is false, and returns the value before.
        #[track_caller]
        pub fn fetch_and(&self, value: bool, order: Ordering) -> bool {
            self.0.fetch_and(value, order)
        }
    }

    impl WithMut for AtomicBool {
        type Value = bool;

        #[track_caller]
        fn with_mut<R>(&mut self, f: impl FnOnce(&mut bool) -> R) -> R {
            // loom's has no `with_mut`. The access is exclusive, so no ordering is needed.
            let mut value = self.0.load(Ordering::Relaxed);
            let result = f(&mut value);
            self.0.store(value, Ordering::Relaxed);
            result
        }
    }

    /// loom's `AtomicPtr`, wrapped.
    pub struct AtomicPtr<T>(loom::sync::atomic::AtomicPtr<T>);

    coat!(
        T,
        AtomicPtr,
        loom::sync::atomic::AtomicPtr<T>,
        *mut T,
        std::ptr::without_provenance_mut(usize::MAX)
    );

    impl<T> Default for AtomicPtr<T> {
        fn default() -> Self {
            Self::new(std::ptr::null_mut())
        }
    }

    impl<T> WithMut for AtomicPtr<T> {
        type Value = *mut T;

        #[track_caller]
        fn with_mut<R>(&mut self, f: impl FnOnce(&mut *mut T) -> R) -> R {
            self.0.with_mut(f)
        }
    }
}

/// A marker beside plain memory by which loom checks that accesses to that memory are ordered.
#[derive(Default)]
pub struct Watched(loom::cell::Cell<()>);

impl Watched {
    /// Creates a marker.
    #[track_caller]
    pub fn new() -> Self {
        Self(loom::cell::Cell::new(()))
    }

    /// Records a read of the memory.
    #[track_caller]
    pub fn read(&self) {
        self.0.get();
    }

    /// Records a write to the memory.
    #[track_caller]
    pub fn write(&self) {
        self.0.set(());
    }
}

impl fmt::Debug for Watched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Watched")
    }
}

/// Declares a thread-local variable of the model's threads.
///
/// A variable of the standard library's kind would be shared: all threads of a loom model run on
/// one OS thread.
#[allow(unused_macros)] // not every build has a thread-local variable
macro_rules! model_thread_local {
    ($(#[$attribute:meta])* $vis:vis static $name:ident: $type:ty = const { $init:expr } $(;)?) => {
        ::loom::thread_local! { $(#[$attribute])* $vis static $name: $type = $init; }
    };
}
#[allow(unused_imports)] // not every build has a thread-local variable
pub(crate) use model_thread_local as thread_local;

/// Returns a small number that is unique to this model thread.
pub fn thread_number() -> usize {
    // loom shows its thread number in this form only. A counter of our own would continue from one
    // execution to the next, and executions would no longer be deterministic.
    let id = format!("{:?}", thread::current().id());
    let digits: String = id.chars().filter(char::is_ascii_digit).collect();
    digits.parse::<usize>().map_or(0, |number| number + 1)
}

pub mod model {
    //! The settings of a model run: how loads are performed.

    use std::cell::Cell;

    /// How loads are performed. See the head of this file.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub enum LoadMode {
        /// A load is a load.
        Plain,
        /// A load is a read-modify-write that changes nothing.
        ReadModifyWrite,
        /// Like `ReadModifyWrite`, except in threads marked by [`as_reader`].
        WritersOnly,
    }

    // The standard library's thread-local variable, on purpose: all threads of one model run share
    // it, and model runs of two test threads do not.
    std::thread_local! {
        static MODE: Cell<LoadMode> = const { Cell::new(LoadMode::Plain) };
    }

    loom::thread_local! {
        static IS_READER: Cell<bool> = Cell::new(false);
    }

    /// Sets the load mode of the model runs that this test thread starts from now on.
    pub fn set_load_mode(mode: LoadMode) {
        MODE.with(|current| current.set(mode));
    }

    /// Marks the current model thread as a reader while `f` runs.
    pub fn as_reader<R>(f: impl FnOnce() -> R) -> R {
        let before = IS_READER.with(|reader| reader.replace(true));
        let result = f();
        IS_READER.with(|reader| reader.set(before));
        result
    }

    pub(super) fn load_is_read_modify_write() -> bool {
        match MODE.with(Cell::get) {
            LoadMode::Plain => false,
            LoadMode::ReadModifyWrite => true,
            LoadMode::WritersOnly => !IS_READER.try_with(Cell::get).unwrap_or(false),
        }
    }
}
