//! Integrations with other crates, each behind a feature with the name of the crate.

#[cfg(feature = "async-channel")]
#[cfg_attr(docsrs, doc(cfg(feature = "async-channel")))]
pub mod async_channel;
#[cfg(feature = "cached")]
#[cfg_attr(docsrs, doc(cfg(feature = "cached")))]
pub mod cached;
#[cfg(feature = "metrics")]
#[cfg_attr(docsrs, doc(cfg(feature = "metrics")))]
pub mod metrics;
