//! Fewer products for several taps: three results of three taps by five products instead of nine (Toom and Cook; Winograd,
//! doi:10.1137/1.9781611970364, for filters).
//!
//! Three results at a distance of the dilation see five frames. Seen as polynomials, taps and frames are multiplied by
//! multiplying their values at five points, here ±0.4, ±1.2 and infinity. A longer kernel is several of three taps, whose
//! products at a point are summed before anything is made of them.
//!
//! So frames stand in *groups*: group `b · dilation + r` is of the results `3 · dilation · b + r + {0, 1, 2} · dilation`. At each point
//! the groups' values are rows of a plain convolution with a third of the taps, at the old dilation: that is what the tiles are for.
//!
//! The points are those of the least error of some sixty tried, for values in 14 bits under a unit for each group and point:
//! 4 dB above that of plain sums for frames of noise, 2 dB for frames that change slowly; 0, ±1, 2 and infinity have 8 dB.

use super::{Inlet, integers::integers, kernel::Numbers};
use crate::simd::{Simd, kernel::Kernel};

/// Points, and so products.
pub(super) const POINTS: usize = 5;
/// Results of a group, and taps that are taken together.
pub(super) const TOGETHER: usize = 3;
/// Two of the points, and with the other sign two more; the last is infinity.
const A: f64 = 0.4;
const B: f64 = 1.2;

/// The weights [outputs, kernel, channels] at a point: [outputs, kernel / 3 rounded up, channels].
pub(super) fn weights_at(point: usize, weights: &[f32], [outputs, kernel, channels]: [usize; 3]) -> Vec<f32> {
    let parts = kernel.div_ceil(TOGETHER);
    // What interpolation divides by stands here rather than with the frames: units take it up.
    let near = |p: f64, q: f64| 1.0 / (2.0 * p.abs() * (p * p - q * q));
    let powers = |p: f64, q: f64| [near(p, q), p * near(p, q), p * p * near(p, q)];
    let factors = match point {
        0 => powers(A, B),
        1 => powers(-A, B),
        2 => powers(B, A),
        3 => powers(-B, A),
        _ => [0.0, 0.0, 1.0],
    };
    let mut at = vec![0.0; outputs * parts * channels];
    for (filter, at) in weights.chunks_exact(kernel * channels).zip(at.chunks_exact_mut(parts * channels)) {
        for (taps, at) in filter.chunks(TOGETHER * channels).zip(at.chunks_exact_mut(channels)) {
            for (c, at) in at.iter_mut().enumerate() {
                let taps = taps[c..].iter().step_by(channels).zip(factors);
                *at = taps.map(|(&w, factor)| f64::from(w) * factor).sum::<f64>() as f32;
            }
        }
    }
    at
}

/// Five frames' values at the points, but for the factors that the weights have.
///
/// # Safety
/// The processor has `S`.
#[inline(always)]
pub(super) unsafe fn values<S: Simd>(x: [S::V; POINTS]) -> [S::V; POINTS] {
    const A2: f32 = (A * A) as f32;
    const B2: f32 = (B * B) as f32;
    // SAFETY: by the caller's promise.
    unsafe {
        let pair = |point: f32, other: f32| {
            let even = S::fused_mul_add(S::splat(-other), x[0], x[2]);
            let odd = S::fused_mul_add(S::splat(-other), x[1], x[3]);
            let even = S::mul(even, S::splat(point));
            (S::add(even, odd), S::sub(even, odd))
        };
        let ((a, minus_a), (b, minus_b)) = (pair(A as f32, B2), pair(B as f32, A2));
        let last = S::fused_mul_add(S::splat(-(A2 + B2)), x[2], x[4]);
        [a, minus_a, b, minus_b, S::fused_mul_add(S::splat(A2 * B2), x[0], last)]
    }
}

/// The three results of a group's products at the points.
///
/// # Safety
/// The processor has `S`.
#[inline(always)]
pub(super) unsafe fn results<S: Simd>(m: [S::V; POINTS]) -> [S::V; TOGETHER] {
    // SAFETY: by the caller's promise.
    unsafe {
        let (near, far) = (S::add(m[0], m[1]), S::add(m[2], m[3]));
        let odd = S::mul(S::sub(m[0], m[1]), S::splat(A as f32));
        let odd = S::fused_mul_add(S::sub(m[2], m[3]), S::splat(B as f32), odd);
        let square = S::fused_mul_add(near, S::splat((A * A) as f32), m[4]);
        let square = S::fused_mul_add(far, S::splat((B * B) as f32), square);
        [S::add(near, far), odd, square]
    }
}

/// Puts frames through an inlet, and zeros where there are none.
pub(super) struct Frames<'a> {
    /// Whole frames.
    pub x: &'a [f32],
    pub channels: usize,
    pub inlet: &'a Inlet<'a>,
    /// Frames of zeros before them.
    pub before: usize,
    /// Frames, with zeros after them.
    pub out: &'a mut [f32],
}

impl Kernel for Frames<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let Self { x, channels, inlet, before, out } = self;
        let (zeros, out) = out.split_at_mut(before * channels);
        zeros.fill(0.0);
        let (out, zeros) = out.split_at_mut(x.len());
        zeros.fill(0.0);
        for (x, out) in x.chunks_exact(channels).zip(out.chunks_exact_mut(channels)) {
            // SAFETY: by the caller's promise; both are frames of `channels`, and the inlet's lists are as long.
            unsafe { inlet.frame::<S>(x, out) };
        }
    }
}

/// The values of consecutive groups at all points, as integers.
pub(super) struct Values<'a> {
    /// From the first group's first frame on, to the last one's last.
    pub frames: &'a [f32],
    pub channels: usize,
    pub dilation: usize,
    pub numbers: Numbers,
    /// Room for [points, channels].
    pub room: &'a mut [f32],
    /// [points, groups, words of a row]
    pub rows: &'a mut [u32],
    /// [points, groups]
    pub units: &'a mut [f32],
}

impl Kernel for Values<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let Self { frames, channels, dilation, numbers, room, rows, units } = self;
        let groups = units.len() / POINTS;
        let row_words = rows.len() / units.len();
        for group in 0..groups {
            let start = group / dilation * TOGETHER * dilation + group % dilation;
            let frames = &frames[start * channels..][..((POINTS - 1) * dilation + 1) * channels];
            assert!(room.len() >= POINTS * channels);
            for c in (0..channels).step_by(S::LANES) {
                let lanes = S::LANES.min(channels - c);
                // SAFETY: by the caller's promise; so many channels from c on are in each of five frames and five rows of the
                // room, which was just seen to be there.
                unsafe {
                    let mut x = [S::splat(0.0); POINTS];
                    for (i, x) in x.iter_mut().enumerate() {
                        let p = frames.as_ptr().add(i * dilation * channels + c);
                        *x = if lanes == S::LANES { S::load(p) } else { S::load_first(p, lanes) };
                    }
                    for (point, v) in values::<S>(x).into_iter().enumerate() {
                        let p = room.as_mut_ptr().add(point * channels + c);
                        if lanes == S::LANES { S::store(p, v) } else { S::store_first(p, v, lanes) }
                    }
                }
            }
            for (point, values) in room.chunks_exact(channels).take(POINTS).enumerate() {
                let at = point * groups + group;
                // SAFETY: by the caller's promise; a row has room for a frame's integers.
                units[at] = unsafe { integers::<S>(values, numbers, &mut rows[at * row_words..][..row_words]) };
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        simd::kernel::run,
        testing::{assert_close, every_isa, random},
    };

    struct Group<'a> {
        x: &'a [f32],
        weights: &'a [Vec<f32>],
        y: &'a mut [f32],
    }

    impl Kernel for Group<'_> {
        type Output = ();

        #[inline(always)]
        unsafe fn run<S: Simd>(self) {
            // SAFETY: five numbers and places for three.
            unsafe {
                let x = std::array::from_fn(|i| S::splat(self.x[i]));
                let mut products = values::<S>(x);
                for (product, w) in products.iter_mut().zip(self.weights) {
                    *product = S::mul(*product, S::splat(w[0]));
                }
                for (y, v) in self.y.iter_mut().zip(results::<S>(products)) {
                    S::store_first(y, v, 1);
                }
            }
        }
    }

    #[test]
    fn five_products_are_three_results_of_three_taps() {
        for seed in 0..20 {
            let (x, w) = (random(5, seed), random(3, 100 + seed));
            let weights: Vec<_> = (0..POINTS).map(|point| weights_at(point, &w, [1, 3, 1])).collect();
            let wanted = (0..3).map(|i| (0..3).map(|k| f64::from(x[i + k]) * f64::from(w[k])).sum::<f64>());
            for pool in every_isa() {
                let mut y = [f32::NAN; 3];
                run(&pool, Group { x: &x, weights: &weights, y: &mut y });
                assert_close(&y, wanted.clone(), 2e-6, format_args!("{seed}, {:?}", pool.isa()));
            }
        }
    }

    #[test]
    fn long_kernels_are_parts_of_three_taps() {
        let w = random(2 * 7 * 3, 1);
        for point in 0..POINTS {
            let all = weights_at(point, &w, [2, 7, 3]);
            assert_eq!(all.len(), 2 * 3 * 3);
            for (o, part, c) in [(0, 0, 0), (1, 1, 2), (1, 2, 1)] {
                let tap = |k: usize| if 3 * part + k < 7 { w[(o * 7 + 3 * part + k) * 3 + c] } else { 0.0 };
                let alone = weights_at(point, &[tap(0), tap(1), tap(2)], [1, 3, 1]);
                assert_eq!(all[(o * 3 + part) * 3 + c], alone[0]);
            }
        }
    }
}
