//! The budget: charge and refund (`src/budget.rs`).

mod common;
mod table_world;

use common::{Bounds, explore, explore_within};
use cortado::__internals::budget::{Budget, Credit};
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

/// The same with the eviction's cost kept as a credit, which a third thread may recall.
fn evicted_on_credit(recalls: bool) {
    explore(move || {
        let budget = Arc::new(Budget::new(1));
        let credit = Arc::new(Credit::default());
        let entries = Arc::new([AtomicBool::new(true), AtomicBool::new(false)]);
        assert!(budget.try_charge(1));
        let with_all = |act: fn(&Budget, &Credit, &[AtomicBool; 2])| {
            let all = (Arc::clone(&budget), Arc::clone(&credit), Arc::clone(&entries));
            thread::spawn(move || act(&all.0, &all.1, &all.2))
        };
        let evicting = with_all(|budget, credit, entries| {
            entries[0].store(false, Relaxed);
            budget.refund_to(credit, 1, 1);
        });
        let writer = with_all(|budget, credit, entries| {
            if budget.raise(credit, 0, &mut 0, 1) == 0 {
                entries[1].store(true, Release);
            }
        });
        if recalls {
            budget.recall(&credit);
        }
        as_reader(|| {
            if entries[1].load(Acquire) {
                assert!(!entries[0].load(Relaxed), "both entries, and the budget holds one");
            }
        });
        evicting.join().unwrap();
        writer.join().unwrap();
        // What is charged belongs to the new entry or to the credit.
        let is_in = u64::from(entries[1].load(Relaxed));
        assert_eq!(budget.used(), is_in + credit.get());
    });
}

#[test]
fn a_thread_that_sees_the_entry_on_credit_does_not_see_the_evicted_one() {
    evicted_on_credit(false);
}

#[test]
fn a_thread_that_sees_the_entry_on_recalled_credit_does_not_see_the_evicted_one() {
    evicted_on_credit(true);
}

#[test]
fn a_credit_is_drawn_once() {
    explore(|| {
        let budget = Arc::new(Budget::new(3));
        let credit = Arc::new(Credit::default());
        assert!(budget.try_charge(3));
        budget.refund_to(&credit, 1, 1);
        let threads = [0, 1].map(|_| {
            let (budget, credit) = (Arc::clone(&budget), Arc::clone(&credit));
            thread::spawn(move || u64::from(budget.raise(&credit, 0, &mut 0, 1) == 0))
        });
        budget.refund_to(&credit, 1, 1);
        let drawn: u64 = threads.into_iter().map(|thread| thread.join().unwrap()).sum();
        // If the first was not drawn yet, the second went to the budget.
        assert_eq!((budget.used(), drawn), (1 + drawn + credit.get(), drawn));
        assert!(credit.get() + drawn <= 2);
    });
}

#[test]
fn what_is_charged_ahead_is_within_the_limit() {
    explore(|| {
        let budget = Arc::new(Budget::new(3));
        let threads = [0, 1].map(|_| {
            let budget = Arc::clone(&budget);
            thread::spawn(move || {
                let credit = Credit::default();
                let mut held = 0;
                // The second time, it may be there.
                let short: [u64; 2] = [1, 2].map(|need| budget.raise(&credit, 1, &mut held, need));
                assert!(held == 2 - short.iter().filter(|short| **short > 0).count() as u64);
                (held, credit.get())
            })
        });
        let seen = as_reader(|| budget.used());
        assert!(seen <= 3, "{seen} of 3 seen");
        let [(one, ahead), (other, more)] = threads.map(|thread| thread.join().unwrap());
        assert_eq!(budget.used(), one + ahead + other + more);
        assert!(one > 0 && other > 0 && budget.used() == 3);
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
        budget.set_max(5, []);
        let second = u64::from(budget.try_charge(4));
        let first = charger.join().unwrap();
        // 8 fits only below the old limit. With 8 charged, 4 more fit below neither.
        assert!(first + second <= 1 && budget.used() == 8 * first + 4 * second);
        assert!(!budget.try_charge(6));
    });
}

/// Charges of inserts in progress above a lowered limit are not published.
/// Of the budget of 4, `credit` is charged ahead.
fn lowered(there: &'static [(u64, u64)], credit: u64, cost: u64, limit: u64, preemptions: usize) {
    let bounds = Bounds { preemptions: Some(preemptions), seconds: 5, schedules: 3_000 };
    explore_within(bounds, move || {
        let world = Arc::new(World::with(there));
        let budget = Arc::new(Budget::new(4));
        let own = Arc::new(Credit::default());
        let before: u64 = there.iter().map(|(_, cost)| cost).sum();
        assert!(budget.try_charge(before + credit));
        budget.refund_to(&own, credit, credit);
        let writer = {
            let (budget, own) = (Arc::clone(&budget), Arc::clone(&own));
            spawn(&world, move |w| w.set_within(&budget, &own, A, cost))
        };
        let held = world.lower(&budget, &own, limit);
        assert!(held <= limit, "{held} in the table, and the limit is {limit}");
        let shown = as_reader(|| budget.shown());
        assert!(shown <= limit, "{shown} of {limit} shown");
        let is_in = writer.join().unwrap();
        let left = World::finish(world);
        let held: u64 = left.iter().sum();
        budget.recall(&own);
        assert!(held <= limit && held == budget.used(), "{left:?} in the end");
        assert!(!is_in || cost <= limit || !left.contains(&cost));
    });
}

#[test]
fn insert_meets_a_limit_below_its_charge() {
    lowered(&[], 0, 3, 1, 3);
}

#[test]
fn insert_meets_a_limit_at_its_charge() {
    lowered(&[(B, 2)], 0, 2, 2, 3);
}

#[test]
fn replacement_of_what_costs_nothing_meets_a_limit_below_its_charge() {
    lowered(&[(A, 0)], 0, 3, 1, 3);
}

#[test]
fn insert_on_credit_meets_a_limit_below_it() {
    lowered(&[], 3, 3, 1, 3);
}

#[test]
fn insert_on_credit_meets_a_limit_at_it() {
    lowered(&[(B, 2)], 2, 2, 2, 3);
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
                budget.set_max(5, []);
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
