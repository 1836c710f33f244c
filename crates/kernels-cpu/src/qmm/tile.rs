//! The innermost loop, over vectors of any instruction set: a few rows of `x` by one panel of weights.

#![expect(clippy::needless_range_loop, reason = "tiles index several arrays of registers by the same numbers")]

use super::{
    digits::{Record, SPAN},
    kernel::{Kernel, Multiply, Panels, Tile},
    packed::{LANES, Layout},
};
use crate::{FloatKind, simd::Simd};

/// How far ahead of the codes in use to fetch, in words.
const AHEAD: usize = 768;

/// How an instruction set multiplies the codes of a span with the integers that stand for activations.
///
/// # Safety
/// [`Dots::split`] fills the records, and [`Dots::span`] reads only them and the codes.
pub(super) unsafe trait Dots<const DIGITS: usize>: Sized {
    /// Vectors of f32.
    type S: Simd;
    /// Vectors of as many i32.
    type I: Copy;

    /// Makes records of a row of `x`.
    ///
    /// # Safety
    /// The processor has the instruction set.
    unsafe fn split(x: &[f32], out: &mut [u32]);

    /// [`tile`] in a function that enables the instruction set, with as many vectors at once as registers allow.
    ///
    /// # Safety
    /// As [`Multiply`].
    unsafe fn multiply<const BITS: usize, const SYMMETRIC: bool, const M: usize>(
        panels: Panels<'_>,
        x: *const u32,
        row_len: usize,
        out: &mut Tile,
    );

    /// `Σ code · X` over a span, for each of `M` rows of `x` and each lane of `V` vectors; of a `SYMMETRIC` matrix
    /// `Σ (code − zero) · X`. |Σ| is at most 32 · 255 · 32,768 < 2³¹.
    ///
    /// # Safety
    /// The processor has the instruction set; `codes` points to the span's first word of the first lane, `x` to the first row's
    /// record of the span.
    unsafe fn span<const BITS: usize, const SYMMETRIC: bool, const M: usize, const V: usize>(
        codes: *const u32,
        x: *const u32,
        row_len: usize,
    ) -> [[Self::I; V]; M];

    /// To f32, rounded.
    ///
    /// # Safety
    /// The processor has the instruction set.
    unsafe fn float(sums: Self::I) -> <Self::S as Simd>::V;
}

/// The kernel of `D`, whose tiles have up to `rows` rows and one panel.
pub(super) const fn kernel<const DIGITS: usize, D: Dots<DIGITS>>(rows: usize) -> Kernel {
    Kernel {
        record_len: Record::<DIGITS>::LEN,
        rows,
        panels: 1,
        split: D::split,
        multiply: |layout, rows, _| multiply::<DIGITS, D>(layout, rows),
    }
}

fn multiply<const DIGITS: usize, D: Dots<DIGITS>>(layout: &Layout, rows: usize) -> Multiply {
    match (layout.bits, layout.symmetric) {
        (4, false) => of_rows::<DIGITS, D, 4, false>(rows),
        (4, true) => of_rows::<DIGITS, D, 4, true>(rows),
        (_, false) => of_rows::<DIGITS, D, 8, false>(rows),
        (_, true) => of_rows::<DIGITS, D, 8, true>(rows),
    }
}

fn of_rows<const DIGITS: usize, D: Dots<DIGITS>, const BITS: usize, const SYMMETRIC: bool>(rows: usize) -> Multiply {
    match rows {
        1 => D::multiply::<BITS, SYMMETRIC, 1>,
        2 => D::multiply::<BITS, SYMMETRIC, 2>,
        3 => D::multiply::<BITS, SYMMETRIC, 3>,
        4 => D::multiply::<BITS, SYMMETRIC, 4>,
        5 => D::multiply::<BITS, SYMMETRIC, 5>,
        _ => D::multiply::<BITS, SYMMETRIC, 6>,
    }
}

/// `M` rows of `x` by one panel, `V` vectors of its lanes at a time.
///
/// # Safety
/// As [`Multiply`].
#[inline(always)]
pub(super) unsafe fn tile<
    const DIGITS: usize,
    D: Dots<DIGITS>,
    const BITS: usize,
    const SYMMETRIC: bool,
    const M: usize,
    const V: usize,
>(
    Panels { layout, groups, starts }: Panels<'_>,
    x: *const u32,
    row_len: usize,
    out: &mut Tile,
) {
    // SAFETY: by the caller's promise: each group has its head and codes, each span its record.
    unsafe {
        for first in (0..LANES).step_by(V * D::S::LANES) {
            let (mut codes, mut x) = (starts[0], x);
            let mut totals = [[D::S::splat(0.0); V]; M];
            for _ in 0..groups {
                let mut scales = [D::S::splat(0.0); V];
                let mut biases = scales;
                for v in 0..V {
                    let lane = first + v * D::S::LANES;
                    scales[v] = numbers::<D::S>(layout.kind, codes, lane);
                    if !SYMMETRIC {
                        biases[v] = numbers::<D::S>(layout.kind, codes, LANES + lane);
                    }
                }
                codes = codes.add(layout.head_words());
                for _ in 0..layout.group_size / SPAN {
                    let dots = D::span::<BITS, SYMMETRIC, M, V>(codes.add(first), x, row_len);
                    for i in 0..M {
                        let record: *const f32 = x.add(i * row_len).cast();
                        let unit = D::S::splat(*record.add(Record::<DIGITS>::UNIT));
                        let sum = D::S::splat(*record.add(Record::<DIGITS>::SUM));
                        for v in 0..V {
                            let scale = D::S::mul(scales[v], unit);
                            totals[i][v] = D::S::fused_mul_add(D::float(dots[i][v]), scale, totals[i][v]);
                            if !SYMMETRIC {
                                totals[i][v] = D::S::fused_mul_add(biases[v], sum, totals[i][v]);
                            }
                        }
                    }
                    for line in 0..BITS {
                        D::S::prefetch(codes.wrapping_add(AHEAD + line * LANES).cast());
                    }
                    codes = codes.add(BITS * LANES);
                    x = x.add(Record::<DIGITS>::LEN);
                }
            }
            for i in 0..M {
                for v in 0..V {
                    D::S::store(out.0[i].as_mut_ptr().add(first + v * D::S::LANES), totals[i][v]);
                }
            }
        }
    }
}

/// A vector of the scales or biases of a head, from place `place` on.
///
/// # Safety
/// The processor has `S`; the head has them.
#[inline(always)]
unsafe fn numbers<S: Simd>(kind: FloatKind, head: *const u32, place: usize) -> S::V {
    // SAFETY: by the caller's promise.
    unsafe {
        match kind {
            FloatKind::F32 => S::load(head.cast::<f32>().add(place)),
            FloatKind::F16 => S::load_f16(head.cast::<u16>().add(place)),
            FloatKind::Bf16 => S::load_bf16(head.cast::<u16>().add(place)),
        }
    }
}
