//! Matmuls of many rows: both operands packed into panels, so that a tile reads each number once from memory that lies in
//! the order of its use (Goto & van de Geijn, 2008, doi:10.1145/1356052.1356053).
//!
//! A tile holds [`Simd::PANEL_ROWS`] rows of `x` by [`Simd::PANEL_VECTORS`] vectors of weights, a row of weights in each lane; a step
//! multiplies one column of both. What sets it apart from the textbook is the order of columns. The tile for few rows
//! ([`super::tile`]) has columns in its lanes and adds the lanes at the end; to give the same bits, this one takes
//! the columns of lane 0 first (0, 16, 32 …), then those of the next lane, and adds these sums by the same tree. Packing in
//! that order costs nothing.

#![expect(clippy::needless_range_loop, reason = "tiles index several arrays of registers by the same numbers")]

use std::ops::Range;

use crate::{
    Pool,
    pool::SharedMut,
    scratch::{self, with_scratch},
    simd::{
        Simd,
        kernel::{self, Kernel},
        transpose,
    },
};

use super::rows::Number;

/// Bytes of `x` that are packed at a time.
const X_BYTES: usize = 4 << 20;
/// Rows of `x` below which a task would spend too much of its time packing weights.
const TASK_X_ROWS: usize = 96;
/// The most lanes a vector has, and the depth of their tree.
const LANES: usize = 16;
const LEVELS: usize = 4;

/// The rows of a left operand, wherever they come from.
pub(crate) trait Source: Sync {
    /// Row `i`: `columns` numbers, which may have been put into `room`, as long.
    fn row<'a>(&'a self, i: usize, room: &'a mut [f32]) -> &'a [f32];
}

/// Rows that lie one after the other.
pub(crate) struct Matrix<'a> {
    pub(crate) data: &'a [f32],
    pub(crate) columns: usize,
}

impl Source for Matrix<'_> {
    #[inline(always)]
    fn row<'a>(&'a self, i: usize, _room: &'a mut [f32]) -> &'a [f32] {
        &self.data[i * self.columns..(i + 1) * self.columns]
    }
}

/// Where the results go: row `i` of `x` by row `r` of `w` to `y[i · stride + r]`.
#[derive(Clone, Copy)]
pub(crate) struct Target<'a> {
    pub(crate) y: SharedMut<'a, f32>,
    /// Of row 0 by row 0.
    pub(crate) start: usize,
    pub(crate) stride: usize,
}

/// `y = x · wᵀ` for `m` rows of `x` and as many rows of weights, of `columns` each, as `w` holds.
///
/// # Panics
/// If `y` has no room for them.
pub(crate) fn matmul<T: Number + Sync>(pool: &Pool, x: &impl Source, m: usize, columns: usize, w: &[T], y: Target<'_>) {
    let n = w.len() / columns;
    assert!(y.start + (m - 1) * y.stride + n <= y.y.len(), "a panel beyond the result");
    let Shape { lanes, height, width } = kernel::run(pool, ShapeOf);
    let padded = columns.next_multiple_of(lanes);
    let block = (X_BYTES / (4 * padded)).next_multiple_of(height).max(8 * height);
    with_scratch(m.min(block).next_multiple_of(height) * padded, |packed| {
        for first in (0..m).step_by(block) {
            let count = block.min(m - first);
            let panels = count.div_ceil(height);
            let packed = &mut packed[..panels * height * padded];
            pool.run_chunks(packed, height * padded, |start, panel| {
                let from = first + start / padded;
                let rows = from..(from + height).min(first + count);
                kernel::run(pool, PackX { x, rows, columns, panel });
            });
            let columns_of_panels = n.div_ceil(width);
            // Where there are too few panels of weights for the threads, several tasks pack the same one.
            let parts = (pool.threads() * 4).div_ceil(columns_of_panels).min(count / TASK_X_ROWS).max(1);
            let per_part = panels.div_ceil(parts);
            pool.run(columns_of_panels * parts, |task| {
                let (column, part) = (task / parts, task % parts);
                let (begin, end) = (part * per_part * height, count.min((part + 1) * per_part * height));
                if begin < end {
                    let w_rows = column * width..n.min((column + 1) * width);
                    let y = Target { start: y.start + (first + begin) * y.stride, ..y };
                    let packed = &packed[begin * padded..];
                    // Tasks differ in rows of weights or of x, and the assertion above has seen that all are in y.
                    kernel::run(pool, Task { packed, count: end - begin, columns, w, w_rows, y });
                }
            });
        }
    });
}

/// The sizes of an instruction set's tile.
struct Shape {
    lanes: usize,
    height: usize,
    width: usize,
}

struct ShapeOf;

impl Kernel for ShapeOf {
    type Output = Shape;

    #[inline(always)]
    unsafe fn run<S: Simd>(self) -> Shape {
        Shape { lanes: S::LANES, height: S::PANEL_ROWS, width: S::PANEL_VECTORS * S::LANES }
    }
}

/// A panel of the rows `rows` of `x`, at most [`Simd::PANEL_ROWS`].
struct PackX<'a, X> {
    x: &'a X,
    rows: Range<usize>,
    columns: usize,
    panel: &'a mut [f32],
}

impl<X: Source> Kernel for PackX<'_, X> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let Self { x, rows, columns, panel } = self;
        let mut room = scratch::take(S::PANEL_ROWS * columns);
        let mut starts = [std::ptr::null(); MOST_ROWS];
        let mut rooms = room.chunks_exact_mut(columns);
        for (i, start) in starts.iter_mut().enumerate().take(S::PANEL_ROWS) {
            let row = (rows.start + i).min(rows.end - 1);
            *start = x.row(row, rooms.next().expect("a room for each row")).as_ptr();
        }
        // SAFETY: by the caller's promise; the rows have `columns` numbers, the panel is as long as `pack` wants.
        unsafe { pack::<S, f32>(&starts[..S::PANEL_ROWS], columns, panel) }
    }
}

/// The most rows of a panel, of `x` or of weights.
const MOST_ROWS: usize = 3 * LANES;

/// Packs rows of `columns` numbers: for each lane in the order of [`Simd::TREE`], for each vector of columns, that lane's
/// column of all rows.
///
/// # Safety
/// The processor has `S`, the rows are readable, and `panel` has room for them with `columns` rounded up to whole vectors.
#[inline(always)]
unsafe fn pack<S: Simd, T: Number>(rows: &[*const T], columns: usize, panel: &mut [f32]) {
    let (height, steps) = (rows.len(), columns.div_ceil(S::LANES));
    debug_assert!(panel.len() >= height * steps * S::LANES);
    let panel = panel.as_mut_ptr();
    for first in (0..height).step_by(S::LANES) {
        let lanes = S::LANES.min(height - first);
        for step in 0..steps {
            let column = step * S::LANES;
            // SAFETY: rows first .. first + lanes, columns below `columns`; lane c of step s has `height` numbers from
            // (c · steps + s) · height on.
            unsafe {
                let mut square = [S::splat(0.0); LANES];
                if column + S::LANES <= columns {
                    for i in 0..S::LANES {
                        square[i] = T::load::<S>(rows[first + i.min(lanes - 1)].add(column));
                    }
                } else {
                    for i in 0..lanes {
                        square[i] = T::load_first::<S>(rows[first + i].add(column), columns - column);
                    }
                }
                transpose::<S>(&mut square);
                for c in 0..S::LANES {
                    let at = panel.add((c * steps + step) * height + first);
                    let v = square[S::TREE[c]];
                    if lanes == S::LANES { S::store(at, v) } else { S::store_first(at, v, lanes) }
                }
            }
        }
    }
}

/// `count` packed rows of `x` by the rows `w_rows` of weights, at most a panel's.
struct Task<'a, T> {
    packed: &'a [f32],
    count: usize,
    columns: usize,
    w: &'a [T],
    w_rows: Range<usize>,
    y: Target<'a>,
}

impl<T: Number> Kernel for Task<'_, T> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let Self { packed, count, columns, w, w_rows, y } = self;
        let (width, steps) = (S::PANEL_VECTORS * S::LANES, columns.div_ceil(S::LANES));
        let padded = steps * S::LANES;
        let mut weights = scratch::take(width * padded);
        let mut starts = [std::ptr::null(); MOST_ROWS];
        for (r, start) in starts.iter_mut().enumerate().take(width) {
            *start = w[(w_rows.start + r).min(w_rows.end - 1) * columns..][..columns].as_ptr();
        }
        // SAFETY: by the caller's promise; rows `first ..` of x were packed, and its results have a place in y.
        unsafe {
            pack::<S, T>(&starts[..width], columns, &mut weights);
            for first in (0..count).step_by(S::PANEL_ROWS) {
                let x = packed[first * padded..][..S::PANEL_ROWS * padded].as_ptr();
                let rows = S::PANEL_ROWS.min(count - first);
                let y = y.y.as_ptr().add(y.start + first * y.stride + w_rows.start);
                let y = Corner { y, stride: self.y.stride, rows, columns: w_rows.len() };
                match (S::PANEL_ROWS, S::PANEL_VECTORS) {
                    (8, 3) => tile::<S, 8, 3>(x, weights.as_ptr(), steps, y),
                    (6, 2) => tile::<S, 6, 2>(x, weights.as_ptr(), steps, y),
                    (2, 2) => tile::<S, 2, 2>(x, weights.as_ptr(), steps, y),
                    _ => unreachable!("a tile of another shape"),
                }
            }
        }
    }
}

/// Where a tile's results go, and how many of them are real.
struct Corner {
    y: *mut f32,
    stride: usize,
    rows: usize,
    columns: usize,
}

/// `M` packed rows of `x` by a panel of weights.
///
/// # Safety
/// The processor has `S`; the panels are those of [`pack`] with `steps` vectors of columns, and the results have a place.
#[inline(always)]
unsafe fn tile<S: Simd, const M: usize, const V: usize>(
    mut x: *const f32,
    mut w: *const f32,
    steps: usize,
    to: Corner,
) {
    // SAFETY: by the caller's promise: LANES · steps times M numbers of x and V vectors of weights are read.
    unsafe {
        let mut kept = [[[S::splat(0.0); V]; M]; LEVELS];
        let mut sums = [[S::splat(0.0); V]; M];
        for lane in 0..S::LANES {
            sums = [[S::splat(0.0); V]; M];
            for _ in 0..steps {
                let mut weights = [S::splat(0.0); V];
                for (v, weights) in weights.iter_mut().enumerate() {
                    *weights = S::load(w.add(v * S::LANES));
                }
                for i in 0..M {
                    let number = S::splat(*x.add(i));
                    for v in 0..V {
                        sums[i][v] = S::mul_add(number, weights[v], sums[i][v]);
                    }
                }
                x = x.add(M);
                w = w.add(V * S::LANES);
            }
            // Like carrying in a binary number: every second lane completes a pair, every fourth a pair of pairs.
            let level = lane.trailing_ones() as usize;
            for kept in &kept[..level] {
                for i in 0..M {
                    for v in 0..V {
                        sums[i][v] = S::add(kept[i][v], sums[i][v]);
                    }
                }
            }
            if let Some(kept) = kept.get_mut(level) {
                *kept = sums;
            }
        }
        for i in 0..M {
            if i < to.rows {
                for v in 0..V {
                    let (at, left) = (to.y.add(i * to.stride + v * S::LANES), to.columns.saturating_sub(v * S::LANES));
                    if left >= S::LANES { S::store(at, sums[i][v]) } else { S::store_first(at, sums[i][v], left) }
                }
            }
        }
    }
}
