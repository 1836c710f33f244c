//! Softmax of rows.

use crate::{
    Pool, SharedMut,
    rows::for_rows,
    simd::{
        Simd,
        kernel::{Kernel, run},
        math,
    },
};

/// `y = eˣ / Σ eˣ` over each row of `width` numbers; `x` and `y` are `[rows, width]`.
///
/// An entry of −∞ gets probability 0; a row of nothing else gets 0 everywhere (not NaN). A NaN spreads over its row.
///
/// # Panics
/// If `x` and `y` differ in length or do not hold whole rows.
pub fn softmax(pool: &Pool, x: &[f32], width: usize, y: &mut [f32]) {
    assert_eq!(x.len(), y.len(), "softmax: x has {} numbers, y {}", x.len(), y.len());
    if x.is_empty() {
        return;
    }
    assert!(width > 0 && x.len().is_multiple_of(width), "softmax: {} numbers are not whole rows of {width}", x.len());
    let rows = x.len() / width;
    let y = SharedMut::new(y);
    // A number costs about as much as four of an addition.
    for_rows(pool, rows, 4 * width, |range| {
        for row in range {
            let range = row * width..(row + 1) * width;
            // SAFETY: each row is visited once.
            let y = unsafe { y.slice(range.clone()) };
            run(pool, Softmax { x: &x[range], y });
        }
    });
}

struct Softmax<'a> {
    x: &'a [f32],
    y: &'a mut [f32],
}

impl Kernel for Softmax<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let Self { x, y } = self;
        let n = x.len();
        let whole = n - n % S::LANES;
        // SAFETY: every access is below n.
        unsafe {
            let mut greatest = S::splat(f32::NEG_INFINITY);
            for i in (0..whole).step_by(S::LANES) {
                greatest = S::max(greatest, S::load(x.as_ptr().add(i)));
            }
            let greatest = x[whole..].iter().fold(S::max_lane(greatest), |a, &b| if b > a { b } else { a });
            // Of a row of −∞ the difference would be NaN; against any finite number it is −∞, and e to that is 0.
            let greatest = if greatest == f32::NEG_INFINITY { 0.0 } else { greatest };
            let shift = S::splat(greatest);
            let mut sum = S::splat(0.0);
            for i in (0..whole).step_by(S::LANES) {
                let e = math::exp::<S>(S::sub(S::load(x.as_ptr().add(i)), shift));
                S::store(y.as_mut_ptr().add(i), e);
                sum = S::add(sum, e);
            }
            let mut sum = S::sum(sum);
            if whole < n {
                let e = math::exp::<S>(S::sub(S::load_first(x.as_ptr().add(whole), n - whole), shift));
                S::store_first(y.as_mut_ptr().add(whole), e, n - whole);
                sum += y[whole..].iter().sum::<f32>();
            }
            let scale = if sum == 0.0 { 0.0 } else { 1.0 / sum };
            for i in (0..whole).step_by(S::LANES) {
                let p = y.as_mut_ptr().add(i);
                S::store(p, S::mul(S::load(p), S::splat(scale)));
            }
            for v in &mut y[whole..] {
                *v *= scale;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{assert_close, every_isa, random};

    #[test]
    fn softmax_matches_f64() {
        for pool in every_isa() {
            for width in [1, 2, 15, 16, 17, 100, 4096, 50_257] {
                for spread in [1.0, 50.0] {
                    let x: Vec<f32> = random(3 * width, 8).iter().map(|v| spread * v + 20.0).collect();
                    let mut y = vec![f32::NAN; x.len()];
                    softmax(&pool, &x, width, &mut y);
                    let wanted = x.chunks(width).flat_map(|row| {
                        let greatest = row.iter().fold(f64::MIN, |a, &b| a.max(b.into()));
                        let e: Vec<f64> = row.iter().map(|&v| (f64::from(v) - greatest).exp()).collect();
                        let sum: f64 = e.iter().sum();
                        e.into_iter().map(move |e| e / sum)
                    });
                    assert_close(&y, wanted, 1e-6, format_args!("{:?} width {width} spread {spread}", pool.isa()));
                }
            }
        }
    }

    #[test]
    fn infinities_and_nan() {
        let inf = f32::INFINITY;
        for pool in every_isa() {
            for width in [3, 20] {
                let mut x = vec![-inf; width];
                let mut y = vec![f32::NAN; width];
                softmax(&pool, &x, width, &mut y);
                assert!(y.iter().all(|&v| v == 0.0), "{:?} all masked: {y:?}", pool.isa());
                x[width - 1] = 3.0;
                softmax(&pool, &x, width, &mut y);
                assert_eq!((y[0], y[width - 1]), (0.0, 1.0), "{:?} one left", pool.isa());
                x[0] = f32::NAN;
                softmax(&pool, &x, width, &mut y);
                assert!(y.iter().all(|v| v.is_nan()), "{:?} NaN: {y:?}", pool.isa());
            }
        }
    }
}
