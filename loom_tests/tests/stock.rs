//! The stock: packs of memory go to the shelf and come back (`src/reclaim/stock.rs`). A pack has two
//! blocks here.

mod common;

use std::mem::MaybeUninit;

use common::explore;
use cortado::__internals::reclaim::stock::{BLOCKS, Stock};
use cortado::__internals::sync::{Arc, thread};

fn put(stock: &Stock<u64>, count: usize) {
    stock.put(std::iter::repeat_with(|| Box::new(MaybeUninit::uninit())).take(count));
}

/// Empties a pack and returns the addresses of its blocks, which stay allocated: no address may come
/// twice.
fn take(stock: &Stock<u64>) -> Vec<usize> {
    let Some(mut pack) = stock.take() else { return Vec::new() };
    let blocks = std::iter::from_fn(|| pack.pop());
    blocks.map(|block| std::ptr::from_mut(Box::leak(block)).addr()).collect()
}

fn check(mut addresses: Vec<usize>, made: usize) {
    let count = addresses.len();
    addresses.sort_unstable();
    addresses.dedup();
    assert_eq!((addresses.len(), count), (made, made), "a block was lost, or taken twice");
}

fn spawn<R: Send + 'static>(
    stock: &Arc<Stock<u64>>,
    f: impl FnOnce(&Stock<u64>) -> R + Send + 'static,
) -> thread::JoinHandle<R> {
    let stock = Arc::clone(stock);
    thread::spawn(move || f(&stock))
}

fn all(stock: &Stock<u64>) -> Vec<usize> {
    let mut all = Vec::new();
    loop {
        let taken = take(stock);
        if taken.is_empty() {
            return all;
        }
        all.extend(taken);
    }
}

#[test]
fn two_threads_take_from_a_shelf_of_three() {
    explore(|| {
        let stock = Arc::new(Stock::new(100));
        put(&stock, 2 * BLOCKS + 1);
        let other = spawn(&stock, take);
        let mut taken = take(&stock);
        taken.extend(other.join().unwrap());
        taken.extend(all(&stock));
        check(taken, 2 * BLOCKS + 1);
    });
}

#[test]
fn whoever_takes_a_pack_sees_its_blocks() {
    explore(|| {
        let stock = Arc::new(Stock::new(100));
        let one = spawn(&stock, |stock| put(stock, BLOCKS));
        let two = spawn(&stock, |stock| put(stock, 1));
        let mut taken = take(&stock);
        taken.extend(take(&stock));
        one.join().unwrap();
        two.join().unwrap();
        taken.extend(all(&stock));
        check(taken, BLOCKS + 1);
    });
}

/// One takes the whole shelf and puts the rest back, where by then another pack lies.
#[test]
fn the_rest_goes_back_beside_what_came_meanwhile() {
    explore(|| {
        let stock = Arc::new(Stock::new(100));
        put(&stock, 2 * BLOCKS);
        let putter = spawn(&stock, |stock| put(stock, 1));
        let giver = spawn(&stock, |stock| {
            let Some(mut pack) = stock.take() else { return Vec::new() };
            let first = pack.pop().map(|block| std::ptr::from_mut(Box::leak(block)).addr());
            stock.give_back(pack);
            first.into_iter().collect()
        });
        let mut taken = take(&stock);
        putter.join().unwrap();
        taken.extend(giver.join().unwrap());
        taken.extend(all(&stock));
        check(taken, 2 * BLOCKS + 1);
    });
}
