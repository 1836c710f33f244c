//! A tile: some queries of one sequence, all heads that share a KV head, over its chunks of the context.
//!
//! A chunk's keys and values are widened to f32 once for the whole tile and then stay in the second-level cache, while the
//! tile's rows go over them in strips whose scores fit the first. A tile of few rows, as in decoding, reads them as
//! they lie: it would wait for memory, not for arithmetic.

use std::ops::Range;

use super::{
    Attention, CHUNK, RaggedBatch,
    batch::Row,
    chunk::{self, Chunk, GROUP},
    partials::{LINE, Part, Partials},
    plan::Item,
};
use crate::{
    Pool, SharedMut,
    kv_pool::{KvNumber, Layout, Planes, rotate},
    simd::{
        Simd, TILE_ROWS,
        kernel::{Kernel, run},
    },
    with_scratch,
};

/// Rows whose scores of one chunk are in the first-level cache at a time.
const STRIP: usize = 48;
/// Rows up to which keys and values are read as they lie, even if twice, rather than widened to memory.
const FEW_ROWS: usize = 2 * TILE_ROWS;

/// A tile of checked arguments.
pub(super) struct Tile<'a> {
    pub layout: &'a Layout,
    pub q: &'a [f32],
    pub batch: &'a RaggedBatch<'a>,
    pub layer: &'a Attention,
    pub item: &'a Item,
}

impl Tile<'_> {
    fn group(&self) -> usize {
        self.layer.heads / self.layout.kv_heads
    }

    fn rows(&self) -> usize {
        self.item.queries.len() * self.group()
    }

    /// Goes over the item's chunks and writes the attention of its queries to `out`, or, if other items have the rest
    /// of the chunks, its results to its part of `partials`.
    ///
    /// # Safety
    /// No other call with the same queries, head and chunks may run meanwhile.
    pub unsafe fn attend<T: KvNumber>(
        &self,
        pool: &Pool,
        planes: &Planes<T>,
        out: SharedMut<'_, f32>,
        partials: SharedMut<'_, f32>,
    ) {
        let (layout, rows) = (self.layout, self.rows());
        let strip = rows.min(STRIP);
        let widens = !T::IS_F32 && rows > FEW_ROWS;
        let queries = (rows * layout.head_dim).next_multiple_of(LINE);
        let total = if self.item.partials.is_some() { 0 } else { Partials::size(rows, layout) };
        let wide = if widens { CHUNK * (layout.head_dim + layout.value_stride) } else { 0 };
        let scales = if T::SCALED { 2 * CHUNK } else { 0 };
        let sizes = [queries, strip * CHUNK, Partials::size(strip, layout), total, wide, scales];
        with_scratch(sizes.iter().sum(), |scratch| {
            let [q, scores, part, total, wide, scales] = cut(scratch, sizes);
            self.pack(q, T::SCALED);
            let mut results = match self.item.partials.clone() {
                // SAFETY: by the plan, these are the item's own.
                Some(range) => Results::Parts(Partials::new(unsafe { partials.slice(range) }, rows, layout)),
                None => Results::Total(Partials::new(total, rows, layout), Partials::new(part, strip, layout)),
            };
            for index in self.item.chunks.clone() {
                let chunk = self.chunk(planes, index, scales);
                if widens {
                    let chunk = run(pool, Widen { chunk, layout, wide });
                    self.strips(pool, index, &chunk, q, scores, &mut results);
                } else {
                    self.strips(pool, index, &chunk, q, scores, &mut results);
                }
            }
            if let Results::Total(total, _) = results {
                run(pool, Finish { tile: self, total, out });
            }
        });
    }

    /// All rows of the tile over chunk `index`.
    fn strips<T: KvNumber>(
        &self,
        pool: &Pool,
        index: usize,
        chunk: &Chunk<T>,
        q: &[f32],
        scores: &mut [f32],
        results: &mut Results<'_>,
    ) {
        let dim = self.layout.head_dim;
        let sequence = self.batch.row(self.item.row);
        let is_first = index == self.item.chunks.start;
        for first in (0..self.rows()).step_by(STRIP) {
            let rows = first..self.rows().min(first + STRIP);
            let (begin, end) = self.visible(&sequence, index, rows.clone());
            let mut part = match results {
                Results::Parts(parts) => parts.part(index - self.item.chunks.start, rows.clone()),
                Results::Total(total, _) if is_first => total.part(0, rows.clone()),
                Results::Total(_, part) => part.part(0, 0..rows.len()),
            };
            if begin >= end {
                part.clear();
                continue;
            }
            let chunk = Chunk { begin, end, ..*chunk };
            let q = &q[rows.start * dim..rows.end * dim];
            run(pool, Strip { tile: self, sequence, index, rows: rows.clone(), chunk, q, scores, part });
            if let Results::Total(total, part) = results
                && !is_first
            {
                run(pool, Add { total: total.part(0, rows.clone()), part: part.part(0, 0..rows.len()) });
            }
        }
    }

    /// Merges the partial results of all chunks of the tile and writes the attention of its queries to `out`.
    ///
    /// # Safety
    /// No other call with the same queries and head may run meanwhile.
    pub unsafe fn merge(&self, pool: &Pool, mut parts: Partials<'_>, out: SharedMut<'_, f32>) {
        let (layout, rows) = (self.layout, self.rows());
        with_scratch(Partials::size(rows, layout), |total| {
            let mut total = Partials::new(total, rows, layout);
            total.chunk(0).clear();
            for part in 0..parts.chunks() {
                run(pool, Add { total: total.chunk(0), part: parts.chunk(part) });
            }
            run(pool, Finish { tile: self, total, out });
        });
    }

    /// The tile's queries as `[rows, head_dim]`, rows of a token together, scaled so that scores are exponents of 2 (or,
    /// with a softcap, its tanh's arguments), and rotated if keys are.
    fn pack(&self, packed: &mut [f32], rotated: bool) {
        let dim = self.layout.head_dim;
        let factor = match self.layer.softcap {
            Some(softcap) => self.layer.scale / softcap,
            None => self.layer.scale * std::f32::consts::LOG2_E,
        };
        let width = self.group() * dim;
        for (packed, query) in packed.chunks_exact_mut(width).zip(self.item.queries.clone()) {
            let q = &self.q[self.place(query)..][..width];
            packed.iter_mut().zip(q).for_each(|(packed, q)| *packed = q * factor);
            if rotated {
                packed.chunks_exact_mut(dim).for_each(rotate);
            }
        }
    }

    /// Where the tile's heads of query `query` (of the row) begin in the batch's queries and output.
    fn place(&self, query: usize) -> usize {
        let first = self.batch.row(self.item.row).first;
        ((first + query) * self.layer.heads + self.item.kv_head * self.group()) * self.layout.head_dim
    }

    /// Where the keys and values of chunk `index` are. If numbers have scales, those of its keys and then those of its values
    /// are put into `scales`.
    fn chunk<T: KvNumber>(&self, planes: &Planes<T>, index: usize, scales: &mut [f32]) -> Chunk<T> {
        let (layout, row) = (self.layout, self.batch.row(self.item.row));
        let base = index * CHUNK;
        let (begin, end) = self.visible(&row, index, 0..self.rows());
        let last = self.layer.visible(&row, self.item.queries.end - 1).end;
        let place = |token: usize| (row.blocks[token / layout.block_size] as usize, token % layout.block_size);
        let mut chunk = Chunk::empty(layout, begin..end);
        chunk.ahead = self.rows() <= FEW_ROWS;
        for group in begin / GROUP..end.div_ceil(GROUP) {
            let (block, offset) = place(base + group * GROUP);
            chunk.keys[group] = planes.keys(block, self.item.kv_head)[offset..].as_ptr();
            chunk.values[group] = planes.values(block, self.item.kv_head)[offset * layout.value_stride..].as_ptr();
            if T::SCALED {
                for (of_values, to) in scales.chunks_exact_mut(CHUNK).enumerate() {
                    let from = planes.scales(block, self.item.kv_head, of_values == 1);
                    to[group * GROUP..][..GROUP].copy_from_slice(&from[offset..][..GROUP]);
                }
                chunk.scales = scales.as_ptr();
            }
        }
        if chunk.ahead {
            let next = base + CHUNK..last.min(base + 2 * CHUNK);
            for (group, token) in next.step_by(GROUP).enumerate() {
                let (block, offset) = place(token);
                chunk.next_keys[group] = planes.keys(block, self.item.kv_head)[offset..].as_ptr();
            }
        }
        chunk
    }

    /// The tokens of chunk `index` that some of `rows` (not none) see, within the chunk.
    #[inline(always)]
    fn visible(&self, sequence: &Row<'_>, index: usize, rows: Range<usize>) -> (usize, usize) {
        let query = |row: usize| self.item.queries.start + row / self.group();
        let start = self.layer.visible(sequence, query(rows.start)).start;
        let end = self.layer.visible(sequence, query(rows.end - 1)).end;
        let base = index * CHUNK;
        (start.clamp(base, base + CHUNK) - base, end.clamp(base, base + CHUNK) - base)
    }
}

/// Cuts `memory` into pieces of these sizes.
fn cut<const N: usize>(mut memory: &mut [f32], sizes: [usize; N]) -> [&mut [f32]; N] {
    sizes.map(|size| {
        let (piece, rest) = std::mem::take(&mut memory).split_at_mut(size);
        memory = rest;
        piece
    })
}

/// Where the results of chunks go.
enum Results<'a> {
    /// They are kept: other items have other chunks of the tile.
    Parts(Partials<'a>),
    /// They are added up: the running result, and memory for that of a strip.
    Total(Partials<'a>, Partials<'a>),
}

/// [`chunk::widen`].
struct Widen<'a, T> {
    chunk: Chunk<T>,
    layout: &'a Layout,
    wide: &'a mut [f32],
}

impl<T: KvNumber> Kernel for Widen<'_, T> {
    type Output = Chunk<f32>;

    #[inline(always)]
    unsafe fn run<S: Simd>(self) -> Chunk<f32> {
        // SAFETY: the chunk points into the pool, which is locked for reading.
        unsafe { chunk::widen::<S, T>(&self.chunk, self.layout, self.wide) }
    }
}

/// One chunk for some rows of a tile.
///
/// (A kernel of its own, so that widened chunks need no other code than those of f32.)
struct Strip<'a, T> {
    tile: &'a Tile<'a>,
    sequence: Row<'a>,
    index: usize,
    rows: Range<usize>,
    chunk: Chunk<T>,
    /// `[rows, head_dim]`
    q: &'a [f32],
    /// `[STRIP, CHUNK]`
    scores: &'a mut [f32],
    part: Part<'a>,
}

impl<T: KvNumber> Kernel for Strip<'_, T> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let Self { tile, sequence, index, rows, chunk, q, scores, part } = self;
        let softcap = tile.layer.softcap.map(|softcap| softcap * std::f32::consts::LOG2_E);
        // SAFETY: the chunk points into the pool, which is locked for reading, or into memory of this call; queries, scores
        // and sums are of the shapes stated.
        unsafe {
            let scores = scores.as_mut_ptr();
            chunk::scores::<S, T>(&chunk, q.as_ptr(), tile.layout.head_dim, rows.len(), scores);
            for (i, row) in rows.clone().enumerate() {
                let visible = tile.visible(&sequence, index, row..row + 1);
                let softened = chunk::soften::<S, T>(&chunk, scores.add(i * CHUNK), visible, softcap);
                (part.greatest[i], part.weights[i]) = softened;
            }
            chunk::weigh::<S, T>(&chunk, scores, rows.len(), part.sums.as_mut_ptr());
        }
    }
}

/// [`Part::merge`].
struct Add<'a> {
    total: Part<'a>,
    part: Part<'a>,
}

impl Kernel for Add<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(mut self) {
        // SAFETY: the instruction set is there.
        unsafe { self.total.merge::<S>(&self.part) };
    }
}

/// Divides by the sums of weights and writes to `out`, where zeros have no sign (whether a sum of chunks is −0 depends on
/// which of them a tile began with).
struct Finish<'a> {
    tile: &'a Tile<'a>,
    total: Partials<'a>,
    out: SharedMut<'a, f32>,
}

impl Kernel for Finish<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(mut self) {
        let (tile, dim, group) = (self.tile, self.tile.layout.head_dim, self.tile.group());
        let stride = tile.layout.value_stride;
        let total = self.total.chunk(0);
        for (i, query) in tile.item.queries.clone().enumerate() {
            let place = tile.place(query);
            // SAFETY: the tile's part of `out` is nobody else's, as who attends or merges promises.
            let out = unsafe { self.out.slice(place..place + group * dim) };
            for head in 0..group {
                let row = i * group + head;
                let scale = 1.0 / total.weights[row];
                let to = &mut out[head * dim..(head + 1) * dim];
                // SAFETY: a row of sums has `stride >= dim` numbers.
                unsafe {
                    let from = total.sums.as_ptr().add(row * stride);
                    for d in (0..dim).step_by(S::LANES) {
                        let v = S::mul_add(S::load(from.add(d)), S::splat(scale), S::splat(0.0));
                        S::store_first(to.as_mut_ptr().add(d), v, S::LANES.min(dim - d));
                    }
                }
            }
        }
    }
}
