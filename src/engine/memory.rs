//! The memory of a cache.

use super::{Engine, place::borrow};
use crate::entry::Entry;

/// The memory of a cache, in bytes unless said otherwise.
///
/// # Examples
///
/// ```
/// let cache = cortado::Cache::new(10);
/// cache.insert(1u64, [0u8; 100]);
/// let memory = cache.memory();
/// assert!(memory.entries > 100 && memory.table > 0);
/// assert_eq!((memory.garbage, memory.deadlines < 1 << 20), (0, true));
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct MemoryUse {
    /// The table's arrays.
    pub table: usize,
    /// The entries in the table, keys and values inline; what they point to is not counted.
    pub entries: usize,
    /// The sketch.
    pub sketch: usize,
    /// Rings, window, counters, what stands beside the entries (hash bits, flags, costs and times), and memory
    /// kept for new ones.
    pub buffers: usize,
    /// What maintenance knows of deadlines: the timing wheel. The times themselves are among `buffers`.
    pub deadlines: usize,
    /// The *cost* of what is unlinked and not yet freed.
    pub garbage: u64,
    /// The number of entries that are unlinked and not yet freed.
    pub garbage_entries: u64,
    /// The number of [stalled readers](crate::StalledReader): threads that have been in one pin of
    /// this cache for at least 100 ms, and hold back what is removed.
    ///
    /// `None` if it is not known: with the feature `crossbeam-epoch`, whose collector does not say
    /// which threads are pinned; or if the cache's clock panics, or another thread was stopped
    /// while it recorded the same. [`Cache::stalled_readers`](crate::Cache::stalled_readers) says
    /// who they are.
    pub stalled_readers: Option<u64>,
}

impl<K, V, S> Engine<K, V, S> {
    /// Returns the memory in use.
    pub fn memory(&self) -> MemoryUse {
        // Before the pin, or this thread would be among them.
        let stalled_readers = self.count_stalled_readers();
        let guard = self.table.pin_structure();
        // What is away is not counted.
        let windows =
            self.shards.iter().filter_map(|shard| borrow(shard, |shard| shard.window.bytes()));
        let tuner = borrow(&self.tuning, |tuning| tuning.bytes()).unwrap_or(0);
        let backlog = borrow(&self.backlog, |backlog| backlog.bytes()).unwrap_or(0);
        let stalls = borrow(&self.stalls, |stalls| stalls.bytes()).unwrap_or(0);
        let deadlines = borrow(&self.timers, |timers| timers.bytes()).unwrap_or(0);
        let garbage = self.table.garbage();
        let entries = self.len() as usize * size_of::<Entry<K, V>>();
        MemoryUse {
            table: self.table.bucket_bytes(&guard),
            entries,
            sketch: self.sketch.bytes(),
            buffers: self.table.cell_bytes().saturating_sub(entries)
                + self.events.bytes()
                + self.new_entries.bytes()
                + size_of_val(&*self.locals)
                + self.counters.bytes()
                + self.births.bytes()
                + self.samples.bytes()
                + windows.sum::<usize>()
                + backlog
                + tuner
                + stalls,
            deadlines,
            garbage: garbage.cost,
            garbage_entries: garbage.count,
            stalled_readers,
        }
    }
}
