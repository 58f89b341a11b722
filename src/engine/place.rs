//! A place for an object that one thread at a time takes out.

use std::ops::{Deref, DerefMut};

use super::Place;

/// An object taken out of its place. Dropping it puts it back, even if a user's clock panics.
pub(super) struct Borrowed<'a, T> {
    place: &'a Place<T>,
    taken: Option<Box<T>>,
}

impl<T> Deref for Borrowed<'_, T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        self.taken.as_deref().expect("it is there until it is dropped")
    }
}

impl<T> DerefMut for Borrowed<'_, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        self.taken.as_deref_mut().expect("it is there until it is dropped")
    }
}

impl<T> Drop for Borrowed<'_, T> {
    #[inline]
    fn drop(&mut self) {
        // The place is empty: only the thread that took the object out stores one.
        self.place.store(self.taken.take());
    }
}

/// Takes the object out, unless another thread holds it.
#[inline]
pub(super) fn take<T>(place: &Place<T>) -> Option<Borrowed<'_, T>> {
    let taken = place.take();
    taken.is_some().then(|| Borrowed { place, taken })
}

/// Calls `f` with the object, unless another thread holds it.
pub(super) fn borrow<T, R>(place: &Place<T>, f: impl FnOnce(&mut T) -> R) -> Option<R> {
    take(place).map(|mut taken| f(&mut taken))
}
