//! Retiring entries, and freeing them when no guard can reach them any more.
//!
//! A retired handle goes into the bag of the thread's stripe. A full bag is sealed. A sweep begins
//! one grace period for all sealed bags, which wait for it in [limbo lists](crate::reclaim::limbo).
//! When the period is over, the values in the bag's cells are dropped, and the bag itself becomes a
//! magazine of free cells.
//!
//! Where garbage is expensive, a sweep does not wait for a period that a stopped thread delays: it
//! drops *early* the values that no pin of the period protects ([`Grace::keeps`]). Only the values:
//! their cells are retired once more, because a pinned thread relies on a handle not being reused,
//! whichever part its guard protects.
//!
//! A value is retired with a label and a cost. Values that are retired and not freed are *garbage*;
//! the table always knows their cost and number. If the owner provides a *finalizer*, it receives
//! each value with a label other than 0, in place of the destructor.
//!
//! # Orderings
//!
//! * Release where values leave the count ↔ Acquire where it is read, and Release where `freeing`
//!   is decremented ↔ Acquire where it is read after the count: a thread that finds the table at
//!   rest sees all values dropped.

use std::{
    any::Any,
    cell::Cell,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
};

use super::{Table, Unlinked, array::Array, fresh::Fresh, known, resize::has_moved};
use crate::{
    reclaim::{
        Grace, Guard,
        limbo::{MayGo, ReleaseReason},
    },
    slab::{self, Garbage, Handle, Magazine, Retired},
    sync::{atomic::Ordering::*, thread_local},
    util::drop_panic,
};

/// A function that is called with each labelled value, its label and its cost, in place of the
/// destructor.
pub type Finalizer<'a, T> = &'a dyn Fn(T, u8, u64);

/// The result of a sweep.
#[derive(Debug, Default)]
pub struct Swept {
    /// The number of freed values.
    pub freed: usize,
    /// The number of bags and of arrays of buckets that still wait.
    pub waiting: usize,
    /// The payload of the first panic of a destructor or finalizer.
    pub panic: Option<Box<dyn Any + Send>>,
}

/// The label, cost and sealing limit with which an entry is retired.
#[derive(Clone, Copy, Debug)]
pub struct Terms {
    /// Passed to the finalizer; 0 for no finalizer. Below [`LABELS`](crate::slab::LABELS).
    pub label: u8,
    /// The cost of the entry while it is garbage.
    pub cost: u64,
    /// The cost at which the bag is sealed before it is full.
    pub seal_at: u64,
}

/// Which values a sweep drops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sweep {
    /// Those whose grace period has ended; it begins one for the sealed bags.
    Usual,
    /// Those, and the ones that no pin of their period protects.
    Early,
    /// Those whose grace period has ended; it begins none.
    Begun,
}

thread_local! {
    /// Whether this thread is dropping values.
    static IS_FREEING: Cell<bool> = const { Cell::new(false) };
}

impl Swept {
    fn note(&mut self, panic: Box<dyn Any + Send>) {
        match &self.panic {
            None => self.panic = Some(panic),
            Some(_) => drop_panic(panic),
        }
    }
}

impl Terms {
    /// No label, no cost, and bags are sealed only when full.
    pub const NONE: Self = Self { label: 0, cost: 0, seal_at: u64::MAX };
}

impl Unlinked {
    /// Returns the handle for a bag, and the cost at which the bag is sealed.
    #[inline]
    fn retired(self, terms: Terms) -> (Retired, u64) {
        let Terms { label, cost, seal_at } = terms;
        (Retired { handle: self.handle, label: Some(label), part: self.low, cost }, seal_at)
    }
}

impl<T> Table<T> {
    /// Retires an entry: when every guard of this moment is gone, a sweep drops it and frees its
    /// cell. Returns whether this has filled a bag, so that a sweep has one more.
    ///
    /// # Panics
    ///
    /// Panics if the entry belongs to another table.
    pub fn retire(&self, _: &Guard, entry: Unlinked, terms: Terms, stripe: usize) -> bool {
        self.check(&entry);
        let (retired, seal_at) = entry.retired(terms);
        // SAFETY: the handle is of this table's slab, and its only `Unlinked` is consumed here. Its
        // cell holds a value until that is freed.
        unsafe { self.slab.collect(retired, seal_at, stripe, &self.sealed) }
    }

    /// Takes the bag of a stripe out, to retire several entries.
    #[inline]
    pub fn open_bag(&self, stripe: usize) -> OpenBag<'_, T> {
        OpenBag { table: self, bag: self.slab.open_bag(stripe, &self.sealed) }
    }

    /// Retires a cell whose value was moved out, and whose handle readers may still compare.
    pub(super) fn retire_empty(&self, handle: Handle, stripe: usize) {
        let retired = Retired::empty(handle);
        // SAFETY: the handle is of this table's slab, and its `Fresh` retires it once.
        unsafe { self.slab.collect(retired, u64::MAX, stripe, &self.sealed) };
    }

    /// Returns the values that are retired and not freed: exact when no thread retires or frees.
    /// Cells whose entries were moved out count, too, until their bag is sealed.
    pub fn garbage(&self) -> Garbage {
        let (open, sealed) = (self.slab.open_garbage(), self.sealed_garbage());
        Garbage {
            cost: open.cost.saturating_add(sealed.cost),
            count: open.count.saturating_add(sealed.count),
        }
    }

    /// Returns the garbage in sealed bags.
    pub fn sealed_garbage(&self) -> Garbage {
        self.sealed.garbage()
    }

    /// Returns the garbage in sealed bags for which no grace period has begun: a hint.
    pub fn unswept_garbage(&self) -> Garbage {
        self.sealed.waiting()
    }

    /// Returns how many entries a bag holds.
    pub fn bag_capacity(&self) -> usize {
        self.slab.bag_capacity()
    }

    /// Returns whether there is no garbage, and all freed values were dropped or passed to the
    /// finalizer.
    ///
    /// In a destructor or a finalizer it ignores values that other threads are dropping: two that
    /// wait for each other would never return.
    pub fn is_at_rest(&self) -> bool {
        // In this order: a value that has left the count is covered by `freeing` until it is
        // dropped.
        if self.garbage().count > 0 {
            return false;
        }
        // Acquire: pairs with the Release where `freeing` is decremented, so that the drops are
        // seen.
        let acquire = ordering!(Acquire, mutant("table_relaxed_rest") => Relaxed);
        mutant!("table_rests_early")
            || IS_FREEING.try_with(Cell::get).unwrap_or(false)
            || self.freeing.load(acquire) == 0
    }

    /// Returns whether a sweep has work to do: the recheck of a thread that is about to sleep. It
    /// misses only work of threads that see that the thread sleeps (see
    /// [`eventcount`](crate::primitives::eventcount)).
    pub fn recheck(&self) -> bool {
        // In the order in which garbage moves, so that none is missed.
        self.slab.recheck()
            || self.sealed.recheck()
            || self.old_arrays.recheck()
            || self.limbo.recheck()
            || self.array_limbo.recheck()
    }

    /// Seals bags that are not full; returns how many.
    pub fn seal(&self) -> usize {
        self.slab.seal(&self.sealed)
    }

    /// Drops values that no guard can reach any more, until `max` values are freed.
    ///
    /// Runs destructors and finalizers, so it must be called unpinned. A panic of one is caught,
    /// the others run, and the first panic is returned.
    pub fn sweep(&self, max: usize, finalizer: Option<Finalizer<'_, T>>) -> Swept {
        self.sweep_with(max, finalizer, Sweep::Usual)
    }

    /// Like [`sweep`](Self::sweep), but begins no grace period: drops values whose period was begun
    /// by another call.
    pub fn sweep_begun(&self, max: usize, finalizer: Option<Finalizer<'_, T>>) -> Swept {
        self.sweep_with(max, finalizer, Sweep::Begun)
    }

    /// Like [`sweep`](Self::sweep), but also drops values early, before their grace period is over,
    /// if no pin protects them.
    ///
    /// More expensive than waiting: meant for garbage that takes much memory.
    pub fn sweep_early(&self, max: usize, finalizer: Option<Finalizer<'_, T>>) -> Swept {
        let is_early = std::mem::needs_drop::<T>();
        self.sweep_with(max, finalizer, if is_early { Sweep::Early } else { Sweep::Usual })
    }

    fn sweep_with(&self, max: usize, finalizer: Option<Finalizer<'_, T>>, how: Sweep) -> Swept {
        let begins = how != Sweep::Begun;
        // SAFETY: the bags are of this table's slab; each becomes a number below.
        let bags = begins.then(|| unsafe { self.slab.take_bags(&self.sealed) });
        let mut bags = bags.into_iter().flatten().peekable();
        let mut arrays = begins.then(|| self.old_arrays.take()).into_iter().flatten().peekable();
        // Begun after both were taken, so what is in them was unlinked before. One period for both,
        // because beginning one interrupts every thread of the process.
        let (has_bags, has_arrays) = (bags.peek().is_some(), arrays.peek().is_some());
        let grace = (has_bags || has_arrays).then(|| Grace::begin(self.domain));
        if grace.is_none() {
            // A collector that depends on its users to advance may have no other occasion.
            self.pin_structure().advance();
        }
        let of_arrays = grace.clone().filter(|_| has_arrays);
        let old = self.array_limbo.sweep(
            arrays,
            of_arrays,
            usize::MAX,
            |_| 1,
            None,
            |array, _| drop(array),
        );
        let grace = grace.filter(|_| has_bags);
        let numbers = bags.map(|bag| self.begin_to_wait(bag));
        let size = |&number: &u32| {
            // SAFETY: a limbo list holds each number once, and the bag becomes a number again
            // below.
            let bag = unsafe { self.slab.bag_of(number) };
            let count = bag.as_ref().map_or(0, |bag| bag.garbage().count);
            bag.map(Magazine::into_number);
            count as usize
        };
        let may_go = |&number: &u32, grace: &Grace| {
            // SAFETY: as above.
            let bag = unsafe { self.slab.bag_of(number) };
            let may_go = bag.as_ref().is_some_and(|bag| {
                let mut parts = bag.parts().peekable();
                let is_free = |part| !grace.keeps(part) || mutant!("table_early_all");
                parts.peek().is_some() && parts.all(is_free)
            });
            bag.map(Magazine::into_number);
            may_go
        };
        let may_go: Option<MayGo<'_, u32>> = if how == Sweep::Early { Some(&may_go) } else { None };
        let mut swept = Swept::default();
        let progress = self.limbo.sweep(numbers, grace, max, size, may_go, |number, reason| {
            match reason {
                // SAFETY: its grace period is over, and the limbo list gave the number to this call
                // alone.
                ReleaseReason::Ended => _ = unsafe { self.free(number, finalizer, &mut swept) },
                // SAFETY: no pin of its period protects a value of it, and the rest as above.
                ReleaseReason::Early => unsafe { self.free_early(number, finalizer, &mut swept) },
            }
        });
        (swept.freed, swept.waiting) = (progress.freed, progress.waiting + old.waiting);
        swept
    }

    /// Returns memory without entries to the system, as [`Slab::trim`](crate::slab::Slab::trim)
    /// does; returns whether there was any. Seal and sweep first.
    pub fn trim(&self) -> bool {
        self.slab.trim() > 0
    }

    /// Turns a bag into a number for the limbo lists.
    fn begin_to_wait(&self, bag: Magazine<'_>) -> u32 {
        #[cfg(any(cortado_loom, cortado_shuttle))]
        for (handle, _) in bag.iter() {
            crate::reclaim::note_sealed(self.key_of(handle));
        }
        bag.into_number()
    }

    /// Frees all garbage, whether or not its grace period is over.
    pub fn drain(&mut self, finalizer: Option<Finalizer<'_, T>>) -> Swept {
        self.seal();
        let waiting: Vec<u32> = self.limbo.drain().collect();
        // SAFETY: the bags are of this table's slab; each becomes a number here.
        let sealed = unsafe { self.slab.take_bags(&self.sealed) };
        let sealed = sealed.map(|bag| self.begin_to_wait(bag));
        let all: Vec<u32> = waiting.into_iter().chain(sealed).collect();
        let mut swept = Swept::default();
        for number in all {
            // SAFETY: `&mut self` excludes readers, and each number was in one of the two.
            swept.freed += unsafe { self.free(number, finalizer, &mut swept) };
        }
        swept
    }

    /// Drops the values of a bag, and frees its cells; returns the number of values.
    ///
    /// # Safety
    ///
    /// * The number is of a bag of retired handles, of this table, and is used once.
    /// * Its grace period is over.
    unsafe fn free(
        &self,
        number: u32,
        finalizer: Option<Finalizer<'_, T>>,
        swept: &mut Swept,
    ) -> usize {
        // SAFETY: the caller's promise.
        let Some(mut bag) = (unsafe { self.slab.bag_of(number) }) else { return 0 };
        // SAFETY: the grace period is over.
        let count = unsafe { self.drop_values(&bag, finalizer, swept) };
        #[cfg(any(cortado_loom, cortado_shuttle))]
        for (handle, _) in bag.iter() {
            crate::reclaim::note_freed(self.key_of(handle));
        }
        bag.forget_values();
        if cfg!(any(cortado_loom, cortado_shuttle)) {
            // In a model, cells are never reused, so that no handle returns.
            bag.into_number();
        }
        count
    }

    /// Drops the values of a bag, and retires its cells, which are then empty.
    ///
    /// # Safety
    ///
    /// * The number is of a bag of retired handles, of this table, and is used once.
    /// * No guard protects a value of it.
    #[cold]
    unsafe fn free_early(
        &self,
        number: u32,
        finalizer: Option<Finalizer<'_, T>>,
        swept: &mut Swept,
    ) {
        // SAFETY: the caller's promise.
        let Some(mut bag) = (unsafe { self.slab.bag_of(number) }) else { return };
        // SAFETY: the caller's promise.
        unsafe { self.drop_values(&bag, finalizer, swept) };
        // All through one stripe, so that at most one bag of them stays unsealed, and is missing
        // from the counters that limits are compared with.
        let mut emptied = self.slab.open_bag(0, &self.sealed);
        for (handle, _) in bag.iter() {
            // What remains of the entry is its cell.
            // SAFETY: the handle is of this table's slab.
            let cost = unsafe { self.slab.cell(handle) }.charge().min(size_of::<T>() as u64);
            // SAFETY: as above; it moves from this bag to another one, and its value is dropped.
            unsafe { emptied.collect(Retired { cost, ..Retired::empty(handle) }, u64::MAX) };
        }
        bag.clear();
    }

    /// Drops the values of a bag, and subtracts them from the count; returns the number of values.
    ///
    /// # Safety
    ///
    /// * The bag contains retired handles of this table, and the values are dropped once.
    /// * No guard protects them.
    unsafe fn drop_values(
        &self,
        bag: &Magazine<'_>,
        finalizer: Option<Finalizer<'_, T>>,
        swept: &mut Swept,
    ) -> usize {
        let garbage = bag.garbage();
        let is_loud = std::mem::needs_drop::<T>() || finalizer.is_some();
        let is_freeing = is_loud.then(|| {
            // Relaxed: made visible by the Release of the count.
            self.freeing.fetch_add(1, Relaxed);
            IS_FREEING.try_with(|freeing| freeing.replace(true)).unwrap_or(false)
        });
        // Before the values are dropped, so that a destructor that reads the counters does not find
        // its own value there.
        self.sealed.forget(garbage, bag.number() as usize);
        for (handle, label) in bag.iter() {
            if let Some(label) = label {
                // SAFETY: the entry was unlinked, no guard protects it, and it is in this bag only.
                let drop_value = || match finalizer.filter(|_| label != 0) {
                    Some(finalizer) => {
                        // SAFETY: as above.
                        let cost = unsafe { self.slab.cell(handle) }.charge();
                        // SAFETY: as above.
                        finalizer(unsafe { self.slab.take(handle) }, label, cost);
                    }
                    // SAFETY: as above.
                    None => unsafe { self.slab.drop_value(handle) },
                };
                if is_loud && let Err(panic) = catch_unwind(AssertUnwindSafe(drop_value)) {
                    swept.note(panic);
                }
            }
        }
        if let Some(is_freeing) = is_freeing {
            // Release: pairs with the Acquire in `is_at_rest`.
            self.freeing.fetch_sub(1, Release);
            let _ = IS_FREEING.try_with(|freeing| freeing.set(is_freeing));
        }
        garbage.count as usize
    }
}

/// A bag that was taken out of its stripe to retire several entries. Dropping it puts it back.
pub struct OpenBag<'t, T> {
    table: &'t Table<T>,
    bag: slab::OpenBag<'t>,
}

impl<T> OpenBag<'_, T> {
    /// Retires an entry, as [`Table::retire`] does.
    ///
    /// # Panics
    ///
    /// Panics if the entry belongs to another table.
    #[inline]
    pub fn retire(&mut self, _: &Guard, entry: Unlinked, terms: Terms) {
        self.table.check(&entry);
        let (retired, seal_at) = entry.retired(terms);
        // SAFETY: as in `Table::retire`.
        unsafe { self.bag.collect(retired, seal_at) };
    }

    /// Puts the bag back; returns whether a sweep has one more.
    #[inline]
    pub fn close(self) -> bool {
        self.bag.close()
    }
}

impl<T> std::fmt::Debug for OpenBag<'_, T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OpenBag").finish_non_exhaustive()
    }
}

impl<T> Fresh<'_, T> {
    /// Turns an entry that was never published into an unlinked one: other threads may read it
    /// until it is retired.
    pub fn into_unlinked(self) -> Unlinked {
        let table = self.table;
        let low = (known(self.hash) & 0x3ff) as u16;
        Unlinked { handle: self.into_handle(), low, access: 0, domain: table.domain }
    }
}

impl<T> Drop for Table<T> {
    fn drop(&mut self) {
        let mut swept = self.drain(None);
        let root = self.root.load(Relaxed); // Relaxed: `&mut self`.
        // SAFETY: it came from `Box::into_raw`; earlier roots wait in `old_arrays` and in the limbo
        // lists.
        let mut root = unsafe { Box::from_raw(root) };
        let next = root.take_next();
        for handle in ruled(&root, next.as_deref()) {
            // SAFETY: an entry is in one slot of an authoritative bucket; `&mut self` excludes
            // readers.
            let drop_value = || unsafe { self.slab.drop_value(handle) };
            if let Err(panic) = catch_unwind(AssertUnwindSafe(drop_value)) {
                swept.note(panic);
            }
        }
        if let Some(panic) = swept.panic
            && !std::thread::panicking()
        {
            resume_unwind(panic);
        }
    }
}

/// Returns the handles of all entries of a table that is being dropped.
fn ruled<'a>(root: &'a Array, next: Option<&'a Array>) -> impl Iterator<Item = Handle> + 'a {
    let has_moved = move |index| next.is_some_and(|next| has_moved(root, next, index));
    let unmoved = (0..root.count()).filter(move |&index| !has_moved(index));
    let unmoved = unmoved.map(|index| root.at(index));
    // Only children whose units have moved are authoritative. The others may be filled already.
    let children = next.into_iter().flat_map(move |next| {
        let parent = move |child| if next.count() > root.count() { child / 2 } else { 2 * child };
        let moved = (0..next.count()).filter(move |&child| has_moved(parent(child)));
        moved.map(|child| next.at(child))
    });
    unmoved.chain(children).flat_map(|bucket| {
        let words = bucket.control().taken().map(|slot| bucket.word(slot));
        words.filter_map(|word| word.handle().filter(|_| !word.is_dying()))
    })
}

#[cfg(all(test, not(any(cortado_loom, cortado_shuttle))))]
mod tests {
    use std::{cell::RefCell, sync::atomic::AtomicU64};

    use super::{
        super::{
            Probe,
            testing::{Entries, Entry, none, put, spread},
        },
        *,
    };
    use crate::sync::thread;

    /// Removes an entry.
    fn unlink(table: &Entries<'_>, guard: &Guard, key: u64) -> Unlinked {
        match table.probe(guard, spread(key), |entry| entry.key == key, none) {
            Probe::Found(there) => there.remove(none).expect("no other thread is here"),
            Probe::Absent(_) => panic!("{key} is not there"),
        }
    }

    fn filled(keys: u64, alive: &AtomicU64) -> Entries<'_> {
        let table = Table::new(100, 10_000, 1).unwrap();
        let guard = table.pin();
        for key in 0..keys {
            put(&table, &guard, spread(key), Entry::new(key, key, alive), |_| panic!("full"));
        }
        drop(guard);
        table
    }

    /// Sweeps until nothing waits.
    fn sweep_all<'a>(table: &Entries<'a>, finalizer: Option<Finalizer<'_, Entry<'a>>>) -> Swept {
        table.seal();
        let mut all = Swept::default();
        loop {
            let swept = table.sweep(usize::MAX, finalizer);
            all.freed += swept.freed;
            swept.panic.into_iter().for_each(|panic| all.note(panic));
            if swept.waiting == 0 {
                return all;
            }
            // Other tests pin for every domain.
            thread::yield_now();
        }
    }

    #[test]
    fn garbage_is_counted_with_its_cost_until_it_is_freed() {
        let alive = AtomicU64::new(0);
        let table = filled(200, &alive);
        let guard = table.pin();
        let mut cost = 0;
        for key in 0..200 {
            cost += key;
            let terms = Terms { cost: key, ..Terms::NONE };
            table.retire(&guard, unlink(&table, &guard, key), terms, 0);
            assert_eq!(table.garbage(), Garbage { cost, count: key + 1 });
        }
        assert!(!table.is_at_rest());
        drop(guard);
        assert_eq!((sweep_all(&table, None).freed, alive.load(Relaxed)), (200, 0));
        assert_eq!((table.garbage(), table.is_at_rest()), (Garbage::default(), true));
    }

    #[test]
    fn expensive_garbage_is_sealed_before_its_bag_is_full() {
        let alive = AtomicU64::new(0);
        let table = filled(20, &alive);
        let guard = table.pin();
        for key in 0..20 {
            let terms = Terms { cost: 40, seal_at: 100, ..Terms::NONE };
            let is_sealed = table.retire(&guard, unlink(&table, &guard, key), terms, 0);
            assert_eq!(is_sealed, key % 3 == 2);
            assert_eq!(table.sealed_garbage().count, (key + 1) / 3 * 3);
        }
    }

    #[test]
    fn values_with_a_label_go_to_the_finalizer_and_others_to_their_destructor() {
        let alive = AtomicU64::new(0);
        let table = filled(30, &alive);
        let guard = table.pin();
        for key in 0..30 {
            let terms = Terms { label: key as u8, ..Terms::NONE };
            table.retire(&guard, unlink(&table, &guard, key), terms, 0);
        }
        drop(guard);
        let finalized = RefCell::new(Vec::new());
        let finalizer = |entry: Entry<'_>, label, cost| {
            assert_eq!((u64::from(label), cost), (entry.key, 1));
            finalized.borrow_mut().push(label);
        };
        assert_eq!(sweep_all(&table, Some(&finalizer)).freed, 30);
        let mut finalized = finalized.into_inner();
        finalized.sort_unstable();
        assert_eq!(finalized, (1..30).collect::<Vec<u8>>());
        assert_eq!(alive.load(Relaxed), 0);
    }

    #[test]
    fn panic_in_a_finalizer_stops_no_other_and_is_returned() {
        let alive = AtomicU64::new(0);
        for is_drain in [false, true] {
            let mut table = filled(10, &alive);
            let guard = table.pin();
            for key in 0..10 {
                let terms = Terms { label: 1, ..Terms::NONE };
                table.retire(&guard, unlink(&table, &guard, key), terms, 0);
            }
            drop(guard);
            let finalizer = |entry: Entry<'_>, _, _| assert!(entry.key > 4, "{}", entry.key);
            let swept = if is_drain {
                table.drain(Some(&finalizer))
            } else {
                sweep_all(&table, Some(&finalizer))
            };
            assert!(swept.panic.is_some());
            assert_eq!((swept.freed, alive.load(Relaxed)), (10, 0));
            assert!(table.is_at_rest());
        }
    }

    #[test]
    fn table_is_not_at_rest_while_another_thread_finalizes() {
        let alive = AtomicU64::new(0);
        let table = filled(1, &alive);
        let guard = table.pin();
        let terms = Terms { label: 1, ..Terms::NONE };
        table.retire(&guard, unlink(&table, &guard, 0), terms, 0);
        drop(guard);
        let finalizer = |_: Entry<'_>, _, _| {
            assert_eq!(table.garbage(), Garbage::default());
            assert!(table.is_at_rest(), "it would wait for itself");
            assert!(!thread::scope(|scope| scope.spawn(|| table.is_at_rest()).join().unwrap()));
        };
        let swept = sweep_all(&table, Some(&finalizer));
        assert!(swept.panic.is_none() && swept.freed == 1 && table.is_at_rest());
    }

    #[test]
    fn unpublished_entry_can_be_read_until_it_is_retired() {
        let alive = AtomicU64::new(0);
        let table = filled(1, &alive);
        let fresh = table.prepare(Entry::new(9, 90, &alive), spread(9), 0).unwrap();
        let loose = fresh.into_unlinked();
        let guard = table.pin();
        let entry = table.unlinked(&guard, &loose);
        table.retire(&guard, loose, Terms::NONE, 0);
        assert_eq!(entry.value, 90);
        drop(guard);
        assert_eq!((sweep_all(&table, None).freed, alive.load(Relaxed)), (1, 1));
    }

    /// Values that are dropped before their period ends. Other collectors do not know what a pin
    /// protects.
    #[cfg(not(feature = "crossbeam-epoch"))]
    mod early {
        use std::{
            sync::mpsc,
            time::{Duration, Instant},
        };

        use super::*;

        /// Retires an entry with a cost of 100, in a bag of its own.
        fn retire_alone(table: &Entries<'_>, key: u64) {
            let guard = table.pin();
            let terms = Terms { cost: 100, ..Terms::NONE };
            table.retire(&guard, unlink(table, &guard, key), terms, 0);
            table.seal();
        }

        /// Calls `f` while another thread reads something, from before to after the call.
        fn beside_a_reader<R>(read: impl FnOnce(&dyn Fn()) + Send, f: impl FnOnce() -> R) -> R {
            let (to_us, reports) = mpsc::channel();
            let (release, orders) = mpsc::channel::<()>();
            thread::scope(|scope| {
                scope.spawn(move || {
                    read(&|| {
                        to_us.send(()).unwrap();
                        let _ = orders.recv();
                    });
                });
                reports.recv().unwrap();
                let release = release;
                let result = f();
                drop(release);
                result
            })
        }

        /// Retries until values were dropped early. (Other tests pin for every domain, which prevents
        /// it.)
        fn eventually(attempt: impl Fn() -> bool) {
            let end = Instant::now() + Duration::from_secs(30);
            while !attempt() {
                assert!(Instant::now() < end, "nothing ever went early");
            }
        }

        #[test]
        fn unprotected_values_are_dropped_early_and_others_after_their_period() {
            let alive = AtomicU64::new(0);
            eventually(|| {
                let table = filled(100, &alive);
                let read = |wait: &dyn Fn()| {
                    let guard = table.pin_part(spread(7));
                    let hit = table.find(&guard, spread(7), |entry| entry.key == 7).unwrap();
                    wait();
                    assert_eq!(hit.entry.value, 7);
                };
                let freed = beside_a_reader(read, || {
                    (0..100).for_each(|key| retire_alone(&table, key));
                    assert_eq!(table.sweep(usize::MAX, None).freed, 0, "a reader is pinned");
                    let freed = table.sweep_early(usize::MAX, None).freed as u64;
                    assert!(freed < 100 && alive.load(Relaxed) == 100 - freed);
                    // Only their cells remain, each at a cost of 1 at most, because no other cost is
                    // stored.
                    assert_eq!(table.garbage().cost, (100 - freed) * 100 + freed);
                    assert_eq!(
                        table.sweep_early(usize::MAX, None).freed,
                        0,
                        "they were asked about"
                    );
                    freed
                });
                assert_eq!(sweep_all(&table, None).freed as u64, 100 - freed);
                assert_eq!((alive.load(Relaxed), table.garbage()), (0, Garbage::default()));
                assert!(table.is_at_rest());
                freed >= 90
            });
        }

        #[test]
        fn cells_of_values_that_went_early_are_not_used_before_their_period_is_over() {
            let alive = AtomicU64::new(0);
            eventually(|| {
                let table = filled(50, &alive);
                let handle_of = |key| {
                    let guard = table.pin_structure();
                    table.find_slot(&guard, spread(key), |_| true).unwrap().handle
                };
                let put = |key| {
                    let guard = table.pin();
                    let entry = Entry::new(key, key, &alive);
                    assert_eq!(put(&table, &guard, spread(key), entry, |_| panic!("full")), None);
                    handle_of(key)
                };
                let handles: Vec<Handle> = (0..50).map(handle_of).collect();
                let read = |wait: &dyn Fn()| {
                    let _guard = table.pin_structure();
                    wait();
                };
                let freed = beside_a_reader(read, || {
                    (0..50).for_each(|key| retire_alone(&table, key));
                    let freed = table.sweep_early(usize::MAX, None).freed;
                    table.seal();
                    table.sweep_early(usize::MAX, None);
                    for key in 100..150 {
                        assert!(!handles.contains(&put(key)), "a reader may still compare it");
                    }
                    freed
                });
                sweep_all(&table, None);
                assert!((200..400).any(|key| handles.contains(&put(key))), "they are used again");
                freed == 50
            });
        }

        #[test]
        fn values_dropped_early_are_finalized_and_a_panic_is_returned() {
            let alive = AtomicU64::new(0);
            eventually(|| {
                let table = filled(10, &alive);
                let read = |wait: &dyn Fn()| {
                    let _guard = table.pin_structure();
                    wait();
                };
                let finalized = RefCell::new(Vec::new());
                let finalizer = |entry: Entry<'_>, label: u8, cost: u64| {
                    finalized.borrow_mut().push((entry.key, label, cost));
                    assert!(entry.key > 4, "{}", entry.key);
                };
                let swept = beside_a_reader(read, || {
                    let guard = table.pin();
                    for key in 0..10 {
                        let terms = Terms { label: 1, ..Terms::NONE };
                        table.retire(&guard, unlink(&table, &guard, key), terms, 0);
                    }
                    drop(guard);
                    table.seal();
                    table.sweep_early(usize::MAX, Some(&finalizer))
                });
                let later = sweep_all(&table, Some(&finalizer));
                assert_eq!((swept.freed + later.freed, alive.load(Relaxed)), (10, 0));
                assert!(swept.panic.is_some() || later.panic.is_some());
                let mut finalized = finalized.take();
                finalized.sort_unstable();
                assert_eq!(finalized, (0..10).map(|key| (key, 1, 1)).collect::<Vec<_>>());
                swept.freed == 10
            });
        }
    }
}
