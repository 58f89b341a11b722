//! Magazines: lists of free or retired handles, which move between threads as a whole.
//!
//! # Protocol
//!
//! A magazine is a short list of handles. At every moment it either belongs to one thread, which
//! alone reads and writes it, or is in one of the depot's stacks: with handles, without handles, or
//! with handles of chunks whose memory was returned to the system. The stacks are Treiber stacks of
//! magazine numbers. Magazines are never freed before the depot, so a thread that was stopped in a
//! pop may still read the `next` of one that has left the stack. A tag in the stack's word, which
//! each push increments, then makes its CAS fail. (The tag has 32 bits: a wrap goes unnoticed
//! only if a thread is stopped between load and CAS for exactly a multiple of 2^32 pushes.)
//!
//! # Orderings
//!
//! * Release of a push ↔ Acquire of a pop: the magazine's handles and `next`, and everything that
//!   was done before with the cells of the handles. Each later CAS on the stack continues the
//!   release sequence of the push, so this also holds for the magazines below.
//! * The content of a magazine is read and written Relaxed, by its owner alone.

use std::{array, fmt, ptr};

use super::{
    Handle,
    memory::{from_raw, into_raw, try_boxed},
};
use crate::{
    sync::{
        IS_MODEL, Watched,
        atomic::{AtomicPtr, AtomicU16, AtomicU32, AtomicU64, Ordering::*, WithMut},
    },
    util::CachePadded,
};

/// Magazines of the first segment; each further segment has twice as many.
const FIRST_SEGMENT: u32 = if IS_MODEL { 2 } else { 4 };
const SEGMENTS: usize = match () {
    () if cfg!(cortado_loom) => 4,
    () if cfg!(cortado_shuttle) => 13,
    () => 24,
};
/// The number that stands for no magazine.
const NONE: u32 = 0;
/// Flag beside a handle in a magazine: its cell holds no value.
const NO_VALUE: u32 = 1 << 31;
/// Position of the label of a value, directly above the handle's 26 bits.
const LABEL_SHIFT: u32 = 26;
/// Labels are below this: they have the 5 bits between the handle and `NO_VALUE`.
pub const LABELS: u8 = 1 << (31 - LABEL_SHIFT);

/// All magazines of one slab.
pub(super) struct Depot {
    /// The number of handles that a magazine holds.
    capacity: usize,
    /// Whether magazines also store the parts of their values.
    has_parts: bool,
    segments: [AtomicPtr<Segment>; SEGMENTS],
    /// The number of the magazine that was created last.
    made: AtomicU32,
    filled: CachePadded<Stack>,
    empty: CachePadded<Stack>,
    /// Magazines with handles of chunks whose memory was returned to the system.
    cold: CachePadded<Stack>,
}

/// Magazines that were allocated together.
struct Segment {
    slots: Box<[Slot]>,
    /// The handles of all its magazines, `capacity` for each.
    handles: Box<[AtomicU32]>,
    /// The parts of their values, as many as handles, or none.
    parts: Box<[AtomicU16]>,
}

/// A magazine, in a stack or owned by a thread.
struct Slot {
    /// The magazine below, in a stack.
    next: AtomicU32,
    len: AtomicU32,
    /// The cost of the values in a bag.
    cost: AtomicU64,
    watched: Watched,
}

/// A Treiber stack of magazines: a tag (upper half) and the number of the top magazine (lower
/// half).
#[derive(Debug)]
struct Stack(AtomicU64);

/// A stack of sealed bags, with counters of the garbage in all bags that were added and not
/// forgotten.
#[derive(Debug)]
pub struct Bags {
    stack: CachePadded<Stack>,
    /// What was put on the stack since it was taken last.
    waiting: CachePadded<Figures>,
    figures: Box<[CachePadded<Figures>]>,
}

/// An amount of garbage. Each stripe has that which its threads have sealed less that which they
/// have freed; wraps.
#[derive(Debug, Default)]
struct Figures {
    cost: AtomicU64,
    count: AtomicU64,
}

/// Values that are retired and not freed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Garbage {
    /// The sum of their costs.
    pub cost: u64,
    /// The number of values.
    pub count: u64,
}

/// A handle that is added to a bag.
#[derive(Clone, Copy, Debug)]
pub struct Retired {
    /// The handle.
    pub handle: Handle,
    /// The label of the value, passed on when it is freed, below [`LABELS`]; `None` if the cell
    /// holds no value.
    pub label: Option<u8>,
    /// The part of the value: a number that the slab stores and does not interpret.
    pub part: u16,
    /// The cost of the value.
    pub cost: u64,
}

/// A magazine that is owned by this thread. Dropping it pushes it onto a stack.
pub struct Magazine<'a> {
    depot: &'a Depot,
    slot: &'a Slot,
    segment: &'a Segment,
    handles: &'a [AtomicU32],
    /// The index of the first handle in the segment.
    first: usize,
    number: u32,
}

impl Retired {
    /// Creates the `Retired` of a cell that holds no value.
    pub fn empty(handle: Handle) -> Self {
        Self { handle, label: None, part: 0, cost: 0 }
    }
}

impl Depot {
    /// Creates a depot without magazines. They will hold `capacity` handles each, and the parts of
    /// their values if `has_parts`.
    pub(super) fn new(capacity: usize, has_parts: bool) -> Self {
        Self {
            capacity: capacity.max(1),
            has_parts,
            segments: array::from_fn(|_| AtomicPtr::new(ptr::null_mut())),
            made: AtomicU32::new(NONE),
            filled: CachePadded::new(Stack(AtomicU64::new(0))),
            empty: CachePadded::new(Stack(AtomicU64::new(0))),
            cold: CachePadded::new(Stack(AtomicU64::new(0))),
        }
    }

    /// Takes a magazine with handles, if there is one.
    pub(super) fn take_filled(&self) -> Option<Magazine<'_>> {
        self.filled.pop(self)
    }

    /// Takes a magazine of cells whose memory was returned to the system, if there is one.
    pub(super) fn take_cold(&self) -> Option<Magazine<'_>> {
        self.cold.pop(self)
    }

    /// Takes all magazines with handles, including those of cells whose memory was returned to the
    /// system.
    pub(super) fn take_all_filled(&self) -> impl Iterator<Item = Magazine<'_>> {
        take_all(&self.filled, self).chain(take_all(&self.cold, self))
    }

    /// Sets aside a magazine of cells whose memory was returned to the system.
    pub(super) fn put_cold(&self, magazine: Magazine<'_>) {
        self.cold.push(self, magazine.into_number());
    }

    /// Takes a magazine without handles, or creates one.
    ///
    /// Returns `None` if it cannot be allocated.
    pub(super) fn take_empty(&self) -> Option<Magazine<'_>> {
        self.empty.pop(self).or_else(|| self.make())
    }

    /// Returns the magazine with a number that [`Magazine::into_number`] returned.
    ///
    /// Each returned number may be used once: the thread that holds it owns the magazine.
    #[inline]
    pub(super) fn magazine(&self, number: u32) -> Option<Magazine<'_>> {
        (number != NONE).then(|| self.own(number))
    }

    /// Returns how many handles a magazine holds.
    pub(super) fn capacity(&self) -> usize {
        self.capacity
    }

    /// Returns the garbage in the bag with this number, even if another thread owns the bag: a
    /// statistic.
    pub(super) fn glance(&self, number: u32) -> Garbage {
        if number == NONE {
            return Garbage::default();
        }
        let slot = self.slot(number);
        // Relaxed, twice: statistics.
        Garbage { cost: slot.cost.load(Relaxed), count: slot.len.load(Relaxed).into() }
    }

    /// Returns the bytes of all magazines.
    pub(super) fn bytes(&self) -> usize {
        let segments = self.segments.iter().zip(0..);
        // Relaxed: a statistic.
        let made = segments.filter(|(segment, _)| !segment.load(Relaxed).is_null());
        let magazines: usize = made.map(|(_, index)| segment_len(index)).sum();
        let part = if self.has_parts { size_of::<u16>() } else { 0 };
        magazines * (size_of::<Slot>() + self.capacity * (size_of::<u32>() + part))
    }

    #[inline]
    fn own(&self, number: u32) -> Magazine<'_> {
        let (segment, index) = self.segment(number);
        let slot = &segment.slots[index];
        slot.watched.write();
        let first = index * self.capacity;
        let handles = &segment.handles[first..][..self.capacity];
        Magazine { depot: self, slot, segment, handles, first, number }
    }

    fn make(&self) -> Option<Magazine<'_>> {
        // Relaxed, here and below: the segment's pointer makes the magazine visible.
        let mut made = self.made.load(Relaxed);
        loop {
            let number = made.checked_add(1)?;
            let (segment, _) = place(number);
            let there = self.segments.get(segment)?;
            // Before the number is taken, so that no number is lost if there is no memory.
            // Acquire: pairs with the Release below.
            if there.load(Acquire).is_null() {
                let new = into_raw(self.make_segment(segment)?);
                // AcqRel: Release publishes the magazines; Acquire on failure pairs with it.
                if there.compare_exchange(ptr::null_mut(), new, AcqRel, Acquire).is_err() {
                    // SAFETY: `new` was created above, a slice of one, and no other thread has seen
                    // it.
                    drop(unsafe { from_raw(new, 1) });
                }
            }
            // Relaxed, twice: as above.
            match self.made.compare_exchange_weak(made, number, Relaxed, Relaxed) {
                Ok(_) => return Some(self.own(number)),
                Err(now) => made = now,
            }
        }
    }

    fn make_segment(&self, segment: usize) -> Option<Box<[Segment]>> {
        let len = segment_len(segment);
        let slots = try_boxed(len, || Slot {
            next: AtomicU32::new(NONE),
            len: AtomicU32::new(0),
            cost: AtomicU64::new(0),
            watched: Watched::new(),
        })?;
        let handles = try_boxed(len * self.capacity, || AtomicU32::new(0))?;
        let parts = if self.has_parts { len * self.capacity } else { 0 };
        let parts = try_boxed(parts, || AtomicU16::new(0))?;
        let mut segment = Some(Segment { slots, handles, parts });
        try_boxed(1, || segment.take().expect("called once"))
    }

    #[inline]
    fn segment(&self, number: u32) -> (&Segment, usize) {
        let (segment, index) = place(number);
        // Acquire: pairs with the Release in `make`. A number that came from another thread by an
        // Acquire shows its segment already; one from a Relaxed load is compared before it is used.
        let segment = self.segments[segment].load(Acquire);
        // SAFETY: `make` has issued the number, so its segment exists, and is not freed before the
        // depot.
        (unsafe { &*segment }, index)
    }

    #[inline]
    fn slot(&self, number: u32) -> &Slot {
        let (segment, index) = self.segment(number);
        &segment.slots[index]
    }

    #[cold]
    fn put(&self, number: u32) {
        // Relaxed: the caller owns the magazine.
        let is_empty = self.slot(number).len.load(Relaxed) == 0;
        if is_empty { &self.empty } else { &self.filled }.push(self, number);
    }
}

impl Bags {
    /// Creates an empty stack for about `stripes` concurrent threads.
    pub fn new(stripes: usize) -> Self {
        let stripes = stripes.max(1).next_power_of_two();
        Self {
            stack: CachePadded::new(Stack(AtomicU64::new(0))),
            waiting: CachePadded::default(),
            figures: (0..stripes).map(|_| CachePadded::default()).collect(),
        }
    }

    /// Adds a sealed bag. All bags of a stack must be of one slab.
    pub fn put(&self, bag: Magazine<'_>, stripe: usize) {
        let garbage = bag.garbage();
        for figures in [self.figures(stripe), &self.waiting] {
            // Relaxed, twice: statistics. They are added before another thread can find the bag, so
            // no sum stays below 0.
            figures.cost.fetch_add(garbage.cost, Relaxed);
            figures.count.fetch_add(garbage.count, Relaxed);
        }
        let depot = bag.depot;
        self.stack.push(depot, bag.into_number());
    }

    /// Subtracts the values of a bag from the counters.
    pub fn forget(&self, garbage: Garbage, stripe: usize) {
        let figures = self.figures(stripe);
        figures.cost.fetch_sub(garbage.cost, Relaxed); // Relaxed: a statistic.
        // Release: pairs with the Acquire in `garbage`: a thread that no longer finds the values in
        // the count sees what was done before.
        figures.count.fetch_sub(garbage.count, Release);
    }

    /// Returns the garbage in all bags that were added and not forgotten: exact when no thread adds
    /// or forgets.
    #[inline]
    pub fn garbage(&self) -> Garbage {
        let not_below_zero = |sum: u64| if sum > u64::MAX / 2 { 0 } else { sum };
        // Acquire: see `forget`.
        let count = self.figures.iter().map(|figures| figures.count.load(Acquire));
        // Relaxed: a statistic.
        let cost = self.figures.iter().map(|figures| figures.cost.load(Relaxed));
        Garbage {
            count: not_below_zero(count.fold(0, u64::wrapping_add)),
            cost: not_below_zero(cost.fold(0, u64::wrapping_add)),
        }
    }

    /// Returns the garbage in the bags that were not taken yet. A hint: too much if bags are added
    /// while others are taken.
    #[inline]
    pub fn waiting(&self) -> Garbage {
        let Figures { cost, count } = &*self.waiting;
        // Relaxed, twice: statistics.
        Garbage { cost: cost.load(Relaxed), count: count.load(Relaxed) }
    }

    fn figures(&self, stripe: usize) -> &Figures {
        &self.figures[stripe & (self.figures.len() - 1)]
    }

    /// Returns whether there is a bag: the recheck of a thread that is about to sleep; see
    /// [`eventcount`](crate::primitives::eventcount).
    pub fn recheck(&self) -> bool {
        self.stack.recheck()
    }

    /// Takes all bags, the newest first.
    pub(super) fn take<'a>(
        &self,
        depot: &'a Depot,
    ) -> impl Iterator<Item = Magazine<'a>> + use<'a> {
        // Relaxed, twice: statistics. Reset first: a bag that is added in between counts too long,
        // not too short.
        self.waiting.cost.store(0, Relaxed);
        self.waiting.count.store(0, Relaxed);
        take_all(&self.stack, depot)
    }
}

/// Takes all magazines of a stack, the newest first.
fn take_all<'a>(stack: &Stack, depot: &'a Depot) -> impl Iterator<Item = Magazine<'a>> + use<'a> {
    let mut next = stack.take();
    std::iter::from_fn(move || {
        let magazine = depot.magazine(next)?;
        // Relaxed: this thread owns it since the stack was taken.
        next = magazine.slot.next.load(Relaxed);
        Some(magazine)
    })
}

impl Drop for Depot {
    fn drop(&mut self) {
        for segment in &mut self.segments {
            let segment = segment.with_mut(|segment| *segment);
            if !segment.is_null() {
                // SAFETY: `make` has stored a slice of one there, and `&mut self` excludes other
                // threads.
                drop(unsafe { from_raw(segment, 1) });
            }
        }
    }
}

impl Stack {
    fn push(&self, depot: &Depot, number: u32) {
        let slot = depot.slot(number);
        slot.watched.write();
        // Relaxed: compared before it is used.
        let mut top = self.0.load(Relaxed);
        loop {
            slot.next.store(top as u32, Relaxed); // Relaxed: published by the Release below.
            let tag = if mutant!("slab_untagged_stack") {
                0
            } else {
                ((top >> 32) as u32).wrapping_add(1)
            };
            let new = u64::from(tag) << 32 | u64::from(number);
            // AcqRel: Release pairs with the Acquire in `pop`, Acquire with the Release in
            // `recheck`.
            // Relaxed on failure: as for the load.
            let order = ordering!(
                AcqRel,
                mutant("slab_relaxed_push") => Acquire,
                mutant("eventcount_blind_bags") => Release
            );
            match self.0.compare_exchange_weak(top, new, order, Relaxed) {
                Ok(_) => return,
                Err(now) => top = now,
            }
        }
    }

    /// Returns whether there is a magazine: the recheck of a thread that is about to sleep; see
    /// [`eventcount`](crate::primitives::eventcount).
    fn recheck(&self) -> bool {
        let mut top = self.0.load(Relaxed); // Relaxed: compared before it is used.
        while top as u32 == NONE {
            // Release: pairs with the Acquire of a later push. Relaxed on failure: as for the load.
            match self.0.compare_exchange_weak(top, top, Release, Relaxed) {
                Ok(_) => return false,
                Err(now) => top = now,
            }
        }
        true
    }

    /// Takes the whole stack; returns the number of the top magazine.
    fn take(&self) -> u32 {
        let mut top = self.0.load(Relaxed); // Relaxed: compared before it is used.
        loop {
            if top as u32 == NONE {
                return NONE;
            }
            let empty = top >> 32 << 32;
            // Acquire: pairs with the Release in `push`. Relaxed on failure: as for the load.
            match self.0.compare_exchange_weak(top, empty, Acquire, Relaxed) {
                Ok(_) => return top as u32,
                Err(now) => top = now,
            }
        }
    }

    fn pop<'a>(&self, depot: &'a Depot) -> Option<Magazine<'a>> {
        // Acquire: pairs with the Release in `push`.
        let mut top = self.0.load(Acquire);
        loop {
            let number = top as u32;
            if number == NONE {
                return None;
            }
            // Relaxed: for a magazine that has left the stack it may be any value; the tag then
            // makes the CAS fail.
            let next = depot.slot(number).next.load(Relaxed);
            let new = top >> 32 << 32 | u64::from(next);
            // Acquire: as above, because the compared word may come from another push of the same
            // magazine.
            match self.0.compare_exchange_weak(top, new, Acquire, Acquire) {
                Ok(_) => return Some(depot.own(number)),
                Err(now) => top = now,
            }
        }
    }
}

impl Magazine<'_> {
    /// Returns the number of handles.
    #[inline]
    pub fn len(&self) -> usize {
        self.slot.len.load(Relaxed) as usize // Relaxed: this thread owns it, here and below.
    }

    /// Returns whether there are no handles.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns whether there is no room for another handle.
    #[inline]
    pub fn is_full(&self) -> bool {
        self.len() >= self.handles.len()
    }

    /// Adds the handle of a free cell.
    ///
    /// # Panics
    ///
    /// Panics if the magazine is full.
    #[inline]
    pub(super) fn push(&mut self, handle: Handle) {
        self.push_raw(handle.raw() | NO_VALUE);
    }

    /// Adds a retired handle.
    ///
    /// # Panics
    ///
    /// Panics if the magazine is full.
    #[inline]
    pub(super) fn push_retired(&mut self, retired: Retired) {
        debug_assert!(retired.label.is_none_or(|label| label < LABELS));
        let label = retired.label.map_or(NO_VALUE, |label| u32::from(label) << LABEL_SHIFT);
        if let Some(part) = self.segment.parts.get(self.first + self.len()) {
            part.store(retired.part, Relaxed); // Relaxed: as in `push_raw`.
        }
        self.push_raw(retired.handle.raw() | label);
        if retired.cost > 0 {
            let cost = self.cost().saturating_add(retired.cost);
            self.slot.cost.store(cost, Relaxed); // Relaxed: this thread owns it.
        }
    }

    /// Returns the cost of the values that were added.
    #[inline]
    pub fn cost(&self) -> u64 {
        self.slot.cost.load(Relaxed) // Relaxed: this thread owns it.
    }

    /// Returns the number and cost of the values that were added.
    pub fn garbage(&self) -> Garbage {
        let count = self.iter().filter(|(_, label)| label.is_some()).count();
        Garbage { cost: self.cost(), count: count as u64 }
    }

    /// Returns the parts of the values, if they are stored.
    pub fn parts(&self) -> impl Iterator<Item = u16> {
        // Relaxed: as in `push_raw`.
        let parts = self.segment.parts.get(self.first..).unwrap_or_default();
        let parts = parts.iter().map(|part| part.load(Relaxed));
        self.iter().zip(parts).filter(|((_, label), _)| label.is_some()).map(|(_, part)| part)
    }

    /// Removes all handles.
    pub fn clear(&mut self) {
        self.slot.len.store(0, Relaxed); // Relaxed: this thread owns it.
        self.forget_values();
    }

    /// Turns the handles into handles of free cells.
    pub fn forget_values(&mut self) {
        self.slot.cost.store(0, Relaxed); // Relaxed: this thread owns it.
    }

    #[inline]
    fn push_raw(&mut self, raw: u32) {
        let slot = self.slot;
        // Relaxed, here and below: this thread owns it; the push or the stripe makes it visible.
        let len = slot.len.load(Relaxed);
        self.handles[len as usize].store(raw, Relaxed);
        slot.len.store(len + 1, Relaxed);
    }

    /// Removes and returns the handle that was added last.
    #[inline]
    pub fn pop(&mut self) -> Option<Handle> {
        let slot = self.slot;
        // Relaxed, here and below: as in `push_raw`.
        let len = slot.len.load(Relaxed).checked_sub(1)?;
        slot.len.store(len, Relaxed);
        Some(Handle::new(self.handles[len as usize].load(Relaxed)))
    }

    /// Returns the handle that was added last.
    #[inline]
    pub fn last(&self) -> Option<Handle> {
        // Relaxed, twice: as in `push_raw`.
        let last = self.slot.len.load(Relaxed).checked_sub(1)?;
        Some(Handle::new(self.handles[last as usize].load(Relaxed)))
    }

    /// Returns the handles, each with the label of its value, if its cell holds one.
    pub fn iter(&self) -> impl Iterator<Item = (Handle, Option<u8>)> {
        // Relaxed: as in `push_raw`.
        let raw = self.handles[..self.len()].iter().map(|raw| raw.load(Relaxed));
        let label = |raw: u32| (raw >> LABEL_SHIFT) as u8 & (LABELS - 1);
        raw.map(move |raw| (Handle::new(raw), (raw & NO_VALUE == 0).then(|| label(raw))))
    }

    /// Returns the magazine's number, which is unique within its slab.
    pub fn number(&self) -> u32 {
        self.number
    }

    /// Turns the magazine into its number, for [`Depot::magazine`].
    #[inline]
    pub fn into_number(self) -> u32 {
        let number = self.number;
        std::mem::forget(self);
        number
    }
}

impl Drop for Magazine<'_> {
    fn drop(&mut self) {
        self.depot.put(self.number);
    }
}

impl fmt::Debug for Magazine<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

/// Returns the segment of a magazine and its index there.
#[inline]
fn place(number: u32) -> (usize, usize) {
    let number = number - 1 + FIRST_SEGMENT;
    let segment = number.ilog2() - FIRST_SEGMENT.ilog2();
    (segment as usize, (number - (FIRST_SEGMENT << segment)) as usize)
}

fn segment_len(segment: usize) -> usize {
    (FIRST_SEGMENT as usize) << segment
}
