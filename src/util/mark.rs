//! A thread-local marker of the maintenance threads: which cache the thread belongs to.

use std::cell::Cell;

use crate::sync::thread_local;

thread_local! {
    /// An address that is unique to the cache; 0 on other threads.
    static OWNER: Cell<usize> = const { Cell::new(0) };
}

/// Marks this thread as the maintenance thread of a cache until it ends. Only the address of
/// `owner` is used; it must be unique to the cache.
pub fn mark_cache_thread<T>(owner: &T) {
    let _ = OWNER.try_with(|mark| mark.set(std::ptr::from_ref(owner).addr()));
}

/// Returns whether this thread is the maintenance thread of any cache.
pub fn is_cache_thread() -> bool {
    OWNER.try_with(|mark| mark.get() != 0).unwrap_or(false)
}

/// Returns whether this thread is marked with `owner`.
pub fn is_thread_of<T>(owner: &T) -> bool {
    OWNER.try_with(|mark| mark.get() == std::ptr::from_ref(owner).addr()).unwrap_or(false)
}

#[cfg(all(test, not(any(cortado_loom, cortado_shuttle))))]
mod tests {
    use super::*;

    #[test]
    fn mark_belongs_to_one_thread_and_one_cache() {
        let (one, other) = (0u8, 0u16);
        let marked = std::thread::spawn(move || {
            assert!(!is_cache_thread() && !is_thread_of(&one));
            mark_cache_thread(&one);
            is_cache_thread() && is_thread_of(&one) && !is_thread_of(&other)
        });
        assert!(marked.join().unwrap() && !is_cache_thread());
    }
}
