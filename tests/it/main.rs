//! What a user sees, one file for each side of it.

mod budget;
mod cost;
mod drop;
mod get_insert;
mod hashers;
mod manual;
mod panics;
mod pin;
mod remove;
#[path = "../support/mod.rs"]
mod support;
