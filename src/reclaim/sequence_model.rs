//! What there is one of in an execution of a model: the registry of slots.
//!
//! Both tools run all their threads on one thread of the system, so plain thread-local variables serve
//! a whole execution, and order nothing.

use std::cell::{Cell, RefCell};

use super::{Barrier, Chunk, LEAVING, Registry, SLOT};
use crate::sync::thread_local;

std::thread_local! { // shim: one of an execution, not one of a model thread
    static REGISTRY: Cell<Option<&'static Registry>> = const { Cell::new(None) };
}
std::thread_local! { // shim: as above
    /// What an execution leaves behind.
    static LEFT: RefCell<(Vec<*mut Chunk>, Option<*mut Registry>)> =
        const { RefCell::new((Vec::new(), None)) };
}

/// Returns the registry of this execution.
///
/// # Panics
///
/// Panics if the execution has not begun with [`reset`].
pub fn registry() -> &'static Registry {
    REGISTRY.get().expect("an execution begins with a reset")
}

/// Begins an execution, before its other threads.
pub fn reset() {
    reset_with(Barrier::choose());
}

/// The same with a barrier of the caller's choice.
pub fn reset_with(barrier: Barrier) {
    let registry = Box::into_raw(Box::new(Registry::new(barrier)));
    let (chunks, before) = LEFT.with(|left| left.replace((Vec::new(), Some(registry))));
    for chunk in chunks {
        // SAFETY: from a box; the threads of the execution that made it are gone.
        drop(unsafe { Box::from_raw(chunk) });
    }
    if let Some(before) = before {
        // SAFETY: as above.
        drop(unsafe { Box::from_raw(before) });
    }
    // SAFETY: from a box that lives until the next execution begins, when no thread of this is left.
    REGISTRY.set(Some(unsafe { &*registry }));
}

pub(super) fn note_chunk(chunk: *mut Chunk) {
    LEFT.with(|left| left.borrow_mut().0.push(chunk));
}

/// Has no name: which thread it is, the number says.
pub(super) fn thread_name() -> [u8; 16] {
    [0; 16]
}

thread_local! {
    static HAS_ENDED: Cell<bool> = const { Cell::new(false) };
}

/// Does what the end of the thread does: the order in which loom destroys a thread's variables is not
/// always the same.
pub fn end_thread() {
    let slot = LEAVING.try_with(|leaving| leaving.0.take()).ok().flatten();
    let _ = SLOT.try_with(|own| own.set(None));
    if let Some(slot) = slot {
        slot.leave();
    }
    HAS_ENDED.with(|ended| ended.set(true));
}

/// Returns whether the thread's variables are gone.
pub(super) fn has_ended() -> bool {
    HAS_ENDED.try_with(Cell::get).unwrap_or(true)
}
