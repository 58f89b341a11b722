//! `IdentityHash`: a hasher for keys that are hashes already.

use std::hash::{BuildHasher, Hasher};

/// A hasher for integer keys that are well distributed already, such as hashes computed elsewhere
/// and random identifiers. The cache still mixes the bits.
///
/// It does not protect against chosen keys that collide. Use the default hasher where keys are
/// untrusted input.
///
/// # Examples
///
/// ```
/// use cortado::{Cache, IdentityHash};
///
/// let cache = Cache::builder().max_cost(10).hasher(IdentityHash).build()?;
/// cache.insert(0x9e37_79b9_7f4a_7c15_u64, "hashed before");
/// assert!(cache.contains_key(&0x9e37_79b9_7f4a_7c15));
/// # Ok::<(), cortado::BuildError>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct IdentityHash;

/// The hasher that [`IdentityHash`] builds.
#[derive(Clone, Copy, Debug, Default)]
pub struct IdentityHasher(u64);

impl BuildHasher for IdentityHash {
    type Hasher = IdentityHasher;

    #[inline]
    fn build_hasher(&self) -> IdentityHasher {
        IdentityHasher(0)
    }
}

impl IdentityHasher {
    #[inline]
    fn take(&mut self, word: u64) {
        // Combines the parts of a compound key.
        self.0 = self.0.rotate_left(23) ^ word;
    }
}

impl Hasher for IdentityHasher {
    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.take(u64::from_le_bytes(word));
        }
    }

    #[inline]
    fn write_u8(&mut self, word: u8) {
        self.take(word.into());
    }

    #[inline]
    fn write_u16(&mut self, word: u16) {
        self.take(word.into());
    }

    #[inline]
    fn write_u32(&mut self, word: u32) {
        self.take(word.into());
    }

    #[inline]
    fn write_u64(&mut self, word: u64) {
        self.take(word);
    }

    #[inline]
    fn write_u128(&mut self, word: u128) {
        self.take(word as u64);
        self.take((word >> 64) as u64);
    }

    #[inline]
    fn write_usize(&mut self, word: usize) {
        self.take(word as u64);
    }

    #[inline]
    fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integer_is_its_own_hash_and_every_part_counts() {
        assert_eq!(IdentityHash.hash_one(7u64), 7);
        assert_eq!(IdentityHash.hash_one(7u32), 7);
        assert_eq!(IdentityHash.hash_one(-1i64), u64::MAX);
        assert_ne!(IdentityHash.hash_one((1u64, 2u64)), IdentityHash.hash_one((2u64, 1u64)));
        assert_ne!(IdentityHash.hash_one("ab"), IdentityHash.hash_one("ba"));
    }

    #[test]
    fn integers_of_every_width_count() {
        assert_eq!(IdentityHash.hash_one(7u8), 7);
        assert_eq!(IdentityHash.hash_one(7u16), 7);
        assert_eq!(IdentityHash.hash_one(7usize), 7);
        assert_eq!(IdentityHash.hash_one(7u128 << 64), 7);
        assert_eq!(IdentityHash.hash_one(7u128), 7 << 23);
    }

    #[test]
    fn bits_of_two_parts_cancel_and_do_not_accumulate() {
        assert_eq!(IdentityHash.hash_one((1u64, 1u64 << 23)), 0);
    }
}
