//! Dense matmul: `y = x · wᵀ` with f32 activations and f32, f16 or bf16 weights.
//!
//! Weights are widened (exactly) as they are loaded; sums are f32. On one processor and instruction set a row of `y`
//! is bit for bit the same whatever the number of rows of `x`, and whatever the number of threads.
//!
//! Few rows, narrow weights and short rows go through `tile`, over weights as they lie; many long rows of f32
//! through `panels`, which reads a third of the bytes for a product. Both add in the same order.

pub(crate) mod panels;
mod rows;
pub(crate) mod tile;

use std::ops::Range;

use crate::{
    Pool,
    floats::Floats,
    pool::SharedMut,
    rows::for_rows,
    simd::{
        Simd,
        kernel::{self, Kernel},
    },
};

pub(crate) use rows::{Number, Stored};
use tile::{ROWS, Target, column_of_tiles};

/// Bytes of `x` that one pass over a task's weights reads: they and the weights are to stay in a core's L2.
pub(crate) const X_BLOCK_BYTES: usize = 256 << 10;
/// Bytes of weights in a task: enough that claiming it costs nothing, few enough that the threads end together.
pub(crate) const TASK_BYTES: usize = 32 << 10;

/// Rows of `x`, and bytes of a row of f32 weights, from which packing pays: below, a tile's rows stay in a core's L1 as they
/// are. Narrower weights do as well without at every length. The result is the same either way.
const PANELS_FROM: usize = 48;
const PANEL_ROW_BYTES: usize = 3 << 10;

/// Products below which starting threads costs more than it saves (about 2 µs of work).
const INLINE: usize = 64 << 10;

/// A dense weight matrix `[rows, cols]`, row-major and borrowed; `rows` is the matmul's output size, `cols` its input size.
#[derive(Clone, Copy, Debug)]
pub struct DenseMatrix<'a> {
    data: Floats<'a>,
    rows: usize,
    cols: usize,
}

/// A dense matrix whose slice does not have the length of its shape.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a [{rows}, {cols}] matrix: {found} elements found, {} wanted", rows * cols)]
pub struct DenseError {
    rows: usize,
    cols: usize,
    found: usize,
}

impl<'a> DenseMatrix<'a> {
    /// A matrix of shape `[rows, cols]`.
    ///
    /// # Errors
    /// If `data` does not have `rows · cols` elements.
    pub fn new(data: impl Into<Floats<'a>>, [rows, cols]: [usize; 2]) -> Result<Self, DenseError> {
        let data = data.into();
        if data.len() == rows * cols {
            Ok(Self { data, rows, cols })
        } else {
            Err(DenseError { rows, cols, found: data.len() })
        }
    }

    /// The matmul's output size.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// The matmul's input size.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// The rows `range` as a matrix of their own.
    ///
    /// # Panics
    /// If they are not all there.
    #[must_use]
    pub fn row_range(&self, range: Range<usize>) -> Self {
        let data = self.data.range(range.start * self.cols..range.end * self.cols);
        Self { data, rows: range.len(), cols: self.cols }
    }

    /// The elements, row after row.
    pub fn data(&self) -> Floats<'a> {
        self.data
    }
}

/// `y = x · wᵀ`: `x` is `[m, w.cols()]`, `y` is `[m, w.rows()]`, both row-major; `m` follows from their lengths.
///
/// # Panics
/// If `x` is not a whole number of rows, or `y` does not have as many rows.
pub fn matmul(pool: &Pool, x: &[f32], w: &DenseMatrix, y: &mut [f32]) {
    let m = batch_rows(x.len(), [w.rows, w.cols], y.len());
    match w.data {
        Floats::F32(data) => matmul_of(pool, x, m, data, w, y),
        Floats::F16(data) => matmul_of(pool, x, m, data, w, y),
        Floats::Bf16(data) => matmul_of(pool, x, m, data, w, y),
    }
}

/// Widens the rows `rows` of `w` into `y`, `[rows.len(), cols]`: an embedding look-up.
///
/// # Panics
/// If a row number is not below `w.rows()`, or `y` does not have `rows.len() · w.cols()` elements.
pub fn widen_rows(pool: &Pool, w: &DenseMatrix, rows: &[u32], y: &mut [f32]) {
    assert_eq!(y.len(), rows.len() * w.cols, "y of {} rows of {} columns", rows.len(), w.cols);
    if let Some(&row) = rows.iter().find(|&&row| row as usize >= w.rows) {
        panic!("row {row} of a matrix of {} rows", w.rows);
    }
    if w.cols > 0 {
        let y = SharedMut::new(y);
        for_rows(pool, rows.len(), w.cols, |range| {
            for i in range {
                // SAFETY: each row is visited once.
                let out = unsafe { y.slice(i * w.cols..(i + 1) * w.cols) };
                w.data.widen(rows[i] as usize * w.cols, out);
            }
        });
    }
}

/// The number of rows of `x`, once all three shapes are seen to fit.
pub(crate) fn batch_rows(x: usize, [rows, cols]: [usize; 2], y: usize) -> usize {
    let m = x.checked_div(cols).or(y.checked_div(rows)).unwrap_or(0);
    assert!(
        x == m * cols && y == m * rows,
        "matmul by a [{rows}, {cols}] matrix: x has {x} elements and y {y}; {m} rows want {} and {}",
        m * cols,
        m * rows,
    );
    m
}

fn matmul_of<T: Number + Sync>(pool: &Pool, x: &[f32], m: usize, data: &[T], w: &DenseMatrix, y: &mut [f32]) {
    let (rows, cols) = (w.rows, w.cols);
    if m == 0 || rows == 0 {
        return;
    }
    if m >= PANELS_FROM && size_of::<T>() == 4 && 4 * cols >= PANEL_ROW_BYTES {
        let y = panels::Target { y: SharedMut::new(y), start: 0, stride: rows };
        return panels::matmul(pool, &panels::Matrix { data: x, columns: cols }, m, cols, data, y);
    }
    let task_rows = match m * rows * cols {
        ..=INLINE => rows,
        _ => task_rows(rows, cols * size_of::<T>(), m, pool.threads()),
    };
    let y = SharedMut::new(y);
    pool.run(rows.div_ceil(task_rows), |task| {
        let range = task * task_rows..rows.min((task + 1) * task_rows);
        // A task writes the columns `range` of y, no other task does, and `batch_rows` has seen that x and y have m rows:
        // that is what the kernel asks for.
        kernel::run(pool, DenseTask { x, m, data, rows, cols, range, y });
    });
}

/// How many rows of weights a task takes: a multiple of a tile's, and such that tasks are about [`TASK_BYTES`] of weights
/// or, where `m` makes them long, a few for each thread.
pub(crate) fn task_rows(rows: usize, row_bytes: usize, m: usize, threads: usize) -> usize {
    let by_bytes = TASK_BYTES.div_ceil(row_bytes.max(1));
    let by_threads = rows.div_ceil(threads * 4);
    let most = if m > 8 { 64 } else { usize::MAX };
    by_bytes.min(by_threads).min(most).next_multiple_of(ROWS)
}

/// The columns `range` of `y`.
struct DenseTask<'a, T> {
    x: &'a [f32],
    m: usize,
    data: &'a [T],
    rows: usize,
    cols: usize,
    range: Range<usize>,
    y: SharedMut<'a, f32>,
}

impl<T: Number> Kernel for DenseTask<'_, T> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let Self { x, m, data, rows, cols, range, y } = self;
        let block = x_block(cols, S::TILE);
        for first in (0..m).step_by(block) {
            let count = block.min(m - first);
            for row in range.clone().step_by(ROWS) {
                let w = Stored::new(data, row, rows, cols);
                // SAFETY: by the caller's promise; rows first .. first + count of x and y are there, and the tile's
                // real rows end with the range.
                unsafe {
                    let target = Target::new(&y, first, rows, row, range.end);
                    column_of_tiles::<S, _>(w, x.as_ptr().add(first * cols), cols, count, cols, target);
                }
            }
        }
    }
}

/// How many rows of `x` to take in one pass over a task's weights: as many as L2 holds, in whole tiles.
pub(crate) fn x_block(cols: usize, tile: usize) -> usize {
    (X_BLOCK_BYTES / (cols * 4).max(1)).next_multiple_of(tile).max(tile)
}
