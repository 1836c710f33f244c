//! A counter-based random number: no state to save, nothing to advance.

/// The uniform number in [0, 1) that belongs to position `position` of the answer of a request with seed `seed`.
///
/// Both words go through the 64-bit finaliser of SplitMix (Steele, Lea and Flood, 2014), the position on a Weyl
/// sequence, so that neighbouring seeds and positions are as good as independent.
///
/// ```
/// use vllm_platform::sampling::uniform;
///
/// assert_eq!(uniform(7, 3), uniform(7, 3));
/// assert_ne!(uniform(7, 3), uniform(7, 4));
/// ```
#[must_use]
pub fn uniform(seed: u64, position: u64) -> f64 {
    const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;
    let counter = position.wrapping_add(1).wrapping_mul(GOLDEN);
    let bits = mix(mix(seed ^ 0x6A09_E667_F3BC_C908).wrapping_add(counter));
    // The 53 bits of an f64's mantissa.
    (bits >> 11) as f64 * (1.0 / (1u64 << 53) as f64)
}

fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spread_evenly_over_positions_and_over_seeds() {
        let along: [fn(u64) -> f64; 3] = [|i| uniform(0, i), |i| uniform(i, 0), |i| uniform(i << 32, 5)];
        for (which, draw) in along.into_iter().enumerate() {
            let mut buckets = [0u32; 16];
            let (mut sum, mut lag) = (0.0, 0.0);
            for i in 0..16_000 {
                let u = draw(i);
                assert!((0.0..1.0).contains(&u));
                buckets[(u * 16.0) as usize] += 1;
                sum += u;
                lag += (u - 0.5) * (draw(i + 1) - 0.5);
            }
            // 1000 expected, standard deviation 31: seven of them is no accident.
            assert!(buckets.iter().all(|&n| (780..1220).contains(&n)), "{which}: {buckets:?}");
            assert!((sum / 16_000.0 - 0.5).abs() < 0.02, "{which}: mean {}", sum / 16_000.0);
            assert!((lag / 16_000.0).abs() < 0.005, "{which}: covariance of neighbours {}", lag / 16_000.0);
        }
    }
}
