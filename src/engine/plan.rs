//! What a write may do: the choice between the resident entry and the new one, what the new one
//! inherits, and the charge.

use std::hash::{BuildHasher, Hash};

use super::{
    Engine, Pressure, Unevictable,
    evictions::MAX_VETOES,
    insert::{Mode, Refusal, Request, Terms},
    write_back::{Turn, Written},
};
use crate::{
    budget::{Budget, Credit},
    config::Priority,
    entry::{Entry, Flags},
    outcome::RejectReason,
    reclaim::Guard,
    table::{EntryRef, Fresh, Metadata},
};

/// Attempts to make room before a writer gives up. In each one, the room was free for a moment, and
/// other threads took it.
const ROOM_TRIES: usize = 32;

/// The state of a writer that is about to publish an entry.
pub(super) struct Plan<'a> {
    mode: Mode,
    terms: Terms,
    /// The garbage pressure when the write began.
    pressure: Pressure,
    pub(super) cost: u64,
    pub(super) charged: Charged<'a>,
    /// The flags that the entry is published with.
    pub(super) flags: Flags,
    /// Whether the replaced entry had expired.
    pub(super) was_expired: bool,
    /// How often room was made.
    room_tries: usize,
    /// The id of the entry that was written back before its replacement; 0 if none.
    written: usize,
}

impl<'a> Plan<'a> {
    /// Makes the plan of a writer whose entry has these flags.
    #[inline]
    pub(super) fn new(request: Request, flags: Flags, charged: Charged<'a>) -> Self {
        let Request { cost, terms, mode, pressure } = request;
        Self {
            mode,
            terms,
            pressure,
            cost,
            charged,
            flags,
            was_expired: false,
            room_tries: 0,
            written: 0,
        }
    }

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
        let Charged { budget, credit, ahead, cost, .. } = &mut self.charged;
        let short = budget.raise(credit, *ahead, cost, need);
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
pub(super) struct Charged<'a> {
    budget: &'a Budget,
    /// The credit of this thread's stripe, and how much may be charged ahead for it.
    credit: &'a Credit,
    ahead: u64,
    unevictable: &'a Unevictable,
    cost: u64,
    /// The cost that was added to the total of unevictable entries.
    unevictable_cost: Option<u64>,
}

impl<'a> Charged<'a> {
    /// Makes the charge of a writer that has charged nothing yet.
    #[inline]
    pub(super) fn nothing(
        budget: &'a Budget,
        (credit, ahead): (&'a Credit, u64),
        unevictable: &'a Unevictable,
    ) -> Self {
        Self { budget, credit, ahead, unevictable, cost: 0, unevictable_cost: None }
    }

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
    pub(super) fn spend(&mut self, cost: u64) {
        self.unevictable_cost = None;
        debug_assert!(self.cost >= cost, "published {cost} with {} charged", self.cost);
        self.cost -= cost;
    }

    /// Passes the charge on to a published entry that has replaced one of cost `old`.
    pub(super) fn exchange(&mut self, old: u64, cost: u64) {
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
    /// Decides whether an entry may replace `resident`, or be inserted if there is none, and makes
    /// room for it in the budget.
    #[inline]
    pub(super) fn find_room(
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

    /// Returns whether a replacement keeps the priority of the old entry.
    pub(super) fn keeps_priority(&self, plan: &Plan<'_>) -> bool {
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
}
