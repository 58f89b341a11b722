//! Expiration: the timing wheel, and the inbox that passes new deadlines to it. Expired entries are
//! removed in `engine/expire.rs`.

pub mod inbox;
pub mod wheel;
