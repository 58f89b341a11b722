//! A small, fast random number generator for sampling. It is not cryptographically secure.

/// The wyrand generator: a deterministic stream of random numbers.
#[derive(Clone, Debug)]
pub struct Rng {
    state: u64,
}

impl Rng {
    /// Creates the stream of `seed`. Any seed is valid, including 0.
    pub fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    /// Returns the next number.
    #[inline]
    pub fn next_u64(&mut self) -> u64 {
        self.state = self.state.wrapping_add(STEP);
        let wide = u128::from(self.state) * u128::from(self.state ^ FLIP);
        (wide >> 64) as u64 ^ wide as u64
    }

    /// Returns an approximately uniform number below `n`; 0 if `n` is 0.
    ///
    /// Multiplies and shifts instead of dividing. The bias is below one in 2³² for the `n` in use
    /// here.
    #[inline]
    pub fn below(&mut self, n: u64) -> u64 {
        ((u128::from(self.next_u64()) * u128::from(n)) >> 64) as u64
    }
}

/// The increment of the state: odd, so that the period is 2⁶⁴.
const STEP: u64 = 0xa076_1d64_78bd_642f;

/// The constant by which the two factors differ.
const FLIP: u64 = 0xe703_7ed1_a0b4_28db;

#[cfg(test)]
mod tests {
    use super::Rng;

    #[test]
    fn the_same_seed_gives_the_same_numbers() {
        let (mut a, mut b, mut c) = (Rng::new(7), Rng::new(7), Rng::new(8));
        let first: Vec<u64> = (0..10).map(|_| a.next_u64()).collect();
        assert_eq!(first, (0..10).map(|_| b.next_u64()).collect::<Vec<_>>());
        assert_ne!(first, (0..10).map(|_| c.next_u64()).collect::<Vec<_>>());
    }

    /// The expected numbers were computed independently, from the definition of wyrand. A seed must
    /// give the same victims in every version, unless the changelog says otherwise.
    #[test]
    fn numbers_are_those_of_wyrand() {
        let mut rng = Rng::new(0);
        let numbers = [0x111c_b3a7_8f59_a58e, 0xceab_d938_ff4e_856d, 0x61fb_5131_8f47_d2a4];
        assert_eq!([(); 3].map(|()| rng.next_u64()), numbers);
    }

    #[test]
    fn numbers_below_a_bound_are_uniform() {
        let mut rng = Rng::new(0);
        let mut counts = [0u32; 10];
        for _ in 0..100_000 {
            counts[rng.below(10) as usize] += 1;
        }
        assert!(counts.iter().all(|count| (9_500..10_500).contains(count)), "{counts:?}");
        assert_eq!(rng.below(0), 0);
        assert_eq!(rng.below(1), 0);
    }

    #[test]
    fn every_bit_is_set_about_half_the_time() {
        let mut rng = Rng::new(1);
        let mut counts = [0u32; 64];
        for _ in 0..10_000 {
            let number = rng.next_u64();
            for (bit, count) in counts.iter_mut().enumerate() {
                *count += ((number >> bit) & 1) as u32;
            }
        }
        assert!(counts.iter().all(|count| (4_700..5_300).contains(count)), "{counts:?}");
    }
}
