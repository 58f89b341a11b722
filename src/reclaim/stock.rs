//! Stock: memory of freed values, kept for the next ones.
//!
//! A full cache frees an entry for every one that it makes, often on another thread, which is what
//! general allocators are slowest at. So the memory of freed values goes to the inserters, in packs.
//!
//! # Protocol
//!
//! Packs lie on one list, the *shelf*; who needs one takes the whole shelf, keeps one pack, and puts
//! the rest back. At every moment a pack belongs to exactly one of: a desk, a thread, the shelf. Nobody
//! ever waits; whoever finds nothing asks the allocator.
//!
//! A block comes here only after the grace period of its value, so it is as good as new memory.

use std::{mem::MaybeUninit, ptr};

use crossbeam_utils::CachePadded;

use super::own;
use crate::sync::{
    IS_MODEL, Watched,
    atomic::{AtomicPtr, AtomicUsize, Ordering},
};

/// Memory for values of `T`, none of which holds one.
pub struct Stock<T> {
    shelf: CachePadded<AtomicPtr<Pack<T>>>,
    /// Packs on the shelf, or a few more.
    shelved: AtomicUsize,
    /// The most packs on the shelf.
    most: usize,
}

/// Memory for one value.
type Block<T> = Box<MaybeUninit<T>>;

/// Up to [`BLOCKS`] blocks; never empty on the shelf.
pub struct Pack<T> {
    blocks: [Option<Block<T>>; BLOCKS],
    filled: usize,
    watched: Watched,
    /// The next pack of the shelf.
    next: *mut Pack<T>,
}

// SAFETY: a pack holds memory without values, and its `next` is used only by whoever owns it; a block
// is handed from thread to thread as any box is.
unsafe impl<T> Send for Pack<T> {}
// SAFETY: a shared pack lets nobody at its blocks.
unsafe impl<T> Sync for Pack<T> {}

impl<T> Stock<T> {
    /// Makes an empty stock that keeps about `most` blocks, and none if that is 0.
    pub fn new(most: usize) -> Self {
        Self {
            shelf: CachePadded::new(AtomicPtr::new(ptr::null_mut())),
            shelved: AtomicUsize::new(0),
            most: most.div_ceil(BLOCKS),
        }
    }

    /// Takes a pack.
    pub fn take(&self) -> Option<Box<Pack<T>>> {
        // Relaxed: a glance, so that an empty shelf is not written to.
        if self.shelf.load(Ordering::Relaxed).is_null() {
            return None;
        }
        self.take_from_shelf()
    }

    /// Keeps blocks for later, as far as there is room for them.
    pub fn put(&self, blocks: impl Iterator<Item = Block<T>>) {
        let mut pack: Option<Box<Pack<T>>> = None;
        for block in blocks {
            // Relaxed: a limit that is passed by a few packs is still one.
            if self.shelved.load(Ordering::Relaxed) >= self.most {
                continue;
            }
            let filling = pack.get_or_insert_with(Box::default);
            filling.watched.write();
            filling.push(block);
            if filling.filled == BLOCKS
                && let Some(pack) = pack.take()
            {
                self.shelve(pack);
            }
        }
        if let Some(pack) = pack {
            self.shelve(pack);
        }
    }

    /// Returns the bytes of all that is on the shelf.
    pub fn bytes(&self) -> usize {
        // Relaxed: a figure.
        let packs = self.shelved.load(Ordering::Relaxed);
        packs * (size_of::<Pack<T>>() + BLOCKS * size_of::<T>())
    }

    /// Takes back a pack that was not used up.
    pub fn give_back(&self, pack: Box<Pack<T>>) {
        if !pack.is_empty() {
            self.shelve(pack);
        }
    }

    fn shelve(&self, pack: Box<Pack<T>>) {
        self.shelved.fetch_add(1, Ordering::Relaxed); // Relaxed: see `put`.
        let raw = Box::into_raw(pack);
        self.push(raw, raw);
    }

    /// Puts a chain of packs on the shelf.
    fn push(&self, first: *mut Pack<T>, last: *mut Pack<T>) {
        // Relaxed: only compared, never read through. The shelf is only ever taken whole, so a head
        // that comes back (ABA) is harmless.
        let mut head = self.shelf.load(Ordering::Relaxed);
        loop {
            // SAFETY: the chain is ours until the exchange below succeeds.
            unsafe { (*last).next = head };
            // SHELVE (Release): pairs with the Acquire in `take_from_shelf`. Each push continues the release
            // sequence of the pushes below it, so one Acquire sees all packs.
            // Relaxed: as for the first load.
            match self.shelf.compare_exchange_weak(head, first, SHELVE, Ordering::Relaxed) {
                Ok(_) => return,
                Err(seen) => head = seen,
            }
        }
    }

    #[cold]
    fn take_from_shelf(&self) -> Option<Box<Pack<T>>> {
        // Acquire: pairs with the Release in `push`, so that the content of every pack is seen.
        let taken = if cfg!(cortado_mutant = "stock_take_by_load") {
            self.shelf.load(Ordering::Acquire)
        } else {
            self.shelf.swap(ptr::null_mut(), Ordering::Acquire)
        };
        // SAFETY: what was there came from `Box::into_raw`, and the swap made it ours.
        let mut pack = unsafe { own(taken) }?;
        self.shelved.fetch_sub(1, Ordering::Relaxed); // Relaxed: see `put`.
        let rest = std::mem::replace(&mut pack.next, ptr::null_mut());
        if !rest.is_null() {
            let mut last = rest;
            loop {
                // SAFETY: the whole chain is ours, and its packs came from `Box::into_raw`.
                let next = unsafe { (*last).next };
                if next.is_null() {
                    break;
                }
                last = next;
            }
            self.push(rest, last);
        }
        pack.watched.write();
        Some(pack)
    }
}

impl<T> Pack<T> {
    /// Takes a block out.
    #[inline]
    pub fn pop(&mut self) -> Option<Block<T>> {
        self.filled = self.filled.checked_sub(1)?;
        self.blocks.get_mut(self.filled)?.take()
    }

    /// Returns whether no block is left.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.filled == 0
    }

    fn push(&mut self, block: Block<T>) {
        self.blocks[self.filled] = Some(block);
        self.filled += 1;
    }
}

impl<T> Default for Pack<T> {
    fn default() -> Self {
        Self {
            blocks: [const { None }; BLOCKS],
            filled: 0,
            watched: Watched::new(),
            next: ptr::null_mut(),
        }
    }
}

impl<T> Drop for Stock<T> {
    fn drop(&mut self) {
        let mut next = self.shelf.swap(ptr::null_mut(), Ordering::Relaxed); // Relaxed: `&mut self`.
        // SAFETY: the list is ours, each pack came from `Box::into_raw`.
        while let Some(pack) = unsafe { own(next) } {
            next = pack.next;
        }
    }
}

impl<T> std::fmt::Debug for Stock<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Stock").field("most", &self.most).finish_non_exhaustive()
    }
}

/// Blocks of a pack.
pub const BLOCKS: usize = if IS_MODEL { 2 } else { 32 };

// Release, see `push`. The mutant pushes with Relaxed: whoever takes the pack may see it unfilled.
const SHELVE: Ordering =
    if cfg!(cortado_mutant = "stock_relaxed_push") { Ordering::Relaxed } else { Ordering::Release };

#[cfg(all(test, not(any(cortado_loom, cortado_shuttle))))]
mod tests {
    use std::{collections::HashSet, iter};

    use super::*;

    fn blocks(count: usize) -> impl Iterator<Item = Block<u64>> {
        iter::repeat_with(|| Block::new(MaybeUninit::uninit())).take(count)
    }

    fn take_all(stock: &Stock<u64>) -> Vec<Block<u64>> {
        let mut all = Vec::new();
        while let Some(mut pack) = stock.take() {
            all.extend(iter::from_fn(|| pack.pop()));
            assert!(pack.is_empty());
        }
        all
    }

    #[test]
    fn what_is_put_is_taken_once() {
        let stock = Stock::new(1000);
        assert!(stock.take().is_none());
        stock.put(blocks(BLOCKS + 3));
        assert!(stock.bytes() > BLOCKS * 8);
        let taken = take_all(&stock);
        let addresses: HashSet<_> = taken.iter().map(|block| ptr::from_ref(&**block)).collect();
        assert_eq!((taken.len(), addresses.len()), (BLOCKS + 3, BLOCKS + 3));
        assert_eq!(stock.bytes(), 0);
    }

    #[test]
    fn stock_keeps_no_more_than_it_was_told() {
        let stock = Stock::new(2 * BLOCKS);
        stock.put(blocks(5 * BLOCKS));
        assert_eq!(take_all(&stock).len(), 2 * BLOCKS);
        let none = Stock::new(0);
        none.put(blocks(3));
        assert!(none.take().is_none());
    }

    #[test]
    fn pack_that_was_not_used_up_comes_again() {
        let stock = Stock::new(10);
        stock.put(blocks(2));
        let mut pack = stock.take().unwrap();
        let first = pack.pop();
        stock.give_back(pack);
        let mut pack = stock.take().unwrap();
        assert!(first.is_some() && pack.pop().is_some() && pack.pop().is_none());
        stock.give_back(pack);
        assert!(stock.take().is_none());
    }

    #[test]
    fn no_block_of_many_threads_is_anybody_elses() {
        let stock = Stock::new(1000);
        std::thread::scope(|scope| {
            for thread in 0..4u64 {
                let stock = &stock;
                scope.spawn(move || {
                    for round in 0..2000 {
                        let mut pack = stock.take().unwrap_or_default();
                        let mut mine: Vec<_> = blocks(round % 7).collect();
                        mine.extend(iter::from_fn(|| pack.pop()));
                        for (i, block) in mine.iter_mut().enumerate() {
                            block.write(thread << 32 | i as u64);
                        }
                        for (i, block) in mine.iter().enumerate() {
                            // SAFETY: written above.
                            let seen = unsafe { block.assume_init_ref() };
                            assert_eq!(*seen, thread << 32 | i as u64);
                        }
                        stock.put(mine.into_iter());
                    }
                });
            }
        });
    }
}
