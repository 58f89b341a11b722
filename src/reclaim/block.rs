//! Blocks: a value in memory of its own, perhaps with a tail behind it.
//!
//! Most values need no tail, and pay nothing for those that do: whether a block has one, its value
//! says in a bit. Only the block is told apart by it; whoever has a reference to the value finds the
//! tail through it ([`tail`]), and whoever frees the value frees both.

use std::{
    alloc::{Layout, dealloc},
    marker::PhantomData,
    ops::Deref,
    ptr::{self, NonNull},
};

use crate::sync::IS_MODEL;

/// What can lie in a block.
///
/// # Safety
///
/// * `has_tail` returns what `set_tail` was called with last, and `false` before.
/// * Nobody calls `set_tail` but this module.
pub unsafe trait Stored: Sized {
    /// What lies behind some of the values.
    type Tail;

    /// Returns whether a tail lies behind this value.
    #[inline]
    fn has_tail(&self) -> bool {
        false
    }

    /// Notes whether a tail lies behind this value.
    fn set_tail(&mut self, _has_tail: bool) {}
}

/// A value in a block, and its only owner.
pub struct Owned<T: Stored> {
    value: NonNull<T>,
    _owns: PhantomData<T>,
}

/// A block with a tail.
#[repr(C)]
struct Whole<T: Stored> {
    value: T,
    tail: T::Tail,
}

/// The memory of a value that has moved elsewhere; dropping it frees the memory.
pub struct Husk {
    memory: NonNull<u8>,
    layout: Layout,
}

// SAFETY: an `Owned` is a box.
unsafe impl<T: Stored + Send> Send for Owned<T> where T::Tail: Send {}
// SAFETY: as above.
unsafe impl<T: Stored + Sync> Sync for Owned<T> where T::Tail: Sync {}
// SAFETY: memory without a value belongs to no thread.
unsafe impl Send for Husk {}
// SAFETY: as above; a shared husk shows nothing.
unsafe impl Sync for Husk {}
// SAFETY: it never has a tail, and says so.
unsafe impl Stored for Husk {
    type Tail = ();
}
// SAFETY: as above. For tests and benches.
unsafe impl Stored for u64 {
    type Tail = ();
}

impl<T: Stored> Owned<T> {
    /// Puts a value into a block without a tail.
    pub fn new(value: T) -> Self {
        Self::from(Box::new(value))
    }

    /// Puts a value into a block with a tail.
    pub fn with_tail(mut value: T, tail: T::Tail) -> Self {
        value.set_tail(true);
        let block = NonNull::from(Box::leak(Box::new(Whole { value, tail })));
        // So that `tail` may go beyond the value.
        let _ = block.as_ptr().expose_provenance();
        Self { value: block.cast(), _owns: PhantomData }
    }

    /// Takes the value out.
    pub fn into_inner(self) -> T {
        let block = self.into_raw();
        // SAFETY: the block was ours alone; the value is read once, and what is left is a husk.
        let (mut value, _tail, _husk) = unsafe { empty(block) };
        value.set_tail(false);
        value
    }

    /// Gives the block away.
    pub fn into_raw(self) -> NonNull<T> {
        let value = self.value;
        std::mem::forget(self);
        value
    }

    /// Takes a block over.
    ///
    /// # Safety
    ///
    /// * `value` comes from [`into_raw`](Self::into_raw), and is the caller's alone.
    pub unsafe fn from_raw(value: NonNull<T>) -> Self {
        Self { value, _owns: PhantomData }
    }

    /// Moves value and tail of a block into another one, and returns that and the memory left behind.
    ///
    /// # Safety
    ///
    /// * As for [`from_raw`](Self::from_raw); but others may still look at the address.
    pub unsafe fn moved_from(block: NonNull<T>) -> (Self, Husk) {
        // SAFETY: the caller's promise; the value is read once, and what is left is a husk.
        let (value, tail, husk) = unsafe { empty(block) };
        let moved = match tail {
            Some(tail) => Self::with_tail(value, tail),
            None => Self::new(value),
        };
        (moved, husk)
    }
}

impl<T: Stored> From<Box<T>> for Owned<T> {
    fn from(value: Box<T>) -> Self {
        debug_assert!(!value.has_tail());
        Self { value: NonNull::from(Box::leak(value)), _owns: PhantomData }
    }
}

impl<T: Stored> Deref for Owned<T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: the block is ours.
        unsafe { self.value.as_ref() }
    }
}

impl<T: Stored> Drop for Owned<T> {
    fn drop(&mut self) {
        // Made first: a destructor may panic.
        // SAFETY: the block is ours alone, and given up here.
        let _memory = unsafe { memory_of(self.value) };
        // SAFETY: as above.
        unsafe { drop_parts(self.value) };
    }
}

impl<T: Stored + std::fmt::Debug> std::fmt::Debug for Owned<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.deref().fmt(f)
    }
}

impl Drop for Husk {
    fn drop(&mut self) {
        // Memory never comes back in a model, so that no address comes twice.
        if self.layout.size() > 0 && !IS_MODEL {
            // SAFETY: the memory was allocated with this layout, for a box, and is ours.
            unsafe { dealloc(self.memory.as_ptr(), self.layout) }
        }
    }
}

impl std::fmt::Debug for Husk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Husk").field("layout", &self.layout).finish_non_exhaustive()
    }
}

/// Returns the tail of a value, if it has one.
#[inline]
pub fn tail<T: Stored>(value: &T) -> Option<&T::Tail> {
    if !value.has_tail() {
        return None;
    }
    let block = ptr::with_exposed_provenance::<Whole<T>>(ptr::from_ref(value).addr());
    // SAFETY: the value says that it lies in a block with a tail, whose provenance was exposed when
    // it was made. The block lives for as long as the value, and its tail is only ever shared.
    Some(unsafe { &(*block).tail })
}

/// Drops a value in its block, and the tail; frees the memory if it is not that of a plain value, and
/// returns whether it did.
///
/// # Safety
///
/// * The block is the caller's alone, and the value is not used again.
#[inline]
pub unsafe fn drop_in_block<T: Stored>(block: NonNull<T>) -> bool {
    // SAFETY: the caller's promise.
    let has_tail = unsafe { block.as_ref() }.has_tail();
    // Made first: a destructor may panic.
    // SAFETY: the caller's promise.
    let _memory = has_tail.then(|| unsafe { memory_of(block) });
    // SAFETY: the caller's promise.
    unsafe { drop_parts(block) };
    has_tail
}

/// Takes a value out of its block and drops the tail; frees the memory if it is not that of a plain
/// value.
///
/// # Safety
///
/// * As for [`drop_in_block`].
pub unsafe fn take_from_block<T: Stored>(block: NonNull<T>) -> T {
    // SAFETY: the caller's promise.
    let (mut value, tail, husk) = unsafe { empty(block) };
    if tail.is_none() {
        // The caller keeps it.
        std::mem::forget(husk);
    }
    value.set_tail(false);
    value
}

/// Drops value and tail where they are.
///
/// # Safety
///
/// * The block is the caller's alone, and the value is not used again.
unsafe fn drop_parts<T: Stored>(block: NonNull<T>) {
    // SAFETY: the caller's promise.
    if unsafe { block.as_ref() }.has_tail() {
        // SAFETY: the caller's promise; the value says that the block is that of a `Whole`.
        unsafe { block.cast::<Whole<T>>().drop_in_place() }
    } else {
        // SAFETY: the caller's promise.
        unsafe { block.drop_in_place() }
    }
}

/// Takes over the memory of a block, whose value is still in it.
///
/// # Safety
///
/// * The block is the caller's alone, and its value is not used after the husk is dropped.
unsafe fn memory_of<T: Stored>(block: NonNull<T>) -> Husk {
    // SAFETY: the caller's promise.
    let has_tail = unsafe { block.as_ref() }.has_tail();
    let layout = if has_tail { Layout::new::<Whole<T>>() } else { Layout::new::<T>() };
    Husk { memory: block.cast(), layout }
}

/// Moves everything out of a block.
///
/// # Safety
///
/// * The block is the caller's alone, and its value is not used again.
unsafe fn empty<T: Stored>(block: NonNull<T>) -> (T, Option<T::Tail>, Husk) {
    // SAFETY: the caller's promise.
    let husk = unsafe { memory_of(block) };
    // SAFETY: the caller's promise.
    if unsafe { block.as_ref() }.has_tail() {
        // SAFETY: the caller's promise; the value says that the block is that of a `Whole`.
        let Whole { value, tail } = unsafe { block.cast::<Whole<T>>().read() };
        return (value, Some(tail), husk);
    }
    // SAFETY: the caller's promise.
    (unsafe { block.read() }, None, husk)
}

#[cfg(all(test, not(any(cortado_loom, cortado_shuttle))))]
mod tests {
    use std::{
        panic::{AssertUnwindSafe, catch_unwind},
        sync::Arc,
    };

    use super::*;

    struct Value {
        number: u32,
        has_tail: bool,
        _counted: Arc<()>,
        panics: bool,
    }

    impl Drop for Value {
        fn drop(&mut self) {
            assert!(!self.panics, "destructor");
        }
    }

    // SAFETY: a field of its own.
    unsafe impl Stored for Value {
        type Tail = (u64, Arc<()>);

        fn has_tail(&self) -> bool {
            self.has_tail
        }

        fn set_tail(&mut self, has_tail: bool) {
            self.has_tail = has_tail;
        }
    }

    fn value(counted: &Arc<()>, panics: bool) -> Value {
        Value { number: 7, has_tail: false, _counted: Arc::clone(counted), panics }
    }

    fn both(counted: &Arc<()>, panics: bool) -> [Owned<Value>; 2] {
        let tail = (9, Arc::clone(counted));
        [Owned::new(value(counted, panics)), Owned::with_tail(value(counted, panics), tail)]
    }

    #[test]
    fn tail_is_found_through_the_value_and_dropped_with_it() {
        let counted = Arc::new(());
        let [plain, tailed] = both(&counted, false);
        assert!(tail(&*plain).is_none());
        assert_eq!(tail(&*tailed).map(|tail| tail.0), Some(9));
        assert_eq!((tailed.number, Arc::strong_count(&counted)), (7, 4));
        drop((plain, tailed));
        assert_eq!(Arc::strong_count(&counted), 1);
    }

    #[test]
    fn value_that_is_taken_out_has_no_tail() {
        let counted = Arc::new(());
        // The plain one beside the other, which counts twice; then that one's value alone.
        for (owned, count) in both(&counted, false).into_iter().zip([4, 2]) {
            let value = owned.into_inner();
            assert!(tail(&value).is_none());
            assert_eq!((value.number, Arc::strong_count(&counted)), (7, count));
        }
        assert_eq!(Arc::strong_count(&counted), 1);
    }

    #[test]
    fn tail_moves_with_its_value() {
        let counted = Arc::new(());
        for owned in both(&counted, false) {
            let before = tail(&*owned).map(|tail| tail.0);
            // SAFETY: the block is ours.
            let (moved, husk) = unsafe { Owned::moved_from(owned.into_raw()) };
            drop(husk);
            assert_eq!((moved.number, tail(&*moved).map(|tail| tail.0)), (7, before));
        }
        assert_eq!(Arc::strong_count(&counted), 1);
    }

    #[test]
    fn panic_of_a_destructor_leaks_neither_tail_nor_memory() {
        let counted = Arc::new(());
        for owned in both(&counted, true) {
            catch_unwind(AssertUnwindSafe(|| drop(owned))).unwrap_err();
        }
        for owned in both(&counted, true) {
            let has_tail = owned.has_tail();
            let block = owned.into_raw();
            // SAFETY: the block is ours; the memory of a plain value stays with us.
            let _memory = (!has_tail).then(|| unsafe { memory_of(block) });
            // SAFETY: the block is ours.
            let dropped = catch_unwind(AssertUnwindSafe(|| unsafe { drop_in_block(block) }));
            assert!(dropped.is_err());
        }
        assert_eq!(Arc::strong_count(&counted), 1);
    }
}
