//! Runs work on several threads.
//!
//! The work is called through a pointer, once a thread. So what starts and joins threads is compiled
//! once, and for each cache only the work itself, in which nothing is called through a pointer.

use std::panic;
use std::thread;

/// What a thread does, given its number.
pub type Work<'a, T> = &'a (dyn Fn(usize) -> T + Sync);

/// Does the work on so many threads, and returns what each returned.
pub fn run<T: Send>(threads: usize, work: Work<'_, T>) -> Vec<T> {
    run_beside(threads, work, &mut || ())
}

/// Does the work on so many threads and something else on this one, and returns what each of the
/// threads returned.
pub fn run_beside<T: Send>(threads: usize, work: Work<'_, T>, own: &mut dyn FnMut()) -> Vec<T> {
    thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|i| scope.spawn(move || work(i))).collect();
        own();
        let results = workers
            .into_iter()
            .map(|worker| worker.join().unwrap_or_else(|payload| panic::resume_unwind(payload)));
        results.collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Barrier;

    #[test]
    fn results_are_in_the_order_of_the_threads() {
        let barrier = Barrier::new(4);
        let work = |i| {
            barrier.wait();
            i * 10
        };
        let results = run_beside(3, &work, &mut || {
            barrier.wait();
        });
        assert_eq!(results, [0, 10, 20]);
    }

    #[test]
    #[should_panic(expected = "in the second")]
    fn panic_reaches_the_caller() {
        run(2, &|i| assert_eq!(i, 0, "in the second"));
    }
}
