//! What the cache counts about itself: [`Counters`] and [`Births`] inside, a plain [`Metrics`] outside.

mod counters;
mod histogram;
mod life;

pub use self::{
    counters::{Counter, Counters, Metrics},
    histogram::{DurationHistogram, DurationRecorder},
    life::Births,
};
