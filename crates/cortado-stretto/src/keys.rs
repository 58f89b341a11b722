//! Keys: their hashes, and how they are stored beside them.

use std::{
    borrow::Borrow,
    fmt,
    hash::{Hash, Hasher},
    marker::PhantomData,
};

use cortado::{DefaultHashBuilder, Equivalent};

/// Computes two hashes of a key, which locate its entry. `Eq` decides whether an entry is the
/// key's.
///
/// Equal keys must have equal hashes, and so must a key and its borrowed forms. Keys that are not
/// equal are different keys, whatever their hashes: where Stretto would return the value of one for
/// the other, here they only share a bucket.
///
/// # Examples
///
/// ```
/// use std::{borrow::Borrow, hash::{DefaultHasher, Hash, Hasher}};
/// use stretto::{CacheBuilder, KeyBuilder};
///
/// struct Sip;
///
/// impl KeyBuilder for Sip {
///     type Key = String;
///     fn hash_index<Q>(&self, key: &Q) -> u64
///     where
///         String: Borrow<Q>,
///         Q: Hash + Eq + ?Sized,
///     {
///         let mut hasher = DefaultHasher::new();
///         key.hash(&mut hasher);
///         hasher.finish()
///     }
/// }
///
/// let cache = CacheBuilder::new_with_key_builder(100, 10, Sip).finalize()?;
/// assert!(cache.insert("key".to_string(), 1, 1));
/// assert_eq!(cache.get("key").unwrap().read(), 1);
/// # Ok::<(), stretto::CacheError>(())
/// ```
pub trait KeyBuilder {
    /// The type of the keys.
    type Key: Hash + Eq + ?Sized;

    /// Returns the first hash of a key.
    fn hash_index<Q>(&self, key: &Q) -> u64
    where
        Self::Key: Borrow<Q>,
        Q: Hash + Eq + ?Sized;

    /// Returns the second hash of a key, or 0. It is not needed here.
    fn hash_conflict<Q>(&self, key: &Q) -> u64
    where
        Self::Key: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        let _ = key;
        0
    }

    /// Returns both hashes of a key. The cache calls this once in each operation.
    fn build_key<Q>(&self, k: &Q) -> (u64, u64)
    where
        Self::Key: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        (self.hash_index(k), self.hash_conflict(k))
    }
}

/// Hashes any key by ahash with random keys. The second hash is 0, because stored keys are
/// compared.
pub struct DefaultKeyBuilder<K> {
    hasher: DefaultHashBuilder,
    keys: PhantomData<fn(&K)>,
}

impl<K> Default for DefaultKeyBuilder<K> {
    fn default() -> Self {
        Self { hasher: DefaultHashBuilder::new(), keys: PhantomData }
    }
}

impl<K: Hash + Eq> KeyBuilder for DefaultKeyBuilder<K> {
    type Key = K;

    #[inline]
    fn hash_index<Q>(&self, key: &Q) -> u64
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        self.hasher.hash_one(key)
    }
}

impl<K> fmt::Debug for DefaultKeyBuilder<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DefaultKeyBuilder").finish_non_exhaustive()
    }
}

/// An integer key, for [`TransparentKeyBuilder`].
pub trait TransparentKey: Hash + Eq {
    /// Returns the integer.
    fn to_u64(&self) -> u64;
}

macro_rules! transparent {
    ($($number:ty),*) => {$(
        impl TransparentKey for $number {
            fn to_u64(&self) -> u64 {
                *self as u64
            }
        }
    )*};
}
transparent!(bool, u8, u16, u32, u64, usize, i8, i16, i32, i64, isize);

/// Uses a key as its own hash.
///
/// # Examples
///
/// ```
/// use stretto::{KeyBuilder, TransparentKeyBuilder};
///
/// let builder = TransparentKeyBuilder::<u64>::default();
/// assert_eq!(builder.build_key(&7), (7, 0));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TransparentKeyBuilder<K: TransparentKey> {
    keys: PhantomData<fn(K)>,
}

impl<K: TransparentKey> Default for TransparentKeyBuilder<K> {
    fn default() -> Self {
        Self { keys: PhantomData }
    }
}

impl<K: TransparentKey> KeyBuilder for TransparentKeyBuilder<K> {
    type Key = K;

    #[inline]
    fn hash_index<Q>(&self, key: &Q) -> u64
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        let mut hasher = TransparentHasher::default();
        key.hash(&mut hasher);
        hasher.finish()
    }
}

/// Returns the integer written to it; several are folded into one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TransparentHasher {
    data: u64,
}

impl TransparentHasher {
    fn fold(&mut self, number: u64) {
        // A single integer is returned unchanged, because rotating 0 gives 0.
        self.data = self.data.rotate_left(TURN) ^ number;
    }
}

impl Hasher for TransparentHasher {
    fn finish(&self) -> u64 {
        self.data
    }

    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(size_of::<u64>()) {
            let mut word = [0; size_of::<u64>()];
            word[..chunk.len()].copy_from_slice(chunk);
            self.fold(u64::from_le_bytes(word));
        }
    }

    fn write_u8(&mut self, i: u8) {
        self.fold(i.into());
    }

    fn write_u16(&mut self, i: u16) {
        self.fold(i.into());
    }

    fn write_u32(&mut self, i: u32) {
        self.fold(i.into());
    }

    fn write_u64(&mut self, i: u64) {
        self.fold(i);
    }

    fn write_usize(&mut self, i: usize) {
        self.fold(i as u64);
    }

    // Sign-extended, like an integer cast to `u64`.
    fn write_i8(&mut self, i: i8) {
        self.fold(i as u64);
    }

    fn write_i16(&mut self, i: i16) {
        self.fold(i as u64);
    }

    fn write_i32(&mut self, i: i32) {
        self.fold(i as u64);
    }
}

/// A stored key, with the hashes that its builder computed.
#[derive(Clone, Debug)]
pub struct Keyed<K> {
    pub index: u64,
    pub conflict: u64,
    pub key: K,
}

impl<K> Keyed<K> {
    /// Hashes a key.
    pub fn new(builder: &impl KeyBuilder<Key = K>, key: K) -> Self
    where
        K: Hash + Eq,
    {
        let (index, conflict) = builder.build_key(&key);
        Self { index, conflict, key }
    }
}

impl<K> Hash for Keyed<K> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        hash_both(self.index, self.conflict, state);
    }
}

impl<K: Eq> PartialEq for Keyed<K> {
    fn eq(&self, other: &Self) -> bool {
        self.key == other.key
    }
}

impl<K: Eq> Eq for Keyed<K> {}

/// A key as passed to a lookup, with its hashes.
pub struct Asked<'a, Q: ?Sized> {
    index: u64,
    conflict: u64,
    key: &'a Q,
}

impl<'a, Q: Hash + Eq + ?Sized> Asked<'a, Q> {
    /// Hashes the borrowed form of a key.
    #[inline]
    pub fn new<KH>(builder: &KH, key: &'a Q) -> Self
    where
        KH: KeyBuilder,
        KH::Key: Borrow<Q>,
    {
        let (index, conflict) = builder.build_key(key);
        Self { index, conflict, key }
    }
}

impl<Q: ?Sized> Hash for Asked<'_, Q> {
    #[inline]
    fn hash<H: Hasher>(&self, state: &mut H) {
        hash_both(self.index, self.conflict, state);
    }
}

impl<K: Borrow<Q>, Q: Eq + ?Sized> Equivalent<Keyed<K>> for Asked<'_, Q> {
    #[inline]
    fn equivalent(&self, stored: &Keyed<K>) -> bool {
        self.key == stored.key.borrow()
    }
}

#[inline]
fn hash_both<H: Hasher>(index: u64, conflict: u64, state: &mut H) {
    state.write_u64(index);
    state.write_u64(conflict);
}

const TURN: u32 = 21;

#[cfg(test)]
mod tests {
    use super::*;

    fn transparent<K: TransparentKey>(key: K) -> u64 {
        TransparentKeyBuilder::<K>::default().hash_index(&key)
    }

    #[test]
    fn transparent_key_is_its_own_hash() {
        assert_eq!((transparent(true), true.to_u64()), (1, 1));
        assert_eq!((transparent(7u8), transparent(7u16), transparent(7u32)), (7, 7, 7));
        assert_eq!((transparent(u64::MAX), transparent(7usize)), (u64::MAX, 7));
        assert_eq!((transparent(-1i8), transparent(-1i16)), (u64::MAX, u64::MAX));
        assert_eq!((transparent(-1i32), (-1i32).to_u64()), (u64::MAX, u64::MAX));
        assert_eq!((transparent(-1i64), transparent(-1isize)), (u64::MAX, u64::MAX));
    }

    #[test]
    fn transparent_hasher_keeps_all_that_is_written() {
        let hash = |write: &dyn Fn(&mut TransparentHasher)| {
            let mut hasher = TransparentHasher::default();
            write(&mut hasher);
            hasher.finish()
        };
        assert_ne!(hash(&|h| "a key".hash(h)), hash(&|h| "a kex".hash(h)));
        assert_ne!(hash(&|h| (1u8, 2u8).hash(h)), hash(&|h| (2u8, 1u8).hash(h)));
    }

    #[test]
    fn stored_and_asked_key_hash_alike() {
        let builder = DefaultKeyBuilder::<String>::default();
        let stored = Keyed::new(&builder, "key".to_string());
        let asked = Asked::new(&builder, "key");
        let hasher = DefaultHashBuilder::new();
        assert_eq!(hasher.hash_one(&stored), hasher.hash_one(&asked));
        assert!(asked.equivalent(&stored) && !Asked::new(&builder, "kez").equivalent(&stored));
    }
}
