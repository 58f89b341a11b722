//! Which entry goes: samples of the table, and the least worthy in them.
//!
//! What readers see of an entry's use decides, as its bucket shows it; flags and cost beside its cell have the last
//! word.

use std::ops::ControlFlow;

use super::{Engine, maintain::Maintainer};
use crate::{
    buckets::{
        Candidate, Line, Metadata, POSITION_BITS, Position, Remembered, SLOTS, Sampled, Scores,
    },
    entry::{Entry, Flags},
    policy::{
        access::Access,
        class::ClassRange,
        victim::{BATCH, SAMPLE, SAMPLE_BY_COST, ranker},
    },
    reclaim::Guard,
    slab::prefetch,
    sync::atomic::Ordering,
};

/// An entry that was chosen to go, unless it is referenced before.
#[derive(Clone, Copy, Debug)]
pub(super) struct Chosen {
    place: Remembered,
    access: Access,
}

/// An entry that may be evicted.
pub(super) type Resident<'g, K, V> = Sampled<'g, Entry<K, V>>;

/// The places of the entries with the highest scores of a sample, the highest first.
///
/// Each is a number: the score above, the place below.
struct Worst<const N: usize>([u64; N]);

impl<const N: usize> Worst<N> {
    fn new() -> Self {
        Self([0; N])
    }

    /// Takes in the slots of a line whose scores are high enough.
    #[inline]
    fn offer(&mut self, line: &Line<'_>, scores: &Scores) {
        // Floats that are not below 0 are in the order of their bits. The lowest bit makes room for the place.
        let mut above = scores.above((self.0[N - 1] >> POSITION_BITS << SCORE_SHIFT) as u32);
        if above == 0 {
            return;
        }
        let scores = scores.get();
        while above != 0 {
            let slot = above.trailing_zeros() as usize & (SLOTS - 1);
            above &= above - 1;
            let score = u64::from(scores[slot] >> SCORE_SHIFT) << POSITION_BITS;
            let new = score | line.place(slot).to_bits();
            if new > self.0[N - 1] {
                self.insert(new);
            }
        }
    }

    fn insert(&mut self, new: u64) {
        let mut place = N - 1;
        while place > 0 && self.0[place - 1] < new {
            self.0[place] = self.0[place - 1];
            place -= 1;
        }
        self.0[place] = new;
    }

    fn places(&self) -> impl Iterator<Item = Position> {
        self.0.iter().filter(|found| **found > 0).map(|found| Position::from_bits(*found))
    }
}

/// Bits of a score that make room for a place.
const SCORE_SHIFT: u32 = POSITION_BITS + f32::MANTISSA_DIGITS + 7 - u64::BITS;

impl<K, V, S> Engine<K, V, S> {
    /// Takes the next of the entries of main that were chosen to go; chooses others where there is none left.
    pub(super) fn next_victim<'g>(
        &'g self,
        guard: &'g Guard,
        maintainer: &mut Maintainer,
    ) -> Option<Resident<'g, K, V>> {
        for _ in 0..2 {
            while let Some(Chosen { place, access }) = maintainer.victims.pop() {
                if let Some(sampled) = self.table.recall(guard, &place)
                    && sampled.candidate.access() == access.to_bits()
                    && let Some(resident) = self.resident(sampled, Among::Main)
                {
                    return Some(resident);
                }
            }
            let random = std::mem::replace(&mut maintainer.next_sample, maintainer.rng.next_u64());
            let count = (self.capacity() / ENTRIES_PER_VICTIM).clamp(1, BATCH as u64) as usize;
            let worst = self.sample(guard, random, count, Among::Main);
            self.table.prefetch_run(upper(maintainer.next_sample));
            maintainer.victims.extend(worst.places().filter_map(|place| {
                let sampled = self.table.sampled_at(guard, place)?;
                prefetch(self.sketch.line(sampled.hash()));
                let access = Access::from_bits(sampled.candidate.access());
                Some(Chosen { place: sampled.candidate.remember(place), access })
            }));
            maintainer.victims.truncate(count);
            maintainer.victims.reverse();
        }
        self.victim(guard, maintainer.rng.next_u64(), Among::Main)
    }

    /// Returns the least worthy of a random sample.
    pub(super) fn victim<'g>(
        &'g self,
        guard: &'g Guard,
        random: u64,
        among: Among,
    ) -> Option<Resident<'g, K, V>> {
        let worst = self.sample(guard, random, 1, among);
        let chosen = worst.places().find_map(|place| self.resident_at(guard, place, among));
        // A nearly empty table: go on until there is one. Main may be empty beside a full window.
        chosen.or_else(|| {
            let most = if among == Among::Main { MOST_SAMPLE_BUCKETS } else { usize::MAX };
            self.table.run(guard, upper(random), most).find_map(|line| {
                let places = line.taken().map(|slot| line.place(slot));
                places.into_iter().find_map(|place| self.resident_at(guard, place, among))
            })
        })
    }

    /// Looks at consecutive buckets from a random one on, until there were enough entries for so many victims; returns the
    /// worst of them.
    fn sample(&self, guard: &Guard, random: u64, count: usize, among: Among) -> Worst<BATCH> {
        let want = count * if self.costs_vary() { SAMPLE_BY_COST } else { SAMPLE };
        // Relaxed: any recent number will do.
        let buckets = self.sample_buckets.load(Ordering::Relaxed);
        // As many as it takes where the table is as full as it should be, and half as many again.
        let lines = buckets.max(buckets * want / (BATCH * SAMPLE));
        let ranker = ranker(self.pulse.now(), among.classes());
        let mut worst = Worst::new();
        let mut seen = 0;
        self.table.run(guard, upper(random), lines).look(|line| {
            let scores = ranker.rank(line.lanes());
            seen += scores.count();
            worst.offer(line, &scores);
            if seen < want { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        });
        worst
    }

    /// Returns the entry in a place if there is one that its flags and its cost allow to evict. Brings its class up to date
    /// if they do not.
    fn resident_at<'g>(
        &'g self,
        guard: &'g Guard,
        place: Position,
        among: Among,
    ) -> Option<Resident<'g, K, V>> {
        let sampled = self.table.sampled_at(guard, place)?;
        self.resident(sampled, among)
    }

    fn resident<'g>(
        &'g self,
        sampled: Resident<'g, K, V>,
        among: Among,
    ) -> Option<Resident<'g, K, V>> {
        let Sampled { candidate, metadata } = sampled;
        if !among.has(self.cost_of(metadata), metadata.flags()) {
            self.classify_entry(&candidate, metadata);
            return None;
        }
        Some(sampled)
    }

    /// Brings the class of an entry up to date.
    #[cold]
    pub(super) fn classify_entry(
        &self,
        candidate: &Candidate<'_>,
        metadata: Metadata<'_, Entry<K, V>>,
    ) {
        let class = self.class_of(self.cost_of(metadata), metadata.flags()).to_bits();
        if candidate.class() != class {
            candidate.set_class(class);
        }
    }

    /// Returns, of a random sample, the entry of the window that is unused for longest, and the least worthy
    /// of main.
    pub(super) fn oldest_and_victim<'g>(
        &'g self,
        guard: &'g Guard,
        random: u64,
    ) -> [Option<Resident<'g, K, V>>; 2] {
        let now = self.pulse.now();
        let ranges = [ClassRange::WINDOW, ClassRange::MAIN];
        let mut worst = ranges.map(|range| (ranker(now, range), Worst::<2>::new()));
        let mut seen = 0;
        let lines = self.sample_buckets.load(Ordering::Relaxed); // Relaxed: any recent number will do.
        self.table.run(guard, upper(random), lines).look(|line| {
            for (ranker, worst) in &mut worst {
                let scores = ranker.rank(line.lanes());
                seen += scores.count();
                worst.offer(line, &scores);
            }
            if seen < ALONE_SAMPLE { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        });
        let [(_, window), (_, main)] = worst;
        let first = |worst: Worst<2>, among| {
            worst.places().find_map(|place| self.resident_at(guard, place, among))
        };
        [first(window, Among::Window), first(main, Among::Main)]
    }
}

/// Returns the half of a random number that chooses a bucket.
fn upper(random: u64) -> u32 {
    (random >> 32) as u32
}

/// Who may be a victim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Among {
    /// The window.
    Window,
    /// The main region.
    Main,
    /// Both regions.
    Unpinned,
    /// Both, and pinned entries too.
    All,
}

impl Among {
    /// Returns whether an entry of this cost and these flags is one of them. One without cost never is: to evict it makes
    /// no room.
    fn has(self, cost: u64, flags: Flags) -> bool {
        let is_one = match self {
            Self::Window => flags.is_in_window() && !flags.is_unevictable(),
            Self::Main => !flags.is_in_window() && !flags.is_unevictable(),
            Self::Unpinned => !flags.is_unevictable(),
            Self::All => true,
        };
        is_one && cost > 0
    }

    /// Returns the classes to choose from. What must not be evicted has none: it is found without a choice.
    fn classes(self) -> ClassRange {
        match self {
            Self::Window => ClassRange::WINDOW,
            Self::Main => ClassRange::MAIN,
            Self::Unpinned | Self::All => ClassRange::BOTH,
        }
    }
}

/// Victims are chosen one by one in a cache of fewer than twice as many entries: a sample of most of the cache is no
/// sample.
const ENTRIES_PER_VICTIM: u64 = 256;
/// Entries that a writer looks at for each eviction while somebody else maintains: a window of a twentieth then shows itself in two cases of three.
const ALONE_SAMPLE: usize = 20;
/// Buckets read where these have nothing of main to offer: all of a small table.
const MOST_SAMPLE_BUCKETS: usize = 1 << 10;
