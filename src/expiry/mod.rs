//! When entries expire: a timing wheel, and the inbox through which writers reach it.

pub mod inbox;
pub mod wheel;
