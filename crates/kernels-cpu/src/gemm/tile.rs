//! The register tile under every f32 matmul: four rows of weights against a few rows of `x`.
//!
//! Both operands lie along the summed dimension, so that nothing need be transposed: a vector of each row of `x` is
//! multiplied with a vector of each row of weights and added to one vector accumulator of that pair; the lanes of
//! an accumulator are added at the very end. So element `(i, r)` of the result is always the same sequence
//! of operations: neither the number of rows in the tile nor the tile's place can change a bit of it.

#![expect(clippy::needless_range_loop, reason = "tiles index several arrays of registers by the same numbers")]

use crate::{pool::SharedMut, simd::Simd};

/// Rows of weights in a tile.
pub(crate) const ROWS: usize = 4;

/// How many bytes ahead to ask for weights. Four short rows side by side look to the processor like no stream at all, so
/// that it does not fetch ahead by itself; this much covers main memory's latency at one core's share of its bandwidth.
pub(crate) const PREFETCH_BYTES: usize = 4096;

/// Four rows of weights, read as vectors of f32 wherever and however they are stored.
///
/// # Safety
/// The methods require that the processor has `S`, `r < ROWS` and that the vector lies within the row.
pub(crate) unsafe trait Rows: Copy {
    /// The columns `column ..` of row `r`, as many as a vector has lanes.
    unsafe fn vector<S: Simd>(&self, r: usize, column: usize) -> S::V;
    /// Asks for the memory that the tiles after this one will read, in step with `column`.
    #[inline(always)]
    unsafe fn prefetch<S: Simd>(&self, _column: usize) {}
    /// The columns `column .. column + n` of row `r`, the other lanes zero; `n` is less than a vector's lanes.
    unsafe fn partial<S: Simd>(&self, r: usize, column: usize, n: usize) -> S::V;

    /// Adds the products of `M` rows of `x` with the four rows to `sums`, column after column. An implementation may go
    /// about it otherwise, so long as each of the sums takes its columns in this order.
    ///
    /// # Safety
    /// As [`tile`].
    #[inline(always)]
    unsafe fn accumulate<S: Simd, const M: usize>(
        &self,
        x: *const f32,
        stride: usize,
        columns: usize,
        sums: &mut [[S::V; ROWS]; M],
    ) {
        // SAFETY: by the caller's promise.
        unsafe { by_columns::<S, Self, M>(self, x, stride, columns, sums) }
    }
}

/// [`Rows::accumulate`], a vector of columns of all rows at a time.
///
/// # Safety
/// As [`tile`].
#[inline(always)]
pub(crate) unsafe fn by_columns<S: Simd, W: Rows, const M: usize>(
    w: &W,
    x: *const f32,
    stride: usize,
    columns: usize,
    sums: &mut [[S::V; ROWS]; M],
) {
    // Loops instead of closures: a closure would be compiled without the instruction set.
    // SAFETY: by the caller's promise; `column` stays within `columns`.
    unsafe {
        let mut xs = [S::splat(0.0); M];
        let whole = columns - columns % S::LANES;
        let mut column = 0;
        while column < whole {
            // Larger tiles wait for arithmetic, not for memory.
            if M <= 4 {
                w.prefetch::<S>(column);
            }
            // All of x and one row of weights at a time: with `S::TILE` rows that is as many registers as there are.
            for i in 0..M {
                xs[i] = S::load(x.add(i * stride + column));
            }
            for r in 0..ROWS {
                let weights = w.vector::<S>(r, column);
                for i in 0..M {
                    sums[i][r] = S::mul_add(xs[i], weights, sums[i][r]);
                }
            }
            column += S::LANES;
        }
        if column < columns {
            let n = columns - column;
            for i in 0..M {
                xs[i] = S::load_first(x.add(i * stride + column), n);
            }
            for r in 0..ROWS {
                let weights = w.partial::<S>(r, column, n);
                for i in 0..M {
                    sums[i][r] = S::mul_add(xs[i], weights, sums[i][r]);
                }
            }
        }
    }
}

/// Products of `M` rows of `x` (the first at `x`, each `stride` after the last) with four rows of weights, over
/// `columns` columns: `result[i][r] = Σ x[i][c] · w[r][c]`.
///
/// # Safety
/// The processor has `S`; `M` rows of `columns` f32 are readable at `x`, and so are the weights.
#[inline(always)]
pub(crate) unsafe fn tile<S: Simd, W: Rows, const M: usize>(
    w: W,
    x: *const f32,
    stride: usize,
    columns: usize,
) -> [[f32; ROWS]; M] {
    // SAFETY: by the caller's promise.
    unsafe {
        let mut sums = [[S::splat(0.0); ROWS]; M];
        w.accumulate::<S, M>(x, stride, columns, &mut sums);
        let mut results = [[0.0; ROWS]; M];
        for i in 0..M {
            results[i] = S::sums(sums[i]);
        }
        results
    }
}

/// Where a tile's results go: a block of `y`, whose row `i` starts at `i · stride`.
#[derive(Clone, Copy)]
pub(crate) struct Target {
    pub(crate) start: *mut f32,
    pub(crate) stride: usize,
    /// How many of a tile's four rows of weights are real; the others repeat the last one.
    pub(crate) rows: usize,
}

impl Target {
    /// The columns `column .. column + 4` (as far as they are below `end`) of `y`, rows of `stride`, from row `row` on.
    ///
    /// # Safety
    /// Row `row` and column `column` are in `y`.
    #[inline(always)]
    pub(crate) unsafe fn new(y: &SharedMut<'_, f32>, row: usize, stride: usize, column: usize, end: usize) -> Self {
        // SAFETY: by the caller's promise.
        let start = unsafe { y.as_ptr().add(row * stride + column) };
        Self { start, stride, rows: ROWS.min(end - column) }
    }

    /// # Safety
    /// `rows` f32 are writable at each of the `M` rows of the block from row `first` on, by this thread alone.
    #[inline(always)]
    pub(crate) unsafe fn put<const M: usize>(&self, first: usize, values: [[f32; ROWS]; M]) {
        for (i, values) in values.iter().enumerate() {
            // SAFETY: by the caller's promise.
            unsafe {
                let row = self.start.add((first + i) * self.stride);
                if self.rows == ROWS {
                    row.cast::<[f32; ROWS]>().write_unaligned(*values);
                } else {
                    std::ptr::copy_nonoverlapping(values.as_ptr(), row, self.rows);
                }
            }
        }
    }
}

/// Products of `m` rows of `x` with four rows of weights, tile by tile, into `y`.
///
/// # Safety
/// The processor has `S`; `m` rows of `columns` f32, `stride` apart, are readable at `x`, and so are the weights;
/// `y.rows` f32 are writable in each of `m` rows of `y`, by this thread alone.
#[inline(always)]
pub(crate) unsafe fn column_of_tiles<S: Simd, W: Rows>(
    w: W,
    x: *const f32,
    stride: usize,
    m: usize,
    columns: usize,
    y: Target,
) {
    let mut i = 0;
    while i < m {
        // SAFETY: rows i .. i + count lie below m; the rest is the caller's promise.
        unsafe {
            let x = x.add(i * stride);
            // As many tiles as must be, and of sizes as even as can be: a tile of one row is the least efficient.
            let tiles = (m - i).div_ceil(S::TILE);
            let count = (m - i).div_ceil(tiles);
            // Sizes beyond S::TILE, which is a constant, are not compiled.
            match count {
                1 => y.put(i, tile::<S, W, 1>(w, x, stride, columns)),
                2 => y.put(i, tile::<S, W, 2>(w, x, stride, columns)),
                3 if S::TILE >= 3 => y.put(i, tile::<S, W, 3>(w, x, stride, columns)),
                4 if S::TILE >= 4 => y.put(i, tile::<S, W, 4>(w, x, stride, columns)),
                5 if S::TILE >= 5 => y.put(i, tile::<S, W, 5>(w, x, stride, columns)),
                6 if S::TILE >= 6 => y.put(i, tile::<S, W, 6>(w, x, stride, columns)),
                _ => unreachable!("tiles have at most six rows"),
            }
            i += count;
        }
    }
}
