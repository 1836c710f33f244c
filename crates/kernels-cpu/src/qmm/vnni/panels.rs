//! A batch of `x`: panels of 16 rows of weights, one a lane, so that nothing need be summed across lanes.

#![expect(clippy::needless_range_loop, reason = "tiles index several arrays of registers by the same numbers")]

use std::{arch::x86_64::*, ops::Range};

use crate::{
    gemm::Number,
    quant::QuantMatrix,
    scratch,
    simd::{Avx512, Simd},
};

use super::{
    super::digits::{BLOCK_LEN, LOWER, POWERS, SPAN, SUMS},
    Product,
};

/// Rows of weights in a panel: the lanes of a vector.
const LANES: usize = 16;
/// Panels that a tile takes beside each other: each broadcast of digits then serves two dot products.
const PANELS: usize = 2;
/// Rows of weights of the panels.
const PANEL_ROWS: usize = PANELS * LANES;
/// Rows of `x` in a tile: with two panels, their dot products and sums leave registers for the operands.
pub(super) const TILE: usize = 6;
/// Vectors of codes, one byte each, of a span of a panel.
const VECTORS: usize = SPAN / 4;
/// f32 of a group's scales and biases of all panels.
const NUMBERS: usize = 2 * PANEL_ROWS;
/// Spans of a row that have a sum of their own; see [the module](super).
const SUMS_OF_ROW: usize = 4;

/// How many rows of weights a task takes: whole panels, and some tasks for each thread.
pub(super) fn task_rows(rows: usize, threads: usize) -> usize {
    rows.div_ceil(threads * 8).min(8 * PANEL_ROWS).next_multiple_of(PANEL_ROWS)
}

impl Product<'_> {
    /// The columns `range` of the rows `batch` of `y`.
    ///
    /// # Safety
    /// The processor has the target features, nobody else touches the columns `range` of `y`, and `batch` lies below `m`.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma,f16c")]
    pub(super) unsafe fn by_panels<const BITS: usize, T: Number>(
        &self,
        scales: &[T],
        biases: &[T],
        range: Range<usize>,
        batch: Range<usize>,
    ) {
        let w = self.w;
        let codes_len = w.cols / SPAN * PANELS * VECTORS * LANES;
        let numbers_len = w.row_groups().next_multiple_of(4) * NUMBERS;
        let widened_len = LANES * w.row_groups().next_multiple_of(LANES);
        let mut scratch = scratch::take(codes_len + numbers_len + widened_len);
        let (codes, rest) = scratch.split_at_mut(codes_len);
        let (numbers, widened) = rest.split_at_mut(numbers_len);
        for first in range.clone().step_by(PANEL_ROWS) {
            for panel in 0..PANELS {
                let mut rows = [0; LANES];
                for r in 0..LANES {
                    rows[r] = (first + panel * LANES + r).min(range.end - 1);
                }
                // SAFETY: the buffers have the lengths that these ask for.
                unsafe {
                    transpose_codes::<BITS>(w, &rows, &mut codes[panel * VECTORS * LANES..]);
                    transpose_numbers(scales, w.row_groups(), &rows, widened, &mut numbers[panel * LANES..]);
                    let biases_at = PANEL_ROWS + panel * LANES;
                    transpose_numbers(biases, w.row_groups(), &rows, widened, &mut numbers[biases_at..]);
                }
            }
            let panels = Panels {
                codes: codes.as_ptr(),
                numbers: numbers.as_ptr(),
                spans: w.cols / SPAN,
                group_shift: (w.group_size / SPAN).trailing_zeros(),
                rows: PANEL_ROWS.min(range.end - first),
                y_stride: w.rows,
            };
            let mut i = batch.start;
            while i < batch.end {
                // As many tiles as must be, and of sizes as even as can be.
                let tiles = (batch.end - i).div_ceil(TILE);
                let count = (batch.end - i).div_ceil(tiles);
                // SAFETY: rows i .. i + count of the digits and of y are there, and so are the columns from `first` on.
                unsafe {
                    let x = self.digits.as_ptr().add(i * self.row_len);
                    let y = self.y.as_ptr().add(i * w.rows + first);
                    match count {
                        1 => panels.tile::<BITS, 1>(x, self.row_len, y),
                        2 => panels.tile::<BITS, 2>(x, self.row_len, y),
                        3 => panels.tile::<BITS, 3>(x, self.row_len, y),
                        4 => panels.tile::<BITS, 4>(x, self.row_len, y),
                        5 => panels.tile::<BITS, 5>(x, self.row_len, y),
                        _ => panels.tile::<BITS, TILE>(x, self.row_len, y),
                    }
                }
                i += count;
            }
        }
    }
}

/// The codes of 16 rows, each four bytes in a lane, into `out`: [`VECTORS`] for each span, with room for all panels.
///
/// # Safety
/// The processor has the target features.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
unsafe fn transpose_codes<const BITS: usize>(w: &QuantMatrix, rows: &[usize; LANES], out: &mut [f32]) {
    let words = w.row_words();
    let mut starts = [std::ptr::null::<u32>(); LANES];
    for r in 0..LANES {
        starts[r] = w.packed[rows[r] * words..][..words].as_ptr().cast();
    }
    let nibbles = _mm512_set1_epi8(15);
    for (span, out) in out.chunks_mut(PANELS * VECTORS * LANES).enumerate() {
        assert!(out.len() >= VECTORS * LANES);
        let first = span * SPAN * BITS / 32;
        // SAFETY: a span has `BITS` words, which lie in the row, and `out` has its vectors.
        unsafe {
            // The same words of the panels that come next.
            for line in 0..LANES * BITS / 16 {
                let ahead = starts[0].wrapping_add(words * PANEL_ROWS + LANES * first + 16 * line);
                _mm_prefetch::<_MM_HINT_T1>(ahead.cast());
            }
            let mut store = |n: usize, v: __m512i| _mm512_store_si512(out.as_mut_ptr().add(n * LANES).cast(), v);
            for part in 0..BITS / 4 {
                let quad = transpose(&starts, first + 4 * part);
                for n in 0..4 {
                    if BITS == 4 {
                        store(n, _mm512_and_si512(quad[n], nibbles));
                        store(4 + n, _mm512_and_si512(_mm512_srli_epi32::<4>(quad[n]), nibbles));
                    } else {
                        store(4 * part + n, quad[n]);
                    }
                }
            }
        }
    }
}

/// The scales (or biases) of 16 rows, `groups` each, a lane a row, into `out`: one vector in every [`NUMBERS`] f32.
///
/// # Safety
/// The processor has the target features; `widened` has 16 rows, whole vectors each.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx2,fma,f16c")]
unsafe fn transpose_numbers<T: Number>(
    numbers: &[T],
    groups: usize,
    rows: &[usize; LANES],
    widened: &mut [f32],
    out: &mut [f32],
) {
    let row_len = groups.next_multiple_of(LANES);
    assert_eq!(widened.len(), LANES * row_len);
    let mut starts = [std::ptr::null::<u32>(); LANES];
    for (r, widened) in widened.chunks_exact_mut(row_len).enumerate() {
        let numbers = &numbers[rows[r] * groups..][..groups];
        for first in (0..groups).step_by(LANES) {
            // SAFETY: `load_first` stays within the row's numbers; a row of `widened` has whole vectors.
            unsafe {
                let v = T::load_first::<Avx512>(numbers.as_ptr().add(first), (groups - first).min(LANES));
                Avx512::store(widened.as_mut_ptr().add(first), v);
            }
        }
        starts[r] = widened.as_ptr().cast();
    }
    for (quad, out) in out.chunks_mut(4 * NUMBERS).enumerate() {
        // SAFETY: rows of `widened` have whole quads.
        let quad = unsafe { transpose(&starts, 4 * quad) };
        for (v, out) in quad.into_iter().zip(out.chunks_mut(NUMBERS)) {
            assert!(out.len() >= LANES);
            // SAFETY: as just seen.
            unsafe { _mm512_storeu_si512(out.as_mut_ptr().cast(), v) }
        }
    }
}

/// Words `first .. first + 4` of 16 rows, a vector each.
///
/// # Safety
/// The processor has AVX-512 F and DQ, and each row has these words.
#[inline]
#[target_feature(enable = "avx512f,avx512dq")]
unsafe fn transpose(rows: &[*const u32; LANES], first: usize) -> [__m512i; 4] {
    let mut v = [_mm512_setzero_si512(); 4];
    for i in 0..4 {
        // SAFETY: by the caller's promise.
        unsafe {
            let quad = |r: usize| _mm_loadu_si128(rows[r].add(first).cast());
            v[i] = _mm512_castsi128_si512(quad(i));
            v[i] = _mm512_inserti32x4::<1>(v[i], quad(4 + i));
            v[i] = _mm512_inserti32x4::<2>(v[i], quad(8 + i));
            v[i] = _mm512_inserti32x4::<3>(v[i], quad(12 + i));
        }
    }
    let (low, high) = (_mm512_unpacklo_epi32(v[0], v[1]), _mm512_unpackhi_epi32(v[0], v[1]));
    let (low2, high2) = (_mm512_unpacklo_epi32(v[2], v[3]), _mm512_unpackhi_epi32(v[2], v[3]));
    [
        _mm512_unpacklo_epi64(low, low2),
        _mm512_unpackhi_epi64(low, low2),
        _mm512_unpacklo_epi64(high, high2),
        _mm512_unpackhi_epi64(high, high2),
    ]
}

/// Panels as [`transpose_codes`] and [`transpose_numbers`] leave them.
struct Panels {
    codes: *const f32,
    /// For each group the scales of all panels, then the biases.
    numbers: *const f32,
    spans: usize,
    /// log₂ of the spans of a group.
    group_shift: u32,
    /// How many rows of weights are real; the others repeat the last one.
    rows: usize,
    y_stride: usize,
}

impl Panels {
    /// Products of `M` rows of digits, `row_len` apart, with the panels, into the `M` rows at `y`.
    ///
    /// # Safety
    /// The processor has the target features; `x` points to `M` rows of digits of as many spans; `self.rows` f32 are writable at each row of `y`.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma,f16c")]
    unsafe fn tile<const BITS: usize, const M: usize>(&self, x: *const f32, row_len: usize, y: *mut f32) {
        let zero = _mm512_setzero_si512();
        let mut totals = [[_mm512_setzero_ps(); PANELS]; M];
        // SAFETY: by the caller's promise; the panels have `spans` spans and their groups.
        unsafe {
            for j in 0..SUMS_OF_ROW {
                let mut sums = [[_mm512_setzero_ps(); PANELS]; M];
                for block in 0..(self.spans - j.min(self.spans)).div_ceil(SUMS_OF_ROW) {
                    let span = block * SUMS_OF_ROW + j;
                    let x = x.add(block * BLOCK_LEN);
                    let codes = self.codes.add(span * PANELS * VECTORS * LANES);
                    let mut dots = [[zero; PANELS]; M];
                    for digit in [0, LOWER] {
                        for n in 0..VECTORS {
                            let place = if BITS == 4 { 16 * (n / 4) + 4 * j + n % 4 } else { 8 * j + n };
                            let mut vectors = [zero; PANELS];
                            for p in 0..PANELS {
                                vectors[p] = _mm512_load_si512(codes.add((p * VECTORS + n) * LANES).cast());
                            }
                            for i in 0..M {
                                let digits = x.add(i * row_len + digit + place).cast::<i32>();
                                let digits = _mm512_set1_epi32(digits.read());
                                for p in 0..PANELS {
                                    dots[i][p] = _mm512_dpbusd_epi32(dots[i][p], vectors[p], digits);
                                }
                            }
                        }
                        if digit == 0 {
                            for i in 0..M {
                                for p in 0..PANELS {
                                    dots[i][p] = _mm512_slli_epi32::<8>(dots[i][p]);
                                }
                            }
                        }
                    }
                    let numbers = self.numbers.add((span >> self.group_shift) * NUMBERS);
                    for p in 0..PANELS {
                        let scale = _mm512_load_ps(numbers.add(p * LANES));
                        let bias = _mm512_load_ps(numbers.add(PANEL_ROWS + p * LANES));
                        for i in 0..M {
                            let x = x.add(i * row_len + 4 * j);
                            let scale = _mm512_mul_ps(scale, _mm512_set1_ps(*x.add(POWERS)));
                            sums[i][p] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(dots[i][p]), scale, sums[i][p]);
                            sums[i][p] = _mm512_fmadd_ps(bias, _mm512_set1_ps(*x.add(SUMS)), sums[i][p]);
                        }
                    }
                }
                for i in 0..M {
                    for p in 0..PANELS {
                        totals[i][p] = _mm512_add_ps(totals[i][p], sums[i][p]);
                    }
                }
            }
            for i in 0..M {
                for p in 0..PANELS {
                    let lanes = self.rows.saturating_sub(p * LANES).min(LANES);
                    Avx512::store_first(y.wrapping_add(i * self.y_stride + p * LANES), totals[i][p], lanes);
                }
            }
        }
    }
}
