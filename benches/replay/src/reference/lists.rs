//! Entries in linked lists that share one arena and one map: what the reference policies are
//! built from.

use hashbrown::HashMap;

/// Where an entry is in the arena. It stays the same until the entry is removed.
pub type Place = u32;

/// `N` lists, with a key in at most one of them.
///
/// The newest end is where entries come in; every list knows how many it has and how large they
/// are together.
pub struct Lists<const N: usize> {
    places: HashMap<u64, Place>,
    links: Vec<Link>,
    free: Vec<Place>,
    ends: [Ends; N],
}

struct Link {
    key: u64,
    size: u64,
    newer: Place,
    older: Place,
    list: u8,
    mark: u8,
}

#[derive(Clone, Copy)]
struct Ends {
    newest: Place,
    oldest: Place,
    len: usize,
    size: u64,
}

const NONE: Place = u32::MAX;

impl<const N: usize> Lists<N> {
    /// Returns empty lists.
    pub fn new() -> Self {
        let ends = Ends { newest: NONE, oldest: NONE, len: 0, size: 0 };
        Self { places: HashMap::new(), links: Vec::new(), free: Vec::new(), ends: [ends; N] }
    }

    /// Adds an entry, whose key must be new, at the newest end of a list and with a mark of 0.
    pub fn add(&mut self, list: usize, key: u64, size: u64) -> Place {
        let link = Link { key, size, newer: NONE, older: NONE, list: list as u8, mark: 0 };
        let place = match self.free.pop() {
            Some(place) => {
                self.links[place as usize] = link;
                place
            }
            None => {
                assert!(self.links.len() < NONE as usize, "more entries than places");
                self.links.push(link);
                (self.links.len() - 1) as Place
            }
        };
        let before = self.places.insert(key, place);
        debug_assert!(before.is_none(), "{key} is there already");
        self.push(list, place);
        place
    }

    /// Moves an entry to the newest end of a list: its own, or another.
    pub fn renew(&mut self, list: usize, place: Place) {
        if usize::from(self.links[place as usize].list) == list && self.ends[list].newest == place {
            return;
        }
        self.unlink(place);
        self.push(list, place);
    }

    /// Removes an entry.
    pub fn remove(&mut self, place: Place) {
        self.unlink(place);
        self.places.remove(&self.links[place as usize].key);
        self.free.push(place);
    }

    /// Removes the oldest entry of a list, if there is one.
    pub fn remove_oldest(&mut self, list: usize) {
        if let Some(place) = self.oldest(list) {
            self.remove(place);
        }
    }

    /// Writes a number on an entry, for whatever the policy wants to remember.
    pub fn set_mark(&mut self, place: Place, mark: u8) {
        self.links[place as usize].mark = mark;
    }

    /// Returns the place of a key.
    pub fn find(&self, key: u64) -> Option<Place> {
        self.places.get(&key).copied()
    }

    /// Returns the oldest entry of a list.
    pub fn oldest(&self, list: usize) -> Option<Place> {
        some(self.ends[list].oldest)
    }

    /// Returns the next newer entry of the same list.
    pub fn newer(&self, place: Place) -> Option<Place> {
        some(self.links[place as usize].newer)
    }

    /// Returns the list that an entry is in.
    pub fn list(&self, place: Place) -> usize {
        self.links[place as usize].list.into()
    }

    /// Returns an entry's key.
    pub fn key(&self, place: Place) -> u64 {
        self.links[place as usize].key
    }

    /// Returns an entry's size.
    pub fn size_at(&self, place: Place) -> u64 {
        self.links[place as usize].size
    }

    /// Returns the number on an entry.
    pub fn mark(&self, place: Place) -> u8 {
        self.links[place as usize].mark
    }

    /// Returns how many entries a list has.
    pub fn len(&self, list: usize) -> usize {
        self.ends[list].len
    }

    /// Returns how large the entries of a list are together.
    pub fn size(&self, list: usize) -> u64 {
        self.ends[list].size
    }

    fn unlink(&mut self, place: Place) {
        let Link { newer, older, size, list, .. } = self.links[place as usize];
        let ends = &mut self.ends[usize::from(list)];
        ends.len -= 1;
        ends.size -= size;
        match newer {
            NONE => ends.newest = older,
            newer => self.links[newer as usize].older = older,
        }
        match older {
            NONE => ends.oldest = newer,
            older => self.links[older as usize].newer = newer,
        }
    }

    fn push(&mut self, list: usize, place: Place) {
        let ends = &mut self.ends[list];
        let older = std::mem::replace(&mut ends.newest, place);
        let link = &mut self.links[place as usize];
        ends.len += 1;
        ends.size += link.size;
        link.list = list as u8;
        link.newer = NONE;
        link.older = older;
        match older {
            NONE => ends.oldest = place,
            older => self.links[older as usize].newer = place,
        }
    }
}

fn some(place: Place) -> Option<Place> {
    (place != NONE).then_some(place)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys<const N: usize>(lists: &Lists<N>, list: usize) -> Vec<u64> {
        std::iter::successors(lists.oldest(list), |&place| lists.newer(place))
            .map(|place| lists.key(place))
            .collect()
    }

    #[test]
    fn entries_move_between_lists_and_leave() {
        let mut lists = Lists::<2>::new();
        let [one, two, three] = [1, 2, 3].map(|key| lists.add(0, key, 10 * key));
        lists.renew(0, one);
        assert_eq!(keys(&lists, 0), [2, 3, 1]);
        lists.renew(1, three);
        assert_eq!((keys(&lists, 0), keys(&lists, 1)), (vec![2, 1], vec![3]));
        assert_eq!((lists.len(0), lists.size(0), lists.size(1)), (2, 30, 30));
        lists.remove(two);
        assert_eq!((lists.find(2), lists.find(1), lists.list(three)), (None, Some(one), 1));
        lists.remove_oldest(1);
        assert_eq!((lists.oldest(1), lists.len(1), lists.size(1)), (None, 0, 0));
        lists.remove_oldest(1);
        lists.add(1, 4, 1);
        assert_eq!((keys(&lists, 0), keys(&lists, 1)), (vec![1], vec![4]));
    }

    #[test]
    fn place_used_again_has_no_mark() {
        let mut lists = Lists::<1>::new();
        let place = lists.add(0, 1, 1);
        lists.set_mark(place, 3);
        lists.remove(place);
        assert_eq!(lists.add(0, 2, 1), place);
        assert_eq!(lists.mark(place), 0);
    }
}
