//! The names and signatures of other caches, over [`Cache`](crate::Cache): to switch first, and to move on
//! afterwards.

pub mod stretto;
