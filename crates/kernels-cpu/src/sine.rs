//! Sines of lists of numbers: oscillators.

use crate::{
    Pool, SharedMut,
    rows::for_numbers,
    simd::{
        Simd,
        kernel::{Kernel, run},
        math,
    },
};

/// `y = sin x`, absolute error below 1.2·10⁻⁷ for |x| up to 2²⁰.
///
/// # Panics
/// If `x` and `y` differ in length.
pub fn sin(pool: &Pool, x: &[f32], y: &mut [f32]) {
    assert_eq!(x.len(), y.len(), "sin: x has {} numbers, y {}", x.len(), y.len());
    let y = SharedMut::new(y);
    for_numbers(pool, x.len(), |range| {
        // SAFETY: the ranges do not overlap.
        let y = unsafe { y.slice(range.clone()) };
        run(pool, Sine { x: &x[range], y });
    });
}

struct Sine<'a> {
    x: &'a [f32],
    y: &'a mut [f32],
}

impl Kernel for Sine<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        for (x, y) in self.x.chunks(S::LANES).zip(self.y.chunks_mut(S::LANES)) {
            // SAFETY: both chunks have as many numbers as the partial load and store are told.
            unsafe {
                let (sin, _) = math::sin_cos::<S>(S::load_first(x.as_ptr(), x.len()));
                S::store_first(y.as_mut_ptr(), sin, y.len());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{assert_close, every_isa};

    #[test]
    fn long_lists_are_computed_to_the_end() {
        for pool in every_isa() {
            for n in [0, 1, 17, 50_003] {
                let x: Vec<f32> = (0..n).map(|i| i as f32 * 0.37 - 900.0).collect();
                let mut y = vec![f32::NAN; n];
                sin(&pool, &x, &mut y);
                assert_close(&y, x.iter().map(|&x| f64::from(x).sin()), 1.2e-7, format_args!("{:?}, {n}", pool.isa()));
            }
        }
    }
}
