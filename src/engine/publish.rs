//! Publishing an entry: the choice between the resident entry and the new one, the charge, and the
//! bookkeeping.

use std::{
    hash::{BuildHasher, Hash},
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
};

use super::{
    Engine, Pressure, RemovalCause, Unevictable,
    evictions::MAX_VETOES,
    insert::{Mode, Prepared, Put, Refusal, Request, Terms},
    write_back::{Turn, Written},
};
use crate::{
    budget::Budget,
    config::Priority,
    entry::{Entry, Flags},
    metrics::Counter,
    outcome::RejectReason,
    policy::{access::Access, window::WindowEntry},
    primitives::striped::{Push, thread_number},
    reclaim::Guard,
    sync::atomic::Ordering,
    table::{
        EntryRef, Fresh, Full, Hints, Hit, Metadata, Panic, Probe, Publish, SLOTS, SlotRef, Table,
        Unlinked,
    },
    util::drop_panic,
};

/// Attempts to make room before a writer gives up. In each one, the room was free for a moment, and
/// other threads took it.
const ROOM_TRIES: usize = 32;
/// Units of a resize that a writer moves during an operation.
const UNITS_MOVED_BY_WRITER: usize = 2;
/// Rings that a writer tries for its new entry if other threads drain some of them.
const RINGS_TRIED: usize = 4;

/// The state of a writer that is about to publish an entry.
struct Plan<'a> {
    mode: Mode,
    terms: Terms,
    /// The garbage pressure when the write began.
    pressure: Pressure,
    now: u32,
    cost: u64,
    charged: Charged<'a>,
    /// The flags that the entry is published with.
    flags: Flags,
    /// Whether the replaced entry had expired.
    was_expired: bool,
    /// How often room was made.
    room_tries: usize,
    /// The id of the entry that was written back before its replacement; 0 if none.
    written: usize,
}

impl Plan<'_> {
    /// Returns the priority that the writer has named, or the default.
    fn named_priority(&self) -> Priority {
        self.terms.priority.unwrap_or_default()
    }

    /// Changes the flags that the new entry is published with.
    #[inline]
    fn set_flags<K, V>(
        &mut self,
        new: &Fresh<'_, Entry<K, V>>,
        is_in_window: bool,
        priority: Priority,
    ) {
        let flags = Flags::new(is_in_window, self.flags.is_timed(), priority);
        if flags != self.flags {
            self.flags = flags;
            new.get().metadata().set_flags(flags);
        }
    }

    /// Raises the charge to `need`; returns how much the budget lacks.
    #[inline]
    fn charge(&mut self, need: u64) -> u64 {
        let short = self.charged.budget.raise(&mut self.charged.cost, need);
        let is_unevictable = short == 0 && self.flags.is_unevictable();
        if is_unevictable || self.charged.unevictable_cost.is_some() {
            self.charged.set_unevictable(is_unevictable.then_some(self.cost));
        }
        short
    }
}

/// What a writer has charged to the budget for an entry that is not in the table yet.
///
/// Dropping it refunds the rest, so that no panic leaves a charge without an entry.
struct Charged<'a> {
    budget: &'a Budget,
    unevictable: &'a Unevictable,
    cost: u64,
    /// The cost that was added to the total of unevictable entries.
    unevictable_cost: Option<u64>,
}

impl Charged<'_> {
    /// Counts an unevictable entry of that cost, or none.
    fn set_unevictable(&mut self, cost: Option<u64>) {
        if self.unevictable_cost != cost {
            if let Some(cost) = cost {
                self.unevictable.add(cost);
            }
            if let Some(before) = std::mem::replace(&mut self.unevictable_cost, cost) {
                self.unevictable.sub(before);
            }
        }
    }

    /// Passes the charge on to a published entry.
    fn spend(&mut self, cost: u64) {
        self.unevictable_cost = None;
        debug_assert!(self.cost >= cost, "published {cost} with {} charged", self.cost);
        self.cost -= cost;
    }

    /// Passes the charge on to a published entry that has replaced one of cost `old`.
    fn exchange(&mut self, old: u64, cost: u64) {
        self.unevictable_cost = None;
        debug_assert!(self.cost + old >= cost, "published {cost} with {} charged", self.cost);
        self.cost = self.cost + old - cost;
    }
}

impl Drop for Charged<'_> {
    #[inline]
    fn drop(&mut self) {
        if self.unevictable_cost.is_some() {
            self.set_unevictable(None);
        }
        if self.cost > 0 {
            self.budget.refund(self.cost);
        }
    }
}

impl<K: Hash + Eq, V, S: BuildHasher> Engine<K, V, S> {
    /// Publishes an entry, or refuses it, for example because there is too much garbage.
    pub(super) fn upsert<'g>(
        &self,
        table: &'g Table<Entry<K, V>>,
        guard: &'g Guard,
        hash: u64,
        mut prepared: Prepared<'g, K, V>,
    ) -> Put<'g, K, V> {
        match self.try_upsert(table, guard, hash, &mut prepared.entry, prepared.request) {
            Ok(put) => Ok(put),
            Err(refusal) => Err(prepared.refused(refusal)),
        }
    }

    /// Like [`upsert`](Self::upsert), but leaves a refused entry with the caller. Returns the
    /// resident entry, and whether the key had none before.
    #[inline]
    pub(super) fn try_upsert<'g, 't: 'g>(
        &self,
        table: &'g Table<Entry<K, V>>,
        guard: &'g Guard,
        hash: u64,
        entry: &mut Fresh<'t, Entry<K, V>>,
        request: Request,
    ) -> Result<(EntryRef<'g, Entry<K, V>>, bool), Refusal> {
        let Request { cost, terms, mode, pressure } = request;
        let flags = entry.get().metadata().flags();
        let mut claim = entry.claim_slot(guard);
        let mut plan = Plan {
            mode,
            terms,
            pressure,
            now: self.access_clock.now(),
            cost,
            charged: Charged {
                budget: &self.budget,
                unevictable: &self.unevictable,
                cost: 0,
                unevictable_cost: None,
            },
            flags,
            was_expired: false,
            room_tries: 0,
            written: 0,
        };
        let on_displaced = |entry| self.displace(guard, entry);
        if table.help(guard, UNITS_MOVED_BY_WRITER, on_displaced) {
            // Units are left to move, or an old array is to be freed.
            self.notify_if_waiting();
        }
        // Each outcome is handled inside the loop: an enum of all of them would be written to
        // memory and read back.
        loop {
            let is_key = |resident: EntryRef<'_, Entry<K, V>>| resident.key == claim.fresh().key;
            let vacant = match table.probe(guard, hash, is_key, on_displaced) {
                Probe::Found(there) => {
                    let old = there.get().at();
                    self.find_room(guard, hash, &mut plan, Some(old), claim.fresh())?;
                    let Some((new, old)) = there.replace(&mut claim) else { continue };
                    self.note_replacement(guard, hash, new, old, &mut plan);
                    return Ok((new.at(), plan.was_expired));
                }
                Probe::Absent(vacant) => vacant,
            };
            self.find_room(guard, hash, &mut plan, None, claim.fresh())?;
            let class = self.class_of(plan.cost, plan.flags).to_bits();
            let hints = Hints { access: Access::new(plan.now).to_bits(), class };
            let is_same = |resident: &Entry<K, V>, new: &Entry<K, V>| resident.key == new.key;
            match vacant.publish(&mut claim, hints, is_same) {
                Publish::Done(new) => {
                    self.note_insert(guard, hash, &new, &mut plan);
                    return Ok((new.at(), true));
                }
                Publish::Duplicates(new, duplicates, first) => {
                    let panic = self.displace_all(guard, duplicates, first);
                    self.note_insert(guard, hash, &new, &mut plan);
                    if let Some(panic) = panic {
                        resume_unwind(panic);
                    }
                    return Ok((new.at(), true));
                }
                Publish::Changed => {}
                Publish::Full(full) => {
                    if !self.make_slot(table, guard, &full) {
                        let is_protected =
                            self.unevictable.is_any() || self.callbacks.ask_before_eviction();
                        let reason =
                            if is_protected { RejectReason::Kept } else { RejectReason::Cold };
                        return Err(Refusal::Rejected(reason));
                    }
                }
            }
        }
    }

    /// Decides whether an entry may replace `resident`, or be inserted if there is none, and makes
    /// room for it in the budget.
    #[inline]
    fn find_room(
        &self,
        guard: &Guard,
        hash: u64,
        plan: &mut Plan<'_>,
        resident: Option<EntryRef<'_, Entry<K, V>>>,
        new: &Fresh<'_, Entry<K, V>>,
    ) -> Result<(), Refusal> {
        match self.plan(guard, hash, plan, resident, new)? {
            0 => Ok(()),
            short => self.make_room_until(guard, hash, plan, resident, new, short),
        }
    }

    /// Makes room for `short` more cost, and repeats that while other threads take it.
    #[cold]
    fn make_room_until(
        &self,
        guard: &Guard,
        hash: u64,
        plan: &mut Plan<'_>,
        resident: Option<EntryRef<'_, Entry<K, V>>>,
        new: &Fresh<'_, Entry<K, V>>,
        mut short: u64,
    ) -> Result<(), Refusal> {
        let mut vetoes = 0;
        while short > 0 {
            let room = self.evictable_max().saturating_sub(plan.charged.cost);
            if short > room || vetoes >= MAX_VETOES {
                return Err(Refusal::Rejected(RejectReason::Kept));
            }
            plan.room_tries += 1;
            if plan.room_tries > ROOM_TRIES || !self.make_room(guard, hash, short, &mut vetoes) {
                let reason = if vetoes > 0 { RejectReason::Kept } else { RejectReason::Cold };
                return Err(Refusal::Rejected(reason));
            }
            short = self.plan(guard, hash, plan, resident, new)?;
        }
        Ok(())
    }

    /// Makes room in a full bucket, by growing the table or evicting a resident entry; returns
    /// whether it did, or the bucket has changed.
    #[cold]
    fn make_slot<'g>(
        &self,
        table: &'g Table<Entry<K, V>>,
        guard: &'g Guard,
        full: &Full<'g, Entry<K, V>>,
    ) -> bool {
        let on_displaced = |entry| self.displace(guard, entry);
        if self.is_crowded(table.slots(guard)) && full.grow(on_displaced) {
            self.notify_if_waiting();
            return true;
        }
        let Some(residents) = full.residents() else { return true };
        if self.callbacks.ask_before_eviction() {
            if self.evict_allowed(guard, residents) {
                return true;
            }
        } else if let Some(victim) = self.choose_bucket_victim(&residents) {
            // Whichever entry it is: one that was published in the slot since is as good a victim.
            if let Some(out) = full.evict(victim) {
                self.displace(guard, out);
            }
            return true;
        }
        if !self.is_cramped(table.slots(guard)) {
            return false;
        }
        // An array that is still being filled cannot grow. If none is being filled either, there is
        // no memory, or another helper has just finished: try once more.
        let mut is_moving = true;
        while !full.grow(on_displaced) {
            if !is_moving {
                return false;
            }
            is_moving = table.help(guard, usize::MAX, on_displaced);
        }
        self.notify_if_waiting();
        true
    }

    /// Evicts an entry of a full bucket that the callbacks allow to evict.
    #[cold]
    fn evict_allowed(
        &self,
        guard: &Guard,
        mut residents: [Option<SlotRef<'_, Entry<K, V>>>; SLOTS],
    ) -> bool {
        while let Some(victim) = self.choose_bucket_victim(&residents) {
            let sampled_slot = self.table.sampled_slot_of(victim);
            let id = victim.id();
            // An entry that was removed concurrently has made room, too.
            if sampled_slot.is_none_or(|sampled_slot| self.evictions(guard).evict(&sampled_slot)) {
                return true;
            }
            let is_left = |resident: &Option<SlotRef<'_, Entry<K, V>>>| {
                resident.as_ref().is_some_and(|resident| resident.id() != id)
            };
            for resident in &mut residents {
                if !is_left(resident) {
                    *resident = None;
                }
            }
        }
        false
    }

    /// Retires entries that a publication has found to be duplicates; returns the first panic.
    fn displace_all(
        &self,
        guard: &Guard,
        duplicates: Vec<Unlinked>,
        mut first: Option<Panic>,
    ) -> Option<Panic> {
        for entry in duplicates {
            if let Err(panic) = catch_unwind(AssertUnwindSafe(|| self.displace(guard, entry))) {
                match &first {
                    None => first = Some(panic),
                    Some(_) => drop_panic(panic),
                }
            }
        }
        first
    }

    /// Decides whether an entry may replace `resident`, or be inserted if there is none, and
    /// charges for it; returns what the budget lacks.
    ///
    /// Called again whenever the bucket has changed.
    #[inline]
    fn plan(
        &self,
        guard: &Guard,
        hash: u64,
        plan: &mut Plan<'_>,
        resident: Option<EntryRef<'_, Entry<K, V>>>,
        new: &Fresh<'_, Entry<K, V>>,
    ) -> Result<u64, Refusal> {
        if let Some(old) = resident {
            return self.plan_replacement(guard, hash, plan, old, new);
        }
        plan.was_expired = false;
        if !self.may_put(plan.mode, None, new) {
            return Err(Refusal::Forbidden);
        }
        if plan.pressure >= Pressure::Soft {
            return Err(Refusal::Rejected(RejectReason::Garbage));
        }
        // A new entry enters the window.
        plan.set_flags(new, true, plan.named_priority());
        Ok(plan.charge(plan.cost))
    }

    /// Like [`plan`](Self::plan), for a key that has an entry.
    fn plan_replacement(
        &self,
        guard: &Guard,
        hash: u64,
        plan: &mut Plan<'_>,
        resident: EntryRef<'_, Entry<K, V>>,
        new: &Fresh<'_, Entry<K, V>>,
    ) -> Result<u64, Refusal> {
        let unexpired = self.is_unexpired(resident).then_some(resident);
        plan.was_expired = unexpired.is_none();
        if !self.may_put(plan.mode, unexpired, new) {
            return Err(Refusal::Forbidden);
        }
        if unexpired.is_none() && self.callbacks.write_back.is_some() {
            self.settle_replaced(guard, hash, plan, resident)?;
        }
        let too_much = if unexpired.is_some() { Pressure::Hard } else { Pressure::Soft };
        if plan.pressure >= too_much {
            return Err(Refusal::Rejected(RejectReason::Garbage));
        }
        let mut priority = plan.named_priority();
        if let Some(old) = unexpired {
            if self.keeps_priority(plan) {
                priority = old.metadata().flags().priority();
            }
            if plan.mode.keeps() && plan.terms.cost.is_none() {
                self.inherit_cost(plan, new, old)?;
            }
            if plan.terms.ttl.is_none() {
                self.inherit_deadline(new.get(), old.metadata(), plan.mode.keeps());
            }
        }
        // A replacement stays in the region of the entry that it replaces.
        let flags = resident.metadata().flags();
        plan.set_flags(new, flags.is_in_window(), priority);
        if priority == Priority::Pinned && !flags.is_unevictable() {
            self.pin_replaced(guard, hash, resident.metadata());
        }
        let refund = self.cost_of(resident.metadata());
        Ok(plan.charge(plan.cost.saturating_sub(refund)))
    }

    /// Makes an entry unevictable that an unevictable one is about to replace. Otherwise, an
    /// eviction that has examined the old entry could evict the new one in its slot.
    #[cold]
    fn pin_replaced(&self, guard: &Guard, hash: u64, resident: Metadata<'_, Entry<K, V>>) {
        self.set_priority(guard, hash, resident, Priority::Pinned);
    }

    /// Writes an expired entry back that is about to be replaced. If that fails, only a write that
    /// would also replace a live entry may replace it.
    #[cold]
    fn settle_replaced(
        &self,
        guard: &Guard,
        hash: u64,
        plan: &mut Plan<'_>,
        resident: EntryRef<'_, Entry<K, V>>,
    ) -> Result<(), Refusal> {
        let is_written = match plan.mode {
            // A loaded value was read from the store before this write-back.
            Mode::Loaded | Mode::Refreshed(_) => false,
            _ if plan.written == resident.id() => true,
            // One that has gone is not replaced: the caller looks again.
            _ => match self.write_back(guard, hash, resident, Turn::Wait) {
                Written::Yes | Written::Gone => true,
                Written::Refused | Written::Busy => false,
            },
        };
        if is_written {
            plan.written = resident.id();
        }
        if is_written || plan.mode == Mode::Upsert {
            Ok(())
        } else {
            Err(Refusal::Rejected(RejectReason::Kept))
        }
    }

    /// Gives an entry the cost of the one that it is to replace.
    fn inherit_cost(
        &self,
        plan: &mut Plan<'_>,
        new: &Fresh<'_, Entry<K, V>>,
        old: EntryRef<'_, Entry<K, V>>,
    ) -> Result<(), Refusal> {
        let cost = self.inherited_cost(new.get(), old);
        if cost > self.budget.max() {
            return Err(Refusal::Rejected(RejectReason::TooCostly));
        }
        self.set_cost(new, cost).map_err(|_| Refusal::Rejected(RejectReason::Memory))?;
        plan.cost = cost;
        Ok(())
    }

    /// Does the bookkeeping of an insert.
    fn note_insert(
        &self,
        guard: &Guard,
        hash: u64,
        new: &SlotRef<'_, Entry<K, V>>,
        plan: &mut Plan<'_>,
    ) {
        let cost = plan.cost;
        plan.charged.spend(cost);
        self.local().entries.fetch_add(1, Ordering::Relaxed); // Relaxed: see `len`.
        self.counters.add(Counter::Inserts, 1);
        self.counters.add(Counter::CostAdded, cost);
        self.enqueue_new_entry(guard, WindowEntry::new(hash, cost, new.spot()));
        if let Some(times) = new.times() {
            self.post_deadline(hash, times);
        }
        self.births.begin(new.id(), || self.time_of_births());
    }

    /// Does the bookkeeping of a replacement.
    fn note_replacement(
        &self,
        guard: &Guard,
        hash: u64,
        new: Hit<'_, Entry<K, V>>,
        old: Unlinked,
        plan: &mut Plan<'_>,
    ) {
        let cost = plan.cost;
        let seen = self.table.metadata_of(guard, &old);
        plan.charged.exchange(self.cost_of(seen), cost);
        // The access bits belong to the slot, and stay.
        new.set_class(self.class_of(cost, plan.flags).to_bits());
        self.pass_on_region(hash, &new, seen, plan);
        self.counters.add(Counter::CostAdded, cost);
        self.pass_on_priority(guard, hash, &new, seen, plan);
        let cause = if plan.was_expired {
            self.counters.add(Counter::Expirations, 1);
            self.counters.add(Counter::Inserts, 1);
            RemovalCause::Expired
        } else {
            self.counters.add(Counter::Updates, 1);
            self.births.pass_on(seen.id(), new.id());
            RemovalCause::Replaced
        };
        self.retire_unlinked(&self.table, guard, old, cause, false);
        if self.reference(&new) {
            self.note_first_hit(hash);
        }
        if let Some(times) = new.times() {
            self.post_deadline(hash, times);
        }
        if plan.was_expired {
            self.births.begin(new.id(), || self.time_of_births());
        }
    }

    /// Accounts for the region of a replacement, with at most one update of the main region's cost:
    /// none if the costs are equal.
    #[inline]
    fn pass_on_region(
        &self,
        hash: u64,
        new: &Hit<'_, Entry<K, V>>,
        old: Metadata<'_, Entry<K, V>>,
        plan: &Plan<'_>,
    ) {
        let was_in_window = old.leave_window();
        let is_in_window = plan.flags.is_in_window();
        if is_in_window && !was_in_window {
            // The old entry had its turn in the window concurrently, and was promoted to main.
            self.enter_main(hash, new);
        }
        let added = if is_in_window { 0 } else { plan.cost };
        let taken = if was_in_window { 0 } else { self.cost_of(old) };
        if added != taken {
            // The check avoids a line that every core writes.
            self.add_to_main(added.wrapping_sub(taken));
        }
    }

    /// Applies a priority that was set on the old entry after the replacement was planned.
    #[inline]
    fn pass_on_priority(
        &self,
        guard: &Guard,
        hash: u64,
        new: &Hit<'_, Entry<K, V>>,
        old: Metadata<'_, Entry<K, V>>,
        plan: &Plan<'_>,
    ) {
        let (priority, planned) = (old.flags().priority(), plan.flags.priority());
        if priority != planned && !plan.was_expired && self.keeps_priority(plan) {
            // Unless another priority was set on the new entry since.
            self.change_priority(guard, hash, new.metadata(), priority, Some(planned));
        }
    }

    /// Returns whether a replacement keeps the priority of the old entry.
    fn keeps_priority(&self, plan: &Plan<'_>) -> bool {
        let is_protected = plan.mode.keeps() || self.settings.keep_priority;
        is_protected && plan.terms.priority.is_none()
    }

    /// Returns whether the mode and `replace_if` allow to replace `unexpired`, or to insert if it
    /// is `None`.
    fn may_put(
        &self,
        mode: Mode,
        unexpired: Option<EntryRef<'_, Entry<K, V>>>,
        new: &Entry<K, V>,
    ) -> bool {
        let allows = match (mode, unexpired) {
            (Mode::Upsert, _)
            | (Mode::IfAbsent | Mode::Loaded | Mode::Refreshed(_), None)
            | (Mode::IfPresent, Some(_)) => true,
            (Mode::IfAbsent | Mode::Loaded, Some(_))
            | (Mode::IfPresent | Mode::Instead(_), None) => false,
            (Mode::Instead(id) | Mode::Refreshed(id), Some(old)) => old.id() == id,
        };
        let (Some(old), Some(replace_if)) = (unexpired, &self.callbacks.replace_if) else {
            return allows;
        };
        let is_asked = matches!(mode, Mode::Upsert | Mode::IfPresent);
        allows && (!is_asked || replace_if(&new.key, &old.value, &new.value))
    }

    /// Accounts for a new entry: counts the access, queues the entry for the window, and makes up
    /// for the room it took.
    fn enqueue_new_entry(&self, guard: &Guard, window_entry: WindowEntry) {
        let hash = window_entry.hash;
        self.note_sample(hash);
        let local = self.local();
        // Relaxed, twice: if two threads of a stripe interfere, an access counts twice.
        let is_counted = local.last_miss.load(Ordering::Relaxed) == hash;
        if is_counted {
            // The miss that led to this insert was counted.
            local.last_miss.store(0, Ordering::Relaxed);
        }
        if let Some(mut shard) = self.take_shard() {
            self.take_in(guard, &mut shard, window_entry, is_counted);
        } else {
            self.wait_for_shard(guard, hash, is_counted);
        }
        if self.eventcount.is_waiting() && self.is_reserve_low() {
            self.eventcount.notify();
        }
    }

    /// Queues a new entry while all shards are taken.
    #[cold]
    fn wait_for_shard(&self, guard: &Guard, hash: u64, is_counted: bool) {
        if !is_counted {
            self.note_event(hash);
        }
        if !self.queue_new_entry(guard, hash) {
            // The entry is in no queue, so it cannot wait for its turn.
            self.filter_alone(guard, hash);
        }
        self.note_unqueued();
    }

    /// Queues a new entry for the window, unless all rings are held. An entry may be queued twice,
    /// but is never lost: an entry of the window that is in no queue would never be evicted.
    fn queue_new_entry(&self, guard: &Guard, hash: u64) -> bool {
        let number = thread_number();
        for ring in (0..RINGS_TRIED).map(|i| self.new_entries.stripe(number + i)) {
            match ring.place(hash) {
                Push::Accepted => return true,
                Push::Full => {
                    let mut is_in = false;
                    ring.drain(|hashes| {
                        is_in = hashes.contains(&hash);
                        self.hand_over(guard, hashes);
                    });
                    // Another entry may have taken the ring's free slot.
                    return is_in;
                }
                Push::Contended => {}
            }
        }
        false
    }
}
