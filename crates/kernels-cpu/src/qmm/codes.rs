//! Rows of affine codes of 4 and 8 bits, dequantized in registers.

#![expect(clippy::needless_range_loop, reason = "tiles index several arrays of registers by the same numbers")]

use std::ops::Range;

use crate::{
    gemm::tile::{PREFETCH_BYTES, ROWS, Rows, by_columns},
    quant::QuantMatrix,
    simd::Simd,
};

/// Four rows of codes of `BITS` (4 or 8) bits with their scales and biases.
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

// SAFETY: reads the 2 · BITS bytes of the sixteen columns that hold `column`, and their group's numbers.
unsafe impl<const BITS: usize> Rows for Codes<BITS> {
    #[inline(always)]
    unsafe fn vector<S: Simd>(&self, r: usize, column: usize) -> S::V {
        let (unit, part) = (column / 16, column % 16 / S::LANES);
        // SAFETY: the column lies within the row by the caller's promise.
        unsafe {
            let bytes = self.rows[r].add(unit * 2 * BITS);
            let codes = if BITS == 4 { S::codes4(bytes, part) } else { S::codes8(bytes, part) };
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

    /// In spans of 32 columns, which share a scale and a bias; but where those are only two vectors, a vector at a time.
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
        // SAFETY: by the caller's promise; columns are a multiple of 32.
        unsafe {
            for span in 0..columns / 32 {
                // The four rows lie one after the other: this span's bytes of all four, that many bytes ahead.
                let bytes = span * 4 * BITS;
                for line in (0..ROWS * 4 * BITS).step_by(64) {
                    S::prefetch(self.rows[0].wrapping_add(PREFETCH_BYTES + ROWS * bytes + line));
                }
                let group = span * 32 >> self.group_shift;
                let x = x.add(span * 32);
                for r in 0..ROWS {
                    let (scale, bias) = (S::splat(*self.scales[r].add(group)), S::splat(*self.biases[r].add(group)));
                    let bytes = self.rows[r].add(bytes);
                    for unit in 0..2 {
                        let bytes = bytes.add(unit * 2 * BITS);
                        for part in 0..16 / S::LANES {
                            let codes = if BITS == 4 { S::codes4(bytes, part) } else { S::codes8(bytes, part) };
                            let weights = S::mul_add(codes, scale, bias);
                            let x = x.add(unit * 16 + part * S::LANES);
                            for i in 0..M {
                                sums[i][r] = S::mul_add(S::load(x.add(i * stride)), weights, sums[i][r]);
                            }
                        }
                    }
                }
            }
        }
    }
}
