//! Integration with the `async-channel` crate: a channel of the entries that have left a cache.
//!
//! [`CacheBuilder::on_remove`](crate::CacheBuilder::on_remove) calls a function on the thread that
//! frees an entry, and this function must not wait. [`CacheBuilder::removals`] sends the entries
//! into a bounded channel instead, and tasks or threads receive them at their own pace.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed}; // shim: a counter that no model needs

use ::async_channel::{Receiver, TrySendError, bounded};

use crate::{CacheBuilder, Removed};

/// The policy for an entry that has left the cache while the channel is full. No thread waits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum WhenFull {
    /// The entry is dropped; those in the channel stay.
    #[default]
    DropNewest,
    /// The oldest entry in the channel is dropped, and the new one is sent.
    DropOldest,
}

/// A receiver of the entries that have left a cache, in the order in which they were freed; created
/// by [`CacheBuilder::removals`].
///
/// The channel is closed when the cache is gone and all entries were received. Clones receive from
/// the same channel, so each entry goes to one of them.
///
/// # Examples
///
/// ```
/// # #[tokio::main]
/// # async fn main() -> Result<(), cortado::BuildError> {
/// use cortado::{Cache, RemovalCause, integrations::async_channel::WhenFull};
///
/// let (builder, removals) = Cache::builder().max_cost(10).removals(100, WhenFull::DropOldest);
/// let cache = builder.build()?;
/// cache.insert("k", 1);
/// cache.remove("k");
/// let removed = removals.recv().await.unwrap();
/// assert_eq!((removed.key, removed.value, removed.cause), ("k", 1, RemovalCause::Removed));
/// assert_eq!(removals.lost(), 0);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Removals<K, V> {
    receiver: Receiver<Removed<K, V>>,
    lost: Arc<AtomicU64>,
}

impl<K, V> Clone for Removals<K, V> {
    fn clone(&self) -> Self {
        Self { receiver: self.receiver.clone(), lost: Arc::clone(&self.lost) }
    }
}

impl<K, V> Removals<K, V> {
    /// Waits for the next entry; returns `None` when the channel is closed.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, no entry is lost.
    pub async fn recv(&self) -> Option<Removed<K, V>> {
        self.receiver.recv().await.ok()
    }

    /// Like [`recv`](Self::recv), but blocks the thread.
    pub fn recv_blocking(&self) -> Option<Removed<K, V>> {
        self.receiver.recv_blocking().ok()
    }

    /// Returns the next entry if there is one.
    pub fn try_recv(&self) -> Option<Removed<K, V>> {
        self.receiver.try_recv().ok()
    }

    /// Returns the number of entries that were dropped because the channel was full.
    pub fn lost(&self) -> u64 {
        self.lost.load(Relaxed) // Relaxed: an independent count.
    }

    /// Returns the channel itself, which is a `Stream`.
    pub fn into_receiver(self) -> Receiver<Removed<K, V>> {
        self.receiver
    }
}

impl<K, V, S> CacheBuilder<K, V, S>
where
    K: Send + 'static,
    V: Send + 'static,
{
    /// Sends each entry that has left the cache into a channel with room for `capacity` entries, at
    /// least one.
    ///
    /// Replaces [`on_remove`](Self::on_remove) and follows its rules: an entry is sent when no
    /// reader can see it any more. If the channel is full, one entry is dropped, as `when_full`
    /// says, and counted; no thread waits. If all receivers are gone, entries are dropped.
    pub fn removals(self, capacity: usize, when_full: WhenFull) -> (Self, Removals<K, V>) {
        let (sender, receiver) = bounded(capacity.max(1));
        let lost = Arc::<AtomicU64>::default();
        let count = Arc::clone(&lost);
        let builder = self.on_remove(move |removed| {
            let is_lost = match when_full {
                WhenFull::DropNewest => {
                    matches!(sender.try_send(removed), Err(TrySendError::Full(_)))
                }
                WhenFull::DropOldest => matches!(sender.force_send(removed), Ok(Some(_))),
            };
            if is_lost {
                count.fetch_add(1, Relaxed); // Relaxed: an independent count.
            }
        });
        (builder, Removals { receiver, lost })
    }
}
