//! Unwind safety: what a panic of user code leaves of the types that a caller holds across `catch_unwind`.
//!
//! A panic out of any call leaves the cache working and its accounts right (see the crate's documentation), so
//! no broken invariant of the cache can be seen after it. What a panic leaves of keys, values and the hasher
//! can: the cache only shares them, so they have to be what a shared reference to them asks for, as with `Arc`.

use std::panic::{RefUnwindSafe, UnwindSafe};

use super::{Cache, CacheBuilder, CacheRef, FillGuard, Iter, ValueRef};

macro_rules! unwind_safe {
    ($($name:ident <$($lifetime:lifetime,)? $($parameter:ident),*>;)*) => {$(
        impl<$($parameter: RefUnwindSafe),*> UnwindSafe for $name<$($lifetime,)? $($parameter),*> {}
        impl<$($parameter: RefUnwindSafe),*> RefUnwindSafe
            for $name<$($lifetime,)? $($parameter),*> {}
    )*};
}

unwind_safe! {
    Cache<K, V, S>;
    FillGuard<'_, K, V, S>;
    Iter<'_, K, V>;
    CacheRef<'_, K, V, S>;
    ValueRef<'_, K, V>;
}

// Its functions are not called before the cache is built. The hasher is moved out of it whole.
impl<K, V, S: UnwindSafe> UnwindSafe for CacheBuilder<K, V, S> {}
impl<K, V, S: RefUnwindSafe> RefUnwindSafe for CacheBuilder<K, V, S> {}
