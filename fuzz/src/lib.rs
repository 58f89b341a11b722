//! The fuzz targets as plain functions of bytes, with which a test replays the corpus.

pub mod api;
pub mod import;
pub mod traces;
