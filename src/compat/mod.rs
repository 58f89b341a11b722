//! The names and signatures of other caches, over [`Cache`](crate::Cache): to switch first, and to move on
//! afterwards.

#[path = "../../crates/cortado-stretto/src/lib.rs"]
pub mod stretto;
