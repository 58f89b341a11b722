//! Admission: may the candidate displace the victim?
//!
//! The rule is TinyLFU's (Einziger, Friedman, Manes: "TinyLFU: A Highly Efficient Cache Admission
//! Policy", 2017): the one that was asked for more often, per unit of cost, stays. Oversized
//! inserts never come here: `engine/write.rs` refuses them.

/// One side of a duel.
#[derive(Clone, Copy, Debug)]
pub struct Contender {
    /// How often it was asked for, as the sketch estimates.
    pub frequency: u8,
    /// What it takes of the budget; 1 where costs are to be ignored.
    pub cost: u64,
}

/// Returns whether `candidate` may displace `victim`.
///
/// A tie is the victim's, but a candidate that is asked for often gets a small chance by `luck`
/// (a random number): without it an attacker who knows the hash of a frequent entry could keep
/// others out.
pub fn admits(candidate: Contender, victim: Contender, luck: u64) -> bool {
    let worth = |one: Contender, other: Contender| {
        u128::from(one.frequency) * u128::from(other.cost.max(1))
    };
    worth(candidate, victim) > worth(victim, candidate)
        || (candidate.frequency >= LUCKY_FREQUENCY && luck.is_multiple_of(LUCK))
}

/// The least frequency at which luck counts.
const LUCKY_FREQUENCY: u8 = 6;
/// One in so many lucky candidates is admitted.
const LUCK: u64 = 128;

#[cfg(test)]
mod tests {
    use super::*;

    fn one(frequency: u8, cost: u64) -> Contender {
        Contender { frequency, cost }
    }

    #[test]
    fn the_more_frequent_wins_and_a_tie_is_the_victims() {
        assert!(admits(one(3, 1), one(2, 1), 1));
        assert!(!admits(one(2, 1), one(2, 1), 1));
        assert!(!admits(one(1, 1), one(2, 1), 1));
    }

    #[test]
    fn cost_divides_frequency() {
        assert!(admits(one(2, 10), one(3, 20), 1));
        assert!(!admits(one(4, 30), one(3, 20), 1));
    }

    #[test]
    fn luck_helps_only_the_frequent() {
        assert!(admits(one(6, 1), one(15, 1), 0));
        assert!(!admits(one(5, 1), one(15, 1), 0));
    }

    #[test]
    fn the_greatest_costs_do_not_overflow() {
        assert!(!admits(one(15, u64::MAX), one(15, u64::MAX), 1));
        assert!(admits(one(15, 0), one(15, u64::MAX), 1));
    }
}
