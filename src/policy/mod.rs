//! The eviction policy: pure decisions on plain values.
//!
//! An entry is inserted into the window. At the window's head it becomes a *candidate*: it stays if
//! it wins a comparison against a sampled victim of the main region. The tuner selects the size of
//! the window and the admission rule. `docs/design.md` describes the whole.

pub mod access;
pub mod access_clock;
pub mod action;
pub mod admission;
pub mod class;
pub mod minisim;
pub mod score;
pub mod tuner;
pub mod window;
