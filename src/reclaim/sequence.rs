//! The collector of this crate: grace periods by one sequence number per thread.
//!
//! # Protocol
//!
//! Each thread has a *slot*, a cache line that no other thread writes to. Its `seq` is even while
//! the thread is idle and odd while it is pinned, and only ever grows; `whose` is the [`Domain`] of
//! the pin.
//!
//! ```text
//! pin, outermost   whose = domain (Release); seq += 1 (Release); light barrier
//! pin, nested      of another domain or part: whose = both, joined (Release); light barrier
//! unpin, outermost seq += 1 (Release)
//! grace period     heavy barrier; record each slot whose seq is odd (Acquire) and whose `whose`,
//!                  read after it (Acquire), meets the domain, with its part;
//!                  ends when each recorded slot has another seq (Acquire)
//! ```
//!
//! A nested pin of another domain, or of another part of the same one, turns the outer pin into a
//! pin of both until the outer pin ends: guards may be dropped in any order.
//!
//! A pin of a [part](super::domain) protects the structure of its domain, but only some of its
//! values. A period records the part of each pin. Values that no recorded pin protects may be
//! dropped before the period ends ([`Grace::keeps`]).
//!
//! So a pin writes two words of a cache line of its own, reads no shared one and executes no fence.
//! A thread that pins repeatedly delays no period, and a period in which no thread is pinned ends
//! at once. A period also records the slot of the thread that begins it.
//!
//! # Lifetime of a slot
//!
//! A thread takes a slot at its first pin and gives it back when it ends. The slot contains the
//! number of the thread's guards: if a guard outlives the end of the thread (in another
//! thread-local variable), the last guard gives the slot back instead, and a leaked guard keeps the
//! slot for ever. A pin in the destructor of a thread-local variable, after the thread has given
//! its slot back, takes a slot of its own. Slots are allocated in chunks on a list that only grows,
//! and are reused; `seq` continues from its last value, because otherwise a period could mistake a
//! new pin for an old one.
//!
//! # Orderings
//!
//! * Barrier ([`barrier`](super::barrier)): either the sweeper finds `seq` odd, or the reads under
//!   the pin come after the sweeper's barrier and see all that was unlinked before it. This also
//!   holds for `whose` of a nested pin and for the chunk of a new slot.
//! * Release of the unpin ↔ Acquire of the sweeper's load: the reads under this pin, and under all
//!   pins before it, happen before memory is freed.
//! * Release of `seq` at a pin ↔ Acquire of the sweeper's load: an odd number makes the `whose` of
//!   its pin, or a later one, visible. Release of `whose` ↔ its Acquire: a later one means that the
//!   pin has ended. So `seq` is read first.

use std::{cell::Cell, fmt, marker::PhantomData, ptr};

use crossbeam_utils::CachePadded;

pub use self::process::registry;
#[cfg(any(cortado_loom, cortado_shuttle))]
pub use self::process::{end_thread, reset, reset_with};
use super::{
    Domain, Part, Reader,
    barrier::{Barrier, light},
    departure::Departure,
};
use crate::sync::{
    IS_MODEL,
    atomic::{AtomicPtr, AtomicU64, AtomicUsize, Ordering},
    thread_local, thread_number,
};

/// Slots of a chunk. One in the models, so that the list grows there.
const SLOTS_PER_CHUNK: usize = if IS_MODEL { 1 } else { 16 };
/// Flag of [`Slot::held`]: the thread has ended.
const HAS_LEFT: usize = 1 << (usize::BITS - 1);
/// Flag of [`Slot::held`]: pins execute a fence.
const FENCES: usize = 1 << (usize::BITS - 2);
/// The bits of [`Slot::held`] that count the guards.
const GUARDS: usize = FENCES - 1;
/// [`Slot::owner`] of a slot that no thread has taken.
const FREE: u64 = 0;
/// [`Slot::owner`] of a slot that was taken by a thread whose variables were being destroyed.
const ENDING: u64 = u64::MAX;

/// A pin; see the [module](super).
pub struct Guard {
    slot: &'static Slot,
    /// Dropped after the pin has ended: a thread that it wakes finds the slot idle.
    _departure: Departure,
    /// Neither `Send` nor `Sync`: only one thread writes the slot's words.
    _is_local: PhantomData<*mut ()>,
}

/// Pins the current thread for a domain.
///
/// Costs two stores to a cache line of the thread's own, and a fence where the system has no
/// asymmetric barrier.
#[inline]
pub fn pin_for(domain: Domain) -> Guard {
    match SLOT.try_with(Cell::get) {
        Ok(Some(slot)) => slot.pin(domain),
        _ => first_pin(domain),
    }
}

/// Pins a thread that has no slot, or no longer has one.
#[cold]
#[inline(never)]
fn first_pin(domain: Domain) -> Guard {
    // The first access registers the destructor; access fails once the destructor has run.
    if process::has_ended() || LEAVING.try_with(|_| ()).is_err() {
        let slot = registry().take_slot(ENDING);
        slot.leave_to_guards();
        return slot.pin(domain);
    }
    let slot = registry().take_slot(thread_number() as u64);
    slot.note_name();
    let _ = LEAVING.try_with(|leaving| leaving.0.set(Some(slot)));
    let _ = SLOT.try_with(|own| own.set(Some(slot)));
    slot.pin(domain)
}

thread_local! {
    /// This thread's slot. Has no destructor, so that it can always be read.
    static SLOT: Cell<Option<&'static Slot>> = const { Cell::new(None) };
}
thread_local! {
    /// This thread's slot again, to be given back when the thread ends.
    static LEAVING: Leaving = const { Leaving(Cell::new(None)) };
}

struct Leaving(Cell<Option<&'static Slot>>);

impl Drop for Leaving {
    fn drop(&mut self) {
        // After a failure the model is destroyed before its threads' variables.
        if IS_MODEL && std::thread::panicking() {
            return;
        }
        // A pin in a later destructor takes a slot of its own.
        let _ = SLOT.try_with(|own| own.set(None));
        if let Some(slot) = self.0.take() {
            slot.leave();
        }
    }
}

impl Guard {
    /// Ends the pin and begins a new one of `domain`, unless the thread has other guards.
    pub fn repin(&mut self, domain: Domain) {
        let held = self.slot.held.load(Ordering::Relaxed); // Relaxed: written by this thread.
        if held & GUARDS == 1 || mutant!("guard_repins_beside") {
            self.slot.begin(domain, 2, held);
        }
    }

    /// Returns whether this guard protects all memory of `domain`.
    pub fn covers(&self, domain: Domain) -> bool {
        // Relaxed: written by this thread.
        Domain::from_bits(self.slot.whose.load(Ordering::Relaxed)).covers(domain)
    }

    /// Does nothing: a grace period needs no help.
    pub fn advance(&self) {}
}

impl Drop for Guard {
    #[inline]
    fn drop(&mut self) {
        self.slot.unpin();
    }
}

impl fmt::Debug for Guard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guard").finish_non_exhaustive()
    }
}

/// A thread's announcement of its pins.
pub struct Slot {
    /// Even: idle. Odd: pinned.
    seq: AtomicU64,
    /// The domain of the pin, as bits.
    whose: AtomicU64,
    /// The number of guards, and two flags. Only the owner uses it.
    held: AtomicUsize,
    /// The number of the thread that has the slot, or `FREE`, or `ENDING`.
    owner: AtomicU64,
    /// The first bytes of that thread's name.
    name: [AtomicU64; 2],
}

impl Slot {
    fn new(flags: usize, owner: u64) -> Self {
        Self {
            seq: AtomicU64::new(0),
            whose: AtomicU64::new(Domain::ANY.to_bits()),
            held: AtomicUsize::new(flags),
            owner: AtomicU64::new(owner),
            name: [AtomicU64::new(0), AtomicU64::new(0)],
        }
    }

    #[inline]
    fn pin(&'static self, domain: Domain) -> Guard {
        // Relaxed, here and wherever `held` is used: only the owner uses it, and a new owner
        // acquires it through `owner`.
        let held = self.held.load(Ordering::Relaxed);
        if held == 0 {
            self.held.store(1, Ordering::Relaxed);
            self.begin(domain, 1, held);
        } else {
            self.pin_slowly(domain, held);
        }
        Guard { slot: self, _departure: Departure, _is_local: PhantomData }
    }

    /// Begins a nested pin, or a pin of a slot with a flag.
    #[inline(never)]
    fn pin_slowly(&self, domain: Domain, held: usize) {
        // On 64 bits, no process runs long enough to leak so many.
        assert!(usize::BITS >= 64 || held & GUARDS < GUARDS, "too many guards were leaked");
        self.held.store(held + 1, Ordering::Relaxed); // Relaxed: as in `pin`.
        if held & GUARDS == 0 {
            return self.begin(domain, 1, held);
        }
        let whose = self.whose.load(Ordering::Relaxed); // Relaxed: written by this thread.
        let joined = Domain::from_bits(whose).joined(domain).to_bits();
        if joined != whose {
            self.join(joined, held);
        }
    }

    /// Extends the existing pin to another domain.
    #[cold]
    fn join(&self, joined: u64, held: usize) {
        if mutant!("guard_keeps_whose") {
            return;
        }
        // Release: as in `begin`.
        announce(&self.whose, joined, Ordering::Release);
        if !mutant!("guard_no_nested_fence") {
            pass_light(held);
        }
    }

    /// Begins a pin and adds `step` to the sequence number.
    #[inline]
    fn begin(&self, domain: Domain, step: u64, held: usize) {
        // Release: pairs with the Acquire in `Registry::note`; a sweeper that sees this domain
        // after the number of an earlier pin knows that the reads under that pin have happened.
        let order = ordering!(Release, mutant("guard_relaxed_whose") => Relaxed);
        announce(&self.whose, domain.to_bits(), order);
        let seq = self.seq.load(Ordering::Relaxed); // Relaxed: written by this thread.
        // Release: pairs with the Acquire in `Registry::note`, which then sees this domain, and
        // (for a repin) with that in `Pin::has_ended`, as in `end`.
        let order = ordering!(Release, mutant("guard_relaxed_pin") => Relaxed);
        announce(&self.seq, seq.wrapping_add(step), order);
        pass_light(held);
    }

    #[inline]
    fn unpin(&self) {
        let held = self.held.load(Ordering::Relaxed) - 1; // Relaxed: as in `pin`.
        self.held.store(held, Ordering::Relaxed); // Relaxed: as in `pin`.
        if held == 0 {
            self.end();
        } else if held & GUARDS == 0 {
            self.end_slowly(held);
        }
    }

    /// Ends a pin of a slot with a flag.
    #[inline(never)]
    fn end_slowly(&self, held: usize) {
        self.end();
        if held & HAS_LEFT != 0 {
            self.give_back(held);
        }
    }

    #[inline]
    fn end(&self) {
        let seq = self.seq.load(Ordering::Relaxed); // Relaxed: written by this thread.
        // Release: pairs with the Acquires in `Registry::note` and `Pin::has_ended`; all reads
        // under the pin happen before.
        let order = ordering!(Release, mutant("guard_relaxed_unpin") => Relaxed);
        announce(&self.seq, seq.wrapping_add(1), order);
    }

    /// Gives the slot back at the end of the thread, or leaves that to its last guard.
    fn leave(&self) {
        let held = self.held.load(Ordering::Relaxed); // Relaxed: as in `pin`.
        if held & GUARDS == 0 || mutant!("guard_gives_back_early") {
            self.give_back(held);
        } else {
            self.leave_to_guards();
        }
    }

    /// Leaves it to the last guard to give the slot back.
    fn leave_to_guards(&self) {
        let held = self.held.load(Ordering::Relaxed); // Relaxed: as in `pin`.
        self.held.store(held | HAS_LEFT, Ordering::Relaxed); // Relaxed: as in `pin`.
    }

    fn give_back(&self, held: usize) {
        self.held.store(held & FENCES, Ordering::Relaxed); // Relaxed: as in `pin`.
        if mutant!("guard_resets_seq") {
            self.seq.store(0, Ordering::Release);
        }
        // Release: pairs with the Acquire in `Registry::take_slot`: the next owner continues with
        // the words as they are, and its pins come after those of this owner.
        let order = ordering!(Release, mutant("guard_relaxed_give_back") => Relaxed);
        self.owner.store(FREE, order);
    }

    /// Stores the thread's name, for [`reader`](Self::reader).
    fn note_name(&self) {
        let name = process::thread_name();
        let whole = u128::from_le_bytes(name);
        for (word, bits) in self.name.iter().zip([whole as u64, (whole >> 64) as u64]) {
            word.store(bits, Ordering::Relaxed); // Relaxed: diagnostics only; two names may mix.
        }
    }

    fn reader(&self) -> Reader {
        // Relaxed: as in `note_name`.
        let thread = Some(self.owner.load(Ordering::Relaxed)).filter(|&o| o != FREE && o != ENDING);
        if thread.is_none() {
            // The name is an earlier owner's.
            return Reader { thread, name: String::new() };
        }
        // Relaxed: as in `note_name`.
        let [low, high] = [0, 1].map(|i| u128::from(self.name[i].load(Ordering::Relaxed)));
        let name = (low | high << 64).to_le_bytes();
        let length = name.iter().position(|&byte| byte == 0).unwrap_or(name.len());
        Reader { thread, name: String::from_utf8_lossy(&name[..length]).into_owned() }
    }
}

impl fmt::Debug for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.reader().fmt(f)
    }
}

fn is_pinned(seq: u64) -> bool {
    seq & 1 == 1
}

/// Stores a word that sweepers load.
#[inline]
fn announce(word: &AtomicU64, value: u64, order: Ordering) {
    if cfg!(cortado_tsan) {
        // AcqRel: models the barrier that follows, which the race detector does not see. Either the
        // sweeper's `look` comes after this and finds the value, or it came before, and this comes
        // after all that the sweeper saw.
        word.swap(value, Ordering::AcqRel);
    } else {
        word.store(value, order);
    }
}

/// Loads a word that a thread has announced.
#[inline]
fn look(word: &AtomicU64, order: Ordering) -> u64 {
    if cfg!(cortado_tsan) {
        word.fetch_add(0, Ordering::AcqRel) // AcqRel: see `announce`.
    } else {
        word.load(order)
    }
}

/// Executes the light side of the barrier.
#[inline]
fn pass_light(held: usize) {
    if held & FENCES == 0 {
        light();
    } else {
        Barrier::fence_light();
    }
}

/// All slots of a process.
#[derive(Debug)]
pub struct Registry {
    barrier: Barrier,
    chunks: AtomicPtr<Chunk>,
}

struct Chunk {
    slots: [CachePadded<Slot>; SLOTS_PER_CHUNK],
    next: Option<&'static Chunk>,
}

impl Registry {
    /// Makes a registry without slots.
    pub fn new(barrier: Barrier) -> Self {
        Self { barrier, chunks: AtomicPtr::new(ptr::null_mut()) }
    }

    fn first_chunk(&self) -> Option<&'static Chunk> {
        // Acquire: pairs with the Release in `add_chunk`, so that the slots are seen initialized.
        let chunk = self.chunks.load(Ordering::Acquire);
        // SAFETY: the pointer is null or from `Box::into_raw` in `add_chunk`; chunks are never
        // freed.
        unsafe { chunk.as_ref() }
    }

    fn slots(&self) -> impl Iterator<Item = &'static Slot> + use<> {
        std::iter::successors(self.first_chunk(), |chunk| chunk.next)
            .flat_map(|chunk| &chunk.slots)
            .map(|slot| &**slot)
    }

    fn take_slot(&self, owner: u64) -> &'static Slot {
        let free = self.slots().find(|slot| {
            // Relaxed: a check, and a failure is not used. Acquire: pairs with the Release in
            // `give_back`.
            slot.owner.load(Ordering::Relaxed) == FREE
                && slot
                    .owner
                    .compare_exchange(FREE, owner, Ordering::Acquire, Ordering::Relaxed)
                    .is_ok()
        });
        free.unwrap_or_else(|| self.add_chunk(owner))
    }

    /// Adds a chunk, and takes its first slot.
    #[cold]
    fn add_chunk(&self, owner: u64) -> &'static Slot {
        let flags = if self.barrier == Barrier::Fences { FENCES } else { 0 };
        let slot = |i| CachePadded::new(Slot::new(flags, if i == 0 { owner } else { FREE }));
        let mut chunk = Box::new(Chunk { slots: std::array::from_fn(slot), next: None });
        loop {
            chunk.next = self.first_chunk();
            let next = chunk.next.map_or(ptr::null_mut(), |next| ptr::from_ref(next).cast_mut());
            let raw = Box::into_raw(chunk);
            // Release: pairs with the Acquire in `first_chunk`. Relaxed: on failure, the list is
            // loaded again above.
            let order = ordering!(Release, mutant("guard_relaxed_chunk") => Relaxed);
            if self.chunks.compare_exchange(next, raw, order, Ordering::Relaxed).is_ok() {
                process::note_chunk(raw);
                // SAFETY: the pointer is from a box that is shared from now on and never freed.
                return unsafe { &(*raw).slots[0] };
            }
            // SAFETY: the exchange failed, so this thread still owns `raw`.
            chunk = unsafe { Box::from_raw(raw) };
        }
    }

    /// Records the pins that meet a domain. For a grace period, a heavy barrier must come before.
    fn note(&self, domain: Domain) -> Pins {
        let mut pins = Vec::new();
        for slot in self.slots() {
            if mutant!("guard_skips_itself")
                && SLOT.try_with(Cell::get).ok().flatten().is_some_and(|s| ptr::eq(s, slot))
            {
                continue;
            }
            if mutant!("guard_whose_before_seq") {
                let whose = slot.whose.load(Ordering::Acquire);
                let seq = slot.seq.load(Ordering::Acquire);
                let whose = Domain::from_bits(whose);
                if is_pinned(seq) && whose.meets(domain) {
                    pins.push(Pin { slot, seq, whose });
                }
                continue;
            }
            // Acquire: if the number is even, pairs with the Release in `end`: all earlier pins
            // have ended. If it is odd, pairs with that in `begin`, so that the pin's domain is
            // visible.
            let order = ordering!(Acquire, mutant("guard_relaxed_look") => Relaxed);
            let seq = look(&slot.seq, order);
            if !is_pinned(seq) {
                continue;
            }
            // Acquire: pairs with the Release in `begin`: if the domain is of a later pin, this pin
            // has ended.
            let order = ordering!(Acquire, mutant("guard_relaxed_look_at_whose") => Relaxed);
            let whose = Domain::from_bits(look(&slot.whose, order));
            if whose.meets(domain) {
                pins.push(Pin { slot, seq, whose });
            }
        }
        Pins { pins }
    }
}

impl fmt::Debug for Chunk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(&self.slots).finish()
    }
}

/// A pin that a sweeper has found.
#[derive(Clone, Debug)]
pub struct Pin {
    slot: &'static Slot,
    seq: u64,
    /// What the pin protects until it ends. A part that the thread has pinned since then is
    /// irrelevant to the period: that pin began after the period.
    whose: Domain,
}

/// Returns the current pins that meet a domain.
///
/// Executes no barrier: a pin that has only just begun may be missed.
pub fn pins_of(domain: Domain) -> Vec<Pin> {
    registry().note(domain).pins
}

impl Pin {
    /// Returns whether the pin has ended, even if the thread has pinned again.
    pub fn has_ended(&self) -> bool {
        // Acquire: pairs with the Release in `end` and in `begin` of a repin: all reads under the
        // pin happen before.
        let order = ordering!(Acquire, mutant("guard_relaxed_grace") => Relaxed);
        look(&self.slot.seq, order) != self.seq
    }

    /// Returns the thread that is, or was, pinned.
    pub fn reader(&self) -> Reader {
        self.slot.reader()
    }

    /// Returns a key that no other pin of the process has, earlier and later ones included.
    pub fn key(&self) -> (usize, u64) {
        (ptr::from_ref(self.slot).addr(), self.seq)
    }
}

/// The pins that one scan has found, without those that were seen to have ended since.
#[derive(Clone, Debug, Default)]
struct Pins {
    pins: Vec<Pin>,
}

impl Pins {
    /// Removes the pins that have ended; returns whether none is left.
    fn have_ended(&mut self) -> bool {
        self.pins.retain(|pin| !pin.has_ended());
        self.pins.is_empty()
    }
}

/// A grace period: ends when all pins of a domain that existed at its beginning have ended.
#[derive(Clone, Debug)]
pub struct Grace {
    domain: Domain,
    /// `None` while the heavy barrier fails: the period has not begun.
    pins: Option<Pins>,
}

impl Grace {
    /// Begins a period for memory that was unlinked before, by this thread or as seen by it.
    ///
    /// If the barrier is [`Barrier::System`], this interrupts every running thread of the process,
    /// so one period should serve many values.
    pub fn begin(domain: Domain) -> Self {
        Self::begin_in(registry(), domain)
    }

    fn begin_in(registry: &Registry, domain: Domain) -> Self {
        let mut grace = Self { domain, pins: None };
        grace.begin_again(registry);
        grace
    }

    /// Returns whether the period has ended: all reads under its guards have happened before.
    pub fn has_ended(&mut self) -> bool {
        self.has_ended_in(registry())
    }

    fn has_ended_in(&mut self, registry: &Registry) -> bool {
        if self.pins.is_none() {
            self.begin_again(registry);
        }
        self.pins.as_mut().is_some_and(Pins::have_ended)
    }

    /// Returns whether a pin of the period protects the values of a part: a pin that had not ended
    /// at the last call of [`has_ended`](Self::has_ended).
    ///
    /// Returns `true` for every part while the period has not begun.
    pub fn keeps(&self, part: Part) -> bool {
        let part = self.domain.part(part);
        let Some(Pins { pins }) = &self.pins else { return true };
        pins.iter().any(|pin| pin.whose.covers(part)) && !mutant!("guard_keeps_no_part")
    }

    fn begin_again(&mut self, registry: &Registry) {
        if registry.barrier.heavy() {
            self.pins = Some(registry.note(self.domain));
        }
    }
}

/// The process-wide registry.
#[cfg(not(any(cortado_loom, cortado_shuttle)))]
mod process {
    use std::sync::OnceLock; // shim: the models have a file of their own

    use super::{Barrier, Chunk, Registry};

    /// Returns the registry of this process.
    pub fn registry() -> &'static Registry {
        static REGISTRY: OnceLock<Registry> = OnceLock::new();
        REGISTRY.get_or_init(|| Registry::new(Barrier::choose()))
    }

    pub(super) fn note_chunk(_: *mut Chunk) {}

    /// Returns the first bytes of the thread's name, padded with zeros.
    pub(super) fn thread_name() -> [u8; 16] {
        let mut first = [0; 16];
        let thread = crate::sync::thread::current();
        let name = thread.name().unwrap_or_default().bytes();
        first.iter_mut().zip(name).for_each(|(to, from)| *to = from);
        first
    }

    /// Returns `false`: outside of the models, access to a destroyed thread-local variable fails.
    pub(super) fn has_ended() -> bool {
        false
    }
}

#[cfg(any(cortado_loom, cortado_shuttle))]
#[path = "sequence_model.rs"]
mod process;

#[cfg(all(test, not(any(cortado_loom, cortado_shuttle))))]
mod tests {
    use std::{
        cell::RefCell,
        sync::mpsc,
        thread,
        time::{Duration, Instant},
    };

    use super::*;

    /// Returns a registry of the test's own.
    fn alone(barrier: Barrier) -> &'static Registry {
        crate::util::forever(Registry::new(barrier))
    }

    /// Waits for the end of a period. Other tests pin for every domain, and may be preempted for
    /// long.
    fn wait(mut grace: Grace) {
        let end = Instant::now() + Duration::from_secs(30);
        while !grace.has_ended() {
            assert!(Instant::now() < end, "the period never ended");
            thread::yield_now();
        }
    }

    #[test]
    fn period_without_a_pin_ends_at_once() {
        let domain = Domain::new();
        drop(pin_for(domain));
        for barrier in [Barrier::choose(), Barrier::Fences] {
            let registry = alone(barrier);
            drop(registry.take_slot(1).pin(domain));
            assert!(Grace::begin_in(registry, domain).has_ended_in(registry));
        }
    }

    #[test]
    fn period_lasts_as_long_as_the_pins_of_its_beginning() {
        for barrier in [Barrier::choose(), Barrier::Fences] {
            let (registry, domain) = (alone(barrier), Domain::new());
            let slots = [(); 20].map(|()| registry.take_slot(1));
            let early = slots[0].pin(domain);
            let mut grace = Grace::begin_in(registry, domain);
            let late = slots[19].pin(domain);
            assert!(!grace.has_ended_in(registry));
            drop(early);
            let again = slots[0].pin(domain);
            assert!(grace.has_ended_in(registry));
            drop((late, again));
        }
    }

    #[test]
    fn barrier_that_fails_ends_no_period() {
        let (registry, domain) = (alone(Barrier::Failing), Domain::new());
        let mut grace = Grace::begin_in(registry, domain);
        assert!(!grace.has_ended_in(registry) && !grace.has_ended_in(registry));
        // The period begins once a barrier succeeds.
        let working = alone(Barrier::Fences);
        let guard = working.take_slot(1).pin(domain);
        assert!(!grace.has_ended_in(working));
        drop(guard);
        assert!(grace.has_ended_in(working));
    }

    #[test]
    fn period_knows_which_parts_its_pins_keep() {
        let (registry, domain) = (alone(Barrier::choose()), Domain::new());
        let slots = [(); 3].map(|()| registry.take_slot(1));
        let guards = [
            slots[0].pin(domain.part(1)),
            slots[1].pin(domain.structure()),
            slots[2].pin(Domain::new().part(3)),
        ];
        assert!(guards[0].covers(domain.part(1)) && guards[0].covers(domain.structure()));
        assert!(!guards[0].covers(domain.part(2)) && !guards[1].covers(domain.part(1)));
        let kept = |grace: &Grace| [1, 2, 3].map(|part| grace.keeps(part));
        let mut grace = Grace::begin_in(registry, domain);
        assert!(!grace.has_ended_in(registry));
        assert_eq!(kept(&grace), [true, false, false]);
        let nested = slots[1].pin(domain.part(2));
        assert_eq!(kept(&Grace::begin_in(registry, domain)), [true, true, false]);
        let all = slots[1].pin(domain);
        assert_eq!(kept(&Grace::begin_in(registry, domain)), [true; 3]);
        // The earlier period knows of neither pin and need not wait for them.
        assert_eq!(kept(&grace), [true, false, false]);
        let [first, ..] = guards;
        drop(first);
        assert!(!grace.has_ended_in(registry));
        assert_eq!(kept(&grace), [false; 3]);
        drop((nested, all));
        // A period that has not begun.
        let failed = Grace::begin_in(alone(Barrier::Failing), domain);
        assert_eq!(kept(&failed), [true; 3]);
    }

    #[test]
    fn pin_holds_back_no_other_domain() {
        let (registry, mine, other) = (alone(Barrier::choose()), Domain::new(), Domain::new());
        let slot = registry.take_slot(1);
        let _outer = slot.pin(mine);
        let has_ended = |domain| Grace::begin_in(registry, domain).has_ended_in(registry);
        assert!(!has_ended(mine) && has_ended(other) && !has_ended(Domain::ANY));
        // From here on the slot covers both domains, until the outer pin ends.
        drop(slot.pin(other));
        assert!(!has_ended(mine) && !has_ended(other) && !has_ended(Domain::new()));
    }

    #[test]
    fn repin_ends_the_old_pin_unless_the_thread_has_another_guard() {
        let (registry, domain) = (alone(Barrier::choose()), Domain::new());
        let slot = registry.take_slot(1);
        let mut guard = slot.pin(domain);
        drop(slot.pin(Domain::new()));
        let mut grace = Grace::begin_in(registry, domain);
        let other = slot.pin(domain);
        guard.repin(domain);
        assert!(!grace.has_ended_in(registry));
        drop(other);
        guard.repin(domain);
        assert!(grace.has_ended_in(registry));
        assert!(!Grace::begin_in(registry, domain).has_ended_in(registry));
        assert!(Grace::begin_in(registry, Domain::new()).has_ended_in(registry));
    }

    #[test]
    fn reused_slot_continues_its_sequence() {
        let registry = alone(Barrier::Fences);
        let first = registry.take_slot(1);
        drop(first.pin(Domain::ANY));
        let guard = first.pin(Domain::ANY);
        assert!(!ptr::eq(registry.take_slot(2), first));
        first.leave();
        assert!(!ptr::eq(registry.take_slot(3), first), "a guard lives");
        drop(guard);
        let again = registry.take_slot(4);
        assert!(ptr::eq(again, first));
        assert_eq!(again.seq.load(Ordering::SeqCst), 4);
        assert_eq!(again.held.load(Ordering::SeqCst), FENCES);
    }

    #[test]
    fn slot_does_not_show_the_name_of_an_earlier_owner() {
        let registry = alone(Barrier::choose());
        let slot = registry.take_slot(7);
        slot.note_name();
        let reader = slot.reader();
        assert!(reader.thread == Some(7) && !reader.name.is_empty(), "{reader:?}");
        slot.leave();
        assert!(ptr::eq(registry.take_slot(ENDING), slot));
        assert_eq!(slot.reader(), Reader { thread: None, name: String::new() });
    }

    #[test]
    fn leaked_guard_keeps_its_slot() {
        let registry = alone(Barrier::choose());
        let slot = registry.take_slot(1);
        std::mem::forget(slot.pin(Domain::ANY));
        slot.leave();
        assert!((0..100).all(|i| !ptr::eq(registry.take_slot(i + 2), slot)));
        assert!(!Grace::begin_in(registry, Domain::new()).has_ended_in(registry));
    }

    thread_local! {
        /// First accessed before or after the thread's first pin, and so destroyed after or before
        /// the thread gives its slot back.
        static KEPT: Kept = const { Kept(RefCell::new(None)) };
    }

    /// Pins in its destructor, under an older guard if there is one.
    struct Kept(RefCell<Option<Ending>>);

    struct Ending {
        domain: Domain,
        guard: Option<Guard>,
        done: mpsc::Sender<()>,
    }

    impl Drop for Kept {
        fn drop(&mut self) {
            let Some(Ending { domain, guard, done }) = self.0.take() else { return };
            let mut grace = Grace::begin(domain);
            assert!(guard.is_none() || !grace.has_ended());
            let (one, two) = (pin_for(domain), pin_for(Domain::ANY));
            drop(guard);
            let mut late = Grace::begin(domain);
            drop(one);
            assert!(!late.has_ended());
            drop(two);
            wait(grace);
            wait(late);
            done.send(()).unwrap();
        }
    }

    #[test]
    fn guards_in_destructors_delay_periods_in_either_destructor_order() {
        for is_pinned_first in [false, true] {
            for keeps_guard in [false, true] {
                let (done, reports) = mpsc::channel();
                let domain = Domain::new();
                let ending = thread::spawn(move || {
                    if is_pinned_first {
                        drop(pin_for(domain));
                    }
                    KEPT.with(|kept| {
                        let guard = keeps_guard.then(|| pin_for(domain));
                        kept.0.replace(Some(Ending { domain, guard, done }));
                    });
                });
                ending.join().unwrap();
                // A failed assertion in a destructor aborts the process.
                reports.recv().unwrap();
                wait(Grace::begin(domain));
            }
        }
    }
}
