//! Retiring entries, and freeing them when no guard can see them any more.
//!
//! A retired handle goes into the bag of the thread's stripe. A full bag is sealed; a sweep begins one grace
//! period for all sealed bags, which wait for it in [lines](crate::reclaim::line). When it is over,
//! the values in the bag's cells are dropped, and the bag is a magazine of free cells as it is.

use std::{
    any::Any,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
};

use super::{Table, Unlinked, array::Array, resize::has_moved};
use crate::{
    reclaim::{Grace, Guard},
    slab::{Handle, Magazine},
    sync::atomic::Ordering::*,
    util::drop_panic,
};

/// What a sweep found.
#[derive(Debug, Default)]
pub struct Swept {
    /// Values dropped.
    pub freed: usize,
    /// Bags, and arrays of buckets, that still wait.
    pub waiting: usize,
    /// What the first destructor that panicked did so with.
    pub panic: Option<Box<dyn Any + Send>>,
}

impl<T> Table<T> {
    /// Retires an entry: it is dropped, and its cell used again, by a sweep when every guard of this moment is
    /// gone. Returns whether a sweep has something to do.
    ///
    /// # Panics
    ///
    /// Panics if the entry is another table's.
    pub fn retire(&self, _: &Guard, entry: Unlinked, stripe: usize) -> bool {
        self.check(&entry);
        // SAFETY: the handle is of this table's slab, and there is one `Unlinked` of it, which goes here.
        let is_sealed = unsafe { self.slab.collect(entry.handle, true, stripe, &self.sealed) };
        // A cell without a value, which was given up, asks for no sweep itself.
        is_sealed || !self.sealed.is_empty()
    }

    /// The same for a cell whose value was moved out, and whose handle readers may still compare.
    pub(super) fn retire_husk(&self, handle: Handle, stripe: usize) {
        // SAFETY: the handle is of this table's slab, and its `Fresh` gives it back once.
        unsafe { self.slab.collect(handle, false, stripe, &self.sealed) };
    }

    /// Seals bags that are not full; returns how many.
    pub fn seal(&self) -> usize {
        self.slab.seal(&self.sealed)
    }

    /// Drops what no guard can see any more, until `max` values are dropped.
    ///
    /// Runs destructors: call it unpinned. A panic of one is caught, the others run, and the first is
    /// handed back.
    pub fn sweep(&self, max: usize) -> Swept {
        // SAFETY: of this table's slab; each becomes a number below.
        let mut bags = unsafe { self.slab.take_bags(&self.sealed) }.peekable();
        let mut arrays = self.old_arrays.take().peekable();
        // Begun after both were taken, which were unlinked before: one for both, for it interrupts every thread of
        // the process.
        let (has_bags, has_arrays) = (bags.peek().is_some(), arrays.peek().is_some());
        let grace = (has_bags || has_arrays).then(|| Grace::begin(self.domain));
        if grace.is_none() {
            // A collector that needs help may have no other.
            self.pin().advance();
        }
        let of_arrays = grace.clone().filter(|_| has_arrays);
        let old = self.array_lines.sweep(arrays, of_arrays, usize::MAX, |_| 1, drop);
        let grace = grace.filter(|_| has_bags);
        let numbers = bags.map(|bag| {
            #[cfg(any(cortado_loom, cortado_shuttle))]
            for (handle, _) in bag.iter() {
                crate::reclaim::note_sealed(handle.raw() as usize);
            }
            bag.into_number()
        });
        let size = |&number: &u32| {
            // SAFETY: a line has each number once, and it becomes a number again below.
            let bag = unsafe { self.slab.bag_of(number) };
            let count = bag.as_ref().map_or(0, |bag| bag.iter().filter(|&(_, full)| full).count());
            bag.map(Magazine::into_number);
            count
        };
        let mut swept = Swept::default();
        let progress = self.lines.sweep(numbers, grace, max, size, |number| {
            // SAFETY: its grace period is over, and the line gave the number to this call alone.
            let freed = unsafe { self.free(number) };
            let _ = freed.map_err(|panic| match &swept.panic {
                None => swept.panic = Some(panic),
                Some(_) => drop_panic(panic),
            });
        });
        (swept.freed, swept.waiting) = (progress.freed, progress.waiting + old.waiting);
        swept
    }

    /// Drops the values of a bag, and makes its cells free.
    ///
    /// # Safety
    ///
    /// * The number is of a bag of retired handles, of this table, and is used once.
    /// * Its grace period is over.
    unsafe fn free(&self, number: u32) -> Result<(), Box<dyn Any + Send>> {
        // SAFETY: the caller's promise.
        let Some(bag) = (unsafe { self.slab.bag_of(number) }) else { return Ok(()) };
        let mut result = Ok(());
        for (handle, has_value) in bag.iter() {
            if has_value {
                // SAFETY: the entry was unlinked, its grace period is over, and it is in this bag only.
                let drop_value = || unsafe { self.slab.drop_value(handle) };
                if let Err(panic) = catch_unwind(AssertUnwindSafe(drop_value)) {
                    match &result {
                        Ok(()) => result = Err(panic),
                        Err(_) => drop_panic(panic),
                    }
                }
            }
            #[cfg(any(cortado_loom, cortado_shuttle))]
            crate::reclaim::note_freed(handle.raw() as usize);
        }
        if cfg!(any(cortado_loom, cortado_shuttle)) {
            // Cells never come back in a model, so that no handle comes twice.
            bag.into_number();
        }
        result
    }
}

impl<T> Drop for Table<T> {
    fn drop(&mut self) {
        let mut first = None;
        let mut note = |panic| match &first {
            None => first = Some(panic),
            Some(_) => drop_panic(panic),
        };
        let root = self.root.load(Relaxed); // Relaxed: `&mut self`.
        // SAFETY: it came from `Box::into_raw`; those before it wait in `old_arrays` and the lines.
        let mut root = unsafe { Box::from_raw(root) };
        let next = root.take_next();
        let drop_value = |handle| {
            // SAFETY: an entry is in one slot of a bucket that rules; `&mut self` says that no reader is left.
            let drop_value = || unsafe { self.slab.drop_value(handle) };
            let _ = catch_unwind(AssertUnwindSafe(drop_value)).map_err(&mut note);
        };
        ruled(&root, next.as_deref()).for_each(drop_value);
        self.seal();
        let waiting: Vec<u32> = self.lines.drain().collect();
        // SAFETY: of this table's slab; each becomes a number here.
        let sealed = unsafe { self.slab.take_bags(&self.sealed) }.map(Magazine::into_number);
        for number in waiting.into_iter().chain(sealed) {
            // SAFETY: no reader is left, and each number is in one of the two.
            let _ = unsafe { self.free(number) }.map_err(&mut note);
        }
        if let Some(panic) = first
            && !std::thread::panicking()
        {
            resume_unwind(panic);
        }
    }
}

/// Returns the handles of all entries of a table that is dropped.
fn ruled<'a>(root: &'a Array, next: Option<&'a Array>) -> impl Iterator<Item = Handle> + 'a {
    let has_moved = move |index| next.is_some_and(|next| has_moved(root, next, index));
    let unmoved = (0..root.count()).filter(move |&index| !has_moved(index));
    let unmoved = unmoved.map(|index| root.at(index));
    // Of the children, those rule whose units have moved. The others may be filled already.
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
