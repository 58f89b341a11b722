//! Expiration: the timing wheel, and the inbox that passes new deadlines to it.

pub mod inbox;
pub mod wheel;
