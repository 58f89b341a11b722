//! `CortadoManager`: http-cache's trait over a cortado cache.

use std::sync::Arc;

use async_trait::async_trait;
use cortado::{BuildError, Cache};
use http_cache::{CacheManager, HttpResponse, Result};
use http_cache_semantics::CachePolicy;

use crate::stored::StoredResponse;

/// The cache behind a [`CortadoManager`]. Its keys are those of the middleware, by default
/// `METHOD:URL`.
pub type ResponseCache = Cache<String, Arc<StoredResponse>>;

/// Keeps the responses of http-cache's middleware in a cache with a budget in bytes.
///
/// It is a handle: clones share the cache, so several clients can.
///
/// # Examples
///
/// ```
/// use cortado_http_cache::CortadoManager;
/// use http_cache::CacheManager;
///
/// # #[tokio::main]
/// # async fn main() -> Result<(), http_cache::BoxError> {
/// let manager = CortadoManager::new(64 << 20)?;
/// assert!(manager.get("GET:http://example.org/").await?.is_none());
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct CortadoManager {
    cache: ResponseCache,
}

impl CortadoManager {
    /// Creates a manager with a cache of its own.
    ///
    /// # Errors
    ///
    /// Returns an error if the budget is 0 or the maintenance thread cannot be started.
    pub fn new(max_bytes: u64) -> std::result::Result<Self, BuildError> {
        Ok(Self::with_cache(Cache::builder().max_cost(max_bytes).build()?))
    }

    /// Creates a manager over a cache, whose `max_cost` is the budget in bytes.
    ///
    /// The manager sets the cost of each entry, so a `cost_of` of the cache is not called for it.
    ///
    /// # Examples
    ///
    /// Counts hits, and serves no response for longer than an hour without asking its server:
    ///
    /// ```
    /// use std::time::Duration;
    /// use cortado::Cache;
    /// use cortado_http_cache::CortadoManager;
    ///
    /// let cache = Cache::builder()
    ///     .max_cost(64 << 20)
    ///     .ttl(Duration::from_secs(3600))
    ///     .metrics(true)
    ///     .build()?;
    /// let manager = CortadoManager::with_cache(cache);
    /// assert_eq!(manager.cache().metrics().hits, 0);
    /// # Ok::<(), cortado::BuildError>(())
    /// ```
    pub fn with_cache(cache: ResponseCache) -> Self {
        Self { cache }
    }

    /// Returns the cache: its figures, its entries, its budget.
    ///
    /// # Examples
    ///
    /// ```
    /// use cortado_http_cache::CortadoManager;
    ///
    /// let manager = CortadoManager::new(64 << 20)?;
    /// assert!(manager.cache().peek("GET:http://example.org/").is_none());
    /// manager.cache().set_max_cost(32 << 20);
    /// # Ok::<(), cortado::BuildError>(())
    /// ```
    pub fn cache(&self) -> &ResponseCache {
        &self.cache
    }

    /// Removes all responses.
    pub fn clear(&self) {
        self.cache.clear();
    }
}

#[async_trait]
impl CacheManager for CortadoManager {
    async fn get(&self, cache_key: &str) -> Result<Option<(HttpResponse, CachePolicy)>> {
        // Copies outside of the pin, which a large body would prolong.
        let stored = self.cache.get_cloned(cache_key);
        Ok(stored.map(|stored| (stored.response.clone(), stored.policy.clone())))
    }

    async fn put(
        &self,
        cache_key: String,
        res: HttpResponse,
        policy: CachePolicy,
    ) -> Result<HttpResponse> {
        let stored = Arc::new(StoredResponse { response: res, policy });
        let cost = stored.cost(&cache_key);
        // The outcome does not matter to the client. If the response was rejected, this drops the
        // cache's handle, and nothing is copied below.
        drop(self.cache.insert_with_cost(cache_key, Arc::clone(&stored), cost));
        Ok(match Arc::try_unwrap(stored) {
            Ok(stored) => stored.response,
            Err(shared) => shared.response.clone(),
        })
    }

    async fn delete(&self, cache_key: &str) -> Result<()> {
        drop(self.cache.remove(cache_key));
        Ok(())
    }
}
