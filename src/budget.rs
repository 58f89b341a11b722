//! The budget: how much cost is charged, and how much may be.
//!
//! # Protocol
//!
//! One number, `used`, which whoever publishes an entry raises *before* the entry can be found, and
//! whoever unlinks one lowers *after* it cannot be. So the cost of what can be found is at most
//! `used`, and `used` never passes the limit it was compared with, not even between two
//! instructions. [`Budget::set_max`] moves the limit at once; what is charged already stays charged,
//! so after lowering it `used` may be above until evictions have caught up.
//!
//! # A lower limit
//!
//! What no eviction brings back is charged by inserts under way. `set_max` touches `used` after it has moved the limit, and
//! a charge looks at the limit once more when it is made. So of each charge and each move, either the charge
//! comes later and knows the new limit; or it comes earlier, and with it what the writer has read of the table
//! before. Whoever lowers the limit then changes whatever a writer may have read
//! ([`Table::renew`](crate::table::Table::renew)): those who charged earlier cannot publish, and look at the limit again
//! before they try once more ([`raise`](Budget::raise)).

use crossbeam_utils::CachePadded;

use crate::sync::atomic::{
    AtomicU64,
    Ordering::{Acquire, Relaxed, Release},
};

/// How much cost is charged, and the limit.
#[derive(Debug)]
pub struct Budget {
    /// Written by every insert and eviction, so it has a cache line of its own.
    used: CachePadded<AtomicU64>,
    max: AtomicU64,
    /// Moves of the limit that were begun (upper half, wraps), and those that have not ended (lower half).
    moves: AtomicU64,
}

impl Budget {
    /// Makes a budget of `max`, nothing of it used.
    pub fn new(max: u64) -> Self {
        let used = CachePadded::default();
        Self { used, max: AtomicU64::new(max), moves: AtomicU64::new(0) }
    }

    /// Charges `cost` if it fits, and says whether it did.
    ///
    /// Of several threads that charge at once, only those that fit together succeed; a failed charge
    /// has at no moment shown in [`used`](Self::used), unless the limit was lowered in that moment.
    #[must_use = "a charge that failed allows nothing to be published"]
    #[inline]
    pub fn try_charge(&self, cost: u64) -> bool {
        if mutant!("budget_check_then_add") {
            let fits = self.used.load(Relaxed) + cost <= self.max.load(Relaxed);
            if fits {
                self.used.fetch_add(cost, Relaxed);
            }
            return fits;
        }
        // Relaxed: only a guess; the exchange below checks it.
        let mut used = self.used.load(Relaxed);
        loop {
            // Relaxed: a limit that moves concurrently counts as moved before or after this charge.
            // Looked at again each time, for others may have charged and refunded much since.
            let limit = self.max.load(Relaxed);
            let Some(wanted) = used.checked_add(cost).filter(|wanted| *wanted <= limit) else {
                return false;
            };
            // AcqRel. Acquire: pairs with the Release in `refund`; what is published on this charge is seen
            // only by those who see the entry that paid for it gone. Charges between the two do not
            // break the pair, for each is a read-modify-write. And with those in `recheck` and `set_max`.
            // Release: pairs with the Acquire in `set_max`, before which come this writer's reads of the table.
            // Relaxed: a failed exchange is only a better guess.
            let order = ordering!(
                AcqRel,
                mutant("eventcount_relaxed_charge") => Relaxed,
                mutant("budget_acquire_charge") => Acquire
            );
            match self.used.compare_exchange_weak(used, wanted, order, Relaxed) {
                Ok(_) => return self.is_within_limit(cost, wanted),
                Err(current) => used = current,
            }
        }
    }

    /// Looks once more at the limit, which may have been lowered in the moment of the charge; takes it back then.
    #[inline]
    fn is_within_limit(&self, cost: u64, used: u64) -> bool {
        // Relaxed: the Acquire of the charge orders it; see "A lower limit".
        let is_within = used <= self.max.load(Relaxed) || mutant!("budget_looks_at_limit_once");
        if !is_within {
            self.refund(cost);
        }
        is_within
    }

    /// Raises a charge to `need`, where some of that is `held` already; returns how much the budget is short, more being
    /// charged only if it is not.
    ///
    /// What is held counts for nothing any more if the limit was lowered since, and too much is charged now.
    #[must_use = "where the budget is short nothing may be published"]
    #[inline]
    pub fn raise(&self, held: &mut u64, need: u64) -> u64 {
        let is_late = *held > 0 && self.used() > self.max();
        if is_late && !mutant!("budget_charge_outlives_limit") {
            self.refund(std::mem::take(held));
        }
        let more = need.saturating_sub(*held);
        if more == 0 || self.try_charge(more) {
            *held += more;
            return 0;
        }
        more
    }

    /// Gives back a cost that was charged, after the entry was unlinked.
    #[inline]
    pub fn refund(&self, cost: u64) {
        if mutant!("budget_refund_by_store") {
            return self.used.store(self.used.load(Relaxed) - cost, Relaxed);
        }
        // Release: pairs with the Acquire in `try_charge`; the entry was unlinked before, and
        // whoever spends what it cost must not be seen beside it.
        let order = ordering!(Release, mutant("budget_relaxed_refund") => Relaxed);
        let before = self.used.fetch_sub(cost, order);
        debug_assert!(before >= cost, "refund of {cost} where only {before} is charged");
    }

    /// Returns what is charged at this moment.
    #[inline]
    pub fn used(&self) -> u64 {
        // Relaxed: a figure to decide by or to show; it is out of date the next moment anyway.
        self.used.load(Relaxed)
    }

    /// Returns the same to the thread that is about to sleep: it counts every charge but those that are to
    /// see that (see [`eventcount`](crate::primitives::eventcount)).
    pub fn recheck(&self) -> u64 {
        if mutant!("eventcount_loads_budget") {
            return self.used.load(Relaxed);
        }
        // Release: pairs with the Acquire in `try_charge`.
        self.used.fetch_add(0, Release)
    }

    /// Returns the limit.
    #[inline]
    pub fn max(&self) -> u64 {
        // Relaxed: nothing is published with the limit.
        self.max.load(Relaxed)
    }

    /// Moves the limit. What is charged stays charged.
    pub fn set_max(&self, max: u64) {
        // Release: pairs with the Acquire in `shown`, so that who sees the limit sees that it is being moved.
        self.max.store(max, Release);
        // AcqRel. Release: pairs with the Acquire of charges that come later. Acquire: pairs with the Release of those that came
        // earlier. See "A lower limit".
        let order = ordering!(AcqRel, mutant("budget_relaxed_move") => Relaxed);
        self.used.fetch_add(0, order);
    }

    /// Notes that the limit is about to be moved, before [`set_max`](Self::set_max).
    pub fn begin_move(&self) {
        // Relaxed: the Release of the limit shows it.
        self.moves.fetch_add(MOVE_BEGUN, Relaxed);
    }

    /// Notes that what is published is within the limit again. Without it, [`shown`](Self::shown) is [`used`](Self::used)
    /// for ever.
    pub fn end_move(&self) {
        // Release: pairs with the Acquire in `shown`: what was evicted for the limit is gone.
        let order = ordering!(Release, mutant("budget_relaxed_end") => Relaxed);
        self.moves.fetch_sub(MOVE_UNDER_WAY, order);
    }

    /// Returns the same as [`used`](Self::used); but never more than the limit, unless that is being moved: what inserts
    /// under way have charged above it they will not publish.
    pub fn shown(&self) -> u64 {
        // Acquire: pairs with the Release in `end_move`.
        let moves = self.moves.load(Acquire);
        let used = self.used();
        // Acquire: pairs with the Release in `set_max`.
        let max = self.max.load(Acquire);
        // Relaxed: the Acquire above orders it.
        let is_same = self.moves.load(Relaxed) == moves || mutant!("budget_looks_at_moves_once");
        let is_settled = moves & MAX_MOVES == 0 && is_same;
        if used > max && is_settled { max } else { used }
    }

    /// Returns what may still be charged: 0 where the limit was lowered below what is charged.
    #[inline]
    pub fn remaining(&self) -> u64 {
        self.max().saturating_sub(self.used())
    }

    /// Returns whether less than `reserve` is left, or more than the limit is charged (after it was
    /// lowered), so that making room is due.
    #[inline]
    pub fn is_over_reserve(&self, reserve: u64) -> bool {
        self.used().saturating_add(reserve) > self.max()
    }
}

/// What a move of the limit adds to their counts when it begins; and what it takes off when it ends.
const MOVE_BEGUN: u64 = 1 << 32 | MOVE_UNDER_WAY;
const MOVE_UNDER_WAY: u64 = 1;
/// Those under way.
const MAX_MOVES: u64 = (1 << 32) - 1;

#[cfg(all(test, not(any(cortado_loom, cortado_shuttle))))]
mod tests {
    use super::Budget;
    use crate::sync::atomic::{AtomicBool, Ordering::Relaxed};
    use crate::sync::thread;

    #[test]
    fn a_charge_up_to_the_limit_succeeds_and_one_more_fails() {
        let budget = Budget::new(10);
        assert!(budget.try_charge(4));
        assert!(budget.try_charge(6));
        assert!(!budget.try_charge(1));
        assert!(budget.try_charge(0));
        assert_eq!((budget.used(), budget.remaining(), budget.recheck()), (10, 0, 10));
        budget.refund(6);
        assert_eq!((budget.used(), budget.remaining(), budget.max()), (4, 6, 10));
    }

    #[test]
    fn a_charge_near_the_end_of_the_numbers_does_not_wrap() {
        let budget = Budget::new(u64::MAX);
        assert!(budget.try_charge(u64::MAX - 1));
        assert!(!budget.try_charge(2) && !budget.try_charge(u64::MAX));
        assert!(budget.try_charge(1));
        assert_eq!(budget.used(), u64::MAX);
    }

    #[test]
    fn a_lowered_limit_keeps_what_is_charged_and_refuses_more() {
        let budget = Budget::new(10);
        assert!(budget.try_charge(8));
        budget.set_max(5);
        assert_eq!((budget.used(), budget.remaining()), (8, 0));
        assert!(!budget.try_charge(1));
        budget.refund(4);
        assert!(budget.try_charge(1));
        assert!(!budget.try_charge(1));
    }

    #[test]
    fn charge_that_is_held_counts_for_nothing_above_a_lowered_limit() {
        let budget = Budget::new(10);
        let mut held = 0;
        assert_eq!((budget.raise(&mut held, 4), held), (0, 4));
        assert_eq!((budget.raise(&mut held, 11), held), (7, 4), "it stays as it was");
        assert_eq!((budget.raise(&mut held, 3), held), (0, 4), "never lowered");
        budget.set_max(3);
        assert_eq!((budget.raise(&mut held, 4), held, budget.used()), (4, 0, 0));
        assert_eq!((budget.raise(&mut held, 3), held, budget.used()), (0, 3, 3));
    }

    #[test]
    fn nothing_above_the_limit_is_shown_once_a_move_has_ended() {
        let budget = Budget::new(10);
        assert!(budget.try_charge(8));
        budget.begin_move();
        budget.set_max(5);
        budget.begin_move();
        budget.end_move();
        assert_eq!((budget.shown(), budget.used()), (8, 8), "another is under way");
        budget.end_move();
        assert_eq!((budget.shown(), budget.used()), (5, 8));
        budget.refund(7);
        assert_eq!(budget.shown(), 1);
    }

    #[test]
    fn the_reserve_is_missing_once_less_than_it_remains() {
        let budget = Budget::new(10);
        assert!(budget.try_charge(8));
        assert!(!budget.is_over_reserve(2));
        assert!(budget.try_charge(1));
        assert!(budget.is_over_reserve(2));
        assert!(!budget.is_over_reserve(0));
    }

    #[cfg(debug_assertions)]
    #[test]
    #[should_panic(expected = "refund of 3 where only 2 is charged")]
    fn a_refund_of_more_than_is_charged_is_caught_in_debug_builds() {
        let budget = Budget::new(10);
        assert!(budget.try_charge(2));
        budget.refund(3);
    }

    #[test]
    fn many_writers_never_show_more_than_the_limit() {
        let budget = Budget::new(100);
        let done = AtomicBool::new(false);
        thread::scope(|scope| {
            let writers: Vec<_> = (1..=4u64)
                .map(|cost| {
                    let budget = &budget;
                    scope.spawn(move || {
                        let mut held = 0;
                        for _ in 0..20_000 {
                            if budget.try_charge(cost * 7) {
                                held += cost * 7;
                            } else {
                                budget.refund(held);
                                held = 0;
                            }
                        }
                        budget.refund(held);
                    })
                })
                .collect();
            let watcher = scope.spawn(|| {
                let mut greatest = 0;
                while !done.load(Relaxed) {
                    greatest = greatest.max(budget.used());
                }
                greatest
            });
            for writer in writers {
                writer.join().unwrap();
            }
            done.store(true, Relaxed);
            assert!(watcher.join().unwrap() <= 100);
        });
        assert_eq!(budget.used(), 0);
    }
}
