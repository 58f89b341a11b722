//! What the cache counts about itself: [`Counters`] and [`Births`] inside, a plain [`Metrics`] outside.

mod counters;
mod life;

pub use self::{
    counters::{Counter, Counters, Metrics},
    life::{Births, LifeExpectancy},
};
