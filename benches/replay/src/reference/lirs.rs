//! LIRS (Jiang & Zhang, LIRS: an efficient low inter-reference recency set replacement policy,
//! SIGMETRICS, 2002), with 1 % of the places for HIR entries and twice as many keys of absent ones
//! as there are places, which the paper leaves open. Every entry counts as 1.

use super::Reference;
use super::lists::{Lists, Place};

/// The stack of recent keys, whose marks tell which of them are LIR, and the queue of the HIR
/// entries that are in the cache.
pub struct Lirs {
    max_lir: usize,
    max_hir: usize,
    max_absent: usize,
    lir: usize,
    stack: Lists<1>,
    hir: Lists<2>,
}

/// HIR entries in the cache: Q in the paper.
const PRESENT: usize = 0;
/// HIR keys of the stack that are not in the cache, in the order in which they left it.
const ABSENT: usize = 1;
/// The mark of a LIR entry.
const LIR: u8 = 1;

impl Lirs {
    /// Returns an empty cache.
    pub fn new(capacity: u64) -> Self {
        let capacity = capacity.max(1) as usize;
        let max_hir = (capacity / 100).max(1);
        Self {
            max_lir: capacity - max_hir,
            max_hir,
            max_absent: 2 * capacity,
            lir: 0,
            stack: Lists::new(),
            hir: Lists::new(),
        }
    }

    /// Puts a key on top of the stack.
    fn raise(&mut self, key: u64, place: Option<Place>) -> Place {
        match place {
            Some(place) => {
                self.stack.renew(0, place);
                place
            }
            None => self.stack.add(0, key, 1),
        }
    }

    /// Makes the entry on top of the stack LIR, and in its stead the one at the bottom HIR.
    fn promote(&mut self, place: Place) {
        self.stack.set_mark(place, LIR);
        self.lir += 1;
        if self.lir > self.max_lir
            && let Some(bottom) = self.stack.oldest(0)
        {
            self.hir.add(PRESENT, self.stack.key(bottom), 1);
            self.stack.remove(bottom);
            self.lir -= 1;
            self.prune();
        }
    }

    /// Takes keys from the bottom of the stack until there is a LIR entry.
    fn prune(&mut self) {
        while let Some(bottom) = self.stack.oldest(0)
            && self.stack.mark(bottom) != LIR
        {
            if let Some(place) = self.hir.find(self.stack.key(bottom))
                && self.hir.list(place) == ABSENT
            {
                self.hir.remove(place);
            }
            self.stack.remove(bottom);
        }
    }

    /// Evicts the first entry of the queue if the cache is full. Its key stays in the stack.
    fn make_room(&mut self) {
        if self.hir.len(PRESENT) < self.max_hir {
            return;
        }
        let Some(place) = self.hir.oldest(PRESENT) else { return };
        if self.stack.find(self.hir.key(place)).is_none() {
            self.hir.remove(place);
            return;
        }
        self.hir.renew(ABSENT, place);
        if self.hir.len(ABSENT) > self.max_absent
            && let Some(oldest) = self.hir.oldest(ABSENT)
        {
            if let Some(place) = self.stack.find(self.hir.key(oldest)) {
                self.stack.remove(place);
            }
            self.hir.remove(oldest);
        }
    }
}

impl Reference for Lirs {
    fn access(&mut self, key: u64, _size: u64) -> bool {
        let in_stack = self.stack.find(key);
        if let Some(place) = in_stack
            && self.stack.mark(place) == LIR
        {
            self.stack.renew(0, place);
            self.prune();
            return true;
        }
        let in_queue = self.hir.find(key);
        if let Some(place) = in_queue
            && self.hir.list(place) == PRESENT
        {
            let top = self.raise(key, in_stack);
            if in_stack.is_some() && self.max_lir > 0 {
                self.hir.remove(place);
                self.promote(top);
            } else {
                self.hir.renew(PRESENT, place);
            }
            return true;
        }
        if self.lir < self.max_lir {
            let top = self.raise(key, in_stack);
            self.promote(top);
            return false;
        }
        // Out of the absent keys first, so that the one who leaves now cannot push it out.
        if let Some(place) = in_queue {
            self.hir.remove(place);
        }
        self.make_room();
        let top = self.raise(key, in_stack);
        if in_stack.is_some() && self.max_lir > 0 {
            self.promote(top);
        } else {
            self.hir.add(PRESENT, key, 1);
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::play;
    use super::*;

    #[test]
    fn key_in_the_stack_becomes_lir() {
        // 1 and 2 are LIR. 3 is HIR, leaves for 4 and is LIR when it comes back, for which 1
        // becomes HIR. The hit of 2, then at the bottom, takes 4 off the stack: 4 is HIR when it
        // comes and replaces 1. It is asked for again after 3 and 2, which takes it off the stack
        // once more, so only the next hit makes it LIR, and 3 HIR, which leaves for 5.
        let keys = [1, 2, 3, 4, 3, 1, 2, 4, 3, 2, 4, 4, 3, 5, 2, 4, 3];
        assert_eq!(play(&mut Lirs::new(3), &keys), "-----++-+++++-++-");
    }

    #[test]
    fn loop_larger_than_the_cache_keeps_a_part() {
        assert_eq!(play(&mut Lirs::new(3), &[1, 2, 3, 4, 1, 2, 3, 4, 1, 2, 3, 4]), "----++--++--");
    }

    #[test]
    fn one_place_is_enough() {
        assert_eq!(play(&mut Lirs::new(1), &[1, 1, 2, 1, 1, 2]), "-+--+-");
    }
}
