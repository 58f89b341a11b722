//! The build for loom: its types, in a thin coat that can turn a load into a read-modify-write.
//!
//! loom 0.7.3 remembers only the last access to each object when it decides which interleavings
//! are worth trying, so that a thread's own load hides another thread's earlier one: code that
//! loads and then compares and exchanges is explored far less than it seems, and mutants survive.
//! A read-modify-write hides nothing. Hence the coat, and three modes to run every scenario in:
//!
//! * [`Plain`](model::LoadMode::Plain): loads as they are, stale values included, under-explored;
//! * [`ReadModifyWrite`](model::LoadMode::ReadModifyWrite): every load reads the newest value, and
//!   every interleaving is tried;
//! * [`WritersOnly`](model::LoadMode::WritersOnly): the same, but threads marked as readers keep
//!   plain loads, so that stale reads meet well-explored writers.

pub use loom::hint;
pub use loom::sync::{Arc, Mutex, MutexGuard, Notify};

use std::fmt;

pub mod thread {
    //! loom's threads.

    pub use loom::thread::*;

    /// Lets others go on: no model knows time, so it has passed.
    pub fn park_timeout(_time: std::time::Duration) {
        yield_now();
    }
}

pub mod atomic {
    //! Atomics that loom schedules, loads shown to it as [`model`](super::model) says.

    use std::fmt;

    pub use loom::sync::atomic::{Ordering, fence};

    use super::model;

    /// Access to an atomic's value by its only owner.
    pub trait WithMut {
        /// What the atomic holds.
        type Value;

        /// Calls `f` with the value, which no other thread can see in the meantime.
        fn with_mut<R>(&mut self, f: impl FnOnce(&mut Self::Value) -> R) -> R;
    }

    /// The part that is the same for every atomic. `$unlikely` is a value that the atomic will hardly
    /// hold: it is exchanged for itself where a load has to be a read-modify-write. The exchange had
    /// better fail, since loom does not order a plain store against a concurrent exchange and could
    /// then show the old value after the new one; it is correct either way.
    macro_rules! coat {
        ($($generic:ident)?, $name:ident, $inner:ty, $value:ty, $unlikely:expr) => {
            impl$(<$generic>)? $name$(<$generic>)? {
                /// Makes an atomic that holds `value`.
                #[track_caller]
                pub fn new(value: $value) -> Self {
                    Self(<$inner>::new(value))
                }

                /// Loads the value, as the load mode says.
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

                /// As `compare_exchange`; loom does not let it fail without a reason.
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

                /// Loads, and tries to store what `f` makes of it until it succeeds or `f` says no.
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

                /// Takes the value out.
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
            #[doc = concat!("loom's `", stringify!($name), "`, coated.")]
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

    /// loom's `AtomicBool`, coated.
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
            // loom's has no `with_mut`; an owner alone may store without an ordering.
            let mut value = self.0.load(Ordering::Relaxed);
            let result = f(&mut value);
            self.0.store(value, Ordering::Relaxed);
            result
        }
    }

    /// loom's `AtomicPtr`, coated.
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

/// A mark on plain memory, for loom to watch: accesses to what has it must be ordered.
#[derive(Default)]
pub struct Watched(loom::cell::Cell<()>);

impl Watched {
    /// Makes a mark.
    #[track_caller]
    pub fn new() -> Self {
        Self(loom::cell::Cell::new(()))
    }

    /// Notes that the memory is read.
    #[track_caller]
    pub fn read(&self) {
        self.0.get();
    }

    /// Notes that the memory is written.
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

/// Declares a variable that each model thread has its own copy of.
///
/// The standard library's would be shared: all of loom's threads run on one thread of the system.
#[allow(unused_macros)] // not every build has a thread-local variable
macro_rules! model_thread_local {
    ($(#[$attribute:meta])* $vis:vis static $name:ident: $type:ty = const { $init:expr } $(;)?) => {
        ::loom::thread_local! { $(#[$attribute])* $vis static $name: $type = $init; }
    };
}
#[allow(unused_imports)] // not every build has a thread-local variable
pub(crate) use model_thread_local as thread_local;

/// Returns a small number that is this model thread's own.
pub fn thread_number() -> usize {
    // loom gives its number away in this form only. A counter of ours would go on from one
    // execution to the next, and the model would no longer repeat itself.
    let id = format!("{:?}", thread::current().id());
    let digits: String = id.chars().filter(char::is_ascii_digit).collect();
    digits.parse::<usize>().map_or(0, |number| number + 1)
}

pub mod model {
    //! The switches of a model run: how loads are shown to loom.

    use std::cell::Cell;

    /// How loads are shown to loom. See the head of this file.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub enum LoadMode {
        /// A load is a load.
        Plain,
        /// A load is a read-modify-write that changes nothing.
        ReadModifyWrite,
        /// As `ReadModifyWrite`, save in threads marked by [`as_reader`].
        WritersOnly,
    }

    // The standard library's thread-local variable, on purpose: all threads of one model run share
    // it, and two model runs that two test threads have going do not.
    std::thread_local! {
        static MODE: Cell<LoadMode> = const { Cell::new(LoadMode::Plain) };
    }

    loom::thread_local! {
        static IS_READER: Cell<bool> = Cell::new(false);
    }

    /// Sets the mode for the model runs that this test thread starts from now on.
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
