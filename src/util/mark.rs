//! The mark of a thread that belongs to a cache.

use std::cell::Cell;

use crate::sync::thread_local;

thread_local! {
    static IS_CACHE_THREAD: Cell<bool> = const { Cell::new(false) };
}

/// Marks this thread as that of a cache, for as long as it lives.
pub fn mark_cache_thread() {
    let _ = IS_CACHE_THREAD.try_with(|mark| mark.set(true));
}

/// Returns whether this thread is that of a cache, whichever.
pub fn is_cache_thread() -> bool {
    IS_CACHE_THREAD.try_with(Cell::get).unwrap_or(false)
}

#[cfg(all(test, not(any(cortado_loom, cortado_shuttle))))]
mod tests {
    use super::*;

    #[test]
    fn mark_is_that_of_one_thread() {
        let marked = std::thread::spawn(|| {
            assert!(!is_cache_thread());
            mark_cache_thread();
            is_cache_thread()
        });
        assert!(marked.join().unwrap() && !is_cache_thread());
    }
}
