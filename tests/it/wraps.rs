//! The version of a bucket wraps in the middle of a call: the comparison of keys, which the call
//! makes, changes the bucket until its control word is the same again.

use std::{
    cell::RefCell,
    hash::{Hash, Hasher},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::mpsc::{Receiver, channel},
};

use cortado::{Cache, IdentityHash, Insert, RemovalCause};

/// Publishes after which the version of a bucket is the same again.
const LAP: u64 = 1 << 14;

type Hook = Box<dyn FnOnce()>;

thread_local! {
    /// A hook that the next comparison of the two keys runs first.
    static HOOK: RefCell<Option<(u64, u64, Hook)>> = const { RefCell::new(None) };
}

fn at_comparison_of(resident: u64, wanted: u64, hook: impl FnOnce() + 'static) {
    HOOK.set(Some((resident, wanted, Box::new(hook))));
}

/// A key that shares its bucket and its tag with all others.
#[derive(Clone, Copy, Debug, Eq)]
struct Key(u64);

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(0);
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        let is_chosen = |hook: &mut (u64, u64, Hook)| {
            (self.0, other.0) == (hook.0, hook.1) || (other.0, self.0) == (hook.0, hook.1)
        };
        let hook = HOOK.with_borrow_mut(|hook| hook.take_if(is_chosen));
        if let Some((.., hook)) = hook {
            hook();
        }
        self.0 == other.0
    }
}

type Wrapping = Cache<Key, u64, IdentityHash>;
type Gone = Receiver<(u64, u64, RemovalCause)>;

fn cache() -> (Wrapping, Gone) {
    let (sender, gone) = channel();
    let cache = Cache::<Key, u64>::builder()
        .max_cost(1000)
        .max_garbage(u64::MAX)
        .metrics(true)
        .hasher(IdentityHash)
        .on_remove(move |gone| _ = sender.send((gone.key.0, gone.value, gone.cause)))
        .build_manual();
    (cache.unwrap(), gone)
}

/// Publishes an entry and removes it, `times` times.
fn churn(cache: &Wrapping, times: u64) {
    for _ in 0..times {
        assert_eq!(cache.insert(Key(CHURN), 0), Insert::Inserted);
        assert!(cache.remove(&Key(CHURN)).is_some());
    }
}

/// Drops the cache, and returns the entries that had left it before, except for those of `churn`.
fn gone(cache: Wrapping, gone: &Gone) -> Vec<(u64, u64, RemovalCause)> {
    drop(cache);
    let mut gone: Vec<_> = gone.try_iter().filter(|gone| gone.0 != CHURN).collect();
    gone.sort_by_key(|gone| (gone.0, gone.1));
    gone
}

fn entries(cache: &Wrapping) -> Vec<(u64, u64)> {
    let mut entries: Vec<_> = cache.pin().iter().map(|(key, &value)| (key.0, value)).collect();
    entries.sort_unstable();
    assert_eq!((cache.len(), cache.cost()), (entries.len(), entries.len() as u64));
    for &(key, value) in &entries {
        assert_eq!(cache.get_cloned(&Key(key)), Some(value));
    }
    entries
}

const A: u64 = 1;
const B: u64 = 2;
const CHURN: u64 = 9;

/// Removes `A`, whose slot is reused for `B` during the comparison; returns the outcome.
fn remove_while_the_slot_changes_hands(
    cache: &Wrapping,
    then: impl FnOnce() + 'static,
) -> Option<u64> {
    assert!(cache.insert(Key(A), 10).is_in());
    at_comparison_of(A, A, {
        let cache = cache.clone();
        move || {
            assert_eq!(cache.remove(&Key(A)).as_deref(), Some(&10));
            assert!(cache.insert(Key(B), 20).is_in());
            churn(&cache, LAP - 1);
            then();
        }
    });
    cache.remove(&Key(A)).as_deref().copied()
}

#[test]
fn remove_never_returns_the_entry_of_another_key() {
    let (cache, left) = cache();
    assert_eq!(remove_while_the_slot_changes_hands(&cache, || {}), None);
    assert!(entries(&cache).is_empty());
    // An entry that was unlinked by mistake is evicted.
    let metrics = cache.metrics();
    assert_eq!((metrics.evictions, metrics.removes), (1, LAP));
    assert_eq!(
        gone(cache, &left),
        [(A, 10, RemovalCause::Removed), (B, 20, RemovalCause::Evicted)]
    );
}

#[test]
fn remove_accounts_for_the_unlinked_entry_though_the_comparison_panics() {
    let (cache, left) = cache();
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        remove_while_the_slot_changes_hands(&cache, || {
            at_comparison_of(B, A, || panic!("comparison"));
        })
    }));
    assert!(panicked.is_err());
    assert!(entries(&cache).is_empty());
    assert_eq!(
        gone(cache, &left),
        [(A, 10, RemovalCause::Removed), (B, 20, RemovalCause::Evicted)]
    );
}

/// Inserts `A` = 11 while `A` = 10 is put where `B` was, which the insert compares it with. `B` and
/// the first `A` are in slot 0 if `is_above`, or in slot 1 and the second `A` in slot 0.
fn insert_while_it_is_inserted(
    cache: &Wrapping,
    is_above: bool,
    then: impl FnOnce() + 'static,
) -> Insert<u64> {
    const LOWEST: u64 = 5;
    let hold_lowest = move |cache: &Wrapping| {
        if !is_above {
            assert!(cache.insert(Key(LOWEST), 0).is_in());
        }
    };
    let free_lowest = move |cache: &Wrapping| {
        if !is_above {
            assert!(cache.remove(&Key(LOWEST)).is_some());
        }
    };
    hold_lowest(cache);
    assert!(cache.insert(Key(B), 20).is_in());
    free_lowest(cache);
    at_comparison_of(B, A, {
        let cache = cache.clone();
        move || {
            hold_lowest(&cache);
            assert!(cache.remove(&Key(B)).is_some());
            assert_eq!(cache.insert(Key(A), 10), Insert::Inserted);
            free_lowest(&cache);
            churn(&cache, LAP - 1 - u64::from(!is_above));
            then();
        }
    });
    cache.insert(Key(A), 11)
}

#[test]
fn insert_leaves_no_second_entry_of_its_key() {
    for is_above in [true, false] {
        let (cache, left) = cache();
        let inserted = insert_while_it_is_inserted(&cache, is_above, || {});
        assert_eq!(inserted, Insert::Inserted);
        assert_eq!(entries(&cache), [(A, 11)]);
        assert_eq!(cache.remove(&Key(A)).as_deref(), Some(&11));
        assert_eq!(cache.get_cloned(&Key(A)), None, "nothing out of date is left");
        let mut gone = gone(cache, &left);
        gone.retain(|gone| gone.0 == A);
        assert_eq!(gone, [(A, 10, RemovalCause::Evicted), (A, 11, RemovalCause::Removed)]);
    }
}

#[test]
fn insert_accounts_for_both_entries_though_the_comparison_panics() {
    for is_above in [true, false] {
        let (cache, _left) = cache();
        let panicked = catch_unwind(AssertUnwindSafe(|| {
            insert_while_it_is_inserted(&cache, is_above, || {
                at_comparison_of(A, A, || panic!("comparison"));
            })
        }));
        assert!(panicked.is_err(), "the panic comes out of the insert");
        assert_eq!(entries(&cache), [(A, 11)]);
    }
}
