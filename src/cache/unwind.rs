//! Unwind safety of the types that a caller may hold across `catch_unwind`.
//!
//! After a panic out of any call, the cache keeps working and its accounts are right (see the
//! crate's documentation), so the caller cannot observe a broken invariant of the cache. It can
//! observe one of a key, a value or the hasher. The cache only shares these, so they must be what a
//! shared reference to them requires, as with `Arc`.

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

// The builder's functions are not called before the cache is built. The hasher is moved out whole.
impl<K, V, S: UnwindSafe> UnwindSafe for CacheBuilder<K, V, S> {}
impl<K, V, S: RefUnwindSafe> RefUnwindSafe for CacheBuilder<K, V, S> {}
