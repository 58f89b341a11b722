//! Desk: where a thread makes values and retires them, undisturbed.
//!
//! # Protocol
//!
//! Each stripe has one desk. Its *tools* are the open batch of [`limbo`](super::limbo) and a batch of
//! memory from its stock. To sit down is to take the tools out (a swap: from then on
//! they are the thread's alone); to get up is to put them back. Whoever finds the tools gone works
//! with new ones. Whoever finds others' tools in their place when it gets up seals its batch, gives
//! its memory back, and drops the rest. Nobody ever waits for anybody.
//!
//! So a thread that replaces an entry makes the new one and retires the old one at the price of two
//! atomic exchanges on a line that nobody else wants.

use std::ptr;

use super::{
    Guard,
    block::{Owned, Stored},
    limbo::{Batch, Limbo, Retired, Unlinked},
    own,
    pile::Sheet,
};
use crate::sync::{Watched, atomic::Ordering};

/// A desk at which a thread sits; dropping it is getting up.
pub struct Desk<'a, T: Stored> {
    limbo: &'a Limbo<T>,
    stripe: usize,
    /// There until the drop.
    tools: Option<Box<Tools<T>>>,
    /// Whether a batch was sealed here since this thread sat down.
    has_sealed: bool,
}

/// What lies on a desk.
pub(super) struct Tools<T> {
    /// The open batch; never empty while nobody sits there.
    pub(super) batch: Option<Box<Sheet<Batch<T>>>>,
    /// Memory from the stock; never empty.
    pub(super) memory: Option<Box<Sheet<Batch<T>>>>,
    /// An empty batch, to be the next open one.
    spare: Option<Box<Sheet<Batch<T>>>>,
    watched: Watched,
}

impl<'a, T: Stored> Desk<'a, T> {
    pub(super) fn new(limbo: &'a Limbo<T>, stripe: usize) -> Self {
        let tools = &limbo.stripe(stripe).tools;
        // AcqRel: Acquire pairs with the Release in the drop, so that the content is seen; Release is for
        // the thread's last look at a desk that somebody puts in order meanwhile.
        let taken = if cfg!(cortado_mutant = "limbo_shared_batch") {
            tools.load(Ordering::Acquire)
        } else {
            tools.swap(ptr::null_mut(), Ordering::AcqRel)
        };
        // SAFETY: what was there came from `Box::into_raw`, and the swap made it ours.
        let tools = unsafe { own(taken) }.unwrap_or_default();
        tools.watched.write();
        Self { limbo, stripe, tools: Some(tools), has_sealed: false }
    }

    /// Puts a value into a block, in memory of an earlier one if there is any.
    #[inline]
    pub fn make(&mut self, value: T) -> Owned<T> {
        Owned::from(self.boxed(value))
    }

    #[inline]
    fn boxed(&mut self, value: T) -> Box<T> {
        let limbo = self.limbo;
        let tools = self.tools();
        let memory = match &mut tools.memory {
            Some(memory) => memory,
            none => match limbo.take_stock() {
                Some(memory) => none.insert(memory),
                None => return Box::new(value),
            },
        };
        // SAFETY: from the stock.
        let block = unsafe { memory.take_memory() };
        if memory.is_empty() {
            tools.spare = tools.memory.take();
        }
        match block {
            Some(block) => Box::write(block, value),
            None => Box::new(value),
        }
    }

    /// Retires a value of a given cost; it is freed after every guard of this moment is gone.
    ///
    /// The batch is sealed when it is full, or when its cost has come to `seal_at`.
    pub fn retire(
        &mut self,
        guard: &Guard,
        value: Unlinked<T>,
        cost: u64,
        seal_at: u64,
    ) -> Retired {
        let (limbo, stripe) = (self.limbo, self.stripe);
        let tools = self.tools();
        let batch = tools.batch.get_or_insert_with(|| match tools.spare.take() {
            Some(mut spare) => {
                spare.used_again(stripe);
                spare
            }
            None => limbo.batch(stripe),
        });
        if limbo.fill(guard, batch, value, cost) || batch.cost() >= seal_at {
            self.seal();
            return Retired::Sealed;
        }
        Retired::Open
    }

    /// Seals the open batch; returns whether there was one.
    pub(super) fn seal(&mut self) -> bool {
        let batch = self.tools().batch.take();
        let has_sealed = batch.map(|batch| self.limbo.seal(batch)).is_some();
        self.has_sealed |= has_sealed;
        has_sealed
    }

    /// Gives the memory that lies here back to the allocator.
    pub(super) fn give_back_memory(&mut self) {
        let tools = self.tools();
        tools.spare = None;
        if let Some(mut memory) = tools.memory.take() {
            // SAFETY: from the stock.
            unsafe { memory.give_back() };
        }
    }

    /// Returns whether this thread, when it gets up, leaves garbage that nobody could find meanwhile.
    pub fn has_garbage(&self) -> bool {
        self.has_sealed || self.batch().is_some()
    }

    /// Returns the open batch.
    pub(super) fn batch(&self) -> Option<&Batch<T>> {
        Some(self.tools.as_ref()?.batch.as_ref()?)
    }

    fn tools(&mut self) -> &mut Tools<T> {
        self.tools.as_mut().expect("the tools are there until the drop")
    }
}

impl<T: Stored> Drop for Desk<'_, T> {
    fn drop(&mut self) {
        let Some(tools) = self.tools.take() else { return };
        let raw = Box::into_raw(tools);
        // PUT_BACK (AcqRel): Release pairs with the Acquire in `new`, so that the content is seen; Acquire
        // with the Release of the thread's last look, which found nothing here.
        // Relaxed: the other tools are not looked at, and what is sealed is looked for elsewhere.
        let there = self.limbo.stripe(self.stripe).tools.compare_exchange(
            ptr::null_mut(),
            raw,
            PUT_BACK,
            Ordering::Relaxed,
        );
        if there.is_err() {
            // SAFETY: the exchange failed, so `raw` is still ours alone.
            let tools = unsafe { Box::from_raw(raw) };
            if let Some(batch) = tools.batch {
                self.limbo.seal(batch);
            }
            if let Some(memory) = tools.memory {
                // SAFETY: from the stock.
                unsafe { self.limbo.keep(memory) };
            }
        }
    }
}

impl<T> Default for Tools<T> {
    fn default() -> Self {
        Self { batch: None, memory: None, spare: None, watched: Watched::new() }
    }
}

impl<T: Stored> std::fmt::Debug for Desk<'_, T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Desk").field("stripe", &self.stripe).finish_non_exhaustive()
    }
}

// AcqRel, see the drop. With one mutant the next may see the tools unfinished; with the other the thread
// may sleep over them.
const PUT_BACK: Ordering = if cfg!(cortado_mutant = "limbo_relaxed_desk") {
    Ordering::Relaxed
} else if cfg!(cortado_mutant = "waker_blind_desk") {
    Ordering::Release
} else {
    Ordering::AcqRel
};

#[cfg(all(test, not(any(cortado_loom, cortado_shuttle))))]
mod tests {
    use std::ptr;

    use super::*;
    use crate::reclaim::pin;

    fn retire(desk: &mut Desk<'_, u64>, value: Owned<u64>, cost: u64, seal_at: u64) -> Retired {
        // SAFETY: from a block that nobody else knows of.
        let value = unsafe { Unlinked::new(value.into_raw()) };
        desk.retire(&pin(), value, cost, seal_at)
    }

    #[test]
    fn value_is_made_where_an_earlier_one_was() {
        let limbo = Limbo::new(1, 1, 10);
        let first = limbo.desk(0).make(1);
        let address = ptr::from_ref(&*first).addr();
        let _ = retire(&mut limbo.desk(0), first, 1, u64::MAX);
        while limbo.sweep(usize::MAX).waiting > 0 {
            pin().advance();
            std::thread::yield_now();
        }
        let second = limbo.desk(0).make(2);
        assert_eq!((ptr::from_ref(&*second).addr(), *second), (address, 2));
    }

    #[test]
    fn batch_is_sealed_when_it_is_full_or_costly() {
        let limbo = Limbo::new(1, 3, 0);
        let mut desk = limbo.desk(0);
        for cost in [1, 1] {
            assert_eq!(retire(&mut desk, Owned::new(0), cost, 10), Retired::Open);
        }
        assert_eq!(retire(&mut desk, Owned::new(0), 1, 10), Retired::Sealed);
        assert_eq!(retire(&mut desk, Owned::new(0), 9, 10), Retired::Open);
        assert_eq!(retire(&mut desk, Owned::new(0), 1, 10), Retired::Sealed);
        drop(desk);
        assert_eq!((limbo.count(), limbo.cost()), (5, 13));
        assert_eq!((limbo.sealed_count(), limbo.sealed_cost()), (5, 13));
    }

    #[test]
    fn garbage_of_this_sitting_is_known_be_it_sealed_or_not() {
        let limbo = Limbo::new(1, 3, 0);
        let mut desk = limbo.desk(0);
        assert!(!desk.has_garbage() && !desk.seal() && !desk.has_garbage());
        let _ = retire(&mut desk, Owned::new(0), 1, u64::MAX);
        assert!(desk.has_garbage());
        assert!(desk.seal() && desk.has_garbage());
        assert!(!desk.seal() && desk.has_garbage());
        drop(desk);
        let mut desk = limbo.desk(0);
        assert!(!desk.has_garbage());
        assert_eq!(retire(&mut desk, Owned::new(0), 9, 9), Retired::Sealed);
        assert!(desk.has_garbage());
    }

    #[test]
    fn whoever_finds_the_desk_taken_loses_nothing() {
        let limbo = Limbo::new(1, 3, 0);
        let (mut one, mut two) = (limbo.desk(0), limbo.desk(0));
        let _ = retire(&mut one, Owned::new(0), 1, u64::MAX);
        let _ = retire(&mut two, Owned::new(0), 2, u64::MAX);
        drop(one);
        assert_eq!((limbo.count(), limbo.sealed_count()), (1, 0));
        drop(two);
        assert_eq!((limbo.count(), limbo.cost(), limbo.sealed_count()), (2, 3, 1));
    }
}
