//! How the output of a loader becomes an entry, and the forms in which a caller passes the key.
//!
//! The loading methods differ in what the loader returns (a value, or a value with its options, or
//! either of them or an error) and in who gets an error (only the loader's caller, or all callers
//! that wait). Each combination is a [`Kind`], so the code that waits and loads exists once.

use std::{
    convert::Infallible,
    hash::{BuildHasher, Hash},
    marker::PhantomData,
    sync::Arc,
};

use equivalent::Equivalent;

use super::InsertOptions;
use crate::{engine::Engine, singleflight::SharedError};

/// How the output `T` of a loader becomes an entry with the value `V`.
pub trait Kind<V, T> {
    /// The error that the caller gets if there is no value.
    type Error;

    /// Splits the output of a loader into a value or an error.
    fn split(loaded: T) -> Result<(V, InsertOptions), Failed<Self::Error>>;

    /// Converts the error of a load that this caller waited for, if the caller shares it.
    fn accept(_: SharedError) -> Option<Self::Error> {
        None
    }
}

/// The failure of a loader.
pub struct Failed<E> {
    /// The error for the loader's caller.
    pub error: E,
    /// The error for the callers that wait, if it is shared.
    pub shared: Option<SharedError>,
}

/// The loader returns a value.
pub struct Value;
/// The loader returns a value and its options.
pub struct ValueWith;
/// The loader returns a value, or an error for its own caller.
pub struct Try<E>(PhantomData<E>);
/// The loader returns a value and its options, or an error for its own caller.
pub struct TryWith<E>(PhantomData<E>);
/// The loader returns a value and its options, or an error for all callers that wait.
pub struct TryShared<E>(PhantomData<E>);

impl<V> Kind<V, V> for Value {
    type Error = Infallible;

    fn split(loaded: V) -> Result<(V, InsertOptions), Failed<Infallible>> {
        Ok((loaded, InsertOptions::new()))
    }
}

impl<V> Kind<V, (V, InsertOptions)> for ValueWith {
    type Error = Infallible;

    fn split(loaded: (V, InsertOptions)) -> Result<(V, InsertOptions), Failed<Infallible>> {
        Ok(loaded)
    }
}

impl<V, E> Kind<V, Result<V, E>> for Try<E> {
    type Error = E;

    fn split(loaded: Result<V, E>) -> Result<(V, InsertOptions), Failed<E>> {
        let value = loaded.map_err(|error| Failed { error, shared: None })?;
        Ok((value, InsertOptions::new()))
    }
}

impl<V, E> Kind<V, Result<(V, InsertOptions), E>> for TryWith<E> {
    type Error = E;

    fn split(loaded: Result<(V, InsertOptions), E>) -> Result<(V, InsertOptions), Failed<E>> {
        loaded.map_err(|error| Failed { error, shared: None })
    }
}

impl<V, E: Send + Sync + 'static> Kind<V, Result<(V, InsertOptions), E>> for TryShared<E> {
    type Error = Arc<E>;

    fn split(loaded: Result<(V, InsertOptions), E>) -> Result<(V, InsertOptions), Failed<Arc<E>>> {
        loaded.map_err(|error| {
            let error = Arc::new(error);
            let shared: SharedError = error.clone();
            Failed { error, shared: Some(shared) }
        })
    }

    fn accept(error: SharedError) -> Option<Arc<E>> {
        error.downcast().ok()
    }
}

/// A key to look up, which is converted to a key of the cache if it has to be loaded.
///
/// Implemented by [`OwnedKey`] and [`BorrowedKey`].
pub trait EntryKey<K> {
    /// Returns the hash of the key.
    #[doc(hidden)]
    fn hash_by<V, S: BuildHasher>(&self, engine: &Engine<K, V, S>) -> u64
    where
        K: Hash;

    /// Returns whether `key` is equivalent.
    #[doc(hidden)]
    fn matches(&self, key: &K) -> bool;

    /// Converts this into a key of the cache.
    #[doc(hidden)]
    fn into_key(self) -> K;
}

/// A key that the caller passes by value.
#[derive(Clone, Copy, Debug)]
pub struct OwnedKey<K>(pub(super) K);

/// A borrowed form of a key, which is cloned if it has to be loaded.
#[derive(Debug)]
pub struct BorrowedKey<'q, Q: ?Sized>(pub(super) &'q Q);

impl<K: Eq> EntryKey<K> for OwnedKey<K> {
    fn hash_by<V, S: BuildHasher>(&self, engine: &Engine<K, V, S>) -> u64
    where
        K: Hash,
    {
        engine.hash(&self.0)
    }

    fn matches(&self, key: &K) -> bool {
        self.0 == *key
    }

    fn into_key(self) -> K {
        self.0
    }
}

impl<K, Q> EntryKey<K> for BorrowedKey<'_, Q>
where
    Q: Hash + Equivalent<K> + ToOwned<Owned = K> + ?Sized,
{
    fn hash_by<V, S: BuildHasher>(&self, engine: &Engine<K, V, S>) -> u64
    where
        K: Hash,
    {
        engine.hash(self.0)
    }

    fn matches(&self, key: &K) -> bool {
        self.0.equivalent(key)
    }

    fn into_key(self) -> K {
        self.0.to_owned()
    }
}
