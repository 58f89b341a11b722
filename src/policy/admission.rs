//! Admission: may the candidate displace the victim?
//!
//! The first rule is TinyLFU's (Einziger, Friedman, Manes: "TinyLFU: A Highly Efficient Cache
//! Admission Policy", 2017): the entry with the higher frequency per unit of cost stays. The
//! [`tuner`](super::tuner) selects the rule. Inserts that cost more than the whole budget are
//! rejected in `engine/write.rs` and never reach admission.

/// The properties of an entry that admission compares.
#[derive(Clone, Copy, Debug)]
pub struct FrequencyAndCost {
    /// The access frequency that the sketch estimates.
    pub frequency: u8,
    /// The cost; 1 where costs are ignored.
    pub cost: u64,
}

/// The condition that a candidate must meet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// A higher frequency per unit of cost than the victim's: TinyLFU. Best for skewed access
    /// patterns.
    TinyLfu,
    /// A frequency that is higher by more than one. Best for loops longer than the cache, where
    /// entries that are already in should stay.
    Strict,
    /// An earlier access, as the ghost queues of 2Q and S3-FIFO record. Best where a second access
    /// is soon followed by more.
    Seen,
}

impl Rule {
    /// Returns whether `candidate` may displace `victim`, where the mean entry costs `mean`.
    ///
    /// The victim wins a tie. A frequent candidate that loses is still admitted with a small
    /// probability, decided by the random number `luck`: otherwise an attacker who collides with
    /// the hash of a frequent entry could keep other keys out.
    #[inline]
    pub fn admits(
        self,
        candidate: FrequencyAndCost,
        victim: FrequencyAndCost,
        mean: u64,
        luck: u64,
    ) -> bool {
        // Fractions are compared by their cross products.
        let worth = |frequency: u8, per: u64| u128::from(frequency) * u128::from(per.max(1));
        match self {
            Self::TinyLfu => {
                worth(candidate.frequency, victim.cost) > worth(victim.frequency, candidate.cost)
                    || (candidate.frequency >= LUCKY_FREQUENCY && luck.is_multiple_of(LUCK))
            }
            Self::Strict => {
                worth(candidate.frequency, victim.cost)
                    > worth(victim.frequency + 1, candidate.cost)
            }
            Self::Seen => worth(candidate.frequency, mean) >= worth(SEEN_FREQUENCY, candidate.cost),
        }
    }
}

/// The least frequency of a key that was accessed before: that access and this one.
const SEEN_FREQUENCY: u8 = 2;
/// The least frequency at which a losing candidate may be admitted by chance. As in Caffeine.
const LUCKY_FREQUENCY: u8 = 6;
/// One in so many of these candidates is admitted. As in Caffeine.
const LUCK: u64 = 128;

#[cfg(test)]
mod tests {
    use super::*;

    fn one(frequency: u8, cost: u64) -> FrequencyAndCost {
        FrequencyAndCost { frequency, cost }
    }

    fn tiny_lfu(candidate: FrequencyAndCost, victim: FrequencyAndCost, luck: u64) -> bool {
        Rule::TinyLfu.admits(candidate, victim, 1, luck)
    }

    #[test]
    fn the_more_frequent_wins_and_a_tie_is_the_victims() {
        assert!(tiny_lfu(one(3, 1), one(2, 1), 1));
        assert!(!tiny_lfu(one(2, 1), one(2, 1), 1));
        assert!(!tiny_lfu(one(1, 1), one(2, 1), 1));
    }

    #[test]
    fn cost_divides_frequency() {
        assert!(tiny_lfu(one(2, 10), one(3, 20), 1));
        assert!(!tiny_lfu(one(4, 30), one(3, 20), 1));
    }

    #[test]
    fn luck_admits_only_frequent_candidates() {
        assert!(tiny_lfu(one(6, 1), one(15, 1), 0));
        assert!(!tiny_lfu(one(5, 1), one(15, 1), 0));
    }

    #[test]
    fn strict_requires_a_lead_of_more_than_one_and_ignores_luck() {
        let strict = |candidate, victim| Rule::Strict.admits(candidate, victim, 1, 0);
        assert!(!strict(one(3, 1), one(2, 1)));
        assert!(strict(one(4, 1), one(2, 1)));
        assert!(!strict(one(15, 1), one(15, 1)));
        assert!(strict(one(2, 1), one(2, 2)));
        assert!(!strict(one(3, 2), one(2, 2)));
    }

    #[test]
    fn seen_requires_only_an_earlier_access() {
        let seen = |candidate, mean| Rule::Seen.admits(candidate, one(15, 1), mean, 1);
        assert!(seen(one(2, 1), 1) && !seen(one(1, 1), 1));
        assert!(seen(one(1, 5), 10) && !seen(one(2, 11), 10));
    }

    #[test]
    fn the_greatest_costs_do_not_overflow() {
        for rule in [Rule::TinyLfu, Rule::Strict, Rule::Seen] {
            assert!(!rule.admits(one(15, u64::MAX), one(15, 1), 1, 1));
            assert!(rule.admits(one(15, 0), one(1, u64::MAX), u64::MAX, 1));
        }
    }
}
