//! A rotation that spreads outliers: a few channels of keys are many times larger than the rest, and of numbers that share
//! one scale the small ones would lose what the large ones gain.
//!
//! A Walsh–Hadamard transform, as in QuaRot (arXiv:2404.00456): orthogonal, so that rotated queries and rotated keys
//! have the products that they had before, and its own inverse.

/// Rotates a head's numbers in place, in blocks of the largest power of two that divides their count.
pub(crate) fn rotate(numbers: &mut [f32]) {
    let block = 1usize << numbers.len().trailing_zeros().min(usize::BITS - 1);
    let mut half = 1;
    while half < block {
        for pair in numbers.chunks_exact_mut(2 * half) {
            let (first, second) = pair.split_at_mut(half);
            for (a, b) in first.iter_mut().zip(second) {
                (*a, *b) = (*a + *b, *a - *b);
            }
        }
        half *= 2;
    }
    let norm = (block as f32).sqrt().recip();
    numbers.iter_mut().for_each(|number| *number *= norm);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::random;

    #[test]
    fn products_stay_and_twice_is_nothing() {
        for len in [1, 2, 33, 40, 64, 80, 96, 128, 256] {
            let (a, b) = (random(len, 1), random(len, 2));
            let (mut ra, mut rb) = (a.clone(), b.clone());
            rotate(&mut ra);
            rotate(&mut rb);
            let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(a * b)).sum::<f64>();
            assert!((dot(&ra, &rb) - dot(&a, &b)).abs() < 1e-5, "{len}");
            rotate(&mut ra);
            assert!(ra.iter().zip(&a).all(|(found, wanted)| (found - wanted).abs() < 1e-6), "{len}");
        }
    }

    #[test]
    fn an_outlier_is_spread() {
        let mut numbers = [0.0; 64];
        numbers[17] = 8.0;
        rotate(&mut numbers);
        assert!(numbers.iter().all(|n| n.abs() == 1.0), "{numbers:?}");
    }
}
