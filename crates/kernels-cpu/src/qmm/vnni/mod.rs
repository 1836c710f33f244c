//! Affine codes of 4 and 8 bits by the byte dot products of AVX-512 VNNI.
//!
//! With `x` split into two digits (see [`super::digits`]) a lane of four bytes takes four products in two instructions, where
//! a fused multiply-add takes one in each. There are two ways through the weights:
//!
//! * [`rows`], for a row or two of `x`: lanes run along the columns, so that codes are used as they come from
//!   memory; decoding waits for memory, not for arithmetic;
//! * [`panels`], for more: lanes are 16 rows of weights, whose words are transposed once for the whole batch.
//!
//! Both do the same: a span's `Σ code · X` in integers, then one rounding to f32, then `sum + scale · 2⁻ᵉ · Σ code · X` and
//! `sum + bias · Σ x` with a rounding each. Spans `j, j + 4, j + 8, …` have a sum of their own for each `j` below 4, and the
//! four are added in order. So a row of `y` has the same bits whichever way it went.

mod panels;
mod rows;

use std::ops::Range;

use crate::{
    Pool,
    floats::Floats,
    gemm::{Number, task_rows},
    pool::SharedMut,
    quant::QuantMatrix,
    scratch,
};

use super::digits::{row_len, split};

/// Bytes of digits that one pass over a task's weights reads.
const X_BLOCK_BYTES: usize = 256 << 10;
/// Columns of `x` in a task of splitting.
const SPLIT_COLUMNS: usize = 4096;
/// Up to how many rows of `x` transposing the weights does not pay.
const FEW_ROWS: usize = 2;

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
    let row_len = row_len(w.cols);
    let mut digits = scratch::take(m * row_len);
    let chunk = SPLIT_COLUMNS.div_ceil(w.cols);
    pool.run_chunks(&mut digits, chunk * row_len, |first, digits| {
        let rows = x[first / row_len * w.cols..].chunks_exact(w.cols);
        for (x, digits) in rows.zip(digits.chunks_exact_mut(row_len)) {
            // SAFETY: by the caller's promise.
            unsafe { split::<BITS>(x, digits) }
        }
    });
    let product = Product { digits: &digits, row_len, m, w, y: SharedMut::new(y) };
    let task_rows = if m <= FEW_ROWS {
        task_rows(w.rows, w.row_words() * 4, m, pool.threads())
    } else {
        panels::task_rows(w.rows, pool.threads())
    };
    pool.run(w.rows.div_ceil(task_rows), |task| {
        let range = task * task_rows..w.rows.min((task + 1) * task_rows);
        // SAFETY: by the caller's promise; a task has the columns `range` of y to itself.
        unsafe {
            match (scales, biases) {
                (Floats::F32(scales), Floats::F32(biases)) => product.run::<BITS, _>(scales, biases, range),
                (Floats::F16(scales), Floats::F16(biases)) => product.run::<BITS, _>(scales, biases, range),
                (Floats::Bf16(scales), Floats::Bf16(biases)) => product.run::<BITS, _>(scales, biases, range),
                _ => unreachable!("`matmul` is given scales and biases of one kind"),
            }
        }
    });
}

/// What the tasks of one matmul share.
struct Product<'a> {
    /// `m` rows of `row_len`.
    digits: &'a [f32],
    row_len: usize,
    m: usize,
    w: &'a QuantMatrix<'a>,
    y: SharedMut<'a, f32>,
}

impl Product<'_> {
    /// The columns `range` of `y`.
    ///
    /// # Safety
    /// The processor has the target features, and nobody else touches the columns `range` of `y`.
    unsafe fn run<const BITS: usize, T: Number>(&self, scales: &[T], biases: &[T], range: Range<usize>) {
        let most = (X_BLOCK_BYTES / (4 * self.row_len)).max(panels::TILE);
        let block = if self.m <= most { self.m } else { most / panels::TILE * panels::TILE };
        for first in (0..self.m).step_by(block) {
            let batch = first..self.m.min(first + block);
            // SAFETY: by the caller's promise; the batch lies below m.
            unsafe {
                if self.m <= FEW_ROWS {
                    self.by_rows::<BITS, T>(scales, biases, range.clone(), batch);
                } else {
                    self.by_panels::<BITS, T>(scales, biases, range.clone(), batch);
                }
            }
        }
    }
}
