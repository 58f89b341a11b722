//! What insert, replace and remove do.
//!
//! Oversized inserts are refused here, not in `policy/admission.rs`: nothing can be admitted that
//! no eviction makes room for.

use std::{
    cell::RefCell,
    hash::{BuildHasher, Hash},
};

use super::{Engine, Kept};
use crate::{
    budget::Budget,
    config::Priority,
    entry::{Charge, Entry},
    metrics::Counter,
    reclaim::{Guard, desk::Desk, limbo::Unlinked, pin},
    stripe::{Push, thread_number},
    sync::atomic::Ordering,
    table::{Held, Host, LANES, Table, Upsert},
};

/// What an insert did. It is decided, and visible to everybody, when the call returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "an insert may be rejected"]
pub enum Insert<V> {
    /// The entry is in the cache, and no entry of its key was.
    Inserted,
    /// The entry is in the cache, in place of an older one of its key.
    Updated,
    /// The entry is not in the cache, and neither is an older one of its key; here is the value.
    Rejected(V, Reject),
}

impl<V> Insert<V> {
    /// Returns whether the entry is in the cache.
    pub fn is_in(&self) -> bool {
        !matches!(self, Self::Rejected(..))
    }

    /// Returns the value, if it was rejected.
    pub fn rejected(self) -> Option<V> {
        match self {
            Self::Rejected(value, _) => Some(value),
            _ => None,
        }
    }
}

/// Why an entry was not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Reject {
    /// It costs more than the whole budget.
    TooCostly,
    /// Room could not be made in a bounded number of steps: the entries in its way are asked for
    /// more often, or all at once by many writers.
    Cold,
    /// Too much is unlinked and not yet freed, because some reader holds on to a value.
    Garbage,
    /// What is there stays: the room it would take is that of [pinned](crate::Priority::Pinned)
    /// entries.
    Kept,
}

/// Why a write did not happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Refusal {
    /// Its mode does not allow it.
    Forbidden,
    /// The entry may not come in.
    Rejected(Reject),
}

/// Which entries a write may meet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Insert or replace.
    Upsert,
    /// Insert only.
    IfAbsent,
    /// Replace only; the priority stays.
    IfPresent,
}

impl<K: Hash + Eq, V, S: BuildHasher> Engine<K, V, S> {
    /// Inserts or replaces an entry.
    ///
    /// # Errors
    ///
    /// Returns the value if the mode forbids what is asked; the cache is as before then.
    pub fn insert(
        &self,
        key: K,
        value: V,
        cost: u64,
        priority: Priority,
        mode: Mode,
    ) -> Result<Insert<V>, V> {
        let cost = if self.settings.charge_overhead {
            cost.saturating_add(size_of::<Entry<K, V>>() as u64)
        } else {
            cost
        };
        let hash = self.hash(&key);
        let rejected = match Charge::new(cost).filter(|charge| charge.get() <= self.budget.max()) {
            None => (key, value, Refusal::Rejected(Reject::TooCostly)),
            Some(_) if self.is_over_garbage() => (key, value, Refusal::Rejected(Reject::Garbage)),
            Some(charge) => match self.upsert(hash, key, value, charge, priority, mode) {
                Ok(insert) => {
                    self.sweep_if_due();
                    return Ok(insert);
                }
                Err(rejected) => rejected,
            },
        };
        let (key, value, mut refusal) = rejected;
        match (refusal, mode) {
            (Refusal::Forbidden, _) => {}
            (_, Mode::IfAbsent) => {
                // Nothing was to be replaced, so nothing is out of date.
                if self.table.find(&pin(), hash, |entry| entry.key == key).is_some() {
                    refusal = Refusal::Forbidden;
                }
            }
            // What is in the cache under this key is out of date.
            (_, Mode::Upsert) => drop(self.remove(hash, |k| *k == key)),
            (_, Mode::IfPresent) => {
                if self.remove(hash, |k| *k == key).is_none() {
                    refusal = Refusal::Forbidden;
                }
            }
        }
        let (counter, result) = match refusal {
            Refusal::Forbidden => (Counter::RejectedKept, Err(value)),
            Refusal::Rejected(reason) => {
                let counter = match reason {
                    Reject::TooCostly => Counter::RejectedCostly,
                    Reject::Cold => Counter::RejectedCold,
                    Reject::Garbage => Counter::RejectedGarbage,
                    Reject::Kept => Counter::RejectedKept,
                };
                (counter, Ok(Insert::Rejected(value, reason)))
            }
        };
        self.counters.add(counter, 1);
        self.sweep_if_due();
        result
    }

    fn upsert(
        &self,
        hash: u64,
        key: K,
        value: V,
        charge: Charge,
        priority: Priority,
        mode: Mode,
    ) -> Result<Insert<V>, (K, V, Refusal)> {
        let cost = charge.get();
        if cost != 1 && !self.costs_vary() {
            self.costs_vary.store(true, Ordering::Relaxed); // Relaxed: a hint for the policy.
        }
        let now = self.pulse.now();
        let mut desk = self.table.desk(thread_number());
        let mut entry = desk.make(Entry::new(key, value, charge, now));
        entry.set_priority(priority);
        let seat = Seat { engine: self, desk: RefCell::new(Some(desk)) };
        let mut charged = Charged { budget: &self.budget, kept: &self.kept, cost: 0, pinned: None };
        let guard = pin();
        for _ in 0..ROOM_TRIES {
            // What the budget lacked when the table asked for permission.
            let mut short = 0;
            let mut refusal = Refusal::Rejected(Reject::Cold);
            // Whether a replacement is the first access of this pulse.
            let mut is_news = true;
            // Whether it is in the window when it is published.
            let mut in_window = true;
            let outcome = self.table.upsert(
                &guard,
                hash,
                entry,
                &seat,
                |resident, new| resident.key == new.key,
                |resident, new| {
                    let need = match (mode, resident) {
                        (Mode::IfAbsent, Some(_)) | (Mode::IfPresent, None) => {
                            refusal = Refusal::Forbidden;
                            return false;
                        }
                        (_, Some(old)) => {
                            if mode == Mode::IfPresent {
                                new.set_priority(old.marks().priority());
                            }
                            is_news = new.succeed(old, now);
                            cost.saturating_sub(old.cost())
                        }
                        (_, None) => cost,
                    };
                    in_window = new.is_in_window();
                    short = charged.raise_to(need);
                    charged.pin((short == 0 && new.marks().is_pinned()).then_some(cost));
                    short == 0
                },
            );
            match outcome {
                Upsert::Inserted(_) => {
                    seat.leave();
                    charged.spend(cost);
                    if !in_window {
                        self.add_to_main(cost);
                    }
                    self.local().entries.fetch_add(1, Ordering::Relaxed); // Relaxed: see `len`.
                    self.counters.add(Counter::Inserts, 1);
                    self.counters.add(Counter::CostAdded, cost);
                    self.welcome(&guard, hash, in_window);
                    return Ok(Insert::Inserted);
                }
                Upsert::Replaced { new, old } => {
                    charged.exchange(old.get().cost(), cost);
                    let leaves_queue = !self.enter_main(old.get());
                    if !in_window {
                        self.add_to_main(cost);
                    } else if leaves_queue {
                        // Its turn in the window came in between, and passed the old one on to main.
                        self.enter_main(new);
                    }
                    self.counters.add(Counter::Updates, 1);
                    self.counters.add(Counter::CostAdded, cost);
                    seat.bury(&guard, old, false);
                    if is_news {
                        self.note_mark(hash);
                    }
                    return Ok(Insert::Updated);
                }
                Upsert::Full(back) => {
                    let Entry { key, value, .. } = back.into_inner();
                    let reason = if self.kept.is_any() { Reject::Kept } else { Reject::Cold };
                    return Err((key, value, Refusal::Rejected(reason)));
                }
                Upsert::Refused(back) => {
                    entry = back;
                    // Making room takes others' entries out, and wants the desk.
                    seat.leave();
                    if short > self.unpinned_max().saturating_sub(charged.cost) {
                        refusal = Refusal::Rejected(Reject::Kept);
                        short = 0;
                    }
                    if short == 0 || !self.make_room(&guard, hash, &entry, short) {
                        let Entry { key, value, .. } = entry.into_inner();
                        return Err((key, value, refusal));
                    }
                }
            }
        }
        let Entry { key, value, .. } = entry.into_inner();
        Err((key, value, Refusal::Rejected(Reject::Cold)))
    }

    /// Does what a new entry asks for: it is an access, it goes to the window, and the thread may
    /// have to make up for the room it took.
    fn welcome(&self, guard: &Guard, hash: u64, to_window: bool) {
        self.note_sample(hash);
        let local = self.local();
        // Relaxed, twice: if two threads of a stripe interfere, an access counts twice.
        if local.last_miss.load(Ordering::Relaxed) == hash {
            // The miss that led to this insert was counted.
            local.last_miss.store(0, Ordering::Relaxed);
        } else {
            self.note_event(hash);
        }
        if to_window
            && !self.queue_newcomer(guard, hash)
            && let Some(entry) = self.table.find(guard, hash, Entry::is_in_window)
        {
            // The window does not know of it, so it is not in the window.
            self.enter_main(entry);
        }
        if self.waker.is_idle() && self.is_reserve_low() {
            self.waker.wake();
        }
    }

    /// Sends a new entry on its way to the window, unless all rings are held.
    fn queue_newcomer(&self, guard: &Guard, hash: u64) -> bool {
        let number = thread_number();
        for ring in (0..RINGS_TRIED).map(|i| self.newcomers.stripe(number + i)) {
            match ring.push(hash) {
                Push::Accepted => {}
                Push::Full => _ = ring.drain(|hashes| self.hand_over(guard, hashes)),
                Push::Contended => continue,
            }
            return true;
        }
        false
    }

    /// Removes an entry; the caller may look at it for as long as it likes.
    pub fn remove(&self, hash: u64, matches: impl Fn(&K) -> bool) -> Option<Held<'_, Entry<K, V>>> {
        let removed = self.table.hold(pin(), |table, guard| {
            let entry = table.remove(guard, hash, self, |entry| matches(&entry.key))?;
            Some(self.part_with(table, guard, entry))
        });
        self.sweep_if_due();
        removed
    }

    /// The same for an entry for which `condition` holds, and no other.
    pub fn remove_if(
        &self,
        hash: u64,
        matches: impl Fn(&K) -> bool,
        mut condition: impl FnMut(&V) -> bool,
    ) -> Option<Held<'_, Entry<K, V>>> {
        let removed = self.table.hold(pin(), |table, guard| {
            let matches = |entry: &Entry<K, V>| matches(&entry.key);
            let condition = |entry: &Entry<K, V>| condition(&entry.value);
            let entry = table.remove_if(guard, hash, self, matches, condition)?;
            Some(self.part_with(table, guard, entry))
        });
        self.sweep_if_due();
        removed
    }

    /// Removes every entry that is there when the call begins.
    pub fn clear(&self) {
        let guard = pin();
        self.table.clear(&guard, self, |entry| {
            self.part_with(&self.table, &guard, entry);
        });
        self.shrink_table(&guard, self.settings.expected_entries);
        drop(guard);
        self.sweep_if_due();
    }
}

impl<K, V, S> Engine<K, V, S> {
    fn part_with<'g>(
        &self,
        table: &'g Table<Entry<K, V>>,
        guard: &'g Guard,
        entry: Unlinked<Entry<K, V>>,
    ) -> &'g Entry<K, V> {
        self.counters.add(Counter::Removes, 1);
        self.bury(table, guard, entry, true)
    }

    #[inline]
    fn is_over_garbage(&self) -> bool {
        // Relaxed: a hint, acted on only after another look.
        self.over_garbage.load(Ordering::Relaxed) && self.is_garbage_stuck()
    }

    /// Frees what can be freed; returns whether there is too much all the same.
    ///
    /// Whoever is pinned may just lack a core, so this yields between its tries. Once all tries
    /// have failed, a reader is stalled, and the writers after this one try once each.
    #[cold]
    fn is_garbage_stuck(&self) -> bool {
        // Relaxed, here and below: hints.
        let tries = if self.is_stuck.load(Ordering::Relaxed) { 1 } else { GARBAGE_TRIES };
        for _ in 0..tries {
            self.table.seal_retired();
            self.sweep(usize::MAX);
            if !self.over_garbage.load(Ordering::Relaxed) {
                self.is_stuck.store(false, Ordering::Relaxed);
                return false;
            }
            crate::sync::thread::yield_now();
        }
        self.is_stuck.store(true, Ordering::Relaxed);
        true
    }
}

/// An engine as the host of a writer that sits at its desk: what has to leave is retired there.
struct Seat<'a, K, V, S> {
    engine: &'a Engine<K, V, S>,
    desk: RefCell<Option<Desk<'a, Entry<K, V>>>>,
}

impl<K, V, S> Seat<'_, K, V, S> {
    /// Gets up from the desk; the next one finds it free.
    fn leave(&self) {
        drop(self.desk.take());
    }

    /// Ends the stay of an entry that this writer took out.
    fn bury<'g>(
        &'g self,
        guard: &'g Guard,
        entry: Unlinked<Entry<K, V>>,
        leaves: bool,
    ) -> &'g Entry<K, V> {
        let engine = self.engine;
        match &mut *self.desk.borrow_mut() {
            Some(desk) => engine.bury_at(desk, &engine.table, guard, entry, leaves),
            None => engine.bury(&engine.table, guard, entry, leaves),
        }
    }
}

impl<K: Hash, V, S: BuildHasher> Host<Entry<K, V>> for Seat<'_, K, V, S> {
    fn hash(&self, entry: &Entry<K, V>) -> u64 {
        Host::hash(self.engine, entry)
    }

    fn is_crowded(&self, slots: usize) -> bool {
        self.engine.is_crowded(slots)
    }

    fn is_cramped(&self, slots: usize) -> bool {
        self.engine.is_cramped(slots)
    }

    fn choose_leaver(
        &self,
        residents: &[Option<&Entry<K, V>>; LANES],
        newcomer: &Entry<K, V>,
    ) -> Option<usize> {
        self.engine.choose_leaver(residents, newcomer)
    }

    fn displaced(&self, guard: &Guard, entry: Unlinked<Entry<K, V>>) {
        self.engine.recall_displaced(self.bury(guard, entry, true));
    }
}

/// What a writer has charged to the budget for an entry that is not in the table yet.
///
/// Dropping it refunds what was not spent, so that no panic leaves a cost without an entry.
struct Charged<'a> {
    budget: &'a Budget,
    kept: &'a Kept,
    cost: u64,
    /// The cost that was counted as a pinned entry's.
    pinned: Option<u64>,
}

impl Charged<'_> {
    /// Charges up to `need` in all; returns how much the budget lacks, charging nothing then.
    fn raise_to(&mut self, need: u64) -> u64 {
        let more = need.saturating_sub(self.cost);
        if more == 0 || self.budget.try_charge(more) {
            self.cost += more;
            return 0;
        }
        more
    }

    /// Counts a pinned entry of that cost, or none.
    fn pin(&mut self, cost: Option<u64>) {
        if self.pinned != cost {
            if let Some(cost) = cost {
                self.kept.add(cost);
            }
            if let Some(before) = std::mem::replace(&mut self.pinned, cost) {
                self.kept.sub(before);
            }
        }
    }

    /// Turns the charge into that of a published entry.
    fn spend(&mut self, cost: u64) {
        self.pinned = None;
        debug_assert!(self.cost >= cost, "published {cost} with {} charged", self.cost);
        self.cost -= cost;
    }

    /// The same where an entry of cost `old` gave up its place.
    fn exchange(&mut self, old: u64, cost: u64) {
        self.pinned = None;
        debug_assert!(self.cost + old >= cost, "published {cost} with {} charged", self.cost);
        self.cost = self.cost + old - cost;
    }
}

impl Drop for Charged<'_> {
    fn drop(&mut self) {
        self.pin(None);
        if self.cost > 0 {
            self.budget.refund(self.cost);
        }
    }
}

/// Times that a writer makes room before it gives up. Each time at least the room it lacked was
/// free for a moment, and others took it.
const ROOM_TRIES: usize = 32;
/// Rings that a writer tries for its new entry while others drain theirs.
const RINGS_TRIED: usize = 4;
/// Times that a writer tries to have garbage freed before it gives up.
const GARBAGE_TRIES: usize = 64;
