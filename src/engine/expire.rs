//! Expiration: the time settings of a cache, and the deadlines that maintenance tracks.

use std::{cell::Cell, mem, time::Duration};

use super::{
    Engine,
    place::borrow,
    write_back::{Expire, Turn},
};
use crate::{
    clock::{Callback, Clock, ManualClock, SystemClock, to_nanoseconds},
    config::Settings,
    entry::{END, Entry, NewTimes, Times},
    expiry::inbox::{ExpiryInbox, NEVER},
    expiry::wheel::{Timer, TimingWheel},
    metrics::Counter,
    reclaim::Guard,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    table::{EntryRef, Metadata, SlotRef},
    trace,
};

/// Uses count as one within an interval of the idle time divided by this, `MAX_GRAIN` at most: 1
/// ms, in nanoseconds.
const GRAINS: u64 = 1000;
const MAX_GRAIN: u64 = 1_000_000;
/// Entries that are removed under one guard, and by one call of a writer that lacks room.
const EXPIRED_AT_ONCE: usize = 64;
const EXPIRED_FOR_ROOM: usize = 16;
/// The delay until an entry that could not be written back is tried again: 1 s, in nanoseconds.
const RETRY_AFTER: u64 = 1_000_000_000;
/// Timers without an entry that are tolerated.
const SPARE_TIMERS: usize = 1024;

/// The clock and the time settings of a cache.
pub struct Timing {
    clock: Box<dyn Clock>,
    /// How the maintenance thread learns that time has passed.
    notice: Notice,
    ttl: Option<Duration>,
    /// How long an entry may stay unused, in nanoseconds.
    idle: u64,
    /// Uses less than this apart count as one, in nanoseconds.
    grain: u64,
    /// The age at which a load refreshes an entry, in nanoseconds.
    refresh_after: u64,
    /// Whether every entry has times.
    is_everywhere: bool,
    /// Whether any entry has ever had times.
    is_used: AtomicBool,
}

/// How the maintenance thread learns that a deadline has passed.
pub enum Notice {
    /// The clock advances by itself, like the system's: the thread can sleep until the deadline.
    Runs,
    /// The clock runs a callback when it is advanced; the callback is owned here.
    Called(ManualClock, Option<std::sync::Arc<Callback>>), // shim: as in `clock.rs`
    /// The thread has to poll the clock.
    Looks,
}

impl Notice {
    /// Returns the kind of notice that a clock gives.
    pub fn of(clock: &dyn std::any::Any) -> Self {
        match clock.downcast_ref::<ManualClock>() {
            Some(clock) => Self::Called(clock.clone(), None),
            None if clock.is::<SystemClock>() => Self::Runs,
            None => Self::Looks,
        }
    }
}

impl Timing {
    /// Makes the timing of a cache from its settings; `is_asked_for` gives every entry times, even
    /// if no setting needs them.
    pub fn new(
        clock: Option<(Box<dyn Clock>, Notice)>,
        ttl: Option<Duration>,
        tti: Option<Duration>,
        refresh_after: Option<Duration>,
        is_asked_for: bool,
    ) -> Self {
        let idle = tti.map_or(NEVER, to_nanoseconds);
        let (clock, notice) = clock.unwrap_or_else(|| (Box::new(SystemClock::new()), Notice::Runs));
        Self {
            clock,
            notice,
            ttl,
            idle,
            grain: (idle / GRAINS).min(MAX_GRAIN),
            refresh_after: refresh_after.map_or(NEVER, to_nanoseconds),
            is_everywhere: [ttl, tti, refresh_after].iter().any(Option::is_some) || is_asked_for,
            is_used: AtomicBool::new(false),
        }
    }

    /// Returns the time in nanoseconds, capped at [`END`].
    pub fn now(&self) -> u64 {
        to_nanoseconds(self.clock.now()).min(END)
    }

    /// Registers `wake` to run when the clock is advanced, if the clock supports that.
    pub fn call_when_moved(&mut self, wake: impl Fn() + Send + Sync + 'static) {
        if let Notice::Called(clock, kept) = &mut self.notice {
            let callback: std::sync::Arc<Callback> = std::sync::Arc::new(wake); // shim: as above
            clock.on_advance(std::sync::Arc::downgrade(&callback)); // shim: as above
            *kept = Some(callback);
        }
    }

    /// Returns whether the clock may jump without notice.
    pub fn jumps(&self) -> bool {
        matches!(self.notice, Notice::Looks)
    }

    /// Returns how long it is until `deadline`, for a thread that is about to sleep.
    pub fn until(&self, deadline: u64) -> Duration {
        let now = match &self.notice {
            Notice::Called(clock, _) => to_nanoseconds(clock.recheck()).min(END),
            Notice::Runs | Notice::Looks => self.now(),
        };
        Duration::from_nanos(deadline.saturating_sub(now))
    }

    /// Returns how much of an entry's time to live is left; `None` if it does not expire.
    pub fn left(&self, times: Times<'_>) -> Option<Duration> {
        let deadline = times.deadline(self.idle);
        (deadline != NEVER).then(|| Duration::from_nanos(deadline.saturating_sub(self.now())))
    }

    /// Returns whether an entry has not expired.
    #[inline]
    pub fn is_unexpired<K, V>(&self, entry: EntryRef<'_, Entry<K, V>>) -> bool {
        !self.is_used() || self.is_in_time(entry)
    }

    #[inline(never)]
    fn is_in_time<K, V>(&self, entry: EntryRef<'_, Entry<K, V>>) -> bool {
        entry.metadata().times().is_none_or(|times| !self.is_expired(times, self.now()))
    }

    /// Returns whether any entry has ever had times.
    #[inline]
    fn is_used(&self) -> bool {
        // Relaxed: set before such an entry is published, so a reader of the entry sees it.
        self.is_used.load(Ordering::Relaxed)
    }

    #[inline]
    pub(super) fn is_expired(&self, times: Times<'_>, now: u64) -> bool {
        times.deadline(self.idle) <= now
    }
}

/// The start time of a load.
pub struct Stopwatch {
    began: u64,
}

/// Hashes on their way from the inbox to the timing wheel. If a panic interrupts, the rest is put
/// back.
struct Posted<'a> {
    expiry_inbox: &'a ExpiryInbox,
    hashes: Vec<u64>,
}

impl Drop for Posted<'_> {
    fn drop(&mut self) {
        if !self.hashes.is_empty() {
            self.expiry_inbox.put_back(mem::take(&mut self.hashes));
        }
    }
}

/// The timing wheel and its buffers; only the thread that has taken them out uses them.
pub struct Timers {
    wheel: TimingWheel,
    /// Timers that have expired.
    fired: Vec<Timer>,
    /// Expired timers of entries whose deadline is later. They are added again at the end: if the
    /// clock has moved back, they would otherwise expire again at once, in an endless loop.
    deferred: Vec<Timer>,
}

impl Timers {
    /// Makes an empty timing wheel.
    pub fn new() -> Self {
        Self { wheel: TimingWheel::new(), fired: Vec::new(), deferred: Vec::new() }
    }

    /// Returns the bytes in use.
    pub fn bytes(&self) -> usize {
        let timers = self.fired.capacity() + self.deferred.capacity();
        self.wheel.bytes() + timers * size_of::<Timer>()
    }
}

impl<K, V, S> Engine<K, V, S> {
    /// Returns whether an entry has not expired.
    #[inline]
    pub fn is_unexpired(&self, entry: EntryRef<'_, Entry<K, V>>) -> bool {
        self.timing.is_unexpired(entry)
    }

    /// Returns what tells the time to live of an entry.
    #[inline]
    pub fn timing(&self) -> &Timing {
        &self.timing
    }

    /// Returns how much of an entry's time to live is left; `None` if it does not expire.
    pub fn ttl_left(&self, entry: EntryRef<'_, Entry<K, V>>) -> Option<Duration> {
        self.timing.left(entry.metadata().times()?)
    }

    /// Returns how long ago an entry was written, if it has times and uses do not change them.
    pub fn age(&self, entry: EntryRef<'_, Entry<K, V>>) -> Option<Duration> {
        let Timing { idle, .. } = self.timing;
        let times = entry.metadata().times().filter(|_| idle == NEVER)?;
        Some(Duration::from_nanos(self.timing.now().saturating_sub(times.used())))
    }

    /// Returns whether an entry is old enough for a load to refresh it.
    #[inline]
    pub fn is_stale(&self, entry: EntryRef<'_, Entry<K, V>>) -> bool {
        let Timing { refresh_after, .. } = self.timing;
        let age = |times: Times<'_>| self.timing.now().saturating_sub(times.used());
        refresh_after != NEVER
            && entry.metadata().times().is_some_and(|times| age(times) >= refresh_after)
    }

    /// Resets the age of an entry, so that its next refresh is not due at once.
    pub fn postpone_refresh(&self, entry: EntryRef<'_, Entry<K, V>>) {
        if self.timing.refresh_after != NEVER
            && let Some(times) = entry.metadata().times()
        {
            times.record_use(self.timing.now(), 0);
        }
    }

    /// Returns whether an entry had not expired at `now`, which
    /// [`time_of_deadlines`](Self::time_of_deadlines) has returned.
    pub(super) fn is_unexpired_at(
        &self,
        entry: EntryRef<'_, Entry<K, V>>,
        now: Option<u64>,
    ) -> bool {
        let over = |(times, now)| self.timing.is_expired(times, now);
        !entry.metadata().times().zip(now).is_some_and(over)
    }

    /// Returns the current time if any entry has a deadline.
    pub(super) fn time_of_deadlines(&self) -> Option<u64> {
        // The first entry with a deadline, if inserted concurrently, has not expired yet.
        self.expiry_inbox.is_used().then(|| self.timing.now())
    }

    /// Returns whether an entry has not expired, for a read, which may extend the deadline.
    #[inline]
    pub(super) fn is_unexpired_on_read(&self, hash: u64, entry: EntryRef<'_, Entry<K, V>>) -> bool {
        !self.timing.is_used() || self.read_in_time(hash, entry)
    }

    #[inline(never)]
    fn read_in_time(&self, hash: u64, entry: EntryRef<'_, Entry<K, V>>) -> bool {
        let Some(times) = entry.metadata().times() else { return true };
        let timing = &self.timing;
        let now = timing.now();
        if timing.is_expired(times, now) {
            return false;
        }
        if timing.idle != NEVER {
            times.record_use(now, timing.grain);
        }
        if let Some(expiry) = &self.callbacks.expiry {
            let left = timing.left(times);
            let wanted = expiry.on_read(&entry.key, &entry.value, left);
            if wanted != left {
                self.move_deadline(hash, times, deadline_after(now, wanted));
            }
        }
        true
    }

    /// Returns the times of an entry that is about to be allocated, if it needs any.
    pub(super) fn times_for(
        &self,
        key: &K,
        value: &V,
        ttl: Option<Option<Duration>>,
        may_inherit: bool,
    ) -> Option<NewTimes> {
        let timing = &self.timing;
        let expiry = self.callbacks.expiry.as_deref();
        let is_needed = ttl.flatten().is_some()
            || timing.is_everywhere
            || expiry.is_some()
            || (may_inherit && self.expiry_inbox.is_used());
        if !is_needed {
            return None;
        }
        self.note_timed();
        // Relaxed, twice: as in `is_used`. Stored only once: readers share the line.
        if !timing.is_used.load(Ordering::Relaxed) {
            timing.is_used.store(true, Ordering::Relaxed);
        }
        let now = timing.now();
        let lives = match (ttl, expiry) {
            (Some(ttl), _) => ttl,
            (None, Some(expiry)) => expiry.on_create(key, value),
            (None, None) => timing.ttl,
        };
        Some(NewTimes { deadline: deadline_after(now, lives), now })
    }

    /// Returns whether an entry with these times has expired from the start.
    pub(super) fn expires_at_once(&self, times: Option<NewTimes>) -> bool {
        times.is_some_and(|times| {
            let words = times.words().map(AtomicU64::new);
            self.timing.is_expired(Times::of(&words), times.now)
        })
    }

    /// Sets the deadline of an unpublished entry that is to replace `old`.
    pub(super) fn inherit_deadline(
        &self,
        new: EntryRef<'_, Entry<K, V>>,
        old: Metadata<'_, Entry<K, V>>,
        keeps: bool,
    ) {
        let Some(times) = new.metadata().times() else { return };
        if let Some(expiry) = &self.callbacks.expiry {
            let left = old.times().and_then(|times| self.timing.left(times));
            let lives = expiry.on_update(&new.key, &new.value, left);
            times.set_deadline(deadline_after(self.timing.now(), lives));
        } else if keeps {
            times.set_deadline(old.times().map_or(NEVER, Times::hard_deadline));
        }
    }

    /// Starts to time a load, if load times are counted or reported.
    pub fn start_stopwatch(&self) -> Stopwatch {
        let is_timed = self.counters.is_enabled() || trace::IS_ON;
        Stopwatch { began: if is_timed { self.timing.now() } else { 0 } }
    }

    /// Counts a load that has inserted or returned its value, and whether it has refreshed an entry.
    pub fn note_load(&self, stopwatch: &Stopwatch, is_refresh: bool) {
        self.counters.add(Counter::Loads, 1);
        if is_refresh {
            self.counters.add(Counter::Refreshes, 1);
        }
        self.stop(stopwatch, "filled");
    }

    /// Counts a load that has failed or was given up.
    pub fn note_failed_load(&self, stopwatch: &Stopwatch) {
        self.counters.add(Counter::LoadFailures, 1);
        self.stop(stopwatch, "given up");
    }

    /// Stops the time of a load: records it, and reports it if the load was slow.
    fn stop(&self, stopwatch: &Stopwatch, outcome: &'static str) {
        let is_counted = self.counters.is_enabled();
        if !is_counted && !trace::IS_ON {
            return;
        }
        let took = self.timing.now().saturating_sub(stopwatch.began);
        if is_counted {
            self.load_times.record(took);
        }
        let Settings { name, slow_load, .. } = &self.settings;
        let took = Duration::from_nanos(took);
        if took > *slow_load {
            trace::slow_load(name, took, outcome);
        }
    }

    /// Changes the deadline of an entry to `ttl` from now, or removes it.
    pub fn set_ttl(&self, hash: u64, times: Times<'_>, ttl: Option<Duration>) {
        self.move_deadline(hash, times, deadline_after(self.timing.now(), ttl));
    }

    fn move_deadline(&self, hash: u64, times: Times<'_>, deadline: u64) {
        let before = times.set_deadline(deadline);
        // A timer whose deadline was extended expires at the old time, and is added again then.
        if deadline < before {
            self.post_deadline(hash, times);
        }
    }

    /// Posts the deadline of a published entry to the timing wheel, if it has one.
    pub(super) fn post_deadline(&self, hash: u64, times: Times<'_>) {
        let at = times.deadline(self.timing.idle);
        if at == NEVER {
            return;
        }
        if self.expiry_inbox.post(hash, at) {
            self.eventcount.notify();
        }
    }
}

/// What a call has done with expired entries.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Expired {
    /// Entries that were removed.
    pub(super) removed: usize,
    /// Entries that were kept because they could not be written back.
    pub(super) unwritten: usize,
}

impl Expired {
    pub(super) fn tried(self) -> usize {
        self.removed + self.unwritten
    }
}

impl<K, V, S> Engine<K, V, S> {
    /// Removes expired entries, until `most` were removed or could not be written back.
    pub(super) fn expire(&self, most: usize) -> Expired {
        // A hint: a deadline that is posted concurrently is found by the next call.
        if !self.expiry_inbox.is_used() {
            return Expired::default();
        }
        borrow(&self.timers, |timers| self.expire_by(timers, most)).unwrap_or_default()
    }

    /// Like [`expire`](Self::expire), but with a small limit and only if a deadline has passed: for
    /// a writer that lacks room.
    pub(super) fn expire_if_due(&self) -> Expired {
        let is_due = self.expiry_inbox.is_used() && self.timing.now() >= self.expiry_inbox.next();
        if is_due { self.expire(EXPIRED_FOR_ROOM) } else { Expired::default() }
    }

    fn expire_by(&self, timers: &mut Timers, most: usize) -> Expired {
        let Timers { wheel, fired, deferred } = timers;
        self.expiry_inbox.begin();
        self.collect_timers(wheel);
        let now = self.timing.now();
        let mut expired = Expired::default();
        while expired.tried() < most {
            let slice = (most - expired.tried()).min(EXPIRED_AT_ONCE);
            // No grace period ends while a guard is held, so each slice takes a new one.
            let guard = self.table.pin();
            wheel.advance(now, slice, |timer| fired.push(timer));
            // A call that yields no timers may still have advanced the wheel.
            if fired.is_empty() && wheel.next().is_none_or(|next| next > now) {
                break;
            }
            // One by one: if a clock panics, the rest is handled by the next call.
            while let Some(&timer) = fired.last() {
                match self.fire(&guard, deferred, timer, now) {
                    Expire::Removed => expired.removed += 1,
                    Expire::Unwritten | Expire::Busy => expired.unwritten += 1,
                    Expire::NotDue => {}
                }
                fired.pop();
            }
        }
        deferred.drain(..).for_each(|timer| wheel.add(timer));
        // Entries that are removed before their deadline leave their timers behind.
        if wheel.timer_count() > 2 * self.len() as usize + SPARE_TIMERS {
            self.drop_stale_timers(wheel);
        }
        if let Some(next) = wheel.next() {
            self.expiry_inbox.end(next);
            // The caller may be a writer, and the maintenance thread may have prepared to sleep
            // concurrently.
            self.notify_if_waiting();
        }
        expired
    }

    /// Handles an expired timer: removes its entry, or defers the timer.
    fn fire(&self, guard: &Guard, deferred: &mut Vec<Timer>, timer: Timer, now: u64) -> Expire {
        let deadline = Cell::new(NEVER);
        let is_same = |entry: EntryRef<'_, Entry<K, V>>| {
            let is_it = entry.id() == timer.id;
            if is_it {
                let times = entry.metadata().times();
                deadline.set(times.map_or(NEVER, |times| times.deadline(self.timing.idle)));
            }
            is_it
        };
        let met = self.expire_entry(guard, timer.hash, is_same, now, Turn::Try);
        let next = match met {
            Expire::Removed => NEVER,
            Expire::Unwritten | Expire::Busy => now.saturating_add(RETRY_AFTER),
            // `NEVER` if it is gone. If it was removed concurrently, its timer is dropped when it
            // expires again.
            Expire::NotDue => deadline.get(),
        };
        if next != NEVER {
            deferred.push(Timer { at: next, ..timer });
        }
        met
    }

    fn entry_of<'g>(&'g self, guard: &'g Guard, timer: Timer) -> Option<SlotRef<'g, Entry<K, V>>> {
        self.table.find_slot(guard, timer.hash, |entry| entry.id() == timer.id)
    }

    /// Moves the posted deadlines into the timing wheel.
    fn collect_timers(&self, wheel: &mut TimingWheel) {
        let guard = self.table.pin_structure();
        let mut posted = Posted { expiry_inbox: &self.expiry_inbox, hashes: Vec::new() };
        self.expiry_inbox.collect(|hashes| posted.hashes.extend_from_slice(hashes));
        while let Some(&hash) = posted.hashes.last() {
            // All entries of exactly this hash that maintenance does not know of yet. A lookup by
            // bucket and tag alone would also match other entries, which are not found under this
            // hash after the table has grown.
            let is_news = |entry: Metadata<'_, Entry<K, V>>| {
                entry.has_upper_of(hash) && entry.times().is_some_and(Times::mark_known)
            };
            while let Some(entry) = self.table.find_slot(&guard, hash, is_news) {
                let at = entry.times().map_or(NEVER, |times| times.deadline(self.timing.idle));
                if at != NEVER {
                    wheel.add(Timer { hash, id: entry.id(), at });
                }
            }
            posted.hashes.pop();
        }
    }

    /// Frees the memory of timers whose entries are gone.
    pub(super) fn trim_deadlines(&self) {
        borrow(&self.timers, |timers| {
            self.collect_timers(&mut timers.wheel);
            self.drop_stale_timers(&mut timers.wheel);
            timers.fired.shrink_to_fit();
            timers.deferred.shrink_to_fit();
        });
    }

    fn drop_stale_timers(&self, wheel: &mut TimingWheel) {
        let guard = self.table.pin_structure();
        let mut known = std::collections::HashSet::new();
        wheel.retain(|timer| {
            let times = self.entry_of(&guard, *timer).and_then(|hit| hit.times());
            // Keep one of several timers of an entry, one that does not expire too late.
            times.is_some_and(|times| {
                timer.at <= times.deadline(self.timing.idle) && known.insert(timer.id)
            })
        });
    }
}

fn deadline_after(now: u64, ttl: Option<Duration>) -> u64 {
    ttl.map_or(NEVER, |ttl| now.saturating_add(to_nanoseconds(ttl)))
}

impl std::fmt::Debug for Timing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Timing").field("ttl", &self.ttl).finish_non_exhaustive()
    }
}
