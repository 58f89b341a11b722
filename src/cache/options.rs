//! `InsertOptions`: the optional settings of one insert.

use std::time::Duration;

use crate::{config::Priority, engine::Terms};

/// The options of an insert: cost, priority and time to live; see
/// [`Cache::insert_with`](crate::Cache::insert_with).
///
/// # Examples
///
/// ```
/// use cortado::{InsertOptions, Priority};
///
/// let options = InsertOptions::new().cost(4096).priority(Priority::High);
/// # let _ = options;
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[must_use = "options do nothing until something is inserted with them"]
pub struct InsertOptions {
    cost: Option<u64>,
    priority: Option<Priority>,
    ttl: Option<Duration>,
}

impl InsertOptions {
    /// Returns the options of a plain [`insert`](crate::Cache::insert).
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the cost, instead of the builder's [`cost_of`](crate::CacheBuilder::cost_of).
    ///
    /// If [`replace`](crate::Cache::replace), [`update`](crate::Cache::update) or
    /// [`compute`](crate::Cache::compute) replaces an entry without setting a cost, `cost_of`
    /// computes it; without a `cost_of` the old cost stays.
    pub fn cost(mut self, cost: u64) -> Self {
        self.cost = Some(cost);
        self
    }

    /// Sets the priority. By default it is [`Priority::Normal`]; if
    /// [`replace`](crate::Cache::replace), [`update`](crate::Cache::update) or
    /// [`compute`](crate::Cache::compute) replaces an entry, it is that of the replaced entry.
    pub fn priority(mut self, priority: Priority) -> Self {
        self.priority = Some(priority);
        self
    }

    /// Sets how long the entry lives, instead of what the builder says. Any duration is legal,
    /// including 0.
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.ttl = Some(ttl);
        self
    }

    #[inline]
    pub(super) fn terms(self) -> Terms {
        Terms { cost: self.cost, priority: self.priority, ttl: self.ttl.map(Some) }
    }
}
