//! Taking the next token.

use super::rules::{arg_max, log_sum_exp};

/// A source of random numbers (SplitMix64): the same seed, the same text.
#[derive(Debug, Clone)]
pub(super) struct Random(pub u64);

impl Random {
    /// Evenly from 0 to 1, without 1.
    pub fn unit(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^= x >> 31;
        (x >> 11) as f64 / (1u64 << 53) as f64
    }
}

/// Index of the next token by its logits [vocab], and the logarithm of its probability at temperature 1.
pub(super) fn choose(logits: &[f32], temperature: f32, random: &mut Random) -> (usize, f32) {
    let index = if temperature > 0.0 { sample(logits, temperature, random) } else { arg_max(logits) };
    (index, logits[index] - log_sum_exp(logits))
}

/// One of the tokens, each as probable as at this temperature.
fn sample(logits: &[f32], temperature: f32, random: &mut Random) -> usize {
    let most_probable = arg_max(logits);
    let greatest = logits[most_probable];
    let weight = |&logit: &f32| f64::from(((logit - greatest) / temperature).exp());
    let mut left = random.unit() * logits.iter().map(weight).sum::<f64>();
    for (index, logit) in logits.iter().enumerate() {
        left -= weight(logit);
        if left < 0.0 {
            return index;
        }
    }
    // Only if rounding left a remainder.
    most_probable
}
