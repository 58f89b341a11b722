//! Panics of callbacks.

use std::{
    mem,
    panic::{AssertUnwindSafe, catch_unwind},
};

/// Runs a callback and catches its panic. Stretto's callbacks run on a thread of their own, so
/// callers do not expect the panic.
pub fn guarded(callback: impl FnOnce()) {
    let Err(payload) = catch_unwind(AssertUnwindSafe(callback)) else { return };
    // The payload may panic when it is dropped. The payload of that second panic is leaked, as it
    // may panic again.
    if let Err(second) = catch_unwind(AssertUnwindSafe(|| drop(payload))) {
        mem::forget(second);
    }
    #[cfg(feature = "tracing")]
    tracing::error!(target: "cortado", "a callback was cut short by a panic");
}

#[cfg(test)]
mod tests {
    use std::panic::panic_any;

    use super::*;

    #[test]
    fn panic_whose_payload_panics_goes_no_further() {
        struct Bomb;
        impl Drop for Bomb {
            fn drop(&mut self) {
                panic_any(Self);
            }
        }
        guarded(|| panic_any(Bomb));
    }
}
