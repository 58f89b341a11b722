//! The maintenance thread: sleeps, wakes, maintains, stops.

use std::{
    any::Any,
    cell::Cell,
    hash::{BuildHasher, Hash},
    time::Duration,
};

use crate::{
    engine::{Engine, WorkLimit, WorkReport},
    expiry::inbox::NextExpiry,
    metrics::Counter,
    primitives::eventcount::EventCount,
    primitives::handover::Handover,
    reclaim::departure::{Sleeper, wake_next},
    sync::{Arc, thread},
    trace,
    util::{caught, is_cache_thread, mark_cache_thread},
};

/// The first timed wait; each later one is twice as long.
const MIN_WAIT: Duration = Duration::from_micros(500);
/// Doublings up to the longest wait while work is blocked: 65 s.
const MAX_DOUBLINGS: u32 = 17;
/// Doublings up to the longest wait that writers do not end: 16 ms. Waking the thread costs a
/// writer more than waiting costs the thread.
const TIMED_WAIT_DOUBLINGS: u32 = 5;
/// Consecutive rounds that may leave little garbage for the next one: 16 ms while entries are
/// evicted.
const MAX_DEFERRALS: u32 = 32;
/// Departures without effect that each double the time until the next one may wake the thread: up
/// to 1 s.
const MAX_FUTILE_DEPARTURES: u32 = 5;
/// The first interval at which a clock that may jump is polled, and its doublings: up to 64 s.
const CLOCK_POLL: Duration = Duration::from_secs(1);
const CLOCK_POLL_DOUBLINGS: u32 = 6;
/// How long an owner waits while the thread is in user code. Short callbacks end within this time,
/// so a cache is usually gone once its last handle is dropped.
const MAX_OWNER_WAIT: Duration = Duration::from_millis(1);

/// What the thread leaves to its owner: its handle of the engine, the last one.
type Remains = Box<dyn Any + Send>;

/// The owner of the thread. Dropping it stops the thread, and waits at most `MAX_OWNER_WAIT` for
/// user code.
#[derive(Debug)]
pub struct MaintenanceThread {
    eventcount: Arc<EventCount>,
    handover: Arc<Handover<Remains>>,
}

impl MaintenanceThread {
    /// Starts the thread of a cache. All other handles of the engine must be dropped before this
    /// value is.
    ///
    /// # Errors
    ///
    /// Returns the system's error if it cannot start a thread.
    pub fn start<K, V, S>(engine: Arc<Engine<K, V, S>>) -> std::io::Result<Self>
    where
        K: Hash + Eq + Send + Sync + 'static,
        V: Send + Sync + 'static,
        S: BuildHasher + Send + Sync + 'static,
    {
        let eventcount = Arc::clone(&engine.eventcount);
        let handover = Arc::new(Handover::new());
        let name = thread_name(&engine.settings.name);
        let shared = Arc::clone(&handover);
        // Detached: the thread destroys user code's thread-locals when it ends, and the owner must
        // not wait for that.
        thread::Builder::new().name(name).spawn(move || {
            run(engine, &shared);
            // If the owner has left, this drops the remains.
            let _ = caught(|| drop(shared));
        })?;
        Ok(Self { eventcount, handover })
    }

    /// Stops the thread, waits until it has ended, whatever it is doing, and drops what it has
    /// left.
    ///
    /// Returns whether it waited: the maintenance thread of a cache waits neither for another
    /// cache's nor for itself.
    pub fn close(self) -> bool {
        self.eventcount.stop();
        if is_cache_thread() {
            return false;
        }
        drop(self.handover.wait(None));
        true
    }
}

impl Drop for MaintenanceThread {
    fn drop(&mut self) {
        self.eventcount.stop();
        // The threads of two caches whose garbage holds each other's last handle would wait for
        // each other.
        if !is_cache_thread() {
            drop(self.handover.wait(Some(MAX_OWNER_WAIT)));
        }
    }
}

/// Returns the name of a cache's thread. The system does not accept zero bytes.
fn thread_name(cache: &str) -> String {
    match cache.replace('\0', "").as_str() {
        "" => String::from("cortado"),
        name => format!("cortado {name}"),
    }
}

fn run<K, V, S>(mut engine: Arc<Engine<K, V, S>>, handover: &Handover<Remains>)
where
    K: Hash + Eq + Send + Sync + 'static,
    V: Send + Sync + 'static,
    S: BuildHasher + Send + Sync + 'static,
{
    mark_cache_thread(&*engine.eventcount);
    engine.eventcount.set_thread(thread::current());
    ThreadLoop::new(&engine, handover).run();
    // All other handles were dropped before the thread was stopped. The listener runs here, since
    // it may wait for the thread that drops the cache.
    if let Some(engine) = Arc::get_mut(&mut engine)
        && engine.has_unreported()
    {
        handover.in_user_code(|| caught(|| engine.report_all()));
    }
    handover.finish(Box::new(engine));
}

/// The loop of the thread, until it is stopped.
struct ThreadLoop<'a, K, V, S> {
    engine: &'a Engine<K, V, S>,
    handover: &'a Handover<Remains>,
    backoff: Cell<Backoff>,
    /// Consecutive rounds that have left little garbage for the next one.
    deferrals: Cell<u32>,
    sleeper: Sleeper,
    /// Whether a departure is to wake the thread, or has done so.
    awaits_readers: Cell<bool>,
}

impl<'a, K: Hash + Eq, V, S: BuildHasher> ThreadLoop<'a, K, V, S> {
    fn new(engine: &'a Engine<K, V, S>, handover: &'a Handover<Remains>) -> Self {
        let (backoff, deferrals, awaits_readers) = Default::default();
        Self { engine, handover, backoff, deferrals, sleeper: Sleeper::new(), awaits_readers }
    }

    fn run(&self) {
        let eventcount = &self.engine.eventcount;
        while !eventcount.resume() {
            if self.has_departed() {
                self.awaits_readers.set(false);
                self.change(Backoff::departed);
                wake_next();
            }
            let round = self.work();
            if let Some(wait) = self.change(|backoff| backoff.timed_wait(round)) {
                eventcount.wait_timeout(wait);
                continue;
            }
            // From here on, a thread that adds work wakes this one; `recheck` finds what was added
            // before.
            eventcount.wait(|| self.recheck(round));
            if !eventcount.is_waiting() {
                self.change(Backoff::woken);
            }
        }
    }

    /// Rechecks for work once other threads can see that this one sleeps; returns how long it may.
    fn recheck(&self, round: Round) -> Option<Duration> {
        let (has_work, due) = self.engine.next_work();
        let due = self.until(due);
        let is_stuck = has_work || round == Round::Blocked || due == Some(Duration::ZERO);
        if is_stuck && self.backoff.get().is_long() {
            if self.backoff.get().awaits_readers() && !self.awaits_readers.replace(true) {
                self.sleeper.wait();
            }
            // New work looks like blocked work: try once more, now that other threads wake this one
            // for anything later.
            if self.work().has_progressed() || self.has_departed() {
                return Some(Duration::ZERO);
            }
        }
        let jumps = self.engine.timing.jumps();
        self.change(|backoff| backoff.wait(is_stuck, due, jumps))
    }

    /// Returns whether a departure that the thread waits for has happened.
    fn has_departed(&self) -> bool {
        self.awaits_readers.get() && !self.sleeper.is_waiting()
    }

    /// Does a round of maintenance.
    fn work(&self) -> Round {
        self.engine.counters.add(Counter::Rounds, 1);
        let round = self.handover.in_user_code(|| {
            // A panic of a user's clock ends a round, never the thread.
            caught(|| {
                let may_defer = self.deferrals.get() < MAX_DEFERRALS;
                let slice = self.engine.maintain_with(WorkLimit::ALL, may_defer);
                self.deferrals.set(if slice.has_deferred { self.deferrals.get() + 1 } else { 0 });
                Round::of(slice.ticked, slice.has_moved)
            })
            .unwrap_or_else(|| {
                let _ = caught(|| trace::panicked(&self.engine.settings.name));
                Round::Blocked
            })
        });
        if round.has_progressed() && self.awaits_readers.replace(false) {
            self.sleeper.stop();
        }
        round
    }

    /// Returns how long it is until the next entry expires.
    fn until(&self, due: NextExpiry) -> Option<Duration> {
        match due {
            NextExpiry::Never => None,
            NextExpiry::Now => Some(Duration::ZERO),
            NextExpiry::At(due) => {
                // The user's clock.
                let until = || caught(|| self.engine.timing.until(due));
                Some(self.handover.in_user_code(until).unwrap_or(CLOCK_POLL))
            }
        }
    }

    fn change<R>(&self, f: impl FnOnce(&mut Backoff) -> R) -> R {
        let mut backoff = self.backoff.get();
        let result = f(&mut backoff);
        self.backoff.set(backoff);
        result
    }
}

/// The result of a round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Round {
    /// Entries were evicted or expired, so more are likely to follow soon.
    Busy,
    /// Something was freed or moved, so more is likely to follow. A short wait costs a writer less
    /// than waking the thread, whose grace periods interrupt it.
    Progress,
    /// Work is left, but none could be done.
    Blocked,
    /// No work is left.
    Done,
}

impl Round {
    fn of(ticked: WorkReport, has_moved: bool) -> Self {
        match ticked {
            _ if ticked.evicted + ticked.expired > 0 => Self::Busy,
            _ if ticked.freed > 0 || (ticked.pending && has_moved) => Self::Progress,
            _ if ticked.pending => Self::Blocked,
            _ => Self::Done,
        }
    }

    /// Returns whether it has done any work.
    fn has_progressed(self) -> bool {
        !matches!(self, Self::Blocked | Self::Done)
    }
}

/// Decides how long the thread waits.
///
/// While rounds do no work, each wait is twice as long as the one before, so an idle cache takes no
/// time, even if work is pending. Anything that makes progress likely resets it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Backoff {
    /// Consecutive waits while work was blocked.
    stuck: u32,
    /// Consecutive departures that did not help.
    futile_departures: u32,
    /// Consecutive polls of a clock that may jump.
    clock_polls: u32,
}

impl Backoff {
    /// Returns the length of the timed wait after a round; `None` if the thread should recheck and
    /// sleep.
    fn timed_wait(&mut self, round: Round) -> Option<Duration> {
        if round.has_progressed() {
            *self = Self::default();
        }
        match round {
            Round::Busy | Round::Progress => Some(MIN_WAIT),
            Round::Blocked if !self.is_long() => Some(self.next_wait()),
            Round::Blocked | Round::Done => None,
        }
    }

    /// Returns how long the thread sleeps unless it is woken, until `due` at most; `None` if there
    /// is no limit.
    fn wait(&mut self, is_stuck: bool, due: Option<Duration>, jumps: bool) -> Option<Duration> {
        if is_stuck {
            let wait = self.next_wait();
            return Some(due.filter(|due| !due.is_zero()).map_or(wait, |due| due.min(wait)));
        }
        self.stuck = 0;
        if !jumps {
            return due;
        }
        let poll = CLOCK_POLL * (1 << self.clock_polls);
        self.clock_polls = (self.clock_polls + 1).min(CLOCK_POLL_DOUBLINGS);
        due.map(|due| due.min(poll))
    }

    /// Returns whether the next wait for blocked work is so long that other threads may end it.
    fn is_long(self) -> bool {
        self.stuck > TIMED_WAIT_DOUBLINGS
    }

    /// Returns whether a departure should end the next wait.
    fn awaits_readers(self) -> bool {
        self.stuck > TIMED_WAIT_DOUBLINGS + self.futile_departures
    }

    /// Notes that another thread has added work.
    fn woken(&mut self) {
        (self.stuck, self.clock_polls) = (0, 0);
    }

    /// Notes that a reader has departed, perhaps the one that blocked the work.
    fn departed(&mut self) {
        self.woken();
        self.futile_departures = (self.futile_departures + 1).min(MAX_FUTILE_DEPARTURES);
    }

    fn next_wait(&mut self) -> Duration {
        let wait = MIN_WAIT * (1 << self.stuck);
        self.stuck = (self.stuck + 1).min(MAX_DOUBLINGS);
        wait
    }
}

#[cfg(all(test, not(cortado_shuttle)))]
mod tests {
    use super::*;

    /// The waits of a thread whose rounds all have the same result, until one is as long as the one
    /// before.
    fn waits(round: Round, is_stuck: bool) -> Vec<Duration> {
        let mut backoff = Backoff::default();
        let mut waits = Vec::new();
        loop {
            let wait = backoff.timed_wait(round).or_else(|| backoff.wait(is_stuck, None, false));
            let Some(wait) = wait.filter(|wait| waits.last() != Some(wait)) else { return waits };
            waits.push(wait);
        }
    }

    #[test]
    fn waits_grow_to_a_minute_beside_work_that_cannot_be_done() {
        for (round, is_stuck) in [(Round::Blocked, true), (Round::Done, true)] {
            let waits = waits(round, is_stuck);
            assert_eq!(waits[..3], [1, 2, 4].map(|half| half * MIN_WAIT));
            assert!(waits.is_sorted() && waits.len() == 18, "{waits:?}");
            assert!(waits[17] > Duration::from_secs(60), "{waits:?}");
        }
    }

    #[test]
    fn waits_stay_short_while_rounds_make_progress() {
        assert_eq!(waits(Round::Busy, true), [MIN_WAIT]);
        assert_eq!(waits(Round::Progress, true), [MIN_WAIT]);
        let mut backoff = Backoff::default();
        for _ in 0..30 {
            let _ = backoff.timed_wait(Round::Blocked).or_else(|| backoff.wait(true, None, false));
        }
        assert_eq!(backoff.timed_wait(Round::Progress), Some(MIN_WAIT));
        assert_eq!(backoff, Backoff::default());
    }

    #[test]
    fn thread_with_nothing_to_do_sleeps_until_it_is_woken_or_something_is_due() {
        let hour = Duration::from_secs(3600);
        let mut backoff = Backoff::default();
        assert_eq!(backoff.timed_wait(Round::Done), None);
        assert_eq!(backoff.wait(false, None, false), None);
        assert_eq!(backoff.wait(false, Some(100 * hour), false), Some(100 * hour));
    }

    #[test]
    fn clock_that_may_jump_is_polled_less_and_less_often() {
        let hour = Duration::from_secs(3600);
        let mut backoff = Backoff::default();
        let mut clock_polls = || backoff.wait(false, Some(hour), true).unwrap().as_secs();
        assert_eq!(std::array::from_fn(|_| clock_polls()), [1, 2, 4, 8, 16, 32, 64, 64, 64]);
        backoff.woken();
        assert_eq!(backoff.wait(false, Some(hour), true), Some(CLOCK_POLL));
        assert_eq!(backoff.wait(false, Some(MIN_WAIT), true), Some(MIN_WAIT));
        assert_eq!(backoff.wait(false, None, true), None);
    }

    #[test]
    fn wait_for_blocked_work_ends_when_an_entry_expires() {
        let mut backoff = Backoff { stuck: MAX_DOUBLINGS, ..Backoff::default() };
        assert_eq!(backoff.wait(true, Some(CLOCK_POLL), false), Some(CLOCK_POLL));
        // Work that is due already counts as blocked.
        assert!(backoff.wait(true, Some(Duration::ZERO), false) > Some(CLOCK_POLL));
    }

    #[test]
    fn departures_that_do_not_help_wake_the_thread_less_and_less_often() {
        let mut backoff = Backoff::default();
        let mut times = Vec::new();
        for _ in 0..8 {
            let mut time = Duration::ZERO;
            while !backoff.awaits_readers() {
                let wait =
                    backoff.timed_wait(Round::Blocked).or_else(|| backoff.wait(true, None, false));
                time += wait.unwrap();
            }
            times.push(time.as_millis());
            backoff.departed();
        }
        assert_eq!(times, [31, 63, 127, 255, 511, 1023, 1023, 1023]);
        let _ = backoff.timed_wait(Round::Progress);
        assert_eq!(backoff.futile_departures, 0);
    }

    #[test]
    fn writer_that_wakes_the_thread_does_not_do_so_again_at_once() {
        let mut backoff = Backoff { stuck: MAX_DOUBLINGS, ..Backoff::default() };
        backoff.woken();
        let timed_waits = std::iter::from_fn(|| backoff.timed_wait(Round::Blocked));
        assert_eq!(timed_waits.map(|wait| wait.as_micros()).sum::<u128>(), 31_500);
    }

    #[test]
    fn round_is_classified_by_what_it_did() {
        let ticked = WorkReport::default();
        let pending = WorkReport { pending: true, ..ticked };
        assert_eq!(Round::of(ticked, false), Round::Done);
        assert_eq!(Round::of(pending, false), Round::Blocked);
        assert_eq!(Round::of(pending, true), Round::Progress);
        assert_eq!(Round::of(WorkReport { freed: 1, ..pending }, false), Round::Progress);
        assert_eq!(Round::of(WorkReport { freed: 1, ..ticked }, false), Round::Progress);
        assert_eq!(Round::of(WorkReport { evicted: 1, ..ticked }, false), Round::Busy);
        assert_eq!(Round::of(WorkReport { expired: 1, ..pending }, false), Round::Busy);
    }

    #[test]
    fn name_of_the_thread_has_no_zero_bytes() {
        assert_eq!(thread_name(""), "cortado");
        assert_eq!(thread_name("\0"), "cortado");
        assert_eq!(thread_name("a\0b"), "cortado ab");
    }
}
