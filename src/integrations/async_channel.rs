//! For the `async-channel` crate: a channel of the entries that have left a cache, for tasks.
//!
//! [`CacheBuilder::on_remove`](crate::CacheBuilder::on_remove) calls a function on the thread that
//! frees an entry, and that must not wait. [`CacheBuilder::removals`] puts the entries into a
//! bounded channel instead, from which tasks or threads take them at their own pace.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use ::async_channel::{Receiver, TrySendError, bounded};

use crate::{CacheBuilder, Removed};

/// What happens to an entry that has left the cache while the channel is full. No thread waits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum WhenFull {
    /// The entry is dropped, and those that wait stay.
    #[default]
    DropNewest,
    /// The entry that waits for longest is dropped, and this one takes its place.
    DropOldest,
}

/// The entries that have left a cache, in the order in which they were freed; made by
/// [`CacheBuilder::removals`].
///
/// It ends when the cache is gone and all entries were taken. Clones take from the same channel,
/// so each entry goes to one of them.
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
    /// Waits for the next entry; `None` when there will be no more.
    ///
    /// # Cancel safety
    ///
    /// A future that is dropped has taken no entry.
    pub async fn recv(&self) -> Option<Removed<K, V>> {
        self.receiver.recv().await.ok()
    }

    /// The same for a thread, which blocks.
    pub fn recv_blocking(&self) -> Option<Removed<K, V>> {
        self.receiver.recv_blocking().ok()
    }

    /// Returns the next entry if there is one now.
    pub fn try_recv(&self) -> Option<Removed<K, V>> {
        self.receiver.try_recv().ok()
    }

    /// Returns how many entries were dropped because the channel was full.
    pub fn lost(&self) -> u64 {
        self.lost.load(Relaxed) // Relaxed: a count, read on its own.
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
    /// Sends each entry that has left the cache into a channel for `capacity` entries, at least one.
    ///
    /// In place of [`on_remove`](Self::on_remove), whose rules hold: an entry is sent when no reader
    /// can see it any more. If the channel is full, one entry is dropped, as `when_full` says, and
    /// counted; no thread waits. If all receivers are gone, entries are dropped.
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
                count.fetch_add(1, Relaxed); // Relaxed: a count, read on its own.
            }
        });
        (builder, Removals { receiver, lost })
    }
}
