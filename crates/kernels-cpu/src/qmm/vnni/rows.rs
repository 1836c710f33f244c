//! A few rows of `x`: four rows of weights at a time, lanes along the columns.

#![expect(clippy::needless_range_loop, reason = "tiles index several arrays of registers by the same numbers")]

use std::{arch::x86_64::*, ops::Range};

use crate::{
    gemm::{
        Number,
        tile::{PREFETCH_BYTES, ROWS, Target},
    },
    simd::{Avx512, Simd},
};

use super::{
    super::digits::{BLOCK, BLOCK_LEN, LOWER, POWERS, SPAN, SUMS},
    Product,
};

/// How many words ahead to ask for codes. The f32 tiles take longer over each and ask half as far; twice as far as this was
/// slower too, with 8-bit codes from main memory.
const PREFETCH_WORDS: usize = 2 * PREFETCH_BYTES / 4;

/// Four rows of weights.
struct Weights<T> {
    words: [*const u32; ROWS],
    scales: [*const T; ROWS],
    biases: [*const T; ROWS],
    cols: usize,
    group_size: usize,
}

impl Product<'_> {
    /// The columns `range` of the rows `batch` of `y`.
    ///
    /// # Safety
    /// The processor has the target features, nobody else touches the columns `range` of `y`, and `batch` lies below `m`.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma,f16c")]
    pub(super) unsafe fn by_rows<const BITS: usize, T: Number>(
        &self,
        scales: &[T],
        biases: &[T],
        range: Range<usize>,
        batch: Range<usize>,
    ) {
        let w = self.w;
        let (words, groups) = (w.row_words(), w.row_groups());
        for row in range.clone().step_by(ROWS) {
            let mut weights = Weights {
                words: [std::ptr::null(); ROWS],
                scales: [std::ptr::null(); ROWS],
                biases: [std::ptr::null(); ROWS],
                cols: w.cols,
                group_size: w.group_size,
            };
            for r in 0..ROWS {
                let row = (row + r).min(range.end - 1);
                weights.words[r] = w.packed[row * words..][..words].as_ptr();
                weights.scales[r] = scales[row * groups..][..groups].as_ptr();
                weights.biases[r] = biases[row * groups..][..groups].as_ptr();
            }
            let mut i = batch.start;
            while i < batch.end {
                // SAFETY: rows i .. of the digits and of y are there, and so are the columns from `row` on.
                unsafe {
                    let x = self.digits.as_ptr().add(i * self.row_len);
                    let target = Target::new(&self.y, i, w.rows, row, range.end);
                    if batch.end - i >= 2 {
                        target.put(0, tile::<BITS, T, 2>(&weights, x, self.row_len));
                        i += 2;
                    } else {
                        target.put(0, tile::<BITS, T, 1>(&weights, x, self.row_len));
                        i += 1;
                    }
                }
            }
        }
    }
}

/// Products of `M` rows of digits, `row_len` apart, with four rows of weights.
///
/// # Safety
/// The processor has the target features; `x` points to `M` rows of digits of the weights' columns.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma,f16c")]
unsafe fn tile<const BITS: usize, T: Number, const M: usize>(
    weights: &Weights<T>,
    x: *const f32,
    row_len: usize,
) -> [[f32; ROWS]; M] {
    let (words, groups) = (weights.cols * BITS / 32, weights.cols / weights.group_size);
    let zero = _mm512_setzero_si512();
    // Lane 4 j + r of all that follows is span j of a block and row r of the four.
    let lane_spans = _mm512_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3);
    let second_row = _mm512_setr_epi32(0, 16, 0, 16, 0, 16, 0, 16, 0, 16, 0, 16, 0, 16, 0, 16);
    let group_shift = _mm_cvtsi32_si128((weights.group_size / SPAN).trailing_zeros() as i32);
    let blocks_at_once = 16 * weights.group_size / BLOCK;
    let blocks = weights.cols.div_ceil(BLOCK);
    let mut sums = [_mm512_setzero_ps(); M];
    // SAFETY: by the caller's promise; masks keep the loads of words, scales and biases within their rows.
    unsafe {
        // Sixteen groups at a time: a vector of scales and one of biases for each row.
        for (first_group, first_block) in (0..groups).step_by(16).zip((0..blocks).step_by(blocks_at_once)) {
            let count = (groups - first_group).min(16);
            let mut scales = [_mm512_setzero_ps(); ROWS];
            let mut biases = scales;
            for r in 0..ROWS {
                scales[r] = T::load_first::<Avx512>(weights.scales[r].add(first_group), count);
                biases[r] = T::load_first::<Avx512>(weights.biases[r].add(first_group), count);
            }
            let mut spans = lane_spans;
            for block in first_block..blocks.min(first_block + blocks_at_once) {
                let places = _mm512_add_epi32(_mm512_srl_epi32(spans, group_shift), second_row);
                spans = _mm512_add_epi32(spans, _mm512_set1_epi32((BLOCK / SPAN) as i32));
                let scale = by_span(scales, places);
                let bias = by_span(biases, places);
                // A vector of words, and the sums of its quarters' products. For 8 bits a block has two, unless it ends early.
                let mut quarters = [[zero; 2]; M];
                for part in 0..BITS / 4 {
                    let word = (block * BITS / 4 + part) * 16;
                    if word >= words {
                        break;
                    }
                    let mask = (0xffff_u32 >> 16_usize.saturating_sub(words - word)) as __mmask16;
                    let mut codes = [zero; ROWS];
                    for r in 0..ROWS {
                        // The rows lie one after the other, and this block of them is 4 · 64 bytes.
                        let ahead = weights.words[0].wrapping_add(PREFETCH_WORDS + ROWS * word + 16 * r);
                        Avx512::prefetch(ahead.cast());
                        codes[r] = _mm512_maskz_loadu_epi32(mask, weights.words[r].add(word).cast());
                    }
                    for i in 0..M {
                        let x = x.add(i * row_len + block * BLOCK_LEN + 16 * part);
                        let mut dots = [zero; ROWS];
                        for r in 0..ROWS {
                            dots[r] = dot::<BITS>(codes[r], x);
                        }
                        quarters[i][part] = sums_of_quarters(dots);
                    }
                }
                for i in 0..M {
                    let x = x.add(i * row_len + block * BLOCK_LEN);
                    let mut dot = quarters[i][0];
                    if BITS == 8 {
                        // A span has two quarters of a vector.
                        let even = _mm512_shuffle_i32x4::<0b10_00_10_00>(dot, quarters[i][1]);
                        dot = _mm512_add_epi32(even, _mm512_shuffle_i32x4::<0b11_01_11_01>(dot, quarters[i][1]));
                    }
                    let scale = _mm512_mul_ps(scale, _mm512_loadu_ps(x.add(POWERS)));
                    sums[i] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(dot), scale, sums[i]);
                    sums[i] = _mm512_fmadd_ps(bias, _mm512_loadu_ps(x.add(SUMS)), sums[i]);
                }
            }
        }
        let mut results = [[0.0; ROWS]; M];
        for i in 0..M {
            let mut total = _mm_add_ps(_mm_setzero_ps(), _mm512_castps512_ps128(sums[i]));
            total = _mm_add_ps(total, _mm512_extractf32x4_ps::<1>(sums[i]));
            total = _mm_add_ps(total, _mm512_extractf32x4_ps::<2>(sums[i]));
            total = _mm_add_ps(total, _mm512_extractf32x4_ps::<3>(sums[i]));
            _mm_storeu_ps(results[i].as_mut_ptr(), total);
        }
        results
    }
}

/// `Σ code · X` in each lane of four bytes, for the words whose digits are at `x`.
///
/// # Safety
/// `x` points to the digits of a block of the layout for `BITS`, or of its part for these words.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
unsafe fn dot<const BITS: usize>(words: __m512i, x: *const f32) -> __m512i {
    let zero = _mm512_setzero_si512();
    // SAFETY: by the caller's promise.
    unsafe {
        let digits = |at: usize| _mm512_loadu_si512(x.add(at).cast());
        // |Σ| of a span is at most 32 · 255 · 32,639 < 2³¹.
        if BITS == 4 {
            let nibbles = _mm512_set1_epi8(15);
            let even = _mm512_and_si512(words, nibbles);
            let odd = _mm512_and_si512(_mm512_srli_epi32::<4>(words), nibbles);
            let upper = _mm512_dpbusd_epi32(_mm512_dpbusd_epi32(zero, even, digits(0)), odd, digits(16));
            let sum = _mm512_dpbusd_epi32(_mm512_slli_epi32::<8>(upper), even, digits(LOWER));
            _mm512_dpbusd_epi32(sum, odd, digits(LOWER + 16))
        } else {
            let upper = _mm512_dpbusd_epi32(zero, words, digits(0));
            _mm512_dpbusd_epi32(_mm512_slli_epi32::<8>(upper), words, digits(LOWER))
        }
    }
}

/// Of four rows' numbers those of a block, in lane `4 j + r` number `places[4 j + r]` of row `r` (plus 16 where `r` is odd).
#[inline]
#[target_feature(enable = "avx512f")]
fn by_span(rows: [__m512; ROWS], places: __m512i) -> __m512 {
    let first = _mm512_permutex2var_ps(rows[0], places, rows[1]);
    _mm512_mask_blend_ps(0b1100_1100_1100_1100, first, _mm512_permutex2var_ps(rows[2], places, rows[3]))
}

/// In lane `4 q + r` the sum of lanes `4 q .. 4 q + 4` of vector `r`.
#[inline]
#[target_feature(enable = "avx512f")]
fn sums_of_quarters(v: [__m512i; ROWS]) -> __m512i {
    let ab = _mm512_add_epi32(_mm512_unpacklo_epi32(v[0], v[1]), _mm512_unpackhi_epi32(v[0], v[1]));
    let cd = _mm512_add_epi32(_mm512_unpacklo_epi32(v[2], v[3]), _mm512_unpackhi_epi32(v[2], v[3]));
    _mm512_add_epi32(_mm512_unpacklo_epi64(ab, cd), _mm512_unpackhi_epi64(ab, cd))
}
