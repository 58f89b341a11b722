//! What the maintenance thread hands over is dropped once, by the owner that stops the thread or by
//! the thread itself (`src/primitives/handover.rs`). The owner never waits for user code.

mod common;

use std::{
    sync::{
        Arc as StdArc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use common::{Bounds, explore_within};
use cortado::__internals::{
    primitives::handover::Handover,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        thread,
    },
};

fn explore(scenario: impl Fn() + Send + Sync + 'static) {
    explore_within(Bounds { preemptions: Some(3), seconds: 4, schedules: 3_000 }, scenario);
}

/// The value handed over, which counts its drops.
struct Remains(StdArc<AtomicUsize>);

impl Drop for Remains {
    fn drop(&mut self) {
        self.0.fetch_add(1, SeqCst);
    }
}

/// Runs the owner on a thread of its own: it may be unparked once more after it has returned, and
/// loom's join would consume that token.
fn own(f: impl FnOnce() + Send + 'static) {
    thread::spawn(f).join().unwrap();
}

/// A thread with `sections` of user code, and an owner that waits for its end.
fn scenario(sections: usize, patience: Option<Duration>) {
    let dropped = StdArc::new(AtomicUsize::new(0));
    let handover = Arc::new(Handover::new());
    let thread = {
        let (handover, dropped) = (Arc::clone(&handover), StdArc::clone(&dropped));
        thread::spawn(move || {
            (0..sections).for_each(|_| handover.in_user_code(|| ()));
            handover.finish(Remains(dropped));
        })
    };
    own(move || {
        let remains = handover.wait(patience);
        assert!(remains.is_some() || patience.is_some());
        drop((remains, handover));
    });
    thread.join().unwrap();
    assert_eq!(dropped.load(SeqCst), 1);
}

#[test]
fn an_owner_meets_a_thread_that_ends() {
    explore(|| scenario(0, Some(Duration::ZERO)));
}

#[test]
fn an_owner_that_waits_meets_a_thread_in_user_code() {
    explore(|| scenario(1, None));
}

#[test]
fn an_owner_that_leaves_meets_a_thread_in_user_code() {
    explore(|| scenario(2, Some(Duration::ZERO)));
}

/// If the owner waited for it, this would deadlock.
#[test]
fn an_owner_meets_user_code_that_waits_for_the_owner() {
    explore(|| {
        let dropped = StdArc::new(AtomicUsize::new(0));
        let handover = Arc::new(Handover::new());
        let has_left = Arc::new(AtomicBool::new(false));
        let thread = {
            let (handover, dropped) = (Arc::clone(&handover), StdArc::clone(&dropped));
            let has_left = Arc::clone(&has_left);
            thread::spawn(move || {
                handover.in_user_code(|| {
                    while !has_left.load(Ordering::Acquire) {
                        thread::park();
                    }
                });
                handover.finish(Remains(dropped));
            })
        };
        let waiting = thread.thread().clone();
        own(move || {
            drop(handover.wait(Some(Duration::ZERO)));
            drop(handover);
            has_left.swap(true, Ordering::Release);
            waiting.unpark();
        });
        thread.join().unwrap();
        assert_eq!(dropped.load(SeqCst), 1);
    });
}
