//! Catching panics of user code where work remains to be done.

use std::{
    any::Any,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
};

/// Calls `f` with each item, even if a call panics, and resumes the first panic after the last
/// item.
///
/// If the thread is panicking already, the panic is dropped instead: a second one would abort the
/// process.
pub fn for_all<T>(items: impl IntoIterator<Item = T>, mut f: impl FnMut(T)) {
    let mut panic = None;
    for item in items {
        match catch_unwind(AssertUnwindSafe(|| f(item))) {
            Ok(()) => {}
            Err(first) if panic.is_none() => panic = Some(first),
            Err(another) => drop_panic(another),
        }
    }
    match panic {
        Some(panic) if std::thread::panicking() => drop_panic(panic),
        Some(panic) => resume_unwind(panic),
        None => {}
    }
}

/// Calls `f` and catches a panic; returns `None` in that case.
pub fn caught<R>(f: impl FnOnce() -> R) -> Option<R> {
    catch_unwind(AssertUnwindSafe(f)).map_err(drop_panic).ok()
}

/// Drops the payload of a panic, whose destructor may panic in turn.
///
/// A second panic must not end a sweep, which would lose the remaining values, or the maintenance
/// thread. Its payload is leaked, since dropping that could panic again, without end.
pub fn drop_panic(panic: Box<dyn Any + Send>) {
    if let Err(again) = catch_unwind(AssertUnwindSafe(|| drop(panic))) {
        std::mem::forget(again);
    }
}

#[cfg(all(test, not(any(cortado_loom, cortado_shuttle))))]
mod tests {
    use std::{cell::Cell, panic::panic_any};

    use super::*;

    /// Panics in its destructor, with another `Bomb` as the payload. It is zero-sized, so that
    /// leaking the last one leaks no memory.
    struct Bomb;

    impl Drop for Bomb {
        fn drop(&mut self) {
            panic_any(Self);
        }
    }

    #[test]
    fn all_items_are_visited_and_the_first_panic_is_resumed() {
        let mut seen = Vec::new();
        let mut visit = |item: u32| {
            seen.push(item);
            if item % 2 == 1 {
                panic_any(item);
            }
        };
        let panic = catch_unwind(AssertUnwindSafe(|| for_all(0..6, &mut visit))).unwrap_err();
        assert_eq!(panic.downcast_ref(), Some(&1u32));
        for_all([6, 8], &mut visit);
        assert_eq!(seen, [0, 1, 2, 3, 4, 5, 6, 8]);
    }

    #[test]
    fn panicking_thread_does_not_panic_twice() {
        struct Sweep<'a>(&'a Cell<u32>);
        impl Drop for Sweep<'_> {
            fn drop(&mut self) {
                for_all([1, 2], |item| {
                    self.0.set(self.0.get() + item);
                    panic_any("of an item");
                });
            }
        }
        let sum = Cell::new(0);
        let first = catch_unwind(AssertUnwindSafe(|| {
            let _sweep = Sweep(&sum);
            panic_any("of the thread");
        }));
        assert_eq!(first.unwrap_err().downcast_ref(), Some(&"of the thread"));
        assert_eq!(sum.get(), 3);
    }

    #[test]
    fn payload_of_a_panic_may_panic_when_dropped() {
        assert_eq!(caught(|| 1), Some(1));
        assert_eq!(caught(|| panic_any(Bomb)), None::<u32>);
        drop_panic(Box::new(Bomb));
        let panic = catch_unwind(|| for_all(0..3, |_| panic_any(Bomb))).unwrap_err();
        assert!(panic.is::<Bomb>());
        drop_panic(panic);
    }
}
