//! One chunk of the context for the rows of a tile: scores, softmax, and the weighted sum of values.
//!
//! The two products are register tiles of up to [`TILE_ROWS`] rows by [`Simd::TILE_VECTORS`] vectors. Each sum runs over
//! its index in order, in one accumulator, whatever the tile: that is what makes a row's result its own.
//!
//! With few rows, memory is what the work waits for, and the blocks of a sequence lie too far apart for the processor to
//! guess the next one. Then keys that are read ask for the values at the same place in the chunk, and values for
//! the next chunk's keys.
//!
//! Numbers of any kind are widened, exactly, as they are loaded. Where they have scales, these multiply scores and weights:
//! one number a token instead of one for each of its numbers.

#![expect(clippy::needless_range_loop, reason = "a register tile indexes several arrays at once")]

use std::{ops::Range, ptr::null};

use super::CHUNK;
use crate::{
    kv_pool::{KvNumber, Layout},
    simd::{Simd, TILE_ROWS, math},
};

/// Tokens that lie together in memory, whatever the block size.
pub(super) const GROUP: usize = 16;

/// Bytes of a cache line.
const LINE: usize = 64;

/// Where a chunk's keys and values are. Groups without a visible token are null and never touched.
#[derive(Clone, Copy)]
pub(super) struct Chunk<T> {
    /// Keys of each group of tokens: `[dim, token]`.
    pub keys: [*const T; CHUNK / GROUP],
    /// Numbers from one `dim` to the next.
    pub key_stride: usize,
    /// Values of each group of tokens: `[token, dim]`.
    pub values: [*const T; CHUNK / GROUP],
    /// Numbers from one token to the next: a multiple of 16.
    pub value_stride: usize,
    /// Of keys, `[CHUNK]`, and then of values; null if there are none.
    pub scales: *const f32,
    /// The tokens that some row sees, within the chunk.
    pub begin: usize,
    pub end: usize,
    /// Whether numbers are asked for before they are needed; those that aren't f32 always are.
    pub ahead: bool,
    /// Keys of each group of the chunk that comes next; only ever asked for ahead of time, and may be anything.
    pub next_keys: [*const T; CHUNK / GROUP],
}

impl<T> Chunk<T> {
    /// No place yet for keys and values of tokens `visible` (within the chunk).
    pub fn empty(layout: &Layout, visible: Range<usize>) -> Self {
        Self {
            keys: [null(); _],
            key_stride: layout.block_size,
            values: [null(); _],
            value_stride: layout.value_stride,
            scales: null(),
            begin: visible.start,
            end: visible.end,
            ahead: false,
            next_keys: [null(); _],
        }
    }
}

/// Copies a chunk, its visible groups only, to f32 in `memory` of `CHUNK · (head_dim + value_stride)` numbers. Scales stay
/// where they are.
///
/// # Safety
/// The chunk's pointers must be good for its visible groups; the instruction set must be there.
#[inline(always)]
pub(super) unsafe fn widen<S: Simd, T: KvNumber>(chunk: &Chunk<T>, layout: &Layout, memory: &mut [f32]) -> Chunk<f32> {
    let mut wide = Chunk::empty(layout, chunk.begin..chunk.end);
    (wide.key_stride, wide.scales) = (GROUP, chunk.scales);
    let (keys, values) = memory.split_at_mut(layout.head_dim * CHUNK);
    for group in chunk.begin / GROUP..chunk.end.div_ceil(GROUP) {
        let keys = &mut keys[group * GROUP * layout.head_dim..][..GROUP * layout.head_dim];
        let values = &mut values[group * GROUP * layout.value_stride..][..GROUP * layout.value_stride];
        // SAFETY: a visible group has 16 keys of every dim and 16 rows of values, and so have these slices.
        unsafe {
            for (dim, keys) in keys.chunks_exact_mut(GROUP).enumerate() {
                widen_run::<S, T>(chunk.keys[group].add(dim * chunk.key_stride), keys);
            }
            widen_run::<S, T>(chunk.values[group], values);
        }
        (wide.keys[group], wide.values[group]) = (keys.as_ptr(), values.as_ptr());
    }
    wide
}

/// # Safety
/// As many numbers as `to` has, a multiple of 16, must be at `from`; the instruction set must be there.
#[inline(always)]
unsafe fn widen_run<S: Simd, T: KvNumber>(from: *const T, to: &mut [f32]) {
    for i in (0..to.len()).step_by(S::LANES) {
        // SAFETY: as this function's.
        unsafe { S::store(to.as_mut_ptr().add(i), T::load::<S>(from.add(i))) };
    }
}

/// `s[row, token] = q[row] · k[token]` for the tokens of every vector that holds a visible one. `q` is `[rows, dim]`
/// and `s` `[rows, CHUNK]`.
///
/// # Safety
/// The pointers must be good for these shapes, the chunk's for its visible groups; the instruction set must be there.
#[inline(always)]
pub(super) unsafe fn scores<S: Simd, T: KvNumber>(
    chunk: &Chunk<T>,
    q: *const f32,
    dim: usize,
    rows: usize,
    s: *mut f32,
) {
    // SAFETY: as this function's.
    unsafe {
        if chunk.ahead || !T::IS_F32 {
            score_all::<S, T, true>(chunk, q, dim, rows, s);
        } else {
            score_all::<S, T, false>(chunk, q, dim, rows, s);
        }
    }
}

/// # Safety
/// As [`scores`].
#[inline(always)]
unsafe fn score_all<S: Simd, T: KvNumber, const AHEAD: bool>(
    chunk: &Chunk<T>,
    q: *const f32,
    dim: usize,
    rows: usize,
    s: *mut f32,
) {
    let mut vector = chunk.begin / S::LANES;
    let end = chunk.end.div_ceil(S::LANES);
    // SAFETY: as this function's.
    unsafe {
        if S::TILE_VECTORS >= 4 {
            while vector + 4 <= end {
                score_columns::<S, T, 4, AHEAD>(chunk, vector, q, dim, rows, s);
                vector += 4;
            }
        }
        if S::TILE_VECTORS >= 2 {
            while vector + 2 <= end {
                score_columns::<S, T, 2, AHEAD>(chunk, vector, q, dim, rows, s);
                vector += 2;
            }
        }
        while vector < end {
            score_columns::<S, T, 1, AHEAD>(chunk, vector, q, dim, rows, s);
            vector += 1;
        }
    }
}

/// # Safety
/// As [`scores`].
#[inline(always)]
unsafe fn score_columns<S: Simd, T: KvNumber, const N: usize, const AHEAD: bool>(
    chunk: &Chunk<T>,
    vector: usize,
    q: *const f32,
    dim: usize,
    rows: usize,
    s: *mut f32,
) {
    let mut keys = [null(); N];
    let mut values = [null(); N];
    for n in 0..N {
        let token = (vector + n) * S::LANES;
        // SAFETY: the group holds 16 tokens, and a vector lies within it.
        keys[n] = unsafe { chunk.keys[token / GROUP].add(token % GROUP) };
        values[n] = chunk.values[token / GROUP];
    }
    let stride = chunk.key_stride;
    // SAFETY: as this function's.
    unsafe {
        let s = s.add(vector * S::LANES);
        let mut row = 0;
        while row + TILE_ROWS <= rows {
            score_tile::<S, T, TILE_ROWS, N, AHEAD>(q.add(row * dim), dim, keys, values, stride, s.add(row * CHUNK));
            row += TILE_ROWS;
        }
        let (q, s) = (q.add(row * dim), s.add(row * CHUNK));
        match rows - row {
            1 => score_tile::<S, T, 1, N, AHEAD>(q, dim, keys, values, stride, s),
            2 => score_tile::<S, T, 2, N, AHEAD>(q, dim, keys, values, stride, s),
            3 => score_tile::<S, T, 3, N, AHEAD>(q, dim, keys, values, stride, s),
            4 => score_tile::<S, T, 4, N, AHEAD>(q, dim, keys, values, stride, s),
            5 => score_tile::<S, T, 5, N, AHEAD>(q, dim, keys, values, stride, s),
            _ => {}
        }
    }
}

/// # Safety
/// As [`scores`], for M rows and N vectors.
#[inline(always)]
unsafe fn score_tile<S: Simd, T: KvNumber, const M: usize, const N: usize, const AHEAD: bool>(
    q: *const f32,
    dim: usize,
    keys: [*const T; N],
    values: [*const T; N],
    key_stride: usize,
    s: *mut f32,
) {
    // SAFETY: as this function's.
    unsafe {
        let zero = S::splat(0.0);
        let line = LINE / size_of::<T>();
        let mut sums = [[zero; N]; M];
        for d in 0..dim {
            let mut k = [zero; N];
            for n in 0..N {
                k[n] = T::load::<S>(keys[n].add(d * key_stride));
                // Once for each group of tokens and each line of them.
                if AHEAD && n * S::LANES % GROUP == 0 && (d * GROUP).is_multiple_of(line) {
                    S::prefetch(values[n].wrapping_add(d * GROUP).cast());
                }
            }
            for m in 0..M {
                let q = S::splat(*q.add(m * dim + d));
                for n in 0..N {
                    sums[m][n] = S::mul_add(q, k[n], sums[m][n]);
                }
            }
        }
        for m in 0..M {
            for n in 0..N {
                S::store(s.add(m * CHUNK + n * S::LANES), sums[m][n]);
            }
        }
    }
}

/// Turns a row of scores into weights `2^(score − greatest)` and gives the greatest score and the sum of the weights.
///
/// Tokens `visible` (within the chunk, and within its visible range) take part; the row's other tokens of the chunk's
/// visible range get weight 0. With `softcap`, scores are first replaced by `softcap · tanh(score)`. Scales of keys multiply
/// the scores first of all, and those of values the weights last of all, after their sum.
///
/// # Safety
/// `row` must be good for [`CHUNK`] f32; the instruction set must be there.
#[inline(always)]
pub(super) unsafe fn soften<S: Simd, T: KvNumber>(
    chunk: &Chunk<T>,
    row: *mut f32,
    visible: (usize, usize),
    softcap: Option<f32>,
) -> (f32, f32) {
    let (begin, end) = visible;
    // SAFETY: every access is within the chunk's visible range rounded to vectors, which is within CHUNK.
    unsafe {
        if begin >= end {
            fill(row, chunk.begin, chunk.end, 0.0);
            return (f32::NEG_INFINITY, 0.0);
        }
        let first = begin - begin % S::LANES;
        let last = end.next_multiple_of(S::LANES);
        let scaled = !chunk.scales.is_null();
        if scaled {
            for i in (first..last).step_by(S::LANES) {
                let p = row.add(i);
                S::store(p, S::mul(S::load(p), S::load(chunk.scales.add(i))));
            }
        }
        if let Some(softcap) = softcap {
            for i in (first..last).step_by(S::LANES) {
                let p = row.add(i);
                S::store(p, S::mul(S::splat(softcap), math::tanh::<S>(S::load(p))));
            }
        }
        fill(row, first, begin, f32::NEG_INFINITY);
        fill(row, end, last, f32::NEG_INFINITY);
        let mut greatest = S::load(row.add(first));
        for i in (first + S::LANES..last).step_by(S::LANES) {
            greatest = S::max(greatest, S::load(row.add(i)));
        }
        let greatest = S::max_lane(greatest);
        let shift = S::splat(greatest);
        let mut sum = S::splat(0.0);
        for i in (first..last).step_by(S::LANES) {
            let weight = math::exp2::<S>(S::sub(S::load(row.add(i)), shift));
            sum = S::add(sum, weight);
            let weight = if scaled { S::mul(weight, S::load(chunk.scales.add(CHUNK + i))) } else { weight };
            S::store(row.add(i), weight);
        }
        fill(row, chunk.begin, first, 0.0);
        fill(row, last, chunk.end, 0.0);
        (greatest, S::sum(sum))
    }
}

/// # Safety
/// `row` must be good up to `end`.
#[inline(always)]
unsafe fn fill(row: *mut f32, begin: usize, end: usize, value: f32) {
    for i in begin..end {
        // SAFETY: as this function's.
        unsafe { *row.add(i) = value };
    }
}

/// `sum[row] = Σ weight[row, token] · v[token]` over the chunk's visible tokens; `weights` is `[rows, CHUNK]` and `sum`
/// `[rows, value_stride]`.
///
/// # Safety
/// As [`scores`].
#[inline(always)]
pub(super) unsafe fn weigh<S: Simd, T: KvNumber>(chunk: &Chunk<T>, weights: *const f32, rows: usize, sum: *mut f32) {
    // SAFETY: as this function's.
    unsafe {
        if chunk.ahead || !T::IS_F32 {
            weigh_all::<S, T, true>(chunk, weights, rows, sum);
        } else {
            weigh_all::<S, T, false>(chunk, weights, rows, sum);
        }
    }
}

/// # Safety
/// As [`scores`].
#[inline(always)]
unsafe fn weigh_all<S: Simd, T: KvNumber, const AHEAD: bool>(
    chunk: &Chunk<T>,
    weights: *const f32,
    rows: usize,
    sum: *mut f32,
) {
    let mut vector = 0;
    let end = chunk.value_stride / S::LANES;
    // SAFETY: as this function's.
    unsafe {
        if S::TILE_VECTORS >= 4 {
            while vector + 4 <= end {
                weigh_columns::<S, T, 4, AHEAD>(chunk, vector, weights, rows, sum);
                vector += 4;
            }
        }
        if S::TILE_VECTORS >= 2 {
            while vector + 2 <= end {
                weigh_columns::<S, T, 2, AHEAD>(chunk, vector, weights, rows, sum);
                vector += 2;
            }
        }
        while vector < end {
            weigh_columns::<S, T, 1, AHEAD>(chunk, vector, weights, rows, sum);
            vector += 1;
        }
    }
}

/// # Safety
/// As [`scores`].
#[inline(always)]
unsafe fn weigh_columns<S: Simd, T: KvNumber, const N: usize, const AHEAD: bool>(
    chunk: &Chunk<T>,
    vector: usize,
    weights: *const f32,
    rows: usize,
    sum: *mut f32,
) {
    let (column, stride) = (vector * S::LANES, chunk.value_stride);
    // SAFETY: as this function's.
    unsafe {
        let sum = sum.add(column);
        let mut row = 0;
        while row + TILE_ROWS <= rows {
            weigh_tile::<S, T, TILE_ROWS, N, AHEAD>(chunk, column, weights.add(row * CHUNK), sum.add(row * stride));
            row += TILE_ROWS;
        }
        let (weights, sum) = (weights.add(row * CHUNK), sum.add(row * stride));
        match rows - row {
            1 => weigh_tile::<S, T, 1, N, AHEAD>(chunk, column, weights, sum),
            2 => weigh_tile::<S, T, 2, N, AHEAD>(chunk, column, weights, sum),
            3 => weigh_tile::<S, T, 3, N, AHEAD>(chunk, column, weights, sum),
            4 => weigh_tile::<S, T, 4, N, AHEAD>(chunk, column, weights, sum),
            5 => weigh_tile::<S, T, 5, N, AHEAD>(chunk, column, weights, sum),
            _ => {}
        }
    }
}

/// # Safety
/// As [`scores`], for M rows and N vectors.
#[inline(always)]
unsafe fn weigh_tile<S: Simd, T: KvNumber, const M: usize, const N: usize, const AHEAD: bool>(
    chunk: &Chunk<T>,
    column: usize,
    weights: *const f32,
    sum: *mut f32,
) {
    // SAFETY: as this function's.
    unsafe {
        let zero = S::splat(0.0);
        let line = LINE / size_of::<T>();
        let mut sums = [[zero; N]; M];
        let mut token = chunk.begin;
        while token < chunk.end {
            let mut values = chunk.values[token / GROUP].add(token % GROUP * chunk.value_stride + column);
            let lines = (token % GROUP * chunk.value_stride + column) / GROUP;
            let mut ahead = chunk.next_keys[token / GROUP].wrapping_add(lines * chunk.key_stride);
            let end = chunk.end.min((token / GROUP + 1) * GROUP);
            while token < end {
                let mut v = [zero; N];
                for n in 0..N {
                    v[n] = T::load::<S>(values.add(n * S::LANES));
                    if AHEAD && n * S::LANES % line == 0 {
                        S::prefetch(ahead.wrapping_add(n * S::LANES / GROUP * chunk.key_stride).cast());
                    }
                }
                for m in 0..M {
                    let weight = S::splat(*weights.add(m * CHUNK + token));
                    for n in 0..N {
                        sums[m][n] = S::mul_add(weight, v[n], sums[m][n]);
                    }
                }
                values = values.add(chunk.value_stride);
                ahead = ahead.wrapping_add(chunk.value_stride / GROUP * chunk.key_stride);
                token += 1;
            }
        }
        for m in 0..M {
            for n in 0..N {
                S::store(sum.add(m * chunk.value_stride + n * S::LANES), sums[m][n]);
            }
        }
    }
}
