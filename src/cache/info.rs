//! `EntryInfo`: the metadata of an entry; and setters for its deadline and priority.

use std::{
    hash::{BuildHasher, Hash},
    time::Duration,
};

use equivalent::Equivalent;

use super::Cache;
use crate::{config::Priority, error::TtlError};

/// The metadata of an entry; see [`Cache::entry_info`].
///
/// # Examples
///
/// ```
/// use std::time::Duration;
///
/// let cache = cortado::Cache::new(10);
/// cache.insert_with_ttl("k", 1, Duration::from_secs(60));
/// let info = cache.entry_info("k").unwrap();
/// assert_eq!((info.cost, info.priority), (1, cortado::Priority::Normal));
/// assert!(info.ttl <= Some(Duration::from_secs(60)));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct EntryInfo {
    /// The cost that was charged for it.
    pub cost: u64,
    /// The rest of its time to live; `None` if it does not expire.
    pub ttl: Option<Duration>,
    /// The time since it was written. Known for entries with room for a deadline, in a cache
    /// without [`tti`](crate::CacheBuilder::tti).
    pub age: Option<Duration>,
    /// How often it was accessed recently, from 0 to 15, as the policy estimates it.
    pub frequency: u8,
    /// Its priority.
    pub priority: Priority,
}

impl<K, V, S> Cache<K, V, S>
where
    K: Hash + Eq,
    S: BuildHasher,
{
    /// Returns the metadata of an entry; records no access.
    ///
    /// # Examples
    ///
    /// ```
    /// use cortado::{Cache, InsertOptions, Priority};
    ///
    /// let cache = Cache::new(10);
    /// cache.insert_with("k", 1, InsertOptions::new().cost(3).priority(Priority::High));
    /// let info = cache.entry_info("k").unwrap();
    /// assert_eq!((info.cost, info.priority, info.ttl), (3, Priority::High, None));
    /// ```
    pub fn entry_info<Q>(&self, key: &Q) -> Option<EntryInfo>
    where
        Q: Hash + Equivalent<K> + ?Sized,
    {
        let engine = &self.engine;
        let hash = engine.hash(key);
        let guard = engine.pin_part(hash);
        let hit = engine.find_live(&guard, hash, |k| key.equivalent(k))?;
        let entry = hit.at();
        Some(EntryInfo {
            cost: entry.metadata().charge(),
            ttl: engine.ttl_left(entry),
            age: engine.age(entry),
            frequency: engine.frequency_of(hash, Some(&hit)),
            priority: entry.metadata().flags().priority(),
        })
    }

    /// Sets the time to live of an entry, counted from now; `None` removes its deadline. A
    /// [`tti`](crate::CacheBuilder::tti) remains in effect.
    ///
    /// # Errors
    ///
    /// Returns [`TtlError::Absent`] if the key has no entry, and [`TtlError::Untimed`] if `ttl` is
    /// `Some` and the entry was created without room for a deadline (see
    /// [`CacheBuilder::timed`](crate::CacheBuilder::timed)).
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use cortado::{Cache, TtlError};
    ///
    /// let cache = Cache::builder().max_cost(10).timed(true).build()?;
    /// cache.insert("k", 1);
    /// assert_eq!(cache.set_ttl("k", Some(Duration::from_secs(60))), Ok(()));
    /// assert!(cache.entry_info("k").unwrap().ttl.is_some());
    /// assert_eq!(cache.set_ttl("k", None), Ok(()));
    /// assert_eq!(cache.entry_info("k").unwrap().ttl, None);
    /// assert_eq!(cache.set_ttl("absent", None), Err(TtlError::Absent));
    /// # Ok::<(), cortado::BuildError>(())
    /// ```
    pub fn set_ttl<Q>(&self, key: &Q, ttl: Option<Duration>) -> Result<(), TtlError>
    where
        Q: Hash + Equivalent<K> + ?Sized,
    {
        let engine = &self.engine;
        let hash = engine.hash(key);
        let guard = engine.pin_part(hash);
        let hit = engine.find_live(&guard, hash, |k| key.equivalent(k));
        match (hit.ok_or(TtlError::Absent)?.metadata().times(), ttl) {
            (Some(times), _) => engine.set_ttl(hash, times, ttl),
            (None, None) => {}
            (None, Some(_)) => return Err(TtlError::Untimed),
        }
        Ok(())
    }

    /// Changes the priority of an entry; returns whether the key has one.
    ///
    /// Once an entry is [`Pinned`](Priority::Pinned), it is not evicted. (In a cache with
    /// [`can_evict`](crate::CacheBuilder::can_evict) or
    /// [`write_back`](crate::CacheBuilder::write_back), an eviction that has already called one of
    /// these may still complete.)
    ///
    /// # Examples
    ///
    /// ```
    /// use cortado::{Cache, Priority};
    ///
    /// let cache = Cache::new(10);
    /// cache.insert(0, "root");
    /// assert!(cache.set_priority(&0, Priority::Pinned));
    /// (1..1000).for_each(|key| _ = cache.insert(key, "leaf"));
    /// assert!(cache.contains_key(&0) && !cache.set_priority(&1001, Priority::Low));
    /// ```
    pub fn set_priority<Q>(&self, key: &Q, priority: Priority) -> bool
    where
        Q: Hash + Equivalent<K> + ?Sized,
    {
        let engine = &self.engine;
        let hash = engine.hash(key);
        let guard = engine.pin_part(hash);
        // If the entry was replaced concurrently, try its successor.
        while let Some(hit) = engine.find_live(&guard, hash, |k| key.equivalent(k)) {
            if engine.set_priority(&guard, hash, hit.metadata(), priority) {
                return true;
            }
        }
        false
    }
}
