//! Refreshing: a load of a key whose entry is still served.

use std::hash::{BuildHasher, Hash};

use super::{Cache, FillGuard, load::Look};
use crate::engine::Trace;

/// # Refreshing
///
/// A refresh is a load of a key that has an entry. Readers get the old value until the new one is
/// there, and a failure changes nothing. As with any load, there is one at a time for each key,
/// and a write that completes while it runs invalidates it.
///
/// With [`refresh_after`](crate::CacheBuilder::refresh_after) the loaders refresh entries of a
/// certain age, on the way: the caller that refreshes waits for its own loader.
/// [`claim_refresh`](Self::claim_refresh) is the primitive, for programs that refresh in the
/// background or decide by themselves when it is time.
impl<K, V, S> Cache<K, V, S>
where
    K: Hash + Eq,
    S: BuildHasher,
{
    /// Returns the right to refresh an entry; `None` if the key has none, or is loaded already.
    ///
    /// [`fill`](FillGuard::fill) replaces the entry. Dropping the guard leaves it as it is, and so
    /// does [`fail`](FillGuard::fail), after which it is not due for another refresh at once.
    /// If the entry leaves the cache, callers that ask for the key wait for the refresh.
    ///
    /// The guard may go to another thread or task. A thread that holds it must not wait for a load
    /// of the same key.
    ///
    /// # Examples
    ///
    /// Readers that find an entry close to its end have it refreshed in the background, once:
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
        // Before this thread leads, or is pinned by the entry.
        self.engine.sweep_if_due();
        let entry = self.engine.get(hash, Trace::None, |k| *k == key)?;
        match self.begin_refresh(hash, key, entry) {
            Look::Refresh(guard) => Some(guard),
            Look::Hit(_) | Look::Absent(_) => None,
        }
    }
}
