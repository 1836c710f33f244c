//! A tile: some queries of one sequence, all heads that share a KV head, over its chunks of the context.

use super::{
    Attention, CHUNK, RaggedBatch,
    batch::Row,
    chunk::{self, Chunk, GROUP},
    plan::Item,
};
use crate::{
    Pool, SharedMut,
    element::Element,
    kv_pool::{Layout, Planes},
    simd::{
        Simd,
        kernel::{Kernel, run},
        math,
    },
    with_scratch,
};

/// Alignment of everything in scratch memory, in f32.
const LINE: usize = 16;

/// A tile of checked arguments.
pub(super) struct Tile<'a, T> {
    pub planes: &'a Planes<T>,
    pub q: &'a [f32],
    pub batch: &'a RaggedBatch<'a>,
    pub layer: &'a Attention,
    pub item: &'a Item,
}

/// What is known of some rows after some chunks: for each row the sum of values, weighted by `2^(score − greatest)`,
/// the greatest score, and the sum of the weights.
pub(super) struct Partials<'a> {
    /// `[.., rows, value_stride]`, followed by `[.., rows]` twice: see [`Partials::size`].
    memory: &'a mut [f32],
    rows: usize,
    stride: usize,
}

impl<'a> Partials<'a> {
    /// f32 that one chunk of `rows` rows takes.
    pub fn size(rows: usize, layout: &Layout) -> usize {
        rows * layout.value_stride + 2 * rows.next_multiple_of(LINE)
    }

    /// Lays partial results of one or more chunks into `memory`.
    pub fn new(memory: &'a mut [f32], rows: usize, layout: &Layout) -> Self {
        Self { memory, rows, stride: layout.value_stride }
    }

    /// Sums, greatest scores and sums of weights of chunk `i`.
    fn chunk(&mut self, i: usize) -> (&mut [f32], &mut [f32], &mut [f32]) {
        let padded = self.rows.next_multiple_of(LINE);
        let size = self.rows * self.stride + 2 * padded;
        let (sums, rest) = self.memory[i * size..(i + 1) * size].split_at_mut(self.rows * self.stride);
        let (greatest, weights) = rest.split_at_mut(padded);
        (sums, greatest, weights)
    }

    fn chunks(&self) -> usize {
        self.memory.len() / (self.rows * self.stride + 2 * self.rows.next_multiple_of(LINE))
    }
}

impl<T: Element> Tile<'_, T> {
    fn group(&self) -> usize {
        self.layer.heads / self.planes.layout().kv_heads
    }

    fn rows(&self) -> usize {
        self.item.queries.len() * self.group()
    }

    /// Goes over the item's chunks and writes the attention of its queries to `out`, or, if other items have the rest
    /// of the chunks, its results to its part of `partials`.
    ///
    /// # Safety
    /// No other call with the same queries, head and chunks may run meanwhile.
    pub unsafe fn attend(&self, pool: &Pool, out: SharedMut<'_, f32>, partials: SharedMut<'_, f32>) {
        let (layout, rows) = (self.planes.layout(), self.rows());
        // SAFETY: by the plan, these are the item's own.
        let partials = self.item.partials.clone().map(|range| unsafe { partials.slice(range) });
        let queries = (rows * layout.head_dim).next_multiple_of(LINE);
        let size = Partials::size(rows, layout);
        let widened = if T::IS_F32 { 0 } else { CHUNK * (layout.head_dim + layout.value_stride) };
        with_scratch(queries + rows * CHUNK + 2 * size + widened, |scratch| {
            let (q, scratch) = scratch.split_at_mut(queries);
            let (scores, scratch) = scratch.split_at_mut(rows * CHUNK);
            let (total, scratch) = scratch.split_at_mut(size);
            let (part, widened) = scratch.split_at_mut(size);
            self.pack(q);
            let total = Partials::new(total, rows, layout);
            match partials {
                Some(partials) => {
                    let parts = Partials::new(partials, rows, layout);
                    run(pool, Attend { tile: self, q, scores, widened, parts, total: None });
                }
                None => {
                    let parts = Partials::new(part, rows, layout);
                    run(pool, Attend { tile: self, q, scores, widened, parts, total: Some((total, out)) });
                }
            }
        });
    }

    /// Merges the partial results of all chunks of the tile and writes the attention of its queries to `out`.
    ///
    /// # Safety
    /// No other call with the same queries and head may run meanwhile.
    pub unsafe fn merge(&self, pool: &Pool, parts: Partials<'_>, out: SharedMut<'_, f32>) {
        let (layout, rows) = (self.planes.layout(), self.rows());
        with_scratch(Partials::size(rows, layout), |total| {
            run(pool, Merge { tile: self, parts, total: Partials::new(total, rows, layout), out });
        });
    }

    /// The tile's queries as `[rows, head_dim]`, rows of a token together, scaled so that scores are exponents of 2 (or,
    /// with a softcap, its tanh's arguments).
    fn pack(&self, packed: &mut [f32]) {
        let dim = self.planes.layout().head_dim;
        let factor = match self.layer.softcap {
            Some(softcap) => self.layer.scale / softcap,
            None => self.layer.scale * std::f32::consts::LOG2_E,
        };
        let width = self.group() * dim;
        for (packed, query) in packed.chunks_exact_mut(width).zip(self.item.queries.clone()) {
            let q = &self.q[self.place(query)..][..width];
            packed.iter_mut().zip(q).for_each(|(packed, q)| *packed = q * factor);
        }
    }

    /// Where the tile's heads of query `query` (of the row) begin in the batch's queries and output.
    fn place(&self, query: usize) -> usize {
        let first = self.batch.row(self.item.row).first;
        ((first + query) * self.layer.heads + self.item.kv_head * self.group()) * self.planes.layout().head_dim
    }

    /// Where the keys and values of chunk `index` are, widened if need be.
    fn chunk(&self, index: usize, widened: &mut [f32]) -> Chunk {
        let (layout, row) = (self.planes.layout(), self.batch.row(self.item.row));
        let base = index * CHUNK;
        let first = self.layer.visible(row.start + self.item.queries.start, row.end()).start;
        let last = self.layer.visible(row.start + self.item.queries.end - 1, row.end()).end;
        let (begin, end) = (first.max(base) - base, last.min(base + CHUNK) - base);
        let null = [std::ptr::null(); CHUNK / GROUP];
        let (value_stride, key_stride) = (layout.value_stride, if T::IS_F32 { layout.block_size } else { CHUNK });
        let mut chunk = Chunk { keys: null, key_stride, values: null, value_stride, begin, end, next_keys: null };
        let (wide_keys, wide_values) = widened.split_at_mut(if T::IS_F32 { 0 } else { layout.head_dim * CHUNK });
        for group in begin / GROUP..end.div_ceil(GROUP) {
            let token = base + group * GROUP;
            let (block, offset) = (row.blocks[token / layout.block_size] as usize, token % layout.block_size);
            let keys = &self.planes.keys(block, self.item.kv_head)[offset..];
            let values = &self.planes.values(block, self.item.kv_head)[offset * value_stride..][..GROUP * value_stride];
            if T::IS_F32 {
                (chunk.keys[group], chunk.values[group]) = (keys.as_ptr().cast(), values.as_ptr().cast());
                continue;
            }
            for dim in 0..layout.head_dim {
                let to = &mut wide_keys[dim * CHUNK + group * GROUP..][..GROUP];
                let from = &keys[dim * layout.block_size..][..GROUP];
                to.iter_mut().zip(from).for_each(|(to, from)| *to = from.to_f32());
            }
            let to = &mut wide_values[group * GROUP * value_stride..][..GROUP * value_stride];
            to.iter_mut().zip(values).for_each(|(to, from)| *to = from.to_f32());
            chunk.keys[group] = wide_keys[group * GROUP..].as_ptr();
            chunk.values[group] = to.as_ptr();
        }
        if T::IS_F32 {
            let next = base + CHUNK..last.min(base + 2 * CHUNK);
            for (group, token) in next.step_by(GROUP).enumerate() {
                let (block, offset) = (row.blocks[token / layout.block_size] as usize, token % layout.block_size);
                chunk.next_keys[group] = self.planes.keys(block, self.item.kv_head)[offset..].as_ptr().cast();
            }
        }
        chunk
    }

    /// The tokens of chunk `index` that row `row` of the tile sees, within the chunk.
    #[inline(always)]
    fn visible(&self, sequence: &Row<'_>, index: usize, row: usize) -> (usize, usize) {
        let position = sequence.start + self.item.queries.start + row / self.group();
        let seen = self.layer.visible(position, sequence.end());
        let base = index * CHUNK;
        (seen.start.clamp(base, base + CHUNK) - base, seen.end.clamp(base, base + CHUNK) - base)
    }
}

/// [`Tile::attend`].
struct Attend<'a, T> {
    tile: &'a Tile<'a, T>,
    /// `[rows, head_dim]`
    q: &'a [f32],
    /// `[rows, CHUNK]`
    scores: &'a mut [f32],
    /// Keys `[head_dim, CHUNK]` and values `[CHUNK, value_stride]` of a chunk, if the pool does not hold f32.
    widened: &'a mut [f32],
    /// Of every chunk, if there is no total; else of one.
    parts: Partials<'a>,
    /// Running result, and where it is to go.
    total: Option<(Partials<'a>, SharedMut<'a, f32>)>,
}

impl<T: Element> Kernel for Attend<'_, T> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let Self { tile, q, scores, widened, mut parts, mut total } = self;
        let (rows, dim) = (tile.rows(), tile.planes.layout().head_dim);
        let sequence = tile.batch.row(tile.item.row);
        let softcap = tile.layer.softcap.map(|softcap| softcap * std::f32::consts::LOG2_E);
        if let Some((total, _)) = &mut total {
            clear(total);
        }
        for index in tile.item.chunks.clone() {
            let chunk = tile.chunk(index, widened);
            let part = if total.is_some() { 0 } else { index - tile.item.chunks.start };
            let (sums, greatest, weights) = parts.chunk(part);
            // SAFETY: the chunk points into the pool, which is locked for reading, or into `widened`; `q`, `scores` and
            // `sums` are of the shapes stated.
            unsafe {
                let scores = scores.as_mut_ptr();
                chunk::scores::<S>(&chunk, q.as_ptr(), dim, rows, scores);
                for row in 0..rows {
                    let visible = tile.visible(&sequence, index, row);
                    (greatest[row], weights[row]) =
                        chunk::soften::<S>(&chunk, scores.add(row * CHUNK), visible, softcap);
                }
                chunk::weigh::<S>(&chunk, scores, rows, sums.as_mut_ptr());
            }
            if let Some((total, _)) = &mut total {
                // SAFETY: the instruction set is there.
                unsafe { merge::<S>(total, &mut parts, part) };
            }
        }
        if let Some((mut total, out)) = total {
            // SAFETY: the instruction set is there, and the item's part of `out` is nobody else's.
            unsafe { finish::<S, T>(tile, &mut total, out) };
        }
    }
}

/// [`Tile::merge`].
struct Merge<'a, T> {
    tile: &'a Tile<'a, T>,
    parts: Partials<'a>,
    total: Partials<'a>,
    out: SharedMut<'a, f32>,
}

impl<T: Element> Kernel for Merge<'_, T> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let Self { tile, mut parts, mut total, out } = self;
        clear(&mut total);
        for part in 0..parts.chunks() {
            // SAFETY: the instruction set is there.
            unsafe { merge::<S>(&mut total, &mut parts, part) };
        }
        // SAFETY: the instruction set is there, and the tile's part of `out` is nobody else's.
        unsafe { finish::<S, T>(tile, &mut total, out) };
    }
}

/// The result of no chunk at all.
fn clear(total: &mut Partials<'_>) {
    let (sums, greatest, weights) = total.chunk(0);
    sums.fill(0.0);
    greatest.fill(f32::NEG_INFINITY);
    weights.fill(0.0);
}

/// Adds chunk `part` of `parts` to `total`.
///
/// # Safety
/// The instruction set must be there.
#[inline(always)]
unsafe fn merge<S: Simd>(total: &mut Partials<'_>, parts: &mut Partials<'_>, part: usize) {
    let (rows, stride) = (total.rows, total.stride);
    let (sums, greatest, weights) = total.chunk(0);
    let (part_sums, part_greatest, part_weights) = parts.chunk(part);
    for row in 0..rows {
        if part_greatest[row] == f32::NEG_INFINITY {
            // The row sees nothing of this chunk.
            continue;
        }
        let (old, new) = (greatest[row], part_greatest[row]);
        let both = if old > new { old } else { new };
        // SAFETY: sums are `[rows, stride]`, and the stride is a multiple of 16 and so of the lanes.
        unsafe {
            let old = math::exp2::<S>(S::splat(old - both));
            let new = math::exp2::<S>(S::splat(new - both));
            let (to, from) = (sums.as_mut_ptr().add(row * stride), part_sums.as_ptr().add(row * stride));
            for i in (0..stride).step_by(S::LANES) {
                S::store(to.add(i), S::mul_add(S::load(from.add(i)), new, S::mul(S::load(to.add(i)), old)));
            }
            let mut lanes = [0.0f32; 16];
            S::store(
                lanes.as_mut_ptr(),
                S::mul_add(S::splat(part_weights[row]), new, S::mul(S::splat(weights[row]), old)),
            );
            weights[row] = lanes[0];
        }
        greatest[row] = both;
    }
}

/// Divides by the sums of weights and writes to `out`.
///
/// # Safety
/// The instruction set must be there, and the tile's part of `out` be nobody else's.
#[inline(always)]
unsafe fn finish<S: Simd, T: Element>(tile: &Tile<'_, T>, total: &mut Partials<'_>, out: SharedMut<'_, f32>) {
    let (dim, stride, group) = (tile.planes.layout().head_dim, total.stride, tile.group());
    let (sums, _, weights) = total.chunk(0);
    for (i, query) in tile.item.queries.clone().enumerate() {
        let place = tile.place(query);
        // SAFETY: as this function's.
        let out = unsafe { out.slice(place..place + group * dim) };
        for head in 0..group {
            let row = i * group + head;
            let scale = 1.0 / weights[row];
            let to = &mut out[head * dim..(head + 1) * dim];
            // SAFETY: a row of sums has `stride >= dim` numbers.
            unsafe {
                let from = sums.as_ptr().add(row * stride);
                for d in (0..dim).step_by(S::LANES) {
                    let v = S::mul(S::load(from.add(d)), S::splat(scale));
                    S::store_first(to.as_mut_ptr().add(d), v, S::LANES.min(dim - d));
                }
            }
        }
    }
}
