//! Limbo lists: queues of what waits for its grace period.
//!
//! # Protocol
//!
//! A sweep takes a list out of its cell by a swap, and has it alone from then on: it adds what it
//! brings, takes out what is at the head and whose grace period is over, puts the list back, and only
//! then frees what it has taken. Then it goes on to the next list, until it has freed as much as it may.
//!
//! Behind a period that is not over, a sweep takes out what it may have *early*: what a later period releases that is
//! over, and what the caller finds that no pin of its period keeps. Each item is asked about once; what has to stay
//! then is nearly always freed when the period is over.
//!
//! A list that is out is left to the sweep that has it: a thread that lost its core with a list in hand keeps one
//! list out, and the others go on. A sweep that brings something and finds all lists out puts a
//! new one into the first cell, and the sweep that comes back there joins the two. No thread waits.
//!
//! # Orderings
//!
//! * Release of the CAS that puts a list back ↔ Acquire of the swap: what the list holds.
//! * The recheck of a thread that is about to sleep, and the sweep that it meets: see [`recheck`].

use std::{collections::VecDeque, ptr};

use crossbeam_utils::CachePadded;

use super::Grace;
use crate::primitives::{own, recheck};
use crate::sync::{
    IS_MODEL, Watched,
    atomic::{AtomicPtr, AtomicUsize, Ordering},
};

/// Items that a sweep takes out of a list before it frees them: so many that the list is seldom
/// out, and a writer's turn takes it once.
const ITEMS_AT_ONCE: usize = if IS_MODEL { 1 } else { 64 };
/// Lists of a structure with many stripes.
const MAX_LISTS: usize = if IS_MODEL { 2 } else { 8 };

/// Queues of items that wait for their grace periods.
#[derive(Debug)]
pub struct LimboLists<P> {
    cells: Box<[CachePadded<LimboCell<P>>]>,
}

/// Where a list is while no sweep has it.
#[derive(Debug)]
struct LimboCell<P> {
    /// Null while it is out.
    list: AtomicPtr<LimboList<P>>,
    /// How many items wait in it, or did when it was put back last.
    waiting: AtomicUsize,
}

/// Items in the order in which their grace periods end, or nearly.
struct LimboList<P> {
    waiting: VecDeque<Waiting<P>>,
    /// How many items at the head were asked about, and stay until their periods are over.
    examined: usize,
    /// Where the item is that has the period of the next one to be asked about.
    period: usize,
    watched: Watched,
}

/// An item, and its period if it is the first that waits for that: one without waits for the period
/// before it.
type Waiting<P> = (Option<Grace>, P);

/// What is asked of an item and its grace period, which is not over: whether nothing keeps the item.
pub type MayGo<'a, P> = &'a dyn Fn(&P, &Grace) -> bool;

/// Why an item leaves its list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReleaseReason {
    /// Its grace period is over.
    Ended,
    /// It is not, and the caller has said that nothing of it is kept.
    Early,
}

/// What a sweep of lists did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Values freed, as `size` counts them.
    pub freed: usize,
    /// Items left in the lists, those of others included that were found there.
    pub waiting: usize,
}

// SAFETY: a list goes from thread to thread with what it holds, and no two have it at a time.
unsafe impl<P: Send> Send for LimboLists<P> {}
// SAFETY: as above.
unsafe impl<P: Send> Sync for LimboLists<P> {}

impl<P> LimboLists<P> {
    /// Makes as many empty lists as there are stripes, up to a bound.
    pub fn new(stripes: usize) -> Self {
        let cells = (0..stripes.clamp(1, MAX_LISTS)).map(|_| CachePadded::default());
        Self { cells: cells.collect() }
    }

    /// Adds items that a grace period covers, and frees those whose period is over, until `max` values are
    /// freed. `size` tells how many an item has. `may_go`, where it is given, tells of an item whose period is not over
    /// whether it may leave early.
    ///
    /// All that the new items hold was unlinked before the period began; without a period there must be none.
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
            // Relaxed: a glance that saves a turn. The first list is where most of it is.
            if index > 0 && news.is_none() && cell.waiting.load(Ordering::Relaxed) == 0 {
                continue;
            }
            while let Some(mut list) = cell.take() {
                list.watched.write();
                if let Some((items, grace)) = news.take() {
                    list.queue(items, grace);
                }
                // Freed when the list is back in its cell: destructors take long, and a thread that lost its
                // core in one would keep all that waits from the other sweeps.
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
                // What another sweep has left may have come to it, and only this one knows of that.
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
            // All lists are out.
            let mut list = Box::<LimboList<P>>::default();
            list.queue(items, grace);
            progress.waiting += self.cells[0].put_back(list);
        }
        progress
    }

    /// Returns whether anything waits, to the thread that is about to sleep; see
    /// [`eventcount`](crate::primitives::eventcount).
    pub fn recheck(&self) -> bool {
        self.cells.iter().any(|cell| recheck(&cell.list) && cell.is_waiting())
    }

    /// Takes everything out; the caller is alone.
    pub fn drain(&mut self) -> impl Iterator<Item = P> {
        self.cells.iter_mut().flat_map(|cell| {
            // Relaxed: `&mut self` means that every other thread's part is over and seen.
            let list = cell.list.swap(ptr::null_mut(), Ordering::Relaxed);
            // SAFETY: the list is ours, and came from `Box::into_raw`.
            let list = unsafe { own(list) };
            list.into_iter().flat_map(|list| list.waiting.into_iter().map(|(_, item)| item))
        })
    }
}

impl<P> LimboCell<P> {
    /// Takes the list out, unless it is out already.
    fn take(&self) -> Option<Box<LimboList<P>>> {
        // AcqRel: Acquire pairs with the Release in `put_back`, so that the list's content is seen;
        // Release is for a recheck that meets another sweep.
        let list = if mutant!("table_limbo_by_load") {
            self.list.load(Ordering::Acquire)
        } else {
            self.list.swap(ptr::null_mut(), Ordering::AcqRel)
        };
        // SAFETY: what was there came from `Box::into_raw`, and the swap made it ours.
        unsafe { own(list) }
    }

    /// Puts a list back; returns how many items wait in what is there then.
    fn put_back(&self, mut list: Box<LimboList<P>>) -> usize {
        loop {
            let waiting = list.waiting.len();
            // Relaxed: for a glance.
            self.waiting.store(waiting, Ordering::Relaxed);
            let raw = Box::into_raw(list);
            // AcqRel: Release pairs with the Acquire in `take`, and Acquire with the Release in
            // `recheck`.
            // Relaxed: the other list is taken out by a swap of its own.
            let order = ordering!(
                AcqRel,
                mutant("table_relaxed_limbo") => Relaxed,
                mutant("eventcount_blind_limbo") => Release
            );
            let there = self.list.compare_exchange(ptr::null_mut(), raw, order, Ordering::Relaxed);
            if there.is_ok() {
                return waiting;
            }
            // SAFETY: the exchange failed, so `raw` is still ours alone.
            list = unsafe { Box::from_raw(raw) };
            // A sweep that found all lists out has put one here; each turn of this loop is one that did.
            let Some(mut other) = self.take() else { continue };
            other.watched.write();
            list.waiting.append(&mut other.waiting);
        }
    }

    /// Returns whether items wait in the list, if it is not out.
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
        // SAFETY: the list is ours, and came from `Box::into_raw`.
        drop(unsafe { own(list) });
    }
}

impl<P> LimboList<P> {
    /// Adds items that wait for a period.
    fn queue(&mut self, items: impl Iterator<Item = P>, mut grace: Option<Grace>) {
        self.waiting.extend(items.map(|item| (grace.take(), item)));
    }

    /// Takes an item that may leave: the first, if its period is over, or one that may go early.
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

    /// Takes the first item that was not asked about yet and may go.
    fn take_early(&mut self, may_go: MayGo<'_, P>) -> Option<(P, ReleaseReason)> {
        while self.examined < self.waiting.len() {
            let index = self.examined;
            if self.waiting[index].0.is_some() {
                self.period = index;
            }
            // An item that another sweep has brought without its period waits for the one before.
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

    /// Takes an item out; its period stays with the next one that waits for it.
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

    /// Adds items with a period of their own, and returns what leaves the lists, and why.
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
    fn items_that_leave_early_take_no_period_away_from_those_that_stay() {
        for odd in [0, 1] {
            let (lists, domain) = (LimboLists::new(1), Domain::new());
            let guard = pin_for(domain);
            assert_eq!(sweep(&lists, domain, &[0, 1, 2], None), []);
            assert_eq!(sweep(&lists, domain, &[3], None), []);
            assert_eq!(sweep(&lists, domain, &[4, 5], None), []);
            // The first of a period, the last, or the only one.
            let early = sweep(&lists, domain, &[6], Some(&|item| item % 2 == odd));
            let gone: Vec<u32> = early.iter().map(|(item, _)| *item).collect();
            assert!(gone.iter().copied().eq((0..7).filter(|item| item % 2 == odd)), "{gone:?}");
            assert!(early.iter().all(|(_, reason)| *reason == ReleaseReason::Early));
            // What has stayed was asked about, and waits on, whoever comes.
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
                // A collector that needs help gets none from sweeps of nothing.
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
