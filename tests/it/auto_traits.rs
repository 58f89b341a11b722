//! The auto traits of each public type.

use std::{
    cell::Cell,
    marker::PhantomData,
    panic::{RefUnwindSafe, UnwindSafe, catch_unwind},
};

use cortado::*;

/// Evaluates to whether a type implements a trait: an inherent item takes precedence over a trait
/// item.
macro_rules! implements {
    ($type:ty: $trait:path) => {{
        #[allow(dead_code)]
        struct Probe<T>(PhantomData<T>);
        #[allow(dead_code)]
        trait No {
            const IS: bool = false;
        }
        impl<T> No for Probe<T> {}
        #[allow(dead_code)]
        impl<T: $trait> Probe<T> {
            const IS: bool = true;
        }
        <Probe<$type>>::IS
    }};
}

/// Checks `Send`, `Sync`, `Unpin`, `UnwindSafe` and `RefUnwindSafe` of a type: `y` or `n` each.
macro_rules! check {
    ($($type:ty: $expected:literal;)*) => {$(
        let is = [
            implements!($type: Send),
            implements!($type: Sync),
            implements!($type: Unpin),
            implements!($type: UnwindSafe),
            implements!($type: RefUnwindSafe),
        ];
        let is: String = is.map(|is| if is { 'y' } else { 'n' }).iter().collect();
        assert_eq!(is, $expected, "{}", stringify!($type));
    )*};
}

type Key = String;
type Value = Vec<u8>;

#[test]
fn auto_traits_of_every_public_type_are_those_of_the_docs() {
    check! {
        Cache<Key, Value>: "yyyyy";
        CacheBuilder<Key, Value>: "yyyyy";
        Config: "yyyyy";
        InsertOptions: "yyyyy";
        Maintenance: "yyyyy";
        Priority: "yyyyy";
        EvictionPolicy: "yyyyy";
        WaitPolicy: "yyyyy";
        WorkLimit: "yyyyy";
        // A pin belongs to its thread.
        ValueRef<'static, Key, Value>: "nnyyy";
        CacheRef<'static, Key, Value, DefaultHashBuilder>: "nnyyy";
        Iter<'static, Key, Value>: "nnyyy";
        Claim<'static, Key, Value, DefaultHashBuilder>: "nnyyy";
        FillGuard<'static, Key, Value, DefaultHashBuilder>: "yyyyy";
        Insert<Value>: "yyyyy";
        RejectReason: "yyyyy";
        ComputeOp<Value>: "yyyyy";
        ComputeResult<Value, Value>: "yyyyy";
        EntryInfo: "yyyyy";
        ExportedEntry<Key, Value>: "yyyyy";
        ImportReport: "yyyyy";
        Removed<Key, Value>: "yyyyy";
        RemovalCause: "yyyyy";
        WorkReport: "yyyyy";
        MemoryUse: "yyyyy";
        StalledReader: "yyyyy";
        Metrics: "yyyyy";
        DurationHistogram: "yyyyy";
        SystemClock: "yyyyy";
        ManualClock: "yyyyy";
        IdentityHash: "yyyyy";
        IdentityHasher: "yyyyy";
        BuildError: "yyyyy";
        TtlError: "yyyyy";
    }
}

#[test]
fn auto_traits_of_the_cache_follow_from_those_of_its_values() {
    check! {
        Cache<Key, std::sync::Mutex<u8>>: "yyyyy";
        Cache<Key, Cell<u8>>: "nnynn";
        Cache<Key, std::rc::Rc<u8>>: "nnyyy";
        Cache<Key, std::marker::PhantomPinned>: "yyyyy";
        Cache<Key, Value, Cell<u8>>: "nnynn";
        ValueRef<'static, Key, Cell<u8>>: "nnynn";
        CacheRef<'static, Key, Cell<u8>, DefaultHashBuilder>: "nnynn";
    }
}

#[test]
fn cache_works_after_a_panic_that_was_caught_with_it() {
    let cache: Cache<u32, u32> = Cache::new(10);
    let panicked = catch_unwind(|| cache.get_or_insert_with(1, || panic!("planned")).cost());
    assert!(panicked.is_err());
    assert_eq!(*cache.get_or_insert_with(1, || 2), 2);
    let value = cache.get(&1).unwrap();
    assert_eq!(catch_unwind(|| *value).ok(), Some(2));
}
