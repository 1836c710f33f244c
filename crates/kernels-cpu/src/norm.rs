//! Normalisation of rows: RMSNorm (arXiv:1910.07467) and LayerNorm (arXiv:1607.06450).
//!
//! Sums are taken in f32 over the lanes of four vectors, which keeps their error to a few ulp at the widths of real
//! models. A row's result depends on that row alone.

use crate::{
    Floats, Pool, SharedMut,
    element::Element,
    rows::for_rows,
    simd::{
        Simd,
        kernel::{Kernel, run},
    },
};

/// `y = x / sqrt(mean(x²) + eps) · (offset + weight)`, row by row.
///
/// `x` and `y` are `[rows, width]`, and `width` is `weight.len()`. `offset` is 0 for most models and 1 for those that
/// store the weight less one (Gemma): adding it here, in f32, loses nothing of a bf16 weight.
///
/// # Panics
/// If `x` and `y` differ in length or do not hold whole rows.
pub fn rms_norm(pool: &Pool, x: &[f32], weight: Floats<'_>, offset: f32, eps: f32, y: &mut [f32]) {
    match weight {
        Floats::F32(weight) => each_row(pool, x, y, weight.len(), |x, y| RmsNorm { x, y, weight, offset, eps }),
        Floats::F16(weight) => each_row(pool, x, y, weight.len(), |x, y| RmsNorm { x, y, weight, offset, eps }),
        Floats::Bf16(weight) => each_row(pool, x, y, weight.len(), |x, y| RmsNorm { x, y, weight, offset, eps }),
    }
}

/// `y = (x − mean(x)) / sqrt(variance(x) + eps) · weight + bias`, row by row; the variance is the biased one.
///
/// `x` and `y` are `[rows, width]`, and `width` is `weight.len()`. Without a bias none is added.
///
/// # Panics
/// If `x` and `y` differ in length or do not hold whole rows, or the bias is not as long as the weight.
pub fn layer_norm(pool: &Pool, x: &[f32], weight: Floats<'_>, bias: Option<Floats<'_>>, eps: f32, y: &mut [f32]) {
    let width = weight.len();
    if let Some(bias) = bias {
        assert_eq!(bias.len(), width, "layer_norm: the bias has {} numbers, the weight {width}", bias.len());
    }
    each_row(pool, x, y, width, |x, y| LayerNorm { x, y, weight, bias, eps });
}

/// Runs a kernel on each row of `x` and `y`.
fn each_row<'a, K: Kernel<Output = ()>>(
    pool: &Pool,
    x: &'a [f32],
    y: &'a mut [f32],
    width: usize,
    kernel: impl Fn(&'a [f32], &'a mut [f32]) -> K + Sync,
) {
    assert_eq!(x.len(), y.len(), "norm: x has {} numbers, y {}", x.len(), y.len());
    if x.is_empty() {
        return;
    }
    assert!(width > 0 && x.len().is_multiple_of(width), "norm: {} numbers are not whole rows of {width}", x.len());
    let rows = x.len() / width;
    let y = SharedMut::new(y);
    for_rows(pool, rows, width, |range| {
        for row in range {
            let range = row * width..(row + 1) * width;
            // SAFETY: each row is visited once.
            let y = unsafe { y.slice(range.clone()) };
            run(pool, kernel(&x[range], y));
        }
    });
}

struct RmsNorm<'a, T> {
    x: &'a [f32],
    weight: &'a [T],
    offset: f32,
    eps: f32,
    y: &'a mut [f32],
}

impl<T: Element> Kernel for RmsNorm<'_, T> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let Self { x, weight, offset, eps, y } = self;
        let n = x.len();
        // SAFETY: `x`, `weight` and `y` hold a row of n numbers each, and every access is below n.
        unsafe {
            let squares = sum::<S>(x, |v| S::mul(v, v));
            let scale = S::splat(1.0 / (squares / n as f32 + eps).sqrt());
            let offset = S::splat(offset);
            for i in (0..n).step_by(S::LANES) {
                let lanes = S::LANES.min(n - i);
                let (v, w) = if lanes == S::LANES {
                    (S::load(x.as_ptr().add(i)), T::load::<S>(weight.as_ptr().add(i)))
                } else {
                    (S::load_first(x.as_ptr().add(i), lanes), T::load_first::<S>(weight.as_ptr().add(i), lanes))
                };
                let v = S::mul(S::mul(v, scale), S::add(offset, w));
                store::<S>(y.as_mut_ptr().add(i), v, lanes);
            }
        }
    }
}

struct LayerNorm<'a> {
    x: &'a [f32],
    weight: Floats<'a>,
    bias: Option<Floats<'a>>,
    eps: f32,
    y: &'a mut [f32],
}

impl Kernel for LayerNorm<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let Self { x, weight, bias, eps, y } = self;
        let n = x.len();
        // SAFETY: `x`, `weight`, `bias` and `y` hold a row of n numbers each, and every access is below n.
        unsafe {
            let mean = sum::<S>(x, |v| v) / n as f32;
            let mean = S::splat(mean);
            // Two passes: E[x²] − E[x]² would cancel. Lanes beyond the end hold 0, which is no deviation of anything.
            let mut squares = S::splat(0.0);
            for i in (0..n).step_by(S::LANES) {
                let lanes = S::LANES.min(n - i);
                let d = S::sub(S::load_first(x.as_ptr().add(i), lanes), mean);
                if lanes == S::LANES {
                    squares = S::mul_add(d, d, squares);
                } else {
                    let mut tail = [0.0f32; 16];
                    S::store(tail.as_mut_ptr(), d);
                    let d = S::load_first(tail.as_ptr(), lanes);
                    squares = S::mul_add(d, d, squares);
                }
            }
            let scale = S::splat(1.0 / (S::sum(squares) / n as f32 + eps).sqrt());
            for i in (0..n).step_by(S::LANES) {
                let lanes = S::LANES.min(n - i);
                let v = S::mul(S::sub(S::load_first(x.as_ptr().add(i), lanes), mean), scale);
                let mut v = S::mul(v, floats::<S>(weight, i, lanes));
                if let Some(bias) = bias {
                    v = S::add(v, floats::<S>(bias, i, lanes));
                }
                store::<S>(y.as_mut_ptr().add(i), v, lanes);
            }
        }
    }
}

/// Sum of `f(x)`, in four accumulators; `f(0)` must be 0.
///
/// # Safety
/// The processor must have the instruction set of `S`.
#[inline(always)]
unsafe fn sum<S: Simd>(x: &[f32], f: impl Fn(S::V) -> S::V) -> f32 {
    const WAYS: usize = 4;
    let n = x.len();
    // SAFETY: every access is below n.
    unsafe {
        let mut sums = [S::splat(0.0); WAYS];
        let whole = n - n % (WAYS * S::LANES);
        for i in (0..whole).step_by(WAYS * S::LANES) {
            for (way, sum) in sums.iter_mut().enumerate() {
                *sum = S::add(*sum, f(S::load(x.as_ptr().add(i + way * S::LANES))));
            }
        }
        for i in (whole..n).step_by(S::LANES) {
            sums[0] = S::add(sums[0], f(S::load_first(x.as_ptr().add(i), S::LANES.min(n - i))));
        }
        S::sum(S::add(S::add(sums[0], sums[1]), S::add(sums[2], sums[3])))
    }
}

/// Numbers `i..i + lanes`, widened; 0 in the other lanes.
///
/// # Safety
/// They must exist, and the processor must have the instruction set of `S`.
#[inline(always)]
unsafe fn floats<S: Simd>(floats: Floats<'_>, i: usize, lanes: usize) -> S::V {
    // SAFETY: as this function's.
    unsafe {
        match floats {
            Floats::F32(v) => f32::load_first::<S>(v.as_ptr().add(i), lanes),
            Floats::F16(v) => half::f16::load_first::<S>(v.as_ptr().add(i), lanes),
            Floats::Bf16(v) => half::bf16::load_first::<S>(v.as_ptr().add(i), lanes),
        }
    }
}

/// # Safety
/// `lanes` f32 must be writable, and the processor must have the instruction set of `S`.
#[inline(always)]
unsafe fn store<S: Simd>(p: *mut f32, v: S::V, lanes: usize) {
    // SAFETY: as this function's.
    unsafe { if lanes == S::LANES { S::store(p, v) } else { S::store_first(p, v, lanes) } }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{assert_close, every_isa, random, random_floats};

    const WIDTHS: [usize; 8] = [1, 7, 16, 64, 65, 576, 1000, 4099];

    #[test]
    fn rms_norm_matches_f64() {
        for pool in every_isa() {
            for width in WIDTHS {
                for (kind, weight) in random_floats(width, 3) {
                    for (rows, offset) in [(1, 0.0), (5, 1.0), (40, 0.0)] {
                        let x = random(rows * width, 7);
                        let mut y = vec![f32::NAN; x.len()];
                        rms_norm(&pool, &x, weight.view(), offset, 1e-5, &mut y);
                        let wanted = x.chunks(width).flat_map(|row| {
                            let mean = row.iter().map(|&v| f64::from(v).powi(2)).sum::<f64>() / width as f64;
                            let scale = 1.0 / (mean + 1e-5).sqrt();
                            let weight = &weight;
                            row.iter().enumerate().map(move |(i, &v)| {
                                f64::from(v) * scale * (f64::from(offset) + f64::from(weight.view().get(i)))
                            })
                        });
                        assert_close(&y, wanted, 2e-6, format_args!("{:?} {rows}×{width} {kind:?}", pool.isa()));
                    }
                }
            }
        }
    }

    #[test]
    fn layer_norm_matches_f64() {
        for pool in every_isa() {
            for width in WIDTHS {
                for (kind, weight) in random_floats(width, 3) {
                    for with_bias in [false, true] {
                        // A mean far from 0: what a one-pass variance would lose.
                        let x: Vec<f32> = random(6 * width, 7).iter().map(|v| v + 30.0).collect();
                        let (_, bias) = &random_floats(width, 9)[1];
                        let mut y = vec![f32::NAN; x.len()];
                        layer_norm(&pool, &x, weight.view(), with_bias.then(|| bias.view()), 1e-5, &mut y);
                        let wanted = x.chunks(width).flat_map(|row| {
                            let mean = row.iter().map(|&v| f64::from(v)).sum::<f64>() / width as f64;
                            let variance =
                                row.iter().map(|&v| (f64::from(v) - mean).powi(2)).sum::<f64>() / width as f64;
                            let scale = 1.0 / (variance + 1e-5).sqrt();
                            let weight = &weight;
                            row.iter().enumerate().map(move |(i, &v)| {
                                let bias = if with_bias { f64::from(bias.view().get(i)) } else { 0.0 };
                                (f64::from(v) - mean) * scale * f64::from(weight.view().get(i)) + bias
                            })
                        });
                        // The mean of numbers near 30 is off by up to an ulp of 30.
                        let what = format!("{:?} {width} {kind:?} bias {with_bias}", pool.isa());
                        assert_close(&y, wanted, 2e-5, format_args!("{what}"));
                    }
                }
            }
        }
    }

    #[test]
    fn a_row_does_not_depend_on_its_batch() {
        for pool in every_isa() {
            let (rows, width) = (100, 576);
            let x = random(rows * width, 1);
            let weight = random(width, 2);
            let mut all = vec![0.0; x.len()];
            rms_norm(&pool, &x, Floats::F32(&weight), 0.0, 1e-6, &mut all);
            for row in [0, 1, 63, 99] {
                let range = row * width..(row + 1) * width;
                let mut one = vec![0.0; width];
                rms_norm(&pool, &x[range.clone()], Floats::F32(&weight), 0.0, 1e-6, &mut one);
                assert_eq!(one, all[range], "{:?} row {row}", pool.isa());
            }
        }
    }

    #[test]
    #[should_panic(expected = "not whole rows of 3")]
    fn a_broken_row_is_refused() {
        rms_norm(&Pool::new(1), &[0.0; 7], Floats::F32(&[1.0; 3]), 0.0, 1e-5, &mut [0.0; 7]);
    }
}
