//! `Gate`: the flights of a part of all keys, under one lock, and how a removal overtakes them without
//! waiting for it.

use std::{
    sync::{PoisonError, TryLockError},
    task::Waker,
};

use crate::sync::{
    Mutex, MutexGuard,
    atomic::{AtomicU64, Ordering},
};

/// The loads of a part of all keys.
pub struct Gate<K> {
    /// How many there are.
    count: AtomicU64,
    /// Grows when all of them are overtaken.
    overtakings: AtomicU64,
    shard: Mutex<Shard<K>>,
}

/// What the lock of a gate protects.
pub struct Shard<K> {
    pub flights: Vec<Flight<K>>,
    /// The last number that was given, to a flight or to a follower.
    last: u64,
}

/// One load, and who waits for it.
pub struct Flight<K> {
    pub number: u64,
    pub hash: u64,
    /// Gone while the flight lands.
    pub key: Option<K>,
    pub is_led: bool,
    /// Whether the key was removed since the leader began; and how often all loads of the gate had been
    /// overtaken by then.
    is_overtaken: bool,
    overtakings: u64,
    /// Followers there are, waiting or not.
    pub followers: usize,
    pub waiting: Vec<(u64, Waker)>,
}

impl<K> Gate<K> {
    /// Makes one without any flight.
    pub fn new() -> Self {
        Self {
            count: AtomicU64::new(0),
            overtakings: AtomicU64::new(0),
            shard: Mutex::new(Shard { flights: Vec::new(), last: 0 }),
        }
    }

    pub fn lock(&self) -> MutexGuard<'_, Shard<K>> {
        // Nothing is left half done if a user's comparison panics.
        self.shard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sees that these flights do not keep what they load.
    #[cold]
    pub fn overtake(&self, is_it: impl Fn(&Flight<K>) -> bool) {
        // AcqRel: Release pairs with the Acquire of the flight that begins after this; Acquire pairs with the
        // Release of one that has ended: what it has published is seen.
        let count = if cfg!(cortado_mutant = "flight_glances") {
            self.count.load(Ordering::Acquire)
        } else {
            self.count.fetch_add(0, Ordering::AcqRel)
        };
        if count == 0 || cfg!(cortado_mutant = "flight_overtakes_none") {
            return;
        }
        match self.shard.try_lock() {
            Ok(mut shard) => shard.overtake(is_it),
            Err(TryLockError::Poisoned(shard)) => shard.into_inner().overtake(is_it),
            Err(TryLockError::WouldBlock) if cfg!(cortado_mutant = "flight_overtakes_unlocked") => {
            }
            // AcqRel: as above, for those that begin or end while the lock is held.
            Err(TryLockError::WouldBlock) => _ = self.overtakings.fetch_add(1, Ordering::AcqRel),
        }
    }

    /// Returns how often all flights were overtaken.
    fn overtakings(&self) -> u64 {
        // AcqRel: of this and an overtaking, the second sees what came before the first.
        self.overtakings.fetch_add(0, Ordering::AcqRel)
    }

    /// Returns whether the flight was overtaken since its leader began.
    pub fn has_overtaken(&self, flight: &Flight<K>) -> bool {
        flight.is_overtaken || flight.overtakings != self.overtakings()
    }

    /// Begins a flight; returns its number.
    pub fn add(&self, shard: &mut Shard<K>, hash: u64, key: K) -> u64 {
        let number = shard.number();
        shard.flights.push(Flight {
            number,
            hash,
            key: Some(key),
            is_led: true,
            is_overtaken: false,
            overtakings: self.overtakings(),
            followers: 0,
            waiting: Vec::new(),
        });
        // AcqRel: Acquire pairs with the Release in `overtake`: what was written before a removal that has
        // not seen this flight is read by its load. Release as nothing else may come after it.
        self.count.fetch_add(1, Ordering::AcqRel);
        number
    }

    /// Ends a flight.
    pub fn remove(&self, shard: &mut Shard<K>, number: u64) -> Option<Flight<K>> {
        let index = shard.flights.iter().position(|flight| flight.number == number)?;
        let flight = shard.flights.swap_remove(index);
        if shard.flights.is_empty() {
            shard.flights.shrink_to(SPARE);
        }
        // AcqRel: Release pairs with the Acquire in `overtake`; Acquire as nothing else may come before it.
        self.count.fetch_sub(1, Ordering::AcqRel);
        Some(flight)
    }

    /// Sees that somebody takes a vacant flight over; returns whom to wake, or what is to be dropped when
    /// the lock is free: the key's destructor is the user's.
    pub fn pass_on(&self, shard: &mut Shard<K>, number: u64) -> (Option<Waker>, Option<Flight<K>>) {
        let Some(flight) = shard.flight(number).filter(|flight| !flight.is_led) else {
            return (None, None);
        };
        if flight.followers == 0 {
            return (None, self.remove(shard, number));
        }
        let next = (!flight.waiting.is_empty()).then(|| flight.waiting.remove(0).1);
        (next, None)
    }
}

impl<K> Shard<K> {
    /// Returns a number that nobody has.
    pub fn number(&mut self) -> u64 {
        self.last += 1;
        self.last
    }

    pub fn flight(&mut self, number: u64) -> Option<&mut Flight<K>> {
        self.flights.iter_mut().find(|flight| flight.number == number)
    }

    /// A load that has no leader has read nothing.
    fn overtake(&mut self, is_it: impl Fn(&Flight<K>) -> bool) {
        let overtaken = self.flights.iter_mut().filter(|flight| flight.is_led && is_it(flight));
        overtaken.for_each(|flight| flight.is_overtaken = true);
    }
}

impl<K> Flight<K> {
    /// Takes the follower out of those that are woken.
    pub fn stop_waiting(&mut self, ticket: u64) -> Option<(u64, Waker)> {
        let index = self.waiting.iter().position(|(other, _)| *other == ticket)?;
        Some(self.waiting.remove(index))
    }

    /// Begins the load once more.
    pub fn led_anew(&mut self, gate: &Gate<K>) {
        self.is_led = true;
        self.is_overtaken = false;
        self.overtakings = gate.overtakings();
    }
}

/// Flights whose memory a shard keeps.
const SPARE: usize = 4;
