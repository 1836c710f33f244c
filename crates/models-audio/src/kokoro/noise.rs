//! Noise that a seed says, the same on all machines and whatever the device.

use std::f64::consts::TAU;

/// Numbers of the standard normal distribution, each told by the seed and its place alone.
pub(super) struct Noise {
    seed: u64,
}

impl Noise {
    pub fn new(seed: u64) -> Self {
        // Neighbouring seeds shall have nothing to do with each other.
        Self { seed: scramble(seed) }
    }

    /// The numbers at places 0 to `count`.
    pub fn numbers(&self, count: usize) -> Vec<f32> {
        (0..count.div_ceil(2) as u64).flat_map(|n| self.pair(n)).take(count).collect()
    }

    /// The numbers at places 2n and 2n + 1 (Box & Muller, 1958).
    fn pair(&self, n: u64) -> [f32; 2] {
        let bits = scramble(self.seed.wrapping_add(n.wrapping_mul(0x9e37_79b9_7f4a_7c15)));
        // In (0, 1]: the logarithm of 0 would be infinite.
        let [radius, angle] = [bits >> 32, bits & 0xffff_ffff].map(|bits| (bits as f64 + 1.0) / 4_294_967_296.0);
        let radius = (-2.0 * radius.ln()).sqrt();
        let (sine, cosine) = (TAU * angle).sin_cos();
        #[allow(clippy::cast_possible_truncation)]
        [(radius * cosine) as f32, (radius * sine) as f32]
    }
}

/// SplitMix64's output function (Steele, Lea & Flood, 2014): every bit of what comes out depends on every bit that goes in.
fn scramble(mut bits: u64) -> u64 {
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_normal_and_told_by_seed_and_place() {
        let noise = Noise::new(7);
        let numbers: Vec<f64> = (0..50_000).flat_map(|n| noise.pair(n)).map(f64::from).collect();
        let moment = |power| numbers.iter().map(|x| x.powi(power)).sum::<f64>() / numbers.len() as f64;
        for (power, wanted, tolerance) in [(1, 0.0, 0.02), (2, 1.0, 0.02), (3, 0.0, 0.06), (4, 3.0, 0.15)] {
            assert!((moment(power) - wanted).abs() < tolerance, "moment {power}: {}", moment(power));
        }
        let neighbours = numbers.windows(2).map(|w| w[0] * w[1]).sum::<f64>() / numbers.len() as f64;
        assert!(neighbours.abs() < 0.02, "{neighbours}");
        assert_eq!(Noise::new(7).pair(3), noise.pair(3));
        assert_ne!(Noise::new(8).pair(3), noise.pair(3));
        assert_ne!(noise.pair(4), noise.pair(3));
    }
}
