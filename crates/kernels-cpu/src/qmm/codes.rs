//! Rows of affine codes, dequantized in registers.

#![expect(clippy::needless_range_loop, reason = "tiles index several arrays of registers by the same numbers")]

use std::ops::Range;

use crate::{
    gemm::tile::{PREFETCH_BYTES, ROWS, Rows, by_columns},
    quant::QuantMatrix,
    simd::Simd,
};

/// Columns that fill whole words, whatever the bits: `BITS` words of them.
const SPAN: usize = 32;

/// Four rows of codes of `BITS` bits with their scales and biases.
#[derive(Clone, Copy)]
pub(super) struct Codes<const BITS: usize> {
    rows: [*const u8; ROWS],
    scales: [*const f32; ROWS],
    biases: [*const f32; ROWS],
    /// log₂ of the group size.
    group_shift: u32,
}

impl<const BITS: usize> Codes<BITS> {
    /// The rows `row .. row + 4` of `w`; rows at or beyond `range.end` repeat the last one below it. `scales` and
    /// `biases` are those of the rows `range`.
    #[inline(always)]
    pub(super) fn new(w: &QuantMatrix, scales: &[f32], biases: &[f32], range: Range<usize>, row: usize) -> Self {
        let (words, groups) = (w.row_words(), w.row_groups());
        let mut codes = Self {
            rows: [std::ptr::null(); ROWS],
            scales: [std::ptr::null(); ROWS],
            biases: [std::ptr::null(); ROWS],
            group_shift: w.group_size.trailing_zeros(),
        };
        for r in 0..ROWS {
            let row = (row + r).min(range.end - 1);
            let group = (row - range.start) * groups;
            codes.rows[r] = w.packed[row * words..][..words].as_ptr().cast();
            codes.scales[r] = scales[group..][..groups].as_ptr();
            codes.biases[r] = biases[group..][..groups].as_ptr();
        }
        codes
    }

    /// The dequantized rows, each of `cols`, one after the other.
    ///
    /// # Safety
    /// The processor has `S`, and the rows have `cols` columns.
    #[inline(always)]
    pub(super) unsafe fn unpack<S: Simd>(&self, cols: usize, out: &mut [f32]) {
        assert_eq!(out.len(), ROWS * cols);
        for r in 0..ROWS {
            for column in (0..cols).step_by(S::LANES) {
                // SAFETY: cols is a multiple of 32, hence of the lanes, and `out` has four rows of it.
                unsafe { S::store(out.as_mut_ptr().add(r * cols + column), self.vector::<S>(r, column)) }
            }
        }
    }
}

/// Vector `part` of the 32 codes at `span`, as f32.
///
/// # Safety
/// The processor has `S`, and the span's `4 · BITS` bytes are readable.
#[inline(always)]
unsafe fn codes<S: Simd, const BITS: usize>(span: *const u8, part: usize) -> S::V {
    let parts = 16 / S::LANES;
    // SAFETY: by the caller's promise; sixteen codes take 2 · BITS bytes.
    unsafe {
        match BITS {
            4 => S::codes4(span.add(part / parts * 8), part % parts),
            8 => S::codes8(span.add(part / parts * 16), part % parts),
            _ => S::codes::<BITS>(span, part),
        }
    }
}

// SAFETY: reads the bytes of the 32 columns that hold `column`, and their group's numbers.
unsafe impl<const BITS: usize> Rows for Codes<BITS> {
    #[inline(always)]
    unsafe fn vector<S: Simd>(&self, r: usize, column: usize) -> S::V {
        // SAFETY: the column lies within the row by the caller's promise.
        unsafe {
            let codes = codes::<S, BITS>(self.rows[r].add(column / SPAN * 4 * BITS), column % SPAN / S::LANES);
            let group = column >> self.group_shift;
            S::mul_add(codes, S::splat(*self.scales[r].add(group)), S::splat(*self.biases[r].add(group)))
        }
    }

    #[inline(always)]
    unsafe fn prefetch<S: Simd>(&self, column: usize) {
        // The four rows lie one after the other; sixteen columns of each are 8 · BITS bytes.
        S::prefetch(self.rows[0].wrapping_add(PREFETCH_BYTES + column / 16 * 8 * BITS));
    }

    #[inline(always)]
    unsafe fn partial<S: Simd>(&self, r: usize, column: usize, _n: usize) -> S::V {
        // SAFETY: as this function's. Columns are a multiple of 32, so that no vector is partial.
        unsafe { self.vector::<S>(r, column) }
    }

    /// Span by span, since a span shares a scale and a bias; but where it is only two vectors, a vector at a time.
    #[inline(always)]
    unsafe fn accumulate<S: Simd, const M: usize>(
        &self,
        x: *const f32,
        stride: usize,
        columns: usize,
        sums: &mut [[S::V; ROWS]; M],
    ) {
        if S::LANES == 16 {
            // SAFETY: by the caller's promise.
            return unsafe { by_columns::<S, Self, M>(self, x, stride, columns, sums) };
        }
        // SAFETY: by the caller's promise; columns are a multiple of a span.
        unsafe {
            for span in 0..columns / SPAN {
                // The four rows lie one after the other: this span's bytes of all four, that many bytes ahead.
                let bytes = span * 4 * BITS;
                for line in (0..ROWS * 4 * BITS).step_by(64) {
                    S::prefetch(self.rows[0].wrapping_add(PREFETCH_BYTES + ROWS * bytes + line));
                }
                let group = (span * SPAN) >> self.group_shift;
                let x = x.add(span * SPAN);
                for r in 0..ROWS {
                    let (scale, bias) = (S::splat(*self.scales[r].add(group)), S::splat(*self.biases[r].add(group)));
                    let bytes = self.rows[r].add(bytes);
                    for part in 0..SPAN / S::LANES {
                        let weights = S::mul_add(codes::<S, BITS>(bytes, part), scale, bias);
                        for i in 0..M {
                            let x = S::load(x.add(i * stride + part * S::LANES));
                            sums[i][r] = S::mul_add(x, weights, sums[i][r]);
                        }
                    }
                }
            }
        }
    }
}
