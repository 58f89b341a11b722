//! A small table under a model, its entries, and the ledgers that are checked at the end.
//!
//! A key is its own hash but for bits 8 to 15, so that tests can say which keys share a bucket
//! (the high bits), a half of it, or a tag (the low bits).

#![allow(dead_code)] // each test file uses some of it
#![allow(unsafe_code)] // entries say that they have no tail

use std::sync::{
    Arc as StdArc,
    atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
};

use cortado::__internals::{
    reclaim::{
        self, Guard,
        block::{Owned, Stored},
        limbo::Unlinked,
        pin,
    },
    sync::{Arc, thread, thread_number},
    table::{Host, LANES, Table, Upsert},
};

pub use cortado::__internals::sync::model::as_reader;

/// A key; of the lower half of the first bucket.
pub const A: u64 = 1;
/// Another key of the same hash.
pub const A2: u64 = 0x101;
/// A third.
pub const A3: u64 = 0x201;
/// A fourth.
pub const A4: u64 = 0x301;
/// A key of the same bucket and half, with another tag.
pub const B: u64 = 2;
/// A key of the other end of the hashes, with the tag of `A`.
pub const UP: u64 = 0xf000_0000_0000_0001;

/// A plain cell that loom watches: reads and writes must be ordered.
#[cfg(cortado_loom)]
type Watched = loom::cell::Cell<u64>;
#[cfg(not(cortado_loom))]
type Watched = Plain;

#[cfg(not(cortado_loom))]
pub struct Plain(std::sync::atomic::AtomicU64);
#[cfg(not(cortado_loom))]
impl Plain {
    fn new(value: u64) -> Self {
        Self(value.into())
    }
    fn get(&self) -> u64 {
        self.0.load(SeqCst)
    }
    fn set(&self, value: u64) {
        self.0.store(value, SeqCst);
    }
}

/// Counts of a whole execution, invisible to the model.
#[derive(Default)]
pub struct Ledger {
    made: AtomicUsize,
    dropped: AtomicUsize,
}

#[repr(align(8))]
pub struct Entry {
    pub key: u64,
    value: Watched,
    ledger: StdArc<Ledger>,
}

// SAFETY: it never has a tail, and says so.
unsafe impl Stored for Entry {
    type Tail = ();
}

impl Entry {
    /// Compares keys, and looks at the watched cell, as a comparison of keys on the heap would.
    pub fn is(&self, key: u64) -> bool {
        self.value();
        self.key == key
    }

    pub fn value(&self) -> u64 {
        let value = self.value.get();
        assert_ne!(value, DEAD, "read of a dropped entry");
        value
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        if std::thread::panicking() {
            return;
        }
        assert_ne!(self.value.get(), DEAD, "dropped twice");
        self.value.set(DEAD);
        self.ledger.dropped.fetch_add(1, SeqCst);
    }
}

const DEAD: u64 = u64::MAX;

/// What became of a `set`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Set {
    Inserted,
    Replaced(u64),
    Full,
}

pub struct World {
    pub table: Table<Entry>,
    ledger: StdArc<Ledger>,
    /// Slots up to which full buckets make the table grow.
    pub grow_below: usize,
    /// The value that has to leave a full bucket, if it is there.
    pub leaver: Option<u64>,
    pub displaced: AtomicUsize,
    /// Entries whose hash is asked from now on panic.
    pub panics: AtomicBool,
    /// The thread that stops, when it has put so many buckets of the next array in use, until it is let go.
    stops: AtomicUsize,
    puts: AtomicUsize,
    lets_go: AtomicBool,
}

impl World {
    /// Starts an execution with a table of so many buckets, all in use.
    pub fn new(buckets: usize, batch: usize) -> Self {
        reclaim::reset();
        Self {
            table: Table::with_buckets(buckets, STRIPES, batch),
            ledger: StdArc::default(),
            grow_below: 0,
            leaver: None,
            displaced: AtomicUsize::new(0),
            panics: AtomicBool::new(false),
            stops: AtomicUsize::new(usize::MAX),
            puts: AtomicUsize::new(0),
            lets_go: AtomicBool::new(false),
        }
    }

    /// The same with entries: keys and values.
    pub fn with(buckets: usize, batch: usize, entries: &[(u64, u64)]) -> Self {
        let world = Self::new(buckets, batch);
        for &(key, value) in entries {
            assert_eq!(world.set(key, value), Set::Inserted);
        }
        world
    }

    pub fn entry(&self, key: u64, value: u64) -> Owned<Entry> {
        self.ledger.made.fetch_add(1, SeqCst);
        Owned::new(Entry { key, value: Watched::new(value), ledger: StdArc::clone(&self.ledger) })
    }

    pub fn set(&self, key: u64, value: u64) -> Set {
        self.set_in(&self.table.pin(), key, value)
    }

    pub fn set_in(&self, guard: &Guard, key: u64, value: u64) -> Set {
        let entry = self.entry(key, value);
        match self.table.upsert(guard, hash(key), entry, self, |e, _| e.is(key), |_, _| true) {
            Upsert::Inserted { new, panic } => {
                assert!(new.value() == value && panic.is_none());
                Set::Inserted
            }
            Upsert::Replaced { old, .. } => Set::Replaced(self.retire(guard, old)),
            Upsert::Full(entry) => {
                assert_eq!(entry.value(), value);
                Set::Full
            }
            Upsert::Refused(_) => unreachable!("everything is permitted"),
        }
    }

    pub fn get(&self, key: u64) -> Option<u64> {
        self.get_in(&self.table.pin(), key)
    }

    pub fn get_in(&self, guard: &Guard, key: u64) -> Option<u64> {
        self.table.find(guard, hash(key), |e| e.is(key)).map(Entry::value)
    }

    pub fn remove(&self, key: u64) -> Option<u64> {
        self.remove_in(&self.table.pin(), key)
    }

    pub fn remove_in(&self, guard: &Guard, key: u64) -> Option<u64> {
        let entry = self.table.remove(guard, hash(key), self, |e| e.is(key))?;
        Some(self.retire(guard, entry))
    }

    pub fn remove_if(&self, key: u64, value: u64) -> Option<u64> {
        let guard = self.table.pin();
        let matches = |e: &Entry| e.is(key);
        let entry =
            self.table.remove_if(&guard, hash(key), self, matches, |e| e.value() == value)?;
        Some(self.retire(&guard, entry))
    }

    /// As `Cache::compute`, on the table alone: `f` sees the value that is there, and says which one is to be
    /// there, or the same. Returns the value that it saw last, and what it said then.
    pub fn compute(
        &self,
        key: u64,
        f: impl Fn(Option<u64>) -> Option<u64>,
    ) -> (Option<u64>, Option<u64>) {
        loop {
            let guard = self.table.pin();
            let seen = self.table.find(&guard, hash(key), |e| e.is(key));
            let value = seen.map(Entry::value);
            let wanted = f(value);
            let is_it = |old: &Entry| seen.is_some_and(|seen| std::ptr::eq(old, seen));
            match (seen, wanted) {
                (_, wanted) if wanted == value => return (value, wanted),
                (Some(_), None) => {
                    let matches = |e: &Entry| e.is(key);
                    let removed = self.table.remove_if(&guard, hash(key), self, matches, is_it);
                    if let Some(entry) = removed {
                        assert_eq!(Some(self.retire(&guard, entry)), value);
                        return (value, None);
                    }
                }
                (_, None) => unreachable!("there is nothing to remove"),
                (_, Some(new)) => {
                    let entry = self.entry(key, new);
                    let permit = |old: Option<&Entry>, _: &Entry| match old {
                        Some(old) => is_it(old),
                        None => seen.is_none(),
                    };
                    let matches = |e: &Entry, _: &Entry| e.is(key);
                    match self.table.upsert(&guard, hash(key), entry, self, matches, permit) {
                        Upsert::Inserted { .. } => {
                            assert_eq!(value, None, "inserted for another");
                            return (None, wanted);
                        }
                        Upsert::Replaced { old, .. } => {
                            assert_eq!(Some(self.retire(&guard, old)), value, "another");
                            return (value, wanted);
                        }
                        Upsert::Refused(_) => {}
                        Upsert::Full(_) => panic!("there is a slot"),
                    }
                }
            }
        }
    }

    /// Unlinks a sampled entry, as eviction does; returns its value.
    pub fn evict(&self) -> Option<u64> {
        let guard = self.table.pin();
        let mut evicted = None;
        self.table.sample(&guard, 0, 1, |sampled| {
            evicted = self.table.unlink_sampled(sampled);
            std::ops::ControlFlow::Break(())
        });
        evicted.map(|entry| self.retire(&guard, entry))
    }

    pub fn clear(&self) -> Vec<u64> {
        let guard = self.table.pin();
        let mut removed = Vec::new();
        self.table.clear(&guard, self, |entry| removed.push(self.retire(&guard, entry)));
        removed
    }

    pub fn retire(&self, guard: &Guard, entry: Unlinked<Entry>) -> u64 {
        self.table.retire(guard, entry, 1, thread_number()).0.value()
    }

    pub fn grow(&self) {
        assert!(self.table.grow_root(&self.table.pin()));
    }

    pub fn shrink(&self) {
        assert!(self.table.shrink(&self.table.pin()));
    }

    /// Migrates up to so many units.
    pub fn help(&self, units: usize) {
        self.table.help_migration(&self.table.pin(), self, units);
    }

    /// The same, but this thread stops where it has put so many buckets in use, until it is
    /// [let go](Self::let_go).
    pub fn help_and_stop(&self, units: usize, puts: usize) {
        self.puts.store(puts, SeqCst);
        self.stops.store(thread_number(), SeqCst);
        self.help(units);
    }

    /// Lets the thread go on that has stopped.
    pub fn let_go(&self, stopped: &thread::JoinHandle<()>) {
        self.lets_go.store(true, SeqCst);
        stopped.thread().unpark();
    }

    /// Returns the slots of the current array.
    pub fn slots(&self) -> usize {
        self.table.slots(&pin())
    }

    pub fn values(&self) -> Vec<u64> {
        let guard = self.table.pin();
        let mut values: Vec<u64> = self.table.iter(&guard).map(Entry::value).collect();
        values.sort_unstable();
        values
    }

    /// When all threads have ended: checks slots and lanes, that no key is there twice, that the
    /// figures of limbo are right, and that each entry is dropped once; returns the values that
    /// were left, sorted.
    pub fn finish(world: Arc<Self>) -> Vec<u64> {
        Self::finish_with(world, |_| {})
    }

    /// The same; `look` sees the world before it ends.
    pub fn finish_with(world: Arc<Self>, look: impl FnOnce(&Self)) -> Vec<u64> {
        let world = Arc::try_unwrap(world).unwrap_or_else(|_| panic!("a thread is left"));
        let guard = world.table.pin();
        world.table.audit(&guard, &world, !world.panics.load(SeqCst));
        let mut keys: Vec<u64> = world.table.iter(&guard).map(|e| e.key).collect();
        drop(guard);
        let entries = keys.len();
        keys.sort_unstable();
        keys.dedup();
        assert_eq!(keys.len(), entries, "a key is there twice");
        let values = world.values();
        for &key in &keys {
            assert!(world.get(key).is_some(), "{key} is there and not found");
        }
        look(&world);
        let Self { table, ledger, .. } = world;
        let (made, dropped) = (ledger.made.load(SeqCst), ledger.dropped.load(SeqCst));
        assert_eq!(table.limbo().count() as usize + entries + dropped, made, "entries in limbo");
        assert_eq!(table.limbo().cost(), table.limbo().count());
        drop(table);
        assert_eq!(ledger.dropped.load(SeqCst), made, "entries dropped");
        let (retired, freed) = reclaim::census();
        assert_eq!(retired, freed);
        values
    }
}

impl Host<Entry> for World {
    fn hash(&self, entry: &Entry) -> u64 {
        assert!(!self.panics.load(SeqCst) || entry.key < 1 << 63, "hash");
        hash(entry.key)
    }

    fn is_crowded(&self, slots: usize) -> bool {
        slots < self.grow_below
    }

    fn choose_leaver(&self, residents: &[Option<&Entry>; LANES], _: &Entry) -> Option<usize> {
        residents.iter().position(|e| e.is_some_and(|e| Some(e.value()) == self.leaver))
    }

    fn displaced(&self, guard: &Guard, entry: Unlinked<Entry>) {
        self.displaced.fetch_add(1, SeqCst);
        self.retire(guard, entry);
    }

    fn put_in_use(&self) {
        if self.stops.load(SeqCst) != thread_number() || self.puts.fetch_sub(1, SeqCst) != 1 {
            return;
        }
        while !self.lets_go.load(SeqCst) {
            thread::park();
        }
    }
}

/// Runs `f` with the world on a thread of its own.
pub fn spawn<R: Send + 'static>(
    world: &Arc<World>,
    f: impl FnOnce(&World) -> R + Send + 'static,
) -> thread::JoinHandle<R> {
    let world = Arc::clone(world);
    thread::spawn(move || f(&world))
}

/// The same for a thread whose loads may be stale.
pub fn spawn_reader<R: Send + 'static>(
    world: &Arc<World>,
    f: impl FnOnce(&World) -> R + Send + 'static,
) -> thread::JoinHandle<R> {
    spawn(world, move |world| as_reader(|| f(world)))
}

pub fn hash(key: u64) -> u64 {
    key & !0xff00
}

/// Threads number from 1; no two of a scenario share a stripe of limbo unless they are to.
const STRIPES: usize = 8;
