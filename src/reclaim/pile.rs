//! Pile: a lock-free list that is pushed sheet by sheet and taken whole.
//!
//! # Protocol
//!
//! A push puts a sheet on top by compare and exchange; whoever takes swaps the top for nothing and owns
//! every sheet from then on, and may put some back the way they came. Since nobody takes a single
//! sheet from a pile that others use, a top that comes back (ABA) is harmless. Nobody ever waits.

use std::{
    ops::{Deref, DerefMut},
    ptr,
};

use super::{own, recheck};
use crate::sync::{
    Watched,
    atomic::{AtomicPtr, Ordering},
};

/// A list of sheets that anybody may push and take.
pub struct Pile<N> {
    top: AtomicPtr<Sheet<N>>,
}

/// What a pile is made of.
pub struct Sheet<N> {
    content: N,
    watched: Watched,
    /// The sheet below, in a pile or a chain.
    next: *mut Sheet<N>,
}

/// Sheets that were taken from a pile, and belong to the taker.
pub struct Chain<N> {
    first: *mut Sheet<N>,
}

// SAFETY: a sheet's `next` is only used by whoever owns the sheet.
unsafe impl<N: Send> Send for Sheet<N> {}
// SAFETY: a shared sheet shows its content and no more.
unsafe impl<N: Sync> Sync for Sheet<N> {}
// SAFETY: a pile hands its sheets from thread to thread, and shows nobody what is in them.
unsafe impl<N: Send> Send for Pile<N> {}
// SAFETY: as above.
unsafe impl<N: Send> Sync for Pile<N> {}

impl<N> Sheet<N> {
    /// Makes a sheet.
    pub fn new(content: N) -> Box<Self> {
        Box::new(Self { content, watched: Watched::new(), next: ptr::null_mut() })
    }
}

impl<N> Deref for Sheet<N> {
    type Target = N;

    #[inline]
    fn deref(&self) -> &N {
        &self.content
    }
}

impl<N> DerefMut for Sheet<N> {
    #[inline]
    fn deref_mut(&mut self) -> &mut N {
        self.watched.write();
        &mut self.content
    }
}

impl<N> Pile<N> {
    /// Makes an empty pile.
    pub fn new() -> Self {
        Self { top: AtomicPtr::new(ptr::null_mut()) }
    }

    /// Puts a sheet on top.
    pub fn push(&self, sheet: Box<Sheet<N>>) {
        let raw = Box::into_raw(sheet);
        self.push_all(raw, raw);
    }

    /// Takes every sheet, the newest first.
    pub fn take(&self) -> Chain<N> {
        // Relaxed: a glance, so that an empty pile is not written to.
        if self.top.load(Ordering::Relaxed).is_null() {
            return Chain { first: ptr::null_mut() };
        }
        // Acquire: pairs with the Release in `push_all`, so that the content of every sheet is seen.
        let first = if mutant!("pile_take_by_load") {
            self.top.load(Ordering::Acquire)
        } else {
            self.top.swap(ptr::null_mut(), Ordering::Acquire)
        };
        Chain { first }
    }

    /// Returns whether there is a sheet, to the thread that is about to sleep: it sees every push but those that
    /// are to see that (see [`waker`](crate::waker)).
    pub fn recheck(&self) -> bool {
        if mutant!("waker_glances_at_pile") {
            return !self.top.load(Ordering::Relaxed).is_null();
        }
        recheck(&self.top)
    }

    /// Puts the sheets of a chain on top.
    pub fn put_back(&self, mut chain: Chain<N>) {
        let first = std::mem::replace(&mut chain.first, ptr::null_mut());
        if first.is_null() {
            return;
        }
        let mut last = first;
        loop {
            // SAFETY: the chain's sheets came from `Box::into_raw` and are ours.
            let next = unsafe { (*last).next };
            if next.is_null() {
                break;
            }
            last = next;
        }
        self.push_all(first, last);
    }

    /// Puts the caller's sheets, from `first` down to `last`, on top.
    fn push_all(&self, first: *mut Sheet<N>, last: *mut Sheet<N>) {
        // Relaxed: only compared, never read through.
        let mut top = self.top.load(Ordering::Relaxed);
        loop {
            // SAFETY: the sheets are ours until the exchange below succeeds.
            let sheet = unsafe { &mut *last };
            sheet.watched.write();
            sheet.next = top;
            // AcqRel: Release pairs with the Acquire in `take`. Each push continues the release
            // sequence of the pushes below it, so one Acquire sees all sheets. Acquire pairs with the
            // Release in `recheck`.
            // Relaxed: as for the first load.
            let order = ordering!(
                AcqRel,
                mutant("pile_relaxed_push") => Relaxed,
                mutant("waker_blind_push") => Release
            );
            match self.top.compare_exchange_weak(top, first, order, Ordering::Relaxed) {
                Ok(_) => return,
                Err(seen) => top = seen,
            }
        }
    }
}

impl<N> Default for Pile<N> {
    fn default() -> Self {
        Self::new()
    }
}

impl<N> Drop for Pile<N> {
    fn drop(&mut self) {
        drop(self.take());
    }
}

impl<N> Chain<N> {
    /// Returns whether no sheet is left.
    pub fn is_empty(&self) -> bool {
        self.first.is_null()
    }
}

impl<N> Iterator for Chain<N> {
    type Item = Box<Sheet<N>>;

    fn next(&mut self) -> Option<Self::Item> {
        // SAFETY: the chain's sheets came from `Box::into_raw` and are ours.
        let mut sheet = unsafe { own(self.first) }?;
        sheet.watched.write();
        self.first = std::mem::replace(&mut sheet.next, ptr::null_mut());
        Some(sheet)
    }
}

impl<N> Drop for Chain<N> {
    fn drop(&mut self) {
        self.for_each(drop);
    }
}

impl<N> std::fmt::Debug for Pile<N> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pile").finish_non_exhaustive()
    }
}

impl<N> std::fmt::Debug for Chain<N> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Chain").finish_non_exhaustive()
    }
}

impl<N: std::fmt::Debug> std::fmt::Debug for Sheet<N> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.content.fmt(f)
    }
}

#[cfg(all(test, not(any(cortado_loom, cortado_shuttle))))]
mod tests {
    use super::*;

    fn content(pile: &Pile<u32>) -> Vec<u32> {
        pile.take().map(|sheet| **sheet).collect()
    }

    #[test]
    fn pile_is_taken_whole_and_newest_first() {
        let pile = Pile::new();
        assert!(content(&pile).is_empty());
        (1..4).for_each(|i| pile.push(Sheet::new(i)));
        assert_eq!(content(&pile), [3, 2, 1]);
        assert!(content(&pile).is_empty());
    }

    #[test]
    fn a_recheck_finds_a_sheet() {
        let pile = Pile::new();
        assert!(!pile.recheck());
        pile.push(Sheet::new(1));
        assert!(pile.recheck() && pile.recheck());
        assert_eq!(content(&pile), [1]);
        assert!(!pile.recheck());
    }

    #[test]
    fn rest_of_a_chain_goes_back_on_top() {
        let pile = Pile::new();
        (1..4).for_each(|i| pile.push(Sheet::new(i)));
        let mut chain = pile.take();
        assert_eq!(**chain.next().unwrap(), 3);
        pile.push(Sheet::new(4));
        pile.put_back(chain);
        assert_eq!(content(&pile), [2, 1, 4]);
        pile.put_back(pile.take());
        assert!(content(&pile).is_empty());
    }

    #[test]
    fn sheets_are_dropped_with_pile_and_chain() {
        let counted = std::sync::Arc::new(());
        let pile = Pile::new();
        (0..5).for_each(|_| pile.push(Sheet::new(counted.clone())));
        let mut chain = pile.take();
        drop(chain.next());
        assert_eq!(std::sync::Arc::strong_count(&counted), 5);
        pile.push(Sheet::new(counted.clone()));
        drop(chain);
        assert_eq!(std::sync::Arc::strong_count(&counted), 2);
        drop(pile);
        assert_eq!(std::sync::Arc::strong_count(&counted), 1);
    }

    #[test]
    fn no_sheet_of_many_threads_is_lost_or_taken_twice() {
        let pile = Pile::new();
        let taken: Vec<u32> = std::thread::scope(|scope| {
            let work = |thread: u32| {
                let mut mine = Vec::new();
                for i in 0..5_000 {
                    pile.push(Sheet::new(thread << 16 | i));
                    if i % 3 == 0 {
                        let mut chain = pile.take();
                        mine.extend(chain.next().map(|sheet| **sheet));
                        pile.put_back(chain);
                    }
                }
                mine
            };
            let threads: Vec<_> = (0..4).map(|thread| scope.spawn(move || work(thread))).collect();
            threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
        });
        let mut all: Vec<u32> = taken.into_iter().chain(content(&pile)).collect();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), 20_000);
    }
}
