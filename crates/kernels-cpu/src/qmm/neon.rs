//! Packed weights by the byte dot products of Arm (`sdot`).
//!
//! Four columns of four rows of weights take one instruction for each digit of activations, which it picks from a vector of sixteen
//! columns. Its bytes are signed: codes of 4 bits are below 16 anyway, those of 8 bits get 128 taken off, which is what a symmetric
//! matrix wants; to others `128 · Σ X` is given back.

#![expect(clippy::needless_range_loop, reason = "tiles index several arrays of registers by the same numbers")]

use std::{
    arch::{aarch64::*, asm},
    array::from_fn,
};

use super::{
    digits::{Record, WORDS, split_bytes},
    kernel::{Kernel, Panels, Tile},
    packed::LANES,
    tile::{Dots, kernel, tile},
};
use crate::simd::Neon;

pub(super) static TWO_DIGITS: Kernel = kernel::<2, Sdot>(4);
pub(super) static ONE_DIGIT: Kernel = kernel::<1, Sdot>(4);

struct Sdot;

// SAFETY: as the trait asks.
unsafe impl<const DIGITS: usize> Dots<DIGITS> for Sdot {
    type S = Neon;
    type I = int32x4_t;

    #[target_feature(enable = "neon")]
    unsafe fn split(x: &[f32], out: &mut [u32]) {
        split_bytes::<DIGITS>(x, out);
    }

    #[target_feature(enable = "neon,dotprod")]
    unsafe fn multiply<const BITS: usize, const SYMMETRIC: bool, const M: usize>(
        panels: Panels<'_>,
        x: *const u32,
        row_len: usize,
        out: &mut Tile,
    ) {
        // SAFETY: by the caller's promise.
        unsafe {
            // Sums of sixteen vectors, so that as many registers are left for operands.
            if M * DIGITS <= 4 {
                tile::<DIGITS, Self, BITS, SYMMETRIC, M, 4>(panels, x, row_len, out);
            } else {
                tile::<DIGITS, Self, BITS, SYMMETRIC, M, 2>(panels, x, row_len, out);
            }
        }
    }

    #[inline(always)]
    unsafe fn span<const BITS: usize, const SYMMETRIC: bool, const M: usize, const V: usize>(
        codes: *const u32,
        x: *const u32,
        row_len: usize,
    ) -> [[int32x4_t; V]; M] {
        // SAFETY: by the caller's promise.
        unsafe {
            let mut sums = [[[vdupq_n_s32(0); V]; DIGITS]; M];
            for half in 0..WORDS / 4 {
                let digits: [[int8x16_t; DIGITS]; M] =
                    from_fn(|i| from_fn(|digit| vld1q_s8(x.add(i * row_len + digit * WORDS + half * 4).cast())));
                for n in 0..4 {
                    for v in 0..V {
                        let codes = four_columns::<BITS>(codes.add(v * 4), half * 4 + n);
                        for i in 0..M {
                            for digit in 0..DIGITS {
                                sums[i][digit][v] = dot(sums[i][digit][v], codes, digits[i][digit], n);
                            }
                        }
                    }
                }
            }
            from_fn(|i| {
                let sum = *x.add(i * row_len + Record::<DIGITS>::INTEGER_SUM).cast::<i32>();
                // (Of a span with a NaN the sum may be anything.)
                let missing = match (BITS, SYMMETRIC) {
                    (4, true) => sum.wrapping_mul(-8),
                    (8, false) => sum.wrapping_mul(128),
                    _ => 0,
                };
                from_fn(|v| {
                    let sum = (1..DIGITS)
                        .fold(sums[i][0][v], |sum, digit| vaddq_s32(vshlq_n_s32::<8>(sum), sums[i][digit][v]));
                    if missing == 0 { sum } else { vaddq_s32(sum, vdupq_n_s32(missing)) }
                })
            })
        }
    }

    #[inline(always)]
    unsafe fn float(sums: int32x4_t) -> float32x4_t {
        // SAFETY: by the caller's promise.
        unsafe { vcvtq_f32_s32(sums) }
    }
}

/// The codes of the `n`-th four columns of a span, of 8 bits less 128, of the four rows whose first word is at `codes`.
///
/// # Safety
/// The span's codes of `BITS` bits are there.
#[inline(always)]
unsafe fn four_columns<const BITS: usize>(codes: *const u32, n: usize) -> int8x16_t {
    // SAFETY: by the caller's promise.
    unsafe {
        let word = |n: usize| vld1q_u8(codes.add(n * LANES).cast());
        vreinterpretq_s8_u8(match (BITS, n % 2) {
            (8, _) => veorq_u8(word(n), vdupq_n_u8(128)),
            (_, 0) => vandq_u8(word(n / 2), vdupq_n_u8(15)),
            _ => vshrq_n_u8::<4>(word(n / 2)),
        })
    }
}

/// Adds to each lane the four products of its codes and word `n` of `digits`.
///
/// # Safety
/// The processor has FEAT_DotProd; `n` is below 4.
#[inline(always)]
unsafe fn dot(sums: int32x4_t, codes: int8x16_t, digits: int8x16_t, n: usize) -> int32x4_t {
    let mut sums = sums;
    // As assembly, because the intrinsic is not stable in Rust 1.95.
    macro_rules! sdot {
        ($n:literal) => {
            asm!(
                concat!("sdot {sums:v}.4s, {codes:v}.16b, {digits:v}.4b[", $n, "]"),
                sums = inout(vreg) sums,
                codes = in(vreg) codes,
                digits = in(vreg) digits,
                options(pure, nomem, nostack, preserves_flags)
            )
        };
    }
    // SAFETY: the instruction touches these registers alone; the rest by the caller's promise.
    unsafe {
        match n {
            0 => sdot!(0),
            1 => sdot!(1),
            2 => sdot!(2),
            _ => sdot!(3),
        }
    }
    sums
}
