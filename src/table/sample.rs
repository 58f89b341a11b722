//! Runs of buckets, from which victims are chosen without reading any entry.

use std::{ops::ControlFlow, ptr};

use super::{
    Metadata, SlotRef, Table, Unlinked,
    array::Array,
    bucket::{Bucket, Word},
    control::{Control, SLOTS, Slots, TAG_BITS},
    iter::{Part, parts},
    ranking::{BucketHints, Ranker, Threshold},
};
use crate::{
    reclaim::Guard,
    slab::{Handle, prefetch},
    sync::IS_MODEL,
};

/// Buckets that a run prefetches ahead, to keep a few cache misses in flight.
const BUCKETS_AHEAD: usize = 6;
const SLOT_BITS: u32 = SLOTS.ilog2();
/// Set in the position of a bucket of the next array.
const NEXT: u64 = 1 << (POSITION_BITS - 1);
/// Bits of a [`Position`].
pub const POSITION_BITS: u32 = 34;

/// The position of an entry: a bucket of the root or of the next array, and a slot.
///
/// ```text
/// bits  0..3    the slot
/// bits  3..33   the index of the bucket
/// bit   33      whether the bucket is one of the next array
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position(u64);

impl Position {
    /// Returns the position that [`to_bits`](Self::to_bits) was called on; higher bits are ignored.
    #[inline]
    pub fn from_bits(bits: u64) -> Self {
        Self(bits & ((1 << POSITION_BITS) - 1))
    }

    /// Returns the bits.
    #[inline]
    pub fn to_bits(self) -> u64 {
        self.0
    }
}

/// An iterator over consecutive buckets.
pub struct Run<'g> {
    array: &'g Array,
    guard: &'g Guard,
    index: usize,
    left: usize,
    parts: [Option<Part<'g>>; 2],
}

/// The view of a bucket for the choice of a victim.
pub struct BucketView<'g> {
    bucket: &'g Bucket,
    control: Control,
    /// The position of its first slot.
    first: u64,
}

/// The result of a walk over buckets.
pub struct Passed<'g> {
    /// The number of buckets that were visited.
    pub buckets: usize,
    /// The number of their slots that were ranked.
    pub ranked: usize,
    /// The last bucket, if it has slots with scores above the threshold, and those slots, one bit
    /// each.
    pub found: Option<(BucketView<'g>, u32)>,
}

/// An entry that was in the table when its bucket was read.
#[derive(Clone, Copy)]
pub struct SampledSlot<'g> {
    bucket: &'g Bucket,
    slot: usize,
    tag: u64,
    word: Word,
}

/// An entry that was in the table when it was sampled, and its slot.
pub struct Sampled<'g, T> {
    /// The slot, for [`Table::unlink`].
    pub sampled_slot: SampledSlot<'g>,
    /// The metadata of the entry.
    pub metadata: Metadata<'g, T>,
}

impl<T> Clone for Sampled<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<T> Copy for Sampled<'_, T> {}

impl<T> Sampled<'_, T> {
    /// Returns the entry's hash, as [`known`](super::known) returns it.
    #[inline]
    pub fn hash(&self) -> u64 {
        let low = u64::from(self.sampled_slot.word.bits()) << TAG_BITS | self.sampled_slot.tag;
        u64::from(self.metadata.upper()) << 32 | low
    }
}

impl<T> std::fmt::Debug for Sampled<'_, T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sampled").field("candidate", &self.sampled_slot).finish_non_exhaustive()
    }
}

impl<T> Table<T> {
    /// Iterates over `len` consecutive buckets from a random one on, and over no bucket twice.
    ///
    /// Each entry is in the first bucket with the same probability. A bucket that is being moved is
    /// skipped.
    #[inline]
    pub fn run<'g>(&'g self, guard: &'g Guard, random: u32, len: usize) -> Run<'g> {
        let array = self.root(guard);
        let left = len.min(array.count());
        Run { array, guard, index: array.index(random), left, parts: [None, None] }
    }

    /// Like [`run`](Self::run), but begins with the bucket at index `first`, modulo the number of
    /// buckets.
    pub fn run_from<'g>(&'g self, guard: &'g Guard, first: usize, len: usize) -> Run<'g> {
        let array = self.root(guard);
        let left = len.min(array.count());
        Run { array, guard, index: first % array.count(), left, parts: [None, None] }
    }

    /// Visits buckets from index `first` on, modulo the number of buckets, until one has a slot
    /// with a score above `threshold`: `most` buckets at most, and none twice. A bucket that is
    /// being moved is skipped.
    #[inline]
    pub fn find_above<'g>(
        &'g self,
        guard: &'g Guard,
        first: usize,
        most: usize,
        ranker: &Ranker,
        threshold: Threshold,
    ) -> Passed<'g> {
        let buckets = self.root(guard).as_slice();
        let most = most.min(buckets.len());
        let mut passed = Passed { buckets: 0, ranked: 0, found: None };
        let mut next = if first < buckets.len() { first } else { first % buckets.len() };
        while passed.buckets < most {
            let rest = &buckets[next..];
            for (bucket, index) in rest.iter().zip(next as u64..).take(most - passed.buckets) {
                prefetch(ptr::from_ref(bucket).wrapping_add(BUCKETS_AHEAD));
                passed.buckets += 1;
                let (above, ranked) = ranker.above(bucket.hints(), threshold);
                passed.ranked += ranked;
                if above != 0 {
                    let control = bucket.control();
                    if control.is_in_use() {
                        let view = BucketView { bucket, control, first: index << SLOT_BITS };
                        passed.found = Some((view, above));
                        return passed;
                    }
                }
            }
            // Continue with the first bucket.
            next = 0;
        }
        passed
    }

    /// Returns the sampled slot of an entry that was found; `None` if the entry has left its slot.
    #[inline]
    pub fn sampled_slot_of<'g>(&'g self, place: &SlotRef<'g, T>) -> Option<SampledSlot<'g>> {
        let (bucket, slot) = (place.bucket, place.slot);
        let tag = bucket.control().tag(slot);
        let word = bucket.word(slot);
        // A handle enters one slot once under a guard.
        let is_there = tag != 0 && word.handle() == Some(place.handle) && !word.is_dying();
        is_there.then_some(SampledSlot { bucket, slot, tag, word })
    }

    /// Returns the entry at a position, if there is one.
    #[inline]
    pub fn sampled_at<'g>(&'g self, guard: &'g Guard, place: Position) -> Option<Sampled<'g, T>> {
        let root = self.root(guard);
        let array = if place.0 & NEXT == 0 { root } else { root.next(guard)? };
        let bucket = array.get(((place.0 & !NEXT) >> SLOT_BITS) as usize)?;
        let slot = place.0 as usize & (SLOTS - 1);
        let word = bucket.word(slot);
        let handle = word.handle().filter(|_| !word.is_dying())?;
        let control = bucket.control();
        let tag = control.tag(slot);
        // A handle enters a slot once under a guard: if the word is still there, it was there at
        // `control`.
        let is_there = control.is_in_use() && tag != 0 && bucket.word(slot) == word;
        let sampled_slot = SampledSlot { bucket, slot, tag, word };
        is_there.then(|| Sampled { sampled_slot, metadata: self.metadata(guard, handle) })
    }

    /// Prefetches the metadata of a sampled slot's entry.
    #[inline]
    pub fn prefetch_metadata(&self, sampled_slot: &SampledSlot<'_>) {
        // SAFETY: the handle was in a word of this table, which was loaded by an Acquire.
        unsafe { self.slab.cell(sampled_slot.handle()) }.prefetch_side_arrays();
    }

    /// Returns the slot of a sampled entry, if the entry is still in it.
    pub fn slot_of<'g>(
        &'g self,
        guard: &'g Guard,
        sampled_slot: &SampledSlot<'g>,
    ) -> Option<SlotRef<'g, T>> {
        let metadata = self.look(guard, sampled_slot)?;
        Some(SlotRef { metadata, bucket: sampled_slot.bucket, slot: sampled_slot.slot })
    }

    /// Makes the earlier writes of this thread to the entry's metadata visible to the thread that
    /// unlinks the entry: a call of [`unlink`](Self::unlink) that has read the metadata before does
    /// not succeed any more. Returns `false` if the entry is no longer in this slot.
    ///
    /// Removals and replacements change the slot's word: they follow the exchange of the word here,
    /// and see the writes before it. Evictions change the control word: they fail, and read the
    /// metadata again.
    pub fn renew_entry(&self, place: &SlotRef<'_, T>) -> bool {
        let (bucket, slot) = (place.bucket, place.slot);
        loop {
            let control = bucket.control();
            let word = bucket.word(slot);
            let is_there = control.is_in_use()
                && control.tag(slot) != 0
                && word.handle() == Some(place.handle)
                && !word.is_dying();
            if !is_there {
                return false;
            }
            if mutant!("table_renews_nothing") {
                return true;
            }
            // The exchanges are AcqRel. Release: pairs with the Acquire of the exchange by which
            // the entry is taken out.
            if bucket.change_word(slot, word, word)
                && bucket.change_control(control, control.renewed())
            {
                return true;
            }
        }
    }

    /// Returns the hash of a sampled slot's entry, as [`known`](super::known) returns it.
    pub fn hash_at(&self, sampled_slot: &SampledSlot<'_>, metadata: Metadata<'_, T>) -> u64 {
        Sampled { sampled_slot: *sampled_slot, metadata }.hash()
    }

    /// Returns the metadata of a sampled slot's entry, if it is still in the table.
    #[inline]
    pub fn look<'g>(
        &'g self,
        guard: &'g Guard,
        sampled_slot: &SampledSlot<'_>,
    ) -> Option<Metadata<'g, T>> {
        let SampledSlot { bucket, slot, tag, word, .. } = *sampled_slot;
        let control = bucket.control();
        // A handle enters a slot once under a guard: if the word is still there, it was there at
        // `control`.
        let is_there = control.is_in_use() && control.tag(slot) == tag && bucket.word(slot) == word;
        is_there.then(|| self.metadata(guard, sampled_slot.handle()))
    }

    /// Unlinks the entry of a sampled slot, or one that replaces it concurrently; returns `None` if
    /// the entry has left or `may_go` returns `false`. `may_go` is called again after each change
    /// of the bucket.
    ///
    /// If the version wraps, another entry may be taken out: compare the handle.
    #[inline]
    pub fn unlink(
        &self,
        guard: &Guard,
        sampled_slot: &SampledSlot<'_>,
        may_go: impl Fn(Metadata<'_, T>) -> bool,
    ) -> Option<Unlinked> {
        debug_assert!(guard.covers(self.domain.structure()), "a guard of another table");
        let SampledSlot { bucket, slot, tag, word, .. } = *sampled_slot;
        debug_assert!(tag != 0 || IS_MODEL, "a claim is no candidate");
        loop {
            let control = bucket.control();
            // A word that is not frozen belongs to a bucket that is not frozen; otherwise the
            // exchange fails.
            if !control.is_in_use() || control.tag(slot) != tag || bucket.word(slot) != word {
                return None;
            }
            if !may_go(self.metadata(guard, sampled_slot.handle())) {
                return None;
            }
            if let Some(taken) = bucket.unpublish(control, slot) {
                return self.taken(bucket, slot, control.tag(slot), taken);
            }
        }
    }
}

impl<'g> Iterator for Run<'g> {
    type Item = BucketView<'g>;

    #[inline]
    fn next(&mut self) -> Option<BucketView<'g>> {
        loop {
            if self.parts[0].is_some() {
                if let Some(view) = self.next_part() {
                    return Some(view);
                }
                continue;
            }
            self.left = self.left.checked_sub(1)?;
            let index = self.index;
            self.index = if index + 1 == self.array.count() { 0 } else { index + 1 };
            let bucket = self.array.at(index);
            prefetch(ptr::from_ref(bucket).wrapping_add(BUCKETS_AHEAD));
            let control = bucket.control();
            if control.is_in_use() {
                return Some(BucketView { bucket, control, first: (index as u64) << SLOT_BITS });
            }
            self.begin_parts(index);
        }
    }
}

impl<'g> Run<'g> {
    /// Calls `look` for each bucket until it breaks. Equivalent to a loop over the iterator, but
    /// faster.
    #[inline]
    pub fn look(mut self, mut look: impl FnMut(&BucketView<'g>) -> ControlFlow<()>) {
        let buckets = self.array.as_slice();
        // From the first bucket to the end of the array, then from its beginning.
        let first = self.left.min(buckets.len() - self.index);
        let ranges = [(self.index, first), (0, self.left - first)];
        for (start, len) in ranges {
            for (bucket, index) in buckets[start..][..len].iter().zip(start..) {
                prefetch(ptr::from_ref(bucket).wrapping_add(BUCKETS_AHEAD));
                let control = bucket.control();
                if control.is_in_use() {
                    let view = BucketView { bucket, control, first: (index as u64) << SLOT_BITS };
                    if look(&view).is_break() {
                        return;
                    }
                    continue;
                }
                self.begin_parts(index);
                while self.parts[0].is_some() {
                    if let Some(view) = self.next_part()
                        && look(&view).is_break()
                    {
                        return;
                    }
                }
            }
        }
    }

    /// Begins to visit the buckets that replace a bucket which is not in use.
    #[cold]
    fn begin_parts(&mut self, index: usize) {
        let [first, second] = parts(self.array, index, self.guard);
        // Two buckets that were merged are visited with the first.
        if first.is_some_and(|part| !part.is_second_half()) {
            self.parts = [first, second];
        }
    }

    /// Returns the next of them, if it is in use.
    #[cold]
    fn next_part(&mut self) -> Option<BucketView<'g>> {
        let part = self.parts[0].take()?;
        self.parts[0] = self.parts[1].take();
        let control = part.bucket.control();
        let next = self.array.next(self.guard).filter(|_| control.is_in_use())?;
        let first = (next.index_of(part.bucket) as u64) << SLOT_BITS | NEXT;
        Some(BucketView { bucket: part.bucket, control, first })
    }
}

impl<'g> BucketView<'g> {
    /// Returns the slots that are not free.
    #[inline]
    pub fn taken(&self) -> Slots {
        self.control.taken()
    }

    /// Returns the hints of all slots. Those of free slots are out of date.
    #[inline]
    pub fn hints(&self) -> BucketHints {
        self.bucket.hints()
    }

    /// Returns the access bits of a slot.
    #[inline]
    pub fn access(&self, slot: usize) -> u16 {
        self.bucket.access(slot)
    }

    /// Stores the access bits of a slot. Bits that another thread stores in the same bucket
    /// concurrently may be lost.
    #[inline]
    pub fn set_access(&self, slot: usize, access: u16) {
        self.bucket.set_access(slot, access);
    }

    /// Clears the class of free slots, so that they are not ranked: a late store may have set it.
    pub fn forget_free(&self) {
        for slot in self.control.slots(0) {
            if self.bucket.class(slot) != 0 {
                self.bucket.set_class(slot, 0);
            }
        }
    }

    /// Returns the entry in a slot; `None` if it has left or the slot was free. A free slot may
    /// hold a claim, which is private to its inserter.
    #[inline]
    pub fn sampled_slot(&self, slot: usize) -> Option<SampledSlot<'g>> {
        let Self { bucket, control, .. } = *self;
        let (tag, word) = (control.tag(slot), bucket.word(slot));
        let is_claim = tag == 0 && !mutant!("table_claim_is_sampled");
        word.handle().filter(|_| !is_claim && !word.is_dying())?;
        Some(SampledSlot { bucket, slot, tag, word })
    }

    /// Returns the position of a slot.
    #[inline]
    pub fn place(&self, slot: usize) -> Position {
        Position(self.first | (slot & (SLOTS - 1)) as u64)
    }
}

impl SampledSlot<'_> {
    /// Returns the number of its slot.
    #[inline]
    pub fn slot(&self) -> usize {
        self.slot
    }

    /// Returns the entry's handle, valid for access to the metadata. The metadata may be of another
    /// entry by now: [`Table::unlink`] decides.
    #[inline]
    pub fn handle(&self) -> Handle {
        self.word.handle().expect("made of a word with a handle")
    }

    /// Returns the access bits of its slot.
    #[inline]
    pub fn access(&self) -> u16 {
        self.bucket.access(self.slot)
    }

    /// Returns the class of its slot.
    #[inline]
    pub fn class(&self) -> u8 {
        self.bucket.class(self.slot)
    }

    /// Stores the class of its slot, as [`Hit::set_class`] does.
    #[inline]
    pub fn set_class(&self, class: u8) {
        self.bucket.set_class(self.slot, class);
    }
}

impl std::fmt::Debug for Run<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Run").field("left", &self.left).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for BucketView<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BucketView").field("control", &self.control).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for SampledSlot<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SampledSlot").field("word", &self.word).finish_non_exhaustive()
    }
}

#[cfg(all(test, not(any(cortado_loom, cortado_shuttle))))]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

    use super::{
        super::{
            Terms, known,
            testing::{Entries, Entry, help, put, spread, sweep},
        },
        *,
    };
    use crate::table::{Hints, Ranking};

    fn table(alive: &AtomicU64) -> Entries<'_> {
        let table = Table::new(8, 100, 1).unwrap();
        let guard = table.pin();
        for key in 0..20 {
            let entry = Entry::new(key, key, alive);
            assert_eq!(put(&table, &guard, spread(key), entry, |_| panic!("there is room")), None);
        }
        drop(guard);
        table
    }

    fn sampled_slots<'g>(run: Run<'g>) -> Vec<SampledSlot<'g>> {
        run.flat_map(|view| {
            view.taken().filter_map(|slot| view.sampled_slot(slot)).collect::<Vec<_>>()
        })
        .collect()
    }

    #[test]
    fn run_over_all_buckets_returns_every_entry_once_also_during_a_resize() {
        let alive = AtomicU64::new(0);
        let table = table(&alive);
        let guard = table.pin();
        let check = || {
            for random in [0, 1 << 31, u32::MAX, 0x1234_5678] {
                let run = sampled_slots(table.run(&guard, random, usize::MAX));
                let mut looked = Vec::new();
                table.run(&guard, random, usize::MAX).look(|view| {
                    looked.extend(view.taken().filter_map(|slot| view.sampled_slot(slot)));
                    ControlFlow::Continue(())
                });
                let handles = |run: &[SampledSlot<'_>]| -> Vec<u32> {
                    run.iter().map(|sampled_slot| sampled_slot.handle().raw()).collect()
                };
                assert_eq!(handles(&looked), handles(&run));
                let mut handles: Vec<u32> = run.iter().map(|at| at.handle().raw()).collect();
                handles.sort_unstable();
                let mut all: Vec<u32> = table.iter(&guard).map(|hit| hit.handle.raw()).collect();
                all.sort_unstable();
                assert_eq!(handles, all);
            }
        };
        check();
        assert!(table.grow(&guard));
        while help(&table, &guard, 1, |_| panic!("there is room")) {
            check();
        }
        assert!(table.shrink(&guard));
        while help(&table, &guard, 1, |_| ()) {
            check();
        }
    }

    #[test]
    fn run_has_the_requested_number_of_buckets() {
        let alive = AtomicU64::new(0);
        let table = table(&alive);
        let guard = table.pin();
        for len in 0..12 {
            // All buckets are in use.
            assert_eq!(table.run(&guard, 0, len).count(), len.min(8));
            let mut looked = 0;
            table.run(&guard, 0, 8).look(|_| {
                looked += 1;
                if looked < len { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
            });
            assert_eq!(looked, len.clamp(1, 8));
        }
    }

    #[test]
    fn bucket_view_shows_the_hints_of_its_slots() {
        let alive = AtomicU64::new(0);
        let table = table(&alive);
        let guard = table.pin();
        for hit in table.iter(&guard) {
            hit.set_access(hit.entry.key as u16 + 7);
            hit.set_class(hit.entry.key as u8);
        }
        for view in table.run(&guard, 0, 8) {
            for slot in view.taken() {
                let sampled_slot = view.sampled_slot(slot).unwrap();
                let mut all = table.iter(&guard);
                let hit = all.find(|hit| hit.handle == sampled_slot.handle()).unwrap();
                assert_eq!(view.access(slot), hit.entry.key as u16 + 7);
                assert_eq!(sampled_slot.class(), hit.entry.key as u8);
                let shown = view.hints();
                assert_eq!(shown.access[slot / 4] >> (16 * (slot % 4)) & 0xffff, hit.entry.key + 7);
                assert_eq!(shown.class >> (8 * slot) & 0xff, hit.entry.key);
                view.set_access(slot, 3);
                sampled_slot.set_class(4);
                let hints = (hit.access(), hit.class());
                assert_eq!(hints, (3, 4));
                let sampled = table.sampled_at(&guard, view.place(slot)).unwrap();
                assert_eq!(sampled.hash(), known(spread(hit.entry.key)));
            }
        }
    }

    #[test]
    fn claim_is_never_sampled_whatever_its_hints_say() {
        let alive = AtomicU64::new(0);
        let table: Entries<'_> = Table::new(1, 10, 1).unwrap();
        let guard = table.pin();
        let entry = Entry::new(1, 1, &alive);
        assert_eq!(put(&table, &guard, spread(1), entry, |_| panic!("there is room")), None);
        // A writer has claimed a slot, which still has the hints of its previous entry.
        let bucket = table.root(&guard).at(0);
        let control = bucket.control();
        let free = control.slots(0).next().unwrap();
        let fresh = table.prepare(Entry::new(2, 2, &alive), spread(2), 0).unwrap();
        assert!(bucket.change_word(free, Word::EMPTY, Word::new(fresh.handle(), 3)));
        bucket.set_hints(free, Hints { access: 0, class: 9 });
        let ranking = Ranking { now: 0, flat: 16, shift: 0, mask: u8::MAX, first: 1, plain: 1 };
        let passed =
            table.find_above(&guard, 0, 1, &ranking.ranker(), ranking.threshold(20.0f32.to_bits()));
        let (view, above) = passed.found.unwrap();
        assert_eq!(above, 1 << free);
        assert!(view.sampled_slot(free).is_none());
        assert!(view.taken().all(|slot| view.sampled_slot(slot).is_some()));
        assert!(table.sampled_at(&guard, view.place(free)).is_none());
        bucket.withdraw(free);
    }

    #[test]
    fn walk_ends_at_the_first_bucket_with_a_score_above_the_threshold() {
        let alive = AtomicU64::new(0);
        let table = table(&alive);
        let guard = table.pin();
        for view in table.run_from(&guard, 0, usize::MAX) {
            for sampled_slot in view.taken().filter_map(|slot| view.sampled_slot(slot)) {
                sampled_slot.set_class(1);
            }
        }
        // All entries have the same age, and one has eight times the score.
        let ranking = Ranking { now: 0, flat: 16, shift: 0, mask: u8::MAX, first: 1, plain: 1 };
        let ranker = ranking.ranker();
        let bad = table.find(&guard, spread(7), |entry| entry.key == 7).unwrap();
        bad.set_access(0);
        bad.set_class(7);
        let [low, high] = [16.0f32, 1000.0].map(|score| ranking.threshold(score.to_bits()));
        for first in 0..20 {
            let passed = table.find_above(&guard, first, usize::MAX, &ranker, low);
            let (view, above) = passed.found.unwrap();
            let slot = above.trailing_zeros() as usize;
            let score = ranker.rank(view.hints()).get()[slot];
            assert_eq!((above.count_ones(), score), (1, 128.0f32.to_bits()));
            assert_eq!(view.sampled_slot(slot).unwrap().handle(), bad.handle);
            assert!((1..=8).contains(&passed.buckets) && passed.ranked >= 1);
            // No score is above: all buckets were visited, each once.
            let passed = table.find_above(&guard, first, usize::MAX, &ranker, high);
            assert!(passed.found.is_none());
            assert_eq!((passed.buckets, passed.ranked), (8, 20));
            assert_eq!(table.find_above(&guard, first, 3, &ranker, high).buckets, 3);
        }
    }

    #[test]
    fn sampled_entry_is_unlinked_once_and_its_successor_never() {
        let alive = AtomicU64::new(0);
        let table = table(&alive);
        let guard = table.pin();
        let all = sampled_slots(table.run(&guard, 0, usize::MAX));
        let out = table.unlink(&guard, &all[0], |_| true).unwrap();
        assert_eq!(out.handle(), all[0].handle());
        assert!(table.unlink(&guard, &all[0], |_| true).is_none());
        let key = table.unlinked(&guard, &out).key;
        table.retire(&guard, out, Terms::NONE, 0);
        for at in &all[1..] {
            let mut entries = table.iter(&guard);
            let key = entries.find(|hit| hit.handle == at.handle()).unwrap().entry.key;
            let entry = Entry::new(key, 100, &alive);
            assert_eq!(put(&table, &guard, spread(key), entry, |_| ()), Some(key));
            assert!(table.unlink(&guard, at, |_| true).is_none(), "it was replaced");
        }
        let entry = Entry::new(key, 100, &alive);
        assert_eq!(put(&table, &guard, spread(key), entry, |_| ()), None);
        assert!(table.unlink(&guard, &all[0], |_| true).is_none(), "another entry has the slot");
        let all = sampled_slots(table.run(&guard, 0, usize::MAX));
        assert!(table.grow(&guard));
        while help(&table, &guard, 1, |_| ()) {}
        assert!(
            all.iter().all(|at| table.unlink(&guard, at, |_| true).is_none()),
            "they have moved"
        );
        drop(guard);
        assert_eq!((sweep(&table), alive.load(Relaxed)), (20, 20));
    }
}
