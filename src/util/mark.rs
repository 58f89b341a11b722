//! The mark of a thread that belongs to a cache.

use std::cell::Cell;

use crate::sync::thread_local;

thread_local! {
    /// The address of something that the cache has one of; 0 on any other thread.
    static OWNER: Cell<usize> = const { Cell::new(0) };
}

/// Marks this thread as that of a cache, for as long as it lives. `owner` is something of that cache alone,
/// and never followed.
pub fn mark_cache_thread<T>(owner: &T) {
    let _ = OWNER.try_with(|mark| mark.set(std::ptr::from_ref(owner).addr()));
}

/// Returns whether this thread is that of a cache, whichever.
pub fn is_cache_thread() -> bool {
    OWNER.try_with(|mark| mark.get() != 0).unwrap_or(false)
}

/// Returns whether this thread was marked with this owner.
pub fn is_thread_of<T>(owner: &T) -> bool {
    OWNER.try_with(|mark| mark.get() == std::ptr::from_ref(owner).addr()).unwrap_or(false)
}

#[cfg(all(test, not(any(cortado_loom, cortado_shuttle))))]
mod tests {
    use super::*;

    #[test]
    fn mark_is_that_of_one_thread_and_one_cache() {
        let (one, other) = (0u8, 0u16);
        let marked = std::thread::spawn(move || {
            assert!(!is_cache_thread() && !is_thread_of(&one));
            mark_cache_thread(&one);
            is_cache_thread() && is_thread_of(&one) && !is_thread_of(&other)
        });
        assert!(marked.join().unwrap() && !is_cache_thread());
    }
}
