//! The user's functions: coster, validator, callbacks.

use std::{fmt, marker::PhantomData, time::Duration};

/// Computes the cost of a value, for inserts with a cost of 0.
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

    /// Returns the cost of a value. An insert with a negative cost is rejected.
    ///
    /// Runs on the inserting thread, before anything else.
    fn cost(&self, val: &Self::Value) -> i64;
}

/// The coster that returns 0, with which entries inserted at a cost of 0 are never evicted for
/// their cost.
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

/// Decides whether an insert may replace the existing value.
///
/// If not, the insert returns `false` and the old value is kept. It may be called more than once
/// for one insert, and runs while the thread is pinned, so it should be short.
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

/// Gets every value that has left the cache or was rejected, exactly once.
///
/// | event | callback |
/// |---|---|
/// | evicted or expired | [`on_evict`](Self::on_evict) |
/// | an insert was rejected | [`on_reject`](Self::on_reject), before it returns |
/// | replaced, removed, cleared | [`on_exit`](Self::on_exit) |
/// | the validator or [`insert_if_present`](super::Cache::insert_if_present) kept it out | none |
/// | in the cache when that is dropped | none |
///
/// An insert is rejected if it is too costly or too infrequent, if too much garbage is pending, or
/// if its cost is negative. The last two rows are as in Stretto. An insert that is kept out returns
/// `false`.
///
/// A removed value is passed to its callback once no reader can see it, on the thread that frees
/// it: the maintenance thread, or a writer that helps. [`Cache::wait`](super::Cache::wait) reports
/// all values that no reader holds. No lock is held, so a callback may call the cache. A panic in a
/// callback ends that callback only, and does not propagate beyond the panic hook.
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

    /// Called with a replaced, removed or cleared value; and, unless the other methods are
    /// implemented, with all others.
    fn on_exit(&self, val: Option<Self::Value>);

    /// Called with an evicted entry, or an expired one, for which [`Time::is_expired`] of
    /// `item.exp` is true.
    fn on_evict(&self, item: Item<Self::Value>) {
        self.on_exit(item.val);
    }

    /// Called with a rejected entry.
    fn on_reject(&self, item: Item<Self::Value>) {
        self.on_exit(item.val);
    }
}

/// The callback that does nothing.
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

/// An entry, as passed to a callback.
#[derive(Clone, Copy)]
pub struct Item<V> {
    /// The value; always `Some`.
    pub val: Option<V>,
    /// The first hash of the key, by the [`KeyBuilder`](super::KeyBuilder).
    pub index: u64,
    /// The second hash of the key.
    pub conflict: u64,
    /// The cost that the entry was charged, or would have been.
    pub cost: i64,
    /// The time that the entry had left.
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

/// The time that an entry had left when it was passed to a callback.
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

    /// Returns whether the entry had expired.
    pub fn is_expired(&self) -> bool {
        self.left == Some(Duration::ZERO)
    }

    /// Returns the time left; `Duration::MAX` if the entry had no deadline.
    pub fn get_ttl(&self) -> Duration {
        self.left.unwrap_or(Duration::MAX)
    }
}
