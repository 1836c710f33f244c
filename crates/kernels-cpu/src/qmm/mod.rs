//! Quantized matmul: `y = x · wᵀ` with f32 activations and quantized weights.
//!
//! There are two ways:
//!
//! * [`packed_matmul`] and [`gated_matmul`] take a [`PackedMatrix`]: affine codes of 4 or 8 bits, brought once into the order in which
//!   byte dot products read them. Activations become integers.
//! * [`quantized_matmul`] takes a [`QuantMatrix`] of any format as it lies in the file. Affine codes are dequantized in registers,
//!   those of 4 and 8 bits by the shortest ways; codes that are floats (MX, NV) by plain code, four rows at a time. All go
//!   into the tile of the dense matmul.
//!
//! # What stays the same
//!
//! On one processor and instruction set a row of `y` is bit for bit the same whatever the number of threads, and whatever
//! stands beside it in the batch or in the job. By packed weights it is the same on every instruction set that has kernels for them.
//!
//! # What is rounded
//!
//! Sums are f32 everywhere. With packed weights activations are rounded as well: each 32 of a row (a *span*) become integers
//! under a common unit. By default ([`Activations::Int16`]) none moves by more than 3.1·10⁻⁵ of the largest of its 32 (f32
//! rounds 6·10⁻⁸ of itself, bf16 3.9·10⁻³), with [`Activations::Int8`] by 3.9·10⁻³ of it. The products of a span are then summed
//! exactly. Hence, with `eps` one of these and `max_s` the largest of span `s`,
//!
//! `|y − x · wᵀ| ≤ eps · Σ_s max_s · Σ_{c in s} |w_c|  +  5·10⁻⁷ · Σ_c |x_c| · (|scale · code_c| + |bias|)`
//!
//! where the second sum stands for the roundings of f32 (its factor grows with the number of spans; this one is good for
//! some thousand columns). A pool of [`Activations::F32`] packs nothing and has the second sum alone.

mod activations;
#[cfg(target_arch = "x86_64")]
mod avx2;
mod codes;
mod digits;
mod integer;
mod kernel;
#[cfg(target_arch = "aarch64")]
mod neon;
mod packed;
mod tile;
#[cfg(target_arch = "x86_64")]
mod vnni;

use std::ops::Range;

use crate::{
    Activation, Isa, Pool,
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
        kernel::{self as simd_kernel, Kernel},
    },
};

pub use activations::Activations;
use codes::Codes;
pub use packed::PackedMatrix;

/// A linear layer of packed weights: `x → x · wᵀ + bias`.
#[derive(Clone, Copy)]
pub struct Linear<'a> {
    /// `w`, [outputs, inputs].
    pub w: &'a PackedMatrix,
    /// `[outputs]`
    pub bias: Option<&'a [f32]>,
}

impl<'a> Linear<'a> {
    /// Without a bias.
    #[must_use]
    pub fn plain(w: &'a PackedMatrix) -> Self {
        Self { w, bias: None }
    }

    fn check(&self) {
        let found = self.bias.map_or(self.w.rows(), <[f32]>::len);
        assert_eq!(found, self.w.rows(), "a bias of {found} for {} outputs", self.w.rows());
    }
}

/// `ys[i] = x · wᵀ + bias` for several layers of the same `x`, as one job: `x` is `[m, cols]`, each `y` is `[m, w.rows()]`, all
/// row-major; `m` follows from their lengths.
///
/// # Panics
/// If `x` is not a whole number of rows, a layer has other columns than the first, a `y` not as many rows as `x`, a bias not as
/// many numbers as its weights have rows; or if `pool` is not one for which weights are packed.
pub fn packed_matmul(pool: &Pool, x: &[f32], layers: &[Linear], ys: &mut [&mut [f32]]) {
    assert_eq!(layers.len(), ys.len(), "{} layers for {} results", layers.len(), ys.len());
    for (layer, y) in layers.iter().zip(&*ys) {
        layer.check();
        assert_eq!(layer.w.cols(), layers[0].w.cols(), "layers of one x");
        batch_rows(x.len(), [layer.w.rows(), layer.w.cols()], y.len());
    }
    if x.is_empty() || layers.is_empty() {
        ys.iter_mut().zip(layers).for_each(|(y, layer)| fill_rows(y, layer.bias));
        return;
    }
    // SAFETY: the lengths were just checked.
    unsafe { integer::matmul(pool, x, layers, ys) }
}

/// `y = activation(gate(x)) · up(x)`, as one job: the inner part of a gated MLP. `x` is `[m, cols]`, `y` is `[m, rows]`.
///
/// # Panics
/// As [`packed_matmul`], and if the layers differ in shape.
pub fn gated_matmul(pool: &Pool, x: &[f32], [gate, up]: [Linear; 2], activation: Activation, y: &mut [f32]) {
    let shapes = [gate, up].map(|layer| [layer.w.rows(), layer.w.cols()]);
    assert_eq!(shapes[0], shapes[1], "shapes of gate and up");
    [gate, up].iter().for_each(Linear::check);
    batch_rows(x.len(), shapes[0], y.len());
    if !x.is_empty() && !y.is_empty() {
        // SAFETY: the lengths were just checked.
        unsafe { integer::gated(pool, x, [gate, up], activation, y) }
    }
}

fn fill_rows(y: &mut [f32], bias: Option<&[f32]>) {
    match bias {
        Some(bias) if !bias.is_empty() => y.chunks_exact_mut(bias.len()).for_each(|row| row.copy_from_slice(bias)),
        _ => y.fill(0.0),
    }
}

/// `y = x · wᵀ`: `x` is `[m, w.cols()]`, `y` is `[m, w.rows()]`, both row-major; `m` follows from their lengths.
///
/// # Panics
/// If `x` is not a whole number of rows, or `y` does not have as many rows.
pub fn quantized_matmul(pool: &Pool, x: &[f32], w: &QuantMatrix, y: &mut [f32]) {
    let m = batch_rows(x.len(), [w.rows, w.cols], y.len());
    if m == 0 || w.rows == 0 {
        return;
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
        simd_kernel::run(pool, QuantTask { x, m, w: *w, range, y });
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
