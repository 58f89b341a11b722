//! What insert, replace and remove do.
//!
//! Oversized inserts are refused here, not in `policy/admission.rs`: nothing can be admitted that
//! no eviction makes room for.

use std::{
    alloc::{Layout, handle_alloc_error},
    hash::{BuildHasher, Hash},
    time::Duration,
};

use super::{Engine, Pressure, RemovalCause};
use crate::{
    config::Priority,
    entry::{Entry, Flags, NewTimes},
    error::OutOfMemory,
    metrics::Counter,
    primitives::striped::thread_number,
    reclaim::Guard,
    singleflight::{Outcome, Write},
    sync::atomic::Ordering,
    table::{EntryRef, Fresh, Held, Loose, Table, Unlinked},
};

/// What an insert did. It is decided, and visible to all threads, when the call returns.
///
/// # Examples
///
/// ```
/// use cortado::{Cache, Insert, RejectReason};
///
/// let cache = Cache::new(10);
/// assert_eq!(cache.insert("k", 1), Insert::Inserted);
/// assert_eq!(cache.insert("k", 2), Insert::Updated);
/// assert_eq!(cache.insert_with_cost("k", 3, 11), Insert::Rejected(3, RejectReason::TooCostly));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Insert<V> {
    /// The entry is in the cache, and no entry of its key was.
    Inserted,
    /// The entry is in the cache, in place of an older one of its key.
    Updated,
    /// The entry is not in the cache; here is the value. An older one of its key is not either, unless
    /// [`replace_if`](crate::CacheBuilder::replace_if) kept it.
    Rejected(V, RejectReason),
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
///
/// # Examples
///
/// ```
/// use cortado::{Cache, Insert, Priority, InsertOptions, RejectReason};
///
/// let cache = Cache::new(1);
/// let pinned = InsertOptions::new().priority(Priority::Pinned);
/// assert!(cache.insert_with("k", 1, pinned).is_in());
/// assert_eq!(cache.insert("l", 2), Insert::Rejected(2, RejectReason::Kept));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum RejectReason {
    /// It costs more than the whole budget.
    TooCostly,
    /// Room could not be made in a bounded number of steps: the entries in its way are asked for
    /// more often, or all at once by many writers.
    Cold,
    /// Too much is unlinked and not yet freed, because some reader holds on to a value: see
    /// [`max_garbage`](crate::CacheBuilder::max_garbage).
    /// [`Cache::stalled_readers`](crate::Cache::stalled_readers) says which.
    Garbage,
    /// There is no memory for it.
    Memory,
    /// What is there stays: the room it would take is that of [pinned](crate::Priority::Pinned)
    /// entries, or [`replace_if`](crate::CacheBuilder::replace_if),
    /// [`can_evict`](crate::CacheBuilder::can_evict) or
    /// [`write_back`](crate::CacheBuilder::write_back) said no.
    Kept,
    /// The key has an entry, and the call inserts only where there is none.
    Present,
    /// The key has no entry, and the call only replaces one.
    Absent,
}

/// Why a write did not happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// Its mode does not allow it.
    Forbidden,
    /// It was loaded, and its time is over.
    Expired,
    /// The entry may not come in.
    Rejected(RejectReason),
}

/// Which entries a write may meet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Insert or replace.
    Upsert,
    /// Insert only.
    IfAbsent,
    /// The same for what was loaded, which does not come in if its time is over already.
    Loaded,
    /// The same for what was loaded again: it may also replace the entry of this id.
    Refreshed(usize),
    /// Replace only; cost, priority and deadline stay unless they are named.
    IfPresent,
    /// Replace the entry of this [id](EntryRef::id) only; the same stays.
    Instead(usize),
}

impl Mode {
    /// Returns whether what is replaced hands its cost, priority and deadline on.
    pub(super) fn keeps(self) -> bool {
        matches!(self, Self::IfPresent | Self::Instead(_))
    }
}

/// What an entry is inserted with.
#[derive(Clone, Copy, Debug)]
pub struct Terms {
    /// The cost; by default what the builder says.
    ///
    /// Where what is replaced hands its terms on ([`Mode::keeps`]), what is not named here is as it
    /// was: the cost only if there is no cost function.
    pub cost: Option<u64>,
    pub priority: Option<Priority>,
    /// How long it lives, or for ever; by default what the builder says.
    pub ttl: Option<Option<Duration>>,
}

impl Terms {
    /// Everything as the builder says.
    pub const DEFAULT: Self = Self { cost: None, priority: None, ttl: None };
}

/// The entry that is there now, and whether there was none of its key; or what was refused.
pub type Put<'g, K, V> = Result<(EntryRef<'g, Entry<K, V>>, bool), Refused<K, V>>;

/// An entry that is ready to be published, and what its writer asks for.
pub(super) struct Prepared<'a, K, V> {
    pub(super) entry: Fresh<'a, Entry<K, V>>,
    pub(super) request: Request,
}

/// What the writer of an entry asks for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Request {
    /// What is charged for the entry.
    pub(super) cost: u64,
    /// What its writer named; the rest is that of the entry it replaces, if its mode keeps it.
    pub(super) terms: Terms,
    pub(super) mode: Mode,
    /// How much garbage there was when the writer looked.
    pub(super) pressure: Pressure,
}

impl<K, V> Prepared<'_, K, V> {
    /// Takes key and value back.
    pub(super) fn refused(self, refusal: Refusal) -> Refused<K, V> {
        refused(self.entry, refusal)
    }
}

/// Takes key and value of an entry back that was not published.
fn refused<K, V>(entry: Fresh<'_, Entry<K, V>>, refusal: Refusal) -> Refused<K, V> {
    let Entry { key, value } = entry.into_inner();
    Refused { key, value, refusal }
}

/// What a load has brought and the table has not.
pub type Loaded = Loose;

/// What is returned to the caller of a load, and what has become of what that has brought.
pub type Filled<'a, K, V> = (Held<'a, Entry<K, V>>, Outcome<Loaded>);

/// What a write leaves in the caller's hands.
pub struct Refused<K, V> {
    pub key: K,
    pub value: V,
    pub(super) refusal: Refusal,
}

impl<K, V> Refused<K, V> {
    /// Returns the value, and drops the key before: a value that is returned already would not be dropped if
    /// the key's destructor panicked (rust-lang/rust#47949).
    pub fn into_value(self) -> V {
        let Self { key, value, .. } = self;
        drop(key);
        value
    }

    /// Returns why the entry may not come in; `None` if its mode does not allow the write.
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
                    // It is there if the builder's `replace_if` has said no.
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

    /// The same; returns whether there was no entry of the key.
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
            // Apart from the other arm: a result of both would be written to memory and read back.
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

    /// The same; frees nothing, and settles nothing of what is refused.
    #[inline]
    fn put_unpinned(
        &self,
        hash: u64,
        (key, value): (K, V),
        terms: Terms,
        mode: Mode,
        pressure: Pressure,
    ) -> Result<bool, Refused<K, V>> {
        // Step by step, and not by `prepare`: what that returns would be moved about.
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
        // Pinned for the probe and the exchange only: a grace period waits for it. Room is made under it, too, without a
        // look at any other entry.
        let guard = self.table.pin_part(hash);
        let write = self.flights.begin_write(hash);
        let put = self.try_upsert(&self.table, &guard, hash, &mut entry, request);
        // An insert that is refused is newer than what a load brings, too.
        if put.is_ok() || mode == Mode::Upsert {
            self.commit(&guard, hash, write);
        }
        match put {
            Ok((_, is_new)) => Ok(is_new),
            Err(refusal) => Err(refused(entry, refusal)),
        }
    }

    /// Invalidates the loads that a write has met, which this thread has begun when it was pinned.
    #[inline]
    pub fn commit(&self, guard: &Guard, hash: u64, write: Write<'_, K, Loaded>) {
        if let Some(id) = write.commit() {
            self.take_out(guard, hash, id);
        }
    }

    /// Takes out what a load has left to a write.
    #[cold]
    fn take_out(&self, guard: &Guard, hash: u64, id: usize) {
        // A load has ended in the meantime, and left it to this write to take out what it has
        // published.
        let is_it = |entry: EntryRef<'_, Entry<K, V>>| entry.id() == id;
        let on_displaced = |entry| self.displace(guard, entry);
        if let Some(entry) = self.table.remove_if(guard, hash, is_it, |_| true, on_displaced) {
            self.counters.add(Counter::LoadsInvalidated, 1);
            self.retire_removed(&self.table, guard, entry, RemovalCause::Removed);
        }
    }

    /// Inserts a loaded value, unless its key has an entry by now or the load is invalid. A refresh
    /// replaces the entry of the id `refreshed`. Returns the entry that is there afterwards, or the
    /// loaded one, which need not be in the cache; and what has become of the loaded one.
    ///
    /// One whose time is over already is not brought in: those who wait for it would not find it.
    ///
    /// Frees nothing, for the flight has not ended yet, and then the caller is pinned.
    pub fn fill(
        &self,
        hash: u64,
        (key, value): (K, V),
        terms: Terms,
        is_invalid: bool,
        refreshed: Option<usize>,
    ) -> Filled<'_, K, V> {
        let mode = refreshed.map_or(Mode::Loaded, Mode::Refreshed);
        let pressure = self.noted_pressure();
        let terms = self.priced(&key, &value, terms);
        let mut outcome = Outcome::Nothing;
        let prepared = if is_invalid {
            self.counters.add(Counter::LoadsInvalidated, 1);
            Err(Refused { key, value, refusal: Refusal::Forbidden })
        } else {
            self.prepare(&self.table, hash, (key, value), terms, mode, pressure)
        };
        let held = self.table.hold(self.table.pin_part(hash), |table, guard| {
            let mut prepared = prepared;
            let (refused, there) = loop {
                let put = prepared.and_then(|prepared| self.upsert(table, guard, hash, prepared));
                let refused = match put {
                    Ok((entry, _)) => {
                        outcome = Outcome::Published(entry.id());
                        return Some(entry);
                    }
                    Err(refused) if is_invalid => refused,
                    Err(refused) => self.refuse(hash, refused, (mode, pressure)),
                };
                let there = match refused.reason() {
                    None => table.find(guard, hash, |entry| entry.key == refused.key),
                    Some(_) => None,
                };
                let there = there.map(|hit| hit.at()).filter(|entry| self.is_unexpired(*entry));
                if there.is_some() || is_invalid || refused.refusal != Refusal::Forbidden {
                    break (refused, there);
                }
                // What kept this one out has left: perhaps another load has taken it back.
                let Refused { key, value, .. } = refused;
                prepared = self.prepare(&self.table, hash, (key, value), terms, mode, pressure);
            };
            let cause = match refused.refusal {
                Refusal::Expired => RemovalCause::Expired,
                Refusal::Forbidden | Refusal::Rejected(_) => RemovalCause::Rejected,
            };
            let entry = Entry { key: refused.key, value: refused.value };
            let Ok(fresh) = table.prepare(entry, hash, thread_number()) else {
                // As where a box cannot be made: the caller is promised a reference.
                handle_alloc_error(Layout::new::<Entry<K, V>>());
            };
            fresh.get().metadata().set_flags(Flags::new(true, false, Priority::default()));
            let named = terms.cost.unwrap_or(1);
            // Where there is no memory for it, it is told as 1.
            let cost = if self.set_cost(&fresh, named).is_ok() { named } else { 1 };
            let terms = self.garbage_terms(cost, cause);
            let loaded = Loose::unpublished(fresh, terms);
            if there.is_some() {
                // Those who wait find it, too; what was loaded is older.
                self.retire_loaded(loaded);
                return there;
            }
            let entry = table.see(guard, &loaded);
            outcome = Outcome::Unpublished(loaded);
            Some(entry)
        });
        (held.expect("there is always an entry to return"), outcome)
    }

    /// Takes out what a load has put in, for its key was written while it ran; returns it, to be
    /// retired.
    pub fn take_back(&self, hash: u64, loaded: &Held<'_, Entry<K, V>>) -> Option<Loaded> {
        self.counters.add(Counter::LoadsInvalidated, 1);
        let id = loaded.get().id();
        let is_it = |entry: EntryRef<'_, Entry<K, V>>| entry.id() == id;
        let guard = self.table.pin_part(hash);
        let on_displaced = |entry| self.displace(&guard, entry);
        let entry = self.table.remove_if(&guard, hash, is_it, |_| true, on_displaced)?;
        self.counters.add(Counter::Removes, 1);
        let seen = self.table.metadata_of(&guard, &entry);
        self.write_off(seen);
        self.births.end(seen.id(), false, || self.time_of_births());
        let terms = self.garbage_terms(self.cost_of(seen), RemovalCause::Removed);
        Some(Loose::new(entry, terms))
    }

    /// Looks for what a load has left in the table, for one that has waited for it: an entry of the
    /// key that is live, or the very one that was published, though its time may be over by now.
    pub fn get_loaded(
        &self,
        hash: u64,
        matches: impl Fn(&K) -> bool,
        published: Option<usize>,
    ) -> Option<Held<'_, Entry<K, V>>> {
        self.table.hold(self.table.pin_part(hash), |table, guard| {
            let entry = table.find(guard, hash, |entry| matches(&entry.key))?.at();
            let is_it = published == Some(entry.id());
            (is_it || self.is_unexpired(entry)).then_some(entry)
        })
    }

    /// Puts an entry into the table, in a write that the caller has begun; returns it, and whether there was none of its
    /// key. Frees nothing, as [`fill`](Self::fill).
    ///
    /// `table` is this engine's; given apart so that the result may live as long as both.
    pub fn put_at<'g>(
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

    /// Makes the entry that is to be published: asks what it costs and how long it lives, and
    /// allocates it.
    fn prepare<'t>(
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

    /// Asks what an entry costs and how long it lives.
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

    /// Stores flags, cost and times beside a new entry; returns whether there was memory for them.
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

    /// Stores what is charged for an entry that is not published yet.
    pub(super) fn set_cost(
        &self,
        entry: &Fresh<'_, Entry<K, V>>,
        cost: u64,
    ) -> Result<(), OutOfMemory> {
        if !self.costs_vary() {
            // As long as all costs are 1, none is stored.
            if cost == 1 {
                return Ok(());
            }
            // Relaxed: whoever sees the entry sees this, too.
            self.costs_vary.store(true, Ordering::Relaxed);
        }
        entry.set_cost(cost)
    }

    /// Returns what an entry is charged that takes the place of `old` and costs the same.
    pub(super) fn inherited_cost(
        &self,
        new: EntryRef<'_, Entry<K, V>>,
        old: EntryRef<'_, Entry<K, V>>,
    ) -> u64 {
        let [before, after] =
            [old, new].map(|entry| self.overhead(entry.metadata().flags().is_timed()));
        self.cost_of(old.metadata()).saturating_sub(before).saturating_add(after)
    }

    /// Asks the cost function, if the terms do not name a cost. Unpinned where that can be: it is the
    /// user's.
    fn priced(&self, key: &K, value: &V, terms: Terms) -> Terms {
        let cost = terms.cost.or_else(|| Some(self.callbacks.cost_of.as_ref()?(key, value)));
        Terms { cost, ..terms }
    }

    /// Returns what is added to an entry's own cost.
    pub fn overhead(&self, has_times: bool) -> u64 {
        let times = if has_times { TIMES_BYTES } else { 0 };
        let all = size_of::<Entry<K, V>>() + SIDE_ARRAY_BYTES + times;
        if self.settings.charge_overhead { all as u64 } else { 0 }
    }

    /// Settles what follows from a refusal.
    fn refuse(
        &self,
        hash: u64,
        mut refused: Refused<K, V>,
        (mode, pressure): (Mode, Pressure),
    ) -> Refused<K, V> {
        let key = &refused.key;
        let is_garbage = refused.refusal == Refusal::Rejected(RejectReason::Garbage);
        match (refused.refusal, mode) {
            (Refusal::Forbidden, _) => {}
            // What was loaded in its place is newer.
            (Refusal::Expired, Mode::Refreshed(id)) => {
                self.remove_id(hash, key, id);
                return refused;
            }
            (Refusal::Expired, _) => return refused,
            // The key had no entry, or its entry would have been replaced.
            (_, Mode::Upsert | Mode::IfPresent) if is_garbage && pressure < Pressure::Hard => {}
            // What it was made from is still there, and the caller knows that it is.
            (_, Mode::Instead(_) | Mode::Refreshed(_)) if is_garbage => {}
            (_, Mode::IfAbsent | Mode::Loaded) => {
                // Nothing was to be replaced, so nothing is out of date.
                let guard = self.table.pin_part(hash);
                let resident = self.table.find(&guard, hash, |entry| entry.key == *key);
                if resident.is_some_and(|hit| self.is_unexpired(hit.at())) {
                    refused.refusal = Refusal::Forbidden;
                }
            }
            // What is in the cache under this key is out of date.
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

    /// Removes the entry of a key if it is the one of this id; returns whether it was.
    fn remove_id(&self, hash: u64, key: &K, id: usize) -> bool {
        let is_it = |entry: EntryRef<'_, Entry<K, V>>| entry.id() == id;
        self.remove_which(hash, |k| k == key, is_it, RemovalCause::Replaced).is_some()
    }

    /// Removes an entry; the caller may look at it for as long as it likes. Frees nothing, for the caller stays
    /// pinned.
    ///
    /// A write though there is none: a load that runs must not bring one.
    pub fn remove(
        &self,
        hash: u64,
        matches: impl Fn(&K) -> bool,
        cause: RemovalCause,
    ) -> Option<Held<'_, Entry<K, V>>> {
        // Before it is taken out: a user's clock that panics would lose it.
        let now = self.time_of_deadlines();
        self.table.hold(self.table.pin_part(hash), |table, guard| {
            let write = self.flights.begin_write(hash);
            let is_key = |entry: EntryRef<'_, Entry<K, V>>| matches(&entry.entry.key);
            let removed = table.remove(guard, hash, is_key, |entry| self.displace(guard, entry));
            let removed = removed.map(|entry| {
                let is_unexpired = self.is_unexpired_at(table.unlinked(guard, &entry), now);
                let cause = if is_unexpired { cause } else { RemovalCause::Expired };
                (self.retire_removed(table, guard, entry, cause), is_unexpired)
            });
            self.commit(guard, hash, write);
            removed.and_then(|(entry, is_unexpired)| is_unexpired.then_some(entry))
        })
    }

    /// The same for a live entry for which `condition` holds, and no other. No write if there is
    /// none.
    pub fn remove_which(
        &self,
        hash: u64,
        matches: impl Fn(&K) -> bool,
        condition: impl FnMut(EntryRef<'_, Entry<K, V>>) -> bool,
        cause: RemovalCause,
    ) -> Option<Held<'_, Entry<K, V>>> {
        self.table.hold(self.table.pin_part(hash), |table, guard| {
            let write = self.flights.begin_write(hash);
            let removed = self.take_which(table, guard, hash, matches, condition, cause)?;
            self.commit(guard, hash, write);
            Some(removed)
        })
    }

    /// The same in a write that the caller has begun.
    pub fn take_which<'g>(
        &self,
        table: &'g Table<Entry<K, V>>,
        guard: &'g Guard,
        hash: u64,
        matches: impl Fn(&K) -> bool,
        mut condition: impl FnMut(EntryRef<'_, Entry<K, V>>) -> bool,
        cause: RemovalCause,
    ) -> Option<EntryRef<'g, Entry<K, V>>> {
        let matches = |entry: EntryRef<'_, Entry<K, V>>| matches(&entry.entry.key);
        let condition =
            |entry: EntryRef<'_, Entry<K, V>>| self.is_unexpired(entry) && condition(entry);
        let on_displaced = |entry| self.displace(guard, entry);
        let entry = table.remove_if(guard, hash, matches, condition, on_displaced)?;
        Some(self.retire_removed(table, guard, entry, cause))
    }

    /// Removes every entry that is there when the call begins.
    pub fn clear(&self) {
        // Before they are taken out, as in `remove`.
        let now = self.time_of_deadlines();
        let guard = self.table.pin();
        self.take_all(&guard, now, |_| {});
        drop(guard);
        self.sweep_if_due();
    }

    /// The same; then shows those that went, this thread still pinned.
    pub fn drain(&self, mut show: impl FnMut(&Entry<K, V>)) {
        // Before they are taken out, as in `remove`.
        let now = self.time_of_deadlines();
        let guard = self.table.pin();
        let mut gone = Vec::new();
        self.take_all(&guard, now, |entry| gone.push(entry.entry));
        // Last, for it is the user's and may panic.
        gone.into_iter().for_each(&mut show);
        drop(guard);
        self.sweep_if_due();
    }

    fn take_all<'g>(
        &'g self,
        guard: &'g Guard,
        now: Option<u64>,
        mut taken: impl FnMut(EntryRef<'g, Entry<K, V>>),
    ) {
        self.flights.invalidate_all();
        self.table.clear(guard, |entry| {
            let is_unexpired = self.is_unexpired_at(self.table.unlinked(guard, &entry), now);
            let cause = if is_unexpired { RemovalCause::Cleared } else { RemovalCause::Expired };
            let entry = self.retire_removed(&self.table, guard, entry, cause);
            if is_unexpired {
                taken(entry);
            }
        });
        // Loads that began in the meantime are not over, and the cache is cleared.
        self.flights.invalidate_all();
        self.shrink_table(guard, self.settings.expected_entries);
        // Relaxed: a hint to maintenance, which comes when what was taken out here has been freed.
        self.trim_due.store(true, Ordering::Relaxed);
    }
}

impl<K, V, S> Engine<K, V, S> {
    fn retire_removed<'g>(
        &self,
        table: &'g Table<Entry<K, V>>,
        guard: &'g Guard,
        entry: Unlinked,
        cause: RemovalCause,
    ) -> EntryRef<'g, Entry<K, V>> {
        let is_expired = cause == RemovalCause::Expired;
        self.counters.add(if is_expired { Counter::Expirations } else { Counter::Removes }, 1);
        self.retire_unlinked(table, guard, entry, cause, true)
    }
}

/// Bytes of what an entry has beside its cell (flags, hash and cost: 13) and of its share of the buckets (18 to 21), in
/// round numbers.
const SIDE_ARRAY_BYTES: usize = 32;
/// Bytes of the times beside the cell of an entry that may expire.
const TIMES_BYTES: usize = 2 * size_of::<u64>();
