//! Affine codes of 4 and 8 bits by the byte dot products of AVX-512 VNNI.
//!
//! With `x` split into digits (see [`super::digits`]) a lane of four bytes takes four products in one instruction, where a
//! fused multiply-add takes one: three digits make that a third more per instruction, and unpacking a code costs a
//! shift and two masks for each 128 instead of a look-up for each 16. Decoding is then bound by memory, not by arithmetic.

#![expect(clippy::needless_range_loop, reason = "tiles index several arrays of registers by the same numbers")]

use std::arch::x86_64::*;
use std::ops::Range;

use crate::{
    Pool,
    floats::Floats,
    gemm::{
        Number, task_rows,
        tile::{PREFETCH_BYTES, ROWS, Target},
    },
    pool::SharedMut,
    quant::QuantMatrix,
    scratch,
    simd::{Avx512, Simd},
};

use super::digits::{Layout, split};

/// Rows of `x` in a tile: with four rows of weights, their digits and their sums, all that 32 registers hold.
const TILE: usize = 2;
/// Bytes of digits that one pass over a task's weights reads.
const X_BLOCK_BYTES: usize = 256 << 10;

/// `y = x · wᵀ` for affine weights of `BITS` (4 or 8) bits.
///
/// # Safety
/// The processor has AVX-512 F, BW, VL, DQ and VNNI; scales and biases are of one kind; `x` has `m` rows of `w.cols`, `y` has `m` of `w.rows`.
pub(super) unsafe fn matmul<const BITS: usize>(
    pool: &Pool,
    x: &[f32],
    m: usize,
    w: &QuantMatrix,
    (scales, biases): (Floats, Floats),
    y: &mut [f32],
) {
    let layout = Layout::new(BITS, w.cols, w.group_size);
    let row_len = layout.row_len();
    let mut digits = scratch::take(m * row_len);
    let chunk = 4096_usize.div_ceil(w.cols.max(1));
    pool.run_chunks(&mut digits, chunk * row_len, |first, digits| {
        let rows = x[first / row_len * w.cols..].chunks_exact(w.cols);
        for (x, digits) in rows.zip(digits.chunks_exact_mut(row_len)) {
            // SAFETY: by the caller's promise.
            unsafe { split::<BITS>(x, &layout, digits) }
        }
    });
    let digits = &*digits;
    let tiles = Tiles { digits, layout, m, w, y: SharedMut::new(y) };
    let task_rows = task_rows(w.rows, w.row_words() * 4, m, pool.threads());
    pool.run(w.rows.div_ceil(task_rows), |task| {
        let range = task * task_rows..w.rows.min((task + 1) * task_rows);
        // SAFETY: by the caller's promise; a task has the columns `range` of y to itself.
        unsafe {
            match (scales, biases) {
                (Floats::F32(scales), Floats::F32(biases)) => tiles.run::<BITS, _>(scales, biases, range),
                (Floats::F16(scales), Floats::F16(biases)) => tiles.run::<BITS, _>(scales, biases, range),
                (Floats::Bf16(scales), Floats::Bf16(biases)) => tiles.run::<BITS, _>(scales, biases, range),
                _ => unreachable!("`matmul` is given scales and biases of one kind"),
            }
        }
    });
}

/// What the tasks of one matmul share.
struct Tiles<'a> {
    /// `m` rows of `layout`.
    digits: &'a [f32],
    layout: Layout,
    m: usize,
    w: &'a QuantMatrix<'a>,
    y: SharedMut<'a, f32>,
}

impl Tiles<'_> {
    /// The columns `range` of `y`.
    ///
    /// # Safety
    /// The processor has the target features, and nobody else touches the columns `range` of `y`.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma,f16c")]
    unsafe fn run<const BITS: usize, T: Number>(&self, scales: &[T], biases: &[T], range: Range<usize>) {
        let Self { digits, layout, m, w, y } = self;
        let (groups, row_len) = (w.row_groups(), layout.row_len());
        let block = (X_BLOCK_BYTES / (4 * row_len)).next_multiple_of(TILE).max(TILE);
        for first in (0..*m).step_by(block) {
            let end = *m.min(&(first + block));
            for row in range.clone().step_by(ROWS) {
                let mut weights = Weights {
                    words: [std::ptr::null(); ROWS],
                    scales: [std::ptr::null(); ROWS],
                    biases: [std::ptr::null(); ROWS],
                };
                for r in 0..ROWS {
                    let row = (row + r).min(range.end - 1);
                    weights.words[r] = w.packed[row * w.row_words()..][..w.row_words()].as_ptr();
                    weights.scales[r] = scales[row * groups..][..groups].as_ptr();
                    weights.biases[r] = biases[row * groups..][..groups].as_ptr();
                }
                let mut i = first;
                while i < end {
                    // SAFETY: rows i .. of the digits and of y are there, and so are the columns from `row` on.
                    unsafe {
                        let x = digits.as_ptr().add(i * row_len);
                        let target = Target::new(y, i, w.rows, row, range.end);
                        if end - i >= TILE {
                            target.put(0, tile::<BITS, T, TILE>(&weights, layout, x));
                        } else {
                            target.put(0, tile::<BITS, T, 1>(&weights, layout, x));
                        }
                    }
                    i += TILE;
                }
            }
        }
    }
}

/// Four rows of weights.
struct Weights<T> {
    words: [*const u32; ROWS],
    scales: [*const T; ROWS],
    biases: [*const T; ROWS],
}

/// Products of `M` rows of digits with four rows of weights.
///
/// # Safety
/// The processor has the target features; `x` points to `M` rows of `layout`, and the weights to rows of its shape.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma,f16c")]
unsafe fn tile<const BITS: usize, T: Number, const M: usize>(
    weights: &Weights<T>,
    layout: &Layout,
    x: *const f32,
) -> [[f32; ROWS]; M] {
    let row_len = layout.row_len();
    let (words, groups) = (layout.cols * BITS / 32, layout.cols / layout.group_size);
    let nibbles = _mm512_set1_epi8(15);
    let group_shift = _mm_cvtsi32_si128(layout.group_size.trailing_zeros() as i32);
    // The first column of each lane of four bytes.
    let lanes = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    let lane_columns = _mm512_mullo_epi32(lanes, _mm512_set1_epi32(32 / BITS as i32));
    let mut sums = [[_mm512_setzero_ps(); ROWS]; M];
    let mut word = 0;
    // SAFETY: by the caller's promise; masks keep the loads of words, scales and biases within their rows.
    unsafe {
        // Sixteen groups at a time: a vector of scales and one of biases for each row.
        for first_group in (0..groups).step_by(16) {
            let count = (groups - first_group).min(16);
            let mut scales = [_mm512_setzero_ps(); ROWS];
            for r in 0..ROWS {
                scales[r] = T::load_first::<Avx512>(weights.scales[r].add(first_group), count);
                let biases = T::load_first::<Avx512>(weights.biases[r].add(first_group), count);
                for i in 0..M {
                    let x_sums = _mm512_loadu_ps(x.add(i * row_len + layout.sums() + first_group));
                    sums[i][r] = _mm512_fmadd_ps(biases, x_sums, sums[i][r]);
                }
            }
            let end = word + count * layout.group_size * BITS / 32;
            let mut columns = lane_columns;
            while word < end {
                let mask = (0xffff_u32 >> 16_usize.saturating_sub(words - word)) as __mmask16;
                let lane_group = _mm512_srl_epi32(columns, group_shift);
                columns = _mm512_add_epi32(columns, _mm512_set1_epi32(512 / BITS as i32));
                let mut low = [_mm512_setzero_si512(); ROWS];
                let mut high = low;
                let mut scale = [_mm512_setzero_ps(); ROWS];
                for r in 0..ROWS {
                    // The rows lie one after the other, and this block of them is 4 · 64 bytes.
                    let ahead = weights.words[0].wrapping_add(PREFETCH_BYTES / 4 + ROWS * word + 16 * r);
                    Avx512::prefetch(ahead.cast());
                    let codes = _mm512_maskz_loadu_epi32(mask, weights.words[r].add(word).cast());
                    if BITS == 4 {
                        low[r] = _mm512_and_si512(codes, nibbles);
                        high[r] = _mm512_and_si512(_mm512_srli_epi32::<4>(codes), nibbles);
                    } else {
                        low[r] = codes;
                    }
                    scale[r] = _mm512_permutexvar_ps(lane_group, scales[r]);
                }
                for i in 0..M {
                    let x = x.add(i * row_len + word / 16 * layout.block_len);
                    let power = _mm512_loadu_ps(x.add(layout.block_len - 16));
                    for r in 0..ROWS {
                        let value = dot::<BITS>(low[r], high[r], x);
                        sums[i][r] = _mm512_fmadd_ps(value, _mm512_mul_ps(scale[r], power), sums[i][r]);
                    }
                }
                word += 16;
            }
        }
        let mut results = [[0.0; ROWS]; M];
        for i in 0..M {
            results[i] = Avx512::sums(sums[i]);
        }
        results
    }
}

/// `Σ code · X` in each lane of four bytes, for the block of digits at `x`.
///
/// # Safety
/// A block of the layout for `BITS` is readable at `x`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
unsafe fn dot<const BITS: usize>(low: __m512i, high: __m512i, x: *const f32) -> __m512 {
    let zero = _mm512_setzero_si512();
    // SAFETY: by the caller's promise.
    unsafe {
        let digit = |n: usize| _mm512_loadu_si512(x.add(16 * n).cast());
        if BITS == 4 {
            // |Σ| ≤ 8 · 15 · 8,355,711 < 2³¹.
            let sum = _mm512_dpbusd_epi32(zero, low, digit(0));
            let sum = _mm512_slli_epi32::<8>(_mm512_dpbusd_epi32(sum, high, digit(1)));
            let sum = _mm512_dpbusd_epi32(sum, low, digit(2));
            let sum = _mm512_slli_epi32::<8>(_mm512_dpbusd_epi32(sum, high, digit(3)));
            let sum = _mm512_dpbusd_epi32(sum, low, digit(4));
            _mm512_cvtepi32_ps(_mm512_dpbusd_epi32(sum, high, digit(5)))
        } else {
            // Four codes of 8 bits times three digits need 34 bits: the last digit goes alone.
            let sum = _mm512_slli_epi32::<8>(_mm512_dpbusd_epi32(zero, low, digit(0)));
            let upper = _mm512_cvtepi32_ps(_mm512_dpbusd_epi32(sum, low, digit(1)));
            let lower = _mm512_cvtepi32_ps(_mm512_dpbusd_epi32(zero, low, digit(2)));
            _mm512_fmadd_ps(upper, _mm512_set1_ps(256.0), lower)
        }
    }
}
