//! `Running`: the flights whose loads a thread runs, indexed by hash.

use std::{
    collections::{HashMap, hash_map::Entry},
    hash::BuildHasherDefault,
};

use super::Name;

/// Flights whose memory an empty set keeps: the capacity of a hash table of 32 buckets.
const SPARE: usize = 28;

/// A multiset of flights. A load of many keys adds a flight for each of them.
pub struct Running {
    flights: ByKey<(Name, Vec<Name>)>,
}

/// Indexed by [key](Name::key). Usually a key has one flight, and then its vector allocates
/// nothing.
type ByKey<T> = HashMap<(usize, u64), T, BuildHasherDefault<ahash::AHasher>>;

impl Running {
    /// Makes an empty set.
    pub const fn new() -> Self {
        Self { flights: ByKey::with_hasher(BuildHasherDefault::new()) }
    }

    /// Returns whether the set is empty.
    pub fn is_empty(&self) -> bool {
        self.flights.is_empty()
    }

    /// Adds a flight.
    pub fn add(&mut self, flight: Name) {
        match self.flights.entry(flight.key()) {
            Entry::Vacant(none) => _ = none.insert((flight, Vec::new())),
            Entry::Occupied(mut some) => some.get_mut().1.push(flight),
        }
    }

    /// Removes one occurrence of a flight.
    pub fn remove(&mut self, flight: Name) {
        let Entry::Occupied(mut some) = self.flights.entry(flight.key()) else { return };
        let (first, others) = some.get_mut();
        match others.pop() {
            None => _ = some.remove(),
            Some(last) => {
                let mut all = others.iter_mut().chain([first]);
                // If none of these is the flight, the removed last one was.
                if last != flight
                    && let Some(place) = all.find(|other| **other == flight)
                {
                    *place = last;
                }
            }
        }
        if self.flights.is_empty() && self.flights.capacity() > SPARE {
            self.flights.shrink_to(SPARE);
        }
    }

    /// Returns the flights of a key.
    pub fn of(&self, key: (usize, u64)) -> Vec<Name> {
        let Some((first, others)) = self.flights.get(&key) else { return Vec::new() };
        let mut all = others.clone();
        all.push(*first);
        all
    }
}

#[cfg(all(test, not(any(cortado_loom, cortado_shuttle))))]
mod tests {
    use super::*;

    #[test]
    fn each_flight_occurs_as_often_as_it_was_added() {
        let name = |hash, id| Name { flights: 1, hash, slot: 0, id };
        let mut running = Running::new();
        let sorted = |running: &Running| {
            let mut ids: Vec<u64> = running.of((1, 7)).iter().map(|name| name.id).collect();
            ids.sort_unstable();
            ids
        };
        for id in [1, 2, 3, 1] {
            running.add(name(7, id));
        }
        running.add(name(8, 9));
        assert_eq!(sorted(&running), [1, 1, 2, 3]);
        for (id, left) in [(2, &[1, 1, 3][..]), (1, &[1, 3]), (3, &[1]), (1, &[])] {
            running.remove(name(7, id));
            assert_eq!(sorted(&running), left);
        }
        assert!(!running.is_empty() && running.of((2, 8)).is_empty());
        running.remove(name(8, 9));
        assert!(running.is_empty());
    }

    #[test]
    fn memory_of_a_large_load_is_freed() {
        let mut running = Running::new();
        let names = (0..10_000).map(|hash| Name { flights: 1, hash, slot: 0, id: 1 });
        names.clone().for_each(|name| running.add(name));
        names.for_each(|name| running.remove(name));
        assert!(running.flights.capacity() <= 2 * SPARE);
    }
}
