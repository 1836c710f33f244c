//! Random numbers that a seed repeats. Not for secrets.

/// SplitMix64 (Steele, Lea, Flood 2014): a word of state, and neighbouring seeds give unrelated sequences.
#[derive(Debug, Clone)]
pub struct Rng(u64);

impl Rng {
    /// One of several independent sequences of a seed.
    pub fn new(seed: u64, sequence: u64) -> Self {
        let mut rng = Self(seed);
        let base = rng.next();
        Self(base ^ sequence.wrapping_mul(0xD6E8_FEB8_6659_FD93))
    }

    /// 64 random bits.
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// One of `items`, which is not empty.
    pub fn choose<T: Copy>(&mut self, items: &[T]) -> T {
        items[(self.next() % items.len() as u64) as usize]
    }

    /// Exponentially distributed with mean 1: the gaps of a Poisson process of rate 1.
    pub fn exponential(&mut self) -> f64 {
        // In (0, 1]: the logarithm of 0 would never arrive.
        let unit = ((self.next() >> 11) + 1) as f64 / (1u64 << 53) as f64;
        -unit.ln()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_repeats_and_sequences_differ() {
        let draw = |seed, sequence| {
            let mut rng = Rng::new(seed, sequence);
            [rng.next(), rng.next(), rng.next()]
        };
        assert_eq!(draw(7, 1), draw(7, 1));
        assert_ne!(draw(7, 1), draw(7, 2));
        assert_ne!(draw(7, 1), draw(8, 1));
    }

    #[test]
    fn exponential_gaps_have_mean_and_deviation_one() {
        let mut rng = Rng::new(0, 0);
        let gaps: Vec<f64> = (0..20_000).map(|_| rng.exponential()).collect();
        let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
        let variance = gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / gaps.len() as f64;
        assert!((mean - 1.0).abs() < 0.03, "{mean}");
        assert!((variance - 1.0).abs() < 0.1, "{variance}");
        assert!(gaps.iter().all(|gap| gap.is_finite() && *gap >= 0.0));
    }
}
