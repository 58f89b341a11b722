//! What the user hangs into a cache: coster, validator, callbacks.

use std::{fmt, marker::PhantomData, time::Duration};

/// Evaluates what a value costs, for inserts that name a cost of 0.
///
/// # Examples
///
/// ```
/// use stretto::{Cache, Coster};
///
/// struct Length;
///
/// impl Coster for Length {
///     type Value = String;
///     fn cost(&self, val: &String) -> i64 {
///         val.len() as i64
///     }
/// }
///
/// let cache = Cache::builder(1000, 10).set_coster(Length).finalize()?;
/// assert!(cache.insert(1, "ten bytes!".to_string(), 0));
/// assert!(!cache.insert(2, "eleven byte".to_string(), 0));
/// # Ok::<(), stretto::CacheError>(())
/// ```
pub trait Coster: Send + Sync + 'static {
    /// The type of the values.
    type Value: Send + Sync + 'static;

    /// Returns what a value costs. An insert whose cost is negative is refused.
    ///
    /// Runs on the thread that inserts, before anything else happens.
    fn cost(&self, val: &Self::Value) -> i64;
}

/// Says that whatever names no cost costs nothing: it is then never evicted for its cost.
pub struct DefaultCoster<V> {
    values: PhantomData<fn(V)>,
}

impl<V> Default for DefaultCoster<V> {
    fn default() -> Self {
        Self { values: PhantomData }
    }
}

impl<V: Send + Sync + 'static> Coster for DefaultCoster<V> {
    type Value = V;

    fn cost(&self, _: &V) -> i64 {
        0
    }
}

/// Decides whether an insert may replace the value that is there.
///
/// Where it says no, the insert returns `false` and the old value stays. It may be asked more than once
/// for one insert, and runs while the thread is pinned: make it short.
///
/// # Examples
///
/// ```
/// use stretto::{Cache, UpdateValidator};
///
/// struct Newer;
///
/// impl UpdateValidator for Newer {
///     type Value = u64;
///     fn should_update(&self, prev: &u64, curr: &u64) -> bool {
///         curr > prev
///     }
/// }
///
/// let cache = Cache::builder(1000, 100).set_update_validator(Newer).finalize()?;
/// assert!(cache.insert("version", 2, 1));
/// assert!(!cache.insert("version", 1, 1));
/// assert_eq!(cache.get("version").unwrap().read(), 2);
/// # Ok::<(), stretto::CacheError>(())
/// ```
pub trait UpdateValidator: Send + Sync + 'static {
    /// The type of the values.
    type Value: Send + Sync + 'static;

    /// Returns whether `curr` may replace `prev`.
    fn should_update(&self, prev: &Self::Value, curr: &Self::Value) -> bool;
}

/// Allows every update.
pub struct DefaultUpdateValidator<V> {
    values: PhantomData<fn(V)>,
}

impl<V> Default for DefaultUpdateValidator<V> {
    fn default() -> Self {
        Self { values: PhantomData }
    }
}

impl<V: Send + Sync + 'static> UpdateValidator for DefaultUpdateValidator<V> {
    type Value = V;

    fn should_update(&self, _: &V, _: &V) -> bool {
        true
    }
}

/// Is told of every value that has left the cache, or was not let in, once each.
///
/// | what happened | what is called |
/// |---|---|
/// | evicted to keep the budget, or its time was over | [`on_evict`](Self::on_evict) |
/// | an insert was refused: too costly, too cold, too much garbage, a negative cost | [`on_reject`](Self::on_reject), before the insert returns |
/// | replaced, removed, cleared | [`on_exit`](Self::on_exit) |
/// | kept out by the validator, or by [`insert_if_present`](super::Cache::insert_if_present) | nothing, as in Stretto: the caller knows from the `false` |
/// | still in the cache when that is dropped | nothing, as in Stretto |
///
/// What leaves is told when no reader can look at it any more, on the thread that frees it: the cache's
/// own, or a writer's whose turn it is to help. [`Cache::wait`](super::Cache::wait) brings what no reader
/// holds. No lock is held; a callback may call the cache. One that panics is cut short, and that is all: the
/// panic goes no further than the panic hook.
///
/// # Examples
///
/// ```
/// use std::sync::mpsc::{Sender, channel};
/// use stretto::{Cache, CacheCallback, Item};
///
/// struct Report(Sender<String>);
///
/// impl CacheCallback for Report {
///     type Value = u64;
///     fn on_exit(&self, val: Option<u64>) {
///         _ = self.0.send(format!("{} left", val.unwrap()));
///     }
///     fn on_reject(&self, item: Item<u64>) {
///         _ = self.0.send(format!("{} costs {}", item.val.unwrap(), item.cost));
///     }
/// }
///
/// let (sender, told) = channel();
/// let cache = Cache::builder(1000, 100).set_callback(Report(sender)).finalize()?;
/// assert!(!cache.insert("large", 7, 101));
/// assert_eq!(told.recv().unwrap(), "7 costs 101");
/// cache.insert("small", 8, 1);
/// cache.remove(&"small");
/// assert_eq!(told.recv().unwrap(), "8 left");
/// # Ok::<(), stretto::CacheError>(())
/// ```
pub trait CacheCallback: Send + Sync + 'static {
    /// The type of the values.
    type Value: Send + Sync + 'static;

    /// Is told of what was replaced, removed or cleared; and, unless the others are written, of the rest.
    fn on_exit(&self, val: Option<Self::Value>);

    /// Is told of what was evicted, or has expired: then [`Time::is_expired`] of `item.exp` holds.
    fn on_evict(&self, item: Item<Self::Value>) {
        self.on_exit(item.val);
    }

    /// Is told of what was not let in.
    fn on_reject(&self, item: Item<Self::Value>) {
        self.on_exit(item.val);
    }
}

/// Does nothing.
#[derive(Clone, Debug)]
pub struct DefaultCacheCallback<V> {
    values: PhantomData<fn(V)>,
}

impl<V> Default for DefaultCacheCallback<V> {
    fn default() -> Self {
        Self { values: PhantomData }
    }
}

impl<V: Send + Sync + 'static> CacheCallback for DefaultCacheCallback<V> {
    type Value = V;

    fn on_exit(&self, _: Option<V>) {}
}

/// What a callback is told of an entry.
#[derive(Clone, Copy)]
pub struct Item<V> {
    /// The value; always `Some`.
    pub val: Option<V>,
    /// The first hash of the key, by the [`KeyBuilder`](super::KeyBuilder).
    pub index: u64,
    /// The second one.
    pub conflict: u64,
    /// What the entry was charged, or would have been.
    pub cost: i64,
    /// What was left of its time.
    pub exp: Time,
}

impl<V: fmt::Debug> fmt::Debug for Item<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Item")
            .field("val", &self.val)
            .field("cost", &self.cost)
            .field("exp", &self.exp)
            .finish_non_exhaustive()
    }
}

/// What was left of an entry's time when a callback was told of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Time {
    left: Option<Duration>,
}

impl Time {
    pub(super) fn new(left: Option<Duration>) -> Self {
        Self { left }
    }

    /// Returns whether the entry had no deadline.
    pub fn is_zero(&self) -> bool {
        self.left.is_none()
    }

    /// Returns whether its time was over.
    pub fn is_expired(&self) -> bool {
        self.left == Some(Duration::ZERO)
    }

    /// Returns what was left; `Duration::MAX` if it had no deadline.
    pub fn get_ttl(&self) -> Duration {
        self.left.unwrap_or(Duration::MAX)
    }
}
