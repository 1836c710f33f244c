//! exp over a whole vocabulary, in code that compilers turn into vector instructions.

/// Numbers that have a sum of their own: whoever looks for a place in the running sum skips whole blocks.
pub(super) const BLOCK: usize = 1024;
/// Numbers that are worked on side by side.
const LANES: usize = 16;

/// exp((logit − max) / temperature) of each logit, a probability up to the common factor, and its sums by [`BLOCK`].
#[derive(Debug, Default)]
pub(super) struct Weights {
    pub weights: Vec<f32>,
    pub sums: Vec<f64>,
}

impl Weights {
    /// Of `logits`, none of which is above `max`; NaN weighs nothing. Relative error of at most some 10⁻⁶, where a weight is above 10⁻³⁷; the
    /// others are 0.
    pub fn fill(&mut self, logits: &[f32], max: f32, temperature: f32) {
        let scale = std::f32::consts::LOG2_E / temperature;
        self.weights.clear();
        self.weights.resize(logits.len(), 0.0);
        let (from, rest) = logits.as_chunks::<LANES>();
        let (to, rest_to) = self.weights.as_chunks_mut::<LANES>();
        for (from, to) in from.iter().zip(to) {
            for (logit, weight) in from.iter().zip(to) {
                *weight = exp2((logit - max) * scale);
            }
        }
        rest.iter().zip(rest_to).for_each(|(logit, weight)| *weight = exp2((logit - max) * scale));
        self.sums.clear();
        self.sums.extend(self.weights.chunks(BLOCK).map(sum));
    }

    pub fn total(&self) -> f64 {
        self.sums.iter().sum()
    }

    /// The first number at which the running sum of weights exceeds `left`; the last that weighs anything if rounding leaves a
    /// little over; `None` if nothing weighs anything.
    pub fn place(&self, mut left: f64) -> Option<usize> {
        for (block, &sum) in self.sums.iter().enumerate() {
            if left < sum {
                let start = block * BLOCK;
                for (i, &weight) in self.weights[start..].iter().take(BLOCK).enumerate() {
                    left -= f64::from(weight);
                    if left < 0.0 {
                        return Some(start + i);
                    }
                }
                // The block's sum was added up in another order.
                return self.weights[..self.weights.len().min(start + BLOCK)].iter().rposition(|&weight| weight > 0.0);
            }
            left -= sum;
        }
        self.weights.iter().rposition(|&weight| weight > 0.0)
    }
}

fn sum(block: &[f32]) -> f64 {
    let mut lanes = [0f64; LANES];
    let (chunks, rest) = block.as_chunks::<LANES>();
    for chunk in chunks {
        for (lane, &x) in lanes.iter_mut().zip(chunk) {
            *lane += f64::from(x);
        }
    }
    lanes.iter().sum::<f64>() + rest.iter().copied().map(f64::from).sum::<f64>()
}

/// 2ˣ for x ≤ 0, 0 below 2⁻¹²⁵ and for NaN: a power of two by its bits, and a Taylor series for what is left, at most half.
#[inline(always)]
fn exp2(x: f32) -> f32 {
    /// Adding 1.5 · 2²³ rounds to a whole number, which is then in the lowest bits.
    const ROUND: f32 = 12_582_912.0;
    const LN_2: f32 = std::f32::consts::LN_2;
    // False for NaN too.
    let counts = x > -125.0;
    let x = if counts { x } else { 0.0 };
    let rounded = x + ROUND;
    let f = (x - (rounded - ROUND)) * LN_2;
    let mut series = 1.0 / 5040.0;
    for factor in [1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0] {
        series = series * f + factor;
    }
    let power = f32::from_bits((rounded.to_bits().wrapping_sub(ROUND.to_bits()).wrapping_add(127)) << 23);
    if counts { power * series } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_are_those_of_exp() {
        let logits: Vec<f32> =
            (0..5000).map(|i| -(i as f32) / 41.0).chain([f32::NEG_INFINITY, f32::NAN, 0.0]).collect();
        for temperature in [0.3, 1.0, 1.9] {
            let mut weights = Weights::default();
            weights.fill(&logits, 0.0, temperature);
            let mut total = 0.0;
            for (&logit, &weight) in logits.iter().zip(&weights.weights) {
                let wanted = (f64::from(logit) / f64::from(temperature)).exp();
                let wanted = if wanted > 1e-37 { wanted } else { 0.0 };
                let error = (f64::from(weight) - wanted).abs();
                assert!(logit.is_nan() && weight == 0.0 || error <= 2e-5 * wanted + 1e-37, "{logit}: {weight}");
                total += f64::from(weight);
            }
            assert!((weights.total() - total).abs() < 1e-9 * total);
        }
    }

    #[test]
    fn places_are_those_of_the_running_sum() {
        let logits: Vec<f32> = (0..3000).map(|i| if i % 7 == 0 { -1.0 } else { f32::NEG_INFINITY }).collect();
        let mut weights = Weights::default();
        weights.fill(&logits, -1.0, 1.0);
        assert_eq!(weights.total(), 429.0);
        for (left, wanted) in [(0.0, 0), (0.5, 0), (1.0, 7), (200.5, 1400), (428.5, 2996), (429.0, 2996)] {
            assert_eq!(weights.place(left), Some(wanted), "{left}");
        }
        weights.fill(&[f32::NAN; 3], 0.0, 1.0);
        assert_eq!(weights.place(0.0), None);
    }
}
