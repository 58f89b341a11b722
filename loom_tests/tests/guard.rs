//! The collector alone: pins, grace periods, and slots that change owners
//! (`src/reclaim/sequence.rs`).

mod common;

use std::sync::{
    Arc as StdArc,
    atomic::{AtomicBool, AtomicUsize as StdAtomicUsize, Ordering::SeqCst},
};

use common::{Bounds, explore_within};
use cortado::__internals::{
    reclaim::{
        Domain,
        barrier::Barrier,
        sequence::{self, Grace, Guard, pin_for},
    },
    sync::{
        Arc, Watched,
        atomic::{AtomicUsize, Ordering},
        model::as_reader,
        thread,
    },
};

fn explore(scenario: impl Fn() + Send + Sync + 'static) {
    explore_within(Bounds { preemptions: Some(3), seconds: 4, schedules: 3_000 }, scenario);
}

/// Values, one of which is linked, as an entry is in the table of a cache.
struct Cache {
    domain: Domain,
    linked: AtomicUsize,
    values: [Value; 3],
}

/// Plain memory that loom watches, and a flag for shuttle that no model sees.
#[derive(Default)]
struct Value {
    watched: Watched,
    is_freed: AtomicBool,
}

impl Value {
    fn read(&self) {
        assert!(!self.is_freed.load(SeqCst), "read of a freed value");
        self.watched.read();
    }
}

impl Cache {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            domain: Domain::new(),
            linked: AtomicUsize::new(0),
            values: Default::default(),
        })
    }

    fn pin(&self) -> Guard {
        pin_for(self.domain)
    }

    fn find(&self, guard: &Guard) -> &Value {
        assert!(guard.covers(self.domain.part(1)));
        // Acquire: pairs with the Release in `unlink`.
        &self.values[self.linked.load(Ordering::Acquire)]
    }

    fn read(&self) {
        self.read_in(&self.pin());
    }

    fn read_in(&self, guard: &Guard) {
        self.find(guard).read();
    }

    /// Links the next value; returns the previous one and its grace period.
    fn unlink(&self, next: usize) -> (&Value, Grace) {
        // AcqRel: as an exchange in the table.
        let old = self.linked.swap(next, Ordering::AcqRel);
        (&self.values[old], Grace::begin(self.domain))
    }

    /// Frees a value if its grace period is over.
    fn free(&self, (value, grace): &mut (&Value, Grace)) -> bool {
        let has_ended = grace.has_ended();
        if has_ended {
            self.drop_value(value);
        }
        has_ended
    }

    fn drop_value(&self, value: &Value) {
        value.watched.write();
        value.is_freed.store(true, SeqCst);
    }

    fn sweep(&self) -> bool {
        let mut retired = self.unlink(1);
        (0..2).any(|_| self.free(&mut retired))
    }
}

fn spawn(cache: &Arc<Cache>, f: impl FnOnce(&Cache) + Send + 'static) -> thread::JoinHandle<()> {
    let cache = Arc::clone(cache);
    thread::spawn(move || as_reader(|| f(&cache)))
}

/// Explores a reader beside a sweep, with each kind of barrier.
fn read_beside_a_sweep(reader: fn(&Cache)) {
    for barrier in [Barrier::System, Barrier::Fences] {
        let freed = StdArc::new(StdAtomicUsize::new(0));
        let seen = StdArc::clone(&freed);
        explore(move || {
            sequence::reset_with(barrier);
            let cache = Cache::new();
            let reader = spawn(&cache, reader);
            seen.fetch_add(usize::from(cache.sweep()), SeqCst);
            reader.join().unwrap();
        });
        assert_ne!(freed.load(SeqCst), 0, "nothing was ever freed beside the reader");
    }
}

#[test]
fn a_pin_meets_a_grace_period() {
    read_beside_a_sweep(Cache::read);
}

#[test]
fn two_pins_of_one_thread_meet_a_grace_period() {
    read_beside_a_sweep(|cache| {
        cache.read();
        cache.read();
    });
}

#[test]
fn a_pin_and_one_of_another_cache_after_it_meet_a_grace_period() {
    read_beside_a_sweep(|cache| {
        cache.read();
        drop(pin_for(Domain::new()));
        cache.read();
    });
}

#[test]
fn a_pin_within_one_of_another_cache_meets_a_grace_period() {
    read_beside_a_sweep(|cache| {
        let _outer = pin_for(Domain::new());
        cache.read();
    });
}

#[test]
fn a_pin_of_another_cache_within_a_pin_meets_a_grace_period() {
    read_beside_a_sweep(|cache| {
        let outer = cache.pin();
        let value = cache.find(&outer);
        drop(pin_for(Domain::new()));
        value.read();
    });
}

#[test]
fn a_pin_that_is_renewed_meets_a_grace_period() {
    read_beside_a_sweep(|cache| {
        let mut guard = cache.pin();
        cache.find(&guard).read();
        guard.repin(cache.domain);
        cache.find(&guard).read();
    });
}

#[test]
fn a_pin_is_not_renewed_beside_another_guard_of_its_thread() {
    read_beside_a_sweep(|cache| {
        let (holder, mut guard) = (cache.pin(), cache.pin());
        let value = cache.find(&holder);
        guard.repin(cache.domain);
        value.read();
    });
}

/// Explores a reader of part 1 beside a sweep that frees the values that no pin of its period
/// protects.
fn read_a_part_beside_a_sweep(reader: fn(&Cache)) {
    for barrier in [Barrier::System, Barrier::Fences] {
        let freed = StdArc::new(StdAtomicUsize::new(0));
        let seen = StdArc::clone(&freed);
        explore(move || {
            sequence::reset_with(barrier);
            let cache = Cache::new();
            let reader = spawn(&cache, reader);
            let mut retired = cache.unlink(1);
            if !cache.free(&mut retired) && !retired.1.keeps(1) {
                // A pin has not ended, and protects another part.
                seen.fetch_add(1, SeqCst);
                cache.drop_value(retired.0);
            }
            reader.join().unwrap();
        });
        assert_ne!(freed.load(SeqCst), 0, "nothing was ever freed beside a pin");
    }
}

#[test]
fn a_pin_of_another_part_before_a_pin_meets_a_grace_period() {
    read_a_part_beside_a_sweep(|cache| {
        drop(pin_for(cache.domain.part(2)));
        cache.read_in(&pin_for(cache.domain.part(1)));
    });
}

#[test]
fn a_pin_within_one_of_another_part_meets_a_grace_period() {
    read_a_part_beside_a_sweep(|cache| {
        let _outer = pin_for(cache.domain.part(2));
        cache.read_in(&pin_for(cache.domain.part(1)));
    });
}

#[test]
fn a_pin_within_one_of_the_structure_meets_a_grace_period() {
    read_a_part_beside_a_sweep(|cache| {
        let _outer = pin_for(cache.domain.structure());
        cache.read_in(&pin_for(cache.domain.part(1)));
    });
}

#[test]
fn a_pin_of_another_part_within_a_pin_meets_a_grace_period() {
    read_a_part_beside_a_sweep(|cache| {
        drop(pin_for(cache.domain.structure()));
        let outer = pin_for(cache.domain.part(1));
        let value = cache.find(&outer);
        drop(pin_for(cache.domain.part(2)));
        value.read();
    });
}

/// Two values are retired one after the other. The later period may end first or last.
#[test]
fn a_pin_meets_two_grace_periods() {
    explore(|| {
        sequence::reset();
        let cache = Cache::new();
        let reader = spawn(&cache, Cache::read);
        let (mut one, mut two) = (cache.unlink(1), cache.unlink(2));
        cache.free(&mut two);
        cache.free(&mut one);
        reader.join().unwrap();
    });
}

/// The sweeper is a reader, too, and its guard delays its own period.
#[test]
fn a_sweeper_is_pinned_itself() {
    explore(|| {
        sequence::reset();
        let cache = Cache::new();
        let reader = spawn(&cache, Cache::read);
        let guard = cache.pin();
        let value = cache.find(&guard);
        assert!(!cache.sweep());
        value.read();
        drop(guard);
        reader.join().unwrap();
    });
}

/// The second thread may get the slot of the first, whose pins then count as its own.
#[test]
fn a_slot_changes_hands_beside_a_grace_period() {
    explore(|| {
        sequence::reset();
        let cache = Cache::new();
        let read_and_end = |cache: &Cache| {
            cache.read();
            sequence::end_thread();
        };
        let one = spawn(&cache, read_and_end);
        let two = spawn(&cache, read_and_end);
        cache.sweep();
        one.join().unwrap();
        two.join().unwrap();
    });
}

/// A period that waited for a thread that has ended is over, although its slot's next owner is
/// pinned.
#[test]
fn a_slot_s_next_owner_holds_no_older_period_back() {
    explore(|| {
        sequence::reset();
        let cache = Cache::new();
        let guard = cache.pin();
        let mut retired = cache.unlink(1);
        assert!(!cache.free(&mut retired));
        drop(guard);
        sequence::end_thread();
        let next = spawn(&cache, |cache| {
            let guard = cache.pin();
            cache.find(&guard).read();
            std::mem::forget(guard);
        });
        let other = spawn(&cache, |cache| drop(cache.pin()));
        next.join().unwrap();
        other.join().unwrap();
        assert!(cache.free(&mut retired));
    });
}

/// A guard in a thread-local variable, which is dropped after its thread released the slot.
#[test]
fn a_guard_outlives_its_thread() {
    explore(|| {
        sequence::reset();
        let cache = Cache::new();
        let reader = spawn(&cache, |cache| {
            let guard = cache.pin();
            let value = cache.find(&guard);
            sequence::end_thread();
            // A pin in a later destructor, which gets a slot of its own.
            cache.read();
            value.read();
        });
        let other = spawn(&cache, |cache| drop(cache.pin()));
        cache.sweep();
        reader.join().unwrap();
        other.join().unwrap();
    });
}

/// What it protects is never freed, and its slot is never another thread's.
#[test]
fn a_guard_is_leaked() {
    explore(|| {
        sequence::reset();
        let cache = Cache::new();
        let leaker = spawn(&cache, |cache| {
            std::mem::forget(cache.pin());
            sequence::end_thread();
        });
        leaker.join().unwrap();
        let other = spawn(&cache, |cache| drop(cache.pin()));
        assert!(!cache.sweep());
        other.join().unwrap();
        assert!(!cache.free(&mut cache.unlink(2)));
    });
}

/// A stalled reader of one cache does not delay another cache.
#[test]
fn a_pin_of_another_cache_holds_nothing_back() {
    explore(|| {
        sequence::reset();
        let cache = Cache::new();
        let stranger = spawn(&cache, |_| std::mem::forget(pin_for(Domain::new())));
        let _own = pin_for(Domain::new());
        assert!(cache.sweep());
        stranger.join().unwrap();
    });
}
