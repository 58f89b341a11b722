//! Metrics of a cache: [`Counters`] and [`Births`] record them, [`Metrics`] is a snapshot.

mod counters;
mod histogram;
mod life;

pub use self::{
    counters::{Counter, Counters, Metrics},
    histogram::{DurationHistogram, DurationRecorder},
    life::Births,
};
