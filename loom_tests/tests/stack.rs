//! The stack: nodes are pushed one by one and taken all at once (`src/primitives/stack.rs`).

mod common;

use common::explore;
use cortado::__internals::primitives::stack::{Node, Stack};
use cortado::__internals::sync::{Arc, thread};

fn push(stack: &Stack<u32>, content: u32) {
    stack.push(Node::new(content));
}

/// Takes the top node and puts the others back.
fn take_one(stack: &Stack<u32>) -> Vec<u32> {
    let mut chain = stack.take();
    let one = chain.next().map(|node| **node);
    stack.put_back(chain);
    one.into_iter().collect()
}

fn take_all(stack: &Stack<u32>) -> Vec<u32> {
    stack.take().map(|node| **node).collect()
}

/// Checks that every node from 1 to `count` was taken once.
fn check(mut taken: Vec<u32>, count: u32) {
    taken.sort_unstable();
    assert_eq!(taken, (1..=count).collect::<Vec<_>>());
}

fn spawn<R: Send + 'static>(
    stack: &Arc<Stack<u32>>,
    f: impl FnOnce(&Stack<u32>) -> R + Send + 'static,
) -> thread::JoinHandle<R> {
    let stack = Arc::clone(stack);
    thread::spawn(move || f(&stack))
}

#[test]
fn two_threads_take_one_of_three_nodes() {
    explore(|| {
        let stack = Arc::new(Stack::new());
        (1..=3).for_each(|content| push(&stack, content));
        let other = spawn(&stack, take_one);
        let mut taken = take_one(&stack);
        taken.extend(other.join().unwrap());
        taken.extend(take_all(&stack));
        check(taken, 3);
    });
}

#[test]
fn a_thread_that_takes_a_node_sees_its_content() {
    explore(|| {
        let stack = Arc::new(Stack::new());
        let one = spawn(&stack, |stack| push(stack, 1));
        let two = spawn(&stack, |stack| push(stack, 2));
        let mut taken = take_all(&stack);
        taken.extend(take_all(&stack));
        one.join().unwrap();
        two.join().unwrap();
        taken.extend(take_all(&stack));
        check(taken, 2);
    });
}

/// One thread takes all nodes and puts the rest back beside a node that was pushed since.
#[test]
fn the_rest_goes_back_beside_concurrent_pushes() {
    explore(|| {
        let stack = Arc::new(Stack::new());
        (1..=2).for_each(|content| push(&stack, content));
        let pusher = spawn(&stack, |stack| push(stack, 3));
        let taker = spawn(&stack, take_one);
        let mut taken = take_one(&stack);
        pusher.join().unwrap();
        taken.extend(taker.join().unwrap());
        taken.extend(take_all(&stack));
        check(taken, 3);
    });
}
