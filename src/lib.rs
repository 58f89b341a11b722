//! A lock-free, in-process, cost-budgeted cache.
#![allow(dead_code)]
mod budget;
#[allow(unsafe_code)]
mod reclaim;
mod sync;
#[allow(unsafe_code)]
mod table;
mod util;
