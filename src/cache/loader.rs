//! How a loader's output becomes an entry, and how a caller may name the key to load.
//!
//! The loading methods differ in what the loader returns (a value; a value and its options; either
//! of them or an error) and in who gets an error (its own caller; all that waited). Each
//! combination is a [`Kind`], so that the code that waits and loads is written once.

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
    /// What the caller gets if there is no value.
    type Error;

    /// Returns what the loader has brought, or how it has failed.
    fn split(loaded: T) -> Result<(V, InsertOptions), Failed<Self::Error>>;

    /// Turns the error of a load that this caller waited for into its own, if it takes that.
    fn accept(_: SharedError) -> Option<Self::Error> {
        None
    }
}

/// How a loader has failed.
pub struct Failed<E> {
    /// The error for its caller.
    pub error: E,
    /// The error for those that wait for it, if they get one.
    pub shared: Option<SharedError>,
}

/// A value.
pub struct Value;
/// A value and its options.
pub struct ValueWith;
/// A value, or an error for this caller alone.
pub struct Try<E>(PhantomData<E>);
/// A value and its options, or an error for this caller alone.
pub struct TryWith<E>(PhantomData<E>);
/// A value and its options, or an error for all that wait.
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

/// A key to look up, which becomes a key of the cache if it has to be loaded.
///
/// Implemented by [`OwnedKey`] and [`BorrowedKey`].
pub trait EntryKey<K> {
    /// Returns the hash of the key.
    #[doc(hidden)]
    fn hash_by<V, S: BuildHasher>(&self, engine: &Engine<K, V, S>) -> u64
    where
        K: Hash;

    /// Returns whether `key` is the same.
    #[doc(hidden)]
    fn matches(&self, key: &K) -> bool;

    /// Returns the key itself.
    #[doc(hidden)]
    fn into_key(self) -> K;
}

/// A key that the caller gives away.
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
