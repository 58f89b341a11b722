//! The budget: charge and refund (`src/budget.rs`).

mod common;

use common::explore;
use cortado::__internals::budget::Budget;
use cortado::__internals::sync::atomic::AtomicBool;
use cortado::__internals::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use cortado::__internals::sync::model::as_reader;
use cortado::__internals::sync::{Arc, thread};

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
fn whoever_sees_the_new_entry_sees_the_one_that_paid_for_it_gone() {
    explore(|| {
        let budget = Arc::new(Budget::new(1));
        let entries = Arc::new([AtomicBool::new(true), AtomicBool::new(false)]);
        assert!(budget.try_charge(1));
        let evictor = {
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
        evictor.join().unwrap();
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
        // 8 fits below the old limit only, and with 8 charged 4 more fit below neither.
        assert!(first + second <= 1 && budget.used() == 8 * first + 4 * second);
        assert!(!budget.try_charge(6));
    });
}
