//! Retiring entries, and freeing them when no guard can see them any more.
//!
//! A retired handle goes into the bag of the thread's stripe. A full bag is sealed; a sweep begins one grace
//! period for all sealed bags, which wait for it in [lines](crate::reclaim::line). When it is over,
//! the values in the bag's cells are dropped, and the bag is a magazine of free cells as it is. So a
//! table at its limit allocates nothing.

use std::{
    any::Any,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
};

use super::{Table, Unlinked, bucket::Word};
use crate::{
    reclaim::{Grace, Guard},
    slab::Handle,
    util::drop_panic,
};

/// What a sweep found.
#[derive(Debug, Default)]
pub struct Swept {
    /// Values dropped.
    pub freed: usize,
    /// Bags that still wait.
    pub waiting: usize,
    /// What the first destructor that panicked did so with.
    pub panic: Option<Box<dyn Any + Send>>,
}

impl<T> Table<T> {
    /// Retires an entry: it is dropped, and its cell used again, by a sweep when every guard of this moment is
    /// gone. Returns whether a sweep has something to do.
    pub fn retire(&self, _: &Guard, entry: Unlinked, stripe: usize) -> bool {
        self.slab.collect(entry.0, true, stripe, &self.sealed)
    }

    /// The same for a cell whose value was moved out, and whose handle readers may still compare.
    pub(super) fn retire_husk(&self, handle: Handle, stripe: usize) {
        self.slab.collect(handle, false, stripe, &self.sealed);
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
        let mut bags = self.slab.take_bags(&self.sealed).peekable();
        // Begun after the bags were taken, whose handles were unlinked before they were sealed.
        let grace = bags.peek().is_some().then(|| Grace::begin(self.domain));
        let numbers = bags.map(|bag| {
            #[cfg(any(cortado_loom, cortado_shuttle))]
            for (handle, _) in bag.iter() {
                crate::reclaim::note_sealed(handle.raw() as usize);
            }
            bag.into_number()
        });
        let size = |&number: &u32| {
            let bag = self.slab.bag_of(number);
            let count = bag.as_ref().map_or(0, |bag| bag.iter().filter(|&(_, full)| full).count());
            bag.map(crate::slab::Magazine::into_number);
            count
        };
        let mut swept = Swept::default();
        let progress = self.lines.sweep(numbers, grace, max, size, |number| {
            let _ = self.free(number).map_err(|panic| match &swept.panic {
                None => swept.panic = Some(panic),
                Some(_) => drop_panic(panic),
            });
        });
        (swept.freed, swept.waiting) = (progress.freed, progress.waiting);
        swept
    }

    /// Drops the values of a bag whose grace period is over, and makes its cells free.
    fn free(&self, number: u32) -> Result<(), Box<dyn Any + Send>> {
        let Some(bag) = self.slab.bag_of(number) else { return Ok(()) };
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
        let live: Vec<Handle> = self
            .array
            .iter()
            .flat_map(|bucket| bucket.control().taken().map(|slot| bucket.word(slot)))
            .filter(|word| !word.is_dying())
            .filter_map(Word::handle)
            .collect();
        let mut first = None;
        let mut note = |panic| match &first {
            None => first = Some(panic),
            Some(_) => drop_panic(panic),
        };
        for handle in live {
            // SAFETY: a published entry is in one slot; `&mut self` says that no reader is left.
            let drop_value = || unsafe { self.slab.drop_value(handle) };
            let _ = catch_unwind(AssertUnwindSafe(drop_value)).map_err(&mut note);
        }
        self.seal();
        let waiting: Vec<u32> = self.lines.drain().collect();
        let sealed: Vec<u32> =
            self.slab.take_bags(&self.sealed).map(|bag| bag.into_number()).collect();
        for number in waiting.into_iter().chain(sealed) {
            let _ = self.free(number).map_err(&mut note);
        }
        if let Some(panic) = first
            && !std::thread::panicking()
        {
            resume_unwind(panic);
        }
    }
}
