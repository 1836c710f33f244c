//! Packed weights by integer products of AVX2, or by those of AVX-VNNI, which add up in one instruction what else takes two or three.
//!
//! Activations of two bytes stay whole, as i16: `vpmaddwd` sums the products of two columns in each i32. (`vpmaddubsw`, for bytes,
//! saturates where codes have 8 bits.) They stand in pairs of columns two apart ([`split_pairs`]), because so do the even bytes
//! of a word of codes under a mask, and the odd ones.
//!
//! Of activations of one byte `vpmaddubsw` sums the products of two columns in each i16. With codes of 4 bits a span's sums don't
//! leave that: |Σ| is at most 16 · 15 · 128 = 30,720. Codes of 8 bits count as two of 4.

#![expect(clippy::needless_range_loop, reason = "tiles index several arrays of registers by the same numbers")]

use std::arch::x86_64::*;

use super::{
    digits::{Record, split_bytes, split_pairs},
    kernel::{Kernel, Panels, Tile},
    packed::LANES,
    tile::{Dots, kernel, tile},
};
use crate::simd::Avx2;

pub(super) static PAIRS: Kernel = kernel::<2, Plain>(6);
pub(super) static BYTES: Kernel = kernel::<1, Plain>(6);
pub(super) static VNNI_PAIRS: Kernel = kernel::<2, Vnni>(6);
pub(super) static VNNI_BYTES: Kernel = kernel::<1, Vnni>(6);

/// By AVX2 alone.
struct Plain;
/// By AVX-VNNI.
struct Vnni;

/// Implements [`Dots`] in functions that enable `$features`.
macro_rules! dots {
    ($isa:ident, $features:literal, $digits:literal, $split:expr, $span:ident::<$vnni:literal>) => {
        // SAFETY: as the trait asks.
        unsafe impl Dots<$digits> for $isa {
            type S = Avx2;
            type I = __m256i;

            #[target_feature(enable = $features)]
            unsafe fn split(x: &[f32], out: &mut [u32]) {
                $split(x, out);
            }

            #[target_feature(enable = $features)]
            unsafe fn multiply<const BITS: usize, const SYMMETRIC: bool, const M: usize>(
                panels: Panels<'_>,
                x: *const u32,
                row_len: usize,
                out: &mut Tile,
            ) {
                // Where halves of codes have sums of their own, those of many rows take all registers with one vector.
                let halves = !$vnni && $digits == 1 && BITS == 8;
                // SAFETY: by the caller's promise.
                unsafe {
                    if halves && M > 3 {
                        tile::<$digits, Self, BITS, SYMMETRIC, M, 1>(panels, x, row_len, out);
                    } else {
                        tile::<$digits, Self, BITS, SYMMETRIC, M, 2>(panels, x, row_len, out);
                    }
                }
            }

            #[inline(always)]
            unsafe fn span<const BITS: usize, const SYMMETRIC: bool, const M: usize, const V: usize>(
                codes: *const u32,
                x: *const u32,
                row_len: usize,
            ) -> [[__m256i; V]; M] {
                // SAFETY: by the caller's promise.
                unsafe {
                    let mut sums = $span::<$vnni, BITS, M, V>(codes, x, row_len);
                    if SYMMETRIC {
                        for i in 0..M {
                            let sum = *x.add(i * row_len + Record::<$digits>::INTEGER_SUM);
                            let zero = _mm256_set1_epi32((sum << (BITS - 1)) as i32);
                            for v in 0..V {
                                sums[i][v] = _mm256_sub_epi32(sums[i][v], zero);
                            }
                        }
                    }
                    sums
                }
            }

            #[inline(always)]
            unsafe fn float(sums: __m256i) -> __m256 {
                // SAFETY: by the caller's promise.
                unsafe { _mm256_cvtepi32_ps(sums) }
            }
        }
    };
}

dots!(Plain, "avx2,fma,f16c", 2, split_pairs, pairs::<false>);
dots!(Plain, "avx2,fma,f16c", 1, split_bytes::<1>, bytes::<false>);
dots!(Vnni, "avx2,fma,f16c,avxvnni", 2, split_pairs, pairs::<true>);
dots!(Vnni, "avx2,fma,f16c,avxvnni", 1, split_bytes::<1>, bytes::<true>);

/// Vector `v` of word `n` of a span.
///
/// # Safety
/// The processor has AVX2; the word is there.
#[inline(always)]
unsafe fn word(codes: *const u32, n: usize, v: usize) -> __m256i {
    // SAFETY: by the caller's promise.
    unsafe { _mm256_loadu_si256(codes.add(n * LANES + v * 8).cast()) }
}

/// Word `n` of a record, in all lanes.
///
/// # Safety
/// The processor has AVX2; the word is there.
#[inline(always)]
unsafe fn broadcast(record: *const u32, n: usize) -> __m256i {
    // SAFETY: by the caller's promise.
    unsafe { _mm256_set1_epi32(*record.add(n) as i32) }
}

/// What [`Dots::span`] asks for, but for the zeros of symmetric weights; activations in pairs of i16.
///
/// # Safety
/// As [`Dots::span`]; the processor has AVX-VNNI, if `VNNI`.
#[inline(always)]
unsafe fn pairs<const VNNI: bool, const BITS: usize, const M: usize, const V: usize>(
    codes: *const u32,
    x: *const u32,
    row_len: usize,
) -> [[__m256i; V]; M] {
    // Pairs of columns in a word.
    let parts = 16 / BITS;
    // SAFETY: by the caller's promise.
    unsafe {
        let mut sums = [[_mm256_setzero_si256(); V]; M];
        for n in 0..BITS {
            for part in 0..parts {
                let mut pair = [_mm256_setzero_si256(); V];
                for v in 0..V {
                    let word = word(codes, n, v);
                    pair[v] = match (BITS, part) {
                        (8, 0) => _mm256_and_si256(word, _mm256_set1_epi16(255)),
                        (8, _) => _mm256_srli_epi16::<8>(word),
                        (_, 0) => _mm256_and_si256(word, _mm256_set1_epi16(15)),
                        (_, 1) => _mm256_and_si256(_mm256_srli_epi16::<8>(word), _mm256_set1_epi16(15)),
                        (_, 2) => _mm256_and_si256(_mm256_srli_epi16::<4>(word), _mm256_set1_epi16(15)),
                        _ => _mm256_srli_epi16::<12>(word),
                    };
                }
                for i in 0..M {
                    let x = broadcast(x.add(i * row_len), n * parts + part);
                    for v in 0..V {
                        sums[i][v] = if VNNI {
                            _mm256_dpwssd_avx_epi32(sums[i][v], pair[v], x)
                        } else {
                            _mm256_add_epi32(sums[i][v], _mm256_madd_epi16(pair[v], x))
                        };
                    }
                }
            }
        }
        sums
    }
}

/// What [`Dots::span`] asks for, but for the zeros of symmetric weights; activations of one digit.
///
/// # Safety
/// As [`Dots::span`]; the processor has AVX-VNNI, if `VNNI`.
#[inline(always)]
unsafe fn bytes<const VNNI: bool, const BITS: usize, const M: usize, const V: usize>(
    codes: *const u32,
    x: *const u32,
    row_len: usize,
) -> [[__m256i; V]; M] {
    // SAFETY: by the caller's promise.
    unsafe {
        let mut sums = [[_mm256_setzero_si256(); V]; M];
        // Of the upper halves of 8-bit codes.
        let mut upper_sums = sums;
        for n in 0..BITS {
            let (mut low, mut high) = ([_mm256_setzero_si256(); V], [_mm256_setzero_si256(); V]);
            for v in 0..V {
                let word = word(codes, n, v);
                if VNNI && BITS == 8 {
                    low[v] = word;
                } else {
                    low[v] = _mm256_and_si256(word, _mm256_set1_epi8(15));
                    high[v] = _mm256_and_si256(_mm256_srli_epi16::<4>(word), _mm256_set1_epi8(15));
                }
            }
            for i in 0..M {
                let x = x.add(i * row_len);
                let (first, last) = if BITS == 8 { (n, n) } else { (2 * n, 2 * n + 1) };
                let first = broadcast(x, first);
                for v in 0..V {
                    sums[i][v] = add_products::<VNNI>(sums[i][v], low[v], first);
                }
                let last = broadcast(x, last);
                for v in 0..V {
                    if BITS == 4 {
                        sums[i][v] = add_products::<VNNI>(sums[i][v], high[v], last);
                    } else if !VNNI {
                        upper_sums[i][v] = add_products::<VNNI>(upper_sums[i][v], high[v], last);
                    }
                }
            }
        }
        if !VNNI {
            for i in 0..M {
                for v in 0..V {
                    sums[i][v] = _mm256_madd_epi16(sums[i][v], _mm256_set1_epi16(1));
                    if BITS == 8 {
                        let upper = _mm256_madd_epi16(upper_sums[i][v], _mm256_set1_epi16(16));
                        sums[i][v] = _mm256_add_epi32(sums[i][v], upper);
                    }
                }
            }
        }
        sums
    }
}

/// Adds the products of unsigned `codes` and signed `x`, bytes: by fours to i32 if `VNNI`, else by twos to i16.
///
/// # Safety
/// The processor has AVX2 and, if `VNNI`, AVX-VNNI.
#[inline(always)]
unsafe fn add_products<const VNNI: bool>(sums: __m256i, codes: __m256i, x: __m256i) -> __m256i {
    // SAFETY: by the caller's promise.
    unsafe {
        if VNNI {
            _mm256_dpbusd_avx_epi32(sums, codes, x)
        } else {
            _mm256_add_epi16(sums, _mm256_maddubs_epi16(codes, x))
        }
    }
}
