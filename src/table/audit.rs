//! What must hold of a table that nobody works on, for tests of all kinds.

use super::{Host, LANES, Table, meta::Meta};
use crate::reclaim::{Guard, block::Stored};

impl<T: Stored> Table<T> {
    /// Checks that slots are empty exactly where their lanes are free, that no mark is left, and
    /// that lanes show the tags of their entries, if hashes can be trusted.
    ///
    /// # Panics
    ///
    /// Panics if something of this does not hold, or perhaps if somebody works on the table.
    pub fn audit(&self, guard: &Guard, host: &impl Host<T>, trust_hashes: bool) {
        let mut array = Some(self.root(guard));
        while let Some(buckets) = array {
            for index in 0..buckets.count() {
                let bucket = buckets.at(index);
                let meta = bucket.meta();
                for lane in (0..LANES).filter(|_| meta.is_live() && !meta.is_frozen()) {
                    let word = bucket.slot(lane);
                    let entry = word.entry();
                    assert_eq!(meta.tag(lane) != 0, entry.is_some(), "slot {word:?} in {meta:?}");
                    let Some(entry) = entry else { continue };
                    assert!(!word.is_frozen() && !word.is_dying(), "slot {word:?} in {meta:?}");
                    // SAFETY: the lane is published, and the caller has everybody stand still.
                    let hash = host.hash(unsafe { super::bucket::entry_ref(entry, guard) });
                    if trust_hashes {
                        assert_eq!(meta.tag(lane), Meta::tag_of(hash), "lane {lane} of {meta:?}");
                        assert_eq!(buckets.locate(hash), (index, word.is_upper()), "{word:?}");
                    }
                }
            }
            array = buckets.next(guard);
        }
    }
}
