//! The memory use of a cache.

use super::{Engine, place::borrow};
use crate::entry::Entry;

/// The memory use of a cache, in bytes unless stated otherwise.
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
    /// The entries in the table, with keys and values inline; memory that they point to is not
    /// counted.
    pub entries: usize,
    /// The sketch.
    pub sketch: usize,
    /// Rings, windows, counters, per-entry arrays (hash bits, flags, costs and times), and memory
    /// reserved for new entries.
    pub buffers: usize,
    /// The timing wheel. The times of the entries are part of `buffers`.
    pub deadlines: usize,
    /// The *cost* of the entries that are unlinked but not freed yet.
    pub garbage: u64,
    /// The number of entries that are unlinked but not freed yet.
    pub garbage_entries: u64,
    /// The number of [stalled readers](crate::StalledReader): threads that have held one pin of
    /// this cache for at least 100 ms and delay reclamation.
    ///
    /// `None` if it is unknown: with the feature `crossbeam-epoch`, whose collector does not report
    /// which threads are pinned; if the cache's clock panics; or if another thread was preempted
    /// while it recorded a scan. [`Cache::stalled_readers`](crate::Cache::stalled_readers) lists
    /// them.
    pub stalled_readers: Option<u64>,
}

impl<K, V, S> Engine<K, V, S> {
    /// Returns the memory in use.
    pub fn memory(&self) -> MemoryUse {
        // Before the pin: this thread must not count as a reader.
        let stalled_readers = self.count_stalled_readers();
        let guard = self.table.pin_structure();
        // Parts that other threads have taken out are not counted.
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
