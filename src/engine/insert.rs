//! Inserts and replacements, up to publication: what a writer asks for, the entry's cost and times,
//! and what follows from a rejection.
//!
//! An entry that costs more than the budget is rejected here, not in `policy/admission.rs`: no
//! eviction can make room for it.

use std::{
    hash::{BuildHasher, Hash},
    time::Duration,
};

use super::{Engine, Pressure, RemovalCause};
use crate::{
    config::Priority,
    entry::{Entry, Flags, NewTimes},
    error::OutOfMemory,
    metrics::Counter,
    outcome::{Insert, RejectReason},
    primitives::striped::thread_number,
    reclaim::Guard,
    sync::atomic::Ordering,
    table::{EntryRef, Fresh, Table},
};

/// Bytes per entry outside its cell: 13 for flags, hash and cost, and 18 to 21 for its share of the
/// buckets, rounded.
const SIDE_ARRAY_BYTES: usize = 32;
/// Bytes of the times of an entry that may expire.
const TIMES_BYTES: usize = 2 * size_of::<u64>();

/// Why a write did not happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// Its mode does not allow it.
    Forbidden,
    /// It was loaded, and has expired already.
    Expired,
    /// The entry was rejected.
    Rejected(RejectReason),
}

/// Which resident entries a write accepts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Insert or replace.
    Upsert,
    /// Insert only.
    IfAbsent,
    /// Insert a loaded entry only, unless it has expired already.
    Loaded,
    /// Insert a reloaded entry, or replace the entry of this id.
    Refreshed(usize),
    /// Replace only; cost, priority and deadline stay unless they are named.
    IfPresent,
    /// Replace the entry of this [id](EntryRef::id) only; as above, the rest stays.
    Instead(usize),
}

impl Mode {
    /// Returns whether a replacement keeps cost, priority and deadline.
    pub(super) fn keeps(self) -> bool {
        matches!(self, Self::IfPresent | Self::Instead(_))
    }
}

/// The options of an insert.
#[derive(Clone, Copy, Debug)]
pub struct Terms {
    /// The cost; by default, that of the cost function, or 1.
    ///
    /// If the replacement keeps the terms of the old entry ([`Mode::keeps`]), those that are not
    /// named here stay; the cost stays only if there is no cost function.
    pub cost: Option<u64>,
    pub priority: Option<Priority>,
    /// How long the entry lives; `Some(None)` means that it does not expire. By default, as set in
    /// the builder.
    pub ttl: Option<Option<Duration>>,
}

impl Terms {
    /// Everything as set in the builder.
    pub const DEFAULT: Self = Self { cost: None, priority: None, ttl: None };
}

/// The resident entry, and whether its key had none before; or what was refused.
pub type Put<'g, K, V> = Result<(EntryRef<'g, Entry<K, V>>, bool), Refused<K, V>>;

/// An entry that is ready to be published, with its request.
pub(super) struct Prepared<'a, K, V> {
    pub(super) entry: Fresh<'a, Entry<K, V>>,
    pub(super) request: Request,
}

/// What the writer of an entry asks for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Request {
    /// The cost to charge.
    pub(super) cost: u64,
    /// The terms that the writer has named; the rest is that of the replaced entry, if the mode
    /// keeps it.
    pub(super) terms: Terms,
    pub(super) mode: Mode,
    /// The garbage pressure when the write began.
    pub(super) pressure: Pressure,
}

impl<K, V> Prepared<'_, K, V> {
    /// Takes key and value back.
    pub(super) fn refused(self, refusal: Refusal) -> Refused<K, V> {
        refused(self.entry, refusal)
    }
}

/// Takes key and value back from an entry that was not published.
fn refused<K, V>(entry: Fresh<'_, Entry<K, V>>, refusal: Refusal) -> Refused<K, V> {
    let Entry { key, value } = entry.into_inner();
    Refused { key, value, refusal }
}

/// A write that did not happen, with its key and value.
pub struct Refused<K, V> {
    pub key: K,
    pub value: V,
    pub(super) refusal: Refusal,
}

impl<K, V> Refused<K, V> {
    /// Returns the value. Drops the key first: a value that is already being returned would leak if
    /// the key's destructor panicked (rust-lang/rust#47949).
    pub fn into_value(self) -> V {
        let Self { key, value, .. } = self;
        drop(key);
        value
    }

    /// Returns why the entry was rejected; `None` if its mode does not allow the write.
    pub fn reason(&self) -> Option<RejectReason> {
        match self.refusal {
            Refusal::Forbidden | Refusal::Expired => None,
            Refusal::Rejected(reason) => Some(reason),
        }
    }
}

impl<K: Hash + Eq, V, S: BuildHasher> Engine<K, V, S> {
    /// Inserts or replaces an entry, as far as the mode allows it.
    pub fn insert(&self, key: K, value: V, terms: Terms, mode: Mode) -> Insert<V> {
        let hash = self.hash(&key);
        match self.put(hash, key, value, terms, mode) {
            Ok(true) => Insert::Inserted,
            Ok(false) => Insert::Updated,
            Err(refused) => {
                let reason = refused.reason().unwrap_or_else(|| match mode {
                    Mode::IfAbsent => RejectReason::Present,
                    // It has an entry if the `replace_if` callback has refused.
                    Mode::IfPresent
                        if self.callbacks.replace_if.is_none()
                            || !self.has_unexpired(hash, &refused.key) =>
                    {
                        RejectReason::Absent
                    }
                    _ => RejectReason::Kept,
                });
                Insert::Rejected(refused.into_value(), reason)
            }
        }
    }

    #[cold]
    fn has_unexpired(&self, hash: u64, key: &K) -> bool {
        let guard = self.table.pin_part(hash);
        let hit = self.table.find(&guard, hash, |entry| entry.entry.key == *key);
        hit.is_some_and(|hit| self.is_unexpired(hit.at()))
    }

    /// Like [`insert`](Self::insert), but returns whether the key had no entry.
    ///
    /// # Errors
    ///
    /// Returns key and value if the entry is not in the cache.
    pub fn put(
        &self,
        hash: u64,
        key: K,
        value: V,
        terms: Terms,
        mode: Mode,
    ) -> Result<bool, Refused<K, V>> {
        self.table.prefetch(hash);
        let pressure = self.garbage_pressure();
        match self.put_unpinned(hash, (key, value), terms, mode, pressure) {
            // Separate from the other arm: a common result would be written to memory and read
            // back.
            Ok(is_new) => {
                self.sweep_if_due();
                Ok(is_new)
            }
            Err(refused) => {
                let refused = self.refuse(hash, refused, (mode, pressure));
                self.sweep_if_due();
                Err(refused)
            }
        }
    }

    /// Like [`put`](Self::put), but frees nothing and does not handle a refusal.
    #[inline]
    fn put_unpinned(
        &self,
        hash: u64,
        (key, value): (K, V),
        terms: Terms,
        mode: Mode,
        pressure: Pressure,
    ) -> Result<bool, Refused<K, V>> {
        // Step by step instead of by `prepare`, whose result would be moved around.
        let (request, times) = match self.request(&key, &value, terms, mode, pressure) {
            Ok(request) => request,
            Err(refusal) => return Err(Refused { key, value, refusal }),
        };
        let Some(reserved) = self.table.reserve(thread_number()) else {
            return Err(Refused { key, value, refusal: Refusal::Rejected(RejectReason::Memory) });
        };
        let mut entry = reserved.fill(Entry { key, value }, hash);
        if !self.furnish(&entry, request, times) {
            return Err(refused(entry, Refusal::Rejected(RejectReason::Memory)));
        }
        // Pinned only for the probe and the exchange, since grace periods wait for this guard. Room
        // is made under it, too, but no other entry is read.
        let guard = self.table.pin_part(hash);
        let write = self.flights.begin_write(hash);
        let put = self.try_upsert(&self.table, &guard, hash, &mut entry, request);
        // A rejected insert is newer than what a load brings, too.
        if put.is_ok() || mode == Mode::Upsert {
            self.commit(&guard, hash, write);
        }
        match put {
            Ok((_, is_new)) => Ok(is_new),
            Err(refusal) => Err(refused(entry, refusal)),
        }
    }

    /// Inserts an entry in a write that the caller has begun; returns it, and whether its key had
    /// none before. Frees nothing, as [`fill`](Self::fill).
    ///
    /// `table` is this engine's; it is a separate argument so that the result may live as long as
    /// both.
    pub(super) fn put_at<'g>(
        &self,
        table: &'g Table<Entry<K, V>>,
        guard: &'g Guard,
        hash: u64,
        entry: (K, V),
        terms: Terms,
        (mode, pressure): (Mode, Pressure),
    ) -> Put<'g, K, V> {
        self.prepare(table, hash, entry, terms, mode, pressure)
            .and_then(|prepared| self.upsert(table, guard, hash, prepared))
            .map_err(|refused| self.refuse(hash, refused, (mode, pressure)))
    }

    /// Prepares an entry for publication: determines its cost and times, and allocates it.
    pub(super) fn prepare<'t>(
        &self,
        table: &'t Table<Entry<K, V>>,
        hash: u64,
        (key, value): (K, V),
        terms: Terms,
        mode: Mode,
        pressure: Pressure,
    ) -> Result<Prepared<'t, K, V>, Refused<K, V>> {
        let (request, times) = match self.request(&key, &value, terms, mode, pressure) {
            Ok(request) => request,
            Err(refusal) => return Err(Refused { key, value, refusal }),
        };
        let Some(reserved) = table.reserve(thread_number()) else {
            return Err(Refused { key, value, refusal: Refusal::Rejected(RejectReason::Memory) });
        };
        let entry = reserved.fill(Entry { key, value }, hash);
        if !self.furnish(&entry, request, times) {
            return Err(refused(entry, Refusal::Rejected(RejectReason::Memory)));
        }
        Ok(Prepared { entry, request })
    }

    /// Determines the cost and the times of an entry.
    #[inline]
    fn request(
        &self,
        key: &K,
        value: &V,
        terms: Terms,
        mode: Mode,
        pressure: Pressure,
    ) -> Result<(Request, Option<NewTimes>), Refusal> {
        let terms = self.priced(key, value, terms);
        let times = self.times_for(key, value, terms.ttl, mode.keeps());
        let cost = terms.cost.unwrap_or(1).saturating_add(self.overhead(times.is_some()));
        if cost > self.budget.max() {
            return Err(Refusal::Rejected(RejectReason::TooCostly));
        }
        let is_loaded = matches!(mode, Mode::Loaded | Mode::Refreshed(_));
        if is_loaded && self.expires_at_once(times) {
            return Err(Refusal::Expired);
        }
        Ok((Request { cost, terms, mode, pressure }, times))
    }

    /// Stores flags, cost and times of a new entry; returns whether there was memory for them.
    #[inline]
    fn furnish(
        &self,
        entry: &Fresh<'_, Entry<K, V>>,
        request: Request,
        times: Option<NewTimes>,
    ) -> bool {
        let priority = request.terms.priority.unwrap_or_default();
        entry.get().metadata().set_flags(Flags::new(true, times.is_some(), priority));
        self.set_cost(entry, request.cost).is_ok()
            && times.is_none_or(|times| entry.set_times(times.words()).is_ok())
    }

    /// Stores the cost of an entry that is not published yet.
    pub(super) fn set_cost(
        &self,
        entry: &Fresh<'_, Entry<K, V>>,
        cost: u64,
    ) -> Result<(), OutOfMemory> {
        if !self.costs_vary() {
            // While all costs are 1, none is stored.
            if cost == 1 {
                return Ok(());
            }
            // Relaxed: published with the entry, so a thread that sees the entry sees this, too.
            self.costs_vary.store(true, Ordering::Relaxed);
        }
        entry.set_cost(cost)
    }

    /// Returns the charge of an entry that replaces `old` at the same cost.
    pub(super) fn inherited_cost(
        &self,
        new: EntryRef<'_, Entry<K, V>>,
        old: EntryRef<'_, Entry<K, V>>,
    ) -> u64 {
        let [before, after] =
            [old, new].map(|entry| self.overhead(entry.metadata().flags().is_timed()));
        self.cost_of(old.metadata()).saturating_sub(before).saturating_add(after)
    }

    /// Calls the cost function, if the terms do not name a cost. Called unpinned where possible,
    /// since it is user code.
    pub(super) fn priced(&self, key: &K, value: &V, terms: Terms) -> Terms {
        let cost = terms.cost.or_else(|| Some(self.callbacks.cost_of.as_ref()?(key, value)));
        Terms { cost, ..terms }
    }

    /// Returns the overhead that is added to an entry's own cost.
    pub fn overhead(&self, has_times: bool) -> u64 {
        let times = if has_times { TIMES_BYTES } else { 0 };
        let all = size_of::<Entry<K, V>>() + SIDE_ARRAY_BYTES + times;
        if self.settings.charge_overhead { all as u64 } else { 0 }
    }

    /// Handles a refusal: removes what it has made out of date, and counts it.
    pub(super) fn refuse(
        &self,
        hash: u64,
        mut refused: Refused<K, V>,
        (mode, pressure): (Mode, Pressure),
    ) -> Refused<K, V> {
        let key = &refused.key;
        let is_garbage = refused.refusal == Refusal::Rejected(RejectReason::Garbage);
        match (refused.refusal, mode) {
            (Refusal::Forbidden, _) => {}
            // The expired value is newer than the entry that it was to replace.
            (Refusal::Expired, Mode::Refreshed(id)) => {
                self.remove_id(hash, key, id);
                return refused;
            }
            (Refusal::Expired, _) => return refused,
            // The key had no live entry: that would have been replaced.
            (_, Mode::Upsert | Mode::IfPresent) if is_garbage && pressure < Pressure::Hard => {}
            // The entry that it was computed from stays, and the caller knows that.
            (_, Mode::Instead(_) | Mode::Refreshed(_)) if is_garbage => {}
            (_, Mode::IfAbsent | Mode::Loaded) => {
                // Nothing was to be replaced, so nothing is out of date.
                let guard = self.table.pin_part(hash);
                let resident = self.table.find(&guard, hash, |entry| entry.key == *key);
                if resident.is_some_and(|hit| self.is_unexpired(hit.at())) {
                    refused.refusal = Refusal::Forbidden;
                }
            }
            // The resident entry of this key is out of date.
            (_, Mode::Upsert) => {
                drop(self.remove(hash, |k| k == key, RemovalCause::Replaced));
            }
            (_, Mode::IfPresent) => {
                let removed =
                    self.remove_which(hash, |k| k == key, |_| true, RemovalCause::Replaced);
                if removed.is_none() {
                    refused.refusal = Refusal::Forbidden;
                }
            }
            (_, Mode::Instead(id)) => {
                if !self.remove_id(hash, key, id) {
                    refused.refusal = Refusal::Forbidden;
                }
            }
            (_, Mode::Refreshed(id)) => _ = self.remove_id(hash, key, id),
        }
        self.counters.add(
            match refused.refusal {
                Refusal::Forbidden
                | Refusal::Expired
                | Refusal::Rejected(
                    RejectReason::Kept | RejectReason::Present | RejectReason::Absent,
                ) => Counter::RejectedKept,
                Refusal::Rejected(RejectReason::TooCostly) => Counter::RejectedCostly,
                Refusal::Rejected(RejectReason::Cold) => Counter::RejectedCold,
                Refusal::Rejected(RejectReason::Garbage | RejectReason::Memory) => {
                    Counter::RejectedGarbage
                }
            },
            1,
        );
        refused
    }
}
