//! Quantized matmul: `y = x · wᵀ` with f32 activations and quantized weights.
//!
//! Affine codes of any width are dequantized in registers, those of 4 and 8 bits by the shortest ways; codes that are floats
//! (MX, NV) by plain code, four rows at a time. All go into the tile of the dense matmul, and all are threaded.
//!
//! # What stays the same
//!
//! On one processor and instruction set a row of `y` is bit for bit the same whatever the number of threads, and whatever
//! stands beside it in the batch.
//!
//! # What is rounded
//!
//! Sums are f32 everywhere. On [`Isa::Avx512Vnni`], for affine codes of 4 and 8 bits, activations are rounded as well: each 32
//! of a row become 16-bit integers under a common power of two, so that none moves by more than 3.1·10⁻⁵ of
//! the largest of its 32 (f32 rounds 6·10⁻⁸ of itself, bf16 3.9·10⁻³). The products of such a group are then summed exactly.
//! A pool of [`Isa::Avx512`] (by [`Pool::with_isa`], or `VLLM_CPU_ISA=avx512`) takes activations as they are.

mod codes;
#[cfg(target_arch = "x86_64")]
mod digits;
#[cfg(target_arch = "x86_64")]
mod vnni;

use std::ops::Range;

use crate::{
    Isa, Pool,
    floats::Floats,
    gemm::{
        Number, Stored, batch_rows, task_rows,
        tile::{ROWS, Rows, Target, column_of_tiles},
        x_block,
    },
    pool::SharedMut,
    quant::{Groups, QuantMatrix},
    scratch::{self, with_scratch},
    simd::{
        Simd,
        kernel::{self, Kernel},
    },
};

use codes::Codes;

/// `y = x · wᵀ`: `x` is `[m, w.cols()]`, `y` is `[m, w.rows()]`, both row-major; `m` follows from their lengths.
///
/// # Panics
/// If `x` is not a whole number of rows, or `y` does not have as many rows.
pub fn quantized_matmul(pool: &Pool, x: &[f32], w: &QuantMatrix, y: &mut [f32]) {
    let m = batch_rows(x.len(), [w.rows, w.cols], y.len());
    if m == 0 || w.rows == 0 {
        return;
    }
    #[cfg(target_arch = "x86_64")]
    if let (Isa::Avx512Vnni, Groups::Affine { scales, biases }, 1..) = (pool.isa(), w.groups, w.cols)
        && scales.kind() == biases.kind()
    {
        // SAFETY: the pool vouches for the instruction set, `batch_rows` for the lengths of x and y.
        unsafe {
            match w.bits {
                4 => return vnni::matmul::<4>(pool, x, m, w, (scales, biases), y),
                8 => return vnni::matmul::<8>(pool, x, m, w, (scales, biases), y),
                _ => {}
            }
        }
    }
    let affine = matches!(w.groups, Groups::Affine { .. });
    let interleaved = matches!(pool.isa(), Isa::Avx512 | Isa::Avx512Vnni) && w.bits == 4 && affine;
    if interleaved {
        with_scratch(x.len(), |copy| {
            pool.run_chunks(copy, 1 << 14, |first, copy| interleave(&x[first..first + copy.len()], copy));
            by_tiles(pool, copy, m, w, y);
        });
    } else {
        by_tiles(pool, x, m, w, y);
    }
}

/// Each sixteen columns in the order in which the AVX-512 kernel unpacks sixteen 4-bit codes (see [`Simd::codes4`]).
fn interleave(x: &[f32], copy: &mut [f32]) {
    for (x, copy) in x.chunks_exact(16).zip(copy.chunks_exact_mut(16)) {
        for j in 0..8 {
            (copy[2 * j], copy[2 * j + 1]) = (x[j], x[8 + j]);
        }
    }
}

fn by_tiles(pool: &Pool, x: &[f32], m: usize, w: &QuantMatrix, y: &mut [f32]) {
    let task_rows = task_rows(w.rows, w.row_words() * 4, m, pool.threads());
    let y = SharedMut::new(y);
    pool.run(w.rows.div_ceil(task_rows), |task| {
        let range = task * task_rows..w.rows.min((task + 1) * task_rows);
        // A task writes the columns `range` of y, no other task does, and `batch_rows` has seen that x and y have m rows:
        // that is what the kernel asks for.
        kernel::run(pool, QuantTask { x, m, w: *w, range, y });
    });
}

/// The columns `range` of `y`.
struct QuantTask<'a> {
    x: &'a [f32],
    m: usize,
    w: QuantMatrix<'a>,
    range: Range<usize>,
    y: SharedMut<'a, f32>,
}

impl Kernel for QuantTask<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        // SAFETY: by the caller's promise.
        unsafe {
            match (self.w.groups, self.w.bits) {
                (Groups::Affine { scales, biases }, 2) => self.affine::<S, 2>(scales, biases),
                (Groups::Affine { scales, biases }, 3) => self.affine::<S, 3>(scales, biases),
                (Groups::Affine { scales, biases }, 4) => self.affine::<S, 4>(scales, biases),
                (Groups::Affine { scales, biases }, 5) => self.affine::<S, 5>(scales, biases),
                (Groups::Affine { scales, biases }, 6) => self.affine::<S, 6>(scales, biases),
                (Groups::Affine { scales, biases }, _) => self.affine::<S, 8>(scales, biases),
                (Groups::Float { .. }, _) => self.plain::<S>(),
            }
        }
    }
}

impl QuantTask<'_> {
    /// Affine codes: unpacked in registers for a single tile's worth of `x`, and once for each block of
    /// `x` where there is more. Both do the same arithmetic in the same order.
    ///
    /// # Safety
    /// As [`Kernel::run`].
    #[inline(always)]
    unsafe fn affine<S: Simd, const BITS: usize>(&self, scales: Floats, biases: Floats) {
        let (groups, cols) = (self.w.row_groups(), self.w.cols);
        let first_group = self.range.start * groups;
        let len = self.range.len() * groups;
        let mut scratch = scratch::take(2 * len + ROWS * cols);
        let (numbers, unpacked) = scratch.split_at_mut(2 * len);
        let (scales_f32, biases_f32) = numbers.split_at_mut(len);
        let block = if self.m <= S::TILE { S::TILE } else { x_block(cols, S::TILE) };
        // SAFETY: by the caller's promise; the codes' and numbers' lengths were checked when the matrix was made.
        unsafe {
            widen::<S>(scales, first_group, scales_f32);
            widen::<S>(biases, first_group, biases_f32);
            for first in (0..self.m).step_by(block) {
                let count = block.min(self.m - first);
                for row in self.range.clone().step_by(ROWS) {
                    let codes = Codes::<BITS>::new(&self.w, scales_f32, biases_f32, self.range.clone(), row);
                    if count <= S::TILE {
                        self.tiles::<S, _>(codes, first, count, row);
                    } else {
                        codes.unpack::<S>(cols, unpacked);
                        self.tiles::<S, _>(Stored::new(unpacked, 0, ROWS, cols), first, count, row);
                    }
                }
            }
        }
    }

    /// Codes that are floats, dequantized four rows at a time by plain code.
    ///
    /// # Safety
    /// As [`Kernel::run`].
    #[inline(always)]
    unsafe fn plain<S: Simd>(&self) {
        let cols = self.w.cols;
        let mut unpacked = scratch::take(ROWS * cols);
        for row in self.range.clone().step_by(ROWS) {
            for r in 0..ROWS {
                let row = (row + r).min(self.range.end - 1);
                self.w.dequantize_row(row, &mut unpacked[r * cols..(r + 1) * cols]);
            }
            // SAFETY: by the caller's promise.
            unsafe { self.tiles::<S, _>(Stored::new(&unpacked, 0, ROWS, cols), 0, self.m, row) }
        }
    }

    /// Rows `first .. first + count` of `x` with the four rows of weights from `row` on.
    ///
    /// # Safety
    /// As [`Kernel::run`].
    #[inline(always)]
    unsafe fn tiles<S: Simd, W: Rows>(&self, weights: W, first: usize, count: usize, row: usize) {
        let cols = self.w.cols;
        // SAFETY: by the caller's promise; the rows of x and y are there, and the tile's real rows end with the range.
        unsafe {
            let target = Target::new(&self.y, first, self.w.rows, row, self.range.end);
            column_of_tiles::<S, _>(weights, self.x.as_ptr().add(first * cols), cols, count, cols, target);
        }
    }
}

/// Widens `out.len()` numbers from `start` on.
///
/// # Safety
/// The processor has `S`.
#[inline(always)]
pub(crate) unsafe fn widen<S: Simd>(numbers: Floats, start: usize, out: &mut [f32]) {
    // SAFETY: by the caller's promise.
    unsafe {
        match numbers {
            Floats::F32(v) => out.copy_from_slice(&v[start..start + out.len()]),
            Floats::F16(v) => widen_from::<S, _>(&v[start..start + out.len()], out),
            Floats::Bf16(v) => widen_from::<S, _>(&v[start..start + out.len()], out),
        }
    }
}

#[inline(always)]
unsafe fn widen_from<S: Simd, T: Number>(numbers: &[T], out: &mut [f32]) {
    debug_assert_eq!(numbers.len(), out.len());
    let whole = out.len() - out.len() % S::LANES;
    // SAFETY: the processor has S by the caller's promise; both slices have `out.len()` elements.
    unsafe {
        for i in (0..whole).step_by(S::LANES) {
            S::store(out.as_mut_ptr().add(i), T::load::<S>(numbers.as_ptr().add(i)));
        }
        let rest = out.len() - whole;
        S::store_first(out.as_mut_ptr().add(whole), T::load_first::<S>(numbers.as_ptr().add(whole), rest), rest);
    }
}
