//! A table of a few buckets (`src/table`) under a model, its entries, and the counts that are
//! checked at the end.

#![allow(dead_code)] // each test file uses some of it

use std::sync::{
    Arc as StdArc,
    atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
};

use cortado::__internals::{
    budget::{Budget, Credit},
    reclaim::{self, Guard},
    sync::{Arc, Watched, atomic::Ordering, model::as_reader, thread, thread_number},
    table::{EntryRef, Fresh, Hints, Metadata, Probe, Publish, Ranking, Table, Terms, Unlinked},
};

/// A key. Keys are their own hashes, except for bits 8 to 15.
pub const A: u64 = 1;
/// Another key with the same hash.
pub const A2: u64 = 0x101;
/// A third key with the same hash.
pub const A3: u64 = 0x201;
/// A key with another tag.
pub const B: u64 = 2;
/// A key in the upper half of the hash range.
pub const UP: u64 = (1 << 63) + 3;
/// A key in the second quarter of the hash range.
pub const ODD: u64 = (1 << 62) + 4;

/// The hints of an evictable entry.
const RANKED: Hints = Hints { access: 0, class: 1 };

/// The bit beside an entry's cell that says that it is unevictable and counted as such.
const UNEVICTABLE: u8 = 1;

/// Values from here on belong to entries that only occupy slots.
pub const FILLER: u64 = 100;

/// Counts of entries created and dropped in an execution. Invisible to the model.
#[derive(Default)]
struct Counts {
    made: AtomicUsize,
    dropped: AtomicUsize,
    /// Written by each destructor once a scenario enables it.
    drops: Watched,
    watches_drops: AtomicBool,
}

/// An entry with a cell that loom watches: reads must happen between its creation and its drop.
pub struct Entry {
    key: u64,
    value: u64,
    watched: Watched,
    counts: StdArc<Counts>,
}

impl Entry {
    fn read(&self) -> u64 {
        self.watched.read();
        self.value
    }

    /// Compares keys, and reads the watched cell, as a comparison of keys on the heap would.
    fn is(&self, key: u64) -> bool {
        self.read();
        self.key == key
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.watched.write();
            self.counts.dropped.fetch_add(1, SeqCst);
            if self.counts.watches_drops.load(SeqCst) {
                self.counts.drops.write();
            }
        }
    }
}

/// The result of a `set`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Set {
    Inserted,
    Replaced(u64),
    Full,
}

pub struct World {
    table: Table<Entry>,
    counts: StdArc<Counts>,
    /// The number of entries that were unlinked as duplicates or displaced.
    pub displaced: AtomicUsize,
    /// The thread that stops where it displaces an entry.
    stops: AtomicUsize,
    lets_go: AtomicBool,
}

impl World {
    /// Starts an execution with these entries in one bucket.
    pub fn with(entries: &[(u64, u64)]) -> Self {
        Self::with_buckets(1, entries)
    }

    /// Starts an execution with these entries in `buckets` buckets.
    pub fn with_buckets(buckets: usize, entries: &[(u64, u64)]) -> Self {
        reclaim::reset();
        let world = Self {
            table: Table::new(buckets, 4, 1).unwrap(),
            counts: StdArc::default(),
            displaced: AtomicUsize::new(0),
            stops: AtomicUsize::new(usize::MAX),
            lets_go: AtomicBool::new(false),
        };
        for &(key, value) in entries {
            assert_eq!(world.set(key, value), Set::Inserted);
        }
        world
    }

    fn hash(key: u64) -> u64 {
        key & !0xff00
    }

    fn note_displaced(&self, guard: &Guard, entry: Unlinked) {
        self.displaced.fetch_add(1, SeqCst);
        self.table.retire(guard, entry, Terms::NONE, 0);
        if self.stops.load(SeqCst) == thread_number() {
            while !self.lets_go.load(SeqCst) {
                thread::park();
            }
        }
    }

    fn prepare(&self, key: u64, value: u64) -> Fresh<'_, Entry> {
        self.counts.made.fetch_add(1, SeqCst);
        let counts = StdArc::clone(&self.counts);
        let entry = Entry { key, value, watched: Watched::new(), counts };
        self.table.prepare(entry, Self::hash(key), 0).unwrap_or_else(|_| panic!("no memory"))
    }

    /// Inserts or replaces; gives up if the bucket is full.
    pub fn set(&self, key: u64, value: u64) -> Set {
        self.set_or_grow(key, value, false)
    }

    /// Inserts or replaces; if the bucket is full, the table grows, if allowed.
    pub fn set_or_grow(&self, key: u64, value: u64, may_grow: bool) -> Set {
        let mut fresh = self.prepare(key, value);
        let guard = self.table.pin();
        let mut claim = fresh.claim_slot(&guard);
        loop {
            let on_displaced = |entry| self.note_displaced(&guard, entry);
            match self.table.probe(&guard, Self::hash(key), |entry| entry.is(key), on_displaced) {
                Probe::Found(there) => {
                    if let Some((_, old)) = there.replace(&mut claim) {
                        let value = self.table.unlinked(&guard, &old).read();
                        self.table.retire(&guard, old, Terms::NONE, 0);
                        return Set::Replaced(value);
                    }
                }
                Probe::Absent(vacant) => {
                    match vacant.publish(&mut claim, RANKED, |a, b| a.is(b.key)) {
                        Publish::Done(_) => return Set::Inserted,
                        Publish::Duplicates(_, duplicates, panic) => {
                            assert!(panic.is_none());
                            duplicates
                                .into_iter()
                                .for_each(|entry| self.note_displaced(&guard, entry));
                            return Set::Inserted;
                        }
                        Publish::Changed => {}
                        Publish::Full(full) => {
                            if may_grow && full.grow(|entry| self.note_displaced(&guard, entry)) {
                                continue;
                            }
                            // As for a rejected value: it is moved out.
                            drop(claim);
                            drop(fresh.into_inner());
                            return Set::Full;
                        }
                    }
                }
            }
        }
    }

    /// Inserts or replaces an entry that costs its value, unless the budget has no room for it;
    /// returns whether it is in the table. Draws on the credit first.
    pub fn set_within(&self, budget: &Budget, credit: &Credit, key: u64, value: u64) -> bool {
        let mut fresh = self.prepare(key, value);
        let guard = self.table.pin();
        let mut claim = fresh.claim_slot(&guard);
        let mut charged = 0;
        let is_in = loop {
            let on_displaced = |entry| self.note_displaced(&guard, entry);
            let probe =
                self.table.probe(&guard, Self::hash(key), |entry| entry.is(key), on_displaced);
            let before = match &probe {
                Probe::Found(there) => there.get().entry.read(),
                Probe::Absent(_) => 0,
            };
            if budget.raise(credit, 0, &mut charged, value.saturating_sub(before)) > 0 {
                break false;
            }
            match probe {
                Probe::Found(there) => {
                    if let Some((_, old)) = there.replace(&mut claim) {
                        charged = charged + self.retire(&guard, old) - value;
                        break true;
                    }
                }
                Probe::Absent(vacant) => {
                    let same = |a: &Entry, b: &Entry| a.is(b.key);
                    if let Publish::Done(_) = vacant.publish(&mut claim, RANKED, same) {
                        charged -= value;
                        break true;
                    }
                }
            }
        };
        if charged > 0 {
            budget.refund(charged);
        }
        is_in
    }

    /// Lowers the limit below what inserts in progress may have charged, as the cache does; returns
    /// the values in the table then.
    pub fn lower(&self, budget: &Budget, credit: &Credit, limit: u64) -> u64 {
        budget.begin_move();
        budget.set_max(limit, [credit]);
        let guard = self.table.pin();
        let mut is_renewed = false;
        while budget.used() > limit {
            let on_displaced = |entry| self.note_displaced(&guard, entry);
            let costs = |entry: &&Entry| entry.read() > 0;
            let worst = self.table.iter(&guard).map(|hit| hit.entry).find(costs).map(|it| it.key);
            if let Some(key) = worst {
                let out = self.table.remove(&guard, Self::hash(key), |it| it.is(key), on_displaced);
                out.into_iter().for_each(|entry| budget.refund(self.retire(&guard, entry)));
                continue;
            }
            budget.recall(credit);
            if is_renewed {
                break;
            } else {
                self.table.renew(&guard, |entry| budget.refund(self.retire(&guard, entry)));
                is_renewed = true;
            }
        }
        budget.end_move();
        as_reader(|| self.table.iter(&guard).map(|hit| hit.entry.read()).sum())
    }

    /// Claims a slot, and takes the entry back if the bucket has changed.
    pub fn try_once(&self, key: u64, value: u64) -> bool {
        let guard = self.table.pin();
        let mut fresh = self.prepare(key, value);
        let on_displaced = |entry| self.note_displaced(&guard, entry);
        match self.table.probe(&guard, Self::hash(key), |entry| entry.is(key), on_displaced) {
            Probe::Found(_) => false,
            Probe::Absent(vacant) => {
                let same = |a: &Entry, b: &Entry| a.is(b.key);
                let published =
                    vacant.publish(&mut fresh.claim_slot(&guard), Hints::default(), same);
                matches!(published, Publish::Done(_))
            }
        }
    }

    /// Claims a slot for `key`, finds that `other` has changed the bucket, and takes the entry
    /// back; checks that its handle is not reused at once.
    pub fn give_up(&self, key: u64, other: u64) {
        let guard = self.table.pin();
        let mut fresh = self.prepare(key, 4);
        let handle = fresh.handle();
        let on_displaced = |entry| self.note_displaced(&guard, entry);
        let probe = self.table.probe(&guard, Self::hash(key), |entry| entry.is(key), on_displaced);
        let Probe::Absent(vacant) = probe else { panic!("{key} is there") };
        assert_eq!(self.set(other, 5), Set::Inserted);
        let published =
            vacant.publish(&mut fresh.claim_slot(&guard), Hints::default(), |a, b| a.is(b.key));
        assert!(matches!(published, Publish::Changed));
        assert_eq!(fresh.into_inner().read(), 4);
        let next = self.prepare(key, 6);
        assert_ne!(next.handle(), handle, "a reader may still hold the handle");
    }

    pub fn get(&self, key: u64) -> Option<u64> {
        self.get_in(&self.table.pin(), key)
    }

    pub fn get_in(&self, guard: &Guard, key: u64) -> Option<u64> {
        let hit = self.table.find(guard, Self::hash(key), |entry| entry.is(key))?;
        Some(hit.entry.read())
    }

    pub fn pin(&self) -> Guard {
        self.table.pin()
    }

    /// Removes exactly the entry that it has found; returns its value.
    pub fn remove_exactly(&self, key: u64) -> Option<u64> {
        let guard = self.table.pin();
        loop {
            let on_displaced = |entry| self.note_displaced(&guard, entry);
            match self.table.probe(&guard, Self::hash(key), |entry| entry.is(key), on_displaced) {
                Probe::Absent(_) => return None,
                Probe::Found(there) => {
                    if let Some(entry) = there.remove(|entry| self.note_displaced(&guard, entry)) {
                        return Some(self.retire(&guard, entry));
                    }
                }
            }
        }
    }

    /// Reads, modifies and writes, as `Cache::compute` does: it replaces or removes exactly what it
    /// has read. Returns the old and the new value.
    pub fn compute(
        &self,
        key: u64,
        f: impl Fn(Option<u64>) -> Option<u64>,
    ) -> (Option<u64>, Option<u64>) {
        loop {
            let guard = self.table.pin();
            let on_displaced = |entry| self.note_displaced(&guard, entry);
            let probe =
                self.table.probe(&guard, Self::hash(key), |entry| entry.is(key), on_displaced);
            let before = match &probe {
                Probe::Found(there) => Some(there.get().entry.read()),
                Probe::Absent(_) => None,
            };
            let Some(after) = f(before) else {
                let Probe::Found(there) = probe else { return (None, None) };
                let Some(entry) = there.remove(on_displaced) else { continue };
                return (Some(self.retire(&guard, entry)), None);
            };
            let mut fresh = self.prepare(key, after);
            let mut claim = fresh.claim_slot(&guard);
            let is_done = match probe {
                Probe::Found(there) => match there.replace(&mut claim) {
                    Some((_, old)) => {
                        self.retire(&guard, old);
                        true
                    }
                    None => false,
                },
                Probe::Absent(vacant) => {
                    let same = |a: &Entry, b: &Entry| a.is(b.key);
                    matches!(vacant.publish(&mut claim, Hints::default(), same), Publish::Done(_))
                }
            };
            if is_done {
                return (before, Some(after));
            }
        }
    }

    /// Removes all entries; returns their values.
    pub fn clear(&self) -> Vec<u64> {
        let guard = self.table.pin();
        let mut values = Vec::new();
        self.table.clear(&guard, |entry| values.push(self.retire(&guard, entry)));
        values
    }

    /// Removes the key's current entry; returns its value.
    pub fn remove(&self, key: u64) -> Option<u64> {
        let guard = self.table.pin();
        let on_displaced = |entry| self.note_displaced(&guard, entry);
        let entry =
            self.table.remove(&guard, Self::hash(key), |entry| entry.is(key), on_displaced)?;
        Some(self.retire(&guard, entry))
    }

    fn retire(&self, guard: &Guard, entry: Unlinked) -> u64 {
        let value = self.table.unlinked(guard, &entry).read();
        self.table.retire(guard, entry, Terms::NONE, 0);
        value
    }

    /// Returns the values left of these keys, after all threads have ended.
    pub fn finish(world: Arc<Self>) -> Vec<u64> {
        let world = Arc::try_unwrap(world).unwrap_or_else(|_| panic!("a thread is left"));
        let Self { table, counts, .. } = world;
        let guard = table.pin();
        let get = |key| table.find(&guard, Self::hash(key), |entry| entry.is(key));
        let left: Vec<u64> = [A, A2, A3, B, UP, ODD]
            .into_iter()
            .filter_map(get)
            .map(|hit| hit.entry.read())
            .collect();
        let mut shown: Vec<u64> = table.iter(&guard).map(|hit| hit.entry.read()).collect();
        shown.retain(|value| *value < FILLER);
        let mut found = left.clone();
        found.sort_unstable();
        shown.sort_unstable();
        assert_eq!(found, shown);
        let fillers = table.iter(&guard).filter(|hit| hit.entry.read() >= FILLER).count();
        drop(guard);
        table.seal();
        let swept = table.sweep(usize::MAX, None);
        assert!(swept.panic.is_none());
        // One of loom's threads may still be destroying its thread-locals after it was joined, and
        // then has an epoch.
        assert!(swept.waiting == 0 || cfg!(crossbeam_loom));
        let made = counts.made.load(SeqCst);
        let dropped = counts.dropped.load(SeqCst) + table.garbage().count as usize;
        assert_eq!(dropped + left.len() + fillers, made, "an entry is lost, or was dropped twice");
        drop(table);
        assert_eq!(counts.dropped.load(SeqCst), made);
        reclaim::census();
        left
    }

    /// Evicts the first entry that the walk over the lines finds, as maintenance does; returns its
    /// value.
    pub fn evict_first(&self) -> Option<u64> {
        let guard = self.table.pin();
        let ranking = Ranking { now: 0, flat: 16, shift: 0, mask: u8::MAX, first: 1, plain: 1 };
        let threshold = ranking.threshold(1.0f32.to_bits());
        let passed = self.table.find_above(&guard, 0, 1, &ranking.ranker(), threshold);
        let (view, above) = passed.found?;
        let sampled_slot = view.sampled_slot(above.trailing_zeros() as usize)?;
        self.table.look(&guard, &sampled_slot)?;
        let entry = self.table.unlink(&guard, &sampled_slot, |_| true)?;
        Some(self.retire(&guard, entry))
    }

    /// Begins to double the table.
    pub fn grow(&self) {
        assert!(self.table.grow(&self.pin()));
    }

    /// Begins to halve the table.
    pub fn shrink(&self) {
        assert!(self.table.shrink(&self.pin()));
    }

    /// Moves up to `units` units.
    pub fn help(&self, units: usize) {
        let guard = self.table.pin();
        self.table.help(&guard, units, |entry| self.note_displaced(&guard, entry));
    }

    /// Like [`help`](Self::help), but stops where it displaces an entry until
    /// [`let_go`](Self::let_go).
    pub fn help_and_stop(&self, units: usize) {
        self.stops.store(thread_number(), SeqCst);
        self.help(units);
    }

    /// Resumes the thread that has stopped.
    pub fn let_go(&self, stopped: &thread::JoinHandle<()>) {
        self.lets_go.store(true, SeqCst);
        stopped.thread().unpark();
    }

    pub fn buckets(&self) -> usize {
        self.table.buckets(&self.pin())
    }

    /// Fills a bucket with `count` entries of the hash of `key`, with values from [`FILLER`] on.
    pub fn fill(&self, key: u64, count: u64) {
        for i in 0..count {
            assert_eq!(self.set(key + ((i + 8) << 8), FILLER + i), Set::Inserted);
        }
    }

    /// Returns the values that an iteration shows, without those of fillers.
    pub fn values(&self) -> Vec<u64> {
        let guard = self.table.pin();
        let mut values: Vec<u64> = self.table.iter(&guard).map(|hit| hit.entry.read()).collect();
        values.retain(|value| *value < FILLER);
        values.sort_unstable();
        values
    }

    /// Unlinks the first entry that a run of lines shows; returns its value.
    pub fn evict(&self) -> Option<u64> {
        let guard = self.table.pin();
        let mut run = self.table.run(&guard, 0, usize::MAX);
        let sampled_slot =
            run.find_map(|view| view.taken().find_map(|slot| view.sampled_slot(slot)))?;
        let entry = self.table.unlink(&guard, &sampled_slot, |_| true)?;
        Some(self.retire(&guard, entry))
    }

    /// Marks the entry of a key as unevictable, and counts it, as the engine does; returns whether
    /// it was in the table.
    pub fn make_unevictable(&self, key: u64, count: &AtomicUsize) -> bool {
        let guard = self.table.pin();
        let on_displaced = |entry| self.note_displaced(&guard, entry);
        let hash = Self::hash(key);
        let is_it = |entry: EntryRef<'_, Entry>| entry.is(key);
        let Probe::Found(there) = self.table.probe(&guard, hash, is_it, on_displaced) else {
            return false;
        };
        let metadata = there.get().metadata();
        count.fetch_add(1, SeqCst);
        metadata.byte().fetch_or(UNEVICTABLE, Ordering::Release);
        let is_it = |entry: EntryRef<'_, Entry>| entry.id() == metadata.id();
        while let Probe::Found(there) = self.table.probe(&guard, hash, is_it, on_displaced) {
            if self.table.renew_entry(there.get()) {
                return true;
            }
        }
        Self::uncount(metadata, count);
        false
    }

    fn uncount(entry: Metadata<'_, Entry>, count: &AtomicUsize) {
        let byte = entry.byte();
        if byte.load(Ordering::Relaxed) & UNEVICTABLE != 0
            && byte.fetch_and(!UNEVICTABLE, Ordering::Relaxed) & UNEVICTABLE != 0
        {
            count.fetch_sub(1, SeqCst);
        }
    }

    /// Unlinks the first entry that a run of lines shows, unless it is marked; returns whether it
    /// did.
    pub fn evict_if_evictable(&self, count: &AtomicUsize) -> bool {
        let guard = self.table.pin();
        let mut run = self.table.run(&guard, 0, usize::MAX);
        let sampled_slot =
            run.find_map(|view| view.taken().find_map(|slot| view.sampled_slot(slot)));
        let may_go =
            |entry: Metadata<'_, Entry>| entry.byte().load(Ordering::Relaxed) & UNEVICTABLE == 0;
        let unlink = |sampled_slot| self.table.unlink(&guard, &sampled_slot, may_go);
        let Some(entry) = sampled_slot.and_then(unlink) else { return false };
        Self::uncount(self.table.metadata_of(&guard, &entry), count);
        self.retire(&guard, entry);
        true
    }

    /// Removes the entry of a key, marked or not; returns whether it did.
    pub fn remove_unevictable(&self, key: u64, count: &AtomicUsize) -> bool {
        let guard = self.table.pin();
        let on_displaced = |entry| self.note_displaced(&guard, entry);
        let is_it = |entry: EntryRef<'_, Entry>| entry.is(key);
        let Some(entry) = self.table.remove(&guard, Self::hash(key), is_it, on_displaced) else {
            return false;
        };
        Self::uncount(self.table.metadata_of(&guard, &entry), count);
        self.retire(&guard, entry);
        true
    }

    pub fn seal(&self) {
        self.table.seal();
    }

    pub fn is_at_rest(&self) -> bool {
        self.table.is_at_rest()
    }

    /// From now on, destructors write what [`dropped`](Self::dropped) reads. No two may run
    /// concurrently.
    pub fn watch_drops(&self) {
        self.counts.watches_drops.store(true, SeqCst);
    }

    /// Returns the number of dropped entries.
    pub fn dropped(&self) -> usize {
        self.counts.drops.read();
        self.counts.dropped.load(SeqCst)
    }

    /// Frees everything that no guard protects; with crossbeam-epoch, after as many steps as its
    /// epochs take.
    pub fn sweep(&self) {
        self.table.seal();
        for _ in 0..if cfg!(crossbeam_loom) { 3 } else { 1 } {
            assert!(self.table.sweep(usize::MAX, None).panic.is_none());
        }
    }

    /// Like [`sweep`](Self::sweep), but drops values that no pin protects before their period is
    /// over. Returns the number of dropped entries.
    pub fn sweep_early(&self) -> usize {
        self.table.seal();
        let swept = self.table.sweep_early(usize::MAX, None);
        assert!(swept.panic.is_none());
        swept.freed
    }

    /// Pins for the entries of one key's hash, and others of the same part.
    pub fn pin_part(&self, key: u64) -> Guard {
        self.table.pin_part(Self::hash(key))
    }
}

pub fn spawn<R: Send + 'static>(
    world: &Arc<World>,
    f: impl FnOnce(&World) -> R + Send + 'static,
) -> thread::JoinHandle<R> {
    let world = Arc::clone(world);
    thread::spawn(move || f(&world))
}

/// Like [`spawn`], for a thread whose loads may be stale where others' are not.
pub fn spawn_reader<R: Send + 'static>(
    world: &Arc<World>,
    f: impl FnOnce(&World) -> R + Send + 'static,
) -> thread::JoinHandle<R> {
    spawn(world, |world| as_reader(|| f(world)))
}
