//! What the fuzzer runs, as plain functions of bytes: a test replays the corpus with them.

pub mod api;
pub mod import;
pub mod traces;
