//! Admission: may the candidate displace the victim?
//!
//! The first rule is TinyLFU's (Einziger, Friedman, Manes: "TinyLFU: A Highly Efficient Cache
//! Admission Policy", 2017): the one that was asked for more often, per unit of cost, stays. Which of
//! the rules holds is decided in [`tuner`](super::tuner). Oversized inserts never come here:
//! `engine/write.rs` refuses them.

/// What admission compares of an entry.
#[derive(Clone, Copy, Debug)]
pub struct FrequencyAndCost {
    /// How often it was asked for, as the sketch estimates.
    pub frequency: u8,
    /// What it takes of the budget; 1 where costs are to be ignored.
    pub cost: u64,
}

/// What a candidate has to show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// A higher frequency per unit of cost than the victim's: TinyLFU. Best where some keys are
    /// asked for more often than others.
    TinyLfu,
    /// A clearly higher one. Best where keys come in turn, as in a loop, and whoever is in should
    /// stay.
    Strict,
    /// That it was asked for before: what the ghost queues of 2Q and S3-FIFO tell. Best where keys
    /// that come twice come again soon.
    Seen,
}

impl Rule {
    /// Returns whether `candidate` may displace `victim`, where the mean entry costs `mean`.
    ///
    /// A tie is the victim's, but a candidate that is asked for often gets a small chance by `luck`
    /// (a random number): without it an attacker who knows the hash of a frequent entry could keep
    /// others out.
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

/// The frequency of a key that was asked for before.
const SEEN_FREQUENCY: u8 = 2;
/// The least frequency at which luck counts.
const LUCKY_FREQUENCY: u8 = 6;
/// One in so many lucky candidates is admitted.
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
    fn luck_helps_only_the_frequent() {
        assert!(tiny_lfu(one(6, 1), one(15, 1), 0));
        assert!(!tiny_lfu(one(5, 1), one(15, 1), 0));
    }

    #[test]
    fn strict_wants_more_than_one_more_and_knows_no_luck() {
        let strict = |candidate, victim| Rule::Strict.admits(candidate, victim, 1, 0);
        assert!(!strict(one(3, 1), one(2, 1)));
        assert!(strict(one(4, 1), one(2, 1)));
        assert!(!strict(one(15, 1), one(15, 1)));
        assert!(strict(one(2, 1), one(2, 2)));
        assert!(!strict(one(3, 2), one(2, 2)));
    }

    #[test]
    fn seen_asks_only_whether_it_was_asked_for_before() {
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
