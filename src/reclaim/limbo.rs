//! Limbo lists: queues of retired items that wait for their grace periods.
//!
//! # Protocol
//!
//! A sweep takes a list out of its cell by a swap and owns it from then on. It appends its new
//! items, removes items from the head whose grace period has ended, puts the list back, and only
//! then frees the removed items. It continues with the next list until it has freed as much as it
//! may.
//!
//! Behind a period that has not ended, a sweep may release items *early*: items of a later period
//! that has ended, and items that no pin of their period protects, as the caller decides. Each item
//! is examined once; an item that is not released then is nearly always freed when its period ends.
//!
//! A sweep skips a list that another sweep has taken out. A thread that is preempted while it owns
//! a list blocks that list only. A sweep that has new items and finds all lists taken out puts a
//! new list into the first cell; the sweep that returns the cell's own list merges the two. No
//! thread waits.
//!
//! # Orderings
//!
//! * Release of the CAS that puts a list back ↔ Acquire of the swap: the content of the list.
//! * The recheck of a thread that is about to sleep, and a sweep that runs concurrently: see
//!   [`recheck`].

use std::{collections::VecDeque, ptr};

use crossbeam_utils::CachePadded;

use super::Grace;
use crate::primitives::{own, recheck};
use crate::sync::{
    IS_MODEL, Watched,
    atomic::{AtomicPtr, AtomicUsize, Ordering},
};

/// Items that a sweep removes from a list before it frees them. So many that the list is seldom
/// taken out, and that a writer's sweep takes it out once.
const ITEMS_AT_ONCE: usize = if IS_MODEL { 1 } else { 64 };
/// Lists of a structure with many stripes, at most.
const MAX_LISTS: usize = if IS_MODEL { 2 } else { 8 };

/// Queues of items that wait for their grace periods.
#[derive(Debug)]
pub struct LimboLists<P> {
    cells: Box<[CachePadded<LimboCell<P>>]>,
}

/// The place of a list while no sweep has taken it out.
#[derive(Debug)]
struct LimboCell<P> {
    /// Null while a sweep owns the list.
    list: AtomicPtr<LimboList<P>>,
    /// The number of items in the list when it was put back last.
    waiting: AtomicUsize,
}

/// A queue of items, nearly in the order in which their grace periods end.
struct LimboList<P> {
    waiting: VecDeque<Waiting<P>>,
    /// The number of items at the head that were examined and wait until their periods end.
    examined: usize,
    /// The index of the item that has the period of the next item to be examined.
    period: usize,
    watched: Watched,
}

/// An item, with its period if it is the first item of that period. An item without one waits for
/// the nearest period before it.
type Waiting<P> = (Option<Grace>, P);

/// Decides whether an item may be released although its grace period has not ended: whether no pin
/// of the period protects it.
pub type MayGo<'a, P> = &'a dyn Fn(&P, &Grace) -> bool;

/// Why an item is released.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReleaseReason {
    /// Its grace period has ended.
    Ended,
    /// Its grace period has not ended, but the caller decided that no pin protects the item.
    Early,
}

/// The result of a sweep.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Values freed, as `size` counts them.
    pub freed: usize,
    /// Items left in the visited lists, including those that other sweeps put there.
    pub waiting: usize,
}

// SAFETY: a list moves between threads together with its items, and one thread at a time owns it.
unsafe impl<P: Send> Send for LimboLists<P> {}
// SAFETY: as above.
unsafe impl<P: Send> Sync for LimboLists<P> {}

impl<P> LimboLists<P> {
    /// Makes an empty list for each stripe, but at most `MAX_LISTS`.
    pub fn new(stripes: usize) -> Self {
        let cells = (0..stripes.clamp(1, MAX_LISTS)).map(|_| CachePadded::default());
        Self { cells: cells.collect() }
    }

    /// Adds items that wait for `grace`, and frees items whose period has ended, until `max` values
    /// are freed. `size` returns the number of values of an item. `may_go`, if given, decides
    /// whether an item whose period has not ended may be released early.
    ///
    /// All memory of the new items must have been unlinked before the period began. Without a
    /// period there must be no new items.
    pub fn sweep(
        &self,
        items: impl Iterator<Item = P>,
        grace: Option<Grace>,
        max: usize,
        size: impl Fn(&P) -> usize,
        may_go: Option<MayGo<'_, P>>,
        mut free: impl FnMut(P, ReleaseReason),
    ) -> Progress {
        let mut progress = Progress::default();
        let has_news = grace.is_some();
        let mut news = Some((items, grace)).filter(|_| has_news);
        for (index, cell) in self.cells.iter().enumerate() {
            // Relaxed: a hint that saves a swap. Most items are in the first list.
            if index > 0 && news.is_none() && cell.waiting.load(Ordering::Relaxed) == 0 {
                continue;
            }
            while let Some(mut list) = cell.take() {
                list.watched.write();
                if let Some((items, grace)) = news.take() {
                    list.queue(items, grace);
                }
                // Freed after the list is back in its cell: destructors may take long, and the list
                // must stay available to other sweeps.
                let mut ripe = [const { None }; ITEMS_AT_ONCE];
                let (mut taken, mut count) = (0, progress.freed);
                while taken < ripe.len()
                    && count < max
                    && let Some(item) = list.take(may_go)
                {
                    count += size(&item.0);
                    ripe[taken] = Some(item);
                    taken += 1;
                }
                let left = list.waiting.len();
                // The list may have been merged with one that another sweep left there, and only
                // this sweep knows of that.
                let there = cell.put_back(list);
                let waiting = if mutant!("eventcount_forgets_others") { left } else { there };
                progress.freed = count;
                ripe.into_iter().flatten().for_each(|(item, reason)| free(item, reason));
                if taken < ITEMS_AT_ONCE || count >= max {
                    progress.waiting += waiting;
                    break;
                }
            }
            if progress.freed >= max {
                break;
            }
        }
        if let Some((items, grace)) = news {
            // All lists are taken out.
            let mut list = Box::<LimboList<P>>::default();
            list.queue(items, grace);
            progress.waiting += self.cells[0].put_back(list);
        }
        progress
    }

    /// Rechecks whether any item waits, for a thread that is about to sleep; see
    /// [`eventcount`](crate::primitives::eventcount).
    pub fn recheck(&self) -> bool {
        self.cells.iter().any(|cell| recheck(&cell.list) && cell.is_waiting())
    }

    /// Removes all items.
    pub fn drain(&mut self) -> impl Iterator<Item = P> {
        self.cells.iter_mut().flat_map(|cell| {
            // Relaxed: `&mut self` means that all other accesses happened before.
            let list = cell.list.swap(ptr::null_mut(), Ordering::Relaxed);
            // SAFETY: the pointer came from `Box::into_raw`, and `&mut self` makes it this
            // thread's.
            let list = unsafe { own(list) };
            list.into_iter().flat_map(|list| list.waiting.into_iter().map(|(_, item)| item))
        })
    }
}

impl<P> LimboCell<P> {
    /// Takes the list out; returns `None` if another sweep owns it.
    fn take(&self) -> Option<Box<LimboList<P>>> {
        // AcqRel: Acquire pairs with the Release in `put_back`, so that the list's content is
        // visible; Release pairs with the Acquire there, for a recheck that runs beside a sweep.
        let list = if mutant!("table_limbo_by_load") {
            self.list.load(Ordering::Acquire)
        } else {
            self.list.swap(ptr::null_mut(), Ordering::AcqRel)
        };
        // SAFETY: the pointer is null or came from `Box::into_raw`, and the swap made it this
        // thread's.
        unsafe { own(list) }
    }

    /// Puts a list back, merged with a list that is there; returns its number of items.
    fn put_back(&self, mut list: Box<LimboList<P>>) -> usize {
        loop {
            let waiting = list.waiting.len();
            // Relaxed: a hint.
            self.waiting.store(waiting, Ordering::Relaxed);
            let raw = Box::into_raw(list);
            // AcqRel: Release pairs with the Acquire in `take`, and Acquire with the Release in
            // `recheck`.
            // Relaxed: `take` acquires the other list.
            let order = ordering!(
                AcqRel,
                mutant("table_relaxed_limbo") => Relaxed,
                mutant("eventcount_blind_limbo") => Release
            );
            let there = self.list.compare_exchange(ptr::null_mut(), raw, order, Ordering::Relaxed);
            if there.is_ok() {
                return waiting;
            }
            // SAFETY: the exchange failed, so this thread still owns `raw`.
            list = unsafe { Box::from_raw(raw) };
            // A sweep that found all lists taken out has put one here. Each iteration of this loop
            // is due to one such sweep.
            let Some(mut other) = self.take() else { continue };
            other.watched.write();
            list.waiting.append(&mut other.waiting);
        }
    }

    /// Returns whether the list has items; `false` if it is taken out.
    fn is_waiting(&self) -> bool {
        self.take().is_some_and(|list| {
            list.watched.write();
            self.put_back(list) > 0
        })
    }
}

impl<P> Default for LimboCell<P> {
    fn default() -> Self {
        let list = AtomicPtr::new(Box::into_raw(Box::default()));
        Self { list, waiting: AtomicUsize::new(0) }
    }
}

impl<P> Drop for LimboCell<P> {
    fn drop(&mut self) {
        // Relaxed: as in `LimboLists::drain`.
        let list = self.list.swap(ptr::null_mut(), Ordering::Relaxed);
        // SAFETY: the pointer came from `Box::into_raw`, and `&mut self` makes it this thread's.
        drop(unsafe { own(list) });
    }
}

impl<P> LimboList<P> {
    /// Appends items that wait for a period.
    fn queue(&mut self, items: impl Iterator<Item = P>, mut grace: Option<Grace>) {
        self.waiting.extend(items.map(|item| (grace.take(), item)));
    }

    /// Removes the first item if its period has ended, or else an item that may be released early.
    fn take(&mut self, may_go: Option<MayGo<'_, P>>) -> Option<(P, ReleaseReason)> {
        let (grace, _) = self.waiting.front_mut()?;
        let has_ended = grace.as_mut().is_none_or(Grace::has_ended);
        if !has_ended && !mutant!("table_no_grace") {
            return self.take_early(may_go?);
        }
        self.examined = self.examined.saturating_sub(1);
        self.period = self.period.saturating_sub(1);
        self.waiting.pop_front().map(|(_, item)| (item, ReleaseReason::Ended))
    }

    /// Removes the first item that was not examined yet and may be released.
    fn take_early(&mut self, may_go: MayGo<'_, P>) -> Option<(P, ReleaseReason)> {
        while self.examined < self.waiting.len() {
            let index = self.examined;
            if self.waiting[index].0.is_some() {
                self.period = index;
            }
            // An item without a period waits for the nearest one before it, even after a merge.
            let grace = self.waiting[self.period].0.as_mut()?;
            let has_ended = grace.has_ended();
            let (grace, item) = (self.waiting[self.period].0.as_ref()?, &self.waiting[index].1);
            if has_ended || may_go(item, grace) {
                let reason = if has_ended { ReleaseReason::Ended } else { ReleaseReason::Early };
                return self.remove(index).map(|item| (item, reason));
            }
            self.examined += 1;
        }
        None
    }

    /// Removes an item and passes its period on to the next item that waits for it.
    fn remove(&mut self, index: usize) -> Option<P> {
        let (grace, item) = self.waiting.remove(index)?;
        if let Some((next @ None, _)) = self.waiting.get_mut(index) {
            *next = grace;
        }
        Some(item)
    }
}

impl<P> Default for LimboList<P> {
    fn default() -> Self {
        Self { waiting: VecDeque::new(), examined: 0, period: 0, watched: Watched::new() }
    }
}

#[cfg(all(test, not(any(cortado_loom, cortado_shuttle))))]
mod tests {
    use super::*;
    use crate::reclaim::{Domain, pin_for};

    /// Adds items with a period of their own; returns the released items, each with the reason.
    fn sweep(
        lists: &LimboLists<u32>,
        domain: Domain,
        items: &[u32],
        may_go: Option<&dyn Fn(u32) -> bool>,
    ) -> Vec<(u32, ReleaseReason)> {
        let grace = (!items.is_empty()).then(|| Grace::begin(domain));
        let may_go = may_go.map(|may_go| move |item: &u32, _: &Grace| may_go(*item));
        let may_go = may_go.as_ref().map(|may_go| may_go as MayGo<'_, u32>);
        let mut left = Vec::new();
        let free = |item, reason| left.push((item, reason));
        lists.sweep(items.iter().copied(), grace, usize::MAX, |_| 1, may_go, free);
        left
    }

    #[test]
    fn items_released_early_leave_their_period_to_the_others() {
        for odd in [0, 1] {
            let (lists, domain) = (LimboLists::new(1), Domain::new());
            let guard = pin_for(domain);
            assert_eq!(sweep(&lists, domain, &[0, 1, 2], None), []);
            assert_eq!(sweep(&lists, domain, &[3], None), []);
            assert_eq!(sweep(&lists, domain, &[4, 5], None), []);
            // Releases the first item of a period, the last, or the only one.
            let early = sweep(&lists, domain, &[6], Some(&|item| item % 2 == odd));
            let gone: Vec<u32> = early.iter().map(|(item, _)| *item).collect();
            assert!(gone.iter().copied().eq((0..7).filter(|item| item % 2 == odd)), "{gone:?}");
            assert!(early.iter().all(|(_, reason)| *reason == ReleaseReason::Early));
            // The remaining items were examined and are not examined again.
            assert_eq!(sweep(&lists, domain, &[], Some(&|_| true)), []);
            assert_eq!(sweep(&lists, domain, &[7], None), []);
            assert_eq!(
                sweep(&lists, domain, &[8], Some(&|item| item == 8)),
                [(8, ReleaseReason::Early)]
            );
            drop(guard);
            let mut left = Vec::new();
            // Other tests pin for every domain.
            while left.len() < 8 - gone.len() {
                left.extend(sweep(&lists, domain, &[], None));
                // A sweep without items does not advance a collector that needs it.
                pin_for(domain).advance();
                std::thread::yield_now();
            }
            let rest = (0..8).filter(|item| !gone.contains(item));
            assert!(
                left.iter().copied().eq(rest.map(|item| (item, ReleaseReason::Ended))),
                "{left:?}"
            );
        }
    }

    #[test]
    fn sweep_stops_when_it_has_freed_as_many_as_it_may() {
        let (lists, domain) = (LimboLists::new(1), Domain::new());
        let guard = pin_for(domain);
        assert_eq!(sweep(&lists, domain, &[1, 2, 3], None), []);
        let mut gone = Vec::new();
        let mut take = |max| {
            let may_go = |_: &u32, _: &Grace| true;
            lists.sweep([].into_iter(), None, max, |_| 1, Some(&may_go), |item, _| gone.push(item))
        };
        assert_eq!(take(2), Progress { freed: 2, waiting: 1 });
        assert_eq!(take(9), Progress { freed: 1, waiting: 0 });
        drop(guard);
        assert_eq!(gone, [1, 2, 3]);
    }
}
