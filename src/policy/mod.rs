//! The rules of eviction: plain decisions on plain values.
//!
//! An entry begins in the window. At the window's head it becomes a *candidate*, and has to win a
//! comparison against a sampled victim of the main region to stay. How large the window is, and what wins
//! a comparison, is decided by the tuner. `docs/POLICY.md` tells the whole.

pub mod access;
pub mod access_clock;
pub mod admission;
pub mod class;
pub mod minisim;
pub mod score;
pub mod step;
pub mod tuner;
pub mod window;
