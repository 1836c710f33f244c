//! The innermost loop: a few rows of `x` by one or two panels of weights.

#![expect(clippy::needless_range_loop, reason = "tiles index several arrays of registers by the same numbers")]

use std::arch::x86_64::*;

use super::super::{
    digits::{Record, SPAN, WORDS},
    kernel::{Multiply, PANELS, Panels, ROWS, Tile},
    packed::{LANES, Layout},
};
use crate::FloatKind;

/// How far ahead of the codes in use to fetch, in words.
const AHEAD: usize = 768;

/// The function for so many rows of `x` and panels.
pub(super) fn multiply(layout: &Layout, digits: usize, rows: usize, panels: usize) -> Multiply {
    match (digits, layout.bits, layout.symmetric) {
        (1, 4, false) => of_size::<4, 1, false>(rows, panels),
        (1, 4, true) => of_size::<4, 1, true>(rows, panels),
        (1, _, false) => of_size::<8, 1, false>(rows, panels),
        (1, _, true) => of_size::<8, 1, true>(rows, panels),
        (_, 4, false) => of_size::<4, 2, false>(rows, panels),
        (_, 4, true) => of_size::<4, 2, true>(rows, panels),
        (_, _, false) => of_size::<8, 2, false>(rows, panels),
        (_, _, true) => of_size::<8, 2, true>(rows, panels),
    }
}

fn of_size<const BITS: usize, const DIGITS: usize, const SYMMETRIC: bool>(rows: usize, panels: usize) -> Multiply {
    match (rows, panels) {
        (1, 1) => tile::<BITS, DIGITS, SYMMETRIC, 1, 1>,
        (1, _) => tile::<BITS, DIGITS, SYMMETRIC, 1, PANELS>,
        (2, _) => tile::<BITS, DIGITS, SYMMETRIC, 2, PANELS>,
        (3, _) => tile::<BITS, DIGITS, SYMMETRIC, 3, PANELS>,
        (4, _) => tile::<BITS, DIGITS, SYMMETRIC, 4, PANELS>,
        (5, _) => tile::<BITS, DIGITS, SYMMETRIC, 5, PANELS>,
        _ => tile::<BITS, DIGITS, SYMMETRIC, ROWS, PANELS>,
    }
}

/// See [`Multiply`].
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma,f16c")]
unsafe fn tile<const BITS: usize, const DIGITS: usize, const SYMMETRIC: bool, const M: usize, const P: usize>(
    Panels { layout, groups, starts }: Panels<'_>,
    x: *const u32,
    row_len: usize,
    out: &mut Tile,
) {
    let panel_words = groups * layout.group_words();
    let zero = _mm512_setzero_si512();
    let mut totals = [[_mm512_setzero_ps(); P]; M];
    let spans = layout.group_size / SPAN;
    let mut panels: [*const u32; P] = std::array::from_fn(|p| starts[p]);
    let mut x = x;
    // SAFETY: by the caller's promise: each group has its head and codes, each span its record.
    unsafe {
        for _ in 0..groups {
            let mut scales = [_mm512_setzero_ps(); P];
            let mut biases = scales;
            for p in 0..P {
                scales[p] = numbers(layout.kind, panels[p]);
                if !SYMMETRIC {
                    biases[p] = numbers(layout.kind, panels[p].add(layout.number_words()));
                }
                panels[p] = panels[p].add(layout.head_words());
            }
            for _ in 0..spans {
                let mut dots = [[zero; P]; M];
                for digit in 0..DIGITS {
                    // |Σ| of a span is at most 32 · 255 · 32,639 < 2³¹.
                    if digit > 0 {
                        for i in 0..M {
                            for p in 0..P {
                                dots[i][p] = _mm512_slli_epi32::<8>(dots[i][p]);
                            }
                        }
                    }
                    // Unpacked anew for each digit where registers are short.
                    let panels = if M > 3 { panels.map(opaque) } else { panels };
                    for n in 0..WORDS {
                        let mut codes = [zero; P];
                        for p in 0..P {
                            codes[p] = four_columns::<BITS>(panels[p], n);
                        }
                        for i in 0..M {
                            let digits = _mm512_set1_epi32(*x.add(i * row_len + digit * WORDS + n) as i32);
                            for p in 0..P {
                                dots[i][p] = _mm512_dpbusd_epi32(dots[i][p], codes[p], digits);
                            }
                        }
                    }
                }
                for i in 0..M {
                    let record = x.add(i * row_len);
                    let unit = _mm512_set1_ps(*record.add(Record::<DIGITS>::UNIT).cast());
                    for p in 0..P {
                        let mut dot = dots[i][p];
                        if SYMMETRIC {
                            let sum = _mm512_set1_epi32(*record.add(Record::<DIGITS>::INTEGER_SUM) as i32);
                            let zero =
                                if BITS == 4 { _mm512_slli_epi32::<3>(sum) } else { _mm512_slli_epi32::<7>(sum) };
                            dot = _mm512_sub_epi32(dot, zero);
                        }
                        let scale = _mm512_mul_ps(scales[p], unit);
                        totals[i][p] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(dot), scale, totals[i][p]);
                        if !SYMMETRIC {
                            let sum = _mm512_set1_ps(*record.add(Record::<DIGITS>::SUM).cast());
                            totals[i][p] = _mm512_fmadd_ps(biases[p], sum, totals[i][p]);
                        }
                    }
                }
                let mut ahead = panels[0].offset_from_unsigned(starts[0]) + AHEAD;
                if ahead >= panel_words {
                    // What comes after a panel here is not the one beside it.
                    ahead += (P - 1) * panel_words;
                }
                for p in 0..P {
                    for line in 0..BITS {
                        let line = starts[p].wrapping_add(ahead + line * LANES).cast();
                        // One stream is best fetched to L1, two to L2 (measured).
                        if P == 1 { _mm_prefetch::<_MM_HINT_T0>(line) } else { _mm_prefetch::<_MM_HINT_T1>(line) }
                    }
                    panels[p] = panels[p].add(BITS * LANES);
                }
                x = x.add(Record::<DIGITS>::LEN);
            }
        }
        for i in 0..M {
            for p in 0..P {
                _mm512_storeu_ps(out.0[i][p * LANES..].as_mut_ptr(), totals[i][p]);
            }
        }
    }
}

/// The same pointer, of which the compiler cannot know that it is: so that what is read through it is not kept in registers.
#[inline(always)]
#[expect(clippy::pointers_in_nomem_asm_block, reason = "nothing is read through it there")]
fn opaque(mut pointer: *const u32) -> *const u32 {
    // SAFETY: no instruction at all.
    unsafe { std::arch::asm!("/* {0} */", inout(reg) pointer, options(pure, nomem, nostack, preserves_flags)) };
    pointer
}

/// The codes of the `n`-th four columns of a span, as unsigned bytes.
///
/// # Safety
/// The processor has the target features; the span's codes of `BITS` bits lie at `codes`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
unsafe fn four_columns<const BITS: usize>(codes: *const u32, n: usize) -> __m512i {
    // SAFETY: by the caller's promise.
    unsafe {
        if BITS == 8 {
            return _mm512_loadu_si512(codes.add(n * LANES).cast());
        }
        let words = _mm512_loadu_si512(codes.add(n / 2 * LANES).cast());
        let words = if n.is_multiple_of(2) { words } else { _mm512_srli_epi32::<4>(words) };
        _mm512_and_si512(words, _mm512_set1_epi8(15))
    }
}

/// 16 scales or biases of a head.
///
/// # Safety
/// The processor has the target features; 16 numbers of that kind lie at `at`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
unsafe fn numbers(kind: FloatKind, at: *const u32) -> __m512 {
    // SAFETY: by the caller's promise.
    unsafe {
        match kind {
            FloatKind::F32 => _mm512_loadu_ps(at.cast()),
            FloatKind::F16 => _mm512_cvtph_ps(_mm256_loadu_si256(at.cast())),
            FloatKind::Bf16 => {
                let wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256(at.cast()));
                _mm512_castsi512_ps(_mm512_slli_epi32::<16>(wide))
            }
        }
    }
}
