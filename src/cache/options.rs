//! `InsertOptions`: what one insert may say beside key and value.

use std::time::Duration;

use crate::{config::Priority, engine::Terms};

/// What an insert says beside key and value; see [`Cache::insert_with`](crate::Cache::insert_with).
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

    /// Sets the cost, in place of the builder's [`cost_of`](crate::CacheBuilder::cost_of).
    ///
    /// An entry that is replaced by [`replace`](crate::Cache::replace),
    /// [`update`](crate::Cache::update) or [`compute`](crate::Cache::compute) without naming a cost
    /// goes on costing the same, unless there is a `cost_of`, which is asked.
    pub fn cost(mut self, cost: u64) -> Self {
        self.cost = Some(cost);
        self
    }

    /// Sets the priority. By default [`Priority::Normal`]; where an entry is replaced by
    /// [`replace`](crate::Cache::replace), [`update`](crate::Cache::update) or
    /// [`compute`](crate::Cache::compute), that of the entry it replaces.
    pub fn priority(mut self, priority: Priority) -> Self {
        self.priority = Some(priority);
        self
    }

    /// Sets how long the entry lives, in place of what the builder says. Any duration is legal, 0 too.
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.ttl = Some(ttl);
        self
    }

    #[inline]
    pub(super) fn terms(self) -> Terms {
        Terms { cost: self.cost, priority: self.priority, ttl: self.ttl.map(Some) }
    }
}
