//! Refreshing: a load of a key whose entry is still served.

use std::hash::{BuildHasher, Hash};

use super::{Cache, FillGuard, load::Look};
use crate::engine::Trace;

/// # Refreshing
///
/// A refresh is a load of a key that has an entry. Readers get the old value until the new one is
/// inserted, and a failure changes nothing. As with any load, there is one at a time for each key,
/// and a write that completes while it runs invalidates it.
///
/// With [`refresh_after`](crate::CacheBuilder::refresh_after) the loaders also refresh entries of a
/// certain age: the caller that refreshes waits for its own loader.
/// [`claim_refresh`](Self::claim_refresh) is the primitive, for programs that refresh in the
/// background or decide themselves when to refresh.
impl<K, V, S> Cache<K, V, S>
where
    K: Hash + Eq,
    S: BuildHasher,
{
    /// Returns the right to refresh an entry; `None` if the key has no entry, or is already being
    /// loaded.
    ///
    /// [`fill`](FillGuard::fill) replaces the entry. Dropping the guard leaves the entry unchanged,
    /// and so does [`fail`](FillGuard::fail), after which the entry is not immediately due for
    /// another refresh. If the entry leaves the cache, callers that ask for the key wait for the
    /// refresh.
    ///
    /// The guard may be sent to another thread or task. A thread that holds it must not wait for a
    /// load of the same key.
    ///
    /// # Examples
    ///
    /// A reader that finds an entry close to its deadline refreshes it in the background; the load
    /// runs once:
    ///
    /// ```
    /// # #[tokio::main]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use std::time::Duration;
    /// use cortado::Cache;
    ///
    /// # async fn fetch(key: u32) -> Result<u32, std::io::Error> { Ok(key + 1) }
    /// let cache = Cache::builder().max_cost(10).ttl(Duration::from_secs(60)).build()?;
    /// cache.insert(7, 0);
    /// let left = cache.get(&7).and_then(|value| value.ttl());
    /// # let left = Some(Duration::from_secs(1)).min(left);
    /// if left < Some(Duration::from_secs(10)) {
    ///     let cache = cache.clone();
    ///     let refresh = async move {
    ///         if let Some(guard) = cache.claim_refresh(7)
    ///             && let Ok(value) = fetch(7).await
    ///         {
    ///             guard.fill(value);
    ///         }
    ///     };
    ///     tokio::spawn(refresh).await?;
    /// }
    /// assert_eq!(cache.get_cloned(&7), Some(8));
    /// # Ok(())
    /// # }
    /// ```
    #[doc(alias("refresh"))]
    pub fn claim_refresh(&self, key: K) -> Option<FillGuard<'_, K, V, S>> {
        let hash = self.engine.hash(&key);
        // Before this thread leads a load, or is pinned by the entry.
        self.engine.sweep_if_due();
        let _ = self.engine.garbage_pressure();
        let entry = self.engine.get(hash, Trace::None, |k| *k == key)?;
        match self.begin_refresh(hash, key, entry) {
            Look::Refresh(guard) => Some(guard),
            Look::Hit(_) | Look::Absent(_) => None,
        }
    }
}
