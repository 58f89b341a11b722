//! What other crates ask of a cache, each behind a feature that bears the crate's name.

#[cfg(feature = "cached")]
pub mod cached;
