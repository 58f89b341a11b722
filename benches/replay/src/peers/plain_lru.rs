//! A plain least-recently-used list, as a reference for hit ratios.

use std::collections::HashMap;

const NONE: u32 = u32::MAX;

/// The keys of a cache that always throws out the one not used for longest.
pub struct PlainLru {
    capacity: usize,
    places: HashMap<u64, u32>,
    links: Vec<Link>,
    newest: u32,
    oldest: u32,
}

struct Link {
    key: u64,
    newer: u32,
    older: u32,
}

impl PlainLru {
    /// Returns an empty list for so many keys.
    pub fn new(capacity: usize) -> Self {
        Self {
            capacity: capacity.min(NONE as usize - 1),
            places: HashMap::new(),
            links: Vec::new(),
            newest: NONE,
            oldest: NONE,
        }
    }

    /// Uses a key, and returns whether it was there.
    pub fn access(&mut self, key: u64) -> bool {
        if let Some(&place) = self.places.get(&key) {
            if place != self.newest {
                self.unlink(place);
                self.push(place);
            }
            return true;
        }
        let place = if self.links.len() < self.capacity {
            self.links.push(Link { key, newer: NONE, older: NONE });
            (self.links.len() - 1) as u32
        } else {
            let place = self.oldest;
            self.unlink(place);
            let link = &mut self.links[place as usize];
            self.places.remove(&link.key);
            link.key = key;
            place
        };
        self.places.insert(key, place);
        self.push(place);
        false
    }

    fn unlink(&mut self, place: u32) {
        let Link { newer, older, .. } = self.links[place as usize];
        match newer {
            NONE => self.newest = older,
            newer => self.links[newer as usize].older = older,
        }
        match older {
            NONE => self.oldest = newer,
            older => self.links[older as usize].newer = newer,
        }
    }

    fn push(&mut self, place: u32) {
        let older = self.newest;
        let link = &mut self.links[place as usize];
        link.newer = NONE;
        link.older = older;
        match older {
            NONE => self.oldest = place,
            older => self.links[older as usize].newer = place,
        }
        self.newest = place;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hits(keys: &[u64], capacity: usize) -> Vec<bool> {
        let mut lru = PlainLru::new(capacity);
        keys.iter().map(|&key| lru.access(key)).collect()
    }

    #[test]
    fn oldest_key_goes_out() {
        // 1 and 2 fill it, using 1 again leaves 2 as the oldest, so 3 takes the place of 2.
        let got = hits(&[1, 2, 1, 3, 2, 3, 1], 2);
        assert_eq!(got, [false, false, true, false, false, true, false]);
    }

    #[test]
    fn one_place_keeps_the_last_key() {
        assert_eq!(hits(&[5, 5, 6, 5], 1), [false, true, false, false]);
    }

    #[test]
    fn agrees_with_the_lru_crate() {
        let capacity = std::num::NonZeroUsize::new(37).unwrap();
        let mut other = lru::LruCache::new(capacity);
        let mut lru = PlainLru::new(37);
        let mut random = crate::trace::zipf::Random::new(7);
        for _ in 0..20_000 {
            let key = random.below(60) * random.below(3);
            let expected = other.get(&key).is_some();
            if !expected {
                other.put(key, ());
            }
            assert_eq!(lru.access(key), expected);
        }
    }
}
