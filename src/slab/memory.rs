//! Memory from the allocator and the system: slices that may fail to be allocated, and pages.

use std::ptr;

/// Allocates a slice; returns `None` if there is no memory.
pub(super) fn try_boxed<T>(len: usize, make: impl FnMut() -> T) -> Option<Box<[T]>> {
    let mut items = Vec::new();
    items.try_reserve_exact(len).ok()?;
    items.resize_with(len, make);
    Some(items.into_boxed_slice())
}

pub(super) fn into_raw<T>(slice: Box<[T]>) -> *mut T {
    Box::into_raw(slice).cast()
}

/// Turns the result of `into_raw` back into the slice.
///
/// # Safety
///
/// * `first` comes from `into_raw` of a slice of that length, and is owned by the caller.
pub(super) unsafe fn from_raw<T>(first: *mut T, len: usize) -> Box<[T]> {
    // SAFETY: the caller's promise.
    unsafe { Box::from_raw(ptr::slice_from_raw_parts_mut(first, len)) }
}

/// The size of the pages that back memory.
#[derive(Clone, Copy)]
pub enum Pages {
    /// Huge pages, of 2 MiB for example.
    Huge,
    /// Pages of the smallest size. Where the system uses huge pages by default, it would otherwise
    /// make, in the background, a whole huge page again of one from which a single page is left.
    Small,
}

/// Asks the system for pages of a kind. A hint: a system with one kind only ignores it.
pub fn advise(start: *mut u8, len: usize, pages: Pages) {
    #[cfg(all(target_os = "linux", not(any(cortado_loom, cortado_shuttle))))]
    {
        let advice = match pages {
            Pages::Huge => libc::MADV_HUGEPAGE,
            Pages::Small => libc::MADV_NOHUGEPAGE,
        };
        // SAFETY: advice about memory that the caller has allocated; it changes no content.
        unsafe { libc::madvise(start.cast(), len, advice) };
    }
    #[cfg(not(all(target_os = "linux", not(any(cortado_loom, cortado_shuttle)))))]
    let _ = (start, len, pages);
}

/// Returns the whole pages of a range to the system; returns their bytes.
///
/// # Safety
///
/// * The range was allocated, and contains nothing that any thread reads.
pub(super) unsafe fn give_pages_back(start: *mut u8, len: usize) -> usize {
    #[cfg(all(target_os = "linux", not(any(cortado_loom, cortado_shuttle))))]
    {
        // SAFETY: queries a constant of the system.
        let page = usize::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap_or(0);
        if !page.is_power_of_two() {
            return 0;
        }
        let offset = start.align_offset(page);
        let whole = len.saturating_sub(offset) / page * page;
        if whole == 0 {
            return 0;
        }
        let first = start.wrapping_add(offset).cast();
        // SAFETY: whole pages within the range, which the caller promises are not in use. The pages
        // of an allocator are private and have no file behind them, so the next read of one returns
        // zeros.
        let result = unsafe { libc::madvise(first, whole, libc::MADV_DONTNEED) };
        if result == 0 { whole } else { 0 }
    }
    #[cfg(not(all(target_os = "linux", not(any(cortado_loom, cortado_shuttle)))))]
    {
        let _ = start;
        // Models have no pages to return; all bytes count as returned, so that the callers are
        // tested.
        if crate::sync::IS_MODEL { len } else { 0 }
    }
}
