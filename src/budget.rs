//! The budget: the cost charged, and its limit.
//!
//! # Protocol
//!
//! The thread that publishes an entry raises `used` *before* the entry can be found, and the thread
//! that unlinks one lowers it *after* the entry can no longer be found. So the total cost of the
//! entries that can be found is at most `used`, and `used` never exceeds the limit that it was
//! compared with, not even between two instructions. [`Budget::set_max`] takes effect at once, but
//! does not undo charges: after the limit is lowered, `used` may exceed it until evictions have
//! caught up.
//!
//! # Credit
//!
//! Every core would write the line of `used` for every insert and eviction. So a thread that evicts
//! may keep the cost as a [`Credit`] of its stripe, in place of the refund: it stays charged, and
//! the next insert draws on it. A credit obeys the same rules as `used`: an insert draws before its
//! entry can be found, and an eviction adds after its entry can no longer be found. A thread that
//! finds no room recalls all credits before it gives up.
//!
//! # A lower limit
//!
//! Evictions cannot take back the charges of inserts in progress. `set_max` therefore writes `used`
//! after it has stored the limit, and a charge reads the limit again after it is made. So of each
//! charge and each move, one comes first in the modification order of `used`:
//!
//! * if the move does, the charge sees the new limit;
//! * if the charge does, the move also comes after what that writer read of the table before. The
//!   thread that lowers the limit then changes every bucket that a writer may have read
//!   ([`Table::renew`](crate::table::Table::renew)). The writer fails to publish, and checks the
//!   limit again before it retries ([`raise`](Budget::raise)).
//!
//! The same holds for each draw on a credit and its [recall](Budget::recall), which follows the
//! move, in the modification order of the credit. What is added to a credit later is drawn by
//! threads that see the new limit.

use crossbeam_utils::CachePadded;

use crate::sync::atomic::{
    AtomicU64,
    Ordering::{Acquire, Relaxed, Release},
};

/// The cost charged, and its limit.
#[derive(Debug)]
pub struct Budget {
    /// Written by every insert and eviction, so it has a cache line of its own.
    used: CachePadded<AtomicU64>,
    max: AtomicU64,
    /// The number of moves of the limit begun (upper half, wraps) and in progress (lower half).
    moves: AtomicU64,
}

/// A part of the budget that is charged, and that the threads of one stripe publish entries on
/// without writing a line that other threads share.
#[derive(Debug, Default)]
pub struct Credit {
    cost: AtomicU64,
}

impl Credit {
    /// Returns the cost in the credit.
    #[inline]
    pub fn get(&self) -> u64 {
        // Relaxed: a figure for decisions and reports, as `used`.
        self.cost.load(Relaxed)
    }

    /// Adds a charged cost, which belongs to no entry that can be found.
    #[inline]
    fn add(&self, cost: u64) {
        // Release: pairs with the Acquire in `draw`, as that of `refund` does with the one in
        // `try_charge`.
        let order = ordering!(Release, mutant("budget_relaxed_credit") => Relaxed);
        self.cost.fetch_add(cost, order);
    }
}

impl Budget {
    /// Creates a budget of `max` with nothing charged.
    pub fn new(max: u64) -> Self {
        let used = CachePadded::default();
        Self { used, max: AtomicU64::new(max), moves: AtomicU64::new(0) }
    }

    /// Charges `cost` if it fits; returns whether it did.
    ///
    /// Of concurrent charges, only those that fit together succeed. A failed charge is never
    /// visible in [`used`](Self::used), unless the limit is lowered concurrently.
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
        // Relaxed: only a guess, which the exchange below checks.
        let mut used = self.used.load(Relaxed);
        loop {
            // Relaxed: a concurrent move of the limit counts as before or after this charge. Loaded
            // in each round, because a retry may come much later.
            let limit = self.max.load(Relaxed);
            let Some(wanted) = used.checked_add(cost).filter(|wanted| *wanted <= limit) else {
                return false;
            };
            // AcqRel. Acquire: pairs with the Release in `refund`: a thread that sees the entry
            // published on this charge also sees that the refunded entry is gone. Charges in
            // between do not break the pair, because each is a read-modify-write. It also pairs
            // with the Release in `recheck` and in `set_max`.
            // Release: pairs with the Acquire in `set_max`, which is thereby ordered after this
            // writer's reads of the table.
            // Relaxed: a failed exchange only yields a better guess.
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

    /// Checks the limit again after a charge, and refunds the charge if the limit was lowered
    /// concurrently.
    #[inline]
    fn is_within_limit(&self, cost: u64, used: u64) -> bool {
        // Relaxed: the Acquire of the charge orders it; see "A lower limit".
        let is_within = used <= self.max.load(Relaxed) || mutant!("budget_looks_at_limit_once");
        if !is_within {
            self.refund(cost);
        }
        is_within
    }

    /// Charges `cost` to a credit, or else to the budget, and with it up to `ahead` to the credit;
    /// returns whether there was room for `cost`.
    #[inline]
    fn charge(&self, credit: &Credit, cost: u64, ahead: u64) -> bool {
        if self.draw(credit, cost) {
            return true;
        }
        if ahead > 0 && self.try_charge(cost.saturating_add(ahead)) {
            credit.add(ahead);
            return true;
        }
        self.try_charge(cost)
    }

    /// Takes `cost` out of a credit; returns whether it was there, and the limit is kept.
    #[inline]
    fn draw(&self, credit: &Credit, cost: u64) -> bool {
        // Relaxed: only a guess, which the exchange below checks.
        let mut held = credit.cost.load(Relaxed);
        if mutant!("budget_draw_by_store") && held >= cost {
            credit.cost.store(held - cost, Relaxed);
            return true;
        }
        while let Some(rest) = held.checked_sub(cost) {
            // AcqRel: as in `try_charge`, with `add` in place of `refund`, and `recall` in place of
            // `set_max`. Relaxed: as there.
            let order = ordering!(
                AcqRel,
                mutant("budget_acquire_draw") => Acquire,
                mutant("budget_release_draw") => Release
            );
            match credit.cost.compare_exchange_weak(held, rest, order, Relaxed) {
                // The credit was part of `used` when it was recalled, if it was.
                Ok(_) => return self.is_within_limit(cost, self.used()),
                Err(current) => held = current,
            }
        }
        false
    }

    /// Refunds a charged cost to a credit that is to be `most` at most, or else to the budget, after
    /// the entry was unlinked.
    #[inline]
    pub fn refund_to(&self, credit: &Credit, cost: u64, most: u64) {
        if credit.get().saturating_add(cost) <= most {
            credit.add(cost);
        } else {
            self.refund(cost);
        }
    }

    /// Refunds a credit. Of concurrent draws, those that come later find nothing.
    pub fn recall(&self, credit: &Credit) {
        // AcqRel. Acquire: pairs with the Release in `add`, which the refund passes on, and with
        // that in `draw`. Release: pairs with the Acquire in `draw`. See "A lower limit". A swap of
        // 0, too, since the last draw has to be ordered.
        let order = ordering!(AcqRel, mutant("budget_relaxed_recall") => Relaxed);
        let cost = credit.cost.swap(0, order);
        if cost > 0 {
            self.refund(cost);
        }
    }

    /// Raises a charge from `held` to `need`; returns 0, or how much is missing if that does not
    /// fit. Draws on `credit` first. If the budget is charged, up to `ahead` more is, for the
    /// credit.
    ///
    /// If more than the limit is charged, which means that the limit was lowered, the held charge
    /// is refunded first and has to be made again.
    #[must_use = "where the budget is short nothing may be published"]
    #[inline]
    pub fn raise(&self, credit: &Credit, ahead: u64, held: &mut u64, need: u64) -> u64 {
        let is_late = *held > 0 && self.used() > self.max();
        if is_late && !mutant!("budget_charge_outlives_limit") {
            self.refund(std::mem::take(held));
        }
        let more = need.saturating_sub(*held);
        if more == 0 || self.charge(credit, more, ahead) {
            *held += more;
            return 0;
        }
        more
    }

    /// Refunds a charged cost, after the entry was unlinked.
    #[inline]
    pub fn refund(&self, cost: u64) {
        if mutant!("budget_refund_by_store") {
            return self.used.store(self.used.load(Relaxed) - cost, Relaxed);
        }
        // Release: pairs with the Acquire in `try_charge`. The entry was unlinked before, and must
        // not be visible together with an entry published on its refund.
        let order = ordering!(Release, mutant("budget_relaxed_refund") => Relaxed);
        let before = self.used.fetch_sub(cost, order);
        debug_assert!(before >= cost, "refund of {cost} where only {before} is charged");
    }

    /// Returns the cost charged.
    #[inline]
    pub fn used(&self) -> u64 {
        // Relaxed: a figure for decisions and reports, which may be stale at once anyway.
        self.used.load(Relaxed)
    }

    /// Returns the cost charged, for the recheck of a thread that is about to sleep. It includes
    /// every charge, except those whose thread will see that this thread sleeps (see
    /// [`eventcount`](crate::primitives::eventcount)).
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

    /// Moves the limit, and recalls all credits. It does not undo charges.
    pub fn set_max<'a>(&self, max: u64, credits: impl IntoIterator<Item = &'a Credit>) {
        // Release: pairs with the Acquire in `shown`: a thread that sees the limit also sees that
        // it is being moved.
        self.max.store(max, Release);
        // AcqRel. Release: pairs with the Acquire of later charges. Acquire: pairs with the Release
        // of earlier ones. See "A lower limit".
        let order = ordering!(AcqRel, mutant("budget_relaxed_move") => Relaxed);
        self.used.fetch_add(0, order);
        credits.into_iter().for_each(|credit| self.recall(credit));
    }

    /// Records that the limit is about to be moved. Call it before [`set_max`](Self::set_max).
    pub fn begin_move(&self) {
        // Relaxed: the Release store of the limit publishes it.
        self.moves.fetch_add(MOVE_BEGUN, Relaxed);
    }

    /// Records that the published entries are within the limit again. If it is not called,
    /// [`shown`](Self::shown) equals [`used`](Self::used) from then on.
    pub fn end_move(&self) {
        // Release: pairs with the Acquire in `shown`: the evictions for the limit are visible.
        let order = ordering!(Release, mutant("budget_relaxed_end") => Relaxed);
        self.moves.fetch_sub(MOVE_UNDER_WAY, order);
    }

    /// Like [`used`](Self::used), but capped at the limit unless that is being moved: inserts in
    /// progress that have charged more will not publish.
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

    /// Returns the cost that may still be charged; 0 if the limit was lowered below `used`.
    #[inline]
    pub fn remaining(&self) -> u64 {
        self.max().saturating_sub(self.used())
    }

    /// Returns whether room has to be made: less than `reserve` remains, or more than the limit is
    /// charged after it was lowered.
    #[inline]
    pub fn is_over_reserve(&self, reserve: u64) -> bool {
        self.used().saturating_add(reserve) > self.max()
    }
}

/// Added to `moves` when a move begins: one to each half.
const MOVE_BEGUN: u64 = 1 << 32 | MOVE_UNDER_WAY;
/// Subtracted from `moves` when a move ends.
const MOVE_UNDER_WAY: u64 = 1;
/// The mask of the number of moves in progress.
const MAX_MOVES: u64 = (1 << 32) - 1;

#[cfg(all(test, not(any(cortado_loom, cortado_shuttle))))]
mod tests {
    use super::{Budget, Credit};
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
        budget.set_max(5, []);
        assert_eq!((budget.used(), budget.remaining()), (8, 0));
        assert!(!budget.try_charge(1));
        budget.refund(4);
        assert!(budget.try_charge(1));
        assert!(!budget.try_charge(1));
    }

    #[test]
    fn refund_goes_to_the_credit_up_to_its_limit_and_the_next_charge_draws_on_it() {
        let (budget, credit) = (Budget::new(10), Credit::default());
        assert!(budget.try_charge(10));
        [2, 3, 1].iter().for_each(|cost| budget.refund_to(&credit, *cost, 3));
        assert_eq!((budget.used(), credit.get()), (7, 3));
        let mut held = 0;
        assert_eq!(budget.raise(&credit, 0, &mut held, 2), 0);
        assert_eq!((budget.used(), credit.get(), held), (7, 1, 2));
        // What the credit does not hold is charged to the budget, and as a whole.
        assert_eq!(budget.raise(&credit, 0, &mut held, 5), 0);
        assert_eq!((budget.used(), credit.get(), held), (10, 1, 5));
        assert_eq!(budget.raise(&credit, 0, &mut held, 7), 2);
        budget.recall(&credit);
        assert_eq!((budget.used(), credit.get()), (9, 0));
    }

    #[test]
    fn credit_is_charged_ahead_where_there_is_room() {
        let (budget, credit) = (Budget::new(10), Credit::default());
        for (used, left) in [(5, 4), (5, 3), (5, 2), (5, 1), (5, 0), (10, 4)] {
            assert_eq!(budget.raise(&credit, 4, &mut 0, 1), 0);
            assert_eq!((budget.used(), credit.get()), (used, left));
        }
        let (budget, credit) = (Budget::new(3), Credit::default());
        assert_eq!(budget.raise(&credit, 4, &mut 0, 1), 0);
        assert_eq!((budget.used(), credit.get()), (1, 0));
    }

    #[test]
    fn lowered_limit_recalls_credits_and_a_late_one_cannot_be_drawn() {
        let (budget, credit) = (Budget::new(10), Credit::default());
        assert!(budget.try_charge(10));
        budget.refund_to(&credit, 3, 3);
        budget.set_max(5, [&credit]);
        assert_eq!((budget.used(), credit.get()), (7, 0));
        budget.refund_to(&credit, 1, 3);
        assert_eq!(budget.raise(&credit, 0, &mut 0, 1), 1);
        assert_eq!((budget.used(), credit.get()), (6, 0));
    }

    #[test]
    fn held_charge_above_a_lowered_limit_is_refunded() {
        let budget = Budget::new(10);
        let mut held = 0;
        assert_eq!((budget.raise(&Credit::default(), 0, &mut held, 4), held), (0, 4));
        assert_eq!(
            (budget.raise(&Credit::default(), 0, &mut held, 11), held),
            (7, 4),
            "it stays as it was"
        );
        assert_eq!(
            (budget.raise(&Credit::default(), 0, &mut held, 3), held),
            (0, 4),
            "never lowered"
        );
        budget.set_max(3, []);
        assert_eq!(
            (budget.raise(&Credit::default(), 0, &mut held, 4), held, budget.used()),
            (4, 0, 0)
        );
        assert_eq!(
            (budget.raise(&Credit::default(), 0, &mut held, 3), held, budget.used()),
            (0, 3, 3)
        );
    }

    #[test]
    fn nothing_above_the_limit_is_shown_once_a_move_has_ended() {
        let budget = Budget::new(10);
        assert!(budget.try_charge(8));
        budget.begin_move();
        budget.set_max(5, []);
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
