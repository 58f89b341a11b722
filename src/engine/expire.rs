//! When entries expire: what a cache was told about it, and the deadlines that maintenance keeps.

use std::{mem, time::Duration};

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
    reclaim::Guard,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    table::{EntryRef, Metadata, SlotRef},
    trace,
};

/// What the builder said of time.
pub struct Timing {
    clock: Box<dyn Clock>,
    /// How the thread learns that time has passed.
    notice: Notice,
    ttl: Option<Duration>,
    /// How long an entry may go unused, in nanoseconds.
    idle: u64,
    /// Uses closer to one another than this are one.
    grain: u64,
    /// The age at which a load refreshes an entry, in nanoseconds.
    refresh_after: u64,
    /// Whether every entry has times.
    is_everywhere: bool,
    /// Whether an entry has had times.
    is_used: AtomicBool,
}

/// How the thread of a cache learns that the time has come.
pub enum Notice {
    /// The clock goes by itself, as the system's does: the thread can sleep until then.
    Runs,
    /// The clock calls when it is moved; the callback is kept here.
    Called(ManualClock, Option<std::sync::Arc<Callback>>), // shim: as in `clock.rs`
    /// The thread has to look again.
    Looks,
}

impl Notice {
    /// Returns that of a clock.
    pub fn of(clock: &dyn std::any::Any) -> Self {
        match clock.downcast_ref::<ManualClock>() {
            Some(clock) => Self::Called(clock.clone(), None),
            None if clock.is::<SystemClock>() => Self::Runs,
            None => Self::Looks,
        }
    }
}

impl Timing {
    /// Takes over the settings; `is_asked_for` gives every entry times, whether it needs them or not.
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

    /// Returns the time in nanoseconds; it stands still at [`END`].
    pub fn now(&self) -> u64 {
        to_nanoseconds(self.clock.now()).min(END)
    }

    /// Has `wake` called when a clock is moved that calls.
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

    /// Returns how long it is until a time, to the thread that is about to sleep.
    pub fn until(&self, deadline: u64) -> Duration {
        let now = match &self.notice {
            Notice::Called(clock, _) => to_nanoseconds(clock.recheck()).min(END),
            Notice::Runs | Notice::Looks => self.now(),
        };
        Duration::from_nanos(deadline.saturating_sub(now))
    }

    /// Returns what is left of an entry's time; `None` if it does not expire.
    pub fn left(&self, times: Times<'_>) -> Option<Duration> {
        let deadline = times.deadline(self.idle);
        (deadline != NEVER).then(|| Duration::from_nanos(deadline.saturating_sub(self.now())))
    }

    /// Returns how long ago an entry was written, if it has times and no use has moved them.
    pub fn age(&self, times: Times<'_>) -> Option<Duration> {
        (self.idle == NEVER).then(|| Duration::from_nanos(self.now().saturating_sub(times.used())))
    }

    /// Returns whether an entry is so old that a load refreshes it.
    #[inline]
    pub fn is_stale<K, V>(&self, entry: EntryRef<'_, Entry<K, V>>) -> bool {
        let times = || entry.metadata().times();
        self.refresh_after != NEVER
            && times().is_some_and(|it| self.now().saturating_sub(it.used()) >= self.refresh_after)
    }

    /// Starts the age of an entry again, so that its next refresh is not due at once.
    pub fn postpone_refresh<K, V>(&self, entry: EntryRef<'_, Entry<K, V>>) {
        if self.refresh_after != NEVER
            && let Some(times) = entry.metadata().times()
        {
            times.record_use(self.now(), 0);
        }
    }

    /// Returns whether an entry's time is not over yet.
    #[inline]
    pub fn is_unexpired<K, V>(&self, entry: EntryRef<'_, Entry<K, V>>) -> bool {
        !self.is_used() || self.is_in_time(entry)
    }

    #[inline(never)]
    fn is_in_time<K, V>(&self, entry: EntryRef<'_, Entry<K, V>>) -> bool {
        entry.metadata().times().is_none_or(|times| !self.is_expired(times, self.now()))
    }

    /// Returns whether an entry has had times.
    #[inline]
    fn is_used(&self) -> bool {
        // Relaxed: set before such an entry is published, whose reader sees it therefore.
        self.is_used.load(Ordering::Relaxed)
    }

    #[inline]
    pub(super) fn is_expired(&self, times: Times<'_>, now: u64) -> bool {
        times.deadline(self.idle) <= now
    }
}

/// When a load began.
pub struct Stopwatch {
    began: u64,
}

/// Hashes on their way into the timing wheel. Those that a panic leaves go back.
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

/// The deadlines of all entries that have one; belongs to whoever takes it out.
pub struct Timers {
    wheel: TimingWheel,
    /// Timers that have expired.
    fired: Vec<Timer>,
    /// Those whose entries have more time than that. They go back at the end: should the clock have gone
    /// back, they would fall due again at once, and for ever.
    deferred: Vec<Timer>,
}

impl Timers {
    /// Makes an empty one.
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
    /// Returns whether an entry's time is not over yet.
    #[inline]
    pub fn is_unexpired(&self, entry: EntryRef<'_, Entry<K, V>>) -> bool {
        self.timing.is_unexpired(entry)
    }

    /// The same at the time that [`time_of_deadlines`](Self::time_of_deadlines) has returned.
    pub(super) fn is_unexpired_at(
        &self,
        entry: EntryRef<'_, Entry<K, V>>,
        now: Option<u64>,
    ) -> bool {
        let over = |(times, now)| self.timing.is_expired(times, now);
        !entry.metadata().times().zip(now).is_some_and(over)
    }

    /// Returns the time, if there are deadlines that it matters to.
    pub(super) fn time_of_deadlines(&self) -> Option<u64> {
        // An entry that is the first with a deadline, and is inserted concurrently, is not expired yet.
        self.expiry_inbox.is_used().then(|| self.timing.now())
    }

    /// Returns whether an entry's time is not over yet, for a read, which may put the deadline off.
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

    /// Returns the times of an entry that is about to be made, if it is to have any.
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
        // Relaxed, twice: as in `is_used`. Written once: readers share the line.
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

    /// Returns whether the time of an entry was over when it began.
    pub(super) fn expires_at_once(&self, times: Option<NewTimes>) -> bool {
        times.is_some_and(|times| {
            let words = times.words().map(AtomicU64::new);
            self.timing.is_expired(Times::of(&words), times.now)
        })
    }

    /// Gives an unpublished entry the deadline that becomes the successor of `old`.
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

    /// Begins to time a load, if that is counted or reported.
    pub fn start_stopwatch(&self) -> Stopwatch {
        let is_timed = self.counters.is_enabled() || trace::IS_ON;
        Stopwatch { began: if is_timed { self.timing.now() } else { 0 } }
    }

    /// Ends it: counts how long the load took, and reports it if that was long.
    pub fn stop(&self, stopwatch: &Stopwatch, outcome: &'static str) {
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

    /// Changes the deadline of an entry, to `ttl` from now on or to none.
    pub fn set_ttl(&self, hash: u64, times: Times<'_>, ttl: Option<Duration>) {
        self.move_deadline(hash, times, deadline_after(self.timing.now(), ttl));
    }

    fn move_deadline(&self, hash: u64, times: Times<'_>, deadline: u64) {
        let before = times.set_deadline(deadline);
        // One that is put off fires at the old time, and is added again then.
        if deadline < before {
            self.post_deadline(hash, times);
        }
    }

    /// Sends the deadline of a published entry on its way to the timing wheel, if it has one.
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

/// What a call has done of entries whose time is over.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Expired {
    /// Entries that were removed.
    pub(super) removed: usize,
    /// Entries that stay, for they could not be written back.
    pub(super) unwritten: usize,
}

impl Expired {
    pub(super) fn tried(self) -> usize {
        self.removed + self.unwritten
    }
}

impl<K, V, S> Engine<K, V, S> {
    /// Removes entries whose time is over, until `most` are removed or could not be written back.
    pub(super) fn expire(&self, most: usize) -> Expired {
        // A glance; what is posted concurrently is found next time.
        if !self.expiry_inbox.is_used() {
            return Expired::default();
        }
        borrow(&self.timers, |timers| self.expire_by(timers, most)).unwrap_or_default()
    }

    /// The same for a writer that lacks room, if anything is due.
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
            // No grace period ends under a guard: a new one for each slice.
            let guard = self.table.pin();
            wheel.advance(now, slice, |timer| fired.push(timer));
            // A call that hands out nothing may have gone about it.
            if fired.is_empty() && wheel.next().is_none_or(|next| next > now) {
                break;
            }
            // One by one: should a clock panic, the others are met next time.
            while let Some(&timer) = fired.last() {
                match self.fire(&guard, deferred, timer, now) {
                    Expire::Removed => expired.removed += 1,
                    Expire::Unwritten => expired.unwritten += 1,
                    Expire::NotDue => {}
                }
                fired.pop();
            }
        }
        deferred.drain(..).for_each(|timer| wheel.add(timer));
        // Many that went before their time leave their timers behind.
        if wheel.timer_count() > 2 * self.len() as usize + SPARE_TIMERS {
            self.drop_stale_timers(wheel);
        }
        if let Some(next) = wheel.next() {
            self.expiry_inbox.end(next);
            // A writer may be here, and the thread have prepared to sleep meanwhile.
            self.notify_if_waiting();
        }
        expired
    }

    /// Sees to an entry whose timer has expired.
    fn fire(&self, guard: &Guard, deferred: &mut Vec<Timer>, timer: Timer, now: u64) -> Expire {
        let Some(times) = self.entry_of(guard, timer).and_then(|hit| hit.times()) else {
            return Expire::NotDue;
        };
        let is_same = |entry: EntryRef<'_, Entry<K, V>>| entry.id() == timer.id;
        let met = self.expire_entry(guard, timer.hash, is_same, now, Turn::Try);
        let next = match met {
            Expire::Removed => NEVER,
            Expire::Unwritten => now.saturating_add(RETRY_AFTER),
            // If it was removed concurrently, its timer is dropped when it expires again.
            Expire::NotDue => times.deadline(self.timing.idle),
        };
        if next != NEVER {
            deferred.push(Timer { at: next, ..timer });
        }
        met
    }

    fn entry_of<'g>(&'g self, guard: &'g Guard, timer: Timer) -> Option<SlotRef<'g, Entry<K, V>>> {
        self.table.find_slot(guard, timer.hash, |entry| entry.id() == timer.id)
    }

    /// Brings the deadlines that were posted into the timing wheel.
    fn collect_timers(&self, wheel: &mut TimingWheel) {
        let guard = self.table.pin_structure();
        let mut posted = Posted { expiry_inbox: &self.expiry_inbox, hashes: Vec::new() };
        self.expiry_inbox.collect(|hashes| posted.hashes.extend_from_slice(hashes));
        while let Some(&hash) = posted.hashes.last() {
            // Every entry of this very hash that maintenance does not know of. (The table would also offer
            // those that share bucket and tag, and not find them under it after it grew.)
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

    /// Gives back the memory of deadlines that are no entry's any more.
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
            // Of several timers of an entry one is kept that does not come too late.
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

/// A use is noted once in this part of the idle time, and at least once a millisecond.
const GRAINS: u64 = 1000;
const MAX_GRAIN: u64 = 1_000_000;
/// Entries removed under one pin, and by a writer that lacks room.
const EXPIRED_AT_ONCE: usize = 64;
const EXPIRED_FOR_ROOM: usize = 16;
/// After that, in nanoseconds, an entry is tried again that could not be written back.
const RETRY_AFTER: u64 = 1_000_000_000;
/// Timers without an entry that are tolerated.
const SPARE_TIMERS: usize = 1024;
