//! The budget: charge and refund (`src/budget.rs`).

mod common;
mod table_world;

use common::{Bounds, explore, explore_within};
use cortado::__internals::budget::Budget;
use cortado::__internals::sync::atomic::AtomicBool;
use cortado::__internals::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use cortado::__internals::sync::model::as_reader;
use cortado::__internals::sync::{Arc, thread};
use table_world::{A, B, World, spawn};

#[test]
fn two_charges_of_which_one_fits() {
    explore(|| {
        let budget = Arc::new(Budget::new(10));
        let charge = |cost| {
            let budget = Arc::clone(&budget);
            thread::spawn(move || u64::from(budget.try_charge(cost)) * cost)
        };
        let (one, other) = (charge(6), charge(7));
        let seen = as_reader(|| budget.used());
        assert!(seen <= 10, "{seen} of 10 seen");
        let charged = one.join().unwrap() + other.join().unwrap();
        assert!(charged == 6 || charged == 7, "{charged} charged");
        assert_eq!(budget.used(), charged);
    });
}

#[test]
fn charges_and_refunds_add_up() {
    explore(|| {
        let budget = Arc::new(Budget::new(10));
        assert!(budget.try_charge(5));
        let threads = [2, 3].map(|cost| {
            let budget = Arc::clone(&budget);
            thread::spawn(move || {
                budget.refund(cost);
                u64::from(budget.try_charge(2 * cost)) * 2 * cost
            })
        });
        let charged: u64 = threads.into_iter().map(|thread| thread.join().unwrap()).sum();
        assert_eq!(budget.used(), charged);
    });
}

#[test]
fn a_thread_that_sees_the_new_entry_does_not_see_the_evicted_one() {
    explore(|| {
        let budget = Arc::new(Budget::new(1));
        let entries = Arc::new([AtomicBool::new(true), AtomicBool::new(false)]);
        assert!(budget.try_charge(1));
        let evicting = {
            let (budget, entries) = (Arc::clone(&budget), Arc::clone(&entries));
            thread::spawn(move || {
                entries[0].store(false, Relaxed);
                budget.refund(1);
            })
        };
        let writer = {
            let (budget, entries) = (Arc::clone(&budget), Arc::clone(&entries));
            thread::spawn(move || {
                if budget.try_charge(1) {
                    entries[1].store(true, Release);
                }
            })
        };
        as_reader(|| {
            if entries[1].load(Acquire) {
                assert!(!entries[0].load(Relaxed), "both entries, and the budget holds one");
            }
        });
        evicting.join().unwrap();
        writer.join().unwrap();
    });
}

#[test]
fn a_limit_that_is_lowered_holds_for_the_next_charge() {
    explore(|| {
        let budget = Arc::new(Budget::new(10));
        let charger = {
            let budget = Arc::clone(&budget);
            thread::spawn(move || u64::from(budget.try_charge(8)))
        };
        budget.set_max(5);
        let second = u64::from(budget.try_charge(4));
        let first = charger.join().unwrap();
        // 8 fits only below the old limit. With 8 charged, 4 more fit below neither.
        assert!(first + second <= 1 && budget.used() == 8 * first + 4 * second);
        assert!(!budget.try_charge(6));
    });
}

/// Charges of inserts in progress above a lowered limit are not published.
fn lowered(there: &'static [(u64, u64)], cost: u64, limit: u64, preemptions: usize) {
    let bounds = Bounds { preemptions: Some(preemptions), seconds: 5, schedules: 3_000 };
    explore_within(bounds, move || {
        let world = Arc::new(World::with(there));
        let budget = Arc::new(Budget::new(4));
        let before: u64 = there.iter().map(|(_, cost)| cost).sum();
        assert!(budget.try_charge(before));
        let writer = {
            let budget = Arc::clone(&budget);
            spawn(&world, move |w| w.set_within(&budget, A, cost))
        };
        let held = world.lower(&budget, limit);
        assert!(held <= limit, "{held} in the table, and the limit is {limit}");
        let shown = as_reader(|| budget.shown());
        assert!(shown <= limit, "{shown} of {limit} shown");
        let is_in = writer.join().unwrap();
        let left = World::finish(world);
        let held: u64 = left.iter().sum();
        assert!(held <= limit && held == budget.used(), "{left:?} in the end");
        assert!(!is_in || cost <= limit || !left.contains(&cost));
    });
}

#[test]
fn insert_meets_a_limit_below_its_charge() {
    lowered(&[], 3, 1, 3);
}

#[test]
fn insert_meets_a_limit_at_its_charge() {
    lowered(&[(B, 2)], 2, 2, 3);
}

#[test]
fn replacement_of_what_costs_nothing_meets_a_limit_below_its_charge() {
    lowered(&[(A, 0)], 3, 1, 3);
}

/// `shown` is capped once all evictions for the limit are done, and not before.
#[test]
fn less_than_is_charged_is_shown_only_when_a_move_has_ended() {
    explore(|| {
        let budget = Arc::new(Budget::new(10));
        let is_evicted = Arc::new(AtomicBool::new(false));
        assert!(budget.try_charge(8));
        let mover = {
            let (budget, is_evicted) = (Arc::clone(&budget), Arc::clone(&is_evicted));
            thread::spawn(move || {
                budget.begin_move();
                budget.set_max(5);
                is_evicted.store(true, Relaxed);
                budget.end_move();
            })
        };
        as_reader(|| {
            let shown = budget.shown();
            assert!(shown == 8 || (shown == 5 && is_evicted.load(Relaxed)), "{shown}");
        });
        mover.join().unwrap();
        assert_eq!(budget.shown(), 5);
    });
}
