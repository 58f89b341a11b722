//! `Stack`: a Treiber stack with single pushes, from which all nodes are taken at once.
//!
//! # Protocol
//!
//! A push installs a node as the top by compare-and-exchange. A take swaps the top for null and
//! owns all nodes from then on; it may push some of them back. No thread pops a single node from a
//! shared stack, so a top that reappears (ABA) is harmless. All operations are lock-free.

use std::{
    ops::{Deref, DerefMut},
    ptr,
};

use super::{own, recheck};
use crate::sync::{
    Watched,
    atomic::{AtomicPtr, Ordering},
};

/// A lock-free stack of nodes.
pub struct Stack<N> {
    top: AtomicPtr<Node<N>>,
}

/// A node of a stack.
pub struct Node<N> {
    content: N,
    watched: Watched,
    /// The next node, in a stack or a chain.
    next: *mut Node<N>,
}

/// A list of nodes that were taken from a stack; it owns them.
pub struct Chain<N> {
    first: *mut Node<N>,
}

// SAFETY: only the owner of a node uses its `next`.
unsafe impl<N: Send> Send for Node<N> {}
// SAFETY: a shared reference to a node gives access to its content only.
unsafe impl<N: Sync> Sync for Node<N> {}
// SAFETY: a stack passes nodes from thread to thread and gives no shared access to their content.
unsafe impl<N: Send> Send for Stack<N> {}
// SAFETY: as above.
unsafe impl<N: Send> Sync for Stack<N> {}

impl<N> Node<N> {
    /// Makes a node.
    pub fn new(content: N) -> Box<Self> {
        Box::new(Self { content, watched: Watched::new(), next: ptr::null_mut() })
    }
}

impl<N> Deref for Node<N> {
    type Target = N;

    #[inline]
    fn deref(&self) -> &N {
        &self.content
    }
}

impl<N> DerefMut for Node<N> {
    #[inline]
    fn deref_mut(&mut self) -> &mut N {
        self.watched.write();
        &mut self.content
    }
}

impl<N> Stack<N> {
    /// Makes an empty stack.
    pub fn new() -> Self {
        Self { top: AtomicPtr::new(ptr::null_mut()) }
    }

    /// Pushes a node.
    pub fn push(&self, node: Box<Node<N>>) {
        let raw = Box::into_raw(node);
        self.push_all(raw, raw);
    }

    /// Takes all nodes, the newest first.
    pub fn take(&self) -> Chain<N> {
        // Relaxed: a check, so that an empty stack is not written to.
        if self.top.load(Ordering::Relaxed).is_null() {
            return Chain { first: ptr::null_mut() };
        }
        // Acquire: pairs with the Release in `push_all`, so that every node's content is visible.
        let first = if mutant!("stack_take_by_load") {
            self.top.load(Ordering::Acquire)
        } else {
            self.top.swap(ptr::null_mut(), Ordering::Acquire)
        };
        Chain { first }
    }

    /// Rechecks whether there is a node, for a thread that is about to sleep.
    ///
    /// It misses only pushes that see the recheck (see
    /// [`eventcount`](crate::primitives::eventcount)).
    pub fn recheck(&self) -> bool {
        if mutant!("eventcount_loads_stack") {
            return !self.top.load(Ordering::Relaxed).is_null();
        }
        recheck(&self.top)
    }

    /// Pushes the nodes of a chain.
    pub fn put_back(&self, mut chain: Chain<N>) {
        let first = std::mem::replace(&mut chain.first, ptr::null_mut());
        if first.is_null() {
            return;
        }
        let mut last = first;
        loop {
            // SAFETY: the chain's nodes came from `Box::into_raw`, and the chain owns them.
            let next = unsafe { (*last).next };
            if next.is_null() {
                break;
            }
            last = next;
        }
        self.push_all(first, last);
    }

    /// Pushes the caller's nodes, linked from `first` to `last`.
    fn push_all(&self, first: *mut Node<N>, last: *mut Node<N>) {
        // Relaxed: only compared, never read through.
        let mut top = self.top.load(Ordering::Relaxed);
        loop {
            // SAFETY: the caller owns the nodes until the exchange below succeeds.
            let node = unsafe { &mut *last };
            node.watched.write();
            node.next = top;
            // AcqRel: Release pairs with the Acquire in `take`. Each push continues the release
            // sequence of the pushes below it, so one Acquire sees all nodes. Acquire pairs with
            // the Release in `recheck`.
            // Relaxed: as in the first load.
            let order = ordering!(
                AcqRel,
                mutant("stack_relaxed_push") => Relaxed,
                mutant("eventcount_blind_push") => Release
            );
            match self.top.compare_exchange_weak(top, first, order, Ordering::Relaxed) {
                Ok(_) => return,
                Err(seen) => top = seen,
            }
        }
    }
}

impl<N> Default for Stack<N> {
    fn default() -> Self {
        Self::new()
    }
}

impl<N> Drop for Stack<N> {
    fn drop(&mut self) {
        drop(self.take());
    }
}

impl<N> Chain<N> {
    /// Returns whether no node is left.
    pub fn is_empty(&self) -> bool {
        self.first.is_null()
    }
}

impl<N> Iterator for Chain<N> {
    type Item = Box<Node<N>>;

    fn next(&mut self) -> Option<Self::Item> {
        // SAFETY: the chain's nodes came from `Box::into_raw`, and the chain owns them.
        let mut node = unsafe { own(self.first) }?;
        node.watched.write();
        self.first = std::mem::replace(&mut node.next, ptr::null_mut());
        Some(node)
    }
}

impl<N> Drop for Chain<N> {
    fn drop(&mut self) {
        self.for_each(drop);
    }
}

impl<N> std::fmt::Debug for Stack<N> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Stack").finish_non_exhaustive()
    }
}

impl<N> std::fmt::Debug for Chain<N> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Chain").finish_non_exhaustive()
    }
}

impl<N: std::fmt::Debug> std::fmt::Debug for Node<N> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.content.fmt(f)
    }
}

#[cfg(all(test, not(any(cortado_loom, cortado_shuttle))))]
mod tests {
    use super::*;

    fn content(stack: &Stack<u32>) -> Vec<u32> {
        stack.take().map(|node| **node).collect()
    }

    #[test]
    fn stack_is_taken_whole_and_newest_first() {
        let stack = Stack::new();
        assert!(content(&stack).is_empty());
        (1..4).for_each(|i| stack.push(Node::new(i)));
        assert_eq!(content(&stack), [3, 2, 1]);
        assert!(content(&stack).is_empty());
    }

    #[test]
    fn a_recheck_finds_a_node() {
        let stack = Stack::new();
        assert!(!stack.recheck());
        stack.push(Node::new(1));
        assert!(stack.recheck() && stack.recheck());
        assert_eq!(content(&stack), [1]);
        assert!(!stack.recheck());
    }

    #[test]
    fn rest_of_a_chain_is_put_back_on_top() {
        let stack = Stack::new();
        (1..4).for_each(|i| stack.push(Node::new(i)));
        let mut chain = stack.take();
        assert_eq!(**chain.next().unwrap(), 3);
        stack.push(Node::new(4));
        stack.put_back(chain);
        assert_eq!(content(&stack), [2, 1, 4]);
        stack.put_back(stack.take());
        assert!(content(&stack).is_empty());
    }

    #[test]
    fn nodes_are_dropped_with_stack_and_chain() {
        let counted = std::sync::Arc::new(());
        let stack = Stack::new();
        (0..5).for_each(|_| stack.push(Node::new(counted.clone())));
        let mut chain = stack.take();
        drop(chain.next());
        assert_eq!(std::sync::Arc::strong_count(&counted), 5);
        stack.push(Node::new(counted.clone()));
        drop(chain);
        assert_eq!(std::sync::Arc::strong_count(&counted), 2);
        drop(stack);
        assert_eq!(std::sync::Arc::strong_count(&counted), 1);
    }

    #[test]
    fn no_node_of_many_threads_is_lost_or_taken_twice() {
        let stack = Stack::new();
        let taken: Vec<u32> = std::thread::scope(|scope| {
            let work = |thread: u32| {
                let mut mine = Vec::new();
                for i in 0..5_000 {
                    stack.push(Node::new(thread << 16 | i));
                    if i % 3 == 0 {
                        let mut chain = stack.take();
                        mine.extend(chain.next().map(|node| **node));
                        stack.put_back(chain);
                    }
                }
                mine
            };
            let threads: Vec<_> = (0..4).map(|thread| scope.spawn(move || work(thread))).collect();
            threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
        });
        let mut all: Vec<u32> = taken.into_iter().chain(content(&stack)).collect();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), 20_000);
    }
}
