//! Publishing an entry: probes, plans, publishes, until no other thread has changed the bucket; then
//! does the bookkeeping.

use std::{
    hash::{BuildHasher, Hash},
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
};

use super::{
    Engine, RemovalCause,
    insert::{Prepared, Put, Refusal, Request},
    plan::{Charged, Plan},
};
use crate::{
    entry::Entry,
    metrics::Counter,
    outcome::RejectReason,
    policy::{access::Access, window::WindowEntry},
    reclaim::Guard,
    sync::atomic::Ordering,
    table::{
        EntryRef, Fresh, Full, Hints, Hit, Metadata, Panic, Probe, Publish, SLOTS, SlotRef, Table,
        Unlinked,
    },
    util::drop_panic,
};

/// Units of a resize that a writer moves during an operation.
const UNITS_MOVED_BY_WRITER: usize = 2;

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
        let flags = entry.get().metadata().flags();
        let mut claim = entry.claim_slot(guard);
        let now = self.access_clock.now();
        let charged = Charged::nothing(
            &self.budget,
            (&self.local().credit, self.max_credit()),
            &self.unevictable,
        );
        let mut plan = Plan::new(request, flags, charged);
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
            let hints = Hints { access: Access::new(now).to_bits(), class };
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
}
