//! Made-up accesses: keys by Zipf's law or all alike, the same ones for the same seed.

/// A small random number generator (SplitMix64); not for secrets.
pub struct Random(u64);

impl Random {
    /// Begins the sequence that belongs to a seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Returns the next 64 bits.
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        scramble(self.0)
    }

    /// Returns a number below `bound`, which is above 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(bound)) >> 64) as u64
    }

    /// Returns a number from 0 up to, not including, 1.
    pub fn fraction(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }
}

/// Spreads numbers over all 64 bits, no two to the same: turns ranks into keys.
#[inline]
pub fn scramble(mut number: u64) -> u64 {
    number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}

/// Draws ranks from 0, the most frequent one, by Zipf's law.
///
/// Each rank has a column; a draw picks a column and stays or moves to the column's alias, by the
/// weight that is left to it (Walker's alias method). It is exact and takes the same time always.
pub struct Zipf {
    columns: Vec<Column>,
}

struct Column {
    stay: f32,
    alias: u32,
}

impl Zipf {
    /// Makes the law for so many ranks, at least 1, and this exponent; 0 makes them all alike.
    pub fn new(ranks: u32, exponent: f64) -> Self {
        let ranks = ranks.max(1);
        if exponent == 0.0 {
            return Self { columns: (0..ranks).map(|i| Column { stay: 1.0, alias: i }).collect() };
        }
        let mut weights: Vec<f64> =
            (1..=ranks).map(|rank| f64::from(rank).powf(-exponent)).collect();
        let scale = f64::from(ranks) / weights.iter().sum::<f64>();
        weights.iter_mut().for_each(|weight| *weight *= scale);
        let mut columns: Vec<Column> = (0..ranks).map(|i| Column { stay: 1.0, alias: i }).collect();
        // Weights only fall, so the heavy ranks are the first ones: each gives to the light ones
        // behind them until it is light itself, and then takes from the next.
        let heavy_end = weights.partition_point(|&weight| weight >= 1.0);
        let mut giver = 0;
        let mut light: Vec<usize> = (heavy_end..weights.len()).collect();
        while let Some(taker) = light.pop() {
            if giver >= heavy_end {
                break;
            }
            columns[taker] = Column { stay: weights[taker] as f32, alias: giver as u32 };
            weights[giver] -= 1.0 - weights[taker];
            if weights[giver] < 1.0 {
                light.push(giver);
                giver += 1;
            }
        }
        Self { columns }
    }

    /// Draws a rank.
    pub fn draw(&self, random: &mut Random) -> u32 {
        let i = random.below(self.columns.len() as u64) as usize;
        let column = &self.columns[i];
        if random.fraction() < f64::from(column.stay) { i as u32 } else { column.alias }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn same_seed_same_ranks() {
        let zipf = Zipf::new(1000, 1.2);
        let draw = |seed| {
            let mut random = Random::new(seed);
            (0..100).map(|_| zipf.draw(&mut random)).collect::<Vec<_>>()
        };
        assert_eq!(draw(1), draw(1));
        assert_ne!(draw(1), draw(2));
    }

    #[test]
    fn frequencies_follow_the_law() {
        const DRAWS: usize = 400_000;
        for exponent in [0.0, 0.7, 1.0, 1.2] {
            let zipf = Zipf::new(50, exponent);
            let mut random = Random::new(11);
            let mut counts = [0.0; 50];
            for _ in 0..DRAWS {
                counts[zipf.draw(&mut random) as usize] += 1.0;
            }
            let total: f64 = (1..=50).map(|rank| f64::from(rank).powf(-exponent)).sum();
            for (i, count) in counts.into_iter().enumerate() {
                let expected = DRAWS as f64 * (i as f64 + 1.0).powf(-exponent) / total;
                let distance: f64 = count - expected;
                assert!(distance.abs() < 6.0 * expected.sqrt(), "rank {i}: {count}, {expected}");
            }
        }
    }

    #[test]
    fn scrambled_ranks_stay_distinct() {
        let keys: std::collections::HashSet<u64> = (0..10_000).map(scramble).collect();
        assert_eq!(keys.len(), 10_000);
    }
}
