//! The registry of slots of a model execution.
//!
//! Both tools run all model threads on one system thread, so plain thread-local variables serve a
//! whole execution and add no happens-before edge.

use std::cell::{Cell, RefCell};

use super::{Barrier, Chunk, LEAVING, Registry, SLOT};
use crate::sync::thread_local;

std::thread_local! { // shim: one of an execution, not one of a model thread
    static REGISTRY: Cell<Option<&'static Registry>> = const { Cell::new(None) };
}
std::thread_local! { // shim: as above
    /// The chunks and the registry of the current execution, freed when the next one begins.
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

/// Begins an execution. Called before its other threads start.
pub fn reset() {
    reset_with(Barrier::choose());
}

/// Like [`reset`], but with a barrier of the caller's choice.
pub fn reset_with(barrier: Barrier) {
    let registry = Box::into_raw(Box::new(Registry::new(barrier)));
    let (chunks, before) = LEFT.with(|left| left.replace((Vec::new(), Some(registry))));
    for chunk in chunks {
        // SAFETY: the pointer is from a box, and the threads of the execution that made it have
        // ended.
        drop(unsafe { Box::from_raw(chunk) });
    }
    if let Some(before) = before {
        // SAFETY: as above.
        drop(unsafe { Box::from_raw(before) });
    }
    // SAFETY: the pointer is from a box that is freed when the next execution begins; by then all
    // threads of this one have ended.
    REGISTRY.set(Some(unsafe { &*registry }));
}

pub(super) fn note_chunk(chunk: *mut Chunk) {
    LEFT.with(|left| left.borrow_mut().0.push(chunk));
}

/// Returns no name: the number identifies a model thread.
pub(super) fn thread_name() -> [u8; 16] {
    [0; 16]
}

thread_local! {
    static HAS_ENDED: Cell<bool> = const { Cell::new(false) };
}

/// Gives the thread's slot back as the end of a thread does. Called explicitly, because loom does
/// not always destroy a thread's variables in the same order.
pub fn end_thread() {
    let slot = LEAVING.try_with(|leaving| leaving.0.take()).ok().flatten();
    let _ = SLOT.try_with(|own| own.set(None));
    if let Some(slot) = slot {
        slot.leave();
    }
    HAS_ENDED.with(|ended| ended.set(true));
}

/// Returns whether the thread's variables have been destroyed.
pub(super) fn has_ended() -> bool {
    HAS_ENDED.try_with(Cell::get).unwrap_or(true)
}
