//! The pile: sheets are pushed one by one and taken all at once (`src/reclaim/pile.rs`).

mod common;

use common::explore;
use cortado::__internals::reclaim::pile::{Pile, Sheet};
use cortado::__internals::sync::{Arc, thread};

fn push(pile: &Pile<u32>, content: u32) {
    pile.push(Sheet::new(content));
}

/// Keeps the top sheet and puts the others back.
fn take_one(pile: &Pile<u32>) -> Vec<u32> {
    let mut chain = pile.take();
    let one = chain.next().map(|sheet| **sheet);
    pile.put_back(chain);
    one.into_iter().collect()
}

fn take_all(pile: &Pile<u32>) -> Vec<u32> {
    pile.take().map(|sheet| **sheet).collect()
}

/// Every sheet from 1 to `count` was taken once.
fn check(mut taken: Vec<u32>, count: u32) {
    taken.sort_unstable();
    assert_eq!(taken, (1..=count).collect::<Vec<_>>());
}

fn spawn<R: Send + 'static>(
    pile: &Arc<Pile<u32>>,
    f: impl FnOnce(&Pile<u32>) -> R + Send + 'static,
) -> thread::JoinHandle<R> {
    let pile = Arc::clone(pile);
    thread::spawn(move || f(&pile))
}

#[test]
fn two_threads_take_one_of_three_sheets() {
    explore(|| {
        let pile = Arc::new(Pile::new());
        (1..=3).for_each(|content| push(&pile, content));
        let other = spawn(&pile, take_one);
        let mut taken = take_one(&pile);
        taken.extend(other.join().unwrap());
        taken.extend(take_all(&pile));
        check(taken, 3);
    });
}

#[test]
fn whoever_takes_a_sheet_sees_what_is_on_it() {
    explore(|| {
        let pile = Arc::new(Pile::new());
        let one = spawn(&pile, |pile| push(pile, 1));
        let two = spawn(&pile, |pile| push(pile, 2));
        let mut taken = take_all(&pile);
        taken.extend(take_all(&pile));
        one.join().unwrap();
        two.join().unwrap();
        taken.extend(take_all(&pile));
        check(taken, 2);
    });
}

/// One takes all and puts the rest back, where by then another sheet lies.
#[test]
fn the_rest_goes_back_beside_what_came_meanwhile() {
    explore(|| {
        let pile = Arc::new(Pile::new());
        (1..=2).for_each(|content| push(&pile, content));
        let pusher = spawn(&pile, |pile| push(pile, 3));
        let taker = spawn(&pile, take_one);
        let mut taken = take_one(&pile);
        pusher.join().unwrap();
        taken.extend(taker.join().unwrap());
        taken.extend(take_all(&pile));
        check(taken, 3);
    });
}
